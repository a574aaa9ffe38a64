//! Session values that handlers store with connections.

use std::any::Any;

use crate::connection::State;
use crate::event_loop::core::Core;
use crate::fd::Fd;

impl Core {
    /// Stores a value with a connection, and returns whether the connection exists.
    pub fn set_session(&mut self, fd: Fd, session: Box<dyn Any>) -> bool {
        let is_there = self.connection(fd).is_some_and(|connection| connection.state() != State::Closing);
        if is_there {
            self.sessions.insert(fd, session);
        }
        is_there
    }

    /// Drops the session value of a connection that has ended.
    pub fn drop_session(&mut self, fd: Fd) {
        self.sessions.remove(fd);
    }

    /// Returns the session value of a connection.
    pub fn session(&self, fd: Fd) -> Option<&dyn Any> {
        self.sessions.find(fd)
    }

    /// Returns a mutable reference to the session value of a connection.
    pub fn session_mut(&mut self, fd: Fd) -> Option<&mut dyn Any> {
        self.sessions.find_mut(fd).map(|session| &mut **session)
    }

    /// Removes the session value of a connection and returns it.
    pub fn take_session(&mut self, fd: Fd) -> Option<Box<dyn Any>> {
        self.sessions.remove(fd)
    }

    /// Stores a session value again after a call that had borrowed it, unless the call stored another value.
    pub fn restore_session(&mut self, fd: Fd, session: Box<dyn Any>) {
        if self.connection(fd).is_some() && self.sessions.find(fd).is_none() {
            self.sessions.insert(fd, session);
        }
    }
}
