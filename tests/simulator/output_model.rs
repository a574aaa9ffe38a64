//! What the server owes one client, frame by frame: the naive twin of a connection's output queue.
//!
//! It does not hold bytes, only what they say. A frame goes from `segments`, where it is queued, to `flying` when the
//! wire has all of it, and there the client looks for it. It mirrors how the queue keeps frames (copied one behind the
//! other, or shared) because the server's bound on memory counts that, and the count has to be exact.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use fdpush::Limits;
use fdpush::sim::{FRAME_BYTES, KEY_BYTES, QUEUE_BYTES, SEGMENT_BYTES, Tick};

/// Numbers a push, whomever it goes to. Its payload says which it is.
pub type PushId = u64;

/// A shared frame saves nothing below this.
const COPIED_BYTES_MAX: usize = 512;
/// Nor below this to a reader that is stalled.
const SHARED_BYTES_MIN: usize = 96;
/// What is copied together.
const RUN_BYTES_MAX: usize = 32 << 10;
/// Pongs wait for one another over this.
const PONG_QUEUE_BYTES_MAX: usize = 16 << 10;

/// What a client is to receive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Due {
    /// Something of HTTP, which the client reads on its own.
    Raw,
    Message(PushId),
    Ping,
    Pong(Vec<u8>),
    /// A close frame with this payload.
    Close(Vec<u8>),
}

/// Memory in all queues. What lies in the journal is in none.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Of frames, a shared one counted once.
    pub total: usize,
    pub http: usize,
    /// In how many queues a push is as a shared frame.
    shared: BTreeMap<PushId, u32>,
}

/// What the server owes one client.
#[derive(Debug, Default)]
pub struct OutputModel {
    segments: VecDeque<Segment>,
    /// Whether they are in a queue, and counted: not while the connection has them in the journal.
    is_queued: bool,
    /// Whether its queue counts as HTTP's.
    is_http: bool,
    /// How much of the first segment is written.
    sent: usize,
    /// Unwritten bytes.
    bytes: usize,
    is_full: bool,
    /// Since when the wire has taken nothing.
    stalled_since: Option<Tick>,
    /// When it was last offered something in vain.
    tried: Option<Tick>,
    /// The wire was full, and has not taken all since.
    pub is_backlogged: bool,
    /// It took something since this was last asked.
    pub is_taking: bool,
    /// What the wire has whole, and the client has not seen.
    pub flying: VecDeque<Due>,
    /// The end of the connection took what was queued.
    pub is_abandoned: bool,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: usize,
    shared: Option<PushId>,
    key: Option<String>,
    is_raw: bool,
    /// One pong, for the latest of the pings that came since.
    is_pong: bool,
    /// Bytes of control frames, which nobody asks whether there is room for.
    control: usize,
    /// Bytes of the frames that went on to `flying`.
    flown: usize,
    frames: VecDeque<(Due, usize)>,
}

/// A message on its way into queues.
#[derive(Clone, Debug)]
pub struct Posted {
    pub id: PushId,
    /// On the wire.
    pub bytes: usize,
    pub to_many: bool,
    pub key: Option<String>,
}

impl Posted {
    /// What it takes up in a queue of its own.
    pub fn counted_bytes(&self) -> usize {
        let is_apart = self.key.is_some() || (self.to_many && self.bytes > COPIED_BYTES_MAX);
        self.bytes + if is_apart { overhead(self.key.as_ref()) } else { 0 }
    }
}

/// Bytes that a frame of its own takes up besides its payload.
fn overhead(key: Option<&String>) -> usize {
    SEGMENT_BYTES + FRAME_BYTES + key.map_or(0, |key| KEY_BYTES + key.len())
}

impl Segment {
    fn shared(posted: &Posted) -> Segment {
        let frames = VecDeque::from([(Due::Message(posted.id), posted.bytes)]);
        Segment { bytes: posted.bytes, shared: Some(posted.id), key: posted.key.clone(), frames, ..Segment::default() }
    }

