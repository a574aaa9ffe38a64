//! Tests of permessage-deflate: plain and deflated messages in one turn, hostile messages, and the limit on a client's
//! inflated bytes per second.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Decompress, FlushDecompress};

use super::*;
use crate::connection::segment::SEGMENT_BYTES;
use crate::limits::SlowReader;
use crate::protocol::client::deflated_frame;
use crate::protocol::frame::{server_frame_bytes, server_payload};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

fn limits() -> Limits {
    Limits { compression: true, ..Limits::default() }
}

impl Rig {
    /// Returns an open WebSocket that negotiated permessage-deflate.
    fn deflating(limits: Limits) -> Rig {
        let (mut rig, head) = Rig::offering(limits, &Upgrade::accept());
        assert!(head.contains("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"), "{head}");
        assert!(rig.connection.deflates());
        assert!(rig.written().is_empty());
        rig
    }

    /// Returns a connection whose client offered permessage-deflate, and the 101 response.
    fn offering(limits: Limits, accept: &Accept) -> (Rig, String) {
        let mut rig = Rig::new(limits);
        let request = UPGRADE.replace("Host:", &format!("{OFFER}Host:"));
        assert_eq!(rig.feed(request.as_bytes()), ["upgrade /chat"]);
        rig.accept(accept);
        let head = String::from_utf8(rig.written()).expect("the output is UTF-8");
        (rig, head)
    }
}

/// Deflates a message with flate2.
fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(payload).expect("a Vec accepts all bytes");
    encoder.flush().expect("a Vec accepts all bytes");
    let bytes = encoder.get_ref();
    bytes.strip_suffix(&[0, 0, 0xff, 0xff]).expect("the output of a flush ends with these bytes").to_vec()
}

/// Returns the inflated messages in the output, with the first bytes of their frames.
fn messages(mut output: &[u8]) -> Vec<(u8, String)> {
    let mut messages = Vec::new();
    while !output.is_empty() {
        let (frame, rest) = output.split_at(server_frame_bytes(output).expect("the header of the frame is complete"));
        let mut payload = server_payload(frame).to_vec();
        if frame[0] & 0x40 != 0 {
            let mut inflated = Vec::with_capacity(1 << 20);
            payload.extend([0, 0, 0xff, 0xff]);
            let status = Decompress::new(false).decompress_vec(&payload, &mut inflated, FlushDecompress::Sync);
            status.expect("the stream is valid");
            payload = inflated;
        }
        messages.push((frame[0], String::from_utf8(payload).expect("the output is UTF-8")));
        output = rest;
    }
    messages
}

#[test]
fn deflate_is_negotiated_only_if_both_sides_allow_it() {
    for (limits, accept, is_negotiated) in [
        (limits(), Upgrade::accept(), true),
        (limits(), Upgrade::accept().compress(true), true),
        (limits(), Upgrade::accept().compress(false), false),
        (Limits::default(), Upgrade::accept(), false),
    ] {
        let (rig, head) = Rig::offering(limits, &accept);
        assert_eq!(rig.connection.deflates(), is_negotiated);
        assert_eq!(head.contains("Extensions"), is_negotiated, "{head}");
        assert_eq!(rig.env.counts.compression.connections, u64::from(is_negotiated));
    }
    let rig = Rig::open(limits());
    assert!(!rig.connection.deflates(), "permessage-deflate must not be used without an offer of the client");
}

#[test]
fn received_messages_are_inflated() {
    let mut rig = Rig::deflating(limits());
    let text = "grüß ".repeat(100);
    let payload = deflate(text.as_bytes());
    let (one, two) = payload.split_at(7);
    let mut stream = deflated_frame(true, Opcode::Text, &payload);
    stream.extend(frame(true, Opcode::Text, b"plain"));
    stream.extend(deflated_frame(false, Opcode::Text, one));
    stream.extend(frame(true, Opcode::Ping, b"between"));
    stream.extend(frame(false, Opcode::Continuation, b""));
    stream.extend(frame(true, Opcode::Continuation, two));
    stream.extend(deflated_frame(true, Opcode::Binary, &[0]));
    stream.extend(frame(false, Opcode::Text, b"pl"));
    stream.extend(frame(true, Opcode::Continuation, b"ain"));
    let whole = rig.feed(&stream);
    assert_eq!(whole.len(), 6, "{whole:?}");
    assert_eq!(whole[0], format!("text {text}"));
    assert_eq!(whole[3], whole[0]);
    let counts = rig.env.counts.compression;
    assert_eq!((counts.messages_in, counts.failures), (3, 0));
    assert_eq!(counts.bytes_in, 2 * text.len() as u64);
    assert_eq!(counts.bytes_in_deflated, 2 * payload.len() as u64 + 1);
    for part in [1, 2, 3, 7, 50] {
        let mut rig = Rig::deflating(limits());
        let events: Vec<String> = stream.chunks(part).flat_map(|part| rig.feed(part)).collect();
        assert_eq!(events, whole, "parts of {part}");
        assert!(
            matches!(rig.connection.stage, Stage::Open { unfinished: None, .. }),
            "no memory may be kept after the messages"
        );
        assert_eq!(rig.env.inbound.bytes(), 0);
    }
}

