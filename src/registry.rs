//! The registry: uids of connections, and members of groups.
//!
//! The registry identifies a connection by its slot. The module does not use connections, fds, queues or limits.
//!
//! Data structure: the slots of a user form a doubly linked list, whose links are fields of [`SlotEntry`]. The
//! memberships of a slot form a doubly linked list, whose links are fields of [`Membership`]. A membership also stores
//! its position in the array of its group. So the removal of a slot searches no list: it takes one step for each
//! membership of the slot, however large the groups are.
//!
//! A user exists while a slot is bound to its uid. A group exists while it has a member. The memory of an unused name
//! is freed, because clients choose uids and group names, and could otherwise fill the memory with names.

mod arena;
mod change;
mod keyed_arena;
#[cfg(any(test, feature = "unstable"))]
mod model;
mod names;
mod scan;
#[cfg(test)]
mod tests;

use std::{iter, mem};

use compact_str::CompactString;
use siphasher::sip::SipHasher13;

use keyed_arena::{Key, Keyed, KeyedArena};

use crate::fd::Slot;

pub use change::{Change, FormerNames, SecondLogin};
#[cfg(any(test, feature = "unstable"))]
pub use model::fuzz_registry;
pub use names::{NAME_BYTES_MAX, is_name};
pub use scan::ScanCursor;

const _: () = assert!(size_of::<SlotEntry>() == 16);
const _: () = assert!(size_of::<User>() == 32);
const _: () = assert!(size_of::<Membership>() == 20);
const _: () = assert!(size_of::<Member>() == 8);
// A uid of up to 24 bytes is stored inside its `User`. A connection with its own uid costs one slot entry, one user,
// and one entry of five bytes in a hash index. The index is at least 7/16 full while it grows. So such a connection
// takes less than 60 bytes, without the unused capacity of vectors.
const _: () = assert!(size_of::<SlotEntry>() + size_of::<User>() + 5 * 16 / 7 < 60);

/// The capacity, in members, up to which the array of a group is never shrunk.
const MEMBERS_KEPT: usize = 16;

/// The value that stands for no slot, no user or no membership.
const NONE: u32 = u32::MAX;

const NO_SLOT: Slot = Slot(NONE);

/// The uids and groups of the connections of one loop.
///
/// For every push, the registry returns the slots of a uid or the members of a group. These results are exact only if
/// the caller reports every connection, in this order:
///
/// 1. The connection opens. No call is needed: a slot that was never mentioned has no uid and no groups.
/// 2. The client logs in: [`bind`](Registry::bind). With [`SecondLogin::KickOld`] the caller then closes the slots in
///    `kicked`. These slots stay bound until step 4, so that their close events can name the uid.
/// 3. The client joins and leaves groups: [`join`](Registry::join), [`leave`](Registry::leave),
///    [`ungroup`](Registry::ungroup). The registry has no limits of its own. A caller with limits compares
///    [`group_count_of`](Registry::group_count_of) and [`membership_count`](Registry::membership_count) before `join`.
/// 4. The connection ends: [`remove`](Registry::remove), once, before the slot is reused. Otherwise the next connection
///    in this slot would have the uid and the groups of the ended connection. The result of `remove` has the uid and
///    the groups for the close event.
///
/// The returned iterators borrow the registry. So a caller that closes the connections of an iterator first collects
/// their slots.
///
/// ```text
/// let mut kicked = Vec::new();
/// registry.bind(Slot(0), "10010", SecondLogin::KickOld, &mut kicked);    // Done; kicked is []
/// registry.join(Slot(0), "news");                                        // Done
/// registry.bind(Slot(1), "10010", SecondLogin::KickOld, &mut kicked);    // Done; kicked is [Slot(0)]
/// registry.slots_of("10010");                                            // Slot(1), Slot(0)
/// registry.remove(Slot(0));                                              // uid 10010, groups [news]
/// registry.slots_of("10010");                                            // Slot(1)
/// ```
///
/// The test `the_example_of_the_documentation` runs this example.
#[derive(Debug)]
pub struct Registry {
    /// The entries of the slots, indexed by slot.
    ///
    /// The vector grows to the largest slot that was ever bound or joined.
    slots: Vec<SlotEntry>,
    users: KeyedArena<User>,
    groups: KeyedArena<Group>,
    memberships: KeyedArena<Membership>,
}

