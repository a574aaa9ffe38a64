//! The clock of the gateway's own threads. Code on the loop's thread uses the time of the loop if it can.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Returns the monotonic time.
pub fn now() -> Instant {
    Instant::now()
}

/// Returns the wall clock in milliseconds since 1970, or 0 if the clock is set before 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the wall clock in seconds since 1970, or 0 if the clock is set before 1970.
pub fn unix_seconds() -> u64 {
    unix_ms() / 1000
}
