//! What all connections of a loop count together. Plain numbers, raised where the thing happens.

use crate::connection::event::Traffic;
use crate::histogram::Histogram;

/// The counts, since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Bytes and messages, both ways.
    pub traffic: Traffic,
    /// Pings of heartbeats.
    pub pings: u64,
    /// Heartbeats that nothing answered in time.
    pub missed: u64,
    /// Messages that a full queue took in place of an unsent older one.
    pub conflated: u64,
    /// Messages, and responses, that a full queue did not take.
    pub dropped: u64,
    /// Those of them whose reader was closed for it.
    pub dropped_by_close: u64,
    /// Messages longer than any queue may be.
    pub too_large: u64,
    /// System calls that read and that wrote.
    pub reads: u64,
    pub writes: u64,
    /// Times a connection's whole output went out in the turn that made it, since the last turn's end.
    pub sent: u64,
    /// How long output waited until a connection's last byte of it was taken by the socket.
    pub waits: Histogram,
}
