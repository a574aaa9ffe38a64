//! Writes the output of `fdpush config`: the effective settings as TOML, with their sources.

use std::fmt;

use clap::{Arg, ValueEnum};

use super::cli::{MASK, masked};
use super::declarations::{declarations, is_secret, is_url};
use super::toml_value::toml_value;
use super::{Settings, Source};

impl Settings {
    /// Returns the settings as TOML, with one setting per line.
    pub fn to_toml(&self) -> String {
        let mut out = format!(
            "# The effective settings of fdpush {}. To use this text as --config FILE, replace each \"{MASK}\" by\n\
             # the secret.\n",
            env!("CARGO_PKG_VERSION")
        );
        let mut heading = None;
        for arg in declarations().filter(|arg| arg.get_id() != "config") {
            if arg.get_help_heading() != heading {
                heading = arg.get_help_heading();
                out.push_str(&heading.map_or("\n".to_owned(), |heading| format!("\n# {heading}\n")));
            }
            let key = arg.get_id().as_str();
            let values = self.values(arg);
            if values.is_empty() {
                let default = describe_default(key).map_or_else(String::new, |what| format!(": {what}"));
                out.push_str(&format!("# {key} is not set{default}\n"));
            } else {
                out.push_str(&format!("{key} = {}  # {}\n", toml_value(arg, &values), self.layers.source(key)));
            }
        }
        out
    }

    /// Returns the effective values of a setting, including values that are derived from another setting.
    fn values(&self, arg: &Arg) -> Vec<String> {
        let key = arg.get_id().as_str();
        let values = self.layers.values(key);
        match key {
            "client_may" if values.is_empty() => {
                let names = self.serve.client_may().into_iter().filter_map(|may| may.to_possible_value());
                names.map(|name| name.get_name().to_owned()).collect()
            }
            "message_burst" if values.is_empty() => self.serve.message_burst().iter().map(u32::to_string).collect(),
            _ if is_secret(arg) => values.iter().map(|_| MASK.to_owned()).collect(),
            _ if is_url(arg) => values.iter().map(|url| masked(url)).collect(),
            _ => values,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Flag => "from flag",
            Source::Environment => "from environment",
            Source::File => "from file",
            Source::Default => "default",
        })
    }
}

/// Describes the effect of a setting that is not set and has no default value.
fn describe_default(key: &str) -> Option<&'static str> {
    Some(match key {
        "auth" => "trust, which is allowed only if no other machine can connect",
        "connections_max" => "as many as the descriptor limit allows at the start",
        "node" => "the host name with a random suffix, chosen at the start",
        "origin" => "only the origin of the server itself",
        "subprotocols" => "none except bearer.TOKEN",
        "uid_connections_max" | "address_connections_max" | "message_rate" | "accept_rate" => "unlimited",
        _ => return None,
    })
}
