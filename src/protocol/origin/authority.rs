//! The syntax of origins and of the `Host` field.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::protocol::request::Request;
use crate::protocol::utf8;

/// The maximum length of a domain name, in bytes.
///
/// The dot at the end of a name, which stands for the DNS root, is not counted. See RFC 1035 section 2.3.4.
pub const DNS_NAME_BYTES_MAX: usize = 253;

/// The maximum length of a label of a domain name, in bytes.
pub const DNS_LABEL_BYTES_MAX: usize = 63;

/// An origin: `scheme://host[:port]`.
pub struct Origin<'a> {
    pub scheme: &'a str,
    pub authority: Authority<'a>,
}

/// An authority: `host[:port]`, as in `Host` and in an origin.
///
/// See RFC 9110 section 7.2.
pub struct Authority<'a> {
    pub host: Host<'a>,
    /// The port. An empty port (`example.com:`) is `None`.
    pub port: Option<u16>,
}

/// A host.
///
/// Names and IPv4 addresses are compared as text, ignoring case. IPv6 addresses are compared by value, because an
/// address has many spellings.
pub enum Host<'a> {
    Name(&'a str),
    V6(Ipv6Addr),
}

impl<'a> Origin<'a> {
    /// Parses an origin (RFC 6454 section 6.2).
    ///
    /// The text must be a single origin, without a path, a user or spaces.
    pub fn parse(text: &'a str) -> Option<Origin<'a>> {
        let (scheme, authority) = text.split_once("://")?;
        // RFC 3986 section 3.1.
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let authority = Authority::parse(authority.as_bytes())?;
        is_scheme.then_some(Origin { scheme, authority })
    }

    /// Returns whether the origin has the host and port of the `Host` header.
    ///
    /// The scheme must be `http` or `https`. If `Host` has no port, its port is the default port of the origin's
    /// scheme, because a server behind a proxy does not know whether the page used TLS. If the request came through a
    /// TLS listener, the scheme must be `https`.
    pub fn matches_host(&self, request: &Request<'_>) -> bool {
        let Some(default) = default_port(self.scheme) else {
            return false;
        };
        if request.tls().is_some() && !self.scheme.eq_ignore_ascii_case("https") {
            return false;
        }
        host_of(request).is_some_and(|host| {
            self.authority.host.equals(&host.host) && self.port() == Some(host.port.unwrap_or(default))
        })
    }

    pub fn port(&self) -> Option<u16> {
        self.authority.port.or_else(|| default_port(self.scheme))
    }
}

/// Writes the normal form of the origin.
///
/// The normal form is in lower case, has no default port, and has the shortest spelling of an IPv6 address.
impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.to_ascii_lowercase())?;
        match self.authority.host {
            Host::Name(name) => f.write_str(&name.to_ascii_lowercase())?,
            Host::V6(ip) => write!(f, "[{ip}]")?,
        }
        match self.authority.port {
            Some(port) if default_port(self.scheme) != Some(port) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

impl<'a> Authority<'a> {
    /// Parses an authority `host[:port]` (RFC 3986 section 3.2).
    ///
    /// A user part, `user@`, is invalid in `Host` and `Origin`. An empty host is invalid (RFC 9110 section 4.2.1).
    pub fn parse(bytes: &'a [u8]) -> Option<Authority<'a>> {
        let text = utf8::validate(bytes).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (ip, port) = rest.split_once(']')?;
                (Host::V6(ip.parse().ok()?), port)
            }
            None => {
                let (name, port) = text.split_at(memchr::memchr(b':', bytes).unwrap_or(text.len()));
                (Host::Name(is_reg_name(name).then_some(name)?), port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some("") => None,
            // `u16::from_str` alone would accept a plus sign.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
            None if port.is_empty() => None,
            _ => return None,
        };
        Some(Authority { host, port })
    }
}

impl Host<'_> {
    pub fn equals(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Host::V6(a), Host::V6(b)) => a == b,
            _ => false,
        }
    }

    /// Returns whether the host is a loopback name or address.
    ///
    /// Loopback names are defined in RFC 6761 section 6.3.
    pub fn is_loopback(&self) -> bool {
        match self {
            Host::V6(ip) => ip.is_loopback(),
            Host::Name(name) => {
                let last = name.rsplit('.').next().unwrap_or(name);
                last.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
            }
        }
    }
}

/// Returns whether `name` is a non-empty `reg-name`, the syntax of host names in URLs.
///
/// RFC 3986 section 3.2.2 defines `reg-name`. An IPv4 address is a valid `reg-name`.
fn is_reg_name(name: &str) -> bool {
    let mut rest = name.as_bytes();
    while let Some(at) = rest.iter().position(|byte| !REG_NAME_BYTES[usize::from(*byte)]) {
        match rest.get(at..) {
            Some([b'%', high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest = after,
            _ => return false,
        }
    }
    !name.is_empty()
}

/// For each byte, whether a `reg-name` may contain it without percent-encoding.
const REG_NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let special = b"-._~!$&'()*+,;=";
        let mut index = 0;
        while index < special.len() {
            table[byte] |= special[index] as usize == byte;
            index += 1;
        }
        table[byte] |= (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

pub fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else {
        None
    }
}

/// Returns the host and port of a request, from its `Host` header.
pub fn host_of<'r>(request: &'r Request<'_>) -> Option<Authority<'r>> {
    request.values("host").next().and_then(Authority::parse)
}