/// The user and the newest membership of one slot.
#[derive(Copy, Clone, Debug)]
struct SlotEntry {
    /// The id of the user to which the slot is bound, or `NONE`.
    user: u32,
    /// The slot of the same user that was bound next after this slot, or `NO_SLOT`.
    prev: Slot,
    /// The slot of the same user that was bound last before this slot, or `NO_SLOT`.
    next: Slot,
    /// The id of the slot's newest membership, or `NONE`.
    memberships: u32,
}

#[derive(Debug)]
struct User {
    name: CompactString,
    /// The slot of the user that was bound last.
    first: Slot,
    /// The number of slots that are bound to the uid of the user, at least 1.
    count: u32,
}

#[derive(Debug)]
struct Group {
    name: CompactString,
    /// The members, at least one, in no particular order.
    ///
    /// The array has no gaps, so that a fan-out reads consecutive memory.
    members: Vec<Member>,
}

#[derive(Copy, Clone, Debug)]
struct Member {
    slot: Slot,
    membership: u32,
}

#[derive(Copy, Clone, Debug)]
struct Membership {
    key: MembershipKey,
    /// The index of this member in the group's `members`.
    position: u32,
    /// The id of the membership that the same slot got next after this membership.
    ///
    /// In the newest membership of a slot, this field contains the number of the slot's memberships instead.
    prev: u32,
    /// The id of the membership that the same slot got last before this membership, or `NONE`.
    next: u32,
}

/// The key of a membership: its slot and its group.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct MembershipKey {
    slot: Slot,
    group: u32,
}

impl Registry {
    /// Creates an empty registry.
    pub fn new() -> Registry {
        Registry {
            slots: Vec::new(),
            users: KeyedArena::new(),
            groups: KeyedArena::new(),
            memberships: KeyedArena::new(),
        }
    }

    /// Reserves address space for this many slots.
    pub fn reserve(&mut self, slots: usize) {
        self.slots.reserve_exact(slots);
    }

    /// Binds the slot to a uid.
    ///
    /// The new uid replaces the slot's earlier uid. With [`SecondLogin::KickOld`], the other slots of the uid are
    /// appended to `kicked`, the slot that was bound last first. These slots stay bound: the caller closes their
    /// connections, and then calls [`remove`](Registry::remove). If the slot is bound to this uid already, `kicked`
    /// stays empty, so a repeated bind of a kicked connection has no effect.
    ///
    /// If the result is not [`Change::Done`], nothing has changed. The result is [`Change::Already`] if the slot is
    /// bound to this uid. The result is [`Change::Taken`] if another slot is bound to this uid, and the policy is
    /// [`SecondLogin::RejectNew`]. The result is [`Change::BadName`] if [`is_name`] is `false` for the uid.
    pub fn bind(&mut self, slot: Slot, uid: &str, policy: SecondLogin, kicked: &mut Vec<Slot>) -> Change {
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
        self.link_slot(slot, user);
        Change::Done
    }

    /// Removes the slot's uid.
    ///
    /// The result is [`Change::Done`], or [`Change::Already`] if the slot has no uid.
    pub fn unbind(&mut self, slot: Slot) -> Change {
        let SlotEntry { user, prev, next, .. } = self.slot(slot);
        if user == NONE {
            return Change::Already;
        }
        if next != NO_SLOT {
            self.slot_mut(next).prev = prev;
        }
        if prev != NO_SLOT {
            self.slot_mut(prev).next = next;
        } else {
            self.users[user].first = next;
        }
        let unbound = self.slot_mut(slot);
        (unbound.user, unbound.prev, unbound.next) = (NONE, NO_SLOT, NO_SLOT);
        self.users[user].count -= 1;
        if self.users[user].count == 0 {
            self.users.remove(user);
        }
        Change::Done
    }

