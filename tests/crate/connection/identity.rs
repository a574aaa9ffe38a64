//! Tests fds, uids, groups, second connections of a uid, and queries inside `on_close`. A stale fd is the fd of a
//! connection that has ended.

use crate::common::{accept_with_fd, channel, report_close, serve};
use fdpush::{
    AbortOutcome, By, Cause, Change, CloseCode, CloseOutcome, Fd, NAME_BYTES_MAX, Outcome, RemoteError, ScanCursor,
    SecondLogin, State, Upgrade,
};

fn uid_of(server: &crate::common::TestServer, fd: Fd) -> Option<String> {
    server.ask(move |ctx| ctx.uid_of(fd).map(str::to_owned))
}

/// Waits until no connection is left.
fn wait_for_no_connections(server: &crate::common::TestServer) {
    server.wait_until("all connections have ended", |ctx| ctx.stats().connections == 0);
}

#[test]
fn fds_count_from_one() {
    let server = serve(|server| server);
    let clients = [server.connect("/"), server.connect("/"), server.connect("/")];
    let fds: Vec<u64> = clients.iter().map(|client| client.fd().as_u64()).collect();
    assert_eq!(fds, [1, 2, 3]);
}

#[test]
fn a_reused_slot_has_a_new_fd_and_a_stale_fd_reaches_no_connection() {
    let server = serve(|server| server);
    let first = server.connect("/?uid=ann&group=room");
    let stale = first.fd();
    drop(first);
    wait_for_no_connections(&server);
    let mut successor = server.connect("/?uid=bob");
    let fd = successor.fd();
    assert_eq!(fd.slot(), stale.slot());
    assert_eq!(fd.generation(), stale.generation() + 1);

    server.ask(move |ctx| {
        assert_eq!(ctx.push(stale, "for ann"), Outcome::Gone);
        assert_eq!(ctx.ping(stale, b""), Outcome::Gone);
        assert_eq!(ctx.close(stale, CloseCode::NORMAL, ""), CloseOutcome::Gone);
        assert_eq!(ctx.abort(stale), AbortOutcome::Gone);
        assert_eq!(ctx.bind(stale, "mallory"), Change::Gone);
        assert_eq!(ctx.unbind(stale), Change::Gone);
        assert_eq!(ctx.join(stale, "room"), Change::Gone);
        assert_eq!(ctx.leave(stale, "room"), Change::Gone);
        assert!(!ctx.exists(stale) && !ctx.is_open(stale) && !ctx.is_member(stale, "room"));
        assert_eq!([ctx.protect(stale), ctx.pause(stale), ctx.resume(stale)], [Change::Gone; 3]);
        assert_eq!(ctx.uid_of(stale), None);
        assert!(ctx.groups_of(stale).is_empty());
        assert!(ctx.info(stale).is_none());
        assert_eq!(ctx.uid_of(fd), Some("bob"));
        assert_eq!(ctx.push(fd, "for bob"), Outcome::Queued);
    });
    assert_eq!(server.remote.push(stale, "for ann").wait(), Ok(Outcome::Gone));
    assert_eq!(server.remote.bind(stale, "mallory").wait(), Ok(Change::Gone));
    assert_eq!(successor.text(), "for bob");
    server.ask(move |ctx| ctx.push(fd, "the next"));
    assert_eq!(successor.text(), "the next", "the new client must not get the message that was pushed to the stale fd");
}

#[test]
fn an_fd_is_invalid_in_the_turn_in_which_it_closed() {
    let server = serve(|server| server);
    let mut client = server.connect("/?uid=ann&group=room");
    let fd = client.fd();
    server.ask(move |ctx| {
        assert_eq!(ctx.push(fd, "last words"), Outcome::Queued);
        assert_eq!(ctx.close(fd, CloseCode::NORMAL, "bye"), CloseOutcome::Closing);
        assert_eq!(ctx.push(fd, "too late"), Outcome::Gone);
        assert_eq!(ctx.close(fd, CloseCode::NORMAL, "again"), CloseOutcome::Gone);
        assert_eq!(ctx.bind(fd, "bob"), Change::Gone);
        assert_eq!(ctx.join(fd, "room"), Change::Gone);
        assert!(!ctx.is_open(fd) && !ctx.is_online("ann"));
        assert_eq!(ctx.push_uid("ann", "too late").matched, 0);
        assert_eq!(ctx.push_group("room", "too late").matched, 0);
        assert_eq!(ctx.broadcast("too late").matched, 0);
    });
    assert_eq!(client.text(), "last words");
    assert_eq!(client.closed(), (1000, "bye".to_owned()));
}

