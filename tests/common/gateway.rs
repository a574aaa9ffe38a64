//! Runs `fdpush serve` as a child process. Reads the addresses of the server from its output.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::sync::LazyLock;
use std::thread;
use std::time::Instant;

use serde_json::Value;
use tungstenite::Message;

use super::command::{command, command_in_shell};
use super::raw::{HttpResponse, UPGRADE};
use super::{ChildProcess, Client, DEADLINE, Raw, TestReceiver, channel};

/// The header of a request with a JSON body.
pub const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A secret that is long enough to sign tokens.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Environment variables with time limits so long that a client or back end on a busy machine does not exceed them. A
/// flag overrides the variable of the same setting.
const LONG_TIMES: [(&str, &str); 7] = [
    ("FDPUSH_PING_EVERY", "1h"),
    ("FDPUSH_HEAD_TIME_MAX", "1h"),
    ("FDPUSH_BODY_TIME_MAX", "1h"),
    ("FDPUSH_ANSWER_TIME_MAX", "1h"),
    ("FDPUSH_KEEP_ALIVE_MAX", "1h"),
    ("FDPUSH_MESSAGE_TIME_MAX", "1h"),
    ("FDPUSH_WRITE_TIME_MAX", "1h"),
];

/// A running `fdpush serve`. When the value is dropped, the process is killed.
pub struct Gateway {
    child: ChildProcess,
    /// The address for clients.
    pub address: SocketAddr,
    /// More addresses for clients, in the order of the `--listen` flags.
    pub others: Vec<String>,
    /// The address of the API.
    pub api: SocketAddr,
    /// The addresses for datagrams, in the form in which the log has them, such as `udp:127.0.0.1:9503`.
    pub datagrams: Vec<String>,
    log: TestReceiver<String>,
}

impl Gateway {
    /// Starts a server with these flags, which must not contain `--log`.
    pub fn start(flags: &[&str]) -> Gateway {
        Gateway::spawn(&[&["--log", "info"], flags].concat())
    }

    /// Works like [`start`](Gateway::start), for flags that set the log level. The log level must be `info` or more
    /// verbose.
    pub fn spawn(flags: &[&str]) -> Gateway {
        Gateway::spawn_as(&mut command(&line_of(flags), &long_times(flags)), flags)
    }

    /// Works like [`start`](Gateway::start), with a limit on open descriptors.
    pub fn start_with_descriptors(max: u32, flags: &[&str]) -> Gateway {
        let flags = [&["--log", "info"], flags].concat();
        let script = format!("ulimit -n {max}; exec \"$0\" \"$@\"");
        Gateway::spawn_as(&mut command_in_shell(&script, &line_of(&flags), &long_times(&flags)), &flags)
    }

    fn spawn_as(command: &mut Command, flags: &[&str]) -> Gateway {
        let mut child = ChildProcess::spawn(command);
        let stdout = child.stdout.take().expect("the output is a pipe");
        let (tx, log) = channel();
        let lines = BufReader::new(child.stderr.take().expect("the output is a pipe")).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // If the test has ended, the send fails. This thread must still read the pipe, so that the server can
                // log.
                let _ = tx.send(line);
            }
        });
        let mut stdout = BufReader::new(stdout).lines();
        let mut announced =
            || address_in_line(&stdout.next().expect("the output has another line").expect("the text is UTF-8"));
        let address = announced().parse().expect("the address is valid");
        let others = flags.iter().filter(|flag| **flag == "--listen").map(|_| announced()).collect();
        let api = last_word(&next_with(&log, "the API is on ")).parse().expect("the address is valid");
        let is_datagram = |flag: &&&str| flag.starts_with("udp:") || flag.starts_with("unixgram:");
        let wanted = flags.iter().filter(is_datagram).count();
        let datagrams = (0..wanted).map(|_| last_word(&next_with(&log, "takes datagrams on "))).collect();
        Gateway { child, address, others, api, datagrams, log }
    }

    /// Connects a client and reads its welcome frame.
    pub fn connect(&self, target: &str) -> Client {
        self.open(target, &[]).0
    }

    /// Connects a client, reads its welcome frame and returns its fd.
    pub fn open(&self, target: &str, headers: &[(&str, &str)]) -> (Client, u64) {
        let mut client = Client::connect(self.address, target, headers).expect("the server accepts the WebSocket");
        let welcome = next(&mut client);
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (client, welcome["fd"].as_u64().expect("the fd is valid"))
    }

    /// Posts a JSON body to the API. Returns the status and the JSON response.
    pub fn post(&self, path: &str, body: impl ToString) -> (u16, Value) {
        let reply = self.call("POST", path, &[JSON], &body.to_string());
        (reply.status, json_of(&reply))
    }

    /// Posts a JSON body to the API, which must succeed. Returns the JSON response.
    pub fn done(&self, path: &str, body: impl ToString) -> Value {
        let body = body.to_string();
        let (status, answer) = self.post(path, &body);
        assert_eq!(status, 200, "POST {path} with {body} must succeed, but the answer is {answer}");
        answer
    }

    /// Returns the JSON at a path of the API. The path must exist.
    pub fn get(&self, path: &str) -> Value {
        let reply = self.call("GET", path, &[], "");
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        json_of(&reply)
    }

    /// Sends one API request on a new connection.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> HttpResponse {
        let mut raw = Raw::connect(self.api);
        raw.send(request(method, path, headers, body));
        raw.reply()
    }

    /// Returns the value of a sample of `/metrics`.
    ///
    /// A counter of API requests has no sample before the first such request. If the sample of such a counter is
    /// missing, this method returns 0.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.call("GET", "/metrics", &[], "").body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        match value {
            Some(value) => value.parse().unwrap_or_else(|_| panic!("expected a number, got {value:?}")),
            None if name.starts_with("fdpush_api_requests_total{") => 0.0,
            None => panic!("/metrics must have the sample {name}"),
        }
    }

    /// Waits for the next log line that contains these words.
    pub fn logged(&self, words: &str) -> String {
        next_with(&self.log, words)
    }

    /// Returns the next log lines, up to the first line that contains these words.
    pub fn logged_up_to(&self, words: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(words)) {
            lines.push(self.log.next());
        }
        lines
    }

    /// Sends a signal, for example `-TERM`.
    pub fn signal(&self, signal: &str) {
        self.child.signal(signal);
    }

    /// Calls `call` while SIGSTOP has stopped the process. If clients send bytes in this time, the server handles them
    /// when the process runs again.
    pub fn while_stopped(&self, call: impl FnOnce()) {
        self.signal("-STOP");
        until("the process is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process exists");
            stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'))
        });
        call();
        self.signal("-CONT");
    }

    /// Returns the largest resident memory that the process ever had, in bytes.
    pub fn peak_bytes(&self) -> usize {
        self.status_bytes("VmHWM:")
    }

    /// Returns the resident memory of the process.
    pub fn resident_bytes(&self) -> usize {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, field: &str) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process is running");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the status has the field");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("the value is a number") << 10
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.exit_status()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The process ends before the loop below prints its log lines. The loop does not wait for lines that the
        // reading thread has not sent yet.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            for line in self.log.so_far() {
                eprintln!("{line}");
            }
        }
    }
}

