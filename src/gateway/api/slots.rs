//! A set of connections, for lists with duplicates. Its cost is linear in the number of entries.

use fdpush::Fd;

/// A set of slots.
#[derive(Default)]
pub struct SlotSet(Vec<u64>);

impl SlotSet {
    /// Adds the slot of an open connection. Returns `false` if it was present.
    pub fn insert(&mut self, fd: Fd) -> bool {
        let (word, bit) = (fd.slot().index() / 64, 1 << (fd.slot().0 % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }
}
