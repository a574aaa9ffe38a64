//! The naive model of a connection's output, frame by frame.
//!
//! The model stores the lengths of frames and not their bytes. A queued frame is in `segments`. When all bytes of a
//! frame are written to the simulated socket, the frame moves to `in_flight`. The client compares the received frames
//! with `in_flight`. The model divides a queue into the same segments as the server: a segment has copied frames or one
//! shared frame. The memory of segments counts towards the total bound of all queues, and the model must count the same
//! memory as the server.

use std::collections::VecDeque;
use std::mem;

use fdpush::Limits;
use fdpush::sim::{QUEUE_BYTES, SessionRead, Tick, Written};

use crate::segment_model::{COPIED_BYTES_MAX, Due, Ledger, Posted, Segment};

/// A frame up to this size is copied into the queue even if the socket is full.
const SHARED_BYTES_MIN: usize = 96;
/// The maximum number of bytes in a segment of copied frames.
const RUN_BYTES_MAX: usize = 32 << 10;
/// A queue with more bytes than this number keeps only the latest unsent pong.
const PONG_QUEUE_BYTES_MAX: usize = 16 << 10;

/// The model of the output of one connection.
#[derive(Debug, Default)]
pub struct OutputModel {
    segments: VecDeque<Segment>,
    /// Whether the segments are in a queue, whose memory is counted. Otherwise their bytes are in the journal, the
    /// output buffer of the loop.
    is_queued: bool,

    /// Whether the queue counts as a queue of HTTP output, because it has only contained HTTP output.
    is_http: bool,
    /// The number of written bytes of the first segment.
    sent: usize,
    /// The number of unwritten bytes, without the records that a TLS session holds.
    bytes: usize,
    /// The number of bytes of records that a TLS session holds because the socket was full.
    held: usize,
    /// The part of `held` that reads added since the last write. A read can make records, for example an alert. Only a
    /// write enforces the bounds of the queues.
    unasked_held: usize,
    is_full: bool,
    /// The time since which the socket has accepted no byte: the time of the write that filled the socket, or of the
    /// first write that wrote no byte.
    stalled_since: Option<Tick>,
    /// The time of the last write that wrote no byte.
    tried: Option<Tick>,
    /// Whether the last write left bytes unwritten, because the socket was full.
    pub is_backlogged: bool,
    /// Whether the socket has accepted bytes since the last heartbeat.
    pub is_taking: bool,
    /// Frames that are written to the socket completely, and that the client has not read.
    pub in_flight: VecDeque<Due>,
    /// The number of frames at the end of `in_flight` whose bytes may still be in records that the TLS session holds.
    uncertain: usize,
    /// Whether the end of the connection dropped queued bytes.
    pub is_abandoned: bool,
}

impl OutputModel {
    /// Returns the number of unwritten bytes, with the records that a TLS session holds.
    pub fn bytes(&self) -> usize {
        self.bytes + self.held
    }

    /// Returns the number of unwritten bytes plus the overhead of the queue.
    pub fn counted_bytes(&self) -> usize {
        let overhead = if self.is_queued { self.segments.iter().map(Segment::overhead).sum() } else { 0 };
        self.bytes() + overhead
    }

    /// Returns the memory that is charged to this queue.
    pub fn charge(&self, ledger: &Ledger) -> usize {
        if !self.is_queued {
            return 0;
        }
        let own = if self.is_http { 0 } else { QUEUE_BYTES + self.held };
        own + self.segments.iter().map(|segment| segment.charge(ledger)).sum::<usize>()
    }

    /// Returns the charge without shared frames.
    pub fn own_charge(&self) -> usize {
        let own = |segment: &&Segment| segment.shared.is_none() && !segment.is_raw;
        if self.is_queued { self.segments.iter().filter(own).map(|segment| segment.bytes).sum() } else { 0 }
    }

    /// Returns whether the output is in a queue.
    pub fn has_queue(&self) -> bool {
        self.is_queued
    }

    /// Returns whether the connection can write: output is queued, and the socket is not known to be full.
    pub fn can_write(&self) -> bool {
        self.is_queued && self.bytes() > 0 && !self.is_full
    }

    /// Returns the number of unwritten bytes in the journal.
    pub fn journal_bytes(&self) -> usize {
        if self.is_queued { 0 } else { self.bytes }
    }

    /// Returns whether the output has frames that the server has not tried to write yet.
    pub fn is_untried(&self) -> bool {
        !self.is_backlogged && self.segments.back().is_some_and(|last| !last.is_raw)
    }

