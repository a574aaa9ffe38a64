//! The drain: closes all connections before the loop ends.

use std::collections::VecDeque;

use crate::connection::{Cause, Connection};
use crate::event_loop::core::Core;
use crate::event_loop::drain::Drain;
use crate::fd::{Fd, Slot};
use crate::protocol::close::CloseCode;
use crate::tick::Tick;

/// The maximum number of WebSockets that a drain closes in one turn.
///
/// Each close calls `on_close` and writes a close frame. This number of closes takes a few milliseconds.
const CLOSES_PER_TURN_MAX: usize = 256;

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
    /// WebSockets are closed with code 1001, at times that are spread over `drain_for`. Other connections are ended at
    /// once, except for control connections.
    pub fn begin_drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        let is_open = |slot: &Slot| self.table.connection(*slot).is_some_and(Connection::is_open);
        let (open, others): (Vec<Slot>, Vec<Slot>) = self.table.slots().partition(is_open);
        let open: VecDeque<Fd> = open.into_iter().map(|slot| self.table.fd_of(slot)).collect();
        self.drain = Some(Drain::new(self.table.env().now, &self.table.env().limits, open));
        for slot in others {
            let is_control = self.table.connection(slot).is_some_and(Connection::is_control);
            if !is_control {
                self.drain_slot(slot);
            }
        }
        self.close_due();
    }

    /// Closes the WebSockets whose close is due, at most [`CLOSES_PER_TURN_MAX`].
    ///
    /// The next turn closes the remaining WebSockets whose close is due. The next turn begins at once, because the time
    /// that [`next_deadline`](Core::next_deadline) returns has passed.
    pub fn close_due(&mut self) {
        let now = self.now();
        for _ in 0..CLOSES_PER_TURN_MAX {
            let Some(fd) = self.drain.as_mut().and_then(|drain| drain.pop_due(now)) else { return };
            self.close_drained(fd);
        }
    }

    /// Closes all WebSockets, even WebSockets whose close is not due yet.
    pub fn close_all(&mut self) {
        while let Some(fd) = self.drain.as_mut().and_then(|drain| drain.pop_due(Tick::NEVER)) {
            self.close_drained(fd);
        }
    }

    fn close_drained(&mut self, fd: Fd) {
        if let Some(slot) = self.open_slot(fd) {
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
            let slots: Vec<Slot> = self.table.slots().collect();
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
