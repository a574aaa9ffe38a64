//! Sends SIGTERM to the server during pushes, and checks the drain.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::Signal;

use crate::clients::Clients;
use crate::pusher::PushFormat;
use crate::server::{Addresses, Server, TIMEOUT};
use crate::{Load, failure};

/// The close code of a drain.
const GOING_AWAY: u16 = 1001;

/// The maximum number of unanswered pushes. On a busy machine, this limit lowers the rate of pushes.
const IN_FLIGHT_MAX: usize = 1000;

/// The tolerance in comparisons of times. The server's clock is rounded down to milliseconds.
const TICK: Duration = Duration::from_millis(2);

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    load: Load,
    /// The number of pushes a second.
    #[arg(long, default_value_t = 5000)]
    rate: u32,
    /// The minimum number of pushes a second.
    #[arg(long, default_value_t = 0)]
    rate_min: u32,
    /// The number of pushes before SIGTERM. Pushes continue after SIGTERM.
    #[arg(long, default_value_t = 10_000)]
    before: usize,
    /// The server's `drain_for` in milliseconds.
    #[arg(long, default_value_t = 0)]
    drain_for_ms: u64,
    /// The time limit of the drain in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    drain_time_max_ms: u64,
}

pub fn prove(options: &Options) -> io::Result<()> {
    let (spread, limit) =
        (Duration::from_millis(options.drain_for_ms), Duration::from_millis(options.drain_time_max_ms));
    let flags = [format!("--drain-for={}ms", spread.as_millis()), format!("--drain-time-max={}ms", limit.as_millis())];
    let (mut server, _) = Server::start(&options.load.server, Addresses::find()?, &flags)?;
    let mut clients = Clients::connect(&options.load, server.addresses, |_| PushFormat::Requests)?;
    let mut pace = Pace { rate: options.rate, started: Instant::now(), pushed: 0 };
    while pace.pushed < options.before {
        pace.turn(&mut clients)?;
    }
    let reached = pace.pushed as f64 / pace.started.elapsed().as_secs_f64();
    let before = clients.counts();
    if before.refused > 0 {
        return Err(failure("a push was refused"));
    }
    let signalled = Instant::now();
    server.signal(Signal::TERM)?;
    let (status, took) = loop {
        pace.turn(&mut clients)?;
        match server.ended()? {
            Some(status) => break (status, signalled.elapsed()),
            None if signalled.elapsed() > limit + TIMEOUT => return Err(failure("the server does not exit")),
            None => {}
        }
    };
    clients.read_to_end()?;
    let counts = clients.check()?;
    let closes = closes(&clients, signalled)?;
    println!(
        "drain: {} subscribers; {} pushes sent before SIGTERM, {reached:.0} a second, {} of them answered by then, {} sent after; {} answered, {} of them queued, {} received, none \
         lost; {} closes with {GOING_AWAY}, from {:.1?} to {:.1?}; {status} after {took:.1?} of {limit:.1?}",
        options.load.subscribers,
        before.sent,
        before.answered,
        counts.sent - before.sent,
        counts.answered,
        counts.acknowledged,
        counts.received,
        closes.len(),
        closes[0],
        closes[closes.len() - 1],
    );
    if reached < f64::from(options.rate_min) {
        return Err(failure("push rate below the minimum; the machine may be busy"));
    }
    if !status.success() || took > limit {
        return Err(failure("the exit code is not 0, or the drain exceeded its time limit"));
    }
    check_spread(&closes, spread)
}

/// Sends pushes at a constant rate, through each pusher in turn.
struct Pace {
    rate: u32,
    started: Instant,
    pushed: usize,
}

impl Pace {
    /// Sends the pushes that are due, and reads all received data.
    fn turn(&mut self, clients: &mut Clients) -> io::Result<()> {
        let due = (self.started.elapsed().as_secs_f64() * f64::from(self.rate)) as usize;
        let room = IN_FLIGHT_MAX.saturating_sub(clients.in_flight());
        for _ in 0..due.saturating_sub(self.pushed).min(room) {
            clients.push(self.pushed % clients.pushers.len());
            self.pushed += 1;
        }
        clients.turn(Duration::from_millis(1))
    }
}

/// Returns the times from the signal to the close frames, sorted. Checks that each client got the code [`GOING_AWAY`].
fn closes(clients: &Clients, signalled: Instant) -> io::Result<Vec<Duration>> {
    let mut closes = Vec::with_capacity(clients.subscribers.len());
    for (number, subscriber) in clients.subscribers.iter().enumerate() {
        match subscriber.closed {
            Some((GOING_AWAY, at)) => closes.push(at.saturating_duration_since(signalled)),
            other => return Err(failure(format!("subscriber {number} got no valid close frame: {other:?}"))),
        }
    }
    closes.sort();
    Ok(closes)
}

/// Checks that no close frame arrives before its scheduled time. A later arrival is no error, because the delay depends
/// on the machine.
fn check_spread(closes: &[Duration], spread: Duration) -> io::Result<()> {
    for (index, at) in closes.iter().enumerate() {
        let due = spread.mul_f64(index as f64 / closes.len() as f64);
        if *at + TICK < due {
            return Err(failure(format!(
                "close frame {index} must not arrive before {due:.1?}, but arrived after {at:.1?}"
            )));
        }
    }
    Ok(())
}
