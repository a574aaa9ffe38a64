//! Table-driven tests of the parsers of origins and hosts.

use super::*;
use crate::peer::Peer;
use crate::protocol::http::parse_head;
use crate::protocol::origin::authority::Authority;

const REMOTE: Peer = Peer::V4 { ip: [192, 0, 2, 1], port: 5000 };
const LOCAL: Peer = Peer::V4 { ip: [127, 0, 0, 1], port: 5000 };
const LOCAL_V6: Peer = Peer::V6 { ip: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], port: 5000 };

/// Returns a request for `host` with `lines` after the `Host` line.
fn request(peer: Peer, host: &str, lines: &str) -> Request<'static> {
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
    parse_head(head.into_bytes(), 64, peer).expect("the head is valid").request
}

fn from(peer: Peer, host: &str, origin: &str) -> Request<'static> {
    request(peer, host, &format!("Origin: {origin}\r\n"))
}

#[test]
fn an_origin_with_another_host_or_port_than_the_request_is_refused() {
    for (host, origin, passes) in [
        ("example.com", "http://example.com", true),
        ("example.com", "https://example.com", true),
        ("example.com", "http://example.com:80", true),
        ("example.com", "https://example.com:443", true),
        ("example.com:80", "http://example.com", true),
        ("example.com:443", "https://example.com", true),
        ("example.com:", "http://example.com", true),
        ("example.com:9501", "http://example.com:9501", true),
        ("example.com:09501", "http://example.com:9501", true),
        ("EXAMPLE.com", "http://example.COM", true),
        ("example.com", "HTTPS://EXAMPLE.COM", true),
        ("192.0.2.7:9501", "http://192.0.2.7:9501", true),
        ("[2001:db8::1]:9501", "http://[2001:db8::1]:9501", true),
        ("[2001:DB8:0::0001]", "http://[2001:db8::1]", true),
        // Another host.
        ("example.com", "http://evil-example.com", false),
        ("example.com", "http://example.com.evil", false),
        ("example.com", "http://example.com.", false),
        ("example.com", "http://www.example.com", false),
        ("www.example.com", "http://example.com", false),
        ("example.com", "http://example.co", false),
        ("example.com", "http://xample.com", false),
        ("example.com", "http://com", false),
        ("example.com", "http://evil.com", false),
        ("[2001:db8::1]", "http://[2001:db8::2]", false),
        ("[::ffff:192.0.2.7]", "http://192.0.2.7", false),
        // Another port.
        ("example.com", "http://example.com:8080", false),
        ("example.com:8080", "http://example.com", false),
        ("example.com:443", "http://example.com", false),
        ("example.com:80", "https://example.com", false),
        ("example.com", "https://example.com:80", false),
        ("example.com:9501", "http://example.com:9502", false),
        ("example.com:9501", "http://example.com:950", false),
        // Another scheme.
        ("example.com", "ftp://example.com", false),
        ("example.com", "ws://example.com", false),
        ("example.com", "file://example.com", false),
        ("example.com", "chrome-extension://example.com", false),
        ("example.com:80", "chrome-extension://example.com:80", false),
    ] {
        let passed = Origins::Same.allows(&from(REMOTE, host, origin));
        let want = if passes { Ok(()) } else { Err(OriginError::Foreign(origin.to_owned())) };
        assert_eq!(passed, want, "{origin} must have the expected result at host {host}");
    }
}

#[test]
fn malformed_origins_are_refused() {
    for origin in [
        "",
        "example.com",
        "//example.com",
        "://example.com",
        "http:example.com",
        "http:/example.com",
        "http://",
        "http:///",
        "http://:80",
        "http://example.com/",
        "http://example.com/path",
        "http://example.com?q",
        "http://example.com#f",
        "http://user@example.com",
        "http://user:pass@example.com",
        "http://example.com@evil.com",
        "http://example.com:80@evil.com",
        "http://example.com http://evil.com",
        "http://example.com, http://evil.com",
        "http://example.com\\.evil.com",
        "http://example.com:+80",
        "http://example.com:-1",
        "http://example.com:65536",
        "http://example.com:80:80",
        "http://example.com:x",
        "http://exa mple.com",
        "http://example%2.com",
        "http://example%.com",
        "http://[::1",
        "http://[::1]x",
        "http://[::g]",
        "http://[fe80::1%25eth0]",
        "http://[192.0.2.1]",
        "http://::1",
        "1http://example.com",
        "ht tp://example.com",
        "Null",
        "http://ex\u{e4}mple.com",
    ] {
        let passed = Origins::Same.allows(&from(REMOTE, "example.com", origin));
        assert!(matches!(passed, Err(OriginError::Malformed(_))), "{origin:?}: {passed:?}");
    }
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: http://\xff\r\n\r\n".to_vec();
    let request = parse_head(bytes, 64, REMOTE).expect("the head is valid").request;
    let passed = Origins::Same.allows(&request);
    assert_eq!(passed, Err(OriginError::Malformed("http://\\xff".to_owned())));
}

