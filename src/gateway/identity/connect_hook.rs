//! The connect hook asks a back end over HTTP whether to accept a client.
//!
//! The loop's thread puts each request into a bounded queue, which serves client addresses in turn. A few worker
//! threads take requests from the queue, send them to the back end, and wait for the answers. The timeout of a request
//! starts when the request enters the queue. The watch thread answers each request at its deadline, even if all worker
//! threads wait for the back end. If a client disconnects, its request is removed from the queue.

pub mod decision;

mod fair_queue;
mod request;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fdpush::{Fd, Request};

pub use self::decision::Decision;
use self::fair_queue::{Bounds, FairQueue, Full, Source};
use super::Identity;
use crate::gateway::hooks::backend::signature::SigningKey;
use crate::gateway::hooks::backend::{Backend, BackendConfig, Failure};
use crate::gateway::runtime::clock;
use crate::gateway::runtime::log_throttle::LogThrottle;
use crate::gateway::runtime::threads;

/// The minimum interval between two log lines about failed requests.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The minimum length of the list [`HookState::watched`] at which answered requests are removed from this list.
const WATCHED_MIN: usize = 64;

/// The back end of the connect hook and its limits.
#[derive(Clone, Debug)]
pub struct Config {
    pub contact: BackendConfig,
    /// The maximum time from the request to the decision, including the time in the queue.
    pub timeout: Duration,
    /// The number of worker threads: the maximum number of requests that wait for the back end's answer at the same
    /// time.
    pub threads: usize,
    /// The maximum number of requests that wait for a worker thread.
    pub queue_max: usize,
    /// The maximum number of requests of one source that wait for a worker thread. A source is an IPv4 address, an IPv6
    /// network, or all clients of unix sockets.
    pub source_queue_max: usize,
}

/// The connect hook. Dropping the hook answers all unanswered requests with [`Decision::Unavailable`].
#[derive(Debug)]
pub struct Hook {
    shared: Arc<Shared>,
}

/// The numbers of requests since the start of the hook, by result.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct HookStats {
    /// The number of requests that wait for a worker thread now.
    pub waiting: usize,
    pub accepted: u64,
    pub refused: u64,
    /// The number of requests that got no answer or an invalid answer from the back end.
    pub failed: u64,
    pub timed_out: u64,
    /// The number of requests that were refused because the queue was full, or were removed from the full queue for a
    /// request of another source.
    pub overflowed: u64,
    /// The number of requests whose client disconnected before the decision.
    pub gone: u64,
}

/// A request for which the hook has not made a decision yet. Dropping this value cancels the request, so the callback
/// of the request is not called.
#[derive(Debug)]
#[must_use = "dropping a Pending cancels its request"]
pub struct Pending {
    shared: Arc<Shared>,
    open: Arc<Open>,
}

#[derive(Debug)]
struct Shared {
    backend: Backend,
    timeout: Duration,
    bounds: Bounds,
    state: Mutex<HookState>,
    /// The condition variable on which the worker threads wait for requests.
    for_worker: Condvar,
    /// The condition variable on which the watch thread waits for deadlines.
    for_watch: Condvar,
    failures: LogThrottle,
}

#[derive(Debug)]
struct HookState {
    requests: FairQueue<QueuedRequest>,
    /// The requests in the order of their deadlines. Some of these requests may already be answered.
    watched: VecDeque<Arc<Open>>,
    /// The length of `watched` at which answered requests are removed from `watched`.
    watched_max: usize,
    /// Whether the watch thread waits without a deadline.
    is_watch_idle: bool,
    is_over: bool,
    stats: HookStats,
}

#[derive(Debug)]
struct QueuedRequest {
    fd: Fd,
    address: Option<IpAddr>,
    request: Request<'static>,
    open: Arc<Open>,
}

/// A request for an upgrade that waits for a decision. Each request gets exactly one decision, unless the request is
/// cancelled.
struct Open {
    source: Source,
    deadline: Instant,
    /// The callback for the decision. The thread that makes the decision takes the callback.
    answer: Mutex<Option<DecisionCallback>>,
}

