//! One connection as a state machine without I/O.
//!
//! The methods take input and the time as arguments, and return events and output. A connection uses neither a socket
//! nor a clock. So the server, the simulator and the fuzzer run the same code.

mod actions;
mod closed;
mod compression;
mod counts;
mod deadlines;
mod deflate;
mod env;
mod event;
mod eviction;
mod exchange;
#[cfg(all(feature = "tls", any(test, feature = "unstable")))]
mod fuzz;
mod heartbeat;
mod http;
mod inflation_pace;
mod journal;
mod outbound;
mod output;
mod pending_request;
mod queries;
mod queue;
mod segment;
mod table;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;
mod written;

pub use crate::connection::closed::{AbortOutcome, By, Cause, CloseOutcome, Closed};
pub use crate::connection::compression::Compression;
pub use crate::connection::env::Env;
pub use crate::connection::event::{Event, Refusal, Sent, SocketAction, State, Traffic};
pub use crate::connection::eviction::{Eviction, Evictor, Holder};
#[cfg(all(feature = "tls", any(test, feature = "unstable")))]
pub use crate::connection::fuzz::{fuzz_connection, fuzz_tls, fuzz_upgrade};
pub use crate::connection::outbound::{KeptMessage, Outbound};
pub use crate::connection::pending_request::Deferred;
#[cfg(any(test, feature = "unstable"))]
pub use crate::connection::queue::QUEUE_BYTES;
#[cfg(any(test, feature = "unstable"))]
pub use crate::connection::segment::{KEY_BYTES, Queued, SEGMENT_BYTES};
#[cfg(any(test, feature = "unstable"))]
pub use crate::connection::table::Observed;
pub use crate::connection::table::{FlushResult, Io, JournalResult, Position, SessionRead, SlotSet, Table, Transport};
#[cfg(feature = "tls")]
pub use crate::connection::tls::{REFUSED, ReadReport, Stream, TlsShared, TlsStream};
pub use crate::connection::written::Written;

use crate::connection::heartbeat::HeartbeatState;
use crate::connection::http::{Awaited, Http};
use crate::connection::inflation_pace::InflationPace;
use crate::connection::output::Output;
use crate::connection::pending_request::ResponseMode;
use crate::fd::Fd;
use crate::limits::Heartbeat;
use crate::peer::Peer;
use crate::protocol::assembler::{self, Assembler, Item};
use crate::protocol::close::CloseCode;
use crate::protocol::close_payload::{close_payload, parse_close};
use crate::protocol::decoder::{DeflatedMessages, MessageRules};
use crate::protocol::error::ProtocolError;
use crate::protocol::frame::{CONTROL_BYTES_MAX, Opcode};
use crate::protocol::message::Message;
use crate::tick::Tick;

/// The connection reads the next pipelined HTTP request only if it has at most this number of unwritten output bytes.
const HTTP_OUTPUT_MAX: usize = 64 << 10;

