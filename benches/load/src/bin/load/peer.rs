//! A client connection that repeats one request and counts the answers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use fdpush_load::wire::{self, AnswerCounter, FrameCounter, ResponseCounter};

use crate::stream::Stream;

/// The maximum length of a response head, in bytes.
const HEAD_BYTES_MAX: usize = 4096;

#[derive(Debug)]
pub struct Peer {
    pub stream: Stream,
    /// Several copies of the request, so that a slice of this buffer contains several requests.
    requests: Rc<[u8]>,
    request_bytes: usize,
    /// The number of sent bytes of the current request.
    sent: usize,
    /// The number of bytes that are not sent yet, because the socket was full.
    unsent: usize,
    incoming: Incoming,
}

/// The kind of data that the server sends.
#[derive(Debug)]
enum Incoming {
    Frames(FrameCounter),
    Responses(ResponseCounter),
    /// Answers to a batch, one per line.
    Answers(AnswerCounter),
}

impl Peer {
    /// Connects, and upgrades if `path` is given. The socket is blocking until [`start`](Peer::start).
    pub fn connect(address: SocketAddr, is_tls: bool, path: Option<&str>) -> io::Result<Peer> {
        let mut peer = Peer::open(address, is_tls)?;
        if let Some(path) = path {
            peer.upgrade(&wire::upgrade_request(path))?;
        }
        Ok(peer)
    }

    /// Works like [`connect`](Peer::connect), and negotiates permessage-deflate.
    pub fn connect_deflating(address: SocketAddr, is_tls: bool, path: &str) -> io::Result<Peer> {
        let mut peer = Peer::open(address, is_tls)?;
        let head = peer.upgrade(&wire::deflate_request(path))?;
        match String::from_utf8_lossy(&head).contains("permessage-deflate") {
            true => Ok(peer),
            false => Err(failure("permessage-deflate declined", &head)),
        }
    }

    fn open(address: SocketAddr, is_tls: bool) -> io::Result<Peer> {
        let stream = Stream::connect(address, is_tls)?;
        let incoming = Incoming::Frames(FrameCounter::default());
        Ok(Peer { stream, requests: [].into(), request_bytes: 0, sent: 0, unsent: 0, incoming })
    }

    /// Sends an upgrade request, and returns the response.
    fn upgrade(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.write_all(request)?;
        let head = self.read_head()?;
        if head.starts_with(b"HTTP/1.1 101 ") { Ok(head) } else { Err(failure("upgrade refused", &head)) }
    }

    /// Sets the request that [`send`](Peer::send) sends, with at most `depth` unanswered requests.
    pub fn set_request(&mut self, request: &[u8], depth: usize) {
        self.requests = request.repeat(depth + 1).into();
        self.request_bytes = request.len();
    }

    /// Sends one request on the blocking socket.
    pub fn send_blocking(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.requests[..self.request_bytes])
    }

    /// Reads one frame from the blocking socket, and checks its payload. Used before the measurement.
    pub fn expect(&mut self, payload: &[u8]) -> io::Result<()> {
        let frame = wire::server_frame(payload);
        let mut got = vec![0; frame.len()];
        self.stream.read_exact(&mut got)?;
        if got == frame { Ok(()) } else { Err(failure("unexpected frame", &got)) }
    }

    /// Reads a deflated frame from the blocking socket, and checks its message.
    pub fn expect_deflated(&mut self, payload: &[u8]) -> io::Result<()> {
        let (mut got, mut byte) = (Vec::new(), [0]);
        let (first, deflated) = loop {
            self.stream.read_exact(&mut byte)?;
            got.push(byte[0]);
            if let Some((first, deflated, _)) = wire::read_server_frame(&got) {
                break (first, deflated);
            }
        };
        let is_right = first == 0xc1 && wire::inflate(deflated)? == payload && deflated.len() < payload.len();
        if is_right { Ok(()) } else { Err(failure("unexpected frame", &got)) }
    }

    /// Reads one unsolicited frame of the server from the blocking socket.
    pub fn expect_any(&mut self) -> io::Result<()> {
        let mut counter = FrameCounter::default();
        let mut byte = [0];
        loop {
            self.stream.read_exact(&mut byte)?;
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
            self.stream.read_exact(&mut byte)?;
            whole = counter.count(&byte).map_err(|_| failure("error response", &head))?;
        }
        self.incoming = Incoming::Responses(counter);
        Ok(())
    }

    /// Sends the head of a batch request. From then on, the peer counts answers to the batch.
    pub fn begin_batch(&mut self, head: &str) -> io::Result<()> {
        self.incoming = Incoming::Answers(AnswerCounter::default());
        self.stream.write_all(head.as_bytes())
    }

    /// Makes the socket non-blocking.
    pub fn start(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking()
    }

    /// Sends `count` more requests, with one write if the socket accepts all bytes.
    pub fn send(&mut self, count: usize) -> io::Result<()> {
        let was_full = self.unsent > 0;
        self.unsent += count * self.request_bytes;
        if was_full { Ok(()) } else { self.flush() }
    }

    /// Sends the bytes that are not sent yet because the socket was full.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()?;
        while self.unsent > 0 {
            let end = self.requests.len().min(self.sent + self.unsent);
            match self.stream.write(&self.requests[self.sent..end]) {
                Ok(count) => {
                    self.unsent -= count;
                    self.sent = (self.sent + count) % self.request_bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads all available bytes, and returns the number of answers that end in them.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut messages = 0;
        loop {
            let count = match self.stream.read(buffer) {
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
            if count < buffer.len() && self.stream.is_drained_by_short_read() {
                return Ok(messages);
            }
        }
    }

    /// Reads an HTTP head up to its blank line, and no bytes after it, because a frame may follow.
    fn read_head(&mut self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if self.stream.read(&mut byte)? == 0 || head.len() == HEAD_BYTES_MAX {
                return Err(failure("no complete response head", &head));
            }
            head.push(byte[0]);
        }
        Ok(head)
    }
}

fn failure(what: &str, bytes: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    io::Error::new(ErrorKind::InvalidData, format!("{what}: {shown:?}"))
}
