//! Tests SIGTERM and SIGINT. The server is a child process that runs this test binary.

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::raw::{CLOSE, TEXT, close_payload};
use crate::common::{ChildProcess, Client, Raw, TestReceiver, channel, limits_with_long_times};
use fdpush::{Limits, Message, Server};
use signal_hook::consts::{SIGINT, SIGTERM};

/// If this environment variable is set, the process runs the server in place of the tests.
const IS_SERVER: &str = "FDPUSH_TEST_IS_SERVER";

/// The exit code of the server process if `run` returned an error because a second signal ended the drain.
const CUT_SHORT: i32 = 3;

/// A server in its own process.
struct Process {
    child: ChildProcess,
    address: SocketAddr,
    /// The lines that the process prints, then `None`.
    output: TestReceiver<Option<String>>,
}

impl Process {
    fn start() -> Process {
        let program = std::env::current_exe().expect("the test binary has a path");
        let mut child = ChildProcess::spawn(
            Command::new(program)
                .args(["--exact", "server::signals::server_process", "--nocapture"])
                .env(IS_SERVER, "yes")
                .stdout(Stdio::piped()),
        );
        let lines = BufReader::new(child.stdout.take().expect("the output is a pipe")).lines();
        let (tx, output) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = tx.send(Some(line));
            }
            let _ = tx.send(None);
        });
        let address = loop {
            let line = output.next().expect("the program prints an address before it ends");
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.parse().expect("the address is valid");
            }
        };
        Process { child, address, output }
    }

    fn signal(&self, signal: &str) {
        self.child.signal(signal);
    }

    fn end(&mut self) -> ExitStatus {
        while self.output.next().is_some() {}
        self.child.exit_status()
    }
}

/// Runs the server in the child process that the tests below start. Without the variable [`IS_SERVER`], this function
/// does nothing.
#[test]
fn server_process() {
    if std::env::var_os(IS_SERVER).is_none() {
        return;
    }
    let hour = Duration::from_secs(3600);
    let server = Server::bind("127.0.0.1:0")
        .expect("the server can bind the address")
        .limits(Limits { drain_time_max: hour, close_wait_max: hour, ..limits_with_long_times() })
        .on_message(|ctx, fd, message| {
            if message == Message::Text("both") {
                // This closure runs on the thread of the loop. So the loop handles both signals only after the
                // closure has ended.
                for signal in [SIGTERM, SIGINT] {
                    signal_hook::low_level::raise(signal).expect("the signal can be sent");
                }
            }
            crate::common::echo(ctx, fd, message);
        });
    println!("listening on {}", server.local_addr().expect("the socket has an address"));
    match server.run() {
        Ok(()) => std::process::exit(0),
        Err(error) if error.kind() == ErrorKind::Interrupted => std::process::exit(CUT_SHORT),
        Err(error) => panic!("{error}"),
    }
}

fn drains_on(signal: &str) {
    let mut process = Process::start();
    let mut clients: Vec<Client> = (0..20)
        .map(|_| Client::connect(process.address, "/", &[]).expect("the server accepts the WebSocket"))
        .collect();
    for client in &mut clients {
        client.send("before");
        assert_eq!(client.text(), "before");
    }
    process.signal(signal);
    for client in &mut clients {
        assert_eq!(client.closed().0, 1001);
    }
    drop(clients);
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn sigterm_drains_with_1001_and_exit_code_0() {
    drains_on("-TERM");
}

#[test]
fn sigint_drains_with_1001_and_exit_code_0() {
    drains_on("-INT");
}

#[test]
fn two_simultaneous_signals_count_as_one() {
    let mut process = Process::start();
    let mut client = Raw::upgraded(process.address);
    client.send_frame(TEXT, b"both");
    assert_eq!(client.close_frame().0, 1001);
    client.send_frame(CLOSE, &close_payload(1001, ""));
    drop(client);
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    for second in ["-TERM", "-INT"] {
        let mut process = Process::start();
        let mut unresponsive = Raw::upgraded(process.address);
        process.signal("-TERM");
        assert_eq!(unresponsive.close_frame().0, 1001);
        process.signal(second);
        assert_eq!(process.end().code(), Some(CUT_SHORT));
        unresponsive.end();
    }
}

#[test]
fn a_drain_waits_for_the_close_frame_of_the_client() {
    let mut process = Process::start();
    let mut client = Raw::upgraded(process.address);
    process.signal("-TERM");
    assert_eq!(client.close_frame().0, 1001);
    client.send_frame(CLOSE, &close_payload(1001, ""));
    client.end();
    drop(client);
    assert_eq!(process.end().code(), Some(0));
}
