//! Every fault of the settings that was found in one reading.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

/// Why settings cannot be used.
#[derive(Default, Debug)]
pub struct Faults {
    texts: Vec<String>,
    /// Settings without a usable value. What depends on them is not judged.
    invalid: BTreeSet<&'static str>,
    /// The command line or the environment has one of them.
    is_usage: bool,
}

impl Faults {
    /// A setting has no usable value.
    pub fn mark_invalid(&mut self, key: &'static str, text: String) {
        self.invalid.insert(key);
        self.texts.push(text);
    }

    /// The same of a flag or a variable.
    pub fn mark_invalid_usage(&mut self, key: &'static str, text: String) {
        self.is_usage = true;
        self.mark_invalid(key, text);
    }

    /// A fault that concerns these settings. If one of them has no usable value, that is the fault.
    pub fn add(&mut self, keys: &[&str], text: String) {
        if !keys.iter().any(|key| self.invalid.contains(key)) && !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }

    /// Whether a setting has no usable value.
    pub fn is_invalid(&self, key: &str) -> bool {
        self.invalid.contains(key)
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Whether the command line or the environment cannot be used.
    pub fn is_usage(&self) -> bool {
        self.is_usage
    }

    /// The faults, one by one.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Nothing, if there are no faults.
    pub fn into_result(self) -> Result<(), Faults> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<String> for Faults {
    fn from(text: String) -> Faults {
        Faults { texts: vec![text], ..Faults::default() }
    }
}

/// In one line, for the log.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts.join("; "))
    }
}

impl Error for Faults {}
