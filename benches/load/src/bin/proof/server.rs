//! The server as a child process.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fdpush_load::wire;
use rustix::process::{Pid, Signal, kill_process};

use crate::failure;

/// The timeout of every wait.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The address of the server. No other program listens on it or connects from it, so that a restarted server gets its
/// port again.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 81);

/// A running server, which is killed when the value is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub addresses: Addresses,
}

/// The addresses for clients and for back ends.
#[derive(Copy, Clone, Debug)]
pub struct Addresses {
    pub listen: SocketAddr,
    pub api: SocketAddr,
}

impl Addresses {
    /// Picks two unused ports.
    pub fn find() -> io::Result<Addresses> {
        let (listen, api) = (TcpListener::bind((HOST, 0))?, TcpListener::bind((HOST, 0))?);
        Ok(Addresses { listen: listen.local_addr()?, api: api.local_addr()? })
    }
}

impl Server {
    /// Starts a server, and returns the time until its first accept.
    pub fn start(program: &Path, addresses: Addresses, flags: &[String]) -> io::Result<(Server, Duration)> {
        let (listen, api) = (addresses.listen.to_string(), addresses.api.to_string());
        let mut command = Command::new(program);
        command.args(["serve", "--listen", &listen, "--api", &api, "--log", "warn"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let mut server = Server { child: command.spawn()?, addresses };
        while !accepts(addresses.listen) {
            if let Some(status) = server.child.try_wait()? {
                return Err(failure(format!("the server did not start: {status}")));
            }
            if started.elapsed() > TIMEOUT {
                return Err(failure("the server accepts no client"));
            }
            thread::yield_now();
        }
        Ok((server, started.elapsed()))
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).ok_or_else(|| failure("invalid process id"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Returns the exit status if the server has exited.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns whether the server at this address accepts a WebSocket.
fn accepts(address: SocketAddr) -> bool {
    let try_it = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(&wire::upgrade_request("/"))?;
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        io::Result::Ok(line)
    };
    try_it().is_ok_and(|line| line == *b"HTTP/1.1 101")
}
