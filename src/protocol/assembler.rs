//! The message layer: pieces of frames into whole messages, RFC 6455 sections 5.4 and 5.6.
//!
//! A message that lies whole in the input, as nearly all do, is lent out where it lies. Only the start of an
//! unfinished one is kept, in an `Assembler` that exists for as long as that message does, so an idle connection has
//! none. What it keeps grows by bytes that came, never by a length that was announced.

use std::borrow::Cow;
use std::collections::TryReserveError;
use std::mem;

use crate::protocol::decoder::{Decoder, Ends, Piece, advance};
use crate::protocol::error::ProtocolError;
use crate::protocol::frame::{Header, Opcode};
use crate::protocol::held::{HeldShare, HeldTotal};
use crate::protocol::mask::unmask;
use crate::protocol::message::Message;
use crate::protocol::utf8::{self, Utf8Stream};
use crate::tick::Tick;

/// What a client sent: a whole message or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A text message, valid UTF-8.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping, to be answered with the same payload.
    Ping(Cow<'a, [u8]>),
    /// A pong, asked for or not.
    Pong(Cow<'a, [u8]>),
    /// A close frame; its payload is not judged yet.
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

/// The start of a message that is not all there.
#[derive(Debug, Default)]
pub struct Assembler {
    decoder: Decoder,
    /// The message's bytes so far: in `text` or `binary`, after its opcode.
    text: String,
    binary: Vec<u8>,
    utf8: Utf8Stream,
    /// A control frame that came in parts, perhaps between two fragments of the message.
    control: Vec<u8>,
    /// When the message's first byte came.
    started: Tick,
    /// The memory that it takes up, itself included, while a message is unfinished.
    held: HeldShare,
}

/// Assemblers that are not needed just now. A server whose clients send large messages makes no new one for each.
#[derive(Debug, Default)]
pub struct Spares {
    #[expect(clippy::vec_box, reason = "an assembler moves to a connection by its box")]
    boxes: Vec<Box<Assembler>>,
    /// What all assemblers that are in use take up.
    held: HeldTotal,
}

/// Why the next item cannot be had. It ends the connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum AssemblerError {
    /// The client broke a rule.
    Protocol(ProtocolError),
    /// There is no memory for what came.
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

/// How many assemblers are worth keeping; each is some 300 bytes.
const SPARES_MAX: usize = 64;

/// The most that a character takes up which began in an earlier piece.
const UTF8_BYTES_MAX: usize = 4;

impl Spares {
    /// No spares, and a total of their own.
    pub fn new() -> Spares {
        Spares::default()
    }

    /// Spares whose assemblers count in `held`.
    pub fn counted_in(held: &HeldTotal) -> Spares {
        Spares { boxes: Vec::new(), held: held.clone() }
    }

    fn take(&mut self) -> Box<Assembler> {
        self.boxes.pop().unwrap_or_else(|| Box::new(Assembler { held: self.held.share(), ..Assembler::default() }))
    }

    fn give(&mut self, mut done: Box<Assembler>) {
        if self.boxes.len() < SPARES_MAX {
            done.held.set(0);
            self.boxes.push(done);
        }
    }
}

impl Assembler {
    /// The next item of `input`, which is moved past what was read. `None`: `input` is used up.
    ///
    /// `unfinished` is the connection's: the start of a message that earlier input left, if any.
    pub fn next<'a>(
        unfinished: &mut Option<Box<Assembler>>,
        input: &mut &'a mut [u8],
        message_bytes_max: u64,
        now: Tick,
        spares: &mut Spares,
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
            let mut assembler = spares.take();
            assembler.started = now;
            assembler
        });
        let item = assembler.assemble(input, message_bytes_max)?;
        if !assembler.decoder.is_idle() {
            assembler.held.set(assembler.memory());
        } else if let Some(done) = unfinished.take() {
            spares.give(done);
        }
        Ok(item)
    }

    /// The memory that it takes up, as of the last call of [`next`](Assembler::next).
    #[inline]
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    fn memory(&self) -> usize {
        size_of::<Assembler>() + self.text.capacity() + self.binary.capacity() + self.control.capacity()
    }

    /// When the unfinished message's first byte came.
    pub fn started(&self) -> Tick {
        self.started
    }

    fn assemble<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        message_bytes_max: u64,
    ) -> Result<Option<Item<'a>>, AssemblerError> {
        while let Some(piece) = self.decoder.decode(input, message_bytes_max)? {
            if let Some(item) = self.add(piece)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn add(&mut self, piece: Piece<'_>) -> Result<Option<Item<'static>>, AssemblerError> {
        let is_whole = piece.ends == Ends::Message;
        match piece.opcode {
            Opcode::Text => {
                self.text.try_reserve(piece.payload.len() + UTF8_BYTES_MAX)?;
                self.utf8.push(piece.payload, &mut self.text).map_err(|_| ProtocolError::TextNotUtf8)?;
                if is_whole {
                    self.utf8.finish().map_err(|_| ProtocolError::TextNotUtf8)?;
                    return Ok(Some(Item::Text(Cow::Owned(mem::take(&mut self.text)))));
                }
            }
            Opcode::Binary | Opcode::Continuation => {
                self.binary.try_reserve(piece.payload.len())?;
                self.binary.extend_from_slice(piece.payload);
                if is_whole {
                    return Ok(Some(Item::Binary(Cow::Owned(mem::take(&mut self.binary)))));
                }
            }
            Opcode::Ping | Opcode::Pong | Opcode::Close => {
                self.control.extend_from_slice(piece.payload);
                if is_whole {
                    return Ok(Some(control_item(piece.opcode, Cow::Owned(mem::take(&mut self.control)))));
                }
            }
        }
        Ok(None)
    }
}

/// The first byte of a frame that is a message of its own.
const WHOLE_TEXT: u8 = 0x80 | Opcode::Text as u8;
const WHOLE_BINARY: u8 = 0x80 | Opcode::Binary as u8;

/// The message at the front of `input`, where it is all in one frame that lies there whole: the common case, in which
/// nothing is copied and nothing kept. `None`: it is something else, and `input` is as it was.
///
/// Only for a stream that is not in the middle of a message or frame.
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
    // One that is too big is found out by its header, whole or not: by the decoder.
    if header.payload_bytes > message_bytes_max {
        return Ok(None);
    }
    let Some(payload) = take_payload(input, &header) else { return Ok(None) };
    if !is_text {
        return Ok(Some(Message::Binary(payload)));
    }
    match utf8::text(payload) {
        Ok(text) => Ok(Some(Message::Text(text))),
        Err(_) => Err(ProtocolError::TextNotUtf8),
    }
}

