//! The flags of `fdpush token`.

use std::path::PathBuf;

use clap::Args;

use super::values::Lifetime;
use super::{Jwt, path};

#[derive(PartialEq, Debug, Args)]
pub struct Token {
    /// A TOML file of settings, of which the jwt_… are used
    #[arg(long, value_name = "FILE", env = "FDPUSH_CONFIG", value_parser = path)]
    pub config: Option<PathBuf>,

    /// Who the client is: 1 to 128 bytes
    #[arg(long, value_name = "NAME")]
    pub uid: String,

    /// How long the token is good for: at most a year, 1y. It cannot be taken back, but by taking the secret away
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub ttl: Lifetime,

    /// Groups that the client is in from the start. With commas, or given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub groups: Vec<String>,

    #[command(flatten)]
    pub jwt: Jwt,
}
