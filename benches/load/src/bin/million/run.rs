//! The measurements of one server with a fixed number of connections.

use std::collections::HashSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use fdpush_load::process;

use crate::api::{Api, Turns, member};
use crate::clients::{BROADCAST, Clients, DIRECT, Kind, uid};
use crate::memory::{self, Memory};
use crate::report::{Report, grouped};
use crate::server::{API_PORT, PORT, Server};
use crate::{Options, failure};

/// The number of pushes to one uid whose times are measured.
const PUSHES: usize = 1000;

/// The number of broadcasts that are sent without a wait between them.
const BROADCASTS_IN_FLIGHT: u16 = 3;

/// One client in every `SILENT_EVERY` clients answers no ping.
const SILENT_EVERY: usize = 100;

/// The maximum number of clients that connect again after they left.
const NEW_MAX: usize = 100_000;

/// The maximum number of names in one command of the API.
const NAMES_MAX: usize = 10_000;

/// The maximum duration of a turn in milliseconds. A longer turn counts as a stall. The next bucket of the histogram
/// ends at 65.5 ms.
const TURN_MS_MAX: f64 = 32.768;

/// The time to wait until the server has returned freed memory to the kernel. The server returns memory at shorter
/// intervals.
const RETURN_TIME: Duration = Duration::from_secs(4);

/// The maximum memory, in bytes, that all connections share: the journal (the output buffer of the loop), spare queues
/// and lists.
const SHARED_BYTES_MAX: f64 = (4 << 20) as f64;

/// The bits of an fd that contain its slot.
const SLOT_MASK: u64 = (1 << 24) - 1;

/// A server with clients.
pub struct Run<'a> {
    options: &'a Options,
    report: &'a mut Report,
    server: Server,
    clients: Clients,
    api: Api,
    /// The number of connections at the start.
    count: usize,
    /// The values at the start of the current phase: the server's CPU time, the turns of its loop, and the time that
    /// the host has stolen from the virtual machine.
    cpu: Duration,
    turns: Turns,
    stolen: f64,
}

