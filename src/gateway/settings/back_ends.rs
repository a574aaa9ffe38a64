//! Creates the webhook and the connect hook from the settings.

use std::io;
use std::sync::Arc;

use super::cli::{Auth, Serve};
use crate::gateway::hooks::backend::authorities::Authorities;
use crate::gateway::hooks::backend::signature::SigningKey;
use crate::gateway::hooks::backend::{self, BackendConfig, BackendUrl};
use crate::gateway::hooks::webhook::{self, Webhook};
use crate::gateway::identity::connect_hook::{self, Hook};

/// Starts the webhook, if the setting `webhook` has a URL.
pub fn webhook(serve: &Serve, node: &str) -> io::Result<Option<Arc<Webhook>>> {
    let hooks = &serve.hooks;
    let Some(url) = &hooks.webhook else { return Ok(None) };
    let config = webhook::Config {
        kinds: hooks.webhook_events.iter().copied().collect(),
        queue_max: hooks.webhook_queue_max as usize,
        batch_max: hooks.webhook_batch_max as usize,
        batch_bytes_max: hooks.webhook_batch_bytes_max.0,
        event_bytes_max: hooks.webhook_event_bytes_max.0,
        timeout: hooks.webhook_timeout.0,
        retry_time_max: hooks.webhook_retry_time_max.0,
        ..webhook::Config::new(backend_config(serve, url.as_ref(), node)?)
    };
    Webhook::start(config).map(|webhook| Some(Arc::new(webhook)))
}

/// Starts the connect hook, if the setting `auth` is `webhook`.
pub fn hook(serve: &Serve, node: &str) -> io::Result<Option<Hook>> {
    let Some(url) = serve.clients.auth_url.as_ref().filter(|_| serve.auth() == Auth::Webhook) else { return Ok(None) };
    let timeout = serve.clients.auth_timeout.0;
    let config =
        connect_hook::Config { timeout, ..connect_hook::Config::new(backend_config(serve, url.as_ref(), node)?) };
    Hook::start(config).map(Some)
}

/// Returns the faults of the settings for back ends. Each fault has the key of its setting. This function sends no
/// request.
pub fn faults(serve: &Serve) -> Vec<(&'static str, String)> {
    let results = [
        ("webhook_secret", secret(serve).map(drop).map_err(|error| error.to_string())),
        ("webhook_ca_file", authorities(serve).map(drop)),
        ("node", backend::node_header(&node(serve)).map(drop).map_err(|error| error.to_string())),
    ];
    results.into_iter().filter_map(|(key, result)| Some((key, result.err()?))).collect()
}

/// Returns the secret that signs requests to back ends.
pub fn secret(serve: &Serve) -> io::Result<Option<SigningKey>> {
    serve.hooks.webhook_secret.as_ref().map(|secret| SigningKey::new(secret.expose())).transpose()
}

/// Returns the name of this server: the value of `node`, or the host name with a random suffix.
pub fn node(serve: &Serve) -> String {
    match &serve.hooks.node {
        Some(node) => node.as_ref().to_owned(),
        None => {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("{}-{:08x}", host.trim(), fastrand::u32(..))
        }
    }
}

fn backend_config(serve: &Serve, url: &str, node: &str) -> io::Result<BackendConfig> {
    Ok(BackendConfig {
        url: BackendUrl::parse(url)?,
        node: node.to_owned(),
        secret: secret(serve)?,
        authorities: authorities(serve).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?,
    })
}

fn authorities(serve: &Serve) -> Result<Option<Authorities>, String> {
    serve.hooks.webhook_ca_file.as_deref().map(Authorities::read).transpose()
}
