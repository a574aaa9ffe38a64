//! Makes TLS handshakes and closes the connections in a loop.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::stream::{self, Session};
use crate::{Figures, Options, run};

/// The clients of one thread, which make their handshakes one after another.
///
/// Each client has its own TLS settings, and so its own session to resume.
pub struct Clients {
    configs: Vec<Arc<ClientConfig>>,
    next: usize,
}

impl Clients {
    /// Creates clients. With `--resume`, each client makes a full handshake and gets a session ticket.
    pub fn new(options: &Options, count: usize) -> io::Result<Clients> {
        let configs = (0..count).map(|_| Arc::new(stream::tls_config(options.resume))).collect();
        let mut clients = Clients { configs, next: 0 };
        if options.resume {
            for _ in 0..count {
                clients.next(options)?.await_ticket()?;
            }
        }
        Ok(clients)
    }

    /// Connects the next client. The client's side of the handshake is then complete, but the server's side may be
    /// incomplete.
    pub fn next(&mut self, options: &Options) -> io::Result<Session> {
        let config = &self.configs[self.next];
        self.next = (self.next + 1) % self.configs.len();
        Session::open(stream::connect(options.address)?, config)
    }
}

/// Opens the configured number of connections in each turn, and closes each connection when the server has sent its
/// session ticket.
pub fn measure(options: &Options) -> io::Result<Figures> {
    let mut clients = Clients::new(options, options.connections)?;
    run(options, || {
        let sessions: Vec<Session> =
            (0..options.connections).map(|_| clients.next(options)).collect::<Result<_, _>>()?;
        let count = sessions.len();
        for mut session in sessions {
            session.await_ticket()?;
            if session.is_resumed() != options.resume {
                return Err(io::Error::other("a session was resumed without --resume, or not resumed with --resume"));
            }
        }
        Ok(count)
    })
}
