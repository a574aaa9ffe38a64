//! Declares the command line of `fdpush` and all settings.
//!
//! A setting is a flag `--a-b`, a variable `FDPUSH_A_B` and a key `a_b` of the configuration file. The other modules of
//! `settings/` read the configuration file.

mod addresses;
mod api;
mod cert;
mod compression;
mod count;
mod jwt;
mod limits;
mod secret;
mod tls;
mod token;
mod url;
mod values;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use fdpush::shared::{HEADERS_CEILING, RATE_MAX};
use fdpush::{Address, Fd, Heartbeat, Limits, Origins};

pub use self::addresses::{ApiAddress, ClientAddress, Endpoint};
pub use self::api::Api;
pub use self::cert::Cert;
use self::compression::Compression;
pub use self::compression::Switch;
use self::count::{at_least, between, bits};
pub use self::jwt::Jwt;
pub use self::secret::{MASK, Secret, WITH_NAME, bare, has_variable_name, quoted};
pub use self::tls::Tls;
pub use self::token::Token;
use self::url::UrlParser;
pub use self::url::{Url, masked};
use self::values::path;
pub use self::values::{
    Auth, Delay, ForwardedHeader, HeartbeatMode, Level, Loops, NodeName, OnSecondLogin, OriginRule, Permission, Size,
    SlowReaderPolicy, Time, TrustedProxy, When,
};
use crate::gateway::hooks::webhook;
use crate::gateway::hooks::webhook::event::Kind;
use crate::gateway::identity::subprotocol::Subprotocol;

/// A WebSocket push server: pushes to one user, to a group, or to all.
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
    /// Without flags, the server listens on 127.0.0.1:9501, trusts ?uid=NAME, and serves a demo page. The HTTP API for
    /// back ends is on 127.0.0.1:9502.
    ///
    /// Every flag --a-b is also a variable FDPUSH_A_B and a key a_b of the TOML file that --config names. A flag
    /// overrides the variable, the variable overrides the file, and the file overrides the default. A setting that may
    /// be given several times is a list: commas separate the values in a flag or a variable, and the file has an array.
    Serve(Box<Serve>),
    /// Print the effective settings as TOML, with their sources.
    ///
    /// Takes the same flags, environment and file as `serve`. Secrets are printed as "***".
    Config(Box<Serve>),
    /// Check whether the server can run with these settings. Prints `ok` or all faults.
    ///
    /// Takes the same flags, environment and file as `serve`. Reads all files that the settings name, and opens no
    /// listener.
    Check(Box<Serve>),
    /// Print a JSON Web Token (HS256) for a client of a server with --auth jwt.
    ///
    /// The first jwt_secret of flag, environment or file signs the token. Without a jwt_secret, the first jwt_key_file
    /// that holds a secret signs the token.
    Token(Box<Token>),
    /// Write a self-signed certificate and its key in PEM, for tests of TLS.
    ///
    /// Clients do not trust this certificate: a browser shows a warning. `curl --cacert FILE` accepts the certificate.
    Cert(Box<Cert>),
}

#[derive(PartialEq, Debug, Args)]
pub struct Serve {
    /// A TOML file of settings, with a line a_b = … for a flag --a-b. SIGHUP reads the file again
    #[arg(long, value_name = "FILE", env = "FDPUSH_CONFIG", value_parser = path)]
    pub config: Option<PathBuf>,

    /// Address to listen on: HOST:PORT, [V6]:PORT or unix:PATH. The prefix tls: enables TLS, which needs --tls-cert.
    /// The prefix proxy:, before tls:, enables --proxy-protocol for this address only. May be given several times.
    /// Sockets that systemd passes replace the default address
    #[arg(long, value_name = "ADDR", env = "FDPUSH_LISTEN", value_delimiter = ',', default_value = "127.0.0.1:9501")]
    pub listen: Vec<ClientAddress>,

    /// Whether GET / serves the demo page. `auto` serves the page only with --auth trust
    #[arg(long, value_name = "WHEN", env = "FDPUSH_PAGE", default_value = "auto")]
    pub page: When,

