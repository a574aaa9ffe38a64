//! Converts bytes to the input of the fuzz target `connection`.

use std::time::Duration;

use crate::connection::fuzz::requests::REQUESTS;
use crate::limits::Heartbeat;
use crate::protocol::client::frame;
use crate::protocol::frame::Opcode;

/// Deflates a message with flate2.
fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * payload.len() + 100);
    let mut stream = flate2::Compress::new(flate2::Compression::default(), false);
    stream.compress_vec(payload, &mut out, flate2::FlushCompress::Sync).expect("the vector has enough capacity");
    out.truncate(out.len().saturating_sub(4));
    out
}

const OPCODES: [Opcode; 6] =
    [Opcode::Text, Opcode::Binary, Opcode::Continuation, Opcode::Ping, Opcode::Pong, Opcode::Close];

pub(super) fn next(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    bytes.next().unwrap_or(0)
}

/// Returns a request of a client, usually an upgrade.
pub(super) fn request(byte: u8) -> &'static str {
    REQUESTS.get(usize::from(byte)).unwrap_or(&REQUESTS[0])
}

/// Maps a byte to a length.
///
/// The result is each length from 0 to 150, then lengths up to 870 in steps of 8, then lengths up to 34,500 in steps of
/// 2300. The largest length is longer than one buffer of a queue.
pub(super) fn size(byte: u8) -> usize {
    match usize::from(byte) {
        byte @ 0..=150 => byte,
        byte @ 151..=240 => 150 + 8 * (byte - 150),
        byte => 2300 * (byte - 240),
    }
}

pub(super) fn heartbeat(byte: u8) -> Heartbeat {
    let every = Duration::from_millis(10 << (byte / 4 % 8));
    match byte % 4 {
        0 => Heartbeat::Off,
        1 => Heartbeat::Client { idle_max: every },
        2 => Heartbeat::Ping { every, missed_max: 2 },
        _ => Heartbeat::Push { every },
    }
}

/// Returns a frame of a client, usually a valid frame.
///
/// With `may_deflate`, the frame is deflated if `kind % 12` is 0 or 1.
pub(super) fn client_frame(kind: u8, argument: u8, may_deflate: bool) -> Vec<u8> {
    let opcode = OPCODES[usize::from(kind) % OPCODES.len()];
    let payload = match opcode {
        Opcode::Close if argument == 0 => Vec::new(),
        Opcode::Close => [&(900 + 20 * u16::from(argument)).to_be_bytes(), &b"bye"[..]].concat(),
        _ => vec![if kind == u8::MAX { 0xff } else { b'c' }; size(argument)],
    };
    let is_final = kind < 128 || opcode.is_control();
    let is_deflated = may_deflate && kind % 12 < 2;
    let mut bytes = frame(is_final, opcode, &if is_deflated { deflate(&payload) } else { payload });
    if let (Some(first), true) = (bytes.first_mut(), is_deflated) {
        *first |= 0x40;
    }
    bytes
}
