//! Tests that SIGHUP replaces certificates, keys and authorities together, or not at all.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::files::{
    DAY, Files, PairFiles, authority, begin, certificate_of, connect, der, finish, is_trusted, raw, tls_address, valid,
};
use crate::common::Client;
use crate::common::gateway::{Gateway, next, request, until};
use crate::common::tls::{AUTHORITY, Authority, Pair};

fn replace(files: &PairFiles, pair: &Pair) {
    fs::write(&files.certificate, &pair.certificate).expect("the file can be written");
    fs::write(&files.key, &pair.key).expect("the file can be written");
}

fn is_alive(client: &mut Client) -> bool {
    client.send(r#"{"type":"heartbeat","id":1}"#);
    next(client)["type"] == "ack"
}

#[test]
fn new_handshakes_get_the_new_certificate_and_open_connections_stay() {
    let files = Files::new();
    let old = [AUTHORITY.sign(&["localhost"]), AUTHORITY.sign(&["chat.example"])];
    let [one, two] = [files.put("one", &old[0]), files.put("two", &old[1])];
    let gateway = Gateway::start(&[&["--listen", "tls:127.0.0.1:0"], &one.flags()[..], &two.flags()].concat());
    let address = tls_address(&gateway);
    let shown = |name: &str| certificate_of(address, AUTHORITY.client_config(), name);
    assert_eq!((shown("localhost"), shown("chat.example")), (Some(der(&old[0])), Some(der(&old[1]))));
    let mut client = connect(address, "/");
    next(&mut client);

    let new = [AUTHORITY.sign(&["localhost"]), AUTHORITY.sign(&["chat.example"])];
    replace(&one, &new[0]);
    replace(&two, &new[1]);
    gateway.signal("-HUP");
    let line = gateway.logged("settings reloaded");
    assert!(line.ends_with("changed: tls_cert, tls_key") && line.contains(&two.key), "{line}");
    gateway.logged("chat.example; expires at ");
    assert_eq!((shown("localhost"), shown("chat.example")), (Some(der(&new[0])), Some(der(&new[1]))));
    assert!(is_alive(&mut client));

    // One of the four files is wrong, so the reload changes nothing.
    replace(&one, &old[0]);
    fs::write(&two.key, &old[1].key).expect("the file can be written");
    gateway.signal("-HUP");
    let line = gateway.logged("settings not reloaded");
    assert!(line.contains(&format!("tls_key {}: the key does not belong to the first certificate", two.key)), "{line}");
    assert_eq!((shown("localhost"), shown("chat.example")), (Some(der(&new[0])), Some(der(&new[1]))));

    // At the first SIGHUP, one file is missing. At the second SIGHUP, one certificate has expired.
    fs::remove_file(&two.key).expect("the file can be removed");
    gateway.signal("-HUP");
    let line = gateway.logged("settings not reloaded");
    assert!(line.contains(&format!("tls_key {}: No such file", two.key)), "{line}");
    replace(&two, &valid(-20 * DAY as i64, -10));
    gateway.signal("-HUP");
    let line = gateway.logged("settings not reloaded");
    assert!(line.contains(&format!("tls_cert {}: ", two.certificate)) && line.contains("expired at "), "{line}");
    assert_eq!((shown("localhost"), shown("chat.example")), (Some(der(&new[0])), Some(der(&new[1]))));

    // All files are valid again.
    replace(&two, &old[1]);
    gateway.signal("-HUP");
    gateway.logged("changed: tls_cert, tls_key");
    assert_eq!((shown("localhost"), shown("chat.example")), (Some(der(&old[0])), Some(der(&old[1]))));
    assert!(is_alive(&mut client));
    // No file has changed since the last reload.
    gateway.signal("-HUP");
    assert!(gateway.logged("settings reloaded").ends_with("nothing changed"));
}

#[test]
fn a_reload_changes_the_certificates_and_tls_min() {
    let files = Files::new();
    let [one, two] = [files.sign("one", &["localhost"]), files.sign("two", &["chat.example"])];
    let settings = |pairs: &[&PairFiles], min: &str| {
        let of = |file: fn(&PairFiles) -> &String| pairs.iter().map(|pair| file(pair)).collect::<Vec<_>>();
        let (certificates, keys) = (of(|pair| &pair.certificate), of(|pair| &pair.key));
        files.write("fdpush.toml", format!("tls_cert = {certificates:?}\ntls_key = {keys:?}\ntls_min = {min:?}\n"))
    };
    let config = settings(&[&one], "1.2");
    let gateway = Gateway::start(&["--listen", "tls:127.0.0.1:0", "--config", &config]);
    let address = tls_address(&gateway);
    assert!(!is_trusted(address, AUTHORITY.client_config(), "chat.example"));
    settings(&[&one, &two], "1.3");
    gateway.signal("-HUP");
    gateway.logged("changed: tls_cert, tls_key, tls_min");
    assert!(
        is_trusted(address, AUTHORITY.client_config(), "chat.example")
            && is_trusted(address, AUTHORITY.client_config(), "localhost")
    );
    let old = AUTHORITY.client_config_of(&[&rustls::version::TLS12]);
    assert!(Client::connect_tls(address, old, "/", &[]).is_err());
    // The settings name one certificate and two keys.
    files.write(
        "fdpush.toml",
        format!("tls_cert = [{:?}]\ntls_key = [{:?}, {:?}]\n", two.certificate, two.key, one.key),
    );
    gateway.signal("-HUP");
    assert!(gateway.logged("settings not reloaded").contains("each certificate needs its key"));
    settings(&[&two], "1.3");
    gateway.signal("-HUP");
    gateway.logged("changed: tls_cert, tls_key");
    assert!(
        is_trusted(address, AUTHORITY.client_config(), "chat.example")
            && !is_trusted(address, AUTHORITY.client_config(), "localhost")
    );
    // A reload keeps the TLS listener, so it cannot remove the last pair.
    files.write("fdpush.toml", "");
    gateway.signal("-HUP");
    assert!(gateway.logged("settings not reloaded").contains("needs --tls-cert and --tls-key"));
    assert!(is_trusted(address, AUTHORITY.client_config(), "chat.example"));
}

#[test]
fn the_authorities_of_back_ends_change_together_with_the_certificate() {
    let files = Files::new();
    let (pair, authorities) = (files.sign("server", &["localhost"]), [Authority::new(), Authority::new()]);
    let ca = files.write("ca.pem", authorities[0].certificate());
    let config = files.write("fdpush.toml", format!("api_client_ca = {ca:?}\n"));
    let flags = ["--api", "tls:127.0.0.1:0", "--config", &config];
    let gateway = Gateway::start(&[&flags[..], &pair.flags()].concat());
    let line = gateway.logged("the API is on tls:");
    let api = line.rsplit("tls:").next().expect("the address is valid").parse().expect("the address is valid");
    let clients = [0, 1].map(|index: usize| AUTHORITY.client_config_with(&authorities[index].sign(&["backend"])));
    let is_accepted = |index: usize| {
        let mut back_end = raw(api, clients[index].clone());
        back_end.try_send(request("GET", "/api/stats", &[("Connection", "close")], ""))
            && back_end.try_rest().starts_with(b"HTTP/1.1 200")
    };
    assert_eq!([is_accepted(0), is_accepted(1)], [true, false]);
    // After the reload, the server refuses the first client, even if the client has a session ticket.
    fs::write(&ca, authorities[1].certificate()).expect("the file can be written");
    gateway.signal("-HUP");
    gateway.logged("changed: api_client_ca");
    assert_eq!([is_accepted(0), is_accepted(1)], [false, true]);
    let expired = authorities[1].certificate() + &authority("old", -20, -10).certificate();
    for (content, why) in [
        ("", "the file is empty"),
        ("-----BEGIN X-----\nAAAA\n-----END X-----\n", "no certificate in the file, only: X"),
        (&expired, "the certificate of CN=old expired at 20"),
    ] {
        fs::write(&ca, content).expect("the file can be written");
        gateway.signal("-HUP");
        let line = gateway.logged("settings not reloaded");
        assert!(line.contains(&format!("api_client_ca {ca}: {why}")), "{line}");
    }
    fs::write(&config, "").expect("the file can be written");
    gateway.signal("-HUP");
    assert!(gateway.logged("settings not reloaded").contains("api_client_ca would be removed"));
    assert_eq!([is_accepted(0), is_accepted(1)], [false, true]);
}

#[test]
fn a_reload_reads_each_file_once() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let (ca, keys) = (files.write("ca.pem", AUTHORITY.certificate()), files.write("keys", "alpha\n"));
    let config = files.write("fdpush.toml", "webhook_queue_max = 100\n");
    let flags = ["--api", "tls:127.0.0.1:0", "--api-client-ca", &ca, "--api-key-file", &keys, "--config", &config];
    let gateway = Gateway::start(&[&flags[..], &pair.flags()].concat());
    let mut watch = OpenWatch::new(&[&pair.certificate, &pair.key, &ca, &keys]);
    // One setting changes immediately, and the other needs a restart.
    files.write("fdpush.toml", "webhook_queue_max = 200\nheaders_max = 32\n");
    gateway.signal("-HUP");
    gateway.logged("changed settings need a restart: webhook_queue_max");
    assert_eq!(watch.counts(), [1; 4]);
}

