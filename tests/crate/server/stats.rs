//! Tests the stats of the server, and the log lines about refused clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::common::log_lines::keep_log_lines;
use crate::common::raw::{TEXT, UPGRADE};
use crate::common::{Client, DEADLINE, Raw, echo, limits_with_long_times, serve, serve_plain};
use fdpush::{Fd, Heartbeat, Limits, Response, SlowReader, Stats, Upgrade};

fn refuse(address: SocketAddr, bytes: &str, status: u16) {
    let mut raw = Raw::connect(address);
    raw.send(bytes);
    assert_eq!(raw.reply().status, status, "{bytes}");
}

#[test]
fn every_refusal_is_counted_by_status_and_logged() {
    keep_log_lines();
    // On a busy machine, a client may need much time for its TLS handshake, so the time limit is long.
    let limits = Limits { head_time_max: Duration::from_secs(3600), ..limits_with_long_times() };
    let server = serve({
        let limits = limits.clone();
        move |server| {
            let server = server.limits(limits).on_upgrade(|_, _, request| match &*request.path() {
                "/taken" => Upgrade::accept().uid("").into(),
                "/no" => Upgrade::refuse(Response::text(402, "pay\n")),
                _ => Upgrade::accept().into(),
            });
            server.on_request(|_, _, request| (request.path() == "/there").then(|| Response::text(200, "")))
        }
    });
    let address = server.address();
    refuse(address, "\u{1}", 400);
    refuse(address, &UPGRADE.replace("GET", "POST"), 405);
    refuse(address, &UPGRADE.replace("Version: 13", "Version: 12"), 426);
    refuse(address, &UPGRADE.replace("GET / ", "GET /no "), 402);
    refuse(address, &UPGRADE.replace("GET / ", "GET /taken "), 400);
    refuse(address, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404);
    // `head_time_max` for the second request begins with the first byte of that request, so it does not include the TLS
    // handshake.
    let mut slow = Raw::connect(address);
    slow.send("GET /there HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(slow.reply().status, 200);
    let short = Limits { head_time_max: Duration::from_millis(100), ..limits.clone() };
    server.ask(|ctx| ctx.set_limits(short)).expect("the limits are valid");
    slow.send("GET /slow");
    assert_eq!(slow.reply().status, 408);
    server.ask(|ctx| ctx.set_limits(limits)).expect("the limits are valid");
    // The server refuses these three clients in one turn, so the log has one warning about them.
    let mut foreign: Vec<Raw> = (0..3).map(|_| Raw::connect(address)).collect();
    let (held, release) = server.hold();
    for raw in &mut foreign {
        raw.send(UPGRADE.replace("Host: localhost", "Host: localhost\r\nOrigin: http://evil.example"));
    }
    drop(release);
    held.wait_timeout(DEADLINE).expect("the server answers");
    for raw in &mut foreign {
        assert_eq!(raw.reply().status, 403);
    }
    let stats = server.ask(|ctx| ctx.stats());
    let counts = [(400, 2), (402, 1), (403, 3), (404, 1), (405, 1), (408, 1), (426, 1)];
    assert_eq!(stats.refused_by_status, BTreeMap::from(counts));
    assert_eq!((stats.refused, stats.opened), (0, 0), "no connection must be refused before its request");

    assert!(server.log_lines(&["refused with 402: by the handler"])[0].starts_with("DEBUG "));
    let (warned, each): (Vec<_>, Vec<_>) = server
        .log_lines(&["refused with 403", "http://evil.example"])
        .into_iter()
        .partition(|line| line.starts_with("WARN "));
    assert_eq!((warned.len(), each.len()), (1, 3), "{warned:?} {each:?}");
    assert!(warned[0].contains("(1 refused by origin since the last warning)"), "{warned:?}");
}

#[test]
fn a_full_server_counts_refused_clients_and_warns() {
    keep_log_lines();
    let limits = Limits { connections_max: Some(1), ..limits_with_long_times() };
    // This server has no TLS, because a TLS server would close the connection without a response. `tests/tls` tests
    // this.
    let server = serve_plain(move |server| server.limits(limits));
    let inside = server.connect("/");
    // The server refuses both clients in one turn, so the log has one warning about them.
    let (_held, release) = server.hold();
    let mut refused = [server.raw(), server.raw()];
    release.send(()).expect("the loop waits");
    refused.iter_mut().for_each(|raw| assert_eq!(raw.reply().status, 503));
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!((stats.refused, stats.refused_by_status), (2, BTreeMap::from([(503, 2)])));
    let warned = server.log_lines(&["connection limit reached (1): new clients get 503"]);
    assert!(warned.len() == 1 && warned[0].starts_with("WARN "), "{warned:?}");
    drop(inside);
}

#[test]
fn closes_are_counted_by_cause_and_traffic_includes_closed_connections() {
    let server = serve(|server| server.on_message(echo));
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect("/")).collect();
    for client in &mut clients {
        client.send("hello");
        assert_eq!(client.text(), "hello");
    }
    let fds: Vec<Fd> = clients.iter().map(Client::fd).collect();
    clients[0].close(1000, "");
    assert_eq!(clients[0].closed().0, 1000);
    server.ask(move |ctx| ctx.close(fds[1], 4000, "out"));
    assert_eq!(clients[1].closed().0, 4000);
    let mut raw = Raw::upgraded(server.address());
    raw.send_frame(TEXT, b"\xff");
    assert_eq!(raw.close_frame().0, 1007);
    server.wait_until("three connections have ended", |ctx| ctx.stats().closed == 3);
    let stats = server.ask(|ctx| ctx.stats());
    let causes = [("client_closed", 1), ("protocol_error", 1), ("server_closed", 1)];
    assert_eq!(stats.closed_by_cause, BTreeMap::from(causes));
    assert_eq!((stats.accepted, stats.opened, stats.closed, stats.open), (4, 4, 3, 1));
    assert_eq!((stats.traffic.messages_in, stats.traffic.messages_out), (3, 3));
    assert!(
        stats.traffic.bytes_in > 4 * 100 && stats.traffic.bytes_out > 4 * 100,
        "the bytes of HTTP heads must be counted: {stats:?}"
    );
    assert!(stats.reads >= 7 && stats.writes >= 7, "{stats:?}");
}

