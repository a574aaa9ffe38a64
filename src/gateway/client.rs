//! What clients may do with JSON frames, and what they hear of each other.

use std::borrow::Cow;
use std::collections::HashSet;

use fdpush::{Change, Context, Delivery, Fd, Outcome, Push};

use super::frame::{self, Id, Refusal, Target};
use super::json;
use super::permits::Permits;
use super::roster::{self, Roster};
use super::webhook::Emitted;

/// Groups that one client can be in by its own wish.
const GROUPS_MAX: usize = 1000;

/// Carries out a client's frame, and answers it. `emitted` is what became of the frame's `message` event.
pub fn carry_out(ctx: &mut Context<'_>, roster: &mut Roster, permits: &Permits, fd: Fd, text: &str, emitted: Emitted) {
    let (id, request) = frame::parse(text);
    let outcome = match emitted {
        // A frame is carried out if the back end can hear of it, or not at all.
        Emitted::TooLarge(bytes_max) => Err(event_too_large(bytes_max)),
        _ => request.and_then(|request| {
            permits.check(ctx, fd, &request)?;
            answer(ctx, roster, fd, id, request, emitted)
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
    roster: &mut Roster,
    fd: Fd,
    id: Id<'_>,
    request: frame::Request<'_>,
    emitted: Emitted,
) -> Result<Option<String>, Refusal> {
    match request {
        frame::Request::Push { to, key, data } => {
            // A key of one's own: it replaces no message of others.
            let key = key.map(|key| format!("{fd} {key}"));
            let delivery = push(ctx, fd, &to, key.as_deref(), data)?;
            Ok(id.map(|id| frame::push_ack(id, delivery)))
        }
        // The answer comes first, and only then does the group hear of it, the newcomer included. But who is in the group is
        // written down before both: an answer for which there is no room closes its reader, who is nobody then.
        frame::Request::Join { group } => {
            if !ctx.is_member(fd, &group) && ctx.groups_of(fd).len() >= GROUPS_MAX {
                return Err(Refusal::not_allowed(format!("one is in at most {GROUPS_MAX} groups")));
            }
            let (change, news) = roster.join_untold(ctx, fd, &group);
            acknowledge(ctx, fd, id, change)?;
            roster::tell(ctx, &group, news);
            Ok(None)
        }
        frame::Request::Leave { group } => {
            let (change, news) = roster.leave_untold(ctx, fd, &group);
            acknowledge(ctx, fd, id, change)?;
            roster::tell(ctx, &group, news);
            Ok(None)
        }
        frame::Request::Send { data } => {
            let emitted = if roster.watch().wants_sent() { emit_sent(ctx, roster, fd, data)? } else { emitted };
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

/// Pushes `data` from one client to others. Everyone who is meant gets it, the sender's own connections too.
fn push(ctx: &mut Context<'_>, from: Fd, to: &Target<'_>, key: Option<&str>, data: &str) -> Result<Delivery, Refusal> {
    let uid = ctx.uid_of(from).map(str::to_owned);
    let message = |to: &str| frame::message(uid.as_deref(), from, to, data);
    check_size(ctx, to, message("").len())?;
    match to {
        Target::Uids(uids) => {
            let mut delivery = Delivery::default();
            let mut seen: HashSet<&str> = HashSet::new();
            let distinct = uids.iter().map(Cow::as_ref).filter(|uid| seen.insert(uid));
            // A message that nobody will get is not even written.
            for to in distinct.filter(|uid| ctx.is_online(uid)).collect::<Vec<_>>() {
                delivery += ctx.push_uid(to, keyed(&message(&frame::to_uid(to)), key));
            }
            Ok(delivery)
        }
        Target::Fd(number) => {
            let Some(to) = Fd::from_u64(*number) else {
                return Err(Refusal::bad_request(format!("{number} is no fd")));
            };
            Ok(match ctx.push(to, keyed(&message(""), key)) {
                Outcome::Queued => Delivery { matched: 1, queued: 1, dropped: 0 },
                Outcome::Dropped | Outcome::TooLarge | Outcome::Refused => {
                    Delivery { matched: 1, queued: 0, dropped: 1 }
                }
                Outcome::Gone => Delivery::default(),
            })
        }
        Target::Group(group) => Ok(ctx.push_group(group, keyed(&message(&frame::to_group(group)), key))),
        Target::All => Ok(ctx.broadcast(keyed(&message(frame::TO_ALL), key))),
    }
}

fn keyed<'a>(message: &'a str, key: Option<&'a str>) -> Push<'a> {
    let push = Push::from(message);
    match key {
        Some(key) => push.key(key),
        None => push,
    }
}

/// Whether a message of so many bytes, and what names whom it is for, fits into a queue at all.
fn check_size(ctx: &Context<'_>, to: &Target<'_>, bytes: usize) -> Result<(), Refusal> {
    let naming = match to {
        Target::Uids(uids) => uids.iter().map(|uid| frame::to_uid(uid).len()).max().unwrap_or(0),
        Target::Group(group) => frame::to_group(group).len(),
        Target::Fd(_) => 0,
        Target::All => frame::TO_ALL.len(),
    };
    frame::check_size(bytes + naming, ctx.limits().queue_bytes_max).map_err(Refusal::too_large)
}

fn acknowledge(ctx: &mut Context<'_>, fd: Fd, id: Id<'_>, change: Change) -> Result<(), Refusal> {
    if !change.is_ok() {
        return Err(Refusal::bad_request(change.to_string()));
    }
    if let Some(id) = id {
        ctx.push(fd, &frame::ack(id));
    }
    Ok(())
}
