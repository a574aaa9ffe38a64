//! The HTTP client for back ends. The HTTP client posts signed JSON. Limits bound the time of a request and the length
//! of an answer.
//!
//! A request blocks the thread that sends it, so the loop's thread must not send requests. The HTTP client does not
//! know the meaning of requests and answers.

pub mod authorities;
mod early_answer;
pub mod retry_after;
pub mod signature;

#[cfg(test)]
pub mod mock;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use ureq::Agent;
use ureq::http::{HeaderValue, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, RustlsConnector, TcpConnector};

use self::authorities::Authorities;
use self::early_answer::EarlyAnswers;
use self::signature::SigningKey;
use crate::gateway::runtime::clock;

/// The maximum length of the body of an answer, in bytes. An answer with a longer body counts as a failed request.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The maximum idle time of a connection to a back end. Most back ends close idle connections after five seconds or
/// more, and a request on a closing connection fails.
const IDLE_MAX: Duration = Duration::from_secs(3);

/// The minimum timeout of a request. `ureq` treats a timeout of zero as no timeout.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The address of a back end, and the credentials of this server.
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// The URL to which requests are posted.
    pub url: BackendUrl,
    /// The name of this server in the request header `X-Fdpush-Node` and in the bodies of requests. The name has only
    /// visible ASCII characters.
    pub node: String,
    /// The secret that signs requests. Without a secret, requests have no signature.
    pub secret: Option<SigningKey>,
    /// The certificate authorities for `https` connections. `None` means Mozilla's root certificates.
    pub authorities: Option<Authorities>,
}

/// An `http` or `https` URL with a host.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendUrl {
    /// The URL without user and password.
    uri: Uri,
    /// The user and the password of the URL, as the header of Basic authentication (RFC 7617). The user and the
    /// password are percent-decoded, because a URL contains characters such as `@` of a password only in
    /// percent-encoded form.
    authorization: Option<HeaderValue>,
}

/// The HTTP client of one back end, shared by several threads.
#[derive(Debug)]
pub struct Backend {
    agent: Agent,
    url: BackendUrl,
    node: HeaderValue,
    secret: Mutex<Option<SigningKey>>,
}

/// An HTTP answer that is not a redirect.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status of the answer, 200 or above.
    pub status: u16,
    /// The pause that the header `Retry-After` requests. The length of this pause has no upper bound.
    pub retry_after: Option<Duration>,
    /// The body of the answer, or the reason why the body is incomplete.
    pub body: Result<Vec<u8>, Failure>,
}

/// The reason why there is no answer, or no complete body of the answer.
#[derive(Debug)]
pub enum Failure {
    /// The back end answered with a redirect with this status. Redirects are not followed, because the signed body and
    /// the clients' headers are only for the configured URL.
    Redirected(u16),
    /// The back end was not reached, did not answer in time, or did not answer with valid HTTP.
    Failed(ureq::Error),
    /// The HTTP client panicked, for example because it could not start a thread for a DNS lookup.
    Panicked(Box<dyn Any + Send>),
}

impl Backend {
    /// Creates a client that keeps up to `connections_max` idle connections.
    ///
    /// # Errors
    /// Returns an error if the name of the node cannot be a header value.
    pub fn new(contact: BackendConfig, connections_max: usize) -> io::Result<Backend> {
        let BackendConfig { url, node, secret, authorities } = contact;
        let node = node_header(&node)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // Environment variables such as `HTTP_PROXY` are ignored, because only the settings may choose the back
            // end.
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(authorities.map_or(RootCerts::WebPki, RootCerts::from)).build())
            .user_agent(concat!("fdpush/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .max_idle_connections(connections_max)
            .max_idle_connections_per_host(connections_max)
            .max_idle_age(IDLE_MAX)
            .build();
        let connector = ().chain(TcpConnector::default()).chain(EarlyAnswers).chain(RustlsConnector::default());
        let agent = Agent::with_parts(config, connector, DefaultResolver::default());
        Ok(Backend { agent, url, node, secret: Mutex::new(secret) })
    }

    /// Returns the name of this server.
    pub fn node(&self) -> &str {
        // The header was created from text, so the conversion to text cannot fail.
        self.node.to_str().unwrap_or_default()
    }

    /// Replaces the secret that signs requests.
    pub fn set_secret(&self, secret: Option<SigningKey>) {
        *self.secret.lock().unwrap_or_else(PoisonError::into_inner) = secret;
    }

    /// Posts `body`, which is JSON, and waits for the answer. `timeout` bounds the time from the DNS lookup to the last
    /// byte of the answer.
    pub fn post(&self, body: &[u8], timeout: Duration) -> Result<Answer, Failure> {
        catch_unwind(AssertUnwindSafe(|| self.exchange(body, timeout)))
            .unwrap_or_else(|panic| Err(Failure::Panicked(panic)))
    }

    fn exchange(&self, body: &[u8], timeout: Duration) -> Result<Answer, Failure> {
        let mut request = self
            .agent
            .post(self.url.uri.clone())
            .config()
            .timeout_global(Some(timeout.max(TIMEOUT_MIN)))
            .build()
            .header("Content-Type", "application/json")
            .header("X-Fdpush-Node", self.node.clone());
        if let Some(authorization) = &self.url.authorization {
            request = request.header("Authorization", authorization.clone());
        }
        let secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(secret) = secret {
            request = request.header("X-Fdpush-Signature", secret.sign(body));
        }
        let mut response = request.send(body).map_err(Failure::Failed)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(Failure::Redirected(status.as_u16()));
        }
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| retry_after::parse(value, clock::unix_ms()));
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok(Answer { status: status.as_u16(), retry_after, body: body.map_err(Failure::Failed) })
    }
}

