//! Unit tests of the registry, and a property test against the naive model.

use super::*;
use proptest::prelude::*;

/// Binds a slot and returns the result and the kicked slots.
fn bind(registry: &mut Registry, slot: Slot, uid: &str, policy: SecondLogin) -> (Change, Vec<Slot>) {
    let mut kicked = Vec::new();
    let change = registry.bind(slot, uid, policy, &mut kicked);
    registry.check_invariants();
    (change, kicked)
}

fn slots_of(registry: &Registry, uid: &str) -> Vec<Slot> {
    registry.slots_of(uid).collect()
}

#[test]
fn a_search_does_not_return_the_new_user_that_reuses_an_id() {
    let mut registry = Registry::new();
    for (slot, uid, former) in [(0, "ann", "bob"), (1, "bob", "ann"), (2, "ann", "bob")] {
        registry.bind(Slot(slot), uid, SecondLogin::Multi, &mut Vec::new());
        assert_eq!([registry.only_slot_of(uid), registry.only_slot_of(uid)], [Some(Slot(slot)); 2]);
        assert_eq!(registry.only_slot_of(former), None);
        registry.bind(Slot(9), uid, SecondLogin::Multi, &mut Vec::new());
        assert_eq!(registry.only_slot_of(uid), None, "only_slot_of must return no slot for a uid with two slots");
        // After both slots are removed, the id of the user is free, and the next uid gets this id.
        for slot in [slot, 9] {
            registry.remove(Slot(slot));
        }
        assert_eq!(registry.only_slot_of(uid), None);
    }
}

#[test]
fn a_uid_has_many_slots_and_a_slot_has_one_uid() {
    let mut registry = Registry::new();
    for slot in [3, 0, 8].map(Slot) {
        assert_eq!(bind(&mut registry, slot, "ann", SecondLogin::Multi), (Change::Done, vec![]));
    }
    assert_eq!(slots_of(&registry, "ann"), [8, 0, 3].map(Slot));
    assert_eq!(bind(&mut registry, Slot(0), "ann", SecondLogin::Multi), (Change::Already, vec![]));
    assert_eq!(bind(&mut registry, Slot(0), "bob", SecondLogin::Multi), (Change::Done, vec![]));
    assert_eq!(slots_of(&registry, "ann"), [8, 3].map(Slot));
    assert_eq!(registry.uid_of(Slot(0)), Some("bob"));
    assert_eq!((registry.count_of("ann"), registry.count_of("bob"), registry.count_of("eve")), (2, 1, 0));
}

#[test]
fn a_bind_with_kick_old_returns_the_other_slots_and_keeps_them_bound() {
    let mut registry = Registry::new();
    for slot in (0..3).map(Slot) {
        bind(&mut registry, slot, "ann", SecondLogin::Multi);
    }
    assert_eq!(bind(&mut registry, Slot(9), "ann", SecondLogin::KickOld), (Change::Done, [2, 1, 0].map(Slot).to_vec()));
    assert_eq!(slots_of(&registry, "ann"), [9, 2, 1, 0].map(Slot));
    assert_eq!(bind(&mut registry, Slot(1), "ann", SecondLogin::KickOld), (Change::Already, vec![]));
}

#[test]
fn a_bind_that_reject_new_refuses_does_not_change_the_registry() {
    let mut registry = Registry::new();
    assert_eq!(bind(&mut registry, Slot(0), "ann", SecondLogin::RejectNew).0, Change::Done);
    assert_eq!(bind(&mut registry, Slot(0), "ann", SecondLogin::RejectNew).0, Change::Already);
    bind(&mut registry, Slot(1), "bob", SecondLogin::RejectNew);
    assert_eq!(bind(&mut registry, Slot(1), "ann", SecondLogin::RejectNew).0, Change::Taken);
    assert_eq!(registry.uid_of(Slot(1)), Some("bob"));
    registry.remove(Slot(0));
    assert_eq!(bind(&mut registry, Slot(1), "ann", SecondLogin::RejectNew).0, Change::Done);
    assert_eq!(registry.count_of("bob"), 0);
}

