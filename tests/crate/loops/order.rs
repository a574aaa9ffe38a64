//! Tests the order of the messages and commands that one loop sends to another loop.

use std::sync::mpsc;

use fdpush::{Change, Limits, Message, Outcome};

use super::clients::{ask_at, connect_one_each, hold_at};
use crate::common::{Client, DEADLINE, channel, serve};

const BURST: usize = 100;
const BURSTS: usize = 100;

#[test]
fn messages_of_one_connection_to_one_connection_of_another_loop_stay_in_order() {
    let server = serve(|server| {
        let mut next = 0;
        server.loops(2).on_message(move |ctx, _, message| {
            let Message::Text(text) = message else { return };
            let receiver = text.parse().ok().and_then(fdpush::Fd::from_u64).expect("the text is an fd");
            for _ in 0..BURST {
                let text = format!("{next}");
                let is_forwarded = match next % 4 {
                    0 => ctx.push(receiver, &text) == fdpush::Outcome::Forwarded,
                    1 => ctx.push_uid("receiver", &text).forwarded == 1,
                    2 => ctx.push_group("receivers", &text).forwarded == 1,
                    _ => ctx.push_fds([receiver], &text).forwarded == 1,
                };
                assert!(is_forwarded);
                next += 1;
            }
        })
    });
    let mut clients = connect_one_each(&server, 2);
    let receiver = clients[1].fd();
    assert_eq!(server.remote.bind(receiver, "receiver").wait(), Ok(Change::Done));
    assert_eq!(server.remote.join(receiver, "receivers").wait(), Ok(Change::Done));
    let fd = receiver.to_string();
    let mut next = 0;
    for _ in 0..BURSTS / 10 {
        (0..10).for_each(|_| clients[0].send(&fd));
        for _ in 0..10 * BURST {
            assert_eq!(clients[1].text(), next.to_string());
            next += 1;
        }
    }
    assert_eq!(next, BURST * BURSTS);
}

#[test]
fn commands_of_one_thread_stay_in_order_on_all_loops() {
    let server = serve(|server| server.loops(3));
    let mut clients = connect_one_each(&server, 3);
    for round in 0..200 {
        let (uid, group) = (format!("uid{round}"), format!("group{round}"));
        for client in &clients {
            // The test does not wait for these replies. The pushes below must still find the connections.
            drop(server.remote.bind(client.fd(), uid.clone()));
            drop(server.remote.join(client.fd(), group.clone()));
        }
        drop(server.remote.push_uid(&uid, "uid"));
        let delivery = server.remote.push_group(&group, "group").wait().expect("the server answers");
        assert_eq!(delivery, fdpush::Delivery::new(3, 0));
        for client in &mut clients {
            assert_eq!((client.text(), client.text()), ("uid".to_owned(), "group".to_owned()));
        }
    }
}

#[test]
fn a_shutdown_by_a_handler_does_not_overtake_the_pushes_of_the_handler() {
    for _ in 0..30 {
        let mut server = serve(|server| {
            server.loops(3).on_message(|ctx, _, _| {
                (0..20).for_each(|number| _ = ctx.push_group("g", &number.to_string()));
                ctx.shutdown();
            })
        });
        let mut clients = connect_one_each(&server, 3);
        for client in &clients {
            assert_eq!(server.remote.join(client.fd(), "g").wait(), Ok(Change::Done));
        }
        clients[1].send("the last messages");
        expect_all_before_close(&mut clients);
        server.wait_for_end().expect("the server drains");
    }
}

#[test]
fn a_shutdown_by_a_thread_does_not_overtake_the_commands_of_the_thread() {
    for round in 0..30 {
        let mut server = serve(|server| server.loops(3));
        let mut clients = connect_one_each(&server, 3);
        for client in &clients {
            assert_eq!(server.remote.join(client.fd(), "g").wait(), Ok(Change::Done));
        }
        if round % 2 == 0 {
            // The first loop forwards the messages to the other loops.
            drop(server.remote.call(|ctx| (0..20).for_each(|number| _ = ctx.push_group("g", &number.to_string()))));
        } else {
            (0..20).for_each(|number| drop(server.remote.push_group("g", &number.to_string())));
        }
        server.remote.shutdown().expect("the server runs");
        expect_all_before_close(&mut clients);
        server.wait_for_end().expect("the server drains");
    }
}

#[test]
fn a_shutdown_waits_for_the_messages_that_have_arrived() {
    // The second loop needs several turns for these messages.
    const MESSAGES: usize = 100_000;
    let limits = Limits { forward_bytes_max: 64 << 20, ..Limits::default() };
    let mut server = serve(move |server| server.loops(2).limits(limits));
    let mut clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    let (entered, enter) = channel();
    let (release, released) = mpsc::channel::<()>();
    let held_up = server.remote.call_at(other, move |_| {
        entered.send(()).expect("the test waits");
        let _ = released.recv_timeout(DEADLINE);
    });
    enter.next();
    ask_at(&server, own, move |ctx| {
        (0..MESSAGES).for_each(|number| _ = ctx.push(other, &number.to_string()));
        ctx.shutdown();
    });
    // The first loop has sent the shutdown to all loops before it closes its connection. So the messages and the
    // shutdown are in the inbox of the second loop.
    assert_eq!(clients[0].closed().0, 1001);
    release.send(()).expect("the loop waits");
    assert_eq!(held_up.wait(), Ok(()));
    for number in 0..MESSAGES {
        assert_eq!(clients[1].text(), number.to_string());
    }
    assert_eq!(clients[1].closed().0, 1001);
    server.wait_for_end().expect("the server drains");
}

