//! The ready-made server: a user of the crate's public face, like any other.
//!
//! It adds what the crate leaves open: flags, identity, JSON frames, presence, a page to try it all.

mod cli;
mod client;
mod frame;
mod page;
mod presence;

use std::error::Error;
use std::io::Write;

use clap::Parser;
use fdpush::{Address, Server};
use simple_logger::SimpleLogger;

use self::cli::{Cli, Command, Serve};
use self::client::Gateway;

/// Runs the command line.
pub fn run() -> Result<(), Box<dyn Error>> {
    let Cli { command: Command::Serve(serve) } = Cli::parse();
    SimpleLogger::new().with_level(serve.log.into()).with_utc_timestamps().init()?;
    start(&serve)
}

fn start(serve: &Serve) -> Result<(), Box<dyn Error>> {
    let (first, others) = serve.listen.split_first().ok_or("nothing to listen on: give --listen an address")?;
    let limits = serve.limits();
    let heartbeat = serve.heartbeat();
    limits.check()?;
    heartbeat.check()?;
    let origins = serve.origins()?;

    let mut server = Server::bind(first)?;
    for address in others {
        server = server.listen(address)?;
    }
    let addresses: Vec<Address> = server.addresses().cloned().collect();
    serve.check_trust(&addresses)?;
    announce(&addresses, serve.serves_page());

    let gateway = Gateway::new(heartbeat, serve.serves_page());
    server
        .limits(limits)
        .heartbeat(heartbeat)
        .origins(origins)
        .second_login(serve.on_second_login.into())
        .handler(gateway)
        .run()?;
    log::info!("drained");
    Ok(())
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
