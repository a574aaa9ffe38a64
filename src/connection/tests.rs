//! Tests of one connection, which compare its output with the expected bytes.

mod deflated;
mod fan_out;
mod lent;
mod pieces;
#[cfg(feature = "tls")]
mod secure_socket;
mod slow;
#[cfg(feature = "tls")]
mod tls;

use crate::fd::Slot;
use std::io::IoSlice;
use std::time::Duration;

use super::*;
use crate::limits::Limits;
use crate::protocol::body_mode::BodyMode;
use crate::protocol::client::frame;
use crate::protocol::origin::Origins;
use crate::protocol::response::Response;
use crate::protocol::shared::{FRAME_BYTES, Frame};
use crate::protocol::upgrade::Accept;
use crate::protocol::upgrade::Upgrade;

const UPGRADE: &str = "GET /chat?uid=ann HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A connection, and the state that a loop shares with its connections.
struct Rig {
    connection: Connection,
    env: Env,
    /// The mode in which the next announced request body is received. `None` means that the handler gets the whole body
    /// in one call.
    mode: Option<BodyMode>,
    /// The received pieces of streamed request bodies, one after the other.
    pieces: Vec<u8>,
}

impl Rig {
    fn new(limits: Limits) -> Rig {
        let env = Env::new(limits, Heartbeat::Off, Origins::Same);
        Rig { connection: Connection::new(Peer::Unix, &env), env, mode: None, pieces: Vec::new() }
    }

    /// Returns a rig whose connection is an open WebSocket. The client has read the 101 response.
    fn open(limits: Limits) -> Rig {
        let mut rig = Rig::new(limits);
        assert_eq!(rig.feed(UPGRADE.as_bytes()), ["upgrade /chat"]);
        rig.accept(&Upgrade::accept());
        assert!(rig.written().starts_with(b"HTTP/1.1 101 "));
        rig
    }

    fn accept(&mut self, accept: &Accept) -> Vec<u8> {
        let Some(Deferred::Upgrade(request)) = self.connection.take_deferred() else {
            panic!("the upgrade must be deferred")
        };
        self.connection
            .accept(Fd::new(Slot(0), 0), accept, &request, &mut self.env)
            .expect("the answer is valid")
            .expect("the connection is open")
    }

    /// Passes received bytes to the connection, and returns a description of each event.
    ///
    /// A request is answered with status 200 and the body of the request. An upgrade is deferred.
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut bytes = bytes.to_vec();
        let mut input = &mut bytes[..];
        let mut events = Vec::new();
        self.connection.handle_received(input.len(), &mut self.env);
        while let Some(event) = next_event(&mut self.connection, &mut input, &mut self.env) {
            // `Event::Head` of a request whose body is collected is not in the result.
            if self.mode.is_some() || !matches!(event, Event::Head(_)) {
                events.push(describe(&event));
            }
            match event {
                Event::Request { request, .. } => {
                    let body = request.body().to_vec();
                    self.connection.respond(Response::new(200).body(body), &mut self.env);
                }
                Event::Head(request) => {
                    let mode = self.mode.take().unwrap_or(BodyMode::Collect);
                    self.connection.receive_body(request, mode, &mut self.env);
                }
                Event::Piece { bytes, is_last, state } => {
                    self.pieces.extend_from_slice(&bytes);
                    if !is_last {
                        self.connection.return_state(state);
                    }
                }
                Event::Upgrade(request) => self.connection.defer(Deferred::Upgrade(request)),
                _ => {}
            }
            self.connection.check_invariants();
        }
        assert!(input.is_empty(), "`None` must mean that the input is used up");
        events
    }

    fn tick(&mut self, now: u64) -> Option<String> {
        self.env.now = Tick(now);
        let event = self.connection.handle_tick(&mut self.env);
        self.connection.check_invariants();
        event.as_ref().map(describe)
    }

    fn send(&mut self, text: &str) -> Sent {
        let sent = self.connection.send(&mut Outbound::message(Opcode::Text, text.as_bytes()), &mut self.env);
        self.connection.check_invariants();
        sent
    }

    /// Writes all output to a socket that is never full, and returns the written bytes.
    fn written(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let taken = self.write(usize::MAX);
            if taken.is_empty() {
                return all;
            }
            all.extend(taken);
        }
    }

    /// Writes once to a socket that accepts at most `room` bytes.
    fn write(&mut self, room: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = self.connection.poll_slices(&self.env, &mut slices);
        let mut taken: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        let offered = taken.len();
        taken.truncate(room);
        if offered > 0 {
            self.connection.handle_written(Written::new(taken.len(), taken.len() < offered), &mut self.env);
            self.env.end_turn();
        }
        self.connection.check_invariants();
        taken
    }

    fn next(&mut self) -> SocketAction {
        self.connection.poll_next(&self.env)
    }
}

