//! The uids and groups of connections.

use crate::connection::Connection;
use crate::directory::Claim;
use crate::event_loop::core::Core;
use crate::event_loop::siblings::post::{ConnectionChange, Post};
use crate::fd::{Fd, Slot};
use crate::registry::{Change, Registry, SecondLogin, is_name};

impl Core {
    /// Binds a connection to a uid, and applies the policy for second logins.
    pub fn bind(&mut self, fd: Fd, uid: &str) -> Change {
        let Some(slot) = self.open_slot(fd) else {
            return self.change_elsewhere(fd, || ConnectionChange::Bind(uid.into()));
        };
        match self.claim(slot, uid) {
            Change::Done => self.bind_claimed(slot, uid),
            change => change,
        }
    }

    /// Reserves a uid for a connection that is about to open.
    ///
    /// If the result is `Done`, the caller must call [`bind_reserved`](Core::bind_reserved) or
    /// [`release_reserved`](Core::release_reserved) later.
    pub fn reserve(&mut self, slot: Slot, uid: &str) -> Change {
        match self.second_login {
            // A claim of the uid closes the earlier connection of the uid. So this loop claims the uid only when the
            // new connection has opened.
            SecondLogin::KickOld if is_name(uid) => Change::Done,
            _ => self.claim(slot, uid),
        }
    }

    /// Binds a connection to the uid that was reserved for it.
    ///
    /// If the connection is not open any more, the uid is released.
    pub fn bind_reserved(&mut self, slot: Slot, uid: &str) -> Change {
        if !self.table.connection(slot).is_some_and(Connection::is_open) {
            self.release_reserved(slot, uid);
            return Change::Gone;
        }
        if self.second_login == SecondLogin::KickOld {
            self.claim(slot, uid);
        }
        self.bind_claimed(slot, uid)
    }

    /// Releases a uid that was reserved for a connection that did not open.
    pub fn release_reserved(&mut self, slot: Slot, uid: &str) {
        if let Some(siblings) = &self.siblings
            && self.second_login != SecondLogin::KickOld
        {
            siblings.process().directory.release(uid, self.table.fd_of(slot), siblings.index());
        }
    }

    /// Decides whether a connection may have a uid. The decision applies to all loops immediately.
    fn claim(&mut self, slot: Slot, uid: &str) -> Change {
        if !is_name(uid) {
            return Change::BadName;
        }
        if self.registry.uid_of(slot) == Some(uid) {
            return Change::Already;
        }
        let max = self.table.env().limits.uid_connections_max;
        let Some(siblings) = &mut self.siblings else {
            let count = self.registry.count_of(uid);
            return match self.second_login {
                SecondLogin::RejectNew if count > 0 => Change::Taken,
                SecondLogin::Multi if max.is_some_and(|max| count >= max as usize) => Change::Full,
                _ => Change::Done,
            };
        };
        let claim = siblings.process().directory.claim(uid, self.table.fd_of(slot), siblings.index(), max);
        match claim {
            Claim::Granted => {}
            Claim::Taken => return Change::Taken,
            Claim::Full => return Change::Full,
            Claim::Replaced(old) => {
                // If the old connection is on this loop, the bind closes the old connection. If the old connection is
                // on another loop, this loop sends a kick to that loop. `post` never refuses a kick.
                if let Some(to) = siblings.other_loop_of(old) {
                    siblings.post(to, Post::Change(old, ConnectionChange::Kick(uid.into())));
                }
            }
        }
        Change::Done
    }

    /// Binds a connection to the uid that it has claimed.
    fn bind_claimed(&mut self, slot: Slot, uid: &str) -> Change {
        if let (Some(siblings), Some(before)) = (&self.siblings, self.registry.uid_of(slot)) {
            siblings.process().directory.release(before, self.table.fd_of(slot), siblings.index());
        }
        let mut kicked = Vec::new();
        let change = self.registry.bind(slot, uid, self.second_login, &mut kicked);
        for old in kicked {
            self.kick(old);
        }
        change
    }

    /// Returns the slot of `fd`, if its connection is an open WebSocket.
    pub fn open_slot(&self, fd: Fd) -> Option<Slot> {
        let slot = self.table.slot_of(fd)?;
        self.table.connection(slot)?.is_open().then_some(slot)
    }

    /// Returns the uid of a connection. Inside `on_close`, the result is the uid that the connection had.
    pub fn uid_of(&self, fd: Fd) -> Option<&str> {
        match &self.current_close {
            Some(close) if close.fd == fd => close.names.uid.as_deref(),
            _ => self.registry.uid_of(self.table.slot_of(fd)?),
        }
    }

    /// Returns the connections of a uid on this loop, the most recently bound first.
    pub fn fds_of(&self, uid: &str) -> Vec<Fd> {
        if self.has_owners() {
            return self.owner_slot(uid).map(|slot| self.table.fd_of(slot)).into_iter().collect();
        }
        self.registry.slots_of(uid).map(|slot| self.table.fd_of(slot)).collect()
    }

