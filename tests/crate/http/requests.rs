//! Tests plain HTTP on the WebSocket port: requests, bodies, pipelining, and the status for each invalid request.

use std::time::Duration;

use crate::common::raw::GET;
use crate::common::{
    Raw, TestReceiver, TestServer, channel, limits_with_long_times, serve, serve_plain, succeeds_with_longer_time,
};
use fdpush::{Closures, Context, Fd, Handler, Limits, Request, Response, Server, State};

/// Responds with method, path, query and body of the request.
fn echo_requests(server: Server) -> Server<Closures> {
    server.on_request(|_, _, request| {
        let name = request.query("name").unwrap_or_default().into_owned();
        let body = String::from_utf8_lossy(request.body());
        Response::text(200, format!("{} {} {name} {body}", request.method(), request.path()))
    })
}

/// Starts a server with these limits. The server responds with the number of bytes in the body. The returned receiver
/// gets the target of every request.
fn serve_with(limits: Limits) -> (TestServer, TestReceiver<String>) {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.limits(limits).on_request(move |_, _, request| {
            tx.send(request.target().to_owned()).expect("the test waits");
            Response::text(200, format!("{} bytes", request.body().len()))
        })
    });
    (server, rx)
}

/// A server that ends silent connections after 20 ms. If a test connects to this server and waits for the end of the
/// connection, 20 ms pass without a sleep.
struct Clock(TestServer);

impl Clock {
    fn start() -> Clock {
        // This server has no TLS, because a TLS handshake can take longer than 20 ms.
        let limits = Limits { head_time_max: Duration::from_millis(20), ..limits_with_long_times() };
        Clock(serve_plain(move |server| server.limits(limits)))
    }

    fn tick(&self) {
        assert_eq!(self.0.raw().reply().status, 408);
    }
}

/// Sends bytes on a new connection. Expects a response with this status, and then the end of the stream.
fn expect_refusal(server: &TestServer, bytes: impl AsRef<[u8]>, status: u16) -> crate::common::raw::HttpResponse {
    let mut raw = server.raw();
    // The server may close the connection before the client has sent all bytes.
    raw.try_send(bytes.as_ref());
    let reply = raw.reply();
    let shown = String::from_utf8_lossy(&bytes.as_ref()[..bytes.as_ref().len().min(200)]).into_owned();
    assert_eq!(reply.status, status, "the response to {shown:?} must have the status {status}: {:?}", reply.head);
    assert!(
        !reply.keeps_alive() && !reply.body.is_empty(),
        "the response to {shown:?} must have a body and close the connection: {:?}",
        reply.head
    );
    raw.end();
    reply
}

