//! Which slots were seen in a walk over sets that overlap: once each, without a set being built or cleared.

use crate::fd::Slot;

/// A mark a slot. A slot is seen when it has the present walk's.
#[derive(Debug, Default)]
pub struct Marks {
    marks: Vec<u32>,
    present: u32,
}

impl Marks {
    /// Begins a walk over slots below `end`: none of them is seen.
    pub fn begin(&mut self, end: u32) {
        self.marks.resize(end as usize, 0);
        self.present = self.present.wrapping_add(1);
        if self.present == 0 {
            self.marks.fill(0);
            self.present = 1;
        }
    }

    /// Sees a slot. `false`: it was seen before.
    #[inline]
    pub fn see(&mut self, slot: Slot) -> bool {
        std::mem::replace(&mut self.marks[slot.index()], self.present) != self.present
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_new_once_a_walk() {
        // The counter wraps in the middle of it.
        let mut marks = Marks { present: u32::MAX - 2, ..Marks::default() };
        for end in [3, 5, 4, 4, 6, 6] {
            marks.begin(end);
            let seen: Vec<Slot> = (0..end).chain(0..end).map(Slot).filter(|slot| marks.see(*slot)).collect();
            assert_eq!(seen, (0..end).map(Slot).collect::<Vec<_>>());
        }
    }
}
