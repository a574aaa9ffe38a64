//! The state that all loops of a server share.

use std::sync::{Arc, PoisonError};

use crate::directory::{Directory, Logins};
use crate::event_loop::proxies::ProxyFilter;
use crate::event_loop::rate_limit::SharedBucket;
use crate::event_loop::siblings::admission::Admission;
use crate::event_loop::siblings::links::Links;
use crate::event_loop::waker::{Waker, wake};
use crate::limits::Limits;
use crate::protocol::origin::Origins;
use crate::registry::SecondLogin;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The state that all loops of a server share.
///
/// Only a server with several loops has this state.
#[derive(Debug)]
pub struct Process {
    pub directory: Directory,
    pub admission: Arc<Admission>,
    pub links: Links,
    wakers: Box<[Arc<Waker>]>,
    pub accepts: SharedBucket,
    pub handshakes: SharedBucket,
    /// The number of open WebSockets of each loop.
    open: Box<[AtomicUsize]>,
    memberships: AtomicUsize,
    settings: Mutex<Settings>,
    /// The number of times that the settings have been changed.
    version: AtomicU64,
    /// For each loop, whether it has drained or ended.
    has_drained: Box<[AtomicBool]>,
    /// The number of loops that have drained or ended.
    drained: AtomicUsize,
    /// For each loop, whether its thread has ended.
    has_ended: Box<[AtomicBool]>,
    /// Whether all loops end immediately.
    is_interrupted: AtomicBool,
}

/// The settings that a handler can change while the server runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: Limits,
    pub origins: Origins,
    pub proxies: ProxyFilter,
}

impl Process {
    /// Creates the shared state of the loops that these wakers wake.
    pub fn new(wakers: Box<[Arc<Waker>]>, second_login: SecondLogin, settings: Settings) -> Process {
        let loops = wakers.len();
        let logins = match second_login {
            SecondLogin::Multi => Logins::Many,
            SecondLogin::KickOld => Logins::ReplaceOld,
            SecondLogin::RejectNew => Logins::RefuseNew,
        };
        Process {
            directory: Directory::new(loops, logins),
            admission: Arc::new(Admission::new(loops)),
            links: Links::new(loops),
            wakers,
            accepts: SharedBucket::default(),
            handshakes: SharedBucket::default(),
            open: (0..loops).map(|_| AtomicUsize::new(0)).collect(),
            memberships: AtomicUsize::new(0),
            settings: Mutex::new(settings),
            version: AtomicU64::new(0),
            has_drained: (0..loops).map(|_| AtomicBool::new(false)).collect(),
            drained: AtomicUsize::new(0),
            has_ended: (0..loops).map(|_| AtomicBool::new(false)).collect(),
            is_interrupted: AtomicBool::new(false),
        }
    }

    /// Returns the number of loops.
    pub fn loops(&self) -> usize {
        self.wakers.len()
    }

    /// Returns the number of open WebSockets of a loop.
    pub fn open(&self, index: usize) -> usize {
        self.open[index].load(Ordering::Relaxed)
    }

    /// Counts a WebSocket that opened.
    pub fn count_opened(&self, index: usize) {
        self.open[index].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a WebSocket that closed.
    pub fn count_closed(&self, index: usize) {
        self.open[index].fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a new membership of a connection in a group, unless all loops together have `max` memberships.
    pub fn take_membership(&self, max: usize) -> bool {
        let more = |count: usize| (count < max).then_some(count + 1);
        self.memberships.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Subtracts memberships that ended from the number of memberships.
    pub fn give_memberships(&self, count: usize) {
        self.memberships.fetch_sub(count, Ordering::Relaxed);
    }

    /// Changes the settings, and wakes all loops, which then apply the settings.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        {
            let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut settings);
            self.version.fetch_add(1, Ordering::Release);
        }
        self.wake_all();
    }

    /// Returns the settings, if they have been changed since the caller last got them. `seen` is the number of changes
    /// that the caller has seen, and the call updates it.
    pub fn new_settings(&self, seen: &mut u64) -> Option<Settings> {
        if self.version.load(Ordering::Acquire) == *seen {
            return None;
        }
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = self.version.load(Ordering::Acquire);
        Some(settings.clone())
    }

    /// Records that a loop has drained or ended.
    pub fn record_drained(&self, index: usize) {
        let was_drained = self.has_drained[index].swap(true, Ordering::AcqRel);
        // The first loop ends its control connections when all other loops have drained.
        if !was_drained && self.drained.fetch_add(1, Ordering::AcqRel) + 2 >= self.loops() {
            self.wake_all();
        }
    }

    /// Returns whether all loops except the loop `index` have drained or ended.
    pub fn have_others_drained(&self, index: usize) -> bool {
        let own = usize::from(self.has_drained[index].load(Ordering::Acquire));
        self.drained.load(Ordering::Acquire) - own + 1 >= self.loops()
    }

    /// Records that the thread of a loop has ended, and removes its connections from the directory.
    ///
    /// After a panic outside a handler, the loop has not closed its connections.
    pub fn record_ended(&self, index: usize) {
        self.has_ended[index].store(true, Ordering::Release);
        self.open[index].store(0, Ordering::Relaxed);
        self.directory.remove_loop(index);
    }

    /// Returns whether the thread of a loop has ended.
    pub fn has_ended(&self, index: usize) -> bool {
        self.has_ended[index].load(Ordering::Acquire)
    }

    /// Ends all loops immediately.
    pub fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Returns whether the loops end now: all have drained, or they were interrupted.
    pub fn is_over(&self) -> bool {
        self.drained.load(Ordering::Acquire) >= self.loops() || self.is_interrupted.load(Ordering::Acquire)
    }

    fn wake_all(&self) {
        self.wakers.iter().for_each(|waker| wake(waker));
    }
}
