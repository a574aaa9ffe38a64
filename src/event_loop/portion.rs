//! A time limit for the repeated steps of a turn.

use std::time::{Duration, Instant};

use crate::event_loop::clock;

/// The maximum time of a [`Portion`], measured from its first clock read.
const TIME_MAX: Duration = Duration::from_millis(5);

/// The maximum time of a [`Portion`] of reads.
const READ_TIME_MAX: Duration = Duration::from_millis(50);

/// The number of steps between two clock reads.
///
/// One step can take a millisecond, for instance to inflate a long message or to call a handler. Every [`Portion`] has
/// at least this number of steps, even in a long turn. In unit tests the number is low, so that portions end.
const CLOCK_EVERY: u32 = if cfg!(test) { 2 } else { 32 };

/// A limit on the repeated steps of one turn, such as reads.
///
/// Without this limit, thousands of reads would delay all other work of the loop. The time of a portion begins at its
/// first clock read, so that a portion of few steps needs no clock read.
#[derive(Debug)]
pub struct Portion {
    steps: u32,
    clock_at: u32,
    time_max: Duration,
    until: Option<Instant>,
}

impl Portion {
    /// Creates a portion of [`CLOCK_EVERY`] steps, followed by further steps for at most [`TIME_MAX`].
    pub fn new() -> Portion {
        Portion { steps: 0, clock_at: CLOCK_EVERY, time_max: TIME_MAX, until: None }
    }

    /// Creates a portion of reads. The time of this portion is a quarter of the duration of the last turn, but at least
    /// [`TIME_MAX`] and at most [`READ_TIME_MAX`].
    ///
    /// The time of reads grows with the duration of the turn. Each turn writes to at least a thousand connections,
    /// however long these writes take. On a slow machine, reads with a fixed time would be a small part of each turn,
    /// and the bytes of clients would wait longer and longer.
    pub fn of_reads(last_turn: Duration) -> Portion {
        Portion { time_max: (last_turn / 4).clamp(TIME_MAX, READ_TIME_MAX), ..Portion::new() }
    }

    /// Counts a step. Returns `true` if the step must wait for the next turn.
    #[inline]
    pub fn is_over(&mut self) -> bool {
        self.steps += 1;
        self.steps > self.clock_at && self.is_time_over()
    }

    /// Reads the clock, and returns whether the time of the portion is over.
    #[cold]
    pub fn is_time_over(&mut self) -> bool {
        self.clock_at += CLOCK_EVERY;
        let now = clock::now();
        now >= *self.until.get_or_insert(now + self.time_max)
    }
}
