//! Encodes the frames of clients: valid frames of every form, and invalid frames.
//!
//! Each invalid frame violates one rule of RFC 6455.

use std::collections::VecDeque;

use fdpush::ProtocolError;

use crate::frames::{RSV1, deflate, head, masked};
use crate::inbound::{Inbound, SentItem};
use crate::rng::Rng;

/// Appends the frames of a client to its stream, and adds them to the model of the connection's input.
pub struct FrameWriter<'a> {
    pub inbound: &'a mut Inbound,
    pub stream: &'a mut VecDeque<u8>,
    pub rng: &'a mut Rng,
    pub message_bytes_max: usize,
    /// Whether permessage-deflate is negotiated.
    pub deflates: bool,
}

impl FrameWriter<'_> {
    /// Appends bytes that are not a frame.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.inbound.append(None, 0, bytes.len());
        self.stream.extend(bytes);
    }

    /// Writes a message, a ping or an unsolicited pong.
    pub fn write_random(&mut self) {
        match self.rng.below(8) {
            0 => self.write_ping(),
            1 => {
                let payload = self.short();
                self.write_pong(payload);
            }
            2..5 => {
                let text = self.text();
                self.write_message(0x1, text.clone().into_bytes(), SentItem::Text(text));
            }
            _ => {
                let bytes = self.rng.skewed(self.message_bytes_max);
                let first = self.rng.draw() as u8;
                let payload: Vec<u8> = (0..bytes).map(|at| first.wrapping_add(at as u8)).collect();
                self.write_message(0x2, payload.clone(), SentItem::Binary(payload));
            }
        }
    }

    /// Writes a pong.
    pub fn write_pong(&mut self, payload: Vec<u8>) {
        self.write_frame(0x8a, &payload.clone(), Some(SentItem::Pong(payload)), None);
    }

    /// Writes a close frame. The code 1005 stands for a close frame without a code.
    pub fn write_close(&mut self, code: u16, reason: &str) {
        let payload = match code {
            1005 => Vec::new(),
            _ => [&code.to_be_bytes(), reason.as_bytes()].concat(),
        };
        self.write_frame(0x88, &payload, Some(SentItem::Close(code, reason.to_owned())), None);
    }

    /// Appends bytes that violate a rule of the protocol. The server must ignore all bytes after them.
    pub fn write_violation(&mut self) {
        let mask = self.mask();
        let (bytes, error, code) = match self.deflates && self.rng.one_in(2) {
            true => bad_deflated(self.rng, mask, self.message_bytes_max),
            false => bad(self.rng, mask, self.message_bytes_max as u64, self.deflates),
        };
        let start = self.inbound.made;
        self.inbound.append(Some(SentItem::Bad(error, code)), start, bytes.len());
        self.stream.extend(bytes);
    }

    fn write_ping(&mut self) {
        let payload = self.short();
        self.write_frame(0x89, &payload.clone(), Some(SentItem::Ping(payload)), None);
    }

    /// Writes a message, in one frame or in fragments with pings between them.
    fn write_message(&mut self, opcode: u8, payload: Vec<u8>, said: SentItem) {
        let fragments = if self.rng.one_in(4) { self.rng.within(2..=5) } else { 1 };
        let start = self.inbound.made;
        let is_deflated = self.deflates && self.rng.one_in(2);
        let payload = if is_deflated { deflate(&payload, self.rng.below(10) as u32) } else { payload };
        let (mut rest, mut opcode) = (&payload[..], if is_deflated { opcode | RSV1 } else { opcode });
        for _ in 1..fragments {
            let (part, behind) = rest.split_at(self.rng.below(rest.len() + 1));
            self.write_frame(opcode, part, None, None);
            if self.rng.one_in(3) {
                self.write_ping();
            }
            (rest, opcode) = (behind, 0);
        }
        let mask = self.mask();
        let frame = masked(0x80 | opcode, rest, mask);
        self.inbound.append_deflated(Some(said), start, frame.len(), is_deflated.then_some(payload.len()));
        self.stream.extend(frame);
    }

    fn write_frame(&mut self, first: u8, payload: &[u8], said: Option<SentItem>, start: Option<u64>) {
        let mask = self.mask();
        let frame = masked(first, payload, mask);
        let start = start.unwrap_or(self.inbound.made);
        self.inbound.append(said, start, frame.len());
        self.stream.extend(frame);
    }

    fn text(&mut self) -> String {
        let letters = ['a', 'é', '漢', '🙂', ' '];
        let bytes = self.rng.skewed(self.message_bytes_max);
        let first = self.rng.below(letters.len());
        let mut text = String::new();
        for letter in letters.iter().cycle().skip(first) {
            if text.len() + letter.len_utf8() > bytes {
                return text;
            }
            text.push(*letter);
        }
        text
    }

    fn short(&mut self) -> Vec<u8> {
        let bytes = self.rng.skewed(125);
        vec![self.rng.draw() as u8; bytes]
    }

    fn mask(&mut self) -> [u8; 4] {
        (self.rng.draw() as u32).to_be_bytes()
    }
}

