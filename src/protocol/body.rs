//! The decoder of request bodies.
//!
//! A body has a known length (RFC 9112 section 6.2) or comes in chunks (section 7.1).
//!
//! The decoder is a state machine. The body and the error do not depend on how the input is split. The decoder consumes
//! only the bytes of the body, and leaves the next request in the input. Its memory grows with bytes received, never
//! with a length announced.
//!
//! Chunks are parsed strictly. If the server and a proxy in front of it disagree about the end of a body, an attacker
//! can smuggle a second request past the proxy.

use std::borrow::Cow;
use std::mem;

use super::http::{BodyLength, HttpError};
use super::token::is_field_byte;

/// The maximum number of bytes in the chunk extensions and trailers of a body.
///
/// The decoder ignores the contents of chunk extensions and trailers. The texts of two variants of [`HttpError`] state
/// this limit as 8 KiB.
const EXTRAS_BYTES_MAX: u32 = 8 * 1024;

/// The maximum number of hexadecimal digits of a chunk size.
const SIZE_DIGITS_MAX: u8 = 16;

/// A decoder for one request body.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    position: Position,
    /// The maximum number of bytes in the remaining chunks of the body together.
    bytes_left: u64,
    /// The maximum number of bytes in the remaining chunk extensions and trailers of the body together.
    extras_left: u32,
}

/// The syntax element of the next byte of a body.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Position {
    /// The content of a body of known length. The field is the number of remaining bytes, at least 1.
    Sized(u64),
    /// The digits of a chunk size.
    Size { size: u64, digits: u8 },
    /// White space after a chunk size, before an extension.
    Padding { size: u64 },
    /// A chunk extension.
    Extension { size: u64 },
    /// The LF after a chunk size and its extensions.
    SizeLf { size: u64 },
    /// The data of a chunk. The field is the number of remaining bytes in the chunk, at least 1.
    Data(u64),
    /// The CR after the data of a chunk.
    DataCr,
    /// The LF after the data of a chunk.
    DataLf,
    /// The start of a trailer line or of the final blank line.
    TrailerStart,
    /// Inside a trailer line.
    Trailer,
    /// The LF that ends a trailer line.
    TrailerLf,
    /// The LF of the blank line.
    EndLf,
    /// The body is complete.
    Done,
}

impl BodyDecoder {
    /// Creates a decoder for a body of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Returns [`HttpError::BodyTooLarge`] if the announced length exceeds `bytes_max`.
    pub fn new(length: BodyLength, bytes_max: usize) -> Result<BodyDecoder, HttpError> {
        let bytes_left = bytes_max as u64;
        let position = match length {
            BodyLength::None | BodyLength::Length(0) => Position::Done,
            BodyLength::Length(bytes) if bytes > bytes_left => return Err(HttpError::BodyTooLarge),
            BodyLength::Length(bytes) => Position::Sized(bytes),
            BodyLength::Chunked => Position::Size { size: 0, digits: 0 },
        };
        Ok(BodyDecoder { position, bytes_left, extras_left: EXTRAS_BYTES_MAX })
    }

