//! Tests deferred responses to plain HTTP requests: tickets, the time limit of an answer, and lost clients. A ticket
//! answers one request.

use std::time::Duration;

use crate::common::raw::GET;
use crate::common::{DEADLINE, Raw, TestReceiver, TestServer, channel, limits_with_long_times, serve};
use fdpush::{Limits, Response, Ticket};

/// Starts a server that defers every request and sends each ticket to the test.
fn serve_deferring(limits: Limits) -> (TestServer, TestReceiver<(Ticket<Response>, String)>) {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.limits(limits).on_request(move |ctx, fd, request| {
            let (later, ticket) = ctx.defer_response(fd);
            tx.send((ticket, request.target().to_owned())).expect("the test waits");
            later
        })
    });
    (server, rx)
}

#[test]
fn a_request_can_be_answered_later_from_another_thread() {
    let (server, waiting) = serve_deferring(limits_with_long_times());
    let mut raw = server.raw();
    // After the first response, the loop reads the second request without a new socket event.
    raw.send("GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (ticket, target) = waiting.next();
    assert_eq!((target.as_str(), waiting.so_far().len()), ("/1", 0));
    let fd = ticket.fd();
    ticket.answer(Response::json(201, "[1]").header("X-Late", "yes")).expect("the inbox has room");
    let reply = raw.reply();
    assert_eq!((reply.status, reply.body.as_str(), reply.header("X-Late")), (201, "[1]", Some("yes")));
    assert!(reply.keeps_alive());
    let (ticket, target) = waiting.next();
    assert_eq!((ticket.fd(), target.as_str()), (fd, "/2"));
    ticket.answer(Response::text(200, "no body for HEAD")).expect("the inbox has room");
    assert_eq!(raw.reply_head().header("Content-Length"), Some("16"));
    raw.send("GET /3 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (ticket, _) = waiting.next();
    server.ask(move |ctx| ctx.answer(ticket, Response::text(200, "third").close()));
    assert_eq!(raw.reply().body, "third");
    raw.end();
}

/// Returns a server, a client whose second request waits for its answer, the ticket of its first request, and the
/// ticket of its second request.
fn stale_and_waiting() -> (TestServer, Raw, Ticket<Response>, Ticket<Response>) {
    let (tx, tickets) = channel();
    let server = serve(move |server| {
        server.on_request(move |ctx, fd, request| {
            let (later, ticket) = ctx.defer_response(fd);
            tx.send(ticket).expect("the test waits");
            if request.target() == "/immediate" { Response::text(200, "immediately") } else { later }
        })
    });
    let mut raw = server.raw();
    raw.send("GET /immediate HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(raw.reply().body, "immediately");
    let stale = tickets.next();
    raw.send("GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let ticket = tickets.next();
    assert_eq!(stale.fd(), ticket.fd());
    (server, raw, stale, ticket)
}

#[test]
fn a_ticket_is_pending_until_its_request_is_answered_or_its_client_is_gone() {
    let (server, raw, stale, ticket) = stale_and_waiting();
    let fd = ticket.fd();
    let ticket = server.ask(move |ctx| {
        assert!(!ctx.is_pending(&stale) && ctx.is_pending(&ticket));
        ticket
    });
    raw.reset();
    server.wait_until("the connection has ended", move |ctx| !ctx.exists(fd));
    assert!(!server.ask(move |ctx| ctx.is_pending(&ticket)));
}

#[test]
fn a_ticket_answers_no_other_request_on_its_connection() {
    let (_server, mut raw, stale, ticket) = stale_and_waiting();
    stale.answer(Response::text(200, "to the first")).expect("the inbox has room");
    ticket.answer(Response::text(200, "to the second")).expect("the inbox has room");
    assert_eq!(raw.reply().body, "to the second");
}

#[test]
fn a_ticket_begins_no_response_to_another_request() {
    let (server, mut raw, stale, ticket) = stale_and_waiting();
    let begun = server.ask(move |ctx| {
        // If the test takes a second ticket for the waiting request, the ticket that the handler took stays valid.
        let late = ctx.ticket(ticket.fd());
        let begun = [stale, late, ticket].map(|ticket| ctx.begin_response(ticket, &Response::new(200)));
        let begins = begun.each_ref().map(Option::is_some);
        begun.into_iter().flatten().for_each(|stream| _ = ctx.end_response(stream));
        begins
    });
    assert_eq!(begun, [false, false, true]);
    assert_eq!(raw.reply_in_chunks().status, 200);
}

#[test]
fn an_answer_can_defer_the_request_again() {
    let (server, waiting) = serve_deferring(limits_with_long_times());
    let mut raw = server.raw();
    raw.send(GET);
    let (ticket, _) = waiting.next();
    let ticket = server.ask(move |ctx| {
        let (later, next) = ctx.defer_response(ticket.fd());
        ctx.answer(ticket, later);
        next
    });
    ticket.answer(Response::text(200, "in the end")).expect("the inbox has room");
    assert_eq!(raw.reply().body, "in the end");
}

#[test]
fn an_unanswered_request_gets_503_after_answer_time_max() {
    let (server, waiting) =
        serve_deferring(Limits { answer_time_max: Duration::from_millis(50), ..limits_with_long_times() });
    let mut raw = server.raw();
    raw.send(GET);
    let (ticket, _) = waiting.next();
    let fd = ticket.fd();
    assert_eq!(raw.reply().status, 503);
    raw.end();
    drop(raw);
    ticket.answer(Response::text(200, "too late")).expect("the inbox has room");
    server.wait_until("the connection has ended", move |ctx| !ctx.exists(fd));
}

#[test]
fn a_dropped_ticket_answers_its_own_request_with_503() {
    let (server, waiting) = serve_deferring(Limits { answer_time_max: 10 * DEADLINE, ..limits_with_long_times() });
    let mut raw = server.raw();
    // The thread that has the ticket panics, which drops the ticket.
    raw.send(GET);
    let (ticket, _) = waiting.next();
    let thread = std::thread::spawn(move || {
        let _ticket = ticket;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(thread.join().is_err());
    let reply = raw.reply();
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
    raw.end();

    // The handler defers the response to this request twice, and so gets two tickets. The test answers with the first
    // ticket. When the second ticket is dropped, the server does not refuse the request.
    let mut raw = server.raw();
    raw.send(GET);
    let (ticket, _) = waiting.next();
    let (stale, ticket) = server.ask(move |ctx| {
        let (later, next) = ctx.defer_response(ticket.fd());
        let (_, unused) = ctx.defer_response(ticket.fd());
        ctx.answer(ticket, later);
        (unused, next)
    });
    drop(stale);
    ticket.answer(Response::text(200, "answered")).expect("the inbox has room");
    assert_eq!(raw.reply().body, "answered");
}

#[test]
fn a_late_response_reaches_a_half_closed_client_and_is_dropped_for_a_lost_one() {
    let (server, waiting) = serve_deferring(limits_with_long_times());
    let mut half = server.raw();
    half.send(GET);
    half.shutdown_write();
    let (ticket, _) = waiting.next();
    let gone = {
        let mut raw = server.raw();
        raw.send(GET);
        waiting.next().0
    };
    for ticket in [gone, ticket] {
        ticket.answer(Response::text(200, "late\n")).expect("the inbox has room");
    }
    let reply = half.reply();
    assert_eq!(reply.body, "late\n");
    assert!(!reply.keeps_alive());
    half.end();
    server.wait_until("both connections have ended", |ctx| ctx.stats().connections == 0);
}

#[test]
fn a_drain_answers_waiting_requests_with_503() {
    let (server, waiting) = serve_deferring(limits_with_long_times());
    let mut raw = server.raw();
    raw.send(GET);
    let _ = waiting.next();
    server.remote.shutdown().expect("the inbox has room");
    assert_eq!(raw.reply().status, 503);
    raw.end();
}

#[test]
fn an_on_request_closure_can_answer_some_requests_and_defer_others() {
    let server = serve(|server| {
        server.on_request(|_, _, request| (request.path() == "/here").then(|| Response::text(200, "here\n")))
    });
    let mut raw = server.raw();
    for (path, status) in [("/here", 200), ("/there", 404)] {
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(raw.reply().status, status, "{path}");
    }
}