/// Returns bytes that violate a rule, the rule, and its close code.
fn bad(rng: &mut Rng, mask: [u8; 4], message_bytes_max: u64, deflates: bool) -> (Vec<u8>, ProtocolError, u16) {
    use ProtocolError::*;
    let unfinished = [masked(0x01, b"x", mask), masked(0x81, b"y", mask)].concat();
    let crossing = [masked(0x02, b"x", mask), head(0x80, message_bytes_max, mask)].concat();
    let table = [
        (masked(if deflates { 0xa1 } else { 0xc1 }, b"x", mask), ReservedBits, 1002),
        (masked(0x92, b"x", mask), ReservedBits, 1002),
        (masked(0x83, b"x", mask), ReservedOpcode, 1002),
        (masked(0x8b, b"x", mask), ReservedOpcode, 1002),
        (b"\x81\x01x".to_vec(), Unmasked, 1002),
        (b"\x82\xfe\x00\x05".to_vec(), LengthNotMinimal, 1002),
        (b"\x82\xff\x80\0\0\0\0\0\0\0".to_vec(), LengthTooLarge, 1002),
        (masked(0x09, b"x", mask), ControlFragmented, 1002),
        (head(0x89, 126, mask), ControlTooLong, 1002),
        (masked(0x80, b"x", mask), ContinuationWithoutStart, 1002),
        (unfinished, MessageUnfinished, 1002),
        (head(0x82, message_bytes_max + 1, mask), MessageTooBig, 1009),
        (crossing, MessageTooBig, 1009),
        (masked(0x81, b"ok \xff", mask), TextNotUtf8, 1007),
        (masked(0x81, b"cut \xe6\xbc", mask), TextNotUtf8, 1007),
        (masked(0x88, b"\x03", mask), CloseCodeCut, 1002),
        (masked(0x88, b"\x03\xed", mask), CloseCodeInvalid, 1002),
        (masked(0x88, b"\x03\xe8\xff", mask), CloseReasonNotUtf8, 1007),
    ];
    rng.pick(&table).clone()
}

/// Works like [`bad`], with bytes of deflated messages. The bytes violate a rule of RFC 7692, or the inflated message
/// violates a rule for messages.
fn bad_deflated(rng: &mut Rng, mask: [u8; 4], message_bytes_max: usize) -> (Vec<u8>, ProtocolError, u16) {
    use ProtocolError::*;
    let text = deflate(&b"a text ".repeat(5), 6);
    let (first, rest) = text.split_at(4);
    let on_continuation = [masked(0x41, first, mask), masked(0xc0, rest, mask)].concat();
    let on_ping = [masked(0x41, first, mask), masked(0xc9, b"", mask)].concat();
    let bomb = deflate(&vec![0; message_bytes_max + 1], 9);
    let (head, tail) = bomb.split_at(bomb.len() / 2);
    let bomb_in_fragments = [masked(0x42, head, mask), masked(0x80, tail, mask)].concat();
    let garbage = [&text[..], &[0xaa]].concat();
    let table = [
        (on_continuation, ReservedBits, 1002),
        (on_ping, ReservedBits, 1002),
        (masked(0xc8, b"\x03\xe8", mask), ReservedBits, 1002),
        (masked(0xc2, &[6], mask), InvalidDeflate, 1007),
        (masked(0xc1, first, mask), InvalidDeflate, 1007),
        (masked(0xc1, &garbage, mask), InvalidDeflate, 1007),
        (masked(0xc1, &deflate(b"ok \xff", 6), mask), TextNotUtf8, 1007),
        (masked(0xc2, &bomb, mask), MessageTooBig, 1009),
        (bomb_in_fragments, MessageTooBig, 1009),
    ];
    rng.pick(&table).clone()
}

/// Returns the name under which the tally counts a protocol error.
pub fn name_of(error: ProtocolError) -> &'static str {
    error.as_str()
}
