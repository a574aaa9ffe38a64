//! Tests the end of a connection: close codes, protocol errors, lost connections and panics. The server calls
//! `on_close` once for each connection.
//!
//! The tests of slow consumers are in `push/slow_readers.rs`, and those of the drain are in `server/drain.rs`.

use std::any::Any;

use crate::common::raw::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame_with};
use crate::common::{
    DEADLINE, Raw, TestReceiver, TestServer, channel, echo, limits_with_long_times, report_close, serve,
    silence_intended_panics,
};
use fdpush::{
    AbortOutcome, BodyEvent, BodyMode, By, Cause, Change, CloseCode, CloseOutcome, Closed, Context, Fd, Handler,
    Heartbeat, Limits, Outcome, ProtocolError, Request, Response,
};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::Data;

fn echo_server(limits: Limits) -> (TestServer, TestReceiver<(Fd, Closed)>) {
    let (tx, rx) = channel();
    let server = serve(move |server| server.limits(limits).on_message(echo).on_close(report_close(tx)));
    (server, rx)
}

#[test]
fn fragments_with_pings_between_them_form_one_message() {
    let (pings, rx) = channel();
    let server = serve(move |server| {
        server.on_message(echo).on_ping(move |_, _, payload| pings.send(payload.to_vec()).expect("the test waits"))
    });
    let mut client = server.connect("/");
    client.send_fragment(Data::Text, "snow ".as_bytes(), false);
    client.ping(b"in between");
    // A fragment of a text may end within a character.
    client.send_fragment(Data::Continue, &"☃".as_bytes()[..1], false);
    client.send_fragment(Data::Continue, b"", false);
    client.ping(b"");
    client.send_fragment(Data::Continue, &"☃".as_bytes()[1..], true);
    assert_eq!(client.next(), Message::Pong(b"in between".to_vec().into()));
    assert_eq!(client.next(), Message::Pong(Vec::new().into()));
    assert_eq!(client.text(), "snow ☃");
    assert_eq!([rx.next(), rx.next()], [b"in between".to_vec(), Vec::new()]);

    client.send_fragment(Data::Binary, &[1, 2], false);
    client.send_fragment(Data::Continue, &[3], true);
    assert_eq!(client.binary(), [1, 2, 3]);
}

#[test]
fn a_message_is_accepted_byte_by_byte() {
    let (server, _heard) = echo_server(limits_with_long_times());
    let mut raw = Raw::upgraded(server.address());
    for byte in crate::common::raw::frame(TEXT, "naïve".as_bytes()) {
        raw.send([byte]);
    }
    assert_eq!(raw.frame(), (0x81, "naïve".as_bytes().to_vec()));
}

#[test]
fn pongs_reach_the_handler() {
    let (tx, rx) = channel();
    let server =
        serve(move |server| server.on_pong(move |_, _, payload| tx.send(payload.to_vec()).expect("the test waits")));
    let mut client = server.connect("/");
    let fd = client.fd();
    assert_eq!(server.ask(move |ctx| ctx.ping(fd, b"are you there?")), Outcome::Queued);
    assert_eq!(client.next(), Message::Ping(b"are you there?".to_vec().into()));
    client.send("tungstenite answers with its next write");
    assert_eq!(rx.next(), b"are you there?");
}

#[test]
fn a_clients_close_code_is_echoed_and_passed_to_on_close() {
    let (server, rx) = echo_server(limits_with_long_times());
    for (code, reason) in [(1000, "done"), (1001, ""), (3000, "ünïcode"), (4999, "last")] {
        let mut client = server.connect("/");
        client.close(code, reason);
        let (echoed, _) = client.closed();
        assert_eq!(echoed, code);
        let (_, closed) = rx.next();
        assert_eq!((closed.code.as_u16(), &*closed.reason), (code, reason));
        assert_eq!((closed.by, closed.cause), (By::Client, Cause::ClientClosed));
    }
}

#[test]
fn a_close_without_a_code_is_reported_as_1005_and_echoed_without_a_code() {
    let (server, rx) = echo_server(limits_with_long_times());
    let mut client = server.connect("/");
    client.close_with(None);
    assert_eq!(client.close_frame(), None);
    client.end();
    let (_, closed) = rx.next();
    assert_eq!((closed.code, &*closed.reason), (CloseCode::NO_STATUS, ""));
    assert_eq!((closed.by, closed.cause), (By::Client, Cause::ClientClosed));
}

