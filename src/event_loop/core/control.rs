//! The limit of control connections, and responses in pieces.

use crate::connection::{Connection, Env};
use crate::event_loop::core::Core;
use crate::fd::{Fd, Slot};
use crate::message::Outcome;
use crate::protocol::deferral::Deferral;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Upgrade;
use crate::registry::Change;

impl Core {
    /// Exempts a control connection from eviction: see [`Context::keep_control`](crate::Context::keep_control).
    pub fn keep_control(&mut self, fd: Fd) -> Change {
        let Some(slot) = self.control_slot(fd) else { return Change::Gone };
        let max = self.control_connections_max;
        if self.table.control_quota().keep(slot, max as usize) {
            return Change::Done;
        }
        self.count_control_full();
        Change::Full
    }

    /// Ends the exemption of a control connection from eviction.
    pub fn release_control(&mut self, fd: Fd) -> Change {
        let Some(slot) = self.control_slot(fd) else { return Change::Gone };
        self.table.control_quota().release(slot);
        Change::Done
    }

    fn control_slot(&self, fd: Fd) -> Option<Slot> {
        let is_alive = |connection: &Connection| connection.is_control() && !connection.is_finished();
        self.table.slot_of(fd).filter(|slot| self.table.connection(*slot).is_some_and(is_alive))
    }

    /// Returns whether one more control connection may be accepted.
    ///
    /// At the limit, the call closes the oldest control connection that [`keep_control`](Core::keep_control) does not
    /// protect.
    pub fn make_control_room(&mut self) -> bool {
        let max = self.control_connections_max as usize;
        !self.table.control_quota().is_used_up(max) || self.evict_control()
    }

    /// Returns the number of control connections that may be accepted in one turn.
    pub fn control_accepts_max(&mut self) -> usize {
        let max = self.control_connections_max as usize;
        self.table.control_quota().accepts_max(max)
    }

    /// Closes the oldest control connection that [`keep_control`](Core::keep_control) does not protect. Returns `false`
    /// if there is no such connection. The descriptor of the closed connection is free when the turn ends.
    pub fn evict_control(&mut self) -> bool {
        let Some(slot) = self.table.take_oldest_control() else { return false };
        self.step(slot, Connection::abort);
        self.count_eviction();
        true
    }

    /// Returns the limit of control connections.
    pub fn control_connections_max(&self) -> u32 {
        self.control_connections_max
    }

    /// Returns the number of a new [`Ticket`](crate::Ticket) for the request that a handler is processing.
    pub fn make_ticket(&mut self, fd: Fd) -> Deferral {
        let ticket = self.deferrals.number();
        if let Some(slot) = self.table.slot_of(fd) {
            self.change(slot, |connection, _| connection.set_ticket(ticket));
        }
        ticket
    }

    /// Returns whether the [`Ticket`](crate::Ticket) with this number may answer the current request of the connection.
    pub fn has_ticket(&self, fd: Fd, ticket: Deferral) -> bool {
        self.connection(fd).is_some_and(|connection| connection.has_ticket(ticket))
    }

    /// Queues the answer to the request of `ticket`. The loop sends the answer when the running handler has returned.
    pub fn answer(&mut self, fd: Fd, ticket: Deferral, answer: Upgrade) -> Change {
        if !self.has_ticket(fd, ticket) {
            return Change::Gone;
        }
        self.deferrals.answer(fd, ticket, answer);
        Change::Done
    }

    /// Begins a response in pieces.
    pub fn begin_response(&mut self, fd: Fd, ticket: Deferral, response: &Response) -> Outcome {
        if !self.has_ticket(fd, ticket) {
            return Outcome::Gone;
        }
        self.step_response(fd, |connection, env| connection.begin_response(response, env))
    }

    /// Begins or ends a response in pieces with `step`. `step` returns whether the transition was made.
    fn step_response(&mut self, fd: Fd, step: impl FnOnce(&mut Connection, &mut Env) -> bool) -> Outcome {
        let Some(slot) = self.table.slot_of(fd) else { return Outcome::Gone };
        let Some(is_done) = self.change(slot, step) else { return Outcome::Gone };
        if is_done { Outcome::Queued } else { Outcome::Gone }
    }

    /// Answers a request with 503 because its ticket was dropped.
    pub fn refuse_unanswered(&mut self, fd: Fd, ticket: Deferral) {
        let is_control = self.connection(fd).is_some_and(Connection::is_control);
        let response = Response::refusal(is_control, 503, "the request was not answered");
        self.deferrals.answer(fd, ticket, response.header("Retry-After", "1").close().into());
    }

    /// Ends a response in pieces.
    pub fn end_response(&mut self, fd: Fd) -> Outcome {
        let outcome = self.step_response(fd, Connection::end_response);
        // The bytes of the next request may have arrived already, and epoll does not report these bytes again.
        if outcome.is_queued() {
            self.make_ready(self.table.own_slot(fd));
        }
        outcome
    }

    /// Queues a piece of a response.
    pub fn write_response(&mut self, fd: Fd, piece: &[u8]) -> Outcome {
        let Some(slot) = self.table.slot_of(fd) else { return Outcome::Gone };
        let outcome = self.table.push_piece(slot, piece);
        self.record_slow_consumers();
        self.arm(slot);
        outcome
    }
}
