//! Tickets, and the answers that were given with them.

use std::collections::VecDeque;

use crate::fd::Fd;
use crate::protocol::deferral::Deferral;
use crate::protocol::upgrade::Upgrade;

/// The numbers of tickets, and the answers to send.
///
/// An answer waits here until the handler that gave it has returned. Then the connection compares the ticket with the
/// ticket of its current request.
#[derive(Debug, Default)]
pub struct Deferrals {
    /// The last number that was given to a ticket.
    made: u64,
    /// The response to a plain request is stored as a refusal.
    answers: VecDeque<(Fd, Deferral, Upgrade)>,
}

impl Deferrals {
    /// Returns a new number.
    pub fn number(&mut self) -> Deferral {
        self.made += 1;
        Deferral(self.made)
    }

    /// Adds an answer that was given with a ticket.
    pub fn answer(&mut self, fd: Fd, ticket: Deferral, answer: Upgrade) {
        self.answers.push_back((fd, ticket, answer));
    }

    /// Returns whether [`pop`](Deferrals::pop) returns an answer.
    #[inline]
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Takes the next answer.
    pub fn pop(&mut self) -> Option<(Fd, Deferral, Upgrade)> {
        self.answers.pop_front()
    }
}
