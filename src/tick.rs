//! Time of the event loop, in milliseconds.
//!
//! Layers 0 and 1 get the time as an argument and never read a clock.

use std::time::Duration;

/// A point in time, in milliseconds since the loop started.
///
/// The time of a loop never decreases.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// A point in time that is never reached.
    pub const NEVER: Tick = Tick(u64::MAX);

    /// Returns this time plus `delay`.
    ///
    /// The delay is rounded up to whole milliseconds, so that no deadline is early. The sum saturates at
    /// [`Tick::NEVER`].
    pub fn after(self, delay: Duration) -> Tick {
        // The code does not use `as_nanos`, because the 128-bit division would take longer than all other steps
        // together.
        let millis = delay.as_secs().saturating_mul(1000);
        let millis = millis.saturating_add(u64::from(delay.subsec_nanos().div_ceil(1_000_000)));
        Tick(self.0.saturating_add(millis))
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later.
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
        assert_eq!(Tick(5).after(Duration::new(1, 1)), Tick(1006));
        assert_eq!(Tick(5).after(Duration::new(1, 999_999_999)), Tick(2005));
        assert_eq!(Tick(5).after(Duration::MAX), Tick::NEVER);
        assert_eq!(Tick(5).since(Tick(9)), Duration::ZERO);
    }
}
