//! The heartbeat of a connection: pings, and the detection of dead clients.

use std::time::Duration;

use crate::fd::Fd;
use crate::limits::Heartbeat;
use crate::tick::Tick;

/// The state of a connection's heartbeat.
#[derive(Clone, Debug, Default)]
pub struct HeartbeatState {
    /// The number of consecutive pings without an answer.
    missed: u16,
    /// Whether a ping was sent, and no byte of the client was received after it.
    is_unanswered: bool,
    /// Whether the socket has accepted output since the last heartbeat check.
    has_written: bool,
}

/// The result of a heartbeat check.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum HeartbeatAction {
    /// Do nothing. The next check is at this tick.
    Wait(Tick),
    /// Send a ping. The next check is at this tick.
    Ping(Tick),
    /// The client counts as dead, so the caller ends the connection.
    Dead,
}

impl HeartbeatState {
    /// Returns the time of the first heartbeat check.
    ///
    /// If the heartbeat sends pings, the first ping is in the second half of the first period, at a time that depends
    /// on the fd. So clients that connected at the same time are not pinged at the same time.
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

    /// Reports that bytes of the client were received.
    #[inline]
    pub fn handle_bytes(&mut self) {
        self.is_unanswered = false;
    }

    /// Reports that the socket accepted output.
    #[inline]
    pub fn handle_written(&mut self) {
        self.has_written = true;
    }

    /// Returns whether the client missed the last ping.
    pub fn has_missed(&self) -> bool {
        self.missed > 0
    }

    /// Performs a heartbeat check that is due.
    ///
    /// `last_seen` is the time at which the last byte of the client was received. `is_backlogged` means that output
    /// waits because the socket was full, and may delay the ping. While the socket accepts some of this output in each
    /// period, the client is not dead.
    pub fn check(&mut self, heartbeat: &Heartbeat, last_seen: Tick, is_backlogged: bool, now: Tick) -> HeartbeatAction {
        match *heartbeat {
            Heartbeat::Off => HeartbeatAction::Wait(Tick::NEVER),
            Heartbeat::Client { idle_max } => {
                let dead_at = last_seen.after(idle_max);
                if now >= dead_at { HeartbeatAction::Dead } else { HeartbeatAction::Wait(dead_at) }
            }
            Heartbeat::Ping { every, missed_max } => {
                if self.is_unanswered && is_backlogged && self.has_written {
                    self.has_written = false;
                    return HeartbeatAction::Wait(now.after(every));
                }
                self.missed = if self.is_unanswered { self.missed.saturating_add(1) } else { 0 };
                if u32::from(self.missed) >= missed_max.min(u16::MAX.into()) {
                    HeartbeatAction::Dead
                } else {
                    self.ping(every, now)
                }
            }
            Heartbeat::Push { every } => self.ping(every, now),
        }
    }

    /// Returns whether a heartbeat check would find the client dead.
    pub fn is_dead(&self, heartbeat: &Heartbeat, last_seen: Tick, is_backlogged: bool, now: Tick) -> bool {
        self.clone().check(heartbeat, last_seen, is_backlogged, now) == HeartbeatAction::Dead
    }

    fn ping(&mut self, every: Duration, now: Tick) -> HeartbeatAction {
        (self.is_unanswered, self.has_written) = (true, false);
        HeartbeatAction::Ping(now.after(every))
    }
}

/// Maps an fd to a number between 0 and 1 (Fibonacci hashing).
///
/// The numbers of neighboring fds are far apart.
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
    fn a_silent_client_is_dead() {
        let heartbeat = Heartbeat::Client { idle_max: EVERY };
        let mut heartbeat_state = HeartbeatState::default();
        assert_eq!(HeartbeatState::first_check(&heartbeat, Fd::new(Slot(0), 0), Tick(5)), Tick(1005));
        assert_eq!(heartbeat_state.check(&heartbeat, Tick(700), false, Tick(1005)), HeartbeatAction::Wait(Tick(1700)));
        assert_eq!(heartbeat_state.check(&heartbeat, Tick(700), false, Tick(1699)), HeartbeatAction::Wait(Tick(1700)));
        assert_eq!(heartbeat_state.check(&heartbeat, Tick(700), false, Tick(1700)), HeartbeatAction::Dead);
    }

    #[test]
    fn received_bytes_reset_the_count_of_missed_pings() {
        let heartbeat = Heartbeat::Ping { every: EVERY, missed_max: 2 };
        let mut heartbeat_state = HeartbeatState::default();
        assert_eq!(
            heartbeat_state.check(&heartbeat, Tick(0), false, Tick(1000)),
            HeartbeatAction::Ping(Tick(2000)),
            "the first check must send a ping"
        );
        assert_eq!(
            heartbeat_state.check(&heartbeat, Tick(0), false, Tick(2000)),
            HeartbeatAction::Ping(Tick(3000)),
            "one missed ping must not end the connection"
        );
        heartbeat_state.handle_bytes();
        assert_eq!(
            heartbeat_state.check(&heartbeat, Tick(2500), false, Tick(3000)),
            HeartbeatAction::Ping(Tick(4000)),
            "received bytes must reset the count of missed pings"
        );
        assert_eq!(heartbeat_state.check(&heartbeat, Tick(2500), false, Tick(4000)), HeartbeatAction::Ping(Tick(5000)));
        assert_eq!(heartbeat_state.check(&heartbeat, Tick(2500), false, Tick(5000)), HeartbeatAction::Dead);
    }

    #[test]
    fn a_ping_is_not_missed_while_the_socket_accepts_output_before_it() {
        let heartbeat = Heartbeat::Ping { every: EVERY, missed_max: 1 };
        let mut heartbeat_state = HeartbeatState::default();
        assert_eq!(heartbeat_state.check(&heartbeat, Tick(0), true, Tick(1000)), HeartbeatAction::Ping(Tick(2000)));
        for period in 2..100 {
            heartbeat_state.handle_written();
            let now = Tick(period * 1000);
            assert_eq!(
                heartbeat_state.check(&heartbeat, Tick(0), true, now),
                HeartbeatAction::Wait(Tick(now.0 + 1000))
            );
        }
        assert_eq!(
            heartbeat_state.check(&heartbeat, Tick(0), true, Tick(100_000)),
            HeartbeatAction::Dead,
            "a client that accepts no output after the ping must be dead"
        );
    }

    #[test]
    fn a_client_need_not_answer_the_pings_of_heartbeat_push() {
        let heartbeat = Heartbeat::Push { every: EVERY };
        let mut heartbeat_state = HeartbeatState::default();
        for period in 1..100 {
            let now = Tick(period * 1000);
            assert_eq!(
                heartbeat_state.check(&heartbeat, Tick(0), false, now),
                HeartbeatAction::Ping(Tick(now.0 + 1000))
            );
        }
    }

    #[test]
    fn first_pings_are_spread_over_time() {
        let heartbeat = Heartbeat::Ping { every: Duration::from_millis(10_000), missed_max: 2 };
        let mut per_second = [0; 10];
        for slot in 0..10_000 {
            let first = HeartbeatState::first_check(&heartbeat, Fd::new(Slot(slot), 0), Tick(0));
            assert!((5_000..=10_000).contains(&first.0), "{first:?}");
            per_second[(first.0 / 1000).min(9) as usize] += 1;
        }
        for (second, count) in per_second.iter().enumerate().skip(5) {
            assert!((1_800..2_200).contains(count), "second {second} must have about 2,000 first pings, not {count}");
        }
    }
}
