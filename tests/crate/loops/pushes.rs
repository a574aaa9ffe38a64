//! Tests pushes that a loop forwards to the connections of other loops. A post is a push or a change that a loop
//! sends to another loop.

use fdpush::{Change, CloseOutcome, Delivery, Fd, Frame, Info, IntoPush, Limits, Outcome};

use super::clients::{ask_at, connect_each, connect_one_each, loop_of};
use crate::common::{Client, serve};

const LOOPS: usize = 3;

/// Returns the result of a push that reached `queued` connections of the own loop, and `forwarded` other loops.
fn forwarded(queued: usize, forwarded: usize) -> Delivery {
    let mut delivery = Delivery::new(queued, 0);
    delivery.forwarded = forwarded;
    delivery
}

fn fds(clients: &[Vec<Client>]) -> Vec<Fd> {
    clients.iter().flatten().map(Client::fd).collect()
}

/// Checks that all clients receive these texts and nothing else before them.
fn expect(clients: &mut [Vec<Client>], texts: &[&str]) {
    for client in clients.iter_mut().flatten() {
        for text in texts {
            assert_eq!(client.text(), *text);
        }
    }
}

#[test]
fn a_push_of_a_handler_reaches_the_connections_of_all_loops() {
    let server = serve(|server| server.loops(LOOPS));
    let mut clients = connect_each(&server, LOOPS, 2);
    for fd in fds(&clients) {
        assert_eq!(server.remote.bind(fd, "u").wait(), Ok(Change::Done));
        assert_eq!(server.remote.join(fd, "g").wait(), Ok(Change::Done));
    }
    let (all, frame) = (fds(&clients), Frame::text("frame"));
    let deliveries = ask_at(&server, all[0], move |ctx| {
        assert_eq!((ctx.loop_index(), ctx.loop_count()), (0, LOOPS));
        [
            ctx.push_uid("u", "uid"),
            ctx.push_uids(["u", "nobody", "u"], "uids"),
            ctx.push_group("g", "group"),
            ctx.push_groups(["g", "g", "none"], &"groups".repeat(200)),
            ctx.push_fds(all.clone(), &frame),
            ctx.push_fds(all.into_iter().rev(), "fds"),
            ctx.broadcast("all"),
        ]
    });
    assert_eq!(deliveries, [forwarded(2, LOOPS - 1); 7]);
    expect(&mut clients, &["uid", "uids", "group", &"groups".repeat(200), "frame", "fds", "all"]);
    let stats = server.remote.stats_by_loop().wait().expect("the server answers");
    assert_eq!(stats.iter().map(|stats| stats.forwarded).collect::<Vec<_>>(), [7 * (LOOPS as u64 - 1), 0, 0]);
    server.stop().expect("the server drains");
}

#[test]
fn only_loops_with_receivers_get_a_push() {
    let server = serve(|server| server.loops(LOOPS));
    let mut clients = connect_one_each(&server, LOOPS);
    let all: Vec<Fd> = clients.iter().map(Client::fd).collect();
    assert_eq!(server.remote.bind(all[2], "u").wait(), Ok(Change::Done));
    assert_eq!(server.remote.join(all[0], "g").wait(), Ok(Change::Done));
    let deliveries =
        ask_at(&server, all[0], |ctx| [ctx.push_uid("u", "uid"), ctx.push_group("g", "group"), ctx.push_uid("v", "")]);
    assert_eq!(deliveries, [forwarded(0, 1), Delivery::new(1, 0), Delivery::default()]);
    assert_eq!((clients[2].text(), clients[0].text()), ("uid".to_owned(), "group".to_owned()));

    assert_eq!(server.remote.unbind(all[2]).wait(), Ok(Change::Done));
    assert_eq!(server.remote.leave(all[0], "g").wait(), Ok(Change::Done));
    let deliveries = ask_at(&server, all[1], |ctx| [ctx.push_uid("u", "uid"), ctx.push_group("g", "group")]);
    assert_eq!(deliveries, [Delivery::default(); 2]);
}

