//! The gateway: the server that `fdpush serve` runs, and the other commands of the program `fdpush`.
//!
//! The gateway uses only the public API of the `fdpush` crate and the items in `fdpush::shared`. To the crate's server,
//! the gateway adds settings, authentication, JSON frames, presence, an HTTP API, webhook events, metrics and a test
//! page.
//!
//! ```text
//! serving/      start of the server, the handler of the event loop, client sessions, the demo page, reloads by SIGHUP
//! api/          the HTTP API for back ends and operators push/         messages to clients, and datagrams that contain
//! push commands presence/     uids and groups of connections, and presence notices to clients identity/
//! authentication by API key, token and connect hook; token expiry, permissions, trusted proxies hooks/        requests
//! to back ends: the HTTP client, the webhook, the webhook events wire/         formats: JSON, client frames, push
//! targets, names of users and groups operations/   logging, metrics, messages to the service manager systemd tls/
//! certificates and keys of TLS listeners settings/     settings from the command line, the environment and a file;
//! checks and reloads of settings runtime/      the clock, threads, file reads, the rate limit of log lines, the work
//! limit of a loop turn
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

/// Parses the command line of the process, and runs its command.
pub fn run() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    match run_command(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Faults>() {
            Some(faults) => {
                for text in faults.texts() {
                    logging::print_error(&format!("fdpush: {text}\n"));
                }
                // The exit code for an invalid command line is 2, because the command line parser `clap` uses the same
                // exit code.
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
            // `fdpush serve` logs a warning about a certificate once a day. `fdpush check` prints each warning about a
            // certificate once.
            warn(settings.certificate_warnings());
            Ok(logging::print(&format!("{}ok\n", settings.certificates()))?)
        }
        Ok(Cli { command: Command::Token(_) }) => Ok(logging::print(&format!("{}\n", settings::token(line)?))?),
        Ok(Cli { command: Command::Cert(cert) }) => Ok(logging::print(&cert.write()?)?),
        Err(error) if settings::is_of_a_value(&error) && takes_settings(&line) => {
            // If one setting has an invalid value, all settings are checked, so that the error names all faults.
            Err(Settings::load_and_check(line).err().map_or_else(|| error.into(), Into::into))
        }
        Err(error) => error.exit(),
    }
}

/// Returns the text of an error with the texts of its sources.
///
/// The result is, for example, `cannot listen on 127.0.0.1:9501: Address already in use`.
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

/// Prints warnings to standard error, for the commands without a log.
fn warn(warnings: impl IntoIterator<Item: Display>) {
    for warning in warnings {
        logging::print_error(&format!("fdpush: warning: {warning}\n"));
    }
}
