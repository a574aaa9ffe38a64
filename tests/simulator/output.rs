//! Makes pushes, and checks the changes of output that the connection table makes by itself, for example writes and the
//! closes of slow consumers. The simulator compares pushes and changes with the oracle, in order.

use std::collections::BTreeSet;
use std::mem;

use fdpush::bench::Deflater;
use fdpush::sim::{Event, FlushResult, JournalResult, KeptMessage, Opcode, Outbound, Sent, SlotSet, Written, outbound};
use fdpush::{Cause, CloseCode, Closed, Fd, Frame, Outcome, Slot, SlowReader};

use crate::connection_model::{ConnectionModel, Stage};
use crate::coverage::hit;
use crate::oracle::payload_of;
use crate::segment_model::{Due, Encoding, Posted};
use crate::server::Server;
use crate::socket::{Change, Entry, OutputState, Socket};

/// The options of a push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    pub is_text: bool,
    pub payload_bytes: usize,
    /// Whether the handler pushes an encoded `Frame`.
    pub is_frame: bool,
    pub key: Option<String>,
}

impl Server {
    /// Pushes one message to the connections at `slots`. The push must reach exactly the `intended` connections.
    pub fn push_to_slots(&mut self, slots: &[Slot], intended: Vec<Fd>, options: &PushOptions) {
        let id = self.oracle.post(intended.clone(), options.payload_bytes, options.is_text);
        let payload = payload_of(id, options.payload_bytes);
        let text = String::from_utf8_lossy(&payload);
        let frame = if options.is_text { Frame::text(&text) } else { Frame::binary(&payload) };
        let opcode = if options.is_text { Opcode::Text } else { Opcode::Binary };
        let bare = if options.is_frame { Outbound::frame(&frame) } else { Outbound::message(opcode, &payload) };

        let to_many = options.is_frame || slots.len() > 1;
        let is_conflating = self.table.env().limits.slow_reader == SlowReader::Conflate;
        let key = options.key.clone().filter(|_| is_conflating);
        let bytes = frame.as_bytes().len();
        let posted = Posted { id, bytes, plain_bytes: bytes, encoding: Encoding::Plain, to_many, key };
        let deflated = self.deflate(opcode, &payload);
        let mut message = outbound(bare, to_many, posted.key.as_deref());
        assert_eq!(message.bytes(), posted.bytes, "the frame must have the expected length");
        let listed = self.table.listed_len();
        let before = self.table.env().counts.compression.deflated;
        if slots.len() >= self.fan_out_min {
            let kept = message.to_kept();
            return self.fan_out(slots, intended, kept, &posted, (payload.len(), deflated));
        }
        // The push first queues the messages of earlier fan-outs for its receivers, and can deflate each such message once.
        let awaited = slots.iter().filter_map(|slot| self.awaited.get(&self.table.fd_of(*slot))).flatten();
        let earlier = awaited.filter(|posted| posted.encoding == Encoding::Deflated);
        let earlier: BTreeSet<_> = earlier.map(|posted| posted.id).collect();
        let (mut reached, mut needs_deflated) = (Vec::new(), false);
        for &slot in slots {
            let fd = self.table.fd_of(slot);
            let posted = self.encode(fd, &posted, payload.len(), deflated);
            needs_deflated |= posted.encoding == Encoding::Deflated;
            if self.push(slot, &mut message, &posted) != Outcome::Gone {
                reached.push(fd);
            }
        }
        let times = self.table.env().counts.compression.deflated - before;
        assert!(
            times <= u64::from(needs_deflated) + earlier.len() as u64,
            "push {id} and the fan-outs {earlier:?} must each be deflated at most once, and only for a receiver that \
             negotiated it, not {times} times"
        );
        if slots.len() > 1 {
            self.table.defer_listed(listed);
        }
        self.record_slow_consumers();
        reached.sort_unstable();
        assert_eq!(reached, intended, "push {id} must reach the intended receivers");
    }

