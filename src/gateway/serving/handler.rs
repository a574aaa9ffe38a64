//! The event handler of `fdpush serve`. The handler forwards each event of the loop to the module that handles the
//! event.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fdpush::shared::{Rate, Take, TokenBucket};
use fdpush::{
    BodyEvent, BodyMode, Cause, CloseCode, Closed, Context, Fd, Handler, Heartbeat, Message, Notice, Request, Response,
    Ticket, TimerId, Upgrade,
};

use super::client;
use super::loop_settings::{LoopSettings, SettingsBoxes};
use super::page;
use super::plan::Plan;
use super::refusals::{address_full, too_many, unavailable};
use super::session::Session;
use super::sighup::{ReloadQueue, ReloadResult};
use super::thread_message::ThreadMessage;
use crate::gateway::api::{Api, ApiParts, Loops, MetricsText};
use crate::gateway::hooks::webhook::Webhook;
use crate::gateway::identity::Identity;
use crate::gateway::identity::addresses::Addresses;
use crate::gateway::identity::api_keys::ApiKeys;
use crate::gateway::identity::connect_hook::{Decision, Hook};
use crate::gateway::identity::expiry::{CHECK_INTERVAL, Expiries};
use crate::gateway::identity::jwt;
use crate::gateway::identity::permissions::Permissions;
use crate::gateway::identity::proxies::{Proxies, address_of};
use crate::gateway::identity::subprotocol::{self, Choice, Subprotocol};
use crate::gateway::identity::token_counts::TokenCounts;
use crate::gateway::operations::metrics::Metrics;
use crate::gateway::operations::snapshot;
use crate::gateway::operations::systemd;
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::datagrams::{DatagramCounts, DatagramReceiver};
use crate::gateway::push::publish::Publisher;
use crate::gateway::runtime::clock;
use crate::gateway::runtime::loops::HOME;
use crate::gateway::settings::Settings;
use crate::gateway::settings::cli::{Auth, ForwardedHeader};
use crate::gateway::tls::expiry::ExpiryWatch;
use crate::gateway::tls::files::TlsConfigs;
use crate::gateway::wire::frame::{self, FrameError};

/// The close code of a connection whose identity has expired.
const EXPIRED: u16 = 4003;

/// The state of `fdpush serve` on the thread of one loop.
pub struct Gateway {
    settings: Arc<Settings>,
    heartbeat: Heartbeat,
    permissions: Permissions,
    proxies: Proxies,
    rate: Option<Rate>,
    tokens: Option<jwt::Keys>,
    verified: Arc<TokenCounts>,
    hook: Option<Arc<Hook>>,
    webhook: Option<Arc<Webhook>>,
    roster: Roster,
    publisher: Publisher,
    api: Api,
    metrics: Metrics,
    datagrams: Vec<DatagramReceiver>,
    /// The results of reloads that the first loop has not applied yet.
    reloads: Arc<ReloadQueue>,
    /// The settings after a reload that the other loops have not applied yet. `None` with one loop.
    boxes: Option<Arc<SettingsBoxes>>,
    /// The number of loops that have not started yet.
    unstarted: Arc<AtomicUsize>,
    addresses: Addresses,
    address_version: u64,
    expiries: Expiries,
    /// The settings of the TLS listeners. A reload replaces the TLS settings for connections that the server accepts
    /// after the reload.
    tls: TlsConfigs,
    certificates: ExpiryWatch,
    /// Whether all loops have applied a reload since the last turn end of this loop.
    is_reloaded: Rc<Cell<bool>>,
    started: Instant,
}

/// The parts of a gateway that are created before the loop of the gateway starts.
pub struct Services {
    pub keys: Arc<Mutex<ApiKeys>>,
    /// The receivers of datagrams. The first loop has all receivers, and the other loops have none.
    pub datagrams: Vec<DatagramReceiver>,
    pub hook: Option<Arc<Hook>>,
    pub webhook: Option<Arc<Webhook>>,
    /// The queue of reload results. The queue of any loop other than the first loop stays empty.
    pub reloads: Arc<ReloadQueue>,
    pub boxes: Option<Arc<SettingsBoxes>>,
    pub unstarted: Arc<AtomicUsize>,
    pub verified: Arc<TokenCounts>,
    pub roster: Roster,
    pub addresses: Addresses,
    /// The rosters of all loops, with which the API reaches the clients of all loops. Only the first of several loops
    /// has this value.
    pub loops: Option<Loops>,
    pub tls: TlsConfigs,
}

