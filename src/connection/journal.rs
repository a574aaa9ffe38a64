//! The frames of a turn, encoded once in a shared buffer.
//!
//! Most output is written in the turn that created it, to a socket that is not full. For each connection, its output is
//! one range of the journal: a reply, all replies to one read, or several publishes to a thousand subscribers. So no
//! connection needs a queue or a copy.

use crate::connection::outbound::{COPIED_BYTES_MAX, DEFLATED_START, JournalPart, Outbound, Range};
use crate::connection::queue::Queue;
use crate::connection::segment::Queued;
use crate::protocol::frame::server_frame_bytes;
use crate::protocol::shared::SharedFrame;

/// The length of the journal at which it is flushed before the end of the turn.
///
/// The bytes are still in the CPU cache then. While a push to very many is unfinished, the length grows in steps of this size.
const FLUSHED_AT_BYTES: usize = 64 << 10;

/// The maximum size of the journal.
///
/// Frames beyond it go to queues. The journal is a fixed cost, like the read buffer, and does not count as queued
/// bytes.
const BYTES_MAX: usize = 256 << 10;

// Separate frames are copies. The documentation of `Limits::queue_total_bytes_max` gives the sum, of one part and of both.
const _: () = assert!(2 * BYTES_MAX == 512 << 10);

/// The maximum number of separate frames.
///
/// The journal reaches its maximum size before it contains as many large frames. More small frames with a key go to
/// queues, which costs no more.
const SEPARATE_MAX: usize = 1024;

const _: () = assert!(BYTES_MAX / COPIED_BYTES_MAX < SEPARATE_MAX);

/// The frames of this turn.
///
/// A message to many is in the journal once. Each of its recipients has a range of a few bytes in place of a queue, so a push
/// neither copies nor allocates for a recipient whose socket takes the message in this turn.
///
/// Only [`Output`](crate::connection::output::Output) uses it. In this order:
///
/// 1. [`put`](Journal::put) appends a frame for its first recipient and returns its range. For the next recipients of
///    the same [`Outbound`] it returns the same range. A recipient that has a range extends it, if the frame directly
///    follows it. Otherwise the frame goes to a [`Queue`].
/// 2. [`get`](Journal::get) returns the bytes of a range, to write them.
/// 3. [`move_to_queue`](Journal::move_to_queue) copies a range that the socket did not accept to a queue.
/// 4. [`clear`](Journal::clear) ends the turn. After the call no range is valid, so all output of the turn must be
///    written or moved before.
///
/// One range for each connection is enough because frames are pushed in order, and most connections of a turn receive
/// the same frames.
///
/// It has two parts, one for the connections that negotiated permessage-deflate and one for the others. A connection has a
/// range in one of them. So its messages of a turn are adjacent, also if others get the same messages in another encoding.
#[derive(Debug)]
pub struct Journal {
    plain: Part,
    /// For connections that negotiated permessage-deflate.
    deflated: Part,
    /// The length at which it is flushed before the end of the turn.
    flushed_at: usize,
}

/// The frames of a turn for connections of one kind.
#[derive(Debug)]
struct Part {
    /// The position of the first byte.
    ///
    /// The ranges of the two parts never overlap.
    start: u32,
    /// The frames, then unused bytes. Its length is 0 or [`BYTES_MAX`].
    ///
    /// It is allocated zeroed, so the kernel provides memory only for the part that was ever used.
    bytes: Box<[u8]>,
    /// The length of the frames.
    len: usize,
    /// The frames in `bytes` that become segments of their own.
    ///
    /// They are in the order of `bytes`.
    separate: Vec<SeparateFrame>,
}

/// A frame that becomes a segment of its own in a queue.
///
/// Queues share a large frame. A frame with a key can be replaced.
#[derive(Debug)]
struct SeparateFrame {
    start: u32,
    /// The bytes of all separate frames before it.
    before: u32,
    frame: SharedFrame,
    key: Option<Box<str>>,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal {
            plain: Part { bytes: allocate(), ..Part::new(0) },
            deflated: Part::new(DEFLATED_START),
            flushed_at: FLUSHED_AT_BYTES,
        }
    }
}

const _: () = assert!(BYTES_MAX < DEFLATED_START as usize && BYTES_MAX < (u32::MAX - DEFLATED_START) as usize);

impl Journal {
    /// Returns the bytes of a range.
    #[inline]
    pub fn get(&self, range: Range) -> &[u8] {
        // The positions of deflated frames are beyond the plain part.
        match self.plain.bytes.get(range.start as usize..range.end as usize) {
            Some(bytes) => bytes,
            None => self.deflated.get(range),
        }
    }

