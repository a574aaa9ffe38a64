//! Parses the command line and the environment. Invalid values are reported and removed, so that one run reports all
//! faults.
//!
//! An empty environment variable counts as not set, because container tools set empty variables for unknown values. An
//! empty value in a flag or in the configuration file is an error.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, CommandFactory};

use super::cli::Cli;
use super::declarations::{declaration, declarations};
use super::faults::Faults;
use super::value::{check_values, subcommand_of};

/// The settings from flags and the environment.
pub struct Arguments {
    /// The command line without invalid values.
    pub line: Vec<OsString>,
    /// The settings whose environment variables are ignored, because the values of these variables are invalid.
    pub without: BTreeSet<String>,
    pub matches: ArgMatches,
}

impl Arguments {
    /// Parses a command line and the environment. If the command line is invalid, returns `None` and adds the error of
    /// clap to `faults`.
    pub fn read(mut line: Vec<OsString>, faults: &mut Faults) -> Option<Arguments> {
        let mut without = BTreeSet::new();
        for arg in declarations().filter(|arg| has_invalid_utf8(arg)) {
            faults.mark_invalid_usage(arg.get_id().as_str(), format!("{}: the value is not UTF-8", variable(arg)));
            without.insert(arg.get_id().to_string());
        }
        loop {
            let error = match parse(line.clone(), &without) {
                Ok(matches) => return Some(Arguments { line, without, matches }),
                Err(error) => error,
            };
            let Some(arg) = invalid_arg(&error).filter(|arg| !without.contains(arg.get_id().as_str())) else {
                let text = error.to_string();
                faults.mark_invalid_usage("config", text.trim().trim_start_matches("error: ").to_owned());
                return None;
            };
            let flags = values_of(arg, &line);
            let name = format!("--{}", arg.get_long().unwrap_or_default());
            match flags.as_slice() {
                [] => report_invalid(arg, &variable(arg), &values_in_environment(arg), faults),
                values if is_list(arg) || values.len() == 1 => report_invalid(arg, &name, values, faults),
                _ => {
                    faults.mark_invalid_usage(arg.get_id().as_str(), format!("{name}: the flag may be given only once"))
                }
            }
            line = without_flag(arg, &line);
            without.insert(arg.get_id().to_string());
        }
    }
}

/// Returns the clap command of `fdpush`. The command ignores empty environment variables.
pub fn command() -> Command {
    command_without(&BTreeSet::new())
}

fn command_without(without: &BTreeSet<String>) -> Command {
    Cli::command().mut_subcommands(|subcommand| {
        subcommand.mut_args(|arg| {
            let is_out = without.contains(arg.get_id().as_str()) || empty_variable(&arg).is_some();
            if is_out { arg.env(None::<&str>) } else { arg }
        })
    })
}

/// Parses a command line, and returns the matches of its subcommand.
pub fn parse(line: Vec<OsString>, without: &BTreeSet<String>) -> Result<ArgMatches, clap::Error> {
    subcommand_of(command_without(without), line)
}

/// Returns the name of a setting's environment variable, if the variable is set and empty.
pub fn empty_variable(arg: &Arg) -> Option<String> {
    let name = arg.get_env()?;
    std::env::var_os(name).filter(|value| value.is_empty()).and_then(|_| name.to_str().map(str::to_owned))
}

/// Returns whether an error of clap is about the value of a setting.
pub fn is_of_a_value(error: &clap::Error) -> bool {
    // The error of clap does not name the variable whose value is not UTF-8, so all variables are checked.
    let is_of_a_variable = || error.kind() == ErrorKind::InvalidUtf8 && declarations().any(has_invalid_utf8);
    invalid_arg(error).is_some() || is_of_a_variable()
}

/// Returns whether the environment variable of a setting has a value that is not UTF-8.
fn has_invalid_utf8(arg: &Arg) -> bool {
    arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.to_str().is_none())
}

/// Returns the setting whose value an error of clap reports as invalid.
fn invalid_arg(error: &clap::Error) -> Option<&'static Arg> {
    let kinds = [ErrorKind::InvalidValue, ErrorKind::ValueValidation, ErrorKind::ArgumentConflict];
    let Some(ContextValue::String(usage)) =
        error.get(ContextKind::InvalidArg).filter(|_| kinds.contains(&error.kind()))
    else {
        return None;
    };
    let name = usage.strip_prefix("--")?.split([' ', '=', '[']).next()?;
    declaration(&name.replace('-', "_"))
}

fn report_invalid(arg: &'static Arg, name: &str, values: &[String], faults: &mut Faults) {
    let key = arg.get_id().as_str();
    let mut has_fault = false;
    for (value, why) in check_values(arg, values) {
        has_fault = true;
        let value = value.map_or_else(String::new, |value| format!(" {value:?}"));
        faults.mark_invalid_usage(key, format!("{name}{value}: {why}"));
    }
    if !has_fault {
        faults.mark_invalid_usage(key, format!("{name}: invalid value"));
    }
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn values_in_environment(arg: &Arg) -> Vec<String> {
    let value = arg.get_env().and_then(std::env::var_os).unwrap_or_default();
    split(arg, &value.to_string_lossy())
}

/// Returns the values that the flags of a command line give to a setting.
fn values_of(arg: &Arg, line: &[OsString]) -> Vec<String> {
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    let mut values = Vec::new();
    let mut tokens = line.iter().map(|token| token.to_string_lossy());
    while let Some(token) = tokens.next() {
        if *token == *flag {
            values.extend(tokens.next().into_iter().flat_map(|value| split(arg, &value)));
        } else if let Some(value) = token.strip_prefix(&flag).and_then(|rest| rest.strip_prefix('=')) {
            values.extend(split(arg, value));
        }
    }
    values
}

fn without_flag(arg: &Arg, line: &[OsString]) -> Vec<OsString> {
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    let mut kept = Vec::new();
    let mut tokens = line.iter();
    while let Some(token) = tokens.next() {
        let text = token.to_string_lossy();
        if *text == *flag {
            tokens.next();
        } else if !text.strip_prefix(&flag).is_some_and(|rest| rest.starts_with('=')) {
            kept.push(token.clone());
        }
    }
    kept
}

fn split(arg: &Arg, value: &str) -> Vec<String> {
    match arg.get_value_delimiter() {
        Some(delimiter) => value.split(delimiter).map(str::to_owned).collect(),
        None => vec![value.to_owned()],
    }
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::Append)
}
