//! The calls that handlers make in a run. The simulator compares the result of each call with the oracle.
//!
//! The oracle identifies a connection by its fd, and the server identifies it by its slot.

use std::collections::BTreeSet;
use std::time::Duration;

use fdpush::sim::{Connection, Event, Owner};
use fdpush::{Cause, Change, CloseCode, Fd, Heartbeat, Slot};

use crate::coverage::hit;
use crate::output::PushOptions;
use crate::server::Server;

/// The receivers of a push.
#[derive(Clone, Debug)]
pub enum Target {
    One(Fd),
    Uids(Vec<String>),
    Groups(Vec<String>),
    All,
}

impl Server {
    /// Pushes to the connections of the target, except to those in `except`.
    pub fn call_push(&mut self, target: &Target, except: &[Fd], options: &PushOptions) {
        let intended: BTreeSet<Fd> = match target {
            Target::One(fd) => [*fd].into(),
            Target::Uids(uids) => uids.iter().flat_map(|uid| self.oracle.names.fds_of(uid)).collect(),
            Target::Groups(groups) => groups.iter().flat_map(|group| self.oracle.names.members(group)).collect(),
            Target::All => self.oracle.open().collect(),
        };
        let is_meant = |fd: &Fd| self.oracle.is_open(*fd) && !except.contains(fd);
        let intended: Vec<Fd> = intended.into_iter().filter(is_meant).collect();

        let found: Vec<Slot> = match target {
            Target::One(fd) => self.table.slot_of(*fd).into_iter().collect(),
            Target::Uids(uids) => uids.iter().flat_map(|uid| self.registry.slots_of(uid)).collect(),
            Target::Groups(groups) => groups.iter().flat_map(|group| self.registry.members(group)).collect(),
            Target::All => (0..self.table.slots_end()).map(Slot).collect(),
        };
        let mut seen: BTreeSet<Slot> = except.iter().filter_map(|fd| self.table.slot_of(*fd)).collect();
        let slots: Vec<Slot> = found.into_iter().filter(|slot| seen.insert(*slot)).collect();
        hit(match (target, intended.len()) {
            (Target::One(_), 0) => "call: push to a stale fd",
            (Target::One(_), _) => "call: push to an fd",
            (Target::Uids(_), _) => "call: push to uids",
            (Target::Groups(_), _) => "call: push to groups",
            (Target::All, _) => "call: push to all",
        });
        self.push_to_slots(&slots, intended, options);
    }

    /// Closes one connection.
    pub fn call_close(&mut self, fd: Fd, code: CloseCode, reason: &str) {
        hit("call: close");
        let was_open = self.oracle.is_open(fd);
        let slot = self.table.slot_of(fd);
        let is_closed = slot.is_some_and(|slot| self.close_slot(slot, code, reason, Cause::ServerClosed));
        assert_eq!(is_closed, was_open, "`close` must report the end of {fd} if and only if {fd} was open");
    }

    /// Starts the close handshake, and returns whether the WebSocket was open.
    pub fn close_slot(&mut self, slot: Slot, code: CloseCode, reason: &str, cause: Cause) -> bool {
        let closed = self.step(slot, |connection, env| connection.close(code, reason, cause, env));
        let Some((event, state)) = closed else { return false };
        let now = self.table.env().now;
        let fd = self.table.fd_of(slot);
        let (model, ledger) = self.oracle.account(fd);
        match &event {
            Some(Event::Closed(closed)) => {
                model.output.observe(state.queued, state.fresh, ledger);
                model.close(closed, code, reason, cause);
                model.start_closing(code, reason, now, ledger);
            }
            Some(event) => panic!("`close` must report the end of the connection or nothing, not {event:?}"),
            None => assert!(!model.is_open(), "`close` must report the end of the open connection {fd}"),
        }
        self.compare_state(fd, state);
        self.replay();
        let was_open = self.record_end(slot, event);
        self.record_slow_consumers();
        was_open
    }

    /// Drops one connection.
    pub fn call_abort(&mut self, fd: Fd) {
        hit("call: abort");
        let Some(slot) = self.table.slot_of(fd) else { return };
        let Some((event, _)) = self.step(slot, Connection::abort) else { return };
        let now = self.table.env().now;
        let (model, ledger) = self.oracle.account(fd);
        model.output.abandon(ledger);
        assert_eq!(
            event.is_some(),
            model.is_open(),
            "`abort` must report the end of the connection if and only if it was open"
        );
        if let Some(Event::Closed(closed)) = &event {
            model.close(closed, CloseCode::ABNORMAL, "", Cause::ServerClosed);
            model.end(now);
        }
        // After an abort, the server may free the connection in any state of its output.
        model.is_lost = true;
        self.replay();
        self.record_end(slot, event);
        self.record_slow_consumers();
    }

