//! Percent-decoding of paths and query parameters.
//!
//! A parameter that is not UTF-8 has no value: with replacement characters, two different names could become equal.
//! This module does not know requests or particular parameters.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{percent_decode, percent_decode_str};

use super::token;

/// The maximum length of the name of a parameter in the text of an error, in bytes. A longer name is shortened.
const SHOWN_NAME_BYTES_MAX: usize = 64;

/// The reason why a query parameter has no value.
///
/// The field of each variant is the name of the parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum QueryError {
    /// A `%` is not followed by two hexadecimal digits.
    Escape(String),
    /// The decoded bytes are not UTF-8.
    NotUtf8(String),
    /// The parameter is repeated. Other software uses the first, the last or all values of such a parameter.
    Repeated(String),
}

/// An error in percent-encoded text.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    Escape,
    NotUtf8,
}

/// Splits a query into names and values, still encoded, in order.
///
/// A name without `=` has the value `""`.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(query);
    let pairs = std::iter::from_fn(move || {
        let text = rest.take()?;
        let (pair, others) = token::split_once(text, b'&').map_or((text, None), |(pair, others)| (pair, Some(others)));
        rest = others;
        Some(pair)
    });
    pairs.filter(|pair| !pair.is_empty()).map(|pair| token::split_once(pair, b'=').unwrap_or((pair, "")))
}

/// Returns the value of a parameter; `None` if it is absent.
///
/// # Errors
/// Returns an error if the parameter is repeated, or if its value is not percent-encoded UTF-8.
pub fn value<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, QueryError> {
    let mut values = pairs(query).filter(|(encoded, _)| name_equals(encoded, name)).map(|(_, value)| value);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(QueryError::Repeated(name.to_owned()));
    }
    decode_form(value).map(Some).map_err(|fault| fault.of(name))
}

/// Checks that all names and values of a query are percent-encoded UTF-8.
///
/// # Errors
/// Returns an error that names the first parameter whose name or value is not percent-encoded UTF-8.
pub fn check(query: &str) -> Result<(), QueryError> {
    pairs(query).try_for_each(|(name, value)| {
        decode_form(name).and_then(|_| decode_form(value)).map(|_| ()).map_err(|fault| {
            let bytes: Vec<u8> = percent_decode_str(name).collect();
            fault.of(&String::from_utf8_lossy(&bytes))
        })
    })
}

/// Decodes a path, in which `+` is a plus sign.
///
/// # Errors
/// Returns an error if the path has a `%` without two hexadecimal digits, or if the decoded bytes are not UTF-8.
pub fn decode_path(encoded: &str) -> Result<Cow<'_, str>, DecodeError> {
    // Most paths and names have no percent-encoding, and are returned without a copy.
    if memchr::memchr(b'%', encoded.as_bytes()).is_none() {
        return Ok(encoded.into());
    }
    if !has_valid_escapes(encoded) {
        return Err(DecodeError::Escape);
    }
    percent_decode_str(encoded).decode_utf8().map_err(|_| DecodeError::NotUtf8)
}

/// Decodes a name or a value of form data.
///
/// In form data, `+` is a space.
fn decode_form(encoded: &str) -> Result<Cow<'_, str>, DecodeError> {
    if memchr::memchr2(b'+', b'%', encoded.as_bytes()).is_none() {
        return Ok(encoded.into());
    }
    if memchr::memchr(b'+', encoded.as_bytes()).is_some() {
        return decode_path(&encoded.replace('+', " ")).map(|decoded| decoded.into_owned().into());
    }
    decode_path(encoded)
}

/// Returns whether an encoded name equals `name` after decoding.
fn name_equals(encoded: &str, name: &str) -> bool {
    if memchr::memchr2(b'%', b'+', encoded.as_bytes()).is_none() {
        return encoded == name;
    }
    percent_decode(encoded.replace('+', " ").as_bytes()).eq(name.bytes())
}

/// Returns whether two hexadecimal digits follow each `%`.
fn has_valid_escapes(encoded: &str) -> bool {
    let is_escape = |rest: &str| rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    encoded.split('%').skip(1).all(is_escape)
}

