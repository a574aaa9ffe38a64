//! Tests that a loop that is blocked, sends too much, or panics does not disturb the other loops. A post is a push or
//! a change that a loop sends to another loop.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use fdpush::{Cause, Delivery, Heartbeat, Limits, Message, Outcome, SlowReader};

use super::clients::{ask_at, connect_each, connect_one_each, wait_for_stats};
use crate::common::{DEADLINE, channel, serve};

#[test]
fn a_handler_that_waits_holds_up_only_its_own_loop() {
    const LOOPS: usize = 3;
    let (entered, enter) = channel();
    let (release, released) = mpsc::channel::<()>();
    let server = serve(|server| {
        server.loops(LOOPS).on_message(|ctx, fd, message| {
            ctx.push(fd, message);
        })
    });
    let mut clients = connect_one_each(&server, LOOPS);
    let held = clients[1].fd();
    let held_up = server.remote.call_at(held, move |_| {
        entered.send(()).expect("the test waits");
        let _ = released.recv_timeout(DEADLINE);
    });
    enter.next();
    for round in 0..100 {
        for index in [0, 2] {
            let text = format!("{round}");
            clients[index].send(&text);
            assert_eq!(clients[index].text(), text);
        }
        let from = clients[round % 2 * 2].fd();
        assert_eq!(ask_at(&server, from, move |ctx| ctx.push(held, &format!("{round}"))), Outcome::Forwarded);
    }
    release.send(()).expect("the loop waits");
    assert_eq!(held_up.wait(), Ok(()));
    let mut received: Vec<usize> = (0..100).map(|_| clients[1].text().parse().expect("the text is a number")).collect();
    // The pushes of each loop arrive in order.
    for parity in [0, 1] {
        assert!(received.iter().filter(|number| **number % 2 == parity).is_sorted());
    }
    received.sort_unstable();
    assert!(received.into_iter().eq(0..100), "each push must arrive once");
}

#[test]
fn each_loop_accepts_connections_while_another_loop_is_blocked() {
    let server = serve(|server| server.loops(3));
    let clients = connect_one_each(&server, 3);
    // The first loop is blocked, so it accepts no connections for the other loops.
    let (held_up, release) = server.hold();
    let accepted = |index: usize| ask_at(&server, clients[index].fd(), |ctx| ctx.stats().accepted);
    let before = [accepted(1), accepted(2)];
    let _more: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(server.address()).expect("the server listens")).collect();
    let deadline = Instant::now() + DEADLINE;
    // The kernel spreads the connections over the listening sockets of the loops.
    while accepted(1) == before[0] || accepted(2) == before[1] {
        assert!(Instant::now() < deadline, "both loops must accept connections");
        thread::yield_now();
    }
    drop(release);
    assert_eq!(held_up.wait(), Ok(()));
}

#[test]
fn posts_to_a_loop_that_is_held_up_are_bounded() {
    let limits = Limits { message_bytes_max: 1000, forward_bytes_max: 64 << 10, ..Limits::default() };
    let server = serve(move |server| server.loops(2).limits(limits));
    let mut clients = connect_one_each(&server, 2);
    let (own, held) = (clients[0].fd(), clients[1].fd());
    let (entered, enter) = channel();
    let (release, released) = mpsc::channel::<()>();
    let held_up = server.remote.call_at(held, move |_| {
        entered.send(()).expect("the test waits");
        let _ = released.recv_timeout(DEADLINE);
    });
    enter.next();
    let mut forwarded = 0;
    // Each call runs in its own turn of the sending loop. The bound `forward_bytes_max` applies to all turns together.
    for turn in 0..50 {
        let outcomes = ask_at(&server, own, move |ctx| {
            (0..10).map(|number| ctx.push(held, &format!("{:01000}", turn * 10 + number))).collect::<Vec<_>>()
        });
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Forwarded | Outcome::Dropped)));
        forwarded += outcomes.iter().filter(|outcome| **outcome == Outcome::Forwarded).count();
    }
    assert!((40..64).contains(&forwarded), "40 to 63 messages of 1000 bytes must fit into 64 KiB, not {forwarded}");
    assert_eq!(server.remote.call(|ctx| ctx.stats().dropped).wait(), Ok(500 - forwarded as u64));
    release.send(()).expect("the loop waits");
    assert_eq!(held_up.wait(), Ok(()));
    for number in 0..forwarded {
        assert_eq!(clients[1].text().parse(), Ok(number), "the client must get the first messages, in order");
    }
    server.wait_until("the queue to the other loop has room again", move |ctx| {
        ctx.push(held, "room") == Outcome::Forwarded
    });
    assert_eq!(clients[1].text(), "room");
}

