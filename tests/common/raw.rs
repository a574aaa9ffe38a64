//! A client that sends and receives raw bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::{deflated, tls};

/// A valid upgrade request. `Host` is a loopback name, as in a request of a browser on this machine.
pub const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A plain HTTP request.
pub const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A connection, and the received bytes that the test has not read yet.
pub struct Raw {
    stream: tls::Socket,
    buf: Vec<u8>,
}

/// A parsed HTTP response.
#[derive(Debug)]
pub struct HttpResponse {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Raw {
        Raw { stream: tls::Socket::connect(address), buf: Vec::new() }
    }

    /// Creates a client over an open connection.
    pub fn over(stream: tls::Socket) -> Raw {
        Raw { stream, buf: Vec::new() }
    }

    /// Opens a WebSocket.
    pub fn upgraded(address: SocketAddr) -> Raw {
        Raw::upgraded_at(address, "/")
    }

    /// Works like [`upgraded`](Raw::upgraded), with another request target than `/`.
    pub fn upgraded_at(address: SocketAddr, target: &str) -> Raw {
        let mut raw = Raw::connect(address);
        raw.send(deflated::offering(&UPGRADE.replacen('/', target, 1)));
        assert_eq!(raw.reply().status, 101);
        raw
    }

    /// Returns a second handle of the connection, for another thread.
    pub fn another(&self) -> Raw {
        Raw { stream: self.stream.another().expect("the connection has no TLS"), buf: Vec::new() }
    }

