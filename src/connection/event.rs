//! The types that a connection returns: its events, the results of commands, and its state.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;

use crate::connection::closed::Closed;
use crate::protocol::http::HttpError;
use crate::protocol::message::Message;
use crate::protocol::origin::OriginError;
use crate::protocol::request::Request;

/// The numbers of received and sent bytes and messages of a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes received, including HTTP headers and frame headers.
    pub bytes_in: u64,
    /// Output bytes that the socket accepted.
    pub bytes_out: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages queued for the client.
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

/// An event in the input of a connection, or the end of the connection.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request for plain HTTP.
    ///
    /// The caller answers with `respond`, or defers the answer with `defer`.
    Request {
        /// The request. The body is borrowed from the input if the input contains the whole body.
        request: Box<Request<'a>>,
        /// Whether the request looks like an upgrade from which a proxy removed headers.
        wanted_upgrade: bool,
    },
    /// The head of a request that announces a body. The caller must call `receive_body`.
    Head(Box<Request<'static>>),
    /// A piece of a streamed request body, with the state that the handler keeps for this body.
    ///
    /// The caller returns the state with `return_state`, unless this piece is the last.
    Piece {
        /// The bytes of this piece of the body. Only the last piece may be empty.
        bytes: Cow<'a, [u8]>,
        /// Whether this piece is the last piece of the body.
        is_last: bool,
        /// The state that the handler passed in `BodyMode::Stream`.
        state: Box<dyn Any>,
    },
    /// A request for a WebSocket.
    ///
    /// The caller answers with `accept` or `respond`, or defers the answer with `defer`.
    Upgrade(Box<Request<'static>>),
    /// A text message.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping. The pong is queued already.
    Ping(Cow<'a, [u8]>),
    /// A pong.
    Pong(Cow<'a, [u8]>),
    /// The WebSocket has ended, or its close handshake has begun.
    Closed(Closed),
    /// The connection refused a request, and queued the response.
    ///
    /// The connection is not a WebSocket and never becomes one.
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

/// The reason why a connection refused a request without an answer of the handler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The request is invalid, exceeds a limit, or took too long.
    Http(HttpError),
    /// The origin of a browser is not allowed.
    Origin(OriginError),
    /// The handler did not answer the request within `answer_time_max`.
    Unanswered,
    /// The server is shutting down.
    Drained,
    /// The client sent a TLS hello to a listener without TLS.
    TlsHello,
}

impl Refusal {
    /// Returns the HTTP status of the response that refuses the request.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Http(error) => error.status(),
            Refusal::TlsHello => HttpError::NotHttp.status(),
            Refusal::Origin(_) => 403,
            Refusal::Unanswered | Refusal::Drained => 503,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Http(error) => error.fmt(f),
            Refusal::TlsHello => HttpError::NotHttp.fmt(f),
            Refusal::Origin(error) => error.fmt(f),
            Refusal::Unanswered => f.write_str("the request was not answered in time"),
            Refusal::Drained => f.write_str("server is shutting down"),
        }
    }
}

/// The result of `Connection::send`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    /// The message is in the queue.
    Queued,
    /// The queue is full.
    ///
    /// After this result, the [`Table`](crate::connection::Table) writes the queue to the transport, and queues the
    /// message if there is space now. If the queue is still full, the table applies
    /// [`Limits::slow_reader`](crate::Limits::slow_reader).
    Full,
    /// The connection is not an open WebSocket.
    NotOpen,
    /// The message is longer than `queue_bytes_max`.
    TooLarge,
}

/// The action that the caller must perform on the socket after a write.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SocketAction {
    /// Do nothing.
    Stay,
    /// Shut down the socket for writing.
    Shut,
    /// Close the socket.
    Drop,
    /// Reset the socket, so that the client sees that its response is incomplete.
    Reset,
}

/// The state of a connection.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum State {
    /// The connection speaks HTTP, or its upgrade is not answered yet.
    Http,
    /// The connection is an open WebSocket.
    ///
    /// Messages can be pushed only in this state.
    Open,
    /// The connection is ending. Before this state, the connection was an open WebSocket or spoke HTTP.
    Closing,
}
