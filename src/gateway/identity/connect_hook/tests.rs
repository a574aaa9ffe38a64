//! Tests of the connect hook with a back end that accepts, refuses, sends invalid answers, hangs, or is down.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fdpush::{Closures, Fd, Remote, Request, Response, Server, Upgrade};

use super::{Config, Decision, Hook, HookStats, Pending};
use crate::gateway::hooks::backend::BackendConfig;
use crate::gateway::hooks::backend::mock::{MockBackend, MockReply, TEST_TIMEOUT};
use crate::gateway::hooks::backend::signature::SigningKey;
use crate::gateway::identity::Identity;
use crate::gateway::runtime::clock;

const HEAD: &[u8] =
    b"GET /chat?token=a%20b HTTP/1.1\r\nHost: x\r\nCookie: sid=1\r\nX-A: 1\r\nAuthorization: Bearer t\r\n\
    x-a: \xff2\r\nConnection: close\r\n\r\n";

/// Runs a server on a thread. Returns the address and the [`Remote`] of the server.
fn serve(set_up: impl FnOnce(Server<Closures>) -> Server<Closures> + Send + 'static) -> (SocketAddr, Remote) {
    let (sender, started) = mpsc::channel();
    thread::spawn(move || {
        let server = set_up(Server::bind("127.0.0.1:0").expect("the port can be bound"));
        sender
            .send((server.local_addr().expect("the server listens on TCP"), server.remote()))
            .expect("the test waits");
        server.run()
    });
    started.recv_timeout(TEST_TIMEOUT).expect("the server has started")
}

fn exchange(address: SocketAddr, head: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("the read timeout can be set");
    stream.write_all(head).expect("the server reads the bytes");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server answers");
    String::from_utf8(answer).expect("the text is UTF-8")
}

/// Returns a request that a server has received.
fn request() -> Request<'static> {
    let (sender, requests) = mpsc::channel();
    let (address, remote) = serve(|server| {
        server.on_request(move |_, _, request| {
            sender.send(request.clone().into_owned()).expect("the test waits");
            Response::new(204)
        })
    });
    exchange(address, HEAD);
    remote.shutdown().expect("the server is running");
    requests.recv_timeout(TEST_TIMEOUT).expect("a request arrives")
}

fn fd(number: u64) -> Fd {
    Fd::from_u64(number).expect("the fd is valid")
}

fn config(double: &MockBackend) -> Config {
    Config { timeout: TEST_TIMEOUT, ..Config::new(double.contact()) }
}

/// A request to the hook, and the channel on which its decision arrives.
struct Asked {
    verdicts: Receiver<Decision>,
    pending: Pending,
}

impl Deref for Asked {
    type Target = Receiver<Decision>;

    fn deref(&self) -> &Receiver<Decision> {
        &self.verdicts
    }
}

fn ask(hook: &Hook, request: &Request<'_>) -> Asked {
    ask_from(hook, request, [203, 0, 113, 9])
}

fn ask_from(hook: &Hook, request: &Request<'_>, address: [u8; 4]) -> Asked {
    let (sender, verdicts) = mpsc::channel();
    let address = Some(IpAddr::from(address));
    let pending = hook.ask(fd(7), address, address, request.clone().into_owned(), move |verdict| {
        // An error of `send` is ignored, because the test may have dropped the receiver.
        let _ = sender.send(verdict);
    });
    Asked { verdicts, pending }
}

fn verdict_of(reply: impl Fn(usize) -> MockReply + Send + Sync + 'static, timeout: Duration) -> (Decision, HookStats) {
    let count = AtomicUsize::new(0);
    let double = MockBackend::start(move |_| reply(count.fetch_add(1, Ordering::SeqCst)));
    let hook = Hook::start(Config { timeout, ..config(&double) }).expect("the hook can start");
    let verdict = ask(&hook, &request()).recv_timeout(TEST_TIMEOUT).expect("a decision arrives");
    (verdict, hook.stats())
}

