//! Tests `fdpush serve` with an independent client: flags, the demo page, and JSON frames.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, ExitStatus};

use crate::common::command::{call, command};
use crate::common::{ChildProcess, Client, Raw, Scratch, refusal};
use serde_json::{Value, json};

/// A running `fdpush serve`. When the value is dropped, the process is killed.
struct Served {
    child: ChildProcess,
    address: SocketAddr,
}

impl Served {
    fn start(flags: &[&str]) -> Served {
        let mut child = ChildProcess::spawn(&mut serve(&[&["--listen", "127.0.0.1:0"], flags].concat()));
        let stdout = child.stdout.take().expect("the output is a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("the line can be read");
        let url = line
            .split_once("http://")
            .map_or(line.rsplit_once(' ').expect("the line has an address").1, |(_, url)| url);
        let address = url.trim().trim_end_matches('/').parse().expect("the address is valid");
        Served { child, address }
    }

    /// Connects a client and reads its welcome frame.
    fn connect(&self, target: &str) -> Client {
        let mut client = Client::connect(self.address, target, &[]).expect("the server accepts the WebSocket");
        assert_eq!(next(&mut client)["type"], "welcome");
        client
    }

    fn signal(&self, signal: &str) {
        self.child.signal(signal);
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.exit_status()
    }
}

fn serve(flags: &[&str]) -> Command {
    command(&[&["serve", "--log", "warn"], flags].concat(), &[("FDPUSH_API", "off")])
}

/// Returns the error output of `fdpush serve` for invalid flags.
fn error_output(flags: &[&str], environment: &[(&str, &str)]) -> String {
    let printed = call(&[&["serve", "--log", "warn", "--api", "off"], flags].concat(), environment);
    assert!(printed.code.is_some_and(|code| code > 0), "{flags:?} must be refused: {printed:?}");
    printed.err
}

fn next(client: &mut Client) -> Value {
    serde_json::from_str(&client.text()).expect("the text is JSON")
}

fn ask(client: &mut Client, frame: Value) -> Value {
    client.send(&frame.to_string());
    next(client)
}

#[test]
fn the_first_frame_is_welcome() {
    let served = Served::start(&["--ping-every", "5s"]);
    let mut named = Client::connect(served.address, "/?uid=10086", &[]).expect("the server accepts the WebSocket");
    let heartbeat = json!({"mode": "ping", "every_ms": 5000});
    assert_eq!(next(&mut named), json!({"type": "welcome", "fd": 1, "uid": "10086", "heartbeat": heartbeat}));
    let mut anonymous = Client::connect(served.address, "/any/path", &[]).expect("the server accepts the WebSocket");
    assert_eq!(next(&mut anonymous), json!({"type": "welcome", "fd": 2, "uid": null, "heartbeat": heartbeat}));
}

#[test]
fn a_message_to_a_uid_reaches_all_its_connections() {
    let served = Served::start(&[]);
    let mut ann = served.connect("/?uid=ann");
    let mut phone = served.connect("/?uid=bob");
    let mut laptop = served.connect("/?uid=bob");
    let ack = ask(&mut ann, json!({"type": "push", "to": "bob", "data": {"a": [1, null]}, "id": 7}));
    assert_eq!(ack, json!({"type": "ack", "id": 7, "matched": 2, "queued": 2, "dropped": 0}));
    let message = json!({"type": "message", "from": "ann", "fd": 1, "data": {"a": [1, null]}});
    assert_eq!(next(&mut phone), message);
    assert_eq!(next(&mut laptop), message);
    let ack = ask(&mut ann, json!({"type": "push", "to": "anonymous", "data": 1, "id": 8}));
    assert_eq!(ack, json!({"type": "ack", "id": 8, "matched": 0, "queued": 0, "dropped": 0}));
}

#[test]
fn client_data_arrives_unchanged() {
    let served = Served::start(&[]);
    let mut ann = served.connect("/?uid=ann");
    let mut bob = served.connect("/?uid=bob");
    for data in [r#"{"b" : 1.50, "a":"\u00e9"}"#, "1e400", "null", r#""🦀""#, "[[], {} ]"] {
        ann.send(&format!(r#"{{"type":"push","to":"bob","data":{data}}}"#));
        let expected = format!(r#"{{"type":"message","from":"ann","fd":1,"data":{data}}}"#);
        assert_eq!(bob.text(), expected);
    }
}

#[test]
fn a_message_reaches_several_uids_an_fd_a_group_and_all() {
    let served = Served::start(&[]);
    let mut ann = served.connect("/?uid=ann");
    let mut bob = served.connect("/?uid=bob");
    let mut cat = served.connect("/");
    let ack = ask(&mut cat, json!({"type": "push", "to": ["ann", "bob", "ann"], "data": "x", "id": "several"}));
    assert_eq!(ack, json!({"type": "ack", "id": "several", "matched": 2, "queued": 2, "dropped": 0}));
    assert_eq!(next(&mut ann), json!({"type": "message", "from": null, "fd": 3, "data": "x"}));
    assert_eq!(next(&mut bob)["data"], "x");

    ann.send(r#"{"type":"push","fd":3,"data":"to your fd"}"#);
    assert_eq!(next(&mut cat), json!({"type": "message", "from": "ann", "fd": 1, "data": "to your fd"}));

    assert_eq!(ask(&mut ann, json!({"type": "join", "group": "room", "id": 1})), json!({"type": "ack", "id": 1}));
    assert_eq!(next(&mut ann)["type"], "joined");
    assert_eq!(ask(&mut cat, json!({"type": "join", "group": "room", "id": 1})), json!({"type": "ack", "id": 1}));
    bob.send(r#"{"type":"push","group":"room","data":2}"#);
    let message = json!({"type": "message", "from": "bob", "fd": 2, "group": "room", "data": 2});
    assert_eq!(next(&mut ann), message);
    assert_eq!(next(&mut cat), message);

    bob.send(r#"{"type":"push","all":true,"data":3}"#);
    for client in [&mut ann, &mut bob, &mut cat] {
        assert_eq!(next(client), json!({"type": "message", "from": "bob", "fd": 2, "all": true, "data": 3}));
    }
}

#[test]
fn a_group_is_notified_of_the_first_join_and_the_last_leave_of_a_uid() {
    let served = Served::start(&[]);
    let mut ann = served.connect("/?uid=ann");
    let mut first = served.connect("/?uid=bob");
    let mut second = served.connect("/?uid=bob");
    let presence = |kind: &str, uid: &str, count: u32| json!({"type": kind, "group": "g", "uid": uid, "count": count});
    ann.send(r#"{"type":"join","group":"g"}"#);
    assert_eq!(next(&mut ann), presence("joined", "ann", 1));
    first.send(r#"{"type":"join","group":"g"}"#);
    assert_eq!(next(&mut ann), presence("joined", "bob", 2));
    assert_eq!(next(&mut first), presence("joined", "bob", 2));
    // When the second connection of bob joins, the group gets no notice. When the first connection of bob closes, the
    // group gets no notice, because the second connection is still a member.
    assert_eq!(ask(&mut second, json!({"type": "join", "group": "g", "id": 1})), json!({"type": "ack", "id": 1}));
    first.close(1000, "");
    assert_eq!(first.closed().0, 1000);
    let online = ask(&mut ann, json!({"type": "online", "uids": ["bob", "cat"], "id": 8}));
    assert_eq!(online, json!({"type": "online", "id": 8, "online": ["bob"]}));
    second.send(r#"{"type":"leave","group":"g"}"#);
    assert_eq!(next(&mut ann), presence("left", "bob", 1));
}

#[test]
fn a_frame_with_an_id_gets_one_answer() {
    let served = Served::start(&[]);
    let mut ann = served.connect("/?uid=ann");
    ann.send(r#"{"type":"heartbeat"}"#);
    for (frame, code) in [
        (r#"{"type":"heartbeat","id":1}"#, None),
        (r#"{"type":"leave","group":"never joined","id":2}"#, None),
        (r#"{"type":"push","id":3}"#, Some("bad_request")),
        (r#"{"type":"push","fd":99,"data":0,"id":4}"#, None),
        (r#"{"type":"join","group":"","id":5}"#, Some("bad_request")),
        (r#"{"type":"dance","id":6}"#, Some("bad_frame")),
    ] {
        ann.send(frame);
        let (answer, request) = (next(&mut ann), serde_json::from_str::<Value>(frame).expect("the text is JSON"));
        assert_eq!(answer["id"], request["id"], "{answer}");
        assert_eq!(answer["code"].as_str(), code, "{answer}");
    }
    ann.send("not even JSON");
    assert_eq!(next(&mut ann)["code"], "bad_frame");
    ann.send_binary(b"{}");
    assert_eq!(ann.closed(), (1003, "frames must be JSON text".to_owned()));
}

#[test]
fn a_second_login_follows_the_policy() {
    let served = Served::start(&["--on-second-login", "kick_old"]);
    let mut old = served.connect("/?uid=ann");
    let _new = served.connect("/?uid=ann");
    assert_eq!(old.closed().0, 4001);

    let served = Served::start(&["--on-second-login", "reject_new"]);
    let _old = served.connect("/?uid=ann");
    assert_eq!(refusal(Client::connect(served.address, "/?uid=ann", &[])).0, 409);
}

#[test]
fn a_refused_client_gets_the_reason() {
    let served = Served::start(&[]);
    let long = format!("/?uid={}", "x".repeat(129));
    for (target, headers, status, hint) in [
        ("/?uid=", &[][..], 400, "1 to 128"),
        (&long, &[], 400, "129"),
        ("/?uid=ann", &[("Origin", "http://evil.example")], 403, "evil.example"),
    ] {
        let (refused, body) = refusal(Client::connect(served.address, target, headers));
        assert_eq!(refused, status, "{target}");
        assert!(body.contains(hint), "{target}: {body}");
    }
    let own = format!("http://{}", served.address);
    assert!(Client::connect(served.address, "/?uid=ann", &[("Origin", &own)]).is_ok());
}

#[test]
fn the_page_is_served_unless_disabled() {
    let served = Served::start(&[]);
    let mut raw = Raw::connect(served.address);
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = raw.reply();
    assert_eq!(reply.status, 200);
    assert!(reply.body.contains("<title>"));
    let policy = reply.header("Content-Security-Policy").expect("the page has a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for (path, media_type) in
        [("/chat.css", "text/css"), ("/chat.js", "text/javascript"), ("/fdpush.js", "text/javascript")]
    {
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let reply = raw.reply();
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header("Content-Type").is_some_and(|kind| kind.starts_with(media_type)), "{path}");
    }
    raw.send("GET /favicon.ico HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(raw.reply().status, 204);
    raw.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(raw.reply().status, 404);
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(raw.reply().status, 405);

    let served = Served::start(&["--page", "never"]);
    let mut raw = Raw::connect(served.address);
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(raw.reply().status, 404);
}

#[test]
fn the_error_for_an_invalid_flag_names_it() {
    for (flags, hints) in [
        (
            &["--listen", "0.0.0.0:0"][..],
            &["0.0.0.0", "--auth jwt with --jwt-secret", "--auth webhook", "--auth trust"][..],
        ),
        (&["--listen", "nowhere"], &["nowhere", "HOST:PORT, [V6]:PORT or unix:PATH"]),
        (&["--listen", "127.0.0.1:99999"], &["127.0.0.1:99999"]),
        (&["--listen", "unix:/dev/null"], &["unix:/dev/null", "the file exists and is not a socket"]),
        (&["--origin", "example.com"], &["--origin", "example.com"]),
        (&["--heartbeat", "drum"], &["drum", "client, ping, push"]),
        (&["--auth", "guess"], &["guess", "trust"]),
    ] {
        let printed = error_output(flags, &[]);
        for hint in hints {
            assert!(printed.contains(hint), "{flags:?}: {printed}");
        }
    }
}

#[test]
fn settings_are_read_from_the_environment() {
    let printed = error_output(&[], &[("FDPUSH_HEARTBEAT", "drum")]);
    assert!(printed.contains("drum"), "{printed}");
}

#[test]
fn a_unix_socket_is_served_beside_tcp_and_removed_at_exit() {
    let scratch = Scratch::new("serve");
    let path = scratch.file("push.sock");
    let unix = format!("unix:{}", path.display());
    let mut served = Served::start(&["--listen", &unix]);
    let mut ann = served.connect("/?uid=ann");
    let mut bob = Client::connect_unix(&path, "/?uid=bob").expect("the server accepts the WebSocket");
    assert_eq!(next(&mut bob)["uid"], "bob");
    bob.send(r#"{"type":"push","to":"ann","data":"over a file"}"#);
    assert_eq!(next(&mut ann)["data"], "over a file");
    served.signal("-TERM");
    assert_eq!((ann.closed().0, bob.closed().0), (1001, 1001));
    assert!(served.wait().success());
    assert!(!path.exists());
}

#[test]
fn a_signal_drains_and_a_second_signal_ends_the_process_at_once() {
    for signal in ["-TERM", "-INT"] {
        let mut served = Served::start(&[]);
        let mut ann = served.connect("/?uid=ann");
        served.signal(signal);
        assert_eq!(ann.closed().0, 1001);
        assert!(served.wait().success(), "{signal}");
    }
    let mut served = Served::start(&["--drain-time-max", "1h", "--close-wait-max", "1h"]);
    // This client does not answer the close frame.
    let mut unresponsive = Raw::upgraded(served.address);
    served.signal("-TERM");
    assert_eq!(unresponsive.close_frame().0, 1001);
    served.signal("-TERM");
    assert!(!served.wait().success());
}

#[test]
fn with_conflate_a_slow_reader_gets_the_last_message_of_a_conflation_key() {
    let limits = ["--slow-reader", "conflate", "--message-bytes-max", "64KiB", "--queue-bytes-max", "256KiB"];
    let served = Served::start(&limits);
    let mut slow = served.connect("/?uid=slow");
    let mut sender = served.connect("/?uid=sender");
    const LAST: usize = 300;
    let padding = "x".repeat(60_000);
    for number in 0..=LAST {
        let data = json!({"number": number, "padding": padding});
        let ack = ask(&mut sender, json!({"type":"push","to":"slow","key":"price","data":data,"id":number}));
        assert_eq!((&ack["queued"], &ack["dropped"]), (&json!(1), &json!(0)), "{ack}");
    }
    let ack = ask(&mut sender, json!({"type":"push","to":"slow","data":padding,"id":"without"}));
    assert_eq!(ack["dropped"], 1, "{ack}");
    let received = (1..).find(|_| next(&mut slow)["data"]["number"] == LAST);
    assert!(
        received.is_some_and(|count| count <= LAST),
        "the client must receive fewer messages than were pushed to it"
    );
}

#[test]
fn name_rules_are_the_same_in_every_frame() {
    let served = Served::start(&[]);
    let mut client = served.connect("/?uid=ann");
    let long = "x".repeat(129);
    for frame in [
        json!({"type":"join","group":""}),
        json!({"type":"leave","group":long}),
        json!({"type":"push","to":"","data":1}),
        json!({"type":"push","to":["ann",long],"data":1}),
        json!({"type":"push","group":"","data":1}),
        json!({"type":"push","to":"ann","key":"","data":1}),
        json!({"type":"online","uids":[""]}),
    ] {
        let mut numbered = frame.clone();
        numbered["id"] = json!(7);
        let error = ask(&mut client, numbered);
        assert_eq!((&error["code"], &error["id"]), (&json!("bad_request"), &json!(7)), "{frame}: {error}");
        assert!(error["message"].as_str().is_some_and(|why| why.contains("1 to 128")), "{frame}: {error}");
    }
    assert_eq!(
        ask(&mut client, json!({"type":"online","uids":["ann"]}))["online"],
        json!(["ann"]),
        "the server must answer a valid frame after invalid ones"
    );
}

#[test]
fn a_push_over_the_queue_bound_is_too_large_and_reaches_no_connection() {
    // The smallest valid queue bound is the length of the longest received message with a frame header. A pushed
    // message also contains the uid of the sender, so it can exceed this bound.
    let served = Served::start(&["--message-bytes-max", "1000", "--queue-bytes-max", "1010"]);
    let mut client = served.connect(&format!("/?uid={}", "x".repeat(128)));
    let fits = |to: Value, bytes: usize| {
        let mut frame = json!({"type":"push","id":1,"data":"y".repeat(bytes)});
        frame
            .as_object_mut()
            .expect("the value is an object")
            .extend(to.as_object().expect("the value is an object").clone());
        frame
    };
    for to in [json!({"all":true}), json!({"group":"g"}), json!({"to":["a","b"]}), json!({"fd":1})] {
        let error = ask(&mut client, fits(to, 850));
        assert_eq!(error["code"], "too_large", "{error}");
    }
    client.send(&fits(json!({"all":true}), 700).to_string());
    assert_eq!(next(&mut client)["type"], "message");
    assert_eq!(next(&mut client)["matched"], 1);
}
