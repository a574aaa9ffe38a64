//! Tests hostile frames: over 250 streams in `cases/data_frames.rs` and `close_frames.rs`, with their expected results.
//!
//! Each case is sent in one piece, then one byte in each turn of the loop, then in two parts for every split point. The
//! second part is sent after the loop has read the first part. Longer inputs are cut near their start, near their end
//! and at a sample of positions between them (see `harness.rs`). The tests of `Assembler` cut all frames and messages
//! at every byte.

use std::time::Duration;

use crate::cases::data_frames::{NOT_UTF8, is_hopeless};
use crate::cases::{close_frames, data_frames, deflated_frames};
use crate::child::{Child, Role};
use crate::common::deflated::{IS_DEFLATED, limits, offering};
use crate::common::raw::{BINARY, CONTINUATION, PING, TEXT, UPGRADE, frame, frame_with};
use crate::common::{Raw, TestServer, channel, echo, report_close, serve};
use crate::harness::{
    Case, LoggingServer, MESSAGE_BYTES_MAX, assert_named, check_results, on_threads, send_bytewise, send_split,
    send_whole,
};
use crate::wire::Wire;
use fdpush::bench::{Assembler, AssemblerError, AssemblerPool, DeflatedMessages, Item, MessageRules, Tick};
use fdpush::{By, Cause, Limits, ProtocolError};

fn cases() -> Vec<Case> {
    let mut cases = data_frames::cases();
    cases.extend(close_frames::cases());
    if IS_DEFLATED {
        cases = deflated_frames::with_deflated(cases);
    }
    assert_named(&cases, 250);
    cases
}

/// Opens a WebSocket, and removes the handler calls of its opening from the recorded calls.
fn open(server: &LoggingServer) -> Wire {
    let mut wire = server.connect();
    wire.send(offering(UPGRADE).as_bytes());
    assert!(wire.read_until(|received| !received.replies.is_empty()));
    assert_eq!(server.ran(&wire), ["upgrade /", "open"]);
    wire
}

#[test]
fn each_case_sent_whole() {
    let (server, cases) = (LoggingServer::start(false), cases());
    check_results(&server, send_whole(&server, &cases, open));
}

#[test]
fn each_case_sent_byte_by_byte_has_the_expected_result() {
    let (server, cases) = (LoggingServer::start(false), cases());
    check_results(&server, send_bytewise(&server, &cases, open));
}

#[test]
fn each_case_cut_into_two_parts_has_the_expected_result() {
    on_threads(
        &cases(),
        || LoggingServer::start(false),
        |server, case| {
            send_split(server, case, open, |sent| check_results(server, sent));
        },
    );
}

/// Returns the results of an assembler that gets these parts in order.
fn assemble(parts: &[&[u8]]) -> (Vec<String>, Option<AssemblerError>) {
    let (mut unfinished, mut pool, mut items) = (None, AssemblerPool::new(), Vec::new());
    let deflated = if IS_DEFLATED { DeflatedMessages::Inflated } else { DeflatedMessages::Refused };
    let rules = MessageRules { bytes_max: MESSAGE_BYTES_MAX as u64, deflated };
    for part in parts {
        let mut part = part.to_vec();
        let mut input = &mut part[..];
        loop {
            match Assembler::next(&mut unfinished, &mut input, rules, Tick(0), &mut pool) {
                Ok(None) => break,
                Ok(Some(Item::Close(payload))) => return ([items, vec![format!("close {payload:?}")]].concat(), None),
                Ok(Some(item)) => items.push(format!("{item:?}")),
                Err(error) => return (items, Some(error)),
            }
        }
    }
    (items, None)
}

#[test]
fn the_assembler_returns_the_same_message_for_every_cut() {
    // For each cut position, the assembler parses the whole input again. So this test cuts only the short cases and
    // one long frame.
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.bytes.len() < 1_000).collect();
    let long = frame(BINARY, &[7; 4_000]);
    for bytes in cases.iter().map(|case| &case.bytes).chain([&long]) {
        let whole = assemble(&[bytes]);
        for cut in 1..bytes.len() {
            assert_eq!(assemble(&[&bytes[..cut], &bytes[cut..]]), whole, "{} cut at {cut}", bytes.escape_ascii());
        }
    }
}

