//! Input: handles epoll events, reads sockets, and passes the connections' events to the handler.

use crate::connection::{Connection, Event, Io};
use crate::event_loop::call_timer::CurrentInput;
use crate::event_loop::core::Table;
use crate::event_loop::guard::ON_MESSAGE;
use crate::event_loop::portion::Portion;
use crate::event_loop::socket::Listing;
use crate::event_loop::{EventLoop, Handler};
use crate::fd::{Fd, Slot};
use crate::message::Message;

impl<H: Handler> EventLoop<H> {
    /// Records an epoll event of a socket.
    #[inline]
    pub(super) fn handle_socket(&mut self, slot: Slot, event: &mio::event::Event) {
        if self.core.handle_readiness(slot, event) {
            self.core.handle_end(slot, true);
        }
    }

    /// Reads once from each connection that may have bytes, within the time limit of a [`Portion`].
    ///
    /// The next turn reads the remaining connections first.
    pub(super) fn read_ready(&mut self) {
        let mut slots = std::mem::take(&mut self.slots);
        let mut buffer = std::mem::take(&mut self.buffer);
        self.core.take_ready(&mut slots);
        self.call_timer.begin();
        self.handshakes.begin_turn(self.core.table().env().limits.handshakes_per_second_max);
        while let Some(fd) = self.handshakes.take(self.core.now()) {
            if let Some(slot) = self.core.table().slot_of(fd) {
                self.read_ready_slot(slot, &mut buffer);
            }
        }
        let mut portion = Portion::of_reads(self.clock.last_turn);
        let mut read = 0;
        while let Some(&slot) = slots.get(read)
            && !portion.is_over()
        {
            read += 1;
            match self.core.table().transport(slot) {
                Some(socket) if socket.is_tls() => self.read_ready_tls(slot, &mut buffer),
                Some(_) => self.read_ready_slot(slot, &mut buffer),
                None => self.core.skip_ready(slot),
            }
        }
        slots.drain(..read);
        self.core.return_ready(&mut slots);
        self.slots = slots;
        self.buffer = buffer;
    }

    /// Reads from a connection of a TLS listener, unless the connection must wait for the budget of handshakes.
    fn read_ready_tls(&mut self, slot: Slot, buffer: &mut [u8]) {
        if self.may_read_hello(slot) {
            self.read_ready_slot(slot, buffer);
        } else {
            self.wait_for_handshake(slot);
        }
    }

    #[inline]
    fn read_ready_slot(&mut self, slot: Slot, buffer: &mut [u8]) {
        if let Some(socket) = self.core.table_mut().transport_mut(slot) {
            socket.listing = Listing::None;
        }
        self.read(slot, buffer);
        self.flush_early();
    }

    /// Adds a connection to the queue of connections whose TLS hello waits for the budget of handshakes. While the
    /// connection is in this queue, an epoll event does not add it to the list of ready connections.
    fn wait_for_handshake(&mut self, slot: Slot) {
        if let Some(socket) = self.core.table_mut().transport_mut(slot) {
            socket.listing = Listing::Handshakes;
        }
        let table = self.core.table();
        self.handshakes.wait(table.fd_of(slot), is_control(table, slot));
    }

    /// Returns whether a TLS connection may be read now. A connection that awaits a client hello needs budget for a
    /// handshake.
    fn may_read_hello(&mut self, slot: Slot) -> bool {
        let table = self.core.table();
        let awaits = table
            .transport(slot)
            .is_some_and(|socket| socket.is_tls() && table.shared().awaits_hello(socket.as_raw_fd()));
        !awaits || self.handshakes.may_answer_new(is_control(table, slot), table.env().now)
    }

    /// Handles the report of a TLS session about its last read. Returns whether another read may return more plaintext.
    fn handle_tls_read(&mut self, slot: Slot) -> bool {
        let report = self.core.table_mut().shared_mut().take_report();
        if report.read.has_answered {
            self.handshakes.handle_answered();
        }
        if let Some(tls) = report.secured {
            self.core.change(slot, |connection, _| connection.set_tls(tls));
        }
        if let Some(error) = report.error {
            log::debug!("fd {}: TLS error: {error}", self.core.table().fd_of(slot));
        }
        self.core.table().transport(slot).is_some_and(|socket| socket.is_readable)
    }

