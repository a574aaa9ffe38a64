//! The fuzz target `tls`: a client and a TLS session exchange records, which arrive in parts of any length.
//!
//! The bytes that each side receives must be the bytes that the other side sent. A client may also send changed
//! records, random bytes, or records of another type. The server may then end the session, but it must not deliver a
//! wrong byte.
//!
//! These faults were inserted into the code of the session, one at a time. The unit tests below found each fault in
//! seconds:
//!
//! | fault | found as |
//! |---|---|
//! | `may_have_more` is false after a read that filled its buffer | missing bytes of the client |
//! | plaintext for which a read has no space is dropped | missing bytes of the client |
//! | ciphertext that the stream did not accept is dropped | a record that the client cannot parse |
//! | the first byte of an unfinished record is dropped | an alert for a client that broke no rule |
//! | a write reports one byte more than it encrypts | a write that accepts more bytes than are offered |
//! | records stay in the shared buffer after they are sent | the invariant of the shared buffer |
//! | `close_notify` of the client is not reported | an unfinished end |

use std::io::IoSlice;

use crate::connection::fuzz::draw::{next, size};
use crate::connection::fuzz::pipe::Pipe;
use crate::connection::{Io, TlsShared, TlsStream};
use crate::protocol::memory::MemoryTotal;
use crate::tls::{HANDSHAKE, Hello, TLS12_RECORDS_MAX, TestClient, test_config};

/// The maximum number of operations of one run. This limit bounds the time of the run.
const OPERATIONS_MAX: usize = 400;

/// The maximum number of key updates without application data between them. rustls ends a session if the client sends
/// more.
const KEY_UPDATES_MAX: u32 = 32;

/// The PROXY header of a proxied session.
const PROXY: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n";

/// The maximum of unfinished input of a session, in bytes: see `UNFINISHED_BYTES_MAX`.
const INBOUND_BYTES_MAX: usize = (128 << 10) + (20 << 10);

/// A client, a TLS session and the stream between them.
struct Session {
    pipe: Pipe,
    stream: TlsStream,
    shared: TlsShared,
    inbound: MemoryTotal,
    client: TestClient,
    /// The bytes that the client sends before its TLS records: a PROXY header, or nothing.
    header: &'static [u8],
    /// The TLS records that the client has encrypted but not yet sent.
    outbox: Vec<u8>,
    buffer: Vec<u8>,
    /// The number of bytes that the client sent, and the number of these bytes that the server received.
    up: (usize, usize),
    /// The number of bytes that the session accepted, and the number of these bytes that the client received.
    down: (usize, usize),
    /// An upper bound of the number of records that the session encrypted.
    records: u64,
    hello: Hello,
    /// The number of key updates since the client last sent application data.
    key_updates: u32,
    /// Whether the loop was notified that the stream may have bytes.
    is_ready: bool,
    /// Whether the client violated the TLS protocol.
    is_faulty: bool,
    /// Whether the client has ended its stream.
    is_ended: bool,
    /// Whether the server ended the session, or ignores further bytes of the client.
    is_over: bool,
}

/// Runs the operations that `data` encodes.
///
/// Panics if a byte is lost, changed or delivered twice.
#[doc(hidden)]
pub fn fuzz_tls(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut session = Session::new(&mut bytes);
    for _ in 0..OPERATIONS_MAX {
        let Some(operation) = bytes.next() else { break };
        session.step(operation, &mut bytes);
        session.check();
    }
    session.end();
}

/// Returns the byte at a position of the plaintext. Both directions have the same plaintext.
fn byte_at(position: usize) -> u8 {
    (position * 31 + position / 251) as u8
}

impl Session {
    fn new(bytes: &mut impl Iterator<Item = u8>) -> Session {
        let (setting, read_bytes) = (next(bytes), next(bytes));
        let hello = [Hello::Tls13, Hello::Tls12, Hello::Tls13Retried][usize::from(setting % 3)];
        let is_proxied = setting & 0x80 != 0;
        let read_bytes = size(read_bytes).max(1);
        let inbound = MemoryTotal::default();
        let shared = TlsShared::new(read_bytes, inbound.clone());
        let stream =
            TlsStream::new(&test_config(), setting & 0x40 != 0, is_proxied, &shared).expect("the settings are valid");
        let mut client = TestClient::new(hello);
        let header = if is_proxied { PROXY } else { &[] };
        let mut outbox = header.to_vec();
        outbox.extend(client.take_records());
        let buffer = vec![0; read_bytes];
        Session {
            pipe: Pipe::new(),
            stream,
            shared,
            inbound,
            client,
            header,
            outbox,
            buffer,
            up: (header.len(), 0),
            down: (0, 0),
            records: 0,
            hello,
            key_updates: 0,
            is_ready: false,
            is_faulty: false,
            is_ended: false,
            is_over: false,
        }
    }