/// The server refuses a text with an invalid byte sequence, at whatever position of the text. The server reports the
/// error at the first invalid byte, even before the remaining text arrives, and delivers no text.
#[test]
fn invalid_utf8_at_every_position_is_refused() {
    const TEXT_AROUND: &str = "a plain début, a few €, and 😀 to finish.";
    let server = LoggingServer::start(false);
    for (name, bad) in NOT_UTF8 {
        let places = (0..=TEXT_AROUND.len()).filter(|at| TEXT_AROUND.is_char_boundary(*at));
        let texts = places.map(|at| {
            let (before, behind) = TEXT_AROUND.as_bytes().split_at(at);
            (at, [before, bad, behind].concat())
        });
        let texts: Vec<(usize, Vec<u8>)> = texts.collect();
        let mut cases = Vec::new();
        for (at, text) in &texts {
            let hopeless = (1..=text.len())
                .find(|end| is_hopeless(&text[..*end]))
                .expect("a prefix of the text is invalid, whatever bytes follow it");
            let head = frame_with(TEXT, text);
            let first = data_frames::invalid_case(format!("{name} at {at}"), frame(TEXT, text), 1007, &[]);
            let cut = data_frames::invalid_case(format!("{name} at {at}, cut"), &head[..6 + hopeless], 1007, &[]);
            let parts = [frame_with(TEXT, &text[..hopeless]), frame(PING, b"late")].concat();
            let fragment = data_frames::invalid_case(format!("{name} at {at}, in a fragment"), parts, 1007, &[]);
            cases.extend([first, cut, fragment]);
        }
        check_results(&server, send_whole(&server, &cases, open));
    }
}

/// The server accepts a text in two fragments with a ping between them. The text is cut at every byte, also within
/// characters.
#[test]
fn valid_utf8_in_fragments_cut_at_every_position_is_accepted() {
    let text = "ü€😀\u{10ffff}\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}";
    let server = LoggingServer::start(false);
    let delivered = crate::harness::shown("text", text.as_bytes());
    let cut = |at: usize| {
        let (first, rest) = text.as_bytes().split_at(at);
        let frames = [frame_with(TEXT, first), frame(PING, b"p"), frame(CONTINUATION, rest)].concat();
        data_frames::valid_case(format!("cut at {at}"), frames, &["ping p", &delivered])
    };
    let cases: Vec<Case> = (0..=text.len()).map(cut).collect();
    check_results(&server, send_whole(&server, &cases, open));
}

#[test]
fn the_violated_rule_is_passed_to_on_close() {
    let (tx, rx) = channel();
    let server = serve(|server| server.limits(limits()).on_close(report_close(tx)));
    for (bytes, error) in [
        (&b"\x81\x00"[..], ProtocolError::Unmasked),
        (b"\xa1\x80", ProtocolError::ReservedBits),
        (b"\x83\x80", ProtocolError::ReservedOpcode),
        (b"\x09\x80", ProtocolError::ControlFragmented),
        (b"\x89\xfe", ProtocolError::ControlTooLong),
        (b"\x80\x80\0\0\0\0", ProtocolError::ContinuationWithoutStart),
        (b"\x01\x80\0\0\0\0\x81\x80\0\0\0\0", ProtocolError::MessageUnfinished),
        (b"\x82\xff\xff", ProtocolError::LengthTooLarge),
        (b"\x82\xfe\0\0", ProtocolError::LengthNotMinimal),
        (b"\x82\xff\0\0\0\0\xff\xff\xff\xff\0\0\0\0", ProtocolError::MessageTooBig),
        (b"\x81\x81\0\0\0\0\xff", ProtocolError::TextNotUtf8),
        (b"\x88\x81\0\0\0\0\x03", ProtocolError::CloseCodeCut),
        (b"\x88\x82\0\0\0\0\x03\xed", ProtocolError::CloseCodeInvalid),
        (b"\x88\x83\0\0\0\0\x03\xe8\xff", ProtocolError::CloseReasonNotUtf8),
    ] {
        let mut raw = Raw::upgraded(server.address());
        raw.send(bytes);
        assert_eq!(raw.close_frame(), (error.close_code().as_u16(), error.to_string()));
        raw.end();
        let (_, closed) = rx.next();
        assert_eq!((closed.by, closed.cause), (By::Server, Cause::ProtocolError(error)));
    }
    server.wait_until("all connections have ended", |ctx| ctx.stats().connections == 0);
    assert!(rx.so_far().is_empty(), "on_close must be called only once for each connection");
}

