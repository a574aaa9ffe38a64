//! Tests upgrades: the 101 response, the status of each refusal, and deferred answers.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::raw::{TEXT, UPGRADE, frame};
use crate::common::{
    DEADLINE, DropSignal, Raw, TestReceiver, TestServer, accept_with_fd, channel, echo, limits_with_long_times, serve,
    tls,
};
use fdpush::{Limits, Origins, Response, Ticket, Upgrade};

/// Starts a server that defers every upgrade and sends each ticket to the test.
fn serve_deferring(limits: Limits) -> (TestServer, TestReceiver<Ticket<Upgrade>>) {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.limits(limits).on_message(echo).on_upgrade(move |ctx, fd, _| {
            let (later, ticket) = ctx.defer_upgrade(fd);
            tx.send(ticket).expect("the test waits");
            later
        })
    });
    (server, rx)
}

/// The scheme of the server's own origin.
const OWN_SCHEME: &str = if tls::IS_TLS { "https" } else { "http" };

fn expect_status(server: &TestServer, bytes: &str, status: u16) -> crate::common::raw::HttpResponse {
    let mut raw = server.raw();
    raw.send(bytes);
    let reply = raw.reply();
    assert_eq!(reply.status, status, "{bytes}");
    if status != 101 {
        raw.end();
    }
    reply
}

