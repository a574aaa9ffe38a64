//! The server's handle for other threads.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use crate::connection::{AbortOutcome, CloseOutcome};
use crate::event_loop::{Command, Context, Info, Rejected, Sender, Stats};
use crate::fd::Fd;
use crate::message::{Content, Delivery, Message, Outcome, Push};
use crate::protocol::close::CloseCode;
use crate::protocol::shared::Frame;
use crate::registry::Change;

/// A handle on a server for other threads. A clone is cheap.
///
/// The methods are actions of [`Context`]. Each method puts a command into the server's inbox and returns a [`Reply`]
/// at once. A reply can be waited for, awaited or dropped. The loop carries out the commands of one thread in order,
/// also commands that were sent before [`Server::run`](crate::Server::run). A message is encoded on the calling thread.
///
/// The inbox is bounded by [`Limits::inbox_max`](crate::Limits::inbox_max). A command that a full inbox rejects has no
/// effect, and its reply is [`RemoteError::Full`].
///
/// ```no_run
/// use fdpush::{RemoteError, Server};
///
/// let server = Server::bind("127.0.0.1:9501")?.on_open(|ctx, fd, _request| {
///     ctx.bind(fd, "10010");
/// });
/// let remote = server.remote();
/// std::thread::spawn(move || {
///     let delivery = remote.push_uid("10010", "hello").wait()?;
///     println!("queued for {} connections", delivery.queued);
///     remote.shutdown()
/// });
/// server.run()
/// # ; Ok::<(), fdpush::Error>(())
/// ```
#[derive(Clone)]
pub struct Remote {
    sender: Sender<Command>,
}

/// The pending result of a command.
///
/// [`wait`](Reply::wait) blocks the thread until the result is ready. An async task awaits the reply, on any executor:
///
/// ```
/// # use fdpush::{Delivery, Remote, RemoteError};
/// async fn greet(remote: &Remote, uid: &str) -> Result<Delivery, RemoteError> {
///     remote.push_uid(uid, "hello").await
/// }
/// ```
///
/// Dropping a reply does not cancel the command.
#[derive(Debug)]
#[must_use = "if the result is not needed, drop the reply with `let _ =`"]
pub struct Reply<T> {
    /// The error means that the command was not sent.
    receiver: Result<oneshot::Receiver<Result<T, RemoteError>>, RemoteError>,
    sender: Sender<Command>,
}

/// The future of a [`Reply`], for combinators that take no `IntoFuture`.
///
/// A drop of the future does not cancel the command.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ReplyFuture<T> {
    receiver: Result<oneshot::AsyncReceiver<Result<T, RemoteError>>, RemoteError>,
}

/// The reason why a command has no result.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RemoteError {
    /// [`Limits::inbox_max`](crate::Limits::inbox_max) commands wait for the loop. The command has no effect.
    Full,
    /// The server has ended. The command has no effect.
    Closed,
    /// The command panicked on the loop's thread. The command may have taken effect in part. The server goes on.
    Panicked,
    /// The result did not come in time. The command may still be carried out.
    TimedOut,
    /// The loop's own thread called [`Reply::wait`], where the call would block forever. Inside a handler, use the
    /// [`Context`] of the handler.
    OwnThread,
}

impl Remote {
    pub(crate) fn new(sender: Sender<Command>) -> Remote {
        Remote { sender }
    }

