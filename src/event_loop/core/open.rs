//! Iterates over the open WebSockets.
//!
//! The time of an iteration depends on the number of open WebSockets, not on the number of slots.

use crate::event_loop::Core;
use crate::fd::{Fd, Slot};

impl Core {
    /// Returns the open WebSockets, the lowest slot first.
    pub fn connections(&self) -> impl Iterator<Item = Fd> + '_ {
        self.open.iter().map(|slot| self.table.fd_of(slot))
    }

    /// Returns at most `limit` open WebSockets whose slots follow the slot of `after`.
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Vec<Fd> {
        let start = after.map_or(Slot(0), |fd| self.table.numbering().first_after(fd));
        self.open.iter_from(start).take(limit).map(|slot| self.table.fd_of(slot)).collect()
    }
}
