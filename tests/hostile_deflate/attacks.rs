//! Tests attacks: deflated messages that try to use up the memory of the server or the time of the loop.

use std::time::Duration;

use crate::child::{Child, Role};
use crate::common::deflated::{DEFLATED_BINARY, RSV1, deflate, deflated_frame, limits};
use crate::common::raw::{BINARY, CONTINUATION, TEXT, frame_with};
use crate::common::{Raw, TestServer, channel, echo, report_close, serve};
use fdpush::{Cause, Heartbeat, Limits, ProtocolError};

const MESSAGE_MAX: usize = 1 << 20;

/// The servers that the tests of this file start as child processes.
pub const ROLES: &[Role] = &[("bombed", |server| server.limits(bounds()).heartbeat(Heartbeat::Off).on_message(echo))];

fn bounds() -> Limits {
    Limits { message_bytes_max: MESSAGE_MAX, ..limits() }
}

/// Returns a payload that inflates to 1 GiB of zeros.
fn gibibyte_of_zeros() -> Vec<u8> {
    let zeros = deflate(&vec![0; 64 << 20]);
    let bomb = [zeros.as_slice(), &[0, 0, 0xff, 0xff]].concat().repeat(16);
    assert!(
        bomb.len() < MESSAGE_MAX + MESSAGE_MAX / 16,
        "the bomb must be so short that the server accepts its announced length"
    );
    bomb[..bomb.len() - 4].to_vec()
}

/// Returns pseudo-random bytes, which compression does not shorten.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn a_gibibyte_of_zeros_takes_bounded_memory() {
    let child = Child::start("bombed");
    let bomb = gibibyte_of_zeros();
    let whole = frame_with(DEFLATED_BINARY, &bomb);
    let mut fragments = Vec::new();
    for (number, part) in bomb.chunks(1000).enumerate() {
        fragments.extend(frame_with(if number == 0 { RSV1 | BINARY } else { CONTINUATION }, part));
    }
    let mut other = Raw::upgraded(child.address);
    other.send_frame(TEXT, b"before");
    assert_eq!(other.frame(), (0x80 | TEXT, b"before".to_vec()));
    let before = child.memory();
    for number in 0..40 {
        let mut raw = Raw::upgraded(child.address);
        raw.try_send(if number % 2 == 0 { &whole } else { &fragments });
        assert_eq!(raw.close_frame().0, 1009);
    }
    // After the bombs, the server may still have memory for one message, an inflater and the input of a connection. If
    // it kept memory for each bomb, its memory would grow by more than 4 MiB.
    let grown = child.memory().saturating_sub(before);
    assert!(grown < 4 << 20, "memory must grow by less than 4 MiB, not by {grown} bytes");
    child.wait_for_stat("inbound_bytes", |bytes| bytes == 0);
    other.send_frame(TEXT, b"after");
    assert_eq!(other.frame(), (0x80 | TEXT, b"after".to_vec()));
}

#[test]
fn a_bomb_is_inflated_up_to_the_limit_only() {
    let server = serve(|server| server.limits(bounds()));
    let bomb = frame_with(DEFLATED_BINARY, &gibibyte_of_zeros());
    for count in 1..=3 {
        let mut raw = Raw::upgraded(server.address());
        raw.try_send(&bomb);
        assert_eq!(raw.close_frame().0, 1009);
        let counts = server.ask(|ctx| ctx.stats().compression);
        assert_eq!((counts.failures, counts.messages_in), (count, 0));
        assert!(
            counts.bytes_in <= count * MESSAGE_MAX as u64,
            "the server must inflate at most the limit for each bomb, not {} bytes in total",
            counts.bytes_in
        );
    }
}

