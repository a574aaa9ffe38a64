//! The view that one loop has of the other loops of the server.

pub mod admission;
pub mod links;
pub mod post;
pub mod process;
pub mod report;

use std::sync::Arc;

use self::post::{Batch, ForwardedPush, Post, Target};
use self::process::{Process, Settings};
use self::report::Report;
use crate::directory::Part;
use crate::fd::{Fd, Numbering};
use crate::limits::Limits;

/// The other loops of the server.
///
/// A loop collects its posts to another loop in a [`Batch`]. [`send_posts`](Siblings::send_posts) sends the batches to
/// the inboxes, once in a turn, and before anything else that this loop sends to another loop. So everything that one
/// loop sends to another loop arrives in order. [`forward_bytes_max`](Limits::forward_bytes_max) limits the memory of
/// the pushes and changes that one loop has sent to another loop and that are not carried out yet. This limit does not
/// apply to kicks and accepted sockets, because the number of connections limits them.
#[derive(Debug)]
pub struct Siblings {
    process: Arc<Process>,
    numbering: Numbering,
    index: usize,
    /// The posts that are not sent yet, by receiving loop.
    #[expect(clippy::vec_box, reason = "a send moves the box to the inbox")]
    outgoing: Vec<Box<Batch>>,
    has_posts: bool,
    /// The counted memory of the posts that were sent since the start, by receiving loop.
    sent: Vec<usize>,
    /// For each receiving loop, the counted memory of all posts since the start up to the last bind or join.
    ///
    /// Until the receiving loop has carried out this bind or join, the directory can lack the entry of the uid or group
    /// for this loop.
    names_at: Vec<usize>,
    /// Whether other loops may still have to carry out a bind or join that this loop has sent.
    has_pending: bool,
    /// The loops that a search in the directory found. All searches reuse the memory of this list.
    pub parts: Vec<Part>,
    /// The limits of the whole process. Each loop has a share of these limits.
    pub limits: Limits,
    /// The number of settings changes that this loop has applied.
    settings_seen: u64,
    /// Whether a shutdown was requested on this loop.
    pub wants_drain: bool,
    /// Whether this loop has sent the shutdown to all loops.
    pub has_sent_shutdown: bool,
    /// Whether this loop has drained, and waits for the other loops.
    pub has_drained: bool,
    /// Pushes to other loops since the start.
    pub forwarded: u64,
    /// The report that gets the counts of forwarded pushes, while
    /// [`Context::track_forwarded`](crate::Context::track_forwarded) runs.
    pub report: Option<Report>,
}

impl Siblings {
    /// Creates the view that the loop `index` has of the other loops.
    pub fn new(index: usize, process: Arc<Process>, limits: Limits) -> Siblings {
        let loops = process.loops();
        Siblings {
            process,
            numbering: Numbering::new(index, loops),
            index,
            outgoing: (0..loops).map(|_| Box::default()).collect(),
            has_posts: false,
            sent: vec![0; loops],
            names_at: vec![0; loops],
            has_pending: false,
            parts: Vec::new(),
            limits,
            settings_seen: 0,
            wants_drain: false,
            has_sent_shutdown: false,
            has_drained: false,
            forwarded: 0,
            report: None,
        }
    }

    /// Returns the state that all loops share.
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

