//! Cases of upgrade requests with one change each: a table of replacements and the expected status. The server calls
//! `on_open` only if it answers with the status 101.

use crate::common::raw::UPGRADE;
use crate::harness::Case;

const LINE: &str = "GET / HTTP/1.1\r\n";
const HOST: &str = "Host: localhost\r\n";
const UP: &str = "Upgrade: websocket\r\n";
const CONN: &str = "Connection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A row of the table: the name, the replaced text, the replacement, and the expected status. The status 200 means that
/// the server handles the request as plain HTTP `GET /`.
type Row = (&'static str, &'static str, &'static str, u16);

const METHODS_AND_VERSIONS: &[Row] = &[
    ("no change", "GET", "GET", 101),
    ("POST on an upgrade", "GET", "POST", 405),
    ("PUT on an upgrade", "GET", "PUT", 405),
    ("DELETE on an upgrade", "GET", "DELETE", 405),
    ("PATCH on an upgrade", "GET", "PATCH", 405),
    ("OPTIONS on an upgrade", "GET", "OPTIONS", 405),
    ("TRACE on an upgrade", "GET", "TRACE", 405),
    ("a method in lower case", "GET", "get", 405),
    ("the method GETX", "GET", "GETX", 405),
    ("a method that is no token", "GET", "G(T", 400),
    ("no method", "GET /", " /", 400),
    ("upgrade by HTTP/1.0", "HTTP/1.1", "HTTP/1.0", 400),
    ("HTTP/0.9", "HTTP/1.1", "HTTP/0.9", 505),
    ("HTTP/1.2", "HTTP/1.1", "HTTP/1.2", 505),
    ("HTTP/2.0", "HTTP/1.1", "HTTP/2.0", 505),
    ("HTTP/3.0", "HTTP/1.1", "HTTP/3.0", 505),
    ("HTTP/2", "HTTP/1.1", "HTTP/2", 400),
    ("version in lower case", "HTTP/1.1", "http/1.1", 400),
    ("version without a point", "HTTP/1.1", "HTTP/11", 400),
    ("version of three digits", "HTTP/1.1", "HTTP/1.10", 400),
    ("version with a comma", "HTTP/1.1", "HTTP/1,1", 400),
    ("version cut short", "HTTP/1.1", "HTTP/1.", 400),
    ("space behind the version", "HTTP/1.1", "HTTP/1.1 ", 400),
    ("tab before the version", " HTTP/1.1", "\tHTTP/1.1", 400),
    ("two spaces before the version", " HTTP/1.1", "  HTTP/1.1", 400),
    ("no version", " HTTP/1.1", "", 400),
    ("another protocol", "HTTP/1.1", "RTSP/1.0", 400),
];

const TARGETS: &[Row] = &[
    ("target with a query", "/ ", "/?uid=7&x= ", 101),
    ("target with %00, an encoded NUL", "/ ", "/%00 ", 101),
    ("target with a percent sign alone", "/ ", "/100% ", 400),
    ("target with half an escape", "/ ", "/%4 ", 400),
    ("path in GBK", "/ ", "/%D5%C5 ", 400),
    ("path with an overlong NUL", "/ ", "/%C0%80 ", 400),
    ("query in GBK that no handler reads", "/ ", "/?uid=%D5%C5 ", 101),
    ("target of two slashes", "/ ", "// ", 101),
    ("fragment in the target", "/ ", "/#top ", 400),
    ("fragment behind a query", "/ ", "/?a=b#c ", 400),
    ("target in absolute-form", "GET / ", "GET http://localhost/ ", 101),
    ("target in absolute-form, of ws", "GET / ", "GET ws://localhost ", 101),
    ("target in absolute-form, of no host", "GET / ", "GET http:/// ", 400),
    ("target in absolute-form, with a user", "GET / ", "GET http://me@localhost/ ", 400),
    ("target in absolute-form, of another scheme", "GET / ", "GET gopher://localhost/ ", 400),
    ("target of an authority", "/ ", "localhost:80 ", 400),
    ("target of an asterisk", "/ ", "* ", 400),
    ("target of a query alone", "/ ", "?uid=7 ", 400),
    ("target with a backslash first", "/ ", "\\ ", 400),
    ("target without a slash", "/ ", "chat ", 400),
    ("space in the target", "/ ", "/a b ", 400),
    ("tab in the target", "/ ", "/a\tb ", 400),
    ("control in the target", "/ ", "/\x01 ", 400),
    ("NUL in the target", "/ ", "/\0 ", 400),
    ("DEL in the target", "/ ", "/\x7f ", 400),
    ("UTF-8 in the target", "/ ", "/ü?uid=张 ", 101),
    ("no target", "/ ", "", 400),
];

const TOKENS: &[Row] = &[
    ("Connection: keep-alive, Upgrade", "Connection: Upgrade", "Connection: keep-alive, Upgrade", 101),
    ("Connection in capitals", "Connection: Upgrade", "CONNECTION: UPGRADE", 101),
    ("Connection in small letters", "Connection: Upgrade", "connection:upgrade", 101),
    ("Connection in two lines", CONN, "Connection: keep-alive\r\nConnection: Upgrade\r\n", 101),
    ("Connection with empty elements", "Connection: Upgrade", "Connection: ,, \t,Upgrade,,", 101),
    ("Connection: close, Upgrade", "Connection: Upgrade", "Connection: close, Upgrade", 101),
    ("Connection without upgrade", "Connection: Upgrade", "Connection: keep-alive", 200),
    ("Connection with a longer word", "Connection: Upgrade", "Connection: Upgraded", 200),
    ("Connection with a quoted word", "Connection: Upgrade", "Connection: \"Upgrade\"", 200),
    ("Connection with two words in one", "Connection: Upgrade", "Connection: keep-alive Upgrade", 200),
    ("Connection empty", "Connection: Upgrade", "Connection:", 200),
    ("Connection missing", CONN, "", 200),
    ("Upgrade in a list", "Upgrade: websocket", "Upgrade: h2c, WebSocket", 101),
    ("Upgrade in two lines", UP, "Upgrade: h2c\r\nUpgrade: websocket\r\n", 101),
    ("Upgrade: h2c", "Upgrade: websocket", "Upgrade: h2c", 200),
    ("Upgrade with a longer word", "Upgrade: websocket", "Upgrade: websockets", 200),
    ("Upgrade missing", UP, "", 200),
];

const KEYS_AND_VERSIONS: &[Row] = &[
    ("RFC 6455's other key", "dGhlIHNhbXBsZSBub25jZQ==", "AQIDBAUGBwgJCgsMDQ4PEC==", 101),
    ("no key", KEY, "", 400),
    (
        "two keys",
        KEY,
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n",
        400,
    ),
    (
        "the same key twice",
        KEY,
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        400,
    ),
    ("two keys in a list", "ZQ==\r\n", "ZQ==, dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
    ("an empty key", "dGhlIHNhbXBsZSBub25jZQ==", "", 400),
    ("a key that is not base64", "dGhlIHNhbXBsZSBub25jZQ==", "!!!!IHNhbXBsZSBub25jZQ==", 400),
    ("a key in base64url", "dGhlIHNhbXBsZSBub25jZQ==", "d-hl_HNhbXBsZSBub25jZQ==", 400),
    ("a key of 15 bytes", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400),
    ("a key of 17 bytes", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZWE=", 400),
    ("a key of 18 bytes", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZWFh", 400),
    ("a key without its padding", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400),
    ("a key with padding inside", "dGhlIHNhbXBsZSBub25jZQ==", "dGhl==NhbXBsZSBub25jZQ==", 400),
    ("a key with a space inside", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBs ZSBub25jZQ==", 400),
    ("a key with a letter too many", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==a", 400),
    ("a key that is not ASCII", "dGhlIHNhbXBsZSBub25jZQ==", "üGhlIHNhbXBsZSBub25jZQ==", 400),
    ("a key of 16 letters", "dGhlIHNhbXBsZSBub25jZQ==", "the sample nonce", 400),
    ("version 0", "Version: 13", "Version: 0", 426),
    ("version 8", "Version: 13", "Version: 8", 426),
    ("version 12", "Version: 13", "Version: 12", 426),
    ("version 14", "Version: 13", "Version: 14", 426),
    ("version 99", "Version: 13", "Version: 99", 426),
    ("version 013", "Version: 13", "Version: 013", 426),
    ("version +13", "Version: 13", "Version: +13", 426),
    ("version 13.0", "Version: 13", "Version: 13.0", 426),
    ("version of words", "Version: 13", "Version: thirteen", 426),
    ("version in a list", "Version: 13", "Version: 13, 8", 426),
    ("version in two lines that differ", VERSION, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n", 426),
    ("version empty", "Version: 13", "Version:", 426),
    ("no Sec-WebSocket-Version", VERSION, "", 426),
];

const HOSTS: &[Row] = &[
    ("no Host", HOST, "", 400),
    ("Host twice", HOST, "Host: localhost\r\nHost: evil.example\r\n", 400),
    ("the same Host twice", HOST, "Host: localhost\r\nhost: localhost\r\n", 400),
    ("an empty Host", "Host: localhost", "Host:", 400),
    ("Host of two words", "Host: localhost", "Host: localhost evil", 400),
    ("Host of a URL", "Host: localhost", "Host: http://localhost", 400),
    ("Host with a path", "Host: localhost", "Host: localhost/", 400),
    ("Host with a user", "Host: localhost", "Host: me@localhost", 400),
    ("Host with a fragment", "Host: localhost", "Host: localhost#", 400),
    ("Host with a port of letters", "Host: localhost", "Host: localhost:http", 400),
    ("Host with a signed port", "Host: localhost", "Host: localhost:+80", 400),
    ("Host with a port too large", "Host: localhost", "Host: localhost:65536", 400),
    ("Host with two ports", "Host: localhost", "Host: localhost:80:80", 400),
    ("Host with an open bracket", "Host: localhost", "Host: [::1", 400),
    ("Host with letters in brackets", "Host: localhost", "Host: [localhost]", 400),
    ("Host that is not ASCII", "Host: localhost", "Host: löcalhost", 400),
    ("Host with an empty port", "Host: localhost", "Host: localhost:", 101),
    ("Host of an IPv6 address", "Host: localhost", "Host: [::1]:9501", 101),
    ("Host without a space before it", "Host: localhost", "Host:localhost", 101),
    ("Host with spaces around it", "Host: localhost", "Host: \t localhost \t", 101),
];

const BODIES: &[Row] = &[
    ("Content-Length: 0 is no body", HOST, "Host: localhost\r\nContent-Length: 0\r\n", 101),
    ("body on an upgrade", HOST, "Host: localhost\r\nContent-Length: 5\r\n", 400),
    ("chunked body on an upgrade", HOST, "Host: localhost\r\nTransfer-Encoding: chunked\r\n", 400),
    ("unknown coding on an upgrade", HOST, "Host: localhost\r\nTransfer-Encoding: gzip\r\n", 501),
    ("both lengths on an upgrade", HOST, "Host: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400),
    ("two lengths on an upgrade", HOST, "Host: localhost\r\nContent-Length: 0\r\nContent-Length: 0\r\n", 400),
    ("a signed length on an upgrade", HOST, "Host: localhost\r\nContent-Length: -1\r\n", 400),
    ("an odd expectation on an upgrade", HOST, "Host: localhost\r\nExpect: 101-upgrade\r\n", 417),
];

const ORIGINS: &[Row] = &[
    ("origin: the same", HOST, "Host: localhost\r\nOrigin: http://localhost\r\n", 101),
    (
        "origin: the same with https, as behind a TLS proxy",
        HOST,
        "Host: localhost\r\nOrigin: https://localhost\r\n",
        101,
    ),
    ("origin: the same in capitals", HOST, "Host: localhost\r\nOrigin: HTTP://LOCALHOST\r\n", 101),
    ("origin: the same with the default port in Host", HOST, "Host: localhost:80\r\nOrigin: http://localhost\r\n", 101),
    (
        "origin: the same with another port in both headers",
        HOST,
        "Host: localhost:9501\r\nOrigin: http://localhost:9501\r\n",
        101,
    ),
    ("origin: the same IPv6 address", HOST, "Host: [::1]\r\nOrigin: http://[0:0::1]\r\n", 101),
    ("origin: another host", HOST, "Host: localhost\r\nOrigin: http://example.com\r\n", 403),
    ("origin: another port", HOST, "Host: localhost\r\nOrigin: http://localhost:8080\r\n", 403),
    ("origin: the default port of another scheme", HOST, "Host: localhost:80\r\nOrigin: https://localhost\r\n", 403),
    ("origin: the host with a suffix", HOST, "Host: localhost\r\nOrigin: http://localhost.evil.example\r\n", 403),
    ("origin: the host with a prefix", HOST, "Host: localhost\r\nOrigin: http://evil-localhost\r\n", 403),
    ("origin: the host as a user name", HOST, "Host: localhost\r\nOrigin: http://localhost@evil.example\r\n", 403),
    ("origin: the host as a path", HOST, "Host: localhost\r\nOrigin: http://evil.example/localhost\r\n", 403),
    ("origin: the host with a path", HOST, "Host: localhost\r\nOrigin: http://localhost/\r\n", 403),
    ("origin: another scheme", HOST, "Host: localhost\r\nOrigin: ftp://localhost\r\n", 403),
    ("origin: an extension", HOST, "Host: localhost\r\nOrigin: chrome-extension://localhost\r\n", 403),
    ("origin: null", HOST, "Host: localhost\r\nOrigin: null\r\n", 403),
    ("origin: empty", HOST, "Host: localhost\r\nOrigin:\r\n", 403),
    ("origin: no scheme", HOST, "Host: localhost\r\nOrigin: localhost\r\n", 403),
    (
        "origin: two origins in one header",
        HOST,
        "Host: localhost\r\nOrigin: http://localhost http://evil.example\r\n",
        403,
    ),
    ("origin: two headers", HOST, "Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://localhost\r\n", 403),
    ("origin: DNS rebinding", HOST, "Host: evil.example\r\nOrigin: http://evil.example\r\n", 403),
    (
        "origin: DNS rebinding, a host that ends with localhost",
        HOST,
        "Host: notlocalhost\r\nOrigin: http://notlocalhost\r\n",
        403,
    ),
];

const LINES: &[Row] = &[
    ("blank lines before the request", LINE, "\r\n\r\nGET / HTTP/1.1\r\n", 101),
    ("a header of bytes above ASCII", VERSION, "Sec-WebSocket-Version: 13\r\nX-Name: Jürgen\r\n", 101),
    ("a header without a value", VERSION, "Sec-WebSocket-Version: 13\r\nX-Empty:\r\n", 101),
    ("a folded header", VERSION, "Sec-WebSocket-Version: 13\r\nX-Long: a\r\n b\r\n", 400),
    ("a folded header, by tab", VERSION, "Sec-WebSocket-Version: 13\r\nX-Long: a\r\n\tb\r\n", 400),
    ("a folded key", "Sec-WebSocket-Key: ", "Sec-WebSocket-Key:\r\n ", 400),
    ("a space before the first header", HOST, " Host: localhost\r\n", 400),
    ("a space before the colon", "Host:", "Host :", 400),
    ("a tab before the colon", "Host:", "Host\t:", 400),
    ("a header without a colon", VERSION, "Sec-WebSocket-Version: 13\r\nX-None\r\n", 400),
    ("a header without a name", VERSION, "Sec-WebSocket-Version: 13\r\n: none\r\n", 400),
    ("a space in a header's name", VERSION, "Sec-WebSocket-Version: 13\r\nX Y: z\r\n", 400),
    ("a control in a header's name", VERSION, "Sec-WebSocket-Version: 13\r\nX\x01Y: z\r\n", 400),
    ("a header's name that is not ASCII", VERSION, "Sec-WebSocket-Version: 13\r\nXü: z\r\n", 400),
    ("NUL in a header's value", VERSION, "Sec-WebSocket-Version: 13\r\nX: a\0b\r\n", 400),
    ("DEL in a header's value", VERSION, "Sec-WebSocket-Version: 13\r\nX: a\x7fb\r\n", 400),
    ("a vertical tab in a header's value", VERSION, "Sec-WebSocket-Version: 13\r\nX: a\x0bb\r\n", 400),
    ("an escape in a header's value", VERSION, "Sec-WebSocket-Version: 13\r\nX: a\x1bb\r\n", 400),
    ("bare CR in a header's value", VERSION, "Sec-WebSocket-Version: 13\r\nX: a\rb\r\n", 400),
    ("bare CR at a header's end", VERSION, "Sec-WebSocket-Version: 13\rX: b\r\n", 400),
    ("two CRs at a header's end", VERSION, "Sec-WebSocket-Version: 13\r\r\n", 400),
    ("bare LF at the request line's end", LINE, "GET / HTTP/1.1\n", 400),
    ("bare LF at a header's end", HOST, "Host: localhost\n", 400),
    ("bare LF at the head's end", KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n", 400),
    ("LF before the request", LINE, "\nGET / HTTP/1.1\r\n", 400),
];

/// Returns all cases.
pub fn cases() -> Vec<Case> {
    let tables = [METHODS_AND_VERSIONS, TARGETS, TOKENS, KEYS_AND_VERSIONS, HOSTS, BODIES, ORIGINS, LINES];
    tables.iter().copied().flatten().map(case).collect()
}

fn case(&(name, from, to, status): &Row) -> Case {
    assert!(UPGRADE.contains(from), "{name}");
    let bytes = UPGRADE.replacen(from, to, 1).into_bytes();
    let target = if from == "/ " { to.trim() } else { "/" };
    let ran = match status {
        101 => vec![format!("upgrade {target}"), "open".to_owned()],
        200 => vec![format!("GET {target}")],
        _ => vec![],
    };
    Case { name: name.to_owned(), bytes, statuses: vec![status], code: None, ran, is_bare: false }
}
