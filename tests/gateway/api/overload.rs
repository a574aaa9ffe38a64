//! Tests the API while clients use all descriptors, or back ends use all API connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::gateway::{Gateway, JSON, request, until};
use crate::common::raw::UPGRADE;
use crate::common::{Client, Raw};

/// Returns the status of a health probe at this path.
fn probe(gateway: &Gateway, path: &str) -> u16 {
    gateway.call("GET", path, &[], "").status
}

#[test]
fn probes_are_answered_while_clients_use_all_descriptors() {
    // The soft and the hard descriptor limit of the server are equal, so the server cannot raise its limit. The limit is
    // too low for several loops.
    let gateway = Gateway::start_with_descriptors(64, &["--loops", "1", "--connections-max", "1000"]);
    let mut clients: Vec<TcpStream> = Vec::new();
    let mut offer = || {
        let mut client = TcpStream::connect(gateway.address).expect("the connection is queued by the kernel");
        client.write_all(UPGRADE.as_bytes()).expect("the bytes can be sent");
        clients.push(client);
    };
    (0..200).for_each(|_| offer());
    gateway.logged("file descriptor limit reached");
    for _ in 0..20 {
        assert_eq!((probe(&gateway, "/healthz"), probe(&gateway, "/readyz")), (200, 200));
        // In each round more clients connect, and use the descriptors that the ended probes have freed.
        (0..10).for_each(|_| offer());
    }
    // The server also answers several back ends at the same time.
    let mut back_ends: Vec<Raw> = (0..10).map(|_| Raw::connect(gateway.api)).collect();
    for back_end in &mut back_ends {
        back_end.send(request("GET", "/api/stats", &[], ""));
        assert_eq!(back_end.reply().status, 200);
    }
    assert_eq!(probe(&gateway, "/healthz"), 200);
    // The next API connections use the last reserved descriptors. Then the server closes the oldest idle API connection
    // for each new one.
    drop(back_ends);
    let idle: Vec<Raw> = (0..40).map(|_| Raw::connect(gateway.api)).collect();
    for _ in 0..20 {
        assert_eq!((probe(&gateway, "/healthz"), probe(&gateway, "/api/stats")), (200, 200));
    }
    drop((clients, idle));
    until("clients are accepted again", || Client::connect(gateway.address, "/", &[]).is_ok());
}

/// Threads that keep idle API connections open and send no key. When this value is dropped, the threads end.
struct Attack<'scope>(&'scope AtomicBool);

impl<'scope> Attack<'scope> {
    fn start<'env>(
        scope: &'scope std::thread::Scope<'scope, 'env>,
        gateway: &Gateway,
        over: &'scope AtomicBool,
    ) -> Self {
        let api = gateway.api;
        for start in ["", "GET /api/stats HT", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            scope.spawn(move || {
                let mut held = std::collections::VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(api) else { continue };
                    let _ = stream.write_all(start.as_bytes());
                    held.push_back(stream);
                    if held.len() > 400 {
                        held.pop_front();
                    }
                }
            });
        }
        Attack(over)
    }
}

impl Drop for Attack<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns the status of an API call. Repeats the call if the server closes the connection of the call before the
/// server reads the request. On a busy machine, the attack can open newer connections before the request arrives. The
/// server then closes the connection of the call, as the oldest idle connection, to accept the newer connections.
fn status_at_last(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> u16 {
    let request = request("GET", path, headers, "");
    let mut status = None;
    until("the server answers the call", || {
        status = try_status(gateway, request.as_ref());
        status.is_some()
    });
    status.expect("the server answers")
}

fn try_status(gateway: &Gateway, request: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(gateway.api).ok()?;
    stream.write_all(request).ok()?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).ok()?;
    std::str::from_utf8(&start).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
}

const KEY: (&str, &str) = ("Authorization", "Bearer key");

#[test]
fn idle_connections_without_a_key_do_not_block_probes_and_back_ends() {
    let gateway = Gateway::start(&["--api-key", "key", "--api-connections-max", "64"]);
    let push = request("POST", "/api/push", &[KEY, JSON], r#"{"all":true,"data":1}"#);
    let mut back_end = Raw::connect(gateway.api);
    back_end.send(&push);
    assert_eq!(back_end.reply().status, 200);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _attack = Attack::start(scope, &gateway, &over);
        gateway.logged("API connection limit reached: connections without a valid request are closed");
        for _ in 0..50 {
            for path in ["/healthz", "/readyz"] {
                assert_eq!(status_at_last(&gateway, path, &[]), 200, "{path}");
            }
            // The server answers the back end on an existing connection and on a new one.
            back_end.send(&push);
            assert_eq!(back_end.reply().status, 200);
            assert_eq!(status_at_last(&gateway, "/api/stats", &[KEY]), 200);
        }
        assert_eq!(status_at_last(&gateway, "/api/stats", &[("Authorization", "Bearer wrong")]), 401);
    });
    let metrics = gateway.call("GET", "/metrics", &[KEY], "").body;
    let evicted = metrics.lines().find_map(|line| line.strip_prefix("fdpush_api_evictions_total "));
    assert!(evicted.is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 100)), "{metrics}");
}

#[test]
fn probes_are_answered_while_back_ends_use_all_their_connections() {
    let gateway = Gateway::start(&["--api-key", "key", "--api-connections-max", "3"]);
    let stats = request("GET", "/api/stats", &[KEY], "");
    let mut back_ends: Vec<Raw> = (0..3).map(|_| Raw::connect(gateway.api)).collect();
    for back_end in &mut back_ends {
        back_end.send(&stats);
        assert_eq!(back_end.reply().status, 200);
    }
    for (method, body) in [("GET", ""), ("POST", r#"{"all":true,"data":1}"#)] {
        let path = if method == "GET" { "/api/stats" } else { "/api/push" };
        let refused = gateway.call(method, path, &[KEY, JSON], body);
        assert_eq!((refused.status, refused.header("Retry-After"), refused.keeps_alive()), (503, Some("1"), false));
        assert!(refused.body.contains("API connection limit reached (3)"), "{refused:?}");
    }
    let _idle: Vec<Raw> = (0..100).map(|_| Raw::connect(gateway.api)).collect();
    assert_eq!((probe(&gateway, "/healthz"), probe(&gateway, "/readyz")), (200, 200));
    assert_eq!(gateway.call("GET", "/metrics", &[KEY], "").status, 200);
    for back_end in &mut back_ends {
        back_end.send(&stats);
        assert_eq!(back_end.reply().status, 200);
    }
    back_ends.pop();
    until("a new connection is accepted", || gateway.call("GET", "/api/stats", &[KEY], "").status == 200);
}
