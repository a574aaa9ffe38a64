//! The settings of the API for back ends.

use std::path::PathBuf;

use clap::Args;
use fdpush::Limits;

use super::addresses::ApiAddress;
use super::count::between;
use super::secret::Secret;
use super::values::path;

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "API for back ends")]
pub struct Api {
    /// Address of the API: HOST:PORT, [V6]:PORT or unix:PATH for HTTP, with the prefix tls: for HTTPS; udp:HOST:PORT or
    /// unixgram:PATH for datagrams with one command each; `off` for no API. May be given several times
    #[arg(
        id = "api",
        long = "api",
        value_name = "ADDR",
        env = "FDPUSH_API",
        value_delimiter = ',',
        default_value = "127.0.0.1:9502"
    )]
    pub addresses: Vec<ApiAddress>,

    /// An API key that back ends send as Authorization: Bearer KEY; it must not contain a comma. May be given several
    /// times. Required if other machines can reach --api. Prefer the environment or a file: other users can see flags
    #[arg(long, value_name = "KEY", env = "FDPUSH_API_KEY", value_delimiter = ',', hide_env_values = true)]
    pub api_key: Vec<Secret>,

    /// A file with API keys, one per line; lines that begin with # are comments
    #[arg(long, value_name = "FILE", env = "FDPUSH_API_KEY_FILE", value_parser = path)]
    pub api_key_file: Option<PathBuf>,

    /// A file with certificate authorities in PEM: a `tls:` address of the API accepts only back ends with a certificate
    /// of one of these authorities. API keys are still required. SIGHUP reads the file again
    #[arg(long, value_name = "FILE", env = "FDPUSH_API_CLIENT_CA", value_parser = path)]
    pub api_client_ca: Option<PathBuf>,

    /// Maximum number of connections to --api that have sent a valid request; over this limit, requests get 503.
    /// Connections without a valid request, for example of probes, may use the unused part of this number and 16 more
    /// connections; if these are all in use, a new connection replaces the oldest connection without a valid request.
    /// API connections do not count in --connections-max. The server reserves the descriptors of API connections
    #[arg(long, value_name = "COUNT", env = "FDPUSH_API_CONNECTIONS_MAX",
        default_value_t = Limits::default().control_connections_max,
        value_parser = between(1, 65_536))]
    pub api_connections_max: u32,
}
