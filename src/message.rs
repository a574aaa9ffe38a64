//! Pushes: a message with its options, and the result of sending it.

use crate::fd::Fd;
use crate::protocol::frame::Opcode;
use crate::protocol::shared::Frame;

pub use crate::protocol::message::Message;

impl<'a> Message<'a> {
    /// Excludes connections from the push: `ctx.broadcast(message.except(&[fd]))`.
    pub fn except(self, fds: &'a [Fd]) -> Push<'a> {
        Push::from(self).except(fds)
    }

    /// Sets the conflation key: see [`Push::key`].
    pub fn key(self, key: &'a str) -> Push<'a> {
        Push::from(self).key(key)
    }

    /// Sets whether the message may be deflated: see [`Push::compress`].
    pub fn compress(self, may_compress: bool) -> Push<'a> {
        Push::from(self).compress(may_compress)
    }
}

/// A message and the options of its push.
///
/// Every method that takes a `Push` also takes a [`Message`], a `&str`, a `&[u8]` or a `&`[`Frame`]. These values are
/// borrowed, so a new `String` is passed as `&format!(…)`. [`IntoPush`] adds the options to all of these types.
#[derive(Copy, Clone, Debug)]
pub struct Push<'a> {
    pub(crate) content: Content<'a>,
    pub(crate) except: &'a [Fd],
    pub(crate) key: Option<&'a str>,
    pub(crate) may_compress: bool,
}

/// The payload of a push: a message, or an encoded frame.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Content<'a> {
    /// A text or binary message. The payload of a text is UTF-8.
    Payload(Opcode, &'a [u8]),
    Frame(&'a Frame),
}

impl Content<'_> {
    /// Returns the length of the payload, or of the encoded frame.
    pub(crate) fn len(&self) -> usize {
        match self {
            Content::Payload(_, payload) => payload.len(),
            Content::Frame(frame) => frame.as_bytes().len(),
        }
    }

    /// Returns the encoded frame.
    pub(crate) fn to_frame(self) -> Frame {
        match self {
            Content::Payload(opcode, payload) => Frame::encode(opcode, payload),
            Content::Frame(frame) => frame.clone(),
        }
    }
}

impl<'a> Push<'a> {
    /// Excludes connections, for instance the sender of the message.
    pub fn except(mut self, fds: &'a [Fd]) -> Push<'a> {
        self.except = fds;
        self
    }

    /// Sets the conflation key.
    ///
    /// Under the slow-consumer policy [`SlowReader::Conflate`](crate::SlowReader::Conflate), a message that does not
    /// fit into the queue replaces the unsent message that has the same key. The bytes of the key count towards the
    /// limits of the queues. With any other policy the key has no effect.
    pub fn key(mut self, key: &'a str) -> Push<'a> {
        self.key = Some(key);
        self
    }

    /// Sets whether the message may be deflated for clients that negotiated permessage-deflate.
    ///
    /// The default is `true`. Turn compression off for data that is compressed already, and for a message that contains
    /// both a secret and text from an attacker. The compressed length of such a message reveals something about the
    /// secret, as in the CRIME and BREACH attacks.
    pub fn compress(mut self, may_compress: bool) -> Push<'a> {
        self.may_compress = may_compress;
        self
    }
}

/// Turns a text, bytes, a message or a frame into a push with options.
///
/// The value is borrowed, not consumed.
///
/// ```
/// use std::borrow::Cow;
/// use std::rc::Rc;
/// use std::sync::Arc;
///
/// use fdpush::{Context, Fd, Frame, IntoPush, Message};
///
/// fn notify_others(ctx: &mut Context<'_>, fd: Fd) {
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
///     // A received message, and a frame that is already encoded.
///     ctx.broadcast(Message::Text("hello").except(&[fd]));
///     let frame = Frame::text("hello");
///     ctx.broadcast((&frame).except(&[fd]));
///     ctx.broadcast(frame.except(&[fd]).key("greeting"));
///     // Without options, borrow the value.
///     ctx.push(fd, &format!("you are {fd}"));
///     ctx.push(fd, &Cow::from("hello"));
///     ctx.push(fd, b"bytes");
/// }
/// ```
pub trait IntoPush<'a>: Into<Push<'a>> {
    /// Excludes connections: see [`Push::except`].
    fn except(self, fds: &'a [Fd]) -> Push<'a> {
        self.into().except(fds)
    }

    /// Sets the conflation key: see [`Push::key`].
    fn key(self, key: &'a str) -> Push<'a> {
        self.into().key(key)
    }

    /// Sets whether the message may be deflated: see [`Push::compress`].
    fn compress(self, may_compress: bool) -> Push<'a> {
        self.into().compress(may_compress)
    }
}

impl<'a, P: Into<Push<'a>>> IntoPush<'a> for P {}

impl<'a, M: Into<Message<'a>>> From<M> for Push<'a> {
    fn from(message: M) -> Push<'a> {
        let content = match message.into() {
            Message::Text(text) => Content::Payload(Opcode::Text, text.as_bytes()),
            Message::Binary(bytes) => Content::Payload(Opcode::Binary, bytes),
        };
        Push { content, except: &[], key: None, may_compress: true }
    }
}

