//! The trait that receives the events of a server.

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

/// Receives the events of a server. Every method of this trait has a default.
///
/// Implement this trait for a type that holds the state of a program, and pass the value to
/// [`Server::handler`](crate::Server::handler). A program without shared state can set closures instead: see
/// [`Server::on_open`](crate::Server::on_open). The order of events for a WebSocket is `on_upgrade`, `on_open`, any
/// number of `on_message`, `on_ping` and `on_pong`, and `on_close`. There is one `on_close` for each `on_open`.
///
/// With several [loops](crate::Server::loops), each loop has its own handler. A loop calls the handler for the
/// connections of this loop. Each loop also calls [`on_start`](Handler::on_start) and [`on_stop`](Handler::on_stop).
///
/// All methods are called on the thread of the loop, one at a time. No method is called from within another method, for
/// instance by a push. A method must not block: a call of over 100 ms is logged with the name of the method. A panic in
/// a method is logged, and closes the connection of the call with code 1011. The server continues to run after the
/// panic.
///
/// ```no_run
/// use fdpush::{Context, Fd, Handler, Message, Server};
///
/// #[derive(Default)]
/// struct Counter { messages: u64 }
///
/// impl Handler for Counter {
///     fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, _: Message<'_>) {
///         self.messages += 1;
///         ctx.push(fd, &format!("message {}", self.messages));
///     }
/// }
///
/// Server::bind("127.0.0.1:9501")?.handler(Counter::default()).run()
/// # ; Ok::<(), fdpush::Error>(())
/// ```
pub trait Handler {
    /// The server has started. The handler can start timers in this call.
    fn on_start(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }

    /// A client asks for a WebSocket (Swoole's `handshake`).
    ///
    /// The result accepts the upgrade, or refuses it with any status. With [`Context::defer_upgrade`], the answer comes
    /// later, for instance from another thread. The connection keeps this fd when the WebSocket opens.
    fn on_upgrade(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> Upgrade {
        let _ = (ctx, fd, request);
        Upgrade::accept().into()
    }

    /// A WebSocket is open (Swoole's `open`).
    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
        let _ = (ctx, fd, request);
    }

    /// A complete message arrived (Swoole's `message`).
    ///
    /// The payload is borrowed from the read buffer, or from the buffer in which its fragments were collected.
    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
        let _ = (ctx, fd, message);
    }

    /// A WebSocket has closed (Swoole's `close`), once for each `on_open`.
    ///
    /// The call comes in the turn in which the connection stopped being open. [`fds_of`](Context::fds_of) and
    /// [`members`](Context::members) do not list the connection any more. [`uid_of`](Context::uid_of),
    /// [`groups_of`](Context::groups_of) and [`info`](Context::info) still return the last values of the connection.
    fn on_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        let _ = (ctx, fd, closed);
    }

    /// A ping arrived. The pong is queued already (RFC 6455 section 5.5.2).
    fn on_ping(&mut self, ctx: &mut Context<'_>, fd: Fd, payload: &[u8]) {
        let _ = (ctx, fd, payload);
    }

    /// A pong arrived.
    fn on_pong(&mut self, ctx: &mut Context<'_>, fd: Fd, payload: &[u8]) {
        let _ = (ctx, fd, payload);
    }

    /// The head of a plain HTTP request with a body arrived.
    ///
    /// The result refuses the request before its body is sent, collects the body, or passes the body to `on_body` in
    /// pieces, without a limit of its length. By default the body is collected.
    fn on_head(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> BodyMode {
        let _ = (ctx, fd, request);
        BodyMode::Collect
    }

    /// A piece of a body arrived, after `on_head` returned [`BodyMode::stream`].
    ///
    /// The handler sends the response itself, with the [`ticket`](Context::ticket) from `on_head`: see
    /// [`begin_response`](Context::begin_response). While the client does not read the response, the loop does not read
    /// further bytes of the body.
    fn on_body(&mut self, ctx: &mut Context<'_>, fd: Fd, state: &mut dyn Any, event: BodyEvent<'_>) {
        let _ = (ctx, fd, state, event);
    }

    /// A plain HTTP request arrived, on a listener for WebSockets or on a control listener (Swoole's `request`).
    ///
    /// `None` means that the handler serves nothing at this path. The client then gets 404, or 426 if the request looks
    /// like an upgrade from which a proxy removed headers. With [`Context::defer_response`], the answer comes later,
    /// for instance from another thread. With [`Context::begin_response`], the answer comes in pieces.
    fn on_request(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> Option<Response> {
        let _ = (ctx, fd, request);
        None
    }

    /// Another thread sent a notice (Swoole's `pipeMessage`).
    fn on_notice(&mut self, ctx: &mut Context<'_>, notice: Notice) {
        let _ = (ctx, notice);
    }

    /// A timer of [`set_timer`](Context::set_timer) or [`set_interval`](Context::set_interval) fired.
    fn on_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) {
        let _ = (ctx, timer);
    }

    /// The turn ends, and [`Context::request_turn_end`] was called.
    ///
    /// All events of the turn are handled, and the last output is not written yet. A handler can use this call to send
    /// one result for several events.
    fn on_turn_end(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }

    /// The server has ended (Swoole's `shutdown`).
    ///
    /// The call comes after every `on_close`, before [`run`](crate::Server::run) returns. A push inside `on_stop` is
    /// not sent.
    fn on_stop(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }
}
