//! Tests the total bound of unfinished messages, heads and bodies. When the bound is reached, the server closes the
//! connections with the most bytes.

use std::sync::{Arc, Mutex};

use crate::child::{Child, Role};
use crate::common::raw::{TEXT, frame_with};
use crate::common::{Raw, TestServer, channel, echo, limits_with_long_times, report_close, serve};
use fdpush::{By, Cause, Heartbeat, Limits, Response};

const MESSAGE_MAX: usize = 1 << 20;
const TOTAL_MAX: usize = 4 << 20;

/// The first byte of the first frame of a fragmented text message.
const FIRST_TEXT: u8 = 0x01;

fn limits() -> Limits {
    Limits { message_bytes_max: MESSAGE_MAX, inbound_total_bytes_max: TOTAL_MAX, ..limits_with_long_times() }
}

/// The servers that the tests of this file start as child processes.
pub const ROLES: &[Role] = &[
    ("roomy", |server| server.heartbeat(Heartbeat::Off)),
    ("narrow", |server| {
        let size = 64 << 20;
        let limits = Limits {
            message_bytes_max: size,
            body_bytes_max: size,
            queue_bytes_max: size + 10,
            inbound_total_bytes_max: 1 << 40,
            ..limits_with_long_times()
        };
        server.heartbeat(Heartbeat::Off).limits(limits).on_message(|ctx, fd, message| {
            ctx.push(fd, message);
        })
    }),
];

fn inbound_bytes(server: &TestServer) -> usize {
    server.ask(|ctx| ctx.stats().inbound_bytes)
}

#[test]
fn at_the_inbound_bound_the_largest_unfinished_messages_are_closed() {
    let (tx, rx) = channel();
    let server = serve(|server| server.limits(limits()).on_message(echo).on_close(report_close(tx)));
    let mut idle = server.connect("/");
    let mut small = Raw::upgraded(server.address());
    small.send(frame_with(FIRST_TEXT, b"small"));
    let mut large: Vec<Raw> = (0..64).map(|_| Raw::upgraded(server.address())).collect();
    for (client, number) in large.iter_mut().zip(1..) {
        client.send(frame_with(FIRST_TEXT, &vec![b'x'; 256 << 10]));
        // The loop checks the bound after each read. So the memory exceeds the bound by at most the effect of one read,
        // which can double the buffer of one message.
        let held = inbound_bytes(&server);
        assert!(
            held <= TOTAL_MAX + MESSAGE_MAX,
            "unfinished messages must take at most 5 MiB, not {held} bytes with {number} clients"
        );
    }
    // After the server has closed a TLS connection, it does not count the further bytes of this client. So this
    // condition looks at open connections only.
    server.wait_until("the server has read the bytes of all clients", |ctx| {
        let bytes_in = |fd| ctx.info(fd).map_or(0, |info| info.traffic.bytes_in);
        let read = ctx.connections().filter(|fd| bytes_in(*fd) > 256 << 10).count();
        read + 2 == ctx.stats().open
    });
    assert!(inbound_bytes(&server) <= TOTAL_MAX);
    let closed = rx.so_far();
    // 16 of these messages fit into the bound. The capacity of a buffer can be twice the length of its message, so the
    // server may store fewer messages.
    assert!(
        (64 - 16..=64 - 6).contains(&closed.len()),
        "the server must close 48 to 58 of the 64 clients, not {}",
        closed.len()
    );
    for (_, closed) in &closed {
        assert_eq!((closed.code.as_u16(), closed.by, closed.cause), (1013, By::Server, Cause::InboundOverload));
    }
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!(stats.closed_by_cause.get("inbound_overload"), Some(&(closed.len() as u64)));

    small.send(frame_with(0x80, b" but whole"));
    assert_eq!(small.frame(), (0x80 | TEXT, b"small but whole".to_vec()));
    idle.send("still here");
    assert_eq!(idle.text(), "still here");
    drop(large);
    server.wait_until("no bytes of unfinished messages are stored", |ctx| ctx.stats().inbound_bytes == 0);
}

#[test]
fn one_client_can_send_the_largest_message() {
    let limits = Limits { inbound_total_bytes_max: 2 * MESSAGE_MAX, ..limits() };
    let server = serve(|server| server.limits(limits).on_message(echo));
    let mut client = server.connect("/");
    let text = "x".repeat(MESSAGE_MAX);
    for _ in 0..4 {
        client.send(&text);
        assert_eq!(client.text(), text);
    }
}

#[test]
fn heads_and_bodies_count_toward_the_inbound_bound_and_the_largest_get_503() {
    let server = serve(|server| server.limits(limits()).on_request(|_, _, _| Response::text(200, "whole")));
    let mut small = Raw::connect(server.address());
    small.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf ");
    let mut head = Raw::connect(server.address());
    head.send("GET / HTTP/1.1\r\nHost:");
    let announce = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MESSAGE_MAX}\r\n\r\n");
    let mut largest = Raw::connect(server.address());
    largest.send([announce.as_bytes(), &vec![b'x'; MESSAGE_MAX - 1]].concat());
    server.wait_until("the server stores the largest message", |ctx| ctx.stats().inbound_bytes >= MESSAGE_MAX);
    let mut others: Vec<Raw> = (0..64).map(|_| Raw::connect(server.address())).collect();
    for client in &mut others {
        client.send(&announce);
        client.try_send(vec![b'x'; 100 << 10]);
    }
    let reply = largest.reply();
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
    assert!(!reply.keeps_alive());
    assert!(inbound_bytes(&server) <= TOTAL_MAX + MESSAGE_MAX);
    small.send("whole");
    assert_eq!(small.reply().status, 200);
    head.send(" a\r\n\r\n");
    assert_eq!(head.reply().status, 200);
    drop((small, head, others));
    server.wait_until("no bytes of unfinished messages are stored", |ctx| ctx.stats().inbound_bytes == 0);
}

