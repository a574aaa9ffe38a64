//! Pauses between the attempts to send a request: exponential back-off with full jitter. With jitter, many servers do
//! not send their requests at the same time when their back end recovers.

use std::time::Duration;

/// The maximum number of times that the maximum pause doubles. The factor 2^`DOUBLINGS_MAX` must fit into 32 bits.
const DOUBLINGS_MAX: u32 = 31;

/// A generator of random pauses. The maximum pause doubles with each consecutive failure.
#[derive(Debug)]
pub struct Retry {
    first: Duration,
    longest: Duration,
    failures: u32,
    random: fastrand::Rng,
}

impl Retry {
    /// Creates a generator of pauses. The pause after the first failure is at most `first`. Each further failure
    /// doubles the maximum pause, up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Retry {
        Retry { first, longest, failures: 0, random: fastrand::Rng::new() }
    }

    /// Counts a failure. Returns a random pause up to the current maximum.
    pub fn next_pause(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(self.random.f64())
    }

    /// Returns the number of failures since the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Resets the number of failures, so that the next pause is short.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    fn bound(&self) -> Duration {
        let factor = 1_u32 << self.failures.min(DOUBLINGS_MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_pause_doubles_up_to_its_limit() {
        let mut retry = Retry::new(Duration::from_millis(100), Duration::from_secs(30));
        let mut total = Duration::ZERO;
        for bound_ms in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            assert_eq!(retry.bound(), Duration::from_millis(bound_ms));
            let pause = retry.next_pause();
            assert!(pause <= Duration::from_millis(bound_ms));
            total += pause;
        }
        assert!(total > Duration::ZERO);
        for _ in 0..100 {
            retry.next_pause();
        }
        assert_eq!(retry.bound(), Duration::from_secs(30));
        retry.reset();
        assert_eq!(retry.bound(), Duration::from_millis(100));
    }
}
