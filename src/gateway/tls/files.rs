//! Reads the files of TLS: certificates, keys, and authorities for client certificates.
//!
//! All files are read and checked before any file is used. So a reload uses all new files or none.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use fdpush::{TlsBuilder, TlsConfig, TlsError, TlsVersion};

use super::certificate::{Certificate, UnixTime};
use super::pem;
use crate::gateway::runtime::files;

/// The kinds of private keys that the TLS library accepts. If the TLS library refuses a key, its error does not name
/// the kind of the key.
const KEYS: &str = "RSA of 2,048 to 4,096 bits, ECDSA P-256 or P-384, or Ed25519";

/// A certificate chain from a file of `tls_cert`.
#[derive(Clone, PartialEq)]
pub struct Chain {
    file: PathBuf,
    pem: Vec<u8>,
    /// The first certificate of the file, which is the certificate of the server.
    server: Certificate,
    /// The other certificates of the file. A client may need none, some or all of the other certificates.
    others: Vec<Certificate>,
}

/// A certificate after the certificate of the server in the file of a chain.
#[derive(Copy, Clone)]
pub struct OtherCertificate<'a> {
    chain: &'a Chain,
    /// The position of the certificate in the file. The certificate of the server has the position 1.
    pub number: usize,
    pub certificate: &'a Certificate,
}

/// A certificate chain and the private key of the chain.
#[derive(Clone, PartialEq)]
pub struct Pair {
    pub chain: Chain,
    key_pem: Vec<u8>,
}

/// The certificate authorities that issue the certificates of API clients.
#[derive(Clone, PartialEq)]
pub struct ClientAuthorities {
    file: PathBuf,
    pem: Vec<u8>,
    authorities: Vec<Certificate>,
}

/// The settings of TLS, with the content of all TLS files.
#[derive(Clone, PartialEq)]
pub struct TlsFiles {
    pub pairs: Vec<Pair>,
    /// The chains without a usable key. The faults of these chains are reported together with the faults of `pairs`.
    pub keyless: Vec<Chain>,
    pub client_authorities: Option<ClientAuthorities>,
    pub version_min: TlsVersion,
}

/// The settings of the TLS listeners. Both fields are `None` if the settings name no certificate.
#[derive(Clone, Debug, Default)]
pub struct TlsConfigs {
    pub clients: Option<TlsConfig>,
    pub api: Option<TlsConfig>,
}

impl Chain {
    /// Reads a certificate chain.
    ///
    /// # Errors
    /// The error states the fault of the file.
    pub fn read(file: &Path) -> Result<Chain, String> {
        let parsed = read(file).and_then(|pem| Ok((parse(&pem)?, pem)));
        let ((server, others), pem) = parsed.map_err(|why| format!("tls_cert {}: {why}", file.display()))?;
        Ok(Chain { file: file.to_owned(), pem, server, others })
    }

    /// Returns the path of the file that contains the chain.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the certificate of the server.
    pub fn server(&self) -> &Certificate {
        &self.server
    }

    /// Returns all certificates except the certificate of the server.
    pub fn others(&self) -> impl Iterator<Item = OtherCertificate<'_>> {
        self.others.iter().zip(2..).map(|(certificate, number)| OtherCertificate { chain: self, number, certificate })
    }

    /// Returns whether the file of another chain has the same content.
    pub fn has_same(&self, other: &Chain) -> bool {
        self.pem == other.pem
    }

    /// Returns whether the file has a private key, too.
    pub fn has_private_key(&self) -> bool {
        pem::has_private_key(&self.pem)
    }

    /// Returns the time when the first certificate of the chain expires, in seconds since 1970.
    pub fn expires_at(&self) -> u64 {
        self.others.iter().map(|certificate| certificate.not_after).fold(self.server.not_after, u64::min)
    }

    /// Returns the reason why clients refuse the certificate of the server at the time `now`, or `None`.
    pub fn fault_at(&self, now: u64) -> Option<String> {
        Some(format!("tls_cert {}: {}", self.file.display(), self.server.fault_at(now)?))
    }
}

