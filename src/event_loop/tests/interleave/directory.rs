//! Tests of racing claims, releases, joins and leaves in the directory.
//!
//! The values outside the directory are of the standard library. shuttle does not switch threads at these values, so
//! they record what the threads know without a change of the schedules.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{exhaust, explore, on_each};
use crate::directory::{Claim, Directory, Logins, Part};
use crate::fd::{Fd, Slot};

/// Returns the fd of a connection of a loop.
fn fd(loops: usize, index: usize, number: usize) -> Fd {
    Fd::new(Slot((number * loops + index) as u32), 0)
}

fn parts(find: impl FnOnce(&mut Vec<Part>)) -> Vec<(usize, u32)> {
    let mut parts = Vec::new();
    find(&mut parts);
    parts.into_iter().map(|part| (part.index.into(), part.count)).collect()
}

/// Each loop makes one login. Exactly one login must get the uid, and a release must empty the directory.
fn refuse_further_logins(loops: usize) {
    let directory = Directory::new(loops, Logins::RefuseNew);
    let claims = on_each(loops, |index| directory.claim("u", fd(loops, index, 0), index, None));
    let owners: Vec<usize> = (0..loops).filter(|index| claims[*index] == Claim::Granted).collect();
    assert_eq!(owners.len(), 1, "{claims:?}");
    assert!(claims.iter().all(|claim| matches!(claim, Claim::Granted | Claim::Taken)), "{claims:?}");
    let owner = fd(loops, owners[0], 0);
    assert_eq!((directory.owner("u"), directory.connection_count("u")), (Some(owner), 1));
    directory.release("u", owner, owners[0]);
    assert_eq!(directory.counts(), (0, 0));
}

/// Each loop makes logins and disconnects. At no time may two connections have the uid.
fn refuse_while_the_owner_is_connected(loops: usize) {
    let (directory, owners) = (Directory::new(loops, Logins::RefuseNew), AtomicU32::new(0));
    let granted = on_each(loops, |index| {
        let mut granted = 0;
        for number in 0..2 {
            let fd = fd(loops, index, number);
            match directory.claim("u", fd, index, None) {
                Claim::Granted => granted += 1,
                Claim::Taken => continue,
                claim => panic!("{claim:?}"),
            }
            assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0, "two connections have the uid");
            assert_eq!(directory.owner("u"), Some(fd));
            assert_eq!(owners.fetch_sub(1, Ordering::SeqCst), 1);
            directory.release("u", fd, index);
        }
        granted
    });
    assert!(granted.iter().sum::<u32>() > 0, "no login got the uid");
    assert_eq!((directory.owner("u"), directory.counts()), (None, (0, 0)));
}

/// Each login closes the connection that it replaces. After the first login, the uid must always have one owner.
fn replace_the_earlier_login(loops: usize) {
    let directory = Directory::new(loops, Logins::ReplaceOld);
    let claims = on_each(loops, |index| {
        let claim = |number| {
            let fd = fd(loops, index, number);
            let claim = directory.claim("u", fd, index, None);
            // The loop of the replaced connection can release the uid at any later time.
            if let Claim::Replaced(old) = claim {
                directory.release("u", old, old.slot().index() % loops);
            }
            assert!(directory.owner("u").is_some(), "no connection has the uid");
            assert_eq!(directory.connection_count("u"), 1);
            (fd, claim)
        };
        [claim(0), claim(1)]
    });
    let claims = claims.concat();
    let mut connected: BTreeSet<Fd> = claims.iter().map(|(fd, _)| *fd).collect();
    assert_eq!(claims.iter().filter(|(_, claim)| *claim == Claim::Granted).count(), 1, "{claims:?}");
    for (_, claim) in &claims {
        match claim {
            Claim::Replaced(old) => assert!(connected.remove(old), "{old} was replaced twice: {claims:?}"),
            claim => assert_eq!(*claim, Claim::Granted),
        }
    }
    let owner = directory.owner("u").expect("the uid has an owner");
    assert_eq!(Vec::from_iter(connected), [owner], "{claims:?}");
    directory.release("u", owner, owner.slot().index() % loops);
    assert_eq!(directory.counts(), (0, 0));
}

/// Connections end while other logins replace them. At the end, the directory must be empty.
fn replace_a_login_that_ends(loops: usize) {
    let directory = Directory::new(loops, Logins::ReplaceOld);
    let claims = on_each(loops, |index| {
        [0, 1].map(|number| {
            let fd = fd(loops, index, number);
            let claim = directory.claim("u", fd, index, None);
            directory.release("u", fd, index);
            assert_ne!(directory.owner("u"), Some(fd), "a connection that has ended owns the uid");
            claim
        })
    });
    let claims = claims.concat();
    assert!(claims.contains(&Claim::Granted), "{claims:?}");
    let replaced: Vec<&Claim> = claims.iter().filter(|claim| matches!(claim, Claim::Replaced(_))).collect();
    for (at, claim) in replaced.iter().enumerate() {
        assert!(!replaced[..at].contains(claim), "{claim:?} twice");
    }
    assert_eq!(directory.counts(), (0, 0));
}

