//! The ready-made server: a user of the crate's public face, like any other.
//!
//! It adds what the crate leaves open: flags, identity, JSON frames, presence, a page to try it all.

#[expect(dead_code, reason = "wired up with --auth jwt")]
mod auth;
mod cli;
mod client;
mod frame;
#[cfg_attr(not(test), expect(dead_code, reason = "wired up with --api udp: and unixgram:"))]
mod ingress;
#[expect(dead_code, reason = "wired up with /metrics")]
mod metrics;
mod page;
mod presence;
mod settings;
mod systemd;
#[cfg_attr(not(test), expect(dead_code, reason = "wired up with --message-rate"))]
mod rate;

use std::error::Error;
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;

use clap::Parser;
use fdpush::{Address, Server};
use simple_logger::SimpleLogger;

use self::cli::{Cli, Command, Endpoint};
use self::client::Gateway;
use self::settings::Settings;
use self::systemd::Inherited;

/// Runs the command line.
pub fn run() -> Result<(), Box<dyn Error>> {
    let line: Vec<OsString> = std::env::args_os().collect();
    match Cli::parse_from(&line).command {
        Command::Serve(_) => start(&Settings::load(line)?),
        Command::Config(_) => {
            let settings = Settings::load(line)?;
            warn(&settings);
            say(&settings.to_toml())
        }
        Command::Check(_) => {
            let settings = Settings::load(line)?;
            settings.check()?;
            warn(&settings);
            say("ok\n")
        }
    }
}

/// Prints to standard output. Whoever closes it, as `head` does, has read enough.
fn say(text: &str) -> Result<(), Box<dyn Error>> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Where nothing is logged, warnings go straight to standard error.
fn warn(settings: &Settings) {
    for warning in settings.warnings() {
        eprintln!("fdpush: warning: {warning}");
    }
}

fn start(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let inherited = Inherited::take()?;
    let serve = &settings.serve;
    SimpleLogger::new().with_level(serve.log.into()).with_utc_timestamps().init()?;
    for warning in settings.warnings() {
        log::warn!("{warning}");
    }
    for socket in &inherited.api {
        log::warn!("{socket} is handed over for the API and not served");
    }
    let addresses = if settings.listens_by_default() && !inherited.listen.is_empty() { &[] } else { &*serve.listen };
    let server = bind(inherited.listen, addresses)?;
    let addresses: Vec<Address> = server.addresses().cloned().collect();
    serve.check_trust(&addresses)?;
    announce(&addresses, serve.serves_page());

    let heartbeat = serve.heartbeat();
    let gateway = Gateway::new(heartbeat, serve.serves_page());
    let server = server
        .limits(serve.limits())
        .heartbeat(heartbeat)
        .origins(serve.origins()?)
        .second_login(serve.clients.on_second_login.into())
        .handler(gateway);
    systemd::tell_ready();
    server.run()?;
    systemd::tell_stopping();
    log::info!("drained");
    Ok(())
}

/// A server on all of these.
fn bind(sockets: Vec<OwnedFd>, addresses: &[Endpoint]) -> Result<Server, Box<dyn Error>> {
    let mut server: Option<Server> = None;
    for socket in sockets {
        server = Some(match server {
            None => Server::from_listener(socket)?,
            Some(server) => server.listen_on(socket)?,
        });
    }
    for address in addresses {
        server = Some(match server {
            None => Server::bind(address)?,
            Some(server) => server.listen(address)?,
        });
    }
    server.ok_or_else(|| "nothing to listen on: give --listen an address".into())
}

/// Says on standard output where the server is, and what to open.
fn announce(addresses: &[Address], serves_page: bool) {
    let mut out = std::io::stdout().lock();
    for address in addresses {
        let line = match address {
            Address::Tcp(tcp) if serves_page => {
                format!("fdpush {} is running: open {}", env!("CARGO_PKG_VERSION"), page::url(*tcp))
            }
            address => format!("fdpush {} is running on {address}", env!("CARGO_PKG_VERSION")),
        };
        // A closed standard output is no reason not to serve.
        let _ = writeln!(out, "{line}");
    }
    let _ = out.flush();
}