    /// Runs `call` on the loop's thread, like a handler.
    ///
    /// Use `call` for an action that has no method here, for instance `remote.call(move |ctx| ctx.protect(fd))`. The
    /// other methods are short forms of `call`.
    pub fn call<T: Send + 'static>(&self, call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static) -> Reply<T> {
        let (sender, receiver) = oneshot::channel();
        let command = Command::Call(Box::new(move |ctx| {
            // The send fails if the receiver was dropped.
            match catch_unwind(AssertUnwindSafe(|| call(ctx))) {
                Ok(value) => drop(sender.send(Ok(value))),
                Err(panic) => {
                    drop(sender.send(Err(RemoteError::Panicked)));
                    // The loop logs the panic.
                    resume_unwind(panic)
                }
            }
        }));
        Reply { receiver: self.send(command).map(|()| receiver), sender: self.sender.clone() }
    }

    /// See [`Context::push`]. The message is encoded here, on the calling thread.
    pub fn push<'p>(&self, fd: Fd, push: impl Into<Push<'p>>) -> Reply<Outcome> {
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.push(fd, push.as_push()))
    }

    /// See [`Context::push_fds`].
    pub fn push_fds<'p>(&self, fds: impl IntoIterator<Item = Fd>, push: impl Into<Push<'p>>) -> Reply<Delivery> {
        let fds: Vec<Fd> = fds.into_iter().collect();
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.push_fds(fds, push.as_push()))
    }

    /// See [`Context::push_uid`].
    pub fn push_uid<'p>(&self, uid: &str, push: impl Into<Push<'p>>) -> Reply<Delivery> {
        self.push_uids([uid], push)
    }

    /// See [`Context::push_uids`].
    pub fn push_uids<'p>(
        &self,
        uids: impl IntoIterator<Item = impl AsRef<str>>,
        push: impl Into<Push<'p>>,
    ) -> Reply<Delivery> {
        let uids = owned(uids);
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.push_uids(uids, push.as_push()))
    }

    /// See [`Context::push_group`].
    pub fn push_group<'p>(&self, group: &str, push: impl Into<Push<'p>>) -> Reply<Delivery> {
        self.push_groups([group], push)
    }

    /// See [`Context::push_groups`].
    pub fn push_groups<'p>(
        &self,
        groups: impl IntoIterator<Item = impl AsRef<str>>,
        push: impl Into<Push<'p>>,
    ) -> Reply<Delivery> {
        let groups = owned(groups);
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.push_groups(groups, push.as_push()))
    }

    /// See [`Context::broadcast`].
    pub fn broadcast<'p>(&self, push: impl Into<Push<'p>>) -> Reply<Delivery> {
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.broadcast(push.as_push()))
    }

    /// See [`Context::bind`].
    pub fn bind(&self, fd: Fd, uid: impl Into<String>) -> Reply<Change> {
        let uid = uid.into();
        self.call(move |ctx| ctx.bind(fd, uid))
    }

    /// See [`Context::unbind`].
    pub fn unbind(&self, fd: Fd) -> Reply<Change> {
        self.call(move |ctx| ctx.unbind(fd))
    }

    /// See [`Context::uid_of`].
    pub fn uid_of(&self, fd: Fd) -> Reply<Option<String>> {
        self.call(move |ctx| ctx.uid_of(fd).map(str::to_owned))
    }

    /// See [`Context::groups_of`].
    pub fn groups_of(&self, fd: Fd) -> Reply<Vec<String>> {
        self.call(move |ctx| ctx.groups_of(fd).into_iter().map(str::to_owned).collect())
    }

    /// See [`Context::is_online`].
    pub fn is_online(&self, uid: impl Into<String>) -> Reply<bool> {
        let uid = uid.into();
        self.call(move |ctx| ctx.is_online(&uid))
    }

    /// See [`Context::fds_of`].
    pub fn fds_of(&self, uid: impl Into<String>) -> Reply<Vec<Fd>> {
        let uid = uid.into();
        self.call(move |ctx| ctx.fds_of(&uid))
    }

    /// See [`Context::join`].
    pub fn join(&self, fd: Fd, group: impl Into<String>) -> Reply<Change> {
        let group = group.into();
        self.call(move |ctx| ctx.join(fd, group))
    }

    /// See [`Context::leave`].
    pub fn leave(&self, fd: Fd, group: impl Into<String>) -> Reply<Change> {
        let group = group.into();
        self.call(move |ctx| ctx.leave(fd, &group))
    }

    /// See [`Context::ungroup`].
    pub fn ungroup(&self, group: impl Into<String>) -> Reply<usize> {
        let group = group.into();
        self.call(move |ctx| ctx.ungroup(&group))
    }

    /// See [`Context::members`].
    pub fn members(&self, group: impl Into<String>) -> Reply<Vec<Fd>> {
        let group = group.into();
        self.call(move |ctx| ctx.members(&group))
    }

    /// See [`Context::close`].
    pub fn close(&self, fd: Fd, code: impl Into<CloseCode>, reason: impl Into<String>) -> Reply<CloseOutcome> {
        let (code, reason) = (code.into(), reason.into());
        self.call(move |ctx| ctx.close(fd, code, &reason))
    }

    /// See [`Context::abort`].
    pub fn abort(&self, fd: Fd) -> Reply<AbortOutcome> {
        self.call(move |ctx| ctx.abort(fd))
    }

    /// See [`Context::ping`].
    pub fn ping(&self, fd: Fd, payload: impl Into<Vec<u8>>) -> Reply<Outcome> {
        let payload = payload.into();
        self.call(move |ctx| ctx.ping(fd, &payload))
    }

    /// See [`Context::is_open`].
    pub fn is_open(&self, fd: Fd) -> Reply<bool> {
        self.call(move |ctx| ctx.is_open(fd))
    }

    /// See [`Context::info`].
    pub fn info(&self, fd: Fd) -> Reply<Option<Info>> {
        self.call(move |ctx| ctx.info(fd))
    }

    /// See [`Context::connections`].
    pub fn connections(&self) -> Reply<Vec<Fd>> {
        self.call(|ctx| ctx.connections().collect())
    }

    /// See [`Context::connections_after`].
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Reply<Vec<Fd>> {
        self.call(move |ctx| ctx.connections_after(after, limit))
    }

    /// See [`Context::stats`].
    pub fn stats(&self) -> Reply<Stats> {
        self.call(|ctx| ctx.stats())
    }

    /// Sends a notice to the handler's [`on_notice`](crate::Handler::on_notice).
    ///
    /// # Errors
    /// [`RemoteError::Full`], [`RemoteError::Closed`].
    pub fn notify(&self, notice: impl Any + Send) -> Result<(), RemoteError> {
        self.send(Command::Notice(Box::new(notice)))
    }

    /// Shuts the server down: see [`Context::shutdown`].
    ///
    /// Commands that were sent before the shutdown run first. A full inbox does not reject a shutdown. A second call
    /// does nothing.
    ///
    /// # Errors
    /// The error is [`RemoteError::Closed`] if the server has ended already.
    pub fn shutdown(&self) -> Result<(), RemoteError> {
        self.sender.send_last(Command::Shutdown).map_err(RemoteError::from)
    }

    fn send(&self, command: Command) -> Result<(), RemoteError> {
        self.sender.send(command).map_err(RemoteError::from)
    }
}