    /// Number of event loops, each on a thread of its own, from 1 to 256. `auto` is the number of cores that the process may
    /// use. All limits hold for all loops together
    #[arg(long, value_name = "COUNT", env = "FDPUSH_LOOPS", default_value = "1")]
    pub loops: Loops,

    /// Level of the log on standard error; lines of less important levels are not written. A line that cannot be
    /// written is dropped and counted
    #[arg(long, value_name = "LEVEL", env = "FDPUSH_LOG", default_value = "info")]
    pub log: Level,

    #[command(flatten)]
    pub clients: Clients,

    #[command(flatten)]
    pub tls: Tls,

    #[command(flatten)]
    pub api: Api,

    #[command(flatten)]
    pub heart: HeartbeatSettings,

    #[command(flatten)]
    pub bounds: Bounds,

    #[command(flatten)]
    pub compression: Compression,

    #[command(flatten)]
    pub hooks: Hooks,
}

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "Clients")]
pub struct Clients {
    /// Authentication of clients. `trust` accepts ?uid=NAME, and is the default if only this machine can connect. `jwt`
    /// needs a signed token as ?token=, Authorization: Bearer or subprotocol bearer.TOKEN. `webhook` asks the back end
    /// of --auth-url
    #[arg(long, value_name = "MODE", env = "FDPUSH_AUTH")]
    pub auth: Option<Auth>,

    #[command(flatten)]
    pub jwt: Jwt,

    /// With --auth webhook: the URL of the back end that authenticates clients
    #[arg(long, value_name = "URL", env = "FDPUSH_AUTH_URL", value_parser = UrlParser, hide_env_values = true)]
    pub auth_url: Option<Url>,

    /// With --auth webhook: timeout of the answer of --auth-url; after the timeout, the client gets 503
    #[arg(long, value_name = "TIME", env = "FDPUSH_AUTH_TIMEOUT", default_value = "2s")]
    pub auth_timeout: Time,

    /// An allowed origin of browsers, as https://example.com, or https://*.example.com for all subdomains of
    /// example.com. `file://` and `null` (pages from files, and sandboxed frames of any site) need their own entry; `*`
    /// allows all. May be given several times. Default: only the server's own origin. Clients without an Origin header
    /// are not browsers and are allowed
    #[arg(long, value_name = "ORIGIN", env = "FDPUSH_ORIGIN", value_delimiter = ',')]
    pub origin: Vec<OriginRule>,

    /// A supported subprotocol, such as chat.v1; the first value is the preferred subprotocol. All subprotocols have
    /// the same frames. A client that offers only other subprotocols, and no bearer.TOKEN, is refused with 400. May be
    /// given several times. Default: none
    #[arg(long, value_name = "NAME", env = "FDPUSH_SUBPROTOCOLS", value_delimiter = ',')]
    pub subprotocols: Vec<Subprotocol>,

    /// Permissions of clients; `all` and `nothing` cannot be combined with other values. May be given several times.
    /// Default: `all` with --auth trust, else `push_own_group`
    #[arg(long, value_name = "WHAT", env = "FDPUSH_CLIENT_MAY", value_delimiter = ',')]
    pub client_may: Vec<Permission>,

    /// Policy for a second connection of a uid: `multi` accepts the second connection, `kick_old` closes the first
    /// connection with 4001, `reject_new` refuses the second connection with 409
    #[arg(long, value_name = "POLICY", env = "FDPUSH_ON_SECOND_LOGIN", default_value = "multi")]
    pub on_second_login: OnSecondLogin,

