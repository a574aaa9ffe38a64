//! Pushes from another thread: a line `uid: text` of standard input goes to this uid, and any other line goes to all
//! connections. `cargo run --release --example remote 127.0.0.1:9501`.

use std::io::BufRead;

use fdpush::{Message, Remote, RemoteError, Server};

fn main() -> Result<(), fdpush::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9501".to_owned());
    let server = Server::bind(address)?.on_open(|ctx, fd, request| {
        if let Some(uid) = request.query("uid") {
            let change = ctx.bind(fd, uid);
            if !change.is_ok() {
                ctx.close(fd, 1008, &change.to_string());
            }
        }
    });
    let remote = server.remote();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match push_line(&remote, &line) {
                Ok(delivery) => println!("{delivery:?}"),
                Err(error) => return eprintln!("{error}"),
            }
        }
    });
    server.run()
}

fn push_line(remote: &Remote, line: &str) -> Result<fdpush::Delivery, RemoteError> {
    match line.split_once(": ") {
        Some((uid, text)) => remote.push_uid(uid, Message::Text(text)).wait(),
        None => remote.broadcast(line).wait(),
    }
}
