//! The errors of invalid limits and heartbeats.

use std::time::Duration;

/// An invalid field of [`Limits`](crate::Limits) or of [`Heartbeat`](crate::Heartbeat).
///
/// The text of the error names the field, its value and the valid range.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The value of a limit is out of its valid range.
    #[error("{name} is {value}: it must be from {min} to {max}")]
    OutOfRange {
        /// The name of the invalid field of [`Limits`](crate::Limits).
        name: &'static str,
        /// The value of the field.
        value: usize,
        /// The smallest valid value.
        min: usize,
        /// The largest valid value.
        max: usize,
    },
    /// The value of a limit is lower than a minimum that depends on other limits.
    #[error("{name} is {value}: it must be at least {min}, {reason}")]
    TooSmall {
        /// The name of the invalid field of [`Limits`](crate::Limits).
        name: &'static str,
        /// The value of the field.
        value: usize,
        /// The smallest valid value.
        min: usize,
        /// The meaning of `min`, with the names of the limits that determine it.
        reason: String,
    },
    /// `read_budget_bytes` is out of its valid range.
    #[error("read_budget_bytes is {value}: it must be from 1 KiB to 64 MiB")]
    ReadBudget {
        /// The value of [`Limits::read_budget_bytes`](crate::Limits::read_budget_bytes).
        value: usize,
    },
    /// A time limit is zero.
    #[error("{name} is 0: it must be over 0")]
    Zero {
        /// The name of the invalid field of [`Limits`](crate::Limits).
        name: &'static str,
    },
    /// `drain_for` is longer than `drain_time_max`.
    #[error("drain_for is {drain_for:?}: it must be at most drain_time_max, {drain_time_max:?}")]
    DrainTooLong {
        /// The value of [`Limits::drain_for`](crate::Limits::drain_for).
        drain_for: Duration,
        /// The value of [`Limits::drain_time_max`](crate::Limits::drain_time_max).
        drain_time_max: Duration,
    },
    /// A period or count of a [`Heartbeat`](crate::Heartbeat) is below its minimum.
    #[error("heartbeat: {name} is {value}: it must be {min}")]
    Heartbeat {
        /// The name of the invalid field of [`Heartbeat`](crate::Heartbeat).
        name: &'static str,
        /// The value of the field.
        value: String,
        /// The valid range of the field.
        min: &'static str,
    },
}

impl LimitError {
    /// Returns the name of the invalid field.
    pub fn name(&self) -> &'static str {
        match self {
            LimitError::OutOfRange { name, .. }
            | LimitError::TooSmall { name, .. }
            | LimitError::Zero { name }
            | LimitError::Heartbeat { name, .. } => name,
            LimitError::ReadBudget { .. } => "read_budget_bytes",
            LimitError::DrainTooLong { .. } => "drain_for",
        }
    }
}
