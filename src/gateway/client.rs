//! What clients may do with JSON frames, and what they hear of each other.

use std::borrow::Cow;
use std::collections::HashSet;

use fdpush::{
    Cause, Change, CloseCode, Closed, Context, Delivery, Fd, Handler, Heartbeat, Message, NAME_BYTES_MAX, Outcome,
    Request, Response, Upgrade,
};

use super::frame::{self, Id, Refusal, Target};
use super::page;
use super::presence::Presence;

/// Groups that one client can be in by its own wish.
const GROUPS_MAX: usize = 1000;

/// The handler of `fdpush serve`.
#[derive(Debug)]
pub struct Gateway {
    heartbeat: Heartbeat,
    serves_page: bool,
    presence: Presence,
}

impl Gateway {
    /// A gateway that tells its clients of this heartbeat.
    pub fn new(heartbeat: Heartbeat, serves_page: bool) -> Gateway {
        Gateway { heartbeat, serves_page, presence: Presence::default() }
    }

    fn carry_out(&mut self, ctx: &mut Context<'_>, fd: Fd, text: &str) {
        let (id, request) = frame::parse(text);
        let answer = match request.and_then(|request| self.answer(ctx, fd, id, request)) {
            Ok(answer) => answer,
            Err(refusal) => Some(frame::error(id, &refusal)),
        };
        if let Some(answer) = answer {
            ctx.push(fd, &answer);
        }
    }

    /// Does what is asked for. The answer is for the sender, and there is none where it gave no id and asked nothing.
    fn answer(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        id: Id<'_>,
        request: frame::Request<'_>,
    ) -> Result<Option<String>, Refusal> {
        match request {
            frame::Request::Push { to, data } => {
                let delivery = push(ctx, fd, &to, data)?;
                Ok(id.map(|id| frame::push_ack(id, delivery)))
            }
            frame::Request::Join { group } => {
                self.join(ctx, fd, &group, id)?;
                Ok(None)
            }
            frame::Request::Leave { group } => {
                self.leave(ctx, fd, &group, id)?;
                Ok(None)
            }
            frame::Request::Heartbeat => Ok(id.map(frame::ack)),
            frame::Request::Online { uids } => {
                let are_online = uids.iter().map(Cow::as_ref).filter(|uid| ctx.is_online(uid));
                Ok(Some(frame::online(id, are_online)))
            }
        }
    }

    /// Joins, answers, and only then tells the group, the newcomer included.
    fn join(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str, id: Id<'_>) -> Result<(), Refusal> {
        if !ctx.is_member(fd, group) && ctx.groups_of(fd).len() >= GROUPS_MAX {
            return Err(Refusal::not_allowed(format!("one is in at most {GROUPS_MAX} groups")));
        }
        let change = ctx.join(fd, group);
        acknowledge(ctx, fd, id, change)?;
        let Some(uid) = ctx.uid_of(fd).filter(|_| change.is_done()) else { return Ok(()) };
        if let Some(count) = self.presence.enter(group, uid) {
            let joined = frame::presence("joined", group, uid, count);
            ctx.push_group(group, &joined);
        }
        Ok(())
    }

    fn leave(&mut self, ctx: &mut Context<'_>, fd: Fd, group: &str, id: Id<'_>) -> Result<(), Refusal> {
        let change = ctx.leave(fd, group);
        acknowledge(ctx, fd, id, change)?;
        let Some(uid) = ctx.uid_of(fd).filter(|_| change.is_done()).map(str::to_owned) else { return Ok(()) };
        self.tell_left(ctx, group, &uid);
        Ok(())
    }

    fn tell_left(&mut self, ctx: &mut Context<'_>, group: &str, uid: &str) {
        if let Some(count) = self.presence.exit(group, uid) {
            ctx.push_group(group, &frame::presence("left", group, uid, count));
        }
    }
}

impl Handler for Gateway {
    fn on_upgrade(&mut self, _ctx: &mut Context<'_>, _fd: Fd, request: &Request) -> Upgrade {
        match request.query("uid") {
            Some(uid) if (1..=NAME_BYTES_MAX).contains(&uid.len()) => Upgrade::accept().uid(uid).into(),
            Some(uid) => Upgrade::refuse(Response::text(
                400,
                format!("uid has {} bytes: it must have 1 to {NAME_BYTES_MAX}\n", uid.len()),
            )),
            None => Upgrade::accept().into(),
        }
    }

    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) {
        log::debug!("fd {fd} opened from {} as {:?}", request.peer(), ctx.uid_of(fd));
        let welcome = frame::welcome(fd, ctx.uid_of(fd), &self.heartbeat);
        ctx.push(fd, &welcome);
    }

    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
        match message {
            Message::Text(text) => self.carry_out(ctx, fd, text),
            Message::Binary(_) => {
                ctx.close(fd, CloseCode::UNSUPPORTED, "frames are JSON text");
            }
        }
    }

    fn on_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        let uid = ctx.uid_of(fd).map(str::to_owned);
        match closed.cause {
            Cause::SlowConsumer | Cause::WriteTimedOut => log::warn!("fd {fd} ({uid:?}) reads too slowly: {closed}"),
            _ => log::debug!("fd {fd} ({uid:?}) closed: {closed}"),
        }
        let Some(uid) = uid else { return };
        let groups: Vec<String> = ctx.groups_of(fd).into_iter().map(str::to_owned).collect();
        for group in groups {
            self.tell_left(ctx, &group, &uid);
        }
    }

    fn on_request(&mut self, _ctx: &mut Context<'_>, _fd: Fd, request: &Request) -> Option<Response> {
        if self.serves_page { page::respond(request) } else { None }
    }
}

/// Pushes `data` from one client to others. Everyone who is meant gets it, the sender's own connections too.
fn push(ctx: &mut Context<'_>, from: Fd, to: &Target<'_>, data: &str) -> Result<Delivery, Refusal> {
    let uid = ctx.uid_of(from).map(str::to_owned);
    let message = |to: &str| frame::message(uid.as_deref(), from, to, data);
    check_size(ctx, to, message("").len())?;
    match to {
        Target::Uids(uids) => {
            let mut delivery = Delivery::default();
            let mut seen: HashSet<&str> = HashSet::new();
            for to in uids.iter().map(Cow::as_ref).filter(|uid| seen.insert(uid)) {
                delivery += ctx.push_uid(to, &message(&frame::to_uid(to)));
            }
            Ok(delivery)
        }
        Target::Fd(number) => {
            let Some(to) = Fd::from_u64(*number) else {
                return Err(Refusal::bad_request(format!("{number} is no fd")));
            };
            Ok(match ctx.push(to, &message("")) {
                Outcome::Queued => Delivery { matched: 1, queued: 1, dropped: 0 },
                Outcome::Dropped | Outcome::TooLarge | Outcome::Refused => {
                    Delivery { matched: 1, queued: 0, dropped: 1 }
                }
                Outcome::Gone => Delivery::default(),
            })
        }
        Target::Group(group) => Ok(ctx.push_group(group, &message(&frame::to_group(group)))),
        Target::All => Ok(ctx.broadcast(&message(frame::TO_ALL))),
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
    let (bytes, bytes_max) = (bytes + naming + frame::HEADER_BYTES_MAX, ctx.limits().queue_bytes_max);
    if bytes > bytes_max {
        let what = format!("the message would be a frame of {bytes} bytes: it may have {bytes_max}");
        return Err(Refusal::too_large(what));
    }
    Ok(())
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
