//! Measures the delay of echoes to connected clients, first without handshakes and then during handshakes of other clients.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::handshakes::Clients;
use crate::shapes::{self, Rig};
use crate::{Options, WARM_UP};

/// The number of threads that make handshakes. Each thread makes one handshake at a time.
const THREADS: u32 = 16;

/// The default of `--pace`: the number of messages a second of all clients together.
const PACE: u32 = 5_000;

/// Prints the delay of echoes without and during handshakes, and the number of handshakes a second.
pub fn measure(options: &Options) -> io::Result<()> {
    let mut rig = Rig::new(shapes::echo(options)?)?;
    let quiet = delays(options, &mut rig)?;
    let made = &AtomicUsize::new(0);
    let (storm, took) = thread::scope(|scope| {
        let mut running = Vec::new();
        for _ in 0..THREADS {
            let (sender, is_over) = mpsc::channel();
            running.push(sender);
            scope.spawn(move || handshake(options, &is_over, made));
        }
        let started = Instant::now();
        let storm = delays(options, &mut rig);
        (storm, started.elapsed())
    });
    let storm = storm?;
    let rate = made.load(Ordering::Relaxed) as f64 / took.as_secs_f64();
    println!(
        "quiet_p50_us={:.0} quiet_p99_us={:.0} storm_p50_us={:.0} storm_p99_us={:.0} ratio={:.2} handshakes={rate:.0}",
        percentile(&quiet, 0.5),
        percentile(&quiet, 0.99),
        percentile(&storm, 0.5),
        percentile(&storm, 0.99),
        percentile(&storm, 0.99) / percentile(&quiet, 0.99),
    );
    Ok(())
}

/// Sends messages at a constant rate that does not depend on the answers. Returns the sorted times from the scheduled
/// time of a message to its answer.
fn delays(options: &Options, rig: &mut Rig) -> io::Result<Vec<Duration>> {
    let mut due: Vec<VecDeque<Instant>> = vec![VecDeque::new(); rig.peers.len()];
    let gap = Duration::from_secs(1) / options.pace.unwrap_or(PACE);
    let measured_from = Instant::now() + WARM_UP;
    let until = measured_from + Duration::from_secs_f64(options.seconds);
    let (mut next, mut sender, mut waiting) = (Instant::now(), 0, 0);
    let mut took = Vec::new();
    loop {
        let now = Instant::now();
        if now >= until && waiting == 0 {
            break;
        }
        if now >= next && now < until {
            rig.peers[sender].send(1)?;
            due[sender].push_back(next);
            waiting += 1;
            next += gap;
            sender = (sender + 1) % due.len();
        }
        // This thread waits in epoll and does not poll. When a waiting thread wakes up, the kernel runs it before the
        // handshake threads.
        let timeout = next.saturating_duration_since(Instant::now()).min(gap);
        rig.poll_for(timeout, |_, index, count| {
            let arrived = Instant::now();
            // `count` includes pings of the server, so it can exceed the number of expected answers.
            let count = count.min(due[index].len());
            for sent in due[index].drain(..count) {
                waiting -= 1;
                if sent >= measured_from {
                    took.push(arrived - sent);
                }
            }
            Ok(())
        })?;
    }
    took.sort_unstable();
    Ok(took)
}

/// Makes the handshakes of one thread at a constant rate, until the sender of `is_over` is dropped.
fn handshake(options: &Options, is_over: &Receiver<()>, made: &AtomicUsize) {
    // The kernel must run the measuring thread before this thread.
    let _ = rustix::process::setpriority_process(None, 19);
    let Ok(mut clients) = Clients::new(options, 1) else { return };
    let gap = Duration::from_secs(1) * THREADS / options.handshakes;
    let mut next = Instant::now();
    while is_over.recv_timeout(next.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
        next += gap;
        if clients.next(options).and_then(|mut session| session.await_ticket()).is_ok() {
            made.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn percentile(sorted: &[Duration], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
}
