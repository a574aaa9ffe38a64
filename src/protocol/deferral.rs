//! Answers to HTTP requests that come later.

/// The number of a deferred answer. A ticket has the same number.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Deferral(pub(crate) u64);