    /// Returns the memory of the queued control frames, and of the TLS records that reads added. The server queues
    /// control frames and such records without a check of the bounds.
    pub fn unasked_bytes(&self) -> usize {
        let control: usize = self.segments.iter().map(|segment| segment.control).sum();
        let unasked = control + self.unasked_held;
        if self.is_queued && unasked > 0 { unasked + QUEUE_BYTES } else { 0 }
    }

    /// Returns the number of bytes of records that a TLS session holds.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns the maximum number of frames that may be missing at the end of the server's stream.
    pub fn missing_max(&self) -> usize {
        if self.is_abandoned { self.uncertain.min(self.in_flight.len()) } else { 0 }
    }

    /// Updates the model for a connection that has `bytes` unwritten bytes, of which `fresh` bytes are in the
    /// journal. The other bytes are in a queue.
    pub fn observe(&mut self, bytes: usize, fresh: usize, ledger: &mut Ledger) {
        assert!(
            fresh == 0 || (fresh == bytes && !self.is_queued),
            "all unwritten bytes must be in the journal, or none: {fresh} of {bytes}"
        );
        if bytes > 0 && fresh == 0 {
            self.enter_queue(false, ledger);
        }
    }

    /// Returns the number of unwritten bytes in messages.
    pub fn message_bytes(&self) -> usize {
        let mut frames = self.segments.iter().flat_map(|segment| &segment.frames);
        let begun = self.segments.front().map_or(0, |first| self.sent - first.flown);
        let bytes = |(due, bytes): &(Due, usize)| if matches!(due, Due::Message(..)) { *bytes } else { 0 };
        let first = frames.next().map_or(0, |frame| bytes(frame).saturating_sub(begun));
        first + frames.map(bytes).sum::<usize>()
    }

    /// Returns the time since which the socket has accepted no byte, or `None` if the socket is not known to be full.
    pub fn stalled_since(&self) -> Option<Tick> {
        self.stalled_since.filter(|_| self.is_full)
    }

    /// Returns the first tick after the last write that wrote no byte.
    pub fn tried(&self) -> Tick {
        self.tried.map_or(Tick(0), |tried| Tick(tried.0 + 1))
    }

    /// Handles HTTP output that has made the queue grow to `bytes` bytes.
    pub fn observe_raw(&mut self, bytes: usize, ledger: &mut Ledger) {
        assert!(bytes >= self.bytes(), "the queue must not become shorter");
        if bytes > self.bytes() {
            let grown = bytes - self.bytes();
            self.enter_queue(true, ledger);
            let run = self.run(0, true);
            run.bytes += grown;
            run.frames.push_back((Due::Raw, grown));
            self.bytes += grown;
            ledger.http += grown;
        }
    }

    /// Queues a message.
    pub fn push_message(&mut self, posted: &Posted, ledger: &mut Ledger) {
        let frame = (posted.due(), posted.bytes);
        let is_shared = posted.key.is_some()
            || (posted.to_many && posted.bytes > if self.is_full { SHARED_BYTES_MIN } else { COPIED_BYTES_MAX });
        if is_shared {
            let segment = Segment::shared(posted);
            self.count_as_frames(ledger);
            if self.is_queued {
                segment.enter(ledger);
            }
            self.segments.push_back(segment);
        } else {
            self.append(frame, ledger);
        }
        self.bytes += posted.bytes;
    }

    /// Queues a control frame.
    pub fn push_control(&mut self, due: Due, ledger: &mut Ledger) {
        let payload = match &due {
            Due::Pong(payload) | Due::Close(payload) => payload.len(),
            _ => 0,
        };
        self.append((due, 2 + payload), ledger);
        self.bytes += 2 + payload;
    }

    /// Queues a pong. Returns whether the pong replaced an unsent pong.
    pub fn push_pong(&mut self, payload: &[u8], ledger: &mut Ledger) -> bool {
        let due = Due::Pong(payload.to_vec());
        if !self.is_full && self.bytes <= PONG_QUEUE_BYTES_MAX {
            self.push_control(due, ledger);
            return false;
        }
        self.enter_queue(false, ledger);
        self.count_as_frames(ledger);
        let bytes = 2 + payload.len();
        let skipped = usize::from(self.sent > 0);
        let unsent = self.segments.iter_mut().skip(skipped).find(|segment| segment.is_pong);
        let older = match unsent {
            Some(segment) => {
                segment.frames = VecDeque::from([(due, bytes)]);
                segment.control = bytes;
                mem::replace(&mut segment.bytes, bytes)
            }
            None => {
                let frames = VecDeque::from([(due, bytes)]);
                self.segments.push_back(Segment { bytes, is_pong: true, control: bytes, frames, ..Segment::default() });
                0
            }
        };
        self.bytes = self.bytes - older + bytes;
        ledger.total = ledger.total - older + bytes;
        older > 0
    }

