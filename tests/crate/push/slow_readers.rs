//! Tests each policy for slow readers, with a client that does not read.

use std::time::Duration;

use crate::common::{
    Client, Scratch, TestServer, channel, limits_with_long_times, report_close, serve, serve_on, serve_plain,
};
use fdpush::{By, Cause, Delivery, Fd, Heartbeat, Limits, Message, Outcome, Response, SlowReader};

/// The bound of a queue in bytes. The messages are much smaller than this bound.
const QUEUE_BYTES_MAX: usize = 64 << 10;
const MESSAGE_BYTES: usize = 8 << 10;

/// The maximum number of pushed messages. Together they exceed the socket buffers of any kernel.
const MESSAGES_MAX: usize = 100_000;

fn limits(slow_reader: SlowReader) -> Limits {
    Limits {
        message_bytes_max: MESSAGE_BYTES,
        queue_bytes_max: QUEUE_BYTES_MAX,
        slow_reader,
        write_time_max: Duration::from_secs(3600),
        ..limits_with_long_times()
    }
}

fn numbered(number: usize) -> String {
    format!("{number:0width$}", width = MESSAGE_BYTES)
}

/// Pushes numbered messages until the server drops a message. Returns the number of the dropped message.
fn push_until_dropped(server: &TestServer, fd: Fd) -> usize {
    server.ask(move |ctx| {
        (0..MESSAGES_MAX)
            .find(|number| match ctx.push(fd, &numbered(*number)) {
                Outcome::Queued => false,
                outcome => {
                    assert_eq!(outcome, Outcome::Dropped);
                    true
                }
            })
            .expect("the queue becomes full before the last message")
    })
}

fn expect_numbers(client: &mut Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert_eq!(client.text().trim_start_matches('0'), number.to_string().trim_start_matches('0'));
    }
}