    fn step(&mut self, operation: u8, bytes: &mut impl Iterator<Item = u8>) {
        let argument = next(bytes);
        match operation % 16 {
            0 | 1 => self.send(size(argument)),
            2 => (0..argument % 32).for_each(|_| self.send(1)),
            3..6 => self.pass(size(argument).max(1)),
            6 | 7 => _ = self.read(),
            8 => self.pipe.room = if argument == u8::MAX { usize::MAX } else { size(argument) },
            9 | 10 => self.write(&[size(argument), size(next(bytes))]),
            11 => self.deliver(),
            12 => self.update_keys(),
            13 if argument < 16 => self.end_client(argument & 1 == 0),
            14 if argument < 32 => self.break_rule(argument, bytes),
            15 if argument < 8 => self.end_server(argument),
            _ => self.exchange(),
        }
    }

    // Operations of the client.

    fn send(&mut self, count: usize) {
        if self.is_ended {
            return;
        }
        let plaintext: Vec<u8> = (self.up.0..self.up.0 + count).map(byte_at).collect();
        self.client.write(&plaintext);
        self.up.0 += count;
        if count > 0 {
            self.key_updates = 0;
        }
        self.take_records();
    }

    fn update_keys(&mut self) {
        self.client.update_keys();
        self.key_updates += 1;
        self.is_faulty |= self.key_updates > KEY_UPDATES_MAX;
    }

    fn take_records(&mut self) {
        self.outbox.extend(self.client.take_records());
    }

    /// Passes records of the client to the stream.
    fn pass(&mut self, count: usize) {
        self.take_records();
        let count = count.min(self.outbox.len());
        self.pipe.up.extend(self.outbox.drain(..count));
        self.is_ready |= count > 0;
    }

    /// Passes records of the server to the client.
    fn deliver(&mut self) {
        let sent = std::mem::take(&mut self.pipe.down);
        match self.client.receive(&sent) {
            Ok(plaintext) => {
                for byte in plaintext {
                    assert_eq!(
                        byte,
                        byte_at(self.down.1),
                        "byte {} from the server must be the byte that the server wrote",
                        self.down.1
                    );
                    self.down.1 += 1;
                }
                assert!(
                    self.down.1 <= self.down.0,
                    "the client must receive at most the plaintext that the session accepted"
                );
            }
            Err(error) => assert!(self.is_faulty, "the server must follow the TLS protocol: {error}"),
        }
        self.take_records();
    }

    fn end_client(&mut self, is_notified: bool) {
        if is_notified && !self.client.is_handshaking() {
            self.client.close();
        }
        self.take_records();
        let rest = std::mem::take(&mut self.outbox);
        self.pipe.up.extend(rest);
        (self.pipe.is_ended, self.is_ended, self.is_ready) = (true, true, true);
    }

    /// Sends bytes that the session may refuse.
    fn break_rule(&mut self, argument: u8, bytes: &mut impl Iterator<Item = u8>) {
        self.is_faulty = true;
        match argument % 4 {
            0 => self.outbox.extend(bytes.take(usize::from(argument))),
            1 => {
                self.take_records();
                let at = usize::from(next(bytes)) * self.outbox.len() / 256;
                if let Some(byte) = self.outbox.get_mut(at) {
                    *byte ^= 1 << (argument / 4);
                }
            }
            2 if !self.client.is_handshaking() && self.hello != Hello::Tls12 && !self.is_ended => {
                let types = [HANDSHAKE, 20, 21, 23, 24];
                let content_type = types[usize::from(argument / 4) % types.len()];
                let content: Vec<u8> = bytes.take(usize::from(next_length(argument))).collect();
                self.client.write_as(content_type, &content);
                self.take_records();
            }
            _ => self.outbox.clear(),
        }
    }

    // Operations of the server.

    fn read(&mut self) -> Io {
        let read = self.stream.read(&mut self.pipe, &mut self.shared, &mut self.buffer);
        if let Io::Done(count) = read {
            for byte in &self.buffer[..count] {
                let expected = self.header.get(self.up.1).copied().unwrap_or_else(|| byte_at(self.up.1));
                assert!(
                    *byte == expected || self.is_faulty,
                    "byte {} from the client must be the byte that the client wrote",
                    self.up.1
                );
                self.up.1 += 1;
            }
            assert!(
                self.up.1 <= self.up.0 || self.is_faulty,
                "the session must return at most the bytes that the client sent"
            );
            let is_end = self.pipe.is_ended && (self.pipe.up.is_empty() || self.is_ended);
            assert!(
                count > 0 || is_end || self.is_faulty,
                "the session may report the end of the stream only after the client ended it"
            );
        }
        self.is_over |= read == Io::Closed;
        let has_input = self.shared.last.read.has_received || matches!(read, Io::Done(1..));
        self.is_ready = self.stream.may_have_more() || (self.pipe.is_ended && has_input);
        read
    }

