//! The server's handle for other threads.

mod error;
mod gather;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use crate::connection::{AbortOutcome, CloseOutcome};
use crate::event_loop::{Command, Context, Fleet, Info, Sender, Stats};
use crate::fd::Fd;
use crate::message::{Content, Delivery, Outcome, Push};
use crate::protocol::close::CloseCode;
use crate::protocol::shared::Frame;
use crate::registry::Change;

pub use self::error::RemoteError;

use self::gather::Gather;

/// A handle on a server for other threads. A clone is cheap.
///
/// The methods are actions of [`Context`]. Each method puts a command into the server's inbox and returns a [`Reply`]
/// at once. A reply can be waited for, awaited or dropped. The loop carries out the commands of one thread in order,
/// also commands that were sent before [`Server::run`](crate::Server::run). A message is encoded on the calling thread.
///
/// The inbox is bounded by [`Limits::inbox_max`](crate::Limits::inbox_max). A command that a full inbox rejects has no
/// effect, and its reply is [`RemoteError::Full`].
///
/// With several [loops](crate::Server::loops), each loop has an inbox. A command for one connection goes to the loop of its
/// fd. A command for uids, groups or all connections goes to all loops, and the reply is ready when all loops have carried
/// it out: counts are sums, and lists have the connections of all loops. [`call`](Remote::call) and
/// [`notify`](Remote::notify) go to one loop: the first, or the loop whose [`Context::remote`] made the handle.
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
    /// The inbox for calls and notices.
    home: Sender<Command>,
    /// The inboxes of all loops.
    fleet: Fleet<Command>,
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
    remote: Remote,
}

/// The future of a [`Reply`], for combinators that take no `IntoFuture`.
///
/// A drop of the future does not cancel the command.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ReplyFuture<T> {
    receiver: Result<oneshot::AsyncReceiver<Result<T, RemoteError>>, RemoteError>,
}

impl Remote {
    pub(crate) fn new(home: Sender<Command>, fleet: Fleet<Command>) -> Remote {
        Remote { home, fleet }
    }

