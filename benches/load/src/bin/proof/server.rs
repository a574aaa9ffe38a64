//! The server, as a child that this process starts, signals and waits for.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fdpush_load::wire;
use rustix::process::{Pid, Signal, kill_process};

use crate::wrong;

/// Nothing takes longer, unless the server is stuck.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Ports to listen on: below those that the kernel gives to connections, so that none has one when a server wants it back.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub places: Places,
}

/// Where it listens, for clients and for back ends.
#[derive(Copy, Clone, Debug)]
pub struct Places {
    pub listen: SocketAddr,
    pub api: SocketAddr,
}

impl Places {
    /// Two ports that nobody has.
    pub fn find() -> io::Result<Places> {
        // Others who look at the same time begin elsewhere.
        let first = PORTS.start + (std::process::id() * 16 % u32::from(PORTS.end - PORTS.start)) as u16;
        let is_free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
        let mut free =
            (first..PORTS.end).chain(PORTS).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).filter(is_free);
        match (free.next(), free.next()) {
            (Some(listen), Some(api)) => Ok(Places { listen, api }),
            _ => Err(wrong("no free port")),
        }
    }
}

impl Server {
    /// Starts one, and says how long it took from there to the first client that it let in.
    pub fn start(program: &Path, places: Places, flags: &[String]) -> io::Result<(Server, Duration)> {
        let (listen, api) = (places.listen.to_string(), places.api.to_string());
        let mut command = Command::new(program);
        command.args(["serve", "--listen", &listen, "--api", &api, "--log", "warn"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let mut server = Server { child: command.spawn()?, places };
        while !is_let_in(places.listen) {
            if let Some(status) = server.child.try_wait()? {
                return Err(wrong(format!("the server did not start: {status}")));
            }
            if started.elapsed() > PATIENCE {
                return Err(wrong("the server accepts nobody"));
            }
            thread::yield_now();
        }
        Ok((server, started.elapsed()))
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).ok_or_else(|| wrong("a process without a number"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// How it ended, once it has.
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

/// Whether a client gets its WebSocket there.
fn is_let_in(address: SocketAddr) -> bool {
    let try_it = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&wire::upgrade_request("/"))?;
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        io::Result::Ok(line)
    };
    try_it().is_ok_and(|line| line == *b"HTTP/1.1 101")
}
