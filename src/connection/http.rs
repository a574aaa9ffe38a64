//! A connection that speaks HTTP/1.1: requests one after the other, each answered before the next is read, until one of
//! them becomes a WebSocket.
//!
//! What a client sends ahead (pipelined requests, a body behind its head, frames before the 101) waits in `buf`. It is
//! bounded by one read: while anything waits for an answer, nothing more is read from the socket.

use std::any::Any;
use std::mem;

use crate::connection::env::Env;
use crate::peer::Peer;
use crate::protocol::body::BodyDecoder;
use crate::protocol::http::{BodyLength, Head, HttpError, RequestKind, find_head_end, parse_head, skip_empty_lines};
use crate::protocol::memory::{MemoryShare, MemoryTotal};
use crate::protocol::proxy::parse_proxy_header;
use crate::protocol::request::Request;
use crate::tick::Tick;

/// An emptied buffer of more than this is given back, so that a kept-alive connection stays small.
const BUF_BYTES_MAX: usize = 4 << 10;

/// The HTTP side of a connection.
#[derive(Debug, Default)]
pub struct Http {
    /// What came and is not read yet, from `at` on.
    buf: Vec<u8>,
    at: usize,
    /// How far behind `at` the end of the head was looked for.
    scanned: usize,
    /// Whether the request is a HEAD, whose answer has no body, not even one that refuses it.
    is_head: bool,
    phase: Phase,
    /// The memory that unfinished heads and bodies take up, and what was sent ahead.
    memory: MemoryShare,
}

#[derive(Debug, Default)]
enum Phase {
    /// Between two requests; nothing of the next has come.
    #[default]
    Idle,
    /// Before everything else: the PROXY header.
    Proxy,
    /// Inside a head. The connection's first moment counts as that, too.
    Head,
    /// The handler is asked what is to become of the body that a head announced.
    Announced(Announced),
    Body(Upload),
    /// A body goes to the handler as it comes.
    Pieces(Box<Stream>),
    /// A request is out for its answer.
    Pending(PendingRequest),
}

/// What a connection that speaks HTTP waits for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Awaited {
    /// The next request, of which nothing has come.
    Request,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// The next piece of a body.
    Piece,
    /// The handler.
    Response,
}

/// A body that nobody has asked for yet.
#[derive(Debug)]
struct Announced {
    answer: PendingRequest,
    wanted_upgrade: bool,
    length: BodyLength,
    expects_continue: bool,
}

/// A request whose body is on its way.
#[derive(Debug)]
struct Upload {
    request: Box<Request>,
    answer: PendingRequest,
    wanted_upgrade: bool,
    decoder: BodyDecoder,
    body: Vec<u8>,
}

/// A body that is handed on piece by piece.
#[derive(Debug)]
struct Stream {
    answer: PendingRequest,
    decoder: BodyDecoder,
    /// The handler's; `None` while it is with the handler.
    state: Option<Box<dyn Any>>,
}

/// What has to be remembered of a request until it is answered.
#[derive(Debug, Default)]
pub struct PendingRequest {
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// Whether it was a HEAD, which gets no body.
    pub head_only: bool,
    /// What `Sec-WebSocket-Accept` is to say, where it asks for a WebSocket.
    pub accept: Option<[u8; 28]>,
    /// Set while the handler lets it wait for an answer from elsewhere.
    pub deferred: Option<Deferred>,
    /// Whether HTTP/1.1 is spoken, which knows chunks.
    pub knows_chunks: bool,
    /// How far a response in pieces is.
    pub reply: ResponseMode,
}

/// A response that is sent in pieces.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum ResponseMode {
    /// None was begun.
    #[default]
    None,
    /// Its head is out, and its body goes out in chunks (RFC 9112 section 7.1).
    Chunked,
    /// Its head is out, and the end of the connection is that of its body (RFC 9112 section 6.3, item 8): HTTP/1.0.
    UntilClose,
    /// Its head is out, and it has no body: the answer to a HEAD, or one whose status has none.
    HeadOnly,
}

/// A request whose answer comes from elsewhere.
#[derive(Debug)]
pub enum Deferred {
    /// For a WebSocket. The request is needed to accept it.
    Upgrade(Box<Request>),
    /// For plain HTTP.
    Plain,
}

