//! Tests that the server continues if its log cannot be written, and that untrusted text stays in one short log line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::backend::{Answer, Backend};
use crate::common::command::{command, command_in_shell};
use crate::common::gateway::{Gateway, next, until};
use crate::common::{ChildProcess, Client, Scratch, refusal};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Resource, getrlimit, prlimit};

const FOREIGN: (&str, &str) = ("Origin", "http://foreign.example");

/// A running server whose standard error is the descriptor that the test passes. When this value is dropped, the
/// process is killed.
struct Served {
    child: ChildProcess,
    address: SocketAddr,
    api: PathBuf,
    config: PathBuf,
    _scratch: Scratch,
}

impl Served {
    fn start(stderr: impl Into<Stdio>, flags: &[&str]) -> Served {
        let scratch = Scratch::new("log");
        let (api, config) = (scratch.file("api.sock"), scratch.file("fdpush.toml"));
        fs::write(&config, "").expect("the file can be written");
        let (api_flag, config_flag) = (unix(&api), config.display().to_string());
        let line = ["serve", "--log", "debug", "--listen", "127.0.0.1:0", "--api", &api_flag, "--config", &config_flag];
        let mut child = ChildProcess::spawn(command(&[&line, flags].concat(), &[]).stderr(stderr));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("the output is a pipe"))
            .read_line(&mut line)
            .expect("the line can be read");
        let address = line.trim().rsplit_once("http://").expect("the line has an address").1;
        let address = address.trim_end_matches('/').parse().expect("the address is valid");
        Served { child, address, api, config, _scratch: scratch }
    }

    /// Connects a client and reads its welcome frame.
    fn connect(&self, target: &str) -> Client {
        let mut client = Client::connect(self.address, target, &[]).expect("the server accepts the WebSocket");
        assert_eq!(next(&mut client)["type"], "welcome");
        client
    }

    /// Sends a GET to the API. Returns the head and the body of the response.
    fn get(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(&self.api).expect("the API listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("the request can be written");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("the reply can be read");
        reply
    }

    fn dropped(&self) -> u64 {
        let page = self.get("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix("fdpush_log_lines_dropped_total "));
        value.expect("the metrics contain the counter").parse().expect("the value is a number")
    }

    fn signal(&self, signal: &str) {
        self.child.signal(signal);
    }

    /// Checks that the server serves clients, health checks, webhooks and a reload. This causes at least five log
    /// lines.
    fn check_serving(&mut self, backend: &Backend) {
        let mut ann = self.connect("/?uid=ann");
        // The back end refused the first request, so the webhook worker logged an error and repeated the request.
        assert_eq!(backend.requests.next().body.split_once("sent_ms").map(|(head, _)| head.is_empty()), Some(false));
        assert!(backend.requests.next().body.contains(r#""uid":"ann""#));
        assert_eq!(refusal(Client::connect(self.address, "/?uid=bob", &[FOREIGN])).0, 403);
        assert!(self.get("/healthz").starts_with("HTTP/1.1 200 "));
        assert!(self.get("/readyz").starts_with("HTTP/1.1 200 "));
        let settings = format!("origin = [\"{}\"]\nclient_may = [\"nothing\"]\n", FOREIGN.1);
        fs::write(&self.config, settings).expect("the file can be written");
        self.signal("-HUP");
        // The frames of this loop cause no log lines. So a slow reload does not fill the queue of the log.
        until("the server has reloaded its settings", || {
            ann.send(r#"{"type":"push","to":"bob","data":1,"id":0}"#);
            next(&mut ann)["code"] == "not_allowed"
        });
        assert!(Client::connect(self.address, "/?uid=bob", &[FOREIGN]).is_ok());
        assert!(backend.requests.next().body.contains(r#""uid":"bob""#));
        ann.send(r#"{"type":"heartbeat","id":1}"#);
        assert_eq!(next(&mut ann)["id"], 1);
    }

    /// Checks that SIGTERM drains the server and that it exits with 0.
    fn check_drain(mut self) {
        let mut ann = self.connect("/?uid=ann");
        self.signal("-TERM");
        assert_eq!(ann.closed().0, 1001);
        let end = self.child.exit_status();
        assert!(end.success(), "{end}");
    }
}

/// Returns the address of a unix socket for `--listen` and `--api`.
fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn run(command: &mut Command) -> ExitStatus {
    command.status().expect("the binary can run")
}

/// Starts a back end that refuses the first request and accepts the others.
fn backend() -> Backend {
    let count = AtomicUsize::new(0);
    Backend::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::Status(500, String::new()),
        _ => Answer::Status(200, String::new()),
    })
}

fn webhook(backend: &Backend) -> [String; 4] {
    ["--webhook".to_owned(), backend.url(), "--webhook-events".to_owned(), "open".to_owned()]
}

/// Returns a pipe whose reader is closed.
fn closed_pipe() -> PipeWriter {
    pipe().expect("the pipe can be created").1
}

/// Returns a full pipe.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().expect("the pipe can be created");
    let flags = fcntl_getfl(&writer).expect("the flags can be read");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("the flags can be set");
    for chunk in [&[b'-'; 4096][..], b"-"] {
        let end = std::iter::repeat_with(|| writer.write(chunk)).find_map(Result::err).expect("the pipe becomes full");
        assert_eq!(end.kind(), ErrorKind::WouldBlock);
    }
    fcntl_setfl(&writer, flags).expect("the flags can be set");
    (reader, writer)
}

fn dev_full() -> File {
    File::options().write(true).open("/dev/full").expect("/dev/full exists")
}

#[test]
fn an_unwritable_log_does_not_stop_the_server() {
    for stderr in [Stdio::from(closed_pipe()), Stdio::from(dev_full())] {
        let backend = backend();
        let mut served = Served::start(stderr, &webhook(&backend).each_ref().map(String::as_str));
        served.check_serving(&backend);
        until("dropped log lines are counted", || served.dropped() >= 5);
        served.check_drain();
    }
}

#[test]
fn a_closed_log_reader_does_not_stop_the_server() {
    let backend = backend();
    let (reader, writer) = pipe().expect("the pipe can be created");
    let mut served = Served::start(writer, &webhook(&backend).each_ref().map(String::as_str));
    // The pipe is closed after two lines, as in `fdpush serve 2>&1 | head -n 2`.
    assert_eq!(BufReader::new(reader).lines().take(2).map_while(Result::ok).count(), 2);
    served.check_serving(&backend);
    until("dropped log lines are counted", || served.dropped() > 0);
    served.check_drain();
}

#[test]
fn an_unread_log_pipe_does_not_stop_the_server_and_lost_lines_are_reported() {
    for is_nonblocking in [false, true] {
        let backend = backend();
        let (reader, writer) = full_pipe();
        if is_nonblocking {
            // The test makes the pipe non-blocking, as a parent process can do.
            let flags = fcntl_getfl(&writer).expect("the flags can be read");
            fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("the flags can be set");
        }
        let mut served = Served::start(writer, &webhook(&backend).each_ref().map(String::as_str));
        served.check_serving(&backend);
        assert_eq!(served.dropped(), 0, "no line may be dropped while the queue of the log has room");
        // With this long uid, the log has two lines of about 700 bytes for each client.
        let long = format!("/?uid={}", "%01".repeat(128));
        until("the queue of the log is full", || {
            (0..100).for_each(|_| drop(served.connect(&long)));
            served.dropped() > 100
        });
        served.check_still_serving();

        let (tx, lines) = crate::common::channel();
        std::thread::spawn(move || {
            BufReader::new(reader).lines().map_while(Result::ok).for_each(|line| drop(tx.send(line)));
        });
        let mut in_log = 0;
        until("the log reports the number of all missing lines", || {
            in_log += lines.so_far().iter().filter_map(|line| dropped_before(line)).sum::<u64>();
            in_log == served.dropped()
        });
        served.signal("-TERM");
        until("the log has its last line", || lines.so_far().iter().any(|line| line.ends_with(" drained")));
        assert!(served.child.exit_status().success());
    }
}

/// Returns the number of dropped lines that a line of the log reports.
fn dropped_before(line: &str) -> Option<u64> {
    let (_, count) = line.split_once("log lines dropped since the last line: ")?;
    Some(count.parse().expect("the value is a number"))
}

impl Served {
    /// Checks that the server serves a client and a health check.
    fn check_still_serving(&self) {
        let mut cat = self.connect("/?uid=cat");
        cat.send(r#"{"type":"heartbeat","id":2}"#);
        assert_eq!(next(&mut cat)["id"], 2);
        assert!(self.get("/healthz").starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_log_file_at_its_size_limit_does_not_stop_the_server_and_is_continued() {
    let scratch = Scratch::new("limit");
    let (path, socket, api) = (scratch.file("log"), scratch.file("push.sock"), scratch.file("api.sock"));
    let log = File::options().append(true).create(true).open(&path).expect("the log can be created");
    let line = ["serve", "--log", "debug", "--listen", &unix(&socket), "--api", &unix(&api)];
    let mut shell = command_in_shell(r#"ulimit -S -f 8; exec "$0" "$@""#, &line, &[]);
    let child = ChildProcess::spawn(shell.stdout(Stdio::null()).stderr(log));
    until("the server listens", || UnixStream::connect(&api).is_ok());
    let address = SocketAddr::from(([0; 4], 0));
    let served = Served { child, address, api, config: path.clone(), _scratch: scratch };
    let come_and_go = || drop(Client::connect_unix(&socket, "/?uid=ann").expect("the server accepts the WebSocket"));
    until("the log file has reached its size limit", || {
        come_and_go();
        served.dropped() > 0
    });
    // The test raises the size limit, so that the file has room for more lines.
    let pid = Pid::from_raw(served.child.id() as i32).expect("the process is running");
    prlimit(Some(pid), Resource::Fsize, getrlimit(Resource::Fsize)).expect("the limit can be raised");
    let mut text = String::new();
    until("the log reports the number of all missing lines", || {
        come_and_go();
        text = fs::read_to_string(&path).expect("the log can be opened");
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        text.lines().filter_map(dropped_before).sum::<u64>() == served.dropped()
    });
    // A notice is a line about dropped lines. The file reached its size limit in the line before the first notice, so
    // this line may be cut.
    let lines: Vec<&str> = text.lines().collect();
    let notice = lines.iter().position(|line| dropped_before(line).is_some()).expect("the log has a notice");
    for line in lines[..notice - 1].iter().chain(&lines[notice..]) {
        assert!(line.get(24..).is_some_and(|rest| rest.contains("[fdpush::")), "{line}");
    }
    served.signal("-TERM");
    let mut served = served;
    assert!(served.child.exit_status().success());
}

#[test]
fn a_full_log_pipe_at_shutdown_does_not_change_the_exit_code() {
    let (_reader, writer) = full_pipe();
    Served::start(writer.try_clone().expect("the descriptor can be duplicated"), &[]).check_drain();
    let flags = ["serve", "--listen", "unix:/dev/null", "--api", "off"];
    assert_eq!(run(command(&flags, &[]).stderr(writer)).code(), Some(1));
}

/// Opens a WebSocket over the unix socket of `child` and sends SIGTERM. Checks that the client gets 1001 and that the
/// exit code is 0.
fn check_serving_and_drain(path: &Path, mut child: ChildProcess) {
    until("the server listens", || UnixStream::connect(path).is_ok());
    let mut client = Client::connect_unix(path, "/?uid=ann").expect("the server accepts the WebSocket");
    assert_eq!(next(&mut client)["type"], "welcome");
    child.signal("-TERM");
    assert_eq!(client.closed().0, 1001);
    assert!(child.exit_status().success());
}

#[test]
fn a_full_stdout_pipe_does_not_stop_the_start() {
    let scratch = Scratch::new("stdout");
    let path = scratch.file("push.sock");
    let (_reader, writer) = full_pipe();
    let mut command = command(&["serve", "--listen", &unix(&path), "--api", "off"], &[]);
    let child = ChildProcess::spawn(
        command.stdout(writer.try_clone().expect("the descriptor can be duplicated")).stderr(writer),
    );
    check_serving_and_drain(&path, child);
}

#[test]
fn closed_standard_descriptors_do_not_become_sockets() {
    // If a socket got the number of a closed standard descriptor, the log or the addresses would be written to this
    // socket.
    let scratch = Scratch::new("closed");
    let path = scratch.file("push.sock");
    let line = ["serve", "--log", "debug", "--listen", &unix(&path), "--api", "off"];
    let child = ChildProcess::spawn(&mut command_in_shell(r#"exec "$0" "$@" <&- >&- 2>&-"#, &line, &[]));
    check_serving_and_drain(&path, child);
}

#[test]
fn commands_with_closed_or_full_output_do_not_panic() {
    let secret = format!("--jwt-secret={}", "x".repeat(32));
    for (args, to_full) in [
        (&["config"][..], 1),
        (&["check"], 1),
        (&["token", "--uid", "ann", &secret], 1),
        (&["--help"], 0),
        (&["serve", "--listen", "nowhere"], 2),
        (&["config", "--config", "/nonexistent"], 1),
        (&["serve", "--listen", "unix:/dev/null", "--api", "off"], 1),
    ] {
        let to_closed = if to_full == 1 && !args.contains(&"--config") && args[0] != "serve" { 0 } else { to_full };
        let status = run(command(args, &[]).stdout(closed_pipe()).stderr(closed_pipe()));
        assert_eq!(
            status.code(),
            Some(to_closed),
            "{args:?} must exit with {to_closed} if its output is a closed pipe: {status}"
        );
        let status = run(command(args, &[]).stdout(dev_full()).stderr(dev_full()));
        assert_eq!(
            status.code(),
            Some(to_full),
            "{args:?} must exit with {to_full} if its output is a full disk: {status}"
        );
    }
}

#[test]
fn a_log_record_with_untrusted_text_is_one_line() {
    let scratch = Scratch::new("forged");
    let path = scratch.file("api.gram");
    let flag = format!("unixgram:{}", path.display());
    let gateway = Gateway::spawn(&["--log", "debug", "--api", &flag]);
    let sender = UnixDatagram::unbound().expect("the socket can be created");
    let forged = "\n2026-01-01T00:00:00.000Z ERROR [fdpush] FORGED";
    for (name, escaped) in [
        (forged, r"\n2026-01-01T00:00:00.000Z ERROR [fdpush] FORGED"),
        ("\r\u{1b}[2K", r"\r\u{1b}[2K"),
        ("\u{85}\u{9b}\u{7f}", r"\u{85}\u{9b}\u{7f}"),
        ("\u{2028}\u{202e}\u{2066}", r"\u{2028}\u{202e}\u{2066}"),
    ] {
        let datagram = serde_json::json!({ name: 1 }).to_string();
        sender.send_to(datagram.as_bytes(), &path).expect("the datagram can be sent");
        let line = gateway.logged("datagram refused");
        // A quoted name can be inside a quoted message, which doubles the backslashes.
        assert!(line.replace(r"\\", r"\").contains(escaped), "{line}");
    }
    let target = format!("/?uid={}", percent_encoding::utf8_percent_encode(forged, percent_encoding::NON_ALPHANUMERIC));
    let (_client, fd) = gateway.open(&target, &[]);
    let line = gateway.logged(&format!("fd {fd} opened"));
    assert!(line.contains(r"\n2026"), "{line}");
}

#[test]
fn a_long_untrusted_text_is_truncated() {
    let scratch = Scratch::new("long");
    let config = scratch.file("fdpush.toml");
    fs::write(&config, "").expect("the file can be written");
    let gateway = Gateway::start(&["--config", &config.display().to_string()]);
    fs::write(&config, format!("origin = [\"{}\"]\n", "x".repeat(1 << 19))).expect("the file can be written");
    gateway.signal("-HUP");
    let line = gateway.logged("settings not reloaded");
    assert!(line.len() < 4096 && line.ends_with(" [cut]"), "{} bytes", line.len());
}
