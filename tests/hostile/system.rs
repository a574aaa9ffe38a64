//! Tests overload and failures at small scale: no free descriptors, many simultaneous connects, stalled readers, a
//! flooding client, hash flooding, panics, SIGTERM, and connection churn.
//!
//! No test of this file asserts a duration. Each test compares counts, bytes and order, and each wait has a long
//! deadline. `tests/soak.sh` runs the test `connect_close_cycles_release_all_resources` with more cycles.

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::child::{Child, Role};
use crate::common::raw::{CLOSE, TEXT, UPGRADE, close_payload, frame};
use crate::common::{
    Client, DEADLINE, Raw, TestServer, channel, echo, limits_with_long_times, report_close, serve, tls,
};
use crate::wire::Wire;
use fdpush::{
    Cause, Change, Closed, Context, Fd, Handler, Limits, Message, Outcome, Request, Response, SlowReader, Upgrade,
};

/// The servers that the tests of this file start as child processes.
pub const ROLES: &[Role] = &[
    ("greedy", |server| server.limits(Limits { connections_max: Some(10_000), ..limits_with_long_times() })),
    ("ticking", |server| {
        let server = server.limits(Limits { drain_time_max: Duration::from_secs(3600), ..limits_with_long_times() });
        let mut number = 0u64;
        let every_ms = |ctx: &mut Context<'_>| _ = ctx.set_interval(Duration::from_millis(1));
        server.on_start(every_ms).on_timer(move |ctx, _| {
            number += 1;
            ctx.broadcast(&number.to_string());
        })
    }),
    ("mapping", |server| server.on_open(map)),
];

/// Adds a connection to all maps of the server: gives it a uid, groups and its own heartbeat.
fn map(ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
    let uid = request.query("uid").expect("the query has a uid");
    assert_eq!(ctx.bind(fd, &uid), Change::Done);
    for group in ["all", "one of several", &uid] {
        assert_eq!(ctx.join(fd, group), Change::Done);
    }
    let heartbeat = fdpush::Heartbeat::Client { idle_max: Duration::from_secs(3600) };
    assert_eq!(ctx.set_heartbeat(fd, heartbeat), Ok(Change::Done));
}

/// Sends an upgrade request. Returns the status of the response, and the connection.
fn offer(child: &Child) -> (u16, Wire) {
    let mut wire = child.connect();
    wire.send(UPGRADE.as_bytes());
    let status = status(&mut wire);
    (status, wire)
}

/// Returns the status of the response. A TLS listener over a limit refuses a client with an alert, which counts as 503.
fn status(wire: &mut Wire) -> u16 {
    let has_response = wire.read_until(|received| !received.replies.is_empty());
    assert!(has_response || wire.is_refused(), "the server must send a response or a TLS alert");
    wire.received().replies.first().map_or(503, |reply| reply.status)
}

