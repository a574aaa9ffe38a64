//! Tests clients behind proxies: trusted proxies, client addresses, and the limits that depend on client addresses.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::common::backend::{Answer, Backend};
use crate::common::gateway::{Gateway, hang_up, until};
use crate::common::raw::UPGRADE;
use crate::common::{Client, DEADLINE, Raw, Scratch, refusal};
use serde_json::json;

/// Connects as a client with this address behind a proxy.
fn connect_forwarded(gateway: &Gateway, forwarded: &str) -> Result<Client, u16> {
    let client = Client::connect(gateway.address, "/", &[("X-Forwarded-For", forwarded)]);
    client.map_err(|error| refusal(Err(error)).0)
}

#[test]
fn the_connection_limit_applies_to_the_client_behind_a_trusted_proxy() {
    let gateway = Gateway::start(&["--trusted-proxy", "10.0.0.0/8,127.0.0.1", "--address-connections-max", "1"]);
    let first = connect_forwarded(&gateway, "203.0.113.9").expect("the first connection of the address is accepted");
    let _other =
        connect_forwarded(&gateway, "203.0.113.10").expect("the first connection of another address is accepted");
    for again in ["203.0.113.9", "198.51.100.1, 203.0.113.9", "203.0.113.9:80, 10.2.3.4"] {
        assert_eq!(connect_forwarded(&gateway, again).err(), Some(429), "{again}");
    }
    // This server reads the client address only from `X-Forwarded-For`. A client can send a `Forwarded` header itself,
    // so the server ignores it.
    let both = [("Forwarded", "for=198.51.100.1"), ("X-Forwarded-For", "203.0.113.10")];
    assert_eq!(refusal(Client::connect(gateway.address, "/", &both)).0, 429);
    hang_up(first);
    until("a new connection is accepted after the close", || connect_forwarded(&gateway, "203.0.113.9").is_ok());
}

/// Connects as a client with this address behind a proxy. The response must be a 429. Returns the body of the response.
fn refused_from(gateway: &Gateway, forwarded: &str) -> String {
    let (status, body) = refusal(Client::connect(gateway.address, "/", &[("X-Forwarded-For", forwarded)]));
    assert_eq!(status, 429, "{forwarded}");
    body
}

#[test]
fn ipv6_clients_are_counted_by_their_network() {
    let scratch = Scratch::new("network");
    let file = scratch.file("fdpush.toml");
    let settings = "trusted_proxy = [\"127.0.0.1\"]\naddress_connections_max = 2\n";
    fs::write(&file, settings).expect("the file can be written");
    let gateway = Gateway::spawn(&["--config", &file.display().to_string()]);
    let mut first =
        Some(connect_forwarded(&gateway, "2001:db8:1:2::1").expect("the first connection of the network is accepted"));
    let _second = connect_forwarded(&gateway, "[2001:db8:1:2:ffff::2]:4711")
        .expect("the second connection of the network is accepted");
    for third in 3..23 {
        let why = refused_from(&gateway, &format!("2001:db8:1:2::{third:x}"));
        assert_eq!(why, "connection limit of network 2001:db8:1:2::/64 reached (2)\n");
    }
    let _neighbour =
        connect_forwarded(&gateway, "2001:db8:1:3::1").expect("the first connection of another network is accepted");
    // All spellings of an IPv4 address count as one address.
    let _v4: Vec<Client> =
        ["203.0.113.9", "::ffff:203.0.113.9"].map(|ip| connect_forwarded(&gateway, ip).expect(ip)).into();
    let why = refused_from(&gateway, "::ffff:203.0.113.9");
    assert_eq!(why, "connection limit of address 203.0.113.9 reached (2)\n");
    let _other =
        connect_forwarded(&gateway, "203.0.113.10").expect("the first connection of another address is accepted");
    hang_up(first.take().expect("the first connection is open"));
    until("a new connection is accepted after the close", || {
        first = connect_forwarded(&gateway, "2001:db8:1:2::77").ok();
        first.is_some()
    });

    // A new prefix also applies to open connections. The next reload sets the old prefix again.
    fs::write(&file, format!("{settings}address_ipv6_prefix = 48\n")).expect("the file can be written");
    gateway.signal("-HUP");
    gateway.logged("changed: address_ipv6_prefix");
    let why = refused_from(&gateway, "2001:db8:1:9::1");
    assert_eq!(why, "connection limit of network 2001:db8:1::/48 reached (2)\n");
    hang_up(first.expect("the first connection is open"));
    fs::write(&file, settings).expect("the file can be written");
    gateway.signal("-HUP");
    gateway.logged("changed: address_ipv6_prefix");
    let _back =
        connect_forwarded(&gateway, "2001:db8:1:2::78").expect("the second connection of the network is accepted");
    assert_eq!(connect_forwarded(&gateway, "2001:db8:1:2::79").err(), Some(429));
}

