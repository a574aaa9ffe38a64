//! A set of slots, in one bit each: those that are open, or that may hold memory.
//!
//! A walk costs a 64th of the slots that there ever were, and those in the set.

/// The set.
#[derive(Debug, Default)]
pub struct SlotSet {
    words: Vec<u64>,
}

impl SlotSet {
    /// Adds a slot.
    #[inline]
    pub fn insert(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, slot % 64);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << bit;
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: u32) {
        if let Some(word) = self.words.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    /// The slots from `start` on, lowest first.
    pub fn iter_from(&self, start: u32) -> impl Iterator<Item = u32> + '_ {
        let first = start as usize / 64;
        self.words.iter().enumerate().skip(first).flat_map(move |(index, word)| {
            let mut left = if index == first { *word & (u64::MAX << (start % 64)) } else { *word };
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(index as u32 * 64 + bit)
            })
        })
    }

    /// Removes all slots that `keep` does not want, lowest first.
    pub fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        for (index, word) in self.words.iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                if !keep(index as u32 * 64 + bit) {
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
        for slot in [700, 0, 63, 64, 0, 700] {
            set.insert(slot);
        }
        let mut seen = Vec::new();
        set.retain(|slot| {
            seen.push(slot);
            slot % 64 != 0
        });
        assert_eq!(seen, [0, 63, 64, 700]);
        seen.clear();
        set.retain(|slot| {
            seen.push(slot);
            true
        });
        assert_eq!(seen, [63, 700]);
    }

    #[test]
    fn slots_come_in_order_from_anywhere() {
        let mut open = SlotSet::default();
        let slots = [0, 1, 63, 64, 130, 4096];
        slots.iter().rev().for_each(|slot| open.insert(*slot));
        open.insert(5000);
        open.remove(5000);
        open.remove(99_999);
        for start in [0, 1, 2, 63, 64, 65, 130, 131, 4096, 4097, 9999] {
            let expected: Vec<u32> = slots.into_iter().filter(|slot| *slot >= start).collect();
            assert_eq!(open.iter_from(start).collect::<Vec<_>>(), expected, "{start}");
        }
    }
}
