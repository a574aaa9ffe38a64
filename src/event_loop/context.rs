//! The [`Context`] that handlers use, and the commands of other threads.
//!
//! The loop creates a [`Context`] for each call of a handler. The methods of `Context` are in `src/context.rs`.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt;

use slab::Slab;

use crate::connection::Position;
use crate::event_loop::core::Core;
use crate::event_loop::fleet::Fleet;
use crate::event_loop::timers::TimerId;

/// The value of a notice: see [`Remote::notify`](crate::Remote::notify).
pub type Notice = Box<dyn Any + Send>;

/// Controls the running server in handlers: push, bind, join, close, timers.
///
/// Every closure and every method of [`Handler`](crate::Handler) gets a context, which is valid until the closure or
/// method returns. No method of the context blocks or calls a handler: if a handler closes a connection, the `on_close`
/// of this connection is called after the handler has returned. The messages that a turn pushes to a connection are
/// written together, at the end of the turn.
///
/// Most methods take an [`Fd`]. After the connection of an fd has ended, the result of a push to this fd, or of a
/// change of its connection, is `Gone`, even if another connection uses the same slot. A push returns an
/// [`Outcome`](crate::Outcome) or, for many connections, a [`Delivery`](crate::Delivery). A method that changes a
/// connection returns a [`Change`](crate::Change).
///
/// With several [loops](crate::Server::loops), a handler runs on one loop, and its context acts on all loops. Pushes to
/// connections of other loops, and changes of these connections, are sent to their loops at the end of the turn. The
/// result of a push or change that is sent to another loop is `Forwarded`, and
/// [`Delivery::forwarded`](crate::Delivery::forwarded) counts the loops that a push is sent to. Everything that one
/// loop sends to another loop arrives in order: pushes, changes, the shutdown, and the commands that a handler sends
/// with a [`Remote`](crate::Remote). If a connection ends before a message has reached it, the message is lost, like a
/// message in the queue of the connection. The methods that read or list connections return only connections of the
/// handler's own loop. The methods that count the connections of a uid or the members of a group count all loops. The
/// methods of [`Remote`](crate::Remote) return connections of all loops.
///
/// A push takes anything that is [`Into<Push>`](crate::Push): a received message, a `&str`, a `&[u8]`, or a
/// [`Frame`](crate::Frame) that is encoded once for many pushes. [`IntoPush`](crate::IntoPush) adds `.except(&[fd])` to
/// these types and to `String` and `Vec<u8>`.
///
/// ```no_run
/// # use fdpush::{Context, Fd, IntoPush, Message};
/// fn on_message(ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
///     let delivery = ctx.push_group("room", message.except(&[fd]));
///     if delivery.matched == 0 {
///         ctx.push(fd, "the room is empty");
///     }
/// }
/// ```
///
/// [`Fd`]: crate::Fd
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) parts: &'a mut ContextParts,
}

/// The parts of a [`Context`] outside [`Core`]: the inboxes, and the closures of timers and replies.
#[derive(Debug)]
pub struct ContextParts {
    /// The inboxes of all loops.
    pub fleet: Fleet<Command>,
    pub timers: TimerClosures,
    pub replies: Replies,
    pub held: HeldValues,
}

impl Context<'_> {
    /// Sends the collected pushes and changes to the other loops: see [`ContextParts::send_posts`].
    pub(crate) fn send_posts(&mut self) {
        self.parts.send_posts(self.core);
    }
}

