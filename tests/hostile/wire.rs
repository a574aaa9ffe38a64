//! A raw connection of a client that parses all received bytes.
//!
//! The connection skips no bytes. After every read, the connection parses the whole buffer again from the start. So a
//! test detects unexpected responses as well as missing responses.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use crate::common::deflated::inflated_frame;
use crate::common::tls::{Socket, is_refusal};

/// A connection and all its received bytes.
pub struct Wire {
    stream: Socket,
    came: Vec<u8>,
    has_ended: bool,
    /// Whether the server refused a TLS session because of a limit.
    is_refused: bool,
    /// The local port, by which the test and the server identify the connection.
    pub port: u16,
}

/// The parsed output of the server: responses, and frames after a 101.
#[derive(Debug, Default)]
pub struct Received {
    pub replies: Vec<HttpResponse>,
    pub frames: Vec<Frame>,
    /// The bytes at the end that are not a complete response or frame.
    pub rest: Vec<u8>,
}

/// The first byte and the payload of a frame.
pub type Frame = (u8, Vec<u8>);

#[derive(Debug)]
pub struct HttpResponse {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        Wire::over(Socket::connect(address))
    }

    /// Works like [`connect`](Wire::connect), but does not make the TLS handshake.
    pub fn begin(address: SocketAddr) -> Wire {
        Wire::over(Socket::begin(address))
    }

    fn over(stream: Socket) -> Wire {
        let port = stream.tcp().local_addr().expect("the socket has an address").port();
        Wire { stream, came: Vec::new(), has_ended: false, is_refused: false, port }
    }

    /// Returns whether the server refused the connection with a TLS alert.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Sends bytes. Ignores an error, because the server may have closed the connection.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Works like [`send`](Wire::send), but does not wait for the TLS handshake, which may be incomplete.
    pub fn queue(&mut self, bytes: &[u8]) {
        let _ = self.stream.queue(bytes);
    }

    /// Sends as many bytes as the kernel accepts without a reader. Returns their number.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        self.stream.tcp().set_nonblocking(true).expect("the socket option can be set");
        let mut sent = 0;
        while let Ok(count @ 1..) = self.stream.write(&bytes[sent..]) {
            sent += count;
        }
        self.stream.tcp().set_nonblocking(false).expect("the socket option can be set");
        sent
    }

    /// Shuts down the write side of the connection. Ignores an error, because the connection may be lost.
    pub fn shutdown_write(&mut self) {
        let _ = self.stream.shutdown_write();
    }

    /// Reads until a condition is true. Returns `false` if the stream ended before the condition was true.
    pub fn read_until(&mut self, is_enough: impl Fn(&Received) -> bool) -> bool {
        loop {
            if is_enough(&self.received()) {
                return true;
            }
            if self.has_ended {
                return false;
            }
            self.read();
        }
    }

    /// Reads up to the end of the stream.
    pub fn read_to_end(&mut self) {
        while !self.has_ended {
            self.read();
        }
    }

    /// Parses all bytes that were received until now.
    pub fn received(&self) -> Received {
        Received::parse(&self.came)
    }

    fn read(&mut self) {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.has_ended = true,
            Ok(count) => self.came.extend_from_slice(&chunk[..count]),
            // The server closed the connection before it read all bytes, or closed a TLS session without
            // `close_notify`.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                self.has_ended = true;
            }
            Err(error) if is_refusal(&error) => (self.has_ended, self.is_refused) = (true, true),
            Err(error) => panic!("expected input before the deadline, after {:?}: {error}", self.received()),
        }
    }
}

impl Received {
    pub fn statuses(&self) -> Vec<u16> {
        self.replies.iter().map(|reply| reply.status).collect()
    }

    /// Returns the code of the server's close frame. If the close frame has no code, returns 1005.
    pub fn close_code(&self) -> Option<u16> {
        let close = self.frames.iter().find(|(first, _)| *first == 0x88)?;
        Some(close.1.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)))
    }

    fn parse(came: &[u8]) -> Received {
        let mut received = Received::default();
        let mut rest = came;
        while !received.is_upgraded() {
            let Some((reply, behind)) = HttpResponse::parse(rest) else { break };
            // A response with the status 100 is ignored, because it is not the result of a request. The server sends it
            // only if the body has not arrived yet.
            if reply.status != 100 {
                received.replies.push(reply);
            }
            rest = behind;
        }
        while let Some((frame, behind)) = received.is_upgraded().then(|| parse_frame(rest)).flatten() {
            received.frames.push(frame);
            rest = behind;
        }
        received.rest = rest.to_vec();
        received
    }

    fn is_upgraded(&self) -> bool {
        self.replies.last().is_some_and(|reply| reply.status == 101)
    }
}

impl HttpResponse {
    fn parse(bytes: &[u8]) -> Option<(HttpResponse, &[u8])> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let (head, rest) = bytes.split_at(end);
        let head = String::from_utf8(head.to_vec()).expect("the head is UTF-8");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3)?.parse().ok());
        let mut reply = HttpResponse {
            status: status.unwrap_or_else(|| panic!("expected a status line, got {head:?}")),
            head,
            body: Vec::new(),
        };
        let length =
            reply.header("Content-Length").map_or(0, |length| length.parse().expect("Content-Length is a number"));
        let (body, rest) = rest.split_at_checked(length)?;
        reply.body = body.to_vec();
        Some((reply, rest))
    }

    /// Returns the value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Returns the frame at the start of `bytes`, and the bytes after it.
fn parse_frame(bytes: &[u8]) -> Option<(Frame, &[u8])> {
    let (&[first, short], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match short {
        126 => rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
        127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        length => (u64::from(length), rest),
    };
    assert!(short < 128, "a server frame must not be masked");
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).expect("the length fits into usize"))?;
    Some((inflated_frame((first, payload.to_vec())), rest))
}
