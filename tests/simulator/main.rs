//! The simulator runs layers 0 and 1 of the crate under virtual time and a hostile network, and compares them with an
//! oracle. `src/lib.rs` describes the layers.
//!
//! The simulator drives the server's connection table, timer wheel and registry as the loop does. The loop, the
//! sockets, epoll and the clock are simulated from a seed. Clients of several kinds connect to the server, and handlers
//! make random calls. The oracle is as simple as possible. The oracle knows the messages of each client in their order,
//! and the cause and the deadline of each connection's end. After the end of a connection, the oracle checks that the
//! server has removed all state of the connection.
//!
//! In two thirds of the runs, some or all connections have TLS. Both the server and the client then use rustls, with
//! fixed randomness. The oracle knows the TLS records that the client made. The oracle also knows how many bytes of
//! records the server's session still holds because the simulated socket was full.
//!
//! ```text
//! cargo test --test simulator                          the first 24 seeds
//! SIM_SEEDS=300 cargo test --test simulator            300 seeds; the first is SIM_FIRST (default 0)
//! SIM_SEED=123 cargo test --test simulator -- --nocapture    one seed; prints how often each situation occurred
//! tests/simulator/many.sh 100000                       a hundred thousand seeds, in a release build, on all cores
//! ```
//!
//! To test the simulator, each of the following faults was put into the code of the server, one at a time. The table
//! has the first seed whose run fails with the fault. The journal is the output buffer of the loop.
//!
//! | fault | first failing seed |
//! |---|---|
//! | `Table::holders` leaves out the connections that no flush has written to | 1 |
//! | `Table::end_flush` never lowers `refused_bytes` | 8 |
//! | `Table::push` does not count the bytes in the journal when it compares the queued bytes with the total bound | 1 |
//! | `Connection::accepts_deflated` ignores the window of the client | 3 |
//! | `Outbound::deflated` deflates the message for each receiver | 3 |
//! | `Connection::conflate` replaces a deflated frame by the plain one | 14 |
//! | `InflationPace::charge` ignores the received bytes | 14 |
//! | `Queue::set_held` does not count the records that a TLS session holds | 0 |
//! | `Table::finish_flush` does not call `Transport::finish`, so that `close_notify` is missing | 0 |
//! | `TlsStream::send_output` loses the records that the socket did not take | 0 |
//! | `TlsStream::may_have_more` ignores plaintext for which a read had no space | 0 |
//! | `Connection::handle_hello_answered` does not restart the time limit of the request head | 5 |
//! | `Table::set_paused` does not stop the time limit of an unfinished TLS record | 10 |
//! | `Connection::handle_held` does not start the time limit for the client's close frame | 172 |
//!
//! Reading order: `world.rs` (a run), `server.rs` with `input.rs`, `output.rs`, `calls.rs` and `handler.rs` (the work
//! of the loop), `client.rs`, `frame_writer.rs`, `wire.rs` and `socket.rs` (the network), then the oracle: `oracle.rs`,
//! `connection_model.rs`, `output_model.rs`, `segment_model.rs`, `inbound.rs`, `name_model.rs`, `eviction.rs`. TLS is
//! in `session.rs`, `session_input.rs`, `session_client.rs`, `session_model.rs` and `handshake_budget.rs`.

mod calls;
mod client;
mod clock;
mod connection_model;
mod coverage;
mod eviction;
mod frame_writer;
mod frames;
mod handler;
mod handshake_budget;
mod inbound;
mod input;
mod name_model;
mod oracle;
mod output;
mod output_model;
mod rng;
mod segment_model;
mod server;
mod session;
mod session_client;
mod session_input;
mod session_model;
mod setting;
mod socket;
mod wire;
mod world;

use std::env;
use std::process::Command;

use crate::coverage::Tally;
use crate::rng::Rng;
use crate::setting::Setting;

/// The number of seeds of a `cargo test` without `SIM_SEEDS`. These seeds take a few seconds.
const SEEDS: u64 = 24;

