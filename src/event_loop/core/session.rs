//! Session values that handlers store with connections.

use std::any::Any;
use std::hash::{BuildHasher, RandomState};

use crate::connection::State;
use crate::event_loop::core::Core;
use crate::fd::Fd;
use crate::split_table::SplitTable;

/// The session values, by fd.
#[derive(Debug, Default)]
pub struct Sessions {
    table: SplitTable<(Fd, Box<dyn Any>)>,
    hasher: RandomState,
}

impl Sessions {
    fn find(&self, fd: Fd) -> Option<&dyn Any> {
        let entry = self.table.find(self.hasher.hash_one(fd), |(other, _)| *other == fd)?;
        Some(&*entry.1)
    }

    fn find_mut(&mut self, fd: Fd) -> Option<&mut Box<dyn Any>> {
        let entry = self.table.find_mut(self.hasher.hash_one(fd), |(other, _)| *other == fd)?;
        Some(&mut entry.1)
    }

    fn insert(&mut self, fd: Fd, session: Box<dyn Any>) {
        match self.find_mut(fd) {
            Some(stored) => *stored = session,
            None => {
                let Sessions { table, hasher } = self;
                table.insert(hasher.hash_one(fd), (fd, session), |(other, _)| hasher.hash_one(other));
            }
        }
    }

    fn remove(&mut self, fd: Fd) -> Option<Box<dyn Any>> {
        let Sessions { table, hasher } = self;
        if table.is_empty() {
            return None;
        }
        let removed =
            table.remove(hasher.hash_one(fd), |(other, _)| *other == fd, |(other, _)| hasher.hash_one(other))?;
        Some(removed.1)
    }
}

impl Core {
    /// Stores a value with a connection, and returns whether the connection exists.
    pub fn set_session(&mut self, fd: Fd, session: Box<dyn Any>) -> bool {
        let is_there = self.connection(fd).is_some_and(|connection| connection.state() != State::Closing);
        if is_there {
            self.sessions.insert(fd, session);
        }
        is_there
    }

    /// Drops the value of a connection that has ended.
    pub fn drop_session(&mut self, fd: Fd) {
        self.sessions.remove(fd);
    }

    /// Returns the value of a connection.
    pub fn session(&self, fd: Fd) -> Option<&dyn Any> {
        self.sessions.find(fd)
    }

    /// Returns the value of a connection, to change it.
    pub fn session_mut(&mut self, fd: Fd) -> Option<&mut dyn Any> {
        self.sessions.find_mut(fd).map(|session| &mut **session)
    }

    /// Removes the value of a connection and returns it.
    pub fn take_session(&mut self, fd: Fd) -> Option<Box<dyn Any>> {
        self.sessions.remove(fd)
    }

    /// Stores a value again after a call, unless the call has set another.
    pub fn restore_session(&mut self, fd: Fd, session: Box<dyn Any>) {
        if self.connection(fd).is_some() && self.sessions.find(fd).is_none() {
            self.sessions.insert(fd, session);
        }
    }
}
