//! The modules that all other modules of the gateway use: the clock, supervised threads, bounded file reads, the
//! throttle of log lines, the work of a turn, and the state that several loops share.

pub mod clock;
pub mod files;
pub mod gather;
pub mod log_throttle;
pub mod loop_state;
pub mod loops;
pub mod portion;
pub mod progress;
pub mod threads;
