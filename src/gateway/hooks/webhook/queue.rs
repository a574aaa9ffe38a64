//! The queue of webhook events: bounded, in order, with each loss counted by its reason.
//!
//! The loop's thread pushes events. The worker takes batches from the front. Each event gets the next sequence number
//! when it is pushed, even if the queue is full, so the receiver sees a gap for each lost event.
//!
//! The lock is held only for a few pointer moves, never while JSON is written or many events are freed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The number of events that are dropped under one lock.
const GIVE_UP_AT_ONCE: usize = 256;

/// A waiting event.
#[derive(Debug)]
pub struct Entry {
    pub seq: u64,
    pub at: Instant,
    /// A JSON object without its sequence number.
    pub json: Box<[u8]>,
}

/// The bounds of the queue, including the batch in flight. Above them, events of frames are dropped. Other events may
/// use twice as much.
#[derive(Copy, Clone, Debug)]
pub struct Bounds {
    pub events_max: usize,
    pub bytes_max: usize,
}

/// The bytes of a sequence number in a body, with the comma before the event: `,"seq":18446744073709551615,`.
const SEQ_BYTES: usize = 28;

/// The bounds of a batch. A batch has at least one event, of any size.
#[derive(Copy, Clone, Debug)]
pub struct BatchBounds {
    pub events_max: usize,
    /// Counted by [`Entry::bytes`].
    pub bytes_max: usize,
}

/// The statistics of the events of this process.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Events that wait or are in flight.
    pub queued: usize,
    /// Events that the back end accepted.
    pub sent: u64,
    /// Failed requests, including refused ones.
    pub failures: u64,
    pub given_up: GivenUp,
}

/// Dropped events, by reason.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct GivenUp {
    /// Records that the back end refused a request with several events.
    pub refused: u64,
    /// The back end accepted no request with it in time.
    pub timed_out: u64,
    /// The queue was full.
    pub queue_full: u64,
    /// It was in the queue when the server ended.
    pub shutdown: u64,
    /// The event of a frame exceeded the bound. The client got an error, and no sequence number was used.
    pub too_large: u64,
}

impl GivenUp {
    /// Returns the number of gaps in the sequence.
    pub fn holes(&self) -> u64 {
        self.refused + self.timed_out + self.queue_full + self.shutdown
    }
}

impl Entry {
    /// Returns the bytes in a body.
    pub fn bytes(&self) -> usize {
        self.json.len() + SEQ_BYTES
    }
}

/// The queue between the loop's thread and the worker.
#[derive(Debug)]
pub struct EventQueue {
    bounds: Bounds,
    state: Mutex<QueueState>,
    /// The worker waits here for events or for the end of a pause.
    for_worker: Condvar,
    /// [`EventQueue::finish`] waits here for the worker.
    for_finisher: Condvar,
}

#[derive(Debug)]
struct QueueState {
    waiting: VecDeque<Entry>,
    /// The bytes of events that wait or are in flight.
    bytes: usize,
    last_seq: u64,
    /// `queued` is at least the length of `waiting`. The difference is in flight.
    stats: Stats,
    phase: Phase,
    /// The number of events dropped at the end, until `finish` returns it.
    rest: usize,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// The queue accepts no more events. The waiting ones are sent until this time.
    Finishing(Instant),
    /// No more events are sent.
    Over,
}

impl EventQueue {
    pub fn new(bounds: Bounds) -> EventQueue {
        let state = QueueState {
            waiting: VecDeque::new(),
            bytes: 0,
            last_seq: 0,
            stats: Stats::default(),
            phase: Phase::Open,
            rest: 0,
        };
        EventQueue { bounds, state: Mutex::new(state), for_worker: Condvar::new(), for_finisher: Condvar::new() }
    }

    /// Numbers an event and appends it. Returns `false` if the queue is full or ended.
    pub fn push(&self, json: Box<[u8]>, is_frame: bool, at: Instant) -> bool {
        let factor = if is_frame { 1 } else { 2 };
        let mut state = self.lock();
        state.last_seq += 1;
        let has_room = state.stats.queued < self.bounds.events_max.saturating_mul(factor)
            && state.bytes.saturating_add(json.len()) <= self.bounds.bytes_max.saturating_mul(factor);
        if state.phase != Phase::Open {
            state.stats.given_up.shutdown += 1;
            return false;
        }
        if !has_room {
            state.stats.given_up.queue_full += 1;
            return false;
        }
        state.bytes += json.len();
        state.stats.queued += 1;
        let seq = state.last_seq;
        state.waiting.push_back(Entry { seq, at, json });
        let is_first = state.waiting.len() == 1;
        drop(state);
        if is_first {
            self.for_worker.notify_one();
        }
        true
    }

    /// Waits for events and takes a batch. Returns `None` at the end.
    pub fn take(&self, bounds: BatchBounds) -> Option<VecDeque<Entry>> {
        let guard = self.lock();
        let is_idle = |state: &mut QueueState| state.waiting.is_empty() && state.phase == Phase::Open;
        let mut state = self.for_worker.wait_while(guard, is_idle).unwrap_or_else(PoisonError::into_inner);
        if state.phase == Phase::Over || state.waiting.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fitting = state.waiting.iter().take(bounds.events_max).take_while(|entry| {
            bytes += entry.bytes();
            bytes <= bounds.bytes_max
        });
        let count = fitting.count().max(1);
        Some(state.waiting.drain(..count).collect())
    }

