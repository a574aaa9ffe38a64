//! The naive model of the registry. The model identifies connections by fd, and the registry identifies them by slot.

use std::collections::{BTreeMap, BTreeSet};

use fdpush::sim::{FormerNames, Registry};
use fdpush::{Change, Fd, SecondLogin, Slot};

/// The uids and groups of all connections.
#[derive(Debug, Default)]
pub struct NameModel {
    uids: BTreeMap<Fd, String>,
    /// The connections of each uid in the order of their bindings.
    users: BTreeMap<String, Vec<Fd>>,
    groups: BTreeMap<String, BTreeSet<Fd>>,
    /// The groups of each connection in the order of its joins.
    memberships: BTreeMap<Fd, Vec<String>>,
}

impl NameModel {
    /// Binds a connection to a uid. Returns the other connections of the uid that the policy for second logins kicks.
    pub fn bind(&mut self, fd: Fd, uid: &str, policy: SecondLogin) -> (Change, Vec<Fd>) {
        if self.uids.get(&fd).is_some_and(|bound| bound == uid) {
            return (Change::Already, Vec::new());
        }
        let others: Vec<Fd> = self.fds_of(uid).rev().collect();
        let kicked = match policy {
            SecondLogin::RejectNew if !others.is_empty() => return (Change::Taken, Vec::new()),
            SecondLogin::KickOld => others,
            _ => Vec::new(),
        };
        self.unbind(fd);
        self.uids.insert(fd, uid.to_owned());
        self.users.entry(uid.to_owned()).or_default().push(fd);
        (Change::Done, kicked)
    }

    /// Removes the uid of a connection.
    pub fn unbind(&mut self, fd: Fd) -> Change {
        let Some(uid) = self.uids.remove(&fd) else { return Change::Already };
        let fds = self.users.get_mut(&uid).expect("the uid is in the map");
        fds.retain(|other| *other != fd);
        if fds.is_empty() {
            self.users.remove(&uid);
        }
        Change::Done
    }

    /// Adds a connection to a group.
    pub fn join(&mut self, fd: Fd, group: &str) -> Change {
        if !self.groups.entry(group.to_owned()).or_default().insert(fd) {
            return Change::Already;
        }
        self.memberships.entry(fd).or_default().push(group.to_owned());
        Change::Done
    }

    /// Removes a connection from a group.
    pub fn leave(&mut self, fd: Fd, group: &str) -> Change {
        let Some(members) = self.groups.get_mut(group) else { return Change::Already };
        if !members.remove(&fd) {
            return Change::Already;
        }
        if members.is_empty() {
            self.groups.remove(group);
        }
        let joined = self.memberships.get_mut(&fd).expect("the member is in the map");
        joined.retain(|other| other != group);
        if joined.is_empty() {
            self.memberships.remove(&fd);
        }
        Change::Done
    }

    /// Removes all members from a group.
    pub fn ungroup(&mut self, group: &str) -> usize {
        let members: Vec<Fd> = self.members(group).collect();
        for fd in &members {
            self.leave(*fd, group);
        }
        members.len()
    }

    /// Removes a connection. `names` are the uid and the groups that the registry had for the connection: they must be
    /// those of the model.
    pub fn remove(&mut self, fd: Fd, names: &FormerNames) {
        let groups: Vec<&str> = names.groups.iter().map(AsRef::as_ref).collect();
        assert_eq!(
            groups,
            self.groups_of(fd),
            "the registry and the model must have the same groups of {fd} when it ends"
        );
        assert_eq!(
            names.uid.as_deref(),
            self.uids.get(&fd).map(String::as_str),
            "the registry and the model must have the same uid of {fd} when it ends"
        );
        self.unbind(fd);
        for group in self.memberships.get(&fd).cloned().unwrap_or_default() {
            self.leave(fd, &group);
        }
    }

    /// Returns the connections of a uid, the oldest binding first.
    pub fn fds_of(&self, uid: &str) -> impl DoubleEndedIterator<Item = Fd> {
        self.users.get(uid).into_iter().flatten().copied()
    }

    /// Returns the members of a group.
    pub fn members(&self, group: &str) -> impl Iterator<Item = Fd> {
        self.groups.get(group).into_iter().flatten().copied()
    }

    /// Compares the registry with the model. `fd_of` returns the fd of a slot.
    pub fn check(&self, registry: &Registry, fd_of: impl Fn(Slot) -> Fd) {
        registry.check_invariants();
        let memberships = self.memberships.values().map(Vec::len).sum::<usize>();
        let counts = (registry.user_count(), registry.group_count(), registry.membership_count());
        assert_eq!(
            counts,
            (self.users.len(), self.groups.len(), memberships),
            "the registry must have as many users, groups and memberships as the model"
        );
        for (uid, fds) in &self.users {
            let newest_first: Vec<Fd> = registry.slots_of(uid).map(&fd_of).collect();
            assert!(
                newest_first.iter().eq(fds.iter().rev()),
                "the connections of {uid} must be {fds:?} in reverse order, not {newest_first:?}"
            );
        }
        for (group, fds) in &self.groups {
            let members: BTreeSet<Fd> = registry.members(group).map(&fd_of).collect();
            assert_eq!(members, *fds, "{group} must have the same members in the registry and in the model");
        }
    }

    /// Returns the groups of a connection, the most recently joined first.
    fn groups_of(&self, fd: Fd) -> Vec<&str> {
        self.memberships.get(&fd).into_iter().flatten().rev().map(String::as_str).collect()
    }
}