    /// Replaces the last unsent message with the same key. Returns `false` if no message can be replaced.
    pub fn conflate(&mut self, posted: &Posted, limits: &Limits, ledger: &mut Ledger) -> bool {
        let (sent, keys) = (self.sent, self.counted_bytes() - self.bytes);
        let last = self.segments.iter_mut().enumerate().rfind(|(_, segment)| segment.key == posted.key);
        let may = posted.key.is_some() && self.is_queued;
        let Some((index, segment)) = last.filter(|_| may) else { return false };
        if index == 0 && sent > 0 {
            return false;
        }
        let bytes = self.bytes - segment.bytes + posted.bytes;
        let is_over = bytes > self.bytes && bytes + keys > limits.queue_bytes_max;
        if is_over {
            return false;
        }
        segment.release(ledger);
        *segment = Segment::shared(posted);
        segment.enter(ledger);
        self.bytes = bytes;
        true
    }

    /// Drops the newest messages. A partly written message stays in the queue.
    pub fn drop_newest(&mut self, count: usize, ledger: &mut Ledger) {
        for _ in 0..count {
            let begun = self.segments.front().is_some_and(|first| first.flown < self.sent);
            let is_message = |(index, frame, due): &(usize, usize, &Due)| {
                matches!(due, Due::Message(..)) && !(begun && (*index, *frame) == (0, 0))
            };
            let mut frames = self.segments.iter().enumerate().flat_map(|(index, segment)| {
                segment.frames.iter().enumerate().map(move |(frame, (due, _))| (index, frame, due))
            });
            let newest = frames.rfind(is_message);
            let (index, frame, _) = newest.expect("the queue contains a message to drop");
            let segment = &mut self.segments[index];
            let (_, bytes) = segment.frames.remove(frame).expect("the entry was found before");
            self.bytes -= bytes;
            if segment.shared.is_some() {
                let segment = self.segments.remove(index).expect("the entry was found before");
                segment.release(ledger);
                continue;
            }
            segment.bytes -= bytes;
            ledger.total -= bytes;
            if segment.frames.is_empty() {
                // Of the segments without frames, only the first can have bytes, and these bytes are already written.
                // The ledger counts them until the segment is removed.
                ledger.total -= segment.bytes;
                self.segments.remove(index);
                self.sent = if index == 0 { 0 } else { self.sent };
            }
        }
        self.leave_queue(ledger);
        if !self.is_queued {
            (self.is_full, self.is_backlogged, self.stalled_since) = (false, false, None);
        }
    }

    /// Handles a write. A TLS session holds the records that did not fit into the socket.
    pub fn written(&mut self, written: Written, now: Tick, ledger: &mut Ledger) {
        let count = written.bytes;
        if count < self.bytes || written.held > 0 {
            self.enter_queue(false, ledger);
        }
        self.set_held(written.held, ledger);
        // After a write, the server enforces the bound of all queues.
        self.unasked_held = 0;
        self.sent += count;
        self.bytes -= count;
        let flown = self.in_flight.len();
        while let Some(first) = self.segments.front_mut() {
            while let Some(&(_, bytes)) = first.frames.front()
                && first.flown + bytes <= self.sent
            {
                first.flown += bytes;
                let (due, _) = first.frames.pop_front().expect("the frame was checked before");
                if due != Due::Raw {
                    self.in_flight.push_back(due);
                }
            }
            if first.bytes > self.sent {
                break;
            }
            self.sent -= first.bytes;
            if self.is_queued {
                first.release(ledger);
            }
            self.segments.pop_front();
        }
        // A session encrypts output only if it holds no earlier records. So the records that it holds now contain only
        // frames of this write.
        if count > 0 {
            self.uncertain = self.in_flight.len() - flown;
        }
        self.note_attempt(written.held, written.is_full, written.has_sent, now, ledger);
    }

    /// Handles a read of a TLS session. During the read, the session wrote records to the socket, or stored records
    /// that it writes later.
    pub fn handle_read(&mut self, read: SessionRead, is_http: bool, now: Tick, ledger: &mut Ledger) {
        let Some(held) = read.held else { return };
        if held == 0 && !self.is_queued {
            self.is_taking |= read.has_sent;
            return;
        }
        self.enter_queue(is_http, ledger);
        self.unasked_held = (self.unasked_held + held.saturating_sub(self.held)).min(held);
        self.set_held(held, ledger);
        self.note_attempt(held, held > 0, read.has_sent, now, ledger);
    }