/// What came of reading on.
#[derive(Debug)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// The PROXY header is there, and names the client unless that is the other end of the socket.
    Proxied(Option<Peer>),
    /// A head came that announces a body: [`Http::receive_body`] says what is to become of it.
    Head(Box<Request>),
    /// A piece of a body, with the state that [`Http::return_state`] takes back. It is the last one if `is_last`.
    Piece {
        /// At least one byte, unless it is the last piece.
        bytes: Vec<u8>,
        is_last: bool,
        state: Box<dyn Any>,
    },
    /// A request for plain HTTP, whole.
    Request {
        /// The request.
        request: Box<Request>,
        /// Whether it has the marks of an upgrade that a proxy lost.
        wanted_upgrade: bool,
    },
    /// A request for a WebSocket.
    Upgrade(Box<Request>),
}

impl Http {
    /// A connection that was just accepted.
    pub fn new(memory: &MemoryTotal) -> Http {
        Http { phase: Phase::Head, memory: memory.share(), ..Http::default() }
    }

    /// A connection that was just accepted from a proxy, which sends a PROXY header first.
    pub fn new_proxied(memory: &MemoryTotal) -> Http {
        Http { phase: Phase::Proxy, ..Http::new(memory) }
    }

    /// Keeps `input` until it is its turn.
    ///
    /// # Errors
    /// [`HttpError::OutOfMemory`].
    pub fn buffer(&mut self, input: &[u8]) -> Result<(), HttpError> {
        // Once a read, not once a request: a client that pipelines is not made to wait for its bytes to be moved.
        if !input.is_empty() {
            self.compact();
            self.buf.try_reserve(input.len()).map_err(|_| HttpError::OutOfMemory)?;
            self.buf.extend_from_slice(input);
        }
        Ok(())
    }

    /// Memory of what is unfinished or waits, as of the last call of [`recount`](Http::recount).
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Counts anew what is unfinished or waits. An emptied buffer that is kept for the next request is not counted.
    pub fn recount(&mut self) {
        let kept = match &self.phase {
            Phase::Body(upload) => upload.body.capacity() + upload.request.head_bytes(),
            Phase::Pending(PendingRequest { deferred: Some(Deferred::Upgrade(request)), .. }) => request.head_bytes(),
            Phase::Idle | Phase::Proxy | Phase::Head | Phase::Announced(_) | Phase::Pieces(_) | Phase::Pending(_) => 0,
        };
        let ahead = if self.is_drained() { 0 } else { self.buf.capacity() };
        self.memory.set(kept + ahead);
    }

    /// Reads on in what was kept.
    pub fn step(&mut self, peer: Peer, is_control: bool, env: &Env) -> Result<Step, HttpError> {
        match mem::take(&mut self.phase) {
            phase @ (Phase::Idle | Phase::Head) => {
                if self.scanned == 0 {
                    self.at += skip_empty_lines(self.rest());
                }
                if self.is_drained() {
                    // Nothing came: neither is a new connection idle by that, nor an idle one at a head.
                    self.phase = phase;
                    return Ok(Step::More);
                }
                self.read_head(peer, is_control, env)
            }
            Phase::Proxy => self.read_proxy_header(env),
            Phase::Body(upload) => self.read_body(upload),
            Phase::Pieces(stream) => self.read_piece(stream),
            waiting @ (Phase::Pending(_) | Phase::Announced(_)) => {
                self.phase = waiting;
                Ok(Step::More)
            }
        }
    }

    /// Whether the next bytes should be read from the socket: not while others wait here.
    pub fn wants_read(&self) -> bool {
        !self.is_answering() || self.is_drained()
    }

    /// Whether bytes that came are not read yet.
    pub fn has_buffered_input(&self) -> bool {
        !self.is_drained()
    }

    /// When the client must have gone on, counted from `now`, at which the phase began.
    pub fn deadline(&self, env: &Env) -> Tick {
        let limit = match self.awaits() {
            Awaited::Request => env.limits.keep_alive_max,
            Awaited::Head => env.limits.head_time_max,
            Awaited::Body | Awaited::Piece => env.limits.body_time_max,
            Awaited::Response => env.limits.answer_time_max,
        };
        env.now.after(limit)
    }

    /// What it waits for. When that changes, a new deadline begins.
    pub fn awaits(&self) -> Awaited {
        match self.phase {
            Phase::Idle => Awaited::Request,
            // One deadline holds for both.
            Phase::Proxy | Phase::Head => Awaited::Head,
            Phase::Body(_) => Awaited::Body,
            Phase::Pieces(_) => Awaited::Piece,
            Phase::Pending(_) | Phase::Announced(_) => Awaited::Response,
        }
    }

