//! Tests the values of settings: the server reports all errors in one run, and refuses values that can never work.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::common::command::{FREE_PORTS, call, command, command_in_shell, error_output, make_private, write};
use crate::common::{ChildProcess, Scratch};

#[test]
fn check_and_serve_report_every_error() {
    let scratch = Scratch::new("all");
    let file = write(
        &scratch,
        "colour = 1\nmissed_max = 0\norigin = [\"https://a/\", \"https://*\"]\nclient_may = [\"all\", \"join\"]\n\
         listen = [\"127.0.0.1:9502\"]\nheaders_max = 4\n",
    );
    let flags =
        ["--config", &file, "--ping-every", "soon", "--message-rate", "1.5", "--api-key-file", "/nonexistent/k"];
    let environment = [("FDPUSH_UID_CONNECTIONS_MAX", "none"), ("FDPUSH_WEBHOOK", "htp://u:hush@h")];
    for subcommand in ["check", "serve", "config"] {
        let printed = call(&[&[subcommand], &flags[..]].concat(), &environment);
        assert_eq!(printed.code, Some(2), "{printed:?}");
        let hints = [
            "--ping-every \"soon\": expected a whole number with its unit",
            "--message-rate \"1.5\": it must be a whole number, from 1 to",
            "FDPUSH_UID_CONNECTIONS_MAX \"none\": it must be a whole number, at least 1",
            "FDPUSH_WEBHOOK: expected http://HOST",
            ":1: unknown key colour",
            ":2: missed_max = 0: it must be at least 1",
            ":3: origin = [\"https://a/\"]: ",
            ":3: origin = [\"https://*\"]: ",
            ":4: client_may: the values all and nothing cannot be combined with other values",
            ":6: headers_max is 4: it must be at least 5",
            "api_key_file /nonexistent/k: No such file",
            "127.0.0.1:9502 is already used",
        ];
        for hint in &hints {
            assert_eq!(printed.err.matches(hint).count(), 1, "{subcommand}: expected {hint:?} once in {}", printed.err);
        }
        assert_eq!(printed.err.lines().count(), hints.len(), "{}", printed.err);
        assert!(
            printed.err.lines().all(|line| line.starts_with("fdpush: ")) && !printed.err.contains("hush"),
            "{}",
            printed.err
        );
    }
    // The server checks the settings of requests to a back end even if the URL is invalid.
    let ca = ["check", "--webhook-ca-file", "/nonexistent/ca", "--node", "clé", "--webhook"];
    for (url, count) in [("http://127.0.0.1:1", 2), ("ftp://a", 3)] {
        let printed = call(&[&ca[..], &[url]].concat(), &[]);
        assert!(printed.err.contains("/nonexistent/ca: No such file"), "{printed:?}");
        assert!(printed.err.contains("node name \"clé\"") && printed.err.lines().count() == count, "{printed:?}");
    }
    // If a setting is invalid, the server reports no errors of settings that depend on it.
    let printed = call(&["check", "--auth", "magic", "--auth-url", "http://127.0.0.1:1"], &[]);
    assert_eq!(printed.err.lines().count(), 1, "{printed:?}");
}

