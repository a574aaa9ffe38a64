//! Sends SIGKILL to the server during pushes, and restarts the server, many times.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::Signal;

use crate::clients::{Clients, Counts};
use crate::pusher::PushFormat;
use crate::server::{Addresses, Server};
use crate::{Load, failure};

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    load: Load,
    /// The number of kills.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// The maximum of the median restart time, in milliseconds.
    #[arg(long, default_value_t = 200)]
    restart_ms_max: u64,
}

pub fn prove(options: &Options) -> io::Result<()> {
    let addresses = Addresses::find()?;
    let mut restarts = Vec::new();
    let mut total = Counts::default();
    for round in 0..options.rounds {
        let (mut server, took) = Server::start(&options.load.server, addresses, &[])?;
        if round > 0 {
            restarts.push(took);
        }
        let counts = kill(&mut server, &options.load, round)?;
        total.sent += counts.sent;
        total.answered += counts.answered;
        total.acknowledged += counts.acknowledged;
        total.received += counts.received;
        total.refused += counts.refused;
    }
    let (_, took) = Server::start(&options.load.server, addresses, &[])?;
    restarts.push(took);
    restarts.sort();
    let (median, worst) = (restarts[restarts.len() / 2], restarts[restarts.len() - 1]);
    println!(
        "kill: {} times, {} subscribers, {} pushers: {} pushes sent, {} answered, {} of them queued, {} received, none lost; \
         after a restart, the first client connected within {median:.1?} (median), {worst:.1?} at most",
        options.rounds,
        options.load.subscribers,
        options.load.pushers,
        total.sent,
        total.answered,
        total.acknowledged,
        total.received,
    );
    if total.refused > 0 {
        return Err(failure("a push was refused"));
    }
    if total.answered == total.sent || total.acknowledged != total.answered {
        return Err(failure(
            "the server was not killed during pushes, or a push was not queued for exactly one client",
        ));
    }
    if median > Duration::from_millis(options.restart_ms_max) {
        return Err(failure("a restarted server accepted too late"));
    }
    Ok(())
}

fn kill(server: &mut Server, load: &Load, round: usize) -> io::Result<Counts> {
    // Every fourth pusher sends a batch. The other pushers send single requests: some wait for each answer, and some
    // pipeline dozens of requests.
    let format = |pusher: usize| if pusher % 4 == 3 { PushFormat::Batch } else { PushFormat::Requests };
    let depth = |pusher: usize| 1usize << (pusher % 7);
    let mut clients = Clients::connect(load, server.addresses, format)?;
    let answers = load.subscribers + round % 7 * 500;
    loop {
        for pusher in 0..load.pushers {
            while clients.pushers[pusher].in_flight() < depth(pusher) {
                clients.push(pusher);
            }
        }
        if clients.counts().answered >= answers {
            break;
        }
        clients.turn(Duration::from_millis(100))?;
    }
    // The pause between this flush and the kill differs between rounds. So the server has read none, some or all of the
    // flushed requests when it is killed.
    clients.flush()?;
    let pause = Duration::from_micros(round as u64 * 97 % 1000);
    let flushed = Instant::now();
    while flushed.elapsed() < pause {
        std::hint::spin_loop();
    }
    server.signal(Signal::KILL)?;
    server.wait()?;
    clients.read_to_end()?;
    clients.check()
}
