//! The fuzz target `connection`: two connections that share their surroundings, driven by a list of operations. What
//! they tell and what they write is held against what a naive client may expect ([`reader`]).
//!
//! It plays the loop's part (`event_loop/table.rs`) as strictly as it must and no stricter: reading only what is wanted,
//! flushing before a turn ends, freeing what is over; all else may happen in any order.

mod http;
mod reader;
mod room;
mod upgrade;

use std::io::IoSlice;
use std::time::Duration;

use crate::connection::fuzz::http::REQUESTS;
use crate::connection::fuzz::reader::{Due, Reader};
use crate::connection::{Closed, Connection, Deferred, Env, Event, Next, Outbound, Queued, Sent, State};
use crate::fd::{Fd, Slot};
use crate::limits::{Heartbeat, Limits, SlowReader};
use crate::peer::Peer;
use crate::protocol::client::frame;
use crate::protocol::close::CloseCode;
use crate::protocol::frame::Opcode;
use crate::protocol::origin::Origins;
use crate::tick::Tick;

pub use upgrade::fuzz_upgrade;

/// Operations of one list that are carried out: enough for any end, and a bound for the time of a run.
const OPERATIONS_MAX: usize = 1000;

/// System calls a turn that may be spent on writing to one connection.
const WRITES_PER_TURN_MAX: usize = 16;

const OPCODES: [Opcode; 6] =
    [Opcode::Text, Opcode::Binary, Opcode::Continuation, Opcode::Ping, Opcode::Pong, Opcode::Close];

/// Two connections and what they share.
struct Rig {
    env: Env,
    sides: [Side; 2],
    /// How many slices a write takes.
    slices: usize,
    /// Messages made so far, so that neighbours differ.
    messages: usize,
}

