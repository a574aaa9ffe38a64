//! The command line, which is also the one declaration of all settings: each is a flag `--a-b`, an environment variable
//! `FDPUSH_A_B`, and a key `a_b` of the configuration file, which `settings/` layers below the two.

mod count;
mod secret;
mod token;
mod url;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use fdpush::shared::RATE_MAX;
use fdpush::{Address, Fd, Heartbeat, Limits, Origins};

use self::count::{at_least, between, bits};
pub use self::secret::{MASK, Secret, bare, quoted};
pub use self::token::Token;
use self::url::UrlParser;
pub use self::url::{Url, masked};
pub use self::values::{
    ApiAddress, Auth, ClientAddress, Delay, Endpoint, EventKind, ForwardedHeader, Level, May, NodeName, OnSecondLogin,
    OriginRule, Size, Slow, Time, TrustedProxy, Way, When,
};
use self::values::{path, text};
use crate::gateway::hooks::webhook;
use crate::gateway::identity::subprotocol::Subprotocol;

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
    /// Without any flag it listens on 127.0.0.1:9501, believes every ?uid=NAME, and serves a page to try it on. Back ends
    /// have its HTTP API on 127.0.0.1:9502.
    ///
    /// Every flag --a-b is also FDPUSH_A_B in the environment and the key a_b of the TOML file that --config names. A flag
    /// goes before the environment, that before the file, and the file before the default. What may be given several
    /// times is a list: with commas in a flag or in the environment, an array in the file.
    Serve(Box<Serve>),
    /// Print the settings in effect, as TOML, and where each comes from.
    ///
    /// Takes the flags, environment and file that `serve` takes. Secrets are printed as "***".
    Config(Box<Serve>),
    /// Say whether the server could run with these settings: `ok`, or what is wrong.
    ///
    /// Takes the flags, environment and file that `serve` takes, reads all files that they name, and listens nowhere.
    Check(Box<Serve>),
    /// Print a JSON Web Token (HS256) for a client of a server with --auth jwt.
    ///
    /// Made with the first jwt_secret, wherever `serve` would find that: flag, environment or file; or, without one, with
    /// the first jwt_key_file that holds a secret.
    Token(Box<Token>),
}

#[derive(PartialEq, Debug, Args)]
pub struct Serve {
    /// A TOML file of settings, a_b = … for each --a-b. SIGHUP reads it again
    #[arg(long, value_name = "FILE", env = "FDPUSH_CONFIG", value_parser = path)]
    pub config: Option<PathBuf>,

    /// Address to listen on: HOST:PORT, [V6]:PORT or unix:PATH, with proxy: in front for --proxy-protocol on this address only.
    /// May be given several times. Sockets that systemd hands over take the default's place
    #[arg(long, value_name = "ADDR", env = "FDPUSH_LISTEN", value_delimiter = ',', default_value = "127.0.0.1:9501")]
    pub listen: Vec<ClientAddress>,

    /// Whether GET / serves the demo page. `auto`: with --auth trust
    #[arg(long, value_name = "WHEN", env = "FDPUSH_PAGE", default_value = "auto")]
    pub page: When,

    /// Level of the log on standard error. A line that it does not take is dropped and counted; no client waits for it
    #[arg(long, value_name = "LEVEL", env = "FDPUSH_LOG", default_value = "info")]
    pub log: Level,

    #[command(flatten)]
    pub clients: Clients,

    #[command(flatten)]
    pub api: Api,

    #[command(flatten)]
    pub heart: Heart,

    #[command(flatten)]
    pub bounds: Bounds,

    #[command(flatten)]
    pub hooks: Hooks,
}

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "Clients")]
pub struct Clients {
    /// Who a client is. `trust` believes ?uid=NAME; it is the default where only this machine can connect. `jwt` takes a
    /// signed token, as ?token=, Authorization: Bearer or the subprotocol bearer.TOKEN. `webhook` asks --auth-url
    #[arg(long, value_name = "MODE", env = "FDPUSH_AUTH")]
    pub auth: Option<Auth>,

    #[command(flatten)]
    pub jwt: Jwt,

