//! An arena: entries by id, in chunks of 256.
//!
//! A chunk is allocated for its first entry, and freed after the removal of its last entry. A single array would keep
//! the memory of its largest length. In an arena, a long-lived entry keeps only one chunk. New entries go to the lowest
//! chunk that is not full, so that higher chunks become empty.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::mem;

use slab::Slab;

/// The number of entries in a chunk.
const CHUNK_LEN: usize = 256;

/// An array of entries with stable ids.
#[derive(Debug)]
pub(super) struct Arena<T> {
    chunks: Vec<Slab<T>>,
    /// The indices of the chunks that are not full. Each index is contained once.
    free: BinaryHeap<Reverse<u32>>,
    len: usize,
}

impl<T> Arena<T> {
    pub(super) fn new() -> Arena<T> {
        Arena { chunks: Vec::new(), free: BinaryHeap::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, id: usize) -> Option<&T> {
        self.chunks.get(id / CHUNK_LEN)?.get(id % CHUNK_LEN)
    }

    pub(super) fn get_mut(&mut self, id: usize) -> Option<&mut T> {
        self.chunks.get_mut(id / CHUNK_LEN)?.get_mut(id % CHUNK_LEN)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> + '_ {
        let chunks = self.chunks.iter().enumerate();
        chunks.flat_map(|(chunk, entries)| entries.iter().map(move |(index, entry)| (chunk * CHUNK_LEN + index, entry)))
    }

    /// Returns the entries of some consecutive chunks, and the chunk at which the next scan begins.
    ///
    /// The scan begins at the chunk `start`. The result has at most `max` entries, or all entries of the chunk `start`
    /// if this chunk has more. The scan visits at most `max / 4` chunks, but at least one, because the step to the next
    /// chunk takes about as long as the visits to four entries. If the scan has visited the last chunk, the second
    /// value is `None`.
    pub(super) fn scan(&self, start: usize, max: usize) -> (impl Iterator<Item = &T> + '_, Option<usize>) {
        let chunks = self.chunks.get(start..).unwrap_or_default();
        let mut entries = 0;
        let is_within = |chunk: &&Slab<T>| {
            entries += chunk.len();
            entries <= max
        };
        let count = chunks.iter().take(max / 4).take_while(is_within).count().max(1).min(chunks.len());
        let next = start + count;
        let entries = chunks[..count].iter().flat_map(|chunk| chunk.iter().map(|(_, entry)| entry));
        (entries, (next < self.chunks.len()).then_some(next))
    }

    /// Adds an entry and returns its id.
    ///
    /// Ids of removed entries are reused.
    pub(super) fn insert(&mut self, entry: T) -> usize {
        let chunk = self.free_chunk();
        let entries = &mut self.chunks[chunk];
        let index = entries.insert(entry);
        if entries.len() == CHUNK_LEN {
            self.free.pop();
        }
        self.len += 1;
        chunk * CHUNK_LEN + index
    }

    /// Removes the entry with this id.
    ///
    /// The method panics if no entry has this id.
    pub(super) fn remove(&mut self, id: usize) -> T {
        let chunk = id / CHUNK_LEN;
        let entries = &mut self.chunks[chunk];
        let entry = entries.remove(id % CHUNK_LEN);
        self.len -= 1;
        if entries.len() == CHUNK_LEN - 1 {
            self.free.push(Reverse(chunk as u32));
        }
        if entries.is_empty() {
            *entries = Slab::new();
            self.remove_last_chunks();
        }
        entry
    }

    /// Returns the index of the first chunk that is not full.
    ///
    /// If all chunks are full, a chunk is added.
    fn free_chunk(&mut self) -> usize {
        match self.free.peek() {
            Some(Reverse(chunk)) => *chunk as usize,
            None => {
                self.chunks.push(Slab::new());
                self.free.push(Reverse(self.chunks.len() as u32 - 1));
                self.chunks.len() - 1
            }
        }
    }

    /// Removes the empty chunks at the end if they are more than half of all chunks.
    fn remove_last_chunks(&mut self) {
        let used = self.chunks.iter().rposition(|chunk| !chunk.is_empty()).map_or(0, |last| last + 1);
        if 2 * used < self.chunks.len() {
            self.chunks.truncate(used);
            self.chunks.shrink_to_fit();
            let free = mem::take(&mut self.free).into_iter();
            self.free = free.filter(|Reverse(chunk)| (*chunk as usize) < used).collect();
            self.free.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::registry::{Membership, User};

    #[test]
    fn an_entry_that_stays_keeps_only_the_memory_of_its_chunk() {
        let mut arena = Arena::new();
        let ids: Vec<usize> = (0..100 * CHUNK_LEN).map(|value| arena.insert(value)).collect();
        let kept = ids[70 * CHUNK_LEN];
        ids.into_iter().filter(|id| *id != kept).for_each(|id| assert_eq!(arena.remove(id), id));
        let capacity: usize = arena.chunks.iter().map(Slab::capacity).sum();
        assert!(capacity <= CHUNK_LEN, "one entry must keep at most one chunk, not the memory of {capacity} entries");
        assert_eq!(arena.insert(7), 0, "the lowest free id must be used first");
        arena.remove(0);
        arena.remove(kept);
        assert_eq!((arena.len(), arena.chunks.len()), (0, 0));
    }

    /// Returns the entries of each portion of a scan.
    fn portions(arena: &Arena<usize>, max: usize) -> Vec<Vec<usize>> {
        let (mut portions, mut start) = (Vec::new(), Some(0));
        while let Some(chunk) = start {
            let (entries, next) = arena.scan(chunk, max);
            portions.push(entries.copied().collect());
            start = next;
        }
        portions
    }

    #[test]
    fn a_scan_returns_each_entry_once_in_portions_of_limited_size() {
        const COUNT: usize = 100 * CHUNK_LEN + 7;
        let mut arena = Arena::new();
        assert_eq!(portions(&arena, 1000), [[0; 0]]);
        (0..COUNT).for_each(|value| assert_eq!(arena.insert(value), value));
        for (max, len) in [(0, CHUNK_LEN), (1000, 3 * CHUNK_LEN), (30_000, COUNT)] {
            let portions = portions(&arena, max);
            assert!(
                portions.iter().all(|portion| portion.len() <= len),
                "a portion with the limit {max} must have at most {len} entries"
            );
            assert_eq!(portions.len(), COUNT.div_ceil(len));
            assert!(portions.concat().into_iter().eq(0..COUNT));
        }
        // After the removals, each chunk has one entry, so the limit of `max / 4` chunks determines the length of the
        // portions.
        (0..COUNT).filter(|value| value % CHUNK_LEN != 5).for_each(|value| _ = arena.remove(value));
        let portions = portions(&arena, 80);
        assert_eq!(portions.iter().map(Vec::len).collect::<Vec<_>>(), [20, 20, 20, 20, 20, 1]);
        assert!(portions.concat().into_iter().eq((0..=100).map(|chunk| chunk * CHUNK_LEN + 5)));
        assert_eq!(arena.scan(1000, 80).0.count(), 0, "a scan that starts after the last chunk must return no entry");
    }

    #[test]
    fn a_user_takes_no_additional_memory_in_a_slab() {
        /// The layout of an entry in `slab`.
        #[expect(dead_code)]
        enum Entry<T> {
            Vacant(usize),
            Occupied(T),
        }
        assert_eq!(size_of::<Entry<User>>(), 32);
        assert_eq!(size_of::<Entry<Membership>>(), 24);
    }

    proptest! {
        #[test]
        fn arena_matches_naive(operations in prop::collection::vec((any::<bool>(), any::<u16>()), 0..3000)) {
            let (mut arena, mut naive) = (Arena::new(), BTreeMap::new());
            for (number, (inserts, choice)) in operations.into_iter().enumerate() {
                if inserts || naive.is_empty() {
                    let id = arena.insert(number);
                    prop_assert!(naive.insert(id, number).is_none(), "a new id must not be in use");
                } else {
                    let (&id, _) = naive.iter().nth(usize::from(choice) % naive.len()).expect("the model must have an entry");
                    prop_assert_eq!(Some(arena.remove(id)), naive.remove(&id));
                }
                prop_assert_eq!(arena.len(), naive.len());
            }
            prop_assert!(arena.iter().map(|(id, value)| (id, *value)).eq(naive));
        }
    }
}
