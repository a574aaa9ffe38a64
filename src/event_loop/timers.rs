//! The timers of handlers. The deadlines of the timers are in the timer wheel.

use std::fmt;
use std::time::Duration;

use slab::Slab;

use crate::tick::Tick;

/// The id of a timer. An id is never reused for another timer.
///
/// The methods of [`Context`](crate::Context) that start a timer return the id, and [`cancel`](crate::Context::cancel)
/// takes the id as its argument.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    index: u32,
    serial: u64,
}

/// The running timers, by their index in the timer wheel.
#[derive(Debug)]
pub struct Timers {
    timers: Slab<Timer>,
    /// The serial number of the timer that was added last.
    last: u64,
    /// The step from one serial number to the next, which is the number of loops. So two loops never use the same
    /// serial number.
    step: u64,
}

#[derive(Debug)]
struct Timer {
    serial: u64,
    /// The period of a repeating timer, or `None` if the timer fires once.
    every: Option<Duration>,
    at: Tick,
}

/// A timer that fired.
#[derive(Copy, Clone, Debug)]
pub struct Fired {
    pub id: TimerId,
    /// The next expiry of a repeating timer.
    pub again: Option<Tick>,
}

impl TimerId {
    /// Returns the timer's index in the timer wheel.
    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

impl fmt::Display for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timer {}", self.serial)
    }
}

impl Default for Timers {
    fn default() -> Timers {
        Timers::new(0, 1)
    }
}

impl Timers {
    /// Creates the timers of the loop `index` of `loops` loops.
    pub fn new(index: usize, loops: usize) -> Timers {
        Timers { timers: Slab::new(), last: index as u64, step: loops as u64 }
    }

    /// Adds a timer that fires at `at`, and then, if it repeats, once in each period `every`.
    pub fn add(&mut self, at: Tick, every: Option<Duration>) -> TimerId {
        self.last += self.step;
        let serial = self.last;
        let index = self.timers.insert(Timer { serial, every, at }) as u32;
        TimerId { index, serial }
    }

    /// Returns whether a timer is running.
    pub fn contains(&self, id: TimerId) -> bool {
        self.timers.get(id.index as usize).is_some_and(|timer| timer.serial == id.serial)
    }

    /// Returns the number of running timers.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Removes a timer, and returns whether it was running.
    pub fn remove(&mut self, id: TimerId) -> bool {
        let is_there = self.contains(id);
        if is_there {
            self.timers.remove(id.index as usize);
        }
        is_there
    }

    /// Handles the expiry of a timer.
    ///
    /// A repeating timer expires again one period after its deadline, even if the deadline was handled late. Missed
    /// periods are skipped.
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
    fn a_timer_fires_once_and_its_id_is_not_reused() {
        let mut timers = Timers::default();
        let first = timers.add(Tick(5), None);
        assert!(timers.fire(first.index(), Tick(5)).is_some_and(|fired| fired.again.is_none()));
        assert!(timers.fire(first.index(), Tick(6)).is_none());
        let second = timers.add(Tick(9), None);
        assert_eq!(first.index(), second.index());
        assert!(!timers.remove(first), "the id of a removed timer must not remove the next timer with the same index");
        assert!(timers.remove(second));
    }

    #[test]
    fn a_timer_of_one_loop_is_unknown_to_other_loops() {
        let mut loops = [0, 1, 2].map(|index| Timers::new(index, 3));
        let ids = loops.each_mut().map(|timers| timers.add(Tick(5), None));
        for (index, timers) in loops.iter_mut().enumerate() {
            assert_eq!(ids.map(|id| timers.contains(id)), [0, 1, 2].map(|other| other == index));
            assert_eq!(ids.map(|id| timers.remove(id)), [0, 1, 2].map(|other| other == index));
        }
    }

    #[test]
    fn a_repeating_timer_keeps_its_period_and_skips_missed_periods() {
        let mut timers = Timers::default();
        let timer = timers.add(Tick(10), Some(Duration::from_millis(10)));
        let mut fire = |now| timers.fire(timer.index(), Tick(now)).and_then(|fired| fired.again);
        assert_eq!(fire(13), Some(Tick(20)));
        assert_eq!(fire(20), Some(Tick(30)));
        assert_eq!(fire(75), Some(Tick(85)));
    }
}
