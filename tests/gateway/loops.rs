//! Tests servers with several event loops: calls, limits and events hold for the process, whatever loops the clients
//! are on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::common::command::{call, make_private};
use crate::common::events::{Events, start_accepting_back_end, start_with_webhook};
use crate::common::gateway::{Gateway, JSON, closed, hang_up, json_of, next, next_of, request, until};
use crate::common::raw::UPGRADE;
use crate::common::{Client, Raw, Scratch};

const LOOPS: usize = 3;

fn start(flags: &[&str]) -> Gateway {
    Gateway::start(&[&["--loops", "3"], flags].concat())
}

/// Returns the loop of an fd: the lowest 24 bits are its slot, plus 1.
fn loop_of(fd: u64) -> usize {
    ((fd & 0xff_ffff) - 1) as usize % LOOPS
}

/// Connects a client to each loop.
fn connect_to_each_loop(gateway: &Gateway, target: &str) -> Vec<(Client, u64)> {
    let mut clients: BTreeMap<usize, (Client, u64)> = BTreeMap::new();
    let mut surplus = Vec::new();
    until("a client is connected to each loop", || {
        let (client, fd) = gateway.open(target, &[]);
        match clients.contains_key(&loop_of(fd)) {
            true => surplus.push(client),
            false => _ = clients.insert(loop_of(fd), (client, fd)),
        }
        clients.len() == LOOPS
    });
    surplus.into_iter().for_each(hang_up);
    clients.into_values().collect()
}

fn fds_of(clients: &[(Client, u64)]) -> Vec<u64> {
    clients.iter().map(|(_, fd)| *fd).collect()
}

#[test]
fn pushes_of_one_sender_arrive_in_order_on_each_loop() {
    const ROUNDS: usize = 50;
    let gateway = start(&[]);
    let mut clients = connect_to_each_loop(&gateway, "/?uid=ann");
    gateway.done("/api/join", json!({"uid": "ann", "group": "g"}));
    clients.iter_mut().for_each(|(client, _)| assert_eq!(next_of(client, "joined")["count"], 1));
    let fds = fds_of(&clients);
    let targets = [
        json!({"fds": fds}),
        json!({"uid": "ann"}),
        json!({"uids": ["ann", "nobody"]}),
        json!({"group": "g"}),
        json!({"all": true}),
        // These pushes search excluded connections on each loop.
        json!({"uid": "ann", "except": {"uid": "nobody"}}),
        json!({"all": true, "except": {"group": "none"}}),
    ];
    let lines: Vec<String> = (0..ROUNDS * targets.len())
        .map(|number| {
            let mut line = targets[number % targets.len()].clone();
            line["data"] = json!(number);
            line.to_string()
        })
        .collect();
    let mut api = Raw::connect(gateway.api);
    api.send(request("POST", "/api/batch", &[("Content-Type", "application/x-ndjson")], &lines.join("\n")));
    let reply = api.reply_in_chunks();
    let answers: Vec<Value> =
        reply.body.lines().map(|line| serde_json::from_str(line).expect("the answer is JSON")).collect();
    assert_eq!(answers.len(), lines.len());
    for (answer, line) in answers.iter().zip(&lines) {
        assert_eq!((&answer["matched"], &answer["queued"]), (&json!(LOOPS), &json!(LOOPS)), "{line}");
    }
    for (client, fd) in &mut clients {
        for number in 0..lines.len() {
            assert_eq!(next(client)["data"], number, "fd {fd}");
        }
    }

    // A client pushes with and without an id. The answers have the counts of all loops.
    for number in 0..ROUNDS {
        let mut frame = json!({"type": "push", "to": "ann", "data": number});
        if number % 2 == 0 {
            frame["id"] = json!(number);
        }
        clients[0].0.send(&frame.to_string());
    }
    let frames: Vec<Value> = (0..ROUNDS + ROUNDS / 2).map(|_| next(&mut clients[0].0)).collect();
    let (acks, messages): (Vec<Value>, Vec<Value>) = frames.into_iter().partition(|frame| frame["type"] == "ack");
    assert!(messages.iter().enumerate().all(|(number, message)| message["data"] == number), "{messages:?}");
    assert_eq!(acks.len(), ROUNDS / 2);
    assert!(acks.iter().all(|ack| ack["matched"] == LOOPS && ack["queued"] == LOOPS), "{acks:?}");
    for (client, _) in &mut clients[1..] {
        (0..ROUNDS).for_each(|number| assert_eq!(next(client)["data"], number));
    }
}

