//! Counts of permessage-deflate.

use crate::protocol::frame::server_payload;
use crate::protocol::inflation::InflatedCounts;

/// Counts of permessage-deflate since the start.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Compression {
    /// WebSockets that negotiated permessage-deflate.
    pub connections: u64,
    /// Messages received deflated, a part of `messages_in`.
    pub messages_in: u64,
    /// Payload bytes of received deflated messages, as received.
    pub bytes_in_deflated: u64,
    /// The bytes that these were inflated to.
    pub bytes_in: u64,
    /// Received messages that could not be inflated, or inflated to more than `message_bytes_max`.
    pub failures: u64,
    /// Times that a client had to wait because its messages inflated to too much.
    pub holds: u64,
    /// Messages queued deflated, once a receiver; a part of `messages_out`.
    pub messages_out: u64,
    /// Messages that were deflated, once for all receivers.
    pub deflated: u64,
    /// Payload bytes of these messages.
    pub bytes_out: u64,
    /// The bytes that these were deflated to.
    pub bytes_out_deflated: u64,
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
