//! Information about TLS for handlers.

use std::fmt;

/// The TLS session of a connection: see [`Request::tls`](crate::Request::tls) and [`Info::tls`](crate::Info::tls).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The TLS version of the session.
    pub version: TlsVersion,
    /// The IANA name of the cipher suite: `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
}

/// A version of TLS. The server does not support versions before TLS 1.2.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// Returns `1.2` or `1.3`.
    pub fn as_str(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "1.2",
            TlsVersion::Tls13 => "1.3",
        }
    }
}

/// Writes `TLS 1.3`.
impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS {}", self.as_str())
    }
}

/// The numbers of handshakes with each outcome, and of connections with the wrong protocol: see
/// [`Stats::tls`](crate::Stats::tls).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TlsCounts {
    /// The number of full handshakes that succeeded.
    pub full: u64,
    /// The number of handshakes that resumed an earlier session and succeeded.
    pub resumed: u64,
    /// The number of handshakes that failed.
    ///
    /// A handshake fails if the client breaks a rule of the protocol or sends an alert, if client and server have no
    /// TLS version or cipher suite in common, or if the server refuses the client's certificate.
    pub failed: u64,
    /// The number of handshakes whose client disconnected before the end, or did not complete the handshake within
    /// `head_time_max`.
    pub abandoned: u64,
    /// The number of connections to a TLS listener that sent plain HTTP, and got status 400.
    pub plain_http: u64,
    /// The number of connections to a listener without TLS that sent a TLS hello, and were closed.
    pub on_plain: u64,
}

impl std::ops::AddAssign for TlsCounts {
    fn add_assign(&mut self, other: TlsCounts) {
        self.full += other.full;
        self.resumed += other.resumed;
        self.failed += other.failed;
        self.abandoned += other.abandoned;
        self.plain_http += other.plain_http;
        self.on_plain += other.on_plain;
    }
}
