//! The event handler of `fdpush serve`. The handler forwards each event of the loop to the module that handles the
//! event.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fdpush::shared::{Rate, Take, TokenBucket};
use fdpush::{
    BodyEvent, BodyMode, Cause, CloseCode, Closed, Context, Fd, Handler, Heartbeat, Limits, Message, Notice, Request,
    Response, Ticket, TimerId, Upgrade,
};

use super::client;
use super::page;
use super::plan::Plan;
use super::session::Session;
use super::sighup::{ReloadQueue, ReloadResult};
use super::thread_message::ThreadMessage;
use crate::gateway::api::{Api, ApiParts};
use crate::gateway::hooks::emitter::EventEmitter;
use crate::gateway::hooks::webhook::Webhook;
use crate::gateway::identity::Identity;
use crate::gateway::identity::api_keys::ApiKeys;
use crate::gateway::identity::connect_hook::{self, Decision, Hook};
use crate::gateway::identity::expiry::{CHECK_INTERVAL, Expiries};
use crate::gateway::identity::jwt;
use crate::gateway::identity::permissions::Permissions;
use crate::gateway::identity::proxies::{Proxies, address_of};
use crate::gateway::identity::subprotocol::{self, Choice, Subprotocol};
use crate::gateway::operations::metrics::Metrics;
use crate::gateway::operations::snapshot;
use crate::gateway::operations::systemd;
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::datagrams::DatagramReceiver;
use crate::gateway::push::publish::Publisher;
use crate::gateway::runtime::clock;
use crate::gateway::settings::Settings;
use crate::gateway::settings::cli::{Auth, ForwardedHeader};
use crate::gateway::tls::expiry::ExpiryWatch;
use crate::gateway::tls::files::TlsConfigs;
use crate::gateway::wire::frame::{self, FrameError};

/// The close code of a connection whose identity has expired.
const EXPIRED: u16 = 4003;

/// The state of `fdpush serve` on the loop's thread.
pub struct Gateway {
    settings: Arc<Settings>,
    heartbeat: Heartbeat,
    permissions: Permissions,
    proxies: Proxies,
    rate: Option<Rate>,
    tokens: Option<jwt::Keys>,
    /// The numbers of accepted and refused tokens.
    verified: connect_hook::HookStats,
    hook: Option<Hook>,
    webhook: Option<Arc<Webhook>>,
    roster: Roster,
    publisher: Publisher,
    api: Api,
    metrics: Metrics,
    datagrams: Vec<DatagramReceiver>,
    /// The results of settings reloads that the loop has not applied yet.
    reloads: Arc<ReloadQueue>,
    /// The number of open connections of each client, if `address_connections_max` is set. The key of the map is the
    /// address that `Limits::counted_address` returns.
    addresses: HashMap<IpAddr, u32>,
    expiries: Expiries,
    /// The settings of the TLS listeners. A reload replaces the TLS settings for connections that the server accepts
    /// after the reload.
    tls: TlsConfigs,
    certificates: ExpiryWatch,
    started: Instant,
}

/// The services on other threads, and the state that these threads share with the loop.
pub struct Services {
    pub keys: Arc<Mutex<ApiKeys>>,
    pub datagrams: Vec<DatagramReceiver>,
    pub hook: Option<Hook>,
    pub webhook: Option<Arc<Webhook>>,
    pub reloads: Arc<ReloadQueue>,
}

impl Gateway {
    /// Creates a gateway with the settings of a plan.
    pub fn new(plan: Plan, services: Services) -> Gateway {
        let Services { keys, datagrams, hook, webhook, reloads } = services;
        let settings = Arc::clone(&plan.settings);
        let events = EventEmitter::new(webhook.clone(), settings.serve.hooks.presence_delay.0);
        let mut gateway = Gateway {
            heartbeat: settings.serve.heartbeat(),
            permissions: Permissions::new(Vec::new()),
            proxies: Proxies::new(&[], ForwardedHeader::XForwardedFor),
            rate: None,
            tokens: None,
            verified: connect_hook::HookStats::default(),
            hook,
            webhook,
            roster: Roster::new(events),
            publisher: Publisher::default(),
            api: Api::new(keys),
            metrics: Metrics::new(),
            datagrams,
            reloads,
            addresses: HashMap::new(),
            expiries: Expiries::new(clock::unix_ms, CHECK_INTERVAL),
            tls: plan.tls.clone(),
            certificates: ExpiryWatch::new(clock::unix_ms),
            started: clock::now(),
            settings,
        };
        gateway.apply(plan);
        gateway
    }

