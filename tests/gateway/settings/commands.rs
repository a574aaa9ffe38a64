//! Tests settings from flags, environment and file, the commands `config` and `check`, exit codes, and inherited
//! sockets.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use crate::common::command::{FREE_PORTS, call, command, error_output, make_private, write};
use crate::common::{ChildProcess, Client, DEADLINE, Raw, Scratch};
use crate::samples;

/// Returns the line of a key in the output of `fdpush config`.
fn shown(key: &str, line: &[&str], environment: &[(&str, &str)]) -> String {
    let printed = call(&[&["config"], line].concat(), environment);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let found = printed.out.lines().find(|line| line.starts_with(&format!("{key} =")));
    found.unwrap_or_else(|| panic!("expected {key} in {}", printed.out)).to_owned()
}

#[test]
fn a_flag_overrides_environment_file_and_default() {
    let scratch = Scratch::new("precedence");
    let file = write(
        &scratch,
        "ping_every = \"5s\"\nmissed_max = 3\nhead_bytes_max = 4096\nlisten = [\"127.0.0.1:1\", \"[::1]:2\"]\nauth = \"trust\"\n",
    );
    let config = ["--config", &file];
    let environment = [("FDPUSH_PING_EVERY", "6s"), ("FDPUSH_LISTEN", "127.0.0.1:3,unix:/x")];
    let flags = ["--config", &file, "--ping-every", "7s", "--listen", "127.0.0.1:4"];

    assert_eq!(shown("ping_every", &[], &[]), "ping_every = \"25s\"  # default");
    assert_eq!(shown("ping_every", &config, &[]), "ping_every = \"5s\"  # from file");
    assert_eq!(shown("ping_every", &config, &environment), "ping_every = \"6s\"  # from environment");
    assert_eq!(shown("ping_every", &flags, &environment), "ping_every = \"7s\"  # from flag");

    assert_eq!(shown("missed_max", &config, &[]), "missed_max = 3  # from file");
    assert_eq!(shown("head_bytes_max", &config, &[]), "head_bytes_max = \"4096\"  # from file");

    // A list from the environment replaces the whole list from the file, and a list of flags replaces both.
    assert_eq!(shown("listen", &[], &[]), "listen = [\"127.0.0.1:9501\"]  # default");
    assert_eq!(shown("listen", &config, &[]), "listen = [\"127.0.0.1:1\", \"[::1]:2\"]  # from file");
    assert_eq!(shown("listen", &config, &environment), "listen = [\"127.0.0.1:3\", \"unix:/x\"]  # from environment");
    assert_eq!(shown("listen", &flags, &environment), "listen = [\"127.0.0.1:4\"]  # from flag");

    // An environment variable can name the settings file.
    assert_eq!(shown("ping_every", &[], &[("FDPUSH_CONFIG", &file)]), "ping_every = \"5s\"  # from file");
}

#[test]
fn the_output_of_config_is_a_valid_settings_file() {
    let scratch = Scratch::new("again");
    let flags = [
        "--listen=127.0.0.1:1,unix:/a \"b\"\\c",
        "--api=127.0.0.1:2,udp:127.0.0.1:3,unixgram:/run/x",
        "--heartbeat=push",
        "--ping-every=1m 30s",
        "--origin=https://a.example",
        "--client-may=push_uid,online",
        "--connections-max=1000",
        "--message-rate=10",
        "--slow-reader=conflate",
        "--webhook=http://127.0.0.1:4/hook",
        "--webhook-events=online,offline",
        "--node=it's \"me\"",
        "--drain-for=30s",
        "--drain-time-max=1m",
    ];
    for flags in [&[][..], &flags] {
        let first = call(&[&["config"], flags].concat(), &[]);
        assert_eq!((first.code, first.err.as_str()), (Some(0), ""), "{first:?}");
        let file = write(&scratch, &first.out);
        let second = call(&["config", "--config", &file], &[]);
        assert_eq!((second.code, second.err.as_str()), (Some(0), ""), "{second:?}");
        let values = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(values(&first.out), values(&second.out));
        assert!(second.out.contains("# from file") && !second.out.contains("# default"));
    }
}