    /// With --on-second-login multi: maximum number of connections of a uid; over this limit, clients get 429. Default:
    /// unlimited
    #[arg(long, value_name = "COUNT", env = "FDPUSH_UID_CONNECTIONS_MAX",
        value_parser = at_least(1))]
    pub uid_connections_max: Option<u32>,

    /// Maximum number of WebSockets of an IPv4 address or IPv6 network; over this limit, clients get 429. Plain HTTP
    /// does not count. Default: unlimited
    #[arg(long, value_name = "COUNT", env = "FDPUSH_ADDRESS_CONNECTIONS_MAX",
        value_parser = at_least(1))]
    pub address_connections_max: Option<u32>,

    /// Number of leading bits of an IPv6 address that identify a client for --address-connections-max. One customer of
    /// a provider usually has a whole /64 network
    #[arg(long, value_name = "COUNT", env = "FDPUSH_ADDRESS_IPV6_PREFIX",
        default_value_t = Limits::default().address_ipv6_prefix,
        value_parser = bits)]
    pub address_ipv6_prefix: u8,

    /// A proxy that is trusted to report client addresses: an address, a network as 10.0.0.0/8, or `unix` for all peers
    /// on unix sockets. May be given several times. Default: none, so the header of --forwarded-header is ignored
    #[arg(long, value_name = "ADDR", env = "FDPUSH_TRUSTED_PROXY", value_delimiter = ',')]
    pub trusted_proxy: Vec<TrustedProxy>,

    /// With --trusted-proxy: proxies send a PROXY header (version 1 or 2) on each connection to every --listen.
    /// Connections without a PROXY header are closed. --forwarded-header applies only if the address in the PROXY
    /// header is a trusted proxy
    #[arg(long, value_name = "BOOL", env = "FDPUSH_PROXY_PROTOCOL", action = ArgAction::Set, default_value = "false",
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub proxy_protocol: bool,

    /// With --trusted-proxy: the header in which proxies send the client address. Any other forwarding header is
    /// ignored, because proxies pass on headers that they do not know
    #[arg(long, value_name = "HEADER", env = "FDPUSH_FORWARDED_HEADER", default_value = "x-forwarded-for")]
    pub forwarded_header: ForwardedHeader,

    /// Maximum number of messages per second from one connection. Default: unlimited
    #[arg(long, value_name = "COUNT", env = "FDPUSH_MESSAGE_RATE",
        value_parser = between(1, RATE_MAX))]
    pub message_rate: Option<u32>,

    /// With --message-rate: maximum number of messages from one connection in a burst. Default: twice the rate
    #[arg(long, value_name = "COUNT", env = "FDPUSH_MESSAGE_BURST",
        value_parser = between(1, RATE_MAX))]
    pub message_burst: Option<u32>,

    /// Maximum number of accepted connections per second, with a burst of the same size; over this limit, clients get
    /// 503. Default: unlimited
    #[arg(long, value_name = "COUNT", env = "FDPUSH_ACCEPT_RATE",
        value_parser = between(1, RATE_MAX))]
    pub accept_rate: Option<u32>,
}

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "Heartbeat")]
pub struct HeartbeatSettings {
    /// Detection of dead clients. `client`: a client that sends nothing for --idle-max is dead. `ping`: the server
    /// pings every --ping-every, and a client that misses --missed-max pings in a row is dead. `push`: the server
    /// pings, and ignores missing answers. `off`: no detection
    #[arg(long, value_name = "WAY", env = "FDPUSH_HEARTBEAT", default_value = "ping")]
    pub heartbeat: HeartbeatMode,

    /// With --heartbeat client: maximum time without data from the client
    #[arg(long, value_name = "TIME", env = "FDPUSH_IDLE_MAX", default_value = "60s")]
    pub idle_max: Time,

    /// With --heartbeat ping or push: interval of pings
    #[arg(long, value_name = "TIME", env = "FDPUSH_PING_EVERY", default_value = "25s")]
    pub ping_every: Time,

