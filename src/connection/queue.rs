//! A queue of output of one connection: frames in order, each copied or shared.
//!
//! Small frames are copied into one buffer, called a run, so that they are written as one slice. A large frame is
//! shared by queues. While the socket is full, a smaller frame is shared, too, if sharing takes less memory than a
//! copy.
//!
//! The counters include all memory of a queue, and not only its unwritten bytes: also the queue itself, and for each
//! shared frame its segment, its key and the frame. A test compares the counters with the allocated memory.

mod newest;

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use crate::connection::outbound::Outbound;
use crate::connection::segment::{Bytes, Kind, Queued, Segment};
use crate::connection::written::Written;
use crate::limits::Limits;
use crate::protocol::frame::{Opcode, server_frame_bytes};
use crate::protocol::shared::SharedFrame;
use crate::tick::Tick;

/// The maximum size of a buffer with several copied frames, in bytes.
///
/// Because of this limit, the memory of a long queue is freed buffer by buffer while the queue is written.
pub(super) const RUN_BYTES_MAX: usize = 32 << 10;

/// The maximum length, in bytes, of a frame that is copied and not shared even if the socket is full.
///
/// Sharing a frame of at most this length would take more memory than a copy, because a shared frame needs a segment of
/// its own.
pub(super) const SHARED_BYTES_MIN: usize = 2 * size_of::<Segment>();

/// The maximum capacity of the buffer that an empty queue keeps for its next use, in bytes.
const SPARE_BYTES_MAX: usize = 4 << 10;

/// An empty queue is kept for its next use only if each of its lists has at most this capacity, in entries.
///
/// The lists of a queue are `segments` and `keys`.
const SPARE_SEGMENTS_MAX: usize = 64;

/// The memory of a queue without content, in bytes.
///
/// This is the queue itself, and the list of segments with its first capacity of 4 segments.
pub const QUEUE_BYTES: usize = size_of::<Queue>() + 4 * size_of::<Segment>();

/// The maximum queue length, in bytes, at which each ping still gets its own pong.
///
/// A longer queue contains only the pong for the latest ping (RFC 6455 section 5.5.3).
pub(super) const PONG_QUEUE_BYTES_MAX: usize = 16 << 10;

/// A queue of output that the socket did not accept immediately.
///
/// [`Output`](crate::connection::output::Output) takes an empty queue from
/// [`Env::take_queue`](crate::connection::Env::take_queue), and returns the queue with
/// [`Env::give_queue`](crate::connection::Env::give_queue) when the queue is empty again. Between these two calls:
///
/// 1. `push_*` appends frames or HTTP output. [`conflate`](Queue::conflate) puts a new message in the place of the
///    unsent message that has the same key.
/// 2. While the socket [`is_full`](Queue::is_full), nothing is written. [`handle_writable`](Queue::handle_writable)
///    reports that the socket is writable again.
/// 3. [`poll_slices`](Queue::poll_slices) returns the output, which is written with one system call. The result of the
///    write is reported with [`handle_written`](Queue::handle_written) before the next call.
/// 4. [`drop_newest`](Queue::drop_newest) frees memory when the queues together exceed their bound.
///    [`truncate_to_frame`](Queue::truncate_to_frame) prepares a queue for the close frame.
///
/// The queue enforces no bound: before a push, the caller compares [`counted_bytes`](Queue::counted_bytes) with
/// `queue_bytes_max`. Every call that changes the memory of the queue updates the totals of the loop, so that the
/// totals are always exact.
#[derive(Debug, Default)]
pub struct Queue {
    segments: VecDeque<Segment>,
    /// The number of written bytes of the first segment.
    ///
    /// This number is less than the length of the segment.
    sent: usize,
    /// The number of unwritten bytes in all segments.
    bytes: usize,
    /// The memory of shared frames and their keys, without the bytes of the frames.
    overhead: usize,
    /// The number of unsent bytes that the transport stores.
    ///
    /// These bytes are TLS records of output that is no longer in the queue, or of a handshake.
    held: usize,
    /// Whether the memory of the queue itself counts as HTTP output. The flag is `true` while only HTTP output was
    /// queued since the queue was last empty.
    is_http: bool,
    /// Whether the totals of the loop include the memory of the queue itself. They do not include an empty queue.
    is_counted: bool,
    /// Whether the socket is full. Nothing is written until the socket is writable.
    is_full: bool,
    /// The time since which a full socket has accepted no bytes.
    ///
    /// The value is kept until the socket accepts all bytes of one write.
    stalled_since: Option<Tick>,
    /// The time since which output waits for a full socket.
    backlogged_since: Option<Tick>,
    /// The sequence number of the segment with the pong that the next pong replaces.
    pong: Option<u64>,
    /// The sequence number of the first segment. This number equals the count of segments that were removed.
    first: u64,
    /// The sequence numbers of the segments that have a conflation key.
    keys: HashMap<Arc<str>, u64>,
    /// An empty buffer for the next frames that are copied.
    spare: Vec<u8>,
}

