//! Tests the crate's API through real sockets, with a module for each subject.

#[path = "../common/mod.rs"]
mod common;

mod compression {
    mod messages;
    mod offers;
    mod pushes;
}

mod connection {
    mod close;
    mod heartbeat;
    mod identity;
    mod sessions;
}

mod http {
    mod deferred;
    mod requests;
    mod streamed;
    mod upgrade;
}

mod listener {
    mod addresses;
    mod control;
    mod proxy_protocol;
}

mod loops {
    mod balance;
    mod bounds;
    mod clients;
    mod forwarded;
    mod isolation;
    mod lifecycle;
    mod lists;
    mod logins;
    mod order;
    mod pushes;
    mod replies;
}

mod push {
    mod slow_readers;
    mod targets;
    mod total_bound;
}

mod server {
    mod drain;
    mod embedding;
    mod handlers;
    mod limits;
    mod remote;
    mod signals;
    mod stats;
}

mod swoole;
