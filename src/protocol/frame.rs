//! Frame headers (RFC 6455 section 5.2).
//!
//! The headers of received frames are parsed. The headers of sent frames are encoded. This module checks only rules
//! that concern a single header. `decoder.rs` checks rules about sequences of frames.

use crate::protocol::error::ProtocolError;

/// The longest header of a client frame, in bytes.
///
/// The longest header has two bytes, a 64-bit length and a masking key.
pub const CLIENT_HEADER_BYTES_MAX: usize = 14;

/// The longest header of a server frame, in bytes.
///
/// A server frame has no masking key.
pub const SERVER_HEADER_BYTES_MAX: usize = 10;

/// The longest payload of a control frame, in bytes (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The reserved bits RSV1 to RSV3 of the first byte.
const RESERVED_BITS: u8 = 0x70;

/// The bit that marks a deflated message (RFC 7692 section 6).
const RSV1: u8 = 0x40;

/// The opcode of a frame (RFC 6455 section 5.2).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// A fragment of a message after the first fragment.
    Continuation = 0x0,
    /// A whole text message, or the first fragment of a text message.
    Text = 0x1,
    /// A whole binary message, or the first fragment of a binary message.
    Binary = 0x2,
    /// The close handshake.
    Close = 0x8,
    /// A ping: the receiver answers with a pong.
    Ping = 0x9,
    /// A pong: the answer to a ping, or unsolicited.
    Pong = 0xa,
}

impl Opcode {
    /// Returns whether the opcode is close, ping or pong.
    ///
    /// Control frames may come between the fragments of a message.
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    fn parse(nibble: u8) -> Result<Opcode, ProtocolError> {
        match nibble {
            0x0 => Ok(Opcode::Continuation),
            0x1 => Ok(Opcode::Text),
            0x2 => Ok(Opcode::Binary),
            0x8 => Ok(Opcode::Close),
            0x9 => Ok(Opcode::Ping),
            0xa => Ok(Opcode::Pong),
            _ => Err(ProtocolError::ReservedOpcode),
        }
    }
}

/// The header of a client frame.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whether this frame is the last of its message.
    pub fin: bool,
    /// The type of the frame.
    pub opcode: Opcode,
    /// Whether RSV1 is set: the message is deflated (RFC 7692 section 6).
    pub is_deflated: bool,
    /// The length of the payload in bytes, below 2^63.
    pub payload_bytes: u64,
    /// The client's masking key.
    pub mask: [u8; 4],
    /// The length of the header in bytes: 6, 8 or 14.
    pub header_bytes: usize,
}

impl Header {
    /// Parses the header at the start of `input`.
    ///
    /// Returns `None` if the header is incomplete.
    ///
    /// # Errors
    /// Returns the rule that the header violates. The error is reported as soon as `input` contains the invalid byte,
    /// even if the header is still incomplete.
    #[inline]
    pub fn parse(input: &[u8]) -> Result<Option<Header>, ProtocolError> {
        match input.first() {
            Some(first) if first & RESERVED_BITS != 0 => Err(ProtocolError::ReservedBits),
            _ => Header::parse_deflated(input),
        }
    }

    /// Parses the header at the start of `input`, in which RSV1 may be set, because permessage-deflate was negotiated.
    ///
    /// Only the first frame of a text or binary message may have RSV1 (RFC 7692 section 6.1).
    ///
    /// # Errors
    /// Returns the same errors as [`parse`](Header::parse).
    #[inline]
    pub fn parse_deflated(input: &[u8]) -> Result<Option<Header>, ProtocolError> {
        let Some(&first) = input.first() else { return Ok(None) };
        let is_deflated = first & RSV1 != 0;
        if first & RESERVED_BITS & !RSV1 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let opcode = Opcode::parse(first & 0x0f)?;
        if is_deflated && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(ProtocolError::ReservedBits);
        }
        if opcode.is_control() && !fin {
            return Err(ProtocolError::ControlFragmented);
        }
        Header::parse_lengths(fin, opcode, is_deflated, input)
    }

    /// Parses the bytes of a header after the first byte, which the caller has checked.
    ///
    /// # Errors
    /// Returns the same errors as [`parse`](Header::parse).
    #[inline]
    pub fn parse_lengths(
        fin: bool,
        opcode: Opcode,
        is_deflated: bool,
        input: &[u8],
    ) -> Result<Option<Header>, ProtocolError> {
        let Some(&second) = input.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(ProtocolError::Unmasked);
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(ProtocolError::ControlTooLong);
        }
        let (payload_bytes, mask_at) = match short {
            126.. => match parse_long_length(short, input)? {
                Some(length) => length,
                None => return Ok(None),
            },
            _ => (u64::from(short), 2),
        };
        let Some(mask) = input.get(mask_at..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
        Ok(Some(Header { fin, opcode, is_deflated, payload_bytes, mask: *mask, header_bytes: mask_at + 4 }))
    }
}