    /// Pushes one message to the connections at `slots` as a fan-out, which must reach the `intended` connections.
    ///
    /// The table queues the message immediately for the connections that have output, and later for the other
    /// connections.
    fn fan_out(
        &mut self,
        slots: &[Slot],
        intended: Vec<Fd>,
        mut message: KeptMessage,
        posted: &Posted,
        (payload_bytes, deflated): (usize, Option<usize>),
    ) {
        let posted = Posted { to_many: true, ..posted.clone() };
        let listed = self.table.listed_len();
        let is_open = |slot: &&Slot| self.table.connection(**slot).is_some_and(|connection| connection.is_open());
        let mut receivers: SlotSet = slots.iter().filter(is_open).copied().collect();
        let at_once = self.table.begin_fan_out(&mut receivers, &message);
        if !self.log.borrow().is_empty() {
            hit("fan-out: no room for another");
        }
        self.replay();
        let mut reached = Vec::new();
        for slot in at_once {
            let fd = self.table.fd_of(slot);
            let posted = self.encode(fd, &posted, payload_bytes, deflated);
            if message.lend(|message| self.push(slot, message, &posted)) != Outcome::Gone {
                reached.push(fd);
            }
        }
        self.table.defer_listed(listed);
        for slot in receivers.iter() {
            let fd = self.table.fd_of(slot);
            let bytes = self.oracle.model(fd).output.bytes();
            assert_eq!(bytes, 0, "the table must queue a message for {fd} immediately, because {fd} has output");
            let posted = self.encode(fd, &posted, payload_bytes, deflated);
            self.awaited.entry(fd).or_default().push_back(posted);
            reached.push(fd);
        }
        let count = receivers.count();
        assert_eq!(self.table.add_fan_out(receivers, message), count);
        hit(if count > 0 { "fan-out" } else { "fan-out: all receivers have output" });
        self.record_slow_consumers();
        reached.sort_unstable();
        assert_eq!(reached, intended, "push {} must reach the intended receivers", posted.id);
    }

    /// Compares the messages of fan-outs that the table has queued for a connection, before it changed the connection.
    pub fn replay_fan_outs(&mut self, slot: Slot) {
        let is_next = |log: &Vec<Entry>| matches!(log.first(), Some(Entry { change: Change::FannedOut { .. }, .. }));
        while is_next(&self.log.borrow()) {
            let entry = self.log.borrow_mut().remove(0);
            assert_eq!(entry.fd.slot(), slot, "a call for another connection must not queue messages for {}", entry.fd);
            hit("fan-out: queued before another change");
            self.check_entry(entry);
        }
    }

    /// Checks that no message of a fan-out is left for a connection, because a call has changed the connection.
    pub fn check_settled(&mut self, slot: Slot) {
        self.replay_fan_outs(slot);
        let fd = self.table.fd_of(slot);
        assert!(!self.awaited.contains_key(&fd), "{fd} must get the messages of fan-outs before any other change");
    }

    /// Returns the length of the deflated frame.
    ///
    /// Returns `None` if compression is off, if the message is shorter than `compress_bytes_min`, or if the deflated
    /// frame would not be shorter.
    fn deflate(&self, opcode: Opcode, payload: &[u8]) -> Option<usize> {
        let limits = &self.table.env().limits;
        let may_deflate = limits.compression && payload.len() >= limits.compress_bytes_min;
        may_deflate.then(|| Deflater::default().encode(opcode, payload)).flatten().map(|frame| frame.len())
    }

    /// Returns the push with the encoding that one connection must get.
    fn encode(&self, fd: Fd, posted: &Posted, payload_bytes: usize, deflated: Option<usize>) -> Posted {
        let model = self.oracle.models.get(&fd).filter(|model| model.is_open());
        let longest = model.and_then(|model| model.deflated_bytes_max);
        let posted = posted.clone();
        match (longest, deflated) {
            (Some(longest), Some(bytes)) if payload_bytes <= longest => {
                Posted { bytes, encoding: Encoding::Deflated, ..posted }
            }
            (Some(longest), None) if payload_bytes <= longest => Posted { encoding: Encoding::NotShorter, ..posted },
            _ => posted,
        }
    }

    fn push(&mut self, slot: Slot, message: &mut Outbound<'_>, posted: &Posted) -> Outcome {
        let fd = self.table.fd_of(slot);
        let was_open = self.oracle.is_open(fd);
        let closed_now = self.oracle.models.get(&fd).is_some_and(|model| model.closed_at == Some(self.table.env().now));
        self.posting = Some((fd, posted.clone()));
        let outcome = self.table.push(slot, message);
        let expected = self.replay_push(fd);
        self.posting = None;
        match expected {
            Some(expected) => assert_eq!(outcome, expected, "a push to {fd} must have the expected result: {posted:?}"),
            // The connection was not open, or an earlier part of this push to many closed it.
            None => {
                assert!(!was_open, "the table must try the push to {fd}, because {fd} is open");
                assert!(outcome == Outcome::Gone || (closed_now && outcome == Outcome::Dropped), "{fd}: {outcome:?}");
            }
        }
        outcome
    }

