//! The TLS session of a client, and its unsent records. The session uses rustls with fixed randomness.

use std::collections::VecDeque;

use fdpush::sim::{HANDSHAKE, Hello, TestClient};

use crate::coverage::hit;
use crate::rng::Rng;
use crate::session_model::{Content, SessionModel};

/// The maximum number of plaintext bytes in a record.
const RECORD_PLAINTEXT: usize = 1 << 14;

/// If the unsent records have more bytes than this number, the client encrypts no more output.
const OUTBOX_BYTES_MAX: usize = 20_000;

/// A header that announces a record of 65,535 bytes. The maximum is 16,640 (RFC 8446 section 5.2).
const INVALID_HEADER: [u8; 5] = [23, 3, 3, 0xff, 0xff];

/// The length of the header of a record.
const HEADER_BYTES: usize = 5;

/// The session of a client.
#[derive(Debug)]
pub struct SessionClient {
    session: TestClient,
    hello: Hello,
    /// The bytes of TLS records that the client has not sent yet.
    pub outbox: VecDeque<u8>,
    /// Whether the client sends nothing after `outbox`: it broke a rule, sent `close_notify`, or could not decrypt the
    /// bytes of the server.
    is_done: bool,
    has_closed: bool,
    /// Whether the client broke a rule, or the server does not speak TLS.
    is_faulty: bool,
    /// Whether the client may update its keys. The client sends a message between two key updates, because the server
    /// ends a session in which a client sends many key updates in a row.
    may_update: bool,
    /// Whether the client may request a renegotiation. The client makes only one such request, and the server answers
    /// the request with a warning alert.
    may_renegotiate: bool,
}

impl SessionClient {
    /// Creates a client that sends this kind of hello. Without a model, the server does not speak TLS.
    pub fn new(hello: Hello, model: Option<&mut SessionModel>) -> SessionClient {
        let mut client = SessionClient {
            session: TestClient::new(hello),
            hello,
            outbox: VecDeque::new(),
            is_done: false,
            has_closed: false,
            is_faulty: model.is_none(),
            may_update: true,
            may_renegotiate: hello == Hello::Tls12,
        };
        client.take_records(model, Content::Valid, 0);
        client
    }

    /// Returns whether the client has sent `close_notify` and all records before it.
    pub fn has_ended(&self) -> bool {
        self.has_closed && self.outbox.is_empty()
    }

    /// Returns whether the server has sent `close_notify`. Returns `None` if the session of the client has failed.
    pub fn is_notified(&mut self) -> Option<bool> {
        if self.is_faulty { None } else { Some(self.session.is_closed()) }
    }

    /// Decrypts records of the server.
    pub fn receive(&mut self, records: &[u8], inbox: &mut Vec<u8>) {
        match self.session.receive(records) {
            Ok(plaintext) => inbox.extend(plaintext),
            Err(error) => {
                assert!(self.is_faulty, "the server must send valid TLS records: {error}");
                self.is_done = true;
            }
        }
    }

    /// Encrypts output of the client. All records of a call, except the last, have the same length.
    pub fn encrypt(&mut self, stream: &mut VecDeque<u8>, rng: &mut Rng, mut model: Option<&mut SessionModel>) {
        if self.is_done {
            return;
        }
        self.take_records(model.as_deref_mut(), Content::Valid, 0);
        let bytes_max = if rng.one_in(3) { rng.within(1..=40) } else { RECORD_PLAINTEXT };
        while !stream.is_empty() && self.is_open() && self.outbox.len() < OUTBOX_BYTES_MAX {
            let count = stream.len().min(bytes_max);
            let plaintext: Vec<u8> = stream.drain(..count).collect();
            self.session.write(&plaintext);
            self.take_records(model.as_deref_mut(), Content::Valid, count);
            self.may_update = true;
        }
    }

    /// Sends a record that must not end the session: a key update, or a request for a renegotiation.
    pub fn disturb(&mut self, model: Option<&mut SessionModel>) {
        if !self.is_open() || self.is_done {
            return;
        }
        if self.hello == Hello::Tls12 {
            if std::mem::replace(&mut self.may_renegotiate, false) {
                hit("tls: renegotiation refused");
                self.write_hello();
            }
        } else if std::mem::replace(&mut self.may_update, false) {
            hit("tls: key update");
            self.session.update_keys();
        }
        self.take_records(model, Content::Valid, 0);
    }

    /// Sends a record that breaks a rule. From now on, the client sends nothing else.
    pub fn break_rule(&mut self, rng: &mut Rng, model: Option<&mut SessionModel>) {
        if self.is_done {
            return;
        }
        (self.is_done, self.is_faulty) = (true, true);
        match rng.below(3) {
            0 if self.is_open() && self.hello != Hello::Tls12 => {
                hit("tls: hello in a session");
                self.write_hello();
                self.take_records(model, Content::Invalid, 0);
            }
            1 if self.is_open() => {
                hit("tls: record changed");
                self.session.write(b"a record that is changed");
                let start = self.outbox.len();
                self.take_records(model, Content::Invalid, 0);
                let at = self.outbox.len() - 1 - rng.below(16);
                assert!(at > start, "the changed byte must be in the body of the record");
                self.outbox[at] ^= 1 << rng.below(8);
            }
            _ => {
                hit("tls: garbage");
                self.outbox.extend(INVALID_HEADER);
                self.outbox.extend(vec![0x5a; rng.skewed(200)]);
                if let Some(model) = model {
                    model.append_invalid_header();
                }
            }
        }
    }

    /// Sends `close_notify`. Returns `false` if the session is not open.
    pub fn close(&mut self, model: Option<&mut SessionModel>) -> bool {
        if !self.is_open() || self.is_done {
            return false;
        }
        hit("tls: client sends close_notify");
        self.session.close();
        self.take_records(model, Content::Closing, 0);
        (self.is_done, self.has_closed) = (true, true);
        true
    }

    /// Encrypts a second hello.
    fn write_hello(&mut self) {
        let record = TestClient::new(self.hello).take_records();
        self.session.write_as(HANDSHAKE, &record[HEADER_BYTES..]);
    }

    fn is_open(&self) -> bool {
        !self.session.is_handshaking()
    }

    fn take_records(&mut self, model: Option<&mut SessionModel>, content: Content, plaintext: usize) {
        let records = self.session.take_records();
        if let Some(model) = model {
            model.append(&records, content, plaintext);
        }
        self.outbox.extend(records);
    }
}
