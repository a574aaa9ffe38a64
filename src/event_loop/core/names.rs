//! The uids and groups of connections.

use crate::connection::Cause;
use crate::event_loop::core::Core;
use crate::fd::{Fd, Slot};
use crate::protocol::close::CloseCode;
use crate::registry::{Change, Registry, SecondLogin, is_name};

impl Core {
    /// Binds a connection to a uid, and applies the policy for second logins.
    pub fn bind(&mut self, fd: Fd, uid: &str) -> Change {
        let Some(slot) = self.open_slot(fd) else { return Change::Gone };
        let mut kicked = Vec::new();
        let change = self.registry.bind(slot, uid, self.second_login, &mut kicked);
        for old in kicked {
            self.close_slot(old, CloseCode::KICKED, "uid connected again", Cause::Kicked);
        }
        change
    }

    /// Returns whether a new connection with this uid would be refused.
    pub fn is_uid_taken(&self, uid: &str) -> bool {
        self.second_login == SecondLogin::RejectNew && self.registry.count_of(uid) > 0
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
        self.open_slot(fd).map_or(Change::Gone, |slot| self.registry.unbind(slot))
    }

    /// Removes a connection from a group.
    pub fn leave(&mut self, fd: Fd, group: &str) -> Change {
        self.open_slot(fd).map_or(Change::Gone, |slot| self.registry.leave(slot, group))
    }

    /// Removes all members from a group, and returns their number.
    pub fn ungroup(&mut self, group: &str) -> usize {
        self.registry.ungroup(group)
    }

    /// Adds a connection to a group, unless a limit is reached.
    pub fn join(&mut self, fd: Fd, group: &str) -> Change {
        let Some(slot) = self.open_slot(fd) else { return Change::Gone };
        let (registry, limits) = (&mut self.registry, &self.table.env().limits);
        let is_full = registry.membership_count() >= limits.memberships_max
            || registry.group_count_of(slot) >= limits.connection_groups_max;
        if is_full && is_name(group) && !registry.is_member(slot, group) {
            return Change::Full;
        }
        registry.join(slot, group)
    }
}
