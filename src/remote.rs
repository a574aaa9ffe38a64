//! The server from other threads.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::event_loop::{Command, Context, Info, Rejected, Sender, Stats};
use crate::fd::Fd;
use crate::message::{Content, Delivery, Message, Outcome, Push};
use crate::protocol::close::CloseCode;
use crate::protocol::shared::Frame;
use crate::protocol::upgrade::Upgrade;
use crate::registry::Change;

/// A handle on a server for other threads: what [`Context`] is for handlers. A clone is cheap.
///
/// Each call puts a command into the server's inbox and returns at once, with a [`Reply`] to wait for, or to drop. Commands
/// of one thread are carried out in order. The inbox is bounded ([`Limits::inbox_max`](crate::Limits::inbox_max)): a full
/// one is [`RemoteError::Full`], and nothing was done.
#[derive(Clone)]
pub struct Remote {
    sender: Sender<Command>,
}

/// What came of a command, on its way back.
#[derive(Debug)]
#[must_use = "drop it with `let _ =` where the outcome does not matter"]
pub struct Reply<T> {
    receiver: oneshot::Receiver<Result<T, RemoteError>>,
    sender: Sender<Command>,
}

/// Why a command was not carried out, or its reply not heard.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RemoteError {
    /// As many commands as may wait are waiting. Nothing was done.
    Full,
    /// The server has ended. Of a command that was taken before: it was not carried out.
    Closed,
    /// The command panicked on the loop's thread, or a handler's code in it did. How far it came is not known; the server
    /// goes on.
    Panicked,
    /// The reply did not come in time. The command may still be carried out.
    TimedOut,
    /// The loop's own thread would wait for itself: inside a handler, use its [`Context`].
    OwnThread,
}

impl Remote {
    pub(crate) fn new(sender: Sender<Command>) -> Remote {
        Remote { sender }
    }

