//! The uids and the group memberships of connections. All changes of uids and memberships go through this module, so
//! that this module can notify the members of groups and the back end.
//!
//! The members of a group get notices about users who joined and users who left. The server sends the notices of a
//! group at the end of a turn of the loop, or before a push to the group. The back end gets events about users who go
//! online and users who go offline.
//!
//! If the server has several loops, each loop has a roster, and all rosters share the presence of the users in groups.
//! Only the first loop sends notices, so that the notices of a group arrive in order.

use std::fmt;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use compact_str::CompactString;
use fdpush::{Change, Closed, Context, Fd, RemoteError, Request};

use super::groups::GroupPresence;
use crate::gateway::hooks::emitter::EventEmitter;
use crate::gateway::runtime::clock;
use crate::gateway::runtime::log_throttle::LogThrottle;
use crate::gateway::runtime::loop_state::LoopState;
use crate::gateway::runtime::loops::{HOME, home_fd};
use crate::gateway::runtime::portion::{group_work, take_portion};
use crate::gateway::serving::session::Session;
use crate::gateway::wire::frame;

/// The minimum interval between two log lines about identities with too many groups.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// If the inbox of the first loop is full, another loop repeats its request for group notices after this time.
const REPEAT_AFTER: Duration = Duration::from_millis(1);

/// The users in groups, and the emitter of events about connections.
#[derive(Debug)]
pub struct Roster {
    presence: LoopState<GroupPresence>,
    events: EventEmitter,
    /// Whether another loop has requested the notices of all changed groups, and the first loop has not handled the
    /// request yet. `None` with one loop.
    request: Option<Arc<AtomicBool>>,
    /// The throttle of log lines about identities with too many groups.
    refusals: LogThrottle,
}

/// The connections that one or more loops have removed from a group.
#[derive(Debug)]
pub struct Removed {
    pub group: String,
    pub members: Vec<Fd>,
    /// The uids of the users who left the group with the removed connections, if an earlier notice named the user as
    /// joined.
    pub left: Vec<CompactString>,
}

impl Removed {
    /// Adds the connections that another loop has removed from the same group.
    pub fn merge(&mut self, other: Removed) {
        self.members.extend(other.members);
        self.left.extend(other.left);
    }
}

/// The error of a uid that has reached its connection limit. The field is the limit.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct UidLimit(pub u32);

impl Roster {
    /// Creates an empty roster for one loop.
    #[cfg(test)]
    pub fn new(events: EventEmitter) -> Roster {
        Roster::with(LoopState::Own(GroupPresence::default()), events, None)
    }

    /// Creates empty rosters that share their state, one for each emitter. With one emitter, the roster needs no lock
    /// for its state.
    pub fn several(events: Vec<EventEmitter>) -> Vec<Roster> {
        let request = (events.len() > 1).then(Arc::default);
        let presence = LoopState::handles(GroupPresence::default(), events.len());
        presence
            .into_iter()
            .zip(events)
            .map(|(presence, events)| Roster::with(presence, events, request.clone()))
            .collect()
    }

    fn with(presence: LoopState<GroupPresence>, events: EventEmitter, request: Option<Arc<AtomicBool>>) -> Roster {
        Roster { presence, events, request, refusals: LogThrottle::new(LOG_EVERY) }
    }

