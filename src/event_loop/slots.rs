//! A set of slots, in one bit each: those that may hold memory.
//!
//! A slot is added when its connection takes memory, and removed by the next walk that finds it without. To add one costs
//! a store; a walk costs a 64th of the slots, and those in the set.

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
}
