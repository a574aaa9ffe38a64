//! Measures the time that handlers take, and limits the warnings about long calls.
//!
//! Clock reads before and after each message would take too much time. So time is measured in intervals with the coarse
//! clock. An interval ends after the input of each socket, and before and after each handler call except `on_message`.
//! The time of an interval that ends after a handler call is the time of this call. The time of any other interval is
//! the time of the `on_message` calls for the current input.

use std::time::Duration;

use crate::event_loop::clock;
use crate::fd::Fd;
use crate::log_throttle::LogThrottle;
use crate::tick::Tick;

/// A warning is logged for a call that takes longer than this time.
const BLOCKED_MAX: coarsetime::Duration = coarsetime::Duration::from_millis(100);

/// The maximum number of method names that have a throttle.
///
/// The list of throttles has this capacity, so that the first warning about a method allocates no memory.
const NAMES_MAX: usize = 32;

/// A stopwatch for handler calls, and the throttles of the warnings about long calls.
#[derive(Debug)]
pub struct CallTimer {
    /// The start of the current interval, read from the coarse clock.
    began: coarsetime::Instant,
    /// The connection whose input is being handled.
    pub input: Option<CurrentInput>,
    /// The throttle of the warnings about each method, by the name of the method.
    throttles: Vec<(&'static str, LogThrottle)>,
}

/// A connection whose input is being handled.
#[derive(Copy, Clone, Debug)]
pub struct CurrentInput {
    pub fd: Fd,
    /// Whether the connection spoke HTTP before this input.
    pub was_http: bool,
}

impl CallTimer {
    /// Creates a timer whose first interval begins now.
    pub fn new() -> CallTimer {
        CallTimer { began: clock::coarse(), input: None, throttles: Vec::with_capacity(NAMES_MAX) }
    }

    /// Begins an interval.
    pub fn begin(&mut self) {
        self.began = clock::coarse();
    }

    /// Ends an interval and begins the next. Returns the duration if it exceeds [`BLOCKED_MAX`].
    #[inline]
    pub fn lap(&mut self) -> Option<Duration> {
        let now = clock::coarse();
        let took = now.duration_since(self.began);
        self.began = now;
        (took > BLOCKED_MAX).then(|| took.into())
    }

    /// Counts a long call of the handler method `name`. If a warning is due, returns the number of long calls of this
    /// method since the last warning about it.
    pub fn count(&mut self, name: &'static str, now: Tick) -> Option<u64> {
        let index = self.throttles.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
            self.throttles.push((name, LogThrottle::default()));
            self.throttles.len() - 1
        });
        self.throttles.get_mut(index)?.1.count(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_about_each_method_are_throttled_separately() {
        let mut timer = CallTimer::new();
        let mut count = |name, now| timer.count(name, Tick(now));
        assert_eq!([count("on_open", 0), count("on_open", 1), count("on_close", 2)], [Some(1), None, Some(1)]);
        assert_eq!(count("on_open", 1000), Some(2));
        assert_eq!(timer.throttles.capacity(), NAMES_MAX, "a warning must allocate no memory");
    }
}
