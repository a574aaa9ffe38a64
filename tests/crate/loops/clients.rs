//! Helpers for tests with several loops: clients on each loop, and calls on the loop of a connection.

use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use fdpush::{Context, Fd, Reply, Stats};

use crate::common::{Client, DEADLINE, TestServer, channel};

/// Connects `each` clients to each loop, and returns them by loop.
///
/// While there are few connections, the server gives each new connection to a loop with the fewest connections. So
/// the clients are spread evenly, unless the thread of a loop gets no time for a second. In that case, this function
/// connects more clients until each loop has `each` clients, and disconnects the surplus clients.
pub fn connect_each(server: &TestServer, loops: usize, each: usize) -> Vec<Vec<Client>> {
    let mut clients: Vec<Vec<Client>> = (0..loops).map(|_| Vec::new()).collect();
    let mut surplus = Vec::new();
    while clients.iter().any(|of_loop| of_loop.len() < each) {
        let client = server.connect("/");
        let of_loop = &mut clients[loop_of(client.fd(), loops)];
        if of_loop.len() < each { of_loop.push(client) } else { surplus.push(client) }
    }
    if !surplus.is_empty() {
        let before = server.remote.stats().wait_timeout(DEADLINE).expect("the server answers").connections;
        let left = before - surplus.len();
        drop(surplus);
        wait_for_stats(server, "the surplus has disconnected", |stats| stats.connections == left);
    }
    clients
}

/// Connects one client to each loop.
pub fn connect_one_each(server: &TestServer, loops: usize) -> Vec<Client> {
    connect_each(server, loops, 1).into_iter().flatten().collect()
}

/// Returns the index of the loop that an fd belongs to.
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

/// Blocks the loop of a connection in a command, until the returned sender sends or is dropped. Returns the reply to
/// the command, and the sender. The reply is the result of `then`, which runs when the loop continues.
pub fn hold_at<T: Send + 'static>(
    server: &TestServer,
    fd: Fd,
    then: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
) -> (Reply<T>, Sender<()>) {
    let (enter, entered) = channel();
    let (release, released) = mpsc::channel::<()>();
    let held = server.remote.call_at(fd, move |ctx| {
        enter.send(()).expect("the test waits");
        let _ = released.recv_timeout(DEADLINE);
        then(ctx)
    });
    entered.next();
    (held, release)
}

/// Runs `call` on the loop of a connection and returns its result. When this function returns, the messages of the call
/// to other loops are in the inboxes of these loops.
pub fn ask_at<T: Send + 'static>(
    server: &TestServer,
    fd: Fd,
    call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
) -> T {
    server.remote.call_at(fd, call).wait_timeout(DEADLINE).expect("the server answers")
}
