//! Shutdown tests: `proof kill` and `proof drain` load `fdpush serve`, end it, and compare its answers with the received messages.
//!
//! Each prints its counts, and fails if one is wrong. `tests/proofs/run.sh` runs both. The server is a separate process, so that
//! each process has its own descriptor limit.

mod clients;
mod drain;
mod kill;
mod pusher;
mod server;
mod subscriber;

use std::io;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Ends a server under load, and compares its answers with the received messages.
#[derive(Parser, Debug)]
struct Options {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Subcommand, Debug)]
enum Proof {
    /// Repeats SIGKILL: every push answered with 2xx arrived, and a restarted server accepts at once.
    Kill(kill::Options),
    /// Sends SIGTERM: every queued message arrives, every client gets a close frame, and the exit code is 0 in time.
    Drain(drain::Options),
}

/// The server's command and the connections.
#[derive(Args, Debug)]
struct Load {
    /// The command `fdpush`.
    #[arg(long)]
    server: PathBuf,
    /// Number of clients, each with a different uid.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Number of back-end connections. It divides the number of clients.
    #[arg(long, default_value_t = 20)]
    pushers: usize,
}

fn main() -> io::Result<()> {
    match Options::parse().proof {
        Proof::Kill(options) => kill::prove(&options),
        Proof::Drain(options) => drain::prove(&options),
    }
}

/// A failed check, as an error.
fn failure(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}
