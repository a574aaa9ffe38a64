//! Messages from one loop to another.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use compact_str::CompactString;

use crate::event_loop::siblings::admission::Place;
use crate::event_loop::siblings::report::Report;
use crate::fd::Fd;
use crate::limits::Heartbeat;
use crate::message::{Content, Push};
use crate::peer::Peer;
use crate::protocol::close::CloseCode;
use crate::protocol::frame::Opcode;
use crate::protocol::shared::Frame;

/// The longest payload that is copied into each batch, in bytes. A longer message is encoded once, and all batches
/// share its frame.
const COPIED_BYTES_MAX: usize = 512;

/// The maximum memory, in bytes, that an empty batch may keep for posts, and the same for payloads.
///
/// Each pair of loops keeps at most one batch, so the memory grows with the square of the number of loops.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// The maximum number of posts that [`Batch::append`] moves. The inbox is locked during the move.
const APPENDED_MAX: usize = 32;

/// The maximum number of payload bytes of a batch to which [`Batch::append`] adds posts.
const APPENDED_BYTES_MAX: usize = 1 << 20;

/// The memory of a batch without its posts and payloads, in bytes.
const BATCH_BYTES: usize = 512;

/// Posts of one loop to another, in order.
#[derive(Debug, Default)]
pub struct Batch {
    posts: VecDeque<Post>,
    /// The payloads of short messages.
    payloads: Vec<u8>,
    /// The counted memory of the posts: the memory that counts towards
    /// [`forward_bytes_max`](crate::Limits::forward_bytes_max), in bytes.
    ///
    /// Kicks and accepted sockets do not count, because the number of connections bounds these posts.
    bytes: usize,
}

/// A message from one loop to another.
#[derive(Debug)]
pub enum Post {
    Push(PostedPush),
    /// A change of a connection.
    Change(Fd, ConnectionChange),
    /// Closes several connections.
    CloseFds(Vec<Fd>, CloseCode, Box<str>),
    /// Removes all members from a group.
    Ungroup(CompactString),
    /// An accepted socket.
    Socket(Box<AcceptedSocket>),
}

/// The receivers of a push on another loop.
#[derive(Debug)]
pub enum Target {
    Fd(Fd),
    Fds(Vec<Fd>),
    Uid(CompactString),
    Uids(Vec<CompactString>),
    Group(CompactString),
    Groups(Vec<CompactString>),
    All,
}

/// A push to connections of another loop.
#[derive(Debug)]
pub struct PostedPush {
    pub target: Target,
    content: PostedContent,
    except: Vec<Fd>,
    key: Option<Box<str>>,
    may_compress: bool,
    /// The report that gets the counts of the push.
    pub report: Option<Report>,
}

#[derive(Debug)]
enum PostedContent {
    /// A message in the payloads of the batch.
    Copied {
        opcode: Opcode,
        start: u32,
        end: u32,
    },
    Shared(Frame),
}

/// A change of a connection on another loop.
#[derive(Debug)]
pub enum ConnectionChange {
    Bind(CompactString),
    Unbind,
    Join(CompactString),
    Leave(CompactString),
    Close(CloseCode, Box<str>),
    Abort,
    Ping(Box<[u8]>),
    SetHeartbeat(Option<Heartbeat>),
    SetPaused(bool),
    /// Closes a connection that a later login has replaced.
    ///
    /// The connection stays open if it has another uid, or owns the uid again.
    Kick(CompactString),
}

/// A socket that another loop accepted.
#[derive(Debug)]
pub struct AcceptedSocket {
    pub socket: OwnedFd,
    pub peer: Peer,
    /// The index of the listener in the list of endpoints.
    pub listener: usize,
    pub place: Place,
}

/// A push that is forwarded to one or more loops.
#[derive(Debug)]
pub struct ForwardedPush<'a> {
    push: Push<'a>,
    /// The encoded message, which several loops share. The field is `None` until the push is added to a first batch
    /// that needs a frame.
    frame: Option<Frame>,
}

