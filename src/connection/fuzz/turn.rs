//! The flush of output and the change of the time in the fuzz target `connection`.

use std::time::Duration;

use crate::connection::FlushResult;
use crate::connection::fuzz::reader::Due;
use crate::connection::fuzz::{Phase, Rig, Side, insert};
use crate::tick::Tick;

impl Rig {
    /// Ends a turn, and starts the next turn after `later` ticks or at the next timeout.
    pub(super) fn pass_time(&mut self, later: Option<u64>) {
        self.flush();
        let now = self.table.env().now;
        let next = match later {
            Some(millis) => now.after(Duration::from_millis(millis)),
            None => {
                let due = [0, 1].map(|at| self.table.poll_timeout(self.slot(at))).into_iter().min();
                due.filter(|due| *due < Tick::NEVER).unwrap_or(now).max(now)
            }
        };
        self.table.env_mut().now = next;
        for at in [0, 1] {
            self.tick(at);
        }
    }

    pub(super) fn flush(&mut self) {
        self.table.begin_flush();
        while let Some((slot, flushed)) = self.table.poll_flush() {
            self.replay();
            let at = usize::from(self.slot(1) == slot);
            match flushed {
                FlushResult::Stays { .. } => {}
                FlushResult::Over => {
                    assert_ne!(self.sides[at].phase, Phase::Open, "an open WebSocket must not be dropped");
                    self.table.remove(slot);
                    self.sides[at] = Side::new(insert(&mut self.table, at, &self.log, self.is_tls));
                }
                FlushResult::Broken => panic!("the socket must not report an error"),
            }
        }
        self.table.end_flush();
        self.replay();
        assert!(
            [0, 1].iter().all(|at| self.connection(*at).journal_bytes() == 0),
            "no connection may have output in the journal after a flush"
        );
    }

    fn tick(&mut self, at: usize) {
        let before = self.connection(at).queued_bytes();
        let is_late = self.table.has_late_record(self.slot(at));
        let (event, after) = self.change(at, |connection, env| {
            let event = if is_late { connection.handle_late_record(env) } else { connection.handle_tick(env) };
            (event, connection.queued_bytes())
        });
        let side = &mut self.sides[at];
        if event.is_none() && side.phase == Phase::Open && after > before {
            side.reader.due.push_back(Due::Frame { first: 0x89, payload: Vec::new(), key: None });
        }
        self.handle_end(at, event);
        let is_handled = self.table.poll_timeout(self.slot(at)) > self.table.env().now;
        assert!(
            is_handled || self.connection(at).is_finished(),
            "the next deadline must be later than now unless the connection is finished"
        );
    }
}
