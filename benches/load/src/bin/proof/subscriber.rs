//! A client that receives pushes. The client counts the messages, and checks that each message arrives once and in
//! order.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use fdpush_load::wire;

use crate::failure;
use crate::server::TIMEOUT;

const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

#[derive(Debug)]
pub struct Subscriber {
    pub socket: TcpStream,
    /// The number of the client's first message. `step` is the difference between the numbers of two consecutive
    /// messages.
    first: usize,
    step: usize,
    /// The received bytes of an incomplete frame.
    kept: Vec<u8>,
    pub received: usize,
    /// The number of pushes to this client that were answered with `queued`.
    pub acknowledged: usize,
    /// The code and the time of the close frame.
    pub closed: Option<(u16, Instant)>,
    /// Whether the server's stream has ended.
    pub has_ended: bool,
}

impl Subscriber {
    /// Connects, and requests a WebSocket with `number` as its uid. The socket is blocking until
    /// [`start`](Subscriber::start).
    pub fn connect(address: SocketAddr, number: usize, step: usize) -> io::Result<Subscriber> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.write_all(&wire::upgrade_request(&format!("/?uid={number}")))?;
        Ok(Subscriber {
            socket,
            first: number,
            step,
            kept: Vec::new(),
            received: 0,
            acknowledged: 0,
            closed: None,
            has_ended: false,
        })
    }

    /// Waits for the 101 response, then makes the socket non-blocking.
    pub fn start(&mut self) -> io::Result<()> {
        let head = loop {
            if let Some(end) = self.kept.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut bytes = [0; 1024];
            let count = self.socket.read(&mut bytes)?;
            self.kept.extend_from_slice(&bytes[..count]);
            if count == 0 {
                return Err(failure("the stream ended before the upgrade"));
            }
        };
        if !self.kept.starts_with(b"HTTP/1.1 101 ") {
            return Err(failure(format!("no upgrade: {}", String::from_utf8_lossy(&self.kept))));
        }
        self.kept.drain(..head);
        self.socket.set_nonblocking(true)?;
        self.read_frames()
    }

    /// Reads all available bytes.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        while !self.has_ended {
            match self.socket.read(buffer) {
                Ok(0) => self.has_ended = true,
                Ok(count) => {
                    self.kept.extend_from_slice(&buffer[..count]);
                    self.read_frames()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The client has read all bytes that the server sent before the reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.has_ended = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_frames(&mut self) -> io::Result<()> {
        let kept = std::mem::take(&mut self.kept);
        let mut read = 0;
        while let Some((first, payload, length)) = wire::read_server_frame(&kept[read..]) {
            read += length;
            match first {
                CLOSE => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    self.closed = Some((code, Instant::now()));
                    self.send(CLOSE, payload);
                }
                PING => self.send(PONG, payload),
                _ if payload.starts_with(b"{\"type\":\"welcome\"") => {}
                _ => self.take(payload)?,
            }
        }
        self.kept = kept;
        self.kept.drain(..read);
        Ok(())
    }

    /// Checks a message. The text of a message is its number.
    fn take(&mut self, payload: &[u8]) -> io::Result<()> {
        let expected = self.first + self.received * self.step;
        if self.closed.is_some() || payload != expected.to_string().as_bytes() {
            let came = String::from_utf8_lossy(payload);
            return Err(failure(format!(
                "subscriber {}: expected message {expected} before the close frame, got {came}",
                self.first
            )));
        }
        self.received += 1;
        Ok(())
    }

    /// Sends a control frame, which is short enough for every socket. If the server has closed the connection, the error
    /// is ignored.
    fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = wire::client_frame(payload);
        frame[0] = first;
        let _ = self.socket.write_all(&frame);
    }
}
