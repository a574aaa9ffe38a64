//! TLS for the tests: a certificate authority, certificates for servers, and clients that trust the authority.
//!
//! The tests of `tests/crate` run in two test binaries, `crate` and `tls`. In the test binary `tls` all servers of
//! [`serve`](super::serve) speak TLS, and so do all clients of these servers.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, Mutex};

use fdpush::{Address, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::DEADLINE;

/// Whether the servers of [`serve`](super::serve) speak TLS in this test binary.
pub const IS_TLS: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"tls" | b"hostile_tls");

/// The certificate authority of the tests.
pub static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

/// The addresses of servers that speak TLS.
static ADDRESSES: LazyLock<Mutex<HashSet<SocketAddr>>> = LazyLock::new(Mutex::default);

/// A certificate authority: a key that signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Authority {
        Authority::with(|_| {})
    }

    /// Works like [`new`](Authority::new), with changed parameters of the certificate.
    pub fn with(change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = CertificateParams::new([]).expect("the parameters are valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().expect("the key can be generated");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("the certificate is valid") }
    }

    /// Returns the certificate of the authority in PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// Returns a certificate for these names.
    pub fn sign(&self, names: &[&str]) -> Pair {
        self.sign_with(names, |_| {})
    }

    /// Works like [`sign`](Authority::sign), with changed parameters of the certificate.
    pub fn sign_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are valid");
        change(&mut params);
        let key = KeyPair::generate().expect("the key can be generated");
        let certificate = params.signed_by(&key, &self.issuer).expect("the certificate is valid");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Returns the settings of a client that trusts this authority.
    pub fn client_config(&self) -> ClientConfig {
        self.builder().with_no_client_auth()
    }

    /// Works like [`client_config`](Authority::client_config), with a certificate of the client.
    pub fn client_config_with(&self, pair: &Pair) -> ClientConfig {
        let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<_, _>>();
        let chain = chain.expect("the certificates are valid");
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("the key is valid");
        self.builder().with_client_auth_cert(chain, key).expect("the pair is valid")
    }

    /// Works like [`client_config`](Authority::client_config), with only these TLS versions.
    pub fn client_config_of(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        self.builder_of(versions).with_no_client_auth()
    }

    fn builder(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        self.builder_of(rustls::DEFAULT_VERSIONS)
    }

    fn builder_of(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        builder_trusting(&self.certificate(), versions)
    }
}

/// Returns the settings of a client that trusts a certificate in PEM.
pub fn client_config_trusting(certificate: &str) -> ClientConfig {
    builder_trusting(certificate, rustls::DEFAULT_VERSIONS).with_no_client_auth()
}

fn builder_trusting(
    certificate: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("the certificate is valid");
    roots.add(certificate).expect("the authority is valid");
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("the versions are supported")
        .with_root_certificates(roots)
}

impl Pair {
    /// Returns the settings of a server with this pair.
    pub fn config(&self) -> TlsConfig {
        let builder =
            TlsConfig::builder().pair(self.certificate.as_bytes(), self.key.as_bytes()).expect("the pair is valid");
        builder.build().expect("the settings are valid")
    }
}

/// The environment variable in which a test passes its certificate and key, in PEM, to a server in a child process.
pub const PAIR_VARIABLE: &str = "FDPUSH_TEST_PAIR";

/// Returns the pair of a server for `localhost`, `127.0.0.1` and `::1`.
pub fn server_pair() -> &'static Pair {
    static PAIR: LazyLock<Pair> = LazyLock::new(|| match std::env::var(PAIR_VARIABLE) {
        Ok(both) => Pair { certificate: both.clone(), key: both },
        Err(_) => AUTHORITY.sign(&["localhost", "127.0.0.1", "::1"]),
    });
    &PAIR
}

/// Returns the settings of a server with the pair of [`server_pair`].
pub fn server_config() -> TlsConfig {
    server_pair().config()
}

/// Adds an address to the addresses of servers that speak TLS.
pub fn register(address: SocketAddr) {
    ADDRESSES.lock().expect("no test panics while it holds the lock").insert(address);
}

/// Removes an address from the addresses of servers that speak TLS. An earlier server, which spoke TLS, may have used
/// the same port.
pub fn forget(address: &Address) {
    if let Address::Tcp(address) = address {
        ADDRESSES.lock().expect("no test panics while it holds the lock").remove(address);
    }
}