#[test]
fn without_free_descriptors_clients_get_503_and_freed_ones_are_reused() {
    const DESCRIPTORS: usize = 128;
    let child = Child::start_with_descriptors(DESCRIPTORS as u32, "greedy");
    let idle = child.descriptors();

    // All clients connect before the test reads the first response.
    let mut offered: Vec<Wire> = (0..400).map(|_| child.begin()).collect();
    offered.iter_mut().for_each(|wire| wire.queue(UPGRADE.as_bytes()));
    let (mut opened, mut refused) = (Vec::new(), 0);
    for mut wire in offered {
        match status(&mut wire) {
            101 => opened.push(wire),
            503 => refused += 1,
            status => panic!("{status}"),
        }
    }
    assert!(
        (DESCRIPTORS / 2..DESCRIPTORS).contains(&opened.len()),
        "at least half of the descriptors must belong to WebSockets: {} opened, {refused} refused",
        opened.len()
    );

    // New clients get 503. The server must sleep between two of these clients. A busy loop would use a whole core.
    let (since, ticks) = (Instant::now(), child.cpu_ticks());
    let (mut tx, mut late) = (0, 0);
    while since.elapsed() < Duration::from_secs(1) {
        match offer(&child) {
            (503, _) => tx += 1,
            // The server may accept one client here. While the 400 clients connected, a request of this test for the
            // stats could still use a descriptor, and this descriptor may be free now.
            (101, wire) => {
                opened.push(wire);
                late += 1;
            }
            (status, _) => panic!("{status}"),
        }
    }
    assert!(tx > 0 && late <= 1, "at most one client may be accepted: {tx} refused, {late} accepted");
    let elapsed_ticks = since.elapsed().as_millis() as u64 / 10;
    let used = child.cpu_ticks() - ticks;
    assert!(used * 4 <= elapsed_ticks, "at most a quarter of a core may be used: {used} of {elapsed_ticks} ticks");

    // New clients get the freed descriptors. A client that connects before a descriptor is free gets 503 and retries.
    for _ in 0..3 {
        opened.drain(..10);
        let deadline = Instant::now() + DEADLINE;
        let mut taken = 0;
        while taken < 10 {
            match offer(&child) {
                (101, wire) => {
                    opened.push(wire);
                    taken += 1;
                }
                _ => assert!(Instant::now() < deadline, "all 10 freed descriptors must be reused, not only {taken}"),
            }
        }
    }
    for wire in &mut opened {
        wire.send(&frame(CLOSE, &close_payload(1000, "")));
        wire.read_to_end();
        assert_eq!(wire.received().close_code(), Some(1000), "a WebSocket must stay open until its client closes it");
    }
    drop(opened);
    child.wait_for_stat("open", |open| open == 0);
    child.wait_for_stat("connections", |connections| connections <= 1);
    let used = child.descriptors();
    assert!(used <= idle + 1, "at most one new descriptor may be open: {used} open, {idle} at the start");
}

/// Blocks the loop until the sender is dropped.
fn block_loop(server: &TestServer) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (begin, begun) = channel();
    let call = move |_: &mut Context<'_>| {
        begin.send(()).expect("the test has not dropped the receiver");
        let _ = held.recv();
    };
    drop(server.remote.call(call).sent().expect("the inbox has room"));
    begun.next();
    release
}

#[test]
fn a_thousand_simultaneous_connects_are_all_served() {
    const CLIENTS: usize = 1_000;
    let server = serve(|server| server.on_message(echo));
    let held = block_loop(&server);
    // The loop is blocked and accepts no connection, so all clients wait in the backlog of the listener.
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| Wire::begin(server.address())).collect();
    clients.iter_mut().for_each(|wire| wire.queue(&[UPGRADE.as_bytes(), &frame(TEXT, b"here")].concat()));
    drop(held);
    for wire in &mut clients {
        assert_eq!(status(wire), 101);
        assert!(wire.read_until(|received| received.frames == [(0x81, b"here".to_vec())]));
    }
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!((stats.open, stats.accepted, stats.refused), (CLIENTS, CLIENTS as u64, 0));
}

pub const TOTAL_MAX: usize = 1 << 20;

