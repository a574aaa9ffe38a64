//! The commands and lists that take several turns of one loop.

use std::collections::VecDeque;

use fdpush::Context;

use super::super::lists::{List, ListPart};
use super::super::long_commands::{LongCommand, Outcome};
use crate::gateway::presence::roster::Roster;
use crate::gateway::runtime::gather::Part;
use crate::gateway::runtime::portion::{TurnBudget, WORK_MAX};

/// The work of one loop. Each turn does the work of a [`TurnBudget`].
#[derive(Default)]
pub struct Agenda {
    commands: VecDeque<CommandJob>,
    lists: VecDeque<ListJob>,
    /// Whether a timer for the next portion is set.
    is_armed: bool,
}

/// The part of a command on one loop.
pub struct CommandJob {
    pub command: Box<dyn LongCommand + Send>,
    pub part: Part<Outcome>,
}

/// The part of a list on one loop.
pub struct ListJob {
    pub list: Box<dyn List + Send>,
    pub part: Part<ListPart>,
}

impl CommandJob {
    /// Carries the command out if it is short and `is_first` is true. Otherwise returns the job.
    pub fn start(self, ctx: &mut Context<'_>, roster: &mut Roster, is_first: bool) -> Option<CommandJob> {
        if is_first && self.command.work(ctx) <= WORK_MAX { self.carry_out_portion(ctx, roster) } else { Some(self) }
    }

    /// Carries out the next portion. Returns the job if more portions are left.
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
    /// Visits the list if it is short and `is_first` is true. Otherwise returns the job.
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

    /// Returns whether a timer must be set.
    pub fn arm(&mut self) -> bool {
        !std::mem::replace(&mut self.is_armed, true)
    }

    /// Returns the jobs, for one turn without the lock. The timer has fired.
    pub fn begin_turn(&mut self) -> Agenda {
        std::mem::take(self)
    }

    /// Takes the jobs back that are left.
    pub fn end_turn(&mut self, mut left: Agenda) {
        left.commands.append(&mut self.commands);
        left.lists.append(&mut self.lists);
        (self.commands, self.lists) = (left.commands, left.lists);
    }

    /// Does the work of one turn: commands in order, and lists in turn.
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
