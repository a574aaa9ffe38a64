//! Loads the effective settings. A flag overrides the environment, the environment overrides the file, and the file
//! overrides the default.
//!
//! `cli.rs` declares all settings. If no flag or variable overrides a key of the file, the key becomes a flag. Then the
//! command line is parsed again with the flags from the file. So the same parser checks the values of all sources.

mod arguments;
pub mod back_ends;
mod check;
pub mod cli;
mod consistency;
mod declarations;
mod faults;
mod file;
mod keys;
mod proxies;
pub mod reload;
mod show;
mod tls;
mod toml_value;
mod value;
mod warnings;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};

use self::arguments::{Arguments, parse};
pub use self::arguments::{command, is_of_a_value};
use self::cli::{Secret, Serve, Token};
use self::declarations::{declaration, declarations, is_secret};
pub use self::faults::Faults;
use self::file::File;
use crate::gateway::identity::jwt::{self, Grant, KeyFile};
use crate::gateway::tls::files::TlsFiles;
use crate::gateway::wire::suggestion::nearest;

/// The keys of settings that protect the server and have no secret value.
const PROTECTING: [&str; 5] = ["auth", "jwt_issuer", "jwt_audience", "api_client_ca", "tls_min"];

/// All settings of the server, and their sources.
pub struct Settings {
    pub serve: Serve,
    layers: Layers,
    contents: Contents,
    /// The warnings about the settings. [`Contents`] has the warnings about the files.
    warnings: Vec<String>,
}

/// The content of the key files and certificate files that the settings name.
struct Contents {
    /// All API keys: first the keys of `--api-key`, then the keys of `--api-key-file`.
    api_keys: Vec<Secret>,
    jwt_keys: Vec<KeyFile>,
    tls: TlsFiles,
    warnings: Vec<String>,
}

/// The sources of the settings as layers: command line, environment and file.
struct Layers {
    /// The command line of the process, without invalid values.
    line: Vec<OsString>,
    /// The settings from flags and the environment.
    above: ArgMatches,
    file: Option<File>,
    /// The settings from flags, environment, file and defaults.
    all: ArgMatches,
}

/// The source of a setting.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Source {
    Flag,
    Environment,
    File,
    Default,
}

impl Settings {
    /// Loads the settings from a command line, the environment and the configuration file.
    ///
    /// # Errors
    /// The error has all faults of the settings. Each fault names the file or the flag, the key, and the allowed
    /// values.
    pub fn load(line: Vec<OsString>) -> Result<Settings, Faults> {
        let mut faults = Faults::default();
        let settings = Layers::read(line, &mut faults).and_then(|layers| Settings::of(layers, &mut faults));
        match settings {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults),
        }
    }

    /// Works like [`load`](Settings::load), and also makes the checks of `fdpush check`.
    ///
    /// # Errors
    /// The errors are those of [`load`](Settings::load), and the faults that the checks find.
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

    /// Returns the settings that result from the layers. Adds the faults of the settings to `faults`.
    fn of(layers: Layers, faults: &mut Faults) -> Option<Settings> {
        let serve = Settings::serve_of(&layers, faults)?;
        let contents = Contents::read(&serve, &layers, faults);
        Some(Settings::with(serve, layers, contents, faults))
    }

    /// Works like [`of`](Settings::of), but takes the content of the files from `contents`.
    fn of_read(layers: Layers, contents: Contents, faults: &mut Faults) -> Option<Settings> {
        let serve = Settings::serve_of(&layers, faults)?;
        Some(Settings::with(serve, layers, contents, faults))
    }

    fn serve_of(layers: &Layers, faults: &mut Faults) -> Option<Serve> {
        let parsed = Serve::from_arg_matches(&layers.all);
        parsed.map_err(|error| faults.add(&[], error.to_string())).ok()
    }

    fn with(serve: Serve, layers: Layers, contents: Contents, faults: &mut Faults) -> Settings {
        let mut warnings = layers.mistyped_variables(std::env::vars_os().map(|(name, _)| name));
        warnings.extend(layers.empty_variables());
        let mut settings = Settings { serve, layers, contents, warnings };
        settings.check_consistency(faults);
        settings
    }

    /// Returns all API keys: first the keys of `--api-key`, then the keys of `--api-key-file`.
    pub fn api_keys(&self) -> &[Secret] {
        &self.contents.api_keys
    }

    /// Returns the keys of `--api-key-file`.
    fn api_keys_from_file(&self) -> &[Secret] {
        self.contents.api_keys.get(self.serve.api.api_key.len()..).unwrap_or_default()
    }

    /// Returns the key files of tokens, in the order of the flags.
    pub fn jwt_keys(&self) -> &[KeyFile] {
        &self.contents.jwt_keys
    }

    /// Returns all files that a SIGHUP reads again: the configuration file and the files that the settings name.
    fn files(&self) -> Vec<PathBuf> {
        let config = self.layers.file.iter().map(|file| &file.path);
        let keys = self.serve.api.api_key_file.iter().chain(&self.serve.clients.jwt.jwt_key_file);
        let tls = self.serve.tls.tls_cert.iter().chain(&self.serve.tls.tls_key).chain(&self.serve.api.api_client_ca);
        config.chain(keys).chain(tls).cloned().collect()
    }

    /// Returns the warnings about the settings and their files.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.warnings.iter().chain(&self.contents.warnings)
    }

    /// Returns whether `listen` has its default value.
    pub fn listens_by_default(&self) -> bool {
        self.layers.source("listen") == Source::Default
    }

    /// Returns whether `api` has its default value.
    pub fn has_default_api(&self) -> bool {
        self.layers.source("api") == Source::Default
    }
}

