//! Messages that the handler borrows from the input.

use super::*;
use crate::protocol::message::Message;

/// Takes a message from the front of `bytes`.
///
/// Returns a description and the bytes left.
fn taken(rig: &mut Rig, bytes: &[u8]) -> (String, usize) {
    let mut copy = bytes.to_vec();
    let whole = copy.as_ptr_range();
    let mut input = &mut copy[..];
    let events = match rig.connection.handle_message(&mut input, &mut rig.env) {
        Ok(Some(message)) => {
            let lent = message.as_bytes().as_ptr_range();
            assert!(whole.start <= lent.start && lent.end <= whole.end, "copied, not lent");
            match message {
                Message::Text(text) => format!("text {text}"),
                Message::Binary(bytes) => format!("binary {bytes:?}"),
            }
        }
        Ok(None) => "nothing".to_owned(),
        Err(end) => describe(&end),
    };
    let left = input.len();
    assert!(events != "nothing" || copy == bytes, "{bytes:?} became {copy:?}");
    (events, left)
}

#[test]
fn a_whole_message_is_borrowed_from_the_input() {
    let mut rig = Rig::open(Limits::default());
    for (opcode, first) in [(Opcode::Text, "text first"), (Opcode::Binary, "binary [102, 105, 114, 115, 116]")] {
        let two = [frame(true, opcode, b"first"), frame(true, opcode, b"2nd")].concat();
        assert_eq!(taken(&mut rig, &two), (first.to_owned(), 9));
        for cut in 0..11 {
            assert_eq!(taken(&mut rig, &two[..cut]), ("nothing".to_owned(), cut));
        }
    }
    assert_eq!(rig.connection.traffic().messages_in, 2);
}

#[test]
fn other_input_is_left_for_the_decoder() {
    let mut rig = Rig::open(Limits { message_bytes_max: 8, ..Limits::default() });
    let nothing = |bytes: &[u8]| ("nothing".to_owned(), bytes.len());
    for opcode in [Opcode::Text, Opcode::Binary] {
        let (part, large) = (frame(false, opcode, b"part"), frame(true, opcode, b"too large"));
        for other in [part, large, frame(true, Opcode::Ping, b"ping"), b"\xf1\x80\0\0\0\0".to_vec()] {
            assert_eq!(taken(&mut rig, &other), nothing(&other));
        }
    }
    // In the middle of a message, the decoder must check a frame that looks like a message.
    rig.feed(&frame(false, Opcode::Text, b"begun"));
    let text = frame(true, Opcode::Text, b"text");
    assert_eq!(taken(&mut rig, &text), nothing(&text));
    assert_eq!(rig.feed(&text), ["closed 1002 \"new message inside a fragmented message\" (protocol_error) by Server"]);
    assert_eq!(taken(&mut rig, &text), nothing(&text), "input is ignored after the end");
    assert_eq!(rig.connection.traffic().messages_in, 0);
}

#[test]
fn an_invalid_message_ends_the_connection() {
    let unmasked = b"\x81\x01\0".to_vec();
    let events = [(unmasked, "1002 \"client frame is not masked\""), (frame(true, Opcode::Text, b"\xff"), "1007 \"")];
    for (bytes, why) in events {
        let mut rig = Rig::open(Limits::default());
        let (end, _) = taken(&mut rig, &bytes);
        assert!(end.starts_with(&format!("closed {why}")), "{end}");
        assert_eq!(rig.connection.state(), State::Closing);
        assert_eq!(taken(&mut rig, &frame(true, Opcode::Text, b"text")).0, "nothing");
        assert_eq!(rig.connection.traffic().messages_in, 0);
    }
}