    /// Runs `call` on the loop's thread, like a handler.
    ///
    /// Use `call` for an action that has no method here, for instance `remote.call(move |ctx| ctx.protect(fd))`. The
    /// other methods are short forms of `call`, [`call_at`](Remote::call_at) and [`call_each`](Remote::call_each). With
    /// several loops, `call` runs on the first loop, or on the loop whose [`Context::remote`] made the handle.
    pub fn call<T: Send + 'static>(&self, call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static) -> Reply<T> {
        let (job, receiver) = job(call);
        self.reply(self.home.send(Command::Call(job)).map_err(RemoteError::from), receiver)
    }

    /// Runs `call` on the loop of a connection, whether the connection exists or not.
    pub fn call_at<T: Send + 'static>(
        &self,
        fd: Fd,
        call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
    ) -> Reply<T> {
        let (job, receiver) = job(call);
        let sent = match self.fleet.sender_of(fd) {
            Some(sender) => sender.send(Command::Call(job)),
            // The server does not run yet. The first loop passes the command on.
            None => self.home.send(Command::Call(Box::new(move |ctx| pass_on(ctx, fd, job)))),
        };
        self.reply(sent.map_err(RemoteError::from), receiver)
    }

    /// Runs `call` on each loop, and returns the results in the order of loops.
    ///
    /// A loop that has ended, after an error or during a shutdown, has no result.
    pub fn call_each<T: Send + 'static>(
        &self,
        call: impl Fn(&mut Context<'_>) -> T + Send + Sync + 'static,
    ) -> Reply<Vec<T>> {
        self.gather(call, |parts| parts)
    }

    /// Runs `call` on each loop, and makes one result of all results.
    fn gather<T: Send + 'static, U: Send + 'static>(
        &self,
        call: impl Fn(&mut Context<'_>) -> T + Send + Sync + 'static,
        finish: impl FnOnce(Vec<T>) -> U + Send + 'static,
    ) -> Reply<U> {
        self.gather_unless(|_, _| false, call, finish)
    }

    /// Works like [`gather`](Remote::gather), and runs `call` on each loop once more if `is_missed` returns `true`.
    ///
    /// A user can change loops while the command runs: a new connection opens on a loop that has carried out its part, and
    /// the old connection closes on a loop that has not. The directory knows that the user was never offline. The further
    /// round reaches only connections that opened after the command was sent, so no other message is overtaken.
    fn gather_unless<T: Send + 'static, U: Send + 'static>(
        &self,
        is_missed: impl Fn(&Context<'_>, &[T]) -> bool + Send + 'static,
        call: impl Fn(&mut Context<'_>) -> T + Send + Sync + 'static,
        finish: impl FnOnce(Vec<T>) -> U + Send + 'static,
    ) -> Reply<U> {
        if let Some([_]) = self.fleet.senders() {
            return self.call(move |ctx| finish(vec![call(ctx)]));
        }
        let (sender, receiver) = oneshot::channel();
        let (gather, call) = (Gather::new(is_missed, finish, sender), Arc::new(call));
        let sent = match self.fleet.senders() {
            Some(senders) => gather.scatter(senders, &call),
            // The server does not run yet. The first loop sends the command to the other loops.
            None => self.home.send(Command::Call(Box::new(move |ctx| gather.scatter_from(ctx, &call)))),
        };
        self.reply(sent.map_err(RemoteError::from), receiver)
    }

    fn reply<T>(&self, sent: Result<(), RemoteError>, receiver: oneshot::Receiver<Result<T, RemoteError>>) -> Reply<T> {
        Reply { receiver: sent.map(|()| receiver), remote: self.clone() }
    }

    /// See [`Context::push`]. The message is encoded here, on the calling thread.
    pub fn push<'p>(&self, fd: Fd, push: impl Into<Push<'p>>) -> Reply<Outcome> {
        let push = OwnedPush::from(push.into());
        self.call_at(fd, move |ctx| ctx.push(fd, push.as_push()))
    }

    /// See [`Context::push_fds`].
    pub fn push_fds<'p>(&self, fds: impl IntoIterator<Item = Fd>, push: impl Into<Push<'p>>) -> Reply<Delivery> {
        let fds: Vec<Fd> = fds.into_iter().collect();
        let push = OwnedPush::from(push.into());
        self.gather(move |ctx| ctx.core.push_fds_here(fds.iter().copied(), push.as_push()), sum)
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
        let uids = Arc::new(owned(uids));
        let push = OwnedPush::from(push.into());
        let (searched, is_for_all) = (Arc::clone(&uids), push.except.is_empty());
        let is_missed = move |ctx: &Context<'_>, parts: &[Delivery]| {
            is_for_all && reaches_none(parts) && searched.iter().any(|uid| ctx.is_online(uid))
        };
        self.gather_unless(is_missed, move |ctx| ctx.core.push_uids_here(uids.iter(), push.as_push()), sum)
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
        let groups = Arc::new(owned(groups));
        let push = OwnedPush::from(push.into());
        let (searched, is_for_all) = (Arc::clone(&groups), push.except.is_empty());
        let is_missed = move |ctx: &Context<'_>, parts: &[Delivery]| {
            is_for_all && reaches_none(parts) && searched.iter().any(|group| ctx.member_count(group) > 0)
        };
        self.gather_unless(is_missed, move |ctx| ctx.core.push_groups_here(groups.iter(), push.as_push()), sum)
    }

    /// See [`Context::broadcast`].
    pub fn broadcast<'p>(&self, push: impl Into<Push<'p>>) -> Reply<Delivery> {
        let push = OwnedPush::from(push.into());
        self.gather(move |ctx| ctx.core.broadcast_here(push.as_push()), sum)
    }

    /// See [`Context::bind`].
    pub fn bind(&self, fd: Fd, uid: impl Into<String>) -> Reply<Change> {
        let uid = uid.into();
        self.call_at(fd, move |ctx| ctx.bind(fd, uid))
    }

    /// See [`Context::unbind`].
    pub fn unbind(&self, fd: Fd) -> Reply<Change> {
        self.call_at(fd, move |ctx| ctx.unbind(fd))
    }

    /// See [`Context::uid_of`].
    pub fn uid_of(&self, fd: Fd) -> Reply<Option<String>> {
        self.call_at(fd, move |ctx| ctx.uid_of(fd).map(str::to_owned))
    }

    /// See [`Context::groups_of`].
    pub fn groups_of(&self, fd: Fd) -> Reply<Vec<String>> {
        self.call_at(fd, move |ctx| ctx.groups_of(fd).into_iter().map(str::to_owned).collect())
    }

    /// Returns whether a uid has a connection, on any loop.
    pub fn is_online(&self, uid: impl Into<String>) -> Reply<bool> {
        let uid = uid.into();
        let searched = uid.clone();
        let is_missed = move |ctx: &Context<'_>, parts: &[bool]| !parts.contains(&true) && ctx.is_online(&searched);
        self.gather_unless(is_missed, move |ctx| !ctx.fds_of(&uid).is_empty(), |parts| parts.contains(&true))
    }

    /// Returns the connections of a uid: for each loop, the last bound first.
    pub fn fds_of(&self, uid: impl Into<String>) -> Reply<Vec<Fd>> {
        let uid = uid.into();
        let searched = uid.clone();
        let is_missed = move |ctx: &Context<'_>, parts: &[Vec<Fd>]| lists_none(parts) && ctx.is_online(&searched);
        self.gather_unless(is_missed, move |ctx| ctx.fds_of(&uid), |parts| parts.concat())
    }

    /// See [`Context::join`].
    pub fn join(&self, fd: Fd, group: impl Into<String>) -> Reply<Change> {
        let group = group.into();
        self.call_at(fd, move |ctx| ctx.join(fd, group))
    }

    /// See [`Context::leave`].
    pub fn leave(&self, fd: Fd, group: impl Into<String>) -> Reply<Change> {
        let group = group.into();
        self.call_at(fd, move |ctx| ctx.leave(fd, &group))
    }

    /// Removes all members from a group, on all loops, and returns their number.
    pub fn ungroup(&self, group: impl Into<String>) -> Reply<usize> {
        let group = group.into();
        self.gather(move |ctx| ctx.core.ungroup_here(&group), |parts| parts.into_iter().sum())
    }

    /// Returns the members of a group, on all loops, in no order.
    pub fn members(&self, group: impl Into<String>) -> Reply<Vec<Fd>> {
        let group = group.into();
        let searched = group.clone();
        let is_missed =
            move |ctx: &Context<'_>, parts: &[Vec<Fd>]| lists_none(parts) && ctx.member_count(&searched) > 0;
        self.gather_unless(is_missed, move |ctx| ctx.members(&group), |parts| parts.concat())
    }

    /// See [`Context::close`].
    pub fn close(&self, fd: Fd, code: impl Into<CloseCode>, reason: impl Into<String>) -> Reply<CloseOutcome> {
        let (code, reason) = (code.into(), reason.into());
        self.call_at(fd, move |ctx| ctx.close(fd, code, &reason))
    }

    /// See [`Context::abort`].
    pub fn abort(&self, fd: Fd) -> Reply<AbortOutcome> {
        self.call_at(fd, move |ctx| ctx.abort(fd))
    }

    /// See [`Context::ping`].
    pub fn ping(&self, fd: Fd, payload: impl Into<Vec<u8>>) -> Reply<Outcome> {
        let payload = payload.into();
        self.call_at(fd, move |ctx| ctx.ping(fd, &payload))
    }

    /// See [`Context::is_open`].
    pub fn is_open(&self, fd: Fd) -> Reply<bool> {
        self.call_at(fd, move |ctx| ctx.is_open(fd))
    }

    /// See [`Context::info`].
    pub fn info(&self, fd: Fd) -> Reply<Option<Info>> {
        self.call_at(fd, move |ctx| ctx.info(fd))
    }

    /// Returns the open WebSockets of all loops, the lowest slot first.
    pub fn connections(&self) -> Reply<Vec<Fd>> {
        self.gather(|ctx| ctx.connections().collect(), |parts| in_order(parts, usize::MAX))
    }

    /// Returns a page of the open WebSockets of all loops: see [`Context::connections_after`].
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Reply<Vec<Fd>> {
        self.gather(move |ctx| ctx.connections_after(after, limit), move |parts| in_order(parts, limit))
    }

    /// Returns the counters of the server: the sums of all loops.
    pub fn stats(&self) -> Reply<Stats> {
        self.gather(|ctx| ctx.core.stats_for_sum(), Stats::sum)
    }

    /// Returns the counters of each loop: see [`Context::stats`].
    pub fn stats_by_loop(&self) -> Reply<Vec<Stats>> {
        self.call_each(|ctx| ctx.stats())
    }

    /// Sends a notice to the handler's [`on_notice`](crate::Handler::on_notice).
    ///
    /// With several loops, the handler of the first loop gets the notice, or of the loop whose [`Context::remote`] made
    /// the handle.
    ///
    /// # Errors
    /// [`RemoteError::Full`], [`RemoteError::Closed`].
    pub fn notify(&self, notice: impl Any + Send) -> Result<(), RemoteError> {
        self.home.send(Command::Notice(Box::new(notice))).map_err(RemoteError::from)
    }

    /// Shuts the server down, on all loops: see [`Context::shutdown`].
    ///
    /// With several loops, the first loop takes the shutdown, or the loop whose [`Context::remote`] made the handle. The
    /// other loops get the shutdown from this loop, behind the messages of earlier commands.
    ///
    /// Commands that were sent before the shutdown run first. A full inbox does not reject a shutdown. A second call
    /// does nothing.
    ///
    /// # Errors
    /// The error is [`RemoteError::Closed`] if the server has ended already.
    pub fn shutdown(&self) -> Result<(), RemoteError> {
        // The loop passes the shutdown on after the messages that earlier commands have forwarded. If the loop has ended,
        // the other loops drain already.
        self.home.send_last(Command::Shutdown).map_err(RemoteError::from)
    }
}

