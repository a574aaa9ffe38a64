//! The output of a connection: none, a range of the journal (the output buffer of the loop), or a queue.

use std::io::IoSlice;

use crate::connection::env::Env;
use crate::connection::journal::Journal;
use crate::connection::outbound::{Outbound, Range};
use crate::connection::queue::{PONG_QUEUE_BYTES_MAX, QUEUE_BYTES, Queue};
use crate::connection::written::Written;
use crate::protocol::frame::Opcode;
use crate::tick::Tick;

/// The output of a connection that is not written yet.
///
/// An output starts as [`Empty`](Output::Empty). [`push`](Output::push) appends a frame to the journal of the turn, and
/// the output becomes [`Journaled`](Output::Journaled). Many connections share the bytes of a frame in the journal, and
/// no queue is allocated. At the end of the turn, the [`Table`](crate::connection::Table) writes the bytes of
/// [`poll_slice`](Output::poll_slice) or [`poll_slices`](Output::poll_slices), and reports the result with
/// [`handle_written`](Output::handle_written). Usually the socket has accepted all bytes, and the output is empty
/// again. Otherwise the unwritten bytes move to a queue, and the output is [`Queued`](Output::Queued) until it is
/// empty.
///
/// A range of the journal is valid until [`Journal::clear`]. Before this call, the output must be written, moved with
/// [`queue`](Output::queue), or dropped with [`clear`](Output::clear). A queue may be dropped only with `clear`,
/// because its memory counts in the totals of [`Env`].
#[derive(Debug, Default)]
pub enum Output {
    #[default]
    Empty,
    /// Frames of this turn that are not written yet.
    Journaled(Range),
    Queued(Box<Queue>),
}

const _: () = assert!(size_of::<Output>() <= 16);

