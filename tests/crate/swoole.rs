//! Tests the scenarios of Swoole's own WebSocket tests, with an independent client.
//!
//! The scenarios are those of Swoole 6.2 for push, close, control frames, sizes, the upgrade and heartbeats. Each test
//! shows the calls of this crate for one scenario of Swoole.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::raw::{self, PING, PONG, TEXT, UPGRADE, frame};
use crate::common::{
    Client, DEADLINE, Raw, TestServer, accept_with_fd, channel, echo, limits_with_long_times, report_close, serve,
    succeeds_with_longer_time,
};
use fdpush::{
    AbortOutcome, By, Cause, Change, CloseOutcome, Delivery, Fd, Heartbeat, Limits, Outcome, ProtocolError, Response,
    State, Upgrade,
};
use tungstenite::Message as Sent;
use tungstenite::protocol::frame::coding::Data;

fn echo_server() -> TestServer {
    serve(|server| server.on_message(echo))
}

/// A generator of pseudo-random bytes, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // xorshift64, Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b' ' + (self.next() % 95) as u8)).collect()
    }
}

#[test]
fn a_frame_split_inside_its_header_is_delivered() {
    let server = echo_server();
    let payload = "x".repeat(70_000);
    let bytes = frame(TEXT, payload.as_bytes());
    for cut in 1..14 {
        let mut raw = Raw::upgraded(server.address());
        raw.send(&bytes[..cut]);
        // The server must read the first part alone. These three commands take at least two more turns, in which the
        // server reads the first part.
        (0..3).for_each(|_| server.ask(|_| ()));
        raw.send(&bytes[cut..]);
        assert_eq!(raw.frame(), (0x81, payload.clone().into_bytes()), "cut at {cut}");
    }
}

#[test]
fn disconnect_with_a_code_and_a_reason_is_seen_by_the_client() {
    let server = serve(|server| server);
    let (mut tx, mut wordless) = (server.connect("/"), server.connect("/"));
    let fds = [tx.fd(), wordless.fd()];
    server.ask(move |ctx| {
        assert_eq!(ctx.close(fds[0], 4000, "see you"), CloseOutcome::Closing);
        assert_eq!(ctx.close(fds[1], 4000, ""), CloseOutcome::Closing);
    });
    assert_eq!(tx.closed(), (4000, "see you".to_owned()));
    assert_eq!(wordless.closed(), (4000, String::new()));
}

#[test]
fn the_clients_close_code_is_echoed() {
    let (tx, rx) = channel();
    let server = serve(|server| server.on_close(report_close(tx)));
    for code in [1000, 1001, 3000, 4001, 4999] {
        let mut client = server.connect("/");
        client.close(code, "bye");
        assert_eq!(client.closed().0, code);
        let (_, closed) = rx.next();
        assert_eq!((closed.code.as_u16(), &*closed.reason, closed.by), (code, "bye", By::Client));
    }
}

#[test]
fn an_oversized_ping_or_reason_is_refused() {
    let server = serve(|server| server);
    let mut client = server.connect("/");
    let fd = client.fd();
    server.ask(move |ctx| {
        assert_eq!(ctx.ping(fd, &[b'p'; 126]), Outcome::TooLarge);
        assert_eq!(ctx.close(fd, 1000, &"r".repeat(124)), CloseOutcome::Invalid);
        assert!(ctx.is_open(fd), "the connection must stay open");
        assert_eq!(ctx.ping(fd, &[b'p'; 125]), Outcome::Queued);
        assert_eq!(ctx.close(fd, 1000, &"r".repeat(123)), CloseOutcome::Closing);
    });
    assert_eq!(client.next(), Sent::Ping(vec![b'p'; 125].into()));
    assert_eq!(client.closed(), (1000, "r".repeat(123)));
}

#[test]
fn an_empty_message() {
    let server = echo_server();
    let mut client = server.connect("/");
    client.send("");
    assert_eq!(client.text(), "");
    client.send_binary(b"");
    assert_eq!(client.binary(), b"");
}

