//! Memory that all queues share: the connections that pay when it runs out are compared with the oracle.

use fdpush::sim::QUEUE_BYTES;
use fdpush::{Fd, SlowReader};

use crate::coverage::hit;
use crate::server::Server;
use crate::socket::State;

/// A close frame, the longest there is.
const CLOSE_FRAME_BYTES: usize = 2 + 125;

impl Server {
    /// A connection that pays is charged more than the bytes_min, and at least as much as any other that has not paid shares with
    /// no one.
    pub fn judge_payer(&mut self, fd: Fd, charge: usize, bytes_min: usize) {
        let limits = &self.table.env().limits;
        assert!(self.oracle.ledger.total > 0, "{fd} pays, and nothing is queued");
        assert!(bytes_min <= limits.queue_bytes_min, "{fd} pays down to {bytes_min}");
        assert!(charge > bytes_min, "{fd} is charged {charge} and pays, and the bytes_min is {bytes_min}");
        self.is_relieved = true;
        self.paid.insert(fd);
        for slot in self.table.slots() {
            let other = self.table.fd_of(slot);
            let Some(model) = self.oracle.models.get(&other).filter(|_| !self.paid.contains(&other)) else { continue };
            let own = model.output.own_charge();
            assert!(own <= charge, "{fd} is charged {charge} and pays, and {other} has {own} bytes of its own");
        }
    }

    /// Messages are dropped, the newest first.
    pub fn judge_drop(&mut self, fd: Fd, messages: usize, charge: usize, bytes_min: usize, state: State) {
        assert_ne!(self.table.env().limits.slow_reader, SlowReader::Close);
        let is_alone = bytes_min == self.table.env().limits.queue_bytes_min && self.paid.is_empty();
        if is_alone && !self.is_largest(fd, charge) {
            // It pays for what was pushed to it, while a search would free little.
            hit("relief: pays alone");
            assert!(
                self.posting.as_ref().is_some_and(|(pushed, _)| *pushed == fd),
                "{fd} pays, and nothing was pushed to it"
            );
            self.paid.insert(fd);
            self.is_relieved = true;
        } else {
            self.judge_payer(fd, charge, bytes_min);
        }
        let (model, ledger) = self.oracle.account(fd);
        model.output.drop_newest(messages, ledger);
        hit(if messages > 0 { "relief: dropped" } else { "relief: nothing to drop" });
        assert_eq!(state.charge, model.output.charge(ledger), "{fd}: the charge after a drop");
    }

    fn is_largest(&self, fd: Fd, charge: usize) -> bool {
        let others = self.oracle.models.values().filter(|model| model.fd != fd && !model.is_reaped);
        others.map(|model| model.output.own_charge()).all(|own| own <= charge)
    }

    /// After the largest have paid, all queues are within their bound, but for control frames.
    pub fn check_relief(&mut self) {
        if !std::mem::take(&mut self.is_relieved) {
            return;
        }
        let holders = self.oracle.models.values().filter(|model| model.output.has_queue()).count();
        let close_frames = holders * (QUEUE_BYTES + CLOSE_FRAME_BYTES);
        let (total, max) = (self.oracle.ledger.total, self.table.env().limits.queue_total_bytes_max);
        assert!(total <= max + close_frames, "{total} of {max}: the largest have paid, and it was not enough");
    }
}
