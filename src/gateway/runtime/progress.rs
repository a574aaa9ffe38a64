//! A count of what is in progress on one loop.

use std::cell::Cell;
use std::rc::Rc;

/// A count of what is in progress. The clones have the same count.
#[derive(Clone, Default, Debug)]
pub struct Progress(Rc<Cell<usize>>);

/// One piece of work that is in progress, until the value is dropped.
#[derive(Debug)]
pub struct InProgress(Progress);

impl Progress {
    /// Returns the count.
    pub fn count(&self) -> usize {
        self.0.get()
    }

    /// Counts one more, until the returned value is dropped.
    pub fn begin(&self) -> InProgress {
        self.0.set(self.0.get() + 1);
        InProgress(self.clone())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let count = &self.0.0;
        count.set(count.get() - 1);
    }
}
