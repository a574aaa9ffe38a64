//! Handlers that make random calls. Some of these calls use the fds of closed connections.

use std::mem;

use fdpush::sim::{Event, Owner, Tick};
use fdpush::{BodyMode, CloseCode, Fd, Heartbeat, Request, Response, SecondLogin, Slot, Upgrade};

use crate::calls::Target;
use crate::coverage::hit;
use crate::inbound::SentItem;
use crate::output::PushOptions;
use crate::server::{PendingClose, Server};

/// The maximum number of fds that handlers remember.
const REMEMBERED_MAX: usize = 64;

const USERS: usize = 12;
const GROUPS: usize = 6;

/// The answer to a deferred upgrade.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Deferred {
    Accept,
    Refuse,
}

impl Server {
    // Events.

    /// Handles an event that a connection of the server reports. The event must be the next one that the client's bytes
    /// cause.
    ///
    /// `unparsed` is the number of bytes from the same read that are not parsed yet.
    pub fn handle_event(&mut self, slot: Slot, fd: Fd, event: Event<'_>, unparsed: usize) {
        let said = match event {
            Event::Request { request, .. } => return self.answer_request(slot, fd, &request),
            Event::Head(request) => return self.receive_body(slot, request),
            Event::Piece { .. } => unreachable!("this handler takes whole bodies only"),
            Event::Upgrade(request) => return self.answer_upgrade(slot, fd, request, unparsed),
            Event::Closed(closed) => {
                let (model, ledger) = self.oracle.account(fd);
                let env = self.table.env();
                model.close_by_bytes(&closed, &env.limits, env.now, ledger);
                self.record_end(slot, Some(Event::Closed(closed)));
                return self.compare(slot);
            }
            Event::Refused(_) => return self.compare(slot),
            Event::Text(text) => SentItem::Text(text.into_owned()),
            Event::Binary(bytes) => SentItem::Binary(bytes.into_owned()),
            Event::Ping(payload) => SentItem::Ping(payload.into_owned()),
            Event::Pong(payload) => SentItem::Pong(payload.into_owned()),
        };
        let (model, ledger) = self.oracle.account(fd);
        assert!(
            model.is_open(),
            "the server must deliver messages of open connections only, but delivered {said:?} of {fd}"
        );
        let env = self.table.env();
        model.inbound.deliver(&said, &env.limits, env.now);
        match &said {
            SentItem::Ping(payload) => {
                hit("event: ping");
                if model.output.push_pong(payload, ledger) {
                    hit("pong waits");
                }
            }
            SentItem::Pong(_) => hit("event: pong"),
            _ => self.on_message(fd),
        }
        self.compare(slot);
    }

    fn on_message(&mut self, fd: Fd) {
        hit("event: message");
        if self.rng.one_in(2) {
            let options = self.options();
            self.call_push(&Target::One(fd), &[], &options);
        } else if self.rng.one_in(self.random_calls) {
            self.call_at_random(fd);
        }
    }

    fn on_open(&mut self, fd: Fd) {
        for _ in 0..self.rng.below(4) {
            let group = self.group();
            self.call_membership(fd, &group, 2);
        }
        if self.rng.one_in(self.random_calls) {
            self.call_at_random(fd);
        }
    }

    /// Handles the end of a connection. A later push to its fd, its former uid or its former groups must not reach it.
    pub fn on_close(&mut self, close: &PendingClose) {
        self.remember(close.fd);
        assert!(self.open_slot(close.fd).is_none(), "{} must no longer be open when on_close is called", close.fd);
        if self.rng.one_in(4) {
            let uids = close.names.uid.iter().map(ToString::to_string).collect();
            let groups = close.names.groups.iter().map(ToString::to_string).collect();
            let target = self.rng.pick(&[Target::One(close.fd), Target::Uids(uids), Target::Groups(groups)]).clone();
            let options = self.options();
            self.call_push(&target, &[], &options);
        }
        if self.rng.one_in(self.random_calls) {
            self.call_at_random(close.fd);
        }
    }

    /// Handles a timer that fired. The timer must not fire before its deadline, and must fire in the first turn after
    /// its deadline.
    pub fn fire_timer(&mut self, index: u32) {
        hit("timer fired");
        let (at, every) = self.timers.remove(&index).unwrap_or_else(|| panic!("timer {index} does not exist"));
        self.time.assert_due(at, "a timer");
        let now = self.time.now;
        if every > 0 && !self.is_draining {
            let next = if at.0 + every > now.0 { Tick(at.0 + every) } else { Tick(now.0 + every) };
            self.timers.insert(index, (next, every));
            self.clock.arm(Owner::Timer(index), next);
        }
        let fd = self.random_fd();
        self.call_at_random(fd);
    }

