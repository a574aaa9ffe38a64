//! Sends commands to the inboxes of their loops.
//!
//! Each command has a target loop, which carries it out. A command of another thread is put into the inbox of its
//! target loop immediately. A command that a handler sends is put into the inbox of the handler's own loop. The
//! handler's own loop sends its posts, and then sends the command to the target loop. So the commands and the posts
//! that one loop sends to another loop arrive in order.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::event_loop::{Command, Context, Fleet, Rejected, Sender, loop_of, own_of};
use crate::fd::Fd;
use crate::remote::error::RemoteError;
use crate::remote::gather::{Gather, Round, run_alone};

/// A command that runs on the thread of a loop.
pub type Call = Box<dyn FnOnce(&mut Context<'_>) + Send>;

/// Sends a command to the loop of an fd, even if no connection has this fd.
pub fn send_to_fd(fleet: &Fleet<Command>, fd: Fd, call: Call) -> Result<(), Rejected> {
    send(fleet, move |senders| loop_of(senders, fd), Command::Call(call))
}

/// Sends a command to a loop.
pub fn send_to_loop(fleet: &Fleet<Command>, to: usize, command: Command) -> Result<(), Rejected> {
    send(fleet, move |_| to, command)
}

fn send(
    fleet: &Fleet<Command>,
    find: impl FnOnce(&[Sender<Command>]) -> usize + Send + 'static,
    command: Command,
) -> Result<(), Rejected> {
    fleet.send(move |senders| {
        let to = find(senders);
        let Some(target) = senders.get(to) else { return Err(Rejected::Closed) };
        match own_inbox(senders) {
            Some((own, inbox)) if own != to => {
                if target.is_full() {
                    return Err(Rejected::Full);
                }
                inbox.send(Command::Call(Box::new(move |ctx| pass_on(ctx, to, command))))
            }
            _ => target.send(command),
        }
    })
}

/// Sends an accepted command to its target loop, even if the inbox of the target loop is full.
fn pass_on(ctx: &mut Context<'_>, to: usize, command: Command) {
    ctx.send_posts();
    if let Some(target) = ctx.parts.fleet.senders().and_then(|senders| senders.get(to)) {
        // If the target loop has ended, the command is dropped, and its reply is `Closed`.
        let _ = target.send_over(command);
    }
}

/// Sends a shutdown to a loop, which sends the shutdown to the other loops.
///
/// If a handler sends the shutdown, the shutdown goes to the handler's own loop.
pub fn send_shutdown(fleet: &Fleet<Command>, home: usize) -> Result<(), Rejected> {
    fleet.send(move |senders| {
        let to = own_inbox(senders).map_or(home, |(own, _)| own);
        senders.get(to).map_or(Err(Rejected::Closed), |sender| sender.send_last(Command::Shutdown))
    })
}

/// Sends a command to all loops, or to no loop.
pub fn scatter<G: Gather>(
    fleet: &Fleet<Command>,
    gather: G,
    reply: oneshot::Sender<Result<G::Output, RemoteError>>,
) -> Result<(), Rejected> {
    fleet.send(move |senders| match (senders, own_inbox(senders)) {
        ([only], _) => {
            let (call, reply) = (move |ctx: &mut Context<'_>| run_alone(&gather, ctx), reply);
            only.send(Command::Call(job(call, reply)))
        }
        (_, None) => Round::new(gather, reply).scatter(senders),
        (_, Some((_, inbox))) => {
            if senders.iter().any(Sender::is_full) {
                return Err(Rejected::Full);
            }
            inbox.send(Command::Call(Box::new(move |ctx| Round::new(gather, reply).scatter_from(ctx))))
        }
    })
}

/// Returns the number and the inbox of the loop that runs on this thread.
///
/// The result is `None` on any other thread. In a server with one loop, the result is always `None`, because all
/// commands go to the only inbox.
fn own_inbox(senders: &[Sender<Command>]) -> Option<(usize, &Sender<Command>)> {
    let own = if senders.len() > 1 { own_of(senders)? } else { return None };
    Some((own, senders.get(own)?))
}

/// Creates a command that sends the result of `call` as its reply.
///
/// The messages that `call` has pushed to connections of other loops are put into the inboxes of those loops before the
/// reply is sent.
pub fn job<T: Send + 'static>(
    call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static,
    reply: oneshot::Sender<Result<T, RemoteError>>,
) -> Call {
    Box::new(move |ctx| {
        // The send of a reply fails if the receiver was dropped.
        match catch_unwind(AssertUnwindSafe(|| call(ctx))) {
            Ok(value) => {
                ctx.send_posts();
                drop(reply.send(Ok(value)));
            }
            Err(panic) => {
                drop(reply.send(Err(RemoteError::Panicked)));
                // The loop logs the panic.
                resume_unwind(panic)
            }
        }
    })
}
