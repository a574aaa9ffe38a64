//! Enforces the bounds on the memory of all connections.
//!
//! If the queues together exceed their bound, the connections with the largest queues drop messages or are closed,
//! until 1/16 of the bound is free. Then many bytes can be queued before the next search for the largest queues, so
//! searches are rare.

use crate::connection::table::{Entry, Observed, Table, Transport};
use crate::connection::{Eviction, Evictor, Holder};
use crate::fd::Slot;

/// If the unfinished input of all connections exceeds its bound, connections are closed until 1/8 of the bound is free.
const FREED_PART: usize = 8;

/// After a search through `n` queues that freed little, the next `n / HOLDERS_PER_PUSH` pushes make no search.
const HOLDERS_PER_PUSH: usize = 16;

impl<T: Transport> Table<T> {
    /// Writes all queues, if their memory grew by a quarter of the bound since the last call.
    ///
    /// This write is made because the queues can be long although no reader is slow, if one turn queues much output. It
    /// is made only after growth by a quarter, because otherwise each push over the bound would make system calls.
    pub(super) fn write_all(&mut self) {
        if self.env.queued.frames.saturating_sub(self.refused_bytes) < self.env.limits.queue_total_bytes_max / 4 {
            return;
        }
        let listed: Vec<Slot> = self.unflushed().collect();
        for slot in listed {
            // Output in the journal is not written here, but by the next flush. HTTP responses are not written here
            // either: the flush writes the response to a push request after the messages of this push.
            let has_queue = |entry: &Entry<T>| !entry.connection.is_http() && entry.connection.has_queue();
            if self.entries.get(slot.index()).is_some_and(has_queue) {
                // A broken transport is not handled here, because the next flush handles it.
                self.write_output(slot);
            }
        }
        self.refused_bytes = self.env.queued.frames;
    }

    /// Frees memory of the largest queues, if the queues together exceed their bound.
    ///
    /// An evicted connection is closed, or drops its newest messages. Returns whether the connection at `watched`
    /// dropped messages.
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
                // This output was not offered to the socket yet, so the client possibly reads fast. If the write frees
                // memory, this eviction is skipped: the connection stays a holder with its remaining memory.
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
        // If less than 1/16 of the bound is free now, only memory is left that evictions do not free: partly written
        // messages, and the minimum of each holder. The next search would free little, too.
        let is_free = evictor.is_enough(&self.env);
        self.pushes_before_search = if is_free { 0 } else { count / HOLDERS_PER_PUSH };
        has_dropped
    }

    /// Drops messages of the connection at `slot`, without a search for the largest queues.
    ///
    /// If the last search freed little, this call replaces the search after a push to the connection. Returns whether
    /// messages were dropped. The freed memory is not always enough to keep the bound.
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

    /// Drops the newest messages of a holder, until its counted memory is at most `charge_max`.
    ///
    /// Returns the number of dropped messages and the remaining counted memory of the connection.
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

    /// Returns the connections with the most unfinished input, if all unfinished input exceeds its bound.
    ///
    /// The caller closes each of these connections with
    /// [`Connection::close_overload`](crate::connection::Connection::close_overload). Afterwards at least 1/8 of the
    /// bound is free: see [`FREED_PART`].
    #[inline]
    pub fn inbound_holders(&mut self) -> Vec<Slot> {
        if self.env.is_over_inbound() { self.largest_inbound() } else { Vec::new() }
    }

    #[cold]
    fn largest_inbound(&mut self) -> Vec<Slot> {
        let mut holders: Vec<(usize, Slot)> = Vec::new();
        let Table { entries, shared, unfinished, .. } = self;
        unfinished.retain(|slot| {
            let bytes = entries.get(slot.index()).map_or(0, |entry| {
                let transport = entry.transport.as_ref();
                entry.connection.inbound_bytes() + transport.map_or(0, |transport| transport.inbound_bytes(shared))
            });
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