#[test]
fn a_client_that_violated_a_rule_and_does_not_disconnect_is_disconnected() {
    let limits = Limits { close_wait_max: Duration::from_millis(50), ..limits() };
    let server = serve(|server| server.limits(limits).on_message(echo));
    let mut violating = Raw::upgraded(server.address());
    violating.send(b"\x81\x00");
    let mut closing = Raw::upgraded(server.address());
    closing.send(frame(crate::common::raw::CLOSE, b"\x03\xe8"));
    server.wait_until("both connections have ended", |ctx| ctx.stats().connections == 0);
    assert_eq!(violating.close_frame().0, 1002);
    assert_eq!(closing.close_frame().0, 1000);
}

/// Returns the growth of the memory of a child while `f` runs.
fn growth(child: &Child, f: impl FnOnce()) -> usize {
    let before = child.memory();
    f();
    child.memory().saturating_sub(before)
}

/// The servers that the tests of this file start as child processes.
pub const ROLES: &[Role] = &[("echo", |server| server.limits(limits()).on_message(echo))];

/// A thousand peers each announce a message of one megabyte and send one byte of it.
#[test]
fn an_announced_length_without_payload_takes_no_memory() {
    let child = Child::start("echo");
    let open = || {
        let mut raw = Raw::upgraded(child.address);
        raw.send_frame(TEXT, b"hi");
        assert_eq!(raw.frame(), (0x81, b"hi".to_vec()));
        raw
    };
    let mut peers: Vec<Raw> = (0..1_000).map(|_| open()).collect();
    let first = [0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4, b'x'];
    let fragment = [0x02, 0xff, 0, 0, 0, 0, 0, 0x0f, 0xff, 0xf0, 1, 2, 3, 4, b'x'];
    let grown = growth(&child, || {
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.send(if number % 2 == 0 { first } else { fragment });
        }
        let received = 1_000 * (UPGRADE.len() + 8 + first.len()) as u64;
        child.wait_for_stat("bytes_in", |bytes| bytes >= received);
    });
    assert!(grown < 5 << 20, "announced lengths must take less than 5 MiB for all peers, not {grown} bytes");
    assert_eq!(child.stat("open"), 1_000);
}

#[test]
fn a_hundred_thousand_empty_fragments_form_one_message_without_memory_growth() {
    const FRAGMENTS: usize = 100_000;
    let child = Child::start("echo");
    let mut raw = Raw::upgraded(child.address);
    raw.send(frame_with(BINARY, b""));
    let fragments = frame_with(CONTINUATION, b"").repeat(1_000);
    let grown = growth(&child, || {
        for _ in 0..FRAGMENTS / 1_000 {
            raw.send(&fragments);
        }
        raw.send(frame(PING, b"behind them"));
        assert_eq!(raw.frame(), (0x8a, b"behind them".to_vec()));
    });
    assert!(grown < 1 << 20, "memory must grow by less than 1 MiB, not by {grown} bytes");
    raw.send(frame(CONTINUATION, b"end"));
    assert_eq!(raw.frame(), (0x82, b"end".to_vec()), "the server must accept any number of fragments");
}

