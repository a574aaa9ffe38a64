//! Executes commands that may take several turns of the event loop.
//!
//! A command with at most [`WORK_MAX`] connections and memberships is carried out in one turn, so no other request sees
//! only a part of the command's effect. A command with more than [`WORK_MAX`] connections and memberships is carried
//! out in portions, one portion per turn. The server answers a command after its last portion.

use std::collections::VecDeque;
use std::fmt;

use fdpush::{Context, Fd, Response, Ticket};

use super::error::ApiError;
use super::response::uncached;
use crate::gateway::presence::roster::{Removed, Roster};
use crate::gateway::runtime::portion::WORK_MAX;

/// The maximum number of commands in progress that take several turns.
///
/// The limit bounds memory, because each command in progress stores its connections or groups.
pub const WAITING_MAX: usize = 16;

/// The result of a command on one loop, if the server has several loops.
#[derive(Default, Debug)]
pub struct Outcome {
    /// The number of connections that the command matched.
    pub matched: usize,
    /// The number of connections that the command changed.
    pub changed: usize,
    /// The connections that were removed from groups. The notices about these removals have not been sent yet.
    pub removed: Vec<Removed>,
}

/// A command that can be carried out in portions.
pub trait LongCommand: fmt::Debug {
    /// Returns the number of connections and memberships in all remaining portions.
    fn work(&self, ctx: &Context<'_>) -> usize;

    /// Carries out the next portion of the command: about [`WORK_MAX`] connections and memberships.
    fn carry_out_portion(&mut self, ctx: &mut Context<'_>, roster: &mut Roster);

    /// Returns whether all portions of the command were carried out.
    fn is_done(&self) -> bool;

    /// Returns the result of a complete command on this loop. This method is called only if the server has several
    /// loops.
    fn take_outcome(&mut self) -> Outcome;

    /// Returns the response to the command, after all portions were carried out. This method is called only if the
    /// server has one loop.
    ///
    /// # Errors
    /// Returns an error if the response cannot be serialized.
    fn response(&self) -> Result<Response, ApiError>;
}

/// The commands in progress that take several turns, the oldest first.
#[derive(Debug, Default)]
pub struct LongCommands {
    waiting: VecDeque<(Ticket<Response>, Box<dyn LongCommand>)>,
}

impl LongCommands {
    /// Carries out the first portion of a command.
    ///
    /// If the command has further portions, the response is deferred to a later turn.
    ///
    /// # Errors
    /// Returns an error if the command takes several turns and [`WAITING_MAX`] other commands are in progress. A
    /// refused command has no effect.
    pub fn execute(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        roster: &mut Roster,
        mut command: impl LongCommand + 'static,
    ) -> Result<Response, ApiError> {
        if self.waiting.len() >= WAITING_MAX && command.work(ctx) > WORK_MAX {
            return Err(ApiError::busy(format!("limit of long commands in progress reached ({WAITING_MAX})")));
        }
        command.carry_out_portion(ctx, roster);
        if command.is_done() {
            return command.response();
        }
        let (response, ticket) = ctx.defer_response(fd);
        self.waiting.push_back((ticket, Box::new(command)));
        ctx.request_turn_end();
        Ok(response)
    }

    /// Returns whether any command is still in progress.
    pub fn is_active(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Carries out a portion of the oldest command, or answers this command.
    ///
    /// A command is answered in the turn after its last portion. The event loop calls `on_close` for all connections
    /// that the command has closed before the command is answered.
    pub fn handle_turn_end(&mut self, ctx: &mut Context<'_>, roster: &mut Roster) {
        match self.waiting.front_mut() {
            Some((_, command)) if !command.is_done() => command.carry_out_portion(ctx, roster),
            _ => self.answer_first(ctx),
        }
        if self.is_active() {
            ctx.request_turn_end();
        }
    }

    fn answer_first(&mut self, ctx: &mut Context<'_>) {
        let Some((ticket, command)) = self.waiting.pop_front() else { return };
        let response = command.response().unwrap_or_else(|error| error.response(None));
        ctx.answer(ticket, uncached(response));
    }
}
