//! Clients on each loop of a server.

use std::thread;
use std::time::Instant;

use fdpush::{Context, Fd, Stats};

use crate::common::{Client, DEADLINE, TestServer};

/// Connects `each` clients to each loop, and returns them by loop.
///
/// The server gives few connections to the emptiest loop, so connections that come one after another are spread evenly.
pub fn connect_each(server: &TestServer, loops: usize, each: usize) -> Vec<Vec<Client>> {
    let mut clients: Vec<Vec<Client>> = (0..loops).map(|_| Vec::new()).collect();
    for _ in 0..loops * each {
        let client = server.connect("/");
        clients[loop_of(client.fd(), loops)].push(client);
    }
    assert!(clients.iter().all(|of_loop| of_loop.len() == each), "each loop must have {each} clients");
    clients
}

/// Connects one client to each loop.
pub fn connect_one_each(server: &TestServer, loops: usize) -> Vec<Client> {
    connect_each(server, loops, 1).into_iter().flatten().collect()
}

/// Returns the loop that an fd names.
pub fn loop_of(fd: Fd, loops: usize) -> usize {
    fd.slot().0 as usize % loops
}

/// Waits until the stats of the server, summed over all loops, fulfil a condition.
pub fn wait_for_stats(server: &TestServer, what: &str, condition: impl Fn(&Stats) -> bool) -> Stats {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let stats = server.remote.stats().wait_timeout(DEADLINE).expect("the server answers");
        if condition(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "expected before the deadline: {what}: {stats:?}");
        thread::yield_now();
    }
}

/// Runs `call` on the loop of a connection and returns its result.
pub fn ask_at<T: Send + 'static>(
    server: &TestServer,
    fd: Fd,
    call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
) -> T {
    server.remote.call_at(fd, call).wait_timeout(DEADLINE).expect("the server answers")
}
