//! The `Origin` check for requests from browsers.
//!
//! See RFC 6455 section 10.2 and RFC 6454 section 7. A browser lets any page open a WebSocket to any server, and only
//! reports the origin of the page. So the server must check the origin. The check compares scheme, host and port as
//! parsed values, not as text, so neither `evil-example.com` nor `example.com.evil` equals `example.com`. An origin
//! that cannot be parsed is refused.

pub mod authority;
mod rule;

use std::fmt;

use self::authority::{Origin, host_of};
use super::request::Request;
use super::response::Response;

/// The origins from which browsers may connect.
///
/// Clients that send no `Origin` are not browsers and are accepted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Origins {
    /// Browsers may connect only from pages of this server.
    ///
    /// The `Origin` must have the host and port of the `Host` header. The scheme may be `http` or `https`, because TLS
    /// may end at a proxy in front of the server. On a TLS listener (`Server::listen_tls`), the scheme must be `https`.
    ///
    /// A client on the loopback interface must also use a loopback name in `Host`: `localhost`, `*.localhost`,
    /// `127.0.0.0/8` or `[::1]`. Otherwise a page could rebind its own DNS name to 127.0.0.1, and would then have the
    /// same origin as every server on the visitor's machine.
    #[default]
    Same,
    /// Browsers may connect from any page of any site.
    ///
    /// Use this variant for servers that do not rely on cookies or on the network for authentication.
    Any,
    /// Browsers may connect only from pages of these origins. [`Origins::list`] creates this variant.
    List(Vec<String>),
}

/// The reason why an origin is refused.
///
/// The client gets the text of this error in a 403 response.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OriginError {
    /// The request has more than one `Origin` header.
    Repeated,
    /// The `Origin` header is `null`, and `null` is not in the list of origins.
    ///
    /// Browsers send `null` from a sandboxed frame or a local file, or after a redirect across sites.
    Null,
    /// The `Origin` header is not `scheme://host[:port]`. The field of this variant is the value of the header, escaped
    /// and shortened.
    Malformed(String),
    /// The origin is not the server's own origin, and the server has no list of origins.
    ///
    /// The field of this variant is the origin.
    Foreign(String),
    /// The origin is not in the list of origins. The field of this variant is the origin.
    ///
    /// If the server has a list of origins, its own origin is allowed only if this origin is in the list.
    Unlisted(String),
    /// The `Host` header of a loopback client is not a loopback name.
    ///
    /// This indicates an attack by DNS rebinding. The field of this variant is the origin.
    Rebound(String),
}

impl Origins {
    /// Creates a list of origins, each in the form `scheme://host[:port]`, in which browsers send origins.
    ///
    /// An origin has no path and no slash at the end. Schemes of apps (`capacitor://localhost`) and extensions are
    /// allowed.
    ///
    /// A host may begin with one `*.`, which stands for one or more labels, as in CSP: `https://*.example.com` matches
    /// `https://a.example.com` and `https://a.b.example.com`, but not `https://example.com`.
    ///
    /// The list can contain two special origins. `file://` is the origin of some native clients (ESP32). `null` is the
    /// origin of pages from files, and also of every sandboxed frame of any site: a list with `null` does not protect
    /// cookies.
    ///
    /// # Errors
    /// Returns an error if an entry is not an origin, or is an origin that no browser sends. The text of the error
    /// names the entry.
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
    /// Returns an error, which states the reason, if the origin is not allowed. The caller then sends the 403 response
    /// of [`OriginError::response`].
    pub fn allows(&self, request: &Request<'_>) -> Result<(), OriginError> {
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

    /// Returns whether the list of origins contains `name`, which is `null` or `file://`.
    fn is_listed(&self, name: &str) -> bool {
        matches!(self, Origins::List(list) if list.iter().any(|listed| listed.eq_ignore_ascii_case(name)))
    }

    /// Returns whether `Host` is a loopback name: `localhost`, `*.localhost`, `127.0.0.0/8`, `[::1]`.
    ///
    /// Code that trusts loopback clients without authentication must call this function, also for requests without
    /// `Origin`: a page under a rebound DNS name sends a `GET` without `Origin`.
    pub fn host_is_loopback(request: &Request<'_>) -> bool {
        host_of(request).is_some_and(|authority| authority.host.is_loopback())
    }
}

impl OriginError {
    /// Returns the 403 response, which states the reason and closes the connection.
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

/// Escapes a header value for errors and logs.
///
/// The result contains at most the first 100 bytes of the value.
fn escaped(value: &[u8]) -> String {
    const BYTES_MAX: usize = 100;
    match value.get(..BYTES_MAX) {
        Some(start) => format!("{}…", start.escape_ascii()),
        None => value.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests;
