//! The wheel with a naive twin at its side: a sorted set of deadlines.

use fdpush::Slot;
use std::collections::{BTreeMap, BTreeSet};

use fdpush::sim::{Owner, Tick, Wheel};

/// The wheel, and what should be in it.
#[derive(Debug)]
pub struct Clock {
    wheel: Wheel,
    armed: BTreeMap<Key, Tick>,
    by_time: BTreeSet<(Tick, Key)>,
    now: Tick,
    /// The deadline that was popped last since time moved on.
    popped: Tick,
    /// Who was armed for a tick that had come, since time moved on: they wait until it does again.
    overdue: BTreeSet<Key>,
}

/// An owner that can be sorted: whether it is a timer, and its index.
type Key = (bool, u32);

fn key(owner: Owner) -> Key {
    match owner {
        Owner::Connection(Slot(slot)) => (false, slot),
        Owner::Timer(index) => (true, index),
    }
}

impl Clock {
    /// A clock at this tick.
    pub fn new(now: Tick) -> Clock {
        let (armed, by_time, overdue) = Default::default();
        Clock { wheel: Wheel::new(now), armed, by_time, now, popped: Tick(0), overdue }
    }

    /// Sets a deadline.
    pub fn arm(&mut self, owner: Owner, at: Tick) {
        self.wheel.arm(owner, at);
        self.note(owner, Some(at));
    }

    /// Sets a deadline where there is none as early.
    pub fn arm_no_later(&mut self, owner: Owner, at: Tick) {
        self.wheel.arm_no_later(owner, at);
        if self.armed.get(&key(owner)).is_none_or(|armed| *armed > at) {
            self.note(owner, Some(at));
        }
    }

    /// Forgets a deadline.
    pub fn cancel(&mut self, owner: Owner) {
        self.wheel.cancel(owner);
        self.note(owner, None);
    }

    /// When there is something to do next.
    pub fn next(&self) -> Option<Tick> {
        let next = self.wheel.next();
        let first = self.by_time.first().map(|(at, _)| *at);
        assert_eq!(next.is_some(), first.is_some(), "the wheel sleeps, or wakes for nobody");
        if let (Some(next), Some(first)) = (next, first) {
            assert!(next <= first.max(self.now), "the wheel would sleep until {next:?}, past {first:?}");
        }
        next
    }

    /// The deadline of an owner.
    pub fn deadline(&self, owner: Owner) -> Option<Tick> {
        self.wheel.deadline(owner)
    }

    /// Moves time on.
    pub fn advance(&mut self, now: Tick) {
        (self.now, self.popped) = (now, Tick(0));
        self.overdue.clear();
        self.wheel.advance(now);
    }

    /// The next whose deadline has come: none early, none out of order, none missing.
    pub fn pop(&mut self) -> Option<Owner> {
        let Some(owner) = self.wheel.pop_expired() else {
            let mut due = self.by_time.iter().take_while(|(at, _)| *at <= self.now);
            let late = due.find(|(_, key)| !self.overdue.contains(key));
            assert_eq!(late, None, "the wheel is late at {:?}", self.now);
            return None;
        };
        let at = self.armed.get(&key(owner)).copied();
        let at = at.unwrap_or_else(|| panic!("{owner:?} expired and was not armed"));
        assert!(at <= self.now, "{owner:?} expired at {:?}, early for {at:?}", self.now);
        assert!(self.popped <= at, "{owner:?} expired out of order");
        self.popped = at;
        self.note(owner, None);
        Some(owner)
    }

    /// Compares all there is.
    pub fn check(&self) {
        self.wheel.check_invariants();
        assert_eq!(self.wheel.len(), self.armed.len(), "deadlines in the wheel");
        for (&(is_timer, index), &at) in &self.armed {
            let owner = if is_timer { Owner::Timer(index) } else { Owner::Connection(Slot(index)) };
            assert_eq!(self.wheel.deadline(owner), Some(at), "deadline of {owner:?}");
        }
    }

    /// How many deadlines there are.
    pub fn len(&self) -> usize {
        self.wheel.len()
    }

    fn note(&mut self, owner: Owner, at: Option<Tick>) {
        let key = key(owner);
        if let Some(old) = self.armed.remove(&key) {
            self.by_time.remove(&(old, key));
            self.overdue.remove(&key);
        }
        if let Some(at) = at {
            // A tick that has passed counts as the present one.
            let at = at.max(self.now);
            if at == self.now {
                self.overdue.insert(key);
            }
            self.armed.insert(key, at);
            self.by_time.insert((at, key));
        }
    }
}
