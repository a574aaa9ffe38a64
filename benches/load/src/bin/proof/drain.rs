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

/// The server counts in milliseconds, rounded down.
const TICK: Duration = Duration::from_millis(2);

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    load: Load,
    /// Pushes a second.
    #[arg(long, default_value_t = 5000)]
    rate: u32,
    /// How long they go on before the signal, in milliseconds. They go on after it, too.
    #[arg(long, default_value_t = 2000)]
    before_ms: u64,
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
    let started = Instant::now();
    let mut pushed = 0;
    let mut push = |crowd: &mut Crowd| {
        let due = (started.elapsed().as_secs_f64() * f64::from(options.rate)) as usize;
        (pushed..due).for_each(|number| crowd.push(number % options.load.pushers));
        pushed = due;
        crowd.turn(Duration::from_millis(1))
    };
    while started.elapsed() < Duration::from_millis(options.before_ms) {
        push(&mut crowd)?;
    }
    let before = crowd.book();
    let signalled = Instant::now();
    server.signal(Signal::TERM)?;
    let (status, took) = loop {
        push(&mut crowd)?;
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
        "drain: {} subscribers; {} pushes sent before SIGTERM, {} of them answered by then, {} sent after; {} answered, {} of them queued, {} received, none \
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
    if !status.success() || took > limit {
        return Err(wrong("it did not end well, or in time"));
    }
    check_spread(&closes, spread)
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
