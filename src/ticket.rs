//! The right to give one deferred answer to one request.

use std::fmt;
use std::marker::PhantomData;

use crate::event_loop::{Command, Sender};
use crate::fd::Fd;
use crate::protocol::deferral::Deferral;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Upgrade;
use crate::remote::RemoteError;

/// The right to answer one request later: an upgrade with an [`Upgrade`], a plain request with a [`Response`].
///
/// [`Context::defer_upgrade`](crate::Context::defer_upgrade) and
/// [`Context::defer_response`](crate::Context::defer_response) make it. It moves to any thread. An answer uses it up, and
/// it never answers another request, also not the next one on the same connection. A ticket that is dropped leaves the
/// client waiting for the 503 after [`answer_time_max`](crate::Limits::answer_time_max).
#[must_use = "without an answer the client gets a 503"]
pub struct Ticket<A> {
    fd: Fd,
    deferral: Deferral,
    sender: Sender<Command>,
    answer: PhantomData<fn(A)>,
}

impl<A> Ticket<A> {
    pub(crate) fn new(fd: Fd, deferral: Deferral, sender: Sender<Command>) -> Ticket<A> {
        Ticket { fd, deferral, sender, answer: PhantomData }
    }

    pub(crate) fn into_parts(self) -> (Fd, Deferral) {
        (self.fd, self.deferral)
    }

    /// Returns the fd of the connection that waits.
    pub fn fd(&self) -> Fd {
        self.fd
    }
}

impl Ticket<Upgrade> {
    /// Answers the upgrade, from any thread.
    ///
    /// The answer is dropped if the client has gone or got a 503 meanwhile.
    ///
    /// # Errors
    /// [`RemoteError::Full`], [`RemoteError::Closed`].
    pub fn answer(self, answer: impl Into<Upgrade>) -> Result<(), RemoteError> {
        self.send(answer.into())
    }
}

impl Ticket<Response> {
    /// Answers the request, from any thread.
    ///
    /// The answer is dropped if the client has gone or got a 503 meanwhile.
    ///
    /// # Errors
    /// [`RemoteError::Full`], [`RemoteError::Closed`].
    pub fn answer(self, answer: impl Into<Response>) -> Result<(), RemoteError> {
        self.send(answer.into().into())
    }
}

impl<A> Ticket<A> {
    fn send(self, answer: Upgrade) -> Result<(), RemoteError> {
        let Ticket { fd, deferral, sender, .. } = self;
        let call = Box::new(move |ctx: &mut crate::event_loop::Context<'_>| {
            ctx.core.deferrals().answer(fd, deferral, answer);
        });
        sender.send(Command::Call(call)).map_err(RemoteError::from)
    }
}

impl<A> fmt::Debug for Ticket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("fd", &self.fd).field("number", &self.deferral.0).finish()
    }
}
