//! The `id` of a client frame or an API command.
//!
//! The sender chooses the `id`, and the answer repeats the `id` byte for byte.

use std::fmt;

use serde_json::value::RawValue;

/// The maximum length of the JSON text of an `id`, in bytes.
const ID_BYTES_MAX: usize = 128;

/// An `id` that is neither a string nor a number, or is too long.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct BadId;

/// Checks an `id`, and returns its JSON text unchanged.
///
/// # Errors
/// Returns an error if the value is not a string or a number of at most 128 bytes.
pub fn check(id: &RawValue) -> Result<&str, BadId> {
    let id = id.get();
    let is_scalar = id.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
    if is_scalar && id.len() <= ID_BYTES_MAX { Ok(id) } else { Err(BadId) }
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id must be a string or a number of at most {ID_BYTES_MAX} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_short_string_or_number() {
        let is_id = |json: &str| check(&RawValue::from_string(json.to_owned()).expect("the text is JSON")).is_ok();
        let longest = format!("\"{}\"", "x".repeat(ID_BYTES_MAX - 2));
        for id in ["7", "-1", "0.5", "\"a\"", "\"\"", &longest] {
            assert!(is_id(id), "{id}");
        }
        let too_long = format!("\"{}\"", "x".repeat(ID_BYTES_MAX - 1));
        for other in ["true", "null", "{}", "[]", &too_long] {
            assert!(!is_id(other), "{other}");
        }
    }
}
