//! Tests the errors about certificates, keys and TLS settings, in `fdpush check` and at the start of the server.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{DnType, PKCS_ED25519};

use super::files::{DAY, Files, authority, tls_address, valid, validity};
use crate::common::command::{CommandOutput, FREE_PORTS, call, make_private};
use crate::common::gateway::Gateway;
use crate::common::tls::{AUTHORITY, Authority, Pair};

const LISTEN: [&str; 2] = ["--listen", "tls:127.0.0.1:0"];
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";

fn check(flags: &[&str]) -> CommandOutput {
    call(&[&["check"], flags].concat(), &[])
}

/// Returns the errors of settings that `check` and `serve` refuse.
fn refused(flags: &[&str]) -> String {
    let printed = check(flags);
    assert_eq!((printed.code, printed.out.as_str()), (Some(1), ""), "{printed:?}");
    let served = call(&[&["serve", "--log", "off"], flags].concat(), &FREE_PORTS);
    assert_eq!((served.code, &served.err), (Some(1), &printed.err));
    printed.err
}

#[test]
fn check_prints_the_names_and_expiry_times_of_certificates() {
    let files = Files::new();
    let ca = files.write("ca.pem", Authority::new().certificate() + &AUTHORITY.certificate());
    let pair = files.put("one", &valid(-10, 100 * DAY as i64 + 60));
    let other = files.sign("two", &["*.chat.example", "::1"]);
    let flags = ["--api", "tls:127.0.0.1:0", "--api-client-ca", &ca];
    let printed = check(&[&LISTEN[..], &flags, &pair.flags(), &other.flags()].concat());
    assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""), "{printed:?}");
    let lines: Vec<&str> = printed.out.lines().collect();
    assert!(lines[0].starts_with(&format!("tls_cert {}: localhost, 127.0.0.1; expires at ", pair.certificate)));
    assert!(lines[1].starts_with(&format!("tls_cert {}: *.chat.example, ::1; expires at ", other.certificate)));
    for line in &lines[2..4] {
        assert!(line.starts_with(&format!("api_client_ca {ca}: CN=")), "{line}");
    }
    assert_eq!(lines[4..], ["ok"]);
    // The settings file and the environment can contain the same TLS settings as the flags.
    let config = files.write(
        "fdpush.toml",
        format!(
            "listen = [\"tls:127.0.0.1:0\"]\napi = [\"tls:127.0.0.1:0\"]\napi_client_ca = {ca:?}\ntls_cert = [{:?}, {:?}]\ntls_key = [{:?}, {:?}]\n",
            pair.certificate, other.certificate, pair.key, other.key
        ),
    );
    assert_eq!(check(&["--config", &config]).out, printed.out);
    let environment = [
        ("FDPUSH_LISTEN", LISTEN[1]),
        ("FDPUSH_API", "tls:127.0.0.1:0"),
        ("FDPUSH_API_CLIENT_CA", &ca),
        ("FDPUSH_TLS_CERT", &format!("{},{}", pair.certificate, other.certificate)),
        ("FDPUSH_TLS_KEY", &format!("{},{}", pair.key, other.key)),
        ("FDPUSH_TLS_MIN", "1.3"),
    ];
    assert_eq!(call(&["check"], &environment).out, printed.out);
}

