//! The order of messages between loops.

use fdpush::{Change, Message};

use super::clients::connect_one_each;
use crate::common::serve;

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
