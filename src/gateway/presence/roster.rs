//! Uids and memberships: every change of either goes through here, so that groups and the back end hear of it.
//!
//! Members of a group hear of persons who join and leave, once a turn of the loop; the back end hears of persons who come
//! online and go offline.

use std::fmt;

use fdpush::{Change, Closed, Context, Fd, Request};

use super::groups::Presence;
use crate::gateway::hooks::emitter::Watch;
use crate::gateway::serving::session::Session;
use crate::gateway::wire::frame;

/// The persons, as groups and the back end see them.
#[derive(Debug)]
pub struct Roster {
    presence: Presence,
    watch: Watch,
    /// Connections that a uid may have.
    uid_connections_max: Option<u32>,
}

/// A uid has as many connections as it may have, which are so many.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct UidFull(pub u32);

impl Roster {
    /// Nobody is here. The back end hears through `watch`.
    pub fn new(watch: Watch) -> Roster {
        Roster { presence: Presence::default(), watch, uid_connections_max: None }
    }

    /// Bounds the connections of a uid from now on; who is there stays.
    pub fn set_uid_connections_max(&mut self, max: Option<u32>) {
        self.uid_connections_max = max;
    }

    /// Whether a uid may have one connection more.
    pub fn check_room(&self, ctx: &Context<'_>, uid: &str) -> Result<(), UidFull> {
        match self.uid_connections_max {
            Some(max) if ctx.connection_count(uid) >= max as usize => Err(UidFull(max)),
            _ => Ok(()),
        }
    }

    /// What the back end hears of connections.
    pub fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// A connection is open. This comes before anything is pushed to it: what closes it would take its uid away, and
    /// it would go without having come.
    pub fn handle_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) {
        self.watch.opened(ctx, fd, request);
        if let Some(uid) = ctx.uid_of(fd) {
            self.watch.came(uid);
        }
    }

    /// Puts a connection into the groups that it is to be in from the start.
    pub fn join_first_groups(&mut self, ctx: &mut Context<'_>, fd: Fd) {
        let groups = ctx.session_mut::<Session>(fd).map(|session| std::mem::take(&mut session.groups));
        for group in groups.unwrap_or_default() {
            self.join(ctx, fd, &group);
        }
    }

    /// Binds a connection to a uid that may have one connection more. In its groups one person leaves, and another joins.
    pub fn bind(&mut self, ctx: &mut Context<'_>, fd: Fd, uid: &str) -> Result<Change, UidFull> {
        let before = ctx.uid_of(fd).map(str::to_owned);
        if ctx.is_open(fd) && before.as_deref() != Some(uid) {
            self.check_room(ctx, uid)?;
        }
        let change = ctx.bind(fd, uid);
        if change.is_done() {
            self.rename(ctx, fd, before.as_deref(), Some(uid));
        }
        Ok(change)
    }

    /// Takes a connection's uid away.
    pub fn unbind(&mut self, ctx: &mut Context<'_>, fd: Fd) -> Change {
        let before = ctx.uid_of(fd).map(str::to_owned);
        let change = ctx.unbind(fd);
        if change.is_done() {
            self.rename(ctx, fd, before.as_deref(), None);
        }
        change
    }

    /// Puts a connection into a group. The group, the newcomer included, hears of it at the end of the turn.
    pub fn join(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) -> Change {
        let change = ctx.join(fd, group);
        if change.is_done() {
            self.enter(ctx, fd, group);
        }
        change
    }

    /// Takes a connection out of a group. Those who are still in it hear of it at the end of the turn.
    pub fn leave(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) -> Change {
        let change = ctx.leave(fd, group);
        if change.is_done()
            && let Some(uid) = ctx.uid_of(fd)
            && self.presence.exit(group, uid)
        {
            ctx.request_turn_end();
        }
        change
    }

    /// Takes all connections out of a group, and tells them so at once. How many they were.
    pub fn ungroup(&mut self, ctx: &mut Context<'_>, group: &str) -> usize {
        let members = ctx.members(group);
        ctx.ungroup(group);
        let count = members.len();
        if let Some(notice) = self.presence.dissolve(group) {
            let text = frame::notice(group, &notice, ctx.limits().queue_bytes_max);
            ctx.push_fds(members, &text);
        }
        count
    }

    /// A connection is open no more.
    pub fn handle_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        self.watch.closed(ctx, fd, closed);
        let Some(uid) = ctx.uid_of(fd).map(str::to_owned) else { return };
        let mut is_changed = false;
        for group in ctx.groups_of(fd) {
            is_changed |= self.presence.exit(group, &uid);
        }
        if is_changed {
            ctx.request_turn_end();
        }
        self.watch.went(ctx, &uid);
    }

    /// Tells all groups what changed in them.
    pub fn tell_all(&mut self, ctx: &mut Context<'_>) {
        while let Some(group) = self.presence.next_changed() {
            self.tell(ctx, &group);
        }
    }

    /// Tells a group what changed in it: one notice of those who left, and one of those who joined.
    pub fn tell(&mut self, ctx: &mut Context<'_>, group: &str) {
        for notice in self.presence.take_notices(group).into_iter().flatten() {
            let text = frame::notice(group, &notice, ctx.limits().queue_bytes_max);
            ctx.push_group(group, &text);
        }
    }

    fn rename(&mut self, ctx: &mut Context<'_>, fd: Fd, before: Option<&str>, after: Option<&str>) {
        if let Some(uid) = after {
            self.watch.came(uid);
        }
        if let Some(uid) = before {
            self.watch.went(ctx, uid);
        }
        let mut is_changed = false;
        for group in ctx.groups_of(fd) {
            is_changed |= before.is_some_and(|uid| self.presence.exit(group, uid));
            is_changed |= after.is_some_and(|uid| self.presence.enter(group, uid));
        }
        if is_changed {
            ctx.request_turn_end();
        }
    }

    fn enter(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) {
        if let Some(uid) = ctx.uid_of(fd)
            && self.presence.enter(group, uid)
        {
            ctx.request_turn_end();
        }
    }
}

impl fmt::Display for UidFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a uid has at most {} connections", self.0)
    }
}
