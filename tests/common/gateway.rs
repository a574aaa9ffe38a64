//! `fdpush serve` as a child, for the tests of its API: where it listens is read from what it says.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use tungstenite::Message;

use super::raw::Reply;
use super::{Client, Heard, PATIENCE, Raw, channel};

/// A running server. Dropping it ends it.
pub struct Gateway {
    child: Child,
    /// Where clients come.
    pub address: SocketAddr,
    /// Where else they come, in the order of the flags that say so.
    pub others: Vec<String>,
    /// Where back ends come.
    pub api: SocketAddr,
    /// Where datagrams come, as the log names it.
    pub datagrams: Vec<String>,
    log: Heard<String>,
}

impl Gateway {
    /// A server with these flags, which must not name a level of the log.
    pub fn start(flags: &[&str]) -> Gateway {
        Gateway::spawn(&[&["--log", "info"], flags].concat())
    }

    /// As [`start`](Gateway::start), with a level of the log given elsewhere, that is `info` or more.
    pub fn spawn(flags: &[&str]) -> Gateway {
        Gateway::spawn_as(Command::new(env!("CARGO_BIN_EXE_fdpush")), flags)
    }

    /// As [`start`](Gateway::start), in a process that may have so many descriptors.
    pub fn start_with_descriptors(max: u32, flags: &[&str]) -> Gateway {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {max}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_fdpush")]);
        Gateway::spawn_as(command, &[&["--log", "info"], flags].concat())
    }

    fn spawn_as(mut command: Command, flags: &[&str]) -> Gateway {
        command.args(["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary");
        let stdout = child.stdout.take().expect("piped");
        let (told, log) = channel();
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The test may listen no more; the pipe is emptied all the same.
                let _ = told.send(line);
            }
        });
        let mut stdout = BufReader::new(stdout).lines();
        let mut announced = || place_in(&stdout.next().expect("a line").expect("text"));
        let address = announced().parse().expect("an address");
        let others = flags.iter().filter(|flag| **flag == "--listen").map(|_| announced()).collect();
        let api = last_word(&next_with(&log, "the API is on ")).parse().expect("an address");
        let is_datagram = |flag: &&&str| flag.starts_with("udp:") || flag.starts_with("unixgram:");
        let wanted = flags.iter().filter(is_datagram).count();
        let datagrams = (0..wanted).map(|_| last_word(&next_with(&log, "takes datagrams on "))).collect();
        Gateway { child, address, others, api, datagrams, log }
    }

    /// A client that has had its welcome.
    pub fn connect(&self, target: &str) -> Client {
        self.open(target, &[]).0
    }

    /// A client that has had its welcome, and its fd.
    pub fn open(&self, target: &str, headers: &[(&str, &str)]) -> (Client, u64) {
        let mut client = Client::connect(self.address, target, headers).expect("a WebSocket");
        let welcome = next(&mut client);
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (client, welcome["fd"].as_u64().expect("an fd"))
    }

    /// What the API says to a JSON body: the status and JSON.
    pub fn post(&self, path: &str, body: impl ToString) -> (u16, Value) {
        let reply = self.call("POST", path, &[("Content-Type", "application/json")], &body.to_string());
        (reply.status, json_of(&reply))
    }

    /// What the API says to a JSON body that it takes.
    pub fn done(&self, path: &str, body: impl ToString) -> Value {
        let body = body.to_string();
        let (status, answer) = self.post(path, &body);
        assert_eq!(status, 200, "{path} {body}: {answer}");
        answer
    }

    /// What the API has at a path that exists.
    pub fn get(&self, path: &str) -> Value {
        let reply = self.call("GET", path, &[], "");
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        json_of(&reply)
    }

    /// One request of the API, on a connection of its own.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut raw = Raw::connect(self.api);
        raw.send(request(method, path, headers, body));
        raw.reply()
    }

    /// The value of a sample, as `/metrics` names it; 0 while it has none.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.call("GET", "/metrics", &[], "").body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap_or_else(|_| panic!("no number: {value:?}")))
    }

    /// The next line of the log with these words in it.
    pub fn logged(&self, words: &str) -> String {
        next_with(&self.log, words)
    }

    /// The next lines of the log up to one with these words in it.
    pub fn logged_up_to(&self, words: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(words)) {
            lines.push(self.log.next());
        }
        lines
    }

    /// Sends a signal, as `-TERM`.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("an end")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            for line in self.log.so_far() {
                eprintln!("{line}");
            }
        }
    }
}

/// A whole request. `Host` is this machine's name unless a header says otherwise.
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

/// The next frame.
pub fn next(client: &mut Client) -> Value {
    let text = client.text();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The next frame of this type, whatever comes before.
pub fn next_of(client: &mut Client, kind: &str) -> Value {
    loop {
        let frame = next(client);
        if frame["type"] == kind {
            return frame;
        }
    }
}

/// The close frame's code and reason, whatever comes before.
pub fn closed(client: &mut Client) -> (u16, String) {
    loop {
        if let Message::Close(frame) = client.next() {
            let frame = frame.expect("a close code");
            return (frame.code.into(), frame.reason.as_str().to_owned());
        }
    }
}

/// A client that goes, and hears that the server knows.
pub fn hang_up(mut client: Client) {
    client.close(1000, "");
    assert_eq!(closed(&mut client).0, 1000);
}

/// Tries until it works out, as often as there is time for.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

/// The body of a reply.
pub fn json_of(reply: &Reply) -> Value {
    serde_json::from_str(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"))
}

fn next_with(log: &Heard<String>, words: &str) -> String {
    loop {
        let line = log.next();
        if line.contains(words) {
            return line;
        }
    }
}

/// Where the server says that it is running: what to open, or an address.
fn place_in(line: &str) -> String {
    let place = line.split_once("http://").map_or_else(|| last_word(line), |(_, url)| url.to_owned());
    place.trim_end_matches('/').to_owned()
}

fn last_word(line: &str) -> String {
    line.rsplit(' ').next().expect("a word").trim().to_owned()
}
