//! Helpers for tests through sockets: a server on its own thread, clients, and waiting with a deadline.
//!
//! A test never sleeps and never measures time. A test waits for an event on a channel or a socket, with a deadline
//! that is far longer than any healthy machine needs.

// Each test binary uses only a part of these modules.
#![allow(dead_code, unused_imports)]

#[cfg(feature = "gateway")]
pub mod backend;
pub mod client;
#[cfg(feature = "gateway")]
pub mod command;
pub mod deflated;
#[cfg(feature = "gateway")]
pub mod events;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod log_lines;
pub mod process;
pub mod raw;
pub mod tls;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic;
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use fdpush::{Address, Closed, Context, Fd, Handler, Heartbeat, Limits, Outcome, Remote, Reply, Server, Upgrade};

pub use self::client::{Client, refusal};
pub use self::process::ChildProcess;
pub use self::raw::Raw;

/// The deadline for every expected event.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// An address with a free port, for a test that connects after its listener has ended, and expects an error.
///
/// All other tests listen on other IP addresses. So no other server can listen on the free port in the meantime.
pub const UNSHARED: &str = "127.0.0.77:0";

/// A time that is longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// A heartbeat with one ping an hour, so that a test gets no ping.
pub const HOURLY_HEARTBEAT: Heartbeat = Heartbeat::Ping { every: LONG, missed_max: 2 };

/// Returns the default limits with time limits so long that a client on a busy machine does not exceed them.
pub fn limits_with_long_times() -> Limits {
    Limits {
        head_time_max: LONG,
        body_time_max: LONG,
        answer_time_max: LONG,
        keep_alive_max: LONG,
        message_time_max: LONG,
        close_wait_max: LONG,
        write_time_max: LONG,
        ..Limits::default()
    }
}

/// A server that runs on its own thread. When the value is dropped, the server is drained, and the drop waits until the
/// server has ended.
pub struct TestServer {
    pub remote: Remote,
    /// The addresses of the server's listeners.
    pub addresses: Vec<Address>,
    address: Option<SocketAddr>,
    /// The thread that runs the server's loop.
    thread: ThreadId,
    ended: TestReceiver<Result<(), fdpush::Error>>,
    has_ended: bool,
}

/// Runs a server on a free port of 127.0.0.1.
///
/// The server sends each client its fd in the 101 response, binds the `uid` and joins each `group` of the query. The
/// server has the limits of [`limits_with_long_times`] and the heartbeat [`HOURLY_HEARTBEAT`]. `build` can replace its
/// handlers, limits and heartbeat.
pub fn serve<H: Handler>(build: impl FnOnce(Server) -> Server<H> + Send + 'static) -> TestServer {
    serve_on("127.0.0.1:0", build)
}

/// Works like [`serve`], but the server listens on this address.
pub fn serve_on<H: Handler>(address: &str, build: impl FnOnce(Server) -> Server<H> + Send + 'static) -> TestServer {
    let address = address.to_owned();
    let is_tls = tls::IS_TLS && !address.starts_with("unix:");
    let make = move || match is_tls {
        true => Server::bind_tls(address, tls::server_config()),
        false => Server::bind(address),
    };
    serve_with(make, build, is_tls)
}

/// Works like [`serve`], but the server speaks no TLS, also in the test binaries whose other servers speak TLS.
pub fn serve_plain<H: Handler>(build: impl FnOnce(Server) -> Server<H> + Send + 'static) -> TestServer {
    serve_made(|| Server::bind("127.0.0.1:0"), build)
}

/// Works like [`serve`], with a server that `make` creates.
pub fn serve_made<H: Handler>(
    make: impl FnOnce() -> Result<Server, fdpush::Error> + Send + 'static,
    build: impl FnOnce(Server) -> Server<H> + Send + 'static,
) -> TestServer {
    serve_with(make, build, false)
}

/// Runs a server that `make` creates. With `is_tls`, the first listener of the server speaks TLS.
fn serve_with<H: Handler>(
    make: impl FnOnce() -> Result<Server, fdpush::Error> + Send + 'static,
    build: impl FnOnce(Server) -> Server<H> + Send + 'static,
    is_tls: bool,
) -> TestServer {
    let (tx, started) = channel();
    let (end, ended) = channel();
    let thread = thread::spawn(move || {
        let server = make().expect("the server can listen").catch_signals(false);
        let server = server.limits(limits_with_long_times()).heartbeat(HOURLY_HEARTBEAT);
        let server = server.on_upgrade(accept_with_fd).on_open(|ctx, fd, request| {
            for (name, value) in request.query_pairs().expect("the text is UTF-8") {
                match &*name {
                    "uid" => ctx.bind(fd, value),
                    "group" => ctx.join(fd, value),
                    _ => continue,
                };
            }
        });
        let server = build(server);
        let addresses: Vec<Address> = server.addresses().cloned().collect();
        addresses.iter().for_each(tls::forget);
        if let (true, Some(address)) = (is_tls, server.local_addr()) {
            tls::register(address);
        }
        tx.send((server.remote(), server.local_addr(), addresses)).expect("the test waits");
        // If the test has ended, the send fails, because there is no receiver.
        let _ = end.send(server.run());
    });
    let (remote, address, addresses) = started.next();
    TestServer { remote, addresses, address, thread: thread.thread().id(), ended, has_ended: false }
}

