//! The queue of log lines, bounded in bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The maximum number of bytes in the queue, including the line that is being written.
const BYTES_MAX: usize = 1 << 20;

/// The memory that a queued line uses in addition to its text, in bytes.
const LINE_OVERHEAD: usize = 64;

/// The queue of log lines.
pub struct LogQueue {
    state: Mutex<QueueState>,
    /// The condition variable on which the writer waits for log lines.
    for_writer: Condvar,
    /// The condition variable on which [`LogQueue::flush`] waits for the writer.
    for_flush: Condvar,
    /// The number of dropped log lines since the start of the process.
    dropped: AtomicU64,
}

struct QueueState {
    entries: VecDeque<Entry>,
    /// The number of bytes in the entries and in the line that is being written.
    bytes: usize,
    /// The number of bytes in the line that is being written.
    writing: usize,
    /// The number of lines that were dropped after the last entry was queued. The next entry reports this number.
    unreported: u64,
}

/// A log line to be written.
#[derive(PartialEq, Eq, Debug)]
pub struct Entry {
    /// The number of lines that were dropped directly before this line.
    pub dropped_before: u64,
    /// The text of the line, with its line end. The text is empty if the entry only reports dropped lines.
    pub line: String,
}

impl LogQueue {
    pub const fn new() -> LogQueue {
        let state = QueueState { entries: VecDeque::new(), bytes: 0, writing: 0, unreported: 0 };
        LogQueue {
            state: Mutex::new(state),
            for_writer: Condvar::new(),
            for_flush: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Appends a line, or drops the line if the queue is full. This function never waits for the writer.
    pub fn push(&self, line: String) {
        let cost = cost(&line);
        let mut state = self.lock();
        if state.bytes + cost > BYTES_MAX {
            state.unreported += 1;
            drop(state);
            self.count_dropped();
            return;
        }
        state.bytes += cost;
        let dropped_before = std::mem::take(&mut state.unreported);
        state.entries.push_back(Entry { dropped_before, line });
        drop(state);
        self.for_writer.notify_one();
    }

    /// Waits for the next log line.
    ///
    /// The call also marks the line that the previous call returned as written.
    pub fn take(&self) -> Entry {
        let mut state = self.lock();
        // The previous line counts as written even if the writer panicked.
        state.bytes -= std::mem::take(&mut state.writing);
        let is_idle = |state: &mut QueueState| state.entries.is_empty() && state.unreported == 0;
        if is_idle(&mut state) {
            self.for_flush.notify_all();
        }
        let mut state = self.for_writer.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
        let entry = state.entries.pop_front().unwrap_or_else(|| {
            state.bytes += LINE_OVERHEAD;
            Entry { dropped_before: std::mem::take(&mut state.unreported), line: String::new() }
        });
        state.writing = cost(&entry.line);
        entry
    }

    /// Counts a dropped line.
    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of lines that were dropped since the start of the process.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, for up to `time_max`.
    pub fn flush(&self, time_max: Duration) {
        let state = self.lock();
        let is_busy = |state: &mut QueueState| state.bytes > 0 || state.unreported > 0;
        drop(self.for_flush.wait_timeout_while(state, time_max, is_busy));
    }

    /// Locks the state of the queue. No function panics while the function holds this lock, so the state is always
    /// valid.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(line: &str) -> usize {
    line.len() + LINE_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills the queue with lines of the given text. Returns the number of lines that fit into the queue.
    fn fill(queue: &LogQueue, text: &str) -> usize {
        let count = BYTES_MAX / cost(text);
        (0..count).for_each(|_| queue.push(text.to_owned()));
        assert_eq!(queue.dropped(), 0);
        count
    }

    #[test]
    fn lines_are_in_order_and_dropped_lines_are_reported_in_order() {
        let queue = LogQueue::new();
        let text = "x".repeat(1000);
        let count = fill(&queue, &text);
        (0..3).for_each(|_| queue.push(text.clone()));
        assert_eq!(queue.dropped(), 3);
        // The first line counts as being written until the second line is taken. So the space of the first line is not
        // free before the second line is taken.
        assert_eq!(queue.take(), Entry { dropped_before: 0, line: text.clone() });
        queue.push(text.clone());
        assert_eq!(queue.dropped(), 4);
        assert_eq!(queue.take().dropped_before, 0);
        queue.push("after".to_owned());
        queue.push("last".to_owned());
        for _ in 2..count {
            assert_eq!(queue.take(), Entry { dropped_before: 0, line: text.clone() });
        }
        assert_eq!(queue.take(), Entry { dropped_before: 4, line: "after".to_owned() });
        assert_eq!(queue.take(), Entry { dropped_before: 0, line: "last".to_owned() });
    }

    #[test]
    fn if_no_line_follows_the_dropped_lines_an_entry_without_a_line_reports_them() {
        let queue = LogQueue::new();
        let count = fill(&queue, "x");
        queue.push("y".to_owned());
        (0..count).for_each(|_| drop(queue.take()));
        assert_eq!(queue.take(), Entry { dropped_before: 1, line: String::new() });
        queue.push("z".to_owned());
        assert_eq!(queue.take(), Entry { dropped_before: 0, line: "z".to_owned() });
    }

    #[test]
    fn a_flush_waits_for_the_current_line_up_to_its_timeout() {
        let queue = LogQueue::new();
        queue.flush(Duration::MAX);
        queue.push("x".to_owned());
        queue.flush(Duration::ZERO);
        assert_eq!(queue.take().line, "x");
        queue.flush(Duration::ZERO);
        std::thread::scope(|scope| {
            let flush = scope.spawn(|| queue.flush(Duration::from_secs(60)));
            // A line counts as written when the writer takes the next line.
            scope.spawn(|| queue.take());
            flush.join().expect("the thread ends without a panic");
            assert_eq!(queue.lock().bytes, 0);
            queue.push("end".to_owned());
        });
    }
}
