//! `POST /api/push`, a line of a batch, a datagram: one message, to whom it may concern.

use std::borrow::Cow;

use fdpush::{Context, Delivery, Fd, Message, Push};

use super::command::{self, Command, Except, Payload, PushCommand, Target};
use super::error::ApiError;
use crate::gateway::frame;
use crate::gateway::json::Quoted;

/// Carries out a push command and appends the answer, an error too, to `out`. `line` is its place in a batch, from 1.
/// `scratch` is memory for reuse. Returns the status that a request of its own is answered with.
pub fn carry_out(ctx: &mut Context<'_>, json: &[u8], line: Option<u64>, scratch: &mut String, out: &mut String) -> u16 {
    let outcome =
        Command::read(json, &command::PUSH).and_then(|command| execute(ctx, &command.into_push()?, scratch, out));
    match outcome {
        Ok(()) => 200,
        Err(error) => {
            error.write(command::find_id(json), line, out);
            error.status
        }
    }
}

/// Carries out a push and appends its answer to `out`; on an error nothing was done, and nothing appended.
pub fn execute(
    ctx: &mut Context<'_>,
    command: &PushCommand<'_>,
    scratch: &mut String,
    out: &mut String,
) -> Result<(), ApiError> {
    let PushCommand { id, target, payload, except, key } = command;
    let except = excepted(ctx, except);
    let how = How { except: &except, key: key.as_deref() };
    let (delivery, offline) = match payload {
        Payload::Data(data) => push_data(ctx, target, data, &how, scratch)?,
        Payload::Text(text) => push_raw(ctx, target, Message::Text(text), &how)?,
        Payload::Binary(bytes) => push_raw(ctx, target, Message::Binary(bytes), &how)?,
    };
    write_answer(*id, delivery, &offline, out);
    Ok(())
}

/// What the envelope of one uid adds to `data`, at most: a name of 128 bytes, each of them escaped.
const ENVELOPE_BYTES_MAX: usize = 1024;

/// How a push is done.
struct How<'a> {
    /// In order, each once.
    except: &'a [Fd],
    key: Option<&'a str>,
}

impl How<'_> {
    fn of<'p>(&'p self, message: Message<'p>) -> Push<'p> {
        self.besides(message, self.except)
    }

    /// As [`of`](How::of), where of those left out only these matter.
    fn besides<'p>(&'p self, message: Message<'p>, except: &'p [Fd]) -> Push<'p> {
        let push = message.except(except);
        match self.key {
            Some(key) => push.key(key),
            None => push,
        }
    }
}

/// What came of a push, and the uids that had no connection.
type Pushed<'t> = (Delivery, Vec<&'t str>);

/// Pushes `data` in our envelope, which says whom it was for.
fn push_data<'t>(
    ctx: &mut Context<'_>,
    target: &'t Target<'_>,
    data: &str,
    how: &How<'_>,
    message: &mut String,
) -> Result<Pushed<'t>, ApiError> {
    match target {
        Target::Uids(uids) => return push_to_each(ctx, uids, data, how, message),
        Target::Fds(_) => envelope(message, data, |_| {}),
        Target::Groups(groups) => match groups.as_slice() {
            [group] => envelope(message, data, |message| {
                message.push_str("\"group\":");
                Quoted(group).append_to(message);
                message.push(',');
            }),
            groups => envelope(message, data, |message| {
                message.push_str("\"groups\":[");
                append_names(message, groups.iter().map(AsRef::as_ref));
                message.push_str("],");
            }),
        },
        Target::All => envelope(message, data, |message| message.push_str("\"all\":true,")),
    }
    push_raw(ctx, target, Message::Text(message), how)
}

/// Pushes `data` to each of these persons, who is told that it was for them.
fn push_to_each<'t>(
    ctx: &mut Context<'_>,
    uids: &'t [Cow<'_, str>],
    data: &str,
    how: &How<'_>,
    message: &mut String,
) -> Result<Pushed<'t>, ApiError> {
    if data.len() + ENVELOPE_BYTES_MAX > ctx.limits().queue_bytes_max {
        // It may be too long for some and not for others: then it is not pushed to any.
        for uid in uids {
            envelope_to(message, uid, "");
            check_bytes(ctx, message.len() + data.len())?;
        }
    }
    let mut pushed = Pushed::default();
    for uid in uids {
        // Of many, some are offline, and nothing is written for them. A single one is there as a rule.
        if uids.len() > 1 && !ctx.is_online(uid) {
            pushed.1.push(uid);
            continue;
        }
        // The list may be long, and each of many would walk it.
        let mut except = Vec::new();
        if !how.except.is_empty() {
            except = ctx.fds_of(uid);
            except.retain(|fd| how.except.binary_search(fd).is_ok());
        }
        envelope_to(message, uid, data);
        let delivery = ctx.push_uid(uid, how.besides(Message::Text(message), &except));
        if delivery.matched == 0 && !ctx.is_online(uid) {
            pushed.1.push(uid);
        }
        pushed.0 += delivery;
    }
    Ok(pushed)
}

/// Writes the message as its receivers get it. There is no `from`, which tells it from a message of another client.
/// `append_to` says whom it is for.
fn envelope(message: &mut String, data: &str, append_to: impl FnOnce(&mut String)) {
    message.clear();
    message.push_str("{\"type\":\"message\",");
    append_to(message);
    message.push_str("\"data\":");
    message.push_str(data);
    message.push('}');
}

/// The message for one person.
fn envelope_to(message: &mut String, uid: &str, data: &str) {
    envelope(message, data, |message| {
        message.push_str("\"to\":");
        Quoted(uid).append_to(message);
        message.push(',');
    });
}

/// Pushes a payload as it is.
fn push_raw<'t>(
    ctx: &mut Context<'_>,
    target: &'t Target<'_>,
    message: Message<'_>,
    how: &How<'_>,
) -> Result<Pushed<'t>, ApiError> {
    check_bytes(ctx, message.as_bytes().len())?;
    let push = how.of(message);
    Ok(match target {
        Target::Uids(uids) => {
            let delivery = ctx.push_uids(uids.iter().map(AsRef::as_ref), push);
            (delivery, uids.iter().map(AsRef::as_ref).filter(|uid| !ctx.is_online(uid)).collect())
        }
        Target::Fds(fds) => (ctx.push_fds(fds.iter().copied(), push), Vec::new()),
        Target::Groups(groups) => (ctx.push_groups(groups.iter().map(AsRef::as_ref), push), Vec::new()),
        Target::All => (ctx.broadcast(push), Vec::new()),
    })
}

fn check_bytes(ctx: &Context<'_>, payload_bytes: usize) -> Result<(), ApiError> {
    frame::check_size(payload_bytes, ctx.limits().queue_bytes_max).map_err(ApiError::too_large)
}

/// The connections that are left out, in order, each once.
fn excepted(ctx: &Context<'_>, except: &Except<'_>) -> Vec<Fd> {
    let mut fds = except.fds.clone();
    except.uids.iter().for_each(|uid| fds.extend(ctx.fds_of(uid)));
    except.groups.iter().for_each(|group| fds.extend(ctx.members(group)));
    fds.sort_unstable();
    fds.dedup();
    fds
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

/// Appends names as the elements of an array.
fn append_names<'n>(out: &mut String, names: impl Iterator<Item = &'n str>) {
    for (index, name) in names.enumerate() {
        if index > 0 {
            out.push(',');
        }
        Quoted(name).append_to(out);
    }
}
