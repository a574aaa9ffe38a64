//! What is pushed: a message and its options, and what becomes of it.

use crate::fd::Fd;
use crate::protocol::shared::Frame;

pub use crate::protocol::message::Message;

impl<'a> Message<'a> {
    /// This message to all but `fds`: `ctx.broadcast(message.except(&[fd]))`.
    pub fn except(self, fds: &'a [Fd]) -> Push<'a> {
        Push::from(self).except(fds)
    }

    /// This message with a conflation key: see [`Push::key`].
    pub fn key(self, key: &'a str) -> Push<'a> {
        Push::from(self).key(key)
    }
}

/// A message and how it is to be pushed. Everything that takes one also takes a [`Message`], a `&str`, a `&[u8]` or a
/// [`Frame`], all lent: a `String` that was just made goes in as `&format!(…)`. [`IntoPush`] gives options to all of them.
#[derive(Copy, Clone, Debug)]
pub struct Push<'a> {
    pub(crate) content: Content<'a>,
    pub(crate) except: &'a [Fd],
    pub(crate) key: Option<&'a str>,
}

/// What is pushed: a message to be encoded, or a frame that is.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Content<'a> {
    Message(Message<'a>),
    Frame(&'a Frame),
}

impl<'a> Push<'a> {
    /// Leaves these connections out, for instance the one the message came from.
    pub fn except(mut self, fds: &'a [Fd]) -> Push<'a> {
        self.except = fds;
        self
    }

    /// The conflation key. Where the server's policy for slow readers is
    /// [`SlowReader::Conflate`](crate::SlowReader::Conflate), a newer message replaces the unsent older one of the same
    /// key once the reader's queue is full. Its bytes count towards the bounds of queues. Without that policy the key has no
    /// effect.
    pub fn key(mut self, key: &'a str) -> Push<'a> {
        self.key = Some(key);
        self
    }
}

/// Everything that can be pushed, with the options of a push: texts, bytes, messages and frames.
///
/// A value that owns its bytes is lent: it is not consumed.
///
/// ```
/// use std::borrow::Cow;
/// use std::rc::Rc;
/// use std::sync::Arc;
///
/// use fdpush::{Context, Fd, Frame, IntoPush, Message};
///
/// fn tell_the_others(ctx: &mut Context<'_>, fd: Fd) {
///     // Text.
///     let text = String::from("hello");
///     ctx.broadcast("hello".except(&[fd]));
///     ctx.broadcast(text.except(&[fd]));
///     ctx.broadcast((&text).except(&[fd]));
///     ctx.broadcast(format!("{fd} says hello").except(&[fd]));
///     ctx.broadcast(Cow::from("hello").except(&[fd]));
///     ctx.broadcast(Arc::<str>::from("hello").except(&[fd]));
///     ctx.broadcast(Rc::new(text).except(&[fd]));
///     ctx.broadcast(Box::<str>::from("hello").except(&[fd]));
///     // Binary.
///     let bytes = vec![1, 2, 3];
///     ctx.broadcast(b"bytes".except(&[fd]));
///     ctx.broadcast(bytes.as_slice().except(&[fd]));
///     ctx.broadcast((&bytes).except(&[fd]));
///     ctx.broadcast(bytes.except(&[fd]));
///     ctx.broadcast(Cow::from(&bytes).except(&[fd]));
///     ctx.broadcast(Arc::<[u8]>::from([1, 2, 3]).except(&[fd]));
///     ctx.broadcast(Arc::new(bytes).except(&[fd]));
///     // A message as it came, and a frame that was encoded before.
///     ctx.broadcast(Message::Text("hello").except(&[fd]));
///     let frame = Frame::text("hello");
///     ctx.broadcast((&frame).except(&[fd]));
///     ctx.broadcast(frame.except(&[fd]).key("greeting"));
///     // Without options they are lent by hand.
///     ctx.push(fd, &format!("you are {fd}"));
///     ctx.push(fd, &Cow::from("hello"));
///     ctx.push(fd, b"bytes");
/// }
/// ```
pub trait IntoPush<'a>: Into<Push<'a>> {
    /// This to all but `fds`: see [`Push::except`].
    fn except(self, fds: &'a [Fd]) -> Push<'a> {
        self.into().except(fds)
    }

    /// This with a conflation key: see [`Push::key`].
    fn key(self, key: &'a str) -> Push<'a> {
        self.into().key(key)
    }
}

impl<'a, P: Into<Push<'a>>> IntoPush<'a> for P {}

impl<'a, M: Into<Message<'a>>> From<M> for Push<'a> {
    fn from(message: M) -> Push<'a> {
        Push { content: Content::Message(message.into()), except: &[], key: None }
    }
}

impl<'a> From<&'a Frame> for Push<'a> {
    fn from(frame: &'a Frame) -> Push<'a> {
        Push { content: Content::Frame(frame), except: &[], key: None }
    }
}

/// What became of a push to one connection. `Queued` means that it is in the connection's queue, in order, and will be
/// written unless the connection ends first; not that the client has it, which TCP cannot promise.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// In the queue.
    Queued,
    /// Not queued: the queue is full and the policy for slow readers dropped the message or closed the connection.
    Dropped,
    /// There is no such connection, or not any more: never was, closed, closing, or not a WebSocket (yet).
    Gone,
    /// Not queued, and never will be: the frame is longer than `queue_bytes_max`. The connection goes on.
    TooLarge,
    /// Not sent, whoever were there: a ping over 125 bytes, a close reason over 123 bytes, or a close code that RFC 6455
    /// section 7.4 does not let anyone send.
    Refused,
}

impl Outcome {
    /// Whether the message is in the queue.
    pub fn is_queued(self) -> bool {
        self == Outcome::Queued
    }
}

/// What became of a push to many.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Delivery {
    /// Connections that it was meant for, less those excepted.
    pub matched: usize,
    /// Of these, how many have it in their queue.
    pub queued: usize,
    /// Of these, how many have not: `matched == queued + dropped`.
    pub dropped: usize,
}

impl Delivery {
    pub(crate) fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Queued => self.queued += 1,
            Outcome::Dropped | Outcome::TooLarge | Outcome::Refused => self.dropped += 1,
            Outcome::Gone => return,
        }
        self.matched += 1;
    }
}

impl std::ops::AddAssign for Delivery {
    fn add_assign(&mut self, other: Delivery) {
        self.matched += other.matched;
        self.queued += other.queued;
        self.dropped += other.dropped;
    }
}
