//! HTTP/1.1 request heads: finding their end, parsing them and checking them.
//!
//! [`httparse`] parses the syntax. This module checks the rules that a parser alone does not enforce. Two readings of
//! one request let an attacker smuggle a second one (RFC 9112 section 11.2), so an ambiguous body length or host is an
//! error that closes the connection.
//!
//! The functions take bytes and return values. The module does not use sockets or clocks and does not route requests.

use std::fmt;
use std::mem::MaybeUninit;

use super::origin::Authority;
use super::query::decode_path;
use super::request::{Layout, Request};
use super::response::Response;
use super::target::{self, RequestTarget};
use super::token::{is_token_byte, list_elements};
use super::upgrade::accept_key;
use crate::peer::Peer;

/// The largest number of header lines that a limit can allow.
///
/// The parser keeps their positions on the stack.
pub const HEADERS_CEILING: usize = 256;

/// An error in a request.
///
/// The connection closes after any of these, because the start of the next request is uncertain.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// The first byte cannot start a method.
    ///
    /// Often it is a TLS ClientHello sent to a plain port.
    NotHttp,
    /// A line ends in LF without CR.
    ///
    /// RFC 9112 section 2.2 would allow to accept it, but request smuggling uses it.
    BareLineFeed,
    /// The required PROXY header is malformed or missing.
    ProxyHeader,
    /// The request line is not `method SP target SP version` (RFC 9112 section 3).
    RequestLine,
    /// The target is neither a path nor an `http` URL (RFC 9112 section 3.2).
    ///
    /// Also if it contains `#` or a control character.
    Target,
    /// The path is not percent-encoded UTF-8.
    ///
    /// Lossy decoding would make two paths equal.
    Path,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// A header line violates RFC 9112 section 5.
    ///
    /// Examples are an invalid name or value, a space before the colon, a folded line.
    HeaderLine,
    /// The head is longer than the limit (RFC 6585 section 5).
    HeadTooLarge,
    /// The head has more header lines than the limit (RFC 6585 section 5).
    TooManyHeaders,
    /// The head or the body did not arrive in time.
    Timeout,
    /// An HTTP/1.1 request has no `Host` (RFC 9112 section 3.2).
    HostMissing,
    /// `Host` is repeated (RFC 9112 section 3.2).
    HostRepeated,
    /// `Host` is not `host[:port]` (RFC 9112 section 3.2).
    HostMalformed,
    /// `Content-Length` is repeated, with the same value or another.
    LengthRepeated,
    /// `Content-Length` is not a decimal number of at most 64 bits (RFC 9110 section 8.6).
    LengthMalformed,
    /// Both `Content-Length` and `Transfer-Encoding` are present (RFC 9112 section 6.3).
    LengthAndCoding,
    /// `Transfer-Encoding` is empty or repeats `chunked` (RFC 9112 section 6.1).
    CodingMalformed,
    /// `Transfer-Encoding` names a coding other than `chunked` (RFC 9112 section 6.1).
    CodingUnknown,
    /// An HTTP/1.0 request has `Transfer-Encoding` (RFC 9112 section 6.1).
    CodingOnHttp10,
    /// `Expect` is not `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// The method of an upgrade is not GET (RFC 6455 section 4.1).
    UpgradeMethod,
    /// The version of an upgrade is HTTP/1.0 (RFC 9110 section 7.8).
    UpgradeOnHttp10,
    /// `Sec-WebSocket-Version` is not 13 (RFC 6455 section 4.4).
    UpgradeVersion,
    /// An upgrade has no `Sec-WebSocket-Key` (RFC 6455 section 4.2.1).
    KeyMissing,
    /// `Sec-WebSocket-Key` is repeated (RFC 6455 section 11.3.1).
    KeyRepeated,
    /// `Sec-WebSocket-Key` is not the base64 of 16 bytes (RFC 6455 section 4.2.1).
    KeyMalformed,
    /// An upgrade has a body, whose bytes would be read as frames.
    UpgradeBody,
    /// A plain request to a server for WebSockets only (RFC 9110 section 15.5.22).
    UpgradeRequired,
    /// The body exceeds the limit (RFC 9110 section 15.5.14).
    BodyTooLarge,
    /// A chunk size is not hexadecimal or exceeds 64 bits (RFC 9112 section 7.1).
    ChunkSize,
    /// The framing of a chunk violates RFC 9112 section 7.1.
    ChunkFraming,
    /// The chunk extensions of a body exceed the limit.
    ChunkExtensionsTooLarge,
    /// The trailers of a body exceed the limit.
    TrailersTooLarge,
    /// The unfinished messages, heads and bodies of all connections exceed their limit.
    ///
    /// This connection holds one of the largest.
    Overload,
    /// Memory for received bytes could not be allocated.
    OutOfMemory,
}

