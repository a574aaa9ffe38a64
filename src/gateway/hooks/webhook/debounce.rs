//! Presence of uids with a delay: a uid goes offline only after it has had no connection for the whole presence delay.
//! So a page refresh causes no `offline` event.
//!
//! The state machine has no clock and no I/O. The state machine does not count connections. The caller of the state
//! machine asks the server whether a uid has a connection. All uids have the same delay, so the queue of departures is
//! sorted by deadline. If a uid gets a connection again before its deadline, the departure of the uid in the queue is
//! stale and is skipped.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fdpush::shared::SplitTable;

/// The maximum number of departures in the queue. This maximum bounds the memory of the queue if the delay is long and
/// many uids depart. In tests, this maximum is low, so that a test can reach the maximum.
const DEPARTURES_MAX: usize = if cfg!(test) { 256 } else { 1 << 20 };

/// The uids that are online for the back end: uids with a connection, and uids whose presence delay has not passed. The
/// server counts the connections of a uid. This type does not count connections.
#[derive(Debug)]
pub struct Debounce {
    delay: Duration,
    uids: SplitTable<Online>,
    /// The hasher has a random seed, because clients choose their uids and could make them collide.
    hasher: RandomState,
    departures: VecDeque<Departure>,
    /// The sequence number of the newest departure among the departures of all uids.
    sequence: u64,
}

/// An online uid.
#[derive(Debug)]
struct Online {
    uid: Arc<str>,
    /// The sequence number of the last departure of the uid, or `None` while the uid has a connection.
    departure: Option<u64>,
}

/// A uid whose last connection ended, and the time at which the uid goes offline.
///
/// A departure is stale if its uid has got a connection again or has a later departure.
#[derive(Debug)]
struct Departure {
    deadline: Instant,
    uid: Arc<str>,
    sequence: u64,
}

impl Debounce {
    /// Creates a state without uids. A uid goes offline `delay` after its last connection ended.
    pub fn new(delay: Duration) -> Debounce {
        let (uids, hasher) = (SplitTable::new(), RandomState::new());
        Debounce { delay, uids, hasher, departures: VecDeque::new(), sequence: 0 }
    }

    /// Records that a uid has a connection. Returns `true` if the uid was offline.
    pub fn arrive(&mut self, uid: &str) -> bool {
        let Debounce { uids, hasher, .. } = self;
        let hash = hasher.hash_one(uid);
        let is_new = match uids.find_mut(hash, |online| *online.uid == *uid) {
            Some(online) => {
                online.departure = None;
                false
            }
            None => {
                let online = Online { uid: uid.into(), departure: None };
                uids.insert(hash, online, |online| hasher.hash_one(&*online.uid));
                true
            }
        };
        self.check_invariants();
        is_new
    }

    /// Records that a uid has no connection. If the uid has already departed, another call of this function does not
    /// restart the delay.
    ///
    /// If the queue of departures is full, the uid of the oldest departure goes offline before its delay has passed.
    /// Returns the uid that goes offline because of a full queue.
    pub fn depart(&mut self, uid: &str, now: Instant) -> Option<Arc<str>> {
        let online = self.uids.find_mut(self.hasher.hash_one(uid), |online| *online.uid == *uid)?;
        if online.departure.is_some() {
            return None;
        }
        self.sequence += 1;
        online.departure = Some(self.sequence);
        let name = Arc::clone(&online.uid);
        // The deadlines in the queue must be in order, even if the clock goes back.
        let earliest = self.departures.back().map_or(now, |last| last.deadline);
        let deadline = (now + self.delay).max(earliest);
        self.departures.push_back(Departure { deadline, uid: name, sequence: self.sequence });
        let oldest = if self.departures.len() > DEPARTURES_MAX { self.departures.pop_front() } else { None };
        let offline = oldest.and_then(|departure| self.end(departure));
        self.check_invariants();
        offline
    }