impl Batch {
    /// Returns the counted memory of the posts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether there are no posts.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    /// Adds a post.
    pub fn add(&mut self, post: Post) {
        self.bytes += post.bytes();
        self.posts.push_back(post);
    }

    /// Counts the memory of the batch itself.
    pub fn count_batch(&mut self) {
        self.bytes += BATCH_BYTES;
    }

    /// Moves the posts of `later` to the end of this batch, if the posts are few. Returns whether the posts were moved.
    pub fn append(&mut self, later: &mut Batch) -> bool {
        if later.posts.len() > APPENDED_MAX || self.payloads.len() + later.payloads.len() > APPENDED_BYTES_MAX {
            return false;
        }
        let before = self.payloads.len() as u32;
        self.payloads.append(&mut later.payloads);
        for mut post in later.posts.drain(..) {
            if let Post::Push(PostedPush { content: PostedContent::Copied { start, end, .. }, .. }) = &mut post {
                *start += before;
                *end += before;
            }
            self.posts.push_back(post);
        }
        self.bytes += std::mem::take(&mut later.bytes);
        true
    }

    /// Adds a push. `except` is a list of excluded connections of the receiving loop.
    pub fn add_push(
        &mut self,
        target: Target,
        except: Vec<Fd>,
        message: &mut ForwardedPush<'_>,
        report: Option<Report>,
    ) {
        let content = match message.push.content {
            Content::Payload(opcode, payload) if payload.len() <= COPIED_BYTES_MAX => {
                let start = self.payloads.len() as u32;
                self.payloads.extend_from_slice(payload);
                PostedContent::Copied { opcode, start, end: self.payloads.len() as u32 }
            }
            content => PostedContent::Shared(message.frame.get_or_insert_with(|| content.to_frame()).clone()),
        };
        self.bytes += message.bytes(&target, except.len());
        let (key, may_compress) = (message.push.key.map(Box::from), message.push.may_compress);
        self.posts.push_back(Post::Push(PostedPush { target, content, except, key, may_compress, report }));
    }

    /// Removes the first post.
    pub fn pop(&mut self) -> Option<Post> {
        self.posts.pop_front()
    }

    /// Returns the payloads of the posts.
    pub fn payloads(&self) -> &[u8] {
        &self.payloads
    }

    /// Removes all posts. Returns whether the memory of the batch is small enough to be kept.
    pub fn clear(&mut self) -> bool {
        self.posts.clear();
        self.payloads.clear();
        self.bytes = 0;
        self.payloads.capacity() <= KEPT_BYTES_MAX && self.posts.capacity() * size_of::<Post>() <= KEPT_BYTES_MAX
    }
}

impl Post {
    /// Returns the counted memory of the post.
    pub fn bytes(&self) -> usize {
        let more = match self {
            // Each kick closes one connection, and each socket has a `Place`. So the number of connections bounds
            // these posts.
            Post::Change(_, ConnectionChange::Kick(_)) | Post::Socket(_) => return 0,
            Post::Push(_) => 0,
            Post::Change(_, change) => change.bytes(),
            Post::CloseFds(fds, _, reason) => size_of_val(&**fds) + reason.len(),
            Post::Ungroup(group) => group.len(),
        };
        size_of::<Post>() + more
    }

    /// Returns whether the post can add a uid or a group to a connection of the receiving loop.
    pub fn adds_names(&self) -> bool {
        matches!(self, Post::Change(_, ConnectionChange::Bind(_) | ConnectionChange::Join(_)))
    }
}

impl ConnectionChange {
    /// Returns the memory of the names, reasons and payloads that the value refers to, in bytes.
    fn bytes(&self) -> usize {
        match self {
            ConnectionChange::Bind(name)
            | ConnectionChange::Join(name)
            | ConnectionChange::Leave(name)
            | ConnectionChange::Kick(name) => name.len(),
            ConnectionChange::Close(_, reason) => reason.len(),
            ConnectionChange::Ping(payload) => payload.len(),
            ConnectionChange::Unbind
            | ConnectionChange::Abort
            | ConnectionChange::SetHeartbeat(_)
            | ConnectionChange::SetPaused(_) => 0,
        }
    }
}

