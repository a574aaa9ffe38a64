//! The state of an HTTP/1.1 connection, with one request at a time.
//!
//! Input is parsed in the read buffer. If the buffer contains a whole body, the handler borrows the body from it. `buf`
//! stores input that cannot be processed yet: an incomplete head, and early input, which arrived before the response to
//! the current request. Early input is, for instance, pipelined requests, or frames that the client sent before the 101
//! response. Early input is at most as long as one read, because the socket is not read while early input waits.

use std::any::Any;
use std::borrow::Cow;
use std::mem;

use crate::connection::env::Env;
use crate::connection::pending_request::{Deferred, PendingRequest, ResponseMode};
use crate::peer::Peer;
use crate::protocol::body::{BodyDecoder, into_owned, take_front};
use crate::protocol::deferral::Deferral;
use crate::protocol::http::{BodyLength, Head, HttpError, RequestKind, find_head_end, parse_head, skip_empty_lines};
use crate::protocol::memory::{MemoryShare, MemoryTotal};
use crate::protocol::proxy::parse_proxy_header;
use crate::protocol::request::Request;
use crate::tick::Tick;
use crate::tls::TlsInfo;

/// The maximum capacity of an empty buffer that a connection keeps for its next request, in bytes.
const BUF_BYTES_MAX: usize = 4 << 10;

/// The HTTP state of a connection.
#[derive(Debug, Default)]
pub struct Http {
    /// Buffered input. The bytes from the index `at` on are not parsed yet.
    buf: Vec<u8>,
    at: usize,
    /// The number of bytes after `at` that were searched for the end of the head.
    scanned: usize,
    /// Whether the request is a HEAD request, whose response has no body.
    is_head: bool,
    /// Whether a TLS hello was received in place of a head.
    has_tls_hello: bool,
    /// The TLS version and cipher suite of the connection.
    tls: Option<TlsInfo>,
    phase: Phase,
    /// The memory of unfinished heads and bodies, and of early input.
    memory: MemoryShare,
}

#[derive(Debug, Default)]
enum Phase {
    /// The last request was answered, and no byte of the next request was received.
    #[default]
    Idle,
    /// The PROXY header is not complete yet.
    Proxy,
    /// A part of a head was received, or the connection is new and no byte of a request was received yet.
    Head,
    /// A head announced a body. The handler has not chosen the mode of the body yet.
    Announced(Announced),
    Body(Upload),
    /// The body of a request is being received, and is passed to the handler in pieces.
    Pieces(Box<StreamedBody>),
    /// A request was received, and waits for its response.
    Pending(PendingRequest),
}

/// The input or answer that an HTTP connection waits for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Awaited {
    /// The first byte of the next request.
    Request,
    /// The end of a head.
    Head,
    /// The end of a body.
    Body,
    /// The next piece of a body.
    Piece,
    /// The response of the handler.
    Response,
}

/// A body that a head announced.
#[derive(Debug)]
struct Announced {
    answer: PendingRequest,
    wanted_upgrade: bool,
    length: BodyLength,
    expects_continue: bool,
    /// Whether bytes of the body have arrived.
    is_body_begun: bool,
}

/// A request whose body is being received.
#[derive(Debug)]
struct Upload {
    request: Box<Request<'static>>,
    answer: PendingRequest,
    wanted_upgrade: bool,
    decoder: BodyDecoder,
    /// The part of the body that arrived in earlier reads.
    body: Vec<u8>,
}

/// A body that is passed to the handler in pieces.
#[derive(Debug)]
struct StreamedBody {
    answer: PendingRequest,
    decoder: BodyDecoder,
    /// The state that the handler keeps for this body, or `None` while the handler uses the state.
    state: Option<Box<dyn Any>>,
}

/// The source of a request, and the limits that apply to this request.
#[derive(Copy, Clone)]
pub struct Source<'e> {
    pub peer: Peer,
    /// Whether a control listener accepted the connection.
    pub is_control: bool,
    pub env: &'e Env,
}

