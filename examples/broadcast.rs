//! Sends every message to all other connections. Every second, sends the time to all connections: `cargo run --release
//! --example broadcast 127.0.0.1:9501`.

use std::time::{Duration, SystemTime};

use fdpush::Server;

fn main() -> Result<(), fdpush::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9501".to_owned());
    Server::bind(address)?
        .on_start(|ctx| {
            ctx.every(Duration::from_secs(1), |ctx| {
                let unix = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
                ctx.broadcast(&format!("Unix time: {unix}"));
            });
        })
        .on_message(|ctx, fd, message| {
            ctx.broadcast(message.except(&[fd]));
        })
        .run()
}