#[test]
fn config_prints_the_effective_value_of_an_unset_setting() {
    let printed = call(&["config"], &[]);
    for line in [
        "# auth is not set: trust, which is allowed only if no other machine can connect",
        "# connections_max is not set: as many as the descriptor limit allows at the start",
        "# node is not set: the host name with a random suffix, chosen at the start",
        "# webhook is not set",
    ] {
        assert!(printed.out.lines().any(|found| found == line), "expected {line} in {}", printed.out);
    }
}

#[test]
fn secrets_are_masked_and_the_mask_is_refused_as_a_secret() {
    let scratch = Scratch::new("masked");
    let environment = [
        ("FDPUSH_JWT_SECRET", "hush-hush-hush-hush-hush-hush-hush,hush-hush-hush-hush-hush-hush-two"),
        ("FDPUSH_WEBHOOK_SECRET", "hush"),
    ];
    let line = ["config", "--auth", "jwt", "--api-key", "hush", "--webhook", "http://127.0.0.1:1"];
    let printed = call(&line, &environment);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(!printed.out.contains("hush"), "{}", printed.out);
    for line in [
        "jwt_secret = [\"***\", \"***\"]  # from environment",
        "webhook_secret = \"***\"  # from environment",
        "api_key = [\"***\"]  # from flag",
    ] {
        assert!(printed.out.contains(line), "expected {line} in {}", printed.out);
    }
    let file = write(&scratch, &printed.out);
    let again = call(&["check", "--config", &file], &[]);
    assert!(again.code == Some(1) && again.err.contains("give the secret itself"), "{again:?}");

    let help = call(&["serve", "--help"], &environment);
    assert!(help.code == Some(0) && !help.out.contains("hush"), "{}", help.out);
}

#[test]
fn passwords_in_urls_are_masked_everywhere() {
    let hook = "https://user:hush@example.com/hook?hush";
    let environment = [("FDPUSH_AUTH_URL", "http://us%40er:hush@h:1/x?token=hush")];
    let line = ["config", "--auth", "webhook", "--webhook", hook];
    let printed = call(&line, &environment);
    assert_eq!((printed.code, printed.out.contains("hush")), (Some(0), false), "{printed:?}");
    for line in [
        "auth_url = \"http://***@h:1/x?***\"  # from environment",
        "webhook = \"https://***@example.com/hook?***\"  # from flag",
    ] {
        assert!(printed.out.contains(line), "expected {line} in {}", printed.out);
    }
    let scratch = Scratch::new("urls");
    let again = call(&["check", "--config", &write(&scratch, &printed.out)], &[]);
    assert!(again.code == Some(1) && again.err.contains("give the URL itself"), "{again:?}");
    let help = call(&["serve", "--help"], &environment);
    assert!(help.code == Some(0) && !help.out.contains("hush"), "{}", help.out);
    let wrong = "htp://user:hush@h/";
    for printed in [
        call(&["check", "--webhook", wrong], &[]),
        call(&["check"], &[("FDPUSH_AUTH_URL", wrong)]),
        call(&["check", "--config", &write(&scratch, &format!("webhook = \"{wrong}\"\n"))], &[]),
    ] {
        assert!(
            printed.code != Some(0) && printed.err.contains("http://HOST") && !printed.err.contains("hush"),
            "{printed:?}"
        );
    }
}