#[test]
fn an_answer_counts_the_connections_of_each_loop() {
    let gateway = start(&[]);
    let mut anns = connect_to_each_loop(&gateway, "/?uid=ann");
    let mut bobs = connect_to_each_loop(&gateway, "/?uid=bob");
    let (ann_fds, bob_fds) = (fds_of(&anns), fds_of(&bobs));
    let changed = json!({"matched": 6, "changed": 6});
    assert_eq!(gateway.done("/api/join", json!({"uids": ["ann", "bob"], "group": "g"})), changed);
    let joined = json!({"type": "joined", "group": "g", "uids": ["ann", "bob"], "count": 2});
    anns.iter_mut().chain(&mut bobs).for_each(|(client, _)| assert_eq!(next(client), joined));

    let delivery = |count: usize| json!({"matched": count, "queued": count, "dropped": 0, "offline": []});
    let to_others = json!({"group": "g", "except": {"uid": "ann", "fd": bob_fds[1]}, "data": 1});
    assert_eq!(gateway.done("/api/push", &to_others), delivery(2));
    let to_all = json!({"uids": ["ann", "bob", "cat"], "data": 2});
    let mut expected = delivery(6);
    expected["offline"] = json!(["cat"]);
    assert_eq!(gateway.done("/api/push", &to_all), expected);
    for (index, (client, _)) in bobs.iter_mut().enumerate() {
        if index != 1 {
            assert_eq!(next(client)["data"], 1);
        }
        assert_eq!(next(client)["data"], 2);
    }
    anns.iter_mut().for_each(|(client, _)| assert_eq!(next(client)["data"], 2));
    assert_eq!(gateway.done("/api/push", json!({"uid": "cat", "data": 3}))["offline"], json!(["cat"]));

    let online = gateway.done("/api/online", json!({"uids": ["ann", "cat"]}));
    let listed: BTreeSet<u64> = online["online"]["ann"]
        .as_array()
        .expect("ann is online")
        .iter()
        .map(|fd| fd.as_u64().expect("the fd is a number"))
        .collect();
    assert_eq!((listed, &online["offline"]), (ann_fds.iter().copied().collect(), &json!(["cat"])));

    for (number, fd) in ann_fds.iter().enumerate() {
        let attributes = json!({"number": number});
        let path = format!("/api/connections/{fd}");
        let set = gateway.call("PUT", &format!("{path}/attributes"), &[JSON], &attributes.to_string());
        assert_eq!((set.status, json_of(&set)), (200, attributes.clone()));
        assert_eq!(gateway.get(&format!("{path}/attributes")), attributes);
        let connection = gateway.get(&path);
        assert_eq!((&connection["uid"], &connection["groups"]), (&json!("ann"), &json!(["g"])));
        assert_eq!(gateway.done("/api/bind", json!({"fd": fd, "uid": "eve"})), json!({"matched": 1, "changed": 1}));
    }
    assert_eq!(gateway.done("/api/unbind", json!({"uid": "eve"})), json!({"matched": 3, "changed": 3}));
    assert_eq!(gateway.done("/api/ungroup", json!({"group": "g"})), json!({"matched": 6, "changed": 6}));
    let left = json!({"type": "left", "group": "g", "uid": "bob", "count": 0});
    anns.iter_mut().chain(&mut bobs).for_each(|(client, _)| {
        let last = std::iter::repeat_with(|| next(client)).find(|frame| frame["count"] == 0);
        assert_eq!(last, Some(left.clone()));
    });
    assert_eq!(gateway.done("/api/close", json!({"all": true, "code": 4000})), json!({"matched": 6}));
    anns.iter_mut().chain(&mut bobs).for_each(|(client, _)| assert_eq!(closed(client).0, 4000));
    let stats = gateway.get("/api/stats");
    assert_eq!((&stats["open"], &stats["users"], &stats["groups"]), (&json!(0), &json!(0), &json!(0)));
}

