//! The fuzz target `connection`: performs random operations on a table of two connections.
//!
//! The events and the output of each connection are compared with a model of its client ([`reader`]). The target calls
//! the table as the loop does: it reads only if [`Connection::wants_read`], flushes before a turn ends, and removes
//! ended connections. All other operations may happen in any order. In half of the runs both connections are TLS
//! sessions.

mod draw;
mod http;
mod pipe;
mod reader;
mod records;
mod requests;
mod secure;
mod session;
mod socket;
#[cfg(test)]
mod tests;
mod turn;
mod upgrade;

use crate::connection::fuzz::draw::{client_frame, heartbeat, next, request, size};
use crate::connection::fuzz::reader::{Due, Reader};
use crate::connection::fuzz::secure::{READ_BYTES, RECORD_OVERHEAD, Secure};
use crate::connection::fuzz::socket::{Change, Log, Socket};
use crate::connection::{
    Closed, Compression, Connection, Deferred, Env, Event, Outbound, QUEUE_BYTES, Queued, Sent, State, Table, TlsShared,
};
use crate::fd::{Fd, Slot};
use crate::limits::{Limits, SlowReader};
use crate::peer::Peer;
use crate::protocol::close::CloseCode;
use crate::protocol::deflate::Deflater;
use crate::protocol::frame::{CONTROL_BYTES_MAX, Opcode};
use crate::protocol::origin::Origins;

pub use session::fuzz_tls;
pub use upgrade::fuzz_upgrade;

#[cfg(test)]
pub(super) use pipe::Pipe;

/// The maximum number of operations of one run. This limit bounds the time of the run.
const OPERATIONS_MAX: usize = 1000;

/// Two connections and the state that they share.
struct Rig {
    table: Table<Socket>,
    log: Log,
    /// Whether the transports are TLS sessions.
    is_tls: bool,
    sides: [Side; 2],
    /// The frame that is being pushed, and the expected result of the first attempt to queue it.
    pushing: Option<(Due, Option<Sent>)>,
    /// The number of messages pushed so far, which makes consecutive messages differ.
    messages: usize,
}

/// One connection and the model of its client.
struct Side {
    fd: Fd,
    phase: Phase,
    /// The bytes that the client has sent and the server has not read.
    pipe: Vec<u8>,
    reader: Reader,
    /// A number that selects the reaction of the handler to events.
    manner: u8,
    /// Whether the last request was a HEAD request, and the minor HTTP version of the last request.
    asked: (bool, u8),
    messages_in: u64,
    messages_out: u64,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Phase {
    Http,
    Open,
    /// The WebSocket has ended, and the target has received its `Event::Closed`.
    Ended,
}

/// Runs the operations that `data` encodes.
///
/// Panics if a result differs from the model.
#[doc(hidden)]
pub fn fuzz_connection(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut rig = Rig::new(&mut bytes);
    for _ in 0..OPERATIONS_MAX {
        let Some(operation) = bytes.next() else { break };
        rig.step(operation, &mut bytes);
        rig.check();
    }
    rig.end();
}

impl Rig {
    fn new(bytes: &mut impl Iterator<Item = u8>) -> Rig {
        let (bounds, manner) = (next(bytes), next(bytes));
        let queue_bytes_max = [200, 2000, 40_000, 400_000][usize::from(bounds % 4)];
        let limits = Limits {
            head_bytes_max: 512,
            body_bytes_max: 100,
            message_bytes_max: [100, 3000, 70_000][usize::from(bounds / 4 % 3)],
            queue_bytes_max,
            queue_total_bytes_max: queue_bytes_max * [1, 2, 1000][usize::from(bounds / 12 % 3)],
            slow_reader: [SlowReader::Close, SlowReader::DropNewest, SlowReader::Conflate]
                [usize::from(bounds / 36 % 3)],
            compression: bounds >= 108,
            compress_bytes_min: 100,
            inflated_bytes_per_second_max: 100_000,
            ..Limits::default()
        };
        let env = Env::new(limits, heartbeat(manner), Origins::Any);
        let shared = TlsShared::new(READ_BYTES, env.inbound.clone());
        let (mut table, log, is_tls) = (Table::new(2, env, shared), Log::default(), bounds >= 128);
        let sides = [0, 1].map(|at| Side::new(insert(&mut table, at, &log, is_tls)));
        Rig { table, log, is_tls, sides, pushing: None, messages: 0 }
    }

