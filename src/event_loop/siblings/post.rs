//! Messages from one loop to another.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use compact_str::CompactString;

use crate::event_loop::siblings::admission::Place;
use crate::fd::Fd;
use crate::limits::Heartbeat;
use crate::message::{Content, Push};
use crate::peer::Peer;
use crate::protocol::close::CloseCode;
use crate::protocol::frame::Opcode;
use crate::protocol::shared::Frame;

/// The longest payload that is copied into each batch. A longer message is encoded once, and the batches share it.
const COPIED_BYTES_MAX: usize = 512;

/// The memory of payloads up to which an empty batch is kept.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// The posts of one turn to one loop.
#[derive(Debug, Default)]
pub struct Batch {
    posts: VecDeque<Post>,
    /// The payloads of short messages.
    payloads: Vec<u8>,
    /// The counted memory of the posts.
    bytes: usize,
}

/// A message from one loop to another.
#[derive(Debug)]
pub enum Post {
    Push(PostedPush),
    /// A change of a connection.
    Change(Fd, ConnectionChange),
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
    /// Closes the connection, because a later login has replaced it, unless it has another uid or owns the uid again.
    Kick(CompactString),
}

/// A socket that another loop accepted.
#[derive(Debug)]
pub struct AcceptedSocket {
    pub socket: OwnedFd,
    pub peer: Peer,
    /// The index of the listener.
    pub listener: usize,
    pub place: Place,
}

/// A push that is forwarded to one or more loops.
#[derive(Debug)]
pub struct ForwardedPush<'a> {
    push: Push<'a>,
    /// The encoded message, after the first loop that shares it.
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

    /// Adds a push. `except` is a list of excluded connections of the receiving loop.
    pub fn add_push(&mut self, target: Target, except: Vec<Fd>, message: &mut ForwardedPush<'_>) {
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
        self.posts.push_back(Post::Push(PostedPush { target, content, except, key, may_compress }));
    }

    /// Removes the first post.
    pub fn pop(&mut self) -> Option<Post> {
        self.posts.pop_front()
    }

    /// Returns the payloads of the posts.
    pub fn payloads(&self) -> &[u8] {
        &self.payloads
    }

    /// Removes all posts. Returns whether the memory is worth keeping.
    pub fn clear(&mut self) -> bool {
        self.posts.clear();
        self.payloads.clear();
        self.bytes = 0;
        self.payloads.capacity() <= KEPT_BYTES_MAX && self.posts.capacity() * size_of::<Post>() <= KEPT_BYTES_MAX
    }
}

impl Post {
    fn bytes(&self) -> usize {
        let more = match self {
            Post::Push(_) | Post::Ungroup(_) => 0,
            Post::Change(_, change) => change.bytes(),
            Post::Socket(_) => size_of::<AcceptedSocket>(),
        };
        size_of::<Post>() + more
    }
}

impl ConnectionChange {
    /// Returns the memory besides the size of the value.
    pub fn bytes(&self) -> usize {
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

    /// Returns the memory of a post with this change.
    pub fn post_bytes(&self) -> usize {
        size_of::<Post>() + self.bytes()
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
    /// A shared message counts for each loop, because one loop may keep it longer than the others.
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
