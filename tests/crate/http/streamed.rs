//! Tests responses in pieces: each response stream writes only into its own response.

use std::any::Any;
use std::sync::mpsc::Sender;

use crate::common::raw::GET;
use crate::common::{DEADLINE, TestReceiver, TestServer, channel, limits_with_long_times, serve};
use fdpush::{
    AbortOutcome, BodyEvent, BodyMode, Change, Context, Fd, Handler, Limits, Outcome, Request, Response,
    ResponseStream, Ticket,
};

/// Starts a server that begins the response to every request and sends the stream to the test.
fn serve_streams() -> (TestServer, TestReceiver<ResponseStream>) {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.on_request(move |ctx, fd, _| {
            let (later, ticket) = ctx.defer_response(fd);
            tx.send(ctx.begin_response(ticket, &Response::new(200)).expect("the request waits for a response"))
                .expect("the test waits");
            later
        })
    });
    (server, rx)
}

/// Writes a piece on the thread of the loop, and returns the outcome and the stream.
fn write(server: &TestServer, stream: ResponseStream, piece: &'static str) -> (Outcome, ResponseStream) {
    server.ask(move |ctx| (ctx.write_response(&stream, piece.as_bytes()), stream))
}

#[test]
fn pipelined_requests_get_one_response_each() {
    let (server, streams) = serve_streams();
    let mut raw = server.raw();
    raw.send([GET, GET].concat());
    let first = streams.next();
    let fd = first.fd();
    let (outcome, first) = write(&server, first, "one,");
    assert_eq!(outcome, Outcome::Queued);
    assert_eq!(streams.so_far().len(), 0, "the second request must wait for the end of the first response");
    let begun_twice = server.ask(move |ctx| {
        let ticket = ctx.ticket(fd);
        ctx.begin_response(ticket, &Response::new(201)).is_some()
    });
    assert!(!begun_twice, "a response that has begun must not begin again");
    let (outcome, first) = write(&server, first, "two");
    assert_eq!((outcome, server.ask(move |ctx| ctx.end_response(first))), (Outcome::Queued, Outcome::Queued));
    let reply = raw.reply_in_chunks();
    assert_eq!((reply.status, reply.body.as_str()), (200, "one,two"));

    let second = streams.next();
    assert_eq!(second.fd(), fd);
    let (_, second) = write(&server, second, "three");
    assert_eq!(server.ask(move |ctx| ctx.end_response(second)), Outcome::Queued);
    assert_eq!(raw.reply_in_chunks().body, "three");
    let begins_early = server.ask(move |ctx| {
        let ticket = ctx.ticket(fd);
        ctx.begin_response(ticket, &Response::new(200)).is_some()
    });
    assert!(!begins_early, "begin_response must fail if no request waits");
}

