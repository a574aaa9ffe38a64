//! A hash table that grows in steps.
//!
//! An ordinary hash table that grows moves all its entries in one call. For the uids of a million connections, such a
//! call takes 250 ms, and the loop serves no client during the call. So a large table is split into several tables. The
//! hash of an entry selects its table, and the tables grow at different times. A call that grows one of the 64 tables
//! moves about one 64th of all entries.

use std::iter::{Chain, Flatten};
use std::vec;

use hashbrown::{HashTable, hash_table};

/// The number of tables after the split, a power of two.
const TABLES: usize = 64;

/// The number of entries at which the first table is split.
const SPLIT_LEN: usize = 8192;

/// The position of the lowest bit of a hash that selects the table.
///
/// The bits from this position on are used because `HashTable` itself uses the lowest bits and the seven highest bits.
const TABLE_SHIFT: u32 = 48;

/// The capacity, in entries, up to which a table is never shrunk.
const TABLE_KEPT: usize = 64;

/// A hash table that is split into several tables when it is large.
///
/// The caller hashes and compares entries, as for a [`HashTable`]. The reason is that an entry of the registry is an
/// id, and the key of the entry is stored elsewhere. The argument `hash_of` of the methods is a function that returns
/// the hash of an entry.
#[derive(Debug)]
pub struct SplitTable<T> {
    /// The table of all entries before the split. After the split, this table is empty.
    first: HashTable<T>,
    /// The tables of the entries after the split. Before the split, there are no such tables.
    rest: Box<[HashTable<T>]>,
}

impl<T> SplitTable<T> {
    /// Creates an empty table, without an allocation.
    pub fn new() -> SplitTable<T> {
        SplitTable { first: HashTable::new(), rest: Box::default() }
    }

    /// Returns the number of entries.
    ///
    /// The call takes O(1) time, because there are at most [`TABLES`] tables.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(HashTable::len).sum::<usize>()
    }

    /// Returns whether the table is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.rest.iter().all(HashTable::is_empty)
    }

    /// Returns the entry with this hash that `is_equal` accepts.
    #[inline]
    pub fn find(&self, hash: u64, is_equal: impl FnMut(&T) -> bool) -> Option<&T> {
        let table = if self.rest.is_empty() { &self.first } else { &self.rest[table_of(hash)] };
        table.find(hash, is_equal)
    }

    /// Returns a mutable reference to the entry with this hash. The caller must not change the hash of the entry.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, is_equal: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.table_mut(hash).find_mut(hash, is_equal)
    }

    /// Adds an entry, and returns a reference to the entry. The entry must not be in the table yet.
    pub fn insert(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) -> &mut T {
        if self.first.len() == SPLIT_LEN {
            self.split(&hash_of);
        }
        self.table_mut(hash).insert_unique(hash, entry, hash_of).into_mut()
    }

    /// Removes an entry and returns it.
    ///
    /// A table that is less than one eighth full shrinks. If a table becomes empty and fewer than `SPLIT_LEN / 8`
    /// entries are left in all tables, all entries move back to the first table.
    pub fn remove(&mut self, hash: u64, is_equal: impl FnMut(&T) -> bool, hash_of: impl Fn(&T) -> u64) -> Option<T> {
        let table = self.table_mut(hash);
        let (entry, _) = table.find_entry(hash, is_equal).ok()?.remove();
        if table.capacity() > TABLE_KEPT && table.len() < table.capacity() / 8 {
            table.shrink_to(2 * table.len(), &hash_of);
        }
        if table.is_empty() && !self.rest.is_empty() && self.len() < SPLIT_LEN / 8 {
            self.join(&hash_of);
        }
        Some(entry)
    }

    #[inline]
    fn table_mut(&mut self, hash: u64) -> &mut HashTable<T> {
        if self.rest.is_empty() { &mut self.first } else { &mut self.rest[table_of(hash)] }
    }

    /// Moves all entries from the first table to the other tables.
    #[cold]
    fn split(&mut self, hash_of: impl Fn(&T) -> u64) {
        // Each table has capacity for half as many entries again, so that it does not grow soon after the split.
        let table = |_| HashTable::with_capacity(SPLIT_LEN / TABLES * 3 / 2);
        self.rest = (0..TABLES).map(table).collect();
        for entry in std::mem::take(&mut self.first) {
            let hash = hash_of(&entry);
            self.rest[table_of(hash)].insert_unique(hash, entry, &hash_of);
        }
    }

    /// Moves all entries back to the first table.
    #[cold]
    fn join(&mut self, hash_of: impl Fn(&T) -> u64) {
        for entry in std::mem::take(&mut self.rest).into_iter().flatten() {
            self.first.insert_unique(hash_of(&entry), entry, &hash_of);
        }
    }
}

