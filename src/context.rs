//! The methods of [`Context`]: the actions that a handler can take.

mod forwarded;
mod http;
mod names;

use std::time::Duration;

use crate::connection::{AbortOutcome, CloseOutcome};
use crate::event_loop::{Context, Info, ProxyFilter, Stats, TimerId};
use crate::fd::Fd;
use crate::limits::{Heartbeat, LimitError, Limits};
use crate::message::{Delivery, Outcome, Push};
use crate::peer::Peer;
use crate::protocol::close::CloseCode;
use crate::protocol::origin::Origins;
use crate::registry::Change;
use crate::remote::Remote;

impl Context<'_> {
    // The methods below push messages.

    /// Pushes to one connection (Swoole's `push`).
    ///
    /// The message is queued behind earlier messages. The loop works in turns: it waits for events, handles the events,
    /// and writes the output. At the end of its current turn at the latest, the loop begins to write the queued
    /// messages to the socket. If the fd belongs to another loop, the outcome is [`Forwarded`](Outcome::Forwarded), or
    /// [`Dropped`](Outcome::Dropped) if the message does not fit into [`forward_bytes_max`](Limits::forward_bytes_max).
    pub fn push<'p>(&mut self, fd: Fd, push: impl Into<Push<'p>>) -> Outcome {
        self.core.push(fd, push.into())
    }

    /// Pushes to several connections, on all loops.
    ///
    /// If `fds` has an fd twice, the connection gets the message once. An fd without an open WebSocket does not count
    /// in [`matched`](Delivery::matched).
    pub fn push_fds<'p>(&mut self, fds: impl IntoIterator<Item = Fd>, push: impl Into<Push<'p>>) -> Delivery {
        self.core.push_fds(fds.into_iter(), push.into())
    }

    /// Pushes to all connections of a uid, on all loops.
    ///
    /// If the uid is offline, `matched` and `forwarded` are 0, with one exception: if another loop has not yet carried
    /// out a bind or a join that this loop has forwarded ([`Change::Forwarded`]), the push is forwarded to that loop,
    /// too. That loop first carries out the bind or the join, and then the push.
    pub fn push_uid<'p>(&mut self, uid: &str, push: impl Into<Push<'p>>) -> Delivery {
        self.core.push_uid(uid, push.into())
    }

    /// Pushes to all connections of several uids, on all loops.
    ///
    /// If `uids` has a uid twice, each connection of the uid gets the message once.
    pub fn push_uids<'p>(
        &mut self,
        uids: impl IntoIterator<Item = impl AsRef<str>>,
        push: impl Into<Push<'p>>,
    ) -> Delivery {
        self.core.push_uids(uids.into_iter(), push.into())
    }

    /// Pushes to the members of a group, on all loops.
    pub fn push_group<'p>(&mut self, group: &str, push: impl Into<Push<'p>>) -> Delivery {
        self.core.push_group(group, push.into())
    }

    /// Pushes to the members of several groups, on all loops.
    ///
    /// A member of more than one of these groups gets the message once.
    pub fn push_groups<'p>(
        &mut self,
        groups: impl IntoIterator<Item = impl AsRef<str>>,
        push: impl Into<Push<'p>>,
    ) -> Delivery {
        self.core.push_groups(groups.into_iter(), push.into())
    }

    /// Pushes to every open WebSocket of all loops, with or without a uid.
    pub fn broadcast<'p>(&mut self, push: impl Into<Push<'p>>) -> Delivery {
        self.core.broadcast(push.into())
    }

    /// Sends a ping with at most 125 bytes (RFC 6455 section 5.5).
    ///
    /// The heartbeat sends its own pings. If the queue is full, the outcome is `Dropped`, and the connection stays
    /// open, even under [`SlowReader::Close`](crate::SlowReader::Close). The outcome is `TooLarge` if the payload
    /// exceeds 125 bytes, and `Forwarded` if the fd belongs to another loop.
    pub fn ping(&mut self, fd: Fd, payload: &[u8]) -> Outcome {
        self.core.ping(fd, payload)
    }

    // The methods below are for uids.

    /// Binds a connection to a uid of 1 to 128 bytes.
    ///
    /// An earlier uid of the connection is replaced. [`Server::second_login`](crate::Server::second_login) decides
    /// about the other connections of the uid: they stay, they are closed, or this call returns [`Change::Taken`]. The
    /// policy of `second_login` and the limit [`uid_connections_max`](Limits::uid_connections_max) apply to the
    /// connections of all loops together. The uid is removed when the connection ends. The result is
    /// [`Change::Already`] if the connection has this uid already, [`Change::Full`] if the uid already has
    /// `uid_connections_max` connections, and [`Change::Forwarded`] if the fd belongs to another loop.
    pub fn bind(&mut self, fd: Fd, uid: impl AsRef<str>) -> Change {
        self.core.bind(fd, uid.as_ref())
    }

    /// Removes the uid of a connection. The result is [`Change::Already`] if the connection has no uid.
    ///
    /// The result is [`Change::Forwarded`] if the fd belongs to another loop.
    pub fn unbind(&mut self, fd: Fd) -> Change {
        self.core.unbind(fd)
    }

    /// Returns the uid of a connection of this loop.
    ///
    /// Inside `on_close`, the result is the uid that the connection had. The result borrows the context. A handler that
    /// needs the uid during or after a push copies the uid before the push: `ctx.uid_of(fd).map(str::to_owned)`. The
    /// results of [`groups_of`](Context::groups_of), [`users`](Context::users), [`groups`](Context::groups) and
    /// [`connections`](Context::connections) also borrow the context.
    pub fn uid_of(&self, fd: Fd) -> Option<&str> {
        self.core.uid_of(fd)
    }

    /// Returns the connections of a uid on this loop, the most recently bound first.
    pub fn fds_of(&self, uid: &str) -> Vec<Fd> {
        self.core.fds_of(uid)
    }

    /// Returns the number of connections of a uid, on all loops.
    ///
    /// The call takes constant time.
    pub fn connection_count(&self, uid: &str) -> usize {
        self.core.connection_count(uid)
    }

    /// Returns whether a uid has a connection, on any loop.
    pub fn is_online(&self, uid: &str) -> bool {
        self.core.connection_count(uid) > 0
    }

    // The methods below are for groups.

    /// Adds a connection to a group. The name has 1 to 128 bytes.
    ///
    /// If no group has this name, the group is created. A connection leaves its groups when it ends. The result is
    /// [`Change::Already`] if the connection is a member already. The result is [`Change::Full`] if the connection is
    /// in [`connection_groups_max`](crate::Limits::connection_groups_max) groups, or if all connections of all loops
    /// together have [`memberships_max`](crate::Limits::memberships_max) memberships. The result is
    /// [`Change::Forwarded`] if the fd belongs to another loop.
    pub fn join(&mut self, fd: Fd, group: impl AsRef<str>) -> Change {
        self.core.join(fd, group.as_ref())
    }

    /// Removes a connection from a group. The result is [`Change::Already`] if the connection is not a member.
    ///
    /// The result is [`Change::Forwarded`] if the fd belongs to another loop.
    pub fn leave(&mut self, fd: Fd, group: &str) -> Change {
        self.core.leave(fd, group)
    }

    /// Removes all members from a group, on all loops, and returns their number.
    ///
    /// Each other loop removes its members when it gets the command. The returned number includes the members that the
    /// other loops have at the time of this call. A later push from this loop does not reach these members. If the
    /// command to a loop does not fit into [`forward_bytes_max`](Limits::forward_bytes_max), the members of that loop
    /// stay in the group and are not counted.
    pub fn ungroup(&mut self, group: &str) -> usize {
        self.core.ungroup(group)
    }

    /// Returns the members of a group on this loop, in no particular order.
    pub fn members(&self, group: &str) -> Vec<Fd> {
        self.core.registry().members(group).map(|slot| self.core.table().fd_of(slot)).collect()
    }

    /// Returns the number of members of a group, on all loops.
    pub fn member_count(&self, group: &str) -> usize {
        self.core.member_count(group)
    }

    /// Returns whether a connection of this loop is in a group.
    pub fn is_member(&self, fd: Fd, group: &str) -> bool {
        self.core.table().slot_of(fd).is_some_and(|slot| self.core.registry().is_member(slot, group))
    }

    /// Returns the groups of a connection of this loop, the most recently joined first.
    ///
    /// Inside `on_close`, the result is the groups that the connection had.
    pub fn groups_of(&self, fd: Fd) -> Vec<&str> {
        self.core.groups_of(fd)
    }

    // The methods below are for single connections.

    /// Closes a WebSocket with a code and a reason (Swoole's `disconnect`).
    ///
    /// The reason has at most [`CloseCode::REASON_BYTES_MAX`] bytes. Queued messages are sent before the close frame.
    /// The socket is closed when the client has answered the close frame (RFC 6455 section 7.1.2), or after
    /// [`close_wait_max`](Limits::close_wait_max). The result is [`CloseOutcome::Forwarded`] if the fd belongs to
    /// another loop.
    pub fn close(&mut self, fd: Fd, code: impl Into<CloseCode>, reason: &str) -> CloseOutcome {
        self.core.close(fd, code.into(), reason)
    }

    /// Closes several WebSockets, and returns how many of them were open.
    ///
    /// After the call, no push of this loop reaches these WebSockets. In each turn, the loop writes close frames for at
    /// most a few milliseconds. So thousands of close frames do not delay other clients. If [`close`](Context::close)
    /// would return [`CloseOutcome::Invalid`] for the code or the reason, no WebSocket is closed.
    ///
    /// The result counts an fd of another loop if the close is sent to that loop, even if the WebSocket is not open. A
    /// close that does not fit into [`forward_bytes_max`](Limits::forward_bytes_max) is not sent and is not counted.
    pub fn close_fds(&mut self, fds: impl IntoIterator<Item = Fd>, code: impl Into<CloseCode>, reason: &str) -> usize {
        self.core.close_fds(fds.into_iter(), code.into(), reason)
    }

    /// Ends a connection immediately, without a close frame. The queued messages of the connection are dropped.
    ///
    /// The connection may be an open WebSocket, a WebSocket in its close handshake, or an HTTP connection. The result
    /// is [`AbortOutcome::Forwarded`] if the fd belongs to another loop.
    pub fn abort(&mut self, fd: Fd) -> AbortOutcome {
        self.core.abort(fd)
    }

    /// Returns whether a connection of this loop has this fd, in any state (Swoole's `exists`).
    pub fn exists(&self, fd: Fd) -> bool {
        self.core.table().slot_of(fd).is_some()
    }

    /// Returns whether a connection of this loop is an open WebSocket (Swoole's `isEstablished`).
    ///
    /// If the result is `false`, a push to the fd has the outcome [`Gone`](Outcome::Gone), or
    /// [`Forwarded`](Outcome::Forwarded) if the fd belongs to another loop.
    pub fn is_open(&self, fd: Fd) -> bool {
        self.core.open_slot(fd).is_some()
    }

    /// Returns the state, the uid, the groups and the counters of a connection of this loop.
    ///
    /// Returns `None` if no connection of this loop has this fd. Inside `on_close`, the call returns the data of the
    /// ended connection.
    pub fn info(&self, fd: Fd) -> Option<Info> {
        self.core.info(fd)
    }

    /// Returns the open WebSockets of this loop, the lowest slot first.
    pub fn connections(&self) -> impl Iterator<Item = Fd> {
        self.core.connections()
    }

    /// Returns a page of the open WebSockets of this loop: at most `limit`, in the order of slots.
    ///
    /// `after` is the last fd of the previous page. The connection of this fd may have ended. A connection that stays
    /// open while the pages are read is in exactly one page. The time of a call depends on the length of its page, not
    /// on the number of pages before it.
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Vec<Fd> {
        self.core.connections_after(after, limit)
    }

    /// Protects a control connection of this loop from being closed in favor of a new connection.
    ///
    /// A control connection is a connection of a [control listener](crate::Server::listen_control). A handler calls
    /// this method after a request was authenticated and before the request is carried out. The protection lasts until
    /// the connection ends, or until [`release_control`](Context::release_control). A protected connection is also
    /// called kept.
    ///
    /// The result is [`Change::Done`], also if the connection was protected already, or [`Change::Gone`] if the fd
    /// belongs to no control connection. The result is [`Change::Full`] if
    /// [`control_connections_max`](Limits::control_connections_max) other connections are protected. After the result
    /// `Full`, the handler should answer with 503. [`Stats::control_refused`] counts the results `Full`.
    pub fn keep_control(&mut self, fd: Fd) -> Change {
        self.core.keep_control(fd)
    }

    /// Undoes [`keep_control`](Context::keep_control) on this loop, for instance after the API key of the connection
    /// was revoked.
    ///
    /// The result is [`Change::Done`], also if the connection was not protected, or [`Change::Gone`] if the fd belongs
    /// to no control connection.
    pub fn release_control(&mut self, fd: Fd) -> Change {
        self.core.release_control(fd)
    }

    /// Stores a value of any type with a connection of this loop.
    ///
    /// The value replaces an earlier value of the connection.
    ///
    /// `on_upgrade` is the first event that can store a value. The value is dropped after `on_close`, or at the end of
    /// a connection that never became an open WebSocket. So the `Drop` of a value can also tell the program that a
    /// client has disconnected before its deferred upgrade was answered. A connection without a value uses no memory
    /// for values.
    ///
    /// The result is [`Change::Done`], or [`Change::Gone`] if no connection of this loop has this fd or the connection is
    /// closing.
    ///
    /// ```
    /// # use fdpush::{Context, Fd};
    /// struct Session { greeting: String, count: u32 }
    ///
    /// fn on_open(ctx: &mut Context<'_>, fd: Fd) {
    ///     ctx.set_session(fd, Session { greeting: "hello".to_owned(), count: 0 });
    /// }
    ///
    /// fn on_message(ctx: &mut Context<'_>, fd: Fd) {
    ///     ctx.with_session(fd, |ctx, session: &mut Session| {
    ///         session.count += 1;
    ///         ctx.push(fd, &session.greeting);
    ///     });
    /// }
    /// ```
    pub fn set_session<T: 'static>(&mut self, fd: Fd, session: T) -> Change {
        Change::done_or_gone(self.core.set_session(fd, Box::new(session)))
    }

    /// Calls `call` with the context and the value of a connection.
    ///
    /// Inside `call`, a handler can push data from the value. The value is removed before the call, and stored again
    /// after the call, unless the call stored another value. If the call panics, the value is dropped. Returns `None`
    /// if the connection has no value, or a value of another type.
    pub fn with_session<T: 'static, R>(
        &mut self,
        fd: Fd,
        call: impl FnOnce(&mut Context<'_>, &mut T) -> R,
    ) -> Option<R> {
        self.session::<T>(fd)?;
        let mut session = self.core.take_session(fd)?;
        let result = call(self, session.downcast_mut()?);
        self.core.restore_session(fd, session);
        Some(result)
    }

    /// Returns the value that [`set_session`](Context::set_session) stored.
    ///
    /// Returns `None` if the connection has no value, or a value of another type.
    pub fn session<T: 'static>(&self, fd: Fd) -> Option<&T> {
        self.core.session(fd)?.downcast_ref()
    }

    /// Returns a mutable reference to the stored value.
    ///
    /// To push while the value is borrowed, use [`with_session`](Context::with_session).
    pub fn session_mut<T: 'static>(&mut self, fd: Fd) -> Option<&mut T> {
        self.core.session_mut(fd)?.downcast_mut()
    }

    /// Removes the stored value and returns it.
    ///
    /// Returns `None` if the connection has no value, or a value of another type. A value of another type is not
    /// removed.
    pub fn take_session<T: 'static>(&mut self, fd: Fd) -> Option<T> {
        self.session::<T>(fd)?;
        self.core.take_session(fd)?.downcast().ok().map(|session| *session)
    }

    /// Returns the counters of this loop.
    ///
    /// With one loop, these are the counters of the server. [`Remote::stats`] returns the sums of all loops. The time of the
    /// call does not depend on the number of connections.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Gives a connection its own heartbeat in place of the server's heartbeat.
    ///
    /// The result is [`Change::Done`], [`Change::Forwarded`] if the fd belongs to another loop, or [`Change::Gone`] if no
    /// connection has this fd or the connection is closing.
    ///
    /// # Errors
    ///
    /// Returns an error if a period or a count of `heartbeat` is invalid. In this case, the connection keeps its
    /// earlier heartbeat.
    pub fn set_heartbeat(&mut self, fd: Fd, heartbeat: Heartbeat) -> Result<Change, LimitError> {
        heartbeat.check()?;
        Ok(self.core.set_heartbeat(fd, Some(heartbeat)))
    }

    /// Gives a connection the heartbeat of the server again.
    ///
    /// This method undoes [`set_heartbeat`](Context::set_heartbeat) and [`protect`](Context::protect). The results are
    /// those of `set_heartbeat`.
    pub fn reset_heartbeat(&mut self, fd: Fd) -> Change {
        self.core.set_heartbeat(fd, None)
    }

    /// Exempts a connection from heartbeats (Swoole's `protect`).
    ///
    /// [`reset_heartbeat`](Context::reset_heartbeat) ends the exemption. The results are those of
    /// [`set_heartbeat`](Context::set_heartbeat).
    pub fn protect(&mut self, fd: Fd) -> Change {
        self.core.set_heartbeat(fd, Some(Heartbeat::Off))
    }

    /// Returns the number of bytes in the output queue of a connection of this loop; 0 if no connection has this fd.
    pub fn queued_bytes(&self, fd: Fd) -> usize {
        self.core.queued_bytes(fd)
    }

    /// Returns the number of bytes in the queues of all WebSockets of this loop.
    ///
    /// [`queue_total_bytes_max`](Limits::queue_total_bytes_max) bounds this number.
    pub fn queued_bytes_total(&self) -> usize {
        self.core.total_queued_bytes()
    }

    /// Returns the greatest length that any output queue of this loop had since the last call, in bytes.
    ///
    /// The length of a queue is recorded when a push adds a message to the queue.
    ///
    /// A handler that forwards data from a source can pause this source while a queue is long.
    pub fn take_longest_queue(&mut self) -> usize {
        self.core.take_longest_queue()
    }

    /// Stops reading from a WebSocket, or from a request with a streamed body.
    ///
    /// The client's bytes wait in the kernel, and TCP slows the client down. Messages that the loop has read together
    /// with the message that it handles now, at most [`read_budget_bytes`](Limits::read_budget_bytes) bytes, are still
    /// passed to the handler. Until [`resume`](Context::resume), the server notices neither answers to heartbeats nor
    /// that the client has ended its stream (FIN). The server still notices a broken connection.
    /// [`body_time_max`](Limits::body_time_max) does not apply while reading is paused.
    ///
    /// The result is [`Change::Done`], [`Change::Forwarded`] if the fd belongs to another loop, or [`Change::Gone`] if
    /// the fd belongs neither to an open WebSocket nor to a request whose body is being streamed.
    pub fn pause(&mut self, fd: Fd) -> Change {
        self.core.set_paused(fd, true)
    }

    /// Continues reading after [`pause`](Context::pause).
    ///
    /// The results are those of `pause`.
    pub fn resume(&mut self, fd: Fd) -> Change {
        self.core.set_paused(fd, false)
    }

    // The methods below are for timers, settings and other threads.

    /// Calls `closure` once on this loop, `delay` from now (Swoole's `Timer::after`).
    ///
    /// The closure is never called before `delay` has passed. If the loop is busy at that time, the closure is called
    /// later, usually in the current or the next turn of the loop. The delay is rounded up to whole milliseconds.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use fdpush::Server;
    /// Server::bind("127.0.0.1:9501")?
    ///     .on_open(|ctx, fd, _request| {
    ///         ctx.after(Duration::from_secs(5), move |ctx| {
    ///             ctx.push(fd, "five seconds");
    ///         });
    ///     })
    ///     .run()
    /// # ; Ok::<(), fdpush::Error>(())
    /// ```
    pub fn after(&mut self, delay: Duration, closure: impl FnOnce(&mut Context<'_>) + 'static) -> TimerId {
        let mut closure = Some(closure);
        let timer = self.set_timer(delay);
        let call = move |ctx: &mut Context<'_>| closure.take().into_iter().for_each(|closure| closure(ctx));
        self.parts.timers.insert(timer, Box::new(call));
        timer
    }

    /// Calls `closure` every `period` on this loop (Swoole's `Timer::tick`).
    ///
    /// The period is at least a millisecond. A late call does not delay the next call. If a handler blocked the loop
    /// for several periods, the closure is called once for these periods, and the next call follows one period later.
    ///
    /// A closure that panics is called again after the next period. [`cancel`](Context::cancel) ends the timer, also
    /// from within the closure.
    pub fn every(&mut self, period: Duration, closure: impl FnMut(&mut Context<'_>) + 'static) -> TimerId {
        let timer = self.set_interval(period);
        self.parts.timers.insert(timer, Box::new(closure));
        timer
    }

    /// Calls [`on_timer`](crate::Handler::on_timer) once, `delay` from now.
    ///
    /// This method works like [`after`](Context::after), for timers whose calls need access to the
    /// [`Handler`](crate::Handler).
    pub fn set_timer(&mut self, delay: Duration) -> TimerId {
        self.core.add_timer(delay, None)
    }

    /// Calls [`on_timer`](crate::Handler::on_timer) every `period`.
    ///
    /// This method works like [`every`](Context::every), for timers whose calls need access to the
    /// [`Handler`](crate::Handler).
    pub fn set_interval(&mut self, period: Duration) -> TimerId {
        let period = period.max(Duration::from_millis(1));
        self.core.add_timer(period, Some(period))
    }

    /// Ends a timer of this loop.
    ///
    /// Returns whether the timer was running. A one-shot timer ends before its closure is called, so a call of `cancel`
    /// inside this closure returns `false`.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.parts.timers.take(timer);
        self.core.cancel_timer(timer)
    }

    /// Requests one call of [`on_turn_end`](crate::Handler::on_turn_end) at the end of this turn of this loop.
    ///
    /// A request from within `on_turn_end` applies to the end of the next turn, which follows immediately.
    pub fn request_turn_end(&mut self) {
        self.core.request_turn_end();
    }

    /// Returns the limits that the server runs with.
    pub fn limits(&self) -> &Limits {
        self.core.limits()
    }

    /// Sets the limits of the server, on all loops.
    ///
    /// `connections_max`, `control_connections_max` and `inbox_max` keep their values from the start of the server.
    /// Open connections get the new limits within a few turns of the loop. If the deadline of an HTTP head, of a body,
    /// of an answer or of a close handshake is running already, this deadline does not change.
    ///
    /// # Errors
    ///
    /// Returns an error if one of `limits` is invalid. In this case, the server keeps its earlier limits.
    pub fn set_limits(&mut self, limits: Limits) -> Result<(), LimitError> {
        self.core.check_limits(&limits)?;
        self.core.set_limits(limits);
        Ok(())
    }

    /// Sets the origins that browsers may connect from, on all loops. Open connections are not closed.
    pub fn set_origins(&mut self, origins: Origins) {
        self.core.set_origins(origins);
    }

    /// Sets the proxies whose PROXY headers are trusted, for new connections of all loops.
    ///
    /// See [`Server::proxy_protocol`](crate::Server::proxy_protocol).
    pub fn set_trusted_proxies(&mut self, trusts: impl Fn(Peer) -> bool + Send + Sync + 'static) {
        self.core.set_proxies(ProxyFilter::new(trusts));
    }

    /// Returns a handle with which other threads control the server.
    ///
    /// [`call`](Remote::call) runs its closure on this loop, and [`notify`](Remote::notify) sends its notice to the
    /// handler of this loop.
    pub fn remote(&self) -> Remote {
        Remote::new(self.loop_index(), self.parts.fleet.clone())
    }

    /// Returns the number of this loop, from 0.
    ///
    /// See [`Server::loops`](crate::Server::loops).
    pub fn loop_index(&self) -> usize {
        self.core.siblings().map_or(0, |siblings| siblings.index())
    }

    /// Returns the number of loops.
    pub fn loop_count(&self) -> usize {
        self.core.siblings().map_or(1, |siblings| siblings.loops())
    }

    /// Returns whether an fd belongs to this loop.
    ///
    /// The number of the fd determines the loop. So the result does not depend on whether a connection has this fd.
    pub fn is_own(&self, fd: Fd) -> bool {
        self.core.owns(fd)
    }

    /// Shuts the server down gracefully, on all loops (Swoole's `shutdown`).
    ///
    /// The server accepts no more connections. The server closes every WebSocket with code 1001, and spreads the closes
    /// over [`drain_for`](Limits::drain_for). [`run`](crate::Server::run) returns when the last connection has ended,
    /// or after [`drain_time_max`](Limits::drain_time_max). A second call has no effect.
    pub fn shutdown(&mut self) {
        self.core.shut_down();
    }

    /// Returns whether this loop is [shutting down](Context::shutdown).
    ///
    /// Each other loop begins to shut down in one of its next turns.
    pub fn is_draining(&self) -> bool {
        self.core.is_draining()
    }
}
