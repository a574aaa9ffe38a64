//! Sends posts and commands to the inboxes of loops, and checks that they arrive once and in order.
//!
//! A loop is modelled by its [`Siblings`], its inbox and the test double of its waker. The model takes items, carries
//! out posts and waits for a wake as the loop does. The ledger is the record of the posts and commands that were
//! accepted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::{explore, on_each};
use crate::event_loop::inbox::{Inbox, Item, Sender};
use crate::event_loop::proxies::ProxyFilter;
use crate::event_loop::siblings::Siblings;
use crate::event_loop::siblings::post::{Batch, ConnectionChange, ForwardedPush, Post, Target};
use crate::event_loop::siblings::process::{Process, Settings};
use crate::event_loop::waker::Waker;
use crate::fd::{Fd, Slot};
use crate::limits::Limits;
use crate::message::{Content, Push};
use crate::protocol::origin::Origins;
use crate::registry::SecondLogin;

/// The maximum memory of the posts from one loop to another: enough for a few short messages.
const FORWARD_BYTES_MAX: usize = 1200;

/// The maximum number of commands in an inbox.
const COMMANDS_MAX: usize = 2;

/// The number of the last post or command of a source.
const LAST: u32 = u32::MAX;

/// A command: its source and its number. `None` is the shutdown.
pub type Command = Option<(usize, u32)>;

/// The posts that were accepted and are not carried out yet, by sending loop, then by receiving loop.
///
/// An entry is the number of the post and its counted memory. shuttle does not switch threads at this mutex.
pub struct Ledger(Vec<Mutex<VecDeque<(u32, usize)>>>, usize);

/// The parts of a loop that other loops use.
pub struct Mailboxes {
    pub process: Arc<Process>,
    pub senders: Box<[Sender<Command>]>,
    pub ledger: Ledger,
    inboxes: Vec<Mutex<Option<Inbox<Command>>>>,
    limits: Limits,
}

/// The model of a loop.
pub struct Loop<'m> {
    pub siblings: Siblings,
    pub mailboxes: &'m Mailboxes,
    pub waker: Arc<Waker>,
    /// The commands that the loop has carried out.
    pub commands: Vec<Command>,
    /// The number of other loops that have sent their last post.
    pub ended: usize,
    inbox: Inbox<Command>,
    items: VecDeque<Item<Command>>,
    has_items: bool,
    number: u32,
    /// The counted memory of the posts that were sent, by receiving loop.
    sent: Vec<usize>,
}

impl Ledger {
    fn entries(&self, from: usize, to: usize) -> std::sync::MutexGuard<'_, VecDeque<(u32, usize)>> {
        self.0[from * self.1 + to].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an accepted post.
    fn accept(&self, from: usize, to: usize, number: u32, bytes: usize) {
        let mut entries = self.entries(from, to);
        entries.push_back((number, bytes));
        let waiting: usize = entries.iter().map(|(_, bytes)| bytes).sum();
        assert!(waiting <= FORWARD_BYTES_MAX || waiting == bytes, "{waiting} bytes wait: {entries:?}");
    }

    /// Records that a post was carried out.
    fn carry_out(&self, from: usize, to: usize, number: u32) {
        let next = self.entries(from, to).pop_front().map(|(number, _)| number);
        assert_eq!(next, Some(number), "loop {to} must carry out the posts of loop {from} once and in order");
    }

    /// Returns the number of accepted posts that were not carried out.
    pub fn waiting(&self, from: usize, to: usize) -> usize {
        self.entries(from, to).len()
    }
}

impl Mailboxes {
    pub fn new(loops: usize) -> Mailboxes {
        let wakers: Box<[Arc<Waker>]> = (0..loops).map(|_| Arc::default()).collect();
        let inboxes: Vec<_> = wakers.iter().map(|waker| Inbox::new(Arc::clone(waker), COMMANDS_MAX)).collect();
        let limits = Limits { forward_bytes_max: FORWARD_BYTES_MAX, ..Limits::default() };
        let settings =
            Settings { limits: limits.clone(), origins: Origins::default(), proxies: ProxyFilter::default() };
        Mailboxes {
            process: Arc::new(Process::new(wakers, SecondLogin::Multi, settings)),
            senders: inboxes.iter().map(Inbox::sender).collect(),
            ledger: Ledger((0..loops * loops).map(|_| Mutex::default()).collect(), loops),
            inboxes: inboxes.into_iter().map(|inbox| Mutex::new(Some(inbox))).collect(),
            limits,
        }
    }

