//! The counters of all connections of a loop.

use crate::connection::compression::Compression;
use crate::connection::event::Traffic;
use crate::histogram::Histogram;

/// Counters of the events since the loop started, for all connections of the loop.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The numbers of received and sent bytes and messages.
    pub traffic: Traffic,
    /// The counters of deflated messages, in both directions.
    pub compression: Compression,
    /// Pings that heartbeats sent.
    pub pings: u64,
    /// Heartbeats that were not answered in time.
    pub missed: u64,
    /// Pushed messages that replaced an unsent message in a full queue.
    pub conflated: u64,
    /// Messages and HTTP responses that were dropped because a queue was full.
    pub dropped: u64,
    /// The messages counted in `dropped` whose receiver was closed as a slow consumer.
    pub dropped_by_close: u64,
    /// Messages that were not queued because they are longer than `queue_bytes_max`, counted once per receiver.
    pub too_large: u64,
    /// System calls that read from a socket.
    pub reads: u64,
    /// System calls that write to a socket.
    pub writes: u64,
    /// The number of times that the whole output of a connection was written in the turn in which it was queued.
    ///
    /// The loop resets this count at the end of each turn.
    pub sent: u64,
    /// A histogram of the time that output waited until the socket accepted its last byte.
    pub waits: Histogram,
}