/// Returns the next event in `input`, with the same calls as the loop.
fn next_event<'a>(connection: &mut Connection, input: &mut &'a mut [u8], env: &mut Env) -> Option<Event<'a>> {
    match connection.handle_message(input, env) {
        Ok(Some(message)) => Some(message.into()),
        Ok(None) => connection.handle_bytes(input, env),
        Err(end) => Some(*end),
    }
}

fn describe(event: &Event<'_>) -> String {
    match event {
        Event::Request { request, wanted_upgrade: false } => format!("{} {}", request.method(), request.path()),
        Event::Request { wanted_upgrade: true, .. } => "half an upgrade".to_owned(),
        Event::Head(request) => format!("head {}", request.path()),
        Event::Piece { bytes, is_last, .. } => format!("piece {} {is_last}", bytes.len()),
        Event::Upgrade(request) => format!("upgrade {}", request.path()),
        Event::Text(text) => format!("text {text}"),
        Event::Binary(bytes) => format!("binary {}", bytes.len()),
        Event::Ping(payload) => format!("ping {}", payload.len()),
        Event::Pong(payload) => format!("pong {}", payload.len()),
        Event::Closed(closed) => format!("closed {closed} by {:?}", closed.by),
        Event::Refused(refusal) => format!("refused {}", refusal.status()),
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn events_do_not_depend_on_how_input_is_split() {
    let mut stream = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    stream.extend(UPGRADE.as_bytes());
    let frames = [
        frame(true, Opcode::Text, b"one"),
        frame(false, Opcode::Binary, b"two"),
        frame(true, Opcode::Ping, b"?"),
        frame(true, Opcode::Continuation, b"three"),
        frame(true, Opcode::Close, b"\x0f\xa0bye"),
    ]
    .concat();
    for cut in 0..stream.len() + frames.len() {
        let mut rig = Rig::new(Limits::default());
        let (before, after) = stream.split_at(cut.min(stream.len()));
        let mut events = rig.feed(before);
        events.extend(rig.feed(after));
        assert_eq!(events, ["POST /a", "upgrade /chat"], "split at {cut}");
        assert!(rig.accept(&Upgrade::accept()).is_empty());
        let (before, after) = frames.split_at(cut.saturating_sub(stream.len()));
        let mut events = rig.feed(before);
        events.extend(rig.feed(after));
        let closed = "closed 4000 \"bye\" (client_closed) by Client";
        assert_eq!(events, ["text one", "ping 1", "binary 8", closed], "split at {cut}");

        let written = rig.written();
        let text = String::from_utf8_lossy(&written);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\r\n\r\nhelloHTTP/1.1 101 "), "{text}");
        assert!(written.ends_with(b"\x8a\x01?\x88\x02\x0f\xa0"), "the client's close code must follow the pong");
        assert_eq!(rig.next(), SocketAction::Drop, "the connection must be dropped after both close frames");
    }
}

#[test]
fn frames_that_arrive_before_the_101_response_are_kept() {
    let mut rig = Rig::new(Limits::default());
    let ahead = [UPGRADE.as_bytes(), &frame(true, Opcode::Text, b"early")].concat();
    assert_eq!(rig.feed(&ahead), ["upgrade /chat"]);
    assert!(!rig.connection.wants_read(), "input after the request must stay in the kernel");
    let early = rig.accept(&Upgrade::accept());
    assert_eq!(rig.feed(&early), ["text early"]);
}

#[test]
fn requests_after_a_refused_upgrade_are_ignored() {
    let mut rig = Rig::new(Limits::default());
    let smuggled = [UPGRADE, "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    assert_eq!(rig.feed(smuggled.as_bytes()), ["upgrade /chat"]);
    rig.connection.respond(Response::text(401, "no\n"), &mut rig.env);
    assert_eq!(rig.feed(b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"), [""; 0]);
    assert!(String::from_utf8_lossy(&rig.written()).contains("Connection: close"));
    assert_eq!(rig.next(), SocketAction::Shut);
    assert_eq!(rig.next(), SocketAction::Stay, "the write side must be shut down only once");
    assert!(rig.connection.handle_end(false).is_none());
    assert_eq!(rig.next(), SocketAction::Drop);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut rig = Rig::new(Limits::default());
    let request = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let stream = request.repeat(50);
    let mut requests = 0;
    // Each part of the stream ends inside a request, so the connection always has unparsed input.
    for part in stream.chunks(request.len() * 3 - 7) {
        requests += rig.feed(part).len();
        rig.written();
    }
    assert_eq!(requests, 50);
    assert!(rig.connection.wants_read());
}

#[test]
fn unread_responses_stop_the_reading_of_requests() {
    let mut rig = Rig::new(Limits::default());
    let body = vec![b'x'; 60 << 10];
    let post = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 61440\r\n\r\n", &body[..]].concat();
    assert_eq!(rig.feed(&post).len(), 1);
    assert_eq!(rig.feed(&post).len(), 1);
    assert_eq!(rig.feed(&post).len(), 0, "the third request must wait");
    assert!(!rig.connection.wants_read());
    rig.written();
    assert_eq!(rig.feed(b"").len(), 1, "reading must resume");
}

#[test]
fn an_incomplete_request_head_times_out() {
    let mut rig = Rig::new(Limits::default());
    for (second, byte) in UPGRADE.bytes().take(9).enumerate() {
        rig.env.now = Tick(second as u64 * 1000);
        assert_eq!(rig.feed(&[byte]), [""; 0]);
        assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(10_000));
    }
    assert_eq!(rig.tick(10_000).as_deref(), Some("refused 408"));
    assert!(rig.written().starts_with(b"HTTP/1.1 408 "));
    assert_eq!(rig.next(), SocketAction::Shut);
}

#[test]
fn empty_input_does_not_extend_a_deadline() {
    let mut rig = Rig::new(Limits { head_time_max: millis(10), keep_alive_max: millis(1000), ..Limits::default() });
    assert_eq!(rig.feed(b""), [""; 0]);
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(10), "the first deadline must be head_time_max");
    rig.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.written();
    rig.env.now = Tick(500);
    rig.feed(b"");
    assert_eq!(
        rig.connection.poll_timeout(&rig.env),
        Tick(1000),
        "the deadline of an idle connection must be keep_alive_max"
    );
}

#[test]
fn an_unanswered_upgrade_gets_a_503_response() {
    let mut rig = Rig::new(Limits { answer_time_max: millis(500), ..Limits::default() });
    rig.feed(UPGRADE.as_bytes());
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(500));
    assert_eq!(rig.tick(500).as_deref(), Some("refused 503"));
    assert!(rig.written().starts_with(b"HTTP/1.1 503 "));
    assert!(rig.connection.take_deferred().is_none(), "a refused request must not be answered again");
}

#[test]
fn an_idle_connection_has_no_buffers() {
    let mut rig = Rig::open(Limits::default());
    for _ in 0..100 {
        rig.feed(&frame(true, Opcode::Text, b"hello"));
        rig.send("hello");
        rig.written();
    }
    assert!(rig.connection.output.is_empty());
    assert!(matches!(rig.connection.stage, Stage::Open { unfinished: None, .. }));
    assert_eq!(rig.env.queued.frames, 0);
    let Traffic { messages_in, messages_out, bytes_in, bytes_out } = rig.connection.traffic();
    assert_eq!((messages_in, messages_out), (100, 100));
    assert_eq!(bytes_in, UPGRADE.len() as u64 + 100 * 11);
    assert!(bytes_out > 100 * 7);
}

#[test]
fn a_close_flushes_the_queue_and_waits_for_the_client() {
    let mut rig = Rig::open(Limits::default());
    rig.send("last words");
    let event = rig.connection.close(CloseCode::from(4000), "enough", Cause::ServerClosed, &mut rig.env);
    assert_eq!(event.as_ref().map(describe).as_deref(), Some("closed 4000 \"enough\" (server_closed) by Server"));
    assert_eq!(rig.send("too late"), Sent::NotOpen);
    assert_eq!(rig.written(), b"\x81\x0alast words\x88\x08\x0f\xa0enough");
    assert_eq!(rig.next(), SocketAction::Stay);
    assert_eq!(rig.feed(&frame(true, Opcode::Text, b"not delivered")), [""; 0]);
    assert_eq!(rig.feed(&frame(true, Opcode::Close, b"\x0f\xa0")), [""; 0]);
    assert_eq!(rig.next(), SocketAction::Drop);
}

#[test]
fn a_client_that_does_not_answer_a_close_is_dropped() {
    let mut rig = Rig::open(Limits { close_wait_max: millis(300), ..Limits::default() });
    rig.connection.close(CloseCode::NORMAL, "", Cause::ServerClosed, &mut rig.env);
    rig.written();
    assert_eq!(rig.tick(299), None);
    assert_eq!(rig.next(), SocketAction::Stay);
    assert_eq!(rig.tick(300), None, "the end must be reported only once");
    assert_eq!(rig.next(), SocketAction::Drop);
}

#[test]
fn a_protocol_error_fails_the_connection_after_valid_messages() {
    let mut rig = Rig::open(Limits::default());
    let stream = [frame(true, Opcode::Text, b"good"), b"\x83\x80".to_vec(), frame(true, Opcode::Text, b"no")].concat();
    let closed = "closed 1002 \"reserved opcode\" (protocol_error) by Server";
    assert_eq!(rig.feed(&stream), ["text good", closed]);
    assert_eq!(rig.written()[..4], [0x88, 17, 0x03, 0xea]);
    assert_eq!(rig.next(), SocketAction::Shut);
    assert_eq!(rig.feed(b"whatever"), [""; 0]);
    assert_eq!(rig.tick(5_000), None);
    assert_eq!(rig.next(), SocketAction::Drop);
}

#[test]
fn the_end_of_a_lost_connection_is_reported_once() {
    for is_reset in [false, true] {
        let mut rig = Rig::open(Limits::default());
        let event = rig.connection.handle_end(is_reset);
        assert_eq!(event.as_ref().map(describe).as_deref(), Some("closed 1006 (connection_lost) by Client"));
        assert!(rig.connection.handle_end(is_reset).is_none(), "the end must be reported only once");
        assert_eq!(rig.next(), SocketAction::Drop);
    }
}

#[test]
fn an_unfinished_message_times_out() {
    let mut rig = Rig::open(Limits { message_time_max: millis(100), ..Limits::default() });
    rig.env.now = Tick(50);
    rig.feed(&frame(false, Opcode::Text, b"begun"));
    rig.env.now = Tick(120);
    rig.feed(&frame(false, Opcode::Continuation, b""));
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(150));
    let closed = "closed 1008 \"message took too long\" (message_timed_out) by Server";
    assert_eq!(rig.tick(150).as_deref(), Some(closed));
}

#[test]
fn unanswered_pings_end_the_connection() {
    let mut rig = Rig::open(Limits::default());
    let every = millis(1000);
    rig.connection.set_heartbeat(Fd::new(Slot(0), 0), Some(Heartbeat::Ping { every, missed_max: 2 }), &rig.env);
    let first = rig.connection.poll_timeout(&rig.env).0;
    assert!((500..=1000).contains(&first));
    assert_eq!(rig.tick(first), None);
    assert_eq!(rig.written(), b"\x89\x00");
    rig.feed(&frame(true, Opcode::Pong, b""));
    for period in 1..=2 {
        assert_eq!(rig.tick(first + period * 1000), None);
        assert_eq!(rig.written(), b"\x89\x00");
    }
    let closed = "closed 1006 (heartbeat_missed) by Server";
    assert_eq!(rig.tick(first + 3000).as_deref(), Some(closed));
    assert_eq!(
        (rig.written(), rig.next()),
        (vec![], SocketAction::Drop),
        "the connection must be dropped without a close frame"
    );
}

#[test]
fn the_queue_of_a_full_socket_keeps_only_the_latest_pong() {
    let mut rig = Rig::open(Limits::default());
    rig.send("stall");
    assert_eq!(rig.write(3), b"\x81\x05s");
    for index in 0..100_000u32 {
        rig.feed(&frame(true, Opcode::Ping, &index.to_be_bytes()));
    }
    assert_eq!(rig.connection.queued_bytes(), 4 + 6);
    assert!(rig.connection.handle_writable());
    assert_eq!(rig.written(), [&b"tall\x8a\x04"[..], &99_999u32.to_be_bytes()].concat());
    assert!(rig.connection.output.is_empty());
}

#[test]
fn a_queued_pong_precedes_the_close_frame() {
    let mut rig = Rig::open(Limits::default());
    rig.send("stall");
    assert_eq!(rig.write(3), b"\x81\x05s");
    rig.feed(&frame(true, Opcode::Ping, b"are you there?"));
    rig.connection.close(CloseCode::NORMAL, "", Cause::ServerClosed, &mut rig.env);
    assert!(rig.connection.handle_writable());
    assert_eq!(rig.written(), b"tall\x8a\x0eare you there?\x88\x02\x03\xe8");
}

#[test]
fn each_ping_of_a_fast_reader_is_answered() {
    let mut rig = Rig::open(Limits::default());
    for payload in ["a", "b", "c"] {
        rig.feed(&frame(true, Opcode::Ping, payload.as_bytes()));
    }
    assert_eq!(rig.written(), b"\x8a\x01a\x8a\x01b\x8a\x01c");
}

#[test]
fn a_full_queue_ends_a_slow_reader() {
    let limits = Limits { queue_bytes_max: 100, close_wait_max: millis(100), ..Limits::default() };
    let mut rig = Rig::open(limits);
    assert_eq!(rig.send(&"x".repeat(99)), Sent::TooLarge);
    assert_eq!(rig.send(&"x".repeat(38)), Sent::Queued);
    assert_eq!(rig.write(10).len(), 10);
    assert_eq!(rig.send(&"y".repeat(38)), Sent::Queued);
    assert_eq!(rig.send(&"z".repeat(38)), Sent::Full);
    let event = rig.connection.close_slow(usize::MAX, &mut rig.env);
    assert!(event.is_some_and(|event| describe(&event).starts_with("closed 1013 ")));
    assert!(rig.connection.handle_writable());
    let rest = rig.written();
    assert_eq!(rest[..30], [b'x'; 30], "the partly written frame must be completed");
    assert_eq!(rest[30..34], [0x88, 20, 0x03, 0xf5], "the close frame must follow the completed frame");
    assert_eq!(rig.env.queued.frames, 0);
}

#[test]
fn a_slow_reader_gets_complete_http_responses() {
    let mut rig = Rig::new(Limits::default());
    let post = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33000\r\n\r\n", &vec![b'x'; 33_000][..]].concat();
    assert_eq!(rig.feed(&post).len(), 1);
    assert_eq!(rig.feed(UPGRADE.as_bytes()), ["upgrade /chat"]);
    rig.accept(&Upgrade::accept());
    assert_eq!(rig.write(1000).len(), 1000);
    let http = rig.connection.queued_bytes();
    rig.send("dropped");
    assert!(rig.connection.close_slow(usize::MAX, &mut rig.env).is_some());
    assert!(rig.connection.handle_writable());
    let rest = rig.written();
    assert_eq!(rest.len(), http + 22, "the response and the close frame must be written");
    assert_eq!(rest[http..http + 4], [0x88, 20, 0x03, 0xf5]);
    assert_eq!(rig.env.queued.frames, 0);
}

#[test]
fn closing_a_slow_consumer_between_two_frames_drops_its_queue() {
    let mut rig = Rig::open(Limits::default());
    for _ in 0..32 {
        rig.send(&"x".repeat(1000));
    }
    rig.send(&"y".repeat(618));
    rig.send("");
    assert_eq!(rig.write(32_750).len(), 32_750, "all frames except the last frame must be written");
    assert!(rig.connection.close_slow(usize::MAX, &mut rig.env).is_some());
    rig.connection.check_invariants();
    assert_eq!(rig.env.queued.frames, QUEUE_BYTES + 22, "written bytes must be freed");
}

#[test]
fn a_stalled_write_times_out() {
    let mut rig = Rig::open(Limits { write_time_max: millis(1000), ..Limits::default() });
    rig.send("hello");
    assert_eq!(rig.write(0), b"");
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(1000));
    rig.env.now = Tick(900);
    assert!(rig.connection.handle_writable());
    assert_eq!(rig.write(0), b"");
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(1000), "a failed write must not restart the timeout");
    assert!(rig.connection.handle_writable());
    assert_eq!(rig.write(1).len(), 1);
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(1900), "a written byte must restart the timeout");
    assert_eq!(rig.tick(1900).as_deref(), Some("closed 1006 (write_timed_out) by Server"));
}