    /// Compares all changes that a push caused with the oracle, and returns the outcome that follows from these
    /// changes. Returns `None` if the connection is not open.
    fn replay_push(&mut self, fd: Fd) -> Option<Outcome> {
        let mut outcome = None;
        for entry in self.take_log() {
            if entry.fd == fd {
                match &entry.change {
                    Change::Sent(Sent::Queued) if outcome.is_some() => {
                        hit("push: queued after a write");
                        outcome = Some(Outcome::Queued);
                    }
                    Change::Sent(Sent::Queued) | Change::Conflated { is_done: true } => outcome = Some(Outcome::Queued),
                    Change::Sent(Sent::TooLarge) => outcome = Some(Outcome::TooLarge),
                    Change::Sent(Sent::Full) => outcome = Some(Outcome::Dropped),
                    Change::Dropped { messages: 1.., .. } | Change::ClosedSlow { .. } if outcome.is_some() => {
                        outcome = Some(Outcome::Dropped);
                    }
                    _ => {}
                }
            }
            self.check_entry(entry);
        }
        self.end_replay();
        if outcome == Some(Outcome::Dropped) && self.table.env().limits.slow_reader == SlowReader::DropNewest {
            hit("push: dropped");
        }
        outcome
    }

    /// Compares the changes that the table has made by itself with the oracle.
    pub fn replay(&mut self) {
        for entry in self.take_log() {
            self.check_entry(entry);
        }
        self.end_replay();
    }

    fn take_log(&mut self) -> Vec<Entry> {
        mem::take(&mut *self.log.borrow_mut())
    }

    fn check_entry(&mut self, entry: Entry) {
        let Entry { fd, change, state } = entry;
        match change {
            Change::Wrote(written) => self.check_write(fd, written),
            Change::Sent(sent) => self.check_send(fd, sent, state),
            Change::FannedOut { is_queued } => self.check_fanned_out(fd, is_queued, state),
            Change::Pinged(sent) => self.check_ping(fd, sent, state),
            Change::Conflated { is_done } => self.check_conflation(fd, is_done),
            Change::MovedToQueue => {
                hit("flush: output moved to a queue");
                let (model, ledger) = self.oracle.account(fd);
                model.output.observe(state.queued, 0, ledger);
            }
            Change::Dropped { messages, charge, bytes_min } => self.check_drop(fd, messages, charge, bytes_min, state),
            Change::ClosedSlow { kept_max, charge, closed } => {
                if let Some(charge) = charge {
                    hit("eviction: closed");
                    self.check_eviction(fd, charge, kept_max);
                    self.undroppable.remove(&fd);
                }
                self.check_slow(fd, kept_max, closed.as_ref(), state);
            }
            Change::ResponseDropped => {
                hit("response dropped");
                let (model, ledger) = self.oracle.account(fd);
                model.output.abandon(ledger);
                model.is_lost = true;
            }
        }
        self.compare_state(fd, state);
    }

    fn check_write(&mut self, fd: Fd, written: Written) {
        self.writes += 1;
        let slot = fd.slot();
        if written.is_full && !self.full.contains(&slot) {
            self.full.push(slot);
        }
        let env = self.table.env();
        let (model, ledger) = self.oracle.account(fd);
        model.output.written(written, env.now, ledger);
        model.written(&env.limits, env.now);
        self.note_offer(fd);
    }

    /// Compares the result of queueing a message with the result that the oracle expects.
    fn check_send(&mut self, fd: Fd, sent: Sent, state: OutputState) {
        assert!(!self.awaited.contains_key(&fd), "{fd} must get the messages of fan-outs before a later message");
        let (pushed, posted) = self.posting.clone().expect("a message is being pushed");
        assert_eq!(pushed, fd, "only the receiver of the running push may get its message");
        self.begin_search();
        let limits = &self.table.env().limits;
        let (model, ledger) = self.oracle.account(fd);
        let queued = model.output.bytes();
        let is_over = queued > 0 && model.output.counted_bytes() + posted.counted_bytes() > limits.queue_bytes_max;
        let expected = match posted.plain_bytes {
            _ if !model.is_open() => Sent::NotOpen,
            bytes if bytes > limits.queue_bytes_max => Sent::TooLarge,
            _ if is_over => Sent::Full,
            _ => Sent::Queued,
        };
        assert_eq!(
            sent, expected,
            "a send to {fd} with {queued} bytes queued must have the expected result: {posted:?}"
        );
        match sent {
            Sent::Queued => {
                hit("push: queued");
                model.output.observe(state.queued, state.fresh, ledger);
                model.output.push_message(&posted, ledger);
                self.expect_offers(fd);
            }
            Sent::TooLarge => hit("push: refused"),
            Sent::Full => hit("push: full"),
            Sent::NotOpen => {}
        }
    }

