//! A TLS session over a stream in memory, as a transport.

use std::io::IoSlice;

use crate::connection::fuzz::Pipe;
use crate::connection::{Io, SessionRead, TlsShared, TlsStream, Transport, Written};
use crate::tick::Tick;
use crate::tls::test_config;

/// A TLS session over a [`Pipe`].
#[derive(Debug)]
pub struct SecureSocket {
    pub pipe: Pipe,
    pub session: TlsStream,
    /// Whether the stream was reset, so that its end is an error for the client.
    pub is_reset: bool,
}

impl SecureSocket {
    pub fn new(shared: &TlsShared) -> SecureSocket {
        let session = TlsStream::new(&test_config(), false, false, shared).expect("the settings are valid");
        SecureSocket { pipe: Pipe::new(), session, is_reset: false }
    }
}

impl Transport for SecureSocket {
    type Shared = TlsShared;

    fn read(&mut self, shared: &mut TlsShared, buffer: &mut [u8]) -> Io {
        let read = self.session.read(&mut self.pipe, shared, buffer);
        shared.check_invariants();
        read
    }

    fn write_vectored(&mut self, shared: &mut TlsShared, slices: &[IoSlice<'_>]) -> Option<Written> {
        let written = self.session.write(&mut self.pipe, shared, slices);
        shared.check_invariants();
        written
    }

    fn shutdown(&mut self, shared: &mut TlsShared) {
        self.session.shutdown(&mut self.pipe, shared);
        shared.check_invariants();
    }

    fn session_read(&self, shared: &TlsShared) -> Option<SessionRead> {
        Some(shared.last.read)
    }

    fn inbound_bytes(&self, _: &TlsShared) -> usize {
        self.session.inbound_bytes()
    }

    fn unfinished_since(&self, _: &TlsShared) -> Option<Tick> {
        self.session.unfinished_since()
    }

    fn set_reading(&mut self, _: &mut TlsShared, now: Option<Tick>) {
        self.session.set_reading(now);
    }

    fn ignore_input(&mut self, _: &mut TlsShared) {
        self.session.ignore_input();
    }

    fn finish(&mut self, shared: &mut TlsShared) {
        self.session.close(&mut self.pipe, shared);
        shared.check_invariants();
    }

    fn reset(&mut self, _: &mut TlsShared) {
        self.is_reset = true;
    }

    fn remove(&mut self, shared: &mut TlsShared) {
        self.session.count_abandoned(&mut shared.counts);
    }
}
