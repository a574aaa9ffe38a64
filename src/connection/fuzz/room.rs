//! Room in all queues: the largest holder pays, which is judged here, and what it drops is due no more.

use super::Rig;
use super::reader::{Due, Reader};
use crate::connection::{Demand, Holder, QUEUE_BYTES, Relief};
use crate::fd::Slot;
use crate::protocol::frame::CONTROL_BYTES_MAX;

impl Rig {
    /// Room for what the connection has, should its socket not take it.
    pub(super) fn make_room(&mut self, at: usize) {
        if self.env.is_over_total(self.sides[at].connection.fresh_bytes()) {
            self.offer(at);
            self.relieve();
        }
    }

    /// Has the largest holders pay, if all queues are over their bound.
    pub(super) fn relieve(&mut self) {
        if !self.env.is_over_total(0) {
            return;
        }
        let holders: Vec<Holder> = self.holders().filter(|holder| holder.charge > 0).collect();
        let charges: usize = holders.iter().map(|holder| holder.charge).sum();
        assert!(
            charges <= self.env.queued.frames && charges + 64 > self.env.queued.frames,
            "all is charged to someone"
        );
        let mut relief = Relief::new(holders, &self.env.limits);
        while let Some(demand) = relief.poll(&self.env, |slot| self.sides[slot.index()].connection.charge()) {
            let (Demand::Close(holder) | Demand::Drop { holder, .. }) = demand;
            let largest = self.holders().map(|holder| holder.charge).max();
            assert!(holder.charge > relief.floor(), "the floor is taken from nobody");
            assert!(largest.is_some_and(|largest| holder.charge >= largest / 2), "{holder:?} of {largest:?}");
            let at = holder.slot.index();
            match demand {
                Demand::Close(_) => self.close_slow(at, relief.floor()),
                Demand::Drop { charge_max, .. } => {
                    let side = &mut self.sides[at];
                    let dropped = side.connection.drop_newest(charge_max, &mut self.env);
                    side.messages_out -= dropped as u64;
                    side.reader.drop_newest(dropped);
                    relief.handle_dropped(holder, dropped, side.connection.charge());
                }
            }
        }
        // A connection that was closed has a queue for its close frame.
        let (queued, max) = (self.env.queued.frames, self.env.limits.queue_total_bytes_max);
        assert!(queued <= max + 2 * (QUEUE_BYTES + CONTROL_BYTES_MAX), "{queued} of {max} after the largest have paid");
    }

    fn holders(&self) -> impl Iterator<Item = Holder> {
        (0..).map(Slot).zip(&self.sides).map(|(slot, side)| Holder { charge: side.connection.charge(), slot })
    }
}

impl Reader {
    /// So many of the newest messages are dropped.
    fn drop_newest(&mut self, count: usize) {
        for _ in 0..count {
            let is_message = |due: &Due| matches!(due, Due::Frame { first: 0x81 | 0x82, .. });
            let newest = self.due.iter().rposition(is_message).expect("a message to drop");
            assert!(newest > 0 || !self.is_inside_due(), "a message was dropped that is half written");
            self.due.remove(newest);
        }
    }
}
