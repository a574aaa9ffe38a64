//! The progress of new limits through the connections that are there.

use std::time::Duration;

/// The progress of new limits.
#[derive(Debug)]
pub struct Relimit {
    /// The next slot.
    pub next: u32,
    /// `write_time_max`, if it changed.
    pub write_time_max: Option<Duration>,
}