impl BackendUrl {
    /// Parses a URL. The error does not repeat the URL, because the URL may contain a password.
    pub fn parse(text: &str) -> io::Result<BackendUrl> {
        let uri: Uri = text.parse().map_err(|error| invalid(format!("invalid URL: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(invalid("expected a URL with http:// or https://".to_owned()));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(invalid("missing host in the URL".to_owned()));
        }
        if !has_valid_port(&uri) {
            return Err(invalid("port of the URL must be from 1 to 65535".to_owned()));
        }
        BackendUrl::of(uri).ok_or_else(|| invalid("invalid user or host in the URL".to_owned()))
    }

    /// Returns the addresses of the URL if its host is an IP address or `localhost`. Returns no address for any other
    /// host, because this function does not resolve DNS names.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        let host = self.uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let ips = match bare.parse() {
            Ok(ip) => vec![ip],
            Err(_) if bare.eq_ignore_ascii_case("localhost") => {
                vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            }
            Err(_) => Vec::new(),
        };
        let default = if self.uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = self.uri.port_u16().unwrap_or(default);
        ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }

    fn of(uri: Uri) -> Option<BackendUrl> {
        let Some((userinfo, host)) = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')) else {
            return Some(BackendUrl { uri, authorization: None });
        };
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let mut credentials: Vec<u8> = percent_decode_str(user).collect();
        credentials.push(b':');
        credentials.extend(percent_decode_str(password));
        let mut authorization =
            HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(credentials))).ok()?;
        authorization.set_sensitive(true);
        let authority = host.parse().ok()?;
        let mut parts = uri.into_parts();
        parts.authority = Some(authority);
        Some(BackendUrl { uri: Uri::from_parts(parts).ok()?, authorization: Some(authorization) })
    }
}

/// Converts the name of a node into the value of a header.
///
/// # Errors
/// Returns an error if the name is empty or has characters other than visible ASCII.
pub fn node_header(node: &str) -> io::Result<HeaderValue> {
    HeaderValue::from_str(node)
        .ok()
        .filter(|value| value.to_str().is_ok_and(|text| !text.is_empty()))
        .ok_or_else(|| invalid(format!("node name {node:?} must be visible ASCII")))
}

/// Returns whether a URL has a valid port or no port.
///
/// `Uri` accepts an invalid port and ignores this port. Without this check, a request to a URL with an invalid port
/// would go to the default port.
fn has_valid_port(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    // The port follows the last colon, unless this colon is inside the brackets of an IPv6 address.
    match place.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((_, port)) => port.is_empty() || uri.port_u16().is_some_and(|port| port != 0),
        None => true,
    }
}

impl Failure {
    /// Returns whether the request reached its timeout.
    pub fn is_timeout(&self) -> bool {
        match self {
            Failure::Failed(ureq::Error::Timeout(_)) => true,
            Failure::Failed(ureq::Error::Io(error)) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// Returns whether the connection ended before the answer was complete. A connection can end in this way if the
    /// back end closes an idle connection while this server sends a request.
    pub fn is_disconnect(&self) -> bool {
        let Failure::Failed(ureq::Error::Io(error)) = self else { return false };
        matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        )
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Writes the scheme, host, port and path, but no user, password or query.
impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let host = self.uri.host().unwrap_or_default();
        write!(f, "{scheme}://{host}")?;
        if let Some(port) = self.uri.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.uri.path())
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Redirected(status) => write!(f, "answered {status}; redirects are not followed"),
            Failure::Failed(ureq::Error::Timeout(_)) => f.write_str("no answer in time"),
            Failure::Failed(ureq::Error::BodyExceedsLimit(_)) => {
                write!(f, "answer length limit exceeded ({ANSWER_BYTES_MAX} bytes)")
            }
            Failure::Failed(error) => error.fmt(f),
            Failure::Panicked(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a value that is not text");
                write!(f, "panicked: {text:?}")
            }
        }
    }
}