#[test]
fn an_upgrade_is_answered_with_the_key_of_rfc_6455() {
    let server = serve(|server| server);
    let reply = expect_status(&server, UPGRADE, 101);
    // The key and the accept value are the example of RFC 6455, section 1.3.
    assert_eq!(reply.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(reply.header("Upgrade"), Some("websocket"));
    assert_eq!(reply.header("Connection"), Some("Upgrade"));
    assert_eq!(reply.header("Sec-WebSocket-Protocol"), None);
    assert_eq!(reply.header("Sec-WebSocket-Extensions"), None);
}

#[test]
fn the_tokens_of_an_upgrade_are_accepted_in_lists_and_in_any_case() {
    let server = serve(|server| server);
    for (from, to) in [
        ("Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
        ("Connection: Upgrade", "connection: keep-alive\r\nConnection: upgrade"),
        ("Upgrade: websocket", "upgrade: h2c, WebSocket"),
        ("GET / ", "GET /deep/path?with=query "),
    ] {
        expect_status(&server, &UPGRADE.replace(from, to), 101);
    }
}

#[test]
fn each_invalid_upgrade_gets_its_status() {
    let server = serve(|server| server);
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
    for (from, to, status) in [
        ("GET", "POST", 405),
        ("GET", "PUT", 405),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("HTTP/1.1", "HTTP/2.0", 505),
        ("Host: localhost\r\n", "", 400),
        ("GET /", "GET /#", 400),
        (KEY, "", 400),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
        (KEY, "Sec-WebSocket-Key: not base64 at all!!!!==\r\n", 400),
        (KEY, "Sec-WebSocket-Key: c2hvcnQ=\r\n", 400),
        (KEY, "Sec-WebSocket-Key: \r\n", 400),
        (VERSION, "", 426),
        (VERSION, "Sec-WebSocket-Version: 0\r\n", 426),
        (VERSION, "Sec-WebSocket-Version: 8\r\n", 426),
        (VERSION, "Sec-WebSocket-Version: 99\r\n", 426),
        (VERSION, "Sec-WebSocket-Version: 13\r\nContent-Length: 5\r\n", 400),
        (VERSION, "Sec-WebSocket-Version: 13\r\nTransfer-Encoding: chunked\r\n", 400),
    ] {
        assert!(UPGRADE.contains(from));
        let reply = expect_status(&server, &UPGRADE.replacen(from, to, 1), status);
        match status {
            405 => assert_eq!(reply.header("Allow"), Some("GET")),
            426 => assert_eq!(reply.header("Sec-WebSocket-Version"), Some("13")),
            _ => {}
        }
    }
    assert_eq!(server.ask(|ctx| ctx.stats().opened), 0);
}

#[test]
fn a_foreign_origin_gets_403() {
    let server = serve(|server| server);
    let port = server.address().port();
    let with_origin = |origin: &str| {
        let host = format!("Host: localhost:{port}\r\nOrigin: {origin}\r\n");
        UPGRADE.replace("Host: localhost\r\n", &host)
    };
    expect_status(&server, &with_origin(&format!("{OWN_SCHEME}://localhost:{port}")), 101);
    for origin in [
        "http://evil-example.com".to_owned(),
        format!("http://localhost:{port}.evil.com"),
        format!("http://evil-localhost:{port}"),
        format!("http://localhost.evil.com:{port}"),
        format!("https://localhost:{}", port ^ 1),
        "http://localhost".to_owned(),
        "null".to_owned(),
        "no origin".to_owned(),
    ] {
        expect_status(&server, &with_origin(&origin), 403);
    }
    assert_eq!(server.ask(|ctx| ctx.stats().opened), 1);

    // The host in a target in absolute-form replaces `Host` (RFC 9112 section 3.2.2).
    let absolute = |target: &str, host: &str, origin: &str| {
        let lines = format!("Host: {host}\r\nOrigin: {origin}\r\n");
        UPGRADE.replacen("GET /", &format!("GET {target}"), 1).replace("Host: localhost\r\n", &lines)
    };
    let own = format!("{OWN_SCHEME}://localhost:{port}");
    expect_status(&server, &absolute(&own, "evil.example", &own), 101);
    expect_status(&server, &absolute(&format!("{own}/"), "evil.example", "http://evil.example"), 403);
    expect_status(&server, &absolute("http://evil.example/", &format!("localhost:{port}"), &own), 403);
    expect_status(&server, &absolute("http://evil.example/", "localhost", "http://evil.example"), 403);
    assert_eq!(server.ask(|ctx| ctx.stats().opened), 2);
}

#[test]
fn listed_origins_are_accepted_and_with_any_all_origins() {
    let origins = Origins::list(["https://app.example.com"]).expect("the origin is valid");
    let server = serve(|server| server.origins(origins));
    let with_origin = |origin: &str| {
        UPGRADE.replace("Host: localhost\r\n", &format!("Host: push.example.com\r\nOrigin: {origin}\r\n"))
    };
    expect_status(&server, &with_origin("https://app.example.com"), 101);
    expect_status(&server, &with_origin("https://app.example.com.evil.com"), 403);
    expect_status(&server, &with_origin("http://app.example.com"), 403);

    let server = serve(|server| server.origins(Origins::Any));
    expect_status(&server, &with_origin("https://anywhere.example"), 101);
}

#[test]
fn the_handler_sees_the_request() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.on_upgrade(move |ctx, fd, request| {
            let offered: Vec<&str> = request.subprotocols().collect();
            let seen = format!(
                "{} {} {} {:?} {:?} {offered:?}",
                request.method(),
                request.path(),
                request.query("q").unwrap_or_default(),
                request.header("x-one"),
                request.cookie("sid"),
            );
            tx.send((seen, request.peer())).expect("the test waits");
            accept_with_fd(ctx, fd, request)
        })
    });
    let headers = [("X-One", "1"), ("Cookie", "a=b; sid=42")];
    let _client = server.connect_with("/a%2Fb?q=1%202", &headers);
    let (seen, peer) = rx.next();
    assert_eq!(seen, r#"GET /a/b 1 2 Some("1") Some("42") []"#);
    assert!(peer.is_loopback());
}

#[test]
fn the_101_response_has_the_headers_cookies_and_subprotocol_of_the_handler() {
    let server = serve(|server| {
        server.on_upgrade(|_, _, request| {
            let offered: Vec<&str> = request.subprotocols().collect();
            assert_eq!(offered, ["chat.v1", "chat.v2"]);
            let accept = Upgrade::accept().header("X-Node", "7").cookie("sid=1; Path=/").cookie("theme=dark");
            accept.subprotocol("chat.v2")
        })
    });
    let client = server.connect_with("/", &[("Sec-WebSocket-Protocol", "chat.v1, chat.v2")]);
    assert_eq!(client.header("X-Node"), Some("7"));
    assert_eq!(client.header("Set-Cookie"), Some("sid=1; Path=/"));
    assert_eq!(client.header("Sec-WebSocket-Protocol"), Some("chat.v2"));
}

