//! A client that is pushed to: it sees to it that its messages come once and in order, and counts them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use fdpush_load::wire;

use crate::server::PATIENCE;
use crate::wrong;

const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

#[derive(Debug)]
pub struct Subscriber {
    pub socket: TcpStream,
    /// The number of its first message, and what each further one adds to that.
    first: usize,
    step: usize,
    /// The start of a frame that was not all there.
    kept: Vec<u8>,
    pub received: usize,
    /// Of all that was pushed to it, what was answered with `queued`.
    pub promised: usize,
    /// The code of the close frame that came, and when.
    pub closed: Option<(u16, Instant)>,
    /// Its stream has ended.
    pub is_over: bool,
}

impl Subscriber {
    /// Connects, and asks for a WebSocket with `number` as its uid. Blocking, until [`start`](Subscriber::start).
    pub fn connect(address: SocketAddr, number: usize, step: usize) -> io::Result<Subscriber> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(&wire::upgrade_request(&format!("/?uid={number}")))?;
        Ok(Subscriber {
            socket,
            first: number,
            step,
            kept: Vec::new(),
            received: 0,
            promised: 0,
            closed: None,
            is_over: false,
        })
    }

    /// Waits for the 101. From here on nothing blocks.
    pub fn start(&mut self) -> io::Result<()> {
        let head = loop {
            if let Some(end) = self.kept.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut bytes = [0; 1024];
            let count = self.socket.read(&mut bytes)?;
            self.kept.extend_from_slice(&bytes[..count]);
            if count == 0 {
                return Err(wrong("the stream ended before the upgrade"));
            }
        };
        if !self.kept.starts_with(b"HTTP/1.1 101 ") {
            return Err(wrong(format!("no upgrade: {}", String::from_utf8_lossy(&self.kept))));
        }
        self.kept.drain(..head);
        self.socket.set_nonblocking(true)?;
        self.read_frames()
    }

    /// Reads all there is.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        while !self.is_over {
            match self.socket.read(buffer) {
                Ok(0) => self.is_over = true,
                Ok(count) => {
                    self.kept.extend_from_slice(&buffer[..count]);
                    self.read_frames()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // What came before the reset has been read by then.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.is_over = true,
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

    /// A message, which is its number.
    fn take(&mut self, payload: &[u8]) -> io::Result<()> {
        let expected = self.first + self.received * self.step;
        if self.closed.is_some() || payload != expected.to_string().as_bytes() {
            let came = String::from_utf8_lossy(payload);
            return Err(wrong(format!("subscriber {}: message {came} came for {expected}", self.first)));
        }
        self.received += 1;
        Ok(())
    }

    /// A control frame, which any socket has room for. The server may be gone.
    fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = wire::client_frame(payload);
        frame[0] = first;
        let _ = self.socket.write_all(&frame);
    }
}
