//! The uids and the group memberships of connections. All changes of uids and memberships go through this module, so
//! that this module can notify the members of groups and the back end.
//!
//! The members of a group get notices about users who joined and users who left. The server sends the notices of a
//! group at the end of a turn of the loop, or before a push to the group. The back end gets events about users who go
//! online and users who go offline.

use std::fmt;
use std::iter;
use std::time::Duration;

use fdpush::{Change, Closed, Context, Fd, Request};

use super::groups::GroupPresence;
use crate::gateway::hooks::emitter::EventEmitter;
use crate::gateway::runtime::clock;
use crate::gateway::runtime::log_throttle::LogThrottle;
use crate::gateway::runtime::portion::{group_work, take_portion};
use crate::gateway::serving::session::Session;
use crate::gateway::wire::frame;

/// The minimum interval between two log lines about identities with too many groups.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The users in groups, and the emitter of events about connections.
#[derive(Debug)]
pub struct Roster {
    presence: GroupPresence,
    events: EventEmitter,
    /// The maximum number of connections of a uid. `None` means that there is no maximum.
    uid_connections_max: Option<u32>,
    /// The throttle of log lines about identities with too many groups.
    refusals: LogThrottle,
}

/// The error of a uid that has reached its connection limit. The field is the limit.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct UidLimit(pub u32);

impl Roster {
    /// Creates an empty roster.
    pub fn new(events: EventEmitter) -> Roster {
        Roster {
            presence: GroupPresence::default(),
            events,
            uid_connections_max: None,
            refusals: LogThrottle::new(LOG_EVERY),
        }
    }

    /// Sets the connection limit of a uid. The limit closes no connection that is already open.
    pub fn set_uid_connections_max(&mut self, max: Option<u32>) {
        self.uid_connections_max = max;
    }

    /// Checks that a uid may have another connection.
    pub fn check_uid_limit(&self, ctx: &Context<'_>, uid: &str) -> Result<(), UidLimit> {
        match self.uid_connections_max {
            Some(max) if ctx.connection_count(uid) >= max as usize => Err(UidLimit(max)),
            _ => Ok(()),
        }
    }

    /// Returns the emitter of events.
    pub fn events(&mut self) -> &mut EventEmitter {
        &mut self.events
    }

