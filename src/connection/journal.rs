//! What a turn has to send, encoded once: an append-only run of frames, of which every connection that is to have some
//! holds a range.
//!
//! It exists because most output is written in the turn that made it, by a socket with room. A reply, the replies to all
//! that one read brought, a publish to a thousand and the sixteen after it: each is one range, so neither a queue nor a
//! copy is made for it. What is left when the socket was full, or whose frames do not lie together, goes into a
//! [`Queue`]. When all that was touched is flushed, no range is left, and the journal begins anew.

use crate::connection::outbound::{COPIED_BYTES_MAX, Outbound, Range};
use crate::connection::queue::Queue;
use crate::connection::segment::Queued;
use crate::protocol::frame::server_frame_bytes;
use crate::protocol::shared::SharedFrame;

/// A turn's output is flushed before its end once it is this long, while it is still in the processor's cache.
const FLUSHED_AT_BYTES: usize = 64 << 10;

/// Nothing is appended beyond this: what one call of a handler pushes on top goes into queues. So the journal, like the
/// buffer that is read into, is a fixed cost: of what lies here, no connection has anything that counts as queued.
const BYTES_MAX: usize = 256 << 10;

// What is kept apart is a copy. `Limits::queue_total_bytes_max` names the sum.
const _: () = assert!(2 * BYTES_MAX == 512 << 10);

/// Nor more that has to be kept apart than this, which large frames alone never come to: with many small ones that have a
/// key, queues are no dearer.
const SEPARATE_MAX: usize = 1024;

const _: () = assert!(BYTES_MAX / COPIED_BYTES_MAX < SEPARATE_MAX);

/// The frames of this turn.
#[derive(Debug)]
pub struct Journal {
    /// Never grows. Of what it may hold, only what was ever used takes up memory.
    bytes: Vec<u8>,
    /// Those of the frames in `bytes` that are not copied into a queue, in order.
    separate: Vec<SeparateFrame>,
}

/// A frame that has a place of its own in a queue: stalled readers of a large one share it, and one with a key can be
/// replaced.
#[derive(Debug)]
struct SeparateFrame {
    start: u32,
    /// The bytes of all these frames before it.
    before: u32,
    frame: SharedFrame,
    key: Option<Box<str>>,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { bytes: Vec::with_capacity(BYTES_MAX), separate: Vec::new() }
    }
}

const _: () = assert!(BYTES_MAX < u32::MAX as usize);

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

    /// The range of a frame, or `before` made longer by it. The frame is appended unless it was for an earlier recipient.
    /// `None`: it belongs in a queue, for it does not lie behind `before`, or is not to lie here: there is no room, or it
    /// goes out alone.
    #[inline]
    pub fn put(&mut self, before: Option<Range>, outbound: &mut Outbound<'_>) -> Option<Range> {
        let place = match outbound.place {
            Some(place) if before.is_none_or(|before| before.end == place.start) => place,
            None if before.is_none_or(|before| before.end as usize == self.bytes.len()) => self.append(outbound)?,
            _ => return None,
        };
        Some(Range { start: before.map_or(place.start, |before| before.start), end: place.end })
    }

    #[inline]
    fn append(&mut self, outbound: &mut Outbound<'_>) -> Option<Range> {
        let (start, bytes) = (self.bytes.len(), outbound.bytes());
        if start + bytes > BYTES_MAX || (outbound.is_separate() && !self.add_separate(outbound)) {
            return None;
        }
        outbound.append_to(&mut self.bytes);
        outbound.place = Some(Range { start: start as u32, end: (start + bytes) as u32 });
        outbound.place
    }

    /// Keeps what a queue would want to have. `false`: it is not to lie here.
    fn add_separate(&mut self, outbound: &mut Outbound<'_>) -> bool {
        // What is so long goes out at once, to each of many, and needs no copy here.
        if outbound.bytes() > FLUSHED_AT_BYTES || self.separate.len() >= SEPARATE_MAX {
            return false;
        }
        let Some(frame) = outbound.share() else { return false };
        let (start, before) = (self.bytes.len() as u32, self.separate_bytes(u32::MAX));
        self.separate.push(SeparateFrame { start, before, frame, key: outbound.key.map(Into::into) });
        true
    }

    /// Appends the frames of a range to a queue, as though they had been pushed to it.
    pub fn move_to_queue(&self, range: Range, queue: &mut Queue, total: &mut Queued) {
        let mut rest = self.get(range);
        let before = self.separate.partition_point(|separate| separate.start < range.start);
        let mut separate = self.separate.iter().skip(before).peekable();
        while let Some((frame, behind)) = server_frame_bytes(rest).and_then(|bytes| rest.split_at_checked(bytes)) {
            let start = range.end - rest.len() as u32;
            match separate.next_if(|separate| separate.start == start) {
                Some(separate) => queue.push_separate(separate.frame.clone(), separate.key.as_deref(), total),
                None => queue.push_frame(frame, total),
            }
            rest = behind;
        }
        debug_assert!(rest.is_empty(), "a range ends with a frame");
    }

    /// The bytes of a range that [`move_to_queue`](Journal::move_to_queue) copies.
    pub fn copied_bytes(&self, range: Range) -> usize {
        range.len() - (self.separate_bytes(range.end) - self.separate_bytes(range.start)) as usize
    }

    /// The bytes of the frames kept apart that begin before `end`.
    fn separate_bytes(&self, end: u32) -> u32 {
        let count = self.separate.partition_point(|separate| separate.start < end);
        let last = count.checked_sub(1).and_then(|last| self.separate.get(last));
        last.map_or(0, |last| last.before + last.frame.as_bytes().len() as u32)
    }

    /// Begins anew. No connection may hold a range.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.separate.clear();
    }
}