#[test]
fn bind_replaces_a_uid_and_unbind_removes_it() {
    let server = serve(|server| server);
    let client = server.connect("/");
    let fd = client.fd();
    server.ask(move |ctx| {
        assert_eq!(ctx.uid_of(fd), None);
        assert_eq!(ctx.bind(fd, "ann"), Change::Done);
        assert_eq!(ctx.bind(fd, "ann"), Change::Already);
        assert_eq!(ctx.uid_of(fd), Some("ann"));
        assert_eq!(ctx.bind(fd, "bob"), Change::Done);
        assert_eq!(ctx.uid_of(fd), Some("bob"));
        assert!(!ctx.is_online("ann") && ctx.is_online("bob"));
        assert_eq!(ctx.users().collect::<Vec<_>>(), [("bob", 1)]);
        let (users, next) = ctx.scan_users(ScanCursor::default(), 100);
        assert_eq!((users.collect::<Vec<_>>(), next, ctx.user_count()), (vec![("bob", 1)], None, 1));
        assert_eq!(ctx.unbind(fd), Change::Done);
        assert_eq!(ctx.unbind(fd), Change::Already);
        assert_eq!(ctx.uid_of(fd), None);
        assert_eq!(ctx.stats().users, 0);
    });
}

#[test]
fn a_name_has_from_1_to_128_bytes() {
    let server = serve(|server| server);
    let client = server.connect("/");
    let fd = client.fd();
    let longest = "é".repeat(NAME_BYTES_MAX / 2);
    let too_long = format!("{longest}x");
    server.ask(move |ctx| {
        for name in ["", &too_long] {
            assert_eq!(ctx.bind(fd, name), Change::BadName, "{name:?}");
            assert_eq!(ctx.join(fd, name), Change::BadName, "{name:?}");
        }
        for name in ["x", &longest] {
            assert_eq!(ctx.bind(fd, name), Change::Done, "{name:?}");
            assert_eq!(ctx.join(fd, name), Change::Done, "{name:?}");
        }
        assert_eq!(ctx.fds_of(&longest), [fd]);
        assert_eq!(ctx.members("x"), [fd]);
    });
}

#[test]
fn a_connection_can_join_and_leave_groups_and_a_group_can_be_dissolved() {
    let server = serve(|server| server);
    let mut clients = [server.connect("/"), server.connect("/"), server.connect("/")];
    let [a, b, c] = [clients[0].fd(), clients[1].fd(), clients[2].fd()];
    server.ask(move |ctx| {
        for fd in [a, b, c] {
            assert_eq!(ctx.join(fd, "room"), Change::Done);
        }
        assert_eq!(ctx.join(a, "room"), Change::Already);
        assert_eq!(ctx.join(a, "hall"), Change::Done);
        assert_eq!(ctx.groups_of(a), ["hall", "room"]);
        assert_eq!(ctx.leave(b, "room"), Change::Done);
        assert_eq!(ctx.leave(b, "room"), Change::Already);
        assert!(ctx.is_member(a, "room") && !ctx.is_member(b, "room"));
        assert_eq!(ctx.member_count("room"), 2);
        let mut members = ctx.members("room");
        members.sort();
        assert_eq!(members, [a, c]);
        assert_eq!(ctx.ungroup("room"), 2);
        assert_eq!(ctx.ungroup("room"), 0);
        assert_eq!(ctx.push_group("room", "nobody hears").matched, 0);
        assert_eq!(ctx.groups().collect::<Vec<_>>(), [("hall", 1)]);
        let (groups, next) = ctx.scan_groups(ScanCursor::default(), 100);
        assert_eq!((groups.collect::<Vec<_>>(), next, ctx.group_count()), (vec![("hall", 1)], None, 1));
        assert_eq!(ctx.broadcast("still here").queued, 3);
    });
    for client in &mut clients {
        assert_eq!(client.text(), "still here");
    }
}

