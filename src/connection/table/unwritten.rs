//! The connections that an unfinished flush has not written to.
//!
//! A push to many connections is queued in one call, but it needs a system call for each connection. If one turn made
//! all these system calls, other connections would wait for a long time. So a flush ends after some time, and the next
//! turn continues it. WebSockets are written in the order in which they were added. An HTTP response may confirm
//! messages that were queued before the response, so it is written after these messages. So the sender of the request,
//! when it has the response, knows that these messages were written, even if the process is killed afterwards.

use crate::fd::Slot;
use std::collections::VecDeque;

/// The maximum number of receivers of a push to few connections.
///
/// If one push or one close has output for more than this number of connections, these connections are added to an
/// [`Unwritten`] list. Otherwise the flush writes to them before it writes to the connections in the list. Connections
/// that become writable in one wait for events are added to the list if they are more than this number, or if the list
/// is not empty.
pub const FEW_MAX: usize = 64;

/// WebSockets and HTTP connections in the order in which they are written.
#[derive(Debug, Default)]
pub struct Unwritten {
    web_sockets: VecDeque<Slot>,
    /// HTTP connections, each with the number of WebSockets that were ever added before it.
    answers: VecDeque<(u64, Slot)>,
    /// The number of WebSockets that were ever added. `taken <= added`.
    added: u64,
    taken: u64,
}

impl Unwritten {
    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.web_sockets.is_empty() && self.answers.is_empty()
    }

    /// Returns the WebSockets, in the order in which they will be written.
    pub fn web_sockets(&self) -> impl Iterator<Item = Slot> + '_ {
        self.web_sockets.iter().copied()
    }

    /// Returns the HTTP connections, in the order in which they will be written.
    pub fn answers(&self) -> impl Iterator<Item = Slot> + '_ {
        self.answers.iter().map(|(_, slot)| *slot)
    }

    /// Returns the number of WebSockets that were ever added, and the number of WebSockets that were ever taken.
    pub fn positions(&self) -> (u64, u64) {
        (self.added, self.taken)
    }

    /// Adds a WebSocket to the end of the list.
    pub fn add_web_socket(&mut self, slot: Slot) {
        self.web_sockets.push_back(slot);
        self.added += 1;
    }

    /// Adds an HTTP connection after all WebSockets that are in the list.
    ///
    /// If the connection is in the list already, it moves behind the WebSockets that were added after it.
    pub fn add_answer(&mut self, slot: Slot) {
        if !self.web_sockets.is_empty() {
            self.answers.retain(|(_, answer)| *answer != slot);
        }
        self.answers.push_back((self.added, slot));
    }

    /// Removes and returns the next connection.
    ///
    /// An HTTP connection is returned only after all WebSockets that were added before it.
    pub fn take(&mut self) -> Option<Slot> {
        if self.answers.front().is_some_and(|(due, _)| *due <= self.taken) {
            return self.answers.pop_front().map(|(_, slot)| slot);
        }
        let slot = self.web_sockets.pop_front()?;
        self.taken += 1;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(unwritten: &mut Unwritten, count: usize) -> Vec<Slot> {
        std::iter::from_fn(|| unwritten.take()).take(count).collect()
    }

    #[test]
    fn an_answer_follows_the_web_sockets_added_before_it() {
        let mut unwritten = Unwritten::default();
        assert_eq!(unwritten.take(), None);
        [1, 2, 3].map(Slot).into_iter().for_each(|slot| unwritten.add_web_socket(slot));
        unwritten.add_answer(Slot(9));
        assert_eq!(taken(&mut unwritten, 2), [1, 2].map(Slot));
        [4, 5].map(Slot).into_iter().for_each(|slot| unwritten.add_web_socket(slot));
        unwritten.add_answer(Slot(8));
        assert_eq!(taken(&mut unwritten, 3), [3, 9, 4].map(Slot));
        assert!(!unwritten.is_empty());
        assert_eq!(taken(&mut unwritten, 9), [5, 8].map(Slot));
        assert!(unwritten.is_empty());
        unwritten.add_answer(Slot(7));
        assert_eq!(taken(&mut unwritten, 9), [7].map(Slot));
    }

    #[test]
    fn an_answer_added_again_moves_behind_newer_web_sockets() {
        let mut unwritten = Unwritten::default();
        [1, 2].map(Slot).into_iter().for_each(|slot| unwritten.add_web_socket(slot));
        unwritten.add_answer(Slot(9));
        unwritten.add_answer(Slot(8));
        assert_eq!(taken(&mut unwritten, 1), [1].map(Slot));
        [3].map(Slot).into_iter().for_each(|slot| unwritten.add_web_socket(slot));
        unwritten.add_answer(Slot(9));
        assert_eq!(taken(&mut unwritten, 9), [2, 8, 3, 9].map(Slot));
    }
}
