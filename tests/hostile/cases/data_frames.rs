//! Cases of valid data frames and of frames that violate RFC 6455, with the delivered messages and the close code.
//!
//! A valid case sends a close frame at its end. So the server sends a close frame in every case, valid or invalid.

use crate::common::raw::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame, frame_with};
use crate::harness::{Case, MESSAGE_BYTES_MAX, shown};

pub const FIN: u8 = 0x80;

/// Returns a case that the server answers with a close frame with this code. Before the close frame, the server makes
/// the handler calls in `delivered`.
pub fn invalid_case(name: impl Into<String>, bytes: impl AsRef<[u8]>, code: u16, delivered: &[&str]) -> Case {
    let ran = delivered.iter().map(|delivered| (*delivered).to_owned()).collect();
    Case {
        name: name.into(),
        bytes: bytes.as_ref().to_vec(),
        statuses: vec![101],
        code: Some(code),
        ran,
        is_bare: false,
    }
}

/// Returns a case of valid frames. The client sends a close frame at the end.
pub fn valid_case(name: impl Into<String>, bytes: impl AsRef<[u8]>, delivered: &[&str]) -> Case {
    let goodbye = frame(CLOSE, &close_payload(1000, ""));
    invalid_case(name, [bytes.as_ref(), &goodbye].concat(), 1000, delivered)
}

/// Returns all cases.
pub fn cases() -> Vec<Case> {
    [valid(), unmasked(), reserved(), fragments(), lengths(), oversized(), not_utf8(), utf8(), valid_then_invalid()]
        .concat_all()
}

trait ConcatAll {
    fn concat_all(self) -> Vec<Case>;
}

impl<const N: usize> ConcatAll for [Vec<Case>; N] {
    fn concat_all(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

/// Returns the header of a masked frame, without a payload.
pub fn header(first: u8, short: u8, extended: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | short], extended, &[1, 2, 3, 4]].concat()
}

fn valid() -> Vec<Case> {
    let fragments = |kind: u8, parts: &[&[u8]]| -> Vec<u8> {
        let last = parts.len() - 1;
        let part = |(at, part): (usize, &&[u8])| {
            let opcode = if at == 0 { kind } else { CONTINUATION };
            frame_with(if at == last { FIN | opcode } else { opcode }, part)
        };
        parts.iter().enumerate().flat_map(part).collect()
    };
    let of = |kind: &str, bytes: usize| shown(kind, &vec![b'.'; bytes]);
    let zero_mask = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
    let mut cases = vec![
        valid_case("nothing", b"", &[]),
        valid_case("a text", frame(TEXT, b"hi"), &["text hi"]),
        valid_case("a text under a mask of zeros", zero_mask, &["text hi"]),
        valid_case("an empty text", frame(TEXT, b""), &["text"]),
        valid_case("an empty binary", frame(BINARY, b""), &["binary"]),
        valid_case("a binary of any bytes", frame(BINARY, b"\0\xff\xfe"), &["binary \\x00\\xff\\xfe"]),
        valid_case("two texts", [frame(TEXT, b"one"), frame(TEXT, b"two")].concat(), &["text one", "text two"]),
        valid_case("a ping", frame(PING, b""), &["ping"]),
        valid_case("a ping with payload", frame(PING, b"\0\xff"), &["ping \\x00\\xff"]),
        valid_case("an unsolicited pong", frame(PONG, b"?"), &["pong ?"]),
        valid_case("two fragments", fragments(TEXT, &[b"a", b"b"]), &["text ab"]),
        valid_case("binary in three fragments", fragments(BINARY, &[b"\xff", b"", b"\0"]), &["binary \\xff\\x00"]),
        valid_case("a message of empty fragments", fragments(TEXT, &[b"", b"", b"", b""]), &["text"]),
        valid_case("a hundred fragments", fragments(TEXT, &[&b"."[..]; 100]), &[&of("text", 100)]),
        valid_case(
            "control frames between fragments",
            [frame_with(TEXT, b"a"), frame(PING, b"1"), frame(PONG, b"2"), frame(CONTINUATION, b"b")].concat(),
            &["ping 1", "pong 2", "text ab"],
        ),
    ];
    for bytes in [125, 126, 127, 65_535, 65_536, MESSAGE_BYTES_MAX] {
        let payload = vec![b'.'; bytes];
        cases.push(valid_case(format!("a text of {bytes}"), frame(TEXT, &payload), &[&of("text", bytes)]));
    }
    cases.push(valid_case("a ping of 125", frame(PING, &[b'.'; 125]), &[&of("ping", 125)]));
    cases
}

