//! The simulated server: the table, the wheel and the registry, driven turn by turn.
//!
//! The server does the same work as `event_loop/`, in the same order: it runs commands, handles events, accepts, reads,
//! fires timers, calls `on_close`, writes, and frees slots. The table writes by itself and closes slow consumers by
//! itself. The transports log each of these changes. After each call of the table, the server compares the log with the
//! oracle.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::rc::Rc;

use fdpush::sim::{Connection, Env, Event, FormerNames, Owner, Queued, Registry, Table, Tick, TlsShared};
use fdpush::{Fd, SecondLogin, Slot, State};

use crate::clock::Clock;
use crate::connection_model::{ConnectionModel, Turn};
use crate::coverage::hit;
use crate::handler::Deferred;
use crate::handshake_budget::HandshakeBudget;
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::segment_model::Posted;
use crate::session::Session;
use crate::session_model::SessionModel;
use crate::setting::Setting;
use crate::socket::{self, Log, Socket};
use crate::wire::Wire;

/// The server.
#[derive(Debug)]
pub struct Server {
    pub table: Table<Socket>,
    /// The changes that the table makes by itself.
    pub log: Log,
    /// The message of the running push, and its receiver.
    pub posting: Option<(Fd, Posted)>,
    /// The messages of fan-outs that the table has not queued yet, by receiver.
    pub awaited: BTreeMap<Fd, VecDeque<Posted>>,
    /// The number of receivers from which on a push is a fan-out.
    pub fan_out_min: usize,
    /// The number of bytes in all queues when the server last tried to write to all connections. `None`: not known.
    pub held: Option<usize>,
    /// The connections to which the server must try to write during the running push.
    pub offers: BTreeSet<Fd>,
    pub is_offering: bool,
    /// Connections that were evicted since the search for the largest queues began. The field `undroppable` has the
    /// evicted connections that had no message to drop.
    pub evicted: BTreeSet<Fd>,
    pub undroppable: BTreeSet<Fd>,
    /// An upper bound of the number of writes since the current search for the largest queues began.
    pub writes: usize,
    /// Whether a connection was evicted since the last check of the total bound.
    pub has_evicted: bool,
    slots_max: usize,
    pub registry: Registry,
    pub clock: Clock,
    pub second_login: SecondLogin,
    pub oracle: Oracle,
    pub rng: Rng,
    /// The times of this turn and of earlier turns.
    pub time: Turn,
    pub ready: Vec<Slot>,
    pub handshakes: HandshakeBudget,
    /// The number of TLS sessions that have received a byte.
    pub handshakes_begun: u64,
    /// Connections whose close frame was sent during a read in this turn. This is possible because a read of a TLS
    /// session also sends the records that the session holds.
    pub closing_reads: Vec<Fd>,
    pub over: Vec<Slot>,
    /// The slots of connections whose sockets are full.
    pub full: Vec<Slot>,
    pub pending_closes: VecDeque<PendingClose>,
    /// Deferred upgrades that are not answered yet.
    pub deferred: Vec<(Fd, Deferred)>,
    /// Timers of handlers, each with its next expiry and its interval.
    pub timers: BTreeMap<u32, (Tick, u64)>,
    /// The fds that handlers remember. Most of these fds are stale.
    pub remembered: Vec<Fd>,
    pub is_draining: bool,
    /// A flush writes the output of only some connections with a probability of one in this number, or never if this
    /// number is 0.
    pub portions: usize,
    pub commands_a_turn: usize,
    pub random_calls: usize,
    pub buffer: Vec<u8>,
    /// Whether the flush of an earlier turn had not reached all connections when this turn began.
    was_flushing: bool,
    pub opened: u64,
    pub closed: u64,
}

/// A closed connection whose `on_close` was not called yet.
#[derive(Debug)]
pub struct PendingClose {
    pub fd: Fd,
    pub names: FormerNames,
}

/// A client that connects.
#[derive(Debug)]
pub struct Arrival {
    pub wire: Rc<RefCell<Wire>>,
    /// Whether the client connects to a TLS listener.
    pub is_tls: bool,
}

/// The maximum number of bytes of records that a TLS session holds: 64 KiB of output, and 4 KiB for the overhead of the
/// records and for a handshake.
const HELD_BYTES_MAX: usize = (64 << 10) + (4 << 10);

