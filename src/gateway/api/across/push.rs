//! Pushes on a server with several loops. The answer to a push contains the sums of the counts of all loops.
//!
//! The first loop executes a push for its own connections immediately, and forwards the push to the other loops that
//! have receivers. Each of these loops reports its counts after it has written the message. If a push excludes uids or
//! groups, each loop must find the excluded connections itself, so the push is executed as a call on each loop. The
//! other loops execute forwarded pushes and calls in the order in which the first loop sent them. But the first loop
//! executes its own part of a call later, so the next forwarded push would overtake the call on the first loop. So
//! while a call of a batch is in progress, the next pushes of the batch are also executed as calls.

use std::sync::Arc;

use fdpush::{Context, Delivery, Frame, Push, Response};

use super::super::command::{self, Except, PushCommand};
use super::super::error::ApiError;
use super::super::parts::ApiParts;
use super::super::push::{excluded_fds, offline_before, to_api_error, write_answer};
use super::super::verbs;
use super::answer::Answer;
use crate::gateway::push::publish::{Envelope, Options, Published, Tracking};
use crate::gateway::runtime::gather::{Part, gather};
use crate::gateway::runtime::progress::Progress;
use crate::gateway::wire::target::Target;

/// The parts of the answer to a push that are known before the push. The counts are added later.
struct PendingAnswer {
    id: Option<String>,
    /// The uids that were offline before the push.
    offline: Vec<String>,
    /// The uid, if the target of the push is a single uid. This uid is looked up after the push.
    only_uid: Option<String>,
}

/// A push that is executed as a call on each loop.
struct PushCall {
    target: Target<'static>,
    except: Except<'static>,
    frame: Frame,
    key: Option<String>,
    may_compress: bool,
}

/// Executes the push command in a request body, and answers the request.
pub fn answer(ctx: &mut Context<'_>, parts: &mut ApiParts<'_>, body: &[u8], answer: Answer) {
    let command = PushCommand::read(body, &command::PUSH);
    execute(ctx, parts, (body, command), None, &Progress::default(), |ctx, status, mut json| {
        json.push('\n');
        answer.send(ctx, Ok(Response::json(status, json)));
    });
}

