//! Checks settings that depend on each other.
//!
//! A setting that protects the server but has no effect is an error. Any other setting without effect causes a warning.

use fdpush::Limits;
use fdpush::shared::{DEFLATED_BYTES_MAX, SERVER_HEADER_BYTES_MAX};
use rustix::process::{Resource, getrlimit};

use super::cli::{ApiAddress, Auth, HeartbeatMode, OnSecondLogin, Permission, Serve, Size, Switch};
use super::declarations::declaration;
use super::faults::Faults;
use super::{Settings, Source};
use crate::gateway::hooks::webhook::EVENT_BYTES_MAX_MAX;
use crate::gateway::hooks::webhook::event::{EVENT_BYTES_MAX_MIN, Kind};

/// The minimum of `headers_max`: an upgrade has `Host`, `Upgrade`, `Connection` and two `Sec-WebSocket-…` fields.
const HEADERS_MIN: usize = 5;

/// The minimum of `head_bytes_max`: the length of the shortest head of a WebSocket upgrade, in bytes.
const HEAD_BYTES_MIN: usize = 142;

/// The length of the head of the shortest API request, without the API key, in bytes.
const KEY_HEAD_BYTES: usize = "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \r\n\r\n".len();

/// The length of the shortest upgrade with a subprotocol, without the name of the subprotocol, in bytes.
const SUBPROTOCOL_HEAD_BYTES: usize = HEAD_BYTES_MIN + "Sec-WebSocket-Protocol: \r\n".len();

/// The length of the shortest upgrade with an origin, without the origin itself, in bytes.
const ORIGIN_HEAD_BYTES: usize = HEAD_BYTES_MIN + "Origin: \r\n".len();

/// The minimum of `queue_bytes_max` and `queue_total_bytes_max`, in bytes.
///
/// The first frame to a client, `welcome`, is at most this long if the client has no uid.
const QUEUE_BYTES_MIN: usize = 256;

/// The minimum of `message_bytes_max`, in bytes: the length of the shortest frame of a client, `{"type":"heartbeat"}`.
const MESSAGE_BYTES_MIN: usize = 20;

/// The minimum of `body_bytes_max`, in bytes: the length of the shortest push, `{"fd":1,"text":""}`.
const BODY_BYTES_MIN: usize = 18;

/// If `connections_max` is not set, the server derives `connections_max` from the descriptor limit. A derived value
/// below this constant causes a warning.
const CONNECTIONS_FEW: u32 = 1000;

/// Settings that have an effect only if another setting has a certain value.
struct Dependency {
    keys: &'static [&'static str],
    needs: &'static str,
    is_met: bool,
    is_refused: bool,
}

impl Settings {
    /// Collects contradictions between settings as faults, and settings without effect as warnings.
    pub(super) fn check_consistency(&mut self, faults: &mut Faults) {
        self.check_limits(faults);
        self.check_identity(faults);
        self.check_lists(faults);
        self.check_api(faults);
        self.check_tls(faults);
        self.check_proxies(faults);
        self.check_head_size(faults);
        let mut warnings = Vec::new();
        for dependency in dependencies(&self.serve).into_iter().filter(|dependency| !dependency.is_met) {
            for key in dependency.keys.iter().filter(|key| self.is_changed(key)) {
                let (name, needs) = (self.layers.name(key), dependency.needs);
                if dependency.is_refused {
                    faults.add(&["auth"], format!("{name} needs {needs}"));
                } else {
                    warnings.push(format!("{name} has no effect without {needs}"));
                }
            }
        }
        self.warnings.extend(warnings);
        self.warn_of_bounds();
        self.warn_of_counts();
        self.warn_of_origins();
        self.warn_of_values();
        self.warn_of_page();
        self.warn_of_duplicates();
        self.warn_of_short_keys();
        self.warn_of_secrets(faults);
        self.warn_of_exposure();
    }