#[test]
fn check_accepts_public_keys_and_refuses_invalid_key_files() {
    let scratch = Scratch::new("public");
    let file = scratch.file("key.pem");
    let check = |text: &str| {
        fs::write(&file, text).expect("the file can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("the mode can be changed");
        call(&["check", "--auth", "jwt", "--jwt-key-file", &file.display().to_string()], &[])
    };
    for key in [samples::RSA, samples::RSA_PKCS1, samples::EC, samples::ED] {
        let printed = check(key);
        assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""), "{printed:?}");
    }
    let printed = check(&"h".repeat(32));
    assert!(printed.code == Some(0) && printed.err.contains("can be read by everybody"), "{printed:?}");
    for (key, hint) in [
        ("", "secret is empty"),
        ("hush-hush\n", "a secret of 9 bytes is too short"),
        ("-----BEGIN PRIVATE KEY-----\n", "openssl pkey -pubout"),
    ] {
        let printed = check(key);
        assert!(
            printed.code == Some(1) && printed.err.contains("key.pem: ") && printed.err.contains(hint),
            "{printed:?}"
        );
    }
    let printed = call(&["check", "--auth", "jwt", &format!("--jwt-secret={}", samples::ED)], &[]);
    assert!(printed.code == Some(2) && printed.err.contains("--jwt-secret: a PEM key is not a secret"), "{printed:?}");
}

#[test]
fn check_reads_files_of_keys_and_certificates() {
    let of = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
    let token = "auth = \"jwt\"\njwt_key_file = [\"PEM\"]";
    let authority = "webhook = \"https://a\"\nwebhook_ca_file = \"PEM\"";
    let table = [
        (token, of("PRIVATE KEY", "AAAA"), "jwt_key_file PEM: found a private key: extract the public key"),
        (token, of("PUBLIC KEY", "garbage"), "jwt_key_file PEM: expected a PEM public key"),
        (authority, of("PRIVATE KEY", "AAAA"), "webhook_ca_file PEM: found a private key: give certificates only"),
        (authority, of("CERTIFICATE", "AAAA"), "webhook_ca_file PEM: certificate 1: "),
        (authority, "certificate".to_owned(), "webhook_ca_file PEM: no certificate in the file: expected PEM"),
    ];
    let scratch = Scratch::new("pem");
    let file = scratch.file("file");
    let path = file.display().to_string();
    for (settings, text, hint) in table {
        fs::write(&file, &text).expect("the file can be written");
        let printed = error_output(&settings.replace("PEM", &path)).replace(&path, "PEM");
        assert!(printed.contains(hint), "{text}: expected {hint:?} in {printed}");
    }
}

