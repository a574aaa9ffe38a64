//! Tests permessage-deflate through sockets: negotiation, messages in both directions, and hostile input.

use crate::common::deflated::{
    DEFLATED_BINARY, DEFLATED_TEXT, RSV1, connect, connect_offering, deflate, deflated_frame, message,
};
use crate::common::raw::{BINARY, CONTINUATION, PING, TEXT, frame, frame_with};
use crate::common::{Raw, TestServer, channel, limits_with_long_times, report_close, serve};
use fdpush::{Cause, Limits, ProtocolError, Upgrade};

fn limits() -> Limits {
    Limits { compression: true, ..limits_with_long_times() }
}

fn echo(limits: Limits) -> TestServer {
    serve(move |server| {
        server.limits(limits).on_message(|ctx, fd, message| {
            ctx.push(fd, message);
        })
    })
}

#[test]
fn offers_are_declined_if_the_settings_or_the_handler_turn_compression_off() {
    let (on, off) = (
        echo(limits_with_long_times()),
        serve(|server| server.limits(limits()).on_upgrade(|_, _, _| Upgrade::accept().compress(false))),
    );
    for server in [on, off] {
        let (mut raw, accepted) = connect_offering(server.address(), "/", "permessage-deflate");
        assert_eq!(accepted, None);
        raw.send(deflated_frame(DEFLATED_TEXT, b"text"));
        assert_eq!(raw.close_frame().0, 1002);
        raw.end();
    }
}

#[test]
fn messages_and_fragments_are_deflated_in_both_directions() {
    let server = echo(limits());
    let mut raw = connect(server.address(), "/");
    let long = "grüße, ".repeat(2000).into_bytes();
    let whole = deflated_frame(DEFLATED_TEXT, &long);
    for size in [whole.len(), 1, 7, 100] {
        for part in whole.chunks(size) {
            raw.send(part);
        }
        assert_eq!(
            message(&mut raw),
            (true, long.clone()),
            "a message that is sent in writes of {size} bytes must arrive whole"
        );
    }
    // The client sends the fragments of one message, with a control frame between them.
    let payload = deflate(&long);
    let (head, rest) = payload.split_at(10);
    let (middle, tail) = rest.split_at(20);
    raw.send(frame_with(TEXT | RSV1, head));
    raw.send(frame(PING, b"now"));
    raw.send(frame_with(CONTINUATION, middle));
    raw.send(frame_with(CONTINUATION, b""));
    raw.send(frame(CONTINUATION, tail));
    assert_eq!(raw.frame(), (0x8a, b"now".to_vec()));
    assert_eq!(message(&mut raw), (true, long.clone()));
    // The server echoes short and empty messages without compression, because they are too short for it.
    for text in [&b""[..], b"a", b"hello"] {
        raw.send(deflated_frame(DEFLATED_BINARY, text));
        assert_eq!(message(&mut raw), (false, text.to_vec()));
    }
    raw.send(frame_with(DEFLATED_BINARY, b""));
    assert_eq!(message(&mut raw), (false, vec![]));
    // On the same connection, the client sends a message that is not deflated.
    raw.send_frame(BINARY, &long);
    assert_eq!(message(&mut raw), (true, long));
    let counts = server.ask(|ctx| ctx.stats().compression);
    assert_eq!((counts.connections, counts.messages_in, counts.failures), (1, 9, 0));
    assert_eq!((counts.deflated, counts.messages_out), (6, 6));
    assert!(counts.bytes_out_deflated * 20 < counts.bytes_out);
    assert!(counts.bytes_in_deflated * 20 < counts.bytes_in);
}

/// Sends bytes, and returns the code of the close frame and the cause that the handler got.
fn end_of(limits: Limits, bytes: &[u8]) -> (u16, Cause) {
    let (tx, rx) = channel();
    let server = serve(move |server| server.limits(limits).on_close(report_close(tx)));
    let mut raw = connect(server.address(), "/");
    raw.send(bytes);
    let (code, _) = raw.close_frame();
    raw.end();
    (code, rx.next().1.cause)
}

