//! The message assembler: joins the payloads of frames into messages.
//!
//! The rules are those of RFC 6455 sections 5.4 and 5.6.
//!
//! Nearly all messages are complete in the input. Such a message is returned as a slice of the input. Only the start of
//! an unfinished message is copied, into an `Assembler`, which exists until the message is complete. An idle connection
//! has no assembler. The memory of an assembler grows with bytes received, never with a length announced.
//!
//! `inflation.rs` stores the payload of an unfinished deflated message.

use std::borrow::Cow;
use std::collections::TryReserveError;
use std::mem;

use crate::protocol::decoder::{Decoder, DeflatedMessages, Ends, MessageRules, PayloadPart, advance};
use crate::protocol::deflate::InflateError;
use crate::protocol::error::ProtocolError;
use crate::protocol::frame::{Header, Opcode};
use crate::protocol::held_input::HeldInput;
use crate::protocol::inflation::{DeflatedPayload, InflaterPool, KEPT_BYTES_MAX};
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
    /// A pong: the answer to a ping, or unsolicited.
    Pong(Cow<'a, [u8]>),
    /// A close frame, whose payload is not checked yet.
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
    /// The received payload of a text message. The payload of a binary message is in `binary`.
    text: String,
    binary: Vec<u8>,
    utf8: Utf8Stream,
    /// The received payload of a deflated message.
    deflated: Option<Box<DeflatedPayload>>,
    /// Input that is held back, because the client exceeds the rate of inflated bytes.
    held: Option<Box<HeldInput>>,
    /// The received payload of a control frame that arrives in parts.
    ///
    /// A control frame may come between two fragments of the message, so it has a buffer of its own.
    control: Vec<u8>,
    /// The arrival time of the first byte of the message.
    started: Tick,
    /// The memory of the unfinished message, including this struct.
    memory: MemoryShare,
}

/// A pool of unused assemblers.
///
/// The pool saves an allocation for each message that arrives in parts.
#[derive(Debug, Default)]
pub struct AssemblerPool {
    #[expect(clippy::vec_box, reason = "the box moves to the connection")]
    boxes: Vec<Box<Assembler>>,
    /// The memory of all assemblers in use.
    memory: MemoryTotal,
    /// The inflater that all connections of the loop share, and counters of deflated messages.
    pub inflaters: InflaterPool,
}

/// An error that ends the connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum AssemblerError {
    /// The client violated RFC 6455 or RFC 7692.
    Protocol(ProtocolError),
    /// Memory for received bytes could not be allocated.
    OutOfMemory,
}

impl From<ProtocolError> for AssemblerError {
    fn from(error: ProtocolError) -> AssemblerError {
        AssemblerError::Protocol(error)
    }
}

impl From<InflateError> for AssemblerError {
    fn from(error: InflateError) -> AssemblerError {
        match error {
            InflateError::Invalid => ProtocolError::InvalidDeflate.into(),
            InflateError::TooBig => ProtocolError::MessageTooBig.into(),
            InflateError::OutOfMemory => AssemblerError::OutOfMemory,
        }
    }
}

impl From<TryReserveError> for AssemblerError {
    fn from(_: TryReserveError) -> AssemblerError {
        AssemblerError::OutOfMemory
    }
}

/// The maximum number of pooled assemblers, of at most 304 bytes each.
const POOLED_MAX: usize = 64;

const _: () = assert!(size_of::<Assembler>() <= 304);

/// The length of the longest UTF-8 character, in bytes.
///
/// A character may begin in one part of a text and end in the next part.
const UTF8_BYTES_MAX: usize = 4;

impl AssemblerPool {
    /// Creates an empty pool with its own memory total.
    #[cfg(any(test, feature = "unstable"))]
    pub fn new() -> AssemblerPool {
        AssemblerPool::default()
    }

    /// Creates an empty pool. The total `memory` counts the memory of the pool's assemblers.
    pub fn counted_in(memory: &MemoryTotal) -> AssemblerPool {
        AssemblerPool { memory: memory.clone(), ..AssemblerPool::default() }
    }

    fn take(&mut self) -> Box<Assembler> {
        self.boxes.pop().unwrap_or_else(|| Box::new(Assembler { memory: self.memory.share(), ..Assembler::default() }))
    }

    fn give(&mut self, mut done: Box<Assembler>) {
        if self.boxes.len() < POOLED_MAX {
            done.clear();
            self.boxes.push(done);
        }
    }
}

