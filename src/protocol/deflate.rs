//! The payload encoding of permessage-deflate (RFC 7692 section 7.2).
//!
//! A message is a DEFLATE stream (RFC 1951) without its last 4 bytes, `00 00 ff ff`. No compression context is kept
//! between messages, in either direction: each message starts with an empty window of 32 KiB. So one [`Deflater`] and
//! one [`Inflater`] serve all connections of a loop, and a deflated frame can be sent to any number of connections.
//!
//! This module does not read frame headers. `extension.rs` negotiates the extension.

use std::fmt;

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use crate::protocol::frame::{Opcode, ServerHeader};

/// The longest payload that is deflated, in bytes.
///
/// The limit exists because deflating takes up to 50 ns per byte, and the loop serves no connection during this time.
pub const DEFLATED_BYTES_MAX: usize = 256 << 10;

/// The last bytes of the DEFLATE stream of each message, which are not sent. These bytes are an empty stored block
/// without the 3 bits of its header.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The tail, followed by an empty final block.
///
/// The inflater reads these bytes after the payload of a message, as a check. If the payload ends between two blocks,
/// the stream ends exactly with the last of these bytes, and these bytes produce no output. In all other cases, the
/// payload is incomplete or invalid.
const TAIL_AND_END: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// The base-2 logarithm of the size of the window, which is 2^15 bytes.
const WINDOW_BITS: u8 = 15;

/// The maximum number of output bytes of one call of `Inflater::step`.
const STEP_BYTES: usize = 16 << 10;

/// The compression level, the default of zlib.
const LEVEL: i32 = 6;

/// The reason why a payload cannot be inflated.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum InflateError {
    /// The payload is not a complete DEFLATE stream.
    Invalid,
    /// The payload inflates to more than the limit.
    TooBig,
    /// Memory for the result could not be allocated.
    OutOfMemory,
}

/// Returns the longest deflated payload of a message of at most `bytes_max` bytes.
///
/// Data that cannot be compressed becomes longer when it is deflated: by at most one 16th and a few bytes
/// (`deflateBound` of zlib).
pub fn deflated_bytes_max(bytes_max: u64) -> u64 {
    bytes_max.saturating_add(bytes_max / 16 + 64)
}

/// An inflater for the payloads of messages, one message after the other.
///
/// The caller calls [`begin`](Inflater::begin), then [`push`](Inflater::push) for each part, then
/// [`finish`](Inflater::finish).
pub struct Inflater {
    stream: Inflate,
    /// The buffer for the output of one call of `Inflater::step`.
    step: Box<[u8]>,
    /// Whether no byte of the present message was passed to [`push`](Inflater::push) yet.
    is_empty: bool,
    /// Whether the bytes that were passed to [`push`](Inflater::push) end with a final block.
    has_ended: bool,
}

impl Inflater {
    /// The memory of an inflater, in bytes: its window, its tables, and its output buffer.
    pub const MEMORY_BYTES: usize = (48 << 10) + STEP_BYTES;

    /// Creates an inflater and allocates its window.
    pub fn new() -> Inflater {
        let stream = Inflate::new(false, WINDOW_BITS);
        Inflater { stream, step: vec![0; STEP_BYTES].into(), is_empty: true, has_ended: false }
    }

    /// Starts a message. An unfinished earlier message is dropped.
    pub fn begin(&mut self) {
        self.stream.reset(false);
        (self.is_empty, self.has_ended) = (true, false);
    }

    /// Inflates a part of the payload, and appends the result to `out`.
    ///
    /// Neither the length nor the capacity of `out` exceeds `bytes_max`.
    ///
    /// # Errors
    /// Returns an error if the payload cannot be inflated. After an error, the caller must not push another part of
    /// this message.
    pub fn push(&mut self, part: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), InflateError> {
        let mut rest = part;
        let mut is_step_full = false;
        self.is_empty &= part.is_empty();
        while !rest.is_empty() || is_step_full {
            if self.has_ended {
                // A block after the final block begins a new stream: see the second example of RFC 7692 section
                // 7.2.3.4.
                self.stream.reset(false);
                self.has_ended = false;
            }
            let (taken, made, status) = self.step(rest)?;
            if (taken, made) == (0, 0) && status != Status::StreamEnd && !rest.is_empty() {
                return Err(InflateError::Invalid);
            }
            rest = rest.get(taken..).unwrap_or_default();
            is_step_full = made == self.step.len() && status != Status::StreamEnd;
            self.has_ended = status == Status::StreamEnd;
            append(out, self.step.get(..made).unwrap_or_default(), bytes_max)?;
        }
        Ok(())
    }

    /// Ends the message.
    ///
    /// # Errors
    /// Returns an error if the payload ends inside a block or inside the header of a block.
    pub fn finish(&mut self) -> Result<(), InflateError> {
        // An empty payload is not a valid DEFLATE stream, but is accepted as an empty message, as in other
        // implementations.
        if self.has_ended || self.is_empty {
            return Ok(());
        }
        match self.step(&TAIL_AND_END)? {
            (taken, 0, Status::StreamEnd) if taken == TAIL_AND_END.len() => Ok(()),
            _ => Err(InflateError::Invalid),
        }
    }

    /// Inflates a part of `input` into the buffer `step`. Returns the number of consumed input bytes, the number of
    /// output bytes, and the status.
    fn step(&mut self, input: &[u8]) -> Result<(usize, usize, Status), InflateError> {
        let (taken, made) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress(input, &mut self.step, InflateFlush::SyncFlush);
        let status = status.map_err(|_| InflateError::Invalid)?;
        Ok(((self.stream.total_in() - taken) as usize, (self.stream.total_out() - made) as usize, status))
    }
}

