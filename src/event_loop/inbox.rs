//! The inbox of a loop: a bounded queue of commands of other threads and of posts of other loops.
//!
//! A post is a push, a change or an accepted socket that one loop sends to another loop.
//!
//! All commands and posts for a loop go through this queue, so the commands and posts of one thread arrive in order.
//! Only an item that is added to an empty queue wakes the loop. The loop then takes items until the queue is empty.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use crate::event_loop::siblings::post::Batch;
use crate::event_loop::waker::{Waker, wake};
use crate::sync::{Mutex, MutexGuard};

/// The number of empty batches whose memory an inbox keeps.
const SPARES_MAX: usize = 2;

/// An item of an inbox.
#[derive(Debug)]
pub enum Item<C> {
    /// A command of another thread.
    Command(C),
    /// Posts of the loop with this number.
    Posts(usize, Box<Batch>),
}

/// The sending side of the inbox, for other threads.
#[derive(Debug)]
pub struct Sender<C>(Arc<Shared<C>>);

/// The receiving side of the inbox, for the loop. A drop of the receiving side closes the inbox.
#[derive(Debug)]
pub struct Inbox<C>(Arc<Shared<C>>);

#[derive(Debug)]
struct Shared<C> {
    queue: Mutex<Queue<C>>,
    waker: Arc<Waker>,
    /// The thread of the loop, set when the loop starts to run.
    thread: OnceLock<ThreadId>,
}

#[derive(Debug)]
struct Queue<C> {
    items: VecDeque<Item<C>>,
    /// The number of items that are commands. The memory of posts has a separate bound.
    commands: usize,
    commands_max: usize,
    /// Empty batches, whose memory is reused.
    #[expect(
        clippy::vec_box,
        reason = "an item of the queue holds a batch in a box, so that a command needs little memory in the queue"
    )]
    spares: Vec<Box<Batch>>,
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
        let queue = Queue {
            items: VecDeque::new(),
            commands: 0,
            commands_max,
            spares: Vec::new(),
            is_closed: false,
            has_shutdown: false,
        };
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

    /// Moves at most `max` items into `into`, and returns whether more items wait.
    ///
    /// If more items wait, the caller must call this method again, because no event wakes the loop for these items.
    pub fn take(&self, max: usize, into: &mut VecDeque<Item<C>>) -> bool {
        let mut queue = self.0.lock();
        for _ in 0..max {
            let Some(item) = queue.items.pop_front() else { return false };
            queue.commands -= usize::from(matches!(item, Item::Command(_)));
            into.push_back(item);
        }
        !queue.items.is_empty()
    }

    /// Takes back a batch whose posts were carried out, to reuse its memory.
    pub fn recycle(&self, mut batch: Box<Batch>) {
        if batch.clear() {
            let mut queue = self.0.lock();
            if queue.spares.len() < SPARES_MAX {
                queue.spares.push(batch);
            }
        }
    }
}

impl<C> Drop for Inbox<C> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.is_closed = true;
        let dropped = std::mem::take(&mut queue.items);
        // The lock is released before the commands are dropped, because the drop of a command may run code that sends a
        // command.
        drop(queue);
        drop(dropped);
    }
}

impl<C> Sender<C> {
    /// Sends a command to the loop.
    pub fn send(&self, command: C) -> Result<(), Rejected> {
        self.push(command, |queue| if queue.commands < queue.commands_max { Ok(true) } else { Err(Rejected::Full) })
    }

    /// Sends a command, even if the inbox is full.
    ///
    /// The number of these commands is limited by the callers: another inbox has accepted the command before, or a
    /// pending reply needs the command.
    pub fn send_over(&self, command: C) -> Result<(), Rejected> {
        self.push(command, |_| Ok(true))
    }

    /// Returns whether the inbox rejects commands now.
    pub fn is_full(&self) -> bool {
        let queue = self.0.lock();
        queue.commands >= queue.commands_max
    }

