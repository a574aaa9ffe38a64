//! Tests permessage-deflate in `fdpush serve`: flags, the option `compress` of a push, and metrics.

use crate::common::deflated::{DEFLATED_TEXT, connect, connect_offering, deflated_frame, message};
use crate::common::gateway::{Gateway, next_of};
use crate::common::raw::frame_with;
use crate::common::{Client, Raw};
use serde_json::{Value, json};

/// Returns the next frame of this type, and whether it was compressed.
fn read(raw: &mut Raw, kind: &str) -> (bool, Value) {
    loop {
        let (is_deflated, payload) = message(raw);
        let value: Value = serde_json::from_slice(&payload).expect("the text is JSON");
        if value["type"] == kind {
            return (is_deflated, value);
        }
    }
}

#[test]
fn a_push_is_compressed_unless_the_back_end_forbids_it() {
    let gateway = Gateway::start(&["--compression", "on"]);
    let mut ann = connect(gateway.address, "/?uid=ann");
    let mut bob: Client = gateway.connect("/?uid=bob");
    let long = "a message to both ".repeat(60);
    for (options, is_deflated) in [
        (json!({}), true),
        (json!({"compress": true}), true),
        (json!({"compress": false}), false),
        (json!({"compress": null}), true),
    ] {
        let mut command = json!({"uids": ["ann", "bob"], "data": long});
        command
            .as_object_mut()
            .expect("the value is an object")
            .extend(options.as_object().expect("the value is an object").clone());
        assert_eq!(gateway.done("/api/push", &command)["queued"], 2, "{command}");
        let expected = json!({"type": "message", "data": long});
        assert_eq!(read(&mut ann, "message"), (is_deflated, expected.clone()), "{command}");
        assert_eq!(next_of(&mut bob, "message"), expected);
    }
    let (status, answer) = gateway.post("/api/push", json!({"all": true, "data": 1, "compress": "no"}));
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("compress"), "{answer}");
    let (status, answer) = gateway.post("/api/join", json!({"uid": "ann", "group": "g", "compress": false}));
    assert_eq!(status, 400, "{answer}");
    // A line of a batch can also have the option `compress`.
    let line = json!({"uid": "ann", "data": long, "compress": false}).to_string();
    let reply = gateway.call("POST", "/api/batch", &[("Content-Type", "application/x-ndjson")], &line);
    assert_eq!(reply.status, 200);
    assert!(!read(&mut ann, "message").0);
}

#[test]
fn clients_send_compressed_frames_and_the_metrics_count_them() {
    let gateway = Gateway::start(&["--compression", "on", "--compress-bytes-min", "100"]);
    let mut ann = connect(gateway.address, "/?uid=ann");
    let text = "hello ".repeat(30);
    let push = json!({"type": "push", "to": "ann", "data": text}).to_string();
    ann.send(deflated_frame(DEFLATED_TEXT, push.as_bytes()));
    let (is_deflated, value) = read(&mut ann, "message");
    assert!(is_deflated);
    assert_eq!(value["data"], text);
    assert_eq!(gateway.metric("fdpush_deflate_opens_total"), 1.0);
    assert_eq!(gateway.metric("fdpush_deflate_messages_total{direction=\"in\"}"), 1.0);
    assert_eq!(gateway.metric("fdpush_inflate_bytes_total{stage=\"after\"}"), push.len() as f64);
    let metric = |name: &str, stage: &str| gateway.metric(&format!("fdpush_{name}_bytes_total{{stage=\"{stage}\"}}"));
    for name in ["deflate", "inflate"] {
        let (before, after) = (metric(name, "before"), metric(name, "after"));
        let is_smaller = if name == "deflate" { after < before / 2.0 } else { before < after / 2.0 };
        assert!(
            is_smaller && before > 0.0,
            "a compressed payload must have less than half the length ({name}: {before} bytes before, {after} after)"
        );
    }
    assert_eq!(gateway.metric("fdpush_inflate_failures_total"), 0.0);
    ann.send(frame_with(DEFLATED_TEXT, b"\x07"));
    assert_eq!(ann.close_frame().0, 1007);
    ann.end();
    assert_eq!(gateway.metric("fdpush_inflate_failures_total"), 1.0);
    assert_eq!(gateway.metric("fdpush_closes_total{cause=\"protocol_error\"}"), 1.0);
}

#[test]
fn compression_is_off_by_default() {
    let gateway = Gateway::start(&[]);
    let (mut ann, accepted) = connect_offering(gateway.address, "/?uid=ann", "permessage-deflate");
    assert_eq!(accepted, None);
    gateway.done("/api/push", json!({"uid": "ann", "data": "x".repeat(5000)}));
    assert!(!read(&mut ann, "message").0);
}

#[test]
fn the_message_rate_counts_compressed_messages() {
    let gateway = Gateway::start(&["--compression", "on", "--message-rate", "1", "--message-burst", "3"]);
    let mut ann = connect(gateway.address, "/?uid=ann");
    // The client sends far more messages than the rate allows, even if the machine is slow.
    ann.send(deflated_frame(DEFLATED_TEXT, br#"{"type":"heartbeat","id":1}"#).repeat(500));
    let (mut acks, mut errors) = (0, 0);
    let code = loop {
        let (first, payload) = ann.frame();
        if first == 0x88 {
            break u16::from_be_bytes([payload[0], payload[1]]);
        }
        let frame: Value = serde_json::from_slice(&payload).expect("the text is JSON");
        acks += u32::from(frame["type"] == "ack");
        errors += u32::from(frame["code"] == "rate_limited");
    };
    assert_eq!((code, errors), (1008, 1));
    assert!((3..100).contains(&acks), "{acks}");
    assert!(gateway.metric("fdpush_deflate_messages_total{direction=\"in\"}") < 100.0);
}
