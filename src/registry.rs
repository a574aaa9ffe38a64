//! Users and groups: which slots are whose, and which belong together.
//!
//! It owns the map between uids and slots, and the members of groups. It must not know what a slot holds: it never sees
//! a connection, and a slot is a number from its first mention to [`Registry::remove`].
//!
//! The one idea: every relation is threaded through the things it relates. A user's slots are a list whose links lie in
//! the slots; a membership lies in its slot's list and knows its place in the group's dense array. So nothing is ever
//! searched: a slot leaves in as many steps as it has memberships, however large the groups or many the tabs.
//!
//! What is empty is not kept. A user exists while a slot is bound to it and a group while it has a member, so that their
//! names, which strangers choose, cannot pile up.

mod arena;
mod change;
mod directory;
#[cfg(any(test, feature = "unstable"))]
mod model;

use std::{iter, mem};

use compact_str::CompactString;

use directory::{Directory, Keyed};

pub use change::{Change, Departed, SecondLogin};
#[cfg(any(test, feature = "unstable"))]
pub use model::fuzz_registry;

/// The longest uid or group name, in bytes of UTF-8. The shortest has one.
pub const NAME_BYTES_MAX: usize = 128;

const _: () = assert!(size_of::<Slot>() == 16);
const _: () = assert!(size_of::<User>() == 32);
const _: () = assert!(size_of::<Membership>() == 20);
const _: () = assert!(size_of::<Member>() == 8);
// A uid of up to 24 bytes lies within its `User`. Bound to one slot it costs these two, and five bytes in an index that is
// never less than 7/16 full while it grows; the spare room of vectors that have just doubled comes on top.
const _: () = assert!(size_of::<Slot>() + size_of::<User>() + 5 * 16 / 7 < 60);

/// A group's list of no more places than this is not shrunk.
const MEMBERS_KEPT: usize = 16;

/// No slot, user or membership: the end of a list, or what an unbound slot has for a user.
const NONE: u32 = u32::MAX;

/// Who is bound to which uid, and who is in which group.
#[derive(Debug)]
pub struct Registry {
    /// Grown to the largest slot that was ever bound or joined; a slot beyond has neither uid nor group.
    slots: Vec<Slot>,
    users: Directory<User>,
    groups: Directory<Group>,
    memberships: Directory<Membership>,
}

#[derive(Copy, Clone, Debug)]
struct Slot {
    user: u32,
    /// Neighbours among the user's slots: `prev` was bound later, `next` earlier.
    prev: u32,
    next: u32,
    /// The membership joined last.
    memberships: u32,
}

#[derive(Debug)]
struct User {
    name: CompactString,
    /// The slot bound last.
    first: u32,
    /// How many slots are bound, never 0.
    count: u32,
}

#[derive(Debug)]
struct Group {
    name: CompactString,
    /// Dense and in no order, for a fast fan-out; never empty.
    members: Vec<Member>,
}

#[derive(Copy, Clone, Debug)]
struct Member {
    slot: u32,
    membership: u32,
}

#[derive(Copy, Clone, Debug)]
struct Membership {
    seat: Seat,
    /// Where in the group's `members` it is.
    position: u32,
    /// Neighbours among the slot's memberships: `prev` was joined later, `next` earlier. Of the one joined last, `prev` is
    /// how many the slot has.
    prev: u32,
    next: u32,
}

/// What a membership is found by.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
struct Seat {
    slot: u32,
    group: u32,
}

impl Registry {
    /// A registry of nobody.
    pub fn new() -> Registry {
        Registry { slots: Vec::new(), users: Directory::new(), groups: Directory::new(), memberships: Directory::new() }
    }

    /// Binds the slot to a uid, in place of any it had.
    ///
    /// Where `policy` is [`SecondLogin::KickOld`], the slots that the uid had before are added to `kicked`, the newest
    /// first. They stay bound: it is the caller's to close them, and closing removes them. A slot that is bound to this
    /// uid already kicks nobody; so an old connection that repeats its bind while it is being kicked does no harm.
    ///
    /// Unless the answer is [`Change::Done`], nothing has changed, and the slot keeps the uid it had.
    pub fn bind(&mut self, slot: u32, uid: &str, policy: SecondLogin, kicked: &mut Vec<u32>) -> Change {
        if !is_name(uid) {
            return Change::BadName;
        }
        let found = self.users.find(uid);
        if let Some(user) = found {
            if self.slot(slot).user == user {
                return Change::Already;
            }
            match policy {
                SecondLogin::Multi => {}
                SecondLogin::KickOld => kicked.extend(self.slots_from(self.users[user].first)),
                SecondLogin::RejectNew => return Change::Taken,
            }
        }
        self.unbind(slot);
        let user = found.unwrap_or_else(|| self.users.insert(User::new(uid)));
        self.attach(slot, user);
        Change::Done
    }