    /// With --auth webhook: the URL that is asked who a client is
    #[arg(long, value_name = "URL", env = "FDPUSH_AUTH_URL", value_parser = UrlParser, hide_env_values = true)]
    pub auth_url: Option<Url>,

    /// With --auth webhook: for the answer; over it, the client gets 503
    #[arg(long, value_name = "TIME", env = "FDPUSH_AUTH_TIMEOUT", default_value = "2s")]
    pub auth_timeout: Time,

    /// An origin that browsers may come from, as https://example.com, or https://*.example.com for its subdomains at any
    /// depth. `file://` and `null` (pages from files, and sandboxed frames of any site) by name; `*` for all. May be given
    /// several times. Without it, the server's own origin only. Clients that send no Origin are no browsers and pass
    #[arg(long, value_name = "ORIGIN", env = "FDPUSH_ORIGIN", value_delimiter = ',')]
    pub origin: Vec<OriginRule>,

    /// A subprotocol that clients may speak, as chat.v1, the preferred one first; the frames are the same in all. A client
    /// that offers some and none of these, and no bearer.TOKEN, is refused with 400. May be given several times. Default:
    /// none
    #[arg(long, value_name = "NAME", env = "FDPUSH_SUBPROTOCOLS", value_delimiter = ',')]
    pub subprotocols: Vec<Subprotocol>,

    /// What clients may do; `all` or `nothing` stand alone. May be given several times. Default: `all` with --auth trust,
    /// else `push_own_group`
    #[arg(long, value_name = "WHAT", env = "FDPUSH_CLIENT_MAY", value_delimiter = ',')]
    pub client_may: Vec<May>,

    /// What a uid's second connection gets: `multi` lets it join the first, `kick_old` closes the first with 4001,
    /// `reject_new` refuses it with 409
    #[arg(long, value_name = "POLICY", env = "FDPUSH_ON_SECOND_LOGIN", default_value = "multi")]
    pub on_second_login: OnSecondLogin,

    /// With --on-second-login multi: connections of one uid at a time; over it, 429. Default: any number
    #[arg(long, value_name = "COUNT", env = "FDPUSH_UID_CONNECTIONS_MAX",
        value_parser = at_least(1))]
    pub uid_connections_max: Option<u32>,

    /// WebSockets from one IPv4 address or IPv6 network at a time; over it, 429. Plain HTTP does not count. Default: any number
    #[arg(long, value_name = "COUNT", env = "FDPUSH_ADDRESS_CONNECTIONS_MAX",
        value_parser = at_least(1))]
    pub address_connections_max: Option<u32>,

    /// Leading bits of an IPv6 address that count as one address for --address-connections-max: a network of one customer is a
    /// /64 or shorter
    #[arg(long, value_name = "COUNT", env = "FDPUSH_ADDRESS_IPV6_PREFIX",
        default_value_t = Limits::default().address_ipv6_prefix,
        value_parser = bits)]
    pub address_ipv6_prefix: u8,

    /// A proxy that is believed where its clients are: an address, a network as 10.0.0.0/8, or `unix` for all that come by
    /// a unix socket. May be given several times. Default: none, and what others say of it is not looked at
    #[arg(long, value_name = "ADDR", env = "FDPUSH_TRUSTED_PROXY", value_delimiter = ',')]
    pub trusted_proxy: Vec<TrustedProxy>,

    /// With --trusted-proxy: whether they send a PROXY header (version 1 or 2) on every connection to each --listen. All
    /// others are closed. Its address is the client's; --forwarded-header is believed if that is a trusted proxy's in turn
    #[arg(long, value_name = "BOOL", env = "FDPUSH_PROXY_PROTOCOL", action = ArgAction::Set, default_value = "false",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub proxy_protocol: bool,

    /// With --trusted-proxy: the header that they write. The other one is not looked at: a proxy passes on what it does
    /// not know
    #[arg(long, value_name = "HEADER", env = "FDPUSH_FORWARDED_HEADER", default_value = "x-forwarded-for")]
    pub forwarded_header: ForwardedHeader,

    /// Messages a second that a connection may send, in the long run. Default: any number
    #[arg(long, value_name = "COUNT", env = "FDPUSH_MESSAGE_RATE",
        value_parser = between(1, RATE_MAX))]
    pub message_rate: Option<u32>,

    /// With --message-rate: messages that a connection may send at once. Default: twice the rate
    #[arg(long, value_name = "COUNT", env = "FDPUSH_MESSAGE_BURST",
        value_parser = between(1, RATE_MAX))]
    pub message_burst: Option<u32>,

    /// Connections a second that are let in, and as many at once after a quiet one; over it, 503. Default: any number
    #[arg(long, value_name = "COUNT", env = "FDPUSH_ACCEPT_RATE",
        value_parser = between(1, 1_000_000))]
    pub accept_rate: Option<u32>,
}

