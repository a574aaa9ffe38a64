//! The timer wheel: one deadline for each connection and each timer.
//!
//! The wheel does not know connections or timers, and does not read a clock. The time of the wheel is the last [`Tick`]
//! that [`Wheel::advance`] was given.
//!
//! Data structure: level `n` counts in units of 256ⁿ ticks. A block is 256 units. A level has two blocks of slots, one
//! slot per unit: the present block and the next block. A deadline further away is stored on a higher level. At the
//! start of a block, the deadlines of the following block are in one slot of the next higher level. Each of these
//! deadlines is then moved to a slot of the lower level. This move is called a cascade. Eight levels cover all values
//! of `u64`.
//!
//! A level has two blocks and not one, and a block has 256 units and not the usual 64, so that the cascades take little
//! time even with the heartbeats of a million connections. Every deadline within 65 seconds is on level 0 or 1 when it
//! is armed, so it cascades at most once. One cascade moves the deadlines of a period of 256 ms. With one block per
//! level, or with 64 units per block, one cascade would move the deadlines of a period of several seconds, and the loop
//! would serve no connection during this time.
//!
//! Each deadline is stored in a node of a linked list. The slot of a node follows from its deadline and the present
//! time. So the node needs no field for its slot, and [`Wheel::cancel`] is O(1).

mod level;
#[cfg(any(test, feature = "unstable"))]
mod model;
mod owner;
mod ring;

use std::mem;

use crate::tick::Tick;
pub use owner::Owner;

use level::{Level, SLOTS};
use ring::{Link, List, Node, Nodes};

#[cfg(any(test, feature = "unstable"))]
pub use model::fuzz_wheel;

/// The base-2 logarithm of the number of units of a level in one unit of the next higher level.
const UNIT_BITS: u32 = 8;
const LEVELS: usize = (u64::BITS / UNIT_BITS) as usize;

const _: () = assert!(SLOTS == 2 << UNIT_BITS, "a level must hold two blocks");

/// A hierarchical timer wheel with a resolution of one tick.
///
/// The wheel has no thread and reads no clock. The caller drives the wheel, once per turn of its loop, in this order:
///
/// 1. [`next`](Wheel::next) returns the latest time to call `advance`. The loop waits for events at most until this
///    time.
/// 2. [`advance`](Wheel::advance) sets the present time, read once after the wait. All due deadlines expire.
/// 3. [`pop_expired`](Wheel::pop_expired) returns the owners of the expired deadlines, one per call, until the result
///    is `None`. The caller handles each owner before it pops the next owner. Before the next pop, the caller may arm
///    and cancel any owner. A cancelled owner is not popped. A deadline that is armed for the present expires at the
///    next `advance`, so the repeated calls of `pop_expired` end.
/// 4. [`arm`](Wheel::arm), [`arm_no_later`](Wheel::arm_no_later) and [`cancel`](Wheel::cancel) may be called at any
///    time. A popped owner has no deadline until it is armed again. An owner that ends must be cancelled before its
///    index is reused. Otherwise the next owner of the index gets the deadline of the ended owner.
///
/// A deadline that moves with every message, such as a heartbeat, is not armed at each message. The caller keeps the
/// time of the last message, lets the armed deadline expire, and then arms a deadline for the remaining time: see
/// `arm_no_later`.
///
/// ```text
/// let mut wheel = Wheel::new(Tick(0));
/// wheel.arm(Owner::Connection(Slot(0)), Tick(25_000));
/// wheel.arm(Owner::Timer(0), Tick(1_000));
/// wheel.next();                 // Some(Tick(1000)), or earlier
/// wheel.advance(Tick(1_000));
/// wheel.pop_expired();          // Some(Owner::Timer(0))
/// wheel.pop_expired();          // None
/// wheel.cancel(Owner::Connection(Slot(0)));
/// wheel.next();                 // None
/// ```
///
/// The test `the_example_of_the_documentation` runs this example.
///
/// No deadline expires early. Every due deadline expires at the next `advance`. Arming, cancelling and popping are
/// O(1).
#[derive(Debug)]
pub struct Wheel {
    /// The last tick given to `advance`.
    now: Tick,
    /// Deadlines after `now`.
    levels: Box<[Level; LEVELS]>,
    /// The owners whose deadlines were not after the present time when they were armed.
    ///
    /// These deadlines expire at the next `advance`. If these deadlines expired immediately, and an owner armed a
    /// deadline for the present each time it is popped, the caller's loop over `pop_expired` would not end.
    overdue: List,
    /// The owners whose deadlines have expired and were not popped, in the order of their deadlines.
    expired: List,
    nodes: Nodes,
    /// The number of owners that have a deadline: the number of linked nodes.
    len: usize,
}