#[test]
fn the_servers_code_and_reason_reach_the_client() {
    let (server, rx) = echo_server(limits_with_long_times());
    let longest = "r".repeat(123);
    for (code, reason) in [(4000, "reason"), (4999, ""), (1000, "bye"), (3000, longest.as_str())] {
        let mut client = server.connect("/");
        let fd = client.fd();
        let owned = reason.to_owned();
        assert_eq!(server.ask(move |ctx| ctx.close(fd, code, &owned)), CloseOutcome::Closing);
        assert_eq!(client.closed(), (code, reason.to_owned()));
        let (ended, closed) = rx.next();
        assert_eq!(ended, fd);
        assert_eq!((closed.code.as_u16(), &*closed.reason), (code, reason));
        assert_eq!((closed.by, closed.cause), (By::Server, Cause::ServerClosed));
    }
}

#[test]
fn a_call_for_an_invalid_close_or_ping_returns_an_error_and_the_connection_stays_open() {
    let (server, rx) = echo_server(limits_with_long_times());
    let mut client = server.connect("/");
    let fd = client.fd();
    server.ask(move |ctx| {
        assert_eq!(ctx.close(fd, CloseCode::NORMAL, &"r".repeat(124)), CloseOutcome::Invalid);
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_535u16] {
            assert_eq!(ctx.close(fd, code, ""), CloseOutcome::Invalid, "{code}");
        }
        assert_eq!(ctx.ping(fd, &[0; 126]), Outcome::TooLarge);
        assert_eq!(ctx.ping(fd, &[0; 125]), Outcome::Queued);
    });
    assert_eq!(client.next(), Message::Ping(vec![0; 125].into()));
    client.send("alive");
    assert_eq!(client.text(), "alive");
    assert!(rx.so_far().is_empty());
}

#[test]
fn queued_messages_are_sent_before_the_close_frame() {
    let (server, _heard) = echo_server(limits_with_long_times());
    let mut client = server.connect("/");
    let fd = client.fd();
    server.ask(move |ctx| {
        for index in 0..20 {
            assert_eq!(ctx.push(fd, &format!("{index} {}", "x".repeat(20_000))), Outcome::Queued);
        }
        ctx.close(fd, 4000, "that was all");
    });
    for index in 0..20 {
        assert!(client.text().starts_with(&format!("{index} ")));
    }
    assert_eq!(client.closed(), (4000, "that was all".to_owned()));
}

#[test]
fn data_after_a_close_frame_is_ignored() {
    let (tx, rx) = channel();
    let server =
        serve(move |server| server.on_message(move |_, _, message| tx.send(message.len()).expect("the test waits")));
    let mut raw = Raw::upgraded(server.address());
    let bytes = [
        crate::common::raw::frame(TEXT, b"before"),
        crate::common::raw::frame(CLOSE, &close_payload(1000, "")),
        crate::common::raw::frame(TEXT, b"behind it"),
        b"\xff\xff\xff no frame at all".to_vec(),
    ];
    raw.send(bytes.concat());
    assert_eq!(raw.frame(), (0x88, close_payload(1000, "")));
    raw.end();
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
    assert_eq!(rx.so_far(), [6]);
}

#[test]
fn messages_received_after_the_server_sent_a_close_frame_are_ignored() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.on_message(move |ctx, fd, message| {
            tx.send(message.len()).expect("the test waits");
            ctx.close(fd, 4000, "one was enough");
        })
    });
    let mut raw = Raw::upgraded(server.address());
    raw.send([crate::common::raw::frame(TEXT, b"1"), crate::common::raw::frame(BINARY, b"22")].concat());
    assert_eq!(raw.frame(), (0x88, close_payload(4000, "one was enough")));
    raw.send_frame(TEXT, b"333");
    raw.send_frame(CLOSE, &close_payload(4000, ""));
    raw.end();
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
    assert_eq!(rx.so_far(), [1]);
}

#[test]
fn a_client_that_does_not_answer_a_close_frame_is_disconnected() {
    let limits = Limits { close_wait_max: std::time::Duration::from_millis(50), ..limits_with_long_times() };
    let (server, rx) = echo_server(limits);
    let mut raw = Raw::upgraded(server.address());
    server.ask(|ctx| ctx.close(Fd::from_u64(1).expect("the fd is valid"), 4000, ""));
    assert_eq!(rx.next().1.code.as_u16(), 4000);
    assert_eq!(raw.frame(), (0x88, close_payload(4000, "")));
    raw.end();
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
}

