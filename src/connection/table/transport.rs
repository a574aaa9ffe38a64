//! The byte stream below a connection: a socket, or a model.

use std::io::IoSlice;

use crate::connection::Connection;
use crate::connection::event::{Event, Sent};
use crate::connection::written::Written;

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

    /// Returns the bytes of its own output that it holds after a read.
    ///
    /// See [`Written::held`]. `None`: a read never changes them.
    #[inline]
    fn held(&self, _shared: &Self::Shared) -> Option<usize> {
        None
    }

    /// Returns the memory of its own unfinished input.
    #[inline]
    fn inbound_bytes(&self, _shared: &Self::Shared) -> usize {
        0
    }

    /// Ignores all further input, and frees the memory of unfinished input.
    #[inline]
    fn ignore_input(&mut self, _shared: &mut Self::Shared) {}

    /// Ends the stream of a connection that is over, before it is removed.
    #[inline]
    fn finish(&mut self, _shared: &mut Self::Shared) {}

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
