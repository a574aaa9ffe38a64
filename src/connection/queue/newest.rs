//! Drops the newest messages of a queue to free memory.

use std::sync::Arc;

use crate::connection::queue::{Queue, frame_end_behind};
use crate::connection::segment::{Bytes, Kind, Queued, Segment};
use crate::protocol::frame::server_frame_bytes;

/// The bit in the first byte of a frame that marks control frames.
///
/// See RFC 6455 section 5.2.
const CONTROL_BIT: u8 = 0x08;

impl Queue {
    /// Drops the newest messages until the counted memory of the queue is at most `charge_max`.
    ///
    /// Control frames, HTTP responses and a partly written frame are not dropped. Returns the number of dropped
    /// messages.
    pub fn drop_newest(&mut self, charge_max: usize, total: &mut Queued) -> usize {
        let (mut charge, mut dropped) = (self.charge(), 0);
        let mut has_lost_key = false;
        // The segments that are removed here and put back below, the newest first.
        let mut stays: Vec<Segment> = Vec::new();
        while charge > charge_max
            && let Some(mut last) = self.segments.pop_back()
        {
            let sent = if self.segments.is_empty() { self.sent } else { 0 };
            let before = last.charge();
            match &mut last.bytes {
                Bytes::Shared(frame) if sent == 0 => {
                    charge -= before;
                    self.bytes -= frame.as_bytes().len();
                    self.overhead -= last.overhead();
                    last.release(total);
                    has_lost_key |= last.key.is_some();
                    dropped += 1;
                }
                Bytes::Run(run) if last.kind == Kind::Frames => {
                    let len = run.len();
                    dropped += drop_from_run(run, sent, charge - charge_max);
                    let freed = len - run.len();
                    charge -= freed;
                    self.bytes -= freed;
                    total.frames -= freed;
                    if !run.is_empty() {
                        stays.push(last);
                    }
                }
                Bytes::Run(_) | Bytes::Shared(_) => {
                    let is_first_http = last.kind == Kind::Http;
                    stays.push(last);
                    if is_first_http {
                        break;
                    }
                }
            }
        }
        while let Some(segment) = stays.pop() {
            if segment.kind == Kind::Pong {
                self.pong = Some(self.first + self.segments.len() as u64);
            }
            self.segments.push_back(segment);
        }
        if has_lost_key {
            self.find_keys();
        }
        self.shrink_lists();
        if self.segments.front().is_some_and(|first| first.bytes.as_slice().len() == self.sent) {
            // Only the written part of the first segment is left, so the segment is removed.
            self.pop_front(total);
            self.sent = 0;
        } else {
            self.handle_emptied(!self.segments.is_empty(), total);
        }
        dropped
    }

    /// Updates `keys` to the newest message of each key.
    ///
    /// After the newest message of a key was dropped, an older message of this key may remain.
    fn find_keys(&mut self) {
        self.keys.clear();
        for (segment, number) in self.segments.iter().zip(self.first..) {
            if let Some(key) = &segment.key {
                self.keys.insert(Arc::clone(key), number);
            }
        }
    }
}

