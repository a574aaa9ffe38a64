//! The thread that posts events to the back end, in order: a batch at a time, until the back end has taken, refused or
//! missed each of its events.
//!
//! A request that the back end refuses is halved, down to the one event that it does not take. That event is given up at
//! once, so that it holds up no other. A request that may pass later is sent again after a pause.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::{BatchBounds, Entry, Queue};
use super::response::Fate;
use super::retry::Retry;
use crate::gateway::hooks::backend::{Backend, Failure};
use crate::gateway::runtime::clock;
use crate::gateway::runtime::log_throttle::LogThrottle;

/// The shortest interval between two log lines of one kind of failure.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Bytes of a body beside node, run and events: `,"sent_ms":N,"given_up":N,"events":[]}`, each N of 20 digits at most.
const ENVELOPE_BYTES: usize = 80;

/// Events that may be refused in a row before each further one costs a pause.
const REFUSALS_IN_A_ROW_MAX: u32 = 100;

/// That pause: a back end that refuses everything gets at most 50 requests a second.
const REFUSAL_PAUSE: Duration = Duration::from_millis(20);

/// Ranges of sequence numbers that a log line names at most.
const RANGES_LOGGED_MAX: usize = 10;

/// The worker and its state.
#[derive(Debug)]
pub struct Worker {
    queue: Arc<Queue>,
    backend: Arc<Backend>,
    /// The beginning of every body: `{"node":…,"run":…`.
    opening: Vec<u8>,
    rules: Rules,
    /// The batch on its way to the back end. A panic leaves it here, and the next run tries it again.
    in_flight: VecDeque<Entry>,
    /// Those of the batch that were refused.
    refused: Refused,
    /// Events in the next request, at most. Halved where a request may be too much for the back end, doubled by success.
    window: usize,
    /// Events that were refused since the last success.
    refusals_in_a_row: u32,
    /// Whether the worker knows that it is to finish.
    is_finishing: bool,
    failures: LogThrottle,
    losses: LogThrottle,
}

/// How the worker tries.
#[derive(Debug)]
pub struct Rules {
    pub batch: BatchBounds,
    /// For a request.
    pub timeout: Duration,
    /// An event that is older than this after a failure is given up.
    pub retry_time_max: Duration,
    /// The longest pause that a back end can ask for.
    pub retry_after_max: Duration,
    pub retry: Retry,
}

/// Why a request came to nothing.
#[derive(Debug)]
enum Trouble {
    /// The answer and the pause that it asks for.
    Status(u16, Option<Duration>),
    Failure(Failure),
}

/// The events of a batch that were refused, for one line in the log.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    /// The last one's.
    status: u16,
    /// The first and last of each run of sequence numbers, the first few.
    ranges: Vec<(u64, u64)>,
}

impl Worker {
    /// A worker for the server `node`, whose start is known as `run`.
    pub fn new(queue: Arc<Queue>, backend: Arc<Backend>, node: &str, run: &str, mut rules: Rules) -> Worker {
        let names = serde_json::json!({ "node": node, "run": run }).to_string();
        // Without its closing brace.
        let opening = names.as_bytes()[..names.len() - 1].to_vec();
        // The bound is that of the whole body.
        rules.batch.bytes_max = rules.batch.bytes_max.saturating_sub(opening.len() + ENVELOPE_BYTES);
        let [failures, losses] = [(); 2].map(|()| LogThrottle::new(LOG_EVERY));
        let window = rules.batch.events_max;
        Worker {
            queue,
            backend,
            opening,
            rules,
            in_flight: VecDeque::new(),
            refused: Refused::default(),
            window,
            refusals_in_a_row: 0,
            is_finishing: false,
            failures,
            losses,
        }
    }

    /// Works until the queue is finished. After a panic it is called again, and continues.
    pub fn run(&mut self) {
        if !self.in_flight.is_empty() {
            // The last run ended in a panic: the events that are too old are given up, as after any failed request.
            self.give_up_old(clock::now());
            self.deliver();
        }
        while let Some(batch) = self.queue.take(self.rules.batch) {
            self.in_flight = batch;
            self.deliver();
        }
        self.queue.end();
    }

