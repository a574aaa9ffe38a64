//! Tests pushes to one connection, to many and to all: delivery, order and outcome.

use std::borrow::Cow;
use std::iter;
use std::rc::Rc;
use std::sync::Arc;

use crate::common::{Client, echo, limits_with_long_times, serve};
use fdpush::{Delivery, Fd, Frame, IntoPush, Limits, Message, Outcome};
use tungstenite::Message as Received;

fn delivered(count: usize) -> Delivery {
    Delivery::new(count, 0)
}

/// Pushes `marker` to all. The marker must be the next message of each client.
fn expect_no_other_message(server: &crate::common::TestServer, clients: &mut [&mut Client]) {
    server.ask(|ctx| ctx.broadcast("marker"));
    for client in clients {
        assert_eq!(client.text(), "marker");
    }
}

#[test]
fn a_push_to_an_fd_reaches_that_connection_and_no_other() {
    let server = serve(|server| server);
    let mut one = server.connect("/");
    let mut other = server.connect("/");
    let fd = one.fd();
    assert_eq!(server.ask(move |ctx| ctx.push(fd, "for one")), Outcome::Queued);
    assert_eq!(one.text(), "for one");
    expect_no_other_message(&server, &mut [&mut one, &mut other]);
}

#[test]
fn a_push_to_a_uid_reaches_all_its_connections_and_no_other() {
    let server = serve(|server| server);
    let mut phone = server.connect("/?uid=10010");
    let mut laptop = server.connect("/?uid=10010");
    let mut other = server.connect("/?uid=10011");
    assert_eq!(server.ask(|ctx| ctx.push_uid("10010", "for both")), delivered(2));
    assert_eq!(phone.text(), "for both");
    assert_eq!(laptop.text(), "for both");
    expect_no_other_message(&server, &mut [&mut phone, &mut laptop, &mut other]);
}

#[test]
fn every_kind_of_push_can_exclude_connections() {
    let server = serve(|server| server);
    let (mut one, mut other) = (server.connect("/"), server.connect("/"));
    let fd = one.fd();
    server.ask(move |ctx| {
        let except = [fd];
        let (text, bytes) = (String::from("text"), b"bytes".to_vec());
        let frame = Frame::text("text");
        for delivery in [
            ctx.broadcast("text".except(&except)),
            ctx.broadcast(text.except(&except)),
            ctx.broadcast(format!("te{}", "xt").except(&except)),
            ctx.broadcast(Cow::from("text").except(&except)),
            ctx.broadcast(Arc::<str>::from("text").except(&except)),
            ctx.broadcast(Box::<str>::from("text").except(&except)),
            ctx.broadcast(Rc::new(text).except(&except)),
            ctx.broadcast(Message::Text("text").except(&except)),
            ctx.broadcast(frame.except(&except)),
            ctx.broadcast(bytes.except(&except)),
            ctx.broadcast(bytes.as_slice().except(&except)),
            ctx.broadcast(b"bytes".except(&except)),
            ctx.broadcast(Cow::from(&bytes).except(&except)),
            ctx.broadcast(Arc::new(bytes).except(&except)),
        ] {
            assert_eq!(delivery, delivered(1));
        }
    });
    (0..9).for_each(|_| assert_eq!(other.text(), "text"));
    (0..5).for_each(|_| assert_eq!(other.binary(), b"bytes"));
    expect_no_other_message(&server, &mut [&mut one, &mut other]);
}

#[test]
fn a_push_to_an_offline_uid_matches_no_connection() {
    let server = serve(|server| server);
    assert_eq!(server.ask(|ctx| ctx.push_uid("10010", "anybody?")), Delivery::default());
    assert_eq!(server.ask(|ctx| ctx.push_group("room", "anybody?")), Delivery::default());
    assert_eq!(server.ask(|ctx| ctx.broadcast("anybody?")), Delivery::default());
}

#[test]
fn a_uid_named_twice_gets_one_message() {
    let server = serve(|server| server);
    let mut ann = server.connect("/?uid=ann");
    let mut bob = server.connect("/?uid=bob");
    let delivery = server.ask(|ctx| ctx.push_uids(["ann", "bob", "ann", "nobody", "bob"].map(String::from), "once"));
    assert_eq!(delivery, delivered(2));
    assert_eq!(ann.text(), "once");
    assert_eq!(bob.text(), "once");
    expect_no_other_message(&server, &mut [&mut ann, &mut bob]);
}

#[test]
fn a_push_to_a_group_reaches_its_members() {
    let server = serve(|server| server);
    let mut members = [server.connect("/?group=room"), server.connect("/?group=room")];
    let mut outsider = server.connect("/?group=elsewhere");
    assert_eq!(server.ask(|ctx| ctx.push_group("room", "in here")), delivered(2));
    for member in &mut members {
        assert_eq!(member.text(), "in here");
    }
    expect_no_other_message(&server, &mut [&mut outsider]);
}

