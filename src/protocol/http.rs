//! HTTP/1.1 request heads: where they end, what they say, and whether that is allowed.
//!
//! [`httparse`] reads the syntax; this file judges, because a parser alone lets pass what must not (RFC 9112 section
//! 11.2: two readings of one request let a second one through). Whoever asks for a body in two ways, or for a host in
//! none, is refused and the connection closed; nothing is guessed.
//!
//! It sees bytes and gives values: no socket, no clock, and nothing of what becomes of a request.

use std::fmt;
use std::mem::MaybeUninit;

use super::origin::Authority;
use super::query::decode_path;
use super::request::{Layout, Request};
use super::response::Response;
use super::target::{self, Target};
use super::token::{is_token_byte, list_elements};
use super::upgrade::accept_key;
use crate::peer::Peer;

/// The most header lines that any limit can allow: their places are kept on the stack.
pub const HEADERS_CEILING: usize = 256;

/// What is wrong with a request. After any of these the connection closes, because where the next request would start
/// is no longer certain.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// The first byte starts no method; often a TLS hello sent to a plain port.
    NotHttp,
    /// A line ends in LF without CR. RFC 9112 section 2.2 would allow to take it; smugglers do.
    BareLineFeed,
    /// The PROXY header that must come first is malformed, or is not there.
    ProxyHeader,
    /// The request line is not `method SP target SP version` (RFC 9112 section 3).
    RequestLine,
    /// The target is neither a path nor an `http` URL, or holds `#` or a control (RFC 9112 section 3.2).
    Target,
    /// The target's path is not percent-encoded UTF-8: two of them would become one path.
    Path,
    /// A version other than HTTP/1.1 and HTTP/1.0.
    Version,
    /// A header line breaks RFC 9112 section 5: an unfit name or value, a space before the colon, a folded line.
    HeaderLine,
    /// The head is longer than the limit (RFC 6585 section 5).
    HeadTooLarge,
    /// The head has more lines than the limit (RFC 6585 section 5).
    TooManyHeaders,
    /// The head or the body did not come in time.
    Timeout,
    /// HTTP/1.1 without `Host` (RFC 9112 section 3.2).
    HostMissing,
    /// `Host` more than once (RFC 9112 section 3.2).
    HostRepeated,
    /// `Host` is no `host[:port]` (RFC 9112 section 3.2).
    HostMalformed,
    /// `Content-Length` more than once, were it twice the same.
    LengthRepeated,
    /// `Content-Length` is no number of 64 bits (RFC 9110 section 8.6).
    LengthMalformed,
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 section 6.3).
    LengthAndCoding,
    /// `Transfer-Encoding` names `chunked` more than once, or nothing (RFC 9112 section 6.1).
    CodingMalformed,
    /// `Transfer-Encoding` names a coding other than `chunked` (RFC 9112 section 6.1).
    CodingUnknown,
    /// `Transfer-Encoding` with HTTP/1.0 (RFC 9112 section 6.1).
    CodingOnHttp10,
    /// `Expect` asks for something other than `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// An upgrade by a method other than GET (RFC 6455 section 4.1).
    UpgradeMethod,
    /// An upgrade by HTTP/1.0 (RFC 9110 section 7.8).
    UpgradeOnHttp10,
    /// `Sec-WebSocket-Version` is not 13 (RFC 6455 section 4.4).
    UpgradeVersion,
    /// An upgrade without `Sec-WebSocket-Key` (RFC 6455 section 4.2.1).
    KeyMissing,
    /// `Sec-WebSocket-Key` more than once (RFC 6455 section 11.3.1).
    KeyRepeated,
    /// `Sec-WebSocket-Key` is not the base64 of 16 bytes (RFC 6455 section 4.2.1).
    KeyMalformed,
    /// An upgrade with a body, whose bytes would be taken for frames.
    UpgradeBody,
    /// A plain request where only WebSockets are served (RFC 9110 section 15.5.22).
    UpgradeRequired,
    /// The body is longer than the limit (RFC 9110 section 15.5.14).
    BodyTooLarge,
    /// A chunk size is no hexadecimal number of 64 bits (RFC 9112 section 7.1).
    ChunkSize,
    /// What is around a chunk's data breaks RFC 9112 section 7.1.
    ChunkFraming,
    /// A chunked body brings too many bytes of chunk extensions.
    ChunkExtensionsTooLarge,
    /// A chunked body brings too many bytes of trailers.
    TrailersTooLarge,
    /// Unfinished messages, heads and bodies of all connections are over their bound, and this is among the largest.
    Overload,
    /// There is no memory for what came.
    OutOfMemory,
}