impl Assembler {
    /// Returns the next item and removes its bytes from `input`.
    ///
    /// Returns `None` when `input` is used up. `unfinished` is the unfinished message of the connection, if there is
    /// one. `now` becomes the arrival time of a message that starts in `input`.
    ///
    /// # Errors
    /// Returns an error if the client violated RFC 6455 or RFC 7692, or if memory could not be allocated. The caller
    /// must then end the connection.
    pub fn next<'a>(
        unfinished: &mut Option<Box<Assembler>>,
        input: &mut &'a mut [u8],
        rules: MessageRules,
        now: Tick,
        pool: &mut AssemblerPool,
    ) -> Result<Option<Item<'a>>, AssemblerError> {
        if unfinished.is_none() {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some(message) = take_message(input, rules.bytes_max)? {
                return Ok(Some(message.into()));
            }
            if let Some(message) = take_deflated(input, rules, &mut pool.inflaters)? {
                return Ok(Some(message));
            }
            if let Some(control) = take_control(input, rules)? {
                return Ok(Some(control));
            }
        }
        let assembler = unfinished.get_or_insert_with(|| {
            let mut assembler = pool.take();
            assembler.started = now;
            assembler
        });
        let item = assembler.assemble(input, rules, &mut pool.inflaters)?;
        if !assembler.decoder.is_idle() || assembler.held.is_some() {
            assembler.memory.set(assembler.allocated_bytes());
        } else if let Some(done) = unfinished.take() {
            pool.give(done);
        }
        Ok(item)
    }

    /// Returns the memory of this assembler in bytes.
    ///
    /// The value is the memory after the last call of [`next`](Assembler::next) or [`hold`](Assembler::hold).
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }

    fn allocated_bytes(&self) -> usize {
        let held = self.held.as_ref().map_or(0, |held| held.allocated_bytes());
        let deflated = self.deflated.as_ref().map_or(0, |deflated| deflated.allocated_bytes());
        let payload = self.text.capacity() + self.binary.capacity() + self.control.capacity();
        size_of::<Assembler>() + payload + deflated + held
    }

    /// Returns the arrival time of the first byte of the unfinished message.
    pub fn started(&self) -> Tick {
        self.started
    }

    fn assemble<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        rules: MessageRules,
        inflaters: &mut InflaterPool,
    ) -> Result<Option<Item<'a>>, AssemblerError> {
        while let Some(part) = self.decoder.decode(input, rules)? {
            let item =
                if part.is_deflated { self.add_deflated(part, rules, inflaters)? } else { self.add(part, rules)? };
            if let Some(item) = item {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn add(&mut self, part: PayloadPart<'_>, rules: MessageRules) -> Result<Option<Item<'static>>, AssemblerError> {
        let is_whole = part.ends == Ends::Message;
        match part.opcode {
            Opcode::Text => {
                let more = part.payload.len() + UTF8_BYTES_MAX;
                self.text.try_reserve_exact(growth(self.text.len(), self.text.capacity(), more, rules))?;
                self.utf8.push(part.payload, &mut self.text).map_err(|_| ProtocolError::TextNotUtf8)?;
                if is_whole {
                    self.utf8.finish().map_err(|_| ProtocolError::TextNotUtf8)?;
                    return Ok(Some(Item::Text(Cow::Owned(mem::take(&mut self.text)))));
                }
            }
            Opcode::Binary | Opcode::Continuation => {
                let more = part.payload.len();
                self.binary.try_reserve_exact(growth(self.binary.len(), self.binary.capacity(), more, rules))?;
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

impl Assembler {
    /// Drops the bytes and the state of the last client, before the assembler is used for another client.
    fn clear(&mut self) {
        let Assembler { decoder, text, binary, utf8, deflated, held, control, started: _, memory } = self;
        (*decoder, *utf8) = Default::default();
        (*text, *binary, *control) = Default::default();
        (*deflated, *held) = (None, None);
        memory.set(0);
    }

    /// Adds a part of a deflated message. After the last part, returns the inflated message.
    fn add_deflated(
        &mut self,
        part: PayloadPart<'_>,
        rules: MessageRules,
        inflaters: &mut InflaterPool,
    ) -> Result<Option<Item<'static>>, AssemblerError> {
        let (opcode, is_whole) = (part.opcode, part.ends == Ends::Message);
        if rules.deflated == DeflatedMessages::Skipped {
            // Parts of this message that arrived before the server sent its close frame may be stored in the assembler.
            // These parts are dropped, too.
            self.deflated = None;
            return Ok(is_whole.then_some(Item::Binary(Cow::Borrowed(&[]))));
        }
        let deflated = self.deflated.get_or_insert_default();
        let message = deflated.add(part.payload, is_whole, rules.inflated_bytes_max(), inflaters)?;
        message.map(|bytes| inflated_item(opcode, bytes)).transpose()
    }

    /// Stores `input`, which must not be processed before the time `until`.
    ///
    /// If earlier input is stored already, `input` is appended to it.
    ///
    /// # Errors
    /// Returns an error if memory for the input could not be allocated.
    pub fn hold(
        unfinished: &mut Option<Box<Assembler>>,
        input: &mut &mut [u8],
        (now, until): (Tick, Tick),
        pool: &mut AssemblerPool,
    ) -> Result<(), AssemblerError> {
        let assembler = unfinished.get_or_insert_with(|| pool.take());
        let held = assembler.held.get_or_insert_with(|| Box::new(HeldInput::new(now, until)));
        held.until = until;
        held.append(input)?;
        *input = &mut [];
        assembler.memory.set(assembler.allocated_bytes());
        Ok(())
    }

    /// Returns the time until which input is held back. Returns `None` if no input is held back.
    #[inline]
    pub fn held_until(&self) -> Option<Tick> {
        self.held.as_ref().map(|held| held.until)
    }

    /// Works like [`next`](Assembler::next), with the input that is held back as `input`.
    ///
    /// # Errors
    /// Returns the same errors as `next`.
    pub fn next_held(
        unfinished: &mut Option<Box<Assembler>>,
        rules: MessageRules,
        now: Tick,
        pool: &mut AssemblerPool,
    ) -> Result<Option<Item<'static>>, AssemblerError> {
        let Some(assembler) = unfinished else { return Ok(None) };
        let Some(mut held) = assembler.held.take() else { return Ok(None) };
        if assembler.decoder.is_idle() {
            assembler.started = now;
        } else {
            // The period in which the server held the input back does not count as time that the client takes for the
            // message.
            assembler.started = assembler.started.after(now.since(held.since));
        }
        held.since = now;
        let mut input = held.rest();
        let item = Assembler::next(unfinished, &mut input, rules, now, pool)?;
        let (item, left) = (item.map(Item::into_owned), input.len());
        if left > 0 {
            held.set_left(left);
            let assembler = unfinished.get_or_insert_with(|| pool.take());
            assembler.held = Some(held);
            assembler.memory.set(assembler.allocated_bytes());
        }
        Ok(item)
    }

    /// Starts the time limit of the unfinished message again, at the time `now`.
    pub fn restart(&mut self, now: Tick) {
        self.started = now;
        if let Some(held) = &mut self.held {
            held.since = now;
        }
    }

    /// Removes the input that is held back, and returns it.
    pub fn take_held(&mut self) -> Option<Vec<u8>> {
        self.held.take().map(|held| held.into_rest())
    }
}

impl Item<'_> {
    fn into_owned(self) -> Item<'static> {
        match self {
            Item::Text(text) => Item::Text(Cow::Owned(text.into_owned())),
            Item::Binary(bytes) => Item::Binary(Cow::Owned(bytes.into_owned())),
            Item::Ping(payload) => Item::Ping(Cow::Owned(payload.into_owned())),
            Item::Pong(payload) => Item::Pong(Cow::Owned(payload.into_owned())),
            Item::Close(payload) => Item::Close(Cow::Owned(payload.into_owned())),
        }
    }
}

/// Returns the number of bytes to reserve before `more` bytes are appended.
///
/// The capacity doubles, up to the maximum length of a message.
fn growth(len: usize, capacity: usize, more: usize, rules: MessageRules) -> usize {
    if capacity - len >= more {
        return 0;
    }
    let doubled = (2 * capacity).min(rules.inflated_bytes_max().saturating_add(UTF8_BYTES_MAX));
    doubled.max(len + more) - len
}

/// The first byte of a frame that is a whole text message: the FIN bit, which marks the last fragment, and the opcode.
const WHOLE_TEXT: u8 = 0x80 | Opcode::Text as u8;
const WHOLE_BINARY: u8 = 0x80 | Opcode::Binary as u8;

/// Takes a message that is one complete frame from `input`.
///
/// If `input` begins with such a message, no byte is copied or stored. Otherwise the result is `None`, and `input` is
/// unchanged. `input` must begin at the start of a frame, and no fragmented message may be unfinished.
///
/// # Errors
/// Returns an error if the frame violates RFC 6455, or if its text is not UTF-8.
#[inline]
pub fn take_message<'a>(
    input: &mut &'a mut [u8],
    message_bytes_max: u64,
) -> Result<Option<Message<'a>>, ProtocolError> {
    let opcode = match input.first() {
        Some(&WHOLE_TEXT) => Opcode::Text,
        Some(&WHOLE_BINARY) => Opcode::Binary,
        _ => return Ok(None),
    };
    let Some(header) = Header::parse_lengths(true, opcode, false, input)? else { return Ok(None) };
    // For a message that exceeds the limit, the result is `None`: the caller then passes the message to the decoder,
    // which returns the error.
    if header.payload_bytes > message_bytes_max {
        return Ok(None);
    }
    let Some(payload) = take_payload(input, &header) else { return Ok(None) };
    if opcode == Opcode::Binary {
        return Ok(Some(Message::Binary(payload)));
    }
    match utf8::validate(payload) {
        Ok(text) => Ok(Some(Message::Text(text))),
        Err(_) => Err(ProtocolError::TextNotUtf8),
    }
}

