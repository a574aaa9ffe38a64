//! The plan of the server: the settings, and the values that are derived from the settings.

use std::sync::Arc;

use fdpush::{Limits, Origins};

use crate::gateway::hooks::backend::signature::SigningKey;
use crate::gateway::identity::api_keys::ApiKeys;
use crate::gateway::identity::exposure::Exposure;
use crate::gateway::identity::jwt;
use crate::gateway::settings::{Settings, back_ends, cli};
use crate::gateway::tls::files::TlsConfigs;

/// The settings of the server, and the values that are derived from the settings.
pub struct Plan {
    pub settings: Arc<Settings>,
    pub api_keys: ApiKeys,
    pub tokens: Option<jwt::Keys>,
    pub secret: Option<SigningKey>,
    pub origins: Origins,
    pub limits: Limits,
    pub tls: TlsConfigs,
}

impl Plan {
    /// Creates the plan for the given settings. `tls` has the settings of the TLS listeners.
    ///
    /// # Errors
    /// Returns an error if a key, a secret, an origin or a limit is invalid, or if other machines can reach the API and
    /// the API has no key.
    pub fn of(settings: Arc<Settings>, exposure: &Exposure, tls: TlsConfigs) -> Result<Plan, String> {
        let serve = &settings.serve;
        let api_keys = api_keys(&settings);
        exposure.check(&api_keys)?;
        let limits = serve.limits();
        limits.check().map_err(|error| error.to_string())?;
        limits.check_loops(serve.loops.count()).map_err(|error| error.to_string())?;
        Ok(Plan {
            api_keys,
            tokens: settings.token_keys()?,
            secret: back_ends::secret(serve).map_err(|error| error.to_string())?,
            origins: serve.origins()?,
            limits,
            tls,
            settings,
        })
    }
}

/// Returns the API keys of the settings.
pub fn api_keys(settings: &Settings) -> ApiKeys {
    ApiKeys::new(settings.api_keys().iter().map(cli::Secret::expose))
}
