//! What clients may do with JSON frames, and what they hear of each other.

use std::borrow::Cow;

use fdpush::{Change, Context, Fd};

use crate::gateway::hooks::webhook::Emitted;
use crate::gateway::identity::permissions::Permits;
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::publish::{Envelope, Options, Publisher};
use crate::gateway::wire::frame::{self, Id, Refusal};
use crate::gateway::wire::json;

/// The state that a client's frame works on besides the connections.
pub struct Parts<'a> {
    pub roster: &'a mut Roster,
    pub publisher: &'a mut Publisher,
    pub permits: &'a Permits,
}

/// Carries out a client's frame, and answers it. `emitted` is what became of the frame's `message` event.
pub fn carry_out(ctx: &mut Context<'_>, parts: &mut Parts<'_>, fd: Fd, text: &str, emitted: Emitted) {
    let (id, request) = frame::parse(text);
    let outcome = match emitted {
        // A frame is carried out if the back end can hear of it, or not at all.
        Emitted::TooLarge(bytes_max) => Err(event_too_large(bytes_max)),
        _ => request.and_then(|request| {
            parts.permits.check(ctx, fd, &request)?;
            answer(ctx, parts, fd, id, request, emitted)
        }),
    };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(refusal) => Some(frame::error(id, &refusal)),
    };
    if let Some(answer) = answer {
        ctx.push(fd, &answer);
    }
}

/// Does what is asked for. The answer is for the sender, and there is none where it gave no id and asked nothing.
fn answer(
    ctx: &mut Context<'_>,
    parts: &mut Parts<'_>,
    fd: Fd,
    id: Id<'_>,
    request: frame::Request<'_>,
    emitted: Emitted,
) -> Result<Option<String>, Refusal> {
    match request {
        frame::Request::Push { to, key, data } => {
            // A key of one's own: it replaces no message of others.
            let key = key.map(|key| format!("{fd} {key}"));
            let envelope = Envelope::Data { from: Some(fd), data };
            let options = Options { except: &[], key: key.as_deref() };
            // Everyone who is meant gets it, the sender's own connections too.
            let delivery = parts.publisher.publish(ctx, parts.roster, &to, &envelope, options);
            let delivery = delivery.map_err(Refusal::too_large)?;
            Ok(id.map(|id| frame::push_ack(id, delivery)))
        }
        // The group, the newcomer included, hears of it behind the answer: at the end of the turn.
        frame::Request::Join { group } => acknowledge(id, parts.roster.join(ctx, fd, &group)),
        frame::Request::Leave { group } => acknowledge(id, parts.roster.leave(ctx, fd, &group)),
        frame::Request::Send { data } => {
            let wants_sent = parts.roster.watch().wants_sent();
            let emitted = if wants_sent { emit_sent(ctx, parts.roster, fd, data)? } else { emitted };
            acknowledge_emitted(id, emitted)
        }
        frame::Request::Heartbeat => Ok(id.map(frame::ack)),
        frame::Request::Online { uids } => {
            let are_online = uids.iter().map(Cow::as_ref).filter(|uid| ctx.is_online(uid));
            Ok(Some(frame::online(id, are_online)))
        }
    }
}

/// Emits the `send` event of a frame. Its data goes into the event as it came, so it must be JSON that every back end reads.
fn emit_sent(ctx: &Context<'_>, roster: &mut Roster, fd: Fd, data: &str) -> Result<Emitted, Refusal> {
    let data = json::portable(data).map_err(|why| Refusal::bad_request(format!("data cannot be sent on: {why}")))?;
    Ok(roster.watch().sent(ctx, fd, data))
}

/// The answer to what is for the back end alone.
fn acknowledge_emitted(id: Id<'_>, emitted: Emitted) -> Result<Option<String>, Refusal> {
    match emitted {
        Emitted::Queued => Ok(id.map(frame::ack)),
        Emitted::Full => Err(Refusal::unavailable("the back end is behind, and this was not passed on")),
        Emitted::TooLarge(bytes_max) => Err(event_too_large(bytes_max)),
        Emitted::Unwanted => {
            Err(Refusal::not_allowed("no back end listens here: there is no webhook that takes send or message events"))
        }
    }
}

fn event_too_large(bytes_max: usize) -> Refusal {
    Refusal::too_large(format!("the frame's webhook event exceeds webhook_event_bytes_max ({bytes_max} bytes of JSON)"))
}

fn acknowledge(id: Id<'_>, change: Change) -> Result<Option<String>, Refusal> {
    if change == Change::Full {
        return Err(Refusal::not_allowed(change.to_string()));
    }
    if !change.is_ok() {
        return Err(Refusal::bad_request(change.to_string()));
    }
    Ok(id.map(frame::ack))
}
