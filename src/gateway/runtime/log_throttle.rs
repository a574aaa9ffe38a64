//! A throttle of log lines. Several threads can share the throttle.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fdpush::shared::Tick;

use super::clock;

/// A [`LogThrottle`](fdpush::shared::LogThrottle) that a lock protects.
#[derive(Debug)]
pub struct LogThrottle {
    start: Instant,
    throttle: Mutex<fdpush::shared::LogThrottle>,
}

/// The number of suppressed log lines since the last written log line. The next written log line ends with the text of
/// this number. The text is empty if the number is 0.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Suppressed(u64);

impl Suppressed {
    /// The number 0: no log line was suppressed.
    pub const NONE: Suppressed = Suppressed(0);
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} more since the last line)"),
        }
    }
}

impl LogThrottle {
    /// Creates a throttle that allows one log line in each `period`.
    pub fn new(period: Duration) -> LogThrottle {
        LogThrottle { start: clock::now(), throttle: Mutex::new(fdpush::shared::LogThrottle::new(period)) }
    }

    /// Returns the number of suppressed lines if a line may be written now. Otherwise returns `None` and counts one
    /// more suppressed line.
    pub fn admit(&self, now: Instant) -> Option<Suppressed> {
        let elapsed = now.saturating_duration_since(self.start).as_millis().try_into().unwrap_or(u64::MAX);
        // No function panics while the function holds this lock, so the throttle is always valid.
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.count(Tick(elapsed)).map(|events| Suppressed(events - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_log_line_is_written_in_each_period() {
        let throttle = LogThrottle::new(Duration::from_secs(5));
        let start = clock::now();
        assert_eq!(throttle.admit(start), Some(Suppressed(0)));
        for second in 1..5 {
            assert_eq!(throttle.admit(start + Duration::from_secs(second)), None);
        }
        assert_eq!(throttle.admit(start + Duration::from_secs(5)), Some(Suppressed(4)));
        assert_eq!(throttle.admit(start + Duration::from_secs(10)), Some(Suppressed(0)));
        assert_eq!(format!("no answer{}", Suppressed(4)), "no answer (4 more since the last line)");
        assert_eq!(Suppressed(0).to_string(), "");
    }
}