    /// With --heartbeat ping: number of unanswered pings in a row after which a client is dead; any received byte is an
    /// answer
    #[arg(long, value_name = "COUNT", env = "FDPUSH_MISSED_MAX", default_value = "2",
        value_parser = at_least(1))]
    pub missed_max: u32,
}

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct Bounds {
    /// Maximum number of connections; over this limit, clients get 503. Default: as many as the hard descriptor limit
    /// allows
    #[arg(long, value_name = "COUNT", env = "FDPUSH_CONNECTIONS_MAX",
        value_parser = between(1, Fd::CONNECTIONS_MAX))]
    pub connections_max: Option<u32>,

    /// Maximum message of a client, in bytes; a longer message closes the connection with 1009
    #[arg(long, value_name = "SIZE", env = "FDPUSH_MESSAGE_BYTES_MAX",
        default_value_t = Size(Limits::default().message_bytes_max))]
    pub message_bytes_max: Size,

    /// Maximum send queue of one connection, in bytes. Must exceed --message-bytes-max
    #[arg(long, value_name = "SIZE", env = "FDPUSH_QUEUE_BYTES_MAX",
        default_value_t = Size(Limits::default().queue_bytes_max))]
    pub queue_bytes_max: Size,

    /// Maximum memory of all send queues, in bytes; over this limit, the server applies --slow-reader to the clients
    /// with the longest queues
    #[arg(long, value_name = "SIZE", env = "FDPUSH_QUEUE_TOTAL_BYTES_MAX",
        default_value_t = Size(Limits::default().queue_total_bytes_max))]
    pub queue_total_bytes_max: Size,

    /// Bytes that each send queue may keep when --queue-total-bytes-max is reached; with many queues, each queue keeps
    /// an equal share of half of --queue-total-bytes-max
    #[arg(long, value_name = "SIZE", env = "FDPUSH_QUEUE_BYTES_MIN",
        default_value_t = Size(Limits::default().queue_bytes_min))]
    pub queue_bytes_min: Size,

    /// Policy for a slow reader whose send queue exceeds a limit: `close` closes the connection with 1013,
    /// `drop_newest` drops the newest message, `conflate` replaces the queued message with the same key
    #[arg(long, value_name = "POLICY", env = "FDPUSH_SLOW_READER", default_value = "close")]
    pub slow_reader: SlowReaderPolicy,

    /// Maximum HTTP head, in bytes; a longer head gets 431
    #[arg(long, value_name = "SIZE", env = "FDPUSH_HEAD_BYTES_MAX",
        default_value_t = Size(Limits::default().head_bytes_max))]
    pub head_bytes_max: Size,

    /// Maximum number of header fields; a head with more fields gets 431
    #[arg(long, value_name = "COUNT", env = "FDPUSH_HEADERS_MAX",
        default_value_t = count(Limits::default().headers_max),
        value_parser = between(1, HEADERS_CEILING as u32))]
    pub headers_max: u32,

    /// Maximum time to receive a complete HTTP head; a late head gets 408. The same maximum applies to a TLS handshake;
    /// a late handshake closes the connection
    #[arg(long, value_name = "TIME", env = "FDPUSH_HEAD_TIME_MAX",
        default_value_t = Time(Limits::default().head_time_max))]
    pub head_time_max: Time,

    /// Maximum body of an HTTP request, in bytes; a longer body gets 413
    #[arg(long, value_name = "SIZE", env = "FDPUSH_BODY_BYTES_MAX",
        default_value_t = Size(Limits::default().body_bytes_max))]
    pub body_bytes_max: Size,

    /// Maximum time to receive a complete HTTP body, or the next piece of a batch; a late body gets 408
    #[arg(long, value_name = "TIME", env = "FDPUSH_BODY_TIME_MAX",
        default_value_t = Time(Limits::default().body_time_max))]
    pub body_time_max: Time,

    /// Timeout of an upgrade that waits for a decision; after the timeout, the client gets 503. With --auth webhook,
    /// this time is never less than --auth-timeout
    #[arg(long, value_name = "TIME", env = "FDPUSH_ANSWER_TIME_MAX",
        default_value_t = Time(Limits::default().answer_time_max))]
    pub answer_time_max: Time,

    /// Maximum idle time of an HTTP connection
    #[arg(long, value_name = "TIME", env = "FDPUSH_KEEP_ALIVE_MAX",
        default_value_t = Time(Limits::default().keep_alive_max))]
    pub keep_alive_max: Time,

    /// Maximum time to receive a message, from its first to its last byte; a late message closes the connection with
    /// 1008
    #[arg(long, value_name = "TIME", env = "FDPUSH_MESSAGE_TIME_MAX",
        default_value_t = Time(Limits::default().message_time_max))]
    pub message_time_max: Time,

    /// Maximum memory of unfinished messages, HTTP heads and bodies of all clients, in bytes; over this limit, the
    /// clients with the most bytes are closed with 1013 or 503. The value must be at least twice --message-bytes-max
    /// and twice --body-bytes-max
    #[arg(long, value_name = "SIZE", env = "FDPUSH_INBOUND_TOTAL_BYTES_MAX",
        default_value_t = Size(Limits::default().inbound_total_bytes_max))]
    pub inbound_total_bytes_max: Size,

    /// Maximum time to wait for the client's close frame in a close handshake
    #[arg(long, value_name = "TIME", env = "FDPUSH_CLOSE_WAIT_MAX",
        default_value_t = Time(Limits::default().close_wait_max))]
    pub close_wait_max: Time,

    /// Maximum time for which a client takes no byte of the data that the server sends; after this time, the connection
    /// is closed. The sockets also have this timeout as TCP_USER_TIMEOUT
    #[arg(long, value_name = "TIME", env = "FDPUSH_WRITE_TIME_MAX",
        default_value_t = Time(Limits::default().write_time_max))]
    pub write_time_max: Time,

    /// Maximum number of bytes read from one connection in a turn of the loop, from 1KiB to 64MiB
    #[arg(long, value_name = "SIZE", env = "FDPUSH_READ_BUDGET_BYTES",
        default_value_t = Size(Limits::default().read_budget_bytes))]
    pub read_budget_bytes: Size,

    /// Maximum number of commands from other threads that wait for the loop
    #[arg(long, value_name = "COUNT", env = "FDPUSH_INBOX_MAX",
        default_value_t = count(Limits::default().inbox_max),
        value_parser = between(1, 1 << 30))]
    pub inbox_max: u32,

    /// With several --loops: maximum memory of the messages that loops have sent to other loops and that the other
    /// loops have not handled yet, in bytes; over this limit, messages are dropped and counted. Must exceed
    /// --message-bytes-max by at least 4KiB
    #[arg(long, value_name = "SIZE", env = "FDPUSH_FORWARD_BYTES_MAX",
        default_value_t = Size(Limits::default().forward_bytes_max))]
    pub forward_bytes_max: Size,

    /// Maximum number of groups of a connection; over this limit, a join is refused
    #[arg(long, value_name = "COUNT", env = "FDPUSH_CONNECTION_GROUPS_MAX",
        default_value_t = count(Limits::default().connection_groups_max),
        value_parser = between(1, 1 << 30))]
    pub connection_groups_max: u32,

    /// Maximum number of memberships of all connections; over this limit, a join is refused. A membership takes up to
    /// 300 bytes of memory
    #[arg(long, value_name = "COUNT", env = "FDPUSH_MEMBERSHIPS_MAX",
        default_value_t = count(Limits::default().memberships_max),
        value_parser = between(1, 1 << 30))]
    pub memberships_max: u32,

    /// After SIGTERM or SIGINT: the time over which close frames are spread, at most --drain-time-max
    #[arg(long, value_name = "TIME", env = "FDPUSH_DRAIN_FOR",
        default_value_t = Delay(Limits::default().drain_for))]
    pub drain_for: Delay,

    /// After SIGTERM or SIGINT: maximum time for clients to disconnect
    #[arg(long, value_name = "TIME", env = "FDPUSH_DRAIN_TIME_MAX",
        default_value_t = Time(Limits::default().drain_time_max))]
    pub drain_time_max: Time,
}

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "Webhook")]
pub struct Hooks {
    /// The URL to which the server posts events. Default: none
    #[arg(long, value_name = "URL", env = "FDPUSH_WEBHOOK", value_parser = UrlParser, hide_env_values = true)]
    pub webhook: Option<Url>,