#[test]
fn a_scan_returns_each_group_that_exists_during_the_whole_scan_once() {
    const COUNT: usize = 1000;
    let server = serve(|server| server);
    let client = server.connect("/");
    let fd = client.fd();
    server.ask(move |ctx| {
        for number in 0..COUNT {
            assert_eq!(ctx.join(fd, format!("g{number}")), Change::Done);
        }
        let (mut seen, mut cursor) = (Vec::new(), Some(ScanCursor::default()));
        while let Some(start) = cursor {
            let (groups, next) = ctx.scan_groups(start, 300);
            let names: Vec<String> = groups.map(|(group, _)| group.to_owned()).collect();
            assert!(names.len() <= 300);
            // Between two calls, a group that was already returned ends, and another group begins.
            assert_eq!(ctx.leave(fd, &names[0]), Change::Done);
            assert_eq!(ctx.join(fd, format!("new{}", seen.len())), Change::Done);
            seen.extend(names);
            cursor = next;
        }
        let count = |name: String| seen.iter().filter(|other| **other == name).count();
        assert!((0..COUNT).all(|number| count(format!("g{number}")) == 1), "{seen:?}");
        let (users, next) = ctx.scan_users(ScanCursor::default(), 300);
        assert_eq!((users.count(), next), (0, None), "the scan must return no users, because no connection has a uid");
    });
}

#[test]
fn inside_on_close_the_fd_still_has_its_uid_and_groups_but_they_no_longer_find_it() {
    let (tx, rx) = channel();
    let server = serve(move |server| {
        server.on_close(move |ctx, fd, closed| {
            assert_eq!(ctx.uid_of(fd), Some("ann"));
            assert_eq!(ctx.groups_of(fd), ["hall", "room"]);
            let info = ctx.info(fd).expect("the connection is open");
            assert_eq!((info.fd, info.uid.as_deref()), (fd, Some("ann")));
            assert_eq!(info.groups, ["hall", "room"]);
            assert_eq!(info.state, State::Closing);
            assert_eq!(info.traffic.messages_in, 1);
            assert!(info.peer.is_loopback());

            assert!(ctx.fds_of("ann").is_empty() && !ctx.is_online("ann"));
            assert!(ctx.members("room").is_empty() && !ctx.is_member(fd, "room"));
            assert!(!ctx.is_open(fd));
            assert_eq!(ctx.connections().count(), 0);
            assert_eq!(ctx.push(fd, "too late"), Outcome::Gone);
            assert_eq!(ctx.bind(fd, "ann"), Change::Gone);
            assert_eq!(ctx.stats().users + ctx.stats().groups + ctx.stats().open, 0);
            tx.send(closed.clone()).expect("the test waits");
        })
    });
    let mut client = server.connect("/?uid=ann&group=room&group=hall");
    let fd = client.fd();
    client.send("something");
    client.close(3000, "enough");
    let closed = rx.next();
    assert_eq!((closed.code.as_u16(), &*closed.reason), (3000, "enough"));
    assert_eq!((closed.by, closed.cause), (By::Client, Cause::ClientClosed));
    server.ask(move |ctx| {
        assert_eq!(ctx.uid_of(fd), None, "the fd must have no uid after on_close");
        assert!(ctx.groups_of(fd).is_empty());
    });
}

