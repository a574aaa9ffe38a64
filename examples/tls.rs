//! Returns every message over TLS: `cargo run --release --example tls 127.0.0.1:9443 cert.pem key.pem`.
//!
//! More pairs of certificate and key may follow. The name that a client sends (SNI) selects the pair. A request that is
//! not an upgrade is answered with the TLS version and cipher suite of its connection, and the number of handshakes so
//! far.

use std::error::Error;
use std::fs;

use fdpush::{Limits, Origins, Response, Server, TlsConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: tls ADDRESS CERTIFICATE KEY [CERTIFICATE KEY]...")?;
    let mut tls = TlsConfig::builder();
    while let Some(certificate) = arguments.next() {
        let key = arguments.next().ok_or("each CERTIFICATE must be followed by its KEY")?;
        tls = tls.pair(&fs::read(certificate)?, &fs::read(key)?)?;
    }
    let limits = Limits {
        message_bytes_max: 16 << 20,
        queue_bytes_max: 64 << 20,
        queue_total_bytes_max: 256 << 20,
        ..Limits::default()
    };
    let server = Server::bind_tls(address, tls.build()?)?;
    for address in server.addresses() {
        println!("listening on {address}");
    }
    let server = server.limits(limits).origins(Origins::Any).on_message(|ctx, fd, message| {
        ctx.push(fd, message);
    });
    server
        .on_request(|ctx, _, request| {
            let tls = request.tls()?;
            let counts = ctx.stats().tls;
            let text = format!(
                "{} {}\nfull {} resumed {} failed {}\n",
                tls.version, tls.cipher, counts.full, counts.resumed, counts.failed
            );
            Some(Response::text(200, text))
        })
        .run()?;
    Ok(())
}
