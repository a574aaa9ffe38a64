//! Counts the situations that a run covers, by name.
//!
//! A test fails if the seeds no longer cover a situation.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// The number of times that each situation occurred.
pub type Tally = BTreeMap<&'static str, u64>;

thread_local! {
    static TALLY: RefCell<Tally> = const { RefCell::new(Tally::new()) };
}

/// Counts a situation once.
pub fn hit(what: &'static str) {
    count(what, 1);
}

/// Adds `times` to the count of a situation.
pub fn count(what: &'static str, times: u64) {
    TALLY.with_borrow_mut(|tally| *tally.entry(what).or_default() += times);
}

/// Returns the counts since the last call, and sets them to zero.
pub fn take() -> Tally {
    TALLY.take()
}
