//! The progress of a change of limits.

use std::time::Duration;

/// A change of limits that is not applied to all connections yet.
#[derive(Debug)]
pub struct LimitUpdate {
    /// The next slot to update.
    pub next: u32,
    /// The new `write_time_max`, if it changed.
    pub write_time_max: Option<Duration>,
}
