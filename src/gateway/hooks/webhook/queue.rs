//! The bounded queue of webhook events. The queue keeps the order of the events, and counts lost events by reason.
//!
//! The loop's thread pushes events. The worker takes batches of events from the front of the queue. Each event gets the
//! next sequence number when it is pushed, even if the queue is full. So the back end sees a gap in the sequence
//! numbers for each lost event.
//!
//! A thread holds the lock of the queue only for a short time. A thread that writes JSON or frees many events does not
//! hold the lock.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The maximum number of events that [`EventQueue::failed`] drops before it releases the lock.
const GIVE_UP_AT_ONCE: usize = 256;

/// An event that waits in the queue or is in flight.
#[derive(Debug)]
pub struct Entry {
    pub seq: u64,
    /// The time at which the event was pushed into the queue.
    pub at: Instant,
    /// The event as a JSON object, without the member `seq`.
    pub json: Box<[u8]>,
}

/// The bounds of the queue. The events of the batch in flight also count towards these bounds.
///
/// Above these bounds, new `message` and `send` events are dropped. Above twice these bounds, all new events are
/// dropped.
#[derive(Copy, Clone, Debug)]
pub struct Bounds {
    pub events_max: usize,
    pub bytes_max: usize,
}

/// The maximum number of bytes that a sequence number and a comma add to the JSON of an event:
/// `,"seq":18446744073709551615,`.
const SEQ_BYTES: usize = 28;

/// The bounds of a batch. A batch has at least one event, even if that event exceeds the bounds.
#[derive(Copy, Clone, Debug)]
pub struct BatchBounds {
    pub events_max: usize,
    /// The maximum sum of the [`Entry::bytes`] in a batch.
    pub bytes_max: usize,
}

/// The statistics of the events of this process, since its start.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct WebhookStats {
    /// The number of events that wait in the queue or are in flight.
    pub queued: usize,
    /// The number of events that the back end accepted.
    pub sent: u64,
    /// The number of requests that failed or were refused.
    pub failures: u64,
    pub given_up: GivenUp,
}

/// The numbers of dropped events, by reason.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct GivenUp {
    /// The number of events that the back end refused in a request without other events.
    pub refused: u64,
    /// The number of events that were dropped because the back end did not accept them within `webhook_retry_time_max`.
    pub timed_out: u64,
    /// The number of events that were dropped because the queue was full.
    pub queue_full: u64,
    /// The number of events for which no memory could be allocated.
    pub out_of_memory: u64,
    /// The number of events that were dropped because the server ended.
    pub shutdown: u64,
    /// The number of `message` and `send` events that exceeded `webhook_event_bytes_max`. The client of such an event
    /// got an error. Such an event has no sequence number.
    pub too_large: u64,
}

impl GivenUp {
    /// Returns the number of gaps in the sequence numbers of the events.
    pub fn gaps(&self) -> u64 {
        self.refused + self.timed_out + self.queue_full + self.out_of_memory + self.shutdown
    }
}

impl Entry {
    /// Returns the maximum number of bytes that the event adds to the body of a request.
    pub fn bytes(&self) -> usize {
        self.json.len() + SEQ_BYTES
    }
}

/// The queue of events from the loop's thread to the worker.
#[derive(Debug)]
pub struct EventQueue {
    bounds: Bounds,
    state: Mutex<QueueState>,
    /// The condition variable on which the worker waits for events or for the end of a pause.
    for_worker: Condvar,
    /// The condition variable on which [`EventQueue::finish`] waits for the worker.
    for_finisher: Condvar,
}

#[derive(Debug)]
struct QueueState {
    waiting: VecDeque<Entry>,
    /// The number of bytes in events that wait in the queue or are in flight.
    bytes: usize,
    last_seq: u64,
    /// The statistics of the events. `queued` counts the events in `waiting` and the events in flight.
    stats: WebhookStats,
    phase: Phase,
    /// The number of events that were dropped because the queue ended. [`EventQueue::finish`] returns this number.
    dropped_at_end: usize,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// The queue accepts no more events. The worker sends the waiting events until this time.
    Finishing(Instant),
    /// The queue has ended. The worker sends no more events.
    Over,
}

impl EventQueue {
    pub fn new(bounds: Bounds) -> EventQueue {
        let state = QueueState {
            waiting: VecDeque::new(),
            bytes: 0,
            last_seq: 0,
            stats: WebhookStats::default(),
            phase: Phase::Open,
            dropped_at_end: 0,
        };
        EventQueue { bounds, state: Mutex::new(state), for_worker: Condvar::new(), for_finisher: Condvar::new() }
    }

