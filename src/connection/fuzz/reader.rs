//! A model of a client, which checks the output of a connection.
//!
//! The model expects every response and every frame, in order and complete, and no bytes after the last one. The model
//! has its own implementation of RFC 9112 and RFC 6455, and shares no code with the server.

use std::collections::VecDeque;

use crate::connection::Closed;
use crate::protocol::close::CloseCode;

/// A client that reads the output of a connection.
#[derive(Default)]
pub(super) struct Reader {
    /// The received bytes of a response or frame that is not complete yet.
    bytes: Vec<u8>,
    /// The number of bytes received.
    pub read_bytes: u64,
    /// The expected output, in order.
    ///
    /// The list contains neither pongs nor the connection's own error responses.
    pub due: VecDeque<Due>,
    /// The payloads of pings that the server may still answer.
    ///
    /// The server may leave out the pong of an older ping (RFC 6455 section 5.5.3).
    pub pings: VecDeque<Vec<u8>>,
    /// Whether the 101 response was received, so that frames follow.
    is_upgraded: bool,
    /// Whether permessage-deflate was negotiated.
    pub deflates: bool,
    /// Whether the head of the expected response in pieces was received.
    is_streaming: bool,
    /// Whether a close frame was received.
    is_closed: bool,
    /// The length of the body of an error response whose head was received.
    ///
    /// An error response to a HEAD request has no body. No output follows the error response.
    refusal: Option<usize>,
    /// Whether the connection dropped its output to this client.
    pub is_lost: bool,
}

/// A response or frame that the client expects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Response {
        status: u16,
        body: &'static [u8],
    },
    /// A response in pieces, with the unreceived bytes of its encoded body.
    Stream {
        is_head: bool,
        is_chunked: bool,
        body: Vec<u8>,
        is_ended: bool,
    },
    /// The 101 response.
    Opening,
    Frame {
        first: u8,
        payload: Vec<u8>,
        key: Option<&'static str>,
    },
}

impl Reader {
    /// Receives the next bytes of the output, and checks them.
    pub fn read(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.read_bytes += bytes.len() as u64;
        while if self.is_upgraded { self.take_frame() } else { self.take_response() } {}
        if let Some(length) = self.refusal {
            assert!(self.bytes.len() <= length, "no output may follow the body of an error response");
        }
        assert!(!self.is_closed || self.bytes.is_empty(), "no output may follow a close frame");
    }

    /// Checks that all expected output was received, unless output was dropped.
    pub fn check_whole(&self) {
        if self.is_lost {
            return;
        }
        let mut due = self.due.iter();
        if self.is_streaming {
            assert!(matches!(due.next(), Some(Due::Stream { body, .. }) if body.is_empty()), "{:?}", self.due);
        }
        assert!(due.next().is_none(), "all expected output must be written; missing: {:?}", self.due);
        let is_whole = self.bytes.is_empty() || self.refusal == Some(self.bytes.len());
        assert!(is_whole, "the output must end with a whole frame or response; {} bytes are left", self.bytes.len());
    }

    /// Adds a close frame to the expected output. The server must send this frame if the connection ends with `closed`.
    pub fn expect_close(&mut self, closed: &Closed) {
        use crate::connection::By;
        let reason = if closed.by == By::Server { &closed.reason[..] } else { "" };
        let payload = match closed.code {
            CloseCode::ABNORMAL => return,
            CloseCode::NO_STATUS => Vec::new(),
            code => [&code.as_u16().to_be_bytes(), reason.as_bytes()].concat(),
        };
        self.due.push_back(Due::Frame { first: 0x88, payload, key: None });
    }

    /// Adds a response in pieces to the expected output.
    ///
    /// `is_head` says whether the request is a HEAD request. `version` is the minor HTTP version of the request.
    pub fn begin_stream(&mut self, (is_head, version): (bool, u8)) {
        self.due.push_back(Due::Stream { is_head, is_chunked: version == 1, body: Vec::new(), is_ended: false });
    }

