//! The byte stream of a connection: a socket, or a model of a socket.

use std::io::IoSlice;

use crate::connection::Connection;
use crate::connection::event::{Event, Sent};
use crate::connection::written::Written;
use crate::tick::Tick;

/// The result of one read from a [`Transport`], or of one read or write of the stream below a TLS session.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Io {
    /// The number of bytes that were read or written.
    ///
    /// A read of 0 bytes means the end of the peer's stream.
    Done(usize),
    /// No bytes can be read or written now.
    WouldBlock,
    /// The transport is broken.
    Closed,
}

/// The result of a read from a TLS session, without the plaintext.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionRead {
    /// The number of unsent bytes of the session, if the read sent records: see [`Written::held`].
    pub held: Option<usize>,
    /// Whether the socket accepted bytes.
    pub has_sent: bool,
    /// Whether bytes of the client arrived.
    pub has_received: bool,
    /// Whether a client hello was answered.
    pub has_answered: bool,
}

/// A non-blocking byte stream.
///
/// No call blocks. No call returns an error of the operating system: after an error, each read returns [`Io::Closed`],
/// and each write returns `None`.
pub trait Transport {
    /// The state that all transports of a table share. For sockets, this is the TLS sessions of all connections and
    /// their common buffers.
    ///
    /// The table lends this state to each call. A connection stores no part of it, so an idle plain connection needs no
    /// memory for buffers.
    type Shared;

    /// Reads once into `buffer`.
    fn read(&mut self, shared: &mut Self::Shared, buffer: &mut [u8]) -> Io;

    /// Writes once from `slices`. Returns `None` if the transport is broken.
    ///
    /// `slices` is empty only if the transport has unsent bytes of its own. If the transport becomes full, the table
    /// writes no more until [`Table::handle_writable`](super::Table::handle_writable).
    fn write_vectored(&mut self, shared: &mut Self::Shared, slices: &[IoSlice<'_>]) -> Option<Written>;

    /// Ends the output stream, as `shutdown(SHUT_WR)` does. Reads are still possible.
    fn shutdown(&mut self, shared: &mut Self::Shared);

    /// Returns the result of the last read, if the transport uses TLS.
    #[inline]
    fn session_read(&self, _shared: &Self::Shared) -> Option<SessionRead> {
        None
    }

    /// Returns the memory of unfinished input in the transport.
    #[inline]
    fn inbound_bytes(&self, _shared: &Self::Shared) -> usize {
        0
    }

    /// Returns the time since which the server waits for the remaining bytes of a TLS record.
    #[inline]
    fn unfinished_since(&self, _shared: &Self::Shared) -> Option<Tick> {
        None
    }

    /// Starts the time limit of an unfinished record at `now`, unless the time limit runs already. `None` stops the
    /// time limit, because the server does not read.
    #[inline]
    fn set_reading(&mut self, _shared: &mut Self::Shared, _now: Option<Tick>) {}

    /// Ignores all further input, and frees the memory of unfinished input.
    #[inline]
    fn ignore_input(&mut self, _shared: &mut Self::Shared) {}

    /// Ends the stream of a finished connection, before its removal.
    #[inline]
    fn finish(&mut self, _shared: &mut Self::Shared) {}

    /// Makes the client see an error at the end of the stream, because a response is incomplete.
    #[inline]
    fn reset(&mut self, _shared: &mut Self::Shared) {}

    /// Frees the transport's part of the shared state, before the transport is dropped.
    #[inline]
    fn remove(&mut self, _shared: &mut Self::Shared) {}

    /// Observes a change that the table made to the connection.
    ///
    /// The table calls this method directly after the change. The simulator and the fuzzer compare each change with a
    /// model. For a socket, the method does nothing.
    #[inline]
    fn observe(&mut self, _connection: &Connection, _change: Observed<'_>) {}
}

/// A change that a table made to a connection, for [`Transport::observe`].
#[derive(Copy, Clone, Debug)]
#[cfg_attr(
    not(any(test, feature = "unstable")),
    expect(dead_code, reason = "only the simulator and the fuzzer read the fields")
)]
pub enum Observed<'a> {
    /// Output was written to the transport.
    Wrote(Written),
    /// A message was pushed, with this result.
    Sent(Sent),
    /// A message of a fan-out, which was pushed earlier, was queued.
    FannedOut {
        /// Whether memory for the message was free.
        is_queued: bool,
    },
    /// A ping was pushed, with this result.
    Pinged(Sent),
    /// A message was pushed that may replace the unsent message that has the same key.
    Conflated {
        /// Whether a message with the key was replaced.
        is_done: bool,
    },
    /// The output was copied from the journal, which has the frames of the turn, to the queue of the connection.
    MovedToQueue,
    /// The newest messages were dropped to free memory.
    Dropped {
        /// The number of dropped messages.
        messages: usize,
        /// The counted memory of the connection before the drop.
        charge: usize,
        /// The number of bytes that each connection may keep in its queue.
        bytes_min: usize,
    },
    /// The connection was closed as a slow consumer.
    ClosedSlow {
        /// The connection keeps its partly written frame if its counted memory is at most this number of bytes.
        kept_max: usize,
        /// The counted memory of the connection before the close, or `None` if the connection was not closed to free
        /// memory.
        charge: Option<usize>,
        /// The end of the WebSocket, if the WebSocket was open.
        event: Option<&'a Event<'static>>,
    },
    /// The connection was ended, because its HTTP response exceeds a bound.
    ResponseDropped,
}