#[test]
fn a_refused_join_changes_nothing_on_any_loop() {
    let gateway = start(&["--connection-groups-max", "1"]);
    let mut clients = connect_to_each_loop(&gateway, "/?uid=ann");
    gateway.done("/api/join", json!({"fd": clients[1].1, "group": "full"}));
    assert_eq!(next(&mut clients[1].0)["group"], "full");
    let (status, answer) = gateway.post("/api/join", json!({"uid": "ann", "group": "g"}));
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("too_many")));
    assert_eq!(gateway.get("/api/groups/g")["count"], 0);
    // No client was notified.
    gateway.done("/api/push", json!({"all": true, "data": "next"}));
    clients.iter_mut().for_each(|(client, _)| assert_eq!(next(client)["data"], "next"));
}

/// Sends upgrades from many threads at the same time, and returns their statuses. `keep` gets the open connections.
fn race(gateway: &Gateway, threads: usize, each: usize, target: &str) -> (Vec<u16>, Vec<Raw>) {
    let run = |_| {
        let (address, target) = (gateway.address, target.to_owned());
        thread::spawn(move || {
            let mut raws: Vec<Raw> = (0..each).map(|_| Raw::connect(address)).collect();
            raws.iter_mut().for_each(|raw| raw.send(UPGRADE.replacen('/', &target, 1)));
            raws.into_iter().map(|mut raw| (raw.reply_head().status, raw)).collect::<Vec<_>>()
        })
    };
    let runs: Vec<_> = (0..threads).map(run).collect();
    runs.into_iter().flat_map(|run| run.join().expect("the clients get answers")).unzip()
}

#[test]
fn limits_hold_when_clients_connect_on_all_loops_at_once() {
    const CLIENTS: usize = 8 * 25;
    for (flags, accepted, refused) in [
        (["--on-second-login", "reject_new"], 1, 409),
        (["--uid-connections-max", "7"], 7, 429),
        (["--address-connections-max", "11"], 11, 429),
    ] {
        let gateway = start(&flags);
        for _ in 0..5 {
            let (statuses, raws) = race(&gateway, 8, 25, "/?uid=ann");
            let count_of = |status: u16| statuses.iter().filter(|one| **one == status).count();
            assert_eq!((count_of(101), count_of(refused)), (accepted, CLIENTS - accepted), "{flags:?}");
            drop(raws);
            until("all connections have ended", || gateway.get("/api/stats")["connections"] == 1);
        }
    }
}

#[test]
fn with_kick_old_one_of_many_simultaneous_logins_stays() {
    const CLIENTS: usize = 8 * 25;
    let gateway = start(&["--on-second-login", "kick_old"]);
    for _ in 0..5 {
        let (statuses, raws) = race(&gateway, 8, 25, "/?uid=ann");
        assert_eq!(statuses, vec![101; CLIENTS]);
        until("one connection is left", || gateway.get("/api/stats")["open"] == 1);
        let user = gateway.get("/api/users/ann");
        assert_eq!((&user["count"], user["connections"].as_array().map(Vec::len)), (&json!(1), Some(1)));
        drop(raws);
        until("all connections have ended", || gateway.get("/api/stats")["connections"] == 1);
    }
}

/// Returns all entries of a list, page by page.
fn read_pages(gateway: &Gateway, path: &str, list: &str, key: &str) -> Vec<String> {
    let (mut entries, mut after) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("{path}?limit=20&after={after}"));
        let listed = page[list].as_array().expect("the page has a list");
        assert!(listed.len() <= 20);
        entries.extend(listed.iter().map(|entry| match &entry[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }));
        match &page["next"] {
            Value::Null => return entries,
            Value::String(next) => after = next.clone(),
            next => after = next.to_string(),
        }
    }
}