/// What tokens are checked, and made, with.
#[derive(PartialEq, Debug, Args)]
pub struct Jwt {
    /// With --auth jwt: an HS256 secret of at least 32 bytes, without a comma. May be given several times: the first is
    /// the current one, the others are still accepted. Better in the environment or a file than in a flag, which others
    /// on this machine can see
    #[arg(long, value_name = "SECRET", env = "FDPUSH_JWT_SECRET", value_delimiter = ',', hide_env_values = true)]
    pub jwt_secret: Vec<Secret>,

    /// With --auth jwt: a file with a public key in PEM (RS256, ES256 or EdDSA, by its kind), or else with an HS256
    /// secret, of which one line end at its end is no part. May be given several times
    #[arg(long, value_name = "FILE", env = "FDPUSH_JWT_KEY_FILE", value_delimiter = ',', value_parser = path)]
    pub jwt_key_file: Vec<PathBuf>,

    /// With --auth jwt: what a token's `iss` must be. Default: anything
    #[arg(long, value_name = "TEXT", env = "FDPUSH_JWT_ISSUER", value_parser = text)]
    pub jwt_issuer: Option<String>,

    /// With --auth jwt: what a token's `aud` must name. Default: anything
    #[arg(long, value_name = "TEXT", env = "FDPUSH_JWT_AUDIENCE", value_parser = text)]
    pub jwt_audience: Option<String>,
}

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "API for back ends")]
pub struct Api {
    /// Where back ends come: HOST:PORT, [V6]:PORT or unix:PATH for HTTP, udp:HOST:PORT or unixgram:PATH for a command a
    /// datagram, `off` for nowhere. May be given several times
    #[arg(
        id = "api",
        long = "api",
        value_name = "ADDR",
        env = "FDPUSH_API",
        value_delimiter = ',',
        default_value = "127.0.0.1:9502"
    )]
    pub addresses: Vec<ApiAddress>,

    /// A key that back ends show as Authorization: Bearer KEY; without a comma. May be given several times. Needed where
    /// other machines can reach --api. Better in the environment or a file than in a flag, which others can see
    #[arg(long, value_name = "KEY", env = "FDPUSH_API_KEY", value_delimiter = ',', hide_env_values = true)]
    pub api_key: Vec<Secret>,

    /// A file with such keys, one a line; lines that begin with # are comments
    #[arg(long, value_name = "FILE", env = "FDPUSH_API_KEY_FILE", value_parser = path)]
    pub api_key_file: Option<PathBuf>,

    /// Connections to --api at a time that have sent a valid request; over it, 503. 16 more have a place, for probes; an idle
    /// one of them makes room for a new one. They are not counted in --connections-max; as many descriptors are reserved
    #[arg(long, value_name = "COUNT", env = "FDPUSH_API_CONNECTIONS_MAX",
        default_value_t = Limits::default().control_connections_max,
        value_parser = between(1, 65_536))]
    pub api_connections_max: u32,
}

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "Heartbeat")]
pub struct Heart {
    /// How dead clients are found. `client`: who sends nothing for --idle-max is dead. `ping`: the server pings every
    /// --ping-every, and who lets --missed-max pass in a row is dead. `push`: it pings, and forgives who does not answer.
    /// `off`: not at all
    #[arg(long, value_name = "WAY", env = "FDPUSH_HEARTBEAT", default_value = "ping")]
    pub heartbeat: Way,

