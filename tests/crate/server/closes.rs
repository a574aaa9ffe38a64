//! A close of very many connections: all are closed in one turn, and the loop calls `on_close` over several turns.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fdpush::{AbortOutcome, CloseOutcome, Context, Fd};

use crate::common::raw::UPGRADE;
use crate::common::{channel, serve};

/// The connections that are closed, for many turns.
const COUNT: usize = 400;

/// The time of a call of `on_close`. One turn makes about a hundred such calls.
const CALL_TIME: Duration = Duration::from_micros(200);

/// Closes half of the connections and aborts the others. Returns their slots.
fn close_all_but(ctx: &mut Context<'_>, fd: Fd) -> HashSet<usize> {
    let others: Vec<Fd> = ctx.connections().filter(|other| *other != fd).collect();
    for (number, other) in others.iter().enumerate() {
        match number % 2 {
            0 => assert_eq!(ctx.close(*other, 4000, "over"), CloseOutcome::Closing),
            _ => assert_eq!(ctx.abort(*other), AbortOutcome::Aborted { was_open: true }),
        }
    }
    others.into_iter().map(|other| other.slot().index()).collect()
}

#[test]
fn a_close_of_very_many_is_seen_at_once_and_delays_no_other_client() {
    // The slots of closed connections whose `on_close` was not called yet.
    let pending = Arc::new(Mutex::new(HashSet::new()));
    let (go_on, may_go_on) = channel();
    let (tx, calls) = channel();
    let server = serve({
        let (opening, closing) = (Arc::clone(&pending), Arc::clone(&pending));
        move |server| {
            server
                .on_open(move |ctx, fd, _| {
                    let is_pending = opening.lock().expect("no handler panics").contains(&fd.slot().index());
                    ctx.join(fd, if is_pending { "reused" } else { "all" });
                })
                .on_message(move |ctx, fd, message| match message.as_bytes() {
                    b"close" => {
                        *pending.lock().expect("no handler panics") = close_all_but(ctx, fd);
                        let seen = (ctx.pending_closes(), ctx.members("all").len(), ctx.push_group("all", "").matched);
                        ctx.push(fd, &format!("{seen:?}"));
                    }
                    _ => _ = ctx.push(fd, &ctx.pending_closes().to_string()),
                })
                .on_close(move |ctx, fd, closed| {
                    let mut pending = closing.lock().expect("no handler panics");
                    pending.remove(&fd.slot().index());
                    if pending.len() == COUNT / 2 {
                        may_go_on.next();
                    }
                    tx.send((ctx.info(fd).is_some(), closed.code.as_u16())).expect("the test waits");
                    let start = Instant::now();
                    while start.elapsed() < CALL_TIME {}
                })
        }
    });
    let _others: Vec<_> = (0..COUNT).map(|_| server.connect("/")).collect();
    let mut client = server.connect("/");
    client.send("close");
    assert_eq!(client.text(), "");
    assert_eq!(client.text(), format!("({COUNT}, 1, 1)"));
    // The loop makes half of the calls, and then waits until these bytes are sent.
    client.send("count");
    let mut new = server.raw();
    new.send(UPGRADE);
    go_on.send(()).expect("on_close waits");
    let left: usize = client.text().parse().expect("a number");
    assert!(0 < left && left < COUNT, "{left}");
    assert!(new.reply().status == 101);
    assert!(server.ask(|ctx| ctx.members("reused").is_empty()), "a slot is reused only after on_close");
    let closed: Vec<(bool, u16)> = (0..COUNT).map(|_| calls.next()).collect();
    assert!(closed.iter().all(|(has_info, _)| *has_info), "inside on_close the connection still has its fd");
    assert_eq!(closed.iter().filter(|(_, code)| *code == 4000).count(), COUNT / 2);
    server.wait_until("the slots are free", |ctx| ctx.stats().connections == 2);
}

#[test]
fn an_end_of_the_loop_calls_every_on_close() {
    let (tx, calls) = channel();
    let server = serve(move |server| {
        server
            .on_message(|ctx, fd, _| {
                close_all_but(ctx, fd);
                ctx.shutdown();
            })
            .on_close(move |_, fd, _| tx.send(fd).expect("the test waits"))
    });
    let _others: Vec<_> = (0..COUNT).map(|_| server.connect("/")).collect();
    let mut client = server.connect("/");
    client.send("close");
    assert_eq!(client.closed().0, 1001);
    assert!(server.stop().is_ok());
    let fds: HashSet<Fd> = calls.so_far().into_iter().collect();
    assert_eq!(fds.len(), COUNT + 1);
}
