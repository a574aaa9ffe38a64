//! Clients that take their time: what they are forgiven, and what they may cost.

use super::*;

/// A socket that has said that it is full, with one small message for it.
fn stalled(limits: Limits) -> Rig {
    let mut rig = Rig::open(limits);
    assert_eq!(rig.send("first"), Sent::Queued);
    assert_eq!(rig.write(0), b"");
    assert!(!rig.connection.can_write());
    rig
}

#[test]
fn a_socket_that_has_room_again_is_offered_something_before_it_is_dead() {
    let mut rig = stalled(Limits::default());
    // The process was suspended for a minute: the event and the deadline are of one turn, and timers come before writes.
    rig.env.now = Tick(60_000);
    assert!(rig.connection.handle_writable());
    assert_eq!(rig.tick(60_000), None);
    assert_eq!(rig.write(0), b"", "it has none after all");
    assert_eq!(rig.tick(60_000).as_deref(), Some("closed 1006 (write_timed_out) by Server"));
}
