//! The server's TLS session over a simulated socket, and the checks of each call of the session.
//!
//! The session is the code of the server, with fixed randomness. The checks need no model. The session must report the
//! bytes of records that it holds because the socket was full. If the session holds no such bytes, it must end with
//! `close_notify`.

use std::cell::RefCell;
use std::io::IoSlice;
use std::mem;

use fdpush::TlsVersion;
use fdpush::sim::{Io, Stream, TLS12_RECORDS_MAX, Tick, TlsShared, TlsStream, Written, test_config};

use crate::coverage::hit;
use crate::rng::Rng;
use crate::wire::Wire;

/// The length of the longest plaintext of a record.
const RECORD_PLAINTEXT: usize = 1 << 14;

/// The maximum number of records of one write. A write encrypts at most four full records, and two short ones.
const RECORDS_PER_WRITE_MAX: u64 = 6;

/// A session of the server.
#[derive(Debug)]
pub struct Session {
    stream: TlsStream,
    /// The number of bytes that the session has received from the client since the last call of `take_received`.
    received: usize,
    /// The number of bytes of records that the session holds because the socket was full.
    unsent: usize,
    /// An upper bound of the number of encrypted records.
    records: u64,
    /// Whether the session ended with an error. Such a session sends no `close_notify`.
    has_failed: bool,
    /// Whether the output has ended.
    is_shut: bool,
}

/// The simulated socket below a session, and the bytes that one call moved through it.
struct Below<'a> {
    wire: &'a RefCell<Wire>,
    rng: &'a mut Rng,
    received: usize,
    offered: usize,
    sent: usize,
    unsent: usize,
}

impl Session {
    /// Creates the session of an accepted connection.
    pub fn new(shared: &TlsShared) -> Session {
        let stream = TlsStream::new(&test_config(), false, false, shared).expect("the settings are valid");
        Session { stream, received: 0, unsent: 0, records: 0, has_failed: false, is_shut: false }
    }

    /// Returns whether the handshake is complete and the session has not failed.
    pub fn is_open(&self) -> bool {
        self.stream.info().is_some()
    }

    /// Returns whether the session ended with an error.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Returns whether the output has ended.
    pub fn is_shut(&self) -> bool {
        self.is_shut
    }

    /// Returns whether another read may return more bytes without a new event of the socket.
    pub fn may_have_more(&self) -> bool {
        self.stream.may_have_more()
    }

    /// Returns whether the next read may answer a client hello.
    pub fn awaits_hello(&self) -> bool {
        self.stream.awaits_hello()
    }

    /// Returns the number of received bytes since the last call.
    pub fn take_received(&mut self) -> usize {
        mem::take(&mut self.received)
    }

    /// Returns the memory of unfinished input.
    pub fn inbound_bytes(&self) -> usize {
        self.stream.inbound_bytes()
    }

    /// Returns the time of the first bytes of a record that has not arrived completely.
    pub fn unfinished_since(&self) -> Option<Tick> {
        self.stream.unfinished_since()
    }

    /// Starts or stops the time limit of an unfinished record. `now` is `None` if the server does not read.
    pub fn set_reading(&mut self, now: Option<Tick>) {
        self.stream.set_reading(now);
    }

    /// Reads once.
    pub fn read(&mut self, wire: &RefCell<Wire>, rng: &mut Rng, shared: &mut TlsShared, buffer: &mut [u8]) -> Io {
        let mut below = Below::new(wire, rng, self.unsent);
        let read = self.stream.read(&mut below, shared, buffer);
        let Below { received, sent, unsent, offered, .. } = below;
        shared.check_invariants();
        let report = shared.last.read;
        assert_eq!(report.has_received, received > 0, "a read must report whether bytes arrived");
        assert_eq!(report.has_sent, sent > 0, "a read must report whether it wrote records to the socket");
        let held = report.held.unwrap_or(if offered > 0 { 0 } else { self.unsent });
        assert_eq!(held, unsent, "a read must report the bytes of records that the session still holds");
        self.received += received;
        self.unsent = unsent;
        if shared.last.error.is_some() {
            self.fail(wire);
        }
        read
    }

