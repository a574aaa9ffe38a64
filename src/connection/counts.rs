//! The counters of all connections of a loop.

use crate::connection::compression::Compression;
use crate::connection::event::Traffic;
use crate::histogram::Histogram;

/// Counters since the loop started.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The numbers of bytes and messages, in both directions.
    pub traffic: Traffic,
    /// The counters of deflated messages, in both directions.
    pub compression: Compression,
    /// Pings that heartbeats sent.
    pub pings: u64,
    /// Heartbeats that were not answered in time.
    pub missed: u64,
    /// Messages that replaced an unsent message in a full queue.
    pub conflated: u64,
    /// Messages and responses that were dropped because a queue was full.
    pub dropped: u64,
    /// Dropped messages whose connection was closed as a slow consumer.
    pub dropped_by_close: u64,
    /// Messages longer than `queue_bytes_max`.
    pub too_large: u64,
    /// System calls that read from a socket.
    pub reads: u64,
    /// System calls that write to a socket.
    pub writes: u64,
    /// The number of times that the whole output of a connection was written in the turn that pushed it.
    ///
    /// The count is reset at the end of a turn.
    pub sent: u64,
    /// A histogram of the time that output waited until the socket accepted its last byte.
    pub waits: Histogram,
}
