//! Tests each heartbeat mode, with clients that send messages, answer pings, or do neither.
//!
//! The heartbeat intervals are short, and no test measures time. A test checks that an event happens, or that the event
//! has not happened when the client has received a certain number of pings.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::raw::{PING, PONG, TEXT, frame};
use crate::common::{Raw, TestReceiver, TestServer, channel, report_close, serve, succeeds_with_longer_time};
use fdpush::{By, Cause, Change, CloseCode, Closed, Context, Fd, Heartbeat};

const SHORT: Duration = Duration::from_millis(50);

/// The `missed_max` of the tests in which a client answers pings.
const MISSED_MAX: u32 = 3;

/// A number of pings above `MISSED_MAX`.
const PINGS: usize = 10;

/// An interval that is longer than any test.
const LONG: Duration = Duration::from_secs(3600);

fn serve_with(heartbeat: Heartbeat) -> (TestServer, TestReceiver<(Fd, Closed)>) {
    let (tx, rx) = channel();
    let server =
        serve(move |server| server.heartbeat(heartbeat).on_message(crate::common::echo).on_close(report_close(tx)));
    (server, rx)
}

fn expect_heartbeat_missed(rx: &TestReceiver<(Fd, Closed)>) -> Fd {
    let (fd, closed) = rx.next();
    assert_eq!((closed.by, closed.cause), (By::Server, Cause::HeartbeatMissed));
    assert_eq!((closed.code, &*closed.reason), (CloseCode::ABNORMAL, ""));
    fd
}

fn next_ping(raw: &mut Raw) -> Vec<u8> {
    let (first, payload) = raw.frame();
    assert_eq!(first, 0x80 | PING);
    payload
}

fn is_open(server: &TestServer, slot: u64) -> bool {
    let fd = Fd::from_u64(slot).expect("the fd is valid");
    server.ask(move |ctx| ctx.is_open(fd))
}

#[test]
fn in_client_mode_a_silent_client_is_disconnected_without_a_close_frame() {
    let (server, rx) = serve_with(Heartbeat::Client { idle_max: SHORT });
    let mut silent = Raw::upgraded(server.address());
    assert_eq!(expect_heartbeat_missed(&rx).as_u64(), 1);
    silent.end();
}

/// Returns whether a client that sends is still connected when a silent client is disconnected after `idle_max`.
fn outlives_a_silent_client(idle_max: Duration) -> bool {
    let (tx, rx) = channel();
    let server = serve(move |server| server.heartbeat(Heartbeat::Off).on_close(report_close(tx)));
    let [mut reporter, _silent] = [Raw::upgraded(server.address()), Raw::upgraded(server.address())];
    let [own, other] = [1, 2].map(|number| Fd::from_u64(number).expect("the fd is valid"));
    // The heartbeat timeouts of both clients start together. So when the server disconnects the silent client, the
    // other client (`reporter`) is still connected only because it sends messages.
    server.ask(move |ctx| {
        for fd in [own, other] {
            assert_eq!(ctx.set_heartbeat(fd, Heartbeat::Client { idle_max }), Ok(Change::Done));
        }
    });
    while server.ask(move |ctx| ctx.is_open(own) && ctx.is_open(other)) {
        reporter.try_send(frame(TEXT, b"alive"));
    }
    expect_heartbeat_missed(&rx) == other && is_open(&server, 1)
}

#[test]
fn in_client_mode_a_client_that_sends_stays_connected() {
    assert!(succeeds_with_longer_time(outlives_a_silent_client));
}

#[test]
fn in_client_mode_a_push_does_not_extend_the_deadline() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server
            .heartbeat(Heartbeat::Client { idle_max: Duration::from_millis(200) })
            .on_open(|ctx, fd, _| {
                ctx.push(fd, "are you there?");
            })
            .on_start(|ctx| {
                ctx.set_interval(Duration::from_millis(10));
            })
            .on_timer(|ctx, _| {
                ctx.broadcast("are you there?");
            })
            .on_close(report_close(tx))
    });
    let mut silent = Raw::upgraded(server.address());
    expect_heartbeat_missed(&rx);
    assert!(silent.rest().starts_with(b"\x81\x0eare you there?"));
}

/// Returns whether a client that answers each ping with this pong is still connected after `PINGS` pings.
fn stays_connected(every: Duration, answer: fn(&[u8]) -> &[u8]) -> bool {
    let (server, rx) = serve_with(Heartbeat::Ping { every, missed_max: MISSED_MAX });
    let mut client = Raw::upgraded(server.address());
    for _ in 0..PINGS {
        let Some((first, payload)) = client.try_frame() else {
            expect_heartbeat_missed(&rx);
            return false;
        };
        assert_eq!(first, 0x80 | PING);
        client.try_send(frame(PONG, answer(&payload)));
    }
    is_open(&server, 1) && rx.so_far().is_empty()
}

