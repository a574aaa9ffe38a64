//! The fd: the number of a connection, as in Swoole.
//!
//! An fd is not the kernel's file descriptor.
//!
//! Layout: `fd = generation << 24 | (slot + 1)`. The slot is the connection's index in the slab and is reused at once.
//! The generation counts the reuses of the slot. An fd that outlives its connection carries an old generation, so it
//! never reaches the connection that has the slot now.

use std::fmt;
use std::num::NonZeroU64;

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 29;

/// The number of a connection: 1, 2, 3 … 2^53 - 1.
///
/// JavaScript and PHP represent every fd exactly. A server never gives the same fd to two connections. The low 24 bits
/// are `slot + 1`. The higher bits are the generation: the number of times that the slot was reused. The next fd of a
/// reused slot is larger by 2^24 (16,777,216). Every accepted connection gets an fd, also a connection that sends only
/// plain HTTP requests. So the fds of a server's WebSockets have gaps.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(NonZeroU64);

/// The index of a connection in the slab, from 0.
///
/// Slots are reused: a slot identifies a connection only together with its [generation](Fd::generation).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u32);

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

    /// Creates the fd of a slot and its generation.
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
    /// Slots are reused: a slot identifies a connection only together with its generation.
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
    fn fds_of_unused_slots_count_from_one() {
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
    fn impossible_numbers_are_refused() {
        for number in [0, 1 << 24, 5 << 24, 1 << 53, u64::MAX] {
            assert_eq!(Fd::from_u64(number), None, "{number}");
        }
    }
}