    /// Checks that a uid may have another connection.
    pub fn check_uid_limit(&self, ctx: &Context<'_>, uid: &str) -> Result<(), UidLimit> {
        match ctx.limits().uid_connections_max {
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
        match (change, ctx.limits().uid_connections_max) {
            (Change::Done, _) => self.rename(ctx, fd, before.as_deref(), Some(uid)),
            // After the check, another loop bound a connection to the uid. So the uid has now reached its limit.
            (Change::Full, Some(max)) => return Err(UidLimit(max)),
            _ => {}
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
            && self.presence.with(|presence| presence.leave(group, uid))
        {
            self.request_notices(ctx);
        }
        change
    }

    /// Removes all connections from a group, and notifies their clients immediately. Returns the number of removed
    /// connections.
    ///
    /// If the server has several loops, each loop calls [`ungroup_here`](Roster::ungroup_here) instead.
    pub fn ungroup(&mut self, ctx: &mut Context<'_>, group: &str) -> usize {
        let members = ctx.members(group);
        ctx.ungroup(group);
        let count = members.len();
        if let Some(notice) = self.presence.with(|presence| presence.clear(group)) {
            let text = frame::notice(group, &notice, ctx.limits().queue_bytes_max);
            ctx.push_fds(members, &text);
        }
        count
    }

    /// Removes the connections of this loop from a group, on a server with several loops.
    ///
    /// After all loops have called this method, the first loop calls [`notify_removed`](Roster::notify_removed).
    pub fn ungroup_here(&mut self, ctx: &mut Context<'_>, group: &str) -> Removed {
        let mut removed = Removed { group: group.to_owned(), members: ctx.members(group), left: Vec::new() };
        for fd in &removed.members {
            ctx.leave(*fd, group);
        }
        let uids = removed.members.iter().filter_map(|fd| ctx.uid_of(*fd));
        removed.left = self
            .presence
            .with(|presence| uids.filter(|uid| presence.leave_silently(group, uid)).map(CompactString::from).collect());
        removed
    }

    /// Sends a `left` notice to the clients whose connections were removed from a group.
    pub fn notify_removed(&mut self, ctx: &mut Context<'_>, removed: Removed) {
        let Removed { group, members, left } = removed;
        if let Some(mut notice) = self.presence.with(|presence| presence.notice_of_left(&group, left)) {
            notice.uids.sort_unstable();
            let text = frame::notice(&group, &notice, ctx.limits().queue_bytes_max);
            ctx.push_fds(members, &text);
        }
    }

    /// Handles the end of a connection.
    pub fn handle_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        self.events.emit_close(ctx, fd, closed);
        let Some(uid) = ctx.uid_of(fd).map(str::to_owned) else { return };
        let groups = ctx.groups_of(fd);
        if !groups.is_empty() {
            let leave = |presence: &mut GroupPresence| {
                groups.into_iter().fold(false, |is_changed, group| presence.leave(group, &uid) | is_changed)
            };
            if self.presence.with(leave) {
                self.request_notices(ctx);
            }
        }
        self.events.handle_departure(ctx, &uid);
    }

    /// Sends the notices of groups with changes, until the work reaches the maximum of one turn of the loop. The next
    /// turn sends the notices of the remaining groups.
    ///
    /// Without this maximum, the loop could not serve other clients while the loop sends the notices about a client
    /// that leaves a thousand large groups. With several loops, only the first loop sends notices.
    ///
    /// Returns whether no group is left whose notices this loop must send.
    pub fn notify_groups(&mut self, ctx: &mut Context<'_>) -> bool {
        if ctx.loop_index() != HOME {
            return true;
        }
        let changed = iter::from_fn(|| self.presence.with(GroupPresence::next_changed));
        for group in take_portion(changed, |group| group_work(ctx, group)) {
            self.notify_group(ctx, &group);
        }
        let has_more = self.presence.with(|presence| presence.has_changed());
        if has_more {
            ctx.request_turn_end();
        }
        !has_more
    }

    /// Drops the notices of all groups with changes.
    pub fn discard_notices(&mut self) {
        self.presence.with(|presence| {
            while let Some(group) = presence.next_changed() {
                presence.take_notices(&group);
            }
        });
    }

    /// Prepares a message to a group: on the first loop, sends the pending notices of the group. On any other loop,
    /// does nothing.
    pub fn notify_before_message(&mut self, ctx: &mut Context<'_>, group: &str) {
        if ctx.loop_index() == HOME {
            self.notify_group(ctx, group);
        }
    }

    /// Sends the notices of a group: a notice about users who left, and a notice about users who joined.
    fn notify_group(&mut self, ctx: &mut Context<'_>, group: &str) {
        for mut notice in self.presence.with(|presence| presence.take_notices(group)).into_iter().flatten() {
            if self.request.is_some() {
                // Changes on several loops have no defined order, so the uids are sorted.
                notice.uids.sort_unstable();
            }
            let text = frame::notice(group, &notice, ctx.limits().queue_bytes_max);
            ctx.push_group(group, &text);
        }
    }

    /// Requests a call of [`notify_groups`](Roster::notify_groups) on the first loop, which sends the notices.
    fn request_notices(&self, ctx: &mut Context<'_>) {
        match &self.request {
            Some(request) if ctx.loop_index() != HOME => {
                if !request.swap(true, Ordering::AcqRel) {
                    request_at_home(ctx, Arc::clone(request));
                }
            }
            _ => ctx.request_turn_end(),
        }
    }

    fn rename(&mut self, ctx: &mut Context<'_>, fd: Fd, before: Option<&str>, after: Option<&str>) {
        if let Some(uid) = after {
            self.events.handle_arrival(uid);
        }
        if let Some(uid) = before {
            self.events.handle_departure(ctx, uid);
        }
        let groups = ctx.groups_of(fd);
        let change = |presence: &mut GroupPresence| {
            let mut is_changed = false;
            for group in groups {
                is_changed |= before.is_some_and(|uid| presence.leave(group, uid));
                is_changed |= after.is_some_and(|uid| presence.join(group, uid));
            }
            is_changed
        };
        if self.presence.with(change) {
            self.request_notices(ctx);
        }
    }

    fn add_to_presence(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) {
        if let Some(uid) = ctx.uid_of(fd)
            && self.presence.with(|presence| presence.join(group, uid))
        {
            self.request_notices(ctx);
        }
    }
}

/// Requests from the first loop that it sends the pending notices at the end of its turn. If the inbox of the first
/// loop is full, the request is repeated after [`REPEAT_AFTER`].
fn request_at_home(ctx: &mut Context<'_>, request: Arc<AtomicBool>) {
    let taken = Arc::clone(&request);
    let reply = ctx.remote().call_at(home_fd(), move |ctx| {
        taken.store(false, Ordering::Release);
        ctx.request_turn_end();
    });
    if reply.sent().is_err_and(|error| error == RemoteError::Full) {
        ctx.after(REPEAT_AFTER, move |ctx| request_at_home(ctx, request));
    }
}

impl fmt::Display for UidLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection limit of the uid reached ({})", self.0)
    }
}
