//! A bounded queue that serves its sources in turn, one item of each source at a time. So a source with many items
//! delays the next item of another source by at most one item.
//!
//! A source is the unit for which the server counts clients: an IPv4 address, an IPv6 network, or `None` for all
//! clients of unix sockets. The queue does not read the content of its items. A popped item counts as being served
//! until the caller releases the source of the item. The number of items of a source that are being served has a bound,
//! so that other sources find a free worker.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

/// The source of an item.
pub type Source = Option<IpAddr>;

/// The bounds of the queue.
#[derive(Copy, Clone, Debug)]
pub struct Bounds {
    /// The maximum number of waiting items.
    pub items_max: usize,
    /// The maximum number of waiting items of one source.
    pub source_items_max: usize,
    /// The maximum number of items of one source that are being served. The value 0 counts as 1.
    pub source_served_max: usize,
}

/// The reason why an item is refused.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Full {
    /// The source has reached its maximum number of waiting items.
    Source,
    /// The queue is full, and each other source has at most one item more than the source of the refused item.
    All,
}

/// The bounded queue with the waiting items of all sources.
#[derive(Debug)]
pub struct FairQueue<T> {
    bounds: Bounds,
    sources: HashMap<Source, SourceState<T>>,
    /// The sources from which an item may be popped, in the order of their turns.
    turns: BTreeMap<u64, Source>,
    next_turn: u64,
    /// The sources with waiting items, sorted by the number of these items.
    by_length: BTreeSet<(usize, Source)>,
    len: usize,
}

/// The items of one source. The state exists while an item of the source waits or is being served.
#[derive(Debug)]
struct SourceState<T> {
    items: VecDeque<T>,
    served: usize,
    /// The key of the source in `turns`. The key is `None` if no item of the source waits, or if `served` has reached
    /// its bound.
    turn: Option<u64>,
}

impl<T> FairQueue<T> {
    pub fn new(bounds: Bounds) -> FairQueue<T> {
        FairQueue {
            bounds,
            sources: HashMap::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
            by_length: BTreeSet::new(),
            len: 0,
        }
    }

