//! Tests the counts that other loops return for the pushes of a handler, and the reply that becomes ready when these
//! loops have written the messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fdpush::{Context, Delivery, Fd, RemoteError, Reply};

use super::clients::{ask_at, connect_each, connect_one_each, hold_at};
use crate::common::{TestReceiver, TestServer, channel, serve};

/// Runs `track` on the loop of `fd`. Returns the counts of this loop, and a receiver of the counts of the other loops.
fn track_at(
    server: &TestServer,
    fd: Fd,
    track: impl FnOnce(&mut Context<'_>) -> (Delivery, Option<Reply<Delivery>>) + Send + 'static,
) -> (Delivery, Option<TestReceiver<Delivery>>) {
    let (tx, rx) = channel();
    let (own, is_forwarded) = ask_at(server, fd, move |ctx| {
        let (own, reply) = track(ctx);
        let is_forwarded = reply.is_some();
        if let Some(reply) = reply {
            reply.then(ctx, move |_, counts| tx.send(counts.expect("the loops run")).expect("the test waits"));
        }
        (own, is_forwarded)
    });
    (own, is_forwarded.then_some(rx))
}

#[test]
fn tracked_pushes_return_the_counts_of_the_other_loops() {
    let server = serve(|server| server.loops(3));
    let mut clients = connect_each(&server, 3, 2);
    let own = clients[0][0].fd();
    let bound: Vec<Fd> = clients.iter().map(|of_loop| of_loop[1].fd()).collect();
    bound.iter().for_each(|fd| assert!(server.remote.bind(*fd, "u").wait().is_ok()));

    let (counts, others) = track_at(&server, own, |ctx| ctx.track_forwarded(|ctx| ctx.broadcast("to all")));
    let others = others.expect("the other loops have connections").next();
    assert_eq!((counts.queued, counts.forwarded), (2, 2));
    assert_eq!(others, Delivery::new(4, 0));

    let (counts, others) = track_at(&server, own, |ctx| ctx.track_written(|ctx| ctx.push_uid("u", "to a uid")));
    assert_eq!((counts.queued, counts.forwarded), (1, 2));
    assert_eq!(others.expect("the other loops have connections").next(), Delivery::new(2, 0));

    let (counts, others) = track_at(&server, own, move |ctx| {
        ctx.track_written(|ctx| {
            // The counts of all pushes of a call are added. A push outside the call does not count.
            let mut sum = ctx.push_fds(bound.iter().copied(), "to fds");
            sum += ctx.push_uid("nobody", "to nobody");
            sum
        })
    });
    assert_eq!((counts.queued, counts.forwarded), (1, 2));
    assert_eq!(others.expect("the other loops have connections").next(), Delivery::new(2, 0));

    let (counts, others) = track_at(&server, own, move |ctx| {
        ctx.broadcast("untracked");
        ctx.track_forwarded(|ctx| ctx.push_fds([own], "to the own loop"))
    });
    assert_eq!(counts, Delivery::new(1, 0));
    assert!(others.is_none(), "no push was forwarded");
    for of_loop in &mut clients {
        assert_eq!([of_loop[0].text(), of_loop[1].text()], ["to all", "to all"]);
    }
}

#[test]
fn a_server_with_one_loop_forwards_nothing() {
    let server = serve(|server| server);
    let client = server.connect("/");
    let (counts, others) = track_at(&server, client.fd(), |ctx| ctx.track_written(|ctx| ctx.broadcast("to all")));
    assert_eq!(counts, Delivery::new(1, 0));
    assert!(others.is_none(), "there is no other loop");
}

#[test]
fn the_counts_come_when_the_messages_are_queued_or_written() {
    let server = serve(|server| server.loops(2));
    let clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    let is_released = Arc::new(AtomicBool::new(false));

    let (held, release) = hold_at(&server, other, |_| ());
    let (_, queued) = track_at(&server, own, move |ctx| {
        ctx.track_forwarded(|ctx| {
            ctx.push(other, "first");
            Delivery::default()
        })
    });
    let (written_tx, written) = channel();
    let (enter, entered) = channel();
    let (release_again, released_again) = std::sync::mpsc::channel::<()>();
    let released = Arc::clone(&is_released);
    // The other loop carries out the push and the call in one turn. The call blocks the loop before the end of this
    // turn, at which the loop writes the message.
    let call = ask_at(&server, own, move |ctx| {
        let (_, reply) = ctx.track_written(|ctx| ctx.push(other, "second"));
        let reply = reply.expect("the push was forwarded");
        reply.then(ctx, move |_, counts| {
            written_tx.send((counts, released.load(Ordering::SeqCst))).expect("the test waits");
        });
        ctx.remote().call_at(other, move |_| {
            enter.send(()).expect("the test waits");
            let _ = released_again.recv_timeout(crate::common::DEADLINE);
        })
    });
    // When this call returns, the own loop has sent the earlier call to the other loop.
    ask_at(&server, own, |_| ());
    release.send(()).expect("the loop waits");
    assert_eq!(held.wait(), Ok(()));
    entered.next();
    assert_eq!(queued.expect("the push was forwarded").next(), Delivery::new(1, 0));
    is_released.store(true, Ordering::SeqCst);
    release_again.send(()).expect("the loop waits");
    assert_eq!(call.wait(), Ok(()));
    let (counts, was_released) = written.next();
    assert_eq!(counts, Ok(Delivery::new(1, 0)));
    assert!(was_released, "the message must be written before the reply");
}

#[test]
fn a_promise_that_is_kept_makes_its_reply_ready() {
    let server = serve(|server| server.loops(2));
    let client = server.connect("/");
    let (kept, result) = ask_at(&server, client.fd(), |ctx| {
        let (promise, reply) = ctx.remote().promise::<u32>();
        let (tx, rx) = channel();
        reply.then(ctx, move |_, value| tx.send(value).expect("the test waits"));
        (promise, rx)
    });
    std::thread::spawn(move || kept.keep(7));
    assert_eq!(result.next(), Ok(7));
    let (dropped, reply) = server.remote.promise::<u32>();
    drop(dropped);
    assert_eq!(reply.wait(), Err(RemoteError::Closed));
}
