//! Tests of slow clients: their timeouts and their memory.

use super::*;
use crate::fd::Slot;

/// Returns a connection with a full socket and one queued message.
fn stalled(limits: Limits) -> Rig {
    let mut rig = Rig::open(limits);
    assert_eq!(rig.send("first"), Sent::Queued);
    assert_eq!(rig.write(0), b"");
    assert!(!rig.connection.can_write());
    rig
}

#[test]
fn a_writable_socket_is_written_to_before_the_write_times_out() {
    let mut rig = stalled(Limits::default());
    // The process was suspended for a minute, so one turn handles both the writable event and the passed write
    // deadline. A turn handles deadlines before it writes.
    rig.env.now = Tick(60_000);
    assert!(rig.connection.handle_writable());
    assert_eq!(rig.tick(60_000), None);
    assert_eq!(rig.write(0), b"", "a full socket must accept no byte");
    assert_eq!(rig.tick(60_000).as_deref(), Some("closed 1006 (write_timed_out) by Server"));
}

#[test]
fn an_abort_drops_the_queue() {
    let mut rig = Rig::open(Limits::default());
    rig.send("queued");
    assert!(rig.connection.abort(&mut rig.env).is_some());
    assert_eq!((rig.written(), rig.next()), (vec![], SocketAction::Drop));
    assert_eq!(rig.env.queued, Queued::default());
}

#[test]
fn unread_responses_do_not_use_memory_of_websockets() {
    let limits = Limits { queue_total_bytes_max: 64 << 10, ..Limits::default() };
    let mut rig = stalled(limits);
    let page = vec![b'x'; 20 << 10];
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = Connection::new(Peer::Unix, &rig.env);
        let mut requests = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
        let mut input = &mut requests[..];
        while let Some(Event::Request { .. }) = client.handle_bytes(&mut input, &mut rig.env) {
            client.respond(Response::new(200).body(page.clone()), &mut rig.env);
        }
        clients.push(client);
    }
    assert!(rig.env.queued.http > 10 * (64 << 10));
    assert_eq!(rig.send("hello"), Sent::Queued);
    assert_eq!(rig.env.queued.frames, QUEUE_BYTES + 7 + 7);
    for client in &mut clients {
        client.release(&mut rig.env);
    }
    assert_eq!(rig.env.queued.http, 0);
}

#[test]
fn queue_bytes_max_applies_to_the_pieces_of_a_response() {
    let mut rig = Rig::new(Limits { queue_bytes_max: 100, ..Limits::default() });
    let mut get = b"GET / HTTP/1.0\r\n\r\n".to_vec();
    assert!(matches!(rig.connection.handle_bytes(&mut &mut get[..], &mut rig.env), Some(Event::Request { .. })));
    assert!(rig.connection.begin_response(&Response::new(200), &mut rig.env));
    rig.written();
    let piece = [b'x'; 101];
    assert_eq!(
        rig.connection.write_response(&piece, &mut rig.env),
        Sent::Queued,
        "an empty queue must accept a response of any length"
    );
    assert_eq!(rig.write(50).len(), 50);
    assert_eq!(rig.connection.write_response(&piece[..50], &mut rig.env), Sent::Full);
    assert_eq!(rig.connection.write_response(&piece[..49], &mut rig.env), Sent::Queued);
}

#[test]
fn short_shared_frames_are_copied_into_runs() {
    let mut rig = stalled(Limits::default());
    let one = Frame::text("1");
    while rig.connection.send(&mut Outbound::frame(&one), &mut rig.env) == Sent::Queued {}
    let queue = rig.connection.output.as_queue().expect("the output has a queue");
    let runs = rig.env.limits.queue_bytes_max.div_ceil(queue::RUN_BYTES_MAX) + 1;
    let segments = queue.segment_count();
    assert!(segments <= runs, "the queue must have at most {runs} segments: {segments}");
}

#[test]
fn a_long_queue_is_not_reused() {
    let mut rig = stalled(Limits::default());
    let frame = Frame::text(&"x".repeat(200));
    for _ in 0..1000 {
        assert_eq!(rig.connection.send(&mut Outbound::frame(&frame), &mut rig.env), Sent::Queued);
    }
    assert!(!rig.connection.output.as_queue().expect("the output has a queue").is_small());
    rig.connection.release(&mut rig.env);
    assert!(rig.env.take_queue().is_small(), "a long queue must not be reused");
    assert_eq!(rig.env.queued, Queued::default());
}