impl<T> Reply<T> {
    /// Blocks the thread until the loop has carried out the command.
    ///
    /// The server carries out commands only while it runs. Do not wait on the thread that calls
    /// [`Server::run`](crate::Server::run) later.
    ///
    /// # Errors
    /// [`Full`](RemoteError::Full), [`Closed`](RemoteError::Closed), [`Panicked`](RemoteError::Panicked). On the
    /// thread of a loop, `wait` returns [`OwnThread`](RemoteError::OwnThread) at once, and the command is carried out later.
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
        let is_own = self.remote.home.is_own_thread() || self.remote.fleet.is_own_thread();
        if is_own { Err(RemoteError::OwnThread) } else { Ok(()) }
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
        let frame = push.content.to_frame();
        let key = push.key.map(str::to_owned);
        OwnedPush { frame, except: push.except.to_vec(), key, may_compress: push.may_compress }
    }
}

/// A command, and the receiver of its result.
type Job<T> = (Box<dyn FnOnce(&mut Context<'_>) + Send>, oneshot::Receiver<Result<T, RemoteError>>);

fn job<T: Send + 'static>(call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static) -> Job<T> {
    let (sender, receiver) = oneshot::channel();
    let job = move |ctx: &mut Context<'_>| {
        // The send fails if the receiver was dropped.
        match catch_unwind(AssertUnwindSafe(|| call(ctx))) {
            Ok(value) => drop(sender.send(Ok(value))),
            Err(panic) => {
                drop(sender.send(Err(RemoteError::Panicked)));
                // The loop logs the panic.
                resume_unwind(panic)
            }
        }
    };
    (Box::new(job), receiver)
}

