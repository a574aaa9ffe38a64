//! Who a client is: what every way of finding out ends in.
//!
//! It owns the [`Identity`] and what its names must be like. Each way is a room of its own and knows no other.

pub mod api_keys;
pub mod connect_hook;
pub mod expiry;
pub mod exposure;
pub mod jwt;
pub mod permissions;
pub mod proxies;
pub mod subprotocol;

use std::fmt;

use fdpush::NAME_BYTES_MAX;
use serde_json::{Map, Value};

use crate::gateway::wire::json::Seconds;
use crate::gateway::wire::names::{self, BadLength};

/// Seconds by which two clocks may differ: what ends, ends that much later, for who comes and for who is there.
pub const LEEWAY: u64 = 5;

/// Groups that one identity can bring with it.
pub const GROUPS_MAX: usize = 1000;

/// A client, once it is known who that is.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The name, 1 to [`NAME_BYTES_MAX`] bytes; `None` for a client that is welcome without one.
    pub uid: Option<String>,
    /// The groups to join at once, at most [`GROUPS_MAX`], each 1 to [`NAME_BYTES_MAX`] bytes.
    pub groups: Vec<String>,
    /// What the back end wants to find again with the connection.
    pub attributes: Map<String, Value>,
    /// When it stops being true, in seconds since 1970, and [`LEEWAY`] later for our clock. It never exceeds 2⁵³, so that no sum with it overflows.
    pub exp: Option<u64>,
    /// The subprotocol that the back end chose, among those that the client offers.
    pub subprotocol: Option<String>,
}

/// What is wrong with an identity's names. It tells the place and the size, and not the name, which is a stranger's.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum NameError {
    /// The uid has this many bytes.
    Uid(usize),
    /// The group at this place, counted from 1, has this many bytes.
    Group(usize, usize),
    /// There are this many groups.
    Groups(usize),
}

impl Identity {
    /// An identity of these names, which last for ever.
    pub fn new(uid: Option<String>, groups: Vec<String>) -> Result<Identity, NameError> {
        if let Some(Err(BadLength(len))) = uid.as_deref().map(names::check) {
            return Err(NameError::Uid(len));
        }
        if groups.len() > GROUPS_MAX {
            return Err(NameError::Groups(groups.len()));
        }
        for (index, group) in groups.iter().enumerate() {
            names::check(group).map_err(|BadLength(len)| NameError::Group(index + 1, len))?;
        }
        Ok(Identity { uid, groups, ..Identity::default() })
    }
}

/// Whether what ends at `exp` is over at `now`, in seconds since 1970. Halves of a second count against it.
pub fn is_over(exp: Seconds, now: u64) -> bool {
    exp.0.floor() + LEEWAY as f64 <= now as f64
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Uid(len) => write!(f, "the uid has {len} bytes: it must have 1 to {NAME_BYTES_MAX}"),
            NameError::Group(place, len) => {
                write!(f, "group {place} has a name of {len} bytes: it must have 1 to {NAME_BYTES_MAX}")
            }
            NameError::Groups(count) => write!(f, "{count} groups: at most {GROUPS_MAX}"),
        }
    }
}

impl std::error::Error for NameError {}

/// The credentials of an `Authorization: Bearer` header (RFC 6750 section 2.1); the scheme's letters are of any case.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, credentials) = header.split_once(' ')?;
    let credentials = credentials.trim_ascii();
    (scheme.eq_ignore_ascii_case("bearer") && !credentials.is_empty()).then_some(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_their_bounds() {
        let name = |len: usize| "a".repeat(len);
        let identity = |uid: Option<String>, groups: Vec<String>| Identity::new(uid, groups);
        assert!(identity(None, vec![]).is_ok_and(|identity| identity == Identity::default()));
        assert!(identity(Some(name(128)), vec![name(1); GROUPS_MAX]).is_ok());
        assert_eq!(identity(Some(name(0)), vec![]), Err(NameError::Uid(0)));
        assert_eq!(identity(Some(name(129)), vec![]), Err(NameError::Uid(129)));
        assert_eq!(identity(None, vec![name(1), name(0)]), Err(NameError::Group(2, 0)));
        assert_eq!(identity(None, vec![name(129)]), Err(NameError::Group(1, 129)));
        assert_eq!(identity(None, vec![name(1); GROUPS_MAX + 1]), Err(NameError::Groups(1001)));
        assert_eq!(identity(Some("é".repeat(65)), vec![]), Err(NameError::Uid(130)), "bytes are counted, not letters");
    }

    #[test]
    fn bearers() {
        for (header, credentials) in [
            ("Bearer abc", Some("abc")),
            ("bearer  a b ", Some("a b")),
            ("BEARER x", Some("x")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("Bearerabc", None),
            ("", None),
        ] {
            assert_eq!(bearer(header), credentials, "{header:?}");
        }
    }

    #[test]
    fn faults_say_what_is_allowed() {
        assert_eq!(NameError::Uid(129).to_string(), "the uid has 129 bytes: it must have 1 to 128");
        assert_eq!(NameError::Group(2, 0).to_string(), "group 2 has a name of 0 bytes: it must have 1 to 128");
        assert_eq!(NameError::Groups(1001).to_string(), "1001 groups: at most 1000");
    }
}
