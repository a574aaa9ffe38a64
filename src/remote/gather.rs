//! Commands that all loops carry out, and the combination of their results.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError};

use crate::event_loop::{Command, Context, Rejected, Sender};
use crate::fd::Fd;
use crate::message::{Delivery, Push};
use crate::remote::error::RemoteError;
use crate::remote::owned_push::OwnedPush;
use crate::sync::{Mutex, MutexGuard};

/// The maximum number of rounds of one command.
///
/// In a round, each loop carries out the command once. If a round has missed a connection, another round follows. The
/// next round misses the connection only if the client connects to yet another loop in the meantime.
const ROUNDS_MAX: u32 = 16;

/// A command that all loops carry out.
pub trait Gather: Send + Sync + Sized + 'static {
    /// The result of the command on one loop.
    type Part: Send + 'static;
    /// The combined result of all loops.
    type Output: Send + 'static;

    /// Carries out the command on one loop.
    fn run(&self, ctx: &mut Context<'_>) -> Self::Part;

    /// Combines the parts into the result, or returns the command of the next round.
    ///
    /// The parts are in the order of loops. The caller is the loop that delivers the last part. `ctx` is `None` if this
    /// loop has ended and dropped its part.
    fn finish(&self, ctx: Option<&Context<'_>>, parts: Vec<Self::Part>) -> Step<Self>;
}

/// The outcome of a round.
pub enum Step<G: Gather> {
    Done(G::Output),
    /// All loops carry out this command in the next round.
    Again(G),
}

/// Carries out a command on the only loop of a server.
pub fn run_alone<G: Gather>(gather: &G, ctx: &mut Context<'_>) -> G::Output {
    let part = gather.run(ctx);
    match gather.finish(Some(ctx), vec![part]) {
        Step::Done(output) => output,
        Step::Again(gather) => run_alone(&gather, ctx),
    }
}

/// A closure that runs on each loop, and a closure that combines the results.
pub struct Parts<C, F, T, U> {
    call: C,
    finish: F,
    types: PhantomData<fn() -> (T, U)>,
}

/// A push to the connections that have one of `names`: uids, or groups.
pub struct Named {
    pub names: Vec<String>,
    pub kind: NameKind,
    pub push: Arc<OwnedPush>,
    earlier: Earlier,
}

/// The results of the earlier rounds of a push.
#[derive(Clone, Default)]
struct Earlier {
    rounds: u32,
    sum: Delivery,
    /// The connections that have the message already, if the push has several names. The next round excludes these
    /// connections, because they may have got another name of the push in the meantime.
    reached: Vec<Fd>,
}

/// The result of a push on one loop.
#[derive(Default)]
pub struct NamedPart {
    delivery: Delivery,
    /// The positions in [`Named::names`] of the names that have connections on the loop.
    found: Vec<usize>,
    /// The connections of the loop that have one of the names, if the push has several names.
    reached: Vec<Fd>,
}

/// A command that lists the connections that have the uid or group `name`.
pub struct Listed {
    pub name: String,
    pub kind: NameKind,
    /// The number of earlier rounds.
    pub rounds: u32,
}

/// The kind of a name: the name of a user or of a group.
#[derive(Copy, Clone)]
pub enum NameKind {
    Uid,
    Group,
}

impl<C, F, T, U> Parts<C, F, T, U> {
    pub fn new(call: C, finish: F) -> Parts<C, F, T, U> {
        Parts { call, finish, types: PhantomData }
    }
}

impl<C, F, T, U> Gather for Parts<C, F, T, U>
where
    C: Fn(&mut Context<'_>) -> T + Send + Sync + 'static,
    F: Fn(Option<&Context<'_>>, Vec<T>) -> U + Send + Sync + 'static,
    T: Send + 'static,
    U: Send + 'static,
{
    type Part = T;
    type Output = U;

    fn run(&self, ctx: &mut Context<'_>) -> T {
        (self.call)(ctx)
    }

    fn finish(&self, ctx: Option<&Context<'_>>, parts: Vec<T>) -> Step<Self> {
        Step::Done((self.finish)(ctx, parts))
    }
}

impl Named {
    pub fn new(names: Vec<String>, kind: NameKind, push: OwnedPush) -> Named {
        Named { names, kind, push: Arc::new(push), earlier: Earlier::default() }
    }
}

impl Gather for Named {
    type Part = NamedPart;
    type Output = Delivery;

    fn run(&self, ctx: &mut Context<'_>) -> NamedPart {
        let (names, push) = (self.names.iter().map(String::as_str), self.push.as_push());
        if ctx.loop_count() == 1 {
            return NamedPart { delivery: self.run_on_one_loop(ctx, push), ..NamedPart::default() };
        }
        let except = [push.except, &self.earlier.reached].concat();
        let push = push.except(&except);
        let mut part = NamedPart::default();
        match self.kind {
            NameKind::Uid => part.delivery = ctx.core.push_uids_here(names, push, &mut part.found),
            NameKind::Group => {
                part.found = ctx.core.find_groups_here(names.clone());
                part.delivery = ctx.core.push_groups_here(names, push);
            }
        }
        if self.names.len() > 1 {
            part.reached = part.found.iter().flat_map(|position| self.kind.list(ctx, &self.names[*position])).collect();
        }
        part
    }

    /// Adds the results of all loops.
    ///
    /// If no loop has found connections of a name, but the name has connections now, the next round searches for the
    /// name again. This happens if a client left one loop before the search on that loop, and connected to another loop
    /// after the search on the other loop.
    fn finish(&self, ctx: Option<&Context<'_>>, parts: Vec<NamedPart>) -> Step<Named> {
        let mut earlier = self.earlier.clone();
        let mut is_found = vec![false; self.names.len()];
        for part in parts {
            earlier.sum += part.delivery;
            earlier.reached.extend(part.reached);
            part.found.into_iter().for_each(|position| is_found[position] = true);
        }
        let may_repeat = |ctx: &&Context<'_>| ctx.loop_count() > 1 && earlier.rounds + 1 < ROUNDS_MAX;
        let Some(ctx) = ctx.filter(may_repeat) else { return Step::Done(earlier.sum) };
        let missed =
            self.names.iter().zip(is_found).filter(|(name, is_found)| !is_found && self.kind.exists(ctx, name));
        let missed: Vec<String> = missed.map(|(name, _)| name.clone()).collect();
        if missed.is_empty() {
            return Step::Done(earlier.sum);
        }
        earlier.rounds += 1;
        Step::Again(Named { names: missed, kind: self.kind, push: Arc::clone(&self.push), earlier })
    }
}

impl Named {
    fn run_on_one_loop(&self, ctx: &mut Context<'_>, push: Push<'_>) -> Delivery {
        match (self.kind, &*self.names) {
            (NameKind::Uid, [uid]) => ctx.core.push_uid(uid, push),
            (NameKind::Uid, uids) => ctx.core.push_uids(uids.iter(), push),
            (NameKind::Group, [group]) => ctx.core.push_group(group, push),
            (NameKind::Group, groups) => ctx.core.push_groups(groups.iter(), push),
        }
    }
}

impl Gather for Listed {
    type Part = Vec<Fd>;
    type Output = Vec<Fd>;

    fn run(&self, ctx: &mut Context<'_>) -> Vec<Fd> {
        self.kind.list(ctx, &self.name)
    }

    fn finish(&self, ctx: Option<&Context<'_>>, parts: Vec<Vec<Fd>>) -> Step<Listed> {
        let Listed { name, kind, rounds } = self;
        let fds = parts.concat();
        let Some(ctx) = ctx else { return Step::Done(fds) };
        if matches!(kind, NameKind::Uid)
            && let Some(owner) = ctx.core.owner_of(name)
        {
            return Step::Done(owner.into_iter().collect());
        }
        // If no loop has found connections of the name, but the name has connections now, the next round searches for
        // the name again.
        if fds.is_empty() && rounds + 1 < ROUNDS_MAX && kind.exists(ctx, name) {
            return Step::Again(Listed { name: name.clone(), kind: *kind, rounds: rounds + 1 });
        }
        Step::Done(fds)
    }
}

impl NameKind {
    /// Returns the connections of this loop that have the name.
    fn list(self, ctx: &Context<'_>, name: &str) -> Vec<Fd> {
        match self {
            NameKind::Uid => ctx.fds_of(name),
            NameKind::Group => ctx.members(name),
        }
    }

    /// Returns whether a connection of any loop has the name.
    fn exists(self, ctx: &Context<'_>, name: &str) -> bool {
        match self {
            NameKind::Uid => ctx.is_online(name),
            NameKind::Group => ctx.member_count(name) > 0,
        }
    }
}

/// One round of a command: the parts that have arrived. The last part ends the round.
pub struct Round<G: Gather>(Arc<Shared<G>>);

struct Shared<G: Gather> {
    gather: G,
    state: Mutex<State<G>>,
}

struct State<G: Gather> {
    /// The parts, by loop. A part is `None` if it has not arrived yet, or if its loop has ended.
    parts: Vec<Option<G::Part>>,
    missing: usize,
    has_panicked: bool,
    reply: Option<oneshot::Sender<Result<G::Output, RemoteError>>>,
}

/// Stands for the part that one loop must deliver. If the loop ends first, the drop of this value records that the part
/// is missing.
struct Obligation<G: Gather> {
    round: Round<G>,
    index: usize,
    is_met: bool,
}

impl<G: Gather> Round<G> {
    pub fn new(gather: G, reply: oneshot::Sender<Result<G::Output, RemoteError>>) -> Round<G> {
        let state = State { parts: Vec::new(), missing: 0, has_panicked: false, reply: Some(reply) };
        Round(Arc::new(Shared { gather, state: Mutex::new(state) }))
    }

    /// Sends the command to all loops, or to no loop.
    pub fn scatter(&self, senders: &[Sender<Command>]) -> Result<(), Rejected> {
        // All inboxes are locked during the send, so no loop carries out its part before all parts are sent.
        Sender::send_each(senders, None, |index| self.command(index))
    }

    /// Carries out the part of this loop, and sends the command to the other loops.
    ///
    /// The inbox of this loop has accepted the command already. So the command is sent to the other loops even if their
    /// inboxes are full.
    pub fn scatter_from(&self, ctx: &mut Context<'_>) {
        ctx.send_posts();
        let own = ctx.loop_index();
        let obligation = self.expect_part(own);
        // If the other loops have ended, the result is the part of this loop.
        let _ =
            Sender::send_each(ctx.parts.fleet.senders().unwrap_or_default(), Some(own), |index| self.command(index));
        obligation.meet(ctx);
    }

    fn command(&self, index: usize) -> Command {
        let obligation = self.expect_part(index);
        Command::Call(Box::new(move |ctx| obligation.meet(ctx)))
    }

    fn expect_part(&self, index: usize) -> Obligation<G> {
        let mut state = self.lock();
        state.missing += 1;
        let count = state.parts.len().max(index + 1);
        state.parts.resize_with(count, || None);
        Obligation { round: Round(Arc::clone(&self.0)), index, is_met: false }
    }

    /// Delivers the part of one loop. The last part ends the round.
    fn deliver(&self, ctx: Option<&mut Context<'_>>, index: usize, part: Option<G::Part>, has_panicked: bool) {
        let mut state = self.lock();
        state.parts[index] = part;
        state.missing -= 1;
        state.has_panicked |= has_panicked;
        if state.missing > 0 {
            return;
        }
        let parts: Vec<G::Part> = std::mem::take(&mut state.parts).into_iter().flatten().collect();
        let (has_panicked, reply) = (state.has_panicked, state.reply.take());
        // The lock is released here, because the lines below run code of the program.
        drop(state);
        let Some(reply) = reply else { return };
        let result = match parts.is_empty() {
            _ if has_panicked => Err(RemoteError::Panicked),
            true => Err(RemoteError::Closed),
            false => match (self.0.gather.finish(ctx.as_deref(), parts), ctx) {
                (Step::Done(output), _) => Ok(output),
                (Step::Again(gather), Some(ctx)) => return Round::new(gather, reply).scatter_from(ctx),
                (Step::Again(_), None) => Err(RemoteError::Closed),
            },
        };
        // The send fails if the receiver was dropped.
        drop(reply.send(result));
    }

    fn lock(&self) -> MutexGuard<'_, State<G>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<G: Gather> Obligation<G> {
    fn meet(mut self, ctx: &mut Context<'_>) {
        self.is_met = true;
        match catch_unwind(AssertUnwindSafe(|| self.round.0.gather.run(ctx))) {
            Ok(part) => {
                // The messages that the command has pushed to connections of other loops are put into the inboxes of
                // those loops before the reply is sent.
                ctx.send_posts();
                self.round.deliver(Some(ctx), self.index, Some(part), false);
            }
            Err(panic) => {
                self.round.deliver(Some(ctx), self.index, None, true);
                // The loop logs the panic.
                resume_unwind(panic)
            }
        }
    }
}

impl<G: Gather> Drop for Obligation<G> {
    fn drop(&mut self) {
        if !self.is_met {
            self.round.deliver(None, self.index, None, false);
        }
    }
}
