//! For each loop: the roster (the users in its groups) and the agenda (the parts of API calls that it must do).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fdpush::Context;

use super::agenda::{Agenda, CommandJob, ListJob};
use crate::gateway::presence::roster::Roster;

/// The pause between two portions of the work of a loop.
const NEXT_AFTER: Duration = Duration::from_millis(1);

/// The rosters and the agendas of all loops. All clones of this value share the same rosters and agendas.
///
/// Only the thread of a loop uses the roster and the agenda of this loop, so no loop waits for a lock of another loop.
#[derive(Clone)]
pub struct Loops(Arc<[PerLoop]>);

struct PerLoop {
    roster: Mutex<Roster>,
    agenda: Mutex<Agenda>,
}

impl Loops {
    /// Creates an empty agenda for each loop. `rosters` contains the roster of each loop.
    pub fn new(rosters: Vec<Roster>) -> Loops {
        let each = |roster| PerLoop { roster: Mutex::new(roster), agenda: Mutex::default() };
        Loops(rosters.into_iter().map(each).collect())
    }

    /// Calls `call` with the roster of this loop.
    pub fn with_roster<R>(&self, ctx: &mut Context<'_>, call: impl FnOnce(&mut Context<'_>, &mut Roster) -> R) -> R {
        let mut roster = lock(&self.0[ctx.loop_index()].roster);
        call(ctx, &mut roster)
    }

    /// Carries out the part of a command on this loop. A short part is complete before this function returns, unless
    /// another command waits on this loop. Any other part is carried out in later turns.
    pub fn carry_out(&self, ctx: &mut Context<'_>, job: CommandJob) {
        let is_first = !self.agenda(ctx).has_commands();
        let Some(left) = self.with_roster(ctx, |ctx, roster| job.start(ctx, roster, is_first)) else { return };
        self.agenda(ctx).add_command(left);
        self.arm(ctx, Duration::ZERO);
    }

    /// Visits the part of a list on this loop. A short part is complete before this function returns, unless another
    /// list waits on this loop. Any other part is visited in later turns.
    pub fn visit(&self, ctx: &mut Context<'_>, job: ListJob) {
        let is_first = !self.agenda(ctx).has_lists();
        let Some(left) = job.start(ctx, is_first) else { return };
        self.agenda(ctx).add_list(left);
        self.arm(ctx, Duration::ZERO);
    }

    /// Carries out the next portion of the work of this loop.
    fn work(&self, ctx: &mut Context<'_>) {
        let mut agenda = self.agenda(ctx).begin_turn();
        // If a job panics, all jobs in the local variable `agenda` are dropped, so their requests are answered with an
        // error.
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
