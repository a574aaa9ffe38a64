//! A client that speaks bytes: for what a well-behaved one would never send, and for one that does not answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::PATIENCE;

/// An upgrade that any server accepts. `Host` is a loopback name, as a browser on this machine would have it.
pub const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A connection, and what came over it and was not looked at yet.
pub struct Raw {
    stream: TcpStream,
    buf: Vec<u8>,
}

/// An HTTP response, taken apart.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).expect("a server that listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        stream.set_nodelay(true).expect("no delay");
        Raw { stream, buf: Vec::new() }
    }

    /// A connection that is an open WebSocket already.
    pub fn upgraded(address: SocketAddr) -> Raw {
        Raw::upgraded_at(address, "/")
    }

    /// As [`upgraded`](Raw::upgraded), at a target of the test's choice.
    pub fn upgraded_at(address: SocketAddr, target: &str) -> Raw {
        let mut raw = Raw::connect(address);
        raw.send(UPGRADE.replacen('/', target, 1));
        assert_eq!(raw.reply().status, 101);
        raw
    }

    /// The same connection, for another thread.
    pub fn another(&self) -> Raw {
        Raw { stream: self.stream.try_clone().expect("a descriptor"), buf: Vec::new() }
    }

    /// From an address of the loopback network, so that the server takes it for another client.
    pub fn connect_from(source: [u8; 4], address: SocketAddr) -> Raw {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
        socket.connect(&address.into()).expect("a server that listens");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        stream.set_nodelay(true).expect("no delay");
        Raw { stream, buf: Vec::new() }
    }

    /// Ends the connection with a reset, as a client does that crashes or wants to do harm.
    pub fn reset(self) {
        let linger = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        linger.expect("a socket option");
    }

    /// Its own address: the server's `peer`.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket")
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("bytes sent");
    }

    /// Sends what the server may no longer want to read.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends one whole, masked frame.
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.send(frame(opcode, payload));
    }

    /// Says that nothing more will come.
    pub fn shut(&self) {
        self.stream.shutdown(Shutdown::Write).expect("a connection to shut");
    }

    /// The next response, and the body that its head announces.
    pub fn reply(&mut self) -> Reply {
        let mut reply = self.reply_head();
        let length = reply.header("Content-Length").map_or(0, |length| length.parse().expect("a length"));
        reply.body = String::from_utf8(self.take(length)).expect("a body of text");
        reply
    }

    /// The next response, whose body comes in chunks.
    pub fn reply_in_chunks(&mut self) -> Reply {
        let mut reply = self.reply_head();
        assert_eq!(reply.header("Transfer-Encoding"), Some("chunked"), "{}", reply.head);
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
            body.extend(self.take(size));
            assert_eq!(self.line(), "", "the end of a chunk");
            if size == 0 {
                break;
            }
        }
        reply.body = String::from_utf8(body).expect("a body of text");
        reply
    }

    /// The next line, without its end.
    fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buf.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8(self.take(at)).expect("a line of text");
                self.take(2);
                return line;
            }
            assert!(self.fill(), "the stream ended within a line");
        }
    }

    /// The next response, to a HEAD: it has no body whatever its head says.
    pub fn reply_head(&mut self) -> Reply {
        let end = loop {
            if let Some(at) = self.buf.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill(), "the stream ended within a head: {:?}", String::from_utf8_lossy(&self.buf));
        };
        let head = String::from_utf8(self.take(end)).expect("a head of text");
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {head:?}"));
        Reply { status, head, body: String::new() }
    }

    /// The next frame: its first byte (FIN, RSV, opcode) and its payload.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2);
        assert!(head[1] < 128, "a server must not mask");
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.take_array())),
            127 => u64::from_be_bytes(self.take_array()),
            length => u64::from(length),
        };
        (head[0], self.take(usize::try_from(length).expect("a length")))
    }

    /// Reads exactly these bytes. Takes no new memory where as many were read before.
    pub fn expect(&mut self, bytes: &[u8]) {
        while self.buf.len() < bytes.len() {
            assert!(self.fill(), "the stream ended: {} of {} bytes", self.buf.len(), bytes.len());
        }
        assert!(self.buf[..bytes.len()] == *bytes, "the server sent something else");
        self.buf.drain(..bytes.len());
    }

    /// Frames up to the close frame, and that one's code and reason.
    pub fn close_frame(&mut self) -> (u16, String) {
        loop {
            if let (0x88, payload) = self.frame() {
                let (code, reason) = payload.split_at(2);
                let code = u16::from_be_bytes([code[0], code[1]]);
                return (code, String::from_utf8(reason.to_vec()).expect("a reason of text"));
            }
        }
    }

    /// Everything up to the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buf)
    }

    /// Whether something came that was not read yet. It does not wait.
    pub fn has_more(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("no blocking");
        let has_more = !self.buf.is_empty() || self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).expect("blocking");
        has_more
    }

    /// The end of the stream, with nothing before it.
    pub fn end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buf.len() < count {
            assert!(self.fill(), "the stream ended: {} of {count} bytes", self.buf.len());
        }
        self.buf.drain(..count).collect()
    }

    fn take_array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().expect("so many bytes")
    }

    /// Reads more. `false`: the stream has ended.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(count) => {
                self.buf.extend_from_slice(&chunk[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came in time: {error}"),
        }
    }
}

impl Reply {
    /// A header's value; the first, if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Whether the server keeps the connection.
    pub fn keeps_alive(&self) -> bool {
        self.header("Connection") == Some("keep-alive")
    }
}

/// A whole, masked frame.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(0x80 | opcode, payload)
}

/// A masked frame with this first byte.
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

/// The payload of a close frame.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}