    /// Writes once.
    pub fn write(
        &mut self,
        wire: &RefCell<Wire>,
        rng: &mut Rng,
        shared: &mut TlsShared,
        slices: &[IoSlice<'_>],
    ) -> Option<Written> {
        assert!(!self.is_shut, "nothing may be written after the end of the output");
        assert!(!slices.is_empty() || self.unsent > 0, "a write must have bytes or records to send");
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let (is_open, version) = (self.is_open(), self.stream.info().map(|info| info.version));
        let mut below = Below::new(wire, rng, self.unsent);
        let written = self.stream.write(&mut below, shared, slices);
        let Below { sent, unsent, .. } = below;
        shared.check_invariants();
        self.unsent = unsent;
        let Some(written) = written else {
            self.check_failure(wire, version);
            self.fail(wire);
            return None;
        };
        assert_eq!(written.held, unsent, "a write must report the bytes of records that the session still holds");
        assert!(
            written.bytes <= offered,
            "a write must not take more bytes than it got: {} of {offered}",
            written.bytes
        );
        if is_open {
            assert_eq!(
                written.is_full,
                unsent > 0,
                "a write must report that the socket is full if and only if the session still holds records"
            );
            assert_eq!(written.has_sent, sent > 0, "a write must report whether it wrote records to the socket");
            assert!(
                unsent > 0 || written.bytes > 0 || offered == 0,
                "a session that holds no records must take output"
            );
            if written.bytes > 0 {
                self.records += (written.bytes / RECORD_PLAINTEXT) as u64 + 2;
            }
        } else {
            hit("tls: output without a session");
        }
        if unsent > 0 {
            hit("tls: records held");
        }
        Some(written)
    }

    /// Checks the reason of a failed write: a reset by the client, an error of the session, or the limit of records
    /// under one key.
    fn check_failure(&self, wire: &RefCell<Wire>, version: Option<TlsVersion>) {
        let has_no_keys =
            version == Some(TlsVersion::Tls12) && self.records + RECORDS_PER_WRITE_MAX >= TLS12_RECORDS_MAX;
        if has_no_keys {
            hit("tls: keys used up");
        }
        let is_reset = wire.borrow().is_client_reset();
        assert!(
            has_no_keys || is_reset || self.has_failed,
            "a write may fail only after a reset or an error, or when the limit of records under one key is reached"
        );
    }

    fn fail(&mut self, wire: &RefCell<Wire>) {
        self.has_failed = true;
        wire.borrow_mut().has_failed = true;
    }

    /// Ends the output.
    pub fn shutdown(&mut self, wire: &RefCell<Wire>, rng: &mut Rng, shared: &mut TlsShared) {
        assert!(!self.is_shut, "the output must end only once");
        self.end(wire, rng, shared, |stream, below, shared| stream.shutdown(below, shared));
    }

    /// Ends the session of a finished connection.
    pub fn finish(&mut self, wire: &RefCell<Wire>, rng: &mut Rng, shared: &mut TlsShared) {
        self.end(wire, rng, shared, |stream, below, shared| stream.close(below, shared));
    }

    /// Ends the output. An open session that holds no records sends `close_notify`.
    fn end(
        &mut self,
        wire: &RefCell<Wire>,
        rng: &mut Rng,
        shared: &mut TlsShared,
        end: impl FnOnce(&mut TlsStream, &mut Below<'_>, &mut TlsShared),
    ) {
        let must_notify = self.must_notify();
        let mut below = Below::new(wire, rng, self.unsent);
        end(&mut self.stream, &mut below, shared);
        shared.check_invariants();
        let Below { offered, unsent, .. } = below;
        let has_notified = offered > 0;
        assert!(
            self.has_failed || has_notified == must_notify,
            "a session must send close_notify if it is open and holds no records, and only then: {has_notified}"
        );
        if must_notify {
            hit(if unsent == 0 { "tls: close_notify sent" } else { "tls: close_notify cut" });
            wire.borrow_mut().has_notified = unsent == 0;
            // The session drops the bytes of `close_notify` that did not fit into the socket.
            self.unsent = 0;
        }
        self.is_shut = true;
    }

    fn must_notify(&self) -> bool {
        self.is_open() && !self.has_failed && !self.is_shut && self.unsent == 0
    }

    /// Handles the removal of the connection. Checks that an open session without held records has sent `close_notify`.
    /// With `is_reset`, the server resets the connection, and need not send `close_notify`.
    pub fn remove(&self, wire: &RefCell<Wire>, shared: &mut TlsShared, is_reset: bool) {
        let is_lost = is_reset || wire.borrow().is_client_reset();
        assert!(is_lost || !self.must_notify(), "an open session that holds no records must end with close_notify");
        self.stream.count_abandoned(&mut shared.counts);
    }
}

impl<'a> Below<'a> {
    fn new(wire: &'a RefCell<Wire>, rng: &'a mut Rng, unsent: usize) -> Below<'a> {
        Below { wire, rng, received: 0, offered: 0, sent: 0, unsent }
    }
}

impl Stream for Below<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> Io {
        let read = self.wire.borrow_mut().read(buffer);
        if let Io::Done(count) = read {
            self.received += count;
        }
        read
    }

    fn send(&mut self, bytes: &[u8]) -> Io {
        let sent = self.wire.borrow_mut().write(&[IoSlice::new(bytes)], self.rng);
        let taken = if let Io::Done(count) = sent { count } else { 0 };
        self.offered += bytes.len();
        self.sent += taken;
        // The session passes all its unsent records to each call of `send`. So the bytes that this call does not write
        // are all unsent bytes of the session.
        self.unsent = bytes.len() - taken;
        sent
    }

    fn shutdown(&mut self) {
        self.wire.borrow_mut().shut();
    }
}