    /// Reads once from a connection. If more bytes may follow, the connection is listed to be read again.
    fn read(&mut self, slot: Slot, buffer: &mut [u8]) {
        let parts = match self.core.table_mut().parts(slot) {
            Some((connection, _, env)) if connection.has_buffered_input(env) => {
                // Pipelined requests in the buffer are handled before the bytes in the socket are read.
                let was_http = connection.is_http();
                self.feed(slot, was_http, &mut []);
                self.core.table_mut().parts(slot)
            }
            parts => parts,
        };
        let Some((connection, socket, _)) = parts else { return };
        if !socket.is_readable || !connection.wants_read() {
            if socket.is_hung_up && connection.is_deferred_upgrade() {
                // A deferred upgrade pauses reading, so a client that ended its stream is detected here.
                self.core.handle_end(slot, true);
            }
            return;
        }
        let (is_hung_up, is_tls, was_http) = (socket.is_hung_up, socket.is_tls(), connection.is_http());
        let read = self.core.table_mut().read(slot, buffer);
        // For a TLS session, the report of the session says whether another read may return more bytes.
        let has_more = is_tls && self.handle_tls_read(slot);
        match read {
            Io::Done(count @ 1..) => {
                self.feed(slot, was_http, &mut buffer[..count]);
                if has_more || (!is_tls && (count == buffer.len() || is_hung_up)) {
                    self.core.make_ready(slot);
                }
            }
            Io::WouldBlock if has_more => self.core.make_ready(slot),
            Io::WouldBlock => {}
            Io::Done(_) | Io::Closed => self.core.handle_end(slot, read == Io::Closed),
        }
        self.handle_pending();
        if self.core.table().env().is_over_inbound() {
            self.core.close_largest_inputs();
            self.handle_pending();
        }
        if is_tls {
            // The TLS session may have records that are not sent yet. These records must be sent before a deadline.
            self.core.arm(slot);
        }
    }

    /// Passes bytes to a connection, and its events to the handler. After the events, the timer wheel is armed with the
    /// deadline of the connection.
    ///
    /// `was_http` says whether the connection spoke HTTP before these bytes.
    #[inline]
    pub(super) fn feed(&mut self, slot: Slot, was_http: bool, bytes: &mut [u8]) {
        let fd = self.core.table().fd_of(slot);
        self.time_input(CurrentInput { fd, was_http }, |this| this.handle_input(slot, fd, bytes));
        // While a WebSocket waits for its next message, its only deadline is the heartbeat, which is armed already.
        if self.core.end_input(slot) || was_http {
            self.core.arm(slot);
        }
    }

    #[inline(always)]
    fn handle_input(&mut self, slot: Slot, fd: Fd, bytes: &mut [u8]) {
        let mut input = bytes;
        loop {
            let mut is_used_up = false;
            match self.core.table_mut().handle_message(slot, &mut input) {
                Ok(Some(message)) => {
                    is_used_up = input.is_empty();
                    self.deliver(fd, message);
                }
                Ok(None) => match self.core.table_mut().handle_bytes(slot, &mut input) {
                    Some(event) => self.handle_event(fd, event),
                    None => break,
                },
                Err(end) => self.handle_event(fd, *end),
            }
            if self.core.has_pending_closes() {
                self.call_on_close();
            }
            if is_used_up {
                break;
            }
        }
    }

    /// Calls the handler for an event, or records the end of the connection.
    fn handle_event(&mut self, fd: Fd, event: Event<'_>) {
        match event {
            Event::Text(text) => self.deliver_assembled(fd, Message::Text(&text)),
            Event::Binary(bytes) => self.deliver_assembled(fd, Message::Binary(&bytes)),
            Event::Ping(payload) => self.call("on_ping", Some(fd), |handler, ctx| handler.on_ping(ctx, fd, &payload)),
            Event::Pong(payload) => self.call("on_pong", Some(fd), |handler, ctx| handler.on_pong(ctx, fd, &payload)),
            Event::Request { request, wanted_upgrade } => self.answer_request(fd, &request, wanted_upgrade),
            Event::Head(request) => self.answer_head(fd, request),
            Event::Piece { bytes, is_last, state } => self.deliver_body(fd, &bytes, is_last, state),
            Event::Upgrade(request) => self.answer_upgrade(fd, request),
            end @ (Event::Closed(_) | Event::Refused(_)) => {
                let slot = self.core.table().own_slot(fd);
                self.core.record_end(slot, Some(end));
            }
        }
    }

    // This function is always inlined, for the reason given at `Output::push`.
    #[inline(always)]
    fn deliver(&mut self, fd: Fd, message: Message<'_>) {
        self.call_untimed(ON_MESSAGE, Some(fd), |handler, ctx| handler.on_message(ctx, fd, message));
    }

    #[inline(never)]
    fn deliver_assembled(&mut self, fd: Fd, message: Message<'_>) {
        self.deliver(fd, message);
    }

    /// Reads and writes once more before a timeout closes a connection.
    ///
    /// After a handler has blocked the loop or the machine was suspended, a single wait can return only a part of the
    /// events. So bytes of a client may still be in the kernel when the timeout of the client's connection expires.
    pub(super) fn recheck_before_timeout(&mut self, slot: Slot) {
        let table = self.core.table_mut();
        if table.is_overdue(slot) {
            if let Some(socket) = table.transport_mut(slot) {
                socket.is_readable = true;
            }
            table.retry_write(slot);
            // If the client hello of the connection must still wait for the budget of handshakes, the timeout closes
            // the connection.
            if self.may_read_hello(slot) {
                self.call_timer.begin();
                let mut buffer = std::mem::take(&mut self.buffer);
                self.read(slot, &mut buffer);
                self.buffer = buffer;
            }
        }
    }
}

fn is_control(table: &Table, slot: Slot) -> bool {
    table.connection(slot).is_some_and(Connection::is_control)
}
