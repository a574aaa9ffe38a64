//! The state of the loop, and the actions of handlers on this state.
//!
//! This module calls no handler. This module queues closed connections and deferred answers. The loop handles these
//! closes and answers when the current handler has returned.

mod across;
mod close;
mod control;
mod drain;
mod limits;
mod names;
mod open;
mod push;
mod report;
mod session;
mod time;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::time::SystemTime;

use crate::connection::{AbortOutcome, Cause, Closed, Connection, Env, Event, SlotSet};
use crate::event_loop::clock::Epoch;
use crate::event_loop::deferrals::Deferrals;
use crate::event_loop::drain::Drain;
use crate::event_loop::limit_update::LimitUpdate;
use crate::event_loop::listener::ListenerKind;
use crate::event_loop::proxies::ProxyFilter;
use crate::event_loop::ready_list::ReadyList;
use crate::event_loop::sessions::Sessions;
use crate::event_loop::siblings::Siblings;
use crate::event_loop::socket::{Listing, Socket};
use crate::event_loop::stats::Counters;
use crate::event_loop::timers::Timers;
use crate::event_loop::tls_sessions::TlsSessions;
use crate::event_loop::visited_slots::VisitedSlots;
use crate::fd::{Fd, Slot};
use crate::peer::Peer;
use crate::protocol::close::CloseCode;
use crate::protocol::request::Request;
use crate::protocol::response::Response;
use crate::protocol::upgrade::Accept;
use crate::registry::{FormerNames, Registry, SecondLogin};
use crate::tick::Tick;
use crate::tls::ListenerTls;
use crate::wheel::{Owner, Wheel};

/// The connections of a loop by slot.
pub type Table = crate::connection::Table<Socket>;

const _: () = assert!(Table::ENTRY_BYTES <= 128, "the entry of a connection must fit into two cache lines");

/// The state of a loop: connections, uids and groups, deadlines and counters.
///
/// The methods of `Core` are of two kinds. A [`Context`](crate::Context) calls the actions of handlers, such as
/// [`push`](Core::push), [`bind`](Core::bind) and [`close`](Core::close). The [`EventLoop`](super::EventLoop) calls the
/// following methods, once or more in each turn, in this order:
///
/// 1. [`set_time`](Core::set_time) with the time of the turn. All deadlines are compared with the time of the turn.
/// 2. [`insert`](Core::insert) for each accepted socket.
/// 3. [`take_ready`](Core::take_ready) for the connections to read. The loop passes their input to the table, which
///    returns messages that borrow from the read buffer.
/// 4. [`advance`](Core::advance), then [`pop_expired`](Core::pop_expired) until no deadline has expired.
/// 5. [`begin_on_close`](Core::begin_on_close) for each closed connection. The loop makes this call also after each
///    read and each timer.
/// 6. [`reap`](Core::reap) for each finished connection, after the output of the turn is written. A slot is not freed
///    earlier, so that an event of this turn cannot reach a new connection in the same slot.
/// 7. [`end_turn`](Core::end_turn) with the duration of the turn.
///
/// [`step`](Core::step) makes every transition that may end a connection, except input and pushes. The duties of `step`
/// are, in this order:
///
/// 1. `step` adds the connection to the list of connections to flush: [`Table::step`].
/// 2. `step` records the end of the connection, if the transition ended it. The connection is removed from the registry
///    and the counters, and its `on_close` is queued. No other call may come between the transition and this record.
/// 3. `step` records the slow consumers that the table closed to keep its limits:
///    [`record_slow_consumers`](Core::record_slow_consumers).
/// 4. `step` arms the timer wheel with the next timeout of the connection: [`arm`](Core::arm).
///
/// [`change`](Core::change) makes every transition that cannot end a connection, with the duties 1, 3 and 4.
/// [`accept`](Core::accept) and [`respond`](Core::respond) have the same duties, and do more work before duty 3. The
/// same duties apply to input: the loop records each event of the input, and arms the timer wheel after the read if a
/// deadline may have changed.
#[derive(Debug)]
pub struct Core {
    table: Table,
    registry: Registry,
    wheel: Wheel,
    timers: Timers,
    second_login: SecondLogin,
    /// Closed connections whose `on_close` was not called yet.
    pending_closes: VecDeque<PendingClose>,
    /// The numbers of tickets, and the answers to deferred requests.
    deferrals: Deferrals,
    /// Connections to read in the next turn without an event of epoll.
    ready: ReadyList,
    /// The closed connection whose `on_close` is running.
    current_close: Option<PendingClose>,
    /// The session values of connections.
    sessions: Sessions,
    counters: Counters,
    epoch: Epoch,
    /// The wall-clock time of tick 0, according to the present setting of the wall clock.
    started: SystemTime,
    connections_max: usize,
    control_connections_max: u32,
    /// The proxies whose PROXY headers are trusted.
    proxies: ProxyFilter,
    /// The drain, set by the first shutdown. During a drain no client is accepted. The loop ends when the drain is
    /// complete.
    drain: Option<Drain>,
    /// Whether `on_turn_end` was requested for this turn.
    wants_turn_end: bool,
    /// A change of limits that is not applied to all connections yet.
    limit_update: Option<LimitUpdate>,
    /// The slots of open WebSockets.
    open: SlotSet,
    /// The slots that the current search for receivers has found.
    visited: VisitedSlots,
    /// The list of the receivers of the current push. All pushes reuse the memory of this list.
    found: Vec<Slot>,
    /// The other loops, or `None` if the server has one loop.
    siblings: Option<Box<Siblings>>,
}

