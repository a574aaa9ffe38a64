//! Tests of the deflater and the inflater: comparisons with miniz, and streams that are invalid or inflate to too many
//! bytes.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use proptest::prelude::*;

use super::*;

/// Deflates a payload with miniz, and removes `TAIL` from the end of the result.
fn miniz_deflate(payload: &[u8], level: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() * 2 + 100);
    let mut stream = Compress::new(Compression::new(level), false);
    stream.compress_vec(payload, &mut out, FlushCompress::Sync).expect("miniz must deflate the payload");
    assert_eq!(stream.total_in(), payload.len() as u64);
    out.strip_suffix(&TAIL).expect("the output must end with TAIL").to_vec()
}

/// Inflates a deflated payload with miniz.
fn miniz_inflate(payload: &[u8], bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 10);
    let whole = [payload, &TAIL].concat();
    Decompress::new(false).decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("the stream is valid");
    out
}

/// Inflates a payload in parts of `part` bytes.
fn inflate(payload: &[u8], part: usize, bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    let (mut inflater, mut out) = (Inflater::new(), Vec::new());
    inflater.begin();
    for part in payload.chunks(part) {
        inflater.push(part, &mut out, bytes_max)?;
        assert!(
            out.len() <= bytes_max && out.capacity() <= bytes_max,
            "the capacity {} must be at most {bytes_max}",
            out.capacity()
        );
    }
    inflater.finish().map(|()| out)
}

/// Returns the payload of a deflated frame.
fn payload_of(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0] & 0xf0, 0xc0, "FIN and RSV1 must be set");
    crate::protocol::frame::server_payload(frame)
}

#[test]
fn the_examples_of_rfc_7692_are_inflated() {
    // Section 7.2.3.
    let examples: [&[u8]; 5] = [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        // The deflated message is a stored block.
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        // The deflated message is a final block and the header of a stored block.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // The deflated message has two blocks.
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        // The deflated message is only a final block, as some clients send it.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
    ];
    for payload in examples {
        for part in 1..=payload.len() {
            assert_eq!(
                inflate(payload, part, 5).as_deref(),
                Ok(&b"Hello"[..]),
                "{payload:x?} must be inflated in parts of {part} bytes"
            );
            assert_eq!(inflate(payload, part, 4), Err(InflateError::TooBig), "{payload:x?}");
        }
    }
}

#[test]
fn each_form_of_an_empty_message_is_inflated() {
    for payload in
        [&[][..], &[0x00], &[0x02, 0x00], &[0x03, 0x00], &[0x03, 0x00, 0x00], &[0x00, 0x00, 0x00, 0xff, 0xff, 0x00]]
    {
        assert_eq!(inflate(payload, 1, 10), Ok(Vec::new()), "{payload:x?}");
    }
}

#[test]
fn incomplete_and_invalid_deflated_payloads_are_refused() {
    let whole = miniz_deflate(&b"a longer text, a longer text, and even a longer one: 0123456789".repeat(20), 6);
    for cut in 1..whole.len() {
        assert_eq!(
            inflate(&whole[..cut], cut, 10_000),
            Err(InflateError::Invalid),
            "a stream that is cut at {cut} must be refused"
        );
    }
    let stored = [&[0x00, 0x00, 0x04, 0xff, 0xfb][..], &[7; 0x400], &[0x00]].concat();
    assert_eq!(inflate(&stored, 100, 0x400), Ok(vec![7; 0x400]));
    // The first byte of `stored` alone is a valid empty message, so the shortest tested part has two bytes.
    for cut in 2..stored.len() {
        assert_eq!(
            inflate(&stored[..cut], cut, 0x400),
            Err(InflateError::Invalid),
            "a stream that is cut at {cut} must be refused"
        );
    }
    for payload in [
        // Payloads with a reserved block type.
        &[0x06][..],
        &[0xff],
        // A stored block whose length field does not match the field with the complement of the length.
        &[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x00],
        // A back-reference to bytes before the start of the message.
        &[0x4b, 0x04, 0x13, 0x00, 0x00],
        // Payloads that end with all bytes of `TAIL`, or with some of these bytes.
        &[0x00, 0x00, 0x00, 0xff, 0xff],
        &[0x00, 0x00, 0x00],
        // Payloads with invalid bytes after a complete block or after the final block.
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xaa],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xaa],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x01],
    ] {
        assert_eq!(inflate(payload, 1, 1000), Err(InflateError::Invalid), "{payload:x?}");
    }
}

