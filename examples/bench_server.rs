//! A server for the workloads of WebSocket benchmarks: `cargo run --release --example bench_server 127.0.0.1:9501 [CERT
//! KEY]`.
//!
//! If a certificate and its key are given as PEM files, the server speaks TLS. With `deflate` before the address,
//! permessage-deflate is on.
//!
//! - `/echo`: returns every message.
//! - `/sub`, `/pub`: sends each text message of a `/pub` connection to every `/sub` connection.
//! - `/p2p?uid=N`: sends a text `{"to":M,"data":…}`, unchanged, to uid M.
//! - `POST /push?uid=N`: sends the body as a text message to uid N.

use std::error::Error;
use std::fs;

use fdpush::{Closed, Context, Fd, Handler, Heartbeat, Limits, Message, Origins, Request, Response, Server, TlsConfig};

/// The workload of a connection.
#[derive(Copy, Clone, Default)]
enum Role {
    #[default]
    Echo,
    Sub,
    Pub,
    P2p,
}

#[derive(Default)]
struct Bench {
    roles: Vec<Role>,
}

impl Handler for Bench {
    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
        let role = match &*request.path() {
            "/sub" => Role::Sub,
            "/pub" => Role::Pub,
            "/p2p" => Role::P2p,
            _ => Role::Echo,
        };
        if matches!(role, Role::Sub) {
            ctx.join(fd, "sub");
        }
        if let Some(uid) = request.query("uid") {
            ctx.bind(fd, uid);
        }
        let slot = fd.slot().index();
        if self.roles.len() <= slot {
            self.roles.resize(slot + 1, Role::Echo);
        }
        self.roles[slot] = role;
    }

    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
        match self.roles[fd.slot().index()] {
            Role::Echo => {
                ctx.push(fd, message);
            }
            Role::Pub => {
                ctx.push_group("sub", message);
            }
            Role::P2p => {
                if let Some(uid) = message.as_text().and_then(addressee) {
                    ctx.push_uid(uid, message);
                }
            }
            Role::Sub => {}
        }
    }

    fn on_close(&mut self, _ctx: &mut Context<'_>, fd: Fd, _closed: &Closed) {
        self.roles[fd.slot().index()] = Role::Echo;
    }

    fn on_request(&mut self, ctx: &mut Context<'_>, _fd: Fd, request: &Request<'_>) -> Option<Response> {
        if request.method() != "POST" || request.path() != "/push" {
            return None;
        }
        let uid = request.query("uid")?;
        let Ok(text) = std::str::from_utf8(request.body()) else {
            return Some(Response::text(400, "body must be UTF-8\n"));
        };
        match ctx.push_uid(&uid, text).queued {
            0 => Some(Response::text(404, "offline\n")),
            _ => Some(Response::text(200, "queued\n")),
        }
    }
}

/// Returns M of a message `{"to":M,…}`. M is a number or a string.
fn addressee(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("{\"to\":")?;
    let uid = rest.get(..rest.bytes().position(|byte| byte == b',')?)?;
    Some(uid.strip_prefix('"').and_then(|uid| uid.strip_suffix('"')).unwrap_or(uid))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let compression = arguments.next_if(|first| first == "deflate").is_some();
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9501".to_owned());
    let server = match (arguments.next(), arguments.next()) {
        (Some(certificate), Some(key)) => {
            let pair = TlsConfig::builder().pair(&fs::read(certificate)?, &fs::read(key)?)?;
            Server::bind_tls(address, pair.build()?)?
        }
        _ => Server::bind(address)?,
    };
    let server = server.limits(Limits { compression, ..Limits::default() });
    server.origins(Origins::Any).heartbeat(Heartbeat::default()).handler(Bench::default()).run()?;
    Ok(())
}
