//! The handle with which other threads control the server.

mod error;
mod gather;
mod owned_push;
mod promise;
mod route;
mod then;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use crate::connection::{AbortOutcome, CloseOutcome};
use crate::event_loop::{Command, Context, Fleet, Info, Rejected, Stats};
use crate::fd::Fd;
use crate::message::{Delivery, Outcome, Push};
use crate::protocol::close::CloseCode;
use crate::registry::Change;

pub use self::error::RemoteError;
pub use self::promise::Promise;
pub(crate) use self::route::send_to_fd;

use self::gather::{Gather, Listed, NameKind, Named, Parts};
use self::owned_push::OwnedPush;
use self::route::{job, send_shutdown, send_to_loop};

/// A handle with which other threads control a server. Cloning a handle takes little time.
///
/// The methods of `Remote` are the actions of [`Context`]. Each method puts a command into the server's inbox and
/// returns a [`Reply`] immediately. A thread can block until the reply is ready, an async task can await the reply, and
/// the reply can be dropped. The loop carries out the commands of one thread in order, also commands that were sent
/// before [`Server::run`](crate::Server::run). A message is encoded on the calling thread.
///
/// The inbox is bounded by [`Limits::inbox_max`](crate::Limits::inbox_max). A command that a full inbox rejects has no
/// effect, and its reply is [`RemoteError::Full`].
///
/// With several [loops](crate::Server::loops), each loop has an inbox. A command for one connection goes to the loop of
/// its fd. A command for uids, groups or all connections goes to all loops, and the reply is ready when all loops have
/// carried out the command. Counts in the reply are the sums of all loops, and lists contain the connections of all
/// loops. A command of [`call`](Remote::call) or [`notify`](Remote::notify) goes to one loop: the first loop, or the
/// loop whose [`Context::remote`] created the handle.
///
/// Each loop carries out the commands of one thread in order. When the reply to a `call` is ready, each message that
/// the call has pushed is in the inbox of the loop of its receivers. So this message comes before later commands. A
/// handler can use a `Remote`, too. The commands of a handler come after the messages that the handler has pushed
/// earlier. While a command for a uid or a group runs, a user can disconnect, and connect again on another loop. If no
/// loop has found a connection for this reason, all loops carry out the command once more, perhaps after later
/// commands.
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
    /// The number of the loop that gets calls and notices.
    home: usize,
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
    pub(crate) fn new(home: usize, fleet: Fleet<Command>) -> Remote {
        Remote { home, fleet }
    }

    /// Runs `call` on the loop's thread, like a handler.
    ///
    /// Use `call` for an action that `Remote` has no method for, for instance `remote.call(move |ctx|
    /// ctx.protect(fd))`. The other methods are short forms of `call`, [`call_at`](Remote::call_at) and
    /// [`call_each`](Remote::call_each). With several loops, `call` runs on the first loop, or on the loop whose
    /// [`Context::remote`] created the handle.
    pub fn call<T: Send + 'static>(&self, call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static) -> Reply<T> {
        let (sender, receiver) = oneshot::channel();
        self.reply(send_to_loop(&self.fleet, self.home, Command::Call(job(call, sender))), receiver)
    }

    /// Runs `call` on the loop of an fd, even if no connection has this fd.
    pub fn call_at<T: Send + 'static>(
        &self,
        fd: Fd,
        call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
    ) -> Reply<T> {
        let (sender, receiver) = oneshot::channel();
        self.reply(send_to_fd(&self.fleet, fd, job(call, sender)), receiver)
    }

    /// Runs `call` on each loop, and returns the results in the order of loops.
    ///
    /// A loop that has ended, after an error or during a shutdown, has no result.
    pub fn call_each<T: Send + 'static>(
        &self,
        call: impl Fn(&mut Context<'_>) -> T + Send + Sync + 'static,
    ) -> Reply<Vec<T>> {
        self.gather(call, |_, parts| parts)
    }

    /// Runs `call` on each loop, and combines the results into one result.
    ///
    /// `finish` combines the results, on the loop whose `call` ends last.
    fn gather<T: Send + 'static, U: Send + 'static>(
        &self,
        call: impl Fn(&mut Context<'_>) -> T + Send + Sync + 'static,
        finish: impl Fn(Option<&Context<'_>>, Vec<T>) -> U + Send + Sync + 'static,
    ) -> Reply<U> {
        self.scatter(Parts::new(call, finish))
    }

    fn scatter<G: Gather>(&self, gather: G) -> Reply<G::Output> {
        let (sender, receiver) = oneshot::channel();
        let sent = route::scatter(&self.fleet, gather, sender);
        self.reply(sent, receiver)
    }

    fn reply<T>(&self, sent: Result<(), Rejected>, receiver: oneshot::Receiver<Result<T, RemoteError>>) -> Reply<T> {
        Reply { receiver: sent.map(|()| receiver).map_err(RemoteError::from), remote: self.clone() }
    }

    /// See [`Context::push`]. The calling thread encodes the message.
    pub fn push<'p>(&self, fd: Fd, push: impl Into<Push<'p>>) -> Reply<Outcome> {
        let push = OwnedPush::from(push.into());
        self.call_at(fd, move |ctx| ctx.push(fd, push.as_push()))
    }

    /// See [`Context::push_fds`].
    pub fn push_fds<'p>(&self, fds: impl IntoIterator<Item = Fd>, push: impl Into<Push<'p>>) -> Reply<Delivery> {
        let fds: Vec<Fd> = fds.into_iter().collect();
        let push = OwnedPush::from(push.into());
        self.gather(move |ctx| ctx.core.push_fds_here(fds.iter().copied(), push.as_push()), |_, parts| sum(parts))
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
        self.scatter(Named::new(owned(uids), NameKind::Uid, push.into().into()))
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
        self.scatter(Named::new(owned(groups), NameKind::Group, push.into().into()))
    }

    /// See [`Context::broadcast`].
    pub fn broadcast<'p>(&self, push: impl Into<Push<'p>>) -> Reply<Delivery> {
        let push = OwnedPush::from(push.into());
        self.gather(move |ctx| ctx.core.broadcast_here(push.as_push()), |_, parts| sum(parts))
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
        // The command goes to all loops, so that each loop has carried out the earlier commands of this thread. The
        // last loop then asks the directory, which knows the uids of all loops. So the result is also right for a user
        // who has moved from one loop to another.
        let answer = move |ctx: Option<&Context<'_>>, parts: Vec<bool>| match ctx {
            Some(ctx) => ctx.is_online(&searched),
            None => parts.contains(&true),
        };
        self.gather(move |ctx| ctx.is_online(&uid), answer)
    }

    /// Returns the connections of a uid on all loops. For each loop, the most recently bound connection comes first.
    pub fn fds_of(&self, uid: impl Into<String>) -> Reply<Vec<Fd>> {
        self.scatter(Listed { name: uid.into(), kind: NameKind::Uid, rounds: 0 })
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
        self.gather(move |ctx| ctx.core.ungroup_here(&group), |_, parts| parts.into_iter().sum())
    }

    /// Returns the members of a group, on all loops, in no particular order.
    pub fn members(&self, group: impl Into<String>) -> Reply<Vec<Fd>> {
        self.scatter(Listed { name: group.into(), kind: NameKind::Group, rounds: 0 })
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
        self.gather(|ctx| ctx.connections().collect(), |_, parts| in_order(parts, usize::MAX))
    }

    /// Returns a page of the open WebSockets of all loops: see [`Context::connections_after`].
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Reply<Vec<Fd>> {
        self.gather(move |ctx| ctx.connections_after(after, limit), move |_, parts| in_order(parts, limit))
    }

    /// Returns the counters of the server: the sums of all loops.
    pub fn stats(&self) -> Reply<Stats> {
        self.gather(|ctx| ctx.core.stats_for_sum(), |_, parts| Stats::sum(parts))
    }

    /// Returns the counters of each loop: see [`Context::stats`].
    pub fn stats_by_loop(&self) -> Reply<Vec<Stats>> {
        self.call_each(|ctx| ctx.stats())
    }

    /// Sends a notice to the handler's [`on_notice`](crate::Handler::on_notice).
    ///
    /// With several loops, the handler of the first loop gets the notice, or the handler of the loop whose
    /// [`Context::remote`] created the handle.
    ///
    /// # Errors
    /// The error is [`RemoteError::Full`] or [`RemoteError::Closed`].
    pub fn notify(&self, notice: impl Any + Send) -> Result<(), RemoteError> {
        let notice = Command::Notice(Box::new(notice));
        send_to_loop(&self.fleet, self.home, notice).map_err(RemoteError::from)
    }

    /// Shuts the server down, on all loops: see [`Context::shutdown`].
    ///
    /// With several loops, the shutdown goes to the first loop, or to the loop whose [`Context::remote`] created the
    /// handle. This loop sends the shutdown to the other loops, after the messages of earlier commands.
    ///
    /// Commands that were sent before the shutdown run first. A full inbox does not reject a shutdown. A second call
    /// has no effect.
    ///
    /// # Errors
    /// The error is [`RemoteError::Closed`] if the server has ended already.
    pub fn shutdown(&self) -> Result<(), RemoteError> {
        // The loop sends the shutdown to the other loops after the messages that earlier commands have forwarded. If
        // the loop has ended, the other loops drain already.
        send_shutdown(&self.fleet, self.home).map_err(RemoteError::from)
    }
}

