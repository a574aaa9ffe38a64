//! The part of RFC 6455 that the load client needs. The code trusts the peer: it is not safe for untrusted input.

use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::DeflateDecoder;
use sha1::{Digest, Sha1};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Returns an upgrade request for `path`.
pub fn upgrade_request(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// Returns an upgrade request for `path` that offers permessage-deflate, without context takeover.
pub fn deflate_request(path: &str) -> Vec<u8> {
    let offer =
        b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n";
    let mut request = upgrade_request(path);
    request.truncate(request.len() - 2);
    request.extend(offer);
    request
}

/// Inflates the payload of a message that refers to no earlier message.
pub fn inflate(payload: &[u8]) -> io::Result<Vec<u8>> {
    let stream = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut inflated = Vec::new();
    match DeflateDecoder::new(&stream[..]).read_to_end(&mut inflated) {
        // A deflated message has no final block, so the end of its input is not an error.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(inflated),
    }
}

/// Returns the response to an upgrade request with this key.
pub fn upgrade_response(key: &str) -> Vec<u8> {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let accept = STANDARD.encode(digest);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// Returns a masked text frame of a client.
pub fn client_frame(payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = server_frame(payload);
    let header = frame.len() - payload.len();
    frame[1] |= 0x80;
    unmask(&mut frame[header..], KEY);
    frame.splice(header..header, KEY);
    frame
}

/// Returns an unmasked text frame of a server.
pub fn server_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.extend(server_header(payload.len()).as_slice());
    frame.extend(payload);
    frame
}

/// Converts the complete client frames at the start of `bytes` to server frames.
///
/// The conversion is in place, because a server header is never longer than a client header. This function calls
/// `frame` with each server frame. Returns the total length of the server frames, and that of the client frames.
pub fn answer_in_place(bytes: &mut [u8], mut frame: impl FnMut(Answer<'_>)) -> (usize, usize) {
    let (mut written, mut read) = (0, 0);
    while let Some((header, payload)) = client_header(&bytes[read..]) {
        let from = read + header;
        if bytes.len() < from + payload {
            break;
        }
        let key = [bytes[from - 4], bytes[from - 3], bytes[from - 2], bytes[from - 1]];
        unmask(&mut bytes[from..from + payload], key);
        let answer = server_header(payload);
        let to = written + answer.as_slice().len();
        let start = written;
        bytes.copy_within(from..from + payload, to);
        bytes[written..to].copy_from_slice(answer.as_slice());
        written = to + payload;
        read = from + payload;
        frame(Answer { start, payload: &bytes[to..written] });
    }
    (written, read)
}

/// A server frame that [`answer_in_place`] made.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The offset of the frame's first byte.
    pub start: usize,
    pub payload: &'a [u8],
}

/// Returns the complete server frame at the start of `bytes`: its first byte, its payload, and its length.
pub fn read_server_frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let header = (2..=bytes.len().min(10)).find(|len| server_payload(&bytes[..*len]).is_some())?;
    let whole = header + server_payload(&bytes[..header])?;
    Some((bytes[0], bytes.get(header..whole)?, whole))
}

/// Counts the frames in a server's stream, and skips their payloads.
#[derive(Debug, Default)]
pub struct FrameCounter {
    header: [u8; 10],
    header_len: usize,
    /// The number of missing payload bytes of the current frame.
    left: usize,
}

impl FrameCounter {
    /// Takes the next bytes of the stream, and returns the number of frames that end in them.
    pub fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut frames = 0;
        while !bytes.is_empty() {
            if self.left == 0 {
                self.header[self.header_len] = bytes[0];
                self.header_len += 1;
                bytes = &bytes[1..];
                let Some(payload) = server_payload(&self.header[..self.header_len]) else { continue };
                self.header_len = 0;
                self.left = payload;
            }
            let taken = self.left.min(bytes.len());
            bytes = &bytes[taken..];
            self.left -= taken;
            if self.left == 0 {
                frames += 1;
            }
        }
        frames
    }
}

/// An error response of the server.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Refused;

/// Counts HTTP responses with a `Content-Length`, and checks that each status is 2xx.
#[derive(Debug, Default)]
pub struct ResponseCounter {
    head: Vec<u8>,
    /// The number of missing body bytes of the current response.
    left: usize,
}

impl ResponseCounter {
    /// Takes the next bytes of the stream, and returns the number of responses that end in them.
    ///
    /// Returns [`Refused`] if a status is not 2xx.
    pub fn count(&mut self, mut bytes: &[u8]) -> Result<usize, Refused> {
        let mut responses = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                bytes = &bytes[taken..];
                self.left -= taken;
                responses += usize::from(self.left == 0);
                continue;
            }
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            // The blank line at the end of the head may have begun in earlier bytes.
            let from = before.saturating_sub(3);
            let Some(end) = self.head[from..].windows(4).position(|window| window == b"\r\n\r\n") else { break };
            let end = from + end + 4;
            bytes = &bytes[end - before..];
            self.left = body_length(&self.head[..end]).ok_or(Refused)?;
            self.head.clear();
            responses += usize::from(self.left == 0);
        }
        Ok(responses)
    }
}