impl Wheel {
    /// Creates an empty wheel.
    ///
    /// `now` is the present time until `advance` changes it.
    pub fn new(now: Tick) -> Wheel {
        Wheel {
            now,
            levels: Box::new([Level::EMPTY; LEVELS]),
            overdue: List::EMPTY,
            expired: List::EMPTY,
            nodes: Nodes::new(),
            len: 0,
        }
    }

    /// Reserves address space for the deadlines of this many connections.
    pub fn reserve(&mut self, connections: usize) {
        self.nodes.reserve(connections);
    }

    /// Sets the owner's deadline.
    ///
    /// The owner's earlier deadline is removed, even if it has expired and was not popped. A tick in the past counts as
    /// the present tick, and the deadline then expires at the next [`advance`](Wheel::advance).
    pub fn arm(&mut self, owner: Owner, at: Tick) {
        let link = Link::to(owner);
        self.nodes.grow_to(link);
        if self.nodes[link].is_linked() {
            self.unlink(link);
        } else {
            self.len += 1;
        }
        let at = at.max(self.now);
        self.nodes[link].deadline = at;
        if at == self.now {
            self.nodes.push_back(&mut self.overdue, link);
        } else {
            self.insert(link);
        }
    }

    /// Sets the owner's deadline unless an earlier or equal deadline is set.
    ///
    /// To postpone a deadline, the caller lets the old deadline expire, and then arms the new deadline. So the wheel
    /// does one operation per period for an owner, however often the owner is active.
    pub fn arm_no_later(&mut self, owner: Owner, at: Tick) {
        let at = at.max(self.now);
        if self.deadline(owner).is_none_or(|armed| armed > at) {
            self.arm(owner, at);
        }
    }

    /// Removes the owner's deadline, if there is one.
    ///
    /// An expired deadline that was not popped is removed, too.
    pub fn cancel(&mut self, owner: Owner) {
        let link = Link::to(owner);
        if self.nodes.get(link).is_some_and(Node::is_linked) {
            self.unlink(link);
            self.len -= 1;
        }
    }

    /// Returns the owner's deadline.
    ///
    /// An expired deadline that was not popped is returned, too.
    pub fn deadline(&self, owner: Owner) -> Option<Tick> {
        let node = self.nodes.get(Link::to(owner))?;
        node.is_linked().then_some(node.deadline)
    }

    /// Returns the time at which [`advance`](Wheel::advance) must be called next, at the latest.
    ///
    /// Returns `None` if no deadline is armed. The result is never later than the earliest deadline. If the earliest
    /// deadline has passed, the result is the present time of the wheel. The result may be earlier than each deadline,
    /// because a distant deadline first moves to a lower level, at most once for each level.
    pub fn next(&self) -> Option<Tick> {
        if self.overdue.is_empty() && self.expired.is_empty() {
            self.next_slot().map(|(tick, _, _)| tick)
        } else {
            Some(self.now)
        }
    }

    /// Sets the present time to `now` and expires all due deadlines.
    ///
    /// [`pop_expired`](Wheel::pop_expired) returns the owners of the expired deadlines. The call does nothing if `now`
    /// is earlier than the present time. Empty slots are skipped, so the duration of the call depends on the number of
    /// deadlines that expire or cascade, not on the time since the last call.
    pub fn advance(&mut self, now: Tick) {
        if now < self.now {
            return;
        }
        self.nodes.append(&mut self.expired, mem::replace(&mut self.overdue, List::EMPTY));
        while let Some((tick, level, slot)) = self.next_slot()
            && tick <= now
        {
            self.now = tick;
            let due = self.levels[level].take(slot);
            if level == 0 {
                self.nodes.append(&mut self.expired, due);
            } else {
                self.cascade(due);
            }
        }
        self.now = now;
    }

