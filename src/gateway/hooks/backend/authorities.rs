//! Whose word is taken for who a back end is.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::gateway::runtime::files;

/// The largest file of certificates, in bytes. Mozilla's roots have 230,000.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Certificates, by one of which a back end's own has to be signed, in place of Mozilla's roots.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<Vec<Certificate<'static>>>);

impl Authorities {
    /// Reads a file of certificates in PEM, or says what is wrong with it.
    pub fn read(path: &Path) -> Result<Authorities, String> {
        let parsed = files::read(path, FILE_BYTES_MAX).and_then(|pem| Authorities::parse(&pem));
        parsed.map_err(|why| format!("webhook_ca_file {}: {why}", path.display()))
    }

    fn parse(pem: &[u8]) -> Result<Authorities, String> {
        let (mut certificates, mut store) = (Vec::new(), RootCertStore::empty());
        for item in parse_pem(pem) {
            match item.map_err(|why| why.to_string())? {
                PemItem::Certificate(certificate) => {
                    // Else it would be passed over in silence, and every back end be unknown.
                    let read = store.add(certificate.der().into());
                    read.map_err(|why| format!("certificate {}: {why}", certificates.len() + 1))?;
                    certificates.push(certificate);
                }
                PemItem::PrivateKey(_) => return Err("a private key: give certificates only".to_owned()),
                _ => {}
            }
        }
        if certificates.is_empty() {
            return Err("there is no certificate in it: expected PEM".to_owned());
        }
        Ok(Authorities(Arc::new(certificates)))
    }
}

impl From<Authorities> for RootCerts {
    fn from(authorities: Authorities) -> RootCerts {
        RootCerts::Specific(authorities.0)
    }
}
