//! The trait that a server's events are delivered to.

use std::any::Any;

use crate::connection::Closed;
use crate::event_loop::context::{Context, Notice};
use crate::event_loop::timers::TimerId;
use crate::fd::Fd;
use crate::message::Message;
use crate::protocol::body_mode::{BodyEvent, BodyMode};
use crate::protocol::request::Request;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Upgrade;

/// What happens on a server. Every method has a default, so a handler says only what it cares about.
///
/// All are called on the loop's one thread, one at a time: a push inside a callback never re-enters a handler. They must
/// not block: one that takes over 100 ms is warned of by its name in the log. A panic closes the connection that was served
/// with 1011 and is logged; the server goes on.
pub trait Handler {
    /// The server runs: the place to start timers.
    fn on_start(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }

    /// A client asks for a WebSocket (Swoole's `handshake`).
    ///
    /// The answer accepts, or refuses with any status. [`Context::defer_upgrade`] answers later, for instance from
    /// another thread. The connection keeps this fd when the WebSocket opens.
    fn on_upgrade(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) -> Upgrade {
        let _ = (ctx, fd, request);
        Upgrade::accept().into()
    }

    /// A WebSocket is open (Swoole's `open`).
    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) {
        let _ = (ctx, fd, request);
    }

    /// A message came, whole (Swoole's `message`).
    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
        let _ = (ctx, fd, message);
    }

    /// A WebSocket is open no more (Swoole's `close`, with who and why). Called once for each `on_open`, in the turn in
    /// which it ended. The maps are cleared already: [`fds_of`](Context::fds_of) and [`members`](Context::members) do not
    /// name it, but [`uid_of`](Context::uid_of), [`groups_of`](Context::groups_of) and [`info`](Context::info) still
    /// say what it was.
    fn on_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        let _ = (ctx, fd, closed);
    }

    /// A ping came. Its pong is queued already.
    fn on_ping(&mut self, ctx: &mut Context<'_>, fd: Fd, payload: &[u8]) {
        let _ = (ctx, fd, payload);
    }

    /// A pong came.
    fn on_pong(&mut self, ctx: &mut Context<'_>, fd: Fd, payload: &[u8]) {
        let _ = (ctx, fd, payload);
    }

    /// The head of a plain HTTP request came that announces a body. Here a request can be refused before it is sent, or
    /// its body be taken in pieces, however long it is. By default it is collected.
    fn on_head(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) -> BodyMode {
        let _ = (ctx, fd, request);
        BodyMode::Collect
    }

    /// A piece came of a body that `on_head` wanted in pieces, with the state that it gave. The response is the handler's
    /// to send, at any time from the head on: see [`begin_response`](Context::begin_response). While the client does not
    /// read it, no more of the body is read either.
    fn on_body(&mut self, ctx: &mut Context<'_>, fd: Fd, state: &mut dyn Any, event: BodyEvent<'_>) {
        let _ = (ctx, fd, state, event);
    }

    /// A plain HTTP request arrived on the same port (Swoole's `request`).
    ///
    /// `None` means that nothing is served there: the client gets 426 for a request that should have been an upgrade,
    /// else 404. [`Context::defer_response`] answers later, for instance from another thread.
    fn on_request(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) -> Option<Response> {
        let _ = (ctx, fd, request);
        None
    }

    /// Another thread sent a notice (Swoole's `pipeMessage`).
    fn on_notice(&mut self, ctx: &mut Context<'_>, notice: Notice) {
        let _ = (ctx, notice);
    }

    /// A timer of [`after`](Context::after) or [`every`](Context::every) fired.
    fn on_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) {
        let _ = (ctx, timer);
    }

    /// The turn of the loop ends in which [`Context::request_turn_end`] was called: everything that came was handled, and
    /// the last of the output is about to be written. The place to send once what several events of a turn changed.
    fn on_turn_end(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }

    /// The server has ended (Swoole's `shutdown`): called once, behind every `on_close`, just before
    /// [`run`](crate::Server::run) returns. Nothing that is pushed now is sent.
    fn on_stop(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }
}
