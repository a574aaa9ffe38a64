//! The identity of clients, and the ways to authenticate a client.
//!
//! This module owns the [`Identity`], and the rules for uids and group names. Most submodules do not import each other.

pub mod addresses;
pub mod api_keys;
pub mod connect_hook;
pub mod expiry;
pub mod exposure;
pub mod jwt;
pub mod permissions;
pub mod proxies;
pub mod subprotocol;
pub mod token_counts;

use std::fmt;

use fdpush::{NAME_BYTES_MAX, Request};
use serde_json::{Map, Value};

use crate::gateway::wire::json::Seconds;
use crate::gateway::wire::names::{self, BadLength};

/// The tolerated difference between the clocks of the back end and of this server, in seconds.
///
/// An identity expires this number of seconds after its `exp`, for new clients and for open connections.
pub const LEEWAY: u64 = 5;

/// The maximum number of groups of an identity.
pub const GROUPS_MAX: usize = 1000;

/// The identity of an authenticated client.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The uid, 1 to [`NAME_BYTES_MAX`] bytes. `None` for an anonymous client.
    pub uid: Option<String>,
    /// The names of the groups that the connection joins when it opens. There are at most [`GROUPS_MAX`] names, and
    /// each name has 1 to [`NAME_BYTES_MAX`] bytes.
    pub groups: Vec<String>,
    /// The attributes that the back end gave to the client. The server stores the attributes with the connection.
    pub attributes: Map<String, Value>,
    /// The expiry in seconds since 1970. The server applies the expiry [`LEEWAY`] seconds later. The value is at most
    /// 2⁵³, so that `exp` plus [`LEEWAY`] does not overflow.
    pub exp: Option<u64>,
    /// The subprotocol that the back end chose among the subprotocols that the client offered.
    pub subprotocol: Option<String>,
}

/// An invalid name or an invalid number of groups in an identity. The error has the position and the length of the
/// name, but not the name itself, because the name is untrusted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum NameError {
    /// The uid has this invalid length in bytes.
    Uid(usize),
    /// The group at this position, counted from 1, has this invalid length in bytes.
    Group(usize, usize),
    /// The identity has this number of groups, which exceeds [`GROUPS_MAX`].
    Groups(usize),
}

impl Identity {
    /// Creates an identity without expiry.
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

/// Returns whether an identity with this `exp` has expired at `now`, in seconds since 1970. A fraction of a second in
/// `exp` is cut off.
pub fn has_expired(exp: Seconds, now: u64) -> bool {
    exp.0.floor() + LEEWAY as f64 <= now as f64
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Uid(len) => write!(f, "uid must have 1 to {NAME_BYTES_MAX} bytes, not {len}"),
            NameError::Group(place, len) => {
                write!(f, "group {place} must have 1 to {NAME_BYTES_MAX} bytes, not {len}")
            }
            NameError::Groups(count) => write!(f, "group limit exceeded ({count} of {GROUPS_MAX})"),
        }
    }
}

impl std::error::Error for NameError {}

/// Returns the credentials of an `Authorization: Bearer` header (RFC 6750 section 2.1). The case of the scheme `Bearer`
/// does not matter.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, credentials) = header.split_once(' ')?;
    let credentials = credentials.trim_ascii();
    (scheme.eq_ignore_ascii_case("bearer") && !credentials.is_empty()).then_some(credentials)
}

/// Returns whether a request has several `Authorization` headers. A header with a value that is not UTF-8 also counts.
pub fn has_several_authorizations(request: &Request<'_>) -> bool {
    request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).nth(1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_names_and_the_number_of_groups_are_bounded() {
        let name = |len: usize| "a".repeat(len);
        let identity = |uid: Option<String>, groups: Vec<String>| Identity::new(uid, groups);
        assert!(identity(None, vec![]).is_ok_and(|identity| identity == Identity::default()));
        assert!(identity(Some(name(128)), vec![name(1); GROUPS_MAX]).is_ok());
        assert_eq!(identity(Some(name(0)), vec![]), Err(NameError::Uid(0)));
        assert_eq!(identity(Some(name(129)), vec![]), Err(NameError::Uid(129)));
        assert_eq!(identity(None, vec![name(1), name(0)]), Err(NameError::Group(2, 0)));
        assert_eq!(identity(None, vec![name(129)]), Err(NameError::Group(1, 129)));
        assert_eq!(identity(None, vec![name(1); GROUPS_MAX + 1]), Err(NameError::Groups(1001)));
        assert_eq!(
            identity(Some("é".repeat(65)), vec![]),
            Err(NameError::Uid(130)),
            "the limit must count bytes, not letters"
        );
    }

    #[test]
    fn the_credentials_of_a_bearer_header_are_returned() {
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
    fn errors_name_the_limits() {
        assert_eq!(NameError::Uid(129).to_string(), "uid must have 1 to 128 bytes, not 129");
        assert_eq!(NameError::Group(2, 0).to_string(), "group 2 must have 1 to 128 bytes, not 0");
        assert_eq!(NameError::Groups(1001).to_string(), "group limit exceeded (1001 of 1000)");
    }
}