#[test]
fn a_request_is_answered_by_the_handler() {
    let server = serve(echo_requests);
    let mut raw = server.raw();
    raw.send("GET /a%20path?name=J%C3%BCrgen+Q HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = raw.reply();
    assert_eq!((reply.status, reply.body.as_str()), (200, "GET /a path Jürgen Q "));
    assert_eq!(reply.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert!(reply.header("Date").is_some_and(|date| date.ends_with(" GMT")));
    assert!(reply.keeps_alive());
}

#[test]
fn a_response_has_status_headers_and_cookies() {
    let server = serve(|server| {
        server.on_request(|_, _, request| {
            assert_eq!(request.header("X-ASKED"), Some("yes"));
            assert_eq!(request.cookie("sid"), Some("7"));
            assert!(request.peer().is_loopback());
            Response::json(404, r#"{"error":"none"}"#).header("X-Told", "too").cookie("sid=8; Path=/")
        })
    });
    let mut raw = server.raw();
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\nx-asked: yes\r\nCookie: a=b; sid=7\r\n\r\n");
    let reply = raw.reply();
    assert_eq!((reply.status, reply.body.as_str()), (404, r#"{"error":"none"}"#));
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    assert_eq!(reply.header("X-Told"), Some("too"));
    assert_eq!(reply.header("Set-Cookie"), Some("sid=8; Path=/"));
}

#[test]
fn a_head_request_gets_a_content_length_and_no_body() {
    let server = serve(echo_requests);
    let mut raw = server.raw();
    raw.send("HEAD /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    raw.send(GET);
    let head = raw.reply_head();
    assert_eq!((head.status, head.header("Content-Length")), (200, Some("9")));
    assert_eq!(raw.reply().body, "GET /  ", "the next response must follow directly after the head");
}

#[test]
fn a_connection_is_kept_alive_if_the_client_asks_for_it() {
    let server = serve(echo_requests);
    let mut raw = server.raw();
    for _ in 0..3 {
        raw.send(GET);
        assert!(raw.reply().keeps_alive());
    }
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(!raw.reply().keeps_alive());
    raw.end();

    let mut old = server.raw();
    old.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(old.reply().keeps_alive());
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert!(!old.reply().keeps_alive());
    old.end();
}

#[test]
fn an_idle_keep_alive_connection_is_closed() {
    let limits = Limits { keep_alive_max: Duration::from_millis(50), ..limits_with_long_times() };
    let (server, _heard) = serve_with(limits);
    let mut raw = server.raw();
    raw.send(GET);
    assert_eq!(raw.reply().status, 200);
    raw.end();
}

#[test]
fn a_handler_can_close_the_connection_after_its_response() {
    let server = serve(|server| server.on_request(|_, _, _| Response::text(200, "the last\n").close()));
    let mut raw = server.raw();
    raw.send([GET, GET].concat());
    assert!(!raw.reply().keeps_alive());
    raw.end();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = serve(echo_requests);
    let mut raw = server.raw();
    let requests: String = (0..50)
        .map(|index| format!("POST /{index} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"))
        .collect();
    raw.send(requests);
    for index in 0..50 {
        assert_eq!(raw.reply().body, format!("POST /{index}  hi"));
    }
}

#[test]
fn pipelined_requests_wait_until_the_client_reads_the_responses() {
    const REQUESTS: usize = 200;
    let large = "x".repeat(100_000);
    let server = serve(move |server| server.on_request(move |_, _, _| Response::text(200, large.clone())));
    let mut raw = server.raw();
    raw.send(GET.repeat(REQUESTS));
    // The responses have 20 MB in total. The queue may exceed its bound by one response.
    server.wait_until("the socket is full", |ctx| ctx.stats().queued_bytes > 0);
    assert!(server.ask(|ctx| ctx.stats().queued_bytes) < 1 << 20);
    for _ in 0..REQUESTS {
        assert_eq!(raw.reply().body.len(), 100_000);
    }
}

#[test]
fn a_body_with_a_length_or_in_chunks_is_accepted_whole_or_byte_by_byte() {
    let server = serve(echo_requests);
    let length = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\nhello world";
    let chunks = "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
    let mut raw = server.raw();
    for request in [length, chunks] {
        raw.send(request);
        assert_eq!(raw.reply().body, "POST /x  hello world");
        for byte in request.bytes() {
            raw.send([byte]);
        }
        assert_eq!(raw.reply().body, "POST /x  hello world");
    }
    raw.send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(raw.reply().body, "POST /x  ");
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    let (server, _heard) = serve_with(Limits { body_bytes_max: 1000, ..limits_with_long_times() });
    let mut raw = server.raw();
    let head = |length: usize| {
        format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n")
    };
    raw.send(head(4));
    assert_eq!(raw.reply_head().status, 100);
    raw.send("body");
    assert_eq!(raw.reply().body, "4 bytes");
    // A client that sends the body without waiting gets no response with status 100.
    raw.send(head(4) + "body");
    assert_eq!(raw.reply().status, 200);
    // A body over the limit is refused by its length, before the client sends it.
    expect_refusal(&server, head(1001), 413);
}

#[test]
fn a_body_over_the_limit_gets_413() {
    let (server, rx) = serve_with(Limits { body_bytes_max: 1000, ..limits_with_long_times() });
    let mut raw = server.raw();
    raw.send(format!("POST /fits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000)));
    assert_eq!(raw.reply().body, "1000 bytes");
    expect_refusal(&server, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n", 413);
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    expect_refusal(&server, format!("{head}{chunk}{chunk}1\r\nx\r\n"), 413);
    assert_eq!(rx.so_far(), ["/fits"]);
}

#[test]
fn without_a_handler_a_request_gets_404_and_a_failed_upgrade_426() {
    let server = serve(|server| server);
    let mut raw = server.raw();
    raw.send(GET);
    assert_eq!(raw.reply().status, 404);
    // This request is that of a client behind a proxy that removes `Connection: Upgrade`.
    raw.send(crate::common::raw::UPGRADE.replace("Connection: Upgrade\r\n", ""));
    let reply = raw.reply();
    assert_eq!((reply.status, reply.header("Upgrade")), (426, Some("websocket")));
    assert_eq!(reply.header("Sec-WebSocket-Version"), Some("13"));
}

#[test]
fn an_unfinished_head_gets_408() {
    // Through TLS, the deadline of the head includes the handshake. A handshake that is too late gets no response.
    let gets_408 = |head_time_max| {
        let (server, rx) = serve_with(Limits { head_time_max, ..limits_with_long_times() });
        let refused = |bytes: &str| {
            let mut raw = server.raw();
            raw.try_send(bytes);
            let reply = String::from_utf8(raw.try_rest()).expect("the response is UTF-8");
            let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_default();
            head.starts_with("HTTP/1.1 408 ") && head.contains("\r\nConnection: close") && !body.is_empty()
        };
        let is_refused = refused("") && refused("GET / HTTP/1.1\r\nHost: localhost\r\n");
        assert!(rx.so_far().is_empty());
        is_refused
    };
    assert!(succeeds_with_longer_time(gets_408));
}

#[test]
fn a_head_sent_slowly_gets_408_because_a_byte_does_not_extend_the_deadline() {
    // Through TLS, the deadline of the head includes the handshake, which takes longer on a busy machine.
    let limits = Limits { head_time_max: Duration::from_millis(500), ..limits_with_long_times() };
    let (tx, rx) = channel();
    let server = serve_plain(move |server| {
        server.limits(limits).on_request(move |_, _, request| {
            tx.send(request.target().to_owned()).expect("the test waits");
            Response::new(200)
        })
    });
    let mut dripping = server.raw();
    dripping.send("GET / HTTP/1.1\r\nHost: localhost\r\nX-Drip: ");
    let is_http = |ctx: &mut Context<'_>| {
        ctx.info(Fd::from_u64(1).expect("the fd is valid")).is_some_and(|info| info.state == State::Http)
    };
    server.wait_until("the connection is accepted", |ctx| ctx.stats().accepted == 1);
    // The client sends bytes at intervals shorter than the deadline, for a time longer than the deadline.
    let clock = Clock::start();
    for _ in 0..1000 {
        clock.tick();
        if !server.ask(is_http) {
            break;
        }
        dripping.try_send("x");
    }
    assert!(!server.ask(is_http), "the server must close the connection although it receives bytes");
    assert_eq!(dripping.reply().status, 408);
    assert!(rx.so_far().is_empty());
}

#[test]
fn an_unfinished_body_gets_408() {
    let limits = Limits { body_time_max: Duration::from_millis(50), ..limits_with_long_times() };
    let (server, rx) = serve_with(limits);
    expect_refusal(&server, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf", 408);
    assert!(rx.so_far().is_empty());
}

#[test]
fn a_head_with_too_many_bytes_or_lines_gets_431() {
    let (server, rx) = serve_with(limits_with_long_times());
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(8 << 10));
    expect_refusal(&server, long, 431);
    let endless = format!("GET /{}", "x".repeat(100_000));
    expect_refusal(&server, endless, 431);
    let lines = |count: usize| {
        let lines: String = (1..count).map(|line| format!("X-{line}: x\r\n")).collect();
        format!("GET /lines HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
    };
    expect_refusal(&server, lines(65), 431);
    let mut raw = server.raw();
    raw.send(lines(64));
    assert_eq!(raw.reply().status, 200);
    assert_eq!(rx.so_far(), ["/lines"]);
}

/// The host in the target has precedence over `Host` (RFC 9112 section 3.2.2).
#[test]
fn an_absolute_form_target_sets_path_and_host() {
    let server = serve(|server| {
        server.on_request(|_, _, request| {
            let hosts: Vec<&str> = request.header_all("host").collect();
            Response::text(200, format!("{} of {}", request.target(), hosts.join(" and ")))
        })
    });
    let mut raw = server.raw();
    for (target, body) in [
        ("http://push.example/a?b=http://c", "/a?b=http://c of push.example"),
        ("HTTPS://Push.example:8443?b", "/?b of Push.example:8443"),
        ("http://[::1]:1", "/ of [::1]:1"),
        ("/a", "/a of other.example"),
    ] {
        raw.send(format!("GET {target} HTTP/1.1\r\nX: y\r\nHost: other.example\r\nContent-Length: 1\r\n\r\nx"));
        assert_eq!(raw.reply().body, body, "{target}");
    }
    raw.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(raw.reply().body, "* of localhost");
    raw.send("GET http://push.example/a HTTP/1.0\r\n\r\n");
    assert_eq!(raw.reply().body, "/a of push.example");
}

#[test]
fn an_invalid_request_is_refused_and_later_requests_are_not_handled() {
    let (server, rx) = serve_with(limits_with_long_times());
    let head = |line: &str, headers: &str| format!("{line}\r\n{headers}\r\n");
    let ok = "Host: localhost\r\n";
    let post = "POST / HTTP/1.1";
    let table: Vec<(String, u16)> = vec![
        ("\x16\x03\x01\x02\0\x01\0 a TLS hello".to_owned(), 400),
        ("GET / HTTP/1.1\nHost: localhost\n\n".to_owned(), 400),
        (head("GET  / HTTP/1.1", ok), 400),
        (head("GET / HTTP/1.1 ", ok), 400),
        (head("GET http://localhost/ HTTP/1.1", ""), 400),
        (head("GET http://localhost/ HTTP/1.1", "Host: a\r\nHost: a\r\n"), 400),
        (head("GET http://localhost/ HTTP/1.1", "Host: a b\r\n"), 400),
        (head("GET http://user@localhost/ HTTP/1.1", ok), 400),
        (head("GET http:///path HTTP/1.1", ok), 400),
        (head("GET ftp://localhost/ HTTP/1.1", ok), 400),
        (head("GET * HTTP/1.1", ok), 400),
        (head("CONNECT localhost:80 HTTP/1.1", ok), 400),
        (head("GET /#fragment HTTP/1.1", ok), 400),
        (head("GET /%e9 HTTP/1.1", ok), 400),
        (head("GET /%zz HTTP/1.1", ok), 400),
        (head("GET / HTTP/2.0", ok), 505),
        (head("GET / HTTP/1.2", ok), 505),
        (head("GET / HTTP/1.1", ""), 400),
        (head("GET / HTTP/1.1", "Host: a\r\nHost: a\r\n"), 400),
        (head("GET / HTTP/1.1", "Host: a b\r\n"), 400),
        (head("GET / HTTP/1.1", "Host: localhost\r\nX : space before the colon\r\n"), 400),
        (head("GET / HTTP/1.1", "Host: localhost\r\nX: folded\r\n line\r\n"), 400),
        (head("GET / HTTP/1.1", "Host: localhost\r\nExpect: miracles\r\n"), 417),
        (head(post, "Host: localhost\r\nContent-Length: 2\r\nContent-Length: 2\r\n"), 400),
        (head(post, "Host: localhost\r\nContent-Length: 2, 2\r\n"), 400),
        (head(post, "Host: localhost\r\nContent-Length: +2\r\n"), 400),
        (head(post, "Host: localhost\r\nContent-Length: -2\r\n"), 400),
        (head(post, "Host: localhost\r\nContent-Length: 18446744073709551616\r\n"), 400),
        (head(post, "Host: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
        (head(post, "Host: localhost\r\nTransfer-Encoding: chunked, chunked\r\n"), 400),
        (head(post, "Host: localhost\r\nTransfer-Encoding: gzip, chunked\r\n"), 501),
        (head(post, "Host: localhost\r\nTransfer-Encoding: chunked\r\n") + "-1\r\nx\r\n0\r\n\r\n", 400),
        (head(post, "Host: localhost\r\nTransfer-Encoding: chunked\r\n") + "1\nx\r\n0\r\n\r\n", 400),
        (head(post, "Host: localhost\r\nTransfer-Encoding: chunked\r\n") + "1\r\nxx\r\n0\r\n\r\n", 400),
        (head("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n"), 400),
    ];
    for (bytes, status) in table {
        expect_refusal(&server, bytes + "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n", status);
    }
    assert!(rx.so_far().is_empty());
}

#[test]
fn an_invalid_response_becomes_a_500() {
    let server = serve(|server| {
        server.on_request(|_, _, request| match request.target() {
            "/value" => Response::text(200, "secret").header("X-Name", "a\r\nSet-Cookie: evil=1"),
            "/name" => Response::text(200, "secret").header("X Name", "value"),
            "/own" => Response::text(200, "secret").header("Content-Length", "1"),
            "/status" => Response::text(99, "secret"),
            _ => Response::text(200, "fine"),
        })
    });
    for target in ["/value", "/name", "/own", "/status"] {
        let mut raw = server.raw();
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let reply = raw.reply();
        assert_eq!(reply.status, 500, "{target}");
        assert!(!reply.head.contains("evil") && !reply.body.contains("secret"), "{target}: {reply:?}");
        raw.end();
    }
}

#[test]
fn a_client_that_shuts_down_its_write_side_still_gets_the_response() {
    let server = serve(echo_requests);
    let mut raw = server.raw();
    raw.send(GET);
    raw.shutdown_write();
    assert_eq!(raw.reply().status, 200);
    raw.end();
    // If a client disconnects within a request head, the server keeps no state of the connection.
    let mut raw = Raw::connect(server.address());
    raw.send("GET / HT");
    raw.shutdown_write();
    raw.end();
    server.wait_until("both connections have ended", |ctx| ctx.stats().connections == 0);
}

#[test]
fn a_plain_http_connection_has_no_on_open_and_no_on_close() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        let open = tx.clone();
        echo_requests(server)
            .on_open(move |_, _, _| open.send("open").expect("the test waits"))
            .on_close(move |_, _, _| tx.send("close").expect("the test waits"))
    });
    let mut raw = server.raw();
    raw.send(GET);
    assert_eq!(raw.reply().status, 200);
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!((stats.connections, stats.open, stats.opened), (1, 0, 0));
    drop(raw);
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
    assert!(rx.so_far().is_empty());
}

#[test]
fn a_connection_can_become_a_websocket_after_plain_requests() {
    let server = serve(|server| echo_requests(server).on_message(crate::common::echo));
    let mut raw = server.raw();
    raw.send([GET, crate::common::raw::UPGRADE].concat());
    assert_eq!(raw.reply().status, 200);
    assert_eq!(raw.reply().status, 101);
    raw.send_frame(crate::common::raw::TEXT, b"now frames");
    assert_eq!(raw.frame(), (0x81, b"now frames".to_vec()));
}

#[test]
fn keep_alive_max_does_not_truncate_a_response() {
    const BYTES: usize = 20 << 20;
    let limits = Limits { keep_alive_max: Duration::from_millis(50), ..limits_with_long_times() };
    let large = "x".repeat(BYTES);
    let server =
        serve(move |server| server.limits(limits).on_request(move |_, _, _| Response::text(200, large.clone())));
    let mut raw = server.raw();
    raw.send(GET);
    server.wait_until("the socket is full", |ctx| ctx.stats().queued_bytes > 0);
    let clock = Clock::start();
    for _ in 0..10 {
        clock.tick();
    }
    let reply = raw.reply();
    assert_eq!((reply.status, reply.body.len()), (200, BYTES));
    raw.end();
}

#[test]
fn the_largest_durations_are_valid_limits() {
    let never = Duration::MAX;
    let limits = Limits {
        head_time_max: never,
        body_time_max: never,
        answer_time_max: never,
        keep_alive_max: never,
        message_time_max: never,
        close_wait_max: never,
        write_time_max: never,
        ..limits_with_long_times()
    };
    let (server, _heard) = serve_with(limits);
    let mut raw = server.raw();
    raw.send(GET);
    assert_eq!(raw.reply().status, 200);
    expect_refusal(&server, "nonsense\r\n\r\n", 400);
    let mut client = server.connect("/");
    client.close(1000, "");
    assert_eq!(client.closed().0, 1000);
}

#[test]
fn a_handler_can_leave_a_request_unanswered() {
    struct OnlyApi;
    impl Handler for OnlyApi {
        fn on_request(&mut self, _: &mut Context<'_>, _: Fd, request: &Request<'_>) -> Option<Response> {
            (request.path() == "/api").then(|| Response::text(200, "api\n"))
        }
    }
    let server = serve(|server| server.handler(OnlyApi));
    let mut raw = server.raw();
    for (target, status) in [("/api", 200), ("/elsewhere", 404), ("/api", 200)] {
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(raw.reply().status, status, "{target}");
    }
}