impl<'a> Run<'a> {
    /// Starts a server with this period of pings.
    pub fn start(options: &'a Options, report: &'a mut Report, count: usize, ping: Duration) -> io::Result<Run<'a>> {
        let server = Server::start(&options.server, &arguments(options, count, ping), API_PORT)?;
        let cpu = process::cpu_time(server.pid())?;
        let mut api = Api::connect(API_PORT)?;
        let turns = api.turns()?;
        let clients = Clients::new(PORT)?;
        Ok(Run { options, report, server, clients, api, count, cpu, turns, stolen: memory::stolen_seconds()? })
    }

    /// Opens connections up to each of `sizes`, and measures memory and upgrades at each size.
    pub fn open(&mut self, sizes: &[usize], kind: Kind) -> io::Result<()> {
        let name = kind.name();
        // The first connections load code into memory and fill the shared lists.
        self.clients.open_until(100.min(sizes[0]), kind)?;
        let empty = self.settled_memory()?;
        let mut opened = 100.min(sizes[0]);
        let base = opened;
        for &size in sizes {
            self.begin()?;
            let started = Instant::now();
            if let Err(error) = self.clients.open_until(size, kind) {
                println!("stats of the server: {}", self.api.call("/api/stats", "")?);
                return Err(error);
            }
            if !self.clients.counts.ends.is_empty() {
                return Err(failure(format!("connections ended while others were opened: {:?}", self.clients.counts)));
            }
            let rate = (size - opened) as f64 / started.elapsed().as_secs_f64();
            let micros = self.end(&format!("opening, {name}"), size)?.as_secs_f64() * 1e6 / (size - opened) as f64;
            let now = self.settled_memory()?;
            let each = |bytes: u64| bytes as f64 / (size - base) as f64;
            let user = each(now.user.saturating_sub(empty.user));
            let (limit, text) = kind.user_bytes_max(size);
            self.report.check(
                &format!("user space, {name}, bytes each"),
                size,
                text,
                format!("{user:.0}"),
                user <= limit,
            );
            let title = format!("upgrades a second from {} on, {name}", grouped(opened));
            self.report.tell(&title, size, "flat", format!("{rate:.0}, {micros:.1} µs of the server's CPU time each"));
            self.report.point(&format!("upgrade, {name}"), size, micros);
            self.tell_kernel(&empty, &now, size, base, kind);
            opened = size;
        }
        Ok(())
    }

    /// Reads the memory after the server has returned freed memory to the kernel.
    fn settled_memory(&self) -> io::Result<Memory> {
        let mut bytes = process::anonymous_bytes(self.server.pid())?;
        loop {
            thread::park_timeout(RETURN_TIME);
            let now = Memory::of(self.server.pid())?;
            if now.user >= bytes {
                return Ok(now);
            }
            bytes = now.user;
        }
    }

    fn tell_kernel(&mut self, empty: &Memory, now: &Memory, size: usize, base: usize, kind: Kind) {
        if kind != Kind::Bare {
            return;
        }
        let slab = now.slab_since(empty);
        let ends = 2.0 * (size - base) as f64;
        let each = |bytes: u64| format!("{:.0}", bytes as f64 / ends);
        let used = empty.available.saturating_sub(now.available).saturating_sub(now.user.saturating_sub(empty.user));
        self.report.tell("kernel, slab of one end of a connection, bytes", size, "about 4,500", each(slab.total()));
        self.report.tell("… sockets (TCP, inode)", size, "3,200", each(slab.sockets));
        self.report.tell("… epoll", size, "200", each(slab.epoll));
        self.report.tell("… files (filp, dentry)", size, "450", each(slab.files));
        self.report.tell("… other slab caches", size, "", each(slab.other));
        self.report.tell(
            "all memory but the server's user space, of one end of a connection, bytes",
            size,
            "slab, tables",
            each(used),
        );
    }

    /// Runs all phases that need open connections, in a fixed order.
    pub fn measure(mut self, has_heartbeat: bool) -> io::Result<()> {
        self.push()?;
        self.broadcast()?;
        self.queries()?;
        if has_heartbeat {
            self.heartbeat()?;
        }
        self.leave_and_return()?;
        self.drain()
    }

    fn begin(&mut self) -> io::Result<()> {
        self.clients.reset();
        self.turns = self.api.turns()?;
        self.stolen = memory::stolen_seconds()?;
        self.cpu = process::cpu_time(self.server.pid())?;
        Ok(())
    }

    /// Ends a phase: prints its longest turn, and returns the server's CPU time.
    fn end(&mut self, phase: &str, count: usize) -> io::Result<Duration> {
        let cpu = process::cpu_time(self.server.pid())? - self.cpu;
        let turns = self.api.turns()?;
        let (longest, long) = (turns.longest_since(&self.turns), turns.long_since(&self.turns));
        let stolen = memory::stolen_seconds()? - self.stolen;
        let note = if long == 0 {
            String::new()
        } else {
            format!("; {long} turns over the expected maximum; {stolen:.2} s stolen by the host")
        };
        let (expected, came) = (format!("at most {TURN_MS_MAX:.1} ms"), format!("at most {longest:.1} ms{note}"));
        self.report.tell(&format!("longest turn, {phase}"), count, expected, came);
        Ok(cpu)
    }

    /// Handles events until a condition is true.
    fn turn_until(&mut self, what: &str, timeout: Duration, is_met: impl Fn(&Clients) -> bool) -> io::Result<()> {
        let started = Instant::now();
        while !is_met(&self.clients) {
            self.clients.turn(Duration::from_millis(100))?;
            self.options.sample_memory()?;
            if started.elapsed() > timeout {
                return Err(failure(format!("timeout: {what}; {:?}", self.clients.counts)));
            }
        }
        Ok(())
    }

    fn push(&mut self) -> io::Result<()> {
        self.begin()?;
        let mut times = Vec::with_capacity(PUSHES);
        for number in 0..PUSHES as u32 {
            // Multiples of a prime are spread over all clients, so that the receivers include clients that connected
            // first and clients that connected last.
            let to = (number as usize * 7_368_787) % self.count;
            let body = format!(r#"{{"uid":"{}","text":"{}{number}"}}"#, uid(to), char::from(DIRECT));
            let sent = Instant::now();
            self.api.send("/api/push", &body)?;
            self.turn_until("the client must receive the push", Duration::from_secs(60), |clients| {
                clients.counts.direct == Some((to, number))
            })?;
            times.push(sent.elapsed());
            let answer = self.api.receive()?;
            if member(&answer, "queued")? != 1 {
                return Err(failure(format!("a push to one uid was answered with {answer}")));
            }
        }
        let cpu = self.end("pushes to one uid", self.count)?;
        times.sort_unstable();
        let ms = |at: usize| times[at].as_secs_f64() * 1e3;
        let came = format!("p50 {:.2} ms, p99 {:.2} ms", ms(PUSHES / 2), ms(PUSHES * 99 / 100));
        self.report.tell("1,000 pushes to one uid each, time until received", self.count, "as with 10,000", came);
        self.report.point("push to a uid", self.count, cpu.as_secs_f64() * 1e6 / PUSHES as f64);
        Ok(())
    }

    fn broadcast(&mut self) -> io::Result<()> {
        let dropped = memory::dropped_packets()?;
        self.begin()?;
        let started = Instant::now();
        self.send_broadcasts(1)?;
        let took = started.elapsed();
        let cpu = self.end("a broadcast", self.count)?;
        let rate = self.count as f64 / took.as_secs_f64();
        let came = format!("{:.2} s, {rate:.0} deliveries a second", took.as_secs_f64());
        self.report.tell("broadcast, time until all clients have received it", self.count, "linear", came);
        self.report.point("delivery of a broadcast", self.count, cpu.as_secs_f64() * 1e6 / self.count as f64);
        self.begin()?;
        self.send_broadcasts(BROADCASTS_IN_FLIGHT)?;
        self.end("three broadcasts at the same time", self.count)?;
        // If a client had received a broadcast twice or in the wrong order, the program would have ended with an error.
        let expected = self.count * usize::from(BROADCASTS_IN_FLIGHT);
        let came = self.clients.counts.broadcasts;
        let title = "deliveries of three broadcasts at the same time, each once and in order";
        self.report.check(title, self.count, grouped(expected), grouped(came), expected == came);
        let dropped = memory::dropped_packets()? - dropped;
        let title = "packets that the loopback interface dropped during the broadcasts";
        self.report.check(title, self.count, 0, dropped, dropped == 0);
        Ok(())
    }

    /// Sends several broadcasts without a wait between them, and then waits until all clients have received them.
    fn send_broadcasts(&mut self, number: u16) -> io::Result<()> {
        let open = self.clients.open().count();
        for _ in 0..number {
            self.clients.broadcast += 1;
            let body = format!(r#"{{"all":true,"text":"{}{}"}}"#, char::from(BROADCAST), self.clients.broadcast);
            self.api.send("/api/push", &body)?;
        }
        let deliveries = open * usize::from(number);
        self.turn_until("all clients must receive the broadcasts", Duration::from_secs(1800), |clients| {
            clients.counts.broadcasts >= deliveries || !clients.counts.ends.is_empty()
        })?;
        if !self.clients.counts.ends.is_empty() {
            return Err(failure(format!("connections ended during a broadcast: {:?}", self.clients.counts)));
        }
        for _ in 0..number {
            let answer = self.api.receive()?;
            let (matched, queued) = (member(&answer, "matched")?, member(&answer, "queued")?);
            if (matched, queued) != (open, open) {
                return Err(failure(format!("a broadcast to {open} was answered with {answer}")));
            }
        }
        Ok(())
    }

    /// Measures the lists and counters of the API, each with one request.
    fn queries(&mut self) -> io::Result<()> {
        let uids: Vec<String> = (0..NAMES_MAX.min(self.count)).map(|index| format!("\"{}\"", uid(index))).collect();
        let online = format!(r#"{{"uids":[{}]}}"#, uids.join(","));
        let queries = [
            ("/api/stats", "", "GET /api/stats"),
            ("/metrics", "", "GET /metrics"),
            ("/api/users?limit=1000", "", "GET /api/users"),
            ("/api/groups?limit=1000", "", "GET /api/groups"),
            ("/api/connections?limit=1000", "", "GET /api/connections"),
            ("/api/online", &online, "POST /api/online, 10,000 uids"),
        ];
        for (path, body, name) in queries {
            self.begin()?;
            let started = Instant::now();
            self.api.call(path, body)?;
            let took = started.elapsed().as_secs_f64() * 1e3;
            let cpu = self.end(name, self.count)?;
            self.report.tell(name, self.count, "", format!("{took:.1} ms"));
            self.report.point(name, self.count, cpu.as_secs_f64() * 1e6);
        }
        Ok(())
    }

    fn heartbeat(&mut self) -> io::Result<()> {
        let every = Duration::from_secs(self.options.heartbeat_seconds);
        let silent = self.count.div_ceil(SILENT_EVERY);
        self.begin()?;
        self.clients.silence((0..self.count).step_by(SILENT_EVERY));
        let started = Instant::now();
        let mut found = Duration::ZERO;
        // The server sends the last ping to a silent client within one period of the last answer, and closes the
        // connection one period later.
        let limit = every * 2 + Duration::from_secs(2);
        while started.elapsed() < limit {
            self.clients.turn(Duration::from_millis(50))?;
            if self.clients.counts.silent_ends == silent && found.is_zero() {
                found = started.elapsed();
            }
        }
        let cpu = self.end("heartbeats", self.count)?;
        let counts = &self.clients.counts;
        let (pings, wrong, ended) = (counts.pings, counts.ends.values().sum::<usize>(), counts.silent_ends);
        let seconds = self.options.heartbeat_seconds;
        let title = format!("heartbeat of {seconds} s, two periods: clients that answered and were closed");
        self.report.check(&title, self.count, 0, grouped(wrong), wrong == 0);
        let came = format!("{} after {:.1} s", grouped(ended), found.as_secs_f64());
        let expected = format!("{} within {} s", grouped(silent), limit.as_secs());
        self.report.check("silent clients found", self.count, expected, came, ended == silent);
        let answering = self.count - silent;
        let came = format!("{}, {:.1} % of a core", grouped(pings), cpu.as_secs_f64() / limit.as_secs_f64() * 100.0);
        self.report.check("pings to other clients", self.count, format!("at least {}", grouped(answering)), came, {
            pings >= answering
        });
        self.report.point("ping and pong", self.count, cpu.as_secs_f64() * 1e6 / pings.max(1) as f64);
        Ok(())
    }

    fn leave_and_return(&mut self) -> io::Result<()> {
        let leavers: Vec<usize> = self.clients.open().step_by(2).collect();
        let left = self.clients.open().count() - leavers.len();
        let stale: Vec<u64> = leavers.iter().map(|index| self.clients.client(*index).fd).collect();
        let before = self.resources()?;
        self.begin()?;
        let started = Instant::now();
        self.clients.leave(leavers.iter().copied());
        // The server frees a descriptor at the end of the turn in which it closed the connection.
        while self.api.open()? > left || memory::descriptors(self.server.pid())? > before.0 - leavers.len() {
            self.clients.turn(Duration::from_millis(10))?;
            if started.elapsed() > Duration::from_secs(600) {
                return Err(failure("the server did not free the connections of clients that left"));
            }
        }
        let took = started.elapsed().as_secs_f64();
        let cpu = self.end("half leaving at the same time", self.count)?;
        self.report.point("leave", self.count, cpu.as_secs_f64() * 1e6 / leavers.len() as f64);
        let after = self.resources()?;
        let came = format!("{took:.2} s, {:.0} a second", leavers.len() as f64 / took);
        self.report.tell(
            &format!("{} clients leave at the same time", grouped(leavers.len())),
            self.count,
            "linear",
            came,
        );
        let returned = before.0 - after.0;
        let is_met = returned == leavers.len();
        self.report.check("… freed descriptors", self.count, grouped(leavers.len()), grouped(returned), is_met);
        let (before, after) = (before.1 / 1024, after.1 / 1024);
        let came = format!("{} to {} KiB", grouped(before as usize), grouped(after as usize));
        // The shared lists of all connections can grow. Notices about the clients that left may still be queued for
        // the other members of their groups.
        let growth_max = 1024 + leavers.len() as u64 / 4;
        let expected = format!("grows by {} KiB at most", grouped(growth_max as usize));
        self.report.check("… user space", self.count, &expected, came, after <= before + growth_max);
        self.return_to_slots(&leavers, &stale)
    }

    /// Returns the number of descriptors and the user-space bytes of the server, after it has returned freed memory.
    fn resources(&self) -> io::Result<(usize, u64)> {
        Ok((memory::descriptors(self.server.pid())?, self.settled_memory()?.user))
    }

    fn return_to_slots(&mut self, leavers: &[usize], stale: &[u64]) -> io::Result<()> {
        let new = &leavers[..leavers.len().min(NEW_MAX)];
        self.begin()?;
        let started = Instant::now();
        self.clients.reopen(new, Kind::Groups)?;
        let took = started.elapsed().as_secs_f64();
        let cpu = self.end("new connections in freed slots", self.count)?;
        self.report.point("upgrade in a freed slot", self.count, cpu.as_secs_f64() * 1e6 / new.len() as f64);
        let came = format!("{:.0} a second", new.len() as f64 / took);
        self.report.tell(&format!("{} new connections in freed slots", grouped(new.len())), self.count, "", came);
        let slots: HashSet<u64> = stale.iter().map(|fd| fd & SLOT_MASK).collect();
        let earlier: HashSet<u64> = stale.iter().copied().collect();
        let fds = || new.iter().map(|index| self.clients.client(*index).fd);
        let reused = fds().filter(|fd| slots.contains(&(fd & SLOT_MASK))).count();
        let equal = fds().filter(|fd| earlier.contains(fd)).count();
        let title = "… in a freed slot, and with an earlier fd";
        let (expected, came) = (format!("{} and 0", grouped(new.len())), format!("{} and {equal}", grouped(reused)));
        self.report.check(title, self.count, expected, came, reused == new.len() && equal == 0);
        let mut matched = 0;
        for fds in stale.chunks(NAMES_MAX) {
            let fds: Vec<String> = fds.iter().map(u64::to_string).collect();
            let body = format!(r#"{{"fds":[{}],"text":"{}0"}}"#, fds.join(","), char::from(DIRECT));
            matched += member(&self.api.call("/api/push", &body)?, "matched")?;
        }
        let title = format!("pushes to {} stale fds: matched", grouped(stale.len()));
        self.report.check(&title, self.count, 0, matched, matched == 0);
        Ok(())
    }

    fn drain(mut self) -> io::Result<()> {
        let open = self.clients.open().count();
        let drain_for = Duration::from_secs(self.options.drain_seconds);
        self.begin()?;
        let peak = process::peak_resident_bytes(self.server.pid())?;
        self.server.terminate()?;
        let started = Instant::now();
        let status = loop {
            self.clients.turn(Duration::from_millis(20))?;
            // This phase does not print its longest turn, because the API no longer answers when the drain has ended.
            match self.server.ended()? {
                Some(status) => break status,
                None if started.elapsed() > drain_for * 4 + Duration::from_secs(600) => {
                    return Err(failure("the server does not exit"));
                }
                None => {}
            }
        };
        let took = started.elapsed().as_secs_f64();
        self.turn_until("all connections must end", Duration::from_secs(60), |clients| {
            clients.open().next().is_none()
        })?;
        let going_away = self.clients.counts.ends.get(&1001).copied().unwrap_or(0) + self.clients.counts.silent_ends;
        let seconds = self.options.drain_seconds;
        let title = format!("SIGTERM with --drain-for {seconds}s: clients with 1001");
        self.report.check(&title, self.count, grouped(open), grouped(going_away), going_away == open);
        let is_met = status.success() && took >= seconds as f64;
        let came = format!("{status} after {took:.1} s");
        self.report.check(
            "… the exit status of the process",
            self.count,
            format!("exit status: 0 after {seconds} s"),
            came,
            is_met,
        );
        self.report.tell("peak of the server's resident memory, MiB", self.count, "", peak >> 20);
        Ok(())
    }
}

fn arguments(options: &Options, count: usize, ping: Duration) -> Vec<String> {
    let drain_time_max = options.drain_seconds * 4 + 600;
    [
        "serve",
        &format!("--listen=0.0.0.0:{PORT}"),
        &format!("--api=127.0.0.1:{API_PORT}"),
        "--auth=trust",
        "--log=warn",
        &format!("--ping-every={}s", ping.as_secs()),
        "--missed-max=1",
        &format!("--memberships-max={}", 4 * count),
        &format!("--drain-for={}s", options.drain_seconds),
        &format!("--drain-time-max={drain_time_max}s"),
    ]
    .map(str::to_owned)
    .to_vec()
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bare => "bare",
            Kind::Uid => "with a uid",
            Kind::Groups => "with a uid and 3 groups",
            Kind::UwsBare => "uWebSockets, bare",
            Kind::UwsUid => "uWebSockets, with a uid",
        }
    }

    /// Returns the expected maximum of user-space bytes for each connection, and the text for the table.
    pub fn user_bytes_max(self, count: usize) -> (f64, &'static str) {
        let shared = SHARED_BYTES_MAX / count as f64;
        match self {
            Kind::Bare => (1.1 * 157.0 + shared, "157"),
            Kind::Uid => (1.1 * 213.0 + shared, "213"),
            // A membership takes 60 bytes in a large group, and up to 300 in a group of one member.
            Kind::Groups => (1.1 * 213.0 + 3.0 * 200.0 + shared, "213 and 3 times 60 to 200"),
            Kind::UwsBare => (f64::INFINITY, "254"),
            Kind::UwsUid => (f64::INFINITY, "263"),
        }
    }
}
