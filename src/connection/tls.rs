//! A TLS session over a stream: the transport of connections that came through a TLS listener.
//!
//! It keeps the state of the session, and bytes only while something is unfinished: a part of a record, plaintext for
//! which a read had no space, and ciphertext that the stream did not take. All other buffers are in [`TlsShared`], which
//! the loop lends to each call.

use std::fmt;
use std::io::IoSlice;
use std::mem;

use crate::connection::table::{Io, SessionRead};
use crate::connection::written::Written;
use crate::protocol::memory::{MemoryShare, MemoryTotal};
use crate::protocol::proxy::parse_proxy_header;
use crate::tick::Tick;
use crate::tls::{Ciphertext, Engine, EngineError, RECORD_BYTES_MAX, TlsConfig, TlsCounts, TlsInfo};

/// The plaintext of a full record.
const RECORD_PLAINTEXT: usize = 1 << 14;

/// The plaintext that one write encrypts, at most. It bounds the ciphertext that a session holds.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// As [`WRITE_BYTES_MAX`], after a write that the stream did not take as a whole.
///
/// Output that is not encrypted can still be dropped for a newer message, or to free memory.
const FULL_WRITE_BYTES_MAX: usize = RECORD_PLAINTEXT;

/// The unfinished input of a session, at most: a handshake message and the headers of its records.
///
/// A client can split a message into records of one byte, and the library needs all of them.
const UNFINISHED_BYTES_MAX: usize = 128 << 10;

/// The first byte of a TLS connection: a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 47\r\n\
    Connection: close\r\n\r\nthis port speaks TLS: use wss:// and https://\r\n";

const PLAIN_HTTP_CONTROL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\
    Content-Length: 79\r\nConnection: close\r\n\r\n\
    {\"error\":{\"code\":\"bad_request\",\"message\":\"this port speaks TLS: use https://\"}}";

/// The alert for a client over a limit, before its handshake: fatal, `internal_error` (RFC 8446 section 6).
pub const REFUSED: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

/// The stream below a session: a socket, or a model.
pub trait Stream {
    /// Reads once. 0 bytes are the end of the stream.
    fn receive(&mut self, buffer: &mut [u8]) -> Io;

    /// Writes once.
    fn send(&mut self, bytes: &[u8]) -> Io;

    /// Ends the output.
    fn shutdown(&mut self);
}

/// The state that all sessions of a table share.
#[derive(Debug)]
pub struct TlsShared {
    /// Received records, behind the unfinished input of the session.
    incoming: Vec<u8>,
    /// Small pieces of output that become one record.
    gathered: Vec<u8>,
    /// Records to send.
    outgoing: Ciphertext,
    inbound: MemoryTotal,
    /// Handshakes by outcome.
    pub counts: TlsCounts,
    /// The result of the last read.
    pub last: ReadReport,
}

/// The result of a read, besides its bytes.
#[derive(Debug, Default)]
pub struct ReadReport {
    /// The part for the connection.
    pub read: SessionRead,
    /// The session, if the read completed its handshake.
    pub secured: Option<TlsInfo>,
    /// The error that ended the session.
    pub error: Option<EngineError>,
}

/// A session and its unfinished bytes.
pub struct TlsStream {
    engine: Engine,
    stage: Stage,
    is_control: bool,
    /// Whether the last read filled its buffer, so that the stream may have more.
    may_have_more: bool,
    /// Whether the client ended its stream with `close_notify`.
    is_closed: bool,
    /// Whether the last write was not taken as a whole.
    was_full: bool,
    /// Whether input is ignored.
    is_deaf: bool,
    /// Received bytes that are not a whole record, or not a whole handshake message.
    unfinished: Vec<u8>,
    /// Plaintext for which the last read had no space.
    unread: Vec<u8>,
    /// Ciphertext that the stream did not take.
    unsent: Vec<u8>,
    /// The time since which the client owes the rest of the unfinished bytes.
    unfinished_since: Option<Tick>,
    /// The memory of unfinished and unread bytes.
    memory: MemoryShare,
}

/// The stage of a session. It moves down this list only.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// Before the PROXY header, which is not encrypted.
    Proxy,
    /// Before the first byte of the client.
    Hello,
    Handshake,
    Open,
    /// The PROXY header is invalid: the error is told without TLS.
    Plain,
    /// The handshake failed. Input is ignored, and output is dropped.
    Refused,
    /// The session failed after its handshake.
    Broken,
}