/// Appends `bytes` to `out`, which grows to at most `bytes_max` bytes.
fn append(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) -> Result<(), InflateError> {
    let len = out.len() + bytes.len();
    if len > bytes_max {
        return Err(InflateError::TooBig);
    }
    if len > out.capacity() {
        let capacity = len.max((2 * out.capacity()).min(bytes_max));
        out.try_reserve_exact(capacity - out.len()).map_err(|_| InflateError::OutOfMemory)?;
    }
    out.extend_from_slice(bytes);
    Ok(())
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater::new()
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

/// An encoder of messages as deflated frames.
#[derive(Default)]
pub struct Deflater {
    /// The DEFLATE stream. The first message creates the stream.
    stream: Option<Deflate>,
    scratch: Vec<u8>,
}

impl Deflater {
    /// Encodes a message as a deflated frame.
    ///
    /// Returns `None` if the payload is longer than [`DEFLATED_BYTES_MAX`] or would not become shorter, or if memory is
    /// exhausted.
    pub fn encode(&mut self, opcode: Opcode, payload: &[u8]) -> Option<Vec<u8>> {
        if payload.len() > DEFLATED_BYTES_MAX {
            return None;
        }
        let deflated = self.deflate(payload)?;
        let header = ServerHeader::deflated(opcode, deflated.len());
        let mut frame = Vec::new();
        frame.try_reserve_exact(header.bytes() + deflated.len()).ok()?;
        header.append_to(&mut frame);
        frame.extend_from_slice(deflated);
        Some(frame)
    }

    /// Deflates a payload. Returns `None` if the result would not be shorter.
    fn deflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        let stream = self.stream.get_or_insert_with(|| {
            let window_bits = -i32::from(WINDOW_BITS);
            Deflate::new_with_config(DeflateConfig { level: LEVEL, window_bits, ..DeflateConfig::default() })
        });
        // The buffer has room for the length of the payload plus the tail. If the output fills the buffer, the deflated
        // message is not shorter, and is not used.
        let room = payload.len() + TAIL.len();
        if self.scratch.len() < room {
            self.scratch.try_reserve(room - self.scratch.len()).ok()?;
            self.scratch.resize(room, 0);
        }
        stream.reset();
        let out = self.scratch.get_mut(..room)?;
        stream.compress(payload, out, DeflateFlush::SyncFlush).ok()?;
        let made = stream.total_out() as usize;
        let is_whole = stream.total_in() == payload.len() as u64 && made < room;
        let deflated = out.get(..made).filter(|_| is_whole)?;
        deflated.strip_suffix(&TAIL)
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("is_created", &self.stream.is_some()).finish_non_exhaustive()
    }
}

/// Runs the fuzz target `inflate`.
///
/// The first two bytes of `data` select the limit and the length of the parts. The other bytes are a payload. The
/// output must not depend on how the payload is divided into parts. If the inflater accepts the payload, flate2 must
/// inflate the payload to the same bytes. Then the same payload is deflated as a message, and flate2 must inflate the
/// result to the payload.
#[cfg(any(test, feature = "unstable"))]
pub fn fuzz_inflate(data: &[u8]) {
    let Some((&[limit, part], payload)) = data.split_first_chunk() else { return };
    let bytes_max = [10, 1000, 40_000][usize::from(limit % 3)];
    let inflate = |part: usize| {
        let (mut inflater, mut out) = (Inflater::new(), Vec::new());
        inflater.begin();
        for part in payload.chunks(part) {
            inflater.push(part, &mut out, bytes_max)?;
            assert!(out.capacity() <= bytes_max, "the capacity {} must be at most {bytes_max}", out.capacity());
        }
        inflater.finish().map(|()| out)
    };
    let whole = inflate(payload.len().max(1));
    // Only successful results are compared: if a payload is both invalid and too big, the error depends on how the
    // payload is divided into parts.
    assert_eq!(
        inflate(usize::from(part) + 1).ok(),
        whole.clone().ok(),
        "the result must not depend on how the payload is divided into parts"
    );
    let other = inflate_otherwise(payload, bytes_max);
    match whole {
        Ok(bytes) => assert_eq!(Some(bytes), other),
        Err(InflateError::TooBig) => {
            assert_eq!(other, None, "flate2 must not inflate this payload to {bytes_max} bytes or fewer")
        }
        // The result of flate2 is not compared, because flate2 accepts some incomplete Huffman codes that the inflater
        // refuses.
        Err(_) => {}
    }
    if let Some(frame) = Deflater::default().encode(Opcode::Binary, payload) {
        let deflated = crate::protocol::frame::server_payload(&frame);
        assert_eq!(inflate_otherwise(deflated, payload.len()).as_deref(), Some(payload));
    }
}

/// Inflates a payload with flate2. Returns `None` if the payload is invalid, or if the result exceeds `bytes_max`.
#[cfg(any(test, feature = "unstable"))]
fn inflate_otherwise(payload: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    use flate2::{Decompress, FlushDecompress};

    let stream = [payload, &TAIL_AND_END].concat();
    let (mut out, mut read, mut made) = (vec![0; bytes_max + 1], 0, 0);
    while read < payload.len() {
        // A block after the final block begins a new stream.
        let mut inflater = Decompress::new(false);
        let status = inflater.decompress(&stream[read..], &mut out[made..], FlushDecompress::Finish).ok()?;
        read += inflater.total_in() as usize;
        made += inflater.total_out() as usize;
        if status != flate2::Status::StreamEnd || made > bytes_max {
            return None;
        }
    }
    let is_whole = read == payload.len() || read == stream.len();
    is_whole.then(|| out[..made].to_vec())
}

#[cfg(test)]
mod tests;
