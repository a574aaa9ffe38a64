//! A simple, slow model of the wheel, for comparison.
//!
//! The property test and the fuzz target use the same function, which runs operations on the wheel and on the model.

use super::{Owner, Wheel};
use crate::fd::Slot;
use crate::tick::Tick;

/// The model: a list of deadlines, which is searched linearly.
struct NaiveWheel {
    now: Tick,
    /// The deadlines, in the order in which they were armed.
    armed: Vec<Armed>,
}

struct Armed {
    owner: Owner,
    deadline: Tick,
    expired: bool,
}

/// The number of operations between two complete comparisons of the wheel and the model.
///
/// Comparisons take most of the run time. A difference that exists only between two comparisons is also found, because
/// every prefix of a list of operations is an input, too.
const COMPARE_EVERY: usize = 8;

/// Runs encoded operations on a wheel and on the model.
///
/// Panics if the wheel and the model differ.
pub fn fuzz_wheel(data: &[u8]) {
    let mut wheel = Wheel::new(Tick(0));
    let mut model = NaiveWheel { now: Tick(0), armed: Vec::new() };
    let mut bytes = data.iter().copied();
    let mut steps = 0_usize;
    while let Some(operation) = bytes.next() {
        step(&mut wheel, &mut model, operation, &mut bytes);
        steps += 1;
        if steps.is_multiple_of(COMPARE_EVERY) {
            compare(&wheel, &model);
        }
    }
    compare(&wheel, &model);
}

fn step(wheel: &mut Wheel, model: &mut NaiveWheel, operation: u8, bytes: &mut impl Iterator<Item = u8>) {
    match operation % 8 {
        0 | 1 => {
            let (owner, at) = (owner(bytes), Tick(model.now.0.saturating_add(distance(bytes))));
            wheel.arm(owner, at);
            model.arm(owner, at);
        }
        2 => {
            let (owner, at) = (owner(bytes), Tick(model.now.0.saturating_sub(distance(bytes))));
            wheel.arm(owner, at);
            model.arm(owner, at);
        }
        3 => {
            let (owner, at) = (owner(bytes), Tick(model.now.0.saturating_add(distance(bytes))));
            wheel.arm_no_later(owner, at);
            if model.deadline(owner).is_none_or(|armed| armed > at) {
                model.arm(owner, at);
            }
        }
        4 => {
            let owner = owner(bytes);
            wheel.cancel(owner);
            model.cancel(owner);
        }
        5 => {
            let now = Tick(model.now.0.saturating_add(distance(bytes)));
            wheel.advance(now);
            model.advance(now);
        }
        6 => {
            // Advances to the time that `next` returns, as the loop does. If no owner has a deadline, the call has an
            // earlier time than the present, and the wheel and the model must ignore it.
            let now = wheel.next().unwrap_or(Tick(model.now.0.saturating_sub(1)));
            wheel.advance(now);
            model.advance(now);
        }
        _ => {
            for _ in 0..bytes.next().unwrap_or(u8::MAX) % 16 {
                assert_eq!(wheel.pop_expired(), model.pop_expired(), "the wheel and the model must pop the same owner");
            }
        }
    }
}

fn compare(wheel: &Wheel, model: &NaiveWheel) {
    wheel.check_invariants();
    assert_eq!(wheel.len(), model.armed.len(), "the wheel and the model must have the same number of armed owners");
    for owner in (0..OWNERS).map(owner_of) {
        assert_eq!(
            wheel.deadline(owner),
            model.deadline(owner),
            "{owner:?} must have the same deadline in the wheel and in the model"
        );
    }
    match (wheel.next(), model.armed.iter().map(|armed| armed.deadline).min()) {
        (None, None) => {}
        (Some(next), Some(earliest)) => {
            assert!(next >= model.now, "`next` must not return a time in the past");
            assert!(next <= earliest.max(model.now), "`next` must not return a time after the earliest deadline");
        }
        (next, earliest) => {
            panic!("`next` must return a time if and only if an owner has a deadline: {next:?}, {earliest:?}")
        }
    }
}

impl NaiveWheel {
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
        let owner = expired.min_by_key(|armed| armed.deadline)?.owner; // the first armed of equal deadlines
        self.cancel(owner);
        Some(owner)
    }
}

/// The number of owners.
///
/// The number is small, so that several operations use the same owner. The indices of the owners have gaps, so that an
/// arena grows by more than one node in one step.
const OWNERS: u8 = 16;

fn owner_of(byte: u8) -> Owner {
    let index = u32::from(byte % OWNERS / 2) * 5;
    if byte & 1 == 0 { Owner::Connection(Slot(index)) } else { Owner::Timer(index) }
}

fn owner(bytes: &mut impl Iterator<Item = u8>) -> Owner {
    owner_of(bytes.next().unwrap_or(0))
}

/// Decodes a distance in ticks, from 0 to some thousand years.
///
/// All orders of magnitude are equally likely.
fn distance(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let magnitude = bytes.next().unwrap_or(0) % 40;
    u64::from(bytes.next().unwrap_or(0)) << magnitude
}
