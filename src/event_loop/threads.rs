//! Runs the loops of a server: one on the calling thread, the others on their own threads.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use mio::Poll;

use crate::event_loop::accept::raise_connections_max;
use crate::event_loop::clock::Epoch;
use crate::event_loop::context::Command;
use crate::event_loop::error::Error;
use crate::event_loop::fleet::Fleet;
use crate::event_loop::handler::Handler;
use crate::event_loop::inbox::Inbox;
use crate::event_loop::listener::{Endpoint, Listener, ListenerKind};
use crate::event_loop::siblings::Siblings;
use crate::event_loop::siblings::process::{Process, Settings};
use crate::event_loop::{Config, EventLoop, Prepared, open};

/// Creates the handler of a loop, from the number of the loop.
pub type Factory<H> = Arc<Mutex<dyn FnMut(usize) -> H + Send>>;

/// Runs a server with one loop on this thread. `make` creates the handler.
pub fn run_one<H: Handler>(
    config: Config,
    listeners: Vec<Listener>,
    parts: (Poll, Inbox<Command>),
    fleet: &Fleet<Command>,
    make: impl FnOnce() -> H,
) -> Result<(), Error> {
    let connections_max = connections_max(&config, &listeners, 1)?;
    let endpoints = listeners.into_iter().map(Endpoint::from).collect();
    fleet.set(Box::new([parts.1.sender()]));
    let prepared = Prepared::new(config, connections_max, endpoints, parts, fleet.clone(), Epoch::begin())?;
    prepared.claim_thread();
    EventLoop::new(prepared, make()).run()
}

/// Runs a server with several loops. The first loop runs on this thread.
///
/// All loops drain together. If a loop ends by an error, or by a panic outside a handler, all other loops drain.
///
/// # Errors
/// Returns the error of the loop that was the first to end by an error.
pub fn run_several<H: Handler>(
    config: Config,
    listeners: Vec<Listener>,
    first: (Poll, Inbox<Command>),
    fleet: &Fleet<Command>,
    loops: usize,
    factory: &Factory<H>,
) -> Result<(), Error> {
    let connections_max = connections_max(&config, &listeners, loops)?;
    let mut parts = vec![first];
    for _ in 1..loops {
        parts.push(open(config.limits.inbox_max)?);
    }
    // The loops have one epoch, so that they can share rate limits.
    let epoch = Epoch::begin();
    let wakers = parts.iter().map(|(_, inbox)| inbox.waker()).collect();
    let Config { limits, origins, proxies, .. } = config.clone();
    let settings = Settings { limits: limits.clone(), origins, proxies };
    let process = Arc::new(Process::new(wakers, config.second_login, settings));
    let senders = parts.iter().map(|(_, inbox)| inbox.sender()).collect();
    let mut all = Vec::new();
    for (index, (parts, endpoints)) in parts.into_iter().zip(distribute(listeners, loops)).enumerate() {
        let catches_signals = config.catches_signals && index == 0;
        let config = Config { limits: limits.share(loops), catches_signals, ..config.clone() };
        let prepared = Prepared::new(config, connections_max, endpoints, parts, fleet.clone(), epoch)?;
        all.push(prepared.with_siblings(Siblings::new(index, Arc::clone(&process), limits.clone())));
    }
    fleet.set(senders);
    let shared = Shared { process, fleet, factory, first_error: Mutex::new(None) };
    run_all(all, &shared)?;
    let first_error = shared.first_error.into_inner().unwrap_or_else(PoisonError::into_inner);
    first_error.map_or(Ok(()), Err)
}

/// The values that the threads of all loops use.
struct Shared<'a, H> {
    process: Arc<Process>,
    fleet: &'a Fleet<Command>,
    factory: &'a Factory<H>,
    /// The error of the loop that was the first to end by an error.
    first_error: Mutex<Option<Error>>,
}

fn run_all<H: Handler>(all: Vec<Prepared>, shared: &Shared<'_, H>) -> Result<(), Error> {
    let mut all = all.into_iter().enumerate();
    let Some((_, first)) = all.next() else { return Ok(()) };
    thread::scope(|scope| {
        // No loop starts before all threads exist. If a thread cannot be started, the channels are dropped, and the other
        // threads end.
        let mut waiting = Vec::new();
        for (index, prepared) in all {
            let (start, started) = mpsc::channel();
            let run = move || started.recv().into_iter().for_each(|prepared| run_loop(index, prepared, shared));
            let thread = thread::Builder::new().name(format!("fdpush-loop-{index}"));
            let thread = thread.spawn_scoped(scope, run).map_err(Error::Thread)?;
            waiting.push((start, prepared, thread));
        }
        let start = |(start, prepared, thread): (mpsc::Sender<Prepared>, Prepared, _)| {
            // The send succeeds, because the thread waits for the parts of its loop.
            let _ = start.send(prepared);
            thread
        };
        let threads: Vec<_> = waiting.into_iter().map(start).collect();
        run_loop(0, first, shared);
        match threads.into_iter().filter_map(|thread| thread.join().err()).next_back() {
            Some(panic) => resume_unwind(panic),
            None => Ok(()),
        }
    })
}

fn run_loop<H: Handler>(index: usize, prepared: Prepared, shared: &Shared<'_, H>) {
    let _end = LoopEnd { index, process: &shared.process, fleet: shared.fleet };
    // The factory may use a `Remote`, which must know that this thread runs a loop.
    prepared.claim_thread();
    let handler = shared.factory.lock().unwrap_or_else(PoisonError::into_inner)(index);
    if let Err(error) = EventLoop::new(prepared, handler).run() {
        log::error!("loop {index} ended, and the other loops drain: {error}");
        shared.first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Makes the other loops drain when it is dropped, because its loop has ended or panicked.
struct LoopEnd<'a> {
    index: usize,
    process: &'a Process,
    fleet: &'a Fleet<Command>,
}

impl Drop for LoopEnd<'_> {
    fn drop(&mut self) {
        self.process.record_ended(self.index);
        for sender in self.fleet.senders().unwrap_or_default() {
            // A loop that has ended needs no shutdown.
            let _ = sender.send_last(Command::Shutdown);
        }
        self.process.record_drained(self.index);
    }
}

fn connections_max(config: &Config, listeners: &[Listener], loops: usize) -> Result<usize, Error> {
    let has_control = listeners.iter().any(|listener| listener.kind == ListenerKind::Control);
    raise_connections_max(&config.limits, has_control, loops).map_err(Error::Descriptors)
}

/// Returns the endpoints of each loop.
///
/// The first loop has all listeners whose address cannot be bound again, and sends accepted sockets of clients to the
/// other loops.
fn distribute(listeners: Vec<Listener>, loops: usize) -> Vec<Vec<Endpoint>> {
    let mut endpoints: Vec<Vec<Endpoint>> = (0..loops).map(|_| Vec::new()).collect();
    for listener in listeners {
        for others in &mut endpoints[1..] {
            let again = listener.listen_again().unwrap_or_else(|error| {
                log::warn!("{}: the first loop accepts for all loops: {error}", listener.name());
                None
            });
            others.push(again.map_or_else(|| listener.place(), Endpoint::from));
        }
        endpoints[0].push(listener.into());
    }
    endpoints
}