/// Starts a server whose inflation limit is `rate` bytes a second. One client, the attacker, sends `message` `times`
/// times. Meanwhile another client sends 200 texts, and gets all their echoes.
///
/// Returns the server, and the attacker's connection.
fn attack(rate: usize, message: &[u8], times: usize) -> (TestServer, Raw) {
    let limits = Limits { inflated_bytes_per_second_max: rate, ..bounds() };
    let server = serve(move |server| {
        server.limits(limits).on_message(|ctx, fd, message| {
            if message.as_text().is_some() {
                ctx.push(fd, message);
            }
        })
    });
    let mut attacker = Raw::upgraded(server.address());
    let mut other = Raw::upgraded(server.address());
    // The kernel's buffers hold all these messages, so the attacker's input never ends during the test.
    attacker.send(message.repeat(times));
    for number in 0..200_u32 {
        let text = format!("echo {number}");
        other.send(crate::common::raw::frame(TEXT, text.as_bytes()));
        assert_eq!(other.frame(), (0x80 | TEXT, text.into_bytes()));
    }
    (server, attacker)
}

/// Returns the number of bytes that the inflation limit (`inflated_bytes_per_second_max`) allows for one client in the
/// time since the start of the server.
fn allowance(rate: usize, uptime: Duration) -> u64 {
    let burst = Limits::default().read_budget_bytes + 2 * MESSAGE_MAX;
    (uptime.as_secs_f64() * rate as f64) as u64 + burst as u64
}

#[test]
fn many_tiny_frames_that_inflate_to_the_maximum_are_read_slowly() {
    const RATE: usize = 4 << 20;
    const BOMBS: usize = 500;
    let bomb = deflated_frame(DEFLATED_BINARY, &vec![0; 64 << 10]);
    assert!(bomb.len() < 100, "the bomb must be shorter than 100 bytes, not {} bytes", bomb.len());
    let (server, attacker) = attack(RATE, &bomb, BOMBS);
    let (counts, uptime) = server.ask(|ctx| (ctx.stats().compression, ctx.stats().uptime));
    assert!(counts.holds > 0);
    assert!(
        counts.bytes_in <= allowance(RATE, uptime),
        "the server must not inflate more bytes than the limit allows, but inflated {} bytes in {uptime:?}",
        counts.bytes_in
    );
    drop(attacker);
}

#[test]
fn messages_that_inflate_to_nothing_are_read_slowly() {
    const RATE: usize = 4 << 20;
    for block in [&[3, 0][..], &[0, 0, 0, 0xff, 0xff]] {
        let payload = [block.repeat(10_000 / block.len()), vec![0]].concat();
        let (server, attacker) = attack(RATE, &frame_with(DEFLATED_BINARY, &payload), 20);
        let (counts, uptime) = server.ask(|ctx| (ctx.stats().compression, ctx.stats().uptime));
        assert!(counts.holds > 0);
        // For the inflation limit, each byte of a deflated payload counts as 16 bytes, in addition to the bytes that it
        // inflates to, which are none here.
        let charged = 16 * counts.bytes_in_deflated;
        let allowed = allowance(RATE, uptime);
        assert!(
            charged <= allowed,
            "in {uptime:?}, the data that the server reads must count as at most {allowed} bytes, not as {charged}"
        );
        drop(attacker);
    }
}

