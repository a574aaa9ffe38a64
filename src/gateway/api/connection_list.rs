//! Lists the connections of one user or the members of one group.
//!
//! The entries of a list are in the order of the connections' slots.
//!
//! If the user or group has at most [`WORK_MAX`] connections, all these connections are visited in one turn of the
//! loop.
//!
//! If the user or group has more than [`WORK_MAX`] connections, a search visits all open connections of the server in
//! the order of their slots, and selects the connections of the user or group. The search ends when the page of the
//! list is full. The search can continue in a later turn, because a connection keeps its slot.

use fdpush::{Context, Fd};
use serde::Serialize;

use super::error::ApiError;
use super::lists::{List, ListPart};
use super::lookup::{self, Connection, Member};
use super::page::Page;
use super::verbs::json;
use crate::gateway::runtime::portion::WORK_MAX;

/// One page of the list of a user's connections or a group's members.
#[derive(Debug)]
pub struct ConnectionList {
    owner: Owner,
    limit: usize,
    /// The page begins after the slot of this fd. `None` for the first page of the list.
    after: Option<Fd>,
    search: Search,
}

/// The user or the group whose connections are listed.
#[derive(Debug)]
enum Owner {
    User(String),
    Group(String),
}

/// A search among all open connections for the first connections of a list.
#[derive(Debug)]
struct Search {
    /// The last connection that the search has visited. The initial value is the fd after which the page begins.
    visited: Option<Fd>,
    /// The connections of the page, and one further connection if the list is longer.
    found: Vec<Fd>,
    /// The maximum number of connections on the page, plus 1.
    found_max: usize,
}

impl ConnectionList {
    /// Creates a page of the list of a user's connections.
    ///
    /// # Errors
    /// Returns an error if the query parameter `after` of the request is not an fd.
    pub fn of_user(uid: String, page: &Page) -> Result<ConnectionList, ApiError> {
        ConnectionList::new(Owner::User(uid), page)
    }

    /// Creates a page of the list of a group's members.
    ///
    /// # Errors
    /// Returns an error if the query parameter `after` of the request is not an fd.
    pub fn of_group(group: String, page: &Page) -> Result<ConnectionList, ApiError> {
        ConnectionList::new(Owner::Group(group), page)
    }

    fn new(owner: Owner, page: &Page) -> Result<ConnectionList, ApiError> {
        let after = page.after_fd()?;
        let search = Search { visited: after, found: Vec::new(), found_max: page.limit + 1 };
        Ok(ConnectionList { owner, limit: page.limit, after, search })
    }

    /// Returns the page of a user's connections on this loop, and the fd after which the next page begins.
    fn user_page(&self, ctx: &Context<'_>, uid: &str) -> (Vec<Connection>, Option<u64>) {
        let (page, has_more) = self.page();
        lookup::page_entries(ctx, page, has_more, |connection| connection.uid.as_deref() == Some(uid))
    }

    /// Returns the page of a group's members on this loop, and the fd after which the next page begins.
    fn group_page(&self, ctx: &Context<'_>, group: &str) -> (Vec<Member>, Option<u64>) {
        let (page, has_more) = self.page();
        let members = page.iter().filter(|fd| ctx.is_member(**fd, group));
        let members = members.map(|fd| Member { fd: fd.as_u64(), uid: ctx.uid_of(*fd).map(str::to_owned) }).collect();
        (members, page.last().filter(|_| has_more).map(|fd| fd.as_u64()))
    }

    /// Returns the JSON of a page of a user's connections.
    ///
    /// # Errors
    /// Returns an error if the user is not online.
    pub fn user_json(
        &self,
        ctx: &Context<'_>,
        connections: Vec<Connection>,
        next: Option<u64>,
    ) -> Result<String, ApiError> {
        #[derive(Serialize)]
        struct User<'a> {
            uid: &'a str,
            count: usize,
            connections: Vec<Connection>,
            next: Option<u64>,
        }
        let uid = self.owner.name();
        if !ctx.is_online(uid) {
            return Err(ApiError::not_found("uid not online"));
        }
        json(&User { uid, count: ctx.connection_count(uid), connections, next })
    }

    /// Returns the JSON of a page of a group's members.
    pub fn group_json(&self, ctx: &Context<'_>, members: Vec<Member>, next: Option<u64>) -> Result<String, ApiError> {
        #[derive(Serialize)]
        struct Group<'a> {
            group: &'a str,
            count: usize,
            members: Vec<Member>,
            next: Option<u64>,
        }
        let group = self.owner.name();
        json(&Group { group, count: ctx.member_count(group), members, next })
    }

    /// Returns the connections of the page. The `bool` states whether the list continues after the page.
    fn page(&self) -> (&[Fd], bool) {
        let found = &self.search.found;
        (&found[..found.len().min(self.limit)], found.len() > self.limit)
    }
}

impl List for ConnectionList {
    fn work(&self, ctx: &Context<'_>) -> usize {
        match &self.owner {
            Owner::User(uid) => ctx.connection_count(uid),
            Owner::Group(group) => ctx.member_count(group),
        }
    }

