//! CallTimer of the handler: a panic ends at most one connection, and a handler that blocks the loop is logged.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::connection::{Cause, Connection};
use crate::event_loop::call_timer::CurrentInput;
use crate::event_loop::context::Context;
use crate::event_loop::handler::Handler;
use crate::event_loop::{Core, EventLoop};
use crate::fd::Fd;
use crate::peer::Peer;
use crate::protocol::close::CloseCode;

/// Bytes of a panic's message that are logged.
const PANIC_BYTES_MAX: usize = 1024;

impl<H: Handler> EventLoop<H> {
    /// CallTimer a handler by its name. A panic is caught: it ends the connection that was served, and only that.
    pub(super) fn call(&mut self, name: &'static str, fd: Option<Fd>, call: impl FnOnce(&mut H, &mut Context<'_>)) {
        self.end_section();
        self.call_untimed(name, fd, call);
        if let Some(took) = self.call_timer.lap() {
            self.warn_of_block(name, fd, took);
        }
    }

    /// As [`call`](EventLoop::call), without a look at the clock.
    #[inline]
    pub(super) fn call_untimed(
        &mut self,
        name: &'static str,
        fd: Option<Fd>,
        call: impl FnOnce(&mut H, &mut Context<'_>),
    ) {
        let handler = &mut self.handler;
        let mut ctx = Context { core: &mut self.core, host: &mut self.host };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(handler, &mut ctx))) {
            self.handle_panic(name, fd, &*panic);
        }
    }

    /// Handles a connection's input, whose messages are not timed one by one.
    #[inline]
    pub(super) fn time_input(&mut self, fd: Fd, handle: impl FnOnce(&mut EventLoop<H>)) {
        let was_http = self.core.table().connection(fd.slot()).is_some_and(Connection::is_http);
        let outer = self.call_timer.input.replace(CurrentInput { fd, was_http });
        handle(self);
        self.end_section();
        self.call_timer.input = outer;
    }

    /// Ends a section that is no call of its own: messages took its time, or where no input is handled, the loop.
    #[inline]
    fn end_section(&mut self) {
        if let Some(took) = self.call_timer.lap()
            && let Some(input) = self.call_timer.input
            && self.has_messages(input)
        {
            self.warn_of_block(ON_MESSAGE, Some(input.fd), took);
        }
    }

    /// Whether messages of the connection may have taken the time: a WebSocket has some, and a request has none.
    fn has_messages(&self, input: CurrentInput) -> bool {
        let is_open = || self.core.table().connection(input.fd.slot()).is_some_and(Connection::is_open);
        !input.was_http || is_open()
    }

    #[cold]
    fn warn_of_block(&mut self, name: &'static str, fd: Option<Fd>, took: Duration) {
        if let Some(count) = self.call_timer.count(name, self.core.now()) {
            let (ms, served) = (took.as_millis(), ServedConnection::of(&self.core, fd));
            log::warn!("{name} blocked the loop for {ms} ms{served} (since the last such line: {count})");
        }
    }

    #[cold]
    fn handle_panic(&mut self, name: &'static str, fd: Option<Fd>, panic: &(dyn Any + Send)) {
        let served = ServedConnection::of(&self.core, fd);
        let text = panic_text(panic);
        match fd {
            Some(_) => log::error!("{name} panicked: {text:?}{served}: the connection is closed"),
            None => log::error!("{name} panicked: {text:?}"),
        }
        if let Some(slot) = fd.and_then(|fd| self.core.table().slot_of(fd)) {
            self.core.close_slot(slot, CloseCode::INTERNAL_ERROR, "internal error", Cause::HandlerPanicked);
        }
    }
}

/// The handler that is called for messages.
pub const ON_MESSAGE: &str = "on_message";

/// A connection that was served, as the log names it.
struct ServedConnection<'a> {
    fd: Option<Fd>,
    uid: Option<&'a str>,
    peer: Option<Peer>,
}

impl ServedConnection<'_> {
    fn of(core: &Core, fd: Option<Fd>) -> ServedConnection<'_> {
        let slot = fd.and_then(|fd| core.table().slot_of(fd));
        let peer = slot.and_then(|slot| core.table().connection(slot)).map(Connection::peer);
        ServedConnection { fd, uid: fd.and_then(|fd| core.uid_of(fd)), peer }
    }
}

impl fmt::Display for ServedConnection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fd) = self.fd {
            write!(f, ", fd {fd}")?;
        }
        if let Some(uid) = self.uid {
            // It may be of the client's choice, and must not begin a line of its own.
            write!(f, ", uid {uid:?}")?;
        }
        self.peer.map_or(Ok(()), |peer| write!(f, ", peer {peer}"))
    }
}

/// The message of a panic, cut to a bound.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.as_str(),
        (None, None) => "a value that is no text",
    };
    &text[..text.floor_char_boundary(PANIC_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_panic_is_cut() {
        assert_eq!(panic_text(&"short"), "short");
        assert_eq!(panic_text(&"é".repeat(1000)).len(), PANIC_BYTES_MAX);
        assert_eq!(panic_text(&7), "a value that is no text");
    }
}