    /// Runs commands of other threads, and answers deferred upgrades.
    pub fn run_commands(&mut self) {
        for _ in 0..self.rng.below(self.commands_a_turn + 1) {
            let fd = self.random_fd();
            self.call_at_random(fd);
            self.call_on_close();
        }
        for (fd, verdict) in mem::take(&mut self.deferred) {
            if self.rng.one_in(4) {
                self.answer_late(fd, verdict);
            } else {
                self.deferred.push((fd, verdict));
            }
        }
    }

    // HTTP.

    fn receive_body(&mut self, slot: Slot, request: Box<Request<'static>>) {
        let taken = self.step(slot, |connection, env| connection.receive_body(request, BodyMode::Collect, env));
        if let Some((_, state)) = taken {
            let (model, ledger) = self.oracle.account(self.table.fd_of(slot));
            model.output.observe_raw(state.queued, ledger);
        }
        self.replay();
        self.record_slow_consumers();
    }

    fn answer_request(&mut self, slot: Slot, fd: Fd, request: &Request<'_>) {
        hit("event: request");
        let bytes = request.query("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        let response = match request.path().as_ref() {
            "/big" => Response::new(200).body(vec![b'x'; bytes]),
            _ => Response::text(404, "not here\n"),
        };
        self.respond(slot, fd, response);
    }

    fn respond(&mut self, slot: Slot, fd: Fd, response: Response) {
        let Some((_, state)) = self.step(slot, |connection, env| connection.respond(response, env)) else { return };
        let (model, ledger) = self.oracle.account(fd);
        model.output.observe_raw(state.queued, ledger);
        self.replay();
        if self.table.transport(slot).is_some_and(|socket| socket.is_readable) {
            self.make_ready(slot);
        }
        if !self.table.keep_http_bound(slot) {
            self.replay();
            self.table.drop_response(slot);
        }
        self.replay();
        self.record_slow_consumers();
        self.arm(slot);
    }

    fn answer_upgrade(&mut self, slot: Slot, fd: Fd, request: Box<Request<'static>>, unparsed: usize) {
        let verdict = if self.rng.one_in(12) { Deferred::Refuse } else { Deferred::Accept };
        if self.rng.one_in(6) {
            hit("upgrade: later");
            self.step(slot, |connection, _| connection.defer(fdpush::sim::Deferred::Upgrade(request)));
            self.replay();
            self.record_slow_consumers();
            self.deferred.push((fd, verdict));
        } else {
            self.finish_upgrade(slot, fd, verdict, &request, unparsed);
        }
    }

    fn answer_late(&mut self, fd: Fd, verdict: Deferred) {
        let Some(slot) = self.table.slot_of(fd) else { return };
        let waiting = self.step(slot, |connection, _| connection.take_deferred()).and_then(|(deferred, _)| deferred);
        self.replay();
        self.record_slow_consumers();
        if let Some(fdpush::sim::Deferred::Upgrade(request)) = waiting {
            self.finish_upgrade(slot, fd, verdict, &request, 0);
        }
    }

    fn finish_upgrade(&mut self, slot: Slot, fd: Fd, verdict: Deferred, request: &Request<'_>, unparsed: usize) {
        if verdict == Deferred::Refuse {
            hit("upgrade: refused");
            return self.respond(slot, fd, Response::text(403, "not you\n"));
        }
        let uid = request.query("uid").map(|uid| uid.into_owned());
        if let Some(uid) = &uid
            && self.second_login == SecondLogin::RejectNew
            && self.registry.count_of(uid) > 0
        {
            hit("upgrade: uid taken");
            return self.respond(slot, fd, Response::text(409, "uid connected already\n"));
        }
        let accepted = self.step(slot, |connection, env| connection.accept(fd, &Upgrade::accept(), request, env));
        let Some((accepted, state)) = accepted else { return };
        if let Some(mut early) = accepted.expect("the answer is valid") {
            hit("upgrade: accepted");
            self.opened += 1;
            let now = self.table.env().now;
            let (model, ledger) = self.oracle.account(fd);
            model.open(now);
            model.output.observe_raw(state.queued, ledger);
            let ahead = model.inbound.read - model.inbound.frames_start;
            assert_eq!(
                (early.len() + unparsed) as u64,
                ahead,
                "the server must keep all bytes that it has read from {fd} and that follow the upgrade request"
            );
            self.replay();
            if let Some(uid) = &uid {
                self.call_bind(fd, uid);
            }
            self.on_open(fd);
            self.record_slow_consumers();
            self.call_on_close();
            if !early.is_empty() {
                self.feed(slot, &mut early);
            }
            self.make_ready(slot);
        }
        self.arm(slot);
    }

