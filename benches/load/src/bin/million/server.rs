//! The measured server as a child process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure;

pub const PORT: u16 = 9501;
pub const API_PORT: u16 = 9502;

/// The maximum time until a server accepts connections.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// The time between two attempts to connect.
const TRY_INTERVAL: Duration = Duration::from_millis(20);

/// A running server, which is killed when the value is dropped.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts a server on the first processor, and waits until it accepts on `port`. This process uses the other
    /// processors.
    pub fn start(program: &str, arguments: &[String], port: u16) -> io::Result<Server> {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", program]).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let mut server = Server { child: command.spawn()? };
        let started = Instant::now();
        while TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(failure(format!("{program} did not start: {status}")));
            }
            if started.elapsed() > START_TIME_MAX {
                return Err(failure(format!("{program} accepted no client in time")));
            }
            thread::park_timeout(TRY_INTERVAL);
        }
        Ok(server)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn terminate(&self) -> io::Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).ok_or_else(|| failure("invalid process id"))?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Returns the exit status, if the server has exited.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
