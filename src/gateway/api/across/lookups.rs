//! Calls about single connections, about uids, and about the server.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use fdpush::{Context, Fd, Response, Stats};

use super::super::command::{self, Command};
use super::super::error::ApiError;
use super::super::lookup::{self, Attributes};
use super::super::page::parse_fd;
use super::super::parts::MetricsText;
use super::super::readiness::readiness;
use super::super::response::{json_response, metrics_response};
use super::super::verbs::online_json;
use super::answer::{Answer, Work};
use crate::gateway::runtime::gather::{GatherError, Part, gather};

/// The maximum number of searches for uids that no loop has found, although they are online.
///
/// A search misses a user who connects on a loop that has searched already, and disconnects from a loop that has not.
const SEARCHES_MAX: u32 = 16;

/// Returns a connection.
pub fn connection(fd: &str) -> Result<Work, ApiError> {
    let fd = parse_fd(fd, "fd")?;
    Ok(at_loop_of(fd, move |ctx| lookup::connection(ctx, fd)))
}

/// Returns or changes the attributes of a connection.
pub fn attributes(fd: &str, method: &str, body: &[u8]) -> Result<Work, ApiError> {
    let fd = parse_fd(fd, "fd")?;
    Ok(match Attributes::read(method, body)? {
        None => at_loop_of(fd, move |ctx| lookup::attributes(ctx, fd)),
        Some(attributes) => at_loop_of(fd, move |ctx| lookup::set_attributes(ctx, fd, attributes)),
    })
}

/// Answers with the JSON that `call` returns on the loop of a connection.
fn at_loop_of(fd: Fd, call: impl FnOnce(&mut Context<'_>) -> Result<String, ApiError> + Send + 'static) -> Work {
    Box::new(move |ctx, answer| {
        let reply = ctx.remote().call_at(fd, call);
        reply.then(ctx, |ctx, json| {
            let json = json.unwrap_or_else(|error| Err(ApiError::busy(error.to_string())));
            answer.send(ctx, json.map(json_response));
        });
    })
}

/// Returns the connections of uids.
pub fn online(body: &[u8]) -> Result<Work, ApiError> {
    let uids = Command::read(body, &command::ONLINE)?.take_uids()?;
    let uids: Vec<String> = uids.into_iter().map(Cow::into_owned).collect();
    Ok(Box::new(move |ctx, answer| search(ctx, uids, BTreeMap::new(), SEARCHES_MAX, answer)))
}

/// Searches the connections of uids on all loops. `found` has the connections of earlier searches.
fn search(
    ctx: &mut Context<'_>,
    uids: Vec<String>,
    mut found: BTreeMap<String, Vec<u64>>,
    searches_left: u32,
    answer: Answer,
) {
    let uids: Arc<[String]> = uids.into();
    let searched = Arc::clone(&uids);
    let find = move |ctx: &mut Context<'_>, part: Part<Vec<Vec<Fd>>>| {
        part.give_at_once(searched.iter().map(|uid| ctx.fds_of(uid)).collect());
    };
    gather(ctx, find, move |ctx, parts| {
        let parts = match parts {
            Ok(parts) => parts,
            Err(error) => return answer.send(ctx, Err(error.into())),
        };
        for part in parts {
            for (uid, fds) in uids.iter().zip(part) {
                found.entry(uid.clone()).or_default().extend(fds.into_iter().map(Fd::as_u64));
            }
        }
        let is_missed = |uid: &&String| found.get(*uid).is_none_or(Vec::is_empty) && ctx.is_online(uid);
        let missed: Vec<String> = uids.iter().filter(is_missed).cloned().collect();
        if !missed.is_empty() && searches_left > 0 {
            return search(ctx, missed, found, searches_left - 1, answer);
        }
        answer.send(ctx, online_json(&found).map(json_response));
    });
}

/// Returns the statistics of all loops together, and of each loop.
pub fn stats() -> Work {
    with_stats(|ctx, stats, loops| lookup::stats_json(stats, loops, ctx.is_draining()).map(json_response))
}

/// Returns the metrics.
pub fn metrics(text: MetricsText) -> Work {
    with_stats(|_, stats, loops| Ok(metrics_response(text(stats, loops))))
}

/// Returns whether the server is ready.
pub fn ready() -> Work {
    with_stats(|ctx, stats, _| Ok(readiness(stats, ctx.is_draining())))
}

/// Answers with a response that is made of the statistics of all loops together and of each loop.
fn with_stats(respond: impl FnOnce(&Context<'_>, &Stats, &[Stats]) -> Result<Response, ApiError> + 'static) -> Work {
    Box::new(move |ctx, answer| {
        let read = |ctx: &mut Context<'_>, part: Part<Stats>| part.give_at_once(ctx.stats());
        gather(ctx, read, move |ctx, parts: Result<Vec<Stats>, GatherError>| {
            let response = parts.map_err(ApiError::from).and_then(|parts| {
                let mut sum = Stats::sum(parts.clone());
                (sum.users, sum.groups) = (ctx.user_count(), ctx.group_count());
                respond(ctx, &sum, &parts)
            });
            answer.send(ctx, response);
        });
    })
}
