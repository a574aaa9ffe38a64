//! A TLS session on a stream: the transport of connections of a TLS listener.
//!
//! A session stores its state and unfinished bytes: a part of a record, plaintext for which a read had no space, and
//! ciphertext that the stream did not accept. All other buffers are in [`TlsShared`], which all sessions share.

mod output;

use std::fmt;
use std::mem;

use crate::connection::table::{Io, SessionRead};
use crate::protocol::memory::{MemoryShare, MemoryTotal};
use crate::protocol::proxy::parse_proxy_header;
use crate::tick::Tick;
use crate::tls::{Ciphertext, Engine, EngineError, RECORD_BYTES_MAX, TlsConfig, TlsCounts, TlsInfo};

/// The maximum length of the plaintext of a record, in bytes.
const RECORD_PLAINTEXT: usize = 1 << 14;

/// The maximum length of the unfinished input of a session, in bytes. The longest unfinished input is a handshake
/// message in many records.
///
/// A client can split a handshake message into records of one byte, and rustls needs all these records at the same
/// time.
const UNFINISHED_BYTES_MAX: usize = 128 << 10;

/// The first byte of a TLS connection: the type of a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 47\r\n\
    Connection: close\r\n\r\nthis port speaks TLS: use wss:// and https://\r\n";

const PLAIN_HTTP_CONTROL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\
    Cache-Control: no-store\r\nContent-Length: 79\r\nConnection: close\r\n\r\n\
    {\"error\":{\"code\":\"bad_request\",\"message\":\"this port speaks TLS: use https://\"}}";

/// The alert that is sent to a client whose connection is refused because of a limit: fatal, `internal_error` (RFC 8446
/// section 6).
pub const REFUSED: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

/// The stream of a session: a socket, or a model of a socket.
pub trait Stream {
    /// Reads once. A result of 0 bytes means the end of the stream.
    fn receive(&mut self, buffer: &mut [u8]) -> Io;

    /// Writes once.
    fn send(&mut self, bytes: &[u8]) -> Io;

    /// Ends the output stream, as `shutdown(SHUT_WR)` does.
    fn shutdown(&mut self);
}

/// The state that all TLS sessions of a table share.
#[derive(Debug)]
pub struct TlsShared {
    /// The unfinished input of the session that is read now, followed by newly received records.
    incoming: Vec<u8>,
    /// Small pieces of output, which are encrypted as one record.
    gathered: Vec<u8>,
    /// The records that the current call sends.
    outgoing: Ciphertext,
    inbound: MemoryTotal,
    /// The number of handshakes for each outcome.
    pub counts: TlsCounts,
    /// The report of the last read.
    pub last: ReadReport,
}

/// The result of a read from a TLS session, without the plaintext.
#[derive(Debug, Default)]
pub struct ReadReport {
    /// The part of the result that the connection uses.
    pub read: SessionRead,
    /// The version and cipher suite, if the read completed the handshake.
    pub secured: Option<TlsInfo>,
    /// The error that ended the session.
    pub error: Option<EngineError>,
}

/// A TLS session and its unfinished bytes.
pub struct TlsStream {
    engine: Engine,
    stage: Stage,
    is_control: bool,
    /// Whether the last read filled its buffer. The stream may then have more bytes.
    may_have_more: bool,
    /// Whether the client ended its stream with `close_notify`.
    is_closed: bool,
    /// Whether the stream did not accept the last write as a whole.
    was_full: bool,
    /// Whether the session ignores further input.
    ignores_input: bool,
    /// Whether the output has ended, so that no more records are sent, and also no alert.
    is_shut: bool,
    /// The received bytes of an incomplete record or handshake message.
    unfinished: Vec<u8>,
    /// Plaintext for which the last read had no space.
    unread: Vec<u8>,
    /// Ciphertext that the stream did not accept.
    unsent: Vec<u8>,
    /// The time since which the server waits for the bytes that complete `unfinished`.
    unfinished_since: Option<Tick>,
    /// The memory of unfinished and unread bytes.
    memory: MemoryShare,
}

/// The stage of a TLS session. A session never returns to an earlier stage of this list.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// The PROXY header was not received yet. This header is not encrypted.
    Proxy,
    /// No byte of the client hello was received yet.
    Hello,
    Handshake,
    Open,
    /// The PROXY header is invalid. The error response is sent without TLS.
    Plain,
    /// The handshake failed. Input is ignored, and output is dropped.
    Refused,
    /// The session failed after its handshake.
    Broken,
}

impl TlsShared {
    /// Creates the buffers for reads of at most `read_bytes` of plaintext.
    ///
    /// `inbound` counts the memory of unfinished input of all sessions.
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

    /// Panics if records of one session are left for the next session. This check is for tests.
    #[cfg(any(test, feature = "unstable"))]
    pub fn check_invariants(&self) {
        assert!(self.outgoing.as_slice().is_empty(), "each call must send, store or drop its records");
    }
}

