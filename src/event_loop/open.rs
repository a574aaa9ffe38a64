//! The slots of open WebSockets, as bits: a walk over them costs what is open, and not what was ever open.

use crate::event_loop::Core;
use crate::fd::Fd;

/// A set of slots.
#[derive(Debug, Default)]
pub struct OpenSlots(Vec<u64>);

impl OpenSlots {
    /// Adds a slot.
    pub fn insert(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: u32) {
        if let Some(word) = self.0.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    /// The slots from `start` on, lowest first.
    pub fn iter_from(&self, start: u32) -> impl Iterator<Item = u32> + '_ {
        let first = start as usize / 64;
        self.0.iter().enumerate().skip(first).flat_map(move |(index, word)| {
            let mut left = if index == first { *word & (u64::MAX << (start % 64)) } else { *word };
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(index as u32 * 64 + bit)
            })
        })
    }
}

impl Core {
    /// Open connections, lowest slot first.
    pub fn connections(&self) -> impl Iterator<Item = Fd> + '_ {
        self.open.iter_from(0).map(|slot| self.table.fd_of(slot))
    }

    /// Open connections in slots behind that of `after`, lowest first, at most `limit`.
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Vec<Fd> {
        let start = after.map_or(0, |fd| fd.slot() + 1);
        self.open.iter_from(start).take(limit).map(|slot| self.table.fd_of(slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_in_order_from_anywhere() {
        let mut open = OpenSlots::default();
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
