//! Tests of request bodies and responses in pieces.

use super::*;
use crate::fd::Slot;
use crate::protocol::deferral::Deferral;
use crate::protocol::request::Request;

const HEAD: &str = "POST /batch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

fn rig() -> Rig {
    let mut rig = Rig::new(Limits { body_bytes_max: 4, ..Limits::default() });
    rig.mode = Some(BodyMode::stream("state"));
    rig
}

impl Rig {
    /// Passes the head of a request that announces a body to the connection, and returns the request.
    fn announced(&mut self, head: &str) -> Box<Request<'static>> {
        let mut bytes = head.as_bytes().to_vec();
        match self.connection.handle_bytes(&mut &mut bytes[..], &mut self.env) {
            Some(Event::Head(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    fn begin(&mut self) -> bool {
        self.connection.begin_response(&Response::text(200, ""), &mut self.env)
    }

    fn reply(&mut self, piece: &[u8]) -> bool {
        self.connection.write_response(piece, &mut self.env) == Sent::Queued
    }

    fn end(&mut self) -> bool {
        self.connection.end_response(&mut self.env)
    }

    /// Writes all output, and returns the output without the head of the response.
    fn body(&mut self) -> String {
        let written = String::from_utf8(self.written()).expect("the output is UTF-8");
        written.split_once("\r\n\r\n").map_or(written.clone(), |(_, body)| body.to_owned())
    }
}

#[test]
fn a_streamed_body_has_no_size_bound() {
    let mut rig = rig();
    assert_eq!(rig.feed(HEAD.as_bytes()), ["head /batch"]);
    assert_eq!(rig.feed(b"6\r\nabc"), ["piece 3 false"]);
    assert!(rig.begin());
    assert!(!rig.begin(), "a request must have only one response");
    assert_eq!(rig.feed(b"def\r\n2\r\ngh"), ["piece 5 false"]);
    assert!(rig.reply(b"one\n"));
    assert!(rig.written().ends_with(b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n4\r\none\n\r\n"));
    assert_eq!(rig.feed(b"\r\n0\r\n"), [""; 0]);
    assert_eq!(rig.feed(format!("\r\n{NEXT}").as_bytes()), ["piece 0 true"]);
    assert_eq!(rig.pieces, b"abcdefgh");
    assert!(rig.reply(b"") && rig.end());
    assert_eq!(rig.written(), b"0\r\n\r\n");
    assert_eq!(rig.feed(b""), ["GET /next"], "the connection must serve the next request");
    assert!(!rig.end(), "a complete response must not be ended again");
}

#[test]
fn a_body_with_content_length_ends_with_its_last_byte() {
    let mut rig = rig();
    let events = rig.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n1234");
    assert_eq!(events, ["head /", "piece 4 false"]);
    assert_eq!(rig.feed(b"567"), ["piece 3 true"]);
    assert!(rig.begin() && rig.reply(b"x") && rig.end());
    assert_eq!(rig.body(), "1\r\nx\r\n0\r\n\r\n");
}

#[test]
fn a_100_continue_is_sent_only_if_the_body_is_accepted() {
    let expecting = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let mut wanted = rig();
    wanted.feed(expecting.as_bytes());
    assert_eq!(wanted.written(), b"HTTP/1.1 100 Continue\r\n\r\n");

    let mut unwanted = rig();
    unwanted.mode = Some(Response::text(401, "no key\n").into());
    assert_eq!(unwanted.feed(expecting.as_bytes()), ["head /"]);
    let written = unwanted.written();
    assert!(written.starts_with(b"HTTP/1.1 401 ") && written.ends_with(b"Connection: close\r\n\r\nno key\n"));
    assert_eq!(unwanted.feed(NEXT.as_bytes()), [""; 0], "requests after the refused request must be ignored");
}

#[test]
fn the_connection_ends_if_the_response_ends_before_the_request_body() {
    let mut rig = rig();
    rig.feed(HEAD.as_bytes());
    rig.feed(b"3\r\nabc");
    assert!(rig.begin() && rig.reply(b"enough") && rig.end());
    assert_eq!(rig.body(), "6\r\nenough\r\n0\r\n\r\n");
    assert_eq!(rig.feed(b"\r\n3\r\nabc"), [""; 0]);
    assert_eq!(rig.connection.state(), State::Closing);
}

#[test]
fn an_invalid_body_aborts_a_started_response() {
    let mut rig = rig();
    rig.feed(HEAD.as_bytes());
    assert!(rig.begin() && rig.reply(b"one"));
    assert_eq!(rig.feed(b"no size\r\n").len(), 1, "the error must be reported");
    assert_eq!(rig.body(), "3\r\none\r\n", "the last chunk must not be sent");
    assert_eq!(rig.connection.state(), State::Closing);

    let mut unanswered = self::rig();
    unanswered.feed(HEAD.as_bytes());
    unanswered.feed(b"no size\r\n");
    assert!(
        unanswered.written().starts_with(b"HTTP/1.1 400 "),
        "the error must be answered with 400, because no response has begun"
    );
}

#[test]
fn a_response_to_http_1_0_has_no_chunks_and_a_response_to_head_has_no_body() {
    let mut old = rig();
    old.feed(b"POST / HTTP/1.0\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx");
    assert!(old.begin() && old.reply(b"one") && old.reply(b"two") && old.end());
    let written = String::from_utf8(old.written()).expect("the output is UTF-8");
    assert!(written.contains("Connection: close\r\n") && !written.contains("Transfer-Encoding"), "{written}");
    assert!(written.ends_with("\r\n\r\nonetwo"));
    assert_eq!(old.connection.state(), State::Closing);

    let mut head = rig();
    head.feed(b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert!(head.begin() && head.reply(b"one") && head.end());
    assert_eq!(head.body(), "");
    assert_eq!(head.feed(NEXT.as_bytes()), ["GET /next"]);
}

#[test]
fn unread_responses_stop_the_reading_of_the_body() {
    let mut rig = rig();
    rig.feed(HEAD.as_bytes());
    rig.begin();
    rig.feed(b"3\r\nabc\r\n");
    assert!(rig.connection.wants_read());
    rig.reply(&vec![b'x'; HTTP_OUTPUT_MAX]);
    assert!(!rig.connection.wants_read());
    assert_eq!(rig.feed(b"3\r\ndef\r\n"), [""; 0], "buffered input must not be read");
    rig.written();
    assert!(rig.connection.wants_read());
    assert_eq!(rig.feed(b""), ["piece 3 false"]);
}

#[test]
fn each_piece_of_a_body_extends_the_deadline() {
    let mut rig = rig();
    rig.feed(HEAD.as_bytes());
    let time_max = rig.env.limits.body_time_max;
    for _ in 0..3 {
        rig.env.now = rig.env.now.after(time_max - Duration::from_secs(1));
        assert!(rig.connection.handle_tick(&mut rig.env).is_none());
        assert_eq!(rig.feed(b"1\r\nx\r\n"), ["piece 1 false"]);
    }
    rig.env.now = rig.env.now.after(time_max);
    assert!(matches!(rig.connection.handle_tick(&mut rig.env), Some(Event::Refused(_))));
    assert!(rig.written().starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn a_started_response_is_aborted_without_a_second_head() {
    let expecting = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    let too_long = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    // Each case has the head, the input after the head, and whether the client is late.
    for (head, rest, is_late) in [(expecting, "no size\r\n", false), (HEAD, "5\r\n", true), (too_long, "", false)] {
        let mut rig = rig();
        let request = rig.announced(head);
        assert!(rig.begin() && rig.reply(b"one"));
        rig.connection.receive_body(request, BodyMode::Collect, &mut rig.env);
        if is_late {
            rig.tick(rig.env.limits.body_time_max.as_millis() as u64);
        }
        let events = rig.feed(rest.as_bytes());
        assert!(events.is_empty() || events == ["refused 400"], "{events:?}");
        assert_eq!(rig.body(), "3\r\none\r\n", "{head}");
        assert_eq!(rig.connection.state(), State::Closing);
    }
}

#[test]
fn a_response_in_pieces_refuses_an_upgrade() {
    let mut rig = rig();
    rig.feed(UPGRADE.as_bytes());
    assert!(rig.begin());
    let Some(Deferred::Upgrade(request)) = rig.connection.take_deferred() else {
        panic!("the upgrade must be deferred")
    };
    let early = rig.connection.accept(Fd::new(Slot(0), 0), &Upgrade::accept(), &request, &mut rig.env);
    assert_eq!(early, Ok(None), "an answered upgrade must not be accepted");
    assert!(rig.reply(b"no") && rig.end());
    assert!(rig.written().ends_with(b"Connection: close\r\n\r\n2\r\nno\r\n0\r\n\r\n"));
    assert_eq!(rig.feed(NEXT.as_bytes()), [""; 0], "requests after the refused request must be ignored");
}

#[test]
fn a_drain_aborts_the_response_to_an_incomplete_request() {
    let mut rig = rig();
    let request = rig.announced(HEAD);
    assert!(rig.begin() && rig.reply(b"one"));
    rig.connection.receive_body(request, BodyMode::Collect, &mut rig.env);
    assert!(rig.connection.drain(&mut rig.env).is_some());
    assert_eq!(rig.body(), "3\r\none\r\n");
    assert_eq!(rig.connection.state(), State::Closing);
}

#[test]
fn a_response_whose_status_allows_no_body_has_no_chunks() {
    for (status, length) in [(204, ""), (304, ""), (205, "Content-Length: 0\r\n")] {
        let mut rig = rig();
        rig.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        assert!(rig.connection.begin_response(&Response::new(status), &mut rig.env));
        assert!(rig.reply(b"not sent") && rig.end());
        let written = String::from_utf8(rig.written()).expect("the output is UTF-8");
        assert!(written.ends_with(&format!("{length}Connection: keep-alive\r\n\r\n")), "{written}");
        assert!(!written.contains("chunked"), "{written}");
    }
}

#[test]
fn a_ticket_is_valid_for_one_request_until_its_response_begins() {
    let ticket = |number| Deferral(number);
    let mut rig = Rig::new(Limits::default());
    rig.connection.set_ticket(ticket(1));
    assert!(!rig.connection.has_ticket(ticket(1)), "without a request, the connection must keep no ticket");
    let request = rig.announced(HEAD);
    rig.connection.set_ticket(ticket(2));
    rig.connection.receive_body(request, BodyMode::stream(()), &mut rig.env);
    assert!(rig.connection.has_ticket(ticket(2)) && !rig.connection.has_ticket(ticket(1)));
    rig.connection.set_ticket(ticket(3));
    assert!(
        rig.connection.has_ticket(ticket(3)) && !rig.connection.has_ticket(ticket(2)),
        "the last ticket must replace earlier tickets"
    );
    assert!(rig.begin());
    rig.connection.set_ticket(ticket(4));
    assert!(
        (1..=4).all(|number| !rig.connection.has_ticket(ticket(number))),
        "a request whose response has begun must have no ticket"
    );
    rig.feed(b"0\r\n\r\n");
    assert!(rig.end());

    let mut next = NEXT.as_bytes().to_vec();
    let event = rig.connection.handle_bytes(&mut &mut next[..], &mut rig.env);
    assert!(matches!(event, Some(Event::Request { .. })));
    rig.connection.set_ticket(ticket(5));
    rig.connection.defer(Deferred::Plain);
    rig.connection.set_ticket(ticket(6));
    assert!(rig.connection.has_ticket(ticket(5)), "a deferred request must keep its ticket");
    rig.connection.respond(Response::new(204), &mut rig.env);
    assert!(!rig.connection.has_ticket(ticket(5)), "an answered request must have no ticket");
}
