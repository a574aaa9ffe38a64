//! Closes connections at the request of a handler.

use crate::connection::{Cause, CloseOutcome, Closed, Outbound};
use crate::event_loop::core::Core;
use crate::fd::Fd;
use crate::protocol::close::CloseCode;
use crate::protocol::close_payload::close_payload;
use crate::protocol::frame::Opcode;

impl Core {
    /// Closes one connection for a handler.
    pub fn close(&mut self, fd: Fd, code: CloseCode, reason: &str) -> CloseOutcome {
        if !may_send_close(code, reason) {
            return CloseOutcome::Invalid;
        }
        let Some(slot) = self.table.slot_of(fd) else { return self.close_elsewhere(fd, code, reason) };
        let is_closing = self.close_slot(slot, code, reason, Cause::ServerClosed);
        if is_closing { CloseOutcome::Closing } else { CloseOutcome::Gone }
    }

    /// Closes several connections for a handler. Returns the number of connections that were open, or whose close was
    /// sent to another loop.
    ///
    /// The connections of a loop share one close frame. The frame is written after the output of all other connections.
    pub fn close_fds(&mut self, fds: impl Iterator<Item = Fd>, code: CloseCode, reason: &str) -> usize {
        if !may_send_close(code, reason) {
            return 0;
        }
        let Some(own) = self.siblings.as_ref().map(|siblings| siblings.index()) else {
            return self.close_fds_here(fds, code, reason);
        };
        let mut lists = self.list_fds(fds);
        let mut count = self.close_fds_here(std::mem::take(&mut lists[own]).into_iter(), code, reason);
        for list in lists.into_iter().filter(|list| !list.is_empty()) {
            let (len, is_sent) = (list.len(), self.close_fds_elsewhere(list, code, reason));
            count += if is_sent { len } else { 0 };
        }
        count
    }

    /// Closes several connections of this loop, and returns how many of them were open.
    pub fn close_fds_here(&mut self, fds: impl Iterator<Item = Fd>, code: CloseCode, reason: &str) -> usize {
        let listed = self.table.listed_len();
        let payload = close_payload(code, reason);
        let mut frame = Outbound::message(Opcode::Close, &payload);
        let closed = Closed::by_server(code, reason, Cause::ServerClosed);
        let mut count = 0;
        for fd in fds {
            let Some(slot) = self.table.slot_of(fd) else { continue };
            let is_closing = self.step(slot, |connection, env| connection.close_with(&mut frame, &closed, env));
            count += usize::from(is_closing);
        }
        self.table.defer_listed(listed);
        count
    }
}

/// Returns whether a close frame may have this code and this reason.
fn may_send_close(code: CloseCode, reason: &str) -> bool {
    code.is_sendable() && reason.len() <= CloseCode::REASON_BYTES_MAX
}
