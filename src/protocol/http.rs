//! Finds the end of an HTTP/1.1 request head, and parses and checks the head.
//!
//! [`httparse`] parses the syntax. This module checks all other rules. If two servers interpret one request
//! differently, an attacker can smuggle a second request (RFC 9112 section 11.2). So an ambiguous body length or host
//! is an error that closes the connection.
//!
//! The functions take bytes and return values. The module does not use sockets or clocks and does not route requests.

mod error;

use std::mem::MaybeUninit;

use super::origin::authority::Authority;
use super::query::decode_path;
use super::request::{Layout, Request};
use super::target::{self, RequestTarget};
use super::token::{is_token, is_token_byte, list_elements, split_once};
use super::upgrade::accept_key;
use crate::peer::Peer;

pub use error::HttpError;

/// The largest valid `headers_max`.
///
/// The limit exists because the parser stores the positions of all header lines on the stack.
pub const HEADERS_CEILING: usize = 256;

/// A valid head.
#[derive(Debug)]
pub struct Head {
    /// The request, without its body.
    pub request: Request<'static>,
    /// The type of the request: upgrade or plain HTTP.
    pub kind: RequestKind,
    /// The length of the body after the head.
    pub body: BodyLength,
    /// Whether another request may follow on this connection (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends its body.
    ///
    /// The field is `false` if the request has no body.
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
        /// Whether a plain request has `Upgrade: websocket` or `Sec-WebSocket-Key`, although it is not a valid upgrade.
        ///
        /// The usual cause is a proxy that removed `Connection` and `Upgrade`. Without a handler for plain requests the
        /// answer is [`HttpError::UpgradeRequired`], whose text names this cause.
        wanted_upgrade: bool,
    },
}

/// The length of a request body (RFC 9112 section 6.3).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum BodyLength {
    /// No body: the request has neither `Content-Length` nor `Transfer-Encoding`, or `Content-Length` is 0.
    None,
    /// A known number of bytes. [`parse_head`] never returns 0 here.
    Length(u64),
    /// A chunked body. The chunk of size 0 is the last.
    Chunked,
}

/// The values of the headers that determine how a request is processed.
#[derive(Default)]
struct Fields<'a> {
    host: Single<'a>,
    content_length: Single<'a>,
    coding: Coding,
    /// Whether `Connection` contains `close`. The next two fields, `keep_alive` and `upgrade`, are the same for the
    /// elements `keep-alive` and `upgrade`.
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// Whether `Upgrade` contains `websocket`.
    websocket: bool,
    key: Single<'a>,
    /// Whether all lines of `Sec-WebSocket-Version` are 13; `None` without such a line.
    version_13: Option<bool>,
    subprotocols: Offers,
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

/// The combined value of all `Sec-WebSocket-Protocol` lines.
#[derive(Copy, Clone, PartialEq, Default)]
enum Offers {
    #[default]
    Missing,
    /// The header is present and has no element.
    Empty,
    Tokens,
    Malformed,
}

/// The combined value of all `Expect` lines.
#[derive(Copy, Clone, PartialEq, Default)]
enum Expect {
    #[default]
    Nothing,
    Continue,
    Unknown,
}

/// Returns the number of bytes in blank lines at the start of `buf`.
///
/// A server should ignore blank lines before a request line (RFC 9112 section 2.2). The caller must remove these lines
/// before the call of [`find_head_end`].
pub fn skip_empty_lines(buf: &[u8]) -> usize {
    buf.chunks_exact(2).take_while(|line| line == b"\r\n").count() * 2
}

