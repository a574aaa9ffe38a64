//! HTTP responses: built by handlers, encoded as bytes.
//!
//! The builder never returns an error. The builder records the first error (a header name that is not a token, a
//! control character in a value, an invalid status), and the client gets a 500 in place of the response. So untrusted
//! text in a header value cannot add a header line.
//!
//! This module does not read requests and does not read the clock. The caller passes the values that depend on the
//! request, and the date.

use std::borrow::Cow;
use std::fmt::{self, Write};

use super::deferral::Deferral;
use super::token;

/// The interim response to `Expect: 100-continue` (RFC 9110 section 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The maximum length of a head without the handler's headers, in bytes.
///
/// [`Response::encode`] reserves this length in advance, so that the output buffer grows at most once for a response.
const HEAD_BYTES: usize = 256;

/// Returns whether the server itself writes the header `name`, so that a handler must not set it.
pub(super) fn is_own_header(name: &str) -> bool {
    ["connection", "content-length", "date", "transfer-encoding"].iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// A response to a plain HTTP request, or to a refused upgrade.
///
/// ```
/// use fdpush::Response;
///
/// let response = Response::json(404, r#"{"error":"no such user"}"#).header("Cache-Control", "no-store");
/// assert_eq!(response.status(), 404);
/// ```
///
/// The server writes `Content-Length`, `Connection`, `Transfer-Encoding` and `Date`. A response that sets one of these
/// headers has an error. A response with an error is replaced by a 500, and the server logs the error.
#[derive(Clone, Debug)]
pub struct Response {
    status: u16,
    /// The `Content-Type` line. The constructor sets this field, and a `Content-Type` header clears it.
    content_type: &'static str,
    lines: HeaderLines,
    body: Cow<'static, [u8]>,
    closes: bool,
    /// Whether the handler set an `Upgrade` header. The server then adds `upgrade` to the `Connection` header.
    upgrades: bool,
    /// The number of the [`Ticket`](crate::Ticket) that will answer the request, if this response defers the answer.
    deferral: Option<Deferral>,
}

/// The means by which the client finds the end of a response body.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

/// The encoded header lines that a handler has set, and the first error of a header line.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderLines {
    bytes: Vec<u8>,
    fault: Option<String>,
}

/// The longest response text in a log line, in bytes.
const LOG_TEXT_BYTES_MAX: usize = 200;

impl Response {
    /// Creates a response without a body.
    ///
    /// The status must be 200 to 599. With any other status, the client gets a 500.
    #[must_use]
    pub fn new(status: u16) -> Response {
        let mut lines = HeaderLines::default();
        if !(200..=599).contains(&status) {
            lines.set_fault(|| format!("status {status} is not within 200 to 599"));
        }
        Response {
            status,
            content_type: "",
            lines,
            body: Cow::Borrowed(b""),
            closes: false,
            upgrades: false,
            deferral: None,
        }
    }

    /// Creates a response of plain text in UTF-8.
    #[must_use]
    pub fn text(status: u16, text: impl Into<Cow<'static, str>>) -> Response {
        Response::typed(status, "Content-Type: text/plain; charset=utf-8\r\n", text.into())
    }

    /// Creates a response of HTML in UTF-8.
    #[must_use]
    pub fn html(status: u16, html: impl Into<Cow<'static, str>>) -> Response {
        Response::typed(status, "Content-Type: text/html; charset=utf-8\r\n", html.into())
    }

    /// Creates a response of JSON. The text is sent unchanged.
    #[must_use]
    pub fn json(status: u16, json: impl Into<Cow<'static, str>>) -> Response {
        Response::typed(status, "Content-Type: application/json\r\n", json.into())
    }

