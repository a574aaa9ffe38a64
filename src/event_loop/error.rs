//! The errors of binding and running a server.

use std::error::Error as _;
use std::io;

use crate::fd::LOOPS_MAX;
use crate::limits::LimitError;

/// An error of binding or running a server.
///
/// The text does not repeat the [`source`](std::error::Error::source), which is the error of the system. `Error`
/// converts into an [`io::Error`] with the texts of the error and of its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is invalid, in use or not allowed.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// The error of the system, or of the address syntax.
        source: io::Error,
    },
    /// The socket that was passed in does not listen.
    #[error("the socket does not listen")]
    NotListening,
    /// The socket that was passed in is neither TCP nor a unix socket with a name.
    #[error("the socket is neither TCP nor a unix socket with a name")]
    UnsupportedSocket,
    /// The options of a listening socket cannot be read or set.
    #[error("cannot set up a listening socket")]
    Socket(#[source] io::Error),
    /// A limit or the heartbeat is invalid.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The limit of descriptors cannot be raised.
    #[error("cannot set the descriptor limit")]
    Descriptors(#[source] io::Error),
    /// SIGTERM and SIGINT cannot be caught.
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
    /// An epoll instance cannot be created, or a wait on it failed.
    #[error("cannot wait for events")]
    Poll(#[source] io::Error),
    /// A listening socket can no longer accept connections.
    #[error("cannot accept connections")]
    Accept(#[source] io::Error),
    /// The thread of a loop cannot be started: see [`Server::loops`](crate::Server::loops).
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// [`Server::loops`](crate::Server::loops) needs a handler for each loop, and the server has one handler.
    #[error("several loops need a handler for each loop: use Server::handlers")]
    OneHandler,
    /// The number of loops is 0 or too large: see [`Server::loops`](crate::Server::loops).
    #[error("the number of loops must be from 1 to {LOOPS_MAX}, not {0}")]
    Loops(usize),
    /// A second signal ended the shutdown before all clients had left.
    #[error("drain ended by a second signal")]
    Interrupted,
}

impl Error {
    /// Returns the I/O error kind of the error.
    ///
    /// The kind of an error of the system is the kind of its source. The kind of [`Interrupted`](Error::Interrupted) is
    /// `io::ErrorKind::Interrupted`. The kind of all other errors is `InvalidInput`.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Error::Listen { source, .. }
            | Error::Socket(source)
            | Error::Descriptors(source)
            | Error::Signals(source)
            | Error::Poll(source)
            | Error::Thread(source)
            | Error::Accept(source) => source.kind(),
            Error::NotListening | Error::UnsupportedSocket | Error::Limit(_) | Error::OneHandler | Error::Loops(_) => {
                io::ErrorKind::InvalidInput
            }
            Error::Interrupted => io::ErrorKind::Interrupted,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let text = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        io::Error::new(error.kind(), text)
    }
}
