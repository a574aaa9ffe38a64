//! The way out: queueing, writing, and what becomes of readers that are too slow. The loop's part once more, and every
//! answer of a connection foretold.

use std::io::IoSlice;
use std::mem;

use fdpush::sim::{Event, Next, Opcode, Outbound, Sent, outbound};
use fdpush::{Cause, CloseCode, Fd, Frame, Outcome, Slot, SlowReader};

use crate::coverage::hit;
use crate::lane::Posted;
use crate::oracle::payload_of;
use crate::server::Server;

/// System calls a turn that may be spent on writing to one connection.
const WRITES_PER_TURN_MAX: usize = 16;

const SLICES_MAX: usize = 64;

/// How a message is pushed.
#[derive(Clone, Debug)]
pub struct Manner {
    pub is_text: bool,
    pub payload_bytes: usize,
    /// Encoded beforehand.
    pub is_frame: bool,
    pub key: Option<String>,
}

impl Server {
    /// Queues one push for each of these slots. Whoever has one of them must be of the `intended`, and each of those
    /// must be reached.
    pub fn push_to_slots(&mut self, slots: &[Slot], intended: Vec<Fd>, manner: &Manner) {
        let id = self.oracle.post(intended.clone(), manner.payload_bytes, manner.is_text);
        let payload = payload_of(id, manner.payload_bytes);
        let text = String::from_utf8_lossy(&payload);
        let frame = if manner.is_text { Frame::text(&text) } else { Frame::binary(&payload) };
        let opcode = if manner.is_text { Opcode::Text } else { Opcode::Binary };
        let bare = if manner.is_frame { Outbound::frame(&frame) } else { Outbound::message(opcode, &payload) };

        let to_many = manner.is_frame || slots.len() > 1;
        let posted = Posted { id, bytes: frame.as_bytes().len(), to_many, key: manner.key.clone() };
        let mut message = outbound(bare, to_many, manner.key.as_deref());
        assert_eq!(message.bytes(), posted.bytes, "length on the wire");
        let mut reached = Vec::new();
        for &slot in slots {
            let fd = self.slots.fd_of(slot);
            let outcome = self.push(slot, &mut message, &posted);
            // One that was closed to make room for what others were sent before counts as dropped.
            let was_closed = self.oracle.lives.get(&fd).is_some_and(|life| life.closed_at == Some(self.env.now));
            let is_closed_for_others = outcome == Outcome::Gone && was_closed;
            if outcome != Outcome::Gone || (is_closed_for_others && intended.binary_search(&fd).is_ok()) {
                reached.push(fd);
            }
        }
        reached.sort_unstable();
        assert_eq!(reached, intended, "push {id} reached these, and was meant for those");
    }

    fn push(&mut self, slot: Slot, message: &mut Outbound<'_>, posted: &Posted) -> Outcome {
        match self.send(slot, message, posted) {
            Sent::Queued => {
                self.touch(slot);
                hit("push: queued");
                self.make_room(slot)
            }
            Sent::NotOpen => Outcome::Gone,
            Sent::TooLarge => {
                hit("push: refused");
                Outcome::TooLarge
            }
            Sent::Full => self.push_to_full(slot, message, posted),
        }
    }

    fn push_to_full(&mut self, slot: Slot, message: &mut Outbound<'_>, posted: &Posted) -> Outcome {
        if !self.write(slot) {
            hit("push: broken while writing");
            self.touch(slot);
            return Outcome::Dropped;
        }
        match self.send(slot, message, posted) {
            Sent::Queued => {
                self.touch(slot);
                hit("push: queued after a write");
                return self.make_room(slot);
            }
            Sent::NotOpen => {
                hit("push: ended by what it had before");
                return Outcome::Dropped;
            }
            Sent::Full | Sent::TooLarge => {}
        }
        let (limits, lane) = (&self.env.limits, &self.oracle.lives[&self.slots.fd_of(slot)].lane);
        let is_over = lane.held_bytes() + posted.held_bytes() > limits.queue_bytes_max;
        assert!(lane.bytes() > 0 && lane.fresh_bytes() == 0 && is_over, "who is called slow has a queue, and no room");
        match self.env.limits.slow_reader {
            SlowReader::Close => self.close_slow(slot, usize::MAX),
            SlowReader::DropNewest => hit("push: dropped"),
            SlowReader::Conflate => {
                if self.conflate(slot, message, posted) {
                    hit("push: conflated");
                    return self.make_room(slot);
                }
                hit("push: dropped, not conflated");
            }
        }
        Outcome::Dropped
    }

    /// Asks the connection, having foretold its answer.
    fn send(&mut self, slot: Slot, message: &mut Outbound<'_>, posted: &Posted) -> Sent {
        let fd = self.slots.fd_of(slot);
        let Some(entry) = self.slots.get_mut(slot) else { return Sent::NotOpen };
        let (life, ledger) = self.oracle.account(fd);
        let limits = &self.env.limits;
        let queued = life.lane.bytes();
        let held = life.lane.held_bytes() + posted.held_bytes();
        let is_over = queued > 0 && held > limits.queue_bytes_max;
        let expected = match posted.bytes {
            _ if !life.is_open() => Sent::NotOpen,
            bytes if bytes > limits.queue_bytes_max => Sent::TooLarge,
            _ if is_over => Sent::Full,
            _ => Sent::Queued,
        };
        let sent = entry.connection.send(message, &mut self.env);
        assert_eq!(sent, expected, "{fd} with {queued} bytes queued is sent {posted:?}");
        if sent == Sent::Queued {
            life.lane.observe(entry.connection.queued_bytes(), entry.connection.fresh_bytes(), ledger);
            life.lane.push_message(posted, ledger);
        }
        self.compare(slot);
        sent
    }

