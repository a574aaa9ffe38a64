//! Warns about values that are valid but are probably mistakes.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use clap::ArgAction;

use super::Settings;
use super::cli::{Auth, When, bare, quoted};
use super::declarations::{declarations, is_secret};
use super::faults::Faults;
use super::keys;

/// The values of `address_ipv6_prefix` that cause no warning. A network with a prefix of 33 to 64 bits usually belongs
/// to one customer. A network with a shorter prefix usually belongs to a provider. A network with a longer prefix is
/// only a part of the network of a customer.
const IPV6_PREFIXES: RangeInclusive<u8> = 33..=64;

/// The minimum length of an API key that an attacker cannot guess, in bytes.
const API_KEY_BYTES_MIN: usize = 16;

impl Settings {
    /// Warns about origins that no browser sends, and about origins that allow many sites.
    pub(super) fn warn_of_origins(&mut self) {
        let origins: Vec<String> =
            self.serve.clients.origin.iter().map(|origin| origin.as_ref().to_ascii_lowercase()).collect();
        let name = self.layers.name("origin");
        if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
            self.warnings.push(format!("{name}: * allows every origin: the other values of {name} have no effect"));
        }
        for origin in &origins {
            if origin.starts_with("ws://") || origin.starts_with("wss://") {
                let http = origin.replacen("ws", "http", 1);
                self.warnings.push(format!("{name}: no browser sends {origin}: the origin of a page is {http}"));
            }
            if let Some((scheme, host)) = origin.split_once("://*.")
                && scheme.starts_with("http")
                && let Some(domain) = host.split(':').next()
                && !domain.trim_end_matches('.').contains('.')
                && domain != "localhost"
            {
                let why = format!("{name}: {origin} allows every site under the top-level domain {domain}");
                self.warnings.push(why);
            }
        }
    }

    /// Warns about values that match no client, no token or no back end, and about limits without effect.
    pub(super) fn warn_of_values(&mut self) {
        let clients = &self.serve.clients;
        let mut warnings = Vec::new();
        if clients.address_connections_max.is_some() && !IPV6_PREFIXES.contains(&clients.address_ipv6_prefix) {
            let (name, max) = (self.layers.name("address_ipv6_prefix"), self.layers.name("address_connections_max"));
            warnings.push(match clients.address_ipv6_prefix {
                65.. => format!("{name} is over 64: a client with a /64 network can exceed {max}"),
                _ => format!("{name} is below {}: {max} applies to all clients of a provider", IPV6_PREFIXES.start()),
            });
        }
        for (key, text) in [
            ("jwt_issuer", clients.jwt.jwt_issuer.as_deref()),
            ("jwt_audience", clients.jwt.jwt_audience.as_deref()),
            ("node", self.serve.hooks.node.as_ref().map(AsRef::as_ref)),
        ] {
            if text.and_then(quoted).is_some() {
                warnings.push(format!(
                    "the value of {} is in quotes, and the quotes are part of the value",
                    self.layers.name(key)
                ));
            }
        }
        let hook = clients.auth_url.as_ref().filter(|_| self.serve.auth() == Auth::Webhook);
        let mut back_ends = self.serve.hooks.webhook.iter().chain(hook).peekable();
        if self.serve.hooks.webhook_ca_file.is_some()
            && back_ends.peek().is_some()
            && !back_ends.any(|url| url.as_ref().starts_with("https:"))
        {
            let name = self.layers.name("webhook_ca_file");
            warnings.push(format!("{name} has no effect: no back end URL begins with https://"));
        }
        self.warnings.extend(warnings);
    }

    /// Warns about a demo page that can never connect.
    pub(super) fn warn_of_page(&mut self) {
        if self.serve.page != When::Always {
            return;
        }
        let page = self.layers.name("page");
        if self.serve.auth() == Auth::Jwt {
            let auth = self.layers.name("auth");
            self.warnings.push(format!(
                "{page} is always, and {auth} is jwt: the demo page sends no token, so the server refuses the page with 401"
            ));
        }
        // A browser gets the demo page by http or https, so the origin of the page has one of these schemes.
        let is_of_page = |origin: &str| origin == "*" || origin.to_ascii_lowercase().starts_with("http");
        let origins = &self.serve.clients.origin;
        if !origins.is_empty() && !origins.iter().any(|origin| is_of_page(origin.as_ref())) {
            let origin = self.layers.name("origin");
            self.warnings.push(format!(
                "{page} is always, and {origin} has no http origin: the server refuses the connections of the demo page with 403"
            ));
        }
    }

    /// Warns about an API key that an attacker on another machine can guess.
    pub(super) fn warn_of_short_keys(&mut self) {
        let shortest = self.api_keys().iter().map(|key| key.expose().len()).min();
        // `fdpush check` reports an address that cannot be resolved.
        let is_open = || self.serve.api_addresses().any(|address| address.is_local() == Ok(false));
        if let Some(bytes) = shortest.filter(|bytes| *bytes < API_KEY_BYTES_MIN)
            && is_open()
        {
            let key = if self.serve.api.api_key.is_empty() { "api_key_file" } else { "api_key" };
            self.warnings.push(format!(
                "{}: an API key of {bytes} bytes can be guessed: use {API_KEY_BYTES_MIN} random bytes or more, as \
                 `openssl rand -base64 32` makes them",
                self.layers.name(key)
            ));
        }
    }

    /// Warns about values that a list has more than once.
    ///
    /// Equal values of `tls_key` are allowed, because a key may belong to several certificates. `check_bindings`
    /// reports equal addresses.
    pub(super) fn warn_of_duplicates(&mut self) {
        let is_list = |key: &str| !["listen", "api", "tls_key"].contains(&key);
        for arg in declarations().filter(|arg| matches!(arg.get_action(), ArgAction::Append)) {
            let key = arg.get_id().as_str();
            let mut seen = BTreeSet::new();
            let values = self.layers.values(key);
            let Some(twice) = values.iter().find(|value| !seen.insert(*value)).filter(|_| is_list(key)) else {
                continue;
            };
            let name = self.layers.name(key);
            self.warnings.push(match is_secret(arg) {
                true => format!("{name}: a value is given more than once"),
                false => format!("{name}: {twice} is given more than once"),
            });
        }
    }

    /// Warns about secrets that begin or end with quotes or white space.
    ///
    /// Quotes or white space at the start or the end of a secret are probably a mistake. [`bare`] removes the quotes.
    pub(super) fn warn_of_secrets(&mut self, faults: &mut Faults) {
        for arg in declarations().filter(|arg| is_secret(arg)) {
            let key = arg.get_id().as_str();
            let (name, values) = (self.layers.name(key), self.layers.values(key));
            if let [first, .., last] = values.as_slice()
                && ['"', '\''].iter().any(|quote| first.starts_with(*quote) && last.ends_with(*quote))
                && quoted(bare(first)).is_none()
                && bare(first) == first
            {
                faults.add(&[key], format!("{name}: the whole list is in quotes: remove the quotes"));
            }
            for value in &values {
                let secret = bare(value);
                if secret != value && quoted(value.trim_start_matches('\u{feff}').trim_end()).is_some() {
                    self.warnings.push(format!("{name}: the quotes around a secret are not part of the secret"));
                }
                if secret.trim() != secret {
                    self.warnings.push(format!(
                        "{name}: a secret begins or ends with white space, and the white space is part of the secret"
                    ));
                }
            }
        }
    }

    pub(super) fn warn_of_exposure(&mut self) {
        let Some(file) = &self.layers.file else { return };
        if declarations().any(|arg| is_secret(arg) && file.entry(arg.get_id().as_str()).is_some()) {
            self.warnings.extend(keys::readable_by_all_warning(&file.path));
        }
    }
}
