//! Commands from other threads: a bounded queue that wakes the loop only when it was empty.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use mio::Waker;

/// The end that other threads hold.
#[derive(Debug)]
pub struct Sender<C>(Arc<Shared<C>>);

/// The end that the loop holds. Dropping it closes the inbox.
#[derive(Debug)]
pub struct Inbox<C>(Arc<Shared<C>>);

#[derive(Debug)]
struct Shared<C> {
    queue: Mutex<Queue<C>>,
    waker: Waker,
    /// The thread of the loop, once it runs.
    thread: OnceLock<ThreadId>,
}

#[derive(Debug)]
struct Queue<C> {
    commands: VecDeque<C>,
    commands_max: usize,
    is_closed: bool,
}

/// Why a command was not taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// As many commands as may wait are waiting.
    Full,
    /// The loop has ended.
    Closed,
}

impl<C> Inbox<C> {
    /// An inbox whose commands wake `waker`'s loop.
    pub fn new(waker: Waker, commands_max: usize) -> Inbox<C> {
        let queue = Queue { commands: VecDeque::new(), commands_max, is_closed: false };
        Inbox(Arc::new(Shared { queue: Mutex::new(queue), waker, thread: OnceLock::new() }))
    }

    /// Another sender.
    pub fn sender(&self) -> Sender<C> {
        Sender(Arc::clone(&self.0))
    }

    /// Records that the loop runs on this thread.
    pub fn claim_thread(&self) {
        // A loop runs once, so no other thread claimed it before.
        let _ = self.0.thread.set(thread::current().id());
    }

    /// Sets how many commands may wait.
    pub fn set_bound(&self, commands_max: usize) {
        self.0.lock().commands_max = commands_max;
    }

    /// Takes the first that wait, at most so many, and says whether there are more: of those, no wake-up will tell.
    pub fn take(&self, max: usize, into: &mut Vec<C>) -> bool {
        let mut queue = self.0.lock();
        let count = queue.commands.len().min(max);
        into.extend(queue.commands.drain(..count));
        !queue.commands.is_empty()
    }
}

impl<C> Drop for Inbox<C> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.is_closed = true;
        let dropped = std::mem::take(&mut queue.commands);
        // Not under the lock: a command may hold a sender, or wake somebody who sends.
        drop(queue);
        drop(dropped);
    }
}

impl<C> Sender<C> {
    /// Hands a command to the loop, or gives it back.
    pub fn send(&self, command: C) -> Result<(), (Rejected, C)> {
        let was_empty = {
            let mut queue = self.0.lock();
            if queue.is_closed {
                return Err((Rejected::Closed, command));
            }
            if queue.commands.len() >= queue.commands_max {
                return Err((Rejected::Full, command));
            }
            queue.commands.push_back(command);
            queue.commands.len() == 1
        };
        if was_empty {
            self.wake();
        }
        Ok(())
    }

    /// Returns whether this is the thread of the loop, which must not wait for itself.
    pub fn is_own_thread(&self) -> bool {
        self.0.thread.get().is_some_and(|own| *own == thread::current().id())
    }

    fn wake(&self) {
        let mut woken = self.0.waker.wake();
        while woken.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
            woken = self.0.waker.wake();
        }
        if let Err(error) = woken {
            log::error!("cannot wake the loop: {error}");
        }
    }
}

impl<C> Clone for Sender<C> {
    fn clone(&self) -> Sender<C> {
        Sender(Arc::clone(&self.0))
    }
}

impl<C> Shared<C> {
    /// Nothing can panic while the lock is held, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Queue<C>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