#[test]
fn check_prints_ok_or_the_errors() {
    let printed = call(&["check"], &[]);
    assert_eq!((printed.code, printed.out.as_str(), printed.err.as_str()), (Some(0), "ok\n", ""));
    let scratch = Scratch::new("keys");
    let keys = scratch.file("keys");
    fs::write(&keys, "# ours\ngood\ntwo words\n").expect("the file can be written");
    let named = format!("api_key_file = \"{}\"", keys.display());
    let of_keys = format!("api_key_file {}:3: an API key must have 1 to 512", keys.display());
    let long = format!("api_key = [\"{}\"]", "k".repeat(513));
    let long_path = format!("listen = [\"unix:/{}\"]", "s".repeat(200));
    let table: [(&str, &[&str]); 32] = [
        (&named, &[&of_keys]),
        (&long, &["FILE:1: api_key: an API key must have 1 to 512"]),
        (&long_path, &["FILE:1: listen: unix:/s", "SUN_LEN"]),
        (
            "listen = [\"127.0.0.1:9502\"]",
            &["--api: 127.0.0.1:9502 is already used by 127.0.0.1:9502 of FILE:1: listen"],
        ),
        ("auth = \"trust\"\nlisten = [\"0.0.0.0:9502\"]", &["--api: 127.0.0.1:9502 is already used by 0.0.0.0:9502"]),
        ("listen = [\"unix:/x\"]\napi = [\"unixgram:/x\"]", &["FILE:2: api: unixgram:/x is already used"]),
        ("webhook = \"http://127.0.0.1:1\"\nnode = \"clé\"", &["node name \"clé\" must be visible ASCII"]),
        (
            "auth = \"jwt\"\njwt_key_file = [\"/nonexistent/jwt.pem\"]",
            &["jwt_key_file /nonexistent/jwt.pem: No such file"],
        ),
        (
            "auth = \"webhook\"\nauth_url = \"https://a\"\nwebhook_ca_file = \"/nonexistent/ca.pem\"",
            &["webhook_ca_file /nonexistent/ca.pem: No such file"],
        ),
        ("api_key = [\"good\", \"two words\"]", &["FILE:1: api_key: an API key must have 1 to 512"]),
        ("ping_evry = \"5s\"", &["FILE:1: unknown key ping_evry", "did you mean ping_every?"]),
        ("log = \"warn\"\nlog = \"warn\"", &["FILE:2: duplicate key"]),
        ("\nmissed_max = \"2\"", &["FILE:2: missed_max", "expected an integer"]),
        ("heartbeat = \"pong\"", &["FILE:1: heartbeat = \"pong\"", "client, ping, push, off"]),
        ("head_bytes_max = \"2MiB\"", &["FILE:1: head_bytes_max is 2097152: it must be from 1 to 1048576"]),
        ("read_budget_bytes = 5", &["FILE:1: read_budget_bytes", "from 1 KiB"]),
        ("drain_for = \"1m\"", &["FILE:1: drain_for", "at most drain_time_max"]),
        ("listen = [\"0.0.0.0:1\"]", &["0.0.0.0:1", "--auth trust"]),
        ("api = [\"0.0.0.0:1\"]", &["FILE:1: api", "--api-key"]),
        ("api = [\"udp:[::]:1\"]", &["FILE:1: api", "--api-key"]),
        ("api = [\"off\", \"127.0.0.1:1\"]", &["FILE:1: api", "the value off cannot be combined with other values"]),
        ("jwt_secret = [\"0123456789abcdef0123456789abcdef\"]", &["FILE:1: jwt_secret", "--auth jwt"]),
        ("auth_url = \"http://a/\"", &["FILE:1: auth_url", "--auth webhook"]),
        ("auth = \"jwt\"", &["FILE:1: auth", "--jwt-secret or --jwt-key-file"]),
        ("auth = \"webhook\"", &["FILE:1: auth", "--auth-url"]),
        ("proxy_protocol = true", &["FILE:1: proxy_protocol", "--trusted-proxy"]),
        ("listen = [\"proxy:127.0.0.1:0\"]", &["FILE:1: listen", "proxy:127.0.0.1:0", "--trusted-proxy"]),
        ("proxy_protocol = \"true\"", &["FILE:1: proxy_protocol", "expected true or false"]),
        ("address_ipv6_prefix = 129", &["FILE:1: address_ipv6_prefix = 129", "must be from 1 to 128"]),
        ("client_may = [\"all\", \"join\"]", &["FILE:1: client_may", "cannot be combined with other values"]),
        ("webhook_queue_max = 5", &["--webhook-batch-max is 100", "FILE:1: webhook_queue_max"]),
        ("api_key_file = \"/nonexistent/keys\"", &["api_key_file /nonexistent/keys: No such file"]),
    ];
    for (text, hints) in table {
        let printed = error_output(text);
        for hint in hints {
            assert!(printed.contains(hint), "{text}: expected {hint:?} in {printed}");
        }
    }
}

#[test]
fn settings_without_effect_are_warned_of() {
    let table: [(&[&str], &[&str]); 7] = [
        (&["--connections-max", "16777215"], &["--connections-max is 16777215: the descriptor limit of"]),
        (&["--heartbeat", "off", "--missed-max", "3"], &["--missed-max", "--heartbeat ping"]),
        (&["--idle-max", "5s"], &["--idle-max", "--heartbeat client"]),
        (&["--message-burst", "5"], &["--message-burst", "--message-rate"]),
        (&["--api", "off", "--api-key", "x"], &["--api-key", "--api"]),
        (&["--webhook-timeout", "1s"], &["--webhook-timeout", "--webhook"]),
        (&["--queue-bytes-max", "1GiB"], &["--queue-bytes-max", "--queue-total-bytes-max"]),
    ];
    for (flags, hints) in table {
        let printed = call(&[&["check"], flags].concat(), &[]);
        assert_eq!((printed.code, printed.out.as_str()), (Some(0), "ok\n"), "{printed:?}");
        for hint in hints {
            assert!(printed.err.contains(hint), "{flags:?}: expected {hint:?} in {}", printed.err);
        }
    }
    // A setting without effect causes no warning if its value is the default.
    let printed = call(&["check", "--heartbeat", "off", "--missed-max", "2"], &[]);
    assert_eq!(printed.err, "");
    // The server warns of `FDPUSH_PING_EVRY`, which is misspelt. The variables `theirs` belong to other programs, and
    // the server must not warn of them.
    let theirs = ["FDPUSH_PORT", "FDPUSH_PORT_9501_TCP", "FDPUSH_API_PORT", "FDPUSH_SERVICE_HOST"];
    let environment = [("FDPUSH_PING_EVRY", "5s")].into_iter().chain(theirs.map(|name| (name, "tcp://10.0.0.1:9501")));
    let printed = call(&["check"], &environment.collect::<Vec<_>>());
    assert_eq!(printed.code, Some(0));
    assert_eq!(printed.err, "fdpush: warning: FDPUSH_PING_EVRY is not a setting; did you mean FDPUSH_PING_EVERY?\n");
}

