//! One connection as a state machine: bytes and ticks in, events and output out.
//!
//! `handle_*` takes what happened, bare verbs say what a handler wants, `poll_*` says what to do next. It never sees a
//! socket or a clock, so a simulator can drive it as well as the loop does.
//!
//! It begins as HTTP. A request for a WebSocket that is accepted makes it open; from then on it is open, closing,
//! lingering or finished, in that order. [`Event::Closed`] comes exactly once for each connection that was open: in the
//! moment it stops being so. What is left to do then, flushing and waiting for the client's part of the close handshake,
//! is nobody else's business.

mod closed;
mod counts;
mod deadlines;
mod env;
mod event;
mod eviction;
mod exchange;
#[cfg(any(test, feature = "unstable"))]
mod fuzz;
mod heartbeat;
mod http;
mod journal;
mod outbound;
mod output;
mod queue;
mod segment;
mod table;
#[cfg(test)]
mod tests;

use std::io::IoSlice;

pub use crate::connection::closed::{AbortOutcome, By, Cause, CloseOutcome, Closed};
pub use crate::connection::env::Env;
pub use crate::connection::event::{Event, Refusal, Sent, SocketAction, State, Traffic};
pub use crate::connection::eviction::{Eviction, Evictor, Holder};
#[cfg(any(test, feature = "unstable"))]
pub use crate::connection::fuzz::{fuzz_connection, fuzz_upgrade};
pub use crate::connection::http::Deferred;
pub use crate::connection::outbound::Outbound;
#[cfg(any(test, feature = "unstable"))]
pub use crate::connection::queue::QUEUE_BYTES;
#[cfg(any(test, feature = "unstable"))]
pub use crate::connection::segment::{KEY_BYTES, Queued, SEGMENT_BYTES};
#[cfg(any(test, feature = "unstable"))]
pub use crate::connection::table::Observed;
pub use crate::connection::table::{FlushResult, Io, SlotSet, Table, Transport};

use crate::connection::heartbeat::HeartbeatState;
use crate::connection::http::{Awaited, Http};
use crate::connection::output::Output;
use crate::connection::queue::Queue;
use crate::fd::Fd;
use crate::limits::Heartbeat;
use crate::peer::Peer;
use crate::protocol::assembler::{self, Assembler, AssemblerError, Item};
use crate::protocol::close::{CLOSE_REASON_BYTES_MAX, CloseCode};
use crate::protocol::close_payload::parse_close;
use crate::protocol::error::ProtocolError;
use crate::protocol::frame::{CONTROL_BYTES_MAX, Opcode};
use crate::protocol::message::Message;
use crate::tick::Tick;

/// HTTP responses may pile up to this before the next pipelined request is read.
const HTTP_OUTPUT_MAX: usize = 64 << 10;

/// A connection, from its first byte to its last. One is kept for each, so every byte of it counts.
#[derive(Debug)]
pub struct Connection {
    stage: Stage,
    /// What waits to be written. Only while something does.
    output: Output,
    /// This connection's own heartbeat, where it is not the server's.
    heartbeat: Option<Box<Heartbeat>>,
    /// When the stage itself has something to do: a heartbeat's check while open, else the end of our patience.
    deadline: Tick,
    last_seen: Tick,
    opened: Opened,
    traffic: Traffic,
    peer: Peer,
    heartbeat_state: HeartbeatState,
    /// The client has said its last: its close frame, or the end of its stream.
    is_peer_done: bool,
    /// The handler wants nothing read for now.
    is_paused: bool,
    /// Whether it came through a control listener.
    is_control: bool,
    /// Whether the table has listed it for its next flush. It is kept here because it takes no memory here.
    is_listed: bool,
}

const _: () = assert!(size_of::<Connection>() <= 120, "every idle connection pays for this");

/// When a connection opened, in units of 16 ms: in 4 bytes, for two years.
#[derive(Copy, Clone, Debug)]
struct Opened(u32);

const OPENED_UNIT: u64 = 16;

impl Opened {
    fn at(now: Tick) -> Opened {
        Opened(u32::try_from(now.0 / OPENED_UNIT).unwrap_or(u32::MAX))
    }
}