#[test]
fn unfinished_deflated_messages_count_toward_the_inbound_bound() {
    const TOTAL_MAX: usize = 4 << 20;
    let (tx, rx) = channel();
    let limits = Limits { inbound_total_bytes_max: TOTAL_MAX, ..bounds() };
    let server = serve(|server| server.limits(limits).on_message(echo).on_close(report_close(tx)));
    let mut small = Raw::upgraded(server.address());
    let text = "a small message ".repeat(20);
    let deflated = deflate(text.as_bytes());
    small.send(frame_with(RSV1 | TEXT, &deflated[..10]));
    // For each of these connections, the server stores 60,000 deflated bytes, or a decompressor and half a MiB of
    // zeros.
    let noise = noise(60_000);
    let zeros = deflate(&vec![0; MESSAGE_MAX / 2]);
    let empty = [0, 0, 0, 0xff, 0xff].repeat(20_000);
    let long = [empty.as_slice(), &zeros].concat();
    let mut large: Vec<Raw> = (0..120).map(|_| Raw::upgraded(server.address())).collect();
    for (number, client) in large.iter_mut().enumerate() {
        client.send(frame_with(RSV1 | BINARY, if number % 2 == 0 { &noise } else { &long }));
        let held = server.ask(|ctx| ctx.stats().inbound_bytes);
        assert!(held <= TOTAL_MAX + MESSAGE_MAX, "unfinished messages must take at most 5 MiB, not {held} bytes");
    }
    server.wait_until("the server has closed a connection", |ctx| ctx.stats().closed > 0);
    let overload = |cause| cause == Cause::InboundOverload;
    assert!(rx.so_far().iter().all(|(_, closed)| overload(closed.cause) && closed.code.as_u16() == 1013));
    small.send(frame_with(0x80 | CONTINUATION, &deflated[10..]));
    assert_eq!(small.frame(), (0x80 | TEXT, text.into_bytes()));
    drop(large);
    server.wait_until("no bytes of unfinished messages are stored", |ctx| ctx.stats().inbound_bytes == 0);
}

#[test]
fn a_deflated_message_that_never_ends_is_closed_after_message_time_max() {
    let (tx, rx) = channel();
    let limits = Limits { message_time_max: Duration::from_millis(200), ..limits() };
    let server = serve(|server| server.limits(limits).on_close(report_close(tx)));
    let mut raw = Raw::upgraded(server.address());
    raw.send(frame_with(RSV1 | TEXT, &[0]));
    let fragments = frame_with(CONTINUATION, &[0, 0, 0xff, 0xff, 0]).repeat(10);
    while server.ask(|ctx| ctx.stats().open) > 0 {
        raw.try_send(&fragments);
    }
    assert_eq!(raw.close_frame().0, 1008);
    assert_eq!(rx.next().1.cause, Cause::MessageTimedOut);
}

#[test]
fn a_hundred_thousand_deflated_one_byte_fragments_form_one_message() {
    let server = serve(|server| server.limits(limits()).on_message(echo));
    let mut raw = Raw::upgraded(server.address());
    let noise = noise(150_000);
    let deflated = deflate(&noise);
    assert!(
        deflated.len() > 100_000,
        "the deflated message must have over 100,000 bytes, more than the server stores deflated, not {}",
        deflated.len()
    );
    let (first, rest) = deflated.split_at(1);
    let (rest, last) = rest.split_at(rest.len() - 1);
    raw.send(frame_with(RSV1 | BINARY, first));
    for part in rest.chunks(1000) {
        raw.send(part.iter().flat_map(|byte| frame_with(CONTINUATION, &[*byte])).collect::<Vec<u8>>());
    }
    raw.send(frame_with(0x80 | CONTINUATION, last));
    assert_eq!(raw.frame(), (0x80 | BINARY, noise));
}

#[test]
fn the_violated_rule_of_a_deflated_message_is_passed_to_on_close() {
    let (tx, rx) = channel();
    let server = serve(|server| server.limits(bounds()).on_close(report_close(tx)));
    for (bytes, error) in [
        (frame_with(DEFLATED_BINARY, &[6]), ProtocolError::InvalidDeflate),
        (frame_with(0x80 | RSV1 | TEXT, &deflate(b"\xff")), ProtocolError::TextNotUtf8),
        (frame_with(DEFLATED_BINARY, &deflate(&vec![0; MESSAGE_MAX + 1])), ProtocolError::MessageTooBig),
        (frame_with(0x80 | RSV1, b""), ProtocolError::ReservedBits),
        (frame_with(0x80 | RSV1 | 9, b""), ProtocolError::ReservedBits),
    ] {
        let mut raw = Raw::upgraded(server.address());
        raw.send(bytes);
        assert_eq!(raw.close_frame(), (error.close_code().as_u16(), error.to_string()));
        raw.end();
        assert_eq!(rx.next().1.cause, Cause::ProtocolError(error));
    }
}
