//! An HTTP request, as handlers see it.
//!
//! A request owns the bytes of its head, and a list of the positions of the header names and values in these bytes. So
//! a request has two allocations, and not one string for each header. A header is found by a linear scan, which is
//! faster than a map for a few dozen headers.
//!
//! `http.rs` parses and checks heads. This module does not route requests.

use std::borrow::Cow;
use std::fmt;

use super::query::{self, QueryError};
use super::token;
use super::utf8;
use crate::peer::Peer;
use crate::tls::TlsInfo;

/// An HTTP request: a WebSocket upgrade or a plain request.
///
/// `Request` is [`Send`]. A request owns its head, and borrows a body that was received in one piece. A handler that
/// keeps the request, or moves it to another thread, copies the body with [`into_owned`](Request::into_owned).
#[derive(Clone)]
pub struct Request<'a> {
    /// The head, from the method to the blank line.
    head: Vec<u8>,
    /// The positions of the method, the target and the headers in `head`.
    layout: Layout,
    peer: Peer,
    /// The body. The field is empty until the body is complete.
    body: Cow<'a, [u8]>,
    is_control: bool,
    tls: Option<TlsInfo>,
}

/// The positions of the parts of a head.
#[derive(Clone)]
pub(crate) struct Layout {
    method: Span,
    target: Span,
    /// The length of the path in bytes, up to the first `?` of the target.
    path_bytes: u32,
    /// The minor HTTP version: 0 or 1.
    version: u8,
    /// The name and value of each header line, in order.
    fields: Vec<(Span, Span)>,
}

