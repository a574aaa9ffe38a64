//! Tests `forward_bytes_max`, the bound of the posts from one loop to another. A post is a push, a change or a close
//! that a loop sends to another loop.

use fdpush::{Change, Delivery, Fd, IntoPush, Limits, Outcome, SecondLogin};

use super::clients::{ask_at, connect_each, connect_one_each, hold_at};
use crate::common::{Client, TestServer, serve};

/// Starts a server with two loops and a low `forward_bytes_max`.
fn start() -> TestServer {
    let limits = Limits { message_bytes_max: 1000, forward_bytes_max: 8 << 10, ..Limits::default() };
    serve(move |server| server.loops(2).limits(limits))
}

/// Pushes empty texts until the posts to the loop of `to` have reached their bound. Returns the number of forwarded
/// texts.
fn fill(server: &TestServer, from: Fd, to: Fd) -> usize {
    ask_at(server, from, move |ctx| (0..).take_while(|_| ctx.push(to, "") == Outcome::Forwarded).count())
}

fn expect_empty_texts(client: &mut Client, count: usize) {
    (0..count).for_each(|_| assert_eq!(client.text(), ""));
}

#[test]
fn ungroup_is_bounded() {
    let server = start();
    let clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    assert_eq!(server.remote.join(other, "g").wait(), Ok(Change::Done));
    let (held, release) = hold_at(&server, other, |_| ());
    let counts: Vec<usize> = ask_at(&server, own, |ctx| (0..1000).map(|_| ctx.ungroup("g")).collect());
    let sent = counts.iter().take_while(|count| **count == 1).count();
    assert!((10..100).contains(&sent), "10 to 99 commands must fit into 8 KiB, not {sent}");
    assert!(counts[sent..].iter().all(|count| *count == 0), "`ungroup` must return 0 if it sends no post");
    release.send(()).expect("the loop waits");
    assert_eq!(held.wait(), Ok(()));
    server.wait_until("the group is empty", |ctx| ctx.member_count("g") == 0);
    assert_eq!(ask_at(&server, own, |ctx| ctx.ungroup("g")), 0);
}

#[test]
fn a_close_of_many_connections_is_one_post_for_each_loop() {
    let server = start();
    let mut clients = connect_each(&server, 2, 3);
    let (own, other) = (clients[0][0].fd(), clients[1][0].fd());
    let (held, release) = hold_at(&server, other, |_| ());
    let sent = fill(&server, own, other);
    let all = [own, other, clients[1][1].fd()];
    assert_eq!(
        ask_at(&server, own, move |ctx| ctx.close_fds(all, 4000, "full")),
        1,
        "only the connection of the own loop must be closed"
    );
    assert_eq!(clients[0][0].closed(), (4000, "full".to_owned()));
    release.send(()).expect("the loop waits");
    assert_eq!(held.wait(), Ok(()));
    expect_empty_texts(&mut clients[1][0], sent);

    // If the other loop has carried out all earlier posts, one post may exceed the bound. The post with these fds
    // exceeds it. The fds with even numbers belong to the second loop.
    let gone = (10_000..20_000_u64).filter(|number| number % 2 == 0).filter_map(Fd::from_u64);
    let fds: Vec<Fd> = gone.chain([other, other, clients[1][1].fd(), clients[0][1].fd()]).collect();
    let from = clients[0][2].fd();
    server.wait_until("all posts were carried out", move |ctx| ctx.push(other, "idle") == Outcome::Forwarded);
    assert_eq!(clients[1][0].text(), "idle");
    let closed = idle(&server, from, other, &mut clients[1][0], move |ctx| ctx.close_fds(fds, 4000, "enough"));
    assert_eq!(closed, 5000 + 2 + 1);
    for (index, client) in [(1, 0), (1, 1), (0, 1)] {
        assert_eq!(clients[index][client].closed(), (4000, "enough".to_owned()));
    }
    assert_eq!(server.remote.is_open(clients[1][2].fd()).wait(), Ok(true));
}

