//! Reloads the settings on SIGHUP. The thread `fdpush-sighup` reads and checks the settings, then sends the settings to
//! the loop.
//!
//! The loop reads no file, so a slow read of a file does not block the loop. An error in a setting or a file makes the
//! whole reload fail, and changes no setting. A SIGHUP during a reload starts another reload after the current reload.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fdpush::{Remote, RemoteError};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use super::plan::Plan;
use super::thread_message::ThreadMessage;
use crate::gateway::identity::exposure::Exposure;
use crate::gateway::runtime::threads;
use crate::gateway::settings::Settings;
use crate::gateway::settings::cli::Auth;
use crate::gateway::settings::reload::{self, Reloaded};

/// The maximum number of reload results that wait for the loop. A valid result has all settings, including the settings
/// that an earlier reload changed. So the loop can apply the newest result without the earlier results.
const RELOADS_MAX: usize = 16;

/// The result of a settings reload.
pub type ReloadResult = Result<(Plan, ReloadReport), String>;

/// The content of the log lines about one settings reload.
pub struct ReloadReport {
    pub changed: Vec<&'static str>,
    pub restart: Vec<&'static str>,
    pub overridden: Vec<String>,
    pub files: Vec<String>,
    /// The warnings about the new settings, without the warnings that the old settings also caused.
    pub warnings: Vec<String>,
}

/// The results of settings reloads that wait for the loop.
#[derive(Default)]
pub struct ReloadQueue {
    is_waiting: AtomicBool,
    queue: Mutex<VecDeque<ReloadResult>>,
}

impl ReloadReport {
    /// Writes the log lines about the settings reload.
    pub fn log(&self) {
        for warning in &self.warnings {
            log::warn!("{warning}");
        }
        let files = if self.files.is_empty() { "none".to_owned() } else { self.files.join(", ") };
        match self.changed.as_slice() {
            [] => log::info!("settings reloaded; files: {files}; nothing changed"),
            changed => log::info!("settings reloaded; files: {files}; changed: {}", changed.join(", ")),
        }
        if !self.restart.is_empty() {
            log::warn!("changed settings need a restart: {}", self.restart.join(", "));
        }
        if !self.overridden.is_empty() {
            log::warn!("settings changed in the file are overridden: {}", self.overridden.join(", "));
        }
    }
}

impl ReloadQueue {
    /// Removes and returns the oldest reload result in the queue.
    pub fn take(&self) -> Option<ReloadResult> {
        // The loop calls `take` for each datagram and each decision of the connect hook. So `take` locks the queue only
        // if the queue has a result.
        if !self.is_waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.lock();
        let reload = queue.pop_front();
        self.is_waiting.store(!queue.is_empty(), Ordering::Release);
        reload
    }

    fn put(&self, reload: ReloadResult) {
        let mut queue = self.lock();
        if queue.len() == RELOADS_MAX {
            // A full queue drops the oldest error. If the queue has no error, it drops the oldest valid result. Errors
            // are dropped first, because without a valid result no log line reports which settings this reload changed.
            let unneeded = queue.iter().position(Result::is_err).unwrap_or(0);
            queue.remove(unneeded);
        }
        queue.push_back(reload);
        self.is_waiting.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<ReloadResult>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread that reloads on SIGHUP.
///
/// [`ThreadMessage::Reload`] informs the loop about each reload result. If datagrams have filled the inbox of the loop,
/// the message `Reload` is lost. Then the loop takes the reload result when the loop handles the next datagram. So an
/// API key that the reload removes does not stay valid.
pub fn spawn(mut current: Arc<Settings>, exposure: Exposure, remote: Remote) -> io::Result<Arc<ReloadQueue>> {
    let reloads = Arc::new(ReloadQueue::default());
    let mut signals = Signals::new([SIGHUP])?;
    threads::spawn("fdpush-sighup", {
        let reloads = Arc::clone(&reloads);
        move || {
            for _ in signals.forever() {
                let reload = read(&current, &exposure);
                if let Ok((plan, _)) = &reload {
                    current = Arc::clone(&plan.settings);
                }
                reloads.put(reload);
                if remote.notify(ThreadMessage::Reload) == Err(RemoteError::Closed) {
                    break;
                }
            }
            Ok(())
        }
    })?;
    Ok(reloads)
}

fn read(old: &Settings, exposure: &Exposure) -> ReloadResult {
    let Reloaded { settings, changed, restart, files, overridden } =
        reload::reload(old).map_err(|faults| faults.to_string())?;
    let is_new = |warning: &&String| !old.warnings().any(|earlier| earlier == *warning);
    let warnings = settings.warnings().filter(is_new).cloned().collect();
    let files = files.iter().map(|path| path.display().to_string()).collect();
    let tls = settings.tls().configs()?;
    let plan = Plan::of(Arc::new(settings), exposure, tls)?;
    let has_api = plan.settings.serve.api_addresses().next().is_some();
    if has_api && !old.api_keys().is_empty() && plan.settings.api_keys().is_empty() {
        return Err("the last API key would be removed; restart the server to remove the last API key".to_owned());
    }
    let serve = &plan.settings.serve;
    if old.serve.api.api_client_ca.is_some() && serve.api.api_client_ca.is_none() {
        return Err(
            "api_client_ca would be removed and the API would ask for no certificate; restart the server to remove \
             api_client_ca"
                .to_owned(),
        );
    }
    let has_back_end = serve.hooks.webhook.is_some() || serve.auth() == Auth::Webhook;
    if has_back_end && old.serve.hooks.webhook_secret.is_some() && serve.hooks.webhook_secret.is_none() {
        return Err(
            "webhook_secret would be removed and requests would have no signature; restart the server to remove \
             webhook_secret"
                .to_owned(),
        );
    }
    Ok((plan, ReloadReport { changed, restart, overridden, files, warnings }))
}
