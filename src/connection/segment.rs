//! The parts of a queue, and the memory that each counts.

use std::sync::Arc;

use crate::protocol::shared::{FRAME_BYTES, SharedFrame};

/// The memory of a segment that is not copied bytes. Segments lie in an array that grows by doubling and is half full at
/// least.
pub const SEGMENT_BYTES: usize = size_of::<Segment>() * 3 / 2;

/// The memory of a conflation key besides its bytes: its counts, and its place in a map that is 7/16 full at least.
pub const KEY_BYTES: usize = 88;

#[derive(Debug)]
pub struct Segment {
    pub bytes: Bytes,
    /// Under which the segment stands in `keys`.
    pub key: Option<Arc<str>>,
    pub kind: Kind,
}

/// What is in a segment, and may be appended to it if it is a run.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Frames,
    Http,
    /// One pong, whose payload may be replaced, and nothing else.
    Pong,
}

#[derive(Debug)]
pub enum Bytes {
    /// Frames, or HTTP responses, copied one behind the other.
    Run(Vec<u8>),
    Shared(SharedFrame),
}

/// Bytes in all queues of a loop.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Queued {
    /// Of WebSockets: all memory of their queues, a shared frame counted once.
    pub frames: usize,
    /// Of HTTP, which must not use up what WebSockets may have: anybody can ask for a page and not read it.
    pub http: usize,
}

/// The memory of a frame of its own besides its bytes, with a key of so many.
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
    /// Bytes that count towards its queue's bound besides its own.
    pub fn overhead(&self) -> usize {
        match &self.bytes {
            Bytes::Run(_) => 0,
            Bytes::Shared(_) => overhead(self.key.as_ref().map(|key| key.len())),
        }
    }

    /// Memory that its queue is charged for it.
    pub fn charge(&self) -> usize {
        match &self.bytes {
            Bytes::Run(_) if self.kind == Kind::Http => 0,
            Bytes::Run(run) => run.len(),
            Bytes::Shared(frame) => frame.charge() + self.overhead() - FRAME_BYTES,
        }
    }

    /// A shared frame comes into a queue, with its key.
    pub fn enter(&self, total: &mut Queued) {
        if let Bytes::Shared(frame) = &self.bytes {
            total.frames += frame.enter_queue() + self.overhead() - FRAME_BYTES;
        }
    }

    /// It leaves its queue, and gives its memory back.
    pub fn release(&self, total: &mut Queued) {
        match &self.bytes {
            Bytes::Run(run) if self.kind == Kind::Http => total.http -= run.len(),
            Bytes::Run(run) => total.frames -= run.len(),
            Bytes::Shared(frame) => total.frames -= frame.leave_queue() + self.overhead() - FRAME_BYTES,
        }
    }
}