impl Output {
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self, Output::Empty)
    }

    /// Returns the number of bytes that are not written yet.
    #[inline]
    pub fn bytes(&self) -> usize {
        match self {
            Output::Empty => 0,
            Output::Journaled(range) => range.len(),
            Output::Queued(queue) => queue.bytes(),
        }
    }

    /// Returns the number of bytes that count against `queue_bytes_max`.
    ///
    /// For output in a queue, the overhead of shared frames and keys counts, too. For output in the journal, only the
    /// bytes of the frames count.
    #[inline]
    pub fn counted_bytes(&self) -> usize {
        match self {
            Output::Queued(queue) => queue.counted_bytes(),
            Output::Empty | Output::Journaled(_) => self.bytes(),
        }
    }

    /// Returns the number of output bytes that are in the journal.
    ///
    /// If the socket does not accept these bytes, they are moved to a queue.
    #[inline]
    pub fn journal_bytes(&self) -> usize {
        match self {
            Output::Journaled(range) => range.len(),
            Output::Empty | Output::Queued(_) => 0,
        }
    }

    /// Returns the memory that a move of the output from the journal to a queue would take, without the memory of
    /// shared frames.
    pub fn moved_bytes(&self, journal: &Journal) -> usize {
        match self {
            Output::Journaled(range) => QUEUE_BYTES + journal.copied_bytes(*range),
            Output::Empty | Output::Queued(_) => 0,
        }
    }

    /// Returns whether the output contains frames, and was not offered to the socket yet.
    #[inline]
    pub fn is_untried(&self) -> bool {
        match self {
            Output::Empty => false,
            Output::Journaled(_) => true,
            Output::Queued(queue) => queue.backlogged_since().is_none() && queue.has_frames(),
        }
    }

    /// Returns the time since which a full socket has accepted no bytes.
    #[inline]
    pub fn stalled_since(&self) -> Option<Tick> {
        match self {
            Output::Queued(queue) => queue.stalled_since(),
            Output::Empty | Output::Journaled(_) => None,
        }
    }

    /// Returns whether output waits in the queue because the socket was full.
    pub fn is_backlogged(&self) -> bool {
        matches!(self, Output::Queued(queue) if queue.backlogged_since().is_some())
    }

    /// Appends a frame. Returns `false` if memory is exhausted.
    // This function is always inlined: a call per message would take a fifth of the time of a push.
    #[inline(always)]
    pub fn push(&mut self, outbound: &mut Outbound<'_>, env: &mut Env) -> bool {
        let before = match self {
            Output::Empty => None,
            Output::Journaled(range) => Some(*range),
            Output::Queued(_) => return self.push_to_queue(outbound, env),
        };
        match env.journal.put(before, outbound) {
            Some(range) => {
                *self = Output::Journaled(range);
                true
            }
            None => self.push_to_queue(outbound, env),
        }
    }

    // This function is not inlined, because most frames go to the journal.
    #[inline(never)]
    fn push_to_queue(&mut self, outbound: &mut Outbound<'_>, env: &mut Env) -> bool {
        let queue = self.queue(env);
        let is_pushed = queue.push(outbound, &mut env.queued);
        env.longest_queue = env.longest_queue.max(queue.bytes());
        if queue.is_empty() {
            self.clear(env);
        }
        is_pushed
    }

    /// Appends a pong. In a long queue, the new pong replaces the queued pong.
    pub fn push_pong(&mut self, payload: &[u8], env: &mut Env) {
        if matches!(self, Output::Queued(_)) || self.bytes() > PONG_QUEUE_BYTES_MAX {
            self.queue(env).push_pong(payload, &mut env.queued);
        } else {
            self.push_control(&mut Outbound::message(Opcode::Pong, payload), env);
        }
    }

    /// Appends a control frame. Returns `false` if memory is exhausted.
    ///
    /// The frame is never deflated, and is sent after the earlier frames of this output.
    pub fn push_control(&mut self, frame: &mut Outbound<'_>, env: &mut Env) -> bool {
        if frame.place.is_none()
            && let Output::Journaled(range) = self
        {
            frame.part = range.part();
        }
        self.push(frame, env)
    }

    /// Returns the queue of the output, and first creates a queue if there is none.
    ///
    /// Output in the journal is moved to the new queue. The caller must add output to the queue, or clear it, because
    /// an output with an empty queue is invalid.
    pub fn queue(&mut self, env: &mut Env) -> &mut Queue {
        if !matches!(self, Output::Queued(_)) {
            let mut queue = env.take_queue();
            if let Output::Journaled(range) = *self {
                env.journal.move_to_queue(range, &mut queue, &mut env.queued);
            }
            *self = Output::Queued(queue);
        }
        match self {
            Output::Queued(queue) => queue,
            _ => unreachable!("the output must have a queue"),
        }
    }

    /// Returns the memory of the output that counts against `queue_total_bytes_max`.
    pub fn charge(&self) -> usize {
        match self {
            Output::Queued(queue) => queue.charge(),
            Output::Empty | Output::Journaled(_) => 0,
        }
    }

    /// Returns whether an HTTP response is still to be written, in whole or in part.
    pub fn has_response(&self) -> bool {
        matches!(self, Output::Queued(queue) if queue.is_http())
    }

    /// Returns whether the output is in a queue.
    #[inline]
    pub fn is_queued(&self) -> bool {
        matches!(self, Output::Queued(_))
    }

    /// Returns the queue, if there is one.
    pub fn as_queue(&mut self) -> Option<&mut Queue> {
        match self {
            Output::Queued(queue) => Some(queue),
            Output::Empty | Output::Journaled(_) => None,
        }
    }

    /// Returns the unwritten output if it is one slice, as most output is. Otherwise returns `None`.
    #[inline]
    pub fn poll_slice<'a>(&'a self, journal: &'a Journal) -> Option<&'a [u8]> {
        match self {
            Output::Empty => None,
            Output::Journaled(range) => Some(journal.get(*range)),
            Output::Queued(queue) => queue.poll_slice(),
        }
    }

    /// Stores references to the unwritten output in `slices`, and returns the number of stored slices.
    ///
    /// While the socket is full, the result is 0.
    pub fn poll_slices<'a>(&'a self, journal: &'a Journal, slices: &mut [IoSlice<'a>]) -> usize {
        match (self, slices) {
            (Output::Journaled(range), [first, ..]) => {
                *first = IoSlice::new(journal.get(*range));
                1
            }
            (Output::Queued(queue), slices) if !queue.is_full() => queue.poll_slices(slices),
            _ => 0,
        }
    }

    /// Reports the result of a write to the socket.
    #[inline]
    pub fn handle_written(&mut self, written: Written, env: &mut Env) {
        match self {
            Output::Empty => {}
            Output::Journaled(range) if written.bytes == range.len() && written.held == 0 => {
                env.counts.sent += 1;
                *self = Output::Empty;
            }
            Output::Journaled(_) | Output::Queued(_) => self.handle_queue_written(written, env),
        }
    }

    #[inline(never)]
    fn handle_queue_written(&mut self, written: Written, env: &mut Env) {
        let now = env.now;
        let queue = self.queue(env);
        queue.handle_written(written, now, &mut env.queued);
        if queue.is_empty() {
            match queue.backlogged_since() {
                Some(since) => env.counts.waits.record(now.since(since), 1),
                None => env.counts.sent += 1,
            }
            self.clear(env);
        }
    }

    /// Reports `held`, the number of unsent bytes in the transport after a read. If the number is not 0, the socket is
    /// full.
    pub fn handle_held(&mut self, held: usize, has_sent: bool, is_http: bool, env: &mut Env) {
        if held == 0 && !self.is_queued() {
            return;
        }
        let now = env.now;
        let queue = self.queue(env);
        queue.handle_held(held, has_sent, is_http, now, &mut env.queued);
        if queue.is_empty() {
            self.clear(env);
        }
    }

    /// Drops all unwritten output.
    pub fn clear(&mut self, env: &mut Env) {
        match std::mem::take(self) {
            Output::Empty | Output::Journaled(_) => {}
            Output::Queued(queue) => env.give_queue(queue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::segment::{Queued, SEGMENT_BYTES};
    use crate::limits::{Heartbeat, Limits};
    use crate::protocol::origin::Origins;
    use crate::protocol::shared::FRAME_BYTES;

    fn env() -> Env {
        Env::new(Limits::default(), Heartbeat::Off, Origins::Same)
    }

    fn text(text: &str) -> Outbound<'_> {
        Outbound::message(Opcode::Text, text.as_bytes())
    }

    fn waiting(output: &Output, env: &Env) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = output.poll_slices(&env.journal, &mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn outputs_that_get_the_same_messages_share_one_journal_range() {
        let mut env = env();
        let mut outputs = [Output::Empty, Output::Empty, Output::Empty];
        for message in ["a", "b", "c"] {
            let mut outbound = text(message);
            for output in &mut outputs {
                output.push(&mut outbound, &mut env);
            }
        }
        assert_eq!(env.queued.frames, 0, "bytes in the journal must not count as queued");
        for output in &mut outputs {
            assert!(matches!(output, Output::Journaled(_)));
            assert_eq!(waiting(output, &env), b"\x81\x01a\x81\x01b\x81\x01c");
            output.handle_written(Written::new(9, false), &mut env);
            assert!(output.is_empty());
        }
        assert_eq!(env.queued.frames, 0);
    }

    #[test]
    fn frames_that_are_not_adjacent_are_queued_in_order() {
        let mut env = env();
        let (mut ann, mut bob) = (Output::Empty, Output::Empty);
        ann.push(&mut text("1"), &mut env);
        bob.push(&mut text("2"), &mut env);
        let mut both = text("3");
        ann.push(&mut both, &mut env);
        bob.push(&mut both, &mut env);
        assert!(matches!((&ann, &bob), (Output::Queued(_), _)));
        assert_eq!(waiting(&ann, &env), b"\x81\x011\x81\x013");
        assert_eq!(waiting(&bob, &env), b"\x81\x012\x81\x013");
    }

    #[test]
    fn unwritten_output_is_valid_after_the_turn() {
        let mut env = env();
        let mut output = Output::Empty;
        output.push(&mut text("one"), &mut env);
        output.push(&mut text("two"), &mut env);
        output.handle_written(Written::new(4, true), &mut env);
        env.end_turn();
        assert_eq!(waiting(&output, &env), b"", "no output may be offered to a full socket");
        assert_eq!(env.queued.frames, QUEUE_BYTES + 10);
        output.push(&mut text("three"), &mut env);
        output.as_queue().expect("the output has a queue").handle_writable();
        assert_eq!(waiting(&output, &env), b"e\x81\x03two\x81\x05three");
        output.clear(&mut env);
        assert_eq!(env.queued.frames, 0);
    }

    #[test]
    fn frames_that_do_not_fit_into_the_journal_are_queued() {
        let mut env = env();
        let payload = "x".repeat(100_000);
        let mut output = Output::Empty;
        for _ in 0..5 {
            output.push(&mut text(&payload), &mut env);
        }
        assert!(env.journal.is_long());
        assert!(matches!(output, Output::Queued(_)));
        assert_eq!(output.bytes(), 5 * 100_010);
        assert_eq!(env.queued.frames, QUEUE_BYTES + output.bytes());
        output.clear(&mut env);
        assert_eq!(env.queued.frames, 0);
    }

    #[test]
    fn only_outputs_of_full_sockets_are_queued_and_the_queues_share_large_frames() {
        let mut env = env();
        let payload = "x".repeat(10_000);
        let mut outputs = [Output::Empty, Output::Empty, Output::Empty, Output::Empty];
        for _ in 0..4 {
            let mut large = text(&payload);
            large.to_many = true;
            let mut small = text("small");
            small.to_many = true;
            for output in &mut outputs {
                output.push(&mut large, &mut env);
                output.push(&mut small, &mut env);
            }
        }
        let [quick, stalled @ ..] = &mut outputs;
        assert!(matches!(quick, Output::Journaled(_)));
        let all = waiting(quick, &env);
        assert_eq!(all.len(), 4 * (10_004 + 7));
        quick.handle_written(Written::new(all.len(), false), &mut env);
        assert_eq!(env.queued, Queued::default());

        for output in stalled.iter_mut() {
            output.handle_written(Written::new(10_004 + 7 + 1, true), &mut env);
            output.as_queue().expect("the output has a queue").check_invariants();
        }
        // Each queue has the last three large frames, which are shared, and the last three small frames, which are
        // copied. The first of these large frames counts as a whole, although its first byte is written.
        let frames = 3 * (10_004 + FRAME_BYTES);
        assert_eq!(env.queued.frames, frames + 3 * (QUEUE_BYTES + 3 * (SEGMENT_BYTES + 7)));
        env.end_turn();
        for output in stalled {
            output.as_queue().expect("the output has a queue").handle_writable();
            assert_eq!(waiting(output, &env), all[10_004 + 7 + 1..]);
            output.clear(&mut env);
        }
        assert_eq!(env.queued, Queued::default());
    }

    #[test]
    fn a_move_to_a_queue_copies_only_small_frames() {
        let mut env = env();
        let payload = "x".repeat(10_000);
        let mut outputs = [Output::Empty, Output::Empty];
        let mut first = text("small");
        let mut large = text(&payload);
        let mut last = text("smaller still");
        for outbound in [&mut first, &mut large, &mut last] {
            outbound.to_many = true;
            for output in &mut outputs {
                output.push(outbound, &mut env);
            }
        }
        let [all, rest] = &mut outputs;
        assert_eq!(all.moved_bytes(&env.journal), QUEUE_BYTES + 7 + 15);
        rest.handle_written(Written::new(rest.bytes(), false), &mut env);
        rest.push(&mut last, &mut env);
        assert_eq!(rest.moved_bytes(&env.journal), QUEUE_BYTES + 15);
        let before = waiting(all, &env);
        all.queue(&mut env);
        env.end_turn();
        assert_eq!(waiting(all, &env), before);
        assert_eq!(all.moved_bytes(&env.journal), 0);
        all.clear(&mut env);
    }

    #[test]
    fn a_conflation_key_is_valid_after_the_turn_of_its_message() {
        let mut env = env();
        let mut output = Output::Empty;
        for message in ["gold=1", "iron=1"] {
            let mut keyed = text(message);
            keyed.key = Some(&message[..4]);
            output.push(&mut keyed, &mut env);
        }
        assert!(matches!(output, Output::Journaled(_)));
        output.handle_written(Written::new(3, true), &mut env);
        env.end_turn();
        let mut conflate = |message: &str| {
            let mut newer = text(message);
            newer.key = Some(&message[..4]);
            output.as_queue().expect("the output has a queue").conflate(&mut newer, &env.limits, &mut env.queued)
        };
        assert!(!conflate("gold=2"), "a partly written message must not be replaced");
        assert!(conflate("iron=2"));
        output.as_queue().expect("the output has a queue").handle_writable();
        assert_eq!(waiting(&output, &env), b"old=1\x81\x06iron=2");
        output.clear(&mut env);
        assert_eq!(env.queued, Queued::default());
    }

    #[test]
    fn a_long_journal_range_is_moved_to_several_segments() {
        let mut env = env();
        let payload = "x".repeat(996);
        let mut output = Output::Empty;
        for _ in 0..100 {
            output.push(&mut text(&payload), &mut env);
        }
        assert!(matches!(output, Output::Journaled(_)));
        output.handle_written(Written::new(0, true), &mut env);
        assert_eq!(output.as_queue().expect("the output has a queue").segment_count(), 100_usize.div_ceil(32));
        output.clear(&mut env);
    }
}
