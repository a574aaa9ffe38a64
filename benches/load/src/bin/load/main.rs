//! The load client: `load SHAPE --pid PID …` puts one shape of load on a server and prints a line of `name=value`.
//!
//! One thread, to be pinned to a core of its own. It keeps a fixed number of messages in flight on each connection, so
//! the server is always busy and never drowned. Throughput on a shared machine says little; the server's CPU time an
//! operation says more, and a comparison with `raw` in the same minute most.

mod api;
mod idle;
mod peer;
mod shapes;
mod upgrades;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use fdpush_load::process;

/// The load is on for this long before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);

/// Puts load on a WebSocket server and measures it.
#[derive(Parser, Debug)]
struct Options {
    /// What the connections do.
    shape: Shape,
    /// The server.
    #[arg(long, default_value = "127.0.0.1:9501")]
    address: SocketAddr,
    /// The server's process.
    #[arg(long)]
    pid: u32,
    /// Connections; for p2p and push, pairs of them; for fanout, receivers.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Messages in flight, a connection; for fanout, publishes.
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 20)]
    payload: usize,
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// For push and batch: where back ends come, if that is another address.
    #[arg(long)]
    api: Option<SocketAddr>,
    /// For push: how clients subscribe and back ends push.
    #[arg(long, value_enum, default_value = "bench")]
    dialect: Dialect,
    /// For push: so many posts a second, evenly, instead of `depth` in flight; prints how long deliveries took.
    #[arg(long)]
    pace: Option<u32>,
    /// For idle: whether each connection has a uid of 8 bytes.
    #[arg(long)]
    bound: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
enum Shape {
    /// Every connection's messages come back to it.
    Echo,
    /// One connection's messages go to all others. An operation is a delivery.
    Fanout,
    /// The first of each pair sends to the uid of the second.
    P2p,
    /// The first of each pair posts to the uid of the second. An operation is a post.
    Push,
    /// One connection sends a batch without end to the uids of all others. An operation is a message.
    Batch,
    /// Memory of connections that do nothing, before and after 100 messages each way.
    Idle,
    /// Connect, upgrade, close, over and over.
    Upgrades,
}

/// How a server is asked to push.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
enum Dialect {
    /// `POST /push?uid=N`, as bench servers have it.
    Bench,
    /// `fdpush serve`: `POST /api/push` with JSON.
    Fdpush,
    /// Nchan: `POST /pub?id=N`, for `/sub?id=N`.
    Nchan,
}

/// What was measured.
#[derive(Copy, Clone, Debug)]
struct Figures {
    operations: usize,
    elapsed: Duration,
    cpu: Duration,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    match options.shape {
        Shape::Idle => idle::measure(&options),
        Shape::Upgrades => upgrades::measure(&options).map(|figures| figures.print()),
        Shape::Push => api::push(&options),
        Shape::Batch => api::batch(&options),
        Shape::Echo | Shape::Fanout | Shape::P2p => shapes::measure(&options).map(|figures| figures.print()),
    }
}

impl Figures {
    fn print(self) {
        let rate = self.operations as f64 / self.elapsed.as_secs_f64();
        let micros = self.cpu.as_secs_f64() * 1e6 / self.operations as f64;
        let busy = self.cpu.as_secs_f64() / self.elapsed.as_secs_f64() * 100.0;
        println!("rate={rate:.0} cpu_us={micros:.3} busy={busy:.0}%");
    }
}

/// Repeats `turn`, which says how many operations it did, for as long as the options say, after a warm-up.
fn run(options: &Options, mut turn: impl FnMut() -> io::Result<usize>) -> io::Result<Figures> {
    let warm = Instant::now();
    while warm.elapsed() < WARM_UP {
        turn()?;
    }
    let (started, cpu) = (Instant::now(), process::cpu_time(options.pid)?);
    let mut operations = 0;
    while started.elapsed().as_secs_f64() < options.seconds {
        operations += turn()?;
    }
    Ok(Figures { operations, elapsed: started.elapsed(), cpu: process::cpu_time(options.pid)? - cpu })
}