    /// Applies the settings that a reload can change.
    fn apply(&mut self, plan: Plan) {
        let Plan { settings, api_keys, tokens, secret, .. } = plan;
        if let Some(hook) = &self.hook {
            hook.set_secret(secret.clone());
        }
        if let Some(webhook) = &self.webhook {
            webhook.set_secret(secret);
        }
        self.settings = settings;
        let serve = &self.settings.serve;
        self.api.set_keys(api_keys);
        self.tokens = tokens;
        self.roster.set_uid_connections_max(serve.uid_connections_max());
        self.permissions = Permissions::new(serve.client_may());
        self.proxies = Proxies::of(serve);
        let per_second = serve.clients.message_rate.and_then(NonZeroU32::new);
        let burst = serve.message_burst().and_then(NonZeroU32::new);
        self.rate = per_second.map(|per_second| Rate::new(per_second, burst));
    }

    /// Applies the result of a settings reload. A failed reload changes no setting.
    fn reload(&mut self, ctx: &mut Context<'_>, reload: ReloadResult) {
        let (plan, report) = match reload {
            Ok(reload) => reload,
            Err(why) => return log::error!("settings not reloaded: {why}"),
        };
        if let Err(why) = ctx.set_limits(plan.limits.clone()) {
            return log::error!("settings not reloaded: {why}");
        }
        ctx.set_origins(plan.origins.clone());
        let (old, tls) = (Arc::clone(&self.settings), plan.tls.clone());
        self.apply(plan);
        let proxies = Proxies::of(&self.settings.serve);
        ctx.set_trusted_proxies(move |peer| proxies.trusts_peer(peer));
        let prefix = |settings: &Settings| settings.serve.clients.address_ipv6_prefix;
        let counted = old.serve.clients.address_connections_max.is_some();
        if counted != self.counts_addresses() || prefix(&old) != prefix(&self.settings) {
            self.count_addresses(ctx);
        }
        log::set_max_level(self.settings.serve.log.into());
        report.log();
        if old.tls() != self.settings.tls() {
            self.tls.replace(&tls);
            log_certificates(&self.settings);
        }
        self.certificates.start(ctx, self.settings.tls());
    }

    /// Returns whether `address_connections_max` limits the connections of a client address.
    fn counts_addresses(&self) -> bool {
        self.settings.serve.clients.address_connections_max.is_some()
    }

    /// Counts the open connections of each client address, if `address_connections_max` is set.
    fn count_addresses(&mut self, ctx: &Context<'_>) {
        self.addresses = HashMap::new();
        if self.counts_addresses() {
            for ip in ctx.connections().filter_map(|fd| address_of(ctx, fd, ctx.info(fd)?.peer)) {
                *self.addresses.entry(ctx.limits().counted_address(ip)).or_default() += 1;
            }
        }
    }