/// A closed connection whose `on_close` was not called yet.
#[derive(Debug)]
pub struct PendingClose {
    pub fd: Fd,
    pub closed: Closed,
    pub names: FormerNames,
}

impl Core {
    /// Creates a core without connections.
    ///
    /// `connections_max` is the limit of client connections of all loops together. The core reserves address space for
    /// `reserved` connections.
    pub fn new(
        connections_max: usize,
        reserved: usize,
        control_connections_max: u32,
        env: Env,
        second_login: SecondLogin,
        epoch: Epoch,
    ) -> Core {
        let mut wheel = Wheel::new(env.now);
        let mut registry = Registry::new();
        let table = Table::new(reserved, env, TlsSessions::default());
        wheel.reserve(table.capacity());
        registry.reserve(table.capacity());
        Core {
            wheel,
            table,
            registry,
            timers: Timers::default(),
            second_login,
            pending_closes: VecDeque::new(),
            deferrals: Deferrals::default(),
            ready: ReadyList::default(),
            current_close: None,
            sessions: Sessions::default(),
            counters: Counters::default(),
            epoch,
            started: SystemTime::now(),
            connections_max,
            control_connections_max,
            proxies: ProxyFilter::default(),
            drain: None,
            wants_turn_end: false,
            limit_update: None,
            open: SlotSet::default(),
            visited: VisitedSlots::default(),
            found: Vec::new(),
            siblings: None,
        }
    }

    /// Adds an accepted connection, and returns its slot. Returns `None` if all slots are in use or retired.
    ///
    /// With `tls`, the connection gets a TLS session.
    pub fn insert(
        &mut self,
        mut socket: Socket,
        peer: Peer,
        kind: ListenerKind,
        tls: Option<&ListenerTls>,
    ) -> Option<Slot> {
        if tls.is_some() {
            socket.set_tls();
        }
        let env = self.table.env();
        let connection = match kind {
            ListenerKind::Client => Connection::new(peer, env),
            ListenerKind::Proxied => Connection::new_proxied(peer, env),
            ListenerKind::Control => Connection::new_control(peer, env),
        };
        let descriptor = socket.as_raw_fd();
        let fd = self.table.insert(socket, connection)?;
        let slot = self.table.own_slot(fd);
        if let Some(tls) = tls
            && !self.insert_session(descriptor, kind, tls)
        {
            self.table.remove(slot);
            return None;
        }
        if self.ready.occupy(slot)
            && let Some(socket) = self.table.transport_mut(slot)
        {
            socket.listing = Listing::Ready;
        }
        Some(slot)
    }

    /// Adds the TLS session of a socket that is in the table. Returns `false` if the TLS settings are invalid.
    fn insert_session(&mut self, descriptor: RawFd, kind: ListenerKind, tls: &ListenerTls) -> bool {
        let (read_bytes, inbound) = (self.table.env().limits.read_budget_bytes, self.table.env().inbound.clone());
        let sessions = self.table.shared_mut();
        sessions.make_buffers(read_bytes, inbound);
        sessions.insert(descriptor, tls, kind == ListenerKind::Control, kind == ListenerKind::Proxied)
    }

