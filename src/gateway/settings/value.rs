//! Checks single values with the parser of the command line.

use std::error::Error;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgMatches, Command, CommandFactory};

use super::cli::Cli;
use super::declarations::{is_secret, is_url};

/// Returns each invalid value with the reason. For a secret value, returns only the reason.
pub fn check_values<'a>(arg: &'a Arg, values: &'a [String]) -> impl Iterator<Item = (Option<&'a str>, String)> {
    let is_public = !is_secret(arg) && !is_url(arg);
    values.iter().filter_map(move |value| Some((is_public.then_some(value.as_str()), check_value(arg, value)?)))
}

/// Checks a value with clap, as the only flag of a command line. Returns the text of the error.
fn check_value(arg: &Arg, value: &str) -> Option<String> {
    let error = parse_alone(&format!("--{}={value}", arg.get_long()?)).err()?;
    Some(match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(valid)), _) if !valid.is_empty() => format!("expected {}", valid.join(", ")),
        (_, Some(why)) => why.to_string(),
        // clap has no error message for an empty value.
        _ if value.is_empty() => "it must not be empty".to_owned(),
        _ => error.kind().to_string(),
    })
}

/// Parses the command `serve` with one flag and without the environment.
fn parse_alone(flag: &str) -> Result<ArgMatches, clap::Error> {
    let command = Cli::command().mut_subcommands(|subcommand| subcommand.mut_args(|arg| arg.env(None::<&str>)));
    subcommand_of(command, ["fdpush", "serve", flag].map(OsString::from).into())
}

/// Parses a command line with a clap command. Returns the matches of the subcommand.
pub fn subcommand_of(command: Command, line: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    let mut matches = command.try_get_matches_from(line)?;
    Ok(matches.remove_subcommand().map_or(matches, |(_, matches)| matches))
}
