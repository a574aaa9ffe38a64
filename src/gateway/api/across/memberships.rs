//! The commands `bind`, `join` and `leave` on a server with several loops.

use std::sync::Arc;

use fdpush::{Context, Fd};

use super::super::command::{self, Command, Shape};
use super::super::error::ApiError;
use super::super::response::json_response;
use super::super::verbs::{Changed, Memberships, check_memberships, json};
use super::answer::{Answer, Work};
use super::loops::Loops;
use crate::gateway::runtime::gather::{Part, after_writes, gather, gather_when_room};
use crate::gateway::runtime::progress::Progress;

/// The result of a join on one loop: the counts or the error, and the memberships that were added.
type Joined = (Result<Changed, ApiError>, Vec<(Fd, String)>);

/// Returns the [`Work`] that binds a connection to a uid, on the loop of the connection.
pub fn bind(loops: &Loops, body: &[u8]) -> Result<Work, ApiError> {
    let (fd, uid) = Command::read(body, &command::BIND)?.take_binding()?;
    let (loops, uid) = (loops.clone(), uid.into_owned());
    Ok(Box::new(move |ctx, answer| {
        let bind = move |ctx: &mut Context<'_>| loops.with_roster(ctx, |ctx, roster| roster.bind(ctx, fd, &uid));
        let reply = ctx.remote().call_at(fd, bind);
        reply.then(ctx, move |ctx, result| match result {
            Ok(Ok(change)) => {
                let mut changed = Changed::default();
                let counted = changed.count(change);
                finish(ctx, counted.map(|()| changed), answer);
            }
            Ok(Err(full)) => answer.send(ctx, Err(ApiError::too_many(full.to_string()))),
            Err(error) => answer.send(ctx, Err(ApiError::busy(error.to_string()))),
        });
    }))
}

/// Returns the [`Work`] that adds connections to groups. If a change fails on one loop, the changes of all loops are
/// undone.
pub fn join(loops: &Loops, progress: &Progress, body: &[u8]) -> Result<Work, ApiError> {
    change(loops, progress, body, &command::JOIN, true)
}

/// Returns the [`Work`] that removes connections from groups.
pub fn leave(loops: &Loops, progress: &Progress, body: &[u8]) -> Result<Work, ApiError> {
    change(loops, progress, body, &command::LEAVE, false)
}

fn change(
    loops: &Loops,
    progress: &Progress,
    body: &[u8],
    shape: &'static Shape,
    joins: bool,
) -> Result<Work, ApiError> {
    let groups = Memberships::check(body, shape)?;
    let (loops, progress) = (loops.clone(), progress.clone());
    let body: Arc<[u8]> = body.into();
    Ok(Box::new(move |ctx, answer| {
        let found = Arc::clone(&body);
        let find = move |ctx: &mut Context<'_>, part: Part<usize>| {
            part.give_at_once(Memberships::read(ctx, &found, shape).map_or(0, |memberships| memberships.connections()));
        };
        gather(ctx, find, move |ctx, counts| {
            let checked =
                counts.map_err(ApiError::from).and_then(|counts| check_memberships(counts.into_iter().sum(), groups));
            if let Err(error) = checked {
                return answer.send(ctx, Err(error));
            }
            let guard = progress.begin();
            let of_change = loops.clone();
            let change = move |ctx: &mut Context<'_>, part: Part<Joined>| {
                let joined = of_change.with_roster(ctx, |ctx, roster| match Memberships::read(ctx, &body, shape) {
                    Ok(memberships) if joins => memberships.join(ctx, roster),
                    Ok(memberships) => (memberships.leave(ctx, roster), Vec::new()),
                    Err(error) => (Err(error), Vec::new()),
                });
                part.give(ctx, joined);
            };
            gather(ctx, change, move |ctx, parts| {
                // The notices of the groups have waited for the end of the command. The loop sends them at the end of
                // this turn.
                ctx.request_turn_end();
                match parts {
                    Ok(parts) => end_change(ctx, &loops, parts, answer, guard),
                    Err(error) => answer.send(ctx, Err(error.into())),
                }
            });
        });
    }))
}

/// Answers a join or leave command. If a loop returned an error, first undoes the joins of all loops. `guard` is
/// dropped when the command is complete, and then the notices of the groups need not wait any more.
fn end_change(ctx: &mut Context<'_>, loops: &Loops, parts: Vec<Joined>, answer: Answer, guard: impl Sized + 'static) {
    let (results, joined): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let total = results.into_iter().try_fold(Changed::default(), |sum, part| Ok(sum + part?));
    let joined: Vec<(Fd, String)> = joined.concat();
    if total.is_ok() || joined.is_empty() {
        drop(guard);
        return finish(ctx, total, answer);
    }
    let loops = loops.clone();
    let undo = move |ctx: &mut Context<'_>, part: Part<()>| {
        loops.with_roster(ctx, |ctx, roster| {
            for (fd, group) in joined.iter().rev().filter(|(fd, _)| ctx.is_own(*fd)).collect::<Vec<_>>() {
                roster.leave(ctx, *fd, group);
            }
        });
        part.give(ctx, ());
    };
    gather_when_room(ctx, undo, move |ctx| {
        drop(guard);
        ctx.request_turn_end();
        answer.send(ctx, total.and_then(|changed| json(&changed)).map(json_response));
    });
}

/// Answers a command. If the command succeeded, sends the answer after all loops have written the messages that are in
/// their queues now.
fn finish(ctx: &mut Context<'_>, changed: Result<Changed, ApiError>, answer: Answer) {
    let response = changed.and_then(|changed| json(&changed)).map(json_response);
    if response.is_err() {
        return answer.send(ctx, response);
    }
    after_writes(ctx, move |ctx| answer.send(ctx, response));
}
