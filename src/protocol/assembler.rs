//! The message assembler: joins the payloads of frames into messages.
//!
//! It follows RFC 6455 sections 5.4 and 5.6.
//!
//! Nearly all messages are complete in the input. They are returned as borrowed slices of it. Only the start of an
//! unfinished message is copied, into an `Assembler` that exists as long as that message does. An idle connection has
//! none. The memory of an assembler grows with bytes received, never with a length announced.

use std::borrow::Cow;
use std::collections::TryReserveError;
use std::mem;

use crate::protocol::decoder::{Decoder, Ends, PayloadPart, advance};
use crate::protocol::error::ProtocolError;
use crate::protocol::frame::{Header, Opcode};
use crate::protocol::mask::unmask;
use crate::protocol::memory::{MemoryShare, MemoryTotal};
use crate::protocol::message::Message;
use crate::protocol::utf8::{self, Utf8Stream};
use crate::tick::Tick;

/// A message or a control frame from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A text message, valid UTF-8.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping. The answer is a pong with the same payload.
    Ping(Cow<'a, [u8]>),
    /// A pong, solicited or not.
    Pong(Cow<'a, [u8]>),
    /// A close frame. Its payload is not checked yet.
    Close(Cow<'a, [u8]>),
}

impl<'a> From<Message<'a>> for Item<'a> {
    fn from(message: Message<'a>) -> Item<'a> {
        match message {
            Message::Text(text) => Item::Text(Cow::Borrowed(text)),
            Message::Binary(bytes) => Item::Binary(Cow::Borrowed(bytes)),
        }
    }
}

/// An unfinished message.
#[derive(Debug, Default)]
pub struct Assembler {
    decoder: Decoder,
    /// The payload so far: in `text` or `binary`, by opcode.
    text: String,
    binary: Vec<u8>,
    utf8: Utf8Stream,
    /// The payload so far of a control frame that arrives in parts.
    ///
    /// It may come between two fragments of the message.
    control: Vec<u8>,
    /// The arrival time of the first byte.
    started: Tick,
    /// The memory of an unfinished message, with this struct.
    memory: MemoryShare,
}

/// A pool of unused assemblers.
///
/// It saves an allocation for each large message.
#[derive(Debug, Default)]
pub struct AssemblerPool {
    #[expect(clippy::vec_box, reason = "the box moves to the connection")]
    boxes: Vec<Box<Assembler>>,
    /// The memory of all assemblers in use.
    memory: MemoryTotal,
}

/// An error that ends the connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum AssemblerError {
    /// The client violated RFC 6455.
    Protocol(ProtocolError),
    /// Memory for received bytes could not be allocated.
    OutOfMemory,
}

impl From<ProtocolError> for AssemblerError {
    fn from(error: ProtocolError) -> AssemblerError {
        AssemblerError::Protocol(error)
    }
}

impl From<TryReserveError> for AssemblerError {
    fn from(_: TryReserveError) -> AssemblerError {
        AssemblerError::OutOfMemory
    }
}

/// The maximum number of pooled assemblers, of some 300 bytes each.
const POOLED_MAX: usize = 64;

/// The longest character in bytes.
///
/// A character that began in an earlier part may be completed by the next.
const UTF8_BYTES_MAX: usize = 4;

impl AssemblerPool {
    /// Creates an empty pool with its own total.
    #[cfg(any(test, feature = "unstable"))]
    pub fn new() -> AssemblerPool {
        AssemblerPool::default()
    }

    /// Creates an empty pool whose assemblers are counted in `memory`.
    pub fn counted_in(memory: &MemoryTotal) -> AssemblerPool {
        AssemblerPool { boxes: Vec::new(), memory: memory.clone() }
    }

    fn take(&mut self) -> Box<Assembler> {
        self.boxes.pop().unwrap_or_else(|| Box::new(Assembler { memory: self.memory.share(), ..Assembler::default() }))
    }

    fn give(&mut self, mut done: Box<Assembler>) {
        if self.boxes.len() < POOLED_MAX {
            done.memory.set(0);
            self.boxes.push(done);
        }
    }
}

impl Assembler {
    /// Returns the next item and advances `input` past it.
    ///
    /// Returns `None` once `input` is used up. `unfinished` belongs to the connection: the unfinished message of
    /// earlier input, if any. `message_bytes_max` limits the payload of a message. `now` becomes the arrival time of a
    /// message that starts here.
    ///
    /// # Errors
    /// The client violated RFC 6455, or memory is exhausted. The connection cannot continue.
    pub fn next<'a>(
        unfinished: &mut Option<Box<Assembler>>,
        input: &mut &'a mut [u8],
        message_bytes_max: u64,
        now: Tick,
        pool: &mut AssemblerPool,
    ) -> Result<Option<Item<'a>>, AssemblerError> {
        if unfinished.is_none() {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some(message) = take_message(input, message_bytes_max)? {
                return Ok(Some(message.into()));
            }
            if let Some(control) = take_control(input)? {
                return Ok(Some(control));
            }
        }
        let assembler = unfinished.get_or_insert_with(|| {
            let mut assembler = pool.take();
            assembler.started = now;
            assembler
        });
        let item = assembler.assemble(input, message_bytes_max)?;
        if !assembler.decoder.is_idle() {
            assembler.memory.set(assembler.allocated_bytes());
        } else if let Some(done) = unfinished.take() {
            pool.give(done);
        }
        Ok(item)
    }

    /// Returns the memory of this assembler in bytes.
    ///
    /// The value is that of the last call of [`next`](Assembler::next).
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }

    fn allocated_bytes(&self) -> usize {
        size_of::<Assembler>() + self.text.capacity() + self.binary.capacity() + self.control.capacity()
    }

    /// Returns the arrival time of the first byte of the unfinished message.
    pub fn started(&self) -> Tick {
        self.started
    }

    fn assemble<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        message_bytes_max: u64,
    ) -> Result<Option<Item<'a>>, AssemblerError> {
        while let Some(part) = self.decoder.decode(input, message_bytes_max)? {
            if let Some(item) = self.add(part)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn add(&mut self, part: PayloadPart<'_>) -> Result<Option<Item<'static>>, AssemblerError> {
        let is_whole = part.ends == Ends::Message;
        match part.opcode {
            Opcode::Text => {
                self.text.try_reserve(part.payload.len() + UTF8_BYTES_MAX)?;
                self.utf8.push(part.payload, &mut self.text).map_err(|_| ProtocolError::TextNotUtf8)?;
                if is_whole {
                    self.utf8.finish().map_err(|_| ProtocolError::TextNotUtf8)?;
                    return Ok(Some(Item::Text(Cow::Owned(mem::take(&mut self.text)))));
                }
            }
            Opcode::Binary | Opcode::Continuation => {
                self.binary.try_reserve(part.payload.len())?;
                self.binary.extend_from_slice(part.payload);
                if is_whole {
                    return Ok(Some(Item::Binary(Cow::Owned(mem::take(&mut self.binary)))));
                }
            }
            Opcode::Ping | Opcode::Pong | Opcode::Close => {
                self.control.extend_from_slice(part.payload);
                if is_whole {
                    return Ok(Some(control_item(part.opcode, Cow::Owned(mem::take(&mut self.control)))));
                }
            }
        }
        Ok(None)
    }
}

/// The first byte of an unfragmented message.
const WHOLE_TEXT: u8 = 0x80 | Opcode::Text as u8;
const WHOLE_BINARY: u8 = 0x80 | Opcode::Binary as u8;

/// Takes a message that is one complete frame from `input`.
///
/// This is the common case. Nothing is copied or stored. In all other cases the result is `None` and `input` is
/// unchanged. The stream must not be inside a message or a frame.
///
/// # Errors
/// The frame violates RFC 6455, or its text is not UTF-8.
#[inline]
pub fn take_message<'a>(
    input: &mut &'a mut [u8],
    message_bytes_max: u64,
) -> Result<Option<Message<'a>>, ProtocolError> {
    let is_text = match input.first() {
        Some(&WHOLE_TEXT) => true,
        Some(&WHOLE_BINARY) => false,
        _ => return Ok(None),
    };
    let Some(header) = Header::parse(input)? else { return Ok(None) };
    // The decoder reports a message over the limit, complete or not.
    if header.payload_bytes > message_bytes_max {
        return Ok(None);
    }
    let Some(payload) = take_payload(input, &header) else { return Ok(None) };
    if !is_text {
        return Ok(Some(Message::Binary(payload)));
    }
    match utf8::validate(payload) {
        Ok(text) => Ok(Some(Message::Text(text))),
        Err(_) => Err(ProtocolError::TextNotUtf8),
    }
}

