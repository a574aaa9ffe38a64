//! Walks over the open connections: they cost what is open, and not what was ever open.

use crate::event_loop::Core;
use crate::fd::Fd;

impl Core {
    /// Open connections, lowest slot first.
    pub fn connections(&self) -> impl Iterator<Item = Fd> + '_ {
        self.open.iter_from(0).map(|slot| self.table.fd_of(slot))
    }

    /// Open connections in slots behind that of `after`, lowest first, at most `limit`.
    pub fn connections_after(&self, after: Option<Fd>, limit: usize) -> Vec<Fd> {
        let start = after.map_or(0, |fd| fd.slot() + 1);
        self.open.iter_from(start).take(limit).map(|slot| self.table.fd_of(slot)).collect()
    }
}
