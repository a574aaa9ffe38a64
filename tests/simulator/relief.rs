//! Memory that all queues share: the connections that pay when it runs out are compared with the oracle.

use fdpush::sim::QUEUE_BYTES;
use fdpush::{Fd, SlowReader};

use crate::connection_model::ConnectionModel;
use crate::coverage::hit;
use crate::server::Server;
use crate::socket::State;

/// With fewer holders, charges are read for each eviction.
const CHARGES_PER_EVICTION: usize = 64;

/// A close frame, the longest there is.
const CLOSE_FRAME_BYTES: usize = 2 + 125;

impl Server {
    /// A connection that pays is charged more than `bytes_min`, and at least as much as any other.
    pub fn check_payer(&mut self, fd: Fd, charge: usize, bytes_min: usize) {
        let limits = &self.table.env().limits;
        assert!(self.oracle.ledger.total > 0, "{fd} is evicted only if bytes are queued");
        assert!(bytes_min <= limits.queue_bytes_min, "{fd} keeps at most queue_bytes_min, not {bytes_min}");
        assert!(
            charge > bytes_min,
            "{fd} is evicted only if its charge of {charge} exceeds its minimum of {bytes_min}"
        );
        self.is_relieved = true;
        if let Some((other, least)) = self.larger(fd, charge) {
            panic!("{fd} with a charge of {charge} was evicted before {other}, which has at least {least}");
        }
        self.paid.insert(fd);
    }

    /// Another connection that has to pay before one that is charged `charge`, and the least that it is charged.
    ///
    /// With few holders, charges are read for each eviction: each other is compared by all that it is charged. With more,
    /// they may be older, and only shares of frames have grown since: each other that has not paid is compared by what it
    /// shares with no one.
    fn larger(&self, fd: Fd, charge: usize) -> Option<(Fd, usize)> {
        let holders = self.oracle.models.values().filter(|model| model.output.has_queue());
        // One that was written to or paid may have had a queue when the search began.
        let count = holders.clone().count() + self.writes + self.paid.len();
        let is_exact = count < CHARGES_PER_EVICTION;
        let is_undroppable = |fd: Fd| self.undroppable.contains(&fd);
        let least = |model: &ConnectionModel| match model.output.charge(&self.oracle.ledger) {
            _ if !is_exact && self.paid.contains(&model.fd) => 0,
            _ if !is_exact => model.output.own_charge(),
            // Half a message is not paid for by those that are less than half as large.
            all if is_undroppable(model.fd) && !is_undroppable(fd) => all / 2 + 1,
            all => all,
        };
        let others = holders.filter(|model| model.fd != fd);
        others.map(|model| (model.fd, least(model))).find(|(_, least)| *least > charge)
    }

    /// Messages are dropped, the newest first.
    pub fn check_drop(&mut self, fd: Fd, messages: usize, charge: usize, bytes_min: usize, state: State) {
        assert_ne!(self.table.env().limits.slow_reader, SlowReader::Close);
        let is_alone = bytes_min == self.table.env().limits.queue_bytes_min && self.paid.is_empty();
        if is_alone && self.larger(fd, charge).is_some() {
            // It pays for what was pushed to it, while a search would free little.
            hit("relief: pays alone");
            assert!(
                self.posting.as_ref().is_some_and(|(pushed, _)| *pushed == fd),
                "{fd} is evicted alone only when a message is pushed to it"
            );
            self.paid.insert(fd);
            self.is_relieved = true;
        } else {
            self.check_payer(fd, charge, bytes_min);
            if messages == 0 {
                self.undroppable.insert(fd);
            }
        }
        let (model, ledger) = self.oracle.account(fd);
        model.output.drop_newest(messages, ledger);
        hit(if messages > 0 { "relief: dropped" } else { "relief: nothing to drop" });
        assert_eq!(state.charge, model.output.charge(ledger), "charge of {fd} after a drop");
    }

    /// The next search for the largest holders begins.
    pub fn begin_search(&mut self) {
        self.paid.clear();
        self.undroppable.clear();
        self.writes = 0;
    }

    /// After the largest have paid, all queues are within their bound, but for control frames.
    pub fn check_relief(&mut self) {
        if !std::mem::take(&mut self.is_relieved) {
            return;
        }
        let holders = self.oracle.models.values().filter(|model| model.output.has_queue()).count();
        let close_frames = holders * (QUEUE_BYTES + CLOSE_FRAME_BYTES);
        let (total, max) = (self.oracle.ledger.total, self.table.env().limits.queue_total_bytes_max);
        assert!(
            total <= max + close_frames,
            "queued bytes are within the total bound after evictions: {total} of {max}"
        );
    }
}
