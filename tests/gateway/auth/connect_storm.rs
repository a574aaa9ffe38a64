//! Tests the connect hook under load, with many clients from one address and from many addresses.

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::Raw;
use crate::common::backend::{Answer, Backend};
use crate::common::gateway::{Gateway, request, until};
use crate::common::raw::{HttpResponse, UPGRADE};

/// Starts a connect hook that accepts every client after 100 ms.
fn slow_connect_hook() -> Backend {
    Backend::start(|_| {
        let (_never_used, nothing) = channel::<()>();
        let _ = nothing.recv_timeout(Duration::from_millis(100));
        Answer::Status(200, "{}".to_owned())
    })
}

fn gateway(backend: &Backend, flags: &[&str]) -> Gateway {
    let url = backend.url();
    Gateway::start(&[&["--auth", "webhook", "--auth-url", &url], flags].concat())
}

/// A thread that connects a client every two milliseconds. When the value is dropped, the thread ends.
struct Storm {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    fn start(mut client: impl FnMut(usize) + Send + 'static) -> Storm {
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            for number in 0.. {
                client(number);
                if stopped.recv_timeout(Duration::from_millis(2)) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Storm { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "the thread of the clients must not panic");
        }
    }
}

fn count(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("fdpush_auth_requests_total{{outcome=\"{outcome}\"}}"))
}

/// Returns the upgrade request that a proxy forwards for a client with this address.
fn forwarded(address: &str) -> String {
    UPGRADE.replacen("\r\n", &format!("\r\nX-Forwarded-For: {address}\r\n"), 1)
}

#[test]
fn clients_are_accepted_while_others_connect_and_disconnect() {
    let clients: [fn(Raw); 3] = [
        |mut raw| {
            raw.send(UPGRADE);
            raw.reset();
        },
        |mut raw| raw.send(UPGRADE),
        // The client sends some bytes before the 101 response, and then disconnects.
        |mut raw| raw.send(format!("{UPGRADE}early")),
    ];
    for client in clients {
        let backend = slow_connect_hook();
        let gateway = gateway(&backend, &[]);
        let address = gateway.address;
        // After each client that disconnects, the client `other` makes a request and waits for the response. So the
        // server detects each disconnect before the next client connects, even if the server gets little CPU time.
        let mut other = Raw::connect(address);
        let _storm = Storm::start(move |_| {
            client(Raw::connect_from([127, 0, 0, 9], address));
            other.send(request("GET", "/none", &[], ""));
            assert_eq!(other.reply().status, 404);
        });
        until("300 clients have disconnected while they waited", || count(&gateway, "gone") >= 300.0);
        let mut honest: Vec<Raw> = (0..20).map(|_| Raw::connect_from([127, 0, 0, 2], address)).collect();
        honest.iter_mut().for_each(|raw| raw.send(UPGRADE));
        let statuses: Vec<u16> = honest.iter_mut().map(|raw| raw.reply().status).collect();
        assert_eq!(statuses, [101; 20]);
        assert_eq!(
            count(&gateway, "overflowed"),
            0.0,
            "a disconnected client must leave the queue, so that the queue never overflows"
        );
    }
}

#[test]
fn clients_are_accepted_while_others_wait_for_the_connect_hook() {
    let backend = slow_connect_hook();
    let gateway = gateway(&backend, &[]);
    let address = gateway.address;
    let mut held = Vec::new();
    let _storm = Storm::start(move |_| {
        let mut raw = Raw::connect_from([127, 0, 0, 9], address);
        raw.send(UPGRADE);
        held.push(raw);
        if held.len() > 500 {
            held.clear();
        }
    });
    // More clients wait than the back end can answer at a time.
    until("100 requests of other clients wait", || gateway.metric("fdpush_auth_waiting") >= 100.0);
    let mut honest: Vec<Raw> = (0..20).map(|_| Raw::connect_from([127, 0, 0, 2], address)).collect();
    honest.iter_mut().for_each(|raw| raw.send(UPGRADE));
    let statuses: Vec<u16> = honest.iter_mut().map(|raw| raw.reply().status).collect();
    assert_eq!(statuses, [101; 20]);
}

/// Sends an upgrade for a client at `address` behind the proxy.
fn ask_from(gateway: &Gateway, address: &str) -> Raw {
    let mut raw = Raw::connect(gateway.address);
    raw.send(forwarded(address));
    raw
}

#[test]
fn behind_a_proxy_an_ipv6_network_counts_as_one_address() {
    let backend = Backend::start(|_| Answer::Hang);
    let gateway = gateway(&backend, &["--auth-timeout", "60s", "--trusted-proxy", "127.0.0.1"]);
    let ask = |address: &str| ask_from(&gateway, address);
    // The server sends 12 requests of this network to the back end, and 256 requests wait.
    let mut storm: Vec<Raw> = (0..12 + 256).map(|number| ask(&format!("2001:db8::{number:x}"))).collect();
    until("256 requests wait in the queue", || gateway.metric("fdpush_auth_waiting") == 256.0);
    for number in 0..10 {
        let HttpResponse { status, head, .. } = ask(&format!("2001:db8::ffff:{number:x}")).reply();
        assert!(status == 503 && head.contains("Retry-After: 1"), "{head}");
    }
    assert_eq!(count(&gateway, "overflowed"), 10.0);
    assert!(gateway.logged("connect hook failed").contains("queue limit of 2001:db8:: reached (256)"));
    let request: Vec<String> = (0..12).map(|_| backend.requests.next().body).collect();
    assert!(request.iter().all(|body| body.contains("2001:db8::")));
    // The server sends a request of another network, or of an IPv4 address, to the back end immediately.
    let mut others = Vec::new();
    for other in ["2001:db8:0:1::1", "198.51.100.7", "198.51.100.8", "2001:db8:1::1"] {
        others.push(ask(other));
        assert_eq!(backend.requests.next().json()["address"], other);
    }
    // If a client disconnects, its request leaves the queue.
    storm.drain(12..).for_each(drop);
    until("no request waits in the queue", || gateway.metric("fdpush_auth_waiting") == 0.0);
    assert_eq!(count(&gateway, "gone"), 256.0);
}

#[test]
fn the_queue_of_the_connect_hook_is_bounded_and_serves_new_addresses_first() {
    let backend = Backend::start(|_| Answer::Hang);
    let gateway = gateway(&backend, &["--auth-timeout", "60s", "--trusted-proxy", "127.0.0.1"]);
    let ask = |address: &str| ask_from(&gateway, address);
    // The server sends 16 requests to the back end, and 1024 requests wait, 4 or 5 of each address.
    let storm: Vec<Raw> = (0..16 + 1024).map(|number| ask(&format!("10.0.{}.1", number % 250))).collect();
    until("1024 requests wait in the queue", || gateway.metric("fdpush_auth_waiting") == 1024.0);
    let mut one_more = ask("10.0.0.1");
    assert_eq!(one_more.reply().status, 503);
    assert!(gateway.logged("connect hook failed").contains("queue limit reached (1024)"));
    // A request of a new address replaces a waiting request of the address that has the most waiting requests.
    let _honest = ask("198.51.100.7");
    until("the request of the new address is in the queue", || count(&gateway, "overflowed") == 2.0);
    assert_eq!(gateway.metric("fdpush_auth_waiting"), 1024.0);
    drop(storm);
    // The requests of the disconnected clients leave the queue. The back end does not answer, so no worker thread takes
    // the request of the new address.
    until("only the request of the new address waits", || gateway.metric("fdpush_auth_waiting") == 1.0);
}
