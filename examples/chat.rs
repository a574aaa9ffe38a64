//! Rooms: connect to `/ROOM?uid=NAME`, and what you say goes to the room.
//! `cargo run --release --example chat 127.0.0.1:9501`.

use fdpush::{Closed, Context, Fd, Handler, Message, Request, Response, Server, Upgrade};

/// The trait instead of closures: the place for a handler's own state.
struct Chat {
    said: u64,
}

impl Handler for Chat {
    fn on_upgrade(&mut self, _ctx: &mut Context<'_>, _fd: Fd, request: &Request) -> Upgrade {
        match request.query("uid") {
            Some(uid) if !uid.is_empty() && uid.len() <= fdpush::NAME_BYTES_MAX => Upgrade::accept().uid(uid).into(),
            _ => Upgrade::refuse(Response::text(401, "connect with ?uid=NAME\n")),
        }
    }

    fn on_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) {
        let change = ctx.join(fd, request.path());
        if !change.is_ok() {
            // The path is longer than a group's name may be.
            ctx.close(fd, 1008, &change.to_string());
            return;
        }
        self.tell(ctx, fd, "comes in");
    }

    fn on_message(&mut self, ctx: &mut Context<'_>, fd: Fd, message: Message<'_>) {
        self.said += 1;
        let text = message.as_text().unwrap_or("(something that is no text)");
        self.tell(ctx, fd, &format!("says: {text}"));
    }

    fn on_close(&mut self, ctx: &mut Context<'_>, fd: Fd, closed: &Closed) {
        self.tell(ctx, fd, &format!("leaves: {closed}. {} things were said today", self.said));
    }
}

impl Chat {
    fn tell(&self, ctx: &mut Context<'_>, fd: Fd, what: &str) {
        let line = format!("{} {what}", ctx.uid_of(fd).unwrap_or("somebody"));
        let rooms: Vec<String> = ctx.groups_of(fd).into_iter().map(str::to_owned).collect();
        ctx.push_groups(rooms.iter().map(String::as_str), Message::Text(&line).except(&[fd]));
    }
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9501".to_owned());
    Server::bind(address)?.handler(Chat { said: 0 }).run()
}
