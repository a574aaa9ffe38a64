//! The inboxes of all loops of a server.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread;

use crate::event_loop::inbox::{Rejected, Sender};
use crate::fd::{Fd, Numbering};
use crate::sync::{Mutex, MutexGuard};

/// The inboxes of all loops of a server.
///
/// The inboxes are set when the server starts to run. A [`Remote`](crate::Remote) that is created earlier has a clone
/// of this fleet. The commands that this `Remote` sends before the start wait in the fleet, in order, until the inboxes
/// are set.
#[derive(Debug)]
pub struct Fleet<C>(Arc<Shared<C>>);

#[derive(Debug)]
struct Shared<C> {
    senders: OnceLock<Box<[Sender<C>]>>,
    early: Mutex<EarlyCommands<C>>,
}

/// A function that sends a command to one or more inboxes.
type Route<C> = Box<dyn FnOnce(&[Sender<C>]) -> Result<(), Rejected> + Send>;

/// The commands that were sent before the server runs.
struct EarlyCommands<C> {
    routes: Vec<Route<C>>,
    commands_max: usize,
    is_closed: bool,
}

/// Closes the fleet on drop, so that waiting commands are dropped.
#[derive(Debug)]
pub struct FleetEnd<C>(pub Fleet<C>);

impl<C> Fleet<C> {
    /// Creates the fleet of a server that does not run yet. At most `commands_max` commands wait until the server runs.
    pub fn new(commands_max: usize) -> Fleet<C> {
        let early = EarlyCommands { routes: Vec::new(), commands_max, is_closed: false };
        Fleet(Arc::new(Shared { senders: OnceLock::new(), early: Mutex::new(early) }))
    }

    /// Sets the maximum number of commands that wait until the server runs.
    pub fn set_bound(&self, commands_max: usize) {
        self.lock().commands_max = commands_max;
    }

    /// Sets the inboxes, in the order of loops, and sends the commands that have waited.
    pub fn set(&self, senders: Box<[Sender<C>]>) {
        let mut early = self.lock();
        for route in std::mem::take(&mut early.routes) {
            // No inbox rejects a waiting command: the inboxes are empty, and the bound of an inbox is the bound of the
            // waiting commands.
            let _ = route(&senders);
        }
        // A server runs once, so the inboxes are not set yet. The lock is held, so no later command is sent before the
        // waiting commands.
        let _ = self.0.senders.set(senders);
    }

    /// Sends a command with `route`, immediately or when the server runs.
    pub fn send(
        &self,
        route: impl FnOnce(&[Sender<C>]) -> Result<(), Rejected> + Send + 'static,
    ) -> Result<(), Rejected> {
        match self.senders() {
            Some(senders) => route(senders),
            None => self.send_early(route),
        }
    }

    #[cold]
    fn send_early(
        &self,
        route: impl FnOnce(&[Sender<C>]) -> Result<(), Rejected> + Send + 'static,
    ) -> Result<(), Rejected> {
        let mut early = self.lock();
        // The server may have started to run after the caller's check.
        if let Some(senders) = self.senders() {
            drop(early);
            return route(senders);
        }
        if early.is_closed {
            // The lock is released before the route is dropped, because the drop runs code of the program.
            drop(early);
            return Err(Rejected::Closed);
        }
        if early.routes.len() >= early.commands_max {
            drop(early);
            return Err(Rejected::Full);
        }
        early.routes.push(Box::new(route));
        Ok(())
    }

    /// Returns the inboxes, or `None` if the server does not run yet.
    #[inline]
    pub fn senders(&self) -> Option<&[Sender<C>]> {
        self.0.senders.get().map(|senders| &**senders)
    }

    /// Returns whether this is the thread of one of the loops.
    pub fn is_own_thread(&self) -> bool {
        self.senders().is_some_and(|senders| own_of(senders).is_some())
    }

    fn lock(&self) -> MutexGuard<'_, EarlyCommands<C>> {
        self.0.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the number of the loop that runs on this thread.
pub fn own_of<C>(senders: &[Sender<C>]) -> Option<usize> {
    let own = thread::current().id();
    senders.iter().position(|sender| sender.runs_on(own))
}

/// Returns the number of the loop of an fd.
pub fn loop_of<C>(senders: &[Sender<C>], fd: Fd) -> usize {
    Numbering::new(0, senders.len()).loop_of(fd)
}

impl<C> Clone for Fleet<C> {
    fn clone(&self) -> Fleet<C> {
        Fleet(Arc::clone(&self.0))
    }
}

impl<C> Drop for FleetEnd<C> {
    fn drop(&mut self) {
        let mut early = self.0.lock();
        early.is_closed = true;
        let dropped = std::mem::take(&mut early.routes);
        // The lock is released before the commands are dropped, because the drop runs code of the program.
        drop(early);
        drop(dropped);
    }
}

impl<C> fmt::Debug for EarlyCommands<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyCommands").field("routes", &self.routes.len()).finish_non_exhaustive()
    }
}
