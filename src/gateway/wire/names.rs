//! Names in JSON: uids, groups and conflation keys.
//!
//! A name is a JSON string, or an integer that stands for its decimal text, because back ends in PHP and Python use
//! integer keys. A name has 1 to 128 bytes. Two names are equal if their bytes are equal. The server does not trim
//! names, does not change their case, and does not normalise them. The reference for names is `docs/api.md`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

use fdpush::NAME_BYTES_MAX;
use fdpush::shared::is_name;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A name whose length is not yet checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name<'a>(pub Cow<'a, str>);

/// An invalid length of a name, in bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct BadLength(pub usize);

/// Checks that a name has 1 to [`NAME_BYTES_MAX`] bytes.
pub fn check(name: &str) -> Result<(), BadLength> {
    if is_name(name) { Ok(()) } else { Err(BadLength(name.len())) }
}

/// Removes duplicates from `items`, and keeps the order of the other items.
pub fn distinct<T: Eq + Hash>(mut items: Vec<T>) -> Vec<T> {
    if items.len() > 1 {
        let mut seen = HashSet::with_capacity(items.len());
        let are_new: Vec<bool> = items.iter().map(|item| seen.insert(item)).collect();
        let mut are_new = are_new.into_iter();
        items.retain(|_| are_new.next() == Some(true));
    }
    items
}

impl AsRef<str> for Name<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name<'a>, D::Error> {
        deserializer.deserialize_any(NameVisitor).map(Name)
    }
}

struct NameVisitor;

/// Floating-point numbers are refused, even if they have no fraction, because one floating-point number above 2⁵³
/// stands for several integers. JSON parsers turn integers over 64 bits into floating-point numbers, so integers over
/// 64 bits are refused, too.
impl<'de> Visitor<'de> for NameVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an integer of 64 bits")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(text.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(text.to_owned().into())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Cow<'de, str>, E> {
        Ok(text.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Cow<'de, str>, E> {
        Ok(number.to_string().into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Cow<'de, str>, E> {
        Ok(number.to_string().into())
    }
}

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name must have 1 to {NAME_BYTES_MAX} bytes, not {}", self.0)
    }
}

impl std::error::Error for BadLength {}

/// Returns copies of the names. The copies own their text.
pub fn owned(names: &[Cow<'_, str>]) -> Vec<Cow<'static, str>> {
    names.iter().map(|name| Cow::Owned(name.clone().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<String, String> {
        let name: Result<Name<'_>, _> = serde_json::from_slice(json.as_bytes());
        name.map(|name| name.0.into_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_integer_is_the_name_with_its_decimal_text() {
        for (json, name) in [
            (r#""10010""#, "10010"),
            ("10010", "10010"),
            ("0", "0"),
            ("-5", "-5"),
            ("9007199254740993", "9007199254740993"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            (r#""a\u0000 \n""#, "a\0 \n"),
            // The composed and the decomposed form of `é` look equal, but are two names.
            (r#""\u00e9""#, "é"),
            (r#""e\u0301""#, "e\u{301}"),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""""#, ""),
        ] {
            assert_eq!(read(json).as_deref(), Ok(name), "{json}");
        }
    }

    #[test]
    fn floating_point_numbers_long_integers_and_other_values_are_no_names() {
        for json in [
            "1.5",
            "1.0",
            "1e3",
            "-0",
            "18446744073709551616",
            "-9223372036854775809",
            "1e999",
            "true",
            "null",
            "[1]",
            "{}",
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            "\"\u{1}\"",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
        assert!(serde_json::from_slice::<Name<'_>>(b"\"\xd5\xc5\"").is_err());
        let error = read("1.5").expect_err("the value is not a name");
        assert!(error.contains("floating point `1.5`, expected a string or an integer of 64 bits"), "{error}");
    }

    #[test]
    fn the_length_of_a_name_is_bounded() {
        assert_eq!(check("a").and(check(&"a".repeat(128))), Ok(()));
        assert_eq!(check(""), Err(BadLength(0)));
        assert_eq!(
            check(&"é".repeat(65)).map_err(|error| error.to_string()),
            Err("a name must have 1 to 128 bytes, not 130".to_owned())
        );
    }
}
