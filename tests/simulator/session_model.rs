//! The naive model of a TLS session: the records of its client, and its deadlines.
//!
//! The client passes the lengths of its records to the model. So the model can compute, for each number of received
//! bytes, the plaintext that the server must return, and since when a record is incomplete.

use std::collections::VecDeque;
use std::time::Duration;

use fdpush::Limits;
use fdpush::sim::Tick;

/// The length of the header of a record.
const HEADER_BYTES: usize = 5;

/// The content of a client's record.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Plaintext, or a part of the handshake.
    Valid,
    /// `close_notify`.
    Closing,
    /// The record breaks a rule. The server must end the session when it has received the record.
    Invalid,
}

/// A TLS record, by its position in the byte stream of the client.
#[derive(Debug)]
struct Record {
    start: u64,
    end: u64,
    /// The number of plaintext bytes in this record and all records before it.
    plaintext: u64,
    content: Content,
}

/// The model of a session.
#[derive(Debug)]
pub struct SessionModel {
    /// The TLS records that the server has not received completely.
    records: VecDeque<Record>,
    /// The number of bytes in all records that the client has made, unsent ones included, and the number of plaintext
    /// bytes in these records.
    made: (u64, u64),
    /// The number of bytes that the server has received.
    received: u64,
    /// The number of plaintext bytes in the records that the server has received completely.
    pub plaintext: u64,
    /// Whether the handshake is complete.
    pub is_open: bool,
    /// Whether the server has received a record that breaks a rule.
    pub is_broken: bool,
    /// Whether the server has received `close_notify`.
    pub is_closed: bool,
    /// The time of the first bytes of a record that has not arrived completely. `None`: the server does not read, or no
    /// record is unfinished.
    unfinished_since: Option<Tick>,
    /// The common deadline of the handshake and of the head of the first request after it.
    head_until: Tick,
}

impl SessionModel {
    /// Creates the model of an accepted connection.
    pub fn new(now: Tick, limits: &Limits) -> SessionModel {
        SessionModel {
            records: VecDeque::new(),
            made: (0, 0),
            received: 0,
            plaintext: 0,
            is_open: false,
            is_broken: false,
            is_closed: false,
            unfinished_since: None,
            head_until: now.after(limits.head_time_max),
        }
    }

    // The client.

    /// Adds records that the client made. The last of these records has the content `content`, and all others have the
    /// content `Valid`. Together they contain `plaintext` bytes of plaintext.
    pub fn append(&mut self, records: &[u8], content: Content, plaintext: usize) {
        let mut rest = records;
        while let [_, _, _, high, low, ..] = rest {
            let bytes = HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
            rest = &rest[bytes..];
            let is_last = rest.is_empty();
            self.push(bytes, if is_last { content } else { Content::Valid }, if is_last { plaintext } else { 0 });
        }
        assert!(rest.is_empty(), "the client must pass whole records");
    }

    /// Adds a record header with an invalid length.
    pub fn append_invalid_header(&mut self) {
        self.push(HEADER_BYTES, Content::Invalid, 0);
    }

    fn push(&mut self, bytes: usize, content: Content, plaintext: usize) {
        let start = self.made.0;
        self.made = (start + bytes as u64, self.made.1 + plaintext as u64);
        self.records.push_back(Record { start, end: self.made.0, plaintext: self.made.1, content });
    }

    // The server.

    /// Returns whether the server has received a byte of the client.
    pub fn has_begun(&self) -> bool {
        self.received > 0
    }

    /// Handles bytes that the server received. `reading` is the current tick if the server continues to read, else
    /// `None`.
    pub fn receive(&mut self, count: usize, reading: Option<Tick>) {
        self.received += count as u64;
        while !self.is_over()
            && let Some(record) = self.records.pop_front_if(|record| record.end <= self.received)
        {
            self.unfinished_since = None;
            self.plaintext = record.plaintext;
            self.is_closed = record.content == Content::Closing;
            self.is_broken = record.content == Content::Invalid;
        }
        self.set_reading(reading);
    }

    /// Sets whether the server reads from the client. `reading` is the current tick, or `None` if the server does not
    /// read. While the server does not read, the time limit of an unfinished record does not run.
    pub fn set_reading(&mut self, reading: Option<Tick>) {
        let is_unfinished = !self.is_over() && self.records.front().is_some_and(|record| record.start < self.received);
        self.unfinished_since = reading.filter(|_| is_unfinished).map(|now| self.unfinished_since.unwrap_or(now));
    }

    /// Handles the answer to a client hello. The time limit of the client's request starts again.
    pub fn answer_hello(&mut self, now: Tick, limits: &Limits) {
        self.head_until = now.after(limits.head_time_max);
    }

    /// Returns whether the server ignores all later bytes.
    fn is_over(&self) -> bool {
        self.is_broken || self.is_closed
    }

    /// Returns the common deadline of the handshake and of the first bytes after it.
    pub fn head_until(&self) -> Tick {
        self.head_until
    }

    /// Returns the deadline of an unfinished record. `opened` is the time at which the WebSocket opened.
    pub fn record_due(&self, opened: Tick, message_time_max: Duration) -> Tick {
        self.unfinished_since.map_or(Tick::NEVER, |since| since.after(message_time_max).max(opened))
    }
}