/// One connection, its client, and what is known of it.
struct Side {
    connection: Connection,
    fd: Fd,
    life: Life,
    /// What the client has sent and the server not read.
    pipe: Vec<u8>,
    reader: Reader,
    /// Bytes that the socket has room for.
    room: usize,
    /// What the handler does when it hears something.
    manner: u8,
    is_shut: bool,
    /// Of the request that was told last: whether it is a HEAD, and the minor version of its HTTP.
    asked: (bool, u8),
    messages_in: u64,
    messages_out: u64,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Life {
    Http,
    Open,
    /// It was open, and its end was told.
    Ended,
}

/// Runs the operations that the bytes spell; panics where something is not as it should be.
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
            ..Limits::default()
        };
        let env = Env::new(limits, heartbeat(manner), Origins::Any);
        let sides = [0, 1].map(|slot| Side::new(Fd::new(Slot(slot), 0), &env));
        Rig { env, sides, slices: [1, 2, 64][usize::from(manner / 8 % 3)], messages: 0 }
    }

    /// One operation. Its highest bit says on which side.
    fn step(&mut self, operation: u8, bytes: &mut impl Iterator<Item = u8>) {
        let at = usize::from(operation >> 7);
        let argument = next(bytes);
        let side = &mut self.sides[at];
        match operation % 20 {
            0 | 1 => side.pipe.extend(client_frame(argument, next(bytes))),
            2 => side.pipe.extend(bytes.take(usize::from(argument % 64))),
            3 => side.pipe.extend(request(argument).as_bytes()),
            4 | 5 => self.read(at, size(argument)),
            6 => self.push(&[at], argument, next(bytes)),
            7 => self.push(&[at, 1 - at], argument, next(bytes)),
            8 => self.ping(at, usize::from(argument)),
            // What ends a connection is kept rare, or little would ever happen to one.
            9 if argument < 32 => self.close(at, u16::from(argument)),
            10 if argument < 32 => match argument % 4 {
                0 => self.close_slow(at, usize::MAX),
                1 => self.abort(at),
                2 => self.drain(at),
                _ => side.connection.set_heartbeat(side.fd, Some(heartbeat(argument / 4)), &self.env),
            },
            9 | 10 => self.push(&[at], argument, argument),
            11 => _ = side.connection.set_paused(argument & 1 == 0),
            12 => {
                side.room = if argument == u8::MAX { usize::MAX } else { size(argument) };
                side.connection.handle_writable();
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

    // The client's side.

    /// Reads from a socket, if that is wanted. What HTTP kept has its turn before.
    fn read(&mut self, at: usize, count: usize) {
        if self.sides[at].connection.state() == State::Http {
            self.feed(at, Vec::new());
        }
        let side = &mut self.sides[at];
        if side.connection.wants_read() && !side.pipe.is_empty() {
            let bytes: Vec<u8> = side.pipe.drain(..count.clamp(1, side.pipe.len())).collect();
            side.connection.handle_received(bytes.len(), &mut self.env);
            self.feed(at, bytes);
        }
    }

    fn feed(&mut self, at: usize, mut bytes: Vec<u8>) {
        let events_max = 3 * bytes.len() + 8192;
        let mut input = &mut bytes[..];
        for _ in 0..events_max {
            let connection = &mut self.sides[at].connection;
            let event = match connection.handle_message(&mut input, &mut self.env) {
                Ok(Some(message)) => Some(message.into()),
                Ok(None) => connection.handle_bytes(&mut input, &mut self.env),
                Err(end) => Some(*end),
            };
            let Some(event) = event else {
                // Behind the end of a connection, input may be left: nobody wants it.
                let is_over = self.sides[at].connection.state() == State::Closing;
                assert!(is_over || input.is_empty(), "input was neither used up nor kept");
                return;
            };
            self.hear(at, event);
        }
        panic!("more events than bytes");
    }

    fn end_stream(&mut self, at: usize, argument: u8) {
        let side = &mut self.sides[at];
        let is_reset = argument & 1 == 1;
        let is_at_end = side.pipe.is_empty() && side.connection.wants_read();
        if !is_reset && !is_at_end {
            return;
        }
        if is_reset {
            side.pipe.clear();
            side.connection.release(&mut self.env);
            side.reader.is_lost = true;
        }
        let event = side.connection.handle_end(is_reset);
        self.hear_end(at, event);
    }

    // The handler's side.

    fn hear(&mut self, at: usize, event: Event<'_>) {
        let side = &mut self.sides[at];
        let is_http = matches!(
            event,
            Event::Head(_) | Event::Piece { .. } | Event::Refused(_) | Event::Request { .. } | Event::Upgrade(_)
        );
        assert_eq!(side.life, if is_http { Life::Http } else { Life::Open }, "told {event:?}");
        let manner = side.manner;
        if let Event::Head(request) | Event::Request { request, .. } | Event::Upgrade(request) = &event {
            side.asked = (request.method() == "HEAD", request.version());
            if manner & 8 != 0 {
                self.stream(at, manner / 16);
            }
        }
        let side = &mut self.sides[at];
        match event {
            Event::Head(request) => self.take_in(at, request, manner),
            Event::Piece { bytes, is_last, state } => {
                assert!(is_last || !bytes.is_empty(), "a piece of nothing");
                self.stream(at, manner / 16);
                if !is_last {
                    self.sides[at].connection.give_back(state);
                }
            }
            // Begun, and to be ended some day.
            Event::Request { .. } if side.reader.is_streaming_last() && manner & 4 == 0 => {}
            Event::Request { .. } if manner % 8 == 7 => side.connection.defer(Deferred::Plain),
            Event::Request { .. } => self.respond(at, manner),
            Event::Upgrade(request) if manner % 8 == 7 => side.connection.defer(Deferred::Upgrade(request)),
            Event::Upgrade(request) => self.answer_upgrade(at, &request, manner),
            Event::Text(_) | Event::Binary(_) => {
                side.messages_in += 1;
                self.react(at, manner);
            }
            Event::Ping(payload) => side.reader.pings.push_back(payload.into_owned()),
            Event::Pong(_) | Event::Refused(_) => {}
            Event::Closed(closed) => self.hear_closed(at, &closed),
        }
    }

    fn hear_end(&mut self, at: usize, event: Option<Event<'_>>) {
        match event {
            None | Some(Event::Refused(_)) => {}
            Some(Event::Closed(closed)) => self.hear_closed(at, &closed),
            Some(event) => panic!("{event:?} without input"),
        }
    }

    fn hear_closed(&mut self, at: usize, closed: &Closed) {
        let side = &mut self.sides[at];
        assert_eq!(side.life, Life::Open, "{closed} of what is not open");
        side.life = Life::Ended;
        side.reader.expect_close(closed);
    }

    /// What a handler does with a message.
    fn react(&mut self, at: usize, manner: u8) {
        match manner % 8 {
            2 => self.push(&[at], manner, manner),
            3 => self.push(&[at, 1 - at], manner, manner),
            4 => self.close(at, 0),
            5 => _ = self.sides[at].connection.set_paused(true),
            6 => self.abort(at),
            _ => {}
        }
    }

    /// Pushes one message to some connections, as the loop does: a full queue is written first, then the policy for slow
    /// readers applies.
    fn push(&mut self, to: &[usize], argument: u8, kind: u8) {
        self.messages += 1;
        let payload: Vec<u8> = (0..size(argument)).map(|index| b'a' + ((index + self.messages) % 26) as u8).collect();
        let conflates = self.env.limits.slow_reader == SlowReader::Conflate;
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
        let mut sent = self.send(at, outbound, due);
        if sent == Sent::Full {
            self.write(at);
            sent = self.send(at, outbound, due);
        }
        let policy = self.env.limits.slow_reader;
        match sent {
            Sent::Queued => self.make_room(at),
            Sent::Full if policy == SlowReader::Close => self.close_slow(at, usize::MAX),
            Sent::Full if policy == SlowReader::Conflate => {
                let side = &mut self.sides[at];
                if side.connection.conflate(outbound, &mut self.env) {
                    side.reader.conflate(due);
                    self.make_room(at);
                }
            }
            _ => {}
        }
    }

    fn send(&mut self, at: usize, outbound: &mut Outbound<'_>, due: &Due) -> Sent {
        let side = &mut self.sides[at];
        let (before, bytes, limits) = (side.connection.queued_bytes(), outbound.bytes(), &self.env.limits);
        let (held, more) = (side.connection.held_bytes(), bytes + outbound.overhead());
        let is_over = before > 0 && held + more > limits.queue_bytes_max;
        let expected = match side.life {
            Life::Http | Life::Ended => Sent::NotOpen,
            Life::Open if bytes > limits.queue_bytes_max => Sent::TooLarge,
            Life::Open if is_over => Sent::Full,
            Life::Open => Sent::Queued,
        };
        let sent = side.connection.send(outbound, &mut self.env);
        assert_eq!(sent, expected, "{bytes} bytes on top of {before}");
        if sent == Sent::Queued {
            assert_eq!(side.connection.queued_bytes(), before + bytes);
            side.reader.due.push_back(due.clone());
            side.messages_out += 1;
        }
        sent
    }

    fn ping(&mut self, at: usize, bytes: usize) {
        let side = &mut self.sides[at];
        let payload = vec![b'p'; bytes.min(125)];
        let sent = side.connection.ping(&payload, &mut self.env);
        assert_eq!(sent == Sent::NotOpen, side.life != Life::Open, "a ping of {bytes} bytes");
        if sent == Sent::Queued {
            side.reader.due.push_back(Due::Frame { first: 0x89, payload, key: None });
        }
    }

    fn close(&mut self, at: usize, choice: u16) {
        let (code, reason) =
            if choice == 0 { (CloseCode::NORMAL, "") } else { (CloseCode::from(3000 + choice), "why") };
        let cause = crate::connection::Cause::ServerClosed;
        let event = self.sides[at].connection.close(code, reason, cause, &mut self.env);
        assert!(event.is_some() == (self.sides[at].life == Life::Open), "a close is the end of what is open");
        self.hear_end(at, event);
    }

    fn close_slow(&mut self, at: usize, kept_max: usize) {
        let side = &mut self.sides[at];
        if side.life == Life::Open {
            side.reader.truncate();
        } else {
            side.reader.is_lost = true;
        }
        let event = side.connection.close_slow(kept_max, &mut self.env);
        if matches!(&event, Some(Event::Closed(closed)) if closed.code == CloseCode::ABNORMAL) {
            side.reader.is_lost = true;
        }
        self.hear_end(at, event);
    }

    fn abort(&mut self, at: usize) {
        let side = &mut self.sides[at];
        side.reader.is_lost = true;
        let event = side.connection.abort(&mut self.env);
        self.hear_end(at, event);
    }

    fn drain(&mut self, at: usize) {
        let event = self.sides[at].connection.drain(&mut self.env);
        self.hear_end(at, event);
    }

    // The loop's side.

    /// Writes, and makes room for what is left.
    fn write(&mut self, at: usize) {
        self.offer(at);
        self.relieve();
    }

    /// Writes until there is nothing to write, the socket is full, or the turn's share used up.
    fn offer(&mut self, at: usize) {
        let side = &mut self.sides[at];
        for _ in 0..WRITES_PER_TURN_MAX {
            let mut slices = [IoSlice::new(&[]); 64];
            let filled = side.connection.poll_slices(&self.env, &mut slices[..self.slices]);
            let offer: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(!offer.is_empty(), side.connection.can_write(), "{} bytes to write", offer.len());
            if offer.is_empty() {
                return;
            }
            if let Some(only) = side.connection.poll_slice(&self.env) {
                assert_eq!(offer, only, "one slice, looked at in two ways");
            }
            assert!(!side.is_shut, "output after the end of output");
            let taken = offer.len().min(side.room);
            if side.room != usize::MAX {
                side.room -= taken;
            }
            let before = side.connection.queued_bytes();
            side.connection.handle_written(taken, taken < offer.len(), &mut self.env);
            assert!(side.connection.queued_bytes() >= before - taken, "bytes vanished");
            side.reader.read(&offer[..taken]);
        }
    }

    /// Ends a turn, and begins the next `later`, or when something is due.
    fn pass_time(&mut self, later: Option<u64>) {
        for at in [0, 1] {
            self.flush(at);
        }
        assert!(self.sides.iter().all(|side| side.connection.fresh_bytes() == 0), "output outlives the journal");
        self.env.end_turn();
        self.env.now = match later {
            Some(millis) => self.env.now.after(Duration::from_millis(millis)),
            None => {
                let due = self.sides.iter().map(|side| side.connection.poll_timeout(&self.env)).min();
                due.filter(|due| *due < Tick::NEVER).unwrap_or(self.env.now).max(self.env.now)
            }
        };
        for at in [0, 1] {
            self.tick(at);
        }
    }

    fn flush(&mut self, at: usize) {
        self.write(at);
        let side = &mut self.sides[at];
        match side.connection.poll_next(&self.env) {
            Next::Stay => {}
            Next::Shut => {
                assert!(!side.is_shut, "shut twice");
                side.is_shut = true;
            }
            Next::Drop => {
                assert_ne!(side.life, Life::Open, "dropped while open");
                side.connection.release(&mut self.env);
                *side = Side::new(Fd::new(Slot(at as u32), side.fd.generation() + 1), &self.env);
            }
        }
    }

    fn tick(&mut self, at: usize) {
        let side = &mut self.sides[at];
        let before = side.connection.queued_bytes();
        let event = side.connection.handle_tick(&mut self.env);
        if event.is_none() && side.life == Life::Open && side.connection.queued_bytes() > before {
            side.reader.due.push_back(Due::Frame { first: 0x89, payload: Vec::new(), key: None });
        }
        self.hear_end(at, event);
        let side = &mut self.sides[at];
        let is_over = side.connection.poll_next(&self.env);
        side.is_shut |= is_over == Next::Shut;
        let at = side.connection.poll_timeout(&self.env);
        assert!(is_over == Next::Drop || at > self.env.now, "a deadline that was heard of and is still due: {at:?}");
    }

    // What should be.

    fn check(&self) {
        for side in &self.sides {
            let Side { connection, life, reader, .. } = side;
            connection.check_invariants();
            assert_eq!(connection.is_open(), *life == Life::Open, "open, as against {life:?}");
            assert_eq!(connection.state() == State::Open, connection.is_open());
            let traffic = connection.traffic();
            assert_eq!((traffic.messages_in, traffic.messages_out), (side.messages_in, side.messages_out));
            assert_eq!(traffic.bytes_out, reader.read_bytes, "bytes that the socket took");
            if connection.queued_bytes() == 0 {
                reader.check_whole();
            }
        }
        if self.sides.iter().all(|side| side.connection.queued_bytes() == 0) {
            assert_eq!(self.env.queued, Queued::default(), "bytes in queues that are empty");
        }
    }

    /// Everything is over, and nothing may be left.
    fn end(&mut self) {
        for at in [0, 1] {
            self.abort(at);
            self.flush(at);
        }
        assert_eq!(self.env.queued, Queued::default(), "bytes in queues that are no more");
    }
}

impl Side {
    fn new(fd: Fd, env: &Env) -> Side {
        Side {
            connection: Connection::new(Peer::Unix, env),
            fd,
            life: Life::Http,
            pipe: Vec::new(),
            reader: Reader::default(),
            room: usize::MAX,
            manner: 0,
            is_shut: false,
            asked: (false, 1),
            messages_in: 0,
            messages_out: 0,
        }
    }
}

fn next(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    bytes.next().unwrap_or(0)
}

/// Something that clients ask for, mostly a WebSocket.
fn request(byte: u8) -> &'static str {
    REQUESTS.get(usize::from(byte)).unwrap_or(&REQUESTS[0])
}

/// A length: small ones one by one, larger ones in steps, up to more than a run of a queue holds.
fn size(byte: u8) -> usize {
    match usize::from(byte) {
        byte @ 0..=150 => byte,
        byte @ 151..=240 => 150 + 8 * (byte - 150),
        byte => 2300 * (byte - 240),
    }
}

fn heartbeat(byte: u8) -> Heartbeat {
    let every = Duration::from_millis(10 << (byte / 4 % 8));
    match byte % 4 {
        0 => Heartbeat::Off,
        1 => Heartbeat::Client { idle_max: every },
        2 => Heartbeat::Ping { every, missed_max: 2 },
        _ => Heartbeat::Push { every },
    }
}

/// A frame of a client's, mostly a good one.
fn client_frame(kind: u8, argument: u8) -> Vec<u8> {
    let opcode = OPCODES[usize::from(kind) % OPCODES.len()];
    let payload = match opcode {
        Opcode::Close if argument == 0 => Vec::new(),
        Opcode::Close => [&(900 + 20 * u16::from(argument)).to_be_bytes(), &b"bye"[..]].concat(),
        _ => vec![if kind == u8::MAX { 0xff } else { b'c' }; size(argument)],
    };
    let is_final = kind < 128 || opcode.is_control();
    frame(is_final, opcode, &payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_list_of_operations(operations in prop::collection::vec(any::<u8>(), 0..600)) {
            fuzz_connection(&operations);
        }

        /// As above, but open from the start, which few lists are.
        #[test]
        fn any_list_of_operations_on_open_connections(
            setting in any::<[u8; 2]>(),
            operations in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let both = [3, 0, 4, 250, 143, 0, 144, 250];
            fuzz_connection(&[&setting[..], &both, &operations].concat());
        }

        #[test]
        fn any_request(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_upgrade(&bytes);
        }
    }

    /// The largest holder is half a message, and the total is within its bound: the smaller holder pays nothing.
    #[test]
    fn half_a_message_that_is_largest_costs_the_smaller_holder_nothing() {
        let both = [3, 0, 4, 250, 143, 0, 144, 250];
        fuzz_connection(
            &[
                &[37u8, 10][..],
                &both,
                &[
                    62, 207, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 73, 0, 74, 0, 100, 0, 0, 12, 0, 246, 227, 0,
                    232, 1, 30, 2, 187, 158, 0, 54, 0, 9, 95, 23, 0, 208, 118, 120, 0, 0, 146, 123,
                ],
            ]
            .concat(),
        );
    }
}