#[test]
fn exists_and_is_open_distinguish_missing_http_and_websocket_connections() {
    let (tx, rx) = channel();
    let server = serve(|server| {
        server.on_request(move |ctx, fd, _| {
            tx.send((fd, ctx.exists(fd), ctx.is_open(fd), ctx.push(fd, "no"))).expect("the test waits");
            Response::text(200, "")
        })
    });
    let mut http = server.raw();
    http.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(http.reply().status, 200);
    let (fd, exists, is_open, pushed) = rx.next();
    assert!(exists && !is_open && pushed == Outcome::Gone);
    assert_eq!(server.ask(move |ctx| ctx.info(fd).map(|info| info.state)), Some(State::Http));

    let client = server.connect("/");
    let fd = client.fd();
    assert_eq!(server.ask(move |ctx| (ctx.exists(fd), ctx.is_open(fd))), (true, true));
    drop(client);
    server.wait_until("the connection has ended", move |ctx| !ctx.exists(fd) && !ctx.is_open(fd));
    let never = Fd::from_u64(999).expect("the fd is valid");
    assert_eq!(
        server.ask(move |ctx| (ctx.exists(never), ctx.is_open(never), ctx.push(never, ""))),
        (false, false, Outcome::Gone)
    );
}

#[test]
fn fragments_are_merged() {
    let (tx, rx) = channel();
    let server = serve(|server| {
        server.on_message(move |_, _, message| tx.send(message.as_text().map(str::to_owned)).expect("the test waits"))
    });
    let mut client = server.connect("/");
    client.send_fragment(Data::Text, b"fragments ", false);
    client.send_fragment(Data::Continue, b"are ", false);
    client.ping(b"between");
    client.send_fragment(Data::Continue, b"merged", true);
    assert_eq!(rx.next().as_deref(), Some("fragments are merged"));
}

#[test]
fn messages_of_35_to_40_kb_are_echoed_concurrently() {
    const CLIENTS: u64 = 16;
    let server = echo_server();
    thread::scope(|scope| {
        for seed in 1..=CLIENTS {
            let mut client = server.connect("/");
            scope.spawn(move || {
                let mut noise = Noise(seed);
                for _ in 0..8 {
                    let length = 35_000 + (noise.next() % 5_000) as usize;
                    let text = noise.text(length);
                    client.send(&text);
                    assert!(client.text() == text, "client {seed} must receive its own message");
                }
            });
        }
    });
}

#[test]
fn two_replies_to_one_message_arrive_in_order() {
    let server = serve(|server| {
        server.on_message(|ctx, fd, message| {
            let text = message.as_text().expect("the message is text");
            ctx.push(fd, &format!("first {text}"));
            ctx.push(fd, &format!("second {text}"));
        })
    });
    let mut client = server.connect("/");
    for number in 0..100 {
        client.send(&number.to_string());
        assert_eq!(client.text(), format!("first {number}"));
        assert_eq!(client.text(), format!("second {number}"));
    }
}

#[test]
fn upgrade_headers_with_lists_of_tokens_are_accepted() {
    let server = serve(|server| server);
    for (connection, upgrade) in [
        ("keep-alive, Upgrade", "websocket"),
        ("Upgrade, HTTP2-Settings", "h2c, websocket"),
        ("UPGRADE,keep-alive", "WebSocket"),
        ("close , upgrade", "foo/2, WEBSOCKET"),
    ] {
        let mut raw = server.raw();
        let head = UPGRADE.replacen("Connection: Upgrade", &format!("Connection: {connection}"), 1);
        raw.send(head.replacen("Upgrade: websocket", &format!("Upgrade: {upgrade}"), 1));
        assert_eq!(raw.reply().status, 101, "{connection:?}, {upgrade:?}");
    }
}

#[test]
fn a_second_port_shares_the_handlers() {
    let (tx, rx) = channel();
    let first = serve(move |server| {
        let server =
            server.listen("127.0.0.1:0").expect("the second port can be bound").on_message(|ctx, fd, message| {
                ctx.broadcast(message.except(&[fd]));
            });
        let ports: Vec<String> = server.addresses().map(ToString::to_string).collect();
        tx.send(ports).expect("the test waits");
        server
    });
    let second = rx.next()[1].parse().expect("the address is valid");
    assert_ne!(first.address(), second);
    let mut here = first.connect("/");
    let mut there = Client::connect(second, "/", &[]).expect("the server accepts the WebSocket");
    here.send("from the first port");
    assert_eq!(there.text(), "from the first port");
    there.send("from the second port");
    assert_eq!(here.text(), "from the second port");
}

