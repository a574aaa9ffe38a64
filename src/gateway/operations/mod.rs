//! Operations: the log, the metrics, and the protocol of the service manager.

pub mod logging;
pub mod metrics;
pub mod snapshot;
pub mod systemd;
