//! SIGTERM in the middle of pushes.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::Signal;

use crate::crowd::Crowd;
use crate::pusher::Manner;
use crate::server::{PATIENCE, Places, Server};
use crate::{Load, wrong};

/// The close code of a server that goes down.
const GOING_AWAY: u16 = 1001;

/// Pushes that wait for their answer at most. On a machine that is too busy for the rate there are fewer a second, and no
/// backlog without an end.
const UNDER_WAY_MAX: usize = 1000;

/// The server counts in milliseconds, rounded down.
const TICK: Duration = Duration::from_millis(2);

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    load: Load,
    /// Pushes a second.
    #[arg(long, default_value_t = 5000)]
    rate: u32,
    /// How many a second it must have come to.
    #[arg(long, default_value_t = 0)]
    rate_min: u32,
    /// How many there are before the signal. They go on after it, too.
    #[arg(long, default_value_t = 10_000)]
    before: usize,
    /// Over how long the server spreads its closes, in milliseconds.
    #[arg(long, default_value_t = 0)]
    drain_for_ms: u64,
    /// How long it may take, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    drain_time_max_ms: u64,
}

pub fn prove(options: &Options) -> io::Result<()> {
    let (spread, limit) =
        (Duration::from_millis(options.drain_for_ms), Duration::from_millis(options.drain_time_max_ms));
    let flags = [format!("--drain-for={}ms", spread.as_millis()), format!("--drain-time-max={}ms", limit.as_millis())];
    let (mut server, _) = Server::start(&options.load.server, Places::find()?, &flags)?;
    let mut crowd = Crowd::gather(&options.load, server.places, |_| Manner::Requests)?;
    let mut pace = Pace { rate: options.rate, started: Instant::now(), pushed: 0 };
    while pace.pushed < options.before {
        pace.turn(&mut crowd)?;
    }
    let reached = pace.pushed as f64 / pace.started.elapsed().as_secs_f64();
    let before = crowd.book();
    if before.refused > 0 {
        return Err(wrong("a push was refused"));
    }
    let signalled = Instant::now();
    server.signal(Signal::TERM)?;
    let (status, took) = loop {
        pace.turn(&mut crowd)?;
        match server.ended()? {
            Some(status) => break (status, signalled.elapsed()),
            None if signalled.elapsed() > limit + PATIENCE => return Err(wrong("the server does not end")),
            None => {}
        }
    };
    crowd.run_out()?;
    let book = crowd.settle()?;
    let closes = closes(&crowd, signalled)?;
    println!(
        "drain: {} subscribers; {} pushes sent before SIGTERM, {reached:.0} a second, {} of them answered by then, {} sent after; {} answered, {} of them queued, {} received, none \
         lost; {} closes with {GOING_AWAY}, from {:.1?} to {:.1?}; {status} after {took:.1?} of {limit:.1?}",
        options.load.subscribers,
        before.sent,
        before.answered,
        book.sent - before.sent,
        book.answered,
        book.promised,
        book.received,
        closes.len(),
        closes[0],
        closes[closes.len() - 1],
    );
    if reached < f64::from(options.rate_min) {
        return Err(wrong("too few pushes a second: is the machine busy?"));
    }
    if !status.success() || took > limit {
        return Err(wrong("it did not end well, or in time"));
    }
    check_spread(&closes, spread)
}

/// Pushes at a rate, over one pusher after the other.
struct Pace {
    rate: u32,
    started: Instant,
    pushed: usize,
}

impl Pace {
    /// Pushes what is due, and reads what came.
    fn turn(&mut self, crowd: &mut Crowd) -> io::Result<()> {
        let due = (self.started.elapsed().as_secs_f64() * f64::from(self.rate)) as usize;
        let room = UNDER_WAY_MAX.saturating_sub(crowd.under_way());
        for _ in 0..due.saturating_sub(self.pushed).min(room) {
            crowd.push(self.pushed % crowd.pushers.len());
            self.pushed += 1;
        }
        crowd.turn(Duration::from_millis(1))
    }
}

/// When each subscriber was told, after the signal, the first one first. All were, with the right code.
fn closes(crowd: &Crowd, signalled: Instant) -> io::Result<Vec<Duration>> {
    let mut closes = Vec::with_capacity(crowd.subscribers.len());
    for (number, subscriber) in crowd.subscribers.iter().enumerate() {
        match subscriber.closed {
            Some((GOING_AWAY, at)) => closes.push(at.saturating_duration_since(signalled)),
            other => return Err(wrong(format!("subscriber {number} was not told: {other:?}"))),
        }
    }
    closes.sort();
    Ok(closes)
}

/// No close comes before its time. That none comes late is for the limit to say: it depends on the machine.
fn check_spread(closes: &[Duration], spread: Duration) -> io::Result<()> {
    for (index, at) in closes.iter().enumerate() {
        let due = spread.mul_f64(index as f64 / closes.len() as f64);
        if *at + TICK < due {
            return Err(wrong(format!("close {index} came after {at:.1?}, and was due after {due:.1?}")));
        }
    }
    Ok(())
}