impl<T> Default for SplitTable<T> {
    fn default() -> SplitTable<T> {
        SplitTable::new()
    }
}

impl<T> IntoIterator for SplitTable<T> {
    type Item = T;
    type IntoIter = Chain<hash_table::IntoIter<T>, Flatten<vec::IntoIter<HashTable<T>>>>;

    /// Returns all entries, in no particular order.
    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest.into_vec().into_iter().flatten())
    }
}

#[inline]
fn table_of(hash: u64) -> usize {
    (hash >> TABLE_SHIFT) as usize % TABLES
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_table_takes_no_more_memory_than_a_hash_map() {
        assert_eq!(size_of::<SplitTable<u64>>(), size_of::<hashbrown::HashMap<u64, (), RandomState>>());
    }

    #[test]
    fn an_insertion_or_removal_moves_only_a_small_part_of_the_entries() {
        const COUNT: u32 = 200_000;
        let hasher = RandomState::new();
        let moved = Cell::new(0);
        let hash_of = |id: &u32| {
            moved.set(moved.get() + 1);
            hasher.hash_one(id)
        };
        let mut table = SplitTable::new();
        let bound = |len: u32| SPLIT_LEN.max(len as usize / 32);
        for id in 0..COUNT {
            moved.set(0);
            table.insert(hasher.hash_one(id), id, hash_of);
            assert!(
                moved.get() <= bound(id),
                "one insertion must move only a few entries, not {} of {id}",
                moved.get()
            );
        }
        assert_eq!(table.len(), COUNT as usize);
        for id in 0..COUNT {
            moved.set(0);
            assert_eq!(table.remove(hasher.hash_one(id), |other| *other == id, hash_of), Some(id));
            assert!(
                moved.get() <= bound(COUNT - id),
                "one removal must move only a few entries, not {} of {}",
                moved.get(),
                COUNT - id
            );
        }
        assert!(table.is_empty());
        assert!(table.rest.is_empty());
        assert!(
            table.first.capacity() <= TABLE_KEPT,
            "the first table must shrink, but its capacity is {}",
            table.first.capacity()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn split_table_matches_naive(operations in prop::collection::vec((0..10_u32, 0..20_000_u32), 0..40)) {
            let hasher = RandomState::new();
            let hash_of = |id: &u32| hasher.hash_one(id);
            let (mut table, mut naive) = (SplitTable::new(), BTreeSet::new());
            for (operation, first) in operations {
                // Each operation adds or removes 1000 ids, so that the table is split and joined again.
                for id in first..first + 1000 {
                    let is_id = |other: &u32| *other == id;
                    prop_assert_eq!(table.find(hash_of(&id), is_id).is_some(), naive.contains(&id));
                    if operation < 4 {
                        prop_assert_eq!(table.remove(hash_of(&id), is_id, hash_of).is_some(), naive.remove(&id));
                    } else if naive.insert(id) {
                        prop_assert_eq!(*table.insert(hash_of(&id), id, hash_of), id);
                    }
                }
                prop_assert_eq!(table.len(), naive.len());
                prop_assert_eq!(table.is_empty(), naive.is_empty());
            }
            let entries: BTreeSet<u32> = table.into_iter().collect();
            prop_assert_eq!(entries, naive);
        }
    }
}
