//! The API commands about users and groups: bind, unbind, join, leave, ungroup, online.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::vec;

use fdpush::shared::SlotSet;
use fdpush::{Change, Context, Fd, Response};
use serde::Serialize;

use super::command::{self, Command, Shape};
use super::error::ApiError;
use super::long_commands::{LongCommand, Outcome};
use super::response::json_response;
use crate::gateway::presence::roster::{Removed, Roster};
use crate::gateway::runtime::portion::{connection_work, group_work, take_portion};
use crate::gateway::wire::target::Target;

/// The maximum number of memberships in one join or leave command: connections times groups.
///
/// A join or leave command is carried out in one turn of the loop, so this limit bounds the duration of the turn.
const MEMBERSHIPS_MAX: usize = 10_000;

/// The numbers of connections that a command matched and changed.
#[derive(Copy, Clone, Default, Debug, Serialize)]
pub struct Changed {
    pub matched: usize,
    pub changed: usize,
}

impl Changed {
    /// Returns the response that contains these numbers as JSON.
    pub fn response(&self) -> Result<Response, ApiError> {
        Ok(json_response(json(self)?))
    }

    /// Counts a connection as matched, and as changed if the command has changed it.
    ///
    /// # Errors
    /// Returns an error if the change of the connection was refused.
    pub fn count(&mut self, change: Change) -> Result<(), ApiError> {
        match change {
            Change::Gone => return Ok(()),
            Change::Done => self.changed += 1,
            Change::Already => {}
            Change::Taken => return Err(ApiError { status: 409, code: "taken", message: change.to_string().into() }),
            Change::Full => return Err(ApiError::too_many(change.to_string())),
            // The name is invalid, or a later version of the crate has added a variant to `Change`.
            _ => return Err(ApiError::bad_request(change.to_string())),
        }
        self.matched += 1;
        Ok(())
    }
}

impl std::ops::Add for Changed {
    type Output = Changed;

    fn add(self, other: Changed) -> Changed {
        Changed { matched: self.matched + other.matched, changed: self.changed + other.changed }
    }
}

pub fn bind(ctx: &mut Context<'_>, roster: &mut Roster, body: &[u8]) -> Result<String, ApiError> {
    let mut command = Command::read(body, &command::BIND)?;
    let (fd, uid) = command.take_binding()?;
    let mut changed = Changed::default();
    let change = roster.bind(ctx, fd, &uid);
    changed.count(change.map_err(|full| ApiError::too_many(full.to_string()))?)?;
    json(&changed)
}

/// An unbind command, which removes the uids of connections.
#[derive(Debug)]
pub struct Unbind {
    left: vec::IntoIter<Fd>,
    changed: Changed,
}

impl Unbind {
    /// Parses an unbind command, and finds the connections that match its target.
    ///
    /// # Errors
    /// Returns an error if the unbind command is invalid.
    pub fn read(ctx: &Context<'_>, body: &[u8]) -> Result<Unbind, ApiError> {
        let target = Command::read(body, &command::UNBIND)?.take_target(false)?;
        Ok(Unbind { left: connections(ctx, &target).into_iter(), changed: Changed::default() })
    }
}

impl LongCommand for Unbind {
    fn work(&self, ctx: &Context<'_>) -> usize {
        self.left.as_slice().iter().map(|fd| connection_work(ctx, *fd)).sum()
    }

    fn carry_out_portion(&mut self, ctx: &mut Context<'_>, roster: &mut Roster) {
        for fd in take_portion(&mut self.left, |fd| connection_work(ctx, *fd)) {
            let change = roster.unbind(ctx, fd);
            // A connection that has closed since the command was parsed does not count as matched.
            self.changed.matched += usize::from(change.is_ok());
            self.changed.changed += usize::from(change.is_done());
        }
    }

    fn is_done(&self) -> bool {
        self.left.len() == 0
    }