    /// Creates the loop with this number.
    pub fn start(&self, index: usize) -> Loop<'_> {
        let inbox = self.inboxes[index].lock().unwrap_or_else(PoisonError::into_inner).take();
        let inbox = inbox.expect("a loop starts once");
        Loop {
            siblings: Siblings::new(index, Arc::clone(&self.process), self.limits.clone()),
            mailboxes: self,
            waker: inbox.waker(),
            commands: Vec::new(),
            ended: 0,
            inbox,
            items: VecDeque::new(),
            has_items: false,
            number: 0,
            sent: vec![0; self.senders.len()],
        }
    }
}

impl Loop<'_> {
    /// Forwards a push to another loop, with a payload of at least `length` bytes. Returns whether it was accepted.
    pub fn forward(&mut self, to: usize, length: usize) -> bool {
        self.number += 1;
        let text = format!("{:<length$}", self.number);
        let (target, mut push) = (Target::Group("g".into()), ForwardedPush::new(Push::from(&*text)));
        let bytes = push.bytes(&target, 0);
        let is_accepted = self.siblings.forward(to, target, &mut push);
        if is_accepted {
            self.mailboxes.ledger.accept(self.siblings.index(), to, self.number, bytes);
        }
        is_accepted
    }

    /// Posts a kick to another loop. A kick is always accepted.
    fn kick(&mut self, to: usize, number: u32) {
        let change = ConnectionChange::Kick(number.to_string().into());
        assert!(self.siblings.post(to, Post::Change(Fd::new(Slot(to as u32), 0), change)));
        self.mailboxes.ledger.accept(self.siblings.index(), to, number, 0);
    }

    /// Posts the last kick to each other loop.
    pub fn end(&mut self) {
        self.siblings.others().for_each(|to| self.kick(to, LAST));
        self.send();
    }

    /// Sends the posts, as the loop does once a turn.
    pub fn send(&mut self) {
        if !self.siblings.has_posts() {
            return;
        }
        let (own, senders, sent) = (self.siblings.index(), &self.mailboxes.senders, &mut self.sent);
        self.siblings.send_posts(|to, posts| {
            let bytes = senders[to].send_posts(own, posts);
            sent[to] += bytes;
            bytes
        });
    }

    /// Waits for a wake, if the loop has nothing to do.
    pub fn wait(&mut self) {
        if !self.has_items && !self.siblings.has_posts() {
            self.waker.wait();
        }
    }

    /// Locks the inbox once, and carries out the items that were taken under this lock. Returns whether an item was a
    /// shutdown.
    pub fn receive(&mut self) -> bool {
        self.has_items = self.inbox.take(2, &mut self.items);
        let mut is_shutdown = false;
        while let Some(item) = self.items.pop_front() {
            match item {
                Item::Posts(from, batch) => self.carry_out(from, batch),
                Item::Command(command) => {
                    is_shutdown |= command.is_none();
                    self.commands.push(command);
                }
            }
        }
        is_shutdown
    }

    fn carry_out(&mut self, from: usize, mut batch: Box<Batch>) {
        while let Some(post) = batch.pop() {
            let number = match post {
                Post::Push(posted) => match posted.push(batch.payloads()).content {
                    Content::Payload(_, payload) => parse(payload),
                    // A long text has a header of 4 bytes.
                    Content::Frame(frame) => parse(&frame.as_bytes()[4..]),
                },
                Post::Change(_, ConnectionChange::Kick(number)) => parse(number.as_bytes()),
                post => panic!("{post:?} was not sent"),
            };
            self.ended += usize::from(number == LAST);
            self.mailboxes.ledger.carry_out(from, self.siblings.index(), number);
        }
        self.siblings.process().links.record_carried(from, self.siblings.index(), batch.bytes());
        self.inbox.recycle(batch);
    }

    /// Checks that no posts of this loop wait, after all loops have carried out all posts.
    fn check_end(&mut self) {
        for to in self.siblings.others() {
            assert_eq!(self.mailboxes.ledger.waiting(self.siblings.index(), to), 0);
            assert_eq!(self.mailboxes.process.links.carried(self.siblings.index(), to), self.sent[to]);
            // A post over the limit is accepted only if no other post waits.
            assert!(self.forward(to, 2 * FORWARD_BYTES_MAX) && !self.forward(to, 1));
        }
    }
}