    /// Updates the state of the socket after a write.
    fn note_attempt(&mut self, held: usize, is_full: bool, has_sent: bool, now: Tick, ledger: &mut Ledger) {
        if held == 0 {
            self.uncertain = 0;
        }
        self.leave_queue(ledger);
        self.is_full = is_full;
        self.is_backlogged |= is_full;
        self.is_taking |= has_sent;
        self.tried = (is_full && !has_sent).then_some(now);
        self.stalled_since = match (is_full, has_sent) {
            (false, _) => None,
            (true, false) => self.stalled_since.or(Some(now)),
            (true, true) => Some(now),
        };
        self.is_backlogged &= self.is_queued;
    }

    /// Handles the event that the socket is writable again.
    pub fn has_room(&mut self) {
        self.is_full = false;
    }

    /// Drops the messages of a slow consumer, except a partly written message. HTTP output stays.
    pub fn truncate(&mut self, ledger: &mut Ledger) {
        let raw = self.segments.iter().take_while(|segment| segment.is_raw).count();
        let kept = raw.max(usize::from(self.sent > 0));
        self.drain(kept, ledger);
        if raw == 0
            && let Some(first) = self.segments.front_mut()
            && first.shared.is_none()
        {
            let begun = first.begun_bytes(self.sent);
            ledger.total -= first.bytes - begun;
            first.bytes = begun;
            first.frames.truncate(1);
            if begun == self.sent {
                self.segments.clear();
                ledger.total -= mem::take(&mut self.sent);
            }
        }
        self.leave_queue(ledger);
        self.bytes = self.segments.iter().map(|segment| segment.bytes).sum::<usize>() - self.sent;
    }

    /// Drops all output.
    pub fn abandon(&mut self, ledger: &mut Ledger) {
        self.is_abandoned |= self.bytes() > 0 || self.sent > 0;
        self.set_held(0, ledger);
        self.drain(0, ledger);
        (self.bytes, self.sent) = (0, 0);
    }

    /// Moves the output from the journal to a queue, whose memory is counted.
    ///
    /// `begins_raw` tells whether the next output is HTTP output.
    fn enter_queue(&mut self, begins_raw: bool, ledger: &mut Ledger) {
        if !mem::replace(&mut self.is_queued, true) {
            self.is_http = self.segments.front().map_or(begins_raw, |first| first.is_raw);
            *self.counted_in(ledger) += QUEUE_BYTES;
            self.segments.iter().for_each(|segment| segment.enter(ledger));
        }
    }

    /// Counts a queue of HTTP output as a queue of frames from now on.
    fn count_as_frames(&mut self, ledger: &mut Ledger) {
        if self.is_queued && mem::replace(&mut self.is_http, false) {
            ledger.http -= QUEUE_BYTES + self.held;
            ledger.total += QUEUE_BYTES + self.held;
        }
    }

    /// Drops an empty queue.
    fn leave_queue(&mut self, ledger: &mut Ledger) {
        if self.is_queued && self.segments.is_empty() && self.held == 0 {
            self.is_queued = false;
            *self.counted_in(ledger) -= QUEUE_BYTES;
        }
    }

    /// Sets the number of bytes of records that a TLS session holds.
    fn set_held(&mut self, held: usize, ledger: &mut Ledger) {
        let counted = self.counted_in(ledger);
        *counted = *counted + held - self.held;
        self.held = held;
    }

    fn counted_in<'l>(&self, ledger: &'l mut Ledger) -> &'l mut usize {
        if self.is_http { &mut ledger.http } else { &mut ledger.total }
    }

    /// Drops all segments except the first `kept` segments.
    fn drain(&mut self, kept: usize, ledger: &mut Ledger) {
        for segment in self.segments.drain(kept..) {
            if self.is_queued {
                segment.release(ledger);
            }
        }
        self.leave_queue(ledger);
    }

    fn append(&mut self, frame: (Due, usize), ledger: &mut Ledger) {
        self.count_as_frames(ledger);
        if self.is_queued {
            ledger.total += frame.1;
        }
        let run = self.run(frame.1, false);
        run.bytes += frame.1;
        if !matches!(frame.0, Due::Message(..)) {
            run.control += frame.1;
        }
        run.frames.push_back(frame);
    }

    /// Returns the segment to which the next `bytes` bytes are copied.
    fn run(&mut self, bytes: usize, is_raw: bool) -> &mut Segment {
        let has_room = self.segments.back().is_some_and(|last| {
            last.shared.is_none() && !last.is_pong && last.is_raw == is_raw && last.bytes + bytes <= RUN_BYTES_MAX
        });
        if !has_room {
            self.segments.push_back(Segment { is_raw, ..Segment::default() });
        }
        self.segments.back_mut().expect("a segment was pushed before")
    }
}
