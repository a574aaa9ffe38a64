//! The numbers of client tokens that the server has accepted and refused.

use std::sync::atomic::{AtomicU64, Ordering};

use super::connect_hook::HookStats;

/// The numbers of accepted and refused tokens on all loops, since the start of the server.
#[derive(Default, Debug)]
pub struct TokenCounts {
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl TokenCounts {
    pub fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the numbers as [`HookStats`], so that the metrics show tokens and connect hook in the same form.
    pub fn stats(&self) -> HookStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        HookStats { accepted: read(&self.accepted), refused: read(&self.refused), ..HookStats::default() }
    }
}
