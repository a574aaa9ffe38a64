//! Tests authentication by token and by the connect hook, connection limits, and message rates.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Barrier;

use crate::common::backend::{Answer, Backend};
use crate::common::command::call;
use crate::common::gateway::{Gateway, SECRET, closed, hang_up, next, next_of, until};
use crate::common::raw::{HttpResponse, UPGRADE};
use crate::common::{Client, Raw, Scratch, refusal};
use serde_json::{Value, json};

const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// Returns the output of `fdpush token`.
fn token(flags: &[&str]) -> String {
    let output = call(&[&["token"], flags].concat(), &[]);
    assert_eq!(output.code, Some(0), "{output:?}");
    output.out.trim().to_owned()
}

fn token_of(uid: &str, groups: &str) -> String {
    token(&["--uid", uid, "--groups", groups, "--jwt-secret", SECRET])
}

fn with_tokens(flags: &[&str]) -> Gateway {
    Gateway::spawn(&[&["--log", "debug", "--auth", "jwt", "--jwt-secret", SECRET], flags].concat())
}

/// Sends a frame with an id and returns its answer. Skips other frames.
fn ask(client: &mut Client, mut frame: Value) -> Value {
    frame["id"] = json!(1);
    client.send(&frame.to_string());
    loop {
        let answer = next(client);
        if answer["id"] == 1 {
            return answer;
        }
    }
}

