//! Tests that the server spreads its connections evenly over the loops, and that each limit of connections holds for
//! all loops together.

use std::env;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use fdpush::{AbortOutcome, Fd, Limits};

use super::clients::wait_for_stats;
use crate::common::raw::UPGRADE;
use crate::common::{ChildProcess, Client, DEADLINE, Scratch, TestServer, refusal, serve_made, serve_plain};

const LOOPS: usize = 4;

/// The number of clients. The clients are in another process than the server, so that no process needs 20,000
/// descriptors.
const CONNECTIONS: usize = 10_000;

/// The environment variable that contains the address of the server, in the process of the clients.
const SERVER: &str = "FDPUSH_TEST_BALANCE_SERVER";

/// The name of the test that the process of the clients runs. With the variable [`SERVER`], this test opens clients.
const TEST: &str = "loops::balance::connections_that_stay_are_balanced";

/// Returns the number of open WebSockets of each loop.
fn loads(server: &TestServer) -> Vec<usize> {
    let stats = server.remote.stats_by_loop().wait_timeout(DEADLINE).expect("the server answers");
    stats.into_iter().map(|stats| stats.open).collect()
}

/// Returns whether each turn of each loop took less than a second. While a turn of a loop takes longer than a second,
/// the other loops hand no connections to this loop. So the numbers of connections of the loops can differ.
fn was_never_stalled(server: &TestServer) -> bool {
    let stats = server.remote.stats().wait_timeout(DEADLINE).expect("the server answers");
    stats.turn_time.quantile(1.0).is_some_and(|longest| longest < Duration::from_secs(1))
}

/// Checks that each loop has at most 1.05 times the mean number of WebSockets, unless a turn took a second or longer.
fn check_balance(server: &TestServer) {
    let loads = loads(server);
    let mean = loads.iter().sum::<usize>() as f64 / LOOPS as f64;
    let is_balanced = loads.iter().all(|load| *load as f64 <= mean * 1.05);
    assert!(
        is_balanced || !was_never_stalled(server),
        "each loop must have at most 1.05 times the mean number of WebSockets: {loads:?}"
    );
}

/// A process with clients that stay connected until the value is dropped.
struct Clients(ChildProcess);

impl Clients {
    fn of(server: &TestServer, address: &str) -> Clients {
        // The server raises the limit of descriptors of this process before it answers. The child process inherits the
        // limit.
        assert_eq!(loads(server), [0; LOOPS]);
        let mut command = Command::new(env::current_exe().expect("the test binary has a path"));
        command.args(["--exact", TEST, "--nocapture"]).env(SERVER, address);
        Clients(ChildProcess::spawn(command.stdin(Stdio::piped()).stdout(Stdio::null())))
    }

    /// Opens this number of further WebSockets.
    fn open(&mut self, count: usize) {
        let stdin = self.0.stdin.as_mut().expect("the input of the process is a pipe");
        writeln!(stdin, "{count}").expect("the process reads its input");
    }
}

/// Reads numbers from the standard input, and opens that many WebSockets for each number. The WebSockets stay open
/// until the input ends or the process is killed.
fn hold_clients(address: &str) {
    let mut clients: Vec<Box<dyn Write>> = Vec::new();
    for line in io::stdin().lines() {
        let count: usize = line.expect("the input can be read").parse().expect("the line is a number");
        for _ in 0..count {
            let mut client: Box<dyn Write> = match address.strip_prefix("unix:") {
                Some(path) => Box::new(UnixStream::connect(path).expect("the server listens")),
                None => Box::new(TcpStream::connect(address).expect("the server listens")),
            };
            client.write_all(UPGRADE.as_bytes()).expect("the request can be sent");
            clients.push(client);
        }
    }
}

/// Opens WebSockets, aborts half of the WebSockets of one loop, and opens as many again. Checks the balance before the
/// abort and at the end.
fn check_spread(server: TestServer, address: &str) {
    let mut clients = Clients::of(&server, address);
    clients.open(CONNECTIONS);
    wait_for_stats(&server, "all clients are open", |stats| stats.open == CONNECTIONS);
    check_balance(&server);
    let left = server.remote.call_each(|ctx| {
        let own: Vec<Fd> = ctx.connections().filter(|_| ctx.loop_index() == 2).collect();
        own.iter().take(own.len() / 2).filter(|fd| ctx.abort(**fd) != AbortOutcome::Gone).count()
    });
    let left: usize = left.wait_timeout(DEADLINE).expect("the server answers").iter().sum();
    assert!(left > CONNECTIONS / LOOPS / 3, "about half of the WebSockets of a loop must be aborted, not {left}");
    wait_for_stats(&server, "the server has freed the aborted connections", |stats| {
        stats.connections == CONNECTIONS - left
    });
    clients.open(left);
    wait_for_stats(&server, "all clients are open", |stats| stats.open == CONNECTIONS);
    check_balance(&server);
    drop(clients);
    server.stop().expect("the server drains");
}

#[test]
fn connections_that_stay_are_balanced() {
    if let Ok(address) = env::var(SERVER) {
        return hold_clients(&address);
    }
    let limits = Limits { head_time_max: Duration::from_secs(600), ..Limits::default() };
    let of_tcp = limits.clone();
    let server = serve_plain(move |server| server.loops(LOOPS).limits(of_tcp));
    let address = server.address().to_string();
    check_spread(server, &address);

    let scratch = Scratch::new("balance");
    let bound = format!("unix:{}", scratch.file("socket").display());
    let address = bound.clone();
    let server = serve_made(move || fdpush::Server::bind(bound), move |server| server.loops(LOOPS).limits(limits));
    check_spread(server, &address);
}

#[test]
fn few_connections_are_spread_evenly() {
    let server = serve_plain(|server| server.loops(LOOPS));
    let clients: Vec<Client> = (0..5 * LOOPS).map(|_| server.connect("/")).collect();
    if was_never_stalled(&server) {
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
