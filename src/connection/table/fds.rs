//! The fds of a table: which slots belong to this table, and the generation of each slot.

use crate::connection::table::{Table, Transport};
use crate::fd::{Fd, Numbering, Slot};

impl<T: Transport> Table<T> {
    /// Sets which fds belong to this table, and which belong to the tables of other loops. The table must be empty.
    pub fn set_numbering(&mut self, numbering: Numbering) {
        self.numbering = numbering;
    }

    /// Returns the rule that says which fds belong to this table.
    #[inline]
    pub fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// Returns the slot of `fd`, if the connection with this fd exists.
    #[inline]
    pub fn slot_of(&self, fd: Fd) -> Option<Slot> {
        self.current_slot(fd).filter(|slot| self.connection(*slot).is_some())
    }

    /// Returns the slot of `fd`, if `fd` has the current generation of the slot. The slot may have no connection.
    #[inline]
    pub fn current_slot(&self, fd: Fd) -> Option<Slot> {
        let slot = self.numbering.local(fd)?;
        (self.generations.get(slot.index()) == Some(&fd.generation())).then_some(slot)
    }

    /// Returns the slot of an fd of this table, without a check of its generation.
    #[inline]
    pub fn own_slot(&self, fd: Fd) -> Slot {
        debug_assert!(self.numbering.local(fd).is_some(), "{fd} must belong to this table");
        self.numbering.local(fd).unwrap_or(fd.slot())
    }

    /// Returns the fd of the connection at a slot.
    #[inline]
    pub fn fd_of(&self, slot: Slot) -> Fd {
        Fd::new(self.numbering.global(slot), self.generations.get(slot.index()).copied().unwrap_or(0))
    }
}
