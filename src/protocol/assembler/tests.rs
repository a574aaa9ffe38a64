//! Tests of messages in parts, and of the memory of an unfinished message.

use super::*;
use crate::protocol::client::frame;

fn text(text: &str) -> Item<'static> {
    Item::Text(Cow::Owned(text.to_owned()))
}

#[test]
fn a_stream_has_the_same_items_wherever_it_is_split() {
    let mut stream = frame(true, Opcode::Text, "grüß".as_bytes());
    stream.extend(frame(false, Opcode::Text, &"漢字".as_bytes()[..4]));
    stream.extend(frame(true, Opcode::Ping, b"now"));
    stream.extend(frame(true, Opcode::Continuation, &"漢字".as_bytes()[4..]));
    stream.extend(frame(true, Opcode::Binary, &[1; 200]));
    stream.extend(frame(true, Opcode::Text, b""));
    stream.extend(frame(true, Opcode::Close, b"\x03\xe8"));
    let expected = [
        text("grüß"),
        Item::Ping(Cow::Borrowed(b"now")),
        text("漢字"),
        Item::Binary(Cow::Owned(vec![1; 200])),
        text(""),
        Item::Close(Cow::Borrowed(b"\x03\xe8")),
    ];
    for first in 1..stream.len() {
        let run = run_stream(&stream, &[first, stream.len()], 1 << 20);
        assert_eq!(run.error, None);
        assert_eq!(run.items, expected, "the items must be the same if the stream is split at {first}");
    }
    assert_eq!(run_stream(&stream, &[1], 1 << 20).items, expected);
}

#[test]
fn a_complete_message_is_borrowed_and_leaves_no_state() {
    let mut bytes = frame(true, Opcode::Text, b"hello");
    let mut unfinished = None;
    let mut input = &mut bytes[..];
    let item =
        Assembler::next(&mut unfinished, &mut input, MessageRules::plain(100), Tick(0), &mut AssemblerPool::new());
    assert_eq!(item, Ok(Some(Item::Text(Cow::Borrowed("hello")))));
    assert!(matches!(item, Ok(Some(Item::Text(Cow::Borrowed(_))))));
    assert!(unfinished.is_none());
}

#[test]
fn memory_grows_with_the_received_bytes_and_not_with_the_announced_length() {
    let mut bytes = frame(true, Opcode::Binary, &vec![5; 1 << 20]);
    bytes.truncate(100);
    let mut unfinished = None;
    let mut input = &mut bytes[..];
    let item =
        Assembler::next(&mut unfinished, &mut input, MessageRules::plain(1 << 24), Tick(7), &mut AssemblerPool::new());
    assert_eq!(item, Ok(None));
    let assembler = unfinished.expect("the message must be unfinished");
    assert!(
        assembler.binary.capacity() <= 256,
        "the capacity must be at most 256, not {}",
        assembler.binary.capacity()
    );
    assert_eq!(assembler.started(), Tick(7));
}

#[test]
fn the_memory_of_a_message_is_counted_until_it_is_complete_or_dropped() {
    let total = MemoryTotal::default();
    let mut pool = AssemblerPool::counted_in(&total);
    let bytes = frame(true, Opcode::Binary, &[5; 5000]);
    for is_finished in [true, false] {
        let (mut unfinished, mut bytes) = (None, bytes.clone());
        let (mut input, mut rest) = bytes.split_at_mut(4000);
        let item = Assembler::next(&mut unfinished, &mut input, MessageRules::plain(1 << 20), Tick(0), &mut pool);
        assert_eq!(item, Ok(None));
        let memory = unfinished.as_ref().map_or(0, |unfinished| unfinished.memory_bytes());
        assert!((4000..8192 + 400).contains(&memory), "the memory must be 4000 to 8591 bytes, not {memory}");
        assert_eq!(total.bytes(), memory);
        if is_finished {
            let item = Assembler::next(&mut unfinished, &mut rest, MessageRules::plain(1 << 20), Tick(0), &mut pool);
            assert!(matches!(item, Ok(Some(_))));
        }
        drop(unfinished);
        assert_eq!(total.bytes(), 0);
    }
}

