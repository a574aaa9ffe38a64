//! Tests API commands for many connections: the output grows linearly with the number of connections, receivers share
//! one frame, and the server closes no client that reads.

use std::fmt::Write;
use std::thread::{self, JoinHandle};

use crate::common::gateway::{Gateway, next, next_of, request};
use crate::common::{Client, Raw};
use serde_json::{Value, json};

/// The number of connections. With this number, output that grows quadratically would be 45,150 messages
/// (300 × 301 / 2), and output that grows linearly is 300 messages.
const MANY: usize = 300;

/// Connects `count` clients with the uids `u0`, `u1`, `u2`, …. Returns the clients and their fds.
fn connect_many(gateway: &Gateway, count: usize) -> (Vec<Client>, Vec<u64>) {
    (0..count).map(|number| gateway.open(&format!("/?uid=u{number}"), &[])).unzip()
}

fn uids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("u{number}")).collect()
}

/// Starts a thread for each client. The thread reads `frames` messages, each longer than `bytes` bytes.
fn read_all(clients: Vec<Client>, frames: usize, bytes: usize) -> Vec<JoinHandle<Client>> {
    let read = |mut client: Client| {
        thread::spawn(move || {
            for _ in 0..frames {
                let text = client.text();
                assert!(text.len() > bytes && text.starts_with(r#"{"type":"message","#), "{}", &text[..60]);
            }
            client
        })
    };
    clients.into_iter().map(read).collect()
}

fn join_all(readers: Vec<JoinHandle<Client>>) -> Vec<Client> {
    readers.into_iter().map(|reader| reader.join().expect("the client receives all its messages")).collect()
}

#[test]
fn a_large_push_to_many_fast_readers_closes_no_reader() {
    let gateway = Gateway::start(&[]);
    let (mut clients, _) = connect_many(&gateway, MANY);
    for bytes in [100_000, 1_000_000] {
        let readers = read_all(clients, 1, bytes);
        let pushed = gateway.done("/api/push", json!({"uids": uids(MANY), "data": "x".repeat(bytes)}));
        assert_eq!(pushed, json!({"matched": MANY, "queued": MANY, "dropped": 0, "offline": []}));
        clients = join_all(readers);
    }
    // A `push` frame of a client can also have many targets.
    let mut sender = gateway.connect("/?uid=sender");
    let readers = read_all(clients, 1, 500_000);
    sender.send(&json!({"type": "push", "to": uids(MANY), "data": "x".repeat(500_000), "id": 1}).to_string());
    let ack = next(&mut sender);
    assert_eq!(ack, json!({"type": "ack", "id": 1, "matched": MANY, "queued": MANY, "dropped": 0}));
    let _clients = join_all(readers);
    assert_eq!(gateway.get("/api/stats")["open"], MANY + 1);
    assert_eq!(gateway.metric(r#"fdpush_closes_total{cause="slow_consumer"}"#), 0.0);
}

#[test]
fn a_batch_of_large_distinct_messages_closes_no_fast_reader() {
    // The frames differ, and together they exceed `--queue-total-bytes-max`. So the server must pause the batch until
    // it has written some of the frames.
    let gateway = Gateway::start(&["--queue-total-bytes-max", "8MiB"]);
    let (clients, _) = connect_many(&gateway, 60);
    let readers = read_all(clients, 3, 300_000);
    let mut body = String::new();
    for round in 0..3 {
        for number in 0..60 {
            let data = "x".repeat(300_000);
            writeln!(body, r#"{{"id":{number},"uid":"u{number}","data":"{round}{data}"}}"#)
                .expect("writing to a string succeeds");
        }
    }
    let mut raw = Raw::connect(gateway.api);
    raw.send(request("POST", "/api/batch", &[("Content-Type", "application/x-ndjson")], &body));
    let reply = raw.reply_in_chunks();
    assert_eq!(reply.status, 200);
    let lines: Vec<Value> =
        reply.body.lines().map(|line| serde_json::from_str(line).expect("the text is JSON")).collect();
    assert_eq!(lines.len(), 180);
    for line in lines {
        assert_eq!((&line["queued"], &line["dropped"]), (&json!(1), &json!(0)), "{line}");
    }
    let _clients = join_all(readers);
    assert_eq!(gateway.get("/api/stats")["open"], 60);
}

#[test]
fn a_batch_to_one_reader_runs_at_the_speed_of_the_reader() {
    let gateway = Gateway::start(&["--message-bytes-max", "100KiB", "--queue-bytes-max", "256KiB"]);
    let (clients, _) = connect_many(&gateway, 1);
    let readers = read_all(clients, 1500, 30_000);
    let mut body = String::new();
    for number in 0..1500 {
        writeln!(body, r#"{{"id":{number},"uid":"u0","data":"{}"}}"#, "x".repeat(30_000))
            .expect("writing to a string succeeds");
    }
    let mut raw = Raw::connect(gateway.api);
    raw.send(request("POST", "/api/batch", &[("Content-Type", "application/x-ndjson")], &body));
    let reply = raw.reply_in_chunks();
    let lines: Vec<Value> =
        reply.body.lines().map(|line| serde_json::from_str(line).expect("the text is JSON")).collect();
    let missed = lines.iter().filter(|line| line["queued"] != 1).count();
    assert_eq!((lines.len(), missed), (1500, 0));
    let _clients = join_all(readers);
}

#[test]
fn members_get_one_notice_for_each_group_and_command() {
    let gateway = Gateway::start(&[]);
    let (mut member, _) = gateway.open("/?uid=member", &[]);
    gateway.done("/api/join", json!({"uid": "member", "groups": ["g", "h"]}));
    assert_eq!((next(&mut member)["group"].take(), next(&mut member)["group"].take()), (json!("g"), json!("h")));
    let (mut clients, _) = connect_many(&gateway, MANY);
    let sent = || gateway.get("/api/stats")["messages_out"].as_u64().expect("the value is a number");

    // Each notice contains the three uids that joined, and the count of all four members.
    let before = sent();
    let few = json!({"uids": ["u0", "u1", "u2"], "groups": ["g", "h"]});
    assert_eq!(gateway.done("/api/join", &few), json!({"matched": 3, "changed": 3}));
    for group in ["g", "h"] {
        let joined = json!({"type": "joined", "group": group, "uids": ["u0", "u1", "u2"], "count": 4});
        for client in clients[..3].iter_mut().chain([&mut member]) {
            assert_eq!(next(client), joined);
        }
    }
    assert_eq!(sent() - before, 8);

    let before = sent();
    gateway.done("/api/join", json!({"uids": uids(MANY), "group": "g"}));
    let joined = json!({"type": "joined", "group": "g", "count": MANY + 1});
    for client in clients.iter_mut().chain([&mut member]) {
        assert_eq!(next(client), joined);
    }
    assert_eq!(sent() - before, MANY as u64 + 1);

    let before = sent();
    gateway.done("/api/leave", json!({"uids": uids(MANY), "groups": ["g", "h"]}));
    assert_eq!(next(&mut member), json!({"type": "left", "group": "g", "count": 1}));
    let mut left = next(&mut member);
    assert_eq!(left["uids"].take(), json!(["u0", "u1", "u2"]));
    assert_eq!(left, json!({"type": "left", "group": "h", "uids": null, "count": 1}));
    assert_eq!(sent() - before, 2, "only the remaining member must get notices, one about each group");

    gateway.done("/api/join", json!({"uids": uids(MANY), "group": "g"}));
    let before = sent();
    let ungrouped = gateway.done("/api/ungroup", json!({"group": "g"}));
    assert_eq!(ungrouped, json!({"matched": MANY + 1, "changed": MANY + 1}));
    for client in clients.iter_mut().chain([&mut member]) {
        assert_eq!(next_of(client, "left"), json!({"type": "left", "group": "g", "count": 0}));
    }
    assert_eq!(sent() - before, MANY as u64 + 1);
}

#[test]
fn closing_many_members_of_a_group_sends_one_notice_to_the_others() {
    let gateway = Gateway::start(&[]);
    let (clients, fds) = connect_many(&gateway, MANY);
    gateway.done("/api/join", json!({"fds": fds, "group": "g"}));
    let mut clients: Vec<Client> = clients
        .into_iter()
        .map(|mut client| {
            next_of(&mut client, "joined");
            client
        })
        .collect();
    let sent = || gateway.get("/api/stats")["messages_out"].as_u64().expect("the value is a number");
    let before = sent();
    assert_eq!(gateway.done("/api/close", json!({"fds": fds[..MANY / 2]})), json!({"matched": MANY / 2}));
    for client in &mut clients[MANY / 2..] {
        assert_eq!(next(client), json!({"type": "left", "group": "g", "count": MANY / 2}));
    }
    assert_eq!(sent() - before, (MANY / 2) as u64);
}

#[test]
fn notices_and_messages_of_a_group_stay_in_order() {
    let gateway = Gateway::start(&[]);
    let mut ann = gateway.connect("/?uid=ann");
    let (mut bob, fd) = gateway.open("/?uid=bob", &[]);
    gateway.done("/api/join", json!({"uid": "ann", "group": "g"}));
    assert_eq!(next(&mut ann)["count"], 1);
    // One write sends the three requests, so that the server executes them in one turn.
    let json = [("Content-Type", "application/json")];
    let join = request("POST", "/api/join", &json, &json!({"fd": fd, "group": "g"}).to_string());
    let push = request("POST", "/api/push", &json, &json!({"group": "g", "data": 1}).to_string());
    let leave = request("POST", "/api/leave", &json, &json!({"fd": fd, "group": "g"}).to_string());
    let mut raw = Raw::connect(gateway.api);
    raw.send([join.as_str(), push.as_str(), leave.as_str()].concat());
    let joined = json!({"type": "joined", "group": "g", "uid": "bob", "count": 2});
    let message = json!({"type": "message", "group": "g", "data": 1});
    assert_eq!((next(&mut ann), next(&mut ann)), (joined.clone(), message.clone()));
    assert_eq!(next(&mut ann), json!({"type": "left", "group": "g", "uid": "bob", "count": 1}));
    assert_eq!((next(&mut bob), next(&mut bob)), (joined, message));
}

#[test]
fn a_command_with_too_many_changes_is_refused_and_changes_nothing() {
    let gateway = Gateway::start(&["--connection-groups-max", "10000"]);
    let (_clients, fds) = connect_many(&gateway, 5);
    let groups: Vec<String> = (0..2001).map(|number| format!("g{number}")).collect();
    for (verb, body) in [
        ("join", json!({"fds": fds, "groups": groups})),
        ("join", json!({"uids": uids(5), "groups": groups})),
        ("leave", json!({"fds": fds, "groups": groups})),
    ] {
        let (status, answer) = gateway.post(&format!("/api/{verb}"), body);
        assert_eq!((status, &answer["error"]["code"]), (413, &json!("too_large")), "{verb}");
        let why = "membership limit of a command exceeded (5 connections times 2001 groups: 10005 of 10000)";
        assert_eq!(answer["error"]["message"], why);
    }
    assert_eq!(gateway.get("/api/stats")["groups"], 0);
    let joined = gateway.done("/api/join", json!({"fds": fds, "groups": groups[..2000]}));
    assert_eq!(joined, json!({"matched": 5, "changed": 5}));
    assert_eq!(gateway.get("/api/stats")["groups"], 2000);
}

#[test]
fn a_page_has_fewer_connections_if_each_is_in_many_groups() {
    let gateway = Gateway::start(&["--connection-groups-max", "10000"]);
    let (_clients, mut fds): (Vec<Client>, Vec<u64>) = (0..5).map(|_| gateway.open("/?uid=ann", &[])).unzip();
    // With several loops, the slots are not in the order of the connects. No slot is reused, so the fds are in the order
    // of the slots.
    fds.sort_unstable();
    let groups: Vec<String> = (0..4000).map(|number| format!("g{number}")).collect();
    for half in groups.chunks(2000) {
        gateway.done("/api/join", json!({"uid": "ann", "groups": half}));
    }
    for (path, limit, pages) in [
        ("/api/connections", 1000, vec![3, 2]),
        ("/api/users/ann", 1000, vec![3, 2]),
        ("/api/users/ann", 2, vec![2, 2, 1]),
        ("/api/groups/g0", 2, vec![2, 2, 1]),
    ] {
        let (mut seen, mut sizes, mut after) = (Vec::new(), Vec::new(), Value::Null);
        loop {
            let after_fd = after.as_u64().map_or(String::new(), |fd| fd.to_string());
            let page = gateway.get(&format!("{path}?limit={limit}&after={after_fd}"));
            let listed = page
                .get("connections")
                .or(page.get("members"))
                .and_then(Value::as_array)
                .expect("the value is an array");
            sizes.push(listed.len());
            seen.extend(listed.iter().map(|entry| entry["fd"].as_u64().expect("the fd is valid")));
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
        }
        assert_eq!((seen, sizes), (fds.clone(), pages), "{path} {limit}");
    }
    assert_eq!(gateway.get("/api/users/ann?limit=1")["count"], 5);
}