    /// Handles a new connection. The connection joins the groups of its identity.
    ///
    /// The caller must call this method before the first push to the connection. A push can close the connection, and the
    /// back end must get `online` before `offline`.
    pub fn handle_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
        let groups = self.join_first_groups(ctx, fd);
        self.events.emit_open(ctx, fd, request, &groups);
        if let Some(uid) = ctx.uid_of(fd) {
            self.events.handle_arrival(uid);
        }
    }

    /// Adds a new connection to the groups that its session lists. Returns the groups that the connection joined,
    /// without duplicates.
    fn join_first_groups(&mut self, ctx: &mut Context<'_>, fd: Fd) -> Vec<String> {
        let listed = ctx.session_mut::<Session>(fd).map(|session| std::mem::take(&mut session.groups));
        let mut joined = listed.unwrap_or_default();
        let (count, mut refused) = (joined.len(), 0);
        joined.retain(|group| {
            let change = self.join(ctx, fd, group);
            refused += usize::from(!change.is_ok());
            change.is_done()
        });
        if refused > 0
            && let Some(more) = self.refusals.admit(clock::now())
        {
            log::warn!(
                "fd {fd}: {refused} of the {count} groups of its identity not joined: group limit reached{more}"
            );
        }
        joined
    }

    /// Binds a connection to a uid, unless the limit of the uid is reached. In the groups of the connection, the old
    /// uid leaves and the new uid joins.
    pub fn bind(&mut self, ctx: &mut Context<'_>, fd: Fd, uid: &str) -> Result<Change, UidLimit> {
        let before = ctx.uid_of(fd).map(str::to_owned);
        if ctx.is_open(fd) && before.as_deref() != Some(uid) {
            self.check_uid_limit(ctx, uid)?;
        }
        let change = ctx.bind(fd, uid);
        if change.is_done() {
            self.rename(ctx, fd, before.as_deref(), Some(uid));
        }
        Ok(change)
    }

    /// Removes the uid of a connection.
    pub fn unbind(&mut self, ctx: &mut Context<'_>, fd: Fd) -> Change {
        let before = ctx.uid_of(fd).map(str::to_owned);
        let change = ctx.unbind(fd);
        if change.is_done() {
            self.rename(ctx, fd, before.as_deref(), None);
        }
        change
    }

    /// Adds a connection to a group. All members of the group get a notice at the end of the turn of the loop.
    pub fn join(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) -> Change {
        let change = ctx.join(fd, group);
        if change.is_done() {
            self.add_to_presence(ctx, fd, group);
        }
        change
    }

    /// Removes a connection from a group. The remaining members of the group get a notice at the end of the turn of the
    /// loop.
    pub fn leave(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) -> Change {
        let change = ctx.leave(fd, group);
        if change.is_done()
            && let Some(uid) = ctx.uid_of(fd)
            && self.presence.leave(group, uid)
        {
            ctx.request_turn_end();
        }
        change
    }

    /// Removes all connections from a group, and notifies their clients at once. Returns the number of removed
    /// connections.
    pub fn ungroup(&mut self, ctx: &mut Context<'_>, group: &str) -> usize {
        let members = ctx.members(group);
        ctx.ungroup(group);
        let count = members.len();
        if let Some(notice) = self.presence.clear(group) {
            let text = frame::notice(group, &notice, ctx.limits().queue_bytes_max);
            ctx.push_fds(members, &text);
        }
        count
    }

    /// Handles the end of a connection.
    pub fn handle_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        self.events.emit_close(ctx, fd, closed);
        let Some(uid) = ctx.uid_of(fd).map(str::to_owned) else { return };
        let mut is_changed = false;
        for group in ctx.groups_of(fd) {
            is_changed |= self.presence.leave(group, &uid);
        }
        if is_changed {
            ctx.request_turn_end();
        }
        self.events.handle_departure(ctx, &uid);
    }

    /// Sends the notices of a portion of the groups with changes. The next turn of the loop sends the notices of the
    /// remaining groups.
    ///
    /// Without the limit of a portion, a client that leaves a thousand large groups would occupy the loop with the
    /// notices about its departure.
    pub fn notify_groups(&mut self, ctx: &mut Context<'_>) {
        let changed = iter::from_fn(|| self.presence.next_changed());
        for group in take_portion(changed, |group| group_work(ctx, group)) {
            self.notify_group(ctx, &group);
        }
        if self.presence.has_changed() {
            ctx.request_turn_end();
        }
    }

    /// Drops the notices of all groups with changes.
    pub fn discard_notices(&mut self) {
        while let Some(group) = self.presence.next_changed() {
            self.presence.take_notices(&group);
        }
    }

    /// Sends the notices of a group: a notice about users who left, and a notice about users who joined.
    pub fn notify_group(&mut self, ctx: &mut Context<'_>, group: &str) {
        for notice in self.presence.take_notices(group).into_iter().flatten() {
            let text = frame::notice(group, &notice, ctx.limits().queue_bytes_max);
            ctx.push_group(group, &text);
        }
    }

    fn rename(&mut self, ctx: &mut Context<'_>, fd: Fd, before: Option<&str>, after: Option<&str>) {
        if let Some(uid) = after {
            self.events.handle_arrival(uid);
        }
        if let Some(uid) = before {
            self.events.handle_departure(ctx, uid);
        }
        let mut is_changed = false;
        for group in ctx.groups_of(fd) {
            is_changed |= before.is_some_and(|uid| self.presence.leave(group, uid));
            is_changed |= after.is_some_and(|uid| self.presence.join(group, uid));
        }
        if is_changed {
            ctx.request_turn_end();
        }
    }

    fn add_to_presence(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) {
        if let Some(uid) = ctx.uid_of(fd)
            && self.presence.join(group, uid)
        {
            ctx.request_turn_end();
        }
    }
}

impl fmt::Display for UidLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection limit of the uid reached ({})", self.0)
    }
}
