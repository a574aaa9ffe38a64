//! Tests of the command line and of the settings derived from it.

use super::*;
use clap::CommandFactory;
use std::time::Duration;

fn serve(flags: &[&str]) -> Result<Serve, String> {
    let line = ["fdpush", "serve"].iter().chain(flags);
    match Cli::try_parse_from(line).map_err(|error| error.to_string())?.command {
        Command::Serve(serve) => Ok(*serve),
        command => Err(format!("{command:?}")),
    }
}

#[test]
fn clap_finds_no_error_in_the_declaration_of_the_command_line() {
    Cli::command().debug_assert();
}

#[test]
fn without_flags_the_defaults_are_those_of_the_crate() {
    let serve = serve(&[]).expect("no flag is required");
    assert_eq!(serve.limits(), Limits::default());
    assert_eq!(serve.heartbeat(), Heartbeat::default());
    assert_eq!(serve.origins(), Ok(Origins::default()));
    assert_eq!(serve.listen, ["127.0.0.1:9501".parse().expect("the address is valid")]);
    assert_eq!(serve.api.addresses, ["127.0.0.1:9502".parse().expect("the address is valid")]);
    assert!(serve.serves_page());
}

#[test]
fn an_upgrade_waits_longer_than_the_timeout_of_the_connect_hook() {
    let waits = |flags: &[&str]| serve(flags).expect("the settings are valid").limits().answer_time_max;
    let hook = ["--auth", "webhook", "--auth-url", "http://127.0.0.1:1", "--auth-timeout", "30s"];
    assert_eq!(waits(&hook), Duration::from_secs(31));
    assert_eq!(waits(&[&hook[..], &["--answer-time-max", "40s"]].concat()), Duration::from_secs(40));
    assert_eq!(waits(&["--answer-time-max", "1s"]), Duration::from_secs(1));
}

#[test]
fn every_heartbeat_mode_can_be_set() {
    let heartbeat = |flags: &[&str]| serve(flags).expect("the settings are valid").heartbeat();
    let seconds = Duration::from_secs;
    let client = ["--heartbeat", "client", "--idle-max", "1m 30s"];
    assert_eq!(heartbeat(&client), Heartbeat::Client { idle_max: seconds(90) });
    let ping = ["--heartbeat", "ping", "--ping-every", "5s", "--missed-max", "3"];
    assert_eq!(heartbeat(&ping), Heartbeat::Ping { every: seconds(5), missed_max: 3 });
    assert_eq!(heartbeat(&["--heartbeat", "push", "--ping-every", "5s"]), Heartbeat::Push { every: seconds(5) });
    assert_eq!(heartbeat(&["--heartbeat", "off"]), Heartbeat::Off);
}

#[test]
fn the_error_of_an_invalid_value_names_the_flag_and_the_allowed_values() {
    let table: [(&[&str], &[&str]); 14] = [
        (&["--heartbeat", "pong"], &["pong", "--heartbeat", "client, ping, push, off"]),
        (&["--ping-every", "soon"], &["soon", "--ping-every", "25s"]),
        (&["--ping-every", "1ms"], &["1ms", "--ping-every", "from 10ms"]),
        (&["--missed-max", "0"], &["0", "--missed-max", "at least 1"]),
        (&["--queue-bytes-max", "much"], &["much", "--queue-bytes-max", "64KiB"]),
        (&["--connections-max", "99999999"], &["99999999", "--connections-max", "16777215"]),
        (&["--on-second-login", "fight"], &["fight", "multi, kick_old, reject_new"]),
        (&["--log", "loud"], &["loud", "--log", "off, error, warn"]),
        (&["--listen", "9501"], &["9501", "--listen", "HOST:PORT, [V6]:PORT or unix:PATH"]),
        (&["--api", "udp:9501"], &["9501", "--api", "unixgram:PATH or off"]),
        (&["--origin", "a.example"], &["a.example", "--origin", "https://example.com"]),
        (&["--webhook", "a.example"], &["***", "--webhook", "https://HOST"]),
        (&["--client-may", "fly"], &["fly", "--client-may", "push_own_group, push_group, push_all"]),
        (&["--headers-max", "257"], &["257", "--headers-max", "256"]),
    ];
    for (flags, hints) in table {
        let error = serve(flags).expect_err("the value is invalid");
        for hint in hints {
            assert!(error.contains(hint), "{flags:?}: expected {hint:?} in {error}");
        }
    }
}

