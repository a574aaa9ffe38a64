//! Cases of request bodies, their lengths, and request smuggling.
//!
//! The server must not handle the request for `/smuggled`. The only exception is the case with the header
//! `Content_Length`, which is not `Content-Length`: its POST has no body, so `/smuggled` is a second request.
//!
//! `CL.TE` and `TE.CL` are requests with `Content-Length` and `Transfer-Encoding`, and `TE.TE` are requests with two
//! transfer codings.

use super::http_head::case;
use crate::harness::{BODY_BYTES_MAX, Case};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// A row of the table: the name, the header lines of a POST, the bytes after the head, the expected statuses, and the
/// expected bodies. `§` is a placeholder for the smuggled request.
type Row = (&'static str, &'static str, &'static str, &'static [u16], &'static [&'static str]);

const LENGTHS: &[Row] = &[
    ("a body", "Content-Length: 5", "hello", &[200], &["hello"]),
    ("a body of nothing", "Content-Length: 0", "", &[200], &[""]),
    ("a length with leading zeros", "Content-Length: 005", "hello", &[200], &["hello"]),
    ("an incomplete body", "Content-Length: 5", "hell", &[], &[]),
    ("a body that holds a request", "Content-Length: 35", SMUGGLED, &[200], &["§"]),
    ("no length, and so no body", "X: y", "", &[200], &[""]),
    ("two lengths", "Content-Length: 5\r\nContent-Length: 6", "hello§", &[400], &[]),
    ("the same length twice", "Content-Length: 5\r\nContent-Length: 5", "hello§", &[400], &[]),
    ("two lengths, one in capitals", "CONTENT-LENGTH: 0\r\ncontent-length: 35", "§", &[400], &[]),
    ("a list of lengths", "Content-Length: 5, 5", "hello§", &[400], &[]),
    ("a list of two lengths", "Content-Length: 0,36", "§", &[400], &[]),
    ("a signed length", "Content-Length: +5", "hello§", &[400], &[]),
    ("a negative length", "Content-Length: -1", "§", &[400], &[]),
    ("a length of -0", "Content-Length: -0", "§", &[400], &[]),
    ("an empty length", "Content-Length:", "§", &[400], &[]),
    ("a length in hexadecimal", "Content-Length: 0x5", "hello§", &[400], &[]),
    ("a length with a fraction", "Content-Length: 5.0", "hello§", &[400], &[]),
    ("a length with an exponent", "Content-Length: 5e0", "hello§", &[400], &[]),
    ("a length with a comma", "Content-Length: 1,000", "§", &[400], &[]),
    ("a length with an underscore", "Content-Length: 1_0", "§", &[400], &[]),
    ("a length of two numbers", "Content-Length: 5 6", "hello§", &[400], &[]),
    ("a length in words", "Content-Length: five", "hello§", &[400], &[]),
    ("a quoted length", "Content-Length: \"5\"", "hello§", &[400], &[]),
    ("a length in other digits", "Content-Length: ٥", "hello§", &[400], &[]),
    ("a length of 2^64", "Content-Length: 18446744073709551616", "§", &[400], &[]),
    ("a length of 2^64 + 5", "Content-Length: 18446744073709551621", "hello§", &[400], &[]),
    ("a length of 2^64 - 1", "Content-Length: 18446744073709551615", "§", &[413], &[]),
    ("a length of 2^63", "Content-Length: 9223372036854775808", "§", &[413], &[]),
    ("a length of 40 digits", "Content-Length: 1000000000000000000000000000000000000000", "§", &[400], &[]),
    ("a length over the limit", "Content-Length: 1001", "§", &[413], &[]),
    (
        "a length over the limit, with Expect: 100-continue",
        "Content-Length: 1001\r\nExpect: 100-continue",
        "§",
        &[413],
        &[],
    ),
    ("a body with Expect: 100-continue", "Content-Length: 5\r\nExpect: 100-continue", "hello", &[200], &["hello"]),
    ("a space before a length's colon", "Content-Length : 5", "hello§", &[400], &[]),
    ("a tab before a length's colon", "Content-Length\t: 5", "hello§", &[400], &[]),
    ("a folded length", "Content-Length:\r\n 5", "hello§", &[400], &[]),
    ("a length behind a bare CR", "X: y\rContent-Length: 35", "§", &[400], &[]),
    ("a length behind a bare LF", "X: y\nContent-Length: 35", "§", &[400], &[]),
    ("a length behind a NUL", "X: y\0\r\nContent-Length: 35", "§", &[400], &[]),
    ("a length with a bare CR", "Content-Length: 5\r6", "hello§", &[400], &[]),
    ("a length with a NUL", "Content-Length: 5\0", "hello§", &[400], &[]),
    ("a length header with an underscore", "Content_Length: 36", "§", &[200, 200], &["", "SMUGGLED"]),
];