    pub(super) fn is_changed(&self, key: &str) -> bool {
        declaration(key).is_some_and(|arg| self.layers.is_changed(arg))
    }

    fn check_limits(&self, faults: &mut Faults) {
        // The text of a fault starts with the key of the setting. This closure replaces the key by the flag or variable
        // that gives the setting.
        let named = |why: String| match why.split_once(' ') {
            Some((key, rest)) if self.layers.source(key) != Source::Default => {
                format!("{} {rest}", self.layers.name(key))
            }
            _ => why,
        };
        let limits = self.serve.limits();
        for fault in limits.faults() {
            let key = fault.name();
            // Some faults compare a setting with a second setting. If the second setting has no valid value, a fault
            // that compares both settings is not reported.
            let other = match key {
                "queue_bytes_max" | "inflated_bytes_per_second_max" => "message_bytes_max",
                "drain_for" => "drain_time_max",
                _ => "",
            };
            faults.add(&[key, other], named(fault.to_string()));
        }
        if let Err(fault) = limits.check_loops(self.serve.loops.count()) {
            faults.add(&["forward_bytes_max", "message_bytes_max"], named(fault.to_string()));
        }
        for (key, value, min, why) in [
            ("headers_max", limits.headers_max, HEADERS_MIN, "the header fields of a WebSocket upgrade"),
            ("head_bytes_max", limits.head_bytes_max, HEAD_BYTES_MIN, "the smallest WebSocket upgrade"),
            ("message_bytes_max", limits.message_bytes_max, MESSAGE_BYTES_MIN, "the shortest frame of a client"),
            ("body_bytes_max", limits.body_bytes_max, BODY_BYTES_MIN, "the shortest push"),
            ("queue_bytes_max", limits.queue_bytes_max, QUEUE_BYTES_MIN, "the first frame to a client"),
            ("queue_total_bytes_max", limits.queue_total_bytes_max, QUEUE_BYTES_MIN, "the first frame to a client"),
        ] {
            if value < min {
                let name = self.layers.name(key);
                faults.add(&[key], format!("{name} is {value}: it must be at least {min}, for {why}"));
            }
        }
        if let Err(why) = self.serve.heartbeat().check() {
            faults.add(&["heartbeat", "idle_max", "ping_every", "missed_max"], why.to_string());
        }
        if let Err(why) = self.serve.origins() {
            faults.add(&["origin"], why);
        }
    }

    /// Checks that `head_bytes_max` allows the longest configured API key, subprotocol and origin.
    fn check_head_size(&self, faults: &mut Faults) {
        let (clients, max) = (&self.serve.clients, self.serve.limits().head_bytes_max);
        let key = self.api_keys().iter().map(|key| key.expose().len()).max().filter(|_| self.serve.has_http_api());
        let subprotocol = clients.subprotocols.iter().map(|name| name.as_ref().len()).max();
        let origins = clients.origin.iter().map(|origin| -> &str { origin.as_ref() }).filter(|origin| *origin != "*");
        for (keys, head, value, why) in [
            (["api_key", "api_key_file"], KEY_HEAD_BYTES, key, "a request with the longest API key"),
            (["subprotocols"; 2], SUBPROTOCOL_HEAD_BYTES, subprotocol, "an upgrade with the longest subprotocol"),
            (["origin"; 2], ORIGIN_HEAD_BYTES, origins.map(str::len).max(), "an upgrade with the longest origin"),
        ] {
            // `check_limits` has already reported a `head_bytes_max` below [`HEAD_BYTES_MIN`].
            if let Some(min) = value.map(|bytes| head + bytes)
                && (HEAD_BYTES_MIN..min).contains(&max)
            {
                let name = self.layers.name("head_bytes_max");
                let why = format!("{name} is {max}: it must be at least {min}, for {why}");
                faults.add(&["head_bytes_max", keys[0], keys[1]], why);
            }
        }
    }