#[test]
fn trust_on_a_reachable_address_must_be_set_explicitly() {
    let open = [Address::Tcp("0.0.0.0:9501".parse().expect("the address is valid"))];
    let local = [Address::Tcp("[::1]:9501".parse().expect("the address is valid")), Address::Unix("/tmp/x".into())];
    let check = |flags: &[&str], addresses| serve(flags).expect("the settings are valid").check_trust(addresses);
    assert_eq!(check(&[], &local), Ok(()));
    assert!(check(&[], &open).is_err_and(|why| why.contains("--auth trust")));
    assert_eq!(check(&["--auth", "trust"], &open), Ok(()));
}

#[test]
fn origins_are_checked() {
    let origins = |flags: &[&str]| serve(flags).expect("the settings are valid").origins();
    assert_eq!(origins(&["--origin", "*"]), Ok(Origins::Any));
    assert!(origins(&["--origin", "https://a.example,https://b.example"]).is_ok());
}

#[test]
fn the_default_permissions_depend_on_the_authentication() {
    let may = |flags: &[&str]| serve(flags).expect("the settings are valid").client_may();
    assert_eq!(may(&[]).len(), 7);
    assert_eq!(may(&["--auth", "jwt"]), [Permission::PushOwnGroup]);
    assert_eq!(may(&["--auth", "jwt", "--client-may", "all"]).len(), 7);
    assert_eq!(may(&["--client-may", "nothing"]), []);
    assert_eq!(may(&["--client-may", "online,push_uid"]), [Permission::PushUid, Permission::Online]);
}

#[test]
fn the_default_message_burst_is_twice_the_message_rate() {
    let burst = |flags: &[&str]| serve(flags).expect("the settings are valid").message_burst();
    assert_eq!(burst(&[]), None);
    assert_eq!(burst(&["--message-rate", "10"]), Some(20));
    assert_eq!(burst(&["--message-rate", "10", "--message-burst", "50"]), Some(50));
    // `RATE_MAX` also limits the default burst, so that `fdpush config` prints the burst that is in effect.
    assert_eq!(burst(&["--message-rate", "1000000"]), Some(RATE_MAX));
    assert_eq!(burst(&["--message-rate", "1", "--message-burst", "1000000"]), Some(RATE_MAX));
    assert!(serve(&["--message-rate", "1", "--message-burst", "1000001"]).is_err());
}

#[test]
fn debug_output_shows_no_secret() {
    let flags = ["--jwt-secret", "hush,hush2", "--api-key", "hush3", "--webhook-secret", "hush4"];
    let text = format!("{:?}", serve(&flags).expect("the settings are valid"));
    assert!(text.contains("webhook_secret: Some(***)") && !text.contains("hush"), "{text}");
}

#[test]
fn every_setting_has_its_flag_and_its_variable() {
    for command in Cli::command().get_subcommands() {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            assert_eq!(arg.get_long(), Some(id.replace('_', "-").as_str()), "{id}");
            if command.get_name() == "cert" || matches!(id, "uid" | "ttl" | "groups") {
                // The claims of a token and the flags of a certificate are not settings.
                continue;
            }
            let variable = format!("FDPUSH_{}", id.to_uppercase());
            assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()), "{id}");
            // A URL can contain a password, so help must hide URLs, too.
            let is_secret =
                matches!(arg.get_value_names(), Some([name]) if ["SECRET", "KEY", "URL"].contains(&&**name));
            assert_eq!(
                arg.is_hide_env_values_set(),
                is_secret,
                "{id}: help must hide the value of a secret, and of no other setting"
            );
        }
    }
}
