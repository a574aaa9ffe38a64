//! Commands from other threads: a bounded queue that wakes the loop.
//!
//! Only a command to an empty queue wakes the loop. The loop then takes commands until the queue is empty.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use mio::Waker;

/// The sending side of the inbox, for other threads.
#[derive(Debug)]
pub struct Sender<C>(Arc<Shared<C>>);

/// The receiving side of the inbox, for the loop. A drop of the receiving side closes the inbox.
#[derive(Debug)]
pub struct Inbox<C>(Arc<Shared<C>>);

#[derive(Debug)]
struct Shared<C> {
    queue: Mutex<CommandQueue<C>>,
    waker: Arc<Waker>,
    /// The thread of the loop, set when the loop runs.
    thread: OnceLock<ThreadId>,
}

#[derive(Debug)]
struct CommandQueue<C> {
    commands: VecDeque<C>,
    commands_max: usize,
    is_closed: bool,
    /// Whether the shutdown command was sent.
    has_shutdown: bool,
}

/// The reason why a command was not queued.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// The queue has reached its limit.
    Full,
    /// The loop has ended.
    Closed,
}

impl<C> Inbox<C> {
    /// Creates an inbox whose commands wake the loop of `waker`.
    pub fn new(waker: Arc<Waker>, commands_max: usize) -> Inbox<C> {
        let queue = CommandQueue { commands: VecDeque::new(), commands_max, is_closed: false, has_shutdown: false };
        Inbox(Arc::new(Shared { queue: Mutex::new(queue), waker, thread: OnceLock::new() }))
    }

    /// Returns a new sender.
    pub fn sender(&self) -> Sender<C> {
        Sender(Arc::clone(&self.0))
    }

    /// Returns the waker of the loop.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.0.waker)
    }

    /// Records that the loop runs on this thread.
    pub fn claim_thread(&self) {
        // A loop runs once, so the value is not set yet.
        let _ = self.0.thread.set(thread::current().id());
    }

    /// Sets the maximum number of waiting commands.
    pub fn set_bound(&self, commands_max: usize) {
        self.0.lock().commands_max = commands_max;
    }

    /// Moves at most `max` commands into `into`, and returns whether more wait.
    ///
    /// If more commands wait, the caller must call this method again, because no event wakes the loop for these
    /// commands.
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
        // The lock is released first, because the drop of a command may run code that sends a command.
        drop(queue);
        drop(dropped);
    }
}

impl<C> Sender<C> {
    /// Sends a command to the loop.
    pub fn send(&self, command: C) -> Result<(), Rejected> {
        self.push(
            command,
            |queue| {
                if queue.commands.len() < queue.commands_max { Ok(true) } else { Err(Rejected::Full) }
            },
        )
    }

    /// Sends the shutdown command, even if the inbox is full. A second shutdown command is dropped.
    pub fn send_last(&self, command: C) -> Result<(), Rejected> {
        self.push(command, |queue| Ok(!std::mem::replace(&mut queue.has_shutdown, true)))
    }

    fn push(
        &self,
        command: C,
        admit: impl FnOnce(&mut CommandQueue<C>) -> Result<bool, Rejected>,
    ) -> Result<(), Rejected> {
        let mut queue = self.0.lock();
        if queue.is_closed {
            // The lock is released before the command is dropped, because the drop may run code of the program.
            drop(queue);
            return Err(Rejected::Closed);
        }
        if !admit(&mut queue)? {
            return Ok(());
        }
        queue.commands.push_back(command);
        let was_empty = queue.commands.len() == 1;
        drop(queue);
        if was_empty {
            self.wake();
        }
        Ok(())
    }

    /// Sends one command to each loop that has not ended, except the loop `skipped`, or no command.
    ///
    /// `command` is called once for each loop that gets a command. The senders must be in the same order in all calls,
    /// because all inboxes are locked together.
    ///
    /// # Errors
    /// [`Full`](Rejected::Full): an inbox is full. [`Closed`](Rejected::Closed): all loops have ended.
    pub fn send_each(
        senders: &[Sender<C>],
        skipped: Option<usize>,
        mut command: impl FnMut(usize) -> C,
    ) -> Result<(), Rejected> {
        let asked = senders.iter().enumerate().filter(|(index, _)| Some(*index) != skipped);
        let queues = asked.map(|(index, sender)| (index, sender.0.lock()));
        let mut queues: Vec<(usize, MutexGuard<'_, CommandQueue<C>>)> =
            queues.filter(|(_, queue)| !queue.is_closed).collect();
        if queues.is_empty() {
            return Err(Rejected::Closed);
        }
        if queues.iter().any(|(_, queue)| queue.commands.len() >= queue.commands_max) {
            return Err(Rejected::Full);
        }
        let mut to_wake = Vec::new();
        for (index, queue) in &mut queues {
            queue.commands.push_back(command(*index));
            if queue.commands.len() == 1 {
                to_wake.push(*index);
            }
        }
        drop(queues);
        to_wake.into_iter().filter_map(|index| senders.get(index)).for_each(Sender::wake);
        Ok(())
    }

    /// Returns whether this is the thread of the loop, where waiting for the loop would deadlock.
    pub fn is_own_thread(&self) -> bool {
        self.0.thread.get().is_some_and(|own| *own == thread::current().id())
    }

    fn wake(&self) {
        wake(&self.0.waker);
    }
}

/// Wakes a loop.
pub fn wake(waker: &Waker) {
    let mut woken = waker.wake();
    while woken.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
        woken = waker.wake();
    }
    if let Err(error) = woken {
        log::error!("cannot wake the loop: {error}");
    }
}

impl<C> Clone for Sender<C> {
    fn clone(&self) -> Sender<C> {
        Sender(Arc::clone(&self.0))
    }
}

impl<C> Shared<C> {
    /// Locks the queue. No code panics while it holds the lock, so the queue is valid even if the lock is poisoned.
    fn lock(&self) -> MutexGuard<'_, CommandQueue<C>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