    fn take_outcome(&mut self) -> Outcome {
        let Changed { matched, changed } = self.changed;
        Outcome { matched, changed, removed: Vec::new() }
    }

    fn response(&self) -> Result<Response, ApiError> {
        self.changed.response()
    }
}

pub fn join(ctx: &mut Context<'_>, roster: &mut Roster, body: &[u8]) -> Result<String, ApiError> {
    let (total, _) = Memberships::read(ctx, body, &command::JOIN)?.join(ctx, roster);
    json(&total?)
}

pub fn leave(ctx: &mut Context<'_>, roster: &mut Roster, body: &[u8]) -> Result<String, ApiError> {
    json(&Memberships::read(ctx, body, &command::LEAVE)?.leave(ctx, roster)?)
}

/// The memberships of a join or leave command: each connection of the command on this loop in each group of the command.
pub struct Memberships<'a> {
    connections: Vec<Fd>,
    groups: Vec<Cow<'a, str>>,
}

impl<'a> Memberships<'a> {
    /// Checks a join or leave command, and returns the number of its groups.
    ///
    /// # Errors
    /// Returns an error if the command is invalid.
    pub fn check(body: &'a [u8], shape: &Shape) -> Result<usize, ApiError> {
        let mut command = Command::read(body, shape)?;
        let groups = command.take_groups()?;
        command.take_target(false)?;
        Ok(groups.len())
    }

    /// Parses a join or leave command, and finds the connections of its target on this loop.
    ///
    /// # Errors
    /// Returns an error if the command is invalid or has too many memberships.
    pub fn read(ctx: &Context<'_>, body: &'a [u8], shape: &Shape) -> Result<Memberships<'a>, ApiError> {
        let mut command = Command::read(body, shape)?;
        let groups = command.take_groups()?;
        let connections = connections(ctx, &command.take_target(false)?);
        check_memberships(connections.len(), groups.len())?;
        Ok(Memberships { connections, groups })
    }

    /// Returns the number of connections.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Adds the connections to the groups. Returns the counts or the error, and the memberships that were added. If a
    /// connection cannot be added, undoes all additions.
    pub fn join(&self, ctx: &mut Context<'_>, roster: &mut Roster) -> (Result<Changed, ApiError>, Vec<(Fd, String)>) {
        let mut joined = Vec::new();
        let total = self.change(|fd, group| {
            let change = roster.join(ctx, fd, group);
            if change.is_done() {
                joined.push((fd, group.to_owned()));
            }
            change
        });
        // A join command with an error must have no effect, so the command leaves the groups that it has joined.
        if total.is_err() {
            for (fd, group) in joined.drain(..).rev() {
                roster.leave(ctx, fd, &group);
            }
        }
        (total, joined)
    }

    /// Removes the connections from the groups.
    pub fn leave(&self, ctx: &mut Context<'_>, roster: &mut Roster) -> Result<Changed, ApiError> {
        self.change(|fd, group| roster.leave(ctx, fd, group))
    }

    /// Changes each membership, and stops at the first error.
    ///
    /// A connection counts once in the result, even if several of its memberships change.
    fn change<'m>(&'m self, mut change: impl FnMut(Fd, &'m str) -> Change) -> Result<Changed, ApiError> {
        let mut total = Changed::default();
        for fd in &self.connections {
            let mut changed = Changed::default();
            for group in &self.groups {
                changed.count(change(*fd, group))?;
            }
            total.matched += usize::from(changed.matched > 0);
            total.changed += usize::from(changed.changed > 0);
        }
        Ok(total)
    }
}

/// Checks the number of memberships of a command: connections times groups.
pub fn check_memberships(connections: usize, groups: usize) -> Result<(), ApiError> {
    match connections.saturating_mul(groups) {
        0..=MEMBERSHIPS_MAX => Ok(()),
        memberships => Err(ApiError::too_large(format!(
            "membership limit of a command exceeded ({connections} connections times {groups} groups: {memberships} of {MEMBERSHIPS_MAX})"
        ))),
    }
}