/// The result of [`Http::step`].
#[derive(Debug)]
pub enum Step<'a> {
    /// More bytes of the client are needed. All input was parsed or buffered.
    More,
    /// The PROXY header is complete.
    ///
    /// The field is the address of the client in the PROXY header. If the field is `None`, the peer of the socket is
    /// the client.
    Proxied(Option<Peer>),
    /// The head of a request that announces a body. The caller must call [`Http::receive_body`].
    Head(Box<Request<'static>>),
    /// A piece of a request body, with the state that the handler keeps for this body.
    ///
    /// The caller returns the state with [`Http::return_state`], unless this piece is the last.
    Piece {
        /// The bytes of this piece of the body. Only the last piece may be empty.
        bytes: Cow<'a, [u8]>,
        is_last: bool,
        state: Box<dyn Any>,
    },
    /// A complete request for plain HTTP.
    Request {
        /// The request.
        request: Box<Request<'a>>,
        /// Whether the request looks like an upgrade from which a proxy removed headers.
        wanted_upgrade: bool,
    },
    /// A request for a WebSocket.
    Upgrade(Box<Request<'static>>),
}

impl Step<'_> {
    /// Copies borrowed bytes.
    fn into_owned(self) -> Step<'static> {
        match self {
            Step::Piece { bytes, is_last, state } => {
                Step::Piece { bytes: Cow::Owned(bytes.into_owned()), is_last, state }
            }
            Step::Request { request, wanted_upgrade } => {
                Step::Request { request: Box::new(request.into_owned()), wanted_upgrade }
            }
            Step::More => Step::More,
            Step::Proxied(client) => Step::Proxied(client),
            Step::Head(request) => Step::Head(request),
            Step::Upgrade(request) => Step::Upgrade(request),
        }
    }
}

impl Http {
    /// Creates the HTTP state of a connection that was just accepted.
    pub fn new(memory: &MemoryTotal) -> Http {
        Http { phase: Phase::Head, memory: memory.share(), ..Http::default() }
    }

    /// Creates the HTTP state of a connection that a trusted proxy opened.
    ///
    /// The proxy sends a PROXY header first.
    pub fn new_proxied(memory: &MemoryTotal) -> Http {
        Http { phase: Phase::Proxy, ..Http::new(memory) }
    }

    /// Appends `input` to the buffer.
    ///
    /// # Errors
    ///
    /// Returns [`HttpError::OutOfMemory`] if the buffer cannot grow because the allocation fails.
    pub fn buffer(&mut self, input: &[u8]) -> Result<(), HttpError> {
        // Parsed bytes are removed once per read, and not once per request, so that unparsed pipelined requests are
        // copied only once per read.
        if !input.is_empty() {
            self.compact();
            self.buf.try_reserve(input.len()).map_err(|_| HttpError::OutOfMemory)?;
            self.buf.extend_from_slice(input);
        }
        Ok(())
    }

    /// Returns the memory of unfinished and early input, as the last [`recount`](Http::recount) counted it.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Updates the counted memory of unfinished and early input.
    ///
    /// An empty buffer that is kept for the next request is not counted.
    pub fn recount(&mut self) {
        let kept = match &self.phase {
            Phase::Body(upload) => upload.body.capacity() + upload.request.head_bytes(),
            Phase::Pending(PendingRequest { deferred: Some(Deferred::Upgrade(request)), .. }) => request.head_bytes(),
            Phase::Idle | Phase::Proxy | Phase::Head | Phase::Announced(_) | Phase::Pieces(_) | Phase::Pending(_) => 0,
        };
        let ahead = if self.is_drained() { 0 } else { self.buf.capacity() };
        self.memory.set(kept + ahead);
    }

    /// Parses buffered input and `input` up to the next [`Step`], and removes the parsed part from `input`.
    ///
    /// # Errors
    ///
    /// Returns an error if the request is invalid or exceeds a limit.
    pub fn step<'a>(&mut self, input: &mut &'a mut [u8], from: Source<'_>) -> Result<Step<'a>, HttpError> {
        if !self.is_drained() {
            return self.step_buffered(input, from);
        }
        let step = self.parse(input, from)?;
        if matches!(step, Step::More) {
            self.buffer(input)?;
            *input = &mut [];
        }
        Ok(step)
    }

    /// Parses buffered input together with `input`.
    fn step_buffered<'a>(&mut self, input: &mut &'a mut [u8], from: Source<'_>) -> Result<Step<'a>, HttpError> {
        self.buffer(input)?;
        let mut buf = mem::take(&mut self.buf);
        let mut rest = buf.get_mut(self.at..).unwrap_or_default();
        let step = self.parse(&mut rest, from).map(Step::into_owned);
        let unparsed = rest.len();
        self.at = buf.len() - unparsed;
        self.buf = buf;
        if unparsed <= input.len() && !matches!(step, Ok(Step::More)) {
            // The unparsed bytes stay in `input` and are removed from the buffer, so that a body can be borrowed from
            // `input`.
            self.at = self.buf.len();
            self.compact();
            take_front(input, input.len() - unparsed);
        } else {
            *input = &mut [];
        }
        step
    }

    fn parse<'a>(&mut self, input: &mut &'a mut [u8], from: Source<'_>) -> Result<Step<'a>, HttpError> {
        match mem::take(&mut self.phase) {
            phase @ (Phase::Idle | Phase::Head) => {
                if self.scanned == 0 {
                    take_front(input, skip_empty_lines(input));
                }
                if input.is_empty() {
                    // No byte of a request was received, so the phase and its deadline do not change.
                    self.phase = phase;
                    return Ok(Step::More);
                }
                self.read_head(input, from)
            }
            Phase::Proxy => self.read_proxy_header(input, from.env),
            Phase::Body(upload) => self.read_body(input, upload),
            Phase::Pieces(stream) => self.read_piece(input, stream),
            waiting @ (Phase::Pending(_) | Phase::Announced(_)) => {
                self.phase = waiting;
                Ok(Step::More)
            }
        }
    }

