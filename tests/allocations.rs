//! Measures that a warm server allocates no memory for a message or a receiver.
//!
//! The allocator counts all threads, so this process runs no other test. The clients run in the same process. After the
//! warm-up, the clients also allocate no memory. Each round waits for all its responses, so the count does not depend
//! on the scheduling of threads.

mod common;

use std::alloc::System;
use std::io::IoSlice;
use std::time::Duration;

use common::raw::{TEXT, UPGRADE, frame};
use common::{Raw, TestServer, serve};
use fdpush::sim::{Connection, Env, Event, Opcode, Outbound, Sent, Written, outbound};
use fdpush::{Context, Fd, Frame, Heartbeat, Limits, Message, Origins, Peer, Upgrade};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The number of rounds before the measurement. In these rounds, buffers and lists grow to their final size.
const WARM_UP: usize = 5;
const ROUNDS: usize = 25;

/// Returns the number of allocations in `ROUNDS` rounds. A round sends messages and waits for the results.
fn allocations_of(server: &TestServer, mut round: impl FnMut(&dyn Fn())) -> usize {
    // In the first round, the loop is blocked until all clients have sent, so one turn gets the messages of all
    // clients. No later turn is larger, so the buffers need not grow during the measurement.
    let (_held, go) = server.hold();
    round(&|| go.send(()).expect("the loop is blocked"));
    (0..WARM_UP).for_each(|_| round(&|| {}));
    let region = Region::new(ALLOCATOR);
    (0..ROUNDS).for_each(|_| round(&|| {}));
    let change = region.change();
    change.allocations + change.reallocations
}

/// Starts a server without pings, which would come at random times. Each connection still has a timer in the wheel.
fn start() -> TestServer {
    let heartbeat = Heartbeat::Ping { every: Duration::from_secs(3600), missed_max: 2 };
    serve(move |server| server.heartbeat(heartbeat).on_message(answer))
}

/// Echoes a message that starts with `=`, pushes a message that starts with `*` to the group, and a message that starts
/// with `@` to the uid in the next four bytes.
fn answer(ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
    let text = message.as_text().unwrap_or_default();
    match (text.get(..1), text.get(1..5)) {
        (Some("*"), _) => {
            ctx.push_group("all", message);
        }
        (Some("@"), Some(uid)) => {
            ctx.push_uid(uid, message);
        }
        _ => {
            ctx.push(fd, message);
        }
    }
}

/// Returns the bytes that a client sends and the bytes that it receives: `times` texts of `bytes` bytes that start with
/// the prefix `begins`.
fn message(begins: &str, bytes: usize, times: usize) -> (Vec<u8>, Vec<u8>) {
    let text = format!("{begins:x<bytes$}");
    (frame(TEXT, text.as_bytes()).repeat(times), Frame::text(&text).as_bytes().repeat(times))
}

fn echo(bytes: usize, in_flight: usize) -> usize {
    let server = start();
    let mut clients: Vec<Raw> = (0..20).map(|_| Raw::upgraded(server.address())).collect();
    let (request, answer) = message("=", bytes, in_flight);
    allocations_of(&server, |sent| {
        clients.iter_mut().for_each(|client| client.send(&request));
        sent();
        clients.iter_mut().for_each(|client| client.expect(&answer));
    })
}

fn point_to_point(bytes: usize, in_flight: usize) -> usize {
    let server = start();
    let uid = |user: usize| format!("{}", 1000 + user);
    let mut users: Vec<Raw> =
        (0..20).map(|user| Raw::upgraded_at(server.address(), &format!("/?uid={}", uid(user)))).collect();
    let messages: Vec<_> = (0..20).map(|user| message(&format!("@{} ", uid(user)), bytes, in_flight)).collect();
    allocations_of(&server, |sent| {
        users.iter_mut().enumerate().for_each(|(user, from)| from.send(&messages[user ^ 1].0));
        sent();
        users.iter_mut().zip(&messages).for_each(|(to, (_, rx))| to.expect(rx));
    })
}

