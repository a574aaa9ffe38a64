//! A slab whose entries are also found by a key that each carries.
//!
//! It owns the entries and the index over them, and must not know what they mean. The one idea: the index holds ids, not
//! keys, so that a key is stored once, in its entry, and costs the index five bytes.

use std::hash::{BuildHasher, Hash, RandomState};
use std::ops::{Index, IndexMut};

use super::arena::Arena;
use hashbrown::HashTable;

/// What a [`Directory`] can hold.
pub(super) trait Keyed {
    type Key: Eq + Hash + ?Sized;

    /// Must stay the same while the entry is in a directory.
    fn key(&self) -> &Self::Key;
}

/// An index of no more places than this is not shrunk.
const INDEX_KEPT: usize = 64;

/// Entries by id, and by key; no two of them have the same key. An id is reused once its entry was removed.
#[derive(Debug)]
pub(super) struct Directory<T> {
    entries: Arena<T>,
    index: HashTable<u32>,
    /// Keyed at random, for the keys are strangers' choice and could be made to collide.
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

    /// Adds an entry whose key is new.
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
        self.index.find_entry(hash, |&other| other == id).expect("every entry is indexed").remove();
        self.shrink();
        entry
    }

    /// Keeps the index at least an eighth full.
    fn shrink(&mut self) {
        let Directory { entries, index, hasher } = self;
        if index.capacity() > INDEX_KEPT && index.len() < index.capacity() / 8 {
            index.shrink_to(2 * index.len(), |&id| hash_of(entries, hasher, id));
        }
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.index.len(), self.entries.len(), "index and entries");
        for (id, entry) in self.iter() {
            assert_eq!(self.find(entry.key()), Some(id), "an entry is not found by its key");
        }
    }
}

impl<T> Index<u32> for Directory<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        self.entries.get(id as usize).expect("an id that was given out")
    }
}

impl<T> IndexMut<u32> for Directory<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.entries.get_mut(id as usize).expect("an id that was given out")
    }
}

fn hash_of<T: Keyed>(entries: &Arena<T>, hasher: &RandomState, id: u32) -> u64 {
    hasher.hash_one(entries.get(id as usize).expect("every entry is indexed").key())
}

/// An index as the 32 bits it is stored in: four thousand million entries would not fit into memory first.
pub(super) fn id(index: usize) -> u32 {
    u32::try_from(index).expect("an index fits 32 bits")
}
