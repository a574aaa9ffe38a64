//! The certificate authorities that this server trusts when it connects to back ends (`webhook_ca_file`).

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::gateway::runtime::files;

/// Certificate authorities that replace Mozilla's root certificates.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<Vec<Certificate<'static>>>);

impl Authorities {
    /// Reads a PEM file of certificates.
    pub fn read(path: &Path) -> Result<Authorities, String> {
        let parsed = files::read(path, files::CERTIFICATE_BYTES_MAX).and_then(|pem| Authorities::parse(&pem));
        parsed.map_err(|why| format!("webhook_ca_file {}: {why}", path.display()))
    }

    fn parse(pem: &[u8]) -> Result<Authorities, String> {
        let (mut certificates, mut store) = (Vec::new(), RootCertStore::empty());
        for item in parse_pem(pem) {
            match item.map_err(|why| why.to_string())? {
                PemItem::Certificate(certificate) => {
                    // Without this check, the HTTP client would skip an unusable certificate without an error, and
                    // would later refuse the certificates of back ends.
                    let read = store.add(certificate.der().into());
                    read.map_err(|why| format!("certificate {}: {why}", certificates.len() + 1))?;
                    certificates.push(certificate);
                }
                PemItem::PrivateKey(_) => return Err("found a private key: give certificates only".to_owned()),
                _ => {}
            }
        }
        if certificates.is_empty() {
            return Err("no certificate in the file: expected PEM".to_owned());
        }
        Ok(Authorities(Arc::new(certificates)))
    }
}

impl From<Authorities> for RootCerts {
    fn from(authorities: Authorities) -> RootCerts {
        RootCerts::Specific(authorities.0)
    }
}
