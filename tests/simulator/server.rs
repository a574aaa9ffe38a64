//! The loop's part, played over connections, wheel and registry: one turn of it at a time, and the oracle at its side.
//!
//! It does what `event_loop/` does, in the same order: commands, events, accepting, reading, timers, the handlers that
//! hear of ends, writing, freeing. What it is told by floors 0 and 1 it holds against what should be.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::rc::Rc;

use fdpush::sim::{Departed, Env, Event, Owner, Queued, Registry, Tick};
use fdpush::{Fd, SecondLogin, Slot, State};

use crate::clock::Clock;
use crate::coverage::hit;
use crate::handler::Deferred;
use crate::life::{Life, Turn};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::setting::Setting;
use crate::slots::Slots;
use crate::wire::{Read, Wire};

/// The server.
#[derive(Debug)]
pub struct Server {
    pub slots: Slots,
    pub env: Env,
    pub registry: Registry,
    pub clock: Clock,
    pub second_login: SecondLogin,
    pub oracle: Oracle,
    pub rng: Rng,
    /// When the turn before was.
    pub before: Tick,
    pub dirty: Vec<Slot>,
    pub ready: Vec<Slot>,
    pub over: Vec<Slot>,
    /// Whose socket said "full".
    pub full: Vec<Slot>,
    pub ends: VecDeque<Ending>,
    /// Upgrades that wait for their answer.
    pub deferred: Vec<(Fd, Deferred)>,
    /// Timers of handlers: when each is to fire, and how often.
    pub timers: BTreeMap<u32, (Tick, u64)>,
    /// fds that handlers remember, most of them stale.
    pub remembered: Vec<Fd>,
    pub is_draining: bool,
    pub slices_max: usize,
    pub commands_a_turn: usize,
    pub mischief: usize,
    buffer: Vec<u8>,
    pub opened: u64,
    pub closed: u64,
}

/// A connection that stopped being open, and whose handler has not heard of it.
#[derive(Debug)]
pub struct Ending {
    pub fd: Fd,
    pub departed: Departed,
}

impl Server {
    /// A server at tick 0.
    pub fn new(setting: &Setting, rng: Rng) -> Server {
        Server {
            slots: Slots::new(setting.slots_max, setting.is_old),
            env: Env::new(setting.limits.clone(), setting.heartbeat, fdpush::Origins::Any),
            registry: Registry::new(),
            clock: Clock::new(Tick(0)),
            second_login: setting.second_login,
            oracle: Oracle::default(),
            rng,
            before: Tick(0),
            dirty: Vec::new(),
            ready: Vec::new(),
            over: Vec::new(),
            full: Vec::new(),
            ends: VecDeque::new(),
            deferred: Vec::new(),
            timers: BTreeMap::new(),
            remembered: Vec::new(),
            is_draining: false,
            slices_max: setting.slices_max,
            commands_a_turn: setting.commands_a_turn,
            mischief: setting.mischief,
            buffer: vec![0; setting.read_bytes_max],
            opened: 0,
            closed: 0,
        }
    }

    /// One turn, at `now`. Sockets at the slots `signalled` may have something to tell; `arrivals` want to come in, and
    /// are told their fd, or that there is no room.
    pub fn turn(&mut self, now: Tick, signalled: &[Slot], arrivals: &[Rc<RefCell<Wire>>]) -> Vec<Option<Fd>> {
        self.before = mem::replace(&mut self.env.now, now);
        self.run_commands();
        self.handle_signals(signalled);
        let accepted = arrivals.iter().map(|wire| self.accept(wire)).collect();
        self.read_ready();
        self.fire_timers();
        self.settle();
        self.flush();
        self.reap();
        let ledger = &self.oracle.ledger;
        assert_eq!(self.env.queued, Queued { frames: ledger.total, http: ledger.http }, "bytes in all queues");
        self.check_bound();
        accepted
    }

    /// Waiting output keeps to its bound, but for control frames.
    fn check_bound(&self) {
        let unasked: usize = self.oracle.lives.values().map(|life| life.lane.unasked_bytes()).sum();
        let (total, total_max) = (self.oracle.ledger.total, self.env.limits.queue_total_bytes_max);
        assert!(total <= total_max + unasked, "{total} bytes queued, {unasked} unasked");
    }