/// A head that passed, and what it asks for.
#[derive(Debug)]
pub struct Head {
    /// The request, as yet without its body.
    pub request: Request,
    /// A WebSocket, or plain HTTP.
    pub kind: Kind,
    /// What follows the head.
    pub body: BodyLength,
    /// Whether another request may follow on this connection (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for a `100 Continue` before it sends its body. Never without a body.
    pub expects_continue: bool,
}

/// What a request asks for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A WebSocket, and all that RFC 6455 section 4.2.1 demands of the client is there.
    Upgrade {
        /// The value of `Sec-WebSocket-Accept`.
        accept: [u8; 28],
    },
    /// Plain HTTP.
    Plain {
        /// It carries marks of an upgrade but does not ask for one: a proxy in between took its `Connection` and
        /// `Upgrade` away. Without a handler for it, it gets [`HttpError::UpgradeRequired`], which says so.
        wanted_upgrade: bool,
    },
}

/// How long a request's body is (RFC 9112 section 6.3).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum BodyLength {
    /// No body: neither header is there, or `Content-Length` is 0.
    None,
    /// So many bytes; from [`parse_head`] never 0.
    Length(u64),
    /// Chunks, until the last one.
    Chunked,
}

/// The header lines that decide over a request, gathered in one pass.
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
    /// Whether all lines of `Sec-WebSocket-Version` say 13; `None` without such a line.
    version_13: Option<bool>,
    expect: Expect,
}

/// A header that may come once.
#[derive(Copy, Clone, Default)]
enum Single<'a> {
    #[default]
    Missing,
    Once(&'a [u8]),
    Repeated,
}

/// What `Transfer-Encoding` comes to.
#[derive(Copy, Clone, PartialEq, Default)]
enum Coding {
    #[default]
    Missing,
    Chunked,
    Malformed,
    Unknown,
}

/// What `Expect` comes to.
#[derive(Copy, Clone, PartialEq, Default)]
enum Expect {
    #[default]
    Nothing,
    Continue,
    Unknown,
}

/// How many bytes at the front of `buf` are blank lines, which a server should ignore before a request line (RFC 9112
/// section 2.2). The caller drops them before [`find_head_end`].
pub fn skip_empty_lines(buf: &[u8]) -> usize {
    buf.chunks_exact(2).take_while(|line| line == b"\r\n").count() * 2
}

