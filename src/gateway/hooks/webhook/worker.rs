//! The thread that posts events to the back end in order, one batch at a time.
//!
//! After the back end refuses a request, the next request has half as many events. If the back end refuses a request
//! with a single event, this event is dropped immediately and does not block later events. A request that may succeed
//! later is repeated after a pause.

use std::collections::{TryReserveError, VecDeque};
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::{BatchBounds, Entry, EventQueue};
use super::response::ResponseClass;
use super::retry::Retry;
use crate::gateway::hooks::backend::{Backend, Failure};
use crate::gateway::runtime::clock;
use crate::gateway::runtime::log_throttle::LogThrottle;

/// The minimum interval between two log lines about one kind of failure.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The maximum number of bytes in a request body besides the opening (`node` and `run`) and the events:
/// `,"sent_ms":N,"given_up":N,"events":[]}`, where each N has up to 20 digits.
const ENVELOPE_BYTES: usize = 80;

/// The number of consecutive refused events from which each further refusal causes a pause.
const REFUSALS_IN_A_ROW_MAX: u32 = 100;

/// The pause after a refused event, if at least [`REFUSALS_IN_A_ROW_MAX`] consecutive events were refused. A back end
/// that refuses every event gets at most 50 requests a second.
const REFUSAL_PAUSE: Duration = Duration::from_millis(20);

/// The maximum number of ranges of sequence numbers in a log line.
const RANGES_LOGGED_MAX: usize = 10;

/// The worker that posts events, and the state of this worker.
#[derive(Debug)]
pub struct Worker {
    queue: Arc<EventQueue>,
    backend: Arc<Backend>,
    /// The start of each request body: `{"node":…,"run":…`.
    opening: Vec<u8>,
    rules: Rules,
    /// The batch in flight. The batch survives a panic of the thread, and the next run sends the batch again.
    in_flight: VecDeque<Entry>,
    /// The refused events of the batch in flight.
    refused: RefusedBatches,
    /// The maximum number of events in the next request. This number is halved when a request may be too large, and
    /// doubled after an accepted request.
    window: usize,
    /// The number of events that were refused since the last accepted request.
    refusals_in_a_row: u32,
    /// Whether the worker knows that the queue accepts no more events.
    is_finishing: bool,
    failures: LogThrottle,
    losses: LogThrottle,
}

/// The limits of the requests to the back end.
#[derive(Debug)]
pub struct Rules {
    pub batch: BatchBounds,
    /// The maximum time from the start of a request to the end of its answer.
    pub timeout: Duration,
    /// The maximum age of an event. After a failed request, events over this age are dropped.
    pub retry_time_max: Duration,
    /// The maximum pause that a `Retry-After` header can cause.
    pub retry_after_max: Duration,
    pub retry: Retry,
}

/// The reason why a request was not accepted.
#[derive(Debug)]
enum DeliveryError {
    /// The back end answered with this status. The second field is the pause that `Retry-After` requests.
    Status(u16, Option<Duration>),
    Failure(Failure),
    /// Memory for the body of the request could not be allocated.
    OutOfMemory,
}

/// The refused events of a batch, for one log line.
#[derive(Debug, Default)]
struct RefusedBatches {
    count: u64,
    /// The HTTP status with which the back end refused the last event.
    status: u16,
    /// The first and the last sequence number of each range, for at most [`RANGES_LOGGED_MAX`] ranges.
    ranges: Vec<(u64, u64)>,
}

impl Worker {
    /// Creates a worker for the server `node`. `run` identifies this start of the server.
    pub fn new(queue: Arc<EventQueue>, backend: Arc<Backend>, node: &str, run: &str, mut rules: Rules) -> Worker {
        let names = serde_json::json!({ "node": node, "run": run }).to_string();
        // The opening is the JSON object of `node` and `run` without its closing brace.
        let opening = names.as_bytes()[..names.len() - 1].to_vec();
        // `webhook_batch_bytes_max` bounds the whole body, so the events may use only the remaining bytes.
        rules.batch.bytes_max = rules.batch.bytes_max.saturating_sub(opening.len() + ENVELOPE_BYTES);
        let [failures, losses] = [(); 2].map(|()| LogThrottle::new(LOG_EVERY));
        let window = rules.batch.events_max;
        Worker {
            queue,
            backend,
            opening,
            rules,
            in_flight: VecDeque::new(),
            refused: RefusedBatches::default(),
            window,
            refusals_in_a_row: 0,
            is_finishing: false,
            failures,
            losses,
        }
    }

