//! The methods of [`Context`] for results that come later: deliveries on other loops, and the write of queued output.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::event_loop::{Context, Report};
use crate::message::Delivery;
use crate::remote::Reply;

impl Context<'_> {
    /// Calls `push`, and reports the deliveries of its pushes on other loops.
    ///
    /// The method returns the result of `push` and a reply. The reply is ready when the other loops have queued the
    /// messages that `push` has forwarded. The [`Delivery`] of the reply is the sum of the counts of all these messages on
    /// the other loops. The reply is `None` if `push` has forwarded no message. A loop that has ended does not count. A
    /// connection that ended before its loop got the message does not count, either.
    ///
    /// ```no_run
    /// # use fdpush::{Context, Fd, Server};
    /// // Tells the sender how many connections of all loops get the message.
    /// fn on_message(ctx: &mut Context<'_>, fd: Fd) {
    ///     let (own, others) = ctx.track_forwarded(|ctx| ctx.push_group("room", "hello"));
    ///     match others {
    ///         None => _ = ctx.push(fd, &format!("{} connections", own.queued)),
    ///         Some(reply) => reply.then(ctx, move |ctx, others| {
    ///             let others = others.map_or(0, |others| others.queued);
    ///             ctx.push(fd, &format!("{} connections", own.queued + others));
    ///         }),
    ///     }
    /// }
    /// ```
    pub fn track_forwarded<R>(&mut self, push: impl FnOnce(&mut Context<'_>) -> R) -> (R, Option<Reply<Delivery>>) {
        self.track(false, push)
    }

    /// Works like [`track_forwarded`](Context::track_forwarded), but the reply is ready when the other loops have written
    /// the messages to the sockets.
    ///
    /// A message counts as written when the socket has accepted it, and also when the socket has no room for it.
    pub fn track_written<R>(&mut self, push: impl FnOnce(&mut Context<'_>) -> R) -> (R, Option<Reply<Delivery>>) {
        self.track(true, push)
    }

    fn track<R>(
        &mut self,
        until_written: bool,
        push: impl FnOnce(&mut Context<'_>) -> R,
    ) -> (R, Option<Reply<Delivery>>) {
        let remote = self.core.siblings().map(|_| self.remote());
        let Some((remote, siblings)) = remote.zip(self.core.siblings_mut()) else { return (push(self), None) };
        let (promise, reply) = remote.promise();
        let report = Report::new(until_written, move |counts| promise.keep(counts));
        let (forwarded, earlier) = (siblings.forwarded, siblings.report.replace(report));
        let result = catch_unwind(AssertUnwindSafe(|| push(self)));
        let is_forwarded = self.core.siblings_mut().is_some_and(|siblings| {
            siblings.report = earlier;
            siblings.forwarded > forwarded
        });
        match result {
            Ok(result) => (result, is_forwarded.then_some(reply)),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Drops `value` when this loop has written the output that is queued now.
    ///
    /// Output counts as written when the socket has accepted it, and also when the socket has no room for it. So the `Drop`
    /// of `value` can tell another thread or loop that the messages of a handler have been written. `value` is also dropped
    /// if the loop ends.
    pub fn drop_when_written(&mut self, value: impl Any) {
        self.parts.held.insert(Box::new(value));
    }
}
