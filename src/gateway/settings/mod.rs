//! The settings in effect: default, below file, below environment, below flag.
//!
//! `cli.rs` is the one declaration. What the file says is put on the command line where neither flag nor variable says
//! otherwise, and that line is parsed again: what a value may be is decided in one place.

mod arguments;
pub mod back_ends;
mod check;
pub mod cli;
mod consistency;
mod faults;
mod file;
mod keys;
pub mod reload;
mod show;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};

use self::arguments::{Arguments, parse, parse_alone};
pub use self::arguments::{command, is_of_a_value};
use self::cli::{Secret, Serve, Token};
pub use self::faults::Faults;
use self::file::File;
use crate::gateway::identity::jwt::{self, Grant, KeyFile};
use crate::gateway::wire::suggestion::nearest;

/// All settings, and where each comes from.
pub struct Settings {
    pub serve: Serve,
    layers: Layers,
    api_keys: Vec<Secret>,
    jwt_keys: Vec<KeyFile>,
    warnings: Vec<String>,
}

/// The command line, the environment and the file, one upon the other.
struct Layers {
    /// The command line as it was given.
    line: Vec<OsString>,
    /// The settings from flags and the environment.
    above: ArgMatches,
    file: Option<File>,
    /// What all say.
    all: ArgMatches,
}

/// Where a setting comes from.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Source {
    Flag,
    Environment,
    File,
    Default,
}

impl Settings {
    /// The settings of a command line, with its environment and its file.
    ///
    /// # Errors
    /// All that is wrong. Each names the file or the flag, the key, and what is allowed.
    pub fn load(line: Vec<OsString>) -> Result<Settings, Faults> {
        let mut faults = Faults::default();
        let settings = Layers::read(line, &mut faults).and_then(|layers| Settings::of(layers, &mut faults));
        match settings {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults),
        }
    }

    /// The same, and all else that can be judged without listening.
    ///
    /// # Errors
    /// As [`load`](Settings::load).
    pub fn load_and_check(line: Vec<OsString>) -> Result<Settings, Faults> {
        let mut faults = Faults::default();
        let settings = Layers::read(line, &mut faults).and_then(|layers| Settings::of(layers, &mut faults));
        if let Some(settings) = &settings {
            settings.check(&mut faults);
        }
        match settings {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults),
        }
    }

    /// The settings of these layers, as far as they have values. What is wrong with them is in `faults`.
    fn of(layers: Layers, faults: &mut Faults) -> Option<Settings> {
        let mut warnings = layers.mistyped_variables(std::env::vars_os().map(|(name, _)| name));
        warnings.extend(layers.empty_variables());
        let serve = match Serve::from_arg_matches(&layers.all) {
            Ok(serve) => serve,
            Err(error) => {
                faults.add(&[], error.to_string());
                return None;
            }
        };
        let api_keys = keys::api_keys(&serve.api, &layers.name("api_key"), &mut warnings, faults);
        let jwt_keys = keys::jwt_keys(&serve.clients.jwt, &mut warnings, faults);
        let mut settings = Settings { serve, layers, api_keys, jwt_keys, warnings };
        settings.check_consistency(faults);
        Some(settings)
    }

    /// The keys that back ends may show: the flag's and the file's.
    pub fn api_keys(&self) -> &[Secret] {
        &self.api_keys
    }

    /// Of these, the file's.
    fn filed_api_keys(&self) -> &[Secret] {
        self.api_keys.get(self.serve.api.api_key.len()..).unwrap_or_default()
    }

    /// The files that tokens are checked with, in the order of the flags.
    pub fn jwt_keys(&self) -> &[KeyFile] {
        &self.jwt_keys
    }

    /// The files that these settings come from, and that SIGHUP reads again.
    fn files(&self) -> Vec<PathBuf> {
        let config = self.layers.file.iter().map(|file| &file.path);
        let keys = self.serve.api.api_key_file.iter().chain(&self.serve.clients.jwt.jwt_key_file);
        config.chain(keys).cloned().collect()
    }

    /// What is strange and yet no error, for the log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether nobody has said where to listen.
    pub fn listens_by_default(&self) -> bool {
        self.layers.source("listen") == Source::Default
    }

    /// Whether nobody has said where the API is.
    pub fn has_default_api(&self) -> bool {
        self.layers.source("api") == Source::Default
    }
}

/// The token that a command line of `fdpush token` asks for.
///
/// # Errors
/// As [`Settings::load`], and where there is no secret to make it with.
pub fn token(line: Vec<OsString>) -> Result<String, Faults> {
    let mut faults = Faults::default();
    let layers = Layers::read(line, &mut faults);
    let Some(layers) = layers.filter(|_| faults.is_empty()) else { return Err(faults) };
    let token = Token::from_arg_matches(&layers.all).map_err(|error| error.to_string())?;
    let files = keys::jwt_keys(&token.jwt, &mut Vec::new(), &mut faults);
    faults.into_result()?;
    let given = token.jwt.jwt_secret.first().map(|secret| secret.expose().as_bytes());
    let secret = given.or_else(|| files.iter().find_map(KeyFile::secret));
    let secret = secret
        .ok_or("a token is made with a secret: give --jwt-secret, or a --jwt-key-file that holds one".to_owned())?;
    let grant = Grant {
        uid: &token.uid,
        groups: &token.groups,
        ttl: token.ttl.0,
        issuer: token.jwt.jwt_issuer.as_deref(),
        audience: token.jwt.jwt_audience.as_deref(),
    };
    Ok(jwt::issue(secret, &grant)?)
}