    /// Removes and returns a uid whose delay has passed at `now`. The caller must repeat the call until `poll` returns
    /// `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Arc<str>> {
        loop {
            let departure = self.departures.pop_front_if(|departure| departure.deadline <= now)?;
            if let Some(uid) = self.end(departure) {
                self.check_invariants();
                return Some(uid);
            }
        }
    }

    /// Removes the uid of a departure, and returns the uid. Returns `None` if the departure is stale.
    fn end(&mut self, departure: Departure) -> Option<Arc<str>> {
        let Debounce { uids, hasher, .. } = self;
        let is_current =
            |online: &Online| *online.uid == *departure.uid && online.departure == Some(departure.sequence);
        let hash = hasher.hash_one(&*departure.uid);
        uids.remove(hash, is_current, |online| hasher.hash_one(&*online.uid)).map(|online| online.uid)
    }

    /// Returns the time at which [`poll`](Debounce::poll) must be called next. The departure at this time may be stale.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.departures.front().map(|departure| departure.deadline)
    }

    fn check_invariants(&self) {
        if cfg!(test) {
            assert!(self.departures.iter().is_sorted_by_key(|departure| departure.deadline));
            let is_current = |one: &&Departure| {
                let online = self.uids.find(self.hasher.hash_one(&*one.uid), |online| *online.uid == *one.uid);
                online.is_some_and(|online| online.departure == Some(one.sequence))
            };
            let current = || self.departures.iter().filter(is_current).map(|one| &one.uid);
            let distinct: BTreeSet<&Arc<str>> = current().collect();
            assert_eq!(current().count(), distinct.len(), "each uid must have at most one valid deadline");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::gateway::runtime::clock;

    const DELAY: Duration = Duration::from_secs(3);

    #[test]
    fn a_reconnect_within_the_delay_causes_no_event() {
        let mut debounce = Debounce::new(DELAY);
        let start = clock::now();
        assert!(debounce.arrive("ann"));
        assert!(!debounce.arrive("ann"), "a second connection must not make the uid online again");
        assert_eq!(debounce.next_deadline(), None);
        debounce.depart("ann", start);
        assert!(!debounce.arrive("ann"), "a return within the delay must cause no event");
        assert_eq!(debounce.poll(start + 2 * DELAY), None);

        debounce.depart("ann", start + 2 * DELAY);
        assert_eq!(debounce.next_deadline(), Some(start + 3 * DELAY));
        assert_eq!(debounce.poll(start + 3 * DELAY - Duration::from_nanos(1)), None);
        assert_eq!(debounce.poll(start + 3 * DELAY).as_deref(), Some("ann"));
        assert_eq!(debounce.poll(start + 9 * DELAY), None, "the uid must go offline only once");
        assert!(debounce.uids.is_empty() && debounce.departures.is_empty());
        assert!(debounce.arrive("ann"));
    }

    #[test]
    fn the_delay_starts_when_the_last_connection_of_the_uid_ends() {
        let mut debounce = Debounce::new(DELAY);
        let start = clock::now();
        for second in 0..10 {
            debounce.arrive("ann");
            debounce.depart("ann", start + Duration::from_secs(second));
        }
        assert_eq!(debounce.poll(start + Duration::from_secs(9)), None);
        assert_eq!(debounce.poll(start + Duration::from_secs(12)).as_deref(), Some("ann"));
    }

    #[test]
    fn the_number_of_departures_is_bounded() {
        let mut debounce = Debounce::new(DELAY);
        let now = clock::now();
        debounce.arrive("first");
        assert_eq!(debounce.depart("first", now), None);
        // The departures of a uid that comes back stay in the queue until their deadlines.
        for _ in 1..DEPARTURES_MAX {
            debounce.arrive("ann");
            assert_eq!(debounce.depart("ann", now), None);
        }
        debounce.arrive("last");
        assert_eq!(
            debounce.depart("last", now).as_deref(),
            Some("first"),
            "the uid of the oldest departure must go offline before its delay has passed"
        );
        debounce.arrive("next");
        assert_eq!(debounce.depart("next", now), None, "a stale departure must make no uid offline");
        assert_eq!(debounce.departures.len(), DEPARTURES_MAX);
        let mut offline: Vec<Arc<str>> = std::iter::from_fn(|| debounce.poll(now + DELAY)).collect();
        offline.sort();
        assert_eq!(offline, ["ann", "last", "next"].map(Arc::from));
    }

    #[test]
    fn two_connections_of_a_uid_that_end_together_cause_one_departure() {
        let mut debounce = Debounce::new(DELAY);
        let start = clock::now();
        debounce.arrive("ann");
        debounce.arrive("ann");
        debounce.depart("ann", start);
        debounce.depart("ann", start + DELAY / 2);
        assert_eq!(debounce.departures.len(), 1);
        assert_eq!(debounce.poll(start + DELAY).as_deref(), Some("ann"));
        assert_eq!(debounce.poll(start + 2 * DELAY), None);
    }

    #[test]
    fn without_a_delay_a_uid_goes_offline_at_once() {
        let mut debounce = Debounce::new(Duration::ZERO);
        let now = clock::now();
        debounce.arrive("ann");
        debounce.depart("ann", now);
        debounce.depart("ann", now);
        debounce.depart("bob", now);
        assert_eq!(debounce.poll(now).as_deref(), Some("ann"));
        assert_eq!(debounce.poll(now), None);
    }

    /// A simple, slow state machine with which a test compares [`Debounce`]. The value for a uid is the time at which
    /// its last connection ended, or `None` while the uid has a connection.
    #[derive(Default)]
    struct NaiveDebounce(HashMap<String, Option<Instant>>);

    impl NaiveDebounce {
        fn poll(&mut self, now: Instant) -> Vec<String> {
            let is_offline = |since: &Option<Instant>| since.is_some_and(|since| since + DELAY <= now);
            let offline = self.0.iter().filter(|(_, since)| is_offline(since)).map(|(uid, _)| uid.clone());
            let mut offline: Vec<String> = offline.collect();
            self.0.retain(|_, since| !is_offline(since));
            offline.sort();
            offline
        }
    }

    proptest! {
        #[test]
        fn debounce_matches_naive(steps in prop::collection::vec((0..4_u8, 0..3_usize, 0..2000_u64), 1..200)) {
            let mut debounce = Debounce::new(DELAY);
            let mut naive = NaiveDebounce::default();
            let mut now = clock::now();
            for (step, index, pause_ms) in steps {
                let uid = ["ann", "bob", "cleo"][index];
                now += Duration::from_millis(pause_ms);
                match step {
                    0 => {
                        let is_new = naive.0.insert(uid.to_owned(), None).is_none();
                        prop_assert_eq!(debounce.arrive(uid), is_new);
                    }
                    1 | 2 => {
                        if let Some(since) = naive.0.get_mut(uid) {
                            since.get_or_insert(now);
                        }
                        debounce.depart(uid, now);
                    }
                    _ => {
                        let polled = std::iter::from_fn(|| debounce.poll(now)).map(|uid| uid.to_string());
                        let mut offline: Vec<String> = polled.collect();
                        offline.sort();
                        prop_assert_eq!(offline, naive.poll(now));
                    }
                }
            }
        }
    }
}