    // Calls.

    /// Makes a random call for `fd` or for another connection. The connection may already be closed.
    fn call_at_random(&mut self, fd: Fd) {
        let other = self.random_fd();
        let (uid, group) = (self.uid(), self.group());
        match self.rng.below(40) {
            0..12 => self.push_at_random(fd, other),
            12..14 => self.call_ping(other),
            14..18 => _ = self.call_bind(other, &uid),
            18..25 => {
                let verb = self.rng.below(5);
                self.call_membership(other, &group, verb);
            }
            25 => self.call_ungroup(&group),
            26..29 => {
                let code = *self.rng.pick(&[1000, 1001, 1008, 1011, 3000, 4999]);
                let reason = *self.rng.pick(&["", "bye", "änderung", "a reason that goes on for a while"]);
                self.call_close(other, CloseCode::from(code), reason);
            }
            29 => self.call_abort(other),
            30..33 => {
                let heartbeat = crate::setting::heartbeat(&mut self.rng);
                self.call_heartbeat(other, heartbeat);
            }
            33 => self.call_heartbeat(other, Heartbeat::Off),
            34..37 => {
                let is_paused = self.rng.one_in(3);
                self.call_pause(other, is_paused);
            }
            37..39 if !self.is_draining && self.timers.len() < 50 => {
                let delay = self.rng.skewed(20_000) as u64;
                let every = if self.rng.one_in(3) { self.rng.within(20..=3000) as u64 } else { 0 };
                self.call_timer(delay + 1, every);
            }
            _ => {
                let index = self.rng.below(50) as u32;
                self.call_cancel(index);
            }
        }
    }

    fn push_at_random(&mut self, fd: Fd, other: Fd) {
        // A push to groups or to all takes longer with more connections. So with many connections, such pushes are less
        // frequent.
        let many = self.table.count() / 16;
        let target = match self.rng.below(12) {
            0..4 => Target::One(other),
            4..7 => Target::Uids((0..self.rng.within(1..=3)).map(|_| self.uid()).collect()),
            7..10 if self.rng.one_in(many / GROUPS + 1) => {
                Target::Groups((0..self.rng.within(1..=3)).map(|_| self.group()).collect())
            }
            10..12 if self.rng.one_in(many + 1) => Target::All,
            _ => Target::One(fd),
        };
        let except: &[Fd] = if self.rng.one_in(3) { &[fd, other] } else { &[] };
        // A series of pushes to the same target fills queues.
        let bursts = matches!(target, Target::One(_) | Target::Uids(_)) && self.rng.one_in(6);
        for _ in 0..if bursts { self.rng.within(2..=30) } else { 1 } {
            let options = self.options();
            self.call_push(&target, except, &options);
        }
    }

    fn options(&mut self) -> PushOptions {
        let max = self.table.env().limits.queue_bytes_max;
        let payload_bytes = match self.rng.below(20) {
            0..12 => self.rng.within(16..=140),
            12..17 => self.rng.within(16..=2000),
            17..19 => 16 + self.rng.skewed(max / 2),
            _ => 16 + self.rng.skewed(max + 20),
        };
        let key = self.rng.one_in(2).then(|| format!("key{}", self.rng.below(3)));
        PushOptions { is_text: self.rng.one_in(2), payload_bytes, is_frame: self.rng.one_in(4), key }
    }

    /// Returns the fd of a random connection, which may already be closed.
    fn random_fd(&mut self) -> Fd {
        if self.table.slots_end() == 0 || self.rng.one_in(8) && !self.remembered.is_empty() {
            let stale = self.remembered.get(self.rng.below(self.remembered.len())).copied();
            return stale.unwrap_or(Fd::from_u64(1).expect("the fd is valid"));
        }
        let slot = Slot(self.rng.below(self.table.slots_end() as usize) as u32);
        self.table.fd_of(slot)
    }

    /// Stores an fd for later calls, which also use the fd after its connection has closed.
    pub fn remember(&mut self, fd: Fd) {
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.push(fd);
        } else {
            let at = self.rng.below(REMEMBERED_MAX);
            self.remembered[at] = fd;
        }
    }

    fn uid(&mut self) -> String {
        format!("user {}", self.rng.below(USERS))
    }

    fn group(&mut self) -> String {
        format!("a group whose name is number {}", self.rng.below(GROUPS))
    }
}
