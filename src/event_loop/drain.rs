//! The schedule by which a drain closes the WebSockets.

use crate::connection::SlotSet;
use crate::fd::Slot;
use crate::limits::Limits;
use crate::tick::Tick;

/// A drain in progress.
#[derive(Debug)]
pub struct Drain {
    /// The time at which the loop ends, even if connections are left.
    pub until: Tick,
    /// Whether the drain is closing control connections, which it closes last.
    pub is_last: bool,
    /// The next slot to search for a connection that is not an open WebSocket, or `None` after all slots were searched.
    ///
    /// These connections are ended at the start of the drain.
    pub search_from: Option<Slot>,
    started: Tick,
    spread_ms: u128,
    /// WebSockets that are not closed yet. They are closed in the order of their slots.
    ///
    /// No client connects during a drain, so no other client gets the slot of a WebSocket that ends by itself.
    left: SlotSet,
    /// No WebSocket in `left` has a lower slot.
    first: Slot,
    total: usize,
    closed: usize,
}

impl Drain {
    /// Creates a drain of the WebSockets `open`. The closes are spread evenly over `drain_for`.
    pub fn new(now: Tick, limits: &Limits, open: SlotSet) -> Drain {
        Drain {
            until: now.after(limits.drain_time_max),
            is_last: false,
            search_from: Some(Slot(0)),
            started: now,
            spread_ms: limits.drain_for.as_millis(),
            total: open.count(),
            closed: 0,
            left: open,
            first: Slot(0),
        }
    }

    /// Adds a WebSocket that opened during the search for other connections, unless it is added already.
    pub fn add(&mut self, slot: Slot) {
        if self.left.insert(slot) {
            self.total += 1;
            self.first = self.first.min(slot);
        }
    }

    /// Removes the next WebSocket that is due to be closed.
    pub fn pop_due(&mut self, now: Tick) -> Option<Slot> {
        if self.next_due()? > now {
            return None;
        }
        self.first = self.left.iter_from(self.first).next()?;
        self.left.remove(self.first);
        self.closed += 1;
        Some(self.first)
    }

    /// Returns the time of the next work of the drain, or of its end.
    pub fn next(&self) -> Tick {
        match self.search_from {
            Some(_) => self.started,
            None => self.next_due().map_or(self.until, |due| due.min(self.until)),
        }
    }

    fn next_due(&self) -> Option<Tick> {
        if self.closed == self.total {
            return None;
        }
        let after_ms = self.spread_ms * self.closed as u128 / self.total as u128;
        Some(Tick(self.started.0.saturating_add(u64::try_from(after_ms).unwrap_or(u64::MAX))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn drain(spread: u64, count: u32) -> Drain {
        let limits = Limits { drain_for: Duration::from_millis(spread), ..Limits::default() };
        let drain = Drain::new(Tick(1000), &limits, (0..count).map(Slot).collect());
        assert_eq!(drain.next(), Tick(1000), "the search for other connections begins immediately");
        Drain { search_from: None, ..drain }
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
    fn a_web_socket_that_opens_later_is_closed_once() {
        let mut drain = drain(0, 3);
        assert_eq!(drain.pop_due(Tick(1000)), Some(Slot(0)));
        assert_eq!(drain.pop_due(Tick(1000)), Some(Slot(1)));
        drain.add(Slot(2));
        drain.add(Slot(0));
        drain.add(Slot(7));
        let rest: Vec<Slot> = std::iter::from_fn(|| drain.pop_due(Tick(1000))).collect();
        assert_eq!(rest, [0, 2, 7].map(Slot));
    }

    #[test]
    fn a_late_turn_closes_all_due_connections() {
        let mut drain = drain(1000, 10);
        assert_eq!(std::iter::from_fn(|| drain.pop_due(Tick(1550))).count(), 6);
    }
}
