//! Events for a back end, over HTTP: what `--webhook` turns on.
//!
//! The loop's thread makes an event JSON and puts it into a bounded queue, and has no more to do with it. A thread of its
//! own posts batches, in order, each until it is taken or too old. `docs/webhooks.md` says what a back end sees.

pub mod debounce;
pub mod event;
mod queue;
mod response;
mod retry;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::event::{Event, Kind, Kinds};
use self::queue::{BatchBounds, Bounds, Queue};
pub use self::queue::{GivenUp, Stats};
use self::retry::Retry;
use self::worker::{Rules, Worker};
use super::backend::signature::Secret;
use super::backend::{Backend, Contact};
use crate::gateway::runtime::clock;
use crate::gateway::runtime::log_throttle::LogThrottle;
use crate::gateway::runtime::threads;

/// How often a full queue is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The default of [`Config::batch_bytes_max`]: below the 100 KiB that Express reads of a body, and the 1 MiB of nginx.
pub const BATCH_BYTES_MAX: usize = 96 << 10;

/// The default of [`Config::event_bytes_max`]: twice the default of `message_bytes_max`, and room for the event's other
/// fields.
///
/// So every valid frame fits. JSON has no control characters but tab, line feed and carriage return, so no byte of a frame
/// takes more than two bytes of the event.
pub const EVENT_BYTES_MAX: usize = (2 << 20) + event::EVENT_BYTES_MAX_MIN;

/// The longest that an event may ever be.
pub const EVENT_BYTES_MAX_MAX: usize = 64 << 20;

/// The bytes that wait at most, by default.
const QUEUE_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(EVENT_BYTES_MAX_MAX <= QUEUE_BYTES_MAX, "an event that may be sent finds room");

/// What is told to whom, and how hard it is tried.
#[derive(Clone, Debug)]
pub struct Config {
    pub contact: Contact,
    /// The events that the back end wants to hear of.
    pub kinds: Kinds,
    /// Events that may wait; over it those of frames are given up, and over twice as many all.
    pub queue_max: usize,
    /// Their bytes; over it those of frames are given up, and over twice as many all.
    pub queue_bytes_max: usize,
    /// Events in a request.
    pub batch_max: usize,
    /// Bytes of a request's body. An event that is larger goes alone.
    pub batch_bytes_max: usize,
    /// Bytes of an event, as JSON. The event of a frame that is larger is not sent; an `open` event is truncated.
    pub event_bytes_max: usize,
    /// For a request, from its start to the answer's end.
    pub timeout: Duration,
    /// An event that is older than this after a failure is given up.
    pub retry_time_max: Duration,
    /// The longest pause after a first failure; it doubles with each one more.
    pub backoff_first: Duration,
    /// The longest of these pauses.
    pub backoff_max: Duration,
    /// The longest pause that a back end can ask for with `Retry-After`.
    pub retry_after_max: Duration,
}

/// The result of an event.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Emitted {
    /// It waits in the queue.
    Queued,
    /// The queue has no room. It was given up.
    Full,
    /// It is larger than an event may be, which is so many bytes.
    TooLarge(usize),
    /// The back end does not want such events.
    Unwanted,
}

/// The way to the back end. Dropping it gives up what still waits.
#[derive(Debug)]
pub struct Webhook {
    queue: Arc<Queue>,
    backend: Arc<Backend>,
    kinds: Kinds,
    event_bytes_max: usize,
    overflows: LogThrottle,
    oversizes: LogThrottle,
}

impl Config {
    /// The defaults for a back end.
    pub fn new(contact: Contact) -> Config {
        Config {
            contact,
            kinds: Kinds::default(),
            queue_max: 100_000,
            queue_bytes_max: QUEUE_BYTES_MAX,
            batch_max: 100,
            batch_bytes_max: BATCH_BYTES_MAX,
            event_bytes_max: EVENT_BYTES_MAX,
            timeout: Duration::from_secs(5),
            retry_time_max: Duration::from_secs(300),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(60),
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
            retry_after_max: config.retry_after_max,
            retry: Retry::new(config.backoff_first, config.backoff_max),
        };
        let mut worker = Worker::new(Arc::clone(&queue), Arc::clone(&backend), &node, &run, rules);
        threads::spawn("fdpush-webhook", move || {
            worker.run();
            Ok(())
        })?;
        let [overflows, oversizes] = [(); 2].map(|()| LogThrottle::new(LOG_EVERY));
        Ok(Webhook {
            queue,
            backend,
            kinds: config.kinds,
            event_bytes_max: config.event_bytes_max,
            overflows,
            oversizes,
        })
    }

    /// Whether the back end wants to hear of such events: where not, nobody need put one together.
    pub fn wants(&self, kind: Kind) -> bool {
        self.kinds.contains(kind)
    }

    /// Puts an event into the queue, if it is wanted and there is room, and says what became of it. Never waits for the back
    /// end.
    pub fn emit(&self, event: Event<'_>) -> Emitted {
        let kind = event.kind();
        if !self.wants(kind) {
            return Emitted::Unwanted;
        }
        let now = clock::now();
        let Some(json) = event.to_json(clock::unix_ms(), self.event_bytes_max) else {
            self.queue.count_too_large();
            if let Some(more) = self.oversizes.admit(now) {
                let (kind, max) = (kind.as_str(), self.event_bytes_max);
                log::warn!("a {kind} event of more than {max} bytes is not sent to the webhook{more}");
            }
            return Emitted::TooLarge(self.event_bytes_max);
        };
        if self.queue.push(json.into_boxed_slice(), kind.is_frame(), now) {
            return Emitted::Queued;
        }
        if let Some(more) = self.overflows.admit(now) {
            log::error!("there is no room for an event in the webhook's queue: given up{more}");
        }
        Emitted::Full
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
