//! A token bucket: limits how often an event may happen.
//!
//! The arithmetic uses whole numbers. The level is in thousandths of a token: a bucket of one token a second gains
//! exactly one thousandth in a millisecond. The bucket reads no clock and stores no rate. The time and the rate are
//! arguments, so the rate can change at any time, and a bucket takes 16 bytes.

use std::num::NonZeroU32;

/// The largest valid number of events per second, and the largest valid number of events at the same time.
///
/// The limit exists because a thousand times this value must fit into 32 bits.
pub const RATE_MAX: u32 = 1_000_000;

/// The cost of one event in thousandths of a token.
const COST: u32 = 1000;

const _: () = assert!(RATE_MAX as u64 * COST as u64 <= u32::MAX as u64);
const _: () = assert!(size_of::<TokenBucket>() == 16);

/// The maximum number of events per second, and the maximum number of events at the same time.
///
/// Both numbers are at most [`RATE_MAX`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

/// A bucket of tokens. Each event takes one token.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TokenBucket {
    /// The time of the last refill, in milliseconds.
    at: u64,
    /// The remaining tokens, in thousandths of a token.
    level: u32,
    /// Whether a token was denied since the bucket was last full.
    was_denied: bool,
}

/// The result of [`TokenBucket::take`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Take {
    /// A token was taken.
    Granted,
    /// No token was left, for the first time since the bucket was full.
    FirstDenied,
    /// No token was left, again: the bucket was not full since [`Take::FirstDenied`].
    Denied,
}

impl Rate {
    /// Creates a rate of `per_second` events, with at most `burst` events at the same time.
    ///
    /// If `burst` is `None`, the maximum number of events at the same time is twice `per_second`. A value above
    /// [`RATE_MAX`] is reduced to [`RATE_MAX`].
    pub fn new(per_second: NonZeroU32, burst: Option<NonZeroU32>) -> Rate {
        let per_second = per_second.get().min(RATE_MAX);
        let burst = burst.map_or(per_second.saturating_mul(2), NonZeroU32::get).min(RATE_MAX);
        Rate { per_second, burst }
    }

    /// Returns the level of a full bucket, in thousandths of a token.
    fn full(self) -> u32 {
        self.burst * COST
    }
}

impl TokenBucket {
    /// Creates a full bucket.
    pub fn new(rate: Rate, now: u64) -> TokenBucket {
        TokenBucket { at: now, level: rate.full(), was_denied: false }
    }

    /// Takes a token if there is one.
    ///
    /// `now` is in milliseconds of a monotonic clock. If `now` is earlier than in the last call, no tokens are added.
    pub fn take(&mut self, rate: Rate, now: u64) -> Take {
        self.refill(rate, now);
        if self.level >= COST {
            self.level -= COST;
            Take::Granted
        } else if self.was_denied {
            Take::Denied
        } else {
            self.was_denied = true;
            Take::FirstDenied
        }
    }

    fn refill(&mut self, rate: Rate, now: u64) {
        let gained = now.saturating_sub(self.at).saturating_mul(u64::from(rate.per_second));
        let level = u64::from(self.level).saturating_add(gained);
        self.at = self.at.max(now);
        self.level = u32::try_from(level).unwrap_or(u32::MAX).min(rate.full());
        self.was_denied &= self.level < rate.full();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate::new(NonZeroU32::new(per_second).expect("the rate must not be 0"), NonZeroU32::new(burst))
    }

    #[test]
    fn after_the_events_at_once_the_rate_limits_the_events() {
        let rate = rate(2, 3);
        let mut bucket = TokenBucket::new(rate, 1000);
        let mut at = |now| bucket.take(rate, now);
        assert_eq!([at(1000), at(1000), at(1000)], [Take::Granted; 3]);
        assert_eq!(at(1000), Take::FirstDenied);
        assert_eq!(at(1499), Take::Denied, "a new token must take 500 ms");
        assert_eq!(at(1500), Take::Granted);
        assert_eq!(at(1500), Take::Denied, "the first denial must be reported only once");
        assert_eq!(at(2999), Take::Granted);
        assert_eq!([at(2999), at(2999)], [Take::Granted, Take::Denied]);
    }

