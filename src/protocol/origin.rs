//! The `Origin` check for requests from browsers.
//!
//! It follows RFC 6455 section 10.2 and RFC 6454 section 7. A browser lets any page open a WebSocket to any server, and
//! only reports the origin of the page. The server must check it. It compares scheme, host and port as parsed values,
//! not as text, so neither `evil-example.com` nor `example.com.evil` equals `example.com`. An origin that cannot be
//! parsed is refused.

mod rule;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::request::Request;
use super::response::Response;

/// The origins from which browsers may connect.
///
/// Clients that send no `Origin` are not browsers and are accepted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Origins {
    /// Only pages of this server.
    ///
    /// The `Origin` must have the host and port of the `Host` header. The scheme may be `http` or `https`, because TLS
    /// may end at a proxy in front of the server.
    ///
    /// A client on the loopback interface must also use a loopback name in `Host`: `localhost`, `*.localhost`,
    /// `127.0.0.0/8` or `[::1]`. Otherwise a page that rebinds its own DNS name to 127.0.0.1 would have the same origin
    /// as every server on the visitor's machine.
    #[default]
    Same,
    /// Any page of any site.
    ///
    /// For servers that do not rely on cookies or on the network for authentication.
    Any,
    /// Only pages of these origins; made by [`Origins::list`].
    List(Vec<String>),
}

/// The reason that an origin is refused.
///
/// The text says how to allow it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OriginError {
    /// The header is repeated.
    Repeated,
    /// The header is `null`, which is not listed.
    ///
    /// It comes from a sandboxed frame, a local file, or a redirect across sites.
    Null,
    /// The header is not `scheme://host[:port]`. Holds its value.
    Malformed(String),
    /// The origin is not the server's own, and no list is set.
    ///
    /// Holds the origin.
    Foreign(String),
    /// The origin is not in the list. Holds the origin.
    ///
    /// The list replaces the server's own origin.
    Unlisted(String),
    /// A loopback client used a name that is not a loopback name.
    ///
    /// This indicates DNS rebinding. Holds the origin.
    Rebound(String),
}

/// A `scheme://host[:port]`.
struct Origin<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

/// A `host[:port]`, as in `Host` and in an origin.
///
/// See RFC 9110 section 7.2.
pub(super) struct Authority<'a> {
    host: Host<'a>,
    /// An empty port (`example.com:`) counts as none.
    port: Option<u16>,
}

/// A host.
///
/// Names and IPv4 addresses are compared as text, without case. IPv6 addresses have many spellings and are compared by
/// value.
enum Host<'a> {
    Name(&'a str),
    V6(Ipv6Addr),
}

impl Origins {
    /// Accepts these origins, each `scheme://host[:port]` as browsers send it.
    ///
    /// An origin has no path and no slash at the end. Schemes of apps (`capacitor://localhost`) and extensions are
    /// allowed.
    ///
    /// A host may begin with one `*.`, which stands for one or more labels, as in CSP: `https://*.example.com` matches
    /// `https://a.example.com` and `https://a.b.example.com`, and not `https://example.com`.
    ///
    /// Two special origins can be listed. `file://` is the origin of some native clients (ESP32). `null` is the origin
    /// of pages from files, and also of every sandboxed frame of any site: a list with `null` does not protect cookies.
    ///
    /// # Errors
    /// Names the entry that is not an origin, or that no browser sends.
    pub fn list<I>(origins: I) -> Result<Origins, String>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let list = origins.into_iter().map(|origin| rule::normalise(origin.as_ref()));
        list.collect::<Result<_, _>>().map(Origins::List)
    }

    /// Checks the `Origin` header of a request.
    ///
    /// # Errors
    /// The reason of the refusal; [`OriginError::response`] is the 403 to send.
    pub fn allows(&self, request: &Request) -> Result<(), OriginError> {
        if *self == Origins::Any {
            return Ok(());
        }
        let mut headers = request.values("origin");
        let Some(value) = headers.next() else {
            return Ok(());
        };
        if headers.next().is_some() {
            return Err(OriginError::Repeated);
        }
        if value == rule::NULL.as_bytes() {
            return if self.is_listed(rule::NULL) { Ok(()) } else { Err(OriginError::Null) };
        }
        let text = str::from_utf8(value).map_err(|_| OriginError::Malformed(escaped(value)))?;
        if rule::is_file(text) {
            return match self {
                _ if self.is_listed(rule::FILE) => Ok(()),
                Origins::Same => Err(OriginError::Foreign(escaped(value))),
                Origins::Any | Origins::List(_) => Err(OriginError::Unlisted(escaped(value))),
            };
        }
        let Some(origin) = Origin::parse(text) else {
            return Err(OriginError::Malformed(escaped(value)));
        };
        match self {
            Origins::Any => Ok(()),
            Origins::List(list) if list.iter().any(|listed| rule::matches(listed, &origin)) => Ok(()),
            Origins::Same if origin.matches_host(request) => {
                if request.peer().is_loopback() && !Origins::host_is_loopback(request) {
                    return Err(OriginError::Rebound(escaped(value)));
                }
                Ok(())
            }
            Origins::List(_) => Err(OriginError::Unlisted(escaped(value))),
            Origins::Same => Err(OriginError::Foreign(escaped(value))),
        }
    }

    /// Returns whether a special origin without host is listed.
    fn is_listed(&self, name: &str) -> bool {
        matches!(self, Origins::List(list) if list.iter().any(|listed| listed.eq_ignore_ascii_case(name)))
    }

    /// Returns whether `Host` is a loopback name: `localhost`, `*.localhost`, `127.0.0.0/8`, `[::1]`.
    ///
    /// Code that trusts loopback clients without authentication must check this, also for requests without `Origin`: a
    /// page under a rebound DNS name sends none with a `GET`.
    pub fn host_is_loopback(request: &Request) -> bool {
        host_of(request).is_some_and(|authority| authority.host.is_loopback())
    }
}