/// An ungroup command, which removes all members of groups. All members of one group leave in one turn of the loop.
#[derive(Debug)]
pub struct Ungroup {
    left: vec::IntoIter<String>,
    matched: usize,
    /// The connections that were removed from groups, if the server has several loops.
    removed: Vec<Removed>,
}

impl Ungroup {
    /// Parses an ungroup command.
    ///
    /// # Errors
    /// Returns an error if the ungroup command is invalid.
    pub fn read(body: &[u8]) -> Result<Ungroup, ApiError> {
        let groups = Command::read(body, &command::UNGROUP)?.take_groups()?;
        let groups: Vec<String> = groups.into_iter().map(Cow::into_owned).collect();
        Ok(Ungroup { left: groups.into_iter(), matched: 0, removed: Vec::new() })
    }
}

impl LongCommand for Ungroup {
    fn work(&self, ctx: &Context<'_>) -> usize {
        self.left.as_slice().iter().map(|group| group_work(ctx, group)).sum()
    }

    fn carry_out_portion(&mut self, ctx: &mut Context<'_>, roster: &mut Roster) {
        for group in take_portion(&mut self.left, |group| group_work(ctx, group)) {
            if ctx.loop_count() == 1 {
                self.matched += roster.ungroup(ctx, &group);
            } else {
                let removed = roster.ungroup_here(ctx, &group);
                self.matched += removed.members.len();
                self.removed.push(removed);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.left.len() == 0
    }

    fn take_outcome(&mut self) -> Outcome {
        Outcome { matched: self.matched, changed: self.matched, removed: std::mem::take(&mut self.removed) }
    }

    fn response(&self) -> Result<Response, ApiError> {
        Changed { matched: self.matched, changed: self.matched }.response()
    }
}

pub fn online(ctx: &mut Context<'_>, body: &[u8]) -> Result<String, ApiError> {
    let uids = Command::read(body, &command::ONLINE)?.take_uids()?;
    let fds_of = |uid: &str| ctx.fds_of(uid).into_iter().map(Fd::as_u64).collect();
    online_json(&uids.into_iter().map(|uid| (fds_of(&uid), uid)).map(|(fds, uid)| (uid, fds)).collect())
}

/// Returns the JSON of the answer to an `online` command. `fds` contains the fds of each uid. A uid without fds is
/// offline.
pub fn online_json<U: AsRef<str> + Ord>(fds: &BTreeMap<U, Vec<u64>>) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Online<'a> {
        online: BTreeMap<&'a str, &'a [u64]>,
        offline: BTreeSet<&'a str>,
    }
    let mut answer = Online { online: BTreeMap::new(), offline: BTreeSet::new() };
    for (uid, fds) in fds {
        if fds.is_empty() {
            answer.offline.insert(uid.as_ref());
        } else {
            answer.online.insert(uid.as_ref(), fds);
        }
    }
    json(&answer)
}

/// Returns the open connections of a target on this loop, without duplicates.
pub fn connections(ctx: &Context<'_>, target: &Target<'_>) -> Vec<Fd> {
    let mut seen = SlotSet::default();
    let mut once = |fds: Vec<Fd>| fds.into_iter().filter(|fd| seen.insert(fd.slot())).collect::<Vec<Fd>>();
    match target {
        Target::Fds(fds) => fds.iter().copied().filter(|fd| ctx.is_open(*fd)).collect(),
        Target::Uids(uids) => uids.iter().flat_map(|uid| ctx.fds_of(uid)).collect(),
        Target::Groups(groups) => groups.iter().flat_map(|group| once(ctx.members(group))).collect(),
        Target::All => ctx.connections().collect(),
    }
}

pub fn json(answer: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(answer).map_err(|error| {
        log::error!("cannot serialize an answer: {error}");
        ApiError { status: 500, code: "internal_error", message: "cannot serialize the answer".into() }
    })
}