#[test]
fn by_default_a_slow_reader_is_closed_with_1013() {
    let (tx, rx) = channel();
    let server = serve(|server| server.limits(limits(SlowReader::Close)).on_close(report_close(tx)));
    let mut slow = server.connect("/?uid=slow");
    let mut quick = server.connect("/?uid=quick");
    let dropped = push_until_dropped(&server, slow.fd());
    let (fd, closed) = rx.next();
    assert_eq!(fd, slow.fd());
    assert_eq!((closed.code.as_u16(), closed.by, closed.cause), (1013, By::Server, Cause::SlowConsumer));
    assert_eq!(server.ask(|ctx| ctx.push_uid("slow", "too late").matched), 0);
    assert_eq!(server.ask(|ctx| ctx.push_uid("quick", "you").queued), 1);
    assert_eq!(quick.text(), "you");

    // The client reads whole messages in order, then the close frame. The server drops the messages that are still
    // queued.
    let mut read = 0;
    let code: u16 = loop {
        match slow.next() {
            tungstenite::Message::Text(text) => {
                assert_eq!(text.trim_start_matches('0').parse().unwrap_or(0), read);
                read += 1;
            }
            tungstenite::Message::Close(frame) => break frame.expect("the close frame has a code").code.into(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1013);
    assert!(
        (1..=dropped).contains(&read),
        "the client must read a part of the messages before the close: {read} of {dropped}"
    );
}

#[test]
fn with_drop_newest_new_messages_are_dropped_and_the_connection_stays_open() {
    let (tx, rx) = channel();
    let server = serve(|server| server.limits(limits(SlowReader::DropNewest)).on_close(report_close(tx)));
    let mut slow = server.connect("/?uid=slow");
    let fd = slow.fd();
    let mut next = push_until_dropped(&server, fd);
    let info = server.ask(move |ctx| ctx.info(fd)).expect("the connection is open");
    assert!(info.queued_bytes <= QUEUE_BYTES_MAX);
    // The kernel may still accept a few messages. The result of their pushes is `Queued`.
    let delivery = loop {
        match server.ask(move |ctx| ctx.push_uid("slow", &numbered(next))) {
            Delivery { queued: 1, .. } => next += 1,
            delivery => break delivery,
        }
    };
    assert_eq!(delivery, Delivery::new(0, 1));

    expect_numbers(&mut slow, 0..next);
    server.wait_until("the queue is empty", |ctx| ctx.stats().queued_bytes == 0);
    assert_eq!(server.ask(move |ctx| ctx.push(fd, "room again")), Outcome::Queued);
    assert_eq!(slow.text(), "room again", "the client must get no dropped message");
    assert!(rx.so_far().is_empty());
}

#[test]
fn with_conflate_a_newer_message_replaces_the_unsent_one_with_its_key() {
    let limits = Limits { queue_bytes_max: 256 << 10, ..limits(SlowReader::Conflate) };
    let server = serve(|server| server.limits(limits));
    let mut slow = server.connect("/");
    let fd = slow.fd();
    // Each push has its own turn, so the queue contains only bytes that the full socket did not accept. The test pushes
    // until the queue has 128 KiB, which is more than the socket can accept later.
    let mut sent = 0;
    while server.ask(move |ctx| ctx.info(fd)).expect("the connection is open").queued_bytes < 128 << 10 {
        assert_eq!(server.ask(move |ctx| ctx.push(fd, &numbered(sent))), Outcome::Queued);
        sent += 1;
        assert!(sent < MESSAGES_MAX);
    }
    server.ask(move |ctx| {
        let key = |text, key| Message::Text(text).key(key);
        assert_eq!(ctx.push(fd, key("a 1", "a")), Outcome::Queued);
        assert_eq!(ctx.push(fd, key("b 1", "b")), Outcome::Queued);
        let filler = "f".repeat(1000);
        let fillers = (0..MESSAGES_MAX).find(|_| !ctx.push(fd, &filler).is_queued());
        assert!(fillers.is_some_and(|fillers| fillers > 0));
        while ctx.push(fd, "f").is_queued() {}
        assert_eq!(ctx.push(fd, key("a 2", "a")), Outcome::Queued);
        assert_eq!(ctx.push(fd, key("b 2", "b")), Outcome::Queued);
        assert_eq!(ctx.push(fd, key("a 3", "a")), Outcome::Queued);
        assert_eq!(
            ctx.push(fd, key("c", "c")),
            Outcome::Dropped,
            "a message with a new key must be dropped while the queue is full"
        );
    });
    expect_numbers(&mut slow, 0..sent);
    assert_eq!(slow.text(), "a 3");
    assert_eq!(slow.text(), "b 2");
    assert!(slow.text().starts_with('f'), "the client must get only the newest message of each key");
}

#[test]
fn a_slow_reader_does_not_delay_a_broadcast() {
    let server = serve(|server| server.limits(limits(SlowReader::DropNewest)));
    let slow = server.connect("/");
    let mut quick = server.connect("/");
    push_until_dropped(&server, slow.fd());
    for number in 0..50 {
        let delivery = server.ask(move |ctx| ctx.broadcast(&numbered(number)));
        assert_eq!((delivery.matched, delivery.queued + delivery.dropped), (2, 2));
        expect_numbers(&mut quick, number..number + 1);
    }
}

#[test]
fn all_queues_together_are_bounded() {
    let (tx, rx) = channel();
    let limits = Limits { queue_bytes_max: 64 << 20, queue_total_bytes_max: 256 << 10, ..limits(SlowReader::Close) };
    let server = serve(|server| server.limits(limits).on_close(report_close(tx)));
    let slow = server.connect("/");
    push_until_dropped(&server, slow.fd());
    assert_eq!(rx.next().1.cause, Cause::SlowConsumer);
    assert!(server.ask(|ctx| ctx.stats().queued_bytes) <= 256 << 10);
    let mut next = server.connect("/");
    assert_eq!(server.ask(|ctx| ctx.broadcast("there is room").queued), 1);
    assert_eq!(next.text(), "there is room");
}

#[test]
fn messages_do_not_count_as_queued_in_the_turn_that_pushes_them() {
    const READERS: usize = 50;
    const PUBLISHES: usize = 16;
    let (tx, rx) = channel();
    let limits = Limits { queue_total_bytes_max: QUEUE_BYTES_MAX, ..limits(SlowReader::Close) };
    // A full unix socket accepts no bytes until its reader reads. A full TCP socket could accept more bytes later,
    // which would add a write to the count.
    let scratch = Scratch::new("behind");
    let path = scratch.file("sock");
    let unix = format!("unix:{}", path.display());
    let server =
        serve(|server| server.limits(limits).on_close(report_close(tx)).listen(unix).expect("the server can listen"));
    let behind = Client::connect_unix(&path, "/").expect("the server accepts the WebSocket");
    let fd = behind.fd();
    let mut readers: Vec<Client> = (0..READERS).map(|_| server.connect("/")).collect();
    let queued_bytes = || server.ask(move |ctx| ctx.info(fd)).expect("the connection is open").queued_bytes;
    for sent in 0..MESSAGES_MAX {
        if queued_bytes() > QUEUE_BYTES_MAX / 2 {
            break;
        }
        assert_eq!(server.ask(move |ctx| ctx.push(fd, &numbered(sent))), Outcome::Queued);
    }
    // The messages have six times as many bytes as the total bound. Only the bytes for the slow reader count as queued.
    let (writes, deliveries) = server.ask(|ctx| {
        let (writes, text) = (ctx.stats().writes, "x".repeat(500));
        (writes, (0..PUBLISHES).map(|_| ctx.broadcast(&text)).collect::<Vec<_>>())
    });
    let all = READERS + 1;
    assert_eq!(deliveries, [Delivery::new(all, 0); PUBLISHES]);
    for reader in &mut readers {
        (0..PUBLISHES).for_each(|_| assert_eq!(reader.text().len(), 500));
    }
    let writes = server.ask(|ctx| ctx.stats().writes) - writes;
    assert!(writes <= all as u64, "expected at most one write for each connection in a turn, got {writes} writes");
    assert!(rx.so_far().is_empty());
}

/// Checks turns in which the sockets become full. Such a turn can leave more queued bytes than the total bound allows.
/// Then the server drops whole messages, even messages that a push reported as queued, and can close connections to
/// which it has written only a part of a message. The server counts each dropped message.
///
/// The kernel decides whether a socket becomes full inside a message or between two messages. So this function asks the
/// server for the number of messages that it has not dropped.
fn check_turns_with_full_sockets(connect: impl Fn(&TestServer, usize) -> Client) {
    const READERS: usize = 20;
    const TOTAL_MAX: usize = 100 << 10;
    let (tx, rx) = channel();
    let limits =
        Limits { queue_bytes_max: 1 << 20, queue_total_bytes_max: TOTAL_MAX, ..limits(SlowReader::DropNewest) };
    // A partly written TLS record is larger than a partly written message. Several partly written records would use up
    // the total bound, so this server has no TLS. The server sends no pings, because a ping would use a part of the
    // bound.
    let server = serve_plain(|server| server.limits(limits).heartbeat(Heartbeat::Off).on_close(report_close(tx)));
    let mut readers: Vec<Client> = (0..READERS).map(|index| connect(&server, index)).collect();
    let fds: Vec<Fd> = readers.iter().map(Client::fd).collect();
    let (mut queued, mut reported) = (vec![0; READERS], 0);
    for turn in 0..MESSAGES_MAX {
        let (fds, sent) = (fds.clone(), queued.clone());
        let (waiting, outcomes) = server.ask(move |ctx| {
            let waiting = ctx.stats().queued_bytes;
            let outcomes = fds.iter().zip(sent).map(|(fd, sent)| ctx.push(*fd, &numbered(sent)));
            (waiting, outcomes.collect::<Vec<_>>())
        });
        assert!(waiting <= TOTAL_MAX, "queued bytes must stay within the total bound in turn {turn}: {waiting}");
        queued.iter_mut().zip(&outcomes).for_each(|(queued, outcome)| *queued += usize::from(outcome.is_queued()));
        reported += outcomes.iter().filter(|outcome| **outcome == Outcome::Dropped).count();
        if outcomes.iter().all(|outcome| !outcome.is_queued()) {
            break;
        }
    }
    let (dropped, kept) = server.ask(move |ctx| {
        let kept = fds.iter().map(|fd| ctx.info(*fd).map(|info| info.traffic.messages_out as usize));
        (ctx.stats().dropped as usize, kept.collect::<Vec<_>>())
    });
    let closed: Vec<Fd> = rx
        .so_far()
        .into_iter()
        .map(|(fd, closed)| {
            assert_eq!(closed.cause, Cause::SlowConsumer);
            fd
        })
        .collect();
    let mut lost = 0;
    for ((reader, queued), kept) in readers.iter_mut().zip(queued).zip(kept) {
        let fd = reader.fd();
        if closed.contains(&fd) {
            continue;
        }
        let kept = kept.expect("the connection is open");
        let numbers: Vec<usize> = (0..kept).map(|_| reader.text().parse().expect("the message is a number")).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next) && numbers.last().is_none_or(|last| *last < queued));
        assert_eq!(server.ask(move |ctx| ctx.push(fd, "the end")), Outcome::Queued);
        assert_eq!(reader.text(), "the end");
        lost += queued - kept;
    }
    // The server also counts dropped messages of connections that it closed, which `lost` does not include.
    let counted = dropped - reported;
    assert!(
        lost == counted || (lost < counted && !closed.is_empty()),
        "{lost} messages are lost, and the server must count all of them, not {counted}"
    );
}

