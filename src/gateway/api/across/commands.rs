//! The commands `close`, `unbind` and `ungroup` on a server with several loops. Each loop carries out a command for its
//! own connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use fdpush::Context;

use super::super::close::Close;
use super::super::error::ApiError;
use super::super::long_commands::{LongCommand, Outcome, WAITING_MAX};
use super::super::verbs::{Changed, Unbind, Ungroup};
use super::agenda::CommandJob;
use super::answer::{Answer, Work};
use super::loops::Loops;
use crate::gateway::presence::roster::Removed;
use crate::gateway::runtime::gather::{Part, after_writes, gather};
use crate::gateway::runtime::portion::WORK_MAX;
use crate::gateway::runtime::progress::Progress;

/// A kind of command.
#[derive(Copy, Clone, Debug)]
pub enum Kind {
    Close,
    Unbind,
    Ungroup,
}

/// Checks a command, and returns the [`Work`] that carries it out.
///
/// The first counter of `progress` counts all commands in progress. The second counter counts the commands in progress
/// that take several turns.
pub fn command(
    ctx: &Context<'_>,
    loops: &Loops,
    progress: [&Progress; 2],
    kind: Kind,
    body: &[u8],
) -> Result<Work, ApiError> {
    kind.read(ctx, body)?;
    let (loops, [all, long]) = (loops.clone(), progress.map(Progress::clone));
    let body: Arc<[u8]> = body.into();
    Ok(Box::new(move |ctx, answer| {
        let measured = Arc::clone(&body);
        let measure = move |ctx: &mut Context<'_>, part: Part<usize>| {
            part.give_at_once(kind.read(ctx, &measured).map_or(0, |command| command.work(ctx)));
        };
        gather(ctx, measure, move |ctx, work| {
            let is_long = match work {
                Ok(work) => work.into_iter().sum::<usize>() > WORK_MAX,
                Err(error) => return answer.send(ctx, Err(error.into())),
            };
            if is_long && long.count() >= WAITING_MAX {
                let what = format!("limit of long commands in progress reached ({WAITING_MAX})");
                return answer.send(ctx, Err(ApiError::busy(what)));
            }
            let of_first = loops.clone();
            let guards = (all.begin(), is_long.then(|| long.begin()));
            let carry_out = move |ctx: &mut Context<'_>, part: Part<Outcome>| match kind.read(ctx, &body) {
                Ok(command) => loops.carry_out(ctx, CommandJob { command, part }),
                Err(_) => part.give_at_once(Outcome::default()),
            };
            gather(ctx, carry_out, move |ctx, parts| {
                drop(guards);
                // The notices of the groups have waited for the end of the command. The loop sends them at the end of
                // this turn.
                ctx.request_turn_end();
                match parts {
                    Ok(parts) => finish(ctx, &of_first, kind, parts, answer),
                    Err(error) => answer.send(ctx, Err(error.into())),
                }
            });
        });
    }))
}

/// Sends notices about the connections that were removed from groups. Answers the command after the notices were
/// written.
fn finish(ctx: &mut Context<'_>, loops: &Loops, kind: Kind, parts: Vec<Outcome>, answer: Answer) {
    let mut sum = Outcome::default();
    let mut removed: BTreeMap<String, Removed> = BTreeMap::new();
    for mut part in parts {
        sum.matched += part.matched;
        sum.changed += part.changed;
        for one in part.removed.drain(..) {
            match removed.get_mut(&one.group) {
                Some(all) => all.merge(one),
                None => _ = removed.insert(one.group.clone(), one),
            }
        }
    }
    let response = match kind {
        Kind::Close => Close::answer(sum.matched),
        Kind::Unbind | Kind::Ungroup => Changed { matched: sum.matched, changed: sum.changed }.response(),
    };
    if removed.is_empty() {
        return answer.send(ctx, response);
    }
    loops.with_roster(ctx, |ctx, roster| {
        removed.into_values().for_each(|removed| roster.notify_removed(ctx, removed));
    });
    after_writes(ctx, move |ctx| answer.send(ctx, response));
}

impl Kind {
    /// Parses a command, and finds its connections on this loop.
    fn read(self, ctx: &Context<'_>, body: &[u8]) -> Result<Box<dyn LongCommand + Send>, ApiError> {
        Ok(match self {
            Kind::Close => Box::new(Close::read(ctx, body)?),
            Kind::Unbind => Box::new(Unbind::read(ctx, body)?),
            Kind::Ungroup => Box::new(Ungroup::read(body)?),
        })
    }
}