fn unmasked() -> Vec<Case> {
    let case = |(name, bytes): (&str, &[u8])| invalid_case(format!("unmasked {name}"), bytes, 1002, &[]);
    let mut cases: Vec<Case> = [
        ("text", &b"\x81\x02hi"[..]),
        ("empty text", b"\x81\x00"),
        ("binary", b"\x82\x02hi"),
        ("fragment", b"\x01\x02hi"),
        ("ping", b"\x89\x00"),
        ("pong", b"\x8a\x01x"),
        ("close", b"\x88\x02\x03\xe8"),
        ("text of 126", b"\x81\x7e\x00\x7e"),
        ("text of 65,536", b"\x81\x7f\0\0\0\0\0\x01\0\0"),
    ]
    .map(case)
    .into();
    let second = [frame_with(TEXT, b"a"), b"\x80\x01b".to_vec()].concat();
    cases.push(invalid_case("unmasked continuation", second, 1002, &[]));
    cases
}

fn reserved() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..=7 {
        cases.push(invalid_case(
            format!("reserved bits {bits:03b} on a text"),
            frame_with(FIN | bits << 4 | TEXT, b"x"),
            1002,
            &[],
        ));
    }
    for (name, opcode) in [("binary", BINARY), ("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        cases.push(invalid_case(format!("RSV1 on a {name}"), frame_with(FIN | 0x40 | opcode, b""), 1002, &[]));
    }
    let continued = [frame_with(TEXT, b"a"), frame_with(FIN | 0x10, b"b")].concat();
    cases.push(invalid_case("RSV3 on a continuation", continued, 1002, &[]));
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(invalid_case(format!("opcode {opcode}"), frame_with(FIN | opcode, b"x"), 1002, &[]));
        cases.push(invalid_case(format!("opcode {opcode} without FIN"), frame_with(opcode, b""), 1002, &[]));
    }
    let inside = [frame_with(TEXT, b"a"), frame_with(FIN | 3, b"")].concat();
    cases.push(invalid_case("a reserved opcode between fragments", inside, 1002, &[]));
    cases
}

fn fragments() -> Vec<Case> {
    let start = || frame_with(TEXT, b"a");
    let case = |(name, frames): (&str, Vec<Vec<u8>>)| invalid_case(name, frames.concat(), 1002, &[]);
    let mut cases: Vec<Case> = [
        ("a ping without FIN", vec![frame_with(PING, b"")]),
        ("a pong without FIN", vec![frame_with(PONG, b"")]),
        ("a close without FIN", vec![frame_with(CLOSE, b"\x03\xe8")]),
        ("a ping without FIN between fragments", vec![start(), frame_with(PING, b"")]),
        ("a continuation of nothing", vec![frame(CONTINUATION, b"x")]),
        ("an empty continuation of nothing", vec![frame(CONTINUATION, b"")]),
        ("a continuation of nothing without FIN", vec![frame_with(CONTINUATION, b"x")]),
        ("a text inside a text", vec![start(), frame(TEXT, b"b")]),
        ("a binary inside a text", vec![start(), frame(BINARY, b"b")]),
        ("a fragmented text inside a text", vec![start(), frame_with(TEXT, b"b")]),
        ("a text inside a binary", vec![frame_with(BINARY, b"a"), frame(TEXT, b"b")]),
        ("a text behind two fragments", vec![start(), frame_with(CONTINUATION, b"b"), frame(TEXT, b"c")]),
        ("a text inside an empty fragment", vec![frame_with(TEXT, b""), frame(TEXT, b"")]),
    ]
    .map(case)
    .into();
    let finished = [start(), frame(CONTINUATION, b"b"), frame(CONTINUATION, b"c")].concat();
    cases.push(invalid_case("a continuation of a complete message", finished, 1002, &["text ab"]));
    let behind = [frame(PING, b"p"), frame(CONTINUATION, b"c")].concat();
    cases.push(invalid_case("a continuation of a ping", behind, 1002, &["ping p"]));
    for (name, opcode) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        cases.push(invalid_case(format!("a {name} of 126"), header(FIN | opcode, 126, &[0, 126]), 1002, &[]));
        cases.push(invalid_case(format!("a {name} with a long length"), header(FIN | opcode, 127, &[0; 8]), 1002, &[]));
    }
    cases
}

fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, length) in
        [("2^63", 1 << 63), ("2^63 + 5", (1 << 63) + 5), ("2^64 - 1", u64::MAX), ("2^64 - 4", u64::MAX - 3)]
    {
        for (kind, first) in [("text", FIN | TEXT), ("fragment", BINARY)] {
            let bytes = header(first, 127, &length.to_be_bytes());
            cases.push(invalid_case(format!("a {kind} of {name}"), bytes, 1002, &[]));
        }
    }
    // The server finds the error in the first byte of the length, although the other bytes have not arrived.
    cases.push(invalid_case(
        "a length of which only the first byte arrives, with its top bit set",
        b"\x82\xff\x80",
        1002,
        &[],
    ));
    let second = [frame_with(BINARY, b"abc"), header(FIN, 127, &(u64::MAX - 2).to_be_bytes())].concat();
    cases.push(invalid_case("a continuation that would overflow the sum", second, 1002, &[]));
    for length in [0u16, 1, 125] {
        let bytes = header(FIN | TEXT, 126, &length.to_be_bytes());
        cases.push(invalid_case(format!("{length} written in 16 bits"), bytes, 1002, &[]));
    }
    for length in [0u64, 125, 126, 65_535] {
        let bytes = header(FIN | BINARY, 127, &length.to_be_bytes());
        cases.push(invalid_case(format!("{length} written in 64 bits"), bytes, 1002, &[]));
    }
    cases
}

/// Returns cases with messages over the size limit. The server finds the error in the header of the frame with which
/// the message exceeds the limit.
fn oversized() -> Vec<Case> {
    let max = MESSAGE_BYTES_MAX as u64;
    let long = |first: u8, length: u64| header(first, 127, &length.to_be_bytes());
    let mut cases = Vec::new();
    for (name, length) in
        [("1 byte over the limit", max + 1), ("2^32", 1 << 32), ("2^62", 1 << 62), ("2^63 - 1", u64::MAX >> 1)]
    {
        cases.push(invalid_case(format!("a text of {name}"), long(FIN | TEXT, length), 1009, &[]));
        cases.push(invalid_case(format!("a first fragment of {name}"), long(BINARY, length), 1009, &[]));
    }
    let half = frame_with(BINARY, &vec![0; MESSAGE_BYTES_MAX / 2]);
    let last = |length: u16| header(FIN, 126, &length.to_be_bytes());
    let over = [half.clone(), last(35_001)].concat();
    cases.push(invalid_case("a sum over the limit, without its last payload", over, 1009, &[]));
    let twice = [half.clone(), frame_with(CONTINUATION, &vec![0; MESSAGE_BYTES_MAX / 2])].concat();
    cases.push(invalid_case(
        "a sum over the limit by a byte",
        [twice.clone(), header(FIN, 1, &[])].concat(),
        1009,
        &[],
    ));
    let at = [twice, frame(CONTINUATION, b"")].concat();
    cases.push(valid_case("a sum at the limit", at, &[&shown("binary", &vec![0; MESSAGE_BYTES_MAX])]));
    let huge = [frame_with(BINARY, b"x"), long(FIN, u64::MAX >> 1)].concat();
    cases.push(invalid_case("a sum of 2^63", huge, 1009, &[]));
    let ping_between = [half, frame(PING, b"p"), last(35_001)].concat();
    cases.push(invalid_case("a sum over the limit with a ping inside", ping_between, 1009, &["ping p"]));
    cases
}

/// Sequences that are not UTF-8. Each sequence is long enough for the server to find the error.
pub const NOT_UTF8: &[(&str, &[u8])] = &[
    ("0xff", b"\xff"),
    ("0xfe", b"\xfe"),
    ("a continuation byte alone", b"\x80"),
    ("the last continuation byte alone", b"\xbf"),
    ("an overlong slash", b"\xc0\xaf"),
    ("an overlong NUL", b"\xc0\x80"),
    ("an overlong DEL", b"\xc1\xbf"),
    ("an overlong slash of three bytes", b"\xe0\x80\xaf"),
    ("an overlong U+07FF", b"\xe0\x9f\xbf"),
    ("an overlong slash of four bytes", b"\xf0\x80\x80\xaf"),
    ("an overlong U+FFFF", b"\xf0\x8f\xbf\xbf"),
    ("the first surrogate", b"\xed\xa0\x80"),
    ("the last surrogate", b"\xed\xbf\xbf"),
    ("a surrogate pair", b"\xed\xa0\xbd\xed\xb8\x80"),
    ("U+110000", b"\xf4\x90\x80\x80"),
    ("U+140000", b"\xf5\x80\x80\x80"),
    ("a sequence of five bytes", b"\xf8\x88\x80\x80\x80"),
    ("a sequence of six bytes", b"\xfc\x84\x80\x80\x80\x80"),
    ("two bytes of three and a letter", b"\xe2\x82a"),
    ("one byte of two and a letter", b"\xc3a"),
    ("three bytes of four and a letter", b"\xf0\x9f\x98a"),
    ("Latin-1", b"caf\xe9 "),
];

