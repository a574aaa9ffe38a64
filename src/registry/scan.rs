//! Portions of the lists of users and groups.
//!
//! A call that reads a list of millions of names takes longer than a turn of the loop may take. So a caller can read a
//! list in portions, one portion in each turn. The position of an entry in the list does not change while the entry
//! exists, even if other entries are added and removed.

use crate::registry::Registry;

/// A position in the list of users or groups.
///
/// The default value is the start of the list. [`Context::scan_users`](crate::Context::scan_users) and
/// [`Context::scan_groups`](crate::Context::scan_groups) return the position of the next portion. A position in the
/// list of users has no meaning in the list of groups.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct ScanCursor(usize);

impl Registry {
    /// Returns a portion of the uids with the number of their slots, and the cursor of the next portion.
    ///
    /// A uid that stays bound during a scan is returned once. The portion has at most `max` uids, or 256 if `max` is
    /// lower. The cursor is `None` after the last portion.
    pub fn scan_users(
        &self,
        cursor: ScanCursor,
        max: usize,
    ) -> (impl Iterator<Item = (&str, usize)> + '_, Option<ScanCursor>) {
        let (users, next) = self.users.scan(cursor.0, max);
        (users.map(|user| (user.name.as_str(), user.count as usize)), next.map(ScanCursor))
    }

    /// Returns a portion of the groups with the number of their members, and the cursor of the next portion.
    ///
    /// The length of the portion has the same limits as in [`scan_users`](Registry::scan_users).
    pub fn scan_groups(
        &self,
        cursor: ScanCursor,
        max: usize,
    ) -> (impl Iterator<Item = (&str, usize)> + '_, Option<ScanCursor>) {
        let (groups, next) = self.groups.scan(cursor.0, max);
        (groups.map(|group| (group.name.as_str(), group.members.len())), next.map(ScanCursor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fd::Slot;
    use crate::registry::{Change, SecondLogin};

    /// The number of uids, and of groups, that stay in the registry during the whole scan.
    const STAYING: u32 = 3000;
    const PORTION: usize = 256;

    #[test]
    fn a_scan_returns_each_name_that_stays_exactly_once_while_others_are_added_and_removed() {
        let mut registry = Registry::new();
        let change = |registry: &mut Registry, slot: Slot, name: &str| {
            assert_eq!(registry.bind(slot, name, SecondLogin::Multi, &mut Vec::new()), Change::Done);
            assert_eq!(registry.join(slot, name), Change::Done);
        };
        // The names with an even number stay during the scan. The names with an odd number are removed during the scan.
        for slot in 0..2 * STAYING {
            let name = if slot % 2 == 0 { format!("stays{slot}") } else { format!("goes{slot}") };
            change(&mut registry, Slot(slot), &name);
        }
        let (mut users, mut groups) = (BTreeMap::new(), BTreeMap::new());
        let mut cursors = (Some(ScanCursor::default()), Some(ScanCursor::default()));
        let mut turn = 0;
        while cursors != (None, None) {
            if let Some(cursor) = cursors.0 {
                let (portion, next) = registry.scan_users(cursor, PORTION);
                let names: Vec<String> = portion.map(|(name, _)| name.to_owned()).collect();
                assert!(names.len() <= PORTION);
                names.into_iter().for_each(|name| *users.entry(name).or_insert(0) += 1);
                cursors.0 = next;
            }
            if let Some(cursor) = cursors.1 {
                let (portion, next) = registry.scan_groups(cursor, PORTION);
                let names: Vec<String> = portion.map(|(name, _)| name.to_owned()).collect();
                assert!(names.len() <= PORTION);
                names.into_iter().for_each(|name| *groups.entry(name).or_insert(0) += 1);
                cursors.1 = next;
            }
            // After each portion, 100 names are removed. Then 50 new names are added, which get ids of removed names.
            for slot in (200 * turn..200 * (turn + 1)).filter(|slot| slot % 2 == 1 && *slot < 2 * STAYING) {
                registry.remove(Slot(slot));
                if slot % 4 == 1 {
                    change(&mut registry, Slot(slot), &format!("comes{slot}"));
                }
            }
            turn += 1;
        }
        assert!(turn > 20, "the scan must take many portions, not {turn}");
        for seen in [users, groups] {
            let stays = |slot: u32| format!("stays{slot}");
            assert!((0..2 * STAYING).step_by(2).all(|slot| seen.get(&stays(slot)) == Some(&1)));
        }
        registry.check_invariants();
    }
}
