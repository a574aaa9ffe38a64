//! Tests the drain: clients get the close code 1001, queued messages are sent, and `run` returns.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::raw::{CLOSE, TEXT, close_payload};
use crate::common::{Raw, UNSHARED, channel, limits_with_long_times, report_close, serve, serve_on};
use fdpush::{By, Cause, CloseCode, CloseOutcome, Limits, RemoteError, Response, Upgrade};

#[test]
fn a_drain_closes_every_websocket_with_1001_and_run_returns() {
    let (tx, rx) = channel();
    let server = serve_on(UNSHARED, move |server| server.on_close(report_close(tx)));
    let mut clients = [server.connect("/?uid=ann"), server.connect("/"), server.connect("/")];
    let address = server.address();
    let remote = server.remote.clone();
    remote.shutdown().expect("the inbox has room");
    for client in &mut clients {
        assert_eq!(client.closed().0, 1001);
        let (_, closed) = rx.next();
        assert_eq!((closed.code, closed.by, closed.cause), (CloseCode::GOING_AWAY, By::Server, Cause::Drained));
    }
    drop(clients);
    let mut server = server;
    assert!(server.wait_for_end().is_ok());
    assert!(TcpStream::connect(address).is_err(), "the listener must be closed");
    assert_eq!(remote.shutdown(), Err(RemoteError::Closed));
}

#[test]
fn queued_messages_are_sent_before_the_1001() {
    let server = serve(|server| server);
    let mut client = server.connect("/");
    server.ask(|ctx| {
        for index in 0..30 {
            assert_eq!(ctx.broadcast(&format!("{index} {}", "x".repeat(20_000))).queued, 1);
        }
        ctx.shutdown();
        assert_eq!(ctx.broadcast("too late").matched, 0);
    });
    for index in 0..30 {
        assert!(client.text().starts_with(&format!("{index} ")));
    }
    assert_eq!(client.closed().0, 1001);
}

#[test]
fn during_a_drain_on_close_can_use_the_context() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.on_close(move |ctx, fd, _| tx.send(ctx.uid_of(fd).map(str::to_owned)).expect("the test waits"))
    });
    let client = server.connect("/?uid=ann");
    server.remote.shutdown().expect("the inbox has room");
    assert_eq!(rx.next().as_deref(), Some("ann"));
    drop(client);
}

#[test]
fn a_drain_with_spread_closes_connections_over_time() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        let limits = Limits {
            drain_for: Duration::from_secs(3600),
            drain_time_max: Duration::from_secs(7200),
            ..limits_with_long_times()
        };
        server.limits(limits).on_close(report_close(tx))
    });
    let mut clients = [server.connect("/"), server.connect("/"), server.connect("/")];
    server.remote.shutdown().expect("the inbox has room");
    assert_eq!(clients[0].closed().0, 1001);
    assert_eq!(rx.next().1.cause, Cause::Drained);
    let open = server.ask(|ctx| (ctx.is_draining(), ctx.broadcast("still here").queued));
    assert_eq!(open, (true, 2), "the drain must not close the other clients yet");
    assert_eq!(clients[2].text(), "still here");
}

#[test]
fn a_drain_without_connections_ends_at_once() {
    assert!(serve(|server| server).stop().is_ok());
}

#[test]
fn a_drain_can_be_started_by_a_handler() {
    let server = serve(|server| server.on_message(|ctx, _, _| ctx.shutdown()));
    let mut client = server.connect("/");
    client.send("go down");
    assert_eq!(client.closed().0, 1001);
}

#[test]
fn a_drain_closes_idle_http_connections_and_answers_running_requests() {
    let (tx, upgrades) = channel();
    let server = serve(move |server| {
        server.on_request(|_, _, _| Response::text(200, "fine\n")).on_upgrade(move |ctx, fd, _| {
            let (later, ticket) = ctx.defer_upgrade(fd);
            tx.send(ticket).expect("the test waits");
            later
        })
    });
    let mut idle = server.raw();
    idle.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(idle.reply().keeps_alive());
    let mut waiting = server.raw();
    waiting.send(crate::common::raw::UPGRADE);
    let ticket = upgrades.next();
    server.remote.shutdown().expect("the inbox has room");
    idle.end();
    assert_eq!(waiting.reply().status, 503);
    waiting.end();
    // The drain has already answered the upgrade with 503, so the answer of this ticket is ignored.
    let _ = ticket.answer(Upgrade::accept());
}