/// A valid head.
#[derive(Debug)]
pub struct Head {
    /// The request, without its body.
    pub request: Request,
    /// The type of the request: upgrade or plain HTTP.
    pub kind: RequestKind,
    /// The length of the body after the head.
    pub body: BodyLength,
    /// Whether another request may follow on this connection (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends its body.
    ///
    /// Never without a body.
    pub expects_continue: bool,
}

/// The type of a request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// A valid upgrade to WebSocket (RFC 6455 section 4.2.1).
    Upgrade {
        /// The value of `Sec-WebSocket-Accept`.
        accept: [u8; 28],
    },
    /// Plain HTTP.
    Plain {
        /// Whether a plain request has some headers of an upgrade.
        ///
        /// The usual cause is a proxy that removed `Connection` and `Upgrade`. Without a handler for plain requests the
        /// answer is [`HttpError::UpgradeRequired`], whose text names this cause.
        wanted_upgrade: bool,
    },
}

/// The length of a request body (RFC 9112 section 6.3).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum BodyLength {
    /// No body: neither header is present, or `Content-Length` is 0.
    None,
    /// A known number of bytes. [`parse_head`] never returns 0 here.
    Length(u64),
    /// Chunks, until the last chunk.
    Chunked,
}

/// The headers that determine how a request is processed.
#[derive(Default)]
struct Fields<'a> {
    host: Single<'a>,
    content_length: Single<'a>,
    coding: Coding,
    /// `Connection: close`, `keep-alive` and `upgrade`.
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// `Upgrade: websocket`.
    websocket: bool,
    key: Single<'a>,
    /// Whether all lines of `Sec-WebSocket-Version` are 13; `None` without such a line.
    version_13: Option<bool>,
    expect: Expect,
}

/// The value of a header that must not be repeated.
#[derive(Copy, Clone, Default)]
enum Single<'a> {
    #[default]
    Missing,
    Once(&'a [u8]),
    Repeated,
}

/// The combined value of all `Transfer-Encoding` lines.
#[derive(Copy, Clone, PartialEq, Default)]
enum Coding {
    #[default]
    Missing,
    Chunked,
    Malformed,
    Unknown,
}

/// The combined value of all `Expect` lines.
#[derive(Copy, Clone, PartialEq, Default)]
enum Expect {
    #[default]
    Nothing,
    Continue,
    Unknown,
}

/// Returns the length of blank lines at the front of `buf`.
///
/// A server should ignore blank lines before a request line (RFC 9112 section 2.2). The caller removes them before
/// [`find_head_end`].
pub fn skip_empty_lines(buf: &[u8]) -> usize {
    buf.chunks_exact(2).take_while(|line| line == b"\r\n").count() * 2
}

/// Finds the end of the head at the front of `buf`.
///
/// `buf` may grow between calls. Returns the index after the blank line, or `None` if that has not arrived. `scanned`
/// is the number of bytes that earlier calls have searched; it must be 0 for a new head. No byte is searched twice, so
/// a head that arrives byte by byte costs no more than one that arrives at once. The result does not depend on the
/// division of the input.
///
/// # Errors
/// Reported as soon as the bytes cannot begin a valid head: [`HttpError::NotHttp`], [`HttpError::BareLineFeed`], or
/// [`HttpError::HeadTooLarge`] if the head does not end within `bytes_max`.
pub fn find_head_end(buf: &[u8], scanned: &mut usize, bytes_max: usize) -> Result<Option<usize>, HttpError> {
    match buf {
        // Possibly the first half of a blank line.
        [] | [b'\r'] => return Ok(None),
        [first, ..] if !is_token_byte(*first) => return Err(HttpError::NotHttp),
        _ => {}
    }
    let window = buf.get(..bytes_max).unwrap_or(buf);
    let unseen = window.get(*scanned..).unwrap_or_default();
    for at in memchr::memchr_iter(b'\n', unseen) {
        let at = *scanned + at;
        let line = window.get(..at).unwrap_or_default();
        if !line.ends_with(b"\r") {
            return Err(HttpError::BareLineFeed);
        }
        if line.ends_with(b"\n\r") {
            return Ok(Some(at + 1));
        }
    }
    *scanned = window.len();
    if window.len() == bytes_max { Err(HttpError::HeadTooLarge) } else { Ok(None) }
}