#[test]
fn a_wrong_file_is_named_with_its_fault() {
    let files = Files::new();
    let good = files.sign("good", &["localhost"]);
    let of = |pair: &Pair| (pair.certificate.clone().into_bytes(), pair.key.clone().into_bytes());
    let Pair { certificate, key } = AUTHORITY.sign(&["localhost"]);
    let (certificate, key) = (certificate.into_bytes(), key.into_bytes());
    let der = super::files::der(&AUTHORITY.sign(&["localhost"])).to_vec();
    let garbled = String::from_utf8_lossy(&certificate).replacen("MI", "AA", 1).into_bytes();
    let table: [(Vec<u8>, Vec<u8>, &str); 14] = [
        (Vec::new(), key.clone(), "tls_cert CERT: the file is empty"),
        (b"hello\n".to_vec(), key.clone(), "tls_cert CERT: the file is not PEM"),
        (der.clone(), key.clone(), "tls_cert CERT: the file is DER, expected PEM"),
        (key.clone(), key.clone(), "tls_cert CERT: no certificate in the file, only: PRIVATE KEY"),
        (garbled, key.clone(), "tls_cert CERT: invalid certificate: "),
        (certificate.clone(), Vec::new(), "tls_key KEY: the file is empty"),
        (certificate.clone(), der, "tls_key KEY: the file is DER, expected PEM"),
        (certificate.clone(), certificate.clone(), "tls_key KEY: no private key in the file, only: CERTIFICATE"),
        (certificate.clone(), ENCRYPTED.into(), "tls_key KEY: the key is encrypted"),
        (
            certificate.clone(),
            ENCRYPTED.replace("ENCRYPTED ", "").into(),
            "tls_key KEY: the key cannot be used: expected RSA of ",
        ),
        (
            certificate.clone(),
            of(&AUTHORITY.sign(&["x"])).1,
            "tls_key KEY: the key does not belong to the first certificate",
        ),
        // The file contains the certificate of the authority before that of the server.
        ([AUTHORITY.certificate().into_bytes(), certificate].concat(), key, "tls_key KEY: the key does not belong to"),
        (of(&valid(-20, -10)).0, of(&AUTHORITY.sign(&["x"])).1, "tls_key KEY: the key does not belong to"),
        (b"-----BEGIN CERTIFICATE-----\nAA".to_vec(), b"x".to_vec(), "tls_key KEY: the file is not PEM"),
    ];
    let (certificate, key) = (files.path("cert.pem"), files.path("key.pem"));
    for (certificate_content, key_content, hint) in table {
        files.write("cert.pem", certificate_content);
        files.write("key.pem", key_content);
        let flags = [&LISTEN[..], &good.flags(), &["--tls-cert", &certificate, "--tls-key", &key]].concat();
        let printed = refused(&flags).replace(&certificate, "CERT").replace(&key, "KEY");
        assert!(printed.contains(hint), "expected {hint:?} in {printed}");
        assert!(!printed.contains(&good.certificate), "{printed}");
    }
    for (from, to, hint) in [(-20, -10, "expired at 20"), (100, 200, "is not valid before 20")] {
        let pair = files.put("time", &valid(from, to));
        let printed = refused(&[&LISTEN[..], &pair.flags()].concat());
        let start = format!("fdpush: tls_cert {}: the certificate of localhost, 127.0.0.1 ", pair.certificate);
        assert!(printed.starts_with(&start) && printed.contains(hint), "{printed}");
    }
    let missing = files.path("none.pem");
    let printed = refused(&[&LISTEN[..], &["--tls-cert", &missing, "--tls-key", &good.key]].concat());
    assert!(printed.contains(&format!("tls_cert {missing}: No such file")), "{printed}");
    let printed = refused(&[&LISTEN[..], &["--tls-cert", &good.certificate, "--tls-key", "/dev/null"]].concat());
    assert!(printed.contains("tls_key /dev/null: not a regular file"), "{printed}");
}