    /// Removes the next expired deadline and returns its owner.
    ///
    /// The earliest deadline comes first. Equal deadlines come in the order in which they were armed.
    pub fn pop_expired(&mut self) -> Option<Owner> {
        let first = self.expired.first;
        let owner = first.owner()?;
        self.nodes.unlink(&mut self.expired, first);
        self.len -= 1;
        Some(owner)
    }

    /// Returns the number of owners that have a deadline.
    ///
    /// Owners whose deadline has expired and was not popped are included.
    #[cfg(any(test, feature = "unstable"))]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no owner has a deadline.
    #[cfg(any(test, feature = "unstable"))]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Panics if the data structure is inconsistent.
    ///
    /// This check takes O(n) time, and is for tests and debug builds.
    pub fn check_invariants(&self) {
        let mut listed = 0;
        for (at, level) in self.levels.iter().enumerate() {
            level.check_invariants();
            for (slot, &list) in level.lists().iter().enumerate().filter(|(_, list)| !list.is_empty()) {
                for deadline in self.checked_deadlines(list) {
                    assert!(deadline > self.now, "{deadline:?} on level {at} must be in the future");
                    assert_eq!(
                        slot_for(self.now, deadline),
                        (at, slot),
                        "{deadline:?} must be on its level and in its slot"
                    );
                    listed += 1;
                }
            }
        }
        let expired: Vec<Tick> =
            self.checked_deadlines(self.expired).chain(self.checked_deadlines(self.overdue)).collect();
        assert!(expired.is_sorted(), "expired deadlines must be sorted: {expired:?}");
        assert!(
            expired.last().is_none_or(|&last| last <= self.now),
            "expired deadlines must not be in the future: {expired:?}"
        );
        listed += expired.len();

        let linked = self.nodes.iter().filter(|node| node.is_linked()).count();
        assert_eq!(
            (listed, linked),
            (self.len, self.len),
            "the lists must contain `len` nodes, and `len` nodes must be linked"
        );
    }

    /// Returns the slot that must be processed first: the time of its processing, its level and its index.
    fn next_slot(&self) -> Option<(Tick, usize, usize)> {
        let levels = self.levels.iter().enumerate();
        levels.filter_map(|(level, slots)| self.next_slot_of(level, slots)).min_by_key(|&(tick, ..)| tick)
    }

    fn next_slot_of(&self, level: usize, slots: &Level) -> Option<(Tick, usize, usize)> {
        let present = units(self.now, level);
        let unit = present + slots.distance_to_occupied(slot_of(present))?;
        // A slot of level 0 stands for one tick, and its deadlines expire at this tick. The deadlines of a slot of a
        // higher level cascade at the start of the unit before the unit of this slot.
        let when = if level == 0 { unit } else { (unit - 1) << (level as u32 * UNIT_BITS) };
        Some((Tick(when), level, slot_of(unit)))
    }

    /// Inserts an unlinked node into its slot.
    ///
    /// The deadline of the node must be after the present.
    fn insert(&mut self, link: Link) {
        let (level, slot) = slot_for(self.now, self.nodes[link].deadline);
        self.nodes.push_back(self.levels[level].occupy(slot), link);
    }

    /// Moves each node of one slot to its slot of the next lower level.
    fn cascade(&mut self, due: List) {
        let mut link = due.first;
        loop {
            let next = self.nodes[link].next;
            self.insert(link);
            if next == due.first {
                break;
            }
            link = next;
        }
    }

    /// Removes a linked node from its list.
    fn unlink(&mut self, link: Link) {
        let deadline = self.nodes[link].deadline;
        if deadline > self.now {
            let (level, slot) = slot_for(self.now, deadline);
            self.levels[level].unlink_with(slot, |list| self.nodes.unlink(list, link));
        } else if self.overdue.first == link {
            self.nodes.unlink(&mut self.overdue, link);
        } else {
            // The node is in the list `expired`, or is in the list `overdue` and is not its first node. In both cases
            // only the neighbours of the node change.
            self.nodes.unlink(&mut self.expired, link);
        }
    }

    /// Returns the deadlines in a list, and asserts that all links are consistent.
    fn checked_deadlines(&self, list: List) -> impl Iterator<Item = Tick> + '_ {
        let mut link = list.first;
        let mut steps = 0;
        std::iter::from_fn(move || {
            link.owner()?;
            steps += 1;
            assert!(steps <= self.len, "a list must not be longer than the number of armed owners");
            let node = self.nodes[link];
            assert_eq!(self.nodes[node.next].prev, link, "the next node must point back to this node");
            link = if node.next == list.first { Link::NONE } else { node.next };
            Some(node.deadline)
        })
    }
}

