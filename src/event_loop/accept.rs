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
use crate::fd::Fd;
use crate::limits::Limits;
use crate::tick::Tick;

/// Connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN_MAX: usize = 512;

/// Descriptors that are not connections: listeners, epoll, logs, files of handlers.
const DESCRIPTORS_RESERVED: u64 = 64;

/// How long accepting pauses when descriptors have run out, unless one is freed before.
const PAUSE: Duration = Duration::from_millis(50);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\
    Content-Length: 19\r\nConnection: close\r\n\r\nthe server is full\n";

/// The listeners, and whether they have somebody waiting.
#[derive(Debug)]
pub struct Door {
    listeners: Vec<Listener>,
    /// By listener: somebody may wait. Edge-triggered epoll says so once.
    pending: Vec<bool>,
    /// A descriptor held back, so that a client can be accepted and refused when there are no others.
    spare: Option<OwnedFd>,
    /// While descriptors have run out: when to try again.
    retry: Option<Retry>,
}

#[derive(Copy, Clone, Debug)]
struct Retry {
    at: Tick,
    /// A connection was freed since, so there is no need to wait.
    is_freed: bool,
}

impl Door {
    /// A door with these listeners.
    pub fn new(listeners: Vec<Listener>) -> io::Result<Door> {
        let pending = vec![false; listeners.len()];
        Ok(Door { listeners, pending, spare: spare(), retry: None })
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

    /// Closes the listeners.
    pub fn close(&mut self) {
        self.listeners.clear();
        self.pending.clear();
        self.retry = None;
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
            match self.listeners[index].accept()? {
                Accepted::Nobody => return Ok(false),
                Accepted::Exhausted => {
                    self.refuse_with_spare(index);
                    self.retry = Some(Retry { at: core.table.env.now.after(PAUSE), is_freed: false });
                    return Ok(true);
                }
                Accepted::Connection(socket, _) if core.table.len() >= core.connections_max => {
                    core.counters.refused += 1;
                    listener::refuse(&socket, FULL);
                }
                Accepted::Connection(socket, peer) => {
                    let socket = Socket::new(socket);
                    let descriptor = socket.as_raw_fd();
                    let Some(fd) = core.table.insert(socket, peer) else {
                        core.counters.refused += 1;
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

    /// Gives up the spare descriptor for the moment it takes to tell those who wait that there is no room.
    fn refuse_with_spare(&mut self, index: usize) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            if self.spare.take().is_none() {
                break;
            }
            let accepted = self.listeners[index].accept();
            let Ok(Accepted::Connection(socket, _)) = accepted else { break };
            listener::refuse(&socket, FULL);
            drop(socket);
            self.spare = spare();
        }
        if self.spare.is_none() {
            self.spare = spare();
        }
        log::warn!("out of descriptors: new clients get 503");
    }
}

/// Raises the soft descriptor limit to the hard one, and says how many connections there may be.
pub fn raise_connections_max(limits: &Limits) -> io::Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let most = Fd::CONNECTIONS_MAX as usize;
    Ok(match (limits.connections_max, maximum) {
        (Some(set), _) => set as usize,
        (None, Some(descriptors)) => {
            usize::try_from(descriptors.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(most).clamp(1, most)
        }
        (None, None) => most,
    })
}

fn spare() -> Option<OwnedFd> {
    File::open("/dev/null").ok().map(OwnedFd::from)
}
