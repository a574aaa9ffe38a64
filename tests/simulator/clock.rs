//! The timer wheel, compared with a naive model: a sorted set of deadlines.

use fdpush::Slot;
use std::collections::{BTreeMap, BTreeSet};

use fdpush::sim::{Owner, Tick, Wheel};

/// The timer wheel and its model.
#[derive(Debug)]
pub struct Clock {
    wheel: Wheel,
    armed: BTreeMap<Key, Tick>,
    by_time: BTreeSet<(Tick, Key)>,
    now: Tick,
    /// The latest deadline that `pop` has returned since the last call of `advance`.
    popped: Tick,
    /// Owners whose deadline was at `now` or in the past when it was set. The wheel may return such an owner at `now`
    /// or after the next call of `advance`.
    overdue: BTreeSet<Key>,
}

/// An owner as a sortable key: whether it is a timer, and the index of the timer or the slot of the connection.
type Key = (bool, u32);

fn key(owner: Owner) -> Key {
    match owner {
        Owner::Connection(Slot(slot)) => (false, slot),
        Owner::Timer(index) => (true, index),
    }
}

impl Clock {
    /// Creates a wheel at this tick.
    pub fn new(now: Tick) -> Clock {
        let (armed, by_time, overdue) = Default::default();
        Clock { wheel: Wheel::new(now), armed, by_time, now, popped: Tick(0), overdue }
    }

    /// Sets the deadline of an owner.
    pub fn arm(&mut self, owner: Owner, at: Tick) {
        self.wheel.arm(owner, at);
        self.note(owner, Some(at));
    }

    /// Sets the deadline of an owner, unless the owner has an earlier deadline.
    pub fn arm_no_later(&mut self, owner: Owner, at: Tick) {
        self.wheel.arm_no_later(owner, at);
        // A tick in the past counts as the current tick, so this call does not move a deadline that has expired.
        let at = at.max(self.now);
        if self.armed.get(&key(owner)).is_none_or(|armed| *armed > at) {
            self.note(owner, Some(at));
        }
    }

    /// Removes the deadline of an owner.
    pub fn cancel(&mut self, owner: Owner) {
        self.wheel.cancel(owner);
        self.note(owner, None);
    }

    /// Returns the next tick at which the wheel has work.
    pub fn next(&self) -> Option<Tick> {
        let next = self.wheel.next();
        let first = self.by_time.first().map(|(at, _)| *at);
        assert_eq!(next.is_some(), first.is_some(), "the wheel must have a deadline if and only if its model has one");
        if let (Some(next), Some(first)) = (next, first) {
            assert!(next <= first.max(self.now), "the wheel must wake at {first:?} or before, not at {next:?}");
        }
        next
    }

    /// Returns the deadline of an owner.
    pub fn deadline(&self, owner: Owner) -> Option<Tick> {
        self.wheel.deadline(owner)
    }

    /// Advances the time.
    pub fn advance(&mut self, now: Tick) {
        (self.now, self.popped) = (now, Tick(0));
        self.overdue.clear();
        self.wheel.advance(now);
    }

    /// Returns the next owner whose deadline has expired.
    ///
    /// Checks that no deadline expires too soon, out of order or too late.
    pub fn pop(&mut self) -> Option<Owner> {
        let Some(owner) = self.wheel.pop_expired() else {
            let mut due = self.by_time.iter().take_while(|(at, _)| *at <= self.now);
            let late = due.find(|(_, key)| !self.overdue.contains(key));
            assert_eq!(late, None, "the wheel must return each deadline that has passed at {:?}", self.now);
            return None;
        };
        let at = self.armed.get(&key(owner)).copied();
        let at = at.unwrap_or_else(|| panic!("the wheel returned {owner:?}, which has no deadline"));
        assert!(at <= self.now, "the wheel must not return {owner:?} before its deadline {at:?}: {:?}", self.now);
        assert!(
            self.popped <= at,
            "the wheel must return deadlines in order, but returned {owner:?} with {at:?} after {:?}",
            self.popped
        );
        self.popped = at;
        self.note(owner, None);
        Some(owner)
    }

    /// Compares the wheel with the model.
    pub fn check(&self) {
        self.wheel.check_invariants();
        assert_eq!(
            self.wheel.len(),
            self.armed.len(),
            "the wheel and the model must have the same number of deadlines"
        );
        for (&(is_timer, index), &at) in &self.armed {
            let owner = if is_timer { Owner::Timer(index) } else { Owner::Connection(Slot(index)) };
            assert_eq!(
                self.wheel.deadline(owner),
                Some(at),
                "{owner:?} must have the same deadline in the wheel and in the model"
            );
        }
    }

    /// Returns the number of deadlines in the wheel.
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
            // A tick in the past counts as the current tick.
            let at = at.max(self.now);
            if at == self.now {
                self.overdue.insert(key);
            }
            self.armed.insert(key, at);
            self.by_time.insert((at, key));
        }
    }
}
