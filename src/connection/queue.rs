//! A connection's output: frames in order, each copied or shared, leaving in as few system calls as can be.
//!
//! A queue exists only while there is something in it. Small frames are copied into one run of bytes, so that what a
//! turn has for a connection leaves as one slice; large ones, and for a stalled reader all that are longer than what it
//! takes to share them, are shared between the queues they are in.
//!
//! The count is the memory of the queue, not only the bytes to be written: a place for each segment of its
//! own, its key and its frame, and the queue itself. A test holds it against the allocator.

mod newest;

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use crate::connection::outbound::Outbound;
use crate::connection::segment::{Bytes, Kind, Queued, Segment};
use crate::limits::Limits;
use crate::protocol::frame::{Opcode, server_frame_bytes};
use crate::protocol::shared::SharedFrame;
use crate::tick::Tick;

/// A run of copied frames is closed when it has grown to this, so that a long queue gives memory back as it drains.
pub(super) const RUN_BYTES_MAX: usize = 32 << 10;

/// A frame that is shorter than what a segment of its own would take up is copied even for a reader that is stalled.
pub(super) const SHARED_BYTES_MIN: usize = 2 * size_of::<Segment>();

/// The largest buffer that an empty queue keeps for its next use.
const SPARE_BYTES_MAX: usize = 4 << 10;

/// An empty queue is kept for its next use if it has room for no more segments than this, and for as many keys.
const SPARE_SEGMENTS_MAX: usize = 64;

/// The memory of a queue besides its segments.
pub const QUEUE_BYTES: usize = size_of::<Queue>() + 4 * size_of::<Segment>();

/// Pongs are queued one for each ping while no more output than this waits; over it only the latest is kept
/// (RFC 6455 section 5.5.3).
pub(super) const PONG_QUEUE_BYTES_MAX: usize = 16 << 10;

/// Bytes waiting to be written.
#[derive(Debug, Default)]
pub struct Queue {
    segments: VecDeque<Segment>,
    /// How much of the first segment is written. Less than its length.
    sent: usize,
    /// Unwritten bytes in all segments.
    bytes: usize,
    /// The memory of shared frames besides their bytes, and of keys.
    overhead: usize,
    /// Whether the queue itself counts as HTTP's.
    is_http: bool,
    /// Whether the socket is full. Nothing is written until it says that it has room.
    is_full: bool,
    /// Since when the socket has taken nothing, once it was full and until it takes something and has room for more.
    stalled_since: Option<Tick>,
    /// Since when there has been something that a full socket did not take.
    backlogged_since: Option<Tick>,
    /// The number of the pong's segment, which answers the latest ping where too much other output waits.
    pong: Option<u64>,
    /// The number of the first segment, which counts all that ever left.
    first: u64,
    /// The numbers of the segments that have a conflation key.
    keys: HashMap<Arc<str>, u64>,
    /// An emptied run, for the next one.
    spare: Vec<u8>,
}

impl Queue {
    /// Unwritten bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that count towards the queue's bound: those to be written, and the memory of frames that are not copied.
    pub fn counted_bytes(&self) -> usize {
        self.bytes + self.overhead
    }

