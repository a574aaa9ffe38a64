//! Tests of client frames: valid frames, invalid frames and their errors, and the documented frames to clients.

use std::time::Duration;

use super::*;

fn push<'a>(to: Target<'a>, data: &'a str) -> ClientFrame<'a> {
    ClientFrame::Push { to, key: None, data }
}

#[test]
fn valid_frames_are_parsed() {
    let fd3 = || Target::Fds(vec![Fd::from_u64(3).expect("the fd is valid")]);
    let uids = |uids: &[&'static str]| uids.iter().map(|uid| Cow::Borrowed(*uid)).collect::<Vec<_>>();
    let table = [
        (r#"{"type":"push","to":"10010","data":1}"#, push(Target::Uids(uids(&["10010"])), "1")),
        (r#"{"data":[ 1 ],"to":["a","b"],"type":"push"}"#, push(Target::Uids(uids(&["a", "b"])), "[ 1 ]")),
        (r#"{"type":"push","fd":3,"data":null}"#, push(fd3(), "null")),
        (r#"{"type":"push","group":"r","data":"x"}"#, push(Target::Groups(uids(&["r"])), "\"x\"")),
        (r#"{"type":"push","all":true,"to":null,"data":{}}"#, push(Target::All, "{}")),
        (
            r#"{"type":"push","fd":3,"key":"k","data":1}"#,
            ClientFrame::Push { to: fd3(), key: Some("k".into()), data: "1" },
        ),
        (r#"{"type":"push","to":10010,"key":5,"data":1}"#, {
            ClientFrame::Push { to: Target::Uids(uids(&["10010"])), key: Some("5".into()), data: "1" }
        }),
        (r#"{"type":"push","to":[7,"a","7","a"],"data":1}"#, push(Target::Uids(uids(&["7", "a"])), "1")),
        (r#"{"type":"push","to":["a",-5],"data":1}"#, push(Target::Uids(uids(&["a", "-5"])), "1")),
        ("\u{feff}{\"type\":\"join\",\"group\":7}", ClientFrame::Join { group: "7".into() }),
        (r#"{"type":"online","uids":[1,"1"]}"#, ClientFrame::Online { uids: uids(&["1", "1"]) }),
        (r#"{"type":"join","group":"r\u00f6m"}"#, ClientFrame::Join { group: "röm".into() }),
        (r#"{"type":"leave","group":"r"}"#, ClientFrame::Leave { group: "r".into() }),
        (r#"{"type":"heartbeat"}"#, ClientFrame::Heartbeat),
        (r#"{"type":"send","data":null}"#, ClientFrame::Send { data: "null" }),
        (r#"{"type":"online","uids":[]}"#, ClientFrame::Online { uids: vec![] }),
    ];
    for (text, request) in table {
        assert_eq!(parse(text), (None, Ok(request)), "{text}");
    }
}

#[test]
fn data_is_borrowed_unchanged() {
    let text = r#"{"type":"push","all":true,"data": {"b" : 1.0e5, "a":"\u0041"} }"#;
    let (_, request) = parse(text);
    let Ok(ClientFrame::Push { data, .. }) = request else { panic!("{request:?}") };
    assert_eq!(data, r#"{"b" : 1.0e5, "a":"\u0041"}"#);
    assert!(
        text.as_bytes().as_ptr_range().contains(&data.as_ptr()),
        "the data must be a part of the input, not a copy"
    );
}

#[test]
fn ids_are_returned_unchanged() {
    for id in ["7", "-1.50", "\"a\\u0041\"", "\"\""] {
        let text = format!(r#"{{"type":"heartbeat","id":{id}}}"#);
        assert_eq!(parse(&text), (Some(id), Ok(ClientFrame::Heartbeat)));
    }
    for id in ["{}", "[1]", "true", &format!("\"{}\"", "x".repeat(200))] {
        let text = format!(r#"{{"type":"heartbeat","id":{id}}}"#);
        let (id, refused) = parse(&text);
        assert_eq!((id, refused.map_err(|error| error.code)), (None, Err("bad_frame")));
    }
}

#[test]
fn the_error_of_an_invalid_frame_has_a_code_and_names_the_fault() {
    let long = format!(r#"{{"type":"online","uids":["{}"]}}"#, "x".repeat(129));
    let many = format!(r#"{{"type":"online","uids":[{}"x"]}}"#, "\"x\",".repeat(1000));
    let table = [
        (r#"{"type":"send"}"#, "bad_request", "missing member: data"),
        (r#"{"type":"send","to":"a","data":1}"#, "bad_request", "send has no member \"to\""),
        ("hello", "bad_frame", "frame must be a JSON object"),
        ("[]", "bad_frame", "object"),
        ("{}", "bad_frame", "missing member: type"),
        (r#"{"type":7}"#, "bad_request", "type must be a string"),
        (r#"{"type":"shout"}"#, "bad_frame", "shout"),
        (r#"{"type":"push","type":"push"}"#, "bad_frame", "duplicate member: type"),
        (r#"{"type":"push","to":"a"}"#, "bad_request", "missing member: data"),
        (r#"{"type":"push","data":1}"#, "bad_request", "one of to, fd, group, all"),
        (r#"{"type":"push","to":"a","all":true,"data":1}"#, "bad_request", "either to or all"),
        (r#"{"type":"push","to":7.0,"data":1}"#, "bad_request", "to must be a string or an integer of 64 bits"),
        (r#"{"type":"push","to":true,"data":1}"#, "bad_request", "to must be"),
        (r#"{"type":"push","to":{"0":"a"},"data":1}"#, "bad_request", "to must be"),
        (r#"{"type":"push","to":["a",1e3],"data":1}"#, "bad_request", "to must be"),
        (r#"{"type":"push","to":"\ud800","data":1}"#, "bad_request", "to must be"),
        (r#"{"type":"push","to":null,"to":"a","data":1}"#, "bad_frame", "duplicate member: to"),
        (r#"{"type":"push","too":"a","data":1}"#, "bad_request", "push has no member \"too\"; did you mean \"to\"?"),
        (r#"{"type":"push","fd":-1,"data":1}"#, "bad_request", "fd must be"),
        (r#"{"type":"push","all":false,"data":1}"#, "bad_request", "member all must be true"),
        (r#"{"type":"join"}"#, "bad_request", "missing member: group"),
        (r#"{"type":"join","group":[]}"#, "bad_request", "group must be"),
        (r#"{"type":"join","group":"r","uids":[]}"#, "bad_request", "uids"),
        (r#"{"type":"join","group":"r","grupo":"r"}"#, "bad_request", "grupo"),
        (r#"{"type":"online","uids":"a"}"#, "bad_request", "uids must be"),
        (r#"{"type":"push","to":"","data":1}"#, "bad_request", "to: a name must have 1 to 128 bytes, not 0"),
        (r#"{"type":"push","to":["a",""],"data":1}"#, "bad_request", "to: a name must have 1 to 128 bytes, not 0"),
        (r#"{"type":"push","group":"","data":1}"#, "bad_request", "group: a name must have"),
        (r#"{"type":"push","all":true,"key":"","data":1}"#, "bad_request", "key: a name must have"),
        (r#"{"type":"push","all":true,"key":[7],"data":1}"#, "bad_request", "key must be a string"),
        (r#"{"type":"join","group":"r","key":"k"}"#, "bad_request", "join has no member \"key\""),
        (r#"{"type":"leave","group":""}"#, "bad_request", "1 to 128"),
        (&long, "bad_request", "uids: a name must have 1 to 128 bytes, not 129"),
        (&many, "too_large", "1001"),
    ];
    for (text, code, hint) in table {
        let Err(error) = parse(text).1 else { panic!("{text} must be refused") };
        assert_eq!(error.code, code, "{text}");
        assert!(error.message.contains(hint), "{text}: {}", error.message);
    }
}

#[test]
fn the_id_of_an_invalid_frame_is_returned_unless_the_id_is_duplicate() {
    for text in [r#"{"id":9,"type":"push"}"#, r#"{"type":"a","id":9,"type":"b"}"#] {
        let (id, refused) = parse(text);
        assert_eq!(id, Some("9"), "{text}");
        assert!(refused.is_err());
    }
    for duplicate_id in [
        r#"{"id":9,"type":"heartbeat","id":8}"#,
        r#"{"id":9,"id":8,"type":"heartbeat","type":"heartbeat"}"#,
        r#"{"type":"heartbeat","type":"heartbeat","id":9,"id":8}"#,
    ] {
        let (id, frame) = parse(duplicate_id);
        assert_eq!(id, None, "a duplicate id must not be returned: {duplicate_id}");
        assert_eq!(frame.expect_err("the frame is invalid").message, "duplicate member: id");
    }
    let (id, frame) = parse(r#"{"id":9,"type":"send","first":1,"second":2,"data":3}"#);
    let error = frame.expect_err("the frame is invalid").message;
    assert!(id == Some("9") && error.starts_with("send has no member \"first\""), "{error}");
}

#[test]
fn an_error_repeats_a_bounded_part_of_a_frame() {
    let long = "x".repeat(900_000);
    for text in [format!(r#"{{"type":"{long}"}}"#), format!(r#"{{"type":"heartbeat","{long}":1}}"#)] {
        let error = parse(&text).1.expect_err("the frame is invalid");
        assert!(error.message.contains(&format!("\"{}…\"", "x".repeat(64))), "{}", error.message);
        assert!(error.message.len() < 200, "{} bytes", error.message.len());
    }
}

#[test]
fn frames_to_clients_are_as_documented() {
    let fd = Fd::from_u64(1).expect("the fd is valid");
    let ping = Heartbeat::Ping { every: Duration::from_secs(25), missed_max: 2 };
    let not_allowed = FrameError { code: "not_allowed", message: "say \"please\"".to_owned() };
    let text_of = |kind, uids: &[&str]| {
        let uids = uids.iter().map(|uid| (*uid).into()).collect();
        notice("r", &PresenceNotice { kind, uids, count: 2 }, 1 << 20)
    };
    let table = [
        (
            welcome(fd, Some("10086"), &ping),
            r#"{"type":"welcome","fd":1,"uid":"10086","heartbeat":{"mode":"ping","every_ms":25000}}"#,
        ),
        (
            welcome(fd, None, &Heartbeat::Client { idle_max: Duration::from_secs(60) }),
            r#"{"type":"welcome","fd":1,"uid":null,"heartbeat":{"mode":"client","every_ms":30000}}"#,
        ),
        (push_ack("7", Delivery::new(1, 1)), r#"{"type":"ack","id":7,"matched":2,"queued":1,"dropped":1}"#),
        (ack("\"x\""), r#"{"type":"ack","id":"x"}"#),
        (error(Some("7"), &not_allowed), r#"{"type":"error","id":7,"code":"not_allowed","message":"say \"please\""}"#),
        (error(None, &not_allowed), r#"{"type":"error","code":"not_allowed","message":"say \"please\""}"#),
        (online(Some("8"), ["a", "b"].into_iter()), r#"{"type":"online","id":8,"online":["a","b"]}"#),
        (online(None, [].into_iter()), r#"{"type":"online","online":[]}"#),
        (text_of(NoticeKind::Joined, &["a"]), r#"{"type":"joined","group":"r","uid":"a","count":2}"#),
        (text_of(NoticeKind::Left, &["a", "b"]), r#"{"type":"left","group":"r","uids":["a","b"],"count":2}"#),
        (text_of(NoticeKind::Left, &["a"; NOTICE_UIDS_MAX + 1]), r#"{"type":"left","group":"r","count":2}"#),
    ];
    for (ours, documented) in table {
        assert_eq!(ours, documented);
        assert!(serde_json::from_str::<serde_json::Value>(&ours).is_ok());
    }
}

#[test]
fn a_notice_leaves_out_uids_that_do_not_fit_into_the_queue() {
    let uids = vec!["\u{1}".repeat(128).into(); 3];
    let notice = |queue_bytes_max| {
        super::notice("r", &PresenceNotice { kind: NoticeKind::Left, uids: uids.clone(), count: 7 }, queue_bytes_max)
    };
    assert_eq!(notice(2000), r#"{"type":"left","group":"r","count":7}"#);
    assert!(notice(4000).contains(r#""uids":["\u0001"#));
}
