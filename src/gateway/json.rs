//! JSON as it is read and written here: strings are borrowed where they can be, and what is passed on is never rebuilt.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
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

/// JSON that is passed on as it was written, if readers of all languages can read it: nested at most 127 deep, numbers within
/// the range of a double, surrogates in pairs. A reader that fails on one value of a client fails on all that comes with it.
///
/// # Errors
/// Says which of these it breaks.
pub fn portable(text: &str) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_str::<Portable>(text)?;
    serde_json::from_str(text)
}

/// Reads a value to its end and keeps nothing of it. Unlike serde's `IgnoredAny` it looks into numbers and strings.
struct Portable;

impl<'de> Deserialize<'de> for Portable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Portable, D::Error> {
        deserializer.deserialize_any(Portable)
    }
}

impl<'de> Visitor<'de> for Portable {
    type Value = Portable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_str<E>(self, _: &str) -> Result<Portable, E> {
        Ok(Portable)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Portable, A::Error> {
        while seq.next_element::<Portable>()?.is_some() {}
        Ok(Portable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Portable, A::Error> {
        while map.next_entry::<Portable, Portable>()?.is_some() {}
        Ok(Portable)
    }
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

    #[test]
    fn portable_is_what_every_reader_reads() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let members = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        for text in [
            "null",
            " [true, -1, 18446744073709551615, 1.5e300, 123456789012345678901234567890]",
            r#"{"a":{"b":["\u0001\ud83d\ude00\"","消息"]},"a":0}"#,
            &nested(127),
            &members(127),
        ] {
            assert_eq!(portable(text).expect(text).get(), text.trim());
        }
        for text in [
            "1e999",
            "[-1e400]",
            r#"["\ud800"]"#,
            r#"{"\udc00":1}"#,
            r#""\ud800\u0041""#,
            &nested(128),
            &members(128),
            &nested(100_000),
            "[1,]",
            "1 2",
            "",
        ] {
            assert!(portable(text).is_err(), "{}", cut(text));
        }
    }
}
