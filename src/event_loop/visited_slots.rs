//! Marks the slots that a search has found, so that a slot in several sets is found once.
//!
//! A mark is the number of a search. Marks of earlier searches do not count, so a new search does not clear old marks.

use crate::fd::Slot;

/// The slots that the current search has found.
#[derive(Debug, Default)]
pub struct VisitedSlots {
    /// For each slot, the number of the last search that found it.
    searches: Vec<u32>,
    /// The number of the current search.
    current: u32,
}

impl VisitedSlots {
    /// Begins a search over the slots below `end`. After this call, no slot counts as visited.
    pub fn begin(&mut self, end: u32) {
        self.searches.resize(end as usize, 0);
        self.current = self.current.wrapping_add(1);
        if self.current == 0 {
            self.searches.fill(0);
            self.current = 1;
        }
    }

    /// Marks a slot, and returns whether the current search visits the slot for the first time.
    #[inline]
    pub fn visit(&mut self, slot: Slot) -> bool {
        std::mem::replace(&mut self.searches[slot.index()], self.current) != self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_visits_each_slot_once() {
        // `current`, the number of the search, wraps in the middle of the test.
        let mut slots = VisitedSlots { current: u32::MAX - 2, ..VisitedSlots::default() };
        for end in [3, 5, 4, 4, 6, 6] {
            slots.begin(end);
            let visited: Vec<Slot> = (0..end).chain(0..end).map(Slot).filter(|slot| slots.visit(*slot)).collect();
            assert_eq!(visited, (0..end).map(Slot).collect::<Vec<_>>());
        }
    }
}