/// A connection, from its acceptance to its end.
///
/// The interface follows quinn-proto: with a `handle_*` method, the caller reports an event, verbs such as
/// [`send`](Connection::send) are commands of a handler, and a `poll_*` method returns the next action of the caller.
/// The connection does no I/O. The [`Table`] does the I/O, and is the only caller in the server. The order of calls is:
///
/// 1. **Input.** [`handle_received`](Connection::handle_received) counts the bytes of one read. Then
///    [`handle_message`](Connection::handle_message) and [`handle_bytes`](Connection::handle_bytes) are called until
///    neither returns a message or an event. The caller answers an HTTP event before the next call: [`Event::Request`]
///    with [`respond`](Connection::respond), [`Event::Head`] with [`receive_body`](Connection::receive_body),
///    [`Event::Piece`] with [`return_state`](Connection::return_state), [`Event::Upgrade`] with
///    [`accept`](Connection::accept) or `respond`. A request and an upgrade may also be deferred with
///    [`defer`](Connection::defer). The end of the stream is reported with [`handle_end`](Connection::handle_end).
/// 2. **Output.** While [`can_write`](Connection::can_write), the caller writes the bytes of
///    [`poll_slice`](Connection::poll_slice) or [`poll_slices`](Connection::poll_slices), and reports the result with
///    [`handle_written`](Connection::handle_written). Output may be in the journal of the turn, so all output is
///    written or moved to a queue before [`Env::end_turn`].
/// 3. **Socket.** After the output is written, [`poll_next`](Connection::poll_next) returns what the caller must do
///    with the socket.
/// 4. **Time.** [`handle_tick`](Connection::handle_tick) is called no later than
///    [`poll_timeout`](Connection::poll_timeout). Every call may change the timeout, so the caller calls `poll_timeout`
///    again after all other calls.
/// 5. **End.** Before the connection is dropped, [`release`](Connection::release) subtracts its memory from the totals
///    of all connections.
///
/// A connection starts with HTTP. An accepted upgrade opens a WebSocket. After the end of the WebSocket, the connection
/// is closing, lingering or finished, and never returns to an earlier stage. [`Event::Closed`] is returned exactly once
/// for each WebSocket, by the call that ends it. After this event, the connection returns no more events, although the
/// output is still flushed and the close handshake goes on.
///
/// An idle WebSocket has no memory besides this type, so the type is kept small.
#[derive(Debug)]
pub struct Connection {
    stage: Stage,
    /// The output that is not written to the socket yet.
    output: Output,
    /// The heartbeat of this connection, if it differs from the server's.
    heartbeat: Option<Box<Heartbeat>>,
    /// The deadline of the current stage: the time of the next heartbeat check, or of a timeout.
    deadline: Tick,
    last_seen: Tick,
    opened: Opened,
    traffic: Traffic,
    peer: Peer,
    heartbeat_state: HeartbeatState,
    /// Whether the client sent its close frame or ended its stream.
    is_peer_done: bool,
    /// Whether the handler paused reading.
    is_paused: bool,
    /// Whether a control listener accepted the connection.
    is_control: bool,
    /// Whether the connection is in the table's list for the next flush.
    ///
    /// The flag is stored here because it fits into padding.
    is_listed: bool,
}

const _: () = assert!(size_of::<Connection>() <= 120, "a connection must take at most 120 bytes");

/// The time at which a connection opened, in units of 16 ms.
///
/// The type takes 4 bytes. The value reaches its maximum about two years after the server started.
#[derive(Copy, Clone, Debug)]
struct Opened(u32);

const OPENED_UNIT: u64 = 16;

impl Opened {
    fn at(now: Tick) -> Opened {
        Opened(u32::try_from(now.0 / OPENED_UNIT).unwrap_or(u32::MAX))
    }
}

/// The stage of a connection. A connection never returns to an earlier stage of this list.
#[derive(Debug)]
enum Stage {
    Http(Box<Http>),
    /// An open WebSocket.
    Open {
        /// The received part of an incomplete message, and input that is held back because of `pace`.
        unfinished: Option<Box<Assembler>>,
        /// Whether permessage-deflate was negotiated.
        deflates: bool,
        /// The base-2 logarithm of the size of the client's inflation window.
        window_bits: u8,
        /// The pace at which the client's messages are inflated.
        pace: InflationPace,
    },
    /// The server's close frame is queued or sent.
    ///
    /// The connection waits for the client's close frame.
    Closing {
        /// The received part of an incomplete message.
        unfinished: Option<Box<Assembler>>,
        /// Whether permessage-deflate was negotiated.
        deflates: bool,
    },
    /// Input is ignored. After the output is flushed, the connection waits until the client ends its stream.
    Lingering {
        /// Whether the transport was shut down for writing.
        is_shut: bool,
    },
    /// The connection is dropped at the end of the turn.
    Finished {
        /// Whether the connection ended inside a response that has neither a `Content-Length` nor chunks.
        is_cut: bool,
    },
}