fn not_utf8() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bytes) in NOT_UTF8 {
        cases.push(invalid_case(format!("{name} in a text"), frame(TEXT, bytes), 1007, &[]));
        // The server finds the error before the remaining text arrives.
        let cut = frame(TEXT, &[bytes, &b"-".repeat(50)[..]].concat());
        cases.push(invalid_case(format!("{name} in a text that is cut"), &cut[..6 + bytes.len()], 1007, &[]));
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let parts = [frame_with(TEXT, first), frame(PING, b"p"), frame(CONTINUATION, rest)].concat();
        // If the first fragment is already invalid, the server does not answer the ping that follows it.
        let pinged: &[&str] = if is_hopeless(first) { &[] } else { &["ping p"] };
        cases.push(invalid_case(format!("{name} in two fragments"), parts, 1007, pinged));
    }
    for (name, bytes) in [("two", &b"\xc3"[..]), ("three", b"\xe2\x82"), ("four", b"\xf0\x9f\x98")] {
        let text = [b"ok ", bytes].concat();
        cases.push(invalid_case(
            format!("a text that ends inside a sequence of {name}"),
            frame(TEXT, &text),
            1007,
            &[],
        ));
        let parts = [frame_with(TEXT, &text), frame(CONTINUATION, b"")].concat();
        cases.push(invalid_case(format!("fragments that end inside a sequence of {name}"), parts, 1007, &[]));
        let next = [frame(TEXT, &text), frame(TEXT, b"\x82\xac")].concat();
        cases.push(invalid_case(format!("a sequence of {name} over two messages"), next, 1007, &[]));
    }
    cases
}

/// Returns whether these bytes are invalid UTF-8, whatever bytes follow them.
pub fn is_hopeless(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_some())
}

fn utf8() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, text) in [
        ("NUL", "\0"),
        ("two bytes", "é"),
        ("three bytes", "€"),
        ("four bytes", "😀"),
        ("U+D7FF", "\u{d7ff}"),
        ("U+E000", "\u{e000}"),
        ("U+FFFF, which is no character", "\u{ffff}"),
        ("U+10FFFF", "\u{10ffff}"),
        ("a byte order mark", "\u{feff}x"),
    ] {
        let delivered = shown("text", text.as_bytes());
        cases.push(valid_case(format!("text of {name}"), frame(TEXT, text.as_bytes()), &[&delivered]));
        let (first, rest) = text.as_bytes().split_at(text.len() / 2);
        let parts = [frame_with(TEXT, first), frame_with(CONTINUATION, b""), frame(CONTINUATION, rest)].concat();
        cases.push(valid_case(format!("text of {name} in fragments"), parts, &[&delivered]));
    }
    cases.push(valid_case("binary that is no UTF-8", frame(BINARY, b"\xff\xc0"), &["binary \\xff\\xc0"]));
    cases.push(valid_case("a ping that is no UTF-8", frame(PING, b"\xff"), &["ping \\xff"]));
    cases
}

/// Returns cases with a valid frame before an invalid frame. The server delivers the valid frame, reports the error,
/// and delivers no later frame.
fn valid_then_invalid() -> Vec<Case> {
    let bad: [(&str, Vec<u8>, u16); 8] = [
        ("unmasked", b"\x81\x02no".to_vec(), 1002),
        ("reserved", frame_with(FIN | 0x40 | TEXT, b"no"), 1002),
        ("unknown", frame_with(FIN | 3, b"no"), 1002),
        ("a continuation", frame(CONTINUATION, b"no"), 1002),
        ("a long ping", header(FIN | PING, 126, &[1, 0]), 1002),
        ("too big", header(FIN | TEXT, 127, &(1u64 << 40).to_be_bytes()), 1009),
        ("no UTF-8", frame(TEXT, b"no\xff"), 1007),
        ("half a close", frame(CLOSE, b"\x03"), 1002),
    ];
    let case = |(name, bad, code): (&str, Vec<u8>, u16)| {
        let bytes = [frame(TEXT, b"good"), frame(PING, b"p"), bad, frame(TEXT, b"late"), frame(PING, b"late")].concat();
        invalid_case(format!("a good frame, one that is {name}, and good ones"), bytes, code, &["text good", "ping p"])
    };
    bad.map(case).into()
}
