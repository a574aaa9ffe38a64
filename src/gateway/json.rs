//! JSON as it is read and written here: strings are borrowed where they can be, and what is passed on is never rebuilt.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A string, without a copy where it has no escapes.
#[derive(Clone, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Writes a string as JSON has it.
pub struct Quoted<'a>(pub &'a str);

impl Quoted<'_> {
    /// Appends it, without the cost of formatting: for what is written a message.
    pub fn append_to(&self, out: &mut String) {
        // Writing to a string does not fail.
        let _ = self.write_to(out);
    }

    fn write_to(&self, out: &mut impl fmt::Write) -> fmt::Result {
        // Most names have nothing to escape.
        if self.0.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            out.write_char('"')?;
            out.write_str(self.0)?;
            return out.write_char('"');
        }
        out.write_str(&serde_json::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

/// For a member whose `null` is a value like any other: it is there.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}
