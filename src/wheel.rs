//! The timer wheel: who is to be woken, and when.
//!
//! It owns one deadline for each connection and each timer. It must not know what either is, nor read a clock: the
//! time is the [`Tick`] it was last told.
//!
//! The one idea: level `n` of the wheel counts in units of 256ⁿ ticks, a slot a unit, and holds the deadlines of the
//! present block of 256 units and of the block after it; what is further off hangs on a higher level. When the present
//! enters a block, the one after next has come into the level's reach: it was one slot of the level above, and its
//! deadlines sink from there, each into its own slot here. Eight levels count any `u64`, so no deadline is too far.
//!
//! Two blocks and not one, and 256 units and not the usual 64, because of the heartbeats of a million connections: all
//! that is due within 65 seconds is on level 0 or 1 whenever it is armed, so that it sinks at most once, in portions of
//! 256 ms. With one block a level, or 64 units, seconds' worth sinks at once, and stalls the loop while it does.
//!
//! A deadline and the present are all it takes to tell the slot that a node is in. So the node needs no field for that,
//! and [`Wheel::cancel`] is O(1).

mod level;
mod ring;
mod twin;

use std::mem;

use crate::tick::Tick;
use level::{Level, SLOTS};
use ring::{Link, List, Node, Nodes};

#[doc(hidden)]
pub use twin::fuzz_wheel;

/// The largest index an [`Owner`] may have. Links spend their top bit on the arena, and one value on "none".
pub const OWNER_INDEX_MAX: u32 = (1 << 31) - 2;

/// A unit of a level is this many bits wider than one of the level below: 256 times.
const UNIT_BITS: u32 = 8;
const LEVELS: usize = (u64::BITS / UNIT_BITS) as usize;

const _: () = assert!(SLOTS == 2 << UNIT_BITS, "a level holds two blocks");

/// Whose deadline it is. An owner has one deadline at most.
///
/// Indices are dense: the wheel keeps 16 bytes for each index up to the largest that was ever armed, apart for
/// connections and timers. None may exceed [`OWNER_INDEX_MAX`].
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// A connection, by its slot.
    Connection(u32),
    /// A timer of the user's, by its place in the loop's list of timers.
    Timer(u32),
}

/// A hierarchical timer wheel with a resolution of one tick.
///
/// Nothing expires early, and nothing that is due survives an [`advance`](Wheel::advance). Arming, cancelling and
/// popping are O(1).
#[derive(Debug)]
pub struct Wheel {
    /// The latest tick that `advance` was told.
    now: Tick,
    /// Deadlines after `now`.
    levels: Box<[Level; LEVELS]>,
    /// What was armed for a tick that had come: it waits for the next `advance`, so that an owner which re-arms itself
    /// for "now" each time it expires cannot hold the caller in its pop loop.
    overdue: List,
    /// What has expired and was not popped yet, by deadline.
    expired: List,
    nodes: Nodes,
    /// Nodes that are in any of the lists.
    len: usize,
}

impl Wheel {
    /// An empty wheel; `now` is the present until `advance` moves it.
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