/// Looks for the end of the head at the front of `buf`, which may grow from call to call: the index behind its blank
/// line, or `None` when that has not come yet.
///
/// `scanned` says how far earlier calls have looked; it starts at 0 with each head. No byte is looked at twice, so a
/// head that comes byte by byte costs no more than one that comes whole. And however it comes, the outcome is the same.
///
/// # Errors
/// As soon as the bytes show that no good head can come: [`HttpError::NotHttp`], [`HttpError::BareLineFeed`], or
/// [`HttpError::HeadTooLarge`] when it does not end within `bytes_max`.
pub fn find_head_end(buf: &[u8], scanned: &mut usize, bytes_max: usize) -> Result<Option<usize>, HttpError> {
    match buf {
        // Half of a blank line, perhaps.
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

/// Reads and judges a head: exactly the bytes up to where [`find_head_end`] found the end, at most `headers_max` lines
/// of them headers (and never more than [`HEADERS_CEILING`]).
///
/// A target in absolute-form becomes one in origin-form, and its host the request's `Host` (RFC 9112 section 3.2.2). A raw
/// target that is not UTF-8 becomes its percent-encoded form.
///
/// # Errors
/// The first rule that the head breaks; syntax comes before meaning, and what frames the request (`Host`, the body's
/// length) before what it asks for.
pub fn parse_head(bytes: Vec<u8>, headers_max: usize, peer: Peer) -> Result<Head, HttpError> {
    debug_assert_eq!(
        find_head_end(&bytes, &mut 0, usize::MAX),
        Ok(Some(bytes.len())),
        "a head is looked for before it is parsed"
    );
    if u32::try_from(bytes.len()).is_err() {
        return Err(HttpError::HeadTooLarge);
    }
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_CEILING];
    let room = &mut room[..headers_max.min(HEADERS_CEILING)];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&bytes, room) {
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
    let form = Target::parse(method, target).ok_or(HttpError::Target)?;
    if form == Target::Origin && decode_path(target.split('?').next().unwrap_or_default()).is_err() {
        return Err(HttpError::Path);
    }
    let fields = Fields::gather(parsed.headers);
    // RFC 9112 section 3.2: a bad `Host` is refused whether or not it has effect.
    fields.check_host(version)?;
    if let Target::Absolute(absolute) = form {
        let rewritten = absolute.rewrite(method, version, parsed.headers);
        // HTTP/1.0 may have come without the line that is there now.
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
    /// The status of the answer.
    pub fn status(self) -> u16 {
        self.verdict().0
    }

    /// The answer: status, reason, and the headers that the status calls for. It closes the connection.
    pub fn response(self, is_control: bool) -> Response {
        let (status, why) = self.verdict();
        let response = Response::refusal(is_control, status, why).close();
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

    const fn verdict(self) -> (u16, &'static str) {
        match self {
            Self::NotHttp => (400, "this is not HTTP; a TLS client on a plain port?"),
            Self::BareLineFeed => (400, "a line ends in LF without CR"),
            Self::ProxyHeader => (400, "a valid PROXY header must come first"),
            Self::RequestLine => (400, "the request line is malformed"),
            Self::Target => (400, "the target must be a path or an http URL, without #"),
            Self::Path => (400, "the path must be percent-encoded UTF-8"),
            Self::Version => (505, "the version must be HTTP/1.1 or HTTP/1.0"),
            Self::HeaderLine => (400, "a header line is malformed"),
            Self::HeadTooLarge => (431, "the request head is too long"),
            Self::TooManyHeaders => (431, "the request has too many headers"),
            Self::Timeout => (408, "the request did not come in time"),
            Self::HostMissing => (400, "Host is missing"),
            Self::HostRepeated => (400, "Host is there more than once"),
            Self::HostMalformed => (400, "Host is not host[:port]"),
            Self::LengthRepeated => (400, "Content-Length is there more than once"),
            Self::LengthMalformed => (400, "Content-Length is not a number of 64 bits"),
            Self::LengthAndCoding => (400, "both Content-Length and Transfer-Encoding are there"),
            Self::CodingMalformed => (400, "Transfer-Encoding must say chunked exactly once"),
            Self::CodingUnknown => (501, "the only transfer coding understood is chunked"),
            Self::CodingOnHttp10 => (400, "HTTP/1.0 has no Transfer-Encoding"),
            Self::Expectation => (417, "the only expectation understood is 100-continue"),
            Self::UpgradeMethod => (405, "a WebSocket is asked for with GET"),
            Self::UpgradeOnHttp10 => (400, "a WebSocket is asked for with HTTP/1.1"),
            Self::UpgradeVersion => (426, "Sec-WebSocket-Version must be 13"),
            Self::KeyMissing => (400, "Sec-WebSocket-Key is missing"),
            Self::KeyRepeated => (400, "Sec-WebSocket-Key is there more than once"),
            Self::KeyMalformed => (400, "Sec-WebSocket-Key is not the base64 of 16 bytes"),
            Self::UpgradeBody => (400, "a request for a WebSocket has no body"),
            Self::UpgradeRequired => (
                426,
                "only WebSockets are served here; if one was asked for, a proxy in between must \
                 pass on the headers Connection and Upgrade",
            ),
            Self::BodyTooLarge => (413, "the request body is too long"),
            Self::ChunkSize => (400, "a chunk size is not a hexadecimal number of 64 bits"),
            Self::ChunkFraming => (400, "a chunk is malformed"),
            Self::ChunkExtensionsTooLarge => (413, "the chunk extensions are too long"),
            Self::TrailersTooLarge => (431, "the trailers are too long"),
            Self::Overload => (503, "too many unfinished requests"),
            Self::OutOfMemory => (503, "out of memory"),
        }
    }
}

/// What is wrong, for the client to read.
impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict().1)
    }
}

impl std::error::Error for HttpError {}

