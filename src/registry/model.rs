//! The registry's naive twin, and the interpreter that runs both side by side for proptest and the fuzzer.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Departed, NAME_BYTES_MAX, Registry, SecondLogin};

/// Small, so that operations meet; not dense, so that there are slots nobody ever named.
const SLOTS: [u32; 6] = [0, 1, 2, 5, 8, 300];

/// All that a registry is: two lists of pairs, the newest last, searched from end to end.
#[derive(Default)]
struct Twin {
    bound: Vec<(u32, String)>,
    joined: Vec<(u32, String)>,
}

/// How many operations go between two looks at the whole: most of a run's time would be spent looking. Nothing hides in
/// between, for the start of a list of operations is a list as well.
const LOOK_EVERY: usize = 8;

/// Runs the operations that the bytes spell on a registry and on its twin; panics where they differ.
pub fn fuzz_registry(data: &[u8]) {
    let names = names();
    let mut registry = Registry::new();
    let mut twin = Twin::default();
    let mut bytes = data.iter().copied();
    let mut steps = 0_usize;
    while let Some(operation) = bytes.next() {
        let slot = SLOTS[usize::from(bytes.next().unwrap_or(0)) % SLOTS.len()];
        let name = &names[usize::from(bytes.next().unwrap_or(0)) % names.len()];
        step(&mut registry, &mut twin, operation, slot, name);
        steps += 1;
        if steps.is_multiple_of(LOOK_EVERY) {
            compare(&registry, &twin, &names);
        }
    }
    compare(&registry, &twin, &names);
}

fn step(registry: &mut Registry, twin: &mut Twin, operation: u8, slot: u32, name: &str) {
    match operation % 8 {
        0 => both_bind(registry, twin, slot, name, SecondLogin::Multi),
        1 => both_bind(registry, twin, slot, name, SecondLogin::KickOld),
        2 => both_bind(registry, twin, slot, name, SecondLogin::RejectNew),
        3 => assert_eq!(registry.unbind(slot), twin.unbind(slot), "unbind {slot}"),
        4 => assert_eq!(registry.join(slot, name), twin.join(slot, name), "join {slot} {name}"),
        5 => assert_eq!(registry.leave(slot, name), twin.leave(slot, name), "leave {slot} {name}"),
        6 => assert_eq!(registry.remove(slot), twin.remove(slot), "remove {slot}"),
        _ => assert_eq!(registry.ungroup(name), twin.ungroup(name), "ungroup {name}"),
    }
}

fn both_bind(registry: &mut Registry, twin: &mut Twin, slot: u32, uid: &str, policy: SecondLogin) {
    let (mut kicked, mut twin_kicked) = (vec![77], vec![77]); // what was in it before stays
    let change = registry.bind(slot, uid, policy, &mut kicked);
    assert_eq!(change, twin.bind(slot, uid, policy, &mut twin_kicked), "bind {slot} {uid} {policy:?}");
    assert_eq!(kicked, twin_kicked, "kicked by bind {slot} {uid} {policy:?}");
}

fn compare(registry: &Registry, twin: &Twin, names: &[String]) {
    registry.check_invariants();
    for slot in SLOTS {
        assert_eq!(registry.uid_of(slot), twin.uid_of(slot), "uid of {slot}");
        assert!(registry.groups_of(slot).eq(twin.groups_of(slot)), "groups of {slot}");
        assert_eq!(registry.group_count_of(slot), twin.groups_of(slot).count(), "count of groups of {slot}");
    }
    for name in names {
        assert!(registry.slots_of(name).eq(twin.slots_of(name)), "slots of {name}");
        assert_eq!(registry.count_of(name), twin.slots_of(name).count(), "count of {name}");
        let members = twin.members(name);
        assert_eq!(registry.members(name).len(), members.len(), "members of {name}");
        assert_eq!(registry.members(name).collect::<BTreeSet<u32>>(), members, "members of {name}");
        for slot in SLOTS {
            assert_eq!(registry.is_member(slot, name), members.contains(&slot), "member {slot} of {name}");
        }
    }
    let (users, groups) = (counted(&twin.bound), counted(&twin.joined));
    assert_eq!(registry.user_count(), users.len(), "user count");
    assert_eq!(registry.group_count(), groups.len(), "group count");
    assert_eq!(registry.membership_count(), twin.joined.len(), "membership count");
    assert_eq!(registry.users().collect::<BTreeMap<_, _>>(), users, "users");
    assert_eq!(registry.groups().collect::<BTreeMap<_, _>>(), groups, "groups");
}

/// How many pairs each name is in.
fn counted(pairs: &[(u32, String)]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (_, name) in pairs {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

impl Twin {
    fn bind(&mut self, slot: u32, uid: &str, policy: SecondLogin, kicked: &mut Vec<u32>) -> Change {
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

    fn unbind(&mut self, slot: u32) -> Change {
        changed(&mut self.bound, |pair| pair.0 == slot)
    }

    fn uid_of(&self, slot: u32) -> Option<&str> {
        self.bound.iter().find(|pair| pair.0 == slot).map(|pair| pair.1.as_str())
    }

    fn slots_of(&self, uid: &str) -> impl Iterator<Item = u32> {
        self.bound.iter().rev().filter(move |pair| pair.1 == uid).map(|pair| pair.0)
    }

    fn join(&mut self, slot: u32, group: &str) -> Change {
        if !(1..=128).contains(&group.len()) {
            return Change::BadName;
        }
        if self.members(group).contains(&slot) {
            return Change::Already;
        }
        self.joined.push((slot, group.to_owned()));
        Change::Done
    }

    fn leave(&mut self, slot: u32, group: &str) -> Change {
        if !(1..=128).contains(&group.len()) {
            return Change::BadName;
        }
        changed(&mut self.joined, |pair| pair.0 == slot && pair.1 == group)
    }

    fn members(&self, group: &str) -> BTreeSet<u32> {
        self.joined.iter().filter(|pair| pair.1 == group).map(|pair| pair.0).collect()
    }

    fn groups_of(&self, slot: u32) -> impl Iterator<Item = &str> {
        self.joined.iter().rev().filter(move |pair| pair.0 == slot).map(|pair| pair.1.as_str())
    }

    fn ungroup(&mut self, group: &str) -> usize {
        let members = self.members(group).len();
        self.joined.retain(|pair| pair.1 != group);
        members
    }

    fn remove(&mut self, slot: u32) -> Departed {
        let departed =
            Departed { uid: self.uid_of(slot).map(Into::into), groups: self.groups_of(slot).map(Into::into).collect() };
        self.bound.retain(|pair| pair.0 != slot);
        self.joined.retain(|pair| pair.0 != slot);
        departed
    }
}

/// Removes the pairs that match; whether there were any.
fn changed(pairs: &mut Vec<(u32, String)>, matches: impl Fn(&(u32, String)) -> bool) -> Change {
    let before = pairs.len();
    pairs.retain(|pair| !matches(pair));
    if pairs.len() < before { Change::Done } else { Change::Already }
}

/// Names inline and on the heap, at the limit and beyond, in more than one script; and none.
fn names() -> Vec<String> {
    let mut names: Vec<String> = ["a", "b", "10010", "Zoë", "小明", ""].map(String::from).into();
    names.extend([24, 25, NAME_BYTES_MAX, NAME_BYTES_MAX + 1].map(|bytes| "x".repeat(bytes)));
    names
}
