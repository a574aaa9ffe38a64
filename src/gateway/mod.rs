//! The server `fdpush serve`. The gateway uses only the public API of the crate, and the parts in `fdpush::shared`.
//!
//! The gateway adds settings, identity, JSON frames, presence, an HTTP API, webhook events, metrics and a test page.
//!
//! ```text
//! serving/      the handler of the loop, client frames, sessions, the page, reloads by SIGHUP
//! api/          the HTTP API for back ends and operators
//! push/         messages to clients, and datagrams with push commands
//! presence/     uids and groups of connections, and the notices about them
//! identity/     authentication: API keys, tokens, the connect hook; expiry, permissions, subprotocols, proxies
//! hooks/        requests to back ends: the HTTP client, the webhook, its events
//! wire/         JSON, client frames, targets, names
//! operations/   logging, metrics, the service manager
//! tls/          certificates and keys of TLS listeners
//! settings/     command line, environment, file; checks and reloads
//! runtime/      the clock, threads, file reads, the throttle of log lines, the work of a turn
//! ```

mod api;
mod hooks;
mod identity;
pub mod operations;
mod presence;
mod push;
mod runtime;
mod serving;
mod settings;
mod tls;
mod wire;

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use clap::FromArgMatches;

use self::operations::logging;
use self::serving::start::start;
use self::settings::cli::{Cli, Command};
use self::settings::{Faults, Settings};

/// Runs the command line.
pub fn run() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    match run_command(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Faults>() {
            Some(faults) => {
                for text in faults.texts() {
                    logging::print_error(&format!("fdpush: {text}\n"));
                }
                // clap also exits with 2 for an invalid command line.
                ExitCode::from(if faults.is_usage() { 2 } else { 1 })
            }
            None => {
                logging::print_error(&format!("fdpush: {}\n", with_sources(&*error)));
                ExitCode::FAILURE
            }
        },
    }
}

fn run_command(line: Vec<OsString>) -> Result<(), Box<dyn Error>> {
    let parsed = settings::command().try_get_matches_from(&line).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(Cli { command: Command::Serve(_) }) => {
            logging::install()?;
            start(Settings::load_and_check(line)?)
        }
        Ok(Cli { command: Command::Config(_) }) => {
            let settings = Settings::load(line)?;
            warn(settings.warnings());
            Ok(logging::print(&settings.to_toml())?)
        }
        Ok(Cli { command: Command::Check(_) }) => {
            let settings = Settings::load_and_check(line)?;
            warn(settings.warnings());
            // `fdpush serve` writes the warnings about certificates to its log each day. `fdpush check` prints these
            // warnings once.
            warn(settings.certificate_warnings());
            Ok(logging::print(&format!("{}ok\n", settings.certificates()))?)
        }
        Ok(Cli { command: Command::Token(_) }) => Ok(logging::print(&format!("{}\n", settings::token(line)?))?),
        Ok(Cli { command: Command::Cert(cert) }) => Ok(logging::print(&cert.write()?)?),
        Err(error) if settings::is_of_a_value(&error) && takes_settings(&line) => {
            // One value is invalid, so all settings are checked, and the error names all faults.
            Err(Settings::load_and_check(line).err().map_or_else(|| error.into(), Into::into))
        }
        Err(error) => error.exit(),
    }
}

/// Returns the text of an error, with the texts of its sources: `cannot listen on 127.0.0.1:9501: Address already in
/// use`.
fn with_sources(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn takes_settings(line: &[OsString]) -> bool {
    line.get(1).is_some_and(|name| ["serve", "config", "check"].iter().any(|known| name == known))
}

/// Prints the warnings to standard error, for commands without a log.
fn warn(warnings: impl IntoIterator<Item: Display>) {
    for warning in warnings {
        logging::print_error(&format!("fdpush: warning: {warning}\n"));
    }
}
