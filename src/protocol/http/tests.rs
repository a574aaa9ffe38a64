//! Table-driven tests of the parser of request heads.
//!
//! In the test cases, `|` stands for CRLF. The tests add the blank line at the end of each head.

use super::HttpError::*;
use super::*;

const PEER: Peer = Peer::V4 { ip: [192, 0, 2, 1], port: 5000 };
const BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;

/// An upgrade request. A test case can omit one line of the request.
macro_rules! upgrade {
    () => {
        concat!(upgrade!(no_key), "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    };
    (no_key) => {
        concat!(upgrade!(no_version), "|Sec-WebSocket-Version: 13")
    };
    (no_version) => {
        "GET /chat HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: websocket"
    };
    ($omitted:tt $lines:literal) => {
        concat!(upgrade!($omitted), $lines)
    };
    ($lines:literal) => {
        concat!(upgrade!(), $lines)
    };
}

/// Adds valid lines `Sec-WebSocket-Version` and `Sec-WebSocket-Key` to the lines of a head.
macro_rules! keyed {
    ($lines:literal) => {
        concat!($lines, "|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    };
}

/// A test case: a request head, the status of the response, and the rule that the head violates.
///
/// Status 101 means that the head is a valid upgrade, and 200 that the head is a valid plain request.
type Case = (&'static str, u16, Option<HttpError>);

const REQUEST_LINES: &[Case] = &[
    ("GET / HTTP/1.1|Host: a", 200, None),
    ("POST /api/push?x=1 HTTP/1.1|Host: a", 200, None),
    ("get / HTTP/1.1|Host: a", 200, None),
    ("M-SEARCH! / HTTP/1.1|Host: a", 200, None),
    ("GET //a/../b HTTP/1.1|Host: a", 200, None),
    ("GET /\"<>\\^`{}~ HTTP/1.1|Host: a", 200, None),
    ("GET / HTTP/1.0|Host: a", 200, None),
    ("GET / HTTP/1.0", 200, None),
    // Targets.
    ("GET a HTTP/1.1|Host: a", 400, Some(Target)),
    ("GET * HTTP/1.1|Host: a", 400, Some(Target)),
    ("OPTIONS * HTTP/1.1|Host: a", 200, None),
    ("OPTIONS ** HTTP/1.1|Host: a", 400, Some(Target)),
    ("CONNECT a:80 HTTP/1.1|Host: a", 400, Some(Target)),
    ("CONNECT / HTTP/1.1|Host: a", 400, Some(Target)),
    // Targets in absolute-form. `Host` is checked, although the host of the target replaces it.
    ("GET http://a/ HTTP/1.1|Host: a", 200, None),
    ("GET HTTPS://a:1?x HTTP/1.1|Host: b", 200, None),
    ("GET http://a HTTP/1.0", 200, None),
    ("GET http://a/ HTTP/1.1", 400, Some(HostMissing)),
    ("GET http://a/ HTTP/1.1|Host: a|Host: a", 400, Some(HostRepeated)),
    ("GET http://a/ HTTP/1.1|Host: a b", 400, Some(HostMalformed)),
    ("GET http://u@a/ HTTP/1.1|Host: a", 400, Some(Target)),
    ("GET http:///a HTTP/1.1|Host: a", 400, Some(Target)),
    ("GET http://a/#b HTTP/1.1|Host: a", 400, Some(Target)),
    ("GET ftp://a/ HTTP/1.1|Host: a", 400, Some(Target)),
    ("GET http://a/ HTTP/2.0|Host: a", 505, Some(Version)),
    ("GET ?a HTTP/1.1|Host: a", 400, Some(Target)),
    ("GET \\ HTTP/1.1|Host: a", 400, Some(Target)),
    ("GET /a#b HTTP/1.1|Host: a", 400, Some(Target)),
    ("GET /?a#b HTTP/1.1|Host: a", 400, Some(Target)),
    ("GET /# HTTP/1.1|Host: a", 400, Some(Target)),
    // Raw UTF-8 is accepted in the path and in the query.
    ("GET /caf\u{e9}?uid=\u{5f20}\u{4e09} HTTP/1.1|Host: a", 200, None),
    ("GET /caf%C3%A9 HTTP/1.1|Host: a", 200, None),
    ("GET \u{e9} HTTP/1.1|Host: a", 400, Some(Target)),
    // A path must be percent-encoded UTF-8. A query is checked when a parameter is read.
    ("GET /%D5%C5 HTTP/1.1|Host: a", 400, Some(Path)),
    ("GET /caf%E9 HTTP/1.1|Host: a", 400, Some(Path)),
    ("GET /%C0%80 HTTP/1.1|Host: a", 400, Some(Path)),
    ("GET /%ED%A0%80 HTTP/1.1|Host: a", 400, Some(Path)),
    ("GET /% HTTP/1.1|Host: a", 400, Some(Path)),
    ("GET /%4?a HTTP/1.1|Host: a", 400, Some(Path)),
    ("GET /%zz HTTP/1.1|Host: a", 400, Some(Path)),
    ("GET /?uid=%D5%C5&a=%zz&b=% HTTP/1.1|Host: a", 200, None),
    ("GET /\x7f HTTP/1.1|Host: a", 400, Some(RequestLine)),
    ("GET /\0 HTTP/1.1|Host: a", 400, Some(RequestLine)),
    ("GET /\x1b HTTP/1.1|Host: a", 400, Some(RequestLine)),
    ("GET /a\rb HTTP/1.1|Host: a", 400, Some(RequestLine)),
    ("GET /a b HTTP/1.1|Host: a", 400, Some(RequestLine)),
    ("GET /\ta HTTP/1.1|Host: a", 400, Some(RequestLine)),
    // Request lines with wrong spaces or missing parts.
    ("GET  / HTTP/1.1|Host: a", 400, Some(RequestLine)),
    ("GET /  HTTP/1.1|Host: a", 400, Some(RequestLine)),
    ("GET / HTTP/1.1 |Host: a", 400, Some(RequestLine)),
    ("GET\t/ HTTP/1.1|Host: a", 400, Some(RequestLine)),
    ("G(T / HTTP/1.1|Host: a", 400, Some(RequestLine)),
    ("GET /|Host: a", 400, Some(RequestLine)),
    ("GET|Host: a", 400, Some(RequestLine)),
    ("GET / |Host: a", 400, Some(RequestLine)),
    // Versions.
    ("GET / HTTP/2.0|Host: a", 505, Some(Version)),
    ("PRI * HTTP/2.0", 505, Some(Version)),
    ("GET / HTTP/1.2|Host: a", 505, Some(Version)),
    ("GET / HTTP/0.9|Host: a", 505, Some(Version)),
    ("GET / HTTP/3.0|Host: a", 505, Some(Version)),
    ("GET / HTTP/1.10|Host: a", 400, Some(RequestLine)),
    ("GET / HTTP/11|Host: a", 400, Some(RequestLine)),
    ("GET / http/1.1|Host: a", 400, Some(RequestLine)),
    ("GET / FOO/1.1|Host: a", 400, Some(RequestLine)),
    ("GET / HTTP/1.|Host: a", 400, Some(RequestLine)),
    ("GET / HTTP/|Host: a", 400, Some(RequestLine)),
    // The first byte cannot begin an HTTP request.
    ("\x16\x03\x01\x02", 400, Some(NotHttp)),
    ("\0", 400, Some(NotHttp)),
    (" GET / HTTP/1.1|Host: a", 400, Some(NotHttp)),
    ("|GET / HTTP/1.1|Host: a", 400, Some(NotHttp)),
    ("\nGET / HTTP/1.1|Host: a", 400, Some(NotHttp)),
    ("\rGET / HTTP/1.1|Host: a", 400, Some(NotHttp)),
    ("\u{e9} / HTTP/1.1|Host: a", 400, Some(NotHttp)),
];

const HEADER_LINES: &[Case] = &[
    ("GET / HTTP/1.1|Host:a", 200, None),
    ("GET / HTTP/1.1|Host: \t a \t ", 200, None),
    ("GET / HTTP/1.1|hOST: a", 200, None),
    ("GET / HTTP/1.1|Host: a|X:|Y: \u{e9}\ta", 200, None),
    ("GET / HTTP/1.1|Host: a|!#$%&'*+-.^_`~9: x", 200, None),
    ("GET / HTTP/1.1\nHost: a", 400, Some(BareLineFeed)),
    ("GET / HTTP/1.1|Host: a\nX: y", 400, Some(BareLineFeed)),
    ("GET / HTTP/1.1|Host: a\n\nGET /two HTTP/1.1|Host: a", 400, Some(BareLineFeed)),
    ("GET / HTTP/1.1|Host: a|\n", 400, Some(BareLineFeed)),
    ("GET / HTTP/1.1|Host: a|X: a\rb", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X: a\r|Y: b", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X: a\0", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X: a\x7f", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X: a\x0b", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X : a", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X\t: a", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a| X: a", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1| Host: a", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X: a| folded", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X: a|\tfolded", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|: a", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X Y: a", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X(: a", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|\u{e9}: a", 400, Some(HeaderLine)),
    ("GET / HTTP/1.1|Host: a|X\0: a", 400, Some(HeaderLine)),
    // Host.
    ("GET / HTTP/1.1|Host: example.com:9501", 200, None),
    ("GET / HTTP/1.1|Host: [::1]:9501", 200, None),
    ("GET / HTTP/1.1", 400, Some(HostMissing)),
    ("GET / HTTP/1.1|X-Host: a", 400, Some(HostMissing)),
    ("GET / HTTP/1.1|Host: a|Host: a", 400, Some(HostRepeated)),
    ("GET / HTTP/1.1|Host: a|X: y|host: b", 400, Some(HostRepeated)),
    ("GET / HTTP/1.0|Host: a|Host: a", 400, Some(HostRepeated)),
    ("GET / HTTP/1.1|Host:", 400, Some(HostMalformed)),
    ("GET / HTTP/1.1|Host: a b", 400, Some(HostMalformed)),
    ("GET / HTTP/1.1|Host: a, b", 400, Some(HostMalformed)),
    ("GET / HTTP/1.1|Host: a/b", 400, Some(HostMalformed)),
    ("GET / HTTP/1.1|Host: u@a", 400, Some(HostMalformed)),
    ("GET / HTTP/1.1|Host: http://a", 400, Some(HostMalformed)),
    ("GET / HTTP/1.1|Host: a:b", 400, Some(HostMalformed)),
    ("GET / HTTP/1.1|Host: a:99999", 400, Some(HostMalformed)),
    ("GET / HTTP/1.1|Host: ::1", 400, Some(HostMalformed)),
    ("GET / HTTP/1.1|Host: \u{e9}", 400, Some(HostMalformed)),
    ("GET / HTTP/1.0|Host: a\"", 400, Some(HostMalformed)),
    // Expect.
    ("PUT / HTTP/1.1|Host: a|Expect: 100-Continue|Content-Length: 1", 200, None),
    ("PUT / HTTP/1.1|Host: a|Expect: 100-continue|Expect: 100-continue", 200, None),
    ("PUT / HTTP/1.0|Expect: the-unexpected", 200, None),
    ("PUT / HTTP/1.1|Host: a|Expect: 200-ok", 417, Some(Expectation)),
    ("PUT / HTTP/1.1|Host: a|Expect:", 417, Some(Expectation)),
    ("PUT / HTTP/1.1|Host: a|Expect: 100-continue, x", 417, Some(Expectation)),
    ("PUT / HTTP/1.1|Host: a|Expect: x|Expect: 100-continue", 417, Some(Expectation)),
];

const BODIES: &[Case] = &[
    ("POST / HTTP/1.1|Host: a|Content-Length: 0", 200, None),
    ("POST / HTTP/1.1|Host: a|Content-Length: 007", 200, None),
    ("POST / HTTP/1.1|Host: a|content-length: 18446744073709551615", 200, None),
    ("POST / HTTP/1.0|Content-Length: 5", 200, None),
    ("GET / HTTP/1.1|Host: a|Content-Length: 5", 200, None),
    ("POST / HTTP/1.1|Host: a|Content-Length: 5|Content-Length: 5", 400, Some(LengthRepeated)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 5|Content-Length: 6", 400, Some(LengthRepeated)),
    ("POST / HTTP/1.0|Content-Length: 0|content-length: 0", 400, Some(LengthRepeated)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 5, 5", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 5,", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length:", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length: +5", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length: -5", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 0x5", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 5 5", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 5.0", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length: \u{0665}", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 18446744073709551616", 400, Some(LengthMalformed)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 99999999999999999999", 400, Some(LengthMalformed)),
    // Chunks.
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked", 200, None),
    ("POST / HTTP/1.1|Host: a|transfer-encoding: CHUNKED", 200, None),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked, chunked", 400, Some(CodingMalformed)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Transfer-Encoding: chunked", 400, Some(CodingMalformed)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding:", 400, Some(CodingMalformed)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked,", 400, Some(CodingMalformed)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: , chunked", 400, Some(CodingMalformed)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: identity", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip, chunked", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked, gzip", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: ,x", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: xchunked", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked;q=1", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: \"chunked\"", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chun ked", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: x|Transfer-Encoding: chunked", 501, Some(CodingUnknown)),
    ("POST / HTTP/1.0|Transfer-Encoding: chunked", 400, Some(CodingOnHttp10)),
    ("POST / HTTP/1.0|Transfer-Encoding: gzip", 400, Some(CodingOnHttp10)),
    // `Content-Length` and `Transfer-Encoding` together, as in request smuggling.
    ("POST / HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding: chunked", 400, Some(LengthAndCoding)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Content-Length: 0", 400, Some(LengthAndCoding)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: x|Content-Length: y", 400, Some(LengthAndCoding)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding:", 400, Some(LengthAndCoding)),
    ("POST / HTTP/1.0|Content-Length: 5|Transfer-Encoding: chunked", 400, Some(LengthAndCoding)),
    ("POST / HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding : chunked", 400, Some(HeaderLine)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked\r|X: y", 400, Some(HeaderLine)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding:| chunked", 400, Some(HeaderLine)),
    ("POST / HTTP/1.1|Host: a|Transfer-Encoding: \x0bchunked", 400, Some(HeaderLine)),
    ("POST / HTTP/1.1|Host: a|Content-Length\0: 5", 400, Some(HeaderLine)),
];

const UPGRADES: &[Case] = &[
    (upgrade!(), 101, None),
    (upgrade!("|Sec-WebSocket-Version: 13"), 101, None),
    (upgrade!("|Content-Length: 0"), 101, None),
    (upgrade!("|Expect: 100-continue"), 101, None),
    (upgrade!("|Connection: close"), 101, None),
    (upgrade!("|Upgrade: h2c"), 101, None),
    (keyed!("GET / HTTP/1.1|Host: a|connection: keep-alive, UPGRADE|UPGRADE: WebSocket"), 101, None),
    (keyed!("GET / HTTP/1.1|Host: a|Connection: keep-alive|Connection: ,upgrade|Upgrade: h2c ,\twebsocket"), 101, None),
    // Plain requests that resemble an upgrade.
    (keyed!("GET / HTTP/1.1|Host: a|Connection: keep-alive|Upgrade: websocket"), 200, None),
    (keyed!("GET / HTTP/1.1|Host: a|Connection: upgraded|Upgrade: websocket"), 200, None),
    (keyed!("GET / HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: websocket2"), 200, None),
    (keyed!("GET / HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: websocket/13"), 200, None),
    (keyed!("GET / HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: web socket"), 200, None),
    ("POST / HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: h2c|Content-Length: 4", 200, None),
    ("POST / HTTP/1.1|Host: a|Upgrade: websocket", 200, None),
    // Upgrades with a method other than GET, or with a version other than HTTP/1.1.
    (keyed!("POST / HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: websocket"), 405, Some(UpgradeMethod)),
    (keyed!("get / HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: websocket"), 405, Some(UpgradeMethod)),
    ("HEAD / HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: websocket", 405, Some(UpgradeMethod)),
    (keyed!("GET / HTTP/1.0|Host: a|Connection: Upgrade|Upgrade: websocket"), 400, Some(UpgradeOnHttp10)),
    (keyed!("GET / HTTP/2.0|Host: a|Connection: Upgrade|Upgrade: websocket"), 505, Some(Version)),
    // Version of WebSocket.
    (upgrade!(no_version "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 426, Some(UpgradeVersion)),
    (upgrade!(no_version "|Sec-WebSocket-Version: 0"), 426, Some(UpgradeVersion)),
    (upgrade!(no_version "|Sec-WebSocket-Version: 8"), 426, Some(UpgradeVersion)),
    (upgrade!(no_version "|Sec-WebSocket-Version: 99"), 426, Some(UpgradeVersion)),
    (upgrade!(no_version "|Sec-WebSocket-Version: 013"), 426, Some(UpgradeVersion)),
    (upgrade!(no_version "|Sec-WebSocket-Version: +13"), 426, Some(UpgradeVersion)),
    (upgrade!(no_version "|Sec-WebSocket-Version: 13, 8"), 426, Some(UpgradeVersion)),
    (upgrade!(no_version "|Sec-WebSocket-Version:"), 426, Some(UpgradeVersion)),
    (upgrade!("|Sec-WebSocket-Version: 8"), 426, Some(UpgradeVersion)),
    (upgrade!(no_version "|Sec-WebSocket-Version: 8|Sec-WebSocket-Version: 13"), 426, Some(UpgradeVersion)),
    // Keys.
    (upgrade!(no_key), 400, Some(KeyMissing)),
    (upgrade!("|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, Some(KeyRepeated)),
    (upgrade!(no_key "|Sec-WebSocket-Key:"), 400, Some(KeyMalformed)),
    (upgrade!(no_key "|Sec-WebSocket-Key: short"), 400, Some(KeyMalformed)),
    (upgrade!(no_key "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), 400, Some(KeyMalformed)),
    (upgrade!(no_key "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZXM="), 400, Some(KeyMalformed)),
    (upgrade!(no_key "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, x"), 400, Some(KeyMalformed)),
    (upgrade!(no_key "|Sec-WebSocket-Key: dGhlIHNhbXBs*SBub25jZQ=="), 400, Some(KeyMalformed)),
    (
        upgrade!(no_key "|Sec-WebSocket-Key: \u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}="),
        400,
        Some(KeyMalformed),
    ),
    // Upgrades with subprotocols. The header value is a list of one or more tokens, and possibly of empty elements
    // (`1#token` in RFC 6455).
    (upgrade!("|Sec-WebSocket-Protocol: chat"), 101, None),
    (upgrade!("|Sec-WebSocket-Protocol: ,chat.v2 ,,\tchat!#$%&'*+-.^_`~,"), 101, None),
    (upgrade!("|Sec-WebSocket-Protocol: a|Sec-WebSocket-Protocol: b"), 101, None),
    (upgrade!("|Sec-WebSocket-Protocol:|Sec-WebSocket-Protocol: b"), 101, None),
    (upgrade!("|Sec-WebSocket-Protocol: b|Sec-WebSocket-Protocol: ,"), 101, None),
    (upgrade!("|Sec-WebSocket-Protocol: a, a"), 101, None),
    (upgrade!("|Sec-WebSocket-Protocol:"), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol: , ,"), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol:|Sec-WebSocket-Protocol:"), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol: \"chat\""), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol: chat, \"a,b\""), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol: chat v2"), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol: chat/2, chat"), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol: chat;q=1"), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol: caf\u{e9}"), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol: a b|Sec-WebSocket-Protocol: chat"), 400, Some(SubprotocolMalformed)),
    (upgrade!("|Sec-WebSocket-Protocol: chat|Sec-WebSocket-Protocol: (chat)"), 400, Some(SubprotocolMalformed)),
    ("GET / HTTP/1.1|Host: a|Sec-WebSocket-Protocol: \"chat\"", 200, None),
    // Upgrades with a body, and upgrades that violate a rule of all requests.
    (upgrade!("|Content-Length: 5"), 400, Some(UpgradeBody)),
    (upgrade!("|Transfer-Encoding: chunked"), 400, Some(UpgradeBody)),
    (upgrade!("|Transfer-Encoding: gzip"), 501, Some(CodingUnknown)),
    (upgrade!("|Content-Length: x"), 400, Some(LengthMalformed)),
    (upgrade!("|Host: b"), 400, Some(HostRepeated)),
    (upgrade!("|Expect: x"), 417, Some(Expectation)),
];

fn wire(lines: &str) -> Vec<u8> {
    format!("{lines}||").replace('|', "\r\n").into_bytes()
}

/// Reads a head as a connection does: first finds the end of the head, then parses the head.
fn read(bytes: &[u8]) -> Result<Head, HttpError> {
    let end = find_head_end(bytes, &mut 0, BYTES_MAX)?.expect("the head must be complete");
    parse_head(bytes[..end].to_vec(), HEADERS_MAX, PEER)
}

fn all_cases() -> impl Iterator<Item = &'static Case> {
    [REQUEST_LINES, HEADER_LINES, BODIES, UPGRADES].into_iter().flatten()
}

#[test]
fn each_head_has_the_status_and_the_error_of_its_case() {
    for &(lines, status, error) in all_cases() {
        match read(&wire(lines)) {
            Ok(head) => {
                let read = if let RequestKind::Upgrade { .. } = head.kind { 101 } else { 200 };
                assert_eq!((read, None), (status, error), "{lines:?}");
            }
            Err(read) => assert_eq!((read.status(), Some(read)), (status, error), "{lines:?}"),
        }
    }
    assert!(all_cases().count() >= 170);
}

#[test]
fn raw_bytes_in_a_target_are_percent_encoded() {
    for (target, outcome) in [
        (&b"/?a=\xff&uid=\xd5\xc5\xc8\xfd"[..], Ok("/?a=%FF&uid=%D5%C5%C8%FD")),
        (b"/?\xe5\xbc\xa0=\xed\xa0\x80", Ok("/?%E5%BC%A0=%ED%A0%80")),
        (b"http://b/?uid=\xd5", Ok("/?uid=%D5")),
        (b"/\xd5\xc5", Err(Path)),
        (b"/\xc0\x80?a", Err(Path)),
        (b"http://b/\xff", Err(Path)),
        (b"http://\xc3\xa9/\xff", Err(Target)),
        (b"http://\xff/", Err(RequestLine)),
        (b"http://\xff/\xff", Err(RequestLine)),
        (b"\xff", Err(RequestLine)),
        (b"/?\xff#", Err(Target)),
        (b"/?\xff\x01", Err(RequestLine)),
        (b"/?\xff\x7f", Err(RequestLine)),
        (b"/?\xff ", Err(RequestLine)),
    ] {
        let head = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let target = read(&head).map(|head| head.request.target().to_owned());
        assert_eq!(target.as_deref().map_err(|error| *error), outcome, "{head:?}");
    }
    assert_eq!(read(b"G\xe9T / HTTP/1.1\r\nHost: a\r\n\r\n").map(|_| ()), Err(RequestLine));
}

#[test]
fn the_end_of_each_head_is_found_wherever_the_input_is_split() {
    for (lines, ..) in all_cases() {
        let bytes = wire(lines);
        let whole = find_head_end(&bytes, &mut 0, BYTES_MAX);
        for at in 0..=bytes.len() {
            let mut scanned = 0;
            let mut outcome = find_head_end(&bytes[..at], &mut scanned, BYTES_MAX);
            if outcome == Ok(None) {
                outcome = find_head_end(&bytes, &mut scanned, BYTES_MAX);
            }
            assert_eq!(outcome, whole, "{lines:?} must have the same result if it is split at {at}");
        }
    }
}

#[test]
fn the_head_ends_at_the_first_blank_line() {
    let two = wire("GET / HTTP/1.1|Host: a||GET /two HTTP/1.1|Host: a");
    assert_eq!(find_head_end(&two, &mut 0, BYTES_MAX), Ok(Some(27)));
    // The bytes after the head are not checked.
    assert_eq!(find_head_end(b"GET /\r\n\r\n\n\x16\0", &mut 0, BYTES_MAX), Ok(Some(9)));
    assert_eq!(find_head_end(b"", &mut 0, BYTES_MAX), Ok(None));
    assert_eq!(find_head_end(b"\r", &mut 0, BYTES_MAX), Ok(None));
}

#[test]
fn an_invalid_byte_is_an_error_before_the_head_is_complete() {
    assert_eq!(find_head_end(b"\x16", &mut 0, BYTES_MAX), Err(NotHttp));
    assert_eq!(find_head_end(b"GET / HTTP/1.1\n", &mut 0, BYTES_MAX), Err(BareLineFeed));
}

#[test]
fn bytes_that_were_searched_before_are_not_searched_again() {
    let mut scanned = 0;
    assert_eq!(find_head_end(b"GET / HTTP/1.1\r\nHost", &mut scanned, BYTES_MAX), Ok(None));
    assert_eq!(scanned, 20);
    // The first 20 bytes are not searched again, so the new line feed in these bytes is not found.
    let changed = b"GET / HTTP/1.1\n\nHost";
    assert_eq!(find_head_end(changed, &mut scanned, BYTES_MAX), Ok(None));
}

#[test]
fn a_head_is_too_large_as_soon_as_it_reaches_the_limit() {
    let head = wire(&format!("GET / HTTP/1.1|Host: a|X: {}", "x".repeat(8000)));
    let exactly = head.len();
    assert_eq!(find_head_end(&head, &mut 0, exactly), Ok(Some(exactly)));
    assert_eq!(find_head_end(&head, &mut 0, exactly - 1), Err(HeadTooLarge));
    // The error is returned when the number of received bytes reaches the limit, and not before.
    let mut scanned = 0;
    for end in 0..exactly - 1 {
        assert_eq!(find_head_end(&head[..end], &mut scanned, exactly - 1), Ok(None));
    }
    assert_eq!(find_head_end(&head[..exactly - 1], &mut scanned, exactly - 1), Err(HeadTooLarge));
    // An error in the bytes after the limit is not returned, so that the result does not depend on how the input is
    // split.
    let mut bytes = vec![b'A'; 100];
    bytes.push(b'\n');
    assert_eq!(find_head_end(&bytes, &mut 0, 100), Err(HeadTooLarge));
    assert_eq!(find_head_end(&bytes, &mut 0, 101), Err(BareLineFeed));
    assert_eq!(HeadTooLarge.status(), 431);
}

#[test]
fn a_head_with_too_many_header_lines_is_refused() {
    let with = |count: usize| wire(&format!("GET / HTTP/1.1|Host: a{}", "|X: y".repeat(count - 1)));
    let parse = |count, headers_max| parse_head(with(count), headers_max, PEER).err();
    assert_eq!(parse(64, 64), None);
    assert_eq!(parse(65, 64), Some(TooManyHeaders));
    assert_eq!(parse(1500, 64), Some(TooManyHeaders));
    assert_eq!(parse(1, 0), Some(TooManyHeaders));
    assert_eq!(parse(HEADERS_CEILING, usize::MAX), None);
    assert_eq!(parse(HEADERS_CEILING + 1, usize::MAX), Some(TooManyHeaders));
    assert_eq!(TooManyHeaders.status(), 431);
}

#[test]
fn blank_lines_before_a_head_are_skipped() {
    for (bytes, skipped) in [
        (&b""[..], 0),
        (b"\r", 0),
        (b"\r\n", 2),
        (b"\r\n\r", 2),
        (b"\r\n\r\nGET", 4),
        (b"\n\nGET", 0),
        (b"\r\r\n", 0),
        (b"GET\r\n", 0),
    ] {
        assert_eq!(skip_empty_lines(bytes), skipped, "{bytes:?}");
    }
}

#[test]
fn the_length_of_a_body_follows_from_the_headers() {
    for (lines, body) in [
        ("GET / HTTP/1.1|Host: a", BodyLength::None),
        ("POST / HTTP/1.1|Host: a|Content-Length: 0", BodyLength::None),
        ("POST / HTTP/1.1|Host: a|Content-Length: 12", BodyLength::Length(12)),
        ("POST / HTTP/1.1|Host: a|Content-Length: 0000000000000000000000012", BodyLength::Length(12)),
        ("POST / HTTP/1.1|Host: a|Content-Length: 18446744073709551615", BodyLength::Length(u64::MAX)),
        ("POST / HTTP/1.1|Host: a|Transfer-Encoding: Chunked", BodyLength::Chunked),
    ] {
        assert_eq!(read(&wire(lines)).map(|head| head.body), Ok(body), "{lines}");
    }
}

#[test]
fn keep_alive_follows_from_the_connection_header_and_the_http_version() {
    for (lines, keeps) in [
        ("GET / HTTP/1.1|Host: a", true),
        ("GET / HTTP/1.1|Host: a|Connection: keep-alive", true),
        ("GET / HTTP/1.1|Host: a|Connection: Close", false),
        ("GET / HTTP/1.1|Host: a|Connection: x, close", false),
        ("GET / HTTP/1.1|Host: a|Connection: keep-alive|Connection: close", false),
        ("GET / HTTP/1.1|Host: a|Connection: closed", true),
        ("GET / HTTP/1.0", false),
        ("GET / HTTP/1.0|Connection: Keep-Alive", true),
        ("GET / HTTP/1.0|Connection: keep-alive, close", false),
    ] {
        assert_eq!(read(&wire(lines)).map(|head| head.keep_alive), Ok(keeps), "{lines}");
    }
}

#[test]
fn only_a_request_with_a_body_waits_for_100_continue() {
    for (lines, expects) in [
        ("PUT / HTTP/1.1|Host: a|Content-Length: 1|Expect: 100-continue", true),
        ("PUT / HTTP/1.1|Host: a|Transfer-Encoding: chunked|Expect: 100-CONTINUE", true),
        ("PUT / HTTP/1.1|Host: a|Content-Length: 0|Expect: 100-continue", false),
        ("PUT / HTTP/1.1|Host: a|Expect: 100-continue", false),
        ("PUT / HTTP/1.1|Host: a|Content-Length: 1", false),
        ("PUT / HTTP/1.0|Content-Length: 1|Expect: 100-continue", false),
        (upgrade!("|Expect: 100-continue"), false),
    ] {
        assert_eq!(read(&wire(lines)).map(|head| head.expects_continue), Ok(expects), "{lines}");
    }
}

#[test]
fn a_plain_request_with_headers_of_an_upgrade_is_recognised() {
    for (lines, wanted_upgrade) in [
        ("GET / HTTP/1.1|Host: a", false),
        ("GET / HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: h2c", false),
        ("GET / HTTP/1.1|Host: a|Upgrade: websocket", true),
        // A request from nginx without the two `proxy_set_header` lines for WebSockets.
        (keyed!("GET / HTTP/1.1|Host: a|Connection: close"), true),
    ] {
        let kind = read(&wire(lines)).map(|head| head.kind);
        assert_eq!(kind, Ok(RequestKind::Plain { wanted_upgrade }), "{lines}");
    }
}

#[test]
fn the_accept_key_of_the_sample_key_is_that_of_rfc_6455() {
    let kind = read(&wire(upgrade!())).map(|head| head.kind);
    assert_eq!(kind, Ok(RequestKind::Upgrade { accept: *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" }));
}

#[test]
fn error_responses_have_a_text_and_the_required_headers() {
    let answer = |error: HttpError| {
        let response = error.response(false);
        assert_eq!((response.status(), response.fault()), (error.status(), None));
        assert!(response.closes());
        let mut out = Vec::new();
        response.encode(&mut out, "", true, false);
        String::from_utf8(out).expect("the output must be UTF-8")
    };
    assert_eq!(
        answer(HostMissing),
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 23\r\nConnection: close\r\n\r\nHost header is missing\n",
    );
    assert!(answer(UpgradeMethod).contains("\r\nAllow: GET\r\n"));
    for error in [UpgradeVersion, UpgradeRequired] {
        let text = answer(error);
        assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        assert!(text.contains("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"));
        assert!(text.contains("\r\nConnection: upgrade, close\r\n"));
    }
    assert!(answer(Timeout).starts_with("HTTP/1.1 408 Request Timeout\r\n"));
}

#[test]
fn fuzz_replay() {
    for (lines, ..) in all_cases() {
        let bytes = wire(lines);
        fuzz_head(&bytes);
        for at in 0..bytes.len() {
            for byte in *b"\r\n\0 :,/1\xff" {
                let mut mutant = bytes.clone();
                mutant[at] = byte;
                fuzz_head(&mutant);
            }
            let mut shorter = bytes.clone();
            shorter.remove(at);
            fuzz_head(&shorter);
        }
    }
}