type DecisionCallback = Box<dyn FnOnce(Decision) + Send>;

/// A request that a worker has taken from the queue.
///
/// The queue limits the number of requests of a source that are being served. When this value is dropped, its request
/// does not count any more, so the queue may return another request of the same source.
struct Served<'a> {
    shared: &'a Shared,
    source: Source,
    request: QueuedRequest,
}

/// The reason why the back end made no decision.
enum HookError {
    Failure(Failure),
    Status(u16),
    /// The answer of the back end is invalid. The text states the fault of the answer.
    InvalidAnswer(String),
    TimedOut,
    /// The source of the request, or all sources together, have reached the maximum number of requests in the queue.
    QueueFull {
        full: Full,
        source: Source,
        bounds: Bounds,
    },
    /// A request of another source took the place of this request, because the source of this request had the most
    /// requests in the full queue.
    Displaced(Source),
    /// The client disconnected before the second attempt to send its request.
    Gone,
    Over,
}

impl Config {
    /// Returns a configuration with the default limits.
    pub fn new(contact: BackendConfig) -> Config {
        Config { contact, timeout: Duration::from_secs(2), threads: 16, queue_max: 1024, source_queue_max: 256 }
    }
}

impl Hook {
    /// Starts the threads of the hook.
    pub fn start(config: Config) -> io::Result<Hook> {
        let threads = config.threads.max(1);
        let bounds = Bounds {
            items_max: config.queue_max,
            source_items_max: config.source_queue_max,
            // One source may use at most three quarters of the worker threads, rounded up.
            source_served_max: threads - threads / 4,
        };
        let state = HookState {
            requests: FairQueue::new(bounds),
            watched: VecDeque::new(),
            watched_max: WATCHED_MIN,
            is_watch_idle: false,
            is_over: false,
            stats: HookStats::default(),
        };
        let shared = Arc::new(Shared {
            backend: Backend::new(config.contact, threads)?,
            timeout: config.timeout,
            bounds,
            state: Mutex::new(state),
            for_worker: Condvar::new(),
            for_watch: Condvar::new(),
            failures: LogThrottle::new(LOG_EVERY),
        });
        // If a thread cannot be started, dropping `hook` ends the threads that have started.
        let hook = Hook { shared };
        hook.spawn("fdpush-auth-watch", Shared::watch)?;
        for _ in 0..threads {
            hook.spawn("fdpush-auth", Shared::work)?;
        }
        Ok(hook)
    }

    /// Asks the back end about a client request, and returns immediately.
    ///
    /// `source` is the IPv4 address or IPv6 network of the client, or `None` for a client of a unix socket. The queue
    /// serves sources in turn.
    ///
    /// `answer` is called once with the decision, within the timeout, on another thread. If the queue is full, `answer`
    /// is called on the thread of the caller before `ask` returns. `answer` must not block. `answer` is not called
    /// after the returned [`Pending`] was dropped.
    pub fn ask(
        &self,
        fd: Fd,
        address: Option<IpAddr>,
        source: Option<IpAddr>,
        request: Request<'static>,
        answer: impl FnOnce(Decision) + Send + 'static,
    ) -> Pending {
        let deadline = clock::now() + self.shared.timeout;
        let open = Arc::new(Open { source, deadline, answer: Mutex::new(Some(Box::new(answer))) });
        let queued = QueuedRequest { fd, address, request, open: Arc::clone(&open) };
        let pending = Pending { shared: Arc::clone(&self.shared), open: Arc::clone(&open) };
        let mut state = self.shared.lock();
        let displaced = match state.requests.push(source, queued) {
            Ok(displaced) => displaced,
            Err(full) => {
                drop(state);
                let bounds = self.shared.bounds;
                self.shared.resolve(&open, fd, Err(HookError::QueueFull { full, source, bounds }));
                return pending;
            }
        };
        state.watch(open);
        let is_watch_idle = std::mem::take(&mut state.is_watch_idle);
        drop(state);
        self.shared.for_worker.notify_one();
        if is_watch_idle {
            self.shared.for_watch.notify_one();
        }
        if let Some(displaced) = displaced {
            self.shared.resolve(&displaced.open, displaced.fd, Err(HookError::Displaced(displaced.open.source)));
        }
        pending
    }

