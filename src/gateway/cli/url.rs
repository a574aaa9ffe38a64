//! URLs of back ends. They may have a password in them, so that no error and no output repeats one, nor what was meant
//! to be one.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::{Arg, Command, Error};

use super::values::MASK;
use crate::gateway::backend;

/// An `http://` or `https://` URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

/// Reads a [`Url`] from the command line, and says what is wrong without saying with what.
#[derive(Copy, Clone)]
pub struct UrlParser;

/// A URL with a mask in place of the user and the password, if it has them.
pub fn masked(url: &str) -> String {
    match split(url) {
        Some((scheme, _, rest)) => format!("{scheme}://{MASK}@{rest}"),
        None => url.to_owned(),
    }
}

/// The scheme, the user and password, and what comes after them (RFC 3986 section 3.2.1).
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (userinfo, _) = authority.rsplit_once('@')?;
    let (_, after) = rest.split_at_checked(userinfo.len() + 1)?;
    Some((scheme, userinfo, after))
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        if split(text).is_some_and(|(_, userinfo, _)| userinfo == MASK) {
            return Err(format!("{MASK} is what `fdpush config` prints in a password's stead: give user and password"));
        }
        match backend::Url::parse(text) {
            Ok(_) => Ok(Url(text.to_owned())),
            Err(_) => Err("expected http://HOST… or https://HOST…".to_owned()),
        }
    }
}

impl AsRef<str> for Url {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&masked(&self.0), f)
    }
}

impl TypedValueParser for UrlParser {
    type Value = Url;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Url, Error> {
        let text = value.to_str().unwrap_or_default();
        if let Ok(url) = text.parse() {
            return Ok(url);
        }
        // clap's own error shows the value: it gets another one, that is as wrong.
        let is_masked = split(text).is_some_and(|(_, userinfo, _)| userinfo == MASK);
        let stand_in = if is_masked { format!("http://{MASK}@…") } else { MASK.to_owned() };
        let parse: fn(&str) -> Result<Url, String> = Url::from_str;
        parse.parse_ref(command, arg, OsStr::new(&stand_in))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for good in ["http://127.0.0.1:8080/hook", "https://example.com", "http://[::1]/x?y", "http://u:p%40@h/"] {
            assert!(good.parse::<Url>().is_ok(), "{good}");
        }
        for bad in ["", "example.com", "/hook", "ftp://example.com", "http://", "unix:/x"] {
            assert!(bad.parse::<Url>().is_err_and(|why| why.contains("http://HOST")), "{bad}");
        }
        assert!("https://***@h/x".parse::<Url>().is_err_and(|why| why.contains("fdpush config")));
    }

    #[test]
    fn masks() {
        for (url, wanted) in [
            ("http://user:hush@h:1/x?y#z", "http://***@h:1/x?y#z"),
            ("http://user@h", "http://***@h"),
            ("http://a@b@h/", "http://***@h/"),
            ("http://h/@me?a@b", "http://h/@me?a@b"),
            ("http://h", "http://h"),
        ] {
            assert_eq!(masked(url), wanted);
        }
        let url: Url = "http://user:hush@h/".parse().expect("a URL");
        assert_eq!(format!("{url:?}"), "\"http://***@h/\"");
    }
}
