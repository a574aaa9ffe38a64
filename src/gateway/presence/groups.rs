//! The persons in each group, and the changes that the group has not been told of.
//!
//! A person with three connections comes once and leaves once. Changes are collected, and told together: one notice of those
//! who left and one of those who joined, however many they are. A person who joined and left in between is in neither.

use std::collections::{HashMap, VecDeque};

use crate::gateway::wire::frame::{Notice, NoticeKind};

/// A map with room for no more than this is not shrunk.
const GROUPS_KEPT: usize = 64;

/// The persons in each group.
#[derive(Debug, Default)]
pub struct Presence {
    groups: HashMap<Box<str>, Group>,
    /// Groups that are to be told of changes, in order. One that was told meanwhile stays listed.
    changed: VecDeque<Box<str>>,
}

/// A group with persons, or with changes to tell.
#[derive(Debug, Default)]
struct Group {
    persons: HashMap<Box<str>, Person>,
    changes: Option<Box<Changes>>,
}

#[derive(Debug)]
struct Person {
    /// At least 1.
    connections: u32,
    /// Joined since the group was told last.
    is_new: bool,
}

/// The changes since a group was told last.
#[derive(Debug, Default)]
struct Changes {
    /// Every person who joined, also those who left again. A person may be named twice.
    joined: Vec<Box<str>>,
    /// Persons that the group knew and that left, each once. They may have joined again.
    left: Vec<Box<str>>,
}

impl Presence {
    /// One connection of `uid` joined `group`. `true`: the group has something to be told.
    pub fn enter(&mut self, group: &str, uid: &str) -> bool {
        let entry = match self.groups.get_mut(group) {
            Some(entry) => entry,
            None => self.groups.entry(group.into()).or_default(),
        };
        if let Some(person) = entry.persons.get_mut(uid) {
            person.connections += 1;
            return false;
        }
        entry.persons.insert(uid.into(), Person { connections: 1, is_new: true });
        entry.changes(group, &mut self.changed).joined.push(uid.into());
        true
    }

    /// Removes a group, and keeps the map an eighth full at least.
    fn remove(&mut self, group: &str) {
        self.groups.remove(group);
        if self.groups.capacity() > GROUPS_KEPT && self.groups.len() < self.groups.capacity() / 8 {
            self.groups.shrink_to(2 * self.groups.len());
        }
    }

    /// One connection of `uid` left `group`. `true`: the group has something to be told.
    pub fn exit(&mut self, group: &str, uid: &str) -> bool {
        let Some(entry) = self.groups.get_mut(group) else { return false };
        let Some(person) = entry.persons.get_mut(uid) else { return false };
        person.connections -= 1;
        if person.connections > 0 {
            return false;
        }
        let was_known = !person.is_new;
        entry.persons.remove(uid);
        if entry.persons.capacity() > GROUPS_KEPT && entry.persons.len() < entry.persons.capacity() / 8 {
            entry.persons.shrink_to(2 * entry.persons.len());
        }
        if was_known {
            entry.changes(group, &mut self.changed).left.push(uid.into());
        }
        true
    }

    /// All persons of `group` leave at once. The notice of that, unless nobody was there.
    pub fn dissolve(&mut self, group: &str) -> Option<Notice> {
        let entry = self.groups.get_mut(group)?;
        let persons = std::mem::take(&mut entry.persons);
        let mut uids: Vec<Box<str>> =
            persons.into_iter().filter(|(_, person)| !person.is_new).map(|(uid, _)| uid).collect();
        uids.extend(entry.changes.as_mut().map(|changes| std::mem::take(&mut changes.left)).unwrap_or_default());
        if entry.changes.is_none() {
            self.remove(group);
        }
        (!uids.is_empty()).then_some(Notice { kind: NoticeKind::Left, uids, count: 0 })
    }

    /// A group that is to be told of changes.
    pub fn next_changed(&mut self) -> Option<Box<str>> {
        self.changed.pop_front()
    }

