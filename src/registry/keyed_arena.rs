//! An arena whose entries are found by id and by key.
//!
//! A keyed arena owns entries and a hash index. The module does not depend on the meaning of the entries. The index
//! stores ids, not keys: a key is stored only in its entry. The index takes five bytes for each entry.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::ops::{Index, IndexMut};

use siphasher::sip::SipHasher13;

use super::arena::Arena;
use crate::split_table::SplitTable;

/// An entry that contains its key.
pub(super) trait Keyed {
    type Key: Key + ?Sized;

    /// Returns the key.
    ///
    /// The key must not change while the entry is in an arena.
    fn key(&self) -> &Self::Key;
}

/// A key of an entry.
pub(super) trait Key: Eq {
    /// Returns the hash of the key.
    fn hash(&self, hasher: &SipHasher13) -> u64;
}

/// A map from ids and from keys to entries.
///
/// Keys are unique. The id of a removed entry is reused.
#[derive(Debug)]
pub(super) struct KeyedArena<T> {
    entries: Arena<T>,
    index: SplitTable<u32>,
    /// The hash function. Without its random seed, clients could choose keys whose hashes collide.
    hasher: SipHasher13,
    /// The id that was found last. If the key of this entry is searched again, no hash is needed.
    ///
    /// The same key is often searched several times in a row, for instance for several messages of one read, or for a
    /// check and then for a push.
    last: Cell<u32>,
}

impl<T: Keyed> KeyedArena<T> {
    pub(super) fn new() -> KeyedArena<T> {
        let random = RandomState::new();
        let hasher = SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1));
        KeyedArena { entries: Arena::new(), index: SplitTable::new(), hasher, last: Cell::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> + '_ {
        self.entries.iter().map(|(index, entry)| (id(index), entry))
    }

    /// Returns a portion of the entries: see [`Arena::scan`].
    pub(super) fn scan(&self, start: usize, max: usize) -> (impl Iterator<Item = &T> + '_, Option<usize>) {
        self.entries.scan(start, max)
    }

    /// Returns the entry with this key.
    #[inline(always)]
    pub(super) fn get(&self, key: &T::Key) -> Option<&T> {
        // The entry with the id `last` may have been removed and the id reused since the last search, so the key is
        // compared.
        match self.entries.get(self.last.get() as usize) {
            Some(entry) if entry.key() == key => Some(entry),
            _ => Some(&self[self.find_by_hash(key)?]),
        }
    }

    /// Returns the id of the entry with this key.
    #[inline]
    pub(super) fn find(&self, key: &T::Key) -> Option<u32> {
        let last = self.last.get();
        match self.entries.get(last as usize) {
            Some(entry) if entry.key() == key => Some(last),
            _ => self.find_by_hash(key),
        }
    }

    // This function is not inlined, so that a search for the key that was found last does not reserve stack memory for
    // the computation of the hash.
    #[inline(never)]
    fn find_by_hash(&self, key: &T::Key) -> Option<u32> {
        let hash = key.hash(&self.hasher);
        let found = self.index.find(hash, |&id| self[id].key() == key).copied()?;
        self.last.set(found);
        Some(found)
    }

    /// Adds an entry and returns its id.
    ///
    /// No other entry of the arena may have the same key.
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        let hash = entry.key().hash(&self.hasher);
        let id = id(self.entries.insert(entry));
        let KeyedArena { entries, index, hasher, .. } = self;
        index.insert(hash, id, |&id| hash_of(entries, hasher, id));
        id
    }

    pub(super) fn remove(&mut self, id: u32) -> T {
        let entry = self.entries.remove(id as usize);
        let hash = entry.key().hash(&self.hasher);
        let KeyedArena { entries, index, hasher, .. } = self;
        let removed = index.remove(hash, |&other| other == id, |&id| hash_of(entries, hasher, id));
        assert_eq!(removed, Some(id), "each entry must be in the index");
        entry
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.index.len(), self.entries.len(), "the index must have one id for each entry");
        for (id, entry) in self.iter() {
            assert_eq!(self.find(entry.key()), Some(id), "the key of each entry must find its id");
        }
    }
}

impl<T> Index<u32> for KeyedArena<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        self.entries.get(id as usize).expect("the arena must have an entry with this id")
    }
}

impl<T> IndexMut<u32> for KeyedArena<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.entries.get_mut(id as usize).expect("the arena must have an entry with this id")
    }
}

fn hash_of<T: Keyed>(entries: &Arena<T>, hasher: &SipHasher13, id: u32) -> u64 {
    entries.get(id as usize).expect("each id in the index must have an entry").key().hash(hasher)
}

/// Converts an index to an id.
///
/// All indices fit into 32 bits: there are at most 2^24 users, one for each connection, and 2^30 memberships, the
/// largest valid `memberships_max`.
pub(super) fn id(index: usize) -> u32 {
    u32::try_from(index).expect("an index must fit into 32 bits")
}
