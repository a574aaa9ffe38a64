//! One connection of the client: it sends the same request over and over and counts what comes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use fdpush_load::wire::{self, AnswerCounter, FrameCounter, ResponseCounter};

/// Nothing takes longer, unless the server is stuck.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Peer {
    pub socket: TcpStream,
    /// The request, one behind the other, one more time than are ever in flight: any run of it is a slice.
    requests: Rc<[u8]>,
    request_bytes: usize,
    /// How much of a request is already sent.
    sent: usize,
    /// Bytes that are to be sent and that the socket had no room for.
    owed: usize,
    incoming: Incoming,
}

/// What comes from the server.
#[derive(Debug)]
enum Incoming {
    Frames(FrameCounter),
    Responses(ResponseCounter),
    /// The answers to a batch, a line each.
    Answers(AnswerCounter),
}

impl Peer {
    /// Connects, and upgrades where `path` is given. Blocking, until [`start`](Peer::start).
    pub fn connect(address: SocketAddr, path: Option<&str>) -> io::Result<Peer> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        // Closed by a reset: tens of thousands of ports in TIME_WAIT would be too many.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        let incoming = Incoming::Frames(FrameCounter::default());
        let mut peer = Peer { socket, requests: [].into(), request_bytes: 0, sent: 0, owed: 0, incoming };
        if let Some(path) = path {
            peer.socket.write_all(&wire::upgrade_request(path))?;
            let head = peer.read_head()?;
            if !head.starts_with(b"HTTP/1.1 101 ") {
                return Err(wrong("no upgrade", &head));
            }
        }
        Ok(peer)
    }

    /// Sets what [`send`](Peer::send) sends, with at most `depth` of them in flight.
    pub fn set_request(&mut self, request: &[u8], depth: usize) {
        self.requests = request.repeat(depth + 1).into();
        self.request_bytes = request.len();
    }

    /// Sends one request, blocking.
    pub fn send_blocking(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.requests[..self.request_bytes])
    }

    /// Reads exactly this frame, blocking: a benchmark asserts its result before it times it.
    pub fn expect(&mut self, payload: &[u8]) -> io::Result<()> {
        let frame = wire::server_frame(payload);
        let mut got = vec![0; frame.len()];
        self.socket.read_exact(&mut got)?;
        if got == frame { Ok(()) } else { Err(wrong("not the frame that was sent", &got)) }
    }

    /// Reads one frame that the server sends of its own accord, blocking.
    pub fn expect_any(&mut self) -> io::Result<()> {
        let mut counter = FrameCounter::default();
        let mut byte = [0];
        loop {
            self.socket.read_exact(&mut byte)?;
            if counter.count(&byte) > 0 {
                return Ok(());
            }
        }
    }

    /// Reads an HTTP response, blocking, and from then on counts responses, which all must be good.
    pub fn expect_response(&mut self) -> io::Result<()> {
        let head = self.read_head()?;
        let mut counter = ResponseCounter::default();
        let mut whole = counter.count(&head).map_err(|_| wrong("no good response", &head))?;
        let mut byte = [0];
        while whole == 0 {
            self.socket.read_exact(&mut byte)?;
            whole = counter.count(&byte).map_err(|_| wrong("no good response", &head))?;
        }
        self.incoming = Incoming::Responses(counter);
        Ok(())
    }

    /// From here on what comes are the answers to a batch.
    pub fn begin_batch(&mut self, head: &str) -> io::Result<()> {
        self.incoming = Incoming::Answers(AnswerCounter::default());
        self.socket.write_all(head.as_bytes())
    }

    /// From here on nothing blocks.
    pub fn start(&mut self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Sends so many more requests, in one write if the socket takes it.
    pub fn send(&mut self, count: usize) -> io::Result<()> {
        let was_full = self.owed > 0;
        self.owed += count * self.request_bytes;
        if was_full { Ok(()) } else { self.flush() }
    }

    /// Sends what the socket had no room for.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.owed > 0 {
            let end = self.requests.len().min(self.sent + self.owed);
            match self.socket.write(&self.requests[self.sent..end]) {
                Ok(count) => {
                    self.owed -= count;
                    self.sent = (self.sent + count) % self.request_bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads all there is, and says how many messages or responses that completed.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut messages = 0;
        loop {
            let count = match self.socket.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(messages),
                Err(error) => return Err(error),
            };
            messages += match &mut self.incoming {
                Incoming::Frames(counter) => counter.count(&buffer[..count]),
                Incoming::Responses(counter) => {
                    counter.count(&buffer[..count]).map_err(|_| wrong("no good response", &buffer[..count]))?
                }
                Incoming::Answers(counter) => {
                    counter.count(&buffer[..count]).map_err(|_| wrong("a refusal", &buffer[..count]))?
                }
            };
            if count < buffer.len() {
                return Ok(messages);
            }
        }
    }

    /// Reads up to the blank line, and no byte further: what follows may be a frame already.
    fn read_head(&mut self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; 4096];
        loop {
            // Peeked at first, for a read cannot be undone.
            let count = self.socket.peek(&mut head)?;
            if count == 0 || count == head.len() {
                return Err(wrong("no response", &head[..count]));
            }
            if let Some(end) = head[..count].windows(4).position(|window| window == b"\r\n\r\n") {
                head.truncate(end + 4);
                self.socket.read_exact(&mut head)?;
                return Ok(head);
            }
        }
    }
}

fn wrong(what: &str, bytes: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    io::Error::new(ErrorKind::InvalidData, format!("{what}: {shown:?}"))
}
