//! Tests hostile HTTP up to the upgrade: over 300 inputs in `cases/http_*.rs`, with the expected responses and handler
//! calls.
//!
//! Each case is sent in one piece, then one byte in each turn of the loop, then in two parts for every split point. The
//! second part is sent after the loop has read the first part. Longer inputs are cut near their start, near their end
//! and at a sample of positions between them (see `harness.rs`). A unit test of `find_head_end` cuts the input at every
//! byte.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crate::cases::{http_body, http_head, http_upgrade};
use crate::common::deflated::IS_DEFLATED;
use crate::common::raw::{GET, UPGRADE};
use crate::common::tls::Socket;
use crate::common::{
    DEADLINE, Raw, TestServer, channel, limits_with_long_times, report_close, serve, succeeds_with_longer_time, tls,
};
use crate::harness::{
    Case, LoggingServer, assert_named, check_results, on_threads, send_bytewise, send_split, send_whole,
};
use fdpush::{Cause, Limits, Response};

fn cases() -> Vec<Case> {
    let mut cases = http_upgrade::cases();
    cases.extend(http_head::cases());
    cases.extend(http_body::cases());
    cases.extend(http_head::cases_without_http_handler());
    assert_named(&cases, 300);
    if tls::IS_TLS {
        cases.iter_mut().for_each(refuse_plain_origin);
    }
    if IS_DEFLATED {
        cases.iter_mut().for_each(offer_compression);
    }
    cases
}

/// Adds an offer of permessage-deflate to a case with one upgrade request. The expected result stays the same. Cases at
/// a limit of a head get no offer, because they would exceed the limit with it.
fn offer_compression(case: &mut Case) {
    const KEY: &[u8] = b"Sec-WebSocket-Key: ";
    const OFFER: &[u8] = b"Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let places: Vec<usize> = (0..case.bytes.len()).filter(|at| case.bytes[*at..].starts_with(KEY)).collect();
    let is_at_limit = matches!(&*case.name, "64 headers" | "a head of 8 KiB");
    if let ([place], false) = (&places[..], is_at_limit) {
        let place = *place;
        case.bytes.splice(place..place, OFFER.iter().copied());
    }
}

/// Expects 403 for the server's own origin with the scheme `http`. Through TLS, the server's own origin has the scheme
/// `https`.
fn refuse_plain_origin(case: &mut Case) {
    let text = String::from_utf8_lossy(&case.bytes).to_ascii_lowercase();
    if case.name.starts_with("origin: the same") && text.contains("origin: http://") {
        case.statuses = vec![403];
        case.ran = Vec::new();
    }
}

/// Returns the cases for a server with a handler for plain HTTP, and the cases for a server without such a handler.
fn cases_by_server() -> [(LoggingServer, Vec<Case>); 2] {
    let (bare, served) = cases().into_iter().partition(|case| case.is_bare);
    [(LoggingServer::start(false), served), (LoggingServer::start(true), bare)]
}

#[test]
fn each_case_sent_whole() {
    for (server, cases) in cases_by_server() {
        check_results(&server, send_whole(&server, &cases, LoggingServer::connect));
    }
}

#[test]
fn each_case_sent_byte_by_byte_has_the_expected_result() {
    for (server, cases) in cases_by_server() {
        check_results(&server, send_bytewise(&server, &cases, LoggingServer::connect));
    }
}

#[test]
fn each_case_cut_into_two_parts_has_the_expected_result() {
    let (bare, served): (Vec<Case>, Vec<Case>) = cases().into_iter().partition(|case| case.is_bare);
    for (is_bare, cases) in [(false, served), (true, bare)] {
        on_threads(
            &cases,
            || LoggingServer::start(is_bare),
            |server, case| {
                send_split(server, case, LoggingServer::connect, |sent| check_results(server, sent));
            },
        );
    }
}

#[test]
fn the_end_of_a_head_is_found_for_every_cut() {
    const HEAD_BYTES_MAX: usize = 8 << 10;
    let find = |bytes: &[u8], scanned: &mut usize| fdpush::bench::find_head_end(bytes, scanned, HEAD_BYTES_MAX);
    for case in cases() {
        let whole = find(&case.bytes, &mut 0);
        for cut in 1..case.bytes.len() {
            let mut scanned = 0;
            let outcome = match find(&case.bytes[..cut], &mut scanned) {
                Ok(None) => find(&case.bytes, &mut scanned),
                early => early,
            };
            assert_eq!(outcome, whole, "{} cut at {cut}", case.name);
        }
    }
}

#[test]
fn an_error_response_to_head_has_no_body() {
    let server = serve(|server| server);
    for head in [
        UPGRADE.replacen("GET", "HEAD", 1),
        "HEAD / HTTP/1.1\r\nHost: h\r\nExpect: magic\r\n\r\n".to_owned(),
        "HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n".to_owned(),
        "HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let mut raw = server.raw();
        raw.send(&head);
        let reply = raw.reply_head();
        assert!(reply.status >= 400, "{reply:?}");
        assert_eq!(String::from_utf8_lossy(&raw.rest()), "", "nothing must follow the answer to {head:?}");
    }
}

