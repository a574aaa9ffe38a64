//! The fd: the number of a connection, as in Swoole.
//!
//! An fd is not the kernel's file descriptor.
//!
//! Layout: `fd = generation << 24 | (slot + 1)`. The slot is the connection's index in the slab and is reused
//! immediately. The generation counts the reuses of the slot. If an fd is used after the end of its connection, its
//! generation is old, so the fd never identifies the connection that has the slot now.
//!
//! With several loops, each loop has its own slab, and [`Numbering`] converts between the slots of fds and of slabs.

use std::fmt;
use std::num::NonZeroU64;

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 29;

/// The number of a connection: 1, 2, 3 … 2^53 - 1.
///
/// The number types of JavaScript and PHP represent every fd exactly. A server never gives the same fd to two
/// connections. The low 24 bits are `slot + 1`. The higher bits are the generation: the number of times that the slot
/// was reused. The next fd of a reused slot is larger by 2^24 (16,777,216). Every accepted connection gets an fd, also
/// a connection that sends only plain HTTP requests. So the fds of a server's WebSockets have gaps.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(NonZeroU64);

/// The index of a connection in the slab, from 0.
///
/// Slots are reused: a slot identifies a connection only together with its [generation](Fd::generation).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u32);

/// Converts between the slots of fds and the slots of one loop's slab.
///
/// With `n` loops, the slot of an fd is `local * n + loop`. `loop` is the number of the loop. `local`, the local slot,
/// is the index in the slab of this loop. So the slot of an fd determines its loop. With one loop, both slots are
/// equal.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Numbering {
    loops: u32,
    index: u32,
}

impl Numbering {
    /// The numbering of a single loop.
    pub const SINGLE: Numbering = Numbering { loops: 1, index: 0 };

    /// Returns the numbering of the loop `index` of `loops` loops.
    pub fn new(index: usize, loops: usize) -> Numbering {
        debug_assert!(index < loops && loops <= LOOPS_MAX);
        Numbering { loops: loops.max(1) as u32, index: index as u32 }
    }

    /// Returns the local slot of an fd, or `None` if the fd belongs to another loop.
    #[inline]
    pub fn local(self, fd: Fd) -> Option<Slot> {
        let slot = fd.slot();
        // With one loop, the local slot is the slot of the fd, so the division is skipped.
        if self.loops == 1 {
            return Some(slot);
        }
        (slot.0 % self.loops == self.index).then_some(Slot(slot.0 / self.loops))
    }

    /// Returns the slot of an fd from its local slot.
    #[inline]
    pub fn global(self, local: Slot) -> Slot {
        Slot(local.0 * self.loops + self.index)
    }

    /// Returns the number of the loop to which an fd belongs. The first loop has the number 0.
    pub fn loop_of(self, fd: Fd) -> usize {
        (fd.slot().0 % self.loops) as usize
    }

    /// Returns the first local slot whose global slot is larger than the slot of `fd`.
    pub fn first_after(self, fd: Fd) -> Slot {
        Slot((fd.slot().0 + self.loops - self.index) / self.loops)
    }

    /// Returns the number of local slots.
    pub fn slots(self) -> u32 {
        (Fd::CONNECTIONS_MAX - self.index).div_ceil(self.loops)
    }
}

/// The maximum number of loops.
pub const LOOPS_MAX: usize = 256;

impl Slot {
    /// Returns the slot as an index into a slice.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Fd {
    /// The largest number of simultaneous connections, because `slot + 1` has 24 bits.
    pub const CONNECTIONS_MAX: u32 = (1 << SLOT_BITS) - 1;

    /// The last generation.
    ///
    /// A slot that reaches this generation is retired and never reused.
    pub(crate) const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;

