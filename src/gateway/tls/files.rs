//! The files of TLS: certificates, keys, and authorities for client certificates.
//!
//! The files are read and checked together, so that a reload takes all of them or none.

use std::fmt;
use std::path::{Path, PathBuf};

use fdpush::{TlsBuilder, TlsConfig, TlsError, TlsVersion};

use super::certificate::{Certificate, UnixTime};
use super::pem;
use crate::gateway::runtime::files;

/// The maximum size of a file, in bytes. Mozilla's roots have 230,000.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The kinds of keys that can be used. The TLS library does not name the kind of a key that it refuses.
const KEYS: &str = "RSA of 2,048 to 4,096 bits, ECDSA P-256 or P-384, or Ed25519";

/// An error of a file, with the setting that names it.
pub type FileFault = (&'static str, String);

/// A certificate chain and its key.
#[derive(Clone, PartialEq)]
pub struct Pair {
    certificate_file: PathBuf,
    certificate_pem: Vec<u8>,
    key_pem: Vec<u8>,
    server: Certificate,
    /// The certificates of the chain after the certificate of the server.
    intermediates: Vec<Certificate>,
}

/// Authorities that issue the certificates of API clients.
#[derive(Clone, PartialEq)]
pub struct ClientAuthorities {
    file: PathBuf,
    pem: Vec<u8>,
    authorities: Vec<Certificate>,
}

/// The settings of TLS, with the content of all files.
#[derive(Clone, PartialEq)]
pub struct TlsFiles {
    pub pairs: Vec<Pair>,
    pub client_authorities: Option<ClientAuthorities>,
    pub version_min: TlsVersion,
}

/// The settings of the TLS listeners. `None`: there is no pair.
#[derive(Clone, Debug, Default)]
pub struct TlsConfigs {
    pub clients: Option<TlsConfig>,
    pub api: Option<TlsConfig>,
}

impl Pair {
    /// Reads a certificate chain and its key, and checks that they fit.
    ///
    /// # Errors
    /// The faults of both files.
    pub fn read(certificate_file: &Path, key_file: &Path) -> Result<Pair, Vec<FileFault>> {
        let of_certificate = |why: String| ("tls_cert", format!("tls_cert {}: {why}", certificate_file.display()));
        let of_key = |why: String| ("tls_key", format!("tls_key {}: {why}", key_file.display()));
        let certificate = read(certificate_file).and_then(|pem| Ok((parse(&pem)?, pem))).map_err(of_certificate);
        let key = read(key_file).and_then(|pem| pem::check_key(&pem).map(|()| pem)).map_err(of_key);
        let ((server, intermediates), certificate_pem, key_pem) = match (certificate, key) {
            (Ok((chain, certificate_pem)), Ok(key_pem)) => (chain, certificate_pem, key_pem),
            (certificate, key) => return Err(certificate.err().into_iter().chain(key.err()).collect()),
        };
        if let Err(error) = TlsConfig::builder().pair(&certificate_pem, &key_pem) {
            return Err(vec![match error {
                TlsError::Key(_) => of_key(format!("the key cannot be used: expected {KEYS}")),
                TlsError::KeyMismatch => of_key(format!(
                    "the key does not fit the first certificate of tls_cert {}, of {server}",
                    certificate_file.display()
                )),
                TlsError::NoKey | TlsError::Pem(_) => of_key(error.to_string()),
                error => of_certificate(error.to_string()),
            }]);
        }
        Ok(Pair { certificate_file: certificate_file.to_owned(), certificate_pem, key_pem, server, intermediates })
    }

    /// Returns the file of the certificate.
    pub fn file(&self) -> &Path {
        &self.certificate_file
    }

    /// Returns the certificate of the server.
    pub fn server(&self) -> &Certificate {
        &self.server
    }

    /// Returns the time, in seconds since 1970, at which the first certificate of the chain expires.
    pub fn expires_at(&self) -> u64 {
        self.chain().map(|certificate| certificate.not_after).fold(u64::MAX, u64::min)
    }

    /// Returns whether another pair has the same certificates.
    pub fn has_same_certificates(&self, other: &Pair) -> bool {
        self.certificate_pem == other.certificate_pem
    }

    /// Returns whether another pair has the same key.
    pub fn has_same_key(&self, other: &Pair) -> bool {
        self.key_pem == other.key_pem
    }

    /// Returns the reason why clients refuse the chain at this time, if they do.
    pub fn fault_at(&self, now: u64) -> Option<FileFault> {
        let why = self.chain().find_map(|certificate| certificate.fault_at(now))?;
        Some(("tls_cert", format!("tls_cert {}: {why}", self.certificate_file.display())))
    }

    fn chain(&self) -> impl Iterator<Item = &Certificate> {
        [&self.server].into_iter().chain(&self.intermediates)
    }
}

/// Writes the file, the names and the end of the validity.
impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, expires_at) = (self.certificate_file.display(), UnixTime(self.expires_at()));
        write!(f, "tls_cert {file}: {}; expires at {expires_at}", self.server)
    }
}