    /// Performs one operation. The highest bit of `operation` selects the connection.
    fn step(&mut self, operation: u8, bytes: &mut impl Iterator<Item = u8>) {
        let at = usize::from(operation >> 7);
        let argument = next(bytes);
        let side = &mut self.sides[at];
        match operation % 20 {
            0 | 1 => side.pipe.extend(client_frame(argument, next(bytes), side.reader.deflates)),
            2 => side.pipe.extend(bytes.take(usize::from(argument % 64))),
            3 => side.pipe.extend(request(argument).as_bytes()),
            4 | 5 => self.read(at, size(argument)),
            6 => self.push(&[at], argument, next(bytes)),
            7 => self.push(&[at, 1 - at], argument, next(bytes)),
            8 => self.ping(at, usize::from(argument)),
            // Operations that end a connection are chosen rarely, so that connections stay open longer.
            9 if argument < 32 => self.close(at, u16::from(argument)),
            10 if argument < 32 => match argument % 4 {
                0 => self.close_slow(at, usize::MAX),
                1 => self.abort(at),
                2 => self.drain(at),
                _ => {
                    let fd = side.fd;
                    self.change(at, |connection, env| {
                        connection.set_heartbeat(fd, Some(heartbeat(argument / 4)), env);
                    });
                    self.replay();
                }
            },
            9 | 10 => self.push(&[at], argument, argument),
            11 => self.pause(at, argument & 1 == 0),
            12 => {
                let room = if argument == u8::MAX { usize::MAX } else { size(argument) };
                let slot = side.fd.slot();
                self.table.transport_mut(slot).expect("the connection has a socket").set_room(room);
                self.table.handle_writable(slot);
            }
            13 => self.write(at),
            14 | 15 => self.pass_time(Some(u64::from(argument % 16) << (argument / 16))),
            16 => self.pass_time(None),
            17 if argument < 32 => self.end_stream(at, argument),
            17 => self.push(&[1 - at, at], argument, argument),
            18 => self.answer(at, argument),
            _ => side.manner = argument,
        }
    }

    // Operations of the clients.

    /// Reads from a socket, if the connection wants to read.
    ///
    /// Buffered HTTP input is processed first.
    fn read(&mut self, at: usize, count: usize) {
        let connection = self.connection(at);
        if connection.state() == State::Http || connection.has_buffered_input(self.table.env()) {
            self.feed(at, Vec::new());
        }
        if self.is_tls {
            return self.read_session(at, count);
        }
        if self.connection(at).wants_read() && !self.sides[at].pipe.is_empty() {
            let pipe = &mut self.sides[at].pipe;
            let bytes: Vec<u8> = pipe.drain(..count.clamp(1, pipe.len())).collect();
            self.change(at, |connection, env| connection.handle_received(bytes.len(), env));
            self.feed(at, bytes);
        }
    }

    fn feed(&mut self, at: usize, mut bytes: Vec<u8>) {
        let events_max = 3 * bytes.len() + 8192;
        let mut input = &mut bytes[..];
        for _ in 0..events_max {
            let slot = self.slot(at);
            let event = match self.table.handle_message(slot, &mut input) {
                Ok(Some(message)) => Some(message.into()),
                Ok(None) => self.table.handle_bytes(slot, &mut input),
                Err(end) => Some(*end),
            };
            let Some(event) = event else {
                // A connection that has ended may leave input unread.
                let is_over = self.connection(at).state() == State::Closing;
                assert!(is_over || input.is_empty(), "a connection must consume all input unless it has ended");
                self.table.end_input(slot);
                return self.replay();
            };
            self.handle_event(at, event);
        }
        panic!("a connection returned too many events for its input");
    }

    fn end_stream(&mut self, at: usize, argument: u8) {
        let side = &mut self.sides[at];
        let is_reset = argument & 1 == 1;
        if self.is_tls && !is_reset {
            return self.end_session(at, argument & 2 == 0);
        }
        let is_at_end =
            side.pipe.is_empty() && self.table.connection(side.fd.slot()).is_some_and(Connection::wants_read);
        if !is_reset && !is_at_end {
            return;
        }
        if is_reset {
            side.pipe.clear();
            side.reader.is_lost = true;
            self.change(at, |connection, env| connection.release(env));
        }
        let event = self.change(at, |connection, _| connection.handle_end(is_reset));
        self.handle_end(at, event);
    }

