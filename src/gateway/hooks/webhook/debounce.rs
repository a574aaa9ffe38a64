//! Presence of uids with a delay: a uid goes offline only when it has had no connection for a while. A page refresh
//! causes no event.
//!
//! A pure state machine. The delay is the same for all uids, so departures are in a queue in the order of their
//! deadlines. The entry of a uid that comes back is skipped.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The uids that are online or have a departure pending.
#[derive(Debug)]
pub struct Debounce {
    delay: Duration,
    uids: HashMap<Arc<str>, OnlineUid>,
    departures: VecDeque<Departure>,
    /// The number of the last departure.
    sequence: u64,
}

/// A uid that is online for the back end.
#[derive(Debug)]
struct OnlineUid {
    connections: u32,
    /// The number of its valid departure, if it has no connections. Other departures of the uid are stale.
    sequence: u64,
}

#[derive(Debug)]
struct Departure {
    deadline: Instant,
    uid: Arc<str>,
    sequence: u64,
}

impl Debounce {
    /// Creates an empty state. A uid goes offline `delay` after its last connection.
    pub fn new(delay: Duration) -> Debounce {
        Debounce { delay, uids: HashMap::new(), departures: VecDeque::new(), sequence: 0 }
    }

    /// Counts a connection. Returns `true` if the uid was offline.
    pub fn opened(&mut self, uid: &str) -> bool {
        let is_new = match self.uids.get_mut(uid) {
            Some(online) => {
                online.connections += 1;
                false
            }
            None => {
                self.uids.insert(uid.into(), OnlineUid { connections: 1, sequence: 0 });
                true
            }
        };
        self.check_invariants();
        is_new
    }

    /// Uncounts a connection.
    pub fn closed(&mut self, uid: &str, now: Instant) {
        let Some((name, _)) = self.uids.get_key_value(uid) else { return };
        let name = Arc::clone(name);
        let Some(online) = self.uids.get_mut(uid).filter(|online| online.connections > 0) else { return };
        online.connections -= 1;
        if online.connections == 0 {
            self.sequence += 1;
            online.sequence = self.sequence;
            // The deadlines must be in order even if the clock goes back.
            let earliest = self.departures.back().map_or(now, |last| last.deadline);
            let deadline = (now + self.delay).max(earliest);
            self.departures.push_back(Departure { deadline, uid: name, sequence: self.sequence });
        }
        self.check_invariants();
    }

    /// Returns a uid that is offline at `now`. Call it until it returns `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Arc<str>> {
        loop {
            let departures = self.departures.pop_front_if(|departures| departures.deadline <= now)?;
            if let Entry::Occupied(online) = self.uids.entry(departures.uid) {
                let OnlineUid { connections, sequence } = *online.get();
                if connections == 0 && sequence == departures.sequence {
                    let (uid, _) = online.remove_entry();
                    self.check_invariants();
                    return Some(uid);
                }
            }
        }
    }

    /// Returns the time of the next poll. That departure may be stale.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.departures.front().map(|departures| departures.deadline)
    }

    fn check_invariants(&self) {
        if cfg!(test) {
            assert!(self.departures.iter().is_sorted_by_key(|departures| departures.deadline));
            for (uid, online) in &self.uids {
                let places = self
                    .departures
                    .iter()
                    .filter(|departures| departures.uid == *uid && departures.sequence == online.sequence);
                assert!(online.connections > 0 || places.count() == 1, "{uid} would never go offline");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::runtime::clock;

    const DELAY: Duration = Duration::from_secs(3);

    #[test]
    fn a_refresh_is_not_seen() {
        let mut debounce = Debounce::new(DELAY);
        let start = clock::now();
        assert!(debounce.opened("ann"));
        assert!(!debounce.opened("ann"), "the new page before the old one is gone");
        debounce.closed("ann", start);
        assert_eq!(debounce.next_deadline(), None, "one is still there");
        debounce.closed("ann", start);
        assert!(!debounce.opened("ann"), "or after it");
        assert_eq!(debounce.poll(start + 2 * DELAY), None);

        debounce.closed("ann", start + 2 * DELAY);
        assert_eq!(debounce.next_deadline(), Some(start + 3 * DELAY));
        assert_eq!(debounce.poll(start + 3 * DELAY - Duration::from_nanos(1)), None);
        assert_eq!(debounce.poll(start + 3 * DELAY).as_deref(), Some("ann"));
        assert_eq!(debounce.poll(start + 9 * DELAY), None, "once");
        assert!(debounce.uids.is_empty() && debounce.departures.is_empty(), "nothing is left behind");
        assert!(debounce.opened("ann"));
    }

    #[test]
    fn the_delay_counts_from_the_last_end() {
        let mut debounce = Debounce::new(DELAY);
        let start = clock::now();
        for second in 0..10 {
            debounce.opened("ann");
            debounce.closed("ann", start + Duration::from_secs(second));
        }
        assert_eq!(debounce.poll(start + Duration::from_secs(9)), None);
        assert_eq!(debounce.poll(start + Duration::from_secs(12)).as_deref(), Some("ann"));
    }

    #[test]
    fn without_a_delay_it_is_at_once() {
        let mut debounce = Debounce::new(Duration::ZERO);
        let now = clock::now();
        debounce.opened("ann");
        debounce.closed("ann", now);
        debounce.closed("ann", now);
        debounce.closed("bob", now);
        assert_eq!(debounce.poll(now).as_deref(), Some("ann"));
        assert_eq!(debounce.poll(now), None);
    }

    /// The naive twin: for each uid the number of connections, and since when there is none.
    #[derive(Default)]
    struct Twin(HashMap<String, (u32, Option<Instant>)>);

    impl Twin {
        fn poll(&mut self, now: Instant) -> Vec<String> {
            let is_off = |(_, since): &(u32, Option<Instant>)| since.is_some_and(|since| since + DELAY <= now);
            let mut off: Vec<String> = self.0.iter().filter(|(_, v)| is_off(v)).map(|(uid, _)| uid.clone()).collect();
            self.0.retain(|_, value| !is_off(value));
            off.sort();
            off
        }
    }

    proptest! {
        #[test]
        fn debounce_matches_naive(steps in prop::collection::vec((0..4_u8, 0..3_usize, 0..2000_u64), 1..200)) {
            let mut debounce = Debounce::new(DELAY);
            let mut twin = Twin::default();
            let mut now = clock::now();
            for (what, who, pause_ms) in steps {
                let uid = ["ann", "bob", "cleo"][who];
                now += Duration::from_millis(pause_ms);
                match what {
                    0 => {
                        let is_new = !twin.0.contains_key(uid);
                        let online = twin.0.entry(uid.to_owned()).or_default();
                        *online = (online.0 + 1, None);
                        prop_assert_eq!(debounce.opened(uid), is_new);
                    }
                    1 | 2 => {
                        if let Some(online) = twin.0.get_mut(uid).filter(|online| online.0 > 0) {
                            online.0 -= 1;
                            online.1 = (online.0 == 0).then_some(now);
                        }
                        debounce.closed(uid, now);
                    }
                    _ => {
                        let mut off: Vec<String> = std::iter::from_fn(|| debounce.poll(now)).map(|uid| uid.to_string()).collect();
                        off.sort();
                        prop_assert_eq!(off, twin.poll(now));
                    }
                }
            }
        }
    }
}
