//! A connection of a back end: it pushes, and reads what is answered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wrong;

/// How it pushes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Manner {
    /// A request a push, pipelined where several are under way.
    Requests,
    /// One batch without an end, a line a push.
    Batch,
}

#[derive(Debug)]
pub struct Pusher {
    pub socket: TcpStream,
    manner: Manner,
    /// What the socket had no room for.
    unsent: Vec<u8>,
    /// The start of a line that was not all there.
    line: Vec<u8>,
    pub sent: usize,
    pub answered: usize,
    /// Its last request was refused, because the server goes down. Nothing was promised of that one.
    pub is_refused: bool,
    /// Its stream has ended.
    pub is_over: bool,
}

impl Pusher {
    pub fn connect(address: SocketAddr, manner: Manner) -> io::Result<Pusher> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let unsent = match manner {
            Manner::Requests => Vec::new(),
            Manner::Batch => {
                let head = "POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n";
                format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes()
            }
        };
        Ok(Pusher { socket, manner, unsent, line: Vec::new(), sent: 0, answered: 0, is_refused: false, is_over: false })
    }

    pub fn under_way(&self) -> usize {
        self.sent - self.answered
    }

    /// Adds a push to what is to be sent.
    pub fn push(&mut self, uid: usize, number: usize) {
        let body = format!("{{\"uid\":\"{uid}\",\"text\":\"{number}\"}}\n");
        let length = body.len();
        // Writing to a vector does not fail.
        let _ = match self.manner {
            Manner::Requests => write!(
                self.unsent,
                "POST /api/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ),
            Manner::Batch => write!(self.unsent, "{length:x}\r\n{body}\r\n"),
        };
        self.sent += 1;
    }

    /// Sends what the socket has room for. A server that is gone shows when its answers are read.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() && !self.is_over {
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

    /// Reads all there is, and tells `answered` of each answer: which push of this connection it is for, and how many
    /// connections have it queued.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        mut answered: impl FnMut(usize, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        while !self.is_over {
            let count = match self.socket.read(buffer) {
                Ok(0) => 0,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error),
            };
            self.is_over = count == 0;
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
                            return Err(wrong("an answer came behind the last one"));
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

/// A line of what the server says.
enum Line {
    /// On how many connections a push was queued.
    Answer(usize),
    /// The status of a request that came too late.
    GoingDown,
    /// Of a head, the size of a chunk, or a text for people.
    Other,
}

fn read_line(line: &[u8]) -> io::Result<Line> {
    let text = String::from_utf8_lossy(line);
    if text.starts_with("HTTP/1.1 503 ") {
        return Ok(Line::GoingDown);
    }
    let is_refused = text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 200 ");
    if is_refused || text.starts_with("{\"error\"") {
        return Err(wrong(format!("a push was refused: {text}")));
    }
    let Some((_, rest)) = text.split_once("\"queued\":") else { return Ok(Line::Other) };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map(Line::Answer).map_err(|_| wrong(format!("no answer: {text}")))
}
