//! The webhook: sends events to a back end over HTTP.
//!
//! The loop's thread encodes an event and puts it into a bounded queue. A worker thread posts batches of events in
//! order. The worker thread repeats a failed request until the back end accepts the events or the events are too old.
//! The reference for the webhook is `docs/webhooks.md`.

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

use self::event::{Event, EventError, Kind, Kinds};
use self::queue::{BatchBounds, Bounds, EventQueue};
pub use self::queue::{GivenUp, WebhookStats};
use self::retry::Retry;
use self::worker::{Rules, Worker};
use super::backend::signature::SigningKey;
use super::backend::{Backend, BackendConfig};
use crate::gateway::runtime::clock;
use crate::gateway::runtime::log_throttle::LogThrottle;
use crate::gateway::runtime::threads;

/// The minimum interval between two log lines about dropped events.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The default of [`Config::batch_bytes_max`], in bytes. This default is below the limits of Express (100 KiB) and
/// nginx (1 MiB) for the body of a request.
pub const BATCH_BYTES_MAX: usize = 96 << 10;

/// The default of [`Config::event_bytes_max`]: twice the default of `message_bytes_max`, plus space for the other
/// members of an event.
///
/// With the default settings, the event of every valid frame fits into this length. Valid JSON has no control
/// characters except tab, line feed and carriage return, so each byte of a frame takes at most two bytes of the event.
pub const EVENT_BYTES_MAX: usize = (2 << 20) + event::EVENT_BYTES_MAX_MIN;

/// The largest allowed value of [`Config::event_bytes_max`], in bytes.
pub const EVENT_BYTES_MAX_MAX: usize = 64 << 20;

/// The default of [`Config::queue_bytes_max`], in bytes.
const QUEUE_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(EVENT_BYTES_MAX_MAX <= QUEUE_BYTES_MAX, "an event of the maximum length must fit into the queue");

/// The settings of the webhook: its back end, its event types and its limits.
#[derive(Clone, Debug)]
pub struct Config {
    pub contact: BackendConfig,
    /// The types of events that the webhook sends.
    pub kinds: Kinds,
    /// The maximum number of events that wait in the queue or are in flight. Above this number, new `message` and
    /// `send` events are dropped. Above twice this number, all new events are dropped.
    pub queue_max: usize,
    /// The maximum number of bytes in events that wait in the queue or are in flight. Above this number, new `message`
    /// and `send` events are dropped. Above twice this number, all new events are dropped.
    pub queue_bytes_max: usize,
    /// The maximum number of events in a request.
    pub batch_max: usize,
    /// The maximum length of the body of a request, in bytes. An event that exceeds this length is sent alone.
    pub batch_bytes_max: usize,
    /// The maximum length of the JSON of an event, in bytes. A longer `message` or `send` event is not sent, and a
    /// longer `open` event is truncated.
    pub event_bytes_max: usize,
    /// The maximum time from the start of a request to the end of its answer.
    pub timeout: Duration,
    /// The maximum age of an event. After a failed request, events over this age are dropped.
    pub retry_time_max: Duration,
    /// The maximum pause after the first failed request. Each further failed request doubles the maximum pause.
    pub backoff_first: Duration,
    /// The upper bound of the maximum pause, which applies after any number of failed requests.
    pub backoff_max: Duration,
    /// The maximum pause that a `Retry-After` header can cause.
    pub retry_after_max: Duration,
}

/// The result of [`Webhook::emit`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum EmitResult {
    /// The event is in the queue.
    Queued,
    /// The queue is full. The event was dropped.
    Full,
    /// The JSON of the event has more than this number of bytes. The event was dropped.
    TooLarge(usize),
    /// Memory for the event could not be allocated. The event was dropped.
    OutOfMemory,
    /// Events of this type are not enabled.
    Unwanted,
}

/// A webhook, which sends events to a back end. Dropping the webhook drops the waiting events.
#[derive(Debug)]
pub struct Webhook {
    queue: Arc<EventQueue>,
    backend: Arc<Backend>,
    kinds: Kinds,
    event_bytes_max: usize,
    overflows: LogThrottle,
    oversizes: LogThrottle,
}

impl Config {
    /// Returns a configuration with the default limits.
    pub fn new(contact: BackendConfig) -> Config {
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
    /// Starts the thread that posts events.
    pub fn start(config: Config) -> io::Result<Webhook> {
        let queue = EventQueue::new(Bounds { events_max: config.queue_max, bytes_max: config.queue_bytes_max });
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

    /// Returns whether events of this type are enabled. The caller need not create an event of a type that is not
    /// enabled.
    pub fn wants(&self, kind: Kind) -> bool {
        self.kinds.contains(kind)
    }

    /// Puts an event into the queue. This call never waits for the back end.
    pub fn emit(&self, event: Event<'_>) -> EmitResult {
        let kind = event.kind();
        if !self.wants(kind) {
            return EmitResult::Unwanted;
        }
        let now = clock::now();
        let json = match event.to_json(clock::unix_ms(), self.event_bytes_max) {
            Ok(json) => json,
            Err(EventError::TooLarge) => {
                self.queue.count_too_large();
                if let Some(more) = self.oversizes.admit(now) {
                    let (kind, max) = (kind.as_str(), self.event_bytes_max);
                    log::warn!("{kind} event dropped: over webhook_event_bytes_max ({max} bytes){more}");
                }
                return EmitResult::TooLarge(self.event_bytes_max);
            }
            Err(EventError::OutOfMemory) => {
                self.queue.drop_unallocated();
                if let Some(more) = self.overflows.admit(now) {
                    log::error!("out of memory: {} event dropped{more}", kind.as_str());
                }
                return EmitResult::OutOfMemory;
            }
        };
        if self.queue.push(json.into_boxed_slice(), kind.is_frame(), now) {
            return EmitResult::Queued;
        }
        if let Some(more) = self.overflows.admit(now) {
            log::error!("webhook queue full: event dropped{more}");
        }
        EmitResult::Full
    }

    /// Returns the statistics of all events since the start of the webhook.
    pub fn stats(&self) -> WebhookStats {
        self.queue.stats()
    }

    /// Replaces the secret that signs requests.
    pub fn set_secret(&self, secret: Option<SigningKey>) {
        self.backend.set_secret(secret);
    }

    /// Accepts no more events, and waits up to `time_max` until the waiting events are sent.
    ///
    /// Returns the number of dropped events.
    pub fn finish(&self, time_max: Duration) -> usize {
        let (now, waiting) = (clock::now(), self.stats().queued);
        if waiting > 0 {
            log::info!("sending the last {waiting} webhook events, for up to {time_max:?}");
        }
        let rest = self.queue.finish(now + time_max, now);
        if rest > 0 {
            log::error!("{rest} webhook events dropped at shutdown");
        }
        rest
    }

    /// Drops the waiting events, so that [`finish`](Webhook::finish) returns immediately.
    pub fn give_up(&self) {
        self.queue.end();
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
    }
}
