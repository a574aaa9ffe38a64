//! The smallest words of HTTP: tokens, field values, comma lists (RFC 9110 section 5.5 and 5.6).
//!
//! Pure predicates over bytes, shared by what reads a head and what writes one, so that both sides of the server mean
//! the same by "token". It knows no header by name.

/// Whether `byte` may stand in a token: a method, a field name, a subprotocol (RFC 9110 section 5.6.2, `tchar`).
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
            | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
            | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    )
}

/// Whether `text` is a token: one token byte or more.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// Whether `value` may be sent as a field value (RFC 9110 section 5.5): visible ASCII, space, tab and the bytes from
/// 0x80 up. CR, LF and NUL would let a value break out of its line.
pub fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// The elements of a comma list without the white space around them (RFC 9110 section 5.6.1). Empty elements are given
/// too: most callers skip them, as that section asks; the one that reads `Transfer-Encoding` does not.
///
/// It splits at every comma and is meant for lists of tokens, which hold no quoted strings.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        assert!(is_token(b"GET"));
        assert!(is_token(b"!#$%&'*+-.^_`|~09azAZ"));
        for bad in [&b""[..], b"a b", b"a:b", b"a/b", b"\x7f", b"\xc3\xa9", b"a\0", b"(", b"\""] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn field_values() {
        for good in [&b""[..], b"a b\tc", b"~!", b"caf\xc3\xa9"] {
            assert!(is_field_value(good), "{good:?}");
        }
        for bad in [&b"a\r\nb"[..], b"\n", b"\r", b"\0", b"\x1b[0m", b"\x7f"] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn lists() {
        let list: Vec<&[u8]> = elements(b" a ,b,\t, c d ").collect();
        assert_eq!(list, [&b"a"[..], b"b", b"", b"c d"]);
        assert_eq!(elements(b"").count(), 1);
    }
}