#[test]
fn by_default_a_uid_can_have_any_number_of_connections() {
    let server = serve(|server| server);
    let mut tabs = [server.connect("/?uid=ann"), server.connect("/?uid=ann"), server.connect("/?uid=ann")];
    let fds: Vec<Fd> = tabs.iter().map(|tab| tab.fd()).collect();
    assert_eq!(
        server.ask(|ctx| ctx.fds_of("ann")),
        [fds[2], fds[1], fds[0]],
        "the connections must be listed from the newest bind to the oldest"
    );
    server.ask(|ctx| ctx.push_uid("ann", "to each"));
    for tab in &mut tabs {
        assert_eq!(tab.text(), "to each");
    }
}

#[test]
fn with_kick_old_the_newer_connection_stays() {
    let (tx, rx) = channel();
    let server = serve(|server| server.second_login(SecondLogin::KickOld).on_close(report_close(tx)));
    let mut old = server.connect("/?uid=ann");
    let mut new = server.connect("/?uid=ann");
    let (code, _reason) = old.closed();
    assert_eq!(code, CloseCode::KICKED.as_u16());
    let (fd, closed) = rx.next();
    assert_eq!(fd, old.fd());
    assert_eq!((closed.by, closed.cause), (By::Server, Cause::Kicked));
    let kept = new.fd();
    server.ask(move |ctx| {
        assert_eq!(ctx.fds_of("ann"), [kept]);
        ctx.push_uid("ann", "hello")
    });
    assert_eq!(new.text(), "hello");
}

#[test]
fn kick_old_also_applies_to_a_uid_that_the_upgrade_sets() {
    let server =
        serve(|server| server.second_login(SecondLogin::KickOld).on_upgrade(|_, _, _| Upgrade::accept().uid("ann")));
    let mut old = server.connect("/");
    let mut new = server.connect("/");
    assert_eq!(old.closed().0, 4001);
    assert_eq!(server.ask(|ctx| ctx.push_uid("ann", "hello")).queued, 1);
    assert_eq!(new.text(), "hello");
}

#[test]
fn an_ambiguous_or_invalid_query_sets_no_uid() {
    let server = serve(|server| {
        server.second_login(SecondLogin::KickOld).on_open(|ctx, fd, request| {
            if let Some(uid) = request.query("uid") {
                ctx.bind(fd, uid);
            }
        })
    });
    // The queries contain two uids in GBK, an incomplete UTF-8 character, an incomplete percent escape, and two `uid`
    // parameters.
    let targets =
        ["/?uid=%D5%C5%C8%FD", "/?uid=%C0%EE%CB%C4", "/?uid=%E5%BC", "/?uid=%D", "/?uid=a&uid=b", "/?uid=%ff&uid=a"];
    let clients = targets.map(|target| server.connect(target));
    for (client, target) in clients.iter().zip(targets) {
        assert_eq!(uid_of(&server, client.fd()), None, "{target}");
    }
    let named = server.connect("/?uid=%E5%BC%A0%E4%B8%89");
    assert_eq!(uid_of(&server, named.fd()).as_deref(), Some("张三"));
    let raw = server.connect("/?x=%ff&uid=%E6%9D%8E%E5%9B%9B");
    assert_eq!(uid_of(&server, raw.fd()).as_deref(), Some("李四"));
    assert_eq!(server.ask(|ctx| ctx.stats().open), 8, "no connection may be kicked");
}

#[test]
fn with_reject_new_the_upgrade_gets_409() {
    let server = serve(|server| {
        server.second_login(SecondLogin::RejectNew).on_upgrade(|_, _, request| match request.query("uid") {
            Some(uid) => Upgrade::accept().uid(uid),
            None => Upgrade::accept(),
        })
    });
    let mut old = server.connect("/?uid=ann");
    assert_eq!(server.refusal("/?uid=ann", &[]).0, 409);
    let _other = server.connect("/?uid=bob");
    assert_eq!(server.ask(|ctx| ctx.push_uid("ann", "still yours")).queued, 1);
    assert_eq!(old.text(), "still yours");
    drop(old);
    server.wait_until("ann is offline", |ctx| !ctx.is_online("ann"));
    let _new = server.connect("/?uid=ann");
}