#[test]
fn each_invalid_message_closes_the_connection_with_the_code_of_its_error() {
    let stream = deflate(&b"not the whole message, ".repeat(50));
    let reserved = Cause::ProtocolError(ProtocolError::ReservedBits);
    let invalid = Cause::ProtocolError(ProtocolError::InvalidDeflate);
    let table = [
        (frame_with(DEFLATED_TEXT, &stream[..stream.len() - 1]), 1007, invalid),
        (frame_with(DEFLATED_TEXT, &[&stream[..], &[0x55]].concat()), 1007, invalid),
        (frame_with(DEFLATED_TEXT, &[0x07]), 1007, invalid),
        (deflated_frame(DEFLATED_TEXT, b"\xc3("), 1007, Cause::ProtocolError(ProtocolError::TextNotUtf8)),
        (frame_with(0x80 | RSV1 | PING, b""), 1002, reserved),
        (frame_with(0x80 | RSV1, b""), 1002, reserved),
        ([frame_with(RSV1 | TEXT, b"\x00"), frame_with(0x80 | RSV1, b"\x00")].concat(), 1002, reserved),
        (frame_with(0xa0 | TEXT, b""), 1002, reserved),
        (frame_with(0x90 | RSV1 | TEXT, b""), 1002, reserved),
    ];
    for (bytes, code, cause) in table {
        assert_eq!(end_of(limits(), &bytes), (code, cause), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_message_that_inflates_to_one_gib_is_refused_at_the_message_limit() {
    let zeros = deflate(&vec![0; 64 << 20]);
    // The compressed stream ends at a byte boundary, so 16 copies of it are one valid stream of 1 GiB of zeros.
    let bomb = [zeros.as_slice(), &[0, 0, 0xff, 0xff]].concat().repeat(16);
    let bomb = &bomb[..bomb.len() - 4];
    let too_big = (1009, Cause::ProtocolError(ProtocolError::MessageTooBig));
    let limits = Limits { message_bytes_max: 4 << 20, queue_bytes_max: 8 << 20, ..limits() };
    assert!(bomb.len() < limits.message_bytes_max);
    assert_eq!(end_of(limits.clone(), &frame_with(DEFLATED_BINARY, bomb)), too_big);
    let mut fragments = Vec::new();
    for (number, part) in bomb.chunks(1000).enumerate() {
        fragments.extend(frame_with(if number == 0 { RSV1 | BINARY } else { CONTINUATION }, part));
    }
    assert_eq!(end_of(limits, &fragments), too_big);
}

#[test]
fn a_message_that_takes_long_to_inflate_does_not_block_the_loop() {
    let limits = Limits { inflated_bytes_per_second_max: 4 << 20, ..limits() };
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.limits(limits).on_message(move |ctx, fd, message| {
            if message.as_text().is_some() {
                ctx.push(fd, message);
            } else {
                tx.send(message.len()).expect("the test waits");
            }
        })
    });
    let mut attacker = connect(server.address(), "/");
    let bomb = deflated_frame(DEFLATED_BINARY, &vec![0; 1 << 20]);
    assert!(bomb.len() < 2000);
    attacker.send(bomb.repeat(4));
    let mut other = Raw::upgraded(server.address());
    assert_eq!(rx.next(), 1 << 20);
    for _ in 0..100 {
        other.send_frame(TEXT, b"hello");
        assert_eq!(other.frame(), (0x81, b"hello".to_vec()));
    }
    for _ in 0..3 {
        assert_eq!(rx.next(), 1 << 20);
    }
    let (counts, uptime) = server.ask(|ctx| (ctx.stats().compression, ctx.stats().uptime));
    assert!(counts.holds > 0);
    assert!(
        uptime.as_millis() >= 690,
        "at 4 MiB a second, the 3 MiB after the first MiB must take at least 690 ms, not {uptime:?}"
    );
    // When the server reads from the attacker again, it reads the attacker's next message.
    attacker.send_frame(TEXT, b"still here");
    assert_eq!(attacker.frame(), (0x81, b"still here".to_vec()));
}
