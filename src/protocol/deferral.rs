//! Answers to HTTP requests that come later.

/// The number of a [`Ticket`](crate::Ticket).
///
/// A request remembers the number of the ticket that may answer it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Deferral(pub(crate) u64);
