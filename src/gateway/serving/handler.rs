//! The handler of `fdpush serve`: every event of the loop, and which room it goes to.

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
use super::session::Session;
use super::sighup::{Plan, Reading, Readings};
use crate::gateway::api::{Api, Parts};
use crate::gateway::hooks::emitter::Watch;
use crate::gateway::hooks::webhook::Webhook;
use crate::gateway::identity::Identity;
use crate::gateway::identity::api_keys::ApiKeys;
use crate::gateway::identity::connect_hook::{self, Hook, Verdict};
use crate::gateway::identity::expiry::{Expiries, LOOK_EVERY};
use crate::gateway::identity::jwt;
use crate::gateway::identity::permissions::Permits;
use crate::gateway::identity::proxies::{Proxies, address_of};
use crate::gateway::identity::subprotocol::{self, Choice, Subprotocol};
use crate::gateway::operations::metrics::Metrics;
use crate::gateway::operations::snapshot;
use crate::gateway::operations::systemd;
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::datagrams::Ingress;
use crate::gateway::push::datagrams::pending::Datagram;
use crate::gateway::push::publish::Publisher;
use crate::gateway::runtime::clock;
use crate::gateway::settings::Settings;
use crate::gateway::settings::cli::{Auth, ForwardedHeader};
use crate::gateway::wire::frame::{self, Refusal};

/// The close code of a connection whose identity is no longer true.
const EXPIRED: u16 = 4003;

/// The gateway.
pub struct Gateway {
    settings: Arc<Settings>,
    heartbeat: Heartbeat,
    permits: Permits,
    proxies: Proxies,
    rate: Option<Rate>,
    tokens: Option<jwt::Keys>,
    /// What tokens came to.
    verified: connect_hook::Stats,
    hook: Option<Hook>,
    webhook: Option<Arc<Webhook>>,
    roster: Roster,
    publisher: Publisher,
    api: Api,
    metrics: Metrics,
    datagrams: Vec<Ingress>,
    /// Settings that SIGHUP brought.
    readings: Arc<Readings>,
    /// Open connections by counted address, where that is bounded: see `Limits::counted_address`.
    addresses: HashMap<IpAddr, u32>,
    expiries: Expiries,
    started: Instant,
}

/// What has threads of its own, and was started before the loop.
pub struct Rooms {
    pub keys: Arc<Mutex<ApiKeys>>,
    pub datagrams: Vec<Ingress>,
    pub hook: Option<Hook>,
    pub webhook: Option<Arc<Webhook>>,
    pub readings: Arc<Readings>,
}

/// What other threads tell the gateway.
pub enum Told {
    /// A command by datagram.
    Datagram(Datagram),
    /// Who a client is, as the back end has it.
    Verdict { ticket: Ticket<Upgrade>, address: Option<IpAddr>, choice: Choice, verdict: Verdict },
    /// Nothing but that there is a reading.
    Reload,
}

impl Gateway {
    /// A gateway of these settings.
    pub fn new(plan: Plan, rooms: Rooms) -> Gateway {
        let Rooms { keys, datagrams, hook, webhook, readings } = rooms;
        let settings = Arc::clone(&plan.settings);
        let watch = Watch::new(webhook.clone(), settings.serve.hooks.presence_delay.0);
        let mut gateway = Gateway {
            heartbeat: settings.serve.heartbeat(),
            permits: Permits::new(Vec::new()),
            proxies: Proxies::new(&[], ForwardedHeader::XForwardedFor),
            rate: None,
            tokens: None,
            verified: connect_hook::Stats::default(),
            hook,
            webhook,
            roster: Roster::new(watch),
            publisher: Publisher::default(),
            api: Api::new(keys),
            metrics: Metrics::new(),
            datagrams,
            readings,
            addresses: HashMap::new(),
            expiries: Expiries::new(clock::unix_ms, LOOK_EVERY),
            started: clock::now(),
            settings,
        };
        gateway.apply(plan);
        gateway
    }

