//! Cases of deflated messages (RFC 7692), and deflated copies of the cases in the other tables of frames.
//!
//! The frames are for a connection that negotiated permessage-deflate without context takeover.

use flate2::{Compress, Compression, FlushCompress};

use super::data_frames::{FIN, NOT_UTF8, header, invalid_case, is_hopeless, valid_case};
use crate::common::deflated::{RSV1, deflate};
use crate::common::raw::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame, frame_with};
use crate::harness::{Case, MESSAGE_BYTES_MAX, shown};

/// The first byte of a deflated message in one frame.
const WHOLE_TEXT: u8 = FIN | RSV1 | TEXT;
const WHOLE_BINARY: u8 = FIN | RSV1 | BINARY;

/// "Hello", as in RFC 7692 section 7.2.3.1.
const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

/// Returns `cases` with their results under permessage-deflate, deflated copies of `cases`, and the cases of this file.
pub fn with_deflated(mut cases: Vec<Case>) -> Vec<Case> {
    cases.iter_mut().for_each(expect_rsv1);
    let copies: Vec<Case> = cases.iter().filter_map(deflated_copy).collect();
    assert!(copies.len() > 60, "at least 61 cases must have a deflated copy, not {}", copies.len());
    cases.extend(copies);
    cases.extend([valid(), not_deflate(), rsv1(), bombs(), not_utf8()].into_iter().flatten());
    cases
}

/// Sets the expected result of each case of the other tables in which a frame has RSV1. With compression, RSV1 marks a
/// deflated message. As a DEFLATE stream, the payload `no` is invalid, and both `x` and an empty payload are an empty
/// message.
fn expect_rsv1(case: &mut Case) {
    let delivered = match &*case.name {
        "a good frame, one that is reserved, and good ones" => {
            case.code = Some(1007);
            return;
        }
        "reserved bits 100 on a text" => "text",
        "RSV1 on a binary" => "binary",
        _ => return,
    };
    case.bytes.extend(frame(CLOSE, &close_payload(1000, "")));
    (case.code, case.ran) = (Some(1000), vec![delivered.to_owned()]);
}

/// Returns a copy of a case in which all complete messages are deflated. Returns `None` if the case has no complete
/// message.
fn deflated_copy(case: &Case) -> Option<Case> {
    let bytes = deflate_messages(&case.bytes);
    let mut ran = case.ran.clone();
    if case.code == Some(1007) && case.name.ends_with("in two fragments") {
        // A deflated text is validated at its end, after the ping between its fragments.
        ran = vec!["ping p".to_owned()];
    }
    (bytes != case.bytes).then(|| Case {
        name: format!("{} (deflated)", case.name),
        bytes,
        statuses: case.statuses.clone(),
        code: case.code,
        ran,
        is_bare: case.is_bare,
    })
}

/// Deflates the complete messages of a stream, up to the first invalid bytes. Copies the remaining bytes.
fn deflate_messages(stream: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = stream;
    while let Some(message) = take_message(rest) {
        out.extend(message.deflated());
        rest = &rest[message.bytes..];
    }
    out.extend_from_slice(rest);
    out
}

/// The frames of one message, with the control frames between them, or a control frame alone.
struct Frames {
    /// The first byte and payload of each frame.
    frames: Vec<(u8, Vec<u8>)>,
    bytes: usize,
}

/// Takes a message or a control frame from the start of a stream. Returns `None` if the message is incomplete or
/// invalid.
fn take_message(stream: &[u8]) -> Option<Frames> {
    let (mut frames, mut bytes, mut is_inside) = (Vec::new(), 0, false);
    loop {
        let (first, payload, length) = take_frame(&stream[bytes..])?;
        bytes += length;
        let is_final = first & FIN != 0;
        match first & !FIN {
            PING | PONG if is_final && payload.len() <= 125 => {}
            TEXT | BINARY if !is_inside => is_inside = true,
            CONTINUATION if is_inside => {}
            _ => return None,
        }
        frames.push((first, payload));
        if is_final && (first & 0x08 == 0 || !is_inside) {
            return Some(Frames { frames, bytes });
        }
    }
}

