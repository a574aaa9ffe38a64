//! The loop's clocks: the monotonic clock for deadlines, and the wall clock for reported times.
//!
//! No other file of the loop reads the monotonic clock. A turn reads the monotonic clock at its start and at its end.
//! Within a turn, the monotonic clock is also read in steps that have a time limit, and when a handler starts a timer.

use std::time::{Duration, Instant, SystemTime};

use crate::protocol::response::write_date_line;
use crate::tick::Tick;
use httpdate::HttpDate;

/// The maximum drift between wall clock and monotonic clock that does not change reported times.
const WALL_DRIFT_MAX: Duration = Duration::from_secs(1);

/// Reads the monotonic clock.
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = virtual_clock::read() {
        return now;
    }
    Instant::now()
}

/// The virtual clock of a thread, for tests.
#[cfg(test)]
pub mod virtual_clock {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
        static STEP: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Starts the virtual clock of this thread. Each read advances the clock by `step`.
    pub fn start(step: Duration) {
        NOW.set(Some(Instant::now()));
        STEP.set(step);
    }

    /// Advances the clock.
    pub fn advance(by: Duration) {
        NOW.set(NOW.get().map(|now| now + by));
    }

    /// Reads the clock, if this thread has a virtual clock.
    pub fn read() -> Option<Instant> {
        advance(STEP.get());
        NOW.get()
    }
}

/// Reads the coarse monotonic clock (`CLOCK_MONOTONIC_COARSE`).
///
/// The returned time can be some milliseconds old. A read of the coarse clock takes a fraction of the time of a read of
/// the exact clock.
#[inline]
pub fn coarse() -> coarsetime::Instant {
    coarsetime::Instant::now_without_cache_update()
}

/// The time of tick 0 on the monotonic clock.
#[derive(Copy, Clone, Debug)]
pub struct Epoch(Instant);

/// The loop's last readings of its clocks.
#[derive(Debug)]
pub struct Clock {
    pub epoch: Epoch,
    /// The start of this turn.
    pub turn_start: Instant,
    /// The duration of the previous turn.
    pub last_turn: Duration,
    /// The number of seconds from tick 0 to the second of the last `Date` line.
    dated: u64,
}

impl Epoch {
    /// Sets tick 0 to the present time.
    pub fn begin() -> Epoch {
        Epoch(now())
    }

    /// Returns the current tick, rounded down.
    pub fn now(self) -> Tick {
        self.tick_of(now())
    }

    /// Returns the time of a tick on the monotonic clock.
    pub fn at(self, tick: Tick) -> Instant {
        self.0 + Duration::from_millis(tick.0)
    }

    fn tick_of(self, at: Instant) -> Tick {
        Tick(u64::try_from((at - self.0).as_millis()).unwrap_or(u64::MAX))
    }
}

impl Clock {
    /// Creates the clock of a loop.
    pub fn new(epoch: Epoch) -> Clock {
        Clock { epoch, turn_start: now(), last_turn: Duration::ZERO, dated: u64::MAX }
    }

    /// Reads the monotonic clock, and once a second the wall clock.
    ///
    /// The loop calls this method once a turn.
    pub fn read(&mut self) -> Reading {
        self.turn_start = now();
        let elapsed = self.turn_start - self.epoch.0;
        let second = (self.dated != elapsed.as_secs()).then(|| {
            self.dated = elapsed.as_secs();
            let wall = SystemTime::now();
            Second { wall, elapsed }
        });
        Reading { now: self.epoch.tick_of(self.turn_start), second }
    }
}

/// The time of a turn.
#[derive(Debug)]
pub struct Reading {
    pub now: Tick,
    /// The wall-clock time, if the second has changed since the last reading.
    pub second: Option<Second>,
}

/// A second of the wall clock.
#[derive(Copy, Clone, Debug)]
pub struct Second {
    wall: SystemTime,
    /// The time from tick 0 to this second.
    elapsed: Duration,
}

impl Second {
    /// Replaces the text of `line` with the `Date` line of HTTP responses.
    ///
    /// The memory of `line` is reused, so that a new second allocates no memory.
    pub fn write_date_line(self, line: &mut String) {
        write_date_line(line, HttpDate::from(self.wall));
    }

    /// Returns the wall-clock time of tick 0. `before` is the result of the previous call.
    ///
    /// The result differs from `before` only if the wall clock was set, not if it drifts.
    pub fn started_at(self, before: SystemTime) -> SystemTime {
        let started = self.wall.checked_sub(self.elapsed).unwrap_or(before);
        let jump = started.duration_since(before).unwrap_or_else(|earlier| earlier.duration());
        if jump > WALL_DRIFT_MAX { started } else { before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_changes_only_if_the_wall_clock_was_set() {
        let seconds = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
        let elapsed = Duration::from_secs(50);
        let started = |wall| Second { wall, elapsed }.started_at(seconds(1000));
        assert_eq!(started(seconds(1050)), seconds(1000));
        assert_eq!(started(seconds(1050) + Duration::from_millis(900)), seconds(1000), "drift");
        assert_eq!(started(seconds(5050)), seconds(5000), "set forward");
        assert_eq!(started(seconds(150)), seconds(100), "set back");
    }

    #[test]
    fn a_date_line_reuses_the_memory_of_the_earlier_line() {
        let mut line = String::new();
        let mut write = |secs| {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
            Second { wall, elapsed: Duration::ZERO }.write_date_line(&mut line);
            (line.clone(), line.as_ptr())
        };
        let (first, memory) = write(784_111_777);
        assert_eq!(first, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        assert_eq!(write(784_111_778), ("Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n".to_owned(), memory));
    }
}