fn parse(text: &[u8]) -> u32 {
    let text = std::str::from_utf8(text).expect("the text is UTF-8");
    text.trim_end().parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

/// Each loop sends posts of different kinds and lengths to each other loop, and carries out the posts that it gets.
fn exchange_posts(loops: usize) {
    let mailboxes = Mailboxes::new(loops);
    let mut all = on_each(loops, |index| {
        let mut own = mailboxes.start(index);
        let mut accepted = 0;
        for length in [1, 600, 300] {
            for to in own.siblings.others() {
                accepted += u32::from(own.forward(to, length));
                if length == 300 {
                    own.number += 1;
                    own.kick(to, own.number);
                    accepted += u32::from(own.forward(to, 2));
                }
            }
            own.send();
            own.receive();
        }
        assert!(accepted > 0);
        own.end();
        while own.ended < loops - 1 {
            own.wait();
            own.receive();
        }
        own
    });
    all.iter_mut().for_each(Loop::check_end);
}

/// Two threads send commands to one loop, while another loop sends posts to this loop.
fn send_commands() {
    let mailboxes = Mailboxes::new(2);
    let results = on_each(4, |thread| {
        if thread >= 2 {
            let inbox = &mailboxes.senders[0];
            let accepted = |number: &u32| inbox.send(Some((thread, *number))).is_ok();
            let accepted: Vec<u32> = (0..3).filter(accepted).collect();
            inbox.send_over(Some((thread, LAST))).expect("the loop runs");
            return (accepted, Vec::new());
        }
        let mut own = mailboxes.start(thread);
        if thread == 1 {
            assert!(own.forward(0, 1));
            own.send();
            own.forward(0, 1);
            own.end();
            return (Vec::new(), Vec::new());
        }
        let is_last = |command: &&Command| matches!(command, Some((_, LAST)));
        while own.ended == 0 || own.commands.iter().filter(is_last).count() < 2 {
            own.wait();
            own.receive();
        }
        (Vec::new(), own.commands)
    });
    for (thread, (accepted, _)) in results.iter().enumerate().skip(2) {
        let received = results[0].1.iter().flatten().filter(|(source, _)| *source == thread).map(|(_, number)| *number);
        let expected: Vec<u32> = accepted.iter().copied().chain([LAST]).collect();
        assert_eq!(received.collect::<Vec<_>>(), expected, "the commands of thread {thread}");
    }
    assert_eq!(mailboxes.ledger.waiting(1, 0), 0);
}

/// Two threads send commands to all loops. Each loop must get the same commands in the same order.
fn scatter_commands(loops: usize) {
    let mailboxes = Mailboxes::new(loops);
    let results = on_each(loops + 2, |thread| {
        if thread >= loops {
            let scatter = |number| Sender::send_each(&mailboxes.senders, None, |_| Some((thread, number)));
            let accepted: Vec<Command> =
                (0..2).filter(|number| scatter(*number).is_ok()).map(|number| Some((thread, number))).collect();
            for sender in &mailboxes.senders {
                sender.send_over(Some((thread, LAST))).expect("the loops run");
            }
            return accepted;
        }
        let mut own = mailboxes.start(thread);
        let is_last = |command: &&Command| matches!(command, Some((_, LAST)));
        while own.commands.iter().filter(is_last).count() < 2 {
            own.wait();
            own.receive();
        }
        own.commands.into_iter().filter(|command| !is_last(&command)).collect()
    });
    let (received, accepted) = results.split_at(loops);
    assert!(received.iter().all(|commands| *commands == received[0]), "{received:?}");
    let of_thread =
        |thread| received[0].iter().copied().filter(move |command| command.map(|(from, _)| from) == Some(thread));
    for (thread, accepted) in accepted.iter().enumerate() {
        assert_eq!(of_thread(loops + thread).collect::<Vec<_>>(), *accepted);
    }
    assert!(!received[0].is_empty(), "an empty inbox must accept a command");
}

/// A loop ends while another loop sends posts to it.
fn end_the_receiver() {
    let mailboxes = Mailboxes::new(3);
    on_each(3, |index| {
        let mut own = mailboxes.start(index);
        match index {
            0 => {
                own.receive();
                // The end of a loop closes its inbox.
                drop(own);
                mailboxes.process.record_ended(0);
            }
            1 => {
                for _ in 0..3 {
                    if own.siblings.other_loop_of(Fd::new(Slot(0), 0)).is_some() {
                        own.forward(0, 1);
                    }
                    own.forward(2, 1);
                    own.send();
                }
                own.end();
            }
            _ => {
                while own.ended == 0 {
                    own.wait();
                    own.receive();
                }
            }
        }
    });
    assert!(mailboxes.process.has_ended(0) && mailboxes.ledger.waiting(1, 2) == 0);
}

#[test]
fn each_accepted_post_arrives_once_and_in_order_and_the_bound_holds() {
    (2..=3).for_each(|loops| explore(move || exchange_posts(loops)));
}

#[test]
fn each_accepted_command_arrives_once_and_in_order() {
    explore(send_commands);
}

#[test]
fn commands_to_all_loops_arrive_in_one_order() {
    explore(|| scatter_commands(2));
}

#[test]
fn the_end_of_a_loop_does_not_stop_posts_to_other_loops() {
    explore(end_the_receiver);
}
