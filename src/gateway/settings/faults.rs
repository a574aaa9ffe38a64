//! Collects the faults of the settings, so that one run reports all faults.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

/// The reasons why settings cannot be used.
#[derive(Default, Debug)]
pub struct Faults {
    texts: Vec<String>,
    /// The settings that have no valid value. Checks that depend on an invalid setting are skipped.
    invalid: BTreeSet<&'static str>,
    /// Whether a flag or a variable is invalid.
    is_usage: bool,
}

impl Faults {
    /// Marks a setting as a setting without a valid value, and adds the text of its fault.
    pub fn mark_invalid(&mut self, key: &'static str, text: String) {
        self.invalid.insert(key);
        self.texts.push(text);
    }

    /// Works like [`mark_invalid`](Faults::mark_invalid), for a value from a flag or a variable.
    pub fn mark_invalid_usage(&mut self, key: &'static str, text: String) {
        self.is_usage = true;
        self.mark_invalid(key, text);
    }

    /// Adds a fault of several settings, unless one of the settings has no valid value.
    pub fn add(&mut self, keys: &[&str], text: String) {
        if !keys.iter().any(|key| self.invalid.contains(key)) && !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }

    /// Returns whether a setting was marked as invalid.
    pub fn is_invalid(&self, key: &str) -> bool {
        self.invalid.contains(key)
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Returns whether the command line or the environment is invalid.
    pub fn is_usage(&self) -> bool {
        self.is_usage
    }

    /// Returns the text of each fault.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Returns the faults as an error, if there are any.
    pub fn into_result(self) -> Result<(), Faults> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<String> for Faults {
    fn from(text: String) -> Faults {
        Faults { texts: vec![text], ..Faults::default() }
    }
}

/// Writes all faults in one line, for the log.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts.join("; "))
    }
}

impl Error for Faults {}