#[test]
fn in_ping_mode_a_client_that_answers_stays_connected() {
    assert!(succeeds_with_longer_time(|every| stays_connected(every, |payload| payload)));
}

#[test]
fn in_ping_mode_any_byte_counts_as_an_answer() {
    // RFC 6455 section 5.5.3 allows an unsolicited pong.
    assert!(succeeds_with_longer_time(|every| stays_connected(every, |_| b"here I am")));
}

#[test]
fn in_ping_mode_a_silent_client_is_disconnected_after_missed_max_pings() {
    let (server, rx) = serve_with(Heartbeat::Ping { every: SHORT, missed_max: 3 });
    let mut silent = Raw::upgraded(server.address());
    for _ in 0..3 {
        next_ping(&mut silent);
    }
    // After three unanswered pings, the server sends no other ping. The server also sends no close frame, because a
    // lost peer would not answer it.
    silent.end();
    expect_heartbeat_missed(&rx);
}

/// Returns whether a client that uses tungstenite answers `PINGS` pings of the server. After the last pong, the
/// server closes the connection.
fn gets_automatic_pongs(every: Duration) -> bool {
    let (tx, rx) = channel();
    let mut pongs = 0;
    let server = serve(move |server| {
        server
            .heartbeat(Heartbeat::Ping { every, missed_max: MISSED_MAX })
            .on_pong(move |ctx, fd, _| {
                pongs += 1;
                if pongs == PINGS {
                    ctx.close(fd, 1000, "enough");
                }
            })
            .on_close(report_close(tx))
    });
    server.connect("/").read_to_end();
    match rx.next().1.cause {
        Cause::ServerClosed => true,
        Cause::HeartbeatMissed => false,
        cause => panic!("{cause:?}"),
    }
}

#[test]
fn in_ping_mode_a_client_with_tungstenite_answers_pings_automatically() {
    assert!(succeeds_with_longer_time(gets_automatic_pongs));
}

#[test]
fn in_push_mode_a_client_that_never_answers_stays_connected() {
    let (server, rx) = serve_with(Heartbeat::Push { every: SHORT });
    let mut unresponsive = Raw::upgraded(server.address());
    for _ in 0..20 {
        next_ping(&mut unresponsive);
    }
    assert!(is_open(&server, 1), "the connection must be open after twenty pings that the client did not answer");
    assert!(rx.so_far().is_empty());
    // The connection without answers to pings still works in both directions.
    unresponsive.send_frame(TEXT, b"at last");
    loop {
        match unresponsive.frame() {
            (0x89, _) => {}
            other => break assert_eq!(other, (0x81, b"at last".to_vec())),
        }
    }
}

#[test]
fn in_push_mode_a_disconnected_client_is_detected() {
    let (server, rx) = serve_with(Heartbeat::Push { every: SHORT });
    let mut unresponsive = Raw::upgraded(server.address());
    next_ping(&mut unresponsive);
    drop(unresponsive);
    assert_eq!(rx.next().1.cause, Cause::ConnectionLost);
}

#[test]
fn in_off_mode_no_client_is_pinged_or_disconnected() {
    let (server, rx) = serve_with(Heartbeat::Off);
    let mut silent = Raw::upgraded(server.address());
    // The test waits until another server has disconnected three silent clients in turn, which takes three heartbeat
    // timeouts.
    let (clock, deaths) = serve_with(Heartbeat::Client { idle_max: SHORT });
    for _ in 0..3 {
        let _dead = Raw::upgraded(clock.address());
        expect_heartbeat_missed(&deaths);
    }
    assert!(is_open(&server, 1));
    assert!(rx.so_far().is_empty());
    server.ask(|ctx| ctx.broadcast("hello"));
    assert_eq!(silent.frame(), (0x81, b"hello".to_vec()), "no ping may arrive before the message");
}

#[test]
fn a_protected_connection_has_no_heartbeat() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server
            .heartbeat(Heartbeat::Ping { every: SHORT, missed_max: 1 })
            .on_open(|ctx, fd, request| {
                if request.target() == "/protected" {
                    assert!(ctx.protect(fd).is_done());
                }
            })
            .on_close(report_close(tx))
    });
    let mut protected = Raw::connect(server.address());
    protected.send(crate::common::raw::UPGRADE.replacen("GET / ", "GET /protected ", 1));
    assert_eq!(protected.reply().status, 101);
    for _ in 0..3 {
        let _mortal = Raw::upgraded(server.address());
        assert_ne!(expect_heartbeat_missed(&rx).as_u64(), 1);
    }
    assert!(is_open(&server, 1));
    server.ask(|ctx| ctx.broadcast("hello"));
    assert_eq!(protected.frame(), (0x81, b"hello".to_vec()), "no ping may arrive before the message");

    let fd = Fd::from_u64(1).expect("the fd is valid");
    assert!(server.ask(move |ctx| ctx.reset_heartbeat(fd).is_done()));
    assert_eq!(expect_heartbeat_missed(&rx), fd, "the heartbeat must apply again");
    assert!(!server.ask(move |ctx| ctx.exists(fd) && ctx.reset_heartbeat(fd).is_done() && ctx.is_open(fd)));
}

