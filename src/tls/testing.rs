//! A provider of cryptography without randomness, and a client, for tests and fuzz targets.
//!
//! The records of equal calls have equal lengths, so that each run of a test has the same result. The result of the key
//! exchange is a constant, and the client accepts each certificate. So this code is not secure.

use std::cell::Cell;
use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::cipher::{
    AeadKey, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter, OutboundOpaqueMessage, OutboundPlainMessage,
    Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup, ring,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, DigitallySignedStruct, Error, NamedGroup,
    SignatureScheme, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite,
};

use crate::tls::config::TlsConfig;

/// A self-signed certificate for `localhost`, and its key. All Ed25519 signatures have the same length.
const PAIR: &[u8] = b"-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIM6XDhrQ9b1krkzTk9RAT7lpZ/okzYDux3B58pZBf9tl
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBVTCCAQegAwIBAgIUIBVPuYd4SpoXpfdBAxT4nk0x41owBQYDK2VwMBQxEjAQ
BgNVBAMMCWxvY2FsaG9zdDAgFw0yNjExMjcxOTI1NTNaGA8yMTI2MTEwMzE5MjU1
M1owFDESMBAGA1UEAwwJbG9jYWxob3N0MCowBQYDK2VwAyEARPn0um7IqHa9y0fG
4wUnDqFIbrIvb3nFYH4HmICqlJmjaTBnMB0GA1UdDgQWBBQdWy0WF+wNGBeM5Kcy
OKhJqRx/czAfBgNVHSMEGDAWgBQdWy0WF+wNGBeM5KcyOKhJqRx/czAPBgNVHRMB
Af8EBTADAQH/MBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAFBgMrZXADQQDS53vdnlih
6y/z8XVXK79oyezMdHxhyp3pkH3K8zP/gOiF1IYT+EekrYqRhVlbeXX4t78BvK6n
1dvZLJU8qiEB
-----END CERTIFICATE-----
";

/// The number of records that one key of a server with [`test_config`] may encrypt in TLS 1.2.
pub const TLS12_RECORDS_MAX: u64 = 64;

/// The content type of a handshake record (RFC 8446 section 5.1).
pub const HANDSHAKE: u8 = 22;

/// The kind of client hello that a [`TestClient`] sends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Hello {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
    /// TLS 1.3, with a key share of a group that the server does not have.
    Tls13Retried,
}

/// The client side of a session: converts plaintext to records, and records to plaintext.
#[derive(Debug)]
pub struct TestClient {
    connection: ClientConnection,
}

/// Returns the settings of a server for [`TestClient`].
pub fn test_config() -> TlsConfig {
    static CONFIG: LazyLock<TlsConfig> = LazyLock::new(|| {
        let builder = TlsConfig::builder().provider(provider(vec![&X25519], TLS12_RECORDS_MAX));
        builder.pair(PAIR, PAIR).expect("the pair is valid").build().expect("the settings are valid")
    });
    CONFIG.clone()
}

impl TestClient {
    /// Creates a client that has sent nothing yet.
    pub fn new(hello: Hello) -> TestClient {
        static CONFIGS: LazyLock<[Arc<ClientConfig>; 3]> =
            LazyLock::new(|| [Hello::Tls12, Hello::Tls13, Hello::Tls13Retried].map(|hello| Arc::new(client(hello))));
        let name = ServerName::try_from("localhost").expect("the name is valid");
        let mut connection =
            ClientConnection::new(Arc::clone(&CONFIGS[hello as usize]), name).expect("the settings are valid");
        connection.set_buffer_limit(None);
        TestClient { connection }
    }

    /// Handles received records, and returns their plaintext.
    ///
    /// # Errors
    /// Returns an error if the server violated a rule of TLS, or sent an alert.
    pub fn receive(&mut self, mut records: &[u8]) -> Result<Vec<u8>, String> {
        let mut plaintext = Vec::new();
        while !records.is_empty() {
            let read = self.connection.read_tls(&mut records).map_err(|error| error.to_string())?;
            self.connection.process_new_packets().map_err(|error| error.to_string())?;
            // The error is ignored, because a read without available plaintext fails.
            let _ = self.connection.reader().read_to_end(&mut plaintext);
            if read == 0 {
                break;
            }
        }
        Ok(plaintext)
    }

    /// Encrypts plaintext. Before the end of the handshake, the plaintext is stored until the handshake is complete.
    /// After an error, the plaintext is dropped.
    pub fn write(&mut self, plaintext: &[u8]) {
        let _ = self.connection.writer().write_all(plaintext);
    }

    /// Encrypts one record with this content type, in an open session.
    pub fn write_as(&mut self, content_type: u8, bytes: &[u8]) {
        CONTENT_TYPE.set(Some(content_type.into()));
        self.write(bytes);
        CONTENT_TYPE.set(None);
    }