    fn check_identity(&self, faults: &mut Faults) {
        let clients = &self.serve.clients;
        let name = self.layers.name("auth");
        match self.serve.auth() {
            Auth::Jwt if clients.jwt.jwt_secret.is_empty() && clients.jwt.jwt_key_file.is_empty() => {
                let why = format!("{name} is jwt: jwt needs --jwt-secret or --jwt-key-file");
                faults.add(&["auth", "jwt_secret", "jwt_key_file"], why);
            }
            Auth::Webhook if clients.auth_url.is_none() => {
                faults.add(&["auth", "auth_url"], format!("{name} is webhook: webhook needs --auth-url"));
            }
            Auth::Trust | Auth::Jwt | Auth::Webhook => {}
        }
    }

    fn check_lists(&self, faults: &mut Faults) {
        let may = &self.serve.clients.client_may;
        if may.len() > 1 && (may.contains(&Permission::All) || may.contains(&Permission::Nothing)) {
            let name = self.layers.name("client_may");
            faults.add(
                &["client_may"],
                format!("{name}: the values all and nothing cannot be combined with other values"),
            );
        }
        let api = &self.serve.api.addresses;
        if api.len() > 1 && api.contains(&ApiAddress::Off) {
            faults.add(
                &["api"],
                format!("{}: the value off cannot be combined with other values", self.layers.name("api")),
            );
        }
        let hooks = &self.serve.hooks;
        if hooks.webhook_batch_max > hooks.webhook_queue_max {
            let (batch, queue) = (self.layers.name("webhook_batch_max"), self.layers.name("webhook_queue_max"));
            let why = format!(
                "{batch} is {}: it must be at most {queue}, which is {}",
                hooks.webhook_batch_max, hooks.webhook_queue_max
            );
            faults.add(&["webhook_batch_max", "webhook_queue_max"], why);
        }
        let event_bytes = EVENT_BYTES_MAX_MIN..=EVENT_BYTES_MAX_MAX;
        if !event_bytes.contains(&hooks.webhook_event_bytes_max.0) {
            let (name, size) = (self.layers.name("webhook_event_bytes_max"), &hooks.webhook_event_bytes_max);
            let (least, most) = (Size(EVENT_BYTES_MAX_MIN), Size(EVENT_BYTES_MAX_MAX));
            faults.add(&["webhook_event_bytes_max"], format!("{name} is {size}: it must be from {least} to {most}"));
        }
    }

    /// Requires an API key if other machines can connect to the API, because the API has no other access control.
    fn check_api(&self, faults: &mut Faults) {
        if !self.api_keys().is_empty() {
            return;
        }
        let name = self.layers.name("api");
        for address in self.serve.api_addresses() {
            match address.is_local() {
                Ok(true) => {}
                Ok(false) => {
                    let why = format!(
                        "{name}: {address} can be reached from other machines and needs an API key: \
                         give --api-key or --api-key-file"
                    );
                    faults.add(&["api", "api_key", "api_key_file"], why);
                }
                Err(why) => faults.add(&["api"], format!("{name}: {why}")),
            }
        }
    }