    /// With `client`: the longest silence
    #[arg(long, value_name = "TIME", env = "FDPUSH_IDLE_MAX", default_value = "60s")]
    pub idle_max: Time,

    /// With `ping` and `push`: from ping to ping
    #[arg(long, value_name = "TIME", env = "FDPUSH_PING_EVERY", default_value = "25s")]
    pub ping_every: Time,

    /// With `ping`: unanswered pings in a row; any byte is an answer
    #[arg(long, value_name = "COUNT", env = "FDPUSH_MISSED_MAX", default_value = "2",
        value_parser = at_least(1))]
    pub missed_max: u32,
}

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct Bounds {
    /// Connections at a time; over it, 503. Default: what the descriptor limit allows, which is raised as far as it may
    #[arg(long, value_name = "COUNT", env = "FDPUSH_CONNECTIONS_MAX",
        value_parser = between(1, Fd::CONNECTIONS_MAX))]
    pub connections_max: Option<u32>,

    /// A client's message, in bytes; over it, close code 1009
    #[arg(long, value_name = "SIZE", env = "FDPUSH_MESSAGE_BYTES_MAX",
        default_value_t = Size(Limits::default().message_bytes_max))]
    pub message_bytes_max: Size,

    /// What may wait for one slow reader, in bytes, a burst of the largest messages included. Above --message-bytes-max
    #[arg(long, value_name = "SIZE", env = "FDPUSH_QUEUE_BYTES_MAX",
        default_value_t = Size(Limits::default().queue_bytes_max))]
    pub queue_bytes_max: Size,

    /// Memory of what waits for all of them, in bytes; over it, the longest queues are cut by --slow-reader
    #[arg(long, value_name = "SIZE", env = "FDPUSH_QUEUE_TOTAL_BYTES_MAX",
        default_value_t = Size(Limits::default().queue_total_bytes_max))]
    pub queue_total_bytes_max: Size,

    /// Bytes of one queue that no other queue takes from it; among many queues, their share of half the total
    #[arg(long, value_name = "SIZE", env = "FDPUSH_QUEUE_BYTES_MIN",
        default_value_t = Size(Limits::default().queue_bytes_min))]
    pub queue_bytes_min: Size,

    /// What a reader gets that is over its bound: `close` with 1013, `drop_newest` message, or `conflate` those of one key
    #[arg(long, value_name = "POLICY", env = "FDPUSH_SLOW_READER", default_value = "close")]
    pub slow_reader: Slow,

    /// An HTTP head, in bytes; over it, 431
    #[arg(long, value_name = "SIZE", env = "FDPUSH_HEAD_BYTES_MAX",
        default_value_t = Size(Limits::default().head_bytes_max))]
    pub head_bytes_max: Size,

    /// Header fields of a head; over it, 431
    #[arg(long, value_name = "COUNT", env = "FDPUSH_HEADERS_MAX",
        default_value_t = count(Limits::default().headers_max),
        value_parser = between(1, 256))]
    pub headers_max: u32,

    /// For the whole HTTP head; over it, 408
    #[arg(long, value_name = "TIME", env = "FDPUSH_HEAD_TIME_MAX",
        default_value_t = Time(Limits::default().head_time_max))]
    pub head_time_max: Time,

    /// The body of an HTTP request, in bytes; over it, 413
    #[arg(long, value_name = "SIZE", env = "FDPUSH_BODY_BYTES_MAX",
        default_value_t = Size(Limits::default().body_bytes_max))]
    pub body_bytes_max: Size,

    /// For the whole body of an HTTP request; of a batch, from piece to piece; over it, 408
    #[arg(long, value_name = "TIME", env = "FDPUSH_BODY_TIME_MAX",
        default_value_t = Time(Limits::default().body_time_max))]
    pub body_time_max: Time,

    /// For an upgrade that is answered later; over it, 503. With --auth webhook it gives way to a longer --auth-timeout
    #[arg(long, value_name = "TIME", env = "FDPUSH_ANSWER_TIME_MAX",
        default_value_t = Time(Limits::default().answer_time_max))]
    pub answer_time_max: Time,

    /// How long an HTTP connection is kept without a request
    #[arg(long, value_name = "TIME", env = "FDPUSH_KEEP_ALIVE_MAX",
        default_value_t = Time(Limits::default().keep_alive_max))]
    pub keep_alive_max: Time,

    /// For a message from its first byte to its last; over it, close code 1008
    #[arg(long, value_name = "TIME", env = "FDPUSH_MESSAGE_TIME_MAX",
        default_value_t = Time(Limits::default().message_time_max))]
    pub message_time_max: Time,

    /// Memory of unfinished messages, HTTP heads and bodies of all clients, in bytes; over it, those that hold the most are
    /// closed: 1013, or 503. At least twice --message-bytes-max and --body-bytes-max
    #[arg(long, value_name = "SIZE", env = "FDPUSH_INBOUND_TOTAL_BYTES_MAX",
        default_value_t = Size(Limits::default().inbound_total_bytes_max))]
    pub inbound_total_bytes_max: Size,

    /// For the client's part of a close handshake
    #[arg(long, value_name = "TIME", env = "FDPUSH_CLOSE_WAIT_MAX",
        default_value_t = Time(Limits::default().close_wait_max))]
    pub close_wait_max: Time,

    /// For a write to make progress; over it, the client is dead. Also TCP_USER_TIMEOUT
    #[arg(long, value_name = "TIME", env = "FDPUSH_WRITE_TIME_MAX",
        default_value_t = Time(Limits::default().write_time_max))]
    pub write_time_max: Time,

    /// What is read from one connection in a turn of the loop, from 1KiB to 64MiB; the rest in the next turn
    #[arg(long, value_name = "SIZE", env = "FDPUSH_READ_BUDGET_BYTES",
        default_value_t = Size(Limits::default().read_budget_bytes))]
    pub read_budget_bytes: Size,

    /// Commands of other threads that may wait for the loop
    #[arg(long, value_name = "COUNT", env = "FDPUSH_INBOX_MAX",
        default_value_t = count(Limits::default().inbox_max),
        value_parser = between(1, 1 << 30))]
    pub inbox_max: u32,

    /// Groups of one connection; over it, a join is refused
    #[arg(long, value_name = "COUNT", env = "FDPUSH_CONNECTION_GROUPS_MAX",
        default_value_t = count(Limits::default().connection_groups_max),
        value_parser = between(1, 1 << 30))]
    pub connection_groups_max: u32,

    /// Memberships of all connections in all groups, each up to 300 bytes; over it, a join is refused
    #[arg(long, value_name = "COUNT", env = "FDPUSH_MEMBERSHIPS_MAX",
        default_value_t = count(Limits::default().memberships_max),
        value_parser = between(1, 1 << 30))]
    pub memberships_max: u32,

    /// After SIGTERM or SIGINT: the time over which clients are told, at most --drain-time-max
    #[arg(long, value_name = "TIME", env = "FDPUSH_DRAIN_FOR",
        default_value_t = Delay(Limits::default().drain_for))]
    pub drain_for: Delay,

    /// For clients to leave after SIGTERM or SIGINT
    #[arg(long, value_name = "TIME", env = "FDPUSH_DRAIN_TIME_MAX",
        default_value_t = Time(Limits::default().drain_time_max))]
    pub drain_time_max: Time,
}

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "Webhook")]
pub struct Hooks {
    /// The URL that is told of events. Default: none is
    #[arg(long, value_name = "URL", env = "FDPUSH_WEBHOOK", value_parser = UrlParser, hide_env_values = true)]
    pub webhook: Option<Url>,