impl Contents {
    /// Reads and checks the files of keys and certificates that the settings name.
    fn read(serve: &Serve, layers: &Layers, faults: &mut Faults) -> Contents {
        let mut warnings = Vec::new();
        let api_keys = keys::api_keys(&serve.api, &layers.name("api_key"), &mut warnings, faults);
        let jwt_keys = keys::jwt_keys(&serve.clients.jwt, &layers.name("jwt_secret"), &mut warnings, faults);
        let tls = keys::tls_files(serve, &mut warnings, faults);
        Contents { api_keys, jwt_keys, tls, warnings }
    }
}

/// Returns a signed token for a command line of `fdpush token`.
///
/// # Errors
/// Returns an error if the settings are invalid (see [`Settings::load`]), or if they contain no secret that can sign a
/// token.
pub fn token(line: Vec<OsString>) -> Result<String, Faults> {
    let mut faults = Faults::default();
    let layers = Layers::read(line, &mut faults);
    let Some(layers) = layers.filter(|_| faults.is_empty()) else { return Err(faults) };
    let token = Token::from_arg_matches(&layers.all).map_err(|error| error.to_string())?;
    let files = keys::jwt_keys(&token.jwt, "jwt_secret", &mut Vec::new(), &mut faults);
    faults.into_result()?;
    let given = token.jwt.jwt_secret.first().map(|secret| secret.expose().as_bytes());
    let secret = given.or_else(|| files.iter().find_map(KeyFile::secret));
    let secret = secret
        .ok_or("no secret can sign the token: give --jwt-secret, or a --jwt-key-file that holds a secret".to_owned())?;
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
    /// Reads the command line, the environment, and the file that `config` names.
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

    /// Adds the values of the file to the command line. Flags and the environment override the values of the file.
    fn stack(given: Arguments, file: Option<File>) -> Result<Layers, String> {
        let Arguments { line, without, matches: above } = given;
        let entries = file.iter().flat_map(|file| &file.entries);
        // All subcommands use the same configuration file. So a key that only another subcommand knows is skipped.
        let cli = command();
        let subcommand = line.get(1).and_then(|name| cli.find_subcommand(name));
        let has = |key: &str| subcommand.is_some_and(|command| command.get_arguments().any(|arg| arg.get_id() == key));
        let below = entries.filter(|entry| has(entry.key) && !is_given(&above, entry.key));
        let flags = below.flat_map(|entry| entry.flags().map(OsString::from));
        // The flags of the file follow the name of the subcommand. So if the last flag of the command line lacks its
        // value, the flag does not take a flag of the file as its value.
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

    /// Returns the values of a setting as text. Returns an empty list if the setting is not set.
    fn values(&self, key: &str) -> Vec<String> {
        let values = self.all.get_raw(key).into_iter().flatten();
        values.map(|value| value.to_string_lossy().into_owned()).collect()
    }

    /// Returns whether a setting is set to a value other than its default.
    fn is_changed(&self, arg: &Arg) -> bool {
        let key = arg.get_id().as_str();
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        self.source(key) != Source::Default && self.values(key).join(",") != default.join(",")
    }

    /// Returns the name of a setting in its source: the flag, the variable, or the line and the key in the file.
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

    /// Returns warnings about empty variables of settings that protect the server.
    fn empty_variables(&self) -> Vec<String> {
        let guards = |arg: &&Arg| is_secret(arg) || PROTECTING.contains(&arg.get_id().as_str());
        let empty = declarations().filter(guards).filter_map(arguments::empty_variable);
        empty.map(|name| format!("{name} is empty: an empty variable counts as unset")).collect()
    }

    /// Returns warnings about variables whose names are similar to the variable of a setting. Other unknown variables
    /// are ignored, because container platforms set variables whose names begin with the name of a service.
    fn mistyped_variables(&self, names: impl Iterator<Item = OsString>) -> Vec<String> {
        let mut warnings = Vec::new();
        for name in names.filter_map(|name| name.into_string().ok()) {
            let Some(key) = name.strip_prefix("FDPUSH_").map(str::to_lowercase) else { continue };
            let keys = declarations().map(|arg| arg.get_id().as_str());
            if declaration(&key).is_none()
                && let Some(meant) = nearest(&key, keys)
            {
                warnings.push(format!("{name} is not a setting; did you mean FDPUSH_{}?", meant.to_uppercase()));
            }
        }
        warnings
    }
}

fn is_given(matches: &ArgMatches, key: &str) -> bool {
    matches!(matches.value_source(key), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}
