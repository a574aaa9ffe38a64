//! Values that handlers keep with connections.

use std::any::Any;

use crate::connection::State;
use crate::event_loop::core::Core;
use crate::fd::Fd;

impl Core {
    /// Keeps a value with a connection, in place of the one before. `false`: it is gone.
    pub fn set_session(&mut self, fd: Fd, session: Box<dyn Any>) -> bool {
        let is_there = self.connection(fd).is_some_and(|connection| connection.state() != State::Closing);
        if is_there {
            self.sessions.insert(fd, session);
        }
        is_there
    }

    /// The connection is over for its handler: so is what that kept with it.
    pub fn drop_session(&mut self, fd: Fd) {
        if !self.sessions.is_empty() {
            self.sessions.remove(&fd);
        }
    }

    /// Returns the value that is kept with a connection.
    pub fn session(&self, fd: Fd) -> Option<&dyn Any> {
        self.sessions.get(&fd).map(|session| &**session)
    }

    /// Returns the value that is kept with a connection, to change.
    pub fn session_mut(&mut self, fd: Fd) -> Option<&mut dyn Any> {
        self.sessions.get_mut(&fd).map(|session| &mut **session)
    }

    /// Takes the value that is kept with a connection.
    pub fn take_session(&mut self, fd: Fd) -> Option<Box<dyn Any>> {
        self.sessions.remove(&fd)
    }

    /// Puts a value back that was taken for a call. One that was set meanwhile stays.
    pub fn restore_session(&mut self, fd: Fd, session: Box<dyn Any>) {
        if self.connection(fd).is_some() {
            self.sessions.entry(fd).or_insert(session);
        }
    }
}
