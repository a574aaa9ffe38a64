//! SIGKILL in the middle of pushes, over and over.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::Signal;

use crate::crowd::{Book, Crowd};
use crate::pusher::Manner;
use crate::server::{Places, Server};
use crate::{Load, wrong};

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    load: Load,
    /// How often the server is killed.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// From its start anew to its first client: what half of them may take at most.
    #[arg(long, default_value_t = 200)]
    restart_ms_max: u64,
}

pub fn prove(options: &Options) -> io::Result<()> {
    let places = Places::find()?;
    let mut restarts = Vec::new();
    let mut total = Book::default();
    for round in 0..options.rounds {
        let (mut server, took) = Server::start(&options.load.server, places, &[])?;
        if round > 0 {
            restarts.push(took);
        }
        let book = kill(&mut server, &options.load, round)?;
        total.sent += book.sent;
        total.answered += book.answered;
        total.promised += book.promised;
        total.received += book.received;
        total.refused += book.refused;
    }
    let (_, took) = Server::start(&options.load.server, places, &[])?;
    restarts.push(took);
    restarts.sort();
    let (median, worst) = (restarts[restarts.len() / 2], restarts[restarts.len() - 1]);
    println!(
        "kill: {} times, {} subscribers, {} pushers: {} pushes sent, {} answered, {} of them queued, {} received, none lost; \
         started anew, the first client was in after {median:.1?} (median), {worst:.1?} at worst",
        options.rounds,
        options.load.subscribers,
        options.load.pushers,
        total.sent,
        total.answered,
        total.promised,
        total.received,
    );
    if total.refused > 0 {
        return Err(wrong("a push was refused"));
    }
    if total.answered == total.sent || total.promised != total.answered {
        return Err(wrong("it was not killed in the middle of pushes"));
    }
    if median > Duration::from_millis(options.restart_ms_max) {
        return Err(wrong("a server started anew accepts too late"));
    }
    Ok(())
}

fn kill(server: &mut Server, load: &Load, round: usize) -> io::Result<Book> {
    // Every fourth sends a batch; of the others some wait for each answer, some send dozens of requests ahead.
    let manner = |pusher: usize| if pusher % 4 == 3 { Manner::Batch } else { Manner::Requests };
    let depth = |pusher: usize| 1usize << (pusher % 7);
    let mut crowd = Crowd::gather(load, server.places, manner)?;
    let answers = load.subscribers + round % 7 * 500;
    loop {
        for pusher in 0..load.pushers {
            while crowd.pushers[pusher].under_way() < depth(pusher) {
                crowd.push(pusher);
            }
        }
        if crowd.book().answered >= answers {
            break;
        }
        crowd.turn(Duration::from_millis(100))?;
    }
    // It has much to read now, and is killed somewhere in the middle of it.
    crowd.flush()?;
    let pause = Duration::from_micros(round as u64 * 97 % 1000);
    let flushed = Instant::now();
    while flushed.elapsed() < pause {
        std::hint::spin_loop();
    }
    server.signal(Signal::KILL)?;
    server.wait()?;
    crowd.run_out()?;
    crowd.settle()
}
