//! Pushes to one connection, to uids, to groups and to all connections.
//!
//! A function whose name ends in `_here` pushes to the connections of this loop. A public function with any other name
//! pushes to the connections of all loops.

use crate::connection::{Outbound, SlotSet};
use crate::event_loop::core::Core;
use crate::fd::{Fd, Slot};
use crate::limits::SlowReader;
use crate::message::{Content, Delivery, Outcome, Push};
use crate::protocol::frame::CONTROL_BYTES_MAX;

/// The number of receivers from which on a push is a fan-out, whose messages are queued in portions.
///
/// A push to fewer connections takes about 1 ms. In unit tests the number is low, so that the tests reach it.
const FAN_OUT_MIN: usize = if cfg!(test) { 4 } else { 30_000 };

// The doc of `Limits::queue_total_bytes_max` states the number.
const _: () = assert!(cfg!(test) || FAN_OUT_MIN == 30_000);

impl Core {
    /// Pushes to one connection.
    // This function and the push to a uid are always inlined, so that the compiler treats the options of a push as
    // constants.
    #[inline(always)]
    pub fn push(&mut self, fd: Fd, push: Push<'_>) -> Outcome {
        let Some(slot) = self.table.current_slot(fd) else { return self.push_elsewhere(fd, push) };
        if push.except.contains(&fd) {
            return Outcome::Gone;
        }
        let outcome = self.table.push(slot, &mut self.outbound(&push, false));
        self.record_slow_consumers();
        outcome
    }

    /// Pushes to the connections of one uid.
    #[inline(always)]
    pub fn push_uid(&mut self, uid: &str, push: Push<'_>) -> Delivery {
        // Most uids have only one connection. For such a uid, no search for duplicate receivers is needed.
        match self.registry.only_slot_of(uid) {
            Some(slot) if push.except.is_empty() && self.siblings.is_none() => {
                let mut delivery = Delivery::default();
                delivery.count(self.table.push(slot, &mut self.outbound(&push, false)));
                self.record_slow_consumers();
                delivery
            }
            _ => self.search_uid(uid, push),
        }
    }

    /// Pushes to the connections of one uid that has several connections, or may have connections on other loops.
    #[inline(never)]
    fn search_uid(&mut self, uid: &str, push: Push<'_>) -> Delivery {
        if self.siblings.is_some() {
            self.push_uid_across(uid, push)
        } else {
            self.push_bound(std::iter::once(uid), push)
        }
    }

    /// Pushes to the members of a group.
    pub fn push_group(&mut self, group: &str, push: Push<'_>) -> Delivery {
        if self.siblings.is_some() { self.push_group_across(group, push) } else { self.push_group_here(group, push) }
    }

    /// Pushes to the members of a group on this loop.
    pub fn push_group_here(&mut self, group: &str, push: Push<'_>) -> Delivery {
        let members = self.registry.members(group);
        if members.len() >= FAN_OUT_MIN {
            let receivers = members.collect();
            return self.fan_out(receivers, push);
        }
        if !push.except.is_empty() {
            drop(members);
            return self.push_groups_here(std::iter::once(group), push);
        }
        // A group lists each member once, so no search for duplicates is needed.
        let mut delivery = Delivery::default();
        let mut outbound = self.outbound(&push, members.len() > 1);
        let listed = self.table.listed_len();
        for slot in members {
            delivery.count(self.table.push(slot, &mut outbound));
        }
        self.table.defer_listed(listed);
        self.record_slow_consumers();
        delivery
    }

    /// Pushes to the connections of several uids. If `uids` has a uid twice, each connection of the uid gets the
    /// message once.
    pub fn push_uids(&mut self, uids: impl Iterator<Item = impl AsRef<str>>, push: Push<'_>) -> Delivery {
        if self.siblings.is_some() { self.push_uids_across(uids, push) } else { self.push_bound(uids, push) }
    }