#[test]
fn if_sockets_become_full_in_one_turn_the_total_bound_holds_and_each_dropped_message_is_counted() {
    check_turns_with_full_sockets(|server, _| server.connect("/"));
}

#[test]
fn if_sockets_become_full_in_different_turns_the_total_bound_holds_and_each_dropped_message_is_counted() {
    check_turns_with_full_sockets(|server, index| {
        let connected = Client::connect_with_buffer(3_000 + 3_777 * index, server.address(), "/");
        connected.expect("the server accepts the WebSocket")
    });
}

#[test]
fn a_socket_without_write_progress_is_closed_after_write_time_max() {
    // A unix socket has no TCP_USER_TIMEOUT, which could end the connection before the server does.
    let scratch = Scratch::new("write-timeout");
    let path = scratch.file("sock");
    let (tx, rx) = channel();
    let limits = Limits { write_time_max: Duration::from_millis(50), ..limits(SlowReader::DropNewest) };
    let server =
        serve_on(&format!("unix:{}", path.display()), |server| server.limits(limits).on_close(report_close(tx)));
    let slow = Client::connect_unix(&path, "/").expect("the server accepts the WebSocket");
    push_until_dropped(&server, slow.fd());
    let (fd, closed) = rx.next();
    assert_eq!(fd, slow.fd());
    assert_eq!((closed.code.as_u16(), closed.by, closed.cause), (1006, By::Server, Cause::WriteTimedOut));
}

