//! The thread that brings events to the back end: a batch at a time, in order, again and again until it is taken or too
//! old.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{BatchBounds, Entry, Queue};
use super::retry::Retry;
use crate::gateway::backend::{Backend, Failure};
use crate::gateway::clock;
use crate::gateway::throttle::Throttle;

/// How often one kind of trouble is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The worker and what it needs.
#[derive(Debug)]
pub struct Worker {
    queue: Arc<Queue>,
    backend: Arc<Backend>,
    /// What every body begins with: `{"node":…,"run":…`.
    opening: Vec<u8>,
    batch: BatchBounds,
    timeout: Duration,
    retry_time_max: Duration,
    retry: Retry,
    /// The batch on its way to the back end. A panic leaves it here, and the next run tries it again.
    in_flight: VecDeque<Entry>,
    /// Whether the worker knows that it is to finish.
    is_finishing: bool,
    failures: Throttle,
    losses: Throttle,
}

/// How the worker tries.
#[derive(Debug)]
pub struct Rules {
    pub batch: BatchBounds,
    /// For a request.
    pub timeout: Duration,
    /// An event that is older than this after a failure is given up.
    pub retry_time_max: Duration,
    pub retry: Retry,
}

/// Why a request came to nothing.
enum Trouble {
    Status(u16),
    Failure(Failure),
}

impl Worker {
    /// A worker for the server `node`, whose start is known as `run`.
    pub fn new(queue: Arc<Queue>, backend: Arc<Backend>, node: &str, run: &str, rules: Rules) -> Worker {
        let names = serde_json::json!({ "node": node, "run": run }).to_string();
        // Without its closing brace.
        let opening = names.as_bytes()[..names.len() - 1].to_vec();
        let Rules { batch, timeout, retry_time_max, retry } = rules;
        let [failures, losses] = [(); 2].map(|()| Throttle::new(LOG_EVERY));
        Worker {
            queue,
            backend,
            opening,
            batch,
            timeout,
            retry_time_max,
            retry,
            in_flight: VecDeque::new(),
            is_finishing: false,
            failures,
            losses,
        }
    }

    /// Works until the queue is finished. After a panic it is called again, and continues.
    pub fn run(&mut self) {
        if !self.in_flight.is_empty() {
            // The last run ended in a panic: the events that are too old are given up, as after any failed request.
            let before = clock::now().checked_sub(self.retry_time_max);
            self.queue.failed(&mut self.in_flight, before);
            self.deliver();
        }
        while let Some(batch) = self.queue.take(self.batch) {
            self.in_flight = batch;
            self.deliver();
        }
        self.queue.end();
    }

    /// Tries until the batch is taken, or given up, or the end has come.
    fn deliver(&mut self) {
        while !self.in_flight.is_empty() {
            let Some(timeout) = self.queue.timeout(self.timeout, clock::now()) else { return };
            let Err(trouble) = self.post(&self.in_flight, timeout) else {
                self.retry.reset();
                self.queue.delivered(&self.in_flight);
                self.in_flight.clear();
                return;
            };
            let now = clock::now();
            let lost = self.queue.failed(&mut self.in_flight, now.checked_sub(self.retry_time_max));
            let pause = self.retry.next_pause();
            if let Some(more) = self.failures.admit(now) {
                log::warn!("the webhook {trouble}; next try in {}{more}", shown(pause));
            }
            if lost > 0
                && let Some(more) = self.losses.admit(now)
            {
                let age = shown(self.retry_time_max);
                log::error!("gave {lost} events up that the webhook did not take in {age}{more}");
            }
            let is_finishing = self.queue.pause(pause, now, self.is_finishing);
            if is_finishing && !self.is_finishing {
                // There is not the time to be as patient as the last failures taught.
                self.retry.reset();
            }
            self.is_finishing = is_finishing;
        }
    }

    fn post(&self, batch: &VecDeque<Entry>, timeout: Duration) -> Result<(), Trouble> {
        let answer = self.backend.post(&self.body(batch), timeout).map_err(Trouble::Failure)?;
        // A body that is cut short says nothing against it.
        if (200..300).contains(&answer.status) { Ok(()) } else { Err(Trouble::Status(answer.status)) }
    }

    /// The body of a request, made anew for each try, because it says when it was sent.
    fn body(&self, batch: &VecDeque<Entry>) -> Vec<u8> {
        let events: usize = batch.iter().map(|entry| entry.json.len() + 32).sum();
        let mut body = Vec::with_capacity(self.opening.len() + events + 128);
        body.extend_from_slice(&self.opening);
        let (sent_ms, given_up) = (clock::unix_ms(), self.queue.stats().given_up);
        // A vector takes everything.
        let _ = write!(body, r#","sent_ms":{sent_ms},"given_up":{given_up},"events":["#);
        for (index, entry) in batch.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(body, r#"{comma}{{"seq":{},"#, entry.seq);
            // The event is an object; its brace is open already.
            body.extend_from_slice(entry.json.strip_prefix(b"{").unwrap_or(&entry.json));
        }
        body.extend_from_slice(b"]}");
        body
    }
}

/// A time as people write it, without what is below a millisecond.
fn shown(time: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis))
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Status(status) => write!(f, "answered {status}"),
            Trouble::Failure(failure) => write!(f, "failed: {failure}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::backend::double::{Double, PATIENCE};
    use crate::gateway::webhook::queue::Bounds;

    #[test]
    fn the_batch_that_a_panic_left_is_sent_by_the_next_run() {
        let double = Double::always(200, "");
        let queue = Arc::new(Queue::new(Bounds { events_max: 10, bytes_max: 1000 }));
        let backend = Arc::new(Backend::new(double.contact(), 1).expect("a back end"));
        let batch = BatchBounds { events_max: 1, bytes_max: 1000 };
        let retry = Retry::new(Duration::from_millis(1), Duration::from_millis(1));
        let rules = Rules { batch, timeout: PATIENCE, retry_time_max: PATIENCE, retry };
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
