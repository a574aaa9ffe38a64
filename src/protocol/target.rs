//! Request targets (RFC 9112 section 3.2): the supported forms and their parts.
//!
//! A target in absolute-form contains the host and the path. This module splits such a target, and rewrites the head
//! with a target in origin-form. If the path or query of a target has bytes that are not UTF-8, this module
//! percent-encodes its non-ASCII bytes. So all later code deals with origin-form, one `Host` and valid UTF-8.

use percent_encoding::{AsciiSet, percent_encode};

use super::origin::authority::Authority;

/// A target in a supported form.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum RequestTarget<'a> {
    /// `/path?query` (section 3.2.1), or `*` with OPTIONS (section 3.2.4).
    Origin,
    /// `http://host[:port]/path?query` (section 3.2.2).
    Absolute(Absolute<'a>),
}

/// A target in absolute-form.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Absolute<'a> {
    /// The host and port, which replace the value of `Host`.
    authority: &'a str,
    /// The path and the query. The text is empty, or starts with `/` or `?`.
    rest: &'a str,
    is_options: bool,
}

impl<'a> RequestTarget<'a> {
    /// Parses a target.
    ///
    /// Returns `None` if the form of the target is not supported, or if the target has a control character, a space or
    /// a fragment.
    ///
    /// RFC 3986 allows only ASCII. Raw non-ASCII bytes are accepted, too, as in nginx: browsers never send them, but
    /// other clients do. A raw byte has the same meaning as its percent-encoded form.
    pub(super) fn parse(method: &str, target: &'a str) -> Option<RequestTarget<'a>> {
        if !target.bytes().all(|byte| (byte.is_ascii_graphic() && byte != b'#') || !byte.is_ascii()) {
            return None;
        }
        // The target of CONNECT is an authority, which only proxies support (RFC 9112 section 3.2.3).
        if method == "CONNECT" {
            return None;
        }
        if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
            return Some(RequestTarget::Origin);
        }
        let (scheme, rest) = target.split_once("://")?;
        // RFC 6455 section 4.1 requires clients to write http instead of ws in the target. Some clients write ws, which
        // is treated like http.
        if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return None;
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // An authority with a user part is refused, as RFC 9110 section 4.2.4 requires.
        Authority::parse(authority.as_bytes())?;
        Some(RequestTarget::Absolute(Absolute { authority, rest, is_options: method == "OPTIONS" }))
    }
}

impl Absolute<'_> {
    /// Returns the head of the request with this target in origin-form.
    ///
    /// The path is the path of this target. The only `Host` line has the authority of this target, because a server
    /// must ignore the received `Host` (RFC 9112 section 3.2.2).
    pub(super) fn rewrite(&self, method: &str, version: u8, headers: &[httparse::Header<'_>]) -> Vec<u8> {
        let lines = headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("host"));
        let bytes: usize = lines.clone().map(|header| header.name.len() + header.value.len() + 4).sum();
        let mut head = Vec::with_capacity(bytes + method.len() + self.authority.len() + self.rest.len() + 24);
        let start = [method, " ", self.prefix(), self.rest, " HTTP/1.", if version == 0 { "0" } else { "1" }];
        let host = ["\r\nHost: ", self.authority, "\r\n"];
        for piece in start.iter().chain(&host) {
            head.extend_from_slice(piece.as_bytes());
        }
        for header in lines {
            for piece in [header.name.as_bytes(), b": ", header.value, b"\r\n"] {
                head.extend_from_slice(piece);
            }
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// Returns the text that origin-form needs before `rest`, the path and query.
    ///
    /// An empty path becomes `/`, or `*` with OPTIONS (RFC 9112 sections 3.2.1 and 3.2.4).
    fn prefix(&self) -> &'static str {
        match self.rest {
            "" if self.is_options => "*",
            rest if rest.starts_with('/') => "",
            _ => "/",
        }
    }
}

/// Percent-encodes the non-ASCII bytes of the path and query in a head.
///
/// Returns `None` if the path and query are UTF-8, or if the head has no target. Bytes of the host are not encoded. The
/// encoding is necessary because httparse refuses a target that is not UTF-8. The encoded head is then checked like any
/// other head: the path when the head is parsed, and a query parameter when a handler reads it. So the error names the
/// path or the parameter.
pub(super) fn encode_raw(head: &[u8]) -> Option<Vec<u8>> {
    let line_end = head.iter().position(|&byte| byte == b'\r')?;
    let start = head[..line_end].iter().position(|&byte| byte == b' ')? + 1;
    let end = head[start..line_end].iter().position(|&byte| byte == b' ').map_or(line_end, |at| start + at);
    let start = start + host_end(&head[start..end]);
    let path = &head[start..end];
    if str::from_utf8(path).is_ok() {
        return None;
    }
    let mut encoded = Vec::with_capacity(head.len() + 2 * path.iter().filter(|byte| !byte.is_ascii()).count());
    encoded.extend_from_slice(&head[..start]);
    // Control characters are not encoded, so that the parser still refuses them.
    percent_encode(path, &AsciiSet::EMPTY).for_each(|piece| encoded.extend_from_slice(piece.as_bytes()));
    encoded.extend_from_slice(&head[end..]);
    Some(encoded)
}