    /// Posts batches until the server stops. A stopping server posts the waiting events until its deadline. After a
    /// panic, the supervisor calls `run` again. The new call of `run` continues with the batch in flight.
    pub fn run(&mut self) {
        if !self.in_flight.is_empty() {
            // If events are in flight at the start of `run`, the previous call of `run` ended with a panic. A panic
            // counts as a failed request, so old events are dropped.
            self.give_up_old(clock::now());
            self.deliver();
        }
        while let Some(batch) = self.queue.take(self.rules.batch) {
            self.in_flight = batch;
            self.deliver();
        }
        self.queue.end();
    }

    /// Sends requests until each event of the batch was accepted or dropped, or until the deadline of a stopping server.
    fn deliver(&mut self) {
        while !self.in_flight.is_empty() {
            let Some(timeout) = self.queue.timeout(self.rules.timeout, clock::now()) else { break };
            let count = self.window.min(self.in_flight.len());
            match self.post(count, timeout) {
                Ok(()) => {
                    self.rules.retry.reset();
                    self.refusals_in_a_row = 0;
                    self.window = self.window.saturating_mul(2).min(self.rules.batch.events_max);
                    self.queue.delivered(&mut self.in_flight, count);
                }
                Err(DeliveryError::Status(status, retry_after))
                    if ResponseClass::of(status, retry_after) == ResponseClass::Rejected =>
                {
                    self.handle_refusal(count, status);
                }
                Err(error) => self.handle_failure(count, &error),
            }
        }
        let refused = std::mem::take(&mut self.refused);
        if refused.count > 0 {
            log::error!("{refused}");
        }
    }

    /// Handles the refusal of a request with the first `count` events. If `count` is 1, drops the refused event. If
    /// `count` is greater than 1, halves the number of events in the next request.
    fn handle_refusal(&mut self, count: usize, status: u16) {
        let now = clock::now();
        // The back end answered, so the pause after the next failure is short again.
        self.rules.retry.reset();
        if count > 1 {
            self.window = count / 2;
            self.queue.count_refused_request();
            if let Some(more) = self.failures.admit(now) {
                log::warn!(
                    "the webhook answered {status} to a request of {count} events; the next request has half as many{more}"
                );
            }
            return;
        }
        if let Some(entry) = self.in_flight.front() {
            self.refused.add(entry.seq, status);
        }
        self.queue.drop_refused(&mut self.in_flight);
        self.window = 1;
        self.refusals_in_a_row = self.refusals_in_a_row.saturating_add(1);
        if self.refusals_in_a_row >= REFUSALS_IN_A_ROW_MAX {
            self.pause(REFUSAL_PAUSE, now);
        }
    }

    /// Handles a failed request that can be repeated: drops old events, and pauses.
    fn handle_failure(&mut self, count: usize, error: &DeliveryError) {
        let now = clock::now();
        // The first failure does not halve the number of events in the next request, because a single failure can have
        // a cause other than the number of events.
        if error.may_be_the_events() && self.rules.retry.failures() > 0 {
            self.window = (count / 2).max(1);
        }
        let asked = error.retry_after().map_or(Duration::ZERO, |asked| asked.min(self.rules.retry_after_max));
        let pause = self.rules.retry.next_pause().max(asked);
        if let Some(more) = self.failures.admit(now) {
            log::warn!("the webhook {error}; next try in {}{more}", shown(pause));
        }
        self.give_up_old(now);
        self.pause(pause, now);
    }

    /// After a failed request, drops the events that are older than `retry_time_max`.
    fn give_up_old(&mut self, now: Instant) {
        let lost = self.queue.failed(&mut self.in_flight, now.checked_sub(self.rules.retry_time_max));
        if lost > 0
            && let Some(more) = self.losses.admit(now)
        {
            let age = shown(self.rules.retry_time_max);
            log::error!("{lost} webhook events dropped: not accepted within {age}{more}");
        }
    }

    fn pause(&mut self, pause: Duration, now: Instant) {
        let is_finishing = self.queue.pause(pause, now, self.is_finishing);
        if is_finishing && !self.is_finishing {
            // Little time is left until the deadline of the stopping server, so the pauses become short again.
            self.rules.retry.reset();
        }
        self.is_finishing = is_finishing;
    }

    fn post(&self, count: usize, timeout: Duration) -> Result<(), DeliveryError> {
        let body = self.body(count).map_err(|_| DeliveryError::OutOfMemory)?;
        let answer = self.backend.post(&body, timeout).map_err(DeliveryError::Failure)?;
        // The status of an answer counts even if the body of the answer is incomplete.
        match ResponseClass::of(answer.status, answer.retry_after) {
            ResponseClass::Accepted => Ok(()),
            ResponseClass::Rejected | ResponseClass::Retryable(_) => {
                Err(DeliveryError::Status(answer.status, answer.retry_after))
            }
        }
    }

