//! The users in each group, and the changes that no notice has reported yet.
//!
//! A user with several connections in a group joins once and leaves once. The changes of a group are combined: one
//! notice names all users who left, and a second notice names all users who joined. If a user joins and leaves between
//! two notices, no notice names the user.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use compact_str::CompactString;
use fdpush::shared::SplitTable;

use crate::gateway::wire::frame::{NoticeKind, PresenceNotice};

/// The users in each group.
#[derive(Debug, Default)]
pub struct GroupPresence {
    groups: SplitTable<(CompactString, Group)>,
    /// The groups with changes, in the order in which the server sends their notices. A push to a group sends the
    /// notices of the group before the message. The group then stays in this list, although it has no pending notice.
    changed: VecDeque<CompactString>,
    /// A hasher with a random seed. Clients choose the names of groups. With a known seed, a client could choose names
    /// with equal hashes.
    hasher: RandomState,
}

/// A group with users or with pending changes.
#[derive(Debug, Default)]
struct Group {
    users: SplitTable<User>,
    changes: Option<Box<Changes>>,
}

#[derive(Debug)]
struct User {
    uid: CompactString,
    /// The number of connections of the user in the group, at least 1.
    connections: u32,
    /// Whether the user joined after the last notice of the group.
    is_new: bool,
}

/// The changes of a group since its last notice.
#[derive(Debug, Default)]
struct Changes {
    /// The uids of all users who joined since the last notice, including users who have left again. The same uid can
    /// occur several times in this list.
    joined: Vec<CompactString>,
    /// The uids of users who left after a notice had named them as joined. Each uid occurs once in this list. A user in
    /// this list may have joined again.
    left: Vec<CompactString>,
}

impl GroupPresence {
    /// Adds a connection of `uid` to `group`. Returns whether this is the first connection of `uid` in `group`.
    pub fn join(&mut self, group: &str, uid: &str) -> bool {
        let GroupPresence { groups, changed, hasher } = self;
        let hash = hasher.hash_one(group);
        if groups.find(hash, |(name, _)| name == group).is_none() {
            groups.insert(hash, (group.into(), Group::default()), |(name, _)| hasher.hash_one(name.as_str()));
        }
        let Some((_, entry)) = groups.find_mut(hash, |(name, _)| name == group) else { return false };
        let hash = hasher.hash_one(uid);
        if let Some(user) = entry.users.find_mut(hash, |user| user.uid == uid) {
            user.connections += 1;
            return false;
        }
        let user = User { uid: uid.into(), connections: 1, is_new: true };
        entry.users.insert(hash, user, |user| hasher.hash_one(user.uid.as_str()));
        entry.changes(group, changed).joined.push(uid.into());
        true
    }

    /// Removes a group.
    fn remove(&mut self, group: &str) {
        let GroupPresence { groups, hasher, .. } = self;
        groups.remove(hasher.hash_one(group), |(name, _)| name == group, |(name, _)| hasher.hash_one(name.as_str()));
    }

    /// Removes a connection of `uid` from `group`. Returns whether this was the last connection of `uid` in `group`.
    pub fn leave(&mut self, group: &str, uid: &str) -> bool {
        let GroupPresence { groups, changed, hasher } = self;
        let Some((_, entry)) = groups.find_mut(hasher.hash_one(group), |(name, _)| name == group) else { return false };
        let Some(was_known) = entry.remove_connection(uid, hasher) else { return false };
        if was_known {
            entry.changes(group, changed).left.push(uid.into());
        }
        true
    }

    /// Works like [`leave`](GroupPresence::leave), but adds no change to the next notice of the group. Returns whether
    /// the last connection of the user left and an earlier notice named the user as joined.
    pub fn leave_silently(&mut self, group: &str, uid: &str) -> bool {
        let GroupPresence { groups, hasher, .. } = self;
        let Some((_, entry)) = groups.find_mut(hasher.hash_one(group), |(name, _)| name == group) else { return false };
        let Some(was_known) = entry.remove_connection(uid, hasher) else { return false };
        if entry.users.is_empty() && entry.changes.is_none() {
            self.remove(group);
        }
        was_known
    }

    /// Returns a `left` notice about `uids`, the users whom [`leave_silently`](GroupPresence::leave_silently) removed.
    /// If the group is empty, the notice also names the users who left after the last notice of the group. Returns
    /// `None` if the notice would name no user.
    pub fn notice_of_left(&mut self, group: &str, mut uids: Vec<CompactString>) -> Option<PresenceNotice> {
        let hash = self.hasher.hash_one(group);
        let entry = self.groups.find_mut(hash, |(name, _)| name == group).map(|(_, entry)| entry);
        let count = entry.as_ref().map_or(0, |entry| entry.users.len());
        if let Some(changes) = entry.filter(|_| count == 0).and_then(|entry| entry.changes.as_mut()) {
            uids.append(&mut changes.left);
        }
        (!uids.is_empty()).then_some(PresenceNotice { kind: NoticeKind::Left, uids, count })
    }

    /// Removes all users of `group`. Returns a `left` notice. The notice names all users whom earlier notices named as
    /// joined. Returns `None` if the notice would name no user.
    pub fn clear(&mut self, group: &str) -> Option<PresenceNotice> {
        let hash = self.hasher.hash_one(group);
        let (_, entry) = self.groups.find_mut(hash, |(name, _)| name == group)?;
        let users = std::mem::take(&mut entry.users);
        let mut uids: Vec<CompactString> = users.into_iter().filter(|user| !user.is_new).map(|user| user.uid).collect();
        uids.extend(entry.changes.as_mut().map(|changes| std::mem::take(&mut changes.left)).unwrap_or_default());
        if entry.changes.is_none() {
            self.remove(group);
        }
        (!uids.is_empty()).then_some(PresenceNotice { kind: NoticeKind::Left, uids, count: 0 })
    }