#[test]
fn an_invalid_accept_becomes_a_500() {
    let server = serve(|server| {
        server.on_upgrade(|_, _, request| match request.target() {
            "/unoffered" => Upgrade::accept().subprotocol("chat"),
            "/injection" => Upgrade::accept().header("X-Name", "a\r\nX-Evil: 1"),
            _ => Upgrade::accept().header("Sec-WebSocket-Accept", "mine"),
        })
    });
    for target in ["/unoffered", "/injection", "/own"] {
        assert_eq!(server.refusal(target, &[]).0, 500, "{target}");
    }
    server.wait_until("all connections have ended", |ctx| ctx.stats().connections == 0);
    assert_eq!(server.ask(|ctx| ctx.stats().opened), 0);
}

#[test]
fn an_upgrade_can_be_refused_with_any_status() {
    let server = serve(|server| {
        server.on_upgrade(|_, _, request| {
            let status = request.query("status").and_then(|status| status.parse().ok()).unwrap_or(200);
            Upgrade::refuse(Response::text(status, "not you\n").header("X-Why", "because"))
        })
    });
    for status in [200, 302, 401, 403, 404, 429, 503] {
        assert_eq!(server.refusal(&format!("/?status={status}"), &[]), (status, "not you\n".to_owned()));
    }
    server.wait_until("all connections have ended", |ctx| ctx.stats().connections == 0);
}

#[test]
fn an_on_upgrade_closure_can_return_accept_response_or_upgrade() {
    let accepts = serve(|server| server.on_upgrade(|_, _, _| Upgrade::accept().header("X-Way", "accept")));
    assert_eq!(accepts.connect("/").header("X-Way"), Some("accept"));
    let refuses = serve(|server| server.on_upgrade(|_, _, _| Response::text(402, "pay\n")));
    assert_eq!(refuses.refusal("/", &[]), (402, "pay\n".to_owned()));
    let either = serve(|server| {
        server.on_upgrade(|_, _, request| {
            let uid = request.query("uid").ok_or_else(|| Response::text(401, "who?\n"))?;
            Ok::<_, Response>(Upgrade::accept().uid(uid))
        })
    });
    assert_eq!(either.refusal("/", &[]), (401, "who?\n".to_owned()));
    let _ann = either.connect("/?uid=ann");
    assert!(either.ask(|ctx| ctx.is_online("ann")));
}

#[test]
fn frames_directly_after_the_head_are_delivered_after_the_101() {
    let server = serve(|server| {
        server.on_message(echo).on_open(|ctx, fd, _| {
            ctx.push(fd, "welcome");
        })
    });
    let mut raw = server.raw();
    raw.send([UPGRADE.as_bytes(), &frame(TEXT, b"one"), &frame(TEXT, b"two"), &frame(TEXT, b"three")[..4]].concat());
    assert_eq!(raw.reply().status, 101);
    for text in ["welcome", "one", "two"] {
        assert_eq!(raw.frame(), (0x81, text.as_bytes().to_vec()));
    }
    raw.send(&frame(TEXT, b"three")[4..]);
    assert_eq!(raw.frame(), (0x81, b"three".to_vec()));
}

#[test]
fn frames_and_requests_after_a_refused_upgrade_are_ignored() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.on_upgrade(|_, _, _| Upgrade::refuse(Response::text(403, "no\n"))).on_request(move |_, _, _| {
            tx.send(()).expect("the test waits");
            Response::text(200, "")
        })
    });
    expect_status(&server, &format!("{UPGRADE}GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"), 403);
    assert!(rx.so_far().is_empty());
}

#[test]
fn an_upgrade_can_be_accepted_later_from_another_thread() {
    let (server, waiting) = serve_deferring(limits_with_long_times());
    let thread_of_answer = thread::spawn(move || {
        let ticket = waiting.next();
        let fd = ticket.fd();
        ticket.answer(Upgrade::accept().header("X-Fd", fd.to_string()).uid("ann")).expect("the inbox has room");
        fd
    });
    let mut client = server.connect("/");
    assert_eq!(thread_of_answer.join().expect("the thread ends without a panic"), client.fd());
    assert_eq!(server.ask(|ctx| ctx.push_uid("ann", "you are ann")).queued, 1);
    assert_eq!(client.text(), "you are ann");
}

#[test]
fn an_upgrade_can_be_refused_later_from_another_thread() {
    let (server, waiting) = serve_deferring(limits_with_long_times());
    let thread_of_answer = thread::spawn(move || {
        let refusal = Upgrade::refuse(Response::text(401, "who are you?\n"));
        waiting.next().answer(refusal).expect("the inbox has room");
    });
    assert_eq!(server.refusal("/", &[]), (401, "who are you?\n".to_owned()));
    thread_of_answer.join().expect("the thread ends without a panic");
}