    /// Removes a connection, at the end of a turn or because it cannot be added to epoll.
    pub fn remove(&mut self, slot: Slot) {
        if self.table.transport(slot).is_some_and(|socket| socket.listing == Listing::Ready) {
            self.ready.vacate(slot);
        }
        if let Some(siblings) = &self.siblings
            && self.table.connection(slot).is_some_and(|connection| !connection.is_control())
        {
            siblings.process().admission.release(siblings.index());
        }
        self.table.remove(slot);
    }

    /// Returns the limit of connections, not counting control connections.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Returns whether `peer` is a trusted proxy.
    pub fn trusts(&self, peer: Peer) -> bool {
        self.proxies.trusts(peer)
    }

    /// Returns the table of connections.
    #[inline]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the connection of `fd`.
    pub fn connection(&self, fd: Fd) -> Option<&Connection> {
        self.table.connection(self.table.slot_of(fd)?)
    }

    /// Returns the table of connections, for input, output and readiness.
    #[inline]
    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Returns the time of this turn.
    #[inline]
    pub fn now(&self) -> Tick {
        self.table.env().now
    }

    // The methods below make transitions of connections.

    /// Makes a transition of a connection. Returns whether the transition closed an open WebSocket.
    pub fn step(
        &mut self,
        slot: Slot,
        transition: impl FnOnce(&mut Connection, &mut Env) -> Option<Event<'static>>,
    ) -> bool {
        let Some(event) = self.table.step(slot, transition) else { return false };
        let has_ended = self.record_end(slot, event);
        self.record_slow_consumers();
        self.arm(slot);
        has_ended
    }

    /// Makes a transition that cannot end the connection. Returns `None` if there is no connection at the slot.
    pub fn change<R>(&mut self, slot: Slot, transition: impl FnOnce(&mut Connection, &mut Env) -> R) -> Option<R> {
        let result = self.table.step(slot, transition)?;
        self.record_slow_consumers();
        self.arm(slot);
        Some(result)
    }

    /// Drops one connection immediately, in any state.
    ///
    /// No close frame is sent, and the queue of the connection is dropped.
    pub fn abort(&mut self, fd: Fd) -> AbortOutcome {
        let Some(slot) = self.table.slot_of(fd) else { return self.abort_elsewhere(fd) };
        if self.table.connection(slot).is_none_or(Connection::is_finished) {
            return AbortOutcome::Gone;
        }
        AbortOutcome::Aborted { was_open: self.step(slot, Connection::abort) }
    }

    /// Starts the close handshake, and returns whether the WebSocket was open.
    pub fn close_slot(&mut self, slot: Slot, code: CloseCode, reason: &str, cause: Cause) -> bool {
        self.step(slot, |connection, env| connection.close(code, reason, cause, env))
    }

    /// Accepts an upgrade: see [`Connection::accept`].
    ///
    /// # Errors
    ///
    /// Returns an error if the answer of the handler is invalid. In this case, the client gets status 500.
    pub fn accept(&mut self, slot: Slot, accept: &Accept, request: &Request<'_>) -> Result<Option<Vec<u8>>, String> {
        let fd = self.table.fd_of(slot);
        let accepted = self.table.step(slot, |connection, env| connection.accept(fd, accept, request, env));
        let Some(accepted) = accepted else { return Ok(None) };
        if let Ok(Some(_)) = accepted {
            self.counters.opened += 1;
            self.counters.open += 1;
            self.open.insert(slot);
            if let Some(siblings) = &self.siblings {
                siblings.process().count_opened(siblings.index());
            }
        }
        self.record_slow_consumers();
        accepted
    }

    /// Sends the response to the current request of a connection.
    pub fn respond(&mut self, slot: Slot, response: Response) {
        self.table.step(slot, |connection, env| connection.respond(response, env));
        if self.table.transport(slot).is_some_and(|socket| socket.is_readable) {
            self.make_ready(slot);
        }
        if !self.table.keep_http_bound(slot) {
            log::debug!(
                "fd {}: response dropped: queue limit reached and the client does not read",
                self.table.fd_of(slot)
            );
            self.table.drop_response(slot);
        }
        self.record_slow_consumers();
        self.arm(slot);
    }

    /// Handles the end of the client's stream, or a reset.
    pub fn handle_end(&mut self, slot: Slot, is_reset: bool) {
        self.step(slot, |connection, _| connection.handle_end(is_reset));
    }