#[test]
fn excluded_connections_of_all_loops_get_nothing() {
    let server = serve(|server| server.loops(LOOPS));
    let mut clients = connect_each(&server, LOOPS, 2);
    let except: Vec<Fd> = clients.iter().map(|of_loop| of_loop[0].fd()).collect();
    let from = except[1];
    let delivery = ask_at(&server, from, move |ctx| ctx.broadcast("others".except(&except)));
    assert_eq!(delivery, forwarded(1, LOOPS - 1));
    ask_at(&server, from, |ctx| ctx.broadcast("everyone"));
    for of_loop in &mut clients {
        assert_eq!(of_loop[0].text(), "everyone");
        assert_eq!((of_loop[1].text(), of_loop[1].text()), ("others".to_owned(), "everyone".to_owned()));
    }
}

#[test]
fn the_results_of_remote_count_all_loops() {
    let server = serve(|server| server.loops(LOOPS));
    let mut clients = connect_each(&server, LOOPS, 2);
    let all = fds(&clients);
    for fd in &all {
        assert_eq!(server.remote.bind(*fd, "u").wait(), Ok(Change::Done));
        assert_eq!(server.remote.join(*fd, "g").wait(), Ok(Change::Done));
    }
    let whole = Delivery::new(all.len(), 0);
    let remote = &server.remote;
    assert_eq!(remote.push_uid("u", "uid").wait(), Ok(whole));
    assert_eq!(remote.push_uids(["u", "u"], "uids").wait(), Ok(whole));
    assert_eq!(remote.push_group("g", "group").wait(), Ok(whole));
    assert_eq!(remote.push_groups(["g", "h"], "groups").wait(), Ok(whole));
    assert_eq!(remote.push_fds(all.clone(), "fds").wait(), Ok(whole));
    assert_eq!(remote.broadcast("all".except(&all[1..])).wait(), Ok(Delivery::new(1, 0)));
    for fd in &all {
        assert_eq!(remote.push(*fd, "fd").wait(), Ok(Outcome::Queued));
    }
    clients[loop_of(all[0], LOOPS)].iter_mut().filter(|client| client.fd() == all[0]).for_each(|client| {
        for text in ["uid", "uids", "group", "groups", "fds", "all", "fd"] {
            assert_eq!(client.text(), text);
        }
    });
    let sorted = |mut fds: Vec<Fd>| {
        fds.sort_unstable_by_key(|fd| fd.slot());
        fds
    };
    assert_eq!(remote.fds_of("u").wait().map(sorted), Ok(sorted(all.clone())));
    assert_eq!(remote.members("g").wait().map(sorted), Ok(sorted(all.clone())));
    assert_eq!(
        remote.connections().wait(),
        Ok(sorted(all.clone())),
        "the connections must be in the order of their slots"
    );
    assert_eq!((remote.is_online("u").wait(), remote.is_online("v").wait()), (Ok(true), Ok(false)));
    for fd in &all {
        assert_eq!(remote.uid_of(*fd).wait(), Ok(Some("u".to_owned())));
        assert_eq!(remote.groups_of(*fd).wait(), Ok(vec!["g".to_owned()]));
        assert_eq!(remote.is_open(*fd).wait(), Ok(true));
        let info: Option<Info> = remote.info(*fd).wait().expect("the server answers");
        assert_eq!(info.map(|info| info.fd), Some(*fd));
    }
    let stats = remote.stats().wait().expect("the server answers");
    assert_eq!((stats.open, stats.users, stats.groups), (all.len(), 1, 1));
    assert_eq!(remote.ungroup("g").wait(), Ok(all.len()));
    assert_eq!(remote.push_group("g", "").wait(), Ok(Delivery::default()));
    assert_eq!(remote.close(all[5], 4000, "enough").wait(), Ok(CloseOutcome::Closing));
    assert_eq!(remote.push(all[5], "late").wait(), Ok(Outcome::Gone));
}

