//! Walks over the open connections: they cost what is open, and not what was ever open.

use crate::event_loop::Core;
use crate::fd::{Fd, Slot};

impl Core {
    /// Open connections, lowest slot first.
    pub fn connections(&self) -> impl Iterator<Item = Fd> + '_ {
        self.open.iter().map(|slot| self.table.fd_of(slot))
    }

    /// Open connections in slots behind that of `after`, lowest first, at most `limit`.
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Vec<Fd> {
        let start = after.map_or(Slot(0), |fd| Slot(fd.slot().0 + 1));
        self.open.iter_from(start).take(limit).map(|slot| self.table.fd_of(slot)).collect()
    }
}
