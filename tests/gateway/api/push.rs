//! Tests pushes by API requests, batches and datagrams: targets, content and responses.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread;

use crate::common::gateway::{Gateway, next, next_of, request, until};
use crate::common::{Client, Raw, Scratch};
use serde_json::{Value, json};

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// Returns the answer to a push without dropped or offline receivers.
fn pushed(matched: u64) -> Value {
    json!({"matched": matched, "queued": matched, "dropped": 0, "offline": []})
}

/// Returns the data of the next message and skips notices.
fn data(client: &mut Client) -> Value {
    next_of(client, "message")["data"].take()
}

#[test]
fn a_message_reaches_each_kind_of_target_and_names_the_target() {
    let gateway = Gateway::start(&[]);
    let (mut ann, ann_fd) = gateway.open("/?uid=ann", &[]);
    let (mut bob, bob_fd) = gateway.open("/?uid=bob", &[]);
    let (mut anonymous, fd) = gateway.open("/", &[]);
    gateway.done("/api/join", json!({"fds": [ann_fd, fd], "group": "g"}));
    gateway.done("/api/join", json!({"fd": bob_fd, "group": "h"}));
    let all = [true, true, true];
    for (target, expected, reached) in [
        (json!({"uid": "ann"}), json!({}), [true, false, false]),
        (json!({"uids": ["bob"]}), json!({}), [false, true, false]),
        (json!({"fd": fd}), json!({}), [false, false, true]),
        (json!({"fds": [ann_fd, fd, fd]}), json!({}), [true, false, true]),
        (json!({"group": "g"}), json!({"group": "g"}), [true, false, true]),
        (json!({"groups": ["g", "h"]}), json!({"groups": ["g", "h"]}), all),
        (json!({"all": true}), json!({"all": true}), all),
    ] {
        let mut command = target.clone();
        command["data"] = json!({"for": target});
        let matched = reached.iter().filter(|is_reached| **is_reached).count() as u64;
        assert_eq!(gateway.done("/api/push", &command), pushed(matched), "{command}");
        let mut message = expected;
        message["type"] = json!("message");
        message["data"] = command["data"].take();
        for (client, _) in [&mut ann, &mut bob, &mut anonymous].into_iter().zip(reached).filter(|(_, is)| *is) {
            assert_eq!(next_of(client, "message"), message);
        }
    }
    let several = gateway.done("/api/push", json!({"uids": ["ann", "bob", "ann"], "data": 1}));
    assert_eq!(several, pushed(2));
    assert_eq!(next_of(&mut ann, "message"), json!({"type": "message", "data": 1}));
    assert_eq!(next_of(&mut bob, "message"), json!({"type": "message", "data": 1}));
}

#[test]
fn except_excludes_connections() {
    let gateway = Gateway::start(&[]);
    let (mut ann, ann_fd) = gateway.open("/?uid=ann", &[]);
    let (mut bob, _) = gateway.open("/?uid=bob", &[]);
    let (mut cat, _) = gateway.open("/?uid=cat", &[]);
    gateway.done("/api/join", json!({"uid": "cat", "group": "cats"}));
    for (except, reached) in [
        (json!({"fd": ann_fd}), "bob cat"),
        (json!({"fds": [ann_fd, 999]}), "bob cat"),
        (json!({"uid": "bob"}), "ann cat"),
        (json!({"uids": ["ann", "cat", "nobody"]}), "bob"),
        (json!({"group": "cats"}), "ann bob"),
        (json!({"groups": ["cats"], "uid": "ann"}), "bob"),
        (json!({"uids": ["ann", "bob", "cat"]}), ""),
        (json!({}), "ann bob cat"),
    ] {
        let answer = gateway.done("/api/push", json!({"all": true, "except": except, "data": except}));
        assert_eq!(answer, pushed(reached.split_whitespace().count() as u64), "{except}");
        for (client, name) in [(&mut ann, "ann"), (&mut bob, "bob"), (&mut cat, "cat")] {
            if reached.contains(name) {
                assert_eq!(data(client), except, "{name}");
            }
        }
    }
    let answer = gateway.done("/api/push", json!({"uid": "ann", "except": {"uid": "ann"}, "data": 1}));
    assert_eq!(answer, pushed(0), "the excluded uid must not be listed as offline");
}