#[test]
fn a_protocol_violation_closes_the_connection_and_on_close_gets_the_violated_rule() {
    let limits = Limits { message_bytes_max: 1000, ..limits_with_long_times() };
    let (server, rx) = echo_server(limits);
    // The server finds each error of a header in the first bytes of the header, before the payload arrives. After an
    // invalid length, the server does not wait for the mask.
    let table: &[(&[u8], u16, ProtocolError)] = &[
        (b"\x81\x02hi", 1002, ProtocolError::Unmasked),
        (&frame_with(0xc1, b"hi"), 1002, ProtocolError::ReservedBits),
        (&frame_with(0x91, b"hi"), 1002, ProtocolError::ReservedBits),
        (&frame_with(0x83, b"hi"), 1002, ProtocolError::ReservedOpcode),
        (&frame_with(0x8b, b""), 1002, ProtocolError::ReservedOpcode),
        (&frame_with(0x80, b"hi"), 1002, ProtocolError::ContinuationWithoutStart),
        (&[frame_with(TEXT, b"a"), frame_with(0x81, b"b")].concat(), 1002, ProtocolError::MessageUnfinished),
        (&frame_with(PING, b"cut"), 1002, ProtocolError::ControlFragmented),
        (&frame_with(0x80 | PING, &[0; 126]), 1002, ProtocolError::ControlTooLong),
        (b"\x82\xfe\x00\x7d", 1002, ProtocolError::LengthNotMinimal),
        (b"\x82\xff\x80\0\0\0\0\0\0\0", 1002, ProtocolError::LengthTooLarge),
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xfc", 1002, ProtocolError::LengthTooLarge),
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask", 1009, ProtocolError::MessageTooBig),
        (b"\x82\xfe\x03\xe9mask", 1009, ProtocolError::MessageTooBig),
        (
            &[frame_with(BINARY, &[0; 600]), frame_with(CONTINUATION, &[0; 401])].concat(),
            1009,
            ProtocolError::MessageTooBig,
        ),
        (&frame_with(0x81, b"\xff"), 1007, ProtocolError::TextNotUtf8),
        (&frame_with(TEXT, b"text before the end \xc0"), 1007, ProtocolError::TextNotUtf8),
        (&frame_with(0x81, "☃".as_bytes().split_at(2).0), 1007, ProtocolError::TextNotUtf8),
        (&frame_with(0x88, b"\x03"), 1002, ProtocolError::CloseCodeCut),
        (&frame_with(0x88, &close_payload(1005, "")), 1002, ProtocolError::CloseCodeInvalid),
        (&frame_with(0x88, &close_payload(2000, "")), 1002, ProtocolError::CloseCodeInvalid),
        (&frame_with(0x88, b"\x03\xe8\xff"), 1007, ProtocolError::CloseReasonNotUtf8),
    ];
    for (bytes, code, error) in table {
        let mut raw = Raw::upgraded(server.address());
        // The server delivers a valid frame of the same segment before it reports the error.
        raw.send([&crate::common::raw::frame(TEXT, b"good"), *bytes].concat());
        assert_eq!(raw.frame(), (0x81, b"good".to_vec()), "{error:?}");
        assert_eq!(raw.close_frame(), (*code, error.as_str().to_owned()));
        raw.end();
        let (_, closed) = rx.next();
        assert_eq!(closed.code.as_u16(), *code, "{error:?}");
        assert_eq!((closed.by, closed.cause), (By::Server, Cause::ProtocolError(*error)));
    }
}

#[test]
fn an_unfinished_message_ends_the_connection_after_message_time_max() {
    let short = std::time::Duration::from_millis(50);
    let limits = Limits { message_time_max: short, close_wait_max: short, ..limits_with_long_times() };
    let (server, rx) = echo_server(limits);
    let mut raw = Raw::upgraded(server.address());
    raw.send(frame_with(TEXT, b"to be continued"));
    assert_eq!(raw.close_frame().0, 1008);
    assert_eq!(rx.next().1.cause, Cause::MessageTimedOut);
    raw.end();
}

