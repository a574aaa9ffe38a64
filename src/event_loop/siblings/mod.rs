//! The other loops of the server, as one loop sees them.

pub mod admission;
pub mod incoming;
pub mod mailbox;
pub mod post;
pub mod process;

use std::sync::Arc;

use self::mailbox::Mailbox;
use self::post::{Batch, ConnectionChange, ForwardedPush, Post, Target};
use self::process::{Process, Settings};
use crate::directory::Part;
use crate::fd::{Fd, Numbering};
use crate::limits::Limits;

/// The other loops of the server.
///
/// A loop collects its posts to another loop in a [`Batch`]. [`send_posts`](Siblings::send_posts) puts the batches into
/// the mailboxes, once in a turn. The pushes and changes that wait for one loop are bounded by
/// [`forward_bytes_max`](Limits::forward_bytes_max). Kicks and accepted sockets are bounded by the number of connections.
#[derive(Debug)]
pub struct Siblings {
    process: Arc<Process>,
    numbering: Numbering,
    index: usize,
    /// The posts of this turn, by receiving loop.
    outgoing: Vec<Batch>,
    has_posts: bool,
    /// The loops that a search in the directory found. Searches reuse its memory.
    pub parts: Vec<Part>,
    /// The limits of the process. The limits of the loop are a share of them.
    pub limits: Limits,
    /// The changes of settings that this loop has applied.
    settings_seen: u64,
    /// Whether a shutdown was requested.
    pub wants_drain: bool,
    /// Whether this loop has drained, and waits for the other loops.
    pub has_drained: bool,
    /// Pushes to other loops since the start.
    pub forwarded: u64,
}

impl Siblings {
    /// Creates the view of the loop `index`.
    pub fn new(index: usize, process: Arc<Process>, limits: Limits) -> Siblings {
        let loops = process.loops();
        Siblings {
            process,
            numbering: Numbering::new(index, loops),
            index,
            outgoing: (0..loops).map(|_| Batch::default()).collect(),
            has_posts: false,
            parts: Vec::new(),
            limits,
            settings_seen: 0,
            wants_drain: false,
            has_drained: false,
            forwarded: 0,
        }
    }

    /// Returns the shared state.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Returns the number of this loop.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the number of loops.
    pub fn loops(&self) -> usize {
        self.outgoing.len()
    }

    /// Returns the slots of fds that belong to this loop.
    pub fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// Returns the numbers of the other loops.
    pub fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.index;
        (0..self.loops()).filter(move |index| *index != own)
    }

    /// Returns the loop of an fd that belongs to another loop.
    pub fn other_loop_of(&self, fd: Fd) -> Option<usize> {
        Some(self.numbering.loop_of(fd)).filter(|index| *index != self.index)
    }

    /// Returns this loop's mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        &self.process.mailboxes[self.index]
    }

    /// Forwards a push to another loop. Returns `false` if the posts to that loop have reached their bound.
    pub fn forward(&mut self, to: usize, target: Target, message: &mut ForwardedPush<'_>) -> bool {
        let numbering = self.numbering;
        let except: Vec<Fd> = message.except().iter().copied().filter(|fd| numbering.loop_of(*fd) == to).collect();
        if !self.has_room(to, message.bytes(&target, except.len())) {
            return false;
        }
        self.outgoing[to].add_push(target, except, message);
        self.has_posts = true;
        self.forwarded += 1;
        true
    }

    /// Sends a change of a connection to its loop. Returns `false` if the posts to that loop have reached their bound.
    pub fn forward_change(&mut self, to: usize, fd: Fd, change: ConnectionChange) -> bool {
        let has_room = self.has_room(to, change.post_bytes());
        if has_room {
            self.post(to, Post::Change(fd, change));
        }
        has_room
    }

    /// Adds a post to another loop, also over the bound.
    pub fn post(&mut self, to: usize, post: Post) {
        self.outgoing[to].add(post);
        self.has_posts = true;
    }

    fn has_room(&self, to: usize, bytes: usize) -> bool {
        let waiting = self.process.mailboxes[to].used(self.index) + self.outgoing[to].bytes();
        waiting + bytes <= self.limits.forward_bytes_max
    }

    /// Returns whether there are posts that were not sent.
    pub fn has_posts(&self) -> bool {
        self.has_posts
    }

    /// Puts the posts into the mailboxes of their loops.
    #[inline]
    pub fn send_posts(&mut self) {
        if self.has_posts {
            self.send_all_posts();
        }
    }

    fn send_all_posts(&mut self) {
        self.has_posts = false;
        for (to, batch) in self.outgoing.iter_mut().enumerate().filter(|(_, batch)| !batch.is_empty()) {
            self.process.mailboxes[to].send(self.index, batch);
        }
    }

    /// Changes the settings of the other loops.
    pub fn change_settings(&mut self, change: impl FnOnce(&mut Settings)) {
        self.process.change_settings(change);
    }

    /// Returns the settings, if another loop has changed them.
    pub fn new_settings(&mut self) -> Option<Settings> {
        self.process.new_settings(&mut self.settings_seen)
    }
}
