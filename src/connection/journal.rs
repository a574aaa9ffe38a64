//! What a turn has to send, encoded once: an append-only run of frames, of which every connection that is to have some
//! holds a range.
//!
//! It exists because most output is written in the turn that made it, by a socket with room. A reply, the replies to all
//! that one read brought, a publish to a thousand and the sixteen after it: each is one range, so neither a queue nor a
//! copy is made for it. What is left when the socket was full, or whose frames do not lie together, goes into a
//! [`Queue`](super::queue::Queue). When all that was touched is flushed, no range is left, and the journal begins anew.

use crate::connection::queue::{COPIED_BYTES_MAX, Outbound, RUN_BYTES_MAX};

/// A turn's output is flushed before its end once it is this long, while it is still in the processor's cache.
const FLUSHED_AT_BYTES: usize = 64 << 10;

/// Nothing is appended beyond this: what one call of a handler pushes on top goes into queues. So the journal, like the
/// buffer that is read into, is a fixed cost; what counts as queued is each connection's range, for it may come to a copy.
const BYTES_MAX: usize = 256 << 10;

/// The frames of this turn.
#[derive(Debug)]
pub struct Journal {
    /// Never grows. Of what it may hold, only what was ever used takes up memory.
    bytes: Vec<u8>,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { bytes: Vec::with_capacity(BYTES_MAX) }
    }
}

/// Where in the journal a connection's output lies. Never empty.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Range {
    start: u32,
    end: u32,
}

const _: () = assert!(BYTES_MAX < u32::MAX as usize);

impl Range {
    /// Its length.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

impl Journal {
    /// The bytes of a range.
    #[inline]
    pub fn get(&self, range: Range) -> &[u8] {
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Whether it is time to flush.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.bytes.len() >= FLUSHED_AT_BYTES
    }

    /// The range of a frame, which is appended unless it was for an earlier recipient. `None`: it belongs in a queue.
    #[inline]
    pub fn put(&mut self, outbound: &mut Outbound<'_>) -> Option<Range> {
        if outbound.place.is_some() {
            return outbound.place;
        }
        let bytes = outbound.bytes();
        // A large frame to many is shared by queues: stalled readers would each be left with a copy of their own.
        let is_shared = outbound.to_many && bytes > COPIED_BYTES_MAX;
        if is_shared || outbound.key.is_some() || self.bytes.len() + bytes > BYTES_MAX {
            return None;
        }
        let start = self.bytes.len() as u32;
        outbound.append_to(&mut self.bytes);
        outbound.place = Some(Range { start, end: start + bytes as u32 });
        outbound.place
    }

    /// Makes `range` longer by a frame, if that lies behind it or can be put there.
    #[inline]
    pub fn extend(&mut self, range: &mut Range, outbound: &mut Outbound<'_>) -> bool {
        let is_next = outbound.place.is_some() || range.end as usize == self.bytes.len();
        // What a socket leaves of a range becomes a run of a queue, and may be no longer than one.
        if !is_next || range.len() + outbound.bytes() > RUN_BYTES_MAX {
            return false;
        }
        let next = self.put(outbound).filter(|next| next.start == range.end);
        if let Some(next) = next {
            range.end = next.end;
        }
        next.is_some()
    }

    /// Begins anew. No connection may hold a range.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}
