//! Answers requests for lists that may take several event loop turns.
//!
//! All entries of a list of at most [`WORK_MAX`] entries are visited in one turn, so the page of the list shows the
//! state at one moment. The request for such a list is answered in the turn in which it arrives, if all lists of this
//! turn together have at most [`WORK_MAX`] entries. All other lists wait.
//!
//! At the end of each turn, at most [`WORK_MAX`] entries of the waiting lists are visited. After one portion of its
//! entries was visited, a waiting list moves to the back of the queue, so that a short list does not wait until a long
//! list is complete.

use std::collections::VecDeque;
use std::fmt;

use fdpush::{Context, Fd, Response, Ticket};

use super::error::ApiError;
use super::lookup::{Connection, Member};
use super::response::{json_response, uncached};
use crate::gateway::runtime::portion::{TurnBudget, WORK_MAX};

/// The number of waiting lists at which a new long list is refused.
///
/// A long list is a list that takes several turns of the loop.
///
/// The limit bounds memory, because each waiting list stores the entries of its page. The lists that take one turn need
/// no limit, because the limit of API connections also bounds the number of these lists.
pub const WAITING_MAX: usize = 16;

/// A list of connections, users or groups. A request asks for one page of the list.
pub trait List: fmt::Debug {
    /// Returns the number of entries of the whole list.
    fn work(&self, ctx: &Context<'_>) -> usize;

    /// Visits the next portion of the list, at most [`WORK_MAX`] entries. Returns whether the page is complete.
    fn visit_portion(&mut self, ctx: &Context<'_>) -> bool;

    /// Returns the complete page of the entries on this loop. This method is called only if the server has several
    /// loops.
    fn part(&self, ctx: &Context<'_>) -> ListPart;

    /// Returns the JSON of a complete page.
    ///
    /// The JSON does not contain entries that no longer exist, for example connections that have closed since the
    /// visit.
    ///
    /// # Errors
    /// Returns an error if the list has the connections of a user who is not online, or if the page cannot be
    /// serialized.
    fn json(&self, ctx: &Context<'_>) -> Result<String, ApiError>;
}

/// The page of a list with the entries of one loop. The second field is the fd after which the next page of this loop
/// begins.
#[derive(Debug)]
pub enum ListPart {
    Names(Vec<String>),
    Connections(Vec<Connection>, Option<u64>),
    Members(Vec<Member>, Option<u64>),
}

impl ListPart {
    pub fn into_names(self) -> Option<Vec<String>> {
        if let ListPart::Names(names) = self { Some(names) } else { None }
    }

    pub fn into_connections(self) -> Option<(Vec<Connection>, Option<u64>)> {
        if let ListPart::Connections(connections, next) = self { Some((connections, next)) } else { None }
    }

    pub fn into_members(self) -> Option<(Vec<Member>, Option<u64>)> {
        if let ListPart::Members(members, next) = self { Some((members, next)) } else { None }
    }
}

/// The waiting lists, and the work budget of the current turn.
#[derive(Debug, Default)]
pub struct Lists {
    waiting: VecDeque<(Ticket<Response>, Box<dyn List>)>,
    budget: TurnBudget,
}

impl Lists {
    /// Answers a request for a list, or defers the response.
    ///
    /// # Errors
    /// Returns an error if the list takes several turns and [`WAITING_MAX`] lists are already waiting. Also returns the
    /// errors of [`List::json`].
    pub fn execute(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        mut list: impl List + 'static,
    ) -> Result<Response, ApiError> {
        let work = list.work(ctx);
        if work > WORK_MAX && self.waiting.len() >= WAITING_MAX {
            return Err(ApiError::busy(format!("limit of long lists in progress reached ({WAITING_MAX})")));
        }
        // `handle_turn_end` resets the budget, so the loop must call `handle_turn_end` at the end of this turn.
        ctx.request_turn_end();
        if work <= WORK_MAX && self.budget.take(work) && list.visit_portion(ctx) {
            return Ok(json_response(list.json(ctx)?));
        }
        let (response, ticket) = ctx.defer_response(fd);
        self.waiting.push_back((ticket, Box::new(list)));
        Ok(response)
    }

    /// Visits portions of the waiting lists. If the page of a list is complete, answers the request for this list.
    pub fn handle_turn_end(&mut self, ctx: &mut Context<'_>) {
        // A waiting list is dropped if its client has disconnected.
        self.waiting.retain(|(ticket, _)| ctx.is_pending(ticket));
        self.budget.reset();
        while let Some((_, list)) = self.waiting.front()
            && self.budget.take(list.work(ctx))
            && let Some((ticket, mut list)) = self.waiting.pop_front()
        {
            if list.visit_portion(ctx) {
                let response = list.json(ctx).map_or_else(|error| error.response(None), json_response);
                ctx.answer(ticket, uncached(response));
            } else {
                self.waiting.push_back((ticket, list));
            }
        }
        self.budget.reset();
        if !self.waiting.is_empty() {
            ctx.request_turn_end();
        }
    }
}
