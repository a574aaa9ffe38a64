//! The drain: closes all connections before the loop ends.

use crate::connection::{Cause, Connection};
use crate::event_loop::core::Core;
use crate::event_loop::drain::Drain;
use crate::fd::Slot;
use crate::protocol::close::CloseCode;
use crate::tick::Tick;

/// The maximum number of WebSockets that a drain closes in one turn.
///
/// Each close calls `on_close` and writes a close frame. This number of closes takes a few milliseconds.
const CLOSES_PER_TURN_MAX: usize = 256;

/// The number of slots that one turn searches for connections that are not open WebSockets.
///
/// The search of this number of slots takes about 1 ms. In unit tests the number is low, so that a search takes several
/// turns.
const SEARCHED_PER_TURN: u32 = if cfg!(test) { 2 } else { 1 << 16 };

impl Core {
    /// Requests a shutdown of the server.
    ///
    /// With several loops, the loop sends the shutdown to the inboxes of all loops, including its own inbox. So each
    /// loop first carries out the earlier items of its inbox, and then calls [`drain_all`](Core::drain_all).
    pub fn shut_down(&mut self) {
        match &mut self.siblings {
            Some(siblings) => siblings.wants_drain = true,
            None => self.begin_drain(),
        }
    }

    /// Begins to drain, and requests the drain of all other loops.
    pub fn drain_all(&mut self) {
        self.shut_down();
        self.begin_drain();
    }

    /// Begins to drain.
    ///
    /// WebSockets are closed with code 1001, at times that are spread over `drain_for`. Other connections are ended in
    /// the first turns, except for control connections.
    pub fn begin_drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        self.drain = Some(Drain::new(self.table.env().now, &self.table.env().limits, self.open.clone()));
        self.drain_others();
        self.close_due();
    }

    /// Ends the next connections that are not open WebSockets, except for control connections.
    ///
    /// One turn searches [`SEARCHED_PER_TURN`] slots. The next turn begins immediately, because
    /// [`next_deadline`](Core::next_deadline) has passed.
    pub fn drain_others(&mut self) {
        let Some(from) = self.drain.as_mut().and_then(|drain| drain.search_from.take()) else { return };
        let end = self.table.slots_end().min(from.0.saturating_add(SEARCHED_PER_TURN));
        for slot in (from.0..end).map(Slot) {
            let Some(connection) = self.table.connection(slot) else { continue };
            if connection.is_open() {
                // The WebSocket may have opened in an earlier turn of the search.
                if let Some(drain) = &mut self.drain {
                    drain.add(slot);
                }
            } else if !connection.is_control() {
                self.drain_slot(slot);
            }
        }
        if let Some(drain) = self.drain.as_mut().filter(|_| end < self.table.slots_end()) {
            drain.search_from = Some(Slot(end));
        }
    }

    /// Closes the WebSockets whose close is due, at most [`CLOSES_PER_TURN_MAX`].
    ///
    /// The next turn closes the remaining WebSockets whose close is due. The next turn begins immediately, because the
    /// time that [`next_deadline`](Core::next_deadline) returns has passed.
    pub fn close_due(&mut self) {
        let now = self.now();
        for _ in 0..CLOSES_PER_TURN_MAX {
            let Some(slot) = self.drain.as_mut().and_then(|drain| drain.pop_due(now)) else { return };
            self.close_drained(slot);
        }
    }

    /// Closes all WebSockets, even WebSockets whose close is not due yet, and ends all other connections.
    pub fn close_all(&mut self) {
        while self.drain.as_ref().is_some_and(|drain| drain.search_from.is_some()) {
            self.drain_others();
        }
        while let Some(slot) = self.drain.as_mut().and_then(|drain| drain.pop_due(Tick::NEVER)) {
            self.close_drained(slot);
        }
    }

    fn close_drained(&mut self, slot: Slot) {
        if self.table.connection(slot).is_some_and(Connection::is_open) {
            self.close_slot(slot, CloseCode::GOING_AWAY, "server is shutting down", Cause::Drained);
        }
    }

    /// Returns whether the drain is complete.
    ///
    /// When only control connections are left, this call begins to close the control connections.
    pub fn is_drained(&mut self) -> bool {
        let (left, control) = (self.table.count(), self.table.control_count());
        // Until the other loops have drained, control connections are served.
        let is_last_loop = self.siblings.as_ref().is_none_or(|siblings| siblings.are_others_drained());
        let Some(drain) = &mut self.drain else { return false };
        if left == 0 || self.table.env().now >= drain.until {
            return true;
        }
        if left == control && is_last_loop && !drain.is_last {
            drain.is_last = true;
            // A connection that was closed in favor of another one is not in the quota, and ends by itself.
            let slots: Vec<Slot> = self.table.control_slots().collect();
            slots.into_iter().for_each(|slot| self.drain_slot(slot));
        }
        false
    }

    fn drain_slot(&mut self, slot: Slot) {
        self.step(slot, Connection::drain);
    }

    /// Returns whether a drain has begun.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.drain.is_some() || self.siblings.as_ref().is_some_and(|siblings| siblings.wants_drain)
    }
}