/// Pushes more than the total bound to 200 stalled readers and checks the bound after every push. Returns the clients
/// and the number of messages queued for each.
fn push_to_stalled_readers(
    server: &TestServer,
    push: fn(&mut Context<'_>, Fd, &[u8]) -> Outcome,
) -> Vec<(Client, usize)> {
    const READERS: usize = 200;
    const ROUNDS: usize = 64;
    let mut readers: Vec<(Client, usize)> = (0..READERS).map(|_| (server.connect("/"), 0)).collect();
    for round in 0..ROUNDS {
        let fds: Vec<Fd> = readers.iter().map(|(client, _)| client.fd()).collect();
        let (outcomes, most) = server.ask(move |ctx| {
            let mut message = vec![0; 16 << 10];
            message[..8].copy_from_slice(&round.to_be_bytes());
            let mut most = 0;
            let mut outcome = |fd| {
                let outcome = push(ctx, fd, &message);
                most = most.max(ctx.stats().queued_bytes);
                outcome
            };
            (fds.into_iter().map(&mut outcome).collect::<Vec<Outcome>>(), most)
        });
        assert!(most <= TOTAL_MAX, "at most {TOTAL_MAX} bytes may be queued in round {round}, not {most}");
        for ((_, queued), outcome) in readers.iter_mut().zip(outcomes) {
            *queued += usize::from(outcome == Outcome::Queued);
        }
    }
    readers
}

pub fn limits_with(slow_reader: SlowReader) -> Limits {
    Limits {
        message_bytes_max: 128 << 10,
        queue_bytes_max: 256 << 10,
        queue_total_bytes_max: TOTAL_MAX,
        slow_reader,
        ..limits_with_long_times()
    }
}

#[test]
fn with_close_stalled_readers_are_closed_at_the_total_bound() {
    let (tx, rx) = channel();
    let server = serve(|server| server.limits(limits_with(SlowReader::Close)).on_close(report_close(tx)));
    let readers = push_to_stalled_readers(&server, |ctx, fd, bytes| ctx.push(fd, bytes));
    assert_eq!(rx.next().1.cause, Cause::SlowConsumer);
    // The server still serves a new client.
    let mut next = server.connect("/");
    let fd = next.fd();
    assert_eq!(server.ask(move |ctx| ctx.push(fd, "room")), Outcome::Queued);
    assert_eq!(next.text(), "room");
    drop(readers);
    server.wait_until("no bytes are queued", |ctx| ctx.stats().queued_bytes == 0);
}

#[test]
fn with_drop_newest_stalled_readers_get_no_new_messages_at_the_total_bound() {
    let server = serve(|server| server.limits(limits_with(SlowReader::DropNewest)));
    let readers = push_to_stalled_readers(&server, |ctx, fd, bytes| ctx.push(fd, bytes));
    let mut stayed = 0;
    for (mut client, _) in readers {
        // The server closes a client only if it has written a part of a message to the client. The server cannot drop
        // such a message.
        let fd = client.fd();
        if let Some(info) = server.ask(move |ctx| ctx.info(fd).filter(|_| ctx.is_open(fd))) {
            // The reader does not get the messages that the server dropped from the longest queues.
            let queued = info.traffic.messages_out;
            let rounds: Vec<u64> = (0..queued).map(|_| number(&client.binary())).collect();
            assert!(rounds.is_sorted_by(|a, b| a < b), "queued messages must arrive once and in order: {rounds:?}");
            stayed += 1;
        }
    }
    // When the queues reach the bound, the server frees a sixteenth of the bound. The queues of the remaining readers
    // hold the other fifteen sixteenths.
    assert!(
        stayed >= TOTAL_MAX / 16 * 15 / (17 << 10),
        "enough readers must stay connected to hold fifteen sixteenths of the bound, not only {stayed}"
    );
    server.wait_until("no bytes are queued", |ctx| ctx.stats().queued_bytes == 0);
}

#[test]
fn with_conflate_stalled_readers_get_the_newest_messages_at_the_total_bound() {
    let server = serve(|server| server.limits(limits_with(SlowReader::Conflate)));
    let push = |ctx: &mut Context<'_>, fd, bytes: &[u8]| ctx.push(fd, Message::Binary(bytes).key("state"));
    let readers = push_to_stalled_readers(&server, push);
    for (mut client, _) in readers {
        let fd = client.fd();
        if !server.ask(move |ctx| ctx.is_open(fd)) {
            continue;
        }
        let mut last = None;
        let mut is_queued = false;
        while last != Some(u64::MAX) {
            // The test repeats this push until the queue has room. The queue has more room after each message that the
            // client reads.
            is_queued = is_queued || server.ask(move |ctx| push(ctx, fd, &u64::MAX.to_be_bytes()).is_queued());
            let round = number(&client.binary());
            assert!(last.is_none_or(|last| round > last), "rounds must arrive in order: {round} after {last:?}");
            last = Some(round);
        }
    }
}

pub fn number(message: &[u8]) -> u64 {
    u64::from_be_bytes(*message.first_chunk().expect("the value is a number"))
}

#[test]
fn a_client_that_sends_much_does_not_starve_others() {
    const BUDGET: usize = 4 << 10;
    const QUIET: usize = 50;
    let (tx, rx) = channel();
    let limits = Limits { read_budget_bytes: BUDGET, ..limits_with_long_times() };
    let server = serve(move |server| {
        server.limits(limits).on_message(move |_, _, message| {
            tx.send(message.as_text() == Some("busy")).expect("the test has not dropped the receiver");
        })
    });
    let mut busy = Wire::connect(server.address());
    busy.send(UPGRADE.as_bytes());
    assert_eq!(status(&mut busy), 101);
    let mut quiet: Vec<Raw> = (0..QUIET).map(|_| Raw::upgraded(server.address())).collect();

    let held = block_loop(&server);
    let message_frame = frame(TEXT, b"busy");
    let sent = busy.fill(&message_frame.repeat(20_000)) / message_frame.len();
    quiet.iter_mut().for_each(|raw| raw.send_frame(TEXT, b"quiet"));
    drop(held);

    // In each turn, the loop reads at most `read_budget_bytes` from the busy client, and all bytes that other clients
    // sent.
    let a_turn = BUDGET / message_frame.len() + 1;
    assert!(sent > 4 * a_turn, "the kernel must accept the messages of several turns, not only {sent}");
    let (mut busy_messages, mut left) = (0, QUIET);
    while left > 0 {
        if rx.next() { busy_messages += 1 } else { left -= 1 }
    }
    assert!(
        busy_messages <= 2 * a_turn,
        "the other clients must be read within two turns, not after {busy_messages} messages of the busy client"
    );
}

/// Returns different names that have the same polynomial hash. Names made from the pair `Aa`, `BB` collide with the
/// factor 31, and names made from the pair `Ez`, `FY` with the factor 33.
fn colliding_names(pair: [&str; 2], count: usize) -> Vec<String> {
    let name = |number: usize| (0..17).map(|bit| pair[number >> bit & 1]).collect();
    let names: Vec<String> = (0..count).map(name).collect();
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), count);
    names
}

