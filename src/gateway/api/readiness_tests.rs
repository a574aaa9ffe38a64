//! Tests of `/readyz` and `/healthz` over a socket, while a supervised thread is down.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use fdpush::{Handler, Remote, Server};

use super::*;
use crate::gateway::hooks::emitter::EventEmitter;
use crate::gateway::push::publish::Publisher;
use crate::gateway::runtime::threads;

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The name of the thread that fails in the test.
///
/// `/readyz` names only the first failed thread in alphabetical order. Other tests of this process also have failed
/// threads, so `NAME` must come before the names of those threads.
const NAME: &str = "a-test-thread";

/// A handler that only answers requests to the HTTP API.
struct ProbeHandler {
    api: Api,
    roster: Roster,
    publisher: Publisher,
    metrics: Metrics,
}

impl Handler for ProbeHandler {
    fn on_request(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> Option<Response> {
        let ProbeHandler { api, roster, publisher, metrics } = self;
        let mut parts = ApiParts { roster, publisher, metrics };
        Some(api.respond(ctx, fd, request, &mut parts, || Box::new(|_, _| String::new())))
    }
}

fn serve() -> (SocketAddr, Remote) {
    let (started, place) = channel();
    thread::spawn(move || {
        let server = Server::bind("127.0.0.1:0").expect("the port can be bound").catch_signals(false);
        started
            .send((server.local_addr().expect("the socket has an address"), server.remote()))
            .expect("the receiver is open");
        let api = Api::new(Arc::new(Mutex::new(ApiKeys::default())), None);
        let roster = Roster::new(EventEmitter::new(None, Duration::ZERO));
        let probed = ProbeHandler { api, roster, publisher: Publisher::default(), metrics: Metrics::new() };
        server.handler(probed).run().expect("the run starts");
    });
    place.recv_timeout(TEST_TIMEOUT).expect("the server has started")
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("the read timeout can be set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("the request can be written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    answer
}

#[test]
fn a_thread_that_is_down_makes_the_server_not_ready_until_it_runs_again() {
    let (address, remote) = serve();
    let is_down = |answer: &str| answer.ends_with(&format!("thread {NAME} is down\n"));
    assert!(!is_down(&get(address, "/readyz")));

    let (orders, received) = channel::<()>();
    let thread = threads::spawn(NAME, move || match received.try_recv() {
        Err(std::sync::mpsc::TryRecvError::Empty) => Err(io::Error::other("error of the test")),
        _ => Ok(()),
    });
    let thread = thread.expect("the thread can start");
    let deadline = clock::now() + TEST_TIMEOUT;
    let answer = loop {
        let answer = get(address, "/readyz");
        if is_down(&answer) {
            break answer;
        }
        assert!(clock::now() < deadline, "{answer}");
    };
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        get(address, "/healthz").starts_with("HTTP/1.1 200 "),
        "the status of /healthz must stay 200, because a restart of the process would not help"
    );

    orders.send(()).expect("the thread waits for orders");
    thread.thread().unpark();
    thread.join().expect("the thread ends without a panic");
    assert!(!is_down(&get(address, "/readyz")));
    remote.shutdown().expect("the server is running");
}
