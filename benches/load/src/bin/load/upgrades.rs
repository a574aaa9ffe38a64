//! Connects, upgrades and closes in a loop.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fdpush_load::wire::upgrade_request;

use crate::{Figures, Options, run};

/// Opens, upgrades and closes the configured number of connections in each turn.
pub fn measure(options: &Options) -> io::Result<Figures> {
    let request = upgrade_request("/echo");
    let mut buffer = [0; 4096];
    run(options, || {
        let mut sockets = Vec::with_capacity(options.connections);
        for _ in 0..options.connections {
            let mut socket = TcpStream::connect(options.address)?;
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
            socket.write_all(&request)?;
            sockets.push(socket);
        }
        for socket in &mut sockets {
            let count = socket.read(&mut buffer)?;
            if !buffer[..count].starts_with(b"HTTP/1.1 101 ") {
                return Err(io::Error::other("upgrade refused"));
            }
        }
        Ok(sockets.len())
    })
}