    /// Sends the shutdown command, even if the inbox is full. A second shutdown command is dropped.
    pub fn send_last(&self, command: C) -> Result<(), Rejected> {
        self.push(command, |queue| Ok(!std::mem::replace(&mut queue.has_shutdown, true)))
    }

    fn push(&self, command: C, admit: impl FnOnce(&mut Queue<C>) -> Result<bool, Rejected>) -> Result<(), Rejected> {
        let mut queue = self.0.lock();
        if queue.is_closed {
            // The lock is released before the command is dropped, because the drop may run code of the program.
            drop(queue);
            return Err(Rejected::Closed);
        }
        if !admit(&mut queue)? {
            return Ok(());
        }
        let was_empty = queue.push(command);
        drop(queue);
        if was_empty {
            self.wake();
        }
        Ok(())
    }

    /// Sends the posts of the loop `from`, and leaves an empty batch in their place. Returns the counted memory of the
    /// posts, in bytes.
    ///
    /// Posts to a loop that has ended are dropped, because such a loop has no connections.
    pub fn send_posts(&self, from: usize, batch: &mut Box<Batch>) -> usize {
        let mut queue = self.0.lock();
        if queue.is_closed {
            // The lock is released before the posts are dropped.
            drop(queue);
            batch.clear();
            return 0;
        }
        let mut bytes = batch.bytes();
        let was_empty = queue.items.is_empty();
        let is_appended = match queue.items.back_mut() {
            // Posts are appended to the last batch of the same loop, so the inbox of a slow loop has few batches.
            Some(Item::Posts(last, waiting)) if *last == from => waiting.append(batch),
            _ => false,
        };
        if !is_appended {
            batch.count_batch();
            bytes = batch.bytes();
            let spare = queue.spares.pop().unwrap_or_default();
            queue.items.push_back(Item::Posts(from, std::mem::replace(batch, spare)));
        }
        drop(queue);
        if was_empty {
            self.wake();
        }
        bytes
    }

    /// Sends one command to each running loop, or to no loop.
    ///
    /// `command` is called once for each loop that gets a command. The senders must be in the same order in all calls,
    /// because all inboxes are locked together. If `own` is the number of a loop, this loop gets no command, and the
    /// other loops get the command even if their inboxes are full.
    ///
    /// # Errors
    /// Returns [`Full`](Rejected::Full) if an inbox is full, and [`Closed`](Rejected::Closed) if all loops have ended.
    pub fn send_each(
        senders: &[Sender<C>],
        own: Option<usize>,
        mut command: impl FnMut(usize) -> C,
    ) -> Result<(), Rejected> {
        let asked = senders.iter().enumerate().filter(|(index, _)| Some(*index) != own);
        let queues = asked.map(|(index, sender)| (index, sender.0.lock()));
        let mut queues: Vec<(usize, MutexGuard<'_, Queue<C>>)> = queues.filter(|(_, queue)| !queue.is_closed).collect();
        if queues.is_empty() {
            return Err(Rejected::Closed);
        }
        if own.is_none() && queues.iter().any(|(_, queue)| queue.commands >= queue.commands_max) {
            return Err(Rejected::Full);
        }
        let mut to_wake = Vec::new();
        for (index, queue) in &mut queues {
            if queue.push(command(*index)) {
                to_wake.push(*index);
            }
        }
        drop(queues);
        to_wake.into_iter().filter_map(|index| senders.get(index)).for_each(Sender::wake);
        Ok(())
    }

    /// Returns whether the loop runs on `thread`. The thread of a loop must not wait for the loop.
    pub fn runs_on(&self, thread: ThreadId) -> bool {
        self.0.thread.get().is_some_and(|own| *own == thread)
    }

    fn wake(&self) {
        wake(&self.0.waker);
    }
}

impl<C> Queue<C> {
    /// Adds a command, and returns whether the queue was empty.
    fn push(&mut self, command: C) -> bool {
        self.items.push_back(Item::Command(command));
        self.commands += 1;
        self.items.len() == 1
    }
}

impl<C> Clone for Sender<C> {
    fn clone(&self) -> Sender<C> {
        Sender(Arc::clone(&self.0))
    }
}

impl<C> Shared<C> {
    /// Locks the queue. No code panics while it holds the lock, so the queue is valid even if the lock is poisoned.
    fn lock(&self) -> MutexGuard<'_, Queue<C>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;
    use crate::event_loop::siblings::post::Post;

