//! Tests of the HTTP client with a back end that sends valid, invalid and late answers, or no answer.

use std::time::Duration;

use super::mock::{MockBackend, MockReply, TEST_TIMEOUT};
use super::signature::SigningKey;
use super::{ANSWER_BYTES_MAX, Backend, BackendConfig, BackendUrl, Failure};

const SHORT: Duration = Duration::from_millis(150);

fn backend(double: &MockBackend) -> Backend {
    Backend::new(double.contact(), 2).expect("the client of the back end can be created")
}

fn fails(reply: impl Fn() -> MockReply + Send + Sync + 'static, timeout: Duration) -> Failure {
    let double = MockBackend::start(move |_| reply());
    let answer = backend(&double).post(b"{}", timeout);
    match answer {
        Err(failure) => failure,
        Ok(answer) => answer.body.expect_err("the answer has no complete body"),
    }
}

#[test]
fn a_url_without_http_or_https_or_without_a_host_is_refused() {
    for good in ["http://localhost/", "https://u:p@example.com:8443/a/b?key=1", "http://[::1]:9/x"] {
        BackendUrl::parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in ["", "localhost:80/x", "/hook", "ftp://example.com/", "http://", "http:///x", "ws://a/", "http://a b/"] {
        assert!(BackendUrl::parse(bad).is_err(), "{bad}");
    }
    let url = BackendUrl::parse("https://u:secret@example.com:8443/a?token=secret").expect("the URL is valid");
    assert_eq!(format!("{url} {url:?}"), "https://example.com:8443/a https://example.com:8443/a");
}

#[test]
fn a_node_name_that_cannot_be_a_header_value_is_refused() {
    let url = BackendUrl::parse("http://localhost/").expect("the URL is valid");
    for bad in ["", "a\nb", "Zürich"] {
        let contact = BackendConfig { url: url.clone(), node: bad.to_owned(), secret: None, authorities: None };
        assert!(Backend::new(contact, 1).is_err(), "{bad:?}");
    }
}

#[test]
fn the_client_posts_signed_json_and_keeps_the_connection_open() {
    let double = MockBackend::always(200, "pong");
    let secret = SigningKey::new("Jefe").expect("the secret is valid");
    let backend = Backend::new(BackendConfig { secret: Some(secret), ..double.contact() }, 2)
        .expect("the client of the back end can be created");
    for _ in 0..2 {
        let answer = backend.post(b"what do ya want for nothing?", TEST_TIMEOUT).expect("the back end answers");
        assert_eq!((answer.status, answer.body.expect("the answer has a complete body")), (200, b"pong".to_vec()));
        let received = double.next();
        assert_eq!(received.line, "POST /hook?v=1");
        assert_eq!(received.header("content-type"), Some("application/json"));
        assert_eq!(received.header("x-fdpush-node"), Some("node-1"));
        assert_eq!(
            received.header("x-fdpush-signature"),
            Some("sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            "RFC 4231 section 4.3"
        );
        assert_eq!(received.header("transfer-encoding"), None);
    }
    backend.set_secret(None);
    backend.post(b"{}", TEST_TIMEOUT).expect("the back end answers");
    assert_eq!(double.next().header("x-fdpush-signature"), None);
}

#[test]
fn the_user_and_the_password_of_a_url_are_percent_decoded() {
    let double = MockBackend::always(200, "");
    let authority = double.contact().url.to_string().replace("http://", "").replace("/hook", "");
    for (userinfo, wanted) in [
        ("user:pass", Some("Basic dXNlcjpwYXNz")),
        // The text before the encoding in base64 is `us@er:p:w`.
        ("us%40er:p%3Aw", Some("Basic dXNAZXI6cDp3")),
        ("user", Some("Basic dXNlcjo=")),
        ("", None),
    ] {
        let at = if userinfo.is_empty() { "" } else { "@" };
        let url = BackendUrl::parse(&format!("http://{userinfo}{at}{authority}/x?y=%40")).expect("the URL is valid");
        let contact = BackendConfig { url, ..double.contact() };
        Backend::new(contact, 1)
            .expect("the client of the back end can be created")
            .post(b"{}", TEST_TIMEOUT)
            .expect("the back end answers");
        let received = double.next();
        assert_eq!(received.header("authorization"), wanted, "{userinfo}");
        assert_eq!((received.line.as_str(), received.header("host")), ("POST /x?y=%40", Some(authority.as_str())));
    }
}

#[test]
fn a_redirect_is_a_failure_and_every_other_status_is_an_answer() {
    for status in [204, 400, 401, 404, 500, 503] {
        let double = MockBackend::always(status, "");
        assert_eq!(backend(&double).post(b"{}", TEST_TIMEOUT).expect("the back end answers").status, status);
    }
    for status in [301, 302, 303, 307, 308] {
        let moved = format!("HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
        let failure = fails(move || MockReply::Raw(moved.clone().into_bytes()), TEST_TIMEOUT);
        assert!(matches!(failure, Failure::Redirected(by) if by == status), "{failure:?}");
        assert_eq!(failure.to_string(), format!("answered {status}; redirects are not followed"));
    }
}

#[test]
fn a_timeout_ends_a_request_without_a_complete_answer() {
    let wastes: [fn() -> MockReply; 3] = [
        || MockReply::Hang,
        || MockReply::Trickle("HTTP/1.1 200 OK\r\nX-Long: a"),
        || MockReply::Trickle("HTTP/1.1 200 \r\n\r\nbody"),
    ];
    for waste in wastes {
        // The answers have no end, so only the timeout can end the request.
        let failure = fails(waste, SHORT);
        assert!(failure.is_timeout(), "{failure:?}");
    }
}

#[test]
fn an_answer_that_is_incomplete_or_invalid_or_too_long_is_a_failure() {
    let body = |length: u64| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'a'; length as usize]].concat()
    };
    let double = MockBackend::start(move |_| MockReply::Raw(body(ANSWER_BYTES_MAX)));
    let answer = backend(&double).post(b"{}", TEST_TIMEOUT).expect("the back end answers");
    assert_eq!(answer.body.expect("the answer has a complete body").len() as u64, ANSWER_BYTES_MAX);

    let failure = fails(move || MockReply::Raw(body(ANSWER_BYTES_MAX + 1)), TEST_TIMEOUT);
    assert_eq!(failure.to_string(), "answer length limit exceeded (65536 bytes)");
    let failure = fails(|| MockReply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234".to_vec()), TEST_TIMEOUT);
    assert!(failure.is_disconnect(), "{failure:?}");
    let failure = fails(|| MockReply::Raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()), TEST_TIMEOUT);
    assert!(!failure.is_timeout() && !failure.is_disconnect(), "{failure:?}");
    let failure = fails(|| MockReply::Raw(Vec::new()), TEST_TIMEOUT);
    assert!(failure.is_disconnect(), "{failure:?}");
}

