//! Memory that all connections share, and which of them give some back when a bound is reached.
//!
//! The largest holders pay, until a part of the bound is free again. So a search among the holders is paid for by the
//! bytes that have to come before the next one.

use crate::connection::{Demand, Holder, Outbound, Relief, Sent};
use crate::event_loop::core::Core;
use crate::event_loop::table::{Entry, Table};
use crate::fd::{Fd, Slot};
use crate::limits::SlowReader;
use crate::message::Outcome;
use crate::registry::{Change, is_name};

/// The part of a bound that is made free when it is reached: one in so many.
const FREED_PART: usize = 8;

/// Holders that are looked at for each push, where one search after the other makes little free.
const HOLDERS_PER_PUSH: usize = 16;

impl Table {
    /// Pushes to a connection whose queue is full: its socket is tried before its reader is called slow.
    #[cold]
    pub(super) fn push_to_full(&mut self, slot: Slot, outbound: &mut Outbound<'_>) -> Outcome {
        if !self.write(slot) {
            // It is not slow but broken, which the flush at the turn's end finds out again.
            self.touch(slot);
            self.env.counts.dropped += 1;
            return Outcome::Dropped;
        }
        let Some((entry, env)) = self.get_mut(slot) else { return Outcome::Gone };
        match entry.connection.send(outbound, env) {
            Sent::Queued => {
                self.touch(slot);
                return self.make_room(slot);
            }
            Sent::Full | Sent::TooLarge => match env.limits.slow_reader {
                SlowReader::Close => {
                    self.close_slow(slot, usize::MAX);
                    return self.count_closed();
                }
                SlowReader::DropNewest => {}
                SlowReader::Conflate => {
                    if entry.connection.conflate(outbound, env) {
                        env.counts.conflated += 1;
                        return self.make_room(slot);
                    }
                }
            },
            // It paid for what all queues hold.
            Sent::NotOpen => return self.count_closed(),
        }
        self.env.counts.dropped += 1;
        Outcome::Dropped
    }

    /// A message is in the queue of the connection at `slot`, or fresh. Where all queues would be over their bound if its
    /// socket did not take it, it goes out now; what is over the bound then is made free by the largest holders, of which
    /// it may be one.
    #[cold]
    pub(super) fn make_room(&mut self, slot: Slot) -> Outcome {
        let fresh = self.get(slot).map_or(0, |entry| entry.connection.fresh_bytes());
        if !self.env.is_over_total(fresh) {
            return Outcome::Queued;
        }
        self.offer_all();
        // Should it have broken, the flush at the turn's end finds that out again.
        self.offer(slot);
        let was_open = self.get(slot).is_some_and(|entry| entry.connection.is_open());
        let has_dropped = self.relieve(Some(slot));
        match self.get(slot) {
            Some(entry) if was_open && !entry.connection.is_open() => self.count_closed(),
            // It was the newest, and counted when it was dropped.
            _ if has_dropped => Outcome::Dropped,
            _ => Outcome::Queued,
        }
    }

    /// Pushes to a connection that is not open. One that was closed in this push, for what others were sent before, was
    /// there when the push began.
    #[cold]
    pub(super) fn push_to_closed(&mut self, slot: Slot) -> Outcome {
        match self.has_slow_at(slot) {
            true => self.count_closed(),
            false => Outcome::Gone,
        }
    }

    fn count_closed(&mut self) -> Outcome {
        self.env.counts.dropped += 1;
        self.env.counts.dropped_by_close += 1;
        Outcome::Dropped
    }

