//! Tests webhook events, SIGHUP, health probes, metrics and SIGTERM.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::common::backend::{Answer, Backend};
use crate::common::command::call;
use crate::common::events::{Events, start_accepting_back_end, start_with_webhook};
use crate::common::gateway::{Gateway, SECRET, closed, hang_up, json_of, next, until};
use crate::common::{Client, Raw, Scratch, UNSHARED, refusal};
use serde_json::{Value, json};

#[test]
fn a_back_end_gets_all_events_in_order() {
    let backend = start_accepting_back_end();
    let gateway = start_with_webhook(&backend, &[]);
    let mut events = Events::of(&backend);
    let (mut ann, fd) = gateway.open("/ch%C3%A4t?uid=ann", &[]);
    assert_eq!(events.next(), json!({"type": "open", "fd": fd, "uid": "ann", "path": "/chät"}));
    ann.send(r#"{"type":"heartbeat"}"#);
    ann.send("not even JSON");
    ann.send_binary(&[0, 255, 62, 63]);
    for text in [r#"{"type":"heartbeat"}"#, "not even JSON"] {
        assert_eq!(events.next(), json!({"type": "message", "fd": fd, "uid": "ann", "text": text}));
    }
    // A binary message is not a valid frame. A binary message causes no `message` event, and the server closes the
    // connection.
    let close = |fd: u64, uid: Value, code: u16, reason: &str, by: &str, cause: &str| json!({"type": "close", "fd": fd, "uid": uid, "code": code, "reason": reason, "by": by, "cause": cause});
    let by_server = close(fd, json!("ann"), 1003, "frames must be JSON text", "server", "server_closed");
    assert_eq!(events.next(), by_server);
    assert_eq!(closed(&mut ann).0, 1003);

    let mut bob = gateway.open("/?uid=bob", &[]);
    assert_eq!(events.next()["type"], "open");
    bob.0.close(4321, "bye");
    assert_eq!(events.next(), close(bob.1, json!("bob"), 4321, "bye", "client", "client_closed"));
    let (lost, fd) = gateway.open("/", &[]);
    assert_eq!(events.next()["uid"], Value::Null);
    drop(lost);
    assert_eq!(events.next(), close(fd, Value::Null, 1006, "", "client", "connection_lost"));
    // A refused upgrade causes no `open` event.
    assert_eq!(refusal(Client::connect(gateway.address, "/?uid=", &[])).0, 400);
    let (_kicked, fd) = gateway.open("/", &[]);
    assert_eq!(events.next()["fd"], fd);
    gateway.done("/api/close", json!({"fd": fd, "code": 4000, "reason": "out"}));
    assert_eq!(events.next(), close(fd, Value::Null, 4000, "out", "server", "server_closed"));
    until("the back end has accepted all events", || gateway.metric("fdpush_webhook_sent_total") == 10.0);
    assert_eq!(gateway.metric("fdpush_webhook_queue"), 0.0);
}

#[test]
fn an_open_event_has_the_groups_that_were_joined() {
    let backend = start_accepting_back_end();
    let flags = ["--auth", "jwt", "--jwt-secret", SECRET, "--connection-groups-max", "2", "--webhook-events", "open"];
    let gateway = start_with_webhook(&backend, &flags);
    let line = ["token", "--uid", "ann", "--groups", "b,a,b,d,c", "--jwt-secret", SECRET];
    let token = call(&line, &[]).out;
    let (_ann, fd) = gateway.open(&format!("/?token={}", token.trim()), &[]);
    let groups = json!(["b", "a"]);
    let event = Events::of(&backend).next();
    assert_eq!(event, json!({"type": "open", "fd": fd, "uid": "ann", "path": "/", "groups": groups}));
    assert_eq!(gateway.get("/api/groups")["groups"].as_array().map(Vec::len), Some(2));
    gateway.logged(&format!("fd {fd}: 2 of the 5 groups of its identity not joined: group limit reached"));
}

#[test]
fn every_open_event_has_its_close_event_at_shutdown() {
    const CLIENTS: usize = 100;
    let backend = start_accepting_back_end();
    let mut gateway = start_with_webhook(&backend, &["--webhook-batch-max", "7"]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|number| gateway.connect(&format!("/?uid=u{number}"))).collect();
    for (number, client) in clients.drain(..CLIENTS / 2).enumerate() {
        if number % 2 == 0 { drop(client) } else { hang_up(client) }
    }
    let ended = |cause: &str| gateway.metric(&format!("fdpush_closes_total{{cause=\"{cause}\"}}"));
    until("the server has detected that half of the clients disconnected", || {
        [ended("connection_lost"), ended("client_closed")] == [25.0, 25.0]
    });
    gateway.signal("-TERM");
    clients.iter_mut().for_each(|client| assert_eq!(closed(client).0, 1001));
    drop(clients);
    assert!(gateway.wait().success());
    let mut events = Events::of(&backend);
    let mut open = Vec::new();
    let mut causes = Vec::new();
    for _ in 0..2 * CLIENTS {
        let event = events.next();
        match event["type"].as_str() {
            Some("open") => open.push((event["fd"].clone(), event["uid"].clone())),
            Some("close") => {
                let whose = (event["fd"].clone(), event["uid"].clone());
                let place = open.iter().position(|opened| *opened == whose).expect("the WebSocket was open");
                open.remove(place);
                causes.push(event["cause"].as_str().expect("the event has a cause").to_owned());
            }
            _ => panic!("{event}"),
        }
    }
    assert!(open.is_empty() && backend.requests.so_far().is_empty());
    let count = |cause: &str| causes.iter().filter(|one| *one == cause).count();
    assert_eq!((count("connection_lost"), count("client_closed"), count("drained")), (25, 25, 50), "{causes:?}");
}

#[test]
fn a_uid_whose_client_reconnects_within_the_grace_time_stays_online() {
    let backend = start_accepting_back_end();
    let gateway = start_with_webhook(&backend, &["--webhook-events", "online,offline", "--presence-delay", "1h"]);
    let mut events = Events::of(&backend);
    let first = gateway.connect("/?uid=ann");
    assert_eq!(events.next(), json!({"type": "online", "uid": "ann"}));
    let second = gateway.connect("/?uid=ann");
    hang_up(first);
    hang_up(second);
    // A client that reconnects within the grace time (`--presence-delay`, here one hour), as after a page refresh,
    // causes no `offline` and no `online` event. So the next event is about bob.
    let _third = gateway.connect("/?uid=ann");
    let (_bob, fd) = gateway.open("/", &[]);
    gateway.done("/api/bind", json!({"fd": fd, "uid": "bob"}));
    assert_eq!(events.next(), json!({"type": "online", "uid": "bob"}));
}

#[test]
fn a_uid_is_offline_when_its_last_connection_is_gone_for_the_grace_time() {
    let backend = start_accepting_back_end();
    let gateway = start_with_webhook(&backend, &["--webhook-events", "online,offline", "--presence-delay", "200ms"]);
    let mut events = Events::of(&backend);
    let ann = gateway.connect("/?uid=ann");
    assert_eq!(events.next(), json!({"type": "online", "uid": "ann"}));
    let (bob, fd) = gateway.open("/", &[]);
    gateway.done("/api/bind", json!({"fd": fd, "uid": "bob"}));
    assert_eq!(events.next(), json!({"type": "online", "uid": "bob"}));
    gateway.done("/api/unbind", json!({"fd": fd}));
    assert_eq!(events.next(), json!({"type": "offline", "uid": "bob"}));
    hang_up(bob);
    hang_up(ann);
    assert_eq!(events.next(), json!({"type": "offline", "uid": "ann"}));
    let _again = gateway.connect("/?uid=ann");
    assert_eq!(events.next(), json!({"type": "online", "uid": "ann"}));
}

#[test]
fn connections_that_end_in_one_turn_cause_one_offline_event() {
    let backend = start_accepting_back_end();
    let flags = ["--webhook-events", "close,online,offline", "--presence-delay", "0s"];
    let gateway = start_with_webhook(&backend, &flags);
    let mut events = Events::of(&backend);
    for _ in 0..3 {
        let clients = [(); 2].map(|()| gateway.connect("/?uid=ann"));
        assert_eq!(events.next(), json!({"type": "online", "uid": "ann"}));
        // Both connections end while the process of the server is stopped. So the server detects the ends of both
        // connections in one turn.
        gateway.while_stopped(|| drop(clients));
        for _ in 0..2 {
            let close = events.next();
            assert_eq!((&close["type"], &close["uid"]), (&json!("close"), &json!("ann")), "{close}");
        }
        assert_eq!(events.next(), json!({"type": "offline", "uid": "ann"}));
    }
}

#[test]
fn at_shutdown_every_uid_gets_an_offline_event() {
    let backend = start_accepting_back_end();
    let mut gateway = start_with_webhook(&backend, &["--webhook-events", "online,offline", "--presence-delay", "1h"]);
    let mut events = Events::of(&backend);
    let ann = gateway.connect("/?uid=ann");
    let mut bob = gateway.connect("/?uid=bob");
    for uid in ["ann", "bob"] {
        assert_eq!(events.next(), json!({"type": "online", "uid": uid}));
    }
    hang_up(ann);
    gateway.signal("-TERM");
    assert_eq!(closed(&mut bob).0, 1001);
    drop(bob);
    for uid in ["ann", "bob"] {
        assert_eq!(events.next(), json!({"type": "offline", "uid": uid}));
    }
    assert!(gateway.wait().success());
}

#[test]
fn shutdown_does_not_wait_for_a_back_end_that_hangs() {
    let backend = Backend::start(|_| Answer::Hang);
    let mut gateway = start_with_webhook(&backend, &["--drain-time-max", "1s", "--webhook-timeout", "60s"]);
    let mut ann = gateway.connect("/?uid=ann");
    backend.requests.next();
    gateway.signal("-TERM");
    assert_eq!(closed(&mut ann).0, 1001);
    assert!(gateway.wait().success());
}

#[test]
fn a_signal_while_the_last_events_are_sent_ends_the_process_at_once() {
    for signal in ["-TERM", "-INT"] {
        let backend = Backend::start(|_| Answer::Hang);
        let mut gateway = start_with_webhook(&backend, &["--webhook-timeout", "60s"]);
        let mut ann = gateway.connect("/?uid=ann");
        backend.requests.next();
        gateway.signal("-TERM");
        assert_eq!(closed(&mut ann).0, 1001);
        drop(ann);
        gateway.logged("sending the last 2 webhook events");
        gateway.signal(signal);
        gateway.logged("2 webhook events dropped at shutdown");
        gateway.logged("a signal stopped the delivery of the last webhook events");
        assert!(!gateway.wait().success(), "{signal}");
    }
}

#[test]
fn an_open_event_has_the_groups_and_attributes_of_the_connect_hook() {
    let backend = Backend::start(|request| match request.json().get("events") {
        Some(_) => Answer::Status(200, String::new()),
        None => Answer::Status(200, r#"{"uid":"ann","groups":["g","h"],"attributes":{"plan":"pro"}}"#.to_owned()),
    });
    let url = backend.url();
    let gateway = start_with_webhook(&backend, &["--auth", "webhook", "--auth-url", &url]);
    let (_ann, fd) = gateway.open("/path", &[]);
    assert_eq!(backend.requests.next().json()["target"], "/path");
    let open = Events::of(&backend).next();
    let attributes = json!({"plan": "pro"});
    let expected = json!({"type": "open", "fd": fd, "uid": "ann", "path": "/path", "groups": ["g", "h"], "attributes": attributes});
    assert_eq!(open, expected);
}

/// A server and its settings file.
struct Configured {
    file: PathBuf,
    gateway: Gateway,
    _scratch: Scratch,
}

impl Configured {
    fn start(name: &str, text: &str) -> Configured {
        let scratch = Scratch::new(name);
        let file = scratch.file("fdpush.toml");
        fs::write(&file, text).expect("the file can be written");
        let gateway = Gateway::spawn(&["--config", &file.display().to_string()]);
        Configured { file, gateway, _scratch: scratch }
    }

    /// Writes the file, sends SIGHUP and waits for a log line with these words.
    fn reload(&self, text: &str, words: &str) -> String {
        fs::write(&self.file, text).expect("the file can be written");
        self.gateway.signal("-HUP");
        self.gateway.logged(words)
    }

    fn status_with(&self, key: &str) -> u16 {
        self.gateway.call("GET", "/api/stats", &[("Authorization", &format!("Bearer {key}"))], "").status
    }
}

#[test]
fn sighup_reloads_the_settings() {
    let text = "api_key = [\"old\"]\norigin = [\"https://old.example\"]\nmessage_bytes_max = \"1KiB\"\n";
    let configured = Configured::start("hangup", text);
    let gateway = &configured.gateway;
    let is_accepted_from = |origin: &str| Client::connect(gateway.address, "/", &[("Origin", origin)]).is_ok();
    assert_eq!((configured.status_with("old"), configured.status_with("new")), (200, 401));
    assert_eq!((is_accepted_from("https://old.example"), is_accepted_from("https://new.example")), (true, false));
    let mut ann = gateway.connect("/?uid=ann");
    let long = json!({"type": "heartbeat", "id": "x".repeat(100)}).to_string() + &" ".repeat(2000);

    let text = "api_key = [\"new\"]\norigin = [\"https://new.example\"]\nmessage_bytes_max = \"8KiB\"\n\
        log = \"debug\"\nping_every = \"7s\"\nclient_may = [\"nothing\"]\nmessage_burst = 5\n";
    configured.reload(text, "message_burst has no effect without --message-rate");
    let log = gateway.logged("changed: ");
    for key in ["log", "origin", "client_may", "api_key", "message_bytes_max"] {
        assert!(log.contains(key), "{key}: {log}");
    }
    assert!(!log.contains("api_key_file"), "{log}");
    assert!(gateway.logged("need a restart: ").contains("ping_every"));
    assert_eq!((configured.status_with("old"), configured.status_with("new")), (401, 200));
    assert_eq!((is_accepted_from("https://old.example"), is_accepted_from("https://new.example")), (false, true));
    // SIGHUP keeps the connections open. The new limits and permissions apply to them.
    ann.send(&long);
    assert_eq!(next(&mut ann)["type"], "ack");
    ann.send(r#"{"type":"push","to":"ann","data":1,"id":1}"#);
    assert_eq!(next(&mut ann)["code"], "not_allowed");
    gateway.logged("DEBUG");
}

#[test]
fn an_invalid_file_changes_nothing() {
    let configured = Configured::start("broken", "api_key = [\"old\"]\n");
    for broken in [
        "api_key = [\"new\"",
        "api_key = [\"new\"]\nheaders_max = 0\n",
        "api_key = [\"new\"]\nheader_max = 10\n",
        "api_key = [\"two words\"]\n",
        "api_key = [\"new\"]\nmessage_bytes_max = \"2MiB\"\nqueue_bytes_max = \"1MiB\"\n",
        "api_key = [\"new\"]\norigin = [\"example\"]\n",
        "api_key = [\"new\"]\napi_key_file = \"/nowhere/at/all\"\n",
    ] {
        let log = configured.reload(broken, "settings not reloaded: ");
        assert!(!log.contains("two words"), "{log}");
        assert_eq!((configured.status_with("old"), configured.status_with("new")), (200, 401), "{broken}");
    }
    configured.reload("api_key = [\"old\"]\n", "nothing changed");
    configured.reload("api_key = [\"new\"]\n", "changed: api_key");
    assert_eq!((configured.status_with("old"), configured.status_with("new")), (401, 200));
}

#[test]
fn sighup_reloads_secrets() {
    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";
    let backend = start_accepting_back_end();
    let text = |jwt: &str, webhook: &str| {
        let hook = format!("webhook = \"{}\"\nwebhook_secret = \"{webhook}\"\n", backend.url());
        format!("{hook}auth = \"jwt\"\njwt_secret = [{jwt}]\n")
    };
    let configured = Configured::start("secrets", &text(&format!("\"{OLD}\""), "hush"));
    let gateway = &configured.gateway;
    let enters = |secret: &str| {
        let token = call(&["token", "--uid", "ann", "--jwt-secret", secret], &[]).out;
        Client::connect(gateway.address, &format!("/?token={}", token.trim()), &[])
    };
    let mut ann = enters(OLD).expect("the secret is valid");
    assert_eq!(next(&mut ann)["type"], "welcome");
    assert_eq!(refusal(enters(NEW)).0, 401);
    assert!(backend.requests.next().is_signed_with("hush"));

    let both = format!("\"{NEW}\", \"{OLD}\"");
    let log = configured.reload(&text(&both, "quiet"), "changed: ");
    assert!(log.contains("jwt_secret, webhook_secret") && !log.contains("quiet"), "{log}");
    assert!(enters(OLD).is_ok() && enters(NEW).is_ok());
    until("requests are signed with the new secret", || backend.requests.next().is_signed_with("quiet"));
    configured.reload(&text(&format!("\"{NEW}\""), "quiet"), "changed: jwt_secret");
    assert_eq!(refusal(enters(OLD)).0, 401);
    // SIGHUP keeps the connections open.
    gateway.done("/api/push", json!({"uid": "ann", "data": 1}));
    assert_eq!(next(&mut ann)["data"], 1);
}

#[test]
fn a_limit_set_by_sighup_counts_open_connections() {
    let configured = Configured::start("bound", "\n");
    let gateway = &configured.gateway;
    let first = gateway.connect("/");
    let second = gateway.connect("/");
    configured.reload("address_connections_max = 2\n", "changed: address_connections_max");
    assert_eq!(refusal(Client::connect(gateway.address, "/", &[])).0, 429);
    hang_up(first);
    until("a new connection is accepted after the close", || Client::connect(gateway.address, "/", &[]).is_ok());
    hang_up(second);
    configured.reload("\n", "changed: address_connections_max");
    let _many: Vec<Client> = (0..5).map(|_| gateway.connect("/")).collect();
}

#[test]
fn readiness_ends_before_the_process() {
    let mut gateway = Gateway::start(&["--drain-time-max", "1h", "--close-wait-max", "1h"]);
    let mut probe = Raw::connect(gateway.api);
    let mut ask = |path: &str| {
        probe.send(crate::common::gateway::request("GET", path, &[], ""));
        let reply = probe.reply();
        (reply.status, reply.body)
    };
    assert_eq!(ask("/readyz"), (200, "ready\n".to_owned()));
    // This client does not answer the close frame, so the drain waits.
    let mut unresponsive = Raw::upgraded(gateway.address);
    gateway.signal("-TERM");
    assert_eq!(unresponsive.close_frame().0, 1001);
    assert_eq!(ask("/readyz").0, 503);
    let mut another = Raw::connect(gateway.api);
    another.send(crate::common::gateway::request("GET", "/healthz", &[], ""));
    assert_eq!(another.reply().status, 200);
    drop(unresponsive);
    assert!(gateway.wait().success());
}

#[test]
fn a_full_server_is_not_ready() {
    let gateway = Gateway::start(&["--connections-max", "2"]);
    let ready = || gateway.call("GET", "/readyz", &[], "").status;
    let _first = gateway.connect("/");
    assert_eq!(ready(), 200);
    let second = gateway.connect("/");
    assert_eq!(ready(), 503);
    hang_up(second);
    until("the server accepts connections", || ready() == 200);
}

#[test]
fn metrics_report_activity() {
    let gateway = Gateway::start(&[]);
    let (mut ann, _) = gateway.open("/?uid=ann", &[]);
    let (bob, fd) = gateway.open("/?uid=bob", &[]);
    ann.send(r#"{"type":"push","to":"ann","data":1}"#);
    assert_eq!(next(&mut ann)["data"], 1);
    gateway.done("/api/join", json!({"fd": fd, "group": "g"}));
    gateway.post("/api/push", json!({}));
    gateway.call("GET", &format!("/nowhere/{fd}"), &[], "");
    hang_up(bob);
    assert_eq!(refusal(Client::connect(gateway.address, "/?uid=", &[])).0, 400);
    until("the connections of bob and of the refused client have ended", || {
        gateway.metric("fdpush_connections{state=\"other\"}") == 0.0
    });
    let reply = gateway.call("GET", "/metrics", &[], "");
    assert!(reply.header("Content-Type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert!(reply.body.ends_with("# EOF\n"));
    for line in [
        "fdpush_connections{state=\"open\"} 1",
        "fdpush_connections{state=\"other\"} 0",
        "fdpush_api_connections_max 256",
        "fdpush_api_refusals_total{status=\"503\"} 0",
        "fdpush_uids 1",
        "fdpush_groups 0",
        "fdpush_opens_total 2",
        "fdpush_closes_total{cause=\"client_closed\"} 1",
        "fdpush_closes_total{cause=\"handler_panicked\"} 0",
        "fdpush_refusals_total{status=\"400\"} 1",
        "fdpush_refusals_total{status=\"503\"} 0",
        "fdpush_messages_total{direction=\"in\"} 1",
        "fdpush_api_requests_total{path=\"/api/join\",status=\"200\"} 1",
        "fdpush_api_requests_total{path=\"/api/push\",status=\"400\"} 1",
        "fdpush_api_requests_total{path=\"other\",status=\"404\"} 1",
        concat!("fdpush_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(reply.body.lines().any(|found| found == line), "{line}\n{}", reply.body);
    }
    for histogram in ["fdpush_turn_duration_seconds_count", "fdpush_push_to_write_seconds_count"] {
        assert!(gateway.metric(histogram) > 0.0, "{histogram}");
    }
}

#[test]
fn sigterm_during_pushes_closes_every_client_with_1001() {
    const CLIENTS: usize = 300;
    let mut gateway = Gateway::start(&["--listen", UNSHARED, "--drain-time-max", "1h", "--close-wait-max", "1h"]);
    let address: SocketAddr = gateway.others[0].parse().expect("the address is valid");
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| Raw::upgraded(address)).collect();
    let mut back_end = Raw::connect(gateway.api);
    // When the signal arrives, most of these pushes are queued, or the server has not read them.
    let push = json!({"all": true, "data": "x".repeat(500)}).to_string();
    let json_type = [("Content-Type", "application/json")];
    let pushes = crate::common::gateway::request("POST", "/api/push", &json_type, &push).repeat(50);
    back_end.send(&pushes);
    assert_eq!(json_of(&back_end.reply())["matched"], CLIENTS);
    gateway.signal("-TERM");
    for client in &mut clients {
        // The client must receive only complete frames before the close frame.
        assert_eq!(client.close_frame(), (1001, "server is shutting down".to_owned()));
        client.send_frame(crate::common::raw::CLOSE, &crate::common::raw::close_payload(1001, ""));
        client.end();
    }
    assert!(gateway.wait().success());
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn client_text_cannot_forge_a_log_line() {
    let gateway = Gateway::spawn(&["--log", "debug"]);
    let forger = gateway.connect("/?uid=x%0A2026-01-01%20ERROR%20all%20is%20lost%1B[31m%C2%85");
    let named = r#"uid "x\n2026-01-01 ERROR all is lost\u{1b}[31m\u{85}""#;
    assert!(gateway.logged("opened from").ends_with(named));
    hang_up(forger);
    assert!(gateway.logged(" closed: ").contains(named));
    let (status, _) = refusal(Client::connect(gateway.address, "/", &[("Origin", "https://a\u{9b}31m")]));
    assert_eq!(status, 403);
    assert!(gateway.logged("WARN").contains(r"origin https://a\xc2\x9b31m "));
}

/// The `queue_bytes_max` of the server in the last test of this file.
const QUEUE: usize = 128 << 10;

/// Connects over a unix socket, and returns the client and its fd.
///
/// A unix socket buffers a limited number of bytes. So if the client does not read, further output stays in the queue
/// of the connection.
fn open_unix(path: &Path, target: &str) -> (Client, u64) {
    let mut client = Client::connect_unix(path, target).expect("the server accepts the WebSocket");
    let fd = next(&mut client)["fd"].as_u64().expect("the fd is valid");
    (client, fd)
}

/// Pushes to a client that does not read, until the queue of its connection has no room for an ack.
fn fill(gateway: &Gateway, fd: u64) {
    let push = |bytes: usize| gateway.done("/api/push", json!({"fd": fd, "text": "x".repeat(bytes)}));
    let queued = || {
        let info = gateway.get(&format!("/api/connections/{fd}"));
        usize::try_from(info["queued_bytes"].as_u64().expect("the value is a number"))
            .expect("the size fits into usize")
    };
    until("the queue of the connection is nearly full", || {
        push(16 << 10);
        queued() >= QUEUE - (20 << 10)
    });
    // The frame of this push has a header of four bytes. After this push, the queue has room for 16 more bytes.
    push(QUEUE - queued() - 20);
    assert_eq!(queued(), QUEUE - 16);
}

#[test]
fn a_connection_closed_by_its_own_ack_keeps_group_counts_right() {
    let scratch = Scratch::new("acks");
    let path = scratch.file("sock");
    // With several loops, a notice can arrive while the test fills a queue.
    let limits = ["--loops", "1", "--queue-bytes-max", &QUEUE.to_string(), "--message-bytes-max", "64KiB"];
    let gateway = Gateway::start(&[&limits[..], &["--listen", &format!("unix:{}", path.display())]].concat());
    let connections = |uid: &str| gateway.done("/api/online", json!({"uids": [uid]}))["online"][uid].clone();
    let change = |kind: &str| json!({"type": kind, "group": "g", "id": 1}).to_string();
    let join = r#"{"type":"join","group":"g"}"#;
    let joined = |uid: &str, count: u32| json!({"type": "joined", "group": "g", "uid": uid, "count": count});
    let left = |uid: &str, count: u32| json!({"type": "left", "group": "g", "uid": uid, "count": count});
    let mut bob = gateway.connect("/?uid=bob");
    bob.send(join);
    assert_eq!(next(&mut bob), joined("bob", 1));
    let (mut first, fd) = open_unix(&path, "/?uid=ann");
    first.send(join);
    assert_eq!(next(&mut bob), joined("ann", 2));
    let (mut second, stuffed) = open_unix(&path, "/?uid=ann");
    fill(&gateway, stuffed);
    second.send(&change("join"));
    until("the second connection of ann is closed", || connections("ann") == json!([fd]));
    // The first connection of ann is still in the group. So bob gets a `left` notice only when this connection leaves.
    first.send(r#"{"type":"leave","group":"g"}"#);
    assert_eq!(next(&mut bob), left("ann", 1));
    first.send(join);
    assert_eq!(next(&mut bob), joined("ann", 2));
    fill(&gateway, fd);
    first.send(&change("leave"));
    assert_eq!(next(&mut bob), left("ann", 1));
    until("all connections of ann are closed", || connections("ann").is_null());
    let mut third = gateway.connect("/?uid=ann");
    third.send(join);
    assert_eq!(next(&mut bob), joined("ann", 2));
}
