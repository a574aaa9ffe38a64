//! Tests of messages that the handler borrows from the input.

use super::*;
use crate::protocol::message::Message;

/// Passes `bytes` to the connection, which takes at most one message from the start of `bytes`.
///
/// Returns a description of the message, or of the end of the connection, and the number of unread bytes.
fn taken(rig: &mut Rig, bytes: &[u8]) -> (String, usize) {
    let mut copy = bytes.to_vec();
    let whole = copy.as_ptr_range();
    let mut input = &mut copy[..];
    let events = match rig.connection.handle_message(&mut input, &mut rig.env) {
        Ok(Some(message)) => {
            let lent = message.as_bytes().as_ptr_range();
            assert!(whole.start <= lent.start && lent.end <= whole.end, "the payload must be inside the read buffer");
            match message {
                Message::Text(text) => format!("text {text}"),
                Message::Binary(bytes) => format!("binary {bytes:?}"),
            }
        }
        Ok(None) => "nothing".to_owned(),
        Err(end) => describe(&end),
    };
    let left = input.len();
    assert!(events != "nothing" || copy == bytes, "input without an event must not change: {bytes:?}, now {copy:?}");
    (events, left)
}

#[test]
fn a_whole_message_is_borrowed_from_the_input() {
    let mut rig = Rig::open(Limits::default());
    for (opcode, first) in [(Opcode::Text, "text first"), (Opcode::Binary, "binary [102, 105, 114, 115, 116]")] {
        let two = [frame(true, opcode, b"first"), frame(true, opcode, b"2nd")].concat();
        assert_eq!(taken(&mut rig, &two), (first.to_owned(), 9));
        for cut in 0..11 {
            assert_eq!(taken(&mut rig, &two[..cut]), ("nothing".to_owned(), cut));
        }
    }
    assert_eq!(rig.connection.traffic().messages_in, 2);
}

#[test]
fn input_other_than_a_whole_message_is_left_for_the_decoder() {
    let mut rig = Rig::open(Limits { message_bytes_max: 8, ..Limits::default() });
    let nothing = |bytes: &[u8]| ("nothing".to_owned(), bytes.len());
    for opcode in [Opcode::Text, Opcode::Binary] {
        let (part, large) = (frame(false, opcode, b"part"), frame(true, opcode, b"too large"));
        for other in [part, large, frame(true, Opcode::Ping, b"ping"), b"\xf1\x80\0\0\0\0".to_vec()] {
            assert_eq!(taken(&mut rig, &other), nothing(&other));
        }
    }
    // Inside a fragmented message, a frame that looks like a whole message must go to the decoder.
    rig.feed(&frame(false, Opcode::Text, b"begun"));
    let text = frame(true, Opcode::Text, b"text");
    assert_eq!(taken(&mut rig, &text), nothing(&text));
    assert_eq!(rig.feed(&text), ["closed 1002 \"new message inside a fragmented message\" (protocol_error) by Server"]);
    assert_eq!(taken(&mut rig, &text), nothing(&text), "input after the end must be ignored");
    assert_eq!(rig.connection.traffic().messages_in, 0);
}

#[test]
fn an_invalid_message_ends_the_connection() {
    let unmasked = b"\x81\x01\0".to_vec();
    let events = [(unmasked, "1002 \"client frame is not masked\""), (frame(true, Opcode::Text, b"\xff"), "1007 \"")];
    for (bytes, why) in events {
        let mut rig = Rig::open(Limits::default());
        let (end, _) = taken(&mut rig, &bytes);
        assert!(end.starts_with(&format!("closed {why}")), "{end}");
        assert_eq!(rig.connection.state(), State::Closing);
        assert_eq!(taken(&mut rig, &frame(true, Opcode::Text, b"text")).0, "nothing");
        assert_eq!(rig.connection.traffic().messages_in, 0);
    }
}

