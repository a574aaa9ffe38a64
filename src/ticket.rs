//! Values that give the right to answer one HTTP request: a ticket, for an answer after the return of the handler, and
//! a stream, for an answer in pieces.

use std::fmt;
use std::marker::PhantomData;

use crate::event_loop::{Command, Context, Fleet};
use crate::fd::Fd;
use crate::protocol::deferral::Deferral;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Upgrade;
use crate::remote::{RemoteError, send_to_fd};

/// The right to answer one request later: an upgrade with an [`Upgrade`], a plain request with a [`Response`].
///
/// [`Context::defer_upgrade`](crate::Context::defer_upgrade),
/// [`Context::defer_response`](crate::Context::defer_response) and [`Context::ticket`](crate::Context::ticket) create
/// tickets. A ticket can be sent to any thread. An answer consumes the ticket, and so does
/// [`Context::begin_response`](crate::Context::begin_response). A ticket never answers another request, not even the
/// next request on the same connection.
///
/// If a ticket is dropped without an answer, the client gets status 503. So a client does not wait for a thread that
/// has panicked. If the inbox of the loop is full when the ticket is dropped, the client gets status 503 only after
/// [`answer_time_max`](crate::Limits::answer_time_max).
#[must_use = "without an answer the client gets a 503"]
pub struct Ticket<A> {
    fd: Fd,
    deferral: Deferral,
    /// `None` after the ticket was used, so that the drop of the ticket sends no 503.
    fleet: Option<Fleet<Command>>,
    answer: PhantomData<fn(A)>,
}

/// The right to write one response in pieces.
///
/// [`Context::begin_response`](crate::Context::begin_response) creates the stream, and
/// [`Context::end_response`](crate::Context::end_response) consumes it. A connection answers one request at a time, and
/// a response that has begun ends with `end_response` or with its connection. So a stream never writes into another
/// response, not even into the next response on the same connection.
///
/// A stream that is dropped does not end its response. The server closes the connection
/// [`answer_time_max`](crate::Limits::answer_time_max) after the last piece, so that the client sees that the response
/// is incomplete.
#[derive(Debug)]
#[must_use = "end the response with `Context::end_response`"]
pub struct ResponseStream {
    fd: Fd,
}

impl<A> Ticket<A> {
    pub(crate) fn new(fd: Fd, deferral: Deferral, fleet: Fleet<Command>) -> Ticket<A> {
        Ticket { fd, deferral, fleet: Some(fleet), answer: PhantomData }
    }

    /// Returns the number of the ticket.
    pub(crate) fn number(&self) -> Deferral {
        self.deferral
    }

    /// Consumes the ticket without an answer and without a 503.
    pub(crate) fn into_parts(mut self) -> (Fd, Deferral) {
        self.fleet = None;
        (self.fd, self.deferral)
    }

    /// Returns the fd of the connection that waits for the answer.
    pub fn fd(&self) -> Fd {
        self.fd
    }
}

impl Ticket<Upgrade> {
    /// Answers the upgrade, from any thread.
    ///
    /// The answer is dropped if the client has already disconnected or got a 503.
    ///
    /// # Errors
    /// Returns [`RemoteError::Full`] if the inbox of the loop is full, and [`RemoteError::Closed`] if the server has
    /// ended.
    pub fn answer(self, answer: impl Into<Upgrade>) -> Result<(), RemoteError> {
        self.send(answer.into())
    }
}

impl Ticket<Response> {
    /// Answers the request, from any thread.
    ///
    /// The answer is dropped if the client has already disconnected or got a 503.
    ///
    /// # Errors
    /// Returns [`RemoteError::Full`] if the inbox of the loop is full, and [`RemoteError::Closed`] if the server has
    /// ended.
    pub fn answer(self, answer: impl Into<Response>) -> Result<(), RemoteError> {
        self.send(answer.into().into())
    }
}

impl<A> Ticket<A> {
    /// Sends the answer to the inbox of the loop.
    pub(crate) fn send(mut self, answer: Upgrade) -> Result<(), RemoteError> {
        let (fd, deferral) = (self.fd, self.deferral);
        let Some(fleet) = self.fleet.take() else { return Ok(()) };
        let call = Box::new(move |ctx: &mut Context<'_>| _ = ctx.core.answer(fd, deferral, answer));
        send_to_fd(&fleet, fd, call).map_err(RemoteError::from)
    }
}

impl<A> Drop for Ticket<A> {
    fn drop(&mut self) {
        let (fd, deferral) = (self.fd, self.deferral);
        let Some(fleet) = self.fleet.take() else { return };
        let call = Box::new(move |ctx: &mut Context<'_>| ctx.core.refuse_unanswered(fd, deferral));
        // The error is ignored: if the inbox is full, the client gets status 503 after `answer_time_max`.
        let _ = send_to_fd(&fleet, fd, call);
    }
}

impl ResponseStream {
    pub(crate) fn new(fd: Fd) -> ResponseStream {
        ResponseStream { fd }
    }

    /// Returns the fd of the connection.
    pub fn fd(&self) -> Fd {
        self.fd
    }
}

impl<A> fmt::Debug for Ticket<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("fd", &self.fd).field("number", &self.deferral.0).finish()
    }
}
