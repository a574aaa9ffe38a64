//! Certificates, keys and settings of TLS listeners.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::tls::error::TlsError;
use crate::tls::info::TlsVersion;
use crate::tls::short_chains::ShortChains;

/// The certificates and settings of a TLS listener: see [`Server::listen_tls`](crate::Server::listen_tls).
///
/// A clone refers to the same settings. [`replace`](TlsConfig::replace) changes the settings for all connections that
/// are accepted later. `replace` can be called while a server runs, and from any thread.
///
/// The server supports TLS 1.2 and 1.3, with ALPN `http/1.1`. The server sends one session ticket per handshake, but
/// none if it requires client certificates. The keys that encrypt the tickets are only in memory, and change every six
/// hours. Early data (0-RTT) and renegotiation are not supported.
///
/// ```no_run
/// use fdpush::{Server, TlsConfig};
///
/// let (cert, key) = (std::fs::read("cert.pem")?, std::fs::read("key.pem")?);
/// let tls = TlsConfig::builder().pair(&cert, &key)?.build()?;
/// Server::bind("127.0.0.1:9501")?.listen_tls("127.0.0.1:9443", tls.clone())?.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TlsConfig(Arc<Mutex<Arc<ServerConfig>>>);

/// A builder of a [`TlsConfig`].
#[derive(Debug)]
pub struct TlsBuilder {
    provider: Arc<CryptoProvider>,
    pairs: Vec<Arc<CertifiedKey>>,
    version_min: TlsVersion,
    client_ca: Option<Arc<RootCertStore>>,
}

impl TlsConfig {
    /// Returns a builder without certificates.
    pub fn builder() -> TlsBuilder {
        TlsBuilder {
            provider: Arc::new(ring::default_provider()),
            pairs: Vec::new(),
            version_min: TlsVersion::Tls12,
            client_ca: None,
        }
    }

    /// Replaces the settings with the settings of another config.
    ///
    /// Connections that are accepted later use the new settings. Session tickets that the server sent before this call
    /// become invalid, so that the certificate of each client is checked with the new settings.
    pub fn replace(&self, other: &TlsConfig) {
        let other = other.current();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = other;
    }

    /// Returns the present settings, for a new connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        // The lock costs little time, because it is taken only once for each accepted connection.
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConfig")
    }
}

impl TlsBuilder {
    /// Sets the provider of cryptography. This call must precede the calls of `pair`.
    #[cfg(any(test, feature = "unstable"))]
    pub(super) fn provider(self, provider: Arc<CryptoProvider>) -> TlsBuilder {
        TlsBuilder { provider, ..self }
    }

    /// Adds a certificate chain and its private key, both in PEM.
    ///
    /// The chain begins with the certificate of the server. For a client, the server uses the first pair whose
    /// certificate is valid for the name that the client sends (SNI), or else the first pair.
    ///
    /// # Errors
    /// Returns an error if a PEM text, a certificate or the key is invalid, or if the key does not belong to the
    /// certificate.
    pub fn pair(mut self, certificates: &[u8], key: &[u8]) -> Result<TlsBuilder, TlsError> {
        let chain = chain(certificates)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey,
            error => TlsError::Pem(error.into()),
        })?;
        let pair = CertifiedKey::from_der(chain, key, &self.provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch,
            rustls::Error::InvalidCertificate(error) => TlsError::Certificate(format!("{error:?}").into()),
            error => TlsError::Key(error.into()),
        })?;
        for certificate in &pair.cert {
            ParsedCertificate::try_from(certificate).map_err(|error| TlsError::Certificate(error.into()))?;
        }
        self.pairs.push(Arc::new(pair));
        Ok(self)
    }

    /// Sets the lowest TLS version that the server accepts. The default is TLS 1.2.
    pub fn version_min(mut self, version: TlsVersion) -> TlsBuilder {
        self.version_min = version;
        self
    }

    /// Requires that each client has a certificate that one of these authorities has issued (certificates in PEM).
    ///
    /// At most three certificates may be between a client's certificate and the certificate of the authority. A server
    /// that requires client certificates sends no session tickets, so that each handshake verifies the certificate.
    ///
    /// # Errors
    /// Returns an error if the text is not PEM, or if a certificate in the text is invalid.
    pub fn client_ca(mut self, certificates: &[u8]) -> Result<TlsBuilder, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in chain(certificates)? {
            roots.add(certificate).map_err(|error| TlsError::Certificate(error.into()))?;
        }
        self.client_ca = Some(roots.into());
        Ok(self)
    }

    /// Builds the TLS settings.
    ///
    /// # Errors
    /// Returns [`TlsError::NoPair`] if [`pair`](TlsBuilder::pair) was not called, and [`TlsError::Settings`] if rustls
    /// refuses the settings.
    pub fn build(self) -> Result<TlsConfig, TlsError> {
        let TlsBuilder { provider, pairs, version_min, client_ca } = self;
        if pairs.is_empty() {
            return Err(TlsError::NoPair);
        }
        let settings = |error: rustls::Error| TlsError::Settings(error.into());
        let versions: &[&SupportedProtocolVersion] = match version_min {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(settings)?;
        let builder = match &client_ca {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider).build();
                let verifier = verifier.map_err(|error| TlsError::Settings(error.into()))?;
                builder.with_client_cert_verifier(Arc::new(ShortChains(verifier)))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Pairs(pairs)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // The state of a session is in its ticket, so the server stores no sessions.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A server that requires client certificates sends no tickets. A resumed session does not verify the client's
        // certificate again, so a ticket would stay usable after the certificate has expired.
        config.send_tls13_tickets = usize::from(client_ca.is_none());
        if client_ca.is_none() {
            config.ticketer = ring::Ticketer::new().map_err(settings)?;
            config.max_tls13_tickets = 1;
        }
        Ok(TlsConfig(Arc::new(Mutex::new(Arc::new(config)))))
    }
}

/// Parses the certificates of a PEM text.
fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| TlsError::Pem(error.into()))?;
    if chain.is_empty() { Err(TlsError::NoCertificate) } else { Ok(chain) }
}

/// The pairs of a certificate and its key. A client gets the first pair whose certificate is valid for the name that
/// the client sends (SNI), or else the first pair.
#[derive(Debug)]
struct Pairs(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Pairs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |pair: &&Arc<CertifiedKey>| {
            let (Some(name), Ok(certificate)) = (&name, pair.end_entity_cert()) else { return false };
            ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
        };
        // If there is only one pair, the certificate is not compared with the name.
        let selected = if self.0.len() > 1 { self.0.iter().find(fits) } else { None };
        selected.or(self.0.first()).cloned()
    }
}
