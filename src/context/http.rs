//! The methods of [`Context`] for HTTP: deferred answers, and responses in pieces.

use crate::event_loop::Context;
use crate::fd::Fd;
use crate::message::Outcome;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Upgrade;
use crate::registry::Change;
use crate::remote::RemoteError;
use crate::ticket::{ResponseStream, Ticket};

impl Context<'_> {
    /// Defers the answer to an upgrade, for instance until another thread has queried a database.
    ///
    /// `on_upgrade` returns the [`Upgrade`] of this call. The program then answers with the [`Ticket`]. Without an
    /// answer within [`answer_time_max`](crate::Limits::answer_time_max), the client gets a 503.
    ///
    /// If the client disconnects before the answer, or ends its stream (FIN), the connection ends. The value that
    /// [`set_session`](Context::set_session) stored is then dropped.
    ///
    /// ```no_run
    /// # use fdpush::{Response, Server, Upgrade};
    /// # fn uid_of(cookie: Option<String>) -> Option<String> { cookie }
    /// Server::bind("127.0.0.1:9501")?
    ///     .on_upgrade(|ctx, fd, request| {
    ///         let (later, ticket) = ctx.defer_upgrade(fd);
    ///         let cookie = request.header("cookie").map(str::to_owned);
    ///         std::thread::spawn(move || match uid_of(cookie) {
    ///             Some(uid) => ticket.answer(Upgrade::accept().uid(uid)),
    ///             None => ticket.answer(Response::text(401, "log in first\n")),
    ///         });
    ///         later
    ///     })
    ///     .run()
    /// # ; Ok::<(), fdpush::Error>(())
    /// ```
    #[must_use = "on_upgrade must return the Upgrade"]
    pub fn defer_upgrade(&mut self, fd: Fd) -> (Upgrade, Ticket<Upgrade>) {
        let deferral = self.core.make_ticket(fd);
        (Upgrade::Later(deferral), Ticket::new(fd, deferral, self.parts.fleet.clone()))
    }

    /// Defers the response to a plain HTTP request.
    ///
    /// `on_request` returns the [`Response`] of this call. The program then answers with the [`Ticket`], immediately or
    /// in pieces. Without an answer within [`answer_time_max`](crate::Limits::answer_time_max), the client gets a 503.
    #[must_use = "on_request must return the Response"]
    pub fn defer_response(&mut self, fd: Fd) -> (Response, Ticket<Response>) {
        let ticket = self.ticket(fd);
        (Response::deferred(ticket.number()), ticket)
    }

    /// Returns a ticket for the plain HTTP request of `fd` that a handler is processing.
    ///
    /// `on_head` calls this method for a request whose body is streamed, and stores the ticket in the value that it
    /// passes to [`BodyMode::stream`](crate::BodyMode::stream): see the example of
    /// [`begin_response`](Context::begin_response). In `on_request`, use [`defer_response`](Context::defer_response).
    ///
    /// Only the last ticket that was made for a request is valid. If no handler is processing a request of `fd` during
    /// the call, an answer with the returned ticket has no effect.
    pub fn ticket(&mut self, fd: Fd) -> Ticket<Response> {
        Ticket::new(fd, self.core.make_ticket(fd), self.parts.fleet.clone())
    }

    /// Answers the request of a ticket, from a handler.
    ///
    /// This method works like [`Ticket::answer`], but an answer to a request of this loop does not go through the inbox
    /// of the loop. The answer is sent when the handler has returned. The result is [`Change::Done`], or
    /// [`Change::Gone`] if the client has already got a 503 or disconnected.
    ///
    /// The answer to a request of another loop goes through the inbox of that loop. For such an answer, the result is
    /// [`Change::Forwarded`], or [`Change::Full`] if that inbox is full.
    pub fn answer<A: Into<Upgrade>>(&mut self, ticket: Ticket<A>, answer: impl Into<A>) -> Change {
        if !self.core.owns(ticket.fd()) {
            return match ticket.send(answer.into().into()) {
                Ok(()) => Change::Forwarded,
                Err(RemoteError::Full) => Change::Full,
                Err(_) => Change::Gone,
            };
        }
        let (fd, deferral) = ticket.into_parts();
        self.core.answer(fd, deferral, answer.into().into())
    }

    /// Returns whether the request of a ticket still waits for its answer.
    ///
    /// The result is `false` after the client has disconnected or got a 503. If the result is `false`, a handler can
    /// stop its work for the answer. The result is also `false` if the connection belongs to another loop.
    pub fn is_pending<A>(&self, ticket: &Ticket<A>) -> bool {
        self.core.has_ticket(ticket.fd(), ticket.number())
    }

    // The methods below send a response in pieces.

    /// Begins a response in pieces to the request of a ticket, on the loop of the connection.
    ///
    /// The body of `response` is not sent. [`write_response`] sends a piece, and [`end_response`] ends the response.
    /// `write_response` and `end_response` need the [`ResponseStream`] that this method returns.
    ///
    /// The ticket comes from [`defer_response`](Context::defer_response), or from [`ticket`](Context::ticket) in
    /// `on_head`, which stores the ticket for `on_body`. Returns `None` if the client has disconnected, if a response
    /// has begun already, or if `response` has an invalid header. If `response` has an invalid header, the client gets
    /// a 500. The result is also `None` if the connection belongs to another loop. In this case, the client gets a 503.
    ///
    /// [`write_response`]: Context::write_response
    /// [`end_response`]: Context::end_response
    ///
    /// After a response has begun, the client gets no `100 Continue` any more. So begin the response at the first piece
    /// of the body, not at the head (RFC 9110 section 10.1.1).
    ///
    /// ```
    /// use std::any::Any;
    /// use fdpush::{BodyEvent, BodyMode, Context, Fd, Handler, Request, Response, ResponseStream, Ticket};
    ///
    /// /// Returns every request body to its sender.
    /// struct Mirror;
    ///
    /// /// The ticket until the response begins, then the response.
    /// struct Reply(Option<Ticket<Response>>, Option<ResponseStream>);
    ///
    /// impl Handler for Mirror {
    ///     fn on_head(&mut self, ctx: &mut Context<'_>, fd: Fd, _: &Request<'_>) -> BodyMode {
    ///         BodyMode::stream(Reply(Some(ctx.ticket(fd)), None))
    ///     }
    ///
    ///     fn on_body(&mut self, ctx: &mut Context<'_>, _: Fd, state: &mut dyn Any, event: BodyEvent<'_>) {
    ///         let Some(Reply(ticket, stream)) = state.downcast_mut() else { return };
    ///         if let Some(ticket) = ticket.take() {
    ///             *stream = ctx.begin_response(ticket, &Response::new(200));
    ///         }
    ///         match event {
    ///             BodyEvent::Data(bytes) => stream.iter().for_each(|stream| _ = ctx.write_response(stream, bytes)),
    ///             BodyEvent::End => stream.take().into_iter().for_each(|stream| _ = ctx.end_response(stream)),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn begin_response(&mut self, ticket: Ticket<Response>, response: &Response) -> Option<ResponseStream> {
        if !self.core.owns(ticket.fd()) {
            // The ticket is dropped here, and its drop answers the request with 503.
            return None;
        }
        let (fd, deferral) = ticket.into_parts();
        self.core.begin_response(fd, deferral, response).is_queued().then(|| ResponseStream::new(fd))
    }

    /// Sends a piece of the body of a response.
    ///
    /// The outcome is `Gone` if the connection has ended. The outcome is `Dropped` if the queue of a client that does
    /// not read would exceed [`queue_bytes_max`](crate::Limits::queue_bytes_max), or if the queued bytes of all
    /// responses would exceed [`queue_total_bytes_max`](crate::Limits::queue_total_bytes_max). After the outcome
    /// `Dropped`, the connection is closed, so that the client sees that the response is incomplete.
    pub fn write_response(&mut self, stream: &ResponseStream, piece: &[u8]) -> Outcome {
        self.core.write_response(stream.fd(), piece)
    }

    /// Ends a response in pieces.
    ///
    /// If the client has not sent the whole body of its request yet, the connection is closed after the response. The
    /// outcome is `Gone` if the connection has ended.
    pub fn end_response(&mut self, stream: ResponseStream) -> Outcome {
        self.core.end_response(stream.fd())
    }
}
