//! Which control connections make room for others.
//!
//! A control connection that has shown no key can be anyone's: when all places are taken, the oldest of them is closed for the
//! next one that comes. Those that the handler keeps are not. Some places are left to those that are not kept, which is
//! where probes without a key find theirs.

use std::collections::{HashSet, VecDeque};

/// Places beyond the limit of kept connections.
pub const PLACES_NOT_KEPT: usize = 16;

/// The control connections that have a place, by slot. One that was closed to make room has none, although it is in its slot
/// until the turn ends.
#[derive(Debug, Default)]
pub struct Places {
    kept: HashSet<u32>,
    /// The others, the oldest first.
    others: VecDeque<u32>,
}

impl Places {
    /// A connection came.
    pub fn insert(&mut self, slot: u32) {
        self.others.push_back(slot);
    }

    /// A connection is gone.
    pub fn remove(&mut self, slot: u32) {
        if !self.kept.remove(&slot) {
            self.others.retain(|other| *other != slot);
        }
    }

    /// Keeps a connection from now on. `false`: it has no place, or `kept_max` others are kept.
    pub fn keep(&mut self, slot: u32, kept_max: usize) -> bool {
        if self.kept.contains(&slot) {
            return true;
        }
        if self.kept.len() >= kept_max {
            return false;
        }
        let Some(at) = self.others.iter().position(|other| *other == slot) else { return false };
        self.others.remove(at);
        self.kept.insert(slot)
    }

    /// Keeps a connection no longer. It counts as one that came now.
    pub fn release(&mut self, slot: u32) {
        if self.kept.remove(&slot) {
            self.others.push_back(slot);
        }
    }

    /// Whether there is no place for one more.
    pub fn are_taken(&self, kept_max: usize) -> bool {
        self.kept.len() + self.others.len() >= kept_max + PLACES_NOT_KEPT
    }

    /// Connections that may be accepted in one turn: so few that each is read from before newer ones can take its place.
    pub fn accepts_max(&self, kept_max: usize) -> usize {
        (kept_max.saturating_sub(self.kept.len()) + PLACES_NOT_KEPT) / 4
    }

    /// The connections that are not kept, the oldest first.
    pub fn others(&self) -> impl Iterator<Item = u32> {
        self.others.iter().copied()
    }

    /// Takes the place of the oldest connection that is not kept and may be closed.
    pub fn take_oldest(&mut self, may_close: impl Fn(u32) -> bool) -> Option<u32> {
        let at = self.others.iter().position(|slot| may_close(*slot))?;
        self.others.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_not_kept_makes_room() {
        let mut places = Places::default();
        (0..5).for_each(|slot| places.insert(slot));
        assert!(places.keep(0, 2) && places.keep(2, 2) && places.keep(2, 2));
        assert!(!places.keep(3, 2), "two are kept");
        assert!(!places.keep(9, 9), "it has no place");
        assert_eq!(places.take_oldest(|slot| slot != 1), Some(3));
        places.release(0);
        assert!(places.keep(4, 2));
        assert_eq!(places.take_oldest(|_| true), Some(1));
        assert_eq!(places.take_oldest(|_| true), Some(0));
        assert_eq!(places.take_oldest(|_| true), None);
        places.remove(2);
        places.remove(4);
        assert!(!places.are_taken(0), "{places:?}");
        (0..16).for_each(|slot| places.insert(slot));
        assert!(places.are_taken(0) && !places.are_taken(1));
    }
}