/// Parses and checks a complete head.
///
/// `bytes` ends where [`find_head_end`] found the end of the head. The head may have at most `headers_max` header
/// lines, and never more than [`HEADERS_CEILING`]. A target in absolute-form is rewritten to origin-form, and its host
/// replaces `Host` (RFC 9112 section 3.2.2). A raw target that is not UTF-8 is percent-encoded.
///
/// # Errors
/// The first violated rule. Syntax is checked before semantics. The framing of the request (`Host`, the length of the
/// body) is checked before its upgrade headers.
pub fn parse_head(bytes: Vec<u8>, headers_max: usize, peer: Peer) -> Result<Head, HttpError> {
    debug_assert_eq!(
        find_head_end(&bytes, &mut 0, usize::MAX),
        Ok(Some(bytes.len())),
        "parse_head requires exactly one complete head"
    );
    if u32::try_from(bytes.len()).is_err() {
        return Err(HttpError::HeadTooLarge);
    }
    let mut header_slots = [const { MaybeUninit::uninit() }; HEADERS_CEILING];
    let header_slots = &mut header_slots[..headers_max.min(HEADERS_CEILING)];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&bytes, header_slots) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HttpError::RequestLine),
        Err(error) => match target::encode_raw(&bytes) {
            Some(encoded) => return parse_head(encoded, headers_max, peer),
            None => return Err(syntax_error(error, &bytes)),
        },
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HttpError::RequestLine);
    };
    let form = RequestTarget::parse(method, target).ok_or(HttpError::Target)?;
    if form == RequestTarget::Origin && decode_path(target.split('?').next().unwrap_or_default()).is_err() {
        return Err(HttpError::Path);
    }
    let fields = Fields::gather(parsed.headers);
    // RFC 9112 section 3.2: an invalid `Host` is an error even if a target in absolute-form replaces it.
    fields.check_host(version)?;
    if let RequestTarget::Absolute(absolute) = form {
        let rewritten = absolute.rewrite(method, version, parsed.headers);
        // An HTTP/1.0 request without `Host` has one line more after the rewrite.
        return parse_head(rewritten, headers_max.saturating_add(1), peer);
    }
    let body = fields.body_length(version)?;
    let expects_continue = fields.expects_continue(version)? && body != BodyLength::None;
    let kind = fields.kind(method, version, body)?;
    let keep_alive = !fields.close && (version == 1 || fields.keep_alive);

    let layout = Layout::of(&bytes, (method, target, version), parsed.headers);
    let request = Request::new(bytes, layout, peer);
    Ok(Head { request, kind, body, keep_alive, expects_continue })
}

impl HttpError {
    /// Returns the status of the response.
    pub fn status(self) -> u16 {
        self.status_and_text().0
    }

    /// Returns the response with description and required headers.
    ///
    /// It closes the connection. On a control listener its body is JSON.
    pub fn response(self, is_control: bool) -> Response {
        let (status, text) = self.status_and_text();
        let response = Response::refusal(is_control, status, text).close();
        match self {
            // RFC 9110 section 15.5.6.
            HttpError::UpgradeMethod => response.header("Allow", "GET"),
            // RFC 6455 section 4.4, RFC 9110 section 15.5.22.
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
            Self::HeadTooLarge => (431, "request head is too long"),
            Self::TooManyHeaders => (431, "too many header lines"),
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
            Self::UpgradeBody => (400, "WebSocket upgrade must not have a body"),
            Self::UpgradeRequired => (
                426,
                "WebSocket upgrade required; if the client sent one, a proxy must forward \
                 the headers Connection and Upgrade",
            ),
            Self::BodyTooLarge => (413, "request body is too long"),
            Self::ChunkSize => (400, "chunk size must be a hexadecimal number of at most 64 bits"),
            Self::ChunkFraming => (400, "malformed chunk"),
            Self::ChunkExtensionsTooLarge => (413, "chunk extensions are too long"),
            Self::TrailersTooLarge => (431, "trailers are too long"),
            Self::Overload => (503, "too many unfinished requests"),
            Self::OutOfMemory => (503, "out of memory"),
        }
    }
}

/// The description that the client receives.
impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status_and_text().1)
    }
}

impl std::error::Error for HttpError {}