/// Runs `call` on the loop of `from` when the loop of `to` has carried out all earlier posts of the loop of `from`.
fn idle<T: Send + 'static>(
    server: &TestServer,
    from: Fd,
    to: Fd,
    client: &mut Client,
    call: impl FnOnce(&mut fdpush::Context<'_>) -> T + Send + 'static,
) -> T {
    assert_eq!(ask_at(server, from, move |ctx| ctx.push(to, "marker")), Outcome::Forwarded);
    assert_eq!(client.text(), "marker");
    // After the loop of `to` has answered this command, the post with the marker no longer counts towards the bound,
    // because the loop has carried out the post.
    assert_eq!(server.remote.call_at(to, |_| ()).wait(), Ok(()));
    ask_at(server, from, call)
}

#[test]
fn one_post_may_be_larger_than_the_bound_if_the_loops_are_idle() {
    let server = start();
    let mut clients = connect_one_each(&server, 2);
    let (own, other) = (clients[0].fd(), clients[1].fd());
    let fds: Vec<Fd> = (10_000..20_000_u64).filter(|number| number % 2 == 0).filter_map(Fd::from_u64).collect();
    let (deliveries, small) = idle(&server, own, other, &mut clients[1], move |ctx| {
        let fds = || fds.iter().copied().chain([other, other]);
        ([ctx.push_fds(fds(), "many"), ctx.push_fds(fds(), "no room")], ctx.push(other, "no room"))
    });
    let mut forwarded = Delivery::new(0, 0);
    forwarded.forwarded = 1;
    assert_eq!(deliveries, [forwarded, Delivery::new(0, 5001)], "an fd that is named twice must count once");
    assert_eq!(small, Outcome::Dropped);
    assert_eq!(clients[1].text(), "many");
    server.wait_until("there is room", move |ctx| ctx.push(other, "room") == Outcome::Forwarded);
    assert_eq!(clients[1].text(), "room");
}

#[test]
fn excluded_connections_and_duplicates_do_not_count_as_dropped() {
    let server = start();
    let mut clients = connect_each(&server, 2, 2);
    let (own, others) = (clients[0][0].fd(), [clients[1][0].fd(), clients[1][1].fd()]);
    for fd in others {
        assert_eq!(server.remote.bind(fd, "u").wait(), Ok(Change::Done));
    }
    let (held, release) = hold_at(&server, others[0], |_| ());
    let sent = fill(&server, own, others[0]);
    let deliveries = ask_at(&server, own, move |ctx| {
        let fds = [others[0], others[1], others[0]];
        [ctx.push_fds(fds, "".except(&others[1..])), ctx.push_uids(["u", "u"], ""), ctx.push_groups(["g", "g"], "")]
    });
    assert_eq!(deliveries, [Delivery::new(0, 1), Delivery::new(0, 2), Delivery::default()]);
    release.send(()).expect("the loop waits");
    assert_eq!(held.wait(), Ok(()));
    expect_empty_texts(&mut clients[1][0], sent);
}

#[test]
fn kicks_of_simultaneous_logins_do_not_use_up_forward_bytes_max() {
    let limits = Limits { message_bytes_max: 1000, forward_bytes_max: 8 << 10, ..Limits::default() };
    let server = serve(move |server| server.loops(2).limits(limits).second_login(SecondLogin::KickOld));
    let mut clients = connect_each(&server, 2, 100);
    let others: Vec<Fd> = clients[1].iter().map(Client::fd).collect();
    let own: Vec<Fd> = clients[0].iter().map(Client::fd).collect();
    for (index, fd) in others.iter().enumerate().skip(1) {
        assert_eq!(server.remote.bind(*fd, format!("u{index}")).wait(), Ok(Change::Done));
    }
    let (held, release) = hold_at(&server, others[0], |_| ());
    let (first, to) = (own[0], others[0]);
    let outcome = ask_at(&server, first, move |ctx| {
        for (index, fd) in own.into_iter().enumerate().skip(1) {
            assert_eq!(ctx.bind(fd, format!("u{index}")), Change::Done);
        }
        ctx.push(to, &"x".repeat(1000))
    });
    assert_eq!(outcome, Outcome::Forwarded);
    release.send(()).expect("the loop waits");
    assert_eq!(held.wait(), Ok(()));
    assert_eq!(clients[1][0].text().len(), 1000);
    for client in &mut clients[1][1..] {
        assert_eq!(client.closed().0, 4001);
    }
}
