//! Commands to all loops, and the result of all their parts.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event_loop::{Command, Context, Rejected, Sender};
use crate::remote::error::RemoteError;

/// The parts of a result that have arrived. The last part completes the result.
pub struct Gather<T, U>(Arc<Mutex<State<T, U>>>);

/// The maximum number of rounds of one command.
///
/// A round that has missed a connection is repeated. A further round misses again only if the user or the member
/// changes its loop again meanwhile.
const ROUNDS_MAX: u32 = 16;

struct State<T, U> {
    /// The parts, by loop. A part is `None` if it is missing, or if the loop has ended.
    parts: Vec<Option<T>>,
    missing: usize,
    rounds: u32,
    has_panicked: bool,
    completion: Option<Completion<T, U>>,
}

/// Returns whether all loops have missed a connection.
type IsMissed<T> = dyn Fn(&Context<'_>, &[T]) -> bool + Send;

struct Completion<T, U> {
    /// Whether all loops have missed a connection: it was opened on a loop that had delivered its part, and an earlier
    /// connection was closed on a loop that had not.
    is_missed: Box<IsMissed<T>>,
    finish: Box<dyn FnOnce(Vec<T>) -> U + Send>,
    sender: oneshot::Sender<Result<U, RemoteError>>,
}

/// The obligation of one loop to deliver its part. A dropped part is the part of a loop that has ended.
struct Part<T, U> {
    gather: Gather<T, U>,
    index: usize,
    is_delivered: bool,
}

impl<T: Send + 'static, U: Send + 'static> Gather<T, U> {
    /// Creates a result without parts. `finish` makes the result of the parts, in the order of loops. If `is_missed`
    /// returns `true` for the parts, all loops carry out the command once more.
    pub fn new(
        is_missed: impl Fn(&Context<'_>, &[T]) -> bool + Send + 'static,
        finish: impl FnOnce(Vec<T>) -> U + Send + 'static,
        sender: oneshot::Sender<Result<U, RemoteError>>,
    ) -> Gather<T, U> {
        let completion = Some(Completion { is_missed: Box::new(is_missed), finish: Box::new(finish), sender });
        let state = State { parts: Vec::new(), missing: 0, rounds: 0, has_panicked: false, completion };
        Gather(Arc::new(Mutex::new(state)))
    }

    /// Sends the command to all loops, or to none.
    pub fn scatter(
        &self,
        senders: &[Sender<Command>],
        call: &Arc<impl Fn(&mut Context<'_>) -> T + Send + Sync + 'static>,
    ) -> Result<(), Rejected> {
        self.scatter_except(None, senders, call)
    }

    /// Carries out the part of this loop, and sends the command to the other loops.
    pub fn scatter_from(
        &self,
        ctx: &mut Context<'_>,
        call: &Arc<impl Fn(&mut Context<'_>) -> T + Send + Sync + 'static>,
    ) {
        let fleet = ctx.parts.fleet.clone();
        let (own, others) = (ctx.loop_index(), fleet.senders().filter(|senders| senders.len() > 1));
        let part = self.expect_part(own);
        match others.map_or(Ok(()), |senders| self.scatter_except(Some(own), senders, call)) {
            // If the other loops have ended, the result is the part of this loop.
            Ok(()) | Err(Rejected::Closed) => part.run(ctx, call),
            Err(error) => self.fail(error.into()),
        }
    }

    fn scatter_except(
        &self,
        own: Option<usize>,
        senders: &[Sender<Command>],
        call: &Arc<impl Fn(&mut Context<'_>) -> T + Send + Sync + 'static>,
    ) -> Result<(), Rejected> {
        // No loop carries out its part before all parts are sent, because all inboxes are locked meanwhile.
        Sender::send_each(senders, own, |index| {
            let (part, call) = (self.expect_part(index), Arc::clone(call));
            Command::Call(Box::new(move |ctx| part.run(ctx, &call)))
        })
    }

    /// Completes the result with an error.
    fn fail(&self, error: RemoteError) {
        let completion = self.lock().completion.take();
        if let Some(completion) = completion {
            // The send fails if the receiver was dropped.
            drop(completion.sender.send(Err(error)));
        }
    }

    fn expect_part(&self, index: usize) -> Part<T, U> {
        let mut state = self.lock();
        state.missing += 1;
        let count = state.parts.len().max(index + 1);
        state.parts.resize_with(count, || None);
        Part { gather: Gather(Arc::clone(&self.0)), index, is_delivered: false }
    }
}

impl<T, U> Gather<T, U> {
    fn lock(&self) -> MutexGuard<'_, State<T, U>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers a part. Returns all parts if this is the last part.
    fn deliver(&self, index: usize, part: Option<T>, has_panicked: bool) -> Option<Vec<T>> {
        let mut state = self.lock();
        state.parts[index] = part;
        state.missing -= 1;
        state.has_panicked |= has_panicked;
        if state.missing > 0 {
            return None;
        }
        state.rounds += 1;
        Some(std::mem::take(&mut state.parts).into_iter().flatten().collect())
    }

    /// Completes the result with its parts.
    fn complete(&self, parts: Vec<T>) {
        let mut state = self.lock();
        let has_panicked = state.has_panicked;
        let Some(Completion { finish, sender, .. }) = state.completion.take() else { return };
        drop(state);
        let result = match parts.is_empty() {
            _ if has_panicked => Err(RemoteError::Panicked),
            true => Err(RemoteError::Closed),
            false => Ok(finish(parts)),
        };
        // The send fails if the receiver was dropped.
        drop(sender.send(result));
    }

    /// Returns whether all loops have missed a connection, and should carry out the command once more.
    fn is_missed(&self, ctx: &Context<'_>, parts: &[T]) -> bool {
        // The completion is used without the lock, because it runs code of the program.
        let mut state = self.lock();
        if state.has_panicked || state.rounds >= ROUNDS_MAX {
            return false;
        }
        let Some(completion) = state.completion.take() else { return false };
        drop(state);
        let is_missed = (completion.is_missed)(ctx, parts);
        self.lock().completion = Some(completion);
        is_missed
    }
}

impl<T: Send + 'static, U: Send + 'static> Part<T, U> {
    fn run(mut self, ctx: &mut Context<'_>, call: &Arc<impl Fn(&mut Context<'_>) -> T + Send + Sync + 'static>) {
        self.is_delivered = true;
        let result = catch_unwind(AssertUnwindSafe(|| call(ctx)));
        let (part, panic) = match result {
            Ok(part) => (Some(part), None),
            Err(panic) => (None, Some(panic)),
        };
        if let Some(parts) = self.gather.deliver(self.index, part, panic.is_some()) {
            if self.gather.is_missed(ctx, &parts) {
                self.gather.scatter_from(ctx, call);
            } else {
                self.gather.complete(parts);
            }
        }
        if let Some(panic) = panic {
            // The loop logs the panic.
            resume_unwind(panic)
        }
    }
}

impl<T, U> Drop for Part<T, U> {
    fn drop(&mut self) {
        if !self.is_delivered
            && let Some(parts) = self.gather.deliver(self.index, None, false)
        {
            self.gather.complete(parts);
        }
    }
}
