//! The clients of the simulation.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// A client with a real socket. The code of the client runs on the thread of the simulation.
#[derive(Debug)]
pub struct Client {
    /// `None` after the client has disconnected.
    stream: Option<UnixStream>,
    /// The received bytes that are not a whole frame yet.
    input: Vec<u8>,
    has_head: bool,
    /// The status of a refused upgrade.
    pub refused: Option<u16>,
    /// The texts that the client received, in order.
    pub texts: Vec<String>,
    /// The code of the close frame. The client disconnects when it receives a close frame.
    pub close_code: Option<u16>,
}

impl Client {
    /// Sends an upgrade request over a socket.
    pub fn upgrade(mut stream: UnixStream, target: &str) -> Client {
        stream.set_nonblocking(true).expect("the socket can be made nonblocking");
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the kernel takes the request");
        Client {
            stream: Some(stream),
            input: Vec::new(),
            has_head: false,
            refused: None,
            texts: Vec::new(),
            close_code: None,
        }
    }

    /// Returns whether the server has accepted or refused the upgrade.
    #[cfg(fdpush_interleave)]
    pub fn has_response(&self) -> bool {
        self.has_head
    }

    /// Returns whether the client is still connected.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Disconnects without a close frame.
    pub fn disconnect(&mut self) {
        self.stream = None;
    }

    /// Reads the bytes that the server has written.
    pub fn receive(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let mut bytes = [0; 4096];
        let is_end = loop {
            match stream.read(&mut bytes) {
                Ok(0) => break true,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
        };
        if is_end {
            self.stream = None;
        }
        while self.take_head() || self.take_frame() {}
    }

    fn take_head(&mut self) -> bool {
        if self.has_head {
            return false;
        }
        let Some(end) = self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
        let head = String::from_utf8_lossy(&self.input[..end]).into_owned();
        self.input.drain(..end + 4);
        self.has_head = true;
        let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("the head has a status");
        if status != 101 {
            self.refused = Some(status);
            self.stream = None;
            self.input.clear();
        }
        true
    }

    fn take_frame(&mut self) -> bool {
        let (start, length) = match *self.input {
            [_, length @ ..126, ..] => (2, usize::from(length)),
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return false,
        };
        if !self.has_head || self.input.len() < start + length {
            return false;
        }
        let frame: Vec<u8> = self.input.drain(..start + length).collect();
        let payload = &frame[start..];
        match frame[0] {
            0x81 => self.texts.push(String::from_utf8(payload.to_vec()).expect("the text is UTF-8")),
            0x88 => {
                self.close_code = Some(u16::from_be_bytes([payload[0], payload[1]]));
                self.stream = None;
            }
            first => assert_eq!(first, 0x89, "the server sends texts, pings and close frames"),
        }
        true
    }
}