    /// Sets the owner's deadline, in place of any it had, even one that has expired and was not popped.
    ///
    /// A tick that has passed counts as the present one, and expires at the next [`advance`](Wheel::advance).
    pub fn arm(&mut self, owner: Owner, at: Tick) {
        let link = Link::to(owner);
        self.nodes.reach(link);
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
            self.hang(link);
        }
    }

    /// Sets the owner's deadline unless it has one that is as early.
    ///
    /// What was postponed need not be told to the wheel: let the old deadline expire, see then that there is nothing to
    /// do yet, and arm again. That is one touch a period however busy the owner is.
    pub fn arm_no_later(&mut self, owner: Owner, at: Tick) {
        let at = at.max(self.now);
        if self.deadline(owner).is_none_or(|armed| armed > at) {
            self.arm(owner, at);
        }
    }

    /// Forgets the owner's deadline, if it has one, even when it has expired and was not popped.
    pub fn cancel(&mut self, owner: Owner) {
        let link = Link::to(owner);
        if self.nodes.get(link).is_some_and(Node::is_linked) {
            self.unlink(link);
            self.len -= 1;
        }
    }

    /// When the owner expires, or did if it was not popped yet.
    pub fn deadline(&self, owner: Owner) -> Option<Tick> {
        let node = self.nodes.get(Link::to(owner))?;
        node.is_linked().then_some(node.deadline)
    }

    /// When to call [`advance`](Wheel::advance) next; `None` when nothing is armed.
    ///
    /// Never later than the earliest deadline, or the present if that has come. It may be earlier: a far deadline is
    /// approached in steps, one a level at most.
    pub fn next(&self) -> Option<Tick> {
        if self.overdue.is_empty() && self.expired.is_empty() {
            self.next_slot().map(|(tick, _, _)| tick)
        } else {
            Some(self.now)
        }
    }

    /// Moves the present to `now` and what is due by then to [`pop_expired`](Wheel::pop_expired).
    ///
    /// A tick before the present is ignored. Empty slots are skipped, not visited: the cost is that of the deadlines
    /// which expire or sink a level, however far the jump.
    pub fn advance(&mut self, now: Tick) {
        if now < self.now {
            return;
        }
        self.nodes.append(&mut self.expired, mem::replace(&mut self.overdue, List::EMPTY));
        while let Some((tick, level, slot)) = self.next_slot()
            && tick <= now
        {
            self.now = tick;
            let reached = self.levels[level].take(slot);
            if level == 0 {
                self.nodes.append(&mut self.expired, reached);
            } else {
                self.sink(reached);
            }
        }
        self.now = now;
    }

    /// Takes the next that has expired: the earliest deadline first, and equal ones in the order they were armed. The
    /// owner is then unarmed.
    pub fn pop_expired(&mut self) -> Option<Owner> {
        let first = self.expired.first;
        let owner = first.owner()?;
        self.nodes.unlink(&mut self.expired, first);
        self.len -= 1;
        Some(owner)
    }

    /// How many owners are armed, counting those which have expired and were not popped yet.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no owner is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Panics if the wheel contradicts itself. Visits everything: for tests and debug builds.
    pub fn check_invariants(&self) {
        let mut listed = 0;
        for (at, level) in self.levels.iter().enumerate() {
            level.check_invariants();
            for (slot, &list) in level.lists().iter().enumerate().filter(|(_, list)| !list.is_empty()) {
                for deadline in self.checked_deadlines(list) {
                    assert!(deadline > self.now, "{deadline:?} is due and still hangs on level {at}");
                    assert_eq!(place(self.now, deadline), (at, slot), "place of {deadline:?}");
                    listed += 1;
                }
            }
        }
        let gone: Vec<Tick> =
            self.checked_deadlines(self.expired).chain(self.checked_deadlines(self.overdue)).collect();
        assert!(gone.is_sorted(), "expired out of order: {gone:?}");
        assert!(gone.last().is_none_or(|&last| last <= self.now), "expired early: {gone:?}");
        listed += gone.len();

        let linked = self.nodes.iter().filter(|node| node.is_linked()).count();
        assert_eq!((listed, linked), (self.len, self.len), "nodes listed, nodes linked; and len");
    }

    /// The slot with which `advance` has work next, as (when, level, slot).
    fn next_slot(&self) -> Option<(Tick, usize, usize)> {
        let levels = self.levels.iter().enumerate();
        levels.filter_map(|(level, slots)| self.next_slot_of(level, slots)).min_by_key(|&(tick, ..)| tick)
    }

    fn next_slot_of(&self, level: usize, slots: &Level) -> Option<(Tick, usize, usize)> {
        let present = units(self.now, level);
        let unit = present + slots.distance_to_occupied(slot_of(present))?;
        // A slot of level 0 is a tick, due when that comes. One above sinks when the present enters the unit before it.
        let when = if level == 0 { unit } else { (unit - 1) << (level as u32 * UNIT_BITS) };
        Some((Tick(when), level, slot_of(unit)))
    }

    /// Puts an unlinked node, whose deadline is yet to come, into its slot.
    fn hang(&mut self, link: Link) {
        let (level, slot) = place(self.now, self.nodes[link].deadline);
        self.nodes.push_back(self.levels[level].occupy(slot), link);
    }

    /// Spreads what was in one slot over the level below.
    fn sink(&mut self, reached: List) {
        let mut link = reached.first;
        loop {
            let next = self.nodes[link].next;
            self.hang(link);
            if next == reached.first {
                break;
            }
            link = next;
        }
    }

    /// Takes a linked node out of whichever list it is in.
    fn unlink(&mut self, link: Link) {
        let deadline = self.nodes[link].deadline;
        if deadline > self.now {
            let (level, slot) = place(self.now, deadline);
            self.levels[level].change(slot, |list| self.nodes.unlink(list, link));
        } else if self.overdue.first == link {
            self.nodes.unlink(&mut self.overdue, link);
        } else {
            // Either expired, or overdue but not first: then its neighbours are all there is to change.
            self.nodes.unlink(&mut self.expired, link);
        }
    }

    /// The deadlines in a list, each node's links asserted on the way.
    fn checked_deadlines(&self, list: List) -> impl Iterator<Item = Tick> + '_ {
        let mut link = list.first;
        let mut steps = 0;
        std::iter::from_fn(move || {
            link.owner()?;
            steps += 1;
            assert!(steps <= self.len, "a list is longer than all that is armed");
            let node = self.nodes[link];
            assert_eq!(self.nodes[node.next].prev, link, "a node's next does not point back");
            link = if node.next == list.first { Link::NONE } else { node.next };
            Some(node.deadline)
        })
    }
}