#[test]
fn invalid_and_too_long_deflated_messages_end_the_connection() {
    let zeros = deflate(&vec![0; 2000]);
    let cut = deflate(&"not all of it".repeat(30).into_bytes());
    let limits = Limits { message_bytes_max: 1000, ..limits() };
    let table = [
        (deflated_frame(true, Opcode::Binary, &zeros), "closed 1009"),
        (deflated_frame(true, Opcode::Binary, &cut[..cut.len() - 2]), "closed 1007"),
        (deflated_frame(true, Opcode::Text, &deflate(b"\xff\xfe")), "closed 1007"),
        (deflated_frame(true, Opcode::Text, &[6]), "closed 1007"),
        (deflated_frame(true, Opcode::Binary, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xaa]), "closed 1007"),
        (deflated_frame(true, Opcode::Binary, &[0; 2000])[..8].to_vec(), "closed 1009"),
        (deflated_frame(true, Opcode::Ping, b""), "closed 1002"),
        (deflated_frame(true, Opcode::Close, b"\x03\xe8"), "closed 1002"),
        (deflated_frame(true, Opcode::Continuation, b""), "closed 1002"),
        (
            [deflated_frame(false, Opcode::Binary, &[0]), deflated_frame(true, Opcode::Continuation, &[0])].concat(),
            "closed 1002",
        ),
        (
            [deflated_frame(false, Opcode::Binary, &[0]), deflated_frame(true, Opcode::Binary, &[0])].concat(),
            "closed 1002",
        ),
        (b"\xe1\x80\x01\x02\x03\x04".to_vec(), "closed 1002"),
    ];
    for (stream, expected) in table {
        for part in [1, 3, stream.len()] {
            let mut rig = Rig::deflating(limits.clone());
            let events: Vec<String> = stream.chunks(part).flat_map(|part| rig.feed(part)).collect();
            assert_eq!(events.len(), 1, "{events:?}");
            assert!(events[0].starts_with(expected), "the first event must start with {expected}: {events:?}");
        }
        // On a connection that did not negotiate permessage-deflate, each frame with the bit RSV1 is an error.
        let events = Rig::open(limits.clone()).feed(&stream);
        assert!(events[0].starts_with("closed 1002"), "{events:?}");
    }
}

#[test]
fn a_long_message_is_inflated_while_it_arrives() {
    let limits = Limits { message_bytes_max: 4 << 20, queue_bytes_max: 8 << 20, ..limits() };
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"0123456789abcdef"[(state >> 28) as usize]
    };
    let text: String = (0..1 << 20).map(|_| char::from(noise())).collect();
    let payload = deflate(text.as_bytes());
    assert!(payload.len() > 400_000);
    let stream = deflated_frame(true, Opcode::Text, &payload);
    let mut rig = Rig::deflating(Limits { inflated_bytes_per_second_max: 1 << 40, ..limits.clone() });
    let mut events = Vec::new();
    for part in stream.chunks(50_000) {
        events.extend(rig.feed(part));
        let most = rig.env.counts.compression.bytes_in as usize * 2 + (64 << 10) * 2 + (80 << 10);
        let inbound = rig.env.inbound.bytes();
        assert!(inbound <= most, "the unfinished input must take at most {most} bytes: {inbound}");
    }
    assert_eq!(events, [format!("text {text}")]);
    // A message that inflates to more than `message_bytes_max` is refused as soon as its received part exceeds the
    // limit.
    let bounds = Limits { message_bytes_max: 500_000, inflated_bytes_per_second_max: 1 << 40, ..limits };
    let mut rig = Rig::deflating(bounds);
    let mut received = 0;
    let mut events = Vec::new();
    for part in stream.chunks(10_000) {
        events.extend(rig.feed(part));
        received += part.len();
        if !events.is_empty() {
            break;
        }
    }
    assert!(events[0].starts_with("closed 1009"), "{events:?}");
    assert!(received < 300_000, "{received}");
}

