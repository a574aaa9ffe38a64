//! The numbers of deferred answers to HTTP requests.

/// The number of a [`Ticket`](crate::Ticket).
///
/// A request stores the number of the ticket that may answer it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Deferral(pub(crate) u64);
