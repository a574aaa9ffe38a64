//! Tests API lists with more entries than the server visits in one turn of the event loop. The server visits the
//! entries in portions, one portion in each turn, and answers other requests between the portions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::gateway::{Gateway, JSON, json_of, request, until};
use crate::common::raw::HttpResponse;
use crate::common::{Client, Raw};

/// The number of clients. With fewer than 64 connections, a loop of a debug build checks all its state in each turn, which
/// takes a long time with many groups. The number is sufficient for three loops.
const CLIENTS: usize = 210;

/// The number of names in one command. The server reads such a command in a few turns, even with a small
/// `--read-budget-bytes`.
const NAMES: usize = 1000;

/// The maximum number of entries in a portion: `WORK_MAX` in `src/gateway/runtime/portion.rs`.
const PORTION: usize = 30_000;

/// The number of bytes that the server reads from a connection in a turn, in the test with `--read-budget-bytes`.
const READ_BYTES: usize = 1024;

/// The maximum number of long lists in progress: `WAITING_MAX` in `src/gateway/api/lists.rs`.
const LISTS_MAX: usize = 16;

/// A server with many groups, each with one member. The clients have no uid, so they get no notices.
struct Crowd {
    gateway: Gateway,
    clients: Vec<(Client, u64)>,
}

impl Crowd {
    fn start(groups: usize, flags: &[&str]) -> Crowd {
        let flags = [&["--connection-groups-max", "5000", "--ping-every", "1h"], flags].concat();
        let gateway = Gateway::start(&flags);
        let clients: Vec<(Client, u64)> = (0..CLIENTS).map(|_| gateway.open("/", &[])).collect();
        let names: Vec<String> = names(groups).collect();
        for (some, (_, fd)) in names.chunks(NAMES).zip(clients.iter().cycle()) {
            gateway.done("/api/join", json!({"fd": fd, "groups": some}));
        }
        Crowd { gateway, clients }
    }

    /// Connects to the API. The server has accepted the connection when this method returns.
    fn api(&self) -> Raw {
        let mut raw = Raw::connect(self.gateway.api);
        raw.send(get("/healthz"));
        assert_eq!(raw.reply().status, 200);
        raw
    }
}

/// Returns the names of `count` groups. The names are not in ascending order.
fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("g{:06}", number * 7919 % count))
}

fn get(path: &str) -> String {
    request("GET", path, &[], "")
}

fn post(path: &str, body: &Value) -> String {
    request("POST", path, &[JSON], &body.to_string())
}

fn groups_of(reply: &HttpResponse) -> Vec<String> {
    assert_eq!(reply.status, 200, "{reply:?}");
    let page = json_of(reply);
    let groups = page["groups"].as_array().expect("the page has groups");
    groups.iter().map(|group| group["group"].as_str().expect("the group has a name").to_owned()).collect()
}

#[test]
fn pages_of_a_long_list_contain_each_remaining_group_once() {
    const GROUPS: usize = 40_000;
    let crowd = Crowd::start(GROUPS, &[]);
    let fd = crowd.clients[CLIENTS - 1].1;
    let (mut api, mut other) = (crowd.api(), crowd.api());
    let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        // While the server visits the groups, 50 other groups begin, and 25 of these end. In ascending order, their
        // names are between the names of the groups that stay.
        let passing: Vec<String> = (0..50).map(|number| format!("g{:06}-{pages}", number * 800)).collect();
        crowd.gateway.while_stopped(|| {
            api.send(get(&format!("/api/groups?limit=1000&after={after}")));
            other.send(post("/api/join", &json!({"fd": fd, "groups": passing})));
            other.send(post("/api/leave", &json!({"fd": fd, "groups": passing[..25]})));
        });
        let reply = api.reply();
        for _ in 0..2 {
            assert_eq!(json_of(&other.reply()), json!({"matched": 1, "changed": 1}));
        }
        let page = groups_of(&reply);
        assert!(page.len() <= 1000);
        seen.extend(page);
        pages += 1;
        match json_of(&reply)["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert!(
        seen.is_sorted_by(|one, next| one < next),
        "the names must be in ascending order, and each name must occur once"
    );
    let seen: BTreeSet<String> = seen.into_iter().collect();
    let missing: Vec<String> = names(GROUPS).filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "the pages must contain {missing:?}");
    assert!(pages > GROUPS / 1000, "the pages must also contain groups that began while the list was read");
}

