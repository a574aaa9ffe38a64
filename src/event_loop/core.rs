//! All that handlers can ask for, over the table, the registry and the wheel.
//!
//! Nothing here calls a handler. What a handler is to hear of (a connection that ended, an upgrade that was answered) is
//! put on a list, and the loop gets to it when the handler that caused it has returned.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use crate::connection::{Cause, Closed, Connection, Env, Event, Outbound, Sent, State, Traffic};
use crate::event_loop::Epoch;
use crate::event_loop::drain::Drain;
use crate::event_loop::marks::Marks;
use crate::event_loop::proxies::Proxies;
use crate::event_loop::relimit::Relimit;
use crate::event_loop::slots::SlotSet;
use crate::event_loop::stats::Counters;
use crate::event_loop::table::Table;
use crate::event_loop::timers::{TimerId, Timers};
use crate::fd::{Fd, Slot};
use crate::limits::{Heartbeat, SlowReader};
use crate::message::{Content, Delivery, Message, Outcome, Push};
use crate::peer::Peer;
use crate::protocol::close::{CLOSE_REASON_BYTES_MAX, CloseCode};
use crate::protocol::frame::{CONTROL_BYTES_MAX, Opcode};
use crate::protocol::upgrade::Upgrade;
use crate::registry::{Change, Departed, Registry, SecondLogin};
use crate::tick::Tick;
use crate::wheel::{Owner, Wheel};

/// The state of a loop, without its handler and its sockets' readiness.
#[derive(Debug)]
pub struct Core {
    pub table: Table,
    pub registry: Registry,
    pub wheel: Wheel,
    pub timers: Timers,
    pub second_login: SecondLogin,
    /// Connections that stopped being open and whose handler has not heard of it.
    pub ends: VecDeque<Ending>,
    /// Answers that came late, to upgrades and (as refusals are responses, too) to plain requests.
    pub answers: VecDeque<(Fd, Upgrade)>,
    /// Connections that may have bytes to read which no event will tell of.
    pub ready: Vec<Slot>,
    /// The end that `on_close` is being told of, and only for as long.
    pub departing: Option<Ending>,
    /// What handlers keep with connections: only where they do.
    pub sessions: HashMap<Fd, Box<dyn Any>>,
    pub counters: Counters,
    pub epoch: Epoch,
    /// The wall-clock time of tick 0, as the wall clock has it now.
    pub started: SystemTime,
    pub connections_max: usize,
    pub control_connections_max: u32,
    /// The proxies whose PROXY headers are believed.
    pub proxies: Proxies,
    /// Set once: no new connections, and the loop ends when the last is gone or when the drain says so.
    pub drain: Option<Drain>,
    /// Whether `on_turn_end` is called at the end of this turn.
    pub wants_turn_end: bool,
    /// New limits that not all connections have yet.
    pub relimit: Option<Relimit>,
    /// The slots of open WebSockets.
    pub open: SlotSet,
    /// For pushes to sets that overlap: the slots that are found already.
    marks: Marks,
    /// Slots found by the registry, for when it must not be borrowed.
    found: Vec<Slot>,
}

/// A connection that stopped being open.
#[derive(Debug)]
pub struct Ending {
    pub fd: Fd,
    pub closed: Closed,
    pub departed: Departed,
}

/// A connection, as `info` tells of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// Its number.
    pub fd: Fd,
    /// Whether it can be pushed to.
    pub state: State,
    /// Who it is, if it was bound.
    pub uid: Option<String>,
    /// The groups it is in, the last joined first.
    pub groups: Vec<String>,
    /// Where it came from.
    pub peer: Peer,
    /// When it was opened; for an HTTP connection, when it was accepted. By the wall clock as it is set now.
    pub connected_at: SystemTime,
    /// How long ago that was.
    pub connected_for: Duration,
    /// How long ago its last byte came.
    pub idle_for: Duration,
    /// Bytes and messages, both ways.
    pub traffic: Traffic,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
}

impl Core {
    /// An empty core.
    pub fn new(
        connections_max: usize,
        control_connections_max: u32,
        env: Env,
        second_login: SecondLogin,
        epoch: Epoch,
    ) -> Core {
        Core {
            wheel: Wheel::new(env.now),
            table: Table::new(connections_max, env),
            registry: Registry::new(),
            timers: Timers::default(),
            second_login,
            ends: VecDeque::new(),
            answers: VecDeque::new(),
            ready: Vec::new(),
            departing: None,
            sessions: HashMap::new(),
            counters: Counters::default(),
            epoch,
            started: SystemTime::now(),
            connections_max,
            control_connections_max,
            proxies: Proxies::default(),
            drain: None,
            wants_turn_end: false,
            relimit: None,
            open: SlotSet::default(),
            marks: Marks::default(),
            found: Vec::new(),
        }
    }