#[test]
fn null_and_repeated_origins_are_refused() {
    let null = from(REMOTE, "example.com", "null");
    assert_eq!(Origins::Same.allows(&null), Err(OriginError::Null));
    let twice = "Origin: http://example.com\r\norigin: http://example.com\r\n";
    let twice = request(REMOTE, "example.com", twice);
    assert_eq!(Origins::Same.allows(&twice), Err(OriginError::Repeated));
    let list = Origins::list(["http://example.com"]).expect("the origin is valid");
    assert_eq!(list.allows(&null), Err(OriginError::Null));
    assert_eq!(list.allows(&twice), Err(OriginError::Repeated));
    for request in [null, twice, from(REMOTE, "example.com", "http://evil.com")] {
        assert_eq!(Origins::Any.allows(&request), Ok(()));
    }
}

#[test]
fn the_origins_null_and_file_are_allowed_if_they_are_listed() {
    let both = Origins::list(["null", "FILE://"]).expect("the origins are valid");
    assert_eq!(both, Origins::List(vec!["null".to_owned(), "file://".to_owned()]));
    let list = |origin: &str| Origins::list([origin]).expect("the origin is valid");
    for peer in [REMOTE, LOCAL, Peer::Unix] {
        for (origin, other) in [("null", "file://"), ("file://", "null")] {
            let request = from(peer, "example.com", origin);
            assert_eq!(both.allows(&request), Ok(()));
            assert_eq!(list(origin).allows(&request), Ok(()));
            assert_eq!(Origins::Any.allows(&request), Ok(()));
            for refusing in [list(other), list("https://null"), list("https://*.null"), Origins::Same] {
                assert!(refusing.allows(&request).is_err(), "{origin} {refusing:?}");
            }
        }
    }
    let file = from(REMOTE, "example.com", "file://");
    assert_eq!(Origins::Same.allows(&file), Err(OriginError::Foreign("file://".to_owned())));
    assert_eq!(list("null").allows(&file), Err(OriginError::Unlisted("file://".to_owned())));
    // The entries `null` and `file://` match no other origin.
    for origin in ["file://a", "file:///", "Null", "null:", "https://null", "https://example.com"] {
        assert!(both.allows(&from(REMOTE, "example.com", origin)).is_err(), "{origin}");
    }
}

#[test]
fn requests_without_an_origin_header_are_allowed() {
    let list = Origins::list(["http://example.com"]).expect("the origin is valid");
    for origins in [Origins::Same, Origins::Any, list] {
        for peer in [REMOTE, LOCAL, Peer::Unix] {
            assert_eq!(origins.allows(&request(peer, "rebound.example", "")), Ok(()));
        }
    }
}

#[test]
fn a_request_without_a_host_header_has_the_same_origin_as_no_page() {
    let head = b"GET / HTTP/1.0\r\nOrigin: http://example.com\r\n\r\n".to_vec();
    let request = parse_head(head, 64, REMOTE).expect("the head is valid").request;
    assert!(Origins::Same.allows(&request).is_err());
    assert!(!Origins::host_is_loopback(&request));
}

#[test]
fn the_host_header_of_a_loopback_client_must_be_a_loopback_name() {
    for (host, is_loopback) in [
        ("localhost:9501", true),
        ("LOCALHOST:9501", true),
        ("app.localhost:9501", true),
        ("127.0.0.1:9501", true),
        ("127.8.9.10:9501", true),
        ("[::1]:9501", true),
        ("[0:0::1]:9501", true),
        ("localhost", true),
        ("rebound.example:9501", false),
        ("localhost.evil.example:9501", false),
        ("evil-localhost:9501", false),
        ("127.0.0.1.evil.example:9501", false),
        ("127.0.0.1x:9501", false),
        ("10.0.0.1:9501", false),
        ("[::2]:9501", false),
    ] {
        let origin = format!("http://{host}");
        for (peer, passes) in [(LOCAL, is_loopback), (LOCAL_V6, is_loopback), (REMOTE, true), (Peer::Unix, true)] {
            let request = from(peer, host, &origin);
            let want = if passes { Ok(()) } else { Err(OriginError::Rebound(origin.clone())) };
            assert_eq!(Origins::Same.allows(&request), want, "{host} {peer:?}");
            assert_eq!(Origins::host_is_loopback(&request), is_loopback);
            let listed = Origins::list([&origin]).expect("the origin is valid");
            assert_eq!(listed.allows(&request), Ok(()));
        }
    }
}

