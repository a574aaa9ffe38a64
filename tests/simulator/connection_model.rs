//! The model of one connection: its state, its deadlines, and the causes that may end it.

use std::time::Duration;

use fdpush::sim::Tick;
use fdpush::{By, Cause, CloseCode, Closed, Fd, Heartbeat, Limits};

use crate::coverage::hit;
use crate::inbound::{Inbound, SentItem};
use crate::output_model::OutputModel;
use crate::segment_model::{Due, Ledger};
use crate::session_model::SessionModel;

/// The stage of a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    Http,
    Open,
    /// The close frame is queued or sent. `until` is the deadline for the client's close frame. This deadline is set
    /// when the server has sent its own close frame.
    Closing {
        until: Tick,
    },
    /// The connection ended without a close frame.
    Aborted,
}

/// The model of a connection.
#[derive(Debug)]
pub struct ConnectionModel {
    pub fd: Fd,
    pub stage: Stage,
    pub inbound: Inbound,
    pub output: OutputModel,
    pub heartbeat: HeartbeatModel,
    /// The TLS session. `None`: a plain connection.
    pub session: Option<SessionModel>,
    /// The longest message that the client can inflate, in bytes. `None`: the client does not negotiate
    /// permessage-deflate.
    pub deflated_bytes_max: Option<usize>,
    /// The time at which the connection stopped being open.
    pub closed_at: Option<Tick>,
    /// The number of `on_close` calls for the connection.
    pub on_close_calls: u32,
    /// Whether the server has noticed that the client ended or reset the connection, or that the socket failed.
    pub is_lost: bool,
    /// Whether the server has refused a request of the connection, or has begun to end the connection before an
    /// upgrade.
    pub is_refused: bool,
    /// Whether the server has handled the deadline for the client's close frame. The server may then free the
    /// connection.
    pub is_expired: bool,
    /// After the server has shut down its write side: the deadline until which the client must end the connection.
    pub shut_until: Option<Tick>,
    /// Whether a handler has paused the connection, so that the server does not read from it.
    pub is_paused: bool,
    /// Whether the slot of the connection was freed.
    pub is_reaped: bool,
}

/// The model of a heartbeat.
#[derive(Clone, Debug)]
pub struct HeartbeatModel {
    pub mode: Heartbeat,
    /// The time at which this heartbeat started.
    since: Tick,
    last_seen: Tick,
    /// The number of pings since the server last received bytes of the client.
    unanswered: u32,
    /// The first and the last tick at which the next ping may be due.
    ping: (Tick, Tick),
}

/// The time of a turn, and the times of earlier turns.
#[derive(Copy, Clone, Default, Debug)]
pub struct Turn {
    pub now: Tick,
    /// The time of the previous turn.
    before: Tick,
    /// The time of the last earlier turn that began when no connection was left to flush.
    ///
    /// A write before the flush can set a write deadline. The server puts this deadline into the wheel when the flush
    /// reaches the connection. A turn that begins during a flush of several turns does not handle such a deadline.
    before_flush: Tick,
}

impl Turn {
    /// Returns the turn after this turn. `was_flushing` tells whether this turn began with connections that an earlier
    /// flush had not reached.
    pub fn next(self, now: Tick, was_flushing: bool) -> Turn {
        Turn { now, before: self.now, before_flush: if was_flushing { self.before_flush } else { self.now } }
    }

    /// Checks that an action, due at `at`, was due in this turn and was not yet due in the previous turn.
    pub fn assert_due(self, at: Tick, what: &str) {
        assert!(at <= self.now, "{what}, due at {at:?}, must not happen at {:?}", self.now);
        assert!(at > self.before, "{what}, due at {at:?}, must happen in the turn at {:?} or before", self.before);
    }

    /// Checks an action that was overdue from the start: at the time `at`, the server set a deadline in the past. The
    /// action may happen in the turn at this time or in the next turn.
    pub fn assert_due_since(self, at: Tick, what: &str) {
        assert!(at <= self.now, "{what}, overdue since {at:?}, must not happen at {:?}", self.now);
        assert!(
            at >= self.before,
            "{what}, overdue since {at:?}, must happen in the turn at {:?} or before",
            self.before
        );
    }
}

impl HeartbeatModel {
    /// Creates the model of a heartbeat that starts now. `last_seen` is the time of the last bytes from the client.
    pub fn new(mode: Heartbeat, now: Tick, last_seen: Tick) -> HeartbeatModel {
        let ping = match mode {
            // The server sends the first ping in the second half of the interval.
            Heartbeat::Ping { every, .. } | Heartbeat::Push { every } => (now.after(every / 2), now.after(every)),
            _ => (Tick::NEVER, Tick::NEVER),
        };
        HeartbeatModel { mode, since: now, last_seen, unanswered: 0, ping }
    }

