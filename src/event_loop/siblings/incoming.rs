//! The posts that a loop has taken from its mailbox.

use std::collections::VecDeque;

use crate::event_loop::siblings::mailbox::Received;

/// The posts that a loop has taken from its mailbox, and its part in a shutdown.
#[derive(Debug, Default)]
pub struct Incoming {
    /// The batches whose posts are not all carried out.
    pub batches: VecDeque<Received>,
    /// Whether this loop has passed a shutdown on to the other loops.
    pub has_sent_shutdown: bool,
}

impl Incoming {
    /// Returns whether posts wait for the next turn.
    #[inline]
    pub fn has_posts(&self) -> bool {
        !self.batches.is_empty()
    }
}
