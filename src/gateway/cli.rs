//! The command line: every setting as a flag, or as `FDPUSH_…` in the environment.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fdpush::{Address, Heartbeat, Limits, Origins, SecondLogin, SlowReader};
use log::LevelFilter;

/// A WebSocket push server: to one, to many, to all.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    ///
    /// Without any flag it listens on 127.0.0.1:9501, believes every ?uid=NAME, and serves a page to try it on.
    Serve(Box<Serve>),
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen: HOST:PORT, [V6]:PORT or unix:PATH. May be given several times
    #[arg(long, value_name = "ADDR", env = "FDPUSH_LISTEN", value_delimiter = ',', default_value = "127.0.0.1:9501")]
    pub listen: Vec<String>,

    /// Who a client is. `trust` believes ?uid=NAME; it is the default where only this machine can connect
    #[arg(long, value_name = "MODE", env = "FDPUSH_AUTH")]
    pub auth: Option<Auth>,

    /// Whether GET / serves the demo page. `auto`: with --auth trust
    #[arg(long, value_name = "WHEN", env = "FDPUSH_PAGE", default_value = "auto")]
    pub page: When,

    /// An origin that browsers may come from, as https://example.com; `*` for all. May be given several times. Without
    /// it, the server's own origin only. Clients that send no Origin are no browsers and pass
    #[arg(long, value_name = "ORIGIN", env = "FDPUSH_ORIGIN", value_delimiter = ',')]
    pub origin: Vec<String>,

    /// What a uid's second connection gets: `multi` lets it join the first, `kick_old` closes the first with 4001,
    /// `reject_new` refuses it with 409
    #[arg(long, value_name = "POLICY", env = "FDPUSH_ON_SECOND_LOGIN", default_value = "multi")]
    pub on_second_login: OnSecondLogin,

    /// What is logged, to standard error
    #[arg(long, value_name = "LEVEL", env = "FDPUSH_LOG", default_value = "info")]
    pub log: Level,

    #[command(flatten)]
    heart: Heart,

    #[command(flatten)]
    bounds: Bounds,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Heartbeat")]
struct Heart {
    /// How dead clients are found. `client`: who sends nothing for --idle-max is dead. `ping`: the server pings every
    /// --ping-every, and who lets --missed-max pass in a row is dead. `push`: it pings, and forgives who does not answer.
    /// `off`: not at all
    #[arg(long, value_name = "WAY", env = "FDPUSH_HEARTBEAT", default_value = "ping")]
    heartbeat: Way,

    /// With `client`: the longest silence
    #[arg(long, value_name = "TIME", env = "FDPUSH_IDLE_MAX", default_value = "60s", value_parser = period)]
    idle_max: Duration,

    /// With `ping` and `push`: from ping to ping
    #[arg(long, value_name = "TIME", env = "FDPUSH_PING_EVERY", default_value = "25s", value_parser = period)]
    ping_every: Duration,

