//! Errors in HTTP requests, with their status and text.

use std::fmt;

use crate::protocol::response::Response;

/// An error in an HTTP request.
///
/// After any of these errors, the connection closes, because the start of the next request is unknown.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// The first byte cannot start a method.
    ///
    /// The usual cause is a TLS ClientHello on a port without TLS.
    NotHttp,
    /// A line ends in LF without CR.
    ///
    /// RFC 9112 section 2.2 allows a server to accept this line ending, but request smuggling uses it.
    BareLineFeed,
    /// The connection must begin with a PROXY header, and this header is malformed or missing.
    ProxyHeader,
    /// The request line is malformed (RFC 9112 section 3).
    ///
    /// A request line must be `method SP target SP version`.
    RequestLine,
    /// The target is neither path nor URL (RFC 9112 section 3.2).
    ///
    /// This variant is also the error of a target that contains `#` or a control character.
    Target,
    /// The path is not percent-encoded UTF-8.
    ///
    /// The request is refused, because with replacement characters, two different paths could become equal.
    Path,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// A header line violates RFC 9112 section 5.
    ///
    /// Examples are an invalid name or value, a space before the colon, or a folded line.
    HeaderLine,
    /// The request head is longer than `head_bytes_max` (RFC 6585 section 5).
    HeadTooLarge,
    /// The request head has more than `headers_max` header lines (RFC 6585 section 5).
    TooManyHeaders,
    /// The head or the body did not arrive in time.
    Timeout,
    /// An HTTP/1.1 request has no `Host` (RFC 9112 section 3.2).
    HostMissing,
    /// `Host` is repeated (RFC 9112 section 3.2).
    HostRepeated,
    /// `Host` is not `host[:port]` (RFC 9112 section 3.2).
    HostMalformed,
    /// `Content-Length` is repeated, with an equal or a different value.
    LengthRepeated,
    /// `Content-Length` is not a number (RFC 9110 section 8.6).
    ///
    /// The number must be decimal and fit into 64 bits.
    LengthMalformed,
    /// Both `Content-Length` and `Transfer-Encoding` are present (RFC 9112 section 6.3).
    LengthAndCoding,
    /// `Transfer-Encoding` has an empty element, or repeats `chunked` (RFC 9112 section 6.1).
    CodingMalformed,
    /// `Transfer-Encoding` names a coding other than `chunked` (RFC 9112 section 6.1).
    CodingUnknown,
    /// An HTTP/1.0 request has `Transfer-Encoding` (RFC 9112 section 6.1).
    CodingOnHttp10,
    /// `Expect` is not `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// The method of an upgrade is not GET (RFC 6455 section 4.1).
    UpgradeMethod,
    /// The HTTP version of an upgrade is HTTP/1.0 (RFC 9110 section 7.8).
    UpgradeOnHttp10,
    /// `Sec-WebSocket-Version` is not 13 (RFC 6455 section 4.4).
    UpgradeVersion,
    /// An upgrade has no `Sec-WebSocket-Key` (RFC 6455 section 4.2.1).
    KeyMissing,
    /// `Sec-WebSocket-Key` is repeated (RFC 6455 section 11.3.1).
    KeyRepeated,
    /// `Sec-WebSocket-Key` is not the base64 of 16 bytes (RFC 6455 section 4.2.1).
    KeyMalformed,
    /// `Sec-WebSocket-Protocol` is not a list of one or more tokens (RFC 6455 section 4.3).
    SubprotocolMalformed,
    /// An upgrade has a body, whose bytes would be read as frames.
    UpgradeBody,
    /// A plain request came to a server that answers only upgrades (RFC 9110 section 15.5.22).
    UpgradeRequired,
    /// The request body is longer than `body_bytes_max` (RFC 9110 section 15.5.14).
    BodyTooLarge,
    /// A chunk size is not a number (RFC 9112 section 7.1).
    ///
    /// The number must be hexadecimal and fit into 64 bits.
    ChunkSize,
    /// The framing of a chunk violates RFC 9112 section 7.1.
    ChunkFraming,
    /// The chunk extensions of a body exceed the limit.
    ChunkExtensionsTooLarge,
    /// The trailers of a body exceed the limit.
    TrailersTooLarge,
    /// The unfinished messages, heads and bodies of all connections together exceed `inbound_total_bytes_max`.
    ///
    /// The connection with this error is one of the connections with the most unfinished input.
    Overload,
    /// Memory for received bytes could not be allocated.
    OutOfMemory,
}

