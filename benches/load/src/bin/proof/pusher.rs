//! A back-end connection, which sends pushes and reads the answers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::failure;

/// The format of the pushes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PushFormat {
    /// Each push is an HTTP request. The requests are pipelined.
    Requests,
    /// Each push is a line of one endless batch.
    Batch,
}

#[derive(Debug)]
pub struct Pusher {
    pub socket: TcpStream,
    format: PushFormat,
    /// Bytes that are not sent yet, because the socket was full.
    unsent: Vec<u8>,
    /// The received bytes of an incomplete line.
    line: Vec<u8>,
    pub sent: usize,
    pub answered: usize,
    /// Whether the server refused the last request during its shutdown.
    pub is_refused: bool,
    /// Whether the server's stream has ended.
    pub has_ended: bool,
}

impl Pusher {
    pub fn connect(address: SocketAddr, format: PushFormat) -> io::Result<Pusher> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let unsent = match format {
            PushFormat::Requests => Vec::new(),
            PushFormat::Batch => {
                let head = "POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n";
                format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes()
            }
        };
        Ok(Pusher {
            socket,
            format,
            unsent,
            line: Vec::new(),
            sent: 0,
            answered: 0,
            is_refused: false,
            has_ended: false,
        })
    }

    pub fn in_flight(&self) -> usize {
        self.sent - self.answered
    }

    /// Appends a push to the unsent bytes.
    pub fn push(&mut self, uid: usize, number: usize) {
        let body = format!("{{\"uid\":\"{uid}\",\"text\":\"{number}\"}}\n");
        let length = body.len();
        // A write to a vector always succeeds.
        let _ = match self.format {
            PushFormat::Requests => write!(
                self.unsent,
                "POST /api/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ),
            PushFormat::Batch => write!(self.unsent, "{length:x}\r\n{body}\r\n"),
        };
        self.sent += 1;
    }

    /// Sends as many bytes as the socket accepts. If the server has closed the connection, drops the unsent bytes.
    /// [`receive`](Pusher::receive) then finds the end of the stream.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() && !self.has_ended {
            match self.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    self.unsent.clear();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads all available bytes, and calls `answered` for each answered push.
    ///
    /// The arguments of `answered` are the index of the push and the number of connections that queued it.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        mut answered: impl FnMut(usize, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        while !self.has_ended {
            let count = match self.socket.read(buffer) {
                Ok(0) => 0,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error),
            };
            self.has_ended = count == 0;
            for part in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
                self.line.extend_from_slice(part);
                if self.line.ends_with(b"\n") {
                    match read_line(&self.line)? {
                        Line::Answer(queued) => {
                            answered(self.answered, queued)?;
                            self.answered += 1;
                        }
                        Line::GoingDown => self.is_refused = true,
                        Line::Other if self.is_refused && self.line.starts_with(b"HTTP/") => {
                            return Err(failure("a response arrived after the refusal of the last request"));
                        }
                        Line::Other => {}
                    }
                    self.line.clear();
                }
            }
        }
        Ok(())
    }
}

/// A line from the server.
enum Line {
    /// An answer: the number of connections that queued the push.
    Answer(usize),
    /// The status line of a request that the server refused during its shutdown.
    GoingDown,
    /// A header line, a chunk size, or other text.
    Other,
}

fn read_line(line: &[u8]) -> io::Result<Line> {
    let text = String::from_utf8_lossy(line);
    if text.starts_with("HTTP/1.1 503 ") {
        return Ok(Line::GoingDown);
    }
    let is_refused = text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 200 ");
    if is_refused || text.starts_with("{\"error\"") {
        return Err(failure(format!("a push was refused: {text}")));
    }
    let Some((_, rest)) = text.split_once("\"queued\":") else { return Ok(Line::Other) };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map(Line::Answer).map_err(|_| failure(format!("invalid answer: {text}")))
}