/// Takes a deflated message that is one complete frame from `input`, and inflates it.
fn take_deflated(
    input: &mut &mut [u8],
    rules: MessageRules,
    inflaters: &mut InflaterPool,
) -> Result<Option<Item<'static>>, AssemblerError> {
    if rules.deflated != DeflatedMessages::Inflated {
        return Ok(None);
    }
    let header = Header::parse_deflated(input)?.filter(|header| header.is_deflated && header.fin);
    // For a longer payload, the result is `None`: the caller then calls `assemble`, which inflates the payload, or
    // returns an error if the payload exceeds the limit.
    let bytes_max = rules.bytes_max.min(KEPT_BYTES_MAX as u64);
    let Some(header) = header.filter(|header| header.payload_bytes <= bytes_max) else { return Ok(None) };
    let Some(payload) = take_payload(input, &header) else { return Ok(None) };
    inflated_item(header.opcode, inflaters.inflate(payload, rules.inflated_bytes_max())?).map(Some)
}

/// Converts the inflated payload of a message to an item.
fn inflated_item(opcode: Opcode, bytes: Vec<u8>) -> Result<Item<'static>, AssemblerError> {
    if opcode != Opcode::Text {
        return Ok(Item::Binary(Cow::Owned(bytes)));
    }
    let text = String::from_utf8(bytes).map_err(|_| ProtocolError::TextNotUtf8)?;
    Ok(Item::Text(Cow::Owned(text)))
}

