//! The next actions of a connection: reading, writing, and the end of its socket.

use std::io::IoSlice;

use crate::connection::output::Output;
use crate::connection::{Connection, Env, HTTP_OUTPUT_MAX, SocketAction, Stage};

impl Connection {
    /// Returns whether bytes should be read from the socket.
    #[inline]
    pub fn wants_read(&self) -> bool {
        match &self.stage {
            Stage::Open { .. } => !self.is_paused && self.held_until().is_none(),
            Stage::Http(http) => !self.is_paused && http.wants_read() && self.queued_bytes() <= HTTP_OUTPUT_MAX,
            Stage::Closing { .. } | Stage::Lingering { .. } => true,
            Stage::Finished { .. } => false,
        }
    }

    /// Returns whether the connection has unwritten output, and no write since the last writable event has filled the
    /// socket.
    #[inline]
    pub fn can_write(&self) -> bool {
        match &self.output {
            Output::Empty => false,
            Output::Journaled(_) => true,
            Output::Queued(queue) => !queue.is_full() && queue.bytes() > 0,
        }
    }

    /// Returns the unwritten output if it is one slice. Returns `None` if there is no output, or if it is several
    /// slices.
    ///
    /// Most output is one slice. For one slice, this method is faster than [`poll_slices`](Connection::poll_slices)
    /// with a list of 64 slices.
    #[inline]
    pub fn poll_slice<'a>(&'a self, env: &'a Env) -> Option<&'a [u8]> {
        self.output.poll_slice(&env.journal)
    }

    /// Stores references to the unwritten output in `slices`, and returns the number of stored slices.
    ///
    /// While the socket is full, the result is 0.
    pub fn poll_slices<'a>(&'a self, env: &'a Env, slices: &mut [IoSlice<'a>]) -> usize {
        self.output.poll_slices(&env.journal, slices)
    }

    /// Returns what the caller must do with the socket after a write.
    #[inline]
    pub fn poll_next(&mut self, env: &Env) -> SocketAction {
        match self.stage {
            Stage::Finished { is_cut: true } => SocketAction::Reset,
            Stage::Finished { is_cut: false } => SocketAction::Drop,
            Stage::Lingering { .. } if !self.output.is_empty() => SocketAction::Stay,
            Stage::Lingering { .. } if self.is_peer_done => SocketAction::Drop,
            Stage::Lingering { is_shut: false } => {
                self.stage = Stage::Lingering { is_shut: true };
                self.deadline = self.deadline.min(env.now.after(env.limits.close_wait_max));
                SocketAction::Shut
            }
            _ => SocketAction::Stay,
        }
    }
}