#[test]
fn a_lost_connection_is_reported_as_1006() {
    let (server, rx) = echo_server(limits_with_long_times());
    drop(server.connect("/"));
    let (_, closed) = rx.next();
    assert_eq!((closed.code, &*closed.reason), (CloseCode::ABNORMAL, ""));
    assert_eq!((closed.by, closed.cause), (By::Client, Cause::ConnectionLost));

    // If a client shuts down its write side, `on_close` gets the same cause as for a lost connection.
    let mut raw = Raw::upgraded(server.address());
    raw.shutdown_write();
    assert_eq!(rx.next().1.cause, Cause::ConnectionLost);
    raw.end();
}

#[test]
fn a_message_directly_before_the_end_of_the_stream_is_delivered() {
    let (tx, rx) = channel();
    let server =
        serve(move |server| server.on_message(move |_, _, message| tx.send(message.len()).expect("the test waits")));
    let mut raw = Raw::upgraded(server.address());
    raw.send_frame(TEXT, b"last words");
    raw.shutdown_write();
    assert_eq!(rx.next(), 10);
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
}

#[test]
fn abort_ends_the_connection_without_a_close_frame() {
    let (server, rx) = echo_server(limits_with_long_times());
    let mut client = server.connect("/");
    let fd = client.fd();
    assert_eq!(server.ask(move |ctx| ctx.abort(fd)), AbortOutcome::Aborted { was_open: true });
    let (ended, closed) = rx.next();
    assert_eq!(ended, fd);
    assert_eq!((closed.code, closed.by, closed.cause), (CloseCode::ABNORMAL, By::Server, Cause::ServerClosed));
    client.lost();
}

#[test]
fn abort_returns_whether_the_connection_was_open() {
    let (server, rx) = echo_server(Limits { close_wait_max: DEADLINE, ..limits_with_long_times() });
    // The connection is first open, then closing. The connection stays in the state closing, because the client does
    // not answer the close frame.
    let mut closing = Raw::upgraded(server.address());
    let fd = server.ask(|ctx| ctx.connections().next()).expect("one connection is open");
    let printed = server.ask(move |ctx| {
        let closes = [ctx.close(fd, 4000, ""), ctx.close(fd, 4000, "")];
        let others = [ctx.protect(fd), ctx.reset_heartbeat(fd), ctx.pause(fd), ctx.resume(fd), ctx.set_session(fd, 1)];
        (closes, ctx.ping(fd, b""), others, ctx.set_heartbeat(fd, Heartbeat::Off))
    });
    let closes = [CloseOutcome::Closing, CloseOutcome::Gone];
    assert_eq!(printed, (closes, Outcome::Gone, [Change::Gone; 5], Ok(Change::Gone)));
    assert_eq!(closing.frame(), (0x80 | CLOSE, close_payload(4000, "")));
    assert_eq!(rx.next().1.code, CloseCode::from(4000));
    assert!(server.ask(move |ctx| ctx.exists(fd)));
    let dropped = AbortOutcome::Aborted { was_open: false };
    assert_eq!(server.ask(move |ctx| [ctx.abort(fd), ctx.abort(fd)]), [dropped, AbortOutcome::Gone]);
    closing.end();
    assert_eq!(server.ask(move |ctx| ctx.abort(fd)), AbortOutcome::Gone);
    // Here the test aborts a plain HTTP connection.
    let mut http = server.raw();
    http.send("GET / HTTP/1.1\r\n");
    server.wait_until("the connection is accepted", |ctx| ctx.stats().connections == 1);
    let next = Fd::from_u64(fd.as_u64() + (1 << 24)).expect("the fd is valid");
    assert_eq!(server.ask(move |ctx| (ctx.close(next, 1000, ""), ctx.abort(next))), (CloseOutcome::Gone, dropped));
    http.end();
    assert_eq!(
        rx.so_far().len(),
        0,
        "on_close must not be called again for the WebSocket, and not for the plain HTTP connection"
    );
}

#[test]
fn a_ping_of_125_bytes_is_answered_with_its_payload() {
    let (server, _heard) = echo_server(limits_with_long_times());
    let mut raw = Raw::upgraded(server.address());
    raw.send_frame(PING, &[7; 125]);
    assert_eq!(raw.frame(), (0x80 | PONG, vec![7; 125]));
}