    /// The events that the server sends to the webhook. `message` is every text message, including heartbeats and
    /// refused frames; `send` is each valid frame of type `send`. May be given several times
    #[arg(
        long,
        value_name = "EVENT",
        env = "FDPUSH_WEBHOOK_EVENTS",
        value_delimiter = ',',
        default_value = "open,message,close"
    )]
    pub webhook_events: Vec<Kind>,

    /// Secret that signs events and requests to --auth-url. Prefer the environment or a file: other users can see flags
    #[arg(long, value_name = "SECRET", env = "FDPUSH_WEBHOOK_SECRET", hide_env_values = true)]
    pub webhook_secret: Option<Secret>,

    /// Certificate authorities in PEM for https back ends, --auth-url included. Default: the root certificates of
    /// Mozilla
    #[arg(long, value_name = "FILE", env = "FDPUSH_WEBHOOK_CA_FILE", value_parser = path)]
    pub webhook_ca_file: Option<PathBuf>,

    /// Maximum number of events that wait for the webhook
    #[arg(long, value_name = "COUNT", env = "FDPUSH_WEBHOOK_QUEUE_MAX", default_value = "100000",
        value_parser = between(1, 1 << 30))]
    pub webhook_queue_max: u32,

    /// Maximum number of events in a request to the webhook
    #[arg(long, value_name = "COUNT", env = "FDPUSH_WEBHOOK_BATCH_MAX", default_value = "100",
        value_parser = between(1, 100_000))]
    pub webhook_batch_max: u32,

    /// Maximum body of a request to the webhook, in bytes. A larger event is sent alone
    #[arg(long, value_name = "SIZE", env = "FDPUSH_WEBHOOK_BATCH_BYTES_MAX",
        default_value_t = Size(webhook::BATCH_BYTES_MAX))]
    pub webhook_batch_bytes_max: Size,

    /// Maximum length of an event, in bytes of JSON, from 4KiB to 64MiB. A client frame with a larger event gets the
    /// error `too_large`
    #[arg(long, value_name = "SIZE", env = "FDPUSH_WEBHOOK_EVENT_BYTES_MAX",
        default_value_t = Size(webhook::EVENT_BYTES_MAX))]
    pub webhook_event_bytes_max: Size,

    /// Timeout of a request to the webhook
    #[arg(long, value_name = "TIME", env = "FDPUSH_WEBHOOK_TIMEOUT", default_value = "5s")]
    pub webhook_timeout: Time,

    /// Maximum time for all attempts of a request to the webhook; after this time, the events of the request are
    /// dropped
    #[arg(long, value_name = "TIME", env = "FDPUSH_WEBHOOK_RETRY_TIME_MAX", default_value = "5m")]
    pub webhook_retry_time_max: Time,

    /// Time after which a uid without a connection causes the event `offline`, so that a page refresh causes no event.
    /// The members of a group get `left` immediately
    #[arg(long, value_name = "TIME", env = "FDPUSH_PRESENCE_DELAY", default_value = "3s")]
    pub presence_delay: Delay,

    /// Name of this server in requests to back ends. Default: the host name with a random suffix
    #[arg(long, value_name = "NAME", env = "FDPUSH_NODE")]
    pub node: Option<NodeName>,
}