/// Returns the body length in the head of a 2xx response.
fn body_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines();
    lines.next().filter(|status| status.starts_with("HTTP/1.1 2"))?;
    lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}

/// Counts the answers to a batch: one JSON object per line, in chunks of any size.
#[derive(Debug, Default)]
pub struct AnswerCounter {
    is_behind_object: bool,
}

impl AnswerCounter {
    /// Takes the next bytes of the stream, and returns the number of answers that end in them.
    ///
    /// Returns [`Refused`] if an answer is an error.
    pub fn count(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        // Each answer ends with "}\n". No chunk of the server ends inside a line, and the line ends of HTTP never follow a
        // brace. So a brace before a line feed is the end of an answer.
        let mut answers = usize::from(self.is_behind_object && bytes.first() == Some(&b'\n'));
        answers += bytes.windows(2).filter(|pair| *pair == b"}\n").count();
        self.is_behind_object = bytes.last() == Some(&b'}');
        let refused = bytes.windows(7).any(|window| window == b"\"error\"");
        if refused { Err(Refused) } else { Ok(answers) }
    }
}

/// Returns the payload length in a complete server header.
fn server_payload(header: &[u8]) -> Option<usize> {
    match (header.get(1)?, header.len()) {
        (126, 4) => Some(usize::from(u16::from_be_bytes([header[2], header[3]]))),
        (127, 10) => header[2..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes) as usize),
        (126 | 127, _) => None,
        (short, _) => Some(usize::from(*short)),
    }
}

/// Returns the length of a client header, including the mask, and the payload length.
fn client_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let short = bytes.get(1)? & 0x7f;
    let (header, payload) = match short {
        126 => (8, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (14, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        _ => (6, usize::from(short)),
    };
    (bytes.len() >= header).then_some((header, payload))
}

#[derive(Copy, Clone)]
struct ServerHeader {
    bytes: [u8; 10],
    len: usize,
}

impl ServerHeader {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn server_header(payload: usize) -> ServerHeader {
    let mut bytes = [0; 10];
    bytes[0] = 0x81;
    let len = match payload {
        0..=125 => {
            bytes[1] = payload as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    ServerHeader { bytes, len }
}

fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let word = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for part in words {
        *part = (u64::from_ne_bytes(*part) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_to_the_key_in_rfc_6455_is_that_in_rfc_6455() {
        let response = String::from_utf8(upgrade_response("dGhlIHNhbXBsZSBub25jZQ==")).expect("the response is ASCII");
        assert!(response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn responses_are_counted_wherever_they_are_cut() {
        let one = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        let none = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
        let bytes = [&one[..], none, one].concat();
        for cut in 0..bytes.len() {
            let mut counter = ResponseCounter::default();
            let counted = counter.count(&bytes[..cut]).and_then(|first| Ok(first + counter.count(&bytes[cut..])?));
            assert_eq!(counted, Ok(3), "cut at {cut}");
        }
        assert_eq!(ResponseCounter::default().count(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), Err(Refused));
    }

    #[test]
    fn answers_are_counted_wherever_they_are_cut() {
        let bytes = b"HTTP/1.1 200 OK\r\n\r\n1e\r\n{\"matched\":1}\n{\"matched\":1}\n\r\nf\r\n{\"matched\":1}\n\r\n";
        for cut in 0..bytes.len() {
            let mut counter = AnswerCounter::default();
            let counted = counter.count(&bytes[..cut]).and_then(|first| Ok(first + counter.count(&bytes[cut..])?));
            assert_eq!(counted, Ok(3), "cut at {cut}");
        }
        assert_eq!(AnswerCounter::default().count(b"{\"error\":{}}\n"), Err(Refused));
    }

    #[test]
    fn frames_are_answered_and_counted_at_every_length() {
        for len in [0, 1, 7, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; len];
            let mut bytes = [client_frame(&payload), client_frame(b"next"), vec![0x81]].concat();
            let whole = bytes.len() - 1;
            let mut payloads = Vec::new();
            let (written, read) = answer_in_place(&mut bytes, |answer| payloads.push(answer.payload.to_vec()));
            assert_eq!(read, whole);
            assert_eq!(payloads, [payload.clone(), b"next".to_vec()]);
            assert_eq!(bytes[..written], [server_frame(&payload), server_frame(b"next")].concat());
            let first = read_server_frame(&bytes[..written]).expect("the frame is complete");
            assert_eq!((first.0, first.1), (0x81, &*payload));
            assert!((0..first.2).step_by(97).all(|cut| read_server_frame(&bytes[..cut]).is_none()));
            for cut in 0..written.min(200) {
                let mut counter = FrameCounter::default();
                assert_eq!(counter.count(&bytes[..cut]) + counter.count(&bytes[cut..written]), 2);
            }
        }
    }
}