    /// Runs `call` on the loop's thread, like a handler: for whatever has no method here, such as
    /// `remote.call(move |ctx| ctx.protect(fd))`. All other methods are this one with a name.
    pub fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
    ) -> Result<Reply<T>, RemoteError> {
        let (sender, receiver) = oneshot::channel();
        let command = Command::Call(Box::new(move |ctx| {
            // Nobody may be waiting.
            match catch_unwind(AssertUnwindSafe(|| call(ctx))) {
                Ok(value) => drop(sender.send(Ok(value))),
                Err(panic) => {
                    drop(sender.send(Err(RemoteError::Panicked)));
                    // It is the loop's to log.
                    resume_unwind(panic)
                }
            }
        }));
        self.send(command)?;
        Ok(Reply { receiver, sender: self.sender.clone() })
    }

    /// See [`Context::push`]. The message is encoded here, on the calling thread.
    pub fn push<'p>(&self, fd: Fd, push: impl Into<Push<'p>>) -> Result<Reply<Outcome>, RemoteError> {
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.push(fd, push.lend()))
    }

    /// See [`Context::push_fds`].
    pub fn push_fds<'p>(
        &self,
        fds: impl IntoIterator<Item = Fd>,
        push: impl Into<Push<'p>>,
    ) -> Result<Reply<Delivery>, RemoteError> {
        let fds: Vec<Fd> = fds.into_iter().collect();
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.push_fds(fds, push.lend()))
    }

    /// See [`Context::push_uid`].
    pub fn push_uid<'p>(&self, uid: &str, push: impl Into<Push<'p>>) -> Result<Reply<Delivery>, RemoteError> {
        self.push_uids([uid], push)
    }

    /// See [`Context::push_uids`].
    pub fn push_uids<'u, 'p>(
        &self,
        uids: impl IntoIterator<Item = &'u str>,
        push: impl Into<Push<'p>>,
    ) -> Result<Reply<Delivery>, RemoteError> {
        let uids = owned(uids);
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.push_uids(uids.iter().map(String::as_str), push.lend()))
    }

    /// See [`Context::push_group`].
    pub fn push_group<'p>(&self, group: &str, push: impl Into<Push<'p>>) -> Result<Reply<Delivery>, RemoteError> {
        self.push_groups([group], push)
    }

    /// See [`Context::push_groups`].
    pub fn push_groups<'g, 'p>(
        &self,
        groups: impl IntoIterator<Item = &'g str>,
        push: impl Into<Push<'p>>,
    ) -> Result<Reply<Delivery>, RemoteError> {
        let groups = owned(groups);
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.push_groups(groups.iter().map(String::as_str), push.lend()))
    }

    /// See [`Context::broadcast`].
    pub fn broadcast<'p>(&self, push: impl Into<Push<'p>>) -> Result<Reply<Delivery>, RemoteError> {
        let push = OwnedPush::from(push.into());
        self.call(move |ctx| ctx.broadcast(push.lend()))
    }

    /// See [`Context::bind`].
    pub fn bind(&self, fd: Fd, uid: impl Into<String>) -> Result<Reply<Change>, RemoteError> {
        let uid = uid.into();
        self.call(move |ctx| ctx.bind(fd, uid))
    }

    /// See [`Context::unbind`].
    pub fn unbind(&self, fd: Fd) -> Result<Reply<Change>, RemoteError> {
        self.call(move |ctx| ctx.unbind(fd))
    }

    /// See [`Context::uid_of`].
    pub fn uid_of(&self, fd: Fd) -> Result<Reply<Option<String>>, RemoteError> {
        self.call(move |ctx| ctx.uid_of(fd).map(str::to_owned))
    }

    /// See [`Context::groups_of`].
    pub fn groups_of(&self, fd: Fd) -> Result<Reply<Vec<String>>, RemoteError> {
        self.call(move |ctx| ctx.groups_of(fd).into_iter().map(str::to_owned).collect())
    }

    /// See [`Context::is_online`].
    pub fn is_online(&self, uid: impl Into<String>) -> Result<Reply<bool>, RemoteError> {
        let uid = uid.into();
        self.call(move |ctx| ctx.is_online(&uid))
    }

    /// See [`Context::fds_of`].
    pub fn fds_of(&self, uid: impl Into<String>) -> Result<Reply<Vec<Fd>>, RemoteError> {
        let uid = uid.into();
        self.call(move |ctx| ctx.fds_of(&uid))
    }

    /// See [`Context::join`].
    pub fn join(&self, fd: Fd, group: impl Into<String>) -> Result<Reply<Change>, RemoteError> {
        let group = group.into();
        self.call(move |ctx| ctx.join(fd, group))
    }

    /// See [`Context::leave`].
    pub fn leave(&self, fd: Fd, group: impl Into<String>) -> Result<Reply<Change>, RemoteError> {
        let group = group.into();
        self.call(move |ctx| ctx.leave(fd, &group))
    }

    /// See [`Context::ungroup`].
    pub fn ungroup(&self, group: impl Into<String>) -> Result<Reply<usize>, RemoteError> {
        let group = group.into();
        self.call(move |ctx| ctx.ungroup(&group))
    }

    /// See [`Context::members`].
    pub fn members(&self, group: impl Into<String>) -> Result<Reply<Vec<Fd>>, RemoteError> {
        let group = group.into();
        self.call(move |ctx| ctx.members(&group))
    }

    /// See [`Context::close`].
    pub fn close(
        &self,
        fd: Fd,
        code: impl Into<CloseCode>,
        reason: impl Into<String>,
    ) -> Result<Reply<Outcome>, RemoteError> {
        let (code, reason) = (code.into(), reason.into());
        self.call(move |ctx| ctx.close(fd, code, &reason))
    }

    /// See [`Context::abort`].
    pub fn abort(&self, fd: Fd) -> Result<Reply<Outcome>, RemoteError> {
        self.call(move |ctx| ctx.abort(fd))
    }

    /// See [`Context::ping`].
    pub fn ping(&self, fd: Fd, payload: impl Into<Vec<u8>>) -> Result<Reply<Outcome>, RemoteError> {
        let payload = payload.into();
        self.call(move |ctx| ctx.ping(fd, &payload))
    }

    /// See [`Context::is_open`].
    pub fn is_open(&self, fd: Fd) -> Result<Reply<bool>, RemoteError> {
        self.call(move |ctx| ctx.is_open(fd))
    }

    /// See [`Context::info`].
    pub fn info(&self, fd: Fd) -> Result<Reply<Option<Info>>, RemoteError> {
        self.call(move |ctx| ctx.info(fd))
    }

    /// See [`Context::connections`].
    pub fn connections(&self) -> Result<Reply<Vec<Fd>>, RemoteError> {
        self.call(|ctx| ctx.connections().collect())
    }

    /// See [`Context::connections_after`].
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Result<Reply<Vec<Fd>>, RemoteError> {
        self.call(move |ctx| ctx.connections_after(after, limit))
    }

    /// See [`Context::stats`].
    pub fn stats(&self) -> Result<Reply<Stats>, RemoteError> {
        self.call(|ctx| ctx.stats())
    }

    /// Answers an upgrade that [`Upgrade::later`] put off, or a request that
    /// [`Response::later`](crate::Response::later) did: see [`Context::answer`].
    pub fn answer(&self, fd: Fd, upgrade: impl Into<Upgrade>) -> Result<(), RemoteError> {
        let upgrade = upgrade.into();
        self.send(Command::Call(Box::new(move |ctx| ctx.answer(fd, upgrade))))
    }

    /// Sends a notice, which the handler's [`on_notice`](crate::Handler::on_notice) hears.
    pub fn notify(&self, notice: impl Any + Send) -> Result<(), RemoteError> {
        self.send(Command::Notice(Box::new(notice)))
    }

    /// See [`Context::drain`].
    pub fn drain(&self) -> Result<(), RemoteError> {
        self.send(Command::Call(Box::new(|ctx| ctx.drain())))
    }

    fn send(&self, command: Command) -> Result<(), RemoteError> {
        self.sender.send(command).map_err(|(rejected, _)| match rejected {
            Rejected::Full => RemoteError::Full,
            Rejected::Closed => RemoteError::Closed,
        })
    }
}

