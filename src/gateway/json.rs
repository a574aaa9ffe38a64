//! JSON as it is read and written here: strings are borrowed where they can be, and what is passed on is never rebuilt.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// What a message repeats of a text that it was sent, at most.
const ECHO_BYTES_MAX: usize = 64;

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

/// What others sent, as a message repeats it: enough to know it by.
pub fn cut(text: &str) -> Cow<'_, str> {
    let end = (0..=ECHO_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    if text.len() > ECHO_BYTES_MAX { format!("{}…", &text[..end]).into() } else { text.into() }
}

/// What the JSON reader says, with what it repeats of its input cut: the text in quotes before what it expected.
pub fn cut_quoted(message: &str) -> Cow<'_, str> {
    let (Some(start), Some(end)) = (message.find(['`', '"']), message.rfind(", expected ")) else {
        return message.into();
    };
    let quote = &message[start..=start];
    match message.get(start + 1..end).and_then(|quoted| quoted.strip_suffix(quote)) {
        Some(quoted) if quoted.len() > ECHO_BYTES_MAX => {
            format!("{}{}{quote}{}", &message[..=start], cut(quoted), &message[end..]).into()
        }
        _ => message.into(),
    }
}

/// For a member whose `null` is a value like any other: it is there.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_cut_between_characters() {
        for text in ["", "short", &"x".repeat(64)] {
            assert_eq!(cut(text), text);
        }
        assert_eq!(cut(&"x".repeat(65)), format!("{}…", "x".repeat(64)));
        assert_eq!(cut(&"€".repeat(1000)), format!("{}…", "€".repeat(21)));
    }

    #[test]
    fn what_the_reader_quotes_is_cut_and_the_rest_stays() {
        for message in [
            "EOF while parsing a value at line 1 column 0",
            "missing field `uids` at line 1 column 2",
            "invalid type: integer `17`, expected a string at line 1 column 9",
            "unknown field `udi`, expected one of `uid`, `uids` at line 1 column 6",
        ] {
            assert_eq!(cut_quoted(message), message);
        }
        let long = "\", expected `ü".repeat(1000);
        for (before, quote) in [("unknown field ", '`'), ("invalid type: string ", '"')] {
            let behind = ", expected one of `uid`, `uids` at line 1 column 6";
            let told = cut_quoted(&format!("{before}{quote}{long}{quote}{behind}")).into_owned();
            assert_eq!(told, format!("{before}{quote}{}{quote}{behind}", cut(&long)));
        }
    }
}
