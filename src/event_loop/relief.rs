//! Memory that all connections share, and which of them give some back when a bound is reached.
//!
//! The largest holders pay, until a part of the bound is free again. So a search among the holders is paid for by the
//! bytes that have to come before the next one.

use crate::event_loop::core::Core;
use crate::event_loop::table::Table;

/// The part of a bound that is made free when it is reached: one in so many.
const FREED_PART: usize = 8;

impl Table {
    /// Takes note that a connection may hold an unfinished message.
    #[inline]
    pub fn note_inbound(&mut self, slot: u32) {
        if self.get(slot).is_some_and(|entry| entry.connection.inbound_bytes() > 0) {
            self.unfinished.insert(slot);
        }
    }

    /// The connections that hold the most unfinished bytes, so many that a part of the bound is free without them.
    fn largest_inbound(&mut self) -> Vec<u32> {
        let mut holders: Vec<(usize, u32)> = Vec::new();
        let entries = &self.entries;
        self.unfinished.retain(|slot| {
            let bytes = entries.get(slot as usize).map_or(0, |entry| entry.connection.inbound_bytes());
            if bytes > 0 {
                holders.push((bytes, slot));
            }
            bytes > 0
        });
        holders.sort_unstable_by(|one, other| other.cmp(one));
        let max = self.env.limits.inbound_total_bytes_max;
        let goal = max - max / FREED_PART;
        let mut left = self.env.inbound.bytes();
        let is_over = |&(bytes, _): &(usize, u32)| {
            let was_over = left > goal;
            left = left.saturating_sub(bytes);
            was_over
        };
        holders.into_iter().take_while(is_over).map(|(_, slot)| slot).collect()
    }
}

impl Core {
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
