//! A directory: entries by id and by key.
//!
//! It owns the entries and a hash index. It does not know the meaning of the entries. The index stores ids, not keys: a
//! key is stored once, in its entry, and the index takes five bytes for it.

use std::hash::{BuildHasher, Hash, RandomState};
use std::ops::{Index, IndexMut};

use super::arena::Arena;
use hashbrown::HashTable;

/// An entry that contains its key.
pub(super) trait Keyed {
    type Key: Eq + Hash + ?Sized;

    /// Returns the key.
    ///
    /// It must not change while the entry is in a directory.
    fn key(&self) -> &Self::Key;
}

/// The capacity up to which an index is not shrunk.
const INDEX_KEPT: usize = 64;

/// A map from ids and from keys to entries.
///
/// Keys are unique. The id of a removed entry is reused.
#[derive(Debug)]
pub(super) struct Directory<T> {
    entries: Arena<T>,
    index: HashTable<u32>,
    /// Seeded at random: clients choose the keys and could make them collide.
    hasher: RandomState,
}

impl<T: Keyed> Directory<T> {
    pub(super) fn new() -> Directory<T> {
        Directory { entries: Arena::new(), index: HashTable::new(), hasher: RandomState::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> + '_ {
        self.entries.iter().map(|(index, entry)| (id(index), entry))
    }

    pub(super) fn find(&self, key: &T::Key) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |&id| self[id].key() == key).copied()
    }

    /// Adds an entry and returns its id.
    ///
    /// The key must be new.
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        let hash = self.hasher.hash_one(entry.key());
        let id = id(self.entries.insert(entry));
        let Directory { entries, index, hasher } = self;
        index.insert_unique(hash, id, |&id| hash_of(entries, hasher, id));
        id
    }

    pub(super) fn remove(&mut self, id: u32) -> T {
        let entry = self.entries.remove(id as usize);
        let hash = self.hasher.hash_one(entry.key());
        self.index.find_entry(hash, |&other| other == id).expect("an indexed entry").remove();
        self.shrink();
        entry
    }

    /// Shrinks an index that is less than one eighth full.
    fn shrink(&mut self) {
        let Directory { entries, index, hasher } = self;
        if index.capacity() > INDEX_KEPT && index.len() < index.capacity() / 8 {
            index.shrink_to(2 * index.len(), |&id| hash_of(entries, hasher, id));
        }
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.index.len(), self.entries.len(), "length of the index");
        for (id, entry) in self.iter() {
            assert_eq!(self.find(entry.key()), Some(id), "id found by key");
        }
    }
}

impl<T> Index<u32> for Directory<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        self.entries.get(id as usize).expect("a valid id")
    }
}

impl<T> IndexMut<u32> for Directory<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.entries.get_mut(id as usize).expect("a valid id")
    }
}

fn hash_of<T: Keyed>(entries: &Arena<T>, hasher: &RandomState, id: u32) -> u64 {
    hasher.hash_one(entries.get(id as usize).expect("an indexed entry").key())
}

/// Converts an index to an id.
///
/// All indices fit: there are at most 2^24 users, one for each connection, and 2^30 memberships, the largest
/// `memberships_max`.
pub(super) fn id(index: usize) -> u32 {
    u32::try_from(index).expect("an index fits 32 bits")
}
