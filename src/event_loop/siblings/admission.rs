//! The number of client connections of each loop, and the choice of a loop for a new connection.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::tick::Tick;

/// The balance of loops: a loop may have 1/64 more connections than the emptiest loop.
///
/// So a loop has at most 1/64 more connections than the mean of all loops. Other loops can admit a few further
/// connections to this loop at the same moment.
const MARGIN_PART: usize = 64;

/// A loop counts as stalled when its turn has taken at least this time.
///
/// Other loops send no new connections to a stalled loop, because the clients of these connections would wait.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// The number of client connections of all loops.
///
/// The number of a loop includes accepted sockets that another loop has sent to it and that it has not yet added.
#[derive(Debug)]
pub struct Admission {
    clients: AtomicUsize,
    /// The number of client connections of each loop.
    loads: Box<[AtomicUsize]>,
    /// The tick at which the current turn of each loop began, plus 1. The value is 0 while the loop waits for events.
    turns: Box<[AtomicU64]>,
}

/// A place for one client connection on a loop. When this value is dropped, the place is freed.
#[derive(Debug)]
pub struct Place {
    /// The value is `None` after a connection has taken the place.
    admission: Option<Arc<Admission>>,
    index: usize,
}

impl Admission {
    /// Creates the counters for `loops` loops.
    pub fn new(loops: usize) -> Admission {
        Admission {
            clients: AtomicUsize::new(0),
            loads: (0..loops).map(|_| AtomicUsize::new(0)).collect(),
            turns: (0..loops).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Records that a loop begins a turn.
    pub fn begin_turn(&self, index: usize, now: Tick) {
        self.turns[index].store(now.0.saturating_add(1), Ordering::Relaxed);
    }

    /// Records that a loop waits for events.
    pub fn end_turn(&self, index: usize) {
        self.turns[index].store(0, Ordering::Relaxed);
    }

    /// Returns whether the process has `max` client connections.
    pub fn is_full(&self, max: usize) -> bool {
        self.clients.load(Ordering::Relaxed) >= max
    }

    /// Takes a place for a connection that the loop `own` accepted. Returns `None` if the process has `max` client
    /// connections.
    ///
    /// The place is on the loop `own`, unless this loop has over 1/64 more connections than the emptiest loop. Another
    /// loop whose turn began [`STALLED_AFTER`] ago or earlier is not chosen.
    pub fn admit(self: &Arc<Self>, own: usize, max: usize, now: Tick) -> Option<Place> {
        let more = |clients: usize| (clients < max).then_some(clients + 1);
        self.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let index = self.choose(own, now);
        self.loads[index].fetch_add(1, Ordering::Relaxed);
        Some(Place { admission: Some(Arc::clone(self)), index })
    }

    /// Frees the place of a connection that has ended.
    pub fn release(&self, index: usize) {
        self.loads[index].fetch_sub(1, Ordering::Relaxed);
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }

    fn choose(&self, own: usize, now: Tick) -> usize {
        let is_stalled = |index: usize| match self.turns[index].load(Ordering::Relaxed) {
            0 => false,
            began => index != own && Tick(began - 1).after(STALLED_AFTER) <= now,
        };
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed)).enumerate();
        let loads = loads.filter(|(index, _)| !is_stalled(*index));
        let Some((emptiest, least)) = loads.min_by_key(|(_, load)| *load) else { return own };
        let is_even = self.loads[own].load(Ordering::Relaxed) <= least + least / MARGIN_PART;
        if is_even { own } else { emptiest }
    }
}

impl Place {
    /// Returns the loop of the place.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Gives the place to a connection of the loop. [`Admission::release`] frees the place when the connection is
    /// removed.
    pub fn keep(mut self) {
        self.admission = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(admission) = &self.admission {
            admission.release(self.index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_balanced_even_if_one_loop_accepts_all() {
        let admission = Arc::new(Admission::new(4));
        let loads = || -> Vec<usize> { admission.loads.iter().map(|load| load.load(Ordering::Relaxed)).collect() };
        let is_balanced =
            || loads().iter().all(|load| *load as f64 <= loads().iter().sum::<usize>() as f64 / 4.0 * 1.05);
        // All connections arrive at one loop, as with a unix socket.
        (0..10_000).for_each(|_| admission.admit(0, 20_000, Tick(0)).expect("a place").keep());
        assert!(is_balanced(), "{:?}", loads());
        let half = loads()[2] / 2;
        (0..half).for_each(|_| admission.release(2));
        (0..half).for_each(|number| admission.admit(number % 4, 20_000, Tick(0)).expect("a place").keep());
        assert!(is_balanced(), "{:?}", loads());
    }

    #[test]
    fn the_limit_holds_for_all_loops_and_a_dropped_place_is_free() {
        let admission = Arc::new(Admission::new(2));
        let places: Vec<Place> = (0..3).map(|own| admission.admit(own % 2, 3, Tick(0)).expect("a place")).collect();
        assert!(admission.is_full(3) && admission.admit(0, 3, Tick(0)).is_none());
        drop(places);
        assert!(!admission.is_full(1) && admission.admit(1, 1, Tick(0)).is_some_and(|place| place.index() == 1));
    }

    #[test]
    fn a_stalled_loop_gets_no_connections_of_other_loops() {
        let admission = Arc::new(Admission::new(3));
        let place_at = |ticks| admission.admit(0, 100, Tick(ticks)).expect("a place").index();
        admission.admit(0, 100, Tick(0)).expect("a place").keep();
        admission.begin_turn(1, Tick(5));
        admission.begin_turn(2, Tick(50));
        assert_eq!([place_at(1004), place_at(1005), place_at(1050)], [1, 2, 0], "the first loop is not stalled");
        admission.end_turn(1);
        assert_eq!(place_at(5000), 1);
        admission.begin_turn(2, Tick(5000));
        admission.admit(1, 100, Tick(5000)).expect("a place").keep();
        assert_eq!(place_at(5000), 2);
    }
}