/// Loops make logins and disconnects of a uid, which must never have more than `max` connections.
fn bound_the_connections(loops: usize, max: u32) {
    let (directory, held) = (Directory::new(loops, Logins::Many), AtomicU32::new(0));
    let granted = on_each(loops, |index| {
        let claim = |number| directory.claim("u", fd(loops, index, number), index, Some(max));
        let hold = |number| match claim(number) {
            Claim::Granted => {
                assert!(held.fetch_add(1, Ordering::SeqCst) < max, "more than {max} connections have the uid");
                true
            }
            claim => {
                assert_eq!(claim, Claim::Full);
                false
            }
        };
        let release = |number| {
            held.fetch_sub(1, Ordering::SeqCst);
            directory.release("u", fd(loops, index, number), index);
        };
        let holds = [hold(0), hold(1)];
        let count = holds.iter().filter(|holds| **holds).count();
        let found = parts(|parts| directory.find_loops_of_uid("u", parts));
        let of_loop = found.iter().find(|(loop_index, _)| *loop_index == index).map_or(0, |(_, count)| *count);
        assert_eq!(of_loop as usize, count, "{found:?}");
        assert!(found.iter().map(|(_, count)| count).sum::<u32>() <= max, "{found:?}");
        (0..2).filter(|number| holds[*number]).for_each(release);
        count
    });
    assert!(granted.iter().sum::<usize>() >= max as usize, "{granted:?}");
    assert_eq!((directory.connection_count("u"), directory.counts()), (0, (0, 0)));
}

/// Loops make joins and leaves of one group. Each loop must always find its own members in the directory.
fn count_the_members(loops: usize) {
    let directory = Directory::new(loops, Logins::Many);
    on_each(loops, |index| {
        let check = |members: u32| {
            let found = parts(|parts| directory.find_loops_of_group("g", parts));
            assert!(found.iter().all(|(_, count)| *count > 0), "{found:?}");
            let of_loop: Vec<u32> =
                found.iter().filter(|(loop_index, _)| *loop_index == index).map(|(_, count)| *count).collect();
            assert_eq!(of_loop, Vec::from_iter((members > 0).then_some(members)), "{found:?}");
            assert!(directory.member_count("g") >= members as usize);
        };
        directory.join("g", index);
        check(1);
        directory.leave("g", index, 1);
        check(0);
        directory.join("g", index);
        directory.join("g", index);
        check(2);
        directory.leave("g", index, 2);
        check(0);
    });
    assert_eq!((directory.member_count("g"), directory.counts()), (0, (0, 0)));
}

/// One loop ends while other loops make logins and joins. The other loops must keep their connections.
fn end_a_loop(loops: usize) {
    let directory = Directory::new(loops, Logins::Many);
    on_each(loops, |index| {
        for number in 0..2 {
            assert_eq!(directory.claim("u", fd(loops, index, number), index, None), Claim::Granted);
            directory.join("g", index);
        }
        if index == 0 {
            directory.remove_loop(0);
        }
    });
    for mut found in [
        parts(|parts| directory.find_loops_of_uid("u", parts)),
        parts(|parts| directory.find_loops_of_group("g", parts)),
    ] {
        found.sort_unstable();
        assert_eq!(found, Vec::from_iter((1..loops).map(|index| (index, 2))));
    }
    (1..loops).for_each(|index| directory.remove_loop(index));
    assert_eq!(directory.counts(), (0, 0));
}

#[test]
fn all_schedules_of_two_logins_give_the_uid_to_one() {
    let schedules = exhaust(|| refuse_further_logins(2));
    assert!(schedules > 1, "{schedules}");
}

#[test]
fn all_schedules_of_two_replacing_logins_leave_one_owner() {
    let schedules = exhaust(|| {
        let directory = Directory::new(2, Logins::ReplaceOld);
        let claims = on_each(2, |index| directory.claim("u", fd(2, index, 0), index, None));
        let last = usize::from(claims[0] == Claim::Granted);
        assert_eq!(claims[1 - last], Claim::Granted, "{claims:?}");
        assert_eq!(claims[last], Claim::Replaced(fd(2, 1 - last, 0)), "{claims:?}");
        assert_eq!(directory.owner("u"), Some(fd(2, last, 0)));
    });
    assert!(schedules > 1, "{schedules}");
}

#[test]
fn racing_logins_have_exactly_one_owner_if_further_logins_are_refused() {
    (2..=4).for_each(|loops| explore(move || refuse_further_logins(loops)));
    (2..=4).for_each(|loops| explore(move || refuse_while_the_owner_is_connected(loops)));
}

#[test]
fn racing_logins_have_exactly_one_owner_if_the_last_login_counts() {
    (2..=4).for_each(|loops| explore(move || replace_the_earlier_login(loops)));
    (2..=4).for_each(|loops| explore(move || replace_a_login_that_ends(loops)));
}

#[test]
fn racing_logins_do_not_exceed_the_maximum_of_a_uid() {
    (2..=4).for_each(|loops| explore(move || bound_the_connections(loops, 2)));
    explore(|| bound_the_connections(3, 1));
}

#[test]
fn racing_joins_and_leaves_keep_the_members_of_each_loop() {
    (2..=4).for_each(|loops| explore(move || count_the_members(loops)));
}

#[test]
fn a_loop_that_ends_removes_only_its_own_connections() {
    (2..=4).for_each(|loops| explore(move || end_a_loop(loops)));
}