impl ClientAuthorities {
    /// Reads a file of authorities.
    ///
    /// # Errors
    /// The fault of the file.
    pub fn read(file: &Path) -> Result<ClientAuthorities, FileFault> {
        let fault = |why: String| ("api_client_ca", format!("api_client_ca {}: {why}", file.display()));
        let pem = read(file).map_err(fault)?;
        let (first, others) = parse(&pem).map_err(fault)?;
        TlsConfig::builder().client_ca(&pem).map_err(|error| fault(error.to_string()))?;
        let authorities = [first].into_iter().chain(others).collect();
        Ok(ClientAuthorities { file: file.to_owned(), pem, authorities })
    }

    /// Returns warnings of authorities that are not valid at this time.
    pub fn warnings_at(&self, now: u64) -> impl Iterator<Item = String> {
        let faults = self.authorities.iter().filter_map(move |authority| authority.fault_at(now));
        faults.map(|why| format!("api_client_ca {}: {why}", self.file.display()))
    }
}

/// Writes a line for each authority, with the file, the subject and the end of the validity.
impl fmt::Display for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, authority) in self.authorities.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            let (file, expires_at) = (self.file.display(), UnixTime(authority.not_after));
            write!(f, "{line_end}api_client_ca {file}: {authority}; expires at {expires_at}")?;
        }
        Ok(())
    }
}

impl TlsFiles {
    /// Returns the settings of the listeners.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub fn configs(&self) -> Result<TlsConfigs, String> {
        if self.pairs.is_empty() {
            return Ok(TlsConfigs::default());
        }
        let failed = |error: TlsError| format!("cannot set up TLS: {error}");
        let builder = || {
            let start = TlsConfig::builder().version_min(self.version_min);
            let mut pairs = self.pairs.iter();
            pairs.try_fold(start, |builder: TlsBuilder, pair| builder.pair(&pair.certificate_pem, &pair.key_pem))
        };
        let api = builder().and_then(|builder| match &self.client_authorities {
            Some(authorities) => builder.client_ca(&authorities.pem),
            None => Ok(builder),
        });
        Ok(TlsConfigs {
            clients: Some(builder().and_then(TlsBuilder::build).map_err(failed)?),
            api: Some(api.and_then(TlsBuilder::build).map_err(failed)?),
        })
    }
}

impl TlsConfigs {
    /// Replaces the settings of the listeners. Connections that are accepted later use the new settings.
    pub fn replace(&self, by: &TlsConfigs) {
        for (own, other) in [(&self.clients, &by.clients), (&self.api, &by.api)] {
            if let (Some(own), Some(other)) = (own, other) {
                own.replace(other);
            }
        }
    }
}

/// Reads a file, without a byte order mark.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = files::read(path, FILE_BYTES_MAX)?;
    Ok(bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes))
}

/// Returns the first certificate of a file, and all further certificates.
fn parse(pem: &[u8]) -> Result<(Certificate, Vec<Certificate>), String> {
    let found = pem::certificates(pem)?;
    let count = found.len();
    let parse = |(index, der): (usize, &_)| {
        let of = |why| if count == 1 { why } else { format!("certificate {} of {count}: {why}", index + 1) };
        Certificate::parse(der).map_err(of)
    };
    let parsed: Result<Vec<Certificate>, String> = found.iter().map(|der| &**der).enumerate().map(parse).collect();
    let mut parsed = parsed?.into_iter();
    let first = parsed.next().ok_or_else(|| "no certificate in the file".to_owned())?;
    Ok((first, parsed.collect()))
}
