//! One level of the wheel: a ring of slots, and a bit for each that is not empty.
//!
//! It keeps lists and bits in step. It must not know which ticks the slots stand for.

use std::mem;

use super::ring::List;

pub(super) const SLOTS: usize = 512;

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = SLOTS / WORD_BITS;

#[derive(Copy, Clone, Debug)]
pub(super) struct Level {
    /// Bit `slot % 64` of word `slot / 64` is set while that slot is not empty.
    occupied: [u64; WORDS],
    slots: [List; SLOTS],
}

impl Level {
    pub(super) const EMPTY: Level = Level { occupied: [0; WORDS], slots: [List::EMPTY; SLOTS] };

    /// The list of a slot, to be added to.
    pub(super) fn occupy(&mut self, slot: usize) -> &mut List {
        self.occupied[slot / WORD_BITS] |= 1 << (slot % WORD_BITS);
        &mut self.slots[slot]
    }

    /// Takes a node out of a slot's list, by way of `unlink`.
    pub(super) fn change(&mut self, slot: usize, unlink: impl FnOnce(&mut List)) {
        unlink(&mut self.slots[slot]);
        if self.slots[slot].is_empty() {
            self.vacate(slot);
        }
    }

    /// Empties a slot.
    pub(super) fn take(&mut self, slot: usize) -> List {
        self.vacate(slot);
        mem::replace(&mut self.slots[slot], List::EMPTY)
    }

    pub(super) fn lists(&self) -> &[List] {
        &self.slots
    }

    /// How many slots it is from `slot` to the first that is not empty, going round at the end.
    pub(super) fn distance_to_occupied(&self, slot: usize) -> Option<u64> {
        let first = slot / WORD_BITS;
        // The slot's own word comes twice: first without what lies before the slot, and last for just that.
        let after = u64::MAX << (slot % WORD_BITS);
        (first..=first + WORDS).find_map(|at| {
            let word = self.occupied[at % WORDS] & if at == first { after } else { u64::MAX };
            (word != 0).then(|| (at * WORD_BITS + word.trailing_zeros() as usize - slot) as u64)
        })
    }

    pub(super) fn check_invariants(&self) {
        for (slot, list) in self.slots.iter().enumerate() {
            let bit = self.occupied[slot / WORD_BITS] >> (slot % WORD_BITS) & 1;
            assert_eq!(bit == 1, !list.is_empty(), "occupancy of slot {slot}");
        }
    }

    fn vacate(&mut self, slot: usize) {
        self.occupied[slot / WORD_BITS] &= !(1 << (slot % WORD_BITS));
    }
}