/// Returns the command line of a server on free ports, with these flags.
///
/// If the environment has `FDPUSH_TEST_LOOPS`, the server has this number of loops, unless the flags set it.
fn line_of<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    let loops = test_loops().filter(|_| !flags.contains(&"--loops"));
    let loops = loops.map_or(Vec::new(), |loops| vec!["--loops", loops]);
    [&["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"], &loops[..], flags].concat()
}

/// Returns the value of `FDPUSH_TEST_LOOPS`.
fn test_loops() -> Option<&'static str> {
    static LOOPS: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("FDPUSH_TEST_LOOPS").ok());
    LOOPS.as_deref()
}

/// Returns the number of loops of a server whose flags do not set it.
pub fn loop_count() -> usize {
    test_loops().map_or(1, |loops| loops.parse().expect("FDPUSH_TEST_LOOPS is a number"))
}

/// Returns the environment of a server with these flags. With a settings file, the environment is empty, because a
/// variable overrides the file.
fn long_times(flags: &[&str]) -> Vec<(&'static str, &'static str)> {
    if flags.contains(&"--config") {
        return Vec::new();
    }
    let mut times = LONG_TIMES.to_vec();
    // Without a back end, the server refuses these two settings, or logs a warning about them.
    if flags.iter().any(|flag| flag.starts_with("--auth-url")) {
        times.push(("FDPUSH_AUTH_TIMEOUT", "60s"));
    }
    if flags.contains(&"--webhook") {
        times.push(("FDPUSH_WEBHOOK_TIMEOUT", "60s"));
    }
    times
}

/// Returns a complete request. `Host` is `localhost` unless `headers` contains it.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    format!("{head}\r\n{body}")
}

/// Returns the next frame.
pub fn next(client: &mut Client) -> Value {
    let text = client.text();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the next frame of this type, and skips frames of other types.
pub fn next_of(client: &mut Client, kind: &str) -> Value {
    loop {
        let frame = next(client);
        if frame["type"] == kind {
            return frame;
        }
    }
}

/// Returns the code and the reason of the close frame. Skips the frames before the close frame.
pub fn closed(client: &mut Client) -> (u16, String) {
    loop {
        if let Message::Close(frame) = client.next() {
            let frame = frame.expect("the close frame has a code");
            return (frame.code.into(), frame.reason.as_str().to_owned());
        }
    }
}

/// Closes a client and waits for the close frame of the server.
pub fn hang_up(mut client: Client) {
    client.close(1000, "");
    assert_eq!(closed(&mut client).0, 1000);
}

/// Waits until a condition is true.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "expected before the deadline: {what}");
        thread::yield_now();
    }
}

/// Parses the body of a response.
pub fn json_of(reply: &HttpResponse) -> Value {
    serde_json::from_str(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"))
}

fn next_with(log: &TestReceiver<String>, words: &str) -> String {
    loop {
        let line = log.next();
        if line.contains(words) {
            return line;
        }
    }
}

/// Returns the address in a line that announces a listener.
fn address_in_line(line: &str) -> String {
    let url = line.split_once("http://").or_else(|| line.split_once("https://"));
    let place = url.map_or_else(|| last_word(line), |(_, url)| url.to_owned());
    place.trim_end_matches('/').to_owned()
}

fn last_word(line: &str) -> String {
    line.rsplit(' ').next().expect("the line has a word").trim().to_owned()
}

/// Opens a WebSocket with a uid on a stream, and reads up to the end of the welcome frame.
pub fn read_welcome(stream: &mut (impl Read + Write), uid: &str) {
    stream.write_all(UPGRADE.replacen('/', &format!("/?uid={uid}"), 1).as_bytes()).expect("the bytes can be sent");
    let mut came = Vec::new();
    while !came.ends_with(b"}}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the server sends the 101 response and the welcome frame");
        came.extend(byte);
    }
}
