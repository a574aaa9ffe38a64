//! The events that wait for the back end: bounded, in order, with every loss counted by its reason.
//!
//! The loop's thread pushes, the worker takes a batch at a time from the front. Each event takes the next number when it
//! is pushed, also one for which there is no room: an event that is given up leaves a hole that the receiver sees.
//!
//! The one lock is held for a few moves of pointers only, never while JSON is written or memory of many events is freed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many events are given up under one hold of the lock.
const GIVE_UP_AT_ONCE: usize = 256;

/// An event that waits.
#[derive(Debug)]
pub struct Entry {
    pub seq: u64,
    pub at: Instant,
    /// A JSON object, as yet without its number.
    pub json: Box<[u8]>,
}

/// How much may wait, what is on its way included. Messages are given up over it; all other events may use as much again.
#[derive(Copy, Clone, Debug)]
pub struct Bounds {
    pub events_max: usize,
    pub bytes_max: usize,
}

/// Bytes that a number adds to an event in a body, with the comma before the event: `,"seq":18446744073709551615,`.
const SEQ_BYTES: usize = 28;

/// The most of a batch. A batch has at least one event, however large that is.
#[derive(Copy, Clone, Debug)]
pub struct BatchBounds {
    pub events_max: usize,
    /// Of the events with their numbers, as [`Entry::bytes`] counts them.
    pub bytes_max: usize,
}

/// What became of the events of this run.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Events that wait, or are on their way.
    pub queued: usize,
    /// Events that the back end took.
    pub sent: u64,
    /// Requests that failed, those that the back end refused included.
    pub failures: u64,
    pub given_up: GivenUp,
}

/// Events that the back end never gets, by reason.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct GivenUp {
    /// The back end refused it, in a request of its own.
    pub refused: u64,
    /// The back end took it in no try of the time that there is for it.
    pub timed_out: u64,
    /// The queue had no room.
    pub queue_full: u64,
    /// It was left when the server ended.
    pub shutdown: u64,
    /// The event of a frame was over the bound on an event. Its client knows, and it took no number.
    pub too_large: u64,
}

impl GivenUp {
    /// Those that took a number: the holes in the sequence.
    pub fn holes(&self) -> u64 {
        self.refused + self.timed_out + self.queue_full + self.shutdown
    }
}

impl Entry {
    /// Its bytes in a body.
    pub fn bytes(&self) -> usize {
        self.json.len() + SEQ_BYTES
    }
}

/// The queue between the loop's thread and the worker.
#[derive(Debug)]
pub struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    /// The worker waits here for events, or for the time to try again.
    for_worker: Condvar,
    /// Whoever finishes waits here for the worker.
    for_finisher: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Entry>,
    /// Of the events that wait and of those on their way.
    bytes: usize,
    last_seq: u64,
    /// `queued` is never less than what is in `waiting`; the rest is on its way.
    stats: Stats,
    phase: Phase,
    /// How many events were left at the end, until whoever finishes has been told.
    rest: usize,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// Nothing more comes in. What is there goes out until then.
    Finishing(Instant),
    /// Nothing goes out any more.
    Over,
}

impl Queue {
    pub fn new(bounds: Bounds) -> Queue {
        let state = State {
            waiting: VecDeque::new(),
            bytes: 0,
            last_seq: 0,
            stats: Stats::default(),
            phase: Phase::Open,
            rest: 0,
        };
        Queue { bounds, state: Mutex::new(state), for_worker: Condvar::new(), for_finisher: Condvar::new() }
    }

    /// Numbers an event and puts it at the end. `false` where there is no room, or nothing is taken any more.
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

    /// Waits for events and takes a batch of them. `None` when no more will come, or go.
    pub fn take(&self, bounds: BatchBounds) -> Option<VecDeque<Entry>> {
        let guard = self.lock();
        let is_idle = |state: &mut State| state.waiting.is_empty() && state.phase == Phase::Open;
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

    /// The back end took the first `count` events of the batch.
    pub fn delivered(&self, batch: &mut VecDeque<Entry>, count: usize) {
        let mut state = self.lock();
        // After the end it came too late: they are counted as given up.
        if state.phase != Phase::Over {
            state.stats.sent += count as u64;
            state.leave(batch.iter().take(count));
            self.tell_if_empty(&state);
        }
        drop(state);
        batch.drain(..count);
    }

    /// The back end refused a request of several events.
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

    /// The event of a frame was too large to be pushed.
    pub fn count_too_large(&self) {
        self.lock().stats.given_up.too_large += 1;
    }

    /// A request failed, and may pass later: gives up the events that came before `before`, of the batch, and then of those
    /// that wait. How many it were.
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

    /// Waits before the next try, but not beyond the end. What is waited for changes when it is to finish: then the wait
    /// is over, unless the caller knew. Whether it is to finish.
    pub fn pause(&self, time: Duration, now: Instant, is_finishing: bool) -> bool {
        let state = self.lock();
        let time = state.time_left(now).map_or(time, |left| left.min(time));
        let goes_on = |state: &mut State| match state.phase {
            Phase::Open => true,
            Phase::Finishing(_) => is_finishing,
            Phase::Over => false,
        };
        let waited = self.for_worker.wait_timeout_while(state, time, goes_on);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.phase != Phase::Open
    }

    /// How long a request may take: `timeout`, but not beyond the end. `None` when it has come.
    pub fn timeout(&self, timeout: Duration, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let time = state.time_left(now).map_or(timeout, |left| left.min(timeout));
        (!time.is_zero() && state.phase != Phase::Over).then_some(time)
    }

    /// Takes no more events, gives the worker until `deadline` to send those that are there, and waits for it. How many
    /// were given up in the end.
    pub fn finish(&self, deadline: Instant, now: Instant) -> usize {
        let mut state = self.lock();
        if state.phase == Phase::Over {
            return std::mem::take(&mut state.rest);
        }
        state.phase = Phase::Finishing(deadline);
        self.for_worker.notify_one();
        let left = deadline.saturating_duration_since(now);
        let is_busy = |state: &mut State| state.stats.queued > 0 && state.phase != Phase::Over;
        let waited = self.for_finisher.wait_timeout_while(state, left, is_busy);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // The worker may have come first.
        let waiting = state.end();
        let rest = std::mem::take(&mut state.rest);
        drop(state);
        drop(waiting);
        self.for_worker.notify_one();
        rest
    }

    /// Nothing is sent any more, because the worker ends or nobody wants to wait for it: whoever finishes need not.
    pub fn end(&self) {
        // The binding outlives the lock, so that the events are freed without it.
        let _waiting = self.lock().end();
        self.for_worker.notify_one();
        self.for_finisher.notify_all();
    }

    pub fn stats(&self) -> Stats {
        self.lock().stats
    }

    /// Wakes whoever finishes, if nothing is left to send.
    fn tell_if_empty(&self, state: &State) {
        if state.stats.queued == 0 {
            self.for_finisher.notify_all();
        }
    }

    /// Nothing can panic while the lock is held, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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

    /// Gives up all that is left, once. What waited is given back only to be freed.
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