    // Reactions of the handler to events.

    fn handle_event(&mut self, at: usize, event: Event<'_>) {
        let side = &mut self.sides[at];
        let is_http = matches!(
            event,
            Event::Head(_) | Event::Piece { .. } | Event::Refused(_) | Event::Request { .. } | Event::Upgrade(_)
        );
        assert_eq!(
            side.phase,
            if is_http { Phase::Http } else { Phase::Open },
            "a connection in this phase must not return the event {event:?}"
        );
        let manner = side.manner;
        if let Event::Head(request) | Event::Request { request, .. } | Event::Upgrade(request) = &event {
            side.asked = (request.method() == "HEAD", request.version());
            if manner & 8 != 0 {
                self.stream(at, manner / 16);
            }
        }
        let side = &mut self.sides[at];
        match event {
            Event::Head(request) => self.receive_body(at, request, manner),
            Event::Piece { bytes, is_last, state } => {
                assert!(is_last || !bytes.is_empty(), "only the last piece may be empty");
                self.stream(at, manner / 16);
                if !is_last {
                    self.change(at, |connection, _| connection.return_state(state));
                    self.replay();
                }
            }
            // The handler sends nothing here: it has begun a response in pieces, and a later operation ends that
            // response.
            Event::Request { .. } if side.reader.is_streaming_last() && manner & 4 == 0 => {}
            Event::Request { .. } if manner % 8 == 7 => self.defer(at, Deferred::Plain),
            Event::Request { .. } => self.respond(at, manner),
            Event::Upgrade(request) if manner % 8 == 7 => self.defer(at, Deferred::Upgrade(request)),
            Event::Upgrade(request) => self.answer_upgrade(at, &request, manner),
            Event::Text(_) | Event::Binary(_) => {
                side.messages_in += 1;
                self.react(at, manner);
            }
            Event::Ping(payload) => side.reader.pings.push_back(payload.into_owned()),
            Event::Pong(_) | Event::Refused(_) => {}
            Event::Closed(closed) => self.handle_closed(at, &closed),
        }
    }

    fn handle_end(&mut self, at: usize, event: Option<Event<'_>>) {
        match event {
            None | Some(Event::Refused(_)) => {}
            Some(Event::Closed(closed)) => self.handle_closed(at, &closed),
            Some(event) => panic!("a connection that got no input must not return {event:?}"),
        }
        self.replay();
    }

    fn handle_closed(&mut self, at: usize, closed: &Closed) {
        let side = &mut self.sides[at];
        assert_eq!(side.phase, Phase::Open, "only an open WebSocket may return Event::Closed: {closed}");
        side.phase = Phase::Ended;
        side.reader.expect_close(closed);
    }

    /// Performs the reaction of a handler to a message.
    fn react(&mut self, at: usize, manner: u8) {
        match manner % 8 {
            2 => self.push(&[at], manner, manner),
            3 => self.push(&[at, 1 - at], manner, manner),
            4 => self.close(at, 0),
            5 => self.pause(at, true),
            6 => self.abort(at),
            _ => {}
        }
    }

    fn pause(&mut self, at: usize, is_paused: bool) {
        let slot = self.slot(at);
        self.table.set_paused(slot, is_paused);
        self.replay();
    }

    fn defer(&mut self, at: usize, deferred: Deferred) {
        self.change(at, |connection, _| connection.defer(deferred));
        self.replay();
    }

    /// Pushes one message to the connections in `to`.
    fn push(&mut self, to: &[usize], argument: u8, kind: u8) {
        self.messages += 1;
        let payload: Vec<u8> = (0..size(argument)).map(|index| b'a' + ((index + self.messages) % 26) as u8).collect();
        let conflates = self.table.env().limits.slow_reader == SlowReader::Conflate;
        let key = if conflates { ["a", "b"].get(usize::from(kind / 2 % 4)).copied() } else { None };
        let opcode = if kind & 1 == 0 { Opcode::Text } else { Opcode::Binary };
        let mut outbound = Outbound::message(opcode, &payload);
        outbound.to_many = to.len() > 1 || kind & 64 != 0;
        outbound.key = key;
        let due = Due::Frame { first: 0x80 | opcode as u8, payload: payload.clone(), key };
        for &at in to {
            self.push_one(at, &mut outbound, &due);
        }
    }