#[test]
fn a_frame_to_several_connections_is_stored_once() {
    let payload = vec![7; 10_000];
    let mut rigs: Vec<Rig> = (0..3).map(|_| Rig::open(Limits::default())).collect();
    let mut env = Env::new(Limits::default(), Heartbeat::Off, Origins::Same);
    let mut outbound = Outbound::message(Opcode::Binary, &payload);
    outbound.to_many = true;
    for rig in &mut rigs {
        assert_eq!(rig.connection.send(&mut outbound, &mut env), Sent::Queued);
    }
    assert_eq!(env.queued.frames, 0, "no connection may have a queue yet");
    for (rig, queues) in rigs.iter_mut().zip(1..) {
        assert_eq!(rig.connection.queued_bytes(), 10_004);
        rig.connection.handle_written(Written::new(1, true), &mut env);
        assert_eq!(env.queued.frames, 10_004 + FRAME_BYTES + queues * (QUEUE_BYTES + SEGMENT_BYTES));
    }
    for rig in &mut rigs {
        assert_eq!(rig.connection.queued_bytes(), 10_003);
        rig.connection.release(&mut env);
    }
    env.end_turn();
    assert_eq!(env.queued.frames, 0);
}

#[test]
fn a_conflated_message_keeps_the_position_of_the_older_message() {
    let key_bytes = SEGMENT_BYTES + FRAME_BYTES + KEY_BYTES + 4;
    let limits = Limits { queue_bytes_max: 60 + 2 * key_bytes, ..Limits::default() };
    let mut rig = Rig::open(limits);
    let keyed = |rig: &mut Rig, key: &'static str, text: &str| {
        let mut outbound = Outbound::message(Opcode::Text, text.as_bytes());
        outbound.key = Some(key);
        match rig.connection.send(&mut outbound, &mut rig.env) {
            Sent::Full => rig.connection.conflate(&mut outbound, &mut rig.env),
            sent => sent == Sent::Queued,
        }
    };
    rig.send(&"-".repeat(18));
    assert_eq!(rig.write(5).len(), 5);
    assert!(keyed(&mut rig, "gold", "gold=1000"));
    assert!(keyed(&mut rig, "iron", "iron=2000"));
    rig.send(&"=".repeat(18));
    assert!(keyed(&mut rig, "gold", "gold=1001"), "the newer message must replace the older message");
    assert!(!keyed(&mut rig, "lead", "lead=3000"), "a new key must not replace a queued message");
    rig.connection.check_invariants();
    assert!(rig.connection.handle_writable());
    let rest = rig.written();
    assert_eq!(rest[..15], [b'-'; 15]);
    assert_eq!(rest[15..], *b"\x81\x09gold=1001\x81\x09iron=2000\x81\x12==================");
    assert_eq!(rig.env.queued.frames, 0);
}