    /// Moves content of the body from `input` to the end of `out`.
    ///
    /// If `out` is empty and the content is one slice of `input`, `out` borrows this slice. Any other content is
    /// copied. Returns `true` if the body is complete. The remaining `input` then follows the body.
    ///
    /// # Errors
    /// After an error, the end of the body is unknown. The caller must respond, close the connection, and drop the
    /// decoder and the remaining `input`.
    pub fn decode<'a>(&mut self, input: &mut &'a mut [u8], out: &mut Cow<'a, [u8]>) -> Result<bool, HttpError> {
        loop {
            match self.position {
                Position::Done => return Ok(true),
                Position::Sized(left) => match take(left, input, out)? {
                    0 => self.position = Position::Done,
                    left => {
                        self.position = Position::Sized(left);
                        return Ok(false);
                    }
                },
                Position::Data(left) => match take(left, input, out)? {
                    0 => self.position = Position::DataCr,
                    left => {
                        self.position = Position::Data(left);
                        return Ok(false);
                    }
                },
                _ => {
                    let Some(byte) = input.split_off_first_mut() else {
                        return Ok(false);
                    };
                    self.position = self.step(*byte)?;
                }
            }
        }
    }

    /// Returns the position after `byte`, which is not part of the content of the body.
    fn step(&mut self, byte: u8) -> Result<Position, HttpError> {
        use Position::*;
        match (self.position, byte) {
            (Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(HttpError::ChunkSize);
                }
                Ok(Size { size: size << 4 | hex(byte), digits: digits + 1 })
            }
            (Size { digits: 0, .. }, _) => Err(HttpError::ChunkSize),
            (Size { size, .. }, b'\r') => Ok(SizeLf { size }),
            (Size { size, .. } | Padding { size }, b';') => {
                self.count_extra(HttpError::ChunkExtensionsTooLarge)?;
                Ok(Extension { size })
            }
            (Size { size, .. } | Padding { size }, b' ' | b'\t') => {
                self.count_extra(HttpError::ChunkExtensionsTooLarge)?;
                Ok(Padding { size })
            }
            (Size { .. }, _) => Err(HttpError::ChunkSize),
            (Extension { size }, b'\r') => Ok(SizeLf { size }),
            (Extension { size }, _) if is_field_byte(byte) => {
                self.count_extra(HttpError::ChunkExtensionsTooLarge)?;
                Ok(Extension { size })
            }
            (SizeLf { size: 0 }, b'\n') => Ok(TrailerStart),
            (SizeLf { size }, b'\n') => {
                self.bytes_left = self.bytes_left.checked_sub(size).ok_or(HttpError::BodyTooLarge)?;
                Ok(Data(size))
            }
            (DataCr, b'\r') => Ok(DataLf),
            (DataLf, b'\n') => Ok(Size { size: 0, digits: 0 }),
            (TrailerStart, b'\r') => Ok(EndLf),
            (EndLf, b'\n') => Ok(Done),
            (Trailer, b'\r') => Ok(TrailerLf),
            (TrailerLf, b'\n') => Ok(TrailerStart),
            (TrailerStart | Trailer, _) if is_field_byte(byte) => {
                self.count_extra(HttpError::TrailersTooLarge)?;
                Ok(Trailer)
            }
            _ => Err(HttpError::ChunkFraming),
        }
    }

    fn count_extra(&mut self, too_many: HttpError) -> Result<(), HttpError> {
        self.extras_left = self.extras_left.checked_sub(1).ok_or(too_many)?;
        Ok(())
    }
}

/// Moves up to `left` bytes from `input` to `out`.
///
/// Returns `left` minus the number of moved bytes.
fn take<'a>(left: u64, input: &mut &'a mut [u8], out: &mut Cow<'a, [u8]>) -> Result<u64, HttpError> {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    let content = take_front(input, count);
    if out.is_empty() {
        *out = Cow::Borrowed(content);
    } else {
        let mut bytes = into_owned(mem::take(out))?;
        bytes.try_reserve(count).map_err(|_| HttpError::OutOfMemory)?;
        bytes.extend_from_slice(content);
        *out = Cow::Owned(bytes);
    }
    Ok(left - count as u64)
}

/// Removes the first `count` bytes from `input` and returns them.
///
/// If `input` is shorter, it stays unchanged, and the result is empty.
pub fn take_front<'a>(input: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
    input.split_off_mut(..count).unwrap_or_default()
}

/// Converts the content to a vector. The bytes are copied only if `content` is borrowed.
///
/// # Errors
/// Returns [`HttpError::OutOfMemory`] if memory for the copy could not be allocated.
pub fn into_owned(content: Cow<'_, [u8]>) -> Result<Vec<u8>, HttpError> {
    match content {
        Cow::Owned(bytes) => Ok(bytes),
        Cow::Borrowed(content) => {
            let mut bytes = Vec::new();
            bytes.try_reserve(content.len()).map_err(|_| HttpError::OutOfMemory)?;
            bytes.extend_from_slice(content);
            Ok(bytes)
        }
    }
}