/// The situations that the default seeds must cover.
const COVERED: &[&str] = &[
    "all queues over their bound",
    "all transports tried",
    "client: deflated message received",
    "client_closed",
    "clock jump",
    "connection_lost",
    "deflate: input held",
    "deflate: message inflated",
    "drained",
    "flush: only some connections",
    "flush: journal emptied",
    "flush: output moved to a queue",
    "event: request",
    "fan-out",
    "fan-out: no room for another",
    "fan-out: queued before another change",
    "heartbeat: ping",
    "heartbeat_missed",
    "invalid compressed data",
    "kicked",
    "message_timed_out",
    "network: broken while writing",
    "network: socket full",
    "pong waits",
    "push: conflated",
    "push: dropped",
    "push: queued after a write",
    "push: refused",
    "eviction: closed",
    "eviction: dropped",
    "eviction: nothing to drop",
    "response dropped",
    "server_closed",
    "slow_consumer",
    "text is not UTF-8",
    "timer fired",
    "tls: alert held",
    "tls: client receives close_notify",
    "tls: client sends close_notify",
    "tls: close_notify cut",
    "tls: end without close_notify",
    "tls: garbage",
    "tls: handshake held",
    "tls: handshake timed out",
    "tls: hello in a session",
    "tls: hello waits for the budget",
    "tls: key update",
    "tls: output without a session",
    "tls: plain HTTP refused",
    "tls: read sends held records",
    "tls: record changed",
    "tls: record timed out",
    "tls: records held",
    "tls: renegotiation refused",
    "tls: session 1.2",
    "tls: session 1.3",
    "upgrade: later",
    "upgrade: uid taken",
    "write_timed_out",
];

/// A running seed. If the run panics, the drop of this value prints the command that runs the seed again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("\nto run the failed seed again: SIM_SEED={} cargo test --test simulator\n", self.0);
        }
    }
}

fn run(seed: u64) -> (Tally, u64) {
    let _replay = Replay(seed);
    world::run(seed)
}

fn number(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {value:?}")))
}

#[test]
fn every_seed_agrees_with_the_oracle() {
    if let Some(seed) = number("SIM_SEED") {
        let (tally, digest) = run(seed);
        println!("{tally:#?}\n{}", digest_line(seed, digest));
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("SIM_FIRST").unwrap_or(0);
    let mut all = Tally::new();
    for seed in first..first + seeds {
        for (what, times) in run(seed).0 {
            *all.entry(what).or_default() += times;
        }
    }
    println!("{seeds} seeds from {first}: {all:#?}");
    let missed: Vec<_> = COVERED.iter().filter(|what| !all.contains_key(*what)).collect();
    // Only the default seeds must cover each situation.
    let has_usual = first == 0 && seeds >= SEEDS;
    assert!(!has_usual || missed.is_empty(), "the seeds must cover each situation; missing: {missed:?}");
}

fn digest_line(seed: u64, digest: u64) -> String {
    format!("digest of seed {seed}: {digest:016x}")
}

/// Runs a seed in another process, and returns its output.
fn output_of_process(seed: u64) -> String {
    let mut command = Command::new(env::current_exe().expect("the test binary has a path"));
    command.args(["every_seed_agrees_with_the_oracle", "--exact", "--nocapture"]).env("SIM_SEED", seed.to_string());
    let output = command.output().expect("the test binary can run");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_run_depends_only_on_its_seed() {
    let is_secure = |seed: &u64| Setting::draw(&mut Rng::new(*seed)).tls_share == 1;
    let secure = (0..).find(is_secure).expect("some seed has TLS");
    for seed in number("SIM_SEED").map_or(vec![1, secure], |seed| vec![seed]) {
        let first = run(seed);
        assert_eq!(
            run(seed),
            first,
            "a second run of seed {seed} in the same process must have the same counts and digest"
        );
        let output = output_of_process(seed);
        assert!(
            output.contains(&digest_line(seed, first.1)),
            "a run of seed {seed} in another process must have the same digest: {output}"
        );
    }
}
