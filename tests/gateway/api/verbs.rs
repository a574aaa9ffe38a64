//! Tests the API calls that change or query uids, groups and connections. A refused call changes nothing.

use std::collections::BTreeSet;

use crate::common::gateway::{Gateway, JSON, closed, hang_up, json_of, next, request};
use crate::common::raw::UPGRADE;
use crate::common::{Client, Raw};
use serde_json::{Value, json};

/// Checks that the client got no message: pushes a marker, which must be the next message.
fn expect_no_message(gateway: &Gateway, client: &mut Client, fd: u64) {
    gateway.done("/api/push", json!({"fd": fd, "data": "sentinel"}));
    assert_eq!(next(client)["data"], "sentinel");
}

#[test]
fn bind_and_unbind_set_and_remove_a_uid() {
    let gateway = Gateway::start(&[]);
    let (mut client, fd) = gateway.open("/", &[]);
    assert_eq!(gateway.done("/api/bind", json!({"fd": fd, "uid": "ann"})), json!({"matched": 1, "changed": 1}));
    assert_eq!(gateway.done("/api/bind", json!({"fd": fd, "uid": "ann"})), json!({"matched": 1, "changed": 0}));
    gateway.done("/api/push", json!({"uid": "ann", "data": 1}));
    assert_eq!(next(&mut client)["data"], 1);
    assert_eq!(gateway.done("/api/bind", json!({"fd": fd, "uid": "bob"})), json!({"matched": 1, "changed": 1}));
    assert_eq!(gateway.done("/api/push", json!({"uid": "ann", "data": 1}))["offline"], json!(["ann"]));
    let online = gateway.done("/api/online", json!({"uids": ["bob", "ann", "bob"]}));
    assert_eq!(online, json!({"online": {"bob": [fd]}, "offline": ["ann"]}));
    assert_eq!(gateway.done("/api/unbind", json!({"uid": "bob"})), json!({"matched": 1, "changed": 1}));
    assert_eq!(gateway.done("/api/unbind", json!({"fds": [fd, fd, 99]})), json!({"matched": 1, "changed": 0}));
    assert_eq!(gateway.get(&format!("/api/connections/{fd}"))["uid"], Value::Null);
    for gone in [99, (1_u64 << 53) - 1] {
        assert_eq!(gateway.done("/api/bind", json!({"fd": gone, "uid": "x"})), json!({"matched": 0, "changed": 0}));
    }
    for none in [0, 1 << 53, u64::MAX] {
        assert_eq!(gateway.post("/api/bind", json!({"fd": none, "uid": "x"})).0, 400, "{none}");
        assert_eq!(gateway.post("/api/close", json!({"fds": [fd, none]})).0, 400, "{none}");
    }
    assert_eq!(gateway.get("/api/users"), json!({"users": [], "next": null}));
}

#[test]
fn bind_follows_the_second_login_policy() {
    let gateway = Gateway::start(&["--on-second-login", "reject_new"]);
    let (_ann, _) = gateway.open("/?uid=ann", &[]);
    let (_other, fd) = gateway.open("/", &[]);
    let (status, answer) = gateway.post("/api/bind", json!({"fd": fd, "uid": "ann"}));
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("taken")));
    assert_eq!(gateway.get(&format!("/api/connections/{fd}"))["uid"], Value::Null);

    let gateway = Gateway::start(&["--on-second-login", "kick_old"]);
    let (mut old, _) = gateway.open("/?uid=ann", &[]);
    let (_new, fd) = gateway.open("/", &[]);
    gateway.done("/api/bind", json!({"fd": fd, "uid": "ann"}));
    assert_eq!(old.closed().0, 4001);
    assert_eq!(gateway.done("/api/online", json!({"uids": ["ann"]}))["online"], json!({"ann": [fd]}));
}

