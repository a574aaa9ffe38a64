//! The proofs: `proof kill` and `proof drain` put `fdpush serve` under load, end it, and hold what it had said against
//! what came. Each prints what it counted, and fails when any of it is not so. `tests/proofs/run.sh` runs both.
//!
//! The server is a process of its own, so each of the two may have all the descriptors that one process may.

mod crowd;
mod drain;
mod kill;
mod pusher;
mod server;
mod subscriber;

use std::io;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Ends a server under load, and counts what it said and what came.
#[derive(Parser, Debug)]
struct Options {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Subcommand, Debug)]
enum Proof {
    /// SIGKILL, over and over: whatever was answered with 2xx has come, and a server started anew accepts at once.
    Kill(kill::Options),
    /// SIGTERM: whatever was queued is flushed, every client is told, and the exit code is 0 in time.
    Drain(drain::Options),
}

/// Who is there.
#[derive(Args, Debug)]
struct Load {
    /// The command `fdpush`.
    #[arg(long)]
    server: PathBuf,
    /// Clients, each with a uid of its own.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Connections of back ends. Their number divides that of the clients.
    #[arg(long, default_value_t = 20)]
    pushers: usize,
}

fn main() -> io::Result<()> {
    match Options::parse().proof {
        Proof::Kill(options) => kill::prove(&options),
        Proof::Drain(options) => drain::prove(&options),
    }
}

/// What is not so, as an error.
fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}