    fn warn_of_bounds(&mut self) {
        let limits = self.serve.limits();
        if self.is_changed("queue_bytes_max") && limits.queue_bytes_max > limits.queue_total_bytes_max {
            let (one, all) = (self.layers.name("queue_bytes_max"), self.layers.name("queue_total_bytes_max"));
            self.warnings.push(format!("{one} exceeds {all}, which is reached first"));
        }
        if self.is_changed("queue_bytes_min") && limits.queue_bytes_min > limits.queue_total_bytes_max / 2 {
            let (min, all) = (self.layers.name("queue_bytes_min"), self.layers.name("queue_total_bytes_max"));
            self.warnings.push(format!("{min} exceeds half of {all}: a send queue may keep at most half of {all}"));
        }
        if limits.compression && limits.compress_bytes_min > DEFLATED_BYTES_MAX {
            let (name, longest) = (self.layers.name("compress_bytes_min"), Size(DEFLATED_BYTES_MAX));
            self.warnings.push(format!("{name} exceeds {longest}: no message to a client is compressed"));
        }
        let least = limits.message_bytes_max.saturating_add(SERVER_HEADER_BYTES_MAX);
        if limits.queue_total_bytes_max < least {
            let (all, one) = (self.layers.name("queue_total_bytes_max"), self.layers.name("message_bytes_max"));
            self.warnings.push(format!(
                "{all} is {}: slow clients lose messages of {} bytes ({one}), because such messages do not fit into the \
                 send queues",
                limits.queue_total_bytes_max, limits.message_bytes_max
            ));
        }
        // The server raises the soft limit of file descriptors to the hard limit when the server starts.
        let descriptors = getrlimit(Resource::Nofile).maximum;
        if let (Some(wanted), Some(descriptors)) = (limits.connections_max, descriptors)
            && u64::from(wanted) > descriptors.saturating_sub(self.descriptors_reserved())
        {
            let (name, room) =
                (self.layers.name("connections_max"), descriptors.saturating_sub(self.descriptors_reserved()));
            self.warnings.push(format!(
                "{name} is {wanted}: the descriptor limit of {descriptors} allows only {room} connections"
            ));
        }
        if limits.connections_max.is_none()
            && let Some(descriptors) = descriptors
            && limits.derived_connections_max(Some(descriptors), self.serve.has_http_api()) < CONNECTIONS_FEW
        {
            self.warnings.push(self.few_connections(descriptors));
        }
        let hooks = &self.serve.hooks;
        let has_frame_events = hooks.webhook.is_some() && hooks.webhook_events.iter().any(|kind| kind.is_frame());
        if has_frame_events && hooks.webhook_event_bytes_max.0 <= limits.message_bytes_max {
            let (event, message) = (self.layers.name("webhook_event_bytes_max"), self.layers.name("message_bytes_max"));
            self.warnings.push(format!(
                "{event} is {}: client frames with a longer event are refused, although {message} is {}",
                hooks.webhook_event_bytes_max,
                Size(limits.message_bytes_max)
            ));
        }
        if hooks.webhook.is_some() && hooks.webhook_timeout.0 > hooks.webhook_retry_time_max.0 {
            let (one, all) = (self.layers.name("webhook_timeout"), self.layers.name("webhook_retry_time_max"));
            self.warnings.push(format!("{one} exceeds {all}, which is reached first"));
        }
    }

    fn warn_of_counts(&mut self) {
        let limits = self.serve.limits();
        if (self.is_changed("connection_groups_max") || self.is_changed("memberships_max"))
            && limits.connection_groups_max > limits.memberships_max
        {
            let (one, all) = (self.layers.name("connection_groups_max"), self.layers.name("memberships_max"));
            self.warnings.push(format!("{one} exceeds {all}, which is reached first"));
        }
        let others = [
            ("uid_connections_max", self.serve.clients.uid_connections_max),
            ("address_connections_max", self.serve.clients.address_connections_max),
        ];
        for (key, max) in others {
            if let (Some(max), Some(all)) = (max, limits.connections_max)
                && max > all
            {
                let (name, all) = (self.layers.name(key), self.layers.name("connections_max"));
                self.warnings.push(format!("{name} exceeds {all}, which is reached first"));
            }
        }
    }

    /// Returns the warning about a low derived `connections_max`, with the calculation of its value.
    fn few_connections(&self, descriptors: u64) -> String {
        let limits = self.serve.limits();
        let max = limits.derived_connections_max(Some(descriptors), self.serve.has_http_api());
        let api = match self.serve.has_http_api() {
            true => format!(", {} for api_connections_max", limits.control_connections_max),
            false => String::new(),
        };
        format!(
            "connections_max is {max}: the descriptor limit is {descriptors}, of which {} are reserved ({} for listeners, \
             logs and back ends{api}); raise the limit (LimitNOFILE=, ulimit -n)",
            self.descriptors_reserved(),
            Limits::DESCRIPTORS_RESERVED
        )
    }

