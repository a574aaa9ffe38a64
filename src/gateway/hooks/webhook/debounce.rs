//! Who is online, for a back end that must not be told of every page refresh: a uid goes offline only when its last
//! connection has been gone for a while.
//!
//! A pure state machine: `opened` and `closed` take what happened, `poll` says who is off by now. The delay is the same
//! for all, so those who may be leaving stand in a line by their deadlines, and one who came back leaves a gap in it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The uids that are online or have just left.
#[derive(Debug)]
pub struct Debounce {
    delay: Duration,
    uids: HashMap<Arc<str>, Stay>,
    leaving: VecDeque<Leaving>,
    /// The ticket of the next to leave.
    ticket: u64,
}

/// A uid that the back end believes online.
#[derive(Debug)]
struct Stay {
    connections: u32,
    /// Its ticket in the line. While it has connections, it is in the line no more, whoever may still stand there.
    ticket: u64,
}

#[derive(Debug)]
struct Leaving {
    deadline: Instant,
    uid: Arc<str>,
    ticket: u64,
}

impl Debounce {
    /// Nobody is online. A uid is offline `delay` after its last connection.
    pub fn new(delay: Duration) -> Debounce {
        Debounce { delay, uids: HashMap::new(), leaving: VecDeque::new(), ticket: 0 }
    }

    /// A connection of `uid` opened, or was bound to it. Whether the uid is online with it, having been offline.
    pub fn opened(&mut self, uid: &str) -> bool {
        let is_new = match self.uids.get_mut(uid) {
            Some(stay) => {
                stay.connections += 1;
                false
            }
            None => {
                self.uids.insert(uid.into(), Stay { connections: 1, ticket: 0 });
                true
            }
        };
        self.check_invariants();
        is_new
    }

    /// A connection of `uid` ended, or is bound to it no more.
    pub fn closed(&mut self, uid: &str, now: Instant) {
        let Some((name, _)) = self.uids.get_key_value(uid) else { return };
        let name = Arc::clone(name);
        let Some(stay) = self.uids.get_mut(uid).filter(|stay| stay.connections > 0) else { return };
        stay.connections -= 1;
        if stay.connections == 0 {
            self.ticket += 1;
            stay.ticket = self.ticket;
            // A clock that stood still may not put the last in the line before the others.
            let earliest = self.leaving.back().map_or(now, |last| last.deadline);
            let deadline = (now + self.delay).max(earliest);
            self.leaving.push_back(Leaving { deadline, uid: name, ticket: self.ticket });
        }
        self.check_invariants();
    }

    /// A uid that is offline by now, each once. To be called until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Arc<str>> {
        loop {
            let leaving = self.leaving.pop_front_if(|leaving| leaving.deadline <= now)?;
            if let Entry::Occupied(stay) = self.uids.entry(leaving.uid) {
                let Stay { connections, ticket } = *stay.get();
                if connections == 0 && ticket == leaving.ticket {
                    let (uid, _) = stay.remove_entry();
                    self.check_invariants();
                    return Some(uid);
                }
            }
        }
    }

    /// When to poll again. It may turn out that the uid came back meanwhile.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.leaving.front().map(|leaving| leaving.deadline)
    }

    fn check_invariants(&self) {
        if cfg!(test) {
            assert!(self.leaving.iter().is_sorted_by_key(|leaving| leaving.deadline));
            for (uid, stay) in &self.uids {
                let places = self.leaving.iter().filter(|leaving| leaving.uid == *uid && leaving.ticket == stay.ticket);
                assert!(stay.connections > 0 || places.count() == 1, "{uid} would be online for ever");
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
        assert!(debounce.uids.is_empty() && debounce.leaving.is_empty(), "nothing is left behind");
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
                        let stay = twin.0.entry(uid.to_owned()).or_default();
                        *stay = (stay.0 + 1, None);
                        prop_assert_eq!(debounce.opened(uid), is_new);
                    }
                    1 | 2 => {
                        if let Some(stay) = twin.0.get_mut(uid).filter(|stay| stay.0 > 0) {
                            stay.0 -= 1;
                            stay.1 = (stay.0 == 0).then_some(now);
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
