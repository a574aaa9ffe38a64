//! The modules that all other modules of the gateway use: the clock, supervised threads, bounded file reads, the
//! throttle of log lines, and the bound on the work of one turn.

pub mod clock;
pub mod files;
pub mod log_throttle;
pub mod portion;
pub mod threads;