#[test]
fn an_impossible_length_is_an_error_that_can_be_logged() {
    let (tx, rx) = channel();
    let server = serve(|server| {
        server.on_close(move |_, _, closed| tx.send((closed.clone(), closed.to_string())).expect("the test waits"))
    });
    let mut raw = Raw::upgraded(server.address());
    raw.send([0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(raw.close_frame().0, 1002);
    let (closed, line) = rx.next();
    assert_eq!(closed.cause, Cause::ProtocolError(ProtocolError::LengthTooLarge));
    assert_eq!(line, "1002 \"payload length exceeds 2^63 - 1\" (protocol_error)");
}

#[test]
fn broadcasts_of_100_kb_share_the_memory_of_their_bytes() {
    const CLIENTS: usize = 20;
    let server = serve(|server| server);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect("/")).collect();
    let message = Noise(7).bytes(100 << 10);
    for _ in 0..50 {
        let bytes = message.clone();
        let (delivery, queued) = server.ask(move |ctx| {
            let delivery = ctx.broadcast(&bytes);
            (delivery, ctx.stats().queued_bytes)
        });
        assert_eq!(delivery, Delivery::new(CLIENTS, 0));
        // All queues share one frame. Each client that has not received the frame adds only one small queue entry.
        assert!(queued <= message.len() + CLIENTS * 600, "the bytes of a shared message must count once: {queued}");
        for client in &mut clients {
            assert!(client.binary() == message);
        }
    }
    assert_eq!(server.ask(|ctx| ctx.stats().queued_bytes), 0);
}

#[test]
fn messages_from_64_bytes_to_400_kb_are_echoed() {
    let server = echo_server();
    let mut client = server.connect("/");
    let mut noise = Noise(11);
    for size in [64, 125, 126, 127, 1 << 10, 16 << 10, 65_535, 65_536, 65_537, 128 << 10, 256 << 10, 400 << 10] {
        let bytes = noise.bytes(size);
        client.send_binary(&bytes);
        assert!(client.binary() == bytes, "{size} bytes");
        let text = noise.text(size);
        client.send(&text);
        assert!(client.text() == text, "{size} characters");
    }
}

#[test]
fn a_plain_http_connection_has_no_websocket_close_event() {
    let (tx, rx) = channel();
    let server = serve(|server| server.on_request(|_, _, _| Response::text(200, "")).on_close(report_close(tx)));
    for request in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"] {
        let mut raw = server.raw();
        raw.send(request);
        assert_eq!(raw.reply().status, 200);
    }
    drop(server.raw());
    server.wait_until("all connections have ended", |ctx| ctx.stats().connections == 0);
    assert_eq!(server.ask(|ctx| (ctx.stats().opened, ctx.stats().closed)), (0, 0));
    assert!(rx.so_far().is_empty());
    let mut client = server.connect("/");
    client.close(1000, "");
    client.closed();
    assert_eq!(rx.next().1.cause, Cause::ClientClosed);
}

#[test]
fn a_thousand_random_messages_are_encoded_and_decoded() {
    let server = echo_server();
    let mut client = server.connect("/");
    let mut noise = Noise(0xfeed);
    for number in 0..1_000 {
        let length = (noise.next() % 2_000) as usize;
        if noise.next().is_multiple_of(2) {
            let bytes = noise.bytes(length);
            client.send_binary(&bytes);
            assert!(client.binary() == bytes, "message {number}");
        } else {
            let text = noise.text(length);
            client.send(&text);
            assert!(client.text() == text, "message {number}");
        }
    }
}

#[test]
fn a_ping_with_or_without_a_payload_is_sent_and_answered() {
    let server = serve(|server| server);
    let mut client = server.connect("/");
    for payload in [&b""[..], b"swoole", &[0xff; 125]] {
        client.ping(payload);
        assert_eq!(client.next(), Sent::Pong(payload.to_vec().into()));
        let fd = client.fd();
        let bytes = payload.to_vec();
        assert_eq!(server.ask(move |ctx| ctx.ping(fd, &bytes)), Outcome::Queued);
        assert_eq!(client.next(), Sent::Ping(payload.to_vec().into()));
    }
}