#[test]
fn secret_files_must_be_readable_by_their_owner_only() {
    let scratch = Scratch::new("keys");
    let path = scratch.file("keys");
    fs::write(&path, "# of the shop\n\n  a-long-enough-key  \n").expect("the file can be written");
    let line = ["check", "--api", "0.0.0.0:1", "--api-key-file", path.to_str().expect("the text is UTF-8")];
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("the test owns the file");
    let printed = call(&line, &[]);
    assert!(printed.code == Some(0) && printed.err.contains("can be read by everybody"), "{printed:?}");
    make_private(&path);
    let printed = call(&line, &[]);
    assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""));
    fs::write(&path, "# none\n").expect("the file can be written");
    let printed = call(&line, &[]);
    assert!(printed.code == Some(1) && printed.err.contains("no key in the file"), "{printed:?}");
}

#[test]
fn exit_codes_distinguish_usage_errors_from_settings_errors() {
    for subcommand in ["serve", "config", "check"] {
        for (flags, environment) in [
            (&["--ping-evry", "5s"][..], &[][..]),
            (&["--listen", "9501"], &[]),
            (&["--log", "warn", "--log", "info"], &[]),
            (&[], &[("FDPUSH_MISSED_MAX", "no")]),
        ] {
            let printed = call(&[&[subcommand], flags].concat(), environment);
            assert_eq!(printed.code, Some(2), "{subcommand} {flags:?} must exit with 2: {printed:?}");
        }
        let printed = call(&[subcommand, "--config", "/nonexistent/fdpush.toml"], &[]);
        assert!(
            printed.code == Some(1) && printed.err.contains("config /nonexistent/fdpush.toml: No such file"),
            "{printed:?}"
        );
        let printed = call(&[subcommand, "--jwt-secret", &"x".repeat(32)], &[]);
        assert!(printed.code == Some(1) && printed.err.contains("--jwt-secret needs --auth jwt"), "{printed:?}");
    }
    let printed = call(&["serve", "--listen", "::1:9501"], &[]);
    assert!(printed.err.contains("expected HOST:PORT, [V6]:PORT or unix:PATH"), "{printed:?}");
}

#[test]
#[should_panic(expected = "would bind the default address of --api: give --api")]
fn a_test_that_would_bind_a_default_address_panics() {
    command(&["serve", "--listen", "127.0.0.1:0"], &[]);
}

#[test]
fn serve_applies_its_settings_file() {
    let scratch = Scratch::new("serve");
    let text =
        "listen = [\"127.0.0.1:0\"]\napi = [\"127.0.0.1:0\"]\nlog = \"off\"\nping_every = \"7s\"\npage = \"never\"\n";
    let file = write(&scratch, text);
    let mut served = ChildProcess::spawn(&mut command(&["serve", "--config", &file], &[]));
    let mut line = String::new();
    BufReader::new(served.stdout.take().expect("the output is a pipe"))
        .read_line(&mut line)
        .expect("the line can be read");
    let address =
        line.trim().rsplit(' ').next().and_then(|address| address.parse().ok()).expect("the line has an address");
    let mut client = Client::connect(address, "/", &[]).expect("the server accepts the WebSocket");
    assert!(client.text().contains("\"every_ms\":7000"));
}

