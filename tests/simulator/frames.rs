//! Encodes and parses RFC 6455 frames and RFC 7692 messages for the clients. This module shares no code with the
//! server.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// The header bit that is set in the first frame of a deflated message.
pub const RSV1: u8 = 0x40;

/// A complete frame of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// A message, inflated if it was deflated.
    Message {
        is_text: bool,
        is_deflated: bool,
        payload: Vec<u8>,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Vec<u8>),
}

/// Parses the frame that starts at `at`, and moves `at` to its end. Returns `None` if the frame is incomplete.
///
/// Panics on a frame that no server may send.
pub fn take_frame(bytes: &[u8], at: &mut usize) -> Option<Frame> {
    let rest = &bytes[*at..];
    let (&[first, second], behind) = rest.split_first_chunk()?;
    let is_deflated = first & RSV1 != 0;
    assert_eq!(first & 0xb0, 0x80, "a server frame must be final and have no reserved bit except RSV1: {first:#x}");
    assert_eq!(second & 0x80, 0, "a server frame must not be masked");
    let (length, body) = match second {
        126 => {
            let (length, body) = behind.split_first_chunk::<2>()?;
            (u64::from(u16::from_be_bytes(*length)), body)
        }
        127 => {
            let (length, body) = behind.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*length), body)
        }
        short => (u64::from(short), behind),
    };
    let shortest = if length < 126 { length } else { 126 + u64::from(length > 0xffff) };
    assert_eq!(u64::from(second), shortest, "the payload length must have its shortest form");
    let payload = body.get(..length as usize)?.to_vec();
    *at += rest.len() - body.len() + payload.len();
    let opcode = first & 0x0f;
    assert!(opcode < 8 || length <= 125, "a control frame may have at most 125 bytes, not {length}");
    assert!(opcode < 8 || !is_deflated, "a control frame must not be deflated: {first:#x}");
    let payload = if is_deflated { inflate(&payload) } else { payload };
    Some(match opcode {
        1 | 2 => Frame::Message { is_text: opcode == 1, is_deflated, payload },
        8 => Frame::Close(payload),
        9 => Frame::Ping(payload),
        10 => Frame::Pong(payload),
        _ => panic!("unexpected opcode of a server frame: {opcode}"),
    })
}

/// Returns a masked frame of a client with this first byte.
pub fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = head(first, payload.len() as u64, mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Returns the header of a client's frame with this payload length.
pub fn head(first: u8, length: u64, mask: [u8; 4]) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..=125 => head.push(0x80 | length as u8),
        126..=0xffff => {
            head.push(0x80 | 126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend(length.to_be_bytes());
        }
    }
    head.extend(mask);
    head
}

/// The last four bytes of a deflated message. A sender removes these bytes (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Inflates the payload of a message. The payload must not refer to earlier messages.
fn inflate(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &TAIL].concat();
    let (mut stream, mut out) = (Decompress::new(false), Vec::new());
    while stream.total_in() < whole.len() as u64 || out.len() == out.capacity() {
        out.reserve(4 * whole.len());
        let rest = &whole[stream.total_in() as usize..];
        stream.decompress_vec(rest, &mut out, FlushDecompress::Sync).expect("the server sends a valid stream");
    }
    out
}

/// Deflates the payload of a message.
pub fn deflate(payload: &[u8], level: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + payload.len() / 100 + 100);
    let mut stream = Compress::new(Compression::new(level), false);
    stream.compress_vec(payload, &mut out, FlushCompress::Sync).expect("the payload can be deflated");
    out.strip_suffix(&TAIL).expect("a flush ends with the tail").to_vec()
}