/// A stream to a server: TCP, or TLS if the server at the address speaks TLS.
pub enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// Connects to an address.
    pub fn connect(address: SocketAddr) -> Socket {
        Socket::over(TcpStream::connect(address).expect("the server listens"), address)
    }

    /// Works like [`connect`](Socket::connect), but does not make the TLS handshake. The first read or write completes
    /// the handshake, but a [`queue`](Socket::queue) does not.
    pub fn begin(address: SocketAddr) -> Socket {
        Socket::start(TcpStream::connect(address).expect("the server listens"), address)
    }

    /// Creates a stream over a connection. Starts TLS if the server at this address speaks TLS.
    pub fn over(stream: TcpStream, address: SocketAddr) -> Socket {
        let mut socket = Socket::start(stream, address);
        if let Socket::Tls(stream) = &mut socket {
            // If the server refused the connection, the first read returns the error.
            while stream.conn.is_handshaking() && stream.conn.complete_io(&mut stream.sock).is_ok() {}
        }
        socket
    }

    fn start(stream: TcpStream, address: SocketAddr) -> Socket {
        stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
        stream.set_write_timeout(Some(DEADLINE)).expect("the write timeout can be set");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        match ADDRESSES.lock().expect("no test panics while it holds the lock").contains(&address) {
            false => Socket::Plain(stream),
            true => Socket::secure(stream, AUTHORITY.client_config(), "localhost"),
        }
    }

    /// Sends bytes without waiting for the server. Before the handshake is complete, a TLS session sends only its
    /// hello, and sends these bytes after the handshake.
    pub fn queue(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Plain(stream) => stream.write_all(bytes),
            Socket::Tls(stream) => {
                let StreamOwned { conn, sock } = &mut **stream;
                conn.writer().write_all(bytes)?;
                while conn.wants_write() {
                    conn.write_tls(sock)?;
                }
                Ok(())
            }
        }
    }

    /// Connects to an address and begins a TLS session with a server of this name.
    pub fn connect_secure(address: SocketAddr, config: ClientConfig, name: &str) -> Socket {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
        stream.set_write_timeout(Some(DEADLINE)).expect("the write timeout can be set");
        Socket::secure(stream, config, name)
    }

    /// Begins a TLS session over a connection. The handshake is part of the first write or read.
    pub fn secure(stream: TcpStream, config: ClientConfig, name: &str) -> Socket {
        let name = ServerName::try_from(name.to_owned()).expect("the name is valid");
        let connection = ClientConnection::new(Arc::new(config), name).expect("the session can be created");
        Socket::Tls(Box::new(StreamOwned::new(connection, stream)))
    }

    /// Returns the TCP connection.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Socket::Plain(stream) => stream,
            Socket::Tls(stream) => &stream.sock,
        }
    }

    /// Returns a second handle of the connection. Returns `None` for TLS, because two handles cannot share a TLS
    /// session.
    pub fn another(&self) -> Option<Socket> {
        match self {
            Socket::Plain(stream) => Some(Socket::Plain(stream.try_clone().expect("the descriptor can be duplicated"))),
            Socket::Tls(_) => None,
        }
    }

    /// Shuts down the write side of the connection. A TLS session sends `close_notify` first.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        if let Socket::Tls(stream) = self {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.tcp().shutdown(Shutdown::Write)
    }

    /// Returns whether bytes can be read without waiting.
    pub fn has_more(&mut self) -> bool {
        self.tcp().set_nonblocking(true).expect("the socket can be non-blocking");
        let has_more = match self {
            Socket::Plain(stream) => stream.peek(&mut [0]).is_ok(),
            Socket::Tls(stream) => loop {
                let state = stream.conn.process_new_packets();
                if state.is_err() || state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0) {
                    break true;
                }
                match stream.conn.read_tls(&mut stream.sock) {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(error) => break error.kind() != ErrorKind::WouldBlock,
                }
            },
        };
        self.tcp().set_nonblocking(false).expect("the socket can block");
        has_more
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Socket::Plain(stream) => stream.read(buffer),
                Socket::Tls(stream) => read_session(stream, buffer),
            };
            // A read with a time limit ends early when the process gets a signal, for instance SIGCHLD after a test has
            // stopped its server.
            if !read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
                return read;
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(stream) => stream.write(bytes),
            Socket::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Plain(stream) => stream.flush(),
            Socket::Tls(stream) => stream.flush(),
        }
    }
}

/// Returns whether the error is the alert `internal_error`. A server over a limit refuses a connection with this alert.
pub fn is_refusal(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    error == Some(&rustls::Error::AlertReceived(AlertDescription::InternalError))
}

/// Reads from a TLS session. Before it waits for more bytes, it sends the pending records of the session.
///
/// An error of this send is ignored: if the server has closed the connection, the bytes that the server sent before can
/// still be read.
fn read_session(stream: &mut StreamOwned<ClientConnection, TcpStream>, buffer: &mut [u8]) -> io::Result<usize> {
    let StreamOwned { conn, sock } = stream;
    loop {
        let read = conn.reader().read(buffer);
        if read.is_err() {
            // An alert during the handshake is reported even if the end of the stream or a reset followed it.
            conn.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
        while conn.wants_write() && conn.write_tls(sock).is_ok() {}
        conn.read_tls(sock)?;
        conn.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    }
}
