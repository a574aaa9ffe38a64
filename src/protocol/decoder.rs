//! The frame decoder: splits a client's byte stream into payloads.
//!
//! The decoder checks the rules of RFC 6455 sections 5.2 to 5.5. The decoder unmasks in place and returns borrowed
//! slices. The decoder stores no payload: between two reads, it stores at most the 13 bytes of an incomplete header and
//! a few numbers. The frames do not depend on how the stream is split into reads.

use std::mem;

use crate::protocol::deflate::deflated_bytes_max;
use crate::protocol::error::ProtocolError;
use crate::protocol::frame::{CLIENT_HEADER_BYTES_MAX, Header, Opcode};
use crate::protocol::mask::unmask;

/// The rules for the messages of a connection.
#[derive(Copy, Clone, Debug)]
pub struct MessageRules {
    /// The maximum length of a message in bytes, with all its fragments, after inflation.
    pub bytes_max: u64,
    /// The processing of deflated messages by the server.
    pub deflated: DeflatedMessages,
}

/// The processing of deflated messages by the server (RFC 7692).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DeflatedMessages {
    /// A deflated message is an error: permessage-deflate was not negotiated.
    Refused,
    /// Deflated messages are inflated.
    Inflated,
    /// Deflated messages are skipped, because the connection is closing.
    Skipped,
}

impl MessageRules {
    /// Returns the rules of a connection without permessage-deflate.
    pub fn plain(bytes_max: u64) -> MessageRules {
        MessageRules { bytes_max, deflated: DeflatedMessages::Refused }
    }

    /// Returns the maximum length of a message after inflation.
    pub(super) fn inflated_bytes_max(self) -> usize {
        usize::try_from(self.bytes_max).unwrap_or(usize::MAX)
    }

    /// Returns the maximum length of a message as received, before inflation.
    fn received_bytes_max(self, is_deflated: bool) -> u64 {
        if is_deflated { deflated_bytes_max(self.bytes_max) } else { self.bytes_max }
    }

    /// Parses a frame header.
    pub(super) fn parse(self, input: &[u8]) -> Result<Option<Header>, ProtocolError> {
        match self.deflated {
            DeflatedMessages::Refused => Header::parse(input),
            DeflatedMessages::Inflated | DeflatedMessages::Skipped => Header::parse_deflated(input),
        }
    }
}

/// A slice of unmasked payload from one frame.
#[derive(Debug, PartialEq, Eq)]
pub struct PayloadPart<'a> {
    /// The opcode of the message.
    ///
    /// For a continuation frame, this is the opcode of the first fragment, never `Continuation`.
    pub opcode: Opcode,
    /// Whether the message is deflated.
    pub is_deflated: bool,
    /// The bytes. The slice is empty only if the frame has no payload.
    pub payload: &'a mut [u8],
    /// The unit that ends after these bytes: the frame, the message, or neither.
    pub ends: Ends,
}

/// The unit that ends after a payload part.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The frame continues.
    Nothing,
    /// The frame ends. More fragments of the same message follow.
    Frame,
    /// The message or the control frame ends.
    Message,
}

/// The state of the decoder between two reads.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; CLIENT_HEADER_BYTES_MAX],
    header_len: u8,
    frame: Option<CurrentFrame>,
    /// The opcode of the unfinished message, and whether it is deflated.
    ///
    /// The first fragment sets this field, and the last fragment clears it.
    message: Option<(Opcode, bool)>,
    /// The sum of all payload lengths of the unfinished message.
    message_bytes: u64,
}

/// A frame with a complete header and an incomplete payload.
#[derive(Debug)]
struct CurrentFrame {
    header: Header,
    /// The number of decoded payload bytes.
    ///
    /// The number is less than `header.payload_bytes`, except in an empty frame.
    decoded: u64,
}