/// Passes one read to a connection, and returns the bodies that the handler gets.
fn bodies(rig: &mut Rig, read: &str) -> Vec<(String, bool)> {
    let mut copy = read.as_bytes().to_vec();
    let whole = copy.as_ptr_range();
    let mut input = &mut copy[..];
    let mut bodies = Vec::new();
    let mut add = |body: &[u8]| {
        bodies.push((String::from_utf8_lossy(body).into_owned(), whole.contains(&body.as_ptr())));
    };
    while let Some(event) = rig.connection.handle_bytes(&mut input, &mut rig.env) {
        match event {
            Event::Head(request) => {
                let mode = if request.path() == "/pieces" { BodyMode::stream(()) } else { BodyMode::Collect };
                rig.connection.receive_body(request, mode, &mut rig.env);
            }
            Event::Request { request, .. } => {
                add(request.body());
                rig.connection.respond(Response::new(200), &mut rig.env);
            }
            Event::Piece { bytes, is_last, state } => {
                add(&bytes);
                match is_last {
                    true => rig.connection.respond(Response::new(200), &mut rig.env),
                    false => rig.connection.return_state(state),
                }
            }
            event => panic!("{event:?}"),
        }
        rig.connection.check_invariants();
    }
    assert!(input.is_empty() && rig.env.inbound.bytes() == rig.connection.inbound_bytes());
    bodies
}

#[test]
fn a_body_in_one_piece_is_borrowed_from_the_input() {
    const SIZED: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    const CHUNKED: &str = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    const PIECES: &str = "POST /pieces HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let lent = |body: &str| (body.to_owned(), true);
    let copied = |body: &str| (body.to_owned(), false);
    let both = format!("{SIZED}first{CHUNKED}6\r\nsecond\r\n0\r\n\r\n{PIECES}third");
    let mut rig = Rig::new(Limits::default());
    assert_eq!(
        bodies(&mut rig, &both),
        [lent("first"), lent("second"), lent("third")],
        "each body in one read must be borrowed"
    );
    assert_eq!(bodies(&mut rig, SIZED), []);
    assert_eq!(bodies(&mut rig, "fifth"), [lent("fifth")], "a body that arrives after its head must be borrowed");
    for cut in 1..SIZED.len() {
        assert_eq!(bodies(&mut rig, &SIZED[..cut]), []);
        assert_eq!(
            bodies(&mut rig, &format!("{}sixth", &SIZED[cut..])),
            [lent("sixth")],
            "the body must be borrowed if the head is cut at {cut}"
        );
    }
    assert_eq!(bodies(&mut rig, &format!("{SIZED}sev")), []);
    assert_eq!(bodies(&mut rig, "en"), [copied("seven")], "a body that arrives in two reads must be copied");
    let chunks = format!("{CHUNKED}2\r\nei\r\n3\r\nght\r\n0\r\n\r\n");
    assert_eq!(bodies(&mut rig, &chunks), [copied("eight")], "a body of two chunks must be copied");
    assert_eq!(bodies(&mut rig, &format!("{PIECES}ni")), [lent("ni")]);
    assert_eq!(bodies(&mut rig, "nth"), [lent("nth")]);
}

#[test]
fn a_read_with_a_whole_request_is_not_buffered() {
    let mut rig = Rig::new(Limits::default());
    let request = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let read = &mut request.as_bytes().to_vec()[..];
    let mut input = read;
    let Some(Event::Head(head)) = rig.connection.handle_bytes(&mut input, &mut rig.env) else {
        panic!("the event must be a head")
    };
    assert_eq!((&*input, rig.connection.has_buffered_input(&rig.env)), (&b"hello"[..], false));
    rig.connection.receive_body(head, BodyMode::Collect, &mut rig.env);
    let Some(Event::Request { request, .. }) = rig.connection.handle_bytes(&mut input, &mut rig.env) else {
        panic!("the event must be a request");
    };
    assert_eq!((request.body(), rig.connection.inbound_bytes()), (&b"hello"[..], 0));
}
