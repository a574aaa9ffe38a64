//! A counter of the operations in progress on one loop.

use std::cell::Cell;
use std::rc::Rc;

/// A counter of the operations in progress. All clones share the same counter.
#[derive(Clone, Default, Debug)]
pub struct Progress(Rc<Cell<usize>>);

/// An operation in progress. When this value is dropped, the counter decreases by one.
#[derive(Debug)]
pub struct InProgress(Progress);

impl Progress {
    /// Returns the number of operations in progress.
    pub fn count(&self) -> usize {
        self.0.get()
    }

    /// Increases the counter by one until the returned value is dropped.
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