impl OriginError {
    /// Returns the 403 response with the reason. It closes the connection.
    #[must_use]
    pub fn response(&self) -> Response {
        Response::text(403, format!("{self}\n")).close()
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginError::Repeated => f.write_str("duplicate header: Origin"),
            OriginError::Null => f.write_str("origin null is not allowed: not in the list of origins"),
            OriginError::Malformed(origin) => {
                write!(f, "origin {origin} must be scheme://host[:port]")
            }
            OriginError::Foreign(origin) => {
                write!(f, "origin {origin} is not allowed: not the server's own, and no list of origins is set")
            }
            OriginError::Unlisted(origin) => write!(f, "origin {origin} is not allowed: not in the list of origins"),
            OriginError::Rebound(origin) => write!(
                f,
                "origin {origin} is not allowed over the loopback interface unless listed \
                 (protection against DNS rebinding)"
            ),
        }
    }
}

impl std::error::Error for OriginError {}

impl<'a> Origin<'a> {
    /// Parses an origin (RFC 6454 section 6.2).
    ///
    /// It has no path, no user and no spaces, and there is only one.
    fn parse(text: &'a str) -> Option<Origin<'a>> {
        let (scheme, authority) = text.split_once("://")?;
        // RFC 3986 section 3.1.
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let authority = Authority::parse(authority.as_bytes())?;
        is_scheme.then_some(Origin { scheme, authority })
    }

    /// Returns whether the origin is that of the requested host and port.
    ///
    /// Only `http` and `https` are web origins. A `Host` without a port means the default port of the origin's scheme:
    /// the page knows whether there was TLS, the server behind a proxy does not.
    fn matches_host(&self, request: &Request) -> bool {
        let Some(default) = default_port(self.scheme) else {
            return false;
        };
        host_of(request).is_some_and(|host| {
            self.authority.host.equals(&host.host) && self.port() == Some(host.port.unwrap_or(default))
        })
    }

    fn port(&self) -> Option<u16> {
        self.authority.port.or_else(|| default_port(self.scheme))
    }
}

/// Writes the normal form.
///
/// It is in lower case, without a default port, and with an IPv6 address in its shortest spelling.
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
    /// Parses an authority (RFC 3986 section 3.2) without user part.
    ///
    /// `Host` and `Origin` do not allow a user part. An empty host is invalid (RFC 9110 section 4.2.1).
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Authority<'a>> {
        let text = str::from_utf8(bytes).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (ip, port) = rest.split_once(']')?;
                (Host::V6(ip.parse().ok()?), port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
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
    fn equals(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Host::V6(a), Host::V6(b)) => a == b,
            _ => false,
        }
    }

    /// Returns whether the host is a loopback name or address.
    ///
    /// Loopback names are defined in RFC 6761 section 6.3.
    fn is_loopback(&self) -> bool {
        match self {
            Host::V6(ip) => ip.is_loopback(),
            Host::Name(name) => {
                let last = name.rsplit('.').next().unwrap_or(name);
                last.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
            }
        }
    }
}

/// Returns whether `name` is a non-empty `reg-name`.
///
/// The syntax of RFC 3986 section 3.2.2 includes IPv4 addresses.
fn is_reg_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
            b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !fits {
            return false;
        }
    }
    !name.is_empty()
}

fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else {
        None
    }
}

fn host_of(request: &Request) -> Option<Authority<'_>> {
    request.values("host").next().and_then(Authority::parse)
}

/// Escapes a header value for errors and logs.
///
/// The limit is 100 bytes.
fn escaped(value: &[u8]) -> String {
    const BYTES_MAX: usize = 100;
    match value.get(..BYTES_MAX) {
        Some(start) => format!("{}…", start.escape_ascii()),
        None => value.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests;