#[test]
fn a_panic_in_on_message_closes_with_1011_and_the_server_continues() {
    silence_intended_panics();
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server
            .on_message(|ctx, fd, message| match message.as_text() {
                Some("panic") => panic!("on purpose: message"),
                _ => echo(ctx, fd, message),
            })
            .on_close(report_close(tx))
    });
    let mut victim = server.connect("/");
    let mut open = server.connect("/");
    victim.send("panic");
    assert_eq!(victim.closed().0, 1011);
    let (fd, closed) = rx.next();
    assert_eq!(fd, victim.fd());
    assert_eq!((closed.by, closed.cause), (By::Server, Cause::HandlerPanicked));
    open.send("still here");
    assert_eq!(open.text(), "still here");
}

#[test]
fn a_panic_in_any_other_callback_ends_at_most_its_connection() {
    silence_intended_panics();
    let (tx, rx) = channel();
    let server = serve(move |server| {
        let timer = tx.clone();
        server
            .on_start(|ctx| {
                ctx.set_timer(std::time::Duration::ZERO);
                panic!("on purpose: start");
            })
            .on_timer(move |_, _| {
                timer.send("timer").expect("the test waits");
                panic!("on purpose: timer");
            })
            .on_upgrade(|ctx, fd, request| match request.target() {
                "/upgrade" => panic!("on purpose: upgrade"),
                _ => crate::common::accept_with_fd(ctx, fd, request),
            })
            .on_open(|_, _, request| {
                if request.target() == "/open" {
                    panic!("on purpose: open");
                }
            })
            .on_request(|_, _, request| match request.target() {
                "/request" => panic!("on purpose: request"),
                _ => Response::text(200, "fine\n"),
            })
            .on_notice(|_, _| panic!("on purpose: notice"))
            .on_ping(|_, _, _| panic!("on purpose: ping"))
            .on_close(move |_, _, closed| {
                tx.send(closed.cause.as_str()).expect("the test waits");
                panic!("on purpose: close");
            })
    });
    assert_eq!(rx.next(), "timer");
    assert_eq!(server.refusal("/upgrade", &[]).0, 500);
    assert_eq!(server.connect("/open").closed().0, 1011);
    assert_eq!(rx.next(), "handler_panicked");
    let mut http = server.raw();
    http.send("GET /request HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(http.reply().status, 500);
    http.end();
    server.remote.notify("anything").expect("the inbox has room");
    let mut pinger = server.connect("/");
    pinger.ping(b"");
    assert_eq!(
        pinger.next(),
        Message::Pong(Vec::new().into()),
        "the server must queue the pong before it calls the handler"
    );
    assert_eq!(pinger.closed().0, 1011);
    assert_eq!(rx.next(), "handler_panicked");

    let mut open = server.connect("/");
    server.ask(|ctx| ctx.broadcast("still here"));
    assert_eq!(open.text(), "still here");
}

/// A handler that panics at the first piece of a request body. For the path `/begun`, the handler begins the response
/// at the request head, before it panics.
struct PanicsInBody;

impl Handler for PanicsInBody {
    fn on_head(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> BodyMode {
        if request.path() == "/begun" {
            let ticket = ctx.ticket(fd);
            assert!(ctx.begin_response(ticket, &Response::new(200)).is_some());
        }
        BodyMode::stream(())
    }

    fn on_body(&mut self, _: &mut Context<'_>, _: Fd, _: &mut dyn Any, _: BodyEvent<'_>) {
        panic!("on purpose: body");
    }
}

#[test]
fn a_panic_during_a_request_body_ends_the_connection() {
    silence_intended_panics();
    let server = serve(|server| server.handler(PanicsInBody));
    for (path, status) in [("/", 500), ("/begun", 200)] {
        let mut raw = server.raw();
        raw.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello"));
        assert_eq!(raw.reply().status, status);
        raw.end();
    }
}

#[test]
fn closing_a_paused_connection_resumes_reading() {
    let limits = Limits { close_wait_max: 10 * DEADLINE, ..limits_with_long_times() };
    let server = serve(|server| server.limits(limits).on_open(|ctx, fd, _| assert!(ctx.pause(fd).is_done())));
    let mut raw = Raw::upgraded(server.address());
    raw.send_frame(CLOSE, &close_payload(1000, ""));
    // After one more turn, the client's close frame is in the kernel's buffer. The loop has not read it, because the
    // connection is paused.
    server.ask(|_| ());
    let fd = Fd::from_u64(1).expect("the fd is valid");
    assert_eq!(server.ask(move |ctx| ctx.close(fd, 1001, "")), CloseOutcome::Closing);
    server.wait_until("the connection has ended", move |ctx| !ctx.exists(fd));
}

#[test]
fn every_on_open_has_exactly_one_on_close() {
    const CLIENTS: usize = 60;
    let (tx, rx) = channel();
    let server = serve(move |server| {
        let open = tx.clone();
        server
            .on_open(move |_, fd, _| open.send((fd, 1)).expect("the test waits"))
            .on_message(|ctx, fd, _| {
                // Several calls end the same connection in one turn, and `on_close` is called once.
                ctx.close(fd, 4000, "");
                ctx.abort(fd);
                ctx.close(fd, 4001, "");
            })
            .on_close(move |ctx, fd, _| {
                ctx.abort(fd);
                tx.send((fd, -1)).expect("the test waits");
            })
    });
    for index in 0..CLIENTS {
        let mut raw = Raw::upgraded(server.address());
        match index % 5 {
            0 => raw.send_frame(CLOSE, &close_payload(1000, "")),
            1 => raw.send_frame(TEXT, b"end me"),
            2 => raw.send(b"nonsense"),
            3 => raw.send([frame_with(0x81, b"end me"), frame_with(0x88, b"\x03\xe8")].concat()),
            _ => {}
        }
    }
    server.wait_until("all connections have ended", |ctx| {
        ctx.stats().opened == CLIENTS as u64 && ctx.stats().connections == 0
    });
    let mut balance = std::collections::HashMap::new();
    let events = rx.so_far();
    assert_eq!(events.len(), 2 * CLIENTS);
    for (fd, change) in events {
        *balance.entry(fd).or_insert(0) += change;
        assert!((0..=1).contains(&balance[&fd]), "{fd}: each on_close must follow one on_open");
    }
    assert_eq!(balance.len(), CLIENTS);
    assert!(balance.values().all(|left| *left == 0));
}

#[test]
fn connections_that_are_closed_together_get_what_was_pushed_before() {
    // The server needs more than one turn to write the close frames of this number of connections.
    const COUNT: usize = 100;
    let server = serve(|server| server);
    let mut clients: Vec<_> = (0..COUNT).map(|_| server.connect("/?group=all")).collect();
    let mut stays = server.connect("/");
    let fd = stays.fd();
    let counts = server.ask(move |ctx| {
        let members = ctx.members("all");
        // No connection has this fd.
        let gone = Fd::from_u64((1 << 24) + 1).expect("the fd is valid");
        ctx.push_group("all", "before");
        let invalid = ctx.close_fds(members.clone(), 1005, "over");
        let too_long = ctx.close_fds(members.clone(), 4000, &"r".repeat(124));
        // `close_fds` counts an fd that is listed twice only once.
        let closed = ctx.close_fds(members.iter().chain(&members).copied().chain([gone]), 4000, "over");
        ctx.push(fd, "stays");
        (invalid, too_long, closed, ctx.push_group("all", "after").matched, ctx.stats().open)
    });
    assert_eq!(counts, (0, 0, COUNT, 0, 1));
    assert_eq!(stays.text(), "stays");
    for client in &mut clients {
        assert_eq!(client.text(), "before");
        assert_eq!(client.closed(), (4000, "over".to_owned()));
    }
}

#[test]
fn connections_that_are_closed_together_share_one_close_frame() {
    // If the server encoded one close frame for each of these connections, the close frames would exceed the buffer of
    // a turn, and the server would put some of them into queues.
    const COUNT: usize = 2_500;
    let reason = "r".repeat(123);
    let server = serve(|server| server);
    let mut clients: Vec<_> = (0..COUNT).map(|_| server.connect("/?group=all")).collect();
    let text = reason.clone();
    let (closed, queued) = server.ask(move |ctx| {
        let members = ctx.members("all");
        (ctx.close_fds(members, 4000, &text), ctx.stats().queued_bytes)
    });
    assert_eq!((closed, queued), (COUNT, 0));
    for client in &mut clients {
        assert_eq!(client.closed(), (4000, reason.clone()));
    }
}
