//! A time limit for the repeated steps of a turn.

use std::time::{Duration, Instant};

use crate::event_loop::clock;

/// The maximum time of a [`Portion`], from its first clock read on.
const TIME_MAX: Duration = Duration::from_millis(5);

/// The maximum time of a [`Portion`] of reads.
const READ_TIME_MAX: Duration = Duration::from_millis(50);

/// The number of steps between two clock reads.
///
/// One step can take a millisecond: it inflates a long message, or calls a handler. Every [`Portion`] makes at least
/// this number of steps, also in a turn that started late.
const CLOCK_EVERY: u32 = 32;

/// A limit on the repeated steps of one turn, such as reads.
///
/// Without this limit, thousands of reads would delay all other work of the loop. The time begins at the first clock
/// read, so that few steps need no clock read.
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

    /// Creates a portion of reads. Its time is a quarter of the duration of the last turn, and at least [`TIME_MAX`].
    ///
    /// The time of reads grows with the turn, because writes have no such limit: each turn writes to at least a
    /// thousand connections. On a slow machine these writes take long. With a fixed time of reads, the bytes of clients
    /// would wait longer in each turn.
    pub fn of_reads(last_turn: Duration) -> Portion {
        Portion { time_max: (last_turn / 4).clamp(TIME_MAX, READ_TIME_MAX), ..Portion::new() }
    }

    /// Counts a step. Returns `true` if the next turn should make this step instead.
    #[inline]
    pub fn is_over(&mut self) -> bool {
        self.steps += 1;
        self.steps > self.clock_at && self.is_time_over()
    }

    /// Reads the clock, and returns whether the time is over.
    #[cold]
    pub fn is_time_over(&mut self) -> bool {
        self.clock_at += CLOCK_EVERY;
        let now = clock::now();
        now >= *self.until.get_or_insert(now + self.time_max)
    }
}
