//! Sends the messages of client frames, API requests, batches and datagrams to clients.
//!
//! All receivers of a message get the same content, so the message is encoded once, and the receivers' queues share the
//! encoded message.

use std::borrow::Cow;
use std::collections::TryReserveError;

use fdpush::shared::SERVER_HEADER_BYTES_MAX;
use fdpush::{Context, Delivery, Fd, Frame, Message, Push, Reply};

use crate::gateway::presence::roster::Roster;
use crate::gateway::wire::frame::append_names;
use crate::gateway::wire::json::Quoted;
use crate::gateway::wire::target::Target;

/// The content of a message.
#[derive(Debug)]
pub enum Envelope<'a> {
    /// JSON data. The message is a JSON object with the data, the sender and the target.
    Data { from: Option<Fd>, data: &'a str },
    /// The text of a text message, which is sent unchanged.
    Text(Cow<'a, str>),
    /// The bytes of a binary message, which are sent unchanged.
    Binary(Vec<u8>),
}

/// The reason why a message was not sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PublishError {
    /// The frame of the message is longer than `queue_bytes_max`. The `String` names the length of the frame and the
    /// limit.
    TooLarge(String),
    /// Memory for the message could not be allocated.
    OutOfMemory,
}

/// The number of bytes that are reserved for a JSON message, in addition to its data and its group names.
///
/// If a uid or a group name needs JSON escapes, the message can be longer than the reserved memory.
const ENVELOPE_BYTES: usize = 256;

/// The options with which a message is published.
#[derive(Copy, Clone, Default, Debug)]
pub struct Options<'a> {
    /// The connections that do not get the message.
    pub except: &'a [Fd],
    /// The conflation key of the message: see [`Push::key`].
    pub key: Option<&'a str>,
    /// Whether the message is sent without compression, even to clients that support compression.
    pub is_plain: bool,
    /// Whether the caller gets the delivery counts of other loops, and when.
    pub tracking: Tracking,
}

/// Whether the publisher of a message gets the delivery counts of other loops, and when the other loops report the
/// counts.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Tracking {
    /// The other loops report no counts.
    #[default]
    None,
    /// Each of the other loops reports its counts after it has put the message into the send queues.
    Queued,
    /// Each of the other loops reports its counts after it has written the message to the sockets.
    Written,
}

/// The delivery counts of a published message.
#[derive(Debug)]
pub struct Published {
    /// The delivery counts of this loop.
    pub delivery: Delivery,
    /// The future delivery counts of the other loops. `None` if no other loop got the message, or with
    /// [`Tracking::None`].
    pub others: Option<Reply<Delivery>>,
}

/// The client that sends a message.
#[derive(Copy, Clone)]
struct SendingClient<'a> {
    fd: Fd,
    uid: Option<&'a str>,
}

/// Publishes messages to clients. The JSON of each message is written into one reused buffer.
#[derive(Default, Debug)]
pub struct Publisher {
    text: String,
}

impl Publisher {
    /// Publishes a message to its target. Pending presence notices of the target groups are sent before the message.
    ///
    /// # Errors
    /// Returns an error if the frame of the message is longer than `queue_bytes_max`, or if memory for the message
    /// could not be allocated. If `publish` returns an error, no receiver gets the message.
    pub fn publish(
        &mut self,
        ctx: &mut Context<'_>,
        roster: &mut Roster,
        target: &Target<'_>,
        envelope: &Envelope<'_>,
        options: Options<'_>,
    ) -> Result<Published, PublishError> {
        let message = self.encode(ctx, target, envelope)?;
        let mut push = Push::from(message).except(options.except).compress(!options.is_plain);
        if let Some(key) = options.key {
            push = push.key(key);
        }
        if let Target::Groups(groups) = target {
            groups.iter().for_each(|group| roster.notify_before_message(ctx, group));
        }
        let send = |ctx: &mut Context<'_>| match target {
            Target::Uids(uids) => match uids.as_slice() {
                [uid] => ctx.push_uid(uid, push),
                uids => ctx.push_uids(uids, push),
            },
            Target::Fds(fds) => ctx.push_fds(fds.iter().copied(), push),
            Target::Groups(groups) => ctx.push_groups(groups, push),
            Target::All => ctx.broadcast(push),
        };
        let (delivery, others) = match options.tracking {
            Tracking::None => (send(ctx), None),
            Tracking::Queued => ctx.track_forwarded(send),
            Tracking::Written => ctx.track_written(send),
        };
        Ok(Published { delivery, others })
    }

    /// Encodes a message as a frame, so that several loops can push the same frame.
    ///
    /// # Errors
    /// The errors are those of [`publish`](Publisher::publish).
    pub fn frame(
        &mut self,
        ctx: &Context<'_>,
        target: &Target<'_>,
        envelope: &Envelope<'_>,
    ) -> Result<Frame, PublishError> {
        Ok(match self.encode(ctx, target, envelope)? {
            Message::Text(text) => Frame::text(text),
            Message::Binary(bytes) => Frame::binary(bytes),
        })
    }

    fn encode<'a>(
        &'a mut self,
        ctx: &Context<'_>,
        target: &Target<'_>,
        envelope: &'a Envelope<'_>,
    ) -> Result<Message<'a>, PublishError> {
        let message = match envelope {
            Envelope::Data { from, data } => {
                let from = from.map(|fd| SendingClient { fd, uid: ctx.uid_of(fd) });
                write_envelope(&mut self.text, from, target, data).map_err(|_| PublishError::OutOfMemory)?;
                Message::Text(&self.text)
            }
            Envelope::Text(text) => Message::Text(text),
            Envelope::Binary(bytes) => Message::Binary(bytes),
        };
        check_size(message.as_bytes().len(), ctx.limits().queue_bytes_max)?;
        Ok(message)
    }
}

