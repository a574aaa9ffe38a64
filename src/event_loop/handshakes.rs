//! The budget of TLS handshakes.
//!
//! The answer to a client hello takes a key exchange and a signature, which is much longer than a message. Many clients
//! that connect at once must not delay those that are connected. So a turn answers few hellos, and the others wait in
//! order. Only the hello is budgeted: the rest of a handshake is cheap.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event_loop::accept::take_token;
use crate::fd::Fd;
use crate::tick::Tick;
use crate::token_bucket::{Rate, TokenBucket};

/// Hellos that are answered in one turn. Each takes 0.1 to 0.3 ms.
const PER_TURN_MAX: u32 = 4;

/// The budget of handshakes, and the connections whose hello waits.
///
/// [`begin_turn`](Handshakes::begin_turn) is called once a turn. A connection whose next read may answer a hello is read
/// if [`may_answer`](Handshakes::may_answer), or else passed to [`wait`](Handshakes::wait).
/// [`handle_answered`](Handshakes::handle_answered) reports an answer.
#[derive(Debug, Default)]
pub struct Handshakes {
    waiting: VecDeque<Fd>,
    /// Hellos that may still be answered in this turn.
    left: u32,
    /// Whether a token of the rate was taken for the next answer.
    has_token: bool,
    tokens: Option<(Rate, TokenBucket)>,
    /// Hellos that may be answered in a second.
    per_second: Option<u32>,
}

impl Handshakes {
    /// Starts the budget of a turn.
    pub fn begin_turn(&mut self, per_second: Option<u32>) {
        self.left = PER_TURN_MAX;
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

    /// Adds a connection behind those that wait.
    pub fn wait(&mut self, fd: Fd) {
        self.waiting.push_back(fd);
    }

    /// Returns the connection that waits longest, if its hello may be answered.
    pub fn take(&mut self, now: Tick) -> Option<Fd> {
        if self.waiting.is_empty() || !self.may_answer(now) {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Returns whether connections wait. Those that come later wait behind them.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns the time until the next answer. `None`: no connection waits.
    pub fn delay(&self) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        // If only the turn has used up its budget, the next one continues at once.
        let is_limited = self.left > 0 && !self.has_token;
        let per_second = self.per_second.filter(|_| is_limited);
        Some(per_second.map_or(Duration::ZERO, |rate| Duration::from_millis(u64::from(1000 / rate.max(1)).max(1))))
    }
}
