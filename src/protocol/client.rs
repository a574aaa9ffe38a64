//! Encodes client frames, for tests and fuzz targets: the server never masks.

use crate::protocol::frame::Opcode;

/// The masking key of all frames.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Encodes a masked frame with its length in the shortest form.
pub fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let first = u8::from(fin) << 7 | opcode as u8;
    let mut bytes = match payload.len() {
        len @ 0..=125 => masked(first, len as u8, &[]),
        len @ 126..=0xffff => masked(first, 126, &(len as u16).to_be_bytes()),
        len => masked(first, 127, &(len as u64).to_be_bytes()),
    };
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Encodes a masked frame with RSV1: the payload is deflated.
#[cfg(test)]
pub fn deflated_frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(fin, opcode, payload);
    if let Some(first) = bytes.first_mut() {
        *first |= 0x40;
    }
    bytes
}

/// Encodes a header with mask bit and masking key.
///
/// `short` is the 7-bit length. `extended` has the bytes of an extended length.
pub fn masked(first: u8, short: u8, extended: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | short], extended, &MASK].concat()
}
