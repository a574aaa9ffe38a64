//! The connect hook: a back end is asked, over HTTP, who a client is.
//!
//! The loop's thread only puts the question into a bounded queue, which serves client addresses in turn. A few threads take
//! questions out and block on the back end, each with the time that is left of the one bound, which counts from the asking.
//! One thread more watches over that bound and has no other work, so whatever the others hang in, each question is
//! answered in time, and once. A question whose client has gone is taken out before it is asked.

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

pub use self::decision::Verdict;
use self::fair_queue::{Bounds, FairQueue, Full, Source};
use super::Identity;
use crate::gateway::hooks::backend::signature::Secret;
use crate::gateway::hooks::backend::{Backend, Contact, Failure};
use crate::gateway::runtime::clock;
use crate::gateway::runtime::log_throttle::LogThrottle;
use crate::gateway::runtime::threads;

/// How often trouble is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The length of the list of open questions from which on those that were answered are taken out of it.
const WATCHED_MIN: usize = 64;

/// Whom to ask, and how patiently.
#[derive(Clone, Debug)]
pub struct Config {
    pub contact: Contact,
    /// From the asking to the verdict, the time in the queue included.
    pub timeout: Duration,
    /// Questions that the back end has to answer at a time.
    pub threads: usize,
    /// Questions that may wait for a thread.
    pub queue_max: usize,
    /// Questions of one source that may wait for a thread.
    pub source_queue_max: usize,
}

/// The way to the back end. Dropping it answers all that is open with [`Verdict::Unavailable`].
#[derive(Debug)]
pub struct Hook {
    shared: Arc<Shared>,
}

/// What became of the questions so far.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Questions that wait for a thread.
    pub waiting: usize,
    pub accepted: u64,
    pub refused: u64,
    /// No answer, or none that can be understood.
    pub failed: u64,
    pub timed_out: u64,
    /// No room for the question.
    pub overflowed: u64,
    /// The client had gone before the verdict.
    pub gone: u64,
}

/// A question that was asked. Keep it as long as its client is there: dropping it takes the question back, and whoever asked
/// gets no answer any more.
#[derive(Debug)]
#[must_use = "dropping it takes the question back"]
pub struct Pending {
    shared: Arc<Shared>,
    open: Arc<Open>,
}

#[derive(Debug)]
struct Shared {
    backend: Backend,
    timeout: Duration,
    bounds: Bounds,
    state: Mutex<State>,
    /// Workers wait here for questions.
    for_worker: Condvar,
    /// The watch waits here for deadlines.
    for_watch: Condvar,
    troubles: LogThrottle,
}

#[derive(Debug)]
struct State {
    questions: FairQueue<Question>,
    /// All that was asked and may still be open, in the order of their deadlines, which is that of the asking.
    watched: VecDeque<Arc<Open>>,
    /// The length of `watched` at which those that were answered are taken out.
    watched_max: usize,
    /// The watch waits without a deadline.
    is_watch_idle: bool,
    is_over: bool,
    stats: Stats,
}

#[derive(Debug)]
struct Question {
    fd: Fd,
    address: Option<IpAddr>,
    request: Request,
    open: Arc<Open>,
}

/// A question that wants one answer.
struct Open {
    source: Source,
    deadline: Instant,
    /// Taken by whoever answers.
    answer: Mutex<Option<Answer>>,
}

type Answer = Box<dyn FnOnce(Verdict) + Send>;

/// A question in the hands of a worker. Its source is released when it is dropped.
struct Served<'a> {
    shared: &'a Shared,
    source: Source,
    question: Question,
}

/// Why there is no verdict of the back end's.
enum Trouble {
    Failure(Failure),
    Status(u16),
    /// The answer makes no sense.
    Nonsense(String),
    TimedOut,
    /// No room: for the source, or for all.
    QueueFull {
        full: Full,
        source: Source,
        bounds: Bounds,
    },
    /// It made room for a source with fewer questions.
    Displaced(Source),
    /// Its client had gone when it was to be asked once more.
    Gone,
    Over,
}

impl Config {
    /// The defaults for a back end.
    pub fn new(contact: Contact) -> Config {
        Config { contact, timeout: Duration::from_secs(2), threads: 16, queue_max: 1024, source_queue_max: 256 }
    }
}

