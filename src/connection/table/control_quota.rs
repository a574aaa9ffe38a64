//! The quota of control connections.
//!
//! Every process that reaches a control listener can open connections, also without an API key. If the quota is used
//! up, the oldest control connection is closed for a new one. A handler can mark a control connection as kept. A kept
//! connection is not closed for a new one. A part of the quota is reserved for connections that are not kept, so that
//! health probes without an API key can connect.

use crate::fd::Slot;
use std::collections::{HashSet, VecDeque};

/// The number of connections in the quota that is reserved for connections that are not kept.
pub const NOT_KEPT_MIN: usize = 16;

/// The control connections that count in the quota, by slot.
///
/// A connection that was closed for a new connection no longer counts in the quota, although it keeps its slot until
/// the turn ends.
#[derive(Debug, Default)]
pub struct ControlQuota {
    kept: HashSet<Slot>,
    /// Connections that may be closed for a new connection, the oldest first.
    others: VecDeque<Slot>,
}

impl ControlQuota {
    /// Returns the slots of all connections in the quota, in no particular order.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.kept.iter().chain(&self.others).copied()
    }

    /// Adds a connection.
    pub fn insert(&mut self, slot: Slot) {
        self.others.push_back(slot);
    }

    /// Removes a connection from the quota.
    pub fn remove(&mut self, slot: Slot) {
        if !self.kept.remove(&slot) {
            self.others.retain(|other| *other != slot);
        }
    }

    /// Marks a connection as kept, so that it is not closed for a new connection.
    ///
    /// Returns `false` if the connection is not in the quota, or if `kept_max` other connections are marked already.
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

    /// Removes the mark of [`keep`](ControlQuota::keep). Afterwards, the connection counts as the newest connection in
    /// the quota.
    pub fn release(&mut self, slot: Slot) {
        if self.kept.remove(&slot) {
            self.others.push_back(slot);
        }
    }

    /// Returns whether a new connection fits into the quota only if another connection is closed.
    pub fn is_used_up(&self, kept_max: usize) -> bool {
        self.kept.len() + self.others.len() >= kept_max + NOT_KEPT_MIN
    }

    /// Returns the number of control connections that the loop may accept in one turn.
    ///
    /// The number is low, so that each connection is read at least once before a newer connection can replace it.
    pub fn accepts_max(&self, kept_max: usize) -> usize {
        (kept_max.saturating_sub(self.kept.len()) + NOT_KEPT_MIN) / 4
    }

    /// Returns the connections that may be closed for a new connection, the oldest first.
    pub fn others(&self) -> impl Iterator<Item = Slot> {
        self.others.iter().copied()
    }

    /// Removes the oldest connection that `keep` has not marked and that `may_close` allows.
    pub fn take_oldest(&mut self, may_close: impl Fn(Slot) -> bool) -> Option<Slot> {
        let at = self.others.iter().position(|slot| may_close(*slot))?;
        self.others.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_connection_that_is_not_kept_is_closed() {
        let mut quota = ControlQuota::default();
        (0..5).map(Slot).for_each(|slot| quota.insert(slot));
        assert!(quota.keep(Slot(0), 2) && quota.keep(Slot(2), 2) && quota.keep(Slot(2), 2));
        assert!(!quota.keep(Slot(3), 2), "at most two connections may be kept");
        assert!(!quota.keep(Slot(9), 9), "a slot outside the quota must not be kept");
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