    /// The memory that this takes in a queue.
    fn enter(&self, ledger: &mut Ledger) {
        assert!(!self.is_raw, "HTTP is never in the journal");
        let is_first = self.shared.is_none_or(|id| {
            let queues = ledger.shared.entry(id).or_default();
            *queues += 1;
            *queues == 1
        });
        if is_first {
            ledger.total += self.bytes + self.frame_bytes();
        }
        ledger.total += self.overhead() - self.frame_bytes();
    }

    /// Memory that it takes up besides its bytes.
    fn overhead(&self) -> usize {
        if self.shared.is_some() { overhead(self.key.as_ref()) } else { 0 }
    }

    fn frame_bytes(&self) -> usize {
        if self.shared.is_some() { FRAME_BYTES } else { 0 }
    }

    /// Memory that its queue is charged for it: of a shared frame, its part.
    fn charge(&self, ledger: &Ledger) -> usize {
        match self.shared {
            _ if self.is_raw => 0,
            None => self.bytes,
            Some(id) => (self.bytes + FRAME_BYTES) / ledger.shared[&id] as usize + self.overhead() - FRAME_BYTES,
        }
    }

    /// The memory that goes when this leaves its queue.
    fn release(&self, ledger: &mut Ledger) {
        let Some(id) = self.shared else {
            *if self.is_raw { &mut ledger.http } else { &mut ledger.total } -= self.bytes;
            return;
        };
        ledger.total -= self.overhead() - FRAME_BYTES;
        let queues = ledger.shared.get_mut(&id).expect("a shared frame is counted");
        *queues -= 1;
        if *queues == 0 {
            ledger.shared.remove(&id);
            ledger.total -= self.bytes + FRAME_BYTES;
        }
    }

    /// Whether some of it is written, and what of it must follow: the rest of the frame that is half written.
    fn begun_bytes(&self, sent: usize) -> usize {
        match self.frames.front() {
            Some((_, bytes)) if self.flown < sent => self.flown + bytes,
            _ => self.flown,
        }
    }
}

impl OutputModel {
    /// Unwritten bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those, and what the queue takes up besides.
    pub fn counted_bytes(&self) -> usize {
        let overhead = if self.is_queued { self.segments.iter().map(Segment::overhead).sum() } else { 0 };
        self.bytes + overhead
    }

    /// Its charge among all queues.
    pub fn charge(&self, ledger: &Ledger) -> usize {
        if !self.is_queued {
            return 0;
        }
        let own = if self.is_http { 0 } else { QUEUE_BYTES };
        own + self.segments.iter().map(|segment| segment.charge(ledger)).sum::<usize>()
    }

    /// Of that, what it shares with no other.
    pub fn own_charge(&self) -> usize {
        let own = |segment: &&Segment| segment.shared.is_none() && !segment.is_raw;
        if self.is_queued { self.segments.iter().filter(own).map(|segment| segment.bytes).sum() } else { 0 }
    }

    /// Whether it has a queue.
    pub fn has_queue(&self) -> bool {
        self.is_queued
    }

    /// Whether it has a queue with output, and a wire that is not known to be full.
    pub fn can_write(&self) -> bool {
        self.is_queued && self.bytes > 0 && !self.is_full
    }

    /// Unwritten bytes that take no memory of their own.
    pub fn journal_bytes(&self) -> usize {
        if self.is_queued { 0 } else { self.bytes }
    }

    /// Whether frames wait that the wire has not refused yet.
    pub fn is_untried(&self) -> bool {
        !self.is_backlogged && self.segments.back().is_some_and(|last| !last.is_raw)
    }

    /// Bytes in its queue for which nobody asked whether there is room: control frames, and the queue for them.
    pub fn unasked_bytes(&self) -> usize {
        let control: usize = self.segments.iter().map(|segment| segment.control).sum();
        if self.is_queued && control > 0 { control + QUEUE_BYTES } else { 0 }
    }

