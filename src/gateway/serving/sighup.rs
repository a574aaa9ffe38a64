//! SIGHUP: the settings are read again on a thread of their own, and handed to the loop once nothing about them can fail.
//!
//! So no file stops the loop, and a reload is all or nothing. A SIGHUP that comes while files are read is served after
//! that.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fdpush::{Limits, Origins, Remote, RemoteError};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use super::handler::Told;
use crate::gateway::hooks::backend::signature::Secret;
use crate::gateway::identity::api_keys::ApiKeys;
use crate::gateway::identity::exposure::Exposure;
use crate::gateway::identity::jwt;
use crate::gateway::runtime::threads;
use crate::gateway::settings::Settings;
use crate::gateway::settings::back_ends;
use crate::gateway::settings::cli::Auth;
use crate::gateway::settings::reload::{self, Reloaded};

/// Readings that the loop has not taken. Settings that can be used have all that older ones have.
const READINGS_MAX: usize = 16;

/// Settings, and all that is made of them and can fail.
pub struct Plan {
    pub settings: Arc<Settings>,
    pub api_keys: ApiKeys,
    pub tokens: Option<jwt::Keys>,
    pub secret: Option<Secret>,
    pub origins: Origins,
    pub limits: Limits,
}

/// The result of a reading: a plan and its log lines, or the error.
pub type Reading = Result<(Plan, News), String>;

/// The log lines about new settings.
pub struct News {
    pub changed: Vec<&'static str>,
    pub restart: Vec<&'static str>,
    pub hidden: Vec<String>,
    pub files: Vec<String>,
    /// Those that the settings before did not have.
    pub warnings: Vec<String>,
}

/// Readings on their way to the loop.
#[derive(Default)]
pub struct Readings {
    is_waiting: AtomicBool,
    queue: Mutex<VecDeque<Reading>>,
}

impl Plan {
    /// The values made of these settings.
    ///
    /// # Errors
    /// Says which key, secret or limit cannot be used, or that an API which others can reach would have no key.
    pub fn of(settings: Arc<Settings>, exposure: &Exposure) -> Result<Plan, String> {
        let serve = &settings.serve;
        let api_keys = super::start::api_keys(&settings);
        exposure.check(&api_keys)?;
        let limits = serve.limits();
        limits.check().map_err(|error| error.to_string())?;
        Ok(Plan {
            api_keys,
            tokens: settings.token_keys()?,
            secret: back_ends::secret(serve).map_err(|error| error.to_string())?,
            origins: serve.origins()?,
            limits,
            settings,
        })
    }
}

impl News {
    /// Says it in the log.
    pub fn log(&self) {
        for warning in &self.warnings {
            log::warn!("{warning}");
        }
        let files =
            if self.files.is_empty() { "none, for no setting names one".to_owned() } else { self.files.join(", ") };
        match self.changed.as_slice() {
            [] => log::info!("files read again: {files}; nothing changed"),
            changed => log::info!("files read again: {files}; and these changed: {}", changed.join(", ")),
        }
        if !self.restart.is_empty() {
            log::warn!("these settings changed and need a restart: {}", self.restart.join(", "));
        }
        if !self.hidden.is_empty() {
            log::warn!("these settings changed in the file, and are hidden: {}", self.hidden.join(", "));
        }
    }
}

impl Readings {
    /// The next one, in the order in which they were made.
    pub fn take(&self) -> Option<Reading> {
        // At every notice: the lock only if there is something.
        if !self.is_waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.lock();
        let reading = queue.pop_front();
        self.is_waiting.store(!queue.is_empty(), Ordering::Release);
        reading
    }

    fn put(&self, reading: Reading) {
        let mut queue = self.lock();
        if queue.len() == READINGS_MAX {
            // An error in their place would leave the server with older settings than the next reading is compared with.
            let unneeded = queue.iter().position(Result::is_err).unwrap_or(0);
            queue.remove(unneeded);
        }
        queue.push_back(reading);
        self.is_waiting.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Reading>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the settings again at every SIGHUP. A notice tells the loop of it. Where datagrams have filled the inbox, the
/// loop looks with the next of them: a key that is no longer good must not stay in use.
pub fn watch(mut current: Arc<Settings>, exposure: Exposure, remote: Remote) -> io::Result<Arc<Readings>> {
    let readings = Arc::new(Readings::default());
    let mut signals = Signals::new([SIGHUP])?;
    threads::spawn("fdpush-sighup", {
        let readings = Arc::clone(&readings);
        move || {
            for _ in signals.forever() {
                let reading = read(&current, &exposure);
                if let Ok((plan, _)) = &reading {
                    current = Arc::clone(&plan.settings);
                }
                readings.put(reading);
                if remote.notify(Told::Reload) == Err(RemoteError::Closed) {
                    break;
                }
            }
            Ok(())
        }
    })?;
    Ok(readings)
}

fn read(old: &Settings, exposure: &Exposure) -> Reading {
    let Reloaded { settings, changed, restart, files, hidden } =
        reload::reload(old).map_err(|faults| faults.to_string())?;
    let warnings = settings.warnings().iter().filter(|warning| !old.warnings().contains(warning)).cloned().collect();
    let files = files.iter().map(|path| path.display().to_string()).collect();
    let plan = Plan::of(Arc::new(settings), exposure)?;
    let has_api = plan.settings.serve.api_addresses().next().is_some();
    if has_api && !old.api_keys().is_empty() && plan.settings.api_keys().is_empty() {
        return Err("they would take the last API key away; restart the server if that is meant".to_owned());
    }
    let serve = &plan.settings.serve;
    let has_back_end = serve.hooks.webhook.is_some() || serve.auth() == Auth::Webhook;
    if has_back_end && old.serve.hooks.webhook_secret.is_some() && serve.hooks.webhook_secret.is_none() {
        return Err(
            "they would take webhook_secret away, and requests to back ends would have no signature; restart the \
                    server if that is meant"
                .to_owned(),
        );
    }
    Ok((plan, News { changed, restart, hidden, files, warnings }))
}
