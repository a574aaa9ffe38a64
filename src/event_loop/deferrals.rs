//! Numbers the tickets, and keeps the answers of handlers to deferred requests.

use std::collections::VecDeque;

use crate::fd::Fd;
use crate::protocol::deferral::Deferral;
use crate::protocol::upgrade::Upgrade;

/// The number of the last [`Ticket`](crate::Ticket), and the answers that are not sent yet.
///
/// An answer waits in this value until the running handler has returned. When the handler has returned, the loop sends
/// the answer, if its ticket belongs to the current request of the connection.
#[derive(Debug, Default)]
pub struct Deferrals {
    /// The last number that was given to a ticket.
    made: u64,
    /// The answers, the oldest first. A response to a plain request is stored as [`Upgrade::Refuse`].
    answers: VecDeque<(Fd, Deferral, Upgrade)>,
}

impl Deferrals {
    /// Returns the number of a new ticket.
    pub fn number(&mut self) -> Deferral {
        self.made += 1;
        Deferral(self.made)
    }

    /// Queues the answer to the request of `ticket`. The loop sends the answer when the running handler has returned.
    pub fn answer(&mut self, fd: Fd, ticket: Deferral, answer: Upgrade) {
        self.answers.push_back((fd, ticket, answer));
    }

    /// Returns whether an answer was queued that the loop has not taken yet.
    #[inline]
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Takes the next answer.
    pub fn pop(&mut self) -> Option<(Fd, Deferral, Upgrade)> {
        self.answers.pop_front()
    }
}
