//! Log lines that a bad day would repeat ten thousand times: one in a while, with the number of those held back.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one line through in a period.
#[derive(Debug)]
pub struct Throttle {
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

/// Lines that were held back. It is written behind the next one, and is nothing where there were none.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct HeldBack(u64);

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} more since the last line)"),
        }
    }
}

impl Throttle {
    /// A throttle that lets a line through every `period`.
    pub fn new(period: Duration) -> Throttle {
        Throttle { period, state: Mutex::default() }
    }

    /// Whether a line may be written now, and then how many were held back since the last one.
    pub fn admit(&self, now: Instant) -> Option<HeldBack> {
        // Nothing can panic while the lock is held.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.period) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(HeldBack(std::mem::take(&mut state.held_back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::runtime::clock;

    #[test]
    fn one_in_a_period() {
        let throttle = Throttle::new(Duration::from_secs(5));
        let start = clock::now();
        assert_eq!(throttle.admit(start), Some(HeldBack(0)));
        for second in 1..5 {
            assert_eq!(throttle.admit(start + Duration::from_secs(second)), None);
        }
        assert_eq!(throttle.admit(start + Duration::from_secs(5)), Some(HeldBack(4)));
        assert_eq!(throttle.admit(start + Duration::from_secs(10)), Some(HeldBack(0)));
        assert_eq!(format!("no answer{}", HeldBack(4)), "no answer (4 more since the last line)");
        assert_eq!(HeldBack(0).to_string(), "");
    }
}