    /// Records the end of a connection, if `event` reports an end. Returns whether an open WebSocket closed.
    pub fn record_end(&mut self, slot: Slot, event: Option<Event<'_>>) -> bool {
        let closed = match event {
            Some(Event::Closed(closed)) => closed,
            Some(Event::Refused(refusal)) => {
                self.count_refusal(self.table.fd_of(slot), &refusal);
                return false;
            }
            _ => return false,
        };
        if self.table.transport(slot).is_some_and(|socket| socket.is_readable) {
            // If reading was paused, the socket has unread bytes. The loop now reads these bytes, to find the client's
            // close frame.
            self.make_ready(slot);
        }
        let names = self.registry.remove(slot);
        self.counters.open -= 1;
        self.open.remove(slot);
        self.counters.closed += 1;
        *self.counters.closed_by_cause.entry(closed.cause.as_str()).or_default() += 1;
        let fd = self.table.fd_of(slot);
        self.release_names(fd, &names);
        self.pending_closes.push_back(PendingClose { fd, closed, names });
        true
    }

    /// Records the slow consumers that the table closed.
    #[inline]
    pub fn record_slow_consumers(&mut self) {
        if self.table.has_ended() {
            self.record_all_slow_consumers();
        }
    }

    #[cold]
    fn record_all_slow_consumers(&mut self) {
        while let Some((slot, event)) = self.table.poll_ended() {
            self.record_end(slot, Some(event));
        }
    }

    // The methods below return the work that the loop does next.

    /// Removes and returns the next closed connection for which `on_close` must be called.
    ///
    /// The uid and the groups of the returned connection are available until [`end_on_close`](Core::end_on_close).
    #[inline]
    pub fn begin_on_close(&mut self) -> Option<(Fd, Closed)> {
        let close = self.pending_closes.pop_front()?;
        let result = (close.fd, close.closed.clone());
        self.current_close = Some(close);
        Some(result)
    }

    /// Records that `on_close` has returned.
    pub fn end_on_close(&mut self) {
        self.current_close = None;
    }

    /// Returns whether `on_close` must still be called for a closed connection.
    #[inline]
    pub fn has_pending_closes(&self) -> bool {
        !self.pending_closes.is_empty()
    }

    /// Returns the deferred answers.
    #[inline]
    pub fn deferrals(&mut self) -> &mut Deferrals {
        &mut self.deferrals
    }

    /// Records an epoll event of a socket. Returns whether the client has disconnected and the loop will not read the
    /// socket. If the result is `true`, the caller must end the connection, because no read reports the end of the
    /// stream.
    #[inline]
    pub fn handle_readiness(&mut self, slot: Slot, event: &mio::event::Event) -> bool {
        let Some((connection, socket, _)) = self.table.parts(slot) else { return false };
        let is_gone = event.is_error()
            || (event.is_read_closed() && (event.is_write_closed() || connection.is_deferred_upgrade()));
        socket.is_hung_up |= event.is_read_closed() || event.is_error();
        let has_input = event.is_readable() || socket.is_hung_up;
        socket.is_readable |= has_input;
        let is_read = has_input && connection.wants_read();
        if is_read && socket.listing == Listing::None {
            socket.listing = Listing::Ready;
            self.ready.push(slot);
        }
        if event.is_writable() && connection.has_queue() {
            self.table.handle_writable(slot);
        }
        is_gone && !is_read
    }

    /// Adds a connection to the list of connections to read, as if epoll had reported the connection.
    #[inline]
    pub fn make_ready(&mut self, slot: Slot) {
        if let Some(socket) = self.table.transport_mut(slot)
            && socket.listing == Listing::None
        {
            socket.listing = Listing::Ready;
            self.ready.push(slot);
        }
    }

    /// Records that the input of one read has been processed: see [`Table::end_input`].
    #[inline]
    pub fn end_input(&mut self, slot: Slot) -> bool {
        let has_deadline = self.table.end_input(slot);
        self.record_slow_consumers();
        has_deadline
    }

    /// Adds a connection to the list of connections to read, if it is a WebSocket whose buffered input may be processed
    /// now.
    #[inline]
    pub fn resume_input(&mut self, slot: Slot) {
        let holds = |connection: &Connection| !connection.is_http() && connection.has_buffered_input(self.table.env());
        if self.table.connection(slot).is_some_and(holds) {
            self.make_ready(slot);
        }
    }

    /// Moves the list of connections to read into `slots`.
    pub fn take_ready(&mut self, slots: &mut Vec<Slot>) {
        self.ready.take(slots);
    }