/// The body of the request is larger than all socket buffers, so a write of the client fails when the back end resets
/// the connection.
#[test]
fn an_answer_that_arrives_before_the_end_of_the_request_body_is_read() {
    let double = MockBackend::unread(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge");
    let backend = backend(&double);
    let body = vec![b'a'; 64 << 20];
    for _ in 0..3 {
        let answer = backend.post(&body, TEST_TIMEOUT).expect("the back end answers");
        assert_eq!((answer.status, answer.body.expect("the answer has a complete body")), (413, b"large".to_vec()));
    }
    let silent = MockBackend::unread(b"");
    let failure = self::backend(&silent).post(&body, TEST_TIMEOUT).expect_err("the back end does not answer");
    assert!(failure.is_disconnect(), "{failure:?}");
}

#[test]
fn a_request_to_a_closed_port_is_a_failure() {
    // No process listens on port 1. This test does not take a free port from the kernel, because another process could
    // listen on this port before the test connects.
    let url = BackendUrl::parse("http://127.0.0.1:1/").expect("the URL is valid");
    let contact = BackendConfig { url, node: "node-1".to_owned(), secret: None, authorities: None };
    let backend = Backend::new(contact, 1).expect("the client of the back end can be created");
    assert!(!backend.post(b"{}", TEST_TIMEOUT).expect_err("the port is closed").is_timeout());
}

#[test]
fn a_failure_by_a_panic_contains_the_text_of_the_panic() {
    for panic in [Box::new("no thread") as Box<dyn std::any::Any + Send>, Box::new("no thread".to_owned())] {
        assert_eq!(Failure::Panicked(panic).to_string(), "panicked: \"no thread\"");
    }
}