impl TlsStream {
    /// Creates the session of a connection that was just accepted.
    ///
    /// With `is_proxied`, a PROXY header comes before the handshake.
    ///
    /// # Errors
    ///
    /// Returns an error if rustls refuses the TLS settings.
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
            ignores_input: false,
            is_shut: false,
            unfinished: Vec::new(),
            unread: Vec::new(),
            unsent: Vec::new(),
            unfinished_since: None,
            memory: shared.inbound.share(),
        })
    }

    /// Reads once from the stream, and decrypts into `buffer`.
    ///
    /// [`Io::WouldBlock`] means that no plaintext was received. [`TlsShared::last`] has the other results of the read.
    pub fn read(&mut self, stream: &mut impl Stream, shared: &mut TlsShared, buffer: &mut [u8]) -> Io {
        shared.last = ReadReport::default();
        if !self.unread.is_empty() {
            // This call returns stored plaintext and does not read the stream. The stream may have received bytes since
            // the previous read.
            self.may_have_more = true;
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
        // The length of the read is limited, so that its plaintext fits into the buffer, unless the buffer is shorter
        // than a record.
        let end = shared.incoming.len().min(buffer.len().max(start + RECORD_BYTES_MAX));
        let room = &mut shared.incoming[start..end];
        let received = match stream.receive(room) {
            Io::Done(count @ 1..) => count,
            end => return end,
        };
        self.may_have_more = received == room.len();
        shared.last.read.has_received = true;
        if self.ignores_input || self.stage == Stage::Refused {
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
                    // The header is returned as plaintext: the connection parses it, as on a listener without TLS.
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
                    // The unfinished record began in this read, so its time limit starts now.
                    self.unfinished_since = None;
                }
                // Bytes after `close_notify` are ignored (RFC 8446 section 6.1).
                self.keep_unfinished(if self.is_closed { &[] } else { &input[received.used..] });
            }
        }
        if sent.is_none() {
            self.count_abandoned(&mut shared.counts);
            return self.fail_stream(filled);
        }
        if self.stage == Stage::Handshake && !self.engine.is_handshaking() {
            self.open(shared);
        }
        if filled > 0 { Io::Done(filled) } else { Io::WouldBlock }
    }

    /// Completes the handshake.
    fn open(&mut self, shared: &mut TlsShared) {
        self.stage = Stage::Open;
        *if self.engine.is_resumed() { &mut shared.counts.resumed } else { &mut shared.counts.full } += 1;
        shared.last.secured = self.engine.info();
    }

    /// Ignores all further input, and frees the memory of unfinished input.
    pub fn ignore_input(&mut self) {
        self.ignores_input = true;
        self.unread = Vec::new();
        if !holds_record(&self.unfinished) {
            // Whole records of an unfinished handshake message must stay, because rustls refers to them.
            self.drop_unfinished();
        }
        self.memory.set(self.unfinished.capacity());
    }

    /// Starts the time limit of the unfinished bytes at `now`, unless the time limit runs already. `None` stops the
    /// time limit.
    pub fn set_reading(&mut self, now: Option<Tick>) {
        self.unfinished_since = match now {
            Some(now) if !self.unfinished.is_empty() => self.unfinished_since.or(Some(now)),
            _ => None,
        };
    }

    /// Returns the time since which the server waits for the rest of the unfinished record.
    pub fn unfinished_since(&self) -> Option<Tick> {
        self.unfinished_since
    }

    /// Returns whether the next read may answer a client hello.
    pub fn awaits_hello(&self) -> bool {
        matches!(self.stage, Stage::Proxy | Stage::Hello | Stage::Handshake) && !self.engine.has_answered()
    }

    /// Returns whether another read may return more plaintext, without an epoll event.
    pub fn may_have_more(&self) -> bool {
        self.may_have_more || self.is_closed || !self.unread.is_empty() || self.stage == Stage::Broken
    }

    /// Returns the memory of unfinished and unread input.
    pub fn inbound_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Returns the TLS version and the cipher suite, or `None` before the end of the handshake.
    pub fn info(&self) -> Option<TlsInfo> {
        if self.stage == Stage::Open { self.engine.info() } else { None }
    }

    /// Counts a handshake that was never completed.
    pub fn count_abandoned(&self, counts: &mut TlsCounts) {
        // If no byte was received, no handshake has begun.
        counts.abandoned += u64::from(self.stage == Stage::Handshake);
    }

    fn refuse_plain_http(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) -> Io {
        shared.counts.plain_http += 1;
        shared.outgoing.push(if self.is_control { PLAIN_HTTP_CONTROL } else { PLAIN_HTTP });
        self.refuse(stream, shared)
    }

    /// Ends a session before its handshake is complete.
    ///
    /// The connection stays until the client ends it, or until its deadline. If the connection were closed while the
    /// client is still sending, the stream would be reset, and the client might not read the reason.
    fn refuse(&mut self, stream: &mut impl Stream, shared: &mut TlsShared) -> Io {
        self.stage = Stage::Refused;
        self.drop_unfinished();
        if self.send_output(stream, shared).is_none() {
            return Io::Closed;
        }
        if self.unsent.is_empty() && !self.is_shut {
            self.is_shut = true;
            stream.shutdown();
        }
        Io::WouldBlock
    }

    /// Ends a session after an error that the client caused.
    fn fail(&mut self, error: EngineError, filled: usize, stream: &mut impl Stream, shared: &mut TlsShared) -> Io {
        shared.last.error = Some(error);
        if self.stage == Stage::Open {
            return self.fail_stream(filled);
        }
        shared.counts.failed += 1;
        self.refuse(stream, shared)
    }

    /// Ends an open session. The `filled` bytes of plaintext before the error are still returned.
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

    /// Stores unfinished input in a buffer of at most twice its length.
    fn keep_unfinished(&mut self, rest: &[u8]) {
        self.unfinished.clear();
        self.unfinished.shrink_to(2 * rest.len());
        self.unfinished.extend_from_slice(rest);
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