/// A command that another thread sends to the loop.
pub enum Command {
    Call(Box<dyn FnOnce(&mut Context<'_>) + Send>),
    Notice(Notice),
    Shutdown,
}

/// The closures of timers, by the id of the timer. A timer without a closure calls `on_timer`.
#[derive(Default)]
pub struct TimerClosures(HashMap<TimerId, TimerClosure>);

/// The closure of a timer, which is called at every expiry.
pub type TimerClosure = Box<dyn FnMut(&mut Context<'_>)>;

/// Values that are dropped when the loop has written the output that was queued before them.
///
/// Each value has the position in the loop's output up to which the output must be written before the value is dropped.
/// The position is `None` until the flush after the value was added.
#[derive(Default)]
pub struct HeldValues(VecDeque<(Option<Position>, Box<dyn Any>)>);

/// The replies that the handlers of a loop wait for, by key.
#[derive(Default)]
pub struct Replies(Slab<Box<dyn PendingReply>>);

/// A reply that a handler waits for, and the closure that gets its result.
pub trait PendingReply {
    /// Polls the reply, and returns whether the result is available.
    fn poll(&mut self) -> bool;

    /// Calls the closure with the result, after [`poll`](PendingReply::poll) has returned `true`.
    fn call(self: Box<Self>, ctx: &mut Context<'_>);
}

impl ContextParts {
    /// Creates the parts without timers and replies.
    pub fn new(fleet: Fleet<Command>) -> ContextParts {
        ContextParts {
            fleet,
            timers: TimerClosures::default(),
            replies: Replies::default(),
            held: HeldValues::default(),
        }
    }

    /// Sends the posts of this loop to the inboxes of the other loops.
    ///
    /// A post is a push, a change or an accepted socket that one loop sends to another loop.
    ///
    /// A loop calls this method at the end of a turn, and before it sends anything else to another loop.
    #[inline]
    pub fn send_posts(&self, core: &mut Core) {
        let Some(siblings) = core.siblings_mut().filter(|siblings| siblings.has_posts()) else { return };
        let (own, senders) = (siblings.index(), self.fleet.senders().unwrap_or_default());
        siblings.send_posts(|to, posts| senders.get(to).map_or(0, |sender| sender.send_posts(own, posts)));
    }
}

impl TimerClosures {
    pub fn insert(&mut self, timer: TimerId, closure: TimerClosure) {
        self.0.insert(timer, closure);
    }

    /// Removes the closure of a timer and returns it.
    #[inline]
    pub fn take(&mut self, timer: TimerId) -> Option<TimerClosure> {
        if self.0.is_empty() { None } else { self.0.remove(&timer) }
    }
}

impl HeldValues {
    /// Adds a value.
    pub fn insert(&mut self, value: Box<dyn Any>) {
        self.0.push_back((None, value));
    }

    /// Returns whether there are no values.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the position of the values that have no position yet to `end`, the end of the present output.
    pub fn set_position(&mut self, end: Position) {
        self.0.iter_mut().rev().map_while(|(position, _)| position.is_none().then_some(position)).for_each(
            |position| {
                *position = Some(end);
            },
        );
    }

    /// Removes and returns the first value, if its position is before `written`, the end of the written output.
    pub fn pop_written(&mut self, written: Position) -> Option<Box<dyn Any>> {
        let (position, _) = self.0.front()?;
        if position.is_some_and(|position| position.is_before(written)) {
            self.0.pop_front().map(|(_, value)| value)
        } else {
            None
        }
    }
}

impl Replies {
    /// Adds a reply. `make` gets the key of the reply and returns the reply.
    pub fn insert(&mut self, make: impl FnOnce(usize) -> Box<dyn PendingReply>) {
        let entry = self.0.vacant_entry();
        let reply = make(entry.key());
        entry.insert(reply);
    }

    /// Removes the reply with this key, if its result is available.
    pub fn take_ready(&mut self, key: usize) -> Option<Box<dyn PendingReply>> {
        if self.0.get_mut(key)?.poll() { self.0.try_remove(key) } else { None }
    }
}

impl Command {
    /// Returns the name of the command for log lines.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Call(_) => "a command of Remote",
            Command::Notice(_) => "on_notice",
            Command::Shutdown => "a shutdown",
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Call(_) => "Call",
            Command::Notice(_) => "Notice",
            Command::Shutdown => "Shutdown",
        })
    }
}

impl fmt::Debug for TimerClosures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for HeldValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldValues").field("len", &self.0.len()).finish()
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("len", &self.0.len()).finish()
    }
}