impl<T> Reply<T> {
    /// Blocks the thread until the loop has carried out the command.
    ///
    /// The server carries out commands only while it runs. Do not wait on the thread that calls
    /// [`Server::run`](crate::Server::run) later.
    ///
    /// # Errors
    /// [`Full`](RemoteError::Full), [`Closed`](RemoteError::Closed), [`Panicked`](RemoteError::Panicked). On the loop's
    /// own thread, `wait` returns [`OwnThread`](RemoteError::OwnThread) at once, and the command is carried out later.
    pub fn wait(self) -> Result<T, RemoteError> {
        self.check_thread()?;
        self.receiver?.recv().unwrap_or(Err(RemoteError::Closed))
    }

    /// Blocks the thread for at most `timeout`.
    ///
    /// # Errors
    /// The errors of [`wait`](Reply::wait), and [`TimedOut`](RemoteError::TimedOut).
    pub fn wait_timeout(self, timeout: Duration) -> Result<T, RemoteError> {
        self.check_thread()?;
        self.receiver?.recv_timeout(timeout).unwrap_or_else(|error| match error {
            oneshot::RecvTimeoutError::Timeout => Err(RemoteError::TimedOut),
            oneshot::RecvTimeoutError::Disconnected => Err(RemoteError::Closed),
        })
    }

    /// Returns the reply if the inbox accepted the command, without waiting.
    ///
    /// A producer that needs no results can use the error to slow down: `remote.broadcast(text).sent()?`.
    ///
    /// # Errors
    /// [`Full`](RemoteError::Full), [`Closed`](RemoteError::Closed).
    pub fn sent(self) -> Result<Reply<T>, RemoteError> {
        match self.receiver {
            Ok(_) => Ok(self),
            Err(error) => Err(error),
        }
    }

    fn check_thread(&self) -> Result<(), RemoteError> {
        if self.sender.is_own_thread() { Err(RemoteError::OwnThread) } else { Ok(()) }
    }
}

impl<T> IntoFuture for Reply<T> {
    type Output = Result<T, RemoteError>;
    type IntoFuture = ReplyFuture<T>;

    fn into_future(self) -> ReplyFuture<T> {
        ReplyFuture { receiver: self.receiver.map(IntoFuture::into_future) }
    }
}

impl<T> Future for ReplyFuture<T> {
    type Output = Result<T, RemoteError>;

    /// # Errors
    /// [`Full`](RemoteError::Full), [`Closed`](RemoteError::Closed), [`Panicked`](RemoteError::Panicked).
    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match &mut self.receiver {
            Ok(receiver) => Pin::new(receiver).poll(cx).map(|result| result.unwrap_or(Err(RemoteError::Closed))),
            Err(error) => Poll::Ready(Err(*error)),
        }
    }
}

impl From<Rejected> for RemoteError {
    fn from(rejected: Rejected) -> RemoteError {
        match rejected {
            Rejected::Full => RemoteError::Full,
            Rejected::Closed => RemoteError::Closed,
        }
    }
}

/// A push that owns its data.
struct OwnedPush {
    frame: Frame,
    except: Vec<Fd>,
    key: Option<String>,
    may_compress: bool,
}

impl OwnedPush {
    fn as_push(&self) -> Push<'_> {
        let OwnedPush { frame, except, key, may_compress } = self;
        Push { content: Content::Frame(frame), except, key: key.as_deref(), may_compress: *may_compress }
    }
}

impl From<Push<'_>> for OwnedPush {
    fn from(push: Push<'_>) -> OwnedPush {
        let frame = match push.content {
            Content::Message(Message::Text(text)) => Frame::text(text),
            Content::Message(Message::Binary(bytes)) => Frame::binary(bytes),
            Content::Frame(frame) => frame.clone(),
        };
        let key = push.key.map(str::to_owned);
        OwnedPush { frame, except: push.except.to_vec(), key, may_compress: push.may_compress }
    }
}

fn owned(names: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    names.into_iter().map(|name| name.as_ref().to_owned()).collect()
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoteError::Full => "inbox of the server is full",
            RemoteError::Closed => "server has ended",
            RemoteError::Panicked => "command panicked",
            RemoteError::TimedOut => "reply timed out",
            RemoteError::OwnThread => "cannot wait for a reply on the loop's own thread",
        })
    }
}

impl std::error::Error for RemoteError {}
