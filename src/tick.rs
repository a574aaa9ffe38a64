//! The loop's notion of time, as floors 0 and 1 see it: a number that is handed in, never a clock that is read.

use std::time::Duration;

/// A moment, in milliseconds since the loop started. It never goes back.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// A moment that never comes.
    pub const NEVER: Tick = Tick(u64::MAX);

    /// This moment and `delay` more, rounded up to whole milliseconds, so that nothing is early.
    pub fn after(self, delay: Duration) -> Tick {
        let millis = delay.as_nanos().div_ceil(1_000_000);
        Tick(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero when it was not.
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_rounded_up_and_never_overflows() {
        assert_eq!(Tick(5).after(Duration::from_micros(1)), Tick(6));
        assert_eq!(Tick(5).after(Duration::from_millis(3)), Tick(8));
        assert_eq!(Tick(5).after(Duration::MAX), Tick::NEVER);
        assert_eq!(Tick(5).since(Tick(9)), Duration::ZERO);
    }
}