    /// Returns whether the last expected output is an unfinished response in pieces.
    pub fn is_streaming_last(&self) -> bool {
        matches!(self.due.back(), Some(Due::Stream { is_ended: false, .. }))
    }

    /// Adds a piece to the expected response in pieces.
    pub fn write_stream(&mut self, piece: &[u8]) {
        match self.due.back_mut() {
            Some(Due::Stream { is_head: true, .. }) => {}
            Some(Due::Stream { is_chunked: true, body, is_ended: false, .. }) if !piece.is_empty() => {
                body.extend(format!("{:x}\r\n", piece.len()).bytes());
                body.extend_from_slice(piece);
                body.extend_from_slice(b"\r\n");
            }
            Some(Due::Stream { body, is_ended: false, .. }) => body.extend_from_slice(piece),
            other => panic!("the last expected output must be a response in pieces: {other:?}"),
        }
    }

    /// Adds the end to the expected response in pieces.
    pub fn end_stream(&mut self) {
        match self.due.back_mut() {
            Some(Due::Stream { is_head, is_chunked, body, is_ended: is_ended @ false }) => {
                *is_ended = true;
                if *is_chunked && !*is_head {
                    body.extend_from_slice(b"0\r\n\r\n");
                }
            }
            other => panic!("the last expected output must be a response in pieces that has not ended: {other:?}"),
        }
    }

    /// Puts `newer` in the place of the newest expected message that has the same key.
    pub fn conflate(&mut self, newer: &Due) {
        let Due::Frame { key: newer_key @ Some(_), .. } = newer else {
            panic!("a message without a key must not be conflated")
        };
        let same = |due: &Due| matches!(due, Due::Frame { key, .. } if key == newer_key);
        let older = self.due.iter().rposition(same).expect("a message with this key is queued");
        assert!(older > 0 || !self.is_inside_due(), "a partly written message must not be replaced");
        self.due[older] = newer.clone();
    }

    /// Removes the newest `count` messages from the expected output, because the server dropped them.
    pub fn drop_newest(&mut self, count: usize) {
        for _ in 0..count {
            let is_message = |due: &Due| matches!(due, Due::Frame { first: 0x81 | 0x82, .. });
            let newest = self.due.iter().rposition(is_message).expect("the queue contains a message");
            assert!(newest > 0 || !self.is_inside_due(), "a partly written message must not be dropped");
            self.due.remove(newest);
        }
    }

    /// Removes all frames except a partly received one from the expected output, because the server dropped them.
    pub fn truncate(&mut self) {
        let kept = if self.is_upgraded {
            usize::from(self.is_inside_due())
        } else {
            self.due.iter().take_while(|due| !matches!(due, Due::Frame { .. })).count()
        };
        self.due.truncate(kept);
    }

    /// Returns whether the first expected frame is partly received. A partly received pong is ignored, because pongs
    /// are not in the expected output.
    pub(super) fn is_inside_due(&self) -> bool {
        self.is_upgraded && self.bytes.first().is_some_and(|first| first & 0x0f != 10)
    }

