//! Tests of whole loops with clients: logins, pushes, commands of another thread, and the shutdown.
//!
//! Each loop is an [`EventLoop`] with its epoll instance and unix sockets. shuttle does not switch threads at the
//! sockets. So the thread of a loop also runs the clients of the loop. A loop without work waits for the test double of
//! its waker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use shuttle::future::block_on;
use shuttle::sync::Barrier;

use super::{explore_some, on_each};
use crate::event_loop::clock::virtual_clock;
use crate::event_loop::siblings::process::{Process, Settings};
use crate::event_loop::tests::simulation::client::Client;
use crate::event_loop::*;
use crate::fd::Fd;
use crate::message::Delivery;
use crate::peer::Peer;
use crate::protocol::close::CloseCode;
use crate::protocol::request::Request;
use crate::protocol::upgrade::Upgrade;

/// The group of all clients.
const GROUP: &str = "g";

/// The number of pushes of each loop.
const PUSHES: usize = 3;

/// The maximum number of turns without a wait.
const TURNS_MAX: usize = 1000;

/// The number that a push of a command has in place of the number of a loop.
const OF_COMMAND: usize = 9;

/// Accepts upgrades with the uid of the query, and adds the clients to the group.
struct Joiner;

impl Handler for Joiner {
    fn on_upgrade(&mut self, _: &mut Context<'_>, _: Fd, request: &Request<'_>) -> Upgrade {
        let accept = Upgrade::accept();
        request.query("uid").map(|uid| accept.clone().uid(uid)).unwrap_or(accept).into()
    }

    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, _: &Request<'_>) {
        assert!(ctx.join(fd, GROUP).is_done());
    }
}

/// The loops before they start.
struct Loops {
    prepared: Vec<Mutex<Option<Prepared>>>,
    wakers: Vec<Arc<Waker>>,
    process: Arc<Process>,
}

/// A loop and its clients.
struct Running {
    event_loop: EventLoop<Joiner>,
    events: Events,
    waker: Arc<Waker>,
    clients: Vec<Client>,
}

impl Loops {
    /// Prepares loops. Each read of the virtual clock advances the clock by `step`.
    fn new(loops: usize, second_login: SecondLogin, step: Duration) -> Loops {
        virtual_clock::start(step);
        let config = Config {
            limits: Limits::default(),
            heartbeat: Heartbeat::Off,
            origins: Origins::default(),
            second_login,
            proxies: ProxyFilter::default(),
            catches_signals: false,
        };
        let Config { limits, origins, proxies, .. } = config.clone();
        let parts: Vec<_> = (0..loops).map(|_| open(1000).expect("an epoll instance can be created")).collect();
        let wakers: Vec<_> = parts.iter().map(|(_, inbox)| inbox.waker()).collect();
        let settings = Settings { limits: limits.clone(), origins, proxies };
        let process = Arc::new(Process::new(wakers.clone().into(), second_login, settings));
        let (fleet, epoch) = (Fleet::new(1000), Epoch::begin());
        fleet.set(parts.iter().map(|(_, inbox)| inbox.sender()).collect());
        let prepare = |(index, parts)| {
            let endpoint = Endpoint { listener: None, kind: ListenerKind::Client, tls: None };
            let prepared = Prepared::new(config.clone(), 1000, vec![endpoint], parts, fleet.clone(), epoch);
            let siblings = Siblings::new(index, Arc::clone(&process), limits.clone());
            Mutex::new(Some(prepared.expect("the loop can be created").with_siblings(siblings)))
        };
        let prepared = parts.into_iter().enumerate().map(prepare).collect();
        Loops { prepared, wakers, process }
    }

    fn start(&self, index: usize) -> Running {
        let prepared = self.prepared[index].lock().unwrap_or_else(PoisonError::into_inner).take();
        Running {
            event_loop: EventLoop::new(prepared.expect("a loop starts once"), Joiner),
            events: Events::with_capacity(EVENTS_MAX),
            waker: Arc::clone(&self.wakers[index]),
            clients: Vec::new(),
        }
    }

    /// Checks that no connection and no name is left.
    fn check_end(&self) {
        assert_eq!(self.process.directory.counts(), (0, 0));
        assert!((0..self.wakers.len()).all(|index| self.process.open(index) == 0));
    }
}

impl Running {
    /// Connects the only client of this loop, and runs turns until the client has a response.
    ///
    /// A loop sends the socket of a second client to another loop, if that loop has no client.
    fn connect(&mut self, target: &str) {
        let (server, client) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets can be created");
        server.set_nonblocking(true).expect("the socket can be made nonblocking");
        self.clients.push(Client::upgrade(client, target));
        let EventLoop { acceptor, core, poll, .. } = &mut self.event_loop;
        acceptor.admit(server.into(), Peer::Unix, 0, core, poll.registry());
        let has_response = |running: &mut Running| {
            running.turn();
            running.clients.iter().all(Client::has_response)
        };
        assert!((0..TURNS_MAX).any(|_| has_response(self)), "the client must get a response");
    }

    /// Calls a method of the context, as a handler does.
    fn call<T>(&mut self, call: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let mut result = None;
        self.event_loop.call_untimed("the test", None, |_, ctx| result = Some(call(ctx)));
        self.event_loop.handle_pending();
        result.expect("the call does not panic")
    }

    /// Runs one turn, and then the clients. Returns whether a client has disconnected.
    fn turn(&mut self) -> bool {
        self.event_loop.turn(&mut self.events, Some(Duration::ZERO)).expect("the turn succeeds");
        let mut has_changed = false;
        for client in &mut self.clients {
            let was_connected = client.is_connected();
            client.receive();
            has_changed |= was_connected && !client.is_connected();
        }
        has_changed
    }