/// Counts how many times each file is opened.
struct OpenWatch {
    inotify: OwnedFd,
    watches: Vec<i32>,
}

impl OpenWatch {
    fn new(files: &[&str]) -> OpenWatch {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("inotify can be initialized");
        let watch =
            |file: &&str| inotify::add_watch(&inotify, *file, WatchFlags::OPEN).expect("the file can be watched");
        OpenWatch { watches: files.iter().map(watch).collect(), inotify }
    }

    /// Returns how many times each file was opened, in the order of the files.
    fn counts(&mut self) -> Vec<usize> {
        let mut counts = vec![0; self.watches.len()];
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = events.next() {
            let index =
                self.watches.iter().position(|watch| *watch == event.wd()).expect("the event is about a watched file");
            counts[index] += 1;
        }
        counts
    }
}

#[test]
fn the_first_tls_address_needs_a_restart() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let config = files.write("fdpush.toml", "webhook_queue_max = 100\n");
    let gateway = Gateway::start(&["--config", &config]);
    let text = format!(
        "udp = 1\nlisten = [\"tls:127.0.0.1:0\"]\ntls_cert = [{:?}]\ntls_key = [{:?}]\n",
        pair.certificate, pair.key
    );
    fs::write(&config, text.replace("udp = 1\n", "")).expect("the file can be written");
    gateway.signal("-HUP");
    let line = gateway.logged("settings not reloaded");
    assert!(line.contains("tls_cert needs --listen tls:HOST:PORT"), "{line}");
}

