//! What handlers may ask for. Every answer is foretold from the oracle's people and lives, which go by fd, where the
//! server goes by slot.

use std::collections::BTreeSet;
use std::time::Duration;

use fdpush::sim::{Event, Owner, Sent};
use fdpush::{Cause, Change, CloseCode, Fd, Heartbeat, Slot};

use crate::coverage::hit;
use crate::lane::Due;
use crate::output::Manner;
use crate::server::Server;

/// Whom a push is for.
#[derive(Clone, Debug)]
pub enum Target {
    One(Fd),
    Uids(Vec<String>),
    Groups(Vec<String>),
    All,
}

impl Server {
    /// Pushes, to all of the target but `except`.
    pub fn ask_push(&mut self, target: &Target, except: &[Fd], manner: &Manner) {
        let intended: BTreeSet<Fd> = match target {
            Target::One(fd) => [*fd].into(),
            Target::Uids(uids) => uids.iter().flat_map(|uid| self.oracle.people.fds_of(uid)).collect(),
            Target::Groups(groups) => groups.iter().flat_map(|group| self.oracle.people.members(group)).collect(),
            Target::All => self.oracle.open().collect(),
        };
        let is_meant = |fd: &Fd| self.oracle.is_open(*fd) && !except.contains(fd);
        let intended: Vec<Fd> = intended.into_iter().filter(is_meant).collect();

        let found: Vec<Slot> = match target {
            Target::One(fd) => self.slots.slot_of(*fd).into_iter().collect(),
            Target::Uids(uids) => uids.iter().flat_map(|uid| self.registry.slots_of(uid)).collect(),
            Target::Groups(groups) => groups.iter().flat_map(|group| self.registry.members(group)).collect(),
            Target::All => (0..self.slots.end()).map(Slot).collect(),
        };
        let mut seen: BTreeSet<Slot> = except.iter().filter_map(|fd| self.slots.slot_of(*fd)).collect();
        let slots: Vec<Slot> = found.into_iter().filter(|slot| seen.insert(*slot)).collect();
        hit(match (target, intended.len()) {
            (Target::One(_), 0) => "asked: push to a stale fd",
            (Target::One(_), _) => "asked: push to an fd",
            (Target::Uids(_), _) => "asked: push to uids",
            (Target::Groups(_), _) => "asked: push to groups",
            (Target::All, _) => "asked: push to all",
        });
        self.push_to_slots(&slots, intended, manner);
    }

    /// Closes one connection.
    pub fn ask_close(&mut self, fd: Fd, code: CloseCode, reason: &str) {
        hit("asked: close");
        let was_open = self.oracle.is_open(fd);
        let slot = self.slots.slot_of(fd);
        let is_closed = slot.is_some_and(|slot| self.close_slot(slot, code, reason, Cause::ServerClosed));
        assert_eq!(is_closed, was_open, "{fd} was closed");
    }

    /// Starts the close handshake. `false`: it was not open.
    pub fn close_slot(&mut self, slot: Slot, code: CloseCode, reason: &str, cause: Cause) -> bool {
        let Some(entry) = self.slots.get_mut(slot) else { return false };
        let event = entry.connection.close(code, reason, cause, &mut self.env);
        self.judge_close(slot, &event, code, reason, cause);
        let was_open = self.record_end(slot, event);
        self.touch_unasked(slot);
        was_open
    }

    /// What a close of the server's must come to: an end with that cause where it was open, else nothing.
    pub fn judge_close(&mut self, slot: Slot, event: &Option<Event<'_>>, code: CloseCode, reason: &str, cause: Cause) {
        let now = self.env.now;
        self.observe(slot);
        let (life, ledger) = self.oracle.account(self.slots.fd_of(slot));
        match event {
            Some(Event::Closed(closed)) => {
                life.close(closed, code, reason, cause);
                life.say_goodbye(code, reason, now, ledger);
            }
            Some(event) => panic!("{event:?} came of a close"),
            None => assert!(!life.is_open(), "{} is open and was not closed", life.fd),
        }
        self.compare(slot);
        self.touch(slot);
    }

    /// Drops one connection.
    pub fn ask_abort(&mut self, fd: Fd) {
        hit("asked: abort");
        let Some(slot) = self.slots.slot_of(fd) else { return };
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let event = entry.connection.abort(&mut self.env);
        let (life, ledger) = self.oracle.account(fd);
        life.lane.abandon(ledger);
        assert_eq!(event.is_some(), life.is_open(), "an open connection's end is told");
        if let Some(Event::Closed(closed)) = &event {
            life.close(closed, CloseCode::ABNORMAL, "", Cause::ServerClosed);
            life.die(self.env.now);
        }
        // Whatever it was doing, it is to be dropped now.
        life.is_lost = true;
        self.touch(slot);
        self.record_end(slot, event);
    }

