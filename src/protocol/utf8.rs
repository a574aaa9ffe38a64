//! UTF-8 validation of text, complete or in parts (RFC 6455 section 8.1).
//!
//! For a text in parts, the error is reported at the first invalid byte.

use ascii::AsciiStr;
use simdutf8::{basic, compat};

/// A text of at least this number of bytes is validated by simdutf8 without an earlier check for ASCII.
///
/// A shorter text is first checked for ASCII, word by word. For such a text, simdutf8 calls the standard library, which
/// reads byte by byte up to a word boundary.
const SHORT_BYTES_MAX: usize = 64;

/// The error of a text that is not UTF-8.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct NotUtf8;

/// Validates a complete text.
///
/// Most texts are short ASCII texts, which are checked word by word.
#[inline]
pub fn validate(bytes: &[u8]) -> Result<&str, NotUtf8> {
    if bytes.len() < SHORT_BYTES_MAX
        && let Ok(ascii) = AsciiStr::from_ascii(bytes)
    {
        return Ok(ascii.as_str());
    }
    basic::from_utf8(bytes).map_err(|_| NotUtf8)
}

/// A validator for a text that arrives in pieces.
///
/// Between two pieces, the stream stores at most the first three bytes of a character.
#[derive(Copy, Clone, Default, Debug)]
pub struct Utf8Stream {
    pending: [u8; 4],
    len: u8,
}

impl Utf8Stream {
    /// Appends the complete characters of `piece` to `text`.
    ///
    /// The bytes of an incomplete character are stored until the next piece.
    ///
    /// # Errors
    /// Returns [`NotUtf8`] as soon as `piece` contains a byte that makes the text invalid.
    pub fn push(&mut self, piece: &[u8], text: &mut String) -> Result<(), NotUtf8> {
        let mut rest = piece;
        while self.len > 0
            && let Some((&byte, remainder)) = rest.split_first()
        {
            rest = remainder;
            self.push_byte(byte, text)?;
        }
        let whole = match compat::from_utf8(rest) {
            Ok(whole) => whole,
            Err(error) if error.error_len().is_some() => return Err(NotUtf8),
            Err(error) => {
                let (whole, cut) = rest.split_at(error.valid_up_to());
                for &byte in cut {
                    self.push_byte(byte, text)?;
                }
                compat::from_utf8(whole).map_err(|_| NotUtf8)?
            }
        };
        // The bytes after `whole` are stored in `pending`, and are not in `text` yet. So `whole` directly follows the
        // text that `text` contains.
        text.push_str(whole);
        Ok(())
    }

    /// Checks that the text does not end inside a character.
    ///
    /// # Errors
    /// Returns [`NotUtf8`] if the text ends inside a character.
    pub fn finish(&self) -> Result<(), NotUtf8> {
        if self.len == 0 { Ok(()) } else { Err(NotUtf8) }
    }

    fn push_byte(&mut self, byte: u8, text: &mut String) -> Result<(), NotUtf8> {
        let at = usize::from(self.len);
        let Some(place) = self.pending.get_mut(at) else { return Err(NotUtf8) };
        *place = byte;
        match std::str::from_utf8(&self.pending[..=at]) {
            Ok(character) => {
                text.push_str(character);
                self.len = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_none() => {
                self.len += 1;
                Ok(())
            }
            Err(_) => Err(NotUtf8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push_all(pieces: &[&[u8]]) -> Result<String, NotUtf8> {
        let mut text = String::new();
        let mut stream = Utf8Stream::default();
        for piece in pieces {
            stream.push(piece, &mut text)?;
        }
        stream.finish()?;
        Ok(text)
    }

    #[test]
    fn validate_agrees_with_the_standard_library() {
        for len in 0..2 * SHORT_BYTES_MAX {
            let ascii = vec![b'x'; len];
            assert_eq!(validate(&ascii).ok(), std::str::from_utf8(&ascii).ok());
            for at in 0..len {
                for odd in [&b"\xff"[..], b"\x80", b"\xc3\xa9", b"\xed\xa0\x80", b"\0"] {
                    let mut bytes = ascii.clone();
                    bytes.splice(at..at + 1, odd.iter().copied());
                    assert_eq!(
                        validate(&bytes).ok(),
                        std::str::from_utf8(&bytes).ok(),
                        "{odd:x?} at byte {at} of {len} must have the same result as in the standard library"
                    );
                }
            }
        }
    }

    #[test]
    fn a_text_is_the_same_wherever_it_is_split() {
        let text = "aé漢🦀 κόσμε \u{10ffff}z";
        let bytes = text.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(
                    push_all(&pieces).as_deref(),
                    Ok(text),
                    "the text must be valid if it is split at {first} and {second}"
                );
            }
        }
    }

    #[test]
    fn the_error_is_reported_at_the_first_invalid_byte() {
        // Each input has its first invalid byte at the given index.
        let table: [(&[u8], usize); 9] = [
            (b"ab\xff", 2),
            (b"\x80", 0),
            (b"\xc0", 0),
            (b"\xe0\x80", 1),
            (b"\xed\xa0", 1),
            (b"\xf4\x90", 1),
            (b"\xf0\x8f", 1),
            (b"\xf8", 0),
            (b"\xe6\xbc\x41", 2),
        ];
        for (bytes, at) in table {
            for whole in [false, true] {
                let mut text = String::new();
                let mut stream = Utf8Stream::default();
                let pieces: Vec<&[u8]> = if whole { vec![bytes] } else { bytes.chunks(1).collect() };
                let failed_in = pieces.iter().position(|piece| stream.push(piece, &mut text).is_err());
                assert_eq!(failed_in, Some(if whole { 0 } else { at }), "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_invalid() {
        assert_eq!(push_all(&[b"\xf0\x9f", b"\xa6"]), Err(NotUtf8));
    }
}