    fn now_ms(&self) -> u64 {
        let elapsed = clock::now().saturating_duration_since(self.started);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    // Authentication.

    fn subprotocols(&self) -> &[Subprotocol] {
        &self.settings.serve.clients.subprotocols
    }

    fn choose(&self, request: &Request<'_>) -> Choice {
        subprotocol::choose(request, self.subprotocols())
    }

    /// Accepts or refuses the upgrade of an authenticated client.
    ///
    /// The upgrade is refused if the client offers only unsupported subprotocols, or if the uid or the client address
    /// has reached its connection limit.
    fn admit(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        choice: Choice,
        identity: Identity,
        address: Option<IpAddr>,
    ) -> Upgrade {
        let subprotocol = match (identity.subprotocol, choice) {
            (Some(chosen), _) | (None, Choice::One(chosen)) => Some(chosen),
            (None, Choice::NotOffered) => None,
            (None, Choice::NoneInCommon) => return Upgrade::refuse(subprotocol::refuse(self.subprotocols())),
        };
        if let Some(Err(full)) = identity.uid.as_ref().map(|uid| self.roster.check_uid_limit(ctx, uid)) {
            return too_many(format!("{full}\n"));
        }
        if let (Some(max), Some(ip)) = (self.settings.serve.clients.address_connections_max, address) {
            let counted = ctx.limits().counted_address(ip);
            if self.addresses.get(&counted).is_some_and(|count| *count >= max) {
                return too_many(address_full(counted, ctx.limits(), max));
            }
        }
        let Identity { uid, groups, attributes, exp, .. } = identity;
        let forwarded = ctx.session::<Session>(fd).and_then(|session| session.forwarded);
        let session = Session { attributes, groups, exp, forwarded, ..Session::default() };
        if session.is_empty() {
            ctx.take_session::<Session>(fd);
        } else {
            ctx.set_session(fd, session);
        }
        let accept = subprotocol.map_or_else(Upgrade::accept, |name| Upgrade::accept().subprotocol(name));
        uid.map_or(accept.clone(), |uid| accept.uid(uid)).into()
    }

    fn admit_token(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        request: &Request<'_>,
        address: Option<IpAddr>,
    ) -> Upgrade {
        let Some(keys) = &self.tokens else {
            return Upgrade::refuse(Response::text(503, "no token keys are configured\n"));
        };
        let token = match jwt::find(request) {
            Ok(Some(token)) => token,
            Ok(None) => {
                self.verified.refused += 1;
                return Upgrade::refuse(jwt::refuse("missing token"));
            }
            Err(why) => {
                self.verified.refused += 1;
                return Upgrade::refuse(Response::text(400, format!("{why}\n")));
            }
        };
        match keys.verify(&token) {
            Ok(identity) => {
                self.verified.accepted += 1;
                self.admit(ctx, fd, self.choose(request), identity, address)
            }
            Err(why) => {
                self.verified.refused += 1;
                Upgrade::refuse(jwt::refuse(why))
            }
        }
    }

    /// Sends an upgrade request to the connect hook.
    ///
    /// The decision of the connect hook arrives as [`ThreadMessage::Decision`].
    fn ask(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>, address: Option<IpAddr>) -> Upgrade {
        let Some(hook) = &self.hook else { return unavailable() };
        let (later, ticket) = ctx.defer_upgrade(fd);
        let (remote, choice) = (ctx.remote(), self.choose(request));
        let source = address.map(|ip| ctx.limits().counted_address(ip));
        let pending = hook.ask(fd, address, source, request.clone().into_owned(), move |decision| {
            if let Err(error) = remote.notify(ThreadMessage::Decision { ticket, address, choice, decision }) {
                log::warn!("fd {fd}: cannot send the decision of the connect hook to the loop: {error}");
            }
        });
        let forwarded = ctx.session::<Session>(fd).and_then(|session| session.forwarded);
        ctx.set_session(fd, Session { pending_auth: Some(pending), forwarded, ..Session::default() });
        later
    }

    /// Answers an upgrade request with the decision of the connect hook.
    fn handle_decision(
        &mut self,
        ctx: &mut Context<'_>,
        ticket: Ticket<Upgrade>,
        address: Option<IpAddr>,
        choice: Choice,
        decision: Decision,
    ) {
        let fd = ticket.fd();
        let upgrade = match decision {
            // The gateway must not store a session for a connection that has ended.
            Decision::Accept(_) if !ctx.exists(fd) => return,
            Decision::Accept(identity) => self.admit(ctx, fd, choice, identity, address),
            Decision::Refuse { status, body } => Upgrade::refuse(Response::text(status, body)),
            Decision::Unavailable => unavailable(),
        };
        ctx.answer(ticket, upgrade);
    }

    /// Returns whether a message is within the message rate of its sender.
    ///
    /// The first message over the rate gets an error frame. The second message over the rate closes the connection with
    /// close code 1008.
    fn is_within_rate(&mut self, ctx: &mut Context<'_>, fd: Fd) -> bool {
        let Some(rate) = self.rate else { return true };
        let now = self.now_ms();
        if ctx.session::<Session>(fd).is_none() {
            ctx.set_session(fd, Session::default());
        }
        let Some(session) = ctx.session_mut::<Session>(fd) else { return true };
        match session.limiter.get_or_insert_with(|| TokenBucket::new(rate, now)).take(rate, now) {
            Take::Granted => return true,
            Take::FirstDenied => {
                let what = "message rate exceeded: the next excess message closes the connection";
                ctx.push(fd, &frame::error(None, &FrameError::rate_limited(what)));
            }
            Take::Denied => {
                ctx.close(fd, CloseCode::POLICY, "message rate exceeded");
            }
        }
        false
    }
}

impl Handler for Gateway {
    fn on_start(&mut self, ctx: &mut Context<'_>) {
        let stats = ctx.stats();
        let set = self.settings.serve.limits().connections_max;
        let origin = if set.is_some() { "from the settings" } else { "from the descriptor limit" };
        log::info!(
            "connections_max is {} ({origin}), api_connections_max is {}",
            stats.connections_max,
            stats.control_connections_max
        );
        log_certificates(&self.settings);
        self.certificates.start(ctx, self.settings.tls());
        systemd::notify_ready();
    }

