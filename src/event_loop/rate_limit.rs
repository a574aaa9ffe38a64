//! Rate limits of one loop, and rate limits that several loops share.

use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError};

use crate::sync::Mutex;
use crate::tick::Tick;
use crate::token_bucket::{Rate, Take, TokenBucket};

/// A token bucket and its rate, or `None` while there is no limit.
pub type Bucket = Option<(Rate, TokenBucket)>;

/// A token bucket that several loops share.
pub type SharedBucket = Arc<Mutex<Bucket>>;

/// A rate limit of one loop, or of all loops together.
#[derive(Debug)]
pub enum RateLimit {
    Own(Bucket),
    Shared(SharedBucket),
}

impl RateLimit {
    /// Takes a token, and returns whether the bucket had a token. `None` for `per_second` means that there is no limit.
    pub fn take(&mut self, per_second: Option<u32>, now: Tick) -> bool {
        match self {
            RateLimit::Own(bucket) => take_token(bucket, per_second, now),
            RateLimit::Shared(bucket) => {
                take_token(&mut bucket.lock().unwrap_or_else(PoisonError::into_inner), per_second, now)
            }
        }
    }
}

impl Default for RateLimit {
    fn default() -> RateLimit {
        RateLimit::Own(None)
    }
}

/// Takes the token of one connection or one TLS handshake.
///
/// Returns whether the bucket had a token. A new rate starts with a full bucket. Without a rate, the result is always
/// `true`.
fn take_token(bucket: &mut Bucket, per_second: Option<u32>, now: Tick) -> bool {
    let Some(per_second) = per_second else {
        *bucket = None;
        return true;
    };
    let Some(per_second) = NonZeroU32::new(per_second) else { return false };
    let rate = Rate::new(per_second, Some(per_second));
    let mut tokens = match *bucket {
        Some((earlier, tokens)) if earlier == rate => tokens,
        _ => TokenBucket::new(rate, now.0),
    };
    let is_granted = tokens.take(rate, now.0) == Take::Granted;
    *bucket = Some((rate, tokens));
    is_granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_at_its_rate_and_holds_the_tokens_of_one_second() {
        let mut bucket = None;
        let mut come =
            |count: usize, at: u64, rate| (0..count).filter(|_| take_token(&mut bucket, rate, Tick(at))).count();
        assert_eq!(come(20, 0, Some(10)), 10);
        assert_eq!(come(20, 250, Some(10)), 2);
        assert_eq!(come(20, 300, Some(10)), 1, "two half tokens must be one token");
        assert_eq!(come(20, 60_000, Some(10)), 10, "the bucket must hold the tokens of one second");
        assert_eq!(come(20, 60_000, Some(3)), 3, "a new rate must start with a full bucket");
        assert_eq!(come(20, 60_000, None), 20);
    }

    #[test]
    fn loops_share_one_rate() {
        let bucket = SharedBucket::default();
        let mut limits = [RateLimit::Shared(Arc::clone(&bucket)), RateLimit::Shared(bucket)];
        let granted = (0..20).filter(|turn| limits[turn % 2].take(Some(7), Tick(0))).count();
        assert_eq!(granted, 7);
    }
}
