//! Tests the reload on SIGHUP: the effect of each reloadable setting, and invalid files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::common::command::{FREE_PORTS, call};
use crate::common::gateway::{Gateway, closed, next, request, until};
use crate::common::raw::TEXT;
use crate::common::{Client, DEADLINE, Raw, Scratch, deflated, refusal};
use serde_json::json;

/// A server and its settings file.
struct Configured {
    file: PathBuf,
    gateway: Gateway,
    scratch: Scratch,
}

impl Configured {
    fn start(text: &str) -> Configured {
        Configured::start_with(text, &[])
    }

    fn start_with(text: &str, flags: &[&str]) -> Configured {
        let scratch = Scratch::new("reload");
        let file = scratch.file("fdpush.toml");
        fs::write(&file, text).expect("the file can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the mode can be changed");
        let gateway = Gateway::spawn(&[&["--config", &*file.display().to_string()], flags].concat());
        Configured { file, gateway, scratch }
    }

    /// Writes the file, sends SIGHUP and waits until the log reports these settings as changed.
    fn reload(&self, text: &str, keys: &[&str]) {
        fs::write(&self.file, text).expect("the file can be written");
        self.gateway.signal("-HUP");
        let line = self.gateway.logged("changed: ");
        let (_, changed) = line.split_once("changed: ").expect("the line contains these words");
        let changed: BTreeSet<&str> = changed.split(", ").collect();
        assert_eq!(changed, keys.iter().copied().collect(), "{line}");
    }
}

/// Connects a client that does not read. Pushes to it until its socket is full and the server queues bytes for it.
fn stalled(gateway: &Gateway, uid: &str) -> Raw {
    let mut raw = Raw::connect(gateway.address);
    raw.send(crate::common::raw::UPGRADE.replace("GET / ", &format!("GET /?uid={uid} ")));
    assert_eq!(raw.reply().status, 101);
    let push = json!({"uid": uid, "data": "x".repeat(200_000)});
    until("the socket of the client is full", || {
        gateway.done("/api/push", &push);
        gateway.get("/api/stats")["queued_bytes"].as_u64().expect("the value is a number") > 0
    });
    raw
}

fn status_of(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> u16 {
    let mut raw = Raw::connect(gateway.address);
    raw.send(bytes);
    raw.reply().status
}

/// Returns the status of the upgrade of a second connection with the same uid and address.
fn second(gateway: &Gateway) -> u16 {
    let _first = gateway.connect("/?uid=ann");
    match Client::connect(gateway.address, "/?uid=ann", &[]) {
        Ok(_) => 101,
        refused => refusal(refused).0,
    }
}

/// A setting, its value before and its value after the reload, a function that returns the effect of the setting, and
/// the expected results of this function before and after the reload.
type Effect = (&'static str, &'static str, &'static str, fn(&Gateway) -> String, [&'static str; 2]);

/// Returns the origins that the server accepts.
fn origins(gateway: &Gateway) -> String {
    let all = [
        "https://a.example.com",
        "https://a.b.example.com",
        "https://example.com",
        "https://evil-example.com",
        "https://example.com.evil",
        "null",
        "file://",
    ];
    let enters = |origin: &&str| Client::connect(gateway.address, "/", &[("Origin", origin)]).is_ok();
    all.into_iter().filter(enters).collect::<Vec<_>>().join(" ")
}

/// Returns whether the server negotiates compression, and whether it compresses a message of 2,000 bytes.
fn compresses(gateway: &Gateway) -> String {
    let (mut raw, accepted) = deflated::connect_offering(gateway.address, "/?uid=ann", "permessage-deflate");
    deflated::message(&mut raw);
    gateway.done("/api/push", json!({"uid": "ann", "text": "x".repeat(2000)}));
    format!("{} {}", accepted.is_some(), deflated::message(&mut raw).0)
}

