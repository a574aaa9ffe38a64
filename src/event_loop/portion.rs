//! A part of a turn that is limited in time.

use std::time::{Duration, Instant};

use crate::event_loop::clock;

/// The time of a portion.
const TIME_MAX: Duration = Duration::from_millis(5);

/// The largest time of the portion of reads.
const READ_TIME_MAX: Duration = Duration::from_millis(50);

/// The steps between two clock reads.
///
/// A step can take a millisecond: it inflates a long message, or calls a handler. So many steps are also the progress of a
/// turn that started late.
const CLOCK_EVERY: u32 = 32;

/// A limit on the steps that one turn makes for the same reason.
///
/// Without it, thousands of steps would delay all other connections. Its time begins at the first clock read, so that few
/// steps need none.
#[derive(Debug)]
pub struct Portion {
    steps: u32,
    clock_at: u32,
    time_max: Duration,
    until: Option<Instant>,
}

impl Portion {
    /// Creates a portion of at least [`CLOCK_EVERY`] steps, and of [`TIME_MAX`] after them.
    pub fn new() -> Portion {
        Portion { steps: 0, clock_at: CLOCK_EVERY, time_max: TIME_MAX, until: None }
    }

    /// Creates a portion of reads, whose time is a quarter of the last turn's, at least [`TIME_MAX`].
    ///
    /// Writes have no such limit: each turn writes to at least a thousand connections. On a slow machine that takes long, and
    /// the bytes of clients would wait longer in each turn.
    pub fn of_reads(last_turn: Duration) -> Portion {
        Portion { time_max: (last_turn / 4).clamp(TIME_MAX, READ_TIME_MAX), ..Portion::new() }
    }

    /// Counts a step that is to be made. `true`: the next turn makes it instead.
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