    /// Takes the slot's uid from it.
    pub fn unbind(&mut self, slot: u32) -> Change {
        let Slot { user, prev, next, .. } = self.slot(slot);
        if user == NONE {
            return Change::Already;
        }
        if next != NONE {
            self.slot_mut(next).prev = prev;
        }
        if prev != NONE {
            self.slot_mut(prev).next = next;
        } else {
            self.users[user].first = next;
        }
        let left = self.slot_mut(slot);
        (left.user, left.prev, left.next) = (NONE, NONE, NONE);
        self.users[user].count -= 1;
        if self.users[user].count == 0 {
            self.users.remove(user);
        }
        Change::Done
    }

    /// The uid that the slot is bound to.
    pub fn uid_of(&self, slot: u32) -> Option<&str> {
        some(self.slot(slot).user).map(|user| self.users[user].name.as_str())
    }

    /// The slots bound to a uid, the newest binding first.
    pub fn slots_of(&self, uid: &str) -> impl Iterator<Item = u32> + use<'_> {
        self.slots_from(self.users.find(uid).map_or(NONE, |user| self.users[user].first))
    }

    /// How many slots are bound to a uid; 0 means that the person is offline.
    pub fn count_of(&self, uid: &str) -> usize {
        self.users.find(uid).map_or(0, |user| self.users[user].count as usize)
    }

    /// Makes the slot a member of a group, which begins with its first member.
    pub fn join(&mut self, slot: u32, group: &str) -> Change {
        if !is_name(group) {
            return Change::BadName;
        }
        let found = self.groups.find(group);
        if found.is_some_and(|group| self.memberships.find(&Seat { slot, group }).is_some()) {
            return Change::Already;
        }
        let group = found.unwrap_or_else(|| self.groups.insert(Group::new(group)));
        self.enter(Seat { slot, group });
        Change::Done
    }

    /// The number of groups that the slot is a member of.
    pub fn group_count_of(&self, slot: u32) -> usize {
        some(self.slot(slot).memberships).map_or(0, |last| self.memberships[last].prev as usize)
    }

    /// Ends the slot's membership of a group.
    pub fn leave(&mut self, slot: u32, group: &str) -> Change {
        if !is_name(group) {
            return Change::BadName;
        }
        match self.membership(slot, group) {
            Some(membership) => {
                self.exit(membership);
                Change::Done
            }
            None => Change::Already,
        }
    }

    /// Whether the slot is a member of a group.
    pub fn is_member(&self, slot: u32, group: &str) -> bool {
        self.membership(slot, group).is_some()
    }

    /// Ends a group with all its memberships, and says how many they were. O(members).
    pub fn ungroup(&mut self, group: &str) -> usize {
        let Some(group) = self.groups.find(group) else {
            return 0;
        };
        let Group { members, .. } = self.groups.remove(group);
        for member in &members {
            self.unlist(member.membership);
        }
        members.len()
    }

    /// The members of a group, each once, in no order that means anything.
    pub fn members(&self, group: &str) -> impl ExactSizeIterator<Item = u32> + use<'_> {
        let members = self.groups.find(group).map_or(&[][..], |group| &self.groups[group].members);
        members.iter().map(|member| member.slot)
    }

    /// The groups that the slot is a member of, the last joined first.
    pub fn groups_of(&self, slot: u32) -> impl Iterator<Item = &str> + '_ {
        let first = some(self.slot(slot).memberships);
        iter::successors(first, |&id| some(self.memberships[id].next))
            .map(|id| self.groups[self.memberships[id].seat.group].name.as_str())
    }

    /// Takes from the slot all it has, and tells what that was.
    ///
    /// O(own memberships), and no allocation for a slot without uid and groups.
    pub fn remove(&mut self, slot: u32) -> Departed {
        let departed = Departed {
            uid: self.uid_of(slot).map(CompactString::from),
            groups: self.groups_of(slot).map(CompactString::from).collect(),
        };
        self.unbind(slot);
        while let Some(membership) = some(self.slot(slot).memberships) {
            self.exit(membership);
        }
        departed
    }

    /// All uids that are bound, with how many slots each, in no order.
    pub fn users(&self) -> impl Iterator<Item = (&str, usize)> + '_ {
        self.users.iter().map(|(_, user)| (user.name.as_str(), user.count as usize))
    }

    /// All groups, with how many members each, in no order.
    pub fn groups(&self) -> impl Iterator<Item = (&str, usize)> + '_ {
        self.groups.iter().map(|(_, group)| (group.name.as_str(), group.members.len()))
    }

    /// How many uids are bound.
    pub fn user_count(&self) -> usize {
        self.users.len()
    }

    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// How many memberships there are: the sum of all groups' members.
    pub fn membership_count(&self) -> usize {
        self.memberships.len()
    }

    /// Panics if the registry contradicts itself. Visits everything: for tests and debug builds.
    pub fn check_invariants(&self) {
        self.users.check_invariants();
        self.groups.check_invariants();
        self.memberships.check_invariants();
        self.check_users();
        self.check_groups();
    }

    fn slot(&self, slot: u32) -> Slot {
        self.slots.get(slot as usize).copied().unwrap_or(Slot::BLANK)
    }

    fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        assert_ne!(slot, NONE, "no slot has this number");
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, Slot::BLANK);
        }
        &mut self.slots[index]
    }

    /// A user's slots from one of them on.
    fn slots_from(&self, first: u32) -> impl Iterator<Item = u32> + use<'_> {
        iter::successors(some(first), |&slot| some(self.slot(slot).next))
    }

    fn membership(&self, slot: u32, group: &str) -> Option<u32> {
        let group = self.groups.find(group)?;
        self.memberships.find(&Seat { slot, group })
    }

    /// Puts an unbound slot in front of the user's others.
    fn attach(&mut self, slot: u32, user: u32) {
        let entry = &mut self.users[user];
        let next = mem::replace(&mut entry.first, slot);
        entry.count += 1;
        if next != NONE {
            self.slot_mut(next).prev = slot;
        }
        let bound = self.slot_mut(slot);
        (bound.user, bound.next) = (user, next);
    }

    /// Adds a membership that does not exist yet, to both its slot and its group.
    fn enter(&mut self, seat: Seat) {
        let next = self.slot(seat.slot).memberships;
        let position = directory::id(self.groups[seat.group].members.len());
        let count = directory::id(self.group_count_of(seat.slot) + 1);
        let membership = self.memberships.insert(Membership { seat, position, prev: count, next });
        if next != NONE {
            self.memberships[next].prev = membership;
        }
        self.slot_mut(seat.slot).memberships = membership;
        self.groups[seat.group].members.push(Member { slot: seat.slot, membership });
    }

    /// Ends a membership on both sides. The group's last member fills the gap, or the group ends too.
    fn exit(&mut self, membership: u32) {
        let Membership { seat, position, .. } = self.unlist(membership);
        let members = &mut self.groups[seat.group].members;
        members.swap_remove(position as usize);
        if members.capacity() > MEMBERS_KEPT && members.len() < members.capacity() / 4 {
            members.shrink_to(2 * members.len());
        }
        if let Some(moved) = members.get(position as usize) {
            self.memberships[moved.membership].position = position;
        } else if members.is_empty() {
            self.groups.remove(seat.group);
        }
    }

    /// Ends a membership on its slot's side; the group's side is left to the caller.
    fn unlist(&mut self, membership: u32) -> Membership {
        let ended = self.memberships.remove(membership);
        let last = self.slot(ended.seat.slot).memberships;
        if membership == last {
            self.slot_mut(ended.seat.slot).memberships = ended.next;
            if ended.next != NONE {
                self.memberships[ended.next].prev = ended.prev - 1;
            }
            return ended;
        }
        self.memberships[last].prev -= 1;
        self.memberships[ended.prev].next = ended.next;
        if ended.next != NONE {
            self.memberships[ended.next].prev = ended.prev;
        }
        ended
    }

    fn check_users(&self) {
        let mut bound = 0;
        for (id, user) in self.users.iter() {
            assert!(is_name(&user.name), "a user has the name {:?}", user.name);
            assert_ne!(user.count, 0, "{} is kept without a slot", user.name);
            let mut newer = NONE;
            for slot in self.slots_from(user.first).take(user.count as usize) {
                assert_eq!((self.slot(slot).user, self.slot(slot).prev), (id, newer), "links of slot {slot}");
                newer = slot;
                bound += 1;
            }
            assert_eq!(self.slot(newer).next, NONE, "{} has more slots than it counts", user.name);
        }
        assert_eq!(self.slots.iter().filter(|slot| slot.user != NONE).count(), bound, "slots bound to no user");
    }

    fn check_groups(&self) {
        let mut seated = 0;
        for (id, group) in self.groups.iter() {
            assert!(is_name(&group.name), "a group has the name {:?}", group.name);
            assert!(!group.members.is_empty(), "{} is kept without a member", group.name);
            for (position, member) in group.members.iter().enumerate() {
                let membership = self.memberships[member.membership];
                assert_eq!(membership.seat, Seat { slot: member.slot, group: id }, "seat in {}", group.name);
                assert_eq!(membership.position as usize, position, "position in {}", group.name);
                seated += 1;
            }
        }
        assert_eq!(self.memberships.len(), seated, "memberships of no group");

        let mut listed = 0;
        for (slot, entry) in self.slots.iter().enumerate() {
            let mut newer = directory::id(self.groups_of(slot as u32).count());
            let mut next = entry.memberships;
            while let Some(id) = some(next) {
                let membership = self.memberships[id];
                assert_eq!((membership.seat.slot as usize, membership.prev), (slot, newer), "links of membership {id}");
                (newer, next) = (id, membership.next);
                listed += 1;
            }
        }
        assert_eq!(self.memberships.len(), listed, "memberships of no slot");
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl Slot {
    const BLANK: Slot = Slot { user: NONE, prev: NONE, next: NONE, memberships: NONE };
}

impl User {
    fn new(name: &str) -> User {
        User { name: name.into(), first: NONE, count: 0 }
    }
}

impl Group {
    fn new(name: &str) -> Group {
        Group { name: name.into(), members: Vec::with_capacity(1) }
    }
}

impl Keyed for User {
    type Key = str;

    fn key(&self) -> &str {
        &self.name
    }
}

impl Keyed for Group {
    type Key = str;

    fn key(&self) -> &str {
        &self.name
    }
}

impl Keyed for Membership {
    type Key = Seat;

    fn key(&self) -> &Seat {
        &self.seat
    }
}

/// Whether it can be a uid or group name: 1 to [`NAME_BYTES_MAX`] bytes.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

fn some(link: u32) -> Option<u32> {
    (link != NONE).then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Binds under a policy and says who was kicked.
    fn bind(registry: &mut Registry, slot: u32, uid: &str, policy: SecondLogin) -> (Change, Vec<u32>) {
        let mut kicked = Vec::new();
        let change = registry.bind(slot, uid, policy, &mut kicked);
        registry.check_invariants();
        (change, kicked)
    }

    fn slots_of(registry: &Registry, uid: &str) -> Vec<u32> {
        registry.slots_of(uid).collect()
    }

    #[test]
    fn a_uid_has_many_slots_and_a_slot_one_uid() {
        let mut registry = Registry::new();
        for slot in [3, 0, 8] {
            assert_eq!(bind(&mut registry, slot, "ann", SecondLogin::Multi), (Change::Done, vec![]));
        }
        assert_eq!(slots_of(&registry, "ann"), [8, 0, 3]);
        assert_eq!(bind(&mut registry, 0, "ann", SecondLogin::Multi), (Change::Already, vec![]));
        assert_eq!(bind(&mut registry, 0, "bob", SecondLogin::Multi), (Change::Done, vec![]));
        assert_eq!(slots_of(&registry, "ann"), [8, 3]);
        assert_eq!(registry.uid_of(0), Some("bob"));
        assert_eq!((registry.count_of("ann"), registry.count_of("bob"), registry.count_of("eve")), (2, 1, 0));
    }

    #[test]
    fn kick_old_names_the_others_and_leaves_them_bound() {
        let mut registry = Registry::new();
        for slot in 0..3 {
            bind(&mut registry, slot, "ann", SecondLogin::Multi);
        }
        assert_eq!(bind(&mut registry, 9, "ann", SecondLogin::KickOld), (Change::Done, vec![2, 1, 0]));
        assert_eq!(slots_of(&registry, "ann"), [9, 2, 1, 0]);
        assert_eq!(bind(&mut registry, 1, "ann", SecondLogin::KickOld), (Change::Already, vec![]));
    }

    #[test]
    fn reject_new_changes_nothing() {
        let mut registry = Registry::new();
        assert_eq!(bind(&mut registry, 0, "ann", SecondLogin::RejectNew).0, Change::Done);
        assert_eq!(bind(&mut registry, 0, "ann", SecondLogin::RejectNew).0, Change::Already);
        bind(&mut registry, 1, "bob", SecondLogin::RejectNew);
        assert_eq!(bind(&mut registry, 1, "ann", SecondLogin::RejectNew).0, Change::Taken);
        assert_eq!(registry.uid_of(1), Some("bob"));
        registry.remove(0);
        assert_eq!(bind(&mut registry, 1, "ann", SecondLogin::RejectNew).0, Change::Done);
        assert_eq!(registry.count_of("bob"), 0);
    }

    #[test]
    fn a_page_refresh_never_looks_offline() {
        let mut registry = Registry::new();
        bind(&mut registry, 0, "ann", SecondLogin::Multi);
        bind(&mut registry, 1, "ann", SecondLogin::Multi);
        registry.remove(0);
        assert_eq!(slots_of(&registry, "ann"), [1]);
    }

    #[test]
    fn names_have_1_to_128_bytes() {
        let mut registry = Registry::new();
        let longest = "é".repeat(NAME_BYTES_MAX / 2);
        let too_long = format!("{longest}x");
        for (name, change) in [("", Change::BadName), (&too_long, Change::BadName), (&longest, Change::Done)] {
            assert_eq!(bind(&mut registry, 0, name, SecondLogin::Multi).0, change);
            assert_eq!(registry.join(0, name), change);
            assert_eq!(registry.is_member(0, name), change.is_done());
            assert_eq!(registry.leave(0, name), change);
        }
        assert_eq!(registry.uid_of(0), Some(longest.as_str()));
    }

    #[test]
    fn a_departing_slot_tells_and_leaves_nothing() {
        let mut registry = Registry::new();
        assert_eq!(registry.remove(7), Departed::default());
        bind(&mut registry, 5, "ann", SecondLogin::Multi);
        for group in ["red", "green", "blue"] {
            assert_eq!(registry.join(5, group), Change::Done);
        }
        registry.join(6, "green");
        let departed = registry.remove(5);
        registry.check_invariants();
        assert_eq!(departed.uid.as_deref(), Some("ann"));
        assert_eq!(departed.groups, ["blue", "green", "red"]);
        assert_eq!(registry.groups().collect::<Vec<_>>(), [("green", 1)]);
        assert_eq!((registry.user_count(), registry.group_count(), registry.membership_count()), (0, 1, 1));
        assert_eq!(registry.remove(5), Departed::default());
    }

    #[test]
    fn ungroup_ends_every_membership() {
        let mut registry = Registry::new();
        for slot in 0..5 {
            registry.join(slot, "all");
            registry.join(slot, if slot % 2 == 0 { "even" } else { "odd" });
        }
        assert_eq!(registry.ungroup("all"), 5);
        assert_eq!(registry.ungroup("all"), 0);
        registry.check_invariants();
        assert_eq!(registry.members("even").len(), 3);
        assert_eq!(registry.groups_of(1).collect::<Vec<_>>(), ["odd"]);
        assert_eq!(registry.join(4, "all"), Change::Done);
    }

    #[test]
    fn answers_do_not_borrow_the_names_they_were_asked_by() {
        let mut registry = Registry::new();
        bind(&mut registry, 1, "ann", SecondLogin::Multi);
        registry.join(1, "red");
        let slots = registry.slots_of(&String::from("ann"));
        let members = registry.members(&String::from("red"));
        assert!(slots.eq(members));
    }

    proptest! {
        #[test]
        fn registry_matches_naive(operations in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz_registry(&operations);
        }
    }
}
