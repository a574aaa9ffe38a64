//! The budget of TLS handshakes.
//!
//! The answer to a client hello takes a key exchange and a signature, which take much longer than a message. Many
//! clients that connect at once must not delay connected clients. So a turn answers few hellos, and the other hellos
//! wait in order. Only the hello has a budget: the other steps of a handshake are cheap.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event_loop::accept::take_token;
use crate::fd::Fd;
use crate::tick::Tick;
use crate::token_bucket::{Rate, TokenBucket};

/// The maximum of hellos that one turn answers. Each answer takes 0.1 to 0.3 ms.
const PER_TURN_MAX: u32 = 4;

/// The maximum number of waiting connections that one turn reads.
///
/// A client without a complete hello uses no budget of handshakes, but its read takes time.
const READS_PER_TURN_MAX: u32 = 64;

/// The budget of handshakes, and the connections that wait for it.
///
/// [`begin_turn`](Handshakes::begin_turn) is called once a turn. A connection whose next read may answer a hello is
/// read if [`may_answer`](Handshakes::may_answer) returns `true`, and is otherwise passed to
/// [`wait`](Handshakes::wait). [`handle_answered`](Handshakes::handle_answered) reports an answer.
#[derive(Debug, Default)]
pub struct Handshakes {
    waiting: VecDeque<Fd>,
    /// Hellos that may still be answered in this turn.
    left: u32,
    /// The number of waiting connections that may still be read in this turn.
    reads_left: u32,
    /// Whether a token of the rate limit was taken for the next answer.
    has_token: bool,
    tokens: Option<(Rate, TokenBucket)>,
    /// Hellos that may be answered in a second.
    per_second: Option<u32>,
}

impl Handshakes {
    /// Starts the budget of a turn.
    pub fn begin_turn(&mut self, per_second: Option<u32>) {
        (self.left, self.reads_left) = (PER_TURN_MAX, READS_PER_TURN_MAX);
        self.per_second = per_second;
    }

    /// Returns whether a hello may be answered now.
    pub fn may_answer(&mut self, now: Tick) -> bool {
        self.has_token = self.has_token || take_token(&mut self.tokens, self.per_second, now);
        self.left > 0 && self.has_token
    }

    /// Reports that a hello was answered.
    pub fn handle_answered(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.has_token = false;
    }

    /// Adds a connection to the end of the queue of waiting connections.
    pub fn wait(&mut self, fd: Fd) {
        self.waiting.push_back(fd);
    }

    /// Removes the connection that has waited longest, if its hello may be answered.
    pub fn take(&mut self, now: Tick) -> Option<Fd> {
        if self.waiting.is_empty() || self.reads_left == 0 || !self.may_answer(now) {
            return None;
        }
        self.reads_left -= 1;
        self.waiting.pop_front()
    }

    /// Returns whether connections wait. A new connection must wait behind them.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns the time until the next answer. `None`: no connection waits.
    pub fn delay(&self) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        // If the budget of the turn is used up, but the rate is not, the next turn continues at once.
        let is_limited = self.left > 0 && !self.has_token;
        let per_second = self.per_second.filter(|_| is_limited);
        Some(per_second.map_or(Duration::ZERO, |rate| Duration::from_millis(u64::from(1000 / rate.max(1)).max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    fn waiting(count: u32) -> Handshakes {
        let mut handshakes = Handshakes::default();
        (0..count).for_each(|slot| handshakes.wait(Fd::new(Slot(slot), 0)));
        handshakes
    }

    /// Removes and returns waiting connections until the budget is used up. With `is_answered`, each hello is answered.
    fn take_all(handshakes: &mut Handshakes, now: u64, is_answered: bool) -> Vec<u32> {
        let mut taken = Vec::new();
        while let Some(fd) = handshakes.take(Tick(now)) {
            taken.push(fd.slot().0);
            if is_answered {
                handshakes.handle_answered();
            }
        }
        taken
    }

    #[test]
    fn a_turn_answers_few_hellos_in_order() {
        let mut handshakes = waiting(9);
        for expected in [&[0, 1, 2, 3][..], &[4, 5, 6, 7], &[8], &[]] {
            handshakes.begin_turn(None);
            assert_eq!(take_all(&mut handshakes, 0, true), expected);
            assert_eq!(handshakes.delay(), (expected.len() == 4).then_some(Duration::ZERO));
        }
    }

    #[test]
    fn a_turn_reads_few_connections_whose_hello_is_not_complete() {
        let mut handshakes = waiting(200);
        for _ in 0..3 {
            handshakes.begin_turn(None);
            assert_eq!(take_all(&mut handshakes, 0, false).len(), 64);
            assert_eq!(handshakes.delay(), Some(Duration::ZERO), "the next turn continues at once");
        }
        handshakes.begin_turn(None);
        assert_eq!(take_all(&mut handshakes, 0, false), (192..200).collect::<Vec<_>>());
    }

    #[test]
    fn a_second_answers_few_hellos() {
        let mut handshakes = waiting(100);
        let mut answered = |from: u64, to: u64| -> usize {
            let turn = |now| {
                handshakes.begin_turn(Some(10));
                take_all(&mut handshakes, now, true).len()
            };
            (from..to).map(turn).sum()
        };
        assert_eq!(answered(0, 100), 10, "the burst has the handshakes of one second");
        assert_eq!(answered(100, 1000), 9);
        assert_eq!(answered(1000, 3000), 20);
        assert_eq!(handshakes.delay(), Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_token_that_was_taken_for_an_incomplete_hello_is_kept() {
        let mut handshakes = waiting(3);
        handshakes.begin_turn(Some(1));
        assert_eq!(take_all(&mut handshakes, 0, false), [0, 1, 2]);
        assert!(handshakes.may_answer(Tick(0)));
        handshakes.handle_answered();
        assert!(!handshakes.may_answer(Tick(999)));
        assert!(handshakes.may_answer(Tick(1000)));
    }
}