#[test]
fn pages_list_each_entry_once_while_clients_come_and_go() {
    const STAYING: usize = 120;
    let gateway = start(&[]);
    let staying: Vec<(Client, u64)> =
        (0..STAYING).map(|number| gateway.open(&format!("/?uid=stays{number:03}"), &[])).collect();
    for (number, fd) in fds_of(&staying).into_iter().enumerate() {
        gateway.done("/api/join", json!({"fd": fd, "groups": ["g", format!("of{number:03}")]}));
    }
    let (address, ends) = (gateway.address, AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !ends.load(Ordering::Relaxed) {
                let visit = |one| Client::connect(address, &format!("/?uid=visits{}", number + one), &[]);
                let visitors: Vec<Client> = (0..10).map(|one| visit(one).expect("the client can connect")).collect();
                number += 10;
                drop(visitors);
            }
        });
        let check = |path: &str, list: &str, key: &str, expected: Vec<String>| {
            let entries = read_pages(&gateway, path, list, key);
            let distinct: BTreeSet<&String> = entries.iter().collect();
            assert_eq!(distinct.len(), entries.len(), "{path} must list each entry once: {entries:?}");
            let missing: Vec<&String> = expected.iter().filter(|entry| !distinct.contains(entry)).collect();
            assert!(missing.is_empty(), "{path} must list {missing:?}");
        };
        let fds = || fds_of(&staying).iter().map(u64::to_string).collect();
        for _ in 0..5 {
            check("/api/connections", "connections", "fd", fds());
            check("/api/groups/g", "members", "fd", fds());
            check("/api/users", "users", "uid", (0..STAYING).map(|number| format!("stays{number:03}")).collect());
            check("/api/groups", "groups", "group", (0..STAYING).map(|number| format!("of{number:03}")).collect());
        }
        ends.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_uid_goes_offline_with_its_last_connection_on_any_loop() {
    let backend = start_accepting_back_end();
    let flags = ["--loops", "3", "--webhook-events", "online,offline", "--presence-delay", "10ms"];
    let gateway = start_with_webhook(&backend, &flags);
    let mut events = Events::of(&backend);
    for _ in 0..20 {
        let clients = connect_to_each_loop(&gateway, "/?uid=ann");
        assert_eq!(events.next(), json!({"type": "online", "uid": "ann"}));
        // The uid has a connection at every moment until the last has ended. A later event of another uid shows that no
        // event of ann came before.
        let [first, second, third] = <[(Client, u64); LOOPS]>::try_from(clients).ok().expect("each loop has a client");
        hang_up(first.0);
        let again = gateway.connect("/?uid=ann");
        hang_up(second.0);
        hang_up(third.0);
        hang_up(gateway.connect("/?uid=bob"));
        assert_eq!(events.next(), json!({"type": "online", "uid": "bob"}));
        assert_eq!(events.next(), json!({"type": "offline", "uid": "bob"}));
        hang_up(again);
        assert_eq!(events.next(), json!({"type": "offline", "uid": "ann"}));
    }
}