    fn on_stop(&mut self, _: &mut Context<'_>) {
        self.roster.events().end();
        systemd::notify_stopping();
    }

    fn on_upgrade(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> Upgrade {
        let forwarded = self.proxies.forwarded(request);
        // A proxy can send requests of several clients on one connection. So the session must not keep the client
        // address of an earlier request.
        match forwarded {
            Some(_) => _ = ctx.set_session(fd, Session { forwarded, ..Session::default() }),
            None => _ = ctx.take_session::<Session>(fd),
        }
        let address = address_of(ctx, fd, request.peer());
        match self.settings.serve.auth() {
            Auth::Trust => match trusted(request) {
                Ok(identity) => self.admit(ctx, fd, self.choose(request), identity, address),
                Err(response) => Upgrade::refuse(response),
            },
            Auth::Jwt => self.admit_token(ctx, fd, request, address),
            Auth::Webhook => self.ask(ctx, fd, request, address),
        }
    }

    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
        let (peer, address) = (request.peer(), address_of(ctx, fd, request.peer()));
        let from = address.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
        log::debug!("fd {fd} opened from {from} (peer {peer}), {}", LoggedUid(ctx.uid_of(fd)));
        if let Some(ip) = address.filter(|_| self.counts_addresses()) {
            *self.addresses.entry(ctx.limits().counted_address(ip)).or_default() += 1;
        }
        let welcome = frame::welcome(fd, ctx.uid_of(fd), &self.heartbeat);
        self.roster.handle_open(ctx, fd, request);
        if let Some(exp) = ctx.session::<Session>(fd).and_then(|session| session.exp) {
            self.expiries.insert(ctx, fd, exp);
        }
        ctx.push(fd, &welcome);
    }

    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
        if !self.is_within_rate(ctx, fd) {
            return;
        }
        match message {
            Message::Text(text) => {
                let emitted = self.roster.events().emit_message(ctx, fd, text);
                let Gateway { roster, publisher, permissions, .. } = self;
                let mut parts = client::ClientParts { roster, publisher, permissions };
                client::handle_frame(ctx, &mut parts, fd, text, emitted);
            }
            Message::Binary(_) => {
                ctx.close(fd, CloseCode::UNSUPPORTED, "frames must be JSON text");
            }
        }
    }

    fn on_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        let client = LoggedUid(ctx.uid_of(fd));
        match closed.cause {
            Cause::SlowConsumer | Cause::WriteTimedOut => log::warn!("fd {fd} ({client}) reads too slowly: {closed}"),
            _ => log::debug!("fd {fd} ({client}) closed: {closed}"),
        }
        if let Some(exp) = ctx.session::<Session>(fd).and_then(|session| session.exp) {
            self.expiries.remove(fd, exp);
        }
        let ip = ctx.info(fd).and_then(|info| address_of(ctx, fd, info.peer));
        let counted = ip.map(|ip| ctx.limits().counted_address(ip));
        if let Some(Entry::Occupied(mut count)) = counted.map(|counted| self.addresses.entry(counted)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.roster.handle_close(ctx, fd, closed);
    }

