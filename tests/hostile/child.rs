//! A server in its own process, with its own memory, descriptors and signals.
//!
//! The child runs this test binary. An environment variable selects the server, and the arguments run only the test
//! `child_server` of `main.rs`, which becomes that server.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use fdpush::{Response, Server};

use crate::common::{ChildProcess, DEADLINE, HOURLY_HEARTBEAT, channel, limits_with_long_times, tls};
use crate::wire::Wire;

const ROLE: &str = "FDPUSH_TEST_CHILD";
const GREETING: &str = "child listens on ";

/// The name of a server and the function that builds it.
pub type Role = (&'static str, fn(Server) -> Server);

/// A running child process.
pub struct Child {
    process: ChildProcess,
    pub address: SocketAddr,
    /// The reading end of the child's output, which stays open so that the child can print.
    stdout: Option<BufReader<ChildStdout>>,
}

/// Runs the server whose name is in the environment variable, until the server has drained. Returns immediately if the
/// environment variable is not set.
pub fn run(roles: &[Role]) {
    let Ok(name) = std::env::var(ROLE) else { return };
    let (_, build) = roles.iter().find(|(role, _)| *role == name).expect("a table `ROLES` has a server with this name");
    let server = match tls::IS_TLS {
        true => Server::bind_tls("127.0.0.1:0", tls::server_config()),
        false => Server::bind("127.0.0.1:0"),
    };
    let server = server.expect("the server can bind a free port");
    let server = server.limits(limits_with_long_times()).heartbeat(HOURLY_HEARTBEAT).on_request(|ctx, _, request| {
        let stats = ctx.stats();
        match request.target() {
            "/stats" => Response::text(200, format!("{stats:?}")),
            _ => Response::text(404, ""),
        }
    });
    let server = build(server);
    println!("{GREETING}{}", server.local_addr().expect("the server listens on TCP"));
    server.run().expect("the server drains without an error");
}

impl Child {
    /// Starts a process with the server that a table `ROLES` lists under the name `role`.
    pub fn start(role: &str) -> Child {
        Child::start_with("", role)
    }

    /// Works like [`start`](Child::start), with a limit on open descriptors.
    pub fn start_with_descriptors(max: u32, role: &str) -> Child {
        Child::start_with(&format!("ulimit -n {max};"), role)
    }

    fn start_with(prelude: &str, role: &str) -> Child {
        let program = std::env::current_exe().expect("the test binary has a path");
        let pair = tls::server_pair();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{prelude} exec \"$0\" \"$@\"")])
            .arg(program)
            .args(["child_server", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(tls::PAIR_VARIABLE, format!("{}{}", pair.certificate, pair.key))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = ChildProcess::spawn(&mut command);
        let mut stdout = BufReader::new(process.stdout.take().expect("the output is a pipe"));
        let address = loop {
            let mut line = String::new();
            assert!(
                stdout.read_line(&mut line).expect("the output can be read") > 0,
                "the child must print its address before its output ends"
            );
            if let Some((_, address)) = line.split_once(GREETING) {
                break address.trim().parse().expect("the address is valid");
            }
        };
        if tls::IS_TLS {
            tls::register(address);
        }
        let child = Child { process, address, stdout: Some(stdout) };
        // The server already listens before its loop runs. The first response shows that the loop runs.
        assert_eq!(child.stat("open"), 0);
        child
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// Connects, but does not make the TLS handshake.
    pub fn begin(&self) -> Wire {
        Wire::begin(self.address)
    }

    /// Returns the resident memory in bytes.
    pub fn memory(&self) -> usize {
        const PAGE: usize = 4096;
        let statm = self.proc("statm");
        statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<usize>().ok())
            .expect("statm has the number of resident pages")
            * PAGE
    }

    /// Limits the growth of the address space to this many bytes.
    pub fn limit_growth(&self, bytes: usize) {
        const PAGE: usize = 4096;
        let statm = self.proc("statm");
        let pages =
            statm.split(' ').next().and_then(|pages| pages.parse::<usize>().ok()).expect("statm has a number of pages");
        let max = Some((pages * PAGE + bytes) as u64);
        let limit = rustix::process::Rlimit { current: max, maximum: max };
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).expect("the process is running");
        rustix::process::prlimit(Some(pid), rustix::process::Resource::As, limit).expect("the limit can be set");
    }

    /// Returns the CPU time in ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = self.proc("stat");
        // The name in parentheses can contain spaces, so this code counts the fields after the name. utime and stime
        // are the 14th and 15th fields of the line.
        let (_, fields) = stat.rsplit_once(')').expect("the line has a name in parentheses");
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.map(|ticks| ticks.parse::<u64>().expect("the value is a number of ticks")).sum()
    }

    /// Returns the number of open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the process is running").count()
    }

    /// Returns a value of the stats of the server.
    pub fn stat(&self, name: &str) -> u64 {
        let mut wire = self.connect();
        wire.send(b"GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        wire.read_to_end();
        let received = wire.received();
        let body =
            String::from_utf8_lossy(&received.replies.first().expect("the server sent a response").body).into_owned();
        let (_, value) = body.split_once(&format!(" {name}: ")).expect("the response has a number with this name");
        let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        value[..end].parse().expect("the value is a number")
    }

    /// Waits until a value of the stats satisfies a condition.
    pub fn wait_for_stat(&self, name: &str, is_right: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_right(self.stat(name)) {
            assert!(
                Instant::now() < deadline,
                "{name} must have the expected value before the deadline, but is {}",
                self.stat(name)
            );
        }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.process.signal("-TERM");
    }

    /// Waits for the end of the output and of the process.
    pub fn wait(&mut self) -> ExitStatus {
        let (end, ended) = channel();
        let mut stdout = self.stdout.take().expect("wait is called once");
        thread::spawn(move || end.send(io::copy(&mut stdout, &mut io::sink())));
        ended.next().expect("the output of the child ends before the deadline");
        self.process.exit_status()
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("the process is running")
    }
}