impl<T> Reply<T> {
    /// Waits until the loop has carried the command out.
    ///
    /// # Errors
    /// [`Closed`](RemoteError::Closed), [`Panicked`](RemoteError::Panicked), and on the loop's own thread
    /// [`OwnThread`](RemoteError::OwnThread), at once: the command is carried out later.
    pub fn wait(self) -> Result<T, RemoteError> {
        self.check_thread()?;
        self.receiver.recv().unwrap_or(Err(RemoteError::Closed))
    }

    /// Waits, but not longer than `timeout`.
    ///
    /// # Errors
    /// As [`wait`](Reply::wait), and [`TimedOut`](RemoteError::TimedOut).
    pub fn wait_timeout(self, timeout: Duration) -> Result<T, RemoteError> {
        self.check_thread()?;
        self.receiver.recv_timeout(timeout).unwrap_or_else(|error| match error {
            oneshot::RecvTimeoutError::Timeout => Err(RemoteError::TimedOut),
            oneshot::RecvTimeoutError::Disconnected => Err(RemoteError::Closed),
        })
    }

    fn check_thread(&self) -> Result<(), RemoteError> {
        if self.sender.is_own_thread() { Err(RemoteError::OwnThread) } else { Ok(()) }
    }
}

/// A push that outlives the caller's borrow.
struct OwnedPush {
    frame: Frame,
    except: Vec<Fd>,
    key: Option<String>,
}

impl OwnedPush {
    fn lend(&self) -> Push<'_> {
        Push { content: Content::Frame(&self.frame), except: &self.except, key: self.key.as_deref() }
    }
}

impl From<Push<'_>> for OwnedPush {
    fn from(push: Push<'_>) -> OwnedPush {
        let frame = match push.content {
            Content::Message(Message::Text(text)) => Frame::text(text),
            Content::Message(Message::Binary(bytes)) => Frame::binary(bytes),
            Content::Frame(frame) => frame.clone(),
        };
        OwnedPush { frame, except: push.except.to_vec(), key: push.key.map(str::to_owned) }
    }
}

fn owned<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoteError::Full => "the server's inbox is full",
            RemoteError::Closed => "the server has ended",
            RemoteError::Panicked => "the command panicked",
            RemoteError::TimedOut => "no reply in time",
            RemoteError::OwnThread => "the loop's own thread would wait for itself",
        })
    }
}

impl std::error::Error for RemoteError {}