    /// Returns the statistics of all requests since the start of the hook.
    pub fn stats(&self) -> HookStats {
        let state = self.shared.lock();
        HookStats { waiting: state.requests.len(), ..state.stats }
    }

    /// Replaces the secret that signs requests.
    pub fn set_secret(&self, secret: Option<SigningKey>) {
        self.shared.backend.set_secret(secret);
    }

    fn spawn(&self, name: &'static str, run: fn(&Shared)) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        threads::spawn(name, move || {
            run(&shared);
            Ok(())
        })?;
        Ok(())
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.for_worker.notify_all();
        self.shared.for_watch.notify_all();
    }
}

impl Shared {
    /// Serves requests until the hook is dropped.
    fn work(&self) {
        while let Some(served) = self.next_request() {
            let QueuedRequest { fd, address, request, open } = &served.request;
            // A request is already answered or cancelled if its deadline has passed or its client has disconnected.
            if open.is_answered() {
                continue;
            }
            let body = request::to_json(self.backend.node(), *fd, *address, request);
            let decision = self.ask_back_end(&body, open).and_then(|decision| check_offered(decision, request));
            self.resolve(open, *fd, decision);
        }
    }

    /// Waits for a request in the queue. Returns `None` when the hook is dropped.
    fn next_request(&self) -> Option<Served<'_>> {
        let is_idle = |state: &mut HookState| !state.requests.is_ready() && !state.is_over;
        let mut state = self.for_worker.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            return None;
        }
        let (source, request) = state.requests.pop()?;
        Some(Served { shared: self, source, request })
    }

    /// Cancels the request of a client that has disconnected.
    fn withdraw(&self, open: &Arc<Open>) {
        let Some(answer) = open.take() else { return };
        let mut state = self.lock();
        let removed = state.requests.remove(open.source, |request| Arc::ptr_eq(&request.open, open));
        state.stats.gone += 1;
        drop(state);
        drop((removed, answer));
    }

    /// Posts the request to the back end, and returns the decision in the answer. If the connection ends without an
    /// answer, posts the request once more, because the back end may have closed an idle connection.
    fn ask_back_end(&self, body: &[u8], open: &Open) -> Result<Decision, HookError> {
        let post = || {
            let left = open.deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                Err(HookError::TimedOut)
            } else {
                self.backend.post(body, left).map_err(HookError::Failure)
            }
        };
        let answer = match post() {
            Err(HookError::Failure(failure)) if failure.is_disconnect() => {
                if open.is_answered() {
                    return Err(HookError::Gone);
                }
                post()?
            }
            answer => answer?,
        };
        match (answer.status, answer.body) {
            (200, Ok(body)) => decision::accept(&body, clock::unix_seconds()).map_err(HookError::InvalidAnswer),
            (200, Err(failure)) => Err(HookError::Failure(failure)),
            // A refusal is valid even if its body is incomplete.
            (status @ 400..=499, body) => Ok(decision::refuse(status, &body.unwrap_or_default())),
            (status, _) => Err(HookError::Status(status)),
        }
    }

    /// Answers each request at its deadline. When the hook is dropped, answers all open requests.
    fn watch(&self) {
        let mut state = self.lock();
        loop {
            let now = clock::now();
            let is_over = state.is_over;
            let first = state.watched.pop_front_if(|first| is_over || first.deadline <= now || first.is_answered());
            if let Some(first) = first {
                // If the request is still in the queue, the request must leave the queue, so that no worker takes an
                // answered request.
                let removed = state.requests.remove(first.source, |request| Arc::ptr_eq(&request.open, &first));
                drop(state);
                drop(removed);
                let error = if is_over { HookError::Over } else { HookError::TimedOut };
                self.resolve(&first, None, Err(error));
                state = self.lock();
                continue;
            }
            if is_over {
                return;
            }
            state = match state.watched.front().map(|first| first.deadline) {
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(now);
                    self.for_watch.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    state.is_watch_idle = true;
                    self.for_watch.wait(state).unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Calls the callback of a request with the decision, unless the callback was called before.
    fn resolve(&self, open: &Open, fd: impl Into<Option<Fd>>, decision: Result<Decision, HookError>) {
        let Some(answer) = open.take() else { return };
        {
            let mut state = self.lock();
            let stats = &mut state.stats;
            let counter = match &decision {
                Ok(Decision::Accept(_)) => &mut stats.accepted,
                Ok(_) => &mut stats.refused,
                Err(error) if error.is_timeout() => &mut stats.timed_out,
                Err(HookError::QueueFull { .. } | HookError::Displaced(_)) => &mut stats.overflowed,
                Err(_) => &mut stats.failed,
            };
            *counter += 1;
        }
        if let Err(error) = &decision
            && let Some(more) = self.failures.admit(clock::now())
        {
            let client = fd.into().map_or_else(String::new, |fd| format!(" for fd {fd}"));
            log::warn!("connect hook failed{client}: {error}{more}");
        }
        answer(decision.unwrap_or(Decision::Unavailable));
    }

    /// Locks the state. No thread panics while it holds this lock, so the state is always valid.
    fn lock(&self) -> MutexGuard<'_, HookState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that the client offered the subprotocol that the back end chose. A client closes a connection with a
/// subprotocol that the client did not offer (RFC 6455 section 4.1).
fn check_offered(decision: Decision, request: &Request<'_>) -> Result<Decision, HookError> {
    match &decision {
        Decision::Accept(Identity { subprotocol: Some(chosen), .. })
            if !request.subprotocols().any(|offered| offered == chosen) =>
        {
            Err(HookError::InvalidAnswer(format!("subprotocol {chosen:?} was not offered by the client")))
        }
        _ => Ok(decision),
    }
}

impl HookState {
    /// Adds a request to `watched`. If the list has reached `watched_max`, first removes the answered requests.
    fn watch(&mut self, open: Arc<Open>) {
        if self.watched.len() >= self.watched_max {
            self.watched.retain(|open| !open.is_answered());
            self.watched_max = WATCHED_MIN.max(2 * self.watched.len());
        }
        self.watched.push_back(open);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.shared.withdraw(&self.open);
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.requests.release(self.source);
        let is_ready = state.requests.is_ready();
        drop(state);
        // A worker that ends because of a panic serves no more requests, so another worker is woken.
        if is_ready {
            self.shared.for_worker.notify_one();
        }
    }
}

impl Open {
    fn take(&self) -> Option<DecisionCallback> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_answered(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl HookError {
    fn is_timeout(&self) -> bool {
        match self {
            HookError::Failure(failure) => failure.is_timeout(),
            HookError::TimedOut => true,
            HookError::Status(_)
            | HookError::InvalidAnswer(_)
            | HookError::QueueFull { .. }
            | HookError::Displaced(_)
            | HookError::Gone
            | HookError::Over => false,
        }
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HookError::Failure(failure) => failure.fmt(f),
            HookError::Status(status) => write!(f, "answered {status}"),
            HookError::InvalidAnswer(fault) => write!(f, "invalid answer with status 200: {fault:?}"),
            HookError::TimedOut => f.write_str("no answer in time"),
            HookError::QueueFull { full: Full::Source, source, bounds } => {
                write!(f, "queue limit of {} reached ({})", SourceName(*source), bounds.source_items_max)
            }
            HookError::QueueFull { full: Full::All, bounds, .. } => {
                write!(f, "queue limit reached ({})", bounds.items_max)
            }
            HookError::Displaced(source) => {
                write!(f, "removed from the full queue, in which {} has the most requests", SourceName(*source))
            }
            HookError::Gone => f.write_str("client disconnected"),
            HookError::Over => f.write_str("server shutting down"),
        }
    }
}

/// The name of a source in a log line.
struct SourceName(Source);

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ip) => ip.fmt(f),
            None => f.write_str("unix sockets"),
        }
    }
}
