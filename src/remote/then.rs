//! Passes the results of commands to closures, because a handler must not wait for a result.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use crate::event_loop::{Command, Context, Fleet, PendingReply};
use crate::remote::{RemoteError, Reply, ReplyFuture};

impl<T: 'static> Reply<T> {
    /// Calls `then` with the result, on the loop of `ctx`.
    ///
    /// A handler uses this method in place of [`wait`](Reply::wait), which would block its loop. `then` is called after
    /// the handler has returned, even if the inbox has rejected the command. The messages that the command has pushed
    /// to connections of this loop are queued before the call, so a message that `then` pushes comes after these
    /// messages. If other loops carry out two commands, the results can arrive in a different order than the commands.
    /// If the loop ends before the result arrives, `then` is dropped.
    ///
    /// ```no_run
    /// use fdpush::{Response, Server};
    ///
    /// // Answers `POST /push/10010` with the number of connections, on all loops, that get the message.
    /// Server::bind("127.0.0.1:9501")?
    ///     .loops(4)
    ///     .on_request(|ctx, fd, request| {
    ///         let (later, ticket) = ctx.defer_response(fd);
    ///         let uid = request.target().trim_start_matches("/push/");
    ///         let reply = ctx.remote().push_uid(uid, request.body());
    ///         reply.then(ctx, |ctx, delivery| {
    ///             let response = match delivery {
    ///                 Ok(delivery) => Response::text(200, delivery.queued.to_string()),
    ///                 Err(error) => Response::text(503, error.to_string()),
    ///             };
    ///             ctx.answer(ticket, response);
    ///         });
    ///         later
    ///     })
    ///     .run()
    /// # ; Ok::<(), fdpush::Error>(())
    /// ```
    pub fn then(self, ctx: &mut Context<'_>, then: impl FnOnce(&mut Context<'_>, Result<T, RemoteError>) + 'static) {
        let (fleet, home) = (ctx.parts.fleet.clone(), ctx.loop_index());
        let future = self.into_future();
        ctx.parts.replies.insert(|key| {
            let waker = Waker::from(Arc::new(ReplyWaker { fleet, home, key }));
            let mut pending = Pending { future, waker, result: None, then };
            // If the reply is ready already, no later event wakes the loop for the reply, so the loop is woken now.
            if pending.poll() {
                pending.waker.wake_by_ref();
            }
            Box::new(pending)
        });
    }
}

impl Context<'_> {
    /// Calls the closure of a reply, if the result is available.
    fn complete_reply(&mut self, key: usize) {
        if let Some(reply) = self.parts.replies.take_ready(key) {
            reply.call(self);
        }
    }
}

struct Pending<T, F> {
    future: ReplyFuture<T>,
    waker: Waker,
    result: Option<Result<T, RemoteError>>,
    then: F,
}

impl<T, F: FnOnce(&mut Context<'_>, Result<T, RemoteError>)> PendingReply for Pending<T, F> {
    fn poll(&mut self) -> bool {
        if self.result.is_none()
            && let Poll::Ready(result) = Pin::new(&mut self.future).poll(&mut task::Context::from_waker(&self.waker))
        {
            self.result = Some(result);
        }
        self.result.is_some()
    }

    fn call(self: Box<Self>, ctx: &mut Context<'_>) {
        if let Some(result) = self.result {
            (self.then)(ctx, result);
        }
    }
}

/// Wakes a loop when a reply is ready.
struct ReplyWaker {
    fleet: Fleet<Command>,
    /// The number of the loop that waits for the reply.
    home: usize,
    /// The key of the reply on this loop.
    key: usize,
}

impl Wake for ReplyWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let key = self.key;
        let complete = Command::Call(Box::new(move |ctx| ctx.complete_reply(key)));
        if let Some(sender) = self.fleet.senders().and_then(|senders| senders.get(self.home)) {
            // A full inbox does not reject this command, because the number of pending replies limits these commands. A
            // loop that has ended needs no result.
            let _ = sender.send_over(complete);
        }
    }
}