    /// Which events. `message` is every text message, heartbeats and refused frames included; `send` is the valid frames
    /// of type `send`. May be given several times
    #[arg(
        long,
        value_name = "EVENT",
        env = "FDPUSH_WEBHOOK_EVENTS",
        value_delimiter = ',',
        default_value = "open,message,close"
    )]
    pub webhook_events: Vec<EventKind>,

    /// What events, and questions to --auth-url, are signed with. Better in the environment or a file than in a flag,
    /// which others on this machine can see
    #[arg(long, value_name = "SECRET", env = "FDPUSH_WEBHOOK_SECRET", hide_env_values = true)]
    pub webhook_secret: Option<Secret>,

    /// Certificates in PEM, by one of which an https back end's own has to be signed, --auth-url's as well. Default:
    /// Mozilla's roots
    #[arg(long, value_name = "FILE", env = "FDPUSH_WEBHOOK_CA_FILE", value_parser = path)]
    pub webhook_ca_file: Option<PathBuf>,

    /// Events that may wait
    #[arg(long, value_name = "COUNT", env = "FDPUSH_WEBHOOK_QUEUE_MAX", default_value = "100000",
        value_parser = between(1, 1 << 30))]
    pub webhook_queue_max: u32,

    /// Events in one request
    #[arg(long, value_name = "COUNT", env = "FDPUSH_WEBHOOK_BATCH_MAX", default_value = "100",
        value_parser = between(1, 100_000))]
    pub webhook_batch_max: u32,

    /// The body of one request, in bytes. A larger event is sent alone
    #[arg(long, value_name = "SIZE", env = "FDPUSH_WEBHOOK_BATCH_BYTES_MAX",
        default_value_t = Size(webhook::BATCH_BYTES_MAX))]
    pub webhook_batch_bytes_max: Size,

    /// One event, in bytes of JSON, from 4KiB to 64MiB. A client's frame whose event is larger gets the error `too_large`
    #[arg(long, value_name = "SIZE", env = "FDPUSH_WEBHOOK_EVENT_BYTES_MAX",
        default_value_t = Size(webhook::EVENT_BYTES_MAX))]
    pub webhook_event_bytes_max: Size,

    /// For the answer to one request
    #[arg(long, value_name = "TIME", env = "FDPUSH_WEBHOOK_TIMEOUT", default_value = "5s")]
    pub webhook_timeout: Time,

    /// For all tries of one request; over it, its events are given up
    #[arg(long, value_name = "TIME", env = "FDPUSH_WEBHOOK_RETRY_TIME_MAX", default_value = "5m")]
    pub webhook_retry_time_max: Time,

    /// How long a uid must be gone for the webhook to hear `offline`, so that a page refresh is not. Groups hear `left` at
    /// once
    #[arg(long, value_name = "TIME", env = "FDPUSH_PRESENCE_DELAY", default_value = "3s")]
    pub presence_delay: Delay,

    /// This server's name in webhooks. Default: the host's name and something random
    #[arg(long, value_name = "NAME", env = "FDPUSH_NODE")]
    pub node: Option<NodeName>,
}

