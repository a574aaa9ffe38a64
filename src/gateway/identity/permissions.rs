//! What clients may do by themselves.

use fdpush::{Context, Fd};

use crate::gateway::push::publish::Target;
use crate::gateway::settings::cli::May;
use crate::gateway::wire::frame::{Refusal, Request};

/// The permits of all clients, as `--client-may` has them.
#[derive(Clone, Debug)]
pub struct Permits {
    may: Vec<May>,
}

impl Permits {
    pub fn new(may: Vec<May>) -> Permits {
        Permits { may }
    }

    /// Refuses what this client may not ask for.
    pub fn check(&self, ctx: &Context<'_>, fd: Fd, request: &Request<'_>) -> Result<(), Refusal> {
        let (is_permitted, what) = match request {
            Request::Push { to: Target::Uids(_), .. } => (self.has(May::PushUid), "push to a uid"),
            Request::Push { to: Target::Fds(_), .. } => (self.has(May::PushFd), "push to an fd"),
            Request::Push { to: Target::All, .. } => (self.has(May::PushAll), "push to all"),
            Request::Push { to: Target::Groups(groups), .. } => {
                let is_own = self.has(May::PushOwnGroup) && groups.iter().all(|group| ctx.is_member(fd, group));
                let what = if self.has(May::PushOwnGroup) { "push to a group it is not in" } else { "push to a group" };
                (is_own || self.has(May::PushGroup), what)
            }
            Request::Join { .. } | Request::Leave { .. } => (self.has(May::Join), "join and leave groups"),
            Request::Online { .. } => (self.has(May::Online), "ask who is online"),
            // The back end judges what is sent to it.
            Request::Heartbeat | Request::Send { .. } => (true, ""),
        };
        if is_permitted { Ok(()) } else { Err(Refusal::not_allowed(format!("a client may not {what} here"))) }
    }

    fn has(&self, may: May) -> bool {
        self.may.contains(&may)
    }
}
