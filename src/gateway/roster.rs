//! Who is who and where: every change of a uid or a membership goes through here, so that those who watch hear of it.
//!
//! Members of a group hear of persons who come and go; the back end, of persons who come online and go offline.

use std::fmt;

use fdpush::{Change, Closed, Context, Fd, Request};

use super::frame;
use super::presence::Presence;
use super::session::Session;
use super::watch::Watch;

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
            Some(max) if ctx.fds_of(uid).len() >= max as usize => Err(UidFull(max)),
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

    /// Says who a connection is from now on, if that one may have one more; in its groups one person leaves, and another
    /// comes.
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

    /// Puts a connection into a group, and tells the group, the newcomer included.
    pub fn join(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) -> Change {
        let (change, news) = self.join_untold(ctx, fd, group);
        tell(ctx, group, news);
        change
    }

    /// As [`join`](Roster::join), but the group is yet to be told the news, if there are any.
    pub fn join_untold(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) -> (Change, Option<String>) {
        let change = ctx.join(fd, group);
        let uid = ctx.uid_of(fd).filter(|_| change.is_done());
        let news = uid.and_then(|uid| self.enter(group, uid));
        (change, news)
    }

    /// Takes a connection out of a group, and tells who is left.
    pub fn leave(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) -> Change {
        let (change, news) = self.leave_untold(ctx, fd, group);
        tell(ctx, group, news);
        change
    }

    /// As [`leave`](Roster::leave), but the group is yet to be told the news, if there are any.
    pub fn leave_untold(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str) -> (Change, Option<String>) {
        let change = ctx.leave(fd, group);
        let uid = ctx.uid_of(fd).filter(|_| change.is_done());
        let news = uid.and_then(|uid| self.exit(group, uid));
        (change, news)
    }

    /// A connection is open no more.
    pub fn handle_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        self.watch.closed(ctx, fd, closed);
        let Some(uid) = ctx.uid_of(fd).map(str::to_owned) else { return };
        let groups: Vec<String> = ctx.groups_of(fd).into_iter().map(str::to_owned).collect();
        for group in groups {
            let news = self.exit(&group, &uid);
            tell(ctx, &group, news);
        }
        self.watch.went(ctx, &uid);
    }

    fn rename(&mut self, ctx: &mut Context<'_>, fd: Fd, before: Option<&str>, after: Option<&str>) {
        let groups: Vec<String> = ctx.groups_of(fd).into_iter().map(str::to_owned).collect();
        if let Some(uid) = after {
            self.watch.came(uid);
        }
        if let Some(uid) = before {
            self.watch.went(ctx, uid);
        }
        for group in groups {
            if let Some(uid) = before {
                let news = self.exit(&group, uid);
                tell(ctx, &group, news);
            }
            if let Some(uid) = after {
                let news = self.enter(&group, uid);
                tell(ctx, &group, news);
            }
        }
    }

    fn enter(&mut self, group: &str, uid: &str) -> Option<String> {
        let count = self.presence.enter(group, uid)?;
        Some(frame::presence("joined", group, uid, count))
    }

    fn exit(&mut self, group: &str, uid: &str) -> Option<String> {
        let count = self.presence.exit(group, uid)?;
        Some(frame::presence("left", group, uid, count))
    }
}

impl fmt::Display for UidFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a uid has at most {} connections", self.0)
    }
}

/// Tells a group the news, if there are any.
pub fn tell(ctx: &mut Context<'_>, group: &str, news: Option<String>) {
    if let Some(news) = news {
        ctx.push_group(group, &news);
    }
}