    /// Binds, and closes whom that kicks.
    pub fn ask_bind(&mut self, fd: Fd, uid: &str) -> Change {
        hit("asked: bind");
        let Some(slot) = self.open_slot(fd) else { return Change::Gone };
        let mut kicked = Vec::new();
        let change = self.registry.bind(slot, uid, self.second_login, &mut kicked);
        let expected = self.oracle.people.bind(fd, uid, self.second_login);
        let named: Vec<Fd> = kicked.iter().map(|slot| self.slots.fd_of(*slot)).collect();
        assert_eq!((change, named), expected, "{fd} binds to {uid}");
        for old in kicked {
            self.close_slot(old, CloseCode::KICKED, "this uid connected anew", Cause::Kicked);
        }
        change
    }

    /// Unbinds, joins or leaves: one of the registry's verbs, and its twin's.
    pub fn ask_membership(&mut self, fd: Fd, group: &str, verb: usize) {
        let Some(slot) = self.open_slot(fd) else { return };
        let people = &mut self.oracle.people;
        let (change, expected) = match verb {
            0 => (self.registry.unbind(slot), people.unbind(fd)),
            1 => (self.registry.leave(slot, group), people.leave(fd, group)),
            _ => (self.registry.join(slot, group), people.join(fd, group)),
        };
        assert_eq!(change, expected, "{fd} and {group}");
        hit(["asked: unbind", "asked: leave", "asked: join"][verb.min(2)]);
    }

    /// Ends a group.
    pub fn ask_ungroup(&mut self, group: &str) {
        hit("asked: ungroup");
        assert_eq!(self.registry.ungroup(group), self.oracle.people.ungroup(group), "members of {group}");
    }

    /// Gives a connection a heartbeat of its own.
    pub fn ask_heartbeat(&mut self, fd: Fd, heartbeat: Heartbeat) {
        let Some(slot) = self.slots.slot_of(fd) else { return };
        hit(if heartbeat == Heartbeat::Off { "asked: protect" } else { "asked: a heartbeat of its own" });
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.connection.set_heartbeat(fd, Some(heartbeat), &self.env);
        self.oracle.life(fd).set_heartbeat(heartbeat, self.env.now);
        self.arm(slot);
    }

    /// Stops reading from a connection, or goes on.
    pub fn ask_pause(&mut self, fd: Fd, is_paused: bool) {
        let Some(slot) = self.open_slot(fd) else { return };
        hit(if is_paused { "asked: pause" } else { "asked: resume" });
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.connection.set_paused(is_paused);
        if !is_paused {
            self.make_ready(slot);
        }
    }

    /// Sends a ping.
    pub fn ask_ping(&mut self, fd: Fd) {
        let Some(slot) = self.slots.slot_of(fd) else { return };
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let sent = entry.connection.ping(b"", &mut self.env);
        let limits = &self.env.limits;
        let (life, ledger) = self.oracle.account(fd);
        let (queued, bytes) = (life.lane.held_bytes(), 2);
        let expected = match life.is_open() {
            false => Sent::NotOpen,
            true if queued > 0 && queued + bytes > limits.queue_bytes_max => Sent::Full,
            true => Sent::Queued,
        };
        assert_eq!(sent, expected, "{fd} was pinged with {queued} bytes queued");
        if sent == Sent::Queued {
            hit("asked: ping");
            life.lane.observe(entry.connection.queued_bytes(), entry.connection.fresh_bytes(), ledger);
            life.lane.push_control(Due::Ping, ledger);
        }
        self.compare(slot);
        self.touch(slot);
    }

    /// A timer, `delay` from now; it repeats where `every` is not 0.
    pub fn ask_timer(&mut self, delay: u64, every: u64) {
        hit("asked: timer");
        let index = (0..).find(|index| !self.timers.contains_key(index)).expect("a free number");
        let at = self.env.now.after(Duration::from_millis(delay));
        self.timers.insert(index, (at, every));
        self.clock.arm(Owner::Timer(index), at);
    }

    /// Ends a timer.
    pub fn ask_cancel(&mut self, index: u32) {
        hit("asked: cancel a timer");
        self.timers.remove(&index);
        self.clock.cancel(Owner::Timer(index));
    }

    /// Goes down.
    pub fn drain(&mut self) {
        self.is_draining = true;
        for slot in (0..self.slots.end()).map(Slot) {
            if self.close_slot(slot, CloseCode::GOING_AWAY, "the server is going down", Cause::Drained) {
                continue;
            }
            let Some(entry) = self.slots.get_mut(slot) else { continue };
            let event = entry.connection.drain(&mut self.env);
            assert!(!matches!(event, Some(Event::Closed(_))), "what was not open has no end to tell");
            let queued = entry.connection.queued_bytes();
            let (life, ledger) = self.oracle.account(self.slots.fd_of(slot));
            life.lane.observe_raw(queued, ledger);
            self.touch(slot);
        }
        self.settle();
    }

    /// The slot of an open connection.
    pub fn open_slot(&self, fd: Fd) -> Option<Slot> {
        let slot =
            self.slots.slot_of(fd).filter(|slot| self.slots.get(*slot).is_some_and(|entry| entry.connection.is_open()));
        assert_eq!(slot.is_some(), self.oracle.is_open(fd), "{fd} is open");
        slot
    }
}