/// Takes a complete control frame from `input`. Returns `None` if `input` does not begin with a complete control frame.
fn take_control<'a>(input: &mut &'a mut [u8], rules: MessageRules) -> Result<Option<Item<'a>>, ProtocolError> {
    let Some(header) = rules.parse(input)?.filter(|header| header.opcode.is_control()) else { return Ok(None) };
    let payload = take_payload(input, &header);
    Ok(payload.map(|payload| control_item(header.opcode, Cow::Borrowed(payload))))
}

/// Takes a complete frame from `input`, and returns its unmasked payload.
///
/// Returns `None` if the frame is incomplete.
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
/// The first bytes of `data` define chunk sizes. The other bytes are a client's stream. The stream must have the same
/// items and the same error, whether the assembler gets it whole, in these chunks, or byte by byte.
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
    // If an invalid text is in one complete frame, the error is reported at the end of the frame. If the text arrives
    // in parts, the error is reported at the invalid byte, possibly before the header of a later frame was read. The
    // error is the same in both cases.
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
            match Assembler::next(
                &mut unfinished,
                &mut input,
                MessageRules::plain(message_bytes_max),
                Tick(0),
                &mut pool,
            ) {
                Ok(Some(item)) => items.push(item.into_owned()),
                Ok(None) => break,
                Err(error) => return Run { items, error: Some(error) },
            }
        }
    }
    Run { items, error: None }
}

#[cfg(test)]
mod tests;
