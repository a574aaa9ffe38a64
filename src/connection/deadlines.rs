//! Timeouts of a connection: heartbeats, and deadlines for messages and writes.

use crate::connection::heartbeat::HeartbeatAction;
use crate::connection::{By, Cause, Connection, Env, Event, Stage};
use crate::protocol::close::CloseCode;
use crate::protocol::frame::Opcode;
use crate::tick::Tick;

impl Connection {
    /// Handles the deadlines of [`poll_timeout`](Connection::poll_timeout) that have passed.
    pub fn handle_tick(&mut self, env: &mut Env) -> Option<Event<'static>> {
        if self.write_deadline(env) <= env.now {
            return self.handle_write_timeout();
        }
        if self.message_deadline(env) <= env.now {
            return self.end_late_message(env);
        }
        if self.deadline > env.now {
            return None;
        }
        match &self.stage {
            Stage::Open { .. } => self.check_heartbeat(env),
            Stage::Http(_) => self.handle_http_tick(env),
            Stage::Closing { .. } | Stage::Lingering { .. } | Stage::Finished { .. } => {
                self.finish();
                None
            }
        }
    }

    /// Returns whether [`handle_tick`](Connection::handle_tick) would end the connection for a missed deadline.
    pub fn is_overdue(&self, env: &Env) -> bool {
        if self.write_deadline(env).min(self.message_deadline(env)) <= env.now {
            return true;
        }
        self.deadline <= env.now
            && match &self.stage {
                Stage::Open { .. } => self.heartbeat_state.is_dead(
                    self.heartbeat(env),
                    self.last_seen,
                    self.output.is_backlogged(),
                    env.now,
                ),
                _ => true,
            }
    }

    /// Returns the next time at which the caller must call [`handle_tick`](Connection::handle_tick).
    ///
    /// Every other call on the connection can change this time.
    #[inline]
    pub fn poll_timeout(&self, env: &Env) -> Tick {
        if self.has_only_heartbeat() {
            return self.deadline;
        }
        self.deadline.min(self.message_deadline(env)).min(self.write_deadline(env))
    }

    /// Returns whether the heartbeat check is the only deadline of the connection.
    ///
    /// Most connections are in this case: no message is unfinished, and no output waits.
    #[inline]
    pub(super) fn has_only_heartbeat(&self) -> bool {
        matches!(self.stage, Stage::Open { unfinished: None, .. }) && !self.output.is_queued()
    }

    fn handle_write_timeout(&mut self) -> Option<Event<'static>> {
        if self.is_open() {
            return Some(self.end_abnormally(By::Server, Cause::WriteTimedOut));
        }
        self.finish();
        None
    }

    /// Ends a WebSocket whose client is late with the remaining bytes of a TLS record: see
    /// [`Transport::unfinished_since`](crate::connection::Transport::unfinished_since).
    pub fn handle_late_record(&mut self, env: &mut Env) -> Option<Event<'static>> {
        if self.write_deadline(env) <= env.now {
            return self.handle_write_timeout();
        }
        self.end_late_message(env)
    }

    fn end_late_message(&mut self, env: &mut Env) -> Option<Event<'static>> {
        self.end_with(CloseCode::POLICY, "message took too long", Cause::MessageTimedOut, env)
    }

    fn check_heartbeat(&mut self, env: &mut Env) -> Option<Event<'static>> {
        let heartbeat = *self.heartbeat(env);
        let beat = self.heartbeat_state.check(&heartbeat, self.last_seen, self.output.is_backlogged(), env.now);
        env.counts.missed += u64::from(beat == HeartbeatAction::Dead);
        match beat {
            HeartbeatAction::Wait(at) => self.deadline = at,
            HeartbeatAction::Ping(at) => {
                self.deadline = at;
                env.counts.missed += u64::from(self.heartbeat_state.has_missed());
                env.counts.pings += 1;
                self.push_control(Opcode::Ping, b"", env);
            }
            HeartbeatAction::Dead => return Some(self.end_abnormally(By::Server, Cause::HeartbeatMissed)),
        }
        None
    }

    #[inline]
    fn message_deadline(&self, env: &Env) -> Tick {
        match &self.stage {
            Stage::Open { unfinished: Some(unfinished), .. } => match unfinished.held_until() {
                // While the handler has paused reading, an unfinished message has no deadline, because the server does
                // not read its remaining bytes.
                _ if self.is_paused => Tick::NEVER,
                None => unfinished.started().after(env.limits.message_time_max),
                // While the server holds back input of the client, an unfinished message has no deadline. `until` is
                // returned only so that the timer fires at `until` and the server processes the held input.
                Some(until) if until > env.now => until,
                Some(_) => Tick::NEVER,
            },
            _ => Tick::NEVER,
        }
    }

    #[inline]
    fn write_deadline(&self, env: &Env) -> Tick {
        let since = self.output.stalled_since();
        since.map_or(Tick::NEVER, |since| since.after(env.limits.write_time_max))
    }
}
