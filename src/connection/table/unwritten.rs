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
    /// HTTP connections, each with the position up to which the output before its response ends.
    answers: VecDeque<(Position, Slot)>,
    /// The position behind the last WebSocket. `added - taken` is the number of WebSockets in the list.
    added: i64,
    /// The position of the first WebSocket.
    taken: i64,
}

/// A position in the output of a table.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The position behind the last WebSocket of the output, in the list of WebSockets that a flush did not reach.
    web_sockets: i64,
    /// The number of the last fan-out of the output.
    fan_out: u64,
}

impl Position {
    /// Returns whether the output up to this position is written, if all output before `written` is written.
    pub fn is_before(self, written: Position) -> bool {
        self.web_sockets <= written.web_sockets && self.fan_out <= written.fan_out
    }
}

impl Unwritten {
    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.web_sockets.is_empty() && self.answers.is_empty()
    }

    /// Returns whether the list has no WebSockets.
    pub fn has_web_sockets(&self) -> bool {
        !self.web_sockets.is_empty()
    }

    /// Returns the WebSockets, in the order in which they will be written.
    pub fn web_sockets(&self) -> impl Iterator<Item = Slot> + '_ {
        self.web_sockets.iter().copied()
    }

    /// Returns the HTTP connections, in the order in which they will be written.
    pub fn answers(&self) -> impl Iterator<Item = Slot> + '_ {
        self.answers.iter().map(|(_, slot)| *slot)
    }

    /// Returns the position behind all WebSockets of the list, and behind all fan-outs up to `begun`.
    pub fn end(&self, begun: u64) -> Position {
        Position { web_sockets: self.added, fan_out: begun }
    }

    /// Returns the position up to which the output is written, if all fan-outs up to `ended` have ended.
    pub fn written(&self, ended: u64) -> Position {
        Position { web_sockets: self.taken, fan_out: ended }
    }

    /// Adds a WebSocket to the end of the list.
    pub fn add_web_socket(&mut self, slot: Slot) {
        self.web_sockets.push_back(slot);
        self.added += 1;
    }

    /// Adds a WebSocket to the start of the list, before all HTTP connections.
    pub fn add_first(&mut self, slot: Slot) {
        self.web_sockets.push_front(slot);
        self.taken -= 1;
    }

    /// Adds an HTTP connection after all WebSockets that are in the list, and after the fan-outs up to `fan_out`.
    ///
    /// If the connection is in the list already, it moves behind the output that was added after it.
    pub fn add_answer(&mut self, slot: Slot, fan_out: u64) {
        let is_behind = self.answers.front().is_some_and(|(first, _)| first.fan_out < fan_out);
        if is_behind || !self.web_sockets.is_empty() {
            self.answers.retain(|(_, answer)| *answer != slot);
        }
        self.answers.push_back((self.end(fan_out), slot));
    }

    /// Removes and returns the next connection. All fan-outs up to `ended` have ended.
    ///
    /// An HTTP connection is returned only after all WebSockets and fan-outs that were added before it.
    pub fn take(&mut self, ended: u64) -> Option<Slot> {
        let written = self.written(ended);
        if self.answers.front().is_some_and(|(due, _)| due.is_before(written)) {
            return self.answers.pop_front().map(|(_, slot)| slot);
        }
        self.take_web_socket()
    }

    /// Removes and returns the next WebSocket.
    pub fn take_web_socket(&mut self) -> Option<Slot> {
        let slot = self.web_sockets.pop_front()?;
        self.taken += 1;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(unwritten: &mut Unwritten, count: usize) -> Vec<Slot> {
        std::iter::from_fn(|| unwritten.take(0)).take(count).collect()
    }

    #[test]
    fn an_answer_follows_the_web_sockets_added_before_it() {
        let mut unwritten = Unwritten::default();
        assert_eq!(unwritten.take(0), None);
        [1, 2, 3].map(Slot).into_iter().for_each(|slot| unwritten.add_web_socket(slot));
        unwritten.add_answer(Slot(9), 0);
        assert_eq!(taken(&mut unwritten, 2), [1, 2].map(Slot));
        [4, 5].map(Slot).into_iter().for_each(|slot| unwritten.add_web_socket(slot));
        unwritten.add_answer(Slot(8), 0);
        assert_eq!(taken(&mut unwritten, 3), [3, 9, 4].map(Slot));
        assert!(!unwritten.is_empty());
        assert_eq!(taken(&mut unwritten, 9), [5, 8].map(Slot));
        assert!(unwritten.is_empty());
        unwritten.add_answer(Slot(7), 0);
        assert_eq!(taken(&mut unwritten, 9), [7].map(Slot));
    }

    #[test]
    fn an_answer_added_again_moves_behind_newer_web_sockets() {
        let mut unwritten = Unwritten::default();
        [1, 2].map(Slot).into_iter().for_each(|slot| unwritten.add_web_socket(slot));
        unwritten.add_answer(Slot(9), 0);
        unwritten.add_answer(Slot(8), 0);
        assert_eq!(taken(&mut unwritten, 1), [1].map(Slot));
        [3].map(Slot).into_iter().for_each(|slot| unwritten.add_web_socket(slot));
        unwritten.add_answer(Slot(9), 0);
        assert_eq!(taken(&mut unwritten, 9), [2, 8, 3, 9].map(Slot));
    }

    #[test]
    fn an_answer_follows_the_fan_outs_that_began_before_it() {
        let mut unwritten = Unwritten::default();
        unwritten.add_answer(Slot(8), 1);
        unwritten.add_answer(Slot(9), 2);
        assert_eq!(unwritten.take(0), None);
        assert!(!unwritten.is_empty() && !unwritten.has_web_sockets());
        // A receiver of the first fan-out is written before the answers.
        unwritten.add_first(Slot(1));
        assert_eq!(unwritten.take(1), Some(Slot(1)));
        unwritten.add_first(Slot(2));
        assert_eq!([unwritten.take(1), unwritten.take(1), unwritten.take(1)], [Some(Slot(2)), Some(Slot(8)), None]);
        unwritten.add_answer(Slot(9), 3);
        assert_eq!((unwritten.take(2), unwritten.take(3), unwritten.take(3)), (None, Some(Slot(9)), None));
    }
}
