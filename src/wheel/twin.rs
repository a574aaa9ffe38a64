//! The wheel's naive twin, and the interpreter that runs both side by side for proptest and the fuzzer.

use super::{Owner, Wheel};
use crate::tick::Tick;

/// All that a wheel is: a list of deadlines, searched from end to end.
struct Twin {
    now: Tick,
    /// In the order they were armed.
    armed: Vec<Armed>,
}

struct Armed {
    owner: Owner,
    deadline: Tick,
    expired: bool,
}

/// How many operations go between two looks at the whole: most of a run's time would be spent looking. Nothing hides in
/// between, for the start of a list of operations is a list as well.
const LOOK_EVERY: usize = 8;

/// Runs the operations that the bytes spell on a wheel and on its twin; panics where they differ.
pub fn fuzz_wheel(data: &[u8]) {
    let mut wheel = Wheel::new(Tick(0));
    let mut twin = Twin { now: Tick(0), armed: Vec::new() };
    let mut bytes = data.iter().copied();
    let mut steps = 0_usize;
    while let Some(operation) = bytes.next() {
        step(&mut wheel, &mut twin, operation, &mut bytes);
        steps += 1;
        if steps.is_multiple_of(LOOK_EVERY) {
            compare(&wheel, &twin);
        }
    }
    compare(&wheel, &twin);
}

fn step(wheel: &mut Wheel, twin: &mut Twin, operation: u8, bytes: &mut impl Iterator<Item = u8>) {
    match operation % 8 {
        0 | 1 => {
            let (owner, at) = (owner(bytes), Tick(twin.now.0.saturating_add(distance(bytes))));
            wheel.arm(owner, at);
            twin.arm(owner, at);
        }
        2 => {
            let (owner, at) = (owner(bytes), Tick(twin.now.0.saturating_sub(distance(bytes))));
            wheel.arm(owner, at);
            twin.arm(owner, at);
        }
        3 => {
            let (owner, at) = (owner(bytes), Tick(twin.now.0.saturating_add(distance(bytes))));
            wheel.arm_no_later(owner, at);
            if twin.deadline(owner).is_none_or(|armed| armed > at) {
                twin.arm(owner, at);
            }
        }
        4 => {
            let owner = owner(bytes);
            wheel.cancel(owner);
            twin.cancel(owner);
        }
        5 => {
            let now = Tick(twin.now.0.saturating_add(distance(bytes)));
            wheel.advance(now);
            twin.advance(now);
        }
        6 => {
            // The way of the loop: to the next tick of interest. Or back in time.
            let now = wheel.next().unwrap_or(Tick(twin.now.0.saturating_sub(1)));
            wheel.advance(now);
            twin.advance(now);
        }
        _ => {
            for _ in 0..bytes.next().unwrap_or(u8::MAX) % 16 {
                assert_eq!(wheel.pop_expired(), twin.pop_expired(), "popped");
            }
        }
    }
}

fn compare(wheel: &Wheel, twin: &Twin) {
    wheel.check_invariants();
    assert_eq!(wheel.len(), twin.armed.len(), "len");
    for owner in (0..OWNERS).map(owner_of) {
        assert_eq!(wheel.deadline(owner), twin.deadline(owner), "deadline of {owner:?}");
    }
    match (wheel.next(), twin.armed.iter().map(|armed| armed.deadline).min()) {
        (None, None) => {}
        (Some(next), Some(earliest)) => {
            assert!(next >= twin.now, "next is in the past");
            assert!(next <= earliest.max(twin.now), "next sleeps through a deadline");
        }
        (next, earliest) => panic!("next is {next:?}, the earliest deadline {earliest:?}"),
    }
}

impl Twin {
    fn arm(&mut self, owner: Owner, at: Tick) {
        self.cancel(owner);
        self.armed.push(Armed { owner, deadline: at.max(self.now), expired: false });
    }

    fn cancel(&mut self, owner: Owner) {
        self.armed.retain(|armed| armed.owner != owner);
    }

    fn deadline(&self, owner: Owner) -> Option<Tick> {
        self.armed.iter().find(|armed| armed.owner == owner).map(|armed| armed.deadline)
    }

    fn advance(&mut self, now: Tick) {
        if now >= self.now {
            self.now = now;
            for armed in &mut self.armed {
                armed.expired |= armed.deadline <= now;
            }
        }
    }

    fn pop_expired(&mut self) -> Option<Owner> {
        let expired = self.armed.iter().filter(|armed| armed.expired);
        let owner = expired.min_by_key(|armed| armed.deadline)?.owner; // the first armed, of equals
        self.cancel(owner);
        Some(owner)
    }
}

/// A small universe, so that operations meet on the same owner; its indices are spread, so that arenas grow in leaps.
const OWNERS: u8 = 16;

fn owner_of(byte: u8) -> Owner {
    let index = u32::from(byte % OWNERS / 2) * 5;
    if byte & 1 == 0 { Owner::Connection(index) } else { Owner::Timer(index) }
}

fn owner(bytes: &mut impl Iterator<Item = u8>) -> Owner {
    owner_of(bytes.next().unwrap_or(0))
}

/// Every order of magnitude is as likely as any other: from the same tick to some thousand years.
fn distance(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let magnitude = bytes.next().unwrap_or(0) % 40;
    u64::from(bytes.next().unwrap_or(0)) << magnitude
}
