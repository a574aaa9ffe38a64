//! The modules that all other modules of the gateway use: the clock, supervised threads, bounded file reads, the
//! throttle of log lines, and the work of a turn.

pub mod clock;
pub mod files;
pub mod log_throttle;
pub mod portion;
pub mod threads;