impl Queue {
    /// Returns the number of unsent bytes, in the queue and in the transport.
    pub fn bytes(&self) -> usize {
        self.bytes + self.held
    }

    /// Returns the number of bytes of this queue that count against `queue_bytes_max`.
    ///
    /// These are the unsent bytes, plus the memory that shared frames and their keys take in addition to their bytes.
    pub fn counted_bytes(&self) -> usize {
        self.bytes + self.held + self.overhead
    }

    /// Returns the memory of this queue that counts against `queue_total_bytes_max`.
    ///
    /// If several queues share a frame, each queue counts an equal part of the memory of this frame.
    pub fn charge(&self) -> usize {
        let own = if self.is_http || self.is_empty() { 0 } else { QUEUE_BYTES + self.held };
        own + self.segments.iter().map(Segment::charge).sum::<usize>()
    }

    /// Returns whether all output in the queue is HTTP responses.
    pub fn is_http(&self) -> bool {
        self.is_http
    }

    /// Returns whether the queue contains no output.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.held == 0
    }

    /// Returns whether the last output in the queue is a frame, and not an HTTP response.
    pub fn has_frames(&self) -> bool {
        self.segments.back().is_some_and(|last| last.kind != Kind::Http)
    }

    /// Returns whether the socket is full, so that a write would fail.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns the time since which a full socket has accepted no bytes.
    ///
    /// Returns `None` from the time when the socket becomes writable to the next write.
    pub fn stalled_since(&self) -> Option<Tick> {
        self.stalled_since.filter(|_| self.is_full)
    }

    /// Returns the time since which output waits for a full socket.
    pub fn backlogged_since(&self) -> Option<Tick> {
        self.backlogged_since
    }

    /// Appends a frame and updates `total`. Returns `false` if memory is exhausted.
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

    /// Appends a frame that is shared or has a conflation key.
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

    /// Appends an encoded frame.
    pub fn push_frame(&mut self, frame: &[u8], total: &mut Queued) {
        // A frame from the journal is small. If the allocator has no memory for it, the process panics.
        let run = self.run(frame.len(), Kind::Frames, total).expect("memory for a small frame can be allocated");
        run.extend_from_slice(frame);
        self.bytes += frame.len();
        total.frames += frame.len();
    }

    /// Appends an HTTP response: `write` writes the response to the end of a buffer.
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

    /// Puts `outbound` in the place of the unsent message that has the same key.
    ///
    /// Returns `false` if no unsent message has this key, if the queue would exceed `queue_bytes_max`, or if an
    /// allocation fails. A partly written message is not replaced.
    pub fn conflate(&mut self, outbound: &mut Outbound<'_>, limits: &Limits, total: &mut Queued) -> bool {
        let Some(&number) = outbound.key.and_then(|key| self.keys.get(key)) else { return false };
        let index = (number - self.first) as usize;
        let is_begun = index == 0 && self.sent > 0;
        let Some(segment) = self.segments.get_mut(index).filter(|_| !is_begun) else { return false };
        let Bytes::Shared(older) = &segment.bytes else { return false };
        let bytes = self.bytes - older.as_bytes().len() + outbound.bytes();
        if bytes > self.bytes && bytes + self.held + self.overhead > limits.queue_bytes_max {
            return false;
        }
        let Some(newer) = outbound.share() else { return false };
        total.frames += newer.enter_queue();
        total.frames -= older.leave_queue();
        segment.bytes = Bytes::Shared(newer);
        self.bytes = bytes;
        true
    }

    /// Queues a pong.
    ///
    /// In a long queue, the new pong replaces the queued pong.
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

    /// Returns the unwritten output if it is in one segment. Otherwise returns `None`.
    #[inline]
    pub fn poll_slice(&self) -> Option<&[u8]> {
        match (self.segments.front(), self.segments.len()) {
            (Some(only), 1) => only.bytes.as_slice().get(self.sent..),
            _ => None,
        }
    }

    /// Stores references to the unwritten output in `slices`, and returns the number of stored slices.
    pub fn poll_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            let skipped = if filled == 0 { self.sent } else { 0 };
            *slice = IoSlice::new(segment.bytes.as_slice().get(skipped..).unwrap_or_default());
            filled += 1;
        }
        filled
    }

    /// Reports the result of a write to the socket.
    pub fn handle_written(&mut self, written: Written, now: Tick, total: &mut Queued) {
        self.set_held(written.held, self.is_http, total);
        self.bytes -= written.bytes;
        let mut left = self.sent + written.bytes;
        while let Some(first) = self.segments.front() {
            let len = first.bytes.as_slice().len();
            if left < len {
                break;
            }
            left -= len;
            self.pop_front(total);
        }
        self.sent = left;
        self.set_full(written.is_full, written.has_sent, now);
    }

    /// Reports `held`, the number of unsent bytes that the transport stores. If the number is not 0, the socket is
    /// full.
    ///
    /// With `is_http`, the unsent bytes count as HTTP output, unless the queue contains frames. `has_sent` means that
    /// the socket accepted bytes.
    pub fn handle_held(&mut self, held: usize, has_sent: bool, is_http: bool, now: Tick, total: &mut Queued) {
        self.set_held(held, is_http, total);
        self.set_full(held > 0, has_sent, now);
    }

    fn set_held(&mut self, held: usize, is_http: bool, total: &mut Queued) {
        if held > 0 {
            self.count_in(is_http, total);
        }
        let counted = self.counted_in(total);
        *counted = *counted + held - self.held;
        self.held = held;
        self.handle_emptied(!self.segments.is_empty(), total);
    }

    fn set_full(&mut self, is_full: bool, has_progress: bool, now: Tick) {
        self.is_full = is_full;
        if is_full && self.backlogged_since.is_none() && !self.is_empty() {
            self.backlogged_since = Some(now);
            self.shrink();
        }
        self.stalled_since = match (is_full, has_progress) {
            (false, _) => None,
            (true, false) => self.stalled_since.or(Some(now)),
            (true, true) => Some(now),
        };
    }

    /// Reports that the socket is writable.
    pub fn handle_writable(&mut self) {
        self.is_full = false;
    }

    /// Drops all frames except a partly written frame. HTTP responses are kept.
    ///
    /// The remaining responses and frame are complete, so the client can parse a close frame that follows them.
    pub fn truncate_to_frame(&mut self, total: &mut Queued) {
        self.pong = None;
        let http = self.segments.iter().take_while(|segment| segment.kind == Kind::Http).count();
        let kept = match self.segments.front_mut() {
            // The 101 response, and responses before it, must be written in full.
            _ if http > 0 => http,
            Some(Segment { bytes: Bytes::Run(run), .. }) if self.sent > 0 => {
                let end = frame_end_behind(run, self.sent);
                total.frames -= run.len() - end;
                run.truncate(end);
                run.shrink_to(end / 8 * 9);
                usize::from(end > self.sent)
            }
            // A partly written shared frame must be written in full.
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

    /// Drops all output, and subtracts its memory from the totals.
    pub fn clear(&mut self, total: &mut Queued) {
        while !self.segments.is_empty() {
            self.pop_front(total);
        }
        self.set_held(0, self.is_http, total);
        (self.sent, self.bytes) = (0, 0);
        (self.is_full, self.stalled_since, self.backlogged_since) = (false, None, None);
        self.pong = None;
        self.keys.clear();
    }

    /// Returns the number of segments.
    #[cfg(test)]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Returns whether an empty queue is small enough to be kept for its next use.
    pub fn is_small(&self) -> bool {
        self.segments.capacity() <= SPARE_SEGMENTS_MAX && self.keys.capacity() <= SPARE_SEGMENTS_MAX
    }

    /// Panics if the counters are inconsistent. This check is for tests and debug builds.
    pub fn check_invariants(&self) {
        let bytes: usize = self.segments.iter().map(|segment| segment.bytes.as_slice().len()).sum();
        assert_eq!(bytes, self.bytes + self.sent, "`bytes` must be the number of unwritten bytes");
        assert_eq!(
            self.segments.iter().map(Segment::overhead).sum::<usize>(),
            self.overhead,
            "`overhead` must be the sum of the overhead of all segments"
        );
        let first = self.segments.front().map_or(1, |first| first.bytes.as_slice().len());
        assert!(self.sent < first, "a fully written segment must be removed");
    }

    /// Returns the run at the end of the queue, with capacity for `bytes` more bytes.
    ///
    /// Returns `None` if memory is exhausted.
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
            _ => unreachable!("the last segment must be a run"),
        }
    }

    /// Returns a buffer for a control frame.
    ///
    /// Panics if the allocator has no memory for the frame.
    fn small_run(&mut self, bytes: usize, kind: Kind, total: &mut Queued) -> &mut Vec<u8> {
        self.run(bytes, kind, total).expect("memory for a control frame can be allocated")
    }

    fn push_segment(&mut self, segment: Segment, total: &mut Queued) {
        let is_http = segment.kind == Kind::Http;
        self.count_in(is_http, total);
        if self.is_http && !is_http {
            self.count_as_frames(total);
        }
        self.segments.push_back(segment);
    }

    /// Moves the memory of the queue itself from the total of HTTP output to the total of frames.
    ///
    /// The queue calls this method when its first frame is queued behind the 101 response. Evictions free only memory
    /// that counts as frames.
    fn count_as_frames(&mut self, total: &mut Queued) {
        self.is_http = false;
        total.http -= QUEUE_BYTES + self.held;
        total.frames += QUEUE_BYTES + self.held;
    }

    /// Adds the memory of the queue itself to the totals.
    fn count_in(&mut self, is_http: bool, total: &mut Queued) {
        if !self.is_counted {
            (self.is_counted, self.is_http) = (true, is_http);
            *self.counted_in(total) += QUEUE_BYTES;
        }
    }

    /// Subtracts the memory of the queue itself from the totals, if the queue is empty.
    ///
    /// `has_more` means that the queue still has segments: then nothing is subtracted.
    fn handle_emptied(&mut self, has_more: bool, total: &mut Queued) {
        if self.is_counted && !has_more && self.held == 0 {
            self.is_counted = false;
            *self.counted_in(total) -= QUEUE_BYTES;
        }
    }

    /// Returns the total that includes the memory of the queue itself.
    fn counted_in<'t>(&self, total: &'t mut Queued) -> &'t mut usize {
        if self.is_http { &mut total.http } else { &mut total.frames }
    }

    /// Frees unused capacity, because a slow reader may keep the queue for a long time.
    fn shrink(&mut self) {
        self.spare = Vec::new();
        for segment in &mut self.segments {
            if let Bytes::Run(run) = &mut segment.bytes {
                run.shrink_to(run.len() / 8 * 9);
            }
        }
    }

    /// Shrinks the lists of the queue that are less than a quarter full.
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
        // The queue of a full socket keeps no spare buffer, because its reader may be slow for a long time.
        if let Bytes::Run(mut run) = segment.bytes
            && run.capacity() <= SPARE_BYTES_MAX
            && self.backlogged_since.is_none()
        {
            run.clear();
            self.spare = run;
        }
    }
}

/// Reserves capacity for `more` bytes and, in addition, for a quarter of the new length.
///
/// Without this function, `Vec` would double its capacity.
fn reserve(run: &mut Vec<u8>, more: usize) -> Option<()> {
    if run.capacity() - run.len() < more {
        run.try_reserve_exact(more + (run.len() + more) / 4).ok()?;
    }
    Some(())
}

/// Returns the end of the frame that contains the last of the `sent` bytes.
///
/// The run must start with a frame.
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