#[test]
fn a_slow_reader_that_makes_progress_misses_no_heartbeat() {
    let mut rig = Rig::open(Limits::default());
    rig.connection.set_heartbeat(Fd::new(Slot(0), 0), Some(Heartbeat::default()), &rig.env);
    rig.send(&"x".repeat(1_000_000));
    // The client reads 1 MB at 10 kB a second. The pings are queued behind this megabyte.
    for second in 1..100 {
        rig.connection.handle_writable();
        assert_eq!(rig.write(10_000).len(), 10_000);
        assert_eq!(rig.tick(second * 1000), None);
    }
    let end = (100..200).find_map(|second| {
        rig.connection.handle_writable();
        rig.written();
        rig.tick(second * 1000)
    });
    assert_eq!(
        end.as_deref(),
        Some("closed 1006 (heartbeat_missed) by Server"),
        "the connection must end because no ping is answered"
    );
}

#[test]
fn a_ping_is_answered_while_the_queue_stays_long() {
    let mut rig = Rig::open(Limits::default());
    let message = "x".repeat(20_000);
    for _ in 0..4 {
        rig.send(&message);
    }
    assert_eq!(rig.write(10_000).len(), 10_000);
    rig.feed(&frame(true, Opcode::Ping, b"there?"));
    rig.feed(&frame(true, Opcode::Ping, b"still?"));
    // Each round writes one message and queues another message, so the queue stays long. The pong must still be
    // written.
    let mut out = Vec::new();
    for _ in 0..4 {
        rig.connection.handle_writable();
        out.extend(rig.write(20_004));
        rig.send(&message);
    }
    assert_eq!(out[4 * 20_004 - 10_000..][..8], *b"\x8a\x06still?", "one pong must follow the queued output");
    rig.feed(&frame(true, Opcode::Ping, b"and now?"));
    rig.connection.handle_writable();
    assert!(rig.written().ends_with(b"\x8a\x08and now?"), "the next pong must be sent, too");
}

#[test]
fn queue_bytes_max_applies_to_pings() {
    let mut rig = stalled(Limits { queue_bytes_max: 100, ..Limits::default() });
    let queued = (0..1000).filter(|_| rig.connection.ping(b"eight ..", &mut rig.env) == Sent::Queued).count();
    assert_eq!(queued, (100 - 7) / 10);
    assert!(rig.connection.is_open());
}

#[test]
fn blank_lines_do_not_extend_the_deadline() {
    let mut rig = Rig::new(Limits::default());
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(10_000));
    for second in 1..10 {
        rig.env.now = Tick(second * 1000);
        assert_eq!(rig.feed(b"\r\n"), [""; 0]);
        assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(10_000));
    }
    assert_eq!(rig.tick(10_000).as_deref(), Some("refused 408"));
}

#[test]
fn a_close_waits_while_the_socket_accepts_output() {
    let mut rig = Rig::open(Limits::default());
    rig.send(&"x".repeat(1_000_000));
    assert!(rig.connection.close(CloseCode::NORMAL, "bye", Cause::ServerClosed, &mut rig.env).is_some());
    let mut second = 0;
    let last = loop {
        second += 1;
        assert_eq!(rig.tick(second * 1000), None);
        rig.connection.handle_writable();
        let part = rig.write(10_000);
        if rig.connection.queued_bytes() == 0 {
            break part;
        }
        assert_eq!(
            rig.next(),
            SocketAction::Stay,
            "the connection must stay open with {} bytes unwritten",
            rig.connection.queued_bytes()
        );
    };
    assert!(last.ends_with(b"\x88\x05\x03\xe8bye"));
    assert_eq!(
        rig.connection.poll_timeout(&rig.env),
        Tick(second * 1000 + 5000),
        "close_wait_max must start after the last write"
    );
}

#[test]
fn a_close_does_not_wait_for_a_stalled_queue() {
    let mut rig = stalled(Limits::default());
    assert!(rig.connection.close(CloseCode::NORMAL, "bye", Cause::ServerClosed, &mut rig.env).is_some());
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(30_000));
    assert_eq!(rig.tick(30_000), None);
    assert_eq!(rig.next(), SocketAction::Drop);
}

#[test]
fn message_time_max_starts_again_after_a_pause() {
    let mut rig = Rig::open(Limits { message_time_max: millis(100), ..Limits::default() });
    assert!(rig.feed(&frame(false, Opcode::Text, b"begun")).is_empty());
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(100));
    assert!(rig.connection.set_paused(true, &rig.env));
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick::NEVER);
    assert_eq!(rig.tick(5000), None, "a client whose connection is paused must have no deadline");
    assert!(rig.connection.set_paused(false, &rig.env));
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(5100));
    assert!(rig.connection.set_paused(false, &rig.env));
    rig.env.now = Tick(5050);
    assert!(rig.connection.set_paused(false, &rig.env));
    assert_eq!(
        rig.connection.poll_timeout(&rig.env),
        Tick(5100),
        "resuming a connection that is not paused must not change its deadline"
    );
    assert!(rig.tick(5100).is_some_and(|end| end.starts_with("closed 1008")));
}