    /// Pushes to the connections of several uids on this loop, for a command that all loops carry out.
    ///
    /// A connection that a login on another loop has replaced is skipped. The positions in `uids` of the uids that have
    /// connections on this loop are added to `found`.
    pub fn push_uids_here<'n>(
        &mut self,
        uids: impl Iterator<Item = &'n str>,
        push: Push<'_>,
        found: &mut Vec<usize>,
    ) -> Delivery {
        let has_owners = self.has_owners();
        let mut slots = self.begin_search(&push);
        for (position, uid) in uids.enumerate() {
            let before = found.len();
            if has_owners {
                let owner = self.owner_slot(uid).inspect(|_| found.push(position));
                slots.extend(owner.filter(|slot| self.visited.visit(*slot)));
                continue;
            }
            for slot in self.registry.slots_of(uid) {
                if found.len() == before {
                    found.push(position);
                }
                slots.extend(self.visited.visit(slot).then_some(slot));
            }
        }
        self.push_found(slots, push)
    }

    /// Pushes to the connections of this loop that are bound to one of `uids`.
    ///
    /// A connection that a login on another loop has replaced also gets the message.
    pub(super) fn push_bound(&mut self, uids: impl Iterator<Item = impl AsRef<str>>, push: Push<'_>) -> Delivery {
        let mut found = self.begin_search(&push);
        for uid in uids {
            found.extend(self.registry.slots_of(uid.as_ref()).filter(|slot| self.visited.visit(*slot)));
        }
        self.push_found(found, push)
    }

    /// Pushes to the members of several groups. A member of several of these groups gets the message once.
    pub fn push_groups(&mut self, groups: impl Iterator<Item = impl AsRef<str>>, push: Push<'_>) -> Delivery {
        if self.siblings.is_some() {
            self.push_groups_across(groups, push)
        } else {
            self.push_groups_here(groups, push)
        }
    }

    /// Returns the positions in `groups` of the groups that have members on this loop.
    pub fn find_groups_here<'n>(&self, groups: impl Iterator<Item = &'n str>) -> Vec<usize> {
        let has_members = |(_, group): &(usize, &str)| self.registry.members(group).len() > 0;
        groups.enumerate().filter(has_members).map(|(position, _)| position).collect()
    }

    /// Pushes to the members of several groups on this loop.
    pub fn push_groups_here(&mut self, groups: impl Iterator<Item = impl AsRef<str>>, push: Push<'_>) -> Delivery {
        let mut found = self.begin_search(&push);
        for group in groups {
            found.extend(self.registry.members(group.as_ref()).filter(|slot| self.visited.visit(*slot)));
        }
        self.push_found(found, push)
    }

    /// Pushes to several connections. If `fds` has an fd twice, the connection gets the message once.
    pub fn push_fds(&mut self, fds: impl Iterator<Item = Fd>, push: Push<'_>) -> Delivery {
        if self.siblings.is_some() { self.push_fds_across(fds, push) } else { self.push_fds_here(fds, push) }
    }

    /// Pushes to several connections of this loop.
    pub fn push_fds_here(&mut self, fds: impl Iterator<Item = Fd>, push: Push<'_>) -> Delivery {
        let mut found = self.begin_search(&push);
        found.extend(fds.filter_map(|fd| self.table.slot_of(fd)).filter(|slot| self.visited.visit(*slot)));
        self.push_found(found, push)
    }

    /// Pushes to every open WebSocket.
    pub fn broadcast(&mut self, push: Push<'_>) -> Delivery {
        if self.siblings.is_some() { self.broadcast_across(push) } else { self.broadcast_here(push) }
    }

    /// Pushes to every open connection of this loop.
    pub fn broadcast_here(&mut self, push: Push<'_>) -> Delivery {
        if self.counters.open >= FAN_OUT_MIN {
            return self.fan_out(self.open.clone(), push);
        }
        let mut found = self.begin_search(&push);
        found.extend(self.open.iter().filter(|slot| self.visited.visit(*slot)));
        self.push_found(found, push)
    }

    /// Begins a search for receivers, and returns an empty list for the receivers.
    ///
    /// Excluded connections are marked as visited, so the search skips them. Each slot is found once, so the list is
    /// never longer than the table.
    fn begin_search(&mut self, push: &Push<'_>) -> Vec<Slot> {
        self.visited.begin(self.table.slots_end());
        for slot in push.except.iter().filter_map(|fd| self.table.slot_of(*fd)) {
            self.visited.visit(slot);
        }
        std::mem::take(&mut self.found)
    }

    fn push_found(&mut self, mut found: Vec<Slot>, push: Push<'_>) -> Delivery {
        if found.len() >= FAN_OUT_MIN {
            let receivers = found.drain(..).collect();
            self.found = found;
            return self.fan_out(receivers, push);
        }
        let mut delivery = Delivery::default();
        let mut outbound = self.outbound(&push, found.len() > 1);
        let listed = self.table.listed_len();
        for slot in found.drain(..) {
            delivery.count(self.table.push(slot, &mut outbound));
        }
        self.found = found;
        self.table.defer_listed(listed);
        self.record_slow_consumers();
        delivery
    }

    /// Pushes to very many connections.
    ///
    /// The table queues and writes the message in the next turns. The counts are exact immediately.
    #[cold]
    fn fan_out(&mut self, mut receivers: SlotSet, push: Push<'_>) -> Delivery {
        self.record_slow_consumers();
        receivers.intersect(&self.open);
        for slot in push.except.iter().filter_map(|fd| self.table.slot_of(*fd)) {
            receivers.remove(slot);
        }
        let mut message = self.outbound(&push, true).to_kept();
        let (mut delivery, listed) = (Delivery::default(), self.table.listed_len());
        let at_once = self.table.begin_fan_out(&mut receivers, &message);
        message.lend(|outbound| {
            at_once.into_iter().for_each(|slot| delivery.count(self.table.push(slot, outbound)));
        });
        self.table.defer_listed(listed);
        delivery += Delivery::new(self.table.add_fan_out(receivers, message), 0);
        self.record_slow_consumers();
        delivery
    }

    #[inline]
    fn outbound<'a>(&self, push: &Push<'a>, to_many: bool) -> Outbound<'a> {
        let mut outbound = match push.content {
            Content::Frame(frame) => Outbound::frame(frame),
            Content::Payload(opcode, payload) => Outbound::message(opcode, payload),
        };
        outbound.to_many |= to_many;
        outbound.may_deflate = push.may_compress;
        outbound.key = push.key.filter(|_| self.table.env().limits.slow_reader == SlowReader::Conflate);
        outbound
    }

    /// Sends a ping.
    pub fn ping(&mut self, fd: Fd, payload: &[u8]) -> Outcome {
        if payload.len() > CONTROL_BYTES_MAX {
            return Outcome::TooLarge;
        }
        let Some(slot) = self.table.slot_of(fd) else { return self.ping_elsewhere(fd, payload) };
        let outcome = self.table.ping(slot, payload);
        self.record_slow_consumers();
        outcome
    }
}
