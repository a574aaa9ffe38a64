//! Counts of all connections of a loop.

use crate::connection::compression::Compression;
use crate::connection::event::Traffic;
use crate::histogram::Histogram;

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Bytes and messages, in both directions.
    pub traffic: Traffic,
    /// Deflated messages, in both directions.
    pub compression: Compression,
    /// Pings of heartbeats.
    pub pings: u64,
    /// Heartbeats that were not answered in time.
    pub missed: u64,
    /// Messages that replaced an unsent older one in a full queue.
    pub conflated: u64,
    /// Messages and responses that were dropped because a queue was full.
    pub dropped: u64,
    /// Dropped messages whose connection was closed as a slow consumer.
    pub dropped_by_close: u64,
    /// Messages longer than `queue_bytes_max`.
    pub too_large: u64,
    /// Read and write system calls.
    pub reads: u64,
    pub writes: u64,
    /// The number of outputs that were written in the turn that created them.
    ///
    /// The count is reset at the end of a turn.
    pub sent: u64,
    /// The time that output waited, until the socket accepted its last byte.
    pub waits: Histogram,
}
