//! Tests control listeners (for back ends and health probes), and the limit of new connections a second.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::common::raw::HttpResponse;
use crate::common::{Raw, TestServer, UNSHARED, limits_with_long_times, serve, serve_on, succeeds_with_longer_time};
use fdpush::{
    Address, BodyEvent, BodyMode, Change, Context, Fd, Handler, Limits, Request, Response, ResponseStream, Server,
    Ticket,
};

const READY: &str = "GET /ready HTTP/1.1\r\nHost: a\r\n\r\n";

/// A handler of control requests. It echoes bodies piece by piece, and answers `/ready` with 503 during a drain.
#[derive(Default)]
struct Controlled {
    unanswered: Vec<Ticket<Response>>,
}

/// The number of received bytes of a body, the ticket of its request, and the stream of the response.
type Echo = (usize, Option<Ticket<Response>>, Option<ResponseStream>);

impl Handler for Controlled {
    fn on_head(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> BodyMode {
        if request.is_control() {
            let echo: Echo = (0, Some(ctx.ticket(fd)), None);
            BodyMode::stream(echo)
        } else {
            Response::text(403, "not from there\n").into()
        }
    }

    fn on_body(&mut self, ctx: &mut Context<'_>, _: Fd, state: &mut dyn Any, event: BodyEvent<'_>) {
        let (count, ticket, stream) = state.downcast_mut::<Echo>().expect("the state is the value of on_head");
        if let Some(ticket) = ticket.take() {
            *stream = ctx.begin_response(ticket, &Response::text(200, ""));
        }
        match (event, stream.take()) {
            (BodyEvent::Data(bytes), Some(begun)) => {
                *count += bytes.len();
                ctx.write_response(&begun, bytes);
                *stream = Some(begun);
            }
            (BodyEvent::End, Some(begun)) => {
                ctx.write_response(&begun, format!("\n{count} bytes\n").as_bytes());
                ctx.end_response(begun);
            }
            (_, None) => {}
        }
    }

    fn on_request(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> Option<Response> {
        match &*request.path() {
            _ if !request.is_control() => None,
            "/later" => {
                let (later, ticket) = ctx.defer_response(fd);
                self.unanswered.push(ticket);
                Some(later)
            }
            "/keep" => match ctx.keep_control(fd) {
                Change::Done => Some(Response::new(200)),
                Change::Full => Some(Response::new(503).close()),
                other => panic!("{other}"),
            },
            "/release" => Some(Response::new(if ctx.release_control(fd).is_done() { 200 } else { 500 })),
            _ => Some(Response::new(if ctx.is_draining() { 503 } else { 200 })),
        }
    }
}

/// Requests this path on a new control connection. Returns the connection and the status.
fn request_path(control: SocketAddr, path: &str) -> (Raw, u16) {
    let mut raw = Raw::connect(control);
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let status = raw.reply().status;
    (raw, status)
}

/// Starts a server with a control listener. Returns the server and the address of the control listener.
fn server_with_control_listener(limits: Limits) -> (TestServer, SocketAddr) {
    server_with_control_listener_on("127.0.0.1:0", limits)
}

/// Works like [`server_with_control_listener`], but clients connect to this address.
fn server_with_control_listener_on(address: &str, limits: Limits) -> (TestServer, SocketAddr) {
    let server = serve_on(address, move |server: Server| {
        server
            .listen_control("127.0.0.1:0")
            .expect("the server can bind a free port")
            .limits(limits)
            .handler(Controlled::default())
    });
    let Some(Address::Tcp(control)) = server.addresses.last() else { panic!("expected two listeners") };
    let control = *control;
    (server, control)
}

#[test]
fn a_socket_that_already_listens_can_be_a_control_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the port can be bound");
    let control = listener.local_addr().expect("the socket has an address");
    let server = serve(move |server: Server| {
        server.listen_control_on(listener).expect("the server can listen").handler(Controlled::default())
    });
    assert_eq!(server.addresses.last(), Some(&Address::Tcp(control)));
    let mut operator = Raw::connect(control);
    operator.send(READY);
    assert_eq!(operator.reply().status, 200);
}

#[test]
fn a_request_reports_whether_its_listener_is_a_control_listener() {
    let (server, control) = server_with_control_listener(limits_with_long_times());
    let mut client = server.raw();
    client.send(READY);
    assert_eq!(client.reply().status, 404);
    let mut operator = Raw::connect(control);
    operator.send(READY);
    assert_eq!(operator.reply().status, 200);
}

#[test]
fn control_connections_have_their_own_limit_and_counters() {
    let limits = Limits { control_connections_max: 2, connections_max: Some(1), ..limits_with_long_times() };
    let (server, control) = server_with_control_listener(limits);
    let (mut first, status) = request_path(control, "/keep");
    assert_eq!(status, 200);
    let (second, status) = request_path(control, "/keep");
    assert_eq!(status, 200);
    let (mut third, status) = request_path(control, "/keep");
    assert_eq!(status, 503);
    third.end();
    first.send("BAD\r\n\r\n");
    assert_eq!(first.reply().status, 400);
    drop((first, third));
    server.wait_until("one control connection is left", |ctx| ctx.stats().control == 1);

    // The server closes idle connections to make room for new ones, but no connection whose request waits for a
    // response.
    let later = "GET /later HTTP/1.1\r\nHost: a\r\n\r\n";
    let bytes = server.ask(|ctx| ctx.stats().traffic.bytes_in) + 17 * later.len() as u64;
    let mut waiting: Vec<Raw> = (0..17).map(|_| Raw::connect(control)).collect();
    waiting.iter_mut().for_each(|operator| operator.send(later));
    server.wait_until("all requests are read", move |ctx| ctx.stats().traffic.bytes_in == bytes);
    let mut late = Raw::connect(control);
    let reply = late.reply();
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
    assert_eq!(code(&reply), "unavailable");
    assert!(reply.body.contains("API connection limit reached (2)"), "{reply:?}");
    late.end();

    // At the limit, the server has refused two control connections (`third` and `late`), but no client.
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!((stats.connections_max, stats.control_connections_max), (1, 2));
    assert_eq!((stats.refused, stats.control_refused, stats.control_evicted), (0, 2, 0));
    assert_eq!(stats.refused_by_status, BTreeMap::new());
    assert_eq!(stats.control_refused_by_status, BTreeMap::from([(400, 1), (503, 1)]));
    let client = server.connect("/");
    let mut other = server.raw();
    assert_eq!(other.reply().status, 503);
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!((stats.refused, stats.control_refused), (1, 2));
    assert_eq!(stats.refused_by_status, BTreeMap::from([(503, 1)]));
    drop(client);

    // After the end of a connection that counts towards the limit, a new connection is accepted.
    drop(second);
    server.wait_until("the connection has ended", |ctx| ctx.stats().control == 17);
    let mut operator = Raw::connect(control);
    operator.send(READY);
    assert_eq!(operator.reply().status, 200);
}

#[test]
fn no_websocket_is_opened_on_a_control_listener() {
    let (server, control) = server_with_control_listener(limits_with_long_times());
    let refused = crate::common::refusal(crate::common::Client::connect(control, "/", &[]));
    assert_eq!(refused.0, 404);
    assert_eq!(server.ask(|ctx| ctx.stats().opened), 0);
}

/// Returns the member `code` of a JSON error.
fn code(reply: &HttpResponse) -> &str {
    assert_eq!(reply.header("Content-Type"), Some("application/json"), "{reply:?}");
    assert_eq!(reply.header("Cache-Control"), Some("no-store"), "{reply:?}");
    let code = reply.body.strip_prefix(r#"{"error":{"code":""#).and_then(|rest| rest.split('"').next());
    code.unwrap_or_else(|| panic!("expected a refusal with an error code, got {reply:?}"))
}

#[test]
fn refusals_on_a_control_listener_are_json() {
    let server = serve(|server: Server| {
        let server = server.listen_control("127.0.0.1:0").expect("the server can bind a free port");
        server.on_request(|_, _, request| match request.path().as_ref() {
            "/panic" => panic!("on purpose: request"),
            "/fault" => Some(Response::new(99)),
            _ => None,
        })
    });
    let Some(Address::Tcp(control)) = server.addresses.last() else { panic!("expected two listeners") };
    for (path, status, code_of_it, text) in [
        ("/panic", 500, "internal_error", "internal error\n"),
        ("/fault", 500, "internal_error", "invalid response from the request handler\n"),
        ("/none", 404, "not_found", "not found\n"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut operator = Raw::connect(*control);
        operator.send(&request);
        let reply = operator.reply();
        assert_eq!((reply.status, code(&reply)), (status, code_of_it), "{path}");
        let mut client = server.raw();
        client.send(&request);
        assert_eq!(client.reply().body, text, "{path}");
    }
}

#[test]
fn a_new_control_connection_replaces_the_oldest_unprotected_one() {
    let limits = Limits { control_connections_max: 4, ..limits_with_long_times() };
    let (server, control) = server_with_control_listener(limits);
    let (mut kept, status) = request_path(control, "/keep");
    assert_eq!(status, 200);
    let (mut released, status) = request_path(control, "/keep");
    assert_eq!(status, 200);
    // The test opens idle connections of every kind: silent, within a head, within a body, and between two requests.
    let mut idle: Vec<Raw> = (0..18).map(|_| Raw::connect(control)).collect();
    server.wait_until("all connections are accepted", |ctx| ctx.stats().control == 20);
    idle[1].send("GET / HT");
    idle[2].send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx");
    idle[3].send(READY);
    assert_eq!(idle[3].reply().status, 200);
    let _newer: Vec<Raw> = (0..4).map(|_| request_path(control, "/ready").0).collect();
    idle[2].reply_head();
    for oldest in &mut idle[..4] {
        oldest.rest();
    }
    // The server has closed the oldest connections. All newer connections are still open, and so is the connection that
    // a request for `/keep` protects.
    for other in idle[4..].iter_mut().chain([&mut kept]) {
        other.send(READY);
        assert_eq!(other.reply().status, 200);
    }
    assert_eq!(server.ask(|ctx| ctx.stats().control_evicted), 4);
    released.send("GET /release HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(released.reply().status, 200);
    let _flood: Vec<Raw> = (0..100).map(|_| Raw::connect(control)).collect();
    released.end();
    kept.send(READY);
    assert_eq!(kept.reply().status, 200);
}

#[test]
fn a_full_server_answers_control_requests() {
    let (server, control) =
        server_with_control_listener(Limits { connections_max: Some(1), ..limits_with_long_times() });
    let client = server.connect("/");
    assert_eq!(server.refusal("/", &[]).0, 503);
    let mut operator = Raw::connect(control);
    operator.send(READY);
    assert_eq!(operator.reply().status, 200);
    drop(client);
}

#[test]
fn a_draining_server_answers_control_requests_until_its_last_client_left() {
    let limits = Limits {
        drain_time_max: Duration::from_secs(60),
        close_wait_max: Duration::from_secs(60),
        ..limits_with_long_times()
    };
    let (mut server, control) = server_with_control_listener_on(UNSHARED, limits);
    let address = server.address();
    let stays = Raw::upgraded(address);
    let mut operator = Raw::connect(control);
    operator.send(READY);
    assert_eq!(operator.reply().status, 200);
    server.remote.shutdown().expect("the inbox has room");
    server.wait_until("the server drains", |ctx| ctx.is_draining());
    operator.send(READY);
    assert_eq!(operator.reply().status, 503);
    let mut another = Raw::connect(control);
    another.send(READY);
    assert_eq!(another.reply().status, 503);
    assert!(TcpStream::connect(address).is_err(), "the listener must accept no more clients");
    drop(stays);
    assert!(server.wait_for_end().is_ok());
    operator.end();
}

#[test]
fn a_large_streamed_body_needs_bounded_memory() {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: usize = 320;
    let (server, control) = server_with_control_listener(Limits { body_bytes_max: 1000, ..limits_with_long_times() });
    let mut operator = Raw::connect(control);
    let length = CHUNK * CHUNKS;
    operator.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"));
    let mut sender = operator.another();
    let sending = std::thread::spawn(move || (0..CHUNKS).for_each(|_| sender.send([b'x'; CHUNK])));
    assert_eq!(operator.reply_head().status, 200);
    let most = server.ask(|ctx| ctx.stats().queued_bytes);
    assert!(most < 4 << 20, "at most 4 MiB may be queued, not {most} bytes");
    let body = operator.rest();
    sending.join().expect("the sending thread ends without a panic");
    assert_eq!(body.iter().filter(|byte| **byte == b'x').count(), length);
    let end = format!("\n{length} bytes\n");
    assert!(body.ends_with(format!("{:x}\r\n{end}\r\n0\r\n\r\n", end.len()).as_bytes()));
}

#[test]
fn a_request_can_be_refused_before_its_body_arrives() {
    let (server, _) = server_with_control_listener(limits_with_long_times());
    let mut client = server.raw();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.status, reply.keeps_alive()), (403, false));
}

#[test]
fn connections_over_the_accept_rate_get_503() {
    let (server, control) =
        server_with_control_listener(Limits { accepts_per_second_max: Some(2), ..limits_with_long_times() });
    let (first, second) = (server.connect("/"), server.connect("/"));
    // The loop is blocked until all these clients have connected, so it accepts them in one turn.
    let (_held, release) = server.hold();
    let mut clients: Vec<Raw> = (0..10).map(|_| Raw::connect(server.address())).collect();
    release.send(()).expect("the loop waits");
    server.wait_until("each client is accepted or refused", |ctx| ctx.stats().accepted + ctx.stats().refused == 12);
    clients.iter_mut().for_each(|client| _ = client.try_send(READY));
    let replies: Vec<HttpResponse> = clients.iter_mut().map(Raw::reply).collect();
    let refused: Vec<&HttpResponse> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert!(!refused.is_empty(), "some clients must be refused: {replies:?}");
    assert!(refused.iter().all(|reply| reply.body == "accept rate limit reached\n"), "{refused:?}");
    drop((first, second));
    let mut operator = Raw::connect(control);
    operator.send(READY);
    assert_eq!(operator.reply().status, 200, "the accept rate must not limit control connections");
}

/// A handler that pauses a request at the first piece of its body, for longer than `body_time_max`. The handler sends
/// each event to the test.
struct Pausing {
    paused: Option<Fd>,
    tx: std::sync::mpsc::Sender<&'static str>,
}

impl Handler for Pausing {
    fn on_head(&mut self, ctx: &mut Context<'_>, fd: Fd, _: &Request<'_>) -> BodyMode {
        BodyMode::stream(Some(ctx.ticket(fd)))
    }

    fn on_body(&mut self, ctx: &mut Context<'_>, fd: Fd, state: &mut dyn Any, event: BodyEvent<'_>) {
        match event {
            BodyEvent::Data(_) if self.paused.is_none() => {
                self.tx.send("first piece").expect("the receiver is open");
                assert!(ctx.pause(fd).is_done());
                self.paused = Some(fd);
                ctx.set_timer(2 * ctx.limits().body_time_max);
            }
            BodyEvent::Data(_) => self.tx.send("next piece").expect("the receiver is open"),
            BodyEvent::End => {
                assert!(!ctx.pause(fd).is_done(), "a body that has ended must not be paused");
                let ticket = state
                    .downcast_mut::<Option<Ticket<Response>>>()
                    .and_then(Option::take)
                    .expect("the request has a ticket");
                let response =
                    ctx.begin_response(ticket, &Response::text(200, "")).expect("the request waits for a response");
                ctx.write_response(&response, b"all of it\n");
                ctx.end_response(response);
            }
        }
    }

    fn on_timer(&mut self, ctx: &mut Context<'_>, _: fdpush::TimerId) {
        self.tx.send("resumed").expect("the receiver is open");
        assert!(ctx.resume(self.paused.expect("the request was paused")).is_done());
    }
}

/// Returns whether a request is complete although its body was paused for longer than `body_time_max`.
fn completes_a_paused_body(body_time_max: Duration) -> bool {
    let (tx, rx) = crate::common::channel();
    let limits = Limits { body_time_max, ..limits_with_long_times() };
    let server = serve(move |server| server.limits(limits).handler(Pausing { paused: None, tx }));
    let mut raw = server.raw();
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    assert_eq!(rx.next(), "first piece");
    // The server closes the connection after the second response. If these bytes arrive after `body_time_max`, the
    // server closes the connection earlier.
    let is_sent = raw.try_send("cdPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\ne");
    assert_eq!(rx.next(), "resumed");
    let replies = String::from_utf8(raw.try_rest()).expect("the responses are UTF-8");
    let is_complete = ["HTTP/1.1 200 ", "all of it\n"].iter().all(|text| replies.matches(text).count() == 2);
    assert!(is_complete || replies.starts_with("HTTP/1.1 408 "), "{replies}");
    is_sent && is_complete && rx.so_far() == ["next piece", "next piece"]
}

#[test]
fn a_paused_body_has_no_time_limit() {
    assert!(succeeds_with_longer_time(completes_a_paused_body));
}