impl HttpError {
    /// Returns the status of the response.
    pub fn status(self) -> u16 {
        self.status_and_text().0
    }

    /// Returns the error response, with a description and the required headers.
    ///
    /// The response closes the connection. On a control listener, the body of the response is JSON.
    pub fn response(self, is_control: bool) -> Response {
        let (status, text) = self.status_and_text();
        let response = Response::refusal(is_control, status, text).close();
        match self {
            // RFC 9110 section 15.5.6.
            HttpError::UpgradeMethod => response.header("Allow", "GET"),
            // See RFC 6455 section 4.4 and RFC 9110 section 15.5.22.
            HttpError::UpgradeVersion | HttpError::UpgradeRequired => {
                response.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13")
            }
            HttpError::Overload | HttpError::OutOfMemory => response.header("Retry-After", "1"),
            _ => response,
        }
    }

    const fn status_and_text(self) -> (u16, &'static str) {
        match self {
            Self::NotHttp => (400, "not an HTTP request; this port does not accept TLS"),
            Self::BareLineFeed => (400, "line ends in LF without CR"),
            Self::ProxyHeader => (400, "PROXY header is missing or malformed"),
            Self::RequestLine => (400, "malformed request line"),
            Self::Target => (400, "request target must be a path or an http URL, without #"),
            Self::Path => (400, "path must be percent-encoded UTF-8"),
            Self::Version => (505, "version must be HTTP/1.1 or HTTP/1.0"),
            Self::HeaderLine => (400, "malformed header line"),
            Self::HeadTooLarge => (431, "request head exceeds head_bytes_max"),
            Self::TooManyHeaders => (431, "number of header lines exceeds headers_max"),
            Self::Timeout => (408, "request timed out"),
            Self::HostMissing => (400, "Host header is missing"),
            Self::HostRepeated => (400, "duplicate header: Host"),
            Self::HostMalformed => (400, "Host must be host[:port]"),
            Self::LengthRepeated => (400, "duplicate header: Content-Length"),
            Self::LengthMalformed => (400, "Content-Length must be a decimal number of at most 64 bits"),
            Self::LengthAndCoding => (400, "Content-Length and Transfer-Encoding must not be combined"),
            Self::CodingMalformed => (400, "Transfer-Encoding must be chunked, exactly once"),
            Self::CodingUnknown => (501, "unsupported transfer coding; only chunked is supported"),
            Self::CodingOnHttp10 => (400, "Transfer-Encoding requires HTTP/1.1"),
            Self::Expectation => (417, "unsupported expectation; only 100-continue is supported"),
            Self::UpgradeMethod => (405, "WebSocket upgrade requires GET"),
            Self::UpgradeOnHttp10 => (400, "WebSocket upgrade requires HTTP/1.1"),
            Self::UpgradeVersion => (426, "Sec-WebSocket-Version must be 13"),
            Self::KeyMissing => (400, "Sec-WebSocket-Key is missing"),
            Self::KeyRepeated => (400, "duplicate header: Sec-WebSocket-Key"),
            Self::KeyMalformed => (400, "Sec-WebSocket-Key must be the base64 of 16 bytes"),
            Self::SubprotocolMalformed => (400, "Sec-WebSocket-Protocol must be a list of one or more tokens"),
            Self::UpgradeBody => (400, "WebSocket upgrade must not have a body"),
            Self::UpgradeRequired => (
                426,
                "WebSocket upgrade required; if the client sent one, a proxy must forward \
                 the headers Connection and Upgrade",
            ),
            Self::BodyTooLarge => (413, "request body exceeds body_bytes_max"),
            Self::ChunkSize => (400, "chunk size must be a hexadecimal number of at most 64 bits"),
            Self::ChunkFraming => (400, "malformed chunk"),
            Self::ChunkExtensionsTooLarge => (413, "chunk extensions exceed 8 KiB"),
            Self::TrailersTooLarge => (431, "trailers and chunk extensions exceed 8 KiB"),
            Self::Overload => (503, "unfinished requests exceed inbound_total_bytes_max"),
            Self::OutOfMemory => (503, "out of memory"),
        }
    }
}

/// Writes the description that the client receives.
impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status_and_text().1)
    }
}

impl std::error::Error for HttpError {}