impl<'a> Fields<'a> {
    fn gather(headers: &[httparse::Header<'a>]) -> Fields<'a> {
        let mut fields = Fields::default();
        for &httparse::Header { name, value } in headers {
            fields.note(name, value);
        }
        fields
    }

    /// Takes note of one header line. The comparisons look at the length first, so that most lines cost a few
    /// comparisons of numbers.
    fn note(&mut self, name: &str, value: &'a [u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            self.host.note(value);
        } else if is("content-length") {
            self.content_length.note(value);
        } else if is("transfer-encoding") {
            list_elements(value).for_each(|element| self.coding.note(element));
        } else if is("connection") {
            for element in list_elements(value) {
                self.close |= element.eq_ignore_ascii_case(b"close");
                self.keep_alive |= element.eq_ignore_ascii_case(b"keep-alive");
                self.upgrade |= element.eq_ignore_ascii_case(b"upgrade");
            }
        } else if is("upgrade") {
            self.websocket |= list_elements(value).any(|e| e.eq_ignore_ascii_case(b"websocket"));
        } else if is("sec-websocket-key") {
            self.key.note(value);
        } else if is("sec-websocket-version") {
            self.version_13 = Some(self.version_13 != Some(false) && value == b"13");
        } else if is("expect") {
            let known = value.eq_ignore_ascii_case(b"100-continue");
            let unknown_before = self.expect == Expect::Unknown;
            self.expect = if known && !unknown_before { Expect::Continue } else { Expect::Unknown };
        }
    }

    /// RFC 9112 section 3.2. HTTP/1.0 may go without.
    fn check_host(&self, version: u8) -> Result<(), HttpError> {
        match self.host {
            Single::Missing if version == 0 => Ok(()),
            Single::Missing => Err(HttpError::HostMissing),
            Single::Once(host) if Authority::parse(host).is_some() => Ok(()),
            Single::Once(_) => Err(HttpError::HostMalformed),
            Single::Repeated => Err(HttpError::HostRepeated),
        }
    }

    /// RFC 9112 section 6.3, with every leave that it gives to refuse taken.
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

    /// RFC 9110 section 10.1.1: HTTP/1.0 expects nothing, whatever it says.
    fn expects_continue(&self, version: u8) -> Result<bool, HttpError> {
        match self.expect {
            _ if version == 0 => Ok(false),
            Expect::Nothing => Ok(false),
            Expect::Continue => Ok(true),
            Expect::Unknown => Err(HttpError::Expectation),
        }
    }

    /// RFC 6455 section 4.2.1: what makes a request an upgrade, and what an upgrade must have.
    fn kind(&self, method: &str, version: u8, body: BodyLength) -> Result<Kind, HttpError> {
        if !(self.upgrade && self.websocket) {
            let wanted_upgrade = self.websocket || !matches!(self.key, Single::Missing);
            return Ok(Kind::Plain { wanted_upgrade });
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
        Ok(Kind::Upgrade { accept })
    }
}

impl<'a> Single<'a> {
    fn note(&mut self, value: &'a [u8]) {
        *self = match self {
            Single::Missing => Single::Once(value),
            Single::Once(_) | Single::Repeated => Single::Repeated,
        };
    }
}

impl Coding {
    /// Takes in one more element of the list. An unknown coding outweighs a malformed list.
    fn note(&mut self, element: &[u8]) {
        let chunked = element.eq_ignore_ascii_case(b"chunked");
        *self = match self {
            Coding::Unknown => Coding::Unknown,
            _ if !chunked && !element.is_empty() => Coding::Unknown,
            Coding::Missing if chunked => Coding::Chunked,
            _ => Coding::Malformed,
        };
    }
}

/// The rule that a head breaks on which httparse gave up.
fn syntax_error(error: httparse::Error, head: &[u8]) -> HttpError {
    match error {
        httparse::Error::TooManyHeaders => HttpError::TooManyHeaders,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HttpError::HeaderLine,
        httparse::Error::Version if names_a_version(head) => HttpError::Version,
        _ => HttpError::RequestLine,
    }
}

/// Whether the request line's third and last word is `HTTP/` digit `.` digit (RFC 9112 section 2.3): a version, if none
/// that is served, and no mere rubbish.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let version = line.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
}

/// Digits and nothing else, as a number of 64 bits. `u64::from_str` alone would take a plus sign.
fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// The body of a fuzz target: a head is found at the same place however it comes, and what is read from it means the
/// same when it is written out again.
#[doc(hidden)]
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
    // One more: HTTP/1.0 with a target in absolute-form and no `Host` is given one.
    assert!((request.target().starts_with('/') || is_options) && request.headers().len() <= 65);
    assert!(!matches!(head.kind, Kind::Upgrade { .. }) || request.version() == 1);

    // In absolute-form it asks for the same, of the host that its target names.
    let absolute = format!("HTTP://[::1]:8080{}", request.target().trim_start_matches('*'));
    for (target, host) in [(request.target(), None), (absolute.as_str(), Some(&b"[::1]:8080"[..]))] {
        let mut rewritten = format!("{} {target} HTTP/1.{}\r\n", request.method(), request.version()).into_bytes();
        for (name, value) in request.headers() {
            rewritten.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
            assert!(request.values(name).any(|other| other == value));
        }
        rewritten.extend_from_slice(b"\r\n");
        let again = parse_head(rewritten, 65, PEER).expect("a head that passed once");
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