    fn on_head(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> BodyMode {
        match request.is_control() {
            true => self.api.handle_head(ctx, fd, request, &self.metrics),
            // The listeners for clients accept no request with a body.
            false => Response::text(404, "not found\n").into(),
        }
    }

    fn on_body(&mut self, ctx: &mut Context<'_>, fd: Fd, state: &mut dyn Any, event: BodyEvent<'_>) {
        let Gateway { api, roster, publisher, metrics, .. } = self;
        api.handle_piece(ctx, fd, state, event, &mut ApiParts { roster, publisher, metrics });
    }

    fn on_request(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) -> Option<Response> {
        if !request.is_control() {
            return if self.settings.serve.serves_page() { page::respond(request) } else { None };
        }
        let Gateway { settings, api, roster, publisher, metrics, datagrams, webhook, hook, verified, .. } = self;
        let mut parts = ApiParts { roster, publisher, metrics };
        let text = |ctx: &Context<'_>| {
            let counts = datagrams.iter().map(DatagramReceiver::counts).sum();
            let webhook = webhook.as_ref().map(|webhook| webhook.stats()).unwrap_or_default();
            let hook = hook.as_ref().map_or(*verified, Hook::stats);
            metrics.encode(snapshot::of(&ctx.stats(), settings.tls(), counts, webhook, hook))
        };
        Some(api.respond(ctx, fd, request, &mut parts, text))
    }

    fn on_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) {
        let is_handled = self.roster.events().handle_timer(ctx, timer)
            || self.api.handle_timer(ctx, timer)
            || self.certificates.handle_timer(ctx, timer, self.settings.tls());
        if is_handled {
            return;
        }
        let what = if self.tokens.is_some() { "the token has expired" } else { "the identity has expired" };
        for fd in self.expiries.handle_timer(ctx, timer).into_iter().flatten() {
            ctx.close(fd, EXPIRED, what);
        }
    }

    fn on_turn_end(&mut self, ctx: &mut Context<'_>) {
        self.api.handle_turn_end(ctx, &mut self.roster);
        if ctx.is_draining() {
            // The server is closing all connections, so no client needs the `joined` and `left` notices.
            self.roster.discard_notices();
        } else if !self.api.has_long_command() {
            // Group notices wait until a long API command ends. So a command that removes members during many turns
            // causes one notice for each group.
            self.roster.notify_groups(ctx);
        }
    }

    fn on_notice(&mut self, ctx: &mut Context<'_>, notice: Notice) {
        while let Some(reload) = self.reloads.take() {
            self.reload(ctx, reload);
        }
        match notice.downcast::<ThreadMessage>().map(|message| *message) {
            Ok(ThreadMessage::Datagram(bytes)) => {
                let Gateway { api, roster, publisher, metrics, .. } = self;
                api.handle_datagram(ctx, &bytes, &mut ApiParts { roster, publisher, metrics });
            }
            Ok(ThreadMessage::Decision { ticket, address, choice, decision }) => {
                self.handle_decision(ctx, ticket, address, choice, decision);
            }
            Ok(ThreadMessage::Reload) => {}
            Err(_) => log::error!("the loop received a notice of an unknown type"),
        }
    }
}

/// Writes the certificates in use to the log.
fn log_certificates(settings: &Settings) {
    for line in settings.certificates().lines() {
        log::info!("{line}");
    }
}

/// The uid of a client in a log line. The uid is escaped, because a client can choose its uid.
struct LoggedUid<'a>(Option<&'a str>);

impl fmt::Display for LoggedUid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(uid) => write!(f, "uid {uid:?}"),
            None => f.write_str("anonymous"),
        }
    }
}

/// Returns the identity that a client claims. `--auth trust` accepts the uid of the query without a check.
fn trusted(request: &Request<'_>) -> Result<Identity, Response> {
    let refuse = |why: &dyn fmt::Display| Response::text(400, format!("{why}\n"));
    let uid = request.try_query("uid").map_err(|error| refuse(&error))?;
    Identity::new(uid.map(Cow::into_owned), Vec::new()).map_err(|error| refuse(&error))
}

fn unavailable() -> Upgrade {
    Upgrade::refuse(Response::text(503, "authentication back end unavailable\n").header("Retry-After", "1"))
}

/// Returns the error text for an address or IPv6 network at its connection limit.
fn address_full(counted: IpAddr, limits: &Limits, max: u32) -> String {
    match counted {
        IpAddr::V4(ip) => format!("connection limit of address {ip} reached ({max})\n"),
        IpAddr::V6(ip) => {
            format!("connection limit of network {ip}/{} reached ({max})\n", limits.address_ipv6_prefix)
        }
    }
}

fn too_many(why: String) -> Upgrade {
    Upgrade::refuse(Response::text(429, why))
}