/// Level and slot of a deadline after `now`: the lowest level where it is in the present block or the one after.
fn place(now: Tick, deadline: Tick) -> (usize, usize) {
    let mut level = 0;
    while units(deadline, level + 1) - units(now, level + 1) > 1 {
        level += 1;
    }
    (level, slot_of(units(deadline, level)))
}

/// A tick in units of a level, of which the level above has the blocks. Above the top there is but one.
fn units(tick: Tick, level: usize) -> u64 {
    tick.0.checked_shr(level as u32 * UNIT_BITS).unwrap_or(0)
}

/// Two blocks of slots, even and odd, take turns at being the present one.
fn slot_of(unit: u64) -> usize {
    unit as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use Owner::{Connection, Timer};
    use proptest::prelude::*;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn expire(wheel: &mut Wheel, now: u64) -> Vec<Owner> {
        wheel.advance(Tick(now));
        wheel.check_invariants();
        std::iter::from_fn(|| wheel.pop_expired()).collect()
    }

    /// Both sides of every border between digits, and of the ends of the range.
    fn borders() -> Vec<u64> {
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
    fn neither_early_nor_late_at_any_border() {
        let borders = borders();
        for (nth, &start) in borders.iter().enumerate() {
            for &at in &borders[nth + 1..] {
                let mut wheel = Wheel::new(Tick(start));
                wheel.arm(Connection(0), Tick(at));
                wheel.advance(Tick(at - 1));
                assert_eq!(wheel.pop_expired(), None, "armed at {start} for {at}: early");
                wheel.advance(Tick(at));
                assert_eq!(wheel.pop_expired(), Some(Connection(0)), "armed at {start} for {at}: late");
                assert_eq!(wheel.next(), None);
            }
        }
    }

    #[test]
    fn next_reaches_a_deadline_in_a_step_a_level() {
        for &at in &borders()[1..] {
            let mut wheel = Wheel::new(Tick(0));
            wheel.arm(Timer(3), Tick(at));
            let mut steps = 0;
            while wheel.pop_expired().is_none() {
                let next = wheel.next().expect("a timer is armed");
                assert!(next.0 <= at, "{next:?} is past the deadline {at}");
                wheel.advance(next);
                steps += 1;
            }
            assert!(steps <= LEVELS, "{steps} steps to {at}");
        }
    }

    #[test]
    fn a_heartbeat_sinks_at_most_once() {
        for now in borders().into_iter().filter(|&now| now < u64::MAX - 65_536) {
            let (level, _) = place(Tick(now), Tick(now + 65_536));
            assert!(level <= 1, "at {now}");
        }
    }

    #[test]
    fn a_jump_of_years_expires_in_order() {
        let mut wheel = Wheel::new(Tick(0));
        let ticks = borders();
        for (index, &at) in ticks.iter().enumerate().rev() {
            wheel.arm(Connection(index as u32), Tick(at));
        }
        let century = 100 * 365 * DAY;
        let due = ticks.partition_point(|&at| at <= century) as u32;
        assert!(due > 100);
        assert_eq!(expire(&mut wheel, century), (0..due).map(Connection).collect::<Vec<_>>());
    }

    #[test]
    fn equal_deadlines_expire_in_the_order_they_were_armed() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.arm(Connection(2), Tick(5000));
        wheel.arm(Timer(2), Tick(5000));
        wheel.advance(Tick(4999));
        wheel.arm(Connection(0), Tick(5000));
        wheel.arm(Connection(2), Tick(5000));
        assert_eq!(expire(&mut wheel, 5000), [Timer(2), Connection(0), Connection(2)]);
    }

    #[test]
    fn what_has_passed_expires_at_the_next_advance() {
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
    fn arming_replaces_also_what_has_expired() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.arm(Connection(0), Tick(10));
        wheel.arm(Connection(1), Tick(10));
        wheel.advance(Tick(10));
        wheel.arm(Connection(0), Tick(30));
        assert_eq!(wheel.len(), 2);
        assert_eq!(expire(&mut wheel, 10), [Connection(1)]);
        assert_eq!(expire(&mut wheel, 30), [Connection(0)]);
    }

    #[test]
    fn cancelling_reaches_every_list() {
        let mut wheel = Wheel::new(Tick(10));
        wheel.cancel(Timer(7));
        for index in 0..3 {
            wheel.arm(Connection(index), Tick(20)); // will have expired
        }
        wheel.advance(Tick(20));
        for index in 0..3 {
            wheel.arm(Timer(index), Tick(20)); // overdue
            wheel.arm(Timer(index + 3), Tick(9999)); // yet to come
        }
        for owner in [Connection(1), Timer(1), Timer(4), Connection(0), Timer(0), Timer(3)] {
            wheel.cancel(owner);
            assert_eq!(wheel.deadline(owner), None);
            wheel.check_invariants();
        }
        assert_eq!(expire(&mut wheel, 9999), [Connection(2), Timer(2), Timer(5)]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn arm_no_later_only_ever_shortens() {
        let mut wheel = Wheel::new(Tick(0));
        for (at, kept) in [(50, 50), (60, 50), (40, 40), (40, 40)] {
            wheel.arm_no_later(Connection(0), Tick(at));
            assert_eq!(wheel.deadline(Connection(0)), Some(Tick(kept)));
        }
        wheel.advance(Tick(45));
        wheel.arm_no_later(Connection(0), Tick(70));
        assert_eq!(expire(&mut wheel, 45), [Connection(0)], "an expired owner stays expired");
    }

    #[test]
    fn time_does_not_go_back() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.advance(Tick(1000));
        wheel.arm(Connection(0), Tick(500));
        wheel.advance(Tick(999));
        assert_eq!(wheel.pop_expired(), None);
        assert_eq!(expire(&mut wheel, 1000), [Connection(0)]);
    }

    proptest! {
        #[test]
        fn wheel_matches_naive(operations in prop::collection::vec(any::<u8>(), 0..256)) {
            fuzz_wheel(&operations);
        }
    }
}
