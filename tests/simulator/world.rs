//! One run: a server, its clients, and virtual time from the seed.

use fdpush::Slot;
use std::cell::RefCell;
use std::rc::Rc;

use fdpush::sim::{Hello, Queued, Tick};

use crate::client::Client;
use crate::coverage::{Tally, count, hit, take};
use crate::rng::Rng;
use crate::server::{Arrival, Server};
use crate::setting::Setting;
use crate::wire::Wire;

/// After the start of the shutdown, all connections must end within this number of turns.
const LAST_TURNS_MAX: usize = 20_000;

/// The capacity, in bytes, of a pipe that can hold all records of a handshake.
const HANDSHAKE_BYTES: usize = 2000;

/// A run.
struct World {
    setting: Setting,
    rng: Rng,
    /// The generator of the choices about TLS. This generator is separate, so that the choices about TLS do not change
    /// runs without TLS.
    tls_rng: Rng,
    server: Server,
    clients: Vec<Client>,
    now: Tick,
    arrived: usize,
}

/// Runs a seed. Returns the number of times that each situation occurred, and the digest of the run. Panics if the
/// server differs from the oracle.
pub fn run(seed: u64) -> (Tally, u64) {
    take();
    let mut rng = Rng::new(seed);
    let mut setting = Setting::draw(&mut rng);
    setting.draw_fan_outs(seed);
    let server = Server::new(&setting, rng.fork());
    let tls_rng = Rng::new(!seed);
    let mut world = World { setting, rng, tls_rng, server, clients: Vec::new(), now: Tick(0), arrived: 0 };
    for _ in 0..world.setting.turns {
        world.pass_time();
        world.turn();
    }
    world.end();
    take()
}

impl World {
    fn turn(&mut self) {
        let signalled = self.step_clients();
        let arrivals = self.arrivals();
        let accepted = self.server.turn(self.now, &signalled, &arrivals);
        for (arrival, fd) in arrivals.into_iter().zip(accepted) {
            let Some(fd) = fd else { continue };
            self.arrived += 1;
            let model = self.server.oracle.model(fd);
            let mut client = Client::new(arrival.wire, model, self.rng.fork(), &self.setting);
            // Some clients speak TLS to a plain listener, or plain HTTP to a TLS listener.
            if self.setting.tls_share > 0 && arrival.is_tls != self.tls_rng.one_in(24) {
                let hellos = [Hello::Tls13, Hello::Tls13, Hello::Tls13Retried, Hello::Tls12];
                client.secure(*self.tls_rng.pick(&hellos), model);
            }
            self.clients.push(client);
        }
        hit("turn");
        if self.rng.one_in(16) {
            self.server.check();
            self.remove_models();
        }
    }

    /// Advances the time to that of the next turn. Some turns are very late, as on a machine that was suspended.
    fn pass_time(&mut self) {
        let next = self.server.clock.next();
        let far = match self.rng.below(1000) {
            0 => 1 << self.rng.below(40),
            1..10 => self.rng.skewed(100_000),
            _ => 0,
        };
        if far > 0 {
            hit("clock jump");
            self.now = Tick(self.now.0 + far as u64);
            return;
        }
        let later = match self.rng.below(10) {
            _ if self.server.is_behind() => self.rng.below(2),
            0..3 => self.rng.below(2),
            3..9 => self.rng.below(self.setting.pace + 1),
            _ => self.rng.skewed(2000),
        };
        let later = Tick(self.now.0 + later as u64);
        self.now = next.map_or(later, |next| later.min(next)).max(self.now);
    }

    /// Runs a step of some clients. Returns the slots that may have events.
    fn step_clients(&mut self) -> Vec<Slot> {
        let moves = self.clients.len() / 8 + 2;
        let mut signalled = Vec::new();
        for _ in 0..moves.min(self.clients.len()) {
            let at = self.rng.below(self.clients.len());
            signalled.extend(self.step_client(at));
        }
        signalled
    }

    fn step_client(&mut self, at: usize) -> Option<Slot> {
        let client = self.clients.get_mut(at)?;
        let fd = client.fd;
        client.act(&mut self.server.oracle);
        if client.is_done {
            self.clients.swap_remove(at);
        }
        self.server.table.slot_of(fd)
    }

    fn arrivals(&mut self) -> Vec<Arrival> {
        let room = self.setting.slots_max.saturating_sub(self.server.table.count());
        let left = self.setting.clients_max.saturating_sub(self.arrived);
        let most = (self.setting.slots_max / 8 + 2).min(left).min(room + 1);
        let count = if self.rng.one_in(2) { self.rng.below(most + 1) } else { 0 };
        let max = self.setting.pipe_bytes_max;
        let arrival = |_| {
            let (mut up, mut down) = (self.rng.within(1..=max), self.rng.within(1..=max));
            let is_tls = self.tls_rng.one_in(self.setting.tls_share);
            if is_tls && !self.tls_rng.one_in(3) {
                // A handshake through small pipes takes too many turns, so most TLS connections have larger pipes.
                (up, down) = (up.max(HANDSHAKE_BYTES), down.max(HANDSHAKE_BYTES));
            }
            Arrival { wire: Rc::new(RefCell::new(Wire::new(up, down))), is_tls }
        };
        (0..count).map(arrival).collect()
    }

    /// Removes the models of the connections that both the server and the client have freed.
    fn remove_models(&mut self) {
        let here: std::collections::BTreeSet<_> = self.clients.iter().map(|client| client.fd).collect();
        self.server.oracle.models.retain(|fd, model| !model.is_reaped || here.contains(fd));
    }

    /// Ends the run. All clients leave, the server shuts down, and no connection may remain.
    fn end(&mut self) {
        self.setting.clients_max = 0;
        for client in &mut self.clients {
            client.leave_soon();
        }
        for _ in 0..self.rng.below(50) {
            self.pass_time();
            self.turn();
        }
        self.server.drain();
        self.server.commands_a_turn = 0;
        let timers: Vec<u32> = self.server.timers.keys().copied().collect();
        for index in timers {
            self.server.call_cancel(index);
        }
        let mut turns = 0;
        while self.server.table.count() > 0 {
            turns += 1;
            assert!(
                turns < LAST_TURNS_MAX,
                "all connections must end within {LAST_TURNS_MAX} turns of the shutdown, but {} are left",
                self.server.table.count()
            );
            self.pass_time();
            self.turn();
        }
        while !self.clients.is_empty() {
            self.step_client(self.clients.len() - 1);
        }
        self.remove_models();
        self.check_end();
    }

    fn check_end(&self) {
        let server = &self.server;
        server.check();
        assert_eq!(server.opened, server.closed, "each opened connection must be closed at the end of the run");
        assert_eq!(server.table.env().queued, Queued::default(), "no bytes may be left in queues");
        assert_eq!(server.table.env().inbound.bytes(), 0, "no memory may be counted for unfinished messages");
        assert_eq!(server.clock.len(), 0, "no deadlines may be left");
        let registry = &server.registry;
        let left = (registry.user_count(), registry.group_count(), registry.membership_count());
        assert_eq!(left, (0, 0, 0), "no users, groups and memberships may be left at the end");
        assert!(server.oracle.models.is_empty(), "no models may be left");
        let counts = server.table.shared().counts;
        let begun = counts.full + counts.resumed + counts.failed + counts.abandoned + counts.plain_http;
        assert_eq!(begun, server.handshakes_begun, "each handshake that began must be counted once: {counts:?}");
        if counts.plain_http > 0 {
            count("tls: plain HTTP refused", counts.plain_http);
        }
        count("virtual hours", self.now.0 / 3_600_000);
    }
}
