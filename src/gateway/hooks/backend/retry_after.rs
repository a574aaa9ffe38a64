//! The header `Retry-After` (RFC 9110 section 10.2.3): a number of seconds or a date.

use std::time::{Duration, UNIX_EPOCH};

/// Parses the value of a `Retry-After` header, and returns the requested pause. `now_ms` is the current time in
/// milliseconds since 1970.
///
/// If the value is a date in the past, the pause is zero. Returns `None` if the value is invalid. The caller must bound
/// the pause.
pub fn parse(value: &str, now_ms: u64) -> Option<Duration> {
    let value = value.trim_ascii();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number of seconds that exceeds 64 bits counts as the largest number of 64 bits.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(UNIX_EPOCH + Duration::from_millis(now_ms)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The current time in this test, in milliseconds since 1970: Sun, 06 Nov 1994 08:49:37 GMT, the date in the
    /// examples of RFC 9110.
    const NOW_MS: u64 = 784_111_777_000;

    #[test]
    fn a_pause_is_a_number_of_seconds_or_a_date() {
        let seconds = |value: &str| parse(value, NOW_MS).map(|pause| pause.as_secs());
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7\t", Some(7)),
            ("99999999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799 - NOW_MS / 1000)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("+1", None),
            ("soon", None),
            ("12 seconds", None),
        ] {
            assert_eq!(seconds(value), expected, "{value:?}");
        }
    }
}