#[test]
fn forwarded_headers_of_untrusted_peers_are_ignored() {
    for trusted in [&[][..], &["--trusted-proxy", "10.0.0.0/8,unix"]] {
        let gateway = Gateway::start(&[trusted, &["--address-connections-max", "1"]].concat());
        let (_first, fd) = gateway.open("/", &[("X-Forwarded-For", "203.0.113.9")]);
        assert_eq!(gateway.get(&format!("/api/connections/{fd}"))["address"], "127.0.0.1", "{trusted:?}");
        assert_eq!(connect_forwarded(&gateway, "203.0.113.10").err(), Some(429), "{trusted:?}");
    }
}

#[test]
fn back_ends_get_the_address_of_the_client() {
    let backend = Backend::start(|request| match request.json().get("events") {
        Some(_) => Answer::Status(200, String::new()),
        None => Answer::Status(200, r#"{"uid":"ann","attributes":{"plan":"pro"}}"#.to_owned()),
    });
    let url = backend.url();
    let hooks = ["--auth", "webhook", "--auth-url", &url, "--webhook", &url];
    let proxy = ["--trusted-proxy", "127.0.0.0/8", "--forwarded-header", "forwarded"];
    let gateway = Gateway::start(&[&hooks[..], &proxy, &["--address-connections-max", "1"]].concat());
    let header = [("Forwarded", r#"for=198.51.100.1, for="[2001:db8::7]:4711";proto=https"#)];
    let (ann, fd) = gateway.open("/", &header);
    let question = backend.requests.next().json();
    assert_eq!(question["address"], "2001:db8::7");
    assert!(question["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{question}");
    assert_eq!(backend.requests.next().json()["events"][0]["address"], "2001:db8::7");
    let path = format!("/api/connections/{fd}");
    assert_eq!(gateway.get(&path)["address"], "2001:db8::7");
    assert_eq!(gateway.get("/api/users/ann")["connections"][0]["address"], "2001:db8::7");
    // The server keeps the client's address apart from the attributes that the back end sets.
    assert_eq!(gateway.get(&format!("{path}/attributes")), json!({"plan": "pro"}));
    let patch = gateway.call("PUT", &format!("{path}/attributes"), &[("Content-Type", "application/json")], "{}");
    assert_eq!((patch.status, &gateway.get(&path)["address"]), (200, &json!("2001:db8::7")));
    assert_eq!(refusal(Client::connect(gateway.address, "/", &header)).0, 429);
    hang_up(ann);
    until("a new connection is accepted after the close", || Client::connect(gateway.address, "/", &header).is_ok());
}

#[test]
fn a_proxy_can_connect_by_unix_socket() {
    for (trusted, address) in [("unix", json!("203.0.113.9")), ("127.0.0.1", json!(null))] {
        let scratch = Scratch::new("proxied");
        let path = scratch.file("push.sock");
        let unix = format!("unix:{}", path.display());
        let gateway = Gateway::start(&["--listen", &unix, "--trusted-proxy", trusted]);
        let mut stream = UnixStream::connect(&path).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
        let request = UPGRADE.replace("\r\n\r\n", "\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the bytes can be sent");
        let mut start = [0; 12];
        stream.read_exact(&mut start).expect("the server answers");
        assert_eq!(&start, b"HTTP/1.1 101");
        let connection = &gateway.get("/api/connections")["connections"][0];
        assert_eq!((&connection["peer"], &connection["address"]), (&json!("unix"), &address), "{trusted}");
    }
}

#[test]
fn sighup_changes_trusted_proxies_and_open_connections_keep_their_address() {
    let scratch = Scratch::new("trusting");
    let file = scratch.file("fdpush.toml");
    fs::write(&file, "\n").expect("the file can be written");
    let gateway = Gateway::spawn(&["--config", &file.display().to_string()]);
    let address_of = |fd| gateway.get(&format!("/api/connections/{fd}"))["address"].clone();
    let header = [("X-Forwarded-For", "203.0.113.9")];
    let (_before, before) = gateway.open("/", &header);
    fs::write(&file, "trusted_proxy = [\"127.0.0.1\"]\naddress_connections_max = 1\n")
        .expect("the file can be written");
    gateway.signal("-HUP");
    gateway.logged("changed: ");
    let (_after, after) = gateway.open("/", &header);
    assert_eq!((address_of(before), address_of(after)), (json!("127.0.0.1"), json!("203.0.113.9")));
    // 127.0.0.1 and 203.0.113.9 have one connection each, which is the limit for an address. The first connection
    // counts for 127.0.0.1, because the server trusted no proxy when this client connected.
    assert_eq!(connect_forwarded(&gateway, "203.0.113.9").err(), Some(429));
    assert_eq!(connect_forwarded(&gateway, "unknown").err(), Some(429));
}

/// Sends a PROXY header for this client and an upgrade with additional header lines.
fn connect_with_proxy_header(gateway: &Gateway, client: &str, lines: &str) -> Raw {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let to = if client.contains(':') { "::1" } else { "10.0.0.1" };
    let mut raw = Raw::connect(gateway.address);
    let upgrade = UPGRADE.replace("\r\n\r\n", &format!("\r\n{lines}\r\n"));
    raw.send(format!("PROXY {family} {client} {to} 4711 80\r\n{upgrade}"));
    raw
}

#[test]
fn the_client_of_a_proxy_header_is_limited_and_reported_like_any_other() {
    let backend = Backend::start(|_| Answer::Status(200, r#"{"uid":"ann"}"#.to_owned()));
    let url = backend.url();
    let gateway = Gateway::start(&[
        "--proxy-protocol",
        "--trusted-proxy=127.0.0.0/8,198.51.100.0/24",
        "--address-connections-max=1",
        "--auth=webhook",
        &format!("--auth-url={url}"),
    ]);
    let mut first = connect_with_proxy_header(&gateway, "203.0.113.9", "");
    assert_eq!(first.reply().status, 101);
    let question = backend.requests.next().json();
    assert_eq!((&question["address"], &question["peer"]), (&json!("203.0.113.9"), &json!("203.0.113.9:4711")));
    let connection = &gateway.get("/api/connections")["connections"][0];
    assert_eq!((&connection["address"], &connection["peer"]), (&json!("203.0.113.9"), &json!("203.0.113.9:4711")));
    assert_eq!(connect_with_proxy_header(&gateway, "203.0.113.9", "").reply().status, 429);
    // Headers that a client sends do not change its address.
    let forged = "X-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(connect_with_proxy_header(&gateway, "203.0.113.9", forged).reply().status, 429);
    // IPv6 clients of one network count as one address, also if their addresses come from a PROXY header.
    let mut v6 = connect_with_proxy_header(&gateway, "2001:db8::1", "");
    assert_eq!(v6.reply().status, 101);
    assert_eq!(connect_with_proxy_header(&gateway, "2001:db8::2", "").reply().status, 429);
    // Behind a load balancer and a trusted proxy, the `X-Forwarded-For` of the proxy sets the client's address.
    let mut chained = connect_with_proxy_header(&gateway, "198.51.100.7", "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(chained.reply().status, 101);
    assert_eq!(connect_with_proxy_header(&gateway, "192.0.2.1", "").reply().status, 429);
    // The API listener expects no PROXY header.
    assert_eq!(gateway.call("GET", "/healthz", &[], "").status, 200);
}

#[test]
fn one_listener_can_expect_a_proxy_header_and_another_refuse_it() {
    let gateway = Gateway::start(&["--listen", "proxy:127.0.0.1:0", "--trusted-proxy", "127.0.0.1"]);
    // In the log, the address of the listener with the PROXY protocol comes first.
    let (balanced, plain) = (gateway.address, gateway.others[0].parse().expect("the address is valid"));
    let header = "PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n";
    for (place, start, status) in [(balanced, header, 101), (balanced, "", 400), (plain, "", 101), (plain, header, 400)]
    {
        let mut raw = Raw::connect(place);
        raw.send(format!("{start}{UPGRADE}"));
        assert_eq!(raw.reply().status, status, "{start:?}");
    }
    assert_eq!(connect_with_proxy_header(&gateway, "203.0.113.9", "").reply().status, 101);
}

#[test]
fn sighup_changes_the_trusted_load_balancers() {
    let scratch = Scratch::new("balancers");
    let file = scratch.file("fdpush.toml");
    fs::write(&file, "proxy_protocol = true\ntrusted_proxy = [\"10.0.0.1\"]\n").expect("the file can be written");
    let gateway = Gateway::spawn(&["--config", &file.display().to_string()]);
    let mut untrusted = Raw::connect(gateway.address);
    untrusted.try_send("PROXY UNKNOWN\r\n");
    untrusted.end();
    gateway.logged("is not a trusted proxy");
    assert_eq!(gateway.metric("fdpush_untrusted_proxies_total"), 1.0);
    fs::write(&file, "proxy_protocol = true\ntrusted_proxy = [\"127.0.0.1\"]\n").expect("the file can be written");
    gateway.signal("-HUP");
    gateway.logged("changed: trusted_proxy");
    assert_eq!(connect_with_proxy_header(&gateway, "203.0.113.9", "").reply().status, 101);
}

#[test]
fn a_load_balancer_can_connect_by_unix_socket() {
    let scratch = Scratch::new("balanced");
    let path = scratch.file("push.sock");
    let unix = format!("unix:{}", path.display());
    let gateway = Gateway::start(&["--listen", &unix, "--trusted-proxy", "unix", "--proxy-protocol"]);
    let mut stream = UnixStream::connect(&path).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
    stream.write_all(b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 80\r\n").expect("the bytes can be sent");
    stream.write_all(UPGRADE.as_bytes()).expect("the bytes can be sent");
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("the server answers");
    assert_eq!(&start, b"HTTP/1.1 101");
    let connection = &gateway.get("/api/connections")["connections"][0];
    assert_eq!((&connection["peer"], &connection["address"]), (&json!("203.0.113.9:4711"), &json!("203.0.113.9")));
    // `trusted_proxy` is `unix`, so the server closes each connection over TCP.
    Raw::connect(gateway.address).end();
}
