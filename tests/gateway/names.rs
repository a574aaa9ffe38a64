//! Tests names from clients and back ends. Two names with different bytes are never the same uid, group or parameter.
//! In dynamic languages, a program can write an integer for a name, an empty array for an empty object, or a byte order
//! mark before the JSON. The server reads each of these in the same way in tokens, in answers of back ends, in API
//! requests and in client frames.

use std::net::UdpSocket;

use crate::common::backend::{Answer, Backend};
use crate::common::gateway::{Gateway, JSON, SECRET, json_of, next, next_of, request, until};
use crate::common::raw::{HttpResponse, UPGRADE};
use crate::common::{Client, Raw, refusal};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// 张三 and 李四 in GBK, percent-encoded.
const GBK: [&str; 2] = ["%D5%C5%C8%FD", "%C0%EE%CB%C4"];

/// Sends an upgrade with a target of arbitrary bytes. Returns the response.
fn upgrade(gateway: &Gateway, target: &[u8]) -> (Raw, HttpResponse) {
    let mut raw = Raw::connect(gateway.address);
    raw.send([b"GET ", target, UPGRADE.strip_prefix("GET /").expect("the request is an upgrade").as_bytes()].concat());
    let reply = raw.reply();
    (raw, reply)
}

/// Connects a client with this target. Returns the uid of the client.
fn uid_at(gateway: &Gateway, target: &[u8]) -> Value {
    let (mut raw, reply) = upgrade(gateway, target);
    assert_eq!(reply.status, 101, "{target:?}: {reply:?}");
    let (_, welcome) = raw.frame();
    let welcome: Value = serde_json::from_slice(&welcome).expect("the text is JSON");
    welcome["uid"].clone()
}

