//! Memory that all connections share, and which of them free some when a bound is reached.
//!
//! The largest holders pay until a part of the bound is free again. So each search among the holders is paid for by the
//! bytes that come before the next one.

use crate::connection::table::{Entry, Observed, Table, Transport};
use crate::connection::{Eviction, Evictor, Holder};
use crate::fd::Slot;

/// The part of the bound of unfinished input that is freed when it is reached: one in so many.
const FREED_PART: usize = 8;

/// Holders that are searched for each push, while each search frees little.
const HOLDERS_PER_PUSH: usize = 16;

impl<T: Transport> Table<T> {
    /// Offers every transport its queue, once a quarter of the bound was queued since that was last done.
    ///
    /// Output then waits because the turn is long, and not because readers are slow. If each push made room for itself
    /// alone, a handler with much to push would make a system call for each.
    pub(super) fn write_all(&mut self) {
        if self.env.queued.frames.saturating_sub(self.refused_bytes) < self.env.limits.queue_total_bytes_max / 4 {
            return;
        }
        let listed: Vec<Slot> = self.unflushed().collect();
        for slot in listed {
            // Fresh output is in no queue, and would be if its transport refused it. A response is written after the messages
            // that it reports: at the turn's end.
            let has_queue = |entry: &Entry<T>| !entry.connection.is_http() && entry.connection.has_queue();
            if self.entries.get(slot.index()).is_some_and(has_queue) {
                // A broken transport is found again by the flush.
                self.write_output(slot);
            }
        }
        self.refused_bytes = self.env.queued.frames;
    }

    /// Makes the largest holders of queued bytes pay, if all queues are over their bound.
    ///
    /// Each is closed, or drops its newest messages. Returns whether the connection at `watched` dropped some.
    #[inline]
    pub(super) fn enforce_queue_total(&mut self, watched: Option<Slot>) -> bool {
        self.env.is_over_total(0) && self.evict(watched)
    }

    #[cold]
    fn evict(&mut self, watched: Option<Slot>) -> bool {
        let mut has_dropped = watched.is_some_and(|slot| self.evict_pushed(slot));
        if has_dropped && !self.env.is_over_total(0) {
            return true;
        }
        let holders = self.holders();
        let count = holders.len();
        let mut evictor = Evictor::new(holders, &self.env.limits);
        while let Some(eviction) = evictor.poll(&self.env, |slot| self.charge(slot)) {
            let (Eviction::Close(holder) | Eviction::Drop { holder, .. }) = eviction;
            let is_untried = |entry: &Entry<T>| entry.connection.is_untried() && entry.connection.can_write();
            if self.entries.get(holder.slot.index()).is_some_and(is_untried) {
                // Its reader may not be slow: nothing was offered to it yet. One that took the turn's share is slow.
                self.write_output(holder.slot);
                let charge = self.charge(holder.slot);
                if charge < holder.charge {
                    evictor.handle_written(holder, charge);
                    continue;
                }
            }
            match eviction {
                Eviction::Close(_) => self.close_slow(holder.slot, evictor.bytes_min(), Some(holder.charge)),
                Eviction::Drop { charge_max, .. } => {
                    let (dropped, charge) = self.drop_newest(holder, charge_max, evictor.bytes_min());
                    evictor.handle_dropped(holder, dropped, charge);
                    has_dropped |= dropped > 0 && watched == Some(holder.slot);
                }
            }
        }
        // Only half messages are left to drop, and the queues are within their bound: little was freed.
        let is_free = evictor.is_enough(&self.env);
        self.pushes_before_search = if is_free { 0 } else { count / HOLDERS_PER_PUSH };
        has_dropped
    }

    /// Makes a connection pay for what was pushed to it, when a search would not find much. Returns whether it dropped
    /// messages, which may be too few.
    fn evict_pushed(&mut self, slot: Slot) -> bool {
        if self.pushes_before_search == 0 {
            return false;
        }
        self.pushes_before_search -= 1;
        let excess = self.env.queued.frames.saturating_sub(self.env.limits.queue_total_bytes_max);
        let (charge, bytes_min) = (self.charge(slot), self.env.limits.queue_bytes_min);
        if charge < bytes_min + excess {
            return false;
        }
        let (dropped, _) = self.drop_newest(Holder { charge, slot }, charge - excess, bytes_min);
        dropped > 0
    }

    /// Drops the newest messages of a holder, and returns how many and what it is charged then.
    fn drop_newest(&mut self, holder: Holder, charge_max: usize, bytes_min: usize) -> (usize, usize) {
        let Some((entry, env)) = self.entry_mut(holder.slot) else { return (0, 0) };
        let messages = entry.connection.drop_newest(charge_max, env);
        env.counts.dropped += messages as u64;
        entry.observe(Observed::Dropped { messages, charge: holder.charge, bytes_min });
        (messages, entry.connection.charge())
    }

    /// Returns the connections that have a queue.
    fn holders(&mut self) -> Vec<Holder> {
        let listed: Vec<Slot> = self.unflushed().collect();
        listed.into_iter().for_each(|slot| _ = self.queued.insert(slot));
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
        self.connection(slot).map_or(0, |connection| connection.charge())
    }

    /// Returns the connections that hold the most unfinished input, if all of it is over its bound.
    ///
    /// They are so many that a part of the bound is free without them. The caller closes each with
    /// [`Connection::close_overload`](crate::connection::Connection::close_overload).
    #[inline]
    pub fn inbound_holders(&mut self) -> Vec<Slot> {
        if self.env.is_over_inbound() { self.largest_inbound() } else { Vec::new() }
    }

    #[cold]
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
