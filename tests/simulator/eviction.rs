//! Evictions: when all queues together exceed their total bound, the server drops messages of connections or closes
//! connections. The oracle checks which connections the server selects.

use fdpush::sim::QUEUE_BYTES;
use fdpush::{Fd, SlowReader};

use crate::connection_model::ConnectionModel;
use crate::coverage::hit;
use crate::server::Server;
use crate::socket::OutputState;

/// With fewer queues than this number, the server reads the charges of all queues again for each eviction. The charge
/// of a queue is its memory. A frame that several queues contain is divided among their charges.
const CHARGES_PER_EVICTION: usize = 64;

/// The length of the longest close frame.
const CLOSE_FRAME_BYTES: usize = 2 + 125;

impl Server {
    /// Checks the selection of an evicted connection. The charge of this connection must exceed `bytes_min`, the size
    /// up to which a queue is not evicted. No other connection may have a larger charge.
    pub fn check_eviction(&mut self, fd: Fd, charge: usize, bytes_min: usize) {
        let limits = &self.table.env().limits;
        assert!(self.oracle.ledger.total > 0, "{fd} may be evicted only if bytes are queued");
        assert!(
            bytes_min <= limits.queue_bytes_min,
            "the size up to which the queue of {fd} is not evicted may be at most queue_bytes_min, not {bytes_min}"
        );
        assert!(
            charge > bytes_min,
            "{fd} may be evicted only if its charge exceeds {bytes_min} bytes, but it is {charge}"
        );
        self.has_evicted = true;
        if let Some((other, least)) = self.larger(fd, charge) {
            panic!(
                "{other} has a charge of at least {least}, so it must be evicted before {fd} with a charge of {charge}"
            );
        }
        self.evicted.insert(fd);
    }

    /// Returns a connection that must be evicted before the connection `fd` with this charge, and a lower bound of the
    /// charge of this other connection.
    ///
    /// With few queues, the server reads the charges for each eviction, so the whole charge of each other connection
    /// counts. With many queues, the server may use charges that it read earlier. Since then, the charge of a
    /// connection that was not evicted can have grown, but only by its share of shared frames. So only the charge
    /// without shared frames is compared, and only for connections that have not been evicted.
    fn larger(&self, fd: Fd, charge: usize) -> Option<(Fd, usize)> {
        let holders = self.oracle.models.values().filter(|model| model.output.has_queue());
        // The server may count queues that no longer exist. A connection that was written to or evicted since the
        // search for the largest queues began may have had a queue at the start of this search.
        let count = holders.clone().count() + self.writes + self.evicted.len();
        let is_exact = count < CHARGES_PER_EVICTION;
        let is_undroppable = |fd: Fd| self.undroppable.contains(&fd);
        let least = |model: &ConnectionModel| match model.output.charge(&self.oracle.ledger) {
            _ if !is_exact && self.evicted.contains(&model.fd) => 0,
            _ if !is_exact => model.output.own_charge(),
            // If a connection has only a partly written message, which cannot be dropped, the server prefers another
            // connection whose charge is at least half as large.
            all if is_undroppable(model.fd) && !is_undroppable(fd) => all / 2 + 1,
            all => all,
        };
        let others = holders.filter(|model| model.fd != fd);
        others.map(|model| (model.fd, least(model))).find(|(_, least)| *least > charge)
    }

    /// Checks that the server dropped the newest messages of a connection.
    pub fn check_drop(&mut self, fd: Fd, messages: usize, charge: usize, bytes_min: usize, state: OutputState) {
        assert_ne!(self.table.env().limits.slow_reader, SlowReader::Close);
        let is_alone = bytes_min == self.table.env().limits.queue_bytes_min && self.evicted.is_empty();
        if is_alone && self.larger(fd, charge).is_some() {
            // If a search would free few bytes, the server makes no search and evicts only the receiver of the running
            // push.
            hit("eviction: alone");
            assert!(
                self.posting.as_ref().is_some_and(|(pushed, _)| *pushed == fd),
                "the server may evict {fd} without a search only while it pushes a message to {fd}"
            );
            self.evicted.insert(fd);
            self.has_evicted = true;
        } else {
            self.check_eviction(fd, charge, bytes_min);
            if messages == 0 {
                self.undroppable.insert(fd);
            }
        }
        let (model, ledger) = self.oracle.account(fd);
        model.output.drop_newest(messages, ledger);
        hit(if messages > 0 { "eviction: dropped" } else { "eviction: nothing to drop" });
        assert_eq!(state.charge, model.output.charge(ledger), "{fd} must have the charge of its model after a drop");
    }

    /// Handles the start of the next search for the largest queues.
    pub fn begin_search(&mut self) {
        self.evicted.clear();
        self.undroppable.clear();
        self.writes = 0;
    }

    /// Checks after evictions that the queues are within their total bound, plus the memory of a close frame for each
    /// queue.
    pub fn check_total_bound(&mut self) {
        if !std::mem::take(&mut self.has_evicted) {
            return;
        }
        let holders = self.oracle.models.values().filter(|model| model.output.has_queue()).count();
        let close_frames = holders * (QUEUE_BYTES + CLOSE_FRAME_BYTES);
        let (total, max) = (self.oracle.ledger.total, self.table.env().limits.queue_total_bytes_max);
        assert!(
            total <= max + close_frames,
            "after evictions, at most {max} bytes plus {close_frames} for close frames may be queued, not {total}"
        );
    }
}
