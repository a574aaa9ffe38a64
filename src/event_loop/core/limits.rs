//! Applies new limits to open connections: each turn updates some of the connections.
//!
//! Most limits are read from `Env` when they are checked. This module updates three values that depend on limits: the
//! size of the read buffer, the `TCP_USER_TIMEOUT` of sockets, and the deadlines in the timer wheel.

use std::time::Duration;

use crate::connection::Connection;
use crate::event_loop::accept::Acceptor;
use crate::event_loop::core::Core;
use crate::event_loop::limit_update::LimitUpdate;
use crate::event_loop::listener::user_timeout;
use crate::event_loop::proxies::ProxyFilter;
use crate::fd::Slot;
use crate::limits::{LimitError, Limits};
use crate::peer::Peer;
use crate::protocol::origin::Origins;

/// The maximum number of slots that are updated in one turn.
const SLOTS_PER_TURN_MAX: u32 = 1024;

impl Core {
    /// Returns the limits of the server.
    pub fn limits(&self) -> &Limits {
        self.siblings.as_ref().map_or(&self.table.env().limits, |siblings| &siblings.limits)
    }

    /// Sets the limits of all loops. Open connections get the limits within the next turns.
    pub fn set_limits(&mut self, limits: Limits) {
        if let Some(siblings) = &mut self.siblings {
            siblings.change_settings(|settings| settings.limits = limits.clone());
        }
        self.replace_limits(limits);
    }

    /// Returns an error if the limits are invalid, or too small for the number of loops.
    pub fn check_limits(&self, limits: &Limits) -> Result<(), LimitError> {
        limits.check()?;
        limits.check_loops(self.siblings.as_ref().map_or(1, |siblings| siblings.loops()))
    }

    /// In a server with several loops, records that this loop begins a turn, and applies the settings that another loop
    /// has changed.
    #[inline(never)]
    pub fn begin_shared_turn(&mut self) {
        if let Some(siblings) = &self.siblings {
            siblings.process().admission.begin_turn(siblings.index(), self.now());
        }
        self.apply_settings();
    }

    /// Applies the settings that another loop has changed.
    fn apply_settings(&mut self) {
        let Some(settings) = self.siblings.as_mut().and_then(|siblings| siblings.new_settings()) else { return };
        self.replace_limits(settings.limits);
        self.table.env_mut().origins = settings.origins;
        self.proxies = settings.proxies;
    }

    fn replace_limits(&mut self, mut limits: Limits) {
        if let Some(siblings) = &mut self.siblings {
            siblings.limits = limits.clone();
            limits = limits.share(siblings.loops());
        }
        let before = std::mem::replace(&mut self.table.env_mut().limits, limits);
        let limits = &self.table.env().limits;
        if before == *limits {
            return;
        }
        let unfinished = self.limit_update.take().and_then(|limit_update| limit_update.write_time_max);
        let is_changed = before.write_time_max != limits.write_time_max || unfinished.is_some();
        let write_time_max = is_changed.then_some(limits.write_time_max);
        self.limit_update = Some(LimitUpdate { next: 0, write_time_max });
    }

    /// Applies new limits to the next [`SLOTS_PER_TURN_MAX`] slots.
    ///
    /// The first call after a change of the limits also updates the listeners and the read buffer.
    pub fn apply_limits(&mut self, acceptor: &Acceptor, buffer: &mut Vec<u8>) {
        let Some(LimitUpdate { next, write_time_max }) = self.limit_update.take() else { return };
        if next == 0 {
            buffer.resize(self.table.env().limits.read_budget_bytes, 0);
            buffer.shrink_to_fit();
            if let Some(write_time_max) = write_time_max {
                acceptor.set_write_time_max(write_time_max);
            }
        }
        let end = self.table.slots_end().min(next.saturating_add(SLOTS_PER_TURN_MAX));
        for slot in (next..end).map(Slot) {
            if let Some(write_time_max) = write_time_max {
                self.set_user_timeout(slot, user_timeout(write_time_max));
            }
            self.arm(slot);
        }
        if end < self.table.slots_end() {
            self.limit_update = Some(LimitUpdate { next: end, write_time_max });
        }
    }

    /// Returns whether connections are left that still have the old limits.
    pub fn has_new_limits(&self) -> bool {
        self.limit_update.is_some()
    }

    /// Sets the origins that browsers may connect from, on all loops.
    pub fn set_origins(&mut self, origins: Origins) {
        if let Some(siblings) = &mut self.siblings {
            siblings.change_settings(|settings| settings.origins = origins.clone());
        }
        self.table.env_mut().origins = origins;
    }

    /// Sets the proxies whose PROXY headers are trusted, on all loops.
    pub fn set_proxies(&mut self, proxies: ProxyFilter) {
        if let Some(siblings) = &mut self.siblings {
            siblings.change_settings(|settings| settings.proxies = proxies.clone());
        }
        self.proxies = proxies;
    }

    /// Sets `TCP_USER_TIMEOUT` on the socket of a TCP connection.
    fn set_user_timeout(&self, slot: Slot, timeout: Duration) {
        let is_tcp = self.table.connection(slot).is_some_and(|connection| connection.peer() != Peer::Unix);
        if let Some(socket) = self.table.transport(slot).filter(|_| is_tcp)
            && let Err(error) = socket2::SockRef::from(socket).set_tcp_user_timeout(Some(timeout))
        {
            log::debug!("fd {}: TCP_USER_TIMEOUT cannot be set: {error}", self.table.fd_of(slot));
        }
    }

    /// Closes connections if unfinished input exceeds `inbound_total_bytes_max`, the largest input first.
    ///
    /// Unfinished input is the memory of messages, heads and bodies that are not complete.
    #[cold]
    pub fn close_largest_inputs(&mut self) {
        for slot in self.table.inbound_holders() {
            self.step(slot, Connection::close_overload);
            self.table.ignore_input(slot);
        }
    }
}
