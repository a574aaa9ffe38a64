//! Tests the webhook events that client frames cause, and back ends that refuse, fail or hang.

use crate::common::backend::{Answer, Backend};
use crate::common::events::{Events, start_accepting_back_end, start_with_webhook};
use crate::common::gateway::{Gateway, hang_up, next, until};
use serde_json::{Value, json};

#[test]
fn send_frames_reach_only_the_back_end() {
    let backend = start_accepting_back_end();
    let gateway = start_with_webhook(&backend, &["--webhook-events", "message", "--client-may", "nothing"]);
    let mut events = Events::of(&backend);
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    let mut bob = gateway.connect("/?uid=bob");
    let order = r#"{"type":"send","data":{"order":[1, 2]},"id":7}"#;
    ann.send(order);
    assert_eq!(next(&mut ann), json!({"type": "ack", "id": 7}));
    assert_eq!(events.next(), json!({"type": "message", "fd": fd, "uid": "ann", "text": order}));
    // A frame without an `id` gets no answer, so the next frame that the client receives is from the back end.
    ann.send(r#"{"type":"send","data":1}"#);
    assert_eq!(events.next()["text"], r#"{"type":"send","data":1}"#);
    gateway.done("/api/push", json!({"all": true, "data": "taken"}));
    assert_eq!(next(&mut ann)["data"], "taken");
    assert_eq!(next(&mut bob)["data"], "taken");

    let deaf = Gateway::start(&[]);
    let silent = start_with_webhook(&backend, &["--webhook-events", "open,close"]);
    for gateway in [deaf, silent] {
        let mut ann = gateway.connect("/?uid=ann");
        ann.send(order);
        let refused = next(&mut ann);
        assert_eq!((&refused["id"], &refused["code"]), (&json!(7), &json!("not_allowed")), "{refused}");
        assert!(refused["message"].as_str().is_some_and(|message| message.contains("no webhook receives")));
    }
}

#[test]
fn a_send_frame_over_the_queue_limit_is_not_acknowledged() {
    let backend = Backend::start(|_| Answer::Hang);
    let gateway = start_with_webhook(
        &backend,
        &["--webhook-queue-max", "1", "--webhook-batch-max", "1", "--webhook-events", "message"],
    );
    let mut ann = gateway.connect("/?uid=ann");
    for kind in ["ack", "error"] {
        ann.send(r#"{"type":"send","data":1,"id":7}"#);
        assert_eq!(next(&mut ann)["type"], kind);
    }
    ann.send(r#"{"type":"send","data":1,"id":7}"#);
    assert_eq!(next(&mut ann)["code"], "unavailable");
}

#[test]
fn only_valid_send_frames_become_send_events() {
    let backend = start_accepting_back_end();
    let gateway = start_with_webhook(&backend, &["--webhook-events", "send"]);
    let mut events = Events::of(&backend);
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    let deep = format!(r#"{{"type":"send","data":{}{},"id":1}}"#, "[".repeat(500), "]".repeat(500));
    for (frame, code) in [
        (r#"{"type":"heartbeat","id":1}"#, None),
        (r#"{"type":"join","group":"g","id":1}"#, None),
        ("not even JSON", Some("bad_frame")),
        (r#"{"type":"send","id":1}"#, Some("bad_request")),
        (r#"{"type":"send","data":1,"to":"bob","id":1}"#, Some("bad_request")),
        // The server refuses `data` that some JSON parsers cannot read.
        (r#"{"type":"send","data":1e999,"id":1}"#, Some("bad_request")),
        (r#"{"type":"send","data":"\ud800","id":1}"#, Some("bad_request")),
        (&deep, Some("bad_request")),
    ] {
        ann.send(frame);
        let answer = loop {
            let answer = next(&mut ann);
            if answer["type"] != "joined" {
                break answer;
            }
        };
        assert_eq!(answer["code"].as_str(), code, "{frame}: {answer}");
    }
    ann.send(r#"{"type":"send","id":7,"data":{"order": [1, "\ud83d\ude00"]}}"#);
    assert_eq!(next(&mut ann), json!({"type": "ack", "id": 7}));
    assert_eq!(events.next(), json!({"type": "send", "fd": fd, "uid": "ann", "data": {"order": [1, "😀"]}}));

    // This server sends `message` events and `send` events, so a `send` frame causes one event of each type.
    let gateway = start_with_webhook(&backend, &["--webhook-events", "message,send"]);
    let mut events = Events::of(&backend);
    let mut ann = gateway.connect("/?uid=ann");
    let frame = r#"{"type":"send","data":null}"#;
    ann.send(frame);
    assert_eq!(events.next()["text"], frame);
    let event = events.next();
    assert_eq!((&event["type"], event.get("data")), (&json!("send"), Some(&Value::Null)));
}

#[test]
fn a_frame_with_an_oversized_event_is_refused() {
    let backend = start_accepting_back_end();
    let gateway =
        start_with_webhook(&backend, &["--webhook-event-bytes-max", "100KiB", "--webhook-events", "open,message"]);
    let mut events = Events::of(&backend);
    let (mut ann, _) = gateway.open("/?uid=ann", &[]);
    let mut bob = gateway.connect("/?uid=bob");
    // In the JSON of an event, each control character takes six bytes, so these 60 kB take 360 kB.
    let control = "\u{1}".repeat(60_000);
    let push = format!(r#"{{"type":"push","to":"bob","data":"{}","id":1}}"#, "\\\\".repeat(30_000));
    for frame in [&control, &push, &"x".repeat(110_000)] {
        ann.send(frame);
        let error = next(&mut ann);
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("too_large")), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains("102400 bytes")), "{error}");
    }
    ann.send(r#"{"type":"push","to":"bob","data":"small"}"#);
    assert_eq!(next(&mut bob)["data"], "small", "bob must get no refused message");
    assert_eq!(events.next()["type"], "open");
    assert_eq!(events.next()["type"], "open");
    assert!(
        events.next()["text"].as_str().is_some_and(|text| text.contains("small")),
        "a refused frame must cause no event"
    );
    assert_eq!(gateway.metric(r#"fdpush_webhook_given_up_total{reason="too_large"}"#), 3.0);

    // A frame of another type causes no `send` event, so the limit of an event does not apply to it.
    let gateway = start_with_webhook(&backend, &["--webhook-event-bytes-max", "4KiB", "--webhook-events", "send"]);
    let mut ann = gateway.connect("/?uid=ann");
    let long = "x".repeat(5000);
    ann.send(&format!(r#"{{"type":"push","to":"ann","data":"{long}"}}"#));
    assert_eq!(next(&mut ann)["data"], long);
    ann.send(&format!(r#"{{"type":"send","data":"{long}","id":2}}"#));
    assert_eq!(next(&mut ann)["code"], "too_large");
}

#[test]
fn no_valid_frame_is_too_large_for_the_webhook_by_default() {
    let backend = start_accepting_back_end();
    let gateway = start_with_webhook(&backend, &["--webhook-events", "message"]);
    let mut events = Events::of(&backend);
    let mut ann = gateway.connect(&format!("/?uid={}", "n".repeat(128)));
    let mut bob = gateway.connect("/?uid=bob");
    // Messages of the maximum length: one with plain text, one with escapes and one with line feeds. In the event, the
    // escapes and the line feeds take twice as many bytes.
    let (open, close) = (r#"{"type":"push","to":"bob","data":""#, r#""}"#);
    let room = (1 << 20) - open.len() - close.len();
    let frames = [
        format!("{open}{}{close}", "x".repeat(room)),
        format!("{open}{}{close}", "\\\"".repeat(room / 2)),
        format!("{open}{close}{}", "\n".repeat(room)),
    ];
    for frame in frames {
        ann.send(&frame);
        assert_eq!(next(&mut bob)["type"], "message");
        assert!(events.next()["text"] == frame.as_str(), "the event must contain the whole frame");
    }
    // Only a text that is not a valid frame can contain control characters that take six bytes each in the JSON of the
    // event. So the event of such a text can be too large.
    ann.send(&"\u{1}".repeat(1 << 20));
    assert_eq!(next(&mut ann)["code"], "too_large");
}

#[test]
fn a_refused_event_does_not_block_later_events() {
    // nginx and Express answer a body over their limit with 413.
    let backend = Backend::start(|request| match request.body.len() {
        0..=20_000 => Answer::Status(204, String::new()),
        _ => Answer::Status(413, "too large".to_owned()),
    });
    let gateway = start_with_webhook(&backend, &["--webhook-events", "message"]);
    let mut ann = gateway.connect("/?uid=ann");
    let mut bob = gateway.connect("/?uid=bob");
    let large = format!(r#"{{"type":"heartbeat","x":"{}"}}"#, "x".repeat(30_000));
    for number in 0..20 {
        ann.send(&large);
        bob.send(&format!(r#"{{"type":"heartbeat","id":{number}}}"#));
        assert_eq!(next(&mut bob)["id"], number);
    }
    until("the back end has accepted the small events", || gateway.metric("fdpush_webhook_sent_total") == 20.0);
    until("the large events are counted as given up", || {
        gateway.metric(r#"fdpush_webhook_given_up_total{reason="refused"}"#) == 20.0
    });
    assert_eq!(gateway.metric("fdpush_webhook_queue"), 0.0);
    assert!(gateway.logged("webhook back end refused ").contains(" with status 413: seq "));
}

#[test]
fn a_back_end_that_hangs_or_fails_does_not_delay_pushes() {
    let backend = Backend::start(|_| Answer::Hang);
    let gateway = start_with_webhook(
        &backend,
        &["--webhook-timeout", "1s", "--webhook-queue-max", "50", "--webhook-batch-max", "10"],
    );
    let mut ann = gateway.connect("/?uid=ann");
    backend.requests.next();
    for number in 0..500 {
        ann.send(&json!({"type": "push", "to": "ann", "data": number}).to_string());
        assert_eq!(next(&mut ann)["data"], number);
    }
    // Over the queue limit, the server drops `message` events, but no `open` or `close` events.
    let given_up = r#"fdpush_webhook_given_up_total{reason="queue_full"}"#;
    until("the server has given up 400 events", || gateway.metric(given_up) >= 400.0);
    until("a request to the webhook has failed", || gateway.metric("fdpush_webhook_failures_total") >= 1.0);
    hang_up(ann);
}

#[test]
fn failed_events_are_retried_and_arrive_once() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let backend = Backend::start(move |_| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Answer::Status(500, String::new()),
        1 => Answer::Status(429, String::new()),
        _ => Answer::Status(200, "anything".to_owned()),
    });
    let gateway = start_with_webhook(&backend, &[]);
    let (_ann, fd) = gateway.open("/?uid=ann", &[]);
    for _ in 0..3 {
        let body = backend.requests.next().json();
        assert_eq!((&body["events"][0]["seq"], &body["events"][0]["fd"]), (&json!(1), &json!(fd)));
    }
    until("the back end has accepted the event", || gateway.metric("fdpush_webhook_sent_total") == 1.0);
    assert_eq!(gateway.metric("fdpush_webhook_failures_total"), 2.0);
}
