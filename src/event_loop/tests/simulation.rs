//! Simulates one to four loops under one virtual clock, and compares them with an oracle.
//!
//! The loops are real: core, table, registry, directory, inboxes, batches and epoll. The loops run on this thread, one
//! turn at a time, in a random order that the seed determines. Each read of the virtual clock advances the clock, so
//! that a turn can end before all posts are carried out. Handlers call random methods of [`Context`] between turns,
//! clients connect and disconnect, and another thread sends commands. For each message, the oracle knows the clients
//! that must receive the message and the clients that may receive it. The oracle also knows the order of the messages
//! of each source, and the owner of each uid. At the end of a run, the directory is compared with all registries.
//!
//! ```text
//! cargo test --lib simulation                            the first seeds
//! LOOPS_SEEDS=10000 cargo test --lib simulation          more seeds
//! LOOPS_SEED=123 cargo test --lib simulation             one seed
//! ```
//!
//! Each fault in the table was added to the code once. The table has the first seed that finds the fault.
//!
//! | fault | seed |
//! |---|---|
//! | directory: `release` does not compare the owner of the uid with the connection | 4 |
//! | directory: `add` does not count | 0 |
//! | batch: `append` does not move the ranges of the payloads | 0 |
//! | inbox: the remaining posts are carried out after later items | 199 |
//! | claim: a kick ignores a later claim of the same connection | 955 |
//! | claim: the replaced owner is not kicked | 4 |
//! | push: a push does not follow a join that is on its way | 0 |
//! | shutdown: the shutdown is sent before the posts | 0 |

pub mod client;
mod oracle;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::rc::Rc;

use super::*;
use crate::event_loop::clock::virtual_clock;
use crate::event_loop::siblings::process::{Process, Settings};
use crate::fd::Fd;
use crate::message::Outcome;
use crate::peer::Peer;
use crate::protocol::close::CloseCode;
use crate::protocol::request::Request;
use crate::protocol::upgrade::Upgrade;
use crate::registry::Change;

use client::Client;
use oracle::{Id, Names, Oracle, Receivers};

/// The number of seeds if `LOOPS_SEEDS` is not set.
const SEEDS: u64 = 16;

/// The number of steps of a run.
const STEPS: usize = 400;

/// The maximum number of clients that are connected at the same time.
const CLIENTS_MAX: usize = 10;

const UIDS: [&str; 3] = ["a", "b", "c"];
const GROUPS: [&str; 3] = ["x", "y", "z"];

/// Generates random numbers, with SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }

    fn some(&mut self, from: &[&str]) -> BTreeSet<String> {
        (0..1 + self.below(3)).map(|_| self.pick(from).to_owned()).collect()
    }
}

/// The fds of the clients whose WebSockets have opened.
type Opened = Rc<RefCell<BTreeMap<Id, Fd>>>;

/// Accepts upgrades with the uid of the query, and records the fds.
struct Recorder(Opened);

impl Handler for Recorder {
    fn on_upgrade(&mut self, _: &mut Context<'_>, _: Fd, request: &Request<'_>) -> Upgrade {
        let accept = Upgrade::accept();
        request.query("uid").map(|uid| accept.clone().uid(uid)).unwrap_or(accept).into()
    }

    fn on_open(&mut self, _: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
        let id = request.query("id").and_then(|id| id.parse().ok()).expect("the client has a number");
        self.0.borrow_mut().insert(id, fd);
    }
}