    fn visit_portion(&mut self, ctx: &Context<'_>) -> bool {
        if self.work(ctx) <= WORK_MAX {
            self.search.found = first_after(self.after, self.owner.connections(ctx), self.search.found_max);
            return true;
        }
        let fds = ctx.connections_after(self.search.visited, WORK_MAX);
        let is_last = fds.len() < WORK_MAX;
        self.search.visit(&fds, |fd| self.owner.has(ctx, fd)) || is_last
    }

    fn part(&self, ctx: &Context<'_>) -> ListPart {
        match &self.owner {
            Owner::User(uid) => {
                let (connections, next) = self.user_page(ctx, uid);
                ListPart::Connections(connections, next)
            }
            Owner::Group(group) => {
                let (members, next) = self.group_page(ctx, group);
                ListPart::Members(members, next)
            }
        }
    }

    fn json(&self, ctx: &Context<'_>) -> Result<String, ApiError> {
        match &self.owner {
            Owner::User(uid) => {
                let (connections, next) = self.user_page(ctx, uid);
                self.user_json(ctx, connections, next)
            }
            Owner::Group(group) => {
                let (members, next) = self.group_page(ctx, group);
                self.group_json(ctx, members, next)
            }
        }
    }
}

impl Owner {
    fn name(&self) -> &str {
        match self {
            Owner::User(name) | Owner::Group(name) => name,
        }
    }

    /// Returns all connections of the user or group on this loop, in no particular order.
    fn connections(&self, ctx: &Context<'_>) -> Vec<Fd> {
        match self {
            Owner::User(uid) => ctx.fds_of(uid),
            Owner::Group(group) => ctx.members(group),
        }
    }

    fn has(&self, ctx: &Context<'_>, fd: Fd) -> bool {
        match self {
            Owner::User(uid) => ctx.uid_of(fd) == Some(uid.as_str()),
            Owner::Group(group) => ctx.is_member(fd, group),
        }
    }
}

impl Search {
    /// Visits open connections in the order of their slots. Returns whether `found_max` connections are found.
    fn visit(&mut self, fds: &[Fd], is_listed: impl Fn(Fd) -> bool) -> bool {
        self.visited = fds.last().copied().or(self.visited);
        let missing = self.found_max - self.found.len();
        self.found.extend(fds.iter().copied().filter(|fd| is_listed(*fd)).take(missing));
        self.found.len() == self.found_max
    }
}

/// Returns the first `max` connections after the slot of `after`, sorted by slot.
///
/// The function sorts only the returned connections, not all of `fds`.
fn first_after(after: Option<Fd>, mut fds: Vec<Fd>, max: usize) -> Vec<Fd> {
    if let Some(after) = after {
        fds.retain(|fd| fd.slot() > after.slot());
    }
    if fds.len() > max {
        fds.select_nth_unstable_by_key(max, |fd| fd.slot());
        fds.truncate(max);
    }
    fds.sort_unstable_by_key(|fd| fd.slot());
    fds
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LIMIT: usize = 10;
    const PORTION: usize = 64;

    /// Returns the fd of the first connection in a slot.
    fn fd(slot: u64) -> Fd {
        Fd::from_u64(slot + 1).expect("the fd is valid")
    }

    #[test]
    fn the_page_of_a_short_list_has_the_first_connections_in_slot_order() {
        let fds: Vec<Fd> = (0..100).map(|number| fd(number * 37 % 100)).collect();
        let first = |after, max| first_after(after, fds.clone(), max);
        assert_eq!(first(None, 4), [0, 1, 2, 3].map(fd));
        assert_eq!(first(Some(fd(95)), 4), [96, 97, 98, 99].map(fd));
        assert_eq!(first(Some(fd(96)), 4), [97, 98, 99].map(fd));
        assert!(first(Some(fd(99)), 4).is_empty());
    }

    #[test]
    fn each_listed_connection_that_stays_open_is_on_exactly_one_page() {
        let mut open: BTreeSet<Fd> = (0..2000).map(fd).collect();
        let is_listed = |fd: Fd| fd.as_u64().is_multiple_of(9);
        let mut other = 0;
        let (mut after, mut seen, mut has_more) = (None, Vec::new(), true);
        while has_more {
            let mut search = Search { visited: after, found: Vec::new(), found_max: LIMIT + 1 };
            loop {
                let start = search.visited.map_or(0, |fd| fd.as_u64() + 1);
                let fds: Vec<Fd> = open.iter().copied().filter(|fd| fd.as_u64() >= start).take(PORTION).collect();
                let is_last = fds.len() < PORTION;
                if search.visit(&fds, is_listed) || is_last {
                    break;
                }
                // Between two portions, a connection that is not in the list closes, and another connection that is not
                // in the list opens.
                other += 7;
                open.remove(&fd(other * 9));
                open.insert(fd(3000 + other * 9));
            }
            let page = &search.found[..search.found.len().min(LIMIT)];
            seen.extend_from_slice(page);
            has_more = search.found.len() > LIMIT;
            after = page.last().copied();
        }
        let listed: Vec<Fd> = (0..2000).map(fd).filter(|fd| is_listed(*fd)).collect();
        assert_eq!(seen, listed);
    }
}