    /// Where the connection has its `bytes`: of these, `fresh` are in the journal.
    pub fn observe(&mut self, bytes: usize, fresh: usize, ledger: &mut Ledger) {
        assert!(fresh == 0 || (fresh == bytes && !self.is_queued), "{fresh} of {bytes} bytes left a queue");
        if bytes > 0 && fresh == 0 {
            self.enter_queue(false, ledger);
        }
    }

    /// Unwritten bytes of messages alone.
    pub fn message_bytes(&self) -> usize {
        let mut frames = self.segments.iter().flat_map(|segment| &segment.frames);
        let begun = self.segments.front().map_or(0, |first| self.sent - first.flown);
        let bytes = |(due, bytes): &(Due, usize)| if matches!(due, Due::Message(_)) { *bytes } else { 0 };
        let first = frames.next().map_or(0, |frame| bytes(frame).saturating_sub(begun));
        first + frames.map(bytes).sum::<usize>()
    }

    /// Since when the wire has taken nothing, unless it has said since that it has room.
    pub fn stalled_since(&self) -> Option<Tick> {
        self.stalled_since.filter(|_| self.is_full)
    }

    /// The first moment at which it can be known that the wire still takes nothing, although it had said otherwise.
    pub fn tried(&self) -> Tick {
        self.tried.map_or(Tick(0), |tried| Tick(tried.0 + 1))
    }

    /// The queue has grown to `bytes`, by something of HTTP.
    pub fn observe_raw(&mut self, bytes: usize, ledger: &mut Ledger) {
        assert!(bytes >= self.bytes, "output vanished");
        if bytes > self.bytes {
            let grown = bytes - self.bytes;
            self.enter_queue(true, ledger);
            let run = self.run(0, true);
            run.bytes += grown;
            run.frames.push_back((Due::Raw, grown));
            self.bytes = bytes;
            ledger.http += grown;
        }
    }

    /// A message was queued.
    pub fn push_message(&mut self, posted: &Posted, ledger: &mut Ledger) {
        let frame = (Due::Message(posted.id), posted.bytes);
        let is_shared = posted.key.is_some()
            || (posted.to_many && posted.bytes > if self.is_full { SHARED_BYTES_MIN } else { COPIED_BYTES_MAX });
        if is_shared {
            let segment = Segment::shared(posted);
            if self.is_queued {
                segment.enter(ledger);
            }
            self.segments.push_back(segment);
        } else {
            self.append(frame, ledger);
        }
        self.bytes += posted.bytes;
    }

    /// A control frame was queued.
    pub fn push_control(&mut self, due: Due, ledger: &mut Ledger) {
        let payload = match &due {
            Due::Pong(payload) | Due::Close(payload) => payload.len(),
            _ => 0,
        };
        self.append((due, 2 + payload), ledger);
        self.bytes += 2 + payload;
    }

