//! The budget of TLS handshakes, compared with a naive model: a queue of connections and a token bucket.
//!
//! A hello is the first message of a TLS client. The answer to a hello takes most of the server's time for a handshake.

use std::collections::VecDeque;
use std::time::Duration;

use fdpush::Fd;
use fdpush::sim::{Handshakes, Tick};

use crate::coverage::hit;

/// The maximum number of hellos that the server answers in a turn.
const ANSWERS_PER_TURN_MAX: u32 = 1;

/// The maximum number of waiting connections that the server reads in a turn.
const READS_PER_TURN_MAX: u32 = 64;

/// The amount by which one hello lowers the level of the bucket.
const TOKEN: u64 = 1000;

/// The budget and its model.
#[derive(Debug)]
pub struct HandshakeBudget {
    handshakes: Handshakes,
    per_second: Option<u32>,
    /// The connections that wait until the budget allows their handshakes, in the order of their arrival.
    waiting: VecDeque<Fd>,
    /// The number of hellos that the server answered in this turn. The field `read` is the number of waiting
    /// connections that the server read in this turn.
    answered: u32,
    read: u32,
    /// The level of the bucket at the tick `at`. A full bucket has the tokens of one second and one more token.
    level: u64,
    at: Tick,
}

impl HandshakeBudget {
    /// Creates a budget of `per_second` hellos a second. `None`: no limit.
    pub fn new(per_second: Option<u32>) -> HandshakeBudget {
        let (handshakes, waiting, answered, read, at) = Default::default();
        HandshakeBudget { handshakes, per_second, waiting, answered, read, level: full(per_second), at }
    }

    /// Starts the reads of a turn.
    pub fn begin_turn(&mut self, now: Tick) {
        let gained = (now.0 - self.at.0).saturating_mul(u64::from(self.per_second.unwrap_or(0)));
        self.level = self.level.saturating_add(gained).min(full(self.per_second));
        (self.answered, self.read, self.at) = (0, 0, now);
        self.handshakes.begin_turn(self.per_second);
    }

    /// Removes the connection that has waited longest, if it may be read now.
    pub fn take(&mut self) -> Option<Fd> {
        let fd = self.handshakes.take(self.at)?;
        assert_eq!(
            Some(fd),
            self.waiting.pop_front(),
            "waiting connections must be read in the order of their arrival"
        );
        self.read += 1;
        assert!(
            self.read <= READS_PER_TURN_MAX,
            "a turn must read at most {READS_PER_TURN_MAX} waiting connections, not {}",
            self.read
        );
        Some(fd)
    }

    /// Returns whether a connection that awaits a hello may be read now. Otherwise it must [`wait`](Self::wait).
    pub fn may_read(&mut self) -> bool {
        self.handshakes.may_answer_new(false, self.at)
    }

    /// Adds a connection to the waiting connections.
    pub fn wait(&mut self, fd: Fd) {
        hit("tls: hello waits for the budget");
        self.waiting.push_back(fd);
        self.handshakes.wait(fd, false);
    }

    /// Handles the answer to a hello.
    pub fn handle_answered(&mut self) {
        hit("tls: hello answered");
        self.handshakes.handle_answered();
        self.answered += 1;
        assert!(
            self.answered <= ANSWERS_PER_TURN_MAX,
            "a turn must answer at most {ANSWERS_PER_TURN_MAX} hellos, not {}",
            self.answered
        );
        if self.per_second.is_some() {
            assert!(self.level >= TOKEN, "the server may answer a hello only if the bucket has a token");
            self.level -= TOKEN;
        }
    }

    /// Checks at the end of a turn's reads that connections wait only if the budget is used up.
    pub fn end_turn(&self) {
        let is_used_up = self.answered == ANSWERS_PER_TURN_MAX || self.read == READS_PER_TURN_MAX;
        // The server takes a token when it reads a connection. The model takes this token later, when the server
        // answers the hello. So the model may have one token more than the server.
        let has_no_token = self.per_second.is_some() && self.level < 2 * TOKEN;
        assert!(
            self.waiting.is_empty() || is_used_up || has_no_token,
            "no connection may wait if the budget permits another hello, but {:?} wait",
            self.waiting
        );
        assert_eq!(
            self.handshakes.delay().is_some(),
            !self.waiting.is_empty(),
            "the budget must return a time to wait if and only if connections wait"
        );
    }

    /// Returns whether the next turn has work, so that the loop must not wait.
    pub fn is_behind(&self) -> bool {
        self.handshakes.delay() == Some(Duration::ZERO)
    }
}

/// Returns the level of a full bucket.
fn full(per_second: Option<u32>) -> u64 {
    (u64::from(per_second.unwrap_or(0)) + 1) * TOKEN
}
