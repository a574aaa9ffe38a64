//! A simple, slow model of the registry, for comparison.
//!
//! The property test and the fuzz target use the same function, which runs operations on the registry and on the model.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, FormerNames, NAME_BYTES_MAX, Registry, SecondLogin};
use crate::fd::Slot;

/// The slots that the operations use.
///
/// There are few slots, so that operations often use the same slot. The slots have gaps, so that some slots are never
/// used.
const SLOTS: [Slot; 6] = [Slot(0), Slot(1), Slot(2), Slot(5), Slot(8), Slot(300)];

/// The model: two lists of pairs (slot, name), the newest pair last.
#[derive(Default)]
struct NaiveRegistry {
    bound: Vec<(Slot, String)>,
    joined: Vec<(Slot, String)>,
}

/// The number of operations between two complete comparisons of the registry and the model.
///
/// Comparisons take most of the run time. Each run also ends with a comparison, and every prefix of a list of operations is
/// a run of its own. So a difference that disappears before the next comparison is found, too.
const COMPARE_EVERY: usize = 8;

/// Runs encoded operations on a registry and on the model.
///
/// Panics if the registry and the model differ.
pub fn fuzz_registry(data: &[u8]) {
    let names = names();
    let mut registry = Registry::new();
    let mut naive = NaiveRegistry::default();
    let mut bytes = data.iter().copied();
    let mut steps = 0_usize;
    while let Some(operation) = bytes.next() {
        let slot = SLOTS[usize::from(bytes.next().unwrap_or(0)) % SLOTS.len()];
        let name = &names[usize::from(bytes.next().unwrap_or(0)) % names.len()];
        step(&mut registry, &mut naive, operation, slot, name);
        steps += 1;
        if steps.is_multiple_of(COMPARE_EVERY) {
            compare(&registry, &naive, &names);
        }
    }
    compare(&registry, &naive, &names);
}

fn step(registry: &mut Registry, naive: &mut NaiveRegistry, operation: u8, slot: Slot, name: &str) {
    match operation % 8 {
        0 => both_bind(registry, naive, slot, name, SecondLogin::Multi),
        1 => both_bind(registry, naive, slot, name, SecondLogin::KickOld),
        2 => both_bind(registry, naive, slot, name, SecondLogin::RejectNew),
        3 => assert_eq!(
            registry.unbind(slot),
            naive.unbind(slot),
            "unbind {slot} must have the same result in the registry and the model"
        ),
        4 => assert_eq!(
            registry.join(slot, name),
            naive.join(slot, name),
            "join {slot} {name} must have the same result in the registry and the model"
        ),
        5 => assert_eq!(
            registry.leave(slot, name),
            naive.leave(slot, name),
            "leave {slot} {name} must have the same result in the registry and the model"
        ),
        6 => assert_eq!(
            registry.remove(slot),
            naive.remove(slot),
            "remove {slot} must have the same result in the registry and the model"
        ),
        _ => assert_eq!(
            registry.ungroup(name),
            naive.ungroup(name),
            "ungroup {name} must have the same result in the registry and the model"
        ),
    }
}

fn both_bind(registry: &mut Registry, naive: &mut NaiveRegistry, slot: Slot, uid: &str, policy: SecondLogin) {
    let (mut kicked, mut naive_kicked) = (vec![Slot(77)], vec![Slot(77)]); // bind must keep earlier elements
    let change = registry.bind(slot, uid, policy, &mut kicked);
    assert_eq!(
        change,
        naive.bind(slot, uid, policy, &mut naive_kicked),
        "bind {slot} {uid} {policy:?} must have the same result in the registry and the model"
    );
    assert_eq!(
        kicked, naive_kicked,
        "bind {slot} {uid} {policy:?} must kick the same connections in the registry and the model"
    );
}

