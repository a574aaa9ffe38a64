//! A client of permessage-deflate, with the DEFLATE of another author (miniz).

use std::net::SocketAddr;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::Raw;
use super::raw::{UPGRADE, frame_with};

pub const RSV1: u8 = 0x40;
pub const DEFLATED_TEXT: u8 = 0xc1;
pub const DEFLATED_BINARY: u8 = 0xc2;

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Opens a WebSocket with this offer, and returns the extensions that the server accepted.
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
    stream.compress_vec(payload, &mut out, FlushCompress::Sync).expect("no error");
    assert_eq!(stream.total_in(), payload.len() as u64);
    out.strip_suffix(&TAIL).expect("the tail of a flush").to_vec()
}

/// Inflates a payload of at most 1 MiB. It must be complete, and must not need an earlier message.
pub fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    let whole = [payload, &TAIL].concat();
    let mut stream = Decompress::new(false);
    stream.decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("a valid stream");
    assert_eq!(stream.total_in(), whole.len() as u64);
    out
}

/// Returns a complete frame with a deflated payload.
pub fn deflated_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(first, &deflate(payload))
}

/// Returns the next message: whether it was deflated, and its payload.
pub fn message(raw: &mut Raw) -> (bool, Vec<u8>) {
    let (first, payload) = raw.frame();
    assert!(matches!(first & !RSV1, 0x81 | 0x82), "{first:#x} is no message");
    let is_deflated = first & RSV1 != 0;
    (is_deflated, if is_deflated { inflate(&payload) } else { payload })
}