#[test]
fn message_time_max_does_not_run_while_the_server_holds_back_the_message() {
    let limits =
        Limits { inflated_bytes_per_second_max: 2 << 20, message_time_max: Duration::from_millis(100), ..limits() };
    let mut rig = Rig::deflating(limits);
    let text: String = (0..60_000_u32).map(|number| format!("{:08x}", number.wrapping_mul(0x9e37_79b9))).collect();
    let deflated = deflate(text.as_bytes());
    let (first, second) = deflated.split_at(deflated.len() / 2);
    assert!(rig.feed(&deflated_frame(false, Opcode::Text, first)).is_empty());
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(100));
    assert!(rig.feed(&frame(false, Opcode::Continuation, second)).is_empty());
    assert!(!rig.connection.wants_read(), "the second part must be held back");
    let until = rig.connection.poll_timeout(&rig.env).0;
    assert!(until > 50, "{until}");
    assert_eq!(rig.tick(until), None);
    assert!(rig.feed(b"").is_empty());
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick(until + 100));
    assert_eq!(rig.tick(until + 99), None);
    let end = rig.tick(until + 100);
    assert_eq!(end.as_deref(), Some("closed 1008 \"message took too long\" (message_timed_out) by Server"));
}

#[test]
fn messages_that_inflate_to_many_bytes_are_held_back() {
    let limits = Limits { inflated_bytes_per_second_max: 2 << 20, ..limits() };
    let bomb = deflated_frame(true, Opcode::Binary, &deflate(&vec![0; 1 << 20]));
    let stream = [bomb.repeat(3), frame(true, Opcode::Text, b"plain"), frame(true, Opcode::Ping, b"")].concat();
    let mut rig = Rig::deflating(limits);
    let first = rig.feed(&stream);
    assert_eq!(first.len(), 1, "only one message may be inflated");
    assert!(!rig.connection.wants_read());
    assert_eq!(rig.env.counts.compression.holds, 1);
    let held = rig.env.inbound.bytes();
    assert!((stream.len() - bomb.len()..10_000).contains(&held), "{held}");
    // At the limit of 2 MiB a second, the inflated message of 1 MiB takes half a second.
    let until = rig.connection.poll_timeout(&rig.env);
    assert!((450..500).contains(&until.0), "{until:?}");
    assert_eq!(rig.tick(until.0 - 1), None);
    assert!(!rig.connection.has_buffered_input(&rig.env));
    assert_eq!(rig.tick(until.0), None);
    assert!(rig.connection.has_buffered_input(&rig.env));
    assert_eq!(rig.connection.poll_timeout(&rig.env), Tick::NEVER);
    assert_eq!(rig.feed(b"").len(), 1);
    assert_eq!(rig.env.counts.compression.holds, 1, "input that is held back twice must be counted once");
    let until = rig.connection.poll_timeout(&rig.env);
    assert!((950..1000).contains(&until.0), "{until:?}");
    rig.connection.set_paused(true, &rig.env);
    rig.tick(until.0);
    assert!(
        !rig.connection.has_buffered_input(&rig.env),
        "a paused connection must not process input that was held back"
    );
    rig.connection.set_paused(false, &rig.env);
    assert!(rig.connection.has_buffered_input(&rig.env));
    assert_eq!(rig.feed(b"").len(), 1);
    // Plain messages that follow a message that is held back are held back, too.
    let until = rig.connection.poll_timeout(&rig.env);
    assert!((1450..1500).contains(&until.0), "{until:?}");
    rig.tick(until.0);
    assert_eq!(rig.feed(b""), ["text plain", "ping 0"]);
    assert!(rig.connection.wants_read());
    assert_eq!(rig.env.inbound.bytes(), 0);
}

