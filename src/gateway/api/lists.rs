//! Lists that may take several turns of the loop.
//!
//! A list that visits at most [`WORK_MAX`] entries is carried out in one turn, so its page shows one state. The answer
//! to such a list is sent in the turn of its request, as long as the lists of this turn visit at most [`WORK_MAX`]
//! entries. All other lists wait. At the end of each turn, the waiting lists visit at most [`WORK_MAX`] entries, one
//! list after the other, so that a short list does not wait for the end of a long list.

use std::collections::VecDeque;
use std::fmt;

use fdpush::{Context, Fd, Response, Ticket};

use super::error::ApiError;
use super::response::{json_response, uncached};
use crate::gateway::runtime::portion::{TurnBudget, WORK_MAX};

/// A list that takes several turns is refused while this number of lists is in progress.
///
/// The limit bounds memory, because each list in progress keeps the entries of its page. The lists that take one turn
/// need no limit: their number is at most the number of API connections.
const WAITING_MAX: usize = 16;

/// A list of which one page is requested.
pub trait List: fmt::Debug {
    /// Returns the number of entries to visit.
    fn work(&self, ctx: &Context<'_>) -> usize;

    /// Visits the next portion, at most [`WORK_MAX`] entries. Returns whether the page is complete.
    fn visit_portion(&mut self, ctx: &Context<'_>) -> bool;

    /// Returns the JSON of a complete page. Entries that have ended since their visit are left out.
    ///
    /// # Errors
    /// The list does not exist, or the page cannot be serialized.
    fn json(&self, ctx: &Context<'_>) -> Result<String, ApiError>;
}

/// The lists in progress, and the work of this turn.
#[derive(Debug, Default)]
pub struct Lists {
    waiting: VecDeque<(Ticket<Response>, Box<dyn List>)>,
    budget: TurnBudget,
}

impl Lists {
    /// Carries out a list, or defers its answer.
    ///
    /// # Errors
    /// The list takes several turns, and too many lists are in progress. Other errors are those of [`List::json`].
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
        // The end of the turn resets the budget.
        ctx.request_turn_end();
        if work <= WORK_MAX && self.budget.take(work) && list.visit_portion(ctx) {
            return Ok(json_response(list.json(ctx)?));
        }
        let (response, ticket) = ctx.defer_response(fd);
        self.waiting.push_back((ticket, Box::new(list)));
        Ok(response)
    }

    /// Carries out portions of the waiting lists, and answers those that are complete.
    pub fn handle_turn_end(&mut self, ctx: &mut Context<'_>) {
        // The lists of clients that are gone end here.
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
