//! The connect hook: a back end is asked, over HTTP, who a client is.
//!
//! The loop's thread only puts the question into a bounded queue. A few threads take them in order and block on the back
//! end, each with the time that is left of the one bound, which counts from the asking. One thread more watches over that
//! bound and has no other work, so whatever the others hang in, each question is answered in time, and once.

pub mod verdict;

mod question;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fdpush::{Fd, Request};

pub use self::verdict::Verdict;
use super::Identity;
use crate::gateway::backend::signature::Secret;
use crate::gateway::backend::{Backend, Contact, Failure};
use crate::gateway::clock;
use crate::gateway::threads;
use crate::gateway::throttle::Throttle;

/// How often trouble is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(5);

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
    /// No answer, or none that can be understood, or no room for the question.
    pub failed: u64,
    pub timed_out: u64,
}

#[derive(Debug)]
struct Shared {
    backend: Backend,
    timeout: Duration,
    queue_max: usize,
    state: Mutex<State>,
    /// Workers wait here for questions.
    for_worker: Condvar,
    /// The watch waits here for deadlines.
    for_watch: Condvar,
    troubles: Throttle,
}

#[derive(Debug, Default)]
struct State {
    questions: VecDeque<Question>,
    /// All that was asked and may still be open, in the order of their deadlines, which is that of the asking.
    watched: VecDeque<Arc<Open>>,
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
    deadline: Instant,
    /// Taken by whoever answers.
    answer: Mutex<Option<Answer>>,
}

type Answer = Box<dyn FnOnce(Verdict) + Send>;

/// Why there is no verdict of the back end's.
enum Trouble {
    Failure(Failure),
    Status(u16),
    /// The answer makes no sense.
    Nonsense(String),
    TimedOut,
    QueueFull,
    Over,
}

impl Config {
    /// The defaults for a back end.
    pub fn new(contact: Contact) -> Config {
        Config { contact, timeout: Duration::from_secs(2), threads: 16, queue_max: 1024 }
    }
}

impl Hook {
    /// Starts the threads. Fails where the node cannot be named in a header, or there are no threads to be had.
    pub fn start(config: Config) -> io::Result<Hook> {
        let threads = config.threads.max(1);
        let shared = Arc::new(Shared {
            backend: Backend::new(config.contact, threads)?,
            timeout: config.timeout,
            queue_max: config.queue_max,
            state: Mutex::default(),
            for_worker: Condvar::new(),
            for_watch: Condvar::new(),
            troubles: Throttle::new(LOG_EVERY),
        });
        // From here on, a failure ends the threads that were started.
        let hook = Hook { shared };
        hook.spawn("fdpush-auth-watch", Shared::watch)?;
        for _ in 0..threads {
            hook.spawn("fdpush-auth", Shared::work)?;
        }
        Ok(hook)
    }

    /// Asks who sent this request, from this address, and returns at once. `answer` is called with the verdict, once and within the timeout,
    /// on another thread; or on this one, before `ask` returns, where too many questions wait already. It must not block.
    pub fn ask(
        &self,
        fd: Fd,
        address: Option<IpAddr>,
        request: Request,
        answer: impl FnOnce(Verdict) + Send + 'static,
    ) {
        let deadline = clock::now() + self.shared.timeout;
        let open = Arc::new(Open { deadline, answer: Mutex::new(Some(Box::new(answer))) });
        let mut state = self.shared.lock();
        if state.questions.len() >= self.shared.queue_max {
            drop(state);
            self.shared.resolve(&open, fd, Err(Trouble::QueueFull));
            return;
        }
        // So that the line is not longer than the open questions are many.
        while state.watched.pop_front_if(|first| first.is_answered()).is_some() {}
        state.watched.push_back(Arc::clone(&open));
        state.questions.push_back(Question { fd, address, request, open });
        let is_watch_idle = std::mem::take(&mut state.is_watch_idle);
        drop(state);
        self.shared.for_worker.notify_one();
        if is_watch_idle {
            self.shared.for_watch.notify_one();
        }
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
        while let Some(Question { fd, address, request, open }) = self.next_question() {
            let body = question::to_json(self.backend.node(), fd, address, &request);
            let verdict = self.ask_back_end(&body, open.deadline).and_then(|verdict| check_offered(verdict, &request));
            self.resolve(&open, fd, verdict);
        }
    }

    /// Waits for a question. `None` when it is over.
    fn next_question(&self) -> Option<Question> {
        let is_idle = |state: &mut State| state.questions.is_empty() && !state.is_over;
        let mut state = self.for_worker.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        if state.is_over { None } else { state.questions.pop_front() }
    }

    /// Asks; and asks once more where the connection ended without an answer, which is how one ends that was kept for
    /// too long.
    fn ask_back_end(&self, body: &[u8], deadline: Instant) -> Result<Verdict, Trouble> {
        let post = || {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                Err(Trouble::TimedOut)
            } else {
                self.backend.post(body, left).map_err(Trouble::Failure)
            }
        };
        let answer = match post() {
            Err(Trouble::Failure(failure)) if failure.is_disconnect() => post()?,
            answer => answer?,
        };
        match (answer.status, answer.body) {
            (200, Ok(body)) => verdict::accept(&body, clock::unix_ms() / 1000).map_err(Trouble::Nonsense),
            (200, Err(failure)) => Err(Trouble::Failure(failure)),
            // What it says of its refusal is welcome, and no more.
            (status @ 400..=499, body) => Ok(verdict::refuse(status, &body.unwrap_or_default())),
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
                // Its place in the queue is free, if it has one still: the queue is in the same order.
                let late = state.questions.pop_front_if(|question| Arc::ptr_eq(&question.open, &first));
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
            Trouble::Status(_) | Trouble::Nonsense(_) | Trouble::QueueFull | Trouble::Over => false,
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
            Trouble::QueueFull => f.write_str("too many questions wait already"),
            Trouble::Over => f.write_str("the server ends"),
        }
    }
}