    /// Takes over from the settings what can change while the server runs.
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
        self.permits = Permits::new(serve.client_may());
        self.proxies = Proxies::of(serve);
        let per_second = serve.clients.message_rate.and_then(NonZeroU32::new);
        let burst = serve.message_burst().and_then(NonZeroU32::new);
        self.rate = per_second.map(|per_second| Rate::new(per_second, burst));
    }

    /// Takes over settings that SIGHUP brought. Where they cannot be, all stays as it is.
    fn reload(&mut self, ctx: &mut Context<'_>, reading: Reading) {
        let (plan, news) = match reading {
            Ok(reading) => reading,
            Err(why) => return log::error!("the settings stay as they are: {why}"),
        };
        if let Err(why) = ctx.set_limits(plan.limits.clone()) {
            return log::error!("the settings stay as they are: {why}");
        }
        ctx.set_origins(plan.origins.clone());
        let old = Arc::clone(&self.settings);
        self.apply(plan);
        let proxies = Proxies::of(&self.settings.serve);
        ctx.set_trusted_proxies(move |peer| proxies.trusts_peer(peer));
        let prefix = |settings: &Settings| settings.serve.clients.address_ipv6_prefix;
        let counted = old.serve.clients.address_connections_max.is_some();
        if counted != self.counts_addresses() || prefix(&old) != prefix(&self.settings) {
            self.count_addresses(ctx);
        }
        log::set_max_level(self.settings.serve.log.into());
        news.log();
    }

    /// Whether it must be known how many connections an address has.
    fn counts_addresses(&self) -> bool {
        self.settings.serve.clients.address_connections_max.is_some()
    }

    /// Counts those who are there already, where the settings say from now on that they are to be counted.
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

    // Who a client is.

    fn subprotocols(&self) -> &[Subprotocol] {
        &self.settings.serve.clients.subprotocols
    }

    fn choose(&self, request: &Request) -> Choice {
        subprotocol::choose(request, self.subprotocols())
    }

    /// Opens a connection as `identity`, if that may have one more.
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
        if let Some(Err(full)) = identity.uid.as_ref().map(|uid| self.roster.check_room(ctx, uid)) {
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

    fn admit_token(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request, address: Option<IpAddr>) -> Upgrade {
        let Some(keys) = &self.tokens else { return Upgrade::refuse(Response::text(503, "no keys\n")) };
        let token = match jwt::find(request) {
            Ok(Some(token)) => token,
            Ok(None) => {
                self.verified.refused += 1;
                return Upgrade::refuse(jwt::refuse("a token is needed"));
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

    /// Asks the back end who this is. The verdict comes by notice.
    fn ask(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request, address: Option<IpAddr>) -> Upgrade {
        let Some(hook) = &self.hook else { return unavailable() };
        let (later, ticket) = ctx.defer_upgrade(fd);
        let (remote, choice) = (ctx.remote(), self.choose(request));
        let source = address.map(|ip| ctx.limits().counted_address(ip));
        let question = hook.ask(fd, address, source, request.clone(), move |verdict| {
            if let Err(error) = remote.notify(Told::Verdict { ticket, address, choice, verdict }) {
                log::warn!("fd {fd}: the back end's verdict does not reach the loop: {error}");
            }
        });
        let forwarded = ctx.session::<Session>(fd).and_then(|session| session.forwarded);
        ctx.set_session(fd, Session { question: Some(question), forwarded, ..Session::default() });
        later
    }

    /// The back end has said who this is.
    fn handle_verdict(
        &mut self,
        ctx: &mut Context<'_>,
        ticket: Ticket<Upgrade>,
        address: Option<IpAddr>,
        choice: Choice,
        verdict: Verdict,
    ) {
        let fd = ticket.fd();
        let upgrade = match verdict {
            // Who has gone meanwhile must not leave a session behind.
            Verdict::Accept(_) if !ctx.exists(fd) => return,
            Verdict::Accept(identity) => self.admit(ctx, fd, choice, identity, address),
            Verdict::Refuse { status, body } => Upgrade::refuse(Response::text(status, body)),
            Verdict::Unavailable => unavailable(),
        };
        ctx.answer(ticket, upgrade);
    }

    /// Counts a message against the sender's rate: first an error, then 1008.
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
                let what = "too many messages: the next one too many closes the connection";
                ctx.push(fd, &frame::error(None, &Refusal::rate_limited(what)));
            }
            Take::Denied => {
                ctx.close(fd, CloseCode::POLICY, "too many messages");
            }
        }
        false
    }
}

impl Handler for Gateway {
    fn on_start(&mut self, ctx: &mut Context<'_>) {
        let stats = ctx.stats();
        let set = self.settings.serve.limits().connections_max;
        let origin = if set.is_some() { "as set" } else { "from the descriptor limit" };
        log::info!(
            "connections_max is {} ({origin}), api_connections_max {}",
            stats.connections_max,
            stats.control_connections_max
        );
        systemd::tell_ready();
    }

    fn on_stop(&mut self, _: &mut Context<'_>) {
        self.roster.watch().end();
        systemd::tell_stopping();
    }

