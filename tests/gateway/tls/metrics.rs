//! Tests handshakes by outcome and the expiry times of certificates in `/metrics`, `/api/stats` and `/api/connections`.

use super::files::{DAY, Files, authority, begin, connect, raw, tls_address, valid};
use crate::common::gateway::{Gateway, next, request, until};
use crate::common::raw::GET;
use crate::common::tls::{AUTHORITY, Socket};
use crate::common::{Client, Raw};

const LISTEN: [&str; 2] = ["--listen", "tls:127.0.0.1:0"];

#[test]
fn handshakes_are_counted_by_outcome() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let gateway = Gateway::start(&[&LISTEN[..], &["--tls-min", "1.3"], &pair.flags()].concat());
    let address = tls_address(&gateway);
    let counts = || -> Vec<u64> {
        let (stats, text) = (gateway.get("/api/stats"), gateway.call("GET", "/metrics", &[], "").body);
        ["full", "resumed", "failed", "abandoned", "plain_http", "on_plain"]
            .map(|outcome| {
                let count = stats["tls"][outcome].as_u64().expect("the value is a number");
                let sample = format!("\nfdpush_tls_handshakes_total{{outcome=\"{outcome}\"}} ");
                let (_, metric) = text.split_once(&sample).expect("the metrics contain the sample");
                let metric: u64 =
                    metric.lines().next().and_then(|line| line.parse().ok()).expect("the value is a number");
                assert!(metric >= count, "{outcome}");
                count
            })
            .to_vec()
    };
    assert_eq!(counts(), [0; 6]);
    // Both clients use the same settings, so the second session resumes the first.
    let config = AUTHORITY.client_config();
    for _ in 0..2 {
        let mut client = raw(address, config.clone());
        client.send(request("GET", "/", &[("Connection", "close")], ""));
        assert!(client.rest().starts_with(b"HTTP/1.1 200 OK"));
    }
    assert_eq!(counts(), [1, 1, 0, 0, 0, 0]);
    let old = AUTHORITY.client_config_of(&[&rustls::version::TLS12]);
    assert!(Client::connect_tls(address, old, "/", &[]).is_err());
    let mut plain = Raw::connect(address);
    plain.send(GET);
    assert_eq!(plain.reply().status, 400);
    raw(gateway.address, config).try_send("x");
    // This connection ends within a TLS record, so its handshake counts as abandoned. Without a received byte, the
    // server would not count the connection.
    Raw::connect(address).send([22, 3]);
    until("all outcomes are counted", || counts() == [1, 1, 1, 1, 1, 1]);
}

#[test]
fn tls_hellos_to_a_plain_address_cause_one_log_line_a_second() {
    // Each loop limits its own log lines.
    let gateway = Gateway::spawn(&["--loops", "1", "--log", "debug"]);
    // Both hellos arrive while the process is stopped, so one turn of the event loop handles them.
    let mut clients: Vec<Socket> = Vec::new();
    gateway.while_stopped(|| clients.extend([begin(gateway.address), begin(gateway.address)]));
    // The log has a line about each refused request. If the server warns of the same request, the warning is before
    // this line.
    let next_warnings = || -> Vec<String> {
        let lines = gateway.logged_up_to("refused with 400");
        lines.into_iter().filter(|line| line.contains("TLS hello on a listener without TLS")).collect()
    };
    let (first, second) = (next_warnings(), next_warnings());
    assert!(first.len() == 1 && first[0].contains("WARN") && second.is_empty(), "{first:?} {second:?}");
    assert!(first[0].ends_with("(1 since the last warning)"), "{first:?}");
    let counted = || gateway.metric("fdpush_tls_handshakes_total{outcome=\"on_plain\"}");
    assert_eq!(counted(), 2.0);
    // A later hello causes the second warning. This warning has the count of all hellos since the first warning.
    let mut sent = 2;
    let line = loop {
        let _client = begin(gateway.address);
        sent += 1;
        if let Some(line) = next_warnings().pop() {
            break line;
        }
    };
    assert!(
        line.ends_with(&format!("({} since the last warning)", sent - 1)),
        "after {sent} hellos, the line must count all but the first: {line}"
    );
    assert_eq!(counted(), f64::from(sent));
}

#[test]
fn connections_have_the_version_and_cipher_suite_of_tls() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let gateway = Gateway::start(&[&LISTEN[..], &pair.flags()].concat());
    let of = |uid: &str| gateway.get(&format!("/api/users/{uid}"))["connections"][0]["tls"].clone();
    let mut new = connect(tls_address(&gateway), "/?uid=new");
    next(&mut new);
    assert_eq!((&of("new")["version"], &of("new")["cipher"]), (&"1.3".into(), &"TLS_AES_256_GCM_SHA384".into()));
    let config = AUTHORITY.client_config_of(&[&rustls::version::TLS12]);
    let mut old =
        Client::connect_tls(tls_address(&gateway), config, "/?uid=old", &[]).expect("the server accepts the WebSocket");
    next(&mut old);
    assert_eq!(of("old")["version"], "1.2");
    let _plain = gateway.connect("/?uid=plain");
    assert!(of("plain").is_null());
}

#[test]
fn the_end_of_each_certificate_is_a_metric_in_unix_time() {
    let files = Files::new();
    let one = files.put("one", &valid(-10, 100 * DAY as i64));
    let two = files.sign("two", &["*.chat.example"]);
    let authorities = authority("later", -10, 80 * DAY as i64).certificate()
        + &authority("sooner", -10, 20 * DAY as i64).certificate();
    let ca = files.write("ca.pem", authorities);
    let api = ["--api", "tls:127.0.0.1:0,127.0.0.1:0", "--api-client-ca", &ca];
    let gateway = Gateway::start(&[&LISTEN[..], &api, &one.flags(), &two.flags()].concat());
    let end = |file: &str, name: &str| {
        gateway.metric(&format!("fdpush_tls_certificate_expiry_seconds{{file=\"{file}\",name=\"{name}\"}}"))
    };
    let now = std::time::UNIX_EPOCH.elapsed().expect("the clock is after 1970").as_secs_f64();
    let left = |end: f64| ((end - now) / DAY as f64).round();
    assert_eq!(left(end(&one.certificate, "localhost")), 100.0);
    assert_eq!(left(end(&ca, "CN=sooner")), 20.0);
    // The certificates of the tests' authority expire at the start of 4096-01-01.
    assert_eq!(end(&two.certificate, "*.chat.example"), 67_090_118_400.0);
    files.put("one", &valid(-10, 50 * DAY as i64));
    gateway.signal("-HUP");
    gateway.logged("changed: tls_cert, tls_key");
    assert_eq!(left(end(&one.certificate, "localhost")), 50.0);
    let text = gateway.call("GET", "/metrics", &[], "").body;
    assert_eq!(text.lines().filter(|line| line.starts_with("fdpush_tls_certificate_expiry_seconds{")).count(), 3);
}
