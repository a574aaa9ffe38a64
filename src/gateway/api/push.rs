//! Executes the push commands of `POST /api/push`, of batch lines and of datagrams.

use fdpush::shared::SlotSet;
use fdpush::{Context, Delivery, Fd};

use super::backpressure::PausedBatches;
use super::command::{self, Except, PushCommand};
use super::error::ApiError;
use super::parts::ApiParts;
use crate::gateway::push::publish::{Options, PublishError};
use crate::gateway::wire::frame::append_names;
use crate::gateway::wire::target::Target;

/// A line of a batch. The line contains one push command.
pub struct BatchLine<'a> {
    /// The number of the line, counted from 1.
    pub line: u64,
    /// The paused batches. [`PausedBatches`] also stores the receivers whose queues the batch must wait for.
    pub paused: &'a mut PausedBatches,
}

/// Parses and executes a push command.
///
/// Appends the answer or the error of the push command to `out`. Returns the HTTP status of the answer or error.
pub fn handle_command(
    ctx: &mut Context<'_>,
    parts: &mut ApiParts<'_>,
    json: &[u8],
    mut line: Option<BatchLine<'_>>,
    out: &mut String,
) -> u16 {
    let outcome =
        PushCommand::read(json, &command::PUSH).and_then(|command| execute(ctx, parts, &command, line.as_mut(), out));
    match outcome {
        Ok(()) => 200,
        Err(error) => {
            error.write(command::find_id(json), line.map(|line| line.line), out);
            error.status
        }
    }
}

/// Executes a push command and appends its answer to `out`.
///
/// # Errors
/// Returns an error if the message is too long, or if memory for the message could not be allocated. A push command
/// with an error sends no message and appends no answer.
pub fn execute(
    ctx: &mut Context<'_>,
    parts: &mut ApiParts<'_>,
    command: &PushCommand<'_>,
    line: Option<&mut BatchLine<'_>>,
    out: &mut String,
) -> Result<(), ApiError> {
    let PushCommand { id, target, envelope, except, key, may_compress } = command;
    let except = excluded_fds(ctx, except);
    let mut offline = offline_before(ctx, target);
    let options = Options { except: &except, key: key.as_deref(), is_plain: !may_compress, ..Options::default() };
    let published = parts.publisher.publish(ctx, parts.roster, target, envelope, options);
    let delivery = published.map_err(to_api_error)?.delivery;
    if let (Target::Uids(uids), 0) = (target, delivery.matched)
        && let [uid] = uids.as_slice()
        && !ctx.is_online(uid)
    {
        offline.push(uid);
    }
    if let Some(line) = line {
        line.paused.record_receivers(ctx, target);
    }
    write_answer(*id, delivery, &offline, out);
    Ok(())
}

/// Returns the uids in the target of a push that are offline before the push.
///
/// The uids are found before the push, because the push may close the connection of a slow consumer. The uid of the
/// slow consumer must not count as offline. The uid of a push to one uid is usually online, so this uid is not in the
/// list. The caller looks up this uid after the push, and only if the push matched no connection.
pub fn offline_before<'a>(ctx: &Context<'_>, target: &'a Target<'_>) -> Vec<&'a str> {
    match target {
        Target::Uids(uids) if uids.len() > 1 => {
            uids.iter().map(AsRef::as_ref).filter(|uid| !ctx.is_online(uid)).collect()
        }
        _ => Vec::new(),
    }
}

/// Converts the error of a message that was not sent into an error of the API.
pub fn to_api_error(error: PublishError) -> ApiError {
    match error {
        PublishError::TooLarge(why) => ApiError::too_large(why),
        PublishError::OutOfMemory => ApiError::out_of_memory(),
    }
}

/// Returns the connections of this loop that `except` excludes from a push, without duplicates.
pub fn excluded_fds(ctx: &Context<'_>, except: &Except<'_>) -> Vec<Fd> {
    let Except { fds, uids, groups } = except;
    let mut found = fds.clone();
    if !uids.is_empty() || !groups.is_empty() {
        let mut seen = SlotSet::default();
        // The fds of closed connections are removed first. Such an fd would put its slot into `seen`, and then the open
        // connection in the same slot would not be found.
        found.retain(|fd| ctx.is_open(*fd) && seen.insert(fd.slot()));
        uids.iter().for_each(|uid| found.extend(ctx.fds_of(uid).into_iter().filter(|fd| seen.insert(fd.slot()))));
        groups
            .iter()
            .for_each(|group| found.extend(ctx.members(group).into_iter().filter(|fd| seen.insert(fd.slot()))));
    }
    found
}

/// Appends the JSON answer to a push command to `out`.
///
/// The API may have to write a million answers per second to batch requests. The formatter of the standard library is
/// too slow for this rate, so this function does not use it.
pub fn write_answer(id: Option<&str>, delivery: Delivery, offline: &[&str], out: &mut String) {
    out.push('{');
    if let Some(id) = id {
        out.push_str("\"id\":");
        out.push_str(id);
        out.push(',');
    }
    let Delivery { matched, queued, dropped, .. } = delivery;
    let mut digits = itoa::Buffer::new();
    for (name, number) in [("\"matched\":", matched), (",\"queued\":", queued), (",\"dropped\":", dropped)] {
        out.push_str(name);
        out.push_str(digits.format(number));
    }
    out.push_str(",\"offline\":[");
    append_names(out, offline.iter().copied());
    out.push_str("]}");
}