#[test]
fn a_connection_can_have_its_own_heartbeat() {
    let (server, rx) = serve_with(Heartbeat::Ping { every: LONG, missed_max: 2 });
    let mut pinged = Raw::upgraded(server.address());
    let mut idle = Raw::upgraded(server.address());
    let fds = [1, 2].map(|number| Fd::from_u64(number).expect("the fd is valid"));
    server.ask(move |ctx| {
        assert_eq!(ctx.set_heartbeat(fds[0], Heartbeat::Push { every: SHORT }), Ok(Change::Done));
        assert_eq!(ctx.set_heartbeat(fds[1], Heartbeat::Client { idle_max: SHORT }), Ok(Change::Done));
        let cannot_be = Heartbeat::Ping { every: Duration::ZERO, missed_max: 1 };
        assert!(ctx.set_heartbeat(fds[0], cannot_be).is_err_and(|why| why.name() == "every"));
        let unknown = Fd::from_u64(999).expect("the fd is valid");
        assert_eq!(
            ctx.set_heartbeat(unknown, Heartbeat::Off),
            Ok(Change::Gone),
            "set_heartbeat must return `Gone` if no connection has the fd"
        );
    });
    assert_eq!(expect_heartbeat_missed(&rx), fds[1]);
    idle.end();
    for _ in 0..5 {
        next_ping(&mut pinged);
    }
    assert!(is_open(&server, 1));
}

#[test]
fn a_heartbeat_can_be_set_before_the_upgrade_is_answered() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server
            .heartbeat(Heartbeat::Off)
            .on_upgrade(|ctx, fd, _| {
                assert_eq!(ctx.set_heartbeat(fd, Heartbeat::Client { idle_max: SHORT }), Ok(Change::Done));
                fdpush::Upgrade::accept()
            })
            .on_close(report_close(tx))
    });
    let mut silent = Raw::upgraded(server.address());
    expect_heartbeat_missed(&rx);
    silent.end();
}

#[test]
fn an_invalid_heartbeat_is_refused_with_its_reason() {
    for (heartbeat, name) in [
        (Heartbeat::Client { idle_max: Duration::ZERO }, "idle_max"),
        (Heartbeat::Ping { every: Duration::from_millis(1), missed_max: 2 }, "every"),
        (Heartbeat::Ping { every: LONG, missed_max: 0 }, "missed_max"),
        (Heartbeat::Push { every: Duration::ZERO }, "every"),
    ] {
        let server = fdpush::Server::bind("127.0.0.1:0").expect("the server can bind the address").catch_signals(false);
        let error = server.heartbeat(heartbeat).run().expect_err("a server with an invalid heartbeat does not run");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_client_that_sent_stays_connected_after_a_blocked_turn() {
    // There are more clients than one epoll_wait returns, so some messages are not read when the timers fire.
    const CLIENTS: usize = 700;
    let (tx, rx) = channel();
    let tx_close = tx.clone();
    let server = serve(move |server| {
        server
            .heartbeat(Heartbeat::Off)
            .on_message(move |ctx, fd, _| {
                ctx.protect(fd);
                tx.send(None).expect("the test waits");
            })
            .on_close(move |_, _, closed| _ = tx_close.send(Some(closed.cause)))
    });
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| Raw::upgraded(server.address())).collect();
    let (stalled, is_stalled) = channel();
    let (reported, have_reported) = channel::<()>();
    let stall = move |ctx: &mut Context<'_>| {
        for fd in ctx.connections().collect::<Vec<_>>() {
            assert_eq!(ctx.set_heartbeat(fd, Heartbeat::Client { idle_max: SHORT }), Ok(Change::Done));
        }
        stalled.send(()).expect("the test waits");
        let () = have_reported.next();
        let since = Instant::now();
        while since.elapsed() < 2 * SHORT {
            thread::yield_now();
        }
    };
    let reply = server.remote.call(stall).sent().expect("the inbox has room");
    is_stalled.next();
    for client in &mut clients {
        client.send_frame(TEXT, b"I am here");
    }
    reported.send(()).expect("the handler waits for the test");
    reply.wait_timeout(crate::common::DEADLINE).expect("the server answers");
    for _ in 0..CLIENTS {
        assert_eq!(rx.next(), None, "each message must arrive, and no connection may end");
    }
}