impl Layers {
    /// The layers of a command line, with the file that it, or the environment, names.
    fn read(line: Vec<OsString>, faults: &mut Faults) -> Option<Layers> {
        let given = Arguments::read(line, faults)?;
        let path: Option<&PathBuf> = given.matches.get_one("config");
        let file = match path {
            Some(path) => Some(File::read(path, faults)?),
            None => None,
        };
        match Layers::stack(given, file) {
            Ok(layers) => Some(layers),
            Err(why) => {
                faults.add(&[], why);
                None
            }
        }
    }

    /// Puts what the file says below what flags and environment say.
    fn stack(given: Arguments, file: Option<File>) -> Result<Layers, String> {
        let Arguments { line, without, matches: above } = given;
        let entries = file.iter().flat_map(|file| &file.entries);
        // The file is for all subcommands; a key that this one does not have is for another.
        let cli = command();
        let subcommand = line.get(1).and_then(|name| cli.find_subcommand(name));
        let has = |key: &str| subcommand.is_some_and(|command| command.get_arguments().any(|arg| arg.get_id() == key));
        let below = entries.filter(|entry| has(entry.key) && !is_given(&above, entry.key));
        let flags = below.flat_map(|entry| entry.flags().map(OsString::from));
        // They go behind the subcommand's name, so that nothing the line ends with can take them for its own.
        let name_end = line.len().min(2);
        let stacked: Vec<OsString> =
            line[..name_end].iter().cloned().chain(flags).chain(line[name_end..].iter().cloned()).collect();
        let all = parse(stacked, &without).map_err(|error| error.to_string())?;
        Ok(Layers { line, above, file, all })
    }

    fn source(&self, key: &str) -> Source {
        match self.above.value_source(key) {
            Some(ValueSource::CommandLine) => Source::Flag,
            Some(ValueSource::EnvVariable) => Source::Environment,
            _ if self.file.as_ref().is_some_and(|file| file.entry(key).is_some()) => Source::File,
            _ => Source::Default,
        }
    }

    /// The values of a setting as they were written; none: it is not set.
    fn values(&self, key: &str) -> Vec<String> {
        let values = self.all.get_raw(key).into_iter().flatten();
        values.map(|value| value.to_string_lossy().into_owned()).collect()
    }

    /// Whether somebody has said something of it that is not the default anyway.
    fn is_changed(&self, arg: &Arg) -> bool {
        let key = arg.get_id().as_str();
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        self.source(key) != Source::Default && self.values(key).join(",") != default.join(",")
    }

    /// How whoever set it knows it.
    fn name(&self, key: &str) -> String {
        match (self.source(key), &self.file) {
            (Source::Environment, _) => format!("FDPUSH_{}", key.to_uppercase()),
            (Source::File, Some(file)) => {
                let line = file.entry(key).map_or(0, |entry| entry.line);
                format!("{}:{line}: {key}", file.path.display())
            }
            _ => format!("--{}", key.replace('_', "-")),
        }
    }

    /// Warnings of variables without a value whose setting protects something.
    fn empty_variables(&self) -> Vec<String> {
        let guards =
            |arg: &&Arg| is_secret(arg) || ["auth", "jwt_issuer", "jwt_audience"].contains(&arg.get_id().as_str());
        let empty = declarations().filter(guards).filter_map(arguments::empty_variable);
        empty.map(|name| format!("{name} is empty, and so is not set")).collect()
    }

    /// Warnings of variables that look like ours and are none. Others are left alone: what starts containers makes
    /// variables of services' names.
    fn mistyped_variables(&self, names: impl Iterator<Item = OsString>) -> Vec<String> {
        let mut warnings = Vec::new();
        for name in names.filter_map(|name| name.into_string().ok()) {
            let Some(key) = name.strip_prefix("FDPUSH_").map(str::to_lowercase) else { continue };
            let keys = declarations().map(|arg| arg.get_id().as_str());
            if declaration(&key).is_none()
                && let Some(meant) = nearest(&key, keys)
            {
                warnings.push(format!("{name} is no setting; did you mean FDPUSH_{}?", meant.to_uppercase()));
            }
        }
        warnings
    }
}

/// All settings, as they are declared.
fn declarations() -> impl Iterator<Item = &'static Arg> {
    static SERVE: OnceLock<clap::Command> = OnceLock::new();
    let serve = SERVE.get_or_init(|| <Serve as clap::Args>::augment_args(clap::Command::new("serve")));
    serve.get_arguments()
}

fn declaration(key: &str) -> Option<&'static Arg> {
    declarations().find(|arg| arg.get_id() == key)
}

/// Whether a setting's value is for no eyes.
fn is_secret(arg: &Arg) -> bool {
    arg.is_hide_env_values_set() && !is_url(arg)
}

/// Whether a setting's value is a URL, in which user and password are for no eyes.
fn is_url(arg: &Arg) -> bool {
    arg.get_value_names().and_then(|names| names.first()).is_some_and(|name| name == "URL")
}

fn is_given(matches: &ArgMatches, key: &str) -> bool {
    matches!(matches.value_source(key), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}