#[test]
fn one_call_can_answer_any_number_of_upgrades() {
    // If each answer caused the next answer in a recursive call, this number of answers would overflow the stack. TLS
    // handshakes are slow in a debug build, so the test makes fewer upgrades with TLS.
    const UPGRADES: usize = if tls::IS_TLS { 200 } else { 3000 };
    // Each client sends its request after the TLS handshakes of all clients, and gets its answer after the requests
    // of all clients. So the time limits are long.
    let hour = Duration::from_secs(3600);
    let limits = Limits { head_time_max: hour, answer_time_max: hour, ..limits_with_long_times() };
    let (server, waiting) = serve_deferring(limits);
    let mut clients: Vec<Raw> = (0..UPGRADES).map(|_| server.raw()).collect();
    for client in &mut clients {
        client.send(UPGRADE);
    }
    let tickets: Vec<Ticket<Upgrade>> = clients.iter().map(|_| waiting.next()).collect();
    let accepts =
        server.ask(move |ctx| tickets.into_iter().all(|ticket| ctx.answer(ticket, Upgrade::accept()).is_done()));
    assert!(accepts, "each ticket must answer its upgrade");
    for client in &mut clients {
        assert_eq!(client.reply().status, 101);
    }
}

#[test]
fn an_upgrade_can_be_answered_later_from_a_handler() {
    let server = serve(|server| {
        server.on_upgrade(|ctx, fd, _| {
            let (_, unused) = ctx.defer_upgrade(fd);
            let (later, ticket) = ctx.defer_upgrade(fd);
            ctx.answer(unused, Response::new(500));
            ctx.after(Duration::from_millis(1), move |ctx| {
                ctx.answer(ticket, Upgrade::accept().header("X-Fd", fd.to_string()));
            });
            later
        })
    });
    assert_eq!(server.connect("/").fd().as_u64(), 1);
}

#[test]
fn frames_sent_while_an_upgrade_waits_are_delivered_after_it() {
    let (server, waiting) = serve_deferring(limits_with_long_times());
    let mut raw = server.raw();
    raw.send([UPGRADE.as_bytes(), &frame(TEXT, b"with the head")].concat());
    let ticket = waiting.next();
    let fd = ticket.fd();
    // The server does not buffer all of these bytes before the upgrade, so some of the bytes stay in the kernel.
    let large = "x".repeat(200_000);
    raw.send_frame(TEXT, b"while it waits");
    raw.send_frame(TEXT, large.as_bytes());
    server.ask(move |ctx| assert!(ctx.exists(fd) && !ctx.is_open(fd)));
    ticket.answer(Upgrade::accept()).expect("the inbox has room");
    assert_eq!(raw.reply().status, 101);
    assert_eq!(raw.frame(), (0x81, b"with the head".to_vec()));
    assert_eq!(raw.frame(), (0x81, b"while it waits".to_vec()));
    assert!(raw.frame() == (0x81, large.into_bytes()));
}

#[test]
fn the_answer_to_an_upgrade_of_a_lost_client_is_dropped() {
    let (server, waiting) = serve_deferring(limits_with_long_times());
    let mut raw = server.raw();
    raw.send(UPGRADE);
    let stale = waiting.next();
    let gone = stale.fd();
    drop(raw);
    server.wait_until("the connection has ended", move |ctx| !ctx.exists(gone));
    let mut successor = server.raw();
    successor.send(UPGRADE);
    let ticket = waiting.next();
    assert_eq!(ticket.fd().slot(), gone.slot());
    stale.answer(Upgrade::accept().header("X-For", "the first")).expect("the inbox has room");
    ticket.answer(Upgrade::accept().header("X-For", "the second")).expect("the inbox has room");
    assert_eq!(successor.reply().header("X-For"), Some("the second"));
}

