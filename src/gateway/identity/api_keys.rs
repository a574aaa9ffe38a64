//! The API keys of back ends: their form, their storage and their comparison.
//!
//! Only the SHA-256 digest of a key is stored. All digests have the same length and are compared in constant time (the
//! `subtle` crate). So the time of an answer reveals nothing about a key, not even its length.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// The maximum length of an API key, in bytes. An API key must fit into an HTTP header.
const KEY_BYTES_MAX: usize = 512;

/// The set of valid API keys. The set can contain an old and a new key, so a back end can change its key without an
/// interruption.
#[derive(Clone, Default)]
pub struct ApiKeys {
    digests: Vec<[u8; 32]>,
}

impl ApiKeys {
    /// Creates the set of keys. The caller must check each key with [`check`] before this call.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> ApiKeys {
        ApiKeys { digests: keys.into_iter().map(sha256).collect() }
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Returns whether an `Authorization` header has the form `Bearer <key>` with a key of this set.
    pub fn authorize(&self, header: Option<&str>) -> bool {
        header.and_then(super::bearer).is_some_and(|key| self.contains(key))
    }

    /// Returns whether an `Authorization` header has a bearer token, valid or not.
    pub fn has_bearer(header: &str) -> bool {
        super::bearer(header).is_some()
    }

    /// Returns whether the set has this key. This function compares all keys of the set, even after a match.
    pub fn contains(&self, key: &str) -> bool {
        let digest = sha256(key);
        let is_any = self.digests.iter().fold(Choice::from(0), |any, known| any | known.ct_eq(&digest));
        is_any.into()
    }
}

/// Debug output shows only the number of keys.
impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.digests.len())
    }
}

/// Checks the form of an API key.
///
/// # Errors
///
/// The error states the rule for keys, and does not repeat the key.
pub fn check(key: &str) -> Result<(), &'static str> {
    let is_key = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if is_key { Ok(()) } else { Err("an API key must have 1 to 512 visible ASCII characters and no space") }
}

fn sha256(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_set_is_accepted_with_the_scheme_bearer() {
        let keys = ApiKeys::new(["first", "second", "with#mark"]);
        for key in ["first", "second", "with#mark"] {
            assert!(keys.contains(key), "{key}");
            assert!(keys.authorize(Some(&format!("Bearer {key}"))), "{key}");
            assert!(keys.authorize(Some(&format!("bearer  {key} "))), "{key}");
            assert!(!keys.authorize(Some(key)), "{key} without its scheme must be refused");
            assert!(!keys.authorize(Some(&format!("Basic {key}"))), "{key} with another scheme must be refused");
        }
        for unknown in ["", "firs", "first2", "FIRST", "first second", "#", "# the shop's", &"x".repeat(100_000)] {
            assert!(!keys.contains(unknown), "{unknown:.20}");
            assert!(!keys.authorize(Some(&format!("Bearer {unknown}"))), "{unknown:.20}");
        }
        assert!(!keys.authorize(None));
        assert!(!keys.is_empty());
    }

    #[test]
    fn an_empty_set_accepts_no_key() {
        let none = ApiKeys::default();
        assert!(none.is_empty());
        assert!(!none.contains("") && !none.authorize(None) && !none.authorize(Some("Bearer ")));
    }

    #[test]
    fn an_invalid_key_is_refused_and_not_repeated() {
        for bad in ["", "two words", "clé", "tab\tbed", "nul\0", &"k".repeat(513)] {
            let error = check(bad).expect_err("the key is invalid");
            assert!(
                error.starts_with("an API key must have 1 to 512") && (bad.is_empty() || !error.contains(bad)),
                "{error}"
            );
        }
        assert_eq!(check(&"k".repeat(512)), Ok(()));
    }

    #[test]
    fn debug_output_has_no_key() {
        let keys = ApiKeys::new(["hush"]);
        assert_eq!(format!("{keys:?}"), "ApiKeys(1)");
    }
}
