//! Memory that all queues share: who pays when it runs out is held against what should be.

use std::collections::BTreeSet;

use fdpush::sim::{Demand, Holder, QUEUE_BYTES, Relief};
use fdpush::{Outcome, Slot, SlowReader};

use crate::coverage::hit;
use crate::server::Server;

/// A close frame, the longest there is.
const CLOSE_FRAME_BYTES: usize = 2 + 125;

impl Server {
    /// A message is in a queue, or fresh: where there is no room for it, it goes out now, and the largest holders pay for
    /// what is left.
    pub fn make_room(&mut self, slot: Slot) -> Outcome {
        let fd = self.slots.fd_of(slot);
        let fresh = self.oracle.lives[&fd].lane.fresh_bytes();
        if self.oracle.ledger.total + fresh <= self.env.limits.queue_total_bytes_max {
            return Outcome::Queued;
        }
        hit("all queues over their bound");
        self.offer(slot);
        let was_open = self.oracle.is_open(fd);
        let has_dropped = self.relieve(Some(slot));
        if has_dropped || (was_open && !self.oracle.is_open(fd)) { Outcome::Dropped } else { Outcome::Queued }
    }

    /// Has the largest holders pay, and judges who does. Whether the connection at `watched` dropped messages.
    pub fn relieve(&mut self, watched: Option<Slot>) -> bool {
        let max = self.env.limits.queue_total_bytes_max;
        if self.oracle.ledger.total <= max {
            return false;
        }
        let holders = self.holders();
        let floor = self.env.limits.queue_bytes_min.min(max / 2 / holders.len());
        let mut relief = Relief::new(holders.clone(), &self.env.limits);
        let (mut paid, mut has_dropped) = (BTreeSet::new(), false);
        while let Some(demand) = relief.poll(&self.env, |slot| self.charge(slot)) {
            let (Demand::Close(holder) | Demand::Drop { holder, .. }) = demand;
            self.judge_payer(holder, floor, &paid);
            let fd = self.slots.fd_of(holder.slot);
            let can_write = self.slots.get(holder.slot).is_some_and(|entry| entry.connection.can_write());
            if self.oracle.lives[&fd].lane.is_untried() && can_write {
                hit("relief: offered");
                self.offer(holder.slot);
                let charge = self.charge(holder.slot);
                if charge < holder.charge {
                    relief.handle_offered(holder, charge);
                    continue;
                }
            }
            paid.insert(holder.slot);
            match demand {
                Demand::Close(_) => {
                    hit("relief: closed");
                    self.close_slow(holder.slot, floor);
                }
                Demand::Drop { charge_max, .. } => {
                    let dropped = self.drop_newest(holder.slot, charge_max);
                    relief.handle_dropped(holder, dropped, self.charge(holder.slot));
                    has_dropped |= dropped > 0 && watched == Some(holder.slot);
                }
            }
        }
        // A connection that was closed has a queue for its close frame.
        let close_frames = holders.len() * (QUEUE_BYTES + CLOSE_FRAME_BYTES);
        assert!(self.oracle.ledger.total <= max + close_frames, "the largest have paid, and it was not enough");
        has_dropped
    }

    /// A holder that pays has more than the floor, and more than anyone of those who have not paid shares with no other.
    fn judge_payer(&self, holder: Holder, floor: usize, paid: &BTreeSet<Slot>) {
        assert!(holder.charge > floor, "{holder:?} pays, and the floor is {floor}");
        for (slot, _) in self.slots.iter().filter(|(slot, _)| !paid.contains(slot)) {
            let own = self.oracle.lives[&self.slots.fd_of(slot)].lane.own_charge();
            assert!(own <= holder.charge, "{holder:?} pays, and slot {slot} has {own} bytes of its own");
        }
    }

    fn drop_newest(&mut self, slot: Slot, charge_max: usize) -> usize {
        assert_ne!(self.env.limits.slow_reader, SlowReader::Close);
        let Some(entry) = self.slots.get_mut(slot) else { return 0 };
        let dropped = entry.connection.drop_newest(charge_max, &mut self.env);
        let (life, ledger) = self.oracle.account(self.slots.fd_of(slot));
        life.lane.drop_newest(dropped, ledger);
        hit(if dropped > 0 { "relief: dropped" } else { "relief: nothing to drop" });
        self.compare(slot);
        assert!(dropped == 0 || self.charge(slot) <= charge_max || self.oracle.ledger.total > 0);
        dropped
    }

    /// All that have a queue.
    fn holders(&self) -> Vec<Holder> {
        let slots = self.slots.iter().map(|(slot, _)| slot);
        let queued = slots.filter(|slot| self.oracle.lives[&self.slots.fd_of(*slot)].lane.has_queue());
        queued.map(|slot| Holder { charge: self.charge(slot), slot }).collect()
    }

    /// Asserts the charge of a connection.
    fn charge(&self, slot: Slot) -> usize {
        let fd = self.slots.fd_of(slot);
        let charge = self.slots.get(slot).map_or(0, |entry| entry.connection.charge());
        assert_eq!(charge, self.oracle.lives[&fd].lane.charge(&self.oracle.ledger), "{fd}: what it is charged");
        charge
    }
}
