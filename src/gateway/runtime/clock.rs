//! The gateway's clock. Its rooms on the loop's thread are given the time; only threads of its own have to ask for it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time that durations are measured by.
pub fn now() -> Instant {
    Instant::now()
}

/// The time that people and other machines go by, in milliseconds since 1970; 0 where the clock is set before it.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