impl<'a> Fields<'a> {
    fn gather(headers: &[httparse::Header<'a>]) -> Fields<'a> {
        let mut fields = Fields::default();
        for &httparse::Header { name, value } in headers {
            fields.record(name, value);
        }
        fields
    }

    /// Records one header line.
    ///
    /// The comparisons check the length first, so most lines cost a few comparisons of numbers.
    fn record(&mut self, name: &str, value: &'a [u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            self.host.record(value);
        } else if is("content-length") {
            self.content_length.record(value);
        } else if is("transfer-encoding") {
            list_elements(value).for_each(|element| self.coding.record(element));
        } else if is("connection") {
            for element in list_elements(value) {
                self.close |= element.eq_ignore_ascii_case(b"close");
                self.keep_alive |= element.eq_ignore_ascii_case(b"keep-alive");
                self.upgrade |= element.eq_ignore_ascii_case(b"upgrade");
            }
        } else if is("upgrade") {
            self.websocket |= list_elements(value).any(|e| e.eq_ignore_ascii_case(b"websocket"));
        } else if is("sec-websocket-key") {
            self.key.record(value);
        } else if is("sec-websocket-version") {
            self.version_13 = Some(self.version_13 != Some(false) && value == b"13");
        } else if is("expect") {
            let known = value.eq_ignore_ascii_case(b"100-continue");
            let unknown_before = self.expect == Expect::Unknown;
            self.expect = if known && !unknown_before { Expect::Continue } else { Expect::Unknown };
        }
    }

    /// Checks `Host` (RFC 9112 section 3.2). It is optional in HTTP/1.0.
    fn check_host(&self, version: u8) -> Result<(), HttpError> {
        match self.host {
            Single::Missing if version == 0 => Ok(()),
            Single::Missing => Err(HttpError::HostMissing),
            Single::Once(host) if Authority::parse(host).is_some() => Ok(()),
            Single::Once(_) => Err(HttpError::HostMalformed),
            Single::Repeated => Err(HttpError::HostRepeated),
        }
    }

    /// Determines the length of the body (RFC 9112 section 6.3).
    ///
    /// If the RFC permits either recovery or refusal, this refuses.
    fn body_length(&self, version: u8) -> Result<BodyLength, HttpError> {
        match (self.content_length, self.coding) {
            (Single::Missing, Coding::Missing) => Ok(BodyLength::None),
            (Single::Repeated, Coding::Missing) => Err(HttpError::LengthRepeated),
            (Single::Once(digits), Coding::Missing) => match parse_decimal(digits) {
                Some(0) => Ok(BodyLength::None),
                Some(length) => Ok(BodyLength::Length(length)),
                None => Err(HttpError::LengthMalformed),
            },
            (Single::Once(_) | Single::Repeated, _) => Err(HttpError::LengthAndCoding),
            (Single::Missing, _) if version == 0 => Err(HttpError::CodingOnHttp10),
            (Single::Missing, Coding::Chunked) => Ok(BodyLength::Chunked),
            (Single::Missing, Coding::Malformed) => Err(HttpError::CodingMalformed),
            (Single::Missing, Coding::Unknown) => Err(HttpError::CodingUnknown),
        }
    }

    /// Evaluates `Expect` (RFC 9110 section 10.1.1). It has no effect in HTTP/1.0.
    fn expects_continue(&self, version: u8) -> Result<bool, HttpError> {
        match self.expect {
            _ if version == 0 => Ok(false),
            Expect::Nothing => Ok(false),
            Expect::Continue => Ok(true),
            Expect::Unknown => Err(HttpError::Expectation),
        }
    }

    /// Checks whether the request is a valid upgrade (RFC 6455 section 4.2.1).
    fn kind(&self, method: &str, version: u8, body: BodyLength) -> Result<RequestKind, HttpError> {
        if !(self.upgrade && self.websocket) {
            let wanted_upgrade = self.websocket || !matches!(self.key, Single::Missing);
            return Ok(RequestKind::Plain { wanted_upgrade });
        }
        if method != "GET" {
            return Err(HttpError::UpgradeMethod);
        }
        if version == 0 {
            return Err(HttpError::UpgradeOnHttp10);
        }
        if self.version_13 != Some(true) {
            return Err(HttpError::UpgradeVersion);
        }
        let key = match self.key {
            Single::Missing => return Err(HttpError::KeyMissing),
            Single::Once(key) => str::from_utf8(key).map_err(|_| HttpError::KeyMalformed)?,
            Single::Repeated => return Err(HttpError::KeyRepeated),
        };
        let accept = accept_key(key).ok_or(HttpError::KeyMalformed)?;
        if body != BodyLength::None {
            return Err(HttpError::UpgradeBody);
        }
        Ok(RequestKind::Upgrade { accept })
    }
}

impl<'a> Single<'a> {
    fn record(&mut self, value: &'a [u8]) {
        *self = match self {
            Single::Missing => Single::Once(value),
            Single::Once(_) | Single::Repeated => Single::Repeated,
        };
    }
}

impl Coding {
    /// Adds one element of the list.
    ///
    /// An unknown coding takes precedence over a malformed list.
    fn record(&mut self, element: &[u8]) {
        let chunked = element.eq_ignore_ascii_case(b"chunked");
        *self = match self {
            Coding::Unknown => Coding::Unknown,
            _ if !chunked && !element.is_empty() => Coding::Unknown,
            Coding::Missing if chunked => Coding::Chunked,
            _ => Coding::Malformed,
        };
    }
}

/// Maps an error of httparse to the violated rule.
fn syntax_error(error: httparse::Error, head: &[u8]) -> HttpError {
    match error {
        httparse::Error::TooManyHeaders => HttpError::TooManyHeaders,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HttpError::HeaderLine,
        httparse::Error::Version if has_version(head) => HttpError::Version,
        _ => HttpError::RequestLine,
    }
}

/// Returns whether the request line names an HTTP version (RFC 9112 section 2.3).
///
/// The form is `HTTP/` digit `.` digit. The version may be unsupported.
fn has_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let version = line.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
}

