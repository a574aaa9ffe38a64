//! Tests `fdpush cert`: the certificate, its files, and their use by the server and by clients.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::files::{Files, is_trusted, tls_address};
use crate::common::command::{CommandOutput, call, command};
use crate::common::gateway::Gateway;
use crate::common::tls::client_config_trusting;

fn cert(files: &Files, flags: &[&str]) -> CommandOutput {
    call(&[&["cert", "--out", &files.path("")], flags].concat(), &[])
}

#[test]
fn the_pair_is_served_and_accepted_by_clients_that_trust_it() {
    let files = Files::new();
    let names = "localhost,127.0.0.1,::1,*.chat.example,chat.example";
    let printed = cert(&files, &["--for", names]);
    assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""), "{printed:?}");
    let (certificate, key) = (files.path("localhost+4.pem"), files.path("localhost+4-key.pem"));
    for text in [&*names.replace(',', ", "), "valid for 365 days", &certificate, &key, "fdpush serve --listen tls:"] {
        assert!(printed.out.contains(text), "expected {text:?} in {}", printed.out);
    }
    let mode = |path: &str| fs::metadata(path).expect("the file exists").permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&certificate)), (0o600, 0o644));

    // The printed command has valid flags, and the server uses the certificate.
    let line =
        printed.out.lines().find_map(|line| line.strip_prefix("fdpush serve ")).expect("the output has a command");
    let flags: Vec<&str> = line.split(' ').collect();
    let checked = call(&[&["check"], &flags[..]].concat(), &[]);
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""), "{checked:?}");
    assert!(
        checked.out.contains("localhost, 127.0.0.1, ::1, *.chat.example, chat.example; expires at "),
        "{checked:?}"
    );
    let gateway = Gateway::start(&["--listen", "tls:127.0.0.1:0", "--tls-cert", &certificate, "--tls-key", &key]);
    let config = client_config_trusting(&fs::read_to_string(&certificate).expect("the file can be read"));
    for name in ["localhost", "127.0.0.1", "::1", "a.chat.example", "chat.example"] {
        assert!(is_trusted(tls_address(&gateway), config.clone(), name), "{name}");
    }
    assert!(!is_trusted(tls_address(&gateway), config, "other.example"));
}

#[test]
fn files_are_overwritten_only_with_force() {
    let files = Files::new();
    let (certificate, key) = (files.path("localhost.pem"), files.path("localhost-key.pem"));
    assert_eq!(cert(&files, &["--for", "localhost"]).code, Some(0));
    let read =
        || (fs::read(&certificate).expect("the file can be read"), fs::read(&key).expect("the file can be read"));
    let first = read();
    let refused = |path: &str| {
        let printed = cert(&files, &["--for", "localhost"]);
        assert_eq!((printed.code, printed.out.as_str()), (Some(1), ""), "{printed:?}");
        assert_eq!(printed.err, format!("fdpush: {path} exists: give --force to overwrite it\n"));
    };
    refused(&certificate);
    assert_eq!(read(), first);
    // If only the key file or only the certificate file exists, the command does not create the other file.
    fs::remove_file(&certificate).expect("the file can be removed");
    refused(&key);
    assert!(!fs::exists(&certificate).expect("the directory can be read"));
    fs::write(&certificate, &first.0).expect("the file can be written");
    fs::remove_file(&key).expect("the file can be removed");
    refused(&certificate);
    assert!(!fs::exists(&key).expect("the directory can be read"));

    // With --force, the new key file gets the mode 600, even if everyone could read the old file.
    fs::write(&key, "old").expect("the file can be written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("the mode can be changed");
    assert_eq!(cert(&files, &["--for", "localhost", "--force"]).code, Some(0));
    assert_eq!(fs::metadata(&key).expect("the file exists").permissions().mode() & 0o777, 0o600);
    assert!(read().0 != first.0 && read().1.starts_with(b"-----BEGIN PRIVATE KEY-----"));
    // With --force, the command replaces a symbolic link, and does not write to the target of the link.
    let target = files.write("target", "kept");
    fs::remove_file(&key).expect("the file can be removed");
    symlink(&target, &key).expect("the link can be created");
    refused(&certificate);
    assert_eq!(cert(&files, &["--for", "localhost", "--force"]).code, Some(0));
    assert_eq!(fs::read_to_string(&target).expect("the file can be read"), "kept");
    let left: Vec<_> = fs::read_dir(files.path("")).expect("the directory can be read").collect();
    assert_eq!(left.len(), 3, "no temporary file may be left: {left:?}");
}

#[test]
fn names_and_paths_can_be_chosen_and_errors_name_them() {
    let files = Files::new();
    let chosen =
        ["--cert-file", "c.pem", "--key-file", "k.pem", "--days", "1", "--for", "a.example", "--for", "A.example"];
    let printed = cert(&files, &chosen);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.out.contains("certificate for a.example, valid for 1 days"), "{printed:?}");
    assert!(fs::exists(files.path("k.pem")).expect("the directory can be read"));
    for (flags, code, hint) in [
        (&["--for", "localhost:9443"][..], 2, "'localhost:9443' for '--for <NAME>': expected a DNS name"),
        (&["--for", "localhost,"], 2, "expected a DNS name"),
        (&["--for", "*.example"], 2, "before two labels or more"),
        (&["--for", "https://localhost"], 2, "without the rest of a URL"),
        (&[], 2, "--for <NAME>"),
        (&["--for", "localhost", "--days", "0"], 2, "--days"),
        (&["--for", "localhost", "--cert-file", "x", "--key-file", "x"], 1, "cannot be both"),
        (&["--for", "localhost", "--key-file", "none/k.pem"], 1, "none/k.pem: No such file or directory"),
        (&["--for", "localhost", "--cert-file", "none/c.pem"], 1, "none/c.pem: No such file or directory"),
    ] {
        let printed = cert(&files, flags);
        assert_eq!(printed.code, Some(code), "{flags:?} {printed:?}");
        assert!(printed.err.contains(hint), "{flags:?}: expected {hint:?} in {}", printed.err);
    }
    assert!(
        !fs::exists(files.path("localhost-key.pem")).expect("the directory can be read"),
        "no key may be left if its certificate cannot be written"
    );
    // Without --out, the command writes the files to the working directory.
    let mut here: Command = command(&["cert", "--for", "::1"], &[]);
    let output = here.current_dir(files.path("")).output().expect("the binary can run");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("--tls-cert __1.pem --tls-key __1-key.pem\n"),
        "{output:?}"
    );
    assert!(fs::exists(files.path("__1.pem")).expect("the directory can be read"));
}
