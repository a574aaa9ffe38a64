//! Settings that contradict each other: refused where one of them would be believed to protect, warned of where it has
//! no effect.

use rustix::process::{Resource, getrlimit};

use super::keys;
use super::{Settings, Source, declaration, declarations, is_secret};
use crate::gateway::cli::{ApiAddress, Auth, EventKind, May, OnSecondLogin, Serve, Size, Way};
use crate::gateway::webhook::EVENT_BYTES_MAX_MAX;
use crate::gateway::webhook::event::EVENT_BYTES_MAX_MIN;

/// Settings that mean something with others only.
struct Dependency {
    keys: &'static [&'static str],
    needs: &'static str,
    is_met: bool,
    is_refused: bool,
}

impl Settings {
    /// Says what cannot be, and collects warnings of what has no effect.
    pub(super) fn check_soundness(&mut self) -> Result<(), String> {
        self.check_limits()?;
        self.check_identity()?;
        self.check_lists()?;
        self.check_api()?;
        let mut warnings = Vec::new();
        for dependency in dependencies(&self.serve).into_iter().filter(|dependency| !dependency.is_met) {
            for key in dependency.keys.iter().filter(|key| self.is_changed(key)) {
                let (name, needs) = (self.layers.name(key), dependency.needs);
                if dependency.is_refused {
                    return Err(format!("{name} is for {needs} only"));
                }
                warnings.push(format!("{name} has no effect without {needs}"));
            }
        }
        self.warnings.extend(warnings);
        self.warn_of_bounds();
        self.warn_of_exposure();
        Ok(())
    }

    fn is_changed(&self, key: &str) -> bool {
        declaration(key).is_some_and(|arg| self.layers.is_changed(arg))
    }

    fn check_limits(&self) -> Result<(), String> {
        // It begins with the setting's key, which whoever set it may know by another name.
        let named = |why: String| match why.split_once(' ') {
            Some((key, rest)) if self.layers.source(key) != Source::Default => {
                format!("{} {rest}", self.layers.name(key))
            }
            _ => why,
        };
        self.serve.limits().check().map_err(named)?;
        self.serve.heartbeat().check()?;
        self.serve.origins()?;
        Ok(())
    }

    fn check_identity(&self) -> Result<(), String> {
        let clients = &self.serve.clients;
        let name = self.layers.name("auth");
        match self.serve.auth() {
            Auth::Jwt if clients.jwt.jwt_secret.is_empty() && self.jwt_keys().is_empty() => {
                Err(format!("{name} is jwt: it needs --jwt-secret or --jwt-key-file"))
            }
            Auth::Webhook if clients.auth_url.is_none() => Err(format!("{name} is webhook: it needs --auth-url")),
            Auth::Trust | Auth::Jwt | Auth::Webhook => Ok(()),
        }
    }

    fn check_lists(&self) -> Result<(), String> {
        let may = &self.serve.clients.client_may;
        if may.len() > 1 && (may.contains(&May::All) || may.contains(&May::Nothing)) {
            return Err(format!("{}: all and nothing stand alone", self.layers.name("client_may")));
        }
        let api = &self.serve.api.addresses;
        if api.len() > 1 && api.contains(&ApiAddress::Off) {
            return Err(format!("{}: off stands alone", self.layers.name("api")));
        }
        let hooks = &self.serve.hooks;
        if hooks.webhook_batch_max > hooks.webhook_queue_max {
            let (batch, queue) = (self.layers.name("webhook_batch_max"), self.layers.name("webhook_queue_max"));
            return Err(format!(
                "{batch} is {}: it must not be over {queue}, which is {}",
                hooks.webhook_batch_max, hooks.webhook_queue_max
            ));
        }
        let event_bytes = EVENT_BYTES_MAX_MIN..=EVENT_BYTES_MAX_MAX;
        if !event_bytes.contains(&hooks.webhook_event_bytes_max.0) {
            let (name, size) = (self.layers.name("webhook_event_bytes_max"), &hooks.webhook_event_bytes_max);
            let (least, most) = (Size(EVENT_BYTES_MAX_MIN), Size(EVENT_BYTES_MAX_MAX));
            return Err(format!("{name} is {size}: it must be {least} to {most}"));
        }
        Ok(())
    }

