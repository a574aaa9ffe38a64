//! Deadlines of connections and timers.

use std::time::Duration;

use crate::connection::{Connection, State};
use crate::event_loop::clock::Reading;
use crate::event_loop::core::Core;
use crate::event_loop::drain::Drain;
use crate::event_loop::siblings::post::ConnectionChange;
use crate::event_loop::timers::{Fired, TimerId};
use crate::fd::{Fd, Slot};
use crate::limits::Heartbeat;
use crate::registry::Change;
use crate::tick::Tick;
use crate::wheel::Owner;

impl Core {
    /// Starts a timer.
    pub fn add_timer(&mut self, delay: Duration, every: Option<Duration>) -> TimerId {
        // The clock is read again, because the time of the turn can be old after long handler calls. The read time is
        // rounded down, so a millisecond is added to the delay. Otherwise the timer could fire early.
        let at = self.epoch.now().after(delay.saturating_add(Duration::from_millis(1)));
        let timer = self.timers.add(at, every);
        self.wheel.arm(Owner::Timer(timer.index()), at);
        timer
    }

    /// Returns whether a timer is running.
    pub fn has_timer(&self, timer: TimerId) -> bool {
        self.timers.contains(timer)
    }

    /// Ends a timer, and returns whether it was running.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        let was_there = self.timers.remove(timer);
        if was_there {
            self.wheel.cancel(Owner::Timer(timer.index()));
        }
        was_there
    }

    /// Sets the heartbeat of a connection. With `None`, the connection uses the server's heartbeat.
    pub fn set_heartbeat(&mut self, fd: Fd, heartbeat: Option<Heartbeat>) -> Change {
        let Some(slot) = self.table.slot_of(fd) else {
            return self.change_elsewhere(fd, || ConnectionChange::SetHeartbeat(heartbeat));
        };
        let is_set = self.change(slot, |connection, env| {
            let is_set = connection.state() != State::Closing;
            if is_set {
                connection.set_heartbeat(fd, heartbeat, env);
            }
            is_set
        });
        Change::done_or_gone(is_set.unwrap_or(false))
    }

    /// Pauses or resumes reading of a WebSocket or of a streamed body.
    pub fn set_paused(&mut self, fd: Fd, is_paused: bool) -> Change {
        let Some(slot) = self.table.slot_of(fd) else {
            return self.change_elsewhere(fd, || ConnectionChange::SetPaused(is_paused));
        };
        if self.table.set_paused(slot, is_paused) != Some(true) {
            return Change::Gone;
        }
        self.record_slow_consumers();
        if !is_paused {
            self.make_ready(slot);
        }
        self.arm(slot);
        Change::Done
    }

    /// Arms the timer wheel with the next deadline of a connection.
    ///
    /// If the timer wheel has an earlier deadline of the connection, the earlier deadline stays in the timer wheel.
    /// When the earlier deadline expires, the timer wheel is armed with the next deadline.
    #[inline]
    pub fn arm(&mut self, slot: Slot) {
        self.arm_at(slot, self.table.poll_timeout(slot));
    }

    /// Arms the timer wheel for a connection whose next deadline is `at`.
    #[inline]
    pub fn arm_at(&mut self, slot: Slot, at: Tick) {
        if at < Tick::NEVER {
            self.wheel.arm_no_later(Owner::Connection(slot), at);
        }
    }

    /// Returns the earliest deadline of the timer wheel and of the drain.
    pub fn next_deadline(&self) -> Option<Tick> {
        // A loop that has drained waits for the other loops, without a deadline.
        let waits = self.siblings.as_ref().is_some_and(|siblings| siblings.has_drained);
        let drain = self.drain.as_ref().filter(|_| !waits).map(Drain::next);
        [self.wheel.next(), drain].into_iter().flatten().min()
    }

    /// Advances the timer wheel to the time of this turn.
    #[inline]
    pub fn advance(&mut self) {
        self.wheel.advance(self.table.env().now);
    }

    /// Removes an expired deadline, and returns its owner: a connection or a timer.
    #[inline]
    pub fn pop_expired(&mut self) -> Option<Owner> {
        self.wheel.pop_expired()
    }

    /// Handles the expired deadlines of a connection.
    pub fn handle_tick(&mut self, slot: Slot) {
        let is_late = self.table.has_late_record(slot);
        self.step(slot, if is_late { Connection::handle_late_record } else { Connection::handle_tick });
    }

    /// Fires a timer, and arms the timer wheel again if the timer repeats.
    pub fn fire(&mut self, index: u32) -> Option<Fired> {
        let fired = self.timers.fire(index, self.table.env().now)?;
        if let Some(at) = fired.again {
            self.wheel.arm(Owner::Timer(index), at);
        }
        Some(fired)
    }

    /// Sets the time of a turn.
    #[inline]
    pub fn set_time(&mut self, reading: Reading) {
        self.table.env_mut().now = reading.now;
        if let Some(second) = reading.second {
            self.started = second.started_at(self.started);
            second.write_date_line(&mut self.table.env_mut().date);
        }
    }

    /// Requests `on_turn_end`.
    pub fn request_turn_end(&mut self) {
        self.wants_turn_end = true;
    }

    /// Returns whether `on_turn_end` was requested.
    pub fn wants_turn_end(&self) -> bool {
        self.wants_turn_end
    }

    /// Returns whether `on_turn_end` was requested, and resets the request.
    #[inline]
    pub fn take_turn_end(&mut self) -> bool {
        std::mem::take(&mut self.wants_turn_end)
    }
}