#[test]
fn an_invalid_text_is_refused_at_its_first_invalid_byte() {
    let stream = frame(true, Opcode::Text, b"ok \xed\xa0 and much more");
    let mut unfinished = None;
    for (index, &byte) in stream.iter().enumerate() {
        let mut part = [byte];
        let item = Assembler::next(
            &mut unfinished,
            &mut &mut part[..],
            MessageRules::plain(100),
            Tick(0),
            &mut AssemblerPool::new(),
        );
        let is_bad = index == 6 + 4;
        assert_eq!(
            item,
            if is_bad { Err(ProtocolError::TextNotUtf8.into()) } else { Ok(None) },
            "byte {index} must have the expected result"
        );
        if is_bad {
            return;
        }
    }
    panic!("the invalid text must be refused");
}

#[test]
fn a_valid_message_before_an_invalid_frame_is_delivered() {
    let stream = [frame(true, Opcode::Text, b"good"), b"\xc1".to_vec()].concat();
    let run = run_stream(&stream, &[stream.len()], 100);
    assert_eq!(run.items, [text("good")]);
    assert_eq!(run.error, Some(ProtocolError::ReservedBits.into()));
}

#[test]
fn an_assembler_takes_no_more_memory_than_the_longest_message() {
    const MESSAGE_BYTES_MAX: usize = 100_000;
    for opcode in [Opcode::Text, Opcode::Binary] {
        let stream = frame(true, opcode, &[b'x'; MESSAGE_BYTES_MAX]);
        for part in [1000, 32_778, 49_900, 60_000, 99_999] {
            let (mut unfinished, mut pool, mut most) = (None, AssemblerPool::new(), 0);
            for part in stream.chunks(part) {
                let mut part = part.to_vec();
                let rules = MessageRules::plain(MESSAGE_BYTES_MAX as u64);
                let item = Assembler::next(&mut unfinished, &mut &mut part[..], rules, Tick(0), &mut pool);
                assert!(item.is_ok());
                most = most.max(unfinished.as_ref().map_or(0, |unfinished| unfinished.memory_bytes()));
            }
            assert!(
                most <= MESSAGE_BYTES_MAX + UTF8_BYTES_MAX + size_of::<Assembler>(),
                "the assembler must take at most the length of the message, not {most}"
            );
        }
    }
}

#[test]
fn an_assembler_keeps_no_part_of_a_skipped_message_for_the_next_client() {
    // The first example of RFC 7692 section 7.2.3.1.
    let mut hello = frame(true, Opcode::Text, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    hello[0] |= 0x40;
    let total = MemoryTotal::default();
    let mut pool = AssemblerPool::counted_in(&total);
    let mut read = |unfinished: &mut Option<Box<Assembler>>, bytes: &[u8], deflated: DeflatedMessages| {
        let mut bytes = bytes.to_vec();
        let rules = MessageRules { bytes_max: 100, deflated };
        let item = Assembler::next(unfinished, &mut &mut bytes[..], rules, Tick(0), &mut pool);
        item.map(|item| item.map(Item::into_owned))
    };
    let (first, second) = hello.split_at(9);
    // The server sends a close frame to the first client between the two parts of the client's message.
    let mut unfinished = None;
    assert_eq!(read(&mut unfinished, first, DeflatedMessages::Inflated), Ok(None));
    assert!(read(&mut unfinished, second, DeflatedMessages::Skipped).is_ok());
    assert!(unfinished.is_none());
    assert_eq!(read(&mut unfinished, first, DeflatedMessages::Inflated), Ok(None));
    assert_eq!(read(&mut unfinished, second, DeflatedMessages::Inflated), Ok(Some(text("Hello"))));
    assert_eq!(total.bytes(), 0, "the total must count no memory of pooled assemblers");
}
