//! Who may come from a browser: the `Origin` check (RFC 6455 section 10.2, RFC 6454 section 7).
//!
//! A browser lets any page open a WebSocket to any server and says only where the page came from. So the server looks:
//! it compares scheme, host and port as parsed values, never as pieces of text, so that neither `evil-example.com` nor
//! `example.com.evil` passes for `example.com`. What it cannot parse does not pass.

mod rule;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::request::Request;
use super::response::Response;

/// Which origins browsers may come from. Clients that send no `Origin` are no browsers and pass.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Origins {
    /// Pages of this server's own host and port: the `Origin` must name what the `Host` header names. The scheme may be
    /// `http` or `https`, because TLS may end at a proxy in front of the server.
    ///
    /// A client on the loopback interface must also have asked for a loopback name: `localhost`, `*.localhost`,
    /// `127.0.0.0/8` or `[::1]`. Otherwise a page that rebinds its own DNS name to 127.0.0.1 would be of the same
    /// origin as every server on the visitor's machine.
    #[default]
    Same,
    /// Any page of any site. For servers that trust no cookie and no network.
    Any,
    /// Pages of these origins and no others; made by [`Origins::list`].
    List(Vec<String>),
}

/// Why an origin does not pass. The text says what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OriginError {
    /// The header is there more than once.
    Repeated,
    /// The header is `null`, which is not listed: a sandboxed frame, a local file, a redirect across sites.
    Null,
    /// The header is no `scheme://host[:port]`. Holds what it is.
    Malformed(String),
    /// The origin is well-formed and not the server's own. Holds it.
    Foreign(String),
    /// The origin is well-formed and not on the list, which takes the place of the server's own. Holds it.
    Unlisted(String),
    /// The origin is the server's own by name, but the name is no loopback name and the client is on the loopback
    /// interface, which smells of DNS rebinding. Holds the origin.
    Rebound(String),
}

/// A `scheme://host[:port]`.
struct Origin<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

/// A `host[:port]`, as in `Host` (RFC 9110 section 7.2) and behind the `//` of an origin.
pub(super) struct Authority<'a> {
    host: Host<'a>,
    /// An empty port (`example.com:`) is none.
    port: Option<u16>,
}

/// A host: a name or an IPv4 address as text, which is compared in any case of letters, or an IPv6 address by value,
/// since that has many spellings.
enum Host<'a> {
    Name(&'a str),
    V6(Ipv6Addr),
}

impl Origins {
    /// These origins, each `scheme://host[:port]`, the way browsers send them: no path, no slash at the end. Schemes of
    /// apps (`capacitor://localhost`) and extensions are fine here.
    ///
    /// A host may begin with one `*.`, which stands for one or more labels, as in CSP: `https://*.example.com` matches
    /// `https://a.example.com` and `https://a.b.example.com`, and not `https://example.com`.
    ///
    /// Two more can be listed by name. `file://` is the origin of some native clients (ESP32). `null` is the origin of
    /// pages from files. It is also that of every sandboxed frame of any site, so a list with `null` protects no cookie.
    ///
    /// # Errors
    /// Says which of them is no origin, or is one that no browser sends.
    pub fn list<I>(origins: I) -> Result<Origins, String>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let list = origins.into_iter().map(|origin| rule::normalise(origin.as_ref()));
        list.collect::<Result<_, _>>().map(Origins::List)
    }

    /// Whether the request may come from where its `Origin` header says.
    ///
    /// # Errors
    /// Why not; [`OriginError::response`] is the 403 to send.
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
            return if self.lists(rule::NULL) { Ok(()) } else { Err(OriginError::Null) };
        }
        let text = str::from_utf8(value).map_err(|_| OriginError::Malformed(shown(value)))?;
        if rule::is_file(text) {
            return match self {
                _ if self.lists(rule::FILE) => Ok(()),
                Origins::Same => Err(OriginError::Foreign(shown(value))),
                Origins::Any | Origins::List(_) => Err(OriginError::Unlisted(shown(value))),
            };
        }
        let Some(origin) = Origin::parse(text) else {
            return Err(OriginError::Malformed(shown(value)));
        };
        match self {
            Origins::Any => Ok(()),
            Origins::List(list) if list.iter().any(|listed| rule::matches(listed, &origin)) => Ok(()),
            Origins::Same if origin.is_of_host(request) => {
                if request.peer().is_loopback() && !Origins::host_is_loopback(request) {
                    return Err(OriginError::Rebound(shown(value)));
                }
                Ok(())
            }
            Origins::List(_) => Err(OriginError::Unlisted(shown(value))),
            Origins::Same => Err(OriginError::Foreign(shown(value))),
        }
    }

    /// Whether a list names this one, which has no host.
    fn lists(&self, name: &str) -> bool {
        matches!(self, Origins::List(list) if list.iter().any(|listed| listed.eq_ignore_ascii_case(name)))
    }

    /// Whether the `Host` header names this machine itself: `localhost`, `*.localhost`, `127.0.0.0/8`, `[::1]`. What
    /// serves loopback clients without asking who they are must see to it, also where there is no `Origin`: a page
    /// under a rebound DNS name sends none with a `GET`.
    pub fn host_is_loopback(request: &Request) -> bool {
        host_of(request).is_some_and(|authority| authority.host.is_loopback())
    }
}

