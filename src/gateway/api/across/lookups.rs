//! The calls about single connections, about uids and about the server, on a server with several loops.

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

/// The maximum number of further searches for a uid that is online but of which no loop has found a connection.
///
/// A search can miss a uid if, during the search, the uid connects to a loop that has already searched and disconnects
/// from a loop that has not searched yet.
const SEARCHES_MAX: u32 = 16;

/// Returns the [`Work`] that answers with the JSON of a connection.
pub fn connection(fd: &str) -> Result<Work, ApiError> {
    let fd = parse_fd(fd, "fd")?;
    Ok(at_loop_of(fd, move |ctx| lookup::connection(ctx, fd)))
}

/// Returns the [`Work`] that returns or changes the attributes of a connection.
pub fn attributes(fd: &str, method: &str, body: &[u8]) -> Result<Work, ApiError> {
    let fd = parse_fd(fd, "fd")?;
    Ok(match Attributes::read(method, body)? {
        None => at_loop_of(fd, move |ctx| lookup::attributes(ctx, fd)),
        Some(attributes) => at_loop_of(fd, move |ctx| lookup::set_attributes(ctx, fd, attributes)),
    })
}

/// Returns the [`Work`] that runs `call` on the loop of the connection `fd`, and answers with the JSON that `call`
/// returns.
fn at_loop_of(fd: Fd, call: impl FnOnce(&mut Context<'_>) -> Result<String, ApiError> + Send + 'static) -> Work {
    Box::new(move |ctx, answer| {
        let reply = ctx.remote().call_at(fd, call);
        reply.then(ctx, |ctx, json| {
            let json = json.unwrap_or_else(|error| Err(ApiError::busy(error.to_string())));
            answer.send(ctx, json.map(json_response));
        });
    })
}

/// Returns the [`Work`] that answers with the connections of uids.
pub fn online(body: &[u8]) -> Result<Work, ApiError> {
    let uids = Command::read(body, &command::ONLINE)?.take_uids()?;
    let uids: Vec<String> = uids.into_iter().map(Cow::into_owned).collect();
    Ok(Box::new(move |ctx, answer| search(ctx, uids, BTreeMap::new(), SEARCHES_MAX, answer)))
}

/// Searches all loops for the connections of `uids`. `found` contains the connections that earlier searches have found.
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

/// Returns the [`Work`] that answers with the statistics of all loops together and of each loop.
pub fn stats() -> Work {
    with_stats(|ctx, stats, loops| lookup::stats_json(stats, loops, ctx.is_draining()).map(json_response))
}

/// Returns the [`Work`] that answers with the metrics.
pub fn metrics(text: MetricsText) -> Work {
    with_stats(|_, stats, loops| Ok(metrics_response(text(stats, loops))))
}

/// Returns the [`Work`] that answers whether the server is ready.
pub fn ready() -> Work {
    with_stats(|ctx, stats, _| Ok(readiness(stats, ctx.is_draining())))
}

/// Returns the [`Work`] that answers with the response of `respond`. The arguments of `respond` are the statistics of
/// all loops together and the statistics of each loop.
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