impl Connection {
    /// Creates a connection that was just accepted.
    pub fn new(peer: Peer, env: &Env) -> Connection {
        let http = Http::new(&env.inbound);
        Connection {
            deadline: http.deadline(env),
            stage: Stage::Http(Box::new(http)),
            output: Output::Empty,
            heartbeat: None,
            last_seen: env.now,
            opened: Opened::at(env.now),
            traffic: Traffic::default(),
            peer,
            heartbeat_state: HeartbeatState::default(),
            is_peer_done: false,
            is_listed: false,
            is_paused: false,
            is_control: false,
        }
    }

    /// Creates a connection that was just accepted from a trusted proxy.
    ///
    /// The proxy first sends a PROXY header with the address of the client.
    pub fn new_proxied(peer: Peer, env: &Env) -> Connection {
        let http = Http::new_proxied(&env.inbound);
        Connection { stage: Stage::Http(Box::new(http)), ..Connection::new(peer, env) }
    }

    /// Creates a connection of a control listener, which speaks only HTTP.
    pub fn new_control(peer: Peer, env: &Env) -> Connection {
        Connection { is_control: true, ..Connection::new(peer, env) }
    }

    /// Returns whether a control listener accepted the connection.
    pub fn is_control(&self) -> bool {
        self.is_control
    }

    /// Returns whether the connection speaks HTTP. Its output then consists of responses.
    pub fn is_http(&self) -> bool {
        self.is_control || matches!(self.stage, Stage::Http(_))
    }

    /// Returns whether the connection waits for the client, and not for a handler.
    pub fn waits_for_client(&self) -> bool {
        !matches!(&self.stage, Stage::Http(http) if http.awaits() == Awaited::Response)
    }

    /// Returns whether the answer to an upgrade is deferred.
    ///
    /// If the client ends its stream while the answer to its upgrade is deferred, the caller ends the connection,
    /// because this client cannot use a WebSocket.
    pub fn is_deferred_upgrade(&self) -> bool {
        matches!(&self.stage, Stage::Http(http) if http.is_deferred_upgrade())
    }

    // Methods that report an event.

    /// Counts received bytes.
    ///
    /// The caller then passes the bytes to [`handle_message`](Connection::handle_message) and
    /// [`handle_bytes`](Connection::handle_bytes).
    #[inline]
    pub fn handle_received(&mut self, count: usize, env: &mut Env) {
        self.traffic.bytes_in += count as u64;
        env.counts.traffic.bytes_in += count as u64;
        self.handle_alive(env);
    }

    /// Reports that bytes of the client arrived. The bytes may be part of an incomplete TLS record.
    #[inline]
    pub fn handle_alive(&mut self, env: &Env) {
        self.last_seen = env.now;
        self.heartbeat_state.handle_bytes();
    }