#[test]
fn other_requests_are_carried_out_between_the_portions_of_a_list() {
    const PORTIONS: usize = 4;
    const JOINS: usize = CLIENTS - 1;
    // With several loops, each loop visits a part of the groups, and the joins run on other loops.
    let crowd = Crowd::start(PORTIONS * PORTION, &["--loops", "1", "--read-budget-bytes", "1KiB"]);
    // The server visits the group `a` in the first portion. In the list, `a` is the first group.
    let first = crowd.clients[0].1;
    crowd.gateway.done("/api/leave", json!({"fd": first, "group": "g000000"}));
    crowd.gateway.done("/api/join", json!({"fd": first, "group": "a"}));
    let (mut api, mut other) = (crowd.api(), crowd.api());
    let joins: Vec<String> =
        crowd.clients[1..].iter().map(|(_, fd)| post("/api/join", &json!({"fd": fd, "group": "a"}))).collect();
    crowd.gateway.while_stopped(|| {
        api.send(get("/api/groups?limit=1"));
        other.send(joins.concat());
    });
    let page = json_of(&api.reply());
    assert_eq!((&page["groups"][0]["group"], &page["next"]), (&json!("a"), &json!("a")));
    // The count of a group in the answer is its number of members when the server sends the answer.
    let joined = page["groups"][0]["count"].as_u64().expect("the count is a number") as usize - 1;
    let joins_a_turn = READ_BYTES / joins[0].len() + 1;
    assert!(
        joined > (PORTIONS / 2) * joins_a_turn && joined <= JOINS,
        "the list must take about {PORTIONS} turns with about {joins_a_turn} joins each, but its answer came after {joined} joins"
    );
    for _ in 0..JOINS {
        assert_eq!(json_of(&other.reply()), json!({"matched": 1, "changed": 1}));
    }

    // A group that ends after the server has visited it is not on the page. The next page begins after its name.
    crowd.gateway.while_stopped(|| {
        api.send(get("/api/groups?limit=1"));
        other.send(get("/healthz").repeat(2 * READ_BYTES / get("/healthz").len()));
        other.send(post("/api/ungroup", &json!({"group": "a"})));
    });
    assert_eq!(json_of(&api.reply()), json!({"groups": [], "next": "a"}));
    assert_eq!(crowd.gateway.get("/api/groups?limit=1&after=a")["groups"][0]["group"], "g000001");
}

#[test]
fn answers_to_long_lists_keep_the_order_of_their_requests() {
    let crowd = Crowd::start(PORTION + 1, &[]);
    let mut api = crowd.api();
    let list = "/api/groups?limit=3&after=g000004";
    api.send(
        request("HEAD", list, &[], "") + &get("/healthz") + &get(list) + &get("/api/users") + &get("/api/groups/x"),
    );
    let expected = json!({"groups": (5..8).map(|number| json!({"group": format!("g{number:06}"), "count": 1})).collect::<Vec<_>>(),
        "next": "g000007"});
    let head = api.reply_head();
    assert_eq!((head.status, head.header("Cache-Control")), (200, Some("no-store")));
    assert_eq!(api.reply().body, "alive\n");
    let reply = api.reply();
    assert_eq!(json_of(&reply), expected);
    assert_eq!(head.header("Content-Length"), Some(reply.body.len().to_string().as_str()));
    assert_eq!(json_of(&api.reply()), json!({"users": [], "next": null}));
    assert_eq!(json_of(&api.reply()), json!({"group": "x", "count": 0, "members": [], "next": null}));
}

#[test]
fn the_number_of_long_lists_in_progress_is_limited() {
    const EXCESS: usize = 4;
    let crowd = Crowd::start(PORTION + 1, &[]);
    let mut clients: Vec<Raw> = (0..LISTS_MAX + EXCESS).map(|_| crowd.api()).collect();
    let mut other = crowd.api();
    crowd.gateway.while_stopped(|| {
        clients.iter_mut().for_each(|client| client.send(get("/api/groups?limit=1000")));
        other.send(get("/api/users"));
    });
    assert_eq!(json_of(&other.reply()), json!({"users": [], "next": null}), "a short list must not be refused");
    let replies: Vec<HttpResponse> = clients.iter_mut().map(Raw::reply).collect();
    let (lists, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!(lists.iter().all(|reply| groups_of(reply).len() == 1000));
    assert_eq!(refused.len(), EXCESS);
    for reply in refused {
        let error =
            json!({"error": {"code": "unavailable", "message": "limit of long lists in progress reached (16)"}});
        assert_eq!((reply.status, json_of(reply)), (503, error));
    }
}

#[test]
fn a_client_that_disconnects_during_its_list_makes_room_for_another_list() {
    let crowd = Crowd::start(2 * PORTION, &[]);
    for _ in 0..3 {
        let mut clients: Vec<Raw> = (0..LISTS_MAX).map(|_| crowd.api()).collect();
        crowd.gateway.while_stopped(|| {
            clients.iter_mut().for_each(|client| client.send(get("/api/groups")));
            clients.into_iter().for_each(Raw::reset);
        });
        until("the connections have ended", || crowd.gateway.get("/api/stats")["api_connections"] == 1);
        until("a new list is accepted", || crowd.gateway.call("GET", "/api/groups", &[], "").status == 200);
    }
}