impl DecodeError {
    fn of(self, name: &str) -> QueryError {
        match self {
            DecodeError::Escape => QueryError::Escape(name.to_owned()),
            DecodeError::NotUtf8 => QueryError::NotUtf8(name.to_owned()),
        }
    }
}

/// The text names the parameter, and does not include its value.
impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, fault) = match self {
            QueryError::Escape(name) => (name, "has a % without two hexadecimal digits"),
            QueryError::NotUtf8(name) => (name, "is not percent-encoded UTF-8"),
            QueryError::Repeated(name) => (name, "is given more than once"),
        };
        let end = name.floor_char_boundary(SHOWN_NAME_BYTES_MAX);
        let cut = if end < name.len() { "…" } else { "" };
        write!(f, "query parameter {}{cut} {fault}", name[..end].escape_debug())
    }
}

impl std::error::Error for QueryError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_or_invalid_parameter_has_no_value() {
        let escape = || Err(QueryError::Escape("uid".to_owned()));
        let not_utf8 = || Err(QueryError::NotUtf8("uid".to_owned()));
        let repeated = || Err(QueryError::Repeated("uid".to_owned()));
        for (query, outcome) in [
            ("", Ok(None)),
            ("uids=1&UID=2&xuid=3", Ok(None)),
            ("uid=1", Ok(Some("1"))),
            ("a=%ff&uid=1&b=%", Ok(Some("1"))),
            ("uid", Ok(Some(""))),
            ("uid=", Ok(Some(""))),
            ("uid==a", Ok(Some("=a"))),
            ("u%69d=1", Ok(Some("1"))),
            ("uid=a+b%2B%20c%26", Ok(Some("a b+ c&"))),
            ("uid=%E5%BC%A0%E4%B8%89", Ok(Some("张三"))),
            ("uid=张三", Ok(Some("张三"))),
            ("uid=张%E4%B8%89+", Ok(Some("张三 "))),
            ("uid=%00", Ok(Some("\0"))),
            // Values that are not UTF-8: GBK, Latin-1, an overlong NUL, half of a surrogate pair, and a character that
            // is partly raw and partly encoded.
            ("uid=%D5%C5%C8%FD", not_utf8()),
            ("uid=%C0%EE%CB%C4", not_utf8()),
            ("uid=caf%E9", not_utf8()),
            ("uid=%C0%80", not_utf8()),
            ("uid=%ED%A0%80", not_utf8()),
            ("uid=%E5%BC", not_utf8()),
            ("uid=a+%ff", not_utf8()),
            ("uid=%", escape()),
            ("uid=%4", escape()),
            ("uid=%zz", escape()),
            ("uid=%+4", escape()),
            ("uid=%é", escape()),
            ("uid=100%+sure", escape()),
            ("uid=1&uid=2", repeated()),
            ("uid=1&uid=1", repeated()),
            ("uid=1&u%69d=2", repeated()),
            ("uid&uid=%ff", repeated()),
            ("ui%64%=1", Ok(None)),
        ] {
            let got = value(query, "uid");
            assert_eq!(got.as_ref().map(Option::as_deref), outcome.as_ref().copied(), "{query}");
        }
        assert_eq!(value("a+b=1", "a b").expect("the parameter must have a value").as_deref(), Some("1"));
    }

    #[test]
    fn check_refuses_an_invalid_name_or_value_of_any_parameter() {
        for good in ["", "&&", "a=1&a=2", "after=%E6%B6%88&limit=5", "a+b=100%25", "é=é"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, message) in [
            ("after=100%", "query parameter after has a % without two hexadecimal digits"),
            ("a=1&b=%ff", "query parameter b is not percent-encoded UTF-8"),
            ("%ff=1", "query parameter \u{fffd} is not percent-encoded UTF-8"),
            ("a%0A%=1", "query parameter a\\n% has a % without two hexadecimal digits"),
        ] {
            assert_eq!(check(bad).map_err(|error| error.to_string()), Err(message.to_owned()), "{bad}");
        }
        let long = check(&format!("{}=%", "é".repeat(500))).expect_err("the query must be refused").to_string();
        assert!(long.contains(&format!("{}… has", "é".repeat(32))), "{long}");
    }
}
