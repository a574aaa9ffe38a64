//! The commands that change or query the registry: bind, unbind, join, leave, ungroup, close, online.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use fdpush::shared::SlotSet;
use fdpush::{AbortOutcome, Change, CloseCode, CloseOutcome, Context, Fd};
use serde::Serialize;

use super::command::{self, Command, Shape};
use super::error::ApiError;
use crate::gateway::presence::roster::Roster;
use crate::gateway::wire::target::Target;

/// The maximum length of a close reason (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

/// The maximum number of memberships in one command: connections times groups. They take about the time that a turn of
/// the loop has for commands.
const MEMBERSHIPS_MAX: usize = 20_000;

/// The number of connections that a command matched, and that it changed.
#[derive(Copy, Clone, Default, Serialize)]
struct Changed {
    matched: usize,
    changed: usize,
}

impl Changed {
    fn count(&mut self, change: Change) -> Result<(), ApiError> {
        match change {
            Change::Gone => return Ok(()),
            Change::Done => self.changed += 1,
            Change::Already => {}
            Change::Taken => return Err(ApiError { status: 409, code: "taken", message: change.to_string().into() }),
            Change::Full => return Err(ApiError::too_many(change.to_string())),
            // `BadName`, and changes of later versions of the crate.
            _ => return Err(ApiError::bad_request(change.to_string())),
        }
        self.matched += 1;
        Ok(())
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

pub fn unbind(ctx: &mut Context<'_>, roster: &mut Roster, body: &[u8]) -> Result<String, ApiError> {
    let mut command = Command::read(body, &command::UNBIND)?;
    let target = command.take_target(false)?;
    let mut changed = Changed::default();
    for fd in connections(ctx, &target) {
        changed.count(roster.unbind(ctx, fd))?;
    }
    json(&changed)
}

pub fn join(ctx: &mut Context<'_>, roster: &mut Roster, body: &[u8]) -> Result<String, ApiError> {
    each_membership(&command::JOIN, ctx, body, |ctx, fd, group| roster.join(ctx, fd, group))
}

pub fn leave(ctx: &mut Context<'_>, roster: &mut Roster, body: &[u8]) -> Result<String, ApiError> {
    each_membership(&command::LEAVE, ctx, body, |ctx, fd, group| roster.leave(ctx, fd, group))
}

/// Changes the membership of each connection in each group. A connection counts once, in any number of groups.
fn each_membership(
    shape: &Shape,
    ctx: &mut Context<'_>,
    body: &[u8],
    mut change: impl FnMut(&mut Context<'_>, Fd, &str) -> Change,
) -> Result<String, ApiError> {
    let mut command = Command::read(body, shape)?;
    let groups = command.take_groups()?;
    let target = command.take_target(false)?;
    let connections = connections(ctx, &target);
    let memberships = connections.len().saturating_mul(groups.len());
    if memberships > MEMBERSHIPS_MAX {
        let (connections, groups) = (connections.len(), groups.len());
        return Err(ApiError::too_large(format!(
            "membership limit of a command exceeded ({connections} connections in {groups} groups are {memberships} of {MEMBERSHIPS_MAX})"
        )));
    }
    let mut total = Changed::default();
    for fd in connections {
        let mut changed = Changed::default();
        for group in &groups {
            changed.count(change(ctx, fd, group))?;
        }
        total.matched += usize::from(changed.matched > 0);
        total.changed += usize::from(changed.changed > 0);
    }
    json(&total)
}

pub fn ungroup(ctx: &mut Context<'_>, roster: &mut Roster, body: &[u8]) -> Result<String, ApiError> {
    let mut command = Command::read(body, &command::UNGROUP)?;
    let groups = command.take_groups()?;
    let mut changed = Changed::default();
    for group in &groups {
        changed.matched += roster.ungroup(ctx, group);
    }
    changed.changed = changed.matched;
    json(&changed)
}

pub fn close(ctx: &mut Context<'_>, body: &[u8]) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Closing {
        matched: usize,
    }
    let mut command = Command::read(body, &command::CLOSE)?;
    let target = command.take_target(true)?;
    let code = CloseCode::from(command.code.take().unwrap_or(1000));
    let reason = command.reason.take().map_or(Cow::Borrowed(""), |reason| reason.0);
    let is_abort = command.abort.take().unwrap_or(false);
    if !code.is_sendable() {
        let what = format!("code {} must be 1000 to 1003, 1007 to 1014 or 3000 to 4999", code.as_u16());
        return Err(ApiError::bad_request(what));
    }
    if reason.len() > REASON_BYTES_MAX {
        let what = format!("reason limit exceeded ({} of {REASON_BYTES_MAX} bytes)", reason.len());
        return Err(ApiError::bad_request(what));
    }
    let mut matched = 0;
    for fd in connections(ctx, &target) {
        let is_match = match is_abort {
            true => ctx.abort(fd) != AbortOutcome::Gone,
            false => ctx.close(fd, code, &reason) != CloseOutcome::Gone,
        };
        matched += usize::from(is_match);
    }
    json(&Closing { matched })
}

pub fn online(ctx: &mut Context<'_>, body: &[u8]) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Online<'a> {
        online: BTreeMap<&'a str, Vec<u64>>,
        offline: BTreeSet<&'a str>,
    }
    let uids = Command::read(body, &command::ONLINE)?.take_uids()?;
    let mut answer = Online { online: BTreeMap::new(), offline: BTreeSet::new() };
    for uid in uids.iter().map(AsRef::as_ref) {
        match ctx.fds_of(uid) {
            fds if fds.is_empty() => {
                answer.offline.insert(uid);
            }
            fds => {
                answer.online.insert(uid, fds.into_iter().map(Fd::as_u64).collect());
            }
        }
    }
    json(&answer)
}

/// Returns the open connections of a target, without duplicates.
fn connections(ctx: &Context<'_>, target: &Target<'_>) -> Vec<Fd> {
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