    /// Returns whether the socket should be read. The socket is not read while early input waits.
    pub fn wants_read(&self) -> bool {
        !self.is_answering() || self.is_drained()
    }

    /// Returns whether the buffer contains unparsed input.
    pub fn has_buffered_input(&self) -> bool {
        !self.is_drained()
    }

    /// Returns the deadline for the input or answer that [`awaits`](Http::awaits) returns, if the connection begins to
    /// wait for it now.
    pub fn deadline(&self, env: &Env) -> Tick {
        let limit = match self.awaits() {
            Awaited::Request => env.limits.keep_alive_max,
            Awaited::Head => env.limits.head_time_max,
            Awaited::Body | Awaited::Piece => env.limits.body_time_max,
            Awaited::Response => env.limits.answer_time_max,
        };
        env.now.after(limit)
    }

    /// Returns the input or answer that the connection waits for.
    ///
    /// When the result changes, the connection gets a new deadline.
    pub fn awaits(&self) -> Awaited {
        match self.phase {
            Phase::Idle => Awaited::Request,
            // The PROXY header and the head after it have one common deadline.
            Phase::Proxy | Phase::Head => Awaited::Head,
            Phase::Body(_) => Awaited::Body,
            Phase::Pieces(_) => Awaited::Piece,
            Phase::Pending(_) | Phase::Announced(_) => Awaited::Response,
        }
    }

    /// Returns whether the current request is a HEAD request, whose response has no body.
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Returns whether the input starts with a TLS handshake record.
    pub fn has_tls_hello(&self) -> bool {
        self.has_tls_hello
    }

    /// Sets the TLS version and cipher suite that later requests report.
    pub fn set_tls(&mut self, tls: TlsInfo) {
        self.tls = Some(tls);
    }