    /// Returns the uid of the slot.
    pub fn uid_of(&self, slot: Slot) -> Option<&str> {
        link(self.slot(slot).user).map(|user| self.users[user].name.as_str())
    }

    /// Returns the slots of a uid. The slot that was bound last comes first.
    pub fn slots_of(&self, uid: &str) -> impl Iterator<Item = Slot> + use<'_> {
        self.slots_from(self.users.get(uid).map_or(NO_SLOT, |user| user.first))
    }

    /// Returns the slot of a uid if the uid has exactly one slot.
    #[inline(always)]
    pub fn only_slot_of(&self, uid: &str) -> Option<Slot> {
        self.users.get(uid).filter(|user| user.count == 1).map(|user| user.first)
    }

    /// Returns the number of slots of a uid.
    ///
    /// The result 0 means that the user is offline. The call takes O(1) time.
    pub fn count_of(&self, uid: &str) -> usize {
        self.users.get(uid).map_or(0, |user| user.count as usize)
    }

    /// Adds the slot to a group.
    ///
    /// The first member creates the group. The result is [`Change::Already`] if the slot is a member already, and
    /// [`Change::BadName`] if [`is_name`] is `false` for the name.
    pub fn join(&mut self, slot: Slot, group: &str) -> Change {
        if !is_name(group) {
            return Change::BadName;
        }
        let found = self.groups.find(group);
        if found.is_some_and(|group| self.memberships.find(&MembershipKey { slot, group }).is_some()) {
            return Change::Already;
        }
        let group = found.unwrap_or_else(|| self.groups.insert(Group::new(group)));
        self.insert_membership(MembershipKey { slot, group });
        Change::Done
    }

    /// Returns the number of groups of the slot.
    ///
    /// The call takes O(1) time.
    pub fn group_count_of(&self, slot: Slot) -> usize {
        link(self.slot(slot).memberships).map_or(0, |newest| self.memberships[newest].prev as usize)
    }

    /// Removes the slot from a group.
    ///
    /// The result is [`Change::Already`] if the slot is not a member, and [`Change::BadName`] if [`is_name`] is `false`
    /// for the name.
    pub fn leave(&mut self, slot: Slot, group: &str) -> Change {
        if !is_name(group) {
            return Change::BadName;
        }
        match self.membership(slot, group) {
            Some(membership) => {
                self.remove_membership(membership);
                Change::Done
            }
            None => Change::Already,
        }
    }

    /// Returns whether the slot is a member of a group.
    pub fn is_member(&self, slot: Slot, group: &str) -> bool {
        self.membership(slot, group).is_some()
    }

    /// Removes a group and returns the number of its members.
    ///
    /// The call takes O(members) time.
    pub fn ungroup(&mut self, group: &str) -> usize {
        let Some(group) = self.groups.find(group) else {
            return 0;
        };
        let Group { members, .. } = self.groups.remove(group);
        for member in &members {
            self.unlink_membership(member.membership);
        }
        members.len()
    }

    /// Returns the members of a group, each once, in no particular order.
    pub fn members(&self, group: &str) -> impl ExactSizeIterator<Item = Slot> + use<'_> {
        let members = self.groups.get(group).map_or(&[][..], |group| &group.members);
        members.iter().map(|member| member.slot)
    }

    /// Returns the groups of the slot. The group that the slot joined last comes first.
    pub fn groups_of(&self, slot: Slot) -> impl Iterator<Item = &str> + '_ {
        let newest = link(self.slot(slot).memberships);
        iter::successors(newest, |&id| link(self.memberships[id].next))
            .map(|id| self.groups[self.memberships[id].key.group].name.as_str())
    }

    /// Removes the uid and all groups of the slot, and returns them.
    ///
    /// The call takes O(groups of the slot) time, and does not allocate for a slot without uid and groups.
    pub fn remove(&mut self, slot: Slot) -> FormerNames {
        let names = FormerNames {
            uid: self.uid_of(slot).map(CompactString::from),
            groups: self.groups_of(slot).map(CompactString::from).collect(),
        };
        self.unbind(slot);
        while let Some(membership) = link(self.slot(slot).memberships) {
            self.remove_membership(membership);
        }
        names
    }

    /// Returns each uid with the number of its slots, in no particular order.
    pub fn users(&self) -> impl Iterator<Item = (&str, usize)> + '_ {
        self.users.iter().map(|(_, user)| (user.name.as_str(), user.count as usize))
    }

    /// Returns each group with the number of its members, in no particular order.
    pub fn groups(&self) -> impl Iterator<Item = (&str, usize)> + '_ {
        self.groups.iter().map(|(_, group)| (group.name.as_str(), group.members.len()))
    }

    /// Returns the number of uids in O(1) time.
    pub fn user_count(&self) -> usize {
        self.users.len()
    }

    /// Returns the number of groups in O(1) time.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Returns the number of memberships in all groups in O(1) time.
    pub fn membership_count(&self) -> usize {
        self.memberships.len()
    }

    /// Panics if the data structure is inconsistent.
    ///
    /// This check takes O(n) time, and is for tests and debug builds.
    pub fn check_invariants(&self) {
        self.users.check_invariants();
        self.groups.check_invariants();
        self.memberships.check_invariants();
        self.check_users();
        self.check_groups();
    }

    fn slot(&self, slot: Slot) -> SlotEntry {
        self.slots.get(slot.index()).copied().unwrap_or(SlotEntry::UNUSED)
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut SlotEntry {
        assert_ne!(slot, NO_SLOT, "the slot {slot} must not be the reserved value NO_SLOT");
        let index = slot.index();
        if self.slots.len() <= index {
            self.slots.resize(index + 1, SlotEntry::UNUSED);
        }
        &mut self.slots[index]
    }

    /// Returns the slot `first` of a user, and the slots of this user that were bound before it. The slot that was
    /// bound last comes first.
    fn slots_from(&self, first: Slot) -> impl Iterator<Item = Slot> + use<'_> {
        iter::successors(slot_link(first), |&slot| slot_link(self.slot(slot).next))
    }

    fn membership(&self, slot: Slot, group: &str) -> Option<u32> {
        let group = self.groups.find(group)?;
        self.memberships.find(&MembershipKey { slot, group })
    }

    /// Inserts an unbound slot at the start of a user's list.
    fn link_slot(&mut self, slot: Slot, user: u32) {
        let entry = &mut self.users[user];
        let next = mem::replace(&mut entry.first, slot);
        entry.count += 1;
        if next != NO_SLOT {
            self.slot_mut(next).prev = slot;
        }
        let bound = self.slot_mut(slot);
        (bound.user, bound.next) = (user, next);
    }

    /// Inserts a new membership into the list of its slot and the array of its group.
    fn insert_membership(&mut self, key: MembershipKey) {
        let next = self.slot(key.slot).memberships;
        let position = keyed_arena::id(self.groups[key.group].members.len());
        let count = keyed_arena::id(self.group_count_of(key.slot) + 1);
        let membership = self.memberships.insert(Membership { key, position, prev: count, next });
        if next != NONE {
            self.memberships[next].prev = membership;
        }
        self.slot_mut(key.slot).memberships = membership;
        self.groups[key.group].members.push(Member { slot: key.slot, membership });
    }

    /// Removes a membership from the list of its slot and the array of its group.
    ///
    /// The last member of the array moves to the freed position. A group without members is removed.
    fn remove_membership(&mut self, membership: u32) {
        let Membership { key, position, .. } = self.unlink_membership(membership);
        let members = &mut self.groups[key.group].members;
        members.swap_remove(position as usize);
        if members.capacity() > MEMBERS_KEPT && members.len() < members.capacity() / 4 {
            members.shrink_to(2 * members.len());
        }
        if let Some(moved) = members.get(position as usize) {
            self.memberships[moved.membership].position = position;
        } else if members.is_empty() {
            self.groups.remove(key.group);
        }
    }

    /// Removes a membership from the list of its slot.
    ///
    /// The caller removes the membership from its group.
    fn unlink_membership(&mut self, membership: u32) -> Membership {
        let ended = self.memberships.remove(membership);
        let last = self.slot(ended.key.slot).memberships;
        if membership == last {
            self.slot_mut(ended.key.slot).memberships = ended.next;
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
            assert!(is_name(&user.name), "the uid {:?} must have a valid length", user.name);
            assert_ne!(user.count, 0, "user {} must have a slot", user.name);
            let mut newer = NO_SLOT;
            for slot in self.slots_from(user.first).take(user.count as usize) {
                assert_eq!(
                    (self.slot(slot).user, self.slot(slot).prev),
                    (id, newer),
                    "slot {slot} must store its user and the slot that was bound after it"
                );
                newer = slot;
                bound += 1;
            }
            assert_eq!(self.slot(newer).next, NO_SLOT, "the list of user {} must have `count` slots", user.name);
        }
        assert_eq!(
            self.slots.iter().filter(|slot| slot.user != NONE).count(),
            bound,
            "each slot with a user must be in the list of this user"
        );
    }

    fn check_groups(&self) {
        let mut found = 0;
        for (id, group) in self.groups.iter() {
            assert!(is_name(&group.name), "the group name {:?} must have a valid length", group.name);
            assert!(!group.members.is_empty(), "group {} must have a member", group.name);
            for (position, member) in group.members.iter().enumerate() {
                let membership = self.memberships[member.membership];
                assert_eq!(
                    membership.key,
                    MembershipKey { slot: member.slot, group: id },
                    "a membership must store its slot and its group {}",
                    group.name
                );
                assert_eq!(
                    membership.position as usize, position,
                    "a membership must store its position in group {}",
                    group.name
                );
                found += 1;
            }
        }
        assert_eq!(self.memberships.len(), found, "each membership must be in a group");

        let mut listed = 0;
        for (slot, entry) in self.slots.iter().enumerate() {
            let mut newer = keyed_arena::id(self.groups_of(Slot(slot as u32)).count());
            let mut next = entry.memberships;
            while let Some(id) = link(next) {
                let membership = self.memberships[id];
                assert_eq!(
                    (membership.key.slot.index(), membership.prev),
                    (slot, newer),
                    "membership {id} must store its slot, and the membership after it or the number of memberships"
                );
                (newer, next) = (id, membership.next);
                listed += 1;
            }
        }
        assert_eq!(self.memberships.len(), listed, "each membership must be in the list of a slot");
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl SlotEntry {
    const UNUSED: SlotEntry = SlotEntry { user: NONE, prev: NO_SLOT, next: NO_SLOT, memberships: NONE };
}

impl User {
    fn new(name: &str) -> User {
        User { name: name.into(), first: NO_SLOT, count: 0 }
    }
}

impl Group {
    fn new(name: &str) -> Group {
        Group { name: name.into(), members: Vec::with_capacity(1) }
    }
}

impl Key for str {
    #[inline]
    fn hash(&self, hasher: &SipHasher13) -> u64 {
        hasher.hash(self.as_bytes())
    }
}

impl Key for MembershipKey {
    #[inline]
    fn hash(&self, hasher: &SipHasher13) -> u64 {
        let number = u64::from(self.slot.0) << 32 | u64::from(self.group);
        hasher.hash(&number.to_ne_bytes())
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
    type Key = MembershipKey;

    fn key(&self) -> &MembershipKey {
        &self.key
    }
}

/// Converts a stored link to an `Option`.
fn link(stored: u32) -> Option<u32> {
    (stored != NONE).then_some(stored)
}

fn slot_link(stored: Slot) -> Option<Slot> {
    (stored != NO_SLOT).then_some(stored)
}
