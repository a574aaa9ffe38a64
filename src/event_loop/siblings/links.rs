//! The memory of the posts that each loop has carried out for each other loop.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// The counted memory of the posts that receiving loops have carried out.
///
/// The counted memory of a post is the memory that counts towards
/// [`forward_bytes_max`](crate::Limits::forward_bytes_max).
///
/// The sending loop knows the counted memory of the posts that it has sent. The difference of both numbers is the
/// memory of the posts that are sent and not carried out yet.
#[derive(Debug)]
pub struct Links {
    loops: usize,
    /// The sums since the start in bytes, by sending loop, then by receiving loop.
    carried: Box<[AtomicUsize]>,
}

impl Links {
    /// Creates the links between `loops` loops.
    pub fn new(loops: usize) -> Links {
        Links { loops, carried: (0..loops * loops).map(|_| AtomicUsize::new(0)).collect() }
    }

    /// Returns the counted memory of the posts of `from` that `to` has carried out.
    ///
    /// The caller sees all changes that these posts have made in the directory.
    pub fn carried(&self, from: usize, to: usize) -> usize {
        self.carried[from * self.loops + to].load(Ordering::Acquire)
    }

    /// Records that the loop `to` has carried out posts of the loop `from`.
    pub fn record_carried(&self, from: usize, to: usize, bytes: usize) {
        self.carried[from * self.loops + to].fetch_add(bytes, Ordering::Release);
    }
}