fn fan_out(bytes: usize, outstanding: usize, members: usize) -> usize {
    let server = start();
    let mut publisher = Raw::upgraded(server.address());
    let mut members: Vec<Raw> = (0..members).map(|_| Raw::upgraded_at(server.address(), "/?group=all")).collect();
    let (request, rx) = message("*", bytes, outstanding);
    allocations_of(&server, |sent| {
        publisher.send(&request);
        sent();
        members.iter_mut().for_each(|member| member.expect(&rx));
    })
}

/// Runs turns with the code of layer 1 (the connections), without real sockets. So there can be more connections than
/// a process may have descriptors. Returns the number of allocations. The simulated sockets accept all bytes.
fn many_recipients(bytes: usize, publishes: usize, recipients: u64) -> usize {
    let mut env = Env::new(Limits::default(), Heartbeat::Off, Origins::Same);
    let mut connections: Vec<Connection> = (1..=recipients).map(|fd| websocket(fd, &mut env)).collect();
    let message = vec![b'x'; bytes];
    let mut turn = || {
        for _ in 0..publishes {
            let mut outbound = outbound(Outbound::message(Opcode::Binary, &message), true, None);
            for connection in &mut connections {
                assert_eq!(connection.send(&mut outbound, &mut env), Sent::Queued);
            }
        }
        for connection in &mut connections {
            while connection.can_write() {
                write(connection, &mut env);
            }
            assert_eq!(connection.queued_bytes(), 0);
        }
        env.end_turn();
    };
    (0..WARM_UP).for_each(|_| turn());
    let region = Region::new(ALLOCATOR);
    (0..ROUNDS).for_each(|_| turn());
    let change = region.change();
    change.allocations + change.reallocations
}

/// Returns an open connection.
fn websocket(fd: u64, env: &mut Env) -> Connection {
    let mut connection = Connection::new(Peer::Unix, env);
    let mut request = UPGRADE.to_owned().into_bytes();
    let Some(Event::Upgrade(request)) = connection.handle_bytes(&mut &mut request[..], env) else {
        panic!("expected an upgrade");
    };
    let fd = Fd::from_u64(fd).expect("the fd is valid");
    connection
        .accept(fd, &Upgrade::accept(), &request, env)
        .expect("the upgrade is accepted")
        .expect("the connection has memory for the bytes after the request");
    write(&mut connection, env);
    connection
}

/// Writes as much output as the server writes with one system call.
fn write(connection: &mut Connection, env: &mut Env) {
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = connection.poll_slices(env, &mut slices);
    let offered = slices[..filled].iter().map(|slice| slice.len()).sum();
    connection.handle_written(Written::new(offered, false), env);
}

#[test]
fn a_warm_server_allocates_no_memory_for_a_message_or_a_receiver() {
    // These messages are small. A large message could fill the socket. Then a queue or a partly written message would
    // need memory.
    for (bytes, in_flight) in [(20, 1), (20, 16), (125, 16), (1024, 1)] {
        assert_eq!(
            echo(bytes, in_flight),
            0,
            "with {in_flight} messages in flight, an echo of {bytes} bytes must allocate no memory"
        );
        assert_eq!(
            point_to_point(bytes, in_flight),
            0,
            "with {in_flight} messages in flight, a push of {bytes} bytes to a uid must allocate no memory"
        );
    }
    for members in [20, 200] {
        for outstanding in [1, 16] {
            assert_eq!(
                fan_out(128, outstanding, members),
                0,
                "with {outstanding} unfinished pushes, a push to {members} members must allocate no memory"
            );
        }
        // All receivers share a long frame, so it has two allocations: its bytes and its reference count.
        assert_eq!(
            fan_out(1024, 4, members),
            2 * 4 * ROUNDS,
            "each frame of 1024 bytes to {members} members must have two allocations"
        );
    }
    for recipients in [3000, 10_000] {
        assert_eq!(
            many_recipients(128, 16, recipients),
            0,
            "a push to {recipients} recipients must allocate no memory"
        );
        assert_eq!(
            many_recipients(1024, 16, recipients),
            2 * 16 * ROUNDS,
            "each frame of 1024 bytes to {recipients} recipients must have two allocations"
        );
        assert_eq!(
            many_recipients(8 << 10, 8, recipients),
            2 * 8 * ROUNDS,
            "each frame of 8 KiB to {recipients} recipients must have two allocations"
        );
    }
}