    /// Reads as the loop does: after an event of the stream, and as long as the session may have more plaintext.
    fn read_all(&mut self) {
        while self.is_ready && !matches!(self.read(), Io::Closed | Io::Done(0)) {}
    }

    fn write(&mut self, lengths: &[usize]) {
        let total: usize = lengths.iter().sum();
        let plaintext: Vec<u8> = (self.down.0..self.down.0 + total).map(byte_at).collect();
        let (first, second) = plaintext.split_at(lengths[0]);
        let is_open = self.stream.info().is_some();
        let before = self.pipe.down.len();
        if self.pipe.is_shut || total == 0 {
            return;
        }
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let slices = if second.is_empty() { &slices[..1] } else { &slices[..] };
        let slices = if first.is_empty() { &slices[1..] } else { slices };
        match self.stream.write(&mut self.pipe, &mut self.shared, slices) {
            Some(written) if is_open => {
                assert!(written.bytes <= total, "a write must accept at most the offered bytes");
                assert_eq!(
                    written.has_sent,
                    self.pipe.down.len() > before,
                    "has_sent must be set if and only if the stream accepted bytes"
                );
                assert!(
                    written.is_full == (written.held > 0),
                    "the session must wait for the stream if and only if it has unsent records"
                );
                self.down.0 += written.bytes;
                self.records += written.bytes as u64 / (1 << 14) + 1;
            }
            Some(_) => {}
            None => {
                let has_no_keys = self.hello == Hello::Tls12 && self.records >= TLS12_RECORDS_MAX / 2;
                assert!(self.is_faulty || self.is_over || has_no_keys, "an open session must accept output");
                self.is_over = true;
            }
        }
    }

    fn end_server(&mut self, argument: u8) {
        match argument % 4 {
            0 => self.stream.ignore_input(),
            1 => self.stream.close(&mut self.pipe, &mut self.shared),
            _ => self.stream.shutdown(&mut self.pipe, &mut self.shared),
        }
        self.is_over = true;
    }

    /// Passes all bytes in both directions.
    fn exchange(&mut self) {
        for _ in 0..4 {
            self.pass(usize::MAX);
            self.read_all();
            // The session sends its unsent records, if the stream accepts them.
            if !self.pipe.is_shut {
                self.is_over |= self.stream.write(&mut self.pipe, &mut self.shared, &[]).is_none();
            }
            self.deliver();
        }
    }

    fn check(&self) {
        self.shared.check_invariants();
        assert_eq!(
            self.inbound.bytes(),
            self.stream.inbound_bytes(),
            "the counted memory must be the memory of the unfinished input of the session"
        );
        assert!(
            self.inbound.bytes() <= 2 * INBOUND_BYTES_MAX,
            "the unfinished input must be at most twice INBOUND_BYTES_MAX: {} bytes",
            self.inbound.bytes()
        );
    }

    /// Passes all remaining records, and checks that no byte is missing. The check is skipped if the client violated
    /// the TLS protocol, or if the server ended the session or ignores bytes of the client.
    fn end(&mut self) {
        self.pipe.room = usize::MAX;
        self.exchange();
        self.check();
        if self.is_faulty || self.is_over {
            return;
        }
        let is_cut = self.is_ended && self.client.is_handshaking();
        assert!(is_cut || !self.client.is_handshaking(), "the handshake must be complete");
        assert!(
            is_cut || self.up.0 == self.up.1,
            "the server must receive all bytes of the client: {} of {}",
            self.up.1,
            self.up.0
        );
        assert_eq!(self.down.0, self.down.1, "the client must receive all bytes of the server");
        assert!(is_cut || self.stream.inbound_bytes() == 0, "no unfinished input may be left");
    }
}

fn next_length(argument: u8) -> u8 {
    argument % 7
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn operations_on_a_new_session_follow_the_rules(operations in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz_tls(&operations);
        }

        /// Works like `operations_on_a_new_session_follow_the_rules`, but the handshake is complete before the first
        /// operation.
        #[test]
        fn operations_on_an_open_session_follow_the_rules(
            setting in any::<[u8; 2]>(),
            operations in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            fuzz_tls(&[&setting[..], &[13, 255], &operations].concat());
        }
    }
}