/// The payloads of these messages inflate to no bytes, and take much time for each received byte.
#[test]
fn messages_that_inflate_to_no_bytes_are_held_back() {
    let blocks: [&[u8]; 4] = [
        // The first two blocks are final blocks without content. The inflater is reset after each final block.
        &[3, 0],
        &[1, 0, 0, 0xff, 0xff],
        // A stored block of length 0.
        &[0, 0, 0, 0xff, 0xff],
        // A block with 130 literals and 4 distances in its Huffman codes, and no content.
        &[
            0x04, 0xc4, 0x85, 0x02, 0x00, 0x02, 0x00, 0x43, 0xc1, 0x7b, 0xfb, 0x73, 0xad, 0xb5, 0xd6, 0x5a, 0x6b, 0xad,
            0xb5, 0xd6, 0x5a, 0x6b, 0xad, 0xb9, 0xc5, 0xff,
        ],
    ];
    for block in blocks {
        // The last byte of the message is the header of an empty block.
        let payload = [block.repeat(20_000 / block.len()), vec![0]].concat();
        let message = deflated_frame(true, Opcode::Binary, &payload);
        let mut rig = Rig::deflating(limits());
        let first = rig.feed(&message.repeat(3));
        assert_eq!(first, ["binary 0"], "only the burst may be inflated immediately");
        assert!(!rig.connection.wants_read());
        // Each of the 20,000 bytes counts as 16 bytes. At the limit of 16 MiB a second they take 19 ms, minus the time
        // for the burst of 64 KiB.
        let until = rig.connection.poll_timeout(&rig.env);
        assert!((15..17).contains(&until.0), "{until:?}");
        rig.tick(until.0);
        assert_eq!(rig.feed(b""), ["binary 0"]);
        let until = rig.connection.poll_timeout(&rig.env);
        assert!((34..36).contains(&until.0), "{until:?}");
    }
}

#[test]
fn a_close_finds_the_close_frame_of_the_client_in_held_back_input() {
    let limits = Limits { inflated_bytes_per_second_max: 2 << 20, ..limits() };
    let bomb = deflated_frame(true, Opcode::Binary, &deflate(&vec![0; 1 << 20]));
    let mut rig = Rig::deflating(limits);
    let close = frame(true, Opcode::Close, b"\x03\xe8");
    assert_eq!(rig.feed(&[bomb.repeat(2), close].concat()).len(), 1);
    let closed = rig.connection.close(CloseCode::NORMAL, "", Cause::ServerClosed, &mut rig.env);
    assert!(closed.is_some());
    assert_eq!(rig.written(), b"\x88\x02\x03\xe8");
    assert_eq!(rig.next(), SocketAction::Drop, "the connection must be dropped after both close frames");
    assert_eq!(rig.env.counts.compression.messages_in, 1, "messages that were held back must not be inflated");
}

#[test]
fn a_closing_connection_skips_deflated_messages() {
    let mut rig = Rig::deflating(limits());
    rig.connection.close(CloseCode::NORMAL, "", Cause::ServerClosed, &mut rig.env);
    rig.written();
    let late = deflated_frame(true, Opcode::Text, &[6, 6, 6]);
    assert!(rig.feed(&late).is_empty());
    assert_eq!(rig.next(), SocketAction::Stay, "the connection must wait for the client's close frame");
    rig.feed(&frame(true, Opcode::Close, b"\x03\xe8"));
    assert_eq!(rig.next(), SocketAction::Drop);
    assert_eq!(rig.env.counts.compression.failures, 0);
}

#[test]
fn messages_of_at_least_compress_bytes_min_are_deflated() {
    let mut rig = Rig::deflating(limits());
    let texts = ["s".repeat(511), "l".repeat(512)];
    for text in &texts {
        assert_eq!(rig.send(text), Sent::Queued);
    }
    let noise: String = (0..3000_u32).map(|n| char::from(b'!' + (n.wrapping_mul(2_654_435_761) >> 26) as u8)).collect();
    rig.send(&noise);
    let mut secret = Outbound::message(Opcode::Text, texts[1].as_bytes());
    secret.may_deflate = false;
    assert_eq!(rig.connection.send(&mut secret, &mut rig.env), Sent::Queued);
    let output = rig.written();
    let found = messages(&output);
    assert_eq!(found[0], (0x81, texts[0].clone()));
    assert_eq!(found[1], (0xc1, texts[1].clone()));
    assert_eq!(found[2].1, noise);
    assert_eq!(found[3], (0x81, texts[1].clone()));
    let counts = rig.env.counts.compression;
    let is_noise_deflated = found[2].0 == 0xc1;
    assert_eq!(counts.messages_out, 1 + u64::from(is_noise_deflated));
    // Compression is turned off while the client is connected.
    rig.env.limits.compression = false;
    rig.send(&texts[1]);
    assert_eq!(messages(&rig.written()), [(0x81, texts[1].clone())]);
}