    /// Returns the number of waiting items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether [`pop`](FairQueue::pop) would return an item.
    pub fn is_ready(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Appends an item to the waiting items of its source.
    ///
    /// If the queue is full, and another source has at least two waiting items more than `source`, removes and returns
    /// the last item of the source with the most waiting items.
    ///
    /// # Errors
    /// Returns an error if the source has reached its maximum number of waiting items, or if the queue is full and no
    /// other source has at least two waiting items more than `source`.
    pub fn push(&mut self, source: Source, item: T) -> Result<Option<T>, Full> {
        let length = self.sources.get(&source).map_or(0, |state| state.items.len());
        if length >= self.bounds.source_items_max {
            return Err(Full::Source);
        }
        let mut displaced = None;
        if self.len >= self.bounds.items_max {
            let longest = self.by_length.last().filter(|(longest, _)| *longest > length + 1);
            let (_, longest) = *longest.ok_or(Full::All)?;
            displaced = self.change(longest, |items| items.pop_back());
        }
        self.change(source, |items| items.push_back(item));
        self.check_invariants();
        Ok(displaced)
    }

    /// Returns the next item. The caller must [`release`](FairQueue::release) the source after it served the item.
    pub fn pop(&mut self) -> Option<(Source, T)> {
        let (_, source) = self.turns.pop_first()?;
        if let Some(state) = self.sources.get_mut(&source) {
            state.turn = None;
            state.served += 1;
        }
        let item = self.change(source, |items| items.pop_front())?;
        self.check_invariants();
        Some((source, item))
    }

    /// Marks an item of the source as no longer being served.
    pub fn release(&mut self, source: Source) {
        if let Some(state) = self.sources.get_mut(&source) {
            state.served -= 1;
        }
        self.change(source, |_| ());
        self.check_invariants();
    }

    /// Removes and returns the first waiting item of the source for which `is_it` returns `true`.
    pub fn remove(&mut self, source: Source, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        if !self.sources.contains_key(&source) {
            return None;
        }
        let removed = self.change(source, |items| items.iter().position(is_it).and_then(|at| items.remove(at)));
        self.check_invariants();
        removed
    }

    /// Changes the waiting items of a source, and updates `turns`, `by_length` and `len`.
    fn change<R>(&mut self, source: Source, change: impl FnOnce(&mut VecDeque<T>) -> R) -> R {
        let state =
            self.sources.entry(source).or_insert_with(|| SourceState { items: VecDeque::new(), served: 0, turn: None });
        let before = state.items.len();
        let result = change(&mut state.items);
        let after = state.items.len();
        self.len = self.len - before + after;
        if before != after {
            self.by_length.remove(&(before, source));
            if after > 0 {
                self.by_length.insert((after, source));
            }
        }
        let may_have_turn = after > 0 && state.served < self.bounds.source_served_max.max(1);
        match state.turn {
            None if may_have_turn => {
                state.turn = Some(self.next_turn);
                self.turns.insert(self.next_turn, source);
                self.next_turn += 1;
            }
            Some(turn) if !may_have_turn => {
                state.turn = None;
                self.turns.remove(&turn);
            }
            _ => {}
        }
        if after == 0 && state.served == 0 {
            self.sources.remove(&source);
        }
        result
    }

    fn check_invariants(&self) {
        if cfg!(test) {
            assert_eq!(self.len, self.sources.values().map(|state| state.items.len()).sum::<usize>());
            assert!(self.len <= self.bounds.items_max);
            let with_turn = self.sources.values().filter(|state| state.turn.is_some()).count();
            assert_eq!(self.turns.len(), with_turn);
            assert_eq!(self.by_length.len(), self.sources.values().filter(|state| !state.items.is_empty()).count());
            for (source, state) in &self.sources {
                let length = state.items.len();
                assert!(length <= self.bounds.source_items_max && state.served <= self.bounds.source_served_max);
                assert!(length + state.served > 0);
                assert_eq!(state.turn.is_some(), length > 0 && state.served < self.bounds.source_served_max);
                assert!(length == 0 || self.by_length.contains(&(length, *source)));
                assert!(state.turn.is_none_or(|turn| self.turns.get(&turn) == Some(source)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { items_max: 6, source_items_max: 4, source_served_max: 2 };

    fn source(number: u8) -> Source {
        (number > 0).then(|| Ipv4Addr::new(10, 0, 0, number).into())
    }

    #[test]
    fn sources_take_turns() {
        let mut queue = FairQueue::new(Bounds { items_max: 100, source_items_max: 100, source_served_max: 100 });
        for number in 0..50 {
            assert_eq!(queue.push(source(1), number), Ok(None));
        }
        for number in 100..103 {
            assert_eq!(queue.push(source(2), number), Ok(None));
        }
        assert_eq!(queue.push(source(0), 200), Ok(None));
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).take(9).map(|(_, item)| item).collect();
        assert_eq!(order, [0, 100, 200, 1, 101, 2, 102, 3, 4]);
    }

    #[test]
    fn the_number_of_served_items_of_a_source_is_bounded() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..3 {
            assert_eq!(queue.push(source(1), number), Ok(None));
        }
        assert_eq!((queue.pop(), queue.pop()), (Some((source(1), 0)), Some((source(1), 1))));
        assert_eq!(
            (queue.pop(), queue.is_ready(), queue.len()),
            (None, false, 1),
            "the third item of the source must wait"
        );
        assert_eq!(queue.push(source(2), 9), Ok(None));
        assert_eq!(queue.pop(), Some((source(2), 9)), "an item of another source must not wait");
        queue.release(source(1));
        assert_eq!(queue.pop(), Some((source(1), 2)));
        for number in [1, 1, 2] {
            queue.release(source(number));
        }
        assert!(queue.sources.is_empty(), "a source without items must be removed");
    }

    #[test]
    fn the_source_with_the_most_items_loses_its_last_item() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..4 {
            assert_eq!(queue.push(source(1), number), Ok(None));
        }
        assert_eq!(queue.push(source(1), 4), Err(Full::Source));
        assert_eq!((queue.push(source(2), 20), queue.push(source(2), 21)), (Ok(None), Ok(None)));
        assert_eq!(queue.push(source(3), 30), Ok(Some(3)), "the source with the most items must lose its last item");
        assert_eq!(queue.push(source(3), 31), Ok(Some(2)));
        assert_eq!(
            queue.push(source(3), 32),
            Err(Full::All),
            "an item must be refused if no source has two items more than the source of the item"
        );
        assert_eq!(queue.push(source(4), 40), Ok(Some(31)), "an item of a source without items must be accepted");
        assert_eq!(queue.remove(source(2), |item| *item == 20), Some(20));
        assert_eq!(queue.remove(source(2), |item| *item == 20), None);
        assert_eq!(queue.remove(source(9), |_| true), None);
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
        assert_eq!(order, [0, 21, 30, 40, 1]);
    }

    /// A simple, slow queue with which a test compares [`FairQueue`]. One list has all items. A second list has the
    /// sources in the order of their turns.
    #[derive(Default)]
    struct NaiveQueue {
        items: Vec<(Source, u32)>,
        served: Vec<Source>,
        turns: Vec<Source>,
    }

    impl NaiveQueue {
        fn count(&self, source: Source) -> usize {
            self.items.iter().filter(|(other, _)| *other == source).count()
        }

        fn update_turn(&mut self, source: Source) {
            let served = self.served.iter().filter(|other| **other == source).count();
            let may = self.count(source) > 0 && served < BOUNDS.source_served_max;
            if !may {
                self.turns.retain(|other| *other != source);
            } else if !self.turns.contains(&source) {
                self.turns.push(source);
            }
        }

        fn push(&mut self, source: Source, item: u32) -> Result<Option<u32>, Full> {
            if self.count(source) >= BOUNDS.source_items_max {
                return Err(Full::Source);
            }
            let mut displaced = None;
            if self.items.len() >= BOUNDS.items_max {
                let longest =
                    self.items.iter().map(|(other, _)| (self.count(*other), *other)).max().expect("the queue is full");
                if longest.0 <= self.count(source) + 1 {
                    return Err(Full::All);
                }
                let at = self.items.iter().rposition(|(other, _)| *other == longest.1).expect("the list has this item");
                displaced = Some(self.items.remove(at).1);
                self.update_turn(longest.1);
            }
            self.items.push((source, item));
            self.update_turn(source);
            Ok(displaced)
        }

        fn pop(&mut self) -> Option<(Source, u32)> {
            if self.turns.is_empty() {
                return None;
            }
            let source = self.turns.remove(0);
            let at = self.items.iter().position(|(other, _)| *other == source).expect("the list has this item");
            self.served.push(source);
            let popped = self.items.remove(at);
            self.update_turn(source);
            Some(popped)
        }
    }

    proptest! {
        #[test]
        fn fair_queue_matches_naive(steps in prop::collection::vec((0..6_u8, 0..5_u8), 1..300)) {
            let (mut queue, mut naive) = (FairQueue::new(BOUNDS), NaiveQueue::default());
            for (number, (step, name)) in (0_u32..).zip(steps) {
                let source = source(name);
                match step {
                    0..=2 => prop_assert_eq!(queue.push(source, number), naive.push(source, number)),
                    3 => prop_assert_eq!(queue.pop(), naive.pop()),
                    4 => {
                        if let Some(at) = naive.served.iter().position(|served| *served == source) {
                            naive.served.remove(at);
                            naive.update_turn(source);
                            queue.release(source);
                        }
                    }
                    _ => {
                        let at = naive.items.iter().position(|(other, item)| *other == source && item % 2 == 0);
                        let expected = at.map(|at| naive.items.remove(at).1);
                        naive.update_turn(source);
                        prop_assert_eq!(queue.remove(source, |item| item % 2 == 0), expected);
                    }
                }
                prop_assert_eq!((queue.len(), queue.is_ready()), (naive.items.len(), !naive.turns.is_empty()));
            }
        }
    }
}