impl Hook {
    /// Starts the threads. Fails where the node cannot be named in a header, or there are no threads to be had.
    pub fn start(config: Config) -> io::Result<Hook> {
        let threads = config.threads.max(1);
        let bounds = Bounds {
            items_max: config.queue_max,
            source_items_max: config.source_queue_max,
            // The rest is for all others, however slow the answers to one source are.
            source_served_max: threads - threads / 4,
        };
        let state = State {
            questions: FairQueue::new(bounds),
            watched: VecDeque::new(),
            watched_max: WATCHED_MIN,
            is_watch_idle: false,
            is_over: false,
            stats: Stats::default(),
        };
        let shared = Arc::new(Shared {
            backend: Backend::new(config.contact, threads)?,
            timeout: config.timeout,
            bounds,
            state: Mutex::new(state),
            for_worker: Condvar::new(),
            for_watch: Condvar::new(),
            troubles: LogThrottle::new(LOG_EVERY),
        });
        // From here on, a failure ends the threads that were started.
        let hook = Hook { shared };
        hook.spawn("fdpush-auth-watch", Shared::watch)?;
        for _ in 0..threads {
            hook.spawn("fdpush-auth", Shared::work)?;
        }
        Ok(hook)
    }

    /// Asks who sent this request, from this address, and returns at once. `source` is what the address counts as: sources are
    /// served in turn.
    ///
    /// `answer` is called with the verdict, once and within the timeout, on another thread; or on this one, before `ask`
    /// returns, where too many questions wait already. It must not block. It is not called once the returned [`Pending`] has
    /// been dropped.
    pub fn ask(
        &self,
        fd: Fd,
        address: Option<IpAddr>,
        source: Option<IpAddr>,
        request: Request,
        answer: impl FnOnce(Verdict) + Send + 'static,
    ) -> Pending {
        let deadline = clock::now() + self.shared.timeout;
        let open = Arc::new(Open { source, deadline, answer: Mutex::new(Some(Box::new(answer))) });
        let question = Question { fd, address, request, open: Arc::clone(&open) };
        let pending = Pending { shared: Arc::clone(&self.shared), open: Arc::clone(&open) };
        let mut state = self.shared.lock();
        let displaced = match state.questions.push(source, question) {
            Ok(displaced) => displaced,
            Err(full) => {
                drop(state);
                let bounds = self.shared.bounds;
                self.shared.resolve(&open, fd, Err(Trouble::QueueFull { full, source, bounds }));
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
            self.shared.resolve(&displaced.open, displaced.fd, Err(Trouble::Displaced(displaced.open.source)));
        }
        pending
    }

    /// What became of the questions so far.
    pub fn stats(&self) -> Stats {
        let state = self.shared.lock();
        Stats { waiting: state.questions.len(), ..state.stats }
    }

    /// Signs with this secret from now on.
    pub fn set_secret(&self, secret: Option<Secret>) {
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
    /// What a worker does until the end.
    fn work(&self) {
        while let Some(served) = self.next_question() {
            let Question { fd, address, request, open } = &served.question;
            // Its client may have gone, or its time may have passed, since it left the queue.
            if open.is_answered() {
                continue;
            }
            let body = request::to_json(self.backend.node(), *fd, *address, request);
            let verdict = self.ask_back_end(&body, open).and_then(|verdict| check_offered(verdict, request));
            self.resolve(open, *fd, verdict);
        }
    }

    /// Waits for a question. `None` when it is over.
    fn next_question(&self) -> Option<Served<'_>> {
        let is_idle = |state: &mut State| !state.questions.is_ready() && !state.is_over;
        let mut state = self.for_worker.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            return None;
        }
        let (source, question) = state.questions.pop()?;
        Some(Served { shared: self, source, question })
    }

    /// The client of a question has gone.
    fn withdraw(&self, open: &Arc<Open>) {
        let Some(answer) = open.take() else { return };
        let mut state = self.lock();
        let question = state.questions.remove(open.source, |question| Arc::ptr_eq(&question.open, open));
        state.stats.gone += 1;
        drop(state);
        drop((question, answer));
    }

