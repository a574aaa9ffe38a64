//! Reports of the counts of forwarded pushes.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::message::Delivery;

/// Collects the counts of forwarded pushes from the receiving loops, and reports their sum.
///
/// The sending loop attaches a clone to each forwarded push. A receiving loop adds its counts and drops its clone. When
/// the last clone is dropped, the sum of all counts is reported. A loop that has ended drops its clones, too, and adds
/// nothing.
#[derive(Clone)]
pub struct Report(Arc<State>);

/// The function that is called with the sum of all counts.
type Done = Box<dyn FnOnce(Delivery) + Send>;

struct State {
    sum: Mutex<Delivery>,
    done: Mutex<Option<Done>>,
    /// Whether a receiving loop keeps its clone until it has written the messages.
    until_written: bool,
}

impl Report {
    /// Creates a report that calls `done` with the sum when the last clone is dropped.
    pub fn new(until_written: bool, done: impl FnOnce(Delivery) + Send + 'static) -> Report {
        let done: Done = Box::new(done);
        Report(Arc::new(State { sum: Mutex::default(), done: Mutex::new(Some(done)), until_written }))
    }

    /// Adds the counts of a push.
    pub fn add(&self, delivery: Delivery) {
        *lock(&self.0.sum) += delivery;
    }

    /// Returns whether a receiving loop keeps its clone until it has written the messages.
    pub fn is_kept_until_written(&self) -> bool {
        self.0.until_written
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let sum = *lock(&self.sum);
        let done = lock(&self.done).take();
        if let Some(done) = done {
            done(sum);
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Report")
    }
}

/// Locks a value. No code panics under the lock, so the value is valid.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