    /// Tries until each event of the batch was taken or given up, or the end has come.
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
                Err(Trouble::Status(status, retry_after)) if Fate::of(status, retry_after) == Fate::Refused => {
                    self.handle_refusal(count, status);
                }
                Err(trouble) => self.handle_failure(count, &trouble),
            }
        }
        let refused = std::mem::take(&mut self.refused);
        if refused.count > 0 {
            log::error!("{refused}");
        }
    }

    /// The back end refused the first `count` events. Halves the next request, or gives the one event up.
    fn handle_refusal(&mut self, count: usize, status: u16) {
        let now = clock::now();
        // The back end is there.
        self.rules.retry.reset();
        if count > 1 {
            self.window = count / 2;
            self.queue.refused();
            if let Some(more) = self.failures.admit(now) {
                log::warn!(
                    "the webhook answered {status} to a request of {count} events; the next has half of them{more}"
                );
            }
            return;
        }
        if let Some(entry) = self.in_flight.front() {
            self.refused.add(entry.seq, status);
        }
        self.queue.refused_one(&mut self.in_flight);
        self.window = 1;
        self.refusals_in_a_row = self.refusals_in_a_row.saturating_add(1);
        if self.refusals_in_a_row >= REFUSALS_IN_A_ROW_MAX {
            self.pause(REFUSAL_PAUSE, now);
        }
    }

    /// A request of the first `count` events failed, and may pass later. Gives up what is too old, and pauses.
    fn handle_failure(&mut self, count: usize, trouble: &Trouble) {
        let now = clock::now();
        // One failure may be an accident.
        if trouble.may_be_the_events() && self.rules.retry.failures() > 0 {
            self.window = (count / 2).max(1);
        }
        let asked = trouble.retry_after().map_or(Duration::ZERO, |asked| asked.min(self.rules.retry_after_max));
        let pause = self.rules.retry.next_pause().max(asked);
        if let Some(more) = self.failures.admit(now) {
            log::warn!("the webhook {trouble}; next try in {}{more}", shown(pause));
        }
        self.give_up_old(now);
        self.pause(pause, now);
    }

    /// Gives up the events that are too old to be tried again after a failed request.
    fn give_up_old(&mut self, now: Instant) {
        let lost = self.queue.failed(&mut self.in_flight, now.checked_sub(self.rules.retry_time_max));
        if lost > 0
            && let Some(more) = self.losses.admit(now)
        {
            let age = shown(self.rules.retry_time_max);
            log::error!("gave {lost} events up that the webhook did not take in {age}{more}");
        }
    }

    fn pause(&mut self, pause: Duration, now: Instant) {
        let is_finishing = self.queue.pause(pause, now, self.is_finishing);
        if is_finishing && !self.is_finishing {
            // There is not the time to be as patient as the last failures taught.
            self.rules.retry.reset();
        }
        self.is_finishing = is_finishing;
    }

    fn post(&self, count: usize, timeout: Duration) -> Result<(), Trouble> {
        let answer = self.backend.post(&self.body(count), timeout).map_err(Trouble::Failure)?;
        // A body that is cut short says nothing against the answer.
        match Fate::of(answer.status, answer.retry_after) {
            Fate::Taken => Ok(()),
            Fate::Refused | Fate::MayPass(_) => Err(Trouble::Status(answer.status, answer.retry_after)),
        }
    }

    /// The body of a request of the first `count` events, made anew for each try, because it says when it was sent.
    fn body(&self, count: usize) -> Vec<u8> {
        let events: usize = self.in_flight.iter().take(count).map(Entry::bytes).sum();
        let bytes_max = self.opening.len() + ENVELOPE_BYTES + events;
        let mut body = Vec::with_capacity(bytes_max);
        body.extend_from_slice(&self.opening);
        let (sent_ms, given_up) = (clock::unix_ms(), self.queue.stats().given_up.holes());
        // A vector takes everything.
        let _ = write!(body, r#","sent_ms":{sent_ms},"given_up":{given_up},"events":["#);
        for (index, entry) in self.in_flight.iter().take(count).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(body, r#"{comma}{{"seq":{},"#, entry.seq);
            // The event is an object; its brace is open already.
            body.extend_from_slice(entry.json.strip_prefix(b"{").unwrap_or(&entry.json));
        }
        body.extend_from_slice(b"]}");
        debug_assert!(body.len() <= bytes_max);
        body
    }
}

impl Trouble {
    /// Whether fewer events might pass: a back end that was reached, and that did not say that it is busy.
    fn may_be_the_events(&self) -> bool {
        match self {
            Trouble::Status(status, _) => matches!(status, 500..=599) && *status != 503,
            Trouble::Failure(failure) => failure.is_timeout() || failure.is_disconnect(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Trouble::Status(_, retry_after) => *retry_after,
            Trouble::Failure(_) => None,
        }
    }
}

impl Refused {
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

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "gave {} event{plural} up that the webhook refused with {}: seq ", self.count, self.status)?;
        let mut named = 0;
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            named += last - first + 1;
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first} to {last}")? }
        }
        if named < self.count { write!(f, " and {} more", self.count - named) } else { Ok(()) }
    }
}

/// A time as people write it, without what is below a millisecond.
fn shown(time: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis))
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Status(status, _) => write!(f, "answered {status}"),
            Trouble::Failure(failure) => write!(f, "failed: {failure}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::hooks::backend::mock::{Double, PATIENCE};
    use crate::gateway::hooks::webhook::queue::Bounds;

    #[test]
    fn the_batch_that_a_panic_left_is_sent_by_the_next_run() {
        let double = Double::always(200, "");
        let queue = Arc::new(Queue::new(Bounds { events_max: 10, bytes_max: 1000 }));
        let backend = Arc::new(Backend::new(double.contact(), 1).expect("a back end"));
        let batch = BatchBounds { events_max: 1, bytes_max: 1000 };
        let retry = Retry::new(Duration::from_millis(1), Duration::from_millis(1));
        let rules = Rules { batch, timeout: PATIENCE, retry_time_max: PATIENCE, retry_after_max: PATIENCE, retry };
        let mut worker = Worker::new(Arc::clone(&queue), backend, "node", "run", rules);
        let push = |json: &str| assert!(queue.push(json.as_bytes().into(), false, clock::now()));
        push(r#"{"event":"a"}"#);
        push(r#"{"event":"b"}"#);
        // As a panic leaves it, between `take` and the answer.
        worker.in_flight = queue.take(batch).expect("a batch");
        let run = std::thread::spawn(move || worker.run());
        let events = [double.next(), double.next()].map(|received| received.json()["events"][0]["event"].clone());
        assert_eq!(events, ["a", "b"]);
        assert_eq!(queue.finish(clock::now() + PATIENCE, clock::now()), 0);
        run.join().expect("an end");
        assert_eq!((queue.stats().sent, queue.stats().failures), (2, 1));
    }
}
