//! The lists of all users and of all groups, in alphabetical order.

use fdpush::{Context, ScanCursor};
use serde::Serialize;

use super::error::ApiError;
use super::first_names::FirstNames;
use super::lists::{List, ListPart};
use super::page::Page;
use super::verbs::json;
use crate::gateway::runtime::portion::WORK_MAX;

/// One page of the list of all users or of all groups.
#[derive(Debug)]
pub struct NameList {
    kind: Kind,
    limit: usize,
    /// The names of the page, and one further name if the list is longer.
    names: FirstNames,
    /// The position in the registry where the next portion starts.
    cursor: ScanCursor,
}

#[derive(Copy, Clone, Debug)]
enum Kind {
    Users,
    Groups,
}

impl NameList {
    /// Creates a page of the list of all users.
    pub fn users(page: Page) -> NameList {
        NameList::new(Kind::Users, page)
    }

    /// Creates a page of the list of all groups.
    pub fn groups(page: Page) -> NameList {
        NameList::new(Kind::Groups, page)
    }

    fn new(kind: Kind, Page { after, limit }: Page) -> NameList {
        NameList { kind, limit, names: FirstNames::new(after, limit + 1), cursor: ScanCursor::default() }
    }
}

impl NameList {
    /// Adds a name that a loop has found, if this name belongs to the page.
    pub fn add(&mut self, name: &str) {
        self.names.add(name);
    }
}

impl List for NameList {
    fn work(&self, ctx: &Context<'_>) -> usize {
        match self.kind {
            Kind::Users => ctx.user_count(),
            Kind::Groups => ctx.group_count(),
        }
    }

    fn visit_portion(&mut self, ctx: &Context<'_>) -> bool {
        let next = match self.kind {
            Kind::Users => {
                let (users, next) = ctx.scan_users(self.cursor, WORK_MAX);
                users.for_each(|(uid, _)| self.names.add(uid));
                next
            }
            Kind::Groups => {
                let (groups, next) = ctx.scan_groups(self.cursor, WORK_MAX);
                groups.for_each(|(group, _)| self.names.add(group));
                next
            }
        };
        self.cursor = next.unwrap_or_default();
        next.is_none()
    }

    fn part(&self, _: &Context<'_>) -> ListPart {
        ListPart::Names(self.names.iter().map(str::to_owned).collect())
    }

    fn json(&self, ctx: &Context<'_>) -> Result<String, ApiError> {
        #[derive(Serialize)]
        struct User<'a> {
            uid: &'a str,
            connections: usize,
        }
        #[derive(Serialize)]
        struct Users<'a> {
            users: Vec<User<'a>>,
            next: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Group<'a> {
            group: &'a str,
            count: usize,
        }
        #[derive(Serialize)]
        struct Groups<'a> {
            groups: Vec<Group<'a>>,
            next: Option<&'a str>,
        }
        let names = || self.names.iter().take(self.limit);
        let next = names().last().filter(|_| self.names.len() > self.limit);
        match self.kind {
            Kind::Users => {
                let users = names().map(|uid| User { uid, connections: ctx.connection_count(uid) });
                json(&Users { users: users.filter(|user| user.connections > 0).collect(), next })
            }
            Kind::Groups => {
                let groups = names().map(|group| Group { group, count: ctx.member_count(group) });
                json(&Groups { groups: groups.filter(|group| group.count > 0).collect(), next })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_pages_contain_each_name_once() {
        const LIMIT: usize = 60;
        let names: Vec<String> = (0..250).map(|number| format!("user-{:03}", number * 7 % 250)).collect();
        let (mut after, mut seen, mut has_more) = (None, Vec::new(), true);
        while has_more {
            let mut page = FirstNames::new(after, LIMIT + 1);
            // Some names are added twice. A scan of the users adds a uid twice if the user goes offline and online
            // again during the scan.
            names.iter().chain(names.iter().step_by(3)).for_each(|name| page.add(name));
            seen.extend(page.iter().take(LIMIT).map(str::to_owned));
            has_more = page.len() > LIMIT;
            after = seen.last().cloned();
        }
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(seen, sorted);
    }
}
