//! Tests of places of connections, memberships, new settings, and the common end of all loops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::mailbox::{Loop, Mailboxes};
use super::{explore, on_each};
use crate::event_loop::siblings::admission::Admission;
use crate::tick::Tick;

/// Each loop admits connections, drops places and frees places. The process must never have more than `max`
/// connections.
fn admit_connections(loops: usize, max: usize) {
    let (admission, held) = (Arc::new(Admission::new(loops)), AtomicUsize::new(0));
    let admitted = on_each(loops, |own| {
        let admit = || {
            let place = admission.admit(own, max, Tick(0))?;
            assert!(held.fetch_add(1, Ordering::SeqCst) < max, "more than {max} connections");
            Some(place)
        };
        let (first, second) = (admit(), admit());
        let count = [&first, &second].into_iter().flatten().count();
        if let Some(place) = first {
            let index = place.index();
            place.keep();
            held.fetch_sub(1, Ordering::SeqCst);
            admission.release(index);
        }
        if second.is_some() {
            held.fetch_sub(1, Ordering::SeqCst);
        }
        drop(second);
        count
    });
    assert!(admitted.iter().sum::<usize>() >= max, "{admitted:?}");
    assert!(!admission.is_full(1), "a place was not freed");
    // A loop keeps its connection only if no other loop has fewer connections.
    for own in 0..loops {
        assert_eq!(admission.admit(own, max, Tick(0)).map(|place| place.index()), Some(own));
    }
}

/// Each loop adds and removes memberships. There must never be more than `max` memberships.
fn take_memberships(loops: usize, max: usize) {
    let (mailboxes, held) = (Mailboxes::new(loops), AtomicUsize::new(0));
    on_each(loops, |_| {
        let take = |_: &usize| {
            let is_taken = mailboxes.process.take_membership(max);
            assert!(!is_taken || held.fetch_add(1, Ordering::SeqCst) < max, "more than {max} memberships");
            is_taken
        };
        let taken = (0..2).filter(take).count();
        held.fetch_sub(taken, Ordering::SeqCst);
        mailboxes.process.give_memberships(taken);
    });
    let taken = (0..=max).filter(|_| mailboxes.process.take_membership(max)).count();
    assert_eq!(taken, max, "all memberships were given back");
}

/// Two loops change the settings once each. All loops must apply both changes, also loops that wait for events.
fn change_settings(loops: usize) {
    let mailboxes = Mailboxes::new(loops);
    on_each(loops, |index| {
        let mut own = mailboxes.start(index);
        let before = own.siblings.limits.inbox_max;
        let mut inbox_max = before;
        if index < 2 {
            own.siblings.change_settings(|settings| settings.limits.inbox_max += 1);
        }
        while inbox_max < before + 2 {
            own.wait();
            if let Some(settings) = own.siblings.new_settings() {
                assert!(settings.limits.inbox_max > inbox_max, "the settings must be newer");
                inbox_max = settings.limits.inbox_max;
            }
        }
    });
}

/// Runs one turn of a loop that takes part in a shutdown. Returns whether the loop ends.
fn turn_until_drained(own: &mut Loop<'_>, index: usize, requester: usize) -> bool {
    if own.receive() {
        let waiting = own.mailboxes.ledger.waiting(requester, index);
        assert_eq!(waiting, 0, "posts that loop {requester} sent before the shutdown are lost");
        own.siblings.wants_drain = true;
    }
    own.send();
    if own.siblings.has_shutdown_to_send() {
        own.siblings.has_sent_shutdown = true;
        for sender in &own.mailboxes.senders {
            // A loop that has ended needs no shutdown.
            let _ = sender.send_last(None);
        }
    }
    if own.siblings.wants_drain && !own.siblings.has_drained && own.commands.contains(&None) {
        own.siblings.has_drained = true;
        own.mailboxes.process.record_drained(index);
    }
    own.mailboxes.process.is_over()
}

/// The last loop requests a shutdown while all loops send posts. All loops must end. The other loops must first carry
/// out the posts that the last loop has sent before the shutdown.
fn shut_down(loops: usize) {
    let mailboxes = Mailboxes::new(loops);
    let shutdowns = on_each(loops, |index| {
        let mut own = mailboxes.start(index);
        for round in 0..2 {
            own.siblings.others().for_each(|to| _ = own.forward(to, 1));
            own.siblings.wants_drain |= index == loops - 1 && round == 1;
            if turn_until_drained(&mut own, index, loops - 1) {
                break;
            }
        }
        while !turn_until_drained(&mut own, index, loops - 1) {
            own.wait();
        }
        own.commands.len()
    });
    assert_eq!(shutdowns, vec![1; loops], "each loop gets one shutdown");
    assert!((0..loops).all(|index| mailboxes.process.have_others_drained(index)));
}

#[test]
fn racing_accepts_do_not_exceed_the_maximum_and_free_their_places() {
    (2..=4).for_each(|loops| explore(move || admit_connections(loops, 3)));
}

#[test]
fn racing_joins_do_not_exceed_the_maximum_of_memberships() {
    (2..=4).for_each(|loops| explore(move || take_memberships(loops, 3)));
}

#[test]
fn each_loop_applies_the_last_settings() {
    (2..=3).for_each(|loops| explore(move || change_settings(loops)));
}

#[test]
fn a_shutdown_follows_the_posts_of_its_loop_and_ends_all_loops() {
    (2..=4).for_each(|loops| explore(move || shut_down(loops)));
}