/// Finds the end of the head at the start of `buf`.
///
/// `buf` may grow between calls. Returns the index after the blank line, or `None` if the blank line has not arrived.
/// `scanned` is the number of bytes that earlier calls have searched. `scanned` must be 0 for a new head. No byte is
/// searched twice, so the search takes as much time for a head that arrives byte by byte as for a head that arrives at
/// once. The result does not depend on how the input is split.
///
/// # Errors
/// Returns [`HttpError::NotHttp`] or [`HttpError::BareLineFeed`] as soon as the bytes cannot begin a valid head, and
/// [`HttpError::HeadTooLarge`] if the head has more than `bytes_max` bytes.
pub fn find_head_end(buf: &[u8], scanned: &mut usize, bytes_max: usize) -> Result<Option<usize>, HttpError> {
    match buf {
        // No byte, or a CR, which may be the first half of a blank line before the head.
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
/// replaces `Host` (RFC 9112 section 3.2.2). If the raw path or query is not UTF-8, this function percent-encodes their
/// non-ASCII bytes.
///
/// # Errors
/// Returns the first rule that the head violates. Syntax is checked before semantics. `Host` and the length of the body
/// are checked before the headers of an upgrade.
pub fn parse_head(bytes: Vec<u8>, headers_max: usize, peer: Peer) -> Result<Head, HttpError> {
    debug_assert_eq!(
        find_head_end(&bytes, &mut 0, usize::MAX),
        Ok(Some(bytes.len())),
        "`bytes` must be exactly one complete head"
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
    let (path, _) = split_once(target, b'?').unwrap_or((target, ""));
    if form == RequestTarget::Origin && decode_path(path).is_err() {
        return Err(HttpError::Path);
    }
    let fields = Fields::gather(parsed.headers);
    // RFC 9112 section 3.2: an invalid `Host` is an error even if a target in absolute-form replaces it.
    fields.check_host(version)?;
    if let RequestTarget::Absolute(absolute) = form {
        let rewritten = absolute.rewrite(method, version, parsed.headers);
        // The maximum is one line higher, because the rewrite adds a `Host` line to an HTTP/1.0 request without `Host`.
        return parse_head(rewritten, headers_max.saturating_add(1), peer);
    }
    let body = fields.body_length(version)?;
    let expects_continue = fields.expects_continue(version)? && body != BodyLength::None;
    let kind = fields.kind(method, version, body)?;
    let keep_alive = !fields.close && (version == 1 || fields.keep_alive);

    let layout = Layout::of(&bytes, (method, target, version), path.len(), parsed.headers);
    let request = Request::new(bytes, layout, peer);
    Ok(Head { request, kind, body, keep_alive, expects_continue })
}

impl<'a> Fields<'a> {
    fn gather(headers: &[httparse::Header<'a>]) -> Fields<'a> {
        let mut fields = Fields::default();
        for &httparse::Header { name, value } in headers {
            fields.record(name, value);
        }
        fields
    }

    /// Stores the value of a header line, if the header has a field in [`Fields`].
    ///
    /// The comparison of two names compares their lengths first. So for most header lines, only a few numbers are
    /// compared.
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
        } else if is("sec-websocket-protocol") {
            self.subprotocols.record(value);
        } else if is("expect") {
            let known = value.eq_ignore_ascii_case(b"100-continue");
            let unknown_before = self.expect == Expect::Unknown;
            self.expect = if known && !unknown_before { Expect::Continue } else { Expect::Unknown };
        }
    }

    /// Checks `Host` (RFC 9112 section 3.2). The header is optional in HTTP/1.0.
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
    /// The request is refused if its length is ambiguous, even where the RFC permits the server to choose a length.
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

    /// Returns whether `Expect` asks for `100 Continue` (RFC 9110 section 10.1.1).
    ///
    /// The header has no effect in HTTP/1.0.
    fn expects_continue(&self, version: u8) -> Result<bool, HttpError> {
        match self.expect {
            _ if version == 0 => Ok(false),
            Expect::Nothing => Ok(false),
            Expect::Continue => Ok(true),
            Expect::Unknown => Err(HttpError::Expectation),
        }
    }

    /// Returns the type of the request, and checks an upgrade (RFC 6455 section 4.2.1).
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
        if matches!(self.subprotocols, Offers::Empty | Offers::Malformed) {
            return Err(HttpError::SubprotocolMalformed);
        }
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

impl Offers {
    /// Adds the elements of a line. Empty elements are ignored (RFC 9110 section 5.6.1).
    fn record(&mut self, value: &[u8]) {
        for element in list_elements(value).filter(|element| !element.is_empty()) {
            *self = match self {
                Offers::Missing | Offers::Empty | Offers::Tokens if is_token(element) => Offers::Tokens,
                _ => Offers::Malformed,
            };
        }
        if *self == Offers::Missing {
            *self = Offers::Empty;
        }
    }
}

impl Coding {
    /// Adds one element of the header's list of codings.
    ///
    /// If the list is malformed and also names an unknown coding, the result is `Unknown`.
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

/// Converts an error of httparse to the [`HttpError`] for the violated rule.
fn syntax_error(error: httparse::Error, head: &[u8]) -> HttpError {
    match error {
        httparse::Error::TooManyHeaders => HttpError::TooManyHeaders,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HttpError::HeaderLine,
        httparse::Error::Version if has_version(head) => HttpError::Version,
        _ => HttpError::RequestLine,
    }
}

/// Returns whether the request line names an HTTP version.
///
/// The form (RFC 9112 section 2.3) is `HTTP/` digit `.` digit. The version may be unsupported.
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

/// Runs the fuzz target `head`.
///
/// The end of a head must not depend on how the input is split. If a parsed head is encoded and parsed again, the
/// result must be equal.
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
    // The maximum is 65 header lines, not 64: the rewrite of a target in absolute-form adds a `Host` line to an
    // HTTP/1.0 request without `Host`.
    assert!((request.target().starts_with('/') || is_options) && request.headers().len() <= 65);
    assert!(!matches!(head.kind, RequestKind::Upgrade { .. }) || request.version() == 1);

    // The same request with a target in absolute-form must have the same result, except that `Host` is the host of the
    // target.
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
