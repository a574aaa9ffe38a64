//! The fd: a connection's number, as Swoole's users know it. Not the kernel's descriptor.
//!
//! The one idea: `fd = generation << 24 | (slot + 1)`. The slot is the connection's index in the slab and is reused at
//! once; the generation says how often it was. An fd that outlived its connection carries an old generation, so it can
//! never reach whoever has the slot now.

use std::fmt;
use std::num::NonZeroU64;

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 29;

/// A connection's number: 1, 2, 3 … for the first connections of a server, at most 2^53 - 1, so that JavaScript and PHP
/// hold it exactly. No two connections of a server's life share one.
///
/// Once a slot is reused, its next number is larger by 2^24 (16,777,216): `slot + 1` in the low 24 bits, above it how often
/// the slot was reused. Every accepted connection has a number, also one that only asks for a page by HTTP, so the numbers
/// of a server's WebSockets have gaps.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(NonZeroU64);

impl Fd {
    /// The most connections at a time: `slot + 1` fills 24 bits.
    pub const CONNECTIONS_MAX: u32 = (1 << SLOT_BITS) - 1;

    /// The last generation. A slot that has lived it is retired, never reused.
    pub(crate) const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;

    pub(crate) fn new(slot: u32, generation: u32) -> Fd {
        debug_assert!(slot < Fd::CONNECTIONS_MAX && generation <= Fd::GENERATION_MAX);
        let number = u64::from(generation) << SLOT_BITS | (u64::from(slot) + 1);
        Fd(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// The fd that `number` writes, or `None` where no connection can have that number.
    pub fn from_u64(number: u64) -> Option<Fd> {
        let has_slot = number & u64::from(Fd::CONNECTIONS_MAX) != 0;
        let fits = number >> (SLOT_BITS + GENERATION_BITS) == 0;
        NonZeroU64::new(number).filter(|_| has_slot && fits).map(Fd)
    }

    /// The number itself, as it is printed and sent to clients.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// The index in the slab. Reused: only together with the generation does it name a connection.
    pub fn slot(self) -> u32 {
        (self.as_u64() & u64::from(Fd::CONNECTIONS_MAX)) as u32 - 1
    }

    /// How often the slot had been reused when this connection came.
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
    fn first_lives_count_from_one() {
        assert_eq!(Fd::new(0, 0).as_u64(), 1);
        assert_eq!(Fd::new(2, 0).to_string(), "3");
        assert_eq!(Fd::new(0, 1).as_u64(), (1 << 24) + 1);
    }

    #[test]
    fn every_part_comes_back() {
        for slot in [0, 1, 77, Fd::CONNECTIONS_MAX - 1] {
            for generation in [0, 1, 9, Fd::GENERATION_MAX] {
                let fd = Fd::new(slot, generation);
                assert_eq!((fd.slot(), fd.generation()), (slot, generation));
                assert_eq!(Fd::from_u64(fd.as_u64()), Some(fd));
                assert!(fd.as_u64() < 1 << 53, "JavaScript's integers end there");
            }
        }
    }

    #[test]
    fn numbers_no_connection_can_have() {
        for number in [0, 1 << 24, 5 << 24, 1 << 53, u64::MAX] {
            assert_eq!(Fd::from_u64(number), None, "{number}");
        }
    }
}