    /// Sends the alert `close_notify`, which ends the client's stream.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Changes the client's keys, and asks the server to change its keys. TLS 1.2 has no key update.
    pub fn update_keys(&mut self) {
        // The error is ignored, because the call fails before the end of the handshake and in TLS 1.2.
        let _ = self.connection.refresh_traffic_keys();
    }

    /// Removes and returns the records to send.
    pub fn take_records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut records).expect("a write to a vector cannot fail");
        }
        records
    }

    /// Returns whether the handshake is still in progress.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Returns whether the server sent `close_notify`.
    pub fn is_closed(&mut self) -> bool {
        self.connection.process_new_packets().is_ok_and(|state| state.peer_has_closed())
    }
}

fn client(hello: Hello) -> ClientConfig {
    let version = if hello == Hello::Tls12 { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
    let groups: Vec<&'static dyn SupportedKxGroup> =
        if hello == Hello::Tls13Retried { vec![&X448, &X25519] } else { vec![&X25519] };
    let mut config = ClientConfig::builder_with_provider(provider(groups, u64::MAX))
        .with_protocol_versions(&[version])
        .expect("the versions are valid")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config
}

fn provider(kx_groups: Vec<&'static dyn SupportedKxGroup>, tls12_records_max: u64) -> Arc<CryptoProvider> {
    let ring = ring::default_provider();
    let suites = ring.cipher_suites.iter().filter_map(|suite| changed_suite(*suite, tls12_records_max));
    let cipher_suites = suites.collect();
    Arc::new(CryptoProvider { cipher_suites, kx_groups, secure_random: &NoRandomness, ..ring })
}

/// Returns a suite of AES-128-GCM with a changed algorithm and record limit, or `None` for any other suite.
///
/// The changed suite is never freed. A process creates few suites.
fn changed_suite(suite: SupportedCipherSuite, tls12_records_max: u64) -> Option<SupportedCipherSuite> {
    match suite {
        SupportedCipherSuite::Tls13(suite) if suite.common.suite == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => {
            let aead_alg: &Aead = Box::leak(Box::new(Aead(suite.aead_alg)));
            let suite = Tls13CipherSuite { common: common(&suite.common, u64::MAX), aead_alg, quic: None, ..*suite };
            Some(SupportedCipherSuite::Tls13(Box::leak(Box::new(suite))))
        }
        SupportedCipherSuite::Tls12(suite)
            if suite.common.suite == rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 =>
        {
            let aead_alg: &Aead12 = Box::leak(Box::new(Aead12(suite.aead_alg)));
            let suite = Tls12CipherSuite { common: common(&suite.common, tls12_records_max), aead_alg, ..*suite };
            Some(SupportedCipherSuite::Tls12(Box::leak(Box::new(suite))))
        }
        _ => None,
    }
}

fn common(common: &rustls::CipherSuiteCommon, confidentiality_limit: u64) -> rustls::CipherSuiteCommon {
    rustls::CipherSuiteCommon { suite: common.suite, hash_provider: common.hash_provider, confidentiality_limit }
}

/// A source of random bytes that returns the same bytes in each call.
#[derive(Debug)]
struct NoRandomness;

impl SecureRandom for NoRandomness {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        buffer.fill(0x42);
        Ok(())
    }
}

static X25519: FixedGroup = FixedGroup(NamedGroup::X25519);
static X448: FixedGroup = FixedGroup(NamedGroup::X448);

/// A key exchange whose result is a constant.
#[derive(Debug)]
struct FixedGroup(NamedGroup);

impl SupportedKxGroup for FixedGroup {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(FixedExchange(self.0)))
    }

    fn name(&self) -> NamedGroup {
        self.0
    }
}

struct FixedExchange(NamedGroup);

impl ActiveKeyExchange for FixedExchange {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&[7; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[9; 32]
    }

    fn group(&self) -> NamedGroup {
        self.0
    }
}

thread_local! {
    /// The content type of the records that this thread encrypts. With `None`, each record keeps its own content type.
    static CONTENT_TYPE: Cell<Option<ContentType>> = const { Cell::new(None) };
}

/// An encryption algorithm that encrypts records with the content type in `CONTENT_TYPE`.
struct Aead(&'static dyn Tls13AeadAlgorithm);

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Encrypter(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

/// The same as [`Aead`], for TLS 1.2.
struct Aead12(&'static dyn Tls12AeadAlgorithm);

impl Tls12AeadAlgorithm for Aead12 {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(Encrypter(self.0.encrypter(key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv, explicit)
    }
}

struct Encrypter(Box<dyn MessageEncrypter>);

impl MessageEncrypter for Encrypter {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        let typ = CONTENT_TYPE.get().unwrap_or(message.typ);
        self.0.encrypt(OutboundPlainMessage { typ, ..message }, seq)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}

/// A verifier that accepts each certificate and each signature.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