    /// Returns the number of connections of a uid on all loops.
    pub fn connection_count(&self, uid: &str) -> usize {
        match &self.siblings {
            Some(siblings) => siblings.process().directory.connection_count(uid),
            None => self.registry.count_of(uid),
        }
    }

    /// Returns whether the server has several loops, and allows a uid only one connection.
    ///
    /// The one connection of a uid is its owner. A connection of another loop may become the owner in place of the
    /// earlier owner.
    ///
    /// A replaced connection stays bound until its loop closes it. Until the close, a command of another thread for the
    /// uid skips the replaced connection. A push to the fd or to a group of the replaced connection still reaches the
    /// replaced connection.
    #[inline]
    pub(super) fn has_owners(&self) -> bool {
        self.siblings.as_ref().is_some_and(|siblings| siblings.process().directory.is_exclusive())
    }

    /// Returns the owner of a uid: the only connection of the uid on all loops.
    ///
    /// The outer `Option` is `None` if a uid can have several connections. The inner `Option` is `None` if the uid has
    /// no connection.
    pub fn owner_of(&self, uid: &str) -> Option<Option<Fd>> {
        self.has_owners().then(|| self.siblings.as_ref()?.process().directory.owner(uid))
    }

    /// Returns the owner of a uid, if the owner is a connection of this loop.
    pub(super) fn owner_slot(&self, uid: &str) -> Option<Slot> {
        let owner = self.siblings.as_ref()?.process().directory.owner(uid)?;
        self.table.slot_of(owner).filter(|slot| self.registry.uid_of(*slot) == Some(uid))
    }

    /// Returns the groups of a connection. Inside `on_close`, the result is the groups that the connection had.
    pub fn groups_of(&self, fd: Fd) -> Vec<&str> {
        match &self.current_close {
            Some(close) if close.fd == fd => close.names.groups.iter().map(AsRef::as_ref).collect(),
            _ => self.table.slot_of(fd).map_or_else(Vec::new, |slot| self.registry.groups_of(slot).collect()),
        }
    }

    /// Returns the registry of uids and groups.
    #[inline]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Unbinds a connection from its uid.
    pub fn unbind(&mut self, fd: Fd) -> Change {
        let Some(slot) = self.open_slot(fd) else { return self.change_elsewhere(fd, || ConnectionChange::Unbind) };
        if let (Some(siblings), Some(uid)) = (&self.siblings, self.registry.uid_of(slot)) {
            siblings.process().directory.release(uid, fd, siblings.index());
        }
        self.registry.unbind(slot)
    }

    /// Removes a connection from a group.
    pub fn leave(&mut self, fd: Fd, group: &str) -> Change {
        let Some(slot) = self.open_slot(fd) else {
            return self.change_elsewhere(fd, || ConnectionChange::Leave(group.into()));
        };
        let change = self.registry.leave(slot, group);
        if change.is_done() {
            self.record_left(group, 1);
        }
        change
    }

    /// Removes all members from a group, on all loops, and returns their number.
    pub fn ungroup(&mut self, group: &str) -> usize {
        self.ungroup_here(group) + self.ungroup_elsewhere(group)
    }

    /// Removes the members of this loop from a group, and returns their number.
    pub fn ungroup_here(&mut self, group: &str) -> usize {
        let count = self.registry.ungroup(group);
        self.record_left(group, count);
        count
    }

    /// Records that members of this loop have left a group.
    fn record_left(&self, group: &str, count: usize) {
        if let Some(siblings) = &self.siblings {
            siblings.process().directory.leave(group, siblings.index(), count);
            siblings.process().give_memberships(count);
        }
    }

    /// Adds a connection to a group, unless a limit is reached.
    pub fn join(&mut self, fd: Fd, group: &str) -> Change {
        let Some(slot) = self.open_slot(fd) else {
            return self.change_elsewhere(fd, || ConnectionChange::Join(group.into()));
        };
        let (registry, limits) = (&mut self.registry, &self.table.env().limits);
        if is_name(group) && !registry.is_member(slot, group) {
            let may_join = registry.group_count_of(slot) < limits.connection_groups_max
                && match &self.siblings {
                    None => registry.membership_count() < limits.memberships_max,
                    Some(siblings) => siblings.process().take_membership(limits.memberships_max),
                };
            if !may_join {
                return Change::Full;
            }
            if let Some(siblings) = &self.siblings {
                siblings.process().directory.join(group, siblings.index());
            }
        }
        registry.join(slot, group)
    }

    /// Returns the number of members of a group on all loops.
    pub fn member_count(&self, group: &str) -> usize {
        match &self.siblings {
            Some(siblings) => siblings.process().directory.member_count(group),
            None => self.registry.members(group).len(),
        }
    }

    /// Returns the number of uids that have connections and the number of groups that have members, on all loops.
    pub fn name_counts(&self) -> (usize, usize) {
        match &self.siblings {
            Some(siblings) => siblings.process().directory.counts(),
            None => (self.registry.user_count(), self.registry.group_count()),
        }
    }
}
