//! Reads the settings again on SIGHUP, with all files that the settings name.
//!
//! A setting that needs a restart keeps its old value. So the settings always have the values that are in effect.

use std::path::PathBuf;

use super::arguments::Arguments;
use super::declarations::declarations;
use super::file::{Entry, File};
use super::{Contents, Faults, Layers, Settings, Source};

/// The settings that can change while the server runs.
const RELOADABLE: &[&str] = &[
    "log",
    "jwt_secret",
    "jwt_key_file",
    "origin",
    "subprotocols",
    "client_may",
    "uid_connections_max",
    "address_connections_max",
    "address_ipv6_prefix",
    "trusted_proxy",
    "forwarded_header",
    "message_rate",
    "message_burst",
    "accept_rate",
    "tls_cert",
    "tls_key",
    "tls_min",
    "tls_handshake_rate",
    "api_key",
    "api_key_file",
    "api_client_ca",
    "message_bytes_max",
    "queue_bytes_max",
    "queue_total_bytes_max",
    "queue_bytes_min",
    "slow_reader",
    "compression",
    "compress_bytes_min",
    "inflated_bytes_per_second_max",
    "head_bytes_max",
    "headers_max",
    "head_time_max",
    "body_bytes_max",
    "body_time_max",
    "answer_time_max",
    "keep_alive_max",
    "message_time_max",
    "inbound_total_bytes_max",
    "forward_bytes_max",
    "close_wait_max",
    "write_time_max",
    "connection_groups_max",
    "memberships_max",
    "read_budget_bytes",
    "drain_for",
    "drain_time_max",
    "webhook_secret",
];

/// The result of a successful reload of the settings.
pub struct Reloaded {
    /// The settings that the server must apply.
    pub settings: Settings,
    /// The keys of the changed settings that take effect without a restart.
    pub changed: Vec<&'static str>,
    /// The keys of the changed settings that need a restart.
    pub restart: Vec<&'static str>,
    /// The paths of the files that the reload has read.
    pub files: Vec<PathBuf>,
    /// The changed keys of the file that a flag or variable overrides, with the name of the flag or variable, as in
    /// `api_key by FDPUSH_API_KEY`.
    pub overridden: Vec<String>,
}

