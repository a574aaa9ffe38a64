//! What the load client (`load`), the yardstick server (`raw`) and the proofs of how a server ends (`proof`) share.
//!
//! All are as plain as can be: one thread, one epoll, no options that a figure would have to be explained by. `load` and
//! `raw` do not know fdpush; what a server under test offers is the paths of `examples/bench_server.rs`.

pub mod epoll;
pub mod process;
pub mod wire;