    /// Puts `slots` at the front of the list of connections to read. After the call, `slots` is empty.
    #[inline]
    pub fn return_ready(&mut self, slots: &mut Vec<Slot>) {
        self.ready.put_back(slots);
    }

    /// Reports that a slot from the list of connections to read has no connection.
    #[cold]
    pub fn skip_ready(&mut self, slot: Slot) {
        self.ready.skip(slot);
    }

    /// Returns the number of connections to read.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Frees a slot at the end of a turn. A second call for the slot does nothing.
    pub fn reap(&mut self, slot: Slot) {
        let fd = self.table.fd_of(slot);
        self.drop_session(fd);
        self.wheel.cancel(Owner::Connection(slot));
        self.remove(slot);
    }

    /// Panics if the parts of the core are inconsistent. Tests and debug builds call this method.
    pub fn check_invariants(&self) {
        self.registry.check_invariants();
        self.wheel.check_invariants();
        self.table.check_invariants();
        self.ready.check_invariants(|slot| Some(self.table.transport(slot)?.listing == Listing::Ready));
        let is_open = |slot: &Slot| self.table.connection(*slot).is_some_and(Connection::is_open);
        let open = self.table.slots().filter(is_open).count();
        assert_eq!(open, self.counters.open, "the counter must have the number of open WebSockets");
        let is_tls = |slot: &Slot| self.table.transport(*slot).is_some_and(Socket::is_tls);
        let sessions = self.table.shared().count();
        assert_eq!(self.table.slots().filter(is_tls).count(), sessions, "each TLS connection must have a session");
        assert_eq!(
            self.open.iter().filter(is_open).count(),
            open,
            "the set of open slots must contain each open WebSocket"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::limits::{Heartbeat, Limits};
    use crate::protocol::origin::Origins;
    use crate::registry::Change;

    fn core() -> Core {
        let env = Env::new(Limits::default(), Heartbeat::default(), Origins::default());
        Core::new(1000, 1000, 256, env, SecondLogin::default(), Epoch::begin())
    }

    fn insert(core: &mut Core) -> Slot {
        let (server, _client) = UnixStream::pair().expect("a pair of sockets can be created");
        core.insert(Socket::new(server.into()), Peer::Unix, ListenerKind::Client, None)
            .expect("the table has a free slot")
    }

    #[test]
    fn a_reserved_uid_is_not_bound_to_a_connection_that_is_not_open() {
        for policy in [SecondLogin::Multi, SecondLogin::KickOld, SecondLogin::RejectNew] {
            let mut core = Core { second_login: policy, ..core() };
            let slot = insert(&mut core);
            assert_eq!(core.reserve(slot, "u"), Change::Done);
            // The table can close a connection as a slow consumer while the upgrade of this connection is accepted.
            assert_eq!(core.bind_reserved(slot, "u"), Change::Gone);
            assert_eq!((core.connection_count("u"), core.registry().uid_of(slot)), (0, None));
            core.check_invariants();
        }
    }

    #[test]
    fn the_list_of_connections_to_read_contains_a_reused_slot_only_once() {
        let mut core = core();
        let slots = [insert(&mut core), insert(&mut core), insert(&mut core)];
        for slot in slots {
            core.make_ready(slot);
        }
        // At the end of the turn, the first two connections are freed. The second connection is freed twice, as if its
        // end were reported twice. Then a new connection reuses the slot of the first connection.
        for slot in [slots[1], slots[0], slots[1]] {
            core.reap(slot);
            core.check_invariants();
        }
        assert_eq!(insert(&mut core), slots[0], "the slot that was freed last must be reused");
        core.make_ready(slots[0]);
        core.check_invariants();
        assert_eq!(core.ready_len(), 3, "each slot must be in the list once");

        // The next turn reads the connection at the first slot, and finds no connection at the second slot.
        let mut taken = Vec::new();
        core.take_ready(&mut taken);
        assert_eq!(taken.remove(0), slots[0]);
        core.table_mut().transport_mut(slots[0]).expect("the slot has a connection").listing = Listing::None;
        core.skip_ready(taken.remove(0));
        core.return_ready(&mut taken);
        core.check_invariants();
        assert_eq!(insert(&mut core), slots[1]);
        for slot in [slots[0], slots[1], slots[2]] {
            core.make_ready(slot);
        }
        core.check_invariants();
        assert_eq!(core.ready_len(), 3, "each connection must be in the list once");
    }
}
