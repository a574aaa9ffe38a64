//! The frames that connections send in one turn, each encoded once in a shared buffer.
//!
//! Most output is written in the turn that created it, to a socket that is not full. The output of a connection is one
//! range of the journal: for instance a reply, all replies to one read, or several publishes. A thousand subscribers
//! can have the same range. So a connection whose output is a range needs neither a queue nor its own copy of the
//! frames.

use crate::connection::outbound::{COPIED_BYTES_MAX, DEFLATED_START, JournalPart, Outbound, Range};
use crate::connection::queue::Queue;
use crate::connection::segment::Queued;
use crate::protocol::frame::server_frame_bytes;
use crate::protocol::shared::SharedFrame;

/// The length of the journal, in bytes, at which it is flushed before the end of the turn.
///
/// A journal of this length still fits into the CPU cache. While a flush is unfinished, the limit for the next flush is
/// raised in steps of 64 KiB.
const FLUSHED_AT_BYTES: usize = 64 << 10;

/// The maximum size of each part of the journal, in bytes.
///
/// Frames that do not fit go to queues. The journal is a fixed cost, like the read buffer, and does not count as queued
/// bytes.
const BYTES_MAX: usize = 256 << 10;

// The doc of `Limits::queue_total_bytes_max` states 512 KiB, or 1 MiB with compression. Each part of the journal takes
// at most 256 KiB for its bytes, and at most another 256 KiB for copies of its `SeparateFrame`s. Without compression,
// only one part is used.
const _: () = assert!(2 * BYTES_MAX == 512 << 10);

/// The maximum number of [`SeparateFrame`]s in each part of the journal.
///
/// Large frames fill a part of the journal before their number reaches this maximum. Only small frames with a
/// conflation key can reach it. Further frames with a key then go to queues.
const SEPARATE_MAX: usize = 1024;

const _: () = assert!(BYTES_MAX / COPIED_BYTES_MAX < SEPARATE_MAX);

/// The frames that the connections of a loop send in one turn.
///
/// A message to many connections is in the journal once. Each recipient has a [`Range`] in place of a queue. So a push
/// neither copies nor allocates for a recipient whose socket accepts the message in this turn.
///
/// Only [`Output`](crate::connection::output::Output) uses the journal, in this order:
///
/// 1. [`put`](Journal::put) appends a frame for its first recipient, and returns the range of the frame. For the next
///    recipients of the same [`Outbound`], `put` returns the same range. If a recipient has a range already, and the
///    frame directly follows this range, the range is extended. Otherwise the frame goes to a [`Queue`].
/// 2. [`get`](Journal::get) returns the bytes of a range, for the write.
/// 3. [`move_to_queue`](Journal::move_to_queue) copies a range that the socket did not accept to a queue.
/// 4. [`clear`](Journal::clear) removes all frames at the end of the turn. After this call no range is valid, so all
///    output of the turn must be written or moved to queues before.
///
/// One range for each connection is nearly always enough, because frames are pushed in order, and most connections that
/// receive a frame in a turn receive the same frames.
///
/// The journal has two parts: one for connections that negotiated permessage-deflate, and one for all other
/// connections. The range of a connection is in one of the two parts. So the frames of a connection are adjacent in the
/// journal, even if other connections get the same messages in another encoding.
#[derive(Debug)]
pub struct Journal {
    plain: Part,
    /// The frames for connections that negotiated permessage-deflate.
    deflated: Part,
    /// The length of the journal, in bytes, at which it is flushed before the end of the turn.
    flushed_at: usize,
}

/// One part of the journal: the frames of a turn in one encoding.
#[derive(Debug)]
struct Part {
    /// The position in the journal of the first byte of this part.
    ///
    /// The ranges of the two parts never overlap.
    start: u32,
    /// The frames of the turn, followed by unused bytes. The length of the slice is 0 or [`BYTES_MAX`].
    ///
    /// The slice is allocated zeroed, so the kernel provides memory only for bytes that were ever used.
    bytes: Box<[u8]>,
    /// The total length of the frames, in bytes.
    len: usize,
    /// The frames in `bytes` that are not copied together with others when they are moved to a queue.
    ///
    /// The frames in this list have the same order as in `bytes`.
    separate: Vec<SeparateFrame>,
}

/// A frame that is not copied together with others when it is moved to the queue of a connection.
///
/// This is a large frame, which the queues share, or a frame with a key, which a later frame can replace.
#[derive(Debug)]
struct SeparateFrame {
    start: u32,
    /// The total length of all earlier `SeparateFrame`s, in bytes.
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
    /// Returns the bytes of the frames in a range.
    #[inline]
    pub fn get(&self, range: Range) -> &[u8] {
        // The positions of the deflated part are larger than all positions of the plain part.
        match self.plain.bytes.get(range.start as usize..range.end as usize) {
            Some(bytes) => bytes,
            None => self.deflated.get(range),
        }
    }

    /// Returns whether the journal should be flushed before the end of the turn.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.plain.len + self.deflated.len >= self.flushed_at
    }

    /// Adds [`FLUSHED_AT_BYTES`] to the length at which the journal is flushed. Returns `false` if the journal is close
    /// to its maximum size.
    pub fn postpone_flush(&mut self) -> bool {
        let may_grow = self.flushed_at + 2 * FLUSHED_AT_BYTES <= BYTES_MAX;
        if may_grow {
            self.flushed_at += FLUSHED_AT_BYTES;
        }
        may_grow
    }

    /// Returns the range of a frame. If `before` is a range, the returned range is `before` extended by the frame.
    ///
    /// The first call for a frame appends the frame. Returns `None` if the frame must go to a queue, because it does
    /// not directly follow `before`, or because the journal does not accept it.
    // This function is always inlined, for the reason given at `Output::push`.
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
    /// Afterwards, the queue is the same as if each frame had been pushed to it.
    pub fn move_to_queue(&self, range: Range, queue: &mut Queue, total: &mut Queued) {
        self.part(range).move_to_queue(range, queue, total);
    }

    /// Returns the number of bytes of a range that [`move_to_queue`](Journal::move_to_queue) copies.
    pub fn copied_bytes(&self, range: Range) -> usize {
        self.part(range).copied_bytes(range)
    }

    fn part(&self, range: Range) -> &Part {
        match range.part() {
            JournalPart::Plain => &self.plain,
            JournalPart::Deflated => &self.deflated,
        }
    }

    /// Removes all frames. No connection may have a range of the journal at this time.
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

    /// Returns the position after the last frame.
    #[inline]
    fn end(&self) -> u32 {
        self.start + self.len as u32
    }

    #[inline(never)]
    fn get(&self, range: Range) -> &[u8] {
        let at = |position: u32| position.wrapping_sub(self.start) as usize;
        self.bytes.get(at(range.start)..at(range.end)).unwrap_or_default()
    }

    // This function is always inlined, for the reason given at `Output::push`.
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

    /// Prepares this part of the journal for a [`SeparateFrame`], or for the first frame of the part. Returns `None` if
    /// the journal does not accept the frame.
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

    /// Stores a [`SeparateFrame`]. Returns `false` if the journal does not accept the frame.
    fn add_separate(&mut self, outbound: &mut Outbound<'_>) -> bool {
        // A separate frame over 64 KiB goes to queues, which share the frame, and not to the journal.
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
        debug_assert!(rest.is_empty(), "a range must end at the end of a frame");
    }

    fn copied_bytes(&self, range: Range) -> usize {
        range.len() - (self.separate_bytes(range.end) - self.separate_bytes(range.start)) as usize
    }

    /// Returns the total length of the [`SeparateFrame`]s that start before `end`.
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