/// One run of the simulation.
struct Simulation {
    rng: Rng,
    policy: SecondLogin,
    loops: Vec<EventLoop<Recorder>>,
    events: Events,
    clients: Vec<Client>,
    opened: Opened,
    oracle: Oracle,
    /// Closures that wait for the replies to pushes of another thread.
    replies: Vec<Box<dyn FnOnce()>>,
    is_ending: bool,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut rng = Rng(seed);
        let loops = 1 + rng.below(4);
        let policy = [SecondLogin::Multi, SecondLogin::KickOld, SecondLogin::RejectNew][rng.below(3)];
        virtual_clock::start(Duration::from_micros([1, 200, 2000][rng.below(3)]));
        let config = Config {
            limits: Limits::default(),
            heartbeat: Heartbeat::Off,
            origins: Origins::default(),
            second_login: policy,
            proxies: ProxyFilter::default(),
            catches_signals: false,
        };
        let parts: Vec<_> = (0..loops).map(|_| open(1000).expect("an epoll instance can be created")).collect();
        let wakers = parts.iter().map(|(_, inbox)| inbox.waker()).collect();
        let settings = Settings {
            limits: config.limits.clone(),
            origins: config.origins.clone(),
            proxies: config.proxies.clone(),
        };
        let process = Arc::new(Process::new(wakers, policy, settings));
        let (fleet, epoch) = (Fleet::new(1000), Epoch::begin());
        fleet.set(parts.iter().map(|(_, inbox)| inbox.sender()).collect());
        let opened = Opened::default();
        let make = |(index, parts)| {
            let endpoint = Endpoint { listener: None, kind: ListenerKind::Client, tls: None };
            let prepared = Prepared::new(config.clone(), 1000, vec![endpoint], parts, fleet.clone(), epoch);
            let mut prepared = prepared.expect("the loop can be created");
            if loops > 1 {
                let siblings = Siblings::new(index, Arc::clone(&process), config.limits.clone());
                prepared = prepared.with_siblings(siblings);
            }
            EventLoop::new(prepared, Recorder(Rc::clone(&opened)))
        };
        Simulation {
            policy,
            loops: parts.into_iter().enumerate().map(make).collect(),
            events: Events::with_capacity(EVENTS_MAX),
            clients: Vec::new(),
            opened: Rc::clone(&opened),
            oracle: Oracle::new(policy != SecondLogin::Multi),
            replies: Vec::new(),
            is_ending: false,
            rng,
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            if self.rng.below(80) == 0 {
                self.settle();
                self.check_maps();
            }
            match self.rng.below(20) {
                0..8 => self.turn_any(),
                8 => self.connect(),
                9 => self.leave(),
                10 => self.command(),
                11 => virtual_clock::advance(Duration::from_millis(self.rng.below(50) as u64)),
                12..15 => self.rename(),
                15 => self.promise(),
                16 => (0..50).for_each(|_| self.push()),
                _ => self.push(),
            }
            self.observe();
        }
        self.settle();
        self.check_maps();
        // No bind or join is pending now, so each of these messages must reach exactly its receivers.
        for _ in 0..10 {
            self.push();
        }
        self.settle();
        self.end();
        for (id, client) in self.clients.iter().enumerate() {
            self.oracle.check(id, &client.texts);
            let is_kicked = client.close_code.is_some_and(|code| CloseCode::from(code) == CloseCode::KICKED);
            assert!(
                !is_kicked || !self.oracle.unreplaced.contains(&id),
                "client {id} owned its uid when it was closed"
            );
        }
        self.replies.into_iter().for_each(|wait| wait());
    }

    // The methods below are the steps of a run.

    fn any_loop(&mut self) -> usize {
        self.rng.below(self.loops.len())
    }

    fn turn_any(&mut self) {
        let index = self.any_loop();
        self.turn(index);
    }

    fn turn(&mut self, index: usize) {
        self.loops[index].turn(&mut self.events, Some(Duration::ZERO)).expect("the turn succeeds");
    }

    /// Calls a method of the context on a loop, as a handler does.
    fn call<T>(&mut self, index: usize, call: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let mut result = None;
        let event_loop = &mut self.loops[index];
        event_loop.call_untimed("the simulation", None, |_, ctx| result = Some(call(ctx)));
        event_loop.handle_pending();
        result.expect("the call does not panic")
    }

    fn connect(&mut self) {
        if self.clients.iter().filter(|client| client.is_connected()).count() >= CLIENTS_MAX {
            return;
        }
        let (server, client) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets can be created");
        server.set_nonblocking(true).expect("the socket can be made nonblocking");
        let id = self.clients.len();
        let uid = if self.rng.below(2) == 0 { format!("&uid={}", self.rng.pick(&UIDS)) } else { String::new() };
        self.clients.push(Client::upgrade(client, &format!("/?id={id}{uid}")));
        let index = self.any_loop();
        let EventLoop { acceptor, core, poll, .. } = &mut self.loops[index];
        acceptor.admit(server.into(), Peer::Unix, 0, core, poll.registry());
    }

    /// Ends a client: it disconnects, or a loop closes it.
    fn leave(&mut self) {
        let Some((id, fd)) = self.any_client() else { return };
        if self.rng.below(2) == 0 {
            self.clients[id].disconnect();
            self.oracle.disconnect(id);
            return;
        }
        let index = self.any_loop();
        self.call(index, |ctx| ctx.close(fd, 4000, "enough"));
    }

    /// Returns a client that was open after the last step.
    fn any_client(&mut self) -> Option<(Id, Fd)> {
        let open: Vec<(Id, Fd)> = self.open().collect();
        (!open.is_empty()).then(|| open[self.rng.below(open.len())])
    }

    fn open(&self) -> impl Iterator<Item = (Id, Fd)> + use<> {
        let opened = self.opened.borrow().clone();
        let is_open: Vec<bool> = opened.values().map(|fd| self.loop_of(*fd).core.open_slot(*fd).is_some()).collect();
        opened.into_iter().zip(is_open).filter(|(_, is_open)| *is_open).map(|(client, _)| client)
    }

    fn index_of(&self, fd: Fd) -> usize {
        fd.slot().index() % self.loops.len()
    }

    fn loop_of(&self, fd: Fd) -> &EventLoop<Recorder> {
        &self.loops[self.index_of(fd)]
    }

    /// Changes the uid or a group of a client, on its loop or from another loop.
    fn rename(&mut self) {
        let Some((id, fd)) = self.any_client() else { return };
        let index = self.any_loop();
        let is_own = index == self.index_of(fd);
        self.oracle.change_names(Some(id));
        match self.rng.below(if self.policy == SecondLogin::Multi || is_own { 6 } else { 4 }) {
            0 => {
                let group = self.rng.pick(&GROUPS);
                self.oracle.send_removal(Some(id), group);
                self.call(index, |ctx| ctx.leave(fd, group));
            }
            1 if self.rng.below(3) == 0 => {
                let group = self.rng.pick(&GROUPS);
                self.oracle.change_names(None);
                self.oracle.send_removal(None, group);
                self.call(index, |ctx| ctx.ungroup(group));
            }
            1 | 2 => {
                let group = self.rng.pick(&GROUPS);
                if self.call(index, |ctx| ctx.join(fd, group)) == Change::Forwarded {
                    self.oracle.send_name(id, group);
                }
            }
            3 | 4 => self.bind(index, id, fd),
            _ => {
                self.oracle.send_removal(Some(id), "");
                self.call(index, |ctx| ctx.unbind(fd));
                self.observe();
                if is_own && self.rng.below(2) == 0 {
                    self.bind(index, id, fd);
                }
            }
        }
    }

    fn bind(&mut self, index: usize, id: Id, fd: Fd) {
        if self.oracle.binds.iter().any(|(bound, _)| *bound == id) {
            return;
        }
        let uid = self.rng.pick(&UIDS);
        self.oracle.send_removal(Some(id), "");
        match self.call(index, |ctx| ctx.bind(fd, uid)) {
            Change::Done => self.oracle.claim(id, uid),
            Change::Forwarded => {
                self.oracle.send_name(id, uid);
                self.oracle.binds.push((id, uid.to_owned()));
            }
            change => assert!(matches!(change, Change::Already | Change::Taken), "{change:?}"),
        }
    }

    /// Adds a client of another loop to a group, and pushes to the group in the same call.
    fn promise(&mut self) {
        let Some((id, fd)) = self.any_client() else { return };
        let (index, group) = (self.any_loop(), self.rng.pick(&GROUPS));
        if index == self.index_of(fd) {
            return;
        }
        self.oracle.change_names(Some(id));
        self.oracle.send_name(id, group);
        let text = self.oracle.next().to_string();
        self.record(Some(index), Receivers::Groups(BTreeSet::from([group.to_owned()])), &[id]);
        let (change, delivery) = self.call(index, |ctx| (ctx.join(fd, group), ctx.push_group(group, &text)));
        assert_eq!(change, Change::Forwarded);
        assert!(delivery.forwarded > 0, "{delivery:?}");
    }

    fn record(&mut self, source: Option<usize>, to: Receivers, promised: &[Id]) -> BTreeSet<Id> {
        let loops = self.loops.len();
        let opened = Rc::clone(&self.opened);
        let is_own = |id: Id| opened.borrow().get(&id).map(|fd| fd.slot().index() % loops) == source;
        self.oracle.send(source, to, promised, is_own)
    }

    /// Pushes to random receivers on a random loop.
    fn push(&mut self) {
        let (index, text) = (self.any_loop(), self.oracle.next().to_string());
        let (to, delivery) = match self.rng.below(7) {
            0 => {
                let Some((id, fd)) = self.any_client() else { return };
                self.record(Some(index), Receivers::Clients([id].into()), &[]);
                let expected = if index == self.index_of(fd) { Outcome::Queued } else { Outcome::Forwarded };
                assert_eq!(self.call(index, |ctx| ctx.push(fd, &text)), expected);
                return;
            }
            1 => {
                let clients: Vec<(Id, Fd)> = self.open().collect();
                let delivery = self.call(index, |ctx| ctx.push_fds(clients.iter().map(|(_, fd)| *fd), &text));
                (Receivers::Clients(clients.into_iter().map(|(id, _)| id).collect()), delivery)
            }
            2 => (Receivers::All, self.call(index, |ctx| ctx.broadcast(&text))),
            kind @ (3 | 4) => {
                let uids = self.rng.some(if kind == 3 { &UIDS[..1] } else { &UIDS });
                self.check_online(index, &uids);
                let delivery = self.call(index, |ctx| match uids.iter().next() {
                    Some(uid) if kind == 3 => ctx.push_uid(uid, &text),
                    _ => ctx.push_uids(&uids, &text),
                });
                (Receivers::Uids(uids), delivery)
            }
            kind => {
                let groups = self.rng.some(if kind == 5 { &GROUPS[..1] } else { &GROUPS });
                let delivery = self.call(index, |ctx| match groups.iter().next() {
                    Some(group) if kind == 5 => ctx.push_group(group, &text),
                    _ => ctx.push_groups(&groups, &text),
                });
                (Receivers::Groups(groups), delivery)
            }
        };
        let expected = self.record(Some(index), to, &[]);
        assert_eq!(delivery.dropped, 0);
        assert!(expected.is_empty() || delivery.matched + delivery.forwarded > 0, "{expected:?}: {delivery:?}");
    }

    /// Checks on a loop whether uids are online.
    fn check_online(&mut self, index: usize, uids: &BTreeSet<String>) {
        for uid in uids {
            let count = self.call(index, |ctx| {
                assert_eq!(ctx.is_online(uid), ctx.connection_count(uid) > 0);
                ctx.connection_count(uid)
            });
            if let Some(online) = self.oracle.online(uid) {
                assert_eq!(count, online.len(), "{uid}: {online:?}");
            }
        }
    }

    /// Sends a command of another thread.
    fn command(&mut self) {
        let text = self.oracle.next().to_string();
        // No loop is recorded as running on this thread. So the server treats the commands as commands of another
        // thread.
        let index = self.any_loop();
        let remote = self.call(index, |ctx| ctx.remote());
        let (to, reply) = match self.rng.below(4) {
            0 => {
                let Some((id, fd)) = self.any_client() else { return };
                drop(remote.push(fd, &text));
                (Receivers::Clients([id].into()), None)
            }
            1 => (Receivers::All, Some(remote.broadcast(&text))),
            2 => {
                let uids = self.rng.some(&UIDS);
                let reply = remote.push_uids(&uids, &text);
                (Receivers::Uids(uids), Some(reply))
            }
            _ => {
                let groups = self.rng.some(&GROUPS);
                let reply = remote.push_groups(&groups, &text);
                (Receivers::Groups(groups), Some(reply))
            }
        };
        if let Some(reply) = reply {
            let wait = move || _ = reply.wait().expect("all loops have carried out the command");
            self.replies.push(Box::new(wait));
        }
        self.record(None, to, &[]);
    }

    // The methods below check the loops.

    /// Passes the uids and groups of all open clients to the oracle.
    fn observe(&mut self) {
        let names: Names = self
            .open()
            .map(|(id, fd)| {
                let core = &self.loop_of(fd).core;
                let groups = core.groups_of(fd).into_iter().map(str::to_owned).collect();
                (id, (core.uid_of(fd).map(str::to_owned), groups))
            })
            .collect();
        self.oracle.observe(names);
        for (id, client) in self.clients.iter_mut().enumerate() {
            let was_connected = client.is_connected();
            client.receive();
            let is_expected = self.is_ending || client.close_code != Some(1001);
            assert!(is_expected && client.close_code != Some(1011), "client {id}: {client:?}");
            assert!(client.is_connected() || !was_connected || client.close_code.is_some() || client.refused.is_some());
        }
    }

    /// Runs all loops until they have nothing to do.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..2000 {
            if quiet == 5 {
                return self.oracle.rest();
            }
            for index in 0..self.loops.len() {
                self.turn(index);
                self.observe();
            }
            let is_busy = |event_loop: &EventLoop<Recorder>| event_loop.timeout(clock::now()) == Some(Duration::ZERO);
            quiet = if self.loops.iter().any(is_busy) { 0 } else { quiet + 1 };
        }
        panic!("the loops must come to rest");
    }

    /// Compares the directory with the registries of all loops.
    fn check_maps(&mut self) {
        for uid in UIDS {
            let bound = |event_loop: &EventLoop<Recorder>| event_loop.core.registry().count_of(uid);
            let by_loop: Vec<usize> = self.loops.iter().map(bound).collect();
            let count = by_loop.iter().sum::<usize>();
            assert!(self.policy == SecondLogin::Multi || count <= 1, "{uid} has {count} connections");
            if let Some(online) = self.oracle.online(uid) {
                assert_eq!(count, online.len(), "{uid}: {online:?}");
            }
            for event_loop in &self.loops {
                assert_eq!(event_loop.core.connection_count(uid), count, "{uid}");
            }
        }
        for group in GROUPS {
            let count: usize =
                self.loops.iter().map(|event_loop| event_loop.core.registry().members(group).len()).sum();
            for event_loop in &self.loops {
                assert_eq!(event_loop.core.member_count(group), count, "{group}");
            }
        }
        for event_loop in &self.loops {
            event_loop.core.check_invariants();
            let Some(siblings) = event_loop.core.siblings() else { continue };
            let of_loop = |index: usize| self.open().filter(|(_, fd)| self.index_of(*fd) == index).count();
            let open: Vec<usize> = (0..self.loops.len()).map(|index| siblings.process().open(index)).collect();
            assert!(open.iter().copied().eq((0..self.loops.len()).map(of_loop)), "{open:?}");
        }
    }

    /// Sends a last message, and then shuts all loops down.
    fn end(&mut self) {
        let (index, text) = (self.any_loop(), self.oracle.next().to_string());
        self.record(Some(index), Receivers::All, &[]);
        self.call(index, |ctx| {
            ctx.broadcast(&text);
            ctx.shutdown();
        });
        self.is_ending = true;
        let open: Vec<Id> = self.open().map(|(id, _)| id).collect();
        self.settle();
        for id in open {
            assert_eq!(self.clients[id].close_code, Some(1001), "client {id} must be closed by the drain");
            assert_eq!(self.clients[id].texts.last(), Some(&text), "client {id} must get the last message");
        }
        for event_loop in &mut self.loops {
            assert!(event_loop.core.is_drained() && event_loop.core.table().count() == 0);
        }
        for round in 0..2 {
            let is_over: Vec<bool> = self.loops.iter_mut().map(EventLoop::is_over).collect();
            assert!(round == 0 || is_over.iter().all(|is_over| *is_over), "{is_over:?}");
        }
    }
}

#[test]
fn several_loops_deliver_what_the_oracle_predicts() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("the variable is a number"));
    let seeds = match number("LOOPS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LOOPS_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| Simulation::new(seed).run());
        assert!(result.is_ok(), "LOOPS_SEED={seed} fails");
    }
}