#[test]
fn a_hundred_thousand_names_with_colliding_hashes_take_no_more_time_than_others() {
    const NAMES: usize = 100_000;
    let limits = Limits { connection_groups_max: NAMES, ..limits_with_long_times() };
    let server = serve(|server| server.limits(limits));
    let client = server.connect("/");
    let fd = client.fd();
    // If the server used a polynomial hash, the joins of these groups would take 5,000,000,000 comparisons and exceed
    // the deadline.
    for pair in [["Aa", "BB"], ["Ez", "FY"]] {
        let names = colliding_names(pair, NAMES);
        server.ask(move |ctx| {
            for name in &names {
                assert_eq!(ctx.join(fd, name), Change::Done);
                assert_eq!(ctx.bind(fd, name), Change::Done);
            }
            assert_eq!((ctx.stats().groups, ctx.stats().users), (NAMES, 1));
            assert!(names.iter().all(|name| ctx.is_member(fd, name)));
            assert!(names.iter().all(|name| ctx.ungroup(name) == 1));
            assert_eq!(ctx.stats().groups, 0);
        });
    }
    let long = "x".repeat(fdpush::NAME_BYTES_MAX + 1);
    let changes = server.ask(move |ctx| [ctx.bind(fd, &long), ctx.join(fd, &long), ctx.bind(fd, ""), ctx.join(fd, "")]);
    assert_eq!(changes, [Change::BadName; 4]);
}

/// A handler in which each callback can panic. `on_notice` and `on_timer` always panic. The client selects the other
/// callbacks by the request target or by the payload of a message, ping or pong.
struct Brittle;