const CODINGS: &[Row] = &[
    ("chunked", "Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", &[200], &["hello"]),
    ("chunked in capitals", "TRANSFER-ENCODING: CHUNKED", "5\r\nhello\r\n0\r\n\r\n", &[200], &["hello"]),
    ("CL.TE", "Content-Length: 35\r\nTransfer-Encoding: chunked", "0\r\n\r\n§", &[400], &[]),
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4", "23\r\n§\r\n0\r\n\r\n", &[400], &[]),
    ("CL.TE with a length of zero", "Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n§", &[400], &[]),
    ("CL.TE with an unknown coding", "Content-Length: 5\r\nTransfer-Encoding: gzip", "hello§", &[400], &[]),
    (
        "CL.TE with two lengths",
        "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "§",
        &[400],
        &[],
    ),
    ("CL.TE with an empty coding", "Content-Length: 5\r\nTransfer-Encoding:", "hello§", &[400], &[]),
    ("TE.TE", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n§", &[400], &[]),
    ("TE.TE in one line", "Transfer-Encoding: chunked, chunked", "0\r\n\r\n§", &[400], &[]),
    ("TE.TE with identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n§", &[501], &[]),
    (
        "TE.TE with identity first",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "0\r\n\r\n§",
        &[501],
        &[],
    ),
    ("TE.TE with an unknown coding", "Transfer-Encoding: chunked\r\nTransfer-encoding: cow", "0\r\n\r\n§", &[501], &[]),
    ("TE.TE with an empty coding", "Transfer-Encoding: chunked\r\nTransfer-Encoding:", "0\r\n\r\n§", &[400], &[]),
    ("an empty coding", "Transfer-Encoding:", "0\r\n\r\n§", &[400], &[]),
    ("a coding and a comma", "Transfer-Encoding: chunked,", "0\r\n\r\n§", &[400], &[]),
    ("a comma and a coding", "Transfer-Encoding: ,chunked", "0\r\n\r\n§", &[400], &[]),
    ("identity", "Transfer-Encoding: identity", "0\r\n\r\n§", &[501], &[]),
    ("gzip, chunked", "Transfer-Encoding: gzip, chunked", "0\r\n\r\n§", &[501], &[]),
    ("chunked, gzip", "Transfer-Encoding: chunked, gzip", "0\r\n\r\n§", &[501], &[]),
    ("xchunked", "Transfer-Encoding: xchunked", "0\r\n\r\n§", &[501], &[]),
    ("chunkedx", "Transfer-Encoding: chunkedx", "0\r\n\r\n§", &[501], &[]),
    ("quoted chunked", "Transfer-Encoding: \"chunked\"", "0\r\n\r\n§", &[501], &[]),
    ("chunked with a parameter", "Transfer-Encoding: chunked;q=1", "0\r\n\r\n§", &[501], &[]),
    ("chunked with a vertical tab", "Transfer-Encoding: \x0bchunked", "0\r\n\r\n§", &[400], &[]),
    ("chunked with a NUL", "Transfer-Encoding: chunked\0", "0\r\n\r\n§", &[400], &[]),
    ("chunked with a bare CR", "Transfer-Encoding: chunked\r", "0\r\n\r\n§", &[400], &[]),
    ("chunked behind spaces", "Transfer-Encoding:   \tchunked \t", "5\r\nhello\r\n0\r\n\r\n", &[200], &["hello"]),
    ("chunked that is not ASCII", "Transfer-Encoding: chun\u{212a}ed", "0\r\n\r\n§", &[501], &[]),
    ("a space before a coding's colon", "Transfer-Encoding : chunked", "0\r\n\r\n§", &[400], &[]),
    ("a folded coding", "Transfer-Encoding:\r\n chunked", "0\r\n\r\n§", &[400], &[]),
    ("a coding in a folded line of another header", "X: y\r\n Transfer-Encoding: chunked", "0\r\n\r\n§", &[400], &[]),
    ("a coding behind a bare CR", "X: y\rTransfer-Encoding: chunked", "0\r\n\r\n§", &[400], &[]),
    ("a coding behind a bare LF", "X: y\nTransfer-Encoding: chunked", "0\r\n\r\n§", &[400], &[]),
    ("a coding header with an underscore", "Transfer_Encoding: chunked", "0\r\n\r\n", &[200, 400], &[""]),
];

const CHUNKS: &[Row] = &[
    ("two chunks", CHUNKED, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", &[200], &["hello"]),
    ("a chunk that holds a request", CHUNKED, "23\r\n§\r\n0\r\n\r\n", &[200], &["§"]),
    ("a size with leading zeros", CHUNKED, "0005\r\nhello\r\n000\r\n\r\n", &[200], &["hello"]),
    ("a size in capitals", CHUNKED, "A\r\n0123456789\r\n0\r\n\r\n", &[200], &["0123456789"]),
    ("an extension", CHUNKED, "5;a=b\r\nhello\r\n0;c\r\n\r\n", &[200], &["hello"]),
    ("an extension in quotes", CHUNKED, "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", &[200], &["hello"]),
    ("a trailer", CHUNKED, "5\r\nhello\r\n0\r\nX: y\r\n\r\n", &[200], &["hello"]),
    ("a trailer that gives a length", CHUNKED, "5\r\nhello\r\n0\r\nContent-Length: 35\r\n\r\n", &[200], &["hello"]),
    ("no last chunk", CHUNKED, "5\r\nhello\r\n", &[], &[]),
    ("no blank line behind the last chunk", CHUNKED, "5\r\nhello\r\n0\r\n", &[], &[]),
    ("an empty size", CHUNKED, "\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a signed size", CHUNKED, "+5\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a negative size", CHUNKED, "-1\r\n§", &[400], &[]),
    ("a size with 0x", CHUNKED, "0x5\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size with a space before it", CHUNKED, " 5\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size with a space behind it", CHUNKED, "5 \r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size of two numbers", CHUNKED, "5 6\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size in letters", CHUNKED, "g\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size with an underscore", CHUNKED, "1_0\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a list of two sizes", CHUNKED, "5,5\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size with a NUL", CHUNKED, "5\0\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size of 2^64 - 1", CHUNKED, "ffffffffffffffff\r\n§", &[413], &[]),
    ("a size of 2^64", CHUNKED, "10000000000000000\r\n§", &[400], &[]),
    ("a size of 2^64 + 5", CHUNKED, "10000000000000005\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size of many zeros", CHUNKED, "00000000000000005\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size over the limit", CHUNKED, "3e9\r\n§", &[413], &[]),
    ("a size that ends in LF", CHUNKED, "5\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a size that ends in CR", CHUNKED, "5\rhello\r\n0\r\n\r\n§", &[400], &[]),
    ("a last chunk that ends in LF", CHUNKED, "0\n\n§", &[400], &[]),
    ("data that ends in LF", CHUNKED, "5\r\nhello\n0\r\n\r\n§", &[400], &[]),
    ("data that ends in CR", CHUNKED, "5\r\nhello\r0\r\n\r\n§", &[400], &[]),
    ("data that is too long", CHUNKED, "5\r\nhello!\r\n0\r\n\r\n§", &[400], &[]),
    ("data that is too short", CHUNKED, "5\r\nhell\r\n0\r\n\r\n§", &[400], &[]),
    ("data without CRLF", CHUNKED, "5\r\nhello0\r\n\r\n§", &[400], &[]),
    ("an extension that ends in LF", CHUNKED, "5;a\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("an extension with a bare CR", CHUNKED, "5;a\rb\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("an extension with a NUL", CHUNKED, "5;a\0\r\nhello\r\n0\r\n\r\n§", &[400], &[]),
    ("an extension in open quotes", CHUNKED, "5;a=\"\r\nhello\r\n0\r\n\r\n", &[200], &["hello"]),
    ("a trailer that ends in LF", CHUNKED, "0\r\nX: y\n\r\n§", &[400], &[]),
    ("a trailer with a bare CR", CHUNKED, "0\r\nX: y\rZ: z\r\n\r\n§", &[400], &[]),
    ("a trailer with a NUL", CHUNKED, "0\r\nX: \0\r\n\r\n§", &[400], &[]),
    ("a blank line that ends in LF", CHUNKED, "0\r\n\n§", &[400], &[]),
];

const CHUNKED: &str = "Transfer-Encoding: chunked";

/// Complete inputs that do not begin with the POST of [`Row`].
const WHOLE: &[super::http_head::Row] = &[
    (
        "chunked on HTTP/1.0",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
        &[],
    ),
    (
        "CL.TE on HTTP/1.0",
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
        &[400],
        &[],
    ),
    (
        "a GET with a body",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
        &[200],
        &["GET / GET /smuggled HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n"],
    ),
    (
        "a request behind a chunked body",
        b"POST /1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\
          POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhoGET /3 HTTP/1.1\r\nHost: h\r\n\r\n",
        &[200, 200, 200],
        &["POST /1 hi", "POST /2 ho", "GET /3"],
    ),
];

/// Returns all cases.
pub fn cases() -> Vec<Case> {
    let tables = [LENGTHS, CODINGS, CHUNKS];
    let mut cases: Vec<Case> = tables.iter().copied().flatten().map(post).collect();
    cases.extend(WHOLE.iter().map(|row| case(*row, false)));
    cases.extend(long());
    cases
}

fn post(&(name, headers, behind, statuses, bodies): &Row) -> Case {
    let behind = behind.replace('§', SMUGGLED);
    let bytes = format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n{behind}").into_bytes();
    let ran = |body: &&str| match *body {
        "" => "POST /".to_owned(),
        "SMUGGLED" => "GET /smuggled".to_owned(),
        "§" => format!("POST / {}", SMUGGLED.escape_debug()),
        body => format!("POST / {body}"),
    };
    let ran = bodies.iter().map(ran).collect();
    Case { name: name.to_owned(), bytes, statuses: statuses.to_vec(), code: None, ran, is_bare: false }
}

/// Returns cases with bodies, chunk headers and trailers exactly at their limits and above their limits.
fn long() -> Vec<Case> {
    let with_length = |length: usize| format!("Content-Length: {length}\r\n\r\n{}", "b".repeat(length));
    let chunked = |rest: &str| format!("{CHUNKED}\r\n\r\n{rest}");
    let of_chunk = |length: usize| chunked(&format!("{length:x}\r\n{}\r\n0\r\n\r\n", "b".repeat(length)));
    let many = |count: usize| chunked(&format!("{}0\r\n\r\n", "1\r\nb\r\n".repeat(count)));
    let whole = format!("POST / of {BODY_BYTES_MAX} bytes");
    let whole: &[&str] = &[&whole];
    let rows: Vec<(&str, String, u16, &[&str])> = vec![
        ("a body at the limit", with_length(BODY_BYTES_MAX), 200, whole),
        ("a body over the limit", with_length(BODY_BYTES_MAX + 1), 413, &[]),
        ("a chunk at the limit", of_chunk(BODY_BYTES_MAX), 200, whole),
        ("a chunk over the limit", of_chunk(BODY_BYTES_MAX + 1), 413, &[]),
        ("chunks at the limit", many(BODY_BYTES_MAX), 200, whole),
        ("chunks over the limit", many(BODY_BYTES_MAX + 1), 413, &[]),
        ("an extension of 9,000 bytes", chunked(&format!("1;{}\r\nb\r\n", "e".repeat(9_000))), 413, &[]),
        ("9,000 extensions", chunked(&"1;;;;;;;;;;\r\nb\r\n".repeat(900)), 413, &[]),
        ("a trailer of 9,000 bytes", chunked(&format!("0\r\nX: {}\r\n\r\n", "t".repeat(9_000))), 431, &[]),
        ("9,000 trailers", chunked(&format!("0\r\n{}\r\n", "X:\r\n".repeat(9_000))), 431, &[]),
    ];
    let case = |(name, rest, status, ran): (&str, String, u16, &[&str])| Case {
        name: name.to_owned(),
        bytes: format!("POST / HTTP/1.1\r\nHost: h\r\n{rest}").into_bytes(),
        statuses: vec![status],
        code: None,
        ran: ran.iter().map(|ran| (*ran).to_owned()).collect(),
        is_bare: false,
    };
    rows.into_iter().map(case).collect()
}