    /// Whether the answer to what is being read has no body.
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Whether something of a request has come that is not answered.
    pub fn has_begun(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Proxy | Phase::Head) || !self.is_drained()
    }

    /// Whether a request waits for its answer.
    pub fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Pending(_))
    }

    /// Whether a request for plain HTTP waits for an answer from elsewhere.
    pub fn is_deferred_plain(&self) -> bool {
        matches!(&self.phase, Phase::Pending(PendingRequest { deferred: Some(Deferred::Plain), .. }))
    }

    /// Whether an upgrade waits for an answer from elsewhere.
    pub fn is_deferred_upgrade(&self) -> bool {
        matches!(&self.phase, Phase::Pending(PendingRequest { deferred: Some(Deferred::Upgrade(_)), .. }))
    }

    /// The request that may be answered, if there is one: it waits, or its body is being handed on.
    pub fn pending_mut(&mut self) -> Option<&mut PendingRequest> {
        match &mut self.phase {
            Phase::Pending(answer) => Some(answer),
            Phase::Announced(announced) => Some(&mut announced.answer),
            Phase::Pieces(stream) => Some(&mut stream.answer),
            Phase::Idle | Phase::Proxy | Phase::Head | Phase::Body(_) => None,
        }
    }

    /// The plain request that the handler is busy with.
    pub fn handled_request_mut(&mut self) -> Option<&mut PendingRequest> {
        match &mut self.phase {
            Phase::Pending(answer) if answer.deferred.is_none() && answer.accept.is_none() => Some(answer),
            _ => None,
        }
    }

    /// How far the response to what is being read is.
    pub fn reply(&self) -> ResponseMode {
        match &self.phase {
            Phase::Idle | Phase::Proxy | Phase::Head => ResponseMode::None,
            Phase::Body(upload) => upload.answer.reply,
            Phase::Announced(announced) => announced.answer.reply,
            Phase::Pieces(stream) => stream.answer.reply,
            Phase::Pending(answer) => answer.reply,
        }
    }

    /// Ends the wait for an answer, which is being sent. The next head may be read, unless there was more of a body to
    /// come: then no other request may follow.
    pub fn end_pending(&mut self) -> Option<PendingRequest> {
        let unread = |answer| Some(PendingRequest { keep_alive: false, ..answer });
        match mem::take(&mut self.phase) {
            Phase::Pending(answer) => {
                if self.is_drained() {
                    self.compact();
                }
                Some(answer)
            }
            Phase::Announced(announced) => unread(announced.answer),
            Phase::Pieces(stream) => unread(stream.answer),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Goes on to collect the body that [`Step::Head`] announced, or, with a `state`, to hand it on in pieces. `true`:
    /// the client waits for a `100 Continue`.
    pub fn receive_body(
        &mut self,
        request: Box<Request>,
        state: Option<Box<dyn Any>>,
        bytes_max: usize,
    ) -> Result<bool, HttpError> {
        let announced = match mem::take(&mut self.phase) {
            Phase::Announced(announced) => announced,
            other => {
                self.phase = other;
                return Ok(false);
            }
        };
        let Announced { answer, wanted_upgrade, length, expects_continue } = announced;
        // Behind the head of a response no other may come, not even a 100.
        let must_tell = expects_continue && answer.reply == ResponseMode::None && self.is_drained();
        let decoder = match BodyDecoder::new(length, if state.is_none() { bytes_max } else { usize::MAX }) {
            Ok(decoder) => decoder,
            Err(error) => {
                self.phase = Phase::Pending(answer);
                return Err(error);
            }
        };
        self.phase = match state {
            None => Phase::Body(Upload { request, answer, wanted_upgrade, decoder, body: Vec::new() }),
            state => Phase::Pieces(Box::new(Stream { answer, decoder, state })),
        };
        Ok(must_tell)
    }

    /// Takes the state of [`Step::Piece`] back, until the next piece.
    pub fn return_state(&mut self, state: Box<dyn Any>) {
        if let Phase::Pieces(stream) = &mut self.phase {
            stream.state = Some(state);
        }
    }

    /// What the client sent ahead of its answer.
    pub fn take_early_data(&mut self) -> Vec<u8> {
        self.compact();
        mem::take(&mut self.buf)
    }

    fn rest(&self) -> &[u8] {
        self.buf.get(self.at..).unwrap_or_default()
    }

    fn is_drained(&self) -> bool {
        self.at >= self.buf.len()
    }

    fn read_proxy_header(&mut self, env: &Env) -> Result<Step, HttpError> {
        let Some(header) = parse_proxy_header(self.rest(), env.limits.head_bytes_max)? else {
            self.phase = Phase::Proxy;
            return Ok(Step::More);
        };
        self.at += header.bytes;
        self.phase = Phase::Head;
        Ok(Step::Proxied(header.client))
    }

    fn read_head(&mut self, peer: Peer, is_control: bool, env: &Env) -> Result<Step, HttpError> {
        self.phase = Phase::Head;
        let rest = self.buf.get(self.at..).unwrap_or_default();
        self.is_head = rest.starts_with(b"HEAD ");
        let Some(end) = find_head_end(rest, &mut self.scanned, env.limits.head_bytes_max)? else {
            return Ok(Step::More);
        };
        let bytes = rest[..end].to_vec();
        self.at += end;
        self.scanned = 0;
        let mut head = parse_head(bytes, env.limits.headers_max, peer)?;
        head.request.set_control(is_control);
        self.begin(head)
    }

    fn begin(&mut self, head: Head) -> Result<Step, HttpError> {
        let Head { request, kind, body, keep_alive, expects_continue } = head;
        let knows_chunks = request.version() == 1;
        let mut answer =
            PendingRequest { keep_alive, head_only: self.is_head, knows_chunks, ..PendingRequest::default() };
        match kind {
            RequestKind::Upgrade { accept } => {
                answer.accept = Some(accept);
                self.phase = Phase::Pending(answer);
                Ok(Step::Upgrade(Box::new(request)))
            }
            RequestKind::Plain { wanted_upgrade } if body == BodyLength::None => {
                self.phase = Phase::Pending(answer);
                Ok(Step::Request { request: Box::new(request), wanted_upgrade })
            }
            RequestKind::Plain { wanted_upgrade } => {
                let announced = Announced { answer, wanted_upgrade, length: body, expects_continue };
                self.phase = Phase::Announced(announced);
                Ok(Step::Head(Box::new(request)))
            }
        }
    }

    fn read_body(&mut self, mut upload: Upload) -> Result<Step, HttpError> {
        let mut rest = self.buf.get(self.at..).unwrap_or_default();
        let offered = rest.len();
        let decoded = upload.decoder.decode(&mut rest, &mut upload.body);
        self.at += offered - rest.len();
        let is_whole = match decoded {
            Ok(is_whole) => is_whole,
            Err(error) => {
                self.phase = Phase::Body(upload);
                return Err(error);
            }
        };
        if !is_whole {
            self.phase = Phase::Body(upload);
            return Ok(Step::More);
        }
        let Upload { mut request, answer, wanted_upgrade, body, .. } = upload;
        request.set_body(body);
        self.phase = Phase::Pending(answer);
        Ok(Step::Request { request, wanted_upgrade })
    }

    fn read_piece(&mut self, mut stream: Box<Stream>) -> Result<Step, HttpError> {
        let Some(state) = stream.state.take() else {
            self.phase = Phase::Pieces(stream);
            return Ok(Step::More);
        };
        let mut rest = self.buf.get(self.at..).unwrap_or_default();
        let offered = rest.len();
        let mut bytes = Vec::new();
        let decoded = stream.decoder.decode(&mut rest, &mut bytes);
        self.at += offered - rest.len();
        let is_last = match decoded {
            Ok(is_last) => is_last,
            Err(error) => {
                // Still to be answered, if no answer was begun.
                self.phase = Phase::Pieces(stream);
                return Err(error);
            }
        };
        if is_last {
            self.phase = Phase::Pending(stream.answer);
        } else {
            if bytes.is_empty() {
                stream.state = Some(state);
                self.phase = Phase::Pieces(stream);
                return Ok(Step::More);
            }
            self.phase = Phase::Pieces(stream);
        }
        Ok(Step::Piece { bytes, is_last, state })
    }

    /// Gives back what was read: before more is added, and when a request was answered.
    fn compact(&mut self) {
        self.buf.drain(..self.at.min(self.buf.len()));
        self.at = 0;
        if self.buf.is_empty() && self.buf.capacity() > BUF_BYTES_MAX {
            self.buf = Vec::new();
        }
    }
}