#[test]
fn a_token_sets_uid_and_groups() {
    let gateway = with_tokens(&[]);
    // Each client has groups of its own. With several loops, a client can get the notices about a user who left just before.
    let tokens = ["g,h", "i,j", "k,l"].map(|groups| token_of("ann", groups));
    let bearer = format!("Bearer {}", tokens[1]);
    let subprotocol = format!("chat, bearer.{}", tokens[2]);
    for (target, headers, expected) in [
        (format!("/?token={}", tokens[0]), &[][..], ["g", "h"]),
        ("/".to_owned(), &[("Authorization", &*bearer)][..], ["i", "j"]),
        ("/?uid=eve".to_owned(), &[("Sec-WebSocket-Protocol", &*subprotocol)][..], ["k", "l"]),
    ] {
        let mut client = Client::connect(gateway.address, &target, headers).expect("the server accepts the WebSocket");
        let chosen = headers.iter().any(|(name, _)| name.starts_with("Sec")).then(|| format!("bearer.{}", tokens[2]));
        assert_eq!(client.header("Sec-WebSocket-Protocol"), chosen.as_deref());
        let welcome = next(&mut client);
        assert_eq!((&welcome["type"], &welcome["uid"]), (&json!("welcome"), &json!("ann")));
        for group in expected {
            let joined = next(&mut client);
            assert_eq!(joined, json!({"type": "joined", "group": group, "uid": "ann", "count": 1}));
        }
        let info = gateway.get(&format!("/api/connections/{}", welcome["fd"]));
        let mut groups = info["groups"].as_array().expect("the value is an array").clone();
        groups.sort_by_key(Value::to_string);
        assert_eq!(groups, expected);
        hang_up(client);
    }
    assert_eq!(gateway.metric(r#"fdpush_auth_requests_total{outcome="accepted"}"#), 3.0);
}

#[test]
fn a_client_without_a_valid_token_is_refused() {
    let gateway = with_tokens(&["--jwt-issuer", "shop", "--jwt-audience", "push"]);
    let secret = ["--uid", "ann", "--jwt-secret", SECRET];
    let fit = ["--jwt-issuer", "shop", "--jwt-audience", "push"];
    let good = token(&[&secret[..], &fit].concat());
    let foreign = token(&[&["--uid", "ann", "--jwt-secret", OTHER][..], &fit].concat());
    let other_issuer = token(&[&secret[..], &["--jwt-issuer", "x", "--jwt-audience", "push"]].concat());
    let no_audience = token(&[&secret[..], &["--jwt-issuer", "shop"]].concat());
    let (head, rest) = good.split_once('.').expect("the token has a header");
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", rest.split_once('.').expect("the token has claims").0);
    let mangled = format!("{head}.{}x", rest);
    for bad in [&foreign, &other_issuer, &no_audience, &unsigned, &mangled, "x", ""] {
        let (status, body) = refusal(Client::connect(gateway.address, &format!("/?token={bad}"), &[]));
        assert_eq!(status, 401, "{bad}");
        assert!(bad.len() < 20 || !body.contains(bad), "{body}");
    }
    assert_eq!(refusal(Client::connect(gateway.address, "/?uid=ann", &[])).0, 401);
    for why in ["the token's signature is invalid", "the token is from another issuer", "missing token"] {
        gateway.logged(&format!("refused with 401: by the handler: \"{why}"));
    }
    let mut raw = Raw::connect(gateway.address);
    raw.send(UPGRADE);
    assert_eq!(raw.reply().header("WWW-Authenticate"), Some("Bearer"));
    assert_eq!(gateway.metric(r#"fdpush_auth_requests_total{outcome="refused"}"#), 9.0);
    gateway.connect(&format!("/?token={good}"));
    assert_eq!(gateway.get("/api/stats")["opened"], 1);
}

#[test]
fn the_previous_secret_is_still_valid() {
    let gateway = Gateway::start(&["--auth", "jwt", "--jwt-secret", OTHER, "--jwt-secret", SECRET]);
    gateway.connect(&format!("/?token={}", token_of("ann", "g")));
}

#[test]
fn tokens_are_signed_and_verified_with_the_same_bytes_of_a_file() {
    let scratch = Scratch::new("same-bytes");
    let file = scratch.file("secret");
    let path = file.display().to_string();
    let binary: Vec<u8> = (200..=255).collect();
    let marked = format!("\u{feff}\"{SECRET}\"\r\n");
    for bytes in [format!(" {SECRET} \n").as_bytes(), marked.as_bytes(), &binary] {
        fs::write(&file, bytes).expect("the file can be written");
        let ann = token(&["--uid", "ann", "--jwt-key-file", &path]);
        let gateway = Gateway::start(&["--auth", "jwt", "--jwt-key-file", &path]);
        gateway.connect(&format!("/?token={ann}"));
    }
    // The byte order mark, the quotes and the line end are not part of the secret.
    fs::write(&file, marked).expect("the file can be written");
    let gateway = Gateway::start(&["--auth", "jwt", "--jwt-key-file", &path]);
    gateway.connect(&format!("/?token={}", token(&["--uid", "ann", "--jwt-secret", SECRET])));
}

#[test]
fn a_connection_is_closed_when_its_token_expires() {
    let gateway = with_tokens(&[]);
    let long = token(&["--uid", "bob", "--ttl", "1y", "--jwt-secret", SECRET]);
    let brief = token(&["--uid", "ann", "--ttl", "2s", "--jwt-secret", SECRET]);
    let mut ann = gateway.connect(&format!("/?token={brief}"));
    let mut bob = gateway.connect(&format!("/?token={long}"));
    assert_eq!(closed(&mut ann), (4003, "the token has expired".to_owned()));
    gateway.done("/api/push", json!({"all": true, "data": "on"}));
    assert_eq!(next(&mut bob)["data"], "on");
}

#[test]
fn with_tokens_a_client_can_push_only_to_its_own_groups() {
    let gateway = with_tokens(&[]);
    let mut ann = gateway.connect(&format!("/?token={}", token_of("ann", "g")));
    let (mut bob, fd) = gateway.open(&format!("/?token={}", token_of("bob", "g,h")), &[]);
    assert_eq!(ask(&mut ann, json!({"type": "push", "group": "g", "data": 1}))["matched"], 2);
    assert_eq!(next_of(&mut bob, "message")["from"], "ann");
    for refused in [
        json!({"type": "push", "to": "bob", "data": 1}),
        json!({"type": "push", "fd": fd, "data": 1}),
        json!({"type": "push", "group": "h", "data": 1}),
        json!({"type": "push", "all": true, "data": 1}),
        json!({"type": "join", "group": "h"}),
        json!({"type": "leave", "group": "g"}),
        json!({"type": "online", "uids": ["bob"]}),
    ] {
        assert_eq!(ask(&mut ann, refused.clone())["code"], "not_allowed", "{refused}");
    }
    gateway.done("/api/push", json!({"uid": "bob", "data": "sentinel"}));
    assert_eq!(next_of(&mut bob, "message")["data"], "sentinel");

    let gateway = with_tokens(&["--client-may", "push_uid,join"]);
    let mut ann = gateway.connect(&format!("/?token={}", token_of("ann", "g")));
    assert_eq!(ask(&mut ann, json!({"type": "push", "to": "ann", "data": 1}))["matched"], 1);
    assert_eq!(ask(&mut ann, json!({"type": "join", "group": "h"}))["type"], "ack");
    assert_eq!(ask(&mut ann, json!({"type": "push", "group": "h", "data": 1}))["code"], "not_allowed");
}

#[test]
fn a_connection_stays_open_within_the_leeway_of_its_token() {
    let gateway = with_tokens(&[]);
    let brief = token(&["--uid", "ann", "--ttl", "1s", "--jwt-secret", SECRET]);
    let mut first = gateway.connect(&format!("/?token={brief}"));
    // A token stays valid for a leeway after its `exp`. When the leeway is over, the server closes the first
    // connection, and refuses new connections with the token.
    assert_eq!(closed(&mut first).0, 4003);
    assert_eq!(refusal(Client::connect(gateway.address, &format!("/?token={brief}"), &[])).0, 401);
}

/// Starts a connect hook that decides by the path of the client's request.
fn accepting_connect_hook() -> Backend {
    Backend::start(|request| {
        let target = request.json()["target"].as_str().expect("the request has a target").to_owned();
        let ann =
            json!({"uid": "ann", "groups": ["g"], "attributes": {"plan": "pro"}, "exp": 9_007_199_254_740_992_u64});
        match target.split('?').next().expect("the target has a path") {
            "/ann" => Answer::Status(200, ann.to_string()),
            "/number" => Answer::Status(200, r#"{"uid":10086,"more":1}"#.to_owned()),
            "/nobody" => Answer::Status(200, r#"{"uid":null}"#.to_owned()),
            "/over" => Answer::Status(200, r#"{"uid":"ann","exp":1}"#.to_owned()),
            "/no" => Answer::Status(403, r#"{"message":"not you"}"#.to_owned()),
            "/teapot" => Answer::Status(418, "no JSON".to_owned()),
            "/broken" => Answer::Status(200, "[1]".to_owned()),
            "/infinite" => Answer::Status(200, r#"{"uid":"ann","attributes":{"plan":"pro","n":1e999}}"#.to_owned()),
            "/failing" => Answer::Status(500, String::new()),
            "/elsewhere" => Answer::Status(302, String::new()),
            _ => Answer::Hang,
        }
    })
}

#[test]
fn the_back_end_sets_uid_and_groups() {
    let backend = accepting_connect_hook();
    let url = backend.url();
    let flags = ["--log", "debug", "--auth", "webhook", "--auth-url", &url, "--webhook-secret", "hush"];
    let gateway = Gateway::spawn(&flags);
    let cookie = [("Cookie", "session=1"), ("Authorization", "Basic eDp5")];
    let (mut ann, fd) = gateway.open("/ann?uid=eve", &cookie);
    let request = backend.requests.next();
    assert!(request.is_signed_with("hush"), "{}", request.head);
    let question = request.json();
    assert_eq!(
        (&question["method"], &question["target"], &question["fd"]),
        (&json!("GET"), &json!("/ann?uid=eve"), &json!(fd))
    );
    assert_eq!(question["headers"]["cookie"], json!(["session=1"]));
    assert_eq!(question["headers"]["authorization"], json!(["Basic eDp5"]));
    assert_eq!(request.header("x-fdpush-node"), question["node"].as_str());
    assert_eq!(next(&mut ann), json!({"type": "joined", "group": "g", "uid": "ann", "count": 1}));
    assert_eq!(gateway.get(&format!("/api/connections/{fd}"))["uid"], "ann");
    assert_eq!(gateway.get(&format!("/api/connections/{fd}/attributes")), json!({"plan": "pro"}));
    assert_eq!(ask(&mut ann, json!({"type": "push", "all": true, "data": 1}))["code"], "not_allowed");

    let (_number, fd) = gateway.open("/number", &[]);
    assert_eq!(gateway.get(&format!("/api/connections/{fd}"))["uid"], "10086");
    let (_anonymous, fd) = gateway.open("/nobody", &[]);
    assert_eq!(gateway.get(&format!("/api/connections/{fd}"))["uid"], Value::Null);
    let refused = |path: &str| refusal(Client::connect(gateway.address, path, &[]));
    assert_eq!(refused("/over"), (401, "identity has expired\n".to_owned()));
    assert_eq!(refused("/no"), (403, "not you\n".to_owned()));
    gateway.logged("refused with 403: by the handler: \"not you");
    assert_eq!(refused("/teapot"), (418, "refused\n".to_owned()));
    for path in ["/broken", "/infinite", "/failing", "/elsewhere"] {
        assert_eq!(refused(path).0, 503, "{path}");
    }
    for (outcome, count) in [("accepted", 3.0), ("refused", 3.0), ("failed", 4.0), ("timed_out", 0.0)] {
        assert_eq!(gateway.metric(&format!("fdpush_auth_requests_total{{outcome=\"{outcome}\"}}")), count, "{outcome}");
    }
}

#[test]
fn a_back_end_that_hangs_does_not_delay_other_clients() {
    let backend = accepting_connect_hook();
    let gateway = Gateway::start(&["--auth", "webhook", "--auth-url", &backend.url(), "--auth-timeout", "1s"]);
    // On a busy machine, the answer of the back end can exceed `--auth-timeout`, so the client tries again.
    let mut ann = None;
    until("the connect hook accepts ann", || {
        ann = Client::connect(gateway.address, "/ann", &[]).ok();
        ann.is_some()
    });
    let mut ann = ann.expect("ann is connected");
    let timed_out = || gateway.metric(r#"fdpush_auth_requests_total{outcome="timed_out"}"#);
    let before = timed_out();
    // There are more clients than threads of the connect hook.
    let mut waiting: Vec<Raw> = (0..40).map(|_| Raw::connect(gateway.address)).collect();
    for raw in &mut waiting {
        raw.send(UPGRADE.replacen('/', "/hang", 1));
    }
    for number in 0..200 {
        assert_eq!(gateway.done("/api/push", json!({"uid": "ann", "data": number}))["queued"], 1);
        assert_eq!(next_of(&mut ann, "message")["data"], number);
    }
    for raw in &mut waiting {
        let reply = raw.reply();
        assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
    }
    assert_eq!(timed_out() - before, 40.0);
    // If a client disconnects while the hook runs, the server keeps no state of the client.
    let mut gone = Raw::connect(gateway.address);
    gone.send(UPGRADE.replacen('/', "/hang", 1));
    drop(gone);
    until("only the connection of ann is left", || gateway.metric(r#"fdpush_connections{state="other"}"#) == 0.0);
    assert_eq!(gateway.get("/api/stats")["open"], 1);
}

#[test]
fn connections_of_a_uid_and_of_an_address_are_limited() {
    let gateway = Gateway::start(&["--uid-connections-max", "2", "--address-connections-max", "3"]);
    let refused = |target: &str| refusal(Client::connect(gateway.address, target, &[])).0;
    let first = gateway.connect("/?uid=ann");
    let _second = gateway.connect("/?uid=ann");
    assert_eq!(refused("/?uid=ann"), 429);
    let third = gateway.connect("/");
    assert_eq!(refused("/"), 429, "the fourth connection of the address must be refused");
    assert_eq!(refused("/?uid=bob"), 429);
    hang_up(third);
    until("a new connection is accepted after the close", || {
        Client::connect(gateway.address, "/?uid=bob", &[]).is_ok()
    });
    hang_up(first);
    until("a new connection of ann is accepted after the close", || {
        Client::connect(gateway.address, "/?uid=ann", &[]).is_ok()
    });
    assert!(gateway.metric(r#"fdpush_refusals_total{status="429"}"#) >= 3.0);
}

#[test]
fn bind_keeps_the_connection_limit_of_a_uid() {
    let gateway = Gateway::start(&["--uid-connections-max", "1"]);
    let (ann, fd) = gateway.open("/?uid=ann", &[]);
    let (_bob, other) = gateway.open("/?uid=bob", &[]);
    let (status, answer) = gateway.post("/api/bind", json!({"fd": other, "uid": "ann"}));
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("too_many")), "{answer}");
    assert_eq!(gateway.get(&format!("/api/connections/{other}"))["uid"], "bob");
    assert_eq!(gateway.done("/api/bind", json!({"fd": fd, "uid": "ann"})), json!({"matched": 1, "changed": 0}));
    assert_eq!(gateway.done("/api/bind", json!({"fd": 999, "uid": "ann"}))["matched"], 0);
    hang_up(ann);
    gateway.done("/api/bind", json!({"fd": other, "uid": "ann"}));
}

#[test]
fn with_kick_old_the_connection_limit_of_a_uid_has_no_effect() {
    let gateway = Gateway::start(&["--uid-connections-max", "1", "--on-second-login", "kick_old"]);
    let mut first = gateway.connect("/?uid=ann");
    let _second = gateway.connect("/?uid=ann");
    assert_eq!(closed(&mut first).0, 4001);
    let gateway = Gateway::start(&["--uid-connections-max", "1", "--on-second-login", "reject_new"]);
    let _first = gateway.connect("/?uid=ann");
    assert_eq!(refusal(Client::connect(gateway.address, "/?uid=ann", &[])).0, 409);
}

#[test]
fn the_connection_limit_of_an_address_spans_all_listeners() {
    let gateway = Gateway::start(&["--listen", "127.0.0.2:0", "--address-connections-max", "2"]);
    let other: SocketAddr = gateway.others[0].parse().expect("the address is valid");
    let [ann, bob] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
    let connect = |from: IpAddr, to: SocketAddr| Client::connect_from(from, to, "/");
    let is_full = |from: IpAddr| [gateway.address, other].iter().all(|to| refusal(connect(from, *to)).0 == 429);
    let mut first = connect(ann, gateway.address).expect("the first connection of the address is accepted");
    let _second = connect(ann, other).expect("the second connection of the address is accepted");
    assert!(is_full(ann));
    let _third = connect(bob, gateway.address).expect("the first connection of the other address is accepted");
    let _fourth = connect(bob, other).expect("the second connection of the address is accepted");
    assert!(is_full(bob) && is_full(ann));
    let fd = next(&mut first)["fd"].take();
    assert_eq!(
        gateway.get(&format!("/api/connections/{fd}"))["peer"].as_str().map(|peer| &peer[..10]),
        Some("127.0.0.1:")
    );
    hang_up(first);
    // The end of a connection permits a new connection only from the same client address.
    let mut place = None;
    until("a new connection is accepted after the close", || {
        place = connect(ann, other).ok();
        place.is_some()
    });
    assert!(is_full(bob) && is_full(ann));
    assert_eq!(gateway.get("/api/stats")["open"], 4);
}

#[test]
fn connection_limits_hold_for_simultaneous_connects() {
    const CLIENTS: usize = 12;
    // The back end answers no request until all clients have asked. So the answers arrive together.
    let gate = Barrier::new(CLIENTS);
    let backend = Backend::start(move |_| {
        gate.wait();
        Answer::Status(200, r#"{"uid":"ann"}"#.to_owned())
    });
    let url = backend.url();
    let by_hook = ["--auth", "webhook", "--auth-url", &url, "--auth-timeout", "60s"];
    for (flags, bound, count) in [
        (&[][..], "--uid-connections-max", 2),
        (&[], "--address-connections-max", 3),
        (&by_hook, "--uid-connections-max", 4),
        (&by_hook, "--address-connections-max", 5),
    ] {
        let gateway = Gateway::start(&[flags, &[bound, &count.to_string()]].concat());
        let mut raws: Vec<Raw> = (0..CLIENTS).map(|_| Raw::connect(gateway.address)).collect();
        raws.iter_mut().for_each(|raw| raw.send(UPGRADE.replacen('/', "/?uid=ann", 1)));
        let statuses: Vec<u16> = raws.iter_mut().map(|raw| raw.reply().status).collect();
        let count_of = |status: u16| statuses.iter().filter(|one| **one == status).count();
        assert_eq!((count_of(101), count_of(429)), (count, CLIENTS - count), "{bound} {flags:?}");
    }
}

#[test]
fn a_waiting_connect_hook_does_not_delay_the_shutdown() {
    let backend = Backend::start(|_| Answer::Hang);
    let url = backend.url();
    let auth = ["--auth", "webhook", "--auth-url", &url, "--auth-timeout", "60s", "--drain-time-max", "2s"];
    let mut gateway = Gateway::start(&auth);
    let mut waiting = Raw::connect(gateway.address);
    waiting.send(UPGRADE);
    backend.requests.next();
    gateway.signal("-TERM");
    assert_eq!(waiting.reply().status, 503);
    assert!(gateway.wait().success());
}

#[test]
fn a_client_over_its_message_rate_is_warned_once_and_closed() {
    let gateway = Gateway::start(&["--message-rate", "1", "--message-burst", "3"]);
    let mut ann = gateway.connect("/?uid=ann");
    let (mut acks, mut errors) = (0, 0);
    // The client sends far more messages than the rate allows, even if the machine is slow.
    let mut raw = Raw::upgraded(gateway.address);
    let frame = crate::common::raw::frame(crate::common::raw::TEXT, br#"{"type":"heartbeat","id":1}"#);
    raw.send(frame.repeat(500));
    let code = loop {
        let (first, payload) = raw.frame();
        if first == 0x88 {
            break u16::from_be_bytes([payload[0], payload[1]]);
        }
        let frame: Value = serde_json::from_slice(&payload).expect("the text is JSON");
        match frame["type"].as_str() {
            Some("ack") => acks += 1,
            Some("error") => {
                assert_eq!(frame["code"], "rate_limited");
                errors += 1;
            }
            _ => assert_eq!(frame["type"], "welcome"),
        }
    };
    assert_eq!((code, errors), (1008, 1));
    assert!(acks >= 3, "{acks}");
    // The message rate applies to each connection separately.
    assert_eq!(ask(&mut ann, json!({"type": "heartbeat"}))["type"], "ack");
}

#[test]
fn new_connections_a_second_are_limited() {
    let gateway = Gateway::start(&["--accept-rate", "2"]);
    // All clients connect while the process is stopped, so one turn of the event loop accepts them.
    let mut clients: Vec<Raw> = Vec::new();
    gateway.while_stopped(|| clients.extend((0..20).map(|_| Raw::connect(gateway.address))));
    clients.iter_mut().for_each(|client| _ = client.try_send(UPGRADE));
    let replies: Vec<HttpResponse> = clients.iter_mut().map(Raw::reply).collect();
    let (accepted, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 101);
    assert!(refused.iter().all(|reply| (reply.status, reply.header("Retry-After")) == (503, Some("1"))), "{refused:?}");
    assert!(
        (2..20).contains(&accepted.len()),
        "the server must accept at least two clients, but not all: {accepted:?}"
    );
    // The accept rate does not limit the connections of back ends.
    assert_eq!(
        gateway.get("/api/stats")["opened"],
        accepted.len(),
        "each client with a 101 response must count as opened"
    );
    until("another client is accepted after a second", || Client::connect(gateway.address, "/", &[]).is_ok());
}
