//! `/readyz` and `/metrics` over a socket, while a supervised thread is down.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use fdpush::{Handler, Remote, Server};

use super::*;
use crate::gateway::hooks::emitter::EventEmitter;
use crate::gateway::push::publish::Publisher;

const PATIENCE: Duration = Duration::from_secs(20);

/// The first name in alphabetical order. `/readyz` names one thread, and other tests have theirs.
const NAME: &str = "a-test-thread";

/// A server with the routes of the API alone.
struct Probed {
    api: Api,
    roster: Roster,
    publisher: Publisher,
    metrics: Metrics,
}

impl Handler for Probed {
    fn on_request(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> Option<Response> {
        let Probed { api, roster, publisher, metrics } = self;
        let mut parts = Parts { roster, publisher, metrics };
        Some(api.respond(ctx, fd, request, &mut parts, |_| String::new()))
    }
}

fn serve() -> (SocketAddr, Remote) {
    let (told, place) = channel();
    thread::spawn(move || {
        let server = Server::bind("127.0.0.1:0").expect("a port").catch_signals(false);
        told.send((server.local_addr().expect("an address"), server.remote())).expect("the receiver is open");
        let api = Api::new(Arc::new(Mutex::new(ApiKeys::default())));
        let roster = Roster::new(EventEmitter::new(None, Duration::ZERO));
        let probed = Probed { api, roster, publisher: Publisher::default(), metrics: Metrics::new() };
        server.handler(probed).run().expect("a run");
    });
    place.recv_timeout(PATIENCE).expect("a server")
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
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
    let thread = thread.expect("a thread");
    let deadline = clock::now() + PATIENCE;
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
        "/healthz stays 200: a restart of the process would not help"
    );

    orders.send(()).expect("the thread receives orders");
    thread.thread().unpark();
    thread.join().expect("an end");
    assert!(!is_down(&get(address, "/readyz")));
    remote.shutdown().expect("a server");
}
