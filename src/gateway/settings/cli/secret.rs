//! Parses secrets, and removes the characters that editors and environment files add.

use std::fmt;
use std::str::FromStr;

/// The text that `fdpush config` prints in place of a secret. This text is not a valid secret.
pub const MASK: &str = "***";

/// A secret text, which appears in no log, no error and no debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Secret, String> {
        match bare(text) {
            "" => Err("a secret must not be empty".to_owned()),
            MASK => Err(format!("{MASK} is the mask that `fdpush config` prints: give the secret itself")),
            secret if secret.contains("-----BEGIN") => {
                Err("a PEM key is not a secret: give a public key as --jwt-key-file".to_owned())
            }
            secret if has_variable_name(secret) => Err(WITH_NAME.to_owned()),
            secret if secret.contains(char::is_control) => {
                Err("a secret must be one line of text without control characters".to_owned())
            }
            secret => Ok(Secret(secret.to_owned())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Secret {
    /// Returns the secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Returns the secret that a flag, a variable or a file contains.
///
/// Removes a byte order mark, one final line end and one pair of quotes. If quotes at both ends belong to the secret,
/// the text needs a second pair of quotes.
pub fn bare(text: &str) -> &str {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    quoted(text).unwrap_or(text)
}

/// The error of a secret for which [`has_variable_name`] returns `true`.
pub const WITH_NAME: &str = "a secret must not begin with the name of its variable, FDPUSH_…=: give the value alone";

/// Returns whether a text is a whole line of an environment file, such as `FDPUSH_API_KEY=…`, and not only the value.
pub fn has_variable_name(text: &str) -> bool {
    let line = text.strip_prefix("export ").unwrap_or(text);
    let name = line.strip_prefix("FDPUSH_").and_then(|rest| rest.split_once('=')).map(|(name, _)| name);
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
}

/// Returns the text inside a pair of quotes, or `None` if the text is not in quotes.
pub fn quoted(text: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_in_debug_output_or_errors() {
        let secret: Secret = "open sesame".parse().expect("the secret is valid");
        assert_eq!(format!("{secret:?} {:?}", vec![secret.clone()]), "*** [***]");
        assert_eq!(secret.expose(), "open sesame");
        let named = ["FDPUSH_API_KEY=abc", "\u{feff}export FDPUSH_JWT_SECRET=abc\r\n", "'FDPUSH_X='"];
        for bad in named {
            assert_eq!(bad.parse::<Secret>(), Err(WITH_NAME.to_owned()), "{bad:?}");
        }
        for good in ["FDPUSH_API_KEY", "fdpush_key=abc", "a=FDPUSH_API_KEY=b", "FDPUSH_key=", "="] {
            assert!(good.parse::<Secret>().is_ok(), "{good:?}");
        }
        for bad in ["", "\n", "\u{feff}", "\"\"", MASK, "'***'", "a\nb", "a\r\r\n", "a\n\n", "a\0b", "a\tb"] {
            let why = bad.parse::<Secret>().expect_err(bad);
            assert!(!why.contains("a\u{0}b"), "{why}");
        }
    }

    #[test]
    fn a_byte_order_mark_a_line_end_and_quotes_are_removed_from_a_secret() {
        for (given, secret) in [
            ("s3cret", "s3cret"),
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            ("\u{feff}s3cret", "s3cret"),
            ("\u{feff}\"s3cret\"\r\n", "s3cret"),
            ("'s3cret'", "s3cret"),
            ("\"'s3cret'\"", "'s3cret'"),
            ("\"\"s3cret\"\"", "\"s3cret\""),
            ("\"s3cret", "\"s3cret"),
            ("\"s3cret'", "\"s3cret'"),
            ("\"", "\""),
            ("s3 cret ", "s3 cret "),
        ] {
            assert_eq!(bare(given), secret, "{given:?}");
        }
    }
}