impl Target {
    fn bytes(&self) -> usize {
        let of = |names: &[CompactString]| names.iter().map(|name| size_of::<CompactString>() + name.len()).sum();
        match self {
            Target::Fd(_) | Target::All => 0,
            Target::Fds(fds) => size_of_val(&**fds),
            Target::Uid(name) | Target::Group(name) => name.len(),
            Target::Uids(names) | Target::Groups(names) => of(names),
        }
    }
}

impl<'a> ForwardedPush<'a> {
    pub fn new(push: Push<'a>) -> ForwardedPush<'a> {
        ForwardedPush { push, frame: None }
    }

    /// Returns the excluded connections.
    pub fn except(&self) -> &'a [Fd] {
        self.push.except
    }

    /// Returns the counted memory of a post of this push.
    ///
    /// A shared message counts for each loop, because one loop may keep the message longer than another loop.
    pub fn bytes(&self, target: &Target, excepted: usize) -> usize {
        let key = self.push.key.map_or(0, str::len);
        size_of::<Post>() + target.bytes() + excepted * size_of::<Fd>() + key + self.push.content.len()
    }
}

impl PostedPush {
    /// Returns the push. `payloads` are the payloads of the batch.
    pub fn push<'a>(&'a self, payloads: &'a [u8]) -> Push<'a> {
        let content = match &self.content {
            PostedContent::Copied { opcode, start, end } => {
                Content::Payload(*opcode, payloads.get(*start as usize..*end as usize).unwrap_or_default())
            }
            PostedContent::Shared(frame) => Content::Frame(frame),
        };
        Push { content, except: &self.except, key: self.key.as_deref(), may_compress: self.may_compress }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(batch: &mut Batch, text: &str) {
        batch.add_push(Target::All, Vec::new(), &mut ForwardedPush::new(Push::from(text)), None);
    }

    fn texts(batch: &mut Batch) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(post) = batch.pop() {
            let Post::Push(posted) = post else { panic!("{post:?} was not added") };
            let text = match posted.push(batch.payloads()).content {
                Content::Payload(_, payload) => String::from_utf8_lossy(payload).into_owned(),
                Content::Frame(frame) => format!("a frame of {} bytes", frame.as_bytes().len()),
            };
            texts.push(text);
        }
        texts
    }

    #[test]
    fn an_appended_batch_keeps_its_order_and_its_payloads() {
        let (mut first, mut second) = (Batch::default(), Batch::default());
        add(&mut first, "first");
        add(&mut second, "second");
        add(&mut second, &"x".repeat(COPIED_BYTES_MAX + 1));
        add(&mut second, "third");
        let bytes = first.bytes() + second.bytes();
        assert!(first.append(&mut second) && second.is_empty());
        assert_eq!((first.bytes(), second.bytes(), second.payloads().len()), (bytes, 0, 0));
        add(&mut first, "fourth");
        assert_eq!(texts(&mut first), ["first", "second", "a frame of 517 bytes", "third", "fourth"]);
        assert!(first.clear() && first.bytes() == 0);
    }

    #[test]
    fn a_batch_of_many_posts_is_not_appended_to_another_batch() {
        let (mut first, mut second) = (Batch::default(), Batch::default());
        add(&mut first, "first");
        (0..=APPENDED_MAX).for_each(|_| add(&mut second, "x"));
        assert!(!first.append(&mut second));
        assert_eq!((texts(&mut first).len(), texts(&mut second).len()), (1, APPENDED_MAX + 1));
    }

    #[test]
    fn kicks_do_not_count_and_other_posts_count_their_memory() {
        let fd = Fd::from_u64(1).expect("a valid fd");
        let change = |change| Post::Change(fd, change).bytes();
        assert_eq!(change(ConnectionChange::Kick("u".into())), 0);
        assert!(change(ConnectionChange::Bind("u".into())) > change(ConnectionChange::Unbind));
        assert!(Post::Ungroup("g".into()).bytes() > size_of::<Post>());
        assert!(Post::CloseFds(vec![fd; 10], CloseCode::NORMAL, "".into()).bytes() >= 80);
    }
}
