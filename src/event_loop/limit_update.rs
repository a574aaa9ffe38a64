//! The progress of a change of limits.

use std::time::Duration;

/// A change of limits that is not applied to all connections yet.
#[derive(Debug)]
pub struct LimitUpdate {
    /// The next slot whose connection gets the new limits.
    pub next: u32,
    /// The new `write_time_max`, if the change of limits has changed this limit.
    pub write_time_max: Option<Duration>,
}