    /// Whether a turn would find work without waiting.
    pub fn is_behind(&self) -> bool {
        !self.ready.is_empty() || !self.dirty.is_empty()
    }

    // What happened.

    fn handle_signals(&mut self, signalled: &[Slot]) {
        let mut slots = mem::take(&mut self.full);
        slots.extend(signalled);
        for slot in slots {
            // Told twice, and told of nothing: epoll does both.
            for _ in 0..1 + usize::from(self.rng.one_in(16)) {
                self.handle_socket(slot);
            }
        }
        if self.rng.one_in(4) && self.slots.end() > 0 {
            self.handle_nothing();
        }
    }

    fn handle_socket(&mut self, slot: Slot) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let signals = entry.wire.borrow_mut().take_signals();
        if entry.wire.borrow().owes_room() && !self.full.contains(&slot) {
            self.full.push(slot);
        }
        entry.is_hung_up |= signals.is_hung_up || signals.is_error;
        let has_input = signals.is_readable || entry.is_hung_up;
        entry.is_readable |= has_input;
        let can_read = entry.connection.wants_read();
        let has_room = signals.is_writable && entry.connection.handle_writable();
        let fd = self.slots.fd_of(slot);
        if signals.is_writable {
            self.oracle.life(fd).lane.has_room();
        }
        if has_room {
            self.touch(slot);
        }
        if has_input && can_read {
            self.make_ready(slot);
        } else if signals.is_error {
            self.handle_end(slot, true);
        }
    }

    /// Readiness that is none.
    fn handle_nothing(&mut self) {
        hit("network: spurious readiness");
        let slot = Slot(self.rng.below(self.slots.end() as usize) as u32);
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.is_readable = true;
        if entry.connection.handle_writable() {
            let fd = self.slots.fd_of(slot);
            self.oracle.life(fd).lane.has_room();
            self.touch(slot);
        }
        self.make_ready(slot);
    }

    fn accept(&mut self, wire: &Rc<RefCell<Wire>>) -> Option<Fd> {
        if self.is_draining {
            return None;
        }
        let fd = self.slots.insert(Rc::clone(wire), &self.env)?;
        let life = Life::new(fd, self.env.heartbeat, self.env.now);
        assert!(self.oracle.lives.insert(fd, life).is_none(), "{fd} came twice");
        self.arm(fd.slot());
        hit("connection accepted");
        Some(fd)
    }

    fn read_ready(&mut self) {
        let mut slots = mem::take(&mut self.ready);
        let mut buffer = mem::take(&mut self.buffer);
        for slot in slots.drain(..) {
            self.read(slot, &mut buffer);
            self.arm(slot);
        }
        self.buffer = buffer;
    }

    fn read(&mut self, slot: Slot, buffer: &mut [u8]) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.is_ready = false;
        if entry.connection.state() == State::Http {
            self.feed(slot, &mut []);
        }
        let Some(entry) = self.slots.get_mut(slot) else { return };
        if !entry.is_readable || !entry.connection.wants_read() {
            return;
        }
        let read = entry.wire.borrow_mut().read(buffer);
        entry.is_readable = false;
        match read {
            Read::Nothing => {}
            Read::End => self.handle_end(slot, false),
            Read::Broken => self.handle_end(slot, true),
            Read::Bytes(count) => {
                let goes_on = count == buffer.len() || entry.is_hung_up;
                entry.is_readable = goes_on;
                entry.connection.handle_received(count, &mut self.env);
                let now = self.env.now;
                let life = self.life_at(slot);
                life.beat.hear(now);
                life.inbound.read += count as u64;
                self.feed(slot, &mut buffer[..count]);
                if goes_on {
                    self.make_ready(slot);
                }
            }
        }
        self.settle();
    }

    /// Hands bytes to a connection, and what they amount to, to the handler.
    pub fn feed(&mut self, slot: Slot, bytes: &mut [u8]) {
        let fd = self.slots.fd_of(slot);
        let mut input = bytes;
        loop {
            let Some(entry) = self.slots.get_mut(slot) else { return };
            let is_http = entry.connection.state() == State::Http;
            let event = match entry.connection.handle_message(&mut input, &mut self.env) {
                Ok(Some(message)) => Some(message.into()),
                Ok(None) => entry.connection.handle_bytes(&mut input, &mut self.env),
                Err(end) => Some(*end),
            };
            let queued = entry.connection.queued_bytes();
            if is_http {
                let (life, ledger) = self.oracle.account(fd);
                life.lane.observe_raw(queued, ledger);
            }
            self.observe(slot);
            let Some(event) = event else { break };
            self.handle_event(slot, fd, event);
            if !self.ends.is_empty() {
                self.settle();
            }
        }
        let life = self.oracle.life(fd);
        if life.is_open() {
            assert!(input.is_empty(), "input was neither used up nor kept");
            life.inbound.settle(self.env.now);
        }
        self.compare(slot);
        self.touch_unasked(slot);
    }

    /// The client of `slot` is gone.
    fn handle_end(&mut self, slot: Slot, is_reset: bool) {
        let fd = self.slots.fd_of(slot);
        let Some(entry) = self.slots.get_mut(slot) else { return };
        assert!(is_reset || entry.wire.borrow().is_client_gone(), "{fd}: the end of a stream that has not ended");
        let event = entry.connection.handle_end(is_reset);
        let life = self.oracle.life(fd);
        life.is_lost = true;
        if let Some(Event::Closed(closed)) = &event {
            life.close_by_loss(closed, self.env.now);
        }
        self.touch(slot);
        self.record_end(slot, event);
    }

    fn fire_timers(&mut self) {
        self.clock.advance(self.env.now);
        while let Some(owner) = self.clock.pop() {
            match owner {
                Owner::Connection(slot) => self.fire_connection(slot),
                Owner::Timer(index) => self.fire_timer(index),
            }
            self.settle();
        }
    }

    fn fire_connection(&mut self, slot: Slot) {
        let fd = self.slots.fd_of(slot);
        let entry = self.slots.get_mut(slot).unwrap_or_else(|| panic!("a deadline of {fd}, which is gone"));
        let was_http = entry.connection.state() == State::Http;
        let before = entry.connection.queued_bytes();
        let event = entry.connection.handle_tick(&mut self.env);
        let after = entry.connection.queued_bytes();
        if !was_http {
            self.observe(slot);
        }

        let turn = Turn { before: self.before, now: self.env.now };
        let limits = &self.env.limits;
        let (life, ledger) = self.oracle.account(fd);
        match &event {
            Some(Event::Closed(closed)) => life.close_by_tick(closed, limits, turn, ledger),
            Some(Event::Refused(_)) => life.lane.observe_raw(after, ledger),
            Some(event) => panic!("{fd}: {event:?} because of a tick"),
            None if was_http => life.lane.observe_raw(after, ledger),
            None => life.outlive_tick(after > before, limits, turn, ledger),
        }
        self.compare(slot);
        self.record_end(slot, event);
        self.touch_unasked(slot);
        self.arm(slot);
    }

    /// Tells handlers of what came to an end, until they cause no more of it.
    pub fn settle(&mut self) {
        while let Some(ending) = self.ends.pop_front() {
            let now = self.env.now;
            let life = self.oracle.life(ending.fd);
            life.told += 1;
            assert_eq!((life.told, life.closed_at), (1, Some(now)), "{}: an end told once, in its turn", ending.fd);
            self.on_close(&ending);
        }
    }

    fn reap(&mut self) {
        self.settle();
        for slot in mem::take(&mut self.over) {
            // One that was cut off while it was flushed in the middle of a turn is listed by the next flush, too.
            if self.slots.get(slot).is_none() {
                continue;
            }
            let fd = self.slots.fd_of(slot);
            self.clock.cancel(Owner::Connection(slot));
            self.slots.remove(slot, &mut self.env);
            let (life, ledger) = self.oracle.account(fd);
            assert!(!life.is_open(), "{fd} was freed while open");
            assert_eq!(life.told, u32::from(life.closed_at.is_some()), "{fd} was freed before its end was told");
            life.lane.abandon(ledger);
            life.is_reaped = true;
            self.remember(fd);
            hit("slot freed");
        }
    }

    // What follows from it.

    /// Takes a connection that stopped being open out of the maps, and lists it for its handler.
    pub fn record_end(&mut self, slot: Slot, event: Option<Event<'_>>) -> bool {
        let Some(Event::Closed(closed)) = event else { return false };
        let fd = self.slots.fd_of(slot);
        let departed = self.registry.remove(slot);
        self.oracle.people.remove(fd, &departed);
        self.closed += 1;
        hit(match closed.cause {
            fdpush::Cause::ProtocolError(error) => crate::tongue::name_of(error),
            cause => cause.as_str(),
        });
        self.ends.push_back(Ending { fd, departed });
        true
    }

    /// Sees to it that a connection's next deadline is in the wheel.
    pub fn arm(&mut self, slot: Slot) {
        let Some(entry) = self.slots.get(slot) else { return };
        let at = entry.connection.poll_timeout(&self.env);
        if at < Tick::NEVER {
            self.clock.arm_no_later(Owner::Connection(slot), at);
        }
    }

    /// Lists a connection to be read.
    pub fn make_ready(&mut self, slot: Slot) {
        if let Some(entry) = self.slots.get_mut(slot)
            && !mem::replace(&mut entry.is_ready, true)
        {
            self.ready.push(slot);
        }
    }

    /// Lists a connection as having something to write.
    pub fn touch(&mut self, slot: Slot) {
        if let Some(entry) = self.slots.get_mut(slot)
            && !mem::replace(&mut entry.is_dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    /// The same after output that nobody was asked about, which may have made a queue of what came before it.
    pub fn touch_unasked(&mut self, slot: Slot) {
        self.touch(slot);
        if self.oracle.ledger.total > self.env.limits.queue_total_bytes_max {
            hit("no room for control frames");
            self.write(slot);
        }
    }

    /// The life of whoever has a slot.
    pub fn life_at(&mut self, slot: Slot) -> &mut Life {
        self.oracle.life(self.slots.fd_of(slot))
    }

    // What should be.

    /// Takes note of where a connection has its output.
    pub fn observe(&mut self, slot: Slot) {
        let Some(entry) = self.slots.get(slot) else { return };
        let (queued, fresh) = (entry.connection.queued_bytes(), entry.connection.fresh_bytes());
        let (life, ledger) = self.oracle.account(self.slots.fd_of(slot));
        life.lane.observe(queued, fresh, ledger);
    }

    /// Holds one connection against its twin.
    pub fn compare(&mut self, slot: Slot) {
        self.observe(slot);
        let fd = self.slots.fd_of(slot);
        let Some(entry) = self.slots.get(slot) else { return };
        let life = self.oracle.lives.get(&fd).expect("the server has it");
        assert_eq!(entry.connection.is_open(), life.is_open(), "{fd}: open, as against {:?}", life.stage);
        assert_eq!(entry.connection.queued_bytes(), life.lane.bytes(), "{fd}: bytes queued");
        assert_eq!(entry.connection.fresh_bytes(), life.lane.fresh_bytes(), "{fd}: bytes in the journal");
        assert_eq!(entry.connection.is_untried(), life.lane.is_untried(), "{fd}: what the wire is yet to refuse");
        if self.rng.one_in(8) {
            entry.connection.check_invariants();
        }
    }

    /// Holds everything against what should be.
    pub fn check(&self) {
        let limits = &self.env.limits;
        self.clock.check();
        self.oracle.people.check(&self.registry, |slot| self.slots.fd_of(slot));
        let mut open = 0;
        for (slot, entry) in self.slots.iter() {
            let fd = self.slots.fd_of(slot);
            let life = self.oracle.lives.get(&fd).unwrap_or_else(|| panic!("{fd} is nobody"));
            entry.connection.check_invariants();
            let at = entry.connection.poll_timeout(&self.env);
            let (due, now) = (life.due(limits), self.env.now);
            // One that was ended in the flush, for there was no room for what it had, goes with the next.
            let is_over = entry.connection.state() == State::Closing && !entry.connection.wants_read();
            assert!(at <= due || is_over, "{fd} asks for {at:?}, and is due at {due:?}");
            assert!(due > now, "{fd} was due at {due:?}");
            let armed = self.clock.deadline(Owner::Connection(slot)).unwrap_or(Tick::NEVER);
            // What is overdue, because room turned out to be none, is for the next turn; so is what a handler was told of
            // behind the flush has done, and that turn follows at once.
            assert!(
                armed <= at.max(now) || entry.is_dirty,
                "{fd} asks for {at:?}, and the wheel has {armed:?} at {now:?}"
            );
            assert!(life.lane.message_bytes() <= limits.queue_bytes_max, "{fd}: the queue is over its bound");
            open += u64::from(entry.connection.is_open());
        }
        assert_eq!(self.opened, self.closed + open, "opened, closed and open");
    }
}
