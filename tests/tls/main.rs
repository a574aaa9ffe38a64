//! Tests TLS listeners. The tests of `tests/crate` also run in this binary, through TLS, except the modules for
//! compression, listeners, embedding and signals, and some modules for several loops.

#[path = "../common/mod.rs"]
mod common;

mod handshake;
mod records;

#[path = "../crate/loops/clients.rs"]
mod clients;
#[path = "../crate/connection/close.rs"]
mod close;
#[path = "../crate/http/deferred.rs"]
mod deferred;
#[path = "../crate/server/drain.rs"]
mod drain;
#[path = "../crate/server/handlers.rs"]
mod handlers;
#[path = "../crate/connection/heartbeat.rs"]
mod heartbeat;
#[path = "../crate/connection/identity.rs"]
mod identity;
#[path = "../crate/loops/isolation.rs"]
mod isolation;
#[path = "../crate/server/limits.rs"]
mod limits;
#[path = "../crate/loops/order.rs"]
mod order;
#[path = "../crate/loops/pushes.rs"]
mod pushes;
#[path = "../crate/server/remote.rs"]
mod remote;
#[path = "../crate/http/requests.rs"]
mod requests;
#[path = "../crate/connection/sessions.rs"]
mod sessions;
#[path = "../crate/push/slow_readers.rs"]
mod slow_readers;
#[path = "../crate/server/stats.rs"]
mod stats;
#[path = "../crate/http/streamed.rs"]
mod streamed;
#[path = "../crate/swoole.rs"]
mod swoole;
#[path = "../crate/push/targets.rs"]
mod targets;
#[path = "../crate/push/total_bound.rs"]
mod total_bound;
#[path = "../crate/http/upgrade.rs"]
mod upgrade;
