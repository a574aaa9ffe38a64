//! Reads the clocks of the system for the gateway. Code that runs on the loop uses the time of the loop where possible.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Returns the time of the monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Returns the time of the wall clock in milliseconds since 1970, or 0 if the clock is set before 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time of the wall clock in seconds since 1970, or 0 if the clock is set before 1970.
pub fn unix_seconds() -> u64 {
    unix_ms() / 1000
}