/// Parses an extended payload length.
///
/// Returns the length, and the offset of the masking key in the header.
fn parse_long_length(short: u8, input: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
    let extended = input.get(2..).unwrap_or_default();
    if short == 126 {
        let Some(bytes) = extended.first_chunk::<2>() else { return Ok(None) };
        let length = u64::from(u16::from_be_bytes(*bytes));
        return if length < 126 { Err(ProtocolError::LengthNotMinimal) } else { Ok(Some((length, 4))) };
    }
    if extended.first().is_some_and(|top| top & 0x80 != 0) {
        return Err(ProtocolError::LengthTooLarge);
    }
    let Some(bytes) = extended.first_chunk::<8>() else { return Ok(None) };
    let length = u64::from_be_bytes(*bytes);
    if length <= 0xffff { Err(ProtocolError::LengthNotMinimal) } else { Ok(Some((length, 10))) }
}

/// The header of an unfragmented, unmasked server frame.
///
/// The payload length is encoded in the shortest form.
#[derive(Copy, Clone, Debug)]
pub struct ServerHeader {
    first: u8,
    payload_bytes: usize,
}

impl ServerHeader {
    /// Creates the header for a payload of `payload_bytes`.
    #[inline]
    pub fn new(opcode: Opcode, payload_bytes: usize) -> ServerHeader {
        ServerHeader { first: 0x80 | opcode as u8, payload_bytes }
    }

    /// Creates the header of a deflated message (RFC 7692 section 6.1).
    pub fn deflated(opcode: Opcode, payload_bytes: usize) -> ServerHeader {
        ServerHeader { first: 0x80 | RSV1 | opcode as u8, payload_bytes }
    }

    /// Returns the length of the header in bytes: 2, 4 or 10.
    #[inline]
    pub fn bytes(self) -> usize {
        match self.payload_bytes {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        }
    }

    /// Writes the header and `payload` to `frame`. The length of `frame` is the length of the header plus the length of
    /// `payload`.
    #[inline(always)]
    pub fn write_frame(self, payload: &[u8], frame: &mut [u8]) {
        let rest = match (self.payload_bytes, frame) {
            (short @ 0..=125, [first, second, rest @ ..]) => {
                (*first, *second) = (self.first, short as u8);
                rest
            }
            (medium @ 126..=0xffff, [first, second, high, low, rest @ ..]) => {
                (*first, *second) = (self.first, 126);
                [*high, *low] = (medium as u16).to_be_bytes();
                rest
            }
            (long, [first, second, a, b, c, d, e, f, g, h, rest @ ..]) => {
                (*first, *second) = (self.first, 127);
                [*a, *b, *c, *d, *e, *f, *g, *h] = (long as u64).to_be_bytes();
                rest
            }
            _ => unreachable!("the frame must have room for its header"),
        };
        rest.copy_from_slice(payload);
    }

