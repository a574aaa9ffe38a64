//! One connection as the oracle sees it: what it may do now, and what it must have done by when.

use std::time::Duration;

use fdpush::sim::Tick;
use fdpush::{By, Cause, CloseCode, Closed, Fd, Heartbeat, Limits};

use crate::coverage::hit;
use crate::inbound::{Inbound, Said};
use crate::output_model::{Due, Ledger, OutputModel};

/// Where a connection is in its model.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    Http,
    Open,
    /// A close frame is on its way, and this is how long its client has, once it is sent.
    Closing {
        until: Tick,
    },
    /// It ended without a word.
    Dead,
}

/// A connection's model.
#[derive(Debug)]
pub struct ConnectionModel {
    pub fd: Fd,
    pub stage: Stage,
    pub inbound: Inbound,
    pub output: OutputModel,
    pub beat: Beat,
    /// When it stopped being open.
    pub closed_at: Option<Tick>,
    /// How often its handler was told of its end.
    pub told: u32,
    /// The server has seen that the client or the socket is gone.
    pub is_lost: bool,
    /// A tick found that its client has had its time.
    pub is_expired: bool,
    /// How long its client has since its stream was shut for writing.
    pub shut_until: Option<Tick>,
    /// Its slot has been freed.
    pub is_reaped: bool,
}

/// What there is to know of a heartbeat, for the server's rules to be held against.
#[derive(Clone, Debug)]
pub struct Beat {
    pub way: Heartbeat,
    /// Since when it goes this way.
    since: Tick,
    last_seen: Tick,
    /// Pings since anything came.
    unheard: u32,
    /// Between which ticks the next ping is due, both included.
    ping: (Tick, Tick),
}

/// The moments of two turns, of which this one did something: it was due by now, and was not in the turn before.
#[derive(Copy, Clone, Debug)]
pub struct Turn {
    pub before: Tick,
    pub now: Tick,
}

impl Turn {
    /// Holds something that was done in this turn against when it was due.
    pub fn assert_due(self, at: Tick, what: &str) {
        assert!(at <= self.now, "{what}, due at {at:?}, is early at {:?}", self.now);
        assert!(at > self.before, "{what}, due at {at:?}, was late by more than a turn at {:?}", self.before);
    }
}

impl Beat {
    /// A heartbeat from now on.
    pub fn new(way: Heartbeat, now: Tick, last_seen: Tick) -> Beat {
        let ping = match way {
            // The first comes in the second half of its period.
            Heartbeat::Ping { every, .. } | Heartbeat::Push { every } => (now.after(every / 2), now.after(every)),
            _ => (Tick::NEVER, Tick::NEVER),
        };
        Beat { way, since: now, last_seen, unheard: 0, ping }
    }

    /// Bytes came.
    pub fn hear(&mut self, now: Tick) {
        (self.last_seen, self.unheard) = (now, 0);
    }

    /// The last moment at which something has to happen.
    pub fn due(&self) -> Tick {
        match self.way {
            Heartbeat::Client { idle_max } => self.since.max(self.last_seen).after(idle_max),
            _ => self.ping.1,
        }
    }

    fn ping(&mut self, turn: Turn) {
        let (Heartbeat::Ping { every, .. } | Heartbeat::Push { every }) = self.way else { panic!("nobody asks here") };
        assert!(!self.is_dead(), "a dead client was pinged");
        self.assert_ping_due(turn);
        self.unheard += 1;
        self.ping = (turn.now.after(every), turn.now.after(every));
    }

    /// Whether the client may not have its last ping, and takes what is before it.
    fn is_waited_for(&self, output: &OutputModel) -> bool {
        matches!(self.way, Heartbeat::Ping { .. }) && self.unheard > 0 && output.is_backlogged && output.is_taking
    }

    fn put_off(&mut self, turn: Turn) {
        let Heartbeat::Ping { every, .. } = self.way else { panic!("nobody asks here") };
        self.assert_ping_due(turn);
        self.ping = (turn.now.after(every), turn.now.after(every));
    }

    fn die(&self, turn: Turn) {
        match self.way {
            Heartbeat::Client { .. } => turn.assert_due(self.due(), "the end of an idle client"),
            Heartbeat::Ping { .. } => {
                assert!(self.is_dead(), "declared dead with {} pings unanswered: {:?}", self.unheard, self.way);
                self.assert_ping_due(turn);
            }
            _ => panic!("declared dead where nobody asks: {:?}", self.way),
        }
    }

