//! Shutdown tests: `proof kill` and `proof drain` load `fdpush serve`, end the server, and compare its answers with the
//! received messages.
//!
//! Each test prints its counts, and fails if a count is wrong. `tests/proofs/run.sh` runs both tests. The server is a
//! separate process, so that it has its own descriptor limit.

mod clients;
mod drain;
mod kill;
mod pusher;
mod server;
mod subscriber;

use std::io;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Ends a server under load, and compares answers with received messages.
#[derive(Parser, Debug)]
struct Options {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Subcommand, Debug)]
enum Proof {
    /// Repeats SIGKILL. Every push that was answered with 2xx must have arrived, and a restarted server must accept at
    /// once.
    Kill(kill::Options),
    /// Sends SIGTERM. Every queued message must arrive, every client must get a close frame, and the server must exit
    /// with 0 in time.
    Drain(drain::Options),
}

/// The server's command and the numbers of connections.
#[derive(Args, Debug)]
struct Load {
    /// The command `fdpush`.
    #[arg(long)]
    server: PathBuf,
    /// The number of clients, each with a different uid.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// The number of back-end connections. This number must be a divisor of the number of subscribers.
    #[arg(long, default_value_t = 20)]
    pushers: usize,
}

fn main() -> io::Result<()> {
    match Options::parse().proof {
        Proof::Kill(options) => kill::prove(&options),
        Proof::Drain(options) => drain::prove(&options),
    }
}

/// Creates the error of a failed check.
fn failure(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}