/// Returns a token with these claims.
fn token(claims: &str) -> String {
    let parts = [r#"{"alg":"HS256"}"#, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let signed = parts.join(".");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("the key is valid");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[test]
fn a_uid_that_is_not_utf8_is_refused() {
    let gateway = Gateway::start(&["--on-second-login", "kick_old"]);
    let mut ann = gateway.connect("/?uid=%EF%BF%BD%EF%BF%BD%EF%BF%BD%EF%BF%BD");
    for uid in GBK.iter().chain(&["caf%E9", "%C0%80", "%ED%A0%80", "%ff", "a+%E5%BC"]) {
        let refused = refusal(Client::connect(gateway.address, &format!("/?x=1&uid={uid}"), &[]));
        assert_eq!(refused, (400, "query parameter uid is not percent-encoded UTF-8\n".to_owned()), "{uid}");
    }
    for uid in ["%", "100%", "%4", "%zz"] {
        let refused = refusal(Client::connect(gateway.address, &format!("/?uid={uid}"), &[]));
        let expected = "query parameter uid has a % without two hexadecimal digits\n";
        assert_eq!(refused, (400, expected.to_owned()), "{uid}");
    }
    for query in ["uid=a&uid=b", "uid=a&uid=a", "uid=a&u%69d=b", "uid&uid=a", "uid=a&uid=%ff"] {
        let refused = refusal(Client::connect(gateway.address, &format!("/?{query}"), &[]));
        assert_eq!(refused, (400, "query parameter uid is given more than once\n".to_owned()), "{query}");
    }
    // Four U+FFFD are a valid uid. The client with this uid was not kicked, and no other client got this uid.
    assert_eq!(gateway.get("/api/stats")["open"], 1);
    gateway.done("/api/push", json!({"uid": "\u{fffd}".repeat(4), "data": "still here"}));
    assert_eq!(next_of(&mut ann, "message")["data"], "still here");
}

#[test]
fn uids_are_compared_by_their_bytes() {
    let gateway = Gateway::start(&[]);
    for (target, uid) in [
        ("/?uid=10010", json!("10010")),
        ("/?uid=%E5%BC%A0%E4%B8%89", json!("张三")),
        ("/?other=%D5&b=%zz&b=1&uid=a", json!("a")),
        ("/?uids=a", json!(null)),
        ("/?u%69d=a%2Bb+c", json!("a+b c")),
        // The server does not trim names, change their case or normalise them. Names can contain control characters.
        ("/?uid=+A+", json!(" A ")),
        ("/?uid=caf%C3%A9", json!("café")),
        ("/?uid=cafe%CC%81", json!("cafe\u{301}")),
        ("/?uid=a%00", json!("a\0")),
        ("/?uid=%EF%BB%BFa", json!("\u{feff}a")),
        // Raw UTF-8 means the same as its percent-encoded form, in the path too.
        ("/房?uid=张三", json!("张三")),
        ("/?uid=张%E4%B8%89", json!("张三")),
        ("http://localhost/房?uid=张三", json!("张三")),
    ] {
        assert_eq!(uid_at(&gateway, target.as_bytes()), uid, "{target}");
    }
    // Raw bytes that are not UTF-8 also mean the same as their percent-encoded form.
    for (target, expected) in [
        (&b"/?uid=\xd5\xc5\xc8\xfd"[..], "query parameter uid is not percent-encoded UTF-8\n"),
        (b"/?a=1&uid=\xe5\xbc", "query parameter uid is not percent-encoded UTF-8\n"),
        (b"/?\xff&uid=a&uid=b", "query parameter uid is given more than once\n"),
        (b"http://localhost/?uid=caf\xe9", "query parameter uid is not percent-encoded UTF-8\n"),
        (b"/\xff?uid=a", "path must be percent-encoded UTF-8\n"),
    ] {
        let (_, reply) = upgrade(&gateway, target);
        assert_eq!((reply.status, reply.body.as_str()), (400, expected), "{target:?}");
    }
    assert_eq!(uid_at(&gateway, b"/?a=\xc0\x80&uid=\xe5\xbc\xa0"), "张");
    for target in ["/%D5%C5?uid=a", "/%zz", "/%"] {
        let (_, reply) = upgrade(&gateway, target.as_bytes());
        assert_eq!((reply.status, reply.body.as_str()), (400, "path must be percent-encoded UTF-8\n"), "{target}");
    }
}

#[test]
fn a_request_with_two_tokens_is_refused() {
    let gateway = Gateway::start(&["--auth", "jwt", "--jwt-secret", SECRET]);
    let ann = token(r#"{"sub":"ann","exp":4102444800}"#);
    let bearer = format!("Bearer {ann}");
    let refused = |target: &str, headers: &[(&str, &str)]| refusal(Client::connect(gateway.address, target, headers));
    let twice = format!("/?token={ann}&token={ann}");
    assert_eq!(refused(&twice, &[]), (400, "query parameter token is given more than once\n".to_owned()));
    assert_eq!(
        refused("/?token=%D5%C5", &[]),
        (400, "query parameter token is not percent-encoded UTF-8\n".to_owned())
    );
    for second in [bearer.as_bytes(), b"\xff"] {
        let mut raw = Raw::connect(gateway.address);
        let lines = format!("Authorization: {bearer}\r\nAuthorization: ");
        raw.send([UPGRADE.trim_end().as_bytes(), b"\r\n", lines.as_bytes(), second, b"\r\n\r\n"].concat());
        let reply = raw.reply();
        assert_eq!((reply.status, reply.body.as_str()), (400, "duplicate header: Authorization\n"));
    }
    // With `--auth jwt`, the server does not use the parameter `uid`, so it does not check this parameter.
    gateway.open("/?uid=a&uid=%ff", &[("Authorization", &bearer)]);
}

#[test]
fn a_token_can_have_integer_names() {
    let gateway = Gateway::start(&["--auth", "jwt", "--jwt-secret", SECRET]);
    for (claims, uid, groups) in [
        (r#"{"sub":10010,"exp":4102444800.5}"#, "10010", json!([])),
        ("\u{feff}{\"sub\":-3,\"exp\":4.1024448e9,\"groups\":[7]}", "-3", json!(["7"])),
        (r#"{"sub":"10010","exp":4102444800,"groups":{}}"#, "10010", json!([])),
    ] {
        let (_client, fd) = gateway.open(&format!("/?token={}", token(claims)), &[]);
        let info = gateway.get(&format!("/api/connections/{fd}"));
        assert_eq!((&info["uid"], &info["groups"]), (&json!(uid), &groups), "{claims}");
    }
    for claims in [r#"{"sub":10010.0,"exp":4102444800}"#, r#"{"sub":18446744073709551616,"exp":4102444800}"#] {
        let refused = refusal(Client::connect(gateway.address, &format!("/?token={}", token(claims)), &[]));
        let expected = "the token's \"sub\" must be a string or an integer of 64 bits\n";
        assert_eq!(refused, (401, expected.to_owned()), "{claims}");
    }
}

#[test]
fn the_connect_hook_accepts_php_json() {
    let backend = Backend::start(|request| {
        let question = request.json();
        let answer = match question["target"].as_str().expect("the request has a target") {
            "/php" => "\u{feff}{\"uid\":10010,\"groups\":[7,\"a\"],\"attributes\":[],\"exp\":4102444800.5}\n",
            "/lua" => r#"{"uid":"10010","groups":{},"exp":4.1024448e9}"#,
            "/empty" => "[]",
            "/holes" => r#"{"uid":"a","groups":{"0":"a","2":"b"}}"#,
            "/float" => r#"{"uid":10010.0}"#,
            "/twice" => r#"{"uid":"a","uid":"b"}"#,
            "/list" => r#"{"uid":"a","attributes":["x"]}"#,
            "/over" => r#"{"uid":"a","exp":-1.5}"#,
            _ => "{}",
        };
        Answer::Status(200, answer.to_owned())
    });
    let gateway = Gateway::start(&["--auth", "webhook", "--auth-url", &backend.url()]);
    for (target, uid, groups) in [
        ("/php", json!("10010"), json!(["7", "a"])),
        ("/lua", json!("10010"), json!([])),
        ("/empty", json!(null), json!([])),
    ] {
        let (_client, fd) = gateway.open(target, &[]);
        let info = gateway.get(&format!("/api/connections/{fd}"));
        let mut joined = info["groups"].as_array().expect("the value is an array").clone();
        joined.sort_by_key(Value::to_string);
        assert_eq!((&info["uid"], &json!(joined)), (&uid, &groups), "{target}");
        assert_eq!(gateway.get(&format!("/api/connections/{fd}/attributes")), json!({}), "{target}");
    }
    for (target, status) in [("/holes", 503), ("/float", 503), ("/twice", 503), ("/list", 503), ("/over", 401)] {
        assert_eq!(refusal(Client::connect(gateway.address, target, &[])).0, status, "{target}");
    }

    // The back end gets the query unchanged, so different values stay different.
    backend.requests.so_far();
    let mut cookies = Vec::new();
    for name in [&b"\xd5\xc5\xc8\xfd"[..], b"\xc0\xee\xcb\xc4"] {
        let mut raw = Raw::connect(gateway.address);
        let head = UPGRADE
            .strip_prefix("GET /")
            .and_then(|head| head.strip_suffix("\r\n"))
            .expect("the request is an upgrade");
        raw.send([b"GET /?uid=%D5%C5&uid=b", head.as_bytes(), b"Cookie: name=", name, b"\r\n\r\n"].concat());
        assert_eq!(raw.reply().status, 101);
        let question = backend.requests.next().json();
        assert_eq!(question["target"], "/?uid=%D5%C5&uid=b");
        assert_eq!(question["headers"]["cookie"], json!(null));
        cookies.push(question["headers_base64"]["cookie"].clone());
    }
    assert_eq!(cookies, [json!(["bmFtZT3Vxcj9"]), json!(["bmFtZT3A7svE"])]);
}

#[test]
fn the_api_accepts_php_json() {
    let gateway = Gateway::start(&["--api", "udp:127.0.0.1:0"]);
    let (mut ann, fd) = gateway.open("/?uid=10010", &[]);
    // In PHP, array keys that look like integers are integers, and an empty array becomes `[]` in JSON.
    for (path, body, answer) in [
        ("join", r#"{"uid":10010,"groups":[7,"hall"]}"#, json!({"matched": 1, "changed": 1})),
        ("join", r#"{"uids":["10010"],"group":"7"}"#, json!({"matched": 1, "changed": 0})),
        ("online", r#"{"uids":[10010,"10010",-1]}"#, json!({"online": {"10010": [fd]}, "offline": ["-1"]})),
        ("unbind", r#"{"uids":[10010]}"#, json!({"matched": 1, "changed": 1})),
        ("bind", &format!(r#"{{"fd":{fd},"uid":10010}}"#), json!({"matched": 1, "changed": 1})),
        ("leave", r#"{"uid":10010,"group":"hall"}"#, json!({"matched": 1, "changed": 1})),
    ] {
        assert_eq!(gateway.done(&format!("/api/{path}"), format!("\u{feff}{body}")), answer, "{path} {body}");
    }
    let mut pushed = 0;
    let mut hears = |text: String| {
        pushed += 1;
        assert_eq!(next_of(&mut ann, "message")["data"], pushed, "{text}");
    };
    for (number, body) in [
        r#"{"uid":10010,"data":1}"#,
        r#"{"uids":[10010,3],"data":2,"except":[]}"#,
        r#"{"group":7,"data":3,"except":{"uids":[3,"4"],"groups":[5],"fds":[]},"key":9}"#,
        "\u{feff}{\"groups\":[7,8],\"data\":4}",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(gateway.done("/api/push", body)["queued"], 1, "{number}");
        hears(body.to_owned());
    }
    let lines = "\u{feff}{\"id\":1,\"uid\":10010,\"data\":5}\n{\"id\":2,\"uid\":1e3,\"data\":0}\n\u{feff}{\"uid\":10010,\"data\":6}";
    let mut raw = Raw::connect(gateway.api);
    raw.send(request("POST", "/api/batch", &[("Content-Type", "application/x-ndjson")], lines));
    let reply = raw.reply_in_chunks();
    let answers: Vec<Value> =
        reply.body.lines().map(|line| serde_json::from_str(line).expect("the text is JSON")).collect();
    assert_eq!((&answers[0]["queued"], &answers[2]["queued"]), (&json!(1), &json!(1)), "{answers:?}");
    let message = answers[1]["error"]["message"].as_str().expect("the error has a message");
    assert!(message.starts_with("uid: expected a string or an integer of 64 bits, found floating point"), "{message}");
    hears("a batch".to_owned());
    hears("a batch".to_owned());
    let sender = UdpSocket::bind("127.0.0.1:0").expect("the port can be bound");
    let place = gateway.datagrams[0].strip_prefix("udp:").expect("the line has an address");
    sender
        .send_to("\u{feff}{\"uid\":10010,\"data\":7,\"except\":[]}".as_bytes(), place)
        .expect("the bytes can be sent");
    hears("a datagram".to_owned());
    sender.send_to(b"{\"uid\":10010.0,\"data\":8}", place).expect("the bytes can be sent");
    until("the datagram with the float is counted as malformed", || {
        gateway.metric(r#"fdpush_datagrams_total{outcome="malformed"}"#) == 1.0
    });

    let attributes = format!("/api/connections/{fd}/attributes");
    let put = |method: &str, body: &str| {
        let reply = gateway.call(method, &attributes, &[("Content-Type", "application/json")], body);
        (reply.status, json_of(&reply))
    };
    assert_eq!(put("PUT", "\u{feff}{\"cart\":[],\"n\":1}"), (200, json!({"cart": [], "n": 1})));
    assert_eq!(put("PATCH", "[]"), (200, json!({"cart": [], "n": 1})));
    assert_eq!(put("PUT", "[]"), (200, json!({})));
    for body in ["[1]", r#"{"a":1,"a":2}"#, r#"{"cart":[{"id":1,"id":2}]}"#] {
        assert_eq!(put("PUT", body).0, 400, "{body}");
    }
}

#[test]
fn a_value_that_is_not_a_name_is_refused_everywhere() {
    let gateway = Gateway::start(&[]);
    let (mut ann, fd) = gateway.open("/?uid=ann", &[]);
    for uid in ["1.5", "1.0", "1e3", "-0", "18446744073709551616", "true", "{}", r#""\ud800""#, r#""a","uid":"b""#] {
        for (path, body) in [
            ("push", format!(r#"{{"data":1,"uid":{uid}}}"#)),
            ("push", format!(r#"{{"data":1,"all":true,"except":{{"uid":{uid}}}}}"#)),
            ("bind", format!(r#"{{"fd":{fd},"uid":{uid}}}"#)),
            ("close", format!(r#"{{"uid":{uid}}}"#)),
        ] {
            let (status, answer) = gateway.post(&format!("/api/{path}"), &body);
            let message = answer["error"]["message"].as_str().expect("the error has a message");
            assert!(status == 400 && message.contains("uid"), "{path} must refuse {body} and name uid: {answer}");
        }
        if !uid.contains("uid") {
            ann.send(&format!(r#"{{"type":"push","data":1,"id":1,"to":{uid}}}"#));
            let refused = next(&mut ann);
            assert!(refused["message"].as_str().is_some_and(|message| message.starts_with("to must be")), "{refused}");
        }
    }
    for (path, expected) in [
        ("/api/users/%D5%C5", "path must be percent-encoded UTF-8"),
        ("/api/groups/%zz", "path must be percent-encoded UTF-8"),
        ("/api/users?after=%D5%C5", "query parameter after is not percent-encoded UTF-8"),
        ("/api/users?after=a&after=b", "query parameter after is given more than once"),
        ("/api/users?limit=1&limit=2", "query parameter limit is given more than once"),
        ("/api/users?limit=%", "query parameter limit has a % without two hexadecimal digits"),
    ] {
        let reply = gateway.call("GET", path, &[], "");
        assert_eq!((reply.status, &json_of(&reply)["error"]["message"]), (400, &json!(expected)), "{path}");
    }
    // `/api/bind` can set a uid with any characters. `/api/users/` then finds this uid if the path percent-encodes the
    // characters or if it contains them raw.
    gateway.done("/api/bind", json!({"fd": fd, "uid": "张\0/?"}));
    for path in ["/api/users/%E5%BC%A0%00%2F%3F", "/api/users/张%00%2f%3f"] {
        assert_eq!(gateway.get(path)["uid"], "张\0/?", "{path}");
    }
}

#[test]
fn clients_can_use_integer_names() {
    let gateway = Gateway::start(&[]);
    let (mut ann, fd) = gateway.open("/?uid=10010", &[]);
    ann.send(r#"{"type":"push","to":10010,"data":1,"id":1}"#);
    assert_eq!(next(&mut ann), json!({"type": "message", "from": "10010", "fd": fd, "data": 1}));
    assert_eq!(next(&mut ann)["queued"], 1);
    ann.send("\u{feff}{\"type\":\"join\",\"group\":7,\"id\":2}");
    let answers = [next(&mut ann), next(&mut ann)];
    assert!(answers.contains(&json!({"type": "joined", "group": "7", "uid": "10010", "count": 1})), "{answers:?}");
    ann.send(r#"{"type":"online","uids":[10010,-1],"id":3}"#);
    assert_eq!(next(&mut ann)["online"], json!(["10010"]));
    ann.send(r#"{"type":"join","gruop":"x","id":4}"#);
    assert_eq!(next(&mut ann)["message"], r#"join has no member "gruop"; did you mean "group"? members: group, id"#);
}

#[test]
fn a_second_api_key_or_origin_header_is_refused() {
    let gateway = Gateway::start(&["--api-key", "k"]);
    for second in [&b"Bearer other"[..], b"\xff"] {
        let mut raw = Raw::connect(gateway.api);
        let lines: &[u8] = b"GET /api/stats HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\nAuthorization: ";
        raw.send([lines, second, b"\r\n\r\n"].concat());
        let reply = raw.reply();
        assert!(reply.status == 400 && reply.body.contains("duplicate header: Authorization"), "{reply:?}");
    }
    let gateway = Gateway::start(&[]);
    for origins in [&b"Origin: http://evil.example\r\nOrigin: http://localhost\r\n"[..], b"Origin: http://evil\xff\r\n"]
    {
        let mut raw = Raw::connect(gateway.api);
        raw.send([b"GET /api/stats HTTP/1.1\r\nHost: localhost\r\n", origins, b"\r\n"].concat());
        assert_eq!(raw.reply().status, 403, "{origins:?}");
    }
}

#[test]
fn escapes_in_api_paths_are_equivalent_to_their_characters() {
    let gateway = Gateway::start(&[]);
    let mut ann = Client::connect(gateway.address, "/?uid=ann", &[]).expect("the client can connect");
    let fd = next(&mut ann)["fd"].as_u64().expect("the frame has an fd");
    let escaped: String = fd.to_string().bytes().map(|digit| format!("%{digit:02x}")).collect();
    let path = format!("/api/connections/{escaped}");
    assert_eq!(gateway.get(&path)["uid"], "ann");
    let attributes = format!("{path}/%61ttributes");
    assert_eq!(gateway.call("PUT", &attributes, &[JSON], r#"{"plan":"pro"}"#).status, 200);
    assert_eq!(gateway.get(&format!("/api/connections/{fd}/attributes")), json!({"plan": "pro"}));
    let after = format!("/api/connections?after={fd}");
    assert_eq!(gateway.get(&after.replace("after=", "after=%30")), gateway.get(&after));
    assert_eq!(gateway.get("/%61pi/users/%61nn")["count"], 1);
    let push = gateway.call("POST", "/api/p%75sh", &[JSON], r#"{"uid":"ann","data":1}"#);
    assert_eq!((push.status, next(&mut ann)["data"].clone()), (200, json!(1)));
    for (target, status) in [
        ("/api%2Fusers", 404),
        ("/api/connections/+1", 400),
        ("/api/connections/%2B1", 400),
        ("/api/connections/1%20", 400),
        ("/api/connections/1%2Fattributes", 400),
        ("/api/users?limit=%2B5", 400),
        ("/api/connections?after=%2B1", 400),
    ] {
        assert_eq!(gateway.call("GET", target, &[], "").status, status, "{target}");
    }
}