    /// Handles the arrival of bytes.
    pub fn handle_bytes(&mut self, now: Tick) {
        (self.last_seen, self.unanswered) = (now, 0);
    }

    /// Returns the latest tick at which the next ping, or the end of the connection, can be due.
    pub fn due(&self) -> Tick {
        match self.mode {
            Heartbeat::Client { idle_max } => self.since.max(self.last_seen).after(idle_max),
            _ => self.ping.1,
        }
    }

    fn ping(&mut self, turn: Turn) {
        let (Heartbeat::Ping { every, .. } | Heartbeat::Push { every }) = self.mode else {
            panic!("this heartbeat sends no pings")
        };
        assert!(!self.has_missed_too_many(), "a client that missed too many pings must get no ping");
        self.assert_ping_due(turn);
        self.unanswered += 1;
        self.ping = (turn.now.after(every), turn.now.after(every));
    }

    /// Returns whether the last ping may still be queued behind other output, and the client still reads that output.
    fn is_waited_for(&self, output: &OutputModel) -> bool {
        matches!(self.mode, Heartbeat::Ping { .. }) && self.unanswered > 0 && output.is_backlogged && output.is_taking
    }

    fn postpone(&mut self, turn: Turn) {
        let Heartbeat::Ping { every, .. } = self.mode else { panic!("this heartbeat sends no pings") };
        self.assert_ping_due(turn);
        self.ping = (turn.now.after(every), turn.now.after(every));
    }

    fn end(&self, turn: Turn) {
        match self.mode {
            Heartbeat::Client { .. } => turn.assert_due(self.due(), "the timeout of an idle client"),
            Heartbeat::Ping { .. } => {
                assert!(
                    self.has_missed_too_many(),
                    "a heartbeat may close a connection only after too many missed pings, not after {}: {:?}",
                    self.unanswered,
                    self.mode
                );
                self.assert_ping_due(turn);
            }
            _ => panic!("a heartbeat without timeout must close no connection: {:?}", self.mode),
        }
    }

    fn has_missed_too_many(&self) -> bool {
        matches!(self.mode, Heartbeat::Ping { missed_max, .. } if self.unanswered >= missed_max)
    }

    fn assert_ping_due(&self, turn: Turn) {
        let (from, to) = self.ping;
        assert!(from <= turn.now, "a ping that is due from {from:?} on must not be sent at {:?}", turn.now);
        assert!(
            to > turn.before,
            "a ping that is due at {to:?} must be sent in the turn at {:?} or before",
            turn.before
        );
    }
}

impl ConnectionModel {
    /// Creates the model of an accepted connection.
    pub fn new(fd: Fd, mode: Heartbeat, session: Option<SessionModel>, now: Tick) -> ConnectionModel {
        ConnectionModel {
            fd,
            stage: Stage::Http,
            inbound: Inbound::default(),
            output: OutputModel::default(),
            heartbeat: HeartbeatModel::new(mode, now, now),
            session,
            deflated_bytes_max: None,
            closed_at: None,
            on_close_calls: 0,
            is_lost: false,
            is_refused: false,
            is_expired: false,
            shut_until: None,
            is_paused: false,
            is_reaped: false,
        }
    }

