//! Tests `tls:` addresses of `--listen` and `--api`, with certificates of the tests' authority.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;

use super::files::{Files, certificate_of, connect, der, is_trusted, raw, tls_address};
use crate::common::gateway::{Gateway, JSON, json_of, next, read_welcome, request};
use crate::common::raw::GET;
use crate::common::tls::{AUTHORITY, Authority, Socket};
use crate::common::{Client, DEADLINE, Raw, refusal};

/// Returns the address in the next log line about a `tls:` API.
fn tls_api(gateway: &Gateway) -> SocketAddr {
    let line = gateway.logged("the API is on tls:");
    line.rsplit("tls:").next().expect("the address is valid").trim().parse().expect("the address is valid")
}

#[test]
fn clients_and_back_ends_use_tls_on_every_address() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let addresses = ["--listen", "tls:127.0.0.1:0", "--listen", "tls:[::1]:0", "--api", "tls:127.0.0.1:0"];
    let gateway = Gateway::start(&[&addresses[..], &pair.flags()].concat());
    let api = tls_api(&gateway);
    for address in &gateway.others {
        let mut client = connect(address.parse().expect("the address is valid"), "/?uid=ann");
        assert_eq!(next(&mut client)["uid"], "ann");
        let mut back_end = raw(api, AUTHORITY.client_config());
        back_end.send(request("POST", "/api/push", &[JSON], &json!({"uid": "ann", "data": 7}).to_string()));
        assert_eq!(json_of(&back_end.reply())["queued"], 1);
        assert_eq!(next(&mut client)["data"], 7);
        client.close(1000, "");
        client.closed();
    }
    // The server still speaks plain HTTP on its addresses without `tls:`.
    let mut plain = gateway.connect("/?uid=bob");
    plain.close(1000, "");
    let page = |mut raw: Raw| {
        raw.send(GET);
        raw.reply()
    };
    assert_eq!(page(raw(tls_address(&gateway), AUTHORITY.client_config())).status, 200);
    let reply = page(Raw::connect(tls_address(&gateway)));
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("https"), "{reply:?}");
}

#[test]
fn only_https_is_the_own_origin_of_a_tls_address() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let gateway = Gateway::start(&[&["--listen", "tls:127.0.0.1:0"], &pair.flags()[..]].concat());
    let address = tls_address(&gateway);
    let from = |scheme: &str| {
        let origin = format!("{scheme}://localhost:{}", address.port());
        Client::connect_tls(address, AUTHORITY.client_config(), "/", &[("Origin", &origin)])
    };
    assert!(from("https").is_ok());
    assert_eq!(refusal(from("http")).0, 403);
}

#[test]
fn the_name_of_the_client_selects_the_certificate() {
    let files = Files::new();
    let pairs = [
        AUTHORITY.sign(&["localhost"]),
        AUTHORITY.sign(&["*.chat.example", "chat.example"]),
        AUTHORITY.sign(&["other.example"]),
    ];
    let [one, two, three] = [0, 1, 2].map(|index| files.put(&index.to_string(), &pairs[index]));
    // The first `--tls-cert` is a list of two certificates, and the second `--tls-cert` is the third certificate.
    let (certificates, keys) = (format!("{},{}", one.certificate, two.certificate), format!("{},{}", one.key, two.key));
    let flags =
        ["--tls-cert", &certificates, "--tls-key", &keys, "--tls-cert", &three.certificate, "--tls-key", &three.key];
    let gateway = Gateway::start(&[&["--listen", "tls:127.0.0.1:0"], &flags[..]].concat());
    let address = tls_address(&gateway);
    for (name, index) in
        [("localhost", 0), ("a.chat.example", 1), ("chat.example", 1), ("other.example", 2), ("OTHER.example", 2)]
    {
        assert_eq!(certificate_of(address, AUTHORITY.client_config(), name), Some(der(&pairs[index])), "{name}");
    }
    // No certificate is valid for this name, so the server uses the first one, and the client refuses it.
    assert_eq!(certificate_of(address, AUTHORITY.client_config(), "a.b.chat.example"), None);
    assert!(
        !is_trusted(address, Authority::new().client_config(), "localhost"),
        "a client that trusts another authority must refuse the server"
    );
}

#[test]
fn the_lowest_tls_version_is_a_setting() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    for (min, is_accepted) in [("1.2", true), ("1.3", false)] {
        let gateway = Gateway::start(&[&["--listen", "tls:127.0.0.1:0", "--tls-min", min], &pair.flags()[..]].concat());
        let config = AUTHORITY.client_config_of(&[&rustls::version::TLS12]);
        let connected = Client::connect_tls(tls_address(&gateway), config, "/", &[]);
        assert_eq!(connected.is_ok(), is_accepted, "{min}");
        let config = AUTHORITY.client_config_of(&[&rustls::version::TLS13]);
        assert!(Client::connect_tls(tls_address(&gateway), config, "/", &[]).is_ok(), "{min}");
    }
}

