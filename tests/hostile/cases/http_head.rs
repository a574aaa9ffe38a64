//! Cases of heads that are too long, bytes that are not HTTP, pipelined requests, and frames directly after a head.

use crate::common::raw::{PING, TEXT, UPGRADE, frame};
use crate::harness::Case;

/// The default limit of a head, including its blank line.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// A row of a table: the name, the bytes, the expected statuses, and the expected handler calls.
pub type Row = (&'static str, &'static [u8], &'static [u16], &'static [&'static str]);

const NO_HTTP: &[Row] = &[
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400], &[]),
    ("SOCKS 5", b"\x05\x01\x00", &[400], &[]),
    ("a frame without an upgrade", b"\x81\x82\x00\x00\x00\x00hi", &[400], &[]),
    ("NUL first", b"\0GET / HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("0xff first", b"\xffGET / HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("a byte order mark", b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("a space first", b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("JSON", b"{\"type\":\"push\"}\n", &[400], &[]),
    ("XML", b"<policy-file-request/>\0", &[400], &[]),
    ("a CR without its LF first", b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505], &[]),
    ("a request as of HTTP/0.9", b"GET /\r\n\r\n", &[400], &[]),
    ("a word", b"QUIT\r\n\r\n", &[400], &[]),
    ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", &[400], &[]),
    ("SMTP, as browsers can be made to speak", b"EHLO me\r\nMAIL FROM:<a@b>\r\n\r\n", &[400], &[]),
    ("Redis", b"*1\r\n$4\r\nPING\r\n\r\n", &[400], &[]),
    ("a PROXY line", b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("a response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &[400], &[]),
    ("an absolute URL and no Host", b"GET http://h/ HTTP/1.1\r\n\r\n", &[400], &[]),
    ("an absolute URL with a user", b"GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("an absolute URL of a file", b"GET file:///etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("CONNECT", b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("GET *", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", &[400], &[]),
    ("nothing", b"", &[], &[]),
    ("blank lines and nothing else", b"\r\n\r\n\r\n", &[], &[]),
    ("a head without its end", b"GET / HTTP/1.1\r\nHost: h\r\n", &[], &[]),
    ("a head without its last byte", b"GET / HTTP/1.1\r\nHost: h\r\n\r", &[], &[]),
];

const PIPELINES: &[Row] = &[
    (
        "two requests in absolute-form",
        b"GET http://a/1 HTTP/1.1\r\nHost: h\r\n\r\nGET HTTP://b:80/2 HTTP/1.1\r\nHost: h\r\n\r\n",
        &[200, 200],
        &["GET /1", "GET /2"],
    ),
    ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", &[200], &["OPTIONS *"]),
    (
        "two requests",
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        &[200, 200],
        &["GET /1", "GET /2"],
    ),
    (
        "two requests with a blank line between",
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        &[200, 200],
        &["GET /1", "GET /2"],
    ),
    (
        "a good request and half of one",
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n",
        &[200],
        &["GET /1"],
    ),
    ("a good request and rubbish", b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n\x16\x03\x01", &[200, 400], &["GET /1"]),
    (
        "a good request, a bad one and a good one",
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n",
        &[200, 400],
        &["GET /1"],
    ),
    (
        "a request behind Connection: close",
        b"GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        &[200],
        &["GET /1"],
    ),
    (
        "a request behind close in a list",
        b"GET /1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Close\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        &[200],
        &["GET /1"],
    ),
    ("a request behind HTTP/1.0", b"GET /1 HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\n", &[200], &["GET /1"]),
    (
        "a request behind HTTP/1.0 that keeps alive",
        b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
        &[200, 200],
        &["GET /1", "GET /2"],
    ),
    ("HTTP/1.0 with two hosts", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", &[400], &[]),
    ("an unknown method", b"BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n", &[200], &["BREW /pot"]),
    ("an unknown expectation", b"GET / HTTP/1.1\r\nHost: h\r\nExpect: magic\r\n\r\n", &[417], &[]),
    ("an unknown expectation of HTTP/1.0", b"GET / HTTP/1.0\r\nExpect: magic\r\n\r\n", &[200], &["GET /"]),
    ("two expectations", b"GET / HTTP/1.1\r\nHost: h\r\nExpect: magic\r\nExpect: 100-continue\r\n\r\n", &[417], &[]),
];

/// Returns all cases.
pub fn cases() -> Vec<Case> {
    let rows = [NO_HTTP, PIPELINES].concat();
    let mut cases: Vec<Case> = rows.into_iter().map(|row| case(row, false)).collect();
    cases.extend(early_frames());
    cases.extend(refused());
    cases.extend(long());
    cases
}

/// Returns cases for a server without a handler for plain HTTP.
pub fn cases_without_http_handler() -> Vec<Case> {
    let rows: &[Row] = &[
        ("nothing is served", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &[404], &[]),
        (
            "nothing is served, twice",
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            &[404, 404],
            &[],
        ),
        (
            "an upgrade of which a proxy passed only Upgrade",
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
            &[426],
            &[],
        ),
        (
            "an upgrade of which a proxy passed only the key",
            b"GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
              GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            &[426],
            &[],
        ),
        ("a body without a handler", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", &[404], &[]),
    ];
    rows.iter().copied().map(|row| case(row, true)).collect()
}

pub fn case((name, bytes, statuses, ran): Row, is_bare: bool) -> Case {
    let ran = ran.iter().map(|ran| (*ran).to_owned()).collect();
    Case { name: name.to_owned(), bytes: bytes.to_vec(), statuses: statuses.to_vec(), code: None, ran, is_bare }
}

fn made(name: &str, bytes: Vec<u8>, statuses: &[u16], ran: &[&str], code: Option<u16>) -> Case {
    let ran = ran.iter().map(|ran| (*ran).to_owned()).collect();
    Case { name: name.to_owned(), bytes, statuses: statuses.to_vec(), code, ran, is_bare: false }
}

/// Returns cases in which frames follow the head directly, before the client receives the 101 response.
fn early_frames() -> Vec<Case> {
    let behind = |frames: &[&[u8]]| [UPGRADE.as_bytes(), &frames.concat()].concat();
    let opened = |rest: &[&'static str]| [&["upgrade /", "open"], rest].concat();
    let hi = frame(TEXT, b"hi");
    let request = b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n";
    vec![
        made("a frame behind the head", behind(&[&hi]), &[101], &opened(&["text hi"]), None),
        made(
            "three frames behind the head",
            behind(&[&hi, &frame(PING, b"p"), &hi]),
            &[101],
            &opened(&["text hi", "ping p", "text hi"]),
            None,
        ),
        made("half a frame behind the head", behind(&[&hi[..5]]), &[101], &opened(&[]), None),
        made("an unmasked frame behind the head", behind(&[b"\x81\x02hi"]), &[101], &opened(&[]), Some(1002)),
        made(
            "a good frame and a bad one behind the head",
            behind(&[&hi, b"\x81\x02hi", &hi]),
            &[101],
            &opened(&["text hi"]),
            Some(1002),
        ),
        made("a request behind the head", behind(&[request]), &[101], &opened(&[]), Some(1002)),
        made(
            "a request before the upgrade",
            [&request[..], &behind(&[&hi])].concat(),
            &[200, 101],
            &["GET /1", "upgrade /", "open", "text hi"],
            None,
        ),
    ]
}

/// Returns cases with bytes after a refused upgrade. The server closes the connection and handles none of these bytes.
fn refused() -> Vec<Case> {
    let hi = frame(TEXT, b"hi");
    let foreign = UPGRADE.replacen("Host: localhost", "Host: localhost\r\nOrigin: http://evil.example", 1);
    let old = UPGRADE.replacen("Version: 13", "Version: 8", 1);
    let posted = UPGRADE.replacen("GET", "POST", 1);
    let with_body = UPGRADE.replacen("Host: localhost", "Host: localhost\r\nContent-Length: 8", 1);
    let next = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    vec![
        made("a frame behind a foreign origin", [foreign.as_bytes(), &hi].concat(), &[403], &[], None),
        made("a request behind a foreign origin", [foreign.as_bytes(), next].concat(), &[403], &[], None),
        made("an upgrade behind a foreign origin", [&foreign, UPGRADE].concat().into_bytes(), &[403], &[], None),
        made("a frame behind an old version", [old.as_bytes(), &hi].concat(), &[426], &[], None),
        made("an upgrade behind an old version", [&old, UPGRADE].concat().into_bytes(), &[426], &[], None),
        made("a request behind a POST", [posted.as_bytes(), next].concat(), &[405], &[], None),
        made("a frame as an upgrade's body", [with_body.as_bytes(), &hi].concat(), &[400], &[], None),
        made(
            "a request behind an upgrade's body",
            [with_body.as_bytes(), b"12345678", next].concat(),
            &[400],
            &[],
            None,
        ),
    ]
}

/// Returns cases with heads exactly at the limits and above the limits.
fn long() -> Vec<Case> {
    let opened = ["upgrade /", "open"];
    // The upgrade request of these cases already has five header lines.
    let with_lines = |lines: usize, line: &str| {
        let more = line.repeat(lines - 5);
        UPGRADE.replacen("\r\n\r\n", &format!("\r\n{more}\r\n"), 1).into_bytes()
    };
    let of_bytes = |bytes: usize| {
        let filler = "x".repeat(bytes - UPGRADE.len() - "X: \r\n".len());
        let head = UPGRADE.replacen("\r\n\r\n", &format!("\r\nX: {filler}\r\n\r\n"), 1).into_bytes();
        assert_eq!(head.len(), bytes);
        head
    };
    let long_target = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_BYTES_MAX)).into_bytes();
    vec![
        made("64 headers", with_lines(64, "X: y\r\n"), &[101], &opened, None),
        made("65 headers", with_lines(65, "X: y\r\n"), &[431], &[], None),
        made("2,000 headers", with_lines(2_000, "X:\r\n"), &[431], &[], None),
        made("a head of 8 KiB", of_bytes(HEAD_BYTES_MAX), &[101], &opened, None),
        made("a head of 8 KiB and a byte", of_bytes(HEAD_BYTES_MAX + 1), &[431], &[], None),
        made(
            "a head of 8 KiB without its end",
            of_bytes(HEAD_BYTES_MAX + 9)[..HEAD_BYTES_MAX].to_vec(),
            &[431],
            &[],
            None,
        ),
        made("a target of 8 KiB", long_target, &[431], &[], None),
        made("a method of 8 KiB", vec![b'A'; HEAD_BYTES_MAX], &[431], &[], None),
        made("blank lines over 8 KiB", [&b"\r\n".repeat(5_000), UPGRADE.as_bytes()].concat(), &[101], &opened, None),
    ]
}