    /// Binds a connection to a uid, and closes the other connections of the uid that the policy for second logins
    /// kicks.
    pub fn call_bind(&mut self, fd: Fd, uid: &str) -> Change {
        hit("call: bind");
        let Some(slot) = self.open_slot(fd) else { return Change::Gone };
        let mut kicked = Vec::new();
        let change = self.registry.bind(slot, uid, self.second_login, &mut kicked);
        let expected = self.oracle.names.bind(fd, uid, self.second_login);
        let named: Vec<Fd> = kicked.iter().map(|slot| self.table.fd_of(*slot)).collect();
        assert_eq!((change, named), expected, "a bind of {fd} to {uid} must have the expected result");
        for old in kicked {
            self.close_slot(old, CloseCode::KICKED, "uid connected again", Cause::Kicked);
        }
        change
    }

    /// Changes a uid or a group of a connection, both in the registry and in the oracle. `verb` selects the change: 0
    /// unbinds the uid, 1 leaves the group, and any other number joins the group.
    pub fn call_membership(&mut self, fd: Fd, group: &str, verb: usize) {
        let Some(slot) = self.open_slot(fd) else { return };
        let names = &mut self.oracle.names;
        let (change, expected) = match verb {
            0 => (self.registry.unbind(slot), names.unbind(fd)),
            1 => (self.registry.leave(slot, group), names.leave(fd, group)),
            _ => (self.registry.join(slot, group), names.join(fd, group)),
        };
        assert_eq!(change, expected, "the change of {fd} with the group {group} must have the expected result");
        hit(["call: unbind", "call: leave", "call: join"][verb.min(2)]);
    }

    /// Removes all members from a group.
    pub fn call_ungroup(&mut self, group: &str) {
        hit("call: ungroup");
        assert_eq!(
            self.registry.ungroup(group),
            self.oracle.names.ungroup(group),
            "`ungroup` must return the number of members of {group}"
        );
    }

    /// Sets the heartbeat of a connection.
    pub fn call_heartbeat(&mut self, fd: Fd, heartbeat: Heartbeat) {
        let Some(slot) = self.table.slot_of(fd) else { return };
        hit(if heartbeat == Heartbeat::Off { "call: heartbeat off" } else { "call: heartbeat" });
        self.step(slot, |connection, env| connection.set_heartbeat(fd, Some(heartbeat), env));
        self.oracle.model(fd).set_heartbeat(heartbeat, self.table.env().now);
        self.replay();
        self.record_slow_consumers();
        self.arm(slot);
    }

    /// Pauses or resumes reading from a connection.
    pub fn call_pause(&mut self, fd: Fd, is_paused: bool) {
        let Some(slot) = self.open_slot(fd) else { return };
        hit(if is_paused { "call: pause" } else { "call: resume" });
        self.table.set_paused(slot, is_paused);
        let now = self.table.env().now;
        self.oracle.model(fd).set_paused(is_paused, now);
        self.observe_reading(slot);
        self.replay();
        self.record_slow_consumers();
        if !is_paused {
            self.make_ready(slot);
        }
        self.arm(slot);
    }

    /// Sends a ping.
    pub fn call_ping(&mut self, fd: Fd) {
        let Some(slot) = self.table.slot_of(fd) else { return };
        self.table.ping(slot, b"");
        self.replay();
        self.record_slow_consumers();
    }

    /// Starts a timer that fires after `delay` ms, and then every `every` ms, unless `every` is 0.
    pub fn call_timer(&mut self, delay: u64, every: u64) {
        hit("call: timer");
        let index = (0..).find(|index| !self.timers.contains_key(index)).expect("some timer number is unused");
        let at = self.table.env().now.after(Duration::from_millis(delay));
        self.timers.insert(index, (at, every));
        self.clock.arm(Owner::Timer(index), at);
    }

    /// Ends a timer.
    pub fn call_cancel(&mut self, index: u32) {
        hit("call: cancel a timer");
        self.timers.remove(&index);
        self.clock.cancel(Owner::Timer(index));
    }

    /// Starts the shutdown of the server: closes all WebSockets, and refuses new connections.
    pub fn drain(&mut self) {
        self.is_draining = true;
        for slot in (0..self.table.slots_end()).map(Slot) {
            if self.close_slot(slot, CloseCode::GOING_AWAY, "server is shutting down", Cause::Drained) {
                continue;
            }
            let Some((event, state)) = self.step(slot, Connection::drain) else { continue };
            assert!(!matches!(event, Some(Event::Closed(_))), "a connection that is not open must not report its end");
            let (model, ledger) = self.oracle.account(self.table.fd_of(slot));
            model.is_refused = true;
            model.output.observe_raw(state.queued, ledger);
            self.replay();
            self.record_slow_consumers();
        }
        self.call_on_close();
    }

    /// Returns the slot of an open connection.
    pub fn open_slot(&self, fd: Fd) -> Option<Slot> {
        let slot = self.table.slot_of(fd).filter(|slot| self.table.connection(*slot).is_some_and(Connection::is_open));
        assert_eq!(
            slot.is_some(),
            self.oracle.is_open(fd),
            "{fd} must have an open slot if and only if the oracle has it as open"
        );
        slot
    }
}
