//! The segments of a queue, and the counted memory of a segment.

use std::sync::Arc;

use crate::protocol::shared::{FRAME_BYTES, SharedFrame};

/// The memory of a segment with a shared frame, in bytes, without the frame.
///
/// Segments are elements of an array that grows by doubling. After it has grown, the array is between half full and
/// full. So the array takes about 3/2 of the size of its segments.
pub const SEGMENT_BYTES: usize = size_of::<Segment>() * 3 / 2;

/// The memory of a conflation key, in bytes, without the text of the key.
///
/// This is the memory of the reference counts, and of an entry of a hash map that is at least 7/16 full.
pub const KEY_BYTES: usize = 88;

#[derive(Debug)]
pub struct Segment {
    pub bytes: Bytes,
    /// The conflation key. The field `keys` of the queue contains this key, too.
    pub key: Option<Arc<str>>,
    pub kind: Kind,
}

/// The kind of content in a segment.
///
/// All content of a segment has the same kind.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Frames,
    Http,
    /// One pong. The payload of a newer pong may replace the payload of this pong.
    Pong,
}

#[derive(Debug)]
pub enum Bytes {
    /// Copied frames, or copied HTTP responses.
    Run(Vec<u8>),
    Shared(SharedFrame),
}

/// The memory of all queues of a loop, in bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Queued {
    /// The memory of the queues of WebSockets. A frame that several queues share is counted once.
    pub frames: usize,
    /// The memory of queued HTTP responses.
    ///
    /// HTTP responses count against a separate bound, and not against the bound of WebSocket queues. So a client that
    /// requests pages and does not read them cannot use up the memory for WebSocket queues.
    pub http: usize,
}

/// Returns the memory that a shared frame takes in a queue in addition to its bytes.
///
/// `key` is the length of the frame's conflation key, in bytes.
pub fn overhead(key: Option<usize>) -> usize {
    SEGMENT_BYTES + FRAME_BYTES + key.map_or(0, |bytes| KEY_BYTES + bytes)
}

impl Bytes {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Run(run) => run,
            Bytes::Shared(frame) => frame.as_bytes(),
        }
    }
}

impl Segment {
    /// Returns the number of bytes that count against `queue_bytes_max` in addition to the content of the segment.
    pub fn overhead(&self) -> usize {
        match &self.bytes {
            Bytes::Run(_) => 0,
            Bytes::Shared(_) => overhead(self.key.as_ref().map(|key| key.len())),
        }
    }

    /// Returns the counted memory of the segment. The counted memory of a queue is the sum over its segments.
    pub fn charge(&self) -> usize {
        match &self.bytes {
            Bytes::Run(_) if self.kind == Kind::Http => 0,
            Bytes::Run(run) => run.len(),
            Bytes::Shared(frame) => frame.charge() + self.overhead() - FRAME_BYTES,
        }
    }

    /// Adds the memory of a shared frame and its key to the total.
    pub fn enter(&self, total: &mut Queued) {
        if let Bytes::Shared(frame) = &self.bytes {
            total.frames += frame.enter_queue() + self.overhead() - FRAME_BYTES;
        }
    }

    /// Subtracts the memory of the segment from the total. The caller then removes the segment from its queue.
    pub fn release(&self, total: &mut Queued) {
        match &self.bytes {
            Bytes::Run(run) if self.kind == Kind::Http => total.http -= run.len(),
            Bytes::Run(run) => total.frames -= run.len(),
            Bytes::Shared(frame) => total.frames -= frame.leave_queue() + self.overhead() - FRAME_BYTES,
        }
    }
}
