//! The settings of TLS.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fdpush::TlsVersion;
use fdpush::shared::RATE_MAX;

use super::count::between;
use super::values::path;

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "TLS")]
pub struct Tls {
    /// A certificate chain in PEM for `tls:` addresses; the certificate of the server comes first. May be given several
    /// times: the server uses the first chain that fits the server name in the handshake (SNI), or else the first
    /// chain. SIGHUP reads the files again
    #[arg(long, value_name = "FILE", env = "FDPUSH_TLS_CERT", value_delimiter = ',', value_parser = path)]
    pub tls_cert: Vec<PathBuf>,

    /// The private key in PEM of each --tls-cert, in the same order. SIGHUP reads the files again
    #[arg(long, value_name = "FILE", env = "FDPUSH_TLS_KEY", value_delimiter = ',', value_parser = path)]
    pub tls_key: Vec<PathBuf>,

    /// The lowest TLS version that the server accepts
    #[arg(long, value_name = "VERSION", env = "FDPUSH_TLS_MIN", default_value = "1.2")]
    pub tls_min: TlsMin,

    /// Maximum number of TLS handshakes per second, with a burst of the same size; clients over this limit wait for at
    /// most --head-time-max. Default: unlimited
    #[arg(long, value_name = "COUNT", env = "FDPUSH_TLS_HANDSHAKE_RATE",
        value_parser = between(1, RATE_MAX))]
    pub tls_handshake_rate: Option<u32>,
}

/// The lowest version of TLS that the server accepts.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum TlsMin {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

impl From<TlsMin> for TlsVersion {
    fn from(min: TlsMin) -> TlsVersion {
        match min {
            TlsMin::Tls12 => TlsVersion::Tls12,
            TlsMin::Tls13 => TlsVersion::Tls13,
        }
    }
}