impl Serve {
    /// Who a client is.
    pub fn auth(&self) -> Auth {
        self.clients.auth.unwrap_or(Auth::Trust)
    }

    /// Whether `GET /` serves the page.
    pub fn serves_page(&self) -> bool {
        match self.page {
            When::Always => true,
            When::Never => false,
            When::Auto => self.auth() == Auth::Trust,
        }
    }

    /// `trust` lets anyone be anyone: where others than this machine can connect, it must be asked for by name.
    pub fn check_trust(&self, addresses: &[Address]) -> Result<(), String> {
        match addresses.iter().find(|address| !address.is_local()) {
            Some(open) if self.clients.auth.is_none() => Err(format!(
                "{open} can be reached from other machines, and the server must know who its clients are: give --auth jwt \
                 with --jwt-secret (signed tokens), or --auth webhook with --auth-url (the back end says); --auth trust lets \
                 anyone claim any uid"
            )),
            _ => Ok(()),
        }
    }

    /// Where browsers may come from.
    pub fn origins(&self) -> Result<Origins, String> {
        match self.clients.origin.as_slice() {
            [] => Ok(Origins::Same),
            origins if origins.iter().any(|origin| origin.as_ref() == "*") => Ok(Origins::Any),
            origins => Origins::list(origins).map_err(|why| format!("--origin: {why}")),
        }
    }