#[test]
fn pings_and_pongs_are_delivered_to_a_handler() {
    let (tx, rx) = channel();
    let pong = tx.clone();
    let server = serve(|server| {
        server
            .on_ping(move |_, _, payload| tx.send((PING, payload.to_vec())).expect("the test waits"))
            .on_pong(move |_, _, payload| pong.send((PONG, payload.to_vec())).expect("the test waits"))
    });
    let mut client = server.connect("/");
    client.ping(b"to you");
    assert_eq!(rx.next(), (PING, b"to you".to_vec()));
    assert_eq!(client.next(), Sent::Pong(b"to you"[..].into()), "the server must answer the ping");
    let fd = client.fd();
    server.ask(move |ctx| ctx.ping(fd, b"and back"));
    assert_eq!(client.next(), Sent::Ping(b"and back"[..].into()));
    // tungstenite sends its pending pongs together with the next message.
    client.send("and back");
    assert_eq!(rx.next(), (PONG, b"and back".to_vec()));
    client.send_message(Sent::Pong(b"unasked"[..].into()));
    assert_eq!(rx.next(), (PONG, b"unasked".to_vec()));
}

#[test]
fn on_open_has_the_query_string_and_can_push() {
    let server = serve(|server| {
        server.on_open(|ctx, fd, request| {
            let name = request.query("name").expect("the query has a name");
            let greeting = format!("{} {} {name}", request.path(), request.raw_query());
            assert_eq!(ctx.push(fd, &greeting), Outcome::Queued);
        })
    });
    let mut client = server.connect("/chat?name=%E5%BC%A0%E4%B8%89&x=1");
    assert_eq!(client.text(), "/chat name=%E5%BC%A0%E4%B8%89&x=1 张三");
}

#[test]
fn texts_and_binary_messages_up_to_128_kb_are_echoed_in_order() {
    let server = echo_server();
    let mut client = server.connect("/");
    let mut noise = Noise(3);
    let sizes = [1, 100, 1_000, 10_000, 65_536, 100_000, 128 << 10];
    let messages = sizes.map(|size| (noise.text(size), noise.bytes(size)));
    for (text, bytes) in &messages {
        client.send(text);
        client.send_binary(bytes);
    }
    for (text, bytes) in &messages {
        assert!(client.text() == *text && client.binary() == *bytes, "{} bytes", bytes.len());
    }
}

#[test]
fn bulk_push_from_open() {
    const MESSAGES: usize = 10_000;
    let server = serve(|server| {
        server.on_open(|ctx, fd, _| {
            for number in 0..MESSAGES {
                assert_eq!(ctx.push(fd, &format!("message {number}")), Outcome::Queued);
            }
        })
    });
    let mut client = server.connect("/");
    for number in 0..MESSAGES {
        assert_eq!(client.text(), format!("message {number}"));
    }
}

#[test]
fn cookies_and_headers_are_set_on_the_101() {
    let server = serve(|server| {
        server.on_upgrade(|_, _, request| {
            let seen = request.cookie("seen").unwrap_or("nothing").to_owned();
            let accept = Upgrade::accept().header("X-Seen", seen).header("X-Server", "fdpush");
            accept.cookie("sid=1; Path=/; HttpOnly").cookie("theme=dark")
        })
    });
    let mut raw = server.raw();
    raw.send(UPGRADE.replacen("Host: localhost", "Host: localhost\r\nCookie: a=b; seen=this", 1));
    let reply = raw.reply();
    assert_eq!((reply.status, reply.header("X-Seen"), reply.header("X-Server")), (101, Some("this"), Some("fdpush")));
    let cookies: Vec<&str> = reply.head.lines().filter_map(|line| line.strip_prefix("Set-Cookie: ")).collect();
    assert_eq!(cookies, ["sid=1; Path=/; HttpOnly", "theme=dark"]);
    let client = server.connect_with("/", &[("Cookie", "seen=that")]);
    assert_eq!(client.header("X-Seen"), Some("that"));
}

