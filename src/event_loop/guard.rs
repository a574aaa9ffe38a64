//! Calls the handler, catches its panics and logs calls that block the loop.

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

/// The maximum number of bytes of a panic message that are logged.
const PANIC_BYTES_MAX: usize = 1024;

impl<H: Handler> EventLoop<H> {
    /// Calls the handler and measures its time.
    ///
    /// A panic closes only the connection of the call.
    pub(super) fn call(&mut self, name: &'static str, fd: Option<Fd>, call: impl FnOnce(&mut H, &mut Context<'_>)) {
        // The input of an HTTP request contains no messages. So the time before the call for an HTTP request is not
        // attributed to messages.
        if self.call_timer.input.is_none_or(|input| self.has_messages(input)) {
            self.end_interval();
        }
        self.call_untimed(name, fd, call);
        if let Some(took) = self.call_timer.lap() {
            self.warn_of_block(name, fd, took);
        }
    }

    /// Works like [`call`](EventLoop::call), but does not measure time.
    // This function is always inlined, for the reason given at `Output::push`.
    #[inline(always)]
    pub(super) fn call_untimed(
        &mut self,
        name: &'static str,
        fd: Option<Fd>,
        call: impl FnOnce(&mut H, &mut Context<'_>),
    ) {
        let handler = &mut self.handler;
        let mut ctx = Context { core: &mut self.core, parts: &mut self.parts };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(handler, &mut ctx))) {
            self.handle_panic(name, fd, &*panic);
        }
    }

    /// Handles the input of a connection, and measures the time of all its messages together.
    #[inline]
    pub(super) fn time_input(&mut self, input: CurrentInput, handle: impl FnOnce(&mut EventLoop<H>)) {
        let outer = self.call_timer.input.replace(input);
        handle(self);
        self.end_interval();
        self.call_timer.input = outer;
    }

    /// Ends an interval that contains no measured call. The time of this interval is attributed to the messages of the
    /// current input.
    #[inline]
    fn end_interval(&mut self) {
        if let Some(took) = self.call_timer.lap()
            && let Some(input) = self.call_timer.input
            && self.has_messages(input)
        {
            self.warn_of_block(ON_MESSAGE, Some(input.fd), took);
        }
    }

    /// Returns whether the input can contain messages. The input of an HTTP request contains no messages.
    fn has_messages(&self, input: CurrentInput) -> bool {
        let is_open = || self.core.connection(input.fd).is_some_and(Connection::is_open);
        !input.was_http || is_open()
    }

    #[cold]
    fn warn_of_block(&mut self, name: &'static str, fd: Option<Fd>, took: Duration) {
        if let Some(count) = self.call_timer.count(name, self.core.now()) {
            let (ms, served) = (took.as_millis(), ServedConnection::of(&self.core, fd));
            log::warn!("{name} blocked the loop for {ms} ms{served} ({count} since the last warning)");
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

/// The name of the method that is called for messages.
pub const ON_MESSAGE: &str = "on_message";

/// The connection for which a handler was called, in the format of the log.
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
            // The client may have chosen the uid. The quotes prevent a forged log line.
            write!(f, ", uid {uid:?}")?;
        }
        self.peer.map_or(Ok(()), |peer| write!(f, ", peer {peer}"))
    }
}

/// Returns the message of a panic, cut to at most [`PANIC_BYTES_MAX`] bytes.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.as_str(),
        (None, None) => "a value that is not text",
    };
    &text[..text.floor_char_boundary(PANIC_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_panic_message_is_cut_to_the_maximum_length() {
        assert_eq!(panic_text(&"short"), "short");
        assert_eq!(panic_text(&"é".repeat(1000)).len(), PANIC_BYTES_MAX);
        assert_eq!(panic_text(&7), "a value that is not text");
    }
}
