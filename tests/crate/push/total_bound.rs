//! Tests the total bound of all queues: at the bound, the server shortens the longest queues, and fast readers lose
//! nothing.

use std::sync::Arc;

use crate::common::raw::frame_with;
use crate::common::{Client, Raw, channel, limits_with_long_times, report_close, serve, serve_plain};
use fdpush::{Cause, Change, Fd, Frame, Limits, Message, Outcome, SlowReader};

const TOTAL_MAX: usize = 16 << 20;
const SLOW_READERS: usize = 16;
const READERS: usize = 50;
const MESSAGE_BYTES: usize = 150_000;

fn limits(slow_reader: SlowReader) -> Limits {
    Limits { queue_total_bytes_max: TOTAL_MAX, slow_reader, ..limits_with_long_times() }
}

/// Checks that fast readers get their messages while slow readers fill nearly all of the total bound. One turn pushes
/// one message to each fast reader.
fn check_fast_readers(slow_reader: SlowReader) {
    let (tx, rx) = channel();
    let server = serve(move |server| server.limits(limits(slow_reader)).on_close(report_close(tx)));
    let slow_readers: Vec<Client> = (0..SLOW_READERS).map(|_| server.connect("/")).collect();
    let mut readers: Vec<Client> = (0..READERS).map(|_| server.connect("/")).collect();
    let hog_fds: Vec<Fd> = slow_readers.iter().map(Client::fd).collect();
    let mut queued = 0;
    while queued < TOTAL_MAX / 16 * 14 {
        let fds = hog_fds.clone();
        queued = server.ask(move |ctx| {
            let message = vec![0; 16 << 10];
            for (fd, number) in fds.into_iter().zip(0..) {
                let key = format!("{number}{}", ctx.stats().queued_bytes);
                ctx.push(fd, Message::Binary(&message).key(&key));
            }
            ctx.stats().queued_bytes
        });
    }
    assert!(rx.so_far().is_empty());

    let fds: Vec<Fd> = readers.iter().map(Client::fd).collect();
    let (outcomes, most) = server.ask(move |ctx| {
        let message = vec![1; MESSAGE_BYTES];
        let mut most = 0;
        let push = |fd| {
            let outcome = ctx.push(fd, Message::Binary(&message));
            most = most.max(ctx.stats().queued_bytes);
            outcome
        };
        (fds.into_iter().map(push).collect::<Vec<Outcome>>(), most)
    });
    assert!(most <= TOTAL_MAX, "at most {TOTAL_MAX} bytes may be queued, not {most}");
    assert_eq!(outcomes, [Outcome::Queued; READERS]);
    for reader in &mut readers {
        assert_eq!(reader.binary(), vec![1; MESSAGE_BYTES]);
    }
    for (fd, closed) in rx.so_far() {
        assert_eq!(closed.cause, Cause::SlowConsumer);
        assert!(hog_fds.contains(&fd), "{fd} reads its messages and must not be closed");
    }
    let stats = server.ask(|ctx| ctx.stats());
    match slow_reader {
        SlowReader::Close => assert!(
            stats.closed > 0 && stats.closed < SLOW_READERS as u64,
            "some slow readers must be closed, but not all of them: {} are closed",
            stats.closed
        ),
        SlowReader::DropNewest | SlowReader::Conflate => assert!(stats.dropped > 0),
    }
}

#[test]
fn with_close_fast_readers_get_their_messages_at_the_total_bound() {
    check_fast_readers(SlowReader::Close);
}

#[test]
fn with_drop_newest_fast_readers_get_their_messages_at_the_total_bound() {
    check_fast_readers(SlowReader::DropNewest);
}

#[test]
fn with_conflate_fast_readers_get_their_messages_at_the_total_bound() {
    check_fast_readers(SlowReader::Conflate);
}

#[test]
fn a_queue_below_the_minimum_is_kept_at_the_total_bound() {
    let (tx, rx) = channel();
    let server = serve(|server| server.limits(limits(SlowReader::Close)).on_close(report_close(tx)));
    // The queue of this slow reader is not empty, and is shorter than `queue_bytes_min`.
    let modest = Raw::upgraded(server.address());
    let fd = server.ask(|ctx| ctx.connections().next().expect("one connection is open"));
    while server.ask(move |ctx| ctx.info(fd)).expect("the connection exists").queued_bytes == 0 {
        server.ask(move |ctx| ctx.push(fd, Message::Binary(&[0; 8 << 10])));
    }
    let slow_readers: Vec<Client> = (0..SLOW_READERS).map(|_| server.connect("/")).collect();
    for _ in 0..3 {
        let fds: Vec<Fd> = slow_readers.iter().map(Client::fd).collect();
        server.ask(move |ctx| {
            for _ in 0..64 {
                for fd in &fds {
                    ctx.push(*fd, Message::Binary(&[0; 64 << 10]));
                }
            }
            assert!(ctx.stats().queued_bytes <= TOTAL_MAX);
        });
    }
    server.wait_until("slow readers are closed", |ctx| ctx.stats().closed > 0);
    assert!(rx.so_far().iter().all(|(closed, _)| *closed != fd));
    assert!(server.ask(move |ctx| ctx.is_open(fd)));
    drop(modest);
}