    /// Removes and returns the next group in the list of groups with changes.
    pub fn next_changed(&mut self) -> Option<CompactString> {
        self.changed.pop_front()
    }

    /// Returns whether any group has changes.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Takes the pending changes of `group`, and returns their notices. The notice of users who left comes first.
    pub fn take_notices(&mut self, group: &str) -> [Option<PresenceNotice>; 2] {
        let GroupPresence { groups, hasher, .. } = self;
        let hash = hasher.hash_one(group);
        let Some((_, entry)) = groups.find_mut(hash, |(name, _)| name == group) else { return [None, None] };
        let Some(changes) = entry.changes.take() else { return [None, None] };
        let Changes { mut joined, left } = *changes;
        joined.retain(|uid| {
            let user = entry.users.find_mut(hasher.hash_one(uid.as_str()), |user| user.uid == uid);
            user.is_some_and(|user| std::mem::take(&mut user.is_new))
        });
        let count = entry.users.len();
        if count == 0 {
            self.remove(group);
        }
        let notice =
            |kind, uids: Vec<CompactString>, count| (!uids.is_empty()).then_some(PresenceNotice { kind, uids, count });
        let between = count - joined.len();
        [notice(NoticeKind::Left, left, between), notice(NoticeKind::Joined, joined, count)]
    }
}

impl Group {
    /// Removes a connection of `uid`. If this was the last connection of the user, removes the user, and returns whether an
    /// earlier notice named the user as joined.
    fn remove_connection(&mut self, uid: &str, hasher: &RandomState) -> Option<bool> {
        let hash = hasher.hash_one(uid);
        let user = self.users.find_mut(hash, |user| user.uid == uid)?;
        user.connections -= 1;
        if user.connections > 0 {
            return None;
        }
        let was_known = !user.is_new;
        self.users.remove(hash, |user| user.uid == uid, |user| hasher.hash_one(user.uid.as_str()));
        Some(was_known)
    }

    /// Returns the pending changes of a group. The first change of a group adds the group to `changed`.
    fn changes(&mut self, name: &str, changed: &mut VecDeque<CompactString>) -> &mut Changes {
        self.changes.get_or_insert_with(|| {
            changed.push_back(name.into());
            Box::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the notices for `group` as text.
    fn notices(presence: &mut GroupPresence, group: &str) -> Vec<String> {
        let notices = presence.take_notices(group).into_iter().flatten();
        notices.map(|PresenceNotice { kind, uids, count }| format!("{kind:?} {} {count}", uids.join(","))).collect()
    }

    #[test]
    fn a_user_joins_with_the_first_connection_and_leaves_with_the_last_connection() {
        let mut presence = GroupPresence::default();
        assert!(presence.join("room", "ann"));
        assert!(!presence.join("room", "ann"), "the second connection of a uid must cause no notice");
        assert!(presence.join("room", "bob"));
        assert_eq!(notices(&mut presence, "room"), ["Joined ann,bob 2"]);
        assert!(!presence.leave("room", "ann"));
        assert!(presence.leave("room", "ann"));
        assert!(!presence.leave("room", "ann"), "a uid that is not in the group must cause no notice");
        assert_eq!(notices(&mut presence, "room"), ["Left ann 1"]);
        assert!(presence.leave("room", "bob"));
        assert_eq!(notices(&mut presence, "room"), ["Left bob 0"]);
        assert!(presence.groups.is_empty(), "an empty group must be removed");
    }

    #[test]
    fn a_changed_group_is_queued_once_and_its_notices_have_the_net_change() {
        let mut presence = GroupPresence::default();
        for uid in ["ann", "bob", "cat"] {
            presence.join("room", uid);
        }
        assert_eq!(presence.next_changed().as_deref(), Some("room"));
        assert_eq!(presence.next_changed(), None);
        assert_eq!(notices(&mut presence, "room"), ["Joined ann,bob,cat 3"]);
        // Between two notices, ann leaves and joins, bob leaves, eve joins and leaves, and dan joins twice.
        presence.leave("room", "ann");
        presence.leave("room", "bob");
        for uid in ["ann", "eve", "dan"] {
            presence.join("room", uid);
        }
        presence.leave("room", "eve");
        presence.leave("room", "dan");
        presence.join("room", "dan");
        assert_eq!(notices(&mut presence, "room"), ["Left ann,bob 1", "Joined ann,dan 3"]);
        assert_eq!(notices(&mut presence, "room"), [""; 0]);
        presence.join("hall", "eve");
        presence.leave("hall", "eve");
        assert_eq!(notices(&mut presence, "hall"), [""; 0]);
        assert_eq!(presence.groups.len(), 1, "only the group `room` must remain");
    }

    #[test]
    fn clear_returns_one_notice_about_the_users_of_earlier_notices() {
        let mut presence = GroupPresence::default();
        presence.join("room", "ann");
        presence.join("room", "bob");
        notices(&mut presence, "room");
        presence.leave("room", "ann");
        presence.join("room", "eve");
        let notice = presence.clear("room").expect("the group has users");
        let mut uids = notice.uids;
        uids.sort();
        assert_eq!(
            (notice.count, uids.join(",")),
            (0, "ann,bob".to_owned()),
            "the notice must not name eve, because no notice named her as joined"
        );
        assert_eq!(notices(&mut presence, "room"), [""; 0]);
        assert!(presence.groups.is_empty());
        assert!(presence.clear("room").is_none());
    }
}