    /// Returns whether a part of an unanswered request was received.
    pub fn has_begun(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Proxy | Phase::Head) || !self.is_drained()
    }

    /// Returns whether a request waits for its response.
    pub fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Pending(_))
    }

    /// Returns whether the response to a plain request is deferred.
    pub fn is_deferred_plain(&self) -> bool {
        matches!(&self.phase, Phase::Pending(PendingRequest { deferred: Some(Deferred::Plain), .. }))
    }

    /// Returns whether the answer to an upgrade is deferred.
    pub fn is_deferred_upgrade(&self) -> bool {
        matches!(&self.phase, Phase::Pending(PendingRequest { deferred: Some(Deferred::Upgrade(_)), .. }))
    }

    /// Returns the request that may be answered.
    ///
    /// The request is pending, or its head has announced a body, or its body is being received in pieces.
    pub fn pending_mut(&mut self) -> Option<&mut PendingRequest> {
        match &mut self.phase {
            Phase::Pending(answer) => Some(answer),
            Phase::Announced(announced) => Some(&mut announced.answer),
            Phase::Pieces(stream) => Some(&mut stream.answer),
            Phase::Idle | Phase::Proxy | Phase::Head | Phase::Body(_) => None,
        }
    }

    /// Returns the number of the [`Ticket`](crate::Ticket) that may answer the current request.
    pub fn ticket(&self) -> Option<Deferral> {
        match &self.phase {
            Phase::Pending(answer) => answer.ticket,
            Phase::Announced(announced) => announced.answer.ticket,
            Phase::Pieces(stream) => stream.answer.ticket,
            Phase::Idle | Phase::Proxy | Phase::Head | Phase::Body(_) => None,
        }
    }

    /// Returns the plain request that a handler is processing.
    pub fn handled_request_mut(&mut self) -> Option<&mut PendingRequest> {
        match &mut self.phase {
            Phase::Pending(answer) if answer.deferred.is_none() && answer.accept.is_none() => Some(answer),
            _ => None,
        }
    }

    /// Returns the mode of the response in pieces to the current request.
    pub fn reply(&self) -> ResponseMode {
        match &self.phase {
            Phase::Idle | Phase::Proxy | Phase::Head => ResponseMode::None,
            Phase::Body(upload) => upload.answer.reply,
            Phase::Announced(announced) => announced.answer.reply,
            Phase::Pieces(stream) => stream.answer.reply,
            Phase::Pending(answer) => answer.reply,
        }
    }

    /// Ends the request that may be answered, and returns it.
    ///
    /// If the body of the request is incomplete, `keep_alive` is `false` in the result, because no other request may
    /// follow.
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

    /// Starts to receive the request body that was announced by [`Step::Head`].
    ///
    /// If `state` is `Some`, the body is passed to the handler in pieces. If it is `None`, the handler gets the whole
    /// body in one call. Returns `true` if the client waits for a `100 Continue`.
    pub fn receive_body(
        &mut self,
        request: Box<Request<'static>>,
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
        let Announced { answer, wanted_upgrade, length, expects_continue, is_body_begun } = announced;
        // A `100 Continue` response must not be sent after the head of the final response.
        let must_tell = expects_continue && answer.reply == ResponseMode::None && !is_body_begun;
        let decoder = match BodyDecoder::new(length, if state.is_none() { bytes_max } else { usize::MAX }) {
            Ok(decoder) => decoder,
            Err(error) => {
                self.phase = Phase::Pending(answer);
                return Err(error);
            }
        };
        self.phase = match state {
            None => Phase::Body(Upload { request, answer, wanted_upgrade, decoder, body: Vec::new() }),
            state => Phase::Pieces(Box::new(StreamedBody { answer, decoder, state })),
        };
        Ok(must_tell)
    }

    /// Stores the handler's state of [`Step::Piece`] until the next piece.
    pub fn return_state(&mut self, state: Box<dyn Any>) {
        if let Phase::Pieces(stream) = &mut self.phase {
            stream.state = Some(state);
        }
    }

    /// Removes and returns the input that the client sent before the response.
    pub fn take_early_input(&mut self) -> Vec<u8> {
        self.compact();
        mem::take(&mut self.buf)
    }

    fn is_drained(&self) -> bool {
        self.at >= self.buf.len()
    }

    fn read_proxy_header(&mut self, input: &mut &mut [u8], env: &Env) -> Result<Step<'static>, HttpError> {
        let Some(header) = parse_proxy_header(input, env.limits.head_bytes_max)? else {
            self.phase = Phase::Proxy;
            return Ok(Step::More);
        };
        take_front(input, header.bytes);
        self.phase = Phase::Head;
        Ok(Step::Proxied(header.client))
    }

    fn read_head(&mut self, input: &mut &mut [u8], from: Source<'_>) -> Result<Step<'static>, HttpError> {
        self.phase = Phase::Head;
        self.is_head = input.starts_with(b"HEAD ");
        self.has_tls_hello = matches!(**input, [22] | [22, 3, ..]);
        let Some(end) = find_head_end(input, &mut self.scanned, from.env.limits.head_bytes_max)? else {
            return Ok(Step::More);
        };
        let bytes = take_front(input, end).to_vec();
        self.scanned = 0;
        let mut head = parse_head(bytes, from.env.limits.headers_max, from.peer)?;
        head.request.set_control(from.is_control);
        head.request.set_tls(self.tls);
        self.begin(head, !input.is_empty())
    }

    fn begin(&mut self, head: Head, is_body_begun: bool) -> Result<Step<'static>, HttpError> {
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
                let announced = Announced { answer, wanted_upgrade, length: body, expects_continue, is_body_begun };
                self.phase = Phase::Announced(announced);
                Ok(Step::Head(Box::new(request)))
            }
        }
    }

    fn read_body<'a>(&mut self, input: &mut &'a mut [u8], mut upload: Upload) -> Result<Step<'a>, HttpError> {
        let mut body = if upload.body.is_empty() { Cow::default() } else { Cow::Owned(mem::take(&mut upload.body)) };
        let decoded = upload.decoder.decode(input, &mut body);
        if decoded == Ok(true) {
            let Upload { request, answer, wanted_upgrade, .. } = upload;
            self.phase = Phase::Pending(answer);
            let mut request: Box<Request<'a>> = request;
            request.set_body(body);
            return Ok(Step::Request { request, wanted_upgrade });
        }
        let kept = into_owned(body).map(|body| upload.body = body);
        self.phase = Phase::Body(upload);
        decoded.and(kept).map(|()| Step::More)
    }

    fn read_piece<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        mut stream: Box<StreamedBody>,
    ) -> Result<Step<'a>, HttpError> {
        let Some(state) = stream.state.take() else {
            self.phase = Phase::Pieces(stream);
            return Ok(Step::More);
        };
        let mut bytes = Cow::default();
        let is_last = match stream.decoder.decode(input, &mut bytes) {
            Ok(is_last) => is_last,
            Err(error) => {
                // The phase stays `Pieces`, so that the caller can answer the request with an error response.
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

    /// Removes parsed input from the buffer.
    ///
    /// The caller calls this method before it adds input, and after a request was answered.
    fn compact(&mut self) {
        if self.at > 0 {
            self.buf.drain(..self.at.min(self.buf.len()));
            self.at = 0;
        }
        if self.buf.is_empty() && self.buf.capacity() > BUF_BYTES_MAX {
            self.buf = Vec::new();
        }
    }
}