#[test]
fn a_payload_that_inflates_to_more_than_the_limit_is_refused() {
    let zeros = miniz_deflate(&vec![0; 16 << 20], 9);
    assert!(zeros.len() < 20_000);
    let bytes_max = 1 << 20;
    assert_eq!(inflate(&zeros, zeros.len(), bytes_max), Err(InflateError::TooBig));
    let exact = miniz_deflate(&vec![0; bytes_max], 9);
    assert_eq!(inflate(&exact, exact.len(), bytes_max), Ok(vec![0; bytes_max]));
    assert_eq!(inflate(&exact, exact.len(), bytes_max - 1), Err(InflateError::TooBig));
}

#[test]
fn an_inflater_forgets_the_earlier_message() {
    let mut inflater = Inflater::new();
    for payload in [&[0xf2, 0x48][..], &[0xff], &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]] {
        inflater.begin();
        let _ = inflater.push(payload, &mut Vec::new(), 100);
    }
    // This payload has a back-reference to the text of the earlier message.
    inflater.begin();
    assert_eq!(inflater.push(&[0x4b, 0x04, 0x13, 0x00, 0x00], &mut Vec::new(), 100), Err(InflateError::Invalid));
    let mut out = Vec::new();
    inflater.begin();
    inflater.push(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], &mut out, 100).expect("the stream is valid");
    assert_eq!((inflater.finish(), &out[..]), (Ok(()), &b"Hello"[..]));
}

#[test]
fn payloads_that_deflating_would_not_make_shorter_are_not_deflated() {
    let mut deflater = Deflater::default();
    let mut noise = vec![0_u8; 5000];
    let mut state = 1_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    for payload in [&b""[..], b"a", b"abc", &noise] {
        assert_eq!(
            deflater.encode(Opcode::Binary, payload),
            None,
            "a payload of {} bytes must not be deflated",
            payload.len()
        );
    }
    assert_eq!(deflater.encode(Opcode::Text, &vec![b'a'; DEFLATED_BYTES_MAX + 1]), None);
    let longest = vec![b'a'; DEFLATED_BYTES_MAX];
    let frame = deflater.encode(Opcode::Text, &longest).expect("the deflated frame must be shorter");
    assert_eq!(miniz_inflate(payload_of(&frame), longest.len()), longest);
}

#[test]
fn no_deflated_payload_is_longer_than_deflated_bytes_max() {
    let mut noise = vec![0_u8; 100_000];
    let mut state = 7_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    for bytes in [0, 1, 10, 100, 1_000, 20_000, 100_000] {
        for level in [0, 1, 6, 9] {
            let deflated = miniz_deflate(&noise[..bytes], level);
            assert!(
                deflated.len() as u64 <= deflated_bytes_max(bytes as u64),
                "{bytes} bytes deflated at level {level} must have at most `deflated_bytes_max` bytes"
            );
        }
    }
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3000),
        prop::collection::vec(prop::sample::select(b"abc \n{}\":,0".to_vec()), 0..40_000),
        (any::<u8>(), 0..200_000_usize).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn miniz_inflates_the_frames_of_the_deflater(payloads in prop::collection::vec(payload(), 1..4)) {
        let mut deflater = Deflater::default();
        for payload in payloads {
            if let Some(frame) = deflater.encode(Opcode::Text, &payload) {
                let deflated = payload_of(&frame);
                prop_assert!(deflated.len() < payload.len());
                prop_assert_eq!(miniz_inflate(deflated, payload.len()), payload);
            }
        }
    }

    #[test]
    fn the_inflater_inflates_payloads_of_miniz(payload in payload(), level in 0..10_u32, part in 1..5000_usize) {
        let deflated = miniz_deflate(&payload, level);
        prop_assert_eq!(inflate(&deflated, part, payload.len()), Ok(payload.clone()));
        if let Some(less) = payload.len().checked_sub(1) {
            prop_assert_eq!(inflate(&deflated, part, less), Err(InflateError::TooBig));
        }
    }

    #[test]
    fn the_inflated_message_does_not_depend_on_the_division_into_parts(
        mut bytes in prop::collection::vec(any::<u8>(), 1..300),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        is_random in any::<bool>(),
        part in 1..50_usize,
    ) {
        if !is_random {
            bytes = miniz_deflate(&bytes.repeat(3), 6);
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        prop_assert_eq!(inflate(&bytes, part, 4000), inflate(&bytes, bytes.len(), 4000));
    }

    #[test]
    fn the_inflater_and_flate2_have_the_same_result(
        head in any::<[u8; 2]>(),
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        level in 0..10_u32,
        is_random in any::<bool>(),
    ) {
        if !is_random {
            bytes = miniz_deflate(&bytes.repeat(3), level);
            for (at, byte) in flips.iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
        }
        fuzz_inflate(&[&head[..], &bytes].concat());
    }
}
