//! Returns every message, text or binary, up to 16 MiB: `cargo run --release --example echo 127.0.0.1:9501`.
//!
//! A second argument `deflate` turns permessage-deflate on, for messages of any length.

use fdpush::{Limits, Origins, Server};

fn main() -> Result<(), fdpush::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9501".to_owned());
    let compression = std::env::args().nth(2).is_some_and(|argument| argument == "deflate");
    let limits = Limits {
        compression,
        compress_bytes_min: 1,
        inflated_bytes_per_second_max: 1 << 30,
        message_bytes_max: 16 << 20,
        queue_bytes_max: 64 << 20,
        queue_total_bytes_max: 256 << 20,
        ..Limits::default()
    };
    Server::bind(address)?
        .limits(limits)
        .origins(Origins::Any)
        .on_message(|ctx, fd, message| {
            ctx.push(fd, message);
        })
        .run()
}
