//! The methods that return the properties of a connection, and methods that change its output.

use crate::connection::output::Output;
use crate::connection::queue::Queue;
use crate::connection::{Connection, Env, OPENED_UNIT, Stage, State, Traffic};
use crate::peer::Peer;
use crate::tick::Tick;

impl Connection {
    /// Returns whether the connection is an open WebSocket.
    #[inline]
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    /// Returns the state of the connection, as handlers receive it.
    pub fn state(&self) -> State {
        match self.stage {
            Stage::Http(_) => State::Http,
            Stage::Open { .. } => State::Open,
            Stage::Closing { .. } | Stage::Lingering { .. } | Stage::Finished { .. } => State::Closing,
        }
    }

    /// Returns whether the connection is an open WebSocket without unwritten output.
    #[inline]
    pub fn is_flushed(&self) -> bool {
        self.is_open() && self.output.is_empty()
    }

    /// Returns the number of output bytes that are not written yet.
    #[inline]
    pub fn queued_bytes(&self) -> usize {
        self.output.bytes()
    }

    /// Returns the number of bytes that count against `queue_bytes_max`.
    ///
    /// These are the unwritten bytes of output, plus the overhead of shared frames and of conflation keys.
    #[inline]
    pub fn counted_bytes(&self) -> usize {
        self.output.counted_bytes()
    }

    /// Returns the number of output bytes that are in the journal.
    ///
    /// These bytes were queued in this turn, and were not offered to the socket yet.
    #[inline]
    pub fn journal_bytes(&self) -> usize {
        self.output.journal_bytes()
    }

    /// Returns the memory that [`move_to_queue`](Connection::move_to_queue) would take, without the memory of shared
    /// frames.
    pub fn moved_bytes(&self, env: &Env) -> usize {
        self.output.moved_bytes(&env.journal)
    }

    /// Moves output from the journal to a queue.
    pub fn move_to_queue(&mut self, env: &mut Env) {
        if self.journal_bytes() > 0 {
            self.output.queue(env);
        }
    }

    /// Returns whether the output contains frames, and was not offered to the socket yet.
    #[inline]
    pub fn is_untried(&self) -> bool {
        self.output.is_untried()
    }

    /// Returns whether output waits in the queue because the socket was full.
    #[cfg(any(test, feature = "unstable"))]
    pub fn is_backlogged(&self) -> bool {
        self.output.is_backlogged()
    }

    /// Reports `held`, the number of unsent bytes in the transport after a read.
    ///
    /// The transport created these bytes itself, for instance the records of a TLS handshake. If the number is not 0,
    /// the socket is full. `has_sent` means that the socket accepted bytes.
    pub fn handle_held(&mut self, held: usize, has_sent: bool, env: &mut Env) {
        if has_sent {
            self.heartbeat_state.handle_written();
        }
        self.output.handle_held(held, has_sent, self.is_http(), env);
        self.start_close_wait(env);
    }

    /// Returns the time of this turn if the socket should be read now. Otherwise returns `None`.
    pub fn reads_at(&self, env: &Env) -> Option<Tick> {
        self.wants_read().then_some(env.now)
    }

    /// Reports that the socket is writable. Returns whether the connection has output to write.
    pub fn handle_writable(&mut self) -> bool {
        self.output.as_queue().map(Queue::handle_writable).is_some()
    }

    /// Returns the peer address.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Returns the number of bytes and messages, received and sent.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Returns the time at which the WebSocket opened, or the HTTP connection was accepted.
    pub fn opened(&self) -> Tick {
        Tick(u64::from(self.opened.0) * OPENED_UNIT)
    }

    /// Returns the time of the client's last byte.
    pub fn last_seen(&self) -> Tick {
        self.last_seen
    }

    /// Panics if the fields are inconsistent. This check is for tests and debug builds.
    pub fn check_invariants(&self) {
        if let Output::Queued(output) = &self.output {
            output.check_invariants();
            assert!(!output.is_empty(), "an empty queue must be removed");
        }
    }

    /// Subtracts the memory of the connection from the totals of all connections.
    ///
    /// The caller calls this method before it drops the connection.
    pub fn release(&mut self, env: &mut Env) {
        self.output.clear(env);
    }
}
