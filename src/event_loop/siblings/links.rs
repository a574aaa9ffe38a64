//! The memory of the posts that each loop has carried out for each other loop.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The counted memory of the posts that were carried out, for each pair of a sending and a receiving loop.
///
/// The sending loop knows what it has sent, so the difference is the memory of the posts on their way.
#[derive(Debug)]
pub struct Links {
    loops: usize,
    /// The sums since the start, by sending loop, then by receiving loop.
    carried: Box<[AtomicUsize]>,
}

impl Links {
    /// Creates the links between this number of loops.
    pub fn new(loops: usize) -> Links {
        Links { loops, carried: (0..loops * loops).map(|_| AtomicUsize::new(0)).collect() }
    }

    /// Returns the counted memory of the posts that were carried out.
    ///
    /// The changes of these posts in the directory are visible to the caller.
    pub fn carried(&self, from: usize, to: usize) -> usize {
        self.carried[from * self.loops + to].load(Ordering::Acquire)
    }

    /// Records that posts were carried out.
    pub fn record_carried(&self, from: usize, to: usize, bytes: usize) {
        self.carried[from * self.loops + to].fetch_add(bytes, Ordering::Release);
    }
}
