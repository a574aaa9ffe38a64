//! A set of slots, in one bit each: those that are open, or that may hold memory.
//!
//! A walk costs a 64th of the slots that there ever were, and those in the set.

use crate::fd::Slot;

/// The set.
#[derive(Debug, Default)]
pub struct SlotSet {
    words: Vec<u64>,
}

impl SlotSet {
    /// Adds a slot.
    #[inline]
    pub fn insert(&mut self, slot: Slot) {
        let (word, bit) = (slot.index() / 64, slot.0 % 64);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << bit;
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(word) = self.words.get_mut(slot.index() / 64) {
            *word &= !(1 << (slot.0 % 64));
        }
    }

    /// All slots, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.iter_from(Slot(0))
    }

    /// The slots from `start` on, lowest first.
    pub fn iter_from(&self, start: Slot) -> impl Iterator<Item = Slot> + '_ {
        let first = start.index() / 64;
        self.words.iter().enumerate().skip(first).flat_map(move |(index, word)| {
            let mut left = if index == first { *word & (u64::MAX << (start.0 % 64)) } else { *word };
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(Slot(index as u32 * 64 + bit))
            })
        })
    }

    /// Removes all slots that `keep` does not want, lowest first.
    pub fn retain(&mut self, mut keep: impl FnMut(Slot) -> bool) {
        for (index, word) in self.words.iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                if !keep(Slot(index as u32 * 64 + bit)) {
                    *word &= !(1 << bit);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_sees_each_slot_once_and_keeps_what_it_is_told() {
        let mut set = SlotSet::default();
        for slot in [700, 0, 63, 64, 0, 700].map(Slot) {
            set.insert(slot);
        }
        let mut seen = Vec::new();
        set.retain(|slot| {
            seen.push(slot);
            slot.0 % 64 != 0
        });
        assert_eq!(seen, [0, 63, 64, 700].map(Slot));
        seen.clear();
        set.retain(|slot| {
            seen.push(slot);
            true
        });
        assert_eq!(seen, [63, 700].map(Slot));
    }

    #[test]
    fn slots_come_in_order_from_anywhere() {
        let mut open = SlotSet::default();
        let slots = [0, 1, 63, 64, 130, 4096].map(Slot);
        slots.iter().rev().for_each(|slot| open.insert(*slot));
        open.insert(Slot(5000));
        open.remove(Slot(5000));
        open.remove(Slot(99_999));
        for start in [0, 1, 2, 63, 64, 65, 130, 131, 4096, 4097, 9999].map(Slot) {
            let expected: Vec<Slot> = slots.into_iter().filter(|slot| *slot >= start).collect();
            assert_eq!(open.iter_from(start).collect::<Vec<_>>(), expected, "{start}");
        }
    }
}
