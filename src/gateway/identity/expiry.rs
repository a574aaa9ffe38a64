//! Expiry of identities: closes each connection when the identity of its client expires.
//!
//! `exp` is a time of the wall clock, but the timers of the loop use the monotonic clock. The wall clock and the
//! monotonic clock diverge if a person or NTP sets the wall clock, or if the machine is suspended. So a timer only
//! starts a check, and the check compares `exp` with the wall clock. One timer serves all connections. The timer fires
//! when the earliest identity expires, and at least once in each [`CHECK_INTERVAL`].

use std::collections::BTreeSet;
use std::fmt;
use std::iter;
use std::time::Duration;

use fdpush::{Context, Fd, TimerId};

use super::LEEWAY;
use crate::gateway::runtime::portion::{connection_work, take_portion};

/// The maximum interval between two checks of the wall clock.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The maximum number of connections that expire in one check. The next turn of the loop closes the remaining expired
/// connections.
const DUE_MAX: usize = 1024;

/// The connections whose identity expires.
pub struct Expiries {
    /// The connections, sorted by the `exp` of their identity in seconds since 1970.
    by_time: BTreeSet<(u64, Fd)>,
    timer: Option<TimerId>,
    check_interval: Duration,
    /// The function that reads the wall clock, in milliseconds since 1970.
    wall_ms: fn() -> u64,
}

impl Expiries {
    /// Creates an empty set of connections. `wall_ms` reads the wall clock.
    pub fn new(wall_ms: fn() -> u64, check_interval: Duration) -> Expiries {
        Expiries { by_time: BTreeSet::new(), timer: None, check_interval, wall_ms }
    }

    /// Adds a connection whose identity has this `exp`. The connection is closed [`LEEWAY`] seconds after `exp`. From
    /// the same time on, a new client with this identity is refused.
    pub fn insert(&mut self, ctx: &mut Context<'_>, fd: Fd, exp: u64) {
        self.by_time.insert((exp, fd));
        let is_first = self.by_time.first() == Some(&(exp, fd));
        if is_first || self.timer.is_none() {
            self.arm(ctx);
        }
    }

    /// Removes a connection that has ended. The timer is not cancelled, because a check without an expired connection
    /// does nothing.
    pub fn remove(&mut self, fd: Fd, exp: u64) {
        self.by_time.remove(&(exp, fd));
    }

    /// Returns the expired connections, the earliest first, or `None` if the timer does not belong to this set.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) -> Option<Vec<Fd>> {
        self.timer.take_if(|own| *own == timer)?;
        let due = self.take_due((self.wall_ms)(), |fd| connection_work(ctx, fd));
        self.arm(ctx);
        Some(due)
    }

    /// Removes and returns at most [`DUE_MAX`] expired connections. [`take_portion`] also limits the work that the end
    /// of these connections causes.
    ///
    /// The next turn of the loop returns the remaining expired connections. `work_of` returns the amount of work that
    /// the end of a connection causes.
    fn take_due(&mut self, now_ms: u64, work_of: impl Fn(Fd) -> usize) -> Vec<Fd> {
        let due = iter::from_fn(|| {
            self.by_time.first().filter(|(exp, _)| left(*exp, now_ms).is_zero())?;
            self.by_time.pop_first().map(|(_, fd)| fd)
        });
        take_portion(due.take(DUE_MAX), |fd| work_of(*fd))
    }

    fn arm(&mut self, ctx: &mut Context<'_>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel(timer);
        }
        let next = self.time_to_check((self.wall_ms)());
        self.timer = next.map(|delay| ctx.set_timer(delay));
    }

    /// Returns the time until the next check of the wall clock. Returns `None` if the set of connections is empty.
    fn time_to_check(&self, now_ms: u64) -> Option<Duration> {
        self.by_time.first().map(|&(exp, _)| left(exp, now_ms).min(self.check_interval))
    }
}

/// Returns the time until an identity with this `exp` expires.
fn left(exp: u64, now_ms: u64) -> Duration {
    Duration::from_secs(exp + LEEWAY).saturating_sub(Duration::from_millis(now_ms))
}

