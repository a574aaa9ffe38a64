//! The end of a WebSocket connection, with its initiator and cause.

use std::fmt;

use crate::protocol::close::CloseCode;
use crate::protocol::error::ProtocolError;

/// The end of a WebSocket connection, as passed to `on_close`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Closed {
    /// The status code of the close frame.
    ///
    /// If the client ended the connection, this is the code of the client's close frame, else the code of the server's
    /// close frame. The code is 1005 if the close frame had no code, and 1006 if there was no close frame.
    pub code: CloseCode,
    /// The reason in the close frame, often empty.
    pub reason: Box<str>,
    /// The side that ended the connection.
    pub by: By,
    /// The cause of the connection's end.
    pub cause: Cause,
}

/// The result of [`Context::close`](crate::Context::close) for one fd.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CloseOutcome {
    /// The close frame is queued behind the queued messages, and `on_close` will be called.
    Closing,
    /// No open WebSocket has this fd. Nothing was done.
    Gone,
    /// The fd belongs to another [loop](crate::Server::loops), and the command was sent to that loop.
    Forwarded,
    /// The fd belongs to another loop, and the messages and commands on their way to that loop have reached
    /// [`forward_bytes_max`](crate::Limits::forward_bytes_max) bytes. Nothing was done.
    Full,
    /// The arguments are invalid. Nothing was done.
    ///
    /// The reason exceeds [`CloseCode::REASON_BYTES_MAX`](crate::CloseCode::REASON_BYTES_MAX), or no endpoint may send
    /// the code (RFC 6455 section 7.4).
    Invalid,
}

/// The result of [`Context::abort`](crate::Context::abort).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum AbortOutcome {
    /// The connection is dropped at the end of the turn.
    Aborted {
        /// Whether the connection was an open WebSocket, so that `on_close` will be called.
        ///
        /// If the value is `false`, the connection spoke HTTP, or `on_close` was already called when its close
        /// handshake began.
        was_open: bool,
    },
    /// The fd belongs to another [loop](crate::Server::loops), and the command was sent to that loop.
    Forwarded,
    /// The fd belongs to another loop, and the messages and commands on their way to that loop have reached
    /// [`forward_bytes_max`](crate::Limits::forward_bytes_max) bytes. Nothing was done.
    Full,
    /// No connection has this fd, or the connection is dropped already.
    ///
    /// Nothing was done.
    Gone,
}

impl Closed {
    /// Creates a `Closed`, for tests of `on_close` handlers.
    pub fn new(code: impl Into<CloseCode>, reason: &str, by: By, cause: Cause) -> Closed {
        Closed { code: code.into(), reason: reason.into(), by, cause }
    }
}

impl CloseOutcome {
    /// Returns whether the outcome is [`Closing`](CloseOutcome::Closing), so that the close handshake starts.
    pub fn is_closing(self) -> bool {
        self == CloseOutcome::Closing
    }
}

/// The side that ended a connection.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum By {
    /// The client ended the connection, with a close frame or by disconnecting.
    Client,
    /// The server ended the connection, because of a handler or a limit.
    Server,
}

/// The cause of a connection's end.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The client sent a close frame.
    ClientClosed,
    /// The TCP connection ended without a close frame.
    ConnectionLost,
    /// A handler or another thread closed the connection.
    ServerClosed,
    /// The client did not answer the heartbeats.
    HeartbeatMissed,
    /// The client read too slowly: its queue, or all queues together, reached a limit.
    SlowConsumer,
    /// The socket accepted no bytes for `write_time_max`.
    WriteTimedOut,
    /// A message was not complete within `message_time_max`.
    MessageTimedOut,
    /// The unfinished messages of all clients together exceeded `inbound_total_bytes_max`, or the process could not
    /// allocate memory for a message.
    ///
    /// If the limit was exceeded, this connection had one of the largest unfinished messages.
    InboundOverload,
    /// The client broke RFC 6455.
    ProtocolError(ProtocolError),
    /// The same uid connected again, and the [`SecondLogin`](crate::SecondLogin) policy closes the older connection.
    Kicked,
    /// A handler panicked while it served this connection.
    HandlerPanicked,
    /// The server was shut down.
    Drained,
}

impl Cause {
    /// All names that [`as_str`](Cause::as_str) returns, so that a counter for each cause can start at 0.
    pub const NAMES: [&'static str; 12] = [
        "client_closed",
        "connection_lost",
        "server_closed",
        "heartbeat_missed",
        "slow_consumer",
        "write_timed_out",
        "message_timed_out",
        "inbound_overload",
        "protocol_error",
        "kicked",
        "handler_panicked",
        "drained",
    ];

    /// Returns a short name for logs and metrics, in snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::ClientClosed => "client_closed",
            Cause::ConnectionLost => "connection_lost",
            Cause::ServerClosed => "server_closed",
            Cause::HeartbeatMissed => "heartbeat_missed",
            Cause::SlowConsumer => "slow_consumer",
            Cause::WriteTimedOut => "write_timed_out",
            Cause::MessageTimedOut => "message_timed_out",
            Cause::InboundOverload => "inbound_overload",
            Cause::ProtocolError(_) => "protocol_error",
            Cause::Kicked => "kicked",
            Cause::HandlerPanicked => "handler_panicked",
            Cause::Drained => "drained",
        }
    }
}

impl Closed {
    /// Returns the `Closed` of a connection that ended without a close frame. The code is 1006.
    pub(crate) fn abnormal(by: By, cause: Cause) -> Closed {
        Closed { code: CloseCode::ABNORMAL, reason: "".into(), by, cause }
    }

    /// Returns the `Closed` of a connection to which the server sends a close frame.
    pub(crate) fn by_server(code: CloseCode, reason: &str, cause: Cause) -> Closed {
        Closed { code, reason: reason.into(), by: By::Server, cause }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes the code, the reason and the cause, for example `1000 "bye" (client_closed)`.
impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, " {:?}", self.reason)?;
        }
        write!(f, " ({})", self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_contains_every_cause() {
        let causes = [
            Cause::ClientClosed,
            Cause::ConnectionLost,
            Cause::ServerClosed,
            Cause::HeartbeatMissed,
            Cause::SlowConsumer,
            Cause::WriteTimedOut,
            Cause::MessageTimedOut,
            Cause::InboundOverload,
            Cause::ProtocolError(ProtocolError::Unmasked),
            Cause::Kicked,
            Cause::HandlerPanicked,
            Cause::Drained,
        ];
        assert_eq!(causes.map(Cause::as_str), Cause::NAMES);
    }
}
