//! The parts of commands and lists that one loop carries out in several turns.

use std::collections::VecDeque;

use fdpush::Context;

use super::super::lists::{List, ListPart};
use super::super::long_commands::{LongCommand, Outcome};
use crate::gateway::presence::roster::Roster;
use crate::gateway::runtime::gather::Part;
use crate::gateway::runtime::portion::{TurnBudget, WORK_MAX};

/// The unfinished parts of commands and lists on one loop. In each turn, the loop does at most the work that a
/// [`TurnBudget`] allows.
#[derive(Default)]
pub struct Agenda {
    commands: VecDeque<CommandJob>,
    lists: VecDeque<ListJob>,
    /// Whether a timer for the next portion is set.
    is_armed: bool,
}

/// An unfinished command on one loop, with the [`Part`] in which the loop returns the result of the command.
pub struct CommandJob {
    pub command: Box<dyn LongCommand + Send>,
    pub part: Part<Outcome>,
}

/// An unfinished list on one loop, with the [`Part`] in which the loop returns its entries of the list.
pub struct ListJob {
    pub list: Box<dyn List + Send>,
    pub part: Part<ListPart>,
}

impl CommandJob {
    /// Carries out the command if its work on this loop is at most [`WORK_MAX`] and `is_first` is `true`. Returns the
    /// job if the command is not complete. `is_first` states that no other command waits on this loop.
    pub fn start(self, ctx: &mut Context<'_>, roster: &mut Roster, is_first: bool) -> Option<CommandJob> {
        if is_first && self.command.work(ctx) <= WORK_MAX { self.carry_out_portion(ctx, roster) } else { Some(self) }
    }

    /// Carries out the next portion of the command. Returns the job if the command has further portions.
    fn carry_out_portion(mut self, ctx: &mut Context<'_>, roster: &mut Roster) -> Option<CommandJob> {
        self.command.carry_out_portion(ctx, roster);
        if !self.command.is_done() {
            return Some(self);
        }
        self.part.give(ctx, self.command.take_outcome());
        None
    }
}

impl ListJob {
    /// Visits the list if its work on this loop is at most [`WORK_MAX`] and `is_first` is `true`. Returns the job if
    /// the page is not complete. `is_first` states that no other list waits on this loop.
    pub fn start(self, ctx: &Context<'_>, is_first: bool) -> Option<ListJob> {
        if is_first && self.list.work(ctx) <= WORK_MAX { self.visit_portion(ctx) } else { Some(self) }
    }

    fn visit_portion(mut self, ctx: &Context<'_>) -> Option<ListJob> {
        if !self.list.visit_portion(ctx) {
            return Some(self);
        }
        self.part.give_at_once(self.list.part(ctx));
        None
    }
}

impl Agenda {
    pub fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    pub fn has_lists(&self) -> bool {
        !self.lists.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        !self.has_commands() && !self.has_lists()
    }

    pub fn add_command(&mut self, job: CommandJob) {
        self.commands.push_back(job);
    }

    pub fn add_list(&mut self, job: ListJob) {
        self.lists.push_back(job);
    }

    /// Marks the timer as set. Returns `true` if the caller must set the timer, because it was not set before.
    pub fn arm(&mut self) -> bool {
        !std::mem::replace(&mut self.is_armed, true)
    }

    /// Takes all jobs out of this agenda, so that the caller does the work of one turn without the lock of the agenda.
    /// The caller calls this function when the timer has fired.
    pub fn begin_turn(&mut self) -> Agenda {
        std::mem::take(self)
    }

    /// Puts the incomplete jobs in `left` back into this agenda, before the jobs that were added during the turn.
    pub fn end_turn(&mut self, mut left: Agenda) {
        left.commands.append(&mut self.commands);
        left.lists.append(&mut self.lists);
        (self.commands, self.lists) = (left.commands, left.lists);
    }

    /// Does the work of one turn. The commands are carried out one after the other. The lists take turns: each list
    /// visits one portion and then moves to the back of the queue.
    pub fn work(&mut self, ctx: &mut Context<'_>, roster: &mut Roster) {
        let mut budget = TurnBudget::default();
        while let Some(job) = self.commands.front()
            && budget.take(job.command.work(ctx))
            && let Some(job) = self.commands.pop_front()
        {
            if let Some(left) = job.carry_out_portion(ctx, roster) {
                self.commands.push_front(left);
                break;
            }
        }
        budget.reset();
        while let Some(job) = self.lists.front()
            && budget.take(job.list.work(ctx))
            && let Some(job) = self.lists.pop_front()
        {
            self.lists.extend(job.visit_portion(ctx));
        }
    }
}
