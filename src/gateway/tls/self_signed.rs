//! Creates self-signed certificates for tests of TLS.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};

use super::names::ServerName;

/// The validity period of a certificate starts this time before the creation of the certificate. So a client accepts a
/// new certificate even if the clock of the client is slow by less than this time.
const EARLY: Duration = Duration::from_secs(60 * 60);

/// The maximum length of a common name in bytes (RFC 5280 appendix A.1).
const COMMON_NAME_BYTES_MAX: usize = 64;

/// The paths of the files of a certificate and its private key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutputFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A self-signed certificate and its private key, in PEM.
pub struct SelfSigned {
    certificate: String,
    key: String,
}

impl OutputFiles {
    /// Returns the paths of the files in a directory. The files are named as by mkcert.
    ///
    /// A certificate for `localhost` and one more name has the files `localhost+1.pem` and `localhost+1-key.pem`.
    pub fn in_directory(directory: &Path, names: &[ServerName]) -> OutputFiles {
        let first = names.first().map(ServerName::to_string).unwrap_or_default();
        let mut stem = first.replace(':', "_").replace('*', "_wildcard");
        if names.len() > 1 {
            stem.push_str(&format!("+{}", names.len() - 1));
        }
        OutputFiles {
            certificate: directory.join(format!("{stem}.pem")),
            key: directory.join(format!("{stem}-key.pem")),
        }
    }

    /// Writes a certificate and its private key. Only the owner of the key file can read the key.
    ///
    /// # Errors
    /// Returns an error if a file exists already and `overwrites` is `false`, or if a file cannot be written.
    pub fn write(&self, pair: &SelfSigned, overwrites: bool) -> Result<(), String> {
        let (certificate, key) = (&self.certificate, &self.key);
        if certificate == key {
            return Err(format!("{} cannot be both the certificate file and the key file", key.display()));
        }
        let cannot = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| match error.kind() {
                ErrorKind::AlreadyExists => exists(&path),
                _ => format!("cannot write {path}: {error}"),
            }
        };
        if overwrites {
            // Both new files are written before an old file is replaced. So a full disk leaves both old files
            // unchanged.
            let new_key = Replacement::new(key, &pair.key, 0o600).map_err(cannot(key))?;
            let new_certificate =
                Replacement::new(certificate, &pair.certificate, 0o644).map_err(cannot(certificate))?;
            new_key.commit().map_err(cannot(key))?;
            return new_certificate.commit().map_err(cannot(certificate));
        }
        if fs::symlink_metadata(certificate).is_ok() {
            return Err(exists(&certificate.display().to_string()));
        }
        create(key, &pair.key, 0o600).map_err(cannot(key))?;
        create(certificate, &pair.certificate, 0o644).map_err(|error| {
            // A key without its certificate is useless, so the key file is removed.
            let _ = fs::remove_file(key);
            cannot(certificate)(error)
        })
    }
}

impl SelfSigned {
    /// Creates a self-signed certificate for the given names, with a new key (ECDSA P-256).
    ///
    /// The certificate is valid for `days` days from the time `now`, which is in seconds since 1970.
    ///
    /// # Errors
    /// Returns an error if the key or the certificate cannot be created.
    pub fn new(names: &[ServerName], days: u32, now: u64) -> Result<SelfSigned, String> {
        let failed = |error: rcgen::Error| format!("cannot create a certificate: {error}");
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(alternative).collect::<Result<_, _>>().map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        let first = names.first().map(ServerName::to_string).filter(|name| name.len() <= COMMON_NAME_BYTES_MAX);
        params.distinguished_name.push(DnType::CommonName, first.unwrap_or_else(|| "fdpush".to_owned()));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
        params.not_before = (now - EARLY).max(date_time_ymd(1970, 1, 1));
        params.not_after = now + Duration::from_secs(u64::from(days) * 24 * 60 * 60);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(SelfSigned { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn alternative(name: &ServerName) -> Result<SanType, rcgen::Error> {
    Ok(match name {
        ServerName::Dns(name) => SanType::DnsName(Ia5String::try_from(name.as_str())?),
        ServerName::Ip(ip) => SanType::IpAddress(*ip),
    })
}

fn exists(path: &str) -> String {
    format!("{path} exists: give --force to overwrite it")
}

/// Creates a file with the given text. An existing file is an error.
fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes()).inspect_err(|_| _ = fs::remove_file(path))
}

/// A new file with a temporary name. [`Replacement::commit`] renames the file to `path`. Dropping a `Replacement`
/// without a commit removes the file.
struct Replacement<'a> {
    path: &'a Path,
    temporary: PathBuf,
}

impl Replacement<'_> {
    fn new<'a>(path: &'a Path, text: &str, mode: u32) -> io::Result<Replacement<'a>> {
        let mut name = path.file_name().ok_or(ErrorKind::IsADirectory)?.to_owned();
        if path.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        // The temporary name is random, because an earlier process may have left a temporary file.
        name.push(format!(".{:016x}.tmp", fastrand::u64(..)));
        let temporary = path.with_file_name(name);
        create(&temporary, text, mode)?;
        Ok(Replacement { path, temporary })
    }

    fn commit(self) -> io::Result<()> {
        fs::rename(&self.temporary, self.path)
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        // After a commit, no file has the temporary name, so this call removes nothing.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_those_of_mkcert() {
        for (names, stem) in [
            (&["localhost"][..], "localhost"),
            (&["localhost", "127.0.0.1"], "localhost+1"),
            (&["*.chat.example", "chat.example", "::1"], "_wildcard.chat.example+2"),
            (&["::1"], "__1"),
        ] {
            let names: Vec<ServerName> = names.iter().map(|name| name.parse().expect("the name is valid")).collect();
            let files = OutputFiles::in_directory(Path::new("d"), &names);
            let expected = (format!("d/{stem}.pem"), format!("d/{stem}-key.pem"));
            assert_eq!((files.certificate, files.key), (expected.0.into(), expected.1.into()));
        }
    }
}