    /// Checks that a message of a fan-out was queued behind all earlier messages of fan-outs.
    fn check_fanned_out(&mut self, fd: Fd, is_queued: bool, state: OutputState) {
        assert!(is_queued, "memory for the message must be free");
        let awaited = self.awaited.get_mut(&fd).unwrap_or_else(|| panic!("{fd} must not get a further message"));
        let posted = awaited.pop_front().expect("a message is awaited");
        if awaited.is_empty() {
            self.awaited.remove(&fd);
        }
        let (model, ledger) = self.oracle.account(fd);
        assert!(model.is_open(), "{fd} must be open while it waits for a message");
        assert!(
            model.output.message_bytes() + posted.bytes <= self.table.env().limits.queue_bytes_max,
            "the messages of all fan-outs to {fd} must be within the bound of its queue"
        );
        model.output.observe(state.queued, state.fresh, ledger);
        model.output.push_message(&posted, ledger);
    }

    fn check_ping(&mut self, fd: Fd, sent: Sent, state: OutputState) {
        assert!(!self.awaited.contains_key(&fd), "{fd} must get the messages of fan-outs before a later ping");
        self.begin_search();
        let limits = &self.table.env().limits;
        let (model, ledger) = self.oracle.account(fd);
        let (queued, bytes) = (model.output.counted_bytes(), 2);
        let expected = match model.is_open() {
            false => Sent::NotOpen,
            true if queued > 0 && queued + bytes > limits.queue_bytes_max => Sent::Full,
            true => Sent::Queued,
        };
        assert_eq!(sent, expected, "a ping to {fd} must have the expected result, with {queued} bytes queued");
        if sent == Sent::Queued {
            hit("call: ping");
            model.output.observe(state.queued, state.fresh, ledger);
            model.output.push_control(Due::Ping, ledger);
        }
    }

    fn check_conflation(&mut self, fd: Fd, is_done: bool) {
        let (_, posted) = self.posting.clone().expect("a message is being pushed");
        let (model, ledger) = self.oracle.account(fd);
        let expected = model.output.conflate(&posted, &self.table.env().limits, ledger);
        assert_eq!(
            is_done, expected,
            "the table must replace an older message for {fd} by {posted:?} if and only if the model does"
        );
        hit(if is_done { "push: conflated" } else { "push: dropped, not conflated" });
        if is_done {
            self.expect_offers(fd);
        }
    }

    /// Checks the end of a slow consumer.
    ///
    /// The slow consumer gets a close frame if its remaining charge is at most `kept_max` and all queues together are
    /// within their bound. The charge of a queue is its memory.
    fn check_slow(&mut self, fd: Fd, kept_max: usize, closed: Option<&Closed>, state: OutputState) {
        let env = self.table.env();
        let (model, ledger) = self.oracle.account(fd);
        let was_open = model.is_open();
        if was_open {
            model.output.truncate(ledger);
        }
        let has_room = ledger.total <= env.limits.queue_total_bytes_max && model.output.charge(ledger) <= kept_max;
        match closed {
            Some(closed) if was_open && has_room => {
                let (code, reason) = (CloseCode::TRY_AGAIN_LATER, "reading too slowly");
                model.close(closed, code, reason, Cause::SlowConsumer);
                model.output.observe(state.queued, state.fresh, ledger);
                model.start_closing(code, reason, env.now, ledger);
            }
            Some(closed) if was_open => {
                hit("slow consumer: ended without a close frame");
                model.output.abandon(ledger);
                model.close(closed, CloseCode::ABNORMAL, "", Cause::SlowConsumer);
                model.end(env.now);
            }
            None if !was_open => {
                hit("slow consumer: close handshake cut short");
                model.output.abandon(ledger);
                model.is_lost = true;
            }
            other => {
                panic!("the table must report the end of the slow consumer {fd} if and only if it was open: {other:?}")
            }
        }
    }