/// Where a connection is in its life. It only ever goes down this list.
#[derive(Debug)]
enum Stage {
    Http(Box<Http>),
    /// An open WebSocket, with the start of a message that is not all there.
    Open(Option<Box<Assembler>>),
    /// Our close frame is on its way, and the client's is waited for.
    Closing(Option<Box<Assembler>>),
    /// Nothing that comes matters. What is queued is flushed, then the client is let go.
    Lingering {
        /// Whether the transport was shut down for writing.
        is_shut: bool,
    },
    /// To be dropped at once.
    Finished,
}

impl Connection {
    /// A connection that was just accepted.
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

    /// A connection that was just accepted from a trusted proxy, which names its client in a PROXY header.
    pub fn new_proxied(peer: Peer, env: &Env) -> Connection {
        let http = Http::new_proxied(&env.inbound);
        Connection { stage: Stage::Http(Box::new(http)), ..Connection::new(peer, env) }
    }

    /// A connection of a control listener: it speaks HTTP, and never anything else.
    pub fn new_control(peer: Peer, env: &Env) -> Connection {
        Connection { is_control: true, ..Connection::new(peer, env) }
    }

    /// Whether it came through a control listener.
    pub fn is_control(&self) -> bool {
        self.is_control
    }

    /// Whether it is no WebSocket, so that what it has to write is answers to requests.
    pub fn is_http(&self) -> bool {
        self.is_control || matches!(self.stage, Stage::Http(_))
    }

    /// Whether the next step is the client's: no handler has yet to answer it.
    pub fn waits_for_client(&self) -> bool {
        !matches!(&self.stage, Stage::Http(http) if http.awaits() == Awaited::Response)
    }

    /// Whether an upgrade waits for an answer from elsewhere. It is of no use to a client that has ended its stream.
    pub fn is_deferred_upgrade(&self) -> bool {
        matches!(&self.stage, Stage::Http(http) if http.is_deferred_upgrade())
    }

    // What happened.

    /// Takes note that `count` bytes came, before they are handed to [`handle_message`](Connection::handle_message) and
    /// [`handle_bytes`](Connection::handle_bytes).
    #[inline]
    pub fn handle_received(&mut self, count: usize, env: &mut Env) {
        self.traffic.bytes_in += count as u64;
        env.counts.traffic.bytes_in += count as u64;
        self.last_seen = env.now;
        self.heartbeat_state.handle_bytes();
    }

