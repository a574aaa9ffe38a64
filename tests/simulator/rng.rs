//! Generates random numbers from a seed, with SplitMix64 (Steele, Lea and Flood, 2014).

use std::ops::RangeInclusive;

/// A random number generator.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Creates the generator of a seed.
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// Creates an independent generator.
    ///
    /// Each part of a run has its own generator. So a change of one part does not change the random numbers of other
    /// parts.
    pub fn fork(&mut self) -> Rng {
        Rng::new(self.draw())
    }

    /// Returns a random number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, or 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % (end.max(1) as u64)) as usize
    }

    /// Returns a number in an inclusive range.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// Returns `true` with a probability of one in `count`, or never if `count` is 0.
    pub fn one_in(&mut self, count: usize) -> bool {
        count > 0 && self.below(count) == 0
    }

    /// Returns a random element of `from`.
    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }

    /// Returns a number up to `max`. Small numbers are more frequent than large ones.
    pub fn skewed(&mut self, max: usize) -> usize {
        let bits = usize::BITS - max.leading_zeros();
        let width = self.within(0..=bits as usize);
        let mask = 1_usize.checked_shl(width as u32).map_or(usize::MAX, |power| power - 1);
        (self.draw() as usize & mask).min(max)
    }
}
