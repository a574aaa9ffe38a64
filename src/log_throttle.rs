//! A throttle for log lines about events that can happen many times a second.

use std::time::Duration;

use crate::tick::Tick;

/// A throttle that allows one log line per period, and counts the events since the last line.
///
/// The throttle reads no clock: the time is an argument.
#[derive(Debug)]
pub struct LogThrottle {
    period: Duration,
    /// The earliest time of the next log line.
    next: Tick,
    /// The number of events since the last log line.
    events: u64,
}

impl LogThrottle {
    /// Creates a throttle that allows one log line in each `period`.
    pub fn new(period: Duration) -> LogThrottle {
        LogThrottle { period, next: Tick(0), events: 0 }
    }

    /// Counts an event.
    ///
    /// If a line may be written now, returns the number of events since the last line, including this event. If the
    /// result is `None`, the caller writes no line.
    pub fn count(&mut self, now: Tick) -> Option<u64> {
        self.events += 1;
        if now < self.next {
            return None;
        }
        self.next = now.after(self.period);
        Some(std::mem::take(&mut self.events))
    }
}

/// The default throttle allows one log line a second.
impl Default for LogThrottle {
    fn default() -> LogThrottle {
        LogThrottle::new(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_the_number_of_events_since_the_last_line() {
        let mut throttle = LogThrottle::default();
        let counts: Vec<_> = [0, 1, 999, 1000, 1001, 5000].map(|now| throttle.count(Tick(now))).into();
        assert_eq!(counts, [Some(1), None, None, Some(3), None, Some(2)]);
        let mut throttle = LogThrottle::new(Duration::MAX);
        assert_eq!((throttle.count(Tick(7)), throttle.count(Tick(u64::MAX - 1))), (Some(1), None));
    }
}
