//! The list of connections that the loop reads without a new epoll event.

use crate::connection::SlotSet;
use crate::fd::Slot;

/// The slots of the connections to read.
///
/// A slot is in the list at most once. If the connection of a slot in the list is removed, the entry stays, and the
/// next connection at the slot takes the entry over. So the removal of a connection does not search the list.
#[derive(Debug, Default)]
pub struct ReadyList {
    slots: Vec<Slot>,
    /// The slots in the list that have no connection now.
    vacant: SlotSet,
}

impl ReadyList {
    /// Adds a slot, which must not be in the list yet.
    #[inline]
    pub fn push(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    /// Moves all entries into `slots`. A taken slot must not be added again until its connection is read.
    pub fn take(&mut self, slots: &mut Vec<Slot>) {
        slots.append(&mut self.slots);
    }

    /// Moves the entries in `slots`, which were taken but not read, back to the front of the list.
    #[inline]
    pub fn put_back(&mut self, slots: &mut Vec<Slot>) {
        if !slots.is_empty() {
            slots.append(&mut self.slots);
            std::mem::swap(slots, &mut self.slots);
        }
    }

    /// Records that the connection at a slot in the list was removed.
    #[cold]
    pub fn vacate(&mut self, slot: Slot) {
        self.vacant.insert(slot);
    }

    /// Records that the entry of a vacant slot was taken from the list.
    #[cold]
    pub fn skip(&mut self, slot: Slot) {
        self.vacant.remove(slot);
    }

    /// Handles a new connection at a slot, and returns whether the slot is in the list.
    pub fn occupy(&mut self, slot: Slot) -> bool {
        let is_listed = self.vacant.contains(slot);
        if is_listed {
            self.vacant.remove(slot);
        }
        is_listed
    }

    /// Returns the number of slots in the list.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Panics if a slot is in the list twice, or if the flag of its connection is wrong.
    ///
    /// `is_listed` returns the flag of a slot, or `None` for a slot without a connection.
    pub fn check_invariants(&self, is_listed: impl Fn(Slot) -> Option<bool>) {
        let mut listed = SlotSet::default();
        for &slot in &self.slots {
            assert!(listed.insert(slot), "slot {slot} must be in the list once");
            assert_ne!(is_listed(slot), Some(false), "the connection at slot {slot} must be marked as listed");
        }
        for slot in self.vacant.iter() {
            assert!(listed.contains(slot), "the vacant slot {slot} must be in the list");
            assert_eq!(is_listed(slot), None, "the vacant slot {slot} must have no connection");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_in_the_list_once_even_if_a_new_connection_takes_it() {
        let mut ready = ReadyList::default();
        let (freed, other) = (Slot(7), Slot(100));
        for slot in [freed, other] {
            assert!(!ready.occupy(slot), "a new slot must not be in the list");
            ready.push(slot);
        }
        ready.vacate(freed);
        ready.check_invariants(|slot| (slot != freed).then_some(true));
        assert!(ready.occupy(freed), "the second connection must take over the list entry of the slot");
        assert!(!ready.occupy(freed), "only one connection may take over the list entry of the slot");
        ready.check_invariants(|_| Some(true));

        ready.vacate(freed);
        let mut taken = Vec::new();
        ready.take(&mut taken);
        assert_eq!(taken, [freed, other]);
        ready.push(Slot(1));
        ready.put_back(&mut taken);
        assert!(taken.is_empty());
        ready.take(&mut taken);
        assert_eq!(taken, [freed, other, Slot(1)], "entries that were not read must come first");
        ready.skip(freed);
        assert!(!ready.occupy(freed), "a taken entry must no longer be in the list");
        assert_eq!(ready.len(), 0);
    }
}