    /// Writes the output of all connections. Some flushes write the output of only some connections, and leave the
    /// other connections to the next turn.
    pub fn flush(&mut self) {
        self.table.begin_flush();
        let portion = if self.rng.one_in(self.portions) { self.rng.within(1..=20) } else { usize::MAX };
        let mut left = portion;
        while left > 0
            && let Some((slot, flushed)) = self.table.poll_flush()
        {
            left -= 1;
            self.replay();
            self.handle_flushed(slot, flushed);
            if left == 0 {
                hit("flush: only some connections");
            }
        }
        if self.rng.one_in(8) {
            self.table.defer_rest();
            hit(match self.table.empty_journal() {
                JournalResult::Emptied => "flush: journal emptied",
                JournalResult::Kept => "flush: journal kept",
                JournalResult::Full => "flush: journal full",
            });
            self.replay();
        }
        self.table.end_flush();
        self.record_slow_consumers();
        if !self.table.is_flushing() {
            assert!(self.awaited.is_empty(), "a flush that has ended must have queued all messages of fan-outs");
            self.held = Some(self.oracle.ledger.total);
        }
    }

    fn handle_flushed(&mut self, slot: Slot, flushed: FlushResult) {
        match flushed {
            FlushResult::Stays { may_resume, timeout } => {
                if may_resume {
                    self.make_ready(slot);
                }
                self.arm_at(slot, timeout);
                if self.table.transport(slot).is_some_and(|socket| socket.wire.borrow().is_shut()) {
                    let (now, close_wait_max) = (self.table.env().now, self.table.env().limits.close_wait_max);
                    self.model_at(slot).shut(now.after(close_wait_max));
                }
            }
            FlushResult::Over => {
                let fd = self.table.fd_of(slot);
                let (model, ledger) = self.oracle.account(fd);
                model.check_drop();
                model.output.abandon(ledger);
                self.over.push(slot);
            }
            FlushResult::Broken => {
                self.break_off(slot);
                self.over.push(slot);
            }
        }
    }

    /// Handles a socket on which a write failed.
    fn break_off(&mut self, slot: Slot) {
        hit("network: broken while writing");
        let fd = self.table.fd_of(slot);
        let Some((event, _)) = self.step(slot, |connection, _| connection.handle_end(true)) else { return };
        let now = self.table.env().now;
        let (model, ledger) = self.oracle.account(fd);
        model.output.abandon(ledger);
        model.is_lost = true;
        if let Some(Event::Closed(closed)) = &event {
            model.close_by_loss(closed, now);
        }
        self.replay();
        self.record_end(slot, event);
    }

    // The following functions model a step of the server before it evicts connections: when the queues exceed their
    // total bound, the server first tries to write to all connections whose sockets may have room.

    /// Stores the connections to which the server must try to write after it queued a message.
    ///
    /// The server must try to write to all connections with queued output if the queues exceed their total bound and
    /// have grown by a quarter of this bound since the last such attempt.
    fn expect_offers(&mut self, fd: Fd) {
        let max = self.table.env().limits.queue_total_bytes_max;
        let total = self.oracle.ledger.total;
        if total + self.oracle.models[&fd].output.journal_bytes() <= max {
            return;
        }
        hit("all queues over their bound");
        if self.held.is_none_or(|held| total.saturating_sub(held) < max / 4) {
            return;
        }
        hit("all transports tried");
        let is_tried = |model: &&ConnectionModel| model.stage != Stage::Http && model.output.can_write();
        let untried = self.oracle.models.values().filter(is_tried);
        self.offers = untried.map(|model| model.fd).collect();
        if self.offers.is_empty() {
            self.held = Some(total);
        } else {
            self.held = None;
            self.is_offering = true;
        }
    }

    fn note_offer(&mut self, fd: Fd) {
        if !self.is_offering {
            return;
        }
        if !self.oracle.models[&fd].output.can_write() {
            self.offers.remove(&fd);
        }
        if self.offers.is_empty() {
            self.is_offering = false;
            self.held = Some(self.oracle.ledger.total);
        }
    }

    fn end_replay(&mut self) {
        let offers: BTreeSet<Fd> = mem::take(&mut self.offers);
        self.is_offering = false;
        for fd in offers {
            let socket = self.table.slot_of(fd).and_then(|slot| self.table.transport(slot));
            let is_broken = socket.is_some_and(Socket::is_broken);
            let has_written_all_it_may = !self.oracle.models[&fd].output.can_write();
            assert!(
                is_broken || has_written_all_it_may,
                "the server must write to {fd} until its queue is empty, or the socket is full or has failed"
            );
        }
        self.begin_search();
        self.check_total_bound();
    }
}
