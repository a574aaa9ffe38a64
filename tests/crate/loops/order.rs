//! The order of messages between loops.

use std::sync::mpsc;

use fdpush::{Change, Limits, Message};

use super::clients::{ask_at, connect_one_each};
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
            // The replies are not waited for: the push must find the connections all the same.
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
fn a_shutdown_of_a_handler_does_not_overtake_its_pushes() {
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
fn a_shutdown_of_a_thread_does_not_overtake_its_commands() {
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
    // The first loop has passed the shutdown on before it closes its connection. So the shutdown is in the inbox of the
    // second loop, and the messages are in its mailbox.
    assert_eq!(clients[0].closed().0, 1001);
    release.send(()).expect("the loop waits");
    assert_eq!(held_up.wait(), Ok(()));
    for number in 0..MESSAGES {
        assert_eq!(clients[1].text(), number.to_string());
    }
    assert_eq!(clients[1].closed().0, 1001);
    server.wait_for_end().expect("the server drains");
}

fn expect_all_before_close(clients: &mut [Client]) {
    for client in clients {
        for number in 0..20 {
            assert_eq!(client.text(), number.to_string());
        }
        assert_eq!(client.closed().0, 1001);
    }
}
