//! Operations: the log, the metrics, the memory of the process, and the protocol of the service manager.

pub mod logging;
pub mod loop_numbers;
pub mod memory;
pub mod metrics;
pub mod snapshot;
pub mod systemd;