/// Returns whether the server delays messages that inflate to half a MiB.
fn holds(gateway: &Gateway) -> String {
    let counted = || gateway.metric("fdpush_inflate_holds_total");
    let before = counted();
    let mut raw = deflated::connect(gateway.address, "/");
    let frame = json!({"type": "heartbeat", "id": 1}).to_string() + &" ".repeat(1 << 19);
    raw.send(deflated::deflated_frame(deflated::DEFLATED_TEXT, frame.as_bytes()).repeat(2));
    (0..3).for_each(|_| _ = deflated::message(&mut raw));
    (counted() > before).to_string()
}

const EFFECTS: [Effect; 22] = [
    ("inflated_bytes_per_second_max", "1048576", "1099511627776", holds, ["true", "false"]),
    ("compression", "\"off\"", "\"on\"", compresses, ["false false", "true true"]),
    ("compress_bytes_min", "1000", "3000", compresses, ["true true", "true false"]),
    (
        "origin",
        r#"["https://*.example.com"]"#,
        r#"["null", "file://"]"#,
        origins,
        ["https://a.example.com https://a.b.example.com", "null file://"],
    ),
    ("uid_connections_max", "2", "1", |gateway| second(gateway).to_string(), ["101", "429"]),
    ("address_connections_max", "2", "1", |gateway| second(gateway).to_string(), ["101", "429"]),
    ("head_bytes_max", "8192", "512", |gateway| status_with_headers(gateway, 1, 1000), ["404", "431"]),
    ("headers_max", "64", "10", |gateway| status_with_headers(gateway, 20, 1), ["404", "431"]),
    (
        "body_bytes_max",
        "8192",
        "1024",
        |gateway| gateway.post("/api/push", json!({"all": true, "data": "x".repeat(4000)})).0.to_string(),
        ["200", "413"],
    ),
    (
        "queue_bytes_max",
        "262144",
        "2048",
        |gateway| {
            let _ann = gateway.connect("/?uid=ann");
            gateway.post("/api/push", json!({"uid": "ann", "data": "x".repeat(4000)})).0.to_string()
        },
        ["200", "413"],
    ),
    (
        "message_bytes_max",
        "8192",
        "1024",
        |gateway| {
            let mut ann = gateway.connect("/");
            ann.send(&(json!({"type": "heartbeat", "id": 1}).to_string() + &" ".repeat(2000)));
            match ann.next() {
                tungstenite::Message::Close(frame) => {
                    u16::from(frame.expect("the close frame has a code").code).to_string()
                }
                other => serde_json::from_str::<serde_json::Value>(other.to_text().expect("the message is text"))
                    .expect("the text is JSON")["type"]
                    .to_string(),
            }
        },
        ["\"ack\"", "1009"],
    ),
    (
        "slow_reader",
        "\"drop_newest\"",
        "\"close\"",
        |gateway| {
            let _raw = stalled(gateway, "bob");
            let push = json!({"uid": "bob", "data": "x".repeat(200_000)});
            until("the queue of the client is full", || {
                gateway.done("/api/push", &push)["dropped"] != 0 || !is_online(gateway, "bob")
            });
            is_online(gateway, "bob").to_string()
        },
        ["true", "false"],
    ),
    ("message_rate", "1000", "1", |gateway| is_rate_limited(gateway, 3).to_string(), ["false", "true"]),
    ("message_burst", "10", "1", |gateway| is_rate_limited(gateway, 6).to_string(), ["false", "true"]),
    (
        "queue_total_bytes_max",
        "\"64MiB\"",
        "\"256KiB\"",
        |gateway| {
            let mut raw = Raw::connect(gateway.address);
            raw.send(crate::common::raw::UPGRADE.replace("GET / ", "GET /?uid=bob "));
            assert_eq!(raw.reply().status, 101);
            let push = json!({"uid": "bob", "data": "x".repeat(200_000)});
            until("the queue of the client is longer than the smaller bound", || {
                gateway.done("/api/push", &push);
                !is_online(gateway, "bob") || gateway.get("/api/stats")["queued_bytes"].as_u64() > Some(1 << 20)
            });
            is_online(gateway, "bob").to_string()
        },
        ["true", "false"],
    ),
    (
        "inbound_total_bytes_max",
        "\"64MiB\"",
        "\"128KiB\"",
        |gateway| {
            let mut raws: Vec<Raw> = (0..5).map(|_| Raw::upgraded(gateway.address)).collect();
            let message = crate::common::raw::frame(TEXT, &[b'x'; 60_000]);
            for raw in &mut raws {
                raw.send(&message[..50_000]);
            }
            until("the server stores all sent bytes, or has closed a client", || {
                let stats = gateway.get("/api/stats");
                stats["open"].as_u64() < Some(5) || stats["inbound_bytes"].as_u64() >= Some(250_000)
            });
            gateway.get("/api/stats")["open"].to_string()
        },
        ["5", "2"],
    ),
    ("subprotocols", "[\"chat.v1\"]", "[\"chat.v2\"]", subprotocols, ["chat.v1", "chat.v2"]),
    (
        "forwarded_header",
        "\"x-forwarded-for\"",
        "\"forwarded\"",
        |gateway| {
            let headers = [("X-Forwarded-For", "203.0.113.1"), ("Forwarded", "for=203.0.113.2")];
            let (_ann, fd) = gateway.open("/", &headers);
            gateway.get(&format!("/api/connections/{fd}"))["address"].to_string()
        },
        ["\"203.0.113.1\"", "\"203.0.113.2\""],
    ),
    (
        "accept_rate",
        "1000000",
        "1",
        |gateway| {
            // All clients connect while the process is stopped, so one turn of the event loop accepts them.
            let mut clients = Vec::new();
            gateway.while_stopped(|| clients.extend((0..5).map(|_| Raw::connect(gateway.address))));
            let status = |client: &mut Raw| {
                client.try_send(request("GET", "/none", &[], ""));
                client.reply().status
            };
            clients.iter_mut().map(status).collect::<BTreeSet<u16>>().contains(&503).to_string()
        },
        ["false", "true"],
    ),
    (
        "client_may",
        "[\"all\"]",
        "[\"nothing\"]",
        |gateway| {
            let mut ann = gateway.connect("/?uid=ann");
            ann.send(r#"{"type":"push","to":"bob","data":1,"id":1}"#);
            next(&mut ann)["code"].to_string()
        },
        ["null", "\"not_allowed\""],
    ),
    ("connection_groups_max", "1", "2", joins_of_two_groups, ["Some(\"not_allowed\")", "None"]),
    ("memberships_max", "2", "1", joins_of_two_groups, ["None", "Some(\"not_allowed\")"]),
];

/// Sends six heartbeats in one write, so that the server reads them in one turn. Returns whether one of the first
/// `answers` answers is an error because of the message rate.
fn is_rate_limited(gateway: &Gateway, answers: usize) -> bool {
    let mut raw = Raw::upgraded(gateway.address);
    raw.frame();
    raw.send(crate::common::raw::frame(TEXT, br#"{"type":"heartbeat","id":1}"#).repeat(6));
    (0..answers).any(|_| String::from_utf8_lossy(&raw.frame().1).contains("\"rate_limited\""))
}

/// Joins two groups. Returns the error code of the second join, or `None`.
fn joins_of_two_groups(gateway: &Gateway) -> String {
    let mut ann = gateway.connect("/?uid=ann");
    ann.send(r#"{"type":"join","group":"a"}"#);
    ann.send(r#"{"type":"join","group":"b","id":1}"#);
    let answer = std::iter::repeat_with(|| next(&mut ann)).find(|frame| frame["id"] == 1).expect("the server answers");
    format!("{:?}", answer["code"].as_str())
}

/// Returns the subprotocols that the server accepts.
fn subprotocols(gateway: &Gateway) -> String {
    let enters = |name: &&str| Client::connect(gateway.address, "/", &[("Sec-WebSocket-Protocol", name)]).is_ok();
    ["chat.v1", "chat.v2"].into_iter().filter(enters).collect()
}

fn status_with_headers(gateway: &Gateway, count: usize, bytes: usize) -> String {
    let value = "v".repeat(bytes);
    let headers: Vec<(String, &str)> = (0..count).map(|index| (format!("X-{index}"), value.as_str())).collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    status_of(gateway, request("GET", "/none", &headers, "")).to_string()
}

fn is_online(gateway: &Gateway, uid: &str) -> bool {
    gateway.call("GET", &format!("/api/users/{uid}"), &[], "").status == 200
}

#[test]
fn each_reloaded_setting_has_its_effect() {
    for (key, before, after, effect, [was, is]) in EFFECTS {
        // The tested setting has no effect without these other settings.
        let others = match key {
            "queue_bytes_max" => "message_bytes_max = 1024\n",
            "slow_reader" => "message_bytes_max = 1024\nqueue_bytes_max = \"512KiB\"\n",
            "message_burst" => "message_rate = 1\n",
            "inbound_total_bytes_max" => "message_bytes_max = \"64KiB\"\nbody_bytes_max = \"64KiB\"\n",
            "compress_bytes_min" | "inflated_bytes_per_second_max" => "compression = \"on\"\n",
            "forwarded_header" => "trusted_proxy = [\"127.0.0.1\"]\n",
            _ => "",
        };
        let text = |value: &str| format!("page = \"never\"\n{others}{key} = {value}\n");
        // Each loop may keep the input of one client, so several loops keep more.
        let flags: &[&str] = if key == "inbound_total_bytes_max" { &["--loops", "1"] } else { &[] };
        let configured = Configured::start_with(&text(before), flags);
        assert_eq!(effect(&configured.gateway), was, "{key} = {before}");
        until("all connections have ended", || configured.gateway.get("/api/stats")["open"] == 0);
        configured.reload(&text(after), &[key]);
        assert_eq!(effect(&configured.gateway), is, "{key} = {after}");
    }
}

#[test]
fn reloaded_times_apply_to_open_connections() {
    let long =
        ["head_time_max", "body_time_max", "keep_alive_max", "message_time_max", "close_wait_max", "write_time_max"];
    let text = |time: &str| -> String { long.iter().map(|key| format!("{key} = \"{time}\"\n")).collect() };
    let configured = Configured::start(&text("1h"));
    let gateway = &configured.gateway;
    let slow = stalled(gateway, "slow");
    let mut unfinished = Raw::connect(gateway.address);
    unfinished.send(crate::common::raw::UPGRADE);
    assert_eq!(unfinished.reply().status, 101);
    let (_, welcome) = unfinished.frame();
    assert!(String::from_utf8_lossy(&welcome).contains("welcome"));
    // The client sends only the first fragment of a message.
    unfinished.send(crate::common::raw::frame_with(TEXT, b"{"));
    configured.reload(&text("200ms"), &long);
    until("the slow reader is closed", || !is_online(gateway, "slow"));
    drop(slow);
    let (opcode, close) = unfinished.frame();
    assert_eq!((opcode, &close[..2]), (0x88, &1008_u16.to_be_bytes()[..]));
    // The client does not answer the close frame.
    unfinished.end();

    let head_only = |head: &str| status_of(gateway, head);
    assert_eq!(head_only("GET / HTTP/1.1\r\n"), 408);
    let mut api = Raw::connect(gateway.api);
    api.send(
        "POST /api/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{",
    );
    assert_eq!(api.reply().status, 408);
    // On a busy machine, the client can be too late for the short `head_time_max`, so it repeats the request.
    let mut idle = None;
    until("the server answers a request", || {
        let mut raw = Raw::connect(gateway.address);
        let is_answered = raw.try_send(request("GET", "/none", &[], "")) && raw.reply().status == 404;
        idle = Some(raw);
        is_answered
    });
    idle.expect("the request is answered").end();
}

/// The reloadable settings that are not in `EFFECTS`, each with the file and the name of the test that shows its
/// effect.
const ELSEWHERE: [(&[&str], &str, &str); 17] = [
    (&["forward_bytes_max"], include_str!("../loops.rs"), "a_reload_changes_the_bound_between_loops"),
    (
        &["head_time_max", "body_time_max", "keep_alive_max", "message_time_max", "close_wait_max", "write_time_max"],
        include_str!("reload.rs"),
        "reloaded_times_apply_to_open_connections",
    ),
    (&["drain_for"], include_str!("reload.rs"), "a_reloaded_drain_for_applies_to_the_drain"),
    (&["drain_time_max"], include_str!("reload.rs"), "a_reloaded_drain_time_max_applies_to_the_drain"),
    (
        &["answer_time_max"],
        include_str!("../../crate/server/limits.rs"),
        "a_shorter_answer_time_applies_to_the_next_upgrade",
    ),
    (
        &["queue_bytes_min"],
        include_str!("../../crate/server/limits.rs"),
        "a_larger_queue_minimum_lets_a_partly_written_frame_finish",
    ),
    (
        &["read_budget_bytes"],
        include_str!("../../crate/server/limits.rs"),
        "a_changed_read_budget_applies_to_open_connections",
    ),
    (&["api_key", "log"], include_str!("../webhook/events.rs"), "sighup_reloads_the_settings"),
    (&["api_key_file"], include_str!("reload.rs"), "a_file_of_api_keys_is_reloaded"),
    (&["jwt_secret", "webhook_secret"], include_str!("../webhook/events.rs"), "sighup_reloads_secrets"),
    (
        &["jwt_key_file"],
        include_str!("../auth/tokens.rs"),
        "each_algorithm_verifies_tokens_before_and_after_a_key_change",
    ),
    (&["address_ipv6_prefix"], include_str!("../auth/proxies.rs"), "ipv6_clients_are_counted_by_their_network"),
    (
        &["trusted_proxy"],
        include_str!("../auth/proxies.rs"),
        "sighup_changes_trusted_proxies_and_open_connections_keep_their_address",
    ),
    (
        &["tls_cert", "tls_key"],
        include_str!("../tls/reload.rs"),
        "new_handshakes_get_the_new_certificate_and_open_connections_stay",
    ),
    (&["tls_min"], include_str!("../tls/reload.rs"), "a_reload_changes_the_certificates_and_tls_min"),
    (&["tls_handshake_rate"], include_str!("../tls/reload.rs"), "a_reload_changes_the_handshake_rate"),
    (
        &["api_client_ca"],
        include_str!("../tls/reload.rs"),
        "the_authorities_of_back_ends_change_together_with_the_certificate",
    ),
];

/// Returns the settings that the example file marks as reloadable: those below a comment that ends with `(reload)`.
fn reloadable() -> BTreeSet<&'static str> {
    let mut keys = BTreeSet::new();
    let mut is_marked = false;
    for line in include_str!("../../../packaging/fdpush.toml").lines() {
        match line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
            Some((key, _))
                if key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') =>
            {
                keys.extend(is_marked.then_some(key));
            }
            _ => is_marked = line.ends_with("(reload)"),
        }
    }
    keys
}

#[test]
fn each_reloadable_setting_has_a_test_of_its_effect() {
    let mut tested: Vec<&str> = EFFECTS.iter().map(|effect| effect.0).collect();
    for (keys, source, test) in ELSEWHERE {
        let parts = source.split_once(&format!("#[test]\nfn {test}() {{"));
        let body = parts.unwrap_or_else(|| panic!("{test} must be a test")).1.split("\n}\n").next().unwrap_or_default();
        for key in keys {
            assert!(body.contains(key), "the test {test} must contain the setting {key}");
        }
        tested.extend(keys);
    }
    assert_eq!(tested.iter().copied().collect::<BTreeSet<_>>(), reloadable());
}

#[test]
fn a_file_of_api_keys_is_reloaded() {
    let scratch = Scratch::new("keys");
    let keys = scratch.file("keys");
    let write = |key: &str| {
        fs::write(&keys, format!("{key}\n")).expect("the file can be written");
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).expect("the mode can be changed");
    };
    write("alpha");
    let text = format!("api_key_file = \"{}\"\n", keys.display());
    let configured = Configured::start(&text);
    let status = |key: &str| {
        let header = format!("Bearer {key}");
        configured.gateway.call("GET", "/api/stats", &[("Authorization", &header)], "").status
    };
    assert_eq!((status("alpha"), status("beta")), (200, 401));
    write("beta");
    configured.reload(&text, &["api_key_file"]);
    assert_eq!((status("alpha"), status("beta")), (401, 200));
}

#[test]
fn a_reloaded_drain_time_max_applies_to_the_drain() {
    let text = |time: &str| format!("close_wait_max = \"1h\"\ndrain_time_max = \"{time}\"\n");
    let mut configured = Configured::start(&text("1h"));
    let mut silent = Raw::upgraded(configured.gateway.address);
    configured.reload(&text("300ms"), &["drain_time_max"]);
    configured.gateway.signal("-TERM");
    assert_eq!(configured.gateway.wait().code(), Some(0));
    silent.rest();
}

#[test]
fn a_reloaded_drain_for_applies_to_the_drain() {
    let text = |time: &str| format!("drain_for = \"{time}\"\ndrain_time_max = \"1h\"\n");
    let mut configured = Configured::start(&text("1h"));
    let mut clients = [configured.gateway.connect("/"), configured.gateway.connect("/")];
    configured.reload("drain_time_max = \"300ms\"\n", &["drain_for", "drain_time_max"]);
    configured.gateway.signal("-TERM");
    for client in &mut clients {
        assert_eq!(closed(client).0, 1001);
    }
    // The drain ends although the clients do not answer the close frame.
    assert_eq!(configured.gateway.wait().code(), Some(0));
}

#[test]
fn a_reload_logs_changed_settings_and_each_warning_once() {
    let configured = Configured::start("log = \"info\"\n");
    let gateway = &configured.gateway;
    let path = configured.file.display().to_string();
    fs::write(&configured.file, "message_burst = 5\nheaders_max = 32\n").expect("the file can be written");
    let mut lines = Vec::new();
    for words in ["changed: ", "nothing changed"] {
        gateway.signal("-HUP");
        lines.extend(gateway.logged_up_to(words));
        assert!(lines.last().is_some_and(|line| line.contains(&format!("files: {path}"))), "{lines:?}");
    }
    let warned = lines.iter().filter(|line| line.contains("message_burst has no effect")).count();
    assert_eq!(warned, 1, "{lines:?}");

    let bare = Gateway::start(&[]);
    bare.signal("-HUP");
    let line = bare.logged("nothing changed");
    assert!(line.contains("files: none"), "{line}");
}

#[test]
fn a_reload_cannot_remove_the_last_api_key() {
    let configured = Configured::start("api_key = [\"alpha\"]\n");
    let gateway = &configured.gateway;
    let status =
        |key: &str| gateway.call("GET", "/api/stats", &[("Authorization", &format!("Bearer {key}"))], "").status;
    let open = || gateway.call("GET", "/api/stats", &[], "").status;
    for text in ["", "# api_key = [\"alpha\"]\n", "headers_max = 32\n"] {
        fs::write(&configured.file, text).expect("the file can be written");
        gateway.signal("-HUP");
        let line = gateway.logged("settings not reloaded: ");
        assert!(line.contains("ERROR") && line.contains("last API key"), "{line}");
        assert_eq!((status("alpha"), open()), (200, 401), "{text}");
    }
    configured.reload("api_key = [\"beta\"]\n", &["api_key"]);
    assert_eq!((status("alpha"), status("beta"), open()), (401, 200, 401));
}

#[test]
fn a_reload_cannot_remove_the_webhook_secret() {
    let hook = "webhook = \"http://127.0.0.1:1\"\n";
    let configured = Configured::start(&format!("{hook}webhook_secret = \"hush\"\n"));
    for text in [hook, ""] {
        fs::write(&configured.file, text).expect("the file can be written");
        configured.gateway.signal("-HUP");
        let line = configured.gateway.logged("settings not reloaded: ");
        assert!(line.contains("ERROR") && line.contains("webhook_secret would be removed"), "{line}");
    }
    configured.reload(&format!("{hook}webhook_secret = \"quiet\"\n"), &["webhook_secret"]);
}

#[test]
fn reloading_a_file_that_is_not_regular_blocks_neither_clients_nor_shutdown() {
    let mut configured = Configured::start("headers_max = 32\n");
    let fifo = configured.scratch.file("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo can run").success());
    let sparse = configured.scratch.file("sparse");
    fs::File::create(&sparse).and_then(|file| file.set_len(10 << 30)).expect("the file can be created");
    let mut ann = configured.gateway.connect("/?uid=ann");
    let folder = configured.scratch.file("");
    for (path, why) in [
        (fifo.clone(), "not a regular file"),
        ("/dev/zero".into(), "not a regular file"),
        (folder, "not a regular file"),
        (sparse, "file exceeds"),
    ] {
        let path = path.display();
        for text in [format!("api_key_file = \"{path}\"\n"), format!("auth = \"jwt\"\njwt_key_file = [\"{path}\"]\n")] {
            fs::write(&configured.file, format!("headers_max = 16\n{text}")).expect("the file can be written");
            configured.gateway.signal("-HUP");
            let line = configured.gateway.logged("settings not reloaded: ");
            assert!(line.contains(why), "{line}");
        }
        configured.gateway.done("/api/push", json!({"uid": "ann", "data": 1}));
        assert_eq!(next(&mut ann)["data"], 1);
    }
    // At the next SIGHUP, the settings file is a FIFO. At the SIGHUP after it, the file is regular again.
    fs::remove_file(&configured.file).expect("the file can be removed");
    fs::rename(&fifo, &configured.file).expect("the file can be renamed");
    configured.gateway.signal("-HUP");
    configured.gateway.logged("not a regular file");
    fs::remove_file(&configured.file).expect("the file can be removed");
    fs::write(&configured.file, "headers_max = 32\norigin = [\"https://a.example\"]\n")
        .expect("the file can be written");
    configured.gateway.signal("-HUP");
    configured.gateway.logged("changed: origin");
    configured.gateway.signal("-TERM");
    assert_eq!(closed(&mut ann).0, 1001);
    ann.close(1000, "");
    assert_eq!(configured.gateway.wait().code(), Some(0));
}

#[test]
fn a_file_that_is_not_regular_is_an_error_at_the_start() {
    let scratch = Scratch::new("start");
    let fifo = scratch.file("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo can run").success());
    let fifo = fifo.display().to_string();
    for command in ["check", "serve"] {
        for flags in [
            &["--config", &*fifo][..],
            &["--api-key-file", &fifo],
            &["--auth", "jwt", "--jwt-key-file", &fifo],
            &["--webhook", "https://127.0.0.1:1", "--webhook-ca-file", &fifo],
        ] {
            let printed = call(&[&[command], flags].concat(), &FREE_PORTS);
            assert!(printed.code == Some(1) && printed.err.contains("not a regular file"), "{flags:?}: {printed:?}");
        }
    }
    assert!(DEADLINE.as_secs() > 5, "the deadline of a test must exceed the 5 s that reading a file may take");
}