#[test]
fn a_drain_does_not_wait_for_connections_without_a_request() {
    // An hour is longer than the deadline of the test. So if the drain waited for one of these limits, the test would
    // fail.
    let hour = Duration::from_secs(3600);
    let limits = Limits { close_wait_max: hour, drain_time_max: hour, ..limits_with_long_times() };
    let server = serve(move |server| server.limits(limits).on_request(|_, _, _| Response::text(200, "fine\n")));
    let silent = server.raw();
    let mut idle = server.raw();
    idle.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(idle.reply().keeps_alive());
    server.wait_until("both connections are accepted", |ctx| ctx.stats().connections == 2);
    // Neither of the two clients closes its connection.
    assert!(server.stop().is_ok());
    idle.end();
    drop(silent);
}

#[test]
fn a_drain_answers_a_partial_request_with_503() {
    let server = serve(|server| server);
    let (mut begun, head) = (server.raw(), "GET / HT");
    begun.send(head);
    let (mut uploading, half) = (server.raw(), "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    uploading.send(half);
    let sent = (head.len() + half.len()) as u64;
    server.wait_until("the server has read both requests", move |ctx| ctx.stats().traffic.bytes_in == sent);
    server.remote.shutdown().expect("the inbox has room");
    for mut raw in [begun, uploading] {
        let reply = raw.reply();
        assert_eq!((reply.status, reply.keeps_alive()), (503, false));
        raw.end();
    }
}

#[test]
fn after_drain_time_max_remaining_clients_are_disconnected() {
    let limits = Limits { drain_time_max: Duration::from_millis(50), ..limits_with_long_times() };
    let server = serve(|server| server.limits(limits));
    let mut unresponsive = Raw::upgraded(server.address());
    assert!(server.stop().is_ok());
    assert_eq!(unresponsive.close_frame().0, 1001);
    unresponsive.end();
}

#[test]
fn after_drain_time_max_each_open_connection_still_has_its_on_close() {
    // The drain needs more than two turns to close this number of connections. The first turn alone takes longer than
    // `drain_time_max`.
    const COUNT: usize = 600;
    let drain_time_max = Duration::from_millis(20);
    let (tx, rx) = channel();
    let limits = Limits { drain_time_max, ..limits_with_long_times() };
    let server = serve(move |server| {
        server.limits(limits).on_close(move |_, fd, closed| {
            let until = Instant::now() + drain_time_max / 100;
            while Instant::now() < until {}
            tx.send((fd, closed.cause)).expect("the test waits");
        })
    });
    let mut clients: Vec<Raw> = (0..COUNT).map(|_| Raw::upgraded(server.address())).collect();
    assert!(server.stop().is_ok());
    let mut closed = rx.so_far();
    assert!(closed.iter().all(|(_, cause)| *cause == Cause::Drained), "{closed:?}");
    closed.sort_by_key(|(fd, _)| *fd);
    closed.dedup_by_key(|(fd, _)| *fd);
    assert_eq!(closed.len(), COUNT);
    for client in &mut clients {
        assert_eq!(client.close_frame().0, 1001);
    }
}

#[test]
fn a_drain_waits_for_the_close_handshake() {
    let server = serve(|server| server);
    let mut client = Raw::upgraded(server.address());
    server.remote.shutdown().expect("the inbox has room");
    let (code, reason) = client.close_frame();
    assert_eq!(code, 1001);
    assert!(!reason.is_empty());
    client.send_frame(TEXT, b"crossed your close frame");
    client.send_frame(CLOSE, &close_payload(1001, ""));
    client.end();
}

#[test]
fn a_second_drain_has_no_effect() {
    let server = serve(|server| server);
    let mut client = server.connect("/");
    let fd = client.fd();
    server.ask(move |ctx| {
        ctx.shutdown();
        ctx.shutdown();
        assert_eq!(ctx.close(fd, 4000u16, "late"), CloseOutcome::Gone);
    });
    assert_eq!(client.closed().0, 1001);
}

#[test]
fn a_drain_does_not_call_on_timer() {
    let (tx, rx) = channel();
    let limits = Limits { drain_time_max: Duration::from_millis(50), ..limits_with_long_times() };
    let server =
        serve(move |server| server.limits(limits).on_timer(move |_, timer| tx.send(timer).expect("the test waits")));
    let _stubborn = Raw::upgraded(server.address());
    assert!(server.stop().is_ok());
    assert!(rx.so_far().is_empty());
}

#[test]
fn a_request_that_starts_the_drain_gets_its_response() {
    let mut server = serve(|server| {
        server.on_request(|ctx, _, _| {
            ctx.shutdown();
            Response::text(200, "going down\n")
        })
    });
    let mut raw = server.raw();
    raw.send("GET /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = raw.reply();
    assert_eq!((reply.status, &*reply.body), (200, "going down\n"));
    assert!(!reply.keeps_alive());
    raw.end();
    drop(raw);
    server.wait_for_end().expect("the drain ends without an error");
}