impl fmt::Debug for Expiries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiries").field("by_time", &self.by_time).field("timer", &self.timer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use fdpush::{Closed, Handler, Remote, Request, Server};

    use super::*;
    use crate::gateway::runtime::clock;
    use crate::gateway::runtime::portion::WORK_MAX;

    /// The time of the wall clock at the start of these tests, in seconds since 1970.
    const START: u64 = 1_700_000_000;
    const HOUR: u64 = 3600;
    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    fn fd(number: u64) -> Fd {
        Fd::from_u64(number).expect("the fd is valid")
    }

    fn expiries(of: &[(u64, u64)]) -> Expiries {
        let mut expiries = Expiries::new(|| 0, CHECK_INTERVAL);
        expiries.by_time = of.iter().map(|(exp, number)| (*exp, fd(*number))).collect();
        expiries
    }

    #[test]
    fn expiry_follows_the_wall_clock() {
        let ms = |seconds: u64| seconds * 1000;
        let mut expiries = expiries(&[(200, 2), (100, 3), (100, 1)]);
        let mut due = |now_ms: u64| expiries.take_due(now_ms, |_| 1);
        assert_eq!(due(ms(100 + LEEWAY) - 1), []);
        assert_eq!(due(ms(100 + LEEWAY)), [fd(1), fd(3)]);
        assert_eq!(due(ms(100)), [], "after the clock was set back, no identity must expire");
        assert_eq!(due(ms(HOUR)), [fd(2)], "after the clock was set forward, the identity must expire");
        assert_eq!(expiries.time_to_check(ms(HOUR)), None);
    }

    #[test]
    fn the_next_check_is_not_later_than_the_earliest_expiry() {
        let expiries = expiries(&[(100, 1), (HOUR, 2)]);
        let next_check = |now_ms: u64| expiries.time_to_check(now_ms);
        assert_eq!(next_check(0), Some(CHECK_INTERVAL));
        assert_eq!(next_check((100 + LEEWAY) * 1000 - 30), Some(Duration::from_millis(30)));
        assert_eq!(next_check(HOUR * 1000), Some(Duration::ZERO));
    }

    #[test]
    fn the_number_of_connections_that_one_check_closes_is_bounded() {
        let all: Vec<(u64, u64)> = (1..=DUE_MAX as u64 + 11).map(|number| (100, number)).collect();
        let mut expiries = expiries(&all);
        // Each connection is in many groups, so that its end causes a tenth of the maximum work of one check.
        assert_eq!(expiries.take_due(HOUR * 1000, |_| WORK_MAX / 10).len(), 10);
        assert_eq!(expiries.time_to_check(HOUR * 1000), Some(Duration::ZERO));
        assert_eq!(expiries.take_due(HOUR * 1000, |_| 1).len(), DUE_MAX);
        assert_eq!(expiries.take_due(HOUR * 1000, |_| 1).len(), 1);
    }

    /// A handler that closes each connection at the time in its query parameter `exp`.
    struct ExpiryHandler {
        expiries: Expiries,
        closed: Sender<u16>,
    }

    impl Handler for ExpiryHandler {
        fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
            let exp = request.query("exp").expect("the query has exp").parse().expect("the value is a number");
            self.expiries.insert(ctx, fd, exp);
        }

        fn on_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) {
            for fd in self.expiries.handle_timer(ctx, timer).into_iter().flatten() {
                ctx.close(fd, 4003, "");
            }
        }

        fn on_close(&mut self, _: &mut Context<'_>, _: Fd, closed: &Closed) {
            self.closed.send(closed.code.as_u16()).expect("the receiver is open");
        }
    }

    fn serve(wall_ms: fn() -> u64, check_interval: Duration) -> (SocketAddr, Remote, Receiver<u16>) {
        let (closed, heard) = channel();
        let (started, place) = channel();
        thread::spawn(move || {
            let server = Server::bind("127.0.0.1:0").expect("the port can be bound").catch_signals(false);
            started
                .send((server.local_addr().expect("the socket has an address"), server.remote()))
                .expect("the receiver is open");
            server
                .handler(ExpiryHandler { expiries: Expiries::new(wall_ms, check_interval), closed })
                .run()
                .expect("the run starts");
        });
        let (address, remote) = place.recv_timeout(TEST_TIMEOUT).expect("the server has started");
        (address, remote, heard)
    }

    fn connect(address: SocketAddr, exp: u64) -> TcpStream {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("the read timeout can be set");
        let head = format!(
            "GET /?exp={exp} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("the request can be written");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("the server answers");
        assert_eq!(&answer, b"HTTP/1.1 101");
        stream
    }

    fn open(remote: &Remote) -> usize {
        remote.connections().wait().expect("the server is running").len()
    }

    #[test]
    fn if_the_clock_jumps_forward_the_next_check_closes_the_expired_connection() {
        static WALL: AtomicU64 = AtomicU64::new(START * 1000);
        let (address, remote, closed) = serve(|| WALL.load(Ordering::Relaxed), Duration::from_millis(10));
        let _long = connect(address, START + 3 * HOUR);
        let _short = connect(address, START + HOUR);
        WALL.store((START + HOUR + LEEWAY) * 1000, Ordering::Relaxed);
        assert_eq!(closed.recv_timeout(TEST_TIMEOUT), Ok(4003));
        assert_eq!(open(&remote), 1);
        remote.shutdown().expect("the server is running");
    }

    #[test]
    fn if_the_clock_jumps_back_a_valid_connection_stays_open() {
        /// The number of clock reads. The first read returns a time shortly before the expiry. All later reads return a
        /// time about an hour before the expiry.
        static CLOCK_READS: AtomicU64 = AtomicU64::new(0);
        let wall = || match CLOCK_READS.fetch_add(1, Ordering::Relaxed) {
            0 => (START + LEEWAY) * 1000 - 50,
            _ => (START - HOUR) * 1000,
        };
        let (address, remote, closed) = serve(wall, CHECK_INTERVAL);
        let _client = connect(address, START);
        let end = clock::now() + TEST_TIMEOUT;
        while CLOCK_READS.load(Ordering::Relaxed) < 3 {
            assert!(clock::now() < end, "the timer must fire before the deadline");
            assert_eq!(open(&remote), 1);
        }
        remote.shutdown().expect("the server is running");
        assert_eq!(closed.recv_timeout(TEST_TIMEOUT), Ok(1001), "the drain must close the connection, not the expiry");
    }
}