/// The last generation of a slot. An fd has 53 bits, and 24 of them are the slot.
const GENERATION_MAX: u32 = (1 << 29) - 1;

impl Server {
    /// Creates a server at tick 0.
    pub fn new(setting: &Setting, rng: Rng) -> Server {
        let env = Env::new(setting.limits.clone(), setting.heartbeat, fdpush::Origins::Any);
        let shared = TlsShared::new(setting.read_bytes_max, env.inbound.clone());
        let mut table = Table::new(setting.slots_max, env, shared);
        if setting.is_old {
            table.set_first_generation(GENERATION_MAX - 40);
        }
        Server {
            table,
            log: Log::default(),
            posting: None,
            awaited: BTreeMap::new(),
            fan_out_min: setting.fan_out_min,
            held: Some(0),
            offers: BTreeSet::new(),
            is_offering: false,
            evicted: BTreeSet::new(),
            undroppable: BTreeSet::new(),
            writes: 0,
            has_evicted: false,
            slots_max: setting.slots_max,
            registry: Registry::new(),
            clock: Clock::new(Tick(0)),
            second_login: setting.second_login,
            oracle: Oracle::default(),
            rng,
            time: Turn::default(),
            ready: Vec::new(),
            handshakes: HandshakeBudget::new(setting.limits.handshakes_per_second_max),
            handshakes_begun: 0,
            closing_reads: Vec::new(),
            over: Vec::new(),
            full: Vec::new(),
            pending_closes: VecDeque::new(),
            deferred: Vec::new(),
            timers: BTreeMap::new(),
            remembered: Vec::new(),
            is_draining: false,
            portions: setting.portions,
            commands_a_turn: setting.commands_a_turn,
            random_calls: setting.random_calls,
            buffer: vec![0; setting.read_bytes_max],
            was_flushing: false,
            opened: 0,
            closed: 0,
        }
    }

    /// Runs one turn at `now`. The sockets of the slots in `signalled` may have events.
    ///
    /// Returns the fd of each new connection in `arrivals`, or `None` for a connection that the server refused.
    pub fn turn(&mut self, now: Tick, signalled: &[Slot], arrivals: &[Arrival]) -> Vec<Option<Fd>> {
        let was_flushing = mem::replace(&mut self.was_flushing, self.table.is_flushing());
        self.time = self.time.next(now, was_flushing);
        self.table.env_mut().now = now;
        self.run_commands();
        self.handle_signals(signalled);
        let accepted = arrivals.iter().map(|arrival| self.accept(arrival)).collect();
        self.read_ready();
        self.fire_timers();
        self.call_on_close();
        self.flush();
        self.reap();
        assert!(self.log.borrow().is_empty(), "each logged change must have been compared with the oracle");
        let ledger = &self.oracle.ledger;
        assert_eq!(
            self.table.env().queued,
            Queued { frames: ledger.total, http: ledger.http },
            "the table and the model must count the same bytes in all queues"
        );
        self.check_bound();
        self.check_closing_reads();
        accepted
    }

    /// Checks that all queues together are within their total bound, plus the control frames and the TLS records that
    /// the server queues without a check of the bound.
    fn check_bound(&self) {
        let unasked: usize = self.oracle.models.values().map(|model| model.output.unasked_bytes()).sum();
        let (total, total_max) = (self.oracle.ledger.total, self.table.env().limits.queue_total_bytes_max);
        assert!(
            total <= total_max + unasked,
            "{total} queued bytes must be within the total bound of {total_max} plus {unasked} bytes that are queued without a check"
        );
    }

    /// Returns whether the next turn already has work, so that the loop must not wait for events.
    pub fn is_behind(&self) -> bool {
        !self.ready.is_empty() || self.table.has_dirty() || self.handshakes.is_behind()
    }

    // The following functions are the steps of a turn.

    fn handle_signals(&mut self, signalled: &[Slot]) {
        let listed = self.table.listed_len();
        let mut slots = mem::take(&mut self.full);
        slots.extend(signalled);
        for slot in slots {
            // Some events are handled twice, because epoll may report an event twice.
            for _ in 0..1 + usize::from(self.rng.one_in(16)) {
                self.handle_socket(slot);
            }
        }
        if self.rng.one_in(4) && self.table.slots_end() > 0 {
            self.handle_nothing();
        }
        self.table.defer_writable(listed);
    }