#[test]
fn the_hook_posts_the_request_of_the_client_as_signed_json() {
    let double = MockBackend::always(200, r#"{"uid":"10086","groups":["a"]}"#);
    let secret = SigningKey::new("s3cret").expect("the secret is valid");
    let contact = BackendConfig { secret: Some(secret.clone()), ..double.contact() };
    let hook = Hook::start(Config { contact, ..config(&double) }).expect("the hook can start");
    let request = request();
    let verdict = ask(&hook, &request).recv_timeout(TEST_TIMEOUT).expect("a decision arrives");
    assert!(
        matches!(verdict, Decision::Accept(Identity { uid: Some(uid), groups, .. }) if uid == "10086" && groups == ["a"])
    );
    let received = double.next();
    assert_eq!(received.header("x-fdpush-signature"), Some(secret.sign(&received.body).as_str()));
    let expected = serde_json::json!({
        "node": "node-1", "fd": 7, "peer": request.peer().to_string(), "address": "203.0.113.9", "method": "GET", "target": "/chat?token=a%20b",
        "headers": {"host": ["x"], "cookie": ["sid=1"], "x-a": ["1"], "authorization": ["Bearer t"],
            "connection": ["close"]},
        "headers_base64": {"x-a": ["/zI="]},
    });
    assert_eq!(received.json(), expected);
    assert_eq!(hook.stats(), HookStats { accepted: 1, ..HookStats::default() });

    hook.set_secret(None);
    ask(&hook, &request).recv_timeout(TEST_TIMEOUT).expect("a decision arrives");
    assert_eq!(double.next().header("x-fdpush-signature"), None);
}

#[test]
fn a_refusal_of_the_back_end_refuses_the_client_with_the_same_status() {
    for status in [400, 401, 403, 404, 429, 499] {
        let (verdict, stats) = verdict_of(move |_| MockReply::Answer(status, r#"{"message":"no"}"#), TEST_TIMEOUT);
        assert!(
            matches!(&verdict, Decision::Refuse { status: sent, body } if *sent == status && body == "no\n"),
            "{verdict:?}"
        );
        assert_eq!(stats, HookStats { refused: 1, ..HookStats::default() });
    }
    let cut = || MockReply::Raw(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n{".to_vec());
    let (verdict, _) = verdict_of(move |_| cut(), TEST_TIMEOUT);
    assert!(matches!(verdict, Decision::Refuse { status: 403, body } if body == "refused\n"));
}

#[test]
fn an_invalid_answer_causes_the_decision_unavailable() {
    let replies: [fn(usize) -> MockReply; 9] = [
        |_| MockReply::Answer(200, "garbage"),
        |_| MockReply::Answer(200, ""),
        |_| MockReply::Answer(200, r#"{"uid":""}"#),
        |_| MockReply::Answer(201, r#"{"uid":"a"}"#),
        |_| MockReply::Answer(204, ""),
        |_| MockReply::Answer(500, r#"{"uid":"a"}"#),
        |_| MockReply::Raw(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n".to_vec()),
        |_| MockReply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"uid\":\"a\"}".to_vec()),
        |_| MockReply::Raw(Vec::new()),
    ];
    for (index, reply) in replies.into_iter().enumerate() {
        let (verdict, stats) = verdict_of(reply, TEST_TIMEOUT);
        assert!(matches!(verdict, Decision::Unavailable), "{index}: {verdict:?}");
        assert_eq!(stats, HookStats { failed: 1, ..HookStats::default() }, "{index}");
    }
}

#[test]
fn a_request_without_an_answer_is_repeated_once() {
    let reply =
        |count| if count == 0 { MockReply::Raw(Vec::new()) } else { MockReply::Answer(200, r#"{"uid":"second"}"#) };
    let (verdict, _) = verdict_of(reply, TEST_TIMEOUT);
    assert!(matches!(verdict, Decision::Accept(Identity { uid: Some(uid), .. }) if uid == "second"));
}

#[test]
fn a_slow_back_end_delays_a_decision_until_the_timeout_at_most() {
    let wastes: [fn() -> MockReply; 2] =
        [|| MockReply::Hang, || MockReply::Trickle("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n{ ")];
    let is_in_time = |waste: fn() -> MockReply, timeout: Duration| {
        let request = request();
        let double = MockBackend::start(move |_| waste());
        let hook = Hook::start(Config { timeout, threads: 2, ..config(&double) }).expect("the hook can start");
        let start = clock::now();
        let verdicts: Vec<_> = (0..12).map(|_| ask(&hook, &request)).collect();
        let asked = clock::now() - start;
        for verdict in verdicts {
            assert!(matches!(verdict.recv_timeout(TEST_TIMEOUT).expect("a decision arrives"), Decision::Unavailable));
        }
        let taken = clock::now() - start;
        let stats = hook.stats();
        assert_eq!(stats.timed_out + stats.failed, 12, "{stats:?}");
        assert!(stats.timed_out >= 10 && stats.waiting == 0, "{stats:?}");
        // `ask` does not wait for the back end. All requests were decided at their deadline, also the requests in the
        // queue. If the two workers had served the twelve requests one after the other, the time would be six times as
        // long.
        asked < timeout && taken < timeout * 5
    };
    for waste in wastes {
        // On a busy machine, the decisions can take longer than five times a short timeout. So the test tries up to
        // three timeouts, and passes if the decisions are in time with one of them.
        let mut timeouts = [400, 4000, 20_000].into_iter().map(Duration::from_millis);
        assert!(timeouts.any(|timeout| is_in_time(waste, timeout)), "the requests must be decided within the timeout");
    }
}

#[test]
fn the_watch_thread_answers_if_all_workers_hang() {
    // The only worker hangs in the callback of a request.
    let double = MockBackend::always(200, r#"{"uid":"a"}"#);
    let timeout = Duration::from_millis(100);
    let hook = Hook::start(Config { timeout, threads: 1, ..config(&double) }).expect("the hook can start");
    let request = request();
    let (hold, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (reached, is_reached) = mpsc::channel();
    loop {
        let (held, reached) = (Arc::clone(&held), reached.clone());
        let _pending = hook.ask(fd(1), None, None, request.clone().into_owned(), move |verdict| {
            // On a busy machine, the watch thread may call the callback. The callback returns immediately on the watch
            // thread, because only the worker may hang in this test.
            let is_worker = matches!(verdict, Decision::Accept(_));
            reached.send(is_worker).expect("the test waits");
            if is_worker {
                // The worker waits here until the test drops `hold`.
                let _ = held.lock().expect("no thread panics while it holds the lock").recv();
            }
        });
        if is_reached.recv_timeout(TEST_TIMEOUT).expect("a decision arrives") {
            break;
        }
    }
    let timed_out = hook.stats().timed_out;
    for _ in 0..2 {
        let start = clock::now();
        let verdict = ask(&hook, &request).recv_timeout(TEST_TIMEOUT).expect("a decision arrives");
        assert!(matches!(verdict, Decision::Unavailable), "{verdict:?}");
        assert!(clock::now() - start >= timeout);
        assert_eq!(hook.stats().waiting, 0, "a request that timed out must leave the queue");
    }
    assert_eq!(hook.stats().timed_out, timed_out + 2);
    drop(hold);
    // The worker that hung in the callback must serve requests again.
    let deadline = clock::now() + TEST_TIMEOUT;
    while !matches!(ask(&hook, &request).recv_timeout(TEST_TIMEOUT), Ok(Decision::Accept(_))) {
        assert!(clock::now() < deadline, "{:?}", hook.stats());
    }
}

#[test]
fn a_request_to_a_full_queue_is_answered_at_once() {
    let double = MockBackend::start(|_| MockReply::Hang);
    let hook = Hook::start(Config { threads: 1, queue_max: 1, ..config(&double) }).expect("the hook can start");
    let request = request();
    let first = ask(&hook, &request);
    double.next();
    let second = ask(&hook, &request);
    let third = ask(&hook, &request);
    assert!(
        matches!(third.try_recv(), Ok(Decision::Unavailable)),
        "the third request must be decided before `ask` returns"
    );
    assert_eq!(hook.stats(), HookStats { waiting: 1, overflowed: 1, ..HookStats::default() });

    // When the hook is dropped, every open request gets a decision.
    drop(hook);
    for verdict in [first, second] {
        assert!(matches!(verdict.recv_timeout(TEST_TIMEOUT / 2), Ok(Decision::Unavailable)));
    }
}

fn upgrade(verdict: Decision) -> Upgrade {
    match verdict {
        Decision::Accept(Identity { uid: Some(uid), .. }) => Upgrade::accept().uid(uid).into(),
        Decision::Accept(_) => Upgrade::accept().into(),
        Decision::Refuse { status, body } => Upgrade::refuse(Response::text(status, body).close()),
        Decision::Unavailable => Upgrade::refuse(Response::new(503).header("Retry-After", "1").close()),
    }
}

#[test]
fn a_server_accepts_the_clients_that_the_back_end_accepts() {
    let double = MockBackend::start(|received| {
        let question = received.json();
        match question["target"].as_str() {
            Some("/good") => MockReply::Answer(200, r#"{"uid":"10086"}"#),
            _ => MockReply::Answer(403, r#"{"message":"log in first"}"#),
        }
    });
    let hook = Arc::new(Hook::start(config(&double)).expect("the hook can start"));
    let (address, remote) = serve(move |server| {
        server.on_upgrade(move |ctx, fd, request| {
            let (later, ticket) = ctx.defer_upgrade(fd);
            let pending = hook.ask(fd, None, None, request.clone().into_owned(), move |verdict| {
                // An error of `ticket.answer` is ignored, because the client may have disconnected.
                let _ = ticket.answer(upgrade(verdict));
            });
            ctx.set_session(fd, pending);
            later
        })
    });
    let head = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let refused = exchange(address, head("/bad").as_bytes());
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.ends_with("\r\n\r\nlog in first\n"), "{refused}");

    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("the read timeout can be set");
    stream.write_all(head("/good").as_bytes()).expect("the server reads the bytes");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("the server answers");
    assert_eq!(&status, b"HTTP/1.1 101");
    let fds = remote.fds_of("10086").wait_timeout(TEST_TIMEOUT).expect("the server returns fds");
    assert_eq!(fds.len(), 1);
    drop(stream);
    remote.shutdown().expect("the server is running");
}

/// Starts a back end that answers one request for each message on the returned channel. The answers of the back end
/// accept the client with the uid `a`.
fn gated() -> (MockBackend, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let double = MockBackend::start(move |_| {
        // The back end waits here until the test sends a message or drops `open`.
        let _ = gate.lock().expect("no thread panics while it holds the lock").recv();
        MockReply::Answer(200, r#"{"uid":"a"}"#)
    });
    (double, open)
}

fn address_in(double: &MockBackend) -> String {
    double.next().json()["address"].as_str().expect("the request has an address").to_owned()
}

#[test]
fn a_request_of_a_disconnected_client_is_not_sent() {
    let (double, open) = gated();
    let hook = Hook::start(Config { threads: 1, ..config(&double) }).expect("the hook can start");
    let request = request();
    let first = ask_from(&hook, &request, [10, 0, 0, 1]);
    assert_eq!(address_in(&double), "10.0.0.1");
    let gone: Vec<Asked> = (0..100).map(|_| ask_from(&hook, &request, [10, 0, 0, 2])).collect();
    let other = ask_from(&hook, &request, [10, 0, 0, 3]);
    assert_eq!(hook.stats().waiting, 101);
    for Asked { verdicts, pending } in gone {
        drop(pending);
        assert!(verdicts.recv().is_err(), "a cancelled request must get no decision");
    }
    assert_eq!(hook.stats(), HookStats { waiting: 1, gone: 100, ..HookStats::default() });
    // The client of the request in flight disconnects. The only worker still waits for the answer to this request.
    drop(first);
    open.send(()).expect("the back end waits");
    assert_eq!(address_in(&double), "10.0.0.3");
    open.send(()).expect("the back end waits");
    assert!(matches!(other.recv_timeout(TEST_TIMEOUT), Ok(Decision::Accept(_))));
    drop(other);
    assert_eq!(hook.stats(), HookStats { accepted: 1, gone: 101, ..HookStats::default() });
    assert!(double.try_next().is_none());
}

#[test]
fn addresses_take_turns_and_no_address_has_all_workers() {
    let (double, open) = gated();
    // One address may use only three of the four workers.
    let hook = Hook::start(Config { threads: 4, ..config(&double) }).expect("the hook can start");
    let request = request();
    let storm: Vec<Asked> = (0..50).map(|_| ask_from(&hook, &request, [10, 0, 0, 1])).collect();
    for _ in 0..3 {
        assert_eq!(address_in(&double), "10.0.0.1");
    }
    assert_eq!(hook.stats().waiting, 47);
    // The back end has answered no request, and a request of another address is still sent immediately.
    let other = ask_from(&hook, &request, [10, 0, 0, 2]);
    assert_eq!(address_in(&double), "10.0.0.2");
    let others: Vec<Asked> = (0..2).map(|_| ask_from(&hook, &request, [10, 0, 0, 3])).collect();
    // Each answer frees one worker, so the requests arrive in the order of the queue.
    let order = [(); 3].map(|()| {
        open.send(()).expect("the back end waits");
        address_in(&double)
    });
    assert_eq!(order[0], "10.0.0.3");
    assert_eq!(order.iter().filter(|address| *address == "10.0.0.3").count(), 2, "{order:?}");
    for _ in order.len()..storm.len() + 1 + others.len() {
        open.send(()).expect("the back end waits");
    }
    for asked in storm.iter().chain([&other]).chain(&others) {
        assert!(matches!(asked.recv_timeout(TEST_TIMEOUT), Ok(Decision::Accept(_))));
    }
}

#[test]
fn a_full_queue_removes_a_request_of_the_source_with_the_most_requests() {
    let (double, _open) = gated();
    let bounds = Config { threads: 1, queue_max: 6, source_queue_max: 5, ..config(&double) };
    let hook = Hook::start(bounds).expect("the hook can start");
    let request = request();
    let asked = ask_from(&hook, &request, [10, 0, 0, 1]);
    assert_eq!(address_in(&double), "10.0.0.1");
    let storm: Vec<Asked> = (0..6).map(|_| ask_from(&hook, &request, [10, 0, 0, 1])).collect();
    assert!(
        matches!(storm[5].try_recv(), Ok(Decision::Unavailable)),
        "a request above the limit of its address must be refused"
    );
    let others: Vec<Asked> = (2..=3).map(|last| ask_from(&hook, &request, [10, 0, 0, last])).collect();
    assert!(
        matches!(storm[4].try_recv(), Ok(Decision::Unavailable)),
        "the last request of the source with the most requests must be removed"
    );
    assert!(others.iter().all(|other| other.try_recv().is_err()), "the requests of the other sources must wait");
    assert_eq!(hook.stats(), HookStats { waiting: 6, overflowed: 2, ..HookStats::default() });
    drop((asked, storm, others));
    assert_eq!(hook.stats(), HookStats { waiting: 0, overflowed: 2, gone: 7, ..HookStats::default() });
}

#[test]
fn the_watch_list_does_not_grow_with_disconnected_clients() {
    let (double, _open) = gated();
    let hook = Hook::start(Config { threads: 1, ..config(&double) }).expect("the hook can start");
    let request = request();
    let first = ask(&hook, &request);
    for _ in 0..1000 {
        drop(ask(&hook, &request));
    }
    assert!(hook.shared.lock().watched.len() <= super::WATCHED_MIN);
    drop(first);
}

#[test]
fn after_a_panic_in_a_callback_the_worker_serves_the_next_request_of_the_source() {
    let double = MockBackend::always(200, "{}");
    let hook = Hook::start(Config { threads: 1, ..config(&double) }).expect("the hook can start");
    let (request, address) = (request(), Some(IpAddr::from([203, 0, 113, 9])));
    let _panics = hook.ask(fd(7), address, address, request.clone().into_owned(), |_| panic!("panic of the test"));
    // The only worker serves at most one request of this address at a time. So the second request is sent only if the
    // panic has released the source and the worker has restarted.
    let next = ask(&hook, &request);
    assert!(matches!(next.recv_timeout(TEST_TIMEOUT), Ok(Decision::Accept(_))));
}