impl Gateway {
    /// Creates the gateway of a loop.
    pub fn new(settings: LoopSettings, services: Services) -> Gateway {
        let Services { keys, datagrams, hook, webhook, reloads, boxes, unstarted, .. } = services;
        let mut gateway = Gateway {
            heartbeat: settings.settings.serve.heartbeat(),
            permissions: Permissions::new(Vec::new()),
            proxies: Proxies::new(&[], ForwardedHeader::XForwardedFor),
            rate: None,
            tokens: None,
            verified: services.verified,
            hook,
            webhook,
            roster: services.roster,
            publisher: Publisher::default(),
            api: Api::new(keys, services.loops),
            metrics: Metrics::new(),
            datagrams,
            reloads,
            boxes,
            unstarted,
            addresses: services.addresses,
            address_version: settings.address_version,
            expiries: Expiries::new(clock::unix_ms, CHECK_INTERVAL),
            tls: services.tls,
            certificates: ExpiryWatch::new(clock::unix_ms),
            is_reloaded: Rc::default(),
            started: clock::now(),
            settings: Arc::clone(&settings.settings),
        };
        gateway.apply(settings);
        gateway
    }

    /// Applies the settings for the clients of this loop.
    fn apply(&mut self, settings: LoopSettings) {
        let LoopSettings { settings, tokens, .. } = settings;
        self.settings = settings;
        let serve = &self.settings.serve;
        self.tokens = tokens;
        self.permissions = Permissions::new(serve.client_may());
        self.proxies = Proxies::of(serve);
        let per_second = serve.clients.message_rate.and_then(NonZeroU32::new);
        let burst = serve.message_burst().and_then(NonZeroU32::new);
        self.rate = per_second.map(|per_second| Rate::new(per_second, burst));
    }

    /// Applies the settings of a reload. If `address_version` has changed, counts the connections of this loop by
    /// client address again.
    fn apply_reloaded(&mut self, ctx: &Context<'_>, settings: LoopSettings) {
        let version = settings.address_version;
        self.apply(settings);
        if version != self.address_version {
            self.address_version = version;
            self.addresses.recount(ctx, version, counts_addresses(&self.settings));
        }
    }

    /// Applies the result of a reload on the first loop, and sends the new settings to the other loops. A failed reload
    /// changes no setting.
    fn reload(&mut self, ctx: &mut Context<'_>, reload: ReloadResult) {
        let (plan, report) = match reload {
            Ok(reload) => reload,
            Err(why) => return log::error!("settings not reloaded: {why}"),
        };
        if let Err(why) = ctx.set_limits(plan.limits.clone()) {
            return log::error!("settings not reloaded: {why}");
        }
        let Plan { settings, api_keys, tokens, secret, origins, tls, .. } = plan;
        ctx.set_origins(origins);
        if let Some(hook) = &self.hook {
            hook.set_secret(secret.clone());
        }
        if let Some(webhook) = &self.webhook {
            webhook.set_secret(secret);
        }
        self.api.set_keys(api_keys);
        let old = Arc::clone(&self.settings);
        let counting = |settings: &Settings| (counts_addresses(settings), settings.serve.clients.address_ipv6_prefix);
        let address_version = self.address_version + u64::from(counting(&old) != counting(&settings));
        let settings = LoopSettings { settings, tokens, address_version };
        self.apply_reloaded(ctx, settings.clone());
        let proxies = Proxies::of(&self.settings.serve);
        ctx.set_trusted_proxies(move |peer| proxies.trusts_peer(peer));
        log::set_max_level(self.settings.serve.log.into());
        let has_new_tls = old.tls() != self.settings.tls();
        if has_new_tls {
            self.tls.replace(&tls);
        }
        let applied = Arc::clone(&self.settings);
        let log = move || {
            report.log();
            if has_new_tls {
                log_certificates(&applied);
            }
        };
        match &self.boxes {
            Some(boxes) => {
                let is_reloaded = Rc::clone(&self.is_reloaded);
                boxes.send(ctx, settings, move |ctx| {
                    log();
                    is_reloaded.set(true);
                    ctx.request_turn_end();
                });
            }
            None => {
                log();
                self.certificates.start(ctx, self.settings.tls());
            }
        }
    }

