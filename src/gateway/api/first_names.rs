//! Selects the names for one page of a sorted list from unsorted names.
//!
//! `benches/state.rs` includes this file, so this file uses no other module of the gateway.

use std::collections::BTreeSet;

use compact_str::CompactString;

/// A selection of the first names after a given name, in sorted order.
#[derive(Debug)]
pub struct FirstNames {
    /// All selected names come after the name `after`. If `after` is `None`, any name can be selected.
    after: Option<String>,
    /// The maximum number of selected names.
    max: usize,
    /// The selected names, without duplicates. A portion of a list can repeat a name of an earlier portion.
    kept: BTreeSet<CompactString>,
}

impl FirstNames {
    /// Creates an empty selection for the first `max` names after `after`.
    pub fn new(after: Option<String>, max: usize) -> FirstNames {
        FirstNames { after, max, kept: BTreeSet::new() }
    }

    /// Adds a name to the selection.
    ///
    /// The method ignores a name that does not come after `after`, and a name that comes after `max` selected names.
    /// The method does not sort the whole list, because it compares most names only with `after` and the last selected
    /// name.
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

    /// Returns the selected names in sorted order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(CompactString::as_str)
    }
}
