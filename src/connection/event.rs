//! What a connection tells: its events, the outcome of what it was asked, and what it is.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;

use crate::connection::closed::Closed;
use crate::protocol::http::HttpError;
use crate::protocol::message::Message;
use crate::protocol::origin::OriginError;
use crate::protocol::request::Request;

/// What a connection has carried.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Bytes that came, headers and all.
    pub bytes_in: u64,
    /// Bytes that the socket took.
    pub bytes_out: u64,
    /// Messages that came, whole.
    pub messages_in: u64,
    /// Messages that were queued.
    pub messages_out: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.messages_in += other.messages_in;
        self.messages_out += other.messages_out;
    }
}

/// What became of a connection's input.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request for plain HTTP: to be answered by `respond`.
    Request {
        /// The request.
        request: Box<Request>,
        /// Whether it has the marks of an upgrade that a proxy lost.
        wanted_upgrade: bool,
    },
    /// A head that announces a body: to be answered by `receive_body`.
    Head(Box<Request>),
    /// A piece of a body, with the handler's state, which `return_state` takes unless this piece is the last.
    Piece {
        /// At least one byte, unless it is the last piece.
        bytes: Vec<u8>,
        /// Whether the body is whole.
        is_last: bool,
        /// What came with `BodyMode::Stream`.
        state: Box<dyn Any>,
    },
    /// A request for a WebSocket: `accept`, `respond` or
    /// `defer`.
    Upgrade(Box<Request>),
    /// A text message.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping; its pong is queued.
    Ping(Cow<'a, [u8]>),
    /// A pong.
    Pong(Cow<'a, [u8]>),
    /// The WebSocket is no longer open.
    Closed(Closed),
    /// A request was refused by a rule, and its answer is queued. The connection was no WebSocket, and will be none.
    Refused(Refusal),
}

impl<'a> From<Message<'a>> for Event<'a> {
    fn from(message: Message<'a>) -> Event<'a> {
        match message {
            Message::Text(text) => Event::Text(Cow::Borrowed(text)),
            Message::Binary(bytes) => Event::Binary(Cow::Borrowed(bytes)),
        }
    }
}

/// Why a request was refused before any handler saw it, or while it waited for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is no HTTP that is served here, or it took too long.
    Http(HttpError),
    /// A browser came from where none may.
    Origin(OriginError),
    /// The handler put it off for too long.
    Unanswered,
    /// The server goes down.
    Drained,
}

impl Refusal {
    /// The HTTP status of its answer.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Http(error) => error.status(),
            Refusal::Origin(_) => 403,
            Refusal::Unanswered | Refusal::Drained => 503,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Http(error) => error.fmt(f),
            Refusal::Origin(error) => error.fmt(f),
            Refusal::Unanswered => f.write_str("the request was not answered in time"),
            Refusal::Drained => f.write_str("the server is going down"),
        }
    }
}

/// What became of `Connection::send`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    /// In the queue.
    Queued,
    /// It does not fit. The loop may write and try again before it calls the reader slow.
    Full,
    /// No open WebSocket.
    NotOpen,
    /// It would not fit into the emptiest queue.
    TooLarge,
}

/// What the loop has to do with the socket once output was written.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SocketAction {
    /// Nothing.
    Stay,
    /// Shut down its writing side.
    Shut,
    /// Close it.
    Drop,
}

/// What a connection is, seen from outside.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// It speaks HTTP, or its upgrade waits for an answer.
    Http,
    /// An open WebSocket: the only state in which it can be pushed to.
    Open,
    /// It was an open WebSocket, or an HTTP connection that is being ended.
    Closing,
}