    /// Creates an error response of the server.
    ///
    /// The body is plain text for clients, and JSON on a control listener, so that back ends can parse all errors in
    /// the same way. `text` must not contain characters that JSON escapes.
    pub(crate) fn refusal(is_control: bool, status: u16, text: &'static str) -> Response {
        if !is_control {
            return Response::text(status, format!("{text}\n"));
        }
        debug_assert!(!text.contains(['"', '\\']) && !text.contains(char::is_control), "{text}");
        let code = code(status);
        // Caches may store responses with some of these statuses, such as 404 and 501 (RFC 9110 section 15.1).
        Response::json(status, format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"{text}\"}}}}\n"))
            .header("Cache-Control", "no-store")
    }

    /// Creates a response that defers the answer.
    ///
    /// Only `on_request` may return this response.
    pub(crate) fn deferred(deferral: Deferral) -> Response {
        let mut response = Response::new(500);
        response.deferral = Some(deferral);
        response.lines.set_fault(|| "a deferred response is allowed in on_request only".to_owned());
        response
    }

    /// Adds a header line. Several lines may have the same name.
    ///
    /// A `Content-Type` header replaces the type that [`text`](Response::text), [`html`](Response::html) and
    /// [`json`](Response::json) set. With an `Upgrade` header, as in a 426 response, the server also sends `Connection:
    /// upgrade` (RFC 9110 section 7.8).
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Response {
        if is_own_header(name) {
            self.lines.set_fault(|| format!("header {name} is written by the server"));
            return self;
        }
        if name.eq_ignore_ascii_case("content-type") {
            self.content_type = "";
        }
        self.upgrades |= name.eq_ignore_ascii_case("upgrade");
        self.lines.add(name, value.as_ref());
        self
    }

    /// Adds a `Set-Cookie` header, such as `sid=1; Path=/; HttpOnly`.
    #[must_use]
    pub fn cookie(self, cookie: impl AsRef<[u8]>) -> Response {
        self.header("Set-Cookie", cookie)
    }

    /// Sets the body.
    ///
    /// The body is not sent with status 204, 205 and 304, which have no body (RFC 9110 section 15), and not in response
    /// to `HEAD`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Cow<'static, [u8]>>) -> Response {
        self.body = body.into();
        self
    }

    /// Closes the connection after this response.
    #[must_use]
    pub fn close(mut self) -> Response {
        self.closes = true;
        self
    }

    /// Returns the status given to the constructor.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the first line of the body, for the log.
    ///
    /// The line is shortened and has no control characters.
    pub(crate) fn log_text(&self) -> Option<String> {
        let line = str::from_utf8(&self.body).ok()?.lines().next().filter(|line| !line.is_empty())?;
        let cut = line.floor_char_boundary(LOG_TEXT_BYTES_MAX);
        Some(line.get(..cut)?.chars().filter(|c| !c.is_control()).collect())
    }

    /// Returns whether [`close`](Response::close) was called.
    pub(crate) fn closes(&self) -> bool {
        self.closes
    }

    /// Returns the number of the ticket, if this response defers the answer.
    pub(crate) fn deferral(&self) -> Option<Deferral> {
        self.deferral
    }

    /// Returns whether the status never has a body (RFC 9110 section 15).
    pub(crate) fn has_no_body(&self) -> bool {
        matches!(self.status, 204 | 205 | 304)
    }

    /// Returns the first error of this response, such as an invalid header name.
    ///
    /// In place of a response with an error, the client gets a 500.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.lines.fault()
    }

    /// Returns this response, or a 500 response if this response has an error.
    pub(crate) fn or_fault(self, is_control: bool) -> Response {
        if self.fault().is_none() {
            return self;
        }
        let instead = Response::refusal(is_control, 500, "invalid response from the request handler");
        Response { closes: self.closes, ..instead }
    }

    /// Appends the encoded response to `out`. The response must have no error ([`fault`](Response::fault)).
    ///
    /// `date` is the text of [`write_date_line`], or `""` to omit the line. `keep_alive` is whether the request allows
    /// another request on the connection. The response may still close the connection. `head_only` is set for `HEAD`
    /// requests: the length of the body is sent, but not the body.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, date: &str, keep_alive: bool, head_only: bool) {
        debug_assert_eq!(self.fault(), None);
        let body: &[u8] = if self.has_no_body() { b"" } else { &self.body };
        out.reserve(HEAD_BYTES + self.lines.bytes.len() + body.len());
        self.encode_head(out, date, Length::Known(body.len()), keep_alive);
        if !head_only {
            out.extend_from_slice(body);
        }
    }

    /// Appends the encoded head of the response to `out`.
    ///
    /// `keep_alive` is whether the request allows another request. The response may still close the connection.
    pub(crate) fn encode_head(&self, out: &mut Vec<u8>, date: &str, length: Length, keep_alive: bool) {
        // The texts are appended in few calls, because each call takes longer than the copy of the bytes.
        match self.status {
            200 => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            status => {
                out.extend_from_slice(b"HTTP/1.1 ");
                push_decimal(out, usize::from(status));
                push(out, [" ", reason(status), "\r\n"]);
            }
        }
        out.extend_from_slice(date.as_bytes());
        out.extend_from_slice(self.content_type.as_bytes());
        if !self.lines.bytes.is_empty() {
            self.lines.encode(out);
        }
        match length {
            // 204 and 304 have no Content-Length (RFC 9110 section 8.6).
            Length::Known(_) if matches!(self.status, 204 | 304) => {}
            Length::Known(bytes) => {
                out.extend_from_slice(b"Content-Length: ");
                push_decimal(out, bytes);
                out.extend_from_slice(b"\r\n");
            }
            Length::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Length::UntilClose => {}
        }
        // An HTTP/1.0 client keeps the connection open only if the response has `Connection: keep-alive`. In HTTP/1.1,
        // this header is redundant and harmless.
        let is_kept_alive = keep_alive && !self.closes;
        let end: &[u8] = match (is_kept_alive, self.upgrades) {
            (true, false) => b"Connection: keep-alive\r\n\r\n",
            (true, true) => b"Connection: upgrade, keep-alive\r\n\r\n",
            (false, false) => b"Connection: close\r\n\r\n",
            (false, true) => b"Connection: upgrade, close\r\n\r\n",
        };
        out.extend_from_slice(end);
    }

    fn typed(status: u16, content_type: &'static str, body: Cow<'static, str>) -> Response {
        let mut response = Response::new(status);
        response.content_type = content_type;
        response.body = match body {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        response
    }
}

