//! Tests the PROXY protocol: trusted load balancers, and refusals of other peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::raw::{GET, TEXT, UPGRADE, frame};
use crate::common::{Raw, TestServer, limits_with_long_times, serve};
use fdpush::{Address, Limits, Response, Server};

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n";

/// Returns a PROXY header of version 2 for this client.
fn v2(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("the address is valid");
    let (family, ips) = match client {
        SocketAddr::V4(v4) => (0x11, [v4.ip().octets(), [10, 0, 0, 1]].concat()),
        SocketAddr::V6(v6) => (0x21, [v6.ip().octets(), [0; 16]].concat()),
    };
    // The header ends with a no-op extension, which load balancers send as padding.
    let rest = [&ips[..], &client.port().to_be_bytes(), &[0, 80], &[4, 0, 2, 0, 0]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &(rest.len() as u16).to_be_bytes(), &rest].concat()
}

fn local() -> Vec<u8> {
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()
}

/// Starts a server that trusts PROXY headers from loopback addresses, and responds with the peer address.
fn proxied(limits: Limits) -> TestServer {
    serve(move |server: Server| {
        let server = server.limits(limits).proxy_protocol(|peer| peer.is_loopback());
        server.on_request(|_, _, request| Response::text(200, request.peer().to_string())).on_message(|ctx, fd, _| {
            let peer = ctx.info(fd).expect("the connection is open").peer.to_string();
            ctx.push(fd, peer.as_str());
        })
    })
}

#[test]
fn the_peer_is_the_client_of_the_header() {
    let server = proxied(limits_with_long_times());
    for (header, peer) in [
        (V1.to_vec(), "203.0.113.9:4711"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec(), "[2001:db8::7]:4711"),
        (v2("203.0.113.9:4711"), "203.0.113.9:4711"),
        (v2("[2001:db8::7]:4711"), "[2001:db8::7]:4711"),
    ] {
        let mut raw = server.raw();
        raw.send([&header, GET.as_bytes(), GET.as_bytes()].concat());
        assert_eq!((raw.reply().body.as_str(), raw.reply().body.as_str()), (peer, peer));
        // The server parses only the first PROXY header. A second PROXY header is an invalid request.
        raw.send([&header, GET.as_bytes()].concat());
        assert_eq!(raw.reply().status, 400);

        // The client sends the PROXY header, the upgrade and a frame in one segment.
        let mut raw = server.raw();
        raw.send([&header, UPGRADE.as_bytes(), &frame(TEXT, b"who")].concat());
        assert_eq!(raw.reply().status, 101);
        assert_eq!(raw.frame(), (0x81, peer.as_bytes().to_vec()));
    }
}

#[test]
fn a_header_is_accepted_in_pieces() {
    let server = proxied(limits_with_long_times());
    for header in [V1.to_vec(), v2("203.0.113.9:4711")] {
        let bytes = [&header, GET.as_bytes()].concat();
        for at in 1..=header.len() {
            let mut raw = server.raw();
            let read = server.ask(|ctx| ctx.stats().traffic.bytes_in) + at as u64;
            raw.send(&bytes[..at]);
            server.wait_until("the server has read the first part of the header", move |ctx| {
                ctx.stats().traffic.bytes_in == read
            });
            raw.send(&bytes[at..]);
            assert_eq!(raw.reply().body, "203.0.113.9:4711", "cut at {at}");
        }
        let mut raw = server.raw();
        bytes.iter().for_each(|byte| raw.send([*byte]));
        assert_eq!(raw.reply().body, "203.0.113.9:4711", "byte by byte");
    }
}

#[test]
fn without_a_client_in_the_header_the_load_balancer_is_the_peer() {
    let server = proxied(limits_with_long_times());
    for header in [local(), b"PROXY UNKNOWN\r\n".to_vec(), b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x02ab".to_vec()] {
        let mut raw = server.raw();
        raw.send([&header, GET.as_bytes()].concat());
        assert!(raw.reply().body.starts_with("127.0.0.1:"));
        // A TCP health check of a load balancer sends only this header, and disconnects.
        let mut check = server.raw();
        check.send(&header);
        check.shutdown_write();
        check.end();
    }
}

#[test]
fn an_invalid_header_gets_400_and_a_missing_one_408() {
    let server = proxied(limits_with_long_times());
    for bytes in [
        GET.as_bytes().to_vec(),
        UPGRADE.as_bytes().to_vec(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 99999\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\n".to_vec(),
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x31".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\xff\xff".iter().copied().chain([0; 9000]).collect(),
        b"\x16\x03\x01\x02".to_vec(),
    ] {
        let mut raw = server.raw();
        raw.try_send(&bytes);
        let reply = raw.reply();
        assert_eq!(reply.status, 400, "{:?}", bytes.escape_ascii().to_string());
        assert_eq!(reply.body, "PROXY header is missing or malformed\n");
        raw.end();
    }
    assert_eq!(server.ask(|ctx| ctx.stats().refused_by_status[&400]), 8);

    let server = proxied(Limits { head_time_max: Duration::from_millis(50), ..limits_with_long_times() });
    for start in [&b""[..], b"PROXY TCP4", V1, &v2("203.0.113.9:1")[..20]] {
        let mut raw = server.raw();
        raw.send(start);
        assert_eq!(raw.reply().status, 408, "{:?}", start.escape_ascii().to_string());
        raw.end();
    }
}

#[test]
fn a_connection_from_an_untrusted_address_is_closed_and_counted() {
    let trusts = Arc::new(AtomicBool::new(false));
    let rule = Arc::clone(&trusts);
    let server = serve(move |server: Server| {
        let server = server.proxy_protocol(move |_| rule.load(Ordering::Relaxed));
        server.on_request(|_, _, request| Response::text(200, request.peer().to_string()))
    });
    for _ in 0..3 {
        let mut raw = server.raw();
        raw.try_send([V1, GET.as_bytes()].concat());
        raw.end();
    }
    server.wait_until("three refused peers are counted", |ctx| ctx.stats().untrusted_proxies == 3);
    assert_eq!(server.ask(|ctx| (ctx.stats().accepted, ctx.stats().connections)), (0, 0));
    trusts.store(true, Ordering::Relaxed);
    let mut raw = server.raw();
    raw.send([V1, GET.as_bytes()].concat());
    assert_eq!(raw.reply().body, "203.0.113.9:4711");
    server.ask(|ctx| ctx.set_trusted_proxies(|peer| peer.port() == Some(1)));
    let mut raw = server.raw();
    raw.try_send(V1);
    raw.end();
}

#[test]
fn other_listeners_expect_no_header() {
    let server = serve(|server: Server| {
        let server = server.proxy_protocol(|peer| peer.is_loopback());
        let server = server.listen("127.0.0.1:0").and_then(|server| server.listen_control("127.0.0.1:0"));
        let server = server.expect("the server can bind free ports");
        server.on_request(|_, _, request| Response::text(200, request.peer().to_string()))
    });
    let others: Vec<SocketAddr> = server.addresses[1..]
        .iter()
        .map(|address| match address {
            Address::Tcp(tcp) => *tcp,
            Address::Unix(_) => panic!("the address is not a TCP address"),
        })
        .collect();
    for other in others {
        let mut raw = Raw::connect(other);
        raw.send(GET);
        assert!(raw.reply().body.starts_with("127.0.0.1:"));
        raw.send([V1, GET.as_bytes()].concat());
        assert_eq!(raw.reply().status, 400);
    }
}