#[test]
fn a_shutdown_by_one_loop_waits_for_the_messages_in_the_inbox_of_this_loop() {
    let mut server = serve(|server| server.loops(2));
    let mut clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    let (held, release) = hold_at(&server, other, |ctx| ctx.shutdown());
    ask_at(&server, own, move |ctx| {
        (0..1000).for_each(|number| assert_eq!(ctx.push(other, &number.to_string()), Outcome::Forwarded));
    });
    release.send(()).expect("the loop waits");
    assert_eq!(held.wait(), Ok(()));
    (0..1000).for_each(|number| assert_eq!(clients[1].text(), number.to_string()));
    assert_eq!((clients[1].closed().0, clients[0].closed().0), (1001, 1001));
    server.wait_for_end().expect("the server drains");
}

#[test]
fn a_push_follows_the_bind_and_the_join_that_a_handler_has_sent_before() {
    let server = serve(|server| server.loops(3));
    let mut clients = connect_one_each(&server, 3);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    let (changes, deliveries) = ask_at(&server, own, move |ctx| {
        let joined = ctx.join(other, "g");
        let groups = [ctx.push_group("g", "group"), ctx.push_groups(["g", "h", "g"], "groups")];
        let bound = ctx.bind(other, "u");
        let uids = [ctx.push_uid("u", "uid"), ctx.push_uids(["u", "v"], "uids")];
        let left = ctx.leave(other, "g");
        let after = [ctx.push_group("g", "a member no more"), ctx.push_uid("u", "last")];
        ([joined, bound, left], [groups, uids, after].concat())
    });
    assert_eq!(changes, [Change::Forwarded; 3]);
    assert!(deliveries.iter().all(|delivery| (delivery.matched, delivery.forwarded) == (0, 1)), "{deliveries:?}");
    for text in ["group", "groups", "uid", "uids", "last"] {
        assert_eq!(clients[1].text(), text);
    }
    // After the second loop has carried out the changes, a push to a name goes only to the loops that have this name
    // according to the directory, the shared map from names to loops.
    server.wait_until("only loops with receivers get a push", |ctx| ctx.push_uid("nobody", "").forwarded == 0);
}

#[test]
fn commands_of_a_handler_run_after_its_earlier_pushes() {
    let server = serve(|server| server.loops(2));
    let mut clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    assert_eq!(server.remote.join(other, "g").wait(), Ok(Change::Done));
    let of_server = server.remote.clone();
    ask_at(&server, own, move |ctx| {
        for number in 0..50 {
            let remote = if number % 2 == 0 { ctx.remote() } else { of_server.clone() };
            ctx.push(other, &format!("push {number}"));
            match number % 4 {
                0 => drop(remote.push(other, &format!("command {number}"))),
                1 => drop(remote.push_group("g", &format!("command {number}"))),
                2 => drop(remote.broadcast(&format!("command {number}"))),
                _ => drop(remote.call_at(other, move |ctx| ctx.push(other, &format!("command {number}")))),
            }
        }
        let _ = ctx.remote().close(other, 4000, "the last command");
    });
    for text in ["push", "command"] {
        (0..50).for_each(|number| assert_eq!(clients[1].text(), format!("{text} {number}")));
    }
    assert_eq!(clients[1].closed().0, 4000);
}

#[test]
fn a_command_runs_after_the_messages_that_an_earlier_call_sent() {
    let server = serve(|server| server.loops(2));
    let mut clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    for number in 0..500 {
        let text = format!("call {number}");
        let outcome = match number % 2 {
            0 => server.remote.call_at(own, move |ctx| ctx.push(other, &text)).wait(),
            _ => {
                let push = move |ctx: &mut fdpush::Context<'_>| ctx.is_own(own).then(|| ctx.push(other, &text));
                server.remote.call_each(push).wait().map(|outcomes| outcomes[0].expect("the own loop pushes"))
            }
        };
        assert_eq!(outcome, Ok(Outcome::Forwarded));
        assert_eq!(server.remote.push(other, &format!("command {number}")).wait(), Ok(Outcome::Queued));
        assert_eq!(clients[1].text(), format!("call {number}"));
        assert_eq!(clients[1].text(), format!("command {number}"));
    }
}

fn expect_all_before_close(clients: &mut [Client]) {
    for client in clients {
        for number in 0..20 {
            assert_eq!(client.text(), number.to_string());
        }
        assert_eq!(client.closed().0, 1001);
    }
}