    /// Whoever reaches the API can do anything: where that is not this machine alone, it takes a key.
    fn check_api(&self) -> Result<(), String> {
        if !self.api_keys().is_empty() {
            return Ok(());
        }
        for address in self.serve.api_addresses() {
            let name = self.layers.name("api");
            if !address.is_local().map_err(|why| format!("{name}: {why}"))? {
                return Err(format!(
                    "{name}: {address} can be reached from other machines, so back ends must show a key: \
                     give --api-key or --api-key-file"
                ));
            }
        }
        Ok(())
    }

    fn warn_of_bounds(&mut self) {
        let limits = self.serve.limits();
        if self.is_changed("queue_bytes_max") && limits.queue_bytes_max > limits.queue_total_bytes_max {
            let (one, all) = (self.layers.name("queue_bytes_max"), self.layers.name("queue_total_bytes_max"));
            self.warnings.push(format!("{one} is over {all}, which comes first"));
        }
        // The soft limit is raised to the hard one when the server starts.
        if let (Some(wanted), Some(descriptors)) = (limits.connections_max, getrlimit(Resource::Nofile).maximum)
            && u64::from(wanted) > descriptors.saturating_sub(self.descriptors_reserved())
        {
            let (name, room) =
                (self.layers.name("connections_max"), descriptors.saturating_sub(self.descriptors_reserved()));
            self.warnings.push(format!(
                "{name} is {wanted}: the descriptor limit of {descriptors} has room for {room} connections"
            ));
        }
    }

    fn descriptors_reserved(&self) -> u64 {
        self.serve.limits().descriptors_reserved(self.serve.has_http_api()).into()
    }

    fn warn_of_exposure(&mut self) {
        let Some(file) = &self.layers.file else { return };
        if declarations().any(|arg| is_secret(arg) && file.entry(arg.get_id().as_str()).is_some()) {
            self.warnings.extend(keys::exposure(&file.path));
        }
    }
}

fn dependencies(serve: &Serve) -> Vec<Dependency> {
    let (auth, way) = (serve.auth(), serve.heart.heartbeat);
    let tells = serve.hooks.webhook.is_some();
    let events = &serve.hooks.webhook_events;
    let tells_presence = tells && (events.contains(&EventKind::Online) || events.contains(&EventKind::Offline));
    let refused = |keys, needs, is_met| Dependency { keys, needs, is_met, is_refused: true };
    let without_effect = |keys, needs, is_met| Dependency { keys, needs, is_met, is_refused: false };
    vec![
        refused(&["jwt_secret", "jwt_key_file", "jwt_issuer", "jwt_audience"], "--auth jwt", auth == Auth::Jwt),
        refused(&["auth_url", "auth_timeout"], "--auth webhook", auth == Auth::Webhook),
        without_effect(&["idle_max"], "--heartbeat client", way == Way::Client),
        without_effect(&["ping_every"], "--heartbeat ping or push", matches!(way, Way::Ping | Way::Push)),
        without_effect(&["missed_max"], "--heartbeat ping", way == Way::Ping),
        // Without one, no client could connect.
        refused(&["proxy_protocol"], "--trusted-proxy", !serve.clients.trusted_proxy.is_empty()),
        without_effect(&["forwarded_header"], "--trusted-proxy", !serve.clients.trusted_proxy.is_empty()),
        without_effect(&["message_burst"], "--message-rate", serve.clients.message_rate.is_some()),
        without_effect(
            &["uid_connections_max"],
            "--on-second-login multi",
            serve.clients.on_second_login == OnSecondLogin::Multi,
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
            tells,
        ),
        without_effect(
            &["webhook_secret", "webhook_ca_file", "node"],
            "--webhook or --auth webhook",
            tells || auth == Auth::Webhook,
        ),
        without_effect(&["presence_delay"], "--webhook-events online or offline", tells_presence),
    ]
}