    /// Gives an event its sequence number, and appends the event to the queue. Drops the event and returns `false` if
    /// the queue is full or has ended, or has no memory for the event.
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
        if state.waiting.try_reserve(1).is_err() {
            state.stats.given_up.out_of_memory += 1;
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

    /// Waits for events and takes a batch. Returns `None` if the queue has ended, or if the queue is empty and accepts
    /// no more events.
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

    /// Counts the first `count` events of the batch as accepted, and removes them from the batch.
    pub fn delivered(&self, batch: &mut VecDeque<Entry>, count: usize) {
        let mut state = self.lock();
        // If the queue has ended, `end` has already counted the events in flight as dropped.
        if state.phase != Phase::Over {
            state.stats.sent += count as u64;
            state.leave(batch.iter().take(count));
            self.wake_finisher_if_empty(&state);
        }
        drop(state);
        batch.drain(..count);
    }

    /// Counts a refused request that had several events.
    pub fn count_refused_request(&self) {
        self.lock().stats.failures += 1;
    }

    /// Counts a refused request whose only event was the first event of the batch. Drops this event.
    pub fn drop_refused(&self, batch: &mut VecDeque<Entry>) {
        let mut state = self.lock();
        state.stats.failures += 1;
        if state.phase != Phase::Over {
            state.stats.given_up.refused += 1;
            state.leave(batch.iter().take(1));
            self.wake_finisher_if_empty(&state);
        }
        drop(state);
        batch.pop_front();
    }

    /// Counts an event for which no memory could be allocated. The event gets a sequence number, so the back end sees a
    /// gap.
    pub fn drop_unallocated(&self) {
        let mut state = self.lock();
        state.last_seq += 1;
        state.stats.given_up.out_of_memory += 1;
    }

    /// Counts an event that exceeds `webhook_event_bytes_max`.
    pub fn count_too_large(&self) {
        self.lock().stats.given_up.too_large += 1;
    }

    /// Counts a failed request that can be repeated.
    ///
    /// Drops the events that were pushed earlier than `before`, first from the batch, then from the queue. Returns the
    /// number of dropped events.
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
        self.wake_finisher_if_empty(&state);
        count
    }

    /// Waits for `time` before the next request, but at most until the queue ends.
    ///
    /// If `is_finishing` is `false`, the wait also ends when the queue starts to finish. If `is_finishing` is `true`,
    /// the caller already knows that the queue is finishing. Returns whether the queue is finishing or has ended.
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

    /// Returns the timeout of the next request: the shorter of `timeout` and the time until the deadline of a stopping
    /// server. Returns `None` if the deadline has passed or the queue has ended.
    pub fn timeout(&self, timeout: Duration, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let time = state.time_left(now).map_or(timeout, |left| left.min(timeout));
        (!time.is_zero() && state.phase != Phase::Over).then_some(time)
    }

    /// Accepts no more events. Waits until `deadline` for the worker to send the waiting events. Returns the number of
    /// dropped events.
    pub fn finish(&self, deadline: Instant, now: Instant) -> usize {
        let mut state = self.lock();
        if state.phase == Phase::Over {
            return std::mem::take(&mut state.dropped_at_end);
        }
        state.phase = Phase::Finishing(deadline);
        self.for_worker.notify_one();
        let left = deadline.saturating_duration_since(now);
        let is_busy = |state: &mut QueueState| state.stats.queued > 0 && state.phase != Phase::Over;
        let waited = self.for_finisher.wait_timeout_while(state, left, is_busy);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // If the worker has already ended the queue, this call of `end` counts no event a second time.
        let waiting = state.end();
        let dropped = std::mem::take(&mut state.dropped_at_end);
        drop(state);
        drop(waiting);
        self.for_worker.notify_one();
        dropped
    }

    /// Ends the queue: drops the waiting events, and makes `finish` return.
    pub fn end(&self) {
        // The events are freed at the end of this function, after the lock is released.
        let _waiting = self.lock().end();
        self.for_worker.notify_one();
        self.for_finisher.notify_all();
    }

    pub fn stats(&self) -> WebhookStats {
        self.lock().stats
    }

    /// Wakes `finish` if no event waits or is in flight.
    fn wake_finisher_if_empty(&self, state: &QueueState) {
        if state.stats.queued == 0 {
            self.for_finisher.notify_all();
        }
    }

    /// Locks the state. No thread panics while it holds this lock, so the state is always valid.
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

    /// The first call of `end` ends the queue and counts the events of the queue as dropped. Returns the waiting
    /// events, so that the caller frees them without the lock.
    fn end(&mut self) -> VecDeque<Entry> {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.dropped_at_end = std::mem::take(&mut self.stats.queued);
            self.stats.given_up.shutdown += self.dropped_at_end as u64;
            self.bytes = 0;
        }
        std::mem::take(&mut self.waiting)
    }
}