/// Carries out a command on the loop of a connection.
fn pass_on(ctx: &mut Context<'_>, fd: Fd, job: Box<dyn FnOnce(&mut Context<'_>) + Send>) {
    match ctx.parts.fleet.sender_of(fd).filter(|_| !ctx.core.owns(fd)) {
        // If the inbox of that loop is full, the command is dropped, and its reply is an error.
        Some(sender) => _ = sender.send(Command::Call(job)),
        None => job(ctx),
    }
}

/// Returns whether a push has reached no connection.
fn reaches_none(parts: &[Delivery]) -> bool {
    parts.iter().all(|part| part.matched == 0)
}

/// Returns whether no loop has listed a connection.
fn lists_none(parts: &[Vec<Fd>]) -> bool {
    parts.iter().all(Vec::is_empty)
}

fn sum(parts: Vec<Delivery>) -> Delivery {
    parts.into_iter().fold(Delivery::default(), |mut sum, part| {
        sum += part;
        sum
    })
}

/// Returns the connections of all loops in the order of slots, at most `limit`.
fn in_order(parts: Vec<Vec<Fd>>, limit: usize) -> Vec<Fd> {
    let mut fds = parts.concat();
    fds.sort_unstable_by_key(|fd| fd.slot());
    fds.truncate(limit);
    fds
}

fn owned(names: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    names.into_iter().map(|name| name.as_ref().to_owned()).collect()
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}