#[test]
fn number_errors_name_the_flag_and_its_range() {
    let help = call(&["serve", "--help"], &[]).out;
    let flags: Vec<&str> = help.lines().filter(|line| line.contains("<COUNT>")).collect();
    assert!(flags.len() > 10, "{help}");
    for line in flags {
        let flag = line.split_whitespace().next().expect("the line starts with a flag");
        for (value, hint) in
            [("1.5", "a whole number"), ("many", "a whole number"), ("-1", "a whole number"), ("0", "it must be ")]
        {
            // The value 0 is below the minimum of each of these flags.
            let printed = call(&["check", &format!("{flag}={value}")], &[]);
            assert!(
                printed.code == Some(2) && printed.err.contains(hint),
                "{flag}={value} must cause the error {hint:?}: {printed:?}"
            );
            assert!(printed.err.contains(&format!("{flag} {value:?}: ")), "{printed:?}");
        }
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let help = call(&["serve", "--help"], &[]).out;
    let names =
        help.lines().filter_map(|line| Some(line.split_once("[env: FDPUSH_")?.1.split(['=', ']']).next()?.to_owned()));
    let names: Vec<String> = names.map(|name| format!("FDPUSH_{name}")).collect();
    assert!(names.len() > 50, "{help}");
    let environment: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let printed = call(&["check"], &environment);
    assert_eq!((printed.code, printed.out.as_str()), (Some(0), "ok\n"), "{printed:?}");
    for name in ["FDPUSH_API_KEY", "FDPUSH_JWT_ISSUER", "FDPUSH_JWT_AUDIENCE", "FDPUSH_AUTH"] {
        assert!(printed.err.contains(&format!("{name} is empty: an empty variable counts as unset")), "{printed:?}");
    }
    let (set, unset) = (call(&["config"], &environment).out, call(&["config"], &[]).out);
    assert_eq!(set, unset);
    // An empty value of a flag or of a key in the file is an error.
    for flag in
        ["--jwt-issuer=", "--jwt-audience=", "--api-key=", "--webhook-ca-file=", "--node=", "--listen=", "--log="]
    {
        let printed = call(&["check", flag], &[]);
        assert_eq!(printed.code, Some(2), "{flag}: {printed:?}");
    }
    for line in
        ["jwt_issuer = \"\"", "jwt_audience = \" \"", "webhook_ca_file = \"\"", "api_key = [\"\"]", "node = \"\""]
    {
        assert!(error_output(line).contains("FILE:1: "), "{line}");
    }
}

#[test]
fn a_secret_has_the_same_bytes_from_every_source() {
    let (secret, key) = ("s".repeat(40), "k".repeat(40));
    let token = |flags: &[&str], environment: &[(&str, &str)]| {
        let printed = call(&[&["token", "--uid", "ann"], flags].concat(), environment);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        printed.out
    };
    // Two tokens are equal only if all bytes of the secrets are equal, and if both tokens are created in the same
    // second. So the comparison is repeated.
    let same = |flags: &[&str], environment: &[(&str, &str)]| {
        (0..20).any(|_| token(&["--jwt-secret", &secret], &[]) == token(flags, environment))
    };
    let scratch = Scratch::new("same");
    let file = scratch.file("secret");
    for (start, end) in
        [("", ""), ("", "\n"), ("", "\r\n"), ("\u{feff}", ""), ("\"", "\""), ("'", "'"), ("\u{feff}\"", "\"\r\n")]
    {
        let given = format!("{start}{secret}{end}");
        assert!(same(&["--jwt-secret", &given], &[]), "a flag with the value {given:?} must give the same secret");
        assert!(
            same(&[], &[("FDPUSH_JWT_SECRET", &given)]),
            "an environment variable with the value {given:?} must give the same secret"
        );
        let config = write(&scratch, &format!("jwt_secret = [{given:?}]\n").replace("\\u{feff}", "\\uFEFF"));
        assert!(
            same(&["--config", &config], &[]),
            "a settings file with the value {given:?} must give the same secret"
        );
        fs::write(&file, &given).expect("the file can be written");
        make_private(&file);
        let path = file.display().to_string();
        assert!(
            same(&["--jwt-key-file", &path], &[]),
            "a key file with the content {given:?} must give the same secret"
        );

        // API keys and webhook secrets are read by the same rules as JWT secrets.
        let given = format!("{start}{key}{end}");
        fs::write(&file, &given).expect("the file can be written");
        for flags in [
            &["--api-key", &*given][..],
            &["--api-key-file", &path],
            &["--webhook", "http://127.0.0.1:1", "--webhook-secret", &given],
        ] {
            let printed = call(&[&["check"], flags].concat(), &[]);
            assert_eq!(printed.code, Some(0), "{flags:?}: {printed:?}");
            let is_quoted = start.ends_with(['"', '\'']) && !flags.contains(&"--api-key-file");
            assert_eq!(
                printed.err.contains("quotes around a secret are not part"),
                is_quoted,
                "{flags:?}: {printed:?}"
            );
        }
    }
    let flags = ["--webhook", "http://127.0.0.1:1"];
    for (name, value) in [("FDPUSH_API_KEY", "\"\""), ("FDPUSH_API_KEY", "a\nb"), ("FDPUSH_WEBHOOK_SECRET", "a\tb")] {
        let printed = call(&[&["check"], &flags[..]].concat(), &[(name, value)]);
        assert!(printed.code == Some(2) && printed.err.contains(name), "{printed:?}");
    }
    let list = format!("\"{secret},{secret}\"");
    let printed = call(&["check", "--auth", "jwt"], &[("FDPUSH_JWT_SECRET", &list)]);
    assert!(printed.code == Some(1) && printed.err.contains("the whole list is in quotes"), "{printed:?}");
}

#[test]
fn a_secret_file_with_a_line_of_an_environment_file_is_refused() {
    let scratch = Scratch::new("named");
    let file = scratch.file("secret");
    let path = file.display().to_string();
    let check = |content: &[u8], flags: &[&str]| {
        fs::write(&file, content).expect("the file can be written");
        make_private(&file);
        call(&[&["check"], flags].concat(), &[])
    };
    let (api, jwt) = (["--api-key-file", &*path], ["--auth", "jwt", "--jwt-key-file", &*path]);
    let line = format!("FDPUSH_JWT_SECRET={}\n", "s".repeat(40));
    for flags in [&api[..], &jwt] {
        let printed = check(line.as_bytes(), flags);
        assert!(printed.code == Some(1) && printed.err.contains("give the value alone"), "{flags:?}: {printed:?}");
        assert!(!printed.err.contains("ssss"), "{printed:?}");
    }
    let utf16 = |order: fn(u16) -> [u8; 2], mark: &str| -> Vec<u8> {
        format!("{mark}{}\r\n", "s".repeat(40)).encode_utf16().flat_map(order).collect()
    };
    for text in [utf16(u16::to_le_bytes, "\u{feff}"), utf16(u16::to_be_bytes, "\u{feff}"), utf16(u16::to_le_bytes, "")]
    {
        let printed = check(&text, &jwt);
        assert!(printed.code == Some(1) && printed.err.contains("UTF-16: save it as UTF-8"), "{printed:?}");
    }
    // A binary secret can have any bytes.
    let binary: Vec<u8> = [0xff, 0xfe, 0, 1].repeat(16);
    assert_eq!(check(&binary, &jwt).out, "ok\n");
    let printed = check(b"one,two\nthree\n", &api);
    assert!(printed.code == Some(0) && printed.err.contains("a key has a comma: give one key per line"), "{printed:?}");
}

#[test]
fn values_that_can_never_work_are_errors() {
    let refused: [(&str, &str); 10] = [
        ("headers_max = 4", "FILE:1: headers_max is 4: it must be at least 5"),
        ("head_bytes_max = 100", "FILE:1: head_bytes_max is 100: it must be at least 142"),
        ("message_bytes_max = 10\nqueue_bytes_max = 20", "FILE:2: queue_bytes_max is 20: it must be at least 256"),
        ("message_bytes_max = 19", "FILE:1: message_bytes_max is 19: it must be at least 20, for the shortest frame"),
        ("body_bytes_max = 17", "FILE:1: body_bytes_max is 17: it must be at least 18, for the shortest push"),
        ("queue_total_bytes_max = 100", "FILE:1: queue_total_bytes_max is 100: it must be at least 256"),
        ("trusted_proxy = [\"::ffff:10.0.0.1\"]", "in IPv4 form"),
        ("webhook = \"http://h/#x\"", "fragment"),
        ("webhook = \"http://h:0/\"", "a port is a number from 1 to 65535"),
        ("listen = [\"127.0.0.1:9600\", \"127.0.0.1:9600\"]", "already used by"),
    ];
    for (text, hint) in refused {
        let printed = error_output(text);
        assert!(printed.contains(hint), "{text}: expected {hint:?} in {printed}");
    }
    for (key, kind) in [("listen", "unix"), ("listen", "proxy:unix"), ("api", "unix"), ("api", "unixgram")] {
        let printed = error_output(&format!("trusted_proxy = [\"unix\"]\n{key} = [\"{kind}:/dev/null\"]"));
        assert!(
            printed.contains(&format!("FILE:2: {key}: {kind}:/dev/null: the file exists and is not a socket")),
            "{printed}"
        );
    }
    for url in ["http://h:65536", "https://u:p@h:99999/x", "http://[::1]:70000/", "http://u@[::1]:0"] {
        let printed = error_output(&format!("webhook = \"{url}\""));
        assert!(printed.contains("a port is a number from 1 to 65535"), "{url}: {printed}");
    }
    for url in ["http://h:65535", "http://h:/x", "http://[::1]", "http://u:1@h/", "http://u:p@[::1]:1/"] {
        assert_eq!(call(&["check", "--webhook", url], &[]).out, "ok\n", "{url}");
    }
}

#[test]
fn values_that_are_probably_mistakes_are_warned_of() {
    let warned: [(&str, &str); 21] = [
        ("trusted_proxy = [\"0.0.0.0/0\"]", "lets every client choose its address"),
        ("trusted_proxy = [\"0.0.0.0/1\", \"128.0.0.0/1\"]", "128.0.0.0/1 is larger than any private network"),
        ("trusted_proxy = [\"2000::/3\"]", "2000::/3 is larger than any private network"),
        ("origin = [\"https://*.com:8443\"]", "allows every site under the top-level domain com"),
        ("address_connections_max = 9\naddress_ipv6_prefix = 128", "a client with a /64 network can exceed"),
        ("address_connections_max = 9\naddress_ipv6_prefix = 20", "applies to all clients of a provider"),
        ("api = [\"0.0.0.0:9502\"]\napi_key = [\"fourteen-bytes\"]", "an API key of 14 bytes can be guessed"),
        ("listen = [\"127.0.0.1:1\"]\ntrusted_proxy = [\"unix\"]", "unix has no effect without --listen unix:PATH"),
        ("origin = [\"wss://a.example\"]", "the origin of a page is https://a.example"),
        ("origin = [\"*\", \"https://a.example\"]", "* allows every origin"),
        ("connections_max = 10\nuid_connections_max = 11", "which is reached first"),
        ("memberships_max = 999", "--connection-groups-max exceeds FILE:1: memberships_max, which is reached first"),
        (
            "listen = [\"unix:/run/none.sock\"]\naddress_connections_max = 5",
            "no effect without --listen HOST:PORT or --trusted-proxy unix",
        ),
        ("address_ipv6_prefix = 56", "no effect without --address-connections-max"),
        (
            "webhook = \"http://127.0.0.1:1\"\nwebhook_timeout = \"1h\"",
            "--webhook-retry-time-max, which is reached first",
        ),
        ("queue_total_bytes_max = \"64KiB\"", "slow clients lose messages"),
        ("queue_bytes_min = \"33MiB\"", "exceeds half of --queue-total-bytes-max"),
        ("compress_bytes_min = 100", "compress_bytes_min has no effect without --compression on"),
        ("inflated_bytes_per_second_max = \"1MiB\"", "has no effect without --compression on"),
        ("compression = \"on\"\ncompress_bytes_min = 262145", "no message to a client is compressed"),
        (
            "webhook = \"http://127.0.0.1:1\"\nwebhook_event_bytes_max = \"1MiB\"",
            "although --message-bytes-max is 1MiB",
        ),
    ];
    let scratch = Scratch::new("warned");
    for fine in [
        "trusted_proxy = [\"10.0.0.0/8\", \"fc00::/7\"]",
        "origin = [\"http://*.localhost:3000\", \"https://*.example.com\"]",
        "address_connections_max = 9\naddress_ipv6_prefix = 48",
        "api = [\"0.0.0.0:9502\"]\napi_key = [\"0123456789abcdef\"]",
        "api_key = [\"short\"]",
    ] {
        let file = write(&scratch, fine);
        assert_eq!(call(&["check", "--config", &file], &[]).err, "", "{fine}");
    }
    for (text, hint) in warned {
        let file = write(&scratch, text);
        let printed = call(&["check", "--config", &file], &[]);
        let err = printed.err.replace(&file, "FILE");
        assert!(printed.code == Some(0) && err.contains(hint), "{text}: expected {hint:?} in {printed:?}");
    }
}

#[test]
fn an_origin_with_a_host_too_long_for_dns_is_an_error() {
    let label = "a".repeat(64);
    for (origin, hint) in [
        (format!("https://{label}.example"), "at most 63 characters"),
        (format!("https://*.{label}.example"), "at most 63 characters"),
        (format!("http://{}com", "a.".repeat(126)), "at most 253 characters"),
    ] {
        let printed = error_output(&format!("origin = [\"{origin}\"]"));
        assert!(printed.contains(hint), "{origin}: {printed}");
    }
    assert_eq!(call(&["check", "--origin", &format!("app://{label}")], &[]).out, "ok\n");
}

#[test]
fn head_bytes_max_must_leave_room_for_the_values_that_clients_send() {
    let (key, name) = ("k".repeat(400), "n".repeat(200));
    let origin = format!("https://{}.example", "o".repeat(60));
    let check = |flags: &[&str], bytes: usize| {
        let bytes = bytes.to_string();
        call(&[&["check", "--head-bytes-max", &bytes], flags].concat(), &[])
    };
    for (flags, min, why) in [
        (["--api-key", &*key], 458, "a request with the longest API key"),
        (["--subprotocols", &name], 368, "an upgrade with the longest subprotocol"),
        (["--origin", &origin], 228, "an upgrade with the longest origin"),
    ] {
        let printed = check(&flags, min - 1);
        let wanted = format!("--head-bytes-max is {}: it must be at least {min}, for {why}\n", min - 1);
        assert!(printed.code == Some(1) && printed.err.ends_with(&wanted), "{wanted}: {printed:?}");
        assert_eq!(check(&flags, min).out, "ok\n", "{flags:?}");
    }
    // A datagram has no head, so the length of its API key does not matter.
    assert_eq!(check(&["--api", "udp:127.0.0.1:9", "--api-key", &key], 200).out, "ok\n");
}

#[test]
fn a_listener_for_proxies_needs_a_proxy_that_can_connect() {
    for (listen, trusted, wanted) in [
        ("proxy:127.0.0.1:9600", "127.0.0.1", ""),
        ("proxy:127.0.0.1:9600", "127.0.0.0/8", ""),
        ("proxy:127.0.0.1:9600", "0.0.0.0/1", ""),
        ("proxy:[::1]:9600", "::1", ""),
        ("proxy:unix:/run/none.sock", "unix", ""),
        ("proxy:127.0.0.1:9600", "10.0.0.0/8", "no proxy of --trusted-proxy is on this machine"),
        ("proxy:127.0.0.1:9600", "fd00::/8", "no proxy of --trusted-proxy can connect to"),
        ("proxy:[::1]:9600", "10.0.0.0/8", "no proxy of --trusted-proxy can connect to"),
        ("proxy:127.0.0.1:9600", "unix", "no proxy of --trusted-proxy can connect to"),
        ("proxy:unix:/run/none.sock", "10.0.0.0/8", "no proxy of --trusted-proxy can connect to"),
        ("proxy:tls:unix:/run/none.sock", "10.0.0.0/8", "no proxy of --trusted-proxy can connect to"),
    ] {
        let printed = call(&["check", "--listen", listen, "--trusted-proxy", trusted], &[]);
        let is_fault = wanted.contains("can connect");
        assert_eq!(printed.code == Some(1), is_fault || listen.contains("tls:"), "{listen} {trusted}: {printed:?}");
        assert!(printed.err.contains(wanted), "{listen} {trusted}: expected {wanted:?} in {printed:?}");
        assert_eq!(printed.err.contains("expects a PROXY header"), !wanted.is_empty(), "{printed:?}");
    }
    let one = ["check", "--listen", "unix:/run/none.sock", "--proxy-protocol", "--trusted-proxy", "10.0.0.7"];
    let printed = call(&one, &[]);
    assert!(printed.code == Some(1) && printed.err.contains("can connect to unix:"), "{printed:?}");
    let printed = call(&[&one[..], &["--listen", "10.0.0.1:9600", "--auth", "trust"]].concat(), &[]);
    let warning = "fdpush: warning: --listen: no proxy of --trusted-proxy can connect to unix:/run/none.sock";
    assert!(printed.code == Some(0) && printed.err.starts_with(warning), "{printed:?}");
}

#[test]
fn a_back_end_url_with_an_address_of_the_server_itself_is_an_error() {
    for (url, own) in [
        ("http://127.0.0.1:9502/api/push", "127.0.0.1:9502 of --api"),
        ("http://u:hush@localhost:9501", "127.0.0.1:9501 of --listen"),
        ("https://LOCALHOST:9501/?hush", "127.0.0.1:9501 of --listen"),
    ] {
        for flags in [["--webhook", url, "--auth", "trust"], ["--auth-url", url, "--auth", "webhook"]] {
            let printed = call(&[&["check"], &flags[..]].concat(), &[]);
            let why = format!(
                "fdpush: {}: the URL is an address of this server ({own}), and not an address of a back end\n",
                flags[0]
            );
            assert_eq!((printed.code, printed.err), (Some(1), why), "{url}");
        }
    }
    // Sockets of a service manager replace the default address, so the URL is not an address of this server.
    assert_eq!(call(&["check", "--webhook", "http://127.0.0.1:9501"], &[("LISTEN_FDS", "1")]).out, "ok\n");
    let all = ["check", "--auth", "trust", "--listen", "0.0.0.0:80", "--webhook"];
    assert_eq!(call(&[&all[..], &["http://127.0.0.1/"]].concat(), &[]).code, Some(1));
    for other in ["https://127.0.0.1/", "http://[::1]/", "http://example.com/", "http://127.0.0.1:81/"] {
        assert_eq!(call(&[&all[..], &[other]].concat(), &[]).out, "ok\n", "{other}");
    }
}

#[test]
fn a_demo_page_that_cannot_connect_is_warned_of() {
    let jwt = ["--auth", "jwt", "--jwt-secret", "0123456789abcdef0123456789abcdef"];
    for (flags, hint) in [
        (&jwt[..], "--page is always, and --auth is jwt: the demo page sends no token"),
        (&["--origin", "capacitor://localhost,null"], "--page is always, and --origin has no http origin"),
        (&["--origin", "null,https://a.example"], ""),
        (&["--origin", "*"], ""),
        (&[], ""),
    ] {
        let printed = call(&[&["check", "--page", "always"], flags].concat(), &[]);
        assert!(printed.code == Some(0) && printed.err.contains(hint), "{flags:?}: {printed:?}");
        assert_eq!(printed.err.contains("demo page"), !hint.is_empty(), "{printed:?}");
        assert!(!call(&[&["check"], flags].concat(), &[]).err.contains("demo page"), "{flags:?}");
    }
}

#[test]
fn a_value_that_a_list_has_twice_is_warned_of() {
    for (flag, value) in [
        ("--subprotocols", "chat.v1,chat.v2,chat.v1"),
        ("--origin", "https://a.example,https://a.example"),
        ("--client-may", "join,join"),
        ("--trusted-proxy", "10.0.0.7,10.0.0.7"),
        ("--api-key", "hush,hush"),
    ] {
        let printed = call(&["check", flag, value], &[]);
        let twice = value.split(',').next().unwrap_or_default();
        let what = if twice == "hush" { "a value" } else { twice };
        let wanted = format!("fdpush: warning: {flag}: {what} is given more than once\n");
        assert_eq!((printed.code, printed.err), (Some(0), wanted));
    }
    // Two listeners with port 0 get different ports, so the repeated value is not a mistake.
    let zero = ["check", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    assert_eq!(call(&zero, &[]).err, "");
}

#[test]
fn a_variable_that_is_not_utf8_is_named() {
    for subcommand in ["check", "serve", "config"] {
        let mut command = command(&[subcommand, "--missed-max", "0"], &[]);
        command.env("FDPUSH_WEBHOOK_SECRET", OsStr::from_bytes(b"hush\xff"));
        let output = command.output().expect("the binary can run");
        let text = String::from_utf8(output.stderr).expect("the text is UTF-8");
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("fdpush: FDPUSH_WEBHOOK_SECRET: the value is not UTF-8\n"), "{subcommand}: {text}");
        assert!(text.contains("--missed-max") && !text.contains("hush"), "{subcommand}: {text}");
    }
}

#[test]
fn the_warning_about_a_low_descriptor_limit_has_the_reserved_descriptors() {
    let limited = |descriptors: u32, flags: &str| {
        let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        let line: Vec<&str> = ["check"].into_iter().chain(flags.split_whitespace()).collect();
        let output = command_in_shell(&script, &line, &[]).output().expect("the shell can run");
        String::from_utf8(output.stderr).expect("the text is UTF-8")
    };
    for (descriptors, flags, hints) in [
        (
            64,
            "",
            [
                "connections_max is 1: the descriptor limit is 64, of which 320 are reserved",
                "256 for api_connections_max",
            ],
        ),
        (1024, "", ["connections_max is 704:", "64 for listeners"]),
        (1024, "--api-connections-max 100", ["connections_max is 860:", "164 are reserved"]),
        (1024, "--api off", ["connections_max is 960:", "64 are reserved"]),
    ] {
        let printed = limited(descriptors, flags);
        for hint in hints {
            assert!(printed.contains(hint), "{descriptors} {flags}: expected {hint:?} in {printed}");
        }
    }
    assert_eq!(limited(1320, ""), "");
    assert_eq!(limited(64, "--connections-max 0").matches("it must be from 1 to").count(), 1);
}

#[test]
fn the_start_logs_the_connection_limit() {
    let mut command = command_in_shell("ulimit -n 400; exec \"$0\" \"$@\"", &["serve"], &FREE_PORTS);
    let mut served = ChildProcess::spawn(command.stdout(Stdio::null()));
    let lines = BufReader::new(served.stderr.take().expect("the output is a pipe")).lines().map_while(Result::ok);
    let printed = lines
        .into_iter()
        .find(|line| line.contains("api_connections_max is"))
        .expect("the log has a line with the limit");
    let limits = "connections_max is 80 (from the descriptor limit), api_connections_max is 256";
    assert!(printed.ends_with(limits), "{printed}");
}
