//! Counters of permessage-deflate.

use crate::protocol::frame::server_payload;
use crate::protocol::inflation::InflatedCounts;

/// Counters of permessage-deflate since the server started.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Compression {
    /// WebSockets that negotiated permessage-deflate.
    pub connections: u64,
    /// Deflated messages received. [`Traffic::messages_in`](crate::Traffic::messages_in) includes them.
    pub messages_in: u64,
    /// Payload bytes of received deflated messages, before inflation.
    pub bytes_in_deflated: u64,
    /// Payload bytes of received deflated messages, after inflation.
    pub bytes_in: u64,
    /// Received deflated messages that were invalid or inflated to more than `message_bytes_max`.
    pub failures: u64,
    /// The number of times that `inflated_bytes_per_second_max` delayed the input of a client.
    pub holds: u64,
    /// Deflated messages queued, counted per receiver. [`Traffic::messages_out`](crate::Traffic::messages_out) includes
    /// them.
    pub messages_out: u64,
    /// Messages that were deflated, counted once for all receivers.
    pub deflated: u64,
    /// Payload bytes of the messages in `deflated`, before deflation.
    pub bytes_out: u64,
    /// Payload bytes of the messages in `deflated`, after deflation.
    pub bytes_out_deflated: u64,
}

impl std::ops::AddAssign for Compression {
    fn add_assign(&mut self, other: Compression) {
        self.connections += other.connections;
        self.messages_in += other.messages_in;
        self.bytes_in_deflated += other.bytes_in_deflated;
        self.bytes_in += other.bytes_in;
        self.failures += other.failures;
        self.holds += other.holds;
        self.messages_out += other.messages_out;
        self.deflated += other.deflated;
        self.bytes_out += other.bytes_out;
        self.bytes_out_deflated += other.bytes_out_deflated;
    }
}

impl Compression {
    pub(super) fn add(&mut self, counts: InflatedCounts) {
        self.messages_in += counts.messages;
        self.bytes_in_deflated += counts.deflated_bytes;
        self.bytes_in += counts.inflated_bytes;
        self.failures += counts.failures;
    }

    /// Counts a message that was deflated to `frame`.
    pub(super) fn count_deflated(&mut self, payload: &[u8], frame: &[u8]) {
        self.deflated += 1;
        self.bytes_out += payload.len() as u64;
        self.bytes_out_deflated += server_payload(frame).len() as u64;
    }
}
