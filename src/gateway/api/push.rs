//! `POST /api/push`, a line of a batch, a datagram: sends one message.

use fdpush::{Context, Delivery, Fd};

use super::Parts;
use super::backpressure::Holds;
use super::command::{self, Command, Except, PushCommand};
use super::error::ApiError;
use super::slots::SlotSet;
use crate::gateway::push::publish::{Options, Target};
use crate::gateway::wire::frame::append_names;

/// A push command's place in a batch.
pub struct Place<'a> {
    /// Counted from 1.
    pub line: u64,
    /// Hears which receivers the batch has to wait for.
    pub holds: &'a mut Holds,
}

/// Carries out a push command and appends the answer, an error too, to `out`. `place` is its place in a batch.
/// Returns the status that a request of its own is answered with.
pub fn carry_out(
    ctx: &mut Context<'_>,
    parts: &mut Parts<'_>,
    json: &[u8],
    mut place: Option<Place<'_>>,
    out: &mut String,
) -> u16 {
    let outcome = Command::read(json, &command::PUSH)
        .and_then(|command| execute(ctx, parts, &command.into_push()?, place.as_mut(), out));
    match outcome {
        Ok(()) => 200,
        Err(error) => {
            error.write(command::find_id(json), place.map(|place| place.line), out);
            error.status
        }
    }
}

/// Carries out a push and appends its answer to `out`; on an error nothing was done, and nothing appended.
pub fn execute(
    ctx: &mut Context<'_>,
    parts: &mut Parts<'_>,
    command: &PushCommand<'_>,
    place: Option<&mut Place<'_>>,
    out: &mut String,
) -> Result<(), ApiError> {
    let PushCommand { id, target, envelope, except, key } = command;
    let except = excepted(ctx, except);
    let mut offline: Vec<&str> = match target {
        // Before the push, which may close a reader. A single uid is online as a rule: it is looked up when nobody was there.
        Target::Uids(uids) if uids.len() > 1 => {
            uids.iter().map(AsRef::as_ref).filter(|uid| !ctx.is_online(uid)).collect()
        }
        _ => Vec::new(),
    };
    let options = Options { except: &except, key: key.as_deref() };
    let delivery = parts.publisher.publish(ctx, parts.roster, target, envelope, options);
    let delivery = delivery.map_err(ApiError::too_large)?;
    if let (Target::Uids(uids), 0) = (target, delivery.matched)
        && let [uid] = uids.as_slice()
        && !ctx.is_online(uid)
    {
        offline.push(uid);
    }
    if let Some(place) = place {
        place.holds.note(ctx, target);
    }
    write_answer(*id, delivery, &offline, out);
    Ok(())
}

/// The connections that are left out, each once.
fn excepted(ctx: &Context<'_>, except: &Except<'_>) -> Vec<Fd> {
    let Except { fds, uids, groups } = except;
    let mut found = fds.clone();
    if !uids.is_empty() || !groups.is_empty() {
        let mut seen = SlotSet::default();
        // A stale fd must not hide the connection that has its slot now.
        found.retain(|fd| ctx.is_open(*fd) && seen.insert(*fd));
        uids.iter().for_each(|uid| found.extend(ctx.fds_of(uid).into_iter().filter(|fd| seen.insert(*fd))));
        groups.iter().for_each(|group| found.extend(ctx.members(group).into_iter().filter(|fd| seen.insert(*fd))));
    }
    found
}

/// The answer, a line of a batch or a body of its own. It is written by hand, for a batch has a million a second of it.
fn write_answer(id: Option<&str>, delivery: Delivery, offline: &[&str], out: &mut String) {
    out.push('{');
    if let Some(id) = id {
        out.push_str("\"id\":");
        out.push_str(id);
        out.push(',');
    }
    let Delivery { matched, queued, dropped } = delivery;
    let mut digits = itoa::Buffer::new();
    for (name, number) in [("\"matched\":", matched), (",\"queued\":", queued), (",\"dropped\":", dropped)] {
        out.push_str(name);
        out.push_str(digits.format(number));
    }
    out.push_str(",\"offline\":[");
    append_names(out, offline.iter().copied());
    out.push_str("]}");
}
