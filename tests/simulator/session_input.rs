//! Reads of TLS sessions, compared with the model of the session.

use std::mem;

use fdpush::sim::{Io, SessionRead, Tick};
use fdpush::{Slot, TlsVersion};

use crate::coverage::hit;
use crate::server::Server;
use crate::socket;

/// The result of a read of a session, without the plaintext.
struct Observed {
    report: SessionRead,
    result: Io,
    /// The number of received bytes of records.
    received: usize,
    /// The current tick if the server continues to read from the connection, else `None`.
    reading: Option<Tick>,
    is_http: bool,
    /// Whether no further read is needed: this read returned the last plaintext of the received records, or it reported
    /// the end of the session.
    is_last: bool,
    /// Whether the session ignores its input, because the server has ended its output.
    is_ignored: bool,
    /// Whether the client reset the connection.
    is_reset: bool,
}

impl Server {
    /// Handles the report of a TLS session about its last read. Does nothing for a plain connection.
    pub fn handle_session_read(&mut self, slot: Slot, result: Io) {
        let report = mem::take(&mut self.table.shared_mut().last);
        let Some((connection, socket, env)) = self.table.parts(slot) else { return };
        let is_reset = socket.wire.borrow().is_client_reset();
        let Some(session) = &mut socket.session else { return };
        let read = Observed {
            report: report.read,
            result,
            received: session.take_received(),
            reading: connection.reads_at(env),
            is_http: connection.is_http(),
            is_last: !socket.is_readable,
            is_ignored: session.is_shut(),
            is_reset,
        };
        let state = socket::OutputState::of(connection);
        if report.read.has_answered {
            self.handshakes.handle_answered();
        }
        if report.read.held.is_some_and(|held| held > 0) && !self.full.contains(&slot) {
            self.full.push(slot);
        }
        self.compare_session_read(slot, &read);
        self.compare_state(self.table.fd_of(slot), state);
        if let Some(tls) = report.secured {
            hit(if tls.version == TlsVersion::Tls12 { "tls: session 1.2" } else { "tls: session 1.3" });
            self.model_at(slot).session.as_mut().expect("the connection has a session").is_open = true;
            self.step(slot, |connection, _| connection.set_tls(tls));
            self.replay();
            self.record_slow_consumers();
        }
    }

    fn compare_session_read(&mut self, slot: Slot, read: &Observed) {
        let (fd, env) = (self.table.fd_of(slot), self.table.env());
        let (model, ledger) = self.oracle.account(fd);
        let session = model.session.as_mut().expect("the connection has a session");
        let begins = !session.has_begun() && read.received > 0 && !read.is_ignored;
        self.handshakes_begun += u64::from(begins);
        session.receive(read.received, read.reading);
        if read.report.has_answered {
            session.answer_hello(env.now, &env.limits);
        }
        let returned = if let Io::Done(count) = read.result { count } else { 0 };
        let plaintext = model.inbound.read + returned as u64;
        let has_reason = read.is_reset || session.is_broken;
        assert!(
            read.result != Io::Closed || has_reason,
            "a read of {fd} must fail only after a reset or a record that breaks a rule"
        );
        if session.is_open && read.is_last && !read.is_ignored && !read.is_reset {
            assert_eq!(plaintext, session.plaintext, "reads of {fd} must return the plaintext of all received records");
            assert!(
                !session.is_broken || read.result == Io::Closed,
                "a record that breaks a rule must end the session of {fd}"
            );
        }
        if read.report.has_received {
            model.heartbeat.handle_bytes(env.now);
        }
        match read.report.held {
            Some(0) => hit("tls: read sends held records"),
            Some(_) => hit(if read.is_http { "tls: handshake held" } else { "tls: alert held" }),
            None => {}
        }
        model.output.handle_read(read.report, read.is_http, env.now, ledger);
        model.written(&env.limits, env.now);
        if read.report.held == Some(0) && model.is_closing() {
            hit("tls: read sends a close frame");
            self.closing_reads.push(fd);
        }
    }

    /// Checks the deadlines of the connections in `closing_reads` that are not freed.
    ///
    /// While connections wait for a flush, this function checks nothing, because the flush may change their deadlines.
    pub fn check_closing_reads(&mut self) {
        for fd in mem::take(&mut self.closing_reads) {
            let Some(slot) = self.table.slot_of(fd).filter(|_| !self.table.has_dirty()) else { continue };
            let (at, due) = (self.table.poll_timeout(slot), self.oracle.models[&fd].due(&self.table.env().limits));
            assert!(
                at <= due,
                "the close frame of {fd} is sent, so its deadline must be at {due:?} or before, not at {at:?}"
            );
        }
    }

    /// Tells the model whether the server now reads from a TLS session.
    ///
    /// The server may start or stop reading after input, and after a call that pauses or resumes the connection.
    pub fn observe_reading(&mut self, slot: Slot) {
        let env = self.table.env();
        let Some(reading) = self.table.connection(slot).map(|connection| connection.reads_at(env)) else { return };
        if let Some(session) = &mut self.oracle.model(self.table.fd_of(slot)).session {
            session.set_reading(reading);
        }
    }
}