impl<T> Reply<T> {
    /// Blocks the thread until the loop has carried out the command.
    ///
    /// The server carries out commands only while it runs. Do not wait on the thread that calls
    /// [`Server::run`](crate::Server::run) later.
    ///
    /// # Errors
    ///
    /// The error is [`Full`](RemoteError::Full), [`Closed`](RemoteError::Closed) or
    /// [`Panicked`](RemoteError::Panicked). On the thread of a loop, `wait` returns
    /// [`OwnThread`](RemoteError::OwnThread) immediately, and the loop carries out the command later.
    pub fn wait(self) -> Result<T, RemoteError> {
        self.check_thread()?;
        self.receiver?.recv().unwrap_or(Err(RemoteError::Closed))
    }

    /// Blocks the thread for at most `timeout`.
    ///
    /// # Errors
    /// The errors are those of [`wait`](Reply::wait), and [`TimedOut`](RemoteError::TimedOut) after `timeout`.
    pub fn wait_timeout(self, timeout: Duration) -> Result<T, RemoteError> {
        self.check_thread()?;
        self.receiver?.recv_timeout(timeout).unwrap_or_else(|error| match error {
            oneshot::RecvTimeoutError::Timeout => Err(RemoteError::TimedOut),
            oneshot::RecvTimeoutError::Disconnected => Err(RemoteError::Closed),
        })
    }