    /// Takes a whole message from the front of `input`.
    ///
    /// Nearly all messages are whole. A whole message is borrowed from `input`, and is returned without an [`Event`].
    /// Returns `None` if no message was taken. In this case, `input` is unchanged, and the caller passes it to
    /// [`handle_bytes`](Connection::handle_bytes).
    ///
    /// # Errors
    ///
    /// Returns the event that the connection has ended, if the client broke a rule of RFC 6455.
    #[inline]
    pub fn handle_message<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        env: &mut Env,
    ) -> Result<Option<Message<'a>>, Box<Event<'static>>> {
        let Stage::Open { unfinished: None, .. } = self.stage else { return Ok(None) };
        match assembler::take_message(input, env.limits.message_bytes_max as u64) {
            Ok(Some(message)) => {
                self.count_message(env);
                Ok(Some(message))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(Box::new(self.fail(error, env))),
        }
    }

    /// Reads `input` up to the next event, and removes the bytes of that event from `input`.
    ///
    /// Returns `None` if all of `input` was processed or buffered. The caller answers an HTTP event before the next
    /// call.
    pub fn handle_bytes<'a>(&mut self, input: &mut &'a mut [u8], env: &mut Env) -> Option<Event<'a>> {
        match &mut self.stage {
            Stage::Open { unfinished, deflates: false, .. } => {
                let rules = MessageRules::plain(env.limits.message_bytes_max as u64);
                match Assembler::next(unfinished, input, rules, env.now, &mut env.assemblers) {
                    Ok(item) => self.handle_item(item?, env),
                    Err(error) => Some(self.fail_assembly(error, env)),
                }
            }
            Stage::Open { .. } => self.handle_bytes_deflated(input, env),
            Stage::Http(_) => self.handle_http(input, env),
            Stage::Closing { .. } => self.handle_bytes_closing(input, env),
            Stage::Lingering { .. } | Stage::Finished { .. } => {
                *input = &mut [];
                None
            }
        }
    }

    /// Reports the end of the client's stream.
    ///
    /// `is_reset` means that the client also receives no more data.
    pub fn handle_end(&mut self, is_reset: bool) -> Option<Event<'static>> {
        self.is_peer_done = true;
        match &self.stage {
            Stage::Open { .. } => return Some(self.end_abnormally(By::Client, Cause::ConnectionLost)),
            // A client that shut down its writing side after its last request still expects the response.
            Stage::Http(http) if !is_reset && http.is_deferred_plain() => {}
            Stage::Http(http) if !is_reset && !self.output.is_empty() && !http.is_answering() => {
                self.stage = Stage::Lingering { is_shut: false };
            }
            Stage::Lingering { .. } if !is_reset => {}
            _ => self.finish(),
        }
        None
    }

    /// Reports the result of a write to the socket.
    #[inline]
    pub fn handle_written(&mut self, written: Written, env: &mut Env) {
        if written.has_sent {
            self.heartbeat_state.handle_written();
        }
        self.traffic.bytes_out += written.bytes as u64;
        env.counts.traffic.bytes_out += written.bytes as u64;
        self.output.handle_written(written, env);
        self.start_close_wait(env);
    }

    /// Sets the deadline for the client's close frame, if the server's close frame is written.
    #[inline]
    fn start_close_wait(&mut self, env: &Env) {
        if matches!(self.stage, Stage::Closing { .. }) && self.output.is_empty() {
            self.deadline = self.deadline.min(env.now.after(env.limits.close_wait_max));
        }
    }

    // Methods for the commands of a handler.

    /// Queues a message.
    #[inline]
    pub fn send(&mut self, outbound: &mut Outbound<'_>, env: &mut Env) -> Sent {
        match self.stage {
            Stage::Open { deflates: true, .. } => self.send_deflated(outbound, env),
            _ => self.send_encoded(outbound, env),
        }
    }

    // This function is always inlined, for the reason given at `Output::push`.
    #[inline(always)]
    fn send_encoded(&mut self, outbound: &mut Outbound<'_>, env: &mut Env) -> Sent {
        let sent = self.check_bounds(outbound, env);
        if sent != Sent::Queued {
            return sent;
        }
        if !self.output.push(outbound, env) {
            return Sent::Full;
        }
        self.traffic.messages_out += 1;
        env.counts.traffic.messages_out += 1;
        Sent::Queued
    }

    /// Queues a ping with at most 125 bytes (RFC 6455 section 5.5).
    pub fn ping(&mut self, payload: &[u8], env: &mut Env) -> Sent {
        debug_assert!(payload.len() <= CONTROL_BYTES_MAX);
        let mut frame = Outbound::message(Opcode::Ping, payload);
        match self.check_bounds(&frame, env) {
            Sent::Queued if !self.output.push_control(&mut frame, env) => Sent::Full,
            sent => sent,
        }
    }

    /// Starts the close handshake, and returns [`Event::Closed`].
    ///
    /// Returns `None` if the WebSocket was not open.
    pub fn close(&mut self, code: CloseCode, reason: &str, cause: Cause, env: &mut Env) -> Option<Event<'static>> {
        let payload = close_payload(code, reason);
        let mut frame = Outbound::message(Opcode::Close, &payload);
        self.close_with(&mut frame, &Closed::by_server(code, reason, cause), env)
    }

    /// Starts the close handshake, and returns [`Event::Closed`].
    ///
    /// `frame` is the close frame. The caller may send the same frame to other connections, too.
    ///
    /// Returns `None` if the WebSocket was not open.
    pub fn close_with(&mut self, frame: &mut Outbound<'_>, closed: &Closed, env: &mut Env) -> Option<Event<'static>> {
        debug_assert!(closed.code.is_sendable() && closed.reason.len() <= CloseCode::REASON_BYTES_MAX);
        let Stage::Open { unfinished, deflates, .. } = &mut self.stage else { return None };
        let mut held = unfinished.as_mut().and_then(|unfinished| unfinished.take_held()).unwrap_or_default();
        self.stage = Stage::Closing { unfinished: unfinished.take(), deflates: *deflates };
        // The deadline for the client's answer is set later, when the close frame is written, because other output may
        // precede the close frame.
        self.deadline = Tick::NEVER;
        self.output.push_control(frame, env);
        if !held.is_empty() {
            self.handle_bytes_closing(&mut &mut held[..], env);
        }
        Some(Event::Closed(closed.clone()))
    }

    /// Ends the connection without a close frame, and drops its output.
    pub fn abort(&mut self, env: &mut Env) -> Option<Event<'static>> {
        let event = self.is_open().then(|| self.end_abnormally(By::Server, Cause::ServerClosed));
        self.finish();
        self.release(env);
        event
    }

    /// Returns whether the connection has ended, so that its socket can be dropped.
    pub fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finished { .. })
    }

    /// Sets the heartbeat of this connection. With `None`, the connection uses the heartbeat of the server.
    pub fn set_heartbeat(&mut self, fd: Fd, heartbeat: Option<Heartbeat>, env: &Env) {
        self.heartbeat_state = HeartbeatState::default();
        self.heartbeat = heartbeat.map(Box::new);
        if self.is_open() {
            self.deadline = HeartbeatState::first_check(self.heartbeat(env), fd, env.now);
        }
    }

    /// Pauses or resumes reading of a WebSocket or a streamed request body.
    ///
    /// The input of a paused connection waits in the kernel, and TCP slows the client down. When reading resumes, an
    /// unfinished message gets a new deadline. Returns `false` if the connection is not a WebSocket and receives no
    /// streamed body.
    pub fn set_paused(&mut self, is_paused: bool, env: &Env) -> bool {
        let may = match &mut self.stage {
            Stage::Open { unfinished, .. } => {
                if let Some(unfinished) = unfinished.as_mut().filter(|_| self.is_paused && !is_paused) {
                    unfinished.restart(env.now);
                }
                true
            }
            Stage::Http(http) => self.is_paused || http.awaits() == Awaited::Piece,
            Stage::Closing { .. } | Stage::Lingering { .. } | Stage::Finished { .. } => false,
        };
        if may {
            self.is_paused = is_paused;
        }
        may
    }

    /// Returns `Queued` if the frame may be queued, and else the reason why it may not.
    #[inline(always)]
    fn check_bounds(&self, outbound: &Outbound<'_>, env: &Env) -> Sent {
        if !self.is_open() {
            return Sent::NotOpen;
        }
        if outbound.bytes() > env.limits.queue_bytes_max {
            return Sent::TooLarge;
        }
        let held = self.counted_bytes();
        // If no output waits, any frame of at most `queue_bytes_max` bytes is accepted, even if the frame and its
        // overhead together exceed `queue_bytes_max`. The bound on all queues together is not checked here: evictions
        // enforce it.
        let is_over = || held + outbound.bytes() + outbound.overhead() > env.limits.queue_bytes_max;
        if held > 0 && is_over() { Sent::Full } else { Sent::Queued }
    }

    fn handle_item<'a>(&mut self, item: Item<'a>, env: &mut Env) -> Option<Event<'a>> {
        Some(match item {
            Item::Text(text) => {
                self.count_message(env);
                Event::Text(text)
            }
            Item::Binary(bytes) => {
                self.count_message(env);
                Event::Binary(bytes)
            }
            Item::Ping(payload) => {
                self.output.push_pong(&payload, env);
                Event::Ping(payload)
            }
            Item::Pong(payload) => Event::Pong(payload),
            Item::Close(payload) => self.handle_close(&payload, env),
        })
    }

    fn count_message(&mut self, env: &mut Env) {
        self.traffic.messages_in += 1;
        env.counts.traffic.messages_in += 1;
    }

    /// Answers a close frame with the same code (RFC 6455 section 5.5.1).
    fn handle_close(&mut self, payload: &[u8], env: &mut Env) -> Event<'static> {
        let (code, reason) = match parse_close(payload) {
            Ok(close) => close,
            Err(error) => return self.fail(error, env),
        };
        let closed = Closed { code, reason: reason.into(), by: By::Client, cause: Cause::ClientClosed };
        self.push_close(code, "", env);
        self.is_peer_done = true;
        self.linger();
        Event::Closed(closed)
    }

    /// Reads input after the server's close frame, and skips all frames except the client's close frame.
    fn handle_bytes_closing(&mut self, input: &mut &mut [u8], env: &mut Env) -> Option<Event<'static>> {
        let Stage::Closing { unfinished, deflates } = &mut self.stage else { return None };
        let deflated = if *deflates { DeflatedMessages::Skipped } else { DeflatedMessages::Refused };
        let rules = MessageRules { bytes_max: env.limits.message_bytes_max as u64, deflated };
        loop {
            match Assembler::next(unfinished, input, rules, env.now, &mut env.assemblers) {
                Ok(None) => return None,
                Ok(Some(Item::Close(_))) => {
                    self.is_peer_done = true;
                    break;
                }
                Ok(Some(_)) => {}
                Err(_) => break,
            }
        }
        self.stage = Stage::Lingering { is_shut: false };
        None
    }

    /// Fails the connection (RFC 6455 section 7.1.7).
    ///
    /// The close frame contains the code and the text of the error. No more input of the client is read.
    fn fail(&mut self, error: ProtocolError, env: &mut Env) -> Event<'static> {
        let (code, reason) = (error.close_code(), error.as_str());
        self.push_close(code, reason, env);
        self.linger();
        Event::Closed(Closed::by_server(code, reason, Cause::ProtocolError(error)))
    }

    fn end_with(&mut self, code: CloseCode, reason: &str, cause: Cause, env: &mut Env) -> Option<Event<'static>> {
        let event = self.close(code, reason, cause, env);
        if event.is_none() {
            self.finish();
        }
        event
    }

    /// Ends the connection. Unwritten output is dropped.
    fn finish(&mut self) {
        let is_cut = match &self.stage {
            Stage::Http(http) => http.reply() == ResponseMode::UntilClose,
            Stage::Lingering { .. } => self.output.has_response(),
            Stage::Finished { is_cut } => *is_cut,
            // A WebSocket client detects by itself that the stream ended inside a frame, so the socket need not be
            // reset.
            Stage::Open { .. } | Stage::Closing { .. } => false,
        };
        self.stage = Stage::Finished { is_cut };
    }

    /// Ends an open WebSocket without a close frame.
    fn end_abnormally(&mut self, by: By, cause: Cause) -> Event<'static> {
        self.finish();
        Event::Closed(Closed::abnormal(by, cause))
    }

    /// Begins to flush the output. After the flush, the connection waits until the client ends its stream.
    ///
    /// While the socket accepts output, the flush has no time limit. The deadline for the end of the client's stream is
    /// set after the flush.
    fn linger(&mut self) {
        self.stage = Stage::Lingering { is_shut: false };
        self.deadline = Tick::NEVER;
    }

    fn push_close(&mut self, code: CloseCode, reason: &str, env: &mut Env) {
        self.push_control(Opcode::Close, &close_payload(code, reason), env);
    }

    fn push_control(&mut self, opcode: Opcode, payload: &[u8], env: &mut Env) {
        self.output.push_control(&mut Outbound::message(opcode, payload), env);
    }

    fn heartbeat<'a>(&'a self, env: &'a Env) -> &'a Heartbeat {
        self.heartbeat.as_deref().unwrap_or(&env.heartbeat)
    }
}