/// Returns the value of a hexadecimal digit.
fn hex(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

/// Runs the fuzz target `body`.
///
/// The result must not depend on how the input is split, and the body must not be longer than its limit. The first four
/// bytes of `data` select the length of the body, its limit, and the length of the pieces of the input. The other bytes
/// are the input.
#[cfg(any(test, feature = "unstable"))]
pub fn fuzz_body(data: &[u8]) {
    let [mode, length, bytes_max, piece, input @ ..] = data else {
        return;
    };
    let (length, bytes_max) = match mode % 3 {
        0 => (BodyLength::Length(u64::from(*length)), usize::from(*bytes_max)),
        1 => (BodyLength::Chunked, usize::from(*bytes_max)),
        _ => (BodyLength::Chunked, usize::MAX),
    };
    let Ok(decoder) = BodyDecoder::new(length, bytes_max) else {
        assert!(matches!(length, BodyLength::Length(bytes) if bytes > bytes_max as u64));
        return;
    };
    let whole = decode_in_pieces(decoder.clone(), input, input.len().max(1));
    let cut = decode_in_pieces(decoder.clone(), input, usize::from(*piece).max(1));
    let bytewise = decode_in_pieces(decoder, input, 1);
    assert_eq!(whole, cut);
    assert_eq!(whole, bytewise);
    let (outcome, body, taken) = whole;
    assert!(body.len() <= bytes_max && body.len() <= taken && taken <= input.len());
    if let (Ok(true), BodyLength::Length(bytes)) = (outcome, length) {
        assert_eq!((body.as_slice(), taken as u64), (&input[..taken], bytes));
    }
}

/// Decodes `input` in pieces until the body ends or fails.
///
/// Returns the result, the body and the number of bytes consumed.
#[cfg(any(test, feature = "unstable"))]
fn decode_in_pieces(mut decoder: BodyDecoder, input: &[u8], piece: usize) -> (Result<bool, HttpError>, Vec<u8>, usize) {
    let mut input = input.to_vec();
    let (mut body, mut taken) = (Cow::default(), 0);
    let mut outcome = decoder.decode(&mut &mut [][..], &mut body);
    for piece in input.chunks_mut(piece) {
        if outcome != Ok(false) {
            break;
        }
        let offered = piece.len();
        let mut rest = piece;
        outcome = decoder.decode(&mut rest, &mut body);
        taken += offered - rest.len();
        assert!(outcome != Ok(false) || rest.is_empty(), "an unfinished body must consume all input");
    }
    (outcome, body.into_owned(), taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use HttpError::*;

    /// The expected result of decoding a body.
    ///
    /// The fields of `Body` are the body and the input after it. The fields of `Bad` are the status and the error.
    /// `Cut` means that the input ends before the end of the body.
    enum Want {
        Body(&'static str, &'static str),
        Bad(u16, HttpError),
        Cut,
    }
    use Want::{Bad, Body, Cut};

    /// Chunked bodies, with the results of a decoder that has a limit of 20 bytes.
    const CHUNKED: &[(&str, Want)] = &[
        ("0\r\n\r\n", Body("", "")),
        ("5\r\nhello\r\n0\r\n\r\n", Body("hello", "")),
        ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", Body("hello world", "")),
        ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", Body("01234567890123456789", "")),
        ("0005\r\nhello\r\n0000\r\n\r\n", Body("hello", "")),
        ("5\r\nhel\r\n\r\n0\r\n\r\n", Body("hel\r\n", "")),
        ("0\r\n\r\nGET / HTTP/1.1\r\n", Body("", "GET / HTTP/1.1\r\n")),
        ("1\r\nx\r\n0\r\n\r\n\r\n", Body("x", "\r\n")),
        // Extensions.
        ("5;a=b\r\nhello\r\n0;last\r\n\r\n", Body("hello", "")),
        ("5 ; a=\"b;c\"\r\nhello\r\n0\t;\r\n\r\n", Body("hello", "")),
        // Trailers.
        ("0\r\nA: b\r\nC: d\r\n\r\nrest", Body("", "rest")),
        ("0\r\nContent-Length: 5\r\n\r\nrest", Body("", "rest")),
        // Sizes.
        ("\r\n", Bad(400, ChunkSize)),
        ("x\r\n", Bad(400, ChunkSize)),
        ("-1\r\n", Bad(400, ChunkSize)),
        ("+1\r\n", Bad(400, ChunkSize)),
        (" 1\r\n", Bad(400, ChunkSize)),
        (";\r\n", Bad(400, ChunkSize)),
        ("0x1\r\n", Bad(400, ChunkSize)),
        ("1_0\r\n", Bad(400, ChunkSize)),
        ("5g\r\n", Bad(400, ChunkSize)),
        ("00000000000000005\r\n", Bad(400, ChunkSize)),
        ("10000000000000005\r\nhello\r\n", Bad(400, ChunkSize)),
        ("ffffffffffffffff\r\n", Bad(413, BodyTooLarge)),
        ("8000000000000000\r\n", Bad(413, BodyTooLarge)),
        ("15\r\n", Bad(413, BodyTooLarge)),
        ("5\r\nhello\r\n10\r\n", Bad(413, BodyTooLarge)),
        ("5\r\nhello\r\nffffffffffffffff\r\n", Bad(413, BodyTooLarge)),
        // Chunks with wrong line ends, or with wrong bytes between the size and the data.
        ("5\nhello\r\n0\r\n\r\n", Bad(400, ChunkSize)),
        ("5\rhello", Bad(400, ChunkFraming)),
        ("5 \r\nhello\r\n", Bad(400, ChunkFraming)),
        ("5 x\r\nhello\r\n", Bad(400, ChunkFraming)),
        ("5;a\nhello\r\n", Bad(400, ChunkFraming)),
        ("5;a\rb\r\nhello\r\n", Bad(400, ChunkFraming)),
        ("5;a\0\r\nhello\r\n", Bad(400, ChunkFraming)),
        ("5\r\nhelloX\r\n", Bad(400, ChunkFraming)),
        ("5\r\nhello\n0\r\n\r\n", Bad(400, ChunkFraming)),
        ("5\r\nhello\r0\r\n\r\n", Bad(400, ChunkFraming)),
        ("5\r\nhello0\r\n\r\n", Bad(400, ChunkFraming)),
        ("0\r\n\n", Bad(400, ChunkFraming)),
        ("0\r\n\rX", Bad(400, ChunkFraming)),
        ("0\r\nA: b\n\r\n", Bad(400, ChunkFraming)),
        ("0\r\nA: b\rC\r\n", Bad(400, ChunkFraming)),
        ("0\r\nA: \0\r\n", Bad(400, ChunkFraming)),
        // Incomplete bodies.
        ("", Cut),
        ("5", Cut),
        ("5\r\nhell", Cut),
        ("5\r\nhello\r\n", Cut),
        ("0\r\n", Cut),
        ("0\r\n\r", Cut),
        ("0\r\nA: b\r\n", Cut),
    ];

    fn chunked(bytes_max: usize) -> BodyDecoder {
        BodyDecoder::new(BodyLength::Chunked, bytes_max).expect("a body of unknown length must be allowed")
    }

    #[test]
    fn a_chunked_body_has_the_same_result_in_pieces_of_any_size() {
        for (input, want) in CHUNKED {
            let input = input.as_bytes();
            for piece in 1..=input.len().max(1) {
                let (outcome, body, taken) = decode_in_pieces(chunked(20), input, piece);
                match *want {
                    Body(expected, rest) => {
                        assert_eq!(outcome, Ok(true), "{input:?}");
                        assert_eq!(body, expected.as_bytes());
                        assert_eq!(&input[taken..], rest.as_bytes());
                    }
                    Bad(status, error) => {
                        assert_eq!(outcome, Err(error), "{}", input.escape_ascii());
                        assert_eq!(error.status(), status);
                    }
                    Cut => assert_eq!((outcome, taken), (Ok(false), input.len())),
                }
            }
        }
    }

    #[test]
    fn a_chunked_body_has_the_same_result_wherever_it_is_split() {
        for (whole, _) in CHUNKED {
            let whole = whole.as_bytes();
            let (outcome, body, taken) = decode_in_pieces(chunked(20), whole, whole.len().max(1));
            for at in 0..=whole.len() {
                let (mut decoder, mut out) = (chunked(20), Cow::default());
                let mut input = whole.to_vec();
                let (mut first, mut second) = input.split_at_mut(at);
                let mut split = decoder.decode(&mut first, &mut out);
                if split == Ok(false) {
                    split = decoder.decode(&mut second, &mut out);
                }
                assert_eq!(
                    (split, &*out),
                    (outcome, &*body),
                    "{} must have the same result if it is split at {at}",
                    whole.escape_ascii()
                );
                if outcome == Ok(true) {
                    assert_eq!(first.len() + second.len(), whole.len() - taken);
                }
            }
        }
    }

    #[test]
    fn a_body_of_known_length_ends_with_its_last_byte() {
        for (length, input, want, rest) in [
            (BodyLength::None, "next", Ok(true), "next"),
            (BodyLength::Length(0), "next", Ok(true), "next"),
            (BodyLength::Length(5), "hellonext", Ok(true), "next"),
            (BodyLength::Length(5), "hello", Ok(true), ""),
            (BodyLength::Length(5), "hell", Ok(false), ""),
            (BodyLength::Length(5), "", Ok(false), ""),
        ] {
            let decoder = BodyDecoder::new(length, 5).expect("the length must be within the limit");
            for piece in 1..=input.len().max(1) {
                let (outcome, body, taken) = decode_in_pieces(decoder.clone(), input.as_bytes(), piece);
                assert_eq!((outcome, &input[taken..]), (want, rest));
                assert_eq!(body, &input.as_bytes()[..taken]);
            }
        }
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_before_the_body() {
        for (length, bytes_max) in [(6, 5), (1, 0), (u64::MAX, usize::MAX - 1)] {
            let refused = BodyDecoder::new(BodyLength::Length(length), bytes_max).err();
            assert_eq!(refused, Some(BodyTooLarge));
        }
        assert_eq!(BodyTooLarge.status(), 413);
    }

    #[test]
    fn an_announced_length_allocates_no_memory() {
        let (mut one, mut two, mut chunk) = (*b"x", *b"y", *b"7fffffff\r\nz");
        let mut out = Cow::default();
        let mut sized = BodyDecoder::new(BodyLength::Length(1 << 40), usize::MAX).expect("the length must be allowed");
        assert_eq!(sized.decode(&mut &mut one[..], &mut out), Ok(false));
        assert_eq!(sized.decode(&mut &mut two[..], &mut out), Ok(false));
        assert_eq!(chunked(usize::MAX).decode(&mut &mut chunk[..], &mut out), Ok(false));
        assert!(matches!(out, Cow::Owned(out) if out == b"xyz" && out.capacity() < 64));
    }

    #[test]
    fn a_body_in_one_slice_of_the_input_is_borrowed() {
        let sized = BodyDecoder::new(BodyLength::Length(5), 5).expect("the length must be within the limit");
        for (mut decoder, input, is_lent) in [
            (sized, "hellonext", true),
            (chunked(20), "5;a\r\nhello\r\n0\r\n\r\nnext", true),
            (chunked(20), "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nnext", false),
        ] {
            let mut input = input.as_bytes().to_vec();
            let whole = input.as_ptr_range();
            let (mut rest, mut out) = (&mut input[..], Cow::default());
            assert_eq!(decoder.decode(&mut rest, &mut out), Ok(true));
            assert_eq!((&*rest, &*out), (&b"next"[..], &b"hello"[..]));
            assert_eq!(matches!(out, Cow::Borrowed(out) if whole.contains(&out.as_ptr())), is_lent);
        }
    }

    #[test]
    fn chunk_extensions_and_trailers_have_one_limit_together() {
        let extras = EXTRAS_BYTES_MAX as usize;
        let extension = |bytes: usize| format!("1;{}\r\nx\r\n", "e".repeat(bytes - 1));
        let trailer = |bytes: usize| format!("0\r\n{}\r\n\r\n", "t".repeat(bytes));
        for (input, want) in [
            (extension(extras) + "0\r\n\r\n", Ok(true)),
            (extension(extras + 1), Err(ChunkExtensionsTooLarge)),
            (extension(100).repeat(extras / 100 + 1), Err(ChunkExtensionsTooLarge)),
            (trailer(extras), Ok(true)),
            (trailer(extras + 1), Err(TrailersTooLarge)),
            (extension(extras - 9) + &trailer(9), Ok(true)),
            (extension(extras - 9) + &trailer(10), Err(TrailersTooLarge)),
            (format!("0{}", " ".repeat(extras + 1)), Err(ChunkExtensionsTooLarge)),
        ] {
            let (outcome, ..) = decode_in_pieces(chunked(1000), input.as_bytes(), 1000);
            assert_eq!(outcome, want);
        }
        assert_eq!((ChunkExtensionsTooLarge.status(), TrailersTooLarge.status()), (413, 431));
        let limit = format!("exceed {} KiB", extras / 1024);
        assert!([ChunkExtensionsTooLarge, TrailersTooLarge].iter().all(|error| error.to_string().ends_with(&limit)));
    }

    #[test]
    fn fuzz_replay() {
        for (input, _) in CHUNKED {
            for at in 0..input.len() {
                for byte in [0, b'\r', b'\n', b'0', b'f', b';', b' ', 0xff] {
                    for piece in [2, 3, 7] {
                        let mut data = vec![byte % 3, byte, 20, piece];
                        data.extend_from_slice(input.as_bytes());
                        data[4 + at] = byte;
                        fuzz_body(&data);
                    }
                }
            }
        }
    }
}