    fn conflate(&mut self, slot: Slot, message: &mut Outbound<'_>, posted: &Posted) -> bool {
        let fd = self.slots.fd_of(slot);
        let Some(entry) = self.slots.get_mut(slot) else { return false };
        let is_conflated = entry.connection.conflate(message, &mut self.env);
        let (life, ledger) = self.oracle.account(fd);
        let expected = life.lane.conflate(posted, &self.env.limits, ledger);
        assert_eq!(is_conflated, expected, "{fd} conflates {posted:?}");
        self.compare(slot);
        is_conflated
    }

    /// A reader is too slow: it is closed, or dropped if there is no room for its close frame either.
    pub fn close_slow(&mut self, slot: Slot, kept_max: usize) {
        let fd = self.slots.fd_of(slot);
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let event = entry.connection.close_slow(kept_max, &mut self.env);
        let (life, ledger) = self.oracle.account(fd);
        let was_open = life.is_open();
        if was_open {
            life.lane.truncate(ledger);
        }
        let has_room = ledger.total <= self.env.limits.queue_total_bytes_max && life.lane.charge(ledger) <= kept_max;
        if was_open && has_room {
            let (code, reason) = (CloseCode::TRY_AGAIN_LATER, "reading too slowly");
            self.judge_close(slot, &event, code, reason, Cause::SlowConsumer);
        } else {
            life.lane.abandon(ledger);
            match &event {
                Some(Event::Closed(closed)) if was_open => {
                    hit("a slow reader cut off");
                    life.close(closed, CloseCode::ABNORMAL, "", Cause::SlowConsumer);
                    life.die(self.env.now);
                }
                None if !was_open => {
                    hit("a close cut short");
                    life.is_lost = true;
                }
                other => panic!("{fd} was too slow, which came to {other:?}"),
            }
            self.compare(slot);
            self.touch(slot);
        }
        self.record_end(slot, event);
    }

    /// Writes what connections have, and lists those that are over.
    pub fn flush(&mut self) {
        for slot in mem::take(&mut self.dirty) {
            let Some(entry) = self.slots.get_mut(slot) else { continue };
            entry.is_dirty = false;
            let wanted_read = entry.connection.wants_read();
            if !self.write(slot) {
                self.break_off(slot);
                self.over.push(slot);
                continue;
            }
            let fd = self.slots.fd_of(slot);
            let Some(entry) = self.slots.get_mut(slot) else { continue };
            match entry.connection.poll_next(&self.env) {
                Next::Drop => {
                    self.oracle.life(fd).judge_drop();
                    self.over.push(slot);
                    continue;
                }
                Next::Shut => entry.wire.borrow_mut().shut(),
                Next::Stay => {}
            }
            if !wanted_read && entry.connection.wants_read() {
                self.make_ready(slot);
            }
            self.arm(slot);
        }
        self.env.end_turn();
    }

    /// The socket broke while it was written to.
    fn break_off(&mut self, slot: Slot) {
        hit("network: broken while writing");
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.connection.release(&mut self.env);
        let event = entry.connection.handle_end(true);
        let now = self.env.now;
        let (life, ledger) = self.oracle.account(self.slots.fd_of(slot));
        life.lane.abandon(ledger);
        life.is_lost = true;
        if let Some(fdpush::sim::Event::Closed(closed)) = &event {
            life.close_by_loss(closed, now);
        }
        self.record_end(slot, event);
    }

    /// Writes, and has the largest holders pay for what is left. `false`: the socket broke.
    pub fn write(&mut self, slot: Slot) -> bool {
        let is_whole = self.offer(slot);
        self.relieve(None);
        is_whole
    }

    /// Writes until the queue is empty, the socket full, or the turn's share used up. `false`: the socket broke.
    pub fn offer(&mut self, slot: Slot) -> bool {
        let fd = self.slots.fd_of(slot);
        for _ in 0..WRITES_PER_TURN_MAX {
            let Some(entry) = self.slots.get_mut(slot) else { return true };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = entry.connection.poll_slices(&self.env, &mut slices[..self.slices_max]);
            let slices = &slices[..filled];
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            if offered == 0 {
                return true;
            }
            let Some(written) = entry.wire.borrow_mut().write(slices, &mut self.rng) else { return false };
            let is_full = written < offered;
            entry.connection.handle_written(written, is_full, &mut self.env);
            if is_full && !self.full.contains(&slot) {
                self.full.push(slot);
            }
            let now = self.env.now;
            let (life, ledger) = self.oracle.account(fd);
            life.lane.written(written, is_full, now, ledger);
            life.written(&self.env.limits, now);
            self.compare(slot);
        }
        self.touch(slot);
        true
    }
}
