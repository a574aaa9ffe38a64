//! Certificate files that the authority of the tests signed, and connections to a server with these files.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, date_time_ymd};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::common::command::make_private;
use crate::common::gateway::Gateway;
use crate::common::tls::{AUTHORITY, Authority, Pair, Socket};
use crate::common::{Client, Raw, Scratch};

pub const DAY: u64 = 24 * 60 * 60;

/// A directory of certificates and keys.
pub struct Files(Scratch);

/// The paths of a certificate and its key.
#[derive(Clone)]
pub struct PairFiles {
    pub certificate: String,
    pub key: String,
}

impl Files {
    pub fn new() -> Files {
        Files(Scratch::new("certificates"))
    }

    /// Writes a file that only its owner can read. Returns the path of the file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.file(name);
        fs::write(&path, content).expect("the file can be written");
        make_private(&path);
        path.to_str().expect("the path is UTF-8").to_owned()
    }

    /// Writes a certificate and its key.
    pub fn put(&self, name: &str, pair: &Pair) -> PairFiles {
        PairFiles {
            certificate: self.write(&format!("{name}.pem"), &pair.certificate),
            key: self.write(&format!("{name}-key.pem"), &pair.key),
        }
    }

    /// Writes a certificate for these names, and its key.
    pub fn sign(&self, name: &str, names: &[&str]) -> PairFiles {
        self.put(name, &AUTHORITY.sign(names))
    }

    pub fn path(&self, name: &str) -> String {
        self.0.file(name).to_str().expect("the path is UTF-8").to_owned()
    }
}

impl PairFiles {
    pub fn flags(&self) -> [&str; 4] {
        ["--tls-cert", &self.certificate, "--tls-key", &self.key]
    }
}

/// Returns a certificate that is valid between these times, and its key. The times are in seconds from now.
pub fn valid(from: i64, to: i64) -> Pair {
    AUTHORITY.sign_with(&["localhost", "127.0.0.1"], validity(from, to))
}

/// Returns an authority of this name that is valid between these times, in seconds from now.
pub fn authority(name: &str, from: i64, to: i64) -> Authority {
    Authority::with(|params| {
        validity(from, to)(params);
        params.distinguished_name.push(DnType::CommonName, name);
    })
}

/// Sets the times from and until which a certificate is valid, in seconds from now.
pub fn validity(from: i64, to: i64) -> impl FnOnce(&mut CertificateParams) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_secs();
    let at = move |offset| date_time_ymd(1970, 1, 1) + Duration::from_secs(now.saturating_add_signed(offset));
    move |params| (params.not_before, params.not_after) = (at(from), at(to))
}

/// Returns the second address that the log announces. This is the first `tls:` address, unless a listener expects a
/// PROXY header.
pub fn tls_address(gateway: &Gateway) -> SocketAddr {
    gateway.others[0].parse().expect("the address is valid")
}

/// Connects a client that trusts the authority of the tests.
pub fn connect(address: SocketAddr, target: &str) -> Client {
    Client::connect_tls(address, AUTHORITY.client_config(), target, &[]).expect("the server accepts the WebSocket")
}

/// Opens a TLS connection. The TLS handshake is part of the first write.
pub fn raw(address: SocketAddr, config: ClientConfig) -> Raw {
    Raw::over(Socket::connect_secure(address, config, "localhost"))
}

/// Returns whether a handshake with a server for this name succeeds.
pub fn is_trusted(address: SocketAddr, config: ClientConfig, name: &str) -> bool {
    certificate_of(address, config, name).is_some()
}

/// Returns the certificate that a server has for this name, if a client with these settings accepts it.
pub fn certificate_of(address: SocketAddr, config: ClientConfig, name: &str) -> Option<CertificateDer<'static>> {
    let mut socket = Socket::connect_secure(address, config, name);
    finish(&mut socket).ok()?;
    let Socket::Tls(stream) = &socket else { return None };
    Some(stream.conn.peer_certificates()?.first()?.clone().into_owned())
}

/// Connects, and sends the TLS hello of a client.
pub fn begin(address: SocketAddr) -> Socket {
    let mut socket = Socket::connect_secure(address, AUTHORITY.client_config(), "localhost");
    if let Socket::Tls(stream) = &mut socket {
        stream.conn.write_tls(&mut stream.sock).expect("the client can send its hello");
    }
    socket
}

/// Completes a handshake.
pub fn finish(socket: &mut Socket) -> io::Result<()> {
    if let Socket::Tls(stream) = socket {
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock)? == (0, 0) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
    Ok(())
}

/// Returns the certificate of a pair in DER.
pub fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("the certificate is valid")
}