impl OtherCertificate<'_> {
    /// Returns a warning, if the certificate is not valid at the time `now`.
    ///
    /// An invalid certificate causes a warning and not a fault. A client that knows another path to an authority does
    /// not need this certificate.
    pub fn warning_at(&self, now: u64) -> Option<String> {
        let (file, why) = (self.chain.file.display(), self.certificate.invalidity_at(now)?);
        let remedy = "renew this certificate in the file, or remove it from the file if no client needs it";
        Some(format!("tls_cert {file}: {self} {why}: {remedy}"))
    }
}

/// Writes the position in the file and the subject: `certificate 2 of 3 (CN=R3)`.
impl fmt::Display for OtherCertificate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.chain.others.len() + 1;
        write!(f, "certificate {} of {count} ({})", self.number, self.certificate.subject())
    }
}

impl Pair {
    /// Reads a private key, and checks that the key belongs to the first certificate.
    ///
    /// # Errors
    /// The error states the fault of the key file or of the certificate file.
    pub fn read(chain: &Chain, key_file: &Path) -> Result<Pair, String> {
        let key_pem = read_key(key_file)?;
        let Err(error) = TlsConfig::builder().pair(&chain.pem, &key_pem) else {
            return Ok(Pair { chain: chain.clone(), key_pem });
        };
        let of_key = |why: String| format!("tls_key {}: {why}", key_file.display());
        let certificate_file = chain.file.display();
        Err(match error {
            TlsError::Key(_) => of_key(format!("the key cannot be used: expected {KEYS}")),
            TlsError::KeyMismatch => of_key(format!(
                "the key does not belong to the first certificate of tls_cert {certificate_file} ({})",
                chain.server
            )),
            TlsError::NoKey | TlsError::Pem(_) => of_key(with_source(&error)),
            error => format!("tls_cert {certificate_file}: {}", with_source(&error)),
        })
    }

    /// Returns whether the chain of another pair has the same content.
    pub fn has_same_certificates(&self, other: &Pair) -> bool {
        self.chain.has_same(&other.chain)
    }

    /// Returns whether another pair has the same key.
    pub fn has_same_key(&self, other: &Pair) -> bool {
        self.key_pem == other.key_pem
    }
}

/// Writes the file, the names and the expiry of the server's certificate.
///
/// If another certificate of the chain expires earlier, the text ends with the subject and the expiry of that
/// certificate.
impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Chain { file, server, .. } = &self.chain;
        write!(f, "tls_cert {}: {server}; expires at {}", file.display(), UnixTime(server.not_after))?;
        match self.chain.others().min_by_key(|other| other.certificate.not_after) {
            Some(first) if first.certificate.not_after < server.not_after => {
                write!(f, "; {first} expires at {}", UnixTime(first.certificate.not_after))
            }
            _ => Ok(()),
        }
    }
}

impl ClientAuthorities {
    /// Reads a file of certificate authorities.
    ///
    /// # Errors
    /// The error states the fault of the file.
    pub fn read(file: &Path) -> Result<ClientAuthorities, String> {
        let fault = |why: String| format!("api_client_ca {}: {why}", file.display());
        let pem = read(file).map_err(fault)?;
        let (first, others) = parse(&pem).map_err(fault)?;
        TlsConfig::builder().client_ca(&pem).map_err(|error| fault(with_source(&error)))?;
        let authorities = [first].into_iter().chain(others).collect();
        Ok(ClientAuthorities { file: file.to_owned(), pem, authorities })
    }

    /// Returns the path of the file that contains the authorities.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the certificates of the authorities in the order of the file.
    pub fn certificates(&self) -> &[Certificate] {
        &self.authorities
    }

    /// Returns whether the file of other authorities has the same content.
    pub fn has_same(&self, other: &ClientAuthorities) -> bool {
        self.pem == other.pem
    }

    /// Returns whether the file has a private key, too.
    pub fn has_private_key(&self) -> bool {
        pem::has_private_key(&self.pem)
    }