#[test]
fn every_turn_and_every_delivery_is_timed() {
    let server = serve(|server| server.on_message(echo));
    let before = server.ask(|ctx| ctx.stats());
    let mut client = server.connect("/");
    for _ in 0..10 {
        client.send("x");
        client.text();
    }
    let timer = server.ask(|ctx| ctx.set_timer(Duration::from_secs(3600)));
    let after = server.ask(|ctx| ctx.stats());
    assert!(after.turn_time.count() > before.turn_time.count() + 10);
    // The count includes the 101 response and the echoes, but not the writes of the current turn.
    assert!(after.write_delay.count() >= before.write_delay.count() + 11, "{after:?}");
    assert!(after.turn_time.sum() > Duration::ZERO && after.turn_time.quantile(0.5).is_some());
    assert_eq!((before.timers, after.timers), (0, 1));
    assert!(server.ask(move |ctx| ctx.cancel(timer) && ctx.stats().timers == 0));
}

/// Pushes to a client that does not read, until the queue of the client is full. Then the client reads all messages,
/// and the server pushes one message that is too large. Returns the stats.
fn overfill(slow_reader: SlowReader) -> Stats {
    let limits = Limits { queue_bytes_max: 2 << 20, slow_reader, ..limits_with_long_times() };
    let server = serve(move |server| server.limits(limits));
    let mut client = server.connect("/?uid=ann");
    let mut pushed = 0;
    while server.ask(|ctx| ctx.stats().dropped + ctx.stats().conflated) == 0 {
        server.ask(|ctx| {
            let text = "x".repeat(100_000);
            ctx.push_uid("ann", fdpush::Message::Text(&text).key("k"))
        });
        pushed += 1;
    }
    let then = server.ask(|ctx| ctx.stats().uptime) + Duration::from_millis(2);
    server.wait_until("the queued bytes have waited for at least a millisecond", move |ctx| ctx.stats().uptime > then);
    for _ in 0..pushed - 1 {
        assert_eq!(client.text().len(), 100_000);
    }
    assert_eq!(server.ask(|ctx| ctx.push_uid("ann", &"x".repeat(2 << 20))).queued, 0);
    server.wait_until("all queued bytes are written", |ctx| ctx.stats().queued_bytes == 0);
    let stats = server.ask(|ctx| ctx.stats());
    let waited = stats.write_delay.count() - stats.write_delay.buckets().nth(9).map_or(0, |(_, count)| count);
    assert!(waited > 0, "some queued bytes must have waited for at least a millisecond: {stats:?}");
    stats
}

#[test]
fn dropped_conflated_and_too_large_messages_are_counted() {
    let stats = overfill(SlowReader::DropNewest);
    assert_eq!((stats.dropped, stats.conflated, stats.too_large), (1, 0, 1));
    let stats = overfill(SlowReader::Conflate);
    assert_eq!((stats.dropped, stats.conflated, stats.too_large), (0, 1, 1));
}

#[test]
fn sent_and_missed_heartbeats_are_counted() {
    let heartbeat = Heartbeat::Ping { every: Duration::from_millis(20), missed_max: 2 };
    let server = serve(move |server| server.heartbeat(heartbeat));
    let mut silent = Raw::upgraded(server.address());
    silent.rest();
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!(stats.closed_by_cause.get("heartbeat_missed"), Some(&1));
    assert_eq!((stats.pings, stats.missed_heartbeats), (2, 2));
}
