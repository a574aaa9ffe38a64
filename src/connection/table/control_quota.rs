//! Which control connections make room for others.
//!
//! A control connection that has shown no key can be anyone's: when all places are taken, the oldest of them is closed for the
//! next one that comes. Those that the handler keeps are not. Some places are left to those that are not kept, which is
//! where probes without a key find theirs.

use crate::fd::Slot;
use std::collections::{HashSet, VecDeque};

/// ControlQuota beyond the limit of kept connections.
pub const NOT_KEPT_MIN: usize = 16;

/// The control connections that have a place, by slot. One that was closed to make room has none, although it is in its slot
/// until the turn ends.
#[derive(Debug, Default)]
pub struct ControlQuota {
    kept: HashSet<Slot>,
    /// The others, the oldest first.
    others: VecDeque<Slot>,
}

impl ControlQuota {
    /// A connection came.
    pub fn insert(&mut self, slot: Slot) {
        self.others.push_back(slot);
    }

    /// A connection is gone.
    pub fn remove(&mut self, slot: Slot) {
        if !self.kept.remove(&slot) {
            self.others.retain(|other| *other != slot);
        }
    }

    /// Keeps a connection from now on. `false`: it has no place, or `kept_max` others are kept.
    pub fn keep(&mut self, slot: Slot, kept_max: usize) -> bool {
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
    pub fn release(&mut self, slot: Slot) {
        if self.kept.remove(&slot) {
            self.others.push_back(slot);
        }
    }

    /// Whether there is no place for one more.
    pub fn is_used_up(&self, kept_max: usize) -> bool {
        self.kept.len() + self.others.len() >= kept_max + NOT_KEPT_MIN
    }

    /// Connections that may be accepted in one turn: so few that each is read from before newer ones can take its place.
    pub fn accepts_max(&self, kept_max: usize) -> usize {
        (kept_max.saturating_sub(self.kept.len()) + NOT_KEPT_MIN) / 4
    }

    /// The connections that are not kept, the oldest first.
    pub fn others(&self) -> impl Iterator<Item = Slot> {
        self.others.iter().copied()
    }

    /// Takes the place of the oldest connection that is not kept and may be closed.
    pub fn take_oldest(&mut self, may_close: impl Fn(Slot) -> bool) -> Option<Slot> {
        let at = self.others.iter().position(|slot| may_close(*slot))?;
        self.others.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_not_kept_makes_room() {
        let mut quota = ControlQuota::default();
        (0..5).map(Slot).for_each(|slot| quota.insert(slot));
        assert!(quota.keep(Slot(0), 2) && quota.keep(Slot(2), 2) && quota.keep(Slot(2), 2));
        assert!(!quota.keep(Slot(3), 2), "two are kept");
        assert!(!quota.keep(Slot(9), 9), "it has no place");
        assert_eq!(quota.take_oldest(|slot| slot != Slot(1)), Some(Slot(3)));
        quota.release(Slot(0));
        assert!(quota.keep(Slot(4), 2));
        assert_eq!(quota.take_oldest(|_| true), Some(Slot(1)));
        assert_eq!(quota.take_oldest(|_| true), Some(Slot(0)));
        assert_eq!(quota.take_oldest(|_| true), None);
        quota.remove(Slot(2));
        quota.remove(Slot(4));
        assert!(!quota.is_used_up(0), "{quota:?}");
        (0..16).map(Slot).for_each(|slot| quota.insert(slot));
        assert!(quota.is_used_up(0) && !quota.is_used_up(1));
    }
}