#[test]
fn with_reject_new_a_late_bind_reports_the_uid_as_taken() {
    let server = serve(|server| server.second_login(SecondLogin::RejectNew).on_open(|_, _, _| {}));
    let (old, new) = (server.connect("/"), server.connect("/"));
    let (old, new) = (old.fd(), new.fd());
    server.ask(move |ctx| {
        assert_eq!(ctx.bind(old, "ann"), Change::Done);
        assert_eq!(ctx.bind(old, "ann"), Change::Already, "the connection must keep its uid");
        assert_eq!(ctx.bind(new, "bob"), Change::Done);
        assert_eq!(ctx.bind(new, "ann"), Change::Taken);
        assert_eq!(ctx.uid_of(new), Some("bob"), "the connection must keep its old uid");
        assert_eq!(ctx.fds_of("ann"), [old]);
    });
}

#[test]
fn a_page_refresh_does_not_report_the_uid_as_offline() {
    let (tx, rx) = channel();
    let server = serve(|server| {
        let on_upgrade = tx.clone();
        server
            .on_upgrade(move |ctx, fd, request| {
                on_upgrade.send(ctx.is_online("ann")).expect("the test waits");
                accept_with_fd(ctx, fd, request)
            })
            .on_close(move |ctx, _, _| tx.send(ctx.is_online("ann")).expect("the test waits"))
    });
    let mut page = server.connect("/?uid=ann");
    assert!(!rx.next(), "the uid must not be online before the first upgrade");
    for _ in 0..5 {
        // The new page opens its connection before the old page closes its connection.
        let new = server.connect("/?uid=ann");
        page.close(1001, "");
        page = new;
        assert!(rx.next(), "the uid must be online when the new page connects");
        assert!(rx.next(), "the uid must be online after the old page has closed");
    }
    let fd = page.fd();
    assert_eq!(server.ask(|ctx| ctx.fds_of("ann")), [fd]);
}

#[test]
fn a_uid_chosen_on_the_upgrade_is_bound_before_on_open() {
    let (tx, rx) = channel();
    let server = serve(|server| {
        server.on_upgrade(|_, _, _| Upgrade::accept().uid("ann")).on_open(move |ctx, fd, _| {
            tx.send(ctx.uid_of(fd).map(str::to_owned)).expect("the test waits");
        })
    });
    let _client = server.connect("/");
    assert_eq!(rx.next().as_deref(), Some("ann"));
}

#[test]
fn an_invalid_uid_of_the_upgrade_gets_400() {
    let server = serve(|server| server.on_upgrade(|_, _, _| Upgrade::accept().uid("")));
    let (status, why) = server.refusal("/", &[]);
    assert_eq!((status, why.as_str()), (400, "uid or group name must have 1 to 128 bytes\n"));
    server.wait_until("the connection has ended", |ctx| ctx.stats().connections == 0);
    assert_eq!(server.ask(|ctx| ctx.stats().opened), 0);
}

#[test]
fn commands_after_the_end_of_the_server_return_closed() {
    let server = serve(|server| server);
    let remote = server.remote.clone();
    let fd = server.connect("/?uid=ann").fd();
    server.stop().expect("the server ends without an error");
    assert_eq!(remote.push(fd, "anybody?").sent().map(|_| ()), Err(RemoteError::Closed));
    assert_eq!(uid_of_after_end(&remote, fd), Err(RemoteError::Closed));
}

fn uid_of_after_end(remote: &fdpush::Remote, fd: Fd) -> Result<Option<String>, RemoteError> {
    remote.uid_of(fd).wait()
}

#[test]
fn closing_one_connection_of_a_uid_leaves_the_others_open() {
    let server = serve(|server| server);
    let first = server.connect("/?uid=ann&group=room");
    let second = server.connect("/?uid=ann&group=room");
    let (left, kept) = (first.fd(), second.fd());
    drop(first);
    server.wait_until("the first connection has ended", move |ctx| !ctx.exists(left));
    assert_eq!(server.ask(|ctx| (ctx.fds_of("ann"), ctx.members("room"))), (vec![kept], vec![kept]));
    assert_eq!(uid_of(&server, kept).as_deref(), Some("ann"));
}