    /// Records that the back end accepted the first `count` events of the batch.
    pub fn delivered(&self, batch: &mut VecDeque<Entry>, count: usize) {
        let mut state = self.lock();
        // After the end, the events are already counted as dropped.
        if state.phase != Phase::Over {
            state.stats.sent += count as u64;
            state.leave(batch.iter().take(count));
            self.tell_if_empty(&state);
        }
        drop(state);
        batch.drain(..count);
    }

    /// Records that the back end refused the first event alone, and drops it.
    pub fn refused(&self) {
        self.lock().stats.failures += 1;
    }

    /// The back end refused a request of the first event alone, which is given up.
    pub fn refused_one(&self, batch: &mut VecDeque<Entry>) {
        let mut state = self.lock();
        state.stats.failures += 1;
        if state.phase != Phase::Over {
            state.stats.given_up.refused += 1;
            state.leave(batch.iter().take(1));
            self.tell_if_empty(&state);
        }
        drop(state);
        batch.pop_front();
    }

    /// Records an event over the bound.
    pub fn count_too_large(&self) {
        self.lock().stats.given_up.too_large += 1;
    }

    /// Records a failed request that can be repeated.
    ///
    /// Drops the events older than `before`, first of the batch, then of the queue. Returns their number.
    pub fn failed(&self, batch: &mut VecDeque<Entry>, before: Option<Instant>) -> usize {
        let is_old = |entry: &&Entry| before.is_some_and(|before| entry.at < before);
        let mut old: Vec<Entry> = batch.drain(..batch.iter().take_while(is_old).count()).collect();
        let mut count = 0;
        let mut state = self.lock();
        state.stats.failures += 1;
        while state.phase != Phase::Over {
            state.stats.given_up.timed_out += old.len() as u64;
            state.leave(old.iter());
            count += old.len();
            let old_count = state.waiting.iter().take(GIVE_UP_AT_ONCE).take_while(is_old).count();
            if old_count == 0 || !batch.is_empty() {
                break;
            }
            let next = state.waiting.drain(..old_count).collect();
            drop(state);
            old = next;
            state = self.lock();
        }
        self.tell_if_empty(&state);
        count
    }

    /// Waits before the next request, at most until the end. The wait ends early when the queue begins to finish,
    /// unless the caller knows that. Returns whether the queue finishes.
    pub fn pause(&self, time: Duration, now: Instant, is_finishing: bool) -> bool {
        let state = self.lock();
        let time = state.time_left(now).map_or(time, |left| left.min(time));
        let goes_on = |state: &mut QueueState| match state.phase {
            Phase::Open => true,
            Phase::Finishing(_) => is_finishing,
            Phase::Over => false,
        };
        let waited = self.for_worker.wait_timeout_while(state, time, goes_on);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.phase != Phase::Open
    }

    /// Returns the timeout of a request, at most until the end. `None`: the time is over.
    pub fn timeout(&self, timeout: Duration, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let time = state.time_left(now).map_or(timeout, |left| left.min(timeout));
        (!time.is_zero() && state.phase != Phase::Over).then_some(time)
    }

    /// Takes no more events, and waits until `deadline` for the worker to send the waiting ones. Returns the number of
    /// dropped events.
    pub fn finish(&self, deadline: Instant, now: Instant) -> usize {
        let mut state = self.lock();
        if state.phase == Phase::Over {
            return std::mem::take(&mut state.rest);
        }
        state.phase = Phase::Finishing(deadline);
        self.for_worker.notify_one();
        let left = deadline.saturating_duration_since(now);
        let is_busy = |state: &mut QueueState| state.stats.queued > 0 && state.phase != Phase::Over;
        let waited = self.for_finisher.wait_timeout_while(state, left, is_busy);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // The worker may have ended the queue before.
        let waiting = state.end();
        let rest = std::mem::take(&mut state.rest);
        drop(state);
        drop(waiting);
        self.for_worker.notify_one();
        rest
    }

    /// Ends the queue: the waiting events are dropped, and `finish` returns.
    pub fn end(&self) {
        // The binding outlives the lock, so the events are freed without the lock.
        let _waiting = self.lock().end();
        self.for_worker.notify_one();
        self.for_finisher.notify_all();
    }

    pub fn stats(&self) -> Stats {
        self.lock().stats
    }

    /// Wakes `finish` if the queue is empty.
    fn tell_if_empty(&self, state: &QueueState) {
        if state.stats.queued == 0 {
            self.for_finisher.notify_all();
        }
    }

    /// No code panics while it holds the lock, so a poisoned lock is sound.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    fn time_left(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Open => None,
            Phase::Finishing(deadline) => Some(deadline.saturating_duration_since(now)),
            Phase::Over => Some(Duration::ZERO),
        }
    }

    fn leave<'e>(&mut self, entries: impl ExactSizeIterator<Item = &'e Entry>) {
        self.stats.queued -= entries.len();
        self.bytes -= entries.map(|entry| entry.json.len()).sum::<usize>();
        debug_assert!(self.stats.queued >= self.waiting.len());
    }

    /// Drops all events, once. The waiting ones are returned, to be freed without the lock.
    fn end(&mut self) -> VecDeque<Entry> {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.rest = std::mem::take(&mut self.stats.queued);
            self.stats.given_up.shutdown += self.rest as u64;
            self.bytes = 0;
        }
        std::mem::take(&mut self.waiting)
    }
}
