//! The schedule by which a drain closes the WebSockets.

use std::collections::VecDeque;

use crate::fd::Fd;
use crate::limits::Limits;
use crate::tick::Tick;

/// A drain in progress.
#[derive(Debug)]
pub struct Drain {
    /// The time at which the loop ends, even if connections are left.
    pub until: Tick,
    /// Whether the drain is closing control connections, which it closes last.
    pub is_last: bool,
    started: Tick,
    spread_ms: u128,
    /// WebSockets that are not closed yet, in the order of their close.
    left: VecDeque<Fd>,
    total: usize,
}

impl Drain {
    /// Creates a drain of the WebSockets `open`. The closes are spread evenly over `drain_for`.
    pub fn new(now: Tick, limits: &Limits, open: VecDeque<Fd>) -> Drain {
        Drain {
            until: now.after(limits.drain_time_max),
            is_last: false,
            started: now,
            spread_ms: limits.drain_for.as_millis(),
            total: open.len(),
            left: open,
        }
    }

    /// Removes the next connection that is due to be closed.
    pub fn pop_due(&mut self, now: Tick) -> Option<Fd> {
        if self.next_due()? > now { None } else { self.left.pop_front() }
    }

    /// Returns the time of the next close, or of the end of the drain.
    pub fn next(&self) -> Tick {
        self.next_due().map_or(self.until, |due| due.min(self.until))
    }

    fn next_due(&self) -> Option<Tick> {
        if self.left.is_empty() {
            return None;
        }
        let closed = (self.total - self.left.len()) as u128;
        let after_ms = self.spread_ms * closed / self.total as u128;
        Some(Tick(self.started.0.saturating_add(u64::try_from(after_ms).unwrap_or(u64::MAX))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fd::Slot;

    fn drain(spread: u64, count: u32) -> Drain {
        let limits = Limits { drain_for: Duration::from_millis(spread), ..Limits::default() };
        Drain::new(Tick(1000), &limits, (0..count).map(|slot| Fd::new(Slot(slot), 0)).collect())
    }

    #[test]
    fn without_a_spread_all_closes_are_due_at_once() {
        let mut drain = drain(0, 3);
        assert_eq!(drain.next(), Tick(1000));
        assert_eq!(std::iter::from_fn(|| drain.pop_due(Tick(1000))).count(), 3);
        assert_eq!(drain.next(), drain.until);
    }

    #[test]
    fn closes_are_spread_evenly() {
        let mut drain = drain(1000, 10);
        for closed in 0..10 {
            let due = Tick(1000 + closed * 100);
            assert_eq!(drain.next(), due);
            assert!(drain.pop_due(Tick(due.0 - 1)).is_none());
            assert!(drain.pop_due(due).is_some());
        }
        assert!(drain.pop_due(Tick(u64::MAX)).is_none());
    }

    #[test]
    fn a_late_turn_closes_all_due_connections() {
        let mut drain = drain(1000, 10);
        assert_eq!(std::iter::from_fn(|| drain.pop_due(Tick(1550))).count(), 6);
    }
}