#[test]
fn conflation_keys_count_against_queue_bytes_max() {
    let overhead = SEGMENT_BYTES + FRAME_BYTES + KEY_BYTES;
    let room = 15 + 9 * (overhead + 100) + overhead + 50;
    let mut rig = Rig::open(Limits { queue_bytes_max: room, ..Limits::default() });
    let push = |rig: &mut Rig, key: &str| {
        let mut outbound = Outbound::message(Opcode::Text, b"x");
        outbound.key = Some(key);
        let sent = rig.connection.send(&mut outbound, &mut rig.env);
        rig.connection.check_invariants();
        sent
    };
    rig.send(&"-".repeat(18));
    assert_eq!(rig.write(5).len(), 5);
    let keys: Vec<String> = (0..20).map(|number| format!("{number:097}")).collect();
    let queued = keys.iter().take_while(|key| push(&mut rig, key) == Sent::Queued).count();
    assert_eq!((queued, rig.connection.queued_bytes()), (9, 15 + 9 * 3));
    let counted = QUEUE_BYTES + 20 + 9 * (overhead + 100);
    assert_eq!(rig.env.queued.frames, counted);
    // A message with a short key still fits into the queue. A message with a long key does not fit.
    assert_eq!(push(&mut rig, &keys[0][..7]), Sent::Queued);
    assert_eq!(push(&mut rig, &keys[0]), Sent::Full);
    let mut newer = Outbound::message(Opcode::Text, b"y");
    newer.key = Some(&keys[0]);
    assert!(rig.connection.conflate(&mut newer, &mut rig.env));
    rig.connection.check_invariants();
    assert_eq!(rig.env.queued.frames, counted + overhead + 10);
    rig.connection.close_slow(usize::MAX, &mut rig.env);
    rig.connection.check_invariants();
    assert!(rig.env.queued.frames < QUEUE_BYTES + 60, "keys must be freed with their messages");
    rig.connection.release(&mut rig.env);
    assert_eq!(rig.env.queued.frames, 0);
}

#[test]
fn an_encoded_frame_is_sent_unchanged() {
    let mut rig = Rig::open(Limits::default());
    let frame = Frame::text("made before");
    rig.connection.send(&mut Outbound::frame(&frame), &mut rig.env);
    assert_eq!(rig.written(), frame.as_bytes());
}