#[test]
fn a_member_of_several_groups_gets_one_message() {
    let server = serve(|server| server);
    let mut both = server.connect("/?group=a&group=b");
    let mut only_a = server.connect("/?group=a");
    let mut only_b = server.connect("/?group=b");
    assert_eq!(server.ask(|ctx| ctx.push_groups(["a", "b", "a", "empty"], "once")), delivered(3));
    for client in [&mut both, &mut only_a, &mut only_b] {
        assert_eq!(client.text(), "once");
    }
    expect_no_other_message(&server, &mut [&mut both, &mut only_a, &mut only_b]);
}

#[test]
fn a_broadcast_reaches_every_websocket_with_and_without_a_uid() {
    let server = serve(|server| server);
    let mut clients = [server.connect("/"), server.connect("/?uid=ann"), server.connect("/?group=room")];
    // A plain HTTP connection gets no pushed message, and `matched` does not include it.
    let _http = server.raw();
    server.wait_until("the HTTP connection is accepted", |ctx| ctx.stats().connections == 4);
    assert_eq!(server.ask(|ctx| ctx.broadcast("to all")), delivered(3));
    for client in &mut clients {
        assert_eq!(client.text(), "to all");
    }
}

#[test]
fn an_excluded_connection_is_neither_reached_nor_counted() {
    let server = serve(|server| server);
    let mut sender = server.connect("/?uid=ann&group=room");
    let mut tab = server.connect("/?uid=ann&group=room");
    let fd = sender.fd();
    assert_eq!(server.ask(move |ctx| ctx.push_uid("ann", Message::Text("uid").except(&[fd]))), delivered(1));
    assert_eq!(server.ask(move |ctx| ctx.push_group("room", Message::Text("group").except(&[fd]))), delivered(1));
    assert_eq!(server.ask(move |ctx| ctx.broadcast(Message::Text("all").except(&[fd]))), delivered(1));
    assert_eq!(server.ask(move |ctx| ctx.push(fd, Message::Text("fd").except(&[fd]))), Outcome::Gone);
    for text in ["uid", "group", "all"] {
        assert_eq!(tab.text(), text);
    }
    expect_no_other_message(&server, &mut [&mut sender, &mut tab]);
}

#[test]
fn a_stale_excluded_fd_excludes_no_connection() {
    let server = serve(|server| server);
    let leaver = server.connect("/");
    let stale = leaver.fd();
    drop(leaver);
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
    let mut successor = server.connect("/");
    assert_eq!(successor.fd().slot(), stale.slot());
    assert_eq!(server.ask(move |ctx| ctx.broadcast(Message::Text("hello").except(&[stale]))), delivered(1));
    assert_eq!(successor.text(), "hello");
}

#[test]
fn a_frame_can_be_pushed_any_number_of_times() {
    let server = serve(|server| server);
    let mut one = server.connect("/?group=room");
    let mut other = server.connect("/?group=room");
    let fd = one.fd();
    let large = "large ".repeat(1000);
    let text = large.clone();
    server.ask(move |ctx| {
        let small = Frame::text("small");
        let large = Frame::text(&text);
        let bytes = Frame::binary(b"\x00\xff");
        assert_eq!(ctx.push(fd, &small), Outcome::Queued);
        assert_eq!(ctx.push_group("room", &large), delivered(2));
        assert_eq!(ctx.broadcast(&bytes), delivered(2));
        assert_eq!(ctx.push(fd, &small), Outcome::Queued);
    });
    assert_eq!(one.text(), "small");
    for client in [&mut one, &mut other] {
        assert_eq!(client.text(), large);
        assert_eq!(client.binary(), b"\x00\xff");
    }
    assert_eq!(one.text(), "small");
}

#[test]
fn text_and_binary_keep_their_type_at_every_header_length() {
    let server = serve(|server| server.on_message(echo));
    let mut client = server.connect("/");
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 400_000] {
        let text: String = iter::repeat("naïve ☃ ".chars()).flatten().take(length / 2).collect();
        client.send(&text);
        assert!(client.text() == text, "the client must receive the echo of a text of {} bytes", text.len());
        let bytes: Vec<u8> = (0..length).map(|index| (index * 7) as u8).collect();
        client.send_binary(&bytes);
        assert!(client.binary() == bytes, "{length} bytes");
    }
}