    /// Returns the reply, without waiting, if the inbox has accepted the command.
    ///
    /// A producer that needs no results can use the error to slow down: `remote.broadcast(text).sent()?`.
    ///
    /// # Errors
    /// The error is [`Full`](RemoteError::Full) or [`Closed`](RemoteError::Closed).
    pub fn sent(self) -> Result<Reply<T>, RemoteError> {
        match self.receiver {
            Ok(_) => Ok(self),
            Err(error) => Err(error),
        }
    }

    fn check_thread(&self) -> Result<(), RemoteError> {
        if self.remote.fleet.is_own_thread() { Err(RemoteError::OwnThread) } else { Ok(()) }
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
    /// The error is [`Full`](RemoteError::Full), [`Closed`](RemoteError::Closed) or [`Panicked`](RemoteError::Panicked).
    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match &mut self.receiver {
            Ok(receiver) => Pin::new(receiver).poll(cx).map(|result| result.unwrap_or(Err(RemoteError::Closed))),
            Err(error) => Poll::Ready(Err(*error)),
        }
    }
}

fn sum(parts: Vec<Delivery>) -> Delivery {
    parts.into_iter().fold(Delivery::default(), |mut sum, part| {
        sum += part;
        sum
    })
}

/// Returns the first `limit` connections of all loops, in the order of slots.
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
