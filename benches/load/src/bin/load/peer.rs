//! A client connection that repeats one request and counts the answers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use fdpush_load::wire::{self, AnswerCounter, FrameCounter, ResponseCounter};

/// The timeout of every blocking call.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Peer {
    pub socket: TcpStream,
    /// Repetitions of the request, so that several requests are one slice.
    requests: Rc<[u8]>,
    request_bytes: usize,
    /// The number of sent bytes of the current request.
    sent: usize,
    /// The number of bytes that the full socket did not accept.
    owed: usize,
    incoming: Incoming,
}

/// The kind of data from the server.
#[derive(Debug)]
enum Incoming {
    Frames(FrameCounter),
    Responses(ResponseCounter),
    /// Answers to a batch, one per line.
    Answers(AnswerCounter),
}

impl Peer {
    /// Connects, and upgrades if `path` is given. The socket is blocking until [`start`](Peer::start).
    pub fn connect(address: SocketAddr, path: Option<&str>) -> io::Result<Peer> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        // The close sends a reset, because tens of thousands of ports in TIME_WAIT would be too many.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        let incoming = Incoming::Frames(FrameCounter::default());
        let mut peer = Peer { socket, requests: [].into(), request_bytes: 0, sent: 0, owed: 0, incoming };
        if let Some(path) = path {
            peer.socket.write_all(&wire::upgrade_request(path))?;
            let head = peer.read_head()?;
            if !head.starts_with(b"HTTP/1.1 101 ") {
                return Err(failure("upgrade refused", &head));
            }
        }
        Ok(peer)
    }

    /// Sets the request that [`send`](Peer::send) sends, with at most `depth` unanswered requests.
    pub fn set_request(&mut self, request: &[u8], depth: usize) {
        self.requests = request.repeat(depth + 1).into();
        self.request_bytes = request.len();
    }

    /// Sends one request on the blocking socket.
    pub fn send_blocking(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.requests[..self.request_bytes])
    }

    /// Reads one frame from the blocking socket, and checks its payload, before the measurement.
    pub fn expect(&mut self, payload: &[u8]) -> io::Result<()> {
        let frame = wire::server_frame(payload);
        let mut got = vec![0; frame.len()];
        self.socket.read_exact(&mut got)?;
        if got == frame { Ok(()) } else { Err(failure("unexpected frame", &got)) }
    }

    /// Reads one unsolicited frame of the server from the blocking socket.
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

    /// Reads one HTTP response from the blocking socket. From then on, the peer counts responses, which must all be
    /// 2xx.
    pub fn expect_response(&mut self) -> io::Result<()> {
        let head = self.read_head()?;
        let mut counter = ResponseCounter::default();
        let mut whole = counter.count(&head).map_err(|_| failure("error response", &head))?;
        let mut byte = [0];
        while whole == 0 {
            self.socket.read_exact(&mut byte)?;
            whole = counter.count(&byte).map_err(|_| failure("error response", &head))?;
        }
        self.incoming = Incoming::Responses(counter);
        Ok(())
    }

    /// Sends the head of a batch request. From then on, the peer counts answers to the batch.
    pub fn begin_batch(&mut self, head: &str) -> io::Result<()> {
        self.incoming = Incoming::Answers(AnswerCounter::default());
        self.socket.write_all(head.as_bytes())
    }

    /// Makes the socket non-blocking.
    pub fn start(&mut self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Sends `count` more requests, with one write if the socket accepts all bytes.
    pub fn send(&mut self, count: usize) -> io::Result<()> {
        let was_full = self.owed > 0;
        self.owed += count * self.request_bytes;
        if was_full { Ok(()) } else { self.flush() }
    }

    /// Sends the bytes that the full socket did not accept.
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

    /// Reads all available bytes, and returns the number of completed answers.
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
                    counter.count(&buffer[..count]).map_err(|_| failure("error response", &buffer[..count]))?
                }
                Incoming::Answers(counter) => {
                    counter.count(&buffer[..count]).map_err(|_| failure("error answer", &buffer[..count]))?
                }
            };
            if count < buffer.len() {
                return Ok(messages);
            }
        }
    }

    /// Reads up to the blank line, and no bytes after it, because a frame may follow.
    fn read_head(&mut self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; 4096];
        loop {
            // The bytes are peeked at first, because a read cannot be undone.
            let count = self.socket.peek(&mut head)?;
            if count == 0 || count == head.len() {
                return Err(failure("no response", &head[..count]));
            }
            if let Some(end) = head[..count].windows(4).position(|window| window == b"\r\n\r\n") {
                head.truncate(end + 4);
                self.socket.read_exact(&mut head)?;
                return Ok(head);
            }
        }
    }
}

fn failure(what: &str, bytes: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    io::Error::new(ErrorKind::InvalidData, format!("{what}: {shown:?}"))
}