#[test]
fn a_user_stays_online_if_the_new_connection_opens_before_the_old_one_ends() {
    let mut registry = Registry::new();
    bind(&mut registry, Slot(0), "ann", SecondLogin::Multi);
    bind(&mut registry, Slot(1), "ann", SecondLogin::Multi);
    registry.remove(Slot(0));
    assert_eq!(slots_of(&registry, "ann"), [1].map(Slot));
}

#[test]
fn names_have_1_to_128_bytes() {
    let mut registry = Registry::new();
    let longest = "é".repeat(NAME_BYTES_MAX / 2);
    let too_long = format!("{longest}x");
    for (name, change) in [("", Change::BadName), (&too_long, Change::BadName), (&longest, Change::Done)] {
        assert_eq!(bind(&mut registry, Slot(0), name, SecondLogin::Multi).0, change);
        assert_eq!(registry.join(Slot(0), name), change);
        assert_eq!(registry.is_member(Slot(0), name), change.is_done());
        assert_eq!(registry.leave(Slot(0), name), change);
    }
    assert_eq!(registry.uid_of(Slot(0)), Some(longest.as_str()));
}

#[test]
fn remove_returns_and_removes_the_uid_and_the_groups_of_a_slot() {
    let mut registry = Registry::new();
    assert_eq!(registry.remove(Slot(7)), FormerNames::default());
    bind(&mut registry, Slot(5), "ann", SecondLogin::Multi);
    for group in ["red", "green", "blue"] {
        assert_eq!(registry.join(Slot(5), group), Change::Done);
    }
    registry.join(Slot(6), "green");
    let names = registry.remove(Slot(5));
    registry.check_invariants();
    assert_eq!(names.uid.as_deref(), Some("ann"));
    assert_eq!(names.groups, ["blue", "green", "red"]);
    assert_eq!(registry.groups().collect::<Vec<_>>(), [("green", 1)]);
    assert_eq!((registry.user_count(), registry.group_count(), registry.membership_count()), (0, 1, 1));
    assert_eq!(registry.remove(Slot(5)), FormerNames::default());
}

#[test]
fn ungroup_removes_all_memberships() {
    let mut registry = Registry::new();
    for slot in (0..5).map(Slot) {
        registry.join(slot, "all");
        registry.join(slot, if slot.0 % 2 == 0 { "even" } else { "odd" });
    }
    assert_eq!(registry.ungroup("all"), 5);
    assert_eq!(registry.ungroup("all"), 0);
    registry.check_invariants();
    assert_eq!(registry.members("even").len(), 3);
    assert_eq!(registry.groups_of(Slot(1)).collect::<Vec<_>>(), ["odd"]);
    assert_eq!(registry.join(Slot(4), "all"), Change::Done);
}

#[test]
fn the_iterators_of_slots_and_members_do_not_borrow_the_name() {
    let mut registry = Registry::new();
    bind(&mut registry, Slot(1), "ann", SecondLogin::Multi);
    registry.join(Slot(1), "red");
    let slots = registry.slots_of(&String::from("ann"));
    let members = registry.members(&String::from("red"));
    assert!(slots.eq(members));
}

#[test]
fn the_example_of_the_documentation() {
    let mut registry = Registry::new();
    assert_eq!(bind(&mut registry, Slot(0), "10010", SecondLogin::KickOld), (Change::Done, vec![]));
    assert_eq!(registry.join(Slot(0), "news"), Change::Done);
    assert_eq!(bind(&mut registry, Slot(1), "10010", SecondLogin::KickOld), (Change::Done, vec![Slot(0)]));
    assert_eq!(slots_of(&registry, "10010"), [1, 0].map(Slot));
    let names = registry.remove(Slot(0));
    assert_eq!((names.uid.as_deref(), names.groups), (Some("10010"), vec!["news".into()]));
    assert_eq!(slots_of(&registry, "10010"), [Slot(1)]);
}

proptest! {
    #[test]
    fn registry_matches_naive(operations in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz_registry(&operations);
    }
}