    fn handle_socket(&mut self, slot: Slot) {
        let can_read = self.table.connection(slot).is_some_and(Connection::wants_read);
        let fd = self.table.fd_of(slot);
        let Some(socket) = self.table.transport_mut(slot) else { return };
        let signals = socket.wire.borrow_mut().take_signals();
        if socket.wire.borrow().owes_room() && !self.full.contains(&slot) {
            self.full.push(slot);
        }
        socket.is_hung_up |= signals.is_hung_up || signals.is_error;
        let has_input = signals.is_readable || socket.is_hung_up;
        socket.is_readable |= has_input;
        if signals.is_writable {
            self.table.handle_writable(slot);
            self.oracle.model(fd).output.has_room();
        }
        if has_input && can_read {
            self.make_ready(slot);
        } else if signals.is_error {
            self.handle_end(slot, true);
        }
    }

    /// Handles a spurious event.
    fn handle_nothing(&mut self) {
        hit("network: spurious readiness");
        let slot = Slot(self.rng.below(self.table.slots_end() as usize) as u32);
        let fd = self.table.fd_of(slot);
        let Some(socket) = self.table.transport_mut(slot) else { return };
        socket.is_readable = true;
        self.table.handle_writable(slot);
        self.oracle.model(fd).output.has_room();
        self.make_ready(slot);
    }

    fn accept(&mut self, arrival: &Arrival) -> Option<Fd> {
        if self.is_draining || self.table.count() >= self.slots_max {
            return None;
        }
        let (heartbeat, now) = (self.table.env().heartbeat, self.table.env().now);
        let session = arrival.is_tls.then(|| Box::new(Session::new(self.table.shared())));
        let session_model = arrival.is_tls.then(|| SessionModel::new(now, &self.table.env().limits));
        let socket = Socket::new(Rc::clone(&arrival.wire), session, self.rng.fork(), Rc::clone(&self.log));
        let connection = Connection::new(fdpush::Peer::Unix, self.table.env());
        let fd = self.table.insert(socket, connection)?;
        if let Some(socket) = self.table.transport_mut(fd.slot()) {
            socket.fd = Some(fd);
        }
        let model = ConnectionModel::new(fd, heartbeat, session_model, now);
        assert!(self.oracle.models.insert(fd, model).is_none(), "the fd {fd} must not have been used before");
        self.arm(fd.slot());
        hit("connection accepted");
        Some(fd)
    }

    fn fire_timers(&mut self) {
        self.clock.advance(self.table.env().now);
        while let Some(owner) = self.clock.pop() {
            match owner {
                Owner::Connection(slot) => self.fire_connection(slot),
                Owner::Timer(index) => self.fire_timer(index),
            }
            self.call_on_close();
        }
    }

    fn fire_connection(&mut self, slot: Slot) {
        let fd = self.table.fd_of(slot);
        let connection = self
            .table
            .connection(slot)
            .unwrap_or_else(|| panic!("the deadline of {fd} must be removed when {fd} is freed"));
        let was_http = connection.state() == State::Http;
        // Before a timeout, the table queues the messages of fan-outs.
        let awaited = self.awaited.get(&fd).into_iter().flatten();
        let before = connection.queued_bytes() + awaited.map(|posted| posted.bytes).sum::<usize>();
        let is_late = self.table.has_late_record(slot);
        let handle_tick = if is_late { Connection::handle_late_record } else { Connection::handle_tick };
        let Some((event, after)) = self.step(slot, handle_tick) else { return };
        let limits = &self.table.env().limits;
        let (model, ledger) = self.oracle.account(fd);
        if !was_http {
            model.output.observe(after.queued, after.fresh, ledger);
        }
        match &event {
            Some(Event::Closed(closed)) => model.close_by_tick(closed, limits, self.time, ledger),
            Some(Event::Refused(_)) => {
                model.refuse_by_tick(self.time);
                model.output.observe_raw(after.queued, ledger);
            }
            Some(event) => panic!("a deadline of {fd} must not cause {event:?}"),
            None if was_http => {
                model.check_http_tick(limits, self.time);
                model.output.observe_raw(after.queued, ledger);
            }
            None => model.check_tick(after.queued > before, limits, self.time, ledger),
        }
        self.compare_state(fd, after);
        self.replay();
        self.record_end(slot, event);
        self.record_slow_consumers();
        self.arm(slot);
        let env = self.table.env();
        if !was_http && self.table.connection(slot).is_some_and(|connection| connection.has_buffered_input(env)) {
            self.make_ready(slot);
        }
    }