    /// Compares the first received response with the expected one, and removes both. Returns `false` if the response is
    /// not complete yet.
    fn take_response(&mut self) -> bool {
        if self.is_streaming {
            return self.take_stream();
        }
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end.filter(|_| self.refusal.is_none()) else { return false };
        let head = String::from_utf8(self.bytes[..end].to_vec()).expect("the head is UTF-8");
        let status: u16 =
            head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok()).expect("the response has a status");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().expect("the length is a number"));
        let whole = match self.due.front() {
            _ if status == 100 => end + 4,
            Some(Due::Response { status: expected, body }) => {
                assert_eq!(status, *expected, "the response must have the expected status: {head}");
                let whole = end + 4 + body.len();
                if self.bytes.len() < whole {
                    return false;
                }
                assert_eq!(&self.bytes[end + 4..whole], *body);
                assert!(body.is_empty() || body.len() == length, "{head}");
                whole
            }
            Some(Due::Stream { is_chunked, .. }) => {
                assert!(status == 200 && head.contains("Transfer-Encoding: chunked") == *is_chunked, "{head}");
                self.is_streaming = true;
                end + 4
            }
            Some(Due::Opening) => {
                assert!(
                    status == 101 && head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
                    "{head}"
                );
                self.is_upgraded = true;
                self.deflates = head.contains("\r\nSec-WebSocket-Extensions: permessage-deflate;");
                end + 4
            }
            None => {
                assert!(
                    (400..600).contains(&status) && head.contains("Connection: "),
                    "an unexpected response must have an error status and a Connection header: {head}"
                );
                assert!(
                    head.ends_with("close"),
                    "an error response must have the header line Connection: close: {head}"
                );
                self.refusal = Some(length);
                end + 4
            }
            Some(frame) => panic!("the 101 response must be sent before the frame {frame:?}"),
        };
        if status != 100 && self.refusal.is_none() && !self.is_streaming {
            self.due.pop_front();
        }
        self.bytes.drain(..whole);
        true
    }

    /// Compares the received part of a response in pieces with the expected part, and removes both.
    ///
    /// Returns `true` if the response has ended.
    fn take_stream(&mut self) -> bool {
        let Some(Due::Stream { body, is_ended, .. }) = self.due.front_mut() else { return false };
        let count = body.len().min(self.bytes.len());
        assert_eq!(body[..count], self.bytes[..count], "the output must be the expected piece of the body");
        body.drain(..count);
        self.bytes.drain(..count);
        let is_over = body.is_empty() && *is_ended;
        if is_over {
            self.due.pop_front();
            self.is_streaming = false;
        }
        assert!(is_over || self.bytes.is_empty(), "no other output may be inside the response");
        is_over
    }

    /// Compares the first received frame with the expected one, and removes both. Returns `false` if the frame is not
    /// complete yet.
    fn take_frame(&mut self) -> bool {
        let [first, second, rest @ ..] = &self.bytes[..] else { return false };
        let (length, rest) = match (second, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest),
            (0..126, rest) => (u64::from(*second), rest),
            (126 | 127, _) => return false,
            (128.., _) => panic!("a server frame must not be masked"),
        };
        let shortest = if length < 126 { length } else { 126 + u64::from(length > 0xffff) };
        assert_eq!(u64::from(*second), shortest, "the payload length must have its shortest form");
        let Some(received) = rest.get(..length as usize) else { return false };
        let (is_deflated, first) = (first & 0x40 != 0, &(first & !0x40));
        assert!(
            !is_deflated || (self.deflates && matches!(*first, 0x81 | 0x82)),
            "only a connection that negotiated deflation may send deflated messages"
        );
        let inflated = if is_deflated { inflate(received) } else { Vec::new() };
        let payload = if is_deflated { &inflated[..] } else { received };
        if first & 0x0f == 10 {
            assert!(*first == 0x8a && payload.len() <= 125, "a pong must be a whole frame of at most 125 bytes");
            let ping =
                self.pings.iter().position(|ping| ping == payload).expect("the client sent a ping with this payload");
            self.pings.drain(..=ping);
        } else {
            match self.due.pop_front() {
                Some(Due::Frame { first: due, payload: expected, .. }) => {
                    assert_eq!((*first, payload), (due, &expected[..]), "the frame must be the expected frame");
                }
                other => {
                    panic!("the server sent a frame that starts with {first:#x}, but the expected output is {other:?}")
                }
            }
        }
        self.is_closed |= *first == 0x88;
        let left = rest.len() - received.len();
        self.bytes.drain(..self.bytes.len() - left);
        true
    }
}

/// Inflates the payload of a message that was deflated without a reference to earlier messages.
fn inflate(payload: &[u8]) -> Vec<u8> {
    use std::io::Read as _;

    let stream = [payload, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
    let mut inflated = Vec::new();
    flate2::read::DeflateDecoder::new(&stream[..]).read_to_end(&mut inflated).expect("the payload is a valid stream");
    inflated
}
