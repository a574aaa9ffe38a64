//! The entries of a list of origins: parsing and matching.
//!
//! An entry is an origin, an origin whose host begins with `*.`, `null` or `file://`. An entry that no browser can send
//! is an error when the list is created. Without this error, such an entry would never match an origin, and the
//! operator would not notice the mistake.

use std::net::Ipv4Addr;

use super::authority::{Authority, DNS_LABEL_BYTES_MAX, DNS_NAME_BYTES_MAX, Host, Origin, default_port};

/// The value of the `Origin` header that browsers send for a page without an origin of its own.
///
/// Examples are a local file, a sandboxed frame, or a page after a redirect across sites.
pub const NULL: &str = "null";

/// The value of the `Origin` header of some native clients.
///
/// In some web views, pages from files have this origin, too.
pub const FILE: &str = "file://";

const FILE_ERROR: &str = "pages from files have the origin null or file://, without a host and a path";

/// Converts an entry to its normal form: in lower case, and without the default port of the scheme.
///
/// # Errors
/// Returns an error if no browser can send the entry. The text of the error is the reason.
pub fn normalise(entry: &str) -> Result<String, String> {
    if entry == NULL {
        return Ok(NULL.to_owned());
    }
    if is_file(entry) {
        return Ok(FILE.to_owned());
    }
    let refused = |why: &str| Err(format!("{entry:?} is not an origin: {why}"));
    let Some(origin) = Origin::parse(entry) else { return refused(format_error(entry)) };
    if origin.scheme.eq_ignore_ascii_case("file") {
        return refused(FILE_ERROR);
    }
    if origin.authority.port == Some(0) {
        return refused("browsers do not connect to port 0");
    }
    let host = match origin.authority.host {
        Host::V6(_) => return Ok(origin.to_string()),
        Host::Name(name) => name,
    };
    let (base, is_wildcard) = host.strip_prefix("*.").map_or((host, false), |base| (base, true));
    // Only the host of an `http` or `https` origin is a domain name. With another scheme, such as the scheme of an app,
    // the host is not a domain name.
    let is_dns = default_port(origin.scheme).is_some();
    match host_error(base, is_wildcard).or_else(|| dns_error(base, is_wildcard).filter(|_| is_dns)) {
        Some(why) => refused(why),
        None => Ok(origin.to_string()),
    }
}

/// Returns whether an entry matches an origin.
pub fn matches(entry: &str, origin: &Origin<'_>) -> bool {
    let Some(listed) = Origin::parse(entry) else { return false };
    if !origin.scheme.eq_ignore_ascii_case(listed.scheme) || origin.port() != listed.port() {
        return false;
    }
    match (&listed.authority.host, &origin.authority.host) {
        (Host::Name(listed), Host::Name(host)) => match listed.strip_prefix("*.") {
            Some(base) => is_subdomain(host, base),
            None => listed.eq_ignore_ascii_case(host),
        },
        (listed, host) => listed.equals(host),
    }
}

/// Returns whether `text` is `file://`, which has no host.
pub fn is_file(text: &str) -> bool {
    text.eq_ignore_ascii_case(FILE)
}

/// Returns whether `host` is a subdomain of `base`.
///
/// A subdomain has one or more labels before `base`, as in a host-source of CSP.
fn is_subdomain(host: &str, base: &str) -> bool {
    let Some(end) = host.len().checked_sub(base.len() + 1) else { return false };
    let Some((labels, rest)) = host.split_at_checked(end) else { return false };
    let is_of_base = rest.strip_prefix('.').is_some_and(|rest| rest.eq_ignore_ascii_case(base));
    is_of_base && !labels.is_empty() && labels.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn host_error(host: &str, is_wildcard: bool) -> Option<&'static str> {
    if host.contains('*') {
        return Some("a * must stand for whole labels at the start of the host, as in https://*.example.com");
    }
    // A host may end with a dot, which stands for the DNS root. Browsers keep this dot in the origin.
    let name = host.strip_suffix('.').unwrap_or(host);
    if !name.split('.').all(is_label) {
        return Some("a host must consist of labels of letters, digits, - and _, separated by dots");
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_hex = last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"))
        && last.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit());
    let is_number = is_hex || last.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && is_wildcard {
        return Some("a * before an IP address is not allowed");
    }
    // Browsers normalise every spelling of an IPv4 address to four decimal numbers.
    if is_number && host.parse::<Ipv4Addr>().is_err() {
        return Some("an IPv4 address must be four numbers from 0 to 255");
    }
    None
}

/// Returns the reason why `host` is not a valid domain name, or `None` if it is valid.
fn dns_error(host: &str, is_wildcard: bool) -> Option<&'static str> {
    let name = host.strip_suffix('.').unwrap_or(host);
    // The shortest host that `*.` followed by `name` matches has two characters more than `name`: a label of one
    // character, and a dot.
    let length = name.len() + if is_wildcard { 2 } else { 0 };
    if name.split('.').any(|label| label.len() > DNS_LABEL_BYTES_MAX) {
        return Some("a label of a host must have at most 63 characters");
    }
    (length > DNS_NAME_BYTES_MAX).then_some("a host must have at most 253 characters")
}

