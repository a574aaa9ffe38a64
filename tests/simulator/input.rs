//! The input of the simulated server: reads bytes from the wires, and passes the events of the connections to the
//! handler.

use std::mem;

use fdpush::sim::{Connection, Event, Io};
use fdpush::{Slot, State};

use crate::server::Server;

impl Server {
    /// Reads once from each connection that may have bytes.
    pub fn read_ready(&mut self) {
        let mut slots = mem::take(&mut self.ready);
        let mut buffer = mem::take(&mut self.buffer);
        for slot in slots.drain(..) {
            self.read(slot, &mut buffer);
            self.arm(slot);
        }
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
        let Some(socket) = self.table.transport_mut(slot) else { return };
        socket.is_readable = false;
        match read {
            Io::WouldBlock => {}
            Io::Closed => self.handle_end(slot, true),
            Io::Done(0) => self.handle_end(slot, false),
            Io::Done(count) => {
                let goes_on = count == buffer.len() || socket.is_hung_up;
                socket.is_readable = goes_on;
                let now = self.table.env().now;
                let model = self.model_at(slot);
                model.heartbeat.handle_bytes(now);
                model.inbound.read += count as u64;
                self.feed(slot, &mut buffer[..count]);
                if goes_on {
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
            assert!(input.is_empty(), "the connection must take all input");
            match self.table.connection(slot).and_then(Connection::held_until) {
                Some(_) => model.inbound.hold(self.table.env().now),
                None => model.inbound.end_input(self.table.env().now),
            }
        }
        self.compare(slot);
        self.table.end_input(slot);
        self.replay();
        self.record_slow_consumers();
    }

    /// Handles the end or the reset of the client's stream.
    pub fn handle_end(&mut self, slot: Slot, is_reset: bool) {
        let fd = self.table.fd_of(slot);
        let is_gone = self.table.transport(slot).is_some_and(|socket| socket.wire.borrow().is_client_gone());
        assert!(
            is_reset || is_gone,
            "the server may report the end of {fd} only after its client has ended the stream"
        );
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
