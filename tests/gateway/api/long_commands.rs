//! Tests commands that change tens of thousands of memberships, and the notices about the changes. The server executes
//! a command, and sends its notices, in portions: one portion in each turn of the event loop. The server answers other
//! requests between the portions.

use serde_json::{Value, json};

use crate::common::Raw;
use crate::common::gateway::{Gateway, JSON, json_of, request, until};

const MEMBERS: usize = 150;
const GROUPS: usize = 400;

/// The number of requests that are sent together. The server reads about ten of them in a turn.
const PROBES: usize = 120;

/// A server with clients that are members of all groups. No client reads its notices.
struct Crowd {
    gateway: Gateway,
    groups: Vec<String>,
    _members: Vec<Raw>,
}

impl Crowd {
    fn start() -> Crowd {
        // With several loops, each loop has a part of the memberships, which may be one portion.
        let gateway = Gateway::start(&["--loops", "1", "--read-budget-bytes", "1KiB", "--ping-every", "1h"]);
        let members = (0..MEMBERS).map(|number| Raw::upgraded_at(gateway.address, &format!("/?uid=u{number}")));
        let members = members.collect();
        let groups: Vec<String> = (0..GROUPS).map(|number| format!("g{number}")).collect();
        let uids: Vec<String> = (0..MEMBERS).map(|number| format!("u{number}")).collect();
        for some in groups.chunks(50) {
            gateway.done("/api/join", json!({"uids": uids, "groups": some}));
        }
        Crowd { gateway, groups, _members: members }
    }

    /// Sends a command and, on another connection, many requests for `/api/stats`. The server starts to read both in
    /// the same turn. Returns the answer to the command, and the value of `member` in each answer to the requests.
    fn probe(&self, path: &str, command: &Value, member: &str) -> (Value, Vec<usize>) {
        let (mut api, mut other) = (Raw::connect(self.gateway.api), Raw::connect(self.gateway.api));
        // After the answers to these two requests for `/healthz`, the server has accepted both connections. Then
        // SIGSTOP stops the server until the command and the requests for `/api/stats` have arrived.
        for raw in [&mut api, &mut other] {
            raw.send(request("GET", "/healthz", &[], ""));
            assert_eq!(raw.reply().status, 200);
        }
        self.gateway.while_stopped(|| {
            api.send(request("POST", path, &[JSON], &command.to_string()));
            other.send(request("GET", "/api/stats", &[], "").repeat(PROBES));
        });
        let value = |_| json_of(&other.reply())[member].as_u64().expect("the value is a number");
        let values =
            (0..PROBES).map(value).map(|value| usize::try_from(value).expect("the number fits into usize")).collect();
        (json_of(&api.reply()), values)
    }
}

/// Checks that the values are in order and between `first` and `last`. Also checks that a value is neither `first` nor
/// `last`, which shows that the server answered a request between two portions.
fn expect_portions(values: &[usize], first: usize, last: usize) {
    let range = first.min(last)..=first.max(last);
    assert!(values.is_sorted_by(|one, next| if first < last { one <= next } else { one >= next }), "{values:?}");
    assert!(values.iter().all(|value| range.contains(value)), "{values:?}");
    assert!(
        values.iter().any(|value| *value != first && *value != last),
        "a request must be answered between two portions: {values:?}"
    );
}

#[test]
fn other_requests_are_answered_between_the_portions_of_a_command() {
    let crowd = Crowd::start();
    let (answer, users) = crowd.probe(
        "/api/unbind",
        &json!({"uids": (0..MEMBERS).map(|n| format!("u{n}")).collect::<Vec<_>>()}),
        "users",
    );
    assert_eq!(answer, json!({"matched": MEMBERS, "changed": MEMBERS}));
    expect_portions(&users, MEMBERS, 0);

    let (answer, groups) = crowd.probe("/api/ungroup", &json!({"groups": crowd.groups}), "groups");
    assert_eq!(answer, json!({"matched": MEMBERS * GROUPS, "changed": MEMBERS * GROUPS}));
    expect_portions(&groups, GROUPS, 0);
    assert_eq!(crowd.gateway.get("/api/stats")["groups"], 0);

    let crowd = Crowd::start();
    let (answer, open) = crowd.probe("/api/close", &json!({"all": true}), "open");
    assert_eq!(answer, json!({"matched": MEMBERS}));
    expect_portions(&open, MEMBERS, 0);
}

#[test]
fn other_requests_are_answered_between_the_notices_of_many_groups() {
    let crowd = Crowd::start();
    let _leaver = Raw::upgraded_at(crowd.gateway.address, "/?uid=leaver");
    let sent = || {
        let count = crowd.gateway.get("/api/stats")["messages_out"].as_u64().expect("the value is a number");
        usize::try_from(count).expect("the number fits into usize")
    };
    let before = sent();
    crowd.gateway.done("/api/join", json!({"uid": "leaver", "groups": crowd.groups}));
    let joined = before + (MEMBERS + 1) * GROUPS;
    until("all notices about the join are sent", || sent() == joined);
    // Each of the remaining members gets one notice about each group.
    let left = joined + MEMBERS * GROUPS;
    let command = json!({"uid": "leaver", "groups": crowd.groups});
    let (answer, messages) = crowd.probe("/api/leave", &command, "messages_out");
    assert_eq!(answer, json!({"matched": 1, "changed": 1}));
    expect_portions(&messages, joined, left);
    until("all notices about the leave are sent", || sent() == left);
}