    /// Returns whether the connection is an open WebSocket.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Returns whether the connection is in its close handshake.
    pub fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing { .. })
    }

    /// Handles the opening of the WebSocket.
    pub fn open(&mut self, now: Tick) {
        assert_eq!(self.stage, Stage::Http, "{} must open only once", self.fd);
        self.stage = Stage::Open;
        self.inbound.opened = now;
        self.heartbeat = HeartbeatModel::new(self.heartbeat.mode, now, self.heartbeat.last_seen);
    }

    /// Sets the heartbeat of the connection.
    pub fn set_heartbeat(&mut self, mode: Heartbeat, now: Tick) {
        self.heartbeat = HeartbeatModel::new(mode, now, self.heartbeat.last_seen);
    }

    /// Stops or resumes reading.
    pub fn set_paused(&mut self, is_paused: bool, now: Tick) {
        if self.is_paused && !is_paused {
            self.inbound.restart(now);
        }
        self.is_paused = is_paused;
    }

    // The following functions check the event with which the server reports the end of a connection. The event has the
    // cause of the end, and the server must report each end once.

    /// Checks an end that the server caused. The code 1006 means that the server sent no close frame.
    pub fn close(&mut self, closed: &Closed, code: CloseCode, reason: &str, cause: Cause) {
        let seen = (closed.code, &*closed.reason, closed.by, closed.cause);
        assert_eq!(seen, (code, reason, By::Server, cause), "{}", self.fd);
    }

    /// Checks an end that the client caused by a close frame or a protocol error.
    pub fn close_by_bytes(&mut self, closed: &Closed, limits: &Limits, now: Tick, ledger: &mut Ledger) {
        match closed.cause {
            Cause::ClientClosed => {
                assert_eq!(closed.by, By::Client);
                self.inbound.deliver(&SentItem::Close(closed.code.as_u16(), closed.reason.to_string()), limits, now);
                self.start_closing(closed.code, "", now, ledger);
            }
            Cause::ProtocolError(error) => {
                let code = self.inbound.fail(error).into();
                self.close(closed, code, error.as_str(), closed.cause);
                self.start_closing(code, error.as_str(), now, ledger);
            }
            cause => panic!("input of {} must not end it with the cause {cause}", self.fd),
        }
    }

    /// Checks an end that a lost connection caused.
    pub fn close_by_loss(&mut self, closed: &Closed, now: Tick) {
        let seen = (closed.code, &*closed.reason, closed.by, closed.cause);
        assert_eq!(seen, (CloseCode::ABNORMAL, "", By::Client, Cause::ConnectionLost), "{}", self.fd);
        assert!(self.is_lost, "the server must detect the loss of {} before it reports the loss", self.fd);
        self.end(now);
    }

    /// Checks an end that the server caused because a deadline had passed.
    pub fn close_by_tick(&mut self, closed: &Closed, limits: &Limits, turn: Turn, ledger: &mut Ledger) {
        match closed.cause {
            Cause::HeartbeatMissed => {
                assert!(
                    !self.heartbeat.is_waited_for(&self.output),
                    "{} must not be ended while it reads the output that is queued before the last ping",
                    self.fd
                );
                self.heartbeat.end(turn);
            }
            Cause::WriteTimedOut => {
                let at = self.write_due(limits);
                assert!(at <= turn.now, "a write timeout, due at {at:?}, must not end a connection at {:?}", turn.now);
                // The server may end the connection one turn later if epoll reported the socket as writable in the
                // previous turn and the next write wrote no byte.
                if self.output.tried() <= turn.before_flush {
                    Turn { before: turn.before_flush, ..turn }.assert_due(at, "a write timeout");
                }
            }
            Cause::MessageTimedOut => {
                if self.record_due(limits) <= turn.now {
                    hit("tls: record timed out");
                }
                let at = self.message_due(limits).min(self.record_due(limits));
                if self.has_late_record(limits) {
                    turn.assert_due_since(at, "the timeout of a TLS record");
                } else {
                    turn.assert_due(at, "the timeout of a message");
                }
                let reason = "message took too long";
                self.close(closed, CloseCode::POLICY, reason, closed.cause);
                return self.start_closing(CloseCode::POLICY, reason, turn.now, ledger);
            }
            cause => panic!("a deadline of {} must not end it with the cause {cause}", self.fd),
        }
        self.close(closed, CloseCode::ABNORMAL, "", closed.cause);
        self.end(turn.now);
    }

    /// Checks a call of `Connection::handle_tick` that did not end the connection: no timeout was due.
    pub fn check_tick(&mut self, is_pinged: bool, limits: &Limits, turn: Turn, ledger: &mut Ledger) {
        match self.stage {
            Stage::Open => {
                assert!(
                    self.write_due(limits) > turn.now,
                    "the server must end {} when its write timeout has passed",
                    self.fd
                );
                assert!(
                    self.message_due(limits) > turn.now,
                    "the server must end {} when its message timeout has passed",
                    self.fd
                );
                assert!(
                    self.record_due(limits) > turn.now,
                    "the server must end {} when the timeout of its TLS record has passed",
                    self.fd
                );
            }
            // After the earlier of the two deadlines, the server may free the connection.
            Stage::Closing { until } => self.is_expired |= until.min(self.write_due(limits)) <= turn.now,
            Stage::Http | Stage::Aborted => {}
        }
        if is_pinged {
            assert!(self.is_open(), "{} must be open when it is pinged", self.fd);
            self.heartbeat.ping(turn);
            hit("heartbeat: ping");
            self.output.push_control(Due::Ping, ledger);
        }
        if is_pinged {
            self.output.is_taking = false;
        } else if self.is_open() && self.heartbeat.due() <= turn.now && self.heartbeat.is_waited_for(&self.output) {
            hit("heartbeat: waits for the ping to be sent");
            self.heartbeat.postpone(turn);
            self.output.is_taking = false;
        }
        assert!(
            !self.is_open() || self.heartbeat.due() > turn.now,
            "the server must ping or end {} when its heartbeat is due",
            self.fd
        );
    }

    /// Checks a call of `Connection::handle_tick` that reported no refused HTTP request. A write timeout ends an HTTP
    /// connection without such a report.
    pub fn check_http_tick(&mut self, limits: &Limits, turn: Turn) {
        self.is_refused |= self.write_due(limits) <= turn.now;
        assert!(
            self.handshake_due() > turn.now,
            "the server must refuse {} when its handshake timeout has passed",
            self.fd
        );
    }

    /// Checks a call of `Connection::handle_tick` that refused an HTTP connection.
    ///
    /// A TLS client has one time limit for its handshake and its first bytes after the handshake together. The server
    /// refuses a client that exceeds this limit.
    pub fn refuse_by_tick(&mut self, turn: Turn) {
        if self.handshake_due() < Tick::NEVER {
            hit("tls: handshake timed out");
            turn.assert_due(self.handshake_due(), "the timeout of a handshake");
        }
        self.is_refused = true;
    }

    /// Queues a close frame and waits for the close frame of the client.
    pub fn start_closing(&mut self, code: CloseCode, reason: &str, now: Tick, ledger: &mut Ledger) {
        assert!(self.is_open(), "{} must be open before it is closed", self.fd);
        let payload = match code {
            CloseCode::NO_STATUS => Vec::new(),
            _ => [&code.as_u16().to_be_bytes(), reason.as_bytes()].concat(),
        };
        self.output.push_control(Due::Close(payload), ledger);
        self.stage = Stage::Closing { until: Tick::NEVER };
        self.closed_at = Some(now);
    }

    /// Handles a write. If this write completed the close frame, the time limit for the client's close frame starts.
    pub fn written(&mut self, limits: &Limits, now: Tick) {
        if let Stage::Closing { until } = &mut self.stage
            && self.output.bytes() == 0
        {
            *until = now.after(limits.close_wait_max).min(*until);
        }
    }

    /// Handles the shutdown of the server's write side. The client must end the connection before the deadline `until`.
    pub fn shut(&mut self, until: Tick) {
        self.shut_until.get_or_insert(until);
    }

    /// Ends the connection immediately.
    pub fn end(&mut self, now: Tick) {
        assert!(self.is_open(), "{} must be open before it is closed", self.fd);
        self.stage = Stage::Aborted;
        self.closed_at = Some(now);
    }

    // Deadlines.

    /// Returns the next deadline of the connection.
    pub fn due(&self, limits: &Limits) -> Tick {
        match self.stage {
            Stage::Open => {
                let message = self.message_due(limits).min(self.record_due(limits));
                self.heartbeat.due().min(self.next_write_due(limits)).min(message)
            }
            Stage::Closing { until } => until.max(self.shut_until.unwrap_or(Tick(0))).min(self.next_write_due(limits)),
            Stage::Http => self.handshake_due(),
            Stage::Aborted => Tick::NEVER,
        }
    }

    /// Checks that the server may close the socket now.
    pub fn check_drop(&self) {
        let is_over = match self.stage {
            Stage::Http | Stage::Aborted => true,
            Stage::Open => false,
            Stage::Closing { .. } => {
                let is_done = self.output.bytes() == 0 && self.inbound.is_close_read();
                is_done || self.is_lost || self.is_expired
            }
        };
        assert!(
            is_over,
            "{} may be freed only after its close handshake, its loss or its deadline; it has {} queued bytes",
            self.fd,
            self.output.bytes()
        );
    }

    /// Returns the write deadline. If a write after this deadline wrote no byte, the deadline moves to the tick after
    /// that write.
    fn next_write_due(&self, limits: &Limits) -> Tick {
        self.write_due(limits).max(self.output.tried())
    }

    fn write_due(&self, limits: &Limits) -> Tick {
        after(self.output.stalled_since(), limits.write_time_max)
    }

    /// Returns the common deadline of the TLS handshake and of the first bytes after it.
    fn handshake_due(&self) -> Tick {
        let is_waiting = self.stage == Stage::Http && self.inbound.read == 0 && !self.is_refused && !self.is_lost;
        self.session.as_ref().filter(|_| is_waiting).map_or(Tick::NEVER, SessionModel::head_until)
    }

    /// Returns the deadline of an unfinished TLS record.
    fn record_due(&self, limits: &Limits) -> Tick {
        let due = |session: &SessionModel| session.record_due(self.inbound.opened, limits.message_time_max);
        self.session.as_ref().map_or(Tick::NEVER, due)
    }

    /// Returns whether the time limit of an unfinished TLS record had passed when the WebSocket opened. The deadline of
    /// this record is then the time of the opening.
    pub fn has_late_record(&self, limits: &Limits) -> bool {
        self.is_open() && self.record_due(limits) == self.inbound.opened
    }

    fn message_due(&self, limits: &Limits) -> Tick {
        after(self.inbound.unfinished_since().filter(|_| !self.is_paused), limits.message_time_max)
    }
}

fn after(since: Option<Tick>, time: Duration) -> Tick {
    since.map_or(Tick::NEVER, |since| since.after(time))
}