    /// Returns whether the turn should be flushed early.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.plain.len + self.deflated.len >= self.flushed_at
    }

    /// Lets the journal grow by another step before it is flushed early. `false`: it is close to its maximum size.
    pub fn postpone_flush(&mut self) -> bool {
        let may_grow = self.flushed_at + 2 * FLUSHED_AT_BYTES <= BYTES_MAX;
        if may_grow {
            self.flushed_at += FLUSHED_AT_BYTES;
        }
        may_grow
    }

    /// Returns the range of a frame, or `before` extended by the frame.
    ///
    /// The frame is appended unless an earlier recipient did so. `None`: the frame goes to a queue, because it does not
    /// follow `before`, or because the journal does not accept it.
    // Always inlined, as `Output::push`.
    #[inline(always)]
    pub fn put(&mut self, before: Option<Range>, outbound: &mut Outbound<'_>) -> Option<Range> {
        let place = match outbound.place {
            Some(place) if before.is_none_or(|before| before.end == place.start) => place,
            Some(_) => return None,
            None => {
                let part = match outbound.part {
                    JournalPart::Plain => &mut self.plain,
                    JournalPart::Deflated => &mut self.deflated,
                };
                if before.is_some_and(|before| before.end != part.end()) {
                    return None;
                }
                part.append(outbound)?
            }
        };
        Some(Range { start: before.map_or(place.start, |before| before.start), end: place.end })
    }

    /// Appends the frames of a range to a queue.
    ///
    /// The result is the same as if they had been pushed to the queue.
    pub fn move_to_queue(&self, range: Range, queue: &mut Queue, total: &mut Queued) {
        self.part(range).move_to_queue(range, queue, total);
    }

    /// Returns the bytes of a range that [`move_to_queue`](Journal::move_to_queue) copies.
    pub fn copied_bytes(&self, range: Range) -> usize {
        self.part(range).copied_bytes(range)
    }

    fn part(&self, range: Range) -> &Part {
        match range.part() {
            JournalPart::Plain => &self.plain,
            JournalPart::Deflated => &self.deflated,
        }
    }

    /// Removes all frames. No connection may have a range of it.
    pub fn clear(&mut self) {
        self.flushed_at = FLUSHED_AT_BYTES;
        self.plain.clear();
        self.deflated.clear();
    }
}

impl Part {
    fn new(start: u32) -> Part {
        Part { start, bytes: Box::default(), len: 0, separate: Vec::new() }
    }

    /// Returns the position behind the last frame.
    #[inline]
    fn end(&self) -> u32 {
        self.start + self.len as u32
    }

    #[inline(never)]
    fn get(&self, range: Range) -> &[u8] {
        let at = |position: u32| position.wrapping_sub(self.start) as usize;
        self.bytes.get(at(range.start)..at(range.end)).unwrap_or_default()
    }

    // Always inlined, as `Output::push`.
    #[inline(always)]
    fn append(&mut self, outbound: &mut Outbound<'_>) -> Option<Range> {
        let start = self.end();
        let until = self.len + outbound.bytes();
        if until > self.bytes.len() || outbound.is_separate() {
            self.prepare(outbound)?;
        }
        outbound.write_to(self.bytes.get_mut(self.len..until)?);
        self.len = until;
        outbound.place = Some(Range { start, end: self.end() });
        outbound.place
    }

    /// Prepares for a frame that is separate, or the first. `None`: the journal does not accept it.
    #[inline(never)]
    fn prepare(&mut self, outbound: &mut Outbound<'_>) -> Option<()> {
        if self.len + outbound.bytes() > BYTES_MAX || (outbound.is_separate() && !self.add_separate(outbound)) {
            return None;
        }
        if self.bytes.is_empty() {
            self.bytes = allocate();
        }
        Some(())
    }

    /// Stores a separate frame. `false`: the journal does not accept it.
    fn add_separate(&mut self, outbound: &mut Outbound<'_>) -> bool {
        // Frames over 64 KiB are written directly and are not stored in the journal.
        if outbound.bytes() > FLUSHED_AT_BYTES || self.separate.len() >= SEPARATE_MAX {
            return false;
        }
        let Some(frame) = outbound.share() else { return false };
        let (start, before) = (self.end(), self.separate_bytes(u32::MAX));
        self.separate.push(SeparateFrame { start, before, frame, key: outbound.key.map(Into::into) });
        true
    }

    fn move_to_queue(&self, range: Range, queue: &mut Queue, total: &mut Queued) {
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
        debug_assert!(rest.is_empty(), "a range ends at the end of a frame");
    }

    fn copied_bytes(&self, range: Range) -> usize {
        range.len() - (self.separate_bytes(range.end) - self.separate_bytes(range.start)) as usize
    }

    /// Returns the bytes of the separate frames that start before `end`.
    fn separate_bytes(&self, end: u32) -> u32 {
        let count = self.separate.partition_point(|separate| separate.start < end);
        let last = count.checked_sub(1).and_then(|last| self.separate.get(last));
        last.map_or(0, |last| last.before + last.frame.as_bytes().len() as u32)
    }

    fn clear(&mut self) {
        self.len = 0;
        self.separate.clear();
    }
}

fn allocate() -> Box<[u8]> {
    vec![0; BYTES_MAX].into_boxed_slice()
}
