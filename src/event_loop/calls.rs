//! The time that handlers take.
//!
//! A clock read around each message would be too dear. So time is taken in sections: from one look at the coarse clock
//! to the next, once for each socket that is read and around each call that is no message. A section that took long belongs
//! to the call that it ends with.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event_loop::clock;
use crate::fd::Fd;
use crate::log_throttle::LogThrottle;
use crate::tick::Tick;

/// The longest run of a handler without a warning.
const BLOCKED_MAX: coarsetime::Duration = coarsetime::Duration::from_millis(100);

/// The time that handlers take.
#[derive(Debug)]
pub struct Calls {
    /// When the running section began, by the coarse clock.
    began: coarsetime::Instant,
    /// The connection whose input is handled.
    pub reading: Option<Reading>,
    /// The throttle of the warnings, by handler.
    throttles: BTreeMap<&'static str, LogThrottle>,
}

/// A connection whose input is handled.
#[derive(Copy, Clone, Debug)]
pub struct Reading {
    pub fd: Fd,
    /// It was no WebSocket when that began.
    pub was_http: bool,
}

impl Calls {
    /// No call so far.
    pub fn new() -> Calls {
        Calls { began: clock::coarse(), reading: None, throttles: BTreeMap::new() }
    }

    /// Begins a section.
    pub fn begin(&mut self) {
        self.began = clock::coarse();
    }

    /// Ends a section and begins the next. `Some`: it took long.
    #[inline]
    pub fn lap(&mut self) -> Option<Duration> {
        let now = clock::coarse();
        let took = now.duration_since(self.began);
        self.began = now;
        (took > BLOCKED_MAX).then(|| took.into())
    }

    /// Whether to warn of a handler now: how often it blocked since the last warning.
    pub fn count(&mut self, name: &'static str, now: Tick) -> Option<u64> {
        self.throttles.entry(name).or_default().count(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handler_has_warnings_of_its_own() {
        let mut calls = Calls::new();
        let mut count = |name, now| calls.count(name, Tick(now));
        assert_eq!([count("on_open", 0), count("on_open", 1), count("on_close", 2)], [Some(1), None, Some(1)]);
        assert_eq!(count("on_open", 1000), Some(2));
    }
}