#[test]
fn sockets_of_a_service_manager_are_served_and_readiness_is_reported() {
    let scratch = Scratch::new("systemd");
    let notify = scratch.file("notify");
    let manager = UnixDatagram::bind(&notify).expect("the socket can be created");
    manager.set_read_timeout(Some(DEADLINE)).expect("the socket option can be set");
    let listener = TcpListener::bind("127.0.0.1:0").expect("the port can be bound");
    let address = listener.local_addr().expect("the socket has an address");
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).expect("the descriptor is valid");
    let descriptor = listener.as_raw_fd().to_string();
    let environment = [
        ("LISTEN_FDS", "1"),
        ("LISTEN_FDS_FIRST_FD", descriptor.as_str()),
        ("LISTEN_FDNAMES", "clients"),
        ("NOTIFY_SOCKET", notify.to_str().expect("the text is UTF-8")),
    ];
    let line = ["serve", "--api", "127.0.0.1:0", "--log", "warn"];
    let mut served = ChildProcess::spawn(&mut command(&line, &environment));
    drop(listener);
    assert_eq!(notification(&manager), "READY=1\n");
    let mut client = Client::connect(address, "/", &[]).expect("the server accepts the WebSocket");
    assert!(client.text().contains("welcome"));
    served.signal("-TERM");
    assert_eq!(client.closed().0, 1001);
    assert_eq!(notification(&manager), "STOPPING=1\n");
    assert_eq!(served.exit_status().code(), Some(0));
    let mut printed = String::new();
    served.stdout.take().expect("the output is a pipe").read_to_string(&mut printed).expect("the text is UTF-8");
    assert!(printed.contains(&address.to_string()), "{printed}");
}

#[test]
fn a_failed_start_names_the_address_and_the_reason() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("the port can be bound");
    let address = taken.local_addr().expect("the socket has an address").to_string();
    for flags in [["--api", "off", "--listen", &address], ["--listen", "127.0.0.1:0", "--api", &address]] {
        let printed = call(&[&["serve"], &flags[..]].concat(), &[]);
        let reason = format!("fdpush: cannot listen on {address}: Address already in use");
        assert!(printed.code == Some(1) && printed.err.contains(&reason), "{printed:?}");
    }
    let printed = call(&["serve", "--api", "off", "--listen", "unix:/nonexistent/socket"], &[]);
    assert!(printed.err.contains("cannot listen on unix:/nonexistent/socket: No such file"), "{printed:?}");
}

#[test]
fn a_service_manager_that_does_not_read_blocks_neither_start_nor_shutdown() {
    let scratch = Scratch::new("manager");
    let notify = scratch.file("notify");
    let _manager = UnixDatagram::bind(&notify).expect("the socket can be created");
    let filler = UnixDatagram::unbound().expect("the socket can be created");
    filler.set_nonblocking(true).expect("the socket can be non-blocking");
    while filler.send_to(b"x", &notify).is_ok() {}
    let environment = [("NOTIFY_SOCKET", notify.to_str().expect("the text is UTF-8"))];
    let line = ["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--log", "warn"];
    let mut served = ChildProcess::spawn(&mut command(&line, &environment));
    let mut printed = String::new();
    BufReader::new(served.stdout.take().expect("the output is a pipe"))
        .read_line(&mut printed)
        .expect("the line can be read");
    let address = printed.trim().rsplit("http://").next().and_then(|url| url.trim_end_matches('/').parse().ok());
    let mut client =
        Client::connect(address.expect("the line has an address"), "/", &[]).expect("the server accepts the WebSocket");
    assert!(client.text().contains("welcome"));
    served.signal("-TERM");
    assert_eq!(client.closed().0, 1001);
    assert_eq!(served.exit_status().code(), Some(0));
    let mut logged = String::new();
    served.stderr.take().expect("the output is a pipe").read_to_string(&mut logged).expect("the text is UTF-8");
    for state in ["READY=1", "STOPPING=1"] {
        let warning = format!("cannot notify the service manager {state}: the notification was not received within 1s");
        assert!(logged.contains(&warning), "expected {warning} in {logged}");
    }
}