#[test]
fn members_are_notified_of_joins_and_leaves_by_the_api() {
    let gateway = Gateway::start(&[]);
    let (mut ann, ann_fd) = gateway.open("/?uid=ann", &[]);
    let (mut bob, bob_fd) = gateway.open("/?uid=bob", &[]);
    let (tab, tab_fd) = gateway.open("/?uid=bob", &[]);
    let frame = |kind: &str, group: &str, uid: &str, count: u32| json!({"type": kind, "group": group, "uid": uid, "count": count});
    assert_eq!(gateway.done("/api/join", json!({"uid": "ann", "group": "g"})), json!({"matched": 1, "changed": 1}));
    assert_eq!(next(&mut ann), frame("joined", "g", "ann", 1));
    let both = json!({"uid": "bob", "groups": ["g", "h"]});
    assert_eq!(gateway.done("/api/join", &both), json!({"matched": 2, "changed": 2}));
    assert_eq!(gateway.done("/api/join", &both), json!({"matched": 2, "changed": 0}));
    assert_eq!(next(&mut ann), frame("joined", "g", "bob", 2), "the two connections of bob must count once");
    assert_eq!(next(&mut bob), frame("joined", "g", "bob", 2));
    assert_eq!(next(&mut bob), frame("joined", "h", "bob", 1));
    // The members of a group are notified of the first join and the last leave of a uid. Another connection of bob
    // stays a member, so this leave causes no notice.
    let leave = json!({"fd": tab_fd, "group": "g"});
    assert_eq!(gateway.done("/api/leave", &leave), json!({"matched": 1, "changed": 1}));
    assert_eq!(gateway.done("/api/leave", &leave), json!({"matched": 1, "changed": 0}));
    expect_no_message(&gateway, &mut ann, ann_fd);

    // The connection stays in the group under its new uid, so the group is notified that bob left and cat joined.
    gateway.done("/api/bind", json!({"fd": bob_fd, "uid": "cat"}));
    assert_eq!(next(&mut ann), frame("left", "g", "bob", 1));
    assert_eq!(next(&mut ann), frame("joined", "g", "cat", 2));
    gateway.done("/api/unbind", json!({"fd": bob_fd}));
    assert_eq!(next(&mut ann), frame("left", "g", "cat", 1));
    // A connection without a uid can be a member of a group, but it causes no notice.
    let members = gateway.get("/api/groups/g");
    let mut expected = [json!({"fd": ann_fd, "uid": "ann"}), json!({"fd": bob_fd, "uid": null})];
    // The members are in the order of their slots. No slot is reused, so this is the order of the fds.
    expected.sort_by_key(|member| member["fd"].as_u64());
    let expected = json!(expected);
    assert_eq!((&members["count"], &members["members"]), (&json!(2), &expected));
    gateway.done("/api/leave", json!({"fd": bob_fd, "group": "g"}));
    expect_no_message(&gateway, &mut ann, ann_fd);

    hang_up(tab);
    assert_eq!(gateway.done("/api/close", json!({"uid": "nobody"})), json!({"matched": 0}));
    gateway.done("/api/join", json!({"fd": bob_fd, "group": "g"}));
    gateway.done("/api/bind", json!({"fd": bob_fd, "uid": "bob"}));
    assert_eq!(next(&mut ann), frame("joined", "g", "bob", 2));
    gateway.done("/api/close", json!({"fd": bob_fd}));
    assert_eq!(next(&mut ann), frame("left", "g", "bob", 1));
}

#[test]
fn ungroup_dissolves_a_group() {
    let gateway = Gateway::start(&[]);
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    let (_anonymous, other) = gateway.open("/", &[]);
    gateway.done("/api/join", json!({"fds": [fd, other], "group": "g"}));
    assert_eq!(gateway.get("/api/groups")["groups"], json!([{"group": "g", "count": 2}]));
    assert_eq!(gateway.done("/api/ungroup", json!({"group": "g"})), json!({"matched": 2, "changed": 2}));
    assert_eq!(gateway.done("/api/ungroup", json!({"group": "g"})), json!({"matched": 0, "changed": 0}));
    assert_eq!(gateway.get("/api/groups")["groups"], json!([]));
    assert_eq!(gateway.done("/api/push", json!({"group": "g", "data": 1}))["matched"], 0);
    let empty = json!({"group": "g", "count": 0, "members": [], "next": null});
    assert_eq!(gateway.get("/api/groups/g"), empty);
    assert_eq!(next(&mut ann)["type"], "joined");
    assert_eq!(next(&mut ann), json!({"type": "left", "group": "g", "uid": "ann", "count": 0}));
    expect_no_message(&gateway, &mut ann, fd);
}

