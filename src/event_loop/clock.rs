//! The loop's clocks: the monotonic clock, which deadlines follow, and the wall clock, which people read.
//!
//! No other file of the loop reads a clock. A turn reads the monotonic clock once at its start and once at its end.

use std::time::{Duration, Instant, SystemTime};

use crate::tick::Tick;
use httpdate::HttpDate;

/// The drift of the wall clock from the monotonic clock that the reported times ignore.
const WALL_DRIFT_MAX: Duration = Duration::from_secs(1);

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// The monotonic clock as of the last tick of the kernel, some milliseconds ago at most. A look at it costs a fraction of one
/// at the exact clock.
#[inline]
pub fn coarse() -> coarsetime::Instant {
    coarsetime::Instant::now_without_cache_update()
}

/// The moment of tick 0.
#[derive(Copy, Clone, Debug)]
pub struct Epoch(Instant);

/// The loop's last readings of its clocks.
#[derive(Debug)]
pub struct Clock {
    pub epoch: Epoch,
    /// When this turn began.
    pub turn_start: Instant,
    /// The second that `Env::date` was made for.
    dated: u64,
}

impl Epoch {
    /// This moment, rounded down.
    pub fn now(self) -> Tick {
        self.tick_of(now())
    }

    /// The moment of a tick.
    pub fn at(self, tick: Tick) -> Instant {
        self.0 + Duration::from_millis(tick.0)
    }

    fn tick_of(self, at: Instant) -> Tick {
        Tick(u64::try_from((at - self.0).as_millis()).unwrap_or(u64::MAX))
    }
}

impl Clock {
    pub fn new() -> Clock {
        let started = now();
        Clock { epoch: Epoch(started), turn_start: started, dated: u64::MAX }
    }

    /// Reads the clock, once a turn; the wall clock only when the second has changed.
    pub fn read(&mut self) -> Reading {
        self.turn_start = now();
        let elapsed = self.turn_start - self.epoch.0;
        let second = (self.dated != elapsed.as_secs()).then(|| {
            self.dated = elapsed.as_secs();
            let wall = SystemTime::now();
            Second { date: HttpDate::from(wall).to_string(), wall, elapsed }
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
#[derive(Debug)]
pub struct Second {
    /// The `Date` of HTTP responses.
    pub date: String,
    wall: SystemTime,
    /// The time since tick 0.
    elapsed: Duration,
}

impl Second {
    /// Returns the wall-clock time of tick 0, which was `before` at the last reading.
    ///
    /// It moves if the wall clock was set, and stays if it only drifts.
    pub fn started_at(&self, before: SystemTime) -> SystemTime {
        let started = self.wall.checked_sub(self.elapsed).unwrap_or(before);
        let jump = started.duration_since(before).unwrap_or_else(|earlier| earlier.duration());
        if jump > WALL_DRIFT_MAX { started } else { before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_moves_with_a_wall_clock_that_was_set() {
        let seconds = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
        let elapsed = Duration::from_secs(50);
        let started = |wall| Second { date: String::new(), wall, elapsed }.started_at(seconds(1000));
        assert_eq!(started(seconds(1050)), seconds(1000));
        assert_eq!(started(seconds(1050) + Duration::from_millis(900)), seconds(1000), "drift");
        assert_eq!(started(seconds(5050)), seconds(5000), "set forward");
        assert_eq!(started(seconds(150)), seconds(100), "set back");
    }
}