    /// Returns the body of a request with the first `count` events. The body is built for each attempt, because it
    /// contains the time of sending.
    fn body(&self, count: usize) -> Result<Vec<u8>, TryReserveError> {
        let events: usize = self.in_flight.iter().take(count).map(Entry::bytes).sum();
        let bytes_max = self.opening.len() + ENVELOPE_BYTES + events;
        let mut body = Vec::new();
        body.try_reserve_exact(bytes_max)?;
        body.extend_from_slice(&self.opening);
        let (sent_ms, given_up) = (clock::unix_ms(), self.queue.stats().given_up.gaps());
        // Writing to a vector does not fail.
        let _ = write!(body, r#","sent_ms":{sent_ms},"given_up":{given_up},"events":["#);
        for (index, entry) in self.in_flight.iter().take(count).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(body, r#"{comma}{{"seq":{},"#, entry.seq);
            // The opening brace of the event was already written above, before the member `seq`.
            body.extend_from_slice(entry.json.strip_prefix(b"{").unwrap_or(&entry.json));
        }
        body.extend_from_slice(b"]}");
        debug_assert!(body.len() <= bytes_max);
        Ok(body)
    }
}

impl DeliveryError {
    /// Returns whether a request with fewer events could succeed.
    ///
    /// Fewer events do not help if the back end was not reached, or answered 503 because it is busy.
    fn may_be_the_events(&self) -> bool {
        match self {
            DeliveryError::Status(status, _) => matches!(status, 500..=599) && *status != 503,
            DeliveryError::Failure(failure) => failure.is_timeout() || failure.is_disconnect(),
            DeliveryError::OutOfMemory => true,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            DeliveryError::Status(_, retry_after) => *retry_after,
            DeliveryError::Failure(_) | DeliveryError::OutOfMemory => None,
        }
    }
}

impl RefusedBatches {
    fn add(&mut self, seq: u64, status: u16) {
        self.count += 1;
        self.status = status;
        if let Some((_, last)) = self.ranges.last_mut().filter(|(_, last)| *last + 1 == seq) {
            *last = seq;
        } else if self.ranges.len() < RANGES_LOGGED_MAX {
            self.ranges.push((seq, seq));
        }
    }
}

impl fmt::Display for RefusedBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "webhook back end refused {} event{plural} with status {}: seq ", self.count, self.status)?;
        let mut named = 0;
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            named += last - first + 1;
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first} to {last}")? }
        }
        if named < self.count { write!(f, " and {} more", self.count - named) } else { Ok(()) }
    }
}

/// Formats a time without fractions of a millisecond.
fn shown(time: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis))
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeliveryError::Status(status, _) => write!(f, "answered {status}"),
            DeliveryError::Failure(failure) => write!(f, "failed: {failure}"),
            DeliveryError::OutOfMemory => f.write_str("failed: out of memory for the request"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::hooks::backend::mock::{MockBackend, TEST_TIMEOUT};
    use crate::gateway::hooks::webhook::queue::Bounds;

    #[test]
    fn after_a_panic_the_next_run_sends_the_batch_in_flight_again() {
        let double = MockBackend::always(200, "");
        let queue = Arc::new(EventQueue::new(Bounds { events_max: 10, bytes_max: 1000 }));
        let backend = Arc::new(Backend::new(double.contact(), 1).expect("the client of the back end can be created"));
        let batch = BatchBounds { events_max: 1, bytes_max: 1000 };
        let retry = Retry::new(Duration::from_millis(1), Duration::from_millis(1));
        let rules =
            Rules { batch, timeout: TEST_TIMEOUT, retry_time_max: TEST_TIMEOUT, retry_after_max: TEST_TIMEOUT, retry };
        let mut worker = Worker::new(Arc::clone(&queue), backend, "node", "run", rules);
        let push = |json: &str| assert!(queue.push(json.as_bytes().into(), false, clock::now()));
        push(r#"{"event":"a"}"#);
        push(r#"{"event":"b"}"#);
        // The state of the worker is the state after a panic of a previous run: a batch is in flight.
        worker.in_flight = queue.take(batch).expect("events wait in the queue");
        let run = std::thread::spawn(move || worker.run());
        let events = [double.next(), double.next()].map(|received| received.json()["events"][0]["event"].clone());
        assert_eq!(events, ["a", "b"]);
        assert_eq!(queue.finish(clock::now() + TEST_TIMEOUT, clock::now()), 0);
        run.join().expect("the thread ends without a panic");
        assert_eq!((queue.stats().sent, queue.stats().failures), (2, 1));
    }
}