#[test]
fn a_streamed_response_to_a_slow_reader_ends() {
    let (tx, rx) = channel();
    let server = serve(|server| {
        server.limits(limits(SlowReader::DropNewest)).on_request(move |ctx, fd, _| {
            let (later, ticket) = ctx.defer_response(fd);
            let response = ctx.begin_response(ticket, &Response::new(200)).expect("the request waits for a response");
            let piece = [b'x'; MESSAGE_BYTES];
            let end =
                (0..MESSAGES_MAX).map(|_| ctx.write_response(&response, &piece)).find(|outcome| !outcome.is_queued());
            tx.send((end, ctx.end_response(response))).expect("the test waits");
            later
        })
    });
    let mut client = server.raw();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(rx.next(), (Some(Outcome::Dropped), Outcome::Gone));
    assert!(!client.rest().ends_with(b"0\r\n\r\n"), "the body must end without the last chunk");
    assert_eq!(server.ask(|ctx| ctx.stats().queued_bytes), 0);
}

#[test]
fn http_responses_count_toward_a_total_bound_of_their_own() {
    const PAGE_BYTES: usize = 64 << 20;
    let limits = Limits { queue_total_bytes_max: 256 << 10, ..limits(SlowReader::Close) };
    let server =
        serve(|server| server.limits(limits).on_request(|_, _, _| Response::new(200).body(vec![b'x'; PAGE_BYTES])));
    let mut websocket = server.connect("/?uid=ann");
    let mut client = server.raw();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(client.rest().len() < PAGE_BYTES, "the client must receive at most the bytes in the socket buffers");
    assert_eq!(server.ask(|ctx| ctx.push_uid("ann", "hello").queued), 1);
    assert_eq!(websocket.text(), "hello");
}

#[test]
fn many_pushes_of_one_handler_share_system_calls() {
    const CLIENTS: usize = 60;
    const MESSAGES: usize = 300;
    // The messages have three times as many bytes as the total bound. A socket has room for all messages of one client.
    let limits = Limits {
        message_bytes_max: MESSAGE_BYTES,
        queue_bytes_max: QUEUE_BYTES_MAX,
        queue_total_bytes_max: 600 << 10,
        ..limits_with_long_times()
    };
    let server = serve(|server| server.limits(limits));
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect("/?group=room")).collect();
    let writes = server.ask(|ctx| {
        let before = ctx.stats().writes;
        for number in 0..MESSAGES {
            // Each member gets its own push, as if all frames were different.
            for fd in ctx.members("room") {
                assert_eq!(ctx.push(fd, &format!("{number:0100}")), Outcome::Queued);
            }
        }
        ctx.stats().writes - before
    });
    assert!(
        writes < (CLIENTS * 10) as u64,
        "expected fewer than 10 writes for each client, got {writes} writes for {CLIENTS} clients"
    );
    for client in &mut clients {
        for number in 0..MESSAGES {
            assert_eq!(client.text(), format!("{number:0100}"));
        }
    }
}