#[test]
fn close_sends_a_close_frame_and_abort_does_not() {
    let gateway = Gateway::start(&[]);
    let (mut ann, _) = gateway.open("/?uid=ann", &[]);
    assert_eq!(gateway.done("/api/close", json!({"uid": "ann"})), json!({"matched": 1}));
    assert_eq!(ann.closed(), (1000, String::new()));
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    let reason = "ü".repeat(61);
    gateway.done("/api/close", json!({"fds": [fd, 99], "code": 4999, "reason": reason}));
    assert_eq!(ann.closed(), (4999, reason));
    let mut clients: Vec<_> = (0..3).map(|_| gateway.open("/?uid=ann", &[]).0).collect();
    gateway.done("/api/join", json!({"uid": "ann", "group": "g"}));
    assert_eq!(gateway.done("/api/close", json!({"groups": ["g", "g"], "code": 1012})), json!({"matched": 3}));
    for client in &mut clients {
        assert_eq!(closed(client).0, 1012);
    }
    let (mut lost, _) = gateway.open("/", &[]);
    assert_eq!(gateway.done("/api/close", json!({"all": true, "abort": true})), json!({"matched": 1}));
    lost.lost();
    assert_eq!(gateway.done("/api/close", json!({"all": true})), json!({"matched": 0}));
}

/// Returns the entries of all pages of a list. Calls `between` after each page.
fn pages(gateway: &Gateway, path: &str, list: &str, mut between: impl FnMut()) -> Vec<Value> {
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = gateway.get(&format!("{path}?limit=7&after={after}"));
        let entries = page[list].as_array().expect("the value is an array").clone();
        assert!(entries.len() <= 7);
        seen.extend(entries);
        match &page["next"] {
            Value::Null => return seen,
            Value::String(name) => after = name.clone(),
            number => after = number.to_string(),
        }
        between();
    }
}

#[test]
fn pages_contain_each_open_connection_once() {
    let gateway = Gateway::start(&[]);
    let mut stay = Vec::new();
    let mut go = Vec::new();
    for number in 0..60 {
        let uid = format!("u{:02}", number * 37 % 60);
        let (client, fd) = gateway.open(&format!("/?uid={uid}"), &[]);
        gateway.done("/api/join", json!({"fd": fd, "groups": ["all", format!("g{uid}")]}));
        if number % 3 == 0 { go.push(client) } else { stay.push((client, fd, uid)) }
    }
    let mut come = Vec::new();
    for (path, list, member) in [
        ("/api/users", "users", "uid"),
        ("/api/groups", "groups", "group"),
        ("/api/groups/all", "members", "fd"),
        ("/api/connections", "connections", "fd"),
    ] {
        let seen = pages(&gateway, path, list, || {
            if let Some(client) = go.pop() {
                hang_up(client);
                let (client, fd) = gateway.open(&format!("/?uid=new{}", go.len()), &[]);
                gateway.done("/api/join", json!({"fd": fd, "groups": ["all", format!("new{fd}")]}));
                come.push(client);
            }
        });
        let names: Vec<&Value> = seen.iter().map(|entry| &entry[member]).collect();
        let once: BTreeSet<String> = names.iter().map(|name| name.to_string()).collect();
        assert_eq!(once.len(), names.len(), "{path}: each name must occur once");
        for (_, fd, uid) in &stay {
            let name = match member {
                "uid" => json!(uid),
                "group" => json!(format!("g{uid}")),
                _ => json!(fd),
            };
            assert!(names.contains(&&name), "{path}: the pages must contain {name}");
        }
    }
    assert_eq!(gateway.get("/api/users/u01")["connections"][0]["uid"], "u01");
    assert_eq!(gateway.call("GET", "/api/users/nobody", &[], "").status, 404);
    let refused = gateway.call("GET", "/api/users?limt=7", &[], "");
    let message = r#"the query has no member "limt"; did you mean "limit"? members: after, limit"#;
    assert_eq!(json_of(&refused)["error"]["message"], message);
    for query in ["limit=0", "limit=1001", "limit=x", "limit=-1", "page=2"] {
        assert_eq!(gateway.call("GET", &format!("/api/users?{query}"), &[], "").status, 400, "{query}");
    }
    assert_eq!(gateway.call("GET", "/api/connections?after=x", &[], "").status, 400);
}