impl TlsShared {
    /// Creates the buffers for reads of at most `read_bytes` of plaintext.
    ///
    /// The memory of unfinished input is added to `inbound`.
    pub fn new(read_bytes: usize, inbound: MemoryTotal) -> TlsShared {
        TlsShared {
            incoming: vec![0; UNFINISHED_BYTES_MAX + read_bytes.max(RECORD_BYTES_MAX)],
            gathered: Vec::with_capacity(RECORD_PLAINTEXT),
            outgoing: Ciphertext::default(),
            inbound,
            counts: TlsCounts::default(),
            last: ReadReport::default(),
        }
    }

    /// Panics if records of one session are left for the next. For tests and debug builds.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        assert!(self.outgoing.as_slice().is_empty(), "each call sends its records, keeps them, or drops them");
    }
}

impl TlsStream {
    /// Creates the session of a connection that was just accepted.
    ///
    /// With `is_proxied`, a PROXY header comes before the handshake.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub fn new(
        config: &TlsConfig,
        is_control: bool,
        is_proxied: bool,
        shared: &TlsShared,
    ) -> Result<TlsStream, EngineError> {
        Ok(TlsStream {
            engine: Engine::new(config)?,
            stage: if is_proxied { Stage::Proxy } else { Stage::Hello },
            is_control,
            may_have_more: false,
            is_closed: false,
            was_full: false,
            is_deaf: false,
            unfinished: Vec::new(),
            unread: Vec::new(),
            unsent: Vec::new(),
            unfinished_since: None,
            memory: shared.inbound.share(),
        })
    }

    /// Reads once from the stream, and decrypts into `buffer`.
    ///
    /// [`Io::WouldBlock`]: no plaintext was received. [`TlsShared::last`] has the rest of the result.
    pub fn read(&mut self, stream: &mut impl Stream, shared: &mut TlsShared, buffer: &mut [u8]) -> Io {
        shared.last = ReadReport::default();
        if !self.unread.is_empty() {
            // The stream may still have more than the read before took.
            return Io::Done(self.take_unread(buffer));
        }
        self.may_have_more = false;
        match self.stage {
            Stage::Broken => return Io::Closed,
            _ if self.is_closed => return Io::Done(0),
            Stage::Plain => return self.read_plain(stream, buffer),
            _ => {}
        }
        let start = self.unfinished.len();
        if start > UNFINISHED_BYTES_MAX {
            if self.stage == Stage::Open {
                return self.fail_stream(0);
            }
            shared.counts.failed += u64::from(self.stage == Stage::Handshake);
            return self.refuse(stream, shared);
        }
        // The plaintext of all of it fits into the buffer, unless the buffer is shorter than a record.
        let end = shared.incoming.len().min(buffer.len().max(start + RECORD_BYTES_MAX));
        let room = &mut shared.incoming[start..end];
        let received = match stream.receive(room) {
            Io::Done(count @ 1..) => count,
            end => return end,
        };
        self.may_have_more = received == room.len();
        shared.last.read.has_received = true;
        if self.is_deaf || self.stage == Stage::Refused {
            return Io::WouldBlock;
        }
        let mut incoming = mem::take(&mut shared.incoming);
        incoming[..start].copy_from_slice(&self.unfinished);
        let read = self.handle_received(&mut incoming[..start + received], stream, shared, buffer);
        shared.incoming = incoming;
        self.memory.set(self.unfinished.capacity() + self.unread.capacity());
        read
    }

    fn handle_received(
        &mut self,
        mut input: &mut [u8],
        stream: &mut impl Stream,
        shared: &mut TlsShared,
        buffer: &mut [u8],
    ) -> Io {
        let mut filled = 0;
        if self.stage == Stage::Proxy {
            match parse_proxy_header(input, UNFINISHED_BYTES_MAX) {
                Ok(Some(header)) => {
                    // The connection parses the header once more, as it does without TLS.
                    let (header, rest) = mem::take(&mut input).split_at_mut(header.bytes);
                    self.unread.extend_from_slice(header);
                    filled = self.take_unread(buffer);
                    self.stage = Stage::Hello;
                    input = rest;
                }
                Ok(None) => {
                    self.keep_unfinished(input);
                    return Io::WouldBlock;
                }
                Err(_) => {
                    self.stage = Stage::Plain;
                    self.drop_unfinished();
                    self.unread.extend_from_slice(input);
                    return Io::Done(self.take_unread(buffer));
                }
            }
        }
        if self.stage == Stage::Hello
            && let Some(first) = input.first()
        {
            if *first != HANDSHAKE && first.is_ascii() && !first.is_ascii_control() {
                return self.refuse_plain_http(stream, shared);
            }
            self.stage = Stage::Handshake;
        }
        let had_answered = self.engine.has_answered();
        let TlsStream { engine, unread, .. } = self;
        let received = engine.receive(input, &mut shared.outgoing, |plaintext| {
            let fits = plaintext.len().min(buffer.len() - filled);
            buffer[filled..filled + fits].copy_from_slice(&plaintext[..fits]);
            unread.extend_from_slice(&plaintext[fits..]);
            filled += fits;
        });
        shared.last.read.has_answered = !had_answered && self.engine.has_answered();
        let sent = self.send_output(stream, shared);
        match received {
            Err(error) => return self.fail(error, filled, stream, shared),
            Ok(received) => {
                self.is_closed = received.is_closed;
                if received.used > 0 {
                    // The rest began in this read.
                    self.unfinished_since = None;
                }
                self.keep_unfinished(&input[received.used..]);
            }
        }
        if sent.is_none() {
            return self.fail_stream(filled);
        }
        if self.stage == Stage::Handshake && !self.engine.is_handshaking() {
            self.stage = Stage::Open;
            let count = if self.engine.is_resumed() { &mut shared.counts.resumed } else { &mut shared.counts.full };
            *count += 1;
            shared.last.secured = self.engine.info();
        }
        if filled > 0 { Io::Done(filled) } else { Io::WouldBlock }
    }

    /// Encrypts output and writes it once. `None`: the stream is broken.
    ///
    /// It takes nothing before earlier ciphertext is sent, so that it holds that of one write at most. Output before the
    /// handshake, such as the response to a timeout, is dropped.
    pub fn write(
        &mut self,
        stream: &mut impl Stream,
        shared: &mut TlsShared,
        slices: &[IoSlice<'_>],
    ) -> Option<Written> {
        let mut sent = 0;
        if !self.unsent.is_empty() {
            sent = self.send_unsent(stream)?;
            if !self.unsent.is_empty() {
                return Some(Written { bytes: 0, held: self.unsent.len(), is_full: true, has_sent: sent > 0 });
            }
        }
        let offered = slices.iter().map(|slice| slice.len()).sum();
        match self.stage {
            Stage::Proxy | Stage::Hello | Stage::Handshake | Stage::Refused => {
                return Some(Written::new(offered, false));
            }
            Stage::Plain => return write_plain(stream, slices),
            Stage::Broken => return None,
            Stage::Open => {}
        }
        let Some(bytes) = self.encrypt(shared, slices) else {
            // The next session must not send the records of this one.
            shared.outgoing.clear();
            return None;
        };
        sent += self.send_output(stream, shared)?;
        self.was_full = !self.unsent.is_empty();
        Some(Written { bytes, held: self.unsent.len(), is_full: self.was_full, has_sent: sent > 0 })
    }

    /// Ends the output: `close_notify`, then the end of the stream.
    pub fn shutdown(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) {
        self.close(stream, shared);
        if matches!(self.stage, Stage::Hello | Stage::Handshake) {
            // The server gave up: it answers no hello that is still waiting.
            self.count_abandoned(&mut shared.counts);
            self.stage = Stage::Refused;
            self.drop_unfinished();
        }
        stream.shutdown();
    }

    /// Sends `close_notify`, if the stream takes it.
    pub fn close(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) {
        if self.stage == Stage::Open
            && self.unsent.is_empty()
            && self.engine.close(&mut self.unfinished, &mut shared.outgoing).is_ok()
        {
            // It is the last record. Nothing is sent after it, so a part that the stream does not take is dropped.
            stream.send(shared.outgoing.as_slice());
        }
        shared.outgoing.clear();
    }

    /// Ignores all further input, and frees the memory of unfinished input.
    pub fn ignore_input(&mut self) {
        self.is_deaf = true;
        self.unread = Vec::new();
        if !holds_record(&self.unfinished) {
            // The library still refers to the whole records of an unfinished handshake message.
            self.drop_unfinished();
        }
        self.memory.set(self.unfinished.capacity());
    }

    /// Starts the time of unfinished bytes at `now`, unless it has started. `None`: stops it.
    pub fn set_reading(&mut self, now: Option<Tick>) {
        self.unfinished_since = match now {
            Some(now) if !self.unfinished.is_empty() => self.unfinished_since.or(Some(now)),
            _ => None,
        };
    }

    /// Returns the time since which the client owes the rest of the unfinished bytes.
    pub fn unfinished_since(&self) -> Option<Tick> {
        self.unfinished_since
    }

    /// Returns whether the next read may answer a client hello.
    pub fn awaits_hello(&self) -> bool {
        matches!(self.stage, Stage::Proxy | Stage::Hello | Stage::Handshake) && !self.engine.has_answered()
    }

    /// Returns whether a read may return more, without an event of the stream.
    pub fn may_have_more(&self) -> bool {
        self.may_have_more || self.is_closed || !self.unread.is_empty() || self.stage == Stage::Broken
    }

    /// Returns the memory of unfinished and unread input.
    pub fn inbound_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Returns the version and cipher suite after the handshake.
    pub fn info(&self) -> Option<TlsInfo> {
        if self.stage == Stage::Open { self.engine.info() } else { None }
    }

    /// Counts a handshake that was not completed, when the connection is removed.
    pub fn count_abandoned(&self, counts: &mut TlsCounts) {
        // A connection without a byte is not a handshake.
        counts.abandoned += u64::from(self.stage == Stage::Handshake);
    }

    fn refuse_plain_http(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) -> Io {
        shared.counts.plain_http += 1;
        shared.outgoing.push(if self.is_control { PLAIN_HTTP_CONTROL } else { PLAIN_HTTP });
        self.refuse(stream, shared)
    }

    /// Ends a session before it is open. The connection stays until the client ends it, or its deadline.
    ///
    /// Closing it at once would reset the stream if the client is still sending. The client might then not read the
    /// reason.
    fn refuse(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) -> Io {
        self.stage = Stage::Refused;
        self.drop_unfinished();
        if self.send_output(stream, shared).is_none() {
            return Io::Closed;
        }
        if self.unsent.is_empty() {
            stream.shutdown();
        }
        Io::WouldBlock
    }

    /// Handles an error of the client.
    fn fail(&mut self, error: EngineError, filled: usize, stream: &mut impl Stream, shared: &mut TlsShared) -> Io {
        shared.last.error = Some(error);
        if self.stage == Stage::Open {
            return self.fail_stream(filled);
        }
        shared.counts.failed += 1;
        self.refuse(stream, shared)
    }

    /// Ends an open session. Plaintext before the error is still returned.
    fn fail_stream(&mut self, filled: usize) -> Io {
        self.stage = Stage::Broken;
        self.drop_unfinished();
        if filled > 0 { Io::Done(filled) } else { Io::Closed }
    }

    fn drop_unfinished(&mut self) {
        self.unfinished = Vec::new();
        self.unfinished_since = None;
        self.memory.set(0);
    }

    fn read_plain(&mut self, stream: &mut impl Stream, buffer: &mut [u8]) -> Io {
        let read = stream.receive(buffer);
        self.may_have_more = read == Io::Done(buffer.len());
        read
    }

    fn take_unread(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.unread.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.unread[..count]);
        self.unread.drain(..count);
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        self.memory.set(self.unfinished.capacity() + self.unread.capacity());
        count
    }

    /// Keeps the rest of the input, and no more memory than twice its bytes.
    fn keep_unfinished(&mut self, rest: &[u8]) {
        self.unfinished.clear();
        self.unfinished.shrink_to(2 * rest.len());
        self.unfinished.extend_from_slice(rest);
    }

    /// Encrypts as much output as one write takes, and returns its bytes. `None`: the keys are used up.
    fn encrypt(&mut self, shared: &mut TlsShared, slices: &[IoSlice<'_>]) -> Option<usize> {
        let bytes_max = if self.was_full { FULL_WRITE_BYTES_MAX } else { WRITE_BYTES_MAX };
        let mut taken = 0;
        shared.gathered.clear();
        for slice in slices {
            let mut rest = &slice[..slice.len().min(bytes_max - taken)];
            taken += rest.len();
            if shared.gathered.is_empty() {
                // Full records, and the only slice, are encrypted in place.
                let whole = rest.len() - if slices.len() == 1 { 0 } else { rest.len() % RECORD_PLAINTEXT };
                self.encrypt_slice(&rest[..whole], &mut shared.outgoing)?;
                rest = &rest[whole..];
            }
            while !rest.is_empty() {
                let (fits, more) = rest.split_at(rest.len().min(RECORD_PLAINTEXT - shared.gathered.len()));
                shared.gathered.extend_from_slice(fits);
                rest = more;
                if shared.gathered.len() == RECORD_PLAINTEXT {
                    self.encrypt_slice(&shared.gathered, &mut shared.outgoing)?;
                    shared.gathered.clear();
                }
            }
            if taken == bytes_max {
                break;
            }
        }
        self.encrypt_slice(&shared.gathered, &mut shared.outgoing)?;
        Some(taken)
    }

    fn encrypt_slice(&mut self, plaintext: &[u8], outgoing: &mut Ciphertext) -> Option<()> {
        if plaintext.is_empty() {
            return Some(());
        }
        self.engine.encrypt(plaintext, &mut self.unfinished, outgoing).ok()
    }

    /// Sends records, and keeps those that the stream does not take. Returns the bytes sent. `None`: the stream is broken.
    fn send_output(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) -> Option<usize> {
        let records = shared.outgoing.as_slice();
        if records.is_empty() {
            return Some(0);
        }
        let was_empty = self.unsent.is_empty();
        let sent = if was_empty {
            let sent = match stream.send(records) {
                Io::Done(count) => Some(count),
                Io::WouldBlock => Some(0),
                Io::Closed => None,
            };
            self.unsent.extend_from_slice(records.get(sent.unwrap_or(0)..).unwrap_or_default());
            sent
        } else {
            self.unsent.extend_from_slice(records);
            self.send_unsent(stream)
        };
        shared.outgoing.clear();
        let read = &mut shared.last.read;
        read.has_sent |= sent.is_some_and(|sent| sent > 0);
        if !was_empty || !self.unsent.is_empty() {
            read.held = Some(self.unsent.len());
        }
        sent
    }

    /// Sends held ciphertext once. Returns the bytes sent. `None`: the stream is broken.
    fn send_unsent(&mut self, stream: &mut impl Stream) -> Option<usize> {
        match stream.send(&self.unsent) {
            Io::Done(count) => {
                self.unsent.drain(..count);
                // A stalled connection keeps at most twice the bytes that count as queued.
                let kept = if self.unsent.is_empty() { 0 } else { 2 * self.unsent.len() };
                self.unsent.shrink_to(kept);
                Some(count)
            }
            Io::WouldBlock => Some(0),
            Io::Closed => None,
        }
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("stage", &self.stage).field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Returns whether `input` starts with a whole record.
fn holds_record(input: &[u8]) -> bool {
    match input {
        [_, _, _, high, low, rest @ ..] => rest.len() >= usize::from(u16::from_be_bytes([*high, *low])),
        _ => false,
    }
}

fn write_plain(stream: &mut impl Stream, slices: &[IoSlice<'_>]) -> Option<Written> {
    let mut bytes = 0;
    for slice in slices {
        let sent = match stream.send(slice) {
            Io::Done(count) => count,
            Io::WouldBlock => 0,
            Io::Closed => return None,
        };
        bytes += sent;
        if sent < slice.len() {
            return Some(Written::new(bytes, true));
        }
    }
    Some(Written::new(bytes, false))
}