/// Takes a complete control frame from `input`, as [`take_message`] does.
fn take_control<'a>(input: &mut &'a mut [u8]) -> Result<Option<Item<'a>>, ProtocolError> {
    let Some(header) = Header::parse(input)?.filter(|header| header.opcode.is_control()) else { return Ok(None) };
    let payload = take_payload(input, &header);
    Ok(payload.map(|payload| control_item(header.opcode, Cow::Borrowed(payload))))
}

/// Takes a complete frame from `input` and returns its unmasked payload.
///
/// `None` if the frame is incomplete.
#[inline]
fn take_payload<'a>(input: &mut &'a mut [u8], header: &Header) -> Option<&'a [u8]> {
    if header.payload_bytes > (input.len() - header.header_bytes) as u64 {
        return None;
    }
    let frame = advance(input, header.header_bytes + header.payload_bytes as usize);
    let (_, payload) = frame.split_at_mut(header.header_bytes);
    unmask(payload, header.mask, 0);
    Some(payload)
}

fn control_item(opcode: Opcode, payload: Cow<'_, [u8]>) -> Item<'_> {
    match opcode {
        Opcode::Ping => Item::Ping(payload),
        Opcode::Pong => Item::Pong(payload),
        _ => Item::Close(payload),
    }
}

/// Runs the fuzz target `frames`.
///
/// The first bytes of `data` define chunk sizes. The rest is a client's stream. Items and errors must be the same with
/// and without division into chunks.
#[cfg(any(test, feature = "unstable"))]
pub fn fuzz_frames(data: &[u8]) {
    const MESSAGE_BYTES_MAX: u64 = 1 << 16;
    let Some((cuts, stream)) = data.split_first_chunk::<4>() else { return };
    let sizes = cuts.map(|size| usize::from(size) + 1);
    let whole = run_stream(stream, &[stream.len().max(1)], MESSAGE_BYTES_MAX);
    let cut = run_stream(stream, &sizes, MESSAGE_BYTES_MAX);
    let bytewise = run_stream(stream, &[1], MESSAGE_BYTES_MAX);
    assert_eq!(whole.items, cut.items);
    assert_eq!(whole.items, bytewise.items);
    // A complete frame of invalid text fails at its end, one in parts at the invalid byte. The error is the same. It
    // may be reported before the header of a later frame was read.
    assert_eq!(whole.error, cut.error);
    assert_eq!(whole.error, bytewise.error);
}

#[cfg(any(test, feature = "unstable"))]
struct Run {
    items: Vec<Item<'static>>,
    error: Option<AssemblerError>,
}

#[cfg(any(test, feature = "unstable"))]
fn run_stream(stream: &[u8], sizes: &[usize], message_bytes_max: u64) -> Run {
    let mut unfinished = None;
    let mut pool = AssemblerPool::new();
    let mut items = Vec::new();
    let mut rest = stream;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, rest_after) = rest.split_at(size.min(rest.len()));
        rest = rest_after;
        let mut part = part.to_vec();
        let mut input = &mut part[..];
        loop {
            match Assembler::next(&mut unfinished, &mut input, message_bytes_max, Tick(0), &mut pool) {
                Ok(Some(item)) => items.push(into_owned(item)),
                Ok(None) => break,
                Err(error) => return Run { items, error: Some(error) },
            }
        }
    }
    Run { items, error: None }
}

