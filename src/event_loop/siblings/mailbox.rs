//! The posts that wait for a loop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Waker;

use crate::event_loop::inbox::wake;
use crate::event_loop::siblings::post::Batch;

/// The posts of the other loops to one loop.
///
/// A sending loop puts in at most one [`Batch`] in a turn, under one lock, and wakes the receiving loop only if the
/// mailbox was empty. The receiving loop takes all batches under one lock, and returns the emptied batches for reuse.
/// The batches of one sending loop stay in order.
#[derive(Debug)]
pub struct Mailbox {
    queue: Mutex<PostQueue>,
    /// Whether there are batches, so that the receiving loop takes no lock to see that there is none.
    has_batches: AtomicBool,
    /// The counted memory of posts that the receiving loop has not carried out, by sending loop.
    used: Box<[AtomicUsize]>,
    waker: Arc<Waker>,
}

/// A batch and its sending loop.
#[derive(Debug)]
pub struct Received {
    pub from: usize,
    pub batch: Batch,
}

#[derive(Debug, Default)]
struct PostQueue {
    batches: VecDeque<Received>,
    /// Empty batches, whose memory is reused.
    spares: Vec<Batch>,
    is_closed: bool,
}

impl Mailbox {
    /// Creates the mailbox of the loop that `waker` wakes.
    pub fn new(loops: usize, waker: Arc<Waker>) -> Mailbox {
        let used = (0..loops).map(|_| AtomicUsize::new(0)).collect();
        Mailbox { queue: Mutex::default(), has_batches: AtomicBool::new(false), used, waker }
    }

    /// Returns the counted memory of the posts of one sending loop.
    pub fn used(&self, from: usize) -> usize {
        self.used[from].load(Ordering::Relaxed)
    }

    /// Puts in a batch, and leaves an empty batch in its place.
    ///
    /// The posts to a loop that has ended are dropped, because it has no connections.
    pub fn send(&self, from: usize, batch: &mut Batch) {
        let mut queue = self.lock();
        if queue.is_closed {
            // The lock is released before the posts are dropped.
            drop(queue);
            batch.clear();
            return;
        }
        self.used[from].fetch_add(batch.bytes(), Ordering::Relaxed);
        let spare = queue.spares.pop().unwrap_or_default();
        queue.batches.push_back(Received { from, batch: std::mem::replace(batch, spare) });
        let was_empty = queue.batches.len() == 1;
        self.has_batches.store(true, Ordering::Release);
        drop(queue);
        if was_empty {
            self.wake();
        }
    }

    /// Returns whether [`take`](Mailbox::take) would return batches.
    #[inline]
    pub fn has_batches(&self) -> bool {
        self.has_batches.load(Ordering::Acquire)
    }

    /// Moves all batches into `into`.
    pub fn take(&self, into: &mut VecDeque<Received>) {
        let mut queue = self.lock();
        into.append(&mut queue.batches);
        self.has_batches.store(false, Ordering::Release);
    }

    /// Returns a batch whose posts were carried out.
    pub fn finish(&self, received: Received) {
        let Received { from, mut batch } = received;
        self.used[from].fetch_sub(batch.bytes(), Ordering::Relaxed);
        if batch.clear() {
            let mut queue = self.lock();
            if queue.spares.len() < self.used.len() {
                queue.spares.push(batch);
            }
        }
    }

    /// Drops all posts, and all later posts.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        let dropped = std::mem::take(&mut queue.batches);
        // The lock is released before the posts are dropped.
        drop(queue);
        drop(dropped);
    }

    /// Wakes the loop.
    pub fn wake(&self) {
        wake(&self.waker);
    }

    /// Locks the queue. No code panics under the lock, so the queue is valid.
    fn lock(&self) -> MutexGuard<'_, PostQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