/// In HTTP/1.0, the end of the connection is the end of the body. So only an error of the connection shows the client
/// that the body is incomplete.
#[test]
fn the_end_of_an_aborted_http_1_0_response_is_an_error() {
    let (server, streams) = serve_streams();
    for is_whole in [true, false] {
        let mut raw = server.raw();
        raw.send("GET / HTTP/1.0\r\n\r\n");
        let stream = streams.next();
        let fd = stream.fd();
        let (_, stream) = write(&server, stream, "a part");
        let reply = raw.rest_until(|bytes| bytes.ends_with(b"a part"));
        assert!(reply.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", reply.escape_ascii());
        server.ask(move |ctx| match is_whole {
            true => assert_eq!(ctx.end_response(stream), Outcome::Queued),
            false => assert!(matches!(ctx.abort(fd), AbortOutcome::Aborted { was_open: false })),
        });
        assert_eq!(raw.ends_in_order(), is_whole);
    }
}

/// The client shuts down its write side during the response. The server ends the connection before the response is
/// complete.
#[test]
fn an_http_1_0_response_that_a_half_closed_client_loses_ends_with_an_error() {
    let (server, streams) = serve_streams();
    // The server ends the connection after a time limit. The time limits of `serve` are longer than the test.
    server.ask(|ctx| ctx.set_limits(Limits::default())).expect("the limits are valid");
    let mut raw = server.raw();
    raw.send("GET / HTTP/1.0\r\n\r\n");
    let (_, stream) = write(&server, streams.next(), "a part");
    raw.rest_until(|bytes| bytes.ends_with(b"a part"));
    raw.shutdown_write();
    let fd = stream.fd();
    server.wait_until("the connection has ended", move |ctx| !ctx.exists(fd));
    assert!(!raw.ends_in_order());
}

#[test]
fn a_stream_whose_connection_has_ended_writes_nothing() {
    let (server, streams) = serve_streams();
    let mut raw = server.raw();
    raw.send(GET);
    let stale = streams.next();
    let gone: Fd = stale.fd();
    raw.reset();
    server.wait_until("the connection has ended", move |ctx| !ctx.exists(gone));

    let mut successor = server.raw();
    successor.send(GET);
    let stream = streams.next();
    assert_eq!(stream.fd().slot(), gone.slot());
    let (outcome, stale) = write(&server, stale, "for the first client");
    assert_eq!(outcome, Outcome::Gone);
    let (_, stream) = write(&server, stream, "for the second client");
    assert_eq!(server.ask(move |ctx| ctx.end_response(stale)), Outcome::Gone);
    assert_eq!(server.ask(move |ctx| ctx.end_response(stream)), Outcome::Queued);
    assert_eq!(successor.reply_in_chunks().body, "for the second client");
}

#[test]
fn a_second_response_during_a_streamed_response_ends_the_connection() {
    let (tx, streams) = channel();
    let server = serve(move |server| {
        server.on_request(move |ctx, fd, _| {
            let ticket = ctx.ticket(fd);
            tx.send(ctx.begin_response(ticket, &Response::new(200)).expect("the request waits for a response"))
                .expect("the test waits");
            Response::text(200, "the other response")
        })
    });
    let mut raw = server.raw();
    raw.send([GET, GET].concat());
    let stale = streams.next();
    assert_eq!(write(&server, stale, "late").0, Outcome::Gone);
    let rest = String::from_utf8(raw.rest()).expect("the text is UTF-8");
    assert!(rest.starts_with("HTTP/1.1 200") && !rest.contains("late") && !rest.contains("other"), "{rest}");
    assert_eq!(streams.so_far().len(), 0, "the second request must not be served");
}

/// A handler that takes every body in pieces. At the end of a body, the handler sends the ticket of the request to the
/// test.
struct Reporting(Sender<Ticket<Response>>);

impl Handler for Reporting {
    fn on_head(&mut self, ctx: &mut Context<'_>, fd: Fd, _: &Request<'_>) -> BodyMode {
        BodyMode::stream(Some(ctx.ticket(fd)))
    }

    fn on_body(&mut self, _: &mut Context<'_>, _: Fd, state: &mut dyn Any, event: BodyEvent<'_>) {
        let ticket = state.downcast_mut::<Option<Ticket<Response>>>().expect("the state is the value of on_head");
        if event == BodyEvent::End {
            self.0.send(ticket.take().expect("the ticket was not taken before")).expect("the test waits");
        }
    }
}

#[test]
fn a_ticket_of_on_head_answers_its_own_request_only() {
    const POST: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    let (tx, tickets) = channel();
    let limits = Limits { answer_time_max: 10 * DEADLINE, ..limits_with_long_times() };
    let server = serve(move |server| server.limits(limits).handler(Reporting(tx)));
    let mut raw = server.raw();
    raw.send([POST, POST].concat());
    let first = tickets.next();
    assert_eq!(tickets.so_far().len(), 0, "the second request must wait for the first response");
    first.answer(Response::text(201, "whole")).expect("the inbox has room");
    let reply = raw.reply();
    assert_eq!((reply.status, reply.body.as_str(), reply.keeps_alive()), (201, "whole", true));

    let second = tickets.next();
    let fd = second.fd();
    assert_eq!(server.ask(move |ctx| ctx.answer(second, Response::new(204))), Change::Done);
    assert_eq!(raw.reply_head().status, 204);
    raw.send(POST);
    let third = tickets.next();
    let stale = server.ask(move |ctx| ctx.ticket(fd));
    drop(stale);
    drop(third);
    assert_eq!(raw.reply().status, 503, "the request of a dropped ticket must get 503");
    raw.end();
}