    fn is_dead(&self) -> bool {
        matches!(self.way, Heartbeat::Ping { missed_max, .. } if self.unheard >= missed_max)
    }

    fn assert_ping_due(&self, turn: Turn) {
        let (from, to) = self.ping;
        assert!(from <= turn.now, "a heartbeat due at {from:?} is early at {:?}", turn.now);
        assert!(to > turn.before, "a heartbeat due at {to:?} was late by more than a turn at {:?}", turn.before);
    }
}

impl ConnectionModel {
    /// A connection that was just accepted.
    pub fn new(fd: Fd, way: Heartbeat, now: Tick) -> ConnectionModel {
        ConnectionModel {
            fd,
            stage: Stage::Http,
            inbound: Inbound::default(),
            output: OutputModel::default(),
            beat: Beat::new(way, now, now),
            closed_at: None,
            told: 0,
            is_lost: false,
            is_expired: false,
            shut_until: None,
            is_reaped: false,
        }
    }

    /// Whether it can be pushed to.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Its WebSocket opens.
    pub fn open(&mut self, now: Tick) {
        assert_eq!(self.stage, Stage::Http, "{} opened twice", self.fd);
        self.stage = Stage::Open;
        self.beat = Beat::new(self.beat.way, now, self.beat.last_seen);
    }

    /// It gets a heartbeat of its own.
    pub fn set_heartbeat(&mut self, way: Heartbeat, now: Tick) {
        self.beat = Beat::new(way, now, self.beat.last_seen);
    }

    // Its end, as it was told: once, with the cause that it had.

    /// The server ended it, with this close frame or, at 1006, without one.
    pub fn close(&mut self, closed: &Closed, code: CloseCode, reason: &str, cause: Cause) {
        let seen = (closed.code, &*closed.reason, closed.by, closed.cause);
        assert_eq!(seen, (code, reason, By::Server, cause), "{}", self.fd);
    }

    /// Its client said goodbye or broke a rule, as its bytes tell.
    pub fn close_by_bytes(&mut self, closed: &Closed, now: Tick, ledger: &mut Ledger) {
        match closed.cause {
            Cause::ClientClosed => {
                assert_eq!(closed.by, By::Client);
                self.inbound.tell(&Said::Close(closed.code.as_u16(), closed.reason.to_string()));
                self.say_goodbye(closed.code, "", now, ledger);
            }
            Cause::ProtocolError(error) => {
                let code = self.inbound.tell_bad(error).into();
                self.close(closed, code, error.as_str(), closed.cause);
                self.say_goodbye(code, error.as_str(), now, ledger);
            }
            cause => panic!("{}: {cause} because of what the client said", self.fd),
        }
    }

    /// Its client is gone without a word.
    pub fn close_by_loss(&mut self, closed: &Closed, now: Tick) {
        let seen = (closed.code, &*closed.reason, closed.by, closed.cause);
        assert_eq!(seen, (CloseCode::ABNORMAL, "", By::Client, Cause::ConnectionLost), "{}", self.fd);
        assert!(self.is_lost, "{} is said to be lost", self.fd);
        self.die(now);
    }

    /// A tick ended it.
    pub fn close_by_tick(&mut self, closed: &Closed, limits: &Limits, turn: Turn, ledger: &mut Ledger) {
        match closed.cause {
            Cause::HeartbeatMissed => {
                assert!(!self.beat.is_waited_for(&self.output), "{} may not have had its ping", self.fd);
                self.beat.die(turn);
            }
            Cause::WriteTimedOut => {
                let at = self.write_due(limits);
                assert!(at <= turn.now, "the end of a write, due at {at:?}, is early at {:?}", turn.now);
                // A turn late where the turn before found out that room it was told of was none.
                if self.output.tried() <= turn.before {
                    turn.assert_due(at, "the end of a write");
                }
            }
            Cause::MessageTimedOut => {
                turn.assert_due(self.message_due(limits), "the end of a message");
                let reason = "message took too long";
                self.close(closed, CloseCode::POLICY, reason, closed.cause);
                return self.say_goodbye(CloseCode::POLICY, reason, turn.now, ledger);
            }
            cause => panic!("{}: {cause} because of a tick", self.fd),
        }
        self.close(closed, CloseCode::ABNORMAL, "", closed.cause);
        self.die(turn.now);
    }

