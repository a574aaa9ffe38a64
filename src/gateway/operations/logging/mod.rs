//! The log of `fdpush serve`. The log goes to standard error, and a blocked standard error does not block the server.
//!
//! A thread that logs formats a line and puts the line into a bounded queue. The thread `fdpush-log` writes the lines
//! of the queue to standard error. Only `fdpush-log` waits for standard error. So a full disk, a closed pipe or a pipe
//! without a reader does not affect the loop. A line that does not fit into the queue, or that cannot be written, is
//! dropped and counted. Before the next line, `fdpush-log` writes the number of dropped lines.
//!
//! simple_logger filters the records by level and module. The output of simple_logger is not used. simple_logger writes
//! with `eprintln!`, which panics if standard error fails, and blocks if standard error is a full pipe. The module
//! `line` formats lines as simple_logger does.
//!
//! `print_error` and `print` write output that is not a log line. `print_error` replaces `eprintln!`, and `print`
//! replaces `println!`, because both macros can panic.

mod line;
mod queue;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, ErrorKind, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};
use signal_hook::consts::SIGXFSZ;
use simple_logger::SimpleLogger;

use self::queue::LogQueue;
use crate::gateway::runtime::log_throttle::{LogThrottle, Suppressed};
use crate::gateway::runtime::{clock, threads};

/// The maximum time for which the process waits at its end until the last log lines are written.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// The crates of which only warnings and errors are logged. The info, debug and trace lines of these crates can contain
/// requests of clients, with cookies.
const WARN_ONLY: [&str; 3] = ["ureq", "ureq_proto", RUSTLS];

/// The log target of the TLS library. rustls logs a warning for each fault of a client, such as a refused
/// renegotiation. A client can repeat such a fault many times a second.
const RUSTLS: &str = "rustls";

/// The minimum interval between two warnings of [`RUSTLS`].
const RUSTLS_PERIOD: Duration = Duration::from_secs(1);

/// The log target of panic messages.
const PANIC: &str = "fdpush::panic";

static QUEUE: LogQueue = LogQueue::new();

/// Whether the thread `fdpush-log` was started.
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

struct Logger {
    filter: SimpleLogger,
    rustls: LogThrottle,
}

/// A guard that flushes the log when the guard is dropped, even by a panic.
pub struct Flush;

/// Starts the thread `fdpush-log`, and installs the logger and the panic hook.
///
/// # Errors
///
/// Returns an error if the system cannot start a thread.
pub fn install() -> io::Result<()> {
    // By default, SIGXFSZ ends a process that writes beyond `RLIMIT_FSIZE`. With a handler for SIGXFSZ, only the write
    // fails.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut writer = writer::Writer::new();
    threads::spawn("fdpush-log", move || writer.run(&QUEUE))?;
    IS_INSTALLED.store(true, Ordering::Release);
    panic::set_hook(Box::new(log_panic));
    let filter = SimpleLogger::new().with_level(LevelFilter::Trace);
    let filter =
        WARN_ONLY.into_iter().fold(filter, |filter, target| filter.with_module_level(target, LevelFilter::Warn));
    log::set_boxed_logger(Box::new(Logger::new(filter))).map_err(io::Error::other)
}

/// Returns the number of log lines that were dropped since the start of the process.
pub fn dropped() -> u64 {
    QUEUE.dropped()
}

/// Prints lines to standard error, after the log lines that wait in the queue. Write errors are ignored.
pub fn print_error(text: &str) {
    if IS_INSTALLED.load(Ordering::Acquire) {
        text.lines().for_each(|text| QUEUE.push(line::plain(text)));
    } else {
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// Prints text to standard output.
///
/// The result is `Ok` if the reader of standard output, such as `head`, closes the pipe early.
///
/// # Errors
///
/// Returns an error if standard output cannot be written, for example because the disk is full.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        QUEUE.flush(FLUSH_TIME_MAX);
    }
}

impl Logger {
    fn new(filter: SimpleLogger) -> Logger {
        Logger { filter, rustls: LogThrottle::new(RUSTLS_PERIOD) }
    }

