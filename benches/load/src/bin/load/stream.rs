//! The byte stream of a client: TCP, or TLS over TCP.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// The timeout of every blocking read and write of a client.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// The maximum number of plaintext bytes that one write encrypts.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// A connection to the server under test.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<Session>),
}

/// A TLS session and its socket.
#[derive(Debug)]
pub struct Session {
    socket: TcpStream,
    connection: ClientConnection,
}

impl Stream {
    /// Connects. With `is_tls`, this function also makes a TLS handshake.
    pub fn connect(address: SocketAddr, is_tls: bool) -> io::Result<Stream> {
        let socket = connect(address)?;
        if !is_tls {
            return Ok(Stream::Plain(socket));
        }
        static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| Arc::new(tls_config(false)));
        Ok(Stream::Tls(Box::new(Session::open(socket, &CONFIG)?)))
    }

    /// Makes the socket non-blocking.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.socket().set_nonblocking(true)
    }

    /// Returns whether a read that fills only a part of the buffer means that the socket is empty.
    pub fn is_drained_by_short_read(&self) -> bool {
        matches!(self, Stream::Plain(_))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(session) => &session.socket,
        }
    }
}

impl Session {
    /// Begins a TLS session over a socket, and completes its handshake.
    pub fn open(socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Session> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        // A full socket already limits the unsent bytes, so rustls needs no limit.
        connection.set_buffer_limit(None);
        let mut session = Session { socket, connection };
        session.complete(|connection| !connection.is_handshaking())?;
        Ok(session)
    }

    /// Waits for the first session ticket. The server sends this ticket when the server's side of the handshake is
    /// complete.
    pub fn await_ticket(&mut self) -> io::Result<()> {
        self.complete(|connection| connection.tls13_tickets_received() > 0)
    }

    /// Returns whether the handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Reads and writes, blocking, until `is_done` returns `true`.
    fn complete(&mut self, is_done: impl Fn(&ClientConnection) -> bool) -> io::Result<()> {
        loop {
            while self.connection.wants_write() {
                self.connection.write_tls(&mut self.socket)?;
            }
            if is_done(&self.connection) {
                return Ok(());
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.connection.read_tls(&mut self.socket)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let state = self.connection.process_new_packets();
        state.map(drop).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Writes TLS records that earlier writes encrypted. Returns `false` if the socket is full.
    fn send(&mut self) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(session) => loop {
                match session.connection.reader().read(buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => session.receive()?,
                    read => return read,
                }
            },
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(session) => {
                if !session.send()? {
                    return Err(ErrorKind::WouldBlock.into());
                }
                let count = session.connection.writer().write(&bytes[..bytes.len().min(WRITE_BYTES_MAX)])?;
                // The next `flush` sends the bytes that the full socket did not accept.
                session.send()?;
                Ok(count)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(session) => session.send().map(drop),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

/// Connects a socket. When the socket is dropped, the connection ends with a reset. Without the reset, tens of
/// thousands of ports would stay in TIME_WAIT.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    Ok(socket)
}

/// Returns the settings of the clients: TLS 1.3 with AES-128-GCM and X25519.
///
/// The clients do not verify certificates, so that a client can make more handshakes a second.
pub fn tls_config(resumes: bool) -> ClientConfig {
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 supports the cipher suite")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoVerifier))
        .with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    config
}

/// Accepts every certificate and signature.
#[derive(Debug)]
struct NoVerifier;

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
