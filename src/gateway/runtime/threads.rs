//! Supervises the threads of the server. All threads except those of event loops are supervised.
//!
//! If the work of a thread panics or returns an error, the failure is counted and logged, and the work starts again on
//! the same thread. After the first failure, and after a failure of a run of at least a minute, the work restarts at
//! once. After each further failure, the work restarts after a pause. Each further failure doubles the pause. During
//! the pause, the thread is `down`: `/readyz` answers 503, and `fdpush_threads_down` counts the thread.
//!
//! The work is an `FnMut` closure. The state of the work must survive a panic. So the closure captures the state, and
//! has no state in local variables.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::clock;

/// If a run lasts at least this time, a failure of the run causes no pause.
const STABLE_TIME: Duration = Duration::from_secs(60);

/// The pause of a thread after its second failure. Each further failure doubles the pause, up to `PAUSE_MAX`.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The numbers of threads with one name, by state, and the number of their failures.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// The number of threads that have started and not ended. `alive` includes the threads in `down`.
    pub alive: usize,
    /// The number of threads that failed and have not restarted.
    pub down: usize,
    /// The number of panics and errors of all threads with this name since the start of the process.
    pub failures: u64,
}

static THREADS: Mutex<BTreeMap<&'static str, Tally>> = Mutex::new(BTreeMap::new());

/// Runs `work` on a new thread until `work` returns `Ok`, and restarts `work` after a panic or an error.
///
/// To end a thread during its pause, make the next call of `work` return `Ok`, and unpark the thread.
///
/// # Errors
///
/// Returns an error if the system cannot start a thread.
pub fn spawn(name: &'static str, work: impl FnMut() -> io::Result<()> + Send + 'static) -> io::Result<JoinHandle<()>> {
    let registration = Registration::new(name);
    thread::Builder::new().name(name.to_owned()).spawn(move || supervise(registration, work))
}

/// Returns the states of all supervised threads, by the name of the thread.
pub fn tallies() -> BTreeMap<&'static str, Tally> {
    lock().clone()
}

/// Returns the first name, in alphabetical order, of a thread that is down.
pub fn first_down() -> Option<&'static str> {
    lock().iter().find(|(_, tally)| tally.down > 0).map(|(name, _)| *name)
}

/// A thread that is counted in the tallies. Dropping this value subtracts the thread from `alive`, unless the thread is
/// down.
struct Registration {
    name: &'static str,
    is_down: bool,
}

impl Registration {
    fn new(name: &'static str) -> Registration {
        lock().entry(name).or_default().alive += 1;
        Registration { name, is_down: false }
    }

    fn update(&self, change: impl FnOnce(&mut Tally)) {
        change(lock().entry(self.name).or_default());
    }

    /// Waits for `time`. The thread counts as down during the wait.
    fn pause(&mut self, time: Duration) {
        self.update(|tally| tally.down += 1);
        self.is_down = true;
        thread::park_timeout(time);
        self.update(|tally| tally.down -= 1);
        self.is_down = false;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.is_down {
            self.update(|tally| tally.alive -= 1);
        }
    }
}

fn supervise(mut registration: Registration, mut work: impl FnMut() -> io::Result<()>) {
    let mut pause = Duration::ZERO;
    loop {
        let start = clock::now();
        let why = match catch_unwind(AssertUnwindSafe(&mut work)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            // The panic hook has already logged the panic message, so the log line does not repeat this message.
            Err(_) => "panicked".to_owned(),
        };
        registration.update(|tally| tally.failures += 1);
        if clock::now().saturating_duration_since(start) >= STABLE_TIME {
            pause = Duration::ZERO;
        }
        log::error!("thread {} failed: {why}; restarting in {pause:?}", registration.name);
        if !pause.is_zero() {
            registration.pause(pause);
        }
        pause = (pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
    }
}

/// Locks the tallies. No function panics while the function holds this lock, so the tallies are always valid.
fn lock() -> MutexGuard<'static, BTreeMap<&'static str, Tally>> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    type Order = fn() -> io::Result<()>;

    fn tally(name: &str) -> Tally {
        tallies().get(name).copied().unwrap_or_default()
    }

    /// Starts a thread whose work reports each run to the returned receiver, and then runs the next function that the
    /// test sends through the returned sender.
    fn start(name: &'static str) -> (JoinHandle<()>, Receiver<()>, Sender<Order>) {
        let (started, starts) = channel();
        let (orders, received) = channel::<Order>();
        let thread = spawn(name, move || {
            started.send(()).expect("the receiver is open");
            received.recv().map_or(Ok(()), |order| order())
        });
        (thread.expect("the thread can start"), starts, orders)
    }

    #[test]
    fn work_that_panics_or_returns_an_error_is_restarted_and_the_failure_is_counted() {
        let (thread, starts, orders) = start("test-restart");
        let orders_in_turn: [Order; 3] =
            [|| panic!("panic of the test"), || Err(io::ErrorKind::NotConnected.into()), || Ok(())];
        for order in orders_in_turn {
            starts.recv_timeout(TEST_TIMEOUT).expect("the run starts");
            orders.send(order).expect("the thread waits for orders");
        }
        thread.join().expect("the thread ends without a panic");
        assert_eq!(tally("test-restart"), Tally { alive: 0, down: 0, failures: 2 });
    }

    #[test]
    fn a_thread_that_fails_repeatedly_is_down_until_its_restart() {
        let (thread, starts, orders) = start("test-down");
        let deadline = clock::now() + TEST_TIMEOUT;
        // The first failure causes no pause. After the second failure, `down` is 1 during the pause only.
        while tally("test-down").down == 0 || tally("test-down").failures < 2 {
            assert!(clock::now() < deadline, "{:?}", tally("test-down"));
            if starts.try_recv().is_ok() {
                orders.send(|| panic!("panic of the test")).expect("the thread waits for orders");
            }
            thread::yield_now();
        }
        assert!(first_down().is_some());
        assert_eq!(tally("test-down").alive, 1);
        // The next run ends, because the channel of orders is closed.
        drop(orders);
        thread.thread().unpark();
        thread.join().expect("the thread ends without a panic");
        let Tally { alive, down, failures } = tally("test-down");
        assert_eq!((alive, down), (0, 0));
        assert!(failures >= 2, "the first failure must not cause a pause");
    }
}
