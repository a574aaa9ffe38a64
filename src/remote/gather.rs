//! Commands to all loops, and the result of all their parts.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event_loop::{Command, Context, Rejected, Sender};
use crate::remote::error::RemoteError;

/// The parts of a result that have arrived. The last part completes the result.
pub struct Gather<T, U>(Arc<Mutex<State<T, U>>>);

struct State<T, U> {
    /// The parts, by loop. A part is `None` if it is missing, or if the loop has ended.
    parts: Vec<Option<T>>,
    missing: usize,
    has_panicked: bool,
    completion: Option<Completion<T, U>>,
}

struct Completion<T, U> {
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
    /// Creates a result without parts. `finish` makes the result of the parts, in the order of loops.
    pub fn new(
        finish: impl FnOnce(Vec<T>) -> U + Send + 'static,
        sender: oneshot::Sender<Result<U, RemoteError>>,
    ) -> Gather<T, U> {
        let completion = Some(Completion { finish: Box::new(finish), sender });
        Gather(Arc::new(Mutex::new(State { parts: Vec::new(), missing: 0, has_panicked: false, completion })))
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
            Ok(()) | Err(Rejected::Closed) => part.run(ctx, &**call),
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
            Command::Call(Box::new(move |ctx| part.run(ctx, &*call)))
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

    fn deliver(&self, index: usize, part: Option<T>, has_panicked: bool) {
        let mut state = self.lock();
        state.parts[index] = part;
        state.missing -= 1;
        state.has_panicked |= has_panicked;
        if state.missing > 0 {
            return;
        }
        let (parts, has_panicked) = (std::mem::take(&mut state.parts), state.has_panicked);
        let Some(Completion { finish, sender }) = state.completion.take() else { return };
        drop(state);
        let parts: Vec<T> = parts.into_iter().flatten().collect();
        let result = match parts.is_empty() {
            _ if has_panicked => Err(RemoteError::Panicked),
            true => Err(RemoteError::Closed),
            false => Ok(finish(parts)),
        };
        // The send fails if the receiver was dropped.
        drop(sender.send(result));
    }
}

impl<T, U> Part<T, U> {
    fn run(mut self, ctx: &mut Context<'_>, call: &impl Fn(&mut Context<'_>) -> T) {
        self.is_delivered = true;
        match catch_unwind(AssertUnwindSafe(|| call(ctx))) {
            Ok(part) => self.gather.deliver(self.index, Some(part), false),
            Err(panic) => {
                self.gather.deliver(self.index, None, true);
                // The loop logs the panic.
                resume_unwind(panic)
            }
        }
    }
}

impl<T, U> Drop for Part<T, U> {
    fn drop(&mut self) {
        if !self.is_delivered {
            self.gather.deliver(self.index, None, false);
        }
    }
}
