//! A safe wrapper of an epoll instance.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

/// The maximum number of events of one wait.
const EVENTS_MAX: usize = 4096;

/// The readiness of the descriptor with this token.
#[derive(Copy, Clone, Debug)]
pub struct Readiness {
    pub token: usize,
    /// Whether bytes, or the end of the stream, can be read.
    pub is_readable: bool,
    pub is_writable: bool,
}

/// An epoll instance, and the events of its last wait.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<Event>,
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Epoll { fd, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a descriptor for both directions, edge-triggered, until it is closed.
    pub fn add(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        Ok(epoll::add(&self.fd, source, EventData::new_u64(token as u64), flags)?)
    }

    /// Watches a descriptor for input, level-triggered, until it is closed.
    pub fn add_readable(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(&self.fd, source, EventData::new_u64(token as u64), EventFlags::IN)?)
    }

    /// Waits for events up to the timeout, and moves them to `into`.
    pub fn wait(&mut self, into: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<()> {
        self.events.clear();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&self.fd, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        into.clear();
        into.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let is_over = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            Readiness {
                token: event.data.u64() as usize,
                is_readable: is_over || flags.contains(EventFlags::IN),
                is_writable: flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}