#[test]
fn two_loops_that_flood_each_other_stay_bounded_and_go_on() {
    const TURNS: usize = 300;
    const PUSHES: usize = 100;
    let (results, result) = channel();
    let limits = Limits {
        message_bytes_max: 1000,
        forward_bytes_max: 16 << 10,
        slow_reader: SlowReader::DropNewest,
        ..Limits::default()
    };
    let server = serve(move |server| {
        let (mut turns, mut total) = (0, Delivery::default());
        server.loops(2).limits(limits).on_message(|ctx, _, _| ctx.request_turn_end()).on_turn_end(move |ctx| {
            let text = "x".repeat(900);
            (0..PUSHES).for_each(|_| total += ctx.push_group(["from0", "from1"][ctx.loop_index()], &text));
            turns += 1;
            if turns < TURNS {
                ctx.request_turn_end();
            } else {
                let _ = results.send(total);
            }
        })
    });
    let mut clients = connect_one_each(&server, 2);
    // The first loop pushes to the group `from0`, whose only member is on the second loop. The second loop pushes to
    // the group `from1`, whose only member is on the first loop.
    for (index, group) in ["from1", "from0"].into_iter().enumerate() {
        assert!(server.remote.join(clients[index].fd(), group).wait().is_ok_and(|change| change.is_done()));
    }
    clients.iter_mut().for_each(|client| client.send("flood"));
    for _ in 0..2 {
        let total = result.next();
        assert_eq!(
            total.forwarded + total.dropped,
            TURNS * PUSHES,
            "each push must be forwarded, or counted as dropped"
        );
        assert_eq!(total.matched, total.dropped);
        assert!(total.forwarded > 0);
    }
    let answers = server.remote.call_each(|ctx| ctx.loop_index()).wait_timeout(DEADLINE);
    assert_eq!(answers, Ok(vec![0, 1]), "both loops must continue to run");
    let stats = wait_for_stats(&server, "all posts were carried out", |stats| {
        stats.traffic.messages_out + stats.dropped >= (2 * TURNS * PUSHES) as u64
    });
    assert_eq!(stats.traffic.messages_out + stats.dropped, (2 * TURNS * PUSHES) as u64);
}

#[test]
fn a_panic_closes_only_the_connection_of_its_call() {
    let (closes, closed) = channel();
    let server = serve(|server| {
        server
            .loops(2)
            .on_message(|ctx, fd, message| match message {
                Message::Text("panic") => panic!("as the client asked"),
                message => _ = ctx.push(fd, message),
            })
            .on_close(move |_, fd, closed| {
                let _ = closes.send((fd, closed.cause));
            })
    });
    let mut clients = connect_each(&server, 2, 2);
    for of_loop in &mut clients {
        of_loop[0].send("panic");
        assert_eq!(of_loop[0].closed().0, 1011);
        assert_eq!(closed.next(), (of_loop[0].fd(), Cause::HandlerPanicked));
    }
    for of_loop in &mut clients {
        of_loop[1].send("still here");
        assert_eq!(of_loop[1].text(), "still here");
    }
}

#[test]
fn a_command_that_panics_on_one_loop_is_reported() {
    let server = serve(|server| server.loops(3));
    let is_run = Arc::new(AtomicBool::new(false));
    let reply = server.remote.call_each({
        let is_run = Arc::clone(&is_run);
        move |ctx| match ctx.loop_index() {
            1 => panic!("on one loop"),
            _ => is_run.store(true, Ordering::Release),
        }
    });
    assert_eq!(reply.wait(), Err(fdpush::RemoteError::Panicked));
    assert!(is_run.load(Ordering::Acquire));
    assert_eq!(server.remote.call_each(|_| ()).wait(), Ok(vec![(); 3]));
}

#[test]
fn a_command_that_arrives_between_two_portions_of_posts_is_carried_out() {
    // Without a heartbeat, no timer ends the wait of a loop.
    let server = serve(|server| server.loops(2).heartbeat(Heartbeat::Off));
    let mut clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    for _ in 0..5 {
        ask_at(&server, own, move |ctx| {
            ctx.push(other, "begin");
            // The other loop needs several turns for these posts.
            (0..20_000).for_each(|_| _ = ctx.unbind(other));
        });
        // The text is written at the end of the first of these turns.
        assert_eq!(clients[1].text(), "begin");
        assert_eq!(ask_at(&server, other, |ctx| ctx.loop_index()), 1);
    }
}
