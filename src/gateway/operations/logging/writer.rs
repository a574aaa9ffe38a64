//! The thread that writes log lines to standard error.
//!
//! Only this thread blocks when standard error is a full pipe or a stopped terminal. The thread writes with system
//! calls, because `std::io::Stderr` holds its lock while a write blocks.

use std::io;
use std::time::SystemTime;

use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::line;
use super::queue::{Entry, LogQueue};

/// The log target of the lines about dropped log lines.
const LOG: &str = "fdpush::log";

/// The state of the writer between two lines.
pub struct Writer {
    output: Output,
    /// The number of dropped lines that no written line has reported yet.
    unreported: u64,
}

/// The destination of the log lines.
struct Output {
    /// Whether the last written byte is inside a line, because a write failed.
    is_mid_line: bool,
}

impl Writer {
    pub fn new() -> Writer {
        Writer { output: Output { is_mid_line: false }, unreported: 0 }
    }

    /// Writes log lines until the process ends.
    pub fn run(&mut self, queue: &LogQueue) -> io::Result<()> {
        loop {
            self.write(queue, &queue.take());
        }
    }

    /// Writes a line. If lines were dropped before this line, first writes the number of dropped lines.
    fn write(&mut self, queue: &LogQueue, entry: &Entry) {
        self.unreported += entry.dropped_before;
        if self.unreported > 0 {
            let notice = format_args!("log lines dropped since the last line: {}", self.unreported);
            let notice = line::format(SystemTime::now(), Level::Warn, LOG, notice);
            if self.output.write(notice.as_bytes()).is_ok() {
                self.unreported = 0;
            }
        }
        if !entry.line.is_empty() && self.output.write(entry.line.as_bytes()).is_err() {
            self.unreported += 1;
            queue.count_dropped();
        }
    }
}

impl Output {
    /// Writes a complete line. If an earlier write failed in the middle of a line, first ends the unfinished line.
    fn write(&mut self, line: &[u8]) -> rustix::io::Result<()> {
        if self.is_mid_line {
            self.write_all(b"\n")?;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> rustix::io::Result<()> {
        let stderr = io::stderr();
        while !bytes.is_empty() {
            match rustix::io::write(&stderr, bytes) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    let (written, rest) = bytes.split_at(count.min(bytes.len()));
                    self.is_mid_line = !written.ends_with(b"\n");
                    bytes = rest;
                }
                Err(Errno::INTR) => {}
                // This error occurs if another process that shares the pipe or terminal has made the pipe or terminal
                // non-blocking.
                Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