    fn inbox(commands_max: usize) -> (Poll, Inbox<u32>) {
        let poll = Poll::new().expect("an epoll instance can be created");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker can be created");
        (poll, Inbox::new(Arc::new(waker), commands_max))
    }

    fn batch(groups: &[&str]) -> Box<Batch> {
        let mut batch = Box::<Batch>::default();
        groups.iter().for_each(|group| batch.add(Post::Ungroup((*group).into())));
        batch
    }

    fn text_of(item: Item<u32>) -> String {
        let mut posts = match item {
            Item::Command(command) => return command.to_string(),
            Item::Posts(from, batch) => (from, batch),
        };
        let groups = std::iter::from_fn(|| match posts.1.pop()? {
            Post::Ungroup(group) => Some(group.to_string()),
            other => panic!("{other:?} was not sent"),
        });
        let groups: Vec<String> = groups.collect();
        format!("{}: {}", posts.0, groups.join(" "))
    }

    #[test]
    fn commands_and_posts_stay_in_order() {
        let (_poll, inbox) = inbox(10);
        let sender = inbox.sender();
        sender.send(1).expect("the inbox has room");
        for (from, groups) in [(2, ["a", "b"]), (2, ["c", "d"]), (1, ["e", "f"])] {
            let mut batch = batch(&groups);
            assert!(sender.send_posts(from, &mut batch) > 0 && batch.is_empty());
        }
        sender.send(2).expect("the inbox has room");
        sender.send_posts(1, &mut batch(&["g"]));
        let mut items = VecDeque::new();
        assert!(inbox.take(2, &mut items) && !inbox.take(8, &mut items));
        let texts: Vec<String> = items.into_iter().map(text_of).collect();
        assert_eq!(texts, ["1", "2: a b c d", "1: e f", "2", "1: g"]);
    }

    #[test]
    fn the_bound_counts_commands() {
        let (_poll, inbox) = inbox(2);
        let sender = inbox.sender();
        for from in 0..5 {
            sender.send_posts(from, &mut batch(&["a"]));
        }
        assert_eq!([1, 2, 3].map(|command| sender.send(command)), [Ok(()), Ok(()), Err(Rejected::Full)]);
        assert!(sender.is_full());
        assert_eq!(Sender::send_each(std::slice::from_ref(&sender), None, |_| 4), Err(Rejected::Full));
        assert_eq!(Sender::send_each(&[sender.clone(), sender.clone()][..1], Some(1), |_| 5), Ok(()));
        assert_eq!((sender.send_over(6), sender.send_last(7), sender.send_last(8)), (Ok(()), Ok(()), Ok(())));
        let mut items = VecDeque::new();
        assert!(!inbox.take(100, &mut items) && !sender.is_full());
        let texts: Vec<String> = items.into_iter().skip(5).map(text_of).collect();
        assert_eq!(texts, ["1", "2", "5", "6", "7"]);
    }

    #[test]
    fn an_inbox_keeps_few_and_small_batches() {
        let (_poll, inbox) = inbox(1);
        for _ in 0..5 {
            inbox.recycle(batch(&["a"]));
        }
        assert_eq!(inbox.0.lock().spares.len(), SPARES_MAX);
        inbox.0.lock().spares.clear();
        inbox.recycle(batch(&["a"; 10_000]));
        assert!(inbox.0.lock().spares.is_empty());
    }

    #[test]
    fn posts_to_a_loop_that_has_ended_are_dropped() {
        let (_poll, inbox) = inbox(1);
        let sender = inbox.sender();
        drop(inbox);
        let mut posts = batch(&["a"]);
        assert_eq!((sender.send_posts(0, &mut posts), posts.is_empty()), (0, true));
        assert_eq!(sender.send(1), Err(Rejected::Closed));
    }
}
