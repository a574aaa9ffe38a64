//! Whether the notices of groups wait for commands that run on all loops.

use std::time::{Duration, Instant};

/// The maximum time for which the notices of groups wait for commands that run on all loops.
const HELD_MAX: Duration = Duration::from_secs(1);

/// The state that decides whether the notices of groups wait for commands that run on all loops.
///
/// While at least one command is in progress, the notices wait for at most [`HELD_MAX`]. Then the server sends all
/// notices, and only later notices wait again.
#[derive(Default, Debug)]
pub enum NoticeHold {
    /// No notices wait.
    #[default]
    Open,
    /// The notices wait since this time.
    Held(Instant),
    /// The notices have waited for [`HELD_MAX`]. The server sends them, although a command is in progress.
    Overdue,
}

impl NoticeHold {
    /// Returns whether the notices wait at the time `now`. `has_command` states whether a command is in progress.
    pub fn holds(&mut self, has_command: bool, now: Instant) -> bool {
        *self = match *self {
            _ if !has_command => NoticeHold::Open,
            NoticeHold::Open => NoticeHold::Held(now),
            NoticeHold::Held(since) if now >= since + HELD_MAX => NoticeHold::Overdue,
            NoticeHold::Held(since) => NoticeHold::Held(since),
            NoticeHold::Overdue => NoticeHold::Overdue,
        };
        matches!(self, NoticeHold::Held(_))
    }

    /// Records that all notices were sent.
    pub fn handle_all_sent(&mut self) {
        if matches!(self, NoticeHold::Overdue) {
            *self = NoticeHold::Open;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::runtime::clock;

    #[test]
    fn later_notices_wait_only_after_all_overdue_notices_were_sent() {
        let (mut hold, start) = (NoticeHold::default(), clock::now());
        assert!(!hold.holds(false, start));
        assert!(hold.holds(true, start) && hold.holds(true, start + HELD_MAX / 2));
        let late = start + HELD_MAX;
        assert!(!hold.holds(true, late));
        assert!(!hold.holds(true, late), "the next turn sends further notices");
        hold.handle_all_sent();
        assert!(hold.holds(true, late));
        assert!(!hold.holds(false, late));
        hold.handle_all_sent();
        assert!(hold.holds(true, late + HELD_MAX), "a new hold begins");
    }
}