#[test]
fn notices_of_a_group_have_the_users_of_all_loops() {
    const USERS: usize = 30;
    let gateway = start(&[]);
    let mut watcher = gateway.connect("/");
    watcher.send(r#"{"type":"join","group":"g","id":1}"#);
    assert_eq!(next(&mut watcher)["type"], "ack");
    let mut clients: Vec<Client> = (0..USERS).map(|number| gateway.connect(&format!("/?uid=u{number}"))).collect();
    let mut count = 0;
    for client in &mut clients {
        client.send(r#"{"type":"join","group":"g"}"#);
    }
    // Each notice names the users who joined since the last notice, and has the number of all users.
    while count < USERS {
        let notice = next(&mut watcher);
        let joined = notice["uids"].as_array().map_or(1, Vec::len);
        count += joined;
        assert_eq!((&notice["type"], &notice["count"]), (&json!("joined"), &json!(count)), "{notice}");
    }
    clients.drain(..).for_each(drop);
    while count > 0 {
        let notice = next(&mut watcher);
        count -= notice["uids"].as_array().map_or(1, Vec::len);
        assert_eq!((&notice["type"], &notice["count"]), (&json!("left"), &json!(count)), "{notice}");
    }
}

#[test]
fn a_drain_closes_the_clients_of_all_loops() {
    let mut gateway = start(&[]);
    let mut clients: Vec<Client> = (0..60).map(|_| gateway.connect("/")).collect();
    gateway.signal("-TERM");
    clients.iter_mut().for_each(|client| assert_eq!(closed(client).0, 1001));
    drop(clients);
    assert!(gateway.wait().success());
    gateway.logged("drained");
}

#[test]
fn statistics_and_metrics_of_the_loops_add_up() {
    let gateway = start(&[]);
    let mut clients = connect_to_each_loop(&gateway, "/?uid=ann");
    for (client, _) in &mut clients {
        client.send(r#"{"type":"push","to":"ann","data":1}"#);
    }
    clients.iter_mut().for_each(|(client, _)| (0..LOOPS).for_each(|_| assert_eq!(next(client)["data"], 1)));
    let stats = gateway.get("/api/stats");
    let loops = stats["loops"].as_array().expect("the statistics have a list of loops");
    assert_eq!(loops.len(), LOOPS);
    for member in ["connections", "open", "opened", "closed", "accepted", "messages_in", "messages_out", "bytes_in"] {
        let sum: u64 = loops.iter().map(|of_loop| of_loop[member].as_u64().expect("the value is a number")).sum();
        assert_eq!(stats[member], sum, "{member}");
    }
    assert_eq!((&stats["users"], &stats["open"]), (&json!(1), &json!(LOOPS)));
    assert!(loops.iter().all(|of_loop| of_loop["open"] == 1 && of_loop["forwarded"] == 2), "{loops:?}");

    let sum =
        |name: &str| -> f64 { (0..LOOPS).map(|index| gateway.metric(&format!("{name}{{loop=\"{index}\"}}"))).sum() };
    assert_eq!(sum("fdpush_loop_open"), 3.0);
    assert_eq!(sum("fdpush_loop_messages_in_total"), 3.0);
    assert_eq!(sum("fdpush_loop_forwards_total"), 6.0);
    assert_eq!(gateway.metric(r#"fdpush_connections{state="open"}"#), 3.0);
    assert_eq!(gateway.metric("fdpush_uids"), 1.0);

    let single = Gateway::start(&["--loops", "1"]);
    assert_eq!(single.get("/api/stats").get("loops"), None);
    assert!(!single.call("GET", "/metrics", &[], "").body.contains("fdpush_loop_"));
}

#[test]
fn a_reload_applies_to_the_clients_of_all_loops() {
    let scratch = Scratch::new("loops_reload");
    let path = scratch.file("fdpush.toml");
    let write = |text: &str| {
        fs::write(&path, text).expect("the file can be written");
        make_private(&path);
    };
    write("client_may = [\"all\"]\n");
    let gateway = start(&["--config", path.to_str().expect("the path is UTF-8")]);
    let mut clients = connect_to_each_loop(&gateway, "/?uid=ann");
    let mut ask = |expected: &str| {
        for (client, _) in &mut clients {
            client.send(r#"{"type":"online","uids":["ann"],"id":1}"#);
            let answer = next(client);
            let result = answer.get("code").unwrap_or(&answer["type"]);
            assert_eq!(result, expected, "{answer}");
        }
    };
    ask("online");
    write("client_may = [\"nothing\"]\n");
    gateway.signal("-HUP");
    gateway.logged("settings reloaded");
    ask("not_allowed");
}

#[test]
fn a_reload_changes_the_bound_between_loops() {
    let scratch = Scratch::new("loops_bound");
    let path = scratch.file("fdpush.toml");
    let write = |bound: &str| {
        let text = format!("message_bytes_max = 1024\nforward_bytes_max = \"{bound}\"\n");
        fs::write(&path, text).expect("the file can be written");
        make_private(&path);
    };
    write("8KiB");
    let gateway = start(&["--config", path.to_str().expect("the path is UTF-8")]);
    let _clients = connect_to_each_loop(&gateway, "/");
    let line = json!({"all": true, "text": "x".repeat(1000)}).to_string() + "\n";
    // All lines of a batch are read in one turn. Their messages for the other loops then wait for the end of the turn.
    let dropped = || -> u64 {
        let mut api = Raw::connect(gateway.api);
        api.send(request("GET", "/healthz", &[], ""));
        assert_eq!(api.reply().status, 200);
        gateway.while_stopped(|| {
            let headers = [("Content-Type", "application/x-ndjson")];
            api.send(request("POST", "/api/batch", &headers, &line.repeat(20)));
        });
        let body = api.reply_in_chunks().body;
        let answers = body.lines().map(|line| serde_json::from_str::<Value>(line).expect("the answer is JSON"));
        let dropped = answers.map(|answer| {
            assert_eq!(answer["matched"], LOOPS, "{answer}");
            answer["dropped"].as_u64().expect("the value is a number")
        });
        dropped.sum()
    };
    assert!(dropped() > 0);
    write("1MiB");
    gateway.signal("-HUP");
    gateway.logged("changed: forward_bytes_max");
    assert_eq!(dropped(), 0);
}

#[test]
fn the_number_of_loops_is_checked() {
    for invalid in ["0", "257", "many", "-1"] {
        let printed = call(&["check", &format!("--loops={invalid}")], &[]);
        assert_eq!(printed.code, Some(2), "{printed:?}");
        assert!(printed.err.contains("it must be auto, or a whole number from 1 to 256"), "{printed:?}");
    }
    let auto = call(&["config", "--loops", "auto"], &[]);
    assert!(auto.out.contains("loops = \"auto\"  # from flag"), "{auto:?}");
    // A forwarded message must fit into `forward_bytes_max`.
    let flags = ["check", "--message-bytes-max", "8MiB", "--queue-bytes-max", "16MiB", "--loops"];
    assert_eq!(call(&[&flags[..], &["1"]].concat(), &[]).code, Some(0));
    let refused = call(&[&flags[..], &["2"]].concat(), &[]);
    assert!(refused.err.contains("forward_bytes_max") && refused.code != Some(0), "{refused:?}");
    assert_eq!(call(&[&flags[..], &["2", "--forward-bytes-max", "16MiB"]].concat(), &[]).code, Some(0));
}

#[test]
fn requests_on_one_api_connection_are_answered_in_order() {
    let gateway = start(&[]);
    let clients = connect_to_each_loop(&gateway, "/?uid=ann");
    let mut api = Raw::connect(gateway.api);
    let get = |path: &str| request("GET", path, &[], "");
    let push = |data: u32| request("POST", "/api/push", &[JSON], &json!({"uid": "ann", "data": data}).to_string());
    api.send(
        push(1) + &get("/api/connections") + &get("/healthz") + &push(2) + &get("/api/users/nobody") + &get("/readyz"),
    );
    assert_eq!(json_of(&api.reply())["matched"], LOOPS);
    assert_eq!(json_of(&api.reply())["connections"].as_array().map(Vec::len), Some(clients.len()));
    assert_eq!(api.reply().body, "alive\n");
    assert_eq!(json_of(&api.reply())["queued"], LOOPS);
    assert_eq!(api.reply().status, 404);
    assert_eq!(api.reply().body, "ready\n");
    assert_eq!(gateway.metric(r#"fdpush_api_requests_total{path="/api/users/{uid}",status="404"}"#), 1.0);
}
