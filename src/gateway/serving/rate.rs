//! How often something may happen: a token bucket.
//!
//! It owns the arithmetic, in whole numbers: a bucket's level is counted in thousandths of a token, so that a
//! millisecond at one token a second is exactly one. It reads no clock and keeps no rate: both are handed in, so that a
//! rate can change under a running bucket, and a bucket costs 16 bytes.

use std::num::NonZeroU32;

/// The highest rate and burst: their thousandths fit 32 bits.
pub const RATE_MAX: u32 = 1_000_000;

/// Thousandths of a token that one costs.
const COST: u32 = 1000;

const _: () = assert!(RATE_MAX as u64 * COST as u64 <= u32::MAX as u64);
const _: () = assert!(size_of::<RateLimiter>() == 16);

/// So many a second, and so many at once.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

/// What happened of late, against a [`Rate`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct RateLimiter {
    /// When `level` was right, in milliseconds.
    at: u64,
    /// Thousandths of a token that are left.
    level: u32,
    /// Whether it was over since it was last full.
    was_over: bool,
}

/// Whether it may happen.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    /// No, and that shall be said.
    FirstOver,
    /// No, and it was said: since then the bucket was not full again.
    Over,
}

impl Rate {
    /// `per_second` in the long run, `burst` at once; without a burst, twice the rate. Both are held to [`RATE_MAX`].
    pub fn new(per_second: NonZeroU32, burst: Option<NonZeroU32>) -> Rate {
        let per_second = per_second.get().min(RATE_MAX);
        let burst = burst.map_or(per_second.saturating_mul(2), NonZeroU32::get).min(RATE_MAX);
        Rate { per_second, burst }
    }

    /// A full bucket, in thousandths of a token.
    fn full(self) -> u32 {
        self.burst * COST
    }
}

impl RateLimiter {
    /// A full bucket.
    pub fn new(rate: Rate, now: u64) -> RateLimiter {
        RateLimiter { at: now, level: rate.full(), was_over: false }
    }

    /// Takes a token, if there is one. `now` is in milliseconds of any clock that does not go back; if it does, no time
    /// has passed.
    pub fn allow(&mut self, rate: Rate, now: u64) -> Verdict {
        self.refill(rate, now);
        if self.level >= COST {
            self.level -= COST;
            Verdict::Pass
        } else if self.was_over {
            Verdict::Over
        } else {
            self.was_over = true;
            Verdict::FirstOver
        }
    }

    fn refill(&mut self, rate: Rate, now: u64) {
        let gained = now.saturating_sub(self.at).saturating_mul(u64::from(rate.per_second));
        let level = u64::from(self.level).saturating_add(gained);
        self.at = self.at.max(now);
        self.level = u32::try_from(level).unwrap_or(u32::MAX).min(rate.full());
        // Who was quiet for so long is forgiven: the next time, it is said again.
        self.was_over &= self.level < rate.full();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate::new(NonZeroU32::new(per_second).expect("a rate"), NonZeroU32::new(burst))
    }

    #[test]
    fn a_burst_then_the_rate() {
        let rate = rate(2, 3);
        let mut bucket = RateLimiter::new(rate, 1000);
        let mut at = |now| bucket.allow(rate, now);
        assert_eq!([at(1000), at(1000), at(1000)], [Verdict::Pass; 3]);
        assert_eq!(at(1000), Verdict::FirstOver);
        assert_eq!(at(1499), Verdict::Over, "a token takes 500 ms");
        assert_eq!(at(1500), Verdict::Pass);
        assert_eq!(at(1500), Verdict::Over, "it was said");
        assert_eq!(at(2999), Verdict::Pass);
        assert_eq!([at(2999), at(2999)], [Verdict::Pass, Verdict::Over]);
    }

    #[test]
    fn who_was_quiet_until_the_bucket_was_full_is_told_again() {
        let rate = rate(1, 1);
        let mut bucket = RateLimiter::new(rate, 0);
        let mut at = |now| bucket.allow(rate, now);
        assert_eq!([at(0), at(0), at(0)], [Verdict::Pass, Verdict::FirstOver, Verdict::Over]);
        assert_eq!([at(1000), at(1000)], [Verdict::Pass, Verdict::FirstOver]);
        assert_eq!(at(500), Verdict::Over, "a clock that goes back gives nothing");
        assert_eq!(at(1999), Verdict::Over);
        assert_eq!(at(2000), Verdict::Pass);
    }

    #[test]
    fn a_rate_may_change_under_a_running_bucket() {
        let mut bucket = RateLimiter::new(rate(1, 100), 0);
        let small = rate(1, 2);
        let verdicts: Vec<Verdict> = (0..3).map(|_| bucket.allow(small, 0)).collect();
        assert_eq!(verdicts, [Verdict::Pass, Verdict::Pass, Verdict::FirstOver]);
        let fast = rate(1_000_000, 5);
        assert_eq!(bucket.allow(fast, 1), Verdict::Pass, "a millisecond at the new rate fills it");
    }

    #[test]
    fn the_highest_numbers_overflow_nothing() {
        let rate = Rate::new(NonZeroU32::MAX, Some(NonZeroU32::MAX));
        assert_eq!(rate, Rate { per_second: RATE_MAX, burst: RATE_MAX });
        let mut bucket = RateLimiter::new(rate, 0);
        assert_eq!(bucket.allow(rate, u64::MAX), Verdict::Pass);
        assert_eq!(Rate::new(NonZeroU32::MIN, None), Rate { per_second: 1, burst: 2 });
        assert_eq!(Rate::new(NonZeroU32::MAX, None).burst, RATE_MAX);
    }

    /// Millisecond by millisecond, token by token.
    struct Naive {
        thousandths: u64,
        now: u64,
        was_over: bool,
    }

    impl Naive {
        fn allow(&mut self, rate: Rate, now: u64) -> Verdict {
            while self.now < now {
                self.now += 1;
                self.thousandths = (self.thousandths + u64::from(rate.per_second)).min(u64::from(rate.burst) * 1000);
            }
            if self.thousandths == u64::from(rate.burst) * 1000 {
                self.was_over = false;
            }
            match (self.thousandths >= 1000, self.was_over) {
                (true, _) => {
                    self.thousandths -= 1000;
                    Verdict::Pass
                }
                (false, true) => Verdict::Over,
                (false, false) => {
                    self.was_over = true;
                    Verdict::FirstOver
                }
            }
        }
    }

    proptest! {
        #[test]
        fn rate_matches_naive(
            per_second in 1u32..5000,
            burst in 1u32..50,
            pauses in prop::collection::vec(prop_oneof![Just(0u64), 0u64..20, 0u64..3000], 0..300),
        ) {
            let rate = rate(per_second, burst);
            let mut bucket = RateLimiter::new(rate, 0);
            let mut naive = Naive { thousandths: u64::from(burst) * 1000, now: 0, was_over: false };
            let (mut now, mut passed) = (0, 0);
            for pause in pauses {
                now += pause;
                let verdict = bucket.allow(rate, now);
                prop_assert_eq!(verdict, naive.allow(rate, now), "at {}", now);
                passed += u64::from(verdict == Verdict::Pass);
                // The promise, whatever the order: never more than the burst and what the time has brought.
                prop_assert!(passed * 1000 <= u64::from(burst) * 1000 + now * u64::from(per_second));
            }
        }
    }
}