    /// A ping came: its pong is queued, or (`true`) takes the place of the unsent one.
    pub fn push_pong(&mut self, payload: &[u8], ledger: &mut Ledger) -> bool {
        let due = Due::Pong(payload.to_vec());
        if !self.is_full && self.bytes <= PONG_QUEUE_BYTES_MAX {
            self.push_control(due, ledger);
            return false;
        }
        self.enter_queue(false, ledger);
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

    /// A message takes the place of the last unsent one with its key. `false`: it cannot.
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

    /// So many messages are dropped, the newest first. What is written of one stays.
    pub fn drop_newest(&mut self, count: usize, ledger: &mut Ledger) {
        for _ in 0..count {
            let begun = self.segments.front().is_some_and(|first| first.flown < self.sent);
            let is_message = |(index, frame, due): &(usize, usize, &Due)| {
                matches!(due, Due::Message(_)) && !(begun && (*index, *frame) == (0, 0))
            };
            let mut frames = self.segments.iter().enumerate().flat_map(|(index, segment)| {
                segment.frames.iter().enumerate().map(move |(frame, (due, _))| (index, frame, due))
            });
            let newest = frames.rfind(is_message);
            let (index, frame, _) = newest.expect("no more is dropped than there is");
            let segment = &mut self.segments[index];
            let (_, bytes) = segment.frames.remove(frame).expect("just found");
            self.bytes -= bytes;
            if segment.shared.is_some() {
                let segment = self.segments.remove(index).expect("just found");
                segment.release(ledger);
                continue;
            }
            segment.bytes -= bytes;
            ledger.total -= bytes;
            if segment.frames.is_empty() {
                // Of the first, what is written goes with it.
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

    /// The wire took `count` bytes, and is full if it was offered more.
    pub fn written(&mut self, count: usize, is_full: bool, now: Tick, ledger: &mut Ledger) {
        if count < self.bytes {
            self.enter_queue(false, ledger);
        }
        self.sent += count;
        self.bytes -= count;
        while let Some(first) = self.segments.front_mut() {
            while let Some(&(_, bytes)) = first.frames.front()
                && first.flown + bytes <= self.sent
            {
                first.flown += bytes;
                let (due, _) = first.frames.pop_front().expect("just seen");
                if due != Due::Raw {
                    self.flying.push_back(due);
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
        self.leave_queue(ledger);
        self.is_full = is_full;
        self.is_backlogged |= is_full;
        self.is_taking |= count > 0;
        self.tried = (is_full && count == 0).then_some(now);
        self.stalled_since = match (is_full, count) {
            (false, _) => None,
            (true, 0) => self.stalled_since.or(Some(now)),
            (true, _) => Some(now),
        };
        self.is_backlogged &= !self.segments.is_empty();
    }

    /// The wire has room again.
    pub fn has_room(&mut self) {
        self.is_full = false;
    }

    /// The reader is too slow: all is dropped that it has not begun to read, HTTP excepted.
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

    /// The connection is dropped, and what is queued with it.
    pub fn abandon(&mut self, ledger: &mut Ledger) {
        self.drain(0, ledger);
        self.is_abandoned |= self.bytes > 0 || self.sent > 0;
        (self.bytes, self.sent) = (0, 0);
    }

    /// Output that it owes takes memory from here on. It `begins_raw` if it owes only HTTP.
    fn enter_queue(&mut self, begins_raw: bool, ledger: &mut Ledger) {
        if !mem::replace(&mut self.is_queued, true) {
            self.is_http = self.segments.front().map_or(begins_raw, |first| first.is_raw);
            *self.counted_in(ledger) += QUEUE_BYTES;
            self.segments.iter().for_each(|segment| segment.enter(ledger));
        }
    }

    /// An empty queue is dropped.
    fn leave_queue(&mut self, ledger: &mut Ledger) {
        if self.is_queued && self.segments.is_empty() {
            self.is_queued = false;
            *self.counted_in(ledger) -= QUEUE_BYTES;
        }
    }

    fn counted_in<'l>(&self, ledger: &'l mut Ledger) -> &'l mut usize {
        if self.is_http { &mut ledger.http } else { &mut ledger.total }
    }

    /// Drops all segments but so many.
    fn drain(&mut self, kept: usize, ledger: &mut Ledger) {
        for segment in self.segments.drain(kept..) {
            if self.is_queued {
                segment.release(ledger);
            }
        }
        self.leave_queue(ledger);
    }

    fn append(&mut self, frame: (Due, usize), ledger: &mut Ledger) {
        if self.is_queued {
            ledger.total += frame.1;
        }
        let run = self.run(frame.1, false);
        run.bytes += frame.1;
        if !matches!(frame.0, Due::Message(_)) {
            run.control += frame.1;
        }
        run.frames.push_back(frame);
    }

    /// The segment that the next `bytes` are copied into.
    fn run(&mut self, bytes: usize, is_raw: bool) -> &mut Segment {
        let has_room = self.segments.back().is_some_and(|last| {
            last.shared.is_none() && !last.is_pong && last.is_raw == is_raw && last.bytes + bytes <= RUN_BYTES_MAX
        });
        if !has_room {
            self.segments.push_back(Segment { is_raw, ..Segment::default() });
        }
        self.segments.back_mut().expect("just pushed")
    }
}
