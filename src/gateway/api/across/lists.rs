//! The lists of users, groups and connections on a server with several loops.
//!
//! Each loop lists its own entries. The first loop merges the names of all loops in alphabetical order, and the
//! connections of all loops in the order of their slots. So the order of a list does not depend on the loops of its
//! entries.

use fdpush::{Context, Request};

use super::super::call::{Call, decode_name};
use super::super::connection_list::ConnectionList;
use super::super::error::ApiError;
use super::super::lists::{List, ListPart, WAITING_MAX};
use super::super::lookup::{Connection, GROUP_NAMES_MAX, connections_json, page_after};
use super::super::name_list::NameList;
use super::super::page::Page;
use super::super::response::json_response;
use super::agenda::ListJob;
use super::answer::{Answer, Work};
use super::loops::Loops;
use super::pages::{LoopPage, merge};
use crate::gateway::runtime::gather::{Part, gather};
use crate::gateway::runtime::portion::WORK_MAX;
use crate::gateway::runtime::progress::Progress;

/// Checks a request for a list, and returns the [`Work`] that answers it. `long` counts the lists in progress that take
/// several turns.
pub fn list(loops: &Loops, long: &Progress, call: Call<'_>, request: &Request<'_>) -> Result<Work, ApiError> {
    let page = Page::of(request)?;
    let (loops, long) = (loops.clone(), long.clone());
    Ok(match call {
        Call::Users => names(loops, long, NameList::users, page),
        Call::Groups => names(loops, long, NameList::groups, page),
        Call::User(uid) => {
            page.after_fd()?;
            let uid = decode_name(uid)?.into_owned();
            let make = move |page: &Page| ConnectionList::of_user(uid.clone(), page);
            let limit = page.limit;
            entries(loops, long, make, page, move |ctx, list, parts| {
                let pages = parts.into_iter().filter_map(ListPart::into_connections).collect();
                let (connections, next) = merge_connections(pages, limit);
                list.user_json(ctx, connections, next)
            })
        }
        Call::Group(group) => {
            page.after_fd()?;
            let group = decode_name(group)?.into_owned();
            let make = move |page: &Page| ConnectionList::of_group(group.clone(), page);
            let limit = page.limit;
            entries(loops, long, make, page, move |ctx, list, parts| {
                let pages = parts.into_iter().filter_map(ListPart::into_members).collect();
                let (members, next) = merge(pages, limit, |member| member.fd, |_| 0, usize::MAX);
                list.group_json(ctx, members, next)
            })
        }
        _ => connections(page)?,
    })
}

/// Lists the names of users or of groups. Each loop returns its first names after the start of the page.
fn names(loops: Loops, long: Progress, make: fn(Page) -> NameList, page: Page) -> Work {
    Box::new(move |ctx, answer| {
        let list = make(page.clone());
        let make = move || -> Box<dyn List + Send> { Box::new(make(page.clone())) };
        visit(ctx, loops, &long, list.work(ctx), make, answer, move |ctx, parts| {
            let mut list = list;
            parts.into_iter().filter_map(ListPart::into_names).flatten().for_each(|name| list.add(&name));
            list.json(ctx)
        });
    })
}

/// Lists the connections of a user or of a group.
fn entries(
    loops: Loops,
    long: Progress,
    make: impl Fn(&Page) -> Result<ConnectionList, ApiError> + Send + Sync + 'static,
    page: Page,
    finish: impl FnOnce(&Context<'_>, &ConnectionList, Vec<ListPart>) -> Result<String, ApiError> + 'static,
) -> Work {
    Box::new(move |ctx, answer| {
        let list = match make(&page) {
            Ok(list) => list,
            Err(error) => return answer.send(ctx, Err(error)),
        };
        let work = list.work(ctx);
        let make = move || -> Box<dyn List + Send> {
            // `make` has already accepted this page above, so it cannot fail here.
            Box::new(make(&page).unwrap_or_else(|_| unreachable!("the page is valid")))
        };
        visit(ctx, loops, &long, work, make, answer, move |ctx, parts| finish(ctx, &list, parts));
    })
}

/// On each loop, creates a list with `make` and visits the list. Answers with the JSON that `finish` creates from the
/// parts of all loops.
fn visit(
    ctx: &mut Context<'_>,
    loops: Loops,
    long: &Progress,
    work: usize,
    make: impl Fn() -> Box<dyn List + Send> + Send + Sync + 'static,
    answer: Answer,
    finish: impl FnOnce(&Context<'_>, Vec<ListPart>) -> Result<String, ApiError> + 'static,
) {
    if work > WORK_MAX && long.count() >= WAITING_MAX {
        let what = format!("limit of long lists in progress reached ({WAITING_MAX})");
        return answer.send(ctx, Err(ApiError::busy(what)));
    }
    let guard = (work > WORK_MAX).then(|| long.begin());
    let visit = move |ctx: &mut Context<'_>, part: Part<ListPart>| loops.visit(ctx, ListJob { list: make(), part });
    gather(ctx, visit, move |ctx, parts| {
        drop(guard);
        let json = parts.map_err(ApiError::from).and_then(|parts| finish(ctx, parts));
        answer.send(ctx, json.map(json_response));
    });
}

/// Lists all connections.
fn connections(page: Page) -> Result<Work, ApiError> {
    let (after, limit) = (page.after_fd()?, page.limit);
    Ok(Box::new(move |ctx, answer| {
        let list = move |ctx: &mut Context<'_>, part: Part<LoopPage<Connection>>| {
            part.give_at_once(page_after(ctx, after, limit));
        };
        gather(ctx, list, move |ctx, pages| {
            let merged = pages.map_err(ApiError::from).and_then(|pages| {
                let (connections, next) = merge_connections(pages, limit);
                connections_json(connections, next)
            });
            answer.send(ctx, merged.map(json_response));
        });
    }))
}

fn merge_connections(pages: Vec<LoopPage<Connection>>, limit: usize) -> LoopPage<Connection> {
    merge(pages, limit, Connection::fd, Connection::group_count, GROUP_NAMES_MAX)
}
