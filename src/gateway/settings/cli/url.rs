//! Parses URLs of back ends. A URL can contain a password, so no error and no output repeats a URL, even an invalid
//! URL.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::{Arg, Command, Error};

use super::secret::MASK;
use crate::gateway::hooks::backend;

/// An `http://` or `https://` URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

/// A clap parser of [`Url`]. The errors of this parser do not contain the URL.
#[derive(Copy, Clone)]
pub struct UrlParser;

/// Returns a URL with its user, password, query and fragment masked.
pub fn masked(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(rest, _)| (rest, "#***"));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (userinfo, host) = authority.rsplit_once('@').map_or(("", authority), |(_, host)| ("***@", host));
    let colon = if url.contains("://") { "://" } else { "" };
    format!("{scheme}{colon}{userinfo}{host}{path}{query}{fragment}")
}

/// Returns whether a URL is an output of [`masked`].
fn is_masked(url: &str) -> bool {
    let after = |mark: char| url.split_once(mark).map(|(_, rest)| rest);
    split(url).is_some_and(|(_, userinfo, _)| userinfo == MASK)
        || after('?').is_some_and(|query| query.split('#').next() == Some(MASK))
        || after('#') == Some(MASK)
}

/// Returns the scheme, the user information and the remaining part of a URL (RFC 3986 section 3.2.1).
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
        if is_masked(text) {
            return Err(format!(
                "{MASK} is the mask that `fdpush config` prints for user, password and query: give the URL itself"
            ));
        }
        if backend::BackendUrl::parse(text).is_err() {
            return Err("expected http://HOST… or https://HOST…; a port is a number from 1 to 65535".to_owned());
        }
        if text.contains('#') {
            return Err("a fragment (#…) is never sent to a back end: remove the fragment".to_owned());
        }
        Ok(Url(text.to_owned()))
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
        let parsed = value.to_str().unwrap_or_default().parse();
        // The error of clap contains the value. So clap gets the mask instead of the value.
        let parse = move |_: &str| parsed.clone();
        parse.parse_ref(command, arg, OsStr::new(MASK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        for good in ["http://127.0.0.1:8080/hook", "https://example.com", "http://[::1]/x?y", "http://u:p%40@h/"] {
            assert!(good.parse::<Url>().is_ok(), "{good}");
        }
        for bad in ["", "example.com", "/hook", "ftp://example.com", "http://", "unix:/x"] {
            assert!(bad.parse::<Url>().is_err_and(|why| why.contains("http://HOST")), "{bad}");
        }
        for (bad, why) in [("http://h/#top", "fragment"), ("http://h:0/", "from 1 to 65535")] {
            assert!(bad.parse::<Url>().is_err_and(|error| error.contains(why)), "{bad}");
        }
        for masked in ["https://h/x?***", "https://h/x#***", "https://h/x?***#***"] {
            assert!(masked.parse::<Url>().is_err_and(|why| why.contains("fdpush config")), "{masked}");
        }
        assert!("https://***@h/x".parse::<Url>().is_err_and(|why| why.contains("fdpush config")));
    }

    #[test]
    fn urls_are_masked() {
        for (url, wanted) in [
            ("http://user:hush@h:1/x?y#z", "http://***@h:1/x?***#***"),
            ("https://h/hook?token=hush", "https://h/hook?***"),
            ("https://h?hush", "https://h?***"),
            ("https://h/a#hush?x@y", "https://h/a#***"),
            ("u:hush@h/x?hush", "***@h/x?***"),
            ("http://user@h", "http://***@h"),
            ("http://a@b@h/", "http://***@h/"),
            ("http://h/@me?a@b", "http://h/@me?***"),
            ("http://h", "http://h"),
        ] {
            assert_eq!(masked(url), wanted);
        }
        let url: Url = "http://user:hush@h/".parse().expect("the URL is valid");
        assert_eq!(format!("{url:?}"), "\"http://***@h/\"");
    }
}
