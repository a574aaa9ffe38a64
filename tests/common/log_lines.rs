//! Collects the log lines of this crate by thread. Each server runs on its own thread.

use std::sync::Mutex;
use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};

use super::{DEADLINE, TestServer};

/// If a log record contains this text, the logger blocks the calling thread for [`BLOCK_TIME`].
pub const BLOCKING_TEXT: &str = "slow-log.example";

/// The time for which [`block`] blocks a thread. It is over 100 ms, so the server logs a warning about a slow handler.
pub const BLOCK_TIME: Duration = Duration::from_millis(150);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

struct Lines(Mutex<Vec<(ThreadId, String)>>);

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("fdpush")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        if text.contains(BLOCKING_TEXT) {
            block();
        }
        let line = format!("{} {text}", record.level());
        self.0.lock().expect("no thread panicked while it held the lock").push((thread::current().id(), line));
    }

    fn flush(&self) {}
}

/// Blocks the calling thread for [`BLOCK_TIME`].
pub fn block() {
    let (_sender, receiver) = mpsc::channel::<()>();
    assert!(receiver.recv_timeout(BLOCK_TIME).is_err());
}

/// Starts to collect the log lines of all servers in this process.
pub fn keep_log_lines() {
    // Only the first call in a process sets the logger. Each later call returns an error, which is ignored.
    let _ = log::set_logger(&LINES);
    log::set_max_level(LevelFilter::Debug);
}

impl TestServer {
    /// Returns the lines of this server that contain all these words. A line starts with its level.
    pub fn log_lines(&self, words: &[&str]) -> Vec<String> {
        let lines = LINES.0.lock().expect("no thread panicked while it held the lock");
        let is_wanted = |line: &str| words.iter().all(|word| line.contains(word));
        let wanted = lines.iter().filter(|(thread, line)| *thread == self.thread && is_wanted(line));
        wanted.map(|(_, line)| line.clone()).collect()
    }

    /// Waits for a line of this server that starts with `start` and contains `words`. `start` begins with the level.
    pub fn wait_for_log_line(&self, start: &str, words: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(line) = self.log_lines(&[words]).into_iter().find(|line| line.starts_with(start)) {
                return line;
            }
            assert!(Instant::now() < deadline, "expected a log line that starts with {start:?} before the deadline");
            thread::yield_now();
        }
    }
}
