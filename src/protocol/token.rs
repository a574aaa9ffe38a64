//! Lexical elements of HTTP: tokens, field values, comma-separated lists.
//!
//! See RFC 9110 sections 5.5 and 5.6. The parser and the encoder of heads share these functions, so that both have the
//! same definition of a token. This module knows no header by name.

/// Returns whether a token may contain `byte` (RFC 9110 section 5.6.2, `tchar`).
///
/// Methods, field names and subprotocols are tokens.
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
            | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
            | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    )
}

/// The results of [`is_token_byte`] for all bytes.
const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_token_byte(byte as u8);
        byte += 1;
    }
    table
};

/// Returns whether `text` is a token: one token byte or more.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| TOKEN_BYTES[usize::from(*byte)])
}

/// Returns whether `value` may be sent as a field value.
///
/// RFC 9110 section 5.5 allows visible ASCII characters, space, tab and the bytes from 0x80 to 0xff. A value with CR or
/// LF could add header lines to the response.
pub fn is_field_value(value: &[u8]) -> bool {
    value.iter().copied().all(is_field_byte)
}

/// Returns whether a field value, a chunk extension or a trailer may contain `byte`.
///
/// Control characters other than tab are refused because parsers disagree about them, above all about a bare CR or LF.
pub const fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Splits a comma-separated list and trims white space around elements.
///
/// See RFC 9110 section 5.6.1. Empty elements are included. Most callers skip empty elements, as the section requires.
/// The parser of `Transfer-Encoding` does not skip empty elements. The list must consist of tokens, because a comma in
/// a quoted string splits the list, too.
pub fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// Splits a text at the first `byte`, which is in neither part.
///
/// `byte` must be ASCII. For short texts such as those in a head, this function takes a quarter of the time of
/// [`str::split_once`].
pub fn split_once(text: &str, byte: u8) -> Option<(&str, &str)> {
    debug_assert!(byte.is_ascii());
    let at = memchr::memchr(byte, text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_at_least_one_byte_and_no_separator() {
        assert!(is_token(b"GET"));
        assert!(is_token(b"!#$%&'*+-.^_`|~09azAZ"));
        for bad in [&b""[..], b"a b", b"a:b", b"a/b", b"\x7f", b"\xc3\xa9", b"a\0", b"(", b"\""] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_field_value_has_no_control_character_except_tab() {
        for good in [&b""[..], b"a b\tc", b"~!", b"caf\xc3\xa9"] {
            assert!(is_field_value(good), "{good:?}");
        }
        for bad in [&b"a\r\nb"[..], b"\n", b"\r", b"\0", b"\x1b[0m", b"\x7f"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_text_is_split_at_the_first_byte() {
        for text in ["", "a", "=", "a=", "=b", "a=b=c", "\u{e9}=\u{20ac}=", "\u{20ac}"] {
            assert_eq!(split_once(text, b'='), text.split_once('='), "{text}");
        }
    }

    #[test]
    fn a_list_is_split_at_commas_and_trimmed() {
        let list: Vec<&[u8]> = list_elements(b" a ,b,\t, c d ").collect();
        assert_eq!(list, [&b"a"[..], b"b", b"", b"c d"]);
        assert_eq!(list_elements(b"").count(), 1);
    }
}
