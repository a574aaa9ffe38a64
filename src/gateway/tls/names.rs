//! Parses the names for which `fdpush cert` creates a certificate.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use fdpush::shared::{DNS_LABEL_BYTES_MAX, DNS_NAME_BYTES_MAX};

/// A name that a client connects to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ServerName {
    /// A DNS name in lower case. The first label of the name may be `*`.
    Dns(String),
    /// An IP address. The text of an IPv6 address may be in brackets.
    Ip(IpAddr),
}

impl FromStr for ServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<ServerName, String> {
        let inner = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        match inner.unwrap_or(text).parse() {
            Ok(IpAddr::V4(_)) if inner.is_some() => Err("only an IPv6 address has brackets".to_owned()),
            Ok(ip) if ip.is_unspecified() => {
                Err("clients cannot connect to an unspecified address: give an address to connect to".to_owned())
            }
            Ok(ip) => Ok(ServerName::Ip(ip)),
            Err(_) => dns(text).map(ServerName::Dns),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerName::Dns(name) => name.fmt(f),
            ServerName::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Checks a DNS name, and returns the name in lower case.
fn dns(text: &str) -> Result<String, String> {
    let expected = "expected a DNS name (localhost, chat.example, *.chat.example) or an IP address";
    if text.contains("://") || text.contains('/') {
        return Err(format!("{expected}, without the rest of a URL"));
    }
    if text.contains(':') {
        return Err(format!("{expected}, without a port"));
    }
    if !text.is_ascii() {
        return Err(format!("{expected}; a name with other letters must be in its ASCII form, which begins with xn--"));
    }
    let domain = text.strip_prefix("*.");
    let labels: Vec<&str> = domain.unwrap_or(text).split('.').collect();
    if domain.is_some() && labels.len() < 2 {
        return Err("clients accept a wildcard only before two labels or more, as in *.chat.example".to_owned());
    }
    let is_label = |label: &&str| {
        (1..=DNS_LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name whose last label is a number, such as `127.0.0.300`, is probably a mistyped IP address.
    let is_number = labels.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if text.len() > DNS_NAME_BYTES_MAX || is_number || !labels.iter().all(is_label) {
        return Err(expected.to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_parsed() {
        for (text, name) in [
            ("localhost", "localhost"),
            ("Chat.Example", "chat.example"),
            ("*.chat.example", "*.chat.example"),
            ("my_host-1.lan", "my_host-1.lan"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("7.example", "7.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("2001:DB8:0::1", "2001:db8::1"),
        ] {
            assert_eq!(text.parse::<ServerName>().map(|parsed| parsed.to_string()), Ok(name.to_owned()), "{text}");
        }
        let (label, long) = ("a".repeat(64), ["a"; 128].join("."));
        for (bad, hint) in [
            ("", "expected a DNS name"),
            ("*", "expected a DNS name"),
            ("*.example", "before two labels"),
            ("a.*.example", "expected a DNS name"),
            ("*a.example.com", "expected a DNS name"),
            ("https://localhost", "without the rest of a URL"),
            ("localhost/chat", "without the rest of a URL"),
            ("localhost:9443", "without a port"),
            ("[::1]:9443", "without a port"),
            ("fe80::1%eth0", "without a port"),
            ("bücher.example", "xn--"),
            ("a b", "expected a DNS name"),
            ("a..b", "expected a DNS name"),
            ("a.", "expected a DNS name"),
            ("-a", "expected a DNS name"),
            ("a-.example", "expected a DNS name"),
            ("127.0.0.300", "expected a DNS name"),
            ("127.1", "expected a DNS name"),
            ("[127.0.0.1]", "only an IPv6 address"),
            ("[localhost]", "expected a DNS name"),
            ("0.0.0.0", "give an address to connect to"),
            ("::", "give an address to connect to"),
            (&label, "expected a DNS name"),
            (&long, "expected a DNS name"),
        ] {
            assert!(bad.parse::<ServerName>().is_err_and(|why| why.contains(hint)), "{bad}: expected {hint:?}");
        }
    }
}
