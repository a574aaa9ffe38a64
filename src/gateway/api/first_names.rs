//! The first names after a given name, selected from names in any order.
//!
//! `benches/state.rs` includes this file, so the file uses no other module of the gateway.

use std::collections::BTreeSet;

use compact_str::CompactString;

/// The first names after a given name, in order.
#[derive(Debug)]
pub struct FirstNames {
    after: Option<String>,
    /// The maximum number of names.
    max: usize,
    /// The names, each once: a portion of a list can repeat a name of an earlier portion.
    kept: BTreeSet<CompactString>,
}

impl FirstNames {
    /// Selects at most `max` names, at least one. All of them come after `after`.
    pub fn new(after: Option<String>, max: usize) -> FirstNames {
        FirstNames { after, max, kept: BTreeSet::new() }
    }

    /// Considers a name.
    ///
    /// The whole list is never sorted: most names are compared with the last kept name only.
    #[inline]
    pub fn add(&mut self, name: &str) {
        let is_behind = self.after.as_deref().is_none_or(|after| name > after);
        let is_full = self.kept.len() >= self.max;
        if !is_behind || (is_full && self.kept.last().is_some_and(|last| name >= last.as_str())) {
            return;
        }
        if self.kept.insert(name.into()) && is_full {
            self.kept.pop_last();
        }
    }

    /// Returns the number of selected names.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Returns the selected names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(CompactString::as_str)
    }
}
