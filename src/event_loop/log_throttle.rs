//! A bound on log lines about an event that can happen a thousand times a second.

use std::time::Duration;

use crate::tick::Tick;

/// The shortest time between two lines.
const PERIOD: Duration = Duration::from_secs(1);

/// Whether a line about an event is due, and how many events there were since the last line.
#[derive(Debug, Default)]
pub struct LogThrottle {
    until: Tick,
    unlogged: u64,
}

impl LogThrottle {
    /// Counts an event. `Some`: a line is due, and this is the number of events since the last line.
    pub fn count(&mut self, now: Tick) -> Option<u64> {
        self.unlogged += 1;
        if now < self.until {
            return None;
        }
        self.until = now.after(PERIOD);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_second_has_the_number_of_events() {
        let mut throttle = LogThrottle::default();
        let logged: Vec<_> = [0, 1, 999, 1000, 1001, 5000].map(|now| throttle.count(Tick(now))).into();
        assert_eq!(logged, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