#[test]
fn the_api_asks_for_a_certificate_of_an_authority() {
    let files = Files::new();
    let (pair, authority) = (files.sign("server", &["localhost"]), Authority::new());
    let ca = files.write("ca.pem", authority.certificate());
    let flags =
        ["--listen", "tls:127.0.0.1:0", "--api", "tls:127.0.0.1:0", "--api-client-ca", &ca, "--api-key", "alpha"];
    let gateway = Gateway::start(&[&flags[..], &pair.flags()].concat());
    let api = tls_api(&gateway);
    let status = |config, key: &str| {
        let mut back_end = raw(api, config);
        let headers = [("Authorization", &*format!("Bearer {key}")), ("Connection", "close")];
        let sent = back_end.try_send(request("GET", "/api/stats", &headers, ""));
        let answer = if sent { back_end.try_rest() } else { Vec::new() };
        String::from_utf8_lossy(&answer).get(9..12).map(str::to_owned)
    };
    let known = AUTHORITY.client_config_with(&authority.sign(&["backend"]));
    assert_eq!(status(known.clone(), "alpha").as_deref(), Some("200"));
    assert_eq!(
        status(known, "beta").as_deref(),
        Some("401"),
        "a back end with a certificate must also have an API key"
    );
    assert_eq!(
        status(AUTHORITY.client_config(), "alpha"),
        None,
        "the server must refuse a back end without a certificate"
    );
    let foreign = AUTHORITY.client_config_with(&AUTHORITY.sign(&["backend"]));
    assert_eq!(status(foreign, "alpha"), None, "the server must refuse a certificate of another authority");
    // Clients of `--listen` need no certificate.
    connect(tls_address(&gateway), "/");
}

#[test]
fn faults_of_clients_are_logged_once_a_second() {
    // A handshake record with a HelloRequest, which a client must not send.
    const HELLO_REQUEST: &[u8] = &[22, 3, 3, 0, 4, 0, 0, 0, 0];
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let gateway = Gateway::start(&[&["--listen", "tls:127.0.0.1:0"], &pair.flags()[..]].concat());
    let start = Instant::now();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(tls_address(&gateway)).expect("the server listens");
        stream.write_all(HELLO_REQUEST).expect("the bytes can be sent");
        let mut alert = [0; 7];
        stream.read_exact(&mut alert).expect("the server answers");
        assert_eq!((alert[0], alert[5]), (21, 2), "the server must answer with a fatal alert");
    }
    gateway.signal("-HUP");
    let lines = gateway.logged_up_to("nothing changed");
    let count = lines.iter().filter(|line| line.contains("WARN  [rustls::")).count();
    let seconds = start.elapsed().as_secs() as usize;
    assert!(
        (1..=seconds + 1).contains(&count),
        "the log must have one line or more, and at most one line a second, not {count} in {seconds} seconds: {lines:?}"
    );
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let flags = ["--listen", "proxy:tls:127.0.0.1:0", "--trusted-proxy", "127.0.0.1"];
    let gateway = Gateway::start(&[&flags[..], &pair.flags()].concat());
    // In the log, the address of the listener with the PROXY protocol comes first.
    let (proxied, plain) = (gateway.address, tls_address(&gateway));
    let mut stream = TcpStream::connect(proxied).expect("the server listens");
    stream.write_all(b"PROXY TCP4 203.0.113.9 203.0.113.10 4711 443\r\n").expect("the bytes can be sent");
    let mut socket = Socket::secure(stream, AUTHORITY.client_config(), "localhost");
    read_welcome(&mut socket, "ann");
    let connections = gateway.get("/api/users/ann");
    assert_eq!(connections["connections"][0]["peer"], "203.0.113.9:4711");
    assert!(Client::connect(plain, "/", &[]).is_ok());
    assert!(
        !is_trusted(proxied, AUTHORITY.client_config(), "localhost"),
        "the server must refuse a client without a PROXY header"
    );
}

#[test]
fn a_unix_socket_can_speak_tls() {
    let files = Files::new();
    let (pair, path) = (files.sign("server", &["localhost"]), files.path("tls.sock"));
    let listen = format!("tls:unix:{path}");
    let gateway = Gateway::start(&[&["--listen", &listen], &pair.flags()[..]].concat());
    assert_eq!(gateway.others, [listen]);
    let stream = UnixStream::connect(&path).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
    let name = ServerName::try_from("localhost").expect("the name is valid");
    let session = ClientConnection::new(Arc::new(AUTHORITY.client_config()), name).expect("the session can be created");
    let mut stream = StreamOwned::new(session, stream);
    read_welcome(&mut stream, "ann");
    assert_eq!(gateway.get("/api/users/ann")["connections"][0]["peer"], "unix");
}