    /// Returns the numbering of the slots and fds of this loop.
    pub fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// Returns the numbers of the other loops.
    pub fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.index;
        (0..self.loops()).filter(move |index| *index != own)
    }

    /// Returns the loop of an fd that belongs to another loop, unless that loop has ended.
    pub fn other_loop_of(&self, fd: Fd) -> Option<usize> {
        Some(self.numbering.loop_of(fd)).filter(|index| *index != self.index && !self.process.has_ended(*index))
    }

    /// Forwards a push to another loop. Returns `false` if the push does not fit into
    /// [`forward_bytes_max`](Limits::forward_bytes_max).
    pub fn forward(&mut self, to: usize, target: Target, message: &mut ForwardedPush<'_>) -> bool {
        let numbering = self.numbering;
        let except: Vec<Fd> = message.except().iter().copied().filter(|fd| numbering.loop_of(*fd) == to).collect();
        if !self.has_room(to, message.bytes(&target, except.len())) {
            return false;
        }
        self.outgoing[to].add_push(target, except, message, self.report.clone());
        self.has_posts = true;
        self.forwarded += 1;
        true
    }

    /// Sends a post to another loop. Returns `false` if the post does not fit into
    /// [`forward_bytes_max`](Limits::forward_bytes_max).
    ///
    /// A post whose counted memory is 0 bytes, such as a kick, is always sent.
    pub fn post(&mut self, to: usize, post: Post) -> bool {
        let bytes = post.bytes();
        if bytes > 0 && !self.has_room(to, bytes) {
            return false;
        }
        let adds_names = post.adds_names();
        self.outgoing[to].add(post);
        self.has_posts = true;
        if adds_names {
            self.names_at[to] = self.sent[to] + self.outgoing[to].bytes();
            self.has_pending = true;
        }
        true
    }

    /// Adds to `parts` each loop that has not yet carried out a bind or join that this loop has sent.
    ///
    /// `parts` is the list of loops that a search in the directory has found.
    ///
    /// A push that follows a bind or join must go to the loop of the bind or join, even if the directory does not have
    /// the uid or group yet.
    pub fn add_pending(&mut self, parts: &mut Vec<Part>) {
        if self.has_pending {
            self.add_all_pending(parts);
        }
    }

    #[cold]
    fn add_all_pending(&mut self, parts: &mut Vec<Part>) {
        self.has_pending = false;
        for to in 0..self.loops() {
            if self.names_at[to] <= self.process.links.carried(self.index, to) {
                continue;
            }
            self.has_pending = true;
            if parts.iter().all(|part| usize::from(part.index) != to) {
                parts.push(Part { index: to as u16, count: 0 });
            }
        }
    }

    /// Returns whether a post of `bytes` bytes to a loop fits into [`forward_bytes_max`](Limits::forward_bytes_max).
    ///
    /// If no other post to the loop waits, a post may be larger than this limit. So a post with a very long list of
    /// receivers can be sent.
    fn has_room(&self, to: usize, bytes: usize) -> bool {
        let waiting = self.waiting(to);
        waiting == 0 || waiting + bytes <= self.limits.forward_bytes_max
    }

    /// Returns the counted memory of the posts that this loop has made for the loop `to`, and that `to` has not carried
    /// out yet.
    fn waiting(&self, to: usize) -> usize {
        self.sent[to] - self.process.links.carried(self.index, to) + self.outgoing[to].bytes()
    }

    /// Returns whether there are posts that were not sent.
    #[inline]
    pub fn has_posts(&self) -> bool {
        self.has_posts
    }

    /// Sends the posts with `send`.
    ///
    /// `send` gets the number of the receiving loop and the posts, and returns the counted memory of the posts.
    #[inline(never)]
    pub fn send_posts(&mut self, mut send: impl FnMut(usize, &mut Box<Batch>) -> usize) {
        self.has_posts = false;
        for (to, batch) in self.outgoing.iter_mut().enumerate().filter(|(_, batch)| !batch.is_empty()) {
            self.sent[to] += send(to, batch);
        }
    }

    /// Returns whether all other loops have drained.
    pub fn are_others_drained(&self) -> bool {
        self.process.have_others_drained(self.index)
    }

    /// Returns whether this loop must send a shutdown to all loops.
    #[inline]
    pub fn has_shutdown_to_send(&self) -> bool {
        self.wants_drain && !self.has_sent_shutdown
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

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::post::ConnectionChange;
    use super::*;
    use crate::event_loop::proxies::ProxyFilter;
    use crate::event_loop::waker::Waker;
    use crate::fd::Slot;
    use crate::message::Push;
    use crate::protocol::origin::Origins;
    use crate::registry::SecondLogin;

    /// Returns the `Siblings` of the first of two loops.
    fn first_of_two() -> Siblings {
        let poll = Poll::new().expect("an epoll instance can be created");
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker can be created"));
        let limits = Limits { forward_bytes_max: 1000, ..Limits::default() };
        let settings =
            Settings { limits: limits.clone(), origins: Origins::default(), proxies: ProxyFilter::default() };
        let process = Process::new([Arc::clone(&waker), waker].into(), SecondLogin::Multi, settings);
        Siblings::new(0, Arc::new(process), limits)
    }

    /// Sends the posts, and returns their counted memory.
    fn send(siblings: &mut Siblings) -> usize {
        let mut sum = 0;
        siblings.send_posts(|_, batch| {
            let bytes = batch.bytes();
            batch.clear();
            sum += bytes;
            bytes
        });
        sum
    }

    fn change(change: ConnectionChange) -> Post {
        Post::Change(Fd::new(Slot(1), 0), change)
    }

    fn push(siblings: &mut Siblings, text: &str) -> bool {
        siblings.forward(1, Target::All, &mut ForwardedPush::new(Push::from(text)))
    }

    #[test]
    fn a_loop_gets_all_pushes_until_it_has_carried_out_a_join() {
        let mut siblings = first_of_two();
        let pending = |siblings: &mut Siblings| {
            let mut parts = Vec::new();
            siblings.add_pending(&mut parts);
            parts
        };
        assert!(siblings.post(1, change(ConnectionChange::Leave("g".into()))));
        assert_eq!(pending(&mut siblings), []);
        assert!(siblings.post(1, change(ConnectionChange::Join("g".into()))));
        let part = Part { index: 1, count: 0 };
        assert_eq!(pending(&mut siblings), [part]);
        let first = send(&mut siblings);
        assert!(push(&mut siblings, "later"));
        assert_eq!(pending(&mut siblings), [part]);
        // The loop has carried out the join, but not the later message.
        assert!(send(&mut siblings) > 0);
        siblings.process.links.record_carried(0, 1, first);
        assert_eq!(pending(&mut siblings), []);
    }

    #[test]
    fn a_post_over_the_limit_is_sent_if_no_other_post_waits() {
        let (mut siblings, long) = (first_of_two(), "x".repeat(2000));
        assert!(push(&mut siblings, &long));
        assert!(!push(&mut siblings, ""));
        let bytes = send(&mut siblings);
        assert!(!push(&mut siblings, "") && !push(&mut siblings, &long));
        siblings.process.links.record_carried(0, 1, bytes);
        assert!(push(&mut siblings, "") && !push(&mut siblings, &long));
    }

    #[test]
    fn kicks_are_always_sent_and_do_not_count_towards_the_limit() {
        let mut siblings = first_of_two();
        for _ in 0..1000 {
            assert!(siblings.post(1, change(ConnectionChange::Kick("u".into()))));
        }
        assert_eq!(send(&mut siblings), 0);
        assert!(push(&mut siblings, "there is room"));
    }
}
