//! Tests TLS handshakes: versions, cipher suites, names, tickets, client certificates, and clients that do not speak
//! TLS.

use std::error::Error;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use fdpush::{Limits, Origins, Response, Server, TlsConfig, TlsVersion, Upgrade};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::common::tls::{AUTHORITY, Authority, Socket, register, server_config};
use crate::common::{Client, DEADLINE, Raw, TestServer, echo, limits_with_long_times, raw, serve, serve_made};

/// Completes a handshake. Returns the client's session, or the error of the handshake.
fn handshake(server: &TestServer, config: ClientConfig, name: &str) -> Result<Box<Secured>, std::io::Error> {
    let stream = TcpStream::connect(server.address()).expect("the server listens");
    let Socket::Tls(mut stream) = Socket::secure(stream, config, name) else {
        unreachable!("`secure` returns a TLS session")
    };
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

type Secured = StreamOwned<ClientConnection, TcpStream>;

fn request(stream: Box<Secured>, request: &str) -> raw::HttpResponse {
    let mut raw = Raw::over(Socket::Tls(stream));
    raw.send(request);
    raw.reply()
}

fn with_versions(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = rustls::pki_types::pem::PemObject::from_pem_slice(AUTHORITY.certificate().as_bytes());
    roots.add(certificate.expect("the certificate is valid")).expect("the authority is valid");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("the versions are supported")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Starts a server that responds with the TLS version and the cipher suite of the client's connection.
fn serve_tls(config: TlsConfig) -> TestServer {
    serve_made(
        move || Server::bind_tls("127.0.0.1:0", config),
        |server| {
            server.on_message(echo).on_request(|_, _, request| {
                let tls = request.tls().expect("the request came through TLS");
                Some(Response::text(200, format!("{} {}", tls.version, tls.cipher)))
            })
        },
    )
}

#[test]
fn a_request_and_the_info_of_a_connection_contain_the_tls_version_and_cipher_suite() {
    let server = serve_tls(server_config());
    let names = [(&rustls::version::TLS13, "TLS 1.3 TLS_"), (&rustls::version::TLS12, "TLS 1.2 TLS_ECDHE_ECDSA_WITH_")];
    for (version, start) in names {
        let stream = handshake(&server, with_versions(&[version]), "localhost").expect("the handshake succeeds");
        assert_eq!(
            stream.conn.alpn_protocol(),
            None,
            "the server must select no protocol for a client that offers none"
        );
        let reply = request(stream, raw::GET);
        assert!(reply.body.starts_with(start) && reply.body.contains("_GCM_"), "{}", reply.body);
    }
    register(server.address());
    let client = server.connect("/");
    let fd = client.fd();
    let tls = server.ask(move |ctx| ctx.info(fd).and_then(|info| info.tls)).expect("the connection uses TLS");
    assert_eq!((tls.version, tls.cipher), (TlsVersion::Tls13, "TLS_AES_256_GCM_SHA384"));
}

#[test]
fn a_plain_connection_has_no_tls_info() {
    let make = || Server::bind("127.0.0.1:0");
    let server = serve_made(make, |server| {
        server.on_request(|_, _, request| Some(Response::text(200, format!("{:?}", request.tls()))))
    });
    let mut raw = server.raw();
    raw.send(raw::GET);
    assert_eq!(raw.reply().body, "None");
}

#[test]
fn alpn_is_http_1_1_and_nothing_else() {
    let server = serve_tls(server_config());
    let offer = |protocols: &[&str]| {
        let mut config = AUTHORITY.client_config();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        handshake(&server, config, "localhost")
    };
    let agreed = offer(&["h2", "http/1.1"]).expect("the handshake succeeds");
    assert_eq!(agreed.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let error = offer(&["h2"]).expect_err("the server accepts no other protocol");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn the_lowest_tls_version_can_be_set_to_1_3() {
    let pair = AUTHORITY.sign(&["localhost"]);
    let builder =
        TlsConfig::builder().pair(pair.certificate.as_bytes(), pair.key.as_bytes()).expect("the pair is valid");
    let server = serve_tls(builder.version_min(TlsVersion::Tls13).build().expect("the settings are valid"));
    let error = handshake(&server, with_versions(&[&rustls::version::TLS12]), "localhost")
        .expect_err("the TLS version is too old");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let _client =
        handshake(&server, with_versions(&[&rustls::version::TLS13]), "localhost").expect("the handshake succeeds");
    server.wait_until("the handshakes are counted", |ctx| (ctx.stats().tls.full, ctx.stats().tls.failed) == (1, 1));
}

#[test]
fn the_server_name_selects_the_certificate_and_the_first_certificate_is_the_default() {
    let pairs = [&["localhost", "a.test"][..], &["b.test", "*.c.test"]].map(|names| AUTHORITY.sign(names));
    let mut builder = TlsConfig::builder();
    for pair in &pairs {
        builder = builder.pair(pair.certificate.as_bytes(), pair.key.as_bytes()).expect("the pair is valid");
    }
    let server = serve_tls(builder.build().expect("the settings are valid"));
    for name in ["localhost", "a.test", "b.test", "x.c.test"] {
        handshake(&server, AUTHORITY.client_config(), name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // The server presents the certificate of the first pair, which is not valid for `d.test`.
    let error = handshake(&server, AUTHORITY.client_config(), "d.test").expect_err("the certificate has another name");
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[test]
fn a_session_is_resumed_with_one_ticket_for_each_handshake() {
    let server = serve_tls(server_config());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = with_versions(&[version]);
        let kinds: Vec<_> = (0..3)
            .map(|_| {
                let mut stream = handshake(&server, config.clone(), "localhost").expect("the handshake succeeds");
                let kind = stream.conn.handshake_kind();
                let tickets = stream.conn.tls13_tickets_received();
                // The session ticket of TLS 1.3 arrives together with the first response.
                std::io::Write::write_all(&mut stream, raw::GET.as_bytes()).expect("the request can be written");
                std::io::Read::read(&mut stream, &mut [0; 1000]).expect("the response can be read");
                let now = stream.conn.tls13_tickets_received();
                assert_eq!(now.max(tickets), u32::from(version.version == rustls::ProtocolVersion::TLSv1_3));
                kind
            })
            .collect();
        let [first, rest @ ..] = &kinds[..] else { panic!("expected three handshakes") };
        assert_eq!(*first, Some(HandshakeKind::Full));
        assert!(rest.iter().all(|kind| *kind == Some(HandshakeKind::Resumed)), "{kinds:?}");
    }
    let tls = server.ask(|ctx| ctx.stats().tls);
    assert_eq!((tls.full, tls.resumed, tls.failed), (2, 4, 0));
}

#[test]
fn a_client_must_have_a_certificate_of_the_configured_authority() {
    let authority = Authority::new();
    let pair = AUTHORITY.sign(&["localhost"]);
    let builder =
        TlsConfig::builder().pair(pair.certificate.as_bytes(), pair.key.as_bytes()).expect("the pair is valid");
    let builder = builder.client_ca(authority.certificate().as_bytes()).expect("the authority is valid");
    let server = serve_tls(builder.build().expect("the settings are valid"));
    let get = |config: ClientConfig| {
        let mut stream =
            handshake(&server, config, "localhost").expect("the client can complete its part of the handshake");
        std::io::Write::write_all(&mut stream, raw::GET.as_bytes())?;
        std::io::Read::read(&mut stream, &mut [0; 1000])
    };
    assert!(get(AUTHORITY.client_config_with(&authority.sign(&["client"]))).is_ok_and(|bytes| bytes > 0));
    let error = get(AUTHORITY.client_config()).expect_err("the client has no certificate");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    let error =
        get(AUTHORITY.client_config_with(&AUTHORITY.sign(&["client"]))).expect_err("the authority is not trusted");
    assert!(error.to_string().contains("fatal alert"), "{error}");
}

#[test]
fn a_client_with_a_certificate_gets_no_ticket_and_may_send_few_intermediates() {
    let authority = Authority::new();
    let pair = AUTHORITY.sign(&["localhost"]);
    let builder =
        TlsConfig::builder().pair(pair.certificate.as_bytes(), pair.key.as_bytes()).expect("the pair is valid");
    let builder = builder.client_ca(authority.certificate().as_bytes()).expect("the authority is valid");
    let server = serve_tls(builder.build().expect("the settings are valid"));
    let mut client = authority.sign(&["client"]);
    let get = |config: ClientConfig| {
        let mut stream =
            handshake(&server, config, "localhost").expect("the client can complete its part of the handshake");
        std::io::Write::write_all(&mut stream, raw::GET.as_bytes())?;
        std::io::Read::read(&mut stream, &mut [0; 1000])?;
        std::io::Result::Ok((stream.conn.handshake_kind(), stream.conn.tls13_tickets_received()))
    };
    let config = AUTHORITY.client_config_with(&client);
    for _ in 0..2 {
        assert_eq!(get(config.clone()).expect("the server responds"), (Some(HandshakeKind::Full), 0));
    }
    client.certificate.push_str(&AUTHORITY.certificate().repeat(3));
    get(AUTHORITY.client_config_with(&client)).expect("three more certificates are accepted");
    client.certificate.push_str(&AUTHORITY.certificate());
    let error = get(AUTHORITY.client_config_with(&client)).expect_err("a fourth certificate is refused");
    assert!(error.to_string().contains("fatal alert"), "{error}");
}

#[test]
fn replaced_tls_settings_apply_to_later_connections() {
    let config = server_config();
    let server = serve_tls(config.clone());
    register(server.address());
    let mut before = server.connect("/");
    let other = Authority::new();
    config.replace(&other.sign(&["localhost"]).config());
    let error = handshake(&server, AUTHORITY.client_config(), "localhost")
        .expect_err("the client does not know the new authority");
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    handshake(&server, other.client_config(), "localhost").expect("the handshake succeeds");
    before.send("still here");
    assert_eq!(before.text(), "still here");
}

#[test]
fn plain_http_to_a_tls_listener_gets_a_readable_400() {
    let server = serve_tls(server_config());
    // The last request has a long body, for which the server would need several reads. The client gets the response
    // although the server reads only a part of the body.
    let body = vec![b'x'; 1 << 20];
    for sent in [raw::GET.as_bytes(), raw::UPGRADE.as_bytes(), b"P", &[b"POST / HTTP/1.1\r\n\r\n", &body[..]].concat()]
    {
        let mut raw = Raw::connect(server.address());
        // The server may close the connection before the client has sent all bytes.
        raw.try_send(sent);
        let reply = raw.reply();
        assert_eq!((reply.status, reply.header("Connection")), (400, Some("close")));
        assert_eq!(reply.body, "this port speaks TLS: use wss:// and https://\r\n");
        raw.end();
    }
    let tls = server.ask(|ctx| ctx.stats().tls);
    assert_eq!((tls.plain_http, tls.failed), (4, 0));
}

#[test]
fn plain_http_to_a_control_listener_with_tls_gets_json() {
    let server = serve_made(
        || Server::bind("127.0.0.1:0")?.listen_control_tls("127.0.0.1:0", server_config()),
        |server| server.on_request(|_, _, request| Some(Response::text(200, request.is_control().to_string()))),
    );
    let fdpush::Address::Tcp(control) = server.addresses[1] else { panic!("the address is not a TCP address") };
    let mut raw = Raw::connect(control);
    raw.send(raw::GET);
    let reply = raw.reply();
    assert_eq!(reply.status, 400);
    assert_eq!(reply.body, r#"{"error":{"code":"bad_request","message":"this port speaks TLS: use https://"}}"#);
    assert_eq!(reply.header("Cache-Control"), Some("no-store"));
    register(control);
    let mut raw = Raw::connect(control);
    raw.send(raw::GET);
    assert_eq!(raw.reply().body, "true");
}

#[test]
fn garbage_in_place_of_a_hello_gets_an_alert() {
    let server = serve_tls(server_config());
    for garbage in [&b"\x80\x2e\x01\x00\x02"[..], &[0; 64], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0], &[0x16, 3, 1, 0xff, 0xff]]
    {
        let mut raw = Raw::connect(server.address());
        raw.send(garbage);
        let alert = raw.rest();
        assert!(matches!(alert[..], [21, 3, _, 0, 2, 2, _]), "{garbage:?}: {alert:?}");
    }
    assert_eq!(server.ask(|ctx| ctx.stats().tls.failed), 4);
}

#[test]
fn a_tls_hello_to_a_plain_listener_is_counted_and_closed() {
    let server = serve_made(|| Server::bind("127.0.0.1:0"), |server| server);
    let stream = TcpStream::connect(server.address()).expect("the server listens");
    let Socket::Tls(mut stream) = Socket::secure(stream, AUTHORITY.client_config(), "localhost") else {
        panic!("the socket must use TLS")
    };
    stream.conn.complete_io(&mut stream.sock).expect_err("the server does not speak TLS");
    drop(stream);
    server
        .wait_until("the handshakes are counted", |ctx| ctx.stats().tls.on_plain == 1 && ctx.stats().connections == 0);
    assert_eq!(server.ask(|ctx| ctx.stats().refused_by_status.get(&400).copied()), Some(1));
}

#[test]
fn a_handshake_that_does_not_end_is_closed_and_counted() {
    let limits = Limits { head_time_max: Duration::from_millis(50), ..limits_with_long_times() };
    let server = serve_made(|| Server::bind_tls("127.0.0.1:0", server_config()), move |server| server.limits(limits));
    let mut silent = Raw::connect(server.address());
    silent.end();
    // A handshake of which no byte has arrived does not count as abandoned. So the loop is blocked until the first
    // bytes of this client have arrived.
    let (_held, release) = server.hold();
    let mut trickling = Raw::connect(server.address());
    trickling.send(&hello()[..20]);
    release.send(()).expect("the loop waits");
    trickling.end();
    server.wait_until("the handshakes are counted", |ctx| ctx.stats().tls.abandoned == 1);
}

#[test]
fn a_client_hello_may_arrive_byte_by_byte() {
    let server = serve_tls(server_config());
    let mut raw = Raw::connect(server.address());
    for byte in hello() {
        raw.send([byte]);
        server.ask(|_| ());
    }
    let first = raw.rest_until(|bytes| bytes.len() >= 6);
    assert_eq!(first[..1], [22], "the client must get a server hello");
}

#[test]
fn through_tls_only_the_origin_with_https_is_the_own_origin() {
    let server = serve_made(
        || Server::bind_tls("127.0.0.1:0", server_config()),
        |server| server.origins(Origins::Same).on_upgrade(|_, _, _| Upgrade::accept()),
    );
    register(server.address());
    let own = format!("{}", server.address());
    let origin = |scheme: &str| {
        let mut raw = server.raw();
        let headers = format!("Host: {own}\r\nOrigin: {scheme}://{own}");
        raw.send(raw::UPGRADE.replace("Host: localhost", &headers));
        raw.reply().status
    };
    assert_eq!((origin("https"), origin("http")), (101, 403));
}

#[test]
fn the_error_for_an_invalid_certificate_or_key_names_it() {
    let pair = AUTHORITY.sign(&["localhost"]);
    let other = AUTHORITY.sign(&["localhost"]);
    let bad_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (certificate, key, text, has_source) in [
        (&*pair.certificate, &*other.key, "the private key does not belong to the certificate", false),
        ("", &*pair.key, "no certificate found", false),
        (&*pair.certificate, "", "no private key found", false),
        (&*pair.certificate, &*pair.certificate, "no private key found", false),
        (&*pair.certificate, bad_key, "invalid private key", true),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &*pair.key, "invalid PEM", true),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &*pair.key, "invalid certificate", true),
    ] {
        let built = TlsConfig::builder().pair(certificate.as_bytes(), key.as_bytes());
        let error = built.expect_err("the pair is invalid");
        assert_eq!((error.to_string().as_str(), error.source().is_some()), (text, has_source));
    }
    assert_eq!(
        TlsConfig::builder().build().expect_err("the pair is missing").to_string(),
        "no pair of certificate and private key is set"
    );
}

#[test]
fn handshakes_over_the_handshake_rate_wait() {
    let limits = Limits { handshakes_per_second_max: Some(4), ..limits_with_long_times() };
    let server = serve_made(
        || Server::bind_tls("127.0.0.1:0", server_config()),
        move |server| server.limits(limits).on_message(echo),
    );
    register(server.address());
    let start = std::time::Instant::now();
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect("/")).collect();
    // The server makes the first 4 handshakes without delay, and the other 4 in the next second.
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    for client in &mut clients {
        client.send("hello");
        assert_eq!(client.text(), "hello");
    }
    assert_eq!(server.ask(|ctx| ctx.stats().tls.full + ctx.stats().tls.resumed), 8);
}

#[test]
fn clients_and_control_connections_do_not_wait_for_each_other() {
    const WAITING: usize = 100;
    for is_control in [true, false] {
        let limits = Limits { handshakes_per_second_max: Some(1), ..limits_with_long_times() };
        let server = serve_made(
            || Server::bind_tls("127.0.0.1:0", server_config())?.listen_control_tls("127.0.0.1:0", server_config()),
            move |server| server.limits(limits),
        );
        let fdpush::Address::Tcp(control) = server.addresses[1] else { panic!("the address is not a TCP address") };
        let (one, many) = if is_control { (control, server.address()) } else { (server.address(), control) };
        let waiting: Vec<TcpStream> = (0..WAITING).map(|_| send_hello(many)).collect();
        server.wait_until("all connections are accepted", |ctx| ctx.stats().accepted == WAITING as u64);
        // After two more turns, the server has read all hellos, and has answered them or lets them wait.
        (0..2).for_each(|_| server.ask(|_| ()));
        let mut next = send_hello(one);
        assert_eq!(std::io::Read::read(&mut next, &mut [0]).expect("the server answers"), 1);
        let answered = waiting.iter().filter(|stream| has_received(stream)).count();
        assert!(
            answered < WAITING / 2,
            "less than half of the {WAITING} earlier hellos must be answered before the last hello, not {answered} (is_control: {is_control})"
        );
    }
}

#[test]
fn many_handshakes_at_once_all_succeed() {
    let server = serve(|server| server.on_message(echo));
    let address = server.address();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                for _ in 0..8 {
                    let mut client = Client::connect(address, "/", &[]).expect("the server accepts the WebSocket");
                    client.send("hello");
                    assert_eq!(client.text(), "hello");
                }
            });
        }
    });
    let tls = server.ask(|ctx| ctx.stats().tls);
    assert_eq!((tls.full + tls.resumed, tls.failed), (64, 0));
}

/// Connects and sends the hello of a client.
fn send_hello(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
    std::io::Write::write_all(&mut stream, &hello()).expect("the hello can be sent");
    stream
}

/// Returns whether bytes have arrived, without waiting.
fn has_received(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("the socket can be non-blocking");
    stream.peek(&mut [0]).is_ok()
}

/// Returns the TLS hello of a client.
fn hello() -> Vec<u8> {
    let name = "localhost".try_into().expect("the name is valid");
    let mut client =
        ClientConnection::new(Arc::new(AUTHORITY.client_config()), name).expect("the session can be created");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("the client can write its hello");
    bytes
}