    /// A tick did not end it: then nothing was due that should have.
    pub fn outlive_tick(&mut self, is_pinged: bool, limits: &Limits, turn: Turn, ledger: &mut Ledger) {
        match self.stage {
            Stage::Open => {
                assert!(self.write_due(limits) > turn.now, "{} outlived its write", self.fd);
                assert!(self.message_due(limits) > turn.now, "{} outlived its message", self.fd);
            }
            // It may be dropped from here on, whether or not the loop had to know that by now.
            Stage::Closing { until } => self.is_expired |= until.min(self.write_due(limits)) <= turn.now,
            Stage::Http | Stage::Dead => {}
        }
        if is_pinged {
            assert!(self.is_open(), "{} was pinged and is not open", self.fd);
            self.beat.ping(turn);
            hit("heartbeat: ping");
            self.output.push_control(Due::Ping, ledger);
        }
        if is_pinged {
            self.output.is_taking = false;
        } else if self.is_open() && self.beat.due() <= turn.now && self.beat.is_waited_for(&self.output) {
            hit("heartbeat: waits for the ping to be sent");
            self.beat.put_off(turn);
            self.output.is_taking = false;
        }
        assert!(!self.is_open() || self.beat.due() > turn.now, "{} outlived its heartbeat", self.fd);
    }

    /// Its close frame is queued, and its client is waited for.
    pub fn say_goodbye(&mut self, code: CloseCode, reason: &str, now: Tick, ledger: &mut Ledger) {
        assert!(self.is_open(), "{} was closed twice", self.fd);
        let payload = match code {
            CloseCode::NO_STATUS => Vec::new(),
            _ => [&code.as_u16().to_be_bytes(), reason.as_bytes()].concat(),
        };
        self.output.push_control(Due::Close(payload), ledger);
        self.stage = Stage::Closing { until: Tick::NEVER };
        self.closed_at = Some(now);
    }

    /// Some of its output was written: perhaps the close frame.
    pub fn written(&mut self, limits: &Limits, now: Tick) {
        if let Stage::Closing { until } = &mut self.stage
            && self.output.bytes() == 0
        {
            *until = now.after(limits.close_wait_max).min(*until);
        }
    }

    /// Its stream is shut for writing. Its client has time from now on, if the flush came late.
    pub fn shut(&mut self, until: Tick) {
        self.shut_until.get_or_insert(until);
    }

    /// It ends at once.
    pub fn die(&mut self, now: Tick) {
        assert!(self.is_open(), "{} was closed twice", self.fd);
        self.stage = Stage::Dead;
        self.closed_at = Some(now);
    }

    // Deadlines.

    /// By when the loop has to look after it.
    pub fn due(&self, limits: &Limits) -> Tick {
        match self.stage {
            Stage::Open => self.beat.due().min(self.next_write_due(limits)).min(self.message_due(limits)),
            Stage::Closing { until } => until.max(self.shut_until.unwrap_or(Tick(0))).min(self.next_write_due(limits)),
            Stage::Http | Stage::Dead => Tick::NEVER,
        }
    }

    /// Its socket is closed. What is still queued must have had its chance.
    pub fn judge_drop(&self) {
        let is_over = match self.stage {
            Stage::Http | Stage::Dead => true,
            Stage::Open => false,
            Stage::Closing { .. } => {
                let is_done = self.output.bytes() == 0 && self.inbound.is_close_read();
                is_done || self.is_lost || self.is_expired
            }
        };
        assert!(is_over, "{} was dropped too early, with {} bytes queued", self.fd, self.output.bytes());
    }

    /// By when the loop has to look after its writes: not before it knows that room it was told of is none.
    fn next_write_due(&self, limits: &Limits) -> Tick {
        self.write_due(limits).max(self.output.tried())
    }

    fn write_due(&self, limits: &Limits) -> Tick {
        after(self.output.stalled_since(), limits.write_time_max)
    }

    fn message_due(&self, limits: &Limits) -> Tick {
        after(self.inbound.unfinished_since(), limits.message_time_max)
    }
}

fn after(since: Option<Tick>, time: Duration) -> Tick {
    since.map_or(Tick::NEVER, |since| since.after(time))
}