    /// Appends the header to `out`.
    // This function is always inlined: for a constant length, the compiler emits one store instead of a call of memcpy.
    #[inline(always)]
    pub fn append_to(self, out: &mut Vec<u8>) {
        let first = self.first;
        match self.payload_bytes {
            short @ 0..=125 => out.extend_from_slice(&[first, short as u8]),
            medium @ 126..=0xffff => {
                let [high, low] = (medium as u16).to_be_bytes();
                out.extend_from_slice(&[first, 126, high, low]);
            }
            long => {
                out.extend_from_slice(&[first, 127]);
                out.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
    }
}

/// Returns the length of the server frame at the start of `bytes`.
///
/// The length includes the header. Returns `None` if the header is incomplete.
pub fn server_frame_bytes(bytes: &[u8]) -> Option<usize> {
    let short = bytes.get(1)? & 0x7f;
    let (payload, header) = match short {
        126 => (u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?), 10),
        _ => (u64::from(short), 2),
    };
    usize::try_from(payload).ok()?.checked_add(header)
}

/// Returns the payload of the server frame in `bytes`.
pub fn server_payload(bytes: &[u8]) -> &[u8] {
    let header = match bytes.get(1).map(|short| short & 0x7f) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    bytes.get(header..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(opcode: Opcode, payload_bytes: usize) -> Vec<u8> {
        let (header, mut bytes) = (ServerHeader::new(opcode, payload_bytes), Vec::new());
        header.append_to(&mut bytes);
        assert!(bytes.len() == header.bytes() && bytes.len() <= SERVER_HEADER_BYTES_MAX);
        bytes
    }

    #[test]
    fn server_headers_are_minimal() {
        let header = |payload| encoded(Opcode::Text, payload);
        assert_eq!(header(0), [0x81, 0]);
        assert_eq!(header(125), [0x81, 125]);
        assert_eq!(header(126), [0x81, 126, 0, 126]);
        assert_eq!(header(0xffff), [0x81, 126, 0xff, 0xff]);
        assert_eq!(header(0x1_0000), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        let mut deflated = Vec::new();
        ServerHeader::deflated(Opcode::Binary, 5).append_to(&mut deflated);
        assert_eq!(deflated, [0xc2, 5]);
    }

    #[test]
    fn server_frame_bytes_returns_the_length_of_a_frame() {
        for payload in [0, 1, 125, 126, 65_535, 65_536] {
            let header = encoded(Opcode::Binary, payload);
            assert_eq!(server_frame_bytes(&header), Some(payload + header.len()));
            assert_eq!(server_frame_bytes(&header[..1]), None);
        }
    }

    #[test]
    fn a_client_header_is_incomplete_if_it_is_cut_at_any_byte() {
        let table: [(&[u8], u64, usize); 4] = [
            (b"\x81\x80\x01\x02\x03\x04", 0, 6),
            (b"\x82\xfd\x01\x02\x03\x04", 125, 6),
            (b"\x81\xfe\x00\x7e\x01\x02\x03\x04", 126, 8),
            (b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04", 65_536, 14),
        ];
        for (bytes, payload_bytes, header_bytes) in table {
            for cut in 0..bytes.len() {
                assert_eq!(
                    Header::parse(&bytes[..cut]),
                    Ok(None),
                    "{bytes:?} must be incomplete if it is cut at {cut}"
                );
            }
            let header = Header::parse(bytes).expect("the header is valid").expect("the header is complete");
            assert_eq!((header.payload_bytes, header.header_bytes), (payload_bytes, header_bytes));
            assert_eq!(header.mask, [1, 2, 3, 4]);
        }
    }

    #[test]
    fn the_error_of_a_header_is_reported_at_its_first_invalid_byte() {
        let table: [(&[u8], ProtocolError); 14] = [
            (b"\xc1", ProtocolError::ReservedBits),
            (b"\xa1", ProtocolError::ReservedBits),
            (b"\x91", ProtocolError::ReservedBits),
            (b"\x83", ProtocolError::ReservedOpcode),
            (b"\x8b", ProtocolError::ReservedOpcode),
            (b"\x8f", ProtocolError::ReservedOpcode),
            (b"\x09", ProtocolError::ControlFragmented),
            (b"\x81\x05", ProtocolError::Unmasked),
            (b"\x89\xfe", ProtocolError::ControlTooLong),
            (b"\x88\xff", ProtocolError::ControlTooLong),
            (b"\x81\xfe\x00\x7d", ProtocolError::LengthNotMinimal),
            (b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff", ProtocolError::LengthNotMinimal),
            (b"\x81\xff\x80", ProtocolError::LengthTooLarge),
            (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xfc", ProtocolError::LengthTooLarge),
        ];
        for (bytes, error) in table {
            assert_eq!(Header::parse(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn only_the_first_frame_of_a_message_may_have_rsv1() {
        for (first, is_valid) in [
            (0xc1, true),
            (0x41, true),
            (0xc2, true),
            (0x42, true),
            (0xc0, false),
            (0x40, false),
            (0xc8, false),
            (0xc9, false),
            (0xca, false),
            (0xe1, false),
            (0xd1, false),
            (0xf1, false),
            (0xa1, false),
            (0x91, false),
        ] {
            let header = Header::parse_deflated(&[first, 0x80, 1, 2, 3, 4]);
            let is_deflated = header.map(|header| header.map(|header| header.is_deflated));
            let expected = if is_valid { Ok(Some(true)) } else { Err(ProtocolError::ReservedBits) };
            assert_eq!(is_deflated, expected, "{first:#x}");
            assert_eq!(Header::parse(&[first]), Err(ProtocolError::ReservedBits), "{first:#x}");
        }
        let plain = Header::parse_deflated(&[0x81, 0x80, 1, 2, 3, 4]).map(|header| header.map(|it| it.is_deflated));
        assert_eq!(plain, Ok(Some(false)));
    }
}