#[test]
fn the_faults_of_all_pairs_are_reported() {
    let files = Files::new();
    let expired = [1, 2, 3].map(|index| files.put(&format!("expired-{index}"), &valid(-20, -10)));
    let (missing, encrypted) = (files.path("none.pem"), files.write("encrypted.pem", ENCRYPTED));
    let (good, other) = (files.sign("good", &["localhost"]), files.sign("other", &["localhost"]));
    let pairs = [
        (&missing, &encrypted),
        (&expired[0].certificate, &missing),
        (&expired[1].certificate, &good.key),
        (&expired[2].certificate, &expired[2].key),
        (&good.certificate, &good.key),
        (&other.certificate, &encrypted),
    ];
    let mut flags = LISTEN.to_vec();
    flags.extend(pairs.iter().flat_map(|(certificate, key)| ["--tls-cert", *certificate, "--tls-key", *key]));
    let expired_at = |index: usize| {
        format!("tls_cert {}: the certificate of localhost, 127.0.0.1 expired at ", expired[index].certificate)
    };
    let faults = [
        format!("tls_cert {missing}: No such file"),
        format!("tls_key {encrypted}: the key is encrypted"),
        format!("tls_key {missing}: No such file"),
        format!(
            "tls_key {}: the key does not belong to the first certificate of tls_cert {}",
            good.key, expired[1].certificate
        ),
        expired_at(0),
        expired_at(1),
        expired_at(2),
    ];
    let printed = refused(&flags);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), faults.len(), "{printed}");
    for fault in &faults {
        assert_eq!(lines.iter().filter(|line| line.contains(fault)).count(), 1, "expected {fault:?} in {printed}");
    }
    // The server also reports the fault of a certificate without a key, and of a key without a certificate.
    let without_key = [&LISTEN[..], &good.flags(), &["--tls-cert", &expired[2].certificate]].concat();
    let printed = refused(&without_key);
    assert!(printed.contains("names 2 files, and --tls-key names 1") && printed.contains(&expired_at(2)), "{printed}");
    let without_certificate = [&LISTEN[..], &good.flags(), &["--tls-key", &encrypted]].concat();
    let printed = refused(&without_certificate);
    assert!(printed.contains("names 1 files, and --tls-key names 2") && printed.contains("is encrypted"), "{printed}");
}

#[test]
fn other_certificates_of_a_chain_may_have_expired() {
    let files = Files::new();
    let named = |name: &'static str, from: i64, to: i64| {
        AUTHORITY.sign_with(&[], |params| {
            validity(from, to)(params);
            params.distinguished_name.push(DnType::CommonName, name);
        })
    };
    let (old, early) = (named("old root", -20, -10), named("new root", 1000, 2000));
    let mut pair = AUTHORITY.sign(&["localhost"]);
    pair.certificate.push_str(&(old.certificate + &early.certificate));
    let pair = files.put("chain", &pair);
    let flags = [&LISTEN[..], &pair.flags()].concat();
    let warnings = [
        format!("tls_cert {}: certificate 2 of 3 (CN=old root) expired at ", pair.certificate),
        format!("tls_cert {}: certificate 3 of 3 (CN=new root) is not valid before ", pair.certificate),
    ];
    let printed = check(&flags);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let lines: Vec<&str> = printed.err.lines().collect();
    assert_eq!(lines.len(), 2, "{printed:?}");
    for (line, warning) in lines.iter().zip(&warnings) {
        assert!(line.starts_with(&format!("fdpush: warning: {warning}")), "{line}");
    }
    let ends = "localhost; expires at 4096-01-01T00:00:00Z; certificate 2 of 3 (CN=old root) expires at ";
    assert!(printed.out.starts_with(&format!("tls_cert {}: {ends}", pair.certificate)), "{printed:?}");

    let gateway = Gateway::start(&flags);
    let lines = gateway.logged_up_to(&warnings[1]);
    assert_eq!(lines.iter().filter(|line| line.contains(&warnings[0])).count(), 1, "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("ERROR")), "{lines:?}");
    super::files::connect(tls_address(&gateway), "/");
    // A reload repeats the warnings. The reload is refused only if a certificate of the server itself has expired.
    gateway.signal("-HUP");
    let lines = gateway.logged_up_to(&warnings[1]);
    assert!(lines.iter().any(|line| line.contains("nothing changed")), "{lines:?}");
    let mut expired = valid(-20, -10);
    expired.certificate.push_str(&AUTHORITY.certificate());
    files.put("chain", &expired);
    gateway.signal("-HUP");
    assert!(gateway.logged("settings not reloaded").contains("the certificate of localhost, 127.0.0.1 expired at "));
}