    /// Offers every socket what is queued for it, once a good part of the bound has come since that was last done: it waits
    /// because the turn is long, and not because readers are slow. Where each push made room for itself alone, a handler
    /// with much to push would make a system call for each.
    fn offer_all(&mut self) {
        if self.env.queued.frames.saturating_sub(self.held) < self.env.limits.queue_total_bytes_max / 4 {
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        let unwritten = std::mem::take(&mut self.unwritten);
        for slot in unwritten.web_sockets().chain(dirty.iter().copied()) {
            // Fresh output takes up no room, and would if its socket refused it. An answer is written after what it
            // speaks of: at the turn's end.
            let has_queue = |entry: &Entry| !entry.connection.is_http() && entry.connection.fresh_bytes() == 0;
            if self.get(slot).is_some_and(has_queue) {
                // A socket that is broken is found out again at the flush.
                self.offer(slot);
            }
        }
        // A connection that came to be listed meanwhile stands behind those.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        self.unwritten = unwritten;
        self.held = self.env.queued.frames;
    }

    /// Writes what the connection has. What a socket refuses is in a queue only now: where that is too much for all queues
    /// together, the largest holders pay. `false`: the socket broke.
    pub(super) fn write(&mut self, slot: Slot) -> bool {
        let is_whole = self.offer(slot);
        if self.env.is_over_total(0) {
            self.relieve(None);
        }
        is_whole
    }

    /// Has the largest holders of queued bytes pay, if all queues are over their bound: each is closed, or drops its newest
    /// messages. Whether the connection at `watched` dropped some.
    #[cold]
    pub(super) fn relieve(&mut self, watched: Option<Slot>) -> bool {
        if !self.env.is_over_total(0) {
            return false;
        }
        if watched.is_some_and(|slot| self.pay_alone(slot)) {
            return true;
        }
        let holders = self.holders();
        let count = holders.len();
        let mut relief = Relief::new(holders, &self.env.limits);
        let mut has_dropped = false;
        while let Some(demand) = relief.poll(&self.env, |slot| self.charge(slot)) {
            let (Demand::Close(holder) | Demand::Drop { holder, .. }) = demand;
            let is_untried = |entry: &Entry| entry.connection.is_untried() && entry.connection.can_write();
            if self.get(holder.slot).is_some_and(is_untried) {
                // It may be a reader that nothing was offered yet. One that took what a turn may write is behind, too.
                self.offer(holder.slot);
                let charge = self.charge(holder.slot);
                if charge < holder.charge {
                    relief.handle_offered(holder, charge);
                    continue;
                }
            }
            match demand {
                Demand::Close(_) => self.close_slow(holder.slot, relief.floor()),
                Demand::Drop { charge_max, .. } => {
                    let Some((entry, env)) = self.get_mut(holder.slot) else { continue };
                    let dropped = entry.connection.drop_newest(charge_max, env);
                    env.counts.dropped += dropped as u64;
                    relief.handle_dropped(holder, dropped, entry.connection.charge());
                    has_dropped |= dropped > 0 && watched == Some(holder.slot);
                }
            }
        }
        // Only half messages are left that would have to be dropped, and there is room for them: so little was made free.
        let is_free = relief.is_enough(&self.env);
        self.unsearched = if is_free { 0 } else { count / HOLDERS_PER_PUSH };
        has_dropped
    }

    /// Has a connection that was pushed to pay for that, where a search would not find much. `false`: it did not, or not
    /// enough.
    fn pay_alone(&mut self, slot: Slot) -> bool {
        if self.unsearched == 0 {
            return false;
        }
        self.unsearched -= 1;
        let excess = self.env.queued.frames.saturating_sub(self.env.limits.queue_total_bytes_max);
        let Some((entry, env)) = self.get_mut(slot) else { return false };
        let charge = entry.connection.charge();
        if charge < env.limits.queue_bytes_min + excess {
            return false;
        }
        let dropped = entry.connection.drop_newest(charge - excess, env);
        env.counts.dropped += dropped as u64;
        dropped > 0 && !self.env.is_over_total(0)
    }

    /// The connections that have a queue.
    fn holders(&mut self) -> Vec<Holder> {
        let untold = self.unwritten.web_sockets().chain(self.dirty.iter().copied());
        untold.for_each(|slot| self.queued.insert(slot));
        let mut holders = Vec::new();
        let entries = &self.entries;
        self.queued.retain(|slot| {
            let connection = entries.get(slot.index()).map(|entry| &entry.connection);
            let queued = connection.filter(|connection| connection.has_queue());
            holders.extend(queued.map(|connection| Holder { charge: connection.charge(), slot }));
            queued.is_some()
        });
        holders
    }

    fn charge(&self, slot: Slot) -> usize {
        self.get(slot).map_or(0, |entry| entry.connection.charge())
    }

    /// Takes note that a connection may hold an unfinished message.
    #[inline]
    pub fn note_inbound(&mut self, slot: Slot) {
        if self.get(slot).is_some_and(|entry| entry.connection.inbound_bytes() > 0) {
            self.unfinished.insert(slot);
        }
    }

    /// The connections that hold the most unfinished bytes, so many that a part of the bound is free without them.
    fn largest_inbound(&mut self) -> Vec<Slot> {
        let mut holders: Vec<(usize, Slot)> = Vec::new();
        let entries = &self.entries;
        self.unfinished.retain(|slot| {
            let bytes = entries.get(slot.index()).map_or(0, |entry| entry.connection.inbound_bytes());
            if bytes > 0 {
                holders.push((bytes, slot));
            }
            bytes > 0
        });
        holders.sort_unstable_by(|one, other| other.cmp(one));
        let max = self.env.limits.inbound_total_bytes_max;
        let goal = max - max / FREED_PART;
        let mut left = self.env.inbound.bytes();
        let is_over = |&(bytes, _): &(usize, Slot)| {
            let was_over = left > goal;
            left = left.saturating_sub(bytes);
            was_over
        };
        holders.into_iter().take_while(is_over).map(|(_, slot)| slot).collect()
    }
}

impl Core {
    /// Puts a connection into a group, as far as the bounds allow.
    pub fn join(&mut self, fd: Fd, group: &str) -> Change {
        let Some(slot) = self.open_slot(fd) else { return Change::Gone };
        let (registry, limits) = (&mut self.registry, &self.table.env.limits);
        let is_full = registry.membership_count() >= limits.memberships_max
            || registry.group_count_of(slot) >= limits.connection_groups_max;
        if is_full && is_name(group) && !registry.is_member(slot, group) {
            return Change::Full;
        }
        registry.join(slot, group)
    }

    /// Ends the connections that hold the most unfinished bytes.
    #[cold]
    pub fn relieve_inbound(&mut self) {
        for slot in self.table.largest_inbound() {
            let event = self.table.step(slot, |connection, env| connection.close_overload(env));
            self.record_end(slot, event);
            self.arm(slot);
        }
    }
}