/// The same for a control frame.
fn take_control<'a>(input: &mut &'a mut [u8]) -> Result<Option<Item<'a>>, ProtocolError> {
    let Some(header) = Header::parse(input)?.filter(|header| header.opcode.is_control()) else { return Ok(None) };
    let payload = take_payload(input, &header);
    Ok(payload.map(|payload| control_item(header.opcode, Cow::Borrowed(payload))))
}

/// The payload of the frame at the front of `input`, unmasked, if it is all there.
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

/// The body of the fuzz target `frames`: the first bytes of `data` say how the rest, a client's stream, is cut; cut or
/// whole, the same items and the same error must come out.
#[doc(hidden)]
pub fn fuzz_frames(data: &[u8]) {
    const MESSAGE_BYTES_MAX: u64 = 1 << 16;
    let Some((cuts, stream)) = data.split_first_chunk::<4>() else { return };
    let sizes = cuts.map(|size| usize::from(size) + 1);
    let whole = run_stream(stream, &[stream.len().max(1)], MESSAGE_BYTES_MAX);
    let cut = run_stream(stream, &sizes, MESSAGE_BYTES_MAX);
    let bytewise = run_stream(stream, &[1], MESSAGE_BYTES_MAX);
    assert_eq!(whole.items, cut.items);
    assert_eq!(whole.items, bytewise.items);
    // A whole frame of bad text fails at its end, a cut one at the byte: the same error, told at another moment, and
    // perhaps before a later frame's header was looked at.
    assert_eq!(whole.error, cut.error);
    assert_eq!(whole.error, bytewise.error);
}