/// Returns the level and slot of a deadline after `now`.
///
/// The level is the lowest level on which the deadline is in the present block or the next block.
fn slot_for(now: Tick, deadline: Tick) -> (usize, usize) {
    let mut level = 0;
    while units(deadline, level + 1) - units(now, level + 1) > 1 {
        level += 1;
    }
    (level, slot_of(units(deadline, level)))
}

/// Converts a tick to the units of a level.
///
/// One unit of level `n + 1` is one block of level `n`. Above the top level the result is 0.
fn units(tick: Tick, level: usize) -> u64 {
    tick.0.checked_shr(level as u32 * UNIT_BITS).unwrap_or(0)
}

/// Returns the slot of a unit.
///
/// The units of even blocks are in the first half of the slots, and the units of odd blocks in the second half.
fn slot_of(unit: u64) -> usize {
    unit as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;
    use Owner::{Connection, Timer};
    use proptest::prelude::*;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn expire(wheel: &mut Wheel, now: u64) -> Vec<Owner> {
        wheel.advance(Tick(now));
        wheel.check_invariants();
        std::iter::from_fn(|| wheel.pop_expired()).collect()
    }

    /// Returns ticks before, at and after powers of two and the starts of blocks, and the largest ticks.
    fn boundaries() -> Vec<u64> {
        let powers = (0..u64::BITS).map(|bits| 1 << bits);
        let mut ticks: Vec<u64> = powers.flat_map(|power: u64| [power - 1, power, power + 1]).collect();
        ticks
            .extend((0..LEVELS).map(|level| 3 << (level as u32 * UNIT_BITS)).flat_map(|third: u64| [third - 1, third]));
        ticks.extend([25_000, 30 * 365 * DAY, u64::MAX - 1, u64::MAX]);
        ticks.sort_unstable();
        ticks.dedup();
        ticks
    }

    #[test]
    fn no_deadline_expires_early_or_late_at_the_boundary_of_a_block() {
        let boundaries = boundaries();
        for (nth, &start) in boundaries.iter().enumerate() {
            for &at in &boundaries[nth + 1..] {
                let mut wheel = Wheel::new(Tick(start));
                wheel.arm(Connection(Slot(0)), Tick(at));
                wheel.advance(Tick(at - 1));
                assert_eq!(
                    wheel.pop_expired(),
                    None,
                    "a deadline {at} that is armed at {start} must not expire before {at}"
                );
                wheel.advance(Tick(at));
                assert_eq!(
                    wheel.pop_expired(),
                    Some(Connection(Slot(0))),
                    "a deadline {at} that is armed at {start} must expire at {at}"
                );
                assert_eq!(wheel.next(), None);
            }
        }
    }

    #[test]
    fn a_deadline_expires_after_at_most_one_advance_for_each_level() {
        for &at in &boundaries()[1..] {
            let mut wheel = Wheel::new(Tick(0));
            wheel.arm(Timer(3), Tick(at));
            let mut steps = 0;
            while wheel.pop_expired().is_none() {
                let next = wheel.next().expect("a timer must be armed");
                assert!(next.0 <= at, "`next` must not return {next:?}, which is later than the deadline {at}");
                wheel.advance(next);
                steps += 1;
            }
            assert!(steps <= LEVELS, "the wheel must reach {at} in at most one step per level, not {steps}");
        }
    }

    #[test]
    fn a_deadline_within_65_seconds_is_armed_on_level_0_or_1() {
        for now in boundaries().into_iter().filter(|&now| now < u64::MAX - 65_536) {
            let (level, _) = slot_for(Tick(now), Tick(now + 65_536));
            assert!(level <= 1, "65 s after {now} must be on level 0 or 1, not {level}");
        }
    }

    #[test]
    fn deadlines_expire_in_order_after_a_jump_of_a_century() {
        let mut wheel = Wheel::new(Tick(0));
        let ticks = boundaries();
        for (index, &at) in ticks.iter().enumerate().rev() {
            wheel.arm(Connection(Slot(index as u32)), Tick(at));
        }
        let century = 100 * 365 * DAY;
        let due = ticks.partition_point(|&at| at <= century) as u32;
        assert!(due > 100);
        assert_eq!(expire(&mut wheel, century), (0..due).map(|index| Connection(Slot(index))).collect::<Vec<_>>());
    }

    #[test]
    fn equal_deadlines_expire_in_the_order_they_were_armed() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.arm(Connection(Slot(2)), Tick(5000));
        wheel.arm(Timer(2), Tick(5000));
        wheel.advance(Tick(4999));
        wheel.arm(Connection(Slot(0)), Tick(5000));
        wheel.arm(Connection(Slot(2)), Tick(5000));
        assert_eq!(expire(&mut wheel, 5000), [Timer(2), Connection(Slot(0)), Connection(Slot(2))]);
    }

    #[test]
    fn a_deadline_that_is_armed_in_the_past_expires_at_the_next_advance() {
        let mut wheel = Wheel::new(Tick(100));
        for (index, at) in [(0, 99), (1, 0), (2, 100)] {
            wheel.arm(Timer(index), Tick(at));
            assert_eq!(wheel.deadline(Timer(index)), Some(Tick(100)));
        }
        assert_eq!(wheel.next(), Some(Tick(100)));
        assert_eq!(wheel.pop_expired(), None);
        assert_eq!(expire(&mut wheel, 100), [Timer(0), Timer(1), Timer(2)]);
    }

    #[test]
    fn a_new_deadline_replaces_an_expired_deadline_of_the_owner() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.arm(Connection(Slot(0)), Tick(10));
        wheel.arm(Connection(Slot(1)), Tick(10));
        wheel.advance(Tick(10));
        wheel.arm(Connection(Slot(0)), Tick(30));
        assert_eq!(wheel.len(), 2);
        assert_eq!(expire(&mut wheel, 10), [Connection(Slot(1))]);
        assert_eq!(expire(&mut wheel, 30), [Connection(Slot(0))]);
    }

    #[test]
    fn cancel_removes_future_overdue_and_expired_deadlines() {
        let mut wheel = Wheel::new(Tick(10));
        wheel.cancel(Timer(7));
        for index in 0..3 {
            wheel.arm(Connection(Slot(index)), Tick(20)); // expires
        }
        wheel.advance(Tick(20));
        for index in 0..3 {
            wheel.arm(Timer(index), Tick(20)); // overdue
            wheel.arm(Timer(index + 3), Tick(9999)); // in the future
        }
        for owner in [Connection(Slot(1)), Timer(1), Timer(4), Connection(Slot(0)), Timer(0), Timer(3)] {
            wheel.cancel(owner);
            assert_eq!(wheel.deadline(owner), None);
            wheel.check_invariants();
        }
        assert_eq!(expire(&mut wheel, 9999), [Connection(Slot(2)), Timer(2), Timer(5)]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn arm_no_later_never_postpones_a_deadline() {
        let mut wheel = Wheel::new(Tick(0));
        for (at, kept) in [(50, 50), (60, 50), (40, 40), (40, 40)] {
            wheel.arm_no_later(Connection(Slot(0)), Tick(at));
            assert_eq!(wheel.deadline(Connection(Slot(0))), Some(Tick(kept)));
        }
        wheel.advance(Tick(45));
        wheel.arm_no_later(Connection(Slot(0)), Tick(70));
        assert_eq!(expire(&mut wheel, 45), [Connection(Slot(0))], "an expired deadline must stay expired");
    }

    #[test]
    fn the_example_of_the_documentation() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.arm(Connection(Slot(0)), Tick(25_000));
        wheel.arm(Timer(0), Tick(1_000));
        assert!(wheel.next().is_some_and(|next| next <= Tick(1_000)));
        wheel.advance(Tick(1_000));
        assert_eq!(wheel.pop_expired(), Some(Timer(0)));
        assert_eq!(wheel.pop_expired(), None);
        wheel.cancel(Connection(Slot(0)));
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn an_advance_to_an_earlier_time_is_ignored() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.advance(Tick(1000));
        wheel.arm(Connection(Slot(0)), Tick(500));
        wheel.advance(Tick(999));
        assert_eq!(wheel.pop_expired(), None);
        assert_eq!(expire(&mut wheel, 1000), [Connection(Slot(0))]);
    }

    proptest! {
        #[test]
        fn wheel_matches_naive(operations in prop::collection::vec(any::<u8>(), 0..256)) {
            fuzz_wheel(&operations);
        }
    }
}