#[test]
fn attributes_are_set_merged_and_read() {
    let gateway = Gateway::start(&[]);
    let (mut client, fd) = gateway.open("/?uid=ann", &[]);
    let path = format!("/api/connections/{fd}/attributes");
    let send = |method: &str, body: Value| {
        let reply = gateway.call(method, &path, &[JSON], &body.to_string());
        assert_eq!(reply.status, 200, "{reply:?}");
        json_of(&reply)
    };
    assert_eq!(gateway.get(&path), json!({}));
    assert_eq!(send("PATCH", json!({"a": {"b": 1}, "c": null})), json!({"a": {"b": 1}}));
    assert_eq!(send("PATCH", json!({"a": {"b": null, "d": [1]}})), json!({"a": {"d": [1]}}));
    assert_eq!(send("PUT", json!({"x": null, "y": 1.5})), json!({"x": null, "y": 1.5}));
    let merge = [("Content-Type", "application/merge-patch+json")];
    assert_eq!(gateway.call("PATCH", &path, &merge, r#"{"y":2}"#).status, 200);
    assert_eq!(gateway.get(&path), json!({"x": null, "y": 2}));
    for body in ["[1]", "1", "", "{", "null"] {
        let reply = gateway.call("PUT", &path, &[JSON], body);
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
    }
    assert_eq!(gateway.get(&path), json!({"x": null, "y": 2}));
    let reply = gateway.call("DELETE", &path, &[JSON], "");
    assert_eq!((reply.status, reply.header("Allow")), (405, Some("GET, PUT, PATCH")));
    client.close(1000, "");
    client.closed();
    assert_eq!(gateway.call("GET", &path, &[], "").status, 404);
    let (_other, other) = gateway.open("/", &[]);
    assert_eq!(
        gateway.get(&format!("/api/connections/{other}/attributes")),
        json!({}),
        "the new connection must have no attributes of the old one"
    );
    assert_eq!(gateway.call("GET", "/api/connections/x/attributes", &[], "").status, 400);
}

#[test]
fn attributes_are_limited_in_size() {
    let gateway = Gateway::start(&["--body-bytes-max", "1000"]);
    let (_ann, fd) = gateway.open("/?uid=ann", &[]);
    let path = format!("/api/connections/{fd}/attributes");
    let patch = |body: Value| gateway.call("PATCH", &path, &[JSON], &body.to_string());
    let (first, second) = ("a".repeat(600), "b".repeat(386));
    assert_eq!(patch(json!({"a": first})).status, 200);
    let reply = patch(json!({"b": second}));
    assert_eq!((reply.status, &json_of(&reply)["error"]["code"]), (413, &json!("too_large")), "{reply:?}");
    assert!(reply.body.contains("attributes limit exceeded (1001 of 1000 bytes)"), "{reply:?}");
    assert_eq!(gateway.get(&path), json!({"a": first}), "the refused call must change nothing");
    assert_eq!(patch(json!({"b": second[1..]})).status, 200);
    assert_eq!(patch(json!({"a": null, "c": 1})).status, 200);
    assert_eq!(gateway.get(&path), json!({"b": second[1..], "c": 1}));
    // The server can store a number in a longer form than it received. The length of the stored form counts.
    let body = format!("{{\"n\":[{}1e9]}}", "1e9,".repeat(245));
    assert_eq!(gateway.call("PUT", &path, &[JSON], &body).status, 413);
    assert_eq!(gateway.get(&path), json!({"b": second[1..], "c": 1}));
}

#[test]
fn stats_and_connection_info_report_activity() {
    let gateway = Gateway::start(&[]);
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    ann.send(r#"{"type":"join","group":"g","id":1}"#);
    assert_eq!((next(&mut ann)["type"].take(), next(&mut ann)["type"].take()), (json!("ack"), json!("joined")));
    let info = gateway.get(&format!("/api/connections/{fd}"));
    assert_eq!((&info["uid"], &info["groups"]), (&json!("ann"), &json!(["g"])));
    assert_eq!((&info["messages_in"], &info["messages_out"]), (&json!(1), &json!(3)));
    assert!(info["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{info}");
    let stats = gateway.get("/api/stats");
    for (member, value) in [("open", 1), ("users", 1), ("groups", 1), ("opened", 1), ("messages_in", 1)] {
        assert_eq!(stats[member], value, "{member}: {stats}");
    }
    assert_eq!((&stats["is_draining"], &stats["version"]), (&json!(false), &json!(env!("CARGO_PKG_VERSION"))));
}

#[test]
fn an_invalid_command_is_refused_and_changes_nothing() {
    let gateway = Gateway::start(&["--message-bytes-max", "8KiB", "--queue-bytes-max", "16KiB"]);
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    let (mut bob, bob_fd) = gateway.open("/?uid=bob", &[]);
    let (long, huge) = ("x".repeat(129), "x".repeat(16 << 10));
    let before = gateway.get("/api/stats");
    for (path, body, named) in [
        ("push", json!({"data": 1}), "uid, uids, fd, fds, group, groups, all"),
        ("push", json!({"uid": "ann", "all": true, "data": 1}), "only one"),
        ("push", json!({"all": false, "data": 1}), "member all must be true"),
        ("push", json!({"uid": "ann"}), "data, text, binary"),
        ("push", json!({"uid": "ann", "data": 1, "text": "x"}), "data, text, binary"),
        ("push", json!({"uids": ["ann", ""], "data": 1}), "uids"),
        ("push", json!({"uids": ["ann", long], "data": 1}), "uids"),
        ("push", json!({"groups": [""], "data": 1}), "groups"),
        ("push", json!({"uid": 7.5, "data": 1}), "uid"),
        ("push", json!({"uid": true, "data": 1}), "uid"),
        ("push", json!({"uids": {"0": "ann"}, "data": 1}), "array_values"),
        ("push", json!({"fd": -1, "data": 1}), "fd"),
        ("push", json!({"fds": [1, "2"], "data": 1}), "fds[1]"),
        ("push", json!({"uid": "ann", "text": 5}), "text"),
        ("push", json!({"uid": "ann", "binary": "AP8"}), "binary"),
        ("push", json!({"uid": "ann", "binary": "*"}), "binary"),
        ("push", json!({"uid": "ann", "data": 1, "dat": 2}), "dat"),
        ("push", json!({"all": true, "except": {"uid": ""}, "data": 1}), "except"),
        ("push", json!({"all": true, "except": {"all": true}, "data": 1}), "except"),
        ("push", json!({"all": true, "auth": "key", "data": 1}), "auth"),
        ("push", json!({"all": true, "data": 1, "code": 1000}), "push has no member \"code\""),
        ("push", json!([1]), ""),
        ("bind", json!({"uid": "ann"}), "fd"),
        ("bind", json!({"fd": fd}), "uid"),
        ("bind", json!({"fd": fd, "uid": long}), "uid"),
        ("bind", json!({"fd": fd, "uid": "cat", "group": "g"}), "group"),
        ("bind", json!({"fd": fd, "uid": "cat", "data": 1}), "bind has no member \"data\"; members: fd, uid"),
        ("unbind", json!({}), "uid, uids, fd, fds"),
        ("unbind", json!({"all": true}), "uid, uids, fd, fds"),
        ("join", json!({"fd": fd}), "group, groups"),
        ("join", json!({"fd": fd, "group": "g", "groups": ["h"]}), "group, groups"),
        ("join", json!({"group": "g"}), "uid, uids, fd, fds"),
        ("join", json!({"fd": fd, "groups": ["g", ""]}), "groups"),
        ("join", json!({"fd": fd, "group": "g", "code": 1000}), "code"),
        ("leave", json!({"fd": fd, "uid": "bob", "group": "g"}), "only one"),
        ("ungroup", json!({}), "group"),
        ("ungroup", json!({"group": "g", "fd": 1}), "fd"),
        ("close", json!({}), "uid, uids, fd, fds, group, groups, all"),
        ("close", json!({"fd": fd, "code": 1005}), "code"),
        ("close", json!({"fd": fd, "code": 70000}), "code"),
        ("close", json!({"fd": fd, "reason": "x".repeat(124)}), "reason"),
        ("close", json!({"fd": fd, "why": "x"}), "why"),
        ("online", json!({"uids": ["ann", ""]}), "uids"),
        ("online", json!({}), "uids"),
    ] {
        let (status, answer) = gateway.post(&format!("/api/{path}"), &body);
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_request")), "{path} with {body}: {answer}");
        let message = answer["error"]["message"].as_str().expect("the error has a message");
        assert!(message.contains(named), "the error of {path} for {body} must contain {named:?}: {message}");
    }
    for target in [json!({"all": true}), json!({"uids": ["ann", "bob"]}), json!({"fds": [fd, bob_fd]})] {
        let mut command = target;
        command["data"] = json!(huge);
        let (status, answer) = gateway.post("/api/push", &command);
        assert_eq!((status, &answer["error"]["code"]), (413, &json!("too_large")));
    }
    expect_no_message(&gateway, &mut ann, fd);
    expect_no_message(&gateway, &mut bob, bob_fd);
    let after = gateway.get("/api/stats");
    for member in ["open", "users", "groups", "closed", "dropped"] {
        assert_eq!(before[member], after[member], "{member}");
    }
}

#[test]
fn invalid_paths_methods_and_bodies_are_refused() {
    let gateway = Gateway::start(&["--body-bytes-max", "1KiB"]);
    for (method, path, status, allow) in [
        ("GET", "/api/push", 405, Some("POST")),
        ("PUT", "/api/batch", 405, Some("POST")),
        ("POST", "/api/users", 405, Some("GET")),
        ("DELETE", "/api/users/ann", 405, Some("GET")),
        ("POST", "/metrics", 405, Some("GET")),
        ("POST", "/healthz", 405, Some("GET")),
        ("GET", "/", 404, None),
        ("GET", "/api", 404, None),
        ("POST", "/api/pushes", 404, None),
        ("GET", "/api/users/", 400, None),
        ("GET", "/api/users/a/b", 404, None),
        ("GET", "/api/users/%ff", 400, None),
        ("GET", "/api/connections/0", 400, None),
        ("GET", "/api/connections/77", 404, None),
    ] {
        let reply = gateway.call(method, path, &[JSON], "");
        assert_eq!((reply.status, reply.header("Allow")), (status, allow), "{method} {path}");
        let error = json_of(&reply)["error"].take();
        assert!(error["code"].is_string() && error["message"].is_string(), "{error}");
    }
    for body in ["", "{", "{} {}", "\u{feff}{}"] {
        assert_eq!(gateway.call("POST", "/api/push", &[JSON], body).status, 400, "{body:?}");
    }
    let reply = gateway.call("POST", "/api/push", &[JSON], &"x".repeat(1025));
    assert_eq!(reply.status, 413);
}

#[test]
fn no_response_of_the_api_may_be_cached() {
    let gateway = Gateway::start(&[]);
    for (method, path, body, status) in [
        ("GET", "/api/stats", "", 200),
        ("GET", "/api", "", 404),
        ("GET", "/api/users/ann", "", 404),
        ("GET", "/api/push", "", 405),
        ("PUT", "/api/push", "{}", 405),
        ("POST", "/api/push", "{", 400),
        ("POST", "/api/batch", "{", 200),
        ("POST", "/api/batch", "", 200),
    ] {
        let reply = gateway.call(method, path, &[JSON], body);
        assert_eq!((reply.status, reply.header("Cache-Control")), (status, Some("no-store")), "{method} {path}");
    }
}

#[test]
fn protocol_errors_are_answered_in_json() {
    let bounds = ["--body-bytes-max", "1KiB", "--head-bytes-max", "2KiB", "--body-time-max", "50ms"];
    let gateway = Gateway::start(&bounds);
    let post = |lines: &str, body: &str| format!("POST /api/push HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{body}");
    let json = "Content-Type: application/json\r\n";
    for (bytes, status, code) in [
        ("\x16\x03\x01".to_owned(), 400, "bad_request"),
        ("GET /api/stats HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_request"),
        (post(&format!("{json}Transfer-Encoding: chunked"), "x\r\n"), 400, "bad_request"),
        (UPGRADE.to_owned(), 404, "not_found"),
        (UPGRADE.replace("GET", "POST"), 405, "method_not_allowed"),
        (post(&format!("{json}Content-Length: 2"), "{"), 408, "timeout"),
        (post(&format!("{json}Content-Length: 1025"), ""), 413, "too_large"),
        (post("Expect: a miracle\r\nContent-Length: 2", ""), 417, "expectation_failed"),
        (UPGRADE.replace("Version: 13", "Version: 12"), 426, "upgrade_required"),
        (format!("GET /{}", "x".repeat(2048)), 431, "headers_too_large"),
        (post("Transfer-Encoding: gzip", ""), 501, "not_implemented"),
        ("GET /api/stats HTTP/3.0\r\n\r\n".to_owned(), 505, "version_not_supported"),
    ] {
        let mut raw = Raw::connect(gateway.api);
        raw.send(&bytes);
        let reply = raw.reply();
        assert_eq!((reply.status, reply.header("Content-Type")), (status, Some("application/json")), "{bytes:?}");
        assert_eq!(reply.header("Cache-Control"), Some("no-store"), "{bytes:?}");
        let answer = json_of(&reply);
        assert_eq!(answer["error"]["code"], code, "{bytes:?}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
        assert!(!reply.keeps_alive(), "{bytes:?}");
        raw.end();
    }
    let mut client = Raw::connect(gateway.address);
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.reply().body, "Host header is missing\n", "clients must get plain text");
}

#[test]
fn without_api_keys_requests_of_web_pages_are_refused() {
    let gateway = Gateway::start(&[]);
    let own = format!("http://{}", gateway.api);
    let own_by_app = format!("app://{}", gateway.api);
    let host = gateway.api.to_string();
    let push = r#"{"all":true,"data":1}"#;
    for (headers, status, code) in [
        (&[JSON, ("Host", "evil.example")][..], 403, "forbidden"),
        (&[JSON, ("Host", "localhost.evil.example")], 403, "forbidden"),
        (&[JSON, ("Origin", "http://evil.example")], 403, "forbidden"),
        (&[JSON, ("Origin", "null")], 403, "forbidden"),
        (&[JSON, ("Origin", &own)], 403, "forbidden"),
        (&[JSON, ("Host", &host), ("Origin", &own_by_app)], 403, "forbidden"),
        (&[JSON, ("Host", "127.evil.example")], 403, "forbidden"),
        (&[], 415, "unsupported_media_type"),
        (&[("Content-Type", "text/plain")], 415, "unsupported_media_type"),
        (&[("Content-Type", "application/x-www-form-urlencoded")], 415, "unsupported_media_type"),
        (&[("Content-Type", "application/x-ndjson")], 415, "unsupported_media_type"),
        (&[("Content-Type", "Application/JSON; charset=utf-8"), ("Host", "[::1]:9502")], 200, ""),
        (&[JSON, ("Host", &host), ("Origin", &own)], 200, ""),
        (&[JSON, ("Host", "LOCALHOST:1")], 200, ""),
        (&[JSON, ("Host", "api.localhost"), ("Origin", "http://API.localhost:80")], 200, ""),
    ] {
        let reply = gateway.call("POST", "/api/push", headers, push);
        assert_eq!(reply.status, status, "{headers:?}: {reply:?}");
        assert_eq!(json_of(&reply)["error"]["code"].as_str().unwrap_or_default(), code);
        // The server checks `Host` and `Origin` of a batch in the same way, before it reads the body.
        if status == 403 {
            assert_eq!(gateway.call("POST", "/api/batch", headers, push).status, 403);
        }
    }
    assert_eq!(gateway.call("GET", "/api/users", &[("Host", "evil.example")], "").status, 403);
    assert_eq!(gateway.call("GET", "/metrics", &[("Host", "evil.example")], "").status, 403);
    assert_eq!(
        gateway.call("GET", "/healthz", &[("Host", "10.0.0.7:80")], "").status,
        200,
        "a probe must be answered with any Host"
    );
    // The host in a target in absolute-form replaces `Host`.
    for (target, host, status) in [
        ("http://localhost/api/users", "evil.example", 200),
        ("http://127.0.0.1:80/api/users?limit=1", "localhost", 200),
        ("http://evil.example/api/users", "localhost", 403),
        ("http://evil.example/healthz", "localhost", 200),
        ("http://me@localhost/api/users", "localhost", 400),
    ] {
        assert_eq!(gateway.call("GET", target, &[("Host", host)], "").status, status, "{target}");
    }
    assert_eq!(gateway.call("POST", "http://localhost/api/push", &[JSON, ("Host", "a")], push).status, 200);
    assert_eq!(gateway.call("OPTIONS", "*", &[], "").status, 404);
}

#[test]
fn a_query_is_percent_decoded_and_can_be_empty() {
    let gateway = Gateway::start(&[]);
    let _ann = gateway.connect("/?uid=ann");
    assert_eq!(gateway.get("/api/users?after=&limit=")["users"][0]["uid"], "ann");
    for bad in ["/api/users?after=%zz", "/api/groups?after=50%", "/api/connections?limit=%ff"] {
        let reply = gateway.call("GET", bad, &[], "");
        assert_eq!((reply.status, &json_of(&reply)["error"]["code"]), (400, &json!("bad_request")), "{bad}");
    }
}

#[test]
fn with_api_keys_a_request_needs_one() {
    let gateway = Gateway::start(&["--api-key", "first,second"]);
    let mut ann = gateway.connect("/?uid=ann");
    let push = |data: &str| json!({"uid": "ann", "data": data}).to_string();
    for header in [None, Some("Bearer third"), Some("Bearer "), Some("Basic first"), Some("first")] {
        let headers: Vec<(&str, &str)> = header.iter().map(|value| ("Authorization", *value)).chain([JSON]).collect();
        for (method, path) in [("POST", "/api/push"), ("POST", "/api/batch"), ("GET", "/metrics"), ("GET", "/nowhere")]
        {
            let reply = gateway.call(method, path, &headers, &push("refused"));
            assert_eq!((reply.status, reply.header("WWW-Authenticate")), (401, Some("Bearer")), "{header:?} {path}");
            let error = &json_of(&reply)["error"];
            let why = if header == Some("Bearer third") { "unknown API key" } else { "missing API key" };
            assert_eq!(error["code"], "unauthorized");
            assert!(error["message"].as_str().is_some_and(|message| message.starts_with(why)), "{header:?}: {error}");
        }
    }
    for key in ["Bearer first", "bearer second"] {
        // With a key, the server accepts any origin and content type.
        let headers = [("Authorization", key), ("Host", "push.example"), ("Origin", "https://any.example")];
        let reply = gateway.call("POST", "/api/push", &headers, &push(key));
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(next(&mut ann)["data"], key);
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.call("GET", path, &[], "").status, 200);
    }
    // The listener for clients does not serve the API.
    let mut raw = Raw::connect(gateway.address);
    raw.send(request("POST", "/api/push", &[JSON, ("Authorization", "Bearer first")], &push("x")));
    assert_eq!(raw.reply().status, 404);
}

#[test]
fn a_close_removes_many_members_at_once_and_causes_one_notice() {
    const COUNT: usize = 600;
    let gateway = Gateway::start(&[]);
    let (mut ann, ann_fd) = gateway.open("/?uid=ann", &[]);
    let mut bots: Vec<(Client, u64)> =
        (0..COUNT).map(|number| gateway.open(&format!("/?uid=bot{number}"), &[])).collect();
    let fds: Vec<u64> = bots.iter().map(|(_, fd)| *fd).collect();
    gateway.done("/api/join", json!({"fds": fds, "group": "bots"}));
    gateway.done("/api/join", json!({"fds": fds, "group": "room"}));
    gateway.done("/api/join", json!({"fd": ann_fd, "group": "room"}));
    assert_eq!(next(&mut ann)["count"], COUNT + 1);
    let close = json!({"group": "bots", "code": 4000, "reason": "over"});
    let mut other = Raw::connect(gateway.api);
    other.send(request("POST", "/api/close", &[JSON], &close.to_string()));
    let mut was_closed = false;
    for _ in 0..50 {
        let matched = &gateway.done("/api/push", json!({"group": "bots", "data": 1}))["matched"];
        assert!(
            *matched == 0 || (*matched == COUNT && !was_closed),
            "a push must reach all {COUNT} members before the close and none after it, not {matched}"
        );
        was_closed = *matched == 0;
    }
    assert_eq!(json_of(&other.reply()), json!({"matched": COUNT}));
    assert_eq!(gateway.get("/api/stats")["open"], 1);
    let notice = next(&mut ann);
    assert_eq!(notice, json!({"type": "left", "group": "room", "count": 1}));
    expect_no_message(&gateway, &mut ann, ann_fd);
    for (client, _) in &mut bots {
        assert_eq!(closed(client), (4000, "over".to_owned()));
    }
}

#[test]
fn a_refused_join_of_many_changes_nothing() {
    let gateway = Gateway::start(&["--connection-groups-max", "2"]);
    let (_ann, ann) = gateway.open("/?uid=ann", &[]);
    let (_bob, bob) = gateway.open("/?uid=bob", &[]);
    gateway.done("/api/join", json!({"fd": bob, "groups": ["a", "b"]}));
    let (status, answer) = gateway.post("/api/join", json!({"fds": [ann, bob], "groups": ["a", "c"]}));
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("too_many")), "{answer}");
    assert_eq!(gateway.get(&format!("/api/connections/{ann}"))["groups"], json!([]));
    // bob already has both memberships, so this command adds only those of ann and stays within the limit.
    let both = json!({"fds": [ann, bob], "groups": ["a", "b"]});
    assert_eq!(gateway.done("/api/join", both), json!({"matched": 2, "changed": 1}));

    let gateway = Gateway::start(&["--memberships-max", "3"]);
    let (_ann, ann) = gateway.open("/?uid=ann", &[]);
    let (_bob, bob) = gateway.open("/?uid=bob", &[]);
    let (status, answer) = gateway.post("/api/join", json!({"fds": [ann, bob], "groups": ["a", "b"]}));
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("too_many")), "{answer}");
    assert_eq!(gateway.get("/api/groups")["groups"], json!([]));
    assert_eq!(gateway.done("/api/join", json!({"fd": ann, "groups": ["a", "b"]}))["changed"], 1);
    assert_eq!(
        gateway.done("/api/join", json!({"fds": [ann, bob], "groups": ["a"]})),
        json!({"matched": 2, "changed": 1})
    );
}
