//! The reasons why a command has no result.

use std::fmt;

use crate::event_loop::Rejected;

/// The reason why a command has no result.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RemoteError {
    /// The inbox of a loop is full: [`Limits::inbox_max`](crate::Limits::inbox_max) commands wait for the loop. The
    /// rejected command has no effect.
    Full,
    /// The server has ended. A command that the server has not carried out has no effect.
    Closed,
    /// The command panicked on the thread of a loop. The command may have taken effect in part. The server continues to
    /// run after the panic.
    Panicked,
    /// The result did not arrive within the timeout. The command may still be carried out.
    TimedOut,
    /// The thread of a loop called [`Reply::wait`](crate::Reply::wait), which would block forever. Inside a handler,
    /// use the [`Context`](crate::Context) of the handler.
    OwnThread,
}

impl From<Rejected> for RemoteError {
    fn from(rejected: Rejected) -> RemoteError {
        match rejected {
            Rejected::Full => RemoteError::Full,
            Rejected::Closed => RemoteError::Closed,
        }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoteError::Full => "inbox of the server is full",
            RemoteError::Closed => "server has ended",
            RemoteError::Panicked => "command panicked",
            RemoteError::TimedOut => "reply timed out",
            RemoteError::OwnThread => "cannot wait for a reply on the loop's own thread",
        })
    }
}

impl std::error::Error for RemoteError {}
