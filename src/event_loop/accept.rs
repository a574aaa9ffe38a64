//! The door: who comes in, and what those get for whom there is no room.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::event_loop::core::Core;
use crate::event_loop::listener::{self, Accepted, Listener};
use crate::event_loop::socket::Socket;
use crate::limits::Limits;
use crate::tick::Tick;

/// Connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN_MAX: usize = 512;

/// How long accepting pauses when descriptors have run out, unless one is freed before.
const PAUSE: Duration = Duration::from_millis(50);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\
    Content-Length: 19\r\nConnection: close\r\n\r\nthe server is full\n";

const TOO_FAST: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\
    Content-Length: 33\r\nConnection: close\r\n\r\ntoo many come at once, try later\n";

/// The listeners, and whether they have somebody waiting.
#[derive(Debug)]
pub struct Door {
    /// Closed ones keep their place, by which epoll names them.
    listeners: Vec<Option<Listener>>,
    pace: Option<Pace>,
    /// By listener: somebody may wait. Edge-triggered epoll says so once.
    pending: Vec<bool>,
    /// A descriptor held back, so that a client can be accepted and refused when there are no others.
    spare: Option<OwnedFd>,
    /// While descriptors have run out: when to try again.
    retry: Option<Retry>,
    /// The response for a control connection over the limit.
    control_full: Vec<u8>,
    /// The response for a control connection without a descriptor.
    control_exhausted: Vec<u8>,
}

/// Why a connection is refused when it comes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Refused {
    Full,
    ControlFull,
    ControlExhausted,
    TooFast,
}

/// A token bucket: so many clients a second, and as many at once after a quiet one.
#[derive(Copy, Clone, Debug)]
struct Pace {
    per_second: u64,
    /// Thousandths of a client that may come in.
    milli: u64,
    at: Tick,
}

#[derive(Copy, Clone, Debug)]
struct Retry {
    at: Tick,
    /// A connection was freed since, so there is no need to wait.
    is_freed: bool,
}

impl Door {
    /// A door with these listeners, and the limit of control connections.
    pub fn new(listeners: Vec<Listener>, control_connections_max: u32) -> io::Result<Door> {
        let pending = vec![false; listeners.len()];
        let listeners = listeners.into_iter().map(Some).collect();
        let control_full = control_unavailable(&control_limit_reached(control_connections_max));
        let control_exhausted = control_unavailable("file descriptor limit reached");
        Ok(Door { listeners, pace: None, pending, spare: spare(), retry: None, control_full, control_exhausted })
    }

    /// Epoll says that somebody waits at a listener.
    pub fn handle_event(&mut self, listener: usize) {
        if let Some(pending) = self.pending.get_mut(listener) {
            *pending = true;
        }
    }

    /// A connection was freed, and its descriptor with it.
    pub fn handle_freed(&mut self) {
        if let Some(retry) = &mut self.retry {
            retry.is_freed = true;
        }
    }

    /// Whether somebody may be waiting who could come in now.
    pub fn has_pending(&self) -> bool {
        self.pending.contains(&true) && self.retry.is_none_or(|retry| retry.is_freed)
    }

    /// When accepting goes on that was paused.
    pub fn retry_at(&self) -> Option<Tick> {
        self.retry.map(|retry| retry.at)
    }

    /// Closes the listeners for clients. Those for control stay: whether the server is draining is what they are asked.
    pub fn close(&mut self) {
        for (place, pending) in self.listeners.iter_mut().zip(&mut self.pending) {
            if place.as_ref().is_some_and(|listener| !listener.is_control) {
                *place = None;
                *pending = false;
            }
        }
    }

    /// Lets in who waits, up to a turn's share.
    pub fn accept_pending(&mut self, core: &mut Core, epoll: &mio::Registry) -> io::Result<()> {
        if let Some(retry) = self.retry {
            if !retry.is_freed && core.table.env.now < retry.at {
                return Ok(());
            }
            self.retry = None;
        }
        for index in 0..self.listeners.len() {
            if self.pending[index] && self.retry.is_none() {
                self.pending[index] = self.accept_from(index, core, epoll)?;
            }
        }
        Ok(())
    }