/// A range of bytes in a head.
///
/// Heads are shorter than 4 GiB, which `parse_head` checks.
#[derive(Copy, Clone, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl<'a> Request<'a> {
    /// Creates a request without a body from a head and its layout.
    pub(crate) fn new(head: Vec<u8>, layout: Layout, peer: Peer) -> Request<'a> {
        Request { head, layout, peer, body: Cow::default(), is_control: false, tls: None }
    }

    /// Returns the request with its own copy of the body.
    ///
    /// The result borrows no bytes, so it can be stored and moved to another thread:
    ///
    /// ```
    /// # use std::thread::{self, JoinHandle};
    /// # use fdpush::Request;
    /// fn log_later(request: &Request<'_>) -> JoinHandle<()> {
    ///     let request = request.clone().into_owned();
    ///     thread::spawn(move || println!("{} {}", request.method(), request.path()))
    /// }
    /// ```
    pub fn into_owned(self) -> Request<'static> {
        Request { body: Cow::Owned(self.body.into_owned()), ..self }
    }

    /// Returns the memory of the head in bytes.
    pub(crate) fn head_bytes(&self) -> usize {
        self.head.capacity() + self.layout.fields.capacity() * size_of::<(Span, Span)>()
    }

    /// Returns the method unchanged: `GET`, `POST`.
    ///
    /// Methods are case-sensitive (RFC 9110 section 9.1).
    pub fn method(&self) -> &str {
        self.text(self.layout.method)
    }

    /// Returns the path and query of the request target, still encoded: `/chat?uid=10010`.
    ///
    /// The target starts with `/`, or is `*` with the method OPTIONS. The target is UTF-8 without `#`, spaces and ASCII
    /// control characters. Browsers percent-encode non-ASCII characters; other clients may send them raw. If the raw
    /// path or query is not UTF-8, the server percent-encodes their non-ASCII bytes.
    ///
    /// If the client sent a target in absolute-form, `http://host/chat`, the result is its path and query. The host of
    /// the target replaces the value of the header `Host` (RFC 9112 section 3.2.2).
    pub fn target(&self) -> &str {
        self.text(self.layout.target)
    }

    /// Returns the percent-decoded path: `/caf%C3%A9` is `/café`.
    ///
    /// The path is UTF-8. A request whose decoded path is not UTF-8 gets 400 before any handler is called: with
    /// replacement characters, two different paths could become equal. Dots and slashes are not resolved, and a decoded
    /// path may contain any character. Compare the path, but do not open it as a file.
    pub fn path(&self) -> Cow<'_, str> {
        let (path, _) = self.split_target();
        query::decode_path(path).unwrap_or_default()
    }

    /// Returns the encoded path: the target up to its first `?`.
    pub fn raw_path(&self) -> &str {
        let (path, _) = self.split_target();
        path
    }

    /// Returns the encoded query: the target after its first `?`.
    ///
    /// The result is empty if the target has no query.
    pub fn raw_query(&self) -> &str {
        let (_, query) = self.split_target();
        query
    }

    /// Returns the value of a query parameter, decoded as form data.
    ///
    /// In form data, `+` is a space, and a name without `=` has the value `""`. Returns `None` if the parameter is
    /// absent or ambiguous. A parameter is ambiguous if it is repeated, has a `%` without two hexadecimal digits, or
    /// has bytes that are not UTF-8: with replacement characters, two different uids could become equal.
    /// [`try_query`](Request::try_query) distinguishes these cases. [`query_lossy`](Request::query_lossy) ignores them.
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.try_query(name).ok().flatten()
    }

    /// Returns the value of a query parameter; `None` if it is absent.
    ///
    /// The value is decoded as in [`query`](Request::query).
    ///
    /// ```
    /// use fdpush::{Request, Response, Upgrade};
    ///
    /// fn on_upgrade(request: &Request) -> Upgrade {
    ///     match request.try_query("uid") {
    ///         Ok(Some(uid)) => Upgrade::accept().uid(uid).into(),
    ///         Ok(None) => Upgrade::accept().into(), // anonymous
    ///         Err(error) => Upgrade::refuse(Response::text(400, error.to_string())),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// Returns an error if the parameter is ambiguous: see [`QueryError`].
    pub fn try_query(&self, name: &str) -> Result<Option<Cow<'_, str>>, QueryError> {
        query::value(self.raw_query(), name)
    }

    /// Returns the first value of a query parameter, lossily decoded.
    ///
    /// U+FFFD replaces each invalid byte sequence, so different values may become equal. Use this method for texts that
    /// people read, not for names such as uids.
    pub fn query_lossy(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_pairs_lossy().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Returns all names and values of the query, decoded.
    ///
    /// The pairs are in the order of the query. Repeated names are included.
    ///
    /// # Errors
    /// Returns an error that names the first parameter whose name or value is not percent-encoded UTF-8.
    pub fn query_pairs(&self) -> Result<impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)>, QueryError> {
        query::check(self.raw_query())?;
        Ok(self.query_pairs_lossy())
    }

    /// Returns all names and values of the query, lossily decoded.
    ///
    /// The pairs are in the order of the query. U+FFFD replaces each invalid byte sequence.
    pub fn query_pairs_lossy(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.raw_query().as_bytes())
    }

    /// Returns the value of a header. Names are not case-sensitive.
    ///
    /// Returns `None` if the header is absent or repeated, or if its value is not UTF-8. If a header is repeated,
    /// proxies and libraries disagree about which line counts. [`header_all`](Request::header_all) returns all values.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        let value = values.next().filter(|_| values.next().is_none())?;
        utf8::validate(value).ok()
    }

    /// Returns all values of a header, in order.
    ///
    /// Values that are not UTF-8 are skipped.
    pub fn header_all<'r>(&'r self, name: &str) -> impl Iterator<Item = &'r str> {
        self.values(name).filter_map(|value| str::from_utf8(value).ok())
    }

    /// Returns all header lines, in order.
    ///
    /// Names are as the client sent them. Values are bytes, without the white space around them.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        let fields = self.layout.fields.iter();
        fields.map(|&(name, value)| (self.text(name), value.within(&self.head)))
    }

    /// Returns the first cookie of this name. Cookie names are case-sensitive.
    ///
    /// Browsers send cookies of the same name in a defined order, the longest path first (RFC 6265 section 5.4), and
    /// servers use the first. Returns `None` if the first cookie is not UTF-8, even if a later cookie of this name is
    /// valid.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let (_, value) = self.raw_cookies().find(|(key, _)| *key == name.as_bytes())?;
        str::from_utf8(value).ok()
    }

    /// Returns all cookies, in order (RFC 6265 section 5.4).
    ///
    /// Names and values are as the client sent them, quotes included. Parts without `=` and cookies that are not UTF-8
    /// are skipped.
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.raw_cookies().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, str::from_utf8(value).ok()?)))
    }

    fn raw_cookies(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values("cookie").flat_map(|line| line.split(|byte| *byte == b';')).filter_map(|pair| {
            let equals = memchr::memchr(b'=', pair)?;
            Some((pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()))
        })
    }

    /// Returns the subprotocols that the client offers, in the client's order of preference.
    ///
    /// See RFC 6455 section 4.1, item 10. An upgrade with an element that is not a token gets 400 before any handler is
    /// called. In a plain request, such an element is skipped.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.header_all("sec-websocket-protocol")
            .flat_map(|line| line.split(','))
            .map(str::trim_ascii)
            .filter(|name| token::is_token(name.as_bytes()))
    }

    /// Returns the address of the client.
    ///
    /// Behind a reverse proxy this is the address of the proxy, unless a PROXY header contains the client's address:
    /// see [`Server::proxy_protocol`](crate::Server::proxy_protocol).
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Returns the minor HTTP version: 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub fn version(&self) -> u8 {
        self.layout.version
    }

    /// Returns the complete body, without chunk framing; empty for an upgrade.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns whether the request came through a listener of
    /// [`Server::listen_control`](crate::Server::listen_control).
    pub fn is_control(&self) -> bool {
        self.is_control
    }

    /// Returns the TLS version and cipher suite of a request through a TLS listener (`Server::listen_tls`).
    ///
    /// Returns `None` if a proxy in front of the server ends TLS.
    pub fn tls(&self) -> Option<TlsInfo> {
        self.tls
    }

    pub(crate) fn set_tls(&mut self, tls: Option<TlsInfo>) {
        self.tls = tls;
    }

    pub(crate) fn set_control(&mut self, is_control: bool) {
        self.is_control = is_control;
    }

    /// Sets the complete body.
    pub(crate) fn set_body(&mut self, body: Cow<'a, [u8]>) {
        self.body = body;
    }

    /// Returns all values of a header as bytes.
    ///
    /// Security checks must use this method: it includes values that are not UTF-8.
    pub(crate) fn values<'r>(&'r self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        let wanted = name.as_bytes();
        let named = self.layout.fields.iter().filter(move |(name, _)| {
            // The lengths of the names are compared first, because for most names the lengths differ, and the bytes of
            // the head are not read.
            name.len() == wanted.len() && name.within(&self.head).eq_ignore_ascii_case(wanted)
        });
        named.map(|(_, value)| value.within(&self.head))
    }

    fn split_target(&self) -> (&str, &str) {
        let target = self.target();
        // The byte after the path is the `?`, which belongs neither to the path nor to the query.
        let path_bytes = self.layout.path_bytes as usize;
        (target.get(..path_bytes).unwrap_or(target), target.get(path_bytes + 1..).unwrap_or_default())
    }

    /// Returns the text at the position `span` of the head.
    ///
    /// The parser has checked that methods and header names are ASCII and targets are UTF-8.
    fn text(&self, span: Span) -> &str {
        utf8::validate(span.within(&self.head)).unwrap_or_default()
    }
}

