//! Timers of handlers: what `after` and `every` made. Their deadlines are in the wheel; here is whose they are.

use std::fmt;
use std::time::Duration;

use slab::Slab;

use crate::tick::Tick;

/// A timer's name, as `after` and `every` return it and `on_timer` hears it. Never used for another timer.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    index: u32,
    serial: u64,
}

/// The timers there are, by their index in the wheel.
#[derive(Debug, Default)]
pub struct Timers {
    timers: Slab<Timer>,
    made: u64,
}

#[derive(Debug)]
struct Timer {
    serial: u64,
    /// `None`: it fires once.
    every: Option<Duration>,
    at: Tick,
}

/// What is to be done about a timer that fired.
#[derive(Copy, Clone, Debug)]
pub struct Fired {
    pub id: TimerId,
    /// When it fires again, if it does.
    pub again: Option<Tick>,
}

impl TimerId {
    /// The index in the wheel.
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

impl fmt::Display for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timer {}", self.serial)
    }
}

impl Timers {
    /// A timer for `at`, and after that `every` so often.
    pub fn add(&mut self, at: Tick, every: Option<Duration>) -> TimerId {
        self.made += 1;
        let serial = self.made;
        let index = self.timers.insert(Timer { serial, every, at }) as u32;
        TimerId { index, serial }
    }

    /// Whether a timer is still to fire.
    pub fn contains(&self, id: TimerId) -> bool {
        self.timers.get(id.index as usize).is_some_and(|timer| timer.serial == id.serial)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Ends a timer. `false`: it had ended already.
    pub fn remove(&mut self, id: TimerId) -> bool {
        let is_there = self.contains(id);
        if is_there {
            self.timers.remove(id.index as usize);
        }
        is_there
    }

    /// Takes note that a timer fired. One that repeats keeps its pace: it fires again a period after it should have,
    /// not after it did, and periods that were missed altogether are left out.
    pub fn fire(&mut self, index: u32, now: Tick) -> Option<Fired> {
        let timer = self.timers.get_mut(index as usize)?;
        let id = TimerId { index, serial: timer.serial };
        let Some(every) = timer.every else {
            self.timers.remove(index as usize);
            return Some(Fired { id, again: None });
        };
        let next = timer.at.after(every);
        timer.at = if next > now { next } else { now.after(every) };
        Some(Fired { id, again: Some(timer.at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_is_once_and_an_index_is_no_name() {
        let mut timers = Timers::default();
        let first = timers.add(Tick(5), None);
        assert!(timers.fire(first.index(), Tick(5)).is_some_and(|fired| fired.again.is_none()));
        assert!(timers.fire(first.index(), Tick(6)).is_none());
        let second = timers.add(Tick(9), None);
        assert_eq!(first.index(), second.index());
        assert!(!timers.remove(first), "its index has another timer now");
        assert!(timers.remove(second));
    }

    #[test]
    fn a_repeating_timer_keeps_its_pace_and_does_not_catch_up() {
        let mut timers = Timers::default();
        let timer = timers.add(Tick(10), Some(Duration::from_millis(10)));
        let mut fire = |now| timers.fire(timer.index(), Tick(now)).and_then(|fired| fired.again);
        assert_eq!(fire(13), Some(Tick(20)));
        assert_eq!(fire(20), Some(Tick(30)));
        assert_eq!(fire(75), Some(Tick(85)));
    }
}