/// Takes a masked frame from the start of a stream. Returns its first byte, its payload and its total length. Returns
/// `None` if the frame is incomplete or its length is not in the shortest form.
fn take_frame(stream: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (&[first, second], rest) = stream.split_first_chunk()?;
    let (length, rest) = match second.checked_sub(0x80)? {
        126 => rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
        127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        length => (u64::from(length), rest),
    };
    let (mask, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..usize::try_from(length).ok()?)?;
    let unmasked: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let bytes = stream.len() - rest.len() + payload.len();
    (frame_with(first, &unmasked).len() == bytes).then_some((first, unmasked, bytes))
}

impl Frames {
    /// Returns the message deflated, in the same number of frames.
    fn deflated(&self) -> Vec<u8> {
        let is_data = |first: u8| first & 0x08 == 0;
        let data = self.frames.iter().filter(|(first, _)| is_data(*first));
        let (count, payload) =
            (data.clone().count(), data.flat_map(|(_, payload)| payload.clone()).collect::<Vec<u8>>());
        let deflated = if count > 0 { deflate(&payload) } else { Vec::new() };
        let (mut rest, mut left, mut out) = (&deflated[..], count, Vec::new());
        for (first, payload) in &self.frames {
            if !is_data(*first) {
                out.extend(frame_with(*first, payload));
                continue;
            }
            let (part, behind) = rest.split_at(if left == 1 { rest.len() } else { rest.len() / left });
            let rsv1 = if left == count { RSV1 } else { 0 };
            out.extend(frame_with(first | rsv1, part));
            (rest, left) = (behind, left - 1);
        }
        out
    }
}

/// Returns the frames of a deflated text, cut into `parts`.
fn text_in_parts(parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let last = parts.len() - 1;
    let part = |(at, part): (usize, &&[u8])| {
        let first = if at == 0 { RSV1 | TEXT } else { CONTINUATION };
        frame_with(if at == last { FIN | first } else { first }, part)
    };
    parts.iter().enumerate().map(part).collect()
}

fn valid() -> Vec<Case> {
    let hello = |name: &str, payload: &[u8]| valid_case(name, frame_with(WHOLE_TEXT, payload), &["text Hello"]);
    let empty = |name: &str, payload: &[u8]| valid_case(name, frame_with(WHOLE_BINARY, payload), &["binary"]);
    let mut cases = vec![
        hello("a deflated text", HELLO),
        hello("a stored block", &[0, 5, 0, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0]),
        hello("a final block, and an empty one", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 0]),
        hello("a final block alone", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0]),
        hello("two blocks", &[0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0]),
        hello("a hundred final blocks", &[[3, 0].repeat(100).as_slice(), HELLO].concat()),
        hello("a hundred stored blocks", &[[0, 0, 0, 0xff, 0xff].repeat(100).as_slice(), HELLO].concat()),
        empty("an empty stored block", &[0]),
        empty("an empty block with fixed codes", &[2, 0]),
        empty("an empty final block", &[3, 0]),
        empty("a deflated message without payload", &[]),
        valid_case(
            "deflated, plain and deflated",
            [frame_with(WHOLE_TEXT, HELLO), frame(TEXT, b"plain"), frame_with(WHOLE_TEXT, HELLO)].concat(),
            &["text Hello", "text plain", "text Hello"],
        ),
        valid_case("two deflated fragments", text_in_parts(&[&HELLO[..3], &HELLO[3..]]).concat(), &["text Hello"]),
        valid_case("an empty deflated fragment", text_in_parts(&[b"", HELLO]).concat(), &["text Hello"]),
        valid_case("an empty last fragment", text_in_parts(&[HELLO, b""]).concat(), &["text Hello"]),
        valid_case("deflated fragments without payload", text_in_parts(&[b"", b"", b""]).concat(), &["text"]),
    ];
    let bytes: Vec<&[u8]> = HELLO.chunks(1).collect();
    let pinged: Vec<Vec<u8>> = text_in_parts(&bytes).into_iter().flat_map(|part| [frame(PING, b"p"), part]).collect();
    let pings = ["ping p"; 7];
    cases.push(valid_case("a ping before each byte", pinged.concat(), &[&pings[..], &["text Hello"]].concat()));
    let longest = shown("binary", &vec![0; MESSAGE_BYTES_MAX]);
    let zeros = frame_with(WHOLE_BINARY, &deflate(&vec![0; MESSAGE_BYTES_MAX]));
    cases.push(valid_case("the longest message, of zeros", zeros, &[&longest]));
    let noise = frame_with(WHOLE_BINARY, &deflate(&noise(MESSAGE_BYTES_MAX)));
    cases.push(valid_case("the longest message, of noise", noise, &[&longest]));
    cases
}