/// Shows the method, the path and the peer.
///
/// The query is hidden, because queries contain tokens and debug output is logged.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = self.split_target();
        let query = if query.is_empty() { "" } else { "?…" };
        write!(f, "Request({} {}{query} from {:?})", self.method(), path.escape_debug(), self.peer)
    }
}

impl Layout {
    /// Creates the layout of `head`. The method, the target and the fields are slices of `head`.
    pub(crate) fn of(
        head: &[u8],
        (method, target, version): (&str, &str, u8),
        path_bytes: usize,
        fields: &[httparse::Header<'_>],
    ) -> Layout {
        let span = |part: &[u8]| Span::of(head, part);
        Layout {
            method: span(method.as_bytes()),
            target: span(target.as_bytes()),
            path_bytes: path_bytes as u32,
            version,
            fields: fields.iter().map(|f| (span(f.name.as_bytes()), span(f.value))).collect(),
        }
    }
}

impl Span {
    /// Returns the position of `part`, which is a slice of `whole`.
    fn of(whole: &[u8], part: &[u8]) -> Span {
        // An empty slice has no defined position: its pointer may be outside `whole`.
        if part.is_empty() {
            return Span::default();
        }
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        debug_assert!(whole.get(start..).is_some_and(|rest| rest.starts_with(part)));
        Span { start: start as u32, end: (start + part.len()) as u32 }
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    fn within(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::parse_head;

    fn request(lines: &str) -> Request<'static> {
        let head = format!("{}\r\n\r\n", lines.replace('|', "\r\n"));
        let peer = Peer::V4 { ip: [192, 0, 2, 1], port: 5000 };
        parse_head(head.into_bytes(), 64, peer).expect("the head is valid").request
    }

    #[test]
    fn a_request_returns_the_parts_of_its_request_line() {
        let request = request("POST /a%20b/%E2%82%AC?uid=1 HTTP/1.1|Host: a");
        assert_eq!(request.method(), "POST");
        assert_eq!(request.target(), "/a%20b/%E2%82%AC?uid=1");
        assert_eq!(request.path(), "/a b/€");
        assert_eq!(request.version(), 1);
        assert_eq!(request.peer(), Peer::V4 { ip: [192, 0, 2, 1], port: 5000 });
        assert_eq!(request.body(), b"");
    }

    #[test]
    fn paths_are_decoded_and_queries_are_split_off() {
        for (target, path, query) in [
            ("/", "/", ""),
            ("/?", "/", ""),
            ("/a?b?c", "/a", "b?c"),
            ("/a+b", "/a+b", ""),
            ("/ö/%C3%B6?ö", "/ö/ö", "ö"),
            ("/%2e%2e%2f%00", "/../\0", ""),
            ("//evil.example/", "//evil.example/", ""),
        ] {
            let request = request(&format!("GET {target} HTTP/1.1|Host: a"));
            assert_eq!(request.path(), path, "{target}");
            assert_eq!(request.raw_path(), target.split('?').next().expect("the target must have a path"), "{target}");
            assert_eq!(request.raw_query(), query, "{target}");
        }
    }

    #[test]
    fn query_parameters_are_decoded_as_form_data() {
        let request = request("GET /?q=a+b%26c&flag&%75=z&=x&&bad=%ff&tag=1&tag=2 HTTP/1.1|Host: a");
        assert_eq!(request.query("q").as_deref(), Some("a b&c"));
        assert_eq!(request.query("flag").as_deref(), Some(""));
        assert_eq!(request.query("u").as_deref(), Some("z"));
        assert_eq!(request.query("Q"), None);
        assert_eq!(request.try_query("Q"), Ok(None));
        for (name, error, lossy) in [
            ("bad", QueryError::NotUtf8("bad".to_owned()), "\u{fffd}"),
            ("tag", QueryError::Repeated("tag".to_owned()), "1"),
        ] {
            assert_eq!((request.query(name), request.try_query(name)), (None, Err(error)));
            assert_eq!(request.query_lossy(name).as_deref(), Some(lossy));
        }
        assert_eq!(request.query_pairs().err(), Some(QueryError::NotUtf8("bad".to_owned())));
        assert_eq!(request.query_pairs_lossy().count(), 7);
    }

    #[test]
    fn query_pairs_are_in_order() {
        let request = request("GET /?tag=1&b=+&tag=2 HTTP/1.1|Host: a");
        let pairs: Vec<_> = request.query_pairs().expect("the query must be UTF-8").collect();
        assert_eq!(pairs, [("tag", "1"), ("b", " "), ("tag", "2")].map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn header_names_are_not_case_sensitive() {
        let request =
            request("GET / HTTP/1.1|Host: a|X-One:  first \t|x-one: second|X-ONE:|Text: \u{e9}|X-Onerous: no");
        assert_eq!(request.header("x-one"), None, "a header with three lines must have no single value");
        assert_eq!(request.header("x-onerous"), Some("no"));
        assert_eq!(request.header("HOST"), Some("a"));
        assert_eq!(request.header("x-on"), None);
        assert_eq!(request.header_all("X-one").collect::<Vec<_>>(), ["first", "second", ""]);
        assert_eq!(request.header("text"), Some("\u{e9}"));
        assert_eq!(request.headers().len(), 6);
        assert_eq!(request.headers().nth(1), Some(("X-One", &b"first"[..])));
    }

    #[test]
    fn a_header_value_that_is_not_utf8_is_returned_as_bytes() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\nX: y\r\n\r\n".to_vec();
        let request = parse_head(head, 64, Peer::Unix).expect("the head is valid").request;
        assert_eq!(request.header("x"), None);
        assert_eq!(request.header_all("x").collect::<Vec<_>>(), ["y"]);
        assert_eq!(request.values("x").count(), 2);
        assert_eq!(request.headers().nth(1), Some(("X", &b"\xff"[..])));
    }

    #[test]
    fn cookies_are_read_from_all_cookie_lines() {
        let request = request("GET / HTTP/1.1|Host: a|Cookie: sid=abc=; theme=\"dark\";junk; sid=2|cookie: late=1");
        assert_eq!(request.cookie("sid"), Some("abc="));
        assert_eq!(request.cookie("theme"), Some("\"dark\""));
        assert_eq!(request.cookie("late"), Some("1"));
        assert_eq!(request.cookie("junk"), None);
        assert_eq!(request.cookie("SID"), None);
        assert_eq!(request.cookies().count(), 4);
    }

    #[test]
    fn a_cookie_that_is_not_utf8_is_skipped() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: name=\xd5\xc5; \xff=1; sid=7\r\n\r\n".to_vec();
        let request = parse_head(head, 64, Peer::Unix).expect("the head is valid").request;
        assert_eq!(request.cookies().collect::<Vec<_>>(), [("sid", "7")]);
        assert_eq!(request.cookie("name"), None);
        // The first cookie `sid` is not UTF-8. The second cookie is not used: it may identify another user.
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: sid=\xd5\xc5\r\nCookie: sid=7\r\n\r\n".to_vec();
        let request = parse_head(head, 64, Peer::Unix).expect("the head is valid").request;
        assert_eq!((request.cookie("sid"), request.cookies().count()), (None, 1));
    }

    #[test]
    fn subprotocols_of_a_plain_request_that_are_not_tokens_are_skipped() {
        let request = request(
            "GET / HTTP/1.1|Host: a|Sec-WebSocket-Protocol: chat.v2, ,chat|\
             Sec-WebSocket-Protocol: bearer.x,not ok",
        );
        assert_eq!(request.subprotocols().collect::<Vec<_>>(), ["chat.v2", "chat", "bearer.x"]);
    }

    #[test]
    fn debug_output_hides_the_query() {
        let request = request("GET /chat?token=secret HTTP/1.1|Host: a");
        let text = format!("{request:?}");
        assert!(text.starts_with("Request(GET /chat?… from"), "{text}");
        assert!(!text.contains("secret"));
    }

    #[test]
    fn the_body_is_set_after_the_head() {
        let mut request = request("POST / HTTP/1.1|Host: a");
        request.set_body(b"hello".into());
        assert_eq!(request.body(), b"hello");
    }

    #[test]
    fn requests_are_send() {
        fn is_send<T: Send>() {}
        is_send::<Request<'_>>();
    }
}