#[cfg(any(test, feature = "unstable"))]
fn into_owned(item: Item<'_>) -> Item<'static> {
    match item {
        Item::Text(text) => Item::Text(Cow::Owned(text.into_owned())),
        Item::Binary(bytes) => Item::Binary(Cow::Owned(bytes.into_owned())),
        Item::Ping(payload) => Item::Ping(Cow::Owned(payload.into_owned())),
        Item::Pong(payload) => Item::Pong(Cow::Owned(payload.into_owned())),
        Item::Close(payload) => Item::Close(Cow::Owned(payload.into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::frame;

    fn text(text: &str) -> Item<'static> {
        Item::Text(Cow::Owned(text.to_owned()))
    }

    #[test]
    fn items_are_the_same_at_every_split() {
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
            assert_eq!(run.items, expected, "split at {first}");
        }
        assert_eq!(run_stream(&stream, &[1], 1 << 20).items, expected);
    }

    #[test]
    fn a_complete_message_is_borrowed_and_leaves_no_state() {
        let mut bytes = frame(true, Opcode::Text, b"hello");
        let mut unfinished = None;
        let mut input = &mut bytes[..];
        let item = Assembler::next(&mut unfinished, &mut input, 100, Tick(0), &mut AssemblerPool::new());
        assert_eq!(item, Ok(Some(Item::Text(Cow::Borrowed("hello")))));
        assert!(matches!(item, Ok(Some(Item::Text(Cow::Borrowed(_))))));
        assert!(unfinished.is_none());
    }

    #[test]
    fn memory_grows_with_bytes_received_not_announced() {
        let mut bytes = frame(true, Opcode::Binary, &vec![5; 1 << 20]);
        bytes.truncate(100);
        let mut unfinished = None;
        let mut input = &mut bytes[..];
        let item = Assembler::next(&mut unfinished, &mut input, 1 << 24, Tick(7), &mut AssemblerPool::new());
        assert_eq!(item, Ok(None));
        let assembler = unfinished.expect("a message began");
        assert!(assembler.binary.capacity() <= 256, "{}", assembler.binary.capacity());
        assert_eq!(assembler.started(), Tick(7));
    }

    #[test]
    fn memory_is_counted_until_the_message_is_finished_or_dropped() {
        let total = MemoryTotal::default();
        let mut pool = AssemblerPool::counted_in(&total);
        let bytes = frame(true, Opcode::Binary, &[5; 5000]);
        for is_finished in [true, false] {
            let (mut unfinished, mut bytes) = (None, bytes.clone());
            let (mut input, mut rest) = bytes.split_at_mut(4000);
            let item = Assembler::next(&mut unfinished, &mut input, 1 << 20, Tick(0), &mut pool);
            assert_eq!(item, Ok(None));
            let memory = unfinished.as_ref().map_or(0, |unfinished| unfinished.memory_bytes());
            assert!((4000..8192 + 400).contains(&memory), "{memory}");
            assert_eq!(total.bytes(), memory);
            if is_finished {
                let item = Assembler::next(&mut unfinished, &mut rest, 1 << 20, Tick(0), &mut pool);
                assert!(matches!(item, Ok(Some(_))));
            }
            drop(unfinished);
            assert_eq!(total.bytes(), 0);
        }
    }

    #[test]
    fn invalid_text_fails_at_its_first_invalid_byte() {
        let stream = frame(true, Opcode::Text, b"ok \xed\xa0 and much more");
        let mut unfinished = None;
        for (index, &byte) in stream.iter().enumerate() {
            let mut part = [byte];
            let item = Assembler::next(&mut unfinished, &mut &mut part[..], 100, Tick(0), &mut AssemblerPool::new());
            let is_bad = index == 6 + 4;
            assert_eq!(item, if is_bad { Err(ProtocolError::TextNotUtf8.into()) } else { Ok(None) }, "byte {index}");
            if is_bad {
                return;
            }
        }
        panic!("the invalid text was accepted");
    }

    #[test]
    fn a_valid_message_before_an_invalid_frame_is_delivered() {
        let stream = [frame(true, Opcode::Text, b"good"), b"\xc1".to_vec()].concat();
        let run = run_stream(&stream, &[stream.len()], 100);
        assert_eq!(run.items, [text("good")]);
        assert_eq!(run.error, Some(ProtocolError::ReservedBits.into()));
    }
}