#[test]
fn the_head_of_a_waiting_upgrade_counts_toward_the_inbound_bound() {
    let tickets = Arc::new(Mutex::new(Vec::new()));
    let server = serve(move |server| {
        server.limits(limits()).on_upgrade(move |ctx, fd, _| {
            let (later, ticket) = ctx.defer_upgrade(fd);
            tickets.lock().expect("no handler panics while it holds the lock").push(ticket);
            later
        })
    });
    let mut client = Raw::connect(server.address());
    let padding = "p".repeat(6000);
    client.send(crate::common::raw::UPGRADE.replacen("\r\n", &format!("\r\nPadding: {padding}\r\n"), 1));
    server.wait_until("the server stores the head of the request", |ctx| {
        (6000..20_000).contains(&ctx.stats().inbound_bytes)
    });
    drop(client);
    server.wait_until("the server stores no head", |ctx| ctx.stats().inbound_bytes == 0);
}

#[test]
fn hundreds_of_unfinished_messages_take_bounded_memory() {
    let child = Child::start("roomy");
    let before = child.memory();
    let mut clients: Vec<Raw> = (0..400).map(|_| Raw::upgraded(child.address)).collect();
    let begun = frame_with(FIRST_TEXT, &vec![b'x'; MESSAGE_MAX - 1]);
    for client in &mut clients {
        client.try_send(&begun);
    }
    child.wait_for_stat("closed", |closed| closed >= 400 - 64);
    assert!(child.stat("inbound_bytes") <= (64 << 20) + (2 << 20));
    // The unfinished messages use at most 64 MiB. The remaining growth is memory of the allocator and of fixed buffers.
    let grown = child.memory().saturating_sub(before);
    assert!(grown < 128 << 20, "memory must grow by less than 128 MiB, not by {} MiB", grown >> 20);
    let mut other = Raw::upgraded(child.address);
    other.send_frame(0x9, b"alive");
    assert_eq!(other.frame(), (0x8a, b"alive".to_vec()));
}

#[test]
fn a_failed_allocation_closes_only_the_client_that_needs_it() {
    const BYTES: usize = 60 << 20;
    /// The length of the buffer of a body. The length doubles when the buffer grows.
    const BUFFER: usize = 64 << 20;
    /// The length of the plaintext of a full TLS record.
    const PIECE: usize = 16 << 10;
    let child = Child::start("narrow");
    let mut other = Raw::upgraded(child.address);
    other.send_frame(TEXT, b"before");
    assert_eq!(other.frame(), (0x80 | TEXT, b"before".to_vec()));
    // The buffers of the first three bodies grow to 64 MiB each. The allocator gets the memory of such a buffer from
    // the kernel. The limit of the address space does not permit a fourth buffer.
    child.limit_growth(200 << 20);
    let announce = || {
        let mut client = Raw::connect(child.address);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n"));
        client
    };
    let upload = |number: usize| {
        let mut client = announce();
        // The server reads the first pieces one at a time, so that all lengths of the buffer are powers of two, also if
        // a read through TLS returns fewer bytes than others.
        let before = (number - 1) * BUFFER;
        for piece in 1..=4 {
            client.try_send(vec![b'x'; PIECE]);
            child.wait_for_stat("inbound_bytes", |bytes| bytes as usize >= before + piece * PIECE);
        }
        client.try_send(vec![b'x'; BYTES - 4 * PIECE - number]);
        // While the server receives a body through TLS, the bytes of an unfinished TLS record often count, too. When
        // the server has received all bytes that the client sends here, only the buffers and the heads count.
        for _ in 0..10 {
            let all = number * BUFFER..number * BUFFER + 4096;
            child.wait_for_stat("inbound_bytes", |bytes| all.contains(&(bytes as usize)));
        }
        client
    };
    let mut fitting: Vec<Raw> = (1..=3).map(upload).collect();

    let mut overloading = Raw::upgraded(child.address);
    overloading.try_send(frame_with(FIRST_TEXT, &vec![b'x'; BYTES]));
    child.wait_for_stat("closed", |closed| closed == 1);
    let mut excess = announce();
    excess.try_send(vec![b'x'; BYTES - 1]);
    let reply = excess.reply();
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));

    other.send_frame(TEXT, b"after");
    assert_eq!(other.frame(), (0x80 | TEXT, b"after".to_vec()));
    for (client, left) in fitting.iter_mut().zip(1..) {
        client.send("x".repeat(left));
        assert_eq!(client.reply().status, 404, "the server must answer the request");
    }
}