    /// Takes the message at the front of `input` where it lies there whole, as nearly all do: it is lent, without an event
    /// made of it. `None`: nothing was read, and [`handle_bytes`](Connection::handle_bytes) says what is there.
    ///
    /// # Errors
    /// The end of the connection, whose client has broken a rule.
    #[inline]
    pub fn handle_message<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        env: &mut Env,
    ) -> Result<Option<Message<'a>>, Box<Event<'static>>> {
        let Stage::Open(None) = self.stage else { return Ok(None) };
        match assembler::take_message(input, env.limits.message_bytes_max as u64) {
            Ok(Some(message)) => {
                self.count_message(env);
                Ok(Some(message))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(Box::new(self.fail(error, env))),
        }
    }

    /// Reads on in `input`, which is moved past what was read, up to the next event. `None`: `input` is used up or
    /// kept. The events of HTTP are to be answered before the next call.
    pub fn handle_bytes<'a>(&mut self, input: &mut &'a mut [u8], env: &mut Env) -> Option<Event<'a>> {
        match &mut self.stage {
            Stage::Open(unfinished) => {
                let max = env.limits.message_bytes_max as u64;
                match Assembler::next(unfinished, input, max, env.now, &mut env.assemblers) {
                    Ok(item) => self.handle_item(item?, env),
                    Err(AssemblerError::Protocol(error)) => Some(self.fail(error, env)),
                    Err(AssemblerError::OutOfMemory) => Some(self.fail_overload("out of memory", env)),
                }
            }
            Stage::Http(_) => self.handle_http(input, env),
            Stage::Closing(_) => self.handle_bytes_closing(input, env),
            Stage::Lingering { .. } | Stage::Finished => {
                *input = &mut [];
                None
            }
        }
    }

    /// The client's stream has ended; `is_reset` when it can no longer be written to either.
    pub fn handle_end(&mut self, is_reset: bool) -> Option<Event<'static>> {
        self.is_peer_done = true;
        match &self.stage {
            Stage::Open(_) => return Some(self.end_abnormally(By::Client, Cause::ConnectionLost)),
            // A client that shut down its side after its last request still wants the response, be it late.
            Stage::Http(http) if !is_reset && http.is_deferred_plain() => {}
            Stage::Http(http) if !is_reset && !self.output.is_empty() && !http.is_answering() => {
                self.stage = Stage::Lingering { is_shut: false };
            }
            Stage::Lingering { .. } if !is_reset => {}
            _ => self.stage = Stage::Finished,
        }
        None
    }

    /// Takes note that the socket took `written` bytes; `is_full` when it was offered more.
    pub fn handle_written(&mut self, written: usize, is_full: bool, env: &mut Env) {
        if written > 0 {
            self.heartbeat_state.handle_written();
        }
        self.traffic.bytes_out += written as u64;
        env.counts.traffic.bytes_out += written as u64;
        self.output.handle_written(written, is_full, env);
        if matches!(self.stage, Stage::Closing(_)) && self.output.is_empty() {
            self.deadline = self.deadline.min(env.now.after(env.limits.close_wait_max));
        }
    }

    /// The socket has room again. Says whether there is something to write.
    pub fn handle_writable(&mut self) -> bool {
        self.output.as_queue().map(Queue::handle_writable).is_some()
    }

    // What a handler wants.

    /// Queues a message.
    #[inline]
    pub fn send(&mut self, outbound: &mut Outbound<'_>, env: &mut Env) -> Sent {
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

    /// Puts a message in the place of the unsent one with its key. `false`: there is none.
    pub fn conflate(&mut self, outbound: &mut Outbound<'_>, env: &mut Env) -> bool {
        let Env { limits, queued, .. } = env;
        self.is_open() && self.output.as_queue().is_some_and(|output| output.conflate(outbound, limits, queued))
    }

    /// Queues a ping, whose payload has at most 125 bytes (RFC 6455 section 5.5).
    pub fn ping(&mut self, payload: &[u8], env: &mut Env) -> Sent {
        debug_assert!(payload.len() <= CONTROL_BYTES_MAX);
        let mut outbound = Outbound::message(Opcode::Ping, payload);
        match self.check_bounds(&outbound, env) {
            Sent::Queued if !self.output.push(&mut outbound, env) => Sent::Full,
            sent => sent,
        }
    }

    /// Starts the close handshake. The event that follows is the connection's end; `None` when it was not open.
    pub fn close(&mut self, code: CloseCode, reason: &str, cause: Cause, env: &mut Env) -> Option<Event<'static>> {
        debug_assert!(code.is_sendable() && reason.len() <= CLOSE_REASON_BYTES_MAX);
        let Stage::Open(unfinished) = &mut self.stage else { return None };
        self.stage = Stage::Closing(unfinished.take());
        // The client's time begins when it has our close frame, which may lie behind much else.
        self.deadline = Tick::NEVER;
        self.push_close(code, reason, env);
        Some(Event::Closed(Closed::by_server(code, reason, cause)))
    }

    /// Ends it without a word, and without what is queued.
    pub fn abort(&mut self, env: &mut Env) -> Option<Event<'static>> {
        let event = self.is_open().then(|| self.end_abnormally(By::Server, Cause::ServerClosed));
        self.release(env);
        self.stage = Stage::Finished;
        event
    }

    /// Whether it is over: its socket is to be dropped, and nothing more can be done to it.
    pub fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finished)
    }

    /// Gives this connection a heartbeat of its own from now on, or the server's again.
    pub fn set_heartbeat(&mut self, fd: Fd, heartbeat: Option<Heartbeat>, env: &Env) {
        self.heartbeat_state = HeartbeatState::default();
        self.heartbeat = heartbeat.map(Box::new);
        if self.is_open() {
            self.deadline = HeartbeatState::first_check(self.heartbeat(env), fd, env.now);
        }
    }

    /// Stops reading from a WebSocket, or the body of a request that comes in pieces; or goes on. What the client sends waits
    /// in the kernel, and TCP slows it down. `false`: it is neither.
    pub fn set_paused(&mut self, is_paused: bool) -> bool {
        let may = match &self.stage {
            Stage::Open(_) => true,
            Stage::Http(http) => self.is_paused || http.awaits() == Awaited::Piece,
            Stage::Closing(_) | Stage::Lingering { .. } | Stage::Finished => false,
        };
        if may {
            self.is_paused = is_paused;
        }
        may
    }

    // What to do next.

    /// Whether bytes should be read from the socket.
    #[inline]
    pub fn wants_read(&self) -> bool {
        match &self.stage {
            Stage::Open(_) => !self.is_paused,
            Stage::Http(http) => !self.is_paused && http.wants_read() && self.queued_bytes() <= HTTP_OUTPUT_MAX,
            Stage::Closing(_) | Stage::Lingering { .. } => true,
            Stage::Finished => false,
        }
    }

    /// Whether there is something to write, and a socket that is not known to be full.
    #[inline]
    pub fn can_write(&self) -> bool {
        match &self.output {
            Output::Empty => false,
            Output::Journaled(_) => true,
            Output::Queued(queue) => !queue.is_full() && queue.bytes() > 0,
        }
    }

    /// What is to be written, where it lies in one place: the common case, for which a list of 64 slices is too much.
    #[inline]
    pub fn poll_slice<'a>(&'a self, env: &'a Env) -> Option<&'a [u8]> {
        self.output.poll_slice(&env.journal)
    }

    /// Fills `slices` with what is to be written, and returns how many it filled: none while the socket is full.
    pub fn poll_slices<'a>(&'a self, env: &'a Env, slices: &mut [IoSlice<'a>]) -> usize {
        self.output.poll_slices(&env.journal, slices)
    }

    /// What to do with the socket, now that all was written that could be.
    pub fn poll_next(&mut self, env: &Env) -> SocketAction {
        match self.stage {
            Stage::Finished => SocketAction::Drop,
            Stage::Lingering { .. } if !self.output.is_empty() => SocketAction::Stay,
            Stage::Lingering { .. } if self.is_peer_done => SocketAction::Drop,
            Stage::Lingering { is_shut: false } => {
                self.stage = Stage::Lingering { is_shut: true };
                self.deadline = self.deadline.min(env.now.after(env.limits.close_wait_max));
                SocketAction::Shut
            }
            _ => SocketAction::Stay,
        }
    }

    // What it is.

    /// Whether it is a WebSocket that can be pushed to.
    #[inline]
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Its state, seen from outside.
    pub fn state(&self) -> State {
        match self.stage {
            Stage::Http(_) => State::Http,
            Stage::Open(_) => State::Open,
            Stage::Closing(_) | Stage::Lingering { .. } | Stage::Finished => State::Closing,
        }
    }

    /// Bytes that wait to be written.
    #[inline]
    pub fn queued_bytes(&self) -> usize {
        self.output.bytes()
    }

    /// Bytes that those take up, with the keys of messages that can be replaced.
    #[inline]
    pub fn counted_bytes(&self) -> usize {
        self.output.counted_bytes()
    }

    /// Of these, bytes that are in no queue yet: they came this turn, and the socket has not been offered them.
    #[inline]
    pub fn journal_bytes(&self) -> usize {
        self.output.journal_bytes()
    }

    /// Bytes of them that [`move_to_queue`](Connection::move_to_queue) copies.
    pub fn copied_bytes(&self, env: &Env) -> usize {
        self.output.copied_bytes(&env.journal)
    }

    /// Moves them from the journal to a queue.
    pub fn move_to_queue(&mut self, env: &mut Env) {
        if self.journal_bytes() > 0 {
            self.output.queue(env);
        }
    }

    /// Whether frames wait that no full socket has refused yet.
    #[inline]
    pub fn is_untried(&self) -> bool {
        self.output.is_untried()
    }

    /// Whether something waits because the socket was full.
    #[cfg(any(test, feature = "unstable"))]
    pub fn is_backlogged(&self) -> bool {
        self.output.is_backlogged()
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What it has carried.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// When it was accepted; once it is a WebSocket, when it became one.
    pub fn opened(&self) -> Tick {
        Tick(u64::from(self.opened.0) * OPENED_UNIT)
    }

    /// When the client's last byte came.
    pub fn last_seen(&self) -> Tick {
        self.last_seen
    }

    /// Panics where its parts do not fit together.
    pub fn check_invariants(&self) {
        if let Output::Queued(output) = &self.output {
            output.check_invariants();
            assert!(!output.is_empty(), "an empty queue was kept");
        }
    }

    /// Gives back what it holds, before it is dropped.
    pub fn release(&mut self, env: &mut Env) {
        self.output.clear(env);
    }

    /// Whether a frame can be queued.
    #[inline]
    fn check_bounds(&self, outbound: &Outbound<'_>, env: &Env) -> Sent {
        if !self.is_open() {
            return Sent::NotOpen;
        }
        if outbound.bytes() > env.limits.queue_bytes_max {
            return Sent::TooLarge;
        }
        let held = self.counted_bytes();
        // A connection without a queue has room until the socket has refused it. Memory that all queues share is made free
        // by those that hold the most.
        let is_over = held + outbound.bytes() + outbound.overhead() > env.limits.queue_bytes_max;
        if held > 0 && is_over { Sent::Full } else { Sent::Queued }
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

    /// The client's close frame: answered with its own code (RFC 6455 section 5.5.1), and the connection is over.
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

    /// After our own close frame only the client's is of interest, and no message is delivered any more.
    fn handle_bytes_closing(&mut self, input: &mut &mut [u8], env: &mut Env) -> Option<Event<'static>> {
        let Stage::Closing(unfinished) = &mut self.stage else { return None };
        let max = env.limits.message_bytes_max as u64;
        loop {
            match Assembler::next(unfinished, input, max, env.now, &mut env.assemblers) {
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

    /// Fails the connection (RFC 6455 section 7.1.7): the client is told why, and nothing more is read from it.
    fn fail(&mut self, error: ProtocolError, env: &mut Env) -> Event<'static> {
        let (code, reason) = (error.close_code(), error.as_str());
        self.push_close(code, reason, env);
        self.linger();
        Event::Closed(Closed::by_server(code, reason, Cause::ProtocolError(error)))
    }

    fn end_with(&mut self, code: CloseCode, reason: &str, cause: Cause, env: &mut Env) -> Option<Event<'static>> {
        let event = self.close(code, reason, cause, env);
        if event.is_none() {
            self.stage = Stage::Finished;
        }
        event
    }

    /// Ends an open connection without a word.
    fn end_abnormally(&mut self, by: By, cause: Cause) -> Event<'static> {
        self.stage = Stage::Finished;
        Event::Closed(Closed::abnormal(by, cause))
    }

    /// What is queued goes out, however long that takes while it makes progress; the client's time begins with its end.
    fn linger(&mut self) {
        self.stage = Stage::Lingering { is_shut: false };
        self.deadline = Tick::NEVER;
    }

    fn push_close(&mut self, code: CloseCode, reason: &str, env: &mut Env) {
        if code == CloseCode::NO_STATUS {
            return self.push_control(Opcode::Close, b"", env);
        }
        let payload = [&code.as_u16().to_be_bytes(), reason.as_bytes()].concat();
        self.push_control(Opcode::Close, &payload, env);
    }

    fn push_control(&mut self, opcode: Opcode, payload: &[u8], env: &mut Env) {
        self.output.push(&mut Outbound::message(opcode, payload), env);
    }

    fn heartbeat<'a>(&'a self, env: &'a Env) -> &'a Heartbeat {
        self.heartbeat.as_deref().unwrap_or(&env.heartbeat)
    }
}