#[test]
fn an_authority_that_is_not_valid_now_is_refused() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let (old, early) = (authority("old", -20, -10).certificate(), authority("early", 1000, 2000).certificate());
    for (certificates, hints) in [
        (old.clone(), &["CN=old expired at 20"][..]),
        (early.clone(), &["CN=early is not valid before 20"]),
        (AUTHORITY.certificate() + &old, &["CN=old expired at 20"]),
        (old + &AUTHORITY.certificate() + &early, &["CN=old expired at 20", "CN=early is not valid before 20"]),
    ] {
        let ca = files.write("ca.pem", certificates);
        let printed = refused(&[&["--api", "tls:127.0.0.1:0", "--api-client-ca", &ca], &pair.flags()[..]].concat());
        assert_eq!(printed.lines().count(), hints.len(), "{printed}");
        for hint in hints {
            let fault = format!("api_client_ca {ca}: the certificate of {hint}");
            assert!(printed.contains(&fault), "expected {fault:?} in {printed}");
        }
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let ca = files.write("ca.pem", AUTHORITY.certificate());
    let no_ca = files.write("no-ca.pem", AUTHORITY.sign(&["x"]).key);
    let flags = pair.flags();
    let api = ["--api", "tls:127.0.0.1:0"];
    let table: [(Vec<&str>, &str); 11] = [
        (LISTEN.to_vec(), "--listen: tls:127.0.0.1:0 needs --tls-cert and --tls-key"),
        (api.to_vec(), "--api: tls:127.0.0.1:0 needs --tls-cert and --tls-key"),
        (flags.to_vec(), "--tls-cert needs --listen tls:HOST:PORT or --api tls:HOST:PORT"),
        ([&["--listen", "127.0.0.1:0"], &flags[..]].concat(), "--tls-key needs --listen tls:HOST:PORT"),
        (vec!["--tls-min", "1.3"], "--tls-min needs --listen tls:HOST:PORT"),
        (
            [&LISTEN[..], &flags[..2]].concat(),
            "--tls-cert names 1 files, and --tls-key names 0: each certificate needs",
        ),
        ([&LISTEN[..], &flags, &flags[2..]].concat(), "--tls-cert names 1 files, and --tls-key names 2"),
        ([&LISTEN[..], &flags, &["--api-client-ca", &ca]].concat(), "--api-client-ca needs --api tls:HOST:PORT"),
        ([&api[..], &flags, &["--api-client-ca", &no_ca]].concat(), "no certificate in the file, only: PRIVATE KEY"),
        ([&api[..], &flags, &["--api-client-ca", "/nonexistent"]].concat(), "api_client_ca /nonexistent: No such file"),
        ([&["--api", "tls:0.0.0.0:0", "--api-client-ca", &ca], &flags[..]].concat(), "needs an API key"),
    ];
    for (flags, hint) in table {
        let printed = refused(&flags);
        assert!(printed.contains(hint), "{flags:?}: expected {hint:?} in {printed}");
    }
    for bad in ["1.1", "1.4", "tls1.3"] {
        let printed = check(&[&LISTEN[..], &flags, &["--tls-min", bad]].concat());
        assert!(printed.code == Some(2) && printed.err.contains("expected 1.2, 1.3"), "{printed:?}");
    }
}

