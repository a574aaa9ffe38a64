//! Tests commands that a handler sends through a `Remote`. The handler gets each result in a closure on its own loop.

use std::cell::Cell;
use std::rc::Rc;

use fdpush::{Change, Context, Delivery, Fd, Limits, Outcome, RemoteError, Reply, Response};

use super::clients::{ask_at, connect_each, connect_one_each, hold_at};
use crate::common::{TestReceiver, TestServer, channel, serve, serve_plain, silence_intended_panics};

const KINDS: [&str; 3] = ["uid", "group", "all"];

/// Pushes to the uid `u`, to the group `g` and to all, and pushes each result to `fd`.
fn push_and_report(ctx: &mut Context<'_>, fd: Fd) {
    // The closures stay on their loop, so their values need not be `Send`.
    let results = Rc::new(Cell::new(0));
    for kind in KINDS {
        let reply = match kind {
            "uid" => ctx.remote().push_uid("u", kind),
            "group" => ctx.remote().push_group("g", kind),
            _ => ctx.remote().broadcast(kind),
        };
        let results = Rc::clone(&results);
        reply.then(ctx, move |ctx, delivery| {
            results.set(results.get() + 1);
            ctx.push(fd, &format!("{kind} {delivery:?} {}", results.get()));
        });
    }
    ctx.push(fd, "the handler returns");
}

#[test]
fn a_handler_gets_the_exact_result_after_the_messages_of_the_command() {
    for loops in [1, 3] {
        let server = serve(move |server| server.loops(loops).on_message(|ctx, fd, _| push_and_report(ctx, fd)));
        let mut clients: Vec<_> = connect_each(&server, loops, 2).into_iter().flatten().collect();
        for client in &clients {
            assert_eq!(server.remote.bind(client.fd(), "u").wait(), Ok(Change::Done));
            assert_eq!(server.remote.join(client.fd(), "g").wait(), Ok(Change::Done));
        }
        let delivery: Result<Delivery, RemoteError> = Ok(Delivery::new(clients.len(), 0));
        for asked in 0..clients.len() {
            clients[asked].send("push");
            assert_eq!(clients[asked].text(), "the handler returns");
            let texts: Vec<String> = (0..2 * KINDS.len()).map(|_| clients[asked].text()).collect();
            let at = |text: &str| texts.iter().position(|other| other == text);
            for (number, kind) in KINDS.into_iter().enumerate() {
                let result = format!("{kind} {delivery:?} {}", number + 1);
                assert!(at(kind).is_some() && at(kind) < at(&result), "{result} must come after {kind}: {texts:?}");
            }
            let others = clients.iter_mut().enumerate().filter(|(index, _)| *index != asked);
            others.for_each(|(_, client)| KINDS.into_iter().for_each(|kind| assert_eq!(client.text(), kind)));
        }
    }
}

#[test]
fn a_request_is_answered_with_the_counts_of_all_loops() {
    let server = serve_plain(|server| {
        server.loops(2).on_request(|ctx, fd, request| {
            let (later, ticket) = ctx.defer_response(fd);
            let reply = ctx.remote().push_group("g", request.target());
            reply.then(ctx, |ctx, delivery| {
                let queued = delivery.map_or(0, |delivery| delivery.queued);
                ctx.answer(ticket, Response::text(200, queued.to_string()));
            });
            later
        })
    });
    let mut clients = connect_each(&server, 2, 3);
    clients.iter().flatten().for_each(|client| drop(server.remote.join(client.fd(), "g")));
    let mut raw = server.raw();
    for number in 0..100 {
        raw.send(format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(raw.reply().body, "6");
    }
    for client in clients.iter_mut().flatten() {
        (0..100).for_each(|number| assert_eq!(client.text(), format!("/{number}")));
    }
}

/// Runs `send` on the loop of `fd`. Returns a receiver of the result of its reply.
fn result_at<T: Send + 'static>(
    server: &TestServer,
    fd: Fd,
    send: impl FnOnce(&mut Context<'_>) -> Reply<T> + Send + 'static,
) -> TestReceiver<Result<T, RemoteError>> {
    let (tx, rx) = channel();
    let call = server.remote.call_at(fd, move |ctx| {
        let reply = send(ctx);
        reply.then(ctx, move |_, result| tx.send(result).expect("the test waits"));
    });
    drop(call);
    rx
}

#[test]
fn a_handler_gets_each_error_of_a_command() {
    let limits = Limits { inbox_max: 1, ..Limits::default() };
    let server = serve(move |server| server.loops(2).limits(limits));
    let clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());

    silence_intended_panics();
    let panicked = result_at(&server, own, move |ctx| ctx.remote().call_at(other, |_| -> () { panic!("on purpose") }));
    assert_eq!(panicked.next(), Err(RemoteError::Panicked));

    // The inbox of the other loop is full. The inbox of the own loop is also full when the own loop gets the result.
    let (held, release) = hold_at(&server, other, |_| ());
    let waiting = server.remote.push(other, "waiting");
    let rejected = result_at(&server, own, move |ctx| {
        assert_eq!(ctx.remote().notify("this notice fills the own inbox"), Ok(()));
        ctx.remote().push(other, "rejected")
    });
    assert_eq!(rejected.next(), Err(RemoteError::Full));
    release.send(()).expect("the loop waits");
    assert_eq!((held.wait(), waiting.wait()), (Ok(()), Ok(Outcome::Queued)));

    let ended = serve(|server| server);
    let of_ended = ended.remote.clone();
    ended.stop().expect("the server drains");
    let closed = result_at(&server, own, move |_| of_ended.push_uid("u", "nothing"));
    assert_eq!(closed.next(), Err(RemoteError::Closed));
}

#[test]
fn a_result_that_comes_after_the_end_of_the_loop_drops_its_closure() {
    let server = serve(|server| server.loops(2));
    let clients = connect_one_each(&server, 2);
    let other_server = serve(|server| server);
    let of_other = other_server.remote.clone();
    let (held, release) = other_server.hold();
    let result = result_at(&server, clients[0].fd(), move |_| of_other.call(|_| ()));
    // When this command returns, the loop has carried out the command of `result_at` above.
    ask_at(&server, clients[0].fd(), |_| ());
    drop(clients);
    server.stop().expect("the server drains");
    assert!(result.is_disconnected(), "the closure must be dropped with its loop");
    release.send(()).expect("the loop waits");
    assert_eq!(held.wait(), Ok(()));
}

#[test]
fn the_closure_of_a_result_can_wait_for_further_results() {
    let server = serve(|server| {
        server.loops(2).on_message(|ctx, fd, _| {
            let first = ctx.remote().call_each(|ctx| ctx.loop_index());
            first.then(ctx, move |ctx, indexes| {
                let second = ctx.remote().connections();
                second.then(ctx, move |ctx, fds| {
                    let fds = fds.expect("the server runs");
                    ctx.push(fd, &format!("{indexes:?} {} {}", fds.len(), ctx.is_own(fd)));
                });
            });
        })
    });
    let mut clients = connect_one_each(&server, 2);
    for client in &mut clients {
        client.send("ask");
        assert_eq!(client.text(), "Ok([0, 1]) 2 true");
    }
}
