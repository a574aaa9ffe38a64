//! Chat rooms: a client connects to `/ROOM?uid=NAME`, and its messages go to the room.
//! `cargo run --release --example chat 127.0.0.1:9501`.

use fdpush::{Closed, Context, Fd, Handler, Message, Request, Response, Server, Upgrade};

/// A handler with the state of the program. This type implements the trait `Handler`, so the server needs no closures.
struct Chat {
    message_count: u64,
}

impl Handler for Chat {
    fn on_upgrade(&mut self, _ctx: &mut Context<'_>, _fd: Fd, request: &Request<'_>) -> Upgrade {
        match request.query("uid") {
            Some(uid) if !uid.is_empty() && uid.len() <= fdpush::NAME_BYTES_MAX => Upgrade::accept().uid(uid).into(),
            _ => Upgrade::refuse(Response::text(401, "query parameter uid is missing, empty or too long\n")),
        }
    }

    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
        let change = ctx.join(fd, request.path());
        if !change.is_ok() {
            // The join failed, for example because the path is longer than the maximum length of a group name.
            ctx.close(fd, 1008, &change.to_string());
            return;
        }
        self.announce(ctx, fd, "joined");
    }

    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
        self.message_count += 1;
        let text = message.as_text().unwrap_or("(binary message)");
        self.announce(ctx, fd, &format!("said: {text}"));
    }

    fn on_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        self.announce(ctx, fd, &format!("left: {closed}. Messages so far: {}", self.message_count));
    }
}

impl Chat {
    fn announce(&self, ctx: &mut Context<'_>, fd: Fd, event: &str) {
        let line = format!("{} {event}", ctx.uid_of(fd).unwrap_or("(no uid)"));
        let groups: Vec<String> = ctx.groups_of(fd).into_iter().map(str::to_owned).collect();
        ctx.push_groups(groups, Message::Text(&line).except(&[fd]));
    }
}

fn main() -> Result<(), fdpush::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9501".to_owned());
    Server::bind(address)?.handler(Chat { message_count: 0 }).run()
}