    fn push_one(&mut self, at: usize, outbound: &mut Outbound<'_>, due: &Due) {
        let (connection, limits) = (self.connection(at), &self.table.env().limits);
        let (before, bytes) = (connection.queued_bytes(), outbound.bytes());
        let counted = match connection.accepts_deflated(outbound) {
            false => bytes + outbound.overhead(),
            true => {
                let (mut deflater, mut counts) = (Deflater::default(), Compression::default());
                let deflated = outbound.deflated(&mut deflater, &mut counts, limits);
                deflated.bytes() + deflated.overhead()
            }
        };
        let is_over = before > 0 && connection.counted_bytes() + counted > limits.queue_bytes_max;
        let expected = match self.sides[at].phase {
            Phase::Http | Phase::Ended => Sent::NotOpen,
            Phase::Open if bytes > limits.queue_bytes_max => Sent::TooLarge,
            Phase::Open if is_over => Sent::Full,
            Phase::Open => Sent::Queued,
        };
        self.pushing = Some((due.clone(), Some(expected)));
        let slot = self.slot(at);
        self.table.push(slot, outbound);
        self.replay();
    }

    fn ping(&mut self, at: usize, bytes: usize) {
        let payload = vec![b'p'; bytes.min(125)];
        self.pushing = Some((Due::Frame { first: 0x89, payload: payload.clone(), key: None }, None));
        let slot = self.slot(at);
        self.table.ping(slot, &payload);
        self.replay();
    }

    fn close(&mut self, at: usize, choice: u16) {
        let (code, reason) =
            if choice == 0 { (CloseCode::NORMAL, "") } else { (CloseCode::from(3000 + choice), "why") };
        let cause = crate::connection::Cause::ServerClosed;
        let event = self.change(at, |connection, env| connection.close(code, reason, cause, env));
        assert!(
            event.is_some() == (self.sides[at].phase == Phase::Open),
            "close must return an event if and only if the connection was open"
        );
        self.handle_end(at, event);
    }

    fn close_slow(&mut self, at: usize, kept_max: usize) {
        let event = self.change(at, |connection, env| connection.close_slow(kept_max, env));
        let closed = event.map(|event| match event {
            Event::Closed(closed) => closed,
            event => panic!("a closed slow consumer must return Event::Closed, not {event:?}"),
        });
        self.handle_slow(at, closed);
        self.replay();
    }

    fn handle_slow(&mut self, at: usize, closed: Option<Closed>) {
        let reader = &mut self.sides[at].reader;
        match closed {
            Some(closed) => {
                reader.truncate();
                reader.is_lost |= closed.code == CloseCode::ABNORMAL;
                self.handle_closed(at, &closed);
            }
            None => reader.is_lost = true,
        }
    }

    fn abort(&mut self, at: usize) {
        self.sides[at].reader.is_lost = true;
        let event = self.change(at, Connection::abort);
        self.handle_end(at, event);
    }

    fn drain(&mut self, at: usize) {
        let event = self.change(at, Connection::drain);
        self.handle_end(at, event);
    }

    // Operations of the loop.

    fn slot(&self, at: usize) -> Slot {
        self.sides[at].fd.slot()
    }

    fn connection(&self, at: usize) -> &Connection {
        self.table.connection(self.slot(at)).expect("each side has a connection")
    }

    /// Applies a change to a connection, such as a close.
    ///
    /// The table may then write output or drop messages. The sockets log these changes for [`replay`](Rig::replay).
    fn change<R>(&mut self, at: usize, transition: impl FnOnce(&mut Connection, &mut Env) -> R) -> R {
        let slot = self.slot(at);
        self.table.step(slot, transition).expect("each side has a connection")
    }

    /// Passes the changes that the sockets have logged to the models of the clients.
    fn replay(&mut self) {
        let log = std::mem::take(&mut *self.log.borrow_mut());
        for (at, change) in log {
            self.handle_change(at, change);
        }
        self.pushing = None;
        // The log already contains the ends of connections, so the table's list of ends is dropped.
        while self.table.poll_ended().is_some() {}
    }