impl HeaderLines {
    /// Adds a header line, or records an error if the name or the value is invalid.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        if !token::is_token(name.as_bytes()) {
            return self.set_fault(|| format!("header name {name:?} is not a token"));
        }
        if !token::is_field_value(value) {
            return self.set_fault(|| format!("header {name} has a control character in its value"));
        }
        // With this capacity, most responses need only one allocation for all their header lines.
        self.bytes.reserve(128.max(name.len() + value.len() + 4));
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Records an error of the response, unless an earlier error is recorded already.
    pub(super) fn set_fault(&mut self, fault: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(fault);
    }

    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }
}

/// Returns the value of `error` in the JSON body of an error response with this status.
fn code(status: u16) -> &'static str {
    match status {
        404 => "not_found",
        405 => "method_not_allowed",
        408 => "timeout",
        413 => "too_large",
        417 => "expectation_failed",
        426 => "upgrade_required",
        431 => "headers_too_large",
        500 => "internal_error",
        501 => "not_implemented",
        503 => "unavailable",
        505 => "version_not_supported",
        _ => "bad_request",
    }
}

/// Appends texts to `out`.
pub(super) fn push<const N: usize>(out: &mut Vec<u8>, texts: [&str; N]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Writes the `Date` line of a response (RFC 9110 section 6.6.1) to `line`, in place of its text.
///
/// `date` is an IMF-fixdate (RFC 9110 section 5.6.7). All dates have the same length, so the memory of `line` is
/// reused.
pub fn write_date_line(line: &mut String, date: impl fmt::Display) {
    line.clear();
    // A write to a string cannot fail.
    let _ = write!(line, "Date: {date}\r\n");
}

/// Appends `number` in decimal digits.
fn push_decimal(out: &mut Vec<u8>, mut number: usize) {
    let start = out.len();
    loop {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    // The loop has appended the digits in reverse order.
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

/// Returns the reason phrase of a status.
///
/// The phrases are those of RFC 9110 section 15, RFC 6585 and RFC 7725. A status without an entry has an empty phrase,
/// which RFC 9112 section 4 allows.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn encoded(response: &Response, keep_alive: bool, head_only: bool) -> String {
        let mut out = b"before|".to_vec();
        response.clone().or_fault(false).encode(&mut out, "", keep_alive, head_only);
        let text = String::from_utf8(out).expect("the response must be UTF-8");
        text.strip_prefix("before|").expect("the output must keep its earlier bytes").to_owned()
    }

    #[test]
    fn a_response_is_encoded_as_head_and_body() {
        let (mut out, mut date) = (Vec::new(), "an earlier line".to_owned());
        write_date_line(&mut date, DATE);
        Response::text(200, "hello").encode(&mut out, &date, true, false);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\
             Connection: keep-alive\r\n\r\nhello",
        );

        let json = Response::json(404, "{}").header("X-A", "1").cookie("sid=1; Path=/").cookie("b=2");
        assert_eq!(
            encoded(&json, true, false),
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nX-A: 1\r\n\
             Set-Cookie: sid=1; Path=/\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\
             Connection: keep-alive\r\n\r\n{}",
        );
    }

    #[test]
    fn close_overrides_keep_alive() {
        let plain = Response::new(200);
        assert!(encoded(&plain, true, false).contains("Connection: keep-alive\r\n"));
        assert!(encoded(&plain, false, false).contains("Connection: close\r\n"));
        assert!(!plain.closes());
        let closing = plain.close();
        assert!(closing.closes());
        assert!(encoded(&closing, true, false).contains("Connection: close\r\n"));
    }

    #[test]
    fn responses_to_head_and_responses_with_some_statuses_have_no_body() {
        // Each case has the status, whether the request is a HEAD request, the sent Content-Length, and the sent body.
        for (status, head_only, length, body) in [
            (200, false, Some("4"), "body"),
            (200, true, Some("4"), ""),
            (404, true, Some("4"), ""),
            (204, false, None, ""),
            (205, false, Some("0"), ""),
            (304, false, None, ""),
            (599, false, Some("4"), "body"),
        ] {
            let text = encoded(&Response::new(status).body(b"body"), true, head_only);
            let (head, sent) = text.split_once("\r\n\r\n").expect("the response must have a head");
            let said = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            assert_eq!((said, sent), (length, body), "{status} {head_only}");
        }
        assert!(encoded(&Response::new(200), true, false).contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn a_content_type_header_replaces_the_default_content_type() {
        let text = encoded(&Response::text(200, "").header("content-type", "text/csv"), true, false);
        assert!(text.contains("content-type: text/csv\r\n"));
        assert!(!text.contains("text/plain"));
    }

    #[test]
    fn connection_names_the_upgrade() {
        let response = Response::new(426).header("Upgrade", "websocket").close();
        let text = encoded(&response, true, false);
        assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"));
        assert!(text.contains("Connection: upgrade, close\r\n"), "{text}");
    }

    #[test]
    fn faults_become_a_500() {
        let ok = || Response::text(200, "body");
        for (response, fault) in [
            (Response::new(0), "status 0 is not within 200 to 599"),
            (Response::new(101), "status 101 is not within 200 to 599"),
            (Response::new(600), "status 600 is not within 200 to 599"),
            (ok().header("", "x"), "header name \"\" is not a token"),
            (ok().header("a b", "x"), "header name \"a b\" is not a token"),
            (ok().header("a:", "x"), "header name \"a:\" is not a token"),
            (ok().header("a\r\nb", "x"), "header name \"a\\r\\nb\" is not a token"),
            (ok().header("a", "x\r\nSet-Cookie: y"), "header a has a control character in its value"),
            (ok().header("a", "x\n"), "header a has a control character in its value"),
            (ok().header("a", "\0"), "header a has a control character in its value"),
            (ok().cookie("a\rb"), "header Set-Cookie has a control character in its value"),
            (ok().header("Content-Length", "1"), "header Content-Length is written by the server"),
            (ok().header("CONNECTION", "close"), "header CONNECTION is written by the server"),
            (ok().header("date", "now"), "header date is written by the server"),
            (
                ok().header("Transfer-Encoding", "chunked").header("", ""),
                "header Transfer-Encoding is written by the server",
            ),
        ] {
            assert_eq!(response.fault(), Some(fault));
            let text = encoded(&response.header("X-Late", "1").close(), true, false);
            assert!(text.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{text}");
            assert!(text.contains("Connection: close\r\n") && !text.contains("X-Late"), "{text}");
        }
        assert_eq!(ok().header("X", "caf\u{e9}\t!").fault(), None);
    }

    #[test]
    fn error_responses_are_text_for_clients_and_json_on_control_listeners() {
        let text = encoded(&Response::refusal(false, 413, "too long"), false, false);
        assert!(text.contains("Content-Type: text/plain; charset=utf-8\r\n") && text.ends_with("\r\n\r\ntoo long\n"));
        let json = encoded(&Response::refusal(true, 413, "too long"), false, false);
        assert!(json.contains("Content-Type: application/json\r\n") && json.contains("Cache-Control: no-store\r\n"));
        assert!(!text.contains("Cache-Control"), "{text}");
        assert!(json.ends_with("\r\n\r\n{\"error\":{\"code\":\"too_large\",\"message\":\"too long\"}}\n"), "{json}");
        let fault = encoded(&Response::new(0).close().or_fault(true), true, false);
        assert!(fault.contains("\"code\":\"internal_error\"") && fault.contains("Connection: close\r\n"), "{fault}");
    }

    #[test]
    fn push_decimal_matches_the_standard_library() {
        for number in [0, 9, 10, 101, 65_536, usize::MAX] {
            let mut out = b"x".to_vec();
            push_decimal(&mut out, number);
            assert_eq!(String::from_utf8_lossy(&out), format!("x{number}"));
        }
    }
}