impl Handler for Brittle {
    fn on_upgrade(&mut self, _: &mut Context<'_>, _: Fd, request: &Request<'_>) -> Upgrade {
        assert_ne!(request.target(), "/upgrade", "the test requested this panic");
        Upgrade::accept().into()
    }

    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
        ctx.bind(fd, request.target());
        ctx.join(fd, "all");
        assert_ne!(request.target(), "/open", "the test requested this panic");
    }

    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
        echo(ctx, fd, message);
        assert_ne!(message.as_text(), Some("message"), "the test requested this panic");
    }

    fn on_ping(&mut self, _: &mut Context<'_>, _: Fd, payload: &[u8]) {
        assert_ne!(payload, b"ping", "the test requested this panic");
    }

    fn on_pong(&mut self, _: &mut Context<'_>, _: Fd, payload: &[u8]) {
        assert_ne!(payload, b"pong", "the test requested this panic");
    }

    fn on_close(&mut self, ctx: &mut Context<'_>, fd: Fd, _: &Closed) {
        assert_ne!(ctx.uid_of(fd), Some("/close"), "the test requested this panic");
    }

    fn on_request(&mut self, _: &mut Context<'_>, _: Fd, request: &Request<'_>) -> Option<Response> {
        assert_ne!(request.target(), "/request", "the test requested this panic");
        None
    }

    fn on_notice(&mut self, _: &mut Context<'_>, _: fdpush::Notice) {
        panic!("the test requested this panic");
    }

    fn on_timer(&mut self, _: &mut Context<'_>, _: fdpush::TimerId) {
        panic!("the test requested this panic");
    }
}

#[test]
fn a_panic_in_a_handler_ends_one_connection_only() {
    let server = serve(|server| server.handler(Brittle));
    let upgrade = |target: &str| UPGRADE.replacen("GET / ", &format!("GET {target} "), 1);
    let open = |target: &str| {
        let mut raw = server.raw();
        raw.send(upgrade(target));
        assert_eq!(raw.reply().status, 101);
        raw
    };
    let mut other = open("/other");
    let mut is_well = || {
        other.send_frame(TEXT, b"still there?");
        assert_eq!(other.frame(), (0x81, b"still there?".to_vec()));
    };
    for (target, status) in [("/upgrade", 500), ("/open", 101)] {
        let mut raw = server.raw();
        raw.send([upgrade(target).as_bytes(), &frame(TEXT, b"hi")].concat());
        assert_eq!(raw.reply().status, status, "{target}");
        if status == 101 {
            assert_eq!(raw.close_frame().0, 1011, "{target}");
        }
        is_well();
    }
    let mut raw = server.raw();
    raw.send("GET /request HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(raw.reply().status, 500);
    raw.end();
    for (opcode, word) in [(TEXT, "message"), (crate::common::raw::PING, "ping"), (crate::common::raw::PONG, "pong")] {
        let mut raw = open("/");
        raw.send([frame(opcode, word.as_bytes()), frame(TEXT, b"late")].concat());
        assert_eq!(raw.close_frame(), (1011, "internal error".to_owned()), "{word}");
        is_well();
    }
    let mut raw = open("/close");
    raw.send_frame(CLOSE, &close_payload(1000, ""));
    assert_eq!(raw.close_frame().0, 1000);
    server.remote.notify(Box::new(())).expect("the inbox has room");
    server.ask(|ctx| ctx.set_timer(Duration::ZERO));
    server.ask(|ctx| ctx.set_interval(Duration::from_millis(1)));
    is_well();
    server.wait_until("one connection is left", |ctx| ctx.stats().open == 1);
    assert_eq!(
        server.ask(|ctx| (ctx.stats().users, ctx.member_count("all"))),
        (1, 1),
        "the maps must have only the uid and the membership of the open connection"
    );
}

#[test]
fn a_panic_in_a_call_returns_an_error_to_the_caller() {
    let server = serve(|server| server.on_message(echo));
    let mut client = server.connect("/");
    let reply = server.remote.call(|_| panic!("the test requested this panic")).sent().expect("the inbox has room");
    let reply: Result<(), fdpush::RemoteError> = reply.wait_timeout(DEADLINE);
    assert!(reply.is_err());
    client.send("still there?");
    assert_eq!(client.text(), "still there?");
}

#[test]
fn sigterm_under_load_flushes_closes_with_1001_and_exits_with_0() {
    const CLIENTS: usize = 200;
    let mut child = Child::start("ticking");
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| Raw::upgraded(child.address)).collect();
    let first: Vec<u64> = clients.iter_mut().map(|raw| tick(raw).expect("the value is a number")).collect();
    child.terminate();
    let mut lasts = HashSet::new();
    for (raw, first) in clients.iter_mut().zip(first) {
        let mut last = first;
        while let Some(number) = tick(raw) {
            assert_eq!(number, last + 1, "each push must arrive once");
            last = number;
        }
        raw.send_frame(CLOSE, &close_payload(1001, ""));
        raw.end();
        lasts.insert(last);
    }
    assert_eq!(lasts.len(), 1, "all clients must receive the same last number: {lasts:?}");
    assert!(child.wait().success());
}

