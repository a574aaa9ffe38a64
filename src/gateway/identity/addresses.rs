//! The numbers of open connections by client address, for `address_connections_max`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use fdpush::{Context, Fd};

use super::proxies::address_of;
use crate::gateway::runtime::loop_state::LoopState;

/// The numbers of connections by client address, for use by one loop.
///
/// All loops share the same numbers. Each number counts the open connections of an address, and the connections that
/// were admitted and have not opened yet.
#[derive(Debug)]
pub struct Addresses {
    counts: LoopState<Counts>,
    /// The version of the settings with which this loop counts.
    version: u64,
    is_counting: bool,
    /// The connections that were admitted and have not opened yet.
    admitted: Vec<Admitted>,
}

/// The numbers of connections by client address. The key is the address that `Limits::counted_address` returns.
#[derive(Debug, Default)]
struct Counts {
    /// The version of the settings with which the connections are counted.
    ///
    /// A loop that still uses older settings does not change the numbers. When this loop gets the new settings, it adds
    /// the numbers of its connections.
    version: u64,
    by_address: HashMap<IpAddr, u32>,
}

#[derive(Debug)]
struct Admitted {
    fd: Fd,
    counted: IpAddr,
    version: u64,
}

impl Addresses {
    /// Creates one value for each of `count` loops. No connection is counted yet. The first version of the settings is
    /// 0.
    pub fn several(count: usize, is_counting: bool) -> Vec<Addresses> {
        let counts = LoopState::handles(Counts::default(), count);
        counts.into_iter().map(|counts| Addresses { counts, version: 0, is_counting, admitted: Vec::new() }).collect()
    }

    /// Counts all connections of this loop again, after the settings have changed.
    ///
    /// `version` increases with each change of the settings that affects the numbers. Each loop calls this method once
    /// for each version.
    pub fn recount(&mut self, ctx: &Context<'_>, version: u64, is_counting: bool) {
        (self.version, self.is_counting) = (version, is_counting);
        let addresses = ctx.connections().filter_map(|fd| address_of(ctx, fd, ctx.info(fd)?.peer));
        let counted: Vec<IpAddr> = match is_counting {
            true => addresses.map(|ip| ctx.limits().counted_address(ip)).collect(),
            false => Vec::new(),
        };
        self.counts.with(|counts| {
            if counts.version < version {
                *counts = Counts { version, by_address: HashMap::new() };
            }
            if counts.version == version {
                counted.into_iter().for_each(|counted| counts.add(counted));
            }
        });
    }

    /// Counts a connection that has not opened yet. Returns `false` and does not count the connection if its address
    /// already has `max` connections.
    ///
    /// If the connection does not open in this turn, [`end_turn`](Addresses::end_turn) subtracts it from the number of
    /// its address.
    pub fn admit(&mut self, ctx: &mut Context<'_>, fd: Fd, counted: IpAddr, max: u32) -> bool {
        let version = self.version;
        let is_admitted = self.counts.with(|counts| {
            let is_full = counts.by_address.get(&counted).is_some_and(|count| *count >= max);
            if !is_full && counts.version == version {
                counts.add(counted);
            }
            !is_full
        });
        if is_admitted {
            self.admitted.push(Admitted { fd, counted, version });
            ctx.request_turn_end();
        }
        is_admitted
    }

    /// Counts a connection that has opened, unless [`admit`](Addresses::admit) has already counted it.
    pub fn handle_open(&mut self, fd: Fd, counted: IpAddr) {
        if !self.is_counting {
            return;
        }
        let admitted = self.admitted.iter().position(|admitted| admitted.fd == fd);
        let admitted = admitted.map(|at| self.admitted.swap_remove(at));
        let is_counted =
            admitted.is_some_and(|admitted| admitted.counted == counted && admitted.version == self.version);
        let version = self.version;
        self.counts.with(|counts| {
            if !is_counted && counts.version == version {
                counts.add(counted);
            }
        });
    }

    /// Subtracts a connection that has ended from the number of its address.
    pub fn handle_close(&mut self, counted: IpAddr) {
        if self.is_counting {
            let version = self.version;
            self.counts.with(|counts| counts.remove(counted, version));
        }
    }

    /// Subtracts the connections that were admitted in this turn and did not open from the numbers.
    pub fn end_turn(&mut self) {
        let Addresses { counts, admitted, .. } = self;
        for Admitted { counted, version, .. } in admitted.drain(..) {
            counts.with(|counts| counts.remove(counted, version));
        }
    }
}

impl Counts {
    fn add(&mut self, counted: IpAddr) {
        *self.by_address.entry(counted).or_default() += 1;
    }

    /// Subtracts a connection that was counted with the settings of `version`.
    fn remove(&mut self, counted: IpAddr, version: u64) {
        if self.version == version
            && let Entry::Occupied(mut count) = self.by_address.entry(counted)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