    // Pushing.

    /// To one connection.
    pub fn push(&mut self, fd: Fd, push: Push<'_>) -> Outcome {
        if !self.table.is_current(fd) || push.except.contains(&fd) {
            return Outcome::Gone;
        }
        let outcome = self.table.push(fd.slot(), &mut self.outbound(&push, false));
        self.end_slow();
        outcome
    }

    /// To the connections of some uids; one that is named twice gets it once.
    pub fn push_uids<'u>(&mut self, uids: impl Iterator<Item = &'u str>, push: Push<'_>) -> Delivery {
        let mut found = self.begin_search(&push);
        for uid in uids {
            found.extend(self.registry.slots_of(uid).filter(|slot| self.marks.see(*slot)));
        }
        self.push_found(found, push)
    }

    /// To the members of some groups; a member of several gets it once.
    pub fn push_groups<'g>(&mut self, groups: impl Iterator<Item = &'g str>, push: Push<'_>) -> Delivery {
        let mut found = self.begin_search(&push);
        for group in groups {
            found.extend(self.registry.members(group).filter(|slot| self.marks.see(*slot)));
        }
        self.push_found(found, push)
    }

    /// To some connections; one that is named twice gets it once.
    pub fn push_fds(&mut self, fds: impl Iterator<Item = Fd>, push: Push<'_>) -> Delivery {
        let mut found = self.begin_search(&push);
        found.extend(fds.filter_map(|fd| self.table.slot_of(fd)).filter(|slot| self.marks.see(*slot)));
        self.push_found(found, push)
    }

    /// To every open connection.
    pub fn broadcast(&mut self, push: Push<'_>) -> Delivery {
        let mut found = self.begin_search(&push);
        found.extend(self.open.iter().filter(|slot| self.marks.see(*slot)));
        self.push_found(found, push)
    }

    /// The list for what is found: empty, and whom the push leaves out is seen already. As each slot is put on it once, it
    /// is never longer than the slots are many, however often a name is said.
    fn begin_search(&mut self, push: &Push<'_>) -> Vec<Slot> {
        self.marks.begin(self.table.slots_end());
        for slot in push.except.iter().filter_map(|fd| self.table.slot_of(*fd)) {
            self.marks.see(slot);
        }
        std::mem::take(&mut self.found)
    }

    fn push_found(&mut self, mut found: Vec<Slot>, push: Push<'_>) -> Delivery {
        let mut delivery = Delivery::default();
        let mut outbound = self.outbound(&push, found.len() > 1);
        let listed = self.table.dirty.len();
        for slot in found.drain(..) {
            delivery.count(self.table.push(slot, &mut outbound));
        }
        self.found = found;
        self.table.put_off(listed);
        self.end_slow();
        delivery
    }

    fn outbound<'a>(&self, push: &Push<'a>, to_many: bool) -> Outbound<'a> {
        let mut outbound = match push.content {
            Content::Frame(frame) => Outbound::frame(frame),
            Content::Message(Message::Text(text)) => Outbound::message(Opcode::Text, text.as_bytes()),
            Content::Message(Message::Binary(bytes)) => Outbound::message(Opcode::Binary, bytes),
        };
        outbound.to_many |= to_many;
        outbound.key = push.key.filter(|_| self.table.env.limits.slow_reader == SlowReader::Conflate);
        outbound
    }

    /// A ping.
    pub fn ping(&mut self, fd: Fd, payload: &[u8]) -> Outcome {
        if payload.len() > CONTROL_BYTES_MAX {
            return Outcome::Refused;
        }
        let Some(slot) = self.table.slot_of(fd) else { return Outcome::Gone };
        let Some((entry, env)) = self.table.get_mut(slot) else { return Outcome::Gone };
        let mut sent = entry.connection.ping(payload, env);
        if sent == Sent::Full {
            // A full queue may have a socket with room.
            sent = self.table.write_and(slot, |connection, env| connection.ping(payload, env)).unwrap_or(Sent::NotOpen);
            self.end_slow();
        }
        self.table.touch(slot);
        match sent {
            Sent::Queued => Outcome::Queued,
            Sent::NotOpen => Outcome::Gone,
            Sent::Full | Sent::TooLarge => {
                self.table.env.counts.dropped += 1;
                Outcome::Dropped
            }
        }
    }

    // Ending.

    /// Closes one connection for a handler.
    pub fn close(&mut self, fd: Fd, code: CloseCode, reason: &str) -> Outcome {
        if !code.is_sendable() || reason.len() > CLOSE_REASON_BYTES_MAX {
            return Outcome::Refused;
        }
        let Some(slot) = self.table.slot_of(fd) else { return Outcome::Gone };
        if self.close_slot(slot, code, reason, Cause::ServerClosed) { Outcome::Queued } else { Outcome::Gone }
    }

    /// Drops one connection at once, in whatever state, without a close frame and without what is queued.
    pub fn abort(&mut self, fd: Fd) -> Outcome {
        let Some(slot) = self.table.slot_of(fd) else { return Outcome::Gone };
        if self.table.get(slot).is_none_or(|entry| entry.connection.is_finished()) {
            return Outcome::Gone;
        }
        let event = self.table.step(slot, |connection, env| connection.abort(env));
        self.record_end(slot, event);
        Outcome::Queued
    }

    /// Starts the close handshake. `false`: it was not open.
    pub fn close_slot(&mut self, slot: Slot, code: CloseCode, reason: &str, cause: Cause) -> bool {
        let event = self.table.step(slot, |connection, env| connection.close(code, reason, cause, env));
        self.record_end(slot, event)
    }

    /// Takes note of what a connection came to. One that stopped being open is taken out of the maps, and put on the list
    /// for its handler: `true`.
    pub fn record_end(&mut self, slot: Slot, event: Option<Event<'_>>) -> bool {
        let closed = match event {
            Some(Event::Closed(closed)) => closed,
            Some(Event::Refused(refusal)) => {
                self.count_refusal(self.table.fd_of(slot), &refusal);
                return false;
            }
            _ => return false,
        };
        if self.table.get(slot).is_some_and(|entry| entry.is_readable) {
            // It may have been paused, with the client's own close frame unread.
            self.make_ready(slot);
        }
        let departed = self.registry.remove(slot);
        self.counters.open -= 1;
        self.open.remove(slot);
        self.counters.closed += 1;
        *self.counters.closed_by_cause.entry(closed.cause.as_str()).or_default() += 1;
        self.ends.push_back(Ending { fd: self.table.fd_of(slot), closed, departed });
        true
    }

    /// Takes note of the readers that were found too slow, and closed.
    #[inline]
    pub fn end_slow(&mut self) {
        if self.table.has_slow() {
            self.record_slow();
        }
    }

    #[cold]
    fn record_slow(&mut self) {
        while let Some((slot, event)) = self.table.pop_slow() {
            self.record_end(slot, Some(event));
        }
    }

    /// Keeps a control connection when others need room: see [`Context::keep_control`](crate::Context::keep_control).
    pub fn keep_control(&mut self, fd: Fd) -> bool {
        let Some(slot) = self.table.slot_of(fd) else { return false };
        if !self.table.get(slot).is_some_and(|entry| entry.connection.is_control()) {
            return false;
        }
        let max = self.control_connections_max;
        let is_kept = self.table.places().keep(slot, max as usize);
        if !is_kept {
            self.count_control_full();
        }
        is_kept
    }

    /// Keeps a control connection no longer.
    pub fn release_control(&mut self, fd: Fd) {
        if let Some(slot) = self.table.slot_of(fd) {
            self.table.places().release(slot);
        }
    }

    /// Whether there is a place for one more control connection. One that is not kept is closed for it.
    pub fn make_control_room(&mut self) -> bool {
        let max = self.control_connections_max as usize;
        !self.table.places().are_taken(max) || self.evict_control()
    }

    /// Control connections that may be accepted in one turn.
    pub fn control_accepts_max(&mut self) -> usize {
        let max = self.control_connections_max as usize;
        self.table.places().accepts_max(max)
    }

    /// Closes the oldest control connection that is not kept. Its descriptor is free when the turn ends.
    pub fn evict_control(&mut self) -> bool {
        let Some(slot) = self.table.take_oldest_place() else { return false };
        let event = self.table.step(slot, |connection, env| connection.abort(env));
        self.record_end(slot, event);
        self.count_eviction();
        true
    }

    /// Begins to drain: every WebSocket is closed with 1001, in its time; what is none, and not for control, at once.
    pub fn begin_drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        let (open, others): (VecDeque<Fd>, Vec<Fd>) = {
            let fds = self.table.slots().map(|slot| self.table.fd_of(slot));
            let (open, others): (Vec<Fd>, Vec<Fd>) = fds.partition(|fd| self.open_slot(*fd).is_some());
            (open.into(), others)
        };
        self.drain = Some(Drain::new(self.table.env.now, &self.table.env.limits, open));
        for fd in others {
            let is_control = self.table.get(fd.slot()).is_some_and(|entry| entry.connection.is_control());
            if !is_control {
                self.drain_slot(fd.slot());
            }
        }
        self.close_due(self.table.env.now);
    }

    /// Closes those whose time to be drained has come by `now`.
    pub fn close_due(&mut self, now: Tick) {
        while let Some(fd) = self.drain.as_mut().and_then(|drain| drain.pop_due(now)) {
            if let Some(slot) = self.open_slot(fd) {
                self.close_slot(slot, CloseCode::GOING_AWAY, "the server is going down", Cause::Drained);
            }
        }
    }

    /// Whether a drain has come to its end. Once only control connections are left, they are ended, too.
    pub fn is_drained(&mut self) -> bool {
        let (left, control) = (self.table.len(), self.table.control_len());
        let Some(drain) = &mut self.drain else { return false };
        if left == 0 || self.table.env.now >= drain.until {
            return true;
        }
        if left == control && !drain.is_last {
            drain.is_last = true;
            let slots: Vec<Slot> = self.table.slots().collect();
            slots.into_iter().for_each(|slot| self.drain_slot(slot));
        }
        false
    }

    fn drain_slot(&mut self, slot: Slot) {
        let event = self.table.step(slot, |connection, env| connection.drain(env));
        self.record_end(slot, event);
    }

    /// Does something to a response in pieces, which says whether it could.
    pub fn reply(&mut self, fd: Fd, step: impl FnOnce(&mut Connection, &mut Env) -> bool) -> Outcome {
        let Some(slot) = self.table.slot_of(fd) else { return Outcome::Gone };
        let Some((entry, env)) = self.table.get_mut(slot) else { return Outcome::Gone };
        let is_done = step(&mut entry.connection, env);
        self.table.touch(slot);
        self.arm(slot);
        if is_done { Outcome::Queued } else { Outcome::Gone }
    }

    /// Queues a piece of such a response.
    pub fn write_reply(&mut self, fd: Fd, piece: &[u8]) -> Outcome {
        let Some(slot) = self.table.slot_of(fd) else { return Outcome::Gone };
        let outcome = self.table.push_piece(slot, piece);
        self.table.touch(slot);
        self.arm(slot);
        outcome
    }

    // The maps.

    /// Binds a connection to a uid, as the policy for second logins has it.
    pub fn bind(&mut self, fd: Fd, uid: &str) -> Change {
        let Some(slot) = self.open_slot(fd) else { return Change::Gone };
        let mut kicked = Vec::new();
        let change = self.registry.bind(slot, uid, self.second_login, &mut kicked);
        for old in kicked {
            self.close_slot(old, CloseCode::KICKED, "this uid connected anew", Cause::Kicked);
        }
        change
    }

    /// Whether a connection with this uid would be turned away.
    pub fn is_taken(&self, uid: &str) -> bool {
        self.second_login == SecondLogin::RejectNew && self.registry.count_of(uid) > 0
    }

    /// The slot of an open connection.
    pub fn open_slot(&self, fd: Fd) -> Option<Slot> {
        let slot = self.table.slot_of(fd)?;
        self.table.get(slot)?.connection.is_open().then_some(slot)
    }

    /// The uid of a connection; for the one whose end is being told, the uid it had.
    pub fn uid_of(&self, fd: Fd) -> Option<&str> {
        match &self.departing {
            Some(ending) if ending.fd == fd => ending.departed.uid.as_deref(),
            _ => self.registry.uid_of(self.table.slot_of(fd)?),
        }
    }

    /// The groups of a connection, likewise.
    pub fn groups_of(&self, fd: Fd) -> Vec<&str> {
        match &self.departing {
            Some(ending) if ending.fd == fd => ending.departed.groups.iter().map(AsRef::as_ref).collect(),
            _ => self.table.slot_of(fd).map_or_else(Vec::new, |slot| self.registry.groups_of(slot).collect()),
        }
    }

    // What handlers keep with a connection.

    /// Keeps a value with a connection, in place of the one before. `false`: it is gone.
    pub fn set_session(&mut self, fd: Fd, session: Box<dyn Any>) -> bool {
        let entry = self.table.slot_of(fd).and_then(|slot| self.table.get(slot));
        let is_there = entry.is_some_and(|entry| entry.connection.state() != State::Closing);
        if is_there {
            self.sessions.insert(fd, session);
        }
        is_there
    }

    /// The connection is over for its handler: so is what that kept with it.
    pub fn drop_session(&mut self, fd: Fd) {
        if !self.sessions.is_empty() {
            self.sessions.remove(&fd);
        }
    }

    // Looking.

    /// What is known of a connection.
    pub fn info(&self, fd: Fd) -> Option<Info> {
        let env = &self.table.env;
        let connection = &self.table.get(self.table.slot_of(fd)?)?.connection;
        let opened = Duration::from_millis(connection.opened().0);
        Some(Info {
            fd,
            state: connection.state(),
            uid: self.uid_of(fd).map(str::to_owned),
            groups: self.groups_of(fd).into_iter().map(str::to_owned).collect(),
            peer: connection.peer(),
            connected_at: self.started + opened,
            connected_for: env.now.since(connection.opened()),
            idle_for: env.now.since(connection.last_seen()),
            traffic: connection.traffic(),
            queued_bytes: connection.queued_bytes(),
        })
    }

    // Time.

    /// A timer.
    pub fn add_timer(&mut self, delay: Duration, every: Option<Duration>) -> TimerId {
        // Not the turn's clock: a handler may have taken its time. It is rounded down: one more, so that nothing is early.
        let at = self.epoch.now().after(delay.saturating_add(Duration::from_millis(1)));
        let timer = self.timers.add(at, every);
        self.wheel.arm(Owner::Timer(timer.index()), at);
        timer
    }

    /// Ends a timer.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        let was_there = self.timers.remove(timer);
        if was_there {
            self.wheel.cancel(Owner::Timer(timer.index()));
        }
        was_there
    }

    /// Gives a connection a heartbeat of its own, or the server's again.
    pub fn set_heartbeat(&mut self, fd: Fd, heartbeat: Option<Heartbeat>) -> bool {
        let Some(slot) = self.table.slot_of(fd) else { return false };
        let Some((entry, env)) = self.table.get_mut(slot) else { return false };
        if entry.connection.state() == State::Closing {
            return false;
        }
        entry.connection.set_heartbeat(fd, heartbeat, env);
        self.arm(slot);
        true
    }

    /// Stops reading from a WebSocket or the pieces of a body, or goes on.
    pub fn set_paused(&mut self, fd: Fd, is_paused: bool) -> bool {
        let Some(slot) = self.table.slot_of(fd) else { return false };
        let Some((entry, _)) = self.table.get_mut(slot) else { return false };
        if !entry.connection.set_paused(is_paused) {
            return false;
        }
        if !is_paused {
            self.make_ready(slot);
        }
        true
    }

    /// Sees to it that a connection's next deadline is in the wheel. Armed for an earlier one it stays so: the wheel
    /// then asks too early, and is armed anew.
    #[inline]
    pub fn arm(&mut self, slot: Slot) {
        let Some(entry) = self.table.get(slot) else { return };
        let at = entry.connection.poll_timeout(&self.table.env);
        if at < Tick::NEVER {
            self.wheel.arm_no_later(Owner::Connection(slot), at);
        }
    }

    /// Lists a connection to be read, as though an event had told of bytes.
    #[inline]
    pub fn make_ready(&mut self, slot: Slot) {
        if let Some((entry, _)) = self.table.get_mut(slot)
            && !entry.is_ready
        {
            entry.is_ready = true;
            self.ready.push(slot);
        }
    }

    /// Frees a slot at the end of a turn. A second time in the same turn, nothing happens.
    pub fn reap(&mut self, slot: Slot) {
        self.drop_session(self.table.fd_of(slot));
        self.wheel.cancel(Owner::Connection(slot));
        self.table.remove(slot);
    }

    /// The client of `slot` is gone.
    pub fn handle_end(&mut self, slot: Slot, is_reset: bool) {
        let event = self.table.step(slot, |connection, _| connection.handle_end(is_reset));
        self.record_end(slot, event);
    }

    /// Panics where its parts do not fit together. For tests and debug builds.
    pub fn check_invariants(&self) {
        self.registry.check_invariants();
        self.wheel.check_invariants();
        let mut open = 0;
        for slot in self.table.slots() {
            let Some(entry) = self.table.get(slot) else { continue };
            entry.connection.check_invariants();
            let fresh = entry.connection.fresh_bytes();
            assert!(fresh == 0 || entry.is_dirty, "output in the journal that is not listed");
            if fresh > 0 {
                let found = entry.connection.poll_slice(&self.table.env).map(<[u8]>::len);
                assert_eq!(found, Some(fresh), "output that the journal no longer has");
            }
            open += usize::from(entry.connection.is_open());
        }
        assert_eq!(open, self.counters.open, "open connections");
        let is_open = |slot: &Slot| self.table.get(*slot).is_some_and(|entry| entry.connection.is_open());
        assert_eq!(self.open.iter().filter(is_open).count(), open, "slots of open connections");
    }
}