impl Serve {
    /// Returns the authentication mode.
    pub fn auth(&self) -> Auth {
        self.clients.auth.unwrap_or(Auth::Trust)
    }

    /// Returns whether `GET /` serves the demo page.
    pub fn serves_page(&self) -> bool {
        match self.page {
            When::Always => true,
            When::Never => false,
            When::Auto => self.auth() == Auth::Trust,
        }
    }

    /// Checks whether the authentication mode is permitted for the client addresses.
    ///
    /// If other machines can connect to an address, the user must set `auth`, even if the value is the default `trust`.
    pub fn check_trust(&self, addresses: &[Address]) -> Result<(), String> {
        match addresses.iter().find(|address| !address.is_local()) {
            Some(open) if self.clients.auth.is_none() => Err(format!(
                "{open} can be reached from other machines, and the server must know who its clients are: give --auth jwt \
                 with --jwt-secret (signed tokens), or --auth webhook with --auth-url (the back end decides); --auth trust lets \
                 anyone claim any uid"
            )),
            _ => Ok(()),
        }
    }

    /// Returns the allowed origins.
    pub fn origins(&self) -> Result<Origins, String> {
        match self.clients.origin.as_slice() {
            [] => Ok(Origins::Same),
            origins if origins.iter().any(|origin| origin.as_ref() == "*") => Ok(Origins::Any),
            origins => Origins::list(origins).map_err(|why| format!("--origin: {why}")),
        }
    }

