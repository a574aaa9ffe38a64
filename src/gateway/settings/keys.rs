//! Reads API keys, token keys and certificates from their files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::cli::{Api, Jwt, Secret, Serve, bare};
use super::faults::Faults;
use crate::gateway::identity::api_keys::check;
use crate::gateway::identity::jwt::{self, KeyFile};
use crate::gateway::runtime::files;
use crate::gateway::tls::files::{ClientAuthorities, TlsFiles};

/// The maximum length of a file of API keys, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Returns the API keys of the flag or variable, and the API keys of the file.
///
/// `name` is the flag or variable that gives the API keys. Errors start with `name`.
pub fn api_keys(api: &Api, name: &str, warnings: &mut Vec<String>, faults: &mut Faults) -> Vec<Secret> {
    for why in api.api_key.iter().filter_map(|key| check(key.expose()).err()) {
        faults.mark_invalid("api_key", format!("{name}: {why}"));
    }
    let mut keys = api.api_key.clone();
    let Some(path) = &api.api_key_file else { return keys };
    let text = match files::read_text(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(why) => {
            faults.mark_invalid("api_key_file", format!("api_key_file {}: {why}", path.display()));
            return keys;
        }
    };
    warnings.extend(readable_by_all_warning(path));
    if keys_in_file(&text).any(|(_, key)| key.contains(',')) {
        warnings.push(format!("api_key_file {}: a key has a comma: give one key per line", path.display()));
    }
    let mut is_empty = true;
    for (line, key) in keys_in_file(&text) {
        is_empty = false;
        match check(key).map_err(str::to_owned).and_then(|()| key.parse()) {
            Ok(key) => keys.push(key),
            Err(why) => faults.mark_invalid("api_key_file", format!("api_key_file {}:{line}: {why}", path.display())),
        }
    }
    if is_empty {
        let why = "no key in the file: expected one key per line";
        faults.mark_invalid("api_key_file", format!("api_key_file {}: {why}", path.display()));
    }
    keys
}

/// Returns the API keys of a file with their line numbers, counted from 1.
fn keys_in_file(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| (number, bare(line)))
}

/// Reads and checks the key files of tokens, and checks the secrets of tokens.
///
/// `name` is the flag or variable that gives the token secrets. Errors about token secrets start with `name`.
pub fn jwt_keys(jwt: &Jwt, name: &str, warnings: &mut Vec<String>, faults: &mut Faults) -> Vec<KeyFile> {
    let mut read = Vec::new();
    for path in &jwt.jwt_key_file {
        match KeyFile::read(path) {
            Ok(file) => {
                // A public key is not secret, so a readable file with a public key causes no warning.
                if file.secret().is_some() {
                    warnings.extend(readable_by_all_warning(path));
                }
                read.push(file);
            }
            Err(why) => faults.mark_invalid("jwt_key_file", why),
        }
    }
    for secret in &jwt.jwt_secret {
        let secret = secret.expose().as_bytes();
        if let Err(why) = jwt::check_secret(secret) {
            faults.mark_invalid("jwt_secret", format!("{name}: {why}"));
        }
    }
    read
}

/// Reads the certificate files and key files of TLS.
///
/// The fault of a TLS file does not mark the setting as invalid. So this fault does not hide other faults of the
/// setting.
pub fn tls_files(serve: &Serve, warnings: &mut Vec<String>, faults: &mut Faults) -> TlsFiles {
    let tls = &serve.tls;
    let mut read =
        TlsFiles { pairs: Vec::new(), keyless: Vec::new(), client_authorities: None, version_min: tls.tls_min.into() };
    let mut found = Vec::new();
    read.read_pairs(&tls.tls_cert, &tls.tls_key, &mut found);
    for chain in read.pairs.iter().map(|pair| &pair.chain).filter(|chain| chain.server().names.is_empty()) {
        warnings.push(format!(
            "tls_cert {}: the certificate of {} has no DNS name and no address: clients refuse this certificate",
            chain.file().display(),
            chain.server()
        ));
    }
    match serve.api.api_client_ca.as_deref().map(ClientAuthorities::read) {
        Some(Ok(authorities)) => {
            warnings.extend(authorities.warnings());
            read.client_authorities = Some(authorities);
        }
        Some(Err(why)) => found.push(why),
        None => {}
    }
    found.into_iter().for_each(|why| faults.add(&[], why));
    let secret: BTreeSet<&Path> = tls.tls_key.iter().map(PathBuf::as_path).chain(read.files_with_keys()).collect();
    warnings.extend(secret.into_iter().filter_map(readable_by_all_warning));
    read
}

/// Returns a warning if all users of this machine can read a file with secrets.
pub fn readable_by_all_warning(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o004 != 0)
        .then(|| format!("{} holds secrets and can be read by everybody: run chmod o-r on the file", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_white_space_in_a_file_of_api_keys_are_ignored() {
        let text = "# the shop's\nshop-key\r\n\n   # the old one\n\tmail-key  \nwith#mark";
        assert_eq!(keys_in_file(text).collect::<Vec<_>>(), [(2, "shop-key"), (5, "mail-key"), (6, "with#mark")]);
        assert_eq!(keys_in_file("# none yet\n").next(), None);
    }
}