/// Returns pseudo-random bytes, which compression does not shorten.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (at >> 3) as u8).collect()
}

/// Returns cases with payloads that are not DEFLATE streams, that are incomplete, or that have bytes after their end.
fn not_deflate() -> Vec<Case> {
    let case = |(name, payload): (&str, &[u8])| {
        let late = [frame(TEXT, b"good"), frame_with(WHOLE_BINARY, payload), frame(TEXT, b"late")].concat();
        invalid_case(name, late, 1007, &["text good"])
    };
    let mut cases: Vec<Case> = [
        ("a reserved block", &[6][..]),
        ("a byte of ones", &[0xff]),
        ("a stored length without its complement", &[0, 5, 0, 0xfa, 0xfe, 0]),
        ("a distance before the message", &[0x4b, 0x04, 0x13, 0, 0]),
        ("an empty stored block with its last four bytes", &[0, 0, 0, 0xff, 0xff]),
        ("an empty stored block with two of its last four bytes", &[0, 0, 0]),
        ("a byte behind the text", &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 0xaa]),
        ("a byte behind a final block", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 0xaa]),
        ("another block begins behind a final block", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 1]),
        ("a zlib header", &[0x78, 0x9c, 0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0]),
    ]
    .map(case)
    .into();
    for cut in 1..HELLO.len() - 1 {
        cases.push(case((&format!("a text that ends after {cut} bytes"), &HELLO[..cut])));
        let parts = text_in_parts(&[&HELLO[..cut], b""]).concat();
        cases.push(invalid_case(format!("fragments that end after {cut} bytes"), parts, 1007, &[]));
    }
    let [first, second] = with_context(&b"a text that the next message refers to".repeat(3));
    let both = [frame_with(WHOLE_BINARY, &first), frame_with(WHOLE_BINARY, &second)].concat();
    let delivered = shown("binary", &b"a text that the next message refers to".repeat(3));
    cases.push(invalid_case("a message that refers to the one before", both, 1007, &[&delivered]));
    cases
}

/// Deflates a message twice, the second time with the context of the first.
fn with_context(message: &[u8]) -> [Vec<u8>; 2] {
    let mut stream = Compress::new(Compression::new(9), false);
    [(); 2].map(|()| {
        let mut out = Vec::with_capacity(message.len() + 100);
        stream.compress_vec(message, &mut out, FlushCompress::Sync).expect("the message can be deflated");
        out.truncate(out.len() - 4);
        out
    })
}