#[test]
fn a_handler_changes_a_connection_of_another_loop() {
    let server = serve(|server| server.loops(2));
    let mut clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    let changes = ask_at(&server, own, move |ctx| {
        assert!(ctx.is_own(own) && !ctx.is_own(other));
        assert_eq!((ctx.info(other).is_none(), ctx.exists(other), ctx.uid_of(other)), (true, false, None));
        [ctx.bind(other, "u"), ctx.join(other, "g"), ctx.join(other, "h"), ctx.leave(other, "h"), ctx.protect(other)]
    });
    assert_eq!(changes, [Change::Forwarded; 5]);
    server.wait_until("the changes were made", |ctx| ctx.connection_count("u") == 1 && ctx.member_count("h") == 0);
    assert_eq!(server.remote.uid_of(other).wait(), Ok(Some("u".to_owned())));
    assert_eq!(server.remote.groups_of(other).wait(), Ok(vec!["g".to_owned()]));
    let outcomes = ask_at(&server, own, move |ctx| {
        assert_eq!((ctx.is_online("u"), ctx.member_count("g"), ctx.ungroup("g")), (true, 1, 1));
        [ctx.push(other, "text"), ctx.ping(other, b"ping")]
    });
    assert_eq!(outcomes, [Outcome::Forwarded; 2]);
    assert_eq!(clients[1].text(), "text");
    assert_eq!(clients[1].next().into_data().as_ref(), b"ping");
    let closed = ask_at(&server, own, move |ctx| ctx.close(other, 4000, "enough"));
    assert_eq!(closed, CloseOutcome::Forwarded);
    assert_eq!(clients[1].closed(), (4000, "enough".to_owned()));
    server.wait_until("the uid is offline", |ctx| !ctx.is_online("u"));
}

#[test]
fn paged_listings_contain_the_connections_of_all_loops_once_and_in_order() {
    let server = serve(|server| server.loops(LOOPS));
    let clients = connect_each(&server, LOOPS, 7);
    let mut expected = fds(&clients);
    expected.sort_unstable_by_key(|fd| fd.slot());
    for limit in [1, 2, 5, 100] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = server.remote.connections_after(after, limit).wait().expect("the server answers");
            let Some(last) = page.last() else { break };
            after = Some(*last);
            found.extend(page);
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
}

#[test]
fn a_message_over_forward_bytes_max_is_dropped_and_counted() {
    let limits = Limits { message_bytes_max: 1000, forward_bytes_max: 8 << 10, ..Limits::default() };
    let server = serve(move |server| server.loops(2).limits(limits));
    let mut clients = connect_each(&server, 2, 2);
    let (own, others) = (clients[0][0].fd(), [clients[1][0].fd(), clients[1][1].fd()]);
    for fd in others {
        assert_eq!(server.remote.bind(fd, "u").wait(), Ok(Change::Done));
    }
    let (deliveries, last) = ask_at(&server, own, move |ctx| {
        let text = "x".repeat(1000);
        let deliveries: Vec<Delivery> = (0..20).map(|_| ctx.push_uid("u", &text)).collect();
        (deliveries, ctx.push(others[0], &text))
    });
    let sent = deliveries.iter().take_while(|delivery| **delivery == forwarded(0, 1)).count();
    assert!((4..8).contains(&sent), "4 to 7 messages of 1000 bytes must fit into 8 KiB, not {sent}");
    assert_eq!(
        deliveries[sent..],
        vec![Delivery::new(0, 2); 20 - sent],
        "the receivers of dropped posts must be counted"
    );
    assert_eq!(last, Outcome::Dropped);
    let stats = server.remote.stats_by_loop().wait().expect("the server answers");
    assert_eq!((stats[0].dropped, stats[1].dropped), (2 * (20 - sent) as u64 + 1, 0));
    // The other loop has carried out its posts, so there is room again.
    for client in &mut clients[1] {
        (0..sent).for_each(|_| assert_eq!(client.text().len(), 1000));
    }
    server.wait_until("there is room", move |ctx| ctx.push(others[1], "again") == Outcome::Forwarded);
    assert_eq!(clients[1][1].text(), "again");
}
