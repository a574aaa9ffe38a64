//! The methods of [`Context`]: the actions that a handler can take.

use std::time::Duration;

use crate::connection::{AbortOutcome, CloseOutcome};
use crate::event_loop::{Context, Info, Proxies, Stats, TimerId};
use crate::fd::Fd;
use crate::limits::{Heartbeat, LimitError, Limits};
use crate::message::{Delivery, Outcome, Push};
use crate::peer::Peer;
use crate::protocol::close::CloseCode;
use crate::protocol::origin::Origins;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Upgrade;
use crate::registry::Change;
use crate::remote::Remote;
use crate::ticket::Ticket;

impl Context<'_> {
    // Push.

    /// Point to point, to a connection.
    pub fn push<'p>(&mut self, fd: Fd, push: impl Into<Push<'p>>) -> Outcome {
        self.core.push(fd, push.into())
    }

    /// To several connections. One that is named twice gets it once; one that is gone is not `matched`.
    pub fn push_fds<'p>(&mut self, fds: impl IntoIterator<Item = Fd>, push: impl Into<Push<'p>>) -> Delivery {
        self.core.push_fds(fds.into_iter(), push.into())
    }

    /// Point to point, to a person: to every connection of the uid. `matched` is 0 when it is offline.
    pub fn push_uid<'p>(&mut self, uid: &str, push: impl Into<Push<'p>>) -> Delivery {
        self.core.push_uids(std::iter::once(uid), push.into())
    }

    /// To several persons. A uid that is named twice gets it once.
    pub fn push_uids<'u, 'p>(
        &mut self,
        uids: impl IntoIterator<Item = &'u str>,
        push: impl Into<Push<'p>>,
    ) -> Delivery {
        self.core.push_uids(uids.into_iter(), push.into())
    }

    /// To the members of a group.
    pub fn push_group<'p>(&mut self, group: &str, push: impl Into<Push<'p>>) -> Delivery {
        self.core.push_groups(std::iter::once(group), push.into())
    }

    /// To the members of several groups. A member of more than one gets it once.
    pub fn push_groups<'g, 'p>(
        &mut self,
        groups: impl IntoIterator<Item = &'g str>,
        push: impl Into<Push<'p>>,
    ) -> Delivery {
        self.core.push_groups(groups.into_iter(), push.into())
    }

    /// To all: every open WebSocket, bound or not.
    pub fn broadcast<'p>(&mut self, push: impl Into<Push<'p>>) -> Delivery {
        self.core.broadcast(push.into())
    }

    /// Sends a ping, at most 125 bytes. The heartbeat sends its own. `Dropped`: the queue is full; whatever the policy for
    /// slow readers, the connection goes on.
    pub fn ping(&mut self, fd: Fd, payload: &[u8]) -> Outcome {
        self.core.ping(fd, payload)
    }

    // uids.

    /// Says who a connection is. An earlier uid of the connection is replaced; the uid's other connections stay, or are
    /// kicked, or refuse this one, as [`Server::second_login`](crate::Server::second_login) has it. A uid has 1 to 128
    /// bytes. It is unbound by itself when the connection ends.
    pub fn bind(&mut self, fd: Fd, uid: impl AsRef<str>) -> Change {
        self.core.bind(fd, uid.as_ref())
    }

    /// Takes a connection's uid away.
    pub fn unbind(&mut self, fd: Fd) -> Change {
        self.core.unbind(fd)
    }

    /// Who a connection is; inside its `on_close`, who it was. The name is lent by the context: to go on with that, for
    /// instance to push, keep one's own copy, `ctx.uid_of(fd).map(str::to_owned)`. The same goes for
    /// [`groups_of`](Context::groups_of), [`users`](Context::users), [`groups`](Context::groups) and
    /// [`connections`](Context::connections), whose items can be collected first.
    pub fn uid_of(&self, fd: Fd) -> Option<&str> {
        self.core.uid_of(fd)
    }

    /// A person's connections, the last bound first.
    pub fn fds_of(&self, uid: &str) -> Vec<Fd> {
        self.core.registry().slots_of(uid).map(|slot| self.core.table().fd_of(slot)).collect()
    }

    /// The number of connections of a uid. It costs the same for any number of them.
    pub fn connection_count(&self, uid: &str) -> usize {
        self.core.registry().count_of(uid)
    }

    /// Whether a person has a connection.
    pub fn is_online(&self, uid: &str) -> bool {
        self.core.registry().count_of(uid) > 0
    }

    /// The uids that have a connection, each with how many. In no order.
    pub fn users(&self) -> impl Iterator<Item = (&str, usize)> {
        self.core.registry().users()
    }

    // Groups.

    /// Puts a connection into a group, which need not exist. A name has 1 to 128 bytes. It leaves by itself when it ends.
    ///
    /// [`Change::Full`]: it is in [`connection_groups_max`](crate::Limits::connection_groups_max) groups, or all connections
    /// together have [`memberships_max`](crate::Limits::memberships_max).
    pub fn join(&mut self, fd: Fd, group: impl AsRef<str>) -> Change {
        self.core.join(fd, group.as_ref())
    }

    /// Takes a connection out of a group.
    pub fn leave(&mut self, fd: Fd, group: &str) -> Change {
        self.core.leave(fd, group)
    }

    /// Takes everyone out of a group, and says how many that were.
    pub fn ungroup(&mut self, group: &str) -> usize {
        self.core.ungroup(group)
    }

    /// A group's members. In no order.
    pub fn members(&self, group: &str) -> Vec<Fd> {
        self.core.registry().members(group).map(|slot| self.core.table().fd_of(slot)).collect()
    }

    /// How many members a group has.
    pub fn member_count(&self, group: &str) -> usize {
        self.core.registry().members(group).len()
    }

    /// Whether a connection is in a group.
    pub fn is_member(&self, fd: Fd, group: &str) -> bool {
        self.core.table().slot_of(fd).is_some_and(|slot| self.core.registry().is_member(slot, group))
    }

    /// A connection's groups, the last joined first; inside its `on_close`, those it was in.
    pub fn groups_of(&self, fd: Fd) -> Vec<&str> {
        self.core.groups_of(fd)
    }

    /// The groups that have members, each with how many. In no order.
    pub fn groups(&self) -> impl Iterator<Item = (&str, usize)> {
        self.core.registry().groups()
    }

    // Connections.

    /// Closes a WebSocket with a code and a reason of at most 123 bytes (Swoole's `disconnect`).
    ///
    /// Queued messages are sent before the close frame. The socket is closed when the client has answered (RFC 6455
    /// section 7.1.2), or after [`close_wait_max`](Limits::close_wait_max).
    pub fn close(&mut self, fd: Fd, code: impl Into<CloseCode>, reason: &str) -> CloseOutcome {
        self.core.close(fd, code.into(), reason)
    }

    /// Drops a connection at once, in any state: without a close frame and without its queued messages.
    ///
    /// The connection may be an open WebSocket, one whose client has not answered a close frame, or an HTTP connection.
    pub fn abort(&mut self, fd: Fd) -> AbortOutcome {
        self.core.abort(fd)
    }

    /// Whether there is a connection with this fd, in whatever state (Swoole's `exists`).
    pub fn exists(&self, fd: Fd) -> bool {
        self.core.table().slot_of(fd).is_some()
    }

    /// Whether it is an open WebSocket, which can be pushed to (Swoole's `isEstablished`).
    pub fn is_open(&self, fd: Fd) -> bool {
        self.core.open_slot(fd).is_some()
    }

    /// What is known of a connection; `None` when it is gone. It is still there inside its `on_close`.
    pub fn info(&self, fd: Fd) -> Option<Info> {
        self.core.info(fd)
    }

    /// The open WebSockets, lowest slot first.
    pub fn connections(&self) -> impl Iterator<Item = Fd> {
        self.core.connections()
    }

    /// The open WebSockets a page at a time: at most `limit`, in the order of their slots, behind `after`, which is the
    /// last of the page before, whether it is still there or not. Page by page, whoever stays connected all the while is
    /// named once. Costs what is on the page.
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Vec<Fd> {
        self.core.connections_after(after, limit)
    }

    /// Keeps a control connection: it is not closed to make room for another one. A handler calls it once it knows that the
    /// request comes from a back end of its own, and before it carries the request out. It has effect until the connection
    /// ends, or until [`release_control`](Context::release_control).
    ///
    /// `false`: [`control_connections_max`](Limits::control_connections_max) others are kept, or it is no control
    /// connection. The first is counted as [`control_refused`](Stats::control_refused); 503 is the answer to give.
    pub fn keep_control(&mut self, fd: Fd) -> bool {
        self.core.keep_control(fd)
    }

    /// Keeps a control connection no longer, of which a key is not valid any more.
    pub fn release_control(&mut self, fd: Fd) {
        self.core.release_control(fd);
    }

    /// Stores a value of any type with a connection, in place of the one before.
    ///
    /// It can be set from `on_upgrade` on. It is dropped when the connection's `on_close` has returned, or when a
    /// connection ends that never opened. So its `Drop` tells when the client of a deferred upgrade has gone. A
    /// connection without a value takes no memory for it.
    ///
    /// The result is [`Change::Done`], or [`Change::Gone`] if no connection has this fd or it is closing.
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

    /// Calls `call` with the value of a connection and with the context, for instance to push what the value holds.
    ///
    /// The value is taken out for the call and put back after it, unless the call set another one. A panic drops it.
    /// `None`: the connection has no value, or one of another type.
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

    /// The value that [`set_session`](Context::set_session) keeps with a connection. `None`: there is none, or it is no
    /// `T`.
    pub fn session<T: 'static>(&self, fd: Fd) -> Option<&T> {
        self.core.session(fd)?.downcast_ref()
    }

    /// The same, to change.
    pub fn session_mut<T: 'static>(&mut self, fd: Fd) -> Option<&mut T> {
        self.core.session_mut(fd)?.downcast_mut()
    }

    /// Takes the value away from a connection. One that is no `T` stays.
    pub fn take_session<T: 'static>(&mut self, fd: Fd) -> Option<T> {
        self.session::<T>(fd)?;
        self.core.take_session(fd)?.downcast().ok().map(|session| *session)
    }

    /// The server in numbers. Costs the same however many connections there are.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Gives a connection its own heartbeat in place of the server's.
    ///
    /// The result is [`Change::Done`], or [`Change::Gone`] if no connection has this fd or it is closing.
    ///
    /// # Errors
    /// A period or count of the heartbeat is invalid. Nothing was changed.
    pub fn set_heartbeat(&mut self, fd: Fd, heartbeat: Heartbeat) -> Result<Change, LimitError> {
        heartbeat.check()?;
        Ok(Change::done_or_gone(self.core.set_heartbeat(fd, Some(heartbeat))))
    }

    /// Gives a connection the heartbeat of the server again.
    ///
    /// It undoes [`set_heartbeat`](Context::set_heartbeat) and [`protect`](Context::protect). The result is
    /// [`Change::Done`], or [`Change::Gone`] if no connection has this fd or it is closing.
    pub fn reset_heartbeat(&mut self, fd: Fd) -> Change {
        Change::done_or_gone(self.core.set_heartbeat(fd, None))
    }

    /// Exempts a connection from heartbeats (Swoole's `protect`).
    ///
    /// [`reset_heartbeat`](Context::reset_heartbeat) undoes it. The result is [`Change::Done`], or [`Change::Gone`] if no
    /// connection has this fd or it is closing.
    pub fn protect(&mut self, fd: Fd) -> Change {
        Change::done_or_gone(self.core.set_heartbeat(fd, Some(Heartbeat::Off)))
    }

    /// Bytes that wait to be written to a connection; 0 when it is gone.
    pub fn queued_bytes(&self, fd: Fd) -> usize {
        self.core.queued_bytes(fd)
    }

    /// Bytes in the queues of all WebSockets, which [`queue_total_bytes_max`](Limits::queue_total_bytes_max) bounds.
    pub fn queued_bytes_total(&self) -> usize {
        self.core.total_queued_bytes()
    }

    /// The longest queue, in bytes, that a message was pushed to since the last call. A handler with much to push learns by
    /// it when to wait for the readers.
    pub fn take_longest_queue(&mut self) -> usize {
        self.core.take_longest_queue()
    }

    /// Stops reading from a WebSocket, or from a request whose body comes in pieces.
    ///
    /// The client's bytes wait in the kernel, and TCP slows the client down. Messages that were read together with the
    /// current one, up to [`read_budget_bytes`](Limits::read_budget_bytes), are still delivered. Until
    /// [`resume`](Context::resume), the server notices neither answers to heartbeats nor the end of the stream. It does
    /// notice a broken connection. [`body_time_max`](Limits::body_time_max) does not apply meanwhile.
    ///
    /// The result is [`Change::Done`], or [`Change::Gone`] if the fd belongs to no such connection.
    pub fn pause(&mut self, fd: Fd) -> Change {
        Change::done_or_gone(self.core.set_paused(fd, true))
    }

    /// Continues reading after [`pause`](Context::pause).
    ///
    /// The result is [`Change::Done`], or [`Change::Gone`] if the fd belongs to no connection that can be paused.
    pub fn resume(&mut self, fd: Fd) -> Change {
        Change::done_or_gone(self.core.set_paused(fd, false))
    }

    /// Defers the answer to an upgrade, for instance until another thread has queried a database.
    ///
    /// `on_upgrade` returns the [`Upgrade`]. The [`Ticket`] answers later, within
    /// [`answer_time_max`](Limits::answer_time_max). After that the client gets a 503.
    ///
    /// If the client disconnects before the answer, or shuts down its side of the stream, the connection ends. The value
    /// of [`set_session`](Context::set_session) is dropped then.
    ///
    /// ```no_run
    /// # use fdpush::{Response, Server, Upgrade};
    /// # fn uid_of(cookie: Option<String>) -> Option<String> { cookie }
    /// Server::bind("127.0.0.1:9501")?
    ///     .on_upgrade(|ctx, fd, request| {
    ///         let (later, ticket) = ctx.defer_upgrade(fd);
    ///         let cookie = request.header("cookie").map(str::to_owned);
    ///         std::thread::spawn(move || match uid_of(cookie) {
    ///             Some(uid) => ticket.answer(Upgrade::accept().uid(uid)),
    ///             None => ticket.answer(Response::text(401, "log in first\n")),
    ///         });
    ///         later
    ///     })
    ///     .run()
    /// # ; Ok::<(), fdpush::Error>(())
    /// ```
    #[must_use = "on_upgrade must return the Upgrade"]
    pub fn defer_upgrade(&mut self, fd: Fd) -> (Upgrade, Ticket<Upgrade>) {
        let deferral = self.core.deferrals().number();
        (Upgrade::Later(deferral), Ticket::new(fd, deferral, self.host.sender.clone()))
    }

    /// Defers the response to a plain HTTP request.
    ///
    /// `on_request` returns the [`Response`]. The [`Ticket`] answers later, within
    /// [`answer_time_max`](Limits::answer_time_max). After that the client gets a 503.
    #[must_use = "on_request must return the Response"]
    pub fn defer_response(&mut self, fd: Fd) -> (Response, Ticket<Response>) {
        let deferral = self.core.deferrals().number();
        (Response::deferred(deferral), Ticket::new(fd, deferral, self.host.sender.clone()))
    }

    /// Gives a deferred answer from a handler.
    ///
    /// It is [`Ticket::answer`] without the way through the inbox. The answer is dropped if the client has gone or got
    /// a 503 meanwhile.
    pub fn answer<A: Into<Upgrade>>(&mut self, ticket: Ticket<A>, answer: impl Into<A>) {
        let (fd, deferral) = ticket.into_parts();
        self.core.deferrals().answer(fd, deferral, answer.into().into());
    }

    // HTTP in pieces.

    /// Begins the response to a request whose body comes in pieces; its own body follows in pieces, too, and what body
    /// `response` has is not sent. `Gone`: nothing waits for a response there, or one was begun.
    ///
    /// A client that waits for a `100 Continue` before it sends its body is not sent one behind a response: begin it with
    /// the first piece rather than with the head.
    pub fn begin_response(&mut self, fd: Fd, response: &Response) -> Outcome {
        self.core.reply(fd, |connection, env| connection.begin_response(response, env))
    }

    /// Sends a piece of the response's body. `Gone`: none was begun there, or its connection has ended. `Dropped`: the
    /// client does not read, and more than [`queue_bytes_max`](Limits::queue_bytes_max) would wait for it; the connection
    /// is ended, so that the client sees that the response is not whole.
    pub fn write_response(&mut self, fd: Fd, piece: &[u8]) -> Outcome {
        self.core.write_reply(fd, piece)
    }

    /// Ends the response. If the request's body was not all there, so does the connection.
    pub fn end_response(&mut self, fd: Fd) -> Outcome {
        self.core.reply(fd, |connection, env| connection.end_response(env))
    }

    // Time, and other threads.

    /// Calls `closure` once, `delay` from now (Swoole's `Timer::after`).
    ///
    /// It is never called early. It is called late by at most the turn of the loop in progress. A delay is rounded up
    /// to a millisecond.
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
        self.host.timers.insert(timer, Box::new(call));
        timer
    }

    /// Calls `closure` every `period` (Swoole's `Timer::tick`).
    ///
    /// The period is at least a millisecond. A late call does not delay the next one. If a handler blocked the loop for
    /// several periods, one call stands for all of them, and the next comes a whole period later.
    ///
    /// A closure that panics is called again after the next period. [`cancel`](Context::cancel) ends the timer, also
    /// from within the closure.
    pub fn every(&mut self, period: Duration, closure: impl FnMut(&mut Context<'_>) + 'static) -> TimerId {
        let timer = self.set_interval(period);
        self.host.timers.insert(timer, Box::new(closure));
        timer
    }

    /// Calls [`on_timer`](crate::Handler::on_timer) once, `delay` from now.
    ///
    /// It is [`after`](Context::after) for a timer that needs the handler itself.
    pub fn set_timer(&mut self, delay: Duration) -> TimerId {
        self.core.add_timer(delay, None)
    }

    /// Calls [`on_timer`](crate::Handler::on_timer) every `period`.
    ///
    /// It is [`every`](Context::every) for a timer that needs the handler itself.
    pub fn set_interval(&mut self, period: Duration) -> TimerId {
        let period = period.max(Duration::from_millis(1));
        self.core.add_timer(period, Some(period))
    }

    /// Ends a timer.
    ///
    /// Returns whether it was still to fire. A timer that fires once has ended when it is called.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.host.timers.take(timer);
        self.core.cancel_timer(timer)
    }

    /// Calls [`on_turn_end`](crate::Handler::on_turn_end) once, at the end of this turn of the loop; from `on_turn_end`
    /// itself, at the end of the next, which follows at once.
    pub fn request_turn_end(&mut self) {
        self.core.request_turn_end();
    }

    /// The bounds that the server runs with.
    pub fn limits(&self) -> &Limits {
        &self.core.table().env().limits
    }

    /// Sets the bounds anew; what came before is not judged again. `connections_max`, `control_connections_max` and
    /// `inbox_max` stay as they were when the server started. Connections that are there have the new bounds within a few
    /// turns of the loop, but for the time of an HTTP head, a body, an answer, or a close that has begun.
    ///
    /// # Errors
    /// Names the bound that cannot be; nothing has changed then.
    pub fn set_limits(&mut self, limits: Limits) -> Result<(), LimitError> {
        limits.check()?;
        self.core.set_limits(limits);
        Ok(())
    }

    /// Sets anew where browsers may come from. Connections that are open stay.
    pub fn set_origins(&mut self, origins: Origins) {
        self.core.set_origins(origins);
    }

    /// Sets anew whose PROXY headers are believed: see [`Server::proxy_protocol`](crate::Server::proxy_protocol). It holds for
    /// connections to come.
    pub fn set_trusted_proxies(&mut self, trusts: impl Fn(Peer) -> bool + Send + 'static) {
        self.core.set_proxies(Proxies::new(trusts));
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        Remote::new(self.host.sender.clone())
    }

    /// Shuts the server down gracefully (Swoole's `shutdown`).
    ///
    /// The server accepts no more connections and closes every WebSocket with 1001, spread over
    /// [`drain_for`](Limits::drain_for). [`run`](crate::Server::run) returns when the last connection has ended, or after
    /// [`drain_time_max`](Limits::drain_time_max). Calling it again does nothing.
    pub fn shutdown(&mut self) {
        self.core.begin_drain();
    }

    /// Returns whether the server is [shutting down](Context::shutdown).
    pub fn is_draining(&self) -> bool {
        self.core.is_draining()
    }
}
