//! Encodes the frames of clients: valid ones of every form, and invalid ones.
//!
//! Each invalid frame violates one rule of RFC 6455.

use std::collections::VecDeque;

use fdpush::ProtocolError;

use crate::frames::{head, masked};
use crate::inbound::{Inbound, SentItem};
use crate::rng::Rng;

/// Writes the frames of a client into its stream and into the oracle.
pub struct FrameWriter<'a> {
    pub inbound: &'a mut Inbound,
    pub stream: &'a mut VecDeque<u8>,
    pub rng: &'a mut Rng,
    pub message_bytes_max: usize,
}

impl FrameWriter<'_> {
    /// Writes bytes that are not a frame.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.inbound.say(None, 0, bytes.len());
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

    /// Writes a close frame. 1005 means without a code.
    pub fn write_close(&mut self, code: u16, reason: &str) {
        let payload = match code {
            1005 => Vec::new(),
            _ => [&code.to_be_bytes(), reason.as_bytes()].concat(),
        };
        self.write_frame(0x88, &payload, Some(SentItem::Close(code, reason.to_owned())), None);
    }

    /// Writes bytes that violate a rule. The server ignores all later bytes.
    pub fn write_violation(&mut self) {
        let mask = self.mask();
        let (bytes, error, code) = bad(self.rng, mask, self.message_bytes_max as u64);
        let start = self.inbound.made;
        self.inbound.say(Some(SentItem::Bad(error, code)), start, bytes.len());
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
        let (mut rest, mut opcode) = (&payload[..], opcode);
        for _ in 1..fragments {
            let (part, behind) = rest.split_at(self.rng.below(rest.len() + 1));
            self.write_frame(opcode, part, None, None);
            if self.rng.one_in(3) {
                self.write_ping();
            }
            (rest, opcode) = (behind, 0);
        }
        self.write_frame(0x80 | opcode, rest, Some(said), Some(start));
    }

    fn write_frame(&mut self, first: u8, payload: &[u8], said: Option<SentItem>, start: Option<u64>) {
        let mask = self.mask();
        let frame = masked(first, payload, mask);
        let start = start.unwrap_or(self.inbound.made);
        self.inbound.say(said, start, frame.len());
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
fn bad(rng: &mut Rng, mask: [u8; 4], message_bytes_max: u64) -> (Vec<u8>, ProtocolError, u16) {
    use ProtocolError::*;
    let unfinished = [masked(0x01, b"x", mask), masked(0x81, b"y", mask)].concat();
    let crossing = [masked(0x02, b"x", mask), head(0x80, message_bytes_max, mask)].concat();
    let table = [
        (masked(0xc1, b"x", mask), ReservedBits, 1002),
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

/// Returns the name of a protocol error in the tally.
pub fn name_of(error: ProtocolError) -> &'static str {
    error.as_str()
}
