//! How this server speaks to a back end: one POST of JSON, signed, with a bound on its time and on the answer's size.
//!
//! It blocks, so it is for threads of their own, never for the loop's. It must not know what is asked, nor what an
//! answer means.

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
use self::signature::Secret;
use crate::gateway::runtime::clock;

/// Bytes of an answer's body; one that is longer is a failure.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How long a connection to a back end is kept for the next request. Short, because a back end that closes it at the
/// very moment of the next one makes that one fail, and most keep idle connections for five seconds or more.
const IDLE_MAX: Duration = Duration::from_secs(3);

/// The least time that a request gets: a timeout of nothing would be none.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Where a back end is, and as whom this server speaks to it.
#[derive(Clone, Debug)]
pub struct Contact {
    /// Where to post.
    pub url: Url,
    /// This server's name, for `X-Fdpush-Node` and the bodies: visible ASCII.
    pub node: String,
    /// What requests are signed with; without one they are not.
    pub secret: Option<Secret>,
    /// Who vouches for an `https` back end; without any, Mozilla's roots do.
    pub authorities: Option<Authorities>,
}

/// An `http` or `https` URL with a host.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Without user and password.
    uri: Uri,
    /// They are sent as Basic authentication (RFC 7617), percent-decoded: a URL has no other way to write an `@`.
    authorization: Option<HeaderValue>,
}

/// A back end that can be asked, by several threads at a time.
#[derive(Debug)]
pub struct Backend {
    agent: Agent,
    url: Url,
    node: HeaderValue,
    secret: Mutex<Option<Secret>>,
}

/// A back end's answer, which is no redirect.
#[derive(Debug)]
pub struct Answer {
    /// The status, 200 or above.
    pub status: u16,
    /// The pause that the back end asks for before the next request. It has no bound.
    pub retry_after: Option<Duration>,
    /// The body, if all of it came, in time and within its bound.
    pub body: Result<Vec<u8>, Failure>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The back end wants the request sent elsewhere, with this status. Redirects are not followed: the signed body and
    /// the headers of clients are for the one URL that was configured.
    Redirected(u16),
    /// No connection, no answer in time, or no HTTP.
    Failed(ureq::Error),
    /// The HTTP client panicked, for instance because it could not start a thread to look a name up.
    Panicked(Box<dyn Any + Send>),
}

impl Backend {
    /// A back end that at most `connections_max` threads will ask at a time. Fails where the node's name cannot be in a
    /// header.
    pub fn new(contact: Contact, connections_max: usize) -> io::Result<Backend> {
        let Contact { url, node, secret, authorities } = contact;
        let node = node_header(&node)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // What is set is what is used: no proxy from an environment meant for other programs.
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

    /// This server's name.
    pub fn node(&self) -> &str {
        // It was made of text.
        self.node.to_str().unwrap_or_default()
    }

    /// Signs with this secret from now on.
    pub fn set_secret(&self, secret: Option<Secret>) {
        *self.secret.lock().unwrap_or_else(PoisonError::into_inner) = secret;
    }

    /// Posts `body`, which is JSON, and waits for the answer, but not longer than `timeout` in all: from the look-up of
    /// the name to the last byte of the body.
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

impl Url {
    /// Reads a URL, or says what is wrong with it. The message does not repeat it, because URLs carry passwords.
    pub fn parse(text: &str) -> io::Result<Url> {
        let uri: Uri = text.parse().map_err(|error| invalid(format!("this is no URL: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(invalid("a back end is asked at http://… or https://…".to_owned()));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(invalid("the URL names no host".to_owned()));
        }
        if !has_sound_port(&uri) {
            return Err(invalid("the URL's port is not a number from 1 to 65535".to_owned()));
        }
        Url::of(uri).ok_or_else(|| invalid("the URL's user or host cannot be read".to_owned()))
    }

    fn of(uri: Uri) -> Option<Url> {
        let Some((userinfo, host)) = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')) else {
            return Some(Url { uri, authorization: None });
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
        Some(Url { uri: Uri::from_parts(parts).ok()?, authorization: Some(authorization) })
    }
}

/// The header value of a node name.
///
/// # Errors
/// It is empty or has other than visible ASCII.
pub fn node_header(node: &str) -> io::Result<HeaderValue> {
    HeaderValue::from_str(node)
        .ok()
        .filter(|value| value.to_str().is_ok_and(|text| !text.is_empty()))
        .ok_or_else(|| invalid(format!("the node name {node:?} is not made of visible ASCII")))
}

/// Whether a URL has no port or one that can be connected to. `Uri` takes any number for a port, and then has none: the
/// request would go to the default port of the scheme.
fn has_sound_port(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    // The colons of an IPv6 address are within brackets.
    match place.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((_, port)) => port.is_empty() || uri.port_u16().is_some_and(|port| port != 0),
        None => true,
    }
}

impl Failure {
    /// Whether the time was up.
    pub fn is_timeout(&self) -> bool {
        match self {
            Failure::Failed(ureq::Error::Timeout(_)) => true,
            Failure::Failed(ureq::Error::Io(error)) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// Whether the connection ended before an answer came: so do connections that were kept for the next request, and
    /// that the back end closed just when it came.
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

/// Scheme, host, port and path: neither the password nor the query.
impl fmt::Display for Url {
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

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Redirected(status) => write!(f, "answered {status}, and redirects are not followed"),
            Failure::Failed(ureq::Error::Timeout(_)) => f.write_str("no answer in time"),
            Failure::Failed(ureq::Error::BodyExceedsLimit(_)) => {
                write!(f, "an answer of more than {ANSWER_BYTES_MAX} bytes")
            }
            Failure::Failed(error) => error.fmt(f),
            Failure::Panicked(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of no known kind");
                write!(f, "panicked: {text:?}")
            }
        }
    }
}
