//! Tests changes of the limits of a running server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::raw::TEXT;
use crate::common::{Raw, limits_with_long_times, serve};
use fdpush::{Limits, Outcome};

/// Returns the number of reads for one message of 64 KiB.
fn reads_of_a_message(server: &crate::common::TestServer, raw: &mut Raw) -> u64 {
    let before = server.ask(|ctx| ctx.stats()).reads;
    raw.send_frame(TEXT, &vec![b'x'; 64 << 10]);
    assert_eq!(raw.frame().1.len(), 64 << 10);
    server.ask(|ctx| ctx.stats()).reads - before
}

#[test]
fn a_changed_read_budget_applies_to_open_connections() {
    let server = serve(|server| server.on_message(crate::common::echo));
    let mut raw = Raw::upgraded(server.address());
    for (budget, at_least, at_most) in [(1 << 10, 64, u64::MAX), (1 << 20, 1, 40), (1 << 10, 64, u64::MAX)] {
        let limits = Limits { read_budget_bytes: budget, ..limits_with_long_times() };
        server.ask(move |ctx| ctx.set_limits(limits)).expect("the limits are valid");
        let reads = reads_of_a_message(&server, &mut raw);
        assert!(
            (at_least..=at_most).contains(&reads),
            "expected {at_least} to {at_most} reads with read_budget_bytes \
                                                        {budget}, got {reads}"
        );
    }
}

#[test]
fn a_shorter_write_time_applies_to_a_blocked_connection() {
    let long = Limits { write_time_max: Duration::from_secs(3600), ..limits_with_long_times() };
    let short = Limits { write_time_max: Duration::from_millis(100), ..long.clone() };
    let server = serve(move |server| server.limits(long));
    let raws: Vec<Raw> = (0..3).map(|_| Raw::upgraded(server.address())).collect();
    server.wait_until("the queues of all clients contain bytes", |ctx| {
        ctx.broadcast("x".repeat(200_000).as_str());
        ctx.connections().all(|fd| ctx.info(fd).is_some_and(|info| info.queued_bytes > 0))
    });
    server.ask(move |ctx| ctx.set_limits(short)).expect("the limits are valid");
    server.wait_until("the WebSockets have ended", |ctx| ctx.stats().open == 0);
    let stats = server.ask(|ctx| ctx.stats());
    // The kernel gets the same limit, as TCP_USER_TIMEOUT, and may end the connection before the server does.
    let count = |cause: &str| stats.closed_by_cause.get(cause).copied().unwrap_or_default();
    assert_eq!(count("write_timed_out") + count("connection_lost"), 3, "{stats:?}");
    drop(raws);
}

#[test]
fn a_shorter_answer_time_applies_to_the_next_upgrade() {
    let long = Limits { answer_time_max: Duration::from_secs(3600), ..limits_with_long_times() };
    let short = Limits { answer_time_max: Duration::from_millis(50), ..long.clone() };
    let tickets = Arc::new(Mutex::new(Vec::new()));
    let server = serve(move |server| {
        server.limits(long).on_upgrade(move |ctx, fd, _| {
            let (later, ticket) = ctx.defer_upgrade(fd);
            tickets.lock().expect("no thread panicked while it held the lock").push(ticket);
            later
        })
    });
    let mut before = server.raw();
    before.send(crate::common::raw::UPGRADE);
    server.wait_until("the upgrade waits for its answer", |ctx| ctx.stats().connections == 1);
    server.ask(move |ctx| ctx.set_limits(short)).expect("the limits are valid");
    let mut after = server.raw();
    after.send(crate::common::raw::UPGRADE);
    assert_eq!(after.reply().status, 503);
}

#[test]
fn a_larger_queue_minimum_lets_a_partly_written_frame_finish() {
    const LEN: usize = 16 << 20;
    let limits = |queue_bytes_min| Limits {
        queue_bytes_min,
        queue_bytes_max: 256 << 20,
        // A single queue keeps `queue_bytes_min`, but at most half of the total bound. This half is larger than a
        // frame, so a large `queue_bytes_min` keeps a whole frame.
        queue_total_bytes_max: 5 * LEN / 2,
        ..limits_with_long_times()
    };
    let server = serve(move |server| server.limits(limits(1)));
    // A frame is larger than the socket buffers. So when the queues are full, the first frame is partly written.
    let overflow = || {
        let raw = Raw::upgraded(server.address());
        server.wait_until("the client is closed", |ctx| {
            let Some(fd) = ctx.connections().next() else { return true };
            ctx.push(fd, "x".repeat(LEN).as_str()) != Outcome::Queued
        });
        raw
    };
    assert!(overflow().rest().len() < LEN);
    server.wait_until("the connection has ended", |ctx| ctx.stats().open == 0);
    server.ask(move |ctx| ctx.set_limits(limits(LEN * 2))).expect("the limits are valid");
    let mut kept = overflow();
    assert_eq!(kept.frame().1.len(), LEN);
    assert_eq!(kept.close_frame().0, 1013);
}
