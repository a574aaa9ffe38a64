//! The flags of `fdpush token`.

use std::path::PathBuf;

use clap::Args;

use super::jwt::Jwt;
use super::values::{Lifetime, path};

#[derive(PartialEq, Debug, Args)]
pub struct Token {
    /// A TOML file of settings. Only the keys jwt_… are used
    #[arg(long, value_name = "FILE", env = "FDPUSH_CONFIG", value_parser = path)]
    pub config: Option<PathBuf>,

    /// The uid of the client: 1 to 128 bytes
    #[arg(long, value_name = "NAME")]
    pub uid: String,

    /// Lifetime of the token, at most 1y. Only the removal of the secret revokes a token
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub ttl: Lifetime,

    /// Groups that the client joins when it connects, separated by commas. May be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub groups: Vec<String>,

    #[command(flatten)]
    pub jwt: Jwt,
}
