//! The values that handlers store with connections, by fd.

use std::any::Any;
use std::hash::{BuildHasher, RandomState};

use crate::fd::Fd;
use crate::split_table::SplitTable;

/// The session values, by fd.
#[derive(Debug, Default)]
pub struct Sessions {
    table: SplitTable<(Fd, Box<dyn Any>)>,
    hasher: RandomState,
}

impl Sessions {
    /// Returns the session value of a connection.
    pub fn find(&self, fd: Fd) -> Option<&dyn Any> {
        let entry = self.table.find(self.hasher.hash_one(fd), |(other, _)| *other == fd)?;
        Some(&*entry.1)
    }

    /// Returns a mutable reference to the session value of a connection.
    pub fn find_mut(&mut self, fd: Fd) -> Option<&mut Box<dyn Any>> {
        let entry = self.table.find_mut(self.hasher.hash_one(fd), |(other, _)| *other == fd)?;
        Some(&mut entry.1)
    }

    /// Stores a session value, in place of an earlier value.
    pub fn insert(&mut self, fd: Fd, session: Box<dyn Any>) {
        match self.find_mut(fd) {
            Some(stored) => *stored = session,
            None => {
                let Sessions { table, hasher } = self;
                table.insert(hasher.hash_one(fd), (fd, session), |(other, _)| hasher.hash_one(other));
            }
        }
    }

    /// Removes the session value of a connection and returns it.
    pub fn remove(&mut self, fd: Fd) -> Option<Box<dyn Any>> {
        let Sessions { table, hasher } = self;
        if table.is_empty() {
            return None;
        }
        let removed =
            table.remove(hasher.hash_one(fd), |(other, _)| *other == fd, |(other, _)| hasher.hash_one(other))?;
        Some(removed.1)
    }
}