    /// Connects from another address of the loopback network, so that the server sees another client address.
    pub fn connect_from(source: [u8; 4], address: SocketAddr) -> Raw {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("the socket can be created");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("the address belongs to this machine");
        socket.connect(&address.into()).expect("the server listens");
        Raw { stream: tls::Socket::over(socket.into(), address), buf: Vec::new() }
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let linger = SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO));
        linger.expect("the socket option can be set");
    }

    /// Returns the local address. The server sees this address as `peer`.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.tcp().local_addr().expect("the socket is connected")
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the bytes can be sent");
    }

    /// Sends bytes to a server that may have stopped reading. Returns whether the socket accepted the bytes.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends one complete, masked frame. A message is deflated if the tests run with permessage-deflate.
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        match (deflated::IS_DEFLATED, opcode) {
            (true, TEXT | BINARY) => self.send(deflated::deflated_frame(0x80 | deflated::RSV1 | opcode, payload)),
            _ => self.send(frame(opcode, payload)),
        }
    }

    /// Shuts down the write side of the connection.
    pub fn shutdown_write(&mut self) {
        self.stream.shutdown_write().expect("the connection is open");
    }

    /// Returns the next response. The length of its body is its `Content-Length`.
    pub fn reply(&mut self) -> HttpResponse {
        let mut reply = self.reply_head();
        let length =
            reply.header("Content-Length").map_or(0, |length| length.parse().expect("Content-Length is a number"));
        reply.body = String::from_utf8(self.take(length)).expect("the body is UTF-8");
        reply
    }

    /// Returns the next response, which must have a chunked body.
    pub fn reply_in_chunks(&mut self) -> HttpResponse {
        let mut reply = self.reply_head();
        assert_eq!(reply.header("Transfer-Encoding"), Some("chunked"), "{}", reply.head);
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let size =
                usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("expected a chunk size, got {line:?}"));
            body.extend(self.take(size));
            assert_eq!(self.line(), "", "a chunk must end with CRLF");
            if size == 0 {
                break;
            }
        }
        reply.body = String::from_utf8(body).expect("the body is UTF-8");
        reply
    }

    /// Returns the next line without its CRLF.
    fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buf.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8(self.take(at)).expect("the line is UTF-8");
                self.take(2);
                return line;
            }
            assert!(self.fill(), "the stream must not end before the end of the line");
        }
    }

    /// Returns the head of the next response and reads no body.
    pub fn reply_head(&mut self) -> HttpResponse {
        let end = loop {
            if let Some(at) = self.buf.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill(),
                "the stream must not end before the end of the head: {:?}",
                String::from_utf8_lossy(&self.buf)
            );
        };
        let head = String::from_utf8(self.take(end)).expect("the head is UTF-8");
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("expected a status line, got {head:?}"));
        HttpResponse { status, head, body: String::new() }
    }

    /// Returns the next frame: its first byte (FIN, RSV, opcode) and its payload.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2);
        assert!(head[1] < 128, "a server frame must not be masked");
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.take_array())),
            127 => u64::from_be_bytes(self.take_array()),
            length => u64::from(length),
        };
        let payload = self.take(usize::try_from(length).expect("the length fits into usize"));
        deflated::inflated_frame((head[0], payload))
    }

    /// Returns the next frame, or `None` if the stream ends first.
    pub fn try_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        (!self.buf.is_empty() || self.fill()).then(|| self.frame())
    }

    /// Reads exactly these bytes. Allocates no memory if an earlier call has read as many bytes, because the buffer is
    /// then large enough.
    pub fn expect(&mut self, bytes: &[u8]) {
        while self.buf.len() < bytes.len() {
            assert!(self.fill(), "the stream ended after {} of {} bytes", self.buf.len(), bytes.len());
        }
        assert!(self.buf[..bytes.len()] == *bytes, "the server must send the expected bytes");
        self.buf.drain(..bytes.len());
    }

    /// Skips the frames before the close frame. Returns code and reason.
    pub fn close_frame(&mut self) -> (u16, String) {
        loop {
            if let (0x88, payload) = self.frame() {
                let (code, reason) = payload.split_at(2);
                let code = u16::from_be_bytes([code[0], code[1]]);
                return (code, String::from_utf8(reason.to_vec()).expect("the close reason is UTF-8"));
            }
        }
    }

    /// Returns all bytes up to the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buf)
    }

    /// Skips all bytes up to the end of the stream. Returns `true` if the stream ends without an error.
    pub fn ends_in_order(&mut self) -> bool {
        self.buf.clear();
        loop {
            match self.stream.read(&mut [0; 1024]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                    return false;
                }
                Err(error) => panic!("expected the end before the deadline: {error}"),
            }
        }
    }

    /// Works like [`rest`](Raw::rest), but also returns the bytes if the stream ends with an error.
    pub fn try_rest(&mut self) -> Vec<u8> {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.stream.read(&mut chunk) {
            self.buf.extend_from_slice(&chunk[..count]);
        }
        std::mem::take(&mut self.buf)
    }

    /// Reads until a condition is true for the unread bytes, and returns these bytes.
    pub fn rest_until(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        while !is_enough(&self.buf) {
            assert!(self.fill(), "the stream ended after {:?}", self.buf);
        }
        std::mem::take(&mut self.buf)
    }

    /// Returns whether unread bytes have arrived, without waiting.
    pub fn has_more(&mut self) -> bool {
        !self.buf.is_empty() || self.stream.has_more()
    }

    /// Expects the end of the stream and no bytes before it.
    pub fn end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buf.len() < count {
            assert!(self.fill(), "the stream ended after {} of {count} bytes", self.buf.len());
        }
        self.buf.drain(..count).collect()
    }

    fn take_array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().expect("`take` returns N bytes")
    }

    /// Reads more bytes. Returns `false` at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(count) => {
                self.buf.extend_from_slice(&chunk[..count]);
                count > 0
            }
            // Through TLS, the end of the stream without `close_notify` is an error, too.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => false,
            Err(error) => panic!("expected input before the deadline: {error}"),
        }
    }
}

impl HttpResponse {
    /// Returns the value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Returns whether the server keeps the connection alive.
    pub fn keeps_alive(&self) -> bool {
        self.header("Connection") == Some("keep-alive")
    }
}

/// Returns a complete, masked frame.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(0x80 | opcode, payload)
}

/// Returns a masked frame with this first byte.
pub fn frame_with(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Returns the payload of a close frame.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}