/// Runs a check with longer and longer time limits until it succeeds. Returns whether it succeeded.
///
/// On a busy machine, a client can exceed a short time limit. The last limit is 20 s.
pub fn succeeds_with_longer_time(check: impl FnMut(Duration) -> bool) -> bool {
    [50, 500, 5_000, 20_000].map(Duration::from_millis).into_iter().any(check)
}

/// Accepts an upgrade and sends the fd for [`Client::fd`].
pub fn accept_with_fd(_ctx: &mut Context<'_>, fd: Fd, _request: &fdpush::Request<'_>) -> Upgrade {
    Upgrade::accept().header("X-Fd", fd.to_string()).into()
}

impl TestServer {
    /// Returns the TCP address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the server listens on TCP")
    }

    /// Connects a client. When this method returns, the server has called `on_open`.
    pub fn connect(&self, target: &str) -> Client {
        Client::connect(self.address(), target, &[]).expect("the server accepts the WebSocket")
    }

    /// Works like [`connect`](TestServer::connect), with additional headers.
    pub fn connect_with(&self, target: &str, headers: &[(&str, &str)]) -> Client {
        Client::connect(self.address(), target, headers).expect("the server accepts the WebSocket")
    }

    /// Connects a client that the server must refuse. Returns status and body.
    pub fn refusal(&self, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
        refusal(Client::connect(self.address(), target, headers))
    }

    /// Opens a raw connection.
    pub fn raw(&self) -> Raw {
        Raw::connect(self.address())
    }

    /// Runs `call` on the thread of the server and returns its result.
    pub fn ask<T: Send + 'static>(&self, call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static) -> T {
        self.remote.call(call).wait_timeout(DEADLINE).expect("the server answers")
    }

    /// Blocks the loop in a command, until the returned sender sends or is dropped. Returns the reply to the command,
    /// and the sender.
    pub fn hold(&self) -> (Reply<()>, Sender<()>) {
        let (enter, entered) = channel();
        let (release, released) = mpsc::channel();
        let held = self.remote.call(move |_| {
            enter.send(()).expect("the test waits");
            let _ = released.recv_timeout(DEADLINE);
        });
        entered.next();
        (held, release)
    }

    /// Waits until a condition is true on the thread of the server.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&mut Context<'_>) -> bool + Clone + Send + 'static) {
        let deadline = Instant::now() + DEADLINE;
        while !self.ask(condition.clone()) {
            assert!(Instant::now() < deadline, "expected before the deadline: {what}");
            thread::yield_now();
        }
    }

    /// Drains the server and returns the result of its run.
    pub fn stop(mut self) -> Result<(), fdpush::Error> {
        self.remote.shutdown().expect("the server is running");
        self.wait_for_end()
    }

    /// Waits for the end of a server that the test stops by other means than [`stop`](TestServer::stop).
    pub fn wait_for_end(&mut self) -> Result<(), fdpush::Error> {
        self.has_ended = true;
        self.ended.next()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if thread::panicking() {
            // If the server ended with an error, this error may explain why the test failed.
            for end in self.ended.so_far() {
                eprintln!("the server had ended: {end:?}");
            }
        } else if !self.has_ended {
            let _ = self.remote.shutdown();
            self.ended.next().expect("the server ends without an error");
        }
    }
}

/// The receiver of a channel from handlers to a test.
pub struct TestReceiver<T>(Receiver<T>);

/// Creates a channel from handlers to the test.
pub fn channel<T>() -> (Sender<T>, TestReceiver<T>) {
    let (sender, receiver) = mpsc::channel();
    (sender, TestReceiver(receiver))
}

impl<T> TestReceiver<T> {
    /// Returns the next value, within the deadline.
    pub fn next(&self) -> T {
        self.0.recv_timeout(DEADLINE).expect("a value arrives before the deadline")
    }

    /// Waits until all senders are dropped. Returns `false` if a value arrives first, or if the deadline passes.
    pub fn is_disconnected(&self) -> bool {
        matches!(self.0.recv_timeout(DEADLINE), Err(mpsc::RecvTimeoutError::Disconnected))
    }

    /// Returns the values that have arrived, without waiting.
    pub fn so_far(&self) -> Vec<T> {
        self.0.try_iter().collect()
    }
}

/// Returns an `on_close` handler that sends its arguments to the test.
pub fn report_close(
    sender: Sender<(Fd, Closed)>,
) -> impl FnMut(&mut Context<'_>, Fd, &Closed) + Clone + Send + 'static {
    move |_, fd, closed| {
        let _ = sender.send((fd, closed.clone()));
    }
}

/// Echoes every message, as an `on_message` handler.
pub fn echo(ctx: &mut Context<'_>, fd: Fd, message: fdpush::Message<'_>) {
    assert_eq!(ctx.push(fd, message), Outcome::Queued);
}

/// When a `DropSignal` is dropped, it sends its value to the test.
pub struct DropSignal<T: Clone>(pub Sender<T>, pub T);

impl<T: Clone> Drop for DropSignal<T> {
    fn drop(&mut self) {
        // If the test has ended, the send fails, because there is no receiver.
        let _ = self.0.send(self.1.clone());
    }
}

/// Makes the panic hook print nothing for panics whose message starts with "on purpose".
pub fn silence_intended_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload_as_str().is_some_and(|text| text.starts_with("on purpose")) {
                default(info);
            }
        }));
    });
}

/// A new directory for the files of a test. When the value is dropped, the directory is removed.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("fdpush-{}-{count}-{name}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Scratch(path),
                // A directory with this name can exist: an earlier test process with the same process id was killed
                // before it removed the directory.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
