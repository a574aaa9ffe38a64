//! Runs a function on all loops, and gathers the results.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fdpush::{Context, Promise};

/// If the inbox of a loop is full, [`gather_when_room`] tries again after this time.
const REPEAT_AFTER: Duration = Duration::from_millis(2);

/// The reason why the results of a function on all loops are missing.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum GatherError {
    /// The inbox of a loop is full. The function was not run on any loop.
    Full,
    /// A loop has ended without a result, or the function panicked on a loop.
    Incomplete,
}

/// The value with which one loop gives its part of the result.
///
/// The loop may keep this value, and give its part in a later turn. If the loop drops the value without giving its
/// part, the result is [`GatherError::Incomplete`].
#[derive(Debug)]
pub struct Part<T> {
    gathering: Arc<Gathering<T>>,
    /// The number of the loop.
    index: usize,
}

/// The parts, each with the number of its loop.
type Parts<T> = Vec<(usize, T)>;

/// The parts that the loops have given so far. The gathering ends when the last [`Part`] is dropped.
#[derive(Debug)]
struct Gathering<T> {
    parts: Mutex<Parts<T>>,
    promise: Mutex<Option<Promise<Parts<T>>>>,
}

/// Calls `call` on each loop. After all loops have given their parts, calls `then` on this loop, with the parts in the
/// order of the loop numbers.
///
/// If the inbox of a loop is full, `then` is called with [`GatherError::Full`] before this function returns.
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

/// Works like [`gather`], but if the inbox of a loop is full, tries again later. Calls `then` without a result, also if
/// a loop has ended.
///
/// A function that completes an earlier change must use this method, because the change has been made already.
pub fn gather_when_room<C, F>(ctx: &mut Context<'_>, call: C, then: F)
where
    C: Fn(&mut Context<'_>, Part<()>) + Send + Sync + 'static,
    F: FnOnce(&mut Context<'_>) + 'static,
{
    repeat_gather(ctx, Arc::new(call), then);
}

fn repeat_gather<C, F>(ctx: &mut Context<'_>, call: Arc<C>, then: F)
where
    C: Fn(&mut Context<'_>, Part<()>) + Send + Sync + 'static,
    F: FnOnce(&mut Context<'_>) + 'static,
{
    let run = Arc::clone(&call);
    gather(
        ctx,
        move |ctx, part| run(ctx, part),
        move |ctx, result| match result {
            Err(GatherError::Full) => _ = ctx.after(REPEAT_AFTER, move |ctx| repeat_gather(ctx, call, then)),
            Ok(_) | Err(GatherError::Incomplete) => then(ctx),
        },
    );
}

/// Calls `then` after each loop has written the messages that are in its queues when this function reaches the loop.
pub fn after_writes(ctx: &mut Context<'_>, then: impl FnOnce(&mut Context<'_>) + 'static) {
    gather_when_room(ctx, |ctx, part| part.give(ctx, ()), then);
}

impl<T: Send + 'static> Part<T> {
    /// Gives the part. The part counts as given after this loop has written the messages that are in its queues now.
    pub fn give(self, ctx: &mut Context<'_>, value: T) {
        self.gathering.add(self.index, value);
        ctx.drop_when_written(self);
    }

    /// Gives the part, without waiting until messages are written.
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use fdpush::{Handler, Limits, Server};

    use super::*;

    /// A handler whose first loop fills its own inbox, and then asks all loops.
    struct Full(Sender<&'static str>);

    impl Handler for Full {
        fn on_start(&mut self, ctx: &mut Context<'_>) {
            if ctx.loop_index() > 0 {
                return;
            }
            let filled = ctx.remote().call_each(|_| ());
            assert!(filled.sent().is_ok(), "the inbox is empty");
            let (refused, written) = (self.0.clone(), self.0.clone());
            let give = |_: &mut Context<'_>, part: Part<()>| part.give_at_once(());
            gather(ctx, give, move |_, result| {
                assert_eq!(result, Err(GatherError::Full));
                refused.send("refused").expect("the receiver is open");
            });
            after_writes(ctx, move |ctx| {
                written.send("written").expect("the receiver is open");
                ctx.shutdown();
            });
        }
    }

    #[test]
    fn the_wait_for_writes_continues_when_a_full_inbox_has_room() {
        let (sender, events) = channel();
        let server = Server::bind("127.0.0.1:0").expect("the port can be bound").catch_signals(false);
        let server = server.limits(Limits { inbox_max: 1, ..Limits::default() }).loops(2);
        server.handlers(move |_| Full(sender.clone())).run().expect("the run starts");
        assert_eq!(events.try_iter().collect::<Vec<_>>(), ["refused", "written"]);
    }
}
