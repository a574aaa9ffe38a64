//! A client with permessage-deflate. The client compresses with miniz, and the server compresses with `zlib-rs`.

use std::net::SocketAddr;

use fdpush::Limits;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::raw::{UPGRADE, frame_with};
use super::{Raw, limits_with_long_times};

pub const RSV1: u8 = 0x40;
pub const DEFLATED_TEXT: u8 = 0xc1;
pub const DEFLATED_BINARY: u8 = 0xc2;

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Whether the tests of this test binary run with permessage-deflate.
///
/// In such a test binary, the clients offer the extension, and [`Raw`] deflates and inflates messages.
pub const IS_DEFLATED: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"hostile_deflate");

/// Returns the limits of [`limits_with_long_times`], with compression if the tests run with permessage-deflate.
pub fn limits() -> Limits {
    let limits = limits_with_long_times();
    match IS_DEFLATED {
        false => limits,
        true => Limits { compression: true, compress_bytes_min: 1, inflated_bytes_per_second_max: 1 << 40, ..limits },
    }
}

/// Adds an offer of permessage-deflate to an upgrade request, if the tests run with permessage-deflate.
pub fn offering(upgrade: &str) -> String {
    match IS_DEFLATED {
        false => upgrade.to_owned(),
        true => upgrade.replacen("Host:", "Sec-WebSocket-Extensions: permessage-deflate\r\nHost:", 1),
    }
}

/// Opens a WebSocket with this offer of extensions, and returns the extensions that the server accepted.
pub fn connect_offering(address: SocketAddr, target: &str, offer: &str) -> (Raw, Option<String>) {
    let mut raw = Raw::connect(address);
    let request = UPGRADE.replacen('/', target, 1);
    raw.send(request.replace("Host:", &format!("Sec-WebSocket-Extensions: {offer}\r\nHost:")));
    let reply = raw.reply();
    assert_eq!(reply.status, 101);
    let accepted = reply.header("Sec-WebSocket-Extensions").map(str::to_owned);
    (raw, accepted)
}

/// Opens a WebSocket with permessage-deflate.
pub fn connect(address: SocketAddr, target: &str) -> Raw {
    let (raw, accepted) = connect_offering(address, target, "permessage-deflate; client_max_window_bits");
    let expected = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(accepted.as_deref(), Some(expected));
    raw
}

/// Deflates a payload.
pub fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + payload.len() / 100 + 100);
    let mut stream = Compress::new(Compression::new(9), false);
    stream.compress_vec(payload, &mut out, FlushCompress::Sync).expect("the payload can be deflated");
    assert_eq!(stream.total_in(), payload.len() as u64);
    out.strip_suffix(&TAIL).expect("the output ends with the tail of a flush").to_vec()
}

/// Inflates a payload. The payload must be complete and must not refer to an earlier message.
pub fn inflate(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &TAIL].concat();
    let (mut stream, mut out) = (Decompress::new(false), Vec::new());
    while stream.total_in() < whole.len() as u64 || out.len() == out.capacity() {
        out.reserve(4 * whole.len());
        let rest = &whole[stream.total_in() as usize..];
        stream.decompress_vec(rest, &mut out, FlushDecompress::Sync).expect("the stream is valid");
    }
    out
}

/// Returns a complete frame with a deflated payload.
pub fn deflated_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(first, &deflate(payload))
}

/// Takes the first byte and the payload of a received frame. If the frame is deflated, returns the inflated frame.
pub fn inflated_frame((first, payload): (u8, Vec<u8>)) -> (u8, Vec<u8>) {
    match IS_DEFLATED && first & RSV1 != 0 {
        true => (first & !RSV1, inflate(&payload)),
        false => (first, payload),
    }
}

/// Returns whether the next message was deflated, and its inflated payload.
pub fn message(raw: &mut Raw) -> (bool, Vec<u8>) {
    let (first, payload) = raw.frame();
    assert!(matches!(first & !RSV1, 0x81 | 0x82), "expected the first byte of a message, got {first:#x}");
    let is_deflated = first & RSV1 != 0;
    (is_deflated, if is_deflated { inflate(&payload) } else { payload })
}
