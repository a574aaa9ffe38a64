//! The TLS sessions of the fuzz target `connection`, and their clients.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::connection::fuzz::pipe::Pipe;
use crate::connection::{Io, TlsShared, TlsStream, Written};
use crate::tls::{Hello, TestClient, test_config};

/// The length of the read buffer in bytes. A record can be longer than this buffer.
pub(super) const READ_BYTES: usize = 5000;

/// The maximum overhead of the records of one write, in bytes. One write has at most 5 records.
pub(super) const RECORD_OVERHEAD: usize = 5 * 64;

/// A TLS session, its stream and its client.
#[derive(Debug)]
pub(super) struct Secure {
    pub pipe: Pipe,
    pub stream: TlsStream,
    pub client: TestClient,
    /// The TLS records that the client has encrypted but not yet sent.
    pub outbox: Vec<u8>,
    /// The plaintext that the session has accepted and the client has not yet received.
    expected: VecDeque<u8>,
}

impl Secure {
    pub(super) fn new(shared: &TlsShared) -> Secure {
        let stream = TlsStream::new(&test_config(), false, false, shared).expect("the settings are valid");
        let client = TestClient::new(Hello::Tls13);
        Secure { pipe: Pipe::new(), stream, client, outbox: Vec::new(), expected: VecDeque::new() }
    }

    pub(super) fn read(&mut self, shared: &mut TlsShared, buffer: &mut [u8]) -> Io {
        let read = self.stream.read(&mut self.pipe, shared, buffer);
        shared.check_invariants();
        self.deliver();
        read
    }

    pub(super) fn write(&mut self, shared: &mut TlsShared, slices: &[IoSlice<'_>]) -> Option<Written> {
        let before = self.pipe.down.len();
        let is_open = self.stream.info().is_some();
        let written = self.stream.write(&mut self.pipe, shared, slices)?;
        shared.check_invariants();
        if is_open {
            let sent = self.pipe.down.len() - before;
            assert_eq!(written.has_sent, sent > 0, "has_sent must be set if and only if the socket accepted bytes");
            assert!(written.is_full || written.held == 0, "a session with unsent records must wait for the socket");
            self.expected.extend(slices.iter().flat_map(|slice| slice.iter()).take(written.bytes));
        }
        self.deliver();
        Some(written)
    }

    pub(super) fn shutdown(&mut self, shared: &mut TlsShared) {
        self.stream.shutdown(&mut self.pipe, shared);
        shared.check_invariants();
        self.deliver();
    }

    pub(super) fn finish(&mut self, shared: &mut TlsShared) {
        self.stream.close(&mut self.pipe, shared);
        shared.check_invariants();
        self.deliver();
    }

    /// Passes the server's records to the client. The client's answers go to the client's outbox.
    fn deliver(&mut self) {
        let sent = std::mem::take(&mut self.pipe.down);
        let plaintext = self.client.receive(&sent).expect("the server follows the TLS protocol");
        for byte in plaintext {
            assert_eq!(
                Some(byte),
                self.expected.pop_front(),
                "the client must receive the plaintext that the session accepted"
            );
        }
        self.outbox.extend(self.client.take_records());
    }

    pub(super) fn check_sent(&self) {
        assert!(self.expected.is_empty(), "the client must have received all plaintext that the session accepted");
    }
}
