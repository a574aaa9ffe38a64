//! Sends the payload of a text message `uid payload` to the connections of this uid. Clients connect with `?uid=NAME`:
//! `cargo run --release --example p2p 127.0.0.1:9501`.

use fdpush::{Message, Server};

fn main() -> Result<(), fdpush::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9501".to_owned());
    Server::bind(address)?
        .on_open(|ctx, fd, request| {
            if let Some(uid) = request.query("uid") {
                let change = ctx.bind(fd, uid);
                if !change.is_ok() {
                    // The uid is invalid. Without this close, the connection would stay open without a uid.
                    ctx.close(fd, 1008, &change.to_string());
                }
            }
        })
        .on_message(|ctx, fd, message| {
            let Some((uid, payload)) = message.as_text().and_then(|text| text.split_once(' ')) else {
                ctx.push(fd, "message must be: uid payload");
                return;
            };
            if ctx.push_uid(uid, Message::Text(payload)).matched == 0 {
                ctx.push(fd, &format!("{uid} is offline"));
            }
        })
        .run()
}
