//! Deferred answers to requests.
//!
//! A ticket holds the number of one request. An answer with another number, for instance for an earlier request on the
//! same connection, is dropped.

use std::collections::{HashMap, VecDeque};

use crate::fd::Fd;
use crate::protocol::deferral::Deferral;
use crate::protocol::upgrade::Upgrade;

/// The requests that wait for a deferred answer, and the answers to send.
#[derive(Debug, Default)]
pub struct Deferrals {
    /// The last number that was given to a request.
    made: u64,
    /// By connection, the number of the request that waits.
    waiting: HashMap<Fd, Deferral>,
    /// The response to a plain request is stored as a refusal.
    answers: VecDeque<(Fd, Deferral, Upgrade)>,
}

impl Deferrals {
    /// Returns a new number.
    pub fn number(&mut self) -> Deferral {
        self.made += 1;
        Deferral(self.made)
    }

    /// Registers the request that waits on a connection, in place of an earlier one.
    pub fn wait(&mut self, fd: Fd, deferral: Deferral) {
        self.waiting.insert(fd, deferral);
    }

    /// Adds an answer to the request with this number.
    pub fn answer(&mut self, fd: Fd, deferral: Deferral, answer: Upgrade) {
        self.answers.push_back((fd, deferral, answer));
    }

    /// Takes the next answer whose request waits.
    #[inline]
    pub fn pop(&mut self) -> Option<(Fd, Upgrade)> {
        while let Some((fd, deferral, answer)) = self.answers.pop_front() {
            if self.waiting.get(&fd) == Some(&deferral) {
                self.waiting.remove(&fd);
                return Some((fd, answer));
            }
        }
        None
    }

    /// Removes the request of a connection that has ended.
    pub fn remove(&mut self, fd: Fd) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;
    use crate::protocol::response::Response;

    fn status(popped: Option<(Fd, Upgrade)>) -> Option<u16> {
        match popped {
            Some((_, Upgrade::Refuse(response))) => Some(response.status()),
            _ => None,
        }
    }

    #[test]
    fn an_answer_needs_the_number_of_the_waiting_request() {
        let fd = Fd::new(Slot(0), 0);
        let mut deferrals = Deferrals::default();
        let (first, second) = (deferrals.number(), deferrals.number());
        let answer = |status| Upgrade::Refuse(Response::new(status));
        deferrals.wait(fd, first);
        deferrals.wait(fd, second);
        deferrals.answer(fd, first, answer(201));
        deferrals.answer(fd, second, answer(202));
        deferrals.answer(fd, second, answer(203));
        assert_eq!(status(deferrals.pop()), Some(202), "the first number is out of date");
        assert!(deferrals.pop().is_none(), "an answer is given once");
        deferrals.wait(fd, first);
        deferrals.remove(fd);
        deferrals.answer(fd, first, answer(204));
        assert!(deferrals.pop().is_none());
    }
}
