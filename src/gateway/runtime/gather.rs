//! Calls on all loops, and their results.

use std::sync::{Arc, Mutex, PoisonError};

use fdpush::{Context, Promise};

/// The reason why a call on all loops has no result.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum GatherError {
    /// The inbox of a loop is full. No loop has called.
    Full,
    /// A loop has ended, or its call has panicked.
    Incomplete,
}

/// The obligation of one loop to give its part of the result.
///
/// A loop may keep this value, and give its part in a later turn.
#[derive(Debug)]
pub struct Part<T> {
    gathering: Arc<Gathering<T>>,
    /// The number of the loop.
    index: usize,
}

/// The parts, each with the number of its loop.
type Parts<T> = Vec<(usize, T)>;

/// The parts that were given. The drop of the last [`Part`] ends the gathering.
#[derive(Debug)]
struct Gathering<T> {
    parts: Mutex<Parts<T>>,
    promise: Mutex<Option<Promise<Parts<T>>>>,
}

/// Calls `call` on each loop, and then `then` on this loop, with the parts of all loops in the order of loops.
///
/// If the inbox of a loop is full, `then` is called at once.
pub fn gather<T: Send + 'static>(
    ctx: &mut Context<'_>,
    call: impl Fn(&mut Context<'_>, Part<T>) + Send + Sync + 'static,
    then: impl FnOnce(&mut Context<'_>, Result<Vec<T>, GatherError>) + 'static,
) {
    let (promise, reply) = ctx.remote().promise();
    let gathering = Arc::new(Gathering { parts: Mutex::default(), promise: Mutex::new(Some(promise)) });
    let sent = ctx.remote().call_each(move |ctx| {
        let part = Part { gathering: Arc::clone(&gathering), index: ctx.loop_index() };
        call(ctx, part);
    });
    if sent.sent().is_err() {
        return then(ctx, Err(GatherError::Full));
    }
    reply.then(ctx, |ctx, parts| {
        let mut parts = parts.unwrap_or_default();
        parts.sort_unstable_by_key(|(index, _)| *index);
        let result = if parts.len() == ctx.loop_count() {
            Ok(parts.into_iter().map(|(_, part)| part).collect())
        } else {
            Err(GatherError::Incomplete)
        };
        then(ctx, result);
    });
}

/// Calls `then` when all loops have written the messages that they have now.
pub fn after_writes(ctx: &mut Context<'_>, then: impl FnOnce(&mut Context<'_>, Result<(), GatherError>) + 'static) {
    gather(ctx, |ctx, part| part.give(ctx, ()), |ctx, parts| then(ctx, parts.map(|_: Vec<()>| ())));
}

impl<T: Send + 'static> Part<T> {
    /// Gives the part. It counts when this loop has written the messages that it has now.
    pub fn give(self, ctx: &mut Context<'_>, value: T) {
        self.gathering.add(self.index, value);
        ctx.drop_when_written(self);
    }

    /// Gives the part, which tells of no message.
    pub fn give_at_once(self, value: T) {
        self.gathering.add(self.index, value);
    }
}

impl<T> Gathering<T> {
    fn add(&self, index: usize, value: T) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push((index, value));
    }
}

impl<T> Drop for Gathering<T> {
    fn drop(&mut self) {
        let parts = std::mem::take(self.parts.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let Some(promise) = self.promise.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            promise.keep(parts);
        }
    }
}