/// Returns the index after the host of a target in absolute-form, or 0 in origin-form.
fn host_end(target: &[u8]) -> usize {
    let is_path = |byte: &u8| matches!(byte, b'/' | b'?');
    let host = target.windows(3).position(|window| window == b"://").filter(|_| !target.starts_with(b"/"));
    let start = host.map_or(0, |at| at + 3);
    target[start..].iter().position(is_path).map_or(target.len(), |at| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_query_that_is_not_utf8_is_percent_encoded() {
        let encode = |line: &[u8]| encode_raw(&[line, b"\r\nX: \xff y\r\n\r\n"].concat());
        for (line, encoded) in [
            (&b"GET /?a=%41&uid=\xd5\xc5 HTTP/1.1"[..], "GET /?a=%41&uid=%D5%C5 HTTP/1.1"),
            (b"GET /\xe5\xbc\xa0?\xff\x01# HTTP/1.1", "GET /%E5%BC%A0?%FF\u{1}# HTTP/1.1"),
            (b"GET http://a?\xff HTTP/1.1", "GET http://a?%FF HTTP/1.1"),
            (b"GET /\xff://a", "GET /%FF://a"),
            (b"GET http:/\xff", "GET http:/%FF"),
        ] {
            let whole = [encoded.as_bytes(), b"\r\nX: \xff y\r\n\r\n"].concat();
            assert_eq!(encode(line).as_ref(), Some(&whole), "{encoded}");
            assert_eq!(encode_raw(&whole), None);
        }
        for line in [
            &b"GET / HTTP/1.1"[..],
            b"GET /\xe5\xbc\xa0 \xff",
            b"GET http://\xff/ HTTP/1.1",
            b"GET \xff HTTP/1.1",
            b"GET  \xff",
            b"\xff / HTTP/1.1",
            b"\xff",
            b"",
        ] {
            assert_eq!(encode(line), None, "{line:?}");
        }
    }

    /// Rewrites a target in absolute-form.
    ///
    /// Returns the target in origin-form and the host.
    fn rewritten(method: &str, target: &str) -> Option<(String, String)> {
        let Some(RequestTarget::Absolute(absolute)) = RequestTarget::parse(method, target) else { return None };
        let headers = [
            httparse::Header { name: "hOST", value: b"other.example" },
            httparse::Header { name: "X", value: b"\xe9 y" },
        ];
        let head = absolute.rewrite(method, 1, &headers);
        let text = String::from_utf8_lossy(&head).into_owned();
        assert!(text.ends_with("\r\nX: \u{fffd} y\r\n\r\n") && !text.contains("other"), "{text:?}");
        let line = text.split("\r\n").next()?.strip_prefix(method)?.strip_suffix(" HTTP/1.1")?.trim_ascii();
        let host = text.split("\r\n").nth(1)?.strip_prefix("Host: ")?;
        Some((line.to_owned(), host.to_owned()))
    }

    #[test]
    fn absolute_form_is_split() {
        for (method, target, path, host) in [
            ("GET", "http://a/", "/", "a"),
            ("GET", "http://a", "/", "a"),
            ("GET", "http://a?x=1", "/?x=1", "a"),
            ("GET", "http://a/?x=/y?z://", "/?x=/y?z://", "a"),
            ("GET", "http://a//b", "//b", "a"),
            ("GET", "http://a/ü?uid=张", "/ü?uid=张", "a"),
            ("GET", "HTTPS://Chat.Example:8443/p/q?r", "/p/q?r", "Chat.Example:8443"),
            ("GET", "ws://a/", "/", "a"),
            ("GET", "WsS://a/", "/", "a"),
            ("GET", "http://[2001:db8::1]:80/x", "/x", "[2001:db8::1]:80"),
            ("GET", "http://a:/x", "/x", "a:"),
            ("POST", "http://a", "/", "a"),
            ("OPTIONS", "http://a", "*", "a"),
            ("OPTIONS", "http://a/", "/", "a"),
            ("OPTIONS", "http://a?x", "/?x", "a"),
        ] {
            assert_eq!(rewritten(method, target), Some((path.to_owned(), host.to_owned())), "{method} {target}");
        }
    }

    #[test]
    fn unsupported_forms_are_refused() {
        for (method, target) in [
            ("GET", ""),
            ("GET", "*"),
            ("GET", "a"),
            ("GET", "a:80"),
            ("CONNECT", "a:80"),
            ("CONNECT", "/"),
            ("CONNECT", "http://a/"),
            ("OPTIONS", "**"),
            ("OPTIONS", "*/"),
            ("GET", "http:/a/"),
            ("GET", "http:a"),
            ("GET", "://a/"),
            ("GET", "http://"),
            ("GET", "http:///x"),
            ("GET", "http://?x"),
            ("GET", "http://:80/"),
            ("GET", "http://u@a/"),
            ("GET", "http://u:p@a/"),
            ("GET", "http://@a/"),
            ("GET", "http://a:b/"),
            ("GET", "http://a:99999/"),
            ("GET", "http://[::1/"),
            ("GET", "http://::1/"),
            ("GET", "http://a\\b/"),
            ("GET", "http://a#b"),
            ("GET", "http://a/#b"),
            ("GET", "http://caf\u{e9}/"),
            ("GET", "ftp://a/"),
            ("GET", "file:///etc/passwd"),
            ("GET", "javascript://a/"),
            ("GET", "xhttp://a/"),
            ("GET", "http+unix://a/"),
            ("GET", " http://a/"),
        ] {
            assert_eq!(RequestTarget::parse(method, target), None, "{method} {target}");
        }
        for (method, target) in [("GET", "/"), ("GET", "//"), ("GET", "/http://a/"), ("OPTIONS", "*"), ("OPTIONS", "/")]
        {
            assert_eq!(RequestTarget::parse(method, target), Some(RequestTarget::Origin), "{method} {target}");
        }
    }
}
