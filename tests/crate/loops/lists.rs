//! Tests the lists of users and groups of a server with several loops.

use std::collections::BTreeMap;

use fdpush::{Change, Context, ScanCursor};

use super::clients::{ask_at, connect_each};
use crate::common::serve;

const LOOPS: usize = 3;

/// Returns the names and counts of a scan on the loop of `ctx`.
fn scan(ctx: &Context<'_>, of_groups: bool) -> Vec<(String, usize)> {
    let (mut names, mut next) = (Vec::new(), Some(ScanCursor::default()));
    while let Some(cursor) = next {
        let mut add = |(name, count): (&str, usize)| names.push((name.to_owned(), count));
        next = if of_groups {
            let (portion, next) = ctx.scan_groups(cursor, 1);
            portion.for_each(&mut add);
            next
        } else {
            let (portion, next) = ctx.scan_users(cursor, 1);
            portion.for_each(&mut add);
            next
        };
    }
    names
}

#[test]
fn a_loop_lists_its_own_names_and_counts_the_names_of_all_loops() {
    let server = serve(|server| server.loops(LOOPS));
    let clients = connect_each(&server, LOOPS, 3);
    for (index, of_loop) in clients.iter().enumerate() {
        for (client, uid) in of_loop.iter().zip(["everywhere", "everywhere", &format!("only{index}")]) {
            assert_eq!(server.remote.bind(client.fd(), uid).wait(), Ok(Change::Done));
            assert_eq!(server.remote.join(client.fd(), format!("group of {uid}")).wait(), Ok(Change::Done));
        }
    }
    let scans = server.remote.call_each(|ctx| (scan(ctx, false), scan(ctx, true))).wait().expect("the server runs");
    let (mut users, mut groups) = (BTreeMap::new(), BTreeMap::new());
    for (index, (of_users, of_groups)) in scans.into_iter().enumerate() {
        let own = BTreeMap::from([("everywhere".to_owned(), 2), (format!("only{index}"), 1)]);
        assert_eq!(BTreeMap::from_iter(of_users.clone()), own);
        of_users.into_iter().for_each(|(uid, count)| *users.entry(uid).or_insert(0) += count);
        of_groups.into_iter().for_each(|(group, count)| *groups.entry(group).or_insert(0) += count);
    }
    for (uid, count) in &users {
        assert_eq!(*count, if uid == "everywhere" { 2 * LOOPS } else { 1 });
        assert_eq!(groups.get(&format!("group of {uid}")), Some(count));
    }
    assert_eq!((users.len(), groups.len()), (1 + LOOPS, 1 + LOOPS));

    for of_loop in &clients {
        let counts = ask_at(&server, of_loop[0].fd(), |ctx| {
            (ctx.user_count(), ctx.group_count(), ctx.users().count(), ctx.groups().count())
        });
        assert_eq!(counts, (1 + LOOPS, 1 + LOOPS, 2, 2));
    }
    // On the first loop, the uid and the group lose their last connection. They still have connections on the other
    // loops.
    for client in &clients[0][..2] {
        assert_eq!(server.remote.unbind(client.fd()).wait(), Ok(Change::Done));
        assert_eq!(server.remote.leave(client.fd(), "group of everywhere").wait(), Ok(Change::Done));
    }
    let counts = ask_at(&server, clients[0][0].fd(), |ctx| {
        (ctx.user_count(), ctx.group_count(), ctx.users().count(), ctx.groups().count())
    });
    assert_eq!(counts, (1 + LOOPS, 1 + LOOPS, 1, 1));
}