/// Reads the settings again. The command line and the environment have not changed since the start of the process.
///
/// # Errors
/// The errors are those of [`Settings::load`]. After an error, no setting changes.
pub fn reload(old: &Settings) -> Result<Reloaded, Faults> {
    let wanted = Settings::load(old.layers.line.clone())?;
    let differs = |key: &&str| {
        old.layers.values(key) != wanted.layers.values(key)
            || *key == "api_key_file" && old.api_keys_from_file() != wanted.api_keys_from_file()
            || *key == "jwt_key_file" && old.jwt_keys() != wanted.jwt_keys()
            || wanted.has_other_tls_content(old, key)
    };
    let mut faults = Faults::default();
    // An expired certificate that is already in use does not prevent a reload of other settings.
    wanted.check_validity(Some(old), &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let keys = declarations().map(|arg| arg.get_id().as_str());
    let (changed, restart): (Vec<_>, Vec<_>) = keys.filter(differs).partition(|key| RELOADABLE.contains(key));
    let overridden = overridden(&old.layers, &wanted.layers);
    let files = wanted.files();
    if restart.is_empty() {
        return Ok(Reloaded { settings: wanted, changed, restart, files, overridden });
    }
    // The files that the settings name are not read a second time, because their content may have changed since the
    // checks.
    let (layers, contents) = mixed(old, wanted)?;
    match Settings::of_read(layers, contents, &mut faults) {
        Some(settings) if faults.is_empty() => Ok(Reloaded { settings, changed, restart, files, overridden }),
        _ => {
            let why = format!("a changed setting that needs a restart may cause this error: {}", restart.join(", "));
            faults.add(&[], why);
            Err(faults)
        }
    }
}

/// Returns the changed keys of the file that a flag or variable overrides.
fn overridden(old: &Layers, wanted: &Layers) -> Vec<String> {
    let values = |layers: &Layers, key: &str| layers.file.as_ref()?.entry(key).map(|entry| entry.values.clone());
    let keys = declarations().map(|arg| arg.get_id().as_str());
    let is_hidden = |key: &&str| {
        matches!(wanted.source(key), Source::Flag | Source::Environment) && values(old, key) != values(wanted, key)
    };
    keys.filter(is_hidden).map(|key| format!("{key} by {}", wanted.name(key))).collect()
}

/// Returns the new layers, but with the old values of settings that need a restart. Also returns the new content of all
/// files.
///
/// Every setting that names a file in [`Contents`] is reloadable. So the returned layers match the returned contents.
fn mixed(old: &Settings, wanted: Settings) -> Result<(Layers, Contents), String> {
    let Layers { line, above: matches, file, .. } = wanted.layers;
    let given = Arguments { line, without: Default::default(), matches };
    let entries = |file: &Option<File>, is_reloadable: bool| -> Vec<Entry> {
        let entries = file.iter().flat_map(|file| &file.entries);
        entries.filter(|entry| RELOADABLE.contains(&entry.key) == is_reloadable).cloned().collect()
    };
    let kept = entries(&old.layers.file, false);
    let entries = kept.into_iter().chain(entries(&file, true)).collect();
    let layers = Layers::stack(given, file.map(|file| File { path: file.path, entries }))?;
    Ok((layers, wanted.contents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::runtime::files;
    use crate::gateway::settings::declarations::declaration;
    use crate::gateway::tls::self_signed::{OutputFiles, SelfSigned};
    use std::fs;
    use std::path::PathBuf;

    /// A file that is removed at the end of the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(text: &str) -> Scratch {
            let path = files::unused_path();
            fs::write(&path, text).expect("the file can be written");
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn load(file: &Scratch, flags: &[&str]) -> Settings {
        let config = format!("--config={}", file.0.display());
        let line = ["fdpush", "serve", &config].into_iter().chain(flags.iter().copied());
        Settings::load(line.map(Into::into).collect()).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn every_reloadable_key_is_a_setting() {
        for key in RELOADABLE {
            assert!(declarations().any(|arg| arg.get_id() == key), "{key}");
        }
    }

    #[test]
    fn api_keys_token_keys_and_tls_settings_are_reloadable() {
        let of_contents = ["api_key", "api_key_file", "jwt_secret", "jwt_key_file"];
        let of_tls = ["tls_cert", "tls_key", "tls_min", "api_client_ca"];
        assert!(of_contents.iter().chain(&of_tls).all(|key| RELOADABLE.contains(key)));
    }

    #[test]
    fn the_example_file_marks_every_reloadable_key() {
        let mut marked = Vec::new();
        let mut is_marked = false;
        for line in include_str!("../../../packaging/fdpush.toml").lines() {
            match line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
                Some((key, _)) if declaration(key).is_some() => marked.extend(is_marked.then_some(key)),
                _ => is_marked = line.ends_with("(reload)"),
            }
        }
        let mut reloadable = RELOADABLE.to_vec();
        reloadable.sort_unstable();
        marked.sort_unstable();
        assert_eq!(marked, reloadable);
    }

    #[test]
    fn reloadable_settings_change_and_others_need_a_restart() {
        let file = Scratch::new("log = \"warn\"\ninbox_max = 10\nheaders_max = 32\n");
        let old = load(&file, &["--headers-max", "16"]);
        let text = "log = \"error\"\ninbox_max = 20\nheaders_max = 64\nnode = \"n\"\norigin = [\"*\"]\n";
        fs::write(&file.0, text).expect("the file can be written");
        let Reloaded { settings, changed, restart, overridden, files } =
            reload(&old).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((changed, restart), (vec!["log", "origin"], vec!["inbox_max", "node"]));
        assert_eq!(overridden, ["headers_max by --headers-max"]);
        assert_eq!(files, std::slice::from_ref(&file.0));
        assert_eq!(settings.serve.limits().inbox_max, 10, "the old value must stay in effect");
        assert_eq!(settings.serve.hooks.node, None);
        assert_eq!(settings.serve.limits().headers_max, 16, "a flag must override the file");
        assert_eq!(settings.serve.origins(), Ok(fdpush::Origins::Any));

        // A second reload reports the same settings again.
        let again = reload(&settings).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((again.changed, again.restart), (vec![], vec!["inbox_max", "node"]));
    }

    #[test]
    fn a_reload_reads_the_file_of_api_keys_again() {
        let keys = Scratch::new("# ours\nalpha\n");
        let file = Scratch::new(&format!("api_key_file = \"{}\"\n", keys.0.display()));
        let old = load(&file, &["--api-key", "flag"]);
        let exposed = |settings: &Settings| -> Vec<String> {
            settings.api_keys().iter().map(|key| key.expose().to_owned()).collect()
        };
        assert_eq!(exposed(&old), ["flag", "alpha"]);
        fs::write(&keys.0, "alpha\nbeta\n").expect("the file can be written");
        let new = reload(&old).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((new.changed, new.restart), (vec!["api_key_file"], vec![]));
        assert_eq!(exposed(&new.settings), ["flag", "alpha", "beta"]);
    }

    #[test]
    fn a_changed_api_key_does_not_count_as_a_change_of_api_key_file() {
        let keys = Scratch::new("alpha\n");
        let text = |key: &str| format!("api_key = [\"{key}\"]\napi_key_file = \"{}\"\n", keys.0.display());
        let file = Scratch::new(&text("one"));
        let old = load(&file, &[]);
        fs::write(&file.0, text("two")).expect("the file can be written");
        assert_eq!(reload(&old).unwrap_or_else(|why| panic!("{why}")).changed, ["api_key"]);
    }

    #[test]
    fn an_expired_certificate_in_use_does_not_prevent_a_reload() {
        let output = OutputFiles { certificate: files::unused_path(), key: files::unused_path() };
        let write = |expired_at: u64| {
            let pair = SelfSigned::new(&["localhost".parse().expect("the name is valid")], 1, expired_at - 86_400);
            output.write(&pair.expect("the certificate can be created"), true).expect("the files can be written");
        };
        write(1_500_000_000);
        let (certificate, key) = (output.certificate.display(), output.key.display());
        let text = format!("listen = [\"tls:127.0.0.1:0\"]\ntls_cert = [\"{certificate}\"]\ntls_key = [\"{key}\"]\n");
        let file = Scratch::new(&text);
        let old = load(&file, &[]);
        let mut faults = Faults::default();
        old.check(&mut faults);
        assert!(faults.to_string().contains("expired at 2017-07-14T02:40:00Z"), "{faults}");
        fs::write(&file.0, format!("{text}log = \"warn\"\n")).expect("the file can be written");
        assert_eq!(reload(&old).unwrap_or_else(|why| panic!("{why}")).changed, ["log"]);
        // A new certificate that has expired is refused.
        write(1_500_000_001);
        let why = reload(&old).err().expect("the reload fails").to_string();
        assert!(why.contains("expired at 2017-07-14T02:40:01Z"), "{why}");
        for path in [&output.certificate, &output.key] {
            fs::remove_file(path).expect("the file can be removed");
        }
    }

    #[test]
    fn a_reload_of_an_invalid_configuration_file_fails() {
        let file = Scratch::new("headers_max = 32\n");
        let old = load(&file, &[]);
        fs::write(&file.0, "headers_max = 0\n").expect("the file can be written");
        let why = reload(&old).err().expect("the reload fails").to_string();
        assert!(why.contains(":1: headers_max = 0: it must be from 1 to 256"), "{why}");
        fs::remove_file(&file.0).expect("the file can be removed");
        assert!(reload(&old).is_err());
    }
}