impl Published {
    /// Returns the sum of the delivery counts of this loop (`own`) and of the other loops (`others`). `others` is
    /// `None` if the other loops have ended without a report.
    pub fn sum(mut own: Delivery, others: Option<Delivery>) -> Delivery {
        own += others.unwrap_or_default();
        own
    }
}

/// Writes the JSON object of a message with JSON data.
///
/// The JSON object of a message to groups contains the group names. The JSON object of a message to all clients
/// contains the member `all`. The JSON object of a message to uids or fds does not contain the target.
///
/// # Errors
/// Returns an error if memory for the message could not be allocated.
fn write_envelope(
    out: &mut String,
    from: Option<SendingClient<'_>>,
    target: &Target<'_>,
    data: &str,
) -> Result<(), TryReserveError> {
    out.clear();
    let names: usize = match target {
        Target::Groups(groups) => groups.iter().map(|group| group.len() + 3).sum(),
        Target::Uids(_) | Target::Fds(_) | Target::All => 0,
    };
    out.try_reserve(ENVELOPE_BYTES + names + data.len())?;
    out.push_str("{\"type\":\"message\",");
    if let Some(SendingClient { fd, uid }) = from {
        out.push_str("\"from\":");
        match uid {
            Some(uid) => Quoted(uid).append_to(out),
            None => out.push_str("null"),
        }
        out.push_str(",\"fd\":");
        out.push_str(itoa::Buffer::new().format(fd.as_u64()));
        out.push(',');
    }
    match target {
        Target::Uids(_) | Target::Fds(_) => {}
        Target::Groups(groups) => match groups.as_slice() {
            [group] => {
                out.push_str("\"group\":");
                Quoted(group).append_to(out);
                out.push(',');
            }
            groups => {
                out.push_str("\"groups\":[");
                append_names(out, groups.iter().map(AsRef::as_ref));
                out.push_str("],");
            }
        },
        Target::All => out.push_str("\"all\":true,"),
    }
    out.push_str("\"data\":");
    out.push_str(data);
    out.push('}');
    Ok(())
}

/// Checks that the frame of a message fits into an empty queue.
///
/// The sender gets an error for a frame that fits into no queue. Without this check, every receiver of the frame would
/// be treated as a slow consumer.
fn check_size(message_bytes: usize, queue_bytes_max: usize) -> Result<(), PublishError> {
    match message_bytes + SERVER_HEADER_BYTES_MAX {
        bytes if bytes <= queue_bytes_max => Ok(()),
        bytes => Err(PublishError::TooLarge(format!(
            "message exceeds queue_bytes_max (frame of {bytes} bytes, limit {queue_bytes_max} bytes)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_names_the_sender_and_the_groups() {
        let sender = SendingClient { fd: Fd::from_u64(7).expect("the fd is valid"), uid: Some("ann") };
        let names = |names: &[&'static str]| names.iter().map(|name| Cow::Borrowed(*name)).collect();
        let table = [
            (None, Target::Uids(names(&["bob", "cat"])), r#"{"type":"message","data":[1, 2]}"#),
            (None, Target::Fds(Vec::new()), r#"{"type":"message","data":[1, 2]}"#),
            (None, Target::Groups(names(&["g\""])), r#"{"type":"message","group":"g\"","data":[1, 2]}"#),
            (None, Target::Groups(names(&["g", "h"])), r#"{"type":"message","groups":["g","h"],"data":[1, 2]}"#),
            (Some(sender), Target::All, r#"{"type":"message","from":"ann","fd":7,"all":true,"data":[1, 2]}"#),
            (
                Some(SendingClient { uid: None, ..sender }),
                Target::Uids(names(&["bob"])),
                r#"{"type":"message","from":null,"fd":7,"data":[1, 2]}"#,
            ),
        ];
        let mut out = String::from("left over");
        for (from, target, envelope) in table {
            assert_eq!(write_envelope(&mut out, from, &target, "[1, 2]"), Ok(()));
            assert_eq!(out, envelope);
        }
    }

    #[test]
    fn a_frame_over_the_queue_limit_is_refused() {
        assert_eq!(check_size(90, 100), Ok(()));
        let why = "message exceeds queue_bytes_max (frame of 101 bytes, limit 100 bytes)".to_owned();
        assert_eq!(check_size(91, 100), Err(PublishError::TooLarge(why)));
    }
}