#[test]
fn a_push_from_on_open_follows_the_101() {
    let server = serve(|server| {
        server.on_open(|ctx, fd, request| {
            let name = request.query("name").unwrap_or_default().into_owned();
            assert_eq!(ctx.push(fd, &format!("welcome {name}")), Outcome::Queued);
        })
    });
    assert_eq!(server.connect("/?name=J%C3%BCrgen+%26+Co").text(), "welcome Jürgen & Co");
}

#[test]
fn two_replies_to_one_message_arrive_in_order() {
    let server = serve(|server| {
        server.on_message(|ctx, fd, message| {
            ctx.push(fd, "first");
            ctx.push(fd, message);
        })
    });
    let mut client = server.connect("/");
    client.send("second");
    assert_eq!(client.text(), "first");
    assert_eq!(client.text(), "second");
}

#[test]
fn messages_of_one_turn_arrive_in_order_at_any_size() {
    let server = serve(|server| server);
    let mut client = server.connect("/?uid=ann");
    let fd = client.fd();
    // The server handles each of these lengths in a different way: it copies short messages into the queues, shares
    // longer messages between queues, and writes very long messages alone.
    let length = |index: usize| [3, 700, 20_000][index % 3];
    let payload = move |index: usize| format!("{index}:{}", "x".repeat(length(index)));
    server.ask(move |ctx| {
        for index in 0..100 {
            let text = payload(index);
            match index % 2 {
                0 => assert_eq!(ctx.push(fd, &text), Outcome::Queued),
                _ => assert_eq!(ctx.push_uid("ann", &text), delivered(1)),
            }
        }
    });
    for index in 0..100 {
        assert!(client.text() == payload(index), "message {index}");
    }
}

#[test]
fn concurrent_clients_each_get_their_own_echo() {
    let server = serve(|server| server.on_message(echo));
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect("/")).collect();
    let payload = |client: usize, round: usize| format!("{client}/{round} {}", "y".repeat(35_000 + client));
    for round in 0..3 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(&payload(index, round));
        }
    }
    for (index, client) in clients.iter_mut().enumerate() {
        for round in 0..3 {
            assert!(client.text() == payload(index, round), "client {index} must receive its message of round {round}");
        }
    }
}

#[test]
fn a_push_to_a_plain_http_connection_returns_gone() {
    let server = serve(|server| server);
    let _http = server.raw();
    server.wait_until("the HTTP connection is accepted", |ctx| ctx.stats().connections == 1);
    server.ask(|ctx| {
        let http = Fd::from_u64(1).expect("the fd is valid");
        let never = Fd::from_u64(2).expect("the fd is valid");
        assert!(ctx.exists(http) && !ctx.is_open(http));
        assert!(!ctx.exists(never) && !ctx.is_open(never));
        assert_eq!(ctx.push(http, "hello"), Outcome::Gone);
        assert_eq!(ctx.push(never, "hello"), Outcome::Gone);
    });
}

#[test]
fn a_message_over_the_queue_bound_is_too_large_and_the_connection_stays_open() {
    let limits = Limits { message_bytes_max: 500, queue_bytes_max: 1000, ..limits_with_long_times() };
    let server = serve(|server| server.limits(limits));
    let mut client = server.connect("/?uid=ann");
    let fd = client.fd();
    assert_eq!(server.ask(move |ctx| ctx.push(fd, &"x".repeat(1000))), Outcome::TooLarge);
    let delivery = server.ask(|ctx| ctx.push_uid("ann", &"x".repeat(1000)));
    assert_eq!(delivery, Delivery::new(0, 1));
    assert_eq!(server.ask(move |ctx| ctx.push(fd, &"x".repeat(900))), Outcome::Queued);
    assert_eq!(client.text().len(), 900);
}

#[test]
fn an_empty_message_is_delivered() {
    let server = serve(|server| server.on_message(echo));
    let mut client = server.connect("/");
    client.send("");
    assert_eq!(client.next(), Received::text(""));
    client.send_binary(b"");
    assert_eq!(client.next(), Received::binary(Vec::new()));
}

#[test]
fn a_burst_of_the_largest_messages_reaches_a_fast_reader() {
    let server = serve(|server| server);
    let mut client = server.connect("/?uid=ann");
    let payload = |index: usize| format!("{index} {}", "x".repeat((900 << 10) + index));
    server.ask(move |ctx| {
        for index in 0..4 {
            assert_eq!(ctx.push_uid("ann", &payload(index)).queued, 1, "message {index}");
        }
    });
    for index in 0..4 {
        assert!(client.text() == payload(index), "message {index}");
    }
    // The server can push a message of `message_bytes_max`, so it can echo the longest message of a client.
    let max = fdpush::Limits::default().message_bytes_max;
    assert_eq!(server.ask(move |ctx| ctx.push_uid("ann", &"x".repeat(max))).queued, 1);
    assert_eq!(client.text().len(), max);
}
