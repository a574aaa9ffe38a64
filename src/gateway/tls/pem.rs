//! Reads certificates and keys in PEM (RFC 7468). If a file is not PEM, the error names the format of the file.

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const BEGIN: &str = "-----BEGIN ";

/// The expected content of a file. Error texts give hints that depend on the expected content.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    Certificates,
    Key,
}

/// Returns the certificates of a file. The list has at least one certificate.
///
/// # Errors
/// The error states the reason, without the path.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let labels = labels(bytes, Kind::Certificates)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(invalid)?;
    if found.is_empty() {
        return Err(format!("no certificate in the file, only: {}", labels.join(", ")));
    }
    Ok(found)
}

/// Checks that a file has a private key without a passphrase.
///
/// # Errors
/// The error states the reason, without the path.
pub fn check_key(bytes: &[u8]) -> Result<(), String> {
    let labels = labels(bytes, Kind::Key)?;
    if labels.iter().any(|label| label == "ENCRYPTED PRIVATE KEY") || contains(bytes, "Proc-Type: 4,ENCRYPTED") {
        return Err("the key is encrypted: remove its passphrase, for example with `openssl pkey -in FILE`".to_owned());
    }
    if !["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"].iter().any(|form| labels.iter().any(|label| label == form))
    {
        return Err(format!("no private key in the file, only: {}", labels.join(", ")));
    }
    PrivateKeyDer::from_pem_slice(bytes).map(drop).map_err(invalid)
}

/// Returns whether a file has a private key, even an encrypted private key.
pub fn has_private_key(bytes: &[u8]) -> bool {
    section_labels(bytes).iter().any(|label| label.ends_with("PRIVATE KEY"))
}

/// Returns the error text for a fault that the PEM parser found. The error text of the PEM library shows lines of the
/// file as arrays of byte values.
fn invalid(error: pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let marker = String::from_utf8_lossy(&end_marker).escape_debug().to_string();
            format!("invalid PEM: the line -----END {marker}----- is missing")
        }
        pem::Error::IllegalSectionStart { .. } => "invalid PEM: a line -----BEGIN …----- is incomplete".to_owned(),
        error => format!("invalid PEM: {error}"),
    }
}

/// Returns the labels of the PEM sections of a file. The list has at least one label.
fn labels(bytes: &[u8], kind: Kind) -> Result<Vec<String>, String> {
    let tool = match kind {
        Kind::Certificates => "openssl x509 -inform der -in FILE",
        Kind::Key => "openssl pkey -inform der -in FILE",
    };
    if bytes.trim_ascii().is_empty() {
        return Err("the file is empty".to_owned());
    }
    let labels = section_labels(bytes);
    match bytes {
        _ if !labels.is_empty() => Ok(labels),
        // The pattern is the start of a SEQUENCE in DER whose first element is the version number 3. A file in PKCS#12
        // (RFC 7292) starts with such a SEQUENCE.
        [0x30, 0x82, _, _, 2, 1, 3, ..] => {
            Err("the file is PKCS#12, expected PEM: convert it with `openssl pkcs12 -nodes -in FILE`".to_owned())
        }
        // `length` is the length of a SEQUENCE in the long form or the short form. Keys of P-256 have the short form.
        [0x30, length, ..] if *length >= 0x80 || usize::from(*length) + 2 == bytes.len() => {
            Err(format!("the file is DER, expected PEM: convert it with `{tool}`"))
        }
        _ => Err(format!("the file is not PEM: it has no line {BEGIN}…-----")),
    }
}

fn section_labels(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().filter_map(|line| line.trim_end().strip_prefix(BEGIN)?.strip_suffix("-----"));
    lines.map(|label| label.escape_debug().to_string()).collect()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_format_of_the_file() {
        let section = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n";
        let (openssh, encrypted) = (section("OPENSSH PRIVATE KEY"), section("ENCRYPTED PRIVATE KEY"));
        let table: [(&[u8], &str, &str); 11] = [
            (b"", "the file is empty", "the file is empty"),
            (b" \r\n", "the file is empty", "the file is empty"),
            (&[0x30, 0x82, 1, 2, 0x30], "openssl x509 -inform der", "openssl pkey -inform der"),
            (&[0x30, 0x81, 1, 2], "the file is DER", "the file is DER"),
            (&[0x30, 0x82, 1, 2, 2, 1, 3], "PKCS#12", "PKCS#12"),
            (&[0x30, 3, 2, 1, 1], "the file is DER", "the file is DER"),
            (b"hello", "not PEM", "not PEM"),
            (b"0 hello", "not PEM", "not PEM"),
            (openssh.as_bytes(), "only: OPENSSH", "no private key in the file, only: OPENSSH"),
            (encrypted.as_bytes(), "no certificate in the file, only: ENCRYPTED PRIVATE KEY", "the key is encrypted"),
            (old.as_bytes(), "the line -----END RSA PRIVATE KEY----- is missing", "the key is encrypted"),
        ];
        for (bytes, certificates_hint, key_hint) in table {
            let found = (
                certificates(bytes).expect_err("the file is invalid"),
                check_key(bytes).expect_err("the file is invalid"),
            );
            assert!(found.0.contains(certificates_hint), "{certificates_hint}: {found:?}");
            assert!(found.1.contains(key_hint), "{key_hint}: {found:?}");
        }
        for (bytes, has_key) in [(&openssh, true), (&encrypted, true), (&section("PUBLIC KEY"), false)] {
            assert_eq!(has_private_key(bytes.as_bytes()), has_key, "{bytes}");
        }
        let both = section("CERTIFICATE") + &section("PRIVATE KEY");
        assert!(has_private_key(both.as_bytes()) && !has_private_key(section("CERTIFICATE").as_bytes()));
        assert_eq!(certificates(both.as_bytes()).map(|found| found.len()), Ok(1));
        assert_eq!(check_key(both.as_bytes()), Ok(()));
        assert!(certificates(b"-----BEGIN CERTIFICATE-----\nAA").is_err_and(|why| why.starts_with("invalid PEM")));
    }
}