#[test]
fn the_close_code_is_read_unsigned() {
    // Close codes are unsigned numbers of 16 bits. 0xffff and 0x8000 would be negative as signed numbers, and are
    // invalid.
    let (tx, rx) = channel();
    let server = serve(|server| server.on_close(report_close(tx)));
    for (code, answer) in [(4999, 4999), (1000, 1000), (0xffff, 1002), (0x8000, 1002), (0x83e8, 1002)] {
        let mut raw = Raw::upgraded(server.address());
        raw.send_frame(raw::CLOSE, &raw::close_payload(code, ""));
        assert_eq!(raw.close_frame().0, answer, "{code}");
        assert_eq!(rx.next().1.code.as_u16(), answer);
    }
}

#[test]
fn decoding_leaves_its_input_intact() {
    // The message that a handler gets is a slice of the receive buffer. Pushes must not change the receive buffer.
    let server = serve(|server| {
        server.on_message(|ctx, fd, message| {
            let before = message.as_bytes().to_vec();
            for _ in 0..3 {
                ctx.push(fd, message);
                ctx.broadcast(message);
                ctx.ping(fd, b"between");
            }
            assert_eq!(message.as_bytes(), before);
        })
    });
    let mut client = server.connect("/");
    let mut noise = Noise(5);
    let messages = [noise.text(10), noise.text(700), noise.text(5_000)];
    // The server gets all messages in one read. Pushes of one message must not change the bytes of the next.
    let frames: Vec<u8> = messages.iter().flat_map(|text| frame(TEXT, text.as_bytes())).collect();
    let mut raw = Raw::upgraded(server.address());
    raw.send(frames);
    for text in &messages {
        (0..3).for_each(|_| assert_eq!(client.text(), *text));
        let pushed =
            (0..9).map(|_| raw.frame()).filter(|(first, payload)| *first == 0x81 && payload == text.as_bytes());
        assert_eq!(pushed.count(), 6);
    }
}

/// Returns whether the heartbeat disconnects the silent client, and neither the active nor the protected client.
fn only_the_silent_client_is_disconnected(idle_max: Duration) -> bool {
    let (tx, rx) = channel();
    let server = serve(move |server| server.heartbeat(Heartbeat::Off).on_close(report_close(tx)));
    let (mut silent, protected) = (server.connect("/"), server.connect("/"));
    let mut active = Raw::upgraded(server.address());
    let (fd, spared) = (silent.fd(), protected.fd());
    server.ask(move |ctx| {
        for fd in ctx.connections().collect::<Vec<_>>() {
            assert_eq!(ctx.set_heartbeat(fd, Heartbeat::Client { idle_max }), Ok(Change::Done));
        }
        assert!(ctx.protect(spared).is_done());
    });
    let deadline = Instant::now() + DEADLINE;
    while server.ask(|ctx| ctx.stats().open == 3) {
        assert!(Instant::now() < deadline, "the silent client must be disconnected before the deadline");
        active.try_send(frame(TEXT, b"here"));
    }
    let (closed_fd, closed) = rx.next();
    assert_eq!((closed.by, closed.cause), (By::Server, Cause::HeartbeatMissed));
    if closed_fd != fd || server.ask(|ctx| ctx.broadcast("still here").queued) != 2 {
        return false;
    }
    silent.lost();
    assert_eq!(active.frame(), (0x81, b"still here".to_vec()));
    server.ask(move |ctx| ctx.is_open(spared))
}

#[test]
fn the_heartbeat_disconnects_silent_clients_and_keeps_active_and_protected_ones() {
    assert!(succeeds_with_longer_time(only_the_silent_client_is_disconnected));
}

#[test]
fn close_flushes_and_abort_does_not() {
    const MESSAGES: usize = 100;
    let limits = Limits { queue_bytes_max: 64 << 20, queue_total_bytes_max: 256 << 20, ..limits_with_long_times() };
    let server = serve(|server| server.limits(limits));
    let push_much = |ctx: &mut fdpush::Context<'_>, fd| {
        for _ in 0..MESSAGES {
            assert_eq!(ctx.push(fd, &vec![1; 100 << 10]), Outcome::Queued);
        }
    };
    let mut flushed = server.connect("/");
    let fd = flushed.fd();
    server.ask(move |ctx| {
        push_much(ctx, fd);
        assert_eq!(ctx.close(fd, 1000, "that was all"), CloseOutcome::Closing);
        assert_eq!(ctx.push(fd, "too late"), Outcome::Gone);
    });
    (0..MESSAGES).for_each(|_| assert_eq!(flushed.binary().len(), 100 << 10));
    assert_eq!(flushed.closed(), (1000, "that was all".to_owned()));

    let mut dropped = Raw::upgraded(server.address());
    let fd = server.ask(|ctx| ctx.connections().next()).expect("one connection is open");
    server.ask(move |ctx| {
        push_much(ctx, fd);
        assert_eq!(ctx.abort(fd), AbortOutcome::Aborted { was_open: true });
    });
    let came = dropped.rest().len();
    assert!(came < MESSAGES * (100 << 10), "the client must receive only a part of the messages: {came} bytes");
    assert_eq!(server.ask(|ctx| ctx.stats().queued_bytes), 0);
}

