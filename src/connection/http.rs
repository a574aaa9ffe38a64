//! A connection that speaks HTTP/1.1: requests one after the other, each answered before the next is read, until one of
//! them becomes a WebSocket.
//!
//! What a client sends ahead (pipelined requests, a body behind its head, frames before the 101) waits in `buf`. It is
//! bounded by one read: while anything waits for an answer, nothing more is read from the socket.

use std::mem;

use crate::connection::env::Env;
use crate::peer::Peer;
use crate::protocol::body::BodyDecoder;
use crate::protocol::http::{BodyLength, Head, HttpError, Kind, find_head_end, parse_head, skip_empty_lines};
use crate::protocol::request::Request;
use crate::tick::Tick;

/// An emptied buffer of more than this is given back, so that a kept-alive connection stays small.
const BUF_BYTES_KEPT: usize = 4 << 10;

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
}

#[derive(Debug, Default)]
enum Phase {
    /// Between two requests; nothing of the next has come.
    #[default]
    Idle,
    /// Inside a head. The connection's first moment counts as that, too.
    Head,
    Body(Box<Upload>),
    /// A request is out for its answer.
    Answer(Answer),
}

/// A request whose body is on its way.
#[derive(Debug)]
struct Upload {
    request: Request,
    answer: Answer,
    wanted_upgrade: bool,
    decoder: BodyDecoder,
    body: Vec<u8>,
}

/// What has to be remembered of a request until it is answered.
#[derive(Debug, Default)]
pub struct Answer {
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// Whether it was a HEAD, which gets no body.
    pub head_only: bool,
    /// What `Sec-WebSocket-Accept` is to say, where it asks for a WebSocket.
    pub accept: Option<[u8; 28]>,
    /// The request, while the handler lets it wait for an answer from elsewhere.
    pub request: Option<Box<Request>>,
}

/// What came of reading on.
#[derive(Debug)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// The client waits for a `100 Continue`.
    Continue,
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
    pub fn new() -> Http {
        Http { phase: Phase::Head, ..Http::default() }
    }

    /// Keeps `input` until it is its turn.
    pub fn keep(&mut self, input: &[u8]) {
        // Once a read, not once a request: a client that pipelines is not made to wait for its bytes to be moved.
        if !input.is_empty() {
            self.compact();
            self.buf.extend_from_slice(input);
        }
    }

    /// Reads on in what was kept.
    pub fn step(&mut self, peer: Peer, env: &Env) -> Result<Step, HttpError> {
        match mem::take(&mut self.phase) {
            Phase::Idle | Phase::Head => self.read_head(peer, env),
            Phase::Body(upload) => self.read_body(upload),
            answer @ Phase::Answer(_) => {
                self.phase = answer;
                Ok(Step::More)
            }
        }
    }

    /// Whether the next bytes should be read from the socket: not while others wait here.
    pub fn wants_read(&self) -> bool {
        !self.is_answering() || self.is_drained()
    }

    /// When the client must have gone on, counted from `now`, at which the phase began.
    pub fn deadline(&self, env: &Env) -> Tick {
        let limit = match self.phase {
            Phase::Idle => env.limits.keep_alive_max,
            Phase::Head => env.limits.head_time_max,
            Phase::Body(_) => env.limits.body_time_max,
            Phase::Answer(_) => env.limits.answer_time_max,
        };
        env.now.after(limit)
    }

    /// The phase in a word, to tell when it changes.
    pub fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Idle => "idle",
            Phase::Head => "head",
            Phase::Body(_) => "body",
            Phase::Answer(_) => "answer",
        }
    }

    /// Whether the answer to what is being read has no body.
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Whether a request waits for its answer.
    pub fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Answer(_))
    }

    /// The request that waits for its answer, if one does.
    pub fn answer_mut(&mut self) -> Option<&mut Answer> {
        match &mut self.phase {
            Phase::Answer(answer) => Some(answer),
            _ => None,
        }
    }

    /// Ends the wait for an answer, which is being sent. The next head may be read.
    pub fn end_answer(&mut self) -> Option<Answer> {
        match mem::take(&mut self.phase) {
            Phase::Answer(answer) => {
                if self.is_drained() {
                    self.compact();
                }
                Some(answer)
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// What the client sent ahead of its answer.
    pub fn into_early(mut self) -> Vec<u8> {
        self.buf.drain(..self.at.min(self.buf.len()));
        self.buf
    }

    fn rest(&self) -> &[u8] {
        self.buf.get(self.at..).unwrap_or_default()
    }

    fn is_drained(&self) -> bool {
        self.at >= self.buf.len()
    }

    fn read_head(&mut self, peer: Peer, env: &Env) -> Result<Step, HttpError> {
        if self.scanned == 0 {
            self.at += skip_empty_lines(self.rest());
        }
        if self.is_drained() {
            return Ok(Step::More);
        }
        self.phase = Phase::Head;
        let rest = self.buf.get(self.at..).unwrap_or_default();
        self.is_head = rest.starts_with(b"HEAD ");
        let Some(end) = find_head_end(rest, &mut self.scanned, env.limits.head_bytes_max)? else {
            return Ok(Step::More);
        };
        let bytes = rest[..end].to_vec();
        self.at += end;
        self.scanned = 0;
        let head = parse_head(bytes, env.limits.headers_max, peer)?;
        self.begin(head, env)
    }

    fn begin(&mut self, head: Head, env: &Env) -> Result<Step, HttpError> {
        let Head { request, kind, body, keep_alive, expects_continue } = head;
        let mut answer = Answer { keep_alive, head_only: self.is_head, ..Answer::default() };
        match kind {
            Kind::Upgrade { accept } => {
                answer.accept = Some(accept);
                self.phase = Phase::Answer(answer);
                Ok(Step::Upgrade(Box::new(request)))
            }
            Kind::Plain { wanted_upgrade } if body == BodyLength::None => {
                self.phase = Phase::Answer(answer);
                Ok(Step::Request { request: Box::new(request), wanted_upgrade })
            }
            Kind::Plain { wanted_upgrade } => {
                let decoder = BodyDecoder::new(body, env.limits.body_bytes_max)?;
                let must_tell = expects_continue && self.is_drained();
                let upload = Box::new(Upload { request, answer, wanted_upgrade, decoder, body: Vec::new() });
                if must_tell {
                    self.phase = Phase::Body(upload);
                    return Ok(Step::Continue);
                }
                self.read_body(upload)
            }
        }
    }

    fn read_body(&mut self, mut upload: Box<Upload>) -> Result<Step, HttpError> {
        let mut rest = self.buf.get(self.at..).unwrap_or_default();
        let offered = rest.len();
        let is_whole = upload.decoder.decode(&mut rest, &mut upload.body)?;
        self.at += offered - rest.len();
        if !is_whole {
            self.phase = Phase::Body(upload);
            return Ok(Step::More);
        }
        let Upload { mut request, answer, wanted_upgrade, body, .. } = *upload;
        request.set_body(body);
        self.phase = Phase::Answer(answer);
        Ok(Step::Request { request: Box::new(request), wanted_upgrade })
    }

    /// Gives back what was read: before more is added, and when a request was answered.
    fn compact(&mut self) {
        self.buf.drain(..self.at.min(self.buf.len()));
        self.at = 0;
        if self.buf.is_empty() && self.buf.capacity() > BUF_BYTES_KEPT {
            self.buf = Vec::new();
        }
    }
}