/// Returns the next number, or `None` at the close frame.
fn tick(raw: &mut Raw) -> Option<u64> {
    match raw.frame() {
        (0x81, text) => {
            Some(String::from_utf8(text).expect("the text is UTF-8").parse().expect("the value is a number"))
        }
        (0x88, payload) => {
            assert_eq!(payload.get(..2), Some(&1001u16.to_be_bytes()[..]));
            None
        }
        other => panic!("{other:?}"),
    }
}

/// Connects `count` times, 100 clients at a time. Half of the clients make a close handshake, and the others disconnect
/// without it.
fn cycle(child: &Child, count: usize) {
    const AT_A_TIME: usize = 100;
    for batch in 0..count / AT_A_TIME {
        let open = |number: usize| {
            let mut wire = child.connect();
            let target = format!("GET /?uid={}-{number} ", batch % 7);
            wire.send(UPGRADE.replacen("GET / ", &target, 1).as_bytes());
            wire
        };
        let mut wires: Vec<Wire> = (0..AT_A_TIME).map(open).collect();
        for (number, wire) in wires.iter_mut().enumerate() {
            assert_eq!(status(wire), 101);
            if number % 2 == 0 {
                wire.send(&frame(CLOSE, &close_payload(1000, "")));
                wire.read_to_end();
                assert_eq!(wire.received().close_code(), Some(1000));
            }
        }
    }
    child.wait_for_stat("open", |open| open == 0);
    child.wait_for_stat("connections", |connections| connections <= 1);
}

#[test]
fn connect_close_cycles_release_all_resources() {
    const WARM_UP: usize = 2_000;
    // A TLS handshake takes many times as long as a connect, so there are fewer cycles by default.
    let default = if tls::IS_TLS { 4_000 } else { 20_000 };
    let cycles =
        std::env::var("FDPUSH_CYCLES").map_or(default, |count| count.parse().expect("FDPUSH_CYCLES is a number"));
    let child = Child::start("mapping");
    let descriptors = child.descriptors();
    cycle(&child, WARM_UP);
    let memory = child.memory();
    cycle(&child, cycles);
    for name in ["open", "users", "groups", "queued_bytes"] {
        assert_eq!(child.stat(name), 0, "{name}");
    }
    for name in ["opened", "closed"] {
        assert_eq!(child.stat(name), (WARM_UP + cycles) as u64, "{name}");
    }
    child.wait_for_stat("connections", |connections| connections <= 1);
    assert!(
        child.descriptors() <= descriptors + 1,
        "at most one new descriptor may be open: {} open, {descriptors} before",
        child.descriptors()
    );
    let grown = child.memory().saturating_sub(memory);
    assert!(grown <= 1 << 20, "memory must grow by at most 1 MiB in {cycles} cycles, not by {grown} bytes");
}