    /// With `ping`: unanswered pings in a row; any byte is an answer
    #[arg(long, value_name = "COUNT", env = "FDPUSH_MISSED_MAX", default_value = "2",
        value_parser = clap::value_parser!(u32).range(1..))]
    missed_max: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct Bounds {
    /// Connections at a time; over it, 503. Default: what the descriptor limit allows, which is raised as far as it may
    #[arg(long, value_name = "COUNT", env = "FDPUSH_CONNECTIONS_MAX",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(fdpush::Fd::CONNECTIONS_MAX)))]
    connections_max: Option<u32>,

    /// A client's message; over it, close code 1009
    #[arg(long, value_name = "SIZE", env = "FDPUSH_MESSAGE_BYTES_MAX", default_value = "1MiB", value_parser = size)]
    message_bytes_max: usize,

    /// What may wait for one slow reader, a burst of the largest messages included. Above --message-bytes-max
    #[arg(long, value_name = "SIZE", env = "FDPUSH_QUEUE_BYTES_MAX", default_value = "4MiB", value_parser = size)]
    queue_bytes_max: usize,

    /// What may wait for all of them
    #[arg(long, value_name = "SIZE", env = "FDPUSH_QUEUE_TOTAL_BYTES_MAX", default_value = "64MiB", value_parser = size)]
    queue_total_bytes_max: usize,

    /// What a reader gets that is over its bound: `close` with 1013, `drop_newest` message, or `conflate` those of one key
    #[arg(long, value_name = "POLICY", env = "FDPUSH_SLOW_READER", default_value = "close")]
    slow_reader: Slow,

    /// An HTTP head; over it, 431
    #[arg(long, value_name = "SIZE", env = "FDPUSH_HEAD_BYTES_MAX", default_value = "8KiB", value_parser = size)]
    head_bytes_max: usize,

    /// For the whole HTTP head; over it, 408
    #[arg(long, value_name = "TIME", env = "FDPUSH_HEAD_TIME_MAX", default_value = "10s", value_parser = period)]
    head_time_max: Duration,

    /// For a message from its first byte to its last; over it, close code 1008
    #[arg(long, value_name = "TIME", env = "FDPUSH_MESSAGE_TIME_MAX", default_value = "60s", value_parser = period)]
    message_time_max: Duration,

    /// For the client's part of a close handshake
    #[arg(long, value_name = "TIME", env = "FDPUSH_CLOSE_WAIT_MAX", default_value = "5s", value_parser = period)]
    close_wait_max: Duration,

    /// For a write to make progress; over it, the client is dead. Also TCP_USER_TIMEOUT
    #[arg(long, value_name = "TIME", env = "FDPUSH_WRITE_TIME_MAX", default_value = "30s", value_parser = period)]
    write_time_max: Duration,

    /// For clients to leave after SIGTERM or SIGINT
    #[arg(long, value_name = "TIME", env = "FDPUSH_DRAIN_TIME_MAX", default_value = "10s", value_parser = period)]
    drain_time_max: Duration,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Auth {
    Trust,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum OnSecondLogin {
    Multi,
    KickOld,
    RejectNew,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
enum Way {
    Client,
    Ping,
    Push,
    Off,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Slow {
    Close,
    DropNewest,
    Conflate,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Serve {
    /// Whether `GET /` serves the page.
    pub fn serves_page(&self) -> bool {
        match self.page {
            When::Always => true,
            When::Never => false,
            When::Auto => self.auth.is_none_or(|auth| auth == Auth::Trust),
        }
    }

    /// `trust` lets anyone be anyone: where others than this machine can connect, it must be asked for by name.
    pub fn check_trust(&self, addresses: &[Address]) -> Result<(), String> {
        match addresses.iter().find(|address| !address.is_local()) {
            Some(open) if self.auth.is_none() => Err(format!(
                "{open} can be reached from other machines, where anyone could claim any uid; \
                 if that is meant, say so with --auth trust"
            )),
            _ => Ok(()),
        }
    }

    pub fn origins(&self) -> Result<Origins, String> {
        match self.origin.as_slice() {
            [] => Ok(Origins::Same),
            origins if origins.iter().any(|origin| origin == "*") => Ok(Origins::Any),
            origins => Origins::list(origins).map_err(|why| format!("--origin: {why}")),
        }
    }

    pub fn heartbeat(&self) -> Heartbeat {
        let Heart { heartbeat, idle_max, ping_every: every, missed_max } = self.heart;
        match heartbeat {
            Way::Client => Heartbeat::Client { idle_max },
            Way::Ping => Heartbeat::Ping { every, missed_max },
            Way::Push => Heartbeat::Push { every },
            Way::Off => Heartbeat::Off,
        }
    }

    pub fn limits(&self) -> Limits {
        let bounds = &self.bounds;
        Limits {
            connections_max: bounds.connections_max,
            message_bytes_max: bounds.message_bytes_max,
            queue_bytes_max: bounds.queue_bytes_max,
            queue_total_bytes_max: bounds.queue_total_bytes_max,
            slow_reader: match bounds.slow_reader {
                Slow::Close => SlowReader::Close,
                Slow::DropNewest => SlowReader::DropNewest,
                Slow::Conflate => SlowReader::Conflate,
            },
            head_bytes_max: bounds.head_bytes_max,
            head_time_max: bounds.head_time_max,
            message_time_max: bounds.message_time_max,
            close_wait_max: bounds.close_wait_max,
            write_time_max: bounds.write_time_max,
            drain_time_max: bounds.drain_time_max,
            ..Limits::default()
        }
    }
}

impl From<OnSecondLogin> for SecondLogin {
    fn from(policy: OnSecondLogin) -> SecondLogin {
        match policy {
            OnSecondLogin::Multi => SecondLogin::Multi,
            OnSecondLogin::KickOld => SecondLogin::KickOld,
            OnSecondLogin::RejectNew => SecondLogin::RejectNew,
        }
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> LevelFilter {
        match level {
            Level::Off => LevelFilter::Off,
            Level::Error => LevelFilter::Error,
            Level::Warn => LevelFilter::Warn,
            Level::Info => LevelFilter::Info,
            Level::Debug => LevelFilter::Debug,
            Level::Trace => LevelFilter::Trace,
        }
    }
}

/// A time with its unit: `25s`, `500ms`, `1m 30s`; at least 10 ms, at most a day.
fn period(text: &str) -> Result<Duration, String> {
    const RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 60 * 60);
    let time =
        humantime::parse_duration(text).map_err(|why| format!("{why}; a time is written like 25s, 500ms or 2m"))?;
    if RANGE.contains(&time) { Ok(time) } else { Err("a time must be from 10ms to 24h".to_owned()) }
}

/// A size, with or without a unit: `65536`, `64KiB`, `16MiB`; at least a byte, at most 1 TiB.
fn size(text: &str) -> Result<usize, String> {
    let size: ByteSize = text.parse().map_err(|_| "a size is written like 65536, 64KiB or 16MiB".to_owned())?;
    match usize::try_from(size.as_u64()) {
        Ok(bytes @ 1..=0x100_0000_0000) => Ok(bytes),
        _ => Err("a size must be from 1 byte to 1TiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn serve(flags: &[&str]) -> Result<Serve, String> {
        let line = ["fdpush", "serve"].iter().chain(flags);
        let Cli { command: Command::Serve(serve) } = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        Ok(*serve)
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_flags_all_is_as_the_crate_has_it() {
        let serve = serve(&[]).expect("no flag is needed");
        assert_eq!(serve.limits(), Limits::default());
        assert_eq!(serve.heartbeat(), Heartbeat::default());
        assert_eq!(serve.origins(), Ok(Origins::default()));
        assert_eq!(serve.listen, ["127.0.0.1:9501"]);
        assert!(serve.serves_page());
    }

    #[test]
    fn every_way_of_heartbeat_can_be_had() {
        let heartbeat = |flags: &[&str]| serve(flags).expect("valid").heartbeat();
        let seconds = Duration::from_secs;
        let client = ["--heartbeat", "client", "--idle-max", "1m 30s"];
        assert_eq!(heartbeat(&client), Heartbeat::Client { idle_max: seconds(90) });
        let ping = ["--heartbeat", "ping", "--ping-every", "5s", "--missed-max", "3"];
        assert_eq!(heartbeat(&ping), Heartbeat::Ping { every: seconds(5), missed_max: 3 });
        assert_eq!(heartbeat(&["--heartbeat", "push", "--ping-every", "5s"]), Heartbeat::Push { every: seconds(5) });
        assert_eq!(heartbeat(&["--heartbeat", "off"]), Heartbeat::Off);
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_name_and_what_is_allowed() {
        let table: [(&[&str], &[&str]); 8] = [
            (&["--heartbeat", "pong"], &["pong", "--heartbeat", "client, ping, push, off"]),
            (&["--ping-every", "soon"], &["soon", "--ping-every", "25s"]),
            (&["--ping-every", "1ms"], &["1ms", "--ping-every", "from 10ms"]),
            (&["--missed-max", "0"], &["0", "--missed-max", "1.."]),
            (&["--queue-bytes-max", "much"], &["much", "--queue-bytes-max", "64KiB"]),
            (&["--connections-max", "99999999"], &["99999999", "--connections-max", "16777215"]),
            (&["--on-second-login", "fight"], &["fight", "multi, kick_old, reject_new"]),
            (&["--log", "loud"], &["loud", "--log", "off, error, warn"]),
        ];
        for (flags, hints) in table {
            let error = serve(flags).expect_err("refused");
            for hint in hints {
                assert!(error.contains(hint), "{flags:?}: no {hint:?} in {error}");
            }
        }
    }

    #[test]
    fn trust_is_for_this_machine_unless_asked_for_by_name() {
        let open = [Address::Tcp("0.0.0.0:9501".parse().expect("an address"))];
        let local = [Address::Tcp("[::1]:9501".parse().expect("an address")), Address::Unix("/tmp/x".into())];
        let check = |flags: &[&str], addresses| serve(flags).expect("valid").check_trust(addresses);
        assert_eq!(check(&[], &local), Ok(()));
        assert!(check(&[], &open).is_err_and(|why| why.contains("--auth trust")));
        assert_eq!(check(&["--auth", "trust"], &open), Ok(()));
    }

    #[test]
    fn origins_are_checked() {
        let origins = |flags: &[&str]| serve(flags).expect("valid").origins();
        assert_eq!(origins(&["--origin", "*"]), Ok(Origins::Any));
        assert!(origins(&["--origin", "https://a.example,https://b.example"]).is_ok());
        assert!(origins(&["--origin", "a.example"]).is_err_and(|why| why.starts_with("--origin")));
    }
}