    /// Runs turns until all loops have drained. Returns the clients.
    fn run(mut self) -> Vec<Client> {
        let (mut has_changed, mut turns) = (true, 0);
        while !self.event_loop.is_over() {
            turns += 1;
            if !has_changed && self.event_loop.timeout(clock::now()) != Some(Duration::ZERO) {
                self.waker.wait();
                turns = 0;
            }
            assert!(turns < TURNS_MAX, "a loop without work must wait");
            has_changed = self.turn();
        }
        self.clients
    }
}

/// One client connects to each loop. All clients have the same uid. Meanwhile, another thread asks for the connections
/// of the uid.
fn log_in(loops: usize, policy: SecondLogin) {
    let all = Loops::new(loops, policy, Duration::ZERO);
    let (first, opened) = (oneshot::channel(), AtomicUsize::new(0));
    let (sender, receiver) = (Mutex::new(Some(first.0)), Mutex::new(Some(first.1)));
    let clients = on_each(loops + 1, |index| {
        if index < loops {
            let mut running = all.start(index);
            if index == 0 {
                let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take().expect("one loop sends");
                assert!(sender.send(running.call(|ctx| ctx.remote())).is_ok());
            }
            running.connect("/?uid=u");
            opened.fetch_add(1, Ordering::SeqCst);
            return running.run();
        }
        let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner).take().expect("one thread asks");
        let remote = block_on(receiver.into_future()).expect("the loop sends its handle");
        loop {
            let before = opened.load(Ordering::SeqCst);
            let fds = block_on(remote.fds_of("u").into_future()).expect("the loops run");
            assert!(fds.len() <= 1 && (before == 0 || !fds.is_empty()), "after {before} logins: {fds:?}");
            if before == loops {
                remote.shutdown().expect("the loops run");
                return Vec::new();
            }
        }
    });
    let clients: Vec<Client> = clients.into_iter().flatten().collect();
    let drained = clients.iter().filter(|client| client.close_code == Some(1001)).count();
    assert_eq!((clients.len(), drained), (loops, 1), "one client keeps the uid: {clients:?}");
    let is_other = |client: &&Client| match policy {
        SecondLogin::KickOld => client.close_code.map(CloseCode::from) == Some(CloseCode::KICKED),
        _ => client.refused.is_some(),
    };
    assert_eq!(clients.iter().filter(is_other).count(), loops - 1, "{clients:?}");
    all.check_end();
}

/// Returns the numbers of the texts of one source, in the order of arrival.
fn numbers_of(client: &Client, source: usize) -> Vec<usize> {
    let parse = |text: &String| -> (usize, usize) {
        let (source, number) = text.split_once(':').expect("the text has two numbers");
        (source.parse().expect("a number"), number.parse().expect("a number"))
    };
    client.texts.iter().map(parse).filter(|(from, _)| *from == source).map(|(_, number)| number).collect()
}

/// Each loop pushes to the group. The first loop, or a command of another thread, then requests the shutdown.
fn push_and_shut_down(loops: usize, by_command: bool, step: Duration) {
    let all = Loops::new(loops, SecondLogin::Multi, step);
    let (channel, opened) = (oneshot::channel(), Barrier::new(loops));
    let (sender, receiver) = (Mutex::new(Some(channel.0)), Mutex::new(Some(channel.1)));
    let clients = on_each(loops + usize::from(by_command), |index| {
        if index < loops {
            let mut running = all.start(index);
            running.connect("/");
            opened.wait();
            if index == 0 {
                let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take().expect("one loop sends");
                let is_sent = sender.send(running.call(|ctx| ctx.remote())).is_ok();
                assert!(is_sent || !by_command);
            }
            for number in 0..PUSHES {
                running.call(|ctx| ctx.push_group(GROUP, &*format!("{index}:{number}")));
                if index == 0 && number == PUSHES - 1 && !by_command {
                    running.call(|ctx| ctx.shutdown());
                }
                running.turn();
            }
            return running.run();
        }
        let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner).take().expect("one thread asks");
        let remote = block_on(receiver.into_future()).expect("the loop sends its handle");
        let delivery = block_on(remote.push_group(GROUP, &*format!("{OF_COMMAND}:0")).into_future());
        let expected = Delivery { matched: loops, queued: loops, ..Delivery::default() };
        assert_eq!(delivery.expect("the loops run"), expected);
        remote.shutdown().expect("the loops run");
        Vec::new()
    });
    let requester = if by_command { OF_COMMAND } else { 0 };
    let expected: Vec<usize> = (0..if by_command { 1 } else { PUSHES }).collect();
    for client in clients.iter().flatten() {
        assert_eq!(client.close_code, Some(1001), "{client:?}");
        assert_eq!(numbers_of(client, requester), expected, "the pushes before the shutdown arrive: {client:?}");
        for source in 0..loops {
            let numbers = numbers_of(client, source);
            assert!(numbers.is_sorted_by(|one, next| one < next), "{client:?}");
        }
    }
    assert_eq!(clients.iter().flatten().count(), loops);
    all.check_end();
}

#[test]
fn a_uid_has_one_connection_on_all_loops() {
    for policy in [SecondLogin::KickOld, SecondLogin::RejectNew] {
        (2..=4).for_each(|loops| explore_some(move || log_in(loops, policy)));
    }
}

#[test]
fn a_shutdown_loses_no_push_that_precedes_it() {
    for by_command in [false, true] {
        explore_some(move || push_and_shut_down(2, by_command, Duration::ZERO));
        // With this clock, a turn carries out only a part of the posts of a batch.
        explore_some(move || push_and_shut_down(3, by_command, Duration::from_millis(1)));
    }
}