    /// The memory that this queue is charged of what all queues have: of a shared frame, its part.
    pub fn charge(&self) -> usize {
        let own = if self.is_http || self.is_empty() { 0 } else { QUEUE_BYTES };
        own + self.segments.iter().map(Segment::charge).sum::<usize>()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether frames are in it, and not only what HTTP was answered.
    pub fn has_frames(&self) -> bool {
        self.segments.back().is_some_and(|last| last.kind != Kind::Http)
    }

    /// Whether the socket is full, so that a write would be in vain.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Since when the socket has taken nothing, if it is full: one that says it has room is offered something first.
    pub fn stalled_since(&self) -> Option<Tick> {
        self.stalled_since.filter(|_| self.is_full)
    }

    /// Since when it has had something that a full socket did not take, until it is empty again.
    pub fn backlogged_since(&self) -> Option<Tick> {
        self.backlogged_since
    }

    /// Appends a frame. `total` is kept up to date. `false`: there is no memory for it.
    pub fn push(&mut self, outbound: &mut Outbound<'_>, total: &mut Queued) -> bool {
        let bytes = outbound.bytes();
        if outbound.is_separate() || (outbound.to_many && self.is_full && bytes > SHARED_BYTES_MIN) {
            let Some(frame) = outbound.share() else { return false };
            self.push_separate(frame, outbound.key, total);
        } else {
            let Some(run) = self.run(bytes, Kind::Frames, total) else { return false };
            outbound.append_to(run);
            self.bytes += bytes;
            total.frames += bytes;
        }
        true
    }

    /// Appends a frame that is shared, or can be replaced by its key.
    pub fn push_separate(&mut self, frame: SharedFrame, key: Option<&str>, total: &mut Queued) {
        let key: Option<Arc<str>> = key.map(Into::into);
        if let Some(key) = &key {
            let number = self.first + self.segments.len() as u64;
            self.keys.insert(Arc::clone(key), number);
        }
        self.bytes += frame.as_bytes().len();
        let segment = Segment { bytes: Bytes::Shared(frame), key, kind: Kind::Frames };
        self.overhead += segment.overhead();
        segment.enter(total);
        self.push_segment(segment, total);
    }

    /// Appends a frame that is encoded already.
    pub fn push_frame(&mut self, frame: &[u8], total: &mut Queued) {
        // A piece of the journal is small. Without memory for it, the process ends.
        let run = self.run(frame.len(), Kind::Frames, total).expect("memory for a small frame");
        run.extend_from_slice(frame);
        self.bytes += frame.len();
        total.frames += frame.len();
    }

    /// Appends bytes that are no frame: HTTP responses. `write` appends them to the buffer it is given.
    pub fn push_http(&mut self, write: impl FnOnce(&mut Vec<u8>), total: &mut Queued) {
        let Some(run) = self.run(0, Kind::Http, total) else { return };
        let before = run.len();
        write(run);
        if run.capacity() > SPARE_BYTES_MAX && run.capacity() > run.len() / 4 * 5 {
            run.shrink_to(run.len() / 8 * 9);
        }
        let bytes = run.len() - before;
        self.bytes += bytes;
        total.http += bytes;
    }

    /// Puts a newer message in the place of the unsent older one with its key. `false`: there is none, or it would make
    /// the queue longer than it may be, or there is no memory for it.
    pub fn conflate(&mut self, outbound: &mut Outbound<'_>, limits: &Limits, total: &mut Queued) -> bool {
        let Some(&number) = outbound.key.and_then(|key| self.keys.get(key)) else { return false };
        let index = (number - self.first) as usize;
        let is_begun = index == 0 && self.sent > 0;
        let Some(segment) = self.segments.get_mut(index).filter(|_| !is_begun) else { return false };
        let Bytes::Shared(older) = &segment.bytes else { return false };
        let bytes = self.bytes - older.as_bytes().len() + outbound.bytes();
        if bytes > self.bytes && bytes + self.overhead > limits.queue_bytes_max {
            return false;
        }
        let Some(newer) = outbound.share() else { return false };
        total.frames += newer.enter_queue();
        total.frames -= older.leave_queue();
        segment.bytes = Bytes::Shared(newer);
        self.bytes = bytes;
        true
    }

    /// Queues a pong. While much else waits there is only one, for the latest ping, in the place of the first.
    pub fn push_pong(&mut self, payload: &[u8], total: &mut Queued) {
        let outbound = Outbound::message(Opcode::Pong, payload);
        if !self.is_full && self.bytes <= PONG_QUEUE_BYTES_MAX {
            outbound.append_to(self.small_run(outbound.bytes(), Kind::Frames, total));
        } else {
            let index = self.pong.and_then(|number| number.checked_sub(self.first)).map(|index| index as usize);
            let unsent = index.filter(|index| *index > 0 || self.sent == 0);
            if let Some(Segment { bytes: Bytes::Run(run), .. }) = unsent.and_then(|index| self.segments.get_mut(index))
            {
                self.bytes -= run.len();
                total.frames -= run.len();
                run.clear();
                outbound.append_to(run);
            } else {
                self.pong = Some(self.first + self.segments.len() as u64);
                outbound.append_to(self.small_run(outbound.bytes(), Kind::Pong, total));
            }
        }
        self.bytes += outbound.bytes();
        total.frames += outbound.bytes();
    }

    /// What is to be written, if it is all in one segment.
    #[inline]
    pub fn poll_slice(&self) -> Option<&[u8]> {
        match (self.segments.front(), self.segments.len()) {
            (Some(only), 1) => only.bytes.as_slice().get(self.sent..),
            _ => None,
        }
    }

    /// Fills `slices` with what is to be written next, and returns how many it filled.
    pub fn poll_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            let skipped = if filled == 0 { self.sent } else { 0 };
            *slice = IoSlice::new(segment.bytes.as_slice().get(skipped..).unwrap_or_default());
            filled += 1;
        }
        filled
    }

    /// Takes note that the socket took `written` bytes. What it left when it was offered more says that it is full.
    pub fn handle_written(&mut self, written: usize, is_full: bool, now: Tick, total: &mut Queued) {
        self.bytes -= written;
        let mut left = self.sent + written;
        while let Some(first) = self.segments.front() {
            let len = first.bytes.as_slice().len();
            if left < len {
                break;
            }
            left -= len;
            self.pop_front(total);
        }
        self.sent = left;
        self.is_full = is_full;
        if is_full && self.backlogged_since.is_none() && !self.is_empty() {
            self.backlogged_since = Some(now);
            self.shrink();
        }
        self.stalled_since = match (is_full, written) {
            (false, _) => None,
            (true, 0) => self.stalled_since.or(Some(now)),
            (true, _) => Some(now),
        };
    }

    /// Takes note that the socket has room again.
    pub fn handle_writable(&mut self) {
        self.is_full = false;
    }

    /// Drops all that the client need not have to make sense of what comes next: everything behind the frame that is
    /// half written.
    pub fn truncate_to_frame(&mut self, total: &mut Queued) {
        self.pong = None;
        let http = self.segments.iter().take_while(|segment| segment.kind == Kind::Http).count();
        let kept = match self.segments.front_mut() {
            // The 101, and the responses before it, must be whole.
            _ if http > 0 => http,
            Some(Segment { bytes: Bytes::Run(run), .. }) if self.sent > 0 => {
                let end = frame_end_behind(run, self.sent);
                total.frames -= run.len() - end;
                run.truncate(end);
                run.shrink_to(end / 8 * 9);
                usize::from(end > self.sent)
            }
            // A frame of its own must be whole once it is begun.
            Some(_) if self.sent > 0 => 1,
            _ => 0,
        };
        for segment in self.segments.drain(kept..) {
            segment.release(total);
        }
        self.shrink_lists();
        self.handle_emptied(kept > 0, total);
        self.keys.clear();
        if kept == 0 {
            self.sent = 0;
        }
        self.bytes = self.segments.iter().map(|kept| kept.bytes.as_slice().len()).sum::<usize>() - self.sent;
        self.overhead = self.segments.iter().map(Segment::overhead).sum();
    }

    /// Gives back all that is queued.
    pub fn clear(&mut self, total: &mut Queued) {
        while !self.segments.is_empty() {
            self.pop_front(total);
        }
        (self.sent, self.bytes) = (0, 0);
        (self.is_full, self.stalled_since, self.backlogged_since) = (false, None, None);
        self.pong = None;
        self.keys.clear();
    }

    /// How many segments it has.
    #[cfg(test)]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Whether it is small enough to be kept, once it is empty.
    pub fn is_small(&self) -> bool {
        self.segments.capacity() <= SPARE_SEGMENTS_MAX && self.keys.capacity() <= SPARE_SEGMENTS_MAX
    }

    /// Panics where the numbers do not add up.
    pub fn check_invariants(&self) {
        let bytes: usize = self.segments.iter().map(|segment| segment.bytes.as_slice().len()).sum();
        assert_eq!(bytes, self.bytes + self.sent, "queued bytes");
        assert_eq!(self.segments.iter().map(Segment::overhead).sum::<usize>(), self.overhead, "overhead");
        let first = self.segments.front().map_or(1, |first| first.bytes.as_slice().len());
        assert!(self.sent < first, "a written segment was not popped");
    }

    /// The run to append `bytes` to, with room for them. `None`: there is no memory for that.
    fn run(&mut self, bytes: usize, kind: Kind, total: &mut Queued) -> Option<&mut Vec<u8>> {
        let has_room = self.segments.back().is_some_and(|last| match &last.bytes {
            Bytes::Run(run) => last.kind == kind && kind != Kind::Pong && run.len() + bytes <= RUN_BYTES_MAX,
            Bytes::Shared(_) => false,
        });
        if !has_room {
            let mut run = std::mem::take(&mut self.spare);
            reserve(&mut run, bytes)?;
            self.push_segment(Segment { bytes: Bytes::Run(run), key: None, kind }, total);
        }
        match self.segments.back_mut() {
            Some(Segment { bytes: Bytes::Run(run), .. }) => {
                reserve(run, bytes)?;
                Some(run)
            }
            _ => unreachable!("a run was just found or pushed"),
        }
    }

    /// The same for a control frame, without whose memory the process ends.
    fn small_run(&mut self, bytes: usize, kind: Kind, total: &mut Queued) -> &mut Vec<u8> {
        self.run(bytes, kind, total).expect("memory for a control frame")
    }

    fn push_segment(&mut self, segment: Segment, total: &mut Queued) {
        if self.segments.is_empty() {
            self.is_http = segment.kind == Kind::Http;
            *self.counted_in(total) += QUEUE_BYTES;
        }
        self.segments.push_back(segment);
    }

    /// Takes note that segments were removed, and that none is left unless `has_more`.
    fn handle_emptied(&mut self, has_more: bool, total: &mut Queued) {
        if !has_more {
            *self.counted_in(total) -= QUEUE_BYTES;
        }
    }

    /// The total that the queue itself counts in.
    fn counted_in<'t>(&self, total: &'t mut Queued) -> &'t mut usize {
        if self.is_http { &mut total.http } else { &mut total.frames }
    }

    /// Gives back what is not in use, for the reader will take its time.
    fn shrink(&mut self) {
        self.spare = Vec::new();
        for segment in &mut self.segments {
            if let Bytes::Run(run) = &mut segment.bytes {
                run.shrink_to(run.len() / 8 * 9);
            }
        }
    }

    /// Keeps the lists at least a quarter full.
    fn shrink_lists(&mut self) {
        let len = self.segments.len();
        if self.segments.capacity() > SPARE_SEGMENTS_MAX && len < self.segments.capacity() / 4 {
            self.segments.shrink_to(2 * len);
        }
        let len = self.keys.len();
        if self.keys.capacity() > SPARE_SEGMENTS_MAX && len < self.keys.capacity() / 4 {
            self.keys.shrink_to(2 * len);
        }
    }

    fn pop_front(&mut self, total: &mut Queued) {
        let Some(segment) = self.segments.pop_front() else { return };
        if let Some(key) = &segment.key
            && self.keys.get(key) == Some(&self.first)
        {
            self.keys.remove(key);
        }
        self.first += 1;
        self.overhead -= segment.overhead();
        segment.release(total);
        self.shrink_lists();
        self.handle_emptied(!self.segments.is_empty(), total);
        // A reader that is behind may be so for long.
        if let Bytes::Run(mut run) = segment.bytes
            && run.capacity() <= SPARE_BYTES_MAX
            && self.backlogged_since.is_none()
        {
            run.clear();
            self.spare = run;
        }
    }
}

/// Makes room for `more` bytes, and for a quarter of what there will be then: less than a vector would by itself.
fn reserve(run: &mut Vec<u8>, more: usize) -> Option<()> {
    if run.capacity() - run.len() < more {
        run.try_reserve_exact(more + (run.len() + more) / 4).ok()?;
    }
    Some(())
}

/// Where the frame that `sent` lies in ends, in a run that begins with a frame.
fn frame_end_behind(run: &[u8], sent: usize) -> usize {
    let mut end = 0;
    while end < sent {
        match run.get(end..).and_then(server_frame_bytes) {
            Some(bytes) if end + bytes <= run.len() => end += bytes,
            _ => return run.len(),
        }
    }
    end
}