#[test]
fn a_head_of_20_mb_is_refused_and_not_buffered() {
    let server = serve(|server| server);
    let mut raw = server.raw();
    raw.send("GET / HTTP/1.1\r\nHost: h\r\nX: ");
    let chunk = [b'x'; 64 << 10];
    // The server sends the response after the first 8 KiB. Then the server reads and discards bytes until a deadline.
    for _ in 0..320 {
        if !raw.try_send(chunk) {
            break;
        }
    }
    assert_eq!(raw.reply().status, 431);
    assert_eq!(server.ask(|ctx| ctx.stats().queued_bytes), 0);
}

/// Appends the bytes that arrive within the read timeout to `came`. Returns whether the stream has ended.
fn has_ended(stream: &mut Socket, came: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 1024];
    match stream.read(&mut chunk) {
        Ok(0) => true,
        Ok(count) => {
            came.extend_from_slice(&chunk[..count]);
            false
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => true,
        Err(error) => panic!("{error}"),
    }
}

/// Opens a connection, and completes a request on it.
fn connect_and_request(server: &TestServer) -> Socket {
    let mut stream = Socket::connect(server.address());
    stream.write_all(GET.as_bytes()).expect("the bytes can be sent");
    let mut came = Vec::new();
    while !came.ends_with(b"good\n") {
        assert!(!has_ended(&mut stream, &mut came), "the server must keep the connection open");
    }
    stream
}

/// Sends `start` and then further bytes slowly on many connections, until the server has ended all of them. Meanwhile
/// the server must still serve other clients. Returns the response of each connection.
///
/// The server gets the limits only after each client has completed a request. So the limits do not apply to the TLS
/// handshakes.
fn send_slowly(limits: Limits, start: &str) -> Vec<String> {
    const DRIPPERS: usize = 100;
    let server = serve(|server| server.on_request(|_, _, _| Response::text(200, "good\n")));
    let mut good = server.raw();
    good.send(GET);
    assert_eq!(good.reply().status, 200);
    let mut drippers: Vec<_> = (0..DRIPPERS).map(|_| (connect_and_request(&server), Vec::new())).collect();
    server.ask(|ctx| ctx.set_limits(limits)).expect("the limits are valid");
    for (stream, _) in &mut drippers {
        stream.tcp().set_read_timeout(Some(Duration::from_micros(100))).expect("the read timeout can be set");
        stream.write_all(start.as_bytes()).expect("the bytes can be sent");
    }
    let mut tx = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while !drippers.is_empty() {
        assert!(Instant::now() < deadline, "the server must end all connections, but {} are open", drippers.len());
        drippers.retain_mut(|(stream, came)| {
            let _ = stream.write_all(b"x");
            let is_over = has_ended(stream, came);
            if is_over {
                tx.push(String::from_utf8_lossy(came).into_owned());
            }
            !is_over
        });
        good.send(GET);
        assert_eq!(good.reply().status, 200);
    }
    tx
}

#[test]
fn a_head_must_arrive_in_time_and_a_byte_does_not_extend_the_deadline() {
    let limits = Limits { head_time_max: Duration::from_millis(300), ..limits_with_long_times() };
    for tx in send_slowly(limits, "GET / HTTP/1.1\r\nHost: h\r\nX: ") {
        assert!(tx.starts_with("HTTP/1.1 408 "), "{tx:?}");
    }
}

#[test]
fn a_body_must_arrive_in_time_and_a_byte_does_not_extend_the_deadline() {
    let limits = Limits { body_time_max: Duration::from_millis(300), ..limits_with_long_times() };
    for tx in send_slowly(limits, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n") {
        assert!(tx.starts_with("HTTP/1.1 408 "), "{tx:?}");
    }
}

#[test]
fn a_silent_connection_gets_408_in_time() {
    // Through TLS, the deadline of the head includes the handshake. A handshake that is too late gets no response.
    let get_408 = |head_time_max| {
        let server = serve(move |server| server.limits(Limits { head_time_max, ..limits_with_long_times() }));
        let mut silent: Vec<Raw> = (0..50).map(|_| server.raw()).collect();
        silent.iter_mut().all(|raw| raw.try_rest().starts_with(b"HTTP/1.1 408 "))
    };
    assert!(succeeds_with_longer_time(get_408));
}

#[test]
fn a_second_upgrade_on_a_websocket_is_a_protocol_error() {
    let (tx, rx) = channel();
    let server = serve(|server| server.on_close(report_close(tx)));
    let mut raw = server.raw();
    raw.send(UPGRADE);
    assert_eq!(raw.reply().status, 101);
    raw.send(UPGRADE);
    assert_eq!(raw.close_frame().0, 1002, "a second upgrade request must be a protocol error");
    let (_, closed) = rx.next();
    assert!(matches!(closed.cause, Cause::ProtocolError(_)), "{closed:?}");
    assert_eq!(server.ask(|ctx| ctx.stats().opened), 1);
}