    /// Creates the fd for a slot and a generation.
    pub(crate) fn new(slot: Slot, generation: u32) -> Fd {
        debug_assert!(slot.0 < Fd::CONNECTIONS_MAX && generation <= Fd::GENERATION_MAX);
        let number = u64::from(generation) << SLOT_BITS | (u64::from(slot.0) + 1);
        Fd(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// Converts a number to an fd.
    ///
    /// Returns `None` if no connection can have that number: its low 24 bits are 0, or it is 2^53 or more.
    pub fn from_u64(number: u64) -> Option<Fd> {
        let has_slot = number & u64::from(Fd::CONNECTIONS_MAX) != 0;
        let fits = number >> (SLOT_BITS + GENERATION_BITS) == 0;
        NonZeroU64::new(number).filter(|_| has_slot && fits).map(Fd)
    }

    /// Returns the fd as a number.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// Returns the connection's index in the slab, from 0.
    ///
    /// Slots are reused: a slot identifies a connection only together with its generation. With several
    /// [loops](crate::Server::loops), the result is the index in the slab of the loop, times the number of loops, plus the
    /// number of the loop. So `slot % loops` is the loop of the connection.
    #[inline]
    pub fn slot(self) -> Slot {
        Slot((self.as_u64() & u64::from(Fd::CONNECTIONS_MAX)) as u32 - 1)
    }

    /// Returns the number of reuses of the slot before this connection.
    pub fn generation(self) -> u32 {
        (self.as_u64() >> SLOT_BITS) as u32
    }
}

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_u64().fmt(f)
    }
}

impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fd({})", self.as_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fds_of_the_slots_count_from_one() {
        assert_eq!(Fd::new(Slot(0), 0).as_u64(), 1);
        assert_eq!(Fd::new(Slot(2), 0).to_string(), "3");
        assert_eq!(Fd::new(Slot(0), 1).as_u64(), (1 << 24) + 1);
    }

    #[test]
    fn slot_and_generation_round_trip() {
        for slot in [0, 1, 77, Fd::CONNECTIONS_MAX - 1].map(Slot) {
            for generation in [0, 1, 9, Fd::GENERATION_MAX] {
                let fd = Fd::new(slot, generation);
                assert_eq!((fd.slot(), fd.generation()), (slot, generation));
                assert_eq!(Fd::from_u64(fd.as_u64()), Some(fd));
                assert!(fd.as_u64() < 1 << 53, "an fd must be below 2^53, so that JavaScript represents it exactly");
            }
        }
    }

    #[test]
    fn local_slots_of_all_loops_cover_the_slots_of_fds() {
        for loops in [1, 2, 3, 5, LOOPS_MAX] {
            for slot in (0..1000).chain(Fd::CONNECTIONS_MAX - 600..Fd::CONNECTIONS_MAX) {
                let fd = Fd::new(Slot(slot), 7);
                let owners = (0..loops).filter_map(|index| Some((index, Numbering::new(index, loops).local(fd)?)));
                let [(index, local)] = owners.collect::<Vec<_>>()[..] else {
                    panic!("exactly one loop must have the slot {slot}")
                };
                let numbering = Numbering::new(index, loops);
                assert_eq!((numbering.global(local), numbering.loop_of(fd)), (fd.slot(), index));
                assert!(local.0 < numbering.slots());
            }
            let slots: u64 = (0..loops).map(|index| u64::from(Numbering::new(index, loops).slots())).sum();
            assert_eq!(slots, u64::from(Fd::CONNECTIONS_MAX));
        }
    }

    #[test]
    fn the_first_slot_after_an_fd_of_any_loop_is_found() {
        for loops in [1, 2, 3, 5] {
            for (index, slot) in (0..loops).flat_map(|index| (0..40).map(move |slot| (index, slot))) {
                let numbering = Numbering::new(index, loops);
                let first = numbering.first_after(Fd::new(Slot(slot), 0));
                let expected = (0..100).map(Slot).find(|local| numbering.global(*local).0 > slot);
                assert_eq!(
                    Some(first),
                    expected,
                    "loop {index} of {loops} must return its first local slot after the slot {slot}"
                );
            }
        }
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for number in [0, 1 << 24, 5 << 24, 1 << 53, u64::MAX] {
            assert_eq!(Fd::from_u64(number), None, "{number}");
        }
    }
}
