//! Checks the resident memory of the process. `docs/operations.md` states the sum of all memory bounds. When all bounds
//! are reached at the same time, the memory must stay within 1.5 times this sum. Freed memory must return to the
//! kernel.

use serde_json::json;

use crate::common::Raw;
use crate::common::gateway::{Gateway, loop_count, next_of, request, until};
use crate::common::raw::frame_with;

const MIB: usize = 1 << 20;

const QUEUE_TOTAL: usize = 16 * MIB;
const INBOUND_TOTAL: usize = 16 * MIB;
const MESSAGE: usize = MIB;
const QUEUE: usize = 4 * MIB;
const CONNECTIONS: usize = 400;
const MEMBERSHIPS: usize = 10_000;

/// Returns the sum of all memory bounds that `docs/operations.md` lists, with the settings of this test.
const fn sum_of_bounds(loops: usize) -> usize {
    10 * MIB // the program
    + CONNECTIONS * 240
    + 2 * QUEUE_TOTAL
    + INBOUND_TOTAL + MESSAGE
    + loops * (2 * QUEUE + 9 * MIB) // messages in transit, and the buffers of a loop
    + MEMBERSHIPS * 2 * 300
}

#[test]
fn the_process_stays_within_the_documented_sum_when_all_bounds_are_reached() {
    let gateway = Gateway::start(&[
        "--queue-total-bytes-max=16MiB",
        "--inbound-total-bytes-max=16MiB",
        "--message-bytes-max=1MiB",
        "--queue-bytes-max=4MiB",
    ]);
    let connect = |uid: &str| {
        let mut raw = Raw::upgraded_at(gateway.address, &format!("/?uid={uid}"));
        raw.frame();
        raw
    };
    let mut other = gateway.connect("/?uid=other");

    // Clients send unfinished messages of 100 MiB in total.
    let unfinished = frame_with(0x01, &vec![b'x'; MESSAGE - 1]);
    let mut senders: Vec<Raw> = (0..100).map(|number| connect(&format!("sender{number}"))).collect();
    for sender in &mut senders {
        sender.try_send(&unfinished);
    }
    let closes = |cause: &str| gateway.metric(&format!("fdpush_closes_total{{cause=\"{cause}\"}}"));
    until("the server closes clients with unfinished messages", || closes("inbound_overload") > 0.0);

    // The back end pushes to clients that do not read. Each client gets a different message.
    // The messages have 54 MB in total.
    let readers: Vec<Raw> = (0..60).map(|number| connect(&format!("reader{number}"))).collect();
    for number in 0..readers.len() {
        gateway.done("/api/push", json!({"uid": format!("reader{number}"), "data": "x".repeat(900_000)}));
    }
    until("the server closes slow readers", || closes("slow_consumer") > 0.0);

    // Back ends request lists and do not read the responses. Each response contains 10,000 group names. The 20
    // responses have 26 MB in total.
    let members: Vec<Raw> = (0..10).map(|number| connect(&format!("member{number}"))).collect();
    let uids: Vec<String> = (0..members.len()).map(|number| format!("member{number}")).collect();
    let names: Vec<String> = (0..MEMBERSHIPS / members.len()).map(|number| format!("{number:0>128}")).collect();
    gateway.done("/api/join", json!({"uids": uids, "groups": names}));
    let ask = |_| {
        let mut raw = Raw::connect(gateway.api);
        raw.send(request("GET", "/api/connections?limit=1000", &[], ""));
        raw
    };
    let askers: Vec<Raw> = (0..20).map(ask).collect();
    let dropped = || gateway.metric(r#"fdpush_drops_total{policy="drop_newest"}"#);
    until("the server drops output at the bound of responses", || dropped() > 0.0);

    // The server still serves a client that caused no load, and the API.
    gateway.done("/api/push", json!({"uid": "other", "data": 1}));
    assert_eq!(next_of(&mut other, "message")["data"], 1);
    assert!(gateway.metric("fdpush_inbound_bytes") <= INBOUND_TOTAL as f64);
    assert!(gateway.metric("fdpush_queue_bytes") <= 2.0 * QUEUE_TOTAL as f64);
    let (peak, sum) = (gateway.peak_bytes(), sum_of_bounds(loop_count()));
    println!("peak {} MiB, sum {} MiB", peak / MIB, sum / MIB);
    assert!(
        peak < sum / 2 * 3,
        "peak memory {} MiB must be less than 1.5 times the sum of the bounds ({} MiB)",
        peak / MIB,
        sum / MIB
    );
    drop((senders, readers, askers));
}

#[test]
fn memory_of_memberships_returns_to_the_kernel_after_the_clients_leave() {
    const CLIENTS: usize = 60;
    const GROUPS: usize = 1000;
    // The allocator returns the memory of the thread of a further loop only when this thread is active.
    let gateway = Gateway::start(&["--loops", "1"]);
    let before = gateway.resident_bytes();
    let _clients: Vec<_> = (0..CLIENTS).map(|number| gateway.connect(&format!("/?uid=member{number}"))).collect();
    let change = |path: &str| {
        for client in 0..CLIENTS {
            // Each group has one member.
            let names: Vec<String> = (0..GROUPS).map(|group| format!("{client}-{group:0>100}")).collect();
            gateway.done(path, json!({"uid": format!("member{client}"), "groups": names}));
        }
    };
    change("/api/join");
    let grown = gateway.resident_bytes() - before;
    assert!(
        grown > CLIENTS * GROUPS * 300,
        "each membership must take over 300 bytes, but all memberships take {grown} bytes"
    );
    change("/api/leave");
    let kept = || gateway.resident_bytes().saturating_sub(before);
    until("more than half of the memory is returned", || kept() < grown / 2);
}