#[test]
fn data_arrives_unchanged() {
    let gateway = Gateway::start(&[]);
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    gateway.done("/api/join", json!({"fd": fd, "group": "g\"ü"}));
    assert_eq!(next(&mut ann)["type"], "joined");
    for data in [
        r#"{"b" : 1.50,   "a":"\u00e9\/\ud83e\udd80"}"#,
        "123456789012345678901234567890.000000000000000000010",
        "-0",
        "1e400",
        r#"{"a":1,"a":2,"":null}"#,
        "null",
        "\"🦀 \u{7f} é\"",
        "[[],\t{ } ,\n  [ ]]",
        "\"\"",
    ] {
        let to_fd = format!(r#""fd":{fd}"#);
        for (target, expected) in [
            (r#""uid":"ann""#, ""),
            (r#""uids":["ann","bob"]"#, ""),
            (&to_fd, ""),
            (r#""group":"g\"\u00fc""#, r#""group":"g\"ü","#),
            (r#""groups":["g\"ü","x"]"#, r#""groups":["g\"ü","x"],"#),
            (r#""all":true"#, r#""all":true,"#),
        ] {
            gateway.done("/api/push", format!(r#" {{ "data" : {data} , {target} }} "#));
            assert_eq!(ann.text(), format!(r#"{{"type":"message",{expected}"data":{data}}}"#));
        }
    }
}

#[test]
fn text_and_binary_are_sent_without_an_envelope() {
    let gateway = Gateway::start(&[]);
    let mut ann = gateway.connect("/?uid=ann");
    for text in ["", "plain", "line\nbreak \"quote\" 消息", "\u{0}"] {
        assert_eq!(gateway.done("/api/push", json!({"uid": "ann", "text": text})), pushed(1));
        assert_eq!(ann.text(), text);
    }
    for (base64, bytes) in [("", &b""[..]), ("AP8+Pw==", &[0, 255, 62, 63]), ("aGVsbG8=", b"hello")] {
        assert_eq!(gateway.done("/api/push", json!({"all": true, "binary": base64})), pushed(1));
        assert_eq!(ann.binary(), bytes);
    }
}

#[test]
fn a_member_of_two_groups_gets_one_message() {
    let gateway = Gateway::start(&[]);
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    gateway.done("/api/join", json!({"fd": fd, "groups": ["g", "h"]}));
    let answer = gateway.done("/api/push", json!({"groups": ["g", "h", "g", "empty"], "data": "once"}));
    assert_eq!(answer, pushed(1));
    let answer = gateway.done("/api/push", json!({"fds": [fd, fd], "text": r#"{"type":"message","data":"fd"}"#}));
    assert_eq!(answer, pushed(1));
    gateway.done("/api/push", json!({"uids": ["ann", "ann"], "text": r#"{"type":"message","data":"uid"}"#}));
    gateway.done("/api/push", json!({"all": true, "data": "end"}));
    let received: Vec<Value> = (0..4).map(|_| data(&mut ann)).collect();
    assert_eq!(received, ["once", "fd", "uid", "end"]);
}

#[test]
fn the_number_of_named_targets_is_limited() {
    let gateway = Gateway::start(&[]);
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    gateway.done("/api/join", json!({"fd": fd, "group": "g"}));
    let names = |count: usize| (0..count).map(|number| format!("n{number}")).collect::<Vec<_>>();
    let half = vec!["g"; 5000];
    for (path, command) in [
        ("/api/push", json!({"uids": names(10_001), "data": 1})),
        ("/api/push", json!({"fds": vec![fd; 10_001], "data": 1})),
        ("/api/push", json!({"groups": vec!["g"; 10_001], "text": "x"})),
        ("/api/push", json!({"groups": half, "text": "x", "except": {"groups": half, "uids": ["x"]}})),
        (
            "/api/push",
            json!({"all": true, "text": "x", "except": {"fds": vec![fd; 5000], "uids": half, "groups": ["g"]}}),
        ),
        ("/api/join", json!({"uids": half, "groups": names(5001)})),
        ("/api/close", json!({"groups": names(10_001)})),
        ("/api/ungroup", json!({"groups": names(10_001)})),
        ("/api/online", json!({"uids": names(10_001)})),
    ] {
        let (status, answer) = gateway.post(path, &command);
        assert_eq!((status, &answer["error"]["code"]), (413, &json!("too_large")), "{path}: {answer}");
        let message = answer["error"]["message"].as_str().expect("the error has a message");
        assert!(message.contains("name limit of a command exceeded (10001 of 10000)"), "{message}");
    }

    // A push to the maximum number of targets is accepted. All of these uids are offline.
    let many = names(10_000);
    let answer = gateway.done("/api/push", json!({"uids": many, "data": "x".repeat(900_000)}));
    assert_eq!((&answer["matched"], &answer["offline"]), (&json!(0), &json!(many)));
    let long: Vec<&str> = many.iter().map(String::as_str).chain(["g"; 3]).skip(3).collect();
    assert_eq!(gateway.done("/api/push", json!({"groups": long, "text": r#"{"type":"message","data":1}"#})), pushed(1));
    assert_eq!(data(&mut ann), 1);
}

#[test]
fn a_conflation_key_has_the_length_limit_of_a_name() {
    let gateway = Gateway::start(&["--slow-reader", "conflate"]);
    let mut ann = gateway.connect("/?uid=ann");
    for (bytes, status) in [(0, 400), (1, 200), (128, 200), (129, 400), (500_000, 400)] {
        let key = "k".repeat(bytes);
        let (got, answer) = gateway.post("/api/push", json!({"uid": "ann", "data": bytes, "key": key}));
        assert_eq!(got, status, "{bytes}: {answer}");
        if got == 200 {
            assert_eq!(data(&mut ann), bytes);
        } else {
            assert_eq!(answer["error"]["message"], format!("key: a name must have 1 to 128 bytes, not {bytes}"));
        }
    }
}

#[test]
fn an_error_repeats_a_bounded_part_of_the_command() {
    let gateway = Gateway::start(&[]);
    let long = "x".repeat(900_000);
    for (command, expected) in [
        (json!({"all": true, "data": 1, &long: 1}), "push has no member \"xxx"),
        (json!({"all": true, "data": 1, "except": {&long: 1}}), "except has no member \"xxx"),
        (json!({"fd": long, "data": 1}), "string \"xxx"),
    ] {
        let (status, answer) = gateway.post("/api/push", command);
        let message = answer["error"]["message"].as_str().expect("the error has a message");
        assert!(status == 400 && message.contains(expected) && message.contains('…'), "{status}: {message}");
        assert!(message.len() < 600, "{} bytes", message.len());
    }
    let reply = gateway.call("GET", &format!("/api/users?{}=1", "x".repeat(4000)), &[], "");
    assert!(reply.status == 400 && reply.body.len() < 200, "{reply:?}");
    // The error frame quotes only a part of the long `type`.
    let mut ann = gateway.connect("/?uid=ann");
    ann.send(&json!({"id": 7, "type": long}).to_string());
    let refused = next(&mut ann);
    assert_eq!((&refused["type"], &refused["id"], &refused["code"]), (&json!("error"), &json!(7), &json!("bad_frame")));
}

#[test]
fn a_datagram_with_an_invalid_id_is_malformed() {
    let gateway = Gateway::start(&["--api", "udp:127.0.0.1:0"]);
    let mut ann = gateway.connect("/?uid=ann");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("the socket can be created");
    let to = gateway.datagrams[0].strip_prefix("udp:").expect("the address is a UDP address");
    for id in [json!({}), json!([1]), json!(true), json!("x".repeat(127)), json!("x".repeat(126))] {
        let command = json!({"uid": "ann", "data": id, "id": id});
        udp.send_to(command.to_string().as_bytes(), to).expect("the datagram can be sent");
    }
    assert_eq!(data(&mut ann), "x".repeat(126));
    // The server counts a datagram after it sends the message, so the client can receive the message before the
    // metric counts the datagram.
    for (outcome, count) in [("done", 1.0), ("malformed", 4.0)] {
        let sample = format!("fdpush_datagrams_total{{outcome=\"{outcome}\"}}");
        until(outcome, || gateway.metric(&sample) == count);
    }
}

#[test]
fn except_excludes_single_connections_of_several_uids() {
    let gateway = Gateway::start(&[]);
    let (mut left, left_fd) = gateway.open("/?uid=ann", &[]);
    let (mut ann, _) = gateway.open("/?uid=ann", &[]);
    let (mut bob, bob_fd) = gateway.open("/?uid=bob", &[]);
    let except = json!({"fds": [99, left_fd, left_fd], "uids": ["cat", "cat"]});
    let answer = gateway.done("/api/push", json!({"uids": ["bob", "ann", "cat"], "data": 1, "except": except}));
    assert_eq!(answer, json!({"matched": 2, "queued": 2, "dropped": 0, "offline": ["cat"]}));
    let answer = gateway.done("/api/push", json!({"uids": ["bob", "ann"], "data": 2, "except": {"fd": bob_fd}}));
    assert_eq!(answer, pushed(2));
    assert_eq!((data(&mut ann), data(&mut bob)), (json!(1), json!(1)));
    assert_eq!((data(&mut ann), data(&mut left)), (json!(2), json!(2)));
}

#[test]
fn offline_uids_are_reported() {
    let gateway = Gateway::start(&[]);
    let mut ann = gateway.connect("/?uid=ann");
    for payload in ["data", "text"] {
        let answer = gateway.done("/api/push", json!({"uids": ["bob", "ann", "cat", "bob"], payload: "x"}));
        assert_eq!(answer, json!({"matched": 1, "queued": 1, "dropped": 0, "offline": ["bob", "cat"]}));
        ann.text();
    }
    let answer = gateway.done("/api/push", json!({"uid": "q\"", "data": 1}));
    assert_eq!(answer, json!({"matched": 0, "queued": 0, "dropped": 0, "offline": ["q\""]}));
    assert_eq!(gateway.done("/api/push", json!({"group": "none", "data": 1})), pushed(0));
    assert_eq!(gateway.done("/api/push", json!({"uids": [], "data": 1})), pushed(0));
    ann.close(1000, "");
    ann.closed();
    assert_eq!(gateway.done("/api/push", json!({"uid": "ann", "data": 1}))["offline"], json!(["ann"]));
}

#[test]
fn a_stale_fd_reaches_no_connection() {
    let gateway = Gateway::start(&[]);
    let (mut old, stale) = gateway.open("/", &[]);
    old.close(1000, "");
    old.closed();
    assert_eq!(gateway.done("/api/push", json!({"fd": stale, "data": "for the old"})), pushed(0));
    let (mut new, fd) = gateway.open("/", &[]);
    assert_ne!(fd, stale);
    for unused in [stale, 99, (1 << 53) - 1] {
        assert_eq!(gateway.done("/api/push", json!({"fds": [unused], "data": "not you"})), pushed(0));
    }
    for none in [0, 1 << 24, 1 << 53, u64::MAX] {
        for (member, command) in [
            ("fd", json!({"fd": none, "data": 1})),
            ("fds", json!({"fds": [fd, none], "data": 1})),
            ("except", json!({"all": true, "except": {"fd": none}, "data": 1})),
        ] {
            let (status, answer) = gateway.post("/api/push", &command);
            assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_request")), "{command}");
            assert_eq!(answer["error"]["message"], format!("{member}: {none} is not an fd"));
        }
    }
    assert_eq!(gateway.done("/api/push", json!({"fds": [stale, fd], "data": "you"})), pushed(1));
    assert_eq!(next(&mut new)["data"], "you");
}

#[test]
fn an_id_is_returned_unchanged() {
    let gateway = Gateway::start(&[]);
    for id in [r#""a\u0041""#, "7", "-1.50", "12345678901234567890", r#""""#] {
        let good = format!(r#"{{"all":true,"data":1,"id":{id}}}"#);
        let reply = gateway.call("POST", "/api/push", &[("Content-Type", "application/json")], &good);
        let expected = format!("{{\"id\":{id},\"matched\":0,\"queued\":0,\"dropped\":0,\"offline\":[]}}\n");
        assert_eq!((reply.status, reply.body), (200, expected));
        let bad = format!(r#"{{"all":true,"uid":"ann","data":1,"id":{id}}}"#);
        let reply = gateway.call("POST", "/api/push", &[("Content-Type", "application/json")], &bad);
        assert_eq!(reply.status, 400);
        assert!(
            reply.body.starts_with(&format!("{{\"id\":{id},\"error\":{{\"code\":\"bad_request\"")),
            "{}",
            reply.body
        );
    }
    for id in [json!(null), json!(true), json!([1]), json!({}), json!("x".repeat(127))] {
        let (status, answer) = gateway.post("/api/push", json!({"all": true, "data": 1, "id": id}));
        // An `id` with the value `null` has the same meaning as no `id`.
        assert_eq!(status, if id.is_null() { 200 } else { 400 }, "{id}: {answer}");
        assert_eq!(answer.get("id"), None, "{answer}");
    }
}

#[test]
fn a_push_that_closes_a_slow_reader_is_reported_as_dropped() {
    let gateway = Gateway::start(&["--message-bytes-max", "64KiB", "--queue-bytes-max", "256KiB"]);
    let _slow = gateway.connect("/?uid=slow");
    let data = "x".repeat(60 << 10);
    let closing = loop {
        let answer = gateway.done("/api/push", json!({"uid": "slow", "data": data}));
        if answer != pushed(1) {
            break answer;
        }
    };
    assert_eq!(closing, json!({"matched": 1, "queued": 0, "dropped": 1, "offline": []}));
    assert_eq!(gateway.metric("fdpush_drops_total{policy=\"close\"}"), 1.0);
    assert_eq!(gateway.metric("fdpush_drops_total{policy=\"drop_newest\"}"), 0.0);
    assert_eq!(gateway.metric("fdpush_closes_total{cause=\"slow_consumer\"}"), 1.0);
    assert_eq!(
        gateway.done("/api/push", json!({"uid": "slow", "data": data})),
        json!({"matched": 0, "queued": 0, "dropped": 0, "offline": ["slow"]})
    );
}

#[test]
fn a_slow_reader_gets_the_last_message_of_a_conflation_key() {
    let limits = ["--slow-reader", "conflate", "--message-bytes-max", "64KiB", "--queue-bytes-max", "256KiB"];
    let gateway = Gateway::start(&limits);
    let mut slow = gateway.connect("/?uid=slow");
    const LAST: usize = 300;
    let padding = "x".repeat(60_000);
    for number in 0..=LAST {
        let data = json!({"number": number, "padding": padding});
        assert_eq!(gateway.done("/api/push", json!({"uid": "slow", "key": "price", "data": data})), pushed(1));
    }
    let received = (1..).find(|_| next(&mut slow)["data"]["number"] == LAST);
    assert!(
        received.is_some_and(|count| count <= LAST),
        "the client must receive fewer messages than were pushed to it"
    );
}

/// Returns line `number` of a batch. If the line is invalid, also returns the code of the expected error, and whether
/// the answer has the `id`.
fn line(number: usize) -> (String, Option<(&'static str, bool)>) {
    let good = json!({"uid": "ann", "data": number, "id": number});
    match number % 9 {
        1 => (format!("{{\"uid\":\"ann\",\"data\":{number},\"id\":{number}"), Some(("bad_request", false))),
        3 => (json!({"uid": "ann", "fd": 1, "data": 1, "id": number}).to_string(), Some(("bad_request", true))),
        5 => (json!({"uid": "", "data": 1, "id": number}).to_string(), Some(("bad_request", true))),
        7 => (json!({"uid": "ann", "text": "x".repeat(2100), "id": number}).to_string(), Some(("too_large", false))),
        _ => (good.to_string(), None),
    }
}

#[test]
fn a_batch_gets_one_answer_line_for_each_line_in_order() {
    const LINES: usize = 3000;
    // The limit `body_bytes_max` applies to each line, not to the whole batch.
    let gateway = Gateway::start(&["--body-bytes-max", "2KiB"]);
    let mut ann = gateway.connect("/?uid=ann");
    // The last line of the body has no line feed.
    let body = (1..=LINES).map(|number| line(number).0).collect::<Vec<_>>().join("\n");
    let mut raw = Raw::connect(gateway.api);
    let mut writer = raw.another();
    thread::spawn(move || {
        let whole = request("POST", "/api/batch", &[NDJSON], &body);
        // The lengths of the chunks differ from the lengths of the lines in the body.
        whole.as_bytes().chunks(1237).for_each(|piece| writer.send(piece));
    });
    let reply = raw.reply_in_chunks();
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("application/x-ndjson")));
    let answers: Vec<Value> =
        reply.body.lines().map(|line| serde_json::from_str(line).expect("the text is JSON")).collect();
    assert_eq!(answers.len(), LINES);
    for (number, answer) in (1..=LINES).zip(answers) {
        let Some((code, has_id)) = line(number).1 else {
            let mut expected = pushed(1);
            expected["id"] = json!(number);
            assert_eq!(answer, expected, "line {number}");
            assert_eq!(next(&mut ann), json!({"type": "message", "data": number}));
            continue;
        };
        assert_eq!((&answer["error"]["code"], &answer["error"]["line"]), (&json!(code), &json!(number)), "{answer}");
        assert_eq!(answer.get("id"), has_id.then(|| json!(number)).as_ref(), "{answer}");
    }
    // After the batch, the connection can be used for another request.
    raw.send(request("GET", "/healthz", &[], ""));
    assert_eq!(raw.reply().status, 200);
}

#[test]
fn a_batch_is_accepted_chunked_with_empty_lines_and_without_a_final_newline() {
    let gateway = Gateway::start(&[]);
    let mut ann = gateway.connect("/?uid=ann");
    let mut raw = Raw::connect(gateway.api);
    raw.send("POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    raw.send("Transfer-Encoding: chunked\r\n\r\n");
    for piece in ["\n\r\n{\"uid\":\"an", "n\",\"data\":1}\r\n  \n", "{\"uid\":\"ann\",\"da", "ta\":2}"] {
        raw.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    // The server executes a complete line before the body ends.
    assert_eq!(next(&mut ann)["data"], 1);
    raw.send("0\r\n\r\n");
    let reply = raw.reply_in_chunks();
    let one = format!("{}\n", r#"{"matched":1,"queued":1,"dropped":0,"offline":[]}"#);
    assert_eq!(reply.body, one.repeat(2));
    assert_eq!(next(&mut ann)["data"], 2);

    for body in ["", "\n\n"] {
        raw.send(request("POST", "/api/batch", &[NDJSON], body));
        let reply = if body.is_empty() { raw.reply() } else { raw.reply_in_chunks() };
        assert_eq!((reply.status, reply.body.trim()), (200, ""), "{}", reply.head);
        assert_eq!(reply.header("Content-Type"), Some("application/x-ndjson"), "{}", reply.head);
    }
}

#[test]
fn a_batch_that_expects_100_continue_gets_it() {
    let gateway = Gateway::start(&[]);
    let mut ann = gateway.connect("/?uid=ann");
    let mut raw = Raw::connect(gateway.api);
    let line = "{\"uid\":\"ann\",\"data\":1}\n";
    let one = format!("{}\n", r#"{"matched":1,"queued":1,"dropped":0,"offline":[]}"#);
    let length = format!("Content-Length: {}", line.len());
    let chunk = format!("{:x}\r\n{line}\r\n0\r\n\r\n", line.len());
    for (how, body) in [(&*length, line), ("Transfer-Encoding: chunked", &chunk)] {
        raw.send("POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n");
        raw.send(format!("Expect: 100-continue\r\n{how}\r\n\r\n"));
        raw.expect(b"HTTP/1.1 100 Continue\r\n\r\n");
        raw.send(body);
        let reply = raw.reply_in_chunks();
        assert_eq!((reply.status, reply.body), (200, one.clone()), "{how}");
        assert_eq!(data(&mut ann), 1);
    }
}

#[test]
fn a_batch_with_unread_answers_waits_without_delaying_others() {
    const LINES: usize = 60_000;
    let gateway = Gateway::start(&[]);
    let mut ann = gateway.connect("/?uid=ann");
    let id = "x".repeat(120);
    let line = format!("{{\"fd\":99,\"data\":1,\"id\":\"{id}\"}}\n");
    let mut raw = Raw::connect(gateway.api);
    let mut writer = raw.another();
    thread::spawn(move || writer.send(request("POST", "/api/batch", &[NDJSON], &line.repeat(LINES))));
    for number in 0..100 {
        gateway.done("/api/push", json!({"uid": "ann", "data": number}));
        assert_eq!(data(&mut ann), number);
    }
    let reply = raw.reply_in_chunks();
    let answer = format!("{{\"id\":\"{id}\",\"matched\":0,\"queued\":0,\"dropped\":0,\"offline\":[]}}");
    assert_eq!(reply.body.lines().filter(|line| *line == answer).count(), LINES);
}

#[test]
fn an_aborted_batch_has_executed_the_received_lines() {
    let gateway = Gateway::start(&[]);
    let mut ann = gateway.connect("/?uid=ann");
    let mut raw = Raw::connect(gateway.api);
    raw.send("POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n");
    raw.send("Content-Length: 1000\r\n\r\n{\"uid\":\"ann\",\"data\":1}\n{\"uid\":\"ann\",\"data\":2}");
    assert_eq!(data(&mut ann), 1);
    drop(raw);
    until("the connection has ended", || gateway.metric("fdpush_connections{state=\"api\"}") <= 1.0);
    gateway.done("/api/push", json!({"uid": "ann", "data": 3}));
    assert_eq!(data(&mut ann), 3, "the server must not execute an incomplete line");
}

#[test]
fn the_api_is_served_on_a_unix_socket() {
    let scratch = Scratch::new("api");
    let path = scratch.file("api.sock");
    let gateway = Gateway::start(&["--api", &format!("unix:{}", path.display())]);
    let mut ann = gateway.connect("/?uid=ann");
    let mut stream = UnixStream::connect(&path).expect("the server listens");
    let headers = [("Content-Type", "application/json"), ("Host", "any"), ("Connection", "close")];
    let push = json!({"uid": "ann", "data": 1}).to_string();
    stream.write_all(request("POST", "/api/push", &headers, &push).as_bytes()).expect("the bytes can be sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("the reply can be read");
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("\"offline\":[]}\n"), "{reply}");
    assert_eq!(data(&mut ann), 1);
}

#[test]
fn a_datagram_needs_the_api_key() {
    let scratch = Scratch::new("datagrams");
    let path = scratch.file("push.sock");
    let unix = format!("unixgram:{}", path.display());
    let api = ["--api", "udp:127.0.0.1:0", "--api", &unix, "--api-key", "first,second"];
    let gateway = Gateway::spawn(&[&["--log", "debug"][..], &api].concat());
    let mut ann = gateway.connect("/?uid=ann");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("the socket can be created");
    let to = gateway
        .datagrams
        .iter()
        .find_map(|address| address.strip_prefix("udp:"))
        .expect("the address is a UDP address");
    udp.connect(to).expect("the address is valid");
    let unix = UnixDatagram::unbound().expect("the socket can be created");
    unix.connect(&path).expect("the server listens");
    let send_udp = |datagram: Value| assert!(udp.send(datagram.to_string().as_bytes()).is_ok());
    let send_unix = |datagram: Value| assert!(unix.send(datagram.to_string().as_bytes()).is_ok());
    // A socket keeps its datagrams in order, so the server checks the four refused datagrams before the two valid ones.
    for send in [&send_udp as &dyn Fn(Value), &send_unix] {
        send(json!({"uid": "ann", "data": "no key"}));
        send(json!({"uid": "ann", "data": "wrong key", "auth": "third"}));
        send(json!("no command"));
        send(json!({"data": "to nobody", "auth": "first"}));
        send(json!({"uid": "ann", "data": "first", "auth": "first"}));
        send(json!({"all": true, "data": "second", "auth": "second"}));
        assert_eq!(next(&mut ann), json!({"type": "message", "data": "first"}));
        assert_eq!(next(&mut ann), json!({"type": "message", "all": true, "data": "second"}));
        for why in ["missing API key", "unknown API key", "expected an object", "expected one of uid, uids"] {
            gateway.logged(&format!("datagram refused: \"{why}"));
        }
    }
    let key = ("Authorization", "Bearer second");
    for (outcome, count) in [("done", 4), ("unauthorized", 4), ("malformed", 4), ("overflowed", 0)] {
        let sample = format!("fdpush_datagrams_total{{outcome=\"{outcome}\"}} {count}\n");
        // The server counts a datagram after it queues the message. So the client can receive the message before the
        // metric counts the datagram.
        until(&sample, || gateway.call("GET", "/metrics", &[key], "").body.contains(&sample));
    }
}

#[test]
fn without_an_api_key_a_datagram_needs_none() {
    let gateway = Gateway::start(&["--api", "udp:127.0.0.1:0"]);
    let mut ann = gateway.connect("/?uid=ann");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("the socket can be created");
    udp.connect(gateway.datagrams[0].trim_start_matches("udp:")).expect("the address is valid");
    for datagram in [r#"{"uid":"ann","fd":1,"data":1}"#, r#"{"uid":"ann","data":[1, 2.0]}"#] {
        udp.send(datagram.as_bytes()).expect("the bytes can be sent");
    }
    assert_eq!(ann.text(), r#"{"type":"message","data":[1, 2.0]}"#);
}
