//! The input of the simulated server: reads bytes from the simulated sockets, and passes the events of the connections
//! to the handler.

use std::mem;

use fdpush::sim::{Connection, Event, Io};
use fdpush::{Slot, State};

use crate::server::Server;

impl Server {
    /// Reads once from each connection that may have bytes.
    ///
    /// Connections that wait for the budget of handshakes come first.
    pub fn read_ready(&mut self) {
        let mut slots = mem::take(&mut self.ready);
        let mut buffer = mem::take(&mut self.buffer);
        self.handshakes.begin_turn(self.table.env().now);
        while let Some(fd) = self.handshakes.take() {
            if let Some(slot) = self.table.slot_of(fd) {
                self.read(slot, &mut buffer);
                self.arm(slot);
            }
        }
        for slot in slots.drain(..) {
            let awaits_hello = self.table.transport(slot).is_some_and(|socket| socket.awaits_hello());
            if awaits_hello && !self.handshakes.may_read() {
                // `is_ready` stays set while the connection waits, so an event does not add the connection to `ready`.
                self.handshakes.wait(self.table.fd_of(slot));
                continue;
            }
            self.read(slot, &mut buffer);
            self.arm(slot);
        }
        self.handshakes.end_turn();
        self.buffer = buffer;
    }

    fn read(&mut self, slot: Slot, buffer: &mut [u8]) {
        let Some(socket) = self.table.transport_mut(slot) else { return };
        socket.is_ready = false;
        let env = self.table.env();
        let has_input =
            |connection: &Connection| connection.state() == State::Http || connection.has_buffered_input(env);
        if self.table.connection(slot).is_some_and(has_input) {
            self.feed(slot, &mut []);
        }
        let wants_read = self.table.connection(slot).is_some_and(Connection::wants_read);
        if !wants_read || self.table.transport(slot).is_none_or(|socket| !socket.is_readable) {
            return;
        }
        let read = self.table.read(slot, buffer);
        self.replay_fan_outs(slot);
        self.handle_session_read(slot, read);
        let has_more = self.table.transport(slot).is_some_and(|socket| socket.is_readable);
        match read {
            Io::WouldBlock if has_more => self.make_ready(slot),
            Io::WouldBlock => {}
            Io::Closed => self.handle_end(slot, true),
            Io::Done(0) => self.handle_end(slot, false),
            Io::Done(count) => {
                let now = self.table.env().now;
                let model = self.model_at(slot);
                model.heartbeat.handle_bytes(now);
                model.inbound.read += count as u64;
                self.feed(slot, &mut buffer[..count]);
                if has_more {
                    self.make_ready(slot);
                }
            }
        }
        self.call_on_close();
    }

    /// Passes bytes to a connection, and the resulting events to the handler.
    pub fn feed(&mut self, slot: Slot, bytes: &mut [u8]) {
        let fd = self.table.fd_of(slot);
        let mut input = bytes;
        loop {
            let Some(connection) = self.table.connection(slot) else { return };
            let is_http = connection.state() == State::Http;
            let event = match self.table.handle_message(slot, &mut input) {
                Ok(Some(message)) => Some(message.into()),
                Ok(None) => self.table.handle_bytes(slot, &mut input),
                Err(end) => Some(*end),
            };
            self.check_settled(slot);
            if is_http {
                let queued = self.table.connection(slot).map_or(0, Connection::queued_bytes);
                let (model, ledger) = self.oracle.account(fd);
                model.output.observe_raw(queued, ledger);
            }
            self.observe(slot);
            let Some(event) = event else { break };
            self.handle_event(slot, fd, event, input.len());
            if !self.pending_closes.is_empty() {
                self.call_on_close();
            }
        }
        let model = self.oracle.model(fd);
        if model.is_open() {
            assert!(input.is_empty(), "an open connection must take all input that it is given");
            match self.table.connection(slot).and_then(Connection::held_until) {
                Some(_) => model.inbound.hold(self.table.env().now),
                None => model.inbound.end_input(self.table.env().now),
            }
        }
        self.compare(slot);
        self.table.end_input(slot);
        self.observe_reading(slot);
        self.replay();
        self.record_slow_consumers();
    }

    /// Handles the end or the reset of the client's stream.
    pub fn handle_end(&mut self, slot: Slot, is_reset: bool) {
        let fd = self.table.fd_of(slot);
        let is_gone = self.table.transport(slot).is_some_and(|socket| socket.wire.borrow().is_client_gone());
        let has_notified = self.oracle.model(fd).session.as_ref().is_some_and(|session| session.is_closed);
        let has_ended = is_reset || is_gone || has_notified;
        assert!(has_ended, "the server may report the end of {fd} only after its client has ended the stream");
        let Some((event, _)) = self.step(slot, |connection, _| connection.handle_end(is_reset)) else { return };
        let now = self.table.env().now;
        let model = self.oracle.model(fd);
        model.is_lost = true;
        if let Some(Event::Closed(closed)) = &event {
            model.close_by_loss(closed, now);
        }
        self.replay();
        self.record_end(slot, event);
        self.record_slow_consumers();
    }
}