#[test]
fn an_unusable_inherited_socket_is_refused() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("the port can be bound");
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).expect("the descriptor is valid");
    let descriptor = socket.as_raw_fd().to_string();
    let environment =
        [("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", descriptor.as_str()), ("LISTEN_FDNAMES", "clients")];
    let printed = call(&["serve", "--api", "off"], &environment);
    assert_eq!(printed.code, Some(1), "{printed:?}");
    for hint in ["a UDP socket", "\"clients\"", "expected the name \"api\""] {
        assert!(printed.err.contains(hint), "expected {hint} in {}", printed.err);
    }
}

#[test]
fn a_missing_inherited_socket_is_an_error() {
    for (environment, hint) in [
        ([("LISTEN_FDS", "999999999"), ("LISTEN_PID", "")], "LISTEN_FDS must be at most 1024, not 999999999"),
        ([("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "1000000")], "descriptor 1000000, which is not a usable socket"),
    ] {
        let printed = call(&["serve"], &[&environment[..], &FREE_PORTS].concat());
        assert!(printed.code == Some(1) && printed.err.contains(hint), "{printed:?}");
    }
}

/// Returns the environment variables that pass an API socket to the server.
fn inherited_socket(socket: &impl AsFd) -> [(&'static str, String); 3] {
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).expect("the descriptor is valid");
    let descriptor = socket.as_fd().as_raw_fd().to_string();
    [("LISTEN_FDS", "1".to_owned()), ("LISTEN_FDS_FIRST_FD", descriptor), ("LISTEN_FDNAMES", "api".to_owned())]
}

fn borrowed<'a>(environment: &'a [(&'static str, String); 3]) -> Vec<(&'a str, &'a str)> {
    environment.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn an_inherited_api_socket_that_is_reachable_needs_a_key() {
    let tcp = TcpListener::bind("0.0.0.0:0").expect("the port can be bound");
    let udp = UdpSocket::bind("0.0.0.0:0").expect("the port can be bound");
    for environment in [inherited_socket(&tcp), inherited_socket(&udp)] {
        let printed = call(&["serve", "--listen", "127.0.0.1:0"], &borrowed(&environment));
        assert_eq!(printed.code, Some(1), "{printed:?}");
        assert!(printed.err.contains("can be reached from other machines and needs an API key"), "{printed:?}");
    }

    // With an API key, the server serves the inherited socket. The server refuses a reload that removes the last API
    // key.
    let scratch = Scratch::new("handed_over");
    let file = write(&scratch, "api_key = [\"alpha\"]\nmessage_bytes_max = 1000\n");
    let line = ["serve", "--config", &file, "--listen", "127.0.0.1:0", "--log", "info"];
    let environment = inherited_socket(&tcp);
    let mut served = ChildProcess::spawn(&mut command(&line, &borrowed(&environment)));
    let (tx, log) = crate::common::channel();
    let lines = BufReader::new(served.stderr.take().expect("the output is a pipe")).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tx.send(line))));
    let logged = |words: &str| while !log.next().contains(words) {};
    logged("the API is on 0.0.0.0:");
    write(&scratch, "message_bytes_max = 2000\n");
    served.signal("-HUP");
    logged("settings not reloaded: the API on 0.0.0.0:");
    let port = tcp.local_addr().expect("the socket has an address").port();
    for (key, status) in [("", 401), ("Authorization: Bearer alpha\r\n", 200)] {
        let mut raw = Raw::connect(([127, 0, 0, 1], port).into());
        raw.send(format!("GET /api/stats HTTP/1.1\r\nHost: localhost\r\n{key}\r\n"));
        assert_eq!(raw.reply().status, status);
    }
}

fn notification(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let count = manager.recv(&mut bytes).expect("the service manager receives a datagram");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}