/// Returns six open WebSockets and the [`Env`] that they share. Every second client negotiated permessage-deflate.
fn audience(limits: Limits) -> (Env, Vec<Connection>) {
    let mut rig = Rig::deflating(limits.clone());
    let mut connections = Vec::new();
    for number in 0..6 {
        let mut connection = Connection::new(Peer::Unix, &rig.env);
        let offer = if number % 2 == 0 { OFFER } else { "" };
        let mut request = UPGRADE.replace("Host:", &format!("{offer}Host:")).into_bytes();
        let mut input = &mut request[..];
        let Some(Event::Upgrade(request)) = connection.handle_bytes(&mut input, &mut rig.env) else { panic!() };
        let accepted = connection.accept(Fd::new(Slot(0), 0), &Upgrade::accept(), &request, &mut rig.env);
        accepted.expect("the answer is valid").expect("the connection is open");
        let response = connection.queued_bytes();
        connection.handle_written(Written::new(response, false), &mut rig.env);
        connections.push(connection);
    }
    rig.env.counts.compression = Compression::default();
    (rig.env, connections)
}

#[test]
fn a_message_to_many_connections_is_deflated_once_and_each_output_is_one_range() {
    let (mut env, mut connections) = audience(limits());
    let long = "a long message to many ".repeat(100);
    let sent = [long.as_str(), "short", &long];
    for text in sent {
        let mut outbound = Outbound::message(Opcode::Text, text.as_bytes());
        outbound.to_many = true;
        for connection in &mut connections {
            assert_eq!(connection.send(&mut outbound, &mut env), Sent::Queued);
        }
    }
    let counts = env.counts.compression;
    assert_eq!((counts.deflated, counts.messages_out), (2, 6));
    assert_eq!(counts.bytes_out, 2 * long.len() as u64);
    for (number, connection) in connections.iter_mut().enumerate() {
        let bytes = connection.poll_slice(&env).expect("the output is one slice").to_vec();
        assert_eq!(connection.journal_bytes(), bytes.len(), "all output must be in the journal");
        let first = if number % 2 == 0 { 0xc1 } else { 0x81 };
        let expected = [(first, long.clone()), (0x81, "short".to_owned()), (first, long.clone())];
        assert_eq!(messages(&bytes), expected);
        connection.handle_written(Written::new(bytes.len(), false), &mut env);
    }
    assert_eq!(env.queued, Queued::default());
    env.end_turn();
    // A message whose receivers did not negotiate permessage-deflate is not deflated.
    let mut outbound = Outbound::message(Opcode::Text, long.as_bytes());
    connections[1].send(&mut outbound, &mut env);
    assert_eq!(env.counts.compression.deflated, 2);
    connections[1].abort(&mut env);
}

#[test]
fn a_frame_is_deflated_once_for_any_number_of_pushes() {
    let (mut env, mut connections) = audience(limits());
    let frame = Frame::text(&"a frame that is pushed often ".repeat(50));
    for _ in 0..3 {
        for connection in &mut connections {
            assert_eq!(connection.send(&mut Outbound::frame(&frame), &mut env), Sent::Queued);
        }
    }
    let counts = env.counts.compression;
    assert_eq!((counts.deflated, counts.messages_out), (1, 9));
    connections.iter_mut().for_each(|connection| _ = connection.abort(&mut env));
    assert_eq!(env.queued, Queued::default());
}

#[test]
fn queues_count_a_deflated_message_with_its_deflated_length() {
    let (mut env, mut connections) = audience(limits());
    let long: String = (0..2000_u32).map(|number| format!("{:x},", number.wrapping_mul(2_654_435_761))).collect();
    for connection in &mut connections {
        connection.send(&mut Outbound::message(Opcode::Text, b"first"), &mut env);
        connection.handle_written(Written::new(0, true), &mut env);
    }
    let before = env.queued.frames;
    let mut outbound = Outbound::message(Opcode::Text, long.as_bytes());
    outbound.to_many = true;
    for connection in &mut connections {
        assert_eq!(connection.send(&mut outbound, &mut env), Sent::Queued);
    }
    let deflated = env.counts.compression.bytes_out_deflated as usize;
    let frames = (deflated + 4) + (long.len() + 4);
    assert!((1000..long.len()).contains(&deflated));
    assert_eq!(env.queued.frames - before, frames + 2 * FRAME_BYTES + 6 * SEGMENT_BYTES);
    for (number, connection) in connections.iter_mut().enumerate() {
        let bytes = if number % 2 == 0 { deflated + 4 } else { long.len() + 4 };
        assert_eq!(connection.queued_bytes(), 7 + bytes);
        connection.check_invariants();
        connection.abort(&mut env);
    }
    assert_eq!(env.queued, Queued::default());
}

