//! The budget of TLS handshakes.
//!
//! The answer to a client hello needs a key exchange and a signature, which take much longer than the handling of a
//! message. Many clients that connect at the same time must not delay connected clients. So a turn answers few hellos,
//! and the other hellos wait in a queue. The budget counts only client hellos, because the other steps of a handshake
//! take little time.
//!
//! Control connections wait in a separate queue. While both queues have entries, connections are taken alternately from
//! the two queues. So clients cannot use up the budget of control connections, and control connections cannot use up
//! the budget of clients.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event_loop::rate_limit::RateLimit;
use crate::fd::Fd;
use crate::tick::Tick;

/// The maximum number of hellos that one turn answers. Each answer takes 0.1 to 0.3 ms, and delays the messages of the
/// same turn.
const PER_TURN_MAX: u32 = 1;

/// The maximum number of waiting connections that one turn reads.
///
/// A read of an incomplete hello does not count in the budget of handshakes, but takes time.
const READS_PER_TURN_MAX: u32 = 64;

/// The budget of handshakes, and the connections that wait until the budget allows their handshakes.
///
/// [`begin_turn`](Handshakes::begin_turn) is called once a turn. After this call, the caller reads the waiting
/// connections that [`take`](Handshakes::take) returns. For any other connection whose next read may answer a hello,
/// the caller asks [`may_answer_new`](Handshakes::may_answer_new). If the result is `true`, the caller reads the
/// connection, else the caller passes the connection to [`wait`](Handshakes::wait).
/// After the caller has answered a hello, it calls [`handle_answered`](Handshakes::handle_answered).
#[derive(Debug, Default)]
pub struct Handshakes {
    /// The waiting connections of clients, the oldest first.
    clients: VecDeque<Fd>,
    /// The waiting control connections, the oldest first.
    control: VecDeque<Fd>,
    /// Whether the last connection that was taken is a control connection.
    has_taken_control: bool,
    /// The number of hellos that may still be answered in this turn.
    left: u32,
    /// The number of waiting connections that may still be read in this turn.
    reads_left: u32,
    /// Whether a token of the rate limit was taken for the next answer.
    has_token: bool,
    rate: RateLimit,
    /// The maximum number of hellos that are answered in a second.
    per_second: Option<u32>,
}

impl Handshakes {
    /// Creates a budget whose rate limit several loops may share.
    pub fn new(rate: RateLimit) -> Handshakes {
        Handshakes { rate, ..Handshakes::default() }
    }

    /// Resets the budget at the start of a turn.
    pub fn begin_turn(&mut self, per_second: Option<u32>) {
        (self.left, self.reads_left) = (PER_TURN_MAX, READS_PER_TURN_MAX);
        self.per_second = per_second;
    }

    /// Returns whether the hello of a connection that does not wait yet may be answered now.
    ///
    /// A control connection does not wait behind clients.
    pub fn may_answer_new(&mut self, is_control: bool, now: Tick) -> bool {
        let is_behind = !self.control.is_empty() || (!is_control && !self.clients.is_empty());
        !is_behind && self.may_answer(now)
    }

    fn may_answer(&mut self, now: Tick) -> bool {
        self.has_token = self.has_token || self.rate.take(self.per_second, now);
        self.left > 0 && self.has_token
    }

    /// Reports that a hello was answered.
    pub fn handle_answered(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.has_token = false;
    }

    /// Adds a connection to the end of its queue.
    pub fn wait(&mut self, fd: Fd, is_control: bool) {
        if is_control { &mut self.control } else { &mut self.clients }.push_back(fd);
    }

    /// Removes the next waiting connection, if its hello may be answered.
    ///
    /// A waiting control connection comes before waiting clients, except after a call that returned a control
    /// connection.
    pub fn take(&mut self, now: Tick) -> Option<Fd> {
        if !self.has_waiting() || self.reads_left == 0 || !self.may_answer(now) {
            return None;
        }
        self.reads_left -= 1;
        let is_turn_of_clients = self.has_taken_control && !self.clients.is_empty();
        self.has_taken_control = !is_turn_of_clients && !self.control.is_empty();
        if self.has_taken_control { self.control.pop_front() } else { self.clients.pop_front() }
    }

    fn has_waiting(&self) -> bool {
        !(self.clients.is_empty() && self.control.is_empty())
    }

