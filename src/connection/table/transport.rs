//! The byte stream below a connection: a socket, or a model.

use std::io::IoSlice;

use crate::connection::Connection;
use crate::connection::event::{Event, Sent};
use crate::connection::written::Written;
use crate::tick::Tick;

/// The result of a read from a [`Transport`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Io {
    /// The number of bytes read.
    ///
    /// A read of 0 bytes is the end of the peer's stream.
    Done(usize),
    /// Nothing can be read now.
    WouldBlock,
    /// The transport is broken.
    Closed,
}

/// The result of a read from a session, besides its bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionRead {
    /// The bytes that the session holds, if they changed because it sent output of its own: see [`Written::held`].
    pub held: Option<usize>,
    /// Whether the socket took bytes.
    pub has_sent: bool,
    /// Whether bytes of the client arrived.
    pub has_received: bool,
    /// Whether a client hello was answered.
    pub has_answered: bool,
}

/// A non-blocking byte stream.
///
/// No call blocks, and none returns an error of the operating system: a transport that fails is [`Io::Closed`] from then on.
pub trait Transport {
    /// The state that all transports of a table share: buffers, and TLS sessions.
    ///
    /// The table lends it to each call. A plain socket needs none of it, so it costs an idle connection nothing.
    type Shared;

    /// Reads once into `buffer`.
    fn read(&mut self, shared: &mut Self::Shared, buffer: &mut [u8]) -> Io;

    /// Writes once from `slices`. `None`: it is broken.
    ///
    /// There is at least one slice, unless the transport holds bytes. If it becomes full, nothing more is written until
    /// [`Table::handle_writable`](super::Table::handle_writable).
    fn write_vectored(&mut self, shared: &mut Self::Shared, slices: &[IoSlice<'_>]) -> Option<Written>;

    /// Ends the output. The peer can still be read from.
    fn shutdown(&mut self, shared: &mut Self::Shared);

    /// Returns the result of the last read, if it has a session.
    #[inline]
    fn session_read(&self, _shared: &Self::Shared) -> Option<SessionRead> {
        None
    }

    /// Returns the memory of its own unfinished input.
    #[inline]
    fn inbound_bytes(&self, _shared: &Self::Shared) -> usize {
        0
    }

    /// Returns the time since which its client owes the rest of a record.
    #[inline]
    fn unfinished_since(&self, _shared: &Self::Shared) -> Option<Tick> {
        None
    }

    /// Starts the time of an unfinished record at `now`, unless it has started. `None`: stops it, because nothing is read.
    #[inline]
    fn set_reading(&mut self, _shared: &mut Self::Shared, _now: Option<Tick>) {}

    /// Ignores all further input, and frees the memory of unfinished input.
    #[inline]
    fn ignore_input(&mut self, _shared: &mut Self::Shared) {}

    /// Ends the stream of a connection that is over, before it is removed.
    #[inline]
    fn finish(&mut self, _shared: &mut Self::Shared) {}

    /// Makes the end of its stream an error for the client, because a response is incomplete.
    #[inline]
    fn reset(&mut self, _shared: &mut Self::Shared) {}

    /// Frees its part of the shared state, before it is dropped.
    #[inline]
    fn remove(&mut self, _shared: &mut Self::Shared) {}

    /// Observes a change that the table made to the connection.
    ///
    /// It is called directly after the change. The simulator and the fuzzer compare each change with a model. A socket
    /// does nothing.
    #[inline]
    fn observe(&mut self, _connection: &Connection, _change: Observed<'_>) {}
}

/// A change that a table makes to a connection by itself.
#[derive(Copy, Clone, Debug)]
#[cfg_attr(not(any(test, feature = "unstable")), expect(dead_code, reason = "only models read it"))]
pub enum Observed<'a> {
    /// Output was written to the transport.
    Wrote(Written),
    /// A message was pushed to the queue.
    Sent(Sent),
    /// A ping was pushed to the queue.
    Pinged(Sent),
    /// A message was pushed to replace the unsent one with its key.
    Conflated {
        /// Whether a message with the key was replaced.
        is_done: bool,
    },
    /// Its output was moved from the journal to a queue.
    MovedToQueue,
    /// Its newest messages were dropped to free memory.
    Dropped {
        /// The number of messages.
        messages: usize,
        /// The charge of the connection before.
        charge: usize,
        /// The bytes that each connection may keep.
        bytes_min: usize,
    },
    /// It was closed as a slow consumer.
    ClosedSlow {
        /// The maximum charge with which it keeps its partly written frame.
        kept_max: usize,
        /// The charge before, if the connection was closed to free memory.
        charge: Option<usize>,
        /// The end of a WebSocket that was open.
        event: Option<&'a Event<'static>>,
    },
    /// It was ended during an HTTP response that exceeds a bound.
    ResponseDropped,
}