fn compare(registry: &Registry, naive: &NaiveRegistry, names: &[String]) {
    registry.check_invariants();
    for slot in SLOTS {
        assert_eq!(
            registry.uid_of(slot),
            naive.uid_of(slot),
            "{slot} must have the same uid in the registry and the model"
        );
        assert!(
            registry.groups_of(slot).eq(naive.groups_of(slot)),
            "{slot} must have the same groups in the registry and the model"
        );
        assert_eq!(
            registry.group_count_of(slot),
            naive.groups_of(slot).count(),
            "{slot} must have the same number of groups in the registry and the model"
        );
    }
    for name in names {
        assert!(
            registry.slots_of(name).eq(naive.slots_of(name)),
            "{name} must have the same slots in the registry and the model"
        );
        assert_eq!(
            registry.count_of(name),
            naive.slots_of(name).count(),
            "{name} must have the same number of slots in the registry and the model"
        );
        let members = naive.members(name);
        assert_eq!(
            registry.members(name).len(),
            members.len(),
            "{name} must have the same number of members in the registry and the model"
        );
        assert_eq!(
            registry.members(name).collect::<BTreeSet<Slot>>(),
            members,
            "{name} must have the same members in the registry and the model"
        );
        for slot in SLOTS {
            assert_eq!(
                registry.is_member(slot, name),
                members.contains(&slot),
                "{slot} must be a member of {name} in the registry if and only if it is a member in the model"
            );
        }
    }
    let (users, groups) = (counted(&naive.bound), counted(&naive.joined));
    assert_eq!(registry.user_count(), users.len(), "the registry and the model must have the same number of users");
    assert_eq!(registry.group_count(), groups.len(), "the registry and the model must have the same number of groups");
    assert_eq!(
        registry.membership_count(),
        naive.joined.len(),
        "the registry and the model must have the same number of memberships"
    );
    assert_eq!(
        registry.users().collect::<BTreeMap<_, _>>(),
        users,
        "the registry and the model must have the same users"
    );
    assert_eq!(
        registry.groups().collect::<BTreeMap<_, _>>(),
        groups,
        "the registry and the model must have the same groups"
    );
}

/// Returns the number of pairs with each name.
fn counted(pairs: &[(Slot, String)]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (_, name) in pairs {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

impl NaiveRegistry {
    fn bind(&mut self, slot: Slot, uid: &str, policy: SecondLogin, kicked: &mut Vec<Slot>) -> Change {
        if !(1..=128).contains(&uid.len()) {
            return Change::BadName;
        }
        if self.uid_of(slot) == Some(uid) {
            return Change::Already;
        }
        if policy == SecondLogin::RejectNew && self.slots_of(uid).count() > 0 {
            return Change::Taken;
        }
        if policy == SecondLogin::KickOld {
            kicked.extend(self.slots_of(uid));
        }
        self.unbind(slot);
        self.bound.push((slot, uid.to_owned()));
        Change::Done
    }

    fn unbind(&mut self, slot: Slot) -> Change {
        remove_pairs(&mut self.bound, |pair| pair.0 == slot)
    }

    fn uid_of(&self, slot: Slot) -> Option<&str> {
        self.bound.iter().find(|pair| pair.0 == slot).map(|pair| pair.1.as_str())
    }

    fn slots_of(&self, uid: &str) -> impl Iterator<Item = Slot> {
        self.bound.iter().rev().filter(move |pair| pair.1 == uid).map(|pair| pair.0)
    }

    fn join(&mut self, slot: Slot, group: &str) -> Change {
        if !(1..=128).contains(&group.len()) {
            return Change::BadName;
        }
        if self.members(group).contains(&slot) {
            return Change::Already;
        }
        self.joined.push((slot, group.to_owned()));
        Change::Done
    }

    fn leave(&mut self, slot: Slot, group: &str) -> Change {
        if !(1..=128).contains(&group.len()) {
            return Change::BadName;
        }
        remove_pairs(&mut self.joined, |pair| pair.0 == slot && pair.1 == group)
    }

    fn members(&self, group: &str) -> BTreeSet<Slot> {
        self.joined.iter().filter(|pair| pair.1 == group).map(|pair| pair.0).collect()
    }

    fn groups_of(&self, slot: Slot) -> impl Iterator<Item = &str> {
        self.joined.iter().rev().filter(move |pair| pair.0 == slot).map(|pair| pair.1.as_str())
    }

    fn ungroup(&mut self, group: &str) -> usize {
        let members = self.members(group).len();
        self.joined.retain(|pair| pair.1 != group);
        members
    }

    fn remove(&mut self, slot: Slot) -> FormerNames {
        let names = FormerNames {
            uid: self.uid_of(slot).map(Into::into),
            groups: self.groups_of(slot).map(Into::into).collect(),
        };
        self.bound.retain(|pair| pair.0 != slot);
        self.joined.retain(|pair| pair.0 != slot);
        names
    }
}

/// Removes all matching pairs.
///
/// Returns `Done` if a pair was removed, else `Already`.
fn remove_pairs(pairs: &mut Vec<(Slot, String)>, matches: impl Fn(&(Slot, String)) -> bool) -> Change {
    let before = pairs.len();
    pairs.retain(|pair| !matches(pair));
    if pairs.len() < before { Change::Done } else { Change::Already }
}

/// Returns the uids and group names that the operations use.
///
/// Some names are short enough to be stored inline, and some are stored on the heap. One name is empty, one name has
/// the maximum length, and one name is longer than the maximum.
fn names() -> Vec<String> {
    let mut names: Vec<String> = ["a", "b", "10010", "Zoë", "小明", ""].map(String::from).into();
    names.extend([24, 25, NAME_BYTES_MAX, NAME_BYTES_MAX + 1].map(|bytes| "x".repeat(bytes)));
    names
}
