//! What happened in a run, counted by name: a simulator that stopped meeting something would find nothing there.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// How often each thing happened.
pub type Tally = BTreeMap<&'static str, u64>;

thread_local! {
    static TALLY: RefCell<Tally> = const { RefCell::new(Tally::new()) };
}

/// One more of `what`.
pub fn hit(what: &'static str) {
    count(what, 1);
}

/// So many more of `what`.
pub fn count(what: &'static str, times: u64) {
    TALLY.with_borrow_mut(|tally| *tally.entry(what).or_default() += times);
}

/// What was counted since the last call.
pub fn take() -> Tally {
    TALLY.take()
}
