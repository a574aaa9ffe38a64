//! The inboxes of all loops of a server.

use std::sync::{Arc, OnceLock};

use crate::event_loop::inbox::Sender;
use crate::fd::{Fd, Numbering};

/// The inboxes of all loops of a server.
///
/// The inboxes are known when the server runs. Handles that were made before share this value.
#[derive(Debug)]
pub struct Fleet<C>(Arc<OnceLock<Box<[Sender<C>]>>>);

impl<C> Fleet<C> {
    /// Sets the inboxes, in the order of loops.
    pub fn set(&self, senders: Box<[Sender<C>]>) {
        // A server runs once, so the inboxes are not set yet.
        let _ = self.0.set(senders);
    }

    /// Returns the inboxes, or `None` if the server does not run yet.
    pub fn senders(&self) -> Option<&[Sender<C>]> {
        self.0.get().map(|senders| &**senders)
    }

    /// Returns the inbox of the loop of an fd.
    pub fn sender_of(&self, fd: Fd) -> Option<&Sender<C>> {
        let senders = self.senders()?;
        senders.get(Numbering::new(0, senders.len()).loop_of(fd))
    }

    /// Returns whether this is the thread of one of the loops.
    pub fn is_own_thread(&self) -> bool {
        self.senders().is_some_and(|senders| senders.iter().any(Sender::is_own_thread))
    }
}

impl<C> Default for Fleet<C> {
    fn default() -> Fleet<C> {
        Fleet(Arc::default())
    }
}

impl<C> Clone for Fleet<C> {
    fn clone(&self) -> Fleet<C> {
        Fleet(Arc::clone(&self.0))
    }
}