    /// Returns the number of suppressed earlier records, or `None` if the new record is suppressed.
    fn admit(&self, metadata: &Metadata<'_>, now: impl FnOnce() -> Instant) -> Option<Suppressed> {
        let rest = metadata.target().strip_prefix(RUSTLS).filter(|rest| rest.is_empty() || rest.starts_with("::"));
        match rest {
            Some(_) if metadata.level() == Level::Warn => self.rustls.admit(now()),
            _ => Some(Suppressed::NONE),
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let metadata = record.metadata();
        if self.enabled(metadata)
            && let Some(suppressed) = self.admit(metadata, clock::now)
        {
            let text = format_args!("{}{suppressed}", record.args());
            QUEUE.push(line::format(SystemTime::now(), record.level(), record.target(), text));
        }
    }

    fn flush(&self) {
        QUEUE.flush(FLUSH_TIME_MAX);
    }
}

/// Logs a panic. This function is the panic hook. A panic is logged even with the log level `off`, because a panic is a
/// fault of the server.
fn log_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a value that is not text");
    let error = |text: std::fmt::Arguments<'_>| {
        QUEUE.push(line::format(SystemTime::now(), Level::Error, PANIC, text));
    };
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    match info.location() {
        Some(location) => error(format_args!("thread {name} panicked at {location}: {message:?}")),
        None => error(format_args!("thread {name} panicked: {message:?}")),
    }
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        backtrace.to_string().lines().for_each(|line| error(format_args!("{line}")));
    }
    // After a panic with one of these messages, the standard library aborts the process. So the queued log lines are
    // written now.
    if message.starts_with("panic in a destructor during cleanup")
        || message.starts_with("panic in a function that cannot")
    {
        QUEUE.flush(FLUSH_TIME_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "FDPUSH_TEST_LOG_CHILD";

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }

    /// This test is the child process of the other tests in this module. The parent process reads the standard error of
    /// the child process.
    #[test]
    fn child() {
        let Ok(what) = std::env::var(CHILD) else { return };
        let _flush = Flush;
        install().expect("no other logger is installed");
        log::set_max_level(LevelFilter::Info);
        match &*what {
            "log" => {
                log::info!("one\ntwo");
                log::debug!("three");
                log::info!(target: "rustls::client", "a cookie");
                log::warn!(target: "rustls::client", "an alert");
                print_error("fdpush: four\nfive\u{1b}\n");
            }
            "panic" => {
                log::set_max_level(LevelFilter::Off);
                let thread = thread::Builder::new().name("a".to_owned()).spawn(|| panic!("six\nseven\u{202e}"));
                assert!(thread.expect("the thread can start").join().is_err());
            }
            _ => {
                let _panics = PanicsWhenDropped;
                panic!("eight");
            }
        }
    }

    /// Runs the child process. Returns the lines of the child's standard error, and whether the child exits with 0.
    fn run_child(what: &str) -> (Vec<String>, bool) {
        let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
        command.args(["--exact", "gateway::operations::logging::tests::child", "--nocapture", "--test-threads=1"]);
        let output = command.env(CHILD, what).env("RUST_BACKTRACE", "0").output().expect("the test binary can run");
        let text = String::from_utf8(output.stderr).expect("the text is UTF-8");
        (text.lines().map(str::to_owned).collect(), output.status.success())
    }

    /// Checks the time at the start of a log line, and returns the line without this time.
    fn without_time(line: &str) -> &str {
        let (time, rest) = line.split_once(' ').expect("the line has a time");
        assert!(time.len() == 24 && humantime::parse_rfc3339(time).is_ok(), "{line}");
        rest
    }

    #[test]
    fn each_record_is_one_line_and_the_last_records_are_written_before_the_exit() {
        let (lines, is_well) = run_child("log");
        assert!(is_well && lines.len() == 4, "{lines:?}");
        assert_eq!(without_time(&lines[0]), r"INFO  [fdpush::gateway::operations::logging::tests] one\ntwo");
        assert_eq!(without_time(&lines[1]), "WARN  [rustls::client] an alert");
        assert_eq!(lines[2..], ["fdpush: four", r"five\u{1b}"]);
    }

    #[test]
    fn warnings_of_rustls_are_written_once_a_second() {
        let logger = Logger::new(SimpleLogger::new());
        let start = clock::now();
        let suppressed = |target: &str, level: Level, ms: u64| {
            let metadata = Metadata::builder().target(target).level(level).build();
            logger.admit(&metadata, || start + Duration::from_millis(ms)).map(|suppressed| suppressed.to_string())
        };
        let none = Some(String::new());
        assert_eq!(suppressed("rustls::common_state", Level::Warn, 0), none);
        assert_eq!(suppressed("rustls", Level::Warn, 1), None);
        assert_eq!(suppressed("rustls::msgs", Level::Warn, 999), None);
        // Errors of rustls, and warnings of other crates, are not suppressed.
        for (target, level) in
            [("rustls::conn", Level::Error), ("rustlsx", Level::Warn), ("fdpush::server", Level::Warn)]
        {
            assert_eq!([1, 2].map(|ms| suppressed(target, level, ms)), [none.clone(), none.clone()], "{target}");
        }
        let next = suppressed("rustls::check", Level::Warn, 1000);
        assert_eq!(next.as_deref(), Some(" (2 more since the last line)"));
    }

    #[test]
    fn a_panic_is_logged_as_one_line_at_every_log_level() {
        let (lines, is_well) = run_child("panic");
        assert!(is_well && lines.len() == 1, "{lines:?}");
        let line = without_time(&lines[0]);
        assert!(
            line.starts_with("ERROR [fdpush::panic] thread a panicked at src/gateway/operations/logging/mod.rs:"),
            "{line}"
        );
        assert!(line.ends_with(r#": "six\nseven\u{202e}""#), "{line}");
    }

    #[test]
    fn a_panic_that_aborts_the_process_is_logged() {
        let (lines, is_well) = run_child("abort");
        assert!(!is_well);
        for text in [r#": "eight""#, r#": "in a destructor""#, r#": "panic in a destructor during cleanup""#] {
            assert!(lines.iter().any(|line| line.ends_with(text)), "expected {text} in {lines:?}");
        }
    }
}