#[test]
fn questionable_settings_are_warned_of() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let ca = files.write("ca.pem", AUTHORITY.certificate());
    let warned = |flags: &[&str], hint: &str| {
        let printed = check(flags);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        assert!(printed.err.contains(hint), "expected {hint:?} in {}", printed.err);
    };
    let mixed = ["--api", "tls:127.0.0.1:0,127.0.0.1:0", "--api-client-ca", &ca];
    warned(&[&mixed[..], &pair.flags()].concat(), "--api-client-ca has no effect on 127.0.0.1:0 of --api");
    warned(&["--tls-handshake-rate", "5"], "--tls-handshake-rate has no effect without");
    let open = ["--api", "tls:127.0.0.1:0,0.0.0.0:0", "--api-key", "k".repeat(32).as_str(), "--api-client-ca", &ca]
        .map(str::to_owned);
    let open: Vec<&str> = open.iter().map(String::as_str).collect();
    let printed = check(&[&open[..], &pair.flags()].concat());
    assert!(printed.code == Some(1) && printed.err.contains("has no effect on 0.0.0.0:0 of --api"), "{printed:?}");
    let nameless = files.put("nameless", &AUTHORITY.sign(&[]));
    warned(
        &[&LISTEN[..], &nameless.flags()].concat(),
        "has no DNS name and no address: clients refuse this certificate",
    );
    let back_end = AUTHORITY.sign(&["backend"]);
    let leaf = files.write("leaf.pem", AUTHORITY.certificate() + &back_end.certificate);
    let hint =
        format!("api_client_ca {leaf}: the certificate of backend is not a certificate of an authority: CA:TRUE");
    warned(&[&["--api", "tls:127.0.0.1:0", "--api-client-ca", &leaf], &pair.flags()[..]].concat(), &hint);
}

#[test]
fn a_file_with_a_private_key_that_everybody_can_read_is_warned_of() {
    let files = Files::new();
    let (pair, other) = (files.sign("server", &["localhost"]), AUTHORITY.sign(&["localhost"]));
    let both = files.write("both.pem", other.certificate.clone() + &other.key);
    let (other, ca) = (files.put("other", &other), files.write("ca.pem", AUTHORITY.certificate() + &other.key));
    let api = ["--api", "tls:127.0.0.1:0", "--api-client-ca", &ca];
    for (flags, file) in [
        (pair.flags(), &pair.key),
        // The certificate file `both` also contains the key. First one setting names this file, then both settings.
        (["--tls-cert", &both, "--tls-key", &other.key], &both),
        (["--tls-cert", &both, "--tls-key", &both], &both),
        (pair.flags(), &ca),
    ] {
        let flags = [&api[..], &flags].concat();
        assert_eq!(check(&flags).err, "", "{flags:?}");
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("the mode can be changed");
        let warning =
            format!("fdpush: warning: {file} holds secrets and can be read by everybody: run chmod o-r on the file\n");
        let printed = check(&flags);
        assert_eq!((printed.code, printed.err), (Some(0), warning), "{flags:?}");
        make_private(file.as_ref());
    }
}

#[test]
fn keys_of_every_kind_are_accepted() {
    let files = Files::new();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("the name is valid");
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("the key can be generated");
        let certificate = params.self_signed(&key).expect("the certificate can be signed").pem();
        // The certificate and the key are in one file, with a byte order mark.
        let both = files.write("both.pem", format!("\u{feff}{certificate}{}", key.serialize_pem()));
        let printed = check(&[&LISTEN[..], &["--tls-cert", &both, "--tls-key", &both]].concat());
        assert_eq!(printed.code, Some(0), "{algorithm:?} {printed:?}");
    }
}

#[test]
fn the_log_warns_before_the_end_of_a_certificate() {
    let files = Files::new();
    let pair = files.put("server", &valid(-10, 10 * DAY as i64 + DAY as i64 / 2));
    let gateway = Gateway::start(&[&LISTEN[..], &pair.flags()].concat());
    let line = gateway.logged("WARN");
    let hint =
        format!("tls_cert {}: the certificate of localhost, 127.0.0.1 expires in 10 days, at ", pair.certificate);
    assert!(line.contains(&hint), "{line}");
    // A reload repeats the warning. The log has no warning about a certificate that expires in more than 14 days.
    gateway.signal("-HUP");
    gateway.logged("expires in 10 days, at ");
    let renewed = valid(-10, 15 * DAY as i64);
    files.put("server", &renewed);
    gateway.signal("-HUP");
    gateway.logged("changed: tls_cert, tls_key");
    super::files::connect(tls_address(&gateway), "/");
    gateway.signal("-HUP");
    let lines = gateway.logged_up_to("nothing changed");
    assert!(lines.iter().all(|line| !line.contains("WARN")), "{lines:?}");
}