/// Parses a decimal number of 64 bits.
///
/// `u64::from_str` alone would accept a plus sign.
fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// The body of a fuzz target.
///
/// The end of a head must not depend on the division of the input. A parsed head that is written out again must have
/// the same meaning.
#[cfg(any(test, feature = "unstable"))]
pub fn fuzz_head(data: &[u8]) {
    const BYTES_MAX: usize = 1024;
    const PEER: Peer = Peer::V4 { ip: [127, 0, 0, 1], port: 1 };
    let data = data.get(skip_empty_lines(data)..).unwrap_or_default();
    let whole = find_head_end(data, &mut 0, BYTES_MAX);
    let mut scanned = 0;
    let bytewise = (1..=data.len())
        .map(|end| find_head_end(&data[..end], &mut scanned, BYTES_MAX))
        .find(|outcome| *outcome != Ok(None));
    assert_eq!(whole, bytewise.unwrap_or(Ok(None)));

    let Ok(Some(end)) = whole else { return };
    assert!(end <= BYTES_MAX && data[..end].ends_with(b"\r\n\r\n"));
    let Ok(head) = parse_head(data[..end].to_vec(), 64, PEER) else {
        return;
    };
    let request = &head.request;
    let is_options = request.method() == "OPTIONS" && request.target() == "*";
    // One more than 64: an HTTP/1.0 request with a target in absolute-form and without `Host` gets one.
    assert!((request.target().starts_with('/') || is_options) && request.headers().len() <= 65);
    assert!(!matches!(head.kind, RequestKind::Upgrade { .. }) || request.version() == 1);

    // The same request in absolute-form is equivalent, with the host of its target.
    let absolute = format!("HTTP://[::1]:8080{}", request.target().trim_start_matches('*'));
    for (target, host) in [(request.target(), None), (absolute.as_str(), Some(&b"[::1]:8080"[..]))] {
        let mut rewritten = format!("{} {target} HTTP/1.{}\r\n", request.method(), request.version()).into_bytes();
        for (name, value) in request.headers() {
            rewritten.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
            assert!(request.values(name).any(|other| other == value));
        }
        rewritten.extend_from_slice(b"\r\n");
        let again = parse_head(rewritten, 65, PEER).expect("the rewritten head is valid");
        assert_eq!((again.kind, again.body), (head.kind, head.body));
        assert_eq!(again.keep_alive, head.keep_alive);
        assert_eq!(again.expects_continue, head.expects_continue);
        assert_eq!(again.request.target(), request.target());
        let hosts: Vec<&[u8]> = again.request.values("host").collect();
        assert_eq!(hosts, host.or(request.values("host").next()).into_iter().collect::<Vec<_>>());
    }

    assert_eq!(Ok(request.path()), decode_path(request.target().split('?').next().unwrap_or_default()));
    assert_eq!(request.query_pairs().is_ok(), super::query::check(request.raw_query()).is_ok());
    let _ = (request.cookies().count(), request.subprotocols().count());
    let _ = (request.query_pairs_lossy().count(), super::origin::Origins::Same.allows(request));
}

#[cfg(test)]
mod tests;