    /// If all loops have applied a reload, checks the certificates of the new settings from now on.
    fn end_reload(&mut self, ctx: &mut Context<'_>) {
        if self.is_reloaded.take() {
            self.certificates.start(ctx, self.settings.tls());
        }
    }

    /// Applies the settings that the first loop has sent to this loop.
    fn apply_sent(&mut self, ctx: &Context<'_>) {
        let Some(boxes) = self.boxes.clone() else { return };
        while let Some((settings, part)) = boxes.take(ctx.loop_index()) {
            self.apply_reloaded(ctx, settings);
            part.give_at_once(());
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
            if !self.addresses.admit(ctx, fd, counted, max) {
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
                self.verified.count_refused();
                return Upgrade::refuse(jwt::refuse("missing token"));
            }
            Err(why) => {
                self.verified.count_refused();
                return Upgrade::refuse(Response::text(400, format!("{why}\n")));
            }
        };
        match keys.verify(&token) {
            Ok(identity) => {
                self.verified.count_accepted();
                self.admit(ctx, fd, self.choose(request), identity, address)
            }
            Err(why) => {
                self.verified.count_refused();
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
        if ctx.loop_index() == HOME {
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
        }
        if self.unstarted.fetch_sub(1, Ordering::AcqRel) == 1 {
            systemd::notify_ready();
        }
    }

    fn on_stop(&mut self, ctx: &mut Context<'_>) {
        self.roster.events().end();
        if ctx.loop_index() == HOME {
            systemd::notify_stopping();
        }
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
        if let Some(ip) = address {
            self.addresses.handle_open(fd, ctx.limits().counted_address(ip));
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
        if let Some(ip) = ctx.info(fd).and_then(|info| address_of(ctx, fd, info.peer)) {
            self.addresses.handle_close(ctx.limits().counted_address(ip));
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
        let lost = api.lost_datagrams();
        let scrape = || -> MetricsText {
            let mut counts: DatagramCounts = datagrams.iter().map(DatagramReceiver::counts).sum();
            counts.overflowed += lost;
            let webhook = webhook.as_ref().map(|webhook| webhook.stats()).unwrap_or_default();
            let hook = hook.as_ref().map_or_else(|| verified.stats(), |hook| hook.stats());
            let (settings, metrics) = (Arc::clone(settings), metrics.clone());
            Box::new(move |stats, loops| {
                metrics.encode(snapshot::of(stats, loops, settings.tls(), counts, webhook, hook))
            })
        };
        Some(api.respond(ctx, fd, request, &mut parts, scrape))
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
        self.apply_sent(ctx);
        self.end_reload(ctx);
        self.addresses.end_turn();
        self.api.handle_turn_end(ctx, &mut self.roster);
        if ctx.is_draining() {
            // The server is closing all connections, so no client needs the `joined` and `left` notices.
            self.roster.discard_notices();
        } else if !self.api.holds_notices() {
            // Group notices wait until a long API command ends. So a command that removes members during many turns
            // causes one notice for each group.
            if self.roster.notify_groups(ctx) {
                self.api.handle_notices_sent();
            }
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
            Err(_) => log::error!("the loop received a message of an unknown type from another thread"),
        }
    }
}

/// Returns whether the number of connections of an address is limited.
pub fn counts_addresses(settings: &Settings) -> bool {
    settings.serve.clients.address_connections_max.is_some()
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
