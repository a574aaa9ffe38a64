//! One level of the wheel: a circular array of slots.
//!
//! A bitmap marks the occupied slots. The module keeps the lists and the bitmap consistent. The module does not use the
//! ticks for which the slots stand.

use std::mem;

use super::ring::List;

pub(super) const SLOTS: usize = 512;

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = SLOTS / WORD_BITS;

#[derive(Copy, Clone, Debug)]
pub(super) struct Level {
    /// One bit per slot, set while the slot is not empty.
    ///
    /// The bit of a slot is bit `slot % 64` of word `slot / 64`.
    occupied: [u64; WORDS],
    slots: [List; SLOTS],
}

impl Level {
    pub(super) const EMPTY: Level = Level { occupied: [0; WORDS], slots: [List::EMPTY; SLOTS] };

    /// Marks a slot as occupied and returns its list.
    ///
    /// The caller must then add a node to the list.
    pub(super) fn occupy(&mut self, slot: usize) -> &mut List {
        self.occupied[slot / WORD_BITS] |= 1 << (slot % WORD_BITS);
        &mut self.slots[slot]
    }

    /// Calls `unlink`, which removes a node from the list of `slot`, and marks the slot as empty if it has no node
    /// left.
    pub(super) fn unlink_with(&mut self, slot: usize, unlink: impl FnOnce(&mut List)) {
        unlink(&mut self.slots[slot]);
        if self.slots[slot].is_empty() {
            self.clear_bit(slot);
        }
    }

    /// Empties a slot and returns its list.
    pub(super) fn take(&mut self, slot: usize) -> List {
        self.clear_bit(slot);
        mem::replace(&mut self.slots[slot], List::EMPTY)
    }

    pub(super) fn lists(&self) -> &[List] {
        &self.slots
    }

    /// Returns the distance from `slot` to the first occupied slot at or after it. After the last slot, the search
    /// continues with the first slot.
    pub(super) fn distance_to_occupied(&self, slot: usize) -> Option<u64> {
        let first = slot / WORD_BITS;
        // The word that contains the bit of `slot` is visited first without the bits before this bit, and once more at
        // the end with all its bits.
        let after = u64::MAX << (slot % WORD_BITS);
        (first..=first + WORDS).find_map(|at| {
            let word = self.occupied[at % WORDS] & if at == first { after } else { u64::MAX };
            (word != 0).then(|| (at * WORD_BITS + word.trailing_zeros() as usize - slot) as u64)
        })
    }

    pub(super) fn check_invariants(&self) {
        for (slot, list) in self.slots.iter().enumerate() {
            let bit = self.occupied[slot / WORD_BITS] >> (slot % WORD_BITS) & 1;
            assert_eq!(
                bit == 1,
                !list.is_empty(),
                "slot {slot} must be marked as occupied if and only if it has nodes"
            );
        }
    }

    fn clear_bit(&mut self, slot: usize) {
        self.occupied[slot / WORD_BITS] &= !(1 << (slot % WORD_BITS));
    }
}
