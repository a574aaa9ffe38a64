//! Events for a back end, over HTTP: what `--webhook` turns on.
//!
//! The loop's thread makes an event JSON and puts it into a bounded queue, and has no more to do with it. A thread of its
//! own posts batches, in order, each until it is taken or too old. `docs/webhooks.md` says what a back end sees.

pub mod debounce;
pub mod event;
mod queue;
mod retry;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::event::{Event, Kind, Kinds};
pub use self::queue::Stats;
use self::queue::{BatchBounds, Bounds, Queue};
use self::retry::Retry;
use self::worker::{Rules, Worker};
use super::backend::signature::Secret;
use super::backend::{Backend, Contact};
use super::clock;
use super::threads;
use super::throttle::Throttle;

/// How often a full queue is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// What is told to whom, and how hard it is tried.
#[derive(Clone, Debug)]
pub struct Config {
    pub contact: Contact,
    /// The events that the back end wants to hear of.
    pub kinds: Kinds,
    /// Events that may wait; over it messages are given up, and over twice as many all.
    pub queue_max: usize,
    /// Their bytes; over it messages are given up, and over twice as many all.
    pub queue_bytes_max: usize,
    /// Events in a request.
    pub batch_max: usize,
    /// Their bytes. An event that is larger goes alone.
    pub batch_bytes_max: usize,
    /// For a request, from its start to the answer's end.
    pub timeout: Duration,
    /// An event that is older than this after a failure is given up.
    pub retry_time_max: Duration,
    /// The longest pause after a first failure; it doubles with each one more.
    pub backoff_first: Duration,
    /// The longest pause at all.
    pub backoff_max: Duration,
}

/// The way to the back end. Dropping it gives up what still waits.
#[derive(Debug)]
pub struct Webhook {
    queue: Arc<Queue>,
    backend: Arc<Backend>,
    kinds: Kinds,
    overflows: Throttle,
}

impl Config {
    /// The defaults for a back end.
    pub fn new(contact: Contact) -> Config {
        Config {
            contact,
            kinds: Kinds::default(),
            queue_max: 100_000,
            queue_bytes_max: 64 << 20,
            batch_max: 100,
            batch_bytes_max: 1 << 20,
            timeout: Duration::from_secs(5),
            retry_time_max: Duration::from_secs(300),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
        }
    }
}

impl Webhook {
    /// Starts the thread that posts. Fails where the node cannot be named in a header, or there is no thread to be had.
    pub fn start(config: Config) -> io::Result<Webhook> {
        let queue = Queue::new(Bounds { events_max: config.queue_max, bytes_max: config.queue_bytes_max });
        let queue = Arc::new(queue);
        let node = config.contact.node.clone();
        let run = format!("{:016x}", fastrand::u64(..));
        let backend = Arc::new(Backend::new(config.contact, 1)?);
        let rules = Rules {
            batch: BatchBounds { events_max: config.batch_max, bytes_max: config.batch_bytes_max },
            timeout: config.timeout,
            retry_time_max: config.retry_time_max,
            retry: Retry::new(config.backoff_first, config.backoff_max),
        };
        let mut worker = Worker::new(Arc::clone(&queue), Arc::clone(&backend), &node, &run, rules);
        threads::spawn("fdpush-webhook", move || {
            worker.run();
            Ok(())
        })?;
        Ok(Webhook { queue, backend, kinds: config.kinds, overflows: Throttle::new(LOG_EVERY) })
    }

    /// Whether the back end wants to hear of such events: where not, nobody need put one together.
    pub fn wants(&self, kind: Kind) -> bool {
        self.kinds.contains(kind)
    }

    /// Puts an event into the queue, if it is wanted and there is room, and says whether it is in. Never waits for the
    /// back end.
    pub fn emit(&self, event: Event<'_>) -> bool {
        let kind = event.kind();
        if !self.wants(kind) {
            return false;
        }
        let now = clock::now();
        let json = event.to_json(clock::unix_ms()).into_boxed_slice();
        let is_in = self.queue.push(json, kind == Kind::Message, now);
        if !is_in && let Some(more) = self.overflows.admit(now) {
            log::error!("there is no room for an event in the webhook's queue: given up{more}");
        }
        is_in
    }

    /// What became of all events.
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }

    /// Signs with this secret from now on.
    pub fn set_secret(&self, secret: Option<Secret>) {
        self.backend.set_secret(secret);
    }

    /// Takes no more events, and waits until those that are there are sent, but not longer than `time_max`; the rest is
    /// given up. How many that were.
    pub fn finish(&self, time_max: Duration) -> usize {
        let (now, waiting) = (clock::now(), self.stats().queued);
        if waiting > 0 {
            log::info!("the last {waiting} events have {time_max:?} to reach the webhook");
        }
        let rest = self.queue.finish(now + time_max, now);
        if rest > 0 {
            log::error!("gave {rest} events up that the webhook did not take in the end");
        }
        rest
    }

    /// Gives up what still waits, at once: whoever [finishes](Webhook::finish) waits no longer.
    pub fn give_up(&self) {
        self.queue.end();
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
    }
}
