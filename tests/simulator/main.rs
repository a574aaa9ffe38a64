//! The simulator runs layers 0 and 1 under virtual time and a hostile network, and compares them with an oracle.
//!
//! The simulator drives the server's connection table, timer wheel and registry as the loop does. The loop, the
//! sockets, epoll and the clock are simulated from a seed. Clients of several kinds connect to the server, and handlers
//! make random calls. The oracle is as simple as possible. The oracle knows the messages of each client in their order,
//! and the cause and the deadline of each connection's end. After the end of a connection, the oracle checks that the
//! server has removed all state of the connection.
//!
//! ```text
//! cargo test --test simulator                          the first 24 seeds
//! SIM_SEEDS=300 cargo test --test simulator            300 seeds, from SIM_FIRST on, if that is set
//! SIM_SEED=123 cargo test --test simulator -- --nocapture    one seed, with its counts
//! tests/simulator/many.sh 100000                       a hundred thousand, in release, on all cores
//! ```
//!
//! To test the simulator, each of the following faults was put into the code, one at a time. The number in the table is
//! the first seed that finds the fault:
//!
//! | fault | seed |
//! |---|---|
//! | `Table::holders` leaves out the connections that no flush has written to | 1 |
//! | `Table::end_flush` never lowers `refused_bytes` | 1 |
//! | `Table::push` compares with the bound of all queues without the bytes in the journal | 40 |
//! | `Connection::accepts_deflated` ignores the window of the client | 3 |
//! | `Outbound::deflated` deflates the message for each receiver | 3 |
//! | `Connection::conflate` replaces a deflated frame by the plain one | 14 |
//! | `InflationPace::charge` ignores the received bytes | 14 |
//!
//! Reading order: `world.rs` (a run), `server.rs` with `input.rs`, `output.rs`, `calls.rs` and `handler.rs` (the work of
//! the loop), `client.rs`, `frame_writer.rs`, `wire.rs` and `socket.rs` (the network), then the oracle: `oracle.rs`,
//! `connection_model.rs`, `output_model.rs`, `segment_model.rs`, `inbound.rs`, `name_model.rs`, `eviction.rs`.

mod calls;
mod client;
mod clock;
mod connection_model;
mod coverage;
mod eviction;
mod frame_writer;
mod frames;
mod handler;
mod inbound;
mod input;
mod name_model;
mod oracle;
mod output;
mod output_model;
mod rng;
mod segment_model;
mod server;
mod setting;
mod socket;
mod wire;
mod world;

use std::env;

use crate::coverage::Tally;

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
    "flush: a portion",
    "flush: journal emptied",
    "flush: unloaded",
    "event: request",
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
    "upgrade: later",
    "upgrade: uid taken",
    "write_timed_out",
];

/// Prints the command that repeats a failed seed.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("\nto run the failed seed again: SIM_SEED={} cargo test --test simulator\n", self.0);
        }
    }
}

fn run(seed: u64) -> Tally {
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
        println!("{:#?}", run(seed));
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("SIM_FIRST").unwrap_or(0);
    let mut all = Tally::new();
    for seed in first..first + seeds {
        for (what, times) in run(seed) {
            *all.entry(what).or_default() += times;
        }
    }
    println!("{seeds} seeds from {first}: {all:#?}");
    let missed: Vec<_> = COVERED.iter().filter(|what| !all.contains_key(*what)).collect();
    // Only the default seeds must cover each situation.
    let has_usual = first == 0 && seeds >= SEEDS;
    assert!(!has_usual || missed.is_empty(), "the seeds must cover each situation; missing: {missed:?}");
}

#[test]
fn a_run_depends_only_on_its_seed() {
    let seed = number("SIM_SEED").unwrap_or(1);
    assert_eq!(run(seed), run(seed));
}