/// Drops the newest messages of a run of frames, until at least `excess` bytes are free.
///
/// The first `sent` bytes are written already. Returns the number of dropped messages.
fn drop_from_run(run: &mut Vec<u8>, sent: usize, excess: usize) -> usize {
    let begun = if sent > 0 { frame_end_behind(run, sent) } else { 0 };
    let mut frames = Vec::new();
    let mut at = begun;
    while let Some(bytes) = run.get(at..).and_then(server_frame_bytes).filter(|bytes| at + bytes <= run.len()) {
        frames.push(at..at + bytes);
        at += bytes;
    }
    let (mut freed, mut dropped) = (0, 0);
    let mut cut = run.len();
    let mut controls = Vec::new();
    while freed < excess
        && let Some(frame) = frames.pop()
    {
        cut = frame.start;
        match run.get(frame.clone()) {
            Some(bytes) if bytes.first().is_some_and(|first| first & CONTROL_BIT != 0) => controls.push(bytes.to_vec()),
            _ => {
                freed += frame.len();
                dropped += 1;
            }
        }
    }
    run.truncate(cut);
    controls.iter().rev().for_each(|control| run.extend_from_slice(control));
    run.shrink_to(run.len() / 8 * 9);
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::queue::{Outbound, QUEUE_BYTES};
    use crate::connection::written::Written;
    use crate::protocol::frame::Opcode;
    use crate::tick::Tick;

    fn bytes(queue: &Queue) -> Vec<u8> {
        queue.segments.iter().flat_map(|segment| segment.bytes.as_slice().to_vec()).skip(queue.sent).collect()
    }

    #[test]
    fn drop_newest_keeps_control_frames_and_a_partly_written_frame() {
        for charge_max in (0..2000).step_by(7) {
            let (mut queue, mut total) = (Queue::default(), Queued::default());
            let long = "l".repeat(600);
            let mut kept = Vec::new();
            for (number, text) in ["begun", "a", &long, "b", "c", &long, "d"].into_iter().enumerate() {
                let mut message = Outbound::message(Opcode::Text, text.as_bytes());
                message.to_many = text.len() > 10;
                message.key = (number % 2 == 1).then_some(text);
                assert!(queue.push(&mut message, &mut total));
                kept.push(Some(text));
                if number % 2 == 0 {
                    assert!(queue.push(&mut Outbound::message(Opcode::Ping, b"p"), &mut total));
                    kept.push(None);
                }
            }
            queue.handle_written(Written::new(3, true), Tick(0), &mut total);
            assert_eq!(total.frames, queue.charge());
            let before = queue.charge();
            let dropped = queue.drop_newest(charge_max, &mut total);
            queue.check_invariants();
            assert_eq!(total.frames, queue.charge());
            assert!(
                queue.charge() <= charge_max || dropped == 6,
                "at most {charge_max} bytes may be left, unless all six messages after the first are dropped: {}",
                queue.charge()
            );
            assert!(dropped == 0 || before > charge_max);
            for text in kept.iter_mut().skip(1).rev().filter(|text| text.is_some()).take(dropped) {
                *text = Some("");
            }
            let mut expected = Vec::new();
            for text in kept.into_iter().filter(|text| *text != Some("")) {
                match text {
                    Some(text) => Outbound::message(Opcode::Text, text.as_bytes()).append_to(&mut expected),
                    None => Outbound::message(Opcode::Ping, b"p").append_to(&mut expected),
                }
            }
            assert_eq!(
                bytes(&queue),
                expected[3..],
                "the queue must have the expected bytes after {dropped} dropped messages"
            );
            assert_eq!(queue.bytes(), expected.len() - 3);
            queue.clear(&mut total);
            assert_eq!(total, Queued::default());
        }
    }

    #[test]
    fn drop_newest_removes_a_run_that_is_fully_written() {
        let (mut queue, mut total) = (Queue::default(), Queued::default());
        for text in ["a", "b"] {
            queue.push(&mut Outbound::message(Opcode::Text, text.as_bytes()), &mut total);
        }
        queue.handle_written(Written::new(3, true), Tick(0), &mut total);
        assert_eq!(queue.drop_newest(0, &mut total), 1);
        assert!(queue.is_empty());
        assert_eq!(total, Queued::default());
    }

    #[test]
    fn drop_newest_can_empty_a_queue() {
        let (mut queue, mut total) = (Queue::default(), Queued::default());
        for text in ["a", "b"] {
            queue.push(&mut Outbound::message(Opcode::Text, text.as_bytes()), &mut total);
        }
        assert_eq!(total.frames, QUEUE_BYTES + 6);
        assert_eq!(queue.drop_newest(0, &mut total), 2);
        assert!(queue.is_empty());
        assert_eq!(total, Queued::default());
    }
}