#[test]
fn a_slow_client_reaches_its_queue_bound() {
    let (tx, rx) = channel();
    let limits = Limits { message_bytes_max: 128 << 10, queue_bytes_max: 256 << 10, ..limits_with_long_times() };
    let server = serve(|server| server.limits(limits).on_close(report_close(tx)));
    let (slow, mut quick) = (server.connect("/"), server.connect("/"));
    let (fd, message) = (slow.fd(), vec![0; 64 << 10]);
    let mut pushed = 0;
    loop {
        let bytes = message.clone();
        let (outcome, info) = server.ask(move |ctx| (ctx.push(fd, &bytes), ctx.info(fd)));
        if outcome == Outcome::Dropped {
            break;
        }
        let queued = info.expect("the connection exists").queued_bytes;
        assert!(queued <= 256 << 10, "at most 256 KiB may be queued, not {queued} bytes");
        pushed += 1;
        assert!(pushed < 10_000, "the socket buffer must be full after less than 10,000 messages");
    }
    assert_eq!(rx.next().1.cause, Cause::SlowConsumer);
    assert_eq!(server.ask(move |ctx| ctx.push(fd, "more")), Outcome::Gone);
    assert_eq!(server.ask(|ctx| ctx.broadcast("and the others?").queued), 1);
    assert_eq!(quick.text(), "and the others?");
}

#[test]
fn large_fd_numbers() {
    const REUSES: u64 = 100;
    let server = serve(|server| server.on_upgrade(accept_with_fd).on_message(echo));
    let mut seen = HashSet::new();
    let mut stale: Option<Fd> = None;
    for generation in 0..REUSES {
        let mut client = server.connect("/");
        let fd = client.fd();
        assert!(seen.insert(fd), "{fd} must be a new fd");
        assert_eq!(fd.as_u64(), generation << 24 | 1, "the fd must have the only slot and a new generation");
        assert_eq!(fd.to_string().parse().map(Fd::from_u64), Ok(Some(fd)));
        if let Some(stale) = stale {
            assert_eq!(server.ask(move |ctx| (ctx.push(stale, "no"), ctx.exists(stale))), (Outcome::Gone, false));
        }
        assert_eq!(server.ask(move |ctx| ctx.push(fd, "yes")), Outcome::Queued);
        assert_eq!(client.text(), "yes");
        stale = Some(fd);
        client.close(1000, "");
        client.closed();
        drop(client);
        server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
    }
}

#[test]
fn info_is_available_inside_on_close() {
    let (tx, rx) = channel();
    let server = serve(|server| {
        server.on_message(echo).on_close(move |ctx, fd, _| {
            let known = (ctx.uid_of(fd).map(str::to_owned), ctx.exists(fd), ctx.is_open(fd), ctx.push(fd, "no"));
            tx.send((ctx.info(fd), known, ctx.fds_of("me").len())).expect("the test waits");
        })
    });
    let mut client = server.connect("/?uid=me&group=room");
    let fd = client.fd();
    client.send("hi");
    assert_eq!(client.text(), "hi");
    client.close(1000, "");
    let (info, known, fds) = rx.next();
    let info = info.expect("on_close gets the information about the connection");
    assert_eq!((info.fd, info.uid.as_deref(), info.groups), (fd, Some("me"), vec!["room".to_owned()]));
    assert_eq!((info.traffic.messages_in, info.traffic.messages_out), (1, 1));
    assert!(info.peer.is_loopback() && info.state == State::Closing);
    assert_eq!(known, (Some("me".to_owned()), true, false, Outcome::Gone));
    assert_eq!(fds, 0, "inside on_close, the uid must have no connection");
}
