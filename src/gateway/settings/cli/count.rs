//! Parsers of whole numbers. The errors of the parsers name the allowed range.

use std::ops::RangeInclusive;

/// Returns a parser of whole numbers of at least `min`.
pub fn at_least(min: u32) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| read(text, min..=u32::MAX)
}

/// Returns a parser of whole numbers from `min` to `max`.
pub fn between(min: u32, max: u32) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| read(text, min..=max)
}

/// Parses the length of an IPv6 prefix, in bits.
pub fn bits(text: &str) -> Result<u8, String> {
    read(text, 1..=128).map(|bits| u8::try_from(bits).unwrap_or(128))
}

fn read(text: &str, allowed: RangeInclusive<u32>) -> Result<u32, String> {
    let (min, max) = (*allowed.start(), *allowed.end());
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_number && allowed.contains(number));
    number.ok_or_else(|| {
        let kind = if is_number { "" } else { "a whole number, " };
        match max {
            u32::MAX => format!("it must be {kind}at least {min}"),
            _ => format!("it must be {kind}from {min} to {max}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_within_the_range_are_accepted() {
        for (text, result) in [
            ("1", Ok(1)),
            ("4294967295", Ok(u32::MAX)),
            ("0", Err("it must be at least 1")),
            ("4294967296", Err("it must be at least 1")),
            ("1.5", Err("it must be a whole number, at least 1")),
        ] {
            assert_eq!(at_least(1)(text), result.map_err(str::to_owned), "{text}");
        }
        for (text, result) in [
            ("257", Err("it must be from 1 to 256")),
            ("-1", Err("it must be a whole number, from 1 to 256")),
            ("+1", Err("it must be a whole number, from 1 to 256")),
            ("1k", Err("it must be a whole number, from 1 to 256")),
            ("", Err("it must be a whole number, from 1 to 256")),
        ] {
            assert_eq!(between(1, 256)(text), result.map_err(str::to_owned), "{text}");
        }
    }
}