#[test]
fn a_too_large_message_is_refused_with_and_without_permessage_deflate() {
    let limits = Limits { message_bytes_max: 1000, queue_bytes_max: 1010, ..limits() };
    let (mut env, mut connections) = audience(limits);
    let long = "x".repeat(2000);
    for connection in &mut connections {
        let mut outbound = Outbound::message(Opcode::Text, long.as_bytes());
        assert_eq!(connection.send(&mut outbound, &mut env), Sent::TooLarge);
    }
    assert_eq!(env.counts.compression.deflated, 0);
}

#[test]
fn messages_are_conflated_with_and_without_permessage_deflate() {
    let limits = Limits { slow_reader: SlowReader::Conflate, ..limits() };
    let (mut env, mut connections) = audience(limits);
    let versions = ["old ".repeat(300), "newer ".repeat(300), "short".to_owned(), "newest ".repeat(300)];
    for connection in &mut connections {
        connection.send(&mut Outbound::message(Opcode::Text, b"first"), &mut env);
        connection.handle_written(Written::new(0, true), &mut env);
    }
    for (number, version) in versions.iter().enumerate() {
        let mut outbound = Outbound::message(Opcode::Text, version.as_bytes());
        (outbound.key, outbound.to_many) = (Some("price"), true);
        for connection in &mut connections {
            match number {
                0 => assert_eq!(connection.send(&mut outbound, &mut env), Sent::Queued),
                _ => assert!(connection.conflate(&mut outbound, &mut env)),
            }
            connection.check_invariants();
        }
    }
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.handle_writable();
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = connection.poll_slices(&env, &mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        let first = if number % 2 == 0 { 0xc1 } else { 0x81 };
        assert_eq!(messages(&bytes), [(0x81, "first".to_owned()), (first, versions[3].clone())]);
        connection.handle_written(Written::new(bytes.len(), false), &mut env);
    }
    assert_eq!(env.queued, Queued::default());
}

#[test]
fn control_frames_are_sent_after_the_earlier_messages_of_the_turn() {
    let mut rig = Rig::deflating(limits());
    let long = "a message ".repeat(100);
    rig.send(&long);
    rig.feed(&frame(true, Opcode::Ping, b"p"));
    rig.connection.ping(b"q", &mut rig.env);
    rig.send(&long);
    rig.connection.close(CloseCode::NORMAL, "bye", Cause::ServerClosed, &mut rig.env);
    assert!(
        rig.connection.poll_slice(&rig.env).is_some() && !rig.connection.has_queue(),
        "the output must be one range of the journal"
    );
    let output = rig.written();
    let ends = [(0xc1, long.clone()), (0x8a, "p".to_owned()), (0x89, "q".to_owned()), (0xc1, long)];
    let (head, close) = output.split_at(output.len() - 7);
    assert_eq!(messages(head), ends);
    assert_eq!(close, b"\x88\x05\x03\xe8bye");
}

#[test]
fn a_message_longer_than_the_window_of_a_client_is_not_deflated() {
    for bits in 8..=15_u8 {
        let offer = format!("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}\r\n");
        let mut rig = Rig::new(limits());
        rig.env.limits.compress_bytes_min = 1;
        rig.feed(UPGRADE.replace("Host:", &format!("{offer}Host:")).as_bytes());
        rig.accept(&Upgrade::accept());
        let head = String::from_utf8(rig.written()).expect("the output is UTF-8");
        assert!(head.contains(&format!("; server_max_window_bits={bits}\r\n")), "{head}");
        let window = 1 << bits;
        for length in [window - 1, window, window + 1, window] {
            let text = "x".repeat(length);
            rig.send(&text);
            let first = if length <= window || bits == 15 { 0xc1 } else { 0x81 };
            assert_eq!(
                messages(&rig.written()),
                [(first, text)],
                "{length} bytes must arrive unchanged with a window of {bits} bits"
            );
        }
        for length in [window, window + 1, window] {
            rig.send(&"y".repeat(length));
        }
        let lengths: Vec<usize> = messages(&rig.written()).iter().map(|(_, text)| text.len()).collect();
        assert_eq!(lengths, [window, window + 1, window], "the messages of one turn must arrive in order");
    }
}
