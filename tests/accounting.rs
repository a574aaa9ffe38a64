//! Compares the memory that the server counts for queues with the allocated memory, for each message size and kind of
//! push.
//!
//! The allocator counts all threads, so this process runs no other test.

use std::alloc::System;
use std::io::IoSlice;

use fdpush::sim::{Connection, Env, Event, Opcode, Outbound, Registry, Sent, Written, outbound};
use fdpush::{Fd, Heartbeat, Limits, Origins, Peer, Slot, SlowReader, Upgrade};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The ways to push messages into queues.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    /// Pushes each message to one reader.
    Own,
    /// Pushes the same message to all readers.
    Shared,
    /// Pushes each message to one reader, with a key that no other message has.
    Keyed,
}

/// Returns an open connection that has sent its 101 response.
fn stalled(slot: u64, env: &mut Env) -> Connection {
    let mut connection = Connection::new(Peer::Unix, env);
    let mut request = UPGRADE.to_owned().into_bytes();
    let Some(Event::Upgrade(request)) = connection.handle_bytes(&mut &mut request[..], env) else {
        panic!("expected an upgrade");
    };
    let fd = Fd::from_u64(slot + 1).expect("the fd is valid");
    connection
        .accept(fd, &Upgrade::accept(), &request, env)
        .expect("the upgrade is accepted")
        .expect("the connection has memory for the bytes after the request");
    write(&mut connection, env, usize::MAX);
    connection
}

/// Writes output to a simulated socket that accepts at most `taken_max` bytes.
fn write(connection: &mut Connection, env: &mut Env, taken_max: usize) {
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = connection.poll_slices(env, &mut slices);
    let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
    let taken = offered.min(taken_max);
    connection.handle_written(Written::new(taken, taken < offered), env);
}

/// Returns the number of bytes that were allocated since the start of the region and not freed.
fn taken(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}

fn push(connection: &mut Connection, env: &mut Env, message: &mut Outbound<'_>) {
    assert_eq!(connection.send(message, env), Sent::Queued);
    // Each push has its own turn. The end of the turn moves the bytes from the journal, the output buffer of the loop,
    // into the queue. The journal has a fixed size and does not count as a queue.
    write(connection, env, 0);
    env.end_turn();
}

/// Returns the counted and the allocated bytes of queued messages.
fn measure(kind: Kind, bytes: usize, messages: usize, readers: usize) -> (usize, usize) {
    let limits = Limits {
        queue_bytes_max: 1 << 30,
        queue_total_bytes_max: 1 << 40,
        slow_reader: if kind == Kind::Keyed { SlowReader::Conflate } else { SlowReader::Close },
        ..Limits::default()
    };
    let mut env = Env::new(limits, Heartbeat::Off, Origins::Same);
    let mut connections: Vec<Connection> = (0..readers as u64).map(|slot| stalled(slot, &mut env)).collect();
    // This first message makes the lists that all connections share in `env` grow before the measurement.
    let payload = vec![b'x'; bytes];
    let mut warm = stalled(0, &mut env);
    push(&mut warm, &mut env, &mut outbound(Outbound::message(Opcode::Binary, &payload), true, Some("key")));
    warm.release(&mut env);
    assert_eq!(env.queued.frames, 0);

    let region = Region::new(ALLOCATOR);
    for number in 0..messages {
        let key = format!("key{number}");
        let key = (kind == Kind::Keyed).then_some(key.as_str());
        let mut shared = outbound(Outbound::message(Opcode::Binary, &payload), kind == Kind::Shared, key);
        for connection in &mut connections {
            match kind {
                Kind::Shared => {
                    assert_eq!(connection.send(&mut shared, &mut env), Sent::Queued);
                }
                Kind::Own | Kind::Keyed => {
                    push(connection, &mut env, &mut outbound(Outbound::message(Opcode::Binary, &payload), false, key));
                }
            }
        }
        connections.iter_mut().for_each(|connection| write(connection, &mut env, 0));
        env.end_turn();
    }
    let (counted, taken_full) = (env.queued.frames, taken(&region));
    let held: usize = connections.iter().map(Connection::counted_bytes).sum();
    if kind != Kind::Shared {
        assert!(held <= counted, "the {counted} counted bytes must include all {held} bytes in the queues");
    }

    // The counted and the allocated memory must also agree when half of each queue is written.
    for connection in &mut connections {
        let mut left = connection.queued_bytes() / 2;
        while left > 0 && connection.handle_writable() {
            let before = connection.queued_bytes();
            write(connection, &mut env, left);
            left -= before - connection.queued_bytes();
        }
    }
    assert_ratio(
        env.queued.frames,
        taken(&region),
        &format!("half of {messages} {kind:?} messages of {bytes} bytes to {readers} readers"),
    );
    connections.iter_mut().for_each(|connection| connection.release(&mut env));
    assert_eq!(env.queued.frames, 0);
    (counted, taken_full)
}

