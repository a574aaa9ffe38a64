//! The rosters and the agendas of all loops.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fdpush::Context;

use super::agenda::{Agenda, CommandJob, ListJob};
use crate::gateway::presence::roster::Roster;

/// The time until the next portion of the work of a loop.
const NEXT_AFTER: Duration = Duration::from_millis(1);

/// The rosters and the agendas of all loops. The clones share them.
///
/// Only the thread of a loop uses the roster and the agenda of this loop, so no loop waits for another.
#[derive(Clone)]
pub struct Loops(Arc<[PerLoop]>);

struct PerLoop {
    roster: Mutex<Roster>,
    agenda: Mutex<Agenda>,
}

impl Loops {
    /// Creates the agendas. There is one roster for each loop.
    pub fn new(rosters: Vec<Roster>) -> Loops {
        let each = |roster| PerLoop { roster: Mutex::new(roster), agenda: Mutex::default() };
        Loops(rosters.into_iter().map(each).collect())
    }

    /// Calls `call` with the roster of this loop.
    pub fn with_roster<R>(&self, ctx: &mut Context<'_>, call: impl FnOnce(&mut Context<'_>, &mut Roster) -> R) -> R {
        let mut roster = lock(&self.0[ctx.loop_index()].roster);
        call(ctx, &mut roster)
    }

    /// Carries out a command on this loop, at once if it is short.
    pub fn carry_out(&self, ctx: &mut Context<'_>, job: CommandJob) {
        let is_first = !self.agenda(ctx).has_commands();
        let Some(left) = self.with_roster(ctx, |ctx, roster| job.start(ctx, roster, is_first)) else { return };
        self.agenda(ctx).add_command(left);
        self.arm(ctx, Duration::ZERO);
    }

    /// Visits the part of a list on this loop, at once if it is short.
    pub fn visit(&self, ctx: &mut Context<'_>, job: ListJob) {
        let is_first = !self.agenda(ctx).has_lists();
        let Some(left) = job.start(ctx, is_first) else { return };
        self.agenda(ctx).add_list(left);
        self.arm(ctx, Duration::ZERO);
    }

    /// Carries out the next portion of the work of this loop.
    fn work(&self, ctx: &mut Context<'_>) {
        let mut agenda = self.agenda(ctx).begin_turn();
        // If a job panics, the jobs in `agenda` end without a result.
        self.with_roster(ctx, |ctx, roster| agenda.work(ctx, roster));
        let is_empty = agenda.is_empty();
        self.agenda(ctx).end_turn(agenda);
        if !is_empty {
            self.arm(ctx, NEXT_AFTER);
        }
    }

    fn arm(&self, ctx: &mut Context<'_>, delay: Duration) {
        if self.agenda(ctx).arm() {
            let loops = self.clone();
            ctx.after(delay, move |ctx| loops.work(ctx));
        }
    }

    fn agenda(&self, ctx: &Context<'_>) -> MutexGuard<'_, Agenda> {
        lock(&self.0[ctx.loop_index()].agenda)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
