//! Tests `fdpush serve` through the real binary, with a module for each subject.

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../../src/gateway/identity/jwt/samples.rs"]
mod samples;

mod api {
    mod bulk;
    mod kill;
    mod lists;
    mod long_commands;
    mod openapi;
    mod overload;
    mod portions;
    mod push;
    mod verbs;
}

mod auth {
    mod connect_storm;
    mod identity;
    mod proxies;
    mod subprotocols;
    mod tokens;
}

mod compression;
mod log;
mod loops;
mod memory;
mod names;
mod serve;

mod settings {
    mod commands;
    mod reload;
    mod values;
}

mod tls {
    mod certificates;
    mod command;
    mod files;
    mod listeners;
    mod metrics;
    mod reload;
}

mod webhook {
    mod events;
    mod frames;
}