/// Executes a push command. `command` is the result of parsing `json`. Calls `done` with the HTTP status and the JSON
/// of the answer, after all loops that have receivers have executed the push.
///
/// `line` is the line number of the command in a batch. `calls` counts the pushes of the batch that are being executed
/// as calls.
pub fn execute(
    ctx: &mut Context<'_>,
    parts: &mut ApiParts<'_>,
    (json, command): (&[u8], Result<PushCommand<'_>, ApiError>),
    line: Option<u64>,
    calls: &Progress,
    done: impl FnOnce(&mut Context<'_>, u16, String) + 'static,
) {
    let fail = |error: &ApiError| {
        let mut out = String::new();
        error.write(command::find_id(json), line, &mut out);
        out
    };
    match command {
        Ok(command) if command.except.has_names() || calls.count() > 0 => match call(ctx, parts, &command) {
            Ok((pending, call)) => send_call(ctx, call, pending, calls, line, done),
            Err(error) => done(ctx, error.status, fail(&error)),
        },
        Ok(command) => match forward(ctx, parts, &command) {
            Ok((pending, published)) => finish(ctx, pending, published, done),
            Err(error) => done(ctx, error.status, fail(&error)),
        },
        Err(error) => done(ctx, error.status, fail(&error)),
    }
}

/// Executes a push command that gets no answer, such as the push command of a datagram.
///
/// # Errors
/// Returns an error if the message cannot be sent.
pub fn send(ctx: &mut Context<'_>, parts: &mut ApiParts<'_>, command: &PushCommand<'_>) -> Result<(), ApiError> {
    if command.except.has_names() {
        let (_, call) = call(ctx, parts, command)?;
        let sent = ctx.remote().call_each(move |ctx| _ = call.run(ctx));
        return sent.sent().map(drop).map_err(|error| ApiError::busy(error.to_string()));
    }
    publish(ctx, parts, command, Tracking::None).map(drop)
}

/// Pushes to the receivers of this loop, and forwards the push to the other loops that have receivers.
fn forward(
    ctx: &mut Context<'_>,
    parts: &mut ApiParts<'_>,
    command: &PushCommand<'_>,
) -> Result<(PendingAnswer, Published), ApiError> {
    let pending = PendingAnswer::new(ctx, command);
    Ok((pending, publish(ctx, parts, command, Tracking::Written)?))
}

fn publish(
    ctx: &mut Context<'_>,
    parts: &mut ApiParts<'_>,
    command: &PushCommand<'_>,
    tracking: Tracking,
) -> Result<Published, ApiError> {
    let PushCommand { target, envelope, except, key, may_compress, .. } = command;
    let options = Options { except: &except.fds, key: key.as_deref(), is_plain: !may_compress, tracking };
    parts.publisher.publish(ctx, parts.roster, target, envelope, options).map_err(to_api_error)
}

fn finish(
    ctx: &mut Context<'_>,
    pending: PendingAnswer,
    published: Published,
    done: impl FnOnce(&mut Context<'_>, u16, String) + 'static,
) {
    let Published { delivery, others } = published;
    match others {
        None => done(ctx, 200, pending.json(ctx, delivery)),
        Some(others) => others.then(ctx, move |ctx, others| {
            let json = pending.json(ctx, Published::sum(delivery, others.ok()));
            done(ctx, 200, json);
        }),
    }
}

/// Sends the pending notices of the target groups, and then creates the call for a push.
fn call(
    ctx: &mut Context<'_>,
    parts: &mut ApiParts<'_>,
    command: &PushCommand<'_>,
) -> Result<(PendingAnswer, PushCall), ApiError> {
    let PushCommand { target, envelope, except, key, may_compress, .. } = command;
    let frame = encode(ctx, parts, target, envelope)?;
    if let Target::Groups(groups) = target {
        groups.iter().for_each(|group| parts.roster.notify_before_message(ctx, group));
    }
    let (target, except, key) = (target.to_owned(), except.to_owned(), key.as_deref().map(str::to_owned));
    Ok((PendingAnswer::new(ctx, command), PushCall { target, except, frame, key, may_compress: *may_compress }))
}

fn encode(
    ctx: &Context<'_>,
    parts: &mut ApiParts<'_>,
    target: &Target<'_>,
    envelope: &Envelope<'_>,
) -> Result<Frame, ApiError> {
    parts.publisher.frame(ctx, target, envelope).map_err(to_api_error)
}

fn send_call(
    ctx: &mut Context<'_>,
    call: PushCall,
    pending: PendingAnswer,
    calls: &Progress,
    line: Option<u64>,
    done: impl FnOnce(&mut Context<'_>, u16, String) + 'static,
) {
    let (call, guard) = (Arc::new(call), calls.begin());
    let run = move |ctx: &mut Context<'_>, part: Part<Delivery>| {
        let delivery = call.run(ctx);
        part.give(ctx, delivery);
    };
    gather(ctx, run, move |ctx, parts| {
        drop(guard);
        match parts {
            Ok(parts) => {
                let sum = parts.into_iter().fold(Delivery::default(), |sum, part| Published::sum(sum, Some(part)));
                let json = pending.json(ctx, sum);
                done(ctx, 200, json);
            }
            Err(error) => {
                let (error, mut out) = (ApiError::from(error), String::new());
                error.write(pending.id.as_deref(), line, &mut out);
                done(ctx, error.status, out);
            }
        }
    });
}

impl PushCall {
    /// Pushes to the receivers of this loop.
    fn run(&self, ctx: &mut Context<'_>) -> Delivery {
        let PushCall { target, except, frame, key, may_compress } = self;
        let except = excluded_fds(ctx, except);
        let receivers = verbs::connections(ctx, target);
        let mut push = Push::from(frame).except(&except).compress(*may_compress);
        if let Some(key) = key {
            push = push.key(key);
        }
        ctx.push_fds(receivers, push)
    }
}

impl PendingAnswer {
    /// Creates the pending answer. The caller must call this function before the push, because the push may close
    /// connections.
    fn new(ctx: &Context<'_>, command: &PushCommand<'_>) -> PendingAnswer {
        let only_uid = match &command.target {
            Target::Uids(uids) => match uids.as_slice() {
                [uid] => Some(uid.to_string()),
                _ => None,
            },
            _ => None,
        };
        let offline = offline_before(ctx, &command.target).into_iter().map(str::to_owned).collect();
        PendingAnswer { id: command.id.map(str::to_owned), offline, only_uid }
    }

    /// Returns the answer with the counts of all loops.
    fn json(self, ctx: &Context<'_>, delivery: Delivery) -> String {
        let PendingAnswer { id, mut offline, only_uid } = self;
        offline.extend(only_uid.filter(|uid| delivery.matched == 0 && !ctx.is_online(uid)));
        let offline: Vec<&str> = offline.iter().map(String::as_str).collect();
        let mut out = String::with_capacity(96);
        write_answer(id.as_deref(), delivery, &offline, &mut out);
        out
    }
}