    /// Asks; and asks once more where the connection ended without an answer, which is how one ends that was kept for
    /// too long.
    fn ask_back_end(&self, body: &[u8], open: &Open) -> Result<Verdict, Trouble> {
        let post = || {
            let left = open.deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                Err(Trouble::TimedOut)
            } else {
                self.backend.post(body, left).map_err(Trouble::Failure)
            }
        };
        let answer = match post() {
            Err(Trouble::Failure(failure)) if failure.is_disconnect() => {
                if open.is_answered() {
                    return Err(Trouble::Gone);
                }
                post()?
            }
            answer => answer?,
        };
        match (answer.status, answer.body) {
            (200, Ok(body)) => decision::accept(&body, clock::unix_ms() / 1000).map_err(Trouble::Nonsense),
            (200, Err(failure)) => Err(Trouble::Failure(failure)),
            // What it says of its refusal is welcome, and no more.
            (status @ 400..=499, body) => Ok(decision::refuse(status, &body.unwrap_or_default())),
            (status, _) => Err(Trouble::Status(status)),
        }
    }

    /// Watches over the deadlines until the end, and then answers all that is still open.
    fn watch(&self) {
        let mut state = self.lock();
        loop {
            let now = clock::now();
            let is_over = state.is_over;
            let first = state.watched.pop_front_if(|first| is_over || first.deadline <= now || first.is_answered());
            if let Some(first) = first {
                // Its place in the queue is free, if it has one still.
                let late = state.questions.remove(first.source, |question| Arc::ptr_eq(&question.open, &first));
                drop(state);
                drop(late);
                let trouble = if is_over { Trouble::Over } else { Trouble::TimedOut };
                self.resolve(&first, None, Err(trouble));
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

    /// Answers a question, unless it is answered.
    fn resolve(&self, open: &Open, fd: impl Into<Option<Fd>>, verdict: Result<Verdict, Trouble>) {
        let Some(answer) = open.take() else { return };
        {
            let mut state = self.lock();
            let stats = &mut state.stats;
            let counter = match &verdict {
                Ok(Verdict::Accept(_)) => &mut stats.accepted,
                Ok(_) => &mut stats.refused,
                Err(trouble) if trouble.is_timeout() => &mut stats.timed_out,
                Err(Trouble::QueueFull { .. } | Trouble::Displaced(_)) => &mut stats.overflowed,
                Err(_) => &mut stats.failed,
            };
            *counter += 1;
        }
        if let Err(trouble) = &verdict
            && let Some(more) = self.troubles.admit(clock::now())
        {
            let whom = fd.into().map_or_else(String::new, |fd| format!(" for fd {fd}"));
            log::warn!("no verdict of the connect hook{whom}: {trouble}{more}");
        }
        answer(verdict.unwrap_or(Verdict::Unavailable));
    }

    /// Nothing can panic while the lock is held, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client fails a connection that gets a subprotocol which it did not offer (RFC 6455 section 4.1).
fn check_offered(verdict: Verdict, request: &Request) -> Result<Verdict, Trouble> {
    match &verdict {
        Verdict::Accept(Identity { subprotocol: Some(chosen), .. })
            if !request.subprotocols().any(|offered| offered == chosen) =>
        {
            Err(Trouble::Nonsense(format!("subprotocol {chosen:?} was not offered by the client")))
        }
        _ => Ok(verdict),
    }
}

impl State {
    /// Watches over one question more. The list stays within twice the number of open questions.
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
        state.questions.release(self.source);
        let is_ready = state.questions.is_ready();
        drop(state);
        // The worker itself may be ending in a panic.
        if is_ready {
            self.shared.for_worker.notify_one();
        }
    }
}

impl Open {
    fn take(&self) -> Option<Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_answered(&self) -> bool {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl Trouble {
    fn is_timeout(&self) -> bool {
        match self {
            Trouble::Failure(failure) => failure.is_timeout(),
            Trouble::TimedOut => true,
            Trouble::Status(_)
            | Trouble::Nonsense(_)
            | Trouble::QueueFull { .. }
            | Trouble::Displaced(_)
            | Trouble::Gone
            | Trouble::Over => false,
        }
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Failure(failure) => failure.fmt(f),
            Trouble::Status(status) => write!(f, "answered {status}"),
            Trouble::Nonsense(what) => write!(f, "answered 200 with what is no verdict: {what:?}"),
            Trouble::TimedOut => f.write_str("no answer in time"),
            Trouble::QueueFull { full: Full::Source, source, bounds } => {
                write!(f, "{} questions of {} wait already", bounds.source_items_max, Shown(*source))
            }
            Trouble::QueueFull { full: Full::All, bounds, .. } => {
                write!(f, "{} questions wait already", bounds.items_max)
            }
            Trouble::Displaced(source) => {
                write!(f, "the queue is full, and no address has more questions in it than {}", Shown(*source))
            }
            Trouble::Gone => f.write_str("its client has gone"),
            Trouble::Over => f.write_str("the server ends"),
        }
    }
}

/// A source, as the log has it.
struct Shown(Source);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ip) => ip.fmt(f),
            None => f.write_str("unix sockets"),
        }
    }
}