impl OriginError {
    /// The 403 that says why. It closes the connection.
    #[must_use]
    pub fn response(&self) -> Response {
        Response::text(403, format!("{self}\n")).close()
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginError::Repeated => f.write_str("the Origin header is there more than once"),
            OriginError::Null => f.write_str("origin null may not come in: it is not listed"),
            OriginError::Malformed(origin) => {
                write!(f, "origin {origin} is not scheme://host[:port]")
            }
            OriginError::Foreign(origin) => {
                write!(f, "origin {origin} may not come in: it is not the server's own, and none is listed")
            }
            OriginError::Unlisted(origin) => write!(f, "origin {origin} may not come in: it is not listed"),
            OriginError::Rebound(origin) => write!(
                f,
                "origin {origin} may not come in over the loopback interface unless it is listed \
                 (against DNS rebinding)"
            ),
        }
    }
}

impl std::error::Error for OriginError {}

impl<'a> Origin<'a> {
    /// RFC 6454 section 6.2: no path, no user, no spaces, one origin only.
    fn parse(text: &'a str) -> Option<Origin<'a>> {
        let (scheme, authority) = text.split_once("://")?;
        // RFC 3986 section 3.1.
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let authority = Authority::parse(authority.as_bytes())?;
        is_scheme.then_some(Origin { scheme, authority })
    }

    /// Whether this is a web page's origin on the host and port that the request asked for. A `Host` without a port
    /// means the default one, and of the origin's own scheme: the page knows whether there was TLS, the server behind a
    /// proxy does not.
    fn is_of_host(&self, request: &Request) -> bool {
        let Some(default) = default_port(self.scheme) else {
            return false;
        };
        host_of(request)
            .is_some_and(|host| self.authority.host.is(&host.host) && self.port() == Some(host.port.unwrap_or(default)))
    }

    fn port(&self) -> Option<u16> {
        self.authority.port.or_else(|| default_port(self.scheme))
    }
}

/// The normal form: lower case, an IPv6 address in its shortest spelling, no default port.
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
    /// RFC 3986 section 3.2 without the user part, which has no place in `Host` or `Origin`. An empty host is none (RFC
    /// 9110 section 4.2.1).
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
            // `u16::from_str` alone would take a plus sign.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
            None if port.is_empty() => None,
            _ => return None,
        };
        Some(Authority { host, port })
    }
}

impl Host<'_> {
    fn is(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Host::V6(a), Host::V6(b)) => a == b,
            _ => false,
        }
    }

    /// RFC 6761 section 6.3 for the names.
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

/// A name of one character or more (RFC 3986 section 3.2.2, `reg-name`, of which an IPv4 address is a case).
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

/// A header's value, fit for a message: of bounded length and without anything that could act up in a terminal or a
/// log.
fn shown(value: &[u8]) -> String {
    const BYTES_MAX: usize = 100;
    match value.get(..BYTES_MAX) {
        Some(start) => format!("{}…", start.escape_ascii()),
        None => value.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests;