    /// Returns the permissions of clients. The list contains neither `All` nor `Nothing`: `All` is replaced by all
    /// permissions, and `Nothing` by an empty list.
    pub fn client_may(&self) -> Vec<Permission> {
        const EACH: [Permission; 7] = [
            Permission::PushUid,
            Permission::PushFd,
            Permission::PushOwnGroup,
            Permission::PushGroup,
            Permission::PushAll,
            Permission::Join,
            Permission::Online,
        ];
        match self.clients.client_may.as_slice() {
            [] if self.auth() == Auth::Trust => EACH.to_vec(),
            [] => vec![Permission::PushOwnGroup],
            listed if listed.contains(&Permission::All) => EACH.to_vec(),
            listed => EACH.into_iter().filter(|may| listed.contains(may)).collect(),
        }
    }

    /// Returns the connection limit of a uid. Returns `None` for any policy except `multi`, because with another policy
    /// a uid has at most one connection.
    pub fn uid_connections_max(&self) -> Option<u32> {
        self.clients.uid_connections_max.filter(|_| self.clients.on_second_login == OnSecondLogin::Multi)
    }

    /// Returns the burst of the message rate, or `None` if no message rate is set.
    pub fn message_burst(&self) -> Option<u32> {
        let rate = self.clients.message_rate?;
        Some(self.clients.message_burst.unwrap_or(rate.saturating_mul(2).min(RATE_MAX)))
    }

    /// Returns the addresses of the API, without `off`.
    pub fn api_addresses(&self) -> impl Iterator<Item = &ApiAddress> {
        self.api.addresses.iter().filter(|address| **address != ApiAddress::Off)
    }

    /// Returns whether an address for clients speaks TLS.
    pub fn has_tls_listener(&self) -> bool {
        self.listen.iter().any(ClientAddress::is_tls)
    }

    /// Returns whether an address of the API speaks TLS.
    pub fn has_tls_api(&self) -> bool {
        self.api_addresses().any(ApiAddress::is_tls)
    }

    /// Returns whether clients can have addresses. The peer of a unix socket has no address, but a proxy can report a
    /// client address.
    pub fn clients_have_addresses(&self) -> bool {
        self.listen.iter().any(|address| !address.endpoint().is_unix())
            || self.clients.trusted_proxy.contains(&TrustedProxy::Unix)
    }

    /// Returns whether the API has an address for HTTP.
    pub fn has_http_api(&self) -> bool {
        self.api_addresses().any(|address| matches!(address, ApiAddress::Http(_)))
    }

    pub fn heartbeat(&self) -> Heartbeat {
        let HeartbeatSettings { heartbeat, idle_max: Time(idle_max), ping_every: Time(every), missed_max } = self.heart;
        match heartbeat {
            HeartbeatMode::Client => Heartbeat::Client { idle_max },
            HeartbeatMode::Ping => Heartbeat::Ping { every, missed_max },
            HeartbeatMode::Push => Heartbeat::Push { every },
            HeartbeatMode::Off => Heartbeat::Off,
        }
    }
}

/// Converts a default of `Limits` to the type of the flag. Each default fits into 32 bits.
fn count(max: usize) -> u32 {
    u32::try_from(max).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