#[test]
fn a_reload_changes_the_handshake_rate() {
    let files = Files::new();
    let pair = files.sign("server", &["localhost"]);
    let settings = |rate: u32, time: &str| {
        files.write("fdpush.toml", format!("head_time_max = \"{time}\"\ntls_handshake_rate = {rate}\n"))
    };
    let config = settings(1, "3s");
    let gateway = Gateway::start(&[&["--listen", "tls:127.0.0.1:0", "--config", &config], &pair.flags()[..]].concat());
    let address = tls_address(&gateway);
    // All clients send their TLS hello before the first client reads.
    let handshakes = || {
        let mut clients: Vec<_> = (0..8).map(|_| begin(address)).collect();
        clients.iter_mut().filter_map(|client| finish(client).ok()).count()
    };
    // On a busy machine, all clients can be too late for `head_time_max`, so the test repeats the handshakes.
    let mut few = 0;
    until("a handshake succeeds", || {
        few = handshakes();
        few > 0
    });
    assert!(few < 8, "at one handshake a second, fewer than 8 handshakes must succeed within 3 s");
    settings(100_000, "1h");
    gateway.signal("-HUP");
    let line = gateway.logged("changed: ");
    assert!(line.contains("tls_handshake_rate"), "{line}");
    assert_eq!(handshakes(), 8);
}