    /// The notices for `group`, in order; from now on it counts as told.
    pub fn take_notices(&mut self, group: &str) -> [Option<Notice>; 2] {
        let Some(entry) = self.groups.get_mut(group) else { return [None, None] };
        let Some(changes) = entry.changes.take() else { return [None, None] };
        let Changes { mut joined, left } = *changes;
        joined.retain(|uid| entry.persons.get_mut(uid).is_some_and(|person| std::mem::take(&mut person.is_new)));
        let count = entry.persons.len();
        if count == 0 {
            self.remove(group);
        }
        let notice = |kind, uids: Vec<Box<str>>, count| (!uids.is_empty()).then_some(Notice { kind, uids, count });
        let between = count - joined.len();
        [notice(NoticeKind::Left, left, between), notice(NoticeKind::Joined, joined, count)]
    }
}

impl Group {
    /// The changes to tell. The group is listed in `changed` with the first of them.
    fn changes(&mut self, name: &str, changed: &mut VecDeque<Box<str>>) -> &mut Changes {
        self.changes.get_or_insert_with(|| {
            changed.push_back(name.into());
            Box::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The notices for `group` as text.
    fn told(presence: &mut Presence, group: &str) -> Vec<String> {
        let notices = presence.take_notices(group).into_iter().flatten();
        notices.map(|Notice { kind, uids, count }| format!("{kind:?} {} {count}", uids.join(","))).collect()
    }

    #[test]
    fn first_in_and_last_out() {
        let mut presence = Presence::default();
        assert!(presence.enter("room", "ann"));
        assert!(!presence.enter("room", "ann"), "a second connection is no news");
        assert!(presence.enter("room", "bob"));
        assert_eq!(told(&mut presence, "room"), ["Joined ann,bob 2"]);
        assert!(!presence.exit("room", "ann"));
        assert!(presence.exit("room", "ann"));
        assert!(!presence.exit("room", "ann"), "who is out does not leave");
        assert_eq!(told(&mut presence, "room"), ["Left ann 1"]);
        assert!(presence.exit("room", "bob"));
        assert_eq!(told(&mut presence, "room"), ["Left bob 0"]);
        assert!(presence.groups.is_empty(), "an empty group leaves nothing behind");
    }

    #[test]
    fn a_group_is_listed_once_and_told_what_is_true_in_the_end() {
        let mut presence = Presence::default();
        for uid in ["ann", "bob", "cat"] {
            presence.enter("room", uid);
        }
        assert_eq!(presence.next_changed().as_deref(), Some("room"));
        assert_eq!(presence.next_changed(), None);
        assert_eq!(told(&mut presence, "room"), ["Joined ann,bob,cat 3"]);
        // Ann reloads, bob leaves, eve comes and goes, dan comes twice.
        presence.exit("room", "ann");
        presence.exit("room", "bob");
        for uid in ["ann", "eve", "dan"] {
            presence.enter("room", uid);
        }
        presence.exit("room", "eve");
        presence.exit("room", "dan");
        presence.enter("room", "dan");
        assert_eq!(told(&mut presence, "room"), ["Left ann,bob 1", "Joined ann,dan 3"]);
        assert_eq!(told(&mut presence, "room"), [""; 0]);
        presence.enter("hall", "eve");
        presence.exit("hall", "eve");
        assert_eq!(told(&mut presence, "hall"), [""; 0]);
        assert!(!presence.groups.contains_key("hall"));
    }

    #[test]
    fn a_dissolved_group_is_told_once() {
        let mut presence = Presence::default();
        presence.enter("room", "ann");
        presence.enter("room", "bob");
        told(&mut presence, "room");
        presence.exit("room", "ann");
        presence.enter("room", "eve");
        let notice = presence.dissolve("room").expect("persons were there");
        let mut uids = notice.uids;
        uids.sort();
        assert_eq!((notice.count, uids.join(",")), (0, "ann,bob".to_owned()), "eve was never announced");
        assert_eq!(told(&mut presence, "room"), [""; 0]);
        assert!(presence.groups.is_empty());
        assert!(presence.dissolve("room").is_none());
    }
}