impl<'a> From<&'a Frame> for Push<'a> {
    fn from(frame: &'a Frame) -> Push<'a> {
        Push { content: Content::Frame(frame), except: &[], key: None, may_compress: true }
    }
}

/// The result of a push to one connection.
///
/// `Queued` means that the message is in the queue of the connection. The message is written unless the connection ends
/// first, or the queues together reach [`queue_total_bytes_max`](crate::Limits::queue_total_bytes_max) and this queue
/// is among the longest. `Queued` does not mean that the client received the message: TCP does not report this to the
/// server.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The message is in the queue.
    Queued,
    /// The message was not queued, because a limit on the length of queues is reached.
    ///
    /// The queue of the connection is full, or all queues together are full and this queue is among the longest. The
    /// slow-consumer policy dropped the message or closed the connection.
    Dropped,
    /// No open WebSocket has this fd.
    ///
    /// The fd was never assigned, or the connection is closed, closing, or not upgraded. The outcome is also `Gone` if
    /// the push [excludes](Push::except) the connection.
    Gone,
    /// The message was not queued: the frame is longer than `queue_bytes_max`, or the payload of a ping exceeds 125
    /// bytes.
    ///
    /// The connection stays open.
    TooLarge,
    /// The fd belongs to another [loop](crate::Server::loops), and the message was sent to that loop.
    ///
    /// The outcome on that loop is not known yet. [`Remote::push`](crate::Remote::push) returns the outcome of that
    /// loop.
    Forwarded,
}

impl Outcome {
    /// Returns whether the message is in the queue.
    pub fn is_queued(self) -> bool {
        self == Outcome::Queued
    }
}

/// The result of a push to many connections.
///
/// `matched == queued + dropped`. With several [loops](crate::Server::loops), a push of a handler returns before the
/// other loops have taken the message. The counts of such a push are the counts of the handler's own loop, and
/// `forwarded` is not 0. The results of [`Remote`](crate::Remote) count all loops.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub struct Delivery {
    /// The number of connections that the push addresses. [Excluded](Push::except) connections are not counted.
    pub matched: usize,
    /// The number of connections whose queue took the message.
    pub queued: usize,
    /// The number of connections whose queue did not take the message.
    pub dropped: usize,
    /// The number of other loops to which the message was sent. The counts of these loops are not included in this
    /// `Delivery`.
    ///
    /// A loop gets the message only if it has connections that the push addresses, or if a bind or a join from this
    /// loop is still on its way to that loop. If the message does not fit into
    /// [`forward_bytes_max`](crate::Limits::forward_bytes_max), the message is not sent to that loop, and the addressed
    /// connections of that loop count as matched and dropped. In these counts, a connection in several addressed groups
    /// counts once for each of these groups, and excluded connections and closed fds are included. With one loop,
    /// `forwarded` is 0.
    pub forwarded: usize,
}

impl Delivery {
    /// Creates a result from the counts of queued and dropped messages. `matched` is the sum of both counts.
    pub fn new(queued: usize, dropped: usize) -> Delivery {
        Delivery { matched: queued + dropped, queued, dropped, forwarded: 0 }
    }

    #[inline]
    pub(crate) fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Queued => self.queued += 1,
            Outcome::Dropped | Outcome::TooLarge => self.dropped += 1,
            Outcome::Gone => return,
            Outcome::Forwarded => {
                self.forwarded += 1;
                return;
            }
        }
        self.matched += 1;
    }
}

impl std::ops::AddAssign for Delivery {
    fn add_assign(&mut self, other: Delivery) {
        self.matched += other.matched;
        self.queued += other.queued;
        self.dropped += other.dropped;
        self.forwarded += other.forwarded;
    }
}
