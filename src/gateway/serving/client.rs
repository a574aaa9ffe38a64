//! Executes the JSON frames that clients send.

use std::borrow::Cow;

use fdpush::{Change, Context, Fd};

use crate::gateway::hooks::webhook::EmitResult;
use crate::gateway::identity::permissions::Permissions;
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::publish::{Envelope, Options, PublishError, Published, Publisher, Tracking};
use crate::gateway::wire::frame::{self, FrameError, Id};
use crate::gateway::wire::json;

/// The state of the gateway that a client frame reads or changes.
pub struct ClientParts<'a> {
    pub roster: &'a mut Roster,
    pub publisher: &'a mut Publisher,
    pub permissions: &'a Permissions,
}

/// Executes a client frame and sends the answer to the client.
///
/// `emitted` is the result of emitting the webhook event `message` for this frame.
pub fn handle_frame(ctx: &mut Context<'_>, parts: &mut ClientParts<'_>, fd: Fd, text: &str, emitted: EmitResult) {
    let (id, request) = frame::parse(text);
    let outcome = match emitted {
        // If the webhook event `message` of a frame is too large, the frame is not executed.
        EmitResult::TooLarge(bytes_max) => Err(event_too_large(bytes_max)),
        _ => request.and_then(|request| {
            parts.permissions.check(ctx, fd, &request)?;
            execute(ctx, parts, fd, id, request, emitted)
        }),
    };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) => Some(frame::error(id, &error)),
    };
    if let Some(answer) = answer {
        ctx.push(fd, &answer);
    }
}

/// Executes a client frame that passed the permission check.
///
/// Returns the answer to the client. A successful frame without an id gets no answer, except an `online` frame.
fn execute(
    ctx: &mut Context<'_>,
    parts: &mut ClientParts<'_>,
    fd: Fd,
    id: Id<'_>,
    request: frame::ClientFrame<'_>,
    emitted: EmitResult,
) -> Result<Option<String>, FrameError> {
    match request {
        frame::ClientFrame::Push { to, key, data } => {
            // The conflation key includes the fd of the sender. So a sender cannot replace queued messages of other
            // senders.
            let key = key.map(|key| format!("{fd} {key}"));
            let envelope = Envelope::Data { from: Some(fd), data };
            // Only the ack of a push with an `id` reports how many receivers on other loops got the message.
            let tracking = if id.is_some() { Tracking::Queued } else { Tracking::None };
            let options = Options { key: key.as_deref(), tracking, ..Options::default() };
            // A push does not exclude its sender: if the sender belongs to the target, the sender also gets the
            // message.
            let published = parts.publisher.publish(ctx, parts.roster, &to, &envelope, options);
            let published = published.map_err(|error| match error {
                PublishError::TooLarge(why) => FrameError::too_large(why),
                PublishError::OutOfMemory => FrameError::unavailable("out of memory"),
            })?;
            Ok(id.and_then(|id| acknowledge_push(ctx, fd, id, published)))
        }
        // The members of the group get the `joined` or `left` notice at the end of the turn, after the answer to the
        // sender.
        frame::ClientFrame::Join { group } => acknowledge(id, parts.roster.join(ctx, fd, &group)),
        frame::ClientFrame::Leave { group } => acknowledge(id, parts.roster.leave(ctx, fd, &group)),
        frame::ClientFrame::Send { data } => {
            let wants_send = parts.roster.events().wants_send();
            let emitted = if wants_send { emit_sent(ctx, parts.roster, fd, data)? } else { emitted };
            acknowledge_emitted(id, emitted)
        }
        frame::ClientFrame::Heartbeat => Ok(id.map(frame::ack)),
        frame::ClientFrame::Online { uids } => {
            let are_online = uids.iter().map(Cow::as_ref).filter(|uid| ctx.is_online(uid));
            Ok(Some(frame::online(id, are_online)))
        }
    }
}

/// Returns the ack of a push frame. If other loops got the message, returns `None`, and sends the ack after these loops
/// have reported their delivery counts.
fn acknowledge_push(ctx: &mut Context<'_>, fd: Fd, id: &str, published: Published) -> Option<String> {
    let Published { delivery, others } = published;
    let Some(others) = others else { return Some(frame::push_ack(id, delivery)) };
    let id = id.to_owned();
    others.then(ctx, move |ctx, others| {
        ctx.push(fd, &frame::push_ack(&id, Published::sum(delivery, others.ok())));
    });
    None
}

/// Emits the webhook event `send` for a client frame.
///
/// The event contains an unchanged copy of the data. So this function returns an error for data that the JSON parser of
/// a back end may refuse.
fn emit_sent(ctx: &Context<'_>, roster: &mut Roster, fd: Fd, data: &str) -> Result<EmitResult, FrameError> {
    let data =
        json::portable(data).map_err(|why| FrameError::bad_request(format!("data is not portable JSON: {why}")))?;
    Ok(roster.events().emit_send(ctx, fd, data))
}

/// Returns the answer to a client that sent a `send` frame. The server forwards a `send` frame only to the webhook.
fn acknowledge_emitted(id: Id<'_>, emitted: EmitResult) -> Result<Option<String>, FrameError> {
    match emitted {
        EmitResult::Queued => Ok(id.map(frame::ack)),
        EmitResult::Full => Err(FrameError::unavailable("webhook queue full: frame not forwarded")),
        EmitResult::OutOfMemory => Err(FrameError::unavailable("out of memory: frame not forwarded")),
        EmitResult::TooLarge(bytes_max) => Err(event_too_large(bytes_max)),
        EmitResult::Unwanted => Err(FrameError::not_allowed("no webhook receives send or message events")),
    }
}

fn event_too_large(bytes_max: usize) -> FrameError {
    FrameError::too_large(format!("webhook event of the frame exceeds webhook_event_bytes_max ({bytes_max} bytes)"))
}

fn acknowledge(id: Id<'_>, change: Change) -> Result<Option<String>, FrameError> {
    if change == Change::Full {
        return Err(FrameError::not_allowed(change.to_string()));
    }
    if !change.is_ok() {
        return Err(FrameError::bad_request(change.to_string()));
    }
    Ok(id.map(frame::ack))
}