    fn descriptors_reserved(&self) -> u64 {
        self.serve.limits().descriptors_reserved(self.serve.has_http_api()).into()
    }
}

fn dependencies(serve: &Serve) -> Vec<Dependency> {
    let (auth, heartbeat) = (serve.auth(), serve.heart.heartbeat);
    let has_webhook = serve.hooks.webhook.is_some();
    let events = &serve.hooks.webhook_events;
    let has_presence = has_webhook && (events.contains(&Kind::Online) || events.contains(&Kind::Offline));
    let refused = |keys, needs, is_met| Dependency { keys, needs, is_met, is_refused: true };
    let without_effect = |keys, needs, is_met| Dependency { keys, needs, is_met, is_refused: false };
    vec![
        refused(&["jwt_secret", "jwt_key_file", "jwt_issuer", "jwt_audience"], "--auth jwt", auth == Auth::Jwt),
        refused(&["auth_url", "auth_timeout"], "--auth webhook", auth == Auth::Webhook),
        without_effect(&["idle_max"], "--heartbeat client", heartbeat == HeartbeatMode::Client),
        without_effect(
            &["ping_every"],
            "--heartbeat ping or push",
            matches!(heartbeat, HeartbeatMode::Ping | HeartbeatMode::Push),
        ),
        without_effect(&["missed_max"], "--heartbeat ping", heartbeat == HeartbeatMode::Ping),
        // If `proxy_protocol` is set and no proxy is trusted, no client can connect.
        refused(&["proxy_protocol"], "--trusted-proxy", !serve.clients.trusted_proxy.is_empty()),
        without_effect(
            &["address_connections_max"],
            "--listen HOST:PORT or --trusted-proxy unix",
            serve.clients_have_addresses(),
        ),
        without_effect(
            &["address_ipv6_prefix"],
            "--address-connections-max",
            serve.clients.address_connections_max.is_some(),
        ),
        without_effect(&["forwarded_header"], "--trusted-proxy", !serve.clients.trusted_proxy.is_empty()),
        without_effect(&["forward_bytes_max"], "--loops of 2 or more", serve.loops.count() > 1),
        without_effect(&["message_burst"], "--message-rate", serve.clients.message_rate.is_some()),
        without_effect(
            &["uid_connections_max"],
            "--on-second-login multi",
            serve.clients.on_second_login == OnSecondLogin::Multi,
        ),
        without_effect(
            &["tls_handshake_rate"],
            "--listen tls:HOST:PORT or --api tls:HOST:PORT",
            serve.has_tls_listener() || serve.has_tls_api(),
        ),
        without_effect(
            &["compress_bytes_min", "inflated_bytes_per_second_max"],
            "--compression on",
            serve.compression.compression == Switch::On,
        ),
        without_effect(&["api_connections_max"], "--api HOST:PORT or unix:PATH", serve.has_http_api()),
        without_effect(&["api_key", "api_key_file"], "--api", serve.api_addresses().next().is_some()),
        without_effect(
            &[
                "webhook_events",
                "webhook_queue_max",
                "webhook_batch_max",
                "webhook_batch_bytes_max",
                "webhook_event_bytes_max",
                "webhook_timeout",
                "webhook_retry_time_max",
            ],
            "--webhook",
            has_webhook,
        ),
        without_effect(
            &["webhook_secret", "webhook_ca_file", "node"],
            "--webhook or --auth webhook",
            has_webhook || auth == Auth::Webhook,
        ),
        without_effect(&["presence_delay"], "--webhook-events online or offline", has_presence),
    ]
}
