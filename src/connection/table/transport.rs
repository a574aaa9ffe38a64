//! The byte stream below a connection: a socket in the server, a model of one in tests.

use std::io::IoSlice;

use crate::connection::Connection;
use crate::connection::event::{Event, Sent};

/// The result of a call on a [`Transport`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Io {
    /// So many bytes were read or written. A read of 0 bytes is the end of the peer's stream.
    Done(usize),
    /// Nothing can be read or written now.
    WouldBlock,
    /// The transport is broken.
    Closed,
}

/// A non-blocking byte stream.
///
/// No call blocks, and none returns an error of the operating system: a transport that fails is [`Io::Closed`] from then on.
pub trait Transport {
    /// Reads once into `buffer`.
    fn read(&mut self, buffer: &mut [u8]) -> Io;

    /// Writes once from `slices`, of which there is at least one.
    ///
    /// [`Io::Done`] with fewer bytes than were offered means, as [`Io::WouldBlock`] does, that the transport is full. Nothing
    /// more is written until [`Table::handle_writable`](super::Table::handle_writable).
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Io;

    /// Tells the peer that no more bytes follow. Reading goes on.
    fn shutdown(&mut self);

    /// Hears of a change that the table made to the connection on its own, right after it.
    ///
    /// The simulator and the fuzzer compare each change with a model. A socket does nothing, which costs nothing.
    #[inline]
    fn observe(&mut self, _connection: &Connection, _change: Observed<'_>) {}
}

/// A change that a table makes to a connection on its own.
#[derive(Copy, Clone, Debug)]
#[cfg_attr(not(any(test, feature = "unstable")), expect(dead_code, reason = "only models read it"))]
pub enum Observed<'a> {
    /// The transport took `written` bytes, and is full if `is_full`.
    Wrote {
        /// Bytes that were written.
        written: usize,
        /// Whether more bytes were offered.
        is_full: bool,
    },
    /// A message was offered to the queue.
    Sent(Sent),
    /// A ping was offered to the queue.
    Pinged(Sent),
    /// A message was offered to the queue in place of the unsent one with its key.
    Conflated {
        /// Whether there was one.
        is_done: bool,
    },
    /// Its output was moved from the journal to a queue.
    MovedToQueue,
    /// Its newest messages were dropped, to make room for others.
    Dropped {
        /// Number of messages.
        messages: usize,
        /// Bytes that the connection was charged before.
        charge: usize,
        /// Bytes that each connection may keep.
        bytes_min: usize,
    },
    /// It was closed as a slow consumer.
    ClosedSlow {
        /// Bytes that it may keep for its close frame.
        kept_max: usize,
        /// Bytes that the connection was charged before, if it is closed to make room for others.
        charge: Option<usize>,
        /// The end of a WebSocket that was open.
        event: Option<&'a Event<'static>>,
    },
    /// It was ended in the middle of an HTTP response, because there is no room for the rest.
    ResponseDropped,
}