/// Returns cases with RSV1 on frames that must not have it, and with deflated frames that violate other rules.
fn rsv1() -> Vec<Case> {
    let start = || frame_with(RSV1 | TEXT, &HELLO[..3]);
    let case = |(name, frames): (&str, Vec<Vec<u8>>)| invalid_case(name, frames.concat(), 1002, &[]);
    let mut cases: Vec<Case> = [
        ("RSV1 on the last fragment", vec![start(), frame_with(FIN | RSV1, &HELLO[3..])]),
        ("RSV1 on a middle fragment", vec![start(), frame_with(RSV1, &HELLO[3..])]),
        ("RSV1 on a fragment of a plain message", vec![frame_with(TEXT, b"a"), frame_with(FIN | RSV1, b"b")]),
        ("RSV1 on a continuation of nothing", vec![frame_with(FIN | RSV1, b"")]),
        ("RSV1 on a ping between fragments", vec![start(), frame_with(FIN | RSV1 | PING, b"")]),
        ("RSV1 on a pong between fragments", vec![start(), frame_with(FIN | RSV1 | PONG, b"")]),
        ("RSV1 on a close between fragments", vec![start(), frame_with(FIN | RSV1 | CLOSE, b"")]),
        ("a deflated text inside a deflated text", vec![start(), frame_with(WHOLE_TEXT, HELLO)]),
        ("a plain text inside a deflated text", vec![start(), frame(TEXT, b"b")]),
        ("a deflated text inside a plain text", vec![frame_with(TEXT, b"a"), frame_with(WHOLE_TEXT, HELLO)]),
        ("RSV2 and RSV1", vec![frame_with(WHOLE_TEXT | 0x20, HELLO)]),
        ("RSV3 and RSV1", vec![frame_with(WHOLE_TEXT | 0x10, HELLO)]),
        ("a reserved opcode with RSV1", vec![frame_with(FIN | RSV1 | 3, HELLO)]),
        ("an unmasked deflated text", vec![[&[WHOLE_TEXT, 7], HELLO].concat()]),
        ("a deflated length in 16 bits", vec![header(WHOLE_TEXT, 126, &[0, 7])]),
    ]
    .map(case)
    .into();
    let finished = [frame_with(WHOLE_TEXT, HELLO), frame(CONTINUATION, HELLO)].concat();
    cases.push(invalid_case("a continuation of a finished deflated text", finished, 1002, &["text Hello"]));
    let closed = [frame(CLOSE, &close_payload(1000, "")), frame_with(WHOLE_TEXT, &[6])].concat();
    cases.push(invalid_case("an invalid DEFLATE stream behind close", closed, 1000, &[]));
    cases
}

/// Returns cases with messages that inflate to more than the limit, and with headers that announce too long payloads.
fn bombs() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bytes) in [("a byte more than the limit", MESSAGE_BYTES_MAX + 1), ("4 MiB of zeros", 4 << 20)] {
        let payload = deflate(&vec![0; bytes]);
        let frames = [frame(PING, b"p"), frame_with(WHOLE_BINARY, &payload), frame(PING, b"late")].concat();
        cases.push(invalid_case(name, frames, 1009, &["ping p"]));
        let (first, rest) = payload.split_at(payload.len() / 2);
        let parts = [frame_with(RSV1 | BINARY, first), frame(PING, b"p"), frame(CONTINUATION, rest)].concat();
        cases.push(invalid_case(format!("{name}, in fragments"), parts, 1009, &["ping p"]));
    }
    for (name, length) in [("twice the limit", 2 * MESSAGE_BYTES_MAX as u64), ("2^62", 1 << 62)] {
        let whole = header(WHOLE_BINARY, 127, &length.to_be_bytes());
        cases.push(invalid_case(format!("a deflated message of {name}"), whole, 1009, &[]));
        let parts = [frame_with(RSV1 | BINARY, b"x"), header(FIN, 127, &length.to_be_bytes())].concat();
        cases.push(invalid_case(format!("deflated fragments of {name}"), parts, 1009, &[]));
    }
    cases
}

/// Returns cases with texts that are not UTF-8 after inflation.
fn not_utf8() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bytes) in NOT_UTF8 {
        let text = [b"a text with ", *bytes].concat();
        assert!(is_hopeless(&text), "{name}");
        let frames = [frame_with(WHOLE_TEXT, &deflate(&text)), frame(PING, b"late")].concat();
        cases.push(invalid_case(format!("a deflated text with {name}"), frames, 1007, &[]));
        let binary = frame_with(WHOLE_BINARY, &deflate(bytes));
        cases.push(valid_case(format!("a deflated binary with {name}"), binary, &[&shown("binary", bytes)]));
    }
    let cut = frame_with(WHOLE_TEXT, &deflate(b"ok \xf0\x9f\x98"));
    cases.push(invalid_case("a deflated text that ends inside a sequence", cut, 1007, &[]));
    cases
}
