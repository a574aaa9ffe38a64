//! The permissions of clients.

use fdpush::{Context, Fd};

use crate::gateway::settings::cli::Permission;
use crate::gateway::wire::frame::{ClientFrame, FrameError};
use crate::gateway::wire::target::Target;

/// The permissions that all clients have, from `--client-may`.
#[derive(Clone, Debug)]
pub struct Permissions {
    permissions: Vec<Permission>,
}

impl Permissions {
    pub fn new(permissions: Vec<Permission>) -> Permissions {
        Permissions { permissions }
    }

    /// Checks that a client has the permission for a frame.
    pub fn check(&self, ctx: &Context<'_>, fd: Fd, frame: &ClientFrame<'_>) -> Result<(), FrameError> {
        let (is_permitted, what) = match frame {
            ClientFrame::Push { to: Target::Uids(_), .. } => (self.has(Permission::PushUid), "push to a uid"),
            ClientFrame::Push { to: Target::Fds(_), .. } => (self.has(Permission::PushFd), "push to an fd"),
            ClientFrame::Push { to: Target::All, .. } => (self.has(Permission::PushAll), "push to all"),
            ClientFrame::Push { to: Target::Groups(groups), .. } => {
                let is_own = self.has(Permission::PushOwnGroup) && groups.iter().all(|group| ctx.is_member(fd, group));
                let what = if self.has(Permission::PushOwnGroup) {
                    "push to a group without membership"
                } else {
                    "push to a group"
                };
                (is_own || self.has(Permission::PushGroup), what)
            }
            ClientFrame::Join { .. } | ClientFrame::Leave { .. } => {
                (self.has(Permission::Join), "join and leave groups")
            }
            ClientFrame::Online { .. } => (self.has(Permission::Online), "query who is online"),
            // Each client may send frames of type `heartbeat` and `send`. The back end decides which data of `send`
            // frames it accepts.
            ClientFrame::Heartbeat | ClientFrame::Send { .. } => (true, ""),
        };
        if is_permitted { Ok(()) } else { Err(FrameError::not_allowed(format!("no permission to {what}"))) }
    }

    fn has(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }
}