    /// Calls `on_close` for the connections that closed.
    pub fn call_on_close(&mut self) {
        while let Some(close) = self.pending_closes.pop_front() {
            let now = self.table.env().now;
            let model = self.oracle.model(close.fd);
            model.on_close_calls += 1;
            assert_eq!(
                (model.on_close_calls, model.closed_at),
                (1, Some(now)),
                "on_close of {} must be called once, in the turn of the close",
                close.fd
            );
            self.on_close(&close);
        }
    }

    fn reap(&mut self) {
        self.call_on_close();
        for slot in mem::take(&mut self.over) {
            // The list `over` can contain a slot twice, so the connection in this slot may already be freed.
            if self.table.connection(slot).is_none() {
                continue;
            }
            let fd = self.table.fd_of(slot);
            self.clock.cancel(Owner::Connection(slot));
            self.table.remove(slot);
            let (model, ledger) = self.oracle.account(fd);
            assert!(!model.is_open(), "{fd} must not be freed while open");
            assert_eq!(self.awaited.get(&fd).map(VecDeque::len), None, "{fd} must get all messages before it is freed");
            assert_eq!(
                model.on_close_calls,
                u32::from(model.closed_at.is_some()),
                "on_close of {fd} must be called once before {fd} is freed, if and only if {fd} was open"
            );
            model.output.abandon(ledger);
            model.is_reaped = true;
            self.remember(fd);
            hit("slot freed");
        }
    }

    // The following functions call a connection, and do the work that follows from the result of the call.

    /// Calls `transition` for a connection. Returns the result of `transition`, and the state of the connection after
    /// it.
    ///
    /// After this call, the caller must update the oracle, and must call [`replay`](Server::replay) to compare the
    /// changes of the table with the oracle.
    pub fn step<R>(
        &mut self,
        slot: Slot,
        transition: impl FnOnce(&mut Connection, &mut Env) -> R,
    ) -> Option<(R, socket::OutputState)> {
        let stepped = self.table.step(slot, |connection, env| {
            let result = transition(connection, env);
            (result, socket::OutputState::of(connection))
        });
        self.check_settled(slot);
        stepped
    }

    /// Removes a closed connection from the registry, and queues its `on_close`.
    pub fn record_end(&mut self, slot: Slot, event: Option<Event<'_>>) -> bool {
        let Some(Event::Closed(closed)) = event else { return false };
        let fd = self.table.fd_of(slot);
        let names = self.registry.remove(slot);
        self.oracle.names.remove(fd, &names);
        self.closed += 1;
        hit(match closed.cause {
            fdpush::Cause::ProtocolError(error) => crate::frame_writer::name_of(error),
            cause => cause.as_str(),
        });
        self.pending_closes.push_back(PendingClose { fd, names });
        true
    }

    /// Handles the ends of the slow consumers that the table closed.
    pub fn record_slow_consumers(&mut self) {
        while let Some((slot, event)) = self.table.poll_ended() {
            self.record_end(slot, Some(event));
        }
    }

    /// Sets the deadline of a connection in the wheel, unless the wheel has an earlier one.
    pub fn arm(&mut self, slot: Slot) {
        self.arm_at(slot, self.table.poll_timeout(slot));
    }

    /// Works like [`arm`](Server::arm), with the deadline `at`.
    pub fn arm_at(&mut self, slot: Slot, at: Tick) {
        if at < Tick::NEVER {
            self.clock.arm_no_later(Owner::Connection(slot), at);
        }
    }

    /// Adds a connection to the list of connections to read.
    pub fn make_ready(&mut self, slot: Slot) {
        if let Some(socket) = self.table.transport_mut(slot)
            && !mem::replace(&mut socket.is_ready, true)
        {
            self.ready.push(slot);
        }
    }

    /// Returns the model of the connection in a slot.
    pub fn model_at(&mut self, slot: Slot) -> &mut ConnectionModel {
        self.oracle.model(self.table.fd_of(slot))
    }