    fn on_upgrade(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) -> Upgrade {
        let forwarded = self.proxies.forwarded(request);
        // The connection may have been kept alive from a request of another client, by the same proxy.
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

    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) {
        let (peer, address) = (request.peer(), address_of(ctx, fd, request.peer()));
        let from = address.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
        log::debug!("fd {fd} opened from {from} by {peer}, {}", Who(ctx.uid_of(fd)));
        if let Some(ip) = address.filter(|_| self.counts_addresses()) {
            *self.addresses.entry(ctx.limits().counted_address(ip)).or_default() += 1;
        }
        let welcome = frame::welcome(fd, ctx.uid_of(fd), &self.heartbeat);
        self.roster.handle_open(ctx, fd, request);
        if let Some(exp) = ctx.session::<Session>(fd).and_then(|session| session.exp) {
            self.expiries.insert(ctx, fd, exp);
        }
        ctx.push(fd, &welcome);
        self.roster.join_first_groups(ctx, fd);
    }

    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
        if !self.is_within_rate(ctx, fd) {
            return;
        }
        match message {
            Message::Text(text) => {
                let emitted = self.roster.watch().message(ctx, fd, text);
                let Gateway { roster, publisher, permits, .. } = self;
                let mut parts = client::Parts { roster, publisher, permits };
                client::carry_out(ctx, &mut parts, fd, text, emitted);
            }
            Message::Binary(_) => {
                ctx.close(fd, CloseCode::UNSUPPORTED, "frames are JSON text");
            }
        }
    }

    fn on_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        let who = Who(ctx.uid_of(fd));
        match closed.cause {
            Cause::SlowConsumer | Cause::WriteTimedOut => log::warn!("fd {fd} ({who}) reads too slowly: {closed}"),
            _ => log::debug!("fd {fd} ({who}) closed: {closed}"),
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

    fn on_head(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) -> BodyMode {
        match request.is_control() {
            true => self.api.handle_head(ctx, fd, request, &self.metrics),
            // Nothing that is served to clients has a body.
            false => Response::text(404, "not found\n").into(),
        }
    }

    fn on_body(&mut self, ctx: &mut Context<'_>, fd: Fd, state: &mut dyn Any, event: BodyEvent<'_>) {
        let Gateway { api, roster, publisher, metrics, .. } = self;
        api.handle_piece(ctx, fd, state, event, &mut Parts { roster, publisher, metrics });
    }

    fn on_request(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) -> Option<Response> {
        if !request.is_control() {
            return if self.settings.serve.serves_page() { page::respond(request) } else { None };
        }
        let Gateway { api, roster, publisher, metrics, datagrams, webhook, hook, verified, .. } = self;
        let mut parts = Parts { roster, publisher, metrics };
        let text = |ctx: &Context<'_>| {
            let counts = datagrams.iter().map(Ingress::counts).sum();
            let webhook = webhook.as_ref().map(|webhook| webhook.stats()).unwrap_or_default();
            let hook = hook.as_ref().map_or(*verified, Hook::stats);
            metrics.encode(snapshot::of(&ctx.stats(), counts, webhook, hook))
        };
        Some(api.respond(ctx, fd, request, &mut parts, text))
    }

    fn on_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) {
        if self.roster.watch().handle_timer(ctx, timer) || self.api.handle_timer(ctx, timer) {
            return;
        }
        let what = if self.tokens.is_some() { "the token has expired" } else { "the identity has expired" };
        for fd in self.expiries.handle_timer(ctx, timer).into_iter().flatten() {
            ctx.close(fd, EXPIRED, what);
        }
    }

    fn on_turn_end(&mut self, ctx: &mut Context<'_>) {
        self.roster.tell_all(ctx);
    }

    fn on_notice(&mut self, ctx: &mut Context<'_>, notice: Notice) {
        while let Some(reading) = self.readings.take() {
            self.reload(ctx, reading);
        }
        match notice.downcast::<Told>().map(|told| *told) {
            Ok(Told::Datagram(bytes)) => {
                let Gateway { api, roster, publisher, metrics, .. } = self;
                api.handle_datagram(ctx, &bytes, &mut Parts { roster, publisher, metrics });
            }
            Ok(Told::Verdict { ticket, address, choice, verdict }) => {
                self.handle_verdict(ctx, ticket, address, choice, verdict);
            }
            Ok(Told::Reload) => {}
            Err(_) => log::error!("a notice that nobody knows"),
        }
    }
}

/// A client as the log has it. Its uid may be of its own choice, and must not end the line and begin another.
struct Who<'a>(Option<&'a str>);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(uid) => write!(f, "uid {uid:?}"),
            None => f.write_str("anonymous"),
        }
    }
}

/// The identity that a client claims, where clients are believed.
fn trusted(request: &Request) -> Result<Identity, Response> {
    let refuse = |why: &dyn fmt::Display| Response::text(400, format!("{why}\n"));
    let uid = request.try_query("uid").map_err(|error| refuse(&error))?;
    Identity::new(uid.map(Cow::into_owned), Vec::new()).map_err(|error| refuse(&error))
}

fn unavailable() -> Upgrade {
    Upgrade::refuse(Response::text(503, "nobody can say who you are\n").header("Retry-After", "1"))
}

/// The refusal of one more connection from an address, or from the IPv6 network that it stands for.
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
