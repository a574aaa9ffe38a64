//! Counts the situations that a run covers, by name.
//!
//! A test fails if the seeds no longer cover a situation. The digest of a run is a hash of all its situations in their
//! order, by which a test compares two runs of a seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// The number of times that each situation occurred.
pub type Tally = BTreeMap<&'static str, u64>;

thread_local! {
    static TALLY: RefCell<Tally> = const { RefCell::new(Tally::new()) };
    static DIGEST: Cell<u64> = const { Cell::new(0) };
}

/// Counts a situation once.
pub fn hit(what: &'static str) {
    count(what, 1);
}

/// Adds `times` to the count of a situation.
pub fn count(what: &'static str, times: u64) {
    TALLY.with_borrow_mut(|tally| *tally.entry(what).or_default() += times);
    // This is the hash function FNV-1a, applied to words of 64 bits in place of bytes.
    let fold = |digest: u64, word: u64| (digest ^ word).wrapping_mul(0x0100_0000_01b3);
    DIGEST.set(what.bytes().map(u64::from).fold(fold(DIGEST.get(), times), fold));
}

/// Returns the counts since the last call and the digest, and resets the counts and the digest to zero.
pub fn take() -> (Tally, u64) {
    (TALLY.take(), DIGEST.take())
}
