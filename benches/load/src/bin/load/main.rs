//! The load client: `load SHAPE --pid PID …` puts load on a server and prints a line of `name=value` pairs.
//!
//! A shape is a kind of load, for example echo or fan-out.
//!
//! The load client has one thread, which needs its own core. The shape `storm` adds threads of lower priority. The load
//! client keeps a fixed number of messages in flight on each connection, so the server is always busy and never
//! overloaded. The shape `storm`, and `push` with `--pace`, have a fixed rate instead.
//!
//! On a shared machine, the server's CPU time per operation is more stable than throughput. The most stable result is a
//! comparison with the reference server `raw` in the same minute.

mod api;
mod handshakes;
mod idle;
mod peer;
mod shapes;
mod storm;
mod stream;
mod upgrades;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use fdpush_load::process;

use crate::peer::Peer;

/// The warm-up time before the measurement.
const WARM_UP: Duration = Duration::from_millis(300);

/// Puts load on a WebSocket server and measures it.
#[derive(Parser, Debug)]
struct Options {
    /// The kind of requests that the clients send.
    shape: Shape,
    /// The server's address.
    #[arg(long, default_value = "127.0.0.1:9501")]
    address: SocketAddr,
    /// The server's process id.
    #[arg(long)]
    pid: u32,
    /// The number of connections. For p2p and push, the number of pairs. For fanout, the number of receivers.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// The number of messages in flight on each connection. For fanout, the number of publishes in flight.
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Message size in bytes.
    #[arg(long, default_value_t = 20)]
    payload: usize,
    /// Measured time in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Whether the server speaks TLS.
    #[arg(long)]
    tls: bool,
    /// For handshakes and storm: whether clients resume an earlier TLS session.
    #[arg(long)]
    resume: bool,
    /// For storm: the number of handshakes per second.
    #[arg(long, default_value_t = 2000)]
    handshakes: u32,
    /// For push and batch: the address for back ends, if it differs from the address for clients.
    #[arg(long)]
    api: Option<SocketAddr>,
    /// For push: the kind of server, which decides the form of subscriptions and push requests.
    #[arg(long, value_enum, default_value = "bench")]
    dialect: Dialect,
    /// For push: the number of posts per second, at a constant rate. With this option, `depth` has no effect, and
    /// delivery times are printed. For storm: the number of messages per second.
    #[arg(long)]
    pace: Option<u32>,
    /// For fanout: whether the message is JSON. Without this option, the message is one byte, repeated.
    #[arg(long)]
    json: bool,
    /// For fanout and idle: whether the receivers negotiate permessage-deflate.
    #[arg(long)]
    deflate: bool,
    /// For fanout: sends `depth` publishes one directly after the other, and sends the next publishes after all
    /// deliveries. Prints the times until the first and until the last delivery.
    #[arg(long)]
    bursts: bool,
    /// For idle: whether each connection has a uid of 8 bytes.
    #[arg(long)]
    bound: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
enum Shape {
    /// Each connection gets its own messages back.
    Echo,
    /// One connection's messages go to all other connections. Each delivery counts as one operation.
    Fanout,
    /// The first client of each pair sends to the second client's uid.
    P2p,
    /// The first client of each pair posts to the second client's uid. Each post counts as one operation.
    Push,
    /// One connection sends an endless batch to the uids of all other connections. Each message counts as one
    /// operation.
    Batch,
    /// Measures the memory of idle connections, before and after 100 messages in each direction.
    Idle,
    /// Connects, upgrades and closes in a loop.
    Upgrades,
    /// Connects, makes a TLS handshake and closes in a loop.
    Handshakes,
    /// Measures the delay of echoes on many connections, first without handshakes and then during handshakes of other
    /// clients.
    Storm,
}

/// The form of a push request.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
enum Dialect {
    /// Bench servers: `POST /push?uid=N`.
    Bench,
    /// `fdpush serve`: `POST /api/push` with JSON.
    Fdpush,
    /// Nchan: `POST /pub?id=N`, for `/sub?id=N`.
    Nchan,
}

/// The counts and times of a measurement.
#[derive(Copy, Clone, Debug)]
struct Figures {
    /// The number of operations in the measured time.
    operations: usize,
    /// The number of operations since the start, including the warm-up.
    total: usize,
    elapsed: Duration,
    cpu: Duration,
}

impl Options {
    /// Connects to the server, and upgrades if `path` is given.
    fn connect(&self, path: Option<&str>) -> io::Result<Peer> {
        Peer::connect(self.address, self.tls, path)
    }

    /// Connects to the server as a receiver. With `--deflate`, the receiver negotiates permessage-deflate.
    fn connect_receiver(&self, path: &str) -> io::Result<Peer> {
        match self.deflate {
            false => self.connect(Some(path)),
            true => Peer::connect_deflating(self.address, self.tls, path),
        }
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    match options.shape {
        Shape::Idle => idle::measure(&options),
        Shape::Upgrades => upgrades::measure(&options).map(|figures| figures.print()),
        Shape::Handshakes => handshakes::measure(&options).map(|figures| figures.print()),
        Shape::Storm => storm::measure(&options),
        Shape::Push => api::push(&options),
        Shape::Batch => api::batch(&options),
        Shape::Fanout if options.bursts => shapes::bursts(&options),
        Shape::Echo | Shape::Fanout | Shape::P2p => shapes::measure(&options).map(|figures| figures.print()),
    }
}

impl Figures {
    fn print(self) {
        let rate = self.operations as f64 / self.elapsed.as_secs_f64();
        let micros = self.cpu.as_secs_f64() * 1e6 / self.operations as f64;
        let busy = self.cpu.as_secs_f64() / self.elapsed.as_secs_f64() * 100.0;
        println!("rate={rate:.0} cpu_us={micros:.3} busy={busy:.0}% total={}", self.total);
    }
}

/// Repeats `turn` for the configured time, after a warm-up. `turn` returns its number of operations.
fn run(options: &Options, mut turn: impl FnMut() -> io::Result<usize>) -> io::Result<Figures> {
    let (warm, mut total) = (Instant::now(), 0);
    while warm.elapsed() < WARM_UP {
        total += turn()?;
    }
    let (started, cpu) = (Instant::now(), process::cpu_time(options.pid)?);
    let mut operations = 0;
    while started.elapsed().as_secs_f64() < options.seconds {
        operations += turn()?;
    }
    total += operations;
    Ok(Figures { operations, total, elapsed: started.elapsed(), cpu: process::cpu_time(options.pid)? - cpu })
}