#[test]
fn a_list_of_origins_allows_only_its_entries() {
    let list = Origins::list([
        "https://Example.COM:443",
        "http://example.com:8080",
        "http://[2001:DB8:0::1]",
        "capacitor://localhost",
    ])
    .expect("the origins are valid");
    let normal = ["https://example.com", "http://example.com:8080", "http://[2001:db8::1]", "capacitor://localhost"];
    assert_eq!(list, Origins::List(normal.map(str::to_owned).to_vec()));
    for (origin, passes) in [
        ("https://example.com", true),
        ("https://example.com:443", true),
        ("HTTPS://EXAMPLE.com", true),
        ("http://example.com:8080", true),
        ("http://[2001:db8::0:1]:80", true),
        ("capacitor://localhost", true),
        ("http://example.com", false),
        ("https://example.com:8080", false),
        ("https://evil-example.com", false),
        ("https://example.com.evil", false),
        ("https://www.example.com", false),
        ("http://localhost", false),
        ("capacitor://localhost:80", false),
        // The origin of the server itself is refused, because the list does not contain it.
        ("http://server.example", false),
    ] {
        let passed = list.allows(&from(REMOTE, "server.example", origin));
        assert_eq!(passed.is_ok(), passes, "{origin}");
    }
    // If the application creates `Origins::List` without `Origins::list`, an entry may have upper case or a default
    // port. An entry that is not an origin matches no origin.
    let by_hand = Origins::List(vec!["example".to_owned(), "HTTP://A:80".to_owned()]);
    assert_eq!(by_hand.allows(&from(REMOTE, "b", "http://a")), Ok(()));
    assert!(by_hand.allows(&from(REMOTE, "b", "http://example")).is_err());
}

#[test]
fn a_list_with_an_invalid_entry_is_an_error() {
    for bad in ["", "*", "NULL", "example.com", "https://example.com/", "https://*.example.com:x"] {
        let error = Origins::list(["https://good.example", bad]).expect_err("the list must be refused");
        assert!(error.starts_with(&format!("{bad:?} is not an origin")), "{error}");
    }
    for bad in ["https://*", "https://evil.*", "file:///", "https://10.1"] {
        assert!(Origins::list([bad]).is_err(), "{bad}");
    }
    assert_eq!(Origins::list([""; 0]), Ok(Origins::List(Vec::new())));
}

#[test]
fn the_403_names_the_origin() {
    let refused = Origins::Same.allows(&from(REMOTE, "example.com", "http://evil.example"));
    let response = refused.expect_err("a foreign origin must be refused").response();
    assert_eq!((response.status(), response.closes(), response.fault()), (403, true, None));
    let mut out = Vec::new();
    response.encode(&mut out, "", true, false);
    let text = String::from_utf8(out).expect("the output must be UTF-8");
    assert!(text.ends_with(
        "\r\n\r\norigin http://evil.example is not allowed: \
         not the server's own, and no list of origins is set\n"
    ));

    let list = Origins::list(["https://good.example"]).expect("the origins are valid");
    let refused = list
        .allows(&from(REMOTE, "example.com", "http://example.com"))
        .expect_err("an unlisted origin must be refused");
    assert_eq!(refused.to_string(), "origin http://example.com is not allowed: not in the list of origins");

    let rebound = from(LOCAL, "rebound.example", "http://rebound.example");
    let refused = Origins::Same.allows(&rebound).expect_err("the origin of a DNS rebinding attack must be refused");
    assert!(refused.to_string().contains("unless listed"));
}

#[test]
fn escaped_values_are_bounded() {
    assert_eq!(escaped(b"http://a\t\x80\"\\"), "http://a\\t\\x80\\\"\\\\");
    let long = escaped(&[0xff; 8000]);
    assert!(long.len() < 500 && long.ends_with('…'));
}

#[test]
fn only_a_valid_host_and_port_is_an_authority() {
    for (text, is_authority) in [
        ("a", true),
        ("a:1", true),
        ("a:", true),
        ("a:65535", true),
        ("a_b-c.d~e", true),
        ("xn--mnchen-3ya.de", true),
        ("%41", true),
        ("a,b", true),
        ("[::]", true),
        ("[::ffff:1.2.3.4]:1", true),
        ("", false),
        (":80", false),
        ("a b", false),
        ("a/b", false),
        ("a@b", false),
        ("a:b", false),
        ("a:65536", false),
        ("a:1:2", false),
        ("a:+1", false),
        ("%4", false),
        ("%zz", false),
        ("a\"", false),
        ("a<", false),
        ("[]", false),
        ("[a]", false),
        ("[::1", false),
        ("[::1]]", false),
        ("[v1.x]", false),
        ("m\u{fc}nchen", false),
    ] {
        assert_eq!(Authority::parse(text.as_bytes()).is_some(), is_authority, "{text:?}");
    }
}