    fn handle_change(&mut self, at: usize, change: Change) {
        let side = &mut self.sides[at];
        match change {
            Change::Wrote(bytes) => side.reader.read(&bytes),
            Change::Sent(sent) => {
                let (due, expected) = self.pushing.as_mut().expect("a push is pending");
                assert!(
                    expected.take().is_none_or(|expected| expected == sent),
                    "the push of {due:?} must have the expected result"
                );
                if sent == Sent::Queued {
                    side.reader.due.push_back(due.clone());
                    side.messages_out += 1;
                }
            }
            Change::Pinged(sent) => {
                assert_eq!(
                    sent == Sent::NotOpen,
                    side.phase != Phase::Open,
                    "a ping must be refused unless the connection is open"
                );
                let (due, _) = self.pushing.as_ref().expect("a ping is pending");
                side.reader.due.extend((sent == Sent::Queued).then(|| due.clone()));
            }
            Change::Conflated(is_done) => {
                let (due, _) = self.pushing.as_ref().expect("a push is pending");
                if is_done {
                    side.reader.conflate(due);
                }
            }
            Change::Dropped(messages) => {
                side.messages_out -= messages as u64;
                side.reader.drop_newest(messages);
            }
            Change::ClosedSlow(closed) => self.handle_slow(at, closed),
            Change::ResponseDropped => side.reader.is_lost = true,
        }
    }

    /// Writes until no output is left, or the socket is full.
    fn write(&mut self, at: usize) {
        let slot = self.slot(at);
        self.table.retry_write(slot);
        self.replay();
    }

    // Comparison of the connections with the models.

    fn check(&self) {
        self.table.check_invariants();
        for (at, Side { phase, reader, messages_in, messages_out, .. }) in self.sides.iter().enumerate() {
            let connection = self.connection(at);
            assert_eq!(
                connection.is_open(),
                *phase == Phase::Open,
                "the connection must be an open WebSocket if and only if the model is in phase Open, not {phase:?}"
            );
            assert_eq!(connection.state() == State::Open, connection.is_open());
            let traffic = connection.traffic();
            assert_eq!((traffic.messages_in, traffic.messages_out), (*messages_in, *messages_out));
            assert_eq!(traffic.bytes_out, reader.read_bytes, "bytes_out must count the bytes that the socket accepted");
            if connection.queued_bytes() == 0 && !reader.is_lost {
                self.table.transport(self.slot(at)).expect("the connection has a socket").check_sent();
            }
            if connection.queued_bytes() == 0 {
                reader.check_whole();
            }
        }
        let (queued, max) = (self.table.env().queued, self.table.env().limits.queue_total_bytes_max);
        let charges: usize = [0, 1].iter().map(|at| self.connection(*at).charge()).sum();
        assert!(
            charges <= queued.frames && charges + 64 > queued.frames,
            "the counted memory of both connections must be 0 to 63 bytes less than the memory of all queues"
        );
        // A connection that was closed while the queues were full may have a queue for its close frame, in addition to
        // the bound.
        let records = if self.is_tls { 2 * RECORD_OVERHEAD } else { 0 };
        assert!(
            queued.frames <= max + 2 * (QUEUE_BYTES + CONTROL_BYTES_MAX) + records,
            "the memory of all queues must stay within the total bound of {max} bytes: {queued:?}"
        );
        if [0, 1].iter().all(|at| self.connection(*at).queued_bytes() == 0) {
            assert_eq!(queued, Queued::default(), "the counted memory must be 0 if no output is queued");
        }
    }

    /// Ends both connections, and checks that the counted memory of all queues is then 0.
    fn end(&mut self) {
        for at in [0, 1] {
            self.abort(at);
        }
        self.flush();
        assert_eq!(
            self.table.env().queued,
            Queued::default(),
            "the counted memory must be 0 after all connections have ended"
        );
    }
}

/// Adds the connection of side `at` to the table.
fn insert(table: &mut Table<Socket>, at: usize, log: &Log, is_tls: bool) -> Fd {
    let connection = Connection::new(Peer::Unix, table.env());
    let session = is_tls.then(|| Box::new(Secure::new(table.shared())));
    table.insert(Socket::new(at, log, session), connection).expect("the table has a free slot")
}

impl Side {
    fn new(fd: Fd) -> Side {
        Side {
            fd,
            phase: Phase::Http,
            pipe: Vec::new(),
            reader: Reader::default(),
            manner: 0,
            asked: (false, 1),
            messages_in: 0,
            messages_out: 0,
        }
    }
}