fn assert_ratio(counted: usize, taken: usize, what: &str) {
    let ratio = taken as f64 / counted as f64;
    assert!(
        (1.0 / 1.5..=1.5).contains(&ratio),
        "{what}: {counted} counted bytes and {taken} allocated bytes must agree within a factor of 1.5"
    );
}

/// Joins groups with names of this many bytes, then removes all connections except one. Returns the allocated bytes per
/// membership, before and after the removal. After the removal, only the memberships of one connection count.
fn memberships(name_bytes: usize) -> (usize, usize) {
    const SLOTS: u32 = 100;
    const GROUPS: u32 = 1000;
    let name = |slot: u32, group: u32| format!("{slot:06}{group:0width$}", width = name_bytes - 6);
    let mut registry = Registry::new();
    let region = Region::new(ALLOCATOR);
    for (slot, group) in (0..SLOTS).flat_map(|slot| (0..GROUPS).map(move |group| (slot, group))) {
        assert!(registry.join(Slot(slot), &name(slot, group)).is_done());
    }
    let full = taken(&region) / (SLOTS * GROUPS) as usize;
    (0..SLOTS).filter(|slot| *slot != SLOTS / 2).for_each(|slot| _ = registry.remove(Slot(slot)));
    registry.check_invariants();
    let left = taken(&region) / GROUPS as usize;
    drop(registry);
    (full, left)
}

#[test]
fn counted_and_allocated_memory_agree_within_a_factor_of_1_5() {
    let shapes = [(1, 20_000, 1), (1, 100, 100), (60, 10_000, 2), (60, 1, 1000), (600, 1, 1000), (600, 1000, 4)];
    let large = [(5000, 1, 1000), (5000, 100, 20), (40_000, 20, 20), (1_000_000, 2, 20), (1_000_000, 1, 1000)];
    for kind in [Kind::Own, Kind::Shared, Kind::Keyed] {
        for (bytes, messages, readers) in shapes.into_iter().chain(large) {
            if bytes * messages * readers > 100 << 20 && kind != Kind::Shared {
                continue;
            }
            let (counted, taken) = measure(kind, bytes, messages, readers);
            assert_ratio(
                counted,
                taken,
                &format!("{messages} {kind:?} messages of {bytes} bytes to {readers} readers"),
            );
        }
    }

    // After the removal, some memory that contains no membership may stay allocated: the remaining connection can
    // keep a chunk of memory alive, and the indexes can keep free space.
    for (name_bytes, bytes_max) in [(12, 180), (24, 180), (128, 300)] {
        let (full, left) = memberships(name_bytes);
        assert!(
            full <= bytes_max,
            "a membership with a name of {name_bytes} bytes must take at most {bytes_max} bytes, not {full}"
        );
        assert!(left <= 3 * full, "a remaining membership must take at most three times {full} bytes, not {left}");
    }
}