/// Returns the reason why a text is not `scheme://host[:port]`.
fn format_error(text: &str) -> &'static str {
    const FORM: &str = "it must be scheme://host[:port], null or file://";
    let Some((scheme, rest)) = text.split_once("://") else { return FORM };
    if !text.is_ascii() {
        return "the host must be in its ASCII form, as in https://xn--mnchen-3ya.example";
    }
    if is_file(&format!("{scheme}://")) && rest.starts_with('/') {
        return FILE_ERROR;
    }
    if rest.contains('@') {
        return "an origin must have no user and no password";
    }
    match rest.find(['/', '?', '#']) {
        Some(1..) if default_port(scheme).is_some() || Authority::parse(rest.as_bytes()).is_none() => {
            "an origin must have no path, and no slash after the host"
        }
        _ => FORM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(entry: &str, origin: &str) -> bool {
        super::matches(
            &normalise(entry).expect("the entry is valid"),
            &Origin::parse(origin).expect("the origin is valid"),
        )
    }

    #[test]
    fn a_wildcard_matches_subdomains_at_any_depth_and_nothing_else() {
        for origin in [
            "https://a.example.com",
            "https://a.b.example.com",
            "https://A.EXAMPLE.com:443",
            "https://xn--a-b_c.example.com",
        ] {
            assert!(matches("https://*.example.com", origin), "{origin}");
            assert!(matches("HTTPS://*.Example.COM:443", origin), "{origin}");
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://a..example.com",
            "https://.a.example.com",
            "https://evil-example.com",
            "https://evilexample.com",
            "https://a.evil-example.com",
            "https://example.com.evil",
            "https://a.example.com.evil",
            "https://a.example.com.",
            "https://evil.com%2f.example.com",
            "https://evil.com%00.example.com",
            "https://*.example.com",
            "https://a,b.example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://[::1]",
        ] {
            assert!(!matches("https://*.example.com", origin), "{origin}");
        }
        assert!(matches("http://*.localhost:3000", "http://app.localhost:3000"));
        assert!(!matches("http://*.localhost:3000", "http://app.localhost"));
        assert!(matches("capacitor://*.app", "capacitor://x.app"));
    }

    #[test]
    fn a_host_longer_than_a_domain_name_is_an_error() {
        // A label has at most 63 characters. A domain name has at most 253 characters without the dot at its end.
        let label = "a".repeat(63);
        let name = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        for good in [
            format!("https://{label}.example"),
            format!("http://{name}:8080"),
            format!("https://{name}."),
            format!("https://*.{}", &name[2..]),
            format!("app://a{label}"),
        ] {
            assert!(normalise(&good).is_ok(), "{good}");
        }
        for (bad, why) in [
            (format!("https://a{label}.example"), "at most 63"),
            (format!("http://example.a{label}."), "at most 63"),
            (format!("https://*.a{label}.example"), "at most 63"),
            (format!("https://b.{name}"), "at most 253"),
            (format!("https://{name}a"), "at most 253"),
            (format!("https://*.{}", &name[1..]), "at most 253"),
        ] {
            assert!(normalise(&bad).is_err_and(|error| error.contains(why)), "{bad}");
        }
    }

    #[test]
    fn entries_that_no_browser_can_send_are_errors() {
        for (entry, why) in [
            ("https://*", "whole labels"),
            ("https://*.", "labels of letters"),
            ("https://*.*.example.com", "whole labels"),
            ("https://a.*.example.com", "whole labels"),
            ("https://*example.com", "whole labels"),
            ("https://exa*mple.com", "whole labels"),
            ("https://example.*", "whole labels"),
            ("https://*.10.0.0.1", "IP address"),
            ("https://*.[::1]", "scheme://host"),
            ("https://10.0.0", "four numbers"),
            ("http://0x7f000001", "four numbers"),
            ("http://10.0.0.0X1", "four numbers"),
            ("https://*.0x1", "IP address"),
            ("file://host", "without a host"),
            ("FILE://localhost:80", "without a host"),
            ("https://10.0.0.256", "four numbers"),
            ("https://a..b", "labels"),
            ("https://a%41.example", "labels"),
            ("https://a,b", "labels"),
            ("https://example.com:0", "port 0"),
            ("https://example.com:*", "scheme://host"),
            ("https://example.com/", "no slash"),
            ("https://example.com/app", "no path"),
            ("https://example.com#top", "no path"),
            ("https://user:pass@example.com", "no user"),
            ("https://m\u{fc}nchen.example", "ASCII form"),
            ("file:///", "null or file://"),
            ("file:///home", "null or file://"),
            ("Null", "null or file://"),
            ("*", "scheme://host"),
            ("", "scheme://host"),
        ] {
            let error = normalise(entry).expect_err(entry);
            assert!(error.starts_with(&format!("{entry:?} is not an origin: ")), "{error}");
            assert!(error.contains(why), "the error of {entry} must contain {why:?}: {error}");
        }
        for (entry, normal) in [
            ("HTTPS://Example.COM:0443", "https://example.com"),
            ("https://example.com.", "https://example.com."),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("FILE://", "file://"),
            ("null", "null"),
            ("https://*.Example.com:443", "https://*.example.com"),
            ("app://a_b", "app://a_b"),
        ] {
            assert_eq!(normalise(entry).as_deref(), Ok(normal));
        }
    }
}