impl Decoder {
    /// Decodes the next part of a payload and removes its bytes from `input`.
    ///
    /// Returns `None` when `input` is used up.
    ///
    /// # Errors
    /// Returns the first rule that the client violated. [`ProtocolError::MessageTooBig`] is reported as soon as the
    /// header of a frame announces more bytes than the limit allows.
    pub fn decode<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        rules: MessageRules,
    ) -> Result<Option<PayloadPart<'a>>, ProtocolError> {
        if self.frame.is_none() {
            let Some(header) = self.read_header(input, rules)? else { return Ok(None) };
            self.begin_frame(header, rules)?;
        }
        Ok(self.read_payload(input))
    }

    /// Returns whether the decoder is between two messages: no frame and no fragmented message is unfinished.
    pub fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn read_header(&mut self, input: &mut &mut [u8], rules: MessageRules) -> Result<Option<Header>, ProtocolError> {
        let kept = usize::from(self.header_len);
        let count = input.len().min(CLIENT_HEADER_BYTES_MAX - kept);
        self.header[kept..kept + count].copy_from_slice(&input[..count]);
        let header = rules.parse(&self.header[..kept + count])?;
        match header {
            Some(header) => {
                advance(input, header.header_bytes - kept);
                self.header_len = 0;
            }
            None => {
                advance(input, count);
                self.header_len = (kept + count) as u8;
            }
        }
        Ok(header)
    }

    fn begin_frame(&mut self, mut header: Header, rules: MessageRules) -> Result<(), ProtocolError> {
        if !header.opcode.is_control() {
            match (header.opcode, self.message) {
                (Opcode::Continuation, None) => return Err(ProtocolError::ContinuationWithoutStart),
                (Opcode::Continuation, Some(message)) => (header.opcode, header.is_deflated) = message,
                (_, Some(_)) => return Err(ProtocolError::MessageUnfinished),
                (opcode, None) => self.message = Some((opcode, header.is_deflated)),
            }
            self.message_bytes = self.message_bytes.saturating_add(header.payload_bytes);
            if self.message_bytes > rules.received_bytes_max(header.is_deflated) {
                return Err(ProtocolError::MessageTooBig);
            }
        }
        self.frame = Some(CurrentFrame { header, decoded: 0 });
        Ok(())
    }

    fn read_payload<'a>(&mut self, input: &mut &'a mut [u8]) -> Option<PayloadPart<'a>> {
        let frame = self.frame.as_mut()?;
        let Header { opcode, is_deflated, fin, mask, payload_bytes, .. } = frame.header;
        let left = payload_bytes - frame.decoded;
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        if count == 0 && left > 0 {
            return None;
        }
        let payload = advance(input, count);
        unmask(payload, mask, frame.decoded);
        frame.decoded += count as u64;

        let ends = match (frame.decoded == payload_bytes, fin) {
            (false, _) => Ends::Nothing,
            (true, false) => Ends::Frame,
            (true, true) => Ends::Message,
        };
        if ends != Ends::Nothing {
            self.frame = None;
        }
        if ends == Ends::Message && !opcode.is_control() {
            self.message = None;
            self.message_bytes = 0;
        }
        Some(PayloadPart { opcode, is_deflated, payload, ends })
    }
}

/// Removes up to `count` bytes from `input` and returns them.
pub(super) fn advance<'a>(input: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
    let all = mem::take(input);
    let (taken, rest) = all.split_at_mut(count.min(all.len()));
    *input = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::{frame, masked};

    /// A whole frame: its opcode, its payload, and whether the message ends with this frame.
    type Whole = (Opcode, Vec<u8>, Ends);

    /// Decodes `stream` in chunks. Returns all frames and the final error.
    fn decode(stream: &[u8], chunk: usize, max: u64) -> (Vec<Whole>, Option<ProtocolError>) {
        let mut decoder = Decoder::default();
        let mut frames: Vec<Whole> = Vec::new();
        let mut unfinished = false;
        for part in stream.chunks(chunk) {
            let mut part = part.to_vec();
            let mut input = &mut part[..];
            loop {
                match decoder.decode(&mut input, MessageRules::plain(max)) {
                    Ok(Some(part)) => {
                        if !unfinished {
                            frames.push((part.opcode, Vec::new(), Ends::Nothing));
                        }
                        let last = frames.last_mut().expect("the list must have a frame");
                        last.1.extend_from_slice(part.payload);
                        last.2 = part.ends;
                        unfinished = part.ends == Ends::Nothing;
                    }
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            assert!(input.is_empty(), "`None` must mean that the input is used up");
        }
        (frames, None)
    }

    #[test]
    fn every_chunk_size_gives_the_same_frames() {
        let mut stream = Vec::new();
        stream.extend(frame(false, Opcode::Text, b"first "));
        stream.extend(frame(true, Opcode::Ping, b"between"));
        stream.extend(frame(true, Opcode::Continuation, b"last"));
        stream.extend(frame(true, Opcode::Binary, &[7; 300]));
        stream.extend(frame(true, Opcode::Text, b""));
        stream.extend(frame(true, Opcode::Binary, &[9; 70_000]));

        let whole = decode(&stream, stream.len(), 1 << 20);
        assert_eq!(whole.1, None);
        assert_eq!(whole.0.len(), 6);
        assert_eq!(whole.0[2], (Opcode::Text, b"last".to_vec(), Ends::Message));
        for chunk in (1..64).chain([65, 127, 128, 1000, 4096]) {
            assert_eq!(
                decode(&stream, chunk, 1 << 20),
                whole,
                "chunks of {chunk} bytes must have the same result as the whole stream"
            );
        }
    }

    #[test]
    fn a_fragment_that_does_not_continue_a_message_is_an_error() {
        let cases = [
            (frame(true, Opcode::Continuation, b"x"), ProtocolError::ContinuationWithoutStart),
            (
                [frame(false, Opcode::Text, b"x"), frame(true, Opcode::Text, b"y")].concat(),
                ProtocolError::MessageUnfinished,
            ),
            (
                [frame(true, Opcode::Text, b"x"), frame(true, Opcode::Continuation, b"y")].concat(),
                ProtocolError::ContinuationWithoutStart,
            ),
        ];
        for (stream, error) in cases {
            for chunk in 1..=stream.len() {
                assert_eq!(decode(&stream, chunk, 100).1, Some(error));
            }
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_at_the_header_that_exceeds_it() {
        let mut stream = frame(false, Opcode::Binary, &[0; 60]);
        stream.extend(&frame(true, Opcode::Continuation, &[0; 41])[..6]);
        assert_eq!(decode(&stream, 1, 100).1, Some(ProtocolError::MessageTooBig));
        assert_eq!(decode(&stream, 1, 101).1, None);

        let huge = masked(0x82, 127, &(u64::MAX >> 1).to_be_bytes());
        assert_eq!(decode(&huge, 3, u64::MAX >> 2).1, Some(ProtocolError::MessageTooBig));
    }
}
