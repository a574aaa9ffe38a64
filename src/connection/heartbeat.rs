//! Telling a live client from a dead one: the three ways of [`Heartbeat`], as a small state machine.

use std::time::Duration;

use crate::fd::Fd;
use crate::limits::Heartbeat;
use crate::tick::Tick;

/// What a connection's heartbeat remembers.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// Pings in a row that nothing answered.
    missed: u16,
    /// Whether a ping is out, and nothing came since.
    is_unheard: bool,
    /// Whether the socket took anything since the last check.
    is_taking: bool,
}

/// What to do now that a check is due.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Beat {
    /// Nothing; look again at this tick.
    Wait(Tick),
    /// Send a ping, and look again at this tick.
    Ping(Tick),
    /// The client is dead.
    Dead,
}

impl Pulse {
    /// When the first check is due. Pings spread over the second half of their period, each fd at its own place, so
    /// that clients that came in a storm are not pinged in one.
    pub fn first_check(heartbeat: &Heartbeat, fd: Fd, now: Tick) -> Tick {
        match *heartbeat {
            Heartbeat::Off => Tick::NEVER,
            Heartbeat::Client { idle_max } => now.after(idle_max),
            Heartbeat::Ping { every, .. } | Heartbeat::Push { every } => {
                let early = every.mul_f64(spread(fd) / 2.0);
                now.after(every.saturating_sub(early))
            }
        }
    }

    /// Bytes came.
    #[inline]
    pub fn handle_bytes(&mut self) {
        self.is_unheard = false;
    }

    /// The socket took something.
    #[inline]
    pub fn handle_written(&mut self) {
        self.is_taking = true;
    }

    /// Whether the last ping was missed.
    pub fn has_missed(&self) -> bool {
        self.missed > 0
    }

    /// A check is due. `last_seen` is when the client's last byte came. `is_behind`: output has waited for the socket,
    /// perhaps with the ping in it. While that goes on and makes progress, a client that is slow to read is not dead.
    pub fn check(&mut self, heartbeat: &Heartbeat, last_seen: Tick, is_behind: bool, now: Tick) -> Beat {
        match *heartbeat {
            Heartbeat::Off => Beat::Wait(Tick::NEVER),
            Heartbeat::Client { idle_max } => {
                let dead_at = last_seen.after(idle_max);
                if now >= dead_at { Beat::Dead } else { Beat::Wait(dead_at) }
            }
            Heartbeat::Ping { every, missed_max } => {
                if self.is_unheard && is_behind && self.is_taking {
                    self.is_taking = false;
                    return Beat::Wait(now.after(every));
                }
                self.missed = if self.is_unheard { self.missed.saturating_add(1) } else { 0 };
                if u32::from(self.missed) >= missed_max.min(u16::MAX.into()) {
                    Beat::Dead
                } else {
                    self.ask(every, now)
                }
            }
            Heartbeat::Push { every } => self.ask(every, now),
        }
    }

    /// Whether a check would say that the client is dead.
    pub fn is_doomed(&self, heartbeat: &Heartbeat, last_seen: Tick, is_behind: bool, now: Tick) -> bool {
        self.clone().check(heartbeat, last_seen, is_behind, now) == Beat::Dead
    }

    fn ask(&mut self, every: Duration, now: Tick) -> Beat {
        (self.is_unheard, self.is_taking) = (true, false);
        Beat::Ping(now.after(every))
    }
}

/// A number from 0 to 1 that is the fd's own: near ones are far apart (Fibonacci hashing).
fn spread(fd: Fd) -> f64 {
    let hash = (fd.as_u64() as u32).wrapping_mul(0x9e37_79b9);
    f64::from(hash) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    const EVERY: Duration = Duration::from_millis(1000);

    #[test]
    fn a_client_that_reports_lives_and_a_silent_one_dies() {
        let heartbeat = Heartbeat::Client { idle_max: EVERY };
        let mut pulse = Pulse::default();
        assert_eq!(Pulse::first_check(&heartbeat, Fd::new(Slot(0), 0), Tick(5)), Tick(1005));
        assert_eq!(pulse.check(&heartbeat, Tick(700), false, Tick(1005)), Beat::Wait(Tick(1700)));
        assert_eq!(pulse.check(&heartbeat, Tick(700), false, Tick(1699)), Beat::Wait(Tick(1700)));
        assert_eq!(pulse.check(&heartbeat, Tick(700), false, Tick(1700)), Beat::Dead);
    }

    #[test]
    fn unanswered_pings_are_counted_in_a_row() {
        let heartbeat = Heartbeat::Ping { every: EVERY, missed_max: 2 };
        let mut pulse = Pulse::default();
        assert_eq!(pulse.check(&heartbeat, Tick(0), false, Tick(1000)), Beat::Ping(Tick(2000)), "the first asks");
        assert_eq!(pulse.check(&heartbeat, Tick(0), false, Tick(2000)), Beat::Ping(Tick(3000)), "one missed");
        pulse.handle_bytes();
        assert_eq!(
            pulse.check(&heartbeat, Tick(2500), false, Tick(3000)),
            Beat::Ping(Tick(4000)),
            "heard: from the start"
        );
        assert_eq!(pulse.check(&heartbeat, Tick(2500), false, Tick(4000)), Beat::Ping(Tick(5000)));
        assert_eq!(pulse.check(&heartbeat, Tick(2500), false, Tick(5000)), Beat::Dead);
    }

    #[test]
    fn who_takes_what_the_ping_lies_behind_is_waited_for() {
        let heartbeat = Heartbeat::Ping { every: EVERY, missed_max: 1 };
        let mut pulse = Pulse::default();
        assert_eq!(pulse.check(&heartbeat, Tick(0), true, Tick(1000)), Beat::Ping(Tick(2000)));
        for period in 2..100 {
            pulse.handle_written();
            let now = Tick(period * 1000);
            assert_eq!(pulse.check(&heartbeat, Tick(0), true, now), Beat::Wait(Tick(now.0 + 1000)));
        }
        assert_eq!(pulse.check(&heartbeat, Tick(0), true, Tick(100_000)), Beat::Dead, "it took nothing any more");
    }

    #[test]
    fn a_proud_client_is_forgiven() {
        let heartbeat = Heartbeat::Push { every: EVERY };
        let mut pulse = Pulse::default();
        for period in 1..100 {
            let now = Tick(period * 1000);
            assert_eq!(pulse.check(&heartbeat, Tick(0), false, now), Beat::Ping(Tick(now.0 + 1000)));
        }
    }

    #[test]
    fn a_storm_of_clients_is_not_pinged_in_a_storm() {
        let heartbeat = Heartbeat::Ping { every: Duration::from_millis(10_000), missed_max: 2 };
        let mut per_second = [0; 10];
        for slot in 0..10_000 {
            let first = Pulse::first_check(&heartbeat, Fd::new(Slot(slot), 0), Tick(0));
            assert!((5_000..=10_000).contains(&first.0), "{first:?}");
            per_second[(first.0 / 1000).min(9) as usize] += 1;
        }
        for (second, count) in per_second.iter().enumerate().skip(5) {
            assert!((1_800..2_200).contains(count), "{count} in second {second}");
        }
    }
}
