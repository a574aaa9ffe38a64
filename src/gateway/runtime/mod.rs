//! The modules that all other modules of the gateway use: the clock, supervised threads, bounded file reads, and the
//! throttle of log lines.

pub mod clock;
pub mod files;
pub mod log_throttle;
pub mod threads;