    /// Returns the time until the next hello may be answered. Returns `None` if no connection waits.
    pub fn delay(&self) -> Option<Duration> {
        if !self.has_waiting() {
            return None;
        }
        // If the budget of the turn is used up, but the rate allows another hello, the next turn continues immediately.
        let is_limited = self.left > 0 && !self.has_token;
        let per_second = self.per_second.filter(|_| is_limited);
        Some(per_second.map_or(Duration::ZERO, |rate| Duration::from_millis(u64::from(1000 / rate.max(1)).max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    /// The slot of the first control connection.
    const CONTROL: u32 = 1000;

    /// Returns a budget with this number of waiting clients.
    fn waiting(clients: u32) -> Handshakes {
        let mut handshakes = Handshakes::default();
        wait(&mut handshakes, 0..clients);
        handshakes
    }

    fn wait(handshakes: &mut Handshakes, slots: std::ops::Range<u32>) {
        slots.for_each(|slot| handshakes.wait(Fd::new(Slot(slot), 0), slot >= CONTROL));
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
        let mut handshakes = waiting(3);
        let at_once = Some(Duration::ZERO);
        for (expected, delay) in [(&[0][..], at_once), (&[1], at_once), (&[2], None), (&[], None)] {
            handshakes.begin_turn(None);
            assert_eq!(take_all(&mut handshakes, 0, true), expected);
            assert_eq!(handshakes.delay(), delay);
        }
    }

    #[test]
    fn a_turn_reads_few_connections_whose_hello_is_not_complete() {
        let mut handshakes = waiting(200);
        for _ in 0..3 {
            handshakes.begin_turn(None);
            assert_eq!(take_all(&mut handshakes, 0, false).len(), 64);
            assert_eq!(handshakes.delay(), Some(Duration::ZERO), "the next turn must continue immediately");
        }
        handshakes.begin_turn(None);
        assert_eq!(take_all(&mut handshakes, 0, false), (192..200).collect::<Vec<_>>());
    }

    #[test]
    fn hellos_of_clients_and_of_control_connections_are_answered_alternately() {
        let mut handshakes = waiting(7);
        wait(&mut handshakes, CONTROL..CONTROL + 3);
        let (one, two, three) = (CONTROL, CONTROL + 1, CONTROL + 2);
        for expected in [one, 0, two, 1, three, 2, 3, 4, 5, 6] {
            handshakes.begin_turn(None);
            assert_eq!(take_all(&mut handshakes, 0, true), [expected]);
        }
        handshakes.begin_turn(None);
        assert_eq!(take_all(&mut handshakes, 0, true), []);
        // Hellos of clients and of control connections are also answered alternately if the rate allows only one answer
        // a second.
        wait(&mut handshakes, 0..4);
        wait(&mut handshakes, CONTROL..CONTROL + 4);
        let mut order = Vec::new();
        for second in 0..8 {
            handshakes.begin_turn(Some(1));
            order.extend(take_all(&mut handshakes, second * 1000, true));
        }
        assert_eq!(order, [one, 0, two, 1, three, 2, CONTROL + 3, 3]);
    }

    #[test]
    fn incomplete_hellos_of_clients_leave_half_of_the_reads_to_control_connections() {
        let mut handshakes = waiting(200);
        wait(&mut handshakes, CONTROL..CONTROL + 200);
        handshakes.begin_turn(None);
        let taken = take_all(&mut handshakes, 0, false);
        assert_eq!((taken.len(), taken.iter().filter(|slot| **slot >= CONTROL).count()), (64, 32));
    }

    #[test]
    fn a_new_control_connection_does_not_wait_behind_clients() {
        let mut handshakes = waiting(1);
        handshakes.begin_turn(None);
        assert!(!handshakes.may_answer_new(false, Tick(0)) && handshakes.may_answer_new(true, Tick(0)));
        wait(&mut handshakes, CONTROL..CONTROL + 1);
        assert!(
            !handshakes.may_answer_new(true, Tick(0)),
            "a new control connection must wait behind a waiting control connection"
        );
        for expected in [CONTROL, 0] {
            assert_eq!(take_all(&mut handshakes, 0, true), [expected]);
            assert!(
                !handshakes.may_answer_new(true, Tick(0)),
                "no hello may be answered after the budget of the turn is used up"
            );
            handshakes.begin_turn(None);
        }
        assert!(handshakes.may_answer_new(false, Tick(0)));
    }

    #[test]
    fn the_rate_limits_the_hellos_that_are_answered_in_a_second() {
        let mut handshakes = waiting(100);
        let mut answered = |from: u64, to: u64| -> usize {
            let turn = |now| {
                handshakes.begin_turn(Some(10));
                take_all(&mut handshakes, now, true).len()
            };
            (from..to).map(turn).sum()
        };
        assert_eq!(answered(0, 100), 10, "a full bucket must allow the hellos of one second without delay");
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
        handshakes.begin_turn(Some(1));
        assert!(!handshakes.may_answer(Tick(999)));
        assert!(handshakes.may_answer(Tick(1000)));
    }
}