    /// Accepts from one listener. `true`: more may wait.
    fn accept_from(&mut self, index: usize, core: &mut Core, epoll: &mio::Registry) -> io::Result<bool> {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let Some(listener) = &self.listeners[index] else { return Ok(false) };
            let is_control = listener.is_control;
            match listener.accept()? {
                Accepted::Nobody => return Ok(false),
                Accepted::Exhausted => {
                    self.refuse_with_spare(index, core);
                    self.retry = Some(Retry { at: core.table.env.now.after(PAUSE), is_freed: false });
                    return Ok(true);
                }
                Accepted::Connection(socket, peer) => {
                    if let Some(refused) = self.refusal(is_control, core) {
                        listener::refuse(&socket, self.response(refused));
                        continue;
                    }
                    let socket = Socket::new(socket);
                    let descriptor = socket.as_raw_fd();
                    let Some(fd) = core.table.insert(socket, peer, is_control) else {
                        core.count_full(is_control, "all slots are in use or retired");
                        continue;
                    };
                    let token = Token(fd.slot() as usize);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = epoll.register(&mut SourceFd(&descriptor), token, interest) {
                        log::warn!("cannot watch a new connection: {error}");
                        core.table.remove(fd.slot());
                        continue;
                    }
                    core.counters.accepted += 1;
                    core.arm(fd.slot());
                }
            }
        }
        Ok(true)
    }

    /// Whether a new connection is refused: there is no room for it, or too many come in a second.
    fn refusal(&mut self, is_control: bool, core: &mut Core) -> Option<Refused> {
        let control = core.table.control_len();
        if is_control {
            let max = core.control_connections_max;
            let is_full = control >= max as usize;
            return is_full.then(|| {
                core.count_full(true, control_limit_reached(max));
                Refused::ControlFull
            });
        }
        let max = core.connections_max;
        if core.table.len() - control >= max {
            core.count_full(false, format_args!("the server has its {max} connections"));
            return Some(Refused::Full);
        }
        let (now, pace) = (core.table.env.now, core.table.env.limits.accepts_per_second_max);
        if Pace::lets_in(&mut self.pace, pace, now) {
            return None;
        }
        core.count_full(false, format_args!("more than {} come in a second", pace.unwrap_or_default()));
        Some(Refused::TooFast)
    }

    fn response(&self, refused: Refused) -> &[u8] {
        match refused {
            Refused::Full => FULL,
            Refused::ControlFull => &self.control_full,
            Refused::ControlExhausted => &self.control_exhausted,
            Refused::TooFast => TOO_FAST,
        }
    }

    /// Gives up the spare descriptor for the moment it takes to tell those who wait that there is no room.
    fn refuse_with_spare(&mut self, index: usize, core: &mut Core) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            if self.spare.take().is_none() {
                break;
            }
            let Some(listener) = &self.listeners[index] else { break };
            let Ok(Accepted::Connection(socket, _)) = listener.accept() else { break };
            core.count_full(listener.is_control, "out of descriptors");
            let refused = if listener.is_control { Refused::ControlExhausted } else { Refused::Full };
            listener::refuse(&socket, self.response(refused));
            drop(socket);
            self.spare = spare();
        }
        if self.spare.is_none() {
            self.spare = spare();
        }
    }
}

impl Pace {
    /// Whether one more may come in now; `per_second` may change at any time.
    fn lets_in(pace: &mut Option<Pace>, per_second: Option<u32>, now: Tick) -> bool {
        let Some(per_second) = per_second.map(u64::from) else {
            *pace = None;
            return true;
        };
        let full = per_second * 1000;
        let earlier = pace.filter(|pace| pace.per_second == per_second);
        let earned = |pace: Pace| pace.milli.saturating_add(now.0.saturating_sub(pace.at.0).saturating_mul(per_second));
        let milli = earlier.map_or(full, |pace| earned(pace).min(full));
        let may = milli >= 1000;
        *pace = Some(Pace { per_second, milli: if may { milli - 1000 } else { milli }, at: now });
        may
    }
}

/// Raises the soft descriptor limit to the hard one, and returns the limit of clients' connections.
pub fn raise_connections_max(limits: &Limits, has_control: bool) -> io::Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let derived = || limits.derived_connections_max(maximum, has_control);
    Ok(limits.connections_max.unwrap_or_else(derived) as usize)
}

fn control_limit_reached(max: u32) -> String {
    format!("API connection limit reached ({max})")
}

/// A 503 response for a control connection. `message` needs no JSON escape.
fn control_unavailable(message: &str) -> Vec<u8> {
    let body = format!("{{\"error\":{{\"code\":\"unavailable\",\"message\":\"{message}\"}}}}\n");
    let count = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n\
         Content-Length: {count}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn spare() -> Option<OwnedFd> {
    File::open("/dev/null").ok().map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_lets_in_what_a_second_allows_and_no_more_at_once() {
        let mut pace = None;
        let mut come =
            |count: usize, at: u64, rate| (0..count).filter(|_| Pace::lets_in(&mut pace, rate, Tick(at))).count();
        assert_eq!(come(20, 0, Some(10)), 10);
        assert_eq!(come(20, 250, Some(10)), 2);
        assert_eq!(come(20, 300, Some(10)), 1, "halves add up");
        assert_eq!(come(20, 60_000, Some(10)), 10, "a quiet minute is worth a second");
        assert_eq!(come(20, 60_000, Some(3)), 3, "a new pace begins anew");
        assert_eq!(come(20, 60_000, None), 20);
    }

    #[test]
    fn refusals_are_as_long_as_they_say() {
        for refusal in [FULL, &control_unavailable(&control_limit_reached(7)), TOO_FAST] {
            let text = str::from_utf8(refusal).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
        }
    }
}
