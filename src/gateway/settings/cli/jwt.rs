//! The flags of token keys, for `fdpush serve` and `fdpush token`.

use std::path::PathBuf;

use clap::Args;

use super::secret::Secret;
use super::values::{path, text};

/// The keys that verify tokens, and the required claims.
#[derive(PartialEq, Debug, Args)]
pub struct Jwt {
    /// With --auth jwt: an HS256 secret of at least 32 bytes; it must not contain a comma. May be given several times:
    /// the first secret is the current secret, and tokens of the other secrets are still accepted. Prefer the
    /// environment or a file: other users can see flags
    #[arg(long, value_name = "SECRET", env = "FDPUSH_JWT_SECRET", value_delimiter = ',', hide_env_values = true)]
    pub jwt_secret: Vec<Secret>,

    /// With --auth jwt: a file with a public key in PEM or with an HS256 secret. The type of the public key selects
    /// RS256, ES256 or EdDSA. A final line end is not part of the secret. May be given several times
    #[arg(long, value_name = "FILE", env = "FDPUSH_JWT_KEY_FILE", value_delimiter = ',', value_parser = path)]
    pub jwt_key_file: Vec<PathBuf>,

    /// With --auth jwt: required claim `iss` of a token. Default: any value
    #[arg(long, value_name = "TEXT", env = "FDPUSH_JWT_ISSUER", value_parser = text)]
    pub jwt_issuer: Option<String>,

    /// With --auth jwt: required claim `aud` of a token. Default: any value
    #[arg(long, value_name = "TEXT", env = "FDPUSH_JWT_AUDIENCE", value_parser = text)]
    pub jwt_audience: Option<String>,
}
