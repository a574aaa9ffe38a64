//! Cases of close frames: valid and invalid codes, the answer of the server, and bytes after a close frame.

use super::data_frames::{NOT_UTF8, invalid_case};
use crate::common::raw::{CLOSE, CONTINUATION, PING, TEXT, close_payload, frame, frame_with};
use crate::harness::Case;

/// Valid codes of a close frame. The server answers with the same code.
const GOOD: &[u16] =
    &[1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4001, 4999];

/// Invalid codes of a close frame.
const BAD: &[u16] =
    &[0, 1, 125, 255, 256, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 32_768, 65_535];

/// Returns all cases.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    cases.extend(GOOD.iter().map(|&code| invalid_case(format!("close {code}"), closing(code, "bye"), code, &[])));
    cases.extend(BAD.iter().map(|&code| invalid_case(format!("close {code}"), closing(code, ""), 1002, &[])));
    cases.extend(payloads());
    cases.extend(reasons());
    cases.extend(after_a_close_frame());
    cases
}

fn closing(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &close_payload(code, reason))
}

fn payloads() -> Vec<Case> {
    vec![
        invalid_case("close without a code", frame(CLOSE, b""), 1005, &[]),
        invalid_case("close with half a code", frame(CLOSE, b"\x03"), 1002, &[]),
        invalid_case("close with half a code of zero", frame(CLOSE, b"\0"), 1002, &[]),
        invalid_case("close with a reason of 123 bytes", closing(1000, &"r".repeat(123)), 1000, &[]),
        invalid_case("close with a reason of 124 bytes", [&[0x88, 0xfe, 0, 126], &[0; 4][..]].concat(), 1002, &[]),
        invalid_case("close with a reason in UTF-8", closing(3000, "até logo"), 3000, &[]),
        invalid_case("close between fragments", [frame_with(TEXT, b"a"), closing(1000, "")].concat(), 1000, &[]),
        invalid_case(
            "close inside a sequence of UTF-8",
            [frame_with(TEXT, b"\xc3"), closing(1000, "")].concat(),
            1000,
            &[],
        ),
    ]
}

fn reasons() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (name, bytes) in NOT_UTF8 {
        let payload = [&1000u16.to_be_bytes(), *bytes].concat();
        cases.push(invalid_case(format!("{name} in a close reason"), frame(CLOSE, &payload), 1007, &[]));
    }
    let cut = [&1000u16.to_be_bytes()[..], b"\xe2\x82"].concat();
    cases.push(invalid_case("a close reason that ends inside a sequence", frame(CLOSE, &cut), 1007, &[]));
    let both = [&1005u16.to_be_bytes()[..], b"\xff"].concat();
    cases.push(invalid_case("a bad code and a bad reason", frame(CLOSE, &both), 1002, &[]));
    cases
}

/// Returns cases with bytes after a close frame. The server ignores these bytes.
fn after_a_close_frame() -> Vec<Case> {
    let rows: [(&str, Vec<u8>); 10] = [
        ("a text", frame(TEXT, b"late")),
        ("a ping", frame(PING, b"late")),
        ("a close", closing(4000, "late")),
        ("a bad close", frame(CLOSE, b"\x03")),
        ("an unmasked text", b"\x81\x04late".to_vec()),
        ("a continuation", frame(CONTINUATION, b"late")),
        ("a reserved frame", frame_with(0xf3, b"late")),
        ("rubbish", vec![0xff; 100]),
        ("half a frame", frame(TEXT, b"late")[..3].to_vec()),
        ("a request", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
    ];
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(name, late)| {
            let bytes = [frame(TEXT, b"hi"), closing(1001, "bye"), late].concat();
            invalid_case(format!("{name} behind close"), bytes, 1001, &["text hi"])
        })
        .collect();
    let finished = [frame_with(TEXT, b"a"), closing(1000, ""), frame(CONTINUATION, b"b")].concat();
    cases.push(invalid_case("a message's end behind close", finished, 1000, &[]));
    let failed = [b"\x81\x00".to_vec(), closing(1000, ""), frame(TEXT, b"late")].concat();
    cases.push(invalid_case("a close behind an unmasked frame", failed, 1002, &[]));
    cases
}