    /// Returns the faults of authorities whose certificate is not valid at the time `now`.
    ///
    /// The TLS library checks the validity period of client certificates, and not the validity period of authorities.
    pub fn faults_at(&self, now: u64) -> impl Iterator<Item = String> {
        let faults = self.authorities.iter().filter_map(move |authority| authority.fault_at(now));
        faults.map(|why| format!("api_client_ca {}: {why}", self.file.display()))
    }

    /// Returns warnings about certificates in the file that do not belong to an authority.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let others = self.authorities.iter().filter(|certificate| !certificate.is_authority);
        others.map(|other| {
            let file = self.file.display();
            format!("api_client_ca {file}: the certificate of {other} is not a certificate of an authority: CA:TRUE is missing")
        })
    }
}

/// Writes a line for each authority, with the file, the names and the expiry.
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
    /// Reads chains and keys. A chain belongs to the key with the same index.
    ///
    /// The faults of all files are added to `faults`. A chain without a key and a key without a chain are also checked.
    pub fn read_pairs(&mut self, certificates: &[PathBuf], keys: &[PathBuf], faults: &mut Vec<String>) {
        for index in 0..certificates.len().max(keys.len()) {
            let chain = certificates.get(index).map(|file| Chain::read(file));
            let chain = chain.and_then(|chain| chain.map_err(|why| faults.push(why)).ok());
            match (chain, keys.get(index)) {
                (Some(chain), Some(key)) => match Pair::read(&chain, key) {
                    Ok(pair) => self.pairs.push(pair),
                    Err(why) => {
                        self.keyless.push(chain);
                        faults.push(why);
                    }
                },
                (Some(chain), None) => self.keyless.push(chain),
                (None, Some(key)) => faults.extend(read_key(key).err()),
                (None, None) => {}
            }
        }
    }

    /// Returns the certificate files that also have a private key.
    pub fn files_with_keys(&self) -> impl Iterator<Item = &Path> {
        let chains = self.pairs.iter().map(|pair| &pair.chain).chain(&self.keyless);
        let chains = chains.filter(|chain| chain.has_private_key()).map(Chain::file);
        let authorities = self.client_authorities.iter().filter(|authorities| authorities.has_private_key());
        chains.chain(authorities.map(ClientAuthorities::file))
    }

    /// Returns the settings of the TLS listeners.
    ///
    /// # Errors
    /// Returns an error if the TLS library refuses the certificates or keys.
    pub fn configs(&self) -> Result<TlsConfigs, String> {
        if self.pairs.is_empty() {
            return Ok(TlsConfigs::default());
        }
        let failed = |error: TlsError| format!("cannot set up TLS: {}", with_source(&error));
        let builder = || {
            let start = TlsConfig::builder().version_min(self.version_min);
            let mut pairs = self.pairs.iter();
            pairs.try_fold(start, |builder: TlsBuilder, pair| builder.pair(&pair.chain.pem, &pair.key_pem))
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
    /// Replaces the settings of the TLS listeners. Connections that the server accepts after the replacement use the
    /// new settings.
    pub fn replace(&self, by: &TlsConfigs) {
        for (own, other) in [(&self.clients, &by.clients), (&self.api, &by.api)] {
            if let (Some(own), Some(other)) = (own, other) {
                own.replace(other);
            }
        }
    }
}

/// Reads a key file. Checks that the file has a private key without a passphrase.
fn read_key(file: &Path) -> Result<Vec<u8>, String> {
    let checked = read(file).and_then(|pem| pem::check_key(&pem).map(|()| pem));
    checked.map_err(|why| format!("tls_key {}: {why}", file.display()))
}

/// Returns the text of an error, followed by the text of the error's source.
fn with_source(error: &TlsError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Reads a file, and removes a byte order mark at the start of the content.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = files::read(path, files::CERTIFICATE_BYTES_MAX)?;
    Ok(bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes))
}

/// Returns the first certificate of a file in PEM, and all further certificates.
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
