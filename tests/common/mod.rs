//! What the tests through sockets share: a server on a thread of its own, clients, and waiting with a deadline.
//!
//! The one idea: a test never sleeps and never measures. It waits for something to happen, on a channel or on a socket,
//! and a deadline that no healthy machine comes near turns a hang into a failure.

// Each test file is a crate of its own and uses its own part of this.
#![allow(dead_code)]

#[cfg(feature = "gateway")]
pub mod backend;
pub mod client;
#[cfg(feature = "gateway")]
pub mod command;
#[cfg(feature = "gateway")]
pub mod events;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod log_lines;
pub mod raw;

use std::io;
use std::net::SocketAddr;
use std::panic;
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use fdpush::{Address, Closed, Context, Fd, Handler, Outcome, Remote, Server, Upgrade};

pub use self::client::{Client, refusal};
pub use self::raw::Raw;

/// How long anything may take that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs on a thread of its own. Dropping it drains it, and waits for its end.
pub struct TestServer {
    pub remote: Remote,
    /// Where it listens.
    pub addresses: Vec<Address>,
    address: Option<SocketAddr>,
    /// The thread that its loop runs on.
    thread: ThreadId,
    ended: Heard<io::Result<()>>,
    has_ended: bool,
}

/// Runs a server on a free port of the loopback. It tells each client its fd in the 101, binds it to the uid and puts it
/// into the groups that its query names; `build` adds to that, or replaces it.
pub fn serve<H: Handler>(build: impl FnOnce(Server) -> Server<H> + Send + 'static) -> TestServer {
    serve_on("127.0.0.1:0", build)
}

/// As [`serve`], on an address of the test's choice.
pub fn serve_on<H: Handler>(address: &str, build: impl FnOnce(Server) -> Server<H> + Send + 'static) -> TestServer {
    let address = address.to_owned();
    serve_made(move || Server::bind(address), build)
}

/// As [`serve`], with a server that the test makes.
pub fn serve_made<H: Handler>(
    make: impl FnOnce() -> io::Result<Server> + Send + 'static,
    build: impl FnOnce(Server) -> Server<H> + Send + 'static,
) -> TestServer {
    let (told, started) = channel();
    let (end, ended) = channel();
    let thread = thread::spawn(move || {
        let server = make().expect("an address to listen on").catch_signals(false);
        let server = server.on_upgrade(tell_fd).on_open(|ctx, fd, request| {
            for (name, value) in request.query_pairs().expect("UTF-8") {
                match &*name {
                    "uid" => ctx.bind(fd, value),
                    "group" => ctx.join(fd, value),
                    _ => continue,
                };
            }
        });
        let server = build(server);
        let addresses: Vec<Address> = server.addresses().cloned().collect();
        told.send((server.remote(), server.local_addr(), addresses)).expect("the test waits");
        // The test may have failed and gone.
        let _ = end.send(server.run());
    });
    let (remote, address, addresses) = started.next();
    TestServer { remote, addresses, address, thread: thread.thread().id(), ended, has_ended: false }
}

/// The answer to an upgrade that lets [`Client::fd`] know.
pub fn tell_fd(_ctx: &mut Context<'_>, fd: Fd, _request: &fdpush::Request) -> Upgrade {
    Upgrade::accept().header("X-Fd", fd.to_string()).into()
}

impl TestServer {
    /// Where it listens, if that is a TCP address.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("a server that listens on TCP")
    }

    /// A client that has its 101, so that `on_open` was called.
    pub fn connect(&self, target: &str) -> Client {
        Client::connect(self.address(), target, &[]).expect("a WebSocket")
    }

    /// As [`connect`](TestServer::connect), with more headers.
    pub fn connect_with(&self, target: &str, headers: &[(&str, &str)]) -> Client {
        Client::connect(self.address(), target, headers).expect("a WebSocket")
    }

    /// What a client gets that is refused: status and body.
    pub fn refusal(&self, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
        refusal(Client::connect(self.address(), target, headers))
    }

    /// A connection that speaks bytes.
    pub fn raw(&self) -> Raw {
        Raw::connect(self.address())
    }

    /// Runs `call` on the server's thread.
    pub fn ask<T: Send + 'static>(&self, call: impl FnOnce(&mut Context<'_>) -> T + Send + 'static) -> T {
        self.remote.call(call).wait_timeout(PATIENCE).expect("an answer")
    }

    /// Asks until the answer is yes.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&mut Context<'_>) -> bool + Clone + Send + 'static) {
        let deadline = Instant::now() + PATIENCE;
        while !self.ask(condition.clone()) {
            assert!(Instant::now() < deadline, "it never came to this: {what}");
            thread::yield_now();
        }
    }

    /// Drains it and says how its run ended.
    pub fn stop(mut self) -> io::Result<()> {
        self.remote.shutdown().expect("a server that runs");
        self.wait_for_end()
    }

    /// Waits for the end that something else brings about.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        self.has_ended = true;
        self.ended.next()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if thread::panicking() {
            // What the test saw may be no more than a consequence.
            for end in self.ended.so_far() {
                eprintln!("the server had ended: {end:?}");
            }
        } else if !self.has_ended {
            let _ = self.remote.shutdown();
            self.ended.next().expect("a server that ends well");
        }
    }
}

/// The end of a channel at which a test listens.
pub struct Heard<T>(Receiver<T>);

/// A channel from handlers to the test.
pub fn channel<T>() -> (Sender<T>, Heard<T>) {
    let (sender, receiver) = mpsc::channel();
    (sender, Heard(receiver))
}

impl<T> Heard<T> {
    /// The next thing, within the deadline.
    pub fn next(&self) -> T {
        self.0.recv_timeout(PATIENCE).expect("something to be heard of")
    }

    /// Waits until all senders are dropped. `false`: a value was sent instead.
    pub fn is_disconnected(&self) -> bool {
        matches!(self.0.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected))
    }

    /// What was heard already, without waiting.
    pub fn so_far(&self) -> Vec<T> {
        self.0.try_iter().collect()
    }
}

/// An `on_close` that tells the test.
pub fn report_close(sender: Sender<(Fd, Closed)>) -> impl FnMut(&mut Context<'_>, Fd, &Closed) + 'static {
    move |_, fd, closed| {
        let _ = sender.send((fd, closed.clone()));
    }
}

/// An `on_message` that sends everything back.
pub fn echo(ctx: &mut Context<'_>, fd: Fd, message: fdpush::Message<'_>) {
    assert_eq!(ctx.push(fd, message), Outcome::Queued);
}

/// Keeps panics whose message starts with "on purpose" out of the output.
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

/// A directory for a test's files, removed with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fdpush-{}-{count}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Scratch(path)
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