struct Run {
    items: Vec<Item<'static>>,
    error: Option<AssemblerError>,
}

fn run_stream(stream: &[u8], sizes: &[usize], message_bytes_max: u64) -> Run {
    let mut unfinished = None;
    let mut spares = Spares::new();
    let mut items = Vec::new();
    let mut rest = stream;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        let mut part = part.to_vec();
        let mut input = &mut part[..];
        loop {
            match Assembler::next(&mut unfinished, &mut input, message_bytes_max, Tick(0), &mut spares) {
                Ok(Some(item)) => items.push(into_owned(item)),
                Ok(None) => break,
                Err(error) => return Run { items, error: Some(error) },
            }
        }
    }
    Run { items, error: None }
}

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
    fn a_conversation_is_the_same_at_every_split() {
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
    fn a_whole_message_is_lent_and_an_idle_connection_keeps_nothing() {
        let mut bytes = frame(true, Opcode::Text, b"hello");
        let mut unfinished = None;
        let mut input = &mut bytes[..];
        let item = Assembler::next(&mut unfinished, &mut input, 100, Tick(0), &mut Spares::new());
        assert_eq!(item, Ok(Some(Item::Text(Cow::Borrowed("hello")))));
        assert!(matches!(item, Ok(Some(Item::Text(Cow::Borrowed(_))))));
        assert!(unfinished.is_none());
    }

    #[test]
    fn memory_grows_by_what_came_not_by_what_was_announced() {
        let mut bytes = frame(true, Opcode::Binary, &vec![5; 1 << 20]);
        bytes.truncate(100);
        let mut unfinished = None;
        let mut input = &mut bytes[..];
        let item = Assembler::next(&mut unfinished, &mut input, 1 << 24, Tick(7), &mut Spares::new());
        assert_eq!(item, Ok(None));
        let assembler = unfinished.expect("a message began");
        assert!(assembler.binary.capacity() <= 256, "{}", assembler.binary.capacity());
        assert_eq!(assembler.started(), Tick(7));
    }

    #[test]
    fn what_is_unfinished_is_counted_until_it_is_finished_or_dropped() {
        let total = HeldTotal::default();
        let mut spares = Spares::counted_in(&total);
        let bytes = frame(true, Opcode::Binary, &[5; 5000]);
        for is_finished in [true, false] {
            let (mut unfinished, mut bytes) = (None, bytes.clone());
            let (mut input, mut rest) = bytes.split_at_mut(4000);
            let item = Assembler::next(&mut unfinished, &mut input, 1 << 20, Tick(0), &mut spares);
            assert_eq!(item, Ok(None));
            let held = unfinished.as_ref().map_or(0, |unfinished| unfinished.held_bytes());
            assert!((4000..8192 + 400).contains(&held), "{held}");
            assert_eq!(total.bytes(), held);
            if is_finished {
                let item = Assembler::next(&mut unfinished, &mut rest, 1 << 20, Tick(0), &mut spares);
                assert!(matches!(item, Ok(Some(_))));
            }
            drop(unfinished);
            assert_eq!(total.bytes(), 0);
        }
    }

    #[test]
    fn bad_text_fails_at_its_first_impossible_byte() {
        let stream = frame(true, Opcode::Text, b"ok \xed\xa0 and much more");
        let mut unfinished = None;
        for (index, &byte) in stream.iter().enumerate() {
            let mut part = [byte];
            let item = Assembler::next(&mut unfinished, &mut &mut part[..], 100, Tick(0), &mut Spares::new());
            let is_bad = index == 6 + 4;
            assert_eq!(item, if is_bad { Err(ProtocolError::TextNotUtf8.into()) } else { Ok(None) }, "byte {index}");
            if is_bad {
                return;
            }
        }
        panic!("the text passed");
    }

    #[test]
    fn a_good_message_before_a_bad_frame_is_delivered() {
        let stream = [frame(true, Opcode::Text, b"good"), b"\xc1".to_vec()].concat();
        let run = run_stream(&stream, &[stream.len()], 100);
        assert_eq!(run.items, [text("good")]);
        assert_eq!(run.error, Some(ProtocolError::ReservedBits.into()));
    }
}