#[test]
fn the_session_of_a_waiting_upgrade_is_dropped_when_its_client_disconnects() {
    let (waiting_tx, waiting) = channel();
    let (gone_tx, gone) = channel();
    let tickets = Arc::new(Mutex::new(Vec::new()));
    let server = serve(move |server| {
        server.on_upgrade(move |ctx, fd, _| {
            ctx.set_session(fd, DropSignal(gone_tx.clone(), fd));
            waiting_tx.send(fd).expect("the test waits");
            let (later, ticket) = ctx.defer_upgrade(fd);
            tickets.lock().expect("no thread panicked while it held the lock").push(ticket);
            later
        })
    });
    let early = [UPGRADE.as_bytes(), &frame(TEXT, b"early")].concat();
    let leave: [fn(Raw); 2] = [Raw::reset, drop];
    for head in [UPGRADE.as_bytes(), &early] {
        for leave in leave {
            let mut raw = server.raw();
            raw.send(head);
            let fd = waiting.next();
            leave(raw);
            assert_eq!(gone.next(), fd);
        }
        // The client shuts down its write side after the request, so it can send no frame.
        let mut raw = server.raw();
        raw.send(head);
        let fd = waiting.next();
        raw.shutdown_write();
        assert_eq!(gone.next(), fd);
        raw.end();
        // The end of the client's stream arrives together with the request head.
        let mut raw = server.raw();
        raw.send(head);
        drop(raw);
        assert_eq!(gone.next(), waiting.next());
    }
    server.wait_until("all connections end", |ctx| ctx.stats().connections == 0);
}

#[test]
fn an_unanswered_upgrade_gets_503() {
    let (server, waiting) =
        serve_deferring(Limits { answer_time_max: Duration::from_millis(50), ..limits_with_long_times() });
    let mut raw = server.raw();
    raw.send(UPGRADE);
    let ticket = waiting.next();
    let reply = raw.reply();
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
    raw.end();
    drop(raw);
    ticket.answer(Upgrade::accept()).expect("the inbox has room");
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
    assert_eq!(server.ask(|ctx| ctx.stats().opened), 0);
}

#[test]
fn a_dropped_ticket_refuses_the_upgrade_at_once() {
    let (server, waiting) = serve_deferring(Limits { answer_time_max: 10 * DEADLINE, ..limits_with_long_times() });
    let mut raw = server.raw();
    raw.send(UPGRADE);
    drop(waiting.next());
    let reply = raw.reply();
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
    assert_eq!(reply.body, "the request was not answered\n");
    raw.end();
}

#[test]
fn two_waiting_upgrades_for_one_uid_are_checked_when_they_are_answered() {
    let (tx, waiting) = channel();
    let server = serve(move |server| {
        server.second_login(fdpush::SecondLogin::RejectNew).on_upgrade(move |ctx, fd, _| {
            let (later, ticket) = ctx.defer_upgrade(fd);
            tx.send(ticket).expect("the test waits");
            later
        })
    });
    let mut clients = [Raw::connect(server.address()), Raw::connect(server.address())];
    let tickets = clients.each_mut().map(|client| {
        client.send(UPGRADE);
        waiting.next()
    });
    let first = tickets[0].fd();
    for ticket in tickets {
        ticket.answer(Upgrade::accept().uid("ann")).expect("the inbox has room");
    }
    assert_eq!(clients[0].reply().status, 101);
    assert_eq!(clients[1].reply().status, 409);
    assert_eq!(server.ask(|ctx| ctx.fds_of("ann")), [first]);
}

#[test]
fn a_connection_aborted_in_on_upgrade_does_not_open() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        let open = tx.clone();
        server
            .on_upgrade(|ctx, fd, _| {
                ctx.abort(fd);
                Upgrade::accept().uid("ann")
            })
            .on_open(move |_, _, _| open.send("open").expect("the test waits"))
            .on_close(move |_, _, _| tx.send("close").expect("the test waits"))
    });
    let mut raw = server.raw();
    raw.send(UPGRADE);
    raw.end();
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!((stats.open, stats.opened, stats.users), (0, 0, 0));
    assert!(rx.so_far().is_empty());
}

#[test]
fn a_connection_whose_on_upgrade_drains_the_server_does_not_open() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server
            .on_upgrade(|ctx, _, _| {
                ctx.shutdown();
                Upgrade::accept()
            })
            .on_open(move |_, _, _| tx.send("open").expect("the test waits"))
    });
    let mut raw = server.raw();
    raw.send(UPGRADE);
    assert_eq!(raw.reply().status, 503);
    raw.end();
    drop(raw);
    let mut server = server;
    assert!(server.wait_for_end().is_ok());
    assert!(rx.so_far().is_empty());
}