    // The following functions compare the server with the oracle.

    /// Tells the model whether the output of a connection is in the journal (the output buffer of the loop) or in a
    /// queue.
    pub fn observe(&mut self, slot: Slot) {
        let Some(connection) = self.table.connection(slot) else { return };
        let state = socket::OutputState::of(connection);
        let (model, ledger) = self.oracle.account(self.table.fd_of(slot));
        model.output.observe(state.queued, state.fresh, ledger);
    }

    /// Compares one connection with its model in the oracle.
    pub fn compare(&mut self, slot: Slot) {
        self.observe(slot);
        let Some(connection) = self.table.connection(slot) else { return };
        let state = socket::OutputState::of(connection);
        if self.rng.one_in(8) {
            connection.check_invariants();
        }
        self.compare_state(self.table.fd_of(slot), state);
    }

    /// Compares the state of a connection with its model.
    pub fn compare_state(&self, fd: Fd, state: socket::OutputState) {
        let model = self.oracle.models.get(&fd).expect("the connection has a model");
        assert_eq!(state.is_open, model.is_open(), "{fd} must be open if and only if its model is: {:?}", model.stage);
        assert_eq!(state.queued, model.output.bytes(), "{fd} and its model must have the same number of queued bytes");
        assert_eq!(
            state.fresh,
            model.output.journal_bytes(),
            "{fd} and its model must have the same number of bytes in the journal"
        );
        assert_eq!(
            state.is_untried,
            model.output.is_untried(),
            "{fd} and its model must agree whether the server has output that it has not tried to write"
        );
    }

    /// Compares the whole server with the oracle.
    pub fn check(&self) {
        let env = self.table.env();
        self.table.check_invariants();
        self.clock.check();
        self.oracle.names.check(&self.registry, |slot| self.table.fd_of(slot));
        let mut open = 0;
        for slot in self.table.slots() {
            let Some(connection) = self.table.connection(slot) else { continue };
            let fd = self.table.fd_of(slot);
            let model = self.oracle.models.get(&fd).unwrap_or_else(|| panic!("{fd} has no model"));
            assert_eq!(
                connection.charge(),
                model.output.charge(&self.oracle.ledger),
                "{fd} and its model must have the same charge"
            );
            let awaited = self.awaited.get(&fd).into_iter().flatten();
            let waiting = awaited.fold((0, 0), |(count, bytes), posted| (count + 1, bytes + posted.plain_bytes));
            assert_eq!(self.table.waiting_fan_outs(slot), waiting, "{fd} must wait for all messages of fan-outs");
            let at = self.table.poll_timeout(slot);
            let (due, now) = (model.due(&env.limits), env.now);
            // The deadline of a connection that the flush of this turn ended is not compared, because the next flush
            // frees the connection.
            let is_over = connection.state() == State::Closing && !connection.wants_read();
            assert!(
                at <= due || is_over || self.table.has_dirty(),
                "the deadline of {fd} must be at {due:?} or before, not at {at:?}"
            );
            let armed = self.clock.deadline(Owner::Connection(slot)).unwrap_or(Tick::NEVER);
            // A flush of several turns arms the deadline of a connection when the flush reaches the connection. If the
            // deadline has passed at that time, the next turn handles it. The deadline of a TLS record can also have
            // passed, namely when the WebSocket opens.
            let is_next = (self.was_flushing || model.has_late_record(&env.limits)) && armed <= now;
            assert!(due > now || is_next || self.table.has_dirty(), "{fd} must have no deadline in the past: {due:?}");
            // If a deadline passed during a write that wrote no byte, the next turn handles the deadline.
            assert!(
                armed <= at.max(now) || self.table.has_dirty(),
                "at {now:?}, the wheel must have a deadline for {fd} at {at:?} or before, not at {armed:?}"
            );
            assert!(
                model.output.message_bytes() <= env.limits.queue_bytes_max,
                "the unwritten messages of {fd} must be within the bound of its queue"
            );
            assert!(
                model.output.held() <= HELD_BYTES_MAX,
                "the TLS session of {fd} must hold at most the records of one write"
            );
            open += u64::from(connection.is_open());
        }
        assert_eq!(self.opened, self.closed + open, "each opened connection must be either open or closed");
    }
}
