//! The spread of connections over loops, and the limits of connections.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fdpush::{Address, Fd, Limits};

use super::clients::wait_for_stats;
use crate::common::raw::UPGRADE;
use crate::common::{Client, DEADLINE, TestServer, refusal, serve_made, serve_plain};

const LOOPS: usize = 4;

/// The process holds both ends of each connection, and has 20,000 descriptors.
const CONNECTIONS: usize = 8000;

fn loads(server: &TestServer) -> Vec<usize> {
    let stats = server.remote.stats_by_loop().wait_timeout(DEADLINE).expect("the server answers");
    stats.into_iter().map(|stats| stats.open).collect()
}

/// Checks that no loop has more than 5 % above the mean.
fn check_balance(server: &TestServer) {
    let loads = loads(server);
    let mean = loads.iter().sum::<usize>() as f64 / LOOPS as f64;
    assert!(loads.iter().all(|load| *load as f64 <= mean * 1.05), "{loads:?}");
}

/// Opens WebSockets that stay, then lets half of the connections of one loop leave, and opens as many again.
fn check_spread<S: Write>(server: &TestServer, connect: impl Fn() -> S) {
    let open = |count: usize| -> Vec<S> {
        let open = |_| {
            let mut stream = connect();
            stream.write_all(UPGRADE.as_bytes()).expect("the kernel takes the request");
            stream
        };
        (0..count).map(open).collect()
    };
    let clients = open(CONNECTIONS);
    wait_for_stats(server, "all clients are open", |stats| stats.open == CONNECTIONS);
    check_balance(server);
    let left = server.remote.call_each(|ctx| {
        let own: Vec<Fd> = ctx.connections().filter(|_| ctx.loop_index() == 2).collect();
        own.iter().take(own.len() / 2).filter(|fd| ctx.abort(**fd) != fdpush::AbortOutcome::Gone).count()
    });
    let left: usize = left.wait_timeout(DEADLINE).expect("the server answers").iter().sum();
    assert!(left > CONNECTIONS / LOOPS / 3, "{left}");
    wait_for_stats(server, "the server has freed the connections that left", |stats| {
        stats.connections == CONNECTIONS - left
    });
    let more = open(left);
    wait_for_stats(server, "all clients are open", |stats| stats.open == CONNECTIONS);
    check_balance(server);
    drop((clients, more));
}

#[test]
fn connections_that_stay_are_balanced() {
    let limits = Limits { head_time_max: Duration::from_secs(600), ..Limits::default() };
    let of_tcp = limits.clone();
    let server = serve_plain(move |server| server.loops(LOOPS).limits(of_tcp));
    check_spread(&server, || TcpStream::connect(server.address()).expect("the server listens"));
    server.stop().expect("the server drains");

    let path = std::env::temp_dir().join(format!("fdpush-balance-{}", std::process::id()));
    let bound = format!("unix:{}", path.display());
    let server = serve_made(move || fdpush::Server::bind(bound), move |server| server.loops(LOOPS).limits(limits));
    assert_eq!(server.addresses, [Address::Unix(path.clone())]);
    check_spread(&server, || UnixStream::connect(&path).expect("the server listens"));
    server.stop().expect("the server drains");
}

#[test]
fn few_connections_are_spread_evenly() {
    let server = serve_plain(|server| server.loops(LOOPS));
    let clients: Vec<Client> = (0..5 * LOOPS).map(|_| server.connect("/")).collect();
    // A loop gets no connections of other loops while one of its turns takes over a second.
    let stats = server.remote.stats().wait_timeout(DEADLINE).expect("the server answers");
    if stats.turn_time.quantile(1.0).is_some_and(|longest| longest < Duration::from_secs(1)) {
        assert_eq!(loads(&server), [5; LOOPS]);
    }
    drop(clients);
}

#[test]
fn connections_max_holds_for_all_loops_together() {
    let limits = Limits { connections_max: Some(10), ..Limits::default() };
    let server = serve_plain(move |server| server.loops(3).limits(limits));
    let mut clients: Vec<Client> = (0..10).map(|_| server.connect("/")).collect();
    for _ in 0..6 {
        assert_eq!(refusal(Client::connect(server.address(), "/", &[])).0, 503);
    }
    let stats = server.remote.stats().wait().expect("the server answers");
    assert_eq!((stats.open, stats.refused, stats.connections_max), (10, 6, 10));
    let mut last = clients.remove(4);
    last.close(1000, "");
    assert_eq!(last.closed().0, 1000);
    wait_for_stats(&server, "the connection has ended", |stats| stats.connections == 9);
    clients.push(server.connect("/"));
    assert_eq!(refusal(Client::connect(server.address(), "/", &[])).0, 503);
}

#[test]
fn the_accept_rate_holds_for_all_loops_together() {
    let limits = Limits { accepts_per_second_max: Some(7), ..Limits::default() };
    let server = serve_plain(move |server| server.loops(3).limits(limits));
    let clients: Vec<TcpStream> =
        (0..30).map(|_| TcpStream::connect(server.address()).expect("the server listens")).collect();
    let stats = wait_for_stats(&server, "all clients are accepted or refused", |stats| {
        stats.accepted + stats.refused == clients.len() as u64
    });
    // On a slow machine, the clients may need more than a second, and the limit applies to each second.
    let seconds = stats.uptime.as_secs() + 1;
    assert!((7..=7 * (seconds + 1)).contains(&stats.accepted), "{stats:?}");
}

#[test]
fn memberships_max_holds_for_all_loops_together() {
    let limits = Limits { memberships_max: 7, ..Limits::default() };
    let server = serve_plain(move |server| server.loops(3).limits(limits));
    let clients: Vec<Client> = (0..9).map(|_| server.connect("/")).collect();
    let changes: Vec<_> =
        clients.iter().map(|client| server.remote.join(client.fd(), "g").wait().expect("the server answers")).collect();
    assert_eq!(changes.iter().filter(|change| change.is_done()).count(), 7, "{changes:?}");
    assert_eq!(changes[7..], [fdpush::Change::Full; 2]);
    assert_eq!(server.remote.leave(clients[0].fd(), "g").wait(), Ok(fdpush::Change::Done));
    assert_eq!(server.remote.join(clients[8].fd(), "g").wait(), Ok(fdpush::Change::Done));
    assert_eq!(server.remote.join(clients[7].fd(), "g").wait(), Ok(fdpush::Change::Full));
}
