//! Keys and secrets that lie in files of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::gateway::auth::api_keys::check;
use crate::gateway::auth::jwt::{self, KeyFile};
use crate::gateway::cli::{Api, Jwt, Secret};

/// The keys that were given, as `name` in a complaint, and those in the file.
pub fn api_keys(api: &Api, name: &str, warnings: &mut Vec<String>) -> Result<Vec<Secret>, String> {
    let mut keys = Vec::new();
    for key in &api.api_key {
        check(key.expose()).map_err(|why| format!("{name}: {why}"))?;
        keys.push(key.clone());
    }
    if let Some(path) = &api.api_key_file {
        let text = read("api_key_file", path)?;
        warnings.extend(exposure(path));
        let count = keys.len();
        for (line, key) in listed(&text) {
            let named = |why: &str| format!("api_key_file {}:{line}: {why}", path.display());
            check(key).map_err(named)?;
            keys.push(key.parse().map_err(|why: String| named(&why))?);
        }
        if keys.len() == count {
            return Err(format!("api_key_file {}: there is no key in it: expected one a line", path.display()));
        }
    }
    Ok(keys)
}

/// The keys of a file, with their lines, counted from 1.
fn listed(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The key files of tokens, read and judged; the secrets beside them are judged too.
pub fn jwt_keys(jwt: &Jwt, warnings: &mut Vec<String>) -> Result<Vec<KeyFile>, String> {
    let mut files = Vec::new();
    for path in &jwt.jwt_key_file {
        let file = KeyFile::read(path)?;
        // A public key is for everybody.
        if file.secret().is_some() {
            warnings.extend(exposure(path));
        }
        files.push(file);
    }
    for secret in &jwt.jwt_secret {
        let secret = secret.expose().as_bytes();
        jwt::check_secret(secret).map_err(|why| format!("jwt_secret: {why}"))?;
    }
    Ok(files)
}

/// A warning of a file with secrets that everybody on this machine can read.
pub fn exposure(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| format!("{} holds secrets and can be read by everybody: chmod o-r it", path.display()))
}

/// The text of a file that the setting `key` names.
fn read(key: &str, path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|why| format!("{key} {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_has_comments_and_white_space() {
        let text = "# the shop's\nshop-key\r\n\n   # the old one\n\tmail-key  \nwith#mark";
        assert_eq!(listed(text).collect::<Vec<_>>(), [(2, "shop-key"), (5, "mail-key"), (6, "with#mark")]);
        assert_eq!(listed("# none yet\n").next(), None);
    }
}