    #[test]
    fn the_first_denial_is_reported_again_after_the_bucket_was_full() {
        let rate = rate(1, 1);
        let mut bucket = TokenBucket::new(rate, 0);
        let mut at = |now| bucket.take(rate, now);
        assert_eq!([at(0), at(0), at(0)], [Take::Granted, Take::FirstDenied, Take::Denied]);
        assert_eq!([at(1000), at(1000)], [Take::Granted, Take::FirstDenied]);
        assert_eq!(at(500), Take::Denied, "a call with an earlier time must add no tokens");
        assert_eq!(at(1999), Take::Denied);
        assert_eq!(at(2000), Take::Granted);
    }

    #[test]
    fn the_rate_can_change() {
        let mut bucket = TokenBucket::new(rate(1, 100), 0);
        let small = rate(1, 2);
        let results: Vec<Take> = (0..3).map(|_| bucket.take(small, 0)).collect();
        assert_eq!(results, [Take::Granted, Take::Granted, Take::FirstDenied]);
        let fast = rate(1_000_000, 5);
        assert_eq!(bucket.take(fast, 1), Take::Granted, "a millisecond at the new rate must fill the bucket");
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let rate = Rate::new(NonZeroU32::MAX, Some(NonZeroU32::MAX));
        assert_eq!(rate, Rate { per_second: RATE_MAX, burst: RATE_MAX });
        let mut bucket = TokenBucket::new(rate, 0);
        assert_eq!(bucket.take(rate, u64::MAX), Take::Granted);
        assert_eq!(Rate::new(NonZeroU32::MIN, None), Rate { per_second: 1, burst: 2 });
        assert_eq!(Rate::new(NonZeroU32::MAX, None).burst, RATE_MAX);
    }

    /// A slow model of the bucket, which adds the tokens of each millisecond separately.
    struct Naive {
        thousandths: u64,
        now: u64,
        was_denied: bool,
    }

    impl Naive {
        fn take(&mut self, rate: Rate, now: u64) -> Take {
            while self.now < now {
                self.now += 1;
                self.thousandths = (self.thousandths + u64::from(rate.per_second)).min(u64::from(rate.burst) * 1000);
            }
            if self.thousandths == u64::from(rate.burst) * 1000 {
                self.was_denied = false;
            }
            match (self.thousandths >= 1000, self.was_denied) {
                (true, _) => {
                    self.thousandths -= 1000;
                    Take::Granted
                }
                (false, true) => Take::Denied,
                (false, false) => {
                    self.was_denied = true;
                    Take::FirstDenied
                }
            }
        }
    }

    proptest! {
        #[test]
        fn token_bucket_matches_naive(
            per_second in 1u32..5000,
            burst in 1u32..50,
            pauses in prop::collection::vec(prop_oneof![Just(0u64), 0u64..20, 0u64..3000], 0..300),
        ) {
            let rate = rate(per_second, burst);
            let mut bucket = TokenBucket::new(rate, 0);
            let mut naive = Naive { thousandths: u64::from(burst) * 1000, now: 0, was_denied: false };
            let (mut now, mut passed) = (0, 0);
            for pause in pauses {
                now += pause;
                let result = bucket.take(rate, now);
                prop_assert_eq!(result, naive.take(rate, now), "the bucket and the model must have the same result at {} ms", now);
                passed += u64::from(result == Take::Granted);
                // No more events are granted than the burst and the rate allow in the elapsed time.
                prop_assert!(passed * 1000 <= u64::from(burst) * 1000 + now * u64::from(per_second));
            }
        }
    }
}