#[test]
fn a_hundred_thousand_one_byte_fragments_form_one_message() {
    const FRAGMENTS: usize = 100_000;
    let server = serve(|server| server.limits(limits()).on_message(echo));
    let mut raw = Raw::upgraded(server.address());
    raw.send(frame_with(TEXT, b"s"));
    let fragments = frame_with(CONTINUATION, b"x").repeat(1_000);
    for _ in 0..FRAGMENTS / 1_000 {
        raw.send(&fragments);
    }
    raw.send(frame(CONTINUATION, b"e"));
    let (first, payload) = raw.frame();
    assert_eq!((first, payload.len()), (0x81, FRAGMENTS + 2));
}

#[test]
fn endless_fragments_end_after_message_time_max() {
    let (tx, rx) = channel();
    let limits = Limits { message_time_max: Duration::from_millis(200), ..limits() };
    let server = serve(|server| server.limits(limits).on_close(report_close(tx)));
    let mut raw = Raw::upgraded(server.address());
    raw.send(frame_with(TEXT, b""));
    let fragments = frame_with(CONTINUATION, b"").repeat(100);
    while server.ask(|ctx| ctx.stats().open) > 0 {
        raw.try_send(&fragments);
    }
    assert_eq!(raw.close_frame().0, 1008);
    assert_eq!(rx.next().1.cause, Cause::MessageTimedOut);
}

#[test]
fn a_ping_between_endless_fragments_does_not_extend_the_deadline() {
    let limits = Limits { message_time_max: Duration::from_millis(200), ..limits() };
    let server = serve(|server| server.limits(limits));
    let mut raw = Raw::upgraded(server.address());
    raw.send(frame_with(TEXT, b""));
    let mut bytes = frame_with(CONTINUATION, b"x");
    bytes.extend(frame(PING, b""));
    while server.ask(|ctx| ctx.stats().open) > 0 {
        raw.try_send(&bytes);
    }
    assert_eq!(raw.close_frame().0, 1008);
}

/// Sends pings and reads no pong. Returns the largest number of bytes that were queued.
fn flood_with_pings(server: &TestServer, raw: &mut Raw, count: u64) -> usize {
    const BATCH: u64 = 10_000;
    let mut most = 0;
    for batch in 0..count / BATCH {
        let pings = (batch * BATCH..(batch + 1) * BATCH).flat_map(|number| frame(PING, &number.to_be_bytes()));
        raw.send(pings.collect::<Vec<u8>>());
        most = most.max(server.ask(|ctx| ctx.stats().queued_bytes));
    }
    raw.send_frame(TEXT, b"done");
    server.wait_until("the server has read all pings", |ctx| ctx.stats().traffic.messages_in == 1);
    most.max(server.ask(|ctx| ctx.stats().queued_bytes))
}

#[test]
fn a_million_pings_from_a_client_that_does_not_read_take_bounded_memory() {
    const PINGS: u64 = 1_000_000;
    let server = serve(|server| server.limits(limits()));
    let mut raw = Raw::upgraded(server.address());
    let most = flood_with_pings(&server, &mut raw, PINGS);
    assert!(most <= 32 << 10, "at most 32 KiB of pongs may be queued, not {most} bytes");
    // The server may omit pongs, but the client receives the other pongs in order, and the pong of the last ping.
    let mut last = None;
    while last != Some(PINGS - 1) {
        let (first, payload) = raw.frame();
        if first == 0x89 {
            // This frame is a ping of the server's heartbeat. The server sends this ping only if the machine was busy
            // for a long time.
            continue;
        }
        let number = u64::from_be_bytes(payload.try_into().expect("the value is a number"));
        assert!(
            first == 0x8a && last.is_none_or(|last| number > last),
            "pongs must arrive in order: {number} after {last:?}"
        );
        last = Some(number);
    }
    server.wait_until("no bytes are queued", |ctx| ctx.stats().queued_bytes == 0);
}