#[test]
fn a_large_message_to_many_fast_readers_closes_no_connection() {
    const CLIENTS: usize = 200;
    const BYTES: usize = 1_000_000;
    let server = serve(|server| server.limits(limits_with_long_times()));
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect("/")).collect();
    let frame = Frame::binary(&vec![7; BYTES]);
    let (delivery, queued) = server.ask(move |ctx| (ctx.broadcast(&frame), ctx.stats().queued_bytes));
    assert_eq!((delivery.matched, delivery.queued), (CLIENTS, CLIENTS));
    assert!(queued < BYTES + CLIENTS * 1000, "the bytes of a shared frame must count once: {queued} bytes are queued");
    for client in &mut clients {
        assert_eq!(client.binary().len(), BYTES);
    }
    assert_eq!(server.ask(|ctx| ctx.stats().closed), 0);
}

#[test]
fn unread_pongs_are_bounded() {
    let limits = Limits { queue_total_bytes_max: 256 << 10, ..limits(SlowReader::DropNewest) };
    // Two threads use the same client connection. The TLS session of a client does not allow this, so the server has no
    // TLS.
    let server = serve_plain(|server| server.limits(limits));
    let pings: Arc<[u8]> = frame_with(0x89, &[b'p'; 125]).repeat(8000).into();
    // The server answers each ping with a pong, and the client reads no pong.
    let mut clients: Vec<Raw> = (0..64).map(|_| Raw::upgraded(server.address())).collect();
    let threads: Vec<_> = clients
        .iter_mut()
        .map(|client| {
            let (mut client, pings) = (client.another(), Arc::clone(&pings));
            std::thread::spawn(move || (0..4).all(|_| client.try_send(&pings)))
        })
        .collect();
    for _ in 0..50 {
        let queued = server.ask(|ctx| ctx.stats().queued_bytes);
        assert!(queued <= (256 << 10) + 64 * 700, "queued bytes must stay within the bound: {queued}");
    }
    drop(clients);
    threads.into_iter().for_each(|thread| _ = thread.join());
}

#[test]
fn group_memberships_are_bounded_per_connection_and_in_total() {
    let limits = Limits { connection_groups_max: 3, memberships_max: 5, ..limits_with_long_times() };
    let server = serve(|server| server.limits(limits));
    let clients: Vec<Client> = (0..3).map(|_| server.connect("/")).collect();
    let fds: Vec<Fd> = clients.iter().map(Client::fd).collect();
    server.ask(move |ctx| {
        let mut join = |fd: usize, group| ctx.join(fds[fd], group);
        assert_eq!([join(0, "a"), join(0, "b"), join(0, "c")], [Change::Done; 3]);
        assert_eq!((join(0, "d"), join(0, "a"), join(0, "")), (Change::Full, Change::Already, Change::BadName));
        assert_eq!([join(1, "a"), join(1, "b")], [Change::Done; 2]);
        assert_eq!(
            (join(2, "a"), join(1, "c")),
            (Change::Full, Change::Full),
            "all connections together must have at most five memberships"
        );
        assert_eq!(ctx.leave(fds[0], "c"), Change::Done);
        assert_eq!(ctx.join(fds[2], "a"), Change::Done);
    });
}

#[test]
fn a_push_to_many_and_much_other_output_in_one_turn_close_no_connection() {
    // The queues of this number of clients together exceed the total bound.
    const COUNT: usize = 400;
    let limits = Limits {
        message_bytes_max: 64 << 10,
        queue_bytes_max: 128 << 10,
        queue_total_bytes_max: 128 << 10,
        ..limits_with_long_times()
    };
    let (tx, rx) = channel();
    let server = serve_plain(move |server| {
        server.limits(limits).on_close(report_close(tx)).on_message(|ctx, fd, _| {
            assert_eq!(ctx.push_group("many", "to many").queued, COUNT);
            // The following pushes fill the journal, the output buffer of the loop. So the loop empties the journal
            // before it writes the push to the group.
            for _ in 0..100 {
                ctx.push(fd, &"x".repeat(1000));
            }
        })
    });
    let mut clients: Vec<Client> = (0..COUNT).map(|_| server.connect("/?group=many")).collect();
    let mut reader = server.connect("/");
    reader.send("go");
    for _ in 0..100 {
        assert_eq!(reader.text().len(), 1000);
    }
    for client in &mut clients {
        assert_eq!(client.text(), "to many");
    }
    assert_eq!(rx.so_far(), []);
}