    /// What clients may do, each by its own name: never `all` or `nothing`.
    pub fn client_may(&self) -> Vec<May> {
        const EACH: [May; 7] =
            [May::PushUid, May::PushFd, May::PushOwnGroup, May::PushGroup, May::PushAll, May::Join, May::Online];
        match self.clients.client_may.as_slice() {
            [] if self.auth() == Auth::Trust => EACH.to_vec(),
            [] => vec![May::PushOwnGroup],
            listed if listed.contains(&May::All) => EACH.to_vec(),
            listed => EACH.into_iter().filter(|may| listed.contains(may)).collect(),
        }
    }

    /// Connections of one uid at a time. The other policies leave it one connection anyway, and say themselves what the
    /// second gets.
    pub fn uid_connections_max(&self) -> Option<u32> {
        self.clients.uid_connections_max.filter(|_| self.clients.on_second_login == OnSecondLogin::Multi)
    }

    /// Messages that a connection may send at once; `None` without a rate.
    pub fn message_burst(&self) -> Option<u32> {
        let rate = self.clients.message_rate?;
        Some(self.clients.message_burst.unwrap_or(rate.saturating_mul(2).min(RATE_MAX)))
    }

    /// Where back ends come; nowhere if that is `off`.
    pub fn api_addresses(&self) -> impl Iterator<Item = &ApiAddress> {
        self.api.addresses.iter().filter(|address| **address != ApiAddress::Off)
    }

    /// Whether back ends can connect by HTTP.
    pub fn has_http_api(&self) -> bool {
        self.api_addresses().any(|address| matches!(address, ApiAddress::Http(_)))
    }

    pub fn heartbeat(&self) -> Heartbeat {
        let Heart { heartbeat, idle_max: Time(idle_max), ping_every: Time(every), missed_max } = self.heart;
        match heartbeat {
            Way::Client => Heartbeat::Client { idle_max },
            Way::Ping => Heartbeat::Ping { every, missed_max },
            Way::Push => Heartbeat::Push { every },
            Way::Off => Heartbeat::Off,
        }
    }

    /// For an upgrade that the back end is asked about: a second more than the back end has, so that the end of its time
    /// is what the client hears of.
    fn verdict_time_max(&self) -> Duration {
        match self.auth() {
            Auth::Webhook => self.clients.auth_timeout.0 + Duration::from_secs(1),
            Auth::Trust | Auth::Jwt => Duration::ZERO,
        }
    }

    pub fn limits(&self) -> Limits {
        let bounds = &self.bounds;
        Limits {
            connections_max: bounds.connections_max,
            control_connections_max: self.api.api_connections_max,
            accepts_per_second_max: self.clients.accept_rate,
            address_ipv6_prefix: self.clients.address_ipv6_prefix,
            head_bytes_max: bounds.head_bytes_max.0,
            headers_max: bounds.headers_max as usize,
            head_time_max: bounds.head_time_max.0,
            body_bytes_max: bounds.body_bytes_max.0,
            body_time_max: bounds.body_time_max.0,
            answer_time_max: bounds.answer_time_max.0.max(self.verdict_time_max()),
            keep_alive_max: bounds.keep_alive_max.0,
            message_bytes_max: bounds.message_bytes_max.0,
            message_time_max: bounds.message_time_max.0,
            inbound_total_bytes_max: bounds.inbound_total_bytes_max.0,
            close_wait_max: bounds.close_wait_max.0,
            queue_bytes_max: bounds.queue_bytes_max.0,
            queue_total_bytes_max: bounds.queue_total_bytes_max.0,
            queue_bytes_min: bounds.queue_bytes_min.0,
            write_time_max: bounds.write_time_max.0,
            slow_reader: bounds.slow_reader.into(),
            read_budget_bytes: bounds.read_budget_bytes.0,
            connection_groups_max: bounds.connection_groups_max as usize,
            memberships_max: bounds.memberships_max as usize,
            inbox_max: bounds.inbox_max as usize,
            drain_for: bounds.drain_for.0,
            drain_time_max: bounds.drain_time_max.0,
        }
    }
}

/// A default of `Limits`, all of which fit.
fn count(max: usize) -> u32 {
    u32::try_from(max).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
